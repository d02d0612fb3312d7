"""The bound states of a Hopfield model are born at bifurcations: a diagram in beta.

Four patterns on 24 spins; naive mean field. The paramagnet m = 0 is followed from the hot side,
and at every pitchfork both arms. The minima that basin hopping finds in the cold are followed
back to where they are born. Checks that every stable branch that reaches the cold end ends in a
minimum of the library, prints the bifurcations and saves the diagram.

In practice: as a model cools, or as its weights grow in training, states do not fade in: they are
born, the first at pitchforks out of the disordered state, the others in pairs with a saddle. A
state found in the cold can be followed back to its birth, which tells how much of the weights it
needs; one that is born late is the first to be lost.

    python -m experiments bifurcations [--quick] [--out DIR]
"""

import pathlib

import jax
import numpy as np

import thermogen as tg
from experiments._shared import claim, save
from thermogen.meanfield import Bifurcation, Branch, bifurcations, follow_beta
from thermogen.plots import bifurcation_figure

N_SPINS, N_PATTERNS = 24, 4
HOT, COLD = 0.5, 2.5
FUNCTIONAL = tg.NaiveMeanField()
QUICK = {}  # some seconds as it is


def hopfield() -> tuple[tg.Pairwise, np.ndarray]:
    """The energy and its patterns, shape `(patterns, spins)`."""
    patterns = np.random.default_rng(1).choice([-1.0, 1.0], size=(N_PATTERNS, N_SPINS))
    couplings = patterns.T @ patterns / N_SPINS
    np.fill_diagonal(couplings, 0)
    return tg.Pairwise(couplings, np.zeros(N_SPINS)), patterns


def from_the_paramagnet(energy: tg.Pairwise) -> tuple[list[Branch], list[Bifurcation]]:
    """The paramagnet, both arms of its pitchforks, and all their bifurcations."""
    trunk = follow_beta(FUNCTIONAL, energy, (HOT, COLD), np.zeros(N_SPINS))
    branches, points = [trunk], bifurcations(trunk)
    for point in list(points):
        span, start = (point.parameter, COLD), point.magnetizations
        for toward in (point.soft_mode, -point.soft_mode):
            arm = follow_beta(FUNCTIONAL, energy, span, start, toward=toward)
            branches.append(arm)
            points += bifurcations(arm)
    return branches, points


def last(branch: Branch) -> int:
    return int(branch.size) - 1


def is_stable_end(branch: Branch) -> bool:
    """Whether a branch ends at the cold end of the range, in a minimum."""
    end = last(branch)
    return bool(branch.n_unstable[end] == 0 and branch.parameters[end] == COLD)


def main(out: pathlib.Path = pathlib.Path("results")) -> None:
    energy, patterns = hopfield()
    branches, points = from_the_paramagnet(energy)
    library = tg.find_minima(
        FUNCTIONAL, energy, COLD, key=jax.random.key(0), n_starts=2304, capacity=256
    )
    # One state stands for itself and its mirror image.
    states = np.asarray(library.magnetizations)
    states = np.concatenate([states, -states])
    ends = [np.asarray(b.magnetizations[last(b)]) for b in branches if is_stable_end(b)]
    distances = np.abs(states[None] - np.array(ends)[:, None]).max(axis=2)
    known = distances.min(axis=1) < 1e-6
    born_alone = distances.min(axis=0) >= 1e-6
    for state in states[born_alone]:
        branches.append(follow_beta(FUNCTIONAL, energy, (COLD, HOT), state))
        points += bifurcations(branches[-1])
    for point in sorted(points, key=lambda p: p.parameter):
        along = " ".join(f"{x:5.2f}" for x in patterns @ point.magnetizations / N_SPINS)
        before, after = point.n_unstable
        print(f"beta {point.parameter:.6f}  {point.kind:13} unstable {before} -> {after}  ", end="")
        print(f"overlaps with the patterns: {along}")
    print(f"{len(states)} minima at beta = {COLD}: {born_alone.sum()} do not come from m = 0")
    claim(
        "every stable branch ends in a known minimum",
        known.all(),
        f"{known.sum()} of {known.size}",
    )
    births = [p for p in points if p.kind == "saddle-node"]
    claim(
        "every other minimum is born in a saddle-node",
        len(births) == born_alone.sum(),
        f"{len(births)} saddle-nodes for {born_alone.sum()} minima",
    )
    figure = bifurcation_figure(branches, points, pattern=patterns[0])
    save(out / "bifurcations.png", figure, dpi=150)
