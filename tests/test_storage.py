import dataclasses
import hashlib
import json
import os
import stat
import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thermogen import datasets, storage
from thermogen.energies import RBM, AbstractEnergy, Interactions, Mixture, Pairwise
from thermogen.retrieval import load_cues
from thermogen.search import Library


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
        "version": 2,
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
    return _sealed(json.dumps({**json.loads(header), **changes}).encode() + b"\n" + rest)


def _sealed(whole):
    """With the right checksum in place of the last 32 bytes."""
    return whole[:-32] + hashlib.sha256(whole[:-32]).digest()


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
        (lambda whole: whole + b"x", "its checksum is wrong"),
        (lambda whole: _sealed(whole[:-32] + b"x" + bytes(32)), "of float64 and holds 97 bytes"),
        (lambda whole: _with_header(whole, version=1), "format version 1; this thermogen reads 2"),
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

    with path.open("wb") as stream:
        np.save(stream, np.array([Planted()], dtype=object))
    with pytest.raises(ValueError, match="not an energy"):
        storage.load_energy(path)
    np.savez(tmp_path / "library.npz", format=np.array([Planted()], dtype=object))
    with pytest.raises(ValueError, match="it holds Python objects"):
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
    return Library(
        magnetizations=np.array([[0.5, -0.5], [-0.9, 0.9]]),
        free_energies=np.array([-2.0, -1.0]),
        residuals=np.array([1e-12, 1e-10]),
        curvatures=np.array([0.5, 0.25]),
        hits=np.array([7, 1]),
        multiplicity=np.array([1, 2]),
        kind=np.array([0, 1], np.int8),
    )


def test_a_library_comes_back(tmp_path, library):
    storage.save_library(tmp_path / "library.npz", library)
    loaded = storage.load_library(tmp_path / "library.npz")
    assert loaded.size == library.size > 0
    for old, new in zip(jax.tree.leaves(library), jax.tree.leaves(loaded), strict=True):
        assert new.dtype == np.asarray(old).dtype
        np.testing.assert_array_equal(new, old)
    np.testing.assert_array_equal(loaded.weights(2.0), library.weights(2.0))


def test_unused_places_are_not_stored(tmp_path, library):
    padded = jax.tree.map(lambda x: np.repeat(x, 2, axis=0) if np.ndim(x) else x, library)
    padded = dataclasses.replace(
        padded, mask=np.arange(4) < 2, runs=library.runs, fingerprint=library.fingerprint
    )
    storage.save_library(tmp_path / "library.npz", padded)
    assert storage.load_library(tmp_path / "library.npz").hits.shape == (2,)
    with pytest.raises(ValueError, match="mask holds what no library can"):
        storage.save_library(
            tmp_path / "library.npz", dataclasses.replace(padded, mask=np.arange(4) > 1)
        )


def test_damaged_libraries_are_refused(tmp_path, library):
    path = tmp_path / "library.npz"
    storage.save_library(path, library)
    whole = path.read_bytes()
    fields = dict(np.load(path))
    for content in (b"", whole[:-30], whole[:100], b"no zip file"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path} cannot be read as a numpy file"):
            storage.load_library(path)
    with path.open("wb") as stream:
        np.save(stream, np.ones(3))
    with pytest.raises(ValueError, match="not a library saved by this version"):
        storage.load_library(path)
    for changed, match in (
        ({"format": "thermogen library 0"}, "not a library saved by this version"),
        ({"extra": np.ones(2)}, "its checksum is wrong"),
    ):
        np.savez(path, **{**fields, **changed})
        with pytest.raises(ValueError, match=match):
            storage.load_library(path)
    np.savez(path, **{**fields, "hits": fields["hits"] + 1})
    with pytest.raises(ValueError, match="its checksum is wrong"):
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


# --- what no file should get away with


def test_every_flipped_bit_is_found(tmp_path, library):
    """Or changes nothing of what is loaded, as in the dates of an archive."""
    saved = {
        storage.load_energy: lambda path: storage.save_energy(path, _pairwise()),
        storage.load_library: lambda path: storage.save_library(path, library),
    }
    draw = np.random.default_rng(0)
    for load, save in saved.items():
        path = tmp_path / load.__name__
        save(path)
        whole, truth = path.read_bytes(), jax.tree.leaves(load(path))
        found = 0
        for bit in draw.choice(8 * len(whole), 300, replace=False):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            try:
                loaded = jax.tree.leaves(load(path))
            except ValueError as error:
                assert str(path) in str(error)
                found += 1
                continue
            for old, new in zip(truth, loaded, strict=True):
                assert old.dtype == new.dtype and np.asarray(old).tobytes() == new.tobytes()
        assert found > 60


