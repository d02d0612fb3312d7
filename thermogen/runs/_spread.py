"""Lanes over the devices of a mesh, of one process or of several."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, PyTree

from .._placement import placed

# The axis that lanes are split over, and that of devices which hold the same lanes.
_LANES, _COPIES = "thermogen_lanes", "thermogen_copies"


class Spread(NamedTuple):
    """Where lanes lie: along the first axis of a mesh, which is left to the compiler.

    Attributes:
        mesh: the devices, shape `(parts,)` or `(parts, copies)`; none of its axes is part of the
            types of arrays.

    !!! example

        ```python
        import jax
        import thermogen as tg

        mesh = jax.make_mesh((1,), ("lanes",))

        assert tg.runs.Spread.of(mesh, chains=8).n_parts == 1
        ```
    """

    mesh: Mesh

    @classmethod
    def of(cls, sharding: "Mesh | Sharding | Spread | None", **lanes: int) -> "Spread | None":
        """Over all axes of a mesh, or those over which a sharding splits the first axis.

        Args:
            sharding: the mesh or sharding; None for none.
            lanes: numbers of lanes, by name, that are to be split evenly.

        Raises:
            TypeError: for what is neither.
            ValueError: for numbers of lanes that cannot be split evenly, and for a mesh of devices
                of some processes, where there are more.
        """
        spread = cls._over(sharding)
        if spread is not None and spread.is_shared:
            found = len({device.process_index for device in spread.mesh.devices.flat})
            if found != jax.process_count():
                raise ValueError(
                    f"sharding must be over devices of all {jax.process_count()} processes, or of "
                    f"this one alone, got devices of {found}"
                )
        for name, count in lanes.items():
            if spread is not None and count % spread.n_parts:
                raise ValueError(
                    f"{name} must be a multiple of {spread.n_parts}, the number of parts that "
                    f"sharding splits them into, got {count}"
                )
        return spread

    @classmethod
    def _over(cls, sharding: "Mesh | Sharding | Spread | None") -> "Spread | None":
        if sharding is None or isinstance(sharding, Spread):
            return sharding
        if isinstance(sharding, Mesh):
            return cls._along(sharding, sharding.axis_names)
        if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
            names = (*sharding.spec, None)[0] or ()
            return cls._along(sharding.mesh, names if isinstance(names, tuple) else (names,))
        if isinstance(sharding, Sharding) and len(sharding.device_set) == 1:
            return cls(Mesh(np.asarray(list(sharding.device_set)), (_LANES,)))
        raise TypeError(f"sharding must be a Mesh or a NamedSharding of one, got {sharding!r}")

    @classmethod
    def _along(cls, mesh: Mesh, names: tuple[str, ...]) -> "Spread":
        """The same devices, those along some axes of a mesh on the first axis."""
        order = [mesh.axis_names.index(name) for name in names]
        rest = [axis for axis in range(mesh.devices.ndim) if axis not in order]
        n_parts = math.prod(mesh.devices.shape[axis] for axis in order)
        devices = mesh.devices.transpose(order + rest).reshape(n_parts, -1)
        if devices.shape[1] == 1:
            return cls(Mesh(devices[:, 0], (_LANES,)))
        return cls(Mesh(devices, (_LANES, _COPIES)))

    @property
    def n_parts(self) -> int:
        """Number of parts that lanes are split into."""
        return self.mesh.shape[_LANES]

    @property
    def is_shared(self) -> bool:
        """Whether other processes hold some of its devices."""
        return not self.everywhere.is_fully_addressable

    @property
    def everywhere(self) -> NamedSharding:
        """The sharding of an array that every device holds."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def in_force(self) -> Any:
        """A block in which `over_lanes` splits functions over these devices."""
        return jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh)

    def along(self, axis: int, shape: tuple[int, ...]) -> NamedSharding:
        """The sharding of an array split along one axis; all devices hold what does not divide."""
        if shape[axis] % self.n_parts:
            return self.everywhere
        return NamedSharding(self.mesh, _split(axis % len(shape)))

    def split(self, x: Any, axis: int = 0) -> Array:
        """A known array, the same in all processes, split along one axis."""
        return placed(x, self.along(axis, np.shape(x)))

    def constrained(self, state: PyTree[Array], axes: PyTree[int | None]) -> PyTree[Array]:
        """A traced state whose arrays are split along the axes that are given."""
        return self._moved(jax.lax.with_sharding_constraint, state, axes)

    def held(self, state: PyTree[Array], axes: PyTree[int | None]) -> PyTree[Array]:
        """The same of a known state: what is constant comes from the compiler on all devices."""
        return self._moved(placed, state, axes)

    def _moved(
        self, move: Callable[..., Array], state: PyTree[Array], axes: PyTree[int | None]
    ) -> PyTree[Array]:
        def split(axis: int | None, part: PyTree[Array]) -> PyTree[Array]:
            if axis is None:
                return part
            return jax.tree.map(lambda x: move(x, self.along(axis, x.shape)), part)

        return jax.tree.map(split, axes, state, is_leaf=lambda x: x is None)


