"""YOURS: what is wanted: metrics (each also over many resamples, for its interval), costs, value, decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import Costs, LabelKeys
from .data import CHANGE, HORIZON, LEVEL, PATH, SERIES, VALUE
from .decision import decide as decide

if TYPE_CHECKING:
    from ..settings import Goals, Settings

Array = np.ndarray
MIN_SERIES = 10  # from which on intervals of figures come from draws of whole series
# A metric takes (y, score, decided, weights): the truth, shape (n, columns), as `data.TRUTH` says, or labels alone,
# shape (n,); the forecast and the forecast times the factor that the costs ask for, each of shape (n,); weights,
# shape (resamples, n), of which all rows of a series have the same. It returns (resamples,).
Compute = Callable[[Array, Array, Array, Array], Array]


@dataclass(frozen=True)
class Metric:
    """A metric of forecasts, which settings, reports and the gate know by its name."""

    higher_is_better: bool
    compute: Compute
    meaning: str  # to a reader who is no engineer


def numeric(y: Array) -> Array:
    """The label as one number, shape (n,): what came."""
    return y if y.ndim == 1 else y[:, VALUE]


def unit(y: Array) -> Array | None:
    """What each row belongs to and is drawn with, shape (n,): its series, whose steps go wrong together; its path,
    where there are hardly any series to draw from."""
    if y.ndim == 1:
        return None
    return y[:, SERIES if len(np.unique(y[:, SERIES])) >= MIN_SERIES else PATH]


def together(y: Array) -> Array | None:
    """What rows share that stay on one side of a fold, whatever splits them, shape (n,): their path."""
    return None if y.ndim == 1 else y[:, PATH]


def _mean(values: Array, weights: Array) -> Array:
    return (weights @ values) / weights.sum(axis=1)


def _ratio(part: Array, whole: Array, weights: Array) -> Array:
    total = weights @ whole
    return (weights @ part) / np.where(total > 0, total, 1.0)


def _mae(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    return _mean(np.abs(score - numeric(y)), weights)


def _rmse(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    return np.sqrt(_mean((score - numeric(y)) ** 2, weights))


def _mase(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    """Mean absolute scaled error (Hyndman and Koehler, 2006); of labels alone the mean absolute error."""
    scale = np.ones(len(y)) if y.ndim == 1 else y[:, CHANGE]
    return _mean(np.abs(score - numeric(y)) / scale, weights)


def _wape(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    truth = numeric(y)
    return _ratio(np.abs(score - truth), np.abs(truth), weights)


def _smape(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    truth = numeric(y)
    size = np.abs(score) + np.abs(truth)
    gap = np.divide(np.abs(score - truth), size, out=np.zeros(len(truth)), where=size > 0)
    return 200 * _mean(gap, weights)


def _bias(y: Array, score: Array, decided: Array, weights: Array) -> Array:
    truth = numeric(y)
    return np.abs(_ratio(score - truth, np.abs(truth), weights))


METRICS: dict[str, Metric] = {
    "bias": Metric(
        False, _bias, "how far all forecasts together are off, as a share of all that came"
    ),
    "mae": Metric(False, _mae, "the mean size of its errors"),
    "mase": Metric(
        False,
        _mase,
        "the mean size of its errors, each as a share of what its series changes by from season to season",
    ),
    "rmse": Metric(False, _rmse, "the error, large ones counting more"),
    "smape": Metric(
        False, _smape, "the mean size of its errors in percent of the mean of forecast and truth"
    ),
    "wape": Metric(False, _wape, "all errors together, as a share of all that came"),
}


def inside(y: Array, score: Array, interval: Any) -> tuple[Array, Array]:
    """Whether the interval of each row holds its truth, and how many steps ahead it is, each of shape (n,).

    Args:
        y: shape (n, columns); interval: as `models.around` gives it.
    """
    step = np.clip(y[:, HORIZON], 1, len(interval["low"])).astype(np.int64) - 1
    low, high = (score + y[:, LEVEL] * np.asarray(interval[end])[step] for end in ("low", "high"))
    return (y[:, VALUE] >= low) & (y[:, VALUE] <= high), step + 1


def own_figures(y: Array, score: Array, interval: Any) -> dict[str, float]:
    """What `OWN_RULES` promises of answers, as measured on n rows; `interval`: the manifest's.

    How far the share of rows inside their interval is from its level, at the step ahead where it is farthest.
    """
    if y.ndim == 1 or interval is None:
        return {}
    is_inside, step = inside(y, score, interval)
    shares = [is_inside[step == h].mean() for h in np.unique(step)]
    return {"coverage_gap": float(np.max(np.abs(np.array(shares) - interval["level"])))}


TOTAL = "all series"
SUMS_NOTE = (
    "At each origin and step ahead the forecasts of a group are added, as they are before they are planned with, and held "
    "against the sum of what came. A bias below 0 says that forecasts are too low in total."
)
WORST_GROUPS = 5  # of all levels, that are told by themselves


def sums_by_level(
    settings: Settings,
    read: Callable[[Sequence[str]], Any],
    ours: tuple[Array, Array, Array],
    baseline: tuple[Array, Array, Array],
) -> dict[str, Any]:
    """How good the sums of the forecasts are: of all series, and of those with one value of a column that
    `data.label.summed_by` names.

    From below: at each origin and step ahead, the forecasts of the series of a group are added, and held against the
    sum of what came of them. They are the forecasts themselves, before the factor that they are planned with. A step
    without a value is left out of both sums. No intervals: to draw series anew adds
    noise to each sum, in which the errors of series have cancelled out, and all draws would look worse than the sums.

    Args:
        read: the n test rows with some of their columns, as a data frame.
        ours, baseline: truth, score and decision of these rows; the truth of shape (n, columns).

    Returns:
        two tables for the report and the card, or nothing where rows make no series.
    """
    label, (y, score, _) = settings.data.label, ours
    if y.ndim == 1 or label.series is None:
        return {}
    time, names = str(settings.data.schema_.time), [*dict.fromkeys(label.summed_by)]
    has_value = np.isfinite(numeric(y))
    frame = read([time, *names])[has_value]
    truth = y[has_value]
    amounts = np.stack([numeric(y), score, baseline[1]])[:, has_value]
    step = _codes(_codes(frame[time]) * (truth[:, HORIZON].max(initial=0) + 1) + truth[:, HORIZON])
    of_sum, sums = _sums(np.zeros_like(step), step, amounts)
    levels: list[dict[str, Any]] = [
        {"level": TOTAL, "groups": 1, "sums": len(of_sum), **_figures_of_sums(sums)}
    ]
    groups: list[dict[str, Any]] = []
    for name in names:
        values = frame[name].astype(object).fillna("missing").astype(str)
        titles, group = np.unique(values.to_numpy(str), return_inverse=True)
        of_sum, sums = _sums(group, step, amounts)
        counts = {"level": name, "groups": len(titles), "sums": len(of_sum)}
        levels.append({**counts, **_figures_of_sums(sums)})
        series = np.bincount(_sums(group, _codes(truth[:, SERIES]), amounts[:1])[0])
        of_group = np.split(sums, np.flatnonzero(np.diff(of_sum)) + 1, axis=1)
        for title, count, sums in zip(titles, series, of_group, strict=True):
            figures = _figures_of_sums(sums)
            groups.append({"group": f"{name} = {title}", "series": int(count), **figures})
    # Of a group of which nothing came, an error is no share of anything
    worst = sorted((g for g in groups if g["wape"] is not None), key=lambda g: -g["wape"])
    return {
        "sums_by_level": {
            "title": "Sums by level",
            "note": SUMS_NOTE,
            "rows": levels,
        },
        "sums_by_group": {
            "title": "Groups whose sums are farthest off",
            "note": f"Of {len(groups):,} groups, those with the largest wape.",
            "rows": worst[:WORST_GROUPS],
        },
    }


def _codes(values: Any) -> Array:
    """The place of each value among all that there are, from 0, shape (n,)."""
    return np.unique(np.asarray(values), return_inverse=True)[1].ravel()


def _sums(group: Array, step: Array, amounts: Array) -> tuple[Array, Array]:
    """Sums by group and step, each a number from 0, of amounts, shape (k, n).

    Returns:
        the group of each sum, in their order, shape (sums,), and the sums, shape (k, sums).
    """
    steps = int(step.max(initial=0)) + 1
    cells, cell = np.unique(group * steps + step, return_inverse=True)
    return cells // steps, np.stack([np.bincount(cell, row, len(cells)) for row in amounts])


def _figures_of_sums(sums: Array) -> dict[str, float | None]:
    """The figures of sums, shape (3, n): of what came, the forecasts, those of the baseline. None: nothing came."""
    truth, score, baseline = sums
    if not np.abs(truth).sum():
        return dict.fromkeys(("wape", "baseline_wape", "bias", "smape"))
    equal = np.ones((1, len(truth)))
    return {
        "wape": float(_wape(truth, score, score, equal)[0]),
        "baseline_wape": float(_wape(truth, baseline, baseline, equal)[0]),
        "bias": float((score - truth).sum() / np.abs(truth).sum()),
        "smape": float(_smape(truth, score, score, equal)[0]),
    }


# Tables that the report has of this kind of problem alone
OWN_TABLES: Any = sums_by_level


def spread(y: Array) -> float:
    """The unit in which a change of the forecast is told: the middle of the series' levels; of labels alone their
    standard deviation."""
    if y.ndim > 1:
        return float(np.median(y[:, LEVEL])) or 1.0
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
    """The pictures of an evaluation by name: title, both axes' names, and the x and y of each curve.

    Args:
        interval: the manifest's, which `inside` compares with what came; None: there is none.
    """
    truth = numeric(y)
    groups = np.array_split(np.argsort(score, kind="stable"), min(10, len(truth)))
    mean_score = [score[g].mean() for g in groups]
    ends = [float(min(mean_score)), float(max(mean_score))]
    level, step = (
        (np.ones(len(truth)), np.ones(len(truth))) if y.ndim == 1 else (y[:, LEVEL], y[:, HORIZON])
    )
    error = (score - truth) / level
    steps = np.unique(step)
    shares = {
        f"{round(100 * q)} %": [steps, [float(np.quantile(-error[step == h], q)) for h in steps]]
        for q in (0.05, 0.25, 0.5, 0.75, 0.95)
    }
    factors = np.linspace(0.5, 2.0, 61)
    cost = [float(-value(y, score * factor, costs).mean()) for factor in factors]
    return {
        **(_coverage_by_step(y, score, interval) if interval and y.ndim > 1 else {}),
        "calibration": (
            "Calibration: truth by forecast, in ten groups",
            "mean forecast",
            "mean truth",
            {"model": [mean_score, [truth[g].mean() for g in groups]], "perfect": [ends, ends]},
        ),
        "fan": (
            "Fan: truth less forecast, by step ahead, in levels of the series",
            "steps ahead",
            "truth - forecast",
            shares,
        ),
        "error_by_step": (
            "Error by steps ahead, in units of the series' level",
            "steps ahead",
            "mean size of the error",
            {"model": [steps, [float(np.abs(error[step == h]).mean()) for h in steps]]},
        ),
        "value_by_factor": (
            "Cost per row when the forecast is multiplied",
            "factor",
            "cost per row",
            {"cost": [factors, cost], "chosen factor": [[decision] * 2, [0, float(max(cost))]]},
        ),
    }


def _coverage_by_step(y: Array, score: Array, interval: Any) -> dict[str, Any]:
    """The picture of how many values lie inside their interval, by how many steps ahead they are."""
    is_inside, step = inside(y, score, interval)
    steps = np.unique(step)
    shares = [float(is_inside[step == h].mean()) for h in steps]
    promised = [[float(steps[0]), float(steps[-1])], [interval["level"]] * 2]
    return {
        "coverage_by_step": (
            "Calibration of the intervals: share of values inside, by step ahead",
            "steps ahead",
            "share inside the interval",
            {"model": [steps, shares], "level of the interval": promised},
        )
    }


def value(y: Array, decided: Array, costs: Costs) -> Array:
    """What each forecast is worth: minus what its error costs, shape (n,); higher is better."""
    error = decided - numeric(y)
    return -np.where(error > 0, error * costs.over_prediction, -error * costs.under_prediction)


def fit_decision(y: Array, score: Array, costs: Costs, decision: str | float) -> float:
    """What to multiply the forecast with before planning with it.

    `costs`: the factor at which errors on these rows cost least, the newsvendor's quantile (Arrow, Harris and
    Marschak, 1951) of truth by forecast, each row weighed by its forecast: an error grows with its series. A number
    is taken as it is.
    """
    if decision != "costs":
        return float(decision)
    share = costs.under_prediction / (costs.under_prediction + costs.over_prediction)
    usable = score > 0
    if not usable.any():
        return 1.0
    ratio, weight = numeric(y)[usable] / score[usable], score[usable]
    order = np.argsort(ratio, kind="stable")
    reached = np.cumsum(weight[order]) >= share * weight.sum()
    return max(0.0, float(ratio[order][int(np.argmax(reached))]))


def fixed_score(settings: Settings) -> float:
    """The forecast that is answered with when no model can."""
    return settings.serving.fallback


def fixed_decision(score: float, settings: Settings, threshold: float | None = None) -> float:
    """The number to plan with when no model gave one: the number itself, which nothing has to move."""
    return score


def aimed_quantile(goals: Goals) -> float | None:
    """The share of outcomes that should lie at a forecast or below, by the loss; None for the mean."""
    costs = goals.costs
    match goals.loss:
        case "absolute":
            return 0.5
        case "quantile":
            return costs.under_prediction / (costs.under_prediction + costs.over_prediction)
        case "metric" if goals.metric not in ("bias", "rmse"):
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
    """What each answer says will come, shape (n,): the forecast."""
    return score


def came(y: Array, decided: Array) -> Array:
    """What came of each answer, in the unit of its claim, shape (n,)."""
    return numeric(y)
