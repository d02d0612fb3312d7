"""Energies along a training: what its landscape was at each stage."""

from collections.abc import Iterable

from ..energies import AbstractEnergy
from ._states import FitResult


class Checkpoints:
    """A `callback` of `fit` that keeps the model at chosen steps.

    `fit` calls back after every few steps; a step that lies between is met at the next call, and
    the last model of a fit is not kept unless it is asked for. With `thermogen.landscape.genealogy`
    the energies tell the births of states along the training.

    Args:
        steps: steps at which to keep the model, in any order; each call keeps it once at most.

    Attributes:
        steps: steps at which the model was kept, increasing.
        energies: the models.
        losses: the loss of each of these steps, in nats per sample.

    Raises:
        ValueError: if no step is given, or one that is not positive.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        kept = tg.learning.Checkpoints([1])
        tg.fit(tg.PersistentCD(), start, data, key=jax.random.key(0), n_steps=40, callback=kept)

        assert len(kept.energies) == len(kept.steps) == 1
        ```
    """

    steps: list[int]
    energies: list[AbstractEnergy]
    losses: list[float]

    def __init__(self, steps: Iterable[int]):
        self._due = sorted(set(steps))
        if not self._due or self._due[0] < 1:
            raise ValueError(f"steps must be positive, and one or more, got {self._due}")
        self.steps, self.energies, self.losses = [], [], []

    def __call__(self, fitted: FitResult) -> None:
        step = len(fitted.history) if fitted.state is None else int(fitted.state.step)
        if not self._due or step < self._due[0]:
            return
        self._due = [due for due in self._due if due > step]
        self.steps.append(step)
        self.energies.append(fitted.energy)
        self.losses.append(float(fitted.history[-1]))
