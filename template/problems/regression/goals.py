"""YOURS: what is wanted: metrics (each also over many resamples, for its interval), costs, value, decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import Costs, LabelKeys
from .decision import decide as decide

if TYPE_CHECKING:
    from ..settings import Goals, Settings

Array = np.ndarray
# A metric takes (y, score, decided, weights): the truth, the prediction and the prediction moved
# by the costs, each of shape (n,); weights has shape (resamples, n). It returns (resamples,).
Compute = Callable[[Array, Array, Array, Array], Array]


@dataclass(frozen=True)
class Metric:
    """A metric of decisions and scores, which settings, reports and the gate know by its name."""

    higher_is_better: bool
    compute: Compute
    meaning: str  # to a reader who is no engineer


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
    squared_error = _mean((score - y) ** 2, weights)
    variance = _mean(y**2, weights) - _mean(y, weights) ** 2
    return 1 - np.divide(squared_error, variance, out=np.ones(len(weights)), where=variance > 0)


METRICS: dict[str, Metric] = {
    "bias": Metric(
        False, _bias, "how far off it is on average, too much and too little set against each other"
    ),
    "mae": Metric(False, _mae, "the mean size of its errors"),
    "mape": Metric(False, _mape, "the mean size of its errors, each as a share of the truth"),
    "r2": Metric(True, _r2, "the share of the differences that it explains"),
    "rmse": Metric(False, _rmse, "the error, large ones counting more"),
}


def numeric(y: Array) -> Array:
    """The label as one number, shape (n,): itself."""
    return y


def unit(y: Array) -> Array | None:
    """What each row belongs to and is judged with; None: each row stands by itself."""
    return None


def together(y: Array) -> Array | None:
    """What rows share that stay on one side of a fold, whatever splits them, shape (n,): each row goes by itself."""
    return None


def own_figures(y: Array, score: Array, interval: Any) -> dict[str, float]:
    """What `OWN_RULES` promises of answers, as measured on n rows; `interval`: the manifest's. Nothing is."""
    return {}


# Tables that the report has of this kind of problem alone: none
OWN_TABLES: Any = None


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


def distance(before: Array, after: Array) -> Array:
    """How far the score of each row moves, shape (n,)."""
    return np.abs(after - before)


def rise(before: Array, after: Array, expected: str, label: LabelKeys) -> Array:
    """How far the score of each row moves as it should, shape (n,); below 0 against it.

    Args:
        expected: as in `modelling.evaluation.expectations`: up or down.
    """
    return after - before if expected == "up" else before - after


def curves(
    y: Array, score: Array, decision: float, costs: Any, label: LabelKeys, interval: Any = None
) -> dict[str, tuple[str, str, str, dict[str, Any]]]:
    """The pictures of an evaluation by name: title, both axes' names, and the x and y of each curve."""
    order = np.argsort(score, kind="stable")
    groups = np.array_split(order, min(10, len(y)))
    mean_score = [score[g].mean() for g in groups]
    ends = [float(min(mean_score)), float(max(mean_score))]
    error = np.sort(score - y)
    shifts = np.quantile(y - score, np.linspace(0.01, 0.99, 99))
    cost = [
        np.where(e > 0, e * costs.over_prediction, -e * costs.under_prediction).mean()
        for e in (error + shift for shift in shifts)
    ]
    return {
        "calibration": (
            "Calibration: truth by prediction, in ten groups",
            "mean prediction",
            "mean truth",
            {"model": [mean_score, [y[g].mean() for g in groups]], "perfect": [ends, ends]},
        ),
        "residuals": (
            "Spread of the error by prediction",
            "mean prediction",
            "prediction - truth",
            {
                f"{round(100 * q)} %": [
                    mean_score,
                    [float(np.quantile(score[g] - y[g], q)) for g in groups],
                ]
                for q in (0.05, 0.5, 0.95)
            },
        ),
        "value_by_shift": (
            "Cost per row when the prediction is moved",
            "shift",
            "cost per row",
            {"cost": [shifts, cost], "chosen shift": [[decision] * 2, [0, float(max(cost))]]},
        ),
    }


def value(y: Array, decided: Array, costs: Costs) -> Array:
    """What each prediction is worth: minus what its error costs, shape (n,); higher is better."""
    error = decided - y
    return -np.where(error > 0, error * costs.over_prediction, -error * costs.under_prediction)


def fit_decision(y: Array, score: Array, costs: Costs, decision: str | float) -> float:
    """How far to move the prediction before planning with it.

    `costs`: the quantile under / (under + over) of the error on these rows, where one unit more
    and one unit less cost the same (the newsvendor; Arrow, Harris and Marschak, 1951). A number
    is taken as it is.
    """
    if decision != "costs":
        return float(decision)
    share = costs.under_prediction / (costs.under_prediction + costs.over_prediction)
    return float(np.quantile(y - score, share))


def fixed_score(settings: Settings) -> float:
    """The prediction that is answered with when no model can."""
    return settings.serving.fallback


def fixed_decision(score: float, settings: Settings, threshold: float | None = None) -> float:
    """The number to plan with when no model gave one: the number itself, which nothing has to move."""
    return score


def aimed_quantile(goals: Goals) -> float | None:
    """The share of outcomes that should lie at a prediction or below, by the loss; None for the mean."""
    costs = goals.costs
    match goals.loss:
        case "absolute":
            return 0.5
        case "quantile":
            return costs.under_prediction / (costs.under_prediction + costs.over_prediction)
        case "metric" if goals.metric in ("mae", "mape"):
            return 0.5
        case _:
            return None


def constant_decisions(label: LabelKeys) -> dict[str, float]:
    """Decisions that ask no model, by what they are called: none of a number."""
    return {}


def changes(tolerance: float) -> tuple[str, str, str]:
    """How a reader calls decisions that move by more than `tolerance`, and the two ways: up and down."""
    return f"numbers to plan with move by more than {tolerance:.3g}", "up", "down"


def way(y: Array, old: Array, new: Array, tolerance: float) -> Array:
    """1 where a decision changes upwards, -1 where downwards, 0 where it stays, shape (n,).

    Args:
        tolerance: a change of no more than this counts as none.
    """
    return np.where(np.abs(new - old) > tolerance, np.sign(new - old), 0.0)


def claim(score: Array, decided: Array) -> Array:
    """What each answer says will come, shape (n,): the prediction."""
    return score


def came(y: Array, decided: Array) -> Array:
    """What came of each answer, in the unit of its claim, shape (n,)."""
    return y
