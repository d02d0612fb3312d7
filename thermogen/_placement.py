"""Where arrays lie: public functions take them from any device and any mesh."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec, Sharding
from jaxtyping import PyTree

_P = ParamSpec("_P")
_T = TypeVar("_T")


def from_anywhere(
    function: Callable[_P, _T], spread: tuple[str, ...] = ("sharding",)
) -> Callable[_P, _T]:
    """A function whose arguments may lie on different devices, or on a mesh of several.

    Keyword arguments named in `spread` stay where they are, and the work is done there.
    """

    call: Callable[..., _T] = function

    @functools.wraps(function)
    def placed(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        kept = {name: kwargs.pop(name) for name in spread if kwargs.get(name) is not None}
        given = (unplaced if kept else gathered)((args, kwargs))
        given[1].update(kept)
        mesh = _explicit_mesh(given)
        if mesh is None:
            return call(*given[0], **given[1])
        return _without_types(call, given, mesh)

    return placed


def gathered(tree: PyTree) -> PyTree:
    """Arrays on a mesh, or on different devices, as arrays that may lie anywhere; else as given.

    Host code that errs on one device of several ends the process. Traced arrays pass.
    """
    placed = [x for x in map(_committed, jax.tree.leaves(tree)) if x is not None]
    devices = set[jax.Device]().union(*(x.sharding.device_set for x in placed))
    # Types speak of explicit axes also where the mesh is one device.
    typed = any(AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types for x in placed)
    return unplaced(tree) if typed or len(devices) > 1 else tree


def unplaced(tree: PyTree) -> PyTree:
    """Known arrays as those that JAX puts wherever a computation runs."""
    return jax.tree.map(lambda x: x if _committed(x) is None else _free(x), tree)


def _committed(x: Any) -> jax.Array | None:
    known = isinstance(x, jax.Array) and not isinstance(x, Tracer)
    return x if known and x.committed else None


def _free(x: jax.Array) -> jax.Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = jnp.asarray(on_host(jax.random.key_data(x)))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    with jax.enable_x64(True):  # or float64 would be cut to 32 bits
        return jnp.asarray(on_host(x))


def on_host(x: Any) -> np.ndarray:
    """A known array as a NumPy array in every process, wherever its parts lie.

    What lies in other processes is gathered: all of them must ask.
    """
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)


def placed(x: Any, sharding: Sharding) -> jax.Array:
    """A known array, the same in all processes, where a sharding wants it."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = placed(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if isinstance(x, jax.Array) and x.sharding.is_equivalent_to(sharding, x.ndim):
        return x
    known = on_host(x)
    return jax.make_array_from_callback(known.shape, sharding, lambda index: known[index])


def _explicit_mesh(tree: PyTree) -> AbstractMesh | None:
    """The mesh that is part of the types of traced arrays, if there is one."""
    for x in jax.tree.leaves(tree):
        if isinstance(x, Tracer):
            mesh = jax.typeof(x).sharding.mesh
            if AxisType.Explicit in mesh.axis_types:
                return mesh
    return None


def _without_types(function: Callable[..., _T], given: PyTree, mesh: AbstractMesh) -> _T:
    """The call where the axes of the mesh are left to the compiler; results are replicated.

    Types that say how arrays are split would have to be given to every gather and loop.
    """
    arrays, rest = eqx.partition(given, eqx.is_array)
    others = None

    def call(arrays):
        nonlocal others
        args, kwargs = eqx.combine(arrays, rest)
        found, others = eqx.partition(function(*args, **kwargs), eqx.is_array)
        return found

    everywhere = NamedSharding(mesh, PartitionSpec())
    found = jax.sharding.auto_axes(call, out_sharding=everywhere)(arrays)
    combined: Any = eqx.combine(found, others)
    return combined