def _crafted(tmp_path, energy, numbers=None, **changes):
    """A file with a right checksum, but numbers or a header that `save_energy` never writes."""
    path = tmp_path / "crafted.eqx"
    storage.save_energy(path, energy)
    header, _, rest = path.read_bytes().partition(b"\n")
    rest = rest[:-32] if numbers is None else np.asarray(numbers).tobytes()
    described = json.loads(header)
    described["structure"] |= changes.pop("structure", {})
    path.write_bytes(
        _sealed(json.dumps({**described, **changes}).encode() + b"\n" + rest + bytes(32))
    )
    return path


_NUMBERS = [0, 0.5, 0.5, 0, 1.0, 2.0]  # couplings and fields of two spins
_TWO = Pairwise(np.array([[0, 0.5], [0.5, 0]]), np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    ("numbers", "changes", "match"),
    [
        ([0, 0.5, 0.25, 0, 1, 2], {}, "symmetric"),
        ([1, 0.5, 0.5, 0, 1, 2], {}, "zero diagonal"),
        ([0, np.nan, np.nan, 0, 1, 2], {}, "must be finite"),
        ([0, 0.5, 0.5, 0, np.inf, 2], {}, "must be finite"),
        (np.array(_NUMBERS, complex), {"dtype": "complex128"}, "dtype is 'complex128'"),
        (np.array(_NUMBERS, bool), {"dtype": "bool"}, "dtype is 'bool'"),
        (_NUMBERS, {"dtype": "object"}, "dtype is 'object'"),
        (_NUMBERS, {"structure": {"n_spins": -3}}, "n_spins must be at least 0, got -3"),
        (_NUMBERS, {"structure": {"n_spins": "2"}}, "damaged"),
        (_NUMBERS, {"structure": {"n_spins": 2.0}}, "damaged"),
        (_NUMBERS, {"structure": {"n_spins": True}}, "damaged"),
        (_NUMBERS, {"structure": {"n_spins": 2**40}}, "damaged"),
        (_NUMBERS, {"class": "Complete"}, "announces 4 numbers of float64 and holds 48 bytes"),
        (_NUMBERS, {"class": "Complete", "structure": {"n_spins": 10**6}}, "at most 40"),
        (_NUMBERS, {"class": "RBM"}, "damaged"),
        (_NUMBERS[:-1], {}, "announces 6 numbers of float64 and holds 40 bytes"),
    ],
)
def test_parameters_that_a_class_refuses_do_not_load(tmp_path, numbers, changes, match):
    same = storage.load_energy(_crafted(tmp_path, _TWO, _NUMBERS))
    assert eqx.tree_equal(same, _TWO)
    numbers = np.asarray(numbers, None if "dtype" in changes else float)
    with pytest.raises(ValueError, match=match):
        storage.load_energy(_crafted(tmp_path, _TWO, numbers, **changes))


@pytest.mark.parametrize(
    "structure",
    [
        {"sets": [[[0, 0.7]]]},
        {"sets": [[[0, True]]]},
        {"sets": [[[0, 0]]]},
        {"sets": [[[0, 9]]]},
        {"sets": [[[0, 2**40]]]},
        {"sets": [[[0, 1, 2]]]},
        {"n_spins": "3"},
        {"n_spins": 1.5},
        {"shapes": [[1, -2]]},
        {"shapes": [[2, 2]]},
    ],
)
def test_spin_sets_that_are_none_do_not_load(tmp_path, structure):
    energy = Interactions.from_terms(3, {(0, 1): 1.0})
    assert storage.load_energy(_crafted(tmp_path, energy)).n_spins == 3
    with pytest.raises(ValueError, match="damaged"):
        storage.load_energy(_crafted(tmp_path, energy, structure=structure))


