"""From a score to a decision, and from a decision to what it is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..problem import Costs

if TYPE_CHECKING:
    from ..settings import Goals

Array = np.ndarray


def value(y: Array, decided: Array, costs: Costs) -> Array:
    """What each decision is worth: minus its cost, shape (n,); higher is better."""
    yes = y == 1
    cost = np.where(
        decided == 1,
        np.where(yes, costs.true_positive, costs.false_positive),
        np.where(yes, costs.false_negative, costs.true_negative),
    )
    return -cost


def fit_decision(y: Array, score: Array, costs: Costs, decision: str | float) -> float:
    """The threshold from which a score means yes.

    `costs`: the one that was cheapest on these rows, halfway to the next score; with calibrated
    scores it lies near (FP - TN) / (FP - TN + FN - TP) (Elkan, 2001). A number is taken as it is.
    """
    if decision != "costs":
        return float(decision)
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    # Worth of saying yes to the k best rows, less that of saying no to them
    step = value(y[order], np.ones_like(y), costs) - value(y[order], np.zeros_like(y), costs)
    total = np.append(0.0, np.cumsum(step))
    edge = np.append(True, np.append(np.diff(ranked) != 0, True))  # never cut between equal scores
    best = int(np.argmax(np.where(edge, total, -np.inf)))
    above = ranked[best - 1] if best > 0 else 1.0
    below = ranked[best] if best < len(ranked) else 0.0
    return float((above + below) / 2)


def decide(score: Array, decision: float) -> Array:
    """1.0 where the score reaches the threshold, else 0.0, shape (n,)."""
    return (score >= decision).astype(np.float64)


def fixed_decision(score: float, goals: Goals, threshold: float | None = None) -> float:
    """The decision on a score that no model gave: 1.0 for a yes, else 0.0.

    Args:
        threshold: of the model that should have answered; None: unknown, and the settings' own holds,
            which is that of calibrated scores under the costs (Elkan, 2001).
    """
    if threshold is None and goals.decision != "costs":
        threshold = goals.decision
    if threshold is None:
        costs = goals.costs
        wrong_yes = costs.false_positive - costs.true_negative
        threshold = wrong_yes / (wrong_yes + costs.false_negative - costs.true_positive)
    return float(score >= threshold)


def aimed_quantile(goals: Goals) -> float | None:
    """The share of outcomes that should lie at a score or below; None, since a probability is a mean."""
    return None


def changes(least: float) -> tuple[str, str, str]:
    """How a reader calls decisions that change, whatever their size, and the two ways: up and down."""
    return "decisions change", "from no to yes", "from yes to no"
