"""The house plan, checked: a module imports only public names, from the layers below its own.

The check reads the source (AST), so imports inside functions and under TYPE_CHECKING count.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "thermogen"
ROOT = Path(__file__).parent.parent / PACKAGE

# From the ground up. A room is a module or a folder; rooms of one layer are blind to each other.
LAYERS = (
    ("_codes", "_types"),
    ("_version", "_xla"),
    (
        "_batches",
        "_bits",
        "_checks",
        "_compile",
        "_cold",
        "_digest",
        "_files",
        "_linalg",
        "_merging",
        "_placement",
        "_programs",
        "_shown",
        "_signals",
        "_solution",
    ),
    ("_cluster", "_split", "_tasks"),
    ("runs",),
    ("spins",),
    ("walsh",),
    ("datasets", "energies"),
    ("exact", "meanfield"),
    ("sampling",),
    ("learning", "search"),
    ("landscape",),
    ("kinetics",),
    ("experts", "retrieval"),
    ("plots", "storage"),
    ("interop",),
    ("study",),
    ("_results",),
    ("_api", "cli"),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

# Heavy, and of no use to who computes only.
PLOTTING = {"matplotlib", "mpl_toolkits"}
PLOTTING_ROOM = "plots"


def _imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and absolute dotted path of everything imported; `package` resolves relative ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                # Each dot after the first climbs one package; too many lead out of the house.
                climbed = len(package) - (node.level - 1)
                module = (*package[:climbed], *module) if climbed > 0 else ("..", *module)
            for alias in node.names:
                yield node.lineno, (*module, alias.name)


def _fault(room: str, target: tuple[str, ...]) -> str | None:
    """What is wrong with an import of `target` by `room`, if anything."""
    if target[0] in PLOTTING and room != PLOTTING_ROOM:
        return f"imports {target[0]}, which belongs to {PLOTTING_ROOM}/ alone"
    if target[0] == "..":
        return "climbs out of the package"
    if target[0] != PACKAGE:
        return None
    if len(target) == 1:
        return f"imports {PACKAGE} itself, and with it every room"
    other = target[1]
    if other not in LEVEL:
        return f"imports {PACKAGE}.{other}, which is no room of the plan"
    if other != room and LEVEL[other] >= LEVEL[room]:
        return f"imports {other}, which does not lie below {room}"
    if other != room and any(part.startswith("_") for part in target[2:]):
        return f"imports what {other} keeps private"
    return None


def violations(root: Path) -> list[str]:
    found = []
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if parts == ("__init__",):
            continue
        place, room = file.relative_to(root).as_posix(), parts[0]
        if room not in LEVEL:
            found.append(f"{place}: {room} is no room of the plan")
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for line, target in _imports(tree, (PACKAGE, *parts[:-1])):
            fault = _fault(room, target)
            if fault:
                found.append(f"{place}:{line}: {fault}")
    return found


def test_every_module_imports_from_below():
    assert (ROOT / "spins.py").exists()  # else the check would pass on nothing
    assert not violations(ROOT)


def _plant(root: Path, file: str, source: str) -> list[str]:
    path = root / PACKAGE / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return violations(root / PACKAGE)


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        ("spins.py", "import thermogen.energies", "energies, which does not lie below spins"),
        ("spins.py", "import numpy, thermogen.cli as c", "cli, which does not lie below"),
        ("spins.py", "from thermogen.exact import x", "exact, which does not lie below"),
        ("spins.py", "from thermogen import exact", "exact, which does not lie below"),
        ("spins.py", "from . import exact", "exact, which does not lie below"),
        ("spins.py", "from .walsh import x", "walsh, which does not lie below"),
        ("datasets/_load.py", "from ..energies import x", "energies, which does not lie below"),
        ("energies/_base.py", "from ..datasets import x", "datasets, which does not lie below"),
        ("energies/_base.py", "from .. import exact", "exact, which does not lie below"),
        ("energies/__init__.py", "from ..exact import x", "exact, which does not lie below"),
        ("meanfield/_solve.py", "from ..sampling._gibbs import x", "sampling, which does not"),
        ("exact.py", "def f():\n    from .meanfield import x", "meanfield, which does not"),
        ("learning/_fit.py", "from ..search import x", "search, which does not lie"),
        ("search/_quench.py", "from ..kinetics import x", "kinetics, which does not lie"),
        ("retrieval/_recall.py", "from ..experts import x", "experts, which does not lie below"),
        ("storage.py", "from .cli import main", "cli, which does not lie below"),
        ("runs.py", "from .spins import x", "spins, which does not lie below runs"),
        (
            "exact.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .cli import x",
            "cli, which does not lie below",
        ),
        ("search/_quench.py", "from ..meanfield._solve import x", "what meanfield keeps private"),
        ("search/_quench.py", "from ..meanfield import _solve", "what meanfield keeps private"),
        ("exact.py", "import thermogen as tg", "imports thermogen itself"),
        ("exact.py", "from . import solve", "thermogen.solve, which is no room"),
        ("exact.py", "from .attic import x", "thermogen.attic, which is no room"),
        ("exact.py", "from . import *", "which is no room"),
        ("energies/_base.py", "from ... import x", "climbs out"),
        ("attic.py", "", "attic is no room"),
        ("exact.py", "import matplotlib.pyplot as plt", "imports matplotlib"),
        ("cli.py", "def f():\n    from matplotlib import pyplot", "imports matplotlib"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, source, fault):
    (found,) = _plant(tmp_path, file, source)
    assert found.startswith(file)
    assert fault in found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("__init__.py", "from .cli import main\nfrom .spins import overlap"),
        ("spins.py", "import jax\nfrom ._types import Spins\nfrom thermogen import _types"),
        ("walsh.py", "from .spins import x\nfrom . import _solution"),
        (
            "energies/_pairwise.py",
            "from . import _base\nfrom ._base import x\nfrom .. import walsh",
        ),
        ("energies/__init__.py", "from ._base import x\nfrom thermogen.energies._base import y"),
        ("sampling/_gibbs.py", "from ..runs import x\nfrom ..energies import y"),
        ("search/_quench.py", "import thermogen.meanfield\nfrom .. import sampling"),
        ("plots/_trees.py", "import matplotlib.pyplot as plt\nfrom ..landscape import x"),
        ("cli.py", "def main():\n    from . import study, storage"),
    ],
)
def test_what_the_plan_allows_passes(tmp_path, file, source):
    assert _plant(tmp_path, file, source) == []


def test_a_name_brings_no_more_than_it_needs():
    """Nor do names, which are read from the list of the API, differ from those that it imports."""
    script = (
        "import sys, thermogen as tg\n"
        "assert 'jax' not in sys.modules and 'Pairwise' in dir(tg)\n"
        "tg.Pairwise, tg.sample, tg.exact\n"
        "heavy = {'networkx', 'optax', 'optimistix', 'scipy.sparse', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "from thermogen import _api\n"
        "for name, value in vars(_api).items():\n"
        "    assert name.startswith('_') or getattr(tg, name) is value and name in dir(tg), name\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.further
def test_any_room_can_be_imported_first():
    """Each in a process of its own, forked where what they all need has been imported."""
    rooms = [room for layer in LAYERS[2:-1] for room in layer]
    script = (
        "import os, sys, equinox, jax, optax, optimistix\n"
        f"for room in {rooms}:\n"
        "    if os.fork() == 0:\n"
        f"        __import__(f'{PACKAGE}.{{room}}')\n"
        "        os._exit(0)\n"
        "    if os.wait()[1]:\n"
        "        sys.exit(f'{room} cannot be imported first')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