def test_a_header_of_brackets_is_no_recursion(tmp_path):
    path = tmp_path / "model.eqx"
    path.write_bytes(b"[" * 200_000 + b"\n" + bytes(40))
    with pytest.raises(ValueError, match="not an energy"):
        storage.load_energy(path)


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    energy = jax.tree.map(lambda x: x * np.nan, _pairwise())
    with pytest.raises(ValueError, match="couplings must be finite"):
        storage.save_energy(tmp_path / "model.eqx", energy)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("magnetizations", np.array([[0.5, -1.5], [-0.9, 0.9]])),
        ("magnetizations", np.zeros((2, 2), complex)),
        ("free_energies", np.array([-2.0, np.nan])),
        ("residuals", np.array([-1.0, 0.0])),
        ("hits", np.array([7, -1])),
        ("hits", np.array([7.0, 1.0])),
        ("multiplicity", np.array([1, 3])),
        ("mask", np.array([1, 1])),
        ("hits", np.array([7, 1, 0])),
        ("fields", np.zeros((2, 3))),
        ("kind", np.array([0, 9], np.int8)),
        ("overflow", np.array([False, False])),
    ],
)
def test_arrays_that_are_no_library(tmp_path, library, monkeypatch, name, value, unchecked):
    broken = dataclasses.replace(library, **{name: value})
    with pytest.raises(ValueError):
        storage.save_library(tmp_path / "library.npz", broken)
    monkeypatch.setattr(storage, "_check_library", lambda arrays: None)
    storage.save_library(tmp_path / "library.npz", broken)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="holds no library"):
        storage.load_library(tmp_path / "library.npz")


LOADERS = [
    (storage.load_energy, "a.eqx"),
    (storage.load_library, "a.npz"),
    (datasets.load, "a.npy"),
    (datasets.load, "a.csv"),
    (load_cues, "a.npz"),
    (load_cues, "a.csv"),
]


@pytest.mark.parametrize(("load", "name"), LOADERS)
def test_only_regular_files_are_read(tmp_path, load, name):
    path = tmp_path / name
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(path)
    makers = [
        os.mkfifo,
        os.mkdir,
        *(lambda p, d=d: os.symlink(d, p) for d in ("/dev/zero", "/dev/tty", "/dev")),
    ]
    for make in makers:
        make(path)
        with pytest.raises(ValueError, match="is not a regular file"):
            load(path)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (tmp_path / "empty").touch()
    path.symlink_to("empty")
    with pytest.raises(ValueError, match=name):
        load(path)


@pytest.mark.parametrize("load", [storage.load_library, datasets.load, load_cues])
def test_what_unpacks_to_far_more_is_refused(tmp_path, load):
    """An archive whose directory announces more than it holds is refused before it is unpacked."""
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, spins=np.ones((1000, 1000), np.int8))
    whole = path.read_bytes()
    entry = whole.rindex(b"PK\x01\x02")
    path.write_bytes(whole[: entry + 24] + (2**31).to_bytes(4, "little") + whole[entry + 28 :])
    with pytest.raises(ValueError, match="bomb.npz .* would unpack to 2 GiB"):
        load(path)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 8)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 8)}",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (10000000000, 80000000)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1, 1)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1)",
        "{'descr': '<f8', 'fortran_order': False, 'shape': " + "(" * 4000,
        "{" * 4000,
        "\\N{",
        '"""',
        "{'descr': [], 'fortran_order': False, 'shape': (1" + "0" * 4000 + ",)}",
        "{'descr': ('<f8', ((1,) * 9)), 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f8', 'fortran_order': 3, 'shape': (1, 1)}",
        "\t1\n 2\n  3\n 4",
    ],
)
def test_headers_of_arrays_are_not_trusted(tmp_path, header):
    path = tmp_path / "a.npy"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    path.write_bytes(start + bytes(64))
    with pytest.raises(ValueError, match="a.npy"):
        datasets.load(path)


