# %% [markdown]
# # Write your own
#
# An energy that nobody has built in: a ring of spins whose couplings fall with distance by a power law, J / rᵃ. From samples, what are J and a? The answer takes an own energy, and this page adds an own free energy, an own sampler and an own objective, a
# few lines each. Every function of thermogen takes them as if they were its own.
#
# ## An energy
#
# Say how many spins there are, and what one configuration costs. Arrays are parameters: they are learned, and have derivatives.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import thermogen as tg
from thermogen import energies, learning, sampling


class PowerLaw(tg.AbstractMultilinear):
    n_spins: int = eqx.field(static=True)
    strength: jax.Array
    exponent: jax.Array

    def couplings(self):  # by distance, 1 to n/2 - 1
        return self.strength * jnp.arange(1, self.n_spins // 2) ** -self.exponent

    def __call__(self, spins):
        distances = jnp.arange(1, self.n_spins // 2)
        bonds = jax.vmap(lambda r: jnp.sum(spins * jnp.roll(spins, r)))(distances)
        return -jnp.sum(self.couplings() * bonds)


truth = PowerLaw(14, jnp.asarray(0.4), jnp.asarray(1.5))
print(f"ln Z = {tg.exact.log_partition(truth, 1.0):.4f}")
truth

# %% [markdown]
# One function is worth registering: `terms`, which says which spins interact. From it follow sparse sweeps, graphs, files, and the moments that expansions need.


# %%
@energies.terms.register
def _(energy: PowerLaw):
    n, sites = energy.n_spins, np.arange(energy.n_spins)
    pairs = [np.stack([sites, (sites + r) % n], axis=1) for r in range(1, n // 2)]
    return tg.Interactions(n, [np.concatenate(pairs)], [jnp.repeat(energy.couplings(), n)])


spins = tg.spins_from_index(1234, 14)
print(f"{truth(spins):.4f} by the call, {energies.terms(truth)(spins):.4f} by the terms")

# %% [markdown]
# ## A free energy
#
# A functional says what the spins' entropy does not: the mean energy, and corrections of it. This one takes the first correction, the variance of the energy beyond its linear part.


# %%
class SecondOrder(tg.AbstractFunctional):
    def excess(self, energy, beta, m):
        mean, variance = energies.product_mean(energy, m), energies.nonlinear_variance(energy, m)
        return mean - beta / 2 * variance


betas = np.linspace(0.1, 0.8, 8)
free = jnp.zeros(14)  # above the transition all magnetizations are zero
exact = np.array([tg.exact.free_energy(truth, beta) for beta in betas])
errors = {
    name: np.abs(np.array([functional(truth, beta, free) for beta in betas]) - exact) / 14
    for name, functional in {"naive": tg.NaiveMeanField(), "own": SecondOrder()}.items()
}
print({name: f"{error[-1]:.3f} a spin at beta = 0.8" for name, error in errors.items()})

# %% [markdown]
# ## A sampler
#
# Kawasaki's dynamics exchanges neighbours, and so conserves the magnetization: particles that hop. A kernel says what a sweep does to one chain.


# %%
class Kawasaki(sampling.AbstractKernel):
    def step(self, energy, beta, state, key, clamp=None):
        def exchange(spins, key):
            site_key, chance_key = jax.random.split(key)
            pair = (jax.random.randint(site_key, (), 0, spins.size) + jnp.arange(2)) % spins.size
            after = spins.at[pair].set(spins[pair[::-1]])
            rise = energy(after) - energy(spins)
            return jnp.where(jax.random.uniform(chance_key) < jnp.exp(-beta * rise), after, spins)

        keys = jax.random.split(key, state.size)
        after = jax.lax.scan(lambda s, k: (exchange(s, k), None), state, keys)[0]
        return after, sampling.SweepInfo(jnp.sum(after != state))


half = jnp.tile(jnp.array([1.0, -1.0]), (64, 7))  # half of the spins up, in every chain
seen = tg.sample(
    Kawasaki(),
    truth,
    1.0,
    key=jax.random.key(0),
    init=half,
    n_chains=64,
    n_sweeps=1000,
    burn_in=100,
    observers={"correlations": sampling.Correlations()},
)["correlations"]

# The truth: all configurations with half of the spins up.
every = tg.enumerate_spins(14)
p = tg.exact.probabilities(truth, 1.0) * (every.sum(axis=1) == 0)
conserved = np.einsum("c,ci,cj->ij", p / p.sum(), every, every)
print(f"correlations off by {np.abs(seen - conserved).max():.3f} at most")

# %% [markdown]
# ## An objective
#
# Ratio matching (Hyvärinen 2007) asks that no single flip of a sample be likely. A loss of the energy, given samples, is all that `fit` needs.


# %%
class RatioMatching(learning.AbstractObjective):
    @property
    def defaults(self):  # minimiser, most steps, tolerance
        return learning.Defaults(optax.lbfgs(), 200, 1e-5, conditional=True)

    def init(self, energy, samples, key):
        return None  # no state is carried from step to step

    def loss(self, energy, batch, state, key):
        rises = jax.vmap(lambda s: tg.flip_gaps(energy, s))(batch.spins)
        return batch.mean(jnp.sum(jax.nn.sigmoid(-rises) ** 2, axis=1)), state


data = tg.exact.sample(truth, 1.0, key=jax.random.key(1), n_samples=4000)
start = PowerLaw(14, jnp.asarray(0.1), jnp.asarray(1.0))
learned = {}
for objective in (RatioMatching(), tg.Pseudolikelihood(l2=0.0)):
    energy = tg.fit(objective, start, data, key=jax.random.key(2)).energy
    learned[type(objective).__name__] = energy
    print(f"{type(objective).__name__:16} J = {energy.strength:.3f}, a = {energy.exponent:.3f}")

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 2.8))
for name, error in errors.items():
    left.semilogy(betas, error, "o-", label=name)
left.set(title="Error of the free energy per spin", xlabel="beta")
middle.plot(range(14), conserved[0], "o", label="enumerated")
middle.plot(range(14), seen[0], label="sampled")
middle.set(title="Kawasaki, half of the spins up", xlabel="distance", ylabel="correlation")
distances = np.arange(1, 7)
right.loglog(distances, truth.couplings(), "o", label="truth")
for name, energy in learned.items():
    right.loglog(distances, energy.couplings(), label=name)
right.set(title="Couplings", xlabel="distance", ylabel="coupling")
right.minorticks_off()
right.set_xticks([1, 2, 4], ["1", "2", "4"])
right.set_yticks([0.03, 0.1, 0.3], ["0.03", "0.1", "0.3"])
for panel in (left, middle, right):
    panel.legend()
plt.show()

# %%
assert abs(learned["RatioMatching"].exponent - 1.5) < 0.15
assert np.abs(seen - conserved).max() < 0.05
assert np.all(errors["own"] < errors["naive"])

# %% [markdown]
# ## What it means
#
# Two numbers were learned from 4000 samples, by an objective, of an energy, that thermogen had never seen. The same objects go everywhere: `tg.find_bound_states(truth, 2.0, dynamics=Kawasaki(), key=...)` asks what traps the particles,
# `jax.vmap` maps over exponents, and `tg.run` resumes.
#
# ## Next
#
# - [Classes of your own](../own.md): files, rules for single spins, faster sweeps, what else can be registered.
# - [Design](../design.md) says why it is built so.
