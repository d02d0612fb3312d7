"""The picture of the README: every minimum found of a free energy of a model of the digits.

python -m experiments readme_picture [--out FILE]
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from experiments._shared import save
from thermogen.plots import states_figure

# As users have it who set nothing.
X64 = False


def main(out: pathlib.Path = pathlib.Path("docs/images/digits_library.png")) -> None:
    data = tg.datasets.digits().spins
    start = tg.Pairwise(jnp.zeros((64, 64)), jnp.zeros(64))
    energy = tg.fit(tg.Pseudolikelihood(), start, data, key=jax.random.key(0)).energy
    for name, functional in [("naive mean field", tg.NaiveMeanField()), ("TAP", tg.TAP())]:
        library = tg.find_minima(functional, energy, 1.0, key=jax.random.key(1), starts=data)
        print(f"{name}: {library.size} minima, max residual {library.residuals.max():.1e}")
        if name == "naive mean field":
            figure = states_figure(
                library.magnetizations,
                library.free_energies,
                np.asarray(library.weights(1.0)),
                library.hits,
                library.curvatures,
                picture=(8, 8),
            )
            save(out, figure)