@pytest.mark.filterwarnings("ignore:.*(looks transposed|names of the samples|no value)")
def test_random_bytes_are_no_files(tmp_path):
    draw = np.random.default_rng(1)
    np.save(tmp_path / "a.npy", np.ones((3, 4)))
    np.savez(tmp_path / "a.npz", np.ones((3, 4)))
    (tmp_path / "a.csv").write_text("1,0\n0,1\n")
    for name in ("a.npy", "a.npz", "a.csv"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(100):
            damaged = bytearray(whole)
            for place in draw.integers(len(whole), size=4):
                damaged[place] = draw.integers(256)
            (tmp_path / name).write_bytes(damaged)
            try:
                loaded = datasets.load(tmp_path / name)
            except ValueError as error:
                assert name in str(error)
            else:
                assert set(np.unique(loaded)) <= {-1, 0, 1}


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("thermogen.datasets._text._MAX_LINE", 100)
    (tmp_path / "a.csv").write_text("1," * 60)
    with pytest.raises(ValueError, match="a line of more than 100 characters"):
        datasets.load(tmp_path / "a.csv")


# --- saving


def test_threads_save_one_path(tmp_path):
    path, failures = tmp_path / "model.eqx", []
    energies = [jax.tree.map(lambda x, k=k: k * x, _pairwise()) for k in range(1, 5)]

    def save(energy):
        try:
            for _ in range(10):
                storage.save_energy(path, energy)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=save, args=(energy,)) for energy in energies]
    for act in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            act(thread)
    assert not failures
    assert any(eqx.tree_equal(storage.load_energy(path), energy) for energy in energies)
    assert os.listdir(tmp_path) == ["model.eqx"]


def test_a_save_follows_links(tmp_path):
    (tmp_path / "folder").mkdir()
    for link, target in (("a", "folder/old"), ("b", "a"), ("c", "folder/new")):
        (tmp_path / link).symlink_to(target)
    (tmp_path / "folder" / "old").write_bytes(b"old")
    for name in "abc":
        storage.save_energy(tmp_path / name, _pairwise())
        assert (tmp_path / name).is_symlink()
    for name in ("old", "new"):
        assert eqx.tree_equal(storage.load_energy(tmp_path / "folder" / name), _pairwise())
    assert sorted(os.listdir(tmp_path / "folder")) == ["new", "old"]
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    (tmp_path / "device").symlink_to("/dev/null")
    for name in ("x", "y", "device", "folder"):
        with pytest.raises(ValueError, match="not a regular file"):
            storage.save_energy(tmp_path / name, _pairwise())


def test_a_save_keeps_permissions(tmp_path):
    path = tmp_path / "model.eqx"

    def mode():
        return stat.S_IMODE(path.stat().st_mode)

    before = os.umask(0o027)
    try:
        storage.save_energy(path, _pairwise())
        assert mode() == 0o640
        for kept in (0o600, 0o666):
            path.chmod(kept)
            storage.save_energy(path, _pairwise())
            assert mode() == kept
    finally:
        os.umask(before)


def test_a_save_reaches_the_disk_before_it_replaces(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def spy(*arguments, real=real, name=name):
            calls.append(name)
            return real(*arguments)

        monkeypatch.setattr(os, name, spy)
    storage.save_energy(tmp_path / "model.eqx", _pairwise())
    assert calls == ["fsync", "replace", "fsync"]


def test_notes_are_kept_beside_an_energy(tmp_path):
    notes = {"offset": 1.5, "names": ["a", 2, "ä"]}
    storage.save_energy(tmp_path / "model.eqx", _pairwise(), notes=notes)
    assert storage.load_notes(tmp_path / "model.eqx") == notes
    np.testing.assert_array_equal(
        storage.load_energy(tmp_path / "model.eqx").fields, _pairwise().fields
    )
    storage.save_energy(tmp_path / "bare.eqx", _pairwise())
    assert storage.load_notes(tmp_path / "bare.eqx") == {}
    with pytest.raises(TypeError, match="not JSON serializable"):
        storage.save_energy(tmp_path / "wrong.eqx", _pairwise(), notes={"names": {1, 2}})
    assert not (tmp_path / "wrong.eqx").exists()


def test_damaged_notes_are_refused(tmp_path):
    path = tmp_path / "model.eqx"
    storage.save_energy(path, _pairwise(), notes={"a": 1})
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"a": 1', b'"a": 2'))
    with pytest.raises(ValueError, match="its checksum is wrong"):
        storage.load_notes(path)
    content = whole[:-32].replace(b'{"a": 1}', b"[1]")
    path.write_bytes(content + hashlib.sha256(content).digest())
    with pytest.raises(ValueError, match="its notes are a list"):
        storage.load_notes(path)
