"""Six tests of how the model behaves, beyond its average (decision 4.13).

Perturbation, invariance and directional expectation are the behavioural tests of Ribeiro et al.
(2020), carried to tables; calibration and confidence are told by the problem's metrics; slices
come with a check for Simpson's paradox. Those that change rows take the model as a function from
rows to scores, and `before`, its scores of the rows as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..goals.gate import Figure, gain, interval, kept, measure, mixed_as
from ..problem import LabelKeys
from ..problem.features import shaken
from ..problem.goals import decide, distance, rise, spread, turned

Array = np.ndarray
Score = Callable[[pd.DataFrame], Array]


def numbers(rows: pd.DataFrame) -> list[str]:
    """The numeric columns that vary beyond a flag."""
    return [
        name
        for name in rows.select_dtypes("float32")
        if rows[name].nunique() > 2 and np.isfinite(rows[name].std())
    ]


def perturbation(
    score: Score,
    rows: pd.DataFrame,
    before: Array,
    y: Array,
    decision: Any,
    share: float,
    seed: int,
    level: float,
) -> Figure | None:
    """How far the answers move when every number gets noise of `share` of its spread."""
    if not numbers(rows):
        return None
    after = score(shaken(rows, numbers(rows), share, seed))
    moved = turned(before, after, decide(before, decision), decide(after, decision))
    return Figure.of_mean(moved, level, spread(y))


def invariance(
    score: Score, rows: pd.DataFrame, before: Array, y: Array, sensitive: tuple[str, ...]
) -> float | None:
    """The largest mean change of the score when a sensitive column is set to another value.

    None where no sensitive column is among the model's inputs: then there is nothing to test.
    """
    changes = [
        float(distance(before, score(rows.assign(**{name: other}))).mean()) / spread(y)
        for name in sorted(set(sensitive) & set(rows.columns))
        for other in rows[name].dropna().value_counts().index[:10]
    ]
    return max(changes, default=None)


def direction(
    score: Score,
    rows: pd.DataFrame,
    before: Array,
    y: Array,
    expectations: Mapping[str, str],
    label: LabelKeys,
    level: float,
) -> dict[str, Figure]:
    """For each expectation, the share of rows whose score moves against it.

    The column is raised by one standard deviation. A move of less than a thousandth of the
    score's unit counts as none.
    """
    shares = {}
    for name in sorted(set(expectations) & set(numbers(rows))):
        known = rows[name].notna().to_numpy()
        raised = rows[known].assign(**{name: rows[name][known] + rows[name].std()})
        moved = rise(before[known], score(raised), expectations[name], label) / spread(y)
        shares[name] = Figure.of_mean(moved < -1e-3, level)
    return shares


def slices(
    values: pd.DataFrame,
    metric: str,
    answers: tuple[Array, Array, Array],
    weights: Array,
    least: int,
    level: float,
) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """The metric in each value of each slice column.

    Args:
        values: the slice columns of the test rows.
        answers: truth, score and decision, each of shape (n,).
        weights: resamples of the rows, shape (resamples, n).
        least: rows that a slice needs.

    Returns:
        column → value → rows, metric, the share that it keeps of the metric of all rows (weighted to
        the slice's mix of labels), and the upper end of that share's interval, so that a small slice
        does not fail by chance. Slices that are too small or whose truth never varies have rows only.
    """
    found: dict[str, dict[str, dict[str, float | int | None]]] = {}
    for column in values:
        found[str(column)] = {}
        names = values[column].astype(str).fillna("missing").replace("", "missing")
        for name in sorted(names.unique()):
            inside = (names == name).to_numpy()
            entry: dict[str, float | int | None] = {"rows": int(inside.sum()), "metric": None}
            truth, score, decided = (array[inside] for array in answers)
            if inside.sum() >= least and np.std(truth) > 0:
                entry["metric"] = figure = measure(metric, truth, score, decided)
                whole = measure(metric, *answers, mixed_as(answers[0], inside)[None])[0]
                entry["keeps"] = kept(metric, figure, whole)
                draws = measure(metric, truth, score, decided, np.compress(inside, weights, axis=1))
                ratios = np.array([kept(metric, draw, whole) for draw in draws])
                entry["keeps_high"] = interval(ratios, level)[1]
            found[str(column)][str(name)] = entry
    return found


def simpson(
    values: pd.DataFrame,
    rows: pd.DataFrame,
    metric: str,
    model: tuple[Array, Array, Array],
    baseline: tuple[Array, Array, Array],
    least: int,
) -> list[str]:
    """Trends that hold overall and turn round inside the slices (Simpson, 1951), in words.

    Two kinds of trend: the model's gain over the baseline, and each number's correlation with
    the label, where both the overall and the reversed ones are clear of chance (3 standard errors).

    Args:
        model, baseline: truth, score and decision, each of shape (n,).
    """

    def lead(mask: Array | slice) -> float:
        ours, theirs = (measure(metric, *(a[mask] for a in one)) for one in (model, baseline))
        return float(gain(metric, ours, theirs))

    y, overall, found = model[0], lead(slice(None)), []
    known = {name: rows[name].to_numpy(np.float64) for name in numbers(rows)}
    trends = {name: _trend(x, y) for name, x in known.items()}
    for column in values:
        masks = {str(name): (values[column] == name).to_numpy() for name in values[column].unique()}
        masks = {n: m for n, m in masks.items() if m.sum() >= least and np.std(y[m]) > 0}
        if len(masks) < 2:
            continue
        if worse := sorted(name for name, mask in masks.items() if overall * lead(mask) < 0):
            found.append(
                f"The model is {'better' if overall > 0 else 'worse'} than the baseline overall, "
                f"but not where {column} is {', '.join(worse)}."
            )
        for name, trend in trends.items():
            inside = (_trend(known[name][mask], y[mask]) for mask in masks.values())
            if abs(trend) > 3 and all(trend * one < 0 and abs(one) > 3 for one in inside):
                found.append(
                    f"{name} goes {'up' if trend > 0 else 'down'} with the label overall, "
                    f"and the other way inside every value of {column}."
                )
    return found


def _trend(x: Array, y: Array) -> float:
    """Correlation in standard errors (Fisher's z); 0 where it can't be told."""
    known = np.isfinite(x)
    if known.sum() < 10 or np.std(x[known]) == 0 or np.std(y[known]) == 0:
        return 0.0
    r = np.clip(np.corrcoef(x[known], y[known])[0, 1], -0.999999, 0.999999)
    return float(np.arctanh(r) * np.sqrt(known.sum() - 3))


def summary(measured: Mapping[str, float | None], worst: str | None) -> dict[str, dict[str, Any]]:
    """The six figures with words that a reader needs no key for."""
    words = {
        "perturbation": "answers that move under small noise in the numbers",
        "invariance": "mean change of the score when a sensitive column changes",
        "direction": "rows whose score moves against an expectation, worst column",
        "calibration": "gap between score and outcome",
        "confidence": "gain of the half that the model is surest of",
        "slices": f"what the worst slice ({worst or 'none large enough'}) keeps of the metric",
    }
    return {name: {"measured": measured[name], "words": words[name]} for name in words}
