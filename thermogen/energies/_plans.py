"""Which products of spins make up the moments of a sparse energy; found on the host, once.

All plans depend on structure alone. They are cached, and compiled programs hold them as constants.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

# Beyond this length of an interaction its 2^p subsets are compared with a list of pairs.
_SHORT = 6


def has_short_terms(tables: Sequence[np.ndarray], n_spins: int) -> bool:
    """Whether listing all subsets of all terms costs less than listing all overlapping pairs."""
    lengths = np.array([table.shape[1] for table in tables if len(table)] + [0])
    if np.max(lengths) <= _SHORT:
        return True
    subsets = sum(len(table) * table.shape[1] * 2.0 ** table.shape[1] for table in tables)
    member = _membership(tables, n_spins)
    pairs = np.count_nonzero(member @ member.T >= 2)
    return bool(subsets <= pairs * np.max(lengths))


def subset_plan(tables: Sequence[np.ndarray]):
    """Which term contributes to the derivative by which set of two spins or more.

    Args:
        tables: spins of each term, one table a group, shape `(n_terms, p)`.

    Returns:
        One entry `(subsets, target, [(group, rest), ...])` for each subset size >= 2: row by row,
        and again for each choice of a subset within a term, the terms of table `group` add
        `J prod_{k in rest} m_k` to the derivatives by `subsets[target]`.
    """
    raw: dict[int, list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for group, table in enumerate(tables):
        indices, places = np.sort(table, axis=1), range(table.shape[1])
        for size in range(2, table.shape[1] + 1):
            choices = list(itertools.combinations(places, size))
            rests = [[j for j in places if j not in chosen] for chosen in choices]
            subset = np.concatenate([indices[:, list(chosen)] for chosen in choices])
            rest = np.concatenate([indices[:, left] for left in rests])
            raw.setdefault(size, []).append((group, rest, subset))
    plan = []
    for entries in raw.values():
        stacked = np.concatenate([subset for *_, subset in entries])
        subsets, target = np.unique(stacked, axis=0, return_inverse=True)
        # One index type, whether or not JAX runs in double precision when the plan is used.
        target = target.reshape(-1).astype(np.int32)
        plan.append((subsets, target, [entry[:2] for entry in entries]))
    return plan


class Overlaps(NamedTuple):
    """Pairs of terms that share `common.shape[1] >= 2` spins, terms numbered through all groups.

    Attributes:
        first: a term, shape `(n_pairs,)`.
        second: another, or the same, shape `(n_pairs,)`.
        weight: 2 for a pair of different terms, which stands for both orders; else 1.
        common: the spins in both, shape `(n_pairs, size)`.
        single: the spins in one only, padded with the number of spins, `(n_pairs, longest)`.
    """

    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray
    common: np.ndarray
    single: np.ndarray


def overlap_plan(tables: Sequence[np.ndarray], n_spins: int) -> list[Overlaps]:
    """All pairs of terms that share at least two spins, grouped by how many they share."""
    member = _membership(tables, n_spins)
    shared = np.triu(member @ member.T)
    plan = []
    for size in range(2, int(np.max(shared, initial=0)) + 1):
        first, second = np.nonzero(shared == size)
        if first.size == 0:
            continue
        both = (member[first] * member[second]).astype(bool)
        one = member[first] != member[second]
        common = np.nonzero(both)[1].reshape(-1, size)
        order = np.argsort(~one, axis=1, kind="stable")[:, : max(1, one.sum(axis=1).max())]
        single = np.where(np.take_along_axis(one, order, axis=1), order, n_spins)
        plan.append(Overlaps(first, second, np.where(first == second, 1, 2), common, single))
    return plan


class Triples(NamedTuple):
    """Triples of spin sets in which no spin occurs once; sets numbered as by `subset_plan`.

    Attributes:
        sets: numbers of the three sets, shape `(n_triples, 3)`.
        weight: in how many orders the triple occurs: 1, 3 or 6.
        twice: the spins in two of the sets, shape `(n_triples, i)`.
        thrice: the spins in all three, shape `(n_triples, j)`.
    """

    sets: np.ndarray
    weight: np.ndarray
    twice: np.ndarray
    thrice: np.ndarray


def triple_plan(subsets: Iterable[np.ndarray]) -> list[Triples]:
    """All triples of the given sets in which every spin occurs twice or three times."""
    sets = [frozenset(row) for table in subsets for row in table.tolist()]
    number = {spins: i for i, spins in enumerate(sets)}
    containing: dict[int, list[int]] = {}
    for i, spins in enumerate(sets):
        for k in spins:
            containing.setdefault(k, []).append(i)
    found: dict[tuple[int, int], dict[tuple[int, ...], tuple[list[int], list[int]]]] = {}
    for i, a in enumerate(sets):
        # Two of the three sets meet: if a and b do not, each of them meets the third, a + b.
        for j in {j for k in a for j in containing[k] if j >= i}:
            b = sets[j]
            either, both = a ^ b, a & b
            for thrice in itertools.chain.from_iterable(
                itertools.combinations(both, size) for size in range(len(both) + 1)
            ):
                third = number.get(either.union(thrice))
                if third is not None:
                    triple = tuple(sorted((i, j, third)))
                    twice = sorted((a | b).difference(thrice))
                    shape = (len(twice), len(thrice))
                    found.setdefault(shape, {})[triple] = (twice, sorted(thrice))
    plan = []
    for shape, triples in found.items():
        sets_of = np.array(list(triples), np.int32)
        orders = [(1, 3, 6)[len(set(triple)) - 1] for triple in triples]
        twice, thrice = (
            np.array(spins, np.int32).reshape(len(triples), size)
            for spins, size in zip(zip(*triples.values(), strict=True), shape, strict=True)
        )
        plan.append(Triples(sets_of, np.array(orders), twice, thrice))
    return plan


def _membership(tables: Sequence[np.ndarray], n_spins: int) -> np.ndarray:
    """1 where a term holds a spin, shape `(n_terms, n_spins)`."""
    rows = []
    for table in tables:
        row = np.zeros((len(table), n_spins), np.float32)
        np.put_along_axis(row, table.astype(np.int64), 1, axis=1)
        rows.append(row)
    return np.concatenate(rows)
