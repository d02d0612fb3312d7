"""Penalties on the parameters: what is added to the loss, and what it bounds."""

import abc
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Num, PyTree

from ..energies import (
    AbstractEnergy,
    constrain,
    parameter_copies,
    parameter_degrees,
    visible_free_energy,
)
from ._samples import Number, as_number, check_not_negative, checked_samples, checked_shares

# A yes or no that may be traced.
Flag = bool | np.bool | Bool[Array, ""]


class Bounds(NamedTuple):
    """What a penalty keeps finite, whatever the data are.

    Attributes:
        fields: whether all fields; may be traced.
        couplings: whether all couplings of two spins and more.

    !!! example

        ```python
        import thermogen as tg

        assert tg.learning.L2(0.1).bounds() == tg.learning.Bounds(fields=False, couplings=True)
        ```
    """

    fields: Flag
    couplings: Flag


class AbstractPenalty(eqx.Module):
    """A convex function of the parameters that is added to the loss.

    A penalty of your own is the equal of those here; it declares what it bounds:

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        class WeakFields(tg.learning.AbstractPenalty):
            strength: float

            def bounds(self):
                return tg.learning.Bounds(fields=True, couplings=False)

            def __call__(self, energy):
                return self.strength * jnp.sum(energy.fields**2)

        energy = tg.Pairwise(jnp.zeros((2, 2)), jnp.ones(2))
        assert WeakFields(2.0)(energy) == 4
        ```
    """

    @abc.abstractmethod
    def bounds(self) -> Bounds:
        """What it keeps finite: then no warning and no `separable` is called for."""

    @abc.abstractmethod
    def __call__(self, energy: AbstractEnergy) -> Float[Array, ""]:
        """The penalty, in nats; every coupling counts once."""


class AbstractProximal(AbstractPenalty):
    """A penalty with kinks, which set parameters to zero: it comes with its proximal map.

    Attributes:
        is_constraint: whether it is infinite somewhere, so that it cannot be a term of a loss.

    !!! example

        ```python
        from typing import ClassVar

        import jax
        import jax.numpy as jnp
        import numpy as np
        import thermogen as tg


        class Positive(tg.learning.AbstractProximal):
            is_constraint: ClassVar[bool] = True

            def bounds(self):
                return tg.learning.Bounds(fields=False, couplings=False)

            def __call__(self, energy):
                return jnp.where(jnp.all(energy.couplings >= 0), 0.0, jnp.inf)

            def shrink(self, energy, step):
                return tg.Pairwise(jnp.maximum(energy.couplings, 0), energy.fields)


        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        objective = tg.Pseudolikelihood()
        found = tg.fit(objective, start, data, key=jax.random.key(0), penalty=Positive())

        assert np.all(found.energy.couplings >= 0)
        ```
    """

    is_constraint: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def shrink(self, energy: PyTree, step: Float[Array, ""]) -> PyTree:
        """The proximal map: the minimum of `|x - energy|^2/2 + step * penalty(x)` over x."""


class NegativeExamples(AbstractPenalty):
    """Configurations that the model should not hold: their energies are pushed over those of data.

    `strength` times the mean of `ln(1 + exp(F_data + gap - F))` over the examples, F their free
    energies at beta = 1 with hidden spins summed out and `F_data` the mean of that of `data`.
    Convex where no spin is hidden.

    Attributes:
        examples: configurations of +-1, shape `(examples, visible)`, for example false positives.
        data: configurations that they are compared with, shape `(samples, visible)`.
        gap: energy by which an example should lie above the data, in energy units.
        strength: strength of the penalty, in nats per energy unit.
        weights: relative weight of each row of `data`, >= 0, shape `(samples,)`; equal where None.

    Raises:
        ValueError: for weights as `fit` does; at the call, for configurations of another number of
            spins than the energy's.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        unwanted = tg.learning.NegativeExamples(
            jnp.ones((1, 5)), jnp.asarray(data), gap=1.0, strength=1.0
        )
        plain = tg.fit(tg.Pseudolikelihood(), start, data, key=jax.random.key(0)).energy
        pushed = tg.fit(tg.Pseudolikelihood(), start, data, key=jax.random.key(0), penalty=unwanted)

        assert pushed.energy(jnp.ones(5)) > plain(jnp.ones(5))
        ```
    """

    examples: Num[Array, "examples visible"]
    data: Num[Array, "samples visible"]
    gap: Number = eqx.field(converter=as_number)
    strength: Number = eqx.field(converter=as_number)
    weights: Num[Array | np.ndarray, " samples"] | None = None

    def __check_init__(self):
        check_not_negative(strength=self.strength)
        if not isinstance(self.weights, Tracer):
            checked_shares(self.weights, len(self.data))

    def bounds(self) -> Bounds:
        return Bounds(fields=False, couplings=False)

    def __call__(self, energy: AbstractEnergy) -> Float[Array, ""]:
        data = checked_samples(energy, self.data)
        examples = checked_samples(energy, self.examples, "examples")
        free_energies = jax.vmap(lambda s: visible_free_energy(energy, 1.0, s))
        mean = jnp.average(free_energies(data), weights=self.weights)
        missing = mean + self.gap - free_energies(examples)
        return self.strength * jnp.mean(jax.nn.softplus(missing))


