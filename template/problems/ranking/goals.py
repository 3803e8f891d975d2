"""YOURS: what is wanted: metrics of lists (each also over many resamples, for its interval), value, decision.

Clicks come where people look. So each counts as often as its place was too seldom looked at: 1 / (chance of
examination), inverse propensity weighting (Joachims, Swaminathan and Schnabel, 2017). On clicks as they are, the
best model is the one that repeats the order in which they were collected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from . import Costs, LabelKeys
from .data import GAIN, ITEM, LIST, MOST_GRADE, NEW, RAW, TOPIC, TRUTH
from .decision import decide as decide
from .decision import ranks, varied

if TYPE_CHECKING:
    from ..settings import Goals, Settings

Array = np.ndarray
# A metric takes (y, score, decided, weights): the truth, shape (n, columns), as `data.TRUTH` says; the
# prediction and what lists are ordered by, each of shape (n,); weights, shape (resamples, n), of which all
# rows of a list have the same. It returns (resamples,).
Compute = Callable[[Array, Array, Array, Array], Array]
TOP = 5  # places that coverage, diversity and value look at


@dataclass(frozen=True)
class Metric:
    """A metric of orders, which settings, reports and the gate know by its name."""

    higher_is_better: bool
    compute: Compute
    meaning: str  # to a reader who is no engineer


def numeric(y: Array) -> Array:
    """The label as one number, shape (n,): the gain of each row, weighted by how seldom its place is looked at."""
    return y if y.ndim == 1 else y[:, GAIN]


def unit(y: Array) -> Array | None:
    """What each row belongs to and is judged with, shape (n,): its list."""
    return None if y.ndim == 1 else y[:, LIST]


@dataclass(frozen=True)
class Lists:
    """n rows in their lists.

    Attributes:
        code: the number of each row's list, from 0, shape (n,).
        first: the position of a row of each list, shape (lists,).
        rank: the place of each row by what was decided, shape (n,).
        gain, raw: what each row is worth, weighted and as it came, shape (n,).
    """

    code: Array
    first: Array
    rank: Array
    gain: Array
    raw: Array

    @classmethod
    def of(cls, y: Array, decided: Array) -> Lists:
        """The lists of a truth, shape (n, columns), ordered by `decided`, shape (n,).

        Labels alone, shape (n,), are those of a single list.
        """
        if y.ndim == 1:
            columns = np.zeros((len(y), len(TRUTH)))
            columns[:, GAIN], columns[:, RAW] = _exponential(y), y
            return cls.of(columns, decided)
        _, first, code = np.unique(y[:, LIST], return_index=True, return_inverse=True)
        return cls(code, first, ranks(decided, y[:, LIST]), y[:, GAIN], _exponential(y[:, RAW]))

    def total(self, values: Array) -> Array:
        """The sum of the rows' values by list, shape (lists,)."""
        return np.bincount(self.code, values, len(self.first))

    def mean(self, values: Array, weights: Array, gain: Array | None = None) -> Array:
        """The mean of the lists' values, shape (lists,), over those that have a gain; shape (resamples,).

        A list counts as often as its clicks stand for such as nobody saw: the mean weight of its gains.

        Args:
            weights: of rows, shape (resamples, n).
            gain: of rows; None: as weighted by the chance of examination.
        """
        counted = self.total(self.gain if gain is None else gain)
        size = np.divide(
            counted, self.total(self.raw), out=np.zeros(len(counted)), where=counted > 0
        )
        by_list = weights[:, self.first] * size
        total = by_list.sum(axis=1)
        mean = (by_list @ np.where(counted > 0, values, 0.0)) / np.where(total > 0, total, 1)
        return np.asarray(mean)


def _exponential(label: Array) -> Array:
    """The gain of a grade: 0 of 0, 1 of a click, 3 of two, 7 of three (Burges et al., 2005)."""
    return np.exp2(np.minimum(label, MOST_GRADE)) - 1


def _discount(rank: Array, slots: int) -> Array:
    return np.where(rank <= slots, 1 / np.log2(rank + 1), 0.0)


