"""Polynomials of any degree, of spins or of bits, such as those of dimod."""

import itertools
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from .._checks import check_finite
from ..energies import AbstractEnergy, Interactions, terms_for
from ._model import (
    BINARY,
    SPIN,
    Model,
    Quadratic,
    checked_names,
    collected,
    model_of,
    needed,
    ordered,
)

_Terms = dict[tuple[int, ...], float]
# A product of p bits is a sum over 2^p products of spins.
_MAX_BITS = 20


def from_polynomial(polynomial: Any) -> Model:
    """A `dimod.BinaryPolynomial` of spins or bits as `Interactions`; a quadratic one as `from_bqm`.

    Args:
        polynomial: the polynomial.

    Returns:
        The energy, with `energy(s) + offset` equal to `polynomial.energy` at every configuration,
        and the labels of the variables as names, in their natural order.

    Raises:
        TypeError: for what is no polynomial.
        ValueError: for numbers that are not finite, or a product of more than 20 bits.

    !!! example

        ```python
        import dimod
        import jax.numpy as jnp
        import thermogen as tg

        cubic = dimod.BinaryPolynomial({("a", "b", "c"): 8.0, (): 1.0}, "BINARY")
        energy, offset, names = tg.interop.from_polynomial(cubic)

        assert names == ("a", "b", "c")
        assert energy(jnp.ones(3)) + offset == 9 and energy(-jnp.ones(3)) + offset == 1
        ```
    """
    vartype = getattr(getattr(polynomial, "vartype", None), "name", None)
    if vartype not in (SPIN, BINARY) or not hasattr(polynomial, "to_hubo"):
        raise TypeError(
            f"polynomial must be a dimod.BinaryPolynomial, got {type(polynomial).__name__}"
        )
    names = ordered(polynomial.variables)
    number = {name: k for k, name in enumerate(names)}
    terms = [(tuple(sorted(number[v] for v in term)), c) for term, c in polynomial.items()]
    return model_of_terms(len(names), terms, vartype, names)


def to_polynomial(
    energy: AbstractEnergy,
    offset: float = 0.0,
    names: Iterable[Hashable] | None = None,
    *,
    vartype: str = SPIN,
) -> Any:
    """An energy as a `dimod.BinaryPolynomial`.

    Args:
        energy: an energy of n spins that is a list of terms.
        offset: a constant that is added, in energy units.
        names: labels of the variables, one for each spin; their numbers by default.
        vartype: "SPIN", or "BINARY" for bits `x = (1 + s) / 2`.

    Returns:
        The polynomial, whose energy is `energy(s) + offset` at every configuration.

    Raises:
        TypeError: for an energy without terms.
        ValueError: for another vartype, names of another number, or a product of more than 20
            spins that is wanted in bits.
        ImportError: if dimod is not installed.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Interactions.from_terms(3, {(0, 1, 2): 2.0})
        cubic = tg.interop.to_polynomial(energy, names=["a", "b", "c"])

        assert cubic.energy({"a": 1, "b": 1, "c": 1}) == energy(jnp.ones(3)) == -2
        ```
    """
    if vartype not in (SPIN, BINARY):
        raise ValueError(f"vartype must be {SPIN!r} or {BINARY!r}, got {vartype!r}")
    labels = checked_names(names, energy.n_spins)
    terms = terms_of("to_polynomial", energy, offset)
    if vartype == BINARY:
        terms = _expanded(terms.items(), _of_spins)
    dimod = needed("dimod", "to_polynomial")
    # A variable of which nothing depends would be lost: it stays as one with coefficient 0.
    single = dict.fromkeys(((k,) for k in range(energy.n_spins)), 0.0)
    by_name = {tuple(labels[k] for k in term): c for term, c in (single | terms).items()}
    return dimod.BinaryPolynomial(by_name, vartype)


def terms_of(user: str, energy: AbstractEnergy, offset: float) -> _Terms:
    """Coefficients of products of spins in `energy(s) + offset`; those that are 0 are left out.

    Raises:
        TypeError: for an energy without terms.
        ValueError: for an offset that is not finite.
    """
    check_finite("offset", offset)
    listed, found = terms_for(user, energy), {(): float(offset)}
    for table, couplings in zip(listed.sets, listed.couplings, strict=True):
        rows = np.sort(table.indices, axis=1).tolist()
        for spins, coupling in zip(rows, np.asarray(couplings, float).tolist(), strict=True):
            found[tuple(spins)] = found.get(tuple(spins), 0.0) - coupling
    return {term: c for term, c in found.items() if c}


def model_of_terms(
    n: int,
    terms: Iterable[tuple[tuple[int, ...], float]],
    vartype: str,
    names: Iterable[Hashable] | None = None,
) -> Model:
    """`sum_a c_a prod_{k in a} z_k` as an energy; sets that come again are added up.

    A quadratic one is as `model_of` makes it, any other one `Interactions`.
    """
    found = _expanded(terms, _of_bits if vartype == BINARY else _as_it_is)
    offset = float(found.pop((), 0.0))
    if max(map(len, found), default=0) <= 2:
        return model_of(_quadratic(n, offset, found), SPIN, names)
    check_finite("the constant", offset)
    energy = Interactions.from_terms(n, {term: -c for term, c in found.items()})
    return Model(energy, offset, checked_names(names, n))


def _quadratic(n: int, constant: float, terms: _Terms) -> Quadratic:
    linear = np.zeros(n)
    for term, c in terms.items():
        linear[term[0]] += c if len(term) == 1 else 0.0
    pairs = [(*term, c) for term, c in terms.items() if len(term) == 2]
    rows, columns, values = np.array(pairs, float).reshape(-1, 3).T
    return collected(n, SPIN, constant, (rows, columns, values), linear)


def _expanded(terms, factors) -> _Terms:
    """The sum of all terms, each replaced by others."""
    found: _Terms = {}
    for term, c in terms:
        for part, factor in factors(term):
            found[part] = found.get(part, 0.0) + factor * float(c)
    return found


def _as_it_is(term: tuple[int, ...]):
    yield term, 1.0


def _of_bits(term: tuple[int, ...]):
    """`prod x = prod (1 + s) / 2`."""
    for part in _parts(term):
        yield part, 0.5 ** len(term)


def _of_spins(term: tuple[int, ...]):
    """`prod s = prod (2 x - 1)`."""
    for part in _parts(term):
        yield part, 2.0 ** len(part) * (-1) ** (len(term) - len(part))


def _parts(term: tuple[int, ...]) -> Iterable[tuple[int, ...]]:
    if len(term) > _MAX_BITS:
        raise ValueError(
            f"a product of {len(term)} bits is a sum over 2^{len(term)} products of spins; "
            f"expected at most {_MAX_BITS}"
        )
    sizes = range(len(term) + 1)
    return itertools.chain.from_iterable(itertools.combinations(term, size) for size in sizes)
