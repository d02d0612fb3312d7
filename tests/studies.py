"""Studies made by hand: every part of a page, at the size of a test."""

import dataclasses

import jax.numpy as jnp
import numpy as np

import thermogen as tg
from thermogen import RESULTS, Solution
from thermogen.energies import Pairwise
from thermogen.kinetics import BoundStates, Certificate
from thermogen.landscape import TRANSITIONS, Barriers
from thermogen.learning import FitResult, RidgeChoice
from thermogen.search import PER_STATE, Completeness, Kind, Library
from thermogen.study import _recall
from thermogen.study._pipeline import STAGES


def made_library(n_states, n_spins, overflow=False):
    draw = np.random.default_rng(n_states)
    return Library(
        magnetizations=draw.uniform(-1, 1, (n_states, n_spins)),
        free_energies=np.linspace(-9, -5, n_states),
        residuals=np.full(n_states, 1e-12),
        curvatures=np.full(n_states, 0.25),
        hits=np.full(n_states, 3),
        multiplicity=1 + np.arange(n_states) % 2,
        kind=np.full(n_states, Kind.MINIMUM, np.int8),
        overflow=np.array(overflow),
    )


def _certificate(n_states, n_spins):
    """Two bound states of all: the last, never left, is with the first; the second is alone."""
    own = np.arange(n_states)
    group = np.where(own == 1, 1, 0)
    times = np.where(group == 1, 50.0, np.inf)
    return Certificate(
        escape_times=times,
        intervals=np.stack([0.9 * times, 1.2 * times], axis=1),
        n_escapes=np.full(n_states, 9),
        exposures=9 * times,
        inner_times=np.ones(n_states),
        group=group,
        bound=own < 2,
        multiplicity=np.ones(n_states, int),
        side=np.ones(n_states, int),
        occupations=np.eye(n_states),
        escapes=np.zeros((n_states, n_states)),
        cores=np.ones((n_states, n_spins), np.int8),
        same_core=np.where(own == 1, 1, 0),
        disordered=np.zeros(n_states, bool),
        reach=np.full(n_states, -1.0),
        relaxation_times=np.array([60.0])[: n_states - 1],
        rates=np.zeros((min(n_states, 2),) * 2),
        threshold=20.0,
        lag=40.0,
    )


def _ergodicity(library):
    """Of the first states of a library, and of one single-flip minimum."""
    flip = library[:1]
    flip = dataclasses.replace(
        flip,
        magnetizations=np.sign(flip.magnetizations),
        residuals=np.full(1, np.inf),
        kind=np.full(1, Kind.FLIP_MINIMUM, np.int8),
    )
    held = library[: min(library.size, 20)]
    both = {k: np.concatenate([getattr(held, k), getattr(flip, k)]) for k in PER_STATE}
    candidates = Library(**both, overflow=held.overflow)
    certificate = _certificate(candidates.size, candidates.magnetizations.shape[1])
    complete = Completeness(1.0, (0.99, 1.0), 3.0, (3.0, 4.0))
    edges = np.linspace(-1, 1, 41)
    rows = np.flatnonzero(certificate.bound)
    return BoundStates(
        magnetizations=candidates.magnetizations[rows],
        weights=np.array([0.75, 0.25])[: len(rows)],
        weight_intervals=np.tile([0.0, 1.0], (len(rows), 1)),
        library_weights=np.array([0.6, 0.4])[: len(rows)],
        log_partition=10.0,
        log_partition_error=0.1,
        escape_times=certificate.escape_times[rows],
        intervals=certificate.intervals[rows],
        multiplicity=certificate.multiplicity[rows],
        representatives=rows,
        library=candidates,
        certificate=certificate,
        overlap_edges=edges,
        overlaps=np.full(40, 1 / 40),
        completeness=complete,
        flip_completeness=complete,
        n_flip_minima=5,
        n_dropped=0,
        beta=1.0,
    )


