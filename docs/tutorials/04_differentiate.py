# %% [markdown]
# # Differentiate through a free energy
#
# A spin glass in a field is cooled. How fast does its magnetization answer? Which couplings hold its free energy down? Which fields would give it the magnetizations that we want? All three answers are derivatives of a
# solution, and thermogen lets JAX take them.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import thermogen as tg

n = 14
upper = jnp.triu(jax.random.normal(jax.random.key(0), (n, n)), 1) / n**0.5
energy = tg.Pairwise(upper + upper.T, fields=jnp.linspace(-1, 1, n))

# %% [markdown]
# ## How does the magnetization answer to beta?
#
# `solve` goes down to a minimum of the free energy, here that of TAP. Its result is a function of the energy and of beta, by the implicit function theorem: no step of the descent is differentiated.
# With 14 spins the truth can be enumerated, and we draw it beside.


# %%
def alignment(energy, beta):  # of the spins with their fields
    solution = tg.solve(tg.TAP(), energy, beta, jnp.sign(energy.fields))
    return jnp.mean(solution.value * jnp.sign(energy.fields))


def exact_alignment(beta):
    return jnp.mean(tg.exact.magnetizations(energy, beta) * jnp.sign(energy.fields))


betas = jnp.linspace(0.05, 1.0, 24)
values, slopes = jax.jit(jax.vmap(jax.value_and_grad(alignment, 1), (None, 0)))(energy, betas)
truth = jax.vmap(exact_alignment)(betas)

plt.figure(figsize=(5, 3))
plt.plot(betas, truth, color="0.6", linewidth=4, label="exact")
plt.plot(betas, values, label="TAP")
for beta, value, slope in zip(betas[2::7], values[2::7], slopes[2::7]):
    plt.plot(beta + np.array([-0.1, 0.1]), value + slope * np.array([-0.1, 0.1]), "C1")
plt.plot([], [], "C1", label="its derivative")
plt.gca().set(xlabel="beta", ylabel="alignment with the fields")
plt.legend()
plt.show()

# %% [markdown]
# The short lines are the derivatives, and they touch the curve. TAP is an expansion for weak coupling: it follows the truth down to some temperature, and then leaves it.
#
# ## Which couplings count?
#
# One backward pass gives the derivative of the free energy by every coupling and field at once. By a field it is minus the magnetization, by a coupling minus the correlation of its two spins: the
# gradient of one number holds all means of the model.


# %%
def free_energy(energy):
    return tg.solve(tg.TAP(), energy, 0.5, jnp.sign(energy.fields)).stats["free_energy"]


gradient = jax.jit(jax.grad(free_energy))(energy)
means, products = tg.exact.magnetizations(energy, 0.5), tg.exact.correlations(energy, 0.5)
i, j = np.triu_indices(n, 1)
# The coupling of i and j stands in the matrix twice, and the gradient is shared by both places.
error = np.abs(-2 * gradient.couplings[i, j] - products[i, j])
print(f"means off by {np.abs(gradient.fields + means).max():.3f} at most")
print(f"correlations off by {error.max():.3f} at most")

plt.figure(figsize=(3.6, 3.3))
plt.plot([-0.5, 0.6], [-0.5, 0.6], color="0.8", linewidth=1)
plt.plot(products[i, j], -2 * gradient.couplings[i, j], ".", label="pairs")
plt.plot(means, -gradient.fields, ".", label="spins")
plt.gca().set(xlabel="exact mean", ylabel="minus the derivative of G")
plt.legend()
plt.show()

# %% [markdown]
# ## Which fields give the magnetizations that we want?
#
# Ask for m = 0.3 on one half of the spins and -0.3 on the other. The derivative of all m by all fields is a matrix, so that Newton's method needs three lines.

# %%
target = jnp.where(jnp.arange(n) % 2 == 0, 0.3, -0.3)


@jax.jit
def magnetizations(fields):
    return tg.solve(tg.TAP(), tg.Pairwise(energy.couplings, fields), 0.5, target).value


fields = energy.fields
for _ in range(5):
    response = jax.jacobian(magnetizations)(fields)
    fields -= jnp.linalg.solve(response, magnetizations(fields) - target)
    print(f"largest miss {jnp.abs(magnetizations(fields) - target).max():.1e}")

# %%
reached = tg.exact.magnetizations(tg.Pairwise(energy.couplings, fields), 0.5)
plt.figure(figsize=(5, 2.6))
plt.bar(range(n), target, color="0.85", label="target")
plt.plot(range(n), means, "o", label="exact, fields of before")
plt.plot(range(n), reached, "o", label="exact, new fields")
plt.gca().set(xlabel="spin", ylabel="m")
plt.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
plt.show()

# %%
assert np.abs(magnetizations(fields) - target).max() < 1e-5
assert np.abs(reached - target).max() < 0.05

# %% [markdown]
# ## What it means
#
# TAP's own magnetizations are met to rounding. The true ones are off by what TAP is off by, which the last figure shows: a design is as good as the free energy in which it is made. `validity` says how far to trust one without enumeration.
#
# ## Next
#
# - Replace `tg.TAP()` by `tg.Bethe()`, `tg.Plefka(4)` or `tg.AdaptiveTAP()`. Which one follows the truth longest? [Which free energy when](../functionals.md) has measured it.
# - [Design a landscape](05_design.md) differentiates not one state but all of them.
