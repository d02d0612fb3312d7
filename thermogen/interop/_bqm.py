"""Binary quadratic models of dimod, D-Wave's library of models."""

from collections.abc import Hashable, Iterable
from typing import Any

from ..energies import AbstractEnergy
from ._model import BINARY, SPIN, Model, checked_names, collected, model_of, needed, quadratic_of


def from_bqm(bqm: Any) -> Model:
    """A `dimod.BinaryQuadraticModel` as an energy: spins or bits, offset and labels kept.

    Args:
        bqm: a model of either vartype; what a `dimod.CQM` or a model with integers holds is not
            one.

    Returns:
        The energy, with `energy(s) + offset` equal to `bqm.energy` at every configuration, and
        the labels of the variables as names, in the order of `bqm.variables`. It is a `Pairwise`
        where at least a tenth of all pairs interact, else `Interactions`.

    Raises:
        TypeError: for what is no binary quadratic model.
        ValueError: for biases that are not finite.

    !!! example

        ```python
        import dimod
        import jax.numpy as jnp
        import thermogen as tg

        bqm = dimod.BinaryQuadraticModel({"a": 1.0}, {("a", "b"): -2.0}, 0.5, "BINARY")
        energy, offset, names = tg.interop.from_bqm(bqm)
        up, down = jnp.ones(2), -jnp.ones(2)

        assert names == ("a", "b")
        assert energy(up) + offset == bqm.energy({"a": 1, "b": 1}) == -0.5
        assert energy(down) + offset == bqm.energy({"a": 0, "b": 0}) == 0.5
        ```
    """
    vartype = getattr(getattr(bqm, "vartype", None), "name", None)
    if vartype not in (SPIN, BINARY) or not hasattr(bqm, "to_numpy_vectors"):
        raise TypeError(
            f"bqm must be a dimod.BinaryQuadraticModel of spins or bits, got {type(bqm).__name__}"
        )
    names = list(bqm.variables)
    vectors = bqm.to_numpy_vectors(variable_order=names)
    bonds, linear = tuple(vectors.quadratic), vectors.linear_biases
    q = collected(len(names), vartype, float(vectors.offset), bonds, linear)
    return model_of(q, vartype, names)


def to_bqm(
    energy: AbstractEnergy,
    offset: float = 0.0,
    names: Iterable[Hashable] | None = None,
    *,
    vartype: str = SPIN,
) -> Any:
    """An energy as a `dimod.BinaryQuadraticModel`, for the samplers and solvers of D-Wave.

    Args:
        energy: an energy of n spins whose terms have at most two of them. The hidden spins of an
            RBM are variables like others.
        offset: a constant that is added, in energy units.
        names: labels of the variables, one for each spin; their numbers by default.
        vartype: "SPIN", or "BINARY" for bits `x = (1 + s) / 2`.

    Returns:
        The model, with `bqm.energy` equal to `energy(s) + offset` at every configuration.

    Raises:
        TypeError: for an energy without terms, or with terms of more than two spins.
        ValueError: for another vartype, or names of another number.
        ImportError: if dimod is not installed.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        bqm = tg.interop.to_bqm(energy, names=["a", "b", "c"], vartype="BINARY")

        assert bqm.energy({"a": 1, "b": 1, "c": 1}) == energy(jnp.ones(3)) == -3
        ```
    """
    q = quadratic_of("to_bqm", energy, offset, vartype)
    labels = checked_names(names, energy.n_spins)
    dimod = needed("dimod", "to_bqm")
    return dimod.BinaryQuadraticModel.from_numpy_vectors(
        q.linear, (q.first, q.second, q.pairs), q.constant, vartype, variable_order=list(labels)
    )
