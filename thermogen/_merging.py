"""Results of independent runs of one problem, made one."""

import functools
from collections.abc import Iterable
from typing import Any, TypeVar

import equinox as eqx

_Result = TypeVar("_Result")


@functools.singledispatch
def merged(first: Any, others: list[Any]) -> Any:
    """One result of several of a class; each room registers the rule for its own.

    Args:
        first: the first result, whose class chooses the rule.
        others: the others, of that class.
    """
    raise TypeError(f"results of the class {type(first).__name__} cannot be merged")


def merge(results: Iterable[Any]) -> Any:
    """One result of independent runs of one problem, such as the tasks of an array.

    - A [`Library`][thermogen.search.Library]: all states, each once, modulo mirror images; hits,
      and quenches that found none, add up, so that `coverage` and `completeness` speak of all runs
      together. Runs from equal keys repeat the same quenches: of these the larger count stands,
      with a warning.
    - An [`Estimate`][thermogen.sampling.Estimate] of ln Z, or a
      [`PopulationEstimate`][thermogen.sampling.PopulationEstimate]: that of one run of all chains,
      or populations: the mean of Z, in which each chain counts the same, its effective size, error
      and judgement. Weights by errors would favour runs that have met none of the rare heavy
      weights: these claim small errors, and lie low. Of estimates by reweighting, the plain mean.
    - A [`Measurement`][thermogen.sampling.Measurement]: the plain mean; merge runs of one size.
    - A [`Certificate`][thermogen.kinetics.Certificate] of the same candidates:
      [`Escapes`][thermogen.kinetics.Escapes], which is what of it adds up.

    Estimates and measurements that differ by more than their errors allow, once in a thousand
    times by chance, have an infinite error, and estimates the code `disagree`.

    Args:
        results: at least one result; all of one class.

    Raises:
        ValueError: for no results, and for results of different problems, as far as they know
            theirs: libraries of other functionals, energies or beta.
        TypeError: for results of several classes, or of one that has no rule.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        magnet = tg.Pairwise(np.ones((6, 6)) - np.eye(6), np.zeros(6))

        def search(task):
            key = jax.random.fold_in(jax.random.key(0), task)
            return tg.find_minima(tg.NaiveMeanField(), magnet, 1.0, key=key, n_starts=32)

        runs = [search(task) for task in range(3)]
        library = tg.merge(runs)
        assert library.hits.sum() == sum(run.hits.sum() for run in runs)
        ```
    """
    if isinstance(results, eqx.Module) or hasattr(results, "_fields"):
        raise TypeError(f"results must be several results, got one {type(results).__name__}")
    first, *others = _of_one_class(list(results))
    return merged(first, others)


def _of_one_class(results: list[_Result]) -> list[_Result]:
    if not results:
        raise ValueError("results must hold at least one result, got none")
    names = list(dict.fromkeys(type(result).__name__ for result in results))
    if len(names) > 1:
        raise TypeError(f"results must be of one class, got {' and '.join(names)}")
    return results
