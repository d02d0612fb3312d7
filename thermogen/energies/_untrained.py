"""Untrained energies by the name of their model, as command lines and estimators give it."""

import math
from itertools import combinations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from .._checks import as_array
from .._types import Key
from ._base import AbstractMultilinear
from ._complete import Complete
from ._interactions import Interactions, SpinSets
from ._pairwise import Pairwise
from ._rbm import RBM, fields_of_means

_MODELS = "'pairwise', 'rbm:HIDDEN', 'interactions:DEGREE' or 'complete'"

# Sets of spins that `interactions:DEGREE` lists, which takes a second; spins of `complete`.
_MAX_SETS, _MAX_COMPLETE = 2**18, 20


def untrained(model: str, means: Num[ArrayLike, "*shape"], *, key: Key) -> AbstractMultilinear:
    """The energy of independent spins with given means, of the model that is to be trained.

    Args:
        model: `"pairwise"` for `Pairwise`; `"rbm:HIDDEN"` for an `RBM` with that many hidden spins,
            see `RBM.random`; `"interactions:DEGREE"` for `Interactions` of all sets of one to that
            many spins, 2^18 at most; `"complete"` for `Complete`, up to 20 spins.
        means: mean of each visible spin in the data, shape `(n_visible,)`. A spin that is constant
            there still turns once in 10^4 samples.
        key: random key, of the weights of an RBM.

    Raises:
        ValueError: for any other model, one that is too large, and means outside [-1, 1].

    !!! example

        ```python
        import jax
        import thermogen as tg

        data = tg.datasets.southern_women()
        energy = tg.energies.untrained("rbm:4", data.mean(axis=0), key=jax.random.key(0))
        assert energy.n_hidden == 4 and energy.n_visible == data.shape[1]
        ```
    """
    kind, size = _parsed(model)
    means = _checked(means)
    fields = fields_of_means(means)
    if kind == "pairwise":
        return Pairwise(jnp.zeros((fields.size, fields.size), fields.dtype), fields)
    if kind == "rbm":
        return RBM.random(size, means, key=key)
    if kind == "complete":
        return _complete(fields)
    return _interactions(size, fields)


def _parsed(model: str) -> tuple[str, int]:
    """Kind and size of a model; the size of one that has none is 0."""
    kind, colon, size = model.partition(":")
    is_sized = kind in ("rbm", "interactions")
    if not is_sized and (colon or kind not in ("pairwise", "complete")):
        raise ValueError(f"model must be {_MODELS}, got {model!r}")
    if is_sized and not (size.isascii() and size.isdigit() and int(size)):
        example = f"{kind}:{16 if kind == 'rbm' else 3}"
        raise ValueError(
            f"model must give a number of 1 or more after the colon, such as {example!r}, got "
            f"{model!r}"
        )
    return kind, int(size) if is_sized else 0


def _checked(means: Num[ArrayLike, "*shape"]) -> Float[Array, " v"]:
    array = np.asarray(as_array("means", means))
    if array.ndim != 1 or not np.all(np.abs(array) <= 1):
        raise ValueError(
            "means must hold the mean of each spin, from -1 to 1, in shape (n_visible,), got shape "
            f"{array.shape}" + (f" and {array.min():g} to {array.max():g}" if array.size else "")
        )
    return jnp.asarray(array, jnp.result_type(float, array))


def _interactions(degree: int, fields: Float[Array, " v"]) -> Interactions:
    n, degree = fields.size, min(degree, fields.size)
    n_sets = sum(math.comb(n, p) for p in range(1, degree + 1))
    if n_sets > _MAX_SETS:
        raise ValueError(
            f"model 'interactions:{degree}' has {n_sets} sets of {n} spins, more than {_MAX_SETS}; "
            "choose a lower degree, or an RBM"
        )
    sets = [
        SpinSets(np.array(list(combinations(range(n), p)), np.int32)) for p in range(1, degree + 1)
    ]
    couplings = [jnp.zeros(len(table), fields.dtype) for table in sets[1:]]
    return Interactions(n, sets, [fields, *couplings])


def _complete(fields: Float[Array, " v"]) -> Complete:
    if fields.size > _MAX_COMPLETE:
        raise ValueError(
            f"model 'complete' has 2^n parameters, for up to {_MAX_COMPLETE} spins, got "
            f"{fields.size}; choose 'interactions:DEGREE', or an RBM"
        )
    table = jnp.zeros(2**fields.size, fields.dtype)
    return Complete(table.at[2 ** np.arange(fields.size)].set(fields))
