"""A study on disk: all that its page shows, as arrays and one text of JSON, never pickled."""

import dataclasses
import enum
import json
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._codes import Codes
from .._files import PathLike, read_archive, write_archive
from ..energies import AbstractEnergy, describe, rebuild
from ._study import Study

_FORMAT = "thermogen study 5"
# Saved as a file of its own.
_LEFT_OUT = "experts"


def save_study(path: PathLike, study: Study) -> None:
    """Write what a study has found, except the experts and how to go on with its fit.

    Raises:
        OSError: if the file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    names = [field.name for field in dataclasses.fields(Study) if field.name != _LEFT_OUT]
    if study.fit is not None:
        # Where the fit stands is of no use to a page, and holds classes of other packages.
        study = dataclasses.replace(study, fit=dataclasses.replace(study.fit, state=None))
    fields = {name: _encoded(getattr(study, name), arrays) for name in names}
    arrays["study"] = np.frombuffer(json.dumps(fields).encode(), np.uint8)
    write_archive(path, _FORMAT, arrays)


def load_study(path: PathLike) -> Study:
    """Read a study that `save_study` wrote; `experts` is None.

    Raises:
        ValueError: if the file is damaged or is no study.
        OSError: if the file cannot be read.
    """
    arrays = read_archive(path, _FORMAT, "a study")
    try:
        fields = json.loads(arrays["study"].tobytes())
        return Study(**{name: _decoded(value, arrays) for name, value in fields.items()})
    except Exception as error:  # a text of another hand can make almost anything fail
        raise ValueError(f"{path} holds no study: {error!r}") from error


def _encoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The form that JSON knows: a plain value, or a list of its kind and its contents."""
    if isinstance(value, enum.Enum):
        return ["enum", _name(type(value)), value.value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        name = f"array{len(arrays)}"
        arrays[name] = np.asarray(value)
        # Energies compute with arrays of JAX.
        kinds = {"scalar": np.generic, "jax": jax.Array, "array": np.ndarray}
        return [next(kind for kind, cls in kinds.items() if isinstance(value, cls)), name]
    if isinstance(value, AbstractEnergy):
        # Its class knows what belongs to it beside its parameters.
        parts = [_encoded(leaf, arrays) for leaf in jax.tree.leaves(value)]
        return ["energy", type(value).__name__, describe(value), parts]
    if isinstance(value, Codes):
        return ["codes", _name(type(value)), value.names.tolist()]
    if isinstance(value, dict):
        return ["dict", [[key, _encoded(part, arrays)] for key, part in value.items()]]
    if type(value) in (list, tuple):
        return [type(value).__name__, [_encoded(part, arrays) for part in value]]
    if dataclasses.is_dataclass(value) or isinstance(value, tuple):
        parts = {name: _encoded(getattr(value, name), arrays) for name in _fields(type(value))}
        return ["object", _name(type(value)), parts]
    raise TypeError(f"a study holds a {type(value).__name__}, which no file can")


def _decoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, list):
        return value
    kind, *rest = value
    if kind == "array":
        return arrays[rest[0]]
    if kind == "scalar":
        return arrays[rest[0]][()]
    if kind == "jax":
        with jax.enable_x64(True):  # or float64 would be cut to 32 bits
            return jnp.asarray(arrays[rest[0]])
    if kind == "enum":
        return _class(rest[0])(rest[1])
    if kind == "codes":
        return _class(rest[0]).named(rest[1])
    if kind == "energy":
        leaves = iter([_decoded(leaf, arrays) for leaf in rest[2]])
        return rebuild(rest[0], rest[1], lambda *_: next(leaves))
    if kind == "dict":
        return {key: _decoded(part, arrays) for key, part in rest[0]}
    if kind in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[kind](_decoded(part, arrays) for part in rest[0])
    parts = {name: _decoded(part, arrays) for name, part in rest[1].items()}
    return _made(_class(rest[0]), parts)


def _made(cls: Any, parts: dict[str, Any]) -> Any:
    if not issubclass(cls, eqx.Module):
        return cls(**parts)
    if set(parts) != set(_fields(cls)):
        raise ValueError(f"a {cls.__name__} has other fields")
    made = object.__new__(cls)  # its constructor may ask for other arguments than its fields
    for name, part in parts.items():
        object.__setattr__(made, name, part)
    return made


def _fields(cls: Any) -> list[str]:
    return list(getattr(cls, "_fields", ())) or [field.name for field in dataclasses.fields(cls)]


def _name(cls: Any) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _class(name: str) -> Any:
    """A class of this package that is imported already, by name."""
    module, _, qualified = name.partition(":")
    if not module.startswith("thermogen."):
        raise ValueError(f"{name} is no class of this package")
    cls = getattr(sys.modules[module], qualified)
    if not isinstance(cls, type):
        raise ValueError(f"{name} is no class")
    return cls
