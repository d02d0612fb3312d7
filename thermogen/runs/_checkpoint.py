"""Stored states of runs: one file a state, in the folder of the run."""

import contextlib
import dataclasses
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._checks import check_count, check_finite
from .._files import PathLike, locked, read_archive, write_archive
from .._placement import placed
from .._types import Key
from ._errors import CheckpointError
from ._identity import fingerprint
from ._job import AbstractJob
from ._processes import broadcast, from_first, is_first
from ._sharded import (
    SUFFIX,
    check_sharded,
    checkpointer,
    is_spread,
    read_sharded,
    remove,
    write_sharded,
)

_FORMAT = "thermogen checkpoint 1"
# Names of states, and of what a kill left of them: all else in the folder is somebody else's.
_OWN = re.compile(r"\d{8}\.(npz|orbax)")
_LEFT = re.compile(r"\.[0-9a-z_]{8}\.tmp|\.[0-9a-f]{16}\.tmp|\d{8}\.orbax\.orbax-checkpoint-tmp.*")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A folder where runs store their states, and how often.

    A function that takes `checkpoint=` takes the path of the folder, too. The same call, with the
    same arguments, goes on from the last state stored there, and ends at the same numbers to the
    last bit; of what has ended the result is read. A call that is another one is refused.

    States of one device are files of one format, `.npz` archives with a checksum, which appear
    whole or not at all. Arrays that are split over devices or processes are written by orbax, into
    a folder that all processes must reach by the same path.

    Attributes:
        folder: the folder; it is made if need be.
        seconds: least time between two states that are stored, >= 0; the last one always is.
        keep: how many states are kept. Where the last is damaged, that before it is taken.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        kept = tg.runs.Checkpoint("run", seconds=1)
        found = tg.fit(tg.Pseudolikelihood(), start, data, key=jax.random.key(0), checkpoint=kept)

        # The same call again reads the result.
        again = tg.fit(tg.Pseudolikelihood(), start, data, key=jax.random.key(0), checkpoint=kept)
        assert np.all(again.energy.couplings == found.energy.couplings)
        ```
    """

    folder: PathLike
    seconds: float | int = 60
    keep: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str | os.PathLike):
            raise TypeError(f"folder must be a path, got {self.folder!r}")
        check_finite("seconds", self.seconds)
        if self.seconds < 0:
            raise ValueError(f"seconds must not be negative, got {self.seconds}")
        check_count("keep", self.keep)

    def at(self, *names: str | int) -> "Checkpoint":
        """A folder within the folder, for a part of a longer run."""
        return dataclasses.replace(self, folder=Path(self.folder, *map(str, names)))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The folder, kept from other runs as long as the block lasts.

        Raises:
            OSError: if it cannot be made or written to.
            CheckpointError: if another run holds it.
        """
        with contextlib.ExitStack() as stack:
            from_first(lambda: self._lock(stack))
            yield

    def _lock(self, stack: contextlib.ExitStack) -> None:
        taken = f"checkpoint {self.folder} is in use by another run; choose another folder"
        try:
            stack.enter_context(locked(self.folder, taken))
        except OSError as error:
            message = f"checkpoint {self.folder} is no folder that can be written to: {error}"
            raise OSError(message) from None
        except ValueError as error:
            raise CheckpointError(str(error)) from None


# What functions take as `checkpoint`: a folder, or with how it is used; None stores nothing.
Folder = PathLike | Checkpoint | None


def as_checkpoint(checkpoint: Folder) -> Checkpoint | None:
    """What a function was given as `checkpoint`."""
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    if not isinstance(checkpoint, str | os.PathLike):
        raise TypeError(f"checkpoint must be a folder or a Checkpoint, got {checkpoint!r}")
    return Checkpoint(checkpoint)


def part(checkpoint: Folder, *names: str | int) -> Checkpoint | None:
    """The checkpoint of a part of a longer run, if it has one.

    !!! example

        ```python
        import thermogen as tg

        assert tg.runs.part(None, "first") is None
        assert tg.runs.part("run", "first").folder.name == "first"
        ```
    """
    whole = as_checkpoint(checkpoint)
    return None if whole is None else whole.at(*names)


def holding(checkpoint: Folder) -> contextlib.AbstractContextManager[None]:
    """The folder of a longer run, kept from other runs as long as the block lasts.

    !!! example

        ```python
        import thermogen as tg

        with tg.runs.holding(None):  # no folder, nothing to keep
            done = True

        assert done
        ```
    """
    whole = as_checkpoint(checkpoint)
    return contextlib.nullcontext() if whole is None else whole.held()


class Store:
    """The stored states of one run, in a folder that it holds.

    The first process alone looks into the folder, and tells the others.
    """

    def __init__(self, checkpoint: Checkpoint, job: AbstractJob, key: Key):
        self._folder, self._keep = Path(checkpoint.folder), checkpoint.keep
        self._run = fingerprint((job, key))
        self._arrays: dict[str, np.ndarray] = {}
        self._damaged: list[Path] = []
        if is_first():
            for left in self._folder.iterdir():
                if _LEFT.fullmatch(left.name):
                    remove(left)

    def latest(self, like: PyTree[Array]) -> PyTree[Array] | None:
        """The last state that was stored; None where there is none.

        Args:
            like: a state of the same run, which tells structure, dtypes and places.

        Warns:
            UserWarning: where a file is damaged and that before it is taken.

        Raises:
            CheckpointError: if the folder holds states of another run.
            OSError: if a state cannot be read.
        """
        leaves, structure = jax.tree.flatten(like)
        numbers = [_numbers_of(x) for x in leaves]
        if is_spread(numbers):
            checkpointer()  # now, and not at the first save
        name = from_first(lambda: self._newest(numbers))
        if name is None:
            return None
        if name.endswith(SUFFIX):
            arrays = read_sharded(self._folder / name, numbers)
        else:
            arrays = [
                _in_place(broadcast(self._arrays.get(str(k), _blank(x))), x)
                for k, x in enumerate(numbers)
            ]
        self._arrays = {}
        return jax.tree.unflatten(structure, map(_like, arrays, leaves))

    def save(self, state: PyTree[Array]) -> None:
        """Store a state, and drop the oldest ones.

        Raises:
            OSError: if it cannot be written; what was stored before stays.
        """
        numbers = [_numbers_of(x) for x in jax.tree.leaves(state)]
        if is_spread(numbers):
            name = from_first(lambda: self._next(SUFFIX))
            with self._named():
                write_sharded(self._folder / name, self._run, numbers)
        else:
            from_first(lambda: self._write(numbers))
        if is_first():
            # What is damaged is out of the way, and nobody's to throw away.
            for path in self._damaged:
                path.rename(path.with_name(f"{path.name}.damaged"))
            self._damaged = []
            for path in self._paths()[: -self._keep]:
                remove(path)

    def _write(self, numbers: list[Array]) -> None:
        arrays = {str(k): np.asarray(x) for k, x in enumerate(numbers)}
        arrays = {name: x.view(_storable(x.dtype)) for name, x in arrays.items()}
        arrays["run"] = np.frombuffer(self._run.encode(), np.uint8)
        with self._named():
            write_archive(self._folder / self._next(".npz"), _FORMAT, arrays, compressed=False)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """What goes wrong within says where."""
        try:
            yield
        except TimeoutError:
            raise  # other processes do not answer
        except OSError as error:
            raise OSError(f"checkpoint {self._folder} cannot be written: {error}") from error

    def _next(self, suffix: str) -> str:
        return f"{1 + max(map(_number, self._paths()), default=0):08d}{suffix}"

    def _paths(self) -> list[Path]:
        """What is stored, the oldest first."""
        return sorted((p for p in self._folder.iterdir() if _OWN.fullmatch(p.name)), key=_number)

    def _newest(self, like: list[Array]) -> str | None:
        """The name of the last sound file, of which the arrays are kept where they were read."""
        found, damages = None, []
        for path in reversed(self._paths()):
            try:
                run = self._run_in(path)
            except ValueError as error:
                damages.append(str(error))
                self._damaged.append(path)
                continue
            if run != self._run or (path.suffix != SUFFIX and not self._fits(like)):
                raise CheckpointError(
                    f"checkpoint {self._folder} holds another run: other arguments, another key "
                    "or another version; choose another folder, or remove this one"
                )
            found = path.name
            break
        for damage in damages:
            then = f"going on from {found}" if found else "no other state is left, beginning anew"
            warnings.warn(f"{damage}; {then}", stacklevel=2)
        return found

    def _run_in(self, path: Path) -> str:
        """The run that a file is of, once it is clear that it is whole."""
        if path.suffix == SUFFIX:
            return check_sharded(path)
        self._arrays = read_archive(path, _FORMAT, "a checkpoint")
        return self._arrays.pop("run", np.zeros(0, np.uint8)).tobytes().decode()

    def _fits(self, like: list[Array]) -> bool:
        """Whether the arrays that were read are those of a state, as this version has it."""
        held = [self._arrays.get(str(k)) for k in range(len(like))]
        forms = [None if x is None else (x.shape, x.dtype) for x in held]
        return len(held) == len(self._arrays) and forms == [
            (x.shape, _storable(x.dtype)) for x in like
        ]


def _number(path: Path) -> int:
    return int(path.stem)


def _numbers_of(x: Array) -> Array:
    """An array, or the numbers of a random key."""
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _storable(dtype: np.dtype) -> np.dtype:
    """The dtype itself, or integers of its size for one that files do not know, as bfloat16."""
    return np.dtype(f"u{dtype.itemsize}") if dtype.kind == "V" else dtype


def _blank(like: Array) -> np.ndarray:
    return np.zeros(like.shape, _storable(like.dtype))


def _in_place(found: np.ndarray, like: Array) -> Array:
    """What was read as an array like another, where that one lies."""
    found = found.view(like.dtype)
    with jax.enable_x64(True):  # or float64 would be cut to 32 bits
        return placed(found, like.sharding) if like.committed else jnp.asarray(found)


def _like(found: Array, like: Array) -> Array:
    if not jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return found
    return jax.random.wrap_key_data(found, impl=jax.random.key_impl(like))
