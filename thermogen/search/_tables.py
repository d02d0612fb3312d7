"""Tables of states, a column a quantity: measured, joined, mirrored and looked up."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._batches import in_batches
from .._compile import compiled_quickly
from ..meanfield import Problem, lowest_curvature, scaled_hessian
from ._same import MERGE_TOLERANCE, added, distances, first_equals, groups_by_run

# States are measured in batches of at most this many.
_BATCH = 32

# By their names in `Library`; the fields that speak of all states come with them.
_Columns = dict[str, Any]


def measured(
    problem: Problem, m: Float[np.ndarray, "rows n"]
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Free energy, residual and lowest curvature of each row."""
    return in_batches(functools.partial(_measure, problem), m, _BATCH)


@compiled_quickly
def _measure(problem: Problem, m: Float[Array, "batch n"]):
    def single(row):
        theta = jnp.arctanh(row)
        taylor = problem.taylor(theta)
        residual = jnp.max(jnp.abs(taylor.gradient), initial=0.0)
        curvature = lowest_curvature(
            scaled_hessian(taylor, theta, problem.beta), theta, problem.beta
        )
        return problem.functional(problem.energy, problem.beta, row), residual, curvature

    return jax.vmap(single)(m)


def multiplicities(m: Float[np.ndarray, "K n"], symmetric: bool) -> Int[np.ndarray, " K"]:
    """2 for each state that differs from its mirror image, where that is a state as well."""
    return 1 + (symmetric & (np.abs(m).max(axis=1, initial=0) > MERGE_TOLERANCE))


def united(tables: list[_Columns], per_state: list[str]) -> _Columns:
    """All states of several tables, each once, lowest first; hits add up, as `Library.union` says.

    Args:
        tables: the columns of libraries on the host.
        per_state: names of the columns with one entry a state.
    """
    rows = {name: np.concatenate([table[name] for table in tables]) for name in per_state}
    source = np.repeat(np.arange(len(tables)), [len(table["hits"]) for table in tables])
    runs = groups_by_run([np.asarray(table["runs"]) for table in tables])
    unresolved = np.zeros(len(tables), int)
    np.maximum.at(unresolved, runs, [int(table["unresolved"]) for table in tables])
    fingerprints = np.stack([table["fingerprint"] for table in tables])
    known = np.argmax(np.any(fingerprints, axis=2), axis=0)
    return _merged(rows, source, runs) | {
        "overflow": np.asarray(np.any([table["overflow"] for table in tables])),
        "unresolved": np.asarray(unresolved.sum()),
        "runs": np.unique(np.concatenate([table["runs"] for table in tables]), axis=0),
        "fingerprint": fingerprints[known, np.arange(len(known))],
    }


def _merged(
    rows: _Columns, source: Int[np.ndarray, " rows"], runs: Int[np.ndarray, " libraries"]
) -> _Columns:
    """Equal rows made one, with the figures of the first and the hits of all; lowest first.

    Args:
        rows: the states of several libraries.
        source: the library of each row.
        runs: a number for each library: of those with one number the largest hits count.
    """
    m, paired = rows["magnetizations"], rows["multiplicity"] == 2

    def equals(k: int, others: np.ndarray) -> np.ndarray:
        return distances(m[k], m[others], paired[k]) < MERGE_TOLERANCE

    first, index = np.unique(first_equals(len(m), equals), return_inverse=True)
    given_hits, own_hits = (
        added(counts, source, index, runs)
        for counts in (rows["given_hits"], rows["hits"] - rows["given_hits"])
    )
    merged = {name: values[first] for name, values in rows.items()}
    merged |= {"hits": given_hits + own_hits, "given_hits": given_hits}
    order = np.argsort(merged["free_energies"], kind="stable")
    return {name: values[order] for name, values in merged.items()}


def mirrored(rows: _Columns) -> _Columns:
    """Each state followed by its mirror image where that is a state as well; unused rows last."""
    xp = jnp if isinstance(rows["mask"], Array) else np
    mask = xp.stack([rows["mask"], rows["mask"] & (rows["multiplicity"] == 2)], axis=1).reshape(-1)
    # Unused entries go last, all others keep their order.
    order = xp.argsort(~mask, stable=True)
    twice = {name: xp.repeat(values, 2, axis=0) for name, values in rows.items()}
    for name in ("magnetizations", "fields"):
        both = xp.stack([rows[name], -rows[name]], axis=1).reshape(-1, rows[name].shape[-1])
        twice[name] = xp.where(mask[:, None], both, 0.0)
    twice |= {"multiplicity": xp.ones_like(twice["multiplicity"]), "mask": mask}
    blanks = {"free_energies": xp.inf, "hits": 0, "given_hits": 0}
    twice |= {name: xp.where(mask, twice[name], blank) for name, blank in blanks.items()}
    return {name: values[order] for name, values in twice.items()}


def nearest_rows(
    m: Float[np.ndarray | Array, "K n"],
    paired: Bool[np.ndarray, " K"],
    rows: Float[np.ndarray, "batch n"],
) -> Int[np.ndarray, " batch"]:
    """Index of the state that each row is, mirror images counted where `paired`; -1 for none."""
    nearest, closest = np.full(len(rows), -1), np.full(len(rows), MERGE_TOLERANCE)
    for k, state in enumerate(m):
        apart = distances(state, rows, paired[k])
        nearest = np.where(apart < closest, k, nearest)
        closest = np.minimum(apart, closest)
    return nearest
