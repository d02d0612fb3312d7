"""The figures of a page, each with words that say what is seen."""

from collections.abc import Iterator

import numpy as np

from .. import plots
from ..landscape import DisconnectivityTree, disconnectivity_tree
from ._learning import is_enumerated
from ._measure import of_data
from ._model import couplings_of
from ._settings import Objective
from ._study import ScanPoint, Study
from ._words import percent, significant

FUNCTIONALS = {"tap": "TAP", "naive": "naive mean field"}
BOUND_SHOWN = 20

# Name, figure, and what is seen.
Drawing = tuple[str, plots.Figure, str]


def drawings(study: Study) -> Iterator[Drawing]:
    """All figures that there is something to draw of."""
    yield from _of_data(study)
    yield from _of_learning(study)
    yield from _of_model(study)
    yield from _of_library(study)
    yield from _of_dynamics(study)
    yield from _of_recall(study)


def knows_loss(study: Study) -> bool:
    """Whether the loss of the fit means anything: that of persistent chains does not."""
    return study.settings.way is Objective.pseudolikelihood or is_enumerated(study.energy)


def tree_of(study: Study) -> DisconnectivityTree | None:
    """The disconnectivity tree of the lowest states; None where barriers are not known."""
    if study.barriers is None or study.library is None:
        return None
    heights = study.barriers.heights
    return disconnectivity_tree(np.asarray(study.library.free_energies)[: len(heights)], heights)


def _of_data(study: Study) -> Iterator[Drawing]:
    source = study.source
    rows, columns = source.picture
    shape = f"pictures of {rows} by {columns} spins" if rows > 1 else f"columns of {columns} spins"
    classes = "" if source.labels is None else ", by class"
    figure = plots.samples_figure(
        source.spins,
        source.picture,
        source.labels,
        names=source.names,
        classes=source.classes,
    )
    yield "samples", figure, f"Some of the {len(source.spins)} samples{classes}: {shape}."


def _of_learning(study: Study) -> Iterator[Drawing]:
    yield from _learning_curve(study)
    if study.ridge is not None:
        choice = study.ridge
        figure = plots.ridge_figure(choice.strengths, choice.held_out, choice.l2)
        best = significant(float(np.min(choice.held_out)), 4)
        alt = f"Held-out loss of {len(choice.strengths)} strengths of the ridge; lowest: {best}."
        yield "ridge", figure, alt
    if study.scan:
        names = dict.fromkeys(point.functional for point in study.scan)
        found = {n: [p for p in study.scan if p.functional == n] for n in names}
        curves = {FUNCTIONALS[n]: _curve(points) for n, points in found.items()}
        library = study.library
        chosen = None if library is None else (study.beta, library.size)
        spans = [
            f"{FUNCTIONALS[n]}: {p[0].n_states} at β = {p[0].beta:.2g}, {p[-1].n_states} at "
            f"{p[-1].beta:.2g}"
            for n, p in found.items()
        ]
        alt = f"Number of minima against inverse temperature. {'; '.join(spans)}."
        yield "scan", plots.scan_figure(curves, chosen), alt


def _learning_curve(study: Study) -> Iterator[Drawing]:
    if study.fit is None or not len(study.fit.history):
        return
    said, losses, looks = [], None, None
    if knows_loss(study):
        losses = study.fit.history
        first, last = significant(float(losses[0]), 4), significant(float(losses[-1]), 4)
        said.append(
            f"The loss falls from {first} to {last} nats per sample in {len(losses)} steps."
        )
    judged = study.held_out
    if judged is not None and len(judged.steps):
        looks = judged.steps, judged.training, judged.held_out
        last = significant(float(judged.held_out[-1]), 4)
        said.append(f"The pseudolikelihood loss of held-out samples ends at {last}.")
    if said:
        yield "learning", plots.learning_figure(losses, looks), " ".join(said)


