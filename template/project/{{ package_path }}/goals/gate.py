"""Figures with their intervals, and the gate: every target, what was measured, pass or fail."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..settings import Interval, Targets
from .metrics import METRICS, spread

Array = np.ndarray

# Every target: its words for a reader, and whether the figure must reach it or stay below it.
# `metric` follows the direction of the primary metric.
RULES: dict[str, tuple[str, str]] = {
    "metric": ("primary metric on the test rows", "metric"),
    "margin_over_baseline": ("surely gained over the best baseline", "above"),
    "loss_to_production": ("possible gain over the model in production", "at least"),
    "worst_slice": ("what the worst slice keeps of the metric", "at least"),
    "calibration_error": ("gap between score and outcome", "at most"),
    "perturbation": ("change under noise", "at most"),
    "invariance": ("change when a sensitive column changes", "at most"),
    "direction": ("rows moving against an expectation", "at most"),
    "confidence": ("gain of the confident half", "at least"),
    "latency_p99_ms": ("one row through the model, p99 in ms", "at most"),
    "error_rate": ("requests that the model could not answer, in service", "at most"),
}


HOLDS = {"at least": operator.ge, "above": operator.gt, "at most": operator.le}


def measure(name: str, y: Array, score: Array, decided: Array, weights: Array | None = None) -> Any:
    """A metric by its name: one float, or one value a resample where `weights` is given.

    Args:
        y: truth; score: model's output; decided: what is done with it; each of shape (n,).
        weights: how often each row counts, shape (resamples, n).
    """
    once = np.ones((1, len(y))) if weights is None else weights
    values = METRICS[name].compute(y, score, decided, once)
    return float(values[0]) if weights is None else values


def some(n: int, most: int, seed: int) -> Array:
    """The places of n rows, or of a seeded draw of `most` of them, in their order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def resample(n: int, resamples: int, seed: int) -> Array:
    """How often each of n rows counts in each resample, shape (resamples, n), as float32.

    The Poisson bootstrap (Chamandy et al., 2012). Give the same weights to every model, so that
    their differences are paired.
    """
    return np.random.default_rng(seed).poisson(1.0, (resamples, n)).astype(np.float32)


def interval(values: Array, level: float) -> tuple[float, float]:
    """The middle `level` of resampled values: the percentile interval."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def gain(name: str, a: Any, b: Any) -> Any:
    """By how much a is better than b in this metric: positive means better, whatever its kind."""
    return a - b if METRICS[name].higher_is_better else b - a


def compared(name: str, a: Array, b: Array, settings: Interval) -> dict[str, float]:
    """The gain of a over b with its interval, from the same resamples of both, shape (resamples,)."""
    gains = gain(name, a, b)
    low, high = interval(gains, settings.level)
    return {"gain": float(np.median(gains)), "low": low, "high": high}


def calibration_error(y: Array, score: Array, bins: int = 10) -> float:
    """Expected calibration error: mean |outcome - score| over bins of equal size (Naeini et al., 2015).

    In units of `spread`, and less what a right score shows in so few rows: a mean of n strays from
    its truth by sqrt(2 / pi) standard errors (Broecker and Smith, 2007, on reading such diagrams).
    """
    total = 0.0
    for rows in np.array_split(np.argsort(score, kind="stable"), min(bins, len(score))):
        gap = y[rows] - score[rows]
        total += len(rows) * abs(gap.mean()) - np.sqrt(2 / np.pi * len(rows)) * gap.std()
    return float(max(0.0, total) / len(y) / spread(y))


def mixed_as(y: Array, inside: Array) -> Array:
    """Weights that give all rows the mix of labels of a part, shape (n,).

    Where a yes is rarer, or a number larger, most metrics are worse for any model: without these, a
    part would be blamed for its labels. A label counts by its place among the tenths of all labels.
    """
    stratum = np.searchsorted(np.quantile(y, np.arange(0.1, 0.95, 0.1)), y)
    part, whole = (np.bincount(one, minlength=10) / len(one) for one in (stratum[inside], stratum))
    return (part[stratum] / whole[stratum]).astype(np.float64)


def kept(name: str, part: float, whole: float) -> float:
    """The share of the overall metric that a slice keeps, 1 when it does as well, never below 0."""
    ratio = (part, whole) if METRICS[name].higher_is_better else (whole, part)
    return max(0.0, ratio[0] / ratio[1]) if ratio[1] > 0 else 1.0


def judge(targets: Targets, metric: str, measured: Mapping[str, float | None]) -> dict[str, Any]:
    """The gate's verdict on every target.

    Args:
        measured: a figure for each target; None where there is nothing to measure (no model in
            production, no sensitive column).

    Returns:
        {"passed": bool, "rows": [{"target", "words", "rule", "limit", "measured", "passed"}]},
        where a row's `passed` is None when nothing was promised or nothing could be measured.
    """
    rows = []
    for target, (words, rule) in RULES.items():
        limit, figure = getattr(targets, target), measured.get(target)
        if rule == "metric":
            rule = "at least" if METRICS[metric].higher_is_better else "at most"
            words = f"{metric}: {words}"
        if target == "loss_to_production" and limit is not None:
            limit = 0.0 - limit  # a loss that is allowed is a gain that may be that far below 0
        passed = None if limit is None or figure is None else HOLDS[rule](figure, limit)
        rows.append(
            {
                "target": target,
                "words": words,
                "rule": rule,
                "limit": limit,
                "measured": figure,
                "passed": passed,
            }
        )
    return {"passed": all(row["passed"] is not False for row in rows), "rows": rows}


def cells(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """A row of the gate as a reader sees it: target, promised, measured, and a miss by how much."""
    limit = "not promised" if row["limit"] is None else f"{row['rule']} {row['limit']:g}"
    figure = "not measured" if row["measured"] is None else f"{row['measured']:.4g}"
    verdict = {None: "—", True: "pass", False: "FAIL"}[row["passed"]]
    if row["passed"] is False:
        verdict += f", by {abs(row['measured'] - row['limit']):.3g}"
    return row["words"], limit, figure, verdict


def table(gate: Mapping[str, Any]) -> str:
    """The gate as a Markdown table, for a job summary or a card."""
    lines = ["| target | promised | measured | verdict |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(cells(row))} |" for row in gate["rows"]]
    return "\n".join(lines) + "\n"
