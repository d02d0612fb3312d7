"""Lanes over the devices of a mesh, of one process or of several."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, PyTree

from .._placement import placed


class Spread(NamedTuple):
    """Where lanes lie: along some axes of a mesh, which are left to the compiler.

    Attributes:
        mesh: the devices; none of its axes is part of the types of arrays.
        names: the axes of the mesh that lanes are split over.
    """

    mesh: Mesh
    names: tuple[str, ...]

    @classmethod
    def of(cls, sharding: "Mesh | Sharding | Spread | None", **lanes: int) -> "Spread | None":
        """Over all axes of a mesh, or those over which a sharding splits the first axis.

        Args:
            sharding: the mesh or sharding; None for none.
            lanes: numbers of lanes, by name, that are to be split evenly.

        Raises:
            TypeError: for what is neither.
            ValueError: for numbers of lanes that cannot be split evenly.
        """
        spread = cls._over(sharding)
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
            return cls(_automatic(sharding), tuple(sharding.axis_names))
        if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
            names = (*sharding.spec, None)[0] or ()
            names = names if isinstance(names, tuple) else (names,)
            return cls(_automatic(sharding.mesh), names)
        if isinstance(sharding, Sharding) and len(sharding.device_set) == 1:
            return cls(Mesh(np.asarray(list(sharding.device_set)), ("lanes",)), ("lanes",))
        raise TypeError(f"sharding must be a Mesh or a NamedSharding of one, got {sharding!r}")

    @property
    def n_parts(self) -> int:
        """Number of parts that lanes are split into."""
        return math.prod(self.mesh.shape[name] for name in self.names)

    @property
    def everywhere(self) -> NamedSharding:
        """The sharding of an array that every device holds."""
        return NamedSharding(self.mesh, PartitionSpec())

    def along(self, axis: int, shape: tuple[int, ...]) -> NamedSharding:
        """The sharding of an array split along one axis; all devices hold what does not divide."""
        axis %= len(shape)
        if shape[axis] % self.n_parts or not self.names:
            return self.everywhere
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, self.names))

    def split(self, x: Any, axis: int = 0) -> Array:
        """A known array, the same in all processes, split along one axis."""
        return placed(x, self.along(axis, np.shape(x)))

    def constrained(self, state: PyTree[Array], axes: PyTree[int | None]) -> PyTree[Array]:
        """A traced state whose arrays are split along the axes that are given."""

        def split(axis: int | None, part: PyTree[Array]) -> PyTree[Array]:
            if axis is None:
                return part
            return jax.tree.map(
                lambda x: jax.lax.with_sharding_constraint(x, self.along(axis, x.shape)), part
            )

        return jax.tree.map(split, axes, state, is_leaf=lambda x: x is None)


def _automatic(mesh: Mesh) -> Mesh:
    return Mesh(np.asarray(mesh.devices), mesh.axis_names)


# What functions take as `sharding`: where lanes are spread over devices; None leaves them on one.
Devices = Mesh | Sharding | Spread | None
