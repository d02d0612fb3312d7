"""Programs that run once or twice, and are compiled with fewer passes."""

import functools
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
from jax.core import Tracer, eval_context

from ._xla import few_passes

_Function = TypeVar("_Function", bound=Callable)


def compiled_quickly(function: _Function) -> _Function:
    """`eqx.filter_jit` for what takes longer to compile than to run.

    Or for what spends its time in factorisations and products of matrices, which are compiled
    already. A program that it is part of keeps its own options.
    """

    @functools.wraps(function)
    def call(*args, **named):
        if any(isinstance(x, Tracer) for x in jax.tree.leaves((args, named))):
            return _compiled(function, None)(*args, **named)
        # Of known numbers also where others are traced, as one program and not piece by piece.
        with eval_context():
            return _compiled(function, jax.default_backend())(*args, **named)

    return call  # pyright: ignore[reportReturnType]


@functools.cache
def _compiled(function, backend: str | None):
    options = {"compiler_options": few_passes()} if backend == "cpu" else {}
    return eqx.filter_jit(function, **options)  # pyright: ignore
