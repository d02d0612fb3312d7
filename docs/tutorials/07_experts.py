# %% [markdown]
# # Experts and recall
#
# A model learns to add from examples of a + b = c, with errors in them. Asked for c, does it answer right? One model with couplings of two spins, one with couplings of three, and a
# mixture of three *experts* with couplings of two are compared.
#
# ## Data
#
# All sums of two numbers of three bits are configurations of ten spins: three for a, three for b, four for c. We draw 1000 of them, and flip 3 % of the spins.

# %%
import itertools

import jax
import matplotlib.pyplot as plt
import numpy as np

import thermogen as tg

sums = tg.datasets.adder(3)
random = np.random.default_rng(0)
data = sums[random.choice(64, 1000)]
data = np.where(random.random(data.shape) < 0.03, -data, data)
training, held_out = tg.datasets.split(data)

# %% [markdown]
# ## One model
#
# `Interactions` has couplings on any sets of spins. With ten spins the likelihood is exact.


# %%
def up_to(degree):
    """An energy with a term for every set of at most so many spins, all of them zero."""
    sizes = range(1, degree + 1)
    sets = [s for size in sizes for s in itertools.combinations(range(10), size)]
    return tg.Interactions.from_terms(10, dict.fromkeys(sets, 0.0))


exact, ridge, key = tg.ExactLikelihood(), tg.learning.L2(1e-3), jax.random.key(0)
pairs = tg.fit(exact, up_to(2), training, penalty=ridge, key=key).energy
triples = tg.fit(exact, up_to(3), training, penalty=ridge, key=key).energy

# %% [markdown]
# ## Three experts
#
# A mixture of experts is p = Σ w p_k: each sample comes from one of them. `fit_experts` shares the samples out, learns one model for each share, and repeats that until the shares stand still. The result is an energy like any other.

# %%
experts = tg.fit_experts(
    up_to(2), training, objective=exact, penalty=ridge, key=key, n_experts=3, n_starts=3
)
experts.weights

# %% [markdown]
# ## Recall
#
# The cue holds a and b; c is 0, unknown. `recall` returns answers, the most probable first, with their probabilities. One program answers all 64 questions.

# %%
cues = np.where(np.arange(10) < 6, sums, 0)


@jax.jit
def answers(energy):
    exactly = tg.retrieval.Exact()
    return jax.vmap(lambda cue: tg.recall(energy, 1.0, cue, key=key, method=exactly))(cues)


models = {"pairs": pairs, "triples": triples, "experts": experts}
sure = {}  # the probability that each model gives to the right sum
for name, energy in models.items():
    found = answers(energy)
    right = np.all(found.configurations == sums[:, None], axis=2)
    sure[name] = np.sum(found.probabilities * right, axis=1)
    nats = -tg.learning.log_likelihood(energy, held_out, key=key).value
    size = sum(x.size for x in jax.tree.leaves(energy))
    print(
        f"{name:8} {size:4} numbers, {nats:.2f} nats a held-out sample, "
        f"{np.mean(right[:, 0]):.0%} of the sums right"
    )

# %%
figure, panels = plt.subplots(1, 3, figsize=(8, 2.9), sharey=True)
for panel, (name, p) in zip(panels, sure.items()):
    image = panel.imshow(p.reshape(8, 8), vmin=0, vmax=1, cmap="viridis", origin="lower")
    panel.set(title=name, xlabel="a")
panels[0].set_ylabel("b")
figure.colorbar(image, label="probability of a + b")
plt.show()

# %%
assert sure["experts"].mean() > sure["triples"].mean() > sure["pairs"].mean()

# %% [markdown]
# ## What it means
#
# A sum is a rule of parity: whether a bit of c is set depends on three spins at once, which couplings of two cannot say. Couplings of three say it, but their number grows as n³. Experts divide the labour: within the share of one of them some
# carry is known, and pairs suffice. With fewer parameters than the one large model they are surer of the right answer.
#
# This is not always so. Of data that are one connected family, such as digits, one model learns more from the same samples: [Experts and recall](../experts.md#when-experts-help) has measured where experts win and where they lose.
#
# ## Next
#
# - Ask backwards: hold c and b, and let a be unknown. One line changes: `np.arange(10) >= 3`.
# - [From a laptop to a cluster](08_cluster.md).