def _share(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def _ndcg(
    y: Array, score: Array, decided: Array, weights: Array, slots: int, plain: bool = False
) -> Array:
    """Normalised discounted cumulative gain (Järvelin and Kekäläinen, 2002)."""
    lists = Lists.of(y, decided)
    gain = lists.raw if plain else lists.gain
    best = lists.total(gain * _discount(ranks(gain, lists.code), slots))
    reached = lists.total(gain * _discount(lists.rank, slots))
    return lists.mean(_share(reached, best), weights, gain)


def _mrr(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    lists = Lists.of(y, decided)
    first = np.zeros(len(lists.first))
    np.maximum.at(first, lists.code, np.where(lists.gain > 0, 1 / lists.rank, 0.0))
    return lists.mean(first, weights)


def _map(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    lists = Lists.of(y, decided)
    order = np.lexsort((lists.rank, lists.code))
    hit = (lists.gain > 0).astype(np.float64)
    running = np.cumsum(hit[order])
    codes = lists.code[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    before = np.zeros(len(running))
    before[starts] = running[starts] - hit[order][starts]
    precision = np.empty(len(running))
    precision[order] = (running - np.maximum.accumulate(before)) / lists.rank[order]
    return lists.mean(_share(lists.total(hit * precision), lists.total(hit)), weights)


def _recall(y: Array, score: Array, decided: Array, weights: Array, slots: int) -> Array:
    lists = Lists.of(y, decided)
    top = lists.total(np.where(lists.rank <= slots, lists.gain, 0.0))
    return lists.mean(_share(top, lists.total(lists.gain)), weights)


def _by_resample(y: Array, decided: Array, weights: Array) -> Iterator[tuple[Array, Array]]:
    """For each resample the rows that count, and those of them that stand among the first places."""
    top = Lists.of(y, decided).rank <= TOP
    for draw in weights:
        yield draw > 0, (draw > 0) & top


def _coverage(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    item = y[:, ITEM] if y.ndim > 1 else np.arange(len(y))
    shares = [
        len(np.unique(item[top])) / max(1, len(np.unique(item[counted])))
        for counted, top in _by_resample(y, decided, weights)
    ]
    return np.array(shares)


def _diversity(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    lists = Lists.of(y, decided)
    top = np.flatnonzero(lists.rank <= TOP)
    topics_of = y[:, TOPIC] if y.ndim > 1 else np.zeros(len(y))
    _, topic = np.unique(topics_of[top], return_inverse=True)
    cells = np.unique(lists.code[top] * (topic.max() + 1) + topic) // (topic.max() + 1)
    topics = np.bincount(cells.astype(np.int64), minlength=len(lists.first))
    by_list = weights[:, lists.first]
    return np.asarray((by_list @ topics) / np.maximum(by_list.sum(axis=1), 1e-9))


def _new_items(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    top = Lists.of(y, decided).rank <= TOP
    new = np.nan_to_num(y[:, NEW]) if y.ndim > 1 else np.zeros(len(y))  # NaN: nothing tells
    return np.asarray((weights[:, top] @ new[top]) / np.maximum(weights[:, top].sum(axis=1), 1e-9))


METRICS: dict[str, Metric] = {
    "clicks_ndcg_5": Metric(
        True,
        partial(_ndcg, slots=5, plain=True),
        "the same on clicks as they came: never decide on it",
    ),
    "coverage_5": Metric(
        True, _coverage, "the share of all items that stands among the first five at all"
    ),
    "diversity_5": Metric(True, _diversity, "how many topics there are among the first five"),
    "map": Metric(True, _map, "the share of what is wanted above each thing that is wanted"),
    "mrr": Metric(True, _mrr, "one divided by the place of the first thing that is wanted"),
    **{
        f"ndcg_{slots}": Metric(
            True,
            partial(_ndcg, slots=slots),
            f"how near its first {slots} places are to the best order, the upper ones counting more",
        )
        for slots in (3, 5, 10)
    },
    "new_items_5": Metric(True, _new_items, "the share of new items among the first five"),
    **{
        f"recall_{slots}": Metric(
            True,
            partial(_recall, slots=slots),
            f"the share of what is wanted that stands among the first {slots}",
        )
        for slots in (3, 5, 10)
    },
}


def together(y: Array) -> Array | None:
    """What rows share that stay on one side of a fold, whatever splits them, shape (n,): whole lists."""
    return unit(y)


def own_figures(y: Array, score: Array, interval: Any) -> dict[str, float]:
    """What `OWN_RULES` promises of answers, as measured on n rows; `interval`: the manifest's. Nothing is."""
    return {}


# Tables that the report has of this kind of problem alone: none
OWN_TABLES: Any = None


def spread(y: Array) -> float:
    """The unit in which a change of the score is told: the label's standard deviation."""
    return float(np.std(numeric(y))) or 1.0


def outcome_variance(score: Array) -> Array | None:
    """How much an outcome varies around a right score: a score does not say, so None."""
    return None


def confidence_gain(
    y: Array, score: Array, decided: Array, decision: float, weights: Array | None = None
) -> Any:
    """Nothing tells how sure an order is, so there is no surer half to compare."""
    return None


def turned(before: Array, after: Array, decided_before: Array, decided_after: Array) -> Array:
    """How far noise moves each score, shape (n,)."""
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
    if y.ndim == 1:
        y = np.column_stack([y, np.zeros(len(y)), y, *np.zeros((len(TRUTH) - 3, len(y)))])
    lists, gain = Lists.of(y, score), y[:, GAIN]
    slots = np.arange(1, min(10, int(lists.rank.max())) + 1)
    orders = {"model": lists.rank, "best order": ranks(gain, y[:, LIST])}
    reached = {
        name: [slots, [float(gain[rank <= slot].sum() / (gain.sum() or 1)) for slot in slots]]
        for name, rank in orders.items()
    }
    at_random = np.minimum(slots[:, None] / lists.total(np.ones(len(y))), 1) @ lists.total(gain)
    reached["random order"] = [slots, (at_random / (gain.sum() or 1)).tolist()]
    groups = np.array_split(np.argsort(score, kind="stable"), min(10, len(y)))
    mean_score = [float(score[group].mean()) for group in groups]
    ends = [min(mean_score), max(mean_score)]
    shares = np.linspace(0, 0.9, 10)
    prices = [_price_of_variety(y, score, share) for share in shares]
    return {
        "gain_by_position": (
            "Gain among the first places, clicks weighted by how seldom a place is looked at",
            "first places",
            "share of all gain",
            reached,
        ),
        "calibration": (
            "Calibration: gain by score, in ten groups",
            "mean score",
            "mean gain",
            {"model": [mean_score, [gain[g].mean() for g in groups]], "perfect": [ends, ends]},
        ),
        "price_of_variety": (
            "What variety costs: gain and topics of the first five, as shares of those by score alone",
            "share of variety in the order",
            "share",
            {
                "model: gain": [shares, [price[0] for price in prices]],
                "cost: topics": [shares, [price[1] for price in prices]],
            },
        ),
    }


MAX_LISTS = 300  # that are put in order anew for each share of variety


def _price_of_variety(y: Array, score: Array, share: float) -> tuple[float, float]:
    """Gain and topics among the first places where variety counts so much, against the order by score alone."""
    totals = np.zeros((2, 2))
    for key in np.unique(y[:, LIST])[:MAX_LISTS]:
        rows = np.flatnonzero(y[:, LIST] == key)
        topics = y[rows, TOPIC]
        for side, variety in enumerate((0.0, share)):
            slot = varied(score[rows], topics.tolist(), variety)
            top = slot <= TOP
            totals[side] += (
                (y[rows, GAIN] * _discount(slot, TOP)).sum(),
                len(np.unique(topics[top])),
            )
    gain, topics_shown = totals[1] / np.where(totals[0] > 0, totals[0], 1)
    return float(gain), float(topics_shown)


def value(y: Array, decided: Array, costs: Costs) -> Array:
    """What each row brings where it is shown, shape (n,): its gain, less the further down it stands.

    Without lists (a row by itself) its gain.
    """
    if y.ndim == 1:
        return costs.click * y
    return costs.click * y[:, GAIN] * _discount(ranks(decided, y[:, LIST]), len(y))


def fit_decision(y: Array, score: Array, costs: Costs, decision: str | float) -> float:
    """How much variety counts in an order: nothing by the costs, which know of clicks alone, or a share as it is."""
    return 0.0 if decision == "costs" else float(decision)


def fixed_score(settings: Settings) -> float:
    """The score that is answered with when no model can."""
    return settings.serving.fallback


def fixed_decision(score: float, settings: Settings, threshold: float | None = None) -> float:
    """The rank of a row alone, where no model gave a score: the first."""
    return 1.0


def aimed_quantile(goals: Goals) -> float | None:
    """The share of outcomes that should lie at a score or below; None: a score means an average."""
    return None


def constant_decisions(label: LabelKeys) -> dict[str, float]:
    """Decisions that ask no model, by what they are called: none of an order."""
    return {}


def changes(tolerance: float) -> tuple[str, str, str]:
    """How a reader calls rows that stand elsewhere in their list, and the two ways."""
    return "change their place in the list", "up", "down"


def way(y: Array, old: Array, new: Array, tolerance: float) -> Array:
    """1 where a row moves up in its list, -1 where down, 0 where it stays, shape (n,).

    Args:
        tolerance: of rows without a list, whose scores are compared: a change of no more than this counts as none.
    """
    if y.ndim == 1:
        return np.where(np.abs(new - old) > tolerance, np.sign(new - old), 0.0)
    return np.sign(ranks(old, y[:, LIST]) - ranks(new, y[:, LIST])).astype(np.float64)


def claim(score: Array, decided: Array) -> Array:
    """What each answer says will come, shape (n,): the gain that the score lets expect."""
    return score


def came(y: Array, decided: Array) -> Array:
    """What came of each answer, in the unit of its claim, shape (n,)."""
    return numeric(y)
