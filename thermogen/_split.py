"""Tables of 2^n entries that are split over the devices of a mesh stay so.

How a table is split is said by its placement where it is known, and by its type where it is traced
and the axes of the mesh are explicit. Programs of this package see it in the type in both cases.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from ._checks import check_memory
from ._placement import from_anywhere, unplaced

_P = ParamSpec("_P")
_T = TypeVar("_T")

# The most that a program holds at once: a table, its result, and four of work.
_N_TABLES = 6


def table_on_mesh(tree: PyTree) -> Array | None:
    """The table, of an energy that is one or of an array, if it lies on a mesh; else None.

    An energy is a table if its one parameter has an entry for each configuration.
    """
    leaves = jax.tree.leaves(tree)
    if len(leaves) != 1 or not isinstance(leaves[0], jax.Array) or leaves[0].ndim != 1:
        return None
    (table,) = leaves
    if hasattr(tree, "n_spins") and table.size != 2**tree.n_spins:
        return None
    return None if jax.typeof(table).sharding.mesh.empty else table


def split(tree: PyTree) -> NamedSharding | None:
    """How a table is split over devices; None where it is not, or where nothing tells."""
    table = table_on_mesh(tree)
    if table is None:
        return None
    sharding = jax.typeof(table).sharding if isinstance(table, Tracer) else table.sharding
    return sharding if isinstance(sharding, NamedSharding) and any(sharding.spec) else None


def keeps_split(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """`from_anywhere` for all arguments but tables that are split, which stay where they are."""
    gathers = from_anywhere(function)
    call: Callable[..., _T] = function

    def is_split(tree: Any) -> bool:
        return split(tree) is not None

    @functools.wraps(function)
    def placed(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if not any(map(is_split, (*args, *kwargs.values()))):
            return gathers(*args, **kwargs)
        args, kwargs = jax.tree.map(
            lambda x: x if is_split(x) else unplaced(x), (args, kwargs), is_leaf=is_split
        )
        return call(*args, **kwargs)

    return placed


def in_parts(function: Callable[..., _T]) -> Callable[..., _T]:
    """A function of tables and numbers, compiled with the split in the types of its arguments.

    Where no table lies on a mesh it is called as it is. Derivatives are taken of the compiled
    function: what is known here is traced in the middle of `jax.grad`, and no longer says where
    it lies.
    """

    @jax.custom_jvp
    def call(*args):
        return _program(function, args)(*args)

    @call.defjvp
    def _(primals, tangents):
        return jax.jvp(_program(function, primals), primals, tangents)

    @functools.wraps(function)
    def placed(*args):
        return (call if any(table_on_mesh(x) is not None for x in args) else function)(*args)

    return placed


def _program(function: Callable, args: tuple[PyTree, ...]) -> Callable:
    placements = [split(x) for x in args]
    meshes = [placement.mesh for placement in placements if placement is not None]
    if not meshes:
        return function
    for table in map(table_on_mesh, args):
        if table is not None and not isinstance(table, Tracer):
            _check_memory(table)
    specs = tuple(PartitionSpec() if p is None else p.spec for p in placements)
    return _compiled(function, meshes[0], specs)


@functools.cache
def _compiled(
    function: Callable, mesh: Mesh | AbstractMesh, specs: tuple[PartitionSpec, ...]
) -> Callable:
    abstract = mesh.abstract_mesh
    if AxisType.Auto in abstract.axis_types and isinstance(mesh, Mesh):
        function = jax.sharding.explicit_axes(function, in_sharding=specs)
    program = jax.jit(function)

    def call(*args):
        with jax.sharding.use_abstract_mesh(abstract):
            return program(*args)

    return call


def _check_memory(table: Array) -> None:
    """Of a processor, which ends the process where an accelerator says what is missing."""
    parts = [x.data for x in table.addressable_shards]
    if parts and parts[0].device.platform == "cpu":
        n = table.size.bit_length() - 1
        check_memory(f"a table of {n} spins", _N_TABLES * sum(x.nbytes for x in parts))
