# %% [markdown]
# # Design a landscape
#
# Three patterns of 24 spins are to be bound states, and the first is to weigh twice as much as the second, the second twice as much as the third. Which couplings do that?
#
# ## The projection rule
#
# The classic rule that holds patterns which overlap is the projection on the space that they span (Personnaz, Guyon and Dreyfus 1985). It knows nothing of weights. A model that has no fields is even: each state comes with its mirror image, and a row below stands for both.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import thermogen as tg
from thermogen import landscape

naive, n = tg.NaiveMeanField(), 24
patterns = jax.random.rademacher(jax.random.key(4), (3, n), float)
wanted = np.array([4, 2, 1]) / 7
projection = patterns.T @ jnp.linalg.inv(patterns @ patterns.T) @ patterns
classic = 2.5 * projection * (1 - jnp.eye(n))


def model(couplings):
    return tg.Pairwise(couplings, jnp.zeros(n))


def judged(couplings):
    return tg.find_bound_states(
        model(couplings), 1.0, key=jax.random.key(0), starts=patterns, n_starts=32
    )


before = judged(classic)
before

# %% [markdown]
# The patterns are bound states, and all weigh about the same.
#
# ## A loss of the landscape
#
# A state of weight w has the free energy -ln w, up to a constant that all share. So the targets are known: around the mean free energy of the three states, which we leave as it is, so that the states stay deep.

# %%
library = tg.find_minima(
    naive, model(classic), 1.0, key=jax.random.key(1), starts=patterns, n_starts=1
)
library = library[np.abs(library.magnetizations @ patterns.T).argmax(axis=0)]  # by pattern
target = library.free_energies.mean() - (np.log(wanted) - np.log(wanted).mean())
print("free energies", library.free_energies.round(2), "wanted", target.round(2))

# %% [markdown]
# `follow` gives the free energies of these states as functions of the couplings, with derivatives.


# %%
def landscape_loss(couplings, library):
    states = landscape.follow(naive, model(couplings), 1.0, library)
    return jnp.sum((states.free_energies - target) ** 2), states.library()


# %% [markdown]
# ## Descend
#
# No search is needed any more: in each step the states are followed from where they were.

# %%
step = jax.jit(jax.value_and_grad(landscape_loss, has_aux=True))
optimizer = optax.adam(0.01)
couplings, state, losses = classic, optimizer.init(classic), []
for _ in range(100):
    (loss, library), slope = step(couplings, library)
    change, state = optimizer.update(slope, state)
    couplings = optax.apply_updates(couplings, change)
    losses.append(float(loss))
print(
    f"loss {losses[0]:.3f} -> {losses[-1]:.5f}, free energies {np.round(library.free_energies, 2)}"
)

# %% [markdown]
# ## The dynamics judges
#
# The loss was made of a mean-field free energy. Whether the patterns are bound states, and what they weigh, says the dynamics.

# %%
after = judged(couplings)
after


# %%
def weights(states):  # of the patterns, 0 where none of the states is near
    near = np.abs(patterns @ states.magnetizations.T) / n
    return np.where(near.max(axis=1) > 0.8, states.weights[near.argmax(axis=1)], 0)


figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.8))
left.semilogy(losses)
left.set(xlabel="step", ylabel="loss")
for k, (name, values) in enumerate(
    {"wanted": wanted, "classic": weights(before), "designed": weights(after)}.items()
):
    right.bar(np.arange(3) + 0.27 * (k - 1), values, 0.25, label=name)
right.set_xticks(range(3), ["first", "second", "third"])
right.set(ylabel="weight", xlabel="pattern")
right.legend()
plt.show()

# %%
assert np.all(np.diff(weights(after)) < 0) and weights(after).min() > 0.05

# %% [markdown]
# ## What it means
#
# States and their weights are functions of the parameters, so that they can be asked for. What was asked for is a mean-field weight, and the sampled ones differ somewhat from it; a longer design measures them, and corrects what it asks for by
# what they are off.
#
# ## Next
#
# - Ask for barriers and escape times too: [Derivatives](../derivatives.md#design-a-landscape-in-twenty-lines) does, and [Designed landscapes](../landscape.md#designed-landscapes) shows how exact that can be made.
# - A landscape that is learned from pictures: [An RBM on MNIST](06_rbm.md).
