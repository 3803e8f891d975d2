"""The metrics of a yes-or-no problem, each also over many resamples at once, for its interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray
# A metric takes (y, score, decided, weights): y and decided are 0.0 or 1.0 and score is a
# probability, each of shape (n,); weights has shape (resamples, n). It returns (resamples,).
Compute = Callable[[Array, Array, Array, Array], Array]


@dataclass(frozen=True)
class Metric:
    higher_is_better: bool
    compute: Compute


def _share(hit: Array, among: Array, weights: Array) -> Array:
    """Weighted share of `hit` among the rows where `among` is 1; 0 where there is none."""
    total = weights @ among
    return np.divide(weights @ (hit * among), total, out=np.zeros(len(weights)), where=total > 0)


def _accuracy(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    return _share((y == decided).astype(float), np.ones_like(y), weights)


def _precision(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    return _share(y, decided, weights)


def _recall(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    return _share(decided, y, weights)


def _f1(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    wrong = (weights @ np.abs(y - decided)) / 2
    right = weights @ (y * decided)
    return np.divide(right, right + wrong, out=np.zeros(len(weights)), where=right + wrong > 0)


def _brier(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    return (weights @ (score - y) ** 2) / weights.sum(axis=1)


def _log_loss(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    sure = np.clip(score, 1e-7, 1 - 1e-7)
    loss = -np.where(y == 1, np.log(sure), np.log(1 - sure))
    return (weights @ loss) / weights.sum(axis=1)


def _ranked(y: Array, score: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted positives and rows from the highest score down, cumulated, at each distinct score.

    Scores between two positives, which no metric tells apart, count as one.
    """
    order = np.argsort(-score, kind="stable")
    y, weights = y[order], np.take(weights, order, axis=1)  # row-wise in memory, as it is summed
    starts = np.append(0, np.flatnonzero(np.diff(score[order])) + 1)
    positive = np.add.reduceat(y, starts) > 0
    starts = starts[positive | np.append(True, positive[:-1])]
    hits, rows = (
        np.add.reduceat(one, starts, axis=1, dtype=np.float64)
        for one in (weights * y.astype(weights.dtype), weights)
    )
    return np.cumsum(hits, axis=1), np.cumsum(rows, axis=1)


def _average_precision(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    hits, rows = _ranked(y, score, weights)
    precision = np.divide(hits, rows, out=np.zeros_like(hits), where=rows > 0)
    steps = np.diff(hits, axis=1, prepend=0.0)
    total = hits[:, -1]
    return np.divide((steps * precision).sum(1), total, out=np.zeros(len(total)), where=total > 0)


def _roc_auc(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    hits, rows = _ranked(y, score, weights)
    misses = rows - hits
    pairs = hits[:, -1] * misses[:, -1]
    before = np.concatenate([np.zeros((len(hits), 1)), hits[:, :-1]], axis=1)
    area = (np.diff(misses, axis=1, prepend=0.0) * (before + hits) / 2).sum(axis=1)
    return np.divide(area, pairs, out=np.full(len(pairs), 0.5), where=pairs > 0)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(True, _accuracy),
    "average_precision": Metric(True, _average_precision),
    "brier": Metric(False, _brier),
    "f1": Metric(True, _f1),
    "log_loss": Metric(False, _log_loss),
    "precision": Metric(True, _precision),
    "recall": Metric(True, _recall),
    "roc_auc": Metric(True, _roc_auc),
}


def spread(y: Array) -> float:
    """The unit in which a change of the score is told: probabilities need none."""
    return 1.0


def outcome_variance(score: Array) -> Array | None:
    """The variance of an outcome that is a yes as often as its score says, shape (n,)."""
    return score * (1 - score)


def confidence_gain(
    y: Array, score: Array, decided: Array, decision: float, weights: Array | None = None
) -> Any:
    """How much more often the half of the rows farthest from the threshold is decided right.

    A model whose confidence means something gains; one whose confidence is noise stays near 0
    (selective prediction; El-Yaniv and Wiener, 2010).

    Args:
        weights: how often each row counts, shape (resamples, n), for one value a resample.
    """
    # Distance in ranks: the threshold is rarely in the middle of the scores
    rank = np.argsort(np.argsort(score, kind="stable"), kind="stable")
    distance = np.abs(rank - np.searchsorted(np.sort(score), decision))
    sure = np.zeros(len(y))
    sure[np.argsort(-distance, kind="stable")[: max(1, len(y) // 2)]] = 1.0
    right = (y == decided).astype(np.float64)
    once = np.ones((1, len(y))) if weights is None else weights
    gains = _share(right, sure, once) - _share(right, np.ones(len(y)), once)
    return float(gains[0]) if weights is None else gains


def turned(before: Array, after: Array, decided_before: Array, decided_after: Array) -> Array:
    """Which decisions noise turns, by row, shape (n,)."""
    return decided_before != decided_after


def curves(y: Array, score: Array, decision: float, costs: Any) -> dict[str, dict[str, Any]]:
    """The pictures of an evaluation, as data: title, axes and named (x, y) series by name."""
    order = np.argsort(-score, kind="stable")
    hits, rows = np.cumsum(y[order]), np.arange(1, len(y) + 1)
    positives, negatives = max(hits[-1], 1), max(len(y) - hits[-1], 1)
    at = np.unique(np.linspace(0, len(y) - 1, min(200, len(y))).astype(int))
    groups = np.array_split(order[::-1], min(10, len(y)))
    missed = positives - hits
    spent = (
        (rows - hits) * costs.false_positive
        + missed * costs.false_negative
        + hits * costs.true_positive
        + (negatives - (rows - hits)) * costs.true_negative
    )
    return {
        "precision_recall": {
            "title": "Precision and recall",
            "x": "recall",
            "y": "precision",
            "series": {
                "model": [(hits / positives)[at], (hits / rows)[at]],
                "no skill": [[0, 1], [positives / len(y)] * 2],
            },
        },
        "roc": {
            "title": "ROC",
            "x": "false positive rate",
            "y": "true positive rate",
            "series": {
                "model": [((rows - hits) / negatives)[at], (hits / positives)[at]],
                "no skill": [[0, 1], [0, 1]],
            },
        },
        "calibration": {
            "title": "Calibration: of the rows scored so, how many were positive",
            "x": "mean score",
            "y": "share of positives",
            "series": {
                "model": [[score[g].mean() for g in groups], [y[g].mean() for g in groups]],
                "perfect": [[0, 1], [0, 1]],
            },
        },
        "value_by_threshold": {
            "title": "Cost per row at each threshold",
            "x": "threshold",
            "y": "cost per row",
            "series": {
                "cost": [score[order][at], (spent / len(y))[at]],
                "chosen threshold": [[decision] * 2, [0, float(spent.max() / len(y))]],
            },
        },
    }
