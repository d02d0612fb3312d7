"""Models in files: one way in and one way out, by suffix and by content."""

import os
import re
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import NamedTuple

from .._checks import check_finite
from .._files import PathLike, open_regular
from ..energies import AbstractEnergy
from . import _model_files as models
from . import _quadratic_files as quadratic
from ._model import SPIN, Model, checked_names
from ._text import checked_vartype, kept_names


class _Format(NamedTuple):
    read: Callable[[Path, str | None], Model]
    write: Callable[[Path, Model, str], None]
    # What the first 4096 bytes of such a file hold, for files of another suffix.
    pattern: bytes


_FORMATS = {
    ".eqx": _Format(models.read_own, models.write_own, rb'\A\{"format": "thermogen energy"'),
    ".h5": _Format(models.read_rbms, models.write_rbms, rb"\A\x89HDF"),
    ".mtx": _Format(quadratic.read_mtx, quadratic.write_mtx, rb"\A%%MatrixMarket"),
    ".graphml": _Format(models.read_graphml, models.write_graphml, rb"<graphml"),
    ".qubo": _Format(quadratic.read_qubo, quadratic.write_qubo, rb"^p\s+qubo\s"),
    ".terms": _Format(models.read_terms, models.write_terms, re.escape(models.TERMS).encode()),
    ".dat": _Format(models.read_potts, models.write_potts, rb"\A(J \d+ \d+ \S+ \S+|h \d+ \S+) \S"),
    ".coo": _Format(quadratic.read_coo, quadratic.write_coo, rb"^\s*#.*vartype[:=]"),
    ".gset": _Format(quadratic.read_gset, quadratic.write_gset, rb"\A\s*\d+[ \t]+\d+[ \t]*\r?\n"),
}
_OTHER_SUFFIXES = {".hdf5": ".h5", ".mc": ".gset", ".rud": ".gset"}


def read_model(path: PathLike, *, vartype: str | None = None) -> Model:
    """A model from a file of any format that is known, told by its suffix, else by its content.

    | suffix | what it holds | kept |
    |---|---|---|
    | `.eqx` | an energy of thermogen | all |
    | `.coo` | coordinate list of dimod | offset and names, in comments |
    | `.mtx` | Matrix Market, `z^T M z` | offset and names, in comments |
    | `.qubo` | QUBO of qbsolv | offset and names, in comments |
    | `.gset`, `.mc`, `.rud` | graph to be cut, minus its cut | weights |
    | `.terms` | terms of any order | all |
    | `.graphml` | graph with `weight` and `field` | all |
    | `.h5` | machine of the package rbms | parameters |
    | `.dat` | parameters of adabmDCA, of two states | parameters and offset |

    Args:
        path: the file.
        vartype: "SPIN" or "BINARY" for a `.coo` or `.mtx` file that does not say.

    Returns:
        The energy, with `energy(s) + offset` equal to what the file means at every configuration,
        the offset, and the names of its spins.

    Raises:
        ValueError: for a file that is malformed, which is told with its line, or of no known
            format.
        OSError: if the file cannot be read.
        ImportError: for `.h5`, if h5py is not installed.

    !!! example

        ```python
        import pathlib

        import jax.numpy as jnp
        import thermogen as tg

        pathlib.Path("triangle.gset").write_text("3 3\\n1 2 1\\n1 3 1\\n2 3 1\\n")
        energy, offset, names = tg.interop.read_model("triangle.gset")

        assert names == (1, 2, 3)
        assert energy(jnp.array([1, 1, -1])) + offset == -2  # two edges are cut
        ```
    """
    kind = None if vartype is None else checked_vartype(vartype)
    form = _FORMATS[_suffix_of(path, read=True)]
    try:
        return form.read(Path(path), kind)
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def write_model(
    path: PathLike,
    energy: AbstractEnergy,
    offset: float = 0.0,
    names: Iterable[Hashable] | None = None,
    *,
    vartype: str = SPIN,
) -> None:
    """Write a model in the format that the suffix names; `read_model` lists them.

    The file appears whole or not at all. Numbers are written with all their digits.

    Args:
        path: the file.
        energy: an energy of n spins that the format can hold.
        offset: a constant that is added, in energy units.
        names: what the spins are called; their numbers by default.
        vartype: "SPIN" or "BINARY", the variables of a `.coo` file.

    Raises:
        ValueError: for an unknown suffix, names of another number, or fields in a `.gset` file.
        TypeError: for an energy that the format cannot hold, such as terms of three spins.
        OSError: if the file cannot be written.
        ImportError: for `.h5`, if h5py is not installed.

    Warns:
        UserWarning: for an offset or names that the format cannot hold.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        tg.interop.write_model("magnet.qubo", energy, names=["a", "b", "c"])
        again, offset, names = tg.interop.read_model("magnet.qubo")

        assert names == ("a", "b", "c") and again(jnp.ones(3)) + offset == -3
        ```
    """
    check_finite("offset", offset)
    kind, target = checked_vartype(vartype), _FORMATS[_suffix_of(path, read=False)]
    labels = checked_names(kept_names(checked_names(names, energy.n_spins)), energy.n_spins)
    target.write(Path(path), Model(energy, float(offset), labels), kind)


def _suffix_of(path: PathLike, *, read: bool) -> str:
    suffix = Path(os.fspath(path)).suffix.lower()
    suffix = _OTHER_SUFFIXES.get(suffix, suffix)
    if suffix in _FORMATS:
        return suffix
    if read:
        with open_regular(path) as (stream, _):
            head = stream.read(4096)
        for known, form in _FORMATS.items():
            if re.search(form.pattern, head, re.MULTILINE):
                return known
    what = "holds no model that is known" if read else "has no suffix of a model"
    raise ValueError(f"{path} {what}; expected one of {', '.join(_FORMATS)}")