class L2(AbstractPenalty):
    """`strength` times the sum of the squared couplings of two spins and more, in nats.

    Fields are free unless `fields` is given: pulled to 0, they would change the means of spins
    that are seldom up. They then need data in which no spin is constant.

    Attributes:
        strength: strength for the couplings, in nats per squared energy unit. As a prior of
            variance `1 / n` it is `n / (2 N)` for N samples of n spins.
        fields: strength of the fields.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        plain = tg.Pseudolikelihood(l2=0.0)
        penalty = tg.learning.L2(100.0)
        found = tg.fit(plain, start, data, key=jax.random.key(0), penalty=penalty)

        assert np.all(np.abs(found.energy.couplings) < 0.01)
        ```
    """

    strength: Number = eqx.field(converter=as_number)
    fields: Number = eqx.field(default=0.0, converter=as_number)

    def __check_init__(self):
        check_not_negative(strength=self.strength, fields=self.fields)

    def bounds(self) -> Bounds:
        return Bounds(self.fields > 0, self.strength > 0)

    def __call__(self, energy: AbstractEnergy) -> Float[Array, ""]:
        fields, couplings = sums_of_squares(energy)
        return self.fields * fields + self.strength * couplings


class L1(AbstractProximal):
    """`strength` times the sum of |J| over the couplings of two spins and more; fields are free.

    Sets couplings to exactly zero (Ravikumar, Wainwright and Lafferty 2010).

    Attributes:
        strength: strength of the penalty, in nats per energy unit.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        plain = tg.Pseudolikelihood(l2=0.0)
        found = tg.fit(plain, start, data, key=jax.random.key(0), penalty=tg.learning.L1(1.0))

        assert np.all(found.energy.couplings == 0)  # so strong a penalty leaves none
        ```
    """

    is_constraint: ClassVar[bool] = False

    strength: Number = eqx.field(converter=as_number)

    def __check_init__(self):
        check_not_negative(strength=self.strength)

    def bounds(self) -> Bounds:
        return Bounds(False, self.strength > 0)

    def __call__(self, energy: AbstractEnergy) -> Float[Array, ""]:
        energy = constrain(energy)
        sums = jax.tree.map(
            lambda x, d, c: jnp.sum(jnp.abs(x) * (jnp.asarray(d) >= 2)) / c,
            energy,
            parameter_degrees(energy),
            parameter_copies(energy),
        )
        return self.strength * jnp.asarray(optax.tree.sum(sums))

    def shrink(self, energy: PyTree, step: Float[Array, ""]) -> PyTree:
        def soft(x, degree, copies):
            threshold = jnp.where(jnp.asarray(degree) >= 2, step * self.strength / copies, 0.0)
            return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)

        return jax.tree.map(soft, energy, parameter_degrees(energy), parameter_copies(energy))


