"""YOURS: what is wanted: metrics (each also over many resamples, for its interval), costs, value, decision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import Costs, LabelKeys
from .decision import CostMatrix, chosen
from .decision import decide as decide

if TYPE_CHECKING:
    from ..settings import Settings

Array = np.ndarray
# A metric takes (y, score, decided, weights): y and decided are indices of classes, each of shape (n,),
# score has shape (n, classes), weights (resamples, n). It returns (resamples,).
Compute = Callable[[Array, Array, Array, Array], Array]
TOP = 3  # classes among which `top_k` looks for the true one


@dataclass(frozen=True)
class Metric:
    """A metric of decisions and scores, which settings, reports and the gate know by its name."""

    higher_is_better: bool
    compute: Compute
    meaning: str  # to a reader who is no engineer


def _mean(values: Array, weights: Array) -> Array:
    return (weights @ values) / weights.sum(axis=1)


def _accuracy(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    return _mean((y == decided).astype(np.float64), weights)


def _counts(y: Array, decided: Array, weights: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Weighted rows of each class: decided rightly, true, and decided, each of shape (resamples,)."""
    for index in np.union1d(y, decided):
        true, predicted = (y == index).astype(np.float64), (decided == index).astype(np.float64)
        yield weights @ (true * predicted), weights @ true, weights @ predicted


def _over_classes(parts: list[tuple[Array, Array]], resamples: int) -> Array:
    """The mean of ratios over the classes that occur in a resample, shape (resamples,)."""
    total, classes = np.zeros(resamples), np.zeros(resamples)
    for above, below in parts:
        total += np.divide(above, below, out=np.zeros(resamples), where=below > 0)
        classes += below > 0
    return total / np.maximum(classes, 1)


