"""Whether a study that was stored is the one that is asked for."""

import dataclasses

import equinox as eqx
import numpy as np

from ._study import Source, Study


def check_same(stored: Study, asked: Study) -> None:
    """See that two studies have the same data and settings.

    Args:
        stored: the study that would be taken up.
        asked: the study that is asked for.

    Raises:
        ValueError: if they differ; the message names what does.
    """
    ours, theirs = dataclasses.asdict(asked.settings), dataclasses.asdict(stored.settings)
    differences = [f"{k} is {ours[k]}, was {v}" for k, v in theirs.items() if ours[k] != v]
    differences += _differences(stored.source, asked.source)
    if asked.given and not eqx.tree_equal(stored.energy, asked.energy):
        differences.append(f"the model in {asked.settings.model} is another")
    if differences:
        raise ValueError(f"another study was begun: {'; '.join(differences)}")


def _differences(stored: Source, asked: Source) -> list[str]:
    if asked.name != stored.name:
        return [f"data is {asked.name}, was {stored.name}"]
    names = [name for name in Source._fields if name != "name"]
    return [
        f"{name} of {asked.name} are others"
        for name in names
        if not np.array_equal(getattr(stored, name), getattr(asked, name))
    ]
