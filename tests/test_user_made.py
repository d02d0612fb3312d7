"""A user's class is the equal of ours: own energy, functional, sampler, rule and objective.

The energy is a chain of three-body terms with two parameters, computed by rolling. Its twin is the
same energy as `Interactions`. Every public function that takes an energy must do for the chain
what it does for the twin; one that is new and has no case here fails the first test.
"""

import inspect
import tempfile
from typing import NamedTuple

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thermogen as tg
from thermogen import (
    _api,
    energies,
    exact,
    experts,
    interop,
    kinetics,
    landscape,
    learning,
    meanfield,
    retrieval,
    sampling,
    search,
    storage,
)
from thermogen.meanfield._adaptive import coupling_matrix

N, BETA = 6, 1.5
KEY = jax.random.key(0)


class Chain(tg.AbstractMultilinear):
    """`E = -J sum_k w_k s_k s_{k+1} s_{k+2} - h sum_k w_k s_k` on a ring, w_k = 1 + k/10.

    The weights see to it that no two states are equally deep.
    """

    n_spins: int = eqx.field(static=True)
    coupling: jax.Array
    field: jax.Array

    def __call__(self, spins):
        products = spins * jnp.roll(spins, -1) * jnp.roll(spins, -2)
        w = 1 + 0.1 * np.arange(self.n_spins)
        return -self.coupling * jnp.sum(w * products) - self.field * jnp.sum(w * spins)


@energies.terms.register
def _(energy: Chain):
    sites = np.arange(energy.n_spins)
    triples = np.stack([sites, np.roll(sites, -1), np.roll(sites, -2)], axis=1)
    couplings = [(1 + 0.1 * sites) * x for x in (energy.field, energy.coupling)]
    return tg.Interactions(energy.n_spins, [sites[:, None], triples], couplings)


@energies.describe.register
def _(energy: Chain):
    return {"n_spins": energy.n_spins}


@energies.rebuild.register(Chain)
def _(structure, take):
    return Chain(structure["n_spins"], take(), take())


class Alone(tg.AbstractMultilinear):
    """The same formula, and no rule for anything."""

    n_spins: int = eqx.field(static=True)
    coupling: jax.Array
    field: jax.Array

    def __call__(self, spins):
        return Chain.__call__(self, spins)


class Factorised(tg.AbstractFunctional):
    """Naive mean field."""

    def excess(self, energy, beta, m):
        return energies.product_mean(energy, m)


class Kernel(sampling.AbstractKernel):
    """Sweeps by the rule."""

    def step(self, energy, beta, state, key, clamp=None):
        return sampling.sweep(helpers.BelowUniform(), energy, beta, state, key, clamp)


class Aged(NamedTuple):
    spins: jax.Array
    age: jax.Array


class Ageing(sampling.AbstractSampler):
    """A sampler whose state is more than its spins, and whose info is its own."""

    def init(self, energy, beta, spins, key):
        return Aged(spins, jnp.zeros((), int))

    def step(self, energy, beta, state, key, clamp=None):
        spins, info = Kernel().step(energy, beta, state.spins, key, clamp)
        return Aged(spins, state.age + 1), info

    def spins(self, state):
        return state.spins

    def total_energy(self, energy, state):
        return energy(state.spins)


class Conditional(learning.AbstractObjective):
    """The pseudolikelihood."""

    @property
    def defaults(self):
        return learning.Defaults(optax.lbfgs(), 200, 1e-5, conditional=True)

    def init(self, energy, samples, key):
        return None

    def loss(self, energy, batch, state, key):
        fields = jax.vmap(lambda s: energies.conditional_fields(energy, 1.0, s))(batch.spins)
        return batch.mean(jnp.sum(jax.nn.softplus(-2 * batch.spins * fields), axis=1)), None


