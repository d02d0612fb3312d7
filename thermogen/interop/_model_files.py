"""Files of terms of any order, of trained machines, of graphs, and our own."""

import io
import re
import warnings
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from .. import storage
from .._checks import check_finite
from .._files import open_regular
from ._bits import from_bits, to_bits
from ._graphs import from_networkx, to_networkx
from ._model import (
    SPIN,
    Model,
    check_spins,
    checked_names,
    collected,
    model_of,
    needed,
    quadratic_of,
)
from ._polynomial import model_of_terms, terms_of
from ._quadratic_files import put
from ._text import Text, comments, plain, read_text

TERMS = "# E = - sum of J times its spins, one term a line: J, then the numbers of the spins"
_RBMS = ("weight_matrix", "vbias", "hbias")
# Numbers that a compressed array may unpack to: so many, or so many times its bytes.
_UNPACKED, _FACTOR = 2**27, 100


def read_terms(path: Path, vartype: str | None) -> Model:
    """One term of `E = -sum_a J_a prod_{k in a} s_k` a line: J, then its spins, from 0."""
    text, terms = read_text(path, "#"), {}
    for line, words in text.lines:
        spins = tuple(sorted(text.natural(line, word) for word in words[1:]))
        if len(set(spins)) < len(spins):
            text.wrong(line, "a term must not repeat a spin: its square is 1, so leave it out")
        if spins in terms:
            text.wrong(line, f"the term of spins {spins} occurs twice")
        if text.spins is not None and spins and spins[-1] >= text.spins:
            text.wrong(line, f"spin {spins[-1]} is beyond the {text.spins} that are announced")
        terms[spins] = -text.number(line, words[0])
    n = max((spins[-1] + 1 for spins in terms if spins), default=0)
    n = n if text.spins is None else text.spins
    check_spins(path, n)
    return model_of_terms(n, terms.items(), SPIN, text.names)


def write_terms(path: Path, model: Model, vartype: str) -> None:
    terms = terms_of("write_model", model.energy, model.offset)
    said = [TERMS, f"# spins={model.energy.n_spins}", *comments("#", names=model.names)]
    rows = [
        " ".join([plain(-c), *map(str, spins)])
        for spins, c in sorted(terms.items(), key=lambda term: (len(term[0]), term[0]))
    ]
    put(path, [*said, *rows])


