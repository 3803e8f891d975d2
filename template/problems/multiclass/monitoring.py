"""YOURS: what the monitor watches of classes, and what its drills break."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import LabelKeys

Array = np.ndarray
# Metrics that are estimated from what the inputs tell of the error; all others from the scores
ERRORS: dict[str, str] = {}
STRENGTH = 2.0  # one class among several moves the scores less than a yes among yes and no
# Decisions of 1 whose share is watched by itself, as a reader calls them
FLAGGED: str | None = None
# Metrics that labels of such rows alone can tell
OF_FLAGGED: frozenset[str] = frozenset()
# Shifts and figures that only this kind of problem has: none
OWN_SHIFTS: dict[str, tuple[Any, ...]] = {}
OWN_FIGURES: tuple[str, Any, tuple[str, ...], Any] | None = None


def row_loss(y: Array, score: Array) -> Array:
    """What a row adds to the figure that is watched, shape (n,): the squared error over all classes."""
    return (score**2).sum(axis=1) + 1 - 2 * score[np.arange(len(y)), y.astype(np.int64)]


def sizes(truth: Array) -> Array | float:
    """In which units labels and scores of n rows are watched: their own."""
    return 1.0


def losses(truth: Array, score: Array) -> dict[str, Array]:
    """What `ERRORS` names of each of n rows: nothing."""
    return {}


def label_edges(y: Array, label: LabelKeys) -> list[float]:
    """The upper ends of the bins, or the classes, that labels are counted in."""
    return [float(index) for index in range(len(label.classes))]


def score_cuts(decision: Sequence[Sequence[float]]) -> list[float]:
    """Where the bins of the score must end: anywhere."""
    return []


def ranked(y: Array) -> Array:
    """Labels in an order, shape (n,), for the drill that draws the higher ones more often: the commonest
    class is 0, the rarest `STRENGTH`."""
    classes, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    order = np.argsort(np.argsort(-counts, kind="stable"), kind="stable")
    return STRENGTH * order[codes] / max(1, len(classes) - 1)


def written(label: LabelKeys, values: Sequence[str]) -> list[str]:
    """How the labels 0, 1 … are written.

    Args:
        values: all that there were.
    """
    return list(label.classes)


def fed_back(y: Array, truth: Array) -> Array:
    """Labels as they come back from where a row was shown, shape (n,): themselves."""
    return y


def placed(truth: Array, decisions: Any) -> Any:
    """The logged decisions of rows that are drawn one by one: themselves."""
    return decisions


def strange(y: Array, label: LabelKeys, values: Sequence[str], rng: np.random.Generator) -> Array:
    """Labels as they are written, a tenth of them of a class that was never there, shape (n,)."""
    names = np.array(label.classes, dtype=object)[y.astype(np.int64)]
    return np.where(rng.random(len(y)) < 0.1, "another", names)


# Drills that only this kind of problem has: none
OWN_CHANGES: dict[str, tuple[Any, set[str]]] = {}
