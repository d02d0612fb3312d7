"""The scripts behind the guides: found by their runner, which reads their options."""

import ast
import types
from pathlib import Path

import pytest

from experiments.__main__ import FOLDER, names, read
from thermogen._tasks import Task


@pytest.mark.parametrize("name", names())
def test_a_script_says_what_it_does_and_has_options_with_defaults(name):
    tree = ast.parse(FOLDER.joinpath(*name.split(".")).with_suffix(".py").read_text())
    assert ast.get_docstring(tree)
    mains = [f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name == "main"]
    assert len(mains) == 1
    a = mains[0].args
    assert len(a.posonlyargs) + len(a.args) == len(a.defaults) and None not in a.kw_defaults


def test_options_are_read_off_the_signature():
    def main(
        sets: tuple[str, ...] = ("a", "b"),
        /,
        *,
        out: Path = Path("results"),
        sizes: tuple[int, ...] = (16, 24),
        model: Path | None = None,
        quick: bool = False,
    ) -> None: ...

    script = types.SimpleNamespace(__doc__="One.\n\nTwo.", main=main)
    plain = {"out": Path("results"), "sizes": (16, 24), "model": None, "quick": False}
    assert read("x", script, []) == ([("a", "b")], plain)
    given = ["b", "--sizes", "--model", "m", "--quick"]
    assert read("x", script, given) == (
        [["b"]],
        plain | {"sizes": [], "model": Path("m"), "quick": True},
    )
    with pytest.raises(SystemExit):
        read("x", script, ["c"])


def test_a_script_that_is_shared_writes_to_the_folder_of_its_task(monkeypatch, capsys):
    def shared(out: Path = Path("results"), task: Task = Task()) -> None: ...

    def alone(out: Path = Path("results")) -> None: ...

    script = types.SimpleNamespace(__doc__="One.", main=shared)
    assert read("x", script, []) == ([], {"out": Path("results"), "task": Task(0, 1)})
    given = ["--task", "3", "--tasks", "10", "--out", "o"]
    assert read("x", script, given)[1] == {"out": Path("o/task-003"), "task": Task(3, 10)}
    for name, value in {"ID": 1, "MIN": 0, "COUNT": 2, "STEP": 1}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert read("x", script, [])[1]["task"] == Task(1, 2)
    # Tasks that would all do the same are refused.
    with pytest.raises(SystemExit):
        read("x", types.SimpleNamespace(__doc__="One.", main=alone), [])
    assert "the tasks of an array would all do the same" in capsys.readouterr().err
