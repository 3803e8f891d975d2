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
# A metric takes (y, score, decided, weights): y and decided are 0.0 or 1.0 and score is a
# probability, each of shape (n,); weights has shape (resamples, n). It returns (resamples,).
Compute = Callable[[Array, Array, Array, Array], Array]


@dataclass(frozen=True)
class Metric:
    """A metric of decisions and scores, which settings, reports and the gate know by its name."""

    higher_is_better: bool
    compute: Compute
    meaning: str  # to a reader who is no engineer


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
    clipped = np.clip(score, 1e-7, 1 - 1e-7)
    loss = -np.where(y == 1, np.log(clipped), np.log(1 - clipped))
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
        np.add.reduceat(row_weights, starts, axis=1, dtype=np.float64)
        for row_weights in (weights * y.astype(weights.dtype), weights)
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
    "accuracy": Metric(True, _accuracy, "the share of right decisions"),
    "average_precision": Metric(
        True, _average_precision, "how well it puts the positives first, 1 at best"
    ),
    "brier": Metric(False, _brier, "the mean squared gap between score and outcome"),
    "f1": Metric(True, _f1, "the balance of precision and recall"),
    "log_loss": Metric(False, _log_loss, "how much the outcomes surprise it"),
    "precision": Metric(True, _precision, "the share of positives among its yes"),
    "recall": Metric(True, _recall, "the share of the positives that it finds"),
    "roc_auc": Metric(True, _roc_auc, "how often a positive scores above a negative"),
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
    surest = np.zeros(len(y))
    surest[np.argsort(-distance, kind="stable")[: max(1, len(y) // 2)]] = 1.0
    right = (y == decided).astype(np.float64)
    counts = np.ones((1, len(y))) if weights is None else weights
    gains = _share(right, surest, counts) - _share(right, np.ones(len(y)), counts)
    return float(gains[0]) if weights is None else gains


def turned(before: Array, after: Array, decided_before: Array, decided_after: Array) -> Array:
    """Which decisions noise turns, by row, shape (n,)."""
    return decided_before != decided_after


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
    order = np.argsort(-score, kind="stable")
    hits, rows = np.cumsum(y[order]), np.arange(1, len(y) + 1)
    positives, negatives = max(hits[-1], 1), max(len(y) - hits[-1], 1)
    points = np.unique(np.linspace(0, len(y) - 1, min(200, len(y))).astype(int))
    groups = np.array_split(order[::-1], min(10, len(y)))
    total_cost = (
        (rows - hits) * costs.false_positive
        + (positives - hits) * costs.false_negative
        + hits * costs.true_positive
        + (negatives - (rows - hits)) * costs.true_negative
    )
    return {
        "precision_recall": (
            "Precision and recall",
            "recall",
            "precision",
            {
                "model": [(hits / positives)[points], (hits / rows)[points]],
                "no skill": [[0, 1], [positives / len(y)] * 2],
            },
        ),
        "roc": (
            "ROC",
            "false positive rate",
            "true positive rate",
            {
                "model": [((rows - hits) / negatives)[points], (hits / positives)[points]],
                "no skill": [[0, 1], [0, 1]],
            },
        ),
        "calibration": (
            "Calibration: of the rows scored so, how many were positive",
            "mean score",
            "share of positives",
            {
                "model": [[score[g].mean() for g in groups], [y[g].mean() for g in groups]],
                "perfect": [[0, 1], [0, 1]],
            },
        ),
        "value_by_threshold": (
            "Cost per row at each threshold",
            "threshold",
            "cost per row",
            {
                "cost": [score[order][points], (total_cost / len(y))[points]],
                "chosen threshold": [[decision] * 2, [0, float(total_cost.max() / len(y))]],
            },
        ),
    }


def value(y: Array, decided: Array, costs: Costs) -> Array:
    """What each decision is worth: minus its cost, shape (n,); higher is better."""
    yes = y == 1
    return -np.where(
        decided == 1,
        np.where(yes, costs.true_positive, costs.false_positive),
        np.where(yes, costs.false_negative, costs.true_negative),
    )


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


def fixed_score(settings: Settings) -> float:
    """The score that is answered with when no model can."""
    return settings.serving.fallback


def fixed_decision(score: float, settings: Settings, threshold: float | None = None) -> float:
    """The decision on a score that no model gave: 1.0 for a yes, else 0.0.

    Args:
        threshold: of the model that should have answered; None: unknown, and the settings' own holds,
            which is that of calibrated scores under the costs (Elkan, 2001).
    """
    goals = settings.goals
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


def constant_decisions(label: LabelKeys) -> dict[str, float]:
    """Decisions that ask no model, by what they are called."""
    return {"yes to all": 1.0, "no to all": 0.0}


def changes(tolerance: float) -> tuple[str, str, str]:
    """How a reader calls decisions that change, whatever their size, and the two ways: up and down."""
    return "decisions change", "from no to yes", "from yes to no"


def way(y: Array, old: Array, new: Array, tolerance: float) -> Array:
    """1 where a decision changes upwards, -1 where downwards, 0 where it stays, shape (n,).

    Args:
        tolerance: a change of no more than this counts as none.
    """
    return np.where(np.abs(new - old) > tolerance, np.sign(new - old), 0.0)


def claim(score: Array, decided: Array) -> Array:
    """What each answer says will come, shape (n,): the chance of a yes."""
    return score


def came(y: Array, decided: Array) -> Array:
    """What came of each answer, in the unit of its claim, shape (n,)."""
    return y
