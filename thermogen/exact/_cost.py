"""What exact results take: enumeration or elimination, chosen from the graph of an energy."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._checks import check_parameters, total_memory
from .._split import table_on_mesh
from ..energies import AbstractEnergy, Clamped, Interactions, Pairwise, SpinSets, has_terms, terms
from ._elimination import Cut, Plan, cuts_of, n_tables, plan_of, width_of
from ._orders import MAX_WIDTH, MAX_WORK

_MAX_ENUMERATED = 24
# Up to so many spins a table of all configurations takes milliseconds.
_FEW = 20
# Tables that a value takes at once.
_N_TABLES = 8
# Most spins that are cut, and the width of tables that are large: 8 MB in double precision.
_MAX_CUT, _LARGE_WIDTH = 12, 20


class Cost(NamedTuple):
    """What exact results of an energy take.

    Attributes:
        method: "enumeration" of all configurations, or "elimination" of spin after spin.
        width: spins in the largest table; for elimination those of the largest frontier.
        table_size: entries of the largest table, `2**width`.
        n_steps: passes over such a table for ln Z, about `n 2**n_cut`. The work is
            `n_steps * table_size`, at 10 to 20 ns of a processor.
        value_bytes: memory that ln Z takes.
        gradient_bytes: memory that derivatives take: means, correlations, samples, learning.
        n_cut: spins that are cut: elimination is repeated for all of their `2**n_cut` values.
    """

    method: str
    width: int
    table_size: int
    n_steps: int
    value_bytes: int
    gradient_bytes: int
    n_cut: int = 0


def cost(energy: AbstractEnergy) -> Cost:
    """What exact results of this energy take, before anything is computed.

    Functions of an ensemble choose between enumeration and elimination by this cost. It depends on
    the graph of interactions alone; couplings of a `Pairwise` energy that are 0 are not in it.
    Spins are cut, at most 12, where this makes large tables smaller at no more work, or where the
    memory of this machine asks for it.

    Raises:
        TypeError: for more than 24 spins and an energy that is no list of terms.

    !!! example

        ```python
        import jax.numpy as jnp
        import numpy as np
        import thermogen as tg

        chain = np.stack([np.arange(999), np.arange(1, 1000)], axis=1)
        energy = tg.Interactions(1000, [chain], [jnp.ones(999)])

        assert tg.exact.cost(energy).width == 1
        assert jnp.isclose(
            tg.exact.log_partition(energy, 1.0), jnp.log(2) + 999 * jnp.log(2 * jnp.cosh(1.0))
        )
        ```
    """
    return _of_cut(energy, _chosen(energy, listed_terms(energy)))


def _of_cut(energy: AbstractEnergy, cut: Cut | None) -> Cost:
    n, itemsize = energy.n_spins, _dtype(energy).itemsize
    if cut is None:
        return Cost("enumeration", n, 2**n, n, *(itemsize * _N_TABLES * 2**n,) * 2)
    n_cut, per_table = len(cut.spins), itemsize * 2**cut.width
    needed = _N_TABLES * per_table, n_tables(n) * per_table
    return Cost("elimination", cut.width, 2**cut.width, n << n_cut, *needed, n_cut)


def _chosen(energy: AbstractEnergy, sparse: "_Sparse | None", n_copies: int = 1) -> Cut | None:
    """The cut that takes the least work, of those whose derivatives fit into memory.

    If there is none, of those whose ln Z does. Of equals the one whose tables are just not large.
    None for enumeration.
    """
    n = energy.n_spins
    if sparse is None:
        return None
    graph, memory = _graph(sparse.listed), total_memory() / n_copies
    whole = Cut((), width_of(n, graph))
    if n <= _MAX_ENUMERATED and not _cheaper(n, whole.width):
        return None

    def too_large(cut: Cut) -> tuple[bool, bool]:
        takes = _of_cut(energy, cut)
        return takes.gradient_bytes > memory, takes.value_bytes > memory

    if whole.width > MAX_WORK or (whole.width <= _LARGE_WIDTH and not any(too_large(whole))):
        return whole
    cuts = cuts_of(n, graph, _MAX_CUT)
    able = [c for c in cuts if c.width <= MAX_WIDTH and c.width + len(c.spins) <= MAX_WORK]
    return min(
        able or [whole],
        key=lambda c: (too_large(c), c.width + len(c.spins), abs(c.width - _LARGE_WIDTH)),
    )


class Narrow(NamedTuple):
    """A model with the plan of its elimination.

    Attributes:
        plan: from its graph and the spins that are cut.
        couplings: of terms of two spins and more, in the order of the plan.
        fields: shape `(n,)`.
        pins: +1 or -1 where a spin is clamped, 0 elsewhere; None if none can be.
        constant: an energy that all configurations have.
        energy: of which all this is; it gives the scale of what beta resolves.
    """

    plan: Plan
    couplings: Float[Array, " terms"]
    fields: Float[Array, " n"]
    pins: Float[Array, " n"] | None
    constant: Float[Array, ""]
    energy: AbstractEnergy


class _Sparse(NamedTuple):
    """An energy as a list of terms without those known to be 0, and what is clamped."""

    listed: Interactions
    pins: Float[Array, " n"] | None


def narrow(energy: AbstractEnergy, *, gradient: bool = False, n_copies: int = 1) -> Narrow | None:
    """The model for elimination; None where enumeration serves.

    Raises:
        ValueError: for more than 24 spins and a graph that is too wide for the memory of this
            machine; with `gradient` for that of derivatives, for tables `n_copies` as large.
        TypeError: for more than 24 spins and an energy that is no list of terms.
    """
    n = energy.n_spins
    if n <= _FEW:
        return None
    sparse = listed_terms(energy)
    cut = _chosen(energy, sparse, n_copies)
    if sparse is None or cut is None:
        return None
    takes = _of_cut(energy, cut)
    needed = n_copies * (takes.gradient_bytes if gradient else takes.value_bytes)
    if takes.width > MAX_WIDTH or needed > total_memory():
        raise ValueError(
            f"energy is too wide for exact results: of its {n} spins {takes.width} have to be kept "
            f"at once, which takes {needed / 1e9:.3g} GB of memory; this machine has "
            f"{total_memory() / 1e9:.3g} GB. Sums over the values of up to {_MAX_CUT} of them, one "
            f"by one, take too long or do not fit either. Approximate results come from TAP() or "
            "Bethe() for free energies, annealed_importance_sampling() for ln Z and sample() for "
            "means"
        )
    check_parameters(energy)
    return _model(energy, sparse, plan_of(n, _graph(sparse.listed), cut))


def _cheaper(n: int, width: int) -> bool:
    """Whether elimination takes fewer operations than a table of all configurations."""
    return n > _FEW and width <= MAX_WIDTH and 2**width < 2**n / 8


def listed_terms(energy: AbstractEnergy) -> _Sparse | None:
    """Terms and pins of an energy whose graph is known."""
    if isinstance(energy, Clamped):
        inner = listed_terms(energy.energy)
        if inner is None:
            return None
        pins = jax.lax.stop_gradient(jnp.sign(energy.clamp))
        within = inner.pins
        return inner._replace(pins=pins if within is None else jnp.where(within == 0, pins, within))
    if isinstance(energy, Pairwise):
        return _of_pairs(energy)
    if has_terms(energy):
        return _Sparse(terms(energy), None)
    if energy.n_spins <= _MAX_ENUMERATED or table_on_mesh(energy) is not None:
        return None
    raise TypeError(
        f"energy must have at most {_MAX_ENUMERATED} spins to be enumerated, or terms for "
        f"elimination; got {energy.n_spins} spins and {type(energy).__name__}. Register a rule "
        "with thermogen.energies.terms.register"
    )


def _of_pairs(energy: Pairwise) -> _Sparse | None:
    """A pairwise energy by its bonds that are not 0."""
    if isinstance(energy.couplings, Tracer):
        if energy.n_spins <= _MAX_ENUMERATED:
            return None
        raise TypeError(
            f"energy must have at most {_MAX_ENUMERATED} spins where its couplings are traced, "
            f"got Pairwise of {energy.n_spins} spins: which of them are 0 is not known, and "
            "derivatives by those that are 0 do not vanish. Use Interactions, whose sets are static"
        )
    matrix = np.asarray(energy.couplings)
    pairs = np.argwhere(np.triu((matrix != 0) | (matrix.T != 0), 1)).astype(np.int32)
    sets = [np.arange(energy.n_spins)[:, None], pairs]
    listed = Interactions(energy.n_spins, sets, [energy.fields, energy.bonds(*pairs.T)])
    return _Sparse(listed, None)


def _graph(listed: Interactions) -> tuple[SpinSets, ...]:
    return tuple(table for table in listed.sets if table.order >= 2 and len(table))


def _dtype(energy: AbstractEnergy) -> np.dtype:
    return np.dtype(jnp.result_type(*(jax.tree.leaves(energy) or [float])))


def _model(energy: AbstractEnergy, sparse: _Sparse, plan: Plan) -> Narrow:
    listed, dtype = sparse.listed, _dtype(energy)
    fields, constant = jnp.zeros(energy.n_spins, dtype), jnp.zeros((), dtype)
    couplings = [jnp.zeros(0, dtype)]
    for table, values in zip(listed.sets, listed.couplings, strict=True):
        if table.order >= 2:
            couplings.append(values)
        elif table.order == 1:
            fields = fields.at[table.indices[:, 0]].add(values)
        else:
            constant -= jnp.sum(values)
    return Narrow(plan, jnp.concatenate(couplings), fields, sparse.pins, constant, energy)
