import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thermogen import storage
from thermogen.energies import RBM, AbstractEnergy, Interactions, Mixture, Pairwise
from thermogen.landscape import Library


def _pairwise(dtype=jnp.float64):
    couplings = jnp.array([[0, 0.5, -1], [0.5, 0, 2], [-1, 2, 0]], dtype)
    return Pairwise(couplings, jnp.array([0.1, -0.2, 0.3], dtype))


ENERGIES = {
    "pairwise": _pairwise(),
    "pairwise-float32": _pairwise(jnp.float32),
    "pairwise-float16": _pairwise(jnp.float16),
    "no-spins": Pairwise(jnp.zeros((0, 0)), jnp.zeros(0)),
    "interactions": Interactions.from_terms(6, {(): 0.7, (0,): 1.5, (2, 5): -1.0, (0, 3, 4): 0.25}),
    "no-terms": Interactions.from_terms(3, {}),
    "empty-table": Interactions(3, [np.zeros((0, 2), int)], [jnp.zeros(0)]),
    "mixture": Mixture.of([_pairwise(), _pairwise()], [0.25, 0.75], [1.5, 2.5]),
    "rbm": RBM(jnp.arange(12.0).reshape(4, 3), jnp.ones(4), -jnp.ones(3)),
}


@pytest.mark.parametrize("name", ENERGIES)
def test_an_energy_comes_back(tmp_path, name):
    energy = ENERGIES[name]
    storage.save_energy(tmp_path / "model.eqx", energy)
    loaded = storage.load_energy(tmp_path / "model.eqx")
    assert type(loaded) is type(energy)
    assert jax.tree.structure(loaded) == jax.tree.structure(energy)
    for old, new in zip(jax.tree.leaves(energy), jax.tree.leaves(loaded), strict=True):
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(new, old)
    spins = jnp.ones(energy.n_spins)
    np.testing.assert_array_equal(loaded(spins), energy(spins))


def test_the_header_is_one_readable_line(tmp_path):
    storage.save_energy(tmp_path / "model.eqx", _pairwise(jnp.float32))
    header = json.loads((tmp_path / "model.eqx").read_bytes().split(b"\n")[0])
    assert header == {
        "format": "thermogen energy",
        "version": 1,
        "class": "Pairwise",
        "structure": {"n_spins": 3},
        "dtype": "float32",
    }


def test_float64_is_rounded_where_jax_has_none(tmp_path):
    energy = _pairwise()
    storage.save_energy(tmp_path / "model.eqx", energy)
    with jax.enable_x64(False):
        loaded = storage.load_energy(tmp_path / "model.eqx")
    assert loaded.couplings.dtype == jnp.float32
    np.testing.assert_allclose(loaded.couplings, energy.couplings, rtol=1e-7)


class _Custom(AbstractEnergy):
    n_spins: int = 1

    def __call__(self, spins):
        return jnp.sum(spins)


def test_unknown_classes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="energy is a _Custom; expected one of Pairwise, "):
        storage.save_energy(tmp_path / "model.eqx", _Custom())
    assert not list(tmp_path.iterdir())


