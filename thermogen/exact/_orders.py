"""In which order the spins of a sparse model are summed out, found on the host from its graph.

What is left after some spins are summed out is a table over the frontier: the spins that share a
term with one of them. An order is as good as its largest frontier is small.
"""

import functools
import heapq
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import scipy

# A frontier beyond this many spins has no table on any machine.
MAX_WIDTH = 30
# Spins in the table and cut beyond which sums take days: a step over 2^32 entries takes a minute.
MAX_WORK = 32
# Starts of the greedy order, and spins beyond which there is one.
_N_STARTS, _MANY = 4, 5000


def elimination_order(n_spins: int, tables: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
    """An order with a small largest frontier, and the size of that frontier.

    The best of a few: the numbering itself, rising degrees, reverse Cuthill-McKee, the least
    growth of the frontier step by step, and the least degree in depth-first order. Each takes
    about n log n steps.

    Args:
        n_spins: number of spins n.
        tables: spins of each term, one table an order, shape `(n_terms, order)`.

    Returns:
        The spins in their order, shape `(n,)`, and the width.
    """
    graph = _graph(n_spins, tables)
    degrees = np.diff(graph.indptr)
    identity = np.arange(n_spins)
    cuthill = np.asarray(scipy.sparse.csgraph.reverse_cuthill_mckee(graph, True), int)
    simple = [identity, identity[::-1], np.argsort(degrees, kind="stable"), cuthill, cuthill[::-1]]
    widths = [width_of_order(order, tables) for order in simple]
    best = min(range(len(simple)), key=widths.__getitem__)
    order, width = simple[best], widths[best]
    # No order is narrower than 1 where there is a bond, nor than a term is long.
    floor = max([table.shape[1] - 1 for table in tables if len(table)] + [0])
    adjacent = [part.tolist() for part in np.split(graph.indices, graph.indptr[1:-1])]
    for search in (_depth_first, *_greedy_searches(cuthill)):
        if width <= floor:
            break
        candidate = search(adjacent, min(width, MAX_WORK + 1))
        if candidate is not None and (found := width_of_order(candidate, tables)) < width:
            order, width = candidate, found
    return order, width


_Search = Callable[[list[list[int]], int], np.ndarray | None]


def _greedy_searches(cuthill: np.ndarray) -> list[_Search]:
    """Searches by least growth from starts all over the graph."""
    starts = np.linspace(0, len(cuthill) - 1, _N_STARTS if len(cuthill) <= _MANY else 1)
    ranks = [np.argsort(np.roll(cuthill, -start)).tolist() for start in starts.astype(int)]
    return [functools.partial(_least_growth, some) for some in ranks]


def cut_set(order: np.ndarray, tables: Sequence[np.ndarray], width: int, most: int) -> list[int]:
    """The fewest spins without which no frontier of this order has more than `width` spins.

    Spins wait in the frontier for intervals of steps. Whenever too many wait at once, the one that
    would wait longest goes (Faigle and Nawijn, Discrete Appl. Math. 58, 13, 1995). It stops when
    there are more than `most`.
    """
    leaves, enters, _ = first_uses(order, tables)
    newcomers = np.argsort(enters, kind="stable")
    cut, last_to_leave, n_waiting = [], [], 0
    is_cut, came = np.zeros(len(order), bool), 0
    newcomers = newcomers[(enters < leaves)[newcomers]].tolist()
    for step, spin in enumerate(order.tolist()):
        n_waiting -= enters[spin] < step and not is_cut[spin]
        while came < len(newcomers) and enters[newcomers[came]] == step:
            heapq.heappush(last_to_leave, (-leaves[newcomers[came]], newcomers[came]))
            n_waiting += 1
            came += 1
        while n_waiting > width:
            # Those that are gone would leave before all that wait.
            cut.append(heapq.heappop(last_to_leave)[1])
            is_cut[cut[-1]] = True
            n_waiting -= 1
        if len(cut) > most:
            break
    return cut


def first_uses(
    order: np.ndarray, tables: Sequence[np.ndarray], n_cut: int = 0
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """When spins leave and enter the frontier, and when each term is added.

    The last `n_cut` spins never wait in the frontier: their values are given.

    Returns:
        The step that sums out each spin; the step at which a term with it is first added, at most
        the former; for each table the step that adds its terms, that of their first spin.
    """
    leaves = np.empty(len(order), int)
    leaves[order] = np.arange(len(order))
    enters, added = leaves.copy(), []
    for table in tables:
        step = leaves[table].min(axis=1)
        np.minimum.at(enters, table, step[:, None])
        added.append(step)
    given = order[len(order) - n_cut :]
    enters[given] = leaves[given]
    return leaves, enters, added


def width_of_order(order: np.ndarray, tables: Sequence[np.ndarray], n_cut: int = 0) -> int:
    """Size of the largest frontier of an order, of which the last `n_cut` spins are cut."""
    leaves, enters, _ = first_uses(order, tables, n_cut)
    waits = enters < leaves
    change = np.bincount(enters[waits], minlength=len(order))
    change -= np.bincount(leaves[waits], minlength=len(order))
    return int(np.max(np.cumsum(change), initial=0))


def _graph(n_spins: int, tables: Sequence[np.ndarray]) -> "scipy.sparse.csr_array":
    """Which spins share a term: a symmetric matrix without diagonal."""
    pairs = [
        table[:, list(columns)]
        for table in tables
        for columns in itertools.combinations(range(table.shape[1]), 2)
    ]
    first, second = np.concatenate([*pairs, np.zeros((0, 2), int)]).astype(np.int32).T
    places = (np.concatenate([first, second]), np.concatenate([second, first]))
    graph = scipy.sparse.csr_array((np.ones(len(places[0])), places), shape=(n_spins, n_spins))
    graph.sum_duplicates()
    return graph


def _least_growth(ranks: list[int], adjacent: list[list[int]], bound: int) -> np.ndarray | None:
    """Sum out what enlarges the frontier least, among the spins in it and next to it.

    Of equals the one that entered first, so that a lattice is swept line by line. None where the
    frontier reaches the bound.
    """
    n = len(adjacent)
    outside = [len(row) for row in adjacent]  # neighbours that are not yet in the frontier
    entered, gone = [-1] * n, [False] * n
    heap: list[tuple[int, int, int]] = []
    order, size, clock = [], 0, itertools.count()
    starts = iter(sorted(range(n), key=ranks.__getitem__))

    def push(k: int) -> None:
        if not gone[k]:
            inside = entered[k] >= 0
            when = entered[k] if inside else n + ranks[k]
            heapq.heappush(heap, (outside[k] - inside, when, k))

    def enter(k: int) -> None:
        entered[k] = next(clock)
        for j in adjacent[k]:
            outside[j] -= 1
            push(j)
        push(k)

    while len(order) < n:
        if not heap:
            push(next(k for k in starts if not gone[k]))
        growth, when, k = heapq.heappop(heap)
        inside = entered[k] >= 0
        if gone[k] or (growth, when) != (
            outside[k] - inside,
            entered[k] if inside else n + ranks[k],
        ):
            continue  # an entry that is out of date
        gone[k] = True
        order.append(k)
        size += growth
        if size >= bound:
            return None
        if not inside:
            # It passes through the frontier within one step: none of its neighbours waits for it.
            entered[k] = next(clock)
            for j in adjacent[k]:
                outside[j] -= 1
                if entered[j] >= 0:
                    push(j)
        for j in adjacent[k]:
            if entered[j] < 0:
                enter(j)
    return np.array(order, int)


def _depth_first(adjacent: list[list[int]], bound: int) -> np.ndarray | None:
    """Least degree first, branch by branch of the elimination tree: narrow for trees.

    The order of least degree is good for many tables side by side. Branch after branch, the one
    that needs most beyond what it leaves first (Liu, ACM Trans. Math. Softw. 12, 127 (1986)),
    few of them wait at a time. None where the frontier would reach the bound.
    """
    bags = _least_degree(adjacent, bound)
    if bags is None:
        return None
    place = {k: t for t, (k, _) in enumerate(bags)}
    children: list[list[int]] = [[] for _ in range(len(bags) + 1)]
    # Largest frontier on the way through a branch, and what of its end is there before its root.
    peaks, below = [0] * len(bags), [set[int]() for _ in bags]
    for t, (k, bag) in enumerate(bags):
        children[t].sort(key=lambda c: len(bags[c][1]) - peaks[c])
        waiting = below[t]
        for c in children[t]:
            peaks[t] = max(peaks[t], len(waiting - below[c]) + peaks[c])
            waiting |= bags[c][1]
            peaks[t] = max(peaks[t], len(waiting))
            below[c] = set()
        waiting.discard(k)
        children[min((place[j] for j in bag), default=len(bags))].append(t)
    order, stack = [], children[-1][::-1]
    while stack:
        t = stack.pop()
        if t < 0:
            order.append(bags[~t][0])
        else:
            stack += [~t, *reversed(children[t])]
    return np.array(order, int)


def _least_degree(adjacent: list[list[int]], bound: int) -> list[tuple[int, set[int]]] | None:
    """Spins by least degree in what is left, each with its neighbours there; None if too many."""
    around = [set(row) for row in adjacent]
    heap = [(len(row), k) for k, row in enumerate(around)]
    heapq.heapify(heap)
    bags, gone = [], [False] * len(around)
    while heap:
        degree, k = heapq.heappop(heap)
        if gone[k] or degree != len(around[k]):
            continue
        if degree >= bound:
            return None
        gone[k] = True
        bags.append((k, around[k]))
        for j in around[k]:
            around[j] |= around[k]
            around[j] -= {j, k}
            heapq.heappush(heap, (len(around[j]), j))
    return bags