def over_lanes(
    function: Callable[..., Any], in_axes: tuple[PyTree[int | None], ...], out_axes: PyTree[int]
) -> Callable[..., Any]:
    """A function of independent lanes, which each device of a run applies to its own.

    Within it nothing waits for other devices, and nothing is sent. Where no lanes are spread, and
    where they cannot be split evenly, it is as it was.

    Args:
        function: a function of any number of lanes, as `jax.vmap` makes one of a function of one
            lane. It closes over no arrays.
        in_axes: along which axis of the arrays of each argument lanes lie, a tree of axes or a
            prefix of it; None for what all devices get.
        out_axes: the same of what it returns.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        squares = tg.runs.over_lanes(jax.vmap(lambda x: x**2), (0,), 0)

        assert squares(jnp.arange(3.0)).tolist() == [0, 1, 4]
        ```
    """
    mesh = _mesh_in_force()
    if mesh is None:
        return function

    def call(*args: Any) -> Any:
        arrays, rest = eqx.partition(args, eqx.is_array)

        def local(*arrays: Any) -> Any:
            return function(*eqx.combine(arrays, rest))

        if not _divides(mesh, in_axes, arrays):
            return function(*args)
        return jax.shard_map(
            local,
            in_specs=_specs(in_axes, arrays),
            out_specs=_specs(out_axes, jax.eval_shape(local, *arrays)),
            axis_names={_LANES},
            check_vma=False,
        )(*arrays)

    return call


def on_all(tree: PyTree[Array]) -> PyTree[Array]:
    """Traced arrays, of which each device of a run holds all that it had a part of."""
    if _mesh_in_force() is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, PartitionSpec())


def _mesh_in_force() -> AbstractMesh | None:
    """The mesh of the run that is traced; None for no such, and for what one device does alone."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if _LANES in mesh.axis_names and _LANES not in mesh.manual_axes else None


def _specs(axes: PyTree[int | None], tree: PyTree) -> PyTree:
    """How each array is split, of arrays or of their shapes."""

    def spec(axis: int | None, part: PyTree) -> PyTree:
        return jax.tree.map(
            lambda x: PartitionSpec() if axis is None else _split(axis % x.ndim), part
        )

    return jax.tree.map(spec, axes, tree, is_leaf=lambda x: x is None)


def _divides(mesh: AbstractMesh, axes: PyTree[int | None], tree: PyTree[Array]) -> bool:
    def divides(axis: int | None, part: PyTree[Array]) -> bool:
        return axis is None or all(
            x.shape[axis] % mesh.shape[_LANES] == 0 for x in jax.tree.leaves(part)
        )

    found = jax.tree.map(divides, axes, tree, is_leaf=lambda x: x is None)
    return all(jax.tree.leaves(found))


def _split(axis: int) -> PartitionSpec:
    return PartitionSpec(*[None] * axis, _LANES)


# What functions take as `sharding`: where lanes are spread over devices; None leaves them on one.
Devices = Mesh | Sharding | Spread | None
