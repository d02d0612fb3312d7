"""The origin of results: fingerprints of functional, energy and beta, and of a random key."""

import hashlib
from typing import Any

import numpy as np
from jaxtyping import UInt32

from .._digest import feed

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
    feed(digest, x, _number)
    return np.frombuffer(digest.digest(), np.uint32).copy()


def _number(array: np.ndarray) -> np.ndarray:
    floating = not np.issubdtype(array.dtype, np.integer) and array.dtype != bool
    # Minus zero is zero.
    return np.asarray(array.astype(np.float32) + np.float32(0) if floating else array.astype(int))
