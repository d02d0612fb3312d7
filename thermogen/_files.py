"""Files: one way in, which trusts nothing, and one way out, which leaves no half file behind."""

import contextlib
import errno
import functools
import hashlib
import math
import operator
import os
import secrets
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where nothing is locked
    fcntl = None

PathLike = str | os.PathLike[str]

# What a compressed archive may unpack to: this many bytes, or this many times its own size.
_UNPACKED, _FACTOR = 2**30, 100
# Bytes that are read at a time.
_PIECE = 2**20


def unpacked_limit(size: int) -> int:
    """Bytes that a packed file of that size may unpack to; beyond is damage, or a trap."""
    return max(_UNPACKED, _FACTOR * size)


@contextlib.contextmanager
def open_regular(path: PathLike) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file and its size in bytes; what else a path may name would hang or never end.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a folder, a pipe, a device, or a link to one of these.
        OSError: if the file cannot be read.
    """
    try:
        # Asked before it is opened, for some devices act on that.
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        raise FileNotFoundError(f"no such file: {path}") from None
    if regular:
        with open(os.open(path, os.O_RDONLY | _flags("NONBLOCK", "CLOEXEC")), "rb") as stream:
            status = os.fstat(stream.fileno())
            if stat.S_ISREG(status.st_mode):
                yield stream, status.st_size
                return
    raise ValueError(f"{path} is not a regular file")


@contextlib.contextmanager
def write_atomically(path: PathLike) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends, and only then.

    Several threads and processes may write one path at once: the last to finish stays, whole. A
    link is followed, and stays a link. An older file hands on its permissions. The bytes are on
    the disk, not only on their way there, before the older file goes.

    Args:
        path: the file to write. Its folder must exist.

    Raises:
        ValueError: if the path names something else than a regular file.
        OSError: if the folder does not exist or cannot be written to.
    """
    target = Path(os.path.realpath(path))
    mode = None
    with contextlib.suppress(FileNotFoundError):
        mode = os.lstat(target).st_mode  # of a link only where links run in a circle
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path} is not a regular file")
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _flags("CLOEXEC")
    try:
        with open(os.open(temporary, flags, 0o666), "wb") as stream:
            if mode is not None:
                os.chmod(temporary, stat.S_IMODE(mode))
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)


def replace(source: PathLike, path: PathLike) -> None:
    """Move a file to the place of another one, whose permissions and links stay.

    Raises:
        ValueError: if the path names something else than a regular file.
        OSError: if the file cannot be moved.
    """
    target = os.path.realpath(path)
    if os.path.lexists(target) or target != os.path.abspath(path):
        with open(source, "rb") as old, write_atomically(path) as stream:
            shutil.copyfileobj(old, stream)
        os.unlink(source)
    else:
        os.replace(source, target)
        sync_folder(os.path.dirname(target))


@contextlib.contextmanager
def locked(folder: PathLike, taken: str) -> Iterator[None]:
    """A folder that no other run writes to: made if need be, and held as long as the block lasts.

    Args:
        folder: the folder.
        taken: the message where another run holds it.

    Raises:
        OSError: if the folder cannot be made or written to.
        ValueError: if another run holds it.
    """
    os.makedirs(folder, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            descriptor = os.open(folder, os.O_RDONLY | _flags("CLOEXEC"))
            stack.callback(os.close, descriptor)
            try:
                # Held by this process, and gone with it, whatever ends it.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(taken) from None
            except OSError:
                pass  # a file system without locks
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".tmp"):
            pass
        yield


