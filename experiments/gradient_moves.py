"""Do moves that read the gradient of E earn their place among the samplers?

Two exact kernels, written as a user would, against `Gibbs`, all at beta = 1:

- "informed": single flips, drawn in proportion to `exp(-beta dE / 2)` and accepted by
  Metropolis-Hastings (locally balanced: Zanella, J. Am. Stat. Assoc. 115, 852 (2020); with
  gradients: Grathwohl et al., ICML 2021);
- "Langevin": all spins at once, each flips with log odds `-beta dE / 2 - 2 / a`, accepted as a
  whole (Zhang, Liu and Liu, ICML 2022); the step a is tuned to accept 57 % before.

`dE` is taken from the gradient, exactly so for a multilinear E. An evaluation is one gradient, by
all n^2 products; a sweep of Gibbs takes as many. The effective sample size is the lesser of those
of E, of a machine that of its visible spins, and of the projection on the leading direction of the
couplings. One core, float32; chains
start at random and burn in for a quarter of the run; compilation is left out.

    python -m experiments gradient_moves [--out DIR]
"""

import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from experiments._shared import claim, table
from thermogen import sampling
from thermogen.energies import visible_free_energy
from thermogen.sampling import SweepInfo

# As users have it who set nothing.
X64 = False

N_CHAINS = 32
SECONDS = 4.0  # of each run, about
PROPOSALS = 8  # of the Langevin kernel in a step
ACCEPTED = 0.57


class Visible(tg.AbstractEnergy):
    """The free energy of the visible spins of a machine."""

    machine: tg.RBM

    @property
    def n_spins(self) -> int:
        return self.machine.n_visible

    def __call__(self, spins):
        return visible_free_energy(self.machine, 1.0, spins)


def visible(energy: tg.AbstractEnergy) -> tg.AbstractEnergy:
    return Visible(energy) if isinstance(energy, tg.RBM) else energy


def gaps(energy, spins):
    """E, and what every single flip costs by the gradient."""
    value, slope = jax.value_and_grad(energy)(spins)
    return value, -2 * spins * slope


class Informed(sampling.AbstractKernel):
    """Single flips that the gradient proposes; a step is n of them, and one gradient more."""

    def step(self, energy, beta, state, key, clamp=None):
        def flip(i, carry):
            spins, (value, cost) = carry
            site_key, accept_key = jax.random.split(jax.random.fold_in(key, i))
            k = jax.random.categorical(site_key, -0.5 * beta * cost)
            new = spins.at[k].multiply(-1)
            there = gaps(energy, new)
            forth = jax.nn.log_softmax(-0.5 * beta * cost)[k]
            back = jax.nn.log_softmax(-0.5 * beta * there[1])[k]
            log_ratio = beta * (value - there[0]) + back - forth
            accepts = jnp.log(jax.random.uniform(accept_key)) < log_ratio
            return jax.tree.map(lambda a, b: jnp.where(accepts, a, b), (new, there), carry)

        moved = jax.lax.fori_loop(0, state.size, flip, (state, gaps(energy, state)))[0]
        return moved, SweepInfo(jnp.sum(moved != state))


class Langevin(sampling.AbstractKernel):
    """All spins flip by odds of their own; a step is `PROPOSALS` of these and one gradient."""

    size: jax.Array  # of a step, "a"

    def step(self, energy, beta, state, key, clamp=None):
        def propose(i, carry):
            spins, (value, cost), accepted = carry
            flip_key, accept_key = jax.random.split(jax.random.fold_in(key, i))
            odds = -0.5 * beta * cost - 2 / self.size
            flips = jax.random.bernoulli(flip_key, jax.nn.sigmoid(odds))
            new = jnp.where(flips, -spins, spins)
            there = gaps(energy, new)
            odds_back = -0.5 * beta * there[1] - 2 / self.size
            sign = jnp.where(flips, 1, -1)
            forth, back = (jnp.sum(jax.nn.log_sigmoid(sign * o)) for o in (odds, odds_back))
            log_ratio = beta * (value - there[0]) + back - forth
            accepts = jnp.log(jax.random.uniform(accept_key)) < log_ratio
            kept = jax.tree.map(
                lambda a, b: jnp.where(accepts, a, b), (new, there), (spins, (value, cost))
            )
            return *kept, accepted + accepts

        start = state, gaps(energy, state), jnp.zeros((), int)
        moved, _, accepted = jax.lax.fori_loop(0, PROPOSALS, propose, start)
        return moved, SweepInfo(accepted)


