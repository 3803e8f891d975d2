"""YOURS: what the monitor watches of a number, and what its drills break."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import LabelKeys
from .data import CHANGE, HORIZON, LEVEL, PATH, VALUE
from .goals import inside

Array = np.ndarray
# Metrics that are estimated from what the inputs tell of the error (what is averaged for each); all
# others from the score
ERRORS = {"mae": "loss", "rmse": "squares", "mase": "scaled"}
LABEL_BINS = 10
# Decisions of 1 whose share is watched by itself, as a reader calls them
FLAGGED: str | None = None
# Metrics that labels of such rows alone can tell
OF_FLAGGED: frozenset[str] = frozenset()
# Shifts that only this kind of problem has: none
OWN_SHIFTS: dict[str, tuple[Any, ...]] = {}
BANDS = ("first", "second", "last")  # thirds of the steps ahead, which are told apart
MIN_VALUES = 30  # of a third, below which nothing is told of it


def row_loss(y: Array, score: Array) -> Array:
    """What a row adds to the figure that is watched, shape (n,): the absolute error."""
    return np.abs(score - y)


def sizes(truth: Array) -> Array | float:
    """In which units labels and scores of n rows are watched, shape (n,): the levels of their series, so that one that
    grows as its forecasts say is no drift."""
    return 1.0 if truth.ndim == 1 else truth[:, LEVEL]


def losses(truth: Array, score: Array) -> dict[str, Array]:
    """What `ERRORS` names of each of n rows, each of shape (n,): the absolute error, the squared one, and the absolute
    one in units of what the series changes by in a season.

    Args:
        truth: shape (n, columns), or of values alone (n,).
    """
    y, change = (truth, 1.0) if truth.ndim == 1 else (truth[:, VALUE], truth[:, CHANGE])
    gap = np.abs(y - score)
    return {"loss": gap, "squares": gap**2, "scaled": gap / change}


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


def figures_ahead(
    truth: Array,
    score: Array,
    slots: Array | None,
    logged: Array | None = None,
    interval: Any = None,
) -> dict[str, float]:
    """How far forecasts are from what came, and how often it lay in their intervals, by how far ahead they were.

    Errors are in units of the series' change by a season, as MASE has it. No alarm rings for the share: the rows of a
    path, and all series of a day, go wrong together, so no limit would keep its false alarms known.

    Args:
        truth: of n rows, shape (n, columns), without a value where none came yet; score: shape (n,).
        logged: the ends of the interval that each row was answered with, shape (n, 2), NaN where it had none.
        interval: the manifest's, by which rows have theirs that were never logged; None: `logged` tells.
    """
    if truth.ndim == 1:
        return {}
    ahead, value = truth[:, HORIZON], truth[:, VALUE]
    third = np.clip(np.ceil(3 * ahead / max(1.0, ahead.max(initial=1.0))), 1, 3)
    measured = {"mase of the {} third of the steps ahead": np.abs(value - score) / truth[:, CHANGE]}
    if (held := _held(truth, score, logged, interval)) is not None:
        measured["share inside the interval, {} third of the steps ahead"] = held
    figures = {}
    for title, values in measured.items():
        for number, band in enumerate(BANDS, start=1):
            of_third = values[(third == number) & np.isfinite(values)]
            if len(of_third) >= MIN_VALUES:
                figures[title.format(band)] = float(of_third.mean())
    return figures


def _held(truth: Array, score: Array, logged: Array | None, interval: Any) -> Array | None:
    """1 where the interval of a row holds what came, else 0, NaN without an interval or a value, shape (n,); None where
    no row has an interval. Arguments as `figures_ahead` has them."""
    value = truth[:, VALUE]
    if interval is not None:
        return np.where(np.isfinite(value), inside(truth, score, interval)[0], np.nan)
    if logged is None:
        return None
    low, high = logged.T
    return np.where(np.isfinite(value + low + high), (value >= low) & (value <= high), np.nan)


def _level_shift(
    raw: Any, y: Array, truth: Array, label: LabelKeys, rng: np.random.Generator
) -> dict[str, Any]:
    """Everything sells half as much again as it did, and histories do not say it yet."""
    return {"y": 1.5 * y}


def _changed_season(
    raw: Any, y: Array, truth: Array, label: LabelKeys, rng: np.random.Generator
) -> dict[str, Any]:
    """What came at one step of a path comes half a season later, as if people bought on other days; of a path that is
    shorter than a season, half a path later."""
    if truth.ndim == 1:
        return {"y": y}
    order = np.lexsort((truth[:, HORIZON], truth[:, PATH]))
    ends = np.flatnonzero(np.diff(truth[order, PATH], append=np.inf)) + 1
    moved = y.copy()
    for rows in np.split(order, ends[:-1]):
        moved[rows] = y[np.roll(rows, max(1, min(label.season, len(rows)) // 2))]
    return {"y": moved}


def _dead_feed(
    raw: Any, y: Array, truth: Array, label: LabelKeys, rng: np.random.Generator
) -> dict[str, Any]:
    """The latest quarter of each history never arrived."""
    if label.history is None:
        return {"raw": raw}
    texts = raw[label.history].astype(object)
    cut = {text: _without_latest(text) for text in texts.dropna().unique()}
    return {"raw": raw.assign(**{label.history: texts.map(cut)})}


def _without_latest(history: str) -> str:
    values = json.loads(history)
    count = max(1, len(values) // 4)
    return json.dumps([*values[:-count], *[None] * count])


# Drills that only this kind of problem has -> what it changes, and the kinds of shift that have to be named
OWN_CHANGES: dict[str, tuple[Any, set[str]]] = {
    "level-shift": (_level_shift, {"concept_drift"}),
    "changed-season": (_changed_season, {"concept_drift"}),
    "dead-feed": (_dead_feed, {"feature_drift"}),
}
# Figures of a window that only this kind of problem has: their title, what works them out, the log's columns of numbers
# that it needs, and which facts of the training data it needs of the reference
OWN_FIGURES: tuple[str, Any, tuple[str, ...], Any] | None = (
    "Errors and intervals by how far ahead",
    figures_ahead,
    ("_low", "_high"),
    None,
)
