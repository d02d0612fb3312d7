"""What a study is asked to do."""

import math
from dataclasses import dataclass
from enum import StrEnum

from .._checks import check_count, check_finite
from ..meanfield import TAP, AbstractFunctional, NaiveMeanField

# Beyond these the numbers of a study leave what doubles can hold, or its time what anyone can wait.
_LEAST, _MOST = 1e-9, 1e9


class Functional(StrEnum):
    """The mean-field free energies that a study can use.

    The default is naive mean field: it bounds the free energy, holds at any coupling, and errs
    towards too many candidates, which a later proof can reject. The expansion behind TAP breaks
    down at strong coupling, and a candidate that it misses is never seen.

    !!! example

        ```python
        from thermogen import study

        assert study.Settings(beta=1.0).functional == study.Functional.naive
        ```
    """

    naive = "naive"
    tap = "tap"

    @property
    def free_energy(self) -> AbstractFunctional:
        """The functional itself."""
        return {Functional.naive: NaiveMeanField, Functional.tap: TAP}[self]()


class Objective(StrEnum):
    """The objectives by which a study can learn.

    The likelihood is exact where its partition function can be enumerated at every step, else it
    is that of persistent chains.
    """

    pseudolikelihood = "pseudolikelihood"
    likelihood = "likelihood"


@dataclass(frozen=True)
class Settings:
    """What a study is asked to do.

    Args:
        beta: inverse temperature of the search, > 0, in 1/energy; chosen by held-out data where
            None.
        functional: the free energy that is minimised.
        l2: ridge on the couplings, >= 0, in nats per sample and squared energy unit; chosen by
            held-out data where None.
        n_starts: random starts of the search, >= 1.
        threshold: time that a bound state must trap the dynamics, > 0, in sweeps.
        seed: seed of everything random, >= 0.
        task: number of this task, >= 0, of an array whose tasks search and certify in one model.
            Task 0 is the study of an array without others.
        model: what is learned, as `thermogen.energies.untrained` has it, or the name of the file of
            a model that was trained before.
        objective: the objective by which it is learned; where None the likelihood for an RBM, and
            the pseudolikelihood for all others.
        quick: leave out the stages that learn anew: other ways of learning, and experts; and the
            scan of temperatures.

    Raises:
        ValueError: for a value out of range.

    !!! example

        ```python
        from thermogen import study

        assert study.Settings(beta=1.0).functional == study.Functional.naive
        ```
    """

    beta: float | None = None
    functional: Functional = Functional.naive
    l2: float | None = None
    n_starts: int = 576
    threshold: float = 20.0
    seed: int = 0
    task: int = 0
    model: str = "pairwise"
    objective: Objective | None = None
    quick: bool = False

    @property
    def way(self) -> Objective:
        """The objective as it was asked for, or by the kind of the model."""
        has_hidden = self.model.startswith("rbm:")
        return self.objective or (
            Objective.likelihood if has_hidden else Objective.pseudolikelihood
        )

    def __post_init__(self) -> None:
        for name in ("beta", "threshold"):
            value = getattr(self, name)
            if value is None:
                continue
            check_finite(name, value, positive=True)
            if not _LEAST <= value <= _MOST:
                raise ValueError(f"{name} must lie between {_LEAST:g} and {_MOST:g}, got {value}")
        if self.l2 is not None and not 0 <= self.l2 < math.inf:
            raise ValueError(f"l2 must be finite and not negative, got {self.l2}")
        if self.l2 is not None and self.l2 > _MOST:
            raise ValueError(f"l2 must be at most {_MOST:g}, got {self.l2}")
        check_count("n_starts", self.n_starts)
        check_count("seed", self.seed, least=0, most=2**64 - 1)
        check_count("task", self.task, least=0, most=2**22)
