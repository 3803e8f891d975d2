"""YOURS: what the monitor watches of oddness, and what its drills break."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import UNLABELLED, LabelKeys

Array = np.ndarray
# Metrics that are estimated from what the inputs tell of the error; all others from the score
ERRORS: dict[str, str] = {}
# Decisions of 1 whose share is watched by itself, as a reader calls them: too few is no good news either
FLAGGED: str | None = "alerts"
# Metrics that labels of such rows alone can tell
OF_FLAGGED: frozenset[str] = frozenset({"precision"})
# Shifts and figures that only this kind of problem has: none
OWN_SHIFTS: dict[str, tuple[Any, ...]] = {}
OWN_FIGURES: tuple[str, Any, tuple[str, ...], Any] | None = None


def row_loss(y: Array, score: Array) -> Array:
    """What a row adds to the figure that is watched, shape (n,): how far on the wrong side its score lies;
    nothing where nobody looked."""
    return np.where(y == UNLABELLED, 0.0, np.abs(score - np.minimum(y, 1.0)))


def sizes(truth: Array) -> Array | float:
    """In which units labels and scores of n rows are watched: their own."""
    return 1.0


def losses(truth: Array, score: Array) -> dict[str, Array]:
    """What `ERRORS` names of each of n rows: nothing."""
    return {}


def label_edges(y: Array, label: LabelKeys) -> list[float]:
    """The upper ends of the bins, or the classes, that labels are counted in: usual, odd, nobody looked."""
    return [0.0, 1.0, float(UNLABELLED or 2.0)]


def score_cuts(decision: float) -> list[float]:
    """Where the bins of the score must end: one that reaches the threshold is flagged, and a bin does
    not hold its lower end."""
    return [float(np.nextafter(decision, -np.inf))]


def ranked(y: Array) -> Array:
    """Labels from 0 to 1 in their order, shape (n,), for the drill that draws the higher ones more often."""
    return np.where(y == UNLABELLED, 0.0, y)


def written(label: LabelKeys, values: Sequence[str]) -> list[str]:
    """How the labels 0 and 1 are written.

    Args:
        values: all that there were.
    """
    usual = [value for value in values if value != label.positive]
    return [usual[0] if usual else "no", str(label.positive)]


def fed_back(y: Array, truth: Array) -> Array:
    """Labels as they come back from where a row was shown, shape (n,): themselves."""
    return y


def placed(truth: Array, decisions: Any) -> Any:
    """The logged decisions of rows that are drawn one by one: themselves."""
    return decisions


def strange(y: Array, label: LabelKeys, values: Sequence[str], rng: np.random.Generator) -> Array:
    """Labels as they are written, a tenth of them of a class that was never there, shape (n,)."""
    is_new = rng.random(len(y)) < 0.1
    if all(value.replace(".", "", 1).isdigit() for value in values):
        return np.where(is_new, 3.0, y)
    named_values = [value for value in values if value]
    return np.where(is_new, "another", np.where(y == 1, named_values[-1], named_values[0]))


# Drills that only this kind of problem has: none
OWN_CHANGES: dict[str, tuple[Any, set[str]]] = {}