CHAIN = Chain(N, jnp.asarray(1.0), jnp.asarray(0.1))
TWIN = energies.terms(CHAIN)
FUNCTIONAL, OBJECTIVE = Factorised(), Conditional()
UP, M = np.ones(N), np.linspace(-0.5, 0.9, N)
CONFIGURATIONS = helpers.configurations(N)
CUE = np.array([1, -1, 0, 0, 0, 0])
DATA = CONFIGURATIONS[np.random.default_rng(0).choice(2**N, 200, p=helpers.boltzmann(TWIN, 0.4)[0])]
FEW = {"key": KEY, "n_chains": 8}
SWEEPS = {**FEW, "n_sweeps": 4}
BETAS = np.linspace(0.0, 1.0, 5)


def _library(energy):
    return tg.find_minima(FUNCTIONAL, energy, BETA, key=KEY, n_starts=32)


def _bound_states(energy):
    options = {"threshold": 5, "functional": FUNCTIONAL, "n_starts": 16}
    return tg.find_bound_states(energy, BETA, key=KEY, **options)


def _mixture(energy):
    return tg.Mixture.of([energy, jax.tree.map(lambda x: 0.5 * x, energy)], [0.4, 0.6], [1.0, 2.0])


def _family(energy):
    betas = np.array([0.4, 1.0, BETA])
    return landscape.genealogy(FUNCTIONAL, energy, betas, key=KEY, n_starts=32)


def _escapes(energy):
    naive = tg.NaiveMeanField()
    library = tg.find_minima(naive, energy, 2.0, key=KEY, n_starts=32)
    found = tg.barriers(naive, energy, 2.0, library)
    rows = (landscape.follow(naive, energy, 2.0, x) for x in (library, found))
    return landscape.log_escape_times(naive, energy, 2.0, found, *rows)


def _saved_and_loaded(energy):
    with tempfile.TemporaryDirectory() as folder:
        storage.save_energy(f"{folder}/chain.eqx", energy)
        return storage.load_energy(f"{folder}/chain.eqx")


def _coefficients(polynomial):
    return [polynomial[term] for term in sorted(polynomial, key=sorted)]


def _written_and_read(energy):
    with tempfile.TemporaryDirectory() as folder:
        interop.write_model(f"{folder}/chain.terms", energy)
        return interop.read_model(f"{folder}/chain.terms").energy


def _thresholds(sites):
    return jnp.zeros((sites.size, 3))


def _steps(block):
    return jnp.arange(N), jnp.ones(N, bool), jnp.zeros((N, 3))


