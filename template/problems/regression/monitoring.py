"""YOURS: what the monitor watches of a number, and what its drills break."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import LabelKeys

Array = np.ndarray
# Metrics that are estimated from what the inputs tell of the error (what is averaged for each); all
# others from the score
ERRORS = {"mae": "loss", "rmse": "squares"}
LABEL_BINS = 10
# Decisions of 1 whose share is watched by itself, as a reader calls them
FLAGGED: str | None = None
# Metrics that labels of such rows alone can tell
OF_FLAGGED: frozenset[str] = frozenset()
# Shifts and figures that only this kind of problem has: none
OWN_SHIFTS: dict[str, tuple[Any, ...]] = {}
OWN_FIGURES: tuple[str, Any, tuple[str, ...], Any] | None = None


def row_loss(y: Array, score: Array) -> Array:
    """What a row adds to the figure that is watched, shape (n,): the absolute error."""
    return np.abs(score - y)


def sizes(truth: Array) -> Array | float:
    """In which units labels and scores of n rows are watched: their own."""
    return 1.0


def losses(truth: Array, score: Array) -> dict[str, Array]:
    """What `ERRORS` names of each of n rows: the absolute and the squared error, each of shape (n,)."""
    gap = np.abs(truth - score)
    return {"loss": gap, "squares": gap**2}


def label_edges(y: Array, label: LabelKeys) -> list[float]:
    """The upper ends of the bins, or the classes, that labels are counted in."""
    inner = np.unique(np.quantile(y, np.linspace(0, 1, LABEL_BINS + 1)[1:-1]))
    return [*inner.tolist(), float("inf")]


def score_cuts(decision: float) -> list[float]:
    """Where the bins of the score must end: anywhere."""
    return []


def ranked(y: Array) -> Array:
    """Labels from 0 to 1 in their order, shape (n,), for the drill that draws the higher ones more often."""
    ordered = np.sort(y)
    return (np.searchsorted(ordered, y) + np.searchsorted(ordered, y, "right") + 1) / (2 * len(y))


def written(label: LabelKeys, values: Sequence[str]) -> list[str]:
    """How the labels 0 and 1 are written; nothing of a number."""
    return []


def fed_back(y: Array, truth: Array) -> Array:
    """Labels as they come back from where a row was shown, shape (n,): themselves."""
    return y


def placed(truth: Array, decisions: Any) -> Any:
    """The logged decisions of rows that are drawn one by one: themselves."""
    return decisions


def strange(y: Array, label: LabelKeys, values: Sequence[str], rng: np.random.Generator) -> Array:
    """Labels in another unit, shape (n,)."""
    return y * 100


# Drills that only this kind of problem has: none
OWN_CHANGES: dict[str, tuple[Any, set[str]]] = {}
