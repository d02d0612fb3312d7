"""Pairwise models of the digits, learned in several ways: likelihood, moments, states.

Four fifths of the digits train, one fifth judges. Learned by pseudolikelihood, by the mean-field
potential (naive and TAP), by persistent contrastive divergence, all with the same ridge penalty
of n/(2N) on couplings, and inverted in closed form from the moments. Reported for each:

- negative log-likelihood per sample of both parts, with ln Z by annealed importance sampling: its
  standard error and effective sample size, and how much higher the reverse run from samples of
  parallel tempering puts it, which bounds it from the other side once those have relaxed;
- root-mean-square and largest deviation of means and connected correlations of these samples from
  those of the training data, beside the deviations of the held-out data;
- minima of naive mean field and of TAP at beta = 1, and the sets that trap heat-bath dynamics for
  20 sweeps, with all these minima and the 32 lowest single-flip minima of E as candidates.

    python -m experiments pairwise_digits
"""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import thermogen as tg
from thermogen import learning, sampling

N = 64
BETAS = np.linspace(0, 1, 1001)[1:]
TEMPERING = tg.ParallelTempering(jnp.linspace(0.1, 1.0, 10))
N_CHAINS, BURN_IN, N_KEPT, THIN = 256, 500, 10, 50
PSEUDOCOUNTS = (1.0, 10.0, 100.0, 1000.0, 3000.0)
PCD_STEPS = 4000
PCD = optax.sgd(optax.exponential_decay(0.1, PCD_STEPS, 1e-2))
THRESHOLD = 20  # sweeps
N_FLIPS = 32  # far more candidates than trajectories from each would drown slow processes in noise
METHODS = {
    "naive inversion": tg.NaiveMeanField(),
    "TAP inversion": tg.TAP(),
    "Bethe inversion": tg.Bethe(),
    "Sessak-Monasson": learning.SessakMonasson(),
}


def trained(data: np.ndarray):
    """The models that `fit` learns, with a word on how each fit ended."""
    start = tg.Pairwise(np.zeros((N, N)), np.zeros(N))
    ridge = learning.L2(learning.default_l2(N, len(data)))  # as pseudolikelihood has by default
    fits = {
        "pseudolikelihood": (tg.Pseudolikelihood(), {}),
        "mean field, TAP": (tg.MeanFieldLikelihood(tg.TAP()), {"penalty": ridge}),
        "mean field, naive": (
            tg.MeanFieldLikelihood(tg.NaiveMeanField()),
            {"penalty": ridge},
        ),
        "persistent CD": (
            tg.PersistentCD(),
            {"penalty": ridge, "optimizer": PCD, "n_steps": PCD_STEPS},
        ),
    }
    for name, (objective, options) in fits.items():
        began = time.perf_counter()
        fitted = tg.fit(objective, start, data, key=jax.random.key(0), **options)
        seconds = time.perf_counter() - began
        converged = fitted.result == tg.RESULTS.converged
        ends = f"{len(fitted.history)} steps{', converged' * bool(converged)}"
        yield name, fitted.energy, f"{seconds:.1f} s, {ends}"


def inverted(data: np.ndarray):
    """Closed-form models, each with the pseudocount that gives the best pseudolikelihood."""
    samples = learning.Samples(jnp.asarray(data, float), jnp.full(len(data), 1 / len(data)))
    loss = eqx.filter_jit(tg.Pseudolikelihood(l2=0.0).loss)
    for name, method in METHODS.items():
        found = []
        for count in PSEUDOCOUNTS:
            moments_of = learning.moments(data, pseudocount=count)
            solution = learning.invert(method, *moments_of, throw=False)
            if solution.result == tg.RESULTS.converged:
                value = loss(solution.value, samples, None, jax.random.key(0))[0]
                found.append((float(value), count, solution.value))
        if not found:
            print(f"{name:>18}  no model at any pseudocount")
            continue
        _, count, energy = min(found, key=lambda x: x[0])
        yield name, energy, f"pseudocount {count:g}"


def tempered(energy: tg.Pairwise) -> np.ndarray:
    """Samples of chains that start at random corners, shape `(chains, kept, n)`."""
    return np.asarray(
        tg.sample(
            sampling.tune_ladder(TEMPERING, energy, key=jax.random.key(7)),
            energy,
            1.0,
            key=jax.random.key(1),
            n_chains=N_CHAINS,
            n_sweeps=N_KEPT * THIN,
            burn_in=BURN_IN,
            thin=THIN,
        )
    )


