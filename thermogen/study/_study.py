"""The data and the findings of a study."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._checks import seeded_key
from .._solution import RESULTS, Solution
from ..energies import AbstractEnergy, Mixture
from ..kinetics import BoundStates
from ..landscape import Barriers
from ..learning import FitResult, RidgeChoice, checked_shares
from ..meanfield import Plefka
from ..search import Kind, Library
from ._settings import Settings

# Stages whose keys differ from task to task, those of the search and of the certificate; there are
# fewer stages than this.
_OF_TASKS, _STAGES = (2, 3), 256


class Source(NamedTuple):
    """A data set to be studied.

    Attributes:
        name: name of the data in the report.
        spins: the samples, shape `(n_samples, n_spins)`, float64, -1 or +1, and 0 where a spin is
            unknown.
        labels: class of each sample, integers of shape `(n_samples,)`, or None.
        picture: rows and columns in which one sample is drawn; `(1, n_spins)` is a strip.
        weights: relative weight of each sample, shape `(n_samples,)`; equal where None.
        names: names of the spins, or None.
        classes: names of the classes, which `labels` count, or None.
    """

    name: str
    spins: np.ndarray
    labels: np.ndarray | None
    picture: tuple[int, int]
    weights: np.ndarray | None = None
    names: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None

    @property
    def has_gaps(self) -> bool:
        """Whether any spin of any sample is unknown."""
        return bool(np.any(self.spins == 0))

    @property
    def size(self) -> float:
        """How many independent samples these are worth, by their weights."""
        return checked_shares(self.weights, len(self.spins))[1]

    def shares(self) -> np.ndarray:
        """Share of each sample in all means, shape `(n_samples,)`; they sum to 1."""
        weights = np.ones(len(self.spins)) if self.weights is None else self.weights
        return weights / weights.sum()


class Recollection(NamedTuple):
    """Samples of which one part was hidden, and what the model put in its place.

    Attributes:
        truths: the samples, shape `(cues, n_spins)`.
        known: True for the spins that were shown, shape `(n_spins,)`, the same for all cues.
        answers: the most probable configurations, shape `(cues, n_spins)`; 0 for no answer.
        probabilities: probability of each answer given its cue, shape `(cues,)`.
        means: mean of each spin given the cue, shape `(cues, n_spins)`.
        exact: share of the cues whose most probable answer is the sample.
        accuracy: share of the hidden spins that have the sign of their mean.
        guess: the accuracy if each hidden spin is guessed by its mean over all samples.
    """

    truths: np.ndarray
    known: np.ndarray
    answers: np.ndarray
    probabilities: np.ndarray
    means: np.ndarray
    exact: float
    accuracy: float
    guess: float


class HeldOut(NamedTuple):
    """What a model is worth on samples that it has not learned; likelihoods in nats per sample.

    Of a model that was given, on all samples.

    Attributes:
        energy: the model that is judged; None for one that was given.
        n_samples: number of samples that judge.
        beta: inverse temperature of the study: as it was asked for; else `best_beta` where that
            differs from 1 by more than two standard errors, and 1 where it does not.
        best_beta: inverse temperature at which the objective of the study is best on these samples.
        best_beta_error: its standard error; infinite where there is no such temperature.
        log_likelihood: mean of ln p at `beta`.
        error: standard error of that mean, that of ln Z included.
        log_partition_error: standard error of ln Z; 0 where it is summed.
        independent: mean of ln p if all spins were independent, with the means of the samples that
            were learned.
        steps: steps of learning at which the losses were looked at, shape `(looks,)`.
        training: mean of `-sum_k ln P(s_k | rest)` over the learned samples then.
        held_out: that of the samples that judge.
    """

    energy: AbstractEnergy | None
    n_samples: int
    beta: float
    best_beta: float
    best_beta_error: float
    log_likelihood: float
    error: float
    log_partition_error: float
    independent: float
    steps: np.ndarray
    training: np.ndarray
    held_out: np.ndarray


class Contestant(NamedTuple):
    """One side of the comparison; costs are negative log-likelihoods in nats per sample.

    Attributes:
        n_experts: 1 for one model.
        n_parameters: couplings and fields of all experts, and their free weights.
        training: cost of the samples that it learned.
        held_out: cost of those that it did not.
        exact: share of held-out cues whose most probable answer is the sample.
        accuracy: share of the hidden spins of these cues that have the sign of their mean.
    """

    n_experts: int
    n_parameters: int
    training: float
    held_out: float
    exact: float
    accuracy: float


class Comparison(NamedTuple):
    """One model against experts that learned from the same part of the data.

    Attributes:
        one: one model.
        experts: the mixture.
        gain: mean loss of one model less that of the experts, in nats per held-out sample.
        error: standard error of the gain, over held-out samples.
        n_held_out: number of held-out samples.
        objective: name of the objective by which both learned.
    """

    one: Contestant
    experts: Contestant
    gain: float
    error: float
    n_held_out: int
    objective: str


class Variation(NamedTuple):
    """What became of the bound states in a model that was learned in another way.

    Attributes:
        what: the way in which the model was learned.
        bound: number of its bound states, mirror images counted, in words.
        kept: True for those of the study's bound states, the heaviest first, that are still apart
            from all heavier ones, shape `(bound,)`.
        fit_result: result of its fit, a `RESULTS` code.
    """

    what: str
    bound: str
    kept: np.ndarray
    fit_result: RESULTS


class Moments(NamedTuple):
    """Means and correlations of the visible spins in the model, at the inverse temperature.

    Attributes:
        means: mean of each spin, shape `(n,)`.
        pairs: mean product of each two, not connected, shape `(n, n)`.
        error: typical standard error of an entry of `pairs`; 0 where all configurations were
            summed, infinite where sampling has failed.
        log_partition: ln Z where it is exact, else NaN.
    """

    means: np.ndarray
    pairs: np.ndarray
    error: float
    log_partition: float


class ScanPoint(NamedTuple):
    """What a short search of one functional found at one inverse temperature."""

    functional: str
    beta: float
    n_states: int
    coverage: float
    overflow: bool


@dataclass
class Study:
    """A study and what it has found so far; `run_study` fills it stage by stage.

    Attributes:
        source: the data.
        settings: the settings.
        l2: ridge of that fit, as it was asked for or chosen; None before.
        ridge: the choice of the ridge; None before, and where nothing was to choose.
        given: whether the model was trained before, and stands in `fit` from the beginning.
        held_out: what the model is worth on samples that it has not learned; None before, and
            where there are too few samples.
        fit: the learned energy and its learning curve; None before.
        filled: the samples, with the most probable value in place of what is missing, shape
            `(n_samples, n_spins)`; None before, and where nothing is missing.
        scan: number of states against beta.
        minima: end of the quench of every sample, in the order of the data; None before.
        library: the candidates for bound states; None before the search.
        bound_states: the candidates that trap the dynamics; None before the test.
        variations: the bound states of models that were learned in other ways.
        barriers: transition states between the states of lowest free energy, as many as the
            tree shows; None before, and where there are fewer than two states.
        recollection: recall of the model; None before.
        moments: means and correlations of the model; None before.
        comparison: one model against experts; None before, and where there are too few samples.
        experts: the mixture of that comparison.
        seconds: time of each stage that was begun, finished or not.
        finished: the stages that ran to their end.
        interrupted: whether the user stopped the study.
        command: the command that made it; empty where none did.

    !!! example

        ```python
        from thermogen import study

        empty = study.Study(study.load_source("adder:2"), study.Settings(beta=1.0))

        assert empty.finished == [] and empty.library is None
        ```
    """

    source: Source
    settings: Settings
    l2: float | None = None
    ridge: RidgeChoice | None = None
    given: bool = False
    held_out: HeldOut | None = None
    fit: FitResult | None = None
    filled: np.ndarray | None = None
    scan: list[ScanPoint] = field(default_factory=list)
    minima: Solution | None = None
    library: Library | None = None
    bound_states: BoundStates | None = None
    variations: list[Variation] = field(default_factory=list)
    barriers: Barriers | None = None
    recollection: Recollection | None = None
    moments: Moments | None = None
    comparison: Comparison | None = None
    experts: Mixture | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)
    interrupted: bool = False
    command: str = ""

    @property
    def energy(self) -> Any:
        """The learned energy; known once something was learned."""
        assert self.fit is not None
        return self.fit.energy

    @property
    def beta(self) -> float:
        """Inverse temperature of the search: as asked for, or as held-out samples have it, or 1."""
        if self.settings.beta is not None:
            return self.settings.beta
        return 1.0 if self.held_out is None else self.held_out.beta

    @property
    def samples(self) -> np.ndarray:
        """The samples without gaps, shape `(n_samples, n_spins)`; known once a model is."""
        return self.source.spins if self.filled is None else self.filled

    def key(self, stage: int):
        """A random key of its own for each stage, and where it counts for each task."""
        task = self.settings.task if stage in _OF_TASKS else 0
        return jax.random.fold_in(seeded_key(self.settings.seed), stage + _STAGES * task)

    def verified(self) -> np.ndarray | None:
        """Which samples fell to a verified minimum, shape `(n_samples,)`; None if not known."""
        return None if self.minima is None else np.asarray(self.minima.result == RESULTS.converged)

    def assignment(self) -> np.ndarray | None:
        """State of each sample, shape `(n_samples,)`; -1 for none of them; None if not known."""
        verified = self.verified()
        if self.minima is None or self.library is None or verified is None:
            return None
        return np.where(verified, self.library.nearest(self.minima.value), -1)

    def samples_of_bound(self) -> np.ndarray | None:
        """How many samples fall to each bound state, heaviest state first; None if not known."""
        assignment, found = self.assignment(), self.bound_states
        if assignment is None or found is None:
            return None
        tested = np.sum(found.library.kind != Kind.FLIP_MINIMUM)
        known = (assignment >= 0) & (assignment < tested)
        return np.bincount(found.state_of[assignment[known]], minlength=len(found))

    def onsager_ratios(self) -> np.ndarray | None:
        """Second over first order of G in beta at each state, shape `(K,)`; None if not known.

        Where it is not small, no truncation of the expansion in beta can be trusted.
        """
        if self.fit is None or self.library is None:
            return None
        energy, beta = self.fit.energy, self.beta
        m = jnp.asarray(self.library.magnetizations)
        first = jax.vmap(lambda row: Plefka(1)(energy, beta, row))(m)
        second = jax.vmap(lambda row: Plefka(2)(energy, beta, row))(m) - first
        return np.asarray(jnp.abs(second / first))
