"""Codes: names with a message each, which pass through `jax.jit` and `jax.vmap`."""

from typing import Any

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, PyTree


def code(message: str) -> Any:
    """The message of a code, which the class that it stands in turns into one."""
    return message


class _Family(type):
    _messages: dict[str, str]

    def __getitem__(cls, item: Any) -> str:
        """The message of a code, or the messages of an array of codes."""
        messages = np.array(list(cls._messages.values()), object)
        return "traced" if item.is_traced() else str(messages[item._place])

    def __instancecheck__(cls, value: Any) -> bool:
        # A code belongs to the family, whichever room has added it.
        return type.__instancecheck__(getattr(cls, "_family", cls), value)


class Codes(metaclass=_Family):
    """A family of codes, or one of its codes, or an array of these.

    A class that derives from this one founds a family, and each string that it holds becomes a
    code. A class that derives from that class adds codes to the family. Codes of one family
    compare with each other, whichever of its classes they are taken from.

    A code is a number as far as JAX is concerned: `jax.tree.map` reaches its array.
    """

    _family: type

    def __init__(self, place: Any):
        self._place = place

    def __init_subclass__(cls) -> None:
        if Codes in cls.__bases__:
            cls._family, cls._messages = cls, {}
            jax.tree_util.register_pytree_node(
                cls, lambda item: ((item._place,), None), lambda _, place: cls(*place)
            )
        for name, message in list(vars(cls).items()):
            if isinstance(message, str) and not name.startswith("_"):
                if name in cls._messages:
                    raise TypeError(f"{cls.__name__} has a code {name} already")
                setattr(cls, name, cls._family(np.array(len(cls._messages), np.int32)))
                cls._messages[name] = message

    @classmethod
    def where(cls, pred: Bool[ArrayLike, "..."], a: Any, b: Any) -> Any:
        """`a` where `pred` holds and `b` elsewhere; on the host if all three are there."""
        _same_family(a, b)
        parts = pred, a._place, b._place
        if not any(isinstance(part, jax.Array) for part in parts):
            return cls._family(np.where(*parts))
        with jax.ensure_compile_time_eval():
            return cls._family(jnp.where(*parts))

    @classmethod
    def named(cls, names: Any) -> Any:
        """The codes of an array of names; the inverse of `names`.

        Raises:
            ValueError: for a name that no code of the family has.
        """
        known = list(cls._messages)
        unknown = sorted({name for name in np.ravel(names).tolist() if name not in known})
        if unknown:
            raise ValueError(f"{cls.__name__} has no code {unknown[0]}")
        return cls._family(np.vectorize(known.index, otypes=[np.int32])(names))

    @property
    def names(self) -> np.ndarray:
        """The names of the codes, in their shape."""
        return np.asarray(np.array(list(self._messages))[np.asarray(self._place)])

    def is_traced(self) -> bool:
        """Whether the code is known at run time only."""
        return isinstance(self._place, Tracer)

    def error_if(self, token: PyTree, pred: Bool[ArrayLike, ""]) -> PyTree:
        """`token`, unless `pred` holds: then an error at run time that tells the message."""
        return eqxi.branched_error_if(token, pred, self._place, list(self._messages.values()))

    def __eq__(self, other: Any) -> Bool[Array, "..."]:  # pyright: ignore
        _same_family(self, other)
        with jax.ensure_compile_time_eval():
            return jnp.asarray(self._place == other._place)

    def __ne__(self, other: Any) -> Bool[Array, "..."]:  # pyright: ignore
        return ~(self == other)

    __hash__ = None  # pyright: ignore

    def __repr__(self) -> str:
        if self.is_traced():
            return f"{self._family.__name__}<traced>"
        names = self.names if eqx.is_array_like(self._place) else self._place  # a shape
        return f"{self._family.__name__}<{names}>"


def _same_family(a: Any, b: Any) -> None:
    if not isinstance(a, Codes) or type(a) is not type(b):
        raise ValueError(f"codes go with codes of their own family, got {a!r} and {b!r}")
