"""Root finders on `r(theta) = beta dG/dm`: a mirror descent, and Newton steps that polish."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int

from .._linalg import total
from .._types import Magnetizations

# Each loop evaluates its function at one place, where its start is the first trial: every place
# compiles the functional once more.


class _DescentState(eqx.Module):
    step_size: Float[Array, ""]
    m: Magnetizations
    residual: Magnetizations
    error: Float[Array, ""]


class MirrorDescent(optx.AbstractRootFinder):
    """Descent of G in the effective field theta = atanh m, with a step that adapts.

    `theta <- theta - a r` with `r = beta dG/dm`; a = 1 would be the plain fixed-point iteration.
    A trial step is taken if G falls along it, judged by the mean of both end gradients, which
    float32 resolves where differences of G are rounding noise (Hager and Zhang 2005); the next
    step size is that of Barzilai and Borwein (1988) in the local metric dm = (1 - m^2) dtheta.
    One gradient per step, no line search.

    It is an `optimistix.AbstractRootFinder`, and any other of those may take its place.

    Attributes:
        rtol: relative tolerance: steps end at `max |r| <= atol + rtol max |theta|`.
        atol: absolute tolerance in the same test; r is dimensionless.
        norm: the norm in that test.
        first_step: initial step size a.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        solver = tg.MirrorDescent(rtol=1e-6, atol=1e-6)
        field = tg.Pairwise(pair.couplings, jnp.full(2, 0.3))
        found = tg.solve(tg.NaiveMeanField(), field, 0.5, jnp.zeros(2), solver=solver)

        assert jnp.allclose(found.value, jnp.tanh(0.5 * (0.3 + found.value[::-1])), atol=1e-5)
        ```
    """

    rtol: float = 1e-6
    atol: float = 1e-4
    norm: Callable = optx.max_norm
    first_step: float = 0.2

    def init(self, fn, y, args, options, f_struct, aux_struct, tags) -> _DescentState:
        # Where nothing has turned yet, the step size doubles.
        step_size = jnp.asarray(0.5 * self.first_step, y.dtype)
        return _DescentState(
            step_size, jnp.tanh(y), jnp.zeros_like(y), jnp.full_like(step_size, jnp.inf)
        )

    def step(self, fn, y, args, options, state, tags):
        trial = y - state.step_size * state.residual
        m = jnp.tanh(trial)
        residual, _ = fn(trial, args)
        # Twice the change of G along the step, less what it may be by rounding.
        shift = m - state.m
        rounding = jnp.finfo(y.dtype).eps * (jnp.abs(y) + jnp.abs(trial)) * jnp.abs(shift)
        accept = total((state.residual + residual) * shift - rounding) <= 0
        # The first look is at the start itself, whose tanh may round otherwise in the loop.
        accept |= jnp.isinf(state.error)

        turned = residual - state.residual
        weighted = (1 - m * m) * turned
        bend, along = total(weighted * turned), -total(weighted * state.residual)
        # Where the metric underflows every spin is saturated: the fixed point is one step away.
        suggested = jnp.where(bend > 0, state.step_size * along / jnp.where(bend > 0, bend, 1), 1)
        grown = 2.0 * state.step_size
        suggested = jnp.where(suggested > 0, jnp.clip(suggested, 0.1 * state.step_size), grown)
        step_size = jnp.where(accept, jnp.minimum(suggested, 5 * grown), 0.3 * state.step_size)

        error = jnp.where(accept, self.norm(residual), state.error)
        old = (y, state.m, state.residual)
        y, m, residual = (
            jnp.where(accept, new, kept)
            for new, kept in zip((trial, m, residual), old, strict=True)
        )
        return y, _DescentState(step_size, m, residual, error), None

    def terminate(self, fn, y, args, options, state, tags) -> tuple[Bool[Array, ""], optx.RESULTS]:
        tolerance = self.atol + self.rtol * self.norm(y)
        exhausted = state.step_size < jnp.finfo(y.dtype).eps
        return exhausted | (state.error <= tolerance), optx.RESULTS.successful

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return y, aux, {}


class _PolishState(eqx.Module):
    step_size: Float[Array, ""]
    residual: Magnetizations
    aux: tuple
    error: Float[Array, ""]
    shift: Float[Array, ""]
    n_looks: Int[Array, ""]


class NewtonPolish(optx.AbstractRootFinder):
    """Newton steps on `r(theta) = 0`, halved until the residual falls.

    The function returns r, and as the first of its auxiliary outputs the Jacobian dr/dtheta;
    those of the end point are the solution's. At least two steps are taken: a derivative that is
    unrolled through them is as good as the point from which the last one started. Where G is
    flat a small residual says little about the place, so that steps go on until they are short
    as well.

    Attributes:
        rtol: relative tolerance: steps end at `max |r| <= atol + rtol max |theta|`.
        atol: absolute tolerance in the same test; r is dimensionless.
        norm: the norm in that test.
    """

    rtol: float = 0.0
    atol: float | Float[Array, ""] = 1e-10
    norm: Callable = optx.max_norm

    def init(self, fn, y, args, options, f_struct, aux_struct, tags) -> _PolishState:
        one, eye = jnp.ones((), y.dtype), jnp.eye(y.size, dtype=y.dtype)
        unknown = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), aux_struct[1:])
        return _PolishState(
            one, jnp.zeros_like(y), (eye, *unknown), jnp.inf * one, one, jnp.array(0)
        )

    def step(self, fn, y, args, options, state, tags):
        trial = y - state.step_size * jnp.linalg.solve(state.aux[0], state.residual)
        residual, aux = fn(trial, args)
        error = self.norm(residual)
        accept = error <= state.error
        step_size = jnp.where(accept, 1.0, 0.5 * state.step_size)
        moved = jnp.max(jnp.abs(jnp.tanh(trial) - jnp.tanh(y)), initial=0.0)
        moved = jnp.where(state.n_looks == 0, 1.0, moved)
        y, residual, aux, error, shift = jax.tree.map(
            lambda new, kept: jnp.where(accept, new, kept),
            (trial, residual, aux, error, moved),
            (y, state.residual, state.aux, state.error, state.shift),
        )
        return y, _PolishState(step_size, residual, aux, error, shift, state.n_looks + 1), aux

    def terminate(self, fn, y, args, options, state, tags) -> tuple[Bool[Array, ""], optx.RESULTS]:
        small = state.error <= self.atol + self.rtol * self.norm(y)
        small &= state.shift <= jnp.finfo(y.dtype).eps ** 0.5
        exhausted = state.step_size < 1e-3
        return (state.n_looks > 2) & (small | exhausted), optx.RESULTS.successful

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return y, aux, {}
