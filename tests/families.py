"""Hard families: models on which defaults and claims have failed, each with the truth about it.

Generic models, those of `helpers.ENERGIES`, forgive much. These do not: symmetry keeps starts on
saddles, degeneracy makes rules of acceptance deterministic, rare spins are drowned by penalties,
the cold freezes chains, and large numbers of spins underflow.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from helpers import boltzmann, random_complete, random_pairwise, random_rbm
from scipy.special import gammaln

import thermogen as tg


@dataclasses.dataclass(frozen=True)
class Hard:
    """One hard model, made when a test first asks for it.

    Attributes:
        kind: symmetric, degenerate, biased, cold, huge or bimodal (hard to estimate).
        make: makes the model.
        beta: inverse temperature.
        closed: exact ln Z at beta where it has a closed form.
    """

    kind: str
    make: Callable[[], tg.AbstractMultilinear]
    beta: float
    closed: float | None = None

    @functools.cached_property
    def energy(self) -> tg.AbstractMultilinear:
        return self.make()

    @functools.cached_property
    def log_partition(self) -> float:
        """Exact ln Z at beta."""
        return boltzmann(self.energy, self.beta)[1] if self.closed is None else self.closed


def on_graph(graph: nx.Graph, coupling: float, fields: float = 0.0) -> tg.Pairwise:
    """One coupling on all bonds of a graph."""
    n = len(graph)
    return tg.Pairwise(coupling * nx.to_numpy_array(graph), np.full(n, fields))


def curie_weiss(n: int) -> tg.Pairwise:
    """Ferromagnet in which everybody couples to everybody by 1/n."""
    return on_graph(nx.complete_graph(n), 1 / n)


def curie_weiss_log_partition(n: int, beta: float) -> float:
    """ln Z of `curie_weiss` as a sum over the number of spins that are up."""
    up = np.arange(n + 1)
    log_count = gammaln(n + 1) - gammaln(up + 1) - gammaln(n - up + 1)
    return float(np.logaddexp.reduce(log_count + beta * ((2 * up - n) ** 2 - n) / (2 * n)))


def one_hot(groups: int, states: int, penalty: float = 1.0) -> tg.Pairwise:
    """Potts-like: groups of spins of which exactly one is up; neighbouring groups differ."""
    n = groups * states
    couplings, fields = np.zeros((n, n)), np.zeros(n)
    for g in range(groups):
        own = range(g * states, (g + 1) * states)
        for i, j in itertools.combinations(own, 2):
            couplings[i, j] = couplings[j, i] = -penalty
        # (sum s - (2 - states))^2 / 2, less its constant.
        fields[list(own)] = penalty * (2 - states)
        for k in range(states):
            i, j = g * states + k, (g + 1) % groups * states + k
            couplings[i, j] = couplings[j, i] = -penalty / 4
    return tg.Pairwise(couplings, fields)


def rare_spins(n: int) -> tg.Pairwise:
    """Spins that are seldom up, with couplings between them (in units of 0 and 1 before)."""
    rng = np.random.default_rng(3)
    upper = np.triu(rng.normal(0.3, 0.6, (n, n)), 1)
    couplings = (upper + upper.T) / 4
    return tg.Pairwise(couplings, np.linspace(-7, -4, n) / 2 + couplings.sum(0))


def ring_beside_free_spins() -> tg.Pairwise:
    """Two odd antiferromagnetic rings and three spins that nothing acts on."""
    rings = nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(5))
    rings.add_nodes_from(range(8, 11))
    return on_graph(rings, -1.0)


def chain(n: int) -> tg.Interactions:
    """Open ferromagnetic chain."""
    bonds = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    return tg.Interactions(n, [bonds], [np.ones(n - 1)])


def free_spins(n: int) -> tg.Interactions:
    """Fields alone, all different."""
    return tg.Interactions(n, [np.arange(n)[:, None]], [np.linspace(-0.3, 0.3, n)])


# So few spins that all configurations can be listed.
_SMALL: dict[str, tuple[str, Callable[[], tg.AbstractMultilinear], float]] = {
    "antiferromagnetic ring of 3": ("symmetric", lambda: on_graph(nx.cycle_graph(3), -1.0), 2.0),
    "antiferromagnetic ring of 5": ("symmetric", lambda: on_graph(nx.cycle_graph(5), -1.0), 3.0),
    "antiferromagnetic ring of 8": ("symmetric", lambda: on_graph(nx.cycle_graph(8), -1.0), 0.5),
    "antiferromagnet, complete, 5": (
        "symmetric",
        lambda: on_graph(nx.complete_graph(5), -1.0),
        2.0,
    ),
    "antiferromagnetic octahedron": (
        "symmetric",
        lambda: on_graph(nx.octahedral_graph(), -1.0),
        2.0,
    ),
    "ferromagnetic cube": ("symmetric", lambda: on_graph(nx.cubical_graph(), 1.0), 1.0),
    "torus of 3 x 3": (
        "symmetric",
        lambda: on_graph(nx.grid_2d_graph(3, 3, periodic=True), -1.0),
        1.5,
    ),
    "one-hot groups": ("symmetric", lambda: one_hot(3, 3), 2.0),
    "no interaction at all": ("degenerate", lambda: on_graph(nx.empty_graph(4), 0.0), 1.0),
    "table of zeros": ("degenerate", lambda: tg.Complete(jnp.zeros(8)), 1.0),
    "ferromagnetic ring of 4": ("degenerate", lambda: on_graph(nx.cycle_graph(4), 1.0), 0.05),
    "rings beside free spins": ("degenerate", ring_beside_free_spins, 2.0),
    "rare spins": ("biased", lambda: rare_spins(8), 1.0),
    "strong field": ("biased", lambda: on_graph(nx.cycle_graph(6), 0.5, fields=-4.0), 1.0),
    "cold glass": ("cold", lambda: random_pairwise(8, jax.random.key(5)), 8.0),
    "cold machine": ("cold", lambda: random_rbm(8, jax.random.key(6)), 6.0),
    "cold random energies": ("cold", lambda: random_complete(8, jax.random.key(7)), 6.0),
}


def _large() -> dict[str, Hard]:
    n = 300
    fields = np.linspace(-0.3, 0.3, n)
    free = float(np.sum(np.logaddexp(fields, -fields)))
    bonds = n * np.log(2.0) + (n - 1) * np.log(np.cosh(1.0))
    weiss = curie_weiss_log_partition(64, 2.5)
    return {
        "300 free spins": Hard("huge", lambda: free_spins(n), 1.0, free),
        "chain of 300": Hard("huge", lambda: chain(n), 1.0, float(bonds)),
        "Curie-Weiss, 64, ordered": Hard("bimodal", lambda: curie_weiss(64), 2.5, weiss),
    }


# Hard models of at most 11 spins, whose truth `helpers.boltzmann` and `helpers.energy_table` list.
HARD: dict[str, Hard] = {name: Hard(*model) for name, model in _SMALL.items()}
# Hard models of many spins, whose ln Z has a closed form.
LARGE: dict[str, Hard] = _large()
