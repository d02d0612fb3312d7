"""Experts: splits of the data, expectation maximisation, and what a mixture of them holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compilations, configurations

import thermogen as tg
from thermogen import experts

N = 6
KEY = jax.random.key(0)
# Independent spins, of which no single model holds two patterns.
TEMPLATE = tg.Interactions.from_terms(N, {(k,): 0.0 for k in range(N)})
PAIRWISE = tg.Pairwise(np.zeros((N, N)), np.zeros(N))
EXACT = tg.ExactLikelihood()


def two_patterns(
    count: int = 400, seed: int = 0, noise: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """Noisy copies of two patterns, a third of them of the second, and which is which."""
    draw = np.random.default_rng(seed)
    patterns = np.array([[1, 1, 1, -1, -1, -1], [1, -1, 1, 1, 1, -1]])
    which = (np.arange(count) % 3 == 0).astype(int)
    flips = draw.random((count, N)) < noise
    return np.where(flips, -1, 1) * patterns[which], which


def one(stacked, a: int):
    """Entry a of every array."""
    return jax.tree.map(lambda x: x[a], stacked)


DATA, WHICH = two_patterns()


@pytest.fixture(scope="module")
def rounds():
    """Every round of a fit of two experts, and the mixture that it returns."""
    seen = []
    mixture = tg.fit_experts(
        TEMPLATE,
        DATA,
        objective=EXACT,
        key=KEY,
        n_experts=2,
        n_starts=1,
        n_rounds=4,
        callback=seen.append,
    )
    return seen, mixture


@pytest.mark.further
def test_mixture_is_normalised_and_its_loss_is_the_likelihood(rounds):
    seen, mixture = rounds
    p = np.asarray(tg.exact.probabilities(mixture, 1.0))
    np.testing.assert_allclose(tg.exact.log_partition(mixture, 1.0), 0.0, atol=1e-9)
    np.testing.assert_allclose(mixture.weights.sum(), 1.0, rtol=1e-9)
    loss = -np.mean(np.log(p[np.asarray(tg.index_from_spins(DATA))]))
    np.testing.assert_allclose(experts.negative_log_likelihood(mixture, DATA), loss, rtol=1e-9)
    np.testing.assert_allclose(loss, min(r.loss for r in seen), rtol=1e-9)


def test_no_round_of_exact_experts_raises_the_loss(rounds):
    seen, _ = rounds
    losses = [r.loss for r in seen]
    assert len(losses) >= 2
    # The floor of the shares is no part of the argument, hence the slack.
    assert np.all(np.diff(losses) < 1e-3)


def test_experts_divide_the_data_by_patterns(rounds):
    _, mixture = rounds
    shares = experts.responsibilities(mixture, DATA)
    found = np.argmax(shares, axis=1)
    agreement = np.mean(found == WHICH)
    assert max(agreement, 1 - agreement) > 0.97
    np.testing.assert_allclose(np.sort(mixture.weights), [1 / 3, 2 / 3], atol=0.05)


@pytest.mark.further
def test_loss_lies_between_the_entropy_and_that_of_one_model(rounds):
    _, mixture = rounds
    _, counts = np.unique(np.asarray(tg.index_from_spins(DATA)), return_counts=True)
    entropy = -np.sum(counts / len(DATA) * np.log(counts / len(DATA)))
    one = tg.fit(EXACT, TEMPLATE, DATA, key=KEY)
    loss = experts.negative_log_likelihood(mixture, DATA)
    assert entropy <= loss < one.history[-1] - 0.3


@pytest.mark.further
def test_another_objective_and_number_of_rounds(rounds):
    """Pseudolikelihood is not the likelihood: the best round is returned."""
    seen = []
    mixture = tg.fit_experts(
        TEMPLATE,
        DATA,
        objective=tg.Pseudolikelihood(1e-3),
        key=KEY,
        shares=np.eye(2)[WHICH],
        n_rounds=3,
        tolerance=-1.0,
        callback=seen.append,
    )
    assert len(seen) == 3
    best = min(r.loss for r in seen)
    np.testing.assert_allclose(experts.negative_log_likelihood(mixture, DATA), best, rtol=1e-9)
    # Every expert is what it would be alone, with the same shares.
    first = seen[0].mixture
    floor = 0.999 * np.eye(2)[WHICH] + 0.001 / 2
    alone = tg.fit(tg.Pseudolikelihood(1e-3), TEMPLATE, DATA, weights=floor[:, 1], key=KEY)
    difference = jax.tree.map(lambda a, b: np.max(np.abs(a - b)), first.expert(1), alone.energy)
    assert max(jax.tree.leaves(difference)) < 1e-3


def test_new_numbers_compile_nothing(rounds, caplog):
    (data, _), key = two_patterns(seed=1), jax.random.key(5)
    with compilations(caplog) as compiled:
        tg.fit_experts(
            TEMPLATE,
            data,
            objective=EXACT,
            key=key,
            n_experts=2,
            n_starts=1,
            n_rounds=2,
        )
    assert not compiled


@pytest.mark.further
def test_library_shares_are_posteriors_of_product_measures():
    m = np.array([[0.9, 0.9, 0.9, -0.9, -0.9, -0.9], [0.8, -0.8, 0.8, 0.8, 0.8, -0.8]])
    library = tg.Library.from_magnetizations(
        tg.NaiveMeanField(), tg.Pairwise(np.zeros((N, N)), np.full(N, 0.1)), 1.0, m
    )
    states = np.asarray(library.magnetizations)
    shares = experts.library_shares(library, DATA)
    p = np.array([np.prod((1 + states * s) / 2, axis=1) for s in DATA])
    np.testing.assert_allclose(shares, p / p.sum(axis=1, keepdims=True), rtol=1e-9)
    one = experts.library_shares(library, DATA, 1)
    np.testing.assert_array_equal(one, 1.0)
    with pytest.raises(ValueError, match="at least 3 states"):
        experts.library_shares(library, DATA, 3)


@pytest.mark.further
def test_basins_of_a_parent_and_its_certified_sets():
    """Two blocks of which one is held up: two sets, however many minima of G there are."""
    strong = np.zeros((N, N))
    strong[:3, :3], strong[3:, 3:] = 1.0, 1.0
    np.fill_diagonal(strong, 0.0)
    fields = np.where(np.arange(N) < 3, 0.0, 0.6)  # the second block is held up
    energy = tg.Pairwise(strong, fields)
    library = tg.find_minima(tg.NaiveMeanField(), energy, 1.0, key=KEY, n_starts=64)
    data = configurations(N)
    shares = experts.basin_shares(tg.NaiveMeanField(), energy, 1.0, library, data)
    first = np.sign(data[:, :3].sum(axis=1))
    np.testing.assert_array_equal(shares.sum(axis=1), 1.0)
    assert shares.shape[1] >= 2
    certificate = tg.certify(energy, 1.0, library, key=KEY, threshold=5)
    sets = experts.basin_shares(
        tg.NaiveMeanField(), energy, 1.0, library, data, certificate=certificate
    )
    assert sets.shape[1] == certificate.n_bound == 2
    own = np.argmax(sets, axis=1) == np.argmax(sets[np.argmax(first)])
    np.testing.assert_array_equal(own, first > 0)


@pytest.mark.further
def test_images_go_to_the_set_that_they_are_in():
    """Of two states in one set, each beside the other's image: a pair that turns by itself."""
    n, threshold = 7, 50.0
    couplings = np.zeros((n, n))
    couplings[:2, :2], couplings[2:, 2:] = 1.3, 1.0  # the pair, and a block that is never left
    np.fill_diagonal(couplings, 0.0)
    energy, functional = tg.Pairwise(couplings, np.zeros(n)), tg.NaiveMeanField()
    library = tg.find_minima(functional, energy, 1.0, key=KEY, n_starts=64)
    certificate = tg.certify(energy, 1.0, library, key=KEY, threshold=threshold)
    exact = tg.exact.metastable_sets(energy, 1.0, threshold=threshold)
    images = certificate.side[:, None] * certificate.cores
    assert library.size == certificate.n_bound == len(exact.weights) == 2
    sets = exact.labels[np.asarray(tg.index_from_spins(images))]
    np.testing.assert_array_equal(sets, sets[0])
    data = configurations(n)
    shares = experts.basin_shares(functional, energy, 1.0, library, data, certificate=certificate)
    own = np.argmax(shares, axis=1)
    up = data[:, 2:].sum(axis=1) > 0
    np.testing.assert_array_equal(own == own[np.argmax(up)], up)


