"""The result codes of all rooms."""

from . import learning, meanfield


class RESULTS(meanfield.RESULTS, learning.RESULTS):
    """The result codes of all rooms.

    `RESULTS[result]` is the message of a code, which says what to do, and `result ==
    RESULTS.converged` is the test. Codes are data: they pass through `jax.jit` and `jax.vmap`,
    and a batch of solves returns a batch of codes. Each room has a class of its own, such as
    `meanfield.RESULTS`, that adds codes; a code is the same one in each of these classes.

    !!! example

        ```python
        import thermogen as tg

        assert tg.RESULTS[tg.RESULTS.converged] == "The tolerance was met."
        ```
    """
