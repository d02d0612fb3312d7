"""What users have by default: single precision, NumPy inputs, warnings visible.

The rest of the suite runs in double precision, so this runs in a process of its own.
"""

import pathlib
import subprocess
import sys

import pytest

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np, helpers, thermogen as tg
assert not jax.config.jax_enable_x64
corner = np.array([1, -1, 1, 1, -1, 1], np.int8)
inside = 0.5 * corner.astype(np.float64)
for name, make in helpers.ENERGIES.items():
    energy = make(6, jax.random.key(1))
    tap = tg.TAP()
    solve = jax.jit(lambda energy, init: tg.solve(tap, energy, 0.5, init).value)
    assert jnp.isfinite(tap(energy, np.float64(0.5), inside))
    first = solve(energy, corner)
    assert first.dtype == solve(energy, inside).dtype == jnp.float32, name
    if name == "interactions":
        # In double precision in between, and back in single precision afterwards.
        certified = tg.quench(tap, energy, 0.5, np.stack([corner, inside]))
        assert certified.value.dtype == np.float64 and certified.stats["residual"].max() < 1e-8
        assert np.abs(certified.value[0] - first).max() < 1e-3, name
        assert solve(energy, inside).dtype == jnp.float32
    swept = tg.Gibbs().step(energy, 1.0, jnp.asarray(corner), jax.random.key(2))[0]
    assert swept.dtype == jnp.float32 and set(np.abs(np.asarray(swept))) == {1.0}
data = tg.datasets.adder(1)
start = tg.Interactions.from_terms(4, {(0, 1, 2): 0.0, (3,): 0.0})
objective = tg.MeanFieldLikelihood(tg.TAP())
fitted = tg.fit(objective, start, data, key=jax.random.key(0), n_steps=20)
library = tg.find_minima(
    tg.TAP(), fitted.energy, 1.0, key=jax.random.key(0), n_starts=8, starts=data
)
assert library.size >= 1 and abs(float(library.weights(1.0).sum()) - 1) < 1e-5
print("single precision works")
"""


@pytest.mark.further
def test_the_default_configuration_works():
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    tests = pathlib.Path(__file__).parent
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "single precision works", done.stderr[-2000:]
