"""The command `convert`: from format to format, errors and what is left out in one line."""

import helpers
import jax
import numpy as np
import pytest
from typer.testing import CliRunner

from thermogen import cli, interop, storage

KEY = jax.random.key(0)


def run(*arguments):
    return CliRunner().invoke(cli.app, ["convert", *map(str, arguments)])


def table(path):
    model = interop.read_model(path)
    return helpers.energy_table(model.energy) + model.offset


def test_a_model_goes_from_format_to_format_and_stays_the_same(tmp_path):
    energy = helpers.random_pairwise(5, KEY)
    storage.save_energy(tmp_path / "model.eqx", energy)
    names = ["model.eqx", "a.qubo", "b.coo", "c.mtx", "d.graphml", "e.terms", "f.dat", "g.eqx"]
    for source, target in zip(names, names[1:], strict=False):
        done = run(tmp_path / source, tmp_path / target)
        assert done.exit_code == 0, done.output
        assert done.stdout.strip() == str(tmp_path / target) and done.stderr == ""
    np.testing.assert_allclose(
        table(tmp_path / "g.eqx"), helpers.energy_table(energy), rtol=1e-12, atol=1e-12
    )


def test_variables_of_both_files(tmp_path):
    (tmp_path / "a.mtx").write_text("%%MatrixMarket matrix coordinate real general\n2 2 1\n1 2 4\n")
    done = run(tmp_path / "a.mtx", tmp_path / "a.coo", "--vartype", "BINARY")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.coo").read_text() == "# vartype=BINARY\n0 0 0\n1 1 0\n0 1 4\n"
    done = run(tmp_path / "a.coo", tmp_path / "b.coo")
    assert (tmp_path / "b.coo").read_text() == ("# vartype=SPIN\n# offset=1\n0 0 1\n1 1 1\n0 1 1\n")


def test_what_the_format_cannot_hold_is_said(tmp_path):
    (tmp_path / "a.terms").write_text('# names=["a", "b"]\n1 0 1\n')
    done = run(tmp_path / "a.terms", tmp_path / "a.dat")
    assert done.exit_code == 0
    assert "thermogen convert:" in done.stderr and "leaves out the names" in done.stderr


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        ("none.coo", "a.eqx", [], "no such file"),
        ("cubic.terms", "a.qubo", [], "needs an energy with terms of up to 2 spins"),
        ("cubic.terms", "a.json", [], "has no suffix of a model; expected one of .eqx"),
        ("cubic.terms", "a.coo", ["--vartype", "x"], "must be SPIN or BINARY, got 'x'"),
        ("bad.coo", "a.eqx", [], "bad.coo, line 2: expected a finite number, got 'x'"),
    ],
)
def test_errors_are_one_line(tmp_path, source, target, options, message):
    (tmp_path / "cubic.terms").write_text("1 0 1 2\n")
    (tmp_path / "bad.coo").write_text("# vartype=SPIN\n0 1 x\n")
    done = run(tmp_path / source, tmp_path / target, *options)
    assert done.exit_code == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / target).exists()
