"""Figures with their intervals, and the gate: every target, what was measured, met, missed or undecided."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NotRequired, TypedDict

import numpy as np

from .. import problem
from ..parts import parts_here
from ..problem.goals import METRICS, numeric, outcome_variance, spread
from ..settings import Goals, IntervalSettings

Array = np.ndarray
SIGNIFICANCE = 0.001  # how unlikely a count must be before a promise counts as broken

# Of the part labelling
LABEL_RULES = {
    "label_agreement": ("agreement of labellers, Krippendorff's alpha", "at least"),
    "label_coverage": ("labelled rows of the least labelled slice", "at least"),
}
# Of the part governance
GOVERNANCE_RULES = {
    "empty_statements": ("what governance.use leaves empty", "at most"),
    "monthly_cost": ("a month in service, by its rows and prices", "at most"),
    "membership": ("how far scores tell who was trained on", "at most"),
}
# Every target: its words for a reader, and whether the figure must reach it or stay below it.
# `metric` follows the direction of the primary metric.
RULES: dict[str, tuple[str, str]] = {
    "metric": ("primary metric on the test rows", "metric"),
    "margin_over_baseline": ("gain over the best baseline", "above"),
    "loss_to_production": ("possible gain over the model in production", "at least"),
    "worst_slice": ("what the worst slice keeps of the metric", "at least"),
    "calibration_error": ("gap between score and outcome", "at most"),
    "perturbation": ("change under noise", "at most"),
    "invariance": ("change when a sensitive column changes", "at most"),
    "direction": ("rows moving against an expectation", "at most"),
    "confidence": ("gain of the confident half", "at least"),
    "latency_p99_ms": ("one row through the model, p99 in ms", "at most"),
    "error_rate": ("requests that the model could not answer, in service", "at most"),
    **problem.OWN_RULES,
    **(LABEL_RULES if "labelling" in parts_here() else {}),
    **(GOVERNANCE_RULES if "governance" in parts_here() else {}),
}


CALIBRATION_BINS = 10
CALIBRATION_DRAWS = 1000  # that the interval of a calibration error comes from
HOLDS = {"at least": operator.ge, "above": operator.gt, "at most": operator.le}


class GateRow(TypedDict):
    """A target in reports/gate.json: what was promised, what was measured, and the verdict."""

    target: str
    words: str
    rule: str
    limit: float | None
    measured: float | None
    low: float | None
    high: float | None
    reason: str | None  # why nothing was measured, or what was counted
    verdict: str | None  # met, missed or undecided; None: nothing was promised or measured
    rows_needed: int | None  # that would decide an undecided target; 0: rows tell nothing of it
    passed: bool | None


class Gate(TypedDict):
    """reports/gate.json; `model` is the sha256 of the model that was judged."""

    passed: bool
    rows: list[GateRow]
    model: NotRequired[str]


class Gain(TypedDict):
    """By how much one model is better than another, with its interval."""

    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """What was measured, and where the truth lies with the level of `goals.interval`.

    Without an interval (`low` is None) a figure is taken at its word. `rows` is how many it comes from.
    """

    value: float
    low: float | None = None
    high: float | None = None
    rows: int | None = None

    @classmethod
    def of_mean(cls, values: Array, level: float, unit: float = 1.0) -> Figure:
        """The mean of n independent values, shape (n,), divided by `unit`, with its interval at `level`.

        By the normal distribution; for bool by Wilson's score (1927), which also holds near 0 and 1.
        """
        n, mean = len(values), float(np.mean(values))
        z = NormalDist().inv_cdf((1 + level) / 2)
        if values.dtype == bool:
            middle = (mean + z * z / (2 * n)) / (1 + z * z / n)
            half = z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        else:
            middle, half = mean, z * float(np.std(values)) / math.sqrt(n)
        return cls(mean / unit, max(0.0, middle - half) / unit, (middle + half) / unit, n)

    @classmethod
    def of_draws(cls, value: float, draws: Array, level: float, rows: int) -> Figure:
        """A figure with the percentile interval of its resampled values, shape (resamples,)."""
        return cls(value, *interval(draws, level), rows)


@dataclass(frozen=True)
class Count(Figure):
    """A figure that counts what `note` names, in words."""

    note: str | None = None


def measure(name: str, y: Array, score: Array, decided: Array, weights: Array | None = None) -> Any:
    """A metric by its name: one float, or one value a resample where `weights` has a row for each.

    Args:
        y: truth; score: model's output, also of shape (n, classes); decided: what is done with it; each
            of shape (n,).
        weights: how often each row counts, shape (resamples, n), or (n,); None: all alike.
    """
    row_weights = np.ones((1, len(y))) if weights is None else np.atleast_2d(weights)
    values = METRICS[name].compute(y, score, decided, row_weights)
    return values if weights is not None and weights.ndim == 2 else float(values[0])


def sample_rows(n: int, max_rows: int, seed: int, unit: Array | None = None) -> Array:
    """The positions of n rows, or of a seeded draw of `max_rows` of them, in their order.

    Args:
        unit: what rows are drawn by as a whole, shape (n,), as `problem.goals.unit` tells it.
    """
    if n <= max_rows:
        return np.arange(n)
    if unit is not None:
        codes = np.unique(unit, return_inverse=True)[1]
        highest = max(1, max_rows * (int(codes.max()) + 1) // n)
        return np.flatnonzero(np.isin(codes, sample_rows(int(codes.max()) + 1, highest, seed)))
    return np.sort(np.random.default_rng(seed).choice(n, max_rows, replace=False))


def representatives(n: int, weight: Array | None) -> Array:
    """The positions of n rows, each as often as it counts: what takes no weights sees rows in their right shares.

    By systematic resampling (Kitagawa, 1996), n rows of n, in their order; all of them where all count alike.

    Args:
        weight: shape (n,); None: all count alike.
    """
    if weight is None:
        return np.arange(n)
    sums = np.cumsum(weight)
    return np.searchsorted(sums, (np.arange(n) + 0.5) * (sums[-1] / n))


def effective_rows(weight: Array) -> float:
    """How many rows that count alike tell as much as these, whose weights are given, shape (n,) (Kish, 1965)."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def resample(
    n: int, resamples: int, seed: int, unit: Array | None = None, weight: Array | None = None
) -> Array:
    """How often each of n rows counts in each resample, shape (resamples, n), as float32.

    The Poisson bootstrap (Chamandy et al., 2012). Give the same weights to every model, so that
    their differences are paired.

    Args:
        unit: what counts as a whole, shape (n,), as `problem.goals.unit` tells it; None: each row.
        weight: how much each row counts, shape (n,); None: all alike.
    """
    if weight is not None:
        return resample(n, resamples, seed, unit) * weight.astype(np.float32)
    if unit is not None:
        codes = np.unique(unit, return_inverse=True)[1]
        return resample(int(codes.max()) + 1, resamples, seed)[:, codes]
    counts = np.random.default_rng(seed).poisson(1.0, (resamples, n)).astype(np.float32)
    # Of a few units none at all may be drawn, of which nothing can be said
    counts[~counts.any(axis=1)] = 1.0
    return counts


