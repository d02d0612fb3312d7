# %% [markdown]
# # From a laptop to a cluster
#
# A spin glass of 96 spins has many minima, and a search that begins on a laptop wants to go on elsewhere. What has to change in the program? Nothing but one argument. This page interrupts a search and resumes it, splits it into tasks and merges them, and
# spreads it over devices.

# %%
import tempfile

import jax
import matplotlib.pyplot as plt
import numpy as np

import thermogen as tg

jax.config.update("jax_num_cpu_devices", 2)  # the processor as two devices, to try a mesh

n = 96
upper = np.triu(np.random.default_rng(3).normal(size=(n, n)), 1) / n**0.5
glass = tg.Pairwise(upper + upper.T, np.zeros(n))


def search(key, n_starts=128, **where):
    return tg.find_minima(tg.NaiveMeanField(), glass, 3.0, key=key, n_starts=n_starts, **where)


# %% [markdown]
# ## Interrupted, and resumed
#
# With `checkpoint=`, a folder, a run stores its state now and then. The same call made again goes on from there, and ends at the same numbers, to the last bit, as if nothing had happened.

# %%
folder = tempfile.mkdtemp()


def pull_the_plug(library, n_done):
    raise KeyboardInterrupt


try:
    search(jax.random.key(0), checkpoint=folder, callback=pull_the_plug)
except KeyboardInterrupt:
    print("interrupted")
resumed = search(jax.random.key(0), checkpoint=folder)
whole = search(jax.random.key(0))
print("equal to the last bit:", np.array_equal(resumed.magnetizations, whole.magnetizations))

# %% [markdown]
# ## Many tasks
#
# Tasks with keys of their own need no network between them. `merge` unites what they have found: each state once, hits added up, so that the coverage (the share of quenches that end in a state which is held) speaks of all tasks together.

# %%
tasks = [search(jax.random.fold_in(jax.random.key(1), k)) for k in range(8)]
merged = [tg.merge(tasks[: k + 1]) for k in range(8)]
merged[-1]

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.6))
left.plot(range(1, 9), [len(library) for library in merged], "o-")
left.set(xlabel="tasks", ylabel="minima held", ylim=0)
right.plot(range(1, 9), [library.coverage() for library in merged], "o-")
right.set(xlabel="tasks", ylabel="coverage", ylim=(0, 1.02))
plt.show()

# %% [markdown]
# On a cluster the queue starts the tasks. The command line reads their number from SLURM, so that a script of three lines does it, and a second one merges:
#
# ```bash
# #!/bin/bash
# #SBATCH --array=0-7
# #SBATCH --cpus-per-task=4
# thermogen study samples.csv --starts 8192 --out report --resume
# ```
#
# ```bash
# thermogen merge report
# ```
#
# ## Many devices
#
# `sharding=`, a mesh of devices, spreads the quenches of one search over GPUs, or over the hosts of one job. The key decides the result, not the number of devices.

# %%
mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("lanes",))
spread = search(jax.random.key(0), sharding=mesh)
print(len(jax.devices()), "devices,", len(spread), "minima; without a mesh", len(whole))

# %%
assert np.array_equal(resumed.magnetizations, whole.magnetizations)
assert np.allclose(spread.free_energies, whole.free_energies)
assert merged[-1].coverage() > merged[0].coverage()

# %% [markdown]
# ## What it means
#
# The same three arguments, `checkpoint=`, `sharding=` and a key, are taken by all that runs long: searches, certificates, samplers, estimates of ln Z, fits. Results carry where they come from, so that `merge` refuses those of
# another model, and counts a task that comes twice once.
#
# ## Next
#
# - [Clusters](../clusters.md) has whole scripts for SLURM, and says what can be merged. [Long runs](../long_runs.md) says what a kill may cost.
# - [Many devices](../devices.md): jobs of your own, and models that one device cannot hold.
# - [Write your own](09_own.md) energy, functional, sampler and objective.
