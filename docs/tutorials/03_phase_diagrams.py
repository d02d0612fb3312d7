# %% [markdown]
# # Phase diagrams by vmap
#
# How many patterns does a Hopfield network hold, and up to which temperature? And how does the number of states of a spin glass grow as it cools? Such questions are asked of hundreds of random models at once. In thermogen a model is a
# pytree and a calculation a function, so that `jax.vmap` turns the calculation for one model into that for all of them.
#
# ## A Hopfield network: load and temperature
#
# One point of the diagram: draw patterns, start chains at the first, and see what is left of it after some time. With patterns masked to the wanted number, the load is a number like any other, and all points share one compiled program.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import thermogen as tg

n, most = 100, 30


def remembered(n_patterns, temperature, key):
    patterns = jax.random.rademacher(key, (most, n), float)
    kept = jnp.where(jnp.arange(most)[:, None] < n_patterns, patterns, 0)
    energy = tg.Pairwise(kept.T @ kept / n * (1 - jnp.eye(n)), jnp.zeros(n))
    seen = tg.sample(
        tg.Gibbs(),
        energy,
        1 / temperature,
        key=key,
        init=jnp.tile(patterns[0], (4, 1)),
        n_chains=4,
        n_sweeps=100,
        burn_in=100,
        observers={"m": tg.sampling.Mean()},
    )
    return jnp.mean(seen["m"] @ patterns[0]) / n


# %% [markdown]
# Three nested `vmap`s: over keys, temperatures, and loads.

# %%
n_patterns, temperatures = jnp.arange(1, 31, 3), jnp.linspace(0.05, 1.2, 12)
over_keys = jax.vmap(remembered, (None, None, 0))
over_temperatures = jax.vmap(over_keys, (None, 0, None))
diagram = jax.jit(jax.vmap(over_temperatures, (0, None, None)))
overlaps = diagram(n_patterns, temperatures, jax.random.split(jax.random.key(0), 4))
print(
    f"{overlaps.size} networks, mean overlap at the coldest and emptiest {overlaps[0, 0].mean():.3f}"
)

# %%
load = np.asarray(n_patterns) / n
plt.figure(figsize=(4.6, 3.2))
plt.pcolormesh(load, temperatures, overlaps.mean(axis=2).T, cmap="viridis", vmin=0, vmax=1)
plt.colorbar(label="overlap with the first pattern")
plt.plot([0, 0.138], [1, 0], "ow", markeredgecolor="k", clip_on=False)
plt.gca().set(xlabel="load, patterns per spin", ylabel="temperature", xlim=(0, load.max()))
plt.show()

# %%
cold, hot = overlaps[:, 0].mean(axis=1), overlaps[:, -1].mean(axis=1)
assert cold[0] > 0.99 and cold[-1] < 0.6 and hot[0] < 0.5

# %% [markdown]
# The white points are what theory says of infinitely many spins (Amit, Gutfreund and Sompolinsky 1985): retrieval ends at T = 1 for few patterns, and at a load of 0.138 at T = 0. A hundred spins blur the border, and 200 sweeps do not yet forget all that is to be forgotten.
#
# ## A spin glass: how many states?
#
# Two hundred Sherrington-Kirkpatrick models of 8 spins. For each we count the minima of naive mean field, by a search that is mapped over models and temperatures. A mapped library is padded, with a `mask`; a row stands for a state and, by `multiplicity`, for its mirror image.


# %%
def glass(key):
    upper = jnp.triu(jax.random.normal(key, (8, 8)), 1) / 8**0.5
    return tg.Pairwise(upper + upper.T, jnp.zeros(8))


def n_minima(beta, key):
    options = {"key": key, "n_starts": 32, "capacity": 16}
    library = tg.find_minima(tg.NaiveMeanField(), glass(key), beta, **options)
    return jnp.sum(library.mask * library.multiplicity)


betas, keys = jnp.linspace(0.5, 2.5, 5), jax.random.split(jax.random.key(1), 200)
minima = jax.jit(jax.vmap(jax.vmap(n_minima, (None, 0)), (0, None)))(betas, keys)

# %% [markdown]
# So small a model also tells the truth, here for the first sixty: the number of bound states is one plus the number of relaxation times of the dynamics above the threshold, here 20 sweeps, and these are eigenvalues of a matrix.


# %%
def n_bound(beta, key):
    return 1 + np.sum(tg.exact.relaxation_times(glass(key), beta, n_eigenvalues=16) > 20)


bound = np.array([[n_bound(beta, key) for key in keys[:60]] for beta in betas])

# %%
plt.figure(figsize=(4.6, 3))
for name, counts in {"minima of naive mean field": minima, "bound states": bound}.items():
    spread = np.std(counts, axis=1) / np.sqrt(counts.shape[1])
    plt.errorbar(betas, np.mean(counts, axis=1), spread, marker="o", capsize=2, label=name)
plt.gca().set(xlabel="beta", ylabel="mean number", ylim=0)
plt.legend()
plt.show()

# %%
assert np.all(minima.mean(axis=1) >= bound.mean(axis=1))

# %% [markdown]
# ## What it means
#
# The number of states grows as the glass cools, and mean field counts too many at every temperature: some of its minima are left within 20 sweeps. A minimum of a free energy is a candidate. With more spins, where no eigenvalue can be had, `tg.find_bound_states` asks the dynamics.
#
# ## Next
#
# - Count the minima of `tg.TAP()`. Does the next order of the expansion bring the count nearer, at every temperature?
# - [Differentiate through a free energy](04_differentiate.md).
