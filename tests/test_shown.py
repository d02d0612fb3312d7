"""What results show of themselves."""

import dataclasses

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg


@pytest.fixture(scope="module")
def found():
    energy = helpers.random_pairwise(8, jax.random.key(0), 2.0, 0.1)
    return tg.find_bound_states(energy, 1.5, key=jax.random.key(0), threshold=20)


def test_bound_states_are_a_row_each(found):
    headline, names, *rows = repr(found).splitlines()
    assert headline.startswith(f"{found.certificate.count} bound states of 8 spins at beta = 1.5")
    assert names.split()[:2] == ["images", "weight"] and len(rows) == len(found)
    assert rows[0].split()[0] == "0" and f"{found.free_energies[0]:.6g}" in rows[0]


def test_a_certificate_is_a_row_for_each_candidate(found):
    _, _, *rows = repr(found.certificate).splitlines()
    assert len(rows) == min(found.library.size, 10)
    marked = [row.endswith("yes") for row in rows]
    np.testing.assert_array_equal(marked, found.certificate.bound[: len(rows)])


def test_notebooks_see_tables(found):
    for result, rows in ((found, len(found)), (found.library, found.library.size)):
        shown = result._repr_html_()
        assert shown.count("<tr>") == min(rows, 10) + 1
    assert "minimum" in found.library._repr_html_()


def test_what_is_not_known_is_a_dash_and_many_rows_are_counted(found):
    blind = dataclasses.replace(
        found,
        log_partition_error=np.inf,
        **{
            name: np.repeat(getattr(found, name)[:1], 12, axis=0)
            for name in (
                *("magnetizations", "weights", "weight_intervals", "library_weights"),
                *("escape_times", "intervals", "multiplicity", "representatives"),
            )
        },
    )
    text = repr(blind)
    assert "- to -" in text and text.endswith("... 2 more")


@pytest.mark.parametrize("part", ["library", "certificate", "all"])
def test_batches_shapes_and_skeletons_show_their_arrays(found, part):
    result = found if part == "all" else getattr(found, part)
    batch = jax.tree.map(lambda x: np.stack([x, x]), result)
    assert "[2," in repr(batch) and "[2," in batch._repr_html_()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.float32), result)
    assert "float32" in repr(shapes)
    assert "None" in repr(jax.tree.map(lambda x: None, result))


# --- energies, and results that are no rows of arrays


KEY = jax.random.key(0)
PAIRWISE = helpers.random_pairwise(6, KEY, 1.0, 0.1)
CUE = np.array([1, 0, 0, 0, 0, 0])
ENERGIES = {
    "Pairwise of 6 spins, 21 parameters of float64": PAIRWISE,
    "RBM of 5 visible and 4 hidden spins, 29 parameters of float64": helpers.random_rbm(9, KEY),
    "Complete of 6 spins, 64 parameters of float64": tg.energies.complete(PAIRWISE),
    "Interactions of 6 spins, 41 parameters of float64": tg.energies.untrained(
        "interactions:3", np.zeros(6), key=KEY
    ),
    "Mixture of 2 experts (Pairwise) of 6 spins, 44 parameters of float64": tg.Mixture(
        jax.tree.map(lambda x: jnp.stack([x, x]), PAIRWISE), np.log([0.5, 0.5]), np.zeros(2)
    ),
    "Clamped of 6 spins, 1 of them held, 21 parameters of float64": tg.energies.Clamped(
        PAIRWISE, CUE
    ),
}


@pytest.mark.parametrize("headline", ENERGIES)
def test_energies_say_how_large_they_are(headline):
    energy = ENERGIES[headline]
    first, *rows = repr(energy).splitlines()
    assert first.startswith(headline) and "[" not in first
    assert rows[0].split() == ["number", "mean", "spread", "least", "largest"]
    assert energy._repr_html_().count("<tr>") == len(rows)


def test_parameters_are_summed_up_by_what_they_couple():
    couplings = np.array([[0, 1, -2], [1, 0, 4], [-2, 4, 0]], float)
    rows = [row.split() for row in repr(tg.Pairwise(couplings, np.zeros(3))).splitlines()[2:]]
    assert rows[0] == ["couplings", "3", "1", "2.45", "-2", "4"]
    assert rows[1] == ["fields", "3", "0", "0", "0", "0"]
    names = [
        row.split()[0]
        for row in repr(
            tg.Interactions.from_terms(
                6, {(): 1.0, (0,): 1.0, (0, 1): 1.0, (0, 1, 2): 1.0, (0, 1, 2, 3): 1.0}
            )
        ).splitlines()[2:]
    ]
    assert names == ["constant", "fields", "pairs", "triples", "sets"]
    assert repr(tg.Interactions.from_terms(3, {})) == "Interactions of 3 spins, 0 parameters"


def test_energies_that_are_traced_mapped_or_hollow_show_their_arrays():
    seen = []
    jax.jit(lambda energy: seen.append(repr(energy)))(PAIRWISE)
    jax.vmap(lambda energy: seen.append(repr(energy)))(jax.tree.map(lambda x: x[None], PAIRWISE))
    hollow = eqx.partition(PAIRWISE, lambda x: x.ndim == 1)[0]
    seen += [repr(jax.eval_shape(lambda: PAIRWISE)), repr(hollow), hollow._repr_html_()]
    assert all("Pairwise(" in text and "couplings=" in text for text in seen)
    # A batch is summed up as a whole.
    batch = jax.tree.map(lambda x: np.stack([x, 2 * x]), PAIRWISE)
    assert repr(batch).startswith("Pairwise of 6 spins, 42 parameters")
    assert "couplings=f64[6,6]" in eqx.tree_pformat(PAIRWISE)


def test_fits_say_how_they_ended():
    data = np.random.default_rng(0).choice([-1.0, 1.0], (50, 6))
    fitted = tg.fit(tg.Pseudolikelihood(), PAIRWISE, data, key=KEY)
    text = repr(fitted)
    assert text.startswith(f"converged after {len(fitted.history)} steps, loss ")
    assert f"to {fitted.history[-1]:.6g}: Pairwise of 6 spins" in text
    assert "history=f64[2," in repr(jax.tree.map(lambda x: np.stack([x, x]), fitted))


def test_answers_are_read_as_signs():
    found = tg.recall(PAIRWISE, 1.0, CUE, key=KEY)
    headline, names, *rows = repr(found).splitlines()
    assert headline.startswith("8 answers of 6 spins, p = ") and headline.endswith("converged")
    expected = "".join("+" if x > 0 else "-" for x in found.configurations[0])
    assert rows[0].split()[-1] == expected and expected[0] == "+"
    assert found._repr_html_().count("<tr>") == 9
    batch = jax.vmap(lambda k: tg.recall(PAIRWISE, 1.0, CUE, key=k))(jax.random.split(KEY, 2))
    assert "[2,8,6]" in repr(batch)
    assert "configurations=" in repr(jax.eval_shape(lambda: found))


@pytest.mark.further
def test_saddles_are_a_row_each():
    naive, magnet = tg.NaiveMeanField(), tg.Pairwise(np.ones((3, 3)) - np.eye(3), np.zeros(3))
    library = tg.find_minima(naive, magnet, 1.0, key=KEY, n_starts=16).expanded()
    found = tg.barriers(naive, magnet, 1.0, library)
    headline, names, row = repr(found).splitlines()
    assert headline == "1 saddle between 2 states, 1 of 1 pair joined"
    assert names.split()[:3] == ["from", "to", "G"]
    assert row.split()[1:4] == ["0", "1", f"{found.free_energies[0]:.6g}"]
    assert row.endswith("converged")
