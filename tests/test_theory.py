"""The page of the theory names functions, tests and references that exist."""

import pathlib
import re

from docs_build.links import target

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "theory.md").read_text()
CODE = re.findall(r"`([^`\n]+)`", PAGE)


def test_tests_that_it_names_exist():
    tests = [code for code in CODE if code.startswith("tests/")]
    assert len(set(tests)) > 10
    assert all((ROOT / test).is_file() for test in tests)


def test_experiments_that_it_names_exist():
    named = re.findall(r"`python -m experiments (\w+)`", PAGE)
    assert len(named) > 5
    assert all((ROOT / "experiments" / f"{name}.py").is_file() for name in named)


def test_functions_that_it_names_have_an_entry():
    names = [code for code in CODE if re.fullmatch(r"(tg|exact|\w+)\.\w+", code)]
    assert len(names) > 30
    assert [n for n in names if not target(n, "")] == ["Complete.from_weights"]


def test_what_it_cites_is_what_the_bibliography_has():
    cited = {key for keys in re.findall(r"\[(@[^\]]+)\]", PAGE) for key in re.findall(r"\w+", keys)}
    held = re.findall(r"^@\w+\{(\w+),$", (ROOT / "docs" / "references.bib").read_text(), re.M)
    assert len(held) > 15 and sorted(held) == sorted(cited)