# What each function says of an energy; of the chain as of its twin, to rounding.
QUICK = {
    "energies.complete": lambda e: energies.complete(e).couplings,
    "energies.conditional_field": lambda e: energies.conditional_field(e, 1.0, UP, 2),
    "energies.conditional_fields": lambda e: energies.conditional_fields(e, 1.0, UP),
    "energies.embed": lambda e: energies.embed(e, 1.0, UP),
    "energies.flip_gaps": lambda e: energies.flip_gaps(e, UP),
    "energies.has_terms": energies.has_terms,
    "energies.is_flip_symmetric": energies.is_flip_symmetric,
    "energies.layers": energies.layers,
    "energies.local_fields": lambda e: energies.local_fields(e, M),
    "energies.n_enumerated": energies.n_enumerated,
    "energies.n_visible": energies.n_visible,
    "energies.nonlinear_third_moment": lambda e: energies.nonlinear_third_moment(e, M),
    "energies.nonlinear_variance": lambda e: energies.nonlinear_variance(e, M),
    "energies.product_mean": lambda e: energies.product_mean(e, M),
    "energies.terms": lambda e: energies.terms(e).couplings,
    "energies.terms_for": lambda e: energies.terms_for("this test", e).couplings,
    "energies.visible_free_energy": lambda e: energies.visible_free_energy(e, 1.0, UP),
    "exact.barriers": lambda e: exact.barriers(e, np.array([0, 2**N - 1])),
    "exact.conditional": lambda e: exact.conditional(e, BETA, CUE),
    "exact.correlations": lambda e: exact.correlations(e, BETA),
    "exact.cost": lambda e: exact.cost(e)[1:],
    "exact.density_of_states": lambda e: exact.density_of_states(e, 5)[1],
    "exact.energies": exact.energies,
    "exact.entropy": lambda e: exact.entropy(e, BETA),
    "exact.free_energy": lambda e: exact.free_energy(e, BETA),
    "exact.heat_capacity": lambda e: exact.heat_capacity(e, BETA),
    "exact.log_partition": lambda e: exact.log_partition(e, BETA),
    "exact.magnetizations": lambda e: exact.magnetizations(e, BETA),
    "exact.lowest": lambda e: exact.lowest(e, 3),
    "exact.marginal": lambda e: exact.marginal(e, BETA, (0, 3)),
    "exact.mutual_information": lambda e: exact.mutual_information(e, BETA, (0, 2), (3,)),
    "exact.mean_energy": lambda e: exact.mean_energy(e, BETA),
    "exact.probabilities": lambda e: exact.probabilities(e, BETA),
    "exact.reduction": lambda e: exact.reduction(e, TWIN, BETA, np.array([0, 1])),
    "exact.relaxation_times": lambda e: exact.relaxation_times(e, BETA),
    "exact.retention": lambda e: exact.retention(e, BETA, CONFIGURATIONS[:4]),
    "exact.sample": lambda e: exact.sample(e, BETA, key=KEY, n_samples=8),
    "interop.to_polynomial": lambda e: _coefficients(interop.to_polynomial(e)),
    "interop.write_model": lambda e: _written_and_read(e).couplings,
    "kinetics.flip_minima": lambda e: kinetics.flip_minima(e, CONFIGURATIONS),
    "learning.checked_samples": lambda e: learning.checked_samples(e, DATA),
    "learning.clamped_free_energy": lambda e: learning.clamped_free_energy(
        e, BETA, CUE, max_gaps=N
    ),
    "learning.known_log_weights": lambda e: learning.known_log_weights(
        e, BETA, jnp.asarray(CUE)[None], N, None
    ),
    "learning.can_be_summed": lambda e: learning.can_be_summed(e, 10, 4),
    "learning.samples_as_given": lambda e: learning.samples_as_given(e, DATA),
    "learning.log_likelihood": lambda e: learning.log_likelihood(e, DATA, BETA, key=KEY).value,
    "learning.potential": lambda e: learning.potential(e, BETA, DATA),
    "meanfield.checked_problem": lambda e: meanfield.checked_problem(
        FUNCTIONAL, e, BETA, float
    ).free_energy(M),
    "sampling.colored": lambda e: sampling.colored(e)(UP),
    "sampling.is_summed": sampling.is_summed,
    "sampling.log_partition": lambda e: (
        sampling.log_partition(e, BETA, key=KEY, n_chains=4, n_rungs=3).log_partition
    ),
    "sampling.log_states": lambda e: sampling.log_states(e, float),
    "sampling.parameter_dtype": lambda e: sampling.parameter_dtype(e).name,
    "sampling.random_corners": lambda e: sampling.random_corners(e, 3, KEY),
    "sampling.sample": lambda e: tg.sample(Ageing(), e, BETA, clamp=CUE, **SWEEPS),
    "sampling.step_chains": lambda e: sampling.step_chains(
        Kernel(), e, BETA, jnp.ones((N, 3)), KEY
    ),
    "sampling.sweep": lambda e: sampling.sweep(helpers.BelowUniform(), e, BETA, UP, KEY),
    "sampling.sweep_population": lambda e: sampling.sweep_population(
        e, jnp.ones(3), jnp.ones((N, 3)), helpers.BelowUniform(), _thresholds
    ),
    "sampling.walk": lambda e: sampling.walk(
        e, jnp.full(3, BETA), jnp.ones((N, 3)), KEY, jax.random.split(KEY, 3), 12
    ),
    "sampling.walk_population": lambda e: sampling.walk_population(
        e, jnp.ones(3), jnp.ones((N, 3)), _steps, 1
    ),
    "search.corner": lambda e: search.corner(e, jnp.stack([M, UP]), KEY),
    "search.crossover": lambda e: search.crossover(e, jnp.stack([M, UP]), KEY),
    "search.flip_cluster": lambda e: search.flip_cluster(e, jnp.stack([M, UP]), KEY),
    "search.make_problem": lambda e: search.make_problem(FUNCTIONAL, e, BETA).free_energy(M),
}
SLOW = {
    "exact.gibbs_potential": lambda e: exact.gibbs_potential(e, BETA, 0.3 * M),
    "exact.glauber_spectrum": lambda e: exact.glauber_spectrum(e, BETA),
    "exact.metastable_sets": lambda e: exact.metastable_sets(e, BETA, threshold=20.0),
    "exact.single_flip_minima": exact.single_flip_minima,
    "experts.basin_shares": lambda e: experts.basin_shares(FUNCTIONAL, e, BETA, _library(e), DATA),
    "experts.log_partitions": lambda e: experts.log_partitions(_mixture(e).experts, KEY),
    "experts.negative_log_likelihood": lambda e: experts.negative_log_likelihood(_mixture(e), DATA),
    "experts.normalised": lambda e: experts.normalised(_mixture(e), key=KEY).log_partitions,
    "experts.responsibilities": lambda e: experts.responsibilities(_mixture(e), DATA),
    "kinetics.certify": lambda e: (
        tg.certify(e, BETA, _library(e), key=KEY, threshold=5).escape_times
    ),
    "kinetics.find_bound_states": lambda e: _bound_states(e).magnetizations,
    "kinetics.attribute": lambda e: kinetics.attribute(e, _bound_states(e), CONFIGURATIONS)[0],
    "kinetics.inside": lambda e: kinetics.inside(e, BETA, _bound_states(e), **FEW).energy,
    "kinetics.weights": lambda e: kinetics.weights(e, BETA, _bound_states(e), **FEW).values,
    "landscape.barriers": lambda e: tg.barriers(FUNCTIONAL, e, BETA, _library(e)).heights,
    "landscape.birth_points": lambda e: sorted(landscape.birth_points(FUNCTIONAL, e, _family(e))),
    "landscape.death_points": lambda e: sorted(landscape.death_points(FUNCTIONAL, e, _family(e))),
    "landscape.energy_barriers": lambda e: landscape.energy_barriers(
        e, CONFIGURATIONS[[0, -1]], key=KEY
    ),
    "sampling.expectation": lambda e: (
        sampling.expectation(jnp.mean, e, BETA, CONFIGURATIONS.astype(float)).value
    ),
    "landscape.follow": lambda e: landscape.follow(FUNCTIONAL, e, BETA, _library(e)).curvatures,
    "landscape.log_escape_times": _escapes,
    "landscape.genealogy": lambda e: _family(e).parents,
    "landscape.mixture_bound": lambda e: landscape.mixture_bound(e, BETA, _library(e)),
    "exact.generating_function": lambda e: exact.generating_function(
        e, BETA, CONFIGURATIONS.T[:2], np.array([0.1, 0.2])
    ),
    "meanfield.belief_propagation": lambda e: meanfield.belief_propagation(e, 0.3).value,
    "meanfield.follow_beta": lambda e: (
        meanfield.follow_beta(FUNCTIONAL, e, (0.2, 0.4), 0.1 * M).magnetizations
    ),
    "meanfield.follow_field": lambda e: (
        meanfield.follow_field(
            FUNCTIONAL, e, 0.4, 0.1 * M, field=UP, strengths=(0.0, 0.2)
        ).magnetizations
    ),
    "meanfield.solve": lambda e: tg.solve(FUNCTIONAL, e, BETA, M).value,
    "meanfield.susceptibility": lambda e: tg.susceptibility(FUNCTIONAL, e, BETA, 0.5 * UP),
    "meanfield.validity": lambda e: meanfield.validity(FUNCTIONAL, e, BETA, 0.5 * UP),
    "retrieval.first_hits": lambda e: retrieval.first_hits(
        e, BETA, CUE, CONFIGURATIONS[[-1]], sampler=Ageing(), **SWEEPS
    ),
    "retrieval.gate": lambda e: retrieval.gate(_mixture(e), CUE, **SWEEPS),
    "retrieval.recall": lambda e: tg.recall(e, BETA, CUE, method=Ageing(), **SWEEPS),
    "sampling.annealed": lambda e: sampling.annealed(
        e, jnp.asarray(BETAS), jnp.ones((3, N)), KEY, Kernel(), None
    ),
    "sampling.annealed_importance_sampling": lambda e: (
        tg.annealed_importance_sampling(e, BETAS, kernel=Kernel(), **FEW).log_partition
    ),
    "sampling.multi_histogram_reweighting": lambda e: sampling.multi_histogram_reweighting(
        e, BETAS, burn_in=2, kernel=Kernel(), **SWEEPS
    ).log_partition(0.7),
    "sampling.population_annealing": lambda e: (
        sampling.population_annealing(
            e, BETAS, n_populations=4, kernel=Kernel(), **FEW
        ).log_partition
    ),
    "sampling.reverse_annealed_importance_sampling": lambda e: (
        sampling.reverse_annealed_importance_sampling(
            e, BETAS, DATA[:8], key=KEY, kernel=Kernel()
        ).log_partition
    ),
    "sampling.thermodynamic_integration": lambda e: (
        sampling.thermodynamic_integration(
            e, BETAS, burn_in=2, kernel=Kernel(), **SWEEPS
        ).log_partition
    ),
    "sampling.find_ladder": lambda e: (
        sampling.find_ladder(e, BETA, key=KEY, kernel=Kernel(), n_sweeps=20, n_rounds=2).betas
    ),
    "sampling.tune_ladder": lambda e: (
        sampling.tune_ladder(
            tg.ParallelTempering([0.0, 0.5, 1.0], Kernel()), e, key=KEY, n_sweeps=20, n_rounds=2
        ).betas
    ),
    "search.find_minima": lambda e: _library(e).magnetizations,
    "search.quench": lambda e: tg.quench(FUNCTIONAL, e, BETA, CONFIGURATIONS[:3]).value,
}
# What reads or moves parameters: those of the chain are two, of the twin twelve.
OWN = {
    "energies.constrain": lambda e: eqx.tree_equal(energies.constrain(e), e),
    "energies.describe": lambda e: energies.describe(e) == {"n_spins": N},
    "energies.parameter_copies": lambda e: _figures(energies.parameter_copies(e)) == [1, 1],
    "energies.parameter_degrees": lambda e: _figures(energies.parameter_degrees(e)) == [3, 1],
    "energies.parameter_terms": lambda e: np.allclose(
        _figures(energies.parameter_terms(e)), np.sum((1 + 0.1 * np.arange(N)) ** 2), rtol=0.3
    ),
    "energies.squared_norm": lambda e: np.isclose(energies.squared_norm(e), 1.01),
    "search.fingerprint": lambda e: np.array_equal(
        search.fingerprint(FUNCTIONAL, e, BETA), search.fingerprint(FUNCTIONAL, e, BETA)
    ),
    "storage.save_energy": lambda e: eqx.tree_equal(_saved_and_loaded(e), e),
}
LEARNING = {
    "experts.fit_experts": lambda e: tg.fit_experts(
        e, DATA, objective=OBJECTIVE, key=KEY, n_experts=2, n_starts=1, n_rounds=2
    ),
    "learning.choose_l2": lambda e: learning.choose_l2(e, DATA, key=KEY, n_folds=2),
    "learning.decimate": lambda e: learning.decimate(
        OBJECTIVE, e, DATA[:100], DATA[100:], n_models=2, key=KEY
    ),
    "learning.fit": lambda e: tg.fit(OBJECTIVE, e, DATA, key=KEY),
    "learning.grow": lambda e: learning.grow(
        OBJECTIVE, e, DATA[:100], DATA[100:], n_models=2, key=KEY
    ),
    "learning.l1_path": lambda e: learning.l1_path(
        OBJECTIVE, e, DATA[:100], DATA[100:], strengths=[0.01, 0.1], key=KEY
    ),
}
# `energies.nonlinear_fourth_cumulant` has no rule for lists of terms, no determinant is known for
# terms of three spins, and a quadratic model has none: the errors say so.
REFUSED = {
    "energies.nonlinear_fourth_cumulant",
    "exact.planar_log_partition",
    "interop.to_bernoulli_rbm",
    "interop.to_bits",
    "interop.to_bqm",
    "interop.to_networkx",
    "interop.to_qubo",
}