class GroupL1(AbstractProximal):
    """`strength * sum_d sqrt(K_d sum_a J_a^2)` over degrees d >= 2, of K_d couplings each.

    A degree lives or dies as a whole (Yuan and Lin 2006): the penalty says up to which order the
    data ask for interactions.

    Attributes:
        strength: strength of the penalty, in nats per energy unit.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        plain = tg.Pseudolikelihood(l2=0.0)
        found = tg.fit(plain, start, data, key=jax.random.key(0), penalty=tg.learning.GroupL1(1.0))

        assert np.all(found.energy.couplings == 0)  # so strong a penalty leaves none
        ```
    """

    is_constraint: ClassVar[bool] = False

    strength: Number = eqx.field(converter=as_number)

    def __check_init__(self):
        check_not_negative(strength=self.strength)

    def bounds(self) -> Bounds:
        return Bounds(False, self.strength > 0)

    def __call__(self, energy: AbstractEnergy) -> Float[Array, ""]:
        squares, _ = _by_degree(constrain(energy))
        norms = [jnp.sqrt(jnp.where(s > 0, s, 1)) * (s > 0) for s in squares]
        return self.strength * jnp.asarray(optax.tree.sum(norms))

    def shrink(self, energy: PyTree, step: Float[Array, ""]) -> PyTree:
        squares, sizes = _by_degree(energy)
        copies = parameter_copies(energy)

        def scaled(x, degree, copies):
            # In the metric of the entries a coupling of c copies weighs c times as much.
            factors = [
                jnp.maximum(1 - step * self.strength * k / copies / jnp.sqrt(s + (s == 0)), 0)
                for s, k in zip(squares, sizes, strict=True)
            ]
            table = jnp.stack([*jnp.ones((2,), x.dtype), *factors])
            return x * table[jnp.asarray(degree)]

        return jax.tree.map(scaled, energy, parameter_degrees(energy), copies)


class Support(AbstractProximal):
    """No penalty on chosen parameters, an infinite one on all others: they are held at zero.

    Attributes:
        allowed: a pytree like the energy, of boolean arrays; True where a parameter is free.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        chain = np.eye(5, k=1) + np.eye(5, k=-1) > 0
        allowed = tg.learning.Support(
            jax.tree.unflatten(jax.tree.structure(start), [chain, np.ones(5, bool)])
        )
        plain = tg.Pseudolikelihood(l2=0.0)
        found = tg.fit(plain, start, data, key=jax.random.key(0), penalty=allowed)

        assert np.all(found.energy.couplings[~chain] == 0)
        ```
    """

    is_constraint: ClassVar[bool] = True

    allowed: PyTree = eqx.field(converter=lambda tree: jax.tree.map(jnp.asarray, tree))

    def bounds(self) -> Bounds:
        return Bounds(fields=False, couplings=False)

    def __call__(self, energy: AbstractEnergy) -> Float[Array, ""]:
        outside = jax.tree.map(lambda x, a: jnp.any((x != 0) & ~a), energy, self.allowed)
        return jnp.where(jnp.any(jnp.stack(jax.tree.leaves(outside))), jnp.inf, 0.0)

    def shrink(self, energy: PyTree, step: Float[Array, ""]) -> PyTree:
        return jax.tree.map(lambda x, a: x * a, energy, self.allowed)


def sums_of_squares(energy: PyTree) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Squared norms of all fields, and of all other couplings, each counted once."""
    energy = constrain(energy)

    def total(chosen):
        sums = jax.tree.map(
            lambda x, d, c: jnp.sum(x * x * chosen(jnp.asarray(d))) / c,
            energy,
            parameter_degrees(energy),
            parameter_copies(energy),
        )
        return jnp.asarray(optax.tree.sum(sums))

    return total(lambda degree: degree == 1), total(lambda degree: degree >= 2)


def _by_degree(energy: PyTree) -> tuple[list[Array], list[Array]]:
    """For each degree from 2 on: `K sum J^2`, and K, the number of couplings."""
    ones = constrain(jax.tree.map(jnp.ones_like, energy))
    trees = energy, ones, parameter_degrees(energy), parameter_copies(energy)
    leaves = list(zip(*(jax.tree.leaves(tree) for tree in trees), strict=True))
    squares, sizes = [], []
    for d in range(2, max(int(np.max(degrees)) for _, _, degrees, _ in leaves) + 1):
        chosen = [(x, one * (degrees == d) / copies) for x, one, degrees, copies in leaves]
        sizes.append(sum(jnp.sum(share) for _, share in chosen))
        squares.append(sizes[-1] * sum(jnp.sum(share * x * x) for x, share in chosen))
    return squares, sizes
