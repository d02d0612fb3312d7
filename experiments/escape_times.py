"""How far off are escape times by saddles? Rate theory and Arrhenius against exact relaxation.

Models of ten spins with one pair of mirror images or two states, by naive mean field, and no other
minimum: what relaxes slowest is their exchange, at the sum of their rates. Random models are drawn
until `count` of at most `most` have a barrier of at least 2/beta.

    python -m experiments escape_times
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

import thermogen as tg
from thermogen import landscape

N, BETAS, HIGHEST = 10, (1.5, 2.0, 3.0), 1e10
NAIVE = tg.NaiveMeanField()


def glass(rng: np.random.Generator) -> tg.Pairwise:
    upper = np.triu(rng.normal(size=(N, N)), 1) / np.sqrt(N)
    return tg.Pairwise(upper + upper.T, 0.1 * rng.normal(size=N))


def pattern(rng: np.random.Generator) -> tg.Pairwise:
    """A Mattis magnet with noise, which is a complete graph up to signs and noise."""
    spins = rng.choice([-1.0, 1.0], N)
    upper = np.triu(np.outer(spins, spins) / N + 0.1 * rng.normal(size=(N, N)) / np.sqrt(N), 1)
    return tg.Pairwise(upper + upper.T, np.zeros(N))


def triples(rng: np.random.Generator) -> tg.Interactions:
    sets = list(itertools.combinations(range(N), 3))
    return tg.Interactions.from_terms(N, {a: np.sqrt(3) / N * rng.normal() for a in sets})


FAMILIES = {"SK": glass, "one pattern": pattern, "three-spin": triples}


def errors(energy: tg.AbstractEnergy, beta: float) -> tuple[float, float] | None:
    """ln of estimate over exact time, by rate theory and by Arrhenius; None where there is none."""
    library = tg.find_minima(NAIVE, energy, beta, key=jax.random.key(0), n_starts=64)
    if np.sum(library.multiplicity) != 2:
        return None
    found = tg.barriers(NAIVE, energy, beta, library)
    rows = [landscape.follow(NAIVE, energy, beta, x) for x in (library, found)]
    barriers = beta * landscape.minimax_heights(found, *rows).barriers
    times = landscape.log_escape_times(NAIVE, energy, beta, found, *rows)
    exact = tg.exact.relaxation_times(energy, beta)[0]
    if len(found.others) or not np.all(barriers >= 2) or not exact < HIGHEST:
        return None
    of_both = (logsumexp(-np.asarray(x), b=library.multiplicity) for x in (times, barriers))
    theory, arrhenius = (float(-total - np.log(exact)) for total in of_both)
    return theory, arrhenius


def main(count: int = 10, most: int = 60, betas: tuple[float, ...] = BETAS) -> None:
    print("estimate over exact time: median, and the range of nine in ten")
    print("family       beta  models  rate theory            Arrhenius")
    for (name, make), beta in itertools.product(FAMILIES.items(), betas):
        found, rng = [], np.random.default_rng(0)
        for _ in range(most):
            error = errors(jax.tree.map(jnp.asarray, make(rng)), beta)
            found += [] if error is None else [error]
            if len(found) == count:
                break
        text = ""
        for column in np.exp(np.array(found)).T if found else []:
            low, middle, high = np.quantile(column, [0.05, 0.5, 0.95])
            text += f"  {middle:6.2f} ({low:.2f} to {high:.2f})"
        print(f"{name:12} {beta:4.1f} {len(found):7d}{text}", flush=True)
