"""What results show of themselves."""

import dataclasses

import helpers
import jax
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
