"""The origin of results: fingerprints of functional, energy and beta, and of a random key."""

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import prng_key
from jaxtyping import UInt32

# What a fingerprint tells apart, a row each.
ORIGINS = ("functional", "energy", "beta")
_WORDS = 2


def fingerprint(functional: Any, energy: Any, beta: Any) -> UInt32[np.ndarray, "3 2"]:
    """64 bits each for functional, energy and beta: equal for equal classes, structure, numbers.

    Numbers count as float32 holds them, so that copies in float32 and float64 are one; rows of
    zeros stand for what is unknown. What is None is unknown.
    """
    return np.stack([_words(x) for x in (functional, energy, beta)])


def run_of(key: Any) -> UInt32[np.ndarray, "1 2"]:
    """The name of what was drawn from a random key: equal for equal keys."""
    return _words(key)[None]


def mismatch(
    first: UInt32[np.ndarray, "3 2"], second: UInt32[np.ndarray, "3 2"]
) -> tuple[str, ...]:
    """Which of functional, energy and beta are known to differ."""
    known = np.any(first, axis=1) & np.any(second, axis=1)
    differ = known & np.any(np.asarray(first) != np.asarray(second), axis=1)
    return tuple(np.array(ORIGINS)[differ].tolist())


def _words(x: Any) -> UInt32[np.ndarray, " 2"]:
    if x is None:
        return np.zeros(_WORDS, np.uint32)
    digest = hashlib.blake2b(digest_size=4 * _WORDS)
    _feed(digest, x)
    return np.frombuffer(digest.digest(), np.uint32).copy()


def _feed(digest: Any, x: Any) -> None:
    """Names, structure and numbers of a tree of modules, whatever it holds."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, prng_key):
        x = jax.random.key_data(x)
    if isinstance(x, bool | int | float | complex | np.generic | np.ndarray | jax.Array):
        array = np.asarray(x)
        floating = not np.issubdtype(array.dtype, np.integer) and array.dtype != bool
        # Minus zero is zero.
        array = array.astype(np.float32) + np.float32(0) if floating else array.astype(np.int64)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    elif isinstance(x, tuple | list):
        digest.update(f"sequence of {len(x)}".encode())
        for item in x:
            _feed(digest, item)
    elif isinstance(x, dict):
        for key in sorted(x, key=str):
            digest.update(f"key {key}".encode())
            _feed(digest, x[key])
    elif x is None or isinstance(x, str | bytes) or callable(x) and hasattr(x, "__qualname__"):
        name = x if isinstance(x, str | bytes | None) else f"{x.__module__}.{x.__qualname__}"
        digest.update(repr(name).encode())
    else:
        digest.update(f"{type(x).__module__}.{type(x).__qualname__}".encode())
        for name in _attributes(x):
            digest.update(name.encode())
            _feed(digest, getattr(x, name))


def _attributes(x: Any) -> list[str]:
    """Names of the fields of an object, private ones of plain objects left out."""
    if dataclasses.is_dataclass(x):
        return [field.name for field in dataclasses.fields(x)]
    names = [*getattr(x, "__dict__", {}), *getattr(type(x), "__slots__", ())]
    return sorted(name for name in names if not name.startswith("_"))
