"""How a loss is minimised: what one step does, and what it needs of the loss."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..energies import parameter_terms
from ._penalties import AbstractProximal
from ._samples import Samples
from ._whitened import whitened

# A spectral step is accepted by the worst of so many losses: it need not descend each time.
_MEMORY = 5
_MAX_HALVINGS = 40
# Steps of a descent in which neither loss nor slope falls: more than L-BFGS remembers.
_PATIENCE = 20


class Loss(eqx.Module):
    """The loss of one step, as a minimiser sees it.

    Attributes:
        function: function of the parameters; it returns the loss and what the objective carries on.
        penalty: a penalty with kinks that is no part of the function, or None.
        samples: all data.
        means: those of the data, shape `(visible,)`.
        carried: state that the objective has carried on so far.
    """

    function: Callable[[PyTree], tuple[Float[Array, ""], PyTree]]
    penalty: AbstractProximal | None
    samples: Samples
    means: Float[Array, " visible"]
    carried: PyTree

    def value(self, energy: PyTree) -> Float[Array, ""]:
        """The loss alone, without the penalty with kinks."""
        return self.function(energy)[0]

    def value_and_gradient(self, energy: PyTree) -> tuple[tuple[Float[Array, ""], PyTree], PyTree]:
        """The loss with what the objective carries on, and its gradient."""
        return jax.value_and_grad(self.function, has_aux=True)(energy)


class Step(NamedTuple):
    """What one step of a minimiser came to.

    Attributes:
        energy: the parameters after it.
        state: that of the minimiser after it.
        objective_state: state that the objective carries on.
        value: the loss before it, with all penalties.
        gradient: the gradient before it.
        slope: distance of the parameters from stationarity.
    """

    energy: PyTree
    state: PyTree
    objective_state: PyTree
    value: Float[Array, ""]
    gradient: PyTree
    slope: Float[Array, ""]


class AbstractMinimiser(eqx.Module):
    """Takes the steps of a fit, and declares what it needs.

    `fit(..., optimizer=)` takes one, or an optax transformation, which becomes `GradientSteps`.

    Attributes:
        needs_full_batch: whether all steps must see one and the same loss: a deterministic
            objective of all data.
        takes_kinks: whether a penalty with kinks comes as `Loss.penalty`, to be obeyed by its
            proximal map; else it is a term of the loss.
        averages: whether the mean of late steps is the answer where the loss is noisy or has
            kinks, so that steps do not come to rest.
        patience: steps in which neither loss nor slope falls, after which the numbers are out of
            precision; None where a loss that rises says nothing.
        copies: least number of copies of the parameters that a fit holds.

    !!! example

        ```python
        from typing import ClassVar

        import jax
        import jax.numpy as jnp
        import numpy as np
        import thermogen as tg


        class Descent(tg.learning.AbstractMinimiser):
            needs_full_batch: ClassVar[bool] = False
            takes_kinks: ClassVar[bool] = False
            averages: ClassVar[bool] = True
            patience: ClassVar[int | None] = None
            copies: ClassVar[int] = 4

            def init(self, energy):
                return ()

            def step(self, loss, energy, state):
                (value, carried), slope = loss.value_and_gradient(energy)
                moved = jax.tree.map(lambda x, g: x - 0.1 * g, energy, slope)
                largest = jnp.stack([abs(g).max() for g in jax.tree.leaves(slope)]).max()
                return tg.learning.Step(moved, state, carried, value, slope, largest)


        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        found = tg.fit(
            tg.PersistentCD(), start, data, key=jax.random.key(0), optimizer=Descent(), n_steps=20
        )

        assert found.result == tg.RESULTS.completed
        ```
    """

    needs_full_batch: eqx.AbstractClassVar[bool]
    takes_kinks: eqx.AbstractClassVar[bool]
    averages: eqx.AbstractClassVar[bool]
    patience: eqx.AbstractClassVar[int | None]
    copies: eqx.AbstractClassVar[int]

    @abc.abstractmethod
    def init(self, energy: PyTree) -> PyTree:
        """The state before the first step from these parameters."""

    @abc.abstractmethod
    def step(self, loss: Loss, energy: PyTree, state: PyTree) -> Step:
        """One step."""


class GradientSteps(AbstractMinimiser):
    """Any optax transformation of the gradient, at a noisy loss as well.

    Attributes:
        transformation: such as `optax.adam(1e-2)`. Its update gets the data as `samples` and
            their means as `means`. Each new object compiles anew: keep one to fit many times.

    !!! example

        ```python
        import jax
        import numpy as np
        import optax
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        steps = tg.learning.GradientSteps(optax.adam(1e-2))
        found = tg.fit(
            tg.PersistentCD(), start, data, key=jax.random.key(0), optimizer=steps, n_steps=20
        )

        assert found.result == tg.RESULTS.completed
        ```
    """

    needs_full_batch: ClassVar[bool] = False
    takes_kinks: ClassVar[bool] = False
    averages: ClassVar[bool] = True
    patience: ClassVar[int | None] = None
    # Parameters, their gradient, moments and an average.
    copies: ClassVar[int] = 4

    transformation: optax.GradientTransformation = eqx.field(static=True)

    def init(self, energy: PyTree) -> PyTree:
        return self.transformation.init(energy)

    def step(self, loss: Loss, energy: PyTree, state: PyTree) -> Step:
        (value, objective_state), gradient = loss.value_and_gradient(energy)
        moved, state = _moved(self.transformation, loss, energy, state, value, gradient)
        return Step(moved, state, objective_state, value, gradient, largest_slope(gradient))


# Made once: a new transformation object would compile anew.
_LBFGS = optax.lbfgs()


class LineSearch(AbstractMinimiser):
    """An optax transformation that ends in a line search; L-BFGS unless told otherwise.

    The value and the gradient that the search has found serve the next step.

    Attributes:
        transformation: such as `optax.lbfgs()`. Each new object compiles anew.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        found = tg.fit(
            tg.Pseudolikelihood(),
            start,
            data,
            key=jax.random.key(0),
            optimizer=tg.learning.LineSearch(),
        )

        assert found.result == tg.RESULTS.converged
        ```
    """

    needs_full_batch: ClassVar[bool] = True
    takes_kinks: ClassVar[bool] = False
    averages: ClassVar[bool] = True
    patience: ClassVar[int | None] = _PATIENCE
    # Those of ten steps and ten gradients.
    copies: ClassVar[int] = 24

    transformation: optax.GradientTransformation = eqx.field(static=True, default=_LBFGS)

    def init(self, energy: PyTree) -> PyTree:
        return self.transformation.init(energy)

    def step(self, loss: Loss, energy: PyTree, state: PyTree) -> Step:
        value, gradient = optax.value_and_grad_from_state(loss.value)(energy, state=state)
        value = jnp.asarray(value)
        moved, state = _moved(self.transformation, loss, energy, state, value, gradient)
        # A deterministic objective has nothing new to carry on.
        return Step(moved, state, loss.carried, value, gradient, largest_slope(gradient))


class SpectralState(NamedTuple):
    """The last parameters, their gradient, and recent losses, penalties included."""

    parameters: PyTree
    gradient: PyTree
    recent: Float[Array, " memory"]


class ProximalGradient(AbstractMinimiser):
    """Proximal gradient steps of spectral length, for penalties with kinks: exact zeros.

    SpaRSA (Wright, Nowak and Figueiredo 2009): `x <- shrink(x - t g, t)`, t from the last two
    gradients (Barzilai and Borwein), halved until the loss lies below the worst of the last five.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        found = tg.fit(
            tg.Pseudolikelihood(),
            start,
            data,
            key=jax.random.key(0),
            optimizer=tg.learning.ProximalGradient(),
        )

        assert found.result == tg.RESULTS.converged
        ```
    """

    needs_full_batch: ClassVar[bool] = True
    takes_kinks: ClassVar[bool] = True
    # A mean has none of the exact zeros.
    averages: ClassVar[bool] = False
    patience: ClassVar[int | None] = _PATIENCE
    copies: ClassVar[int] = 4

    def init(self, energy: PyTree) -> SpectralState:
        dtype = jnp.result_type(*jax.tree.leaves(energy))
        zeros = jax.tree.map(jnp.zeros_like, energy)
        return SpectralState(energy, zeros, jnp.full(_MEMORY, -jnp.inf, dtype))

    def step(self, loss: Loss, energy: PyTree, state: SpectralState) -> Step:
        (smooth, objective_state), gradient = loss.value_and_gradient(energy)
        value = smooth + _kinked(loss, energy)
        recent = jnp.roll(state.recent, 1).at[0].set(value)
        length = _spectral_length(state, energy, gradient).astype(state.recent.dtype)
        moved = _descended(loss, energy, gradient, length, jnp.max(recent))
        after = SpectralState(energy, gradient, recent)
        # Zero at a minimum of loss and penalty.
        downhill = jax.tree.map(jnp.subtract, energy, gradient)
        still = _shrunk(loss, downhill, jnp.ones((), recent.dtype))
        distance = jax.tree.map(jnp.subtract, energy, still)
        slope = optax.tree.norm(distance, ord=jnp.inf)
        return Step(moved, after, objective_state, value, gradient, slope)


# Made once: see above.
ADAM = GradientSteps(optax.adam(1e-2))
LBFGS = LineSearch()
WHITENED_LBFGS = LineSearch(
    optax.chain(
        whitened(optax.scale_by_lbfgs()),
        optax.scale(-1.0),
        optax.scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one"),
    )
)


def as_minimiser(optimizer: Any) -> AbstractMinimiser:
    """A minimiser as it is, an optax transformation as `GradientSteps`.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(optimizer, AbstractMinimiser):
        return optimizer
    if isinstance(optimizer, optax.GradientTransformation):
        return GradientSteps(optimizer)
    raise TypeError(
        "optimizer must be an optax transformation, such as optax.adam(1e-2), or a minimiser, "
        f"such as thermogen.learning.LineSearch(), got {optimizer!r}"
    )


