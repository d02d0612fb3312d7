"""Boltzmann machines as estimators of scikit-learn."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int8
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import assert_all_finite, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from .._batches import cast
from .._checks import seeded_key
from ..energies import AbstractEnergy, n_visible, untrained
from ..learning import (
    L2,
    RESULTS,
    AbstractObjective,
    PersistentCD,
    Pseudolikelihood,
    default_l2,
    fit,
)
from ..search import Library
from ._ensemble import Ensemble
from ._rows import Rows

# Ridge on the fields of an RBM, times the samples: a feature that is constant in the data turns
# about once in twice as many samples, as by `Pseudolikelihood`.
_FIELDS = 0.1


class BoltzmannMachine(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator
):
    """A distribution of binary features, and of a label with them.

    Without `y` it is a density of the features: `score_samples`, `score`, `sample`, `transform`.
    With labels it is one of features and label, and `predict` is exact given the features; all of
    the former then concern the features, whatever the label. As a classifier it never needs ln Z.

    A label of two classes is one spin more, of several one spin each, of which one is up; the
    distribution is the one given that it is. Rows that are equal are one sample of higher weight,
    so that `sample_weight` is the same as repeated rows to the last bit. Weights that are no whole
    numbers are relative, and worth `(sum w)^2 / sum w^2` samples (Kish 1965), with the sums over
    the rows as given: a factor that leaves them so changes nothing but rounding.

    Args:
        model: `"pairwise"`, `"rbm:HIDDEN"`, `"interactions:DEGREE"` or `"complete"`, see
            `thermogen.energies.untrained`; or an energy to start from, whose visible spins are the
            features and then those of the label.
        objective: what is minimised, see `thermogen.fit`; where None `Pseudolikelihood()`, and
            `PersistentCD()` where spins are hidden.
        l2: strength of a ridge on couplings, in nats per sample and squared energy unit; where
            None that of `Pseudolikelihood()`, `n / (2 N)` for N samples of n features and labels;
            an objective that is given comes without.
        max_iter: most steps of a fit; where None those of the objective.
        binarize: features above it are up, all others down; None for data of two values, 0 and 1,
            or -1 and 1.
        random_state: seed of whatever is drawn at random.

    Attributes:
        classes_: the labels, where it was fitted with some.
        n_features_in_: number of features.
        feature_names_in_: their names, where the data had some.
        n_iter_: number of steps that the last fit took.

    !!! example

        ```python
        import numpy as np
        from sklearn.model_selection import cross_val_score
        from thermogen.interop.sklearn import BoltzmannMachine

        X = np.random.default_rng(0).integers(0, 2, (200, 5))
        y = np.where(X[:, 0] ^ X[:, 1], "odd", "even")  # no field of single features tells
        machine = BoltzmannMachine("interactions:3", random_state=0)
        assert cross_val_score(machine, X, y).min() == 1.0
        ```
    """

    classes_: np.ndarray
    n_features_in_: int

    def __init__(
        self,
        model: Any = "pairwise",
        *,
        objective: Any = None,
        l2: Any = None,
        max_iter: Any = None,
        binarize: Any = 0.0,
        random_state: Any = None,
    ):
        self.model = model
        self.objective = objective
        self.l2 = l2
        self.max_iter = max_iter
        self.binarize = binarize
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.input_tags.sparse = True
        # Of blobs of real numbers little is left where each is up or down, as for BernoulliNB.
        tags.classifier_tags.poor_score = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_ensemble")

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "BoltzmannMachine":
        """Learn from samples, with their labels where given.

        Args:
            X: features, shape `(samples, features)`, dense or sparse.
            y: label of each sample, shape `(samples,)`.
            sample_weight: weight of each sample, >= 0; whole numbers count repeated rows, others
                are relative.

        Raises:
            ValueError: for another model, data with other than two values where `binarize` is
                None, and an energy of other sizes.

        Warns:
            ConvergenceWarning: where the fit did not end well, with what to do.
        """
        for name in ("_ensemble", "classes_", "_rows"):
            vars(self).pop(name, None)
        return self._fit(X, y, None, sample_weight)

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> "BoltzmannMachine":
        """Learn from these samples and all before them, starting at the energy learned so far.

        Distinct rows are kept, a byte for each entry, so that batches end where one `fit` of all
        does.

        Args:
            X: features, as in `fit`.
            y: labels; each call has some, or none has.
            classes: all labels that will come, in the first call; those of that call where None.
            sample_weight: weights, as in `fit`.
        """
        return self._fit(X, y, classes, sample_weight)

    def _fit(self, X: Any, y: Any, classes: Any, sample_weight: Any) -> "BoltzmannMachine":
        first = not self.__sklearn_is_fitted__()
        X = validate_data(self, X, accept_sparse="csr", reset=first)
        spins = self._spins(X)
        weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        codes = self._codes(y, classes, len(spins), first)
        rows = Rows.of(np.hstack([spins, codes]), weights)
        self._rows = rows if first else self._rows + rows
        self._seed = int(check_random_state(self.random_state).randint(2**31))
        with jax.enable_x64(True):
            learned = self._learned(self._start() if first else self.energy_)
        self._ensemble = Ensemble(learned, self._label_codes, self._seed)
        return self

    def _start(self) -> AbstractEnergy:
        """Where the first fit starts."""
        if isinstance(self.model, AbstractEnergy):
            n, n_rows = n_visible(self.model), self._rows.spins.shape[1]
            if n != n_rows:
                n_label = self._label_codes.shape[1]
                raise ValueError(
                    f"model must have {n_rows} visible spins, {self.n_features_in_} of features "
                    f"and {n_label} of the label, got {n}"
                )
            return cast(self.model, jnp.float64)
        if not isinstance(self.model, str):
            raise ValueError(f"model must be a name or an energy, got {self.model!r}")
        means = np.average(self._rows.spins, axis=0, weights=self._rows.counts)
        return untrained(self.model, means, key=seeded_key(self._seed))

    def _learned(self, start: AbstractEnergy) -> AbstractEnergy:
        """The energy that fits the rows."""
        objective, penalty = self._objective(start)
        spins, counts = self._rows.filled()
        found = fit(
            self._rows.weighed(objective),
            start,
            spins,
            key=jax.random.fold_in(seeded_key(self._seed), 1),
            weights=counts,
            penalty=penalty,
            n_steps=self.max_iter,
        )
        if found.result not in (RESULTS.converged, RESULTS.completed, RESULTS.precision_limit):
            warnings.warn(RESULTS[found.result], ConvergenceWarning, stacklevel=4)
        self.n_iter_ = max(1, len(found.history))
        return found.energy

    def _objective(self, start: AbstractEnergy) -> tuple[AbstractObjective, L2 | None]:
        """What is minimised, with the ridge that an objective does not bring along."""
        if self.objective is not None:
            return self.objective, None if self.l2 is None else L2(self.l2)
        if n_visible(start) == start.n_spins:
            return Pseudolikelihood(l2=self.l2), None
        size = self._rows.size
        l2 = default_l2(self._rows.spins.shape[1], size) if self.l2 is None else self.l2
        return PersistentCD(), L2(l2, fields=_FIELDS / size)

    def _spins(self, X: Any) -> Int8[np.ndarray, "_ _"]:
        X = X if isinstance(X, np.ndarray) else X.toarray()
        if self.binarize is not None:
            return np.where(X > self.binarize, 1, -1).astype(np.int8)
        for down in (0, -1):
            if np.all((X == down) | (X == 1)):
                return np.where(X == 1, 1, -1).astype(np.int8)
        raise ValueError(
            "X must hold two values, 0 and 1 or -1 and 1, where binarize is None, got "
            f"{X.min()} to {X.max()}; give a threshold"
        )

    def _codes(self, y: Any, classes: Any, n: int, first: bool) -> Int8[np.ndarray, "_ _"]:
        """Spins of the label of each sample; in the first call it says what the classes are."""
        if first:
            vars(self).pop("classes_", None)
        elif (y is None) != (not hasattr(self, "classes_")):
            raise ValueError("y must be given in every call of partial_fit, or in none")
        if y is None:
            self._label_codes = np.zeros((1, 0), np.int8)
            return np.zeros((n, 0), np.int8)
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        if len(y) != n:
            raise ValueError(f"y must have a label for each of {n} samples, got {len(y)}")
        if first:
            self.classes_ = np.unique(y if classes is None else classes)
            self._label_codes = _one_hot(len(self.classes_))
        rows = np.minimum(np.searchsorted(self.classes_, y), len(self.classes_) - 1)
        if np.any(self.classes_[rows] != y):
            new = np.setdiff1d(y, self.classes_)
            raise ValueError(f"y has labels {new} that are not among classes {self.classes_}")
        return self._label_codes[rows]

    def _checked(self, X: Any) -> Int8[np.ndarray, "_ _"]:
        check_is_fitted(self)
        return self._spins(validate_data(self, X, accept_sparse="csr", reset=False))

    def predict_proba(self, X: Any) -> Float[np.ndarray, "_ _"]:
        """Probability of each of `classes_` given the features, shape `(samples, classes)`.

        Raises:
            ValueError: if it was fitted without labels.
        """
        spins = self._checked(X)
        if not hasattr(self, "classes_"):
            raise ValueError("labels were not learned: call fit(X, y) with y")
        joints = self._ensemble.log_joints(spins)
        return np.exp(joints - np.logaddexp.reduce(joints, axis=1, keepdims=True))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label given the features, shape `(samples,)`."""
        probabilities = self.predict_proba(X)
        return self.classes_[np.argmax(probabilities, axis=1)]

    def score_samples(self, X: Any) -> Float[np.ndarray, " _"]:
        """ln p of each sample in nats, shape `(samples,)`.

        ln Z is exact up to 20 spins, for an `RBM` with a layer of at most 20, and for
        `Interactions` on a narrow graph; else by annealing. Its standard error,
        `log_partition_error_`, is that of all entries together.
        """
        spins = self._checked(X)
        joints = self._ensemble.log_joints(spins)
        return np.logaddexp.reduce(joints, axis=1) - self._ensemble.log_partition.value

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Share of right labels where it has learned some and `y` is given, else the mean ln p."""
        if y is not None and hasattr(self, "classes_"):
            return super().score(X, y, sample_weight)
        return float(np.average(self.score_samples(X), weights=sample_weight))

    def transform(self, X: Any) -> Float[np.ndarray, "_ _"]:
        """Probability of each hidden spin to be up, shape `(samples, hidden)`.

        Where no spin is hidden, the responsibilities of `states_` for each sample, shape
        `(samples, states)`: as in a mixture of product measures with the magnetizations of the
        states and their weights `exp(-F)`.
        """
        spins = self._checked(X)
        return self._ensemble.features(spins)

    def sample(self, n_samples: int = 1) -> Any:
        """Draw samples: exactly up to 20 spins, else by population annealing.

        Returns:
            Features of 0 and 1, shape `(n_samples, features)`; with labels where it has learned
            some, `(features, labels)`.
        """
        check_is_fitted(self)
        random = check_random_state(self.random_state)
        drawn = self._ensemble.draws(n_samples, random)
        features = (drawn[:, : self.n_features_in_] + 1) // 2
        if not hasattr(self, "classes_"):
            return features
        label = drawn[:, self.n_features_in_ :]
        return features, self.classes_[np.argmax(label @ self._label_codes.T, axis=1)]

    @property
    def energy_(self) -> AbstractEnergy:
        """The learned energy, in double precision."""
        check_is_fitted(self)
        return self._ensemble.energy

    @property
    def log_partition_(self) -> float:
        """ln Z of the learned energy, over features and label."""
        check_is_fitted(self)
        return float(self._ensemble.log_partition.value)

    @property
    def log_partition_error_(self) -> float:
        """Standard error of ln Z: 0 where it is exact, infinite where annealing has failed."""
        check_is_fitted(self)
        return float(self._ensemble.log_partition.error)

    @property
    def states_(self) -> Library:
        """Minima of naive mean field, mirror images apart: candidates for bound states."""
        check_is_fitted(self)
        return self._ensemble.states

    @property
    def _n_features_out(self) -> int:
        return self._ensemble.n_features


def _one_hot(n_classes: int) -> Int8[np.ndarray, "_ _"]:
    """Spins of each class: none for one, one for two, else one each."""
    if n_classes == 2:
        return np.array([[-1], [1]], np.int8)
    return (2 * np.eye(n_classes, dtype=np.int8) - 1)[:, : n_classes if n_classes > 1 else 0]
