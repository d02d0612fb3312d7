"""Solutions: the value, a result code that tells failures apart, the state, statistics."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, PyTree

from ._codes import Codes, code


class RESULTS(Codes):
    """Result codes. `RESULTS[code]` is the message; `code == RESULTS.converged` is the test.

    Codes are data: they pass through `jax.jit` and `jax.vmap`, and a batch of solves returns a
    batch of codes. Each room adds its own codes in a class that derives from this one, and
    `thermogen.RESULTS` has them all. A code is the same one in each of these classes.
    """

    converged = code("The tolerance was met.")
    non_finite = code(
        "NaN or infinity was met, or no mean-field solve of a fit converged. Check the parameters "
        "of the energy and that beta is positive; for a fit, lower "
        "the learning rate. A fit returns the last parameters that were finite."
    )
    step_limit = code(
        "All steps were used, or all the room that there was. Allow more of them: `n_steps` of a "
        "fit, `capacity` of a branch."
    )
    precision_limit = code(
        "Neither the loss nor its gradient fell any more, although the tolerance was not met: the "
        "numbers are out of precision, and more steps change nothing. Work in float64 "
        "(jax.config.update('jax_enable_x64', True), and parameters of that dtype)."
    )


class Solution(eqx.Module):
    """The outcome of a solve.

    Attributes:
        value: the solution itself.
        result: a `RESULTS` code, or an array of codes where solves were batched. Nothing that
            did not converge says `converged`.
        state: arrays that determine the value beyond its own precision, by name. The effective
            fields theta of a minimum are `state["fields"]`: a magnetization tanh(theta) that has
            rounded to 1 no longer tells them.
        stats: figures that describe the solve, by name, such as its residual and its number of
            steps.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        solution = tg.solve(tg.NaiveMeanField(), pair, 0.5, jnp.full(2, 0.1))

        assert solution.result == tg.RESULTS.converged and jnp.allclose(
            solution.value, 0, atol=1e-6
        )
        ```
    """

    value: Any
    result: RESULTS
    state: dict[str, Any]
    stats: dict[str, Any]


def checked(solution: Solution, good: Bool[Array, "..."]) -> Solution:
    """The solution, if its result is good; else an error, inside `jax.jit` too.

    Raises:
        RuntimeError: if not; the message says what to do.
    """
    failed = ~good
    if isinstance(failed, Tracer) and jax.device_count() == 1:
        return solution.result.error_if(solution, failed)
    raise_where(failed, _advice, solution.result)
    return solution


def raise_where(
    failed: Bool[Array | np.ndarray, "..."], message: Callable[..., str], *arguments: PyTree
) -> None:
    """Raise `message(*arguments)` on the host, of the first of a batch that failed.

    Traced, too: what equinox does instead waits for ever for the other devices where a
    computation runs on several.
    """

    def look(failed, arguments):
        if np.any(failed):
            at = int(np.argmax(failed))
            first = jax.tree.map(lambda x: np.asarray(np.ravel(x)[at]), arguments)
            raise RuntimeError(message(*first))

    if isinstance(failed, Tracer):
        jax.debug.callback(look, failed, arguments)
    else:
        look(failed, arguments)


def _advice(result: RESULTS) -> str:
    return RESULTS[result]