def largest_slope(gradient: PyTree) -> Float[Array, ""]:
    """Largest entry of a gradient; a parameter that many sets of spins share has so much more."""
    scaled = jax.tree.map(lambda g, t: g / t, gradient, parameter_terms(gradient))
    return optax.tree.norm(scaled, ord=jnp.inf)


def per_set() -> optax.GradientTransformation:
    """Gradients over the number of sets of spins that each parameter serves.

    So large is the variance of `dE/dp` over even configurations, the curvature of the likelihood
    where no spin is bound: a step that suits one coupling overshoots by as much where many bonds
    share it.
    """

    def update(updates, state, params=None):
        return jax.tree.map(lambda g, t: g / t, updates, parameter_terms(updates)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _moved(
    transformation: optax.GradientTransformation,
    loss: Loss,
    energy: PyTree,
    state: PyTree,
    value: Float[Array, ""],
    gradient: PyTree,
) -> tuple[PyTree, PyTree]:
    """Parameters and state after one update."""

    # Line searches hand on what the update is given.
    def value_fn(energy, means=None, samples=None):
        return loss.value(energy)

    updates, state = optax.with_extra_args_support(transformation).update(
        gradient,
        state,
        energy,
        value=value,
        grad=gradient,
        value_fn=value_fn,
        means=loss.means,
        samples=loss.samples,
    )
    return optax.apply_updates(energy, updates), state


def _kinked(loss: Loss, energy: PyTree) -> Float[Array, ""] | float:
    return 0.0 if loss.penalty is None else loss.penalty(energy)


def _shrunk(loss: Loss, energy: PyTree, length: Float[Array, ""]) -> PyTree:
    return energy if loss.penalty is None else loss.penalty.shrink(energy, length)


def _descended(
    loss: Loss, energy: PyTree, gradient: PyTree, length: Float[Array, ""], bound: Float[Array, ""]
) -> PyTree:
    """Along the gradient and shrunk, by a length that is halved until the loss is low enough."""

    def attempt(length):
        moved = jax.tree.map(lambda x, g: x - length * g, energy, gradient)
        step = jax.tree.map(jnp.subtract, _shrunk(loss, moved, length), energy)
        new = optax.apply_updates(energy, step)
        enough = 1e-4 / length * optax.tree.vdot(step, step)
        return new, loss.value(new) + _kinked(loss, new) <= bound - enough

    def again(carry):
        _, (_, accepted), halvings = carry
        return ~accepted & (halvings < _MAX_HALVINGS)

    def halve(carry):
        length, _, halvings = carry
        return 0.5 * length, attempt(0.5 * length), halvings + 1

    return jax.lax.while_loop(again, halve, (length, attempt(length), 0))[1][0]


def _spectral_length(state: SpectralState, energy: PyTree, gradient: PyTree) -> Float[Array, ""]:
    """`|s|^2 / s.y` of the last step s and the change y of the gradient along it."""
    s = jax.tree.map(jnp.subtract, energy, state.parameters)
    y = jax.tree.map(jnp.subtract, gradient, state.gradient)
    squared, curvature = (jnp.asarray(optax.tree.vdot(s, x)) for x in (s, y))
    known = curvature > 0
    return jnp.where(known, jnp.clip(squared / jnp.where(known, curvature, 1), 1e-6, 1e6), 1.0)
