"""Models whose graph of interactions is narrow: exact results by elimination for any size."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from .._checks import check_parameters, total_memory
from .._cold import beta_as, resolved_beta
from .._types import Beta, Key
from ..energies import AbstractEnergy, Clamped, Interactions, Pairwise, SpinSets, has_terms, terms
from ._backwards import drawn, lowest_of
from ._elimination import Plan, log_sum, n_tables, plan_of, width_of
from ._orders import MAX_WIDTH

_MAX_ENUMERATED = 24
# Up to so many spins a table of all configurations takes milliseconds.
_FEW = 20
# Tables that a value takes at once.
_N_TABLES = 8
# Entries of tables that are computed side by side where many tables are wanted.
_ENTRIES_AT_ONCE = 2**16


class Cost(NamedTuple):
    """What exact results of an energy take.

    Attributes:
        method: "enumeration" of all configurations, or "elimination" of spin after spin.
        width: spins in the largest table; for elimination those of the largest frontier.
        table_size: entries of the largest table, `2**width`.
        n_steps: passes over such a table for ln Z, about one a spin.
        value_bytes: memory that ln Z takes.
        gradient_bytes: memory that derivatives take: means, correlations, samples, learning.
    """

    method: str
    width: int
    table_size: int
    n_steps: int
    value_bytes: int
    gradient_bytes: int


def cost(energy: AbstractEnergy) -> Cost:
    """What exact results of this energy take, before anything is computed.

    Functions of an ensemble choose between enumeration and elimination by this cost. It depends on
    the graph of interactions alone; couplings of a `Pairwise` energy that are 0 are not in it.

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
    return _cost(energy, _sparse(energy))


def _cost(energy: AbstractEnergy, sparse: "_Sparse | None") -> Cost:
    n, itemsize = energy.n_spins, _dtype(energy).itemsize
    width = n if sparse is None else width_of(n, _graph(sparse.listed))
    if sparse is None or (n <= _MAX_ENUMERATED and not _cheaper(n, width)):
        return Cost("enumeration", n, 2**n, n, *(itemsize * _N_TABLES * 2**n,) * 2)
    per_table = itemsize * 2**width
    return Cost("elimination", width, 2**width, n, _N_TABLES * per_table, n_tables(n) * per_table)