def moments(spins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    m = spins.mean(axis=0)
    return m, (spins.T @ spins / len(spins) - np.outer(m, m))[np.triu_indices(N, 1)]


def deviations(spins: np.ndarray, others: np.ndarray) -> list[float]:
    """Of means, then of connected correlations: root mean square, and largest."""
    pairs = zip(moments(spins.astype(float)), moments(others.astype(float)), strict=True)
    return [f(np.abs(a - b)) for a, b in pairs for f in (lambda x: np.sqrt(np.mean(x**2)), np.max)]


def states(energy: tg.Pairwise, data: np.ndarray) -> list[int]:
    """Minima of naive mean field, of TAP, of E by single flips, and certified bound states."""
    found = [
        tg.find_minima(
            functional,
            energy,
            1.0,
            key=jax.random.key(2),
            n_starts=320,
            starts=data[::4],
            capacity=1024,
        )[:]
        for functional in (tg.NaiveMeanField(), tg.TAP())
    ]
    corners = np.random.default_rng(3).choice([-1.0, 1.0], (64, N))
    flips = tg.kinetics.flip_minima(energy, np.concatenate([data[::4], corners]))
    energies = np.asarray(jax.vmap(energy)(jnp.asarray(flips, float)))
    lowest = flips[np.argsort(energies)[:N_FLIPS]]
    candidates = np.concatenate([*(library.magnetizations for library in found), lowest])
    certificate = tg.certify(
        energy,
        1.0,
        candidates,
        key=jax.random.key(4),
        threshold=THRESHOLD,
        n_trajectories=256,
        horizon=3,
    )
    return [*(len(library) for library in found), len(flips), certificate.n_bound]


def main() -> None:
    training, held_out = tg.datasets.split(tg.datasets.digits().spins, 0.2)
    print(
        f"{len(training)} digits train, {len(held_out)} judge; ln 2 per spin: {N * np.log(2):.2f}"
    )
    m = np.asarray(learning.moments(training, pseudocount=1.0)[0])
    alone = [-np.mean(np.sum(np.log((1 + s * m) / 2), axis=1)) for s in (training, held_out)]
    print(f"independent spins: {alone[0]:.3f} nats on the training data, {alone[1]:.3f} held out")
    print("deviation of the held-out data from the training data (means, correlations; rms, max):")
    print(" ", " ".join(f"{x:.3f}" for x in deviations(held_out, training)))
    print(
        f"\n{'':>18}{'training':>10}{'held out':>10}{'s.e.':>7}{'ess':>6}{'reverse':>9}"
        f"{'means':>13}{'correlations':>15}{'naive':>8}{'TAP':>6}{'flips':>7}{'bound':>7}  fit"
    )
    for models in (trained, inverted):
        for name, energy, remark in models(training):
            print(report(name, energy, training, held_out) + f"  {remark}", flush=True)


def report(name: str, energy: tg.Pairwise, training: np.ndarray, held_out: np.ndarray) -> str:
    forward = tg.annealed_importance_sampling(energy, BETAS, key=jax.random.key(5), n_chains=512)
    spins = tempered(energy)
    backward = sampling.reverse_annealed_importance_sampling(
        energy, BETAS, spins[:, -1], key=jax.random.key(6)
    )
    log_z = float(forward.log_partition)
    losses = [float(np.mean(jax.vmap(energy)(jnp.asarray(s, float)))) + log_z
              for s in (training, held_out)]  # fmt: skip
    of_means = deviations(spins.reshape(-1, N), training)
    counts = states(energy, training)
    gap = float(backward.log_partition) - log_z
    return (
        f"{name:>18}{losses[0]:10.3f}{losses[1]:10.3f}{forward.standard_error:7.3f}"
        f"{forward.ess:6.0f}{gap:+9.3f}  {of_means[0]:.3f} {of_means[1]:.3f}"
        f"   {of_means[2]:.3f} {of_means[3]:.3f}"
        f"{counts[0]:8d}{counts[1]:6d}{counts[2]:7d}{counts[3]:7d}"
    )
