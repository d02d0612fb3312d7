"""Array aliases shared by every room of the package.

The aliases describe ONE configuration; batching is the caller's `jax.vmap`. A shape string of a
single name starts with a space, so that linters do not read it as a forward reference.
"""

import numpy as np
from jax import Array
from jaxtyping import Float, Num, PRNGKeyArray, Real

# One configuration, every entry -1 or +1. Integers are welcome, and so is a row of a NumPy data
# set, stored as float64 or int8.
Spins = Num[Array | np.ndarray, " n"]

# Means of the spins under a product measure, in [-1, 1]; exactly +-1 where a spin is clamped.
Magnetizations = Float[Array | np.ndarray, " n"]

# Inverse temperature, in 1/energy (k_B = 1). Always an argument, never stored in an energy.
Beta = float | int | np.floating | Real[Array | np.ndarray, ""]

# Temperature, in units of energy.
Temperature = Beta

# How many: an integer of Python or NumPy.
Count = int | np.integer

# A JAX random key, new style (`jax.random.key`) or old style (`jax.random.PRNGKey`).
Key = PRNGKeyArray