def _figures(tree):
    return [float(x) for x in jax.tree.leaves(tree)]


ASKED_FOR = {"functional", "energy", "full", "experts", "mixture"}


def _public() -> set[str]:
    """All public functions with an argument of such a name."""
    names = set()
    for room in filter(inspect.ismodule, vars(_api).values()):
        for name, value in vars(room).items():
            own = getattr(value, "__module__", "").startswith(room.__name__)
            if name.startswith("_") or not own or inspect.isclass(value) or not callable(value):
                continue
            if room.__name__.startswith("thermogen.") and ASKED_FOR & set(
                inspect.signature(value).parameters
            ):
                names.add(f"{room.__name__.removeprefix('thermogen.')}.{name}")
    return names


def test_every_public_function_has_a_case():
    assert _public() == {*QUICK, *SLOW, *OWN, *LEARNING, *REFUSED}


def _assert_alike(case):
    found, expected = case(CHAIN), case(TWIN)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if isinstance(a, str):
            assert a == b
        else:
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", QUICK)
def test_the_chain_is_its_twin(name):
    _assert_alike(QUICK[name])


@pytest.mark.further
@pytest.mark.parametrize("name", SLOW)
def test_the_chain_is_its_twin_where_it_takes_long(name):
    _assert_alike(SLOW[name])


