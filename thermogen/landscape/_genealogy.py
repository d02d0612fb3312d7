"""The genealogy of minima: births, deaths and descent of states from stage to stage."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, Real

from .._batches import cast
from .._checks import checked_beta
from .._placement import from_anywhere
from .._types import Beta, Key
from ..energies import AbstractEnergy, is_flip_symmetric
from ..meanfield import AbstractFunctional
from ..search import (
    PER_STATE,
    Library,
    below_saddles,
    find_minima,
    is_converged,
    joined,
    lowest_curvatures,
    make_problem,
    of_minima,
    quench,
)

# Rounds of continuation there and back; most landscapes are closed after two.
_ROUNDS = 8


class Genealogy(NamedTuple):
    """States of a sequence of stages, and how they descend from each other.

    A stage is an energy at an inverse temperature. The *nodes* are the states of all stages, N in
    all, ordered by stage and, within a stage, by free energy. Where the energy of a stage is
    even, a node stands for a state and its mirror image, as an entry of a `Library` does.

    A node and its heir are the same state, moved, if each is where the other falls. The
    other nodes begin or end a state. So every node has one parent, and the parents make a forest
    whose roots are the states of the first stage: for stages from hot to cold it is the merge
    tree of the states, read towards higher temperature. Where a node that stands for two goes on
    as two states that differ, as in a field, one of them is the same and the other counts as born.

    Attributes:
        betas: inverse temperature of each stage, shape `(S,)`.
        stages: stage of each node, shape `(N,)`, from 0 to S - 1.
        magnetizations: m of each node, shape `(N, n)`.
        free_energies: G in energy units, shape `(N,)`.
        curvatures: lowest eigenvalue of d^2 G/dm dm in energy units, shape `(N,)`.
        hits: number of starts of the fresh search of a stage that ended in a node, shape `(N,)`;
            0 where continuation, or the way down from a saddle, alone found it.
        multiplicity: 2 where a node stands for itself and its mirror image, else 1, `(N,)`.
        parents: node of the stage before into which each node falls there, shape `(N,)`; -1 in
            the first stage and for what falls into no minimum.
        heirs: node of the next stage into which each node falls there, shape `(N,)`; -1 in the
            last stage and for what falls into no minimum. A state that lost its stability falls
            to the lower of its two sides.
    """

    betas: Float[np.ndarray, " S"]
    stages: Int[np.ndarray, " N"]
    magnetizations: Float[np.ndarray, "N n"]
    free_energies: Float[np.ndarray, " N"]
    curvatures: Float[np.ndarray, " N"]
    hits: Int[np.ndarray, " N"]
    multiplicity: Int[np.ndarray, " N"]
    parents: Int[np.ndarray, " N"]
    heirs: Int[np.ndarray, " N"]

    @property
    def continued(self) -> Bool[np.ndarray, " N"]:
        """Whether a node is its parent, moved: each falls into the other."""
        return (self.parents >= 0) & (self.heirs[self.parents] == np.arange(len(self.parents)))

    @property
    def born(self) -> Bool[np.ndarray, " N"]:
        """Whether a node is the first of its state; those of the first stage are not born."""
        return (self.stages > 0) & ~self.continued

    @property
    def died(self) -> Bool[np.ndarray, " N"]:
        """Whether a node is the last of its state, before the last stage."""
        going = (self.heirs >= 0) & (self.parents[self.heirs] == np.arange(len(self.heirs)))
        return (self.stages < len(self.betas) - 1) & ~going

    @property
    def split(self) -> Bool[np.ndarray, " N"]:
        """Whether a node goes on as two mirror images a state that was its own."""
        return self.continued & (self.multiplicity > self.multiplicity[self.parents])

    @property
    def branches(self) -> Int[np.ndarray, " N"]:
        """Number of the branch of each node: one state through all its stages, oldest first."""
        branch = np.cumsum(~self.continued) - 1
        # Nodes are ordered by stage: parents come before their children.
        for node in np.flatnonzero(self.continued):
            branch[node] = branch[self.parents[node]]
        return branch

    @property
    def sizes(self) -> Int[np.ndarray, " S"]:
        """Number of nodes of each stage, shape `(S,)`."""
        return np.bincount(self.stages, minlength=len(self.betas))

    @property
    def weights(self) -> Float[np.ndarray, " N"]:
        """Boltzmann weight of each node among those of its stage, mirror images counted."""
        logits = np.log(self.multiplicity) - self.betas[self.stages] * self.free_energies
        highest = np.full(len(self.betas), -np.inf)
        np.maximum.at(highest, self.stages, logits)
        weights = np.exp(logits - highest[self.stages])
        return weights / np.bincount(self.stages, weights)[self.stages]

    def ancestors(self, nodes: Int[np.ndarray, " k"], stage: int) -> Int[np.ndarray, " k"]:
        """The node of an earlier stage from which each of some nodes descends; -1 for none.

        Raises:
            ValueError: for a node before that stage.
        """
        nodes = np.array(nodes)
        if np.any(self.stages[nodes] < stage):
            raise ValueError(f"nodes must be of stage {stage} or later")
        while np.any(later := (nodes >= 0) & (self.stages[nodes] > stage)):
            nodes[later] = self.parents[nodes[later]]
        return nodes


@from_anywhere
def genealogy(
    functional: AbstractFunctional,
    energies: AbstractEnergy | Sequence[AbstractEnergy],
    betas: Beta | Sequence[Beta] | Real[Array | np.ndarray, " S"],
    *,
    key: Key,
    n_starts: int = 192,
    capacity: int = 256,
    starts: Num[Array | np.ndarray, "starts n"] | None = None,
) -> Genealogy:
    """Follow the minima of G from stage to stage: one energy at many beta, or many energies.

    At every stage `find_minima` searches afresh. Then the states of each stage are quenched at
    both neighbouring stages, and the minima that they reach join those stages, until nothing new
    is found. A state that one search missed is thereby found from a neighbour in beta, and every
    state has a parent. Stages from hot to cold give the merge tree of
    the states over beta; energies from the course of a training give the birth of its states.

    Stages should be so close that a state stays within its own basin from one to the next: a
    state that moves further counts as a death and a birth, which `birth_points` reveals. Numbers
    may change from stage to stage without recompiling.

    Args:
        functional: the free energy, such as `NaiveMeanField()`.
        energies: one energy for all stages, or one for each; all of one class and structure.
        betas: one inverse temperature for all stages, or one for each, shape `(S,)`; > 0, in
            any order.
        key: random key; equal keys give equal genealogies.
        n_starts: number of random starts of the fresh search at each stage.
        capacity: most states that the fresh search of a stage can hold.
        starts: spins or magnetizations that the fresh search of each stage quenches first, for
            example the data, shape `(starts, n)`.

    Raises:
        ValueError: for fewer than two stages, numbers of stages that disagree, energies that
            differ in structure, or bad arguments of `find_minima`.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        magnet = tg.Pairwise((np.ones((6, 6)) - np.eye(6)) / 6, np.zeros(6))
        betas = np.linspace(0.9, 1.7, 5)
        family = tg.landscape.genealogy(
            tg.NaiveMeanField(), magnet, betas, key=jax.random.key(0), n_starts=32
        )
        # m = 0 splits into a state and its mirror image where 5 beta / 6 = 1.
        assert family.multiplicity.tolist() == [1, 1, 2, 2, 2]
        assert family.split.tolist() == [False, False, True, False, False]
        ```
    """
    n_stages, listed, beta_of = _paired(energies, betas)
    stages = [
        _Stage(
            functional,
            energy,
            beta,
            find_minima(
                functional,
                energy,
                beta,
                key=jax.random.fold_in(key, k),
                n_starts=n_starts,
                capacity=capacity,
                starts=starts,
            ),
        )
        for k, (energy, beta) in enumerate(zip(listed, beta_of.tolist(), strict=True))
    ]
    for _ in range(_ROUNDS):
        for here, ahead in zip(stages[:-1], stages[1:], strict=True):
            here.heirs = _linked(here, ahead, here.heirs)
        held = sum(len(stage.library) for stage in stages)
        # Last of all, so that what was found late has a parent too.
        for before, here in zip(stages[-2::-1], stages[:0:-1], strict=True):
            here.parents = _linked(here, before, here.parents)
        if held == sum(len(stage.library) for stage in stages):
            break
    else:
        # What came last in the last round has no heir yet.
        for here, ahead in zip(stages[:-1], stages[1:], strict=True):
            here.heirs = _linked(here, ahead, here.heirs)
    return _assembled(stages, beta_of)


class _Stage:
    """The states of one stage, in the order in which they were found, and their links so far."""

    def __init__(
        self,
        functional: AbstractFunctional,
        energy: AbstractEnergy,
        beta: float,
        library: Library,
    ):
        self._setting = (functional, energy, beta)
        self.library = library
        self.parents, self.heirs = np.zeros(0, int), np.zeros(0, int)
        with jax.enable_x64(True):
            self.is_even = bool(is_flip_symmetric(cast(energy, jnp.float64)))

    def receive(
        self, starts: Float[np.ndarray, "batch n"]
    ) -> tuple[Int[np.ndarray, " ends"], Int[np.ndarray, " ends"]]:
        """The states into which starts fall, and the start of each; new states are added, last.

        What comes to rest on a saddle falls down both its sides; -1 where there is no state.
        """
        solution = quench(*self._setting, starts)
        (fallen,) = np.nonzero(is_converged(solution))
        owner, ends = fallen, jax.tree.map(lambda x: x[fallen], solution)
        with jax.enable_x64(True):
            problem = make_problem(*self._setting)
            below, minima = below_saddles(problem, solution, np.random.default_rng(0))
        if minima is not None:
            owner, ends = np.append(owner, below), joined(ends, minima)
        (new,) = np.nonzero(self.library.nearest(ends.value) < 0)
        if new.size:
            self._add(jax.tree.map(lambda x: x[new], ends))
        (lost,) = np.nonzero(~np.isin(np.arange(len(starts)), owner))
        place = np.append(self.library.nearest(ends.value), np.full(len(lost), -1))
        return place, np.append(owner, lost)

    def _add(self, ends) -> None:
        with jax.enable_x64(True):
            curvatures = lowest_curvatures(make_problem(*self._setting), ends.state["fields"])
        none = np.zeros(len(curvatures), int)
        new = of_minima(ends, curvatures, none, self.is_even).union()
        both = {
            name: np.concatenate([getattr(self.library, name), getattr(new, name)])
            for name in PER_STATE
        }
        self.library = dataclasses.replace(self.library, **both)


def _linked(origin: _Stage, target: _Stage, links: np.ndarray) -> np.ndarray:
    """`links` from the states of `origin` to those of `target`, completed by those not yet sent.

    A state that stands for two is sent as both where they differ at the target. The lowest end
    counts.
    """
    states = origin.library[len(links) :]
    m, owner = np.asarray(states.magnetizations), np.arange(len(states))
    if not len(m):
        return links
    if not target.is_even:
        paired = states.multiplicity == 2
        m, owner = np.concatenate([m, -m[paired]]), np.append(owner, owner[paired])
    place, start = target.receive(m)
    owner = owner[start]
    levels = np.append(target.library.free_energies, np.inf)[place]
    order = np.lexsort((levels, owner))
    _, first = np.unique(owner[order], return_index=True)
    return np.append(links, place[order[first]])


def _assembled(stages: list[_Stage], betas: np.ndarray) -> Genealogy:
    """All stages in one table, the states of each lowest first."""
    sizes = [len(stage.library) for stage in stages]
    orders = [np.argsort(stage.library.free_energies, kind="stable") for stage in stages]
    starts = np.cumsum([0, *sizes[:-1]])
    # The node of each state of a stage, and last that of the state -1, which is none.
    nodes = [np.append(k + np.argsort(order), -1) for k, order in zip(starts, orders, strict=True)]
    none = [np.array([-1])]
    parents = [
        before[_padded(stage.parents, size)[order]]
        for stage, size, order, before in zip(stages, sizes, orders, none + nodes[:-1], strict=True)
    ]
    heirs = [
        after[_padded(stage.heirs, size)[order]]
        for stage, size, order, after in zip(stages, sizes, orders, nodes[1:] + none, strict=True)
    ]

    def gathered(name: str) -> np.ndarray:
        parts = zip(stages, orders, strict=True)
        return np.concatenate([getattr(stage.library, name)[order] for stage, order in parts])

    return Genealogy(
        betas=betas,
        stages=np.repeat(np.arange(len(stages)), sizes),
        **{
            name: gathered(name)
            for name in ("magnetizations", "free_energies", "curvatures", "hits", "multiplicity")
        },
        parents=np.concatenate(parents),
        heirs=np.concatenate(heirs),
    )


def _padded(links: np.ndarray, size: int) -> np.ndarray:
    """The links of all states; -1 for those that have none."""
    return np.append(links, np.full(size - len(links), -1))


def _paired(energies, betas) -> tuple[int, list[AbstractEnergy], np.ndarray]:
    """The number of stages, and the energy and beta of each."""
    listed = [energies] if isinstance(energies, AbstractEnergy) else list(energies)
    beta_of = np.atleast_1d(np.asarray(betas, float))
    counts = {len(listed), len(beta_of)} - {1}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            "energies and betas must hold two or more stages, and as many of one as of the other "
            f"where both are several; got {len(listed)} energies and {len(beta_of)} betas"
        )
    if len({jax.tree.structure(e) for e in listed}) > 1 or len({e.n_spins for e in listed}) > 1:
        raise ValueError("energies must all be of one class, number of spins and structure")
    with jax.enable_x64(True):
        for beta in beta_of:
            checked_beta(beta, jnp.float64)
    (n_stages,) = counts
    if len(listed) == 1:
        listed = listed * n_stages
    return n_stages, listed, np.broadcast_to(beta_of, n_stages).copy()