@pytest.mark.further
def test_number_of_experts_comes_from_the_certified_library():
    """Sharp copies of two patterns: the parent has two bound states, so there are two experts.

    They exchange within 366 sweeps by the spectrum, 100 part two states.
    """
    data, which = two_patterns(noise=0.002)
    mixture = tg.fit_experts(PAIRWISE, data, objective=tg.Pseudolikelihood(1e-3), key=KEY)
    assert mixture.n_experts == 2
    shares = experts.responsibilities(mixture, data)
    agreement = np.mean(np.argmax(shares, axis=1) == which)
    assert max(agreement, 1 - agreement) > 0.97


@pytest.mark.further
def test_experts_are_learned_in_their_own_precision():
    start = jax.tree.map(lambda x: x.astype(jnp.float32), TEMPLATE)
    options = {"objective": EXACT, "key": KEY, "n_experts": 2, "n_starts": 1, "n_rounds": 2}
    single = tg.fit_experts(start, DATA, **options)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(single))
    double = tg.fit_experts(TEMPLATE, DATA, **options)
    losses = [experts.negative_log_likelihood(m, DATA) for m in (single, double)]
    np.testing.assert_allclose(*losses, atol=1e-3)


def test_splits_and_merges_share_no_key(monkeypatch):
    """Two splits that help, one that does not, and a merge: all keys that are drawn from differ."""
    loss = {1: 3.0, 2: 2.0, 3: 1.0, 4: 2.0}
    keys = []

    def learn(self, start, data, shares, key):
        keys.append(jax.random.fold_in(key, 0))  # of its first round
        return experts.Round(start, 0.0, tg.RESULTS.converged)

    def clusters(data, size, key):
        keys.append(key)
        return np.arange(len(data)) % size

    revise, learner = experts._revise, experts._learn.Learner
    monkeypatch.setattr(learner, "__call__", learn)
    monkeypatch.setattr(revise, "clusters", clusters)
    monkeypatch.setattr(
        revise, "losses", lambda m, data, key: np.full(len(data), loss[m.n_experts])
    )
    one_expert = tg.Mixture.of([TEMPLATE], [1.0], [0.0])
    assert revise.revised(one_expert, DATA, DATA, learner(EXACT), KEY).n_experts == 3
    assert len(keys) == 7
    assert len({tuple(np.asarray(jax.random.key_data(key))) for key in keys}) == 7


