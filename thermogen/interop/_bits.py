"""Machines of 0 and 1, as the learning literature writes them: of one layer, or of two."""

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .._checks import as_array
from ..energies import RBM, AbstractEnergy, has_terms, layers, n_visible
from ._model import (
    BINARY,
    Model,
    Quadratic,
    checked_names,
    collected,
    model_of,
    needed,
    quadratic_of,
)


class Bits(NamedTuple):
    """`E(x, y) = offset - x.W y - a.x - b.y` of bits; without hidden ones, `-x.W x / 2 - a.x`.

    Attributes:
        weights: W in energy units, shape `(n_visible, n_hidden)`; `(n, n)`, symmetric and without
            diagonal where there are no hidden bits.
        visible_bias: a in energy units, shape `(n_visible,)`.
        hidden_bias: b in energy units, shape `(n_hidden,)`; None without hidden bits.
        offset: the constant, in energy units.
    """

    weights: Float[np.ndarray, "v h"]
    visible_bias: Float[np.ndarray, " v"]
    hidden_bias: Float[np.ndarray, " h"] | None
    offset: float


def from_bits(
    weights: Any,
    visible_bias: Any,
    hidden_bias: Any | None = None,
    *,
    names: Iterable[Hashable] | None = None,
) -> Model:
    """Parameters of a machine of bits as an energy of spins `s = 2 x - 1`.

    `E(x, y) = -x.W y - a.x - b.y` is the energy of an RBM in most papers and programs. Without
    hidden biases the machine has one layer, `E(x) = -sum_{i<j} W_ij x_i x_j - a.x`.

    Args:
        weights: W in energy units, shape `(n_visible, n_hidden)`; `(n, n)` and symmetric, with
            zero diagonal, for a machine of one layer.
        visible_bias: a in energy units, shape `(n_visible,)`.
        hidden_bias: b in energy units, shape `(n_hidden,)`; None for a machine of one layer.
        names: what the visible bits are called; their numbers by default.

    Returns:
        An `RBM`, or a `Pairwise` (`Interactions` where few pairs interact), with `energy(s) +
        offset` equal to the energy of the bits at every configuration. Free energies of the
        visible bits differ by the same offset.

    Raises:
        ValueError: for shapes that disagree, numbers that are not finite, or weights of one layer
            that are not symmetric or have a diagonal.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        machine = tg.interop.from_bits([[4.0], [8.0]], [1.0, 0.0], [2.0])

        # All three bits are 1.
        assert machine.energy(jnp.ones(3)) + machine.offset == -(4 + 8) - 1 - 2
        assert machine.energy(-jnp.ones(3)) + machine.offset == 0
        ```
    """
    w, a = (_numbers(k, x) for k, x in (("weights", weights), ("visible_bias", visible_bias)))
    b = None if hidden_bias is None else _numbers("hidden_bias", hidden_bias)
    expected = (a.size, a.size if b is None else b.size)
    if a.ndim != 1 or (b is not None and b.ndim != 1) or w.shape != expected:
        shapes = f"{w.shape}, {a.shape}" + ("" if b is None else f" and {b.shape}")
        wanted = "(n, n), (n,)" if b is None else "(v, h), (v,) and (h,)"
        raise ValueError(f"weights and biases must have shapes {wanted}, got {shapes}")
    if b is None:
        return model_of(_one_layer(w, a), BINARY, names)
    fields = a / 2 + w.sum(axis=1) / 4, b / 2 + w.sum(axis=0) / 4
    offset = -(w.sum() / 4 + a.sum() / 2 + b.sum() / 2)
    return Model(RBM(w / 4, *fields), float(offset), checked_names(names, a.size + b.size, a.size))