def interval(values: Array, level: float) -> tuple[float, float]:
    """The middle `level` of resampled values, shape (resamples,): the percentile interval (Efron, 1979)."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def gain(name: str, a: Any, b: Any) -> Any:
    """By how much value a of a metric is better than value b: above 0 means better, whichever way it points."""
    return a - b if METRICS[name].higher_is_better else b - a


def gain_interval(name: str, a: Array, b: Array, settings: IntervalSettings) -> Gain:
    """The median gain of a over b with its interval; a, b: a metric on the same resamples, shape (resamples,)."""
    gains = gain(name, a, b)
    low, high = interval(gains, settings.level)
    return {"gain": float(np.median(gains)), "low": low, "high": high}


def calibration(
    y: Array,
    score: Array,
    level: float,
    share: float | None = None,
    unit: float | None = None,
    weight: Array | None = None,
) -> Figure:
    """Expected calibration error: mean |outcome - score| over bins of equal size (Naeini et al., 2015).

    Less what chance adds: a mean that strays by its standard error is on average farther from 0 than
    its truth, by sqrt(2 / pi) of that error where the truth is 0 (Broecker and Smith, 2007) and by
    nothing where it is far from it. Which of the two holds is told by the mean square of all bins.

    Args:
        y, score: outcomes and scores, each of shape (n,).
        level: of the interval.
        share: of a score that means a quantile; then the error is of the share of outcomes that lie
            at the score or below.
        unit: what is counted in; None: `spread` of these outcomes.
        weight: how much each row counts, shape (n,); None: all alike.
    """
    gaps = y - score if share is None else (y <= score) - share
    variance = outcome_variance(score) if share is None else None
    unit = unit or (spread(y) if share is None else 1.0)
    groups = np.array_split(np.argsort(score, kind="stable"), min(CALIBRATION_BINS, len(score)))
    parts = [np.ones(len(part)) if weight is None else weight[part] for part in groups]
    rows, sums = (np.array([f(part) for part in parts]) for f in (effective_rows, np.sum))
    means = np.array([gaps[part].mean() for part in groups])
    if weight is not None:
        means = np.array([np.average(gaps[part], weights=weight[part]) for part in groups])
    variances = [gaps[part].var() if variance is None else variance[part].mean() for part in groups]
    error = np.sqrt(np.array(variances) / rows)
    chance = np.random.default_rng(0).standard_normal((CALIBRATION_DRAWS, len(groups)))
    value = _mean_magnitude(means[None], error, sums)[0] / unit
    # What was drawn strays twice: as these rows from the truth, and from these rows
    drawn = _mean_magnitude(means + error * chance, error * math.sqrt(2), sums) / unit
    return Figure.of_draws(float(value), drawn, level, len(y))


def _mean_magnitude(means: Array, error: Array, rows: Array) -> Array:
    """Weighted mean of |truth| behind means with a normal error, shape (draws, bins) -> (draws,)."""
    weight = rows / rows.sum()
    from scipy.special import ndtr  # not above: it takes longer than most commands

    # What chance alone makes of the mean square in one of twenty cases is taken off it
    chance = 1.645 * np.sqrt(2 * (weight**2 * error**4).sum())
    square = np.maximum(0.0, (means**2 - error**2) @ weight - chance)
    magnitude, error = np.sqrt(square)[:, None], np.maximum(error, 1e-300)
    z = np.minimum(magnitude / error, 40.0)
    folded = error * (math.sqrt(2 / math.pi) * np.exp(-(z**2) / 2) - 2 * z * ndtr(-z))
    return np.maximum(0.0, (np.abs(means) - folded) @ weight)


def mix_weights(y: Array, inside: Array, weight: Array | None = None) -> Array:
    """Weights that give all rows the mix of labels of a part, shape (n,).

    Where a yes is rarer, or a number larger, most metrics are worse for any model: without these, a
    part would be blamed for its labels. A label counts by its class, or by the tenth of all labels that
    it stands in.

    Args:
        weight: how much each row counts, shape (n,), which these weights are multiplied with; None: all alike.
    """
    if problem.LISTED:  # a list weighs what it weighs, whatever it holds
        return np.ones(len(y))
    y = y if y.ndim == 1 else numeric(y)
    if problem.CLASSES:
        stratum = y.astype(np.int64)
    else:
        stratum = np.searchsorted(np.quantile(y, np.arange(0.1, 0.95, 0.1)), y)
    n, row_weights = int(stratum.max()) + 1, np.ones(len(y)) if weight is None else weight
    part, whole = (
        np.bincount(stratum[rows], row_weights[rows], n) / row_weights[rows].sum()
        for rows in (inside, slice(None))
    )
    return part[stratum] / whole[stratum] * row_weights


def kept_share(name: str, part: float, whole: float) -> float:
    """The share of the overall metric that a slice keeps, 1 when it does as well, never below 0."""
    ratio = (part, whole) if METRICS[name].higher_is_better else (whole, part)
    return max(0.0, ratio[0] / ratio[1]) if ratio[1] > 0 else 1.0


def judge(goals: Goals, measured: Mapping[str, Figure | str | None], basis: str = "") -> Gate:
    """The gate's verdict on every target.

    A target is met or missed when its limit lies outside of the figure's interval, else undecided: too
    few rows to tell. `goals.undecided` says whether the figure itself decides then, or blocks.

    Args:
        measured: a figure for each target; where there is nothing to measure the reason in words,
            or None.
        basis: what the primary metric rests on, in words, where that is not the same in every run.

    Returns:
        one row a target, in the order of `RULES`; `passed` is False where any row's is. A row's `verdict`
        and `passed` are None when nothing was promised or nothing could be measured.
    """
    rows = []
    for target, (description, rule) in RULES.items():
        limit, outcome = getattr(goals.targets, target), measured.get(target)
        figure = None if isinstance(outcome, str) else outcome
        value, low, high = (figure.value, figure.low, figure.high) if figure else (None,) * 3
        if rule == "metric":
            rule = "at least" if METRICS[goals.metric].higher_is_better else "at most"
            description = f"{goals.metric}: {description}" + (f", {basis}" if basis else "")
        if target == "loss_to_production" and limit is not None:
            limit = 0.0 - limit  # a loss that is allowed is a gain that may be that far below 0
        row: GateRow = {
            "target": target,
            "words": description,
            "rule": rule,
            "limit": limit,
            "measured": value,
            "low": low,
            "high": high,
            "reason": outcome if isinstance(outcome, str) else getattr(figure, "note", None),
            "verdict": None,
            "rows_needed": None,
            "passed": None,
        }
        if figure is not None and limit is not None:
            row["verdict"] = verdict = _verdict(figure, rule, limit)
            row["passed"] = verdict == "met"
            if verdict == "undecided":
                row["rows_needed"] = _rows_needed(figure, limit)
                row["passed"] = goals.undecided == "estimate" and HOLDS[rule](figure.value, limit)
        rows.append(row)
    return {"passed": all(row["passed"] is not False for row in rows), "rows": rows}


def _verdict(figure: Figure, rule: str, limit: float) -> str:
    if figure.low is None or figure.high is None:
        return "met" if HOLDS[rule](figure.value, limit) else "missed"
    worst, best = (figure.low, figure.high) if rule != "at most" else (figure.high, figure.low)
    if HOLDS[rule](worst, limit):
        return "met"
    return "undecided" if HOLDS[rule](best, limit) else "missed"


def _rows_needed(figure: Figure, limit: float) -> int | None:
    """About how many rows would decide, if the figure is right: intervals narrow with their root."""
    distance = abs(figure.value - limit)
    if figure.rows is None:  # no row tells
        return 0
    if figure.low is None or figure.high is None or not distance:
        return None
    half = figure.value - figure.low if figure.value > limit else figure.high - figure.value
    estimate = figure.rows * (half / distance) ** 2
    step = 10 ** max(0, math.floor(math.log10(max(estimate, 1))) - 1)
    return int(math.ceil(estimate / step) * step)  # two digits: it is an estimate


MAX_ROWS_NEEDED = 10_000_000  # rows; beyond, the figure is as good as on the limit


def cells(row: GateRow) -> tuple[str, str, str, str]:
    """A row of the gate as a reader sees it: target, promised, measured, and the verdict."""
    measured, promised = row["measured"], row["limit"]
    limit = "not promised" if promised is None else f"{row['rule']} {promised:g}"
    figure = row.get("reason") or "not measured"
    if measured is not None:
        figure = f"{measured:.4g}"
    if measured is not None and row.get("low") is not None:
        figure += f" ({row['low']:.3g} to {row['high']:.3g})"
    if measured and row.get("reason") and promised is not None:
        figure = f"{measured:g}: {row['reason']}"
    verdict = (row["verdict"] or "—").replace("missed", "MISSED")
    if row["verdict"] == "missed" and measured is not None and promised is not None:
        gap = f"{abs(measured - promised):.3g}"
        verdict += f", by {gap}" if gap != "0" else f": not {row['rule']} {promised:g}"
    if row["verdict"] == "undecided":
        count = MAX_ROWS_NEEDED if row["rows_needed"] is None else row["rows_needed"]
        rows = f"{count:,} rows" if count < MAX_ROWS_NEEDED else "far more rows"
        verdict += (f": {rows} would tell" if count else "") + ("" if row["passed"] else "; BLOCKS")
    return row["words"], limit, figure, verdict


def table(gate: Gate) -> str:
    """The gate as a Markdown table, for a job summary or a model card."""
    lines = ["| target | promised | measured | verdict |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(cells(row))} |" for row in gate["rows"]]
    return "\n".join(lines) + "\n"


def binomial_tail(count: int, trials: int, share: float) -> float:
    """P(at least `count` of `trials`) when each happens with the chance `share`: a binomial tail."""
    if count <= trials * share:
        return 1.0
    if share <= 0:
        return 0.0
    terms = []
    for k in range(count, min(trials, count + 200) + 1):  # beyond, terms no longer matter
        choose = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        terms.append(math.exp(choose + k * math.log(share) + (trials - k) * math.log1p(-share)))
    return min(1.0, sum(terms))


def surely_more(count: int, trials: int, share: float) -> bool:
    """Whether `count` of `trials` is more than the share that is allowed, beyond chance."""
    return binomial_tail(count, trials, share) < SIGNIFICANCE