def _balanced_accuracy(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    parts = [(right, true) for right, true, _ in _counts(y, decided, weights)]
    return _over_classes(parts, len(weights))


def _macro_f1(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    parts = [(2 * hits, true + predicted) for hits, true, predicted in _counts(y, decided, weights)]
    return _over_classes(parts, len(weights))


def _top_k(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    above = (score > of_truth(y, score)[:, None]).sum(axis=1)
    # Not among all of them, where the true one always is
    return _mean((above < min(TOP, score.shape[1] - 1)).astype(np.float64), weights)


def _brier(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    return _mean((score**2).sum(axis=1) + 1 - 2 * of_truth(y, score), weights)


def _log_loss(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    return _mean(-np.log(np.clip(of_truth(y, score), 1e-7, 1.0)), weights)


def of_truth(y: Array, score: Array) -> Array:
    """The score of the true class, shape (n,)."""
    return chosen(score, y)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(True, _accuracy, "the share of right decisions"),
    "balanced_accuracy": Metric(
        True, _balanced_accuracy, "the share of each class that it finds, averaged over the classes"
    ),
    "brier": Metric(False, _brier, "the mean squared gap between scores and outcome, 0 to 2"),
    "log_loss": Metric(False, _log_loss, "how much the outcomes surprise it"),
    "macro_f1": Metric(
        True, _macro_f1, "the balance of precision and recall, averaged over the classes"
    ),
    "top_k": Metric(True, _top_k, f"how often the truth is in the {TOP} likeliest or all but one"),
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
    """The unit in which a change of the scores is told: probabilities need none."""
    return 1.0


def outcome_variance(claimed: Array) -> Array | None:
    """The variance of an outcome that comes true as often as claimed, shape (n,)."""
    return claimed * (1 - claimed)


def confidence_gain(
    y: Array, score: Array, decided: Array, decision: CostMatrix, weights: Array | None = None
) -> Any:
    """How much more often the half of the rows that it is surest of is decided right.

    A model whose confidence means something gains; one whose confidence is noise stays near 0
    (selective prediction; El-Yaniv and Wiener, 2010).

    Args:
        weights: how often each row counts, shape (resamples, n), for one value a resample.
    """
    surest = np.zeros(len(y))
    surest[np.argsort(-claim(score, decided), kind="stable")[: max(1, len(y) // 2)]] = 1.0
    right = (y == decided).astype(np.float64)
    counts = np.ones((1, len(y))) if weights is None else weights
    total = counts @ surest
    gains = np.divide(counts @ (right * surest), total, out=np.zeros(len(counts)), where=total > 0)
    gains = gains - _mean(right, counts)
    return float(gains[0]) if weights is None else gains


def turned(before: Array, after: Array, decided_before: Array, decided_after: Array) -> Array:
    """Which decisions noise turns, by row, shape (n,)."""
    return decided_before != decided_after


def distance(before: Array, after: Array) -> Array:
    """How far the scores of each row move, shape (n,): half the sum of the changes (total variation)."""
    return np.abs(after - before).sum(axis=1) / 2


def rise(before: Array, after: Array, expected: str, label: LabelKeys) -> Array:
    """How far the score of each row moves as it should, shape (n,); below 0 against it.

    Args:
        expected: as in `modelling.evaluation.expectations`: up or down, and the name of a class.
    """
    direction, _, name = expected.partition(" ")
    index = label.classes.index(name)
    moved = after[:, index] - before[:, index]
    return moved if direction == "up" else -moved


def curves(
    y: Array, score: Array, decision: CostMatrix, costs: Any, label: LabelKeys, interval: Any = None
) -> dict[str, tuple[str, str, str, dict[str, Any]]]:
    """The pictures of an evaluation by name: title, both axes' names, and the x and y of each curve."""
    decided = decide(score, decision)
    claimed, right = claim(score, decided), came(y, decided)
    order = np.argsort(-claimed, kind="stable")
    points = np.unique(np.linspace(0, len(y) - 1, min(200, len(y))).astype(int))
    rows, groups = np.arange(1, len(y) + 1), np.array_split(order[::-1], min(10, len(y)))
    commonest = np.argsort(-np.bincount(y.astype(np.int64), minlength=score.shape[1]))[:8]
    indices = {label.classes[index]: index for index in sorted(commonest)}
    return {
        "accuracy_by_coverage": (
            "Accuracy, where only the surest rows are decided",
            "share of the rows decided",
            "share of right decisions",
            {"model": [(rows / len(y))[points], (np.cumsum(right[order]) / rows)[points]]},
        ),
        "calibration": (
            "Calibration: of the rows decided this surely, how many were right",
            "mean score of the class decided on",
            "share of right decisions",
            {
                "model": [[claimed[g].mean() for g in groups], [right[g].mean() for g in groups]],
                "perfect": [[0, 1], [0, 1]],
            },
        ),
        "calibration_by_class": (
            "Calibration by class: of the rows scored so, how many were of the class",
            "mean score",
            "share of the class",
            {name: _reliability(y == i, score[:, i]) for name, i in indices.items()}
            | {"perfect": [[0, 1], [0, 1]]},
        ),
        "precision_recall": (
            "Precision and recall of each class against all others",
            "recall",
            "precision",
            {name: _precision_recall(y == i, score[:, i]) for name, i in indices.items()},
        ),
    }


def _reliability(is_class: Array, score: Array) -> list[list[float]]:
    groups = np.array_split(np.argsort(score, kind="stable"), min(10, len(score)))
    return [[float(part[g].mean()) for g in groups] for part in (score, is_class)]


def _precision_recall(is_class: Array, score: Array) -> list[Array]:
    hits = np.cumsum(is_class[np.argsort(-score, kind="stable")])
    points = np.unique(np.linspace(0, len(hits) - 1, min(200, len(hits))).astype(int))
    return [(hits / max(hits[-1], 1))[points], (hits / np.arange(1, len(hits) + 1))[points]]


def value(y: Array, decided: Array, costs: Costs) -> Array:
    """What each decision is worth: minus its cost, shape (n,), NaN where one is unknown; higher is better."""
    finite = np.isfinite(y) & np.isfinite(decided)
    truth, predicted = (np.where(finite, part, 0).astype(np.int64) for part in (y, decided))
    return np.where(finite, -np.asarray(costs.table)[truth, predicted], np.nan)


def fit_decision(y: Array, score: Array, costs: Costs, decision: str) -> list[list[float]]:
    """The costs that decisions are made by, shape (classes, classes).

    `costs`: those of `goals.costs`, unless on these rows the likeliest class was worth more: scores
    that are not calibrated can lead costs astray. `likeliest`: every error costs the same.
    """
    equal = (1.0 - np.eye(score.shape[1])).tolist()
    tables = [equal] if decision == "likeliest" else [[list(row) for row in costs.table], equal]
    mean_values = [value(y, decide(score, table), costs).mean() for table in tables]
    return tables[int(np.argmax(mean_values))]


def fixed_score(settings: Settings) -> list[float]:
    """The scores that are answered with when no model can: all classes are as likely."""
    classes = settings.data.label.classes
    return [1 / len(classes)] * len(classes)


def fixed_decision(score: list[float], settings: Settings, decision: Any = None) -> float:
    """The decision where no model gave a score: the class of `serving.fallback`.

    Args:
        decision: of the model that should have answered; None: unknown.
    """
    return float(settings.data.label.classes.index(settings.serving.fallback))


def aimed_quantile(goals: Any) -> float | None:
    """The share of outcomes that should lie at a score or below; None, since a probability is a mean."""
    return None


def constant_decisions(label: LabelKeys) -> dict[str, float]:
    """Decisions that ask no model, by what they are called."""
    return {f"{name} to all": float(index) for index, name in enumerate(label.classes)}


def changes(tolerance: float) -> tuple[str, str, str]:
    """How a reader calls decisions that change, whatever their size, and the two ways: up and down."""
    return "decisions change", "to the true class", "to a wrong class"


def way(y: Array, old: Array, new: Array, tolerance: float) -> Array:
    """1 where a decision changes to the true class, -1 where it changes to a wrong one, else 0, shape (n,)."""
    return np.where(old == new, 0.0, np.where(new == y, 1.0, -1.0))


def claim(score: Array, decided: Array) -> Array:
    """What each answer says will come, shape (n,): the chance that its decision is right."""
    return chosen(score, decided)


def came(y: Array, decided: Array) -> Array:
    """What came of each answer, in the unit of its claim, shape (n,): 1.0 where it was right."""
    return (y == decided).astype(np.float64)
