"""Processes that are killed, for real: a short version of `experiments/kills.py`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(("kinds", "rounds"), [(["search", "fit", "sample"], 6), (["study"], 2)])
def test_what_is_killed_at_any_moment_ends_at_the_same_bits(kinds, rounds):
    command = [sys.executable, "-m", "experiments", "kills", *kinds, "--rounds", str(rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for kind in kinds:
        row = re.search(rf"^{kind} +\S+ +(\d+) +(\d+) +(\d+) +(\d+) ", done.stdout, re.MULTILINE)
        assert row is not None, done.stdout
        assert row.groups() == (str(rounds), str(rounds // 3), str(rounds), "0"), done.stdout
