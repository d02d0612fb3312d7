"""Compiled programs on disk, so that the next command does not compile them again.

JAX keeps them and reads its settings when it is imported; this module imports nothing heavy, so
that it can act before. For the command line alone: a library does not choose folders for others.
"""

import contextlib
import glob
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

from ._xla import few_passes

_BOUND = 2**28  # bytes of all programs; a study of one size writes five million
_DAY = 86_400.0
_DISABLED = "JAX_ENABLE_COMPILATION_CACHE"
_FOLDER = "JAX_COMPILATION_CACHE_DIR"
# JAX keeps what took a second; of a study that would be a sixth of the time.
_DEFAULTS = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
_ACCELERATORS = "jax_plugins", "libtpu"
# What JAX says of a program that it cannot read or write; `_listen` says it once.
TROUBLE = re.compile(r"Error (?:read|writ)ing persistent compilation cache entry for '(.*?)': (.*)")


def keep() -> None:
    """Let JAX keep programs in the user's cache folder, unless its own settings say where.

    A folder that cannot be used is said in one line, and programs are compiled anew.
    """
    if _FOLDER in os.environ:
        return
    try:
        folder = _default_folder()
        _prepare(folder)
    except (OSError, RuntimeError) as error:
        _say(error)
        return
    os.environ[_FOLDER] = str(folder)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    _listen(folder)


def forget() -> None:
    """Let JAX neither read nor keep programs."""
    os.environ[_DISABLED] = "false"


def hurry() -> None:
    """Let XLA compile with fewer passes, where nobody has said otherwise and there is no GPU."""
    if any(importlib.util.find_spec(name) for name in _ACCELERATORS):
        return
    options = few_passes()
    if not options:
        return
    # A command compiles several programs at once already.
    options = {**options, "xla_cpu_parallel_codegen_split_count": 1}
    given = os.environ.get("XLA_FLAGS", "")
    new = [f"--{name}={value}".lower() for name, value in options.items()]
    chosen = [flag for flag in new if flag.split("=")[0] not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *chosen]).strip()


def _default_folder() -> Path:
    """The folder for this kind of machine, within the user's cache folder of this system."""
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        base = base if base.is_absolute() else home / ".cache"  # the convention ignores others
    # XLA loads machine code of another processor and dies of its first unknown instruction; hosts
    # of a cluster differ and share one home.
    return base / "thermogen" / f"programs-{hashlib.sha256(_processor().encode()).hexdigest()[:8]}"


def _processor() -> str:
    """What tells the instructions of this processor from those of others."""
    flags = ""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
        flags = found[1] if found else ""
    return f"{platform.machine()} {flags}"


def _prepare(folder: Path) -> None:
    """Make the folder, see that it is the user's own and can be written to, and bound its size.

    Raises:
        OSError: for a folder that cannot serve.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    # What lies in it is executed.
    if os.name == "posix" and (found.st_uid != os.geteuid() or found.st_mode & 0o022):
        raise PermissionError(f"{folder} can be written to by others")
    with tempfile.NamedTemporaryFile(dir=folder):
        pass
    if shutil.disk_usage(folder).free < _BOUND:
        raise OSError(f"{folder} has no room for {_BOUND / 1e6:.0f} MB")
    _prune(folder)


def _prune(folder: Path) -> None:
    """Once a day: remove what was not used for longest until the rest is within the bound.

    JAX can bound the size too, but then looks at all files whenever it writes one.
    """
    mark = folder / "pruned"
    if mark.exists() and time.time() - mark.stat().st_mtime < _DAY:
        return
    mark.touch()
    with os.scandir(folder) as entries:
        files = [(e.stat(), e.path) for e in entries if e.name.endswith("-cache")]
    files.sort(key=lambda file: max(file[0].st_atime, file[0].st_mtime), reverse=True)
    held = 0
    for status, path in files:
        held += status.st_size
        if held > _BOUND:
            Path(path).unlink(missing_ok=True)


def _listen(folder: Path) -> None:
    """One line, in place of a warning of JAX for each program that cannot be read or written.

    A program that a full disk or a kill cut short is removed: JAX would never replace it.
    """
    show, said = warnings.showwarning, False

    def heard(message, category, filename, lineno, file=None, line=None) -> None:
        nonlocal said
        trouble = TROUBLE.match(str(message))
        if trouble is None:
            show(message, category, filename, lineno, file, line)
            return
        with contextlib.suppress(OSError):
            for path in folder.glob(f"{glob.escape(trouble[1])}-*-cache"):
                path.unlink(missing_ok=True)
        if not said:
            _say(f"{folder}: {trouble[2]}")
        said = True

    warnings.showwarning = heard
    warnings.filterwarnings("always", message=TROUBLE.pattern)


def _say(why: object) -> None:
    sys.stderr.write(f"thermogen: compiled programs are not kept: {why}\n")