@pytest.mark.parametrize("name", OWN)
def test_what_reads_parameters(name):
    assert OWN[name](CHAIN)


@pytest.mark.further
@pytest.mark.parametrize("name", LEARNING)
def test_what_learns_takes_the_chain(name):
    learned = jax.tree.leaves(LEARNING[name](CHAIN))
    assert all(np.all(np.isfinite(x)) for x in learned if eqx.is_inexact_array(x))


@pytest.mark.further
def test_own_objective_learns_the_chain():
    learned = tg.fit(OBJECTIVE, CHAIN, DATA, key=KEY)
    assert learned.result == tg.RESULTS.converged
    np.testing.assert_allclose(_figures(learned.energy), [0.4, 0.04], atol=0.1)


@pytest.mark.further
def test_library_of_the_chain_is_saved_and_loaded(tmp_path):
    library = _library(CHAIN)
    storage.save_library(tmp_path / "library.npz", library)
    assert eqx.tree_equal(
        jax.tree.map(np.asarray, storage.load_library(tmp_path / "library.npz")),
        jax.tree.map(np.asarray, library),
    )


@pytest.mark.parametrize(
    "functional", [tg.TAP(), pytest.param(tg.Bethe(), marks=pytest.mark.further)], ids=str
)
def test_functionals_take_the_terms(functional):
    np.testing.assert_allclose(
        functional(CHAIN, 0.5, M), functional(TWIN, 0.5, M), rtol=1e-12, atol=0
    )


