"""Programs that run once or twice, and are compiled with fewer passes."""

import functools
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax

_Function = TypeVar("_Function", bound=Callable)

# Of a processor. They save more than half of the time to compile, and cost a sixth of that to run.
_FEW_PASSES = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 1}


def compiled_quickly(function: _Function) -> _Function:
    """`eqx.filter_jit` for what takes longer to compile than to run; not part of other programs."""

    @functools.wraps(function)
    def call(*args):
        return _compiled(function, jax.default_backend())(*args)

    return call  # pyright: ignore[reportReturnType]


@functools.cache
def _compiled(function, backend: str):
    options = {"compiler_options": _FEW_PASSES} if backend == "cpu" else {}
    return eqx.filter_jit(function, **options)  # pyright: ignore
