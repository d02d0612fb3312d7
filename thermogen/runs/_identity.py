"""Which run a run is, by all that it is made of."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from .. import _digest
from .._placement import on_host

_FORMAT = "thermogen run 1"


def fingerprint(tree: PyTree) -> str:
    """Equal for equal trees: their classes, structure and numbers to the last bit."""
    return _hashed(tree, on_host).hexdigest()


def local_fingerprint(tree: PyTree) -> bytes:
    """The same by what this process knows: of arrays split over processes only shapes count."""
    return _hashed(tree, lambda x: (x.shape, str(x.dtype))).digest()


def _hashed(tree: PyTree, split: Callable[[jax.Array], Any]):
    digest = hashlib.sha256(_FORMAT.encode())
    known = jax.tree.map(lambda x: split(x) if _is_split(x) else x, tree)
    _digest.feed(digest, known, lambda array: array)
    return digest


def _is_split(x: object) -> bool:
    return isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated)