def _curve(points: list[ScanPoint]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns = ([p.beta for p in points], [p.n_states for p in points], [p.overflow for p in points])
    betas, counts, full = map(np.array, columns)
    return betas, counts, full


def _of_model(study: Study) -> Iterator[Drawing]:
    found = None if study.fit is None else couplings_of(study.energy)
    if found is not None:
        labels = ("hidden unit", "spin") if found.layered else ("spin", "spin")
        figure = plots.couplings_figure(
            found.matrix, found.fields, labels, names=study.source.names
        )
        yield "couplings", figure, _strongest(found.matrix, *labels)
        if not found.layered and len(found.fields) > 2 and np.any(found.matrix):
            figure = plots.interactions_figure(found.matrix, study.source.picture)
            alt = "The strongest couplings as lines between spins, wider where stronger."
            yield "interactions", figure, alt
    if study.moments is not None:
        model, data = study.moments, of_data(study.source)
        pairs = np.triu_indices(len(model.means), 1)
        offs = [model.means - data[0], (model.pairs - data[1])[pairs]]
        most = [significant(float(np.abs(off).max(initial=0)), 2) for off in offs]
        figure = plots.moments_figure(data, (model.means, model.pairs), model.error)
        alt = (
            "Means and pair correlations of the model against those of the data, beside the line "
            f"of equals; largest differences: {most[0]} and {most[1]}."
        )
        yield "moments", figure, alt


def _strongest(matrix: np.ndarray, row: str, column: str) -> str:
    i, j = np.unravel_index(int(np.argmax(np.abs(matrix))), matrix.shape)
    value = significant(float(matrix[i, j]))
    return (
        f"Matrix of couplings, {matrix.shape[0]} by {matrix.shape[1]}; the strongest, {value}, is "
        f"between {row} {i} and {column} {j}. Below it the fields."
    )


def _of_library(study: Study) -> Iterator[Drawing]:
    library, assignment = study.library, study.assignment()
    if library is None or library.size == 0 or assignment is None:
        return
    counts = np.bincount(assignment[assignment >= 0], minlength=library.size)
    top = int(np.argmax(counts))
    figure = plots.occupation_figure(
        assignment, library.size, study.source.labels, classes=study.source.classes
    )
    share = percent(float(counts[top] / len(assignment)))
    alt = f"Samples in each of {library.size} states; most in state {top}: {share} of them."
    yield "occupation", figure, alt


def _of_dynamics(study: Study) -> Iterator[Drawing]:
    found, tree = study.bound_states, tree_of(study)
    if found is not None:
        if found.weighed and len(found) > 1:
            shown = slice(BOUND_SHOWN)
            figure = plots.bound_states_figure(
                found.weights[shown],
                found.weight_intervals[shown],
                found.free_energies[shown],
                found.free_energy_intervals[shown],
                (found.library_weights[shown], found.library_free_energies[shown]),
            )
            share = percent(float(found.weights[0]))
            alt = f"Weights and free energies of the bound states; the heaviest has {share}."
            yield "bound", figure, alt
        top = float(found.overlap_edges[int(np.argmax(found.overlaps))])
        alt = f"Distribution of overlaps of two states; its highest bin begins at q = {top:.2g}."
        yield "overlaps", plots.overlaps_figure(found.overlap_edges, found.overlaps), alt
    if tree is not None and study.library is not None:
        held, picture = study.library[: len(tree.leaves)], study.source.picture
        # A strip stands upright below its line.
        shape = picture if picture[0] > 1 else picture[::-1]
        seen = held.magnetizations[:, : shape[0] * shape[1]]
        pictures = np.asarray(seen).reshape(-1, *shape)
        alt = f"Disconnectivity graph of the {len(tree.leaves)} lowest states; {_joined(tree)}."
        yield "tree", plots.disconnectivity_figure(tree, pictures=pictures), alt


def _joined(tree: DisconnectivityTree) -> str:
    if tree.n_trees > 1:
        return f"they form {tree.n_trees} trees that no known pass joins"
    return f"all of them are joined at G = {significant(float(tree.heights[-1]), 4)}"


def _of_recall(study: Study) -> Iterator[Drawing]:
    if study.recollection is not None:
        recalled = study.recollection
        figure = plots.recall_figure(*recalled[:5], study.source.picture, names=study.source.names)
        alt = (
            "Cues, answers and truths: samples of which a part is grey, the most probable and the "
            f"mean answer, and the sample; {percent(recalled.accuracy)} of the hidden spins right."
        )
        yield "recall", figure, alt
