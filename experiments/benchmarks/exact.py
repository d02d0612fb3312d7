"""Exact ln Z of glasses on square lattices by elimination, against ferrotherm.

Couplings +-1 with open ends, in float64. Both libraries order the spins themselves, and must agree.
Seconds of a call that has been made before; the first call of ours also compiles.

    python -m experiments benchmarks.exact
"""

import functools

import jax
import numpy as np

import thermogen as tg
from experiments.benchmarks import _peers, _watch

SHAPES = ((8, 64), (12, 12), (16, 16))
BETA = 1.0


def strip(width: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs and couplings."""
    site = np.arange(width * length).reshape(width, length)
    pairs = [np.stack([site[1:], site[:-1]], -1), np.stack([site[:, 1:], site[:, :-1]], -1)]
    pairs = np.concatenate([p.reshape(-1, 2) for p in pairs])
    return pairs, np.random.default_rng(width).choice([-1.0, 1.0], len(pairs))


def ours(energy: tg.Interactions) -> float:
    return float(jax.block_until_ready(tg.exact.log_partition(energy, BETA)))


def ferrotherm(n_spins: int, pairs: np.ndarray, couplings: np.ndarray):
    import ferrotherm

    model = ferrotherm.Model(n_spins)
    terms = zip(pairs, couplings, strict=True)
    model.couple_many((int(i), int(j), float(c)) for (i, j), c in terms)
    return model.build(beta=BETA, seed=0)


def case(title: str, width: int, length: int) -> list[_peers.Row]:
    pairs, couplings = strip(width, length)
    energy = tg.Interactions(width * length, [pairs], [couplings])
    runs = {(_peers.OURS, _peers.OURS): functools.partial(ours, energy)}
    if _peers.able("ferrotherm", "ferrotherm"):
        model = ferrotherm(width * length, pairs, couplings)
        theirs = functools.partial(model.exact_log_z, BETA)
        _peers.now.tell("ferrotherm", "ferrotherm")
        np.testing.assert_allclose(theirs(), ours(energy), rtol=1e-9)
        runs["ferrotherm", "ferrotherm"] = theirs
        jax.clear_caches()
    measured = _peers.duel(runs) + _peers.missing("ferrotherm")
    return _peers.rows("exact ln Z", title, "ms", _peers.milli(measured), False)


def cases() -> dict[str, _peers.Case]:
    return {
        (title := f"square lattice, {width} x {length}, +-1"): functools.partial(
            case, title, width, length
        )
        for width, length in SHAPES
    }


def main() -> None:
    _watch.alone(cases())
