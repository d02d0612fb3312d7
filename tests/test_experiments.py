"""The scripts behind the guides: found by their runner, which reads their options."""

import ast
import types
from pathlib import Path

import pytest

from experiments.__main__ import FOLDER, names, read


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
