"""Every entry of the API has an example, and all examples run as written."""

import importlib
import re
import textwrap

import pytest

from docs_build.links import all_entries
from docs_build.shown import shown_by

# What no example can show: an open function that `describe` shows, and a job of minutes.
WITHOUT = {"thermogen.energies.rebuild", "thermogen.study.run_study"}
MODULES = sorted({entry.rpartition(".")[0] for entry in all_entries()})


def examples(module: str) -> dict[str, str]:
    """The code of the examples of a module, by the name whose docstring holds it."""
    found = {}
    for name, value in vars(importlib.import_module(module)).items():
        if name.startswith("_") or not getattr(value, "__module__", "").startswith("thermogen"):
            continue
        for code in re.findall(r"```python\n(.*?)```", value.__doc__ or "", flags=re.DOTALL):
            found[name] = textwrap.dedent(code)
    return found


def test_every_entry_has_an_example():
    """A function its own; a class, such as a result, may lead to that of a function."""
    assert set(all_entries()) - set(shown_by()) == WITHOUT


@pytest.mark.further
@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = examples(module)
    own = {entry for entry, shows in shown_by().items() if shows == entry}
    assert {name for name in found if f"{module}.{name}" in all_entries()} == {
        entry.rpartition(".")[2] for entry in own if entry.rpartition(".")[0] == module
    }
    for name, code in found.items():
        assert "assert " in code, f"the example of {module}.{name} shows nothing"
        exec(compile(code, f"<example of {module}.{name}>", "exec"), {})
