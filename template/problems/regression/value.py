"""From a prediction to the number to plan with, and what its error costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..problem import Costs

if TYPE_CHECKING:
    from ..settings import Goals

Array = np.ndarray


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


def decide(score: Array, decision: float) -> Array:
    """The prediction moved by the shift, shape (n,)."""
    return score + decision


def fixed_decision(score: float, goals: Goals, threshold: float | None = None) -> float:
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


def changes(least: float) -> tuple[str, str, str]:
    """How a reader calls decisions that move by more than `least`, and the two ways: up and down."""
    return f"numbers to plan with move by more than {least:.3g}", "up", "down"