def _barriers(library):
    """All states joined two above the highest of them."""
    k, n = min(library.size, 12), library.magnetizations.shape[1]
    free_energies = library.free_energies[:k]
    heights = np.full((k, k), free_energies.max() + 2)
    np.fill_diagonal(heights, free_energies)
    return Barriers(
        ends=np.array([[0, 1]]),
        parity=np.ones(1, int),
        multiplicity=np.ones(1, int),
        magnetizations=np.zeros((1, n)),
        free_energies=heights[:1, 1],
        residuals=np.zeros(1),
        indices=np.ones(1, int),
        result=TRANSITIONS.named(["converged"]),
        heights=heights,
        mirror_heights=np.full(k, np.inf),
        others=np.zeros((0, n)),
    )


def _recollection(source):
    truths = source.spins[:5].astype(float)
    return tg.study.Recollection(
        truths=truths,
        known=_recall.shown(source),
        answers=truths,
        probabilities=np.linspace(0.1, 0.9, 5),
        means=0.5 * truths,
        exact=0.4,
        accuracy=0.8,
        guess=0.6,
    )


def made_study(picture=(4, 4), n_states=3, n_classes=3, **library):
    n_spins, n_samples = picture[0] * picture[1], 20
    draw = np.random.default_rng(0)
    spins = draw.choice(np.array([-1, 1], np.int8), (n_samples, n_spins))
    labels = np.arange(n_samples) % n_classes if n_classes else None
    study = tg.study.Study(
        tg.study.Source("<made & up>", spins, labels, picture), tg.study.Settings()
    )
    study.fit = FitResult(
        Pairwise(jnp.zeros((n_spins, n_spins)), jnp.ones(n_spins)),
        np.linspace(9, 5, 40),
        RESULTS.converged,
    )
    study.scan = [
        tg.study.ScanPoint("naive", beta, count, 0.9, count == 64)
        for beta, count in [(0.3, 1), (2.0, 64)]
    ]
    study.library = made_library(n_states, n_spins, **library)
    ends = np.resize(study.library.magnetizations[: max(n_states, 1)], (n_samples, n_spins))
    result = RESULTS.where(np.arange(n_samples) == 0, RESULTS.stalled, RESULTS.converged)
    study.minima = Solution(ends, result, {}, {})
    if n_states:
        study.bound_states = _ergodicity(study.library)
    if n_states > 1:
        study.barriers = _barriers(study.library)
    study.recollection = _recollection(study.source)
    study.l2 = 1e-3
    study.ridge = RidgeChoice(1e-3, np.geomspace(1, 1e-3, 4), np.array([9.0, 8.0, 7.0, 6.0]))
    study.moments = tg.study.Moments(np.tanh(np.ones(n_spins)), np.eye(n_spins), 0.01, 12.5)
    study.command = "thermogen study 'made & up'"
    looks = np.array([0, 1, 10, 40]), np.array([9.0, 8, 6, 5]), np.array([9.0, 8, 7, 6.5])
    study.held_out = tg.study.HeldOut(None, 4, 1.0, 1.05, 0.1, -8.5, 0.25, 0.0, -11.0, *looks)
    if n_states:
        bound = len(study.bound_states)
        study.variations = [
            tg.study.Variation("without the ridge", "1", np.arange(bound) < 1, RESULTS.separable),
            tg.study.Variation("on resampled data", "2", np.ones(bound, bool), RESULTS.converged),
            tg.study.Variation("on resampled data", "3", np.ones(bound, bool), RESULTS.converged),
        ]
    one = tg.study.Contestant(1, 136, 8.0, 9.0, 0.2, 0.7)
    study.comparison = tg.study.Comparison(
        one, one._replace(n_experts=4, held_out=8.0), 1.0, 0.1, 4, "ExactLikelihood"
    )
    study.finished = list(STAGES)
    study.seconds = dict.fromkeys(study.finished, 1.0)
    return study
