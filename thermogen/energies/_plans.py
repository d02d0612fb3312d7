"""Products of spins that make up the moments of a sparse energy; found on the host, once.

All plans depend on structure alone. They are cached, and compiled programs hold them as constants.
"""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

# Beyond this length of an interaction its 2^p subsets are compared with a list of pairs, and the
# 5^p triples of subsets give way to triples of terms.
SHORT = 6
# Spins in all triples of terms, and triples of subsets, beyond which a plan is refused: about
# ten seconds of work.
_MOST_SPINS, _MOST_TRIPLES = 2**17, 2**20


def has_short_terms(tables: Sequence[np.ndarray], n_spins: int) -> bool:
    """Whether listing all subsets of all terms costs less than listing all overlapping pairs."""
    lengths = np.array([table.shape[1] for table in tables if len(table)] + [0])
    if np.max(lengths) <= SHORT:
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


class TermRows(NamedTuple):
    """Pairs or triples of terms, one a row; terms numbered through all groups.

    Attributes:
        terms: numbers of the k terms, shape `(rows, k)`.
        weight: number of orders in which the row occurs, shape `(rows,)`.
        spins: the spins in any of the terms, padded with the number of spins, `(rows, most)`.
        members: True where a term holds a spin, shape `(rows, k, most)`.
    """

    terms: np.ndarray
    weight: np.ndarray
    spins: np.ndarray
    members: np.ndarray


def overlap_plan(tables: Sequence[np.ndarray], n_spins: int) -> TermRows:
    """All pairs of terms that share at least two spins; there is one where a term is long."""
    member = _membership(tables, n_spins)
    return _term_rows(member, np.argwhere(np.triu(member @ member.T) >= 2))


def _term_rows(member: np.ndarray, terms: np.ndarray) -> TermRows:
    """Sorted rows of terms, with the spins that they hold."""
    inside = member[terms].astype(bool)
    spins = _places(np.any(inside, axis=1))
    padded = np.concatenate([inside, np.zeros((*inside.shape[:2], 1), bool)], axis=2)
    members = np.take_along_axis(padded, spins[:, None, :], axis=2)
    # Of k terms k! orders, less those that exchange equal ones.
    ways = math.factorial(terms.shape[1])
    equal = [math.prod(map(math.factorial, Counter(row).values())) for row in terms.tolist()]
    weight = ways // np.array(equal, np.int32)
    return TermRows(terms.astype(np.int32), weight, spins, members)


@functools.lru_cache(maxsize=2)
def counting_steps(k: int) -> tuple[list[tuple[int, ...]], np.ndarray, int]:
    """How k counters, each of them up to 2, move where none, two or more of them count a spin.

    Returns:
        Which counters count, by case; by case and then by state the next state, as ones in a table
        of shape `(cases * states, states)`; the state where all have come to 2. The first is that
        where all are 0.
    """
    sizes = [0, *range(2, k + 1)]
    cases = [case for size in sizes for case in itertools.combinations(range(k), size)]
    states, table = [(0,) * k], []
    for state in states:  # which grows meanwhile
        for case in cases:
            new = tuple(min(count + (i in case), 2) for i, count in enumerate(state))
            if new not in states:
                states.append(new)
            table.append(states.index(new))
    ones = np.eye(len(states))[np.array(table).reshape(len(states), len(cases)).T.ravel()]
    return cases, ones, states.index((2,) * k)


class Triples(NamedTuple):
    """Triples of spin sets in which no spin occurs once; sets numbered as by `subset_plan`.

    Attributes:
        sets: numbers of the three sets, shape `(n_triples, 3)`.
        weight: number of orders in which the triple occurs: 1, 3 or 6.
        twice: the spins in two of the sets, shape `(n_triples, i)`.
        thrice: the spins in all three, shape `(n_triples, j)`.
    """

    sets: np.ndarray
    weight: np.ndarray
    twice: np.ndarray
    thrice: np.ndarray


def triple_plan(subsets: Iterable[np.ndarray]) -> list[Triples]:
    """All triples of the given sets in which every spin occurs twice or three times.

    Raises:
        ValueError: if there are too many.
    """
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
        if sum(map(len, found.values())) > _MOST_TRIPLES:
            raise ValueError(
                f"energy has too many terms (of up to {max(map(len, sets))} spins) for the "
                "nonlinear third moment; use an order up to 2 such as TAP(), or Bethe()"
            )
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


class TermTriples(NamedTuple):
    """Triples of terms of which one at least is long; terms numbered through `groups`, in turn."""

    groups: list[int]
    rows: TermRows


def term_triple_plan(tables: Sequence[np.ndarray], n_spins: int) -> TermTriples | None:
    """All triples of terms, one of them long, in which each shares two spins with the others.

    Raises:
        ValueError: if there are too many.
    """
    lengths = [table.shape[1] for table in tables]
    n_long = sum(len(table) for table in tables if table.shape[1] > SHORT)
    if n_long == 0:
        return None
    # Long terms first: the first term of a sorted triple is long.
    groups = sorted(range(len(tables)), key=lambda g: -lengths[g])
    member = _membership([tables[g] for g in groups], n_spins)
    _check_plan(n_long * len(member) ** 2 // 64, max(lengths))
    overlap, triples = member @ member.T, []
    for a in range(n_long):
        common = (member * member[a]) @ member.T  # of a, b and c, by b and c
        in_a, in_others = overlap[a][:, None] + overlap[a][None, :] - common, overlap - common
        meets = (in_a >= 2) & (overlap[a][:, None] + in_others >= 2)
        meets &= overlap[a][None, :] + in_others >= 2
        b, c = np.nonzero(np.triu(meets)[a:])
        triples.append(np.stack([np.full_like(b, a), b + a, c], axis=1))
        _check_plan(sum(map(len, triples)), max(lengths))
    terms = np.concatenate(triples)
    held = np.any(member[terms], axis=1).sum(axis=1)
    _check_plan(len(terms) * int(held.max()), max(lengths))
    return TermTriples(groups, _term_rows(member, terms))


def _check_plan(spins: int, longest: int) -> None:
    if spins > _MOST_SPINS:
        raise ValueError(
            f"energy has too many terms beside long ones (up to {longest} spins) for the nonlinear "
            "third moment; use an order up to 2 such as TAP(), or Bethe()"
        )


def _places(chosen: np.ndarray) -> np.ndarray:
    """Columns that are chosen in each row, padded with the number of columns, one at least."""
    order = np.argsort(~chosen, axis=1, kind="stable")[:, : max(1, chosen.sum(axis=1).max())]
    places = np.where(np.take_along_axis(chosen, order, axis=1), order, chosen.shape[1])
    return places.astype(np.int32)


def _membership(tables: Sequence[np.ndarray], n_spins: int) -> np.ndarray:
    """1 where a term holds a spin, shape `(n_terms, n_spins)`."""
    rows = []
    for table in tables:
        row = np.zeros((len(table), n_spins), np.float32)
        np.put_along_axis(row, table.astype(np.int64), 1, axis=1)
        rows.append(row)
    return np.concatenate(rows)
