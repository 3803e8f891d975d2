"""YOURS: what is wanted: metrics (each also over many resamples, for its interval), costs, value, decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import UNLABELLED, Costs, LabelKeys
from .decision import decide as decide

if TYPE_CHECKING:
    from ..settings import Goals, Settings

Array = np.ndarray
MADE_ODD = 3.0  # in place of the label of a row that was made odd to judge models by (features.py)
# A metric takes (y, score, decided, weights): y is 0.0 for usual, 1.0 for odd, `UNLABELLED` or
# `MADE_ODD`, decided 0.0 or 1.0, score a share, each of shape (n,); weights has shape (resamples, n). It
# returns (resamples,).
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


def is_odd(y: Array) -> Array:
    """1.0 where a row is odd, or was made so, else 0.0, shape (n,)."""
    return ((y == 1) | (y == MADE_ODD)).astype(np.float64)


def is_known(y: Array) -> Array:
    """1.0 where somebody looked, or a row was made odd, else 0.0, shape (n,)."""
    return (y != UNLABELLED).astype(np.float64)


def _precision(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    return _share(is_odd(y), decided * is_known(y), weights)


def _recall(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    return _share(decided, is_odd(y), weights)


def _of_known(y: Array, score: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Whether it is odd, score and weights of the rows with a label; of one row where there is none."""
    labelled = np.flatnonzero(y != UNLABELLED)
    labelled = labelled if len(labelled) else np.zeros(1, np.int64)
    return is_odd(y[labelled]), score[labelled], np.take(weights, labelled, axis=1)


