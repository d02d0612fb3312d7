"""Result codes: one family, to which each room adds its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import _solution
from thermogen._codes import Codes
from thermogen.landscape import TRANSITIONS

ROOMS = [_solution.RESULTS, tg.meanfield.RESULTS, tg.sampling.RESULTS, tg.learning.RESULTS]


@pytest.mark.parametrize("room", ROOMS)
def test_a_code_is_the_same_one_in_every_room(room):
    assert room.converged == tg.RESULTS.converged and room.converged != tg.RESULTS.step_limit
    assert isinstance(room.converged, tg.RESULTS) and isinstance(tg.RESULTS.saddle, room)
    assert not isinstance(TRANSITIONS.converged, room) and not isinstance(1, room)
    assert room[tg.RESULTS.saddle] == tg.RESULTS[tg.meanfield.RESULTS.saddle]


def test_each_room_adds_its_own_codes():
    assert not hasattr(_solution.RESULTS, "saddle")
    assert not hasattr(tg.meanfield.RESULTS, "few_weights")
    assert not hasattr(tg.sampling.RESULTS, "saddle")
    assert not hasattr(tg.sampling.RESULTS, "separable")
    assert tg.RESULTS.saddle != tg.RESULTS.few_weights
    assert "small noise" in tg.RESULTS[tg.RESULTS.saddle]


def test_codes_pass_through_transformations():
    stalled, converged = tg.RESULTS.stalled, tg.RESULTS.converged

    @jax.jit
    def judged(residual):
        met = _solution.RESULTS.where(residual < 1, converged, tg.RESULTS.step_limit)
        return tg.meanfield.RESULTS.where(jnp.isnan(residual), stalled, met)

    found = jax.vmap(judged)(jnp.array([0.5, 2.0, jnp.nan]))
    np.testing.assert_array_equal(found.names, ["converged", "step_limit", "stalled"])
    np.testing.assert_array_equal(found == converged, [True, False, False])
    assert judged(0.5) == converged and str(judged(0.5).names) == "converged"
    said = []
    jax.jit(lambda x: said.append(repr(judged(x))))(0.5)
    assert said == ["RESULTS<traced>"]


def test_names_and_codes_on_the_host_are_inverse():
    result = tg.RESULTS.where(np.arange(3) == 1, tg.RESULTS.saddle, tg.RESULTS.few_weights)
    assert isinstance(jax.tree.leaves(result)[0], np.ndarray)
    again = tg.RESULTS.named(result.names.tolist())
    assert np.all(again == result) and again.names.shape == (3,)
    assert repr(again) == "RESULTS<['few_weights' 'saddle' 'few_weights']>"
    assert repr(tg.RESULTS.named("saddle")) == "RESULTS<saddle>"
    with pytest.raises(ValueError, match="no code lost"):
        tg.RESULTS.named(["saddle", "lost"])


def test_a_user_adds_codes():
    class Colours(Codes):
        red = "Red."

    class More(Colours):
        green = "Green."

    assert More.red == Colours.red and More.green != Colours.red
    assert Colours[More.green] == "Green."
    with pytest.raises(TypeError, match="red already"):
        type("Again", (Colours,), {"red": "Another red."})
    with pytest.raises(ValueError, match="their own family"):
        _ = Colours.red == tg.RESULTS.converged
    with pytest.raises(ValueError, match="their own family"):
        _ = tg.RESULTS.converged == 0
    with pytest.raises(ValueError, match="their own family"):
        Colours.where(True, Colours.red, tg.RESULTS.converged)


def test_an_error_tells_the_message():
    with pytest.raises(RuntimeError, match="small noise"):
        _solution.checked(tg.Solution(0.0, tg.RESULTS.saddle, {}, {}), jnp.array(False))
    with pytest.raises(Exception, match="small noise"):
        jax.jit(lambda good: _solution.checked(tg.Solution(good, tg.RESULTS.saddle, {}, {}), good))(
            False
        ).value.block_until_ready()
