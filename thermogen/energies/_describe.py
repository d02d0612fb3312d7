"""What an energy is beside its numbers, in words that a file can hold, and the way back."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import check_count
from ._base import AbstractEnergy
from ._complete import Complete
from ._interactions import Interactions
from ._mixture import Mixture
from ._pairwise import Pairwise
from ._rbm import RBM

Structure = dict[str, Any]
# The next array of a file, of the shape that is asked for.
Take = Callable[..., Float[Array, "..."]]
Rule = Callable[[Structure, Take], AbstractEnergy]


@functools.singledispatch
def describe(energy: AbstractEnergy) -> Structure:
    """All that fixes an energy but for its parameters, as `json.dumps` takes it.

    Files hold it beside the parameters, in the order of `jax.tree.leaves(energy)`. Open for
    extension, together with `rebuild`: a class that registers both can be saved and loaded.

    !!! example

        ```python
        import equinox as eqx
        import jax
        import jax.numpy as jnp
        import thermogen as tg


        class Uniform(tg.AbstractMultilinear):
            n_spins: int = eqx.field(static=True)
            field: jax.Array

            def __call__(self, spins):
                return -self.field * jnp.sum(spins)


        @tg.energies.describe.register
        def _(energy: Uniform):
            return {"n_spins": energy.n_spins}


        @tg.energies.rebuild.register(Uniform)
        def _(structure, take):
            return Uniform(structure["n_spins"], take())  # its one array, a number


        tg.storage.save_energy("uniform.eqx", Uniform(3, jnp.asarray(0.5)))

        assert tg.storage.load_energy("uniform.eqx")(jnp.ones(3)) == -1.5
        ```

    Raises:
        ValueError: if no rule is registered for this class of energy.
    """
    raise ValueError(
        f"energy is a {type(energy).__name__}; expected one of {', '.join(rebuild.names)}, or a "
        "class with rules: thermogen.energies.describe.register and rebuild.register"
    )


class _Rebuild:
    """An energy from the name of its class, its structure and its numbers: undoes `describe`.

    Only classes that are registered are made, by their constructors, so that what is read passes
    their checks. `rebuild.register(YourEnergy)` decorates a function of the structure that
    `describe` returned, and of `take`: `take(*shape)` returns the next array of parameters, in the
    order of `jax.tree.leaves(energy)`. It is called with abstract arrays first, whose shapes are
    compared with the file. A structure of a damaged file may hold anything; the rule raises
    for what is none.
    """

    def __init__(self) -> None:
        self._rules: dict[str, tuple[type, Rule]] = {}

    @property
    def names(self) -> list[str]:
        """Names of the classes that can be made."""
        return list(self._rules)

    def register(self, cls: type[AbstractEnergy]) -> Callable[[Rule], Rule]:
        """Decorate the rule of a class.

        Raises:
            ValueError: if another class of the same name is registered.
        """
        known = self._rules.get(cls.__name__, (cls, None))[0]
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"cls: a class of the name {cls.__name__} is registered by {known.__module__}; "
                "files know a class by its name, so choose another"
            )

        def decorate(rule: Rule) -> Rule:
            self._rules[cls.__name__] = cls, rule
            return rule

        return decorate

    def __call__(self, name: str, structure: Structure, take: Take) -> AbstractEnergy:
        """The energy of the class `name`.

        Raises:
            ValueError: for a class that is not registered, and whatever its constructor refuses.
        """
        if name not in self.names:
            raise ValueError(f"class {name!r} is not registered; known are {self.names}")
        return self._rules[name][1](structure, take)


rebuild = _Rebuild()
"""An energy from the name of its class, its structure and its numbers: undoes `describe`.

`rebuild.register(YourEnergy)` decorates a function of the structure that `describe` returned and of
`take`, which returns the next array of parameters of the shape that it is given.
"""


@describe.register
def _(energy: Pairwise) -> Structure:
    return {"n_spins": energy.n_spins}


@rebuild.register(Pairwise)
def _(structure: Structure, take: Take) -> Pairwise:
    n = check_count("n_spins", structure["n_spins"], least=0)
    return Pairwise(take(n, n), take(n))


@describe.register
def _(energy: Interactions) -> Structure:
    return {
        "n_spins": energy.n_spins,
        "sets": [table.indices.tolist() for table in energy.sets],
        "shapes": [list(table.indices.shape) for table in energy.sets],
    }


@rebuild.register(Interactions)
def _(structure: Structure, take: Take) -> Interactions:
    tables = []
    for table, (rows, order) in zip(structure["sets"], structure["shapes"], strict=True):
        check_count("rows", rows, least=0)
        check_count("order", order, least=0)
        if len(table) != rows or any(len(row) != order for row in table):
            raise ValueError(f"a table of sets is not of shape {rows, order}")
        # JSON knows floats and truth values, which would become integers unseen.
        if any(type(spin) is not int for row in table for spin in row):
            raise TypeError("sets must hold integers")
        tables.append(np.array(table, np.int64).reshape(rows, order))
    return Interactions(structure["n_spins"], tables, [take(len(table)) for table in tables])


@describe.register
def _(energy: RBM) -> Structure:
    return {"n_visible": energy.n_visible, "n_hidden": energy.n_hidden}


@rebuild.register(RBM)
def _(structure: Structure, take: Take) -> RBM:
    v = check_count("n_visible", structure["n_visible"], least=0)
    h = check_count("n_hidden", structure["n_hidden"], least=0)
    return RBM(take(v, h), take(v), take(h))


@describe.register
def _(energy: Complete) -> Structure:
    return {"n_spins": energy.n_spins}


@rebuild.register(Complete)
def _(structure: Structure, take: Take) -> Complete:
    return Complete(take(2 ** check_count("n_spins", structure["n_spins"], least=0, most=40)))


@describe.register
def _(energy: Mixture) -> Structure:
    expert = energy.expert(0)
    described = {"class": type(expert).__name__, "structure": describe(expert)}
    return {"n_experts": energy.n_experts, "expert": described}


@rebuild.register(Mixture)
def _(structure: Structure, take: Take) -> Mixture:
    """Each expert passes the checks of its class."""
    size, expert = check_count("n_experts", structure["n_experts"]), structure["expert"]
    taken = []

    def first(*shape: int) -> Array:
        taken.append(take(size, *shape))
        return taken[-1][0]

    experts = [rebuild(expert["class"], expert["structure"], first)]
    for k in range(1, size):
        rows = iter([x[k] for x in taken])
        experts.append(rebuild(expert["class"], expert["structure"], lambda *_, r=rows: next(r)))
    stacked: Any = jax.tree.map(lambda *x: jnp.stack(x), *experts)
    return Mixture(stacked, take(size), take(size))
