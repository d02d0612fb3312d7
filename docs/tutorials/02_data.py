# %% [markdown]
# # Your own data
#
# A hospital has measured 30 properties of 569 tumours, and some measurements are missing. A model learns from them without being told which tumours are malignant. Does its landscape know?
#
# ## A table in a file
#
# Here is such a table (Wisconsin diagnostic data, which come with scikit-learn; one cell in twenty is emptied for this page). Yours takes its place.

# %%
import csv

import jax
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer

import thermogen as tg

source = load_breast_cancer()
missing = np.random.default_rng(0).random(source.data.shape) < 0.05
cells = np.where(missing, "", source.data.astype(str))
with open("tumours.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow([*source.feature_names, "diagnosis"])
    table.writerows(np.column_stack([cells, source.target_names[source.target]]))

# %% [markdown]
# ## From a table to spins
#
# `read` finds out how the file is written. Numbers become spins by a threshold, here the mean of each column; a gap becomes 0, the spin of which nothing is known. `labels` names a column
# that is kept apart, and not learned.

# %%
data = tg.datasets.read("tumours.csv", labels="diagnosis", threshold="mean")
print(data.spins.shape, data.classes, data.names[:3])
print(f"{np.mean(data.spins == 0):.1%} of the cells are missing")

# %% [markdown]
# ## Learn, gaps included
#
# Gaps are summed over, not filled in. The model is an Ising model: a field for each property and a coupling for each pair.

# %%
start = tg.Pairwise(np.zeros((30, 30)), np.zeros(30))
energy = tg.fit(tg.Pseudolikelihood(), start, data.spins, key=jax.random.key(0)).energy
energy

# %% [markdown]
# ## Its bound states

# %%
states = tg.find_bound_states(energy, 1.0, key=jax.random.key(1), n_starts=64)
states

# %% [markdown]
# ## Which tumours belong to which state?
#
# Rows with gaps are completed first: `recall` holds what is known and returns the most probable rest. `attribute` then tells to which state a row belongs.

# %%
keys = jax.random.split(jax.random.key(2), len(data.spins))
recall = jax.vmap(lambda row, key: tg.recall(energy, 1.0, row, key=key, n_chains=8, n_sweeps=50))
whole = recall(data.spins, keys).configurations[:, 0]
state, _ = tg.kinetics.attribute(energy, states, whole)

counts = np.array([np.bincount(data.labels[state == k], minlength=2) for k in range(len(states))])
right = counts.max(axis=1).sum() / counts.sum()
print(f"{right:.1%} of the tumours are in a state whose majority has their diagnosis")

# %%
figure, (left, right_side) = plt.subplots(1, 2, figsize=(8, 4.5), width_ratios=[1, 1.3])
for k, diagnosis in enumerate(data.classes):
    bottom = counts[:, :k].sum(axis=1)
    left.bar([f"state {a}" for a in range(len(states))], counts[:, k], 0.6, bottom, label=diagnosis)
left.set(title="Tumours in each state", ylabel="tumours")
left.legend(loc="upper right")
right_side.imshow(states.magnetizations.T, vmin=-1, vmax=1, aspect="auto")
right_side.set_yticks(range(30), data.names, fontsize=6)
right_side.set_xticks(range(len(states)))
right_side.set(title="Mean of each property", xlabel="state")
plt.show()

# %%
assert len(states) == 2 and right > 0.85

# %% [markdown]
# ## What it means
#
# Nobody told the model what malignant is. Its landscape has two valleys all the same, and they are nearly the two diagnoses: large values together, or small values together, and little
# between. A chain that starts in one valley stays there for as many sweeps as the table says. The tumours on the wrong side have, in most properties, the values of that side.
#
# ## Next
#
# - A table of your own: `tg.datasets.read("table.csv")`. [Data](../data.md) lists the formats, words and gaps that it understands; [Missing entries](../missing.md) says what is done with gaps.
# - All of this, with a report, is one command: `thermogen study tumours.csv --labels diagnosis --threshold-grey mean`. See [The command line](../command_line.md).
# - [Phase diagrams](03_phase_diagrams.md) asks for many models at once.
