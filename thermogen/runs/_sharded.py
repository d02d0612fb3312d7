"""States whose arrays are split over devices or processes, stored by orbax."""

import hashlib
import json
import shutil
from pathlib import Path

import jax
from jaxtyping import Array

from .._files import write_atomically
from ._processes import from_first

SUFFIX = ".orbax"
# Written last: a folder without it, or that has changed since, is not whole.
_MANIFEST = "thermogen.json"
_FORMAT = "thermogen sharded checkpoint 1"


def is_spread(arrays: list[Array]) -> bool:
    """Whether some array is split, or lies in several processes."""
    return any(not (x.is_fully_replicated and x.is_fully_addressable) for x in arrays)


def write_sharded(path: Path, run: str, arrays: list[Array]) -> None:
    """Store arrays of all processes, which must all ask."""
    try:
        with checkpointer() as writer:
            writer.save(path.absolute(), _named(arrays))
    except ValueError as error:  # of orbax, where the disk is full
        raise OSError(str(error)) from error
    from_first(lambda: _seal(path, run))


def _seal(path: Path, run: str) -> None:
    manifest = {"format": _FORMAT, "run": run, "checksum": _checksum(path)}
    with write_atomically(path / _MANIFEST) as stream:
        stream.write(json.dumps(manifest).encode())


def check_sharded(path: Path) -> str:
    """The run that a stored state is of.

    Raises:
        ValueError: if it is damaged or not whole.
        OSError: if it cannot be read.
    """
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        sound = manifest["format"] == _FORMAT and manifest["checksum"] == _checksum(path)
        if sound:
            return str(manifest["run"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{path} is damaged or was not written to its end")


def read_sharded(path: Path, like: list[Array]) -> list[Array]:
    """Arrays, each where its counterpart lies; all processes must ask."""
    wanted = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in like]
    with checkpointer() as reader:
        found = reader.restore(path.absolute(), _named(wanted))
    return [found[name] for name in _named(like)]


def remove(path: Path) -> None:
    """A file, or a folder with all that it holds."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _named(arrays: list) -> dict:
    return {f"{k:04d}": x for k, x in enumerate(arrays)}


def checkpointer():
    """What orbax writes and reads by.

    Raises:
        ImportError: if orbax is not installed.
    """
    try:
        import orbax.checkpoint
    except ModuleNotFoundError as error:
        raise ImportError(
            "a checkpoint of arrays on several devices needs orbax; install it with: "
            "pip install 'thermogen[cluster]'"
        ) from error
    return orbax.checkpoint.StandardCheckpointer()


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name != _MANIFEST):
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