def sync_folder(folder: PathLike) -> None:
    """Bring the names in a folder to the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _flags(*names: str) -> int:
    """Flags of `os.open` that not every system has."""
    return functools.reduce(operator.or_, (getattr(os, f"O_{n}", 0) for n in (*names, "BINARY")))


def write_archive(
    path: PathLike, form: str, arrays: dict[str, np.ndarray], *, compressed: bool = True
) -> None:
    """Arrays with the name of their format and a checksum, as an `.npz` archive."""
    checksum = np.frombuffer(_digest(arrays), np.uint8)
    with write_atomically(path) as stream:
        members: dict[str, Any] = {"format": form, "checksum": checksum, **arrays}
        (np.savez_compressed if compressed else np.savez)(stream, **members)


def read_archive(path: PathLike, form: str, what: str) -> dict[str, np.ndarray]:
    """The arrays that `write_archive` wrote under that format.

    Raises:
        ValueError: if the file is another one, or damaged.
        OSError: if the file cannot be read.
    """
    arrays = read_arrays(path)
    found, checksum = arrays.pop("format", ""), arrays.pop("checksum", np.zeros(0))
    if str(found) != form:
        raise ValueError(f"{path} is not {what} saved by this version of thermogen")
    if checksum.tobytes() != _digest(arrays):
        raise ValueError(f"{path} is damaged: its checksum is wrong")
    return arrays


def _digest(arrays: dict[str, np.ndarray]) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(array.tobytes())
    return digest.digest()


def read_arrays(path: PathLike, preferred: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of a `.npy` or `.npz` file, told apart by their content; never pickled ones.

    No more memory is taken than what the sizes of the file allow.

    Args:
        path: the file; the one array of a `.npy` file is called "".
        preferred: names of which the first that occurs is read alone: what lies beside it need
            not be readable.

    Raises:
        ValueError: if the file is damaged, is not of this kind, holds objects, or would unpack to
            far more than its own size.
        OSError: if the file cannot be read.
    """
    with open_regular(path) as (stream, size):
        try:
            start = stream.read(6)
            stream.seek(0)
            if start == b"\x93NUMPY":
                return {"": _read_array(stream, size)}
            if not start.startswith(b"PK"):
                raise ValueError("its first bytes are not those of such a file")
            return _read_archive(stream, size, preferred)
        except MemoryError:
            raise
        # Damage makes the parsers below raise almost anything: TokenError, RecursionError, ...
        except Exception as error:
            # The disk's own errors have numbers; a damaged archive points before its start.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            raise ValueError(
                f"{path} cannot be read as a numpy file without pickled data: {error}"
            ) from error


def _read_archive(stream: BinaryIO, size: int, preferred: Sequence[str]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(stream) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        chosen = [name for name in preferred if name in members][:1] or list(members)
        total = sum(members[name].file_size for name in chosen)
        if total > unpacked_limit(size):
            raise ValueError(f"it has {size} bytes and would unpack to {total / 2**30:.3g} GiB")
        arrays = {}
        for name in chosen:
            with archive.open(members[name]) as member:
                arrays[name] = _read_array(member, members[name].file_size)
        return arrays


def _read_array(stream, size: int) -> np.ndarray:
    """One array that fills `size` bytes with its header."""
    start = stream.tell()
    version = np.lib.format.read_magic(stream)
    # The header of version 3 is that of version 2 in UTF-8, which matters to names of fields only.
    of_version = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
        (3, 0): np.lib.format.read_array_header_2_0,
    }
    shape, fortran, dtype = of_version[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which need a pickle")
    if any(length < 0 for length in shape):
        raise ValueError(f"it announces an array of shape {shape}")
    wanted, held = math.prod(shape) * dtype.itemsize, size - (stream.tell() - start)
    if wanted != held:
        raise ValueError(f"it announces an array of {wanted} bytes and holds {held}")
    # Piece by piece, so that the bytes are held once.
    content = bytearray()
    while piece := stream.read(min(_PIECE, wanted - len(content))):
        content += piece
    if len(content) != wanted or stream.read(1):  # which also makes an archive test its checksum
        raise ValueError("it ends early or goes on after its end")
    array = np.frombuffer(content, dtype) if wanted else np.zeros(math.prod(shape), dtype)
    return array.reshape(shape, order="F" if fortran else "C")