def models() -> dict[str, tuple[tg.AbstractEnergy, np.ndarray]]:
    """Energies, and the direction that each is slow in."""
    rng = np.random.default_rng(0)
    found = {}
    n = 256
    glass = np.triu(rng.normal(size=(n, n)), 1) / np.sqrt(n)
    for beta in (0.5, 1.0):
        found[f"SK, {n} spins, beta = {beta}"] = _pairwise(beta * (glass + glass.T))
    site = np.arange(n).reshape(16, 16)
    lattice = np.zeros((n, n))
    for axis in (0, 1):
        lattice[site, np.roll(site, 1, axis)] = 1
    found["square lattice, 16 x 16, beta = 0.4"] = _pairwise(0.4 * (lattice + lattice.T))
    # Of the four spins of a Potts variable one is up, which a strong coupling sees to.
    inside = np.kron(np.eye(n // 4), np.ones((4, 4)) - np.eye(4))
    potts = np.kron(np.triu(rng.normal(size=(n // 4, n // 4)), 1), np.eye(4)) / 8
    fields = np.full(n, -2.0)
    found["Potts glass, 64 variables of 4 states"] = _pairwise(potts + potts.T - inside, fields)
    weights = rng.normal(size=(256, 64)) * 2 / np.sqrt(320)
    machine = tg.RBM(*(np.asarray(x, np.float32) for x in (weights, np.zeros(256), np.zeros(64))))
    found["RBM, 256 x 64"] = machine, np.linalg.svd(weights)[0][:, 0]
    return found


def _pairwise(couplings, fields=None):
    fields = np.zeros(len(couplings)) if fields is None else fields
    energy = tg.Pairwise(np.asarray(couplings, np.float32), np.asarray(fields, np.float32))
    return energy, np.linalg.eigh(couplings)[1][:, -1]


def measure(sampler, energy, direction: np.ndarray) -> tuple[float, float, int]:
    """Effective sample size, seconds and sweeps of a run of some seconds."""
    u = jnp.asarray(direction, jnp.float32)
    level = visible(energy)
    trace = sampling.Trace(lambda _, s: jnp.stack([level(s[: len(u)]), s[: len(u)] @ u]))

    @functools.partial(jax.jit, static_argnums=1)
    def run(key, n_sweeps):
        return tg.sample(
            sampler,
            energy,
            1.0,
            key=key,
            n_chains=N_CHAINS,
            n_sweeps=n_sweeps,
            burn_in=n_sweeps // 3,
            observers=trace,
        )

    def timed(n_sweeps):
        run(jax.random.key(0), n_sweeps).block_until_ready()
        began = time.perf_counter()
        values = run(jax.random.key(1), n_sweeps).block_until_ready()
        return np.asarray(values), time.perf_counter() - began

    took = timed(16)[1]
    n_sweeps = int(np.clip(16 * SECONDS / took, 16, 20_000))
    values, took = timed(n_sweeps)
    return float(np.min(sampling.effective_sample_size(values))), took, n_sweeps * 4 // 3


def tuned(energy) -> Langevin:
    """The step at which about 57 % of proposals are accepted, after some of them."""
    low, high = 0.05, 50.0
    share = sampling.Mean(lambda _, info: info.flips / PROPOSALS, of="info")
    for _ in range(8):
        kernel = Langevin(jnp.float32(np.sqrt(low * high)))
        accepted = tg.sample(
            kernel,
            energy,
            1.0,
            key=jax.random.key(2),
            n_chains=N_CHAINS,
            n_sweeps=25,
            burn_in=25,
            observers=share,
        )
        enough = float(np.mean(accepted)) > ACCEPTED
        low, high = (float(kernel.size), high) if enough else (low, float(kernel.size))
    return Langevin(jnp.float32(low))


def contenders(energy) -> dict[str, tuple[sampling.AbstractKernel, tg.AbstractEnergy, float]]:
    """Kernels, the energy that each moves on, and evaluations in a sweep."""
    flat = visible(energy)
    return {
        "Gibbs": (tg.Gibbs(), energy, 1),
        "informed": (Informed(), flat, flat.n_spins + 1),
        "Langevin": (tuned(flat), flat, PROPOSALS + 1),
    }


def main(out: Path = Path("results")) -> None:
    rows = []
    print(f"{'model':40}{'kernel':>10}{'ESS/1000 evaluations':>22}{'ESS/s':>10}{'/ Gibbs':>10}")
    for name, (energy, direction) in models().items():
        for label, (kernel, moved, evaluations) in contenders(energy).items():
            ess, took, n_sweeps = measure(kernel, moved, direction)
            a_second = ess / took
            gibbs = a_second if label == "Gibbs" else rows[-1]["gibbs"]
            count = n_sweeps * evaluations * N_CHAINS
            row = {"model": name, "kernel": label, "ess": ess, "seconds": took, "gibbs": gibbs}
            rows.append(row | {"evaluations": count})
            print(
                f"{name:40}{label:>10}{1000 * ess / count:22.3f}{a_second:10.1f}"
                f"{a_second / gibbs:10.4f}",
                flush=True,
            )
    table(out / "gradient_moves.csv", rows)
    best = max(r["ess"] / r["seconds"] / r["gibbs"] for r in rows if r["kernel"] != "Gibbs")
    claim("gradient-informed moves earn their place somewhere", best > 1, f"best {best:.3g}")
