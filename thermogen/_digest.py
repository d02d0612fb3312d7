"""What any object is made of, as bytes for a hash: names, structure and numbers."""

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import prng_key

# Up to here doubles hold whole numbers.
_WHOLE = 2**53


def feed(
    digest: Any,
    x: Any,
    number: Callable[[np.ndarray], np.ndarray],
    within: tuple[Any, ...] = (),
) -> None:
    """Names, structure and numbers of a tree of modules, whatever it holds.

    Functions count by their names and code, what they close over, their defaults, and their object;
    not by what they call by a global name. Objects that are filled up to suit the devices count by
    what their `unfilled()` gives.

    Args:
        digest: an object of `hashlib`.
        x: the tree.
        number: the array whose bytes stand for an array of numbers.
        within: the functions and objects that hold it, none of which is entered again.
    """
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, prng_key):
        x = jax.random.key_data(x)
    if isinstance(x, bool | int | float | complex | np.generic | np.ndarray | jax.Array):
        array = number(np.asarray(x))
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    elif isinstance(x, tuple | list):
        digest.update(f"sequence of {len(x)}".encode())
        for item in x:
            feed(digest, item, number, within)
    elif isinstance(x, dict):
        for key in sorted(x, key=str):
            digest.update(f"key {key}".encode())
            feed(digest, x[key], number, within)
    elif isinstance(x, set | frozenset):
        feed(digest, sorted(map(repr, x)), number, within)  # in an order that no process changes
    elif inspect.ismodule(x):
        digest.update(x.__name__.encode())
    elif x is None or isinstance(x, str | bytes):
        digest.update(repr(x).encode())
    elif isinstance(x, functools.partial):
        feed(digest, (x.func, x.args, x.keywords), number, within)
    elif callable(x) and hasattr(x, "__qualname__"):
        digest.update(repr(f"{x.__module__}.{x.__qualname__}").encode())
        function = inspect.unwrap(x)
        for value in _used_by(function):
            if not any(value is outer for outer in (*within, function)):
                feed(digest, value, number, (*within, function))
    elif not any(x is outer for outer in within):
        x = getattr(x, "unfilled", lambda: x)()
        digest.update(f"{type(x).__module__}.{type(x).__qualname__}".encode())
        for name in _attributes(x):
            digest.update(name.encode())
            feed(digest, getattr(x, name), number, (*within, x))


def _used_by(function: Any) -> list[Any]:
    """What a function does, closes over, its defaults, and the object whose method it is."""
    if inspect.ismethod(function):
        return [function.__self__, *_used_by(function.__func__)]
    if not inspect.isfunction(function):
        return []
    values = inspect.getclosurevars(function).nonlocals
    defaults = [function.__defaults__, function.__kwdefaults__]
    return [*(_plain(values[name]) for name in sorted(values)), *defaults, _code(function.__code__)]


def _code(code: types.CodeType) -> tuple:
    """Instructions, names and constants, which tell apart functions of one name."""
    return code.co_code, code.co_names, _constant(code.co_consts)


def _constant(x: Any) -> Any:
    if isinstance(x, types.CodeType):
        return _code(x)
    if isinstance(x, tuple):
        return [_constant(part) for part in x]
    return x if isinstance(x, frozenset) else repr(x)


def _plain(x: Any) -> Any:
    """A whole number as a float: some schedules of optax make it one when they are called."""
    return float(x) if type(x) is int and abs(x) < _WHOLE else x


def _attributes(x: Any) -> list[str]:
    """Names of the fields of an object, private ones of plain objects left out."""
    if dataclasses.is_dataclass(x):
        return [field.name for field in dataclasses.fields(x)]
    names = [*getattr(x, "__dict__", {}), *getattr(type(x), "__slots__", ())]
    return sorted(name for name in names if not name.startswith("_"))