def to_bits(energy: AbstractEnergy, offset: float = 0.0) -> Bits:
    """An energy of spins as the parameters of a machine of bits `x = (1 + s) / 2`.

    Args:
        energy: an energy whose hidden spins, if it has any, form the second of two layers, or one
            without hidden spins whose terms have at most two.
        offset: a constant that is added, in energy units.

    Returns:
        The parameters: `from_bits` of them has this energy, and the sum of its offset and theirs
        is the one given.

    Raises:
        TypeError: for an energy of another form.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.RBM(jnp.ones((2, 1)), jnp.zeros(2), jnp.zeros(1))
        weights, visible_bias, hidden_bias, offset = tg.interop.to_bits(energy)

        assert weights.tolist() == [[4], [4]] and hidden_bias.tolist() == [-4]
        assert offset - 4 - 4 + 2 + 2 + 4 == energy(jnp.ones(3)) == -2
        ```
    """
    visible = n_visible(energy)
    if visible == energy.n_spins and has_terms(energy):
        q = quadratic_of("to_bits", energy, offset, BINARY)
        weights = np.zeros((visible, visible))
        weights[q.first, q.second] = weights[q.second, q.first] = -q.pairs
        return Bits(weights, -q.linear, None, q.constant)
    pair = layers(energy)
    if pair is None or pair.first.size != visible:
        raise TypeError(
            "energy must be a list of terms of at most two spins, or have its hidden spins in the "
            f"second of two layers; got {type(energy).__name__}"
        )
    w, a, b = (np.asarray(x, float) for x in pair)
    biases = 2 * (a - w.sum(axis=1)), 2 * (b - w.sum(axis=0))
    return Bits(4 * w, *biases, float(offset - w.sum() + a.sum() + b.sum()))


def from_bernoulli_rbm(machine: Any) -> Model:
    """A fitted `sklearn.neural_network.BernoulliRBM` as an `RBM` of spins.

    Args:
        machine: the estimator, after `fit`.

    Returns:
        The energy at inverse temperature 1, its offset, and the names of the features, if the
        estimator was given any.

    Raises:
        ValueError: for an estimator that was not fitted.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg
        from sklearn.neural_network import BernoulliRBM

        data = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1]])
        machine = BernoulliRBM(n_components=2, random_state=0).fit(data)
        energy, offset, _ = tg.interop.from_bernoulli_rbm(machine)

        free = tg.energies.visible_free_energy(energy, 1.0, 2.0 * data[0] - 1)
        assert np.isclose(free + offset, machine._free_energy(data[:1])[0], rtol=1e-5)
        ```
    """
    fields = "components_", "intercept_visible_", "intercept_hidden_"
    if any(not hasattr(machine, name) for name in fields):
        raise ValueError(
            f"machine must be a BernoulliRBM that was fitted, got {type(machine).__name__} "
            f"without {', '.join(fields)}"
        )
    weights, a, b = (np.asarray(getattr(machine, name)) for name in fields)
    return from_bits(weights.T, a, b, names=getattr(machine, "feature_names_in_", None))


def to_bernoulli_rbm(energy: AbstractEnergy) -> Any:
    """An energy of two layers as a `sklearn.neural_network.BernoulliRBM`, ready for use.

    Its `transform`, `gibbs` and `score_samples` are those of the energy at inverse temperature 1;
    `partial_fit` goes on from there.

    Args:
        energy: an energy with hidden spins, those of an `RBM`.

    Raises:
        TypeError: for an energy without hidden spins, or of another form.
        ImportError: if scikit-learn is not installed.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        machine = tg.RBM(np.zeros((3, 2)), np.zeros(3), np.zeros(2))

        assert tg.interop.to_bernoulli_rbm(machine).components_.shape == (2, 3)
        ```
    """
    weights, visible_bias, hidden_bias, _ = to_bits(energy)
    if hidden_bias is None:
        raise TypeError(f"energy must have hidden spins, got {type(energy).__name__}")
    machine = needed("sklearn.neural_network", "to_bernoulli_rbm").BernoulliRBM(len(hidden_bias))
    machine.components_ = np.ascontiguousarray(weights.T)
    machine.intercept_visible_, machine.intercept_hidden_ = visible_bias, hidden_bias
    machine.n_features_in_ = len(visible_bias)
    return machine


def _one_layer(weights: np.ndarray, bias: np.ndarray) -> Quadratic:
    if np.any(np.diagonal(weights)):
        raise ValueError("weights must have a zero diagonal: the square of a bit is a bias")
    if not np.allclose(weights, weights.T, rtol=1e-6, atol=0, equal_nan=True):
        raise ValueError("weights must be symmetric, got weights[i, j] != weights[j, i]")
    rows, columns = np.nonzero(np.triu(weights, 1))
    bonds = rows, columns, -weights[rows, columns]
    return collected(bias.size, BINARY, 0.0, bonds, -bias)


def _numbers(name: str, value: Any) -> np.ndarray:
    array = np.asarray(as_array(name, value))
    if array.dtype.kind not in "iufb":
        raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array.astype(float)