def test_a_mixture_of_chains_is_saved_and_loaded():
    mixture = _mixture(CHAIN)
    assert eqx.tree_equal(_saved_and_loaded(mixture), mixture)


@pytest.mark.further
def test_clusters_take_the_terms():
    pair = jnp.asarray(CONFIGURATIONS[[5, 44]])
    moved = [sampling.Houdayer().step(e, BETA, pair, KEY)[0] for e in (CHAIN, TWIN)]
    np.testing.assert_array_equal(*moved)


class Ring(tg.AbstractMultilinear):
    """`E = -J sum_k s_k s_{k+1}`, and its terms."""

    n_spins: int = eqx.field(static=True)
    coupling: jax.Array

    def __call__(self, spins):
        return -self.coupling * jnp.sum(spins * jnp.roll(spins, -1))


@energies.terms.register
def _(energy: Ring):
    sites = np.arange(energy.n_spins)
    pairs = np.stack([sites, np.roll(sites, -1)], axis=1)
    return tg.Interactions(energy.n_spins, [pairs], [jnp.full(len(pairs), energy.coupling)])


@pytest.mark.further
def test_pairs_of_a_ring_are_couplings_and_bonds():
    ring = Ring(N, jnp.asarray(0.7))
    couplings = 0.7 * (np.roll(np.eye(N), 1, axis=0) + np.roll(np.eye(N), -1, axis=0))
    np.testing.assert_array_equal(coupling_matrix(ring), couplings)
    bonds = interop.to_bqm(ring).quadratic
    assert {tuple(sorted(pair)): -b for pair, b in bonds.items()} == {
        (k, k + 1): 0.7 for k in range(N - 1)
    } | {(0, N - 1): 0.7}
    _, info = sampling.SwendsenWang().step(ring, 50.0, jnp.ones(N), KEY)
    assert (info.n_clusters, info.largest) == (1, N)
    with pytest.raises(TypeError, match=r"SwendsenWang needs .* 2 spins, got Chain with orders"):
        sampling.SwendsenWang().step(CHAIN, BETA, jnp.ones(N), KEY)
    with pytest.raises(TypeError, match=r"AdaptiveTAP needs .* 2 spins, got Chain with orders"):
        tg.AdaptiveTAP()(CHAIN, BETA, M)


