"""The stage of a study that hides a part of some samples and asks the model for it."""

import jax
import numpy as np
from jaxtyping import Num

from ..energies import AbstractEnergy
from ..retrieval import recall, recall_scores
from ..runs import Place
from ._progress import Tell
from ._study import Recollection, Source, Study

_CUES = 64
_STRIP_HIDDEN = 0.4  # share of a strip that is hidden: of an adder the sum


def recollect(study: Study, tell: Tell, place: Place) -> None:
    """Recall samples of which a part is hidden: half of a picture, the end of a strip."""
    spins = study.samples
    tell(0, None, "")
    draw = np.random.default_rng(study.settings.seed)
    chosen = _chosen(study.source.labels, draw, len(spins))
    study.recollection = ask(study, study.energy, spins[chosen], study.beta)
    tell(1, 1, f"{study.recollection.accuracy:.1%} of the hidden spins right")


def ask(
    study: Study, energy: AbstractEnergy, samples: Num[np.ndarray, "cues n"], beta: float
) -> Recollection:
    """Hide a part of the first samples, and recall it."""
    truths, spins = samples[:_CUES].astype(float), study.samples
    count, known = len(truths), shown(study.source)
    # Always as many cues, so that studies of few samples share a program.
    cues = np.where(known, np.resize(truths, (_CUES, truths.shape[1])), 0)
    keys = jax.random.split(study.key(4), _CUES)
    answer = jax.vmap(lambda cue, key: recall(energy, beta, cue, key=key))
    answers = jax.tree.map(lambda x: x[:count], answer(cues, keys))
    scores = recall_scores(answers, truths, cues[:count], spins)
    guess = np.where(study.source.shares() @ spins >= 0, 1, -1)
    return Recollection(
        truths=truths,
        known=known,
        answers=np.asarray(answers.configurations[:, 0], float),
        probabilities=np.asarray(answers.probabilities[:, 0], float),
        means=np.asarray(answers.magnetizations, float),
        exact=float(scores.exact_match),
        accuracy=float(scores.marginal_accuracy),
        guess=float(np.mean((truths == guess)[:, ~known])),
    )


def shown(source: Source) -> np.ndarray:
    """Which spins are shown, shape `(n,)`: the upper half of a picture, the start of a strip."""
    rows, columns = source.picture
    n = rows * columns
    n_hidden = rows // 2 * columns if rows > 1 else max(1, round(_STRIP_HIDDEN * n))
    return np.arange(n) < n - n_hidden


def _chosen(labels: np.ndarray | None, draw: np.random.Generator, count: int) -> np.ndarray:
    """Samples at random; where there are classes, one of each in turn."""
    order = draw.permutation(count)
    if labels is None:
        return order[:_CUES]
    ranks = np.zeros(count, int)
    for label in np.unique(labels):
        members = np.flatnonzero(labels[order] == label)
        ranks[members] = np.arange(len(members))
    return order[np.lexsort((labels[order], ranks))[:_CUES]]
