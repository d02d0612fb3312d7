"""The examples in the docstrings of public names run as written."""

import importlib
import pkgutil
import re
import textwrap

import pytest

import thermogen as tg

# A search compiles for longer than all other examples together.
SLOW = {"experts", "kinetics", "landscape", "learning", "search"}
FAST = {
    "datasets": 3,
    "energies": 5,
    "exact": 11,
    "interop": 17,
    "meanfield": 8,
    "plots": 1,
    "retrieval": 1,
    "runs": 1,
    "sampling": 6,
    "spins": 5,
    "storage": 1,
    "walsh": 1,
}
ROOMS = sorted(
    module.name for module in pkgutil.iter_modules(tg.__path__) if not module.name.startswith("_")
)


def examples(room: str) -> dict[str, str]:
    """The code of the examples of a room, by the name whose docstring holds it."""
    module, found = importlib.import_module(f"thermogen.{room}"), {}
    for name, value in vars(module).items():
        if name.startswith("_") or not getattr(value, "__module__", "").startswith("thermogen"):
            continue
        for code in re.findall(r"```python\n(.*?)```", value.__doc__ or "", flags=re.DOTALL):
            found[name] = textwrap.dedent(code)
    return found


def run(room: str, least: int) -> None:
    found = examples(room)
    assert len(found) >= least, f"{room} has examples of {sorted(found)} alone"
    for name, code in found.items():
        assert "assert " in code, f"the example of {room}.{name} shows nothing"
        exec(compile(code, f"<example of {room}.{name}>", "exec"), {})


@pytest.mark.further
@pytest.mark.parametrize("room", sorted(FAST))
def test_examples_run(room, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(room, FAST[room])


@pytest.mark.further
@pytest.mark.parametrize("room", sorted(set(ROOMS) - set(FAST)))
def test_examples_that_compile_long_run(room, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(room, 1 if room in SLOW else 0)