@pytest.mark.further
def test_a_class_without_rules_takes_the_general_road_or_says_what_to_register():
    """Chains move spin by spin and the table is evaluated, with the same numbers."""
    alone = Alone(N, CHAIN.coupling, CHAIN.field)
    np.testing.assert_allclose(exact.energies(alone), exact.energies(TWIN), atol=1e-12)
    swept = [sampling.sweep(sampling.HeatBathRule(), e, BETA, UP, KEY) for e in (alone, CHAIN)]
    assert all(set(np.unique(spins)) <= {-1.0, 1.0} for spins, _ in swept)
    for call in (lambda: tg.Bethe()(alone, 1.0, M), lambda: tg.TAP()(alone, 1.0, M)):
        with pytest.raises(TypeError, match=r"of Alone|got Alone.*energies\.terms\.register"):
            call()
    with pytest.raises(TypeError, match=r"nonlinear fourth cumulant of Chain"):
        energies.nonlinear_fourth_cumulant(CHAIN, M)
    with pytest.raises(ValueError, match=r"energy is a Alone.*describe\.register and rebuild"):
        _saved_and_loaded(alone)


def test_files_know_a_class_by_its_name():
    class Pairwise(tg.AbstractMultilinear):
        """Another class of a known name."""

    with pytest.raises(ValueError, match="a class of the name Pairwise is registered by"):
        energies.rebuild.register(Pairwise)


def test_rules_that_do_not_give_an_energy_back_are_told(tmp_path):
    class Swapped(Chain):
        """Its rule takes the two numbers in the wrong order."""

    energies.describe.register(Swapped, lambda e: {"n_spins": e.n_spins})
    energies.rebuild.register(Swapped)(
        lambda structure, take: Swapped(structure["n_spins"], field=take(), coupling=take())
    )
    with pytest.raises(ValueError, match="describe and rebuild of Swapped do not give it back"):
        storage.save_energy(tmp_path / "e.eqx", Swapped(N, jnp.asarray(1.0), jnp.asarray(2.0)))
