"""Files of models: what they mean by the rules of those who made the format, and round trips."""

import itertools
import re
import sys

import dimod.serialization.coo
import h5py
import helpers
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.io

import thermogen as tg
from thermogen import interop

KEY = jax.random.key(0)
QUADRATIC = [".coo", ".mtx", ".qubo", ".graphml", ".dat", ".terms", ".eqx"]
NAMED = {".coo", ".mtx", ".qubo", ".graphml", ".terms", ".eqx"}
CLOSE = {"rtol": 1e-12, "atol": 1e-10}
MM = "%%MatrixMarket matrix"
BONDS = tg.Interactions.from_terms(4, {(0, 1): 1.0, (1, 2): -0.5, (0, 3): 2.0})


def bits(n):
    return (helpers.configurations(n) + 1) / 2


def table(model):
    return helpers.energy_table(model.energy) + model.offset


@st.composite
def quadratics(draw):
    """Fields and some bonds of up to eight spins, a constant, and names."""
    n = draw(st.integers(1, 8))
    numbers = st.floats(-1e3, 1e3) | st.just(0.0)
    pairs = list(itertools.combinations(range(n), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    terms = {pair: draw(numbers) for pair in chosen} | {(k,): draw(numbers) for k in range(n)}
    labels = draw(st.lists(st.text(min_size=1, max_size=3), min_size=n, max_size=n, unique=True))
    return n, terms, draw(numbers), labels


@pytest.mark.parametrize("suffix", QUADRATIC)
@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=30)
def test_a_model_comes_back(suffix, data, tmp_path_factory):
    n, terms, offset, names = data.draw(quadratics())
    energy = tg.Interactions.from_terms(n, terms)
    if suffix == ".graphml":  # XML has no place for control characters, and numbers are numbers
        names = [re.sub(r"[^!-~ä-￡]|\d", "_", name) + chr(97 + k) for k, name in enumerate(names)]
    path = tmp_path_factory.mktemp("files") / f"model{suffix}"
    interop.write_model(path, energy, offset, names if suffix in NAMED else None)
    model = interop.read_model(path)
    assert model.names == (tuple(names) if suffix in NAMED else tuple(range(n)))
    np.testing.assert_allclose(table(model), helpers.energy_table(energy) + offset, **CLOSE)
    # By its content alone, which another suffix does not tell.
    other = path.with_suffix(".txt")
    path.rename(other)
    np.testing.assert_array_equal(table(interop.read_model(other)), table(model))


@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
def test_dimod_reads_our_coordinate_lists_and_we_read_its(tmp_path, vartype):
    energy = helpers.random_pairwise(5, KEY)
    interop.write_model(tmp_path / "a.coo", energy, 0.25, vartype=vartype)
    theirs = dimod.serialization.coo.loads((tmp_path / "a.coo").read_text())
    states = helpers.configurations(5) if vartype == "SPIN" else bits(5)
    model = interop.read_model(tmp_path / "a.coo")
    told = theirs.energies((states.astype(np.int8), range(5)))
    # dimod's format has no offset: it is in a comment, which dimod does not read.
    np.testing.assert_allclose(np.ptp(table(model) - told), 0, atol=1e-12)
    np.testing.assert_allclose(table(model), helpers.energy_table(energy) + 0.25, **CLOSE)
    text = dimod.serialization.coo.dumps(theirs, vartype_header=True)
    (tmp_path / "b.coo").write_text(text)
    again = interop.read_model(tmp_path / "b.coo")
    expected = dimod.serialization.coo.loads(text)
    np.testing.assert_allclose(
        table(again), expected.energies((states.astype(np.int8), range(5))), **CLOSE
    )


def test_variables_of_a_coordinate_list_are_the_numbers_that_occur(tmp_path):
    (tmp_path / "a.coo").write_text("7 7 -1\n\n# a comment\n3 7 2.5\n")
    with pytest.raises(ValueError, match=r"a\.coo does not say whether its variables are spins"):
        interop.read_model(tmp_path / "a.coo")
    model = interop.read_model(tmp_path / "a.coo", vartype="SPIN")
    assert model.names == (3, 7) and model.offset == 0
    np.testing.assert_allclose(table(model), [3.5, -1.5, -3.5, 1.5])
    model = interop.read_model(tmp_path / "a.coo", vartype="binary")
    np.testing.assert_allclose(table(model), [0, 0, -1, 1.5])


def test_scipy_reads_our_matrices_and_we_read_its(tmp_path):
    energy = helpers.random_pairwise(5, KEY)
    interop.write_model(tmp_path / "a.mtx", energy)
    matrix = scipy.io.mmread(tmp_path / "a.mtx").toarray()
    model = interop.read_model(tmp_path / "a.mtx")
    x = bits(5)
    constant = interop.to_qubo(energy).offset
    np.testing.assert_allclose(np.einsum("ai,ij,aj->a", x, matrix, x) + constant, table(model))
    dense = np.random.default_rng(0).normal(size=(4, 4))
    z = {"BINARY": bits(4), "SPIN": helpers.configurations(4)}
    given = [
        (dense, "general"),
        (dense + dense.T, "symmetric"),
        (dense - dense.T, "skew-symmetric"),
        (np.rint(dense).astype(int), "general"),
        (scipy.sparse.coo_array(np.triu(dense)), "general"),
        (scipy.sparse.coo_array(dense + dense.T), "symmetric"),
        (scipy.sparse.coo_array(dense > 0), "general"),
    ]
    for matrix, symmetry in given:
        field = "pattern" if matrix.dtype == bool else None
        scipy.io.mmwrite(tmp_path / "b.mtx", matrix, field=field, symmetry=symmetry)
        plain = np.asarray(matrix.toarray() if scipy.sparse.issparse(matrix) else matrix, float)
        for vartype, states in z.items():
            model = interop.read_model(tmp_path / "b.mtx", vartype=vartype)
            expected = np.einsum("ai,ij,aj->a", states, plain, states)
            np.testing.assert_allclose(table(model), expected, **CLOSE)


def test_a_qubo_of_qbsolv(tmp_path):
    text = (
        "c an example\np qubo 0 5 3 2\n0 0 3.4\n1 1 -4.5\n4 4 2.1\nc couplers\n0 1 2.2\n1 4 3.1\n"
    )
    (tmp_path / "a.qubo").write_text(text)
    model = interop.read_model(tmp_path / "a.qubo")
    assert model.names == (0, 1, 4)
    x, y, z = bits(3).T
    expected = 3.4 * x - 4.5 * y + 2.1 * z + 2.2 * x * y + 3.1 * y * z
    np.testing.assert_allclose(table(model), expected, **CLOSE)


def test_energies_of_a_graph_to_be_cut_are_minus_its_cuts(tmp_path):
    rng = np.random.default_rng(0)
    edges = [(a, b, int(rng.choice([-1, 1, 3]))) for a, b in itertools.combinations(range(6), 2)]
    edges = edges[::2]
    lines = [f"6 {len(edges)}", *(f"{a + 1} {b + 1} {w}" for a, b, w in edges)]
    (tmp_path / "G1").write_text("\n".join(lines))  # the Gset has no suffixes
    model = interop.read_model(tmp_path / "G1")
    s = helpers.configurations(6)
    cuts = sum(w * (s[:, a] != s[:, b]) for a, b, w in edges)
    np.testing.assert_allclose(table(model), -cuts, atol=1e-12)
    assert model.names == (1, 2, 3, 4, 5, 6)
    interop.write_model(tmp_path / "b.gset", model.energy)
    again = interop.read_model(tmp_path / "b.gset")
    np.testing.assert_allclose(table(again), -cuts, atol=1e-12)
    with pytest.warns(UserWarning, match=r"b\.gset leaves out the offset"):
        interop.write_model(tmp_path / "b.gset", model.energy, 0.5)
    (tmp_path / "c.mc").write_text("3 2\n1 2\n2 3 -2\n")  # an edge without a weight has 1
    s = helpers.configurations(3)
    cuts = (s[:, 0] != s[:, 1]) - 2.0 * (s[:, 1] != s[:, 2])
    np.testing.assert_allclose(table(interop.read_model(tmp_path / "c.mc")), -cuts, atol=1e-12)
    with pytest.raises(ValueError, match="must have no fields to be a cut"):
        interop.write_model(tmp_path / "b.gset", helpers.random_pairwise(3, KEY))


def test_terms_of_any_order(tmp_path):
    energy = helpers.random_interactions(6, KEY)
    interop.write_model(tmp_path / "a.terms", energy, 0.5, list("abcdef"))
    model = interop.read_model(tmp_path / "a.terms")
    assert model.names == tuple("abcdef") and isinstance(model.energy, tg.Interactions)
    np.testing.assert_allclose(table(model), helpers.energy_table(energy) + 0.5, **CLOSE)
    (tmp_path / "b.terms").write_text("# by hand\n0.5\n-1 2\n2e0 0 1\n1 0 1 3\n")
    model = interop.read_model(tmp_path / "b.terms")
    terms = {(): 0.5, (2,): -1.0, (0, 1): 2.0, (0, 1, 3): 1.0}
    expected = helpers.energy_table(tg.Interactions.from_terms(4, terms))
    np.testing.assert_allclose(table(model), expected, **CLOSE)


def potts_energies(lines, states, n):
    """Energies of adabmDCA: minus the parameters of the states that occur, all added up."""
    parameters = [(words[0], words[1:-1], float(words[-1])) for words in map(str.split, lines)]
    found = []
    for s in helpers.configurations(n):
        chosen = [states[int(x > 0)] for x in s]
        total = 0.0
        for kind, (*sites, symbols), value in [
            (k, (*w[: len(w) // 2], w[len(w) // 2 :]), v) for k, w, v in parameters
        ]:
            assert kind in "Jh"
            there = [chosen[int(site)] for site in sites]
            total -= value * (there == list(symbols))
        found.append(total)
    return found


@pytest.mark.parametrize("states", ["01", "-A", ("7", "q")])
def test_parameters_of_adabmdca_with_two_states(tmp_path, states):
    rng = np.random.default_rng(0)
    lines = [
        f"J {i} {j} {a} {b} {rng.normal():.6f}"
        for i, j in itertools.combinations(range(4), 2)
        for a in states
        for b in states
        if rng.random() < 0.8  # a sparse model leaves some out
    ]
    lines += [f"h {i} {a} {rng.normal():.6f}" for i in range(4) for a in states]
    (tmp_path / "params.dat").write_text("\n".join(lines))
    model = interop.read_model(tmp_path / "params.dat")
    np.testing.assert_allclose(table(model), potts_energies(lines, states, 4), **CLOSE)
    interop.write_model(tmp_path / "again.dat", *model)
    written = (tmp_path / "again.dat").read_text().splitlines()
    np.testing.assert_allclose(potts_energies(written, "01", 4), table(model), **CLOSE)


def test_more_states_than_two_are_refused(tmp_path):
    (tmp_path / "params.dat").write_text("J 0 1 A C 0.5\nh 0 - 1.0\nh 0 A 1.0\nh 1 C 0.0\n")
    with pytest.raises(ValueError, match=r"params\.dat has 3 states a site \(-, A, C\); expected"):
        interop.read_model(tmp_path / "params.dat")
    with pytest.warns(UserWarning, match="leaves out the names"):
        interop.write_model(tmp_path / "b.dat", helpers.random_pairwise(2, KEY), names=["a", "b"])


def archive_of_rbms(path, w, a, b, *, update=7, model_type="BBRBM", nested=True):
    """As `rbms.io.save_model` writes it, with what a training leaves beside the parameters."""
    with h5py.File(path, "w") as f:
        for number in (0, update):
            checkpoint = f.create_group(f"update_{number}")
            group = checkpoint.create_group("params") if nested else checkpoint
            scale = number == update
            for name, x in (("weight_matrix", w), ("vbias", a), ("hbias", b)):
                group[name] = np.float32(scale * x)
            checkpoint["numpy_rng_arg0"] = "MT19937"
            checkpoint["time"] = 1.5
        f["parallel_chains"] = np.zeros((3, a.size))
        if model_type is not None:
            f["model_type"] = model_type


@pytest.mark.parametrize("form", [{}, {"nested": False, "model_type": None}])
def test_an_archive_of_rbms(tmp_path, form):
    rng = np.random.default_rng(0)
    w, a, b = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3)
    archive_of_rbms(tmp_path / "rbm.h5", w, a, b, **form)
    model = interop.read_model(tmp_path / "rbm.h5")
    x = bits(7)
    v, h = x[:, :4], x[:, 4:]
    expected = -np.einsum("ai,ij,aj->a", v, w, h) - v @ a - h @ b
    np.testing.assert_allclose(table(model), expected, atol=1e-5)
    interop.write_model(tmp_path / "again.h5", *model)
    np.testing.assert_allclose(table(interop.read_model(tmp_path / "again.h5")), table(model))
    with h5py.File(tmp_path / "again.h5") as f:  # the reader of rbms asks for these
        assert f["model_type"][()].decode() == "BBRBM"
        assert set(f["update_0"]["params"]) == {"weight_matrix", "vbias", "hbias"}
        np.testing.assert_allclose(f["update_0"]["params"]["weight_matrix"][()], w, rtol=1e-6)


def test_archives_that_hold_something_else_are_refused(tmp_path):
    path, zero = tmp_path / "rbm.h5", np.zeros(2)
    archive_of_rbms(path, np.zeros((2, 2)), zero, zero, model_type="PBRBM")
    with pytest.raises(ValueError, match=r"rbm\.h5 holds a machine of type PBRBM; expected BBRBM"):
        interop.read_model(path)
    archive_of_rbms(path, np.zeros((2, 3)), zero, zero)
    with pytest.raises(ValueError, match=r"rbm\.h5: weights and biases must have shapes"):
        interop.read_model(path)
    with h5py.File(path, "w") as f:
        f.create_dataset("update_1/params/weight_matrix", (1,), h5py.string_dtype())
    with pytest.raises(ValueError, match="params/weight_matrix must be an array of numbers"):
        interop.read_model(path)
    with h5py.File(path, "w") as f:
        f["data"] = zero
    with pytest.raises(ValueError, match=r"rbm\.h5 is no archive of rbms"):
        interop.read_model(path)
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"rbm\.h5 cannot be read as HDF5"):
        interop.read_model(path)
    with pytest.raises(TypeError, match="must have hidden spins"):
        interop.write_model(path, helpers.random_pairwise(3, KEY))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.coo",
            "# vartype=SPIN\n0 1 2\n0 1\n",
            "a.coo, line 3: expected two variables",
        ),
        ("a.coo", "# vartype=SPIN\n0 x 2\n", "line 2: expected a whole number of at least 0, got"),
        ("a.coo", "# vartype=SPIN\n0 1 nan\n", "line 2: expected a finite number, got 'nan'"),
        ("a.coo", "# vartype=SPIN\n0 1 1.2.3\n", "line 2: expected a finite number, got '1.2.3'"),
        ("a.coo", "# vartype=SPIN\n-1 1 1\n", "line 2: expected a whole number"),
        ("a.coo", "# vartype=bits\n0 1 1\n", "line 1: vartype must be SPIN or BINARY, got 'bits'"),
        ("a.coo", "# vartype=SPIN\n# offset=x\n", "line 2: offset must be a finite number"),
        ("a.coo", '# vartype=SPIN\n# names=["a"]\n0 1 1\n', "line 3: there are 1 names alone"),
        ("a.coo", "# vartype=SPIN\n# names=[a]\n", "a.coo, line 2: names must be a list in JSON"),
        ("a.coo", '# vartype=SPIN names=["a", "a"]\n', "a.coo: names must differ from each other"),
        ("a.terms", '# names=["a"]\n1 0 1\n', "a.terms: names must be 2, one for each spin, got 1"),
        ("a.mtx", f"{MM} coordinate real general\n2 2 9\n1 1 1\n", "line 2: it announces 9 entr"),
        ("a.mtx", f"{MM} coordinate real general\n2 3 1\n1 1 1\n", "line 2: expected a square mat"),
        ("a.mtx", f"{MM} coordinate real general\n2 2 1\n1 3 1\n", "line 3: the matrix has 2 rows"),
        ("a.mtx", f"{MM} coordinate real general\n2 2\n", "line 2: expected the size of a coordin"),
        ("a.mtx", f"{MM} coordinate complex general\n1 1 0\n", "line 1: expected one of real, "),
        ("a.mtx", f"{MM} array real symmetric\n2 2\n1\n2\n", "line 2: it announces 3 entries; 2"),
        ("a.mtx", f"{MM} array real general\n1 1\n1 2\n", "line 3: expected one number, got '1 2'"),
        ("a.mtx", f"{MM} array pattern general\n1 1\n", "line 1: a pattern has coordinates"),
        ("a.mtx", f"{MM} array real general\n", "line 2: expected the size of the matrix"),
        ("a.mtx", "%%MatrixMarket\n", "a.mtx, line 1: expected '%%MatrixMarket matrix"),
        ("a.mtx", "", "a.mtx, line 1: expected '%%MatrixMarket matrix"),
        ("a.qubo", "c nothing\n", "a.qubo, line 1: expected 'p qubo 0"),
        ("a.qubo", "p qubo 0 2 1 1\n0 0 1\n", "line 1: it announces 1 nodes and 1 couplers; 1"),
        ("a.qubo", "p qubo 0 2 1 1\n0 0 1\n1 0 1\n", "line 3: a coupler must have its lower"),
        ("a.qubo", "p qubo 0 2 2 0\n0 0 1\n0 0 1\n", "line 3: 0 0 occurs twice"),
        ("a.qubo", "p qubo 0 2 1 0\n5 5 1\n", "line 2: node 5 is not below maxNodes, 2"),
        ("a.gset", "3 1\n1 4 1\n", "a.gset, line 2: there are 3 nodes alone"),
        ("a.gset", "3 1\n0 1 1\n", "line 2: expected a whole number of at least 1, got '0'"),
        ("a.gset", "3 2\n1 2 1\n", "line 1: it announces 2 edges; 1 lines follow"),
        ("a.gset", "", "a.gset, line 1: expected the numbers of nodes and edges"),
        ("a.terms", "1 0 0\n", "a.terms, line 1: a term must not repeat a spin"),
        ("a.terms", "1 0 1\n2 1 0\n", r"line 2: the term of spins \(0, 1\) occurs twice"),
        ("a.terms", "# spins=2\n1 2\n", "line 2: spin 2 is beyond the 2 that are announced"),
        (
            "a.dat",
            "J 0 0 a b 1\nh 0 a 1\nh 0 b 1\n",
            "line 1: site 0 must not be coupled",
        ),
        ("a.dat", "h 0 a 1\nk 0 b 1\n", "line 2: expected 'J i j a b value' or 'h i a value'"),
        ("a.graphml", "<graphml><graph>", "a.graphml cannot be read as GraphML"),
        ("a.eqx", "{}\n", "a.eqx is not an energy saved by thermogen"),
        ("a.txt", "hello\n", "a.txt holds no model that is known; expected one of .eqx, .h5"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    vartype = "SPIN" if name == "a.mtx" else None
    with pytest.raises(ValueError, match=message):
        interop.read_model(tmp_path / name, vartype=vartype)


def test_what_cannot_be_read_or_written_is_named(tmp_path):
    energy = helpers.random_pairwise(3, KEY)
    with pytest.raises(ValueError, match=r"a\.json has no suffix of a model; expected one of"):
        interop.write_model(tmp_path / "a.json", energy)
    with pytest.raises(ValueError, match="vartype must be SPIN or BINARY, got 'bits'"):
        interop.write_model(tmp_path / "a.coo", energy, vartype="bits")
    with pytest.raises(ValueError, match="names must differ from each other, got '1' twice"):
        interop.write_model(tmp_path / "a.graphml", energy, names=[1, "1", 2])
    with pytest.raises(ValueError, match=r"names must have no control characters in .* '\\x00'"):
        interop.write_model(tmp_path / "a.graphml", energy, names=["\x00", "b", "c"])
    with pytest.raises(FileNotFoundError, match="no such file"):
        interop.read_model(tmp_path / "none.coo")
    with pytest.raises(ValueError, match="is not a regular file"):
        interop.read_model(tmp_path)
    (tmp_path / "latin.coo").write_bytes(b"# vartype=SPIN\n0 1 1 # \xe9\n")
    with pytest.raises(ValueError, match=r"latin\.coo is not a text in UTF-8"):
        interop.read_model(tmp_path / "latin.coo")
    for suffix in (".coo", ".mtx", ".qubo", ".gset", ".graphml", ".dat"):
        with pytest.raises(TypeError, match="needs an energy with terms of up to 2 spins"):
            interop.write_model(tmp_path / f"a{suffix}", helpers.random_interactions(5, KEY))
    assert not list(tmp_path.glob("a.*"))


def test_a_model_of_ours_keeps_its_class_and_its_notes(tmp_path):
    machine = helpers.random_rbm(5, KEY)
    interop.write_model(tmp_path / "a.eqx", machine, 1.5, list("abcde"))
    energy, offset, names = interop.read_model(tmp_path / "a.eqx")
    assert isinstance(energy, tg.RBM) and offset == 1.5 and names == tuple("abcde")
    np.testing.assert_array_equal(energy.weights, machine.weights)
    for notes in ({"offset": "x"}, {"names": "abc"}, {"names": ["a"]}, {"names": [[]] * 5}):
        tg.storage.save_energy(tmp_path / "b.eqx", machine, notes=notes)
        with pytest.raises(ValueError, match=r"b\.eqx: "):
            interop.read_model(tmp_path / "b.eqx")


def test_numbers_come_back_to_the_last_bit(tmp_path):
    numbers = [1e-300, -1e300, 0.1 + 0.2, 5e-324]
    terms = {(k,): x for k, x in enumerate(numbers)}
    interop.write_model(tmp_path / "a.terms", tg.Interactions.from_terms(4, terms))
    read = interop.read_model(tmp_path / "a.terms").energy
    np.testing.assert_array_equal(tg.energies.terms(read).couplings[0], numbers)


def test_h5_without_h5py_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"interop\.write_model needs h5py.*thermogen\[interop\]"):
        interop.write_model(tmp_path / "a.h5", helpers.random_rbm(3, KEY))


def test_nothing_is_written_in_part(tmp_path):
    """A file of an earlier time stays where writing fails."""
    (tmp_path / "a.gset").write_text("1 0\n")
    with pytest.raises(ValueError, match="must have no fields"):
        interop.write_model(tmp_path / "a.gset", helpers.random_pairwise(3, KEY))
    assert (tmp_path / "a.gset").read_text() == "1 0\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.gset"]


@pytest.mark.further
@pytest.mark.parametrize("suffix", [*QUADRATIC, ".h5", ".gset"])
@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=150)
def test_damage_is_an_error_that_names_the_file(suffix, data, tmp_path_factory):
    """Bytes that are changed, left out or cut off: a model, or ValueError, and nothing else."""
    path = tmp_path_factory.mktemp("files") / f"model{suffix}"
    energy = helpers.random_rbm(4, KEY) if suffix == ".h5" else BONDS
    names = ["a", "b", "c", "d"] if suffix in NAMED else None
    interop.write_model(path, energy, names=names)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["change", "drop", "cut", "insert"]))
        if how == "change":
            content[place] = data.draw(st.integers(0, 255))
        elif how == "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=3))
        else:
            del content[place : None if how == "cut" else place + 1]
        if not content:
            break
    path.write_bytes(content)
    vartype = data.draw(st.sampled_from([None, "SPIN"]))
    try:
        model = interop.read_model(path, vartype=vartype)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert np.isfinite(model.offset) and len(model.names) == model.energy.n_spins
