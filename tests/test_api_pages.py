"""What the API pages list: all that the package hands out, under names that exist."""

import importlib
import pathlib

import pytest

import thermogen as tg
from docs_build.links import all_entries, target

PAGES = pathlib.Path(__file__).parent.parent / "docs" / "api"


def found(entry: str):
    module, _, name = entry.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_every_entry_exists_and_stands_once():
    entries = all_entries()
    assert len(entries) > 300 and len(set(entries)) == len(entries)
    for entry in entries:
        found(entry)


def test_all_that_the_package_hands_out_is_listed():
    values = {name: getattr(tg, name) for name in dir(tg) if not name.startswith("_")}
    names = {n for n, v in values.items() if getattr(v, "__module__", "").startswith("thermogen")}
    assert {"sample", "Library", "RESULTS"} <= names
    assert names <= {entry.rpartition(".")[2] for entry in all_entries()}


@pytest.mark.parametrize(
    ("code", "page", "entry"),
    [
        ("sample", "", "thermogen.sampling.sample"),  # the one that `tg` hands out
        ("sample", "exact.md", "thermogen.exact.sample"),  # on its page that of the page
        ("tg.fit", "", "thermogen.learning.fit"),
        ("tg.energies", "", None),  # a module, not the function of `exact`
        ("exact.entropy", "", "thermogen.exact.entropy"),
        ("Gibbs()", "", "thermogen.sampling.Gibbs"),
        ("weights", "", None),  # an argument of many functions
        ("exp(-beta E)", "", None),
        ("energy.n_spins", "", None),
    ],
)
def test_code_leads_to_the_entry_that_it_means(code, page, entry):
    assert target(code, (PAGES / page).read_text() if page else "") == entry


def test_page_of_commands_has_every_option():
    typer = pytest.importorskip("typer")
    from thermogen.cli import app

    page = (PAGES / "commands.md").read_text()
    for name, command in typer.main.get_command(app).commands.items():
        section = page.partition(f"## thermogen {name}\n")[2].partition("\n## ")[0]
        options = {o for p in command.params for o in p.opts if o.startswith("--")} - {"--help"}
        assert options and all(f"`{option}`" in section for option in options)