def read_potts(path: Path, vartype: str | None) -> Model:
    """Parameters of adabmDCA, `J i j a b value` and `h i a value`, of two states a site.

    The state that comes second among the fields is the spin +1.
    """
    text = read_text(path, "#")
    states = _two_states(text)
    sign, n = {state: 2 * k - 1 for k, state in enumerate(states)}, 0
    constant, single, bonds = 0.0, [], []
    for line, words in text.lines:
        sites = [text.natural(line, word) for word in words[1 : len(words) // 2]]
        signs = [sign[state] for state in words[len(words) // 2 : -1]]
        value, n = -text.number(line, words[-1]), max(n, *(site + 1 for site in sites))
        if len(sites) == 2 and sites[0] == sites[1]:
            text.wrong(line, f"site {sites[0]} must not be coupled to itself")
        # Of a state a site has (1 + sign s) / 2.
        share = value / 2 ** len(sites)
        constant += share
        single += [(site, s * share) for site, s in zip(sites, signs, strict=True)]
        if len(sites) == 2:
            bonds.append((*sites, signs[0] * signs[1] * share))
    check_spins(path, n)
    linear = np.zeros(n)
    np.add.at(linear, [site for site, _ in single], [x for _, x in single])
    rows, columns, values = np.array(bonds, float).reshape(-1, 3).T
    return model_of(collected(n, SPIN, constant, (rows, columns, values), linear), SPIN)


def _two_states(text: Text) -> list[str]:
    """States in the order of the fields, in which adabmDCA writes them."""
    fields, pairs = [], []
    for line, words in text.lines:
        if (words[0], len(words)) not in (("J", 6), ("h", 4)):
            text.wrong(line, f"expected 'J i j a b value' or 'h i a value', got {words[0]!r} ...")
        (fields if words[0] == "h" else pairs).extend(words[len(words) // 2 : -1])
    states = list(dict.fromkeys(fields + pairs))
    if len(states) != 2:
        raise ValueError(
            f"{text.path} has {len(states)} states a site ({', '.join(states[:30])}); expected "
            "two, for a spin has no more"
        )
    return states


def write_potts(path: Path, model: Model, vartype: str) -> None:
    """In the gauge where fields and couplings of the states 0 and 1 sum to 0.

    A constant, of which this gauge has none, stands with both states of the first site.
    """
    _say_left_out(path, model)
    q = quadratic_of("write_model", model.energy, model.offset, SPIN)
    bonds = list(zip(q.first.tolist(), q.second.tolist(), q.pairs.tolist(), strict=True))
    rows = [
        f"J {i} {j} {a} {b} {plain(-(2 * a - 1) * (2 * b - 1) * value)}"
        for i, j, value in bonds
        for a in (0, 1)
        for b in (0, 1)
    ]
    for i, h in enumerate(q.linear.tolist()):
        constant = q.constant if i == 0 else 0.0
        rows += [f"h {i} {a} {plain(-(2 * a - 1) * h - constant)}" for a in (0, 1)]
    put(path, rows)


def read_rbms(path: Path, vartype: str | None) -> Model:
    """The last update in an archive of the package rbms, of a machine of bits in both layers."""
    h5py = needed("h5py", "read_model")
    with open_regular(path) as (stream, _):
        try:
            with h5py.File(stream, "r") as archive:
                arrays = _of_rbms(archive, path, h5py)
        except MemoryError:
            raise
        except _Refused as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # damage makes h5py raise almost anything
            raise ValueError(f"{path} cannot be read as HDF5: {error}") from error
    return from_bits(*arrays)


class _Refused(Exception):
    """What the archive holds is whole, and not what is asked for."""


def _of_rbms(archive: Any, path: Path, h5py: Any) -> list[np.ndarray]:
    updates = [int(name[7:]) for name in archive if re.fullmatch(r"update_\d{1,18}", name)]
    if not updates:
        raise _Refused(f"{path} is no archive of rbms: it has no group update_<number>")
    kind = archive.get("model_type")
    if kind is not None:
        is_text = isinstance(kind, h5py.Dataset) and h5py.check_string_dtype(kind.dtype)
        name = kind.asstr()[()] if is_text else None
        if name != "BBRBM":
            raise _Refused(f"{path} holds a machine of type {name}; expected BBRBM, one of bits")
    group = archive[f"update_{max(updates)}"]
    group = group.get("params", group)
    arrays = []
    for name in _RBMS:
        found = group.get(name)
        if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu":
            raise _Refused(f"{path}: {group.name}/{name} must be an array of numbers")
        if found.size > max(_UNPACKED, _FACTOR * found.id.get_storage_size()):
            raise _Refused(f"{path}: {name} would unpack to {found.size} numbers")
        arrays.append(found[()])
    return arrays


def write_rbms(path: Path, model: Model, vartype: str) -> None:
    """As `rbms.io.load_params` reads it, at update 0; no state of the training."""
    h5py = needed("h5py", "write_model")
    weights, visible_bias, hidden_bias, _ = to_bits(model.energy)
    if hidden_bias is None:
        raise TypeError(f"energy must have hidden spins for {path}")
    _say_left_out(path, model)
    content = io.BytesIO()
    with h5py.File(content, "w") as archive:
        archive["model_type"] = "BBRBM"
        group = archive.create_group("update_0/params")
        for name, array in zip(_RBMS, (weights, visible_bias, hidden_bias), strict=True):
            group[name] = array
            # Older versions look one floor higher.
            archive["update_0"][name] = group[name]
    with storage.write_atomically(path) as stream:
        stream.write(content.getvalue())


def read_graphml(path: Path, vartype: str | None) -> Model:
    """A graph in GraphML, as `from_networkx` reads it."""
    with open_regular(path) as (stream, _):
        try:
            graph = nx.read_graphml(stream)
        except Exception as error:  # what parsers of XML and of attributes raise is not told
            raise ValueError(f"{path} cannot be read as GraphML: {error}") from error
    if all(re.fullmatch(r"0|[1-9]\d{0,8}", name, re.ASCII) for name in graph):
        graph = nx.relabel_nodes(graph, {name: int(name) for name in graph})
    return from_networkx(graph)


def write_graphml(path: Path, model: Model, vartype: str) -> None:
    names = [str(name) for name in model.names]
    for name in names:
        if re.search(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", name):
            raise ValueError(f"names must have no control characters in {path}, got {name!r}")
    graph = to_networkx(model.energy, model.offset, names)
    with storage.write_atomically(path) as stream:
        nx.write_graphml_xml(graph, stream)


def read_own(path: Path, vartype: str | None) -> Model:
    """An energy that `thermogen.storage` wrote."""
    energy, notes = storage.load_energy(path), storage.load_notes(path)
    offset, names = notes.get("offset", 0.0), notes.get("names")
    if not isinstance(offset, int | float) or not isinstance(names, list | None):
        raise ValueError("its notes hold neither an offset nor names")
    if not all(isinstance(name, str | int) for name in names or []):
        raise ValueError("its notes hold names that are neither texts nor numbers")
    check_finite("offset", offset)
    return Model(energy, float(offset), checked_names(names, energy.n_spins))


def write_own(path: Path, model: Model, vartype: str) -> None:
    notes: dict[str, Any] = {"offset": model.offset} if model.offset else {}
    if model.names != tuple(range(model.energy.n_spins)):
        notes["names"] = list(model.names)
    storage.save_energy(path, model.energy, notes=notes)


def _say_left_out(path: Path, model: Model) -> None:
    if model.names != tuple(range(model.energy.n_spins)):
        warnings.warn(f"{path} leaves out the names of the spins: it has no place", stacklevel=4)
