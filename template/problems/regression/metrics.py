"""The metrics of a problem with a number for an answer, each also over many resamples at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray
# A metric takes (y, score, decided, weights): the truth, the prediction and the prediction moved
# by the costs, each of shape (n,); weights has shape (resamples, n). It returns (resamples,).
Compute = Callable[[Array, Array, Array, Array], Array]


@dataclass(frozen=True)
class Metric:
    higher_is_better: bool
    compute: Compute


def _mean(values: Array, weights: Array) -> Array:
    return (weights @ values) / weights.sum(axis=1)


def _mae(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    return _mean(np.abs(score - y), weights)


def _rmse(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    return np.sqrt(_mean((score - y) ** 2, weights))


def _mape(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    # As scikit-learn: a zero truth counts as the smallest number, and so shows itself
    return _mean(np.abs(score - y) / np.maximum(np.abs(y), np.finfo(np.float64).eps), weights)


def _bias(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    return np.abs(_mean(score - y, weights))


def _r2(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    left = _mean((score - y) ** 2, weights)
    total = _mean(y**2, weights) - _mean(y, weights) ** 2
    return 1 - np.divide(left, total, out=np.ones(len(weights)), where=total > 0)


METRICS: dict[str, Metric] = {
    "bias": Metric(False, _bias),
    "mae": Metric(False, _mae),
    "mape": Metric(False, _mape),
    "r2": Metric(True, _r2),
    "rmse": Metric(False, _rmse),
}


def spread(y: Array) -> float:
    """The unit in which a change of the prediction is told: the label's standard deviation."""
    return float(np.std(y)) or 1.0


def outcome_variance(score: Array) -> Array | None:
    """How much an outcome varies around a right score: a number's score does not say, so None."""
    return None


def confidence_gain(
    y: Array, score: Array, decided: Array, decision: float, weights: Array | None = None
) -> Any:
    """Nothing tells how sure a single number is, so there is no surer half to compare."""
    return None


def turned(before: Array, after: Array, decided_before: Array, decided_after: Array) -> Array:
    """How far noise moves each answer, shape (n,)."""
    return np.abs(after - before)


def curves(y: Array, score: Array, decision: float, costs: Any) -> dict[str, dict[str, Any]]:
    """The pictures of an evaluation, as data: title, axes and named (x, y) series by name."""
    order = np.argsort(score, kind="stable")
    groups = np.array_split(order, min(10, len(y)))
    mean_score = [score[g].mean() for g in groups]
    ends = [float(min(mean_score)), float(max(mean_score))]
    error = np.sort(score - y)
    shares = np.linspace(0.01, 0.99, 99)
    shifts = np.quantile(y - score, shares)
    kept = [error + s for s in shifts]
    cost = [
        np.where(e > 0, e * costs.over_prediction, -e * costs.under_prediction).mean() for e in kept
    ]
    return {
        "calibration": {
            "title": "Calibration: truth by prediction, in ten groups",
            "x": "mean prediction",
            "y": "mean truth",
            "series": {
                "model": [mean_score, [y[g].mean() for g in groups]],
                "perfect": [ends, ends],
            },
        },
        "residuals": {
            "title": "Spread of the error by prediction",
            "x": "mean prediction",
            "y": "prediction - truth",
            "series": {
                f"{round(100 * q)} %": [
                    mean_score,
                    [float(np.quantile(score[g] - y[g], q)) for g in groups],
                ]
                for q in (0.05, 0.5, 0.95)
            },
        },
        "value_by_shift": {
            "title": "Cost per row when the prediction is moved",
            "x": "shift",
            "y": "cost per row",
            "series": {
                "cost": [shifts, cost],
                "chosen shift": [[decision] * 2, [0, float(max(cost))]],
            },
        },
    }
