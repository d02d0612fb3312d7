# %% [markdown]
# # Five-minute start
#
# A model is learned from noisy pictures of three letters. Which states does it have: the three letters, fewer, or others?
#
# On the way you meet what thermogen is made of: data, an energy, its free energy, the minima of that, and the dynamics, which judges them.
#
# ## Data
#
# A sample is a row of spins, +1 or -1. Here these are the 20 pixels of a letter, one in twenty of them with the wrong sign.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import thermogen as tg

letters = """
#### #... ####
.#.. #... #..#
.#.. #... #..#
.#.. #... #..#
.#.. #### ####
"""
lines = [line.split() for line in letters.split("\n") if line]
patterns = np.array([[1 if c == "#" else -1 for line in lines for c in line[k]] for k in range(3)])

random = np.random.default_rng(0)
data = patterns[random.choice(3, size=600, p=[0.5, 0.3, 0.2])]
data = np.where(random.random(data.shape) < 0.05, -data, data)


# %%
def show(pictures, titles):
    _, panels = plt.subplots(1, len(pictures), figsize=(1.1 * len(pictures), 1.7))
    for panel, picture, title in zip(np.atleast_1d(panels), pictures, titles):
        panel.imshow(np.reshape(picture, (5, 4)), vmin=-1, vmax=1)
        panel.set_title(title)
        panel.axis("off")
    plt.show()


show(data[:7], [""] * 7)

# %% [markdown]
# ## Learn an energy
#
# An energy gives each configuration s a number E(s), and with it the probability exp(-beta E(s)) / Z. `Pairwise` is the Ising model: a coupling for each pair of
# spins, a field for each spin. `fit` finds those under which the data are likely. The arguments are always in this order: method, energy, data or point; random numbers come from `key`.

# %%
start = tg.Pairwise(couplings=np.zeros((20, 20)), fields=np.zeros(20))
fitted = tg.fit(tg.Pseudolikelihood(), start, data, key=jax.random.key(0))
energy = fitted.energy
print(tg.RESULTS[fitted.result])

# %% [markdown]
# ## Minima of the free energy
#
# Which pictures does the model hold? The free energy of naive mean field, G(m), is a function of the 20 mean spins m. Each of its minima is a candidate for a state. `find_minima`
# goes down from many starts, proves each minimum in double precision, and says how many of the starts end in minima that it holds (coverage).

# %%
library = tg.find_minima(tg.NaiveMeanField(), energy, 1.0, key=jax.random.key(1))
library

# %%
show(library.magnetizations, [f"G = {g:.2f}" for g in library.free_energies])

# %% [markdown]
# Three minima, and each is one of the letters. But mean field is an approximation, and it errs towards too many states.
#
# ## Bound states
#
# A state is *bound* if the dynamics stays in it. `find_bound_states` starts trajectories of the heat bath at every candidate: a spin at random is drawn anew given all others, and
# as many draws as there are spins are a sweep. It sees which candidates pass to others within 20 sweeps, and measures the weight of what is left: its share of the probability.

# %%
states = tg.find_bound_states(energy, 1.0, key=jax.random.key(2), starts=data)
states

# %%
print(states.verdict)

# %%
titles = [f"{w:.0%}\n{t:.0f} sweeps" for w, t in zip(states.weights, states.escape_times)]
show(states.magnetizations, titles)

# %%
assert len(library) == 3 and len(states) == 2

# %% [markdown]
# ## What it means
#
# The T is a state of its own. L and O are one: they share most of their pixels, and a chain goes from one to the other within 20 sweeps, so that their mean shows the pixels of both. Whoever samples
# this model by one chain sees T alone, or L and O alone, for as long as the escape times above say.
#
# ## Next
#
# - Raise the noise from 0.05 to 0.1 and run all again. How many bound states are left?
# - Write `tg.TAP()` in place of `tg.NaiveMeanField()`: it adds the next order to the free energy. Does it count as the dynamics does?
# - [Your own data](02_data.md) starts from a table in a file.