def _ranked(y: Array, score: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted odd rows and all rows from the highest score down, cumulated, at each distinct score.

    Scores between two odd rows, which no metric tells apart, count as one.
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
    hits, rows = _ranked(*_of_known(y, score, weights))
    precision = np.divide(hits, rows, out=np.zeros_like(hits), where=rows > 0)
    steps = np.diff(hits, axis=1, prepend=0.0)
    total = hits[:, -1]
    return np.divide((steps * precision).sum(1), total, out=np.zeros(len(total)), where=total > 0)


def _roc_auc(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    hits, rows = _ranked(*_of_known(y, score, weights))
    misses = rows - hits
    pairs = hits[:, -1] * misses[:, -1]
    before = np.concatenate([np.zeros((len(hits), 1)), hits[:, :-1]], axis=1)
    area = (np.diff(misses, axis=1, prepend=0.0) * (before + hits) / 2).sum(axis=1)
    return np.divide(area, pairs, out=np.full(len(pairs), 0.5), where=pairs > 0)


METRICS: dict[str, Metric] = {
    "average_precision": Metric(
        True, _average_precision, "how well it puts what is odd first, 1 at best"
    ),
    "precision": Metric(
        True, _precision, "the share of odd rows among the alerts that were looked at"
    ),
    "recall": Metric(True, _recall, "the share of the odd rows that it flags"),
    "roc_auc": Metric(True, _roc_auc, "how often an odd row scores above a usual one"),
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
    """The unit in which a change of the score is told: shares of rows need none."""
    return 1.0


def outcome_variance(score: Array) -> Array | None:
    """How much an outcome varies around its score: a score is no chance, so None."""
    return None


def confidence_gain(
    y: Array, score: Array, decided: Array, decision: float, weights: Array | None = None
) -> Any:
    """Nothing tells how sure it is that a row is odd, so there is no surer half to compare."""
    return None


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
    is_real = y != MADE_ODD
    # The tail is what is decided on: a score of 0.99 stands at 2, one of 0.999 at 3
    tail = -np.log10(np.maximum(1 - score, 1e-6))
    ends = np.linspace(0, max(1.0, float(tail.max())), 41)
    threshold = -float(np.log10(max(1 - decision, 1e-6)))
    counts = {"all rows": tail[is_real], "odd rows": tail[is_odd(y) == 1]}
    bars = {name: np.histogram(values, ends)[0] for name, values in counts.items()}
    ranked = np.sort(tail[is_real])[::-1]
    odd, labelled = is_odd(y), is_known(y)
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(odd[order])
    points = np.unique(np.geomspace(1, len(y), min(200, len(y))).astype(int)) - 1
    looked_at = np.maximum(np.cumsum(labelled[order]), 1)
    return {
        "score_histogram": (
            "How odd the rows are; those right of the threshold are flagged",
            "score: 0.9 is at 1, 0.99 at 2, 0.999 at 3",
            "rows (log10 of 1 + rows)",
            {
                **{name: [ends[:-1], np.log10(1 + height)] for name, height in bars.items()},
                "threshold by the budget": [[threshold] * 2, [0, float(np.log10(1 + len(ranked)))]],
            },
        ),
        "precision_recall": (
            "Precision and recall, of the rows with a label",
            "recall",
            "precision",
            {
                "model": [(hits / max(hits[-1], 1))[points], (hits / looked_at)[points]],
                "no skill": [[0, 1], [float(odd.sum() / max(1.0, labelled.sum()))] * 2],
            },
        ),
        "recall_by_budget": (
            "Share of the odd rows that is caught, by how many people can look at",
            "share of the rows flagged",
            "recall",
            {
                "model": [((points + 1) / len(y)), (hits / max(hits[-1], 1))[points]],
                "no skill": [[0, 1], [0, 1]],
            },
        ),
    }


def value(y: Array, decided: Array, costs: Costs) -> Array:
    """What each decision is worth: minus its cost, shape (n,); higher is better. Nothing where nobody looked."""
    odd = is_odd(y) == 1
    worth = -np.where(
        decided == 1,
        np.where(odd, costs.true_positive, costs.false_positive),
        np.where(odd, costs.false_negative, costs.true_negative),
    )
    return worth * is_known(y)


def fit_decision(y: Array, score: Array, costs: Costs, decision: str | float) -> float:
    """The threshold from which a row is flagged: the score that the alert budget's share of rows reaches.

    Args:
        y: only rows that were made odd do not count.
        score: of rows that the model was not fitted on, shape (n,).
        decision: the budget.
    """
    real = score[y != MADE_ODD]
    return float(np.quantile(real, 1 - float(decision), method="higher"))


def fixed_score(settings: Settings) -> float:
    """The score that is answered with when no model can."""
    return settings.serving.fallback


def fixed_decision(score: float, settings: Settings, threshold: float | None = None) -> float:
    """The decision on a score that no model gave: 1.0 for flagged, else 0.0.

    Args:
        threshold: of the model that should have answered; None: unknown, and the budget's own holds,
            since a score is the share of rows that are less odd.
    """
    return float(score >= (1 - float(settings.goals.decision) if threshold is None else threshold))


def aimed_quantile(goals: Goals) -> float | None:
    """The share of outcomes that should lie at a score or below; None: a score claims no outcome."""
    return None


def constant_decisions(label: LabelKeys) -> dict[str, float]:
    """Decisions that ask no model, by what they are called."""
    return {"all flagged": 1.0, "none flagged": 0.0}


def changes(tolerance: float) -> tuple[str, str, str]:
    """How a reader calls decisions that change, whatever their size, and the two ways: up and down."""
    return "rows change sides", "newly flagged", "no longer flagged"


def way(y: Array, old: Array, new: Array, tolerance: float) -> Array:
    """1 where a decision changes upwards, -1 where downwards, 0 where it stays, shape (n,).

    Args:
        tolerance: a change of no more than this counts as none.
    """
    return np.where(np.abs(new - old) > tolerance, np.sign(new - old), 0.0)


def claim(score: Array, decided: Array) -> Array:
    """What is watched of each answer, shape (n,): how odd it is. That is no chance of anything."""
    return score


def came(y: Array, decided: Array) -> Array:
    """What came of each answer, shape (n,): whether it was odd."""
    return is_odd(y)
