"""The tables of a page: states, bound states, and ln Z by each way."""

import base64
import math
from typing import NamedTuple

import numpy as np

from .. import plots
from ..search import Kind, Library
from ._figures import BOUND_SHOWN, tree_of
from ._study import Study

# States in the table, and samples that a state shows.
ROWS_SHOWN = 120
_SAMPLES, _ACROSS = 16, 8


class Row(NamedTuple):
    """One line of the table of states."""

    thumbnail: str
    alt: str
    free_energy: float
    weight: float
    hits: int
    curvature: float
    onsager: float
    residual: float
    samples: int | None
    mirrored: bool
    bound: int | None  # its bound state; None where it was not tested
    own: bool  # whether it stands for that
    picture: str | None  # samples that fall to it
    classes: str
    branch: str  # lines of the tree that lead to it


class Bound(NamedTuple):
    """One line of the table of bound states."""

    number: int
    candidate: int
    thumbnail: str
    alt: str
    weight: float
    weight_interval: tuple[float, ...]
    free_energy: float | None
    free_energy_interval: tuple[float, ...]
    library_free_energy: float
    mirrored: bool
    flip_minimum: bool
    escape_time: float
    interval: tuple[float, ...]
    samples: int | None
    reason: str


def states(study: Study) -> list[Row]:
    """The states of lowest free energy."""
    library, assignment, ratios = study.library, study.assignment(), study.onsager_ratios()
    if library is None or ratios is None:
        return []
    weights = np.asarray(library.weights(study.beta))
    tree = tree_of(study)
    ways = [] if tree is None else plots.branches_of(tree)
    rows = []
    for k in range(min(library.size, ROWS_SHOWN)):
        members = None if assignment is None else np.flatnonzero(assignment == k)
        thumbnail, alt = _thumbnail(library, k, study.source.picture)
        bound, own = _standing(study, k)
        rows.append(
            Row(
                thumbnail=thumbnail,
                alt=alt,
                free_energy=float(library.free_energies[k]),
                weight=float(weights[k]),
                hits=int(library.hits[k]),
                curvature=float(library.curvatures[k]),
                onsager=float(ratios[k]),
                residual=float(library.residuals[k]),
                samples=None if members is None else len(members),
                mirrored=int(library.multiplicity[k]) == 2,
                bound=bound,
                own=own,
                picture=_picture(study, members),
                classes=_classes(study, members),
                branch=" ".join(map(str, ways[k])) if k < len(ways) else "",
            )
        )
    return rows


def bound_states(study: Study) -> list[Bound]:
    """The heaviest bound states, as the certificate sees them."""
    found, picture = study.bound_states, study.source.picture
    if found is None:
        return []
    samples = study.samples_of_bound()
    rows = []
    for k, candidate in enumerate(found.representatives[:BOUND_SHOWN]):
        thumbnail, alt = _thumbnail(found.library, candidate, picture)
        rows.append(
            Bound(
                number=k,
                candidate=int(candidate),
                thumbnail=thumbnail,
                alt=alt,
                weight=float(found.weights[k]),
                weight_interval=tuple(found.weight_intervals[k].tolist()),
                free_energy=float(found.free_energies[k]) if found.weighed else None,
                free_energy_interval=tuple(found.free_energy_intervals[k].tolist()),
                library_free_energy=float(found.library_free_energies[k]),
                mirrored=bool(found.multiplicity[k] == 2),
                flip_minimum=bool(found.library.kind[candidate] == Kind.FLIP_MINIMUM),
                escape_time=float(found.escape_times[k]),
                interval=(float(found.intervals[k, 0]), float(found.intervals[k, 1])),
                samples=None if samples is None else int(samples[k]),
                reason=found.certificate.reason(int(candidate)),
            )
        )
    return rows


def partition(study: Study) -> list[tuple[str, float, float | None]]:
    """ln Z by each way that knows it, with its standard error, or None where that is unknown."""
    rows: list[tuple[str, float, float | None]] = []
    found, library, beta = study.bound_states, study.library, study.beta
    if study.moments is not None and math.isfinite(study.moments.log_partition):
        rows.append(("exact", study.moments.log_partition, 0.0))
    if found is not None and found.weighed:
        rows.append(("by cooled replicas", found.log_partition, found.log_partition_error))
    if library is not None and library.size:
        logs = np.log(library.multiplicity) - beta * np.asarray(library.free_energies)
        rows.append(("by the minima of G", float(np.logaddexp.reduce(logs)), None))
    return rows


def _standing(study: Study, k: int) -> tuple[int | None, bool]:
    """The bound state of candidate k of the library, and whether that is its own."""
    found = study.bound_states
    tested = (
        found is not None and k < found.library.size and found.library.kind[k] != Kind.FLIP_MINIMUM
    )
    if found is None or not tested:
        return None, False
    return int(found.state_of[k]), bool(found.certificate.bound[k])


def _picture(study: Study, members: np.ndarray | None) -> str | None:
    """Some of the samples that fall to a state, side by side."""
    if members is None or not len(members):
        return None
    chosen = members[np.unique(np.linspace(0, len(members) - 1, _SAMPLES).astype(int))]
    across = _ACROSS if study.source.picture[0] > 1 else 1
    return _embedded(plots.mosaic_png(study.source.spins[chosen], across, study.source.picture))


def _classes(study: Study, members: np.ndarray | None) -> str:
    """How many samples of each class fall to a state, the most frequent first."""
    if members is None or study.source.labels is None:
        return ""
    found, counts = np.unique(study.source.labels[members], return_counts=True)
    names = [str(k) if study.source.classes is None else study.source.classes[k] for k in found]
    order = np.argsort(-counts, kind="stable")
    return ", ".join(f"{counts[i]} of class {names[i]}" for i in order)


def _thumbnail(library: Library, k: int | np.integer, picture: tuple[int, int]) -> tuple[str, str]:
    """A state as a picture, and in words."""
    m = np.asarray(library.magnetizations[k])[: picture[0] * picture[1]]
    signs = np.where(np.abs(m) < 0.5, 0, np.sign(m)).astype(int)
    if len(signs) <= 24:
        alt = "spins " + "".join("−0+"[sign + 1] for sign in signs)
    else:
        alt = f"{np.sum(signs > 0)} spins up, {np.sum(signs < 0)} down, {np.sum(signs == 0)} open"
    return _embedded(plots.thumbnail_png(m, picture)), alt


def thumbnail_size(picture: tuple[int, int]) -> tuple[int, int]:
    """Width and height in CSS pixels."""
    rows, columns = picture
    return (56, 56) if rows > 1 else (min(14 * columns, 240), 14)


def _embedded(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