@pytest.mark.slow
def test_held_out_loss_splits_one_expert_and_merges_three():
    held_out, _ = two_patterns(seed=2)
    for start in (1, 3):
        mixture = tg.fit_experts(
            TEMPLATE, DATA, objective=EXACT, key=KEY, n_experts=start, held_out=held_out
        )
        assert mixture.n_experts == 2


@pytest.mark.further
def test_annealed_partition_functions_agree_with_enumeration(monkeypatch):
    keys = jax.random.split(KEY, 3)
    machines = jax.vmap(lambda k: tg.RBM.random(4, np.zeros(N), key=k, scale=0.5))(keys)
    exact = experts.log_partitions(machines, KEY)
    truth = [
        tg.exact.log_partition(jax.tree.map(lambda x, a=a: x[a], machines), 1.0) for a in range(3)
    ]
    np.testing.assert_allclose(exact, truth, rtol=1e-9)
    for room in (experts._likelihood, tg.sampling._partition):
        monkeypatch.setattr(room, "is_summed", lambda _: False)
    annealed = experts.log_partitions(machines, KEY)
    # 256 chains through 1000 temperatures: the standard error is below 0.005 nats here.
    np.testing.assert_allclose(annealed, truth, atol=0.02)
    cold = jax.tree.map(lambda x: 300 * x, machines)
    with pytest.warns(UserWarning, match="by annealing, is not known: A few chains"):
        experts.log_partitions(cold, KEY)


