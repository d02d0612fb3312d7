"""Colouring of the interaction graph, on the host: spins of one colour are updated at once."""

import functools
import itertools
from typing import NamedTuple

import numpy as np

from ..energies import SpinSets

# Of one order p: numbers of the terms of each spin, shape `(colors, members, degree)`, and the
# other spins of each, shape `(colors, members, degree, p - 1)`.
Incidences = tuple[np.ndarray, np.ndarray]

# Terms of a spin up to which the levels of its field are told apart.
_MOST_TERMS = 12


@functools.lru_cache(maxsize=64)
def interaction_edges(sets: tuple[SpinSets, ...]) -> np.ndarray:
    """All pairs of spins that share a term, each once, shape `(edges, 2)`."""
    pairs = [
        np.sort(table.indices[:, [i, j]], axis=1)
        for table in sets
        for i, j in itertools.combinations(range(table.order), 2)
    ]
    return np.unique(np.concatenate([np.zeros((0, 2), np.int32), *pairs]), axis=0)


@functools.lru_cache(maxsize=64)
def color_plan(
    n_spins: int, sets: tuple[SpinSets, ...]
) -> tuple[np.ndarray, tuple[Incidences, ...]]:
    """Spins by colour, and where each finds its terms.

    Colours have equal shape, so that one compiled step serves all: what is missing is filled by
    the spin `n_spins` and by the term `n_terms` of each order.

    Returns:
        Members of each colour, shape `(colors, members)`, and incidences, one for each table.
    """
    import networkx as nx

    graph = nx.Graph()
    graph.add_nodes_from(range(n_spins))
    graph.add_edges_from(interaction_edges(sets).tolist())
    color = nx.greedy_color(graph, strategy="largest_first")
    classes = [[k for k in range(n_spins) if color[k] == c] for c in range(max(color.values()) + 1)]
    members = _padded(classes, n_spins)
    return members, tuple(_incidences(members, n_spins, table.indices) for table in sets)


class LevelPlan(NamedTuple):
    """Colours of an even number of spins, and what fields are where couplings are +-1.

    Fields have the values `lowest, lowest + step, ..., -lowest`. A spin is at level `first` where
    every term pulls down, and each one that pulls up instead lifts it by `2 / step` levels.
    """

    members: np.ndarray  # (colors, members)
    incidences: tuple[Incidences, ...]
    first: np.ndarray  # (colors, members)
    lowest: int
    step: int  # 1 or 2


@functools.lru_cache(maxsize=64)
def has_few_levels(n_spins: int, sets: tuple[SpinSets, ...]) -> bool:
    """Whether there are terms of two and more spins, and so few that levels are worth it."""
    longer = [table.indices.ravel() for table in sets if table.order > 1]
    degrees = np.bincount(np.concatenate([np.zeros(0, int), *longer]), minlength=n_spins)
    return 0 < int(degrees.max(initial=0)) <= _MOST_TERMS


@functools.lru_cache(maxsize=64)
def level_plan(n_spins: int, sets: tuple[SpinSets, ...]) -> LevelPlan:
    """For terms of two and more spins."""
    members, tables = color_plan(n_spins, sets)
    degrees = np.zeros(members.shape, int)
    for table, (terms, _) in zip(sets, tables, strict=True):
        if table.order > 1:
            degrees += (terms < len(table)).sum(axis=2)
    most = int(degrees.max(initial=0))
    mixed = np.any((most - degrees)[members < n_spins] % 2)
    step = 1 if mixed else 2
    odd = ((0, 0), (0, members.shape[1] % 2))
    return LevelPlan(
        np.pad(members, odd, constant_values=n_spins),
        tuple(
            (
                np.pad(terms, (*odd, (0, 0)), constant_values=len(table)),
                np.pad(others, (*odd, (0, 0), (0, 0)), constant_values=n_spins),
            )
            for table, (terms, others) in zip(sets, tables, strict=True)
        ),
        np.pad((most - degrees) // step, odd),
        -most,
        step,
    )


@functools.lru_cache(maxsize=64)
def incidences(n_spins: int, sets: tuple[SpinSets, ...]) -> tuple[Incidences, ...]:
    """Where each spin finds its terms, one entry for each table.

    Numbers of the terms, shape `(n, degree)`, and the other spins of each, `(n, degree, p - 1)`;
    what is missing is filled as in `color_plan`.
    """
    spins = np.arange(n_spins)[None]
    tables = [_incidences(spins, n_spins, table.indices) for table in sets]
    return tuple((terms[0], others[0]) for terms, others in tables)


def _incidences(members: np.ndarray, n_spins: int, indices: np.ndarray) -> Incidences:
    n_terms, order = indices.shape
    flat = indices.ravel()
    by_spin = np.argsort(flat, kind="stable")  # entries (term, place) of the table
    degrees = np.bincount(flat, minlength=n_spins)
    starts = np.cumsum(degrees) - degrees
    entries = _padded(
        [by_spin[s : s + d].tolist() for s, d in zip(starts, degrees, strict=True)] + [[]],
        flat.size,
    )
    # The other spins of each entry, in a row of their own for the entry that pads.
    others = np.full((flat.size + 1, max(order - 1, 0)), n_spins)
    for place in range(order):
        others[place : flat.size : order] = np.delete(indices, place, axis=1)
    terms = np.append(np.arange(flat.size) // max(order, 1), n_terms)
    chosen = entries[members]
    return terms[chosen].astype(np.int32), others[chosen].astype(np.int32)


def _padded(rows: list[list[int]], filling: int) -> np.ndarray:
    width = max(map(len, rows), default=0)
    return np.array([row + [filling] * (width - len(row)) for row in rows], np.int32).reshape(
        len(rows), width
    )