def _with_header(whole, **changes):
    header, _, rest = whole.partition(b"\n")
    return json.dumps({**json.loads(header), **changes}).encode() + b"\n" + rest


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda whole: b"", "not an energy saved by thermogen"),
        (lambda whole: b"\x93NUMPY\x01\x00 something", "not an energy saved by thermogen"),
        (lambda whole: b"[1, 2]\n", "not an energy saved by thermogen"),
        (lambda whole: b'{"format": "other"}\n', "not an energy saved by thermogen"),
        (lambda whole: whole[:20], "not an energy saved by thermogen"),
        (lambda whole: whole.split(b"\n")[0] + b"\n", "truncated or damaged"),
        (lambda whole: whole[:-1], "truncated or damaged"),
        (lambda whole: whole[:-40], "truncated or damaged"),
        (lambda whole: whole + b"x", "goes on after the last parameter"),
        (lambda whole: _with_header(whole, version=2), "format version 2; this thermogen reads 1"),
        (lambda whole: _with_header(whole, **{"class": "Potts"}), "unknown class 'Potts'"),
        (lambda whole: _with_header(whole, **{"class": []}), "unknown class"),
        (lambda whole: _with_header(whole, structure={"n_spins": 4}), "truncated or damaged"),
        (lambda whole: _with_header(whole, structure={"n_spins": 10**9}), "truncated or damaged"),
        (lambda whole: _with_header(whole, structure={"spins": 3}), "truncated or damaged"),
        (lambda whole: _with_header(whole, structure=None), "truncated or damaged"),
        (lambda whole: _with_header(whole, dtype="float32"), "truncated or damaged"),
        (lambda whole: _with_header(whole, dtype="float1"), "truncated or damaged"),
    ],
)
def test_damaged_energies_are_refused(tmp_path, damage, match):
    path = tmp_path / "model.eqx"
    storage.save_energy(path, _pairwise())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=match) as caught:
        storage.load_energy(path)
    assert str(path) in str(caught.value)


def test_pickles_are_not_executed(tmp_path):
    path, mark = tmp_path / "model.eqx", tmp_path / "mark"

    class Planted:
        def __reduce__(self):
            return open, (str(mark), "w")

    storage.save_energy(path, _pairwise())
    header = path.read_bytes().split(b"\n")[0]
    with path.open("wb") as stream:
        stream.write(header + b"\n")
        np.save(stream, np.array([Planted()], dtype=object))
    with pytest.raises(ValueError, match="damaged"):
        storage.load_energy(path)
    np.savez(tmp_path / "library.npz", format=np.array([Planted()], dtype=object))
    with pytest.raises(ValueError, match="cannot be read as a library"):
        storage.load_library(tmp_path / "library.npz")
    assert not mark.exists()


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        storage.load_energy(tmp_path / "none.eqx")
    with pytest.raises(FileNotFoundError):
        storage.load_library(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError):
        storage.save_energy(tmp_path / "none" / "model.eqx", _pairwise())


@pytest.fixture
def library():
    used = np.array([True, True, False])
    return Library(
        magnetizations=np.array([[0.5, -0.5], [-0.9, 0.9], [0, 0]]),
        free_energies=np.array([-2.0, -1.0, np.inf]),
        residuals=np.array([1e-12, 1e-10, np.inf]),
        curvatures=np.array([0.5, 0.25, 0]),
        hits=np.array([7, 1, 0]),
        multiplicity=np.array([1, 2, 1]),
        mask=used,
        overflow=np.array(False),
    )


def test_a_library_comes_back(tmp_path, library):
    storage.save_library(tmp_path / "library.npz", library)
    loaded = storage.load_library(tmp_path / "library.npz")
    assert loaded.size == library.size > 0
    for old, new in zip(jax.tree.leaves(library), jax.tree.leaves(loaded), strict=True):
        assert new.dtype == np.asarray(old).dtype
        np.testing.assert_array_equal(new, old)
    np.testing.assert_array_equal(loaded.weights(2.0), library.weights(2.0))


def test_damaged_libraries_are_refused(tmp_path, library):
    path = tmp_path / "library.npz"
    storage.save_library(path, library)
    whole = path.read_bytes()
    fields = dict(np.load(path))
    for content in (b"", whole[:-30], whole[:100], b"no zip file"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as a library"):
            storage.load_library(path)
    with path.open("wb") as stream:
        np.save(stream, np.ones(3))
    with pytest.raises(ValueError, match="cannot be read as a library"):
        storage.load_library(path)
    for changed in ({"format": "thermogen library 0"}, {"extra": np.ones(2)}):
        np.savez(path, **{**fields, **changed})
        with pytest.raises(ValueError, match="not a library saved by this version"):
            storage.load_library(path)
    np.savez(path, **{**fields, "hits": fields["hits"][:-1]})
    with pytest.raises(ValueError, match="differ in length"):
        storage.load_library(path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), storage.write_atomically(path) as stream:
        stream.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    with storage.write_atomically(path) as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]