@pytest.mark.further
def test_centred_steps_of_experts_are_those_of_each_alone():
    keys = jax.random.split(KEY, 2)
    machines = jax.vmap(lambda k: tg.RBM.random(3, np.zeros(N), key=k, scale=0.5))(keys)
    gradients = jax.tree.map(lambda x: x + 1.0, machines)
    means = jnp.asarray(DATA.mean(axis=0))
    rule = tg.learning.centred_gradient()
    zeros = np.zeros(2)
    together, _ = rule.update(
        tg.Mixture(gradients, zeros, zeros),
        rule.init(machines),
        tg.Mixture(machines, zeros, zeros),
        means=means,
    )
    for a in range(2):
        parts = one(gradients, a), rule.init(machines), one(machines, a)
        alone, _ = rule.update(*parts, means=means)
        for x, y in zip(jax.tree.leaves(alone), jax.tree.leaves(together.expert(a)), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_experts": 0}, "n_experts must be at least 1"),
        ({"n_rounds": 0}, "n_rounds must be at least 1"),
        ({"shares": np.ones((3, 2))}, "shares must have shape"),
        ({"shares": np.zeros((400, 2))}, "shares must not be negative"),
        ({"shares": np.ones((400, 2)), "n_experts": 3}, "shares must have shape"),
        ({"data": DATA[:, :3]}, "data must have 6 spins"),
        ({"held_out": DATA[:, :3], "n_experts": 1}, "held_out must have 6 spins"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        tg.fit_experts(TEMPLATE, arguments.pop("data", DATA), objective=EXACT, key=KEY, **arguments)


@pytest.mark.further
def test_likelihoods_and_shares_refuse_bits():
    """Zeros in place of -1 gave a finite, wrong likelihood."""
    template = tg.Interactions.from_terms(3, {(k,): 0.0 for k in range(3)})
    mixture = tg.Mixture.of([template, template], [1.0, 1.0], [0.0, 0.0])
    library = tg.find_minima(tg.NaiveMeanField(), template, 1.0, key=jax.random.key(0), n_starts=2)
    bits = np.array([[0, 1, 1]])
    for call in (
        lambda: experts.negative_log_likelihood(mixture, bits),
        lambda: experts.responsibilities(mixture, bits),
        lambda: experts.library_shares(library, bits),
        lambda: experts.basin_shares(tg.NaiveMeanField(), template, 1.0, library, bits),
    ):
        with pytest.raises(ValueError, match="data has no values but 0 and 1, which are bits"):
            call()
    with pytest.raises(ValueError, match="library must hold at least one state"):
        experts.basin_shares(tg.NaiveMeanField(), template, 1.0, library[:0], 2 * bits - 1)


@pytest.mark.further
def test_whole_weights_are_repetitions():
    """Of the split by a library, of the rounds, of the loss, and of the clusters."""
    data, draw = DATA[:60], np.random.default_rng(1)
    counts, parts = draw.integers(0, 3, 60), draw.dirichlet(np.ones(2), 60)
    rows = np.repeat(np.arange(60), counts)
    # A spin may be constant in the share of an expert.
    ridge = tg.learning.L2(1e-3, fields=1e-3)
    for objective in (EXACT, tg.Pseudolikelihood()):
        options = {"objective": objective, "penalty": ridge, "key": KEY, "n_rounds": 2}
        energy = PAIRWISE if objective is not EXACT else TEMPLATE
        weighted = tg.fit_experts(energy, data, shares=parts, weights=counts, **options)
        repeated = tg.fit_experts(energy, data[rows], shares=parts[rows], **options)
        losses = [
            experts.negative_log_likelihood(weighted, data, weights=counts),
            experts.negative_log_likelihood(repeated, data[rows]),
        ]
        np.testing.assert_allclose(*losses, rtol=1e-5)
        np.testing.assert_allclose(weighted.weights, repeated.weights, rtol=1e-4)
    options = {"objective": EXACT, "penalty": ridge, "key": KEY, "n_experts": 2, "n_starts": 1}
    options |= {"n_rounds": 3}
    found = [
        tg.fit_experts(TEMPLATE, data, weights=counts, **options),
        tg.fit_experts(TEMPLATE, data[rows], **options),
    ]
    np.testing.assert_allclose(
        *(np.sort(np.asarray(tg.exact.probabilities(m, 1.0))) for m in found), atol=1e-4
    )


# --- unknown spins

_GAPS = DATA * (np.random.default_rng(5).random(DATA.shape) > 0.3)
_GAPS[:, 1] = DATA[:, 1]


def _pair_of_experts() -> tg.Mixture:
    """Two experts of different couplings, normalised."""
    rng = np.random.default_rng(3)
    upper = np.triu(rng.normal(size=(2, N, N)), 1)
    energies = [
        tg.Pairwise(u + u.T, h) for u, h in zip(upper, rng.normal(size=(2, N)), strict=True)
    ]
    return tg.Mixture.of(
        energies, [0.3, 0.7], [float(tg.exact.log_partition(e, 1.0)) for e in energies]
    )


def test_what_is_known_decides_whose_a_sample_is(monkeypatch):
    mixture, cues = _pair_of_experts(), _GAPS[:12]
    joint = np.stack(
        [
            w * np.asarray(tg.exact.probabilities(mixture.expert(a), 1.0))
            for a, w in enumerate(np.asarray(mixture.weights))
        ]
    )
    corners = configurations(N)
    agrees = np.all((cues[:, None] == 0) | (cues[:, None] == corners), axis=2)
    p = agrees @ joint.T
    shares = experts.responsibilities(mixture, cues)
    np.testing.assert_allclose(shares, p / p.sum(axis=1, keepdims=True), rtol=1e-10)
    loss = experts.negative_log_likelihood(mixture, cues)
    np.testing.assert_allclose(loss, -np.mean(np.log(p.sum(axis=1))), rtol=1e-10)
    single = tg.learning.log_likelihood(mixture, cues, key=KEY)
    np.testing.assert_allclose(-single.value, loss, rtol=1e-9)
    # As a whole the mixture is an energy, and learns as one.
    whole = tg.learning.potential(mixture, 1.0, cues)
    np.testing.assert_allclose(whole, loss, rtol=1e-9)

    monkeypatch.setattr(experts._likelihood, "can_be_summed", lambda *_: False)
    with pytest.raises(ValueError, match="give a key, and what they add is annealed"):
        experts.responsibilities(mixture, cues)
    annealed = experts.responsibilities(mixture, cues, key=KEY)
    np.testing.assert_allclose(annealed, shares, atol=0.1)


@pytest.mark.further
@pytest.mark.parametrize("objective", [EXACT, tg.PersistentCD(n_chains=64)])
def test_experts_divide_data_with_gaps_by_patterns(objective):
    mixture = tg.fit_experts(
        TEMPLATE,
        _GAPS,
        objective=objective,
        penalty=tg.learning.L2(0.01, fields=0.01),
        key=KEY,
        n_experts=2,
        n_starts=1,
        n_rounds=3,
        n_steps=300,
    )
    found = np.argmax(experts.responsibilities(mixture, _GAPS), axis=1)
    agreement = np.mean(found == WHICH)
    assert max(agreement, 1 - agreement) > 0.93
    # Entropy of which pattern it is, and of six spins that are turned with a chance of 0.05: 1.83.
    assert 1.7 < experts.negative_log_likelihood(mixture, DATA) < 2.0


def test_clusters_go_by_what_is_known():
    labels = experts._shares.clusters(_GAPS, 2, KEY)
    agreement = np.mean(labels == WHICH)
    assert max(agreement, 1 - agreement) > 0.9
