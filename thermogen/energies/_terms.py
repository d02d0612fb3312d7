"""An energy as a list of terms: which spins interact, and all that follows from it."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float

from .._types import Magnetizations
from ._base import AbstractEnergy
from ._interactions import Interactions, SpinSets
from ._moments import classes_of, nonlinear_third_moment, nonlinear_variance


@functools.singledispatch
def terms(energy: AbstractEnergy) -> Interactions:
    """The same energy as a list of terms: which sets of spins interact, and how strongly.

    The one thing that an energy of one's own may say of itself. From it follow the factors of
    `Bethe`, the couplings of `AdaptiveTAP`, the bonds and the graph of cluster moves, the colours
    of a sweep, the moments of `Plefka(2)` and `Plefka(3)`, and the table of all configurations.
    Open for extension: `terms.register(YourEnergy)`. The sets of spins are static, the couplings
    may be traced, and derivatives run through them.

    !!! example

        ```python
        import equinox as eqx
        import jax
        import jax.numpy as jnp
        import numpy as np
        import thermogen as tg


        class Ring(tg.AbstractMultilinear):
            n_spins: int = eqx.field(static=True)
            coupling: jax.Array

            def __call__(self, spins):
                return -self.coupling * jnp.sum(spins * jnp.roll(spins, -1))


        @tg.energies.terms.register
        def _(energy: Ring):
            sites = np.arange(energy.n_spins)
            pairs = np.stack([sites, np.roll(sites, -1)], axis=1)
            couplings = jnp.broadcast_to(energy.coupling, sites.shape)
            return tg.Interactions(energy.n_spins, [pairs], [couplings])


        ring = Ring(4, jnp.asarray(0.5))

        assert tg.exact.energies(ring)[0] == ring(-jnp.ones(4)) == -2
        ```

    Args:
        energy: an energy of n spins.

    Raises:
        TypeError: if no rule is registered for this class of energy.
    """
    raise _no_terms("terms", energy)


def has_terms(energy: AbstractEnergy) -> bool:
    """Whether `terms` has a rule for this class of energy.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        assert tg.energies.has_terms(pair)
        ```
    """
    return terms.dispatch(type(energy)) is not terms.dispatch(object)


def terms_for(user: str, energy: AbstractEnergy, max_order: int | None = None) -> Interactions:
    """`terms(energy)` for a method that needs them and is named in the errors.

    Args:
        user: name of the method.
        energy: an energy of n spins.
        max_order: how many spins a term may have; None allows any number.

    Raises:
        TypeError: if the class of energy has no rule for `terms`, or terms of more spins.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        terms = tg.energies.terms_for("a method", pair, max_order=2)

        assert terms(jnp.ones(2)) == pair(jnp.ones(2))
        ```
    """
    if not has_terms(energy):
        raise _no_terms(user, energy)
    listed = terms(energy)
    orders = [table.order for table in listed.sets]
    if max_order is not None and max(orders, default=0) > max_order:
        raise TypeError(
            f"{user} needs an energy with terms of up to {max_order} spins, got "
            f"{type(energy).__name__} with orders {orders}"
        )
    return listed


def _no_terms(user: str, energy: AbstractEnergy) -> TypeError:
    return TypeError(
        f"{user} needs an energy that is a list of terms ({classes_of(terms)}), got "
        f"{type(energy).__name__}. Register a rule with thermogen.energies.terms.register; "
        "Complete(...).keep or .truncate makes Interactions"
    )


@terms.register
def _(energy: Interactions) -> Interactions:
    return energy


def interactions_of(
    n_spins: int, sets: tuple[SpinSets, ...], couplings: Sequence[Float[Array, " _"]]
) -> Interactions:
    """As the constructor, for sets that come often: the couplings may be any numbers."""
    return jax.tree.unflatten(_structure(n_spins, sets), couplings)


@functools.lru_cache(maxsize=64)
def _structure(n_spins: int, sets: tuple[SpinSets, ...]):
    with jax.ensure_compile_time_eval():
        return jax.tree.structure(Interactions(n_spins, sets, [np.zeros(len(t)) for t in sets]))


@nonlinear_variance.register
def _(energy: AbstractEnergy, m: Magnetizations) -> Float[Array, ""]:
    if has_terms(energy):
        return nonlinear_variance(terms(energy), m)
    return nonlinear_variance.dispatch(object)(energy, m)


@nonlinear_third_moment.register
def _(energy: AbstractEnergy, m: Magnetizations) -> Float[Array, ""]:
    if has_terms(energy):
        return nonlinear_third_moment(terms(energy), m)
    return nonlinear_third_moment.dispatch(object)(energy, m)
