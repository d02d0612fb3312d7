"""Learning of Boltzmann machines at equal time: what does a held-out image cost?

Digits of 8 x 8 pixels, four fifths to learn from, in float32. Restricted machines of 64 hidden
spins: the defaults of `PersistentCD` and the contenders of `rbm_digits`, which has longer runs and
MNIST. Machines without hidden spins: the defaults of `PersistentCD` and of `Pseudolikelihood`, and
bmDCA of adabmDCA, at its defaults (10^4 chains, 10 Metropolis sweeps a step) and with what suits a
short time better, found by a short scan: fewer chains, Gibbs sweeps, a larger rate. Everybody is
looked at after the same seconds of wall time, compiling apart, and judged by one estimator of ln Z
(`rbm_digits`); a step that is longer than the time is waited for. A round is a seed. The cost of an
image is its negative log-likelihood in nats: the ratio is that of two lengths of code. Needs the
extra `bench-large`.

    python -m experiments benchmarks.machines
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from experiments import rbm_digits
from experiments.benchmarks import _peers, _watch

# As users have it who set nothing.
X64 = False

SECONDS, ROUNDS = (2.0, 5.0), 2
N_HIDDEN = 64


def from_potts(fields: np.ndarray, couplings: np.ndarray) -> tg.Pairwise:
    """The model of two colours, `E = -sum b_i(x_i) - sum_{i<j} J_ij(x_i, x_j)`, in +-1 units.

    `fields` has the shape (n, 2), `couplings` (n, 2, n, 2); colour 1 is the spin +1.
    """
    signs = np.array([-1.0, 1.0])
    pairs = np.einsum("iajb,a,b->ij", couplings, signs, signs) / 4
    singles = fields @ signs / 2 + np.einsum("iajb,a->i", couplings, signs) / 4
    pairs = (pairs + pairs.T) / 2
    return tg.Pairwise(pairs - np.diag(np.diag(pairs)), singles)


def with_adabmdca(options: dict, training: np.ndarray, seconds: list[float], seed: int) -> list:
    """The loop of bmDCA on a complete graph, stopped from within."""
    import torch
    from adabmDCA import sampling, stats, utils
    from adabmDCA import training as learning

    torch.set_num_threads(_peers.cores())
    torch.manual_seed(seed)
    bits = torch.tensor(np.asarray(tg.bits_from_spins(training), np.int64))
    data = torch.nn.functional.one_hot(bits, 2).to(torch.float32)
    n, pseudocount = training.shape[1], 1 / len(training)  # as its command line has it
    single = stats.get_freq_single_point(data, pseudo_count=pseudocount)
    double = stats.get_freq_two_points(data, pseudo_count=pseudocount)
    params = utils.init_parameters(single)
    mask = torch.ones((n, 2, n, 2))
    mask[range(n), :, range(n), :] = 0.0

    def look(record, counters) -> None:
        model = lambda: from_potts(*(params[k].numpy() for k in ("bias", "coupling_matrix")))  # noqa: E731
        clock.look(model, counters.gradient_steps)

    clock = rbm_digits.Clock(seconds)
    try:
        learning.train_graph(
            getattr(sampling, f"{options['sampler']}_sampling"),
            utils.init_chains(options["n_chains"], n, 2, torch.device("cpu"), fi=single),
            mask,
            single,
            double,
            params,
            options["n_sweeps"],
            options["rate"],
            10**9,
            2.0,  # the correlation at which it would stop: never
            controller=learning.TrainingController(observer=look),
        )
    except rbm_digits.TimeIsUp:
        pass
    return clock.kept


def with_thermogen(objective, training: np.ndarray, seconds: list[float], seed: int) -> list:
    n, key = training.shape[1], jax.random.key(seed)
    start = tg.Pairwise(np.zeros((n, n), np.float32), np.zeros(n, np.float32))
    fit = functools.partial(tg.fit, objective, start, training, key=key)
    if isinstance(objective, tg.PersistentCD):  # it goes on until it is stopped
        fit = functools.partial(fit, n_steps=rbm_digits.MOST_STEPS)
    return rbm_digits.looked_at(fit, list(seconds))


def restricted(name: str, training: np.ndarray, seconds: list[float], seed: int) -> list:
    return rbm_digits.CONTENDERS[name](training, N_HIDDEN, seconds, seed)


# Who, package, how and with what.
RESTRICTED = (
    (f"{_peers.OURS}, PersistentCD", _peers.OURS, restricted, "PersistentCD"),
    ("scikit-learn, rate 0.01", "scikit-learn", restricted, "scikit-learn 0.01"),
    ("rbms, rate 0.01", "rbms", restricted, "rbms 0.01"),
    ("rbms, rate 0.1", "rbms", restricted, "rbms 0.1"),
)
DEFAULTS = {"sampler": "metropolis", "n_chains": 10_000, "n_sweeps": 10, "rate": 0.01}
SHORT = {"sampler": "gibbs", "n_chains": 500, "n_sweeps": 1, "rate": 0.05}
VISIBLE = (
    (f"{_peers.OURS}, PersistentCD", _peers.OURS, with_thermogen, tg.PersistentCD()),
    (f"{_peers.OURS}, Pseudolikelihood", _peers.OURS, with_thermogen, tg.Pseudolikelihood()),
    ("adabmDCA, defaults", "adabmDCA", with_adabmdca, DEFAULTS),
    ("adabmDCA, 500 chains", "adabmDCA", with_adabmdca, SHORT),
)
MODULES = {"scikit-learn": "sklearn"}


def cost(machine, parts) -> float:
    """Nats of a held-out image."""
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), machine)
    judged = rbm_digits.judge(single, *parts, jax.random.key(2), n_betas=501, n_chains=100)
    return -float(judged[3])


def case(title: str, contenders) -> list[_peers.Row]:
    # Pixels that are always white are the same trouble for everybody, and no one has a penalty.
    warnings.filterwarnings("ignore", message="data: spins")
    split = tg.datasets.split(tg.datasets.digits().spins, 0.2)
    parts = [jnp.asarray(part, jnp.float32) for part in split]
    present = [c for c in contenders if _peers.able(c[0], MODULES.get(c[1], c[1]))]
    costs = {(c[0], seconds): [] for c in present for seconds in SECONDS}
    steps = {}
    for seed in range(min(ROUNDS, _peers.now.pace.rounds)):
        for who, package, learn, how in present:
            _peers.now.tell(who, package)
            for seconds, n_steps, machine in learn(how, split.training, list(SECONDS), seed):
                costs[who, seconds].append(cost(machine, parts))
                steps[who, seconds] = f"{n_steps} steps"
    found = []
    for seconds in SECONDS:
        measured = [
            _peers.Measured(*c[:2], costs[c[0], seconds], note=steps[c[0], seconds])
            for c in present
        ]
        measured += _peers.missing("sklearn", "rbms", "adabmDCA")
        after, unit = f"{title}, after {seconds:g} s", "nats a held-out image"
        found += _peers.rows("learning, digits", after, unit, measured, more_is_better=False)
    return found


def cases() -> dict[str, _peers.Case]:
    kinds = {f"{N_HIDDEN} hidden spins": RESTRICTED, "no hidden spins": VISIBLE}
    return {title: functools.partial(case, title, what) for title, what in kinds.items()}


def main() -> None:
    _watch.alone(cases())