class Narrow(NamedTuple):
    """A model with the plan of its elimination.

    Attributes:
        plan: from its graph.
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
    sparse = _sparse(energy)
    takes = _cost(energy, sparse)
    if sparse is None or takes.method == "enumeration":
        return None
    needed = n_copies * (takes.gradient_bytes if gradient else takes.value_bytes)
    if takes.width > MAX_WIDTH or needed > total_memory():
        raise ValueError(
            f"energy is too wide for exact results: of its {n} spins {takes.width} have to be kept "
            f"at once, which takes {needed / 1e9:.3g} GB of memory; this machine has "
            f"{total_memory() / 1e9:.3g} GB. Approximate results come from TAP() or Bethe() for "
            "free energies, annealed_importance_sampling() for ln Z and sample() for means"
        )
    check_parameters(energy)
    return _model(energy, sparse)


def _cheaper(n: int, width: int) -> bool:
    """Whether elimination takes fewer operations than a table of all configurations."""
    return n > _FEW and width <= MAX_WIDTH and 2**width < 2**n / 8


def _sparse(energy: AbstractEnergy) -> _Sparse | None:
    """Terms and pins of an energy whose graph is known."""
    if isinstance(energy, Clamped):
        inner = _sparse(energy.energy)
        if inner is None:
            return None
        pins = jax.lax.stop_gradient(jnp.sign(energy.clamp))
        within = inner.pins
        return inner._replace(pins=pins if within is None else jnp.where(within == 0, pins, within))
    if isinstance(energy, Pairwise):
        return _of_pairs(energy)
    if has_terms(energy):
        return _Sparse(terms(energy), None)
    if energy.n_spins <= _MAX_ENUMERATED:
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


def _model(energy: AbstractEnergy, sparse: _Sparse) -> Narrow:
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
    plan = plan_of(energy.n_spins, _graph(listed))
    return Narrow(plan, jnp.concatenate(couplings), fields, sparse.pins, constant, energy)


class _Point(NamedTuple):
    """A model at one beta, in a unit of energy of T, or of 1 where it is hot.

    So sums of integer couplings stay exact in the cold, and nothing is divided by a small beta.
    The unit itself drops out of all results: no derivative runs through it.
    """

    beta: Float[Array, ""]
    tau: Float[Array, ""]
    couplings: Float[Array, " terms"]
    fields: Float[Array, " n"]


def _at(model: Narrow, beta: Beta) -> _Point:
    beta = resolved_beta(model.energy, beta_as(beta, model.fields.dtype))
    tau = 1 / jax.lax.stop_gradient(jnp.maximum(jnp.abs(beta), 1))
    scale = beta * tau
    return _Point(beta, tau, scale * model.couplings, scale * model.fields)


def _log_sum(model: Narrow, couplings, fields, tau, pins=None) -> Float[Array, ""]:
    """`tau ln sum_s exp(...)`: means are its derivatives."""
    pins = model.pins if pins is None else pins
    return log_sum(model.plan.steps, couplings, fields, pins, tau, model.plan.width)


def _one_program(function: Callable[..., Array]) -> Callable[..., Array]:
    """The function compiled as a whole, for models of one graph and any beta."""
    compiled = eqx.filter_jit(function)

    @functools.wraps(function)
    def call(model: Narrow, beta: Beta, *static: Any) -> Array:
        return compiled(model, beta_as(beta, model.fields.dtype), *static)

    return call


def _log_free(model: Narrow) -> float | Float[Array, ""]:
    """ln of the configurations of clamped spins, both of whose values count alike."""
    return 0.0 if model.pins is None else jnp.log(2.0) * jnp.sum(jnp.abs(model.pins))


@_one_program
def log_partition(model: Narrow, beta: Beta) -> Float[Array, ""]:
    point = _at(model, beta)
    value = _log_sum(model, point.couplings, point.fields, point.tau) / point.tau
    value += _log_free(model) - point.beta * model.constant
    # Beyond the largest beta that is resolved the free energy does not change.
    colder = beta_as(beta, value.dtype) / jnp.where(point.beta == 0, 1, point.beta)
    return value * jnp.maximum(colder, 1)


@_one_program
def free_energy(model: Narrow, beta: Beta) -> Float[Array, ""]:
    point = _at(model, beta)
    value = _log_sum(model, point.couplings, point.fields, point.tau) / point.tau
    return model.constant - (value + _log_free(model)) / point.beta


@_one_program
def mean_energy(model: Narrow, beta: Beta) -> Float[Array, ""]:
    point = _at(model, beta)
    return model.constant - _slope(model, point, (model.couplings, model.fields), 0.0)


@_one_program
def heat_capacity(model: Narrow, beta: Beta) -> Float[Array, ""]:
    """In units of T the variance of the energy, which neither overflows nor cancels in the cold."""
    point = _at(model, beta)
    slope = functools.partial(_slope, model, point, (point.couplings, point.fields))
    zero = jnp.zeros((), point.tau.dtype)
    return jax.jvp(slope, (zero,), (zero + 1,))[1] / point.tau


def _slope(
    model: Narrow, point: _Point, direction: tuple[Array, Array], more: float | Float[Array, ""]
) -> Float[Array, ""]:
    """Derivative by couplings and fields along a direction, of which `more` has been added."""

    def value(couplings, fields):
        return _log_sum(model, couplings, fields, point.tau)

    added = (point.couplings + more * direction[0], point.fields + more * direction[1])
    return jax.jvp(value, added, direction)[1]


@_one_program
def entropy(model: Narrow, beta: Beta) -> Float[Array, ""]:
    """The derivative by temperature: a sum of entropies of single spins, of which none cancels."""
    point = _at(model, beta)

    def value(tau):
        return _log_sum(model, point.couplings, point.fields, tau)

    return jax.jvp(value, (point.tau,), (jnp.ones_like(point.tau),))[1] + _log_free(model)


@_one_program
def magnetizations(model: Narrow, beta: Beta) -> Float[Array, " n"]:
    point = _at(model, beta)
    return _free(model, _means(model, point, point.fields))


def _means(model: Narrow, point: _Point, fields: Float[Array, " n"]) -> Float[Array, " n"]:
    return jax.grad(lambda h: _log_sum(model, point.couplings, h, point.tau))(fields)


@_one_program
def correlations(model: Narrow, beta: Beta) -> Float[Array, "n n"]:
    """Means and their response to each field, some fields at a time."""
    point = _at(model, beta)
    means, n = functools.partial(_means, model, point), model.fields.size

    def response(k):
        direction = jax.nn.one_hot(k, n, dtype=model.fields.dtype)
        return jax.jvp(means, (point.fields,), (direction,))

    # Equal batches: a smaller last one would be a program of its own.
    batch = _n_at_once(model, n)
    spins = jnp.arange(-(-n // batch) * batch).reshape(-1, batch)
    m, responses = jax.lax.map(jax.vmap(response), spins)
    m, responses = m[0, 0], responses.reshape(-1, n)[:n]
    covariance = 0.5 * point.tau * (responses + responses.T)
    pairs = _free(model, _free(model, covariance + m[:, None] * m[None, :]).T)
    return jnp.where(jnp.eye(n, dtype=bool), 1, pairs)


def _free(model: Narrow, means: Float[Array, "*rows n"]) -> Float[Array, "*rows n"]:
    """Means of an energy that does not depend on its clamped spins."""
    if model.pins is None:
        return means
    pinned = jnp.broadcast_to(model.pins != 0, means.shape)
    return jnp.where(pinned, 0, means)


@_one_program
def marginal(model: Narrow, beta: Beta, spins: tuple[int, ...]) -> Float[Array, " marginal"]:
    """One sum for each configuration of the chosen spins."""
    point, chosen = _at(model, beta), np.array(spins, int)
    known = jnp.zeros_like(point.fields) if model.pins is None else model.pins

    def log_weight(index):
        values = 2 * (index >> np.arange(chosen.size) & 1) - 1
        pins = known.at[chosen].set(values.astype(known.dtype))
        pins = jnp.where(known == 0, pins, known)
        return _log_sum(model, point.couplings, point.fields, point.tau, pins) / point.tau

    # The number of configurations and of those at once are powers of two.
    indices = jnp.arange(2**chosen.size).reshape(-1, _n_at_once(model, 2**chosen.size))
    return jax.nn.softmax(jax.lax.map(jax.vmap(log_weight), indices).ravel())


def _n_at_once(model: Narrow, most: int) -> int:
    return max(1, min(most, _ENTRIES_AT_ONCE >> model.plan.width))


@_one_program
def sample(model: Narrow, beta: Beta, key: Key, n_samples: int) -> Float[Array, "samples n"]:
    """Spin by spin back through the elimination; a clamped spin has any value in its energy."""
    point = _at(model, beta)
    key, free_key = jax.random.split(key)
    spins = drawn(
        model.plan.steps,
        point.couplings,
        point.fields,
        model.pins,
        point.tau,
        key,
        model.plan.width,
        n_samples,
    )
    if model.pins is None:
        return spins
    free = jax.random.rademacher(free_key, spins.shape, spins.dtype)
    return jnp.where(jnp.broadcast_to(model.pins == 0, spins.shape), spins, free)


def lowest(model: Narrow, n_states: int) -> tuple[Bool[Array, " states"], Float[Array, "states n"]]:
    """Which of so many configurations exist, and they, the lowest first."""
    pins = jnp.zeros_like(model.fields) if model.pins is None else model.pins
    return lowest_of(
        model.plan.steps, model.couplings, model.fields, pins, model.plan.width, n_states
    )
