"""The picture of the README: every minimum found of a free energy of a model of the digits.

python experiments/readme_picture.py [--out FILE]
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from thermogen.plots import states_figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = pathlib.Path("docs/images/digits_library.png")
    parser.add_argument("--out", type=pathlib.Path, default=default)
    out = parser.parse_args().out
    data = tg.datasets.digits().spins
    start = tg.Pairwise(jnp.zeros((64, 64)), jnp.zeros(64))
    energy = tg.fit(tg.Pseudolikelihood(), start, data, key=jax.random.key(0)).energy
    for name, functional in [("naive mean field", tg.NaiveMeanField()), ("TAP", tg.TAP())]:
        library = tg.find_minima(functional, energy, 1.0, key=jax.random.key(1), starts=data)
        used = library.mask
        print(f"{name}: {library.size} minima, max residual {library.residuals[used].max():.1e}")
        if name == "naive mean field":
            out.parent.mkdir(parents=True, exist_ok=True)
            figure = states_figure(
                library.magnetizations[used],
                library.free_energies[used],
                np.asarray(library.weights(1.0))[used],
                library.hits[used],
                library.curvatures[used],
                picture=(8, 8),
            )
            figure.savefig(out, dpi=160)


if __name__ == "__main__":
    main()
