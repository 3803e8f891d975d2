"""Six tests of how the model behaves, beyond its average (decision 4.13).

Perturbation, invariance and directional expectation are the behavioural tests of Ribeiro et al.
(2020), carried to tables; calibration and confidence are told by the problem's metrics; slices
come with a check for Simpson's paradox. Those that change rows take the model as a function from
rows to scores, and `before`, its scores of the rows as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NotRequired, TypedDict

import numpy as np
import pandas as pd

from ..agreements import WAYS
from ..goals.gate import Figure, gain, interval, kept_share, measure, mix_weights
from ..images import from_pixels, to_pixels
from ..problem import LabelKeys
from ..problem.features import shaken
from ..problem.goals import decide, distance, numeric, rise, spread, turned
from ..settings import Augmentation

Array = np.ndarray
Answers = tuple[Array, Array, Array]  # truth, score and decision of n rows, each of shape (n,)
Score = Callable[[pd.DataFrame], Array]


class Slice(TypedDict):
    """A slice in reports/metrics.json; one that is too small to be judged has no metric.

    `keeps` is the slice's share of the metric of all rows, weighted to the slice's mix of labels, and
    `keeps_high` the upper end of this share's interval.
    """

    rows: int
    metric: float | None
    keeps: NotRequired[float]
    keeps_high: NotRequired[float]


Slices = dict[str, dict[str, Slice]]  # column → value → slice


def numeric_columns(rows: pd.DataFrame) -> list[str]:
    """The numeric columns that vary beyond a flag."""
    return [
        name
        for name in rows.select_dtypes("float32")
        if rows[name].nunique() > 2 and np.isfinite(rows[name].std())
    ]


def with_typos(texts: pd.Series, share: float, seed: int) -> list[str]:
    """Texts in which `share` of the words has two neighbouring letters swapped, a common slip (Damerau, 1964)."""
    rng, misspelt = np.random.default_rng(seed), []
    for text in texts:
        tokens = text.split(" ")
        for i in np.flatnonzero(rng.random(len(tokens)) < share):
            if len(token := tokens[i]) > 1:
                at = int(rng.integers(len(token) - 1))
                tokens[i] = token[:at] + token[at + 1] + token[at] + token[at + 2 :]
        misspelt.append(" ".join(tokens))
    return misspelt


def in_other_light(stored: pd.Series, share: float, seed: int) -> list[str]:
    """Stored images as a camera may give them: noise, and lighter or darker, both by `share` of the whole range."""
    rng, changed = np.random.default_rng(seed), []
    for image in stored:
        if not image:
            changed.append(image)
            continue
        values = to_pixels(image).astype(np.float64)
        values += 255 * share * (rng.uniform(-1, 1) + rng.standard_normal(values.shape))
        changed.append(from_pixels(values.clip(0, 255).round().astype(np.uint8)))
    return changed


# What small change a type's values get, of a share, with a seed
SHAKES = {"text": with_typos, "image": in_other_light}


def with_gaps(rows: pd.DataFrame, names: Sequence[str], share: float, seed: int) -> pd.DataFrame:
    """Rows in which `share` of the values of some numeric columns are struck out."""
    rng = np.random.default_rng(seed)
    return rows.assign(**{name: rows[name].mask(rng.random(len(rows)) < share) for name in names})


def with_words_left_out(texts: pd.Series, share: float, seed: int) -> list[str]:
    """Texts without `share` of their words (Wei and Zou, 2019)."""
    rng = np.random.default_rng(seed)
    tokens = (text.split(" ") for text in texts)
    return [" ".join(np.array(t, object)[rng.random(len(t)) >= share]) for t in tokens]


def moved(stored: pd.Series, share: float, seed: int, way: str) -> list[str]:
    """Stored images as seen from elsewhere.

    Args:
        way: flip, left and right changed over in half of them; shift, up to `share` of a side in both directions,
            what leaves on one side comes in on the other; turn, by none to three quarters.
    """
    rng, changed = np.random.default_rng(seed), []
    for image in stored:
        values = to_pixels(image) if image else np.zeros((1, 1, 1), np.uint8)
        reach = round(share * values.shape[1])
        by = rng.integers(-reach, reach + 1, 2).tolist()
        turns = int(rng.integers(4))
        if way == "flip":
            values = values[..., :: 1 - 2 * (turns % 2)]
        elif way == "shift":
            values = np.roll(values, by, (1, 2))
        else:
            values = np.rot90(values, turns, (1, 2))
        changed.append(from_pixels(np.ascontiguousarray(values)) if image else image)
    return changed


# The ways that change texts and images, value by value
CHANGES: dict[str, Callable[[pd.Series, float, int], list[str]]] = {
    "typos": with_typos,
    "deletion": with_words_left_out,
    "light": in_other_light,
    "flip": partial(moved, way="flip"),
    "shift": partial(moved, way="shift"),
    "turn": partial(moved, way="turn"),
}


def augmented(
    rows: pd.DataFrame, columns: Mapping[str, str], augmentation: Augmentation, seed: int
) -> pd.DataFrame:
    """n rows, and behind them as many changed copies of all as the setting says, each in the order of the rows.

    Args:
        columns: the model's inputs by type.
    """
    numbers, share, copies = numeric_columns(rows), augmentation.share, []
    for number in range(augmentation.copies):
        copy, copy_seed = rows, seed + 1000 * (number + 1)
        for way in augmentation.ways:
            if way == "noise":
                copy = shaken(copy, numbers, share, copy_seed)
            elif way == "missing":
                copy = with_gaps(copy, numbers, share, copy_seed)
            else:
                names = [name for name, kind in columns.items() if kind == WAYS[way]]
                changed = {n: CHANGES[way](copy[n], share, copy_seed) for n in names}
                copy = copy.assign(**changed)
        copies.append(copy)
    return pd.concat([rows, *copies], ignore_index=True)


def perturbation(
    score: Score,
    rows: pd.DataFrame,
    columns: Mapping[str, str],
    before: Array,
    y: Array,
    decision: Any,
    share: float,
    seed: int,
    level: float,
) -> Figure | None:
    """How far the answers move when every number gets noise of `share` of its spread, and texts as many typos.

    Args:
        columns: the model's inputs by type; images get as much noise and other light.

    Returns:
        the mean move, with its interval at `level`: a share of turned decisions, or standard deviations of
        the label; None where no column is a number, a text or an image.
    """
    shakes = {name: SHAKES[kind] for name, kind in columns.items() if kind in SHAKES}
    if not numeric_columns(rows) and not shakes:
        return None
    noisy = shaken(rows, numeric_columns(rows), share, seed)
    changes = {name: shake(rows[name], share, seed) for name, shake in shakes.items()}
    after = score(noisy.assign(**changes))
    moved = turned(before, after, decide(before, decision), decide(after, decision))
    return Figure.of_mean(moved, level, spread(y))


def invariance(
    score: Score, rows: pd.DataFrame, before: Array, y: Array, sensitive: tuple[str, ...]
) -> float | None:
    """The largest mean change of the score when a sensitive column is set to another value.

    None where no sensitive column is among the model's inputs: then there is nothing to test.
    """
    changes = [
        float(distance(before, score(rows.assign(**{name: new_value}))).mean()) / spread(y)
        for name in sorted(set(sensitive) & set(rows.columns))
        for new_value in rows[name].dropna().value_counts().index[:10]
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
    for name in sorted(set(expectations) & set(numeric_columns(rows))):
        present = rows[name].notna().to_numpy()
        raised = rows[present].assign(**{name: rows[name][present] + rows[name].std()})
        moved = rise(before[present], score(raised), expectations[name], label) / spread(y)
        shares[name] = Figure.of_mean(moved < -1e-3, level)
    return shares


def slices(
    values: pd.DataFrame,
    metric: str,
    answers: Answers,
    weights: Array,
    min_rows: int,
    level: float,
    row_weight: Array | None = None,
) -> Slices:
    """The metric in each value of each slice column.

    Args:
        values: the slice columns of the test rows.
        answers: truth, score and decision, each of shape (n,).
        weights: how often each row counts, shape (resamples, n).
        min_rows: that a slice needs.
        row_weight: how much each row counts, shape (n,), as in `weights` already; None: all alike.

    Returns:
        column → value → slice. The gate takes `keeps_high`, so that a small slice does not fail by
        chance. Slices that are too small or whose truth never varies have rows only.
    """
    metrics: Slices = {}
    for column in values:
        metrics[str(column)] = {}
        names = values[column].astype(str).fillna("missing").replace("", "missing")
        for name in sorted(names.unique()):
            inside = (names == name).to_numpy()
            entry: Slice = {"rows": int(inside.sum()), "metric": None}
            truth, score, decided = (array[inside] for array in answers)
            if inside.sum() >= min_rows and np.std(numeric(truth)) > 0:
                alike = None if row_weight is None else row_weight[inside]
                entry["metric"] = value = measure(metric, truth, score, decided, alike)
                whole = measure(metric, *answers, mix_weights(answers[0], inside, row_weight))
                entry["keeps"] = kept_share(metric, value, whole)
                draws = measure(metric, truth, score, decided, np.compress(inside, weights, axis=1))
                ratios = np.array([kept_share(metric, draw, whole) for draw in draws])
                entry["keeps_high"] = interval(ratios, level)[1]
            metrics[str(column)][str(name)] = entry
    return metrics


def simpson(
    values: pd.DataFrame,
    rows: pd.DataFrame,
    metric: str,
    model: Answers,
    baseline: Answers,
    min_rows: int,
) -> list[str]:
    """Trends that hold overall and turn round inside the slices (Simpson, 1951), in words.

    Two kinds of trend: the model's gain over the baseline, and each number's correlation with
    the label, where both the overall and the reversed ones are clear of chance (3 standard errors).

    Args:
        model, baseline: truth, score and decision, each of shape (n,).
    """

    def lead(mask: Array | slice) -> float:
        ours, theirs = ([array[mask] for array in answers] for answers in (model, baseline))
        return float(gain(metric, measure(metric, *ours), measure(metric, *theirs)))

    y, overall, paradoxes = numeric(model[0]), lead(slice(None)), []
    columns = {name: rows[name].to_numpy(np.float64) for name in numeric_columns(rows)}
    trends = {name: _trend(x, y) for name, x in columns.items()}
    for column in values:
        masks = {str(name): (values[column] == name).to_numpy() for name in values[column].unique()}
        masks = {n: m for n, m in masks.items() if m.sum() >= min_rows and np.std(y[m]) > 0}
        if len(masks) < 2:
            continue
        if worse := sorted(name for name, mask in masks.items() if overall * lead(mask) < 0):
            paradoxes.append(
                f"The model is {'better' if overall > 0 else 'worse'} than the baseline overall, "
                f"but not where {column} is {', '.join(worse)}."
            )
        for name, trend in trends.items():
            parts = (_trend(columns[name][mask], y[mask]) for mask in masks.values())
            if abs(trend) > 3 and all(trend * part < 0 and abs(part) > 3 for part in parts):
                paradoxes.append(
                    f"{name} goes {'up' if trend > 0 else 'down'} with the label overall, "
                    f"and the other way inside every value of {column}."
                )
    return paradoxes


def _trend(x: Array, y: Array) -> float:
    """Correlation in standard errors (Fisher's z); 0 where it can't be told."""
    finite = np.isfinite(x)
    if finite.sum() < 10 or np.std(x[finite]) == 0 or np.std(y[finite]) == 0:
        return 0.0
    r = np.clip(np.corrcoef(x[finite], y[finite])[0, 1], -0.999999, 0.999999)
    return float(np.arctanh(r) * np.sqrt(finite.sum() - 3))


def summary(figures: Mapping[str, Figure | None], worst: str | None) -> dict[str, dict[str, Any]]:
    """The six figures by test, each with a sentence for readers; `worst`: the name of the worst slice."""
    descriptions = {
        "perturbation": "answers that move under small noise in numbers and images, and slips in texts",
        "invariance": "mean change of the score when a sensitive column changes",
        "direction": "rows whose score moves against an expectation, worst column",
        "calibration": "gap between score and outcome",
        "confidence": "gain of the half that the model is surest of",
        "slices": f"what the worst slice ({worst or 'none large enough'}) keeps of the metric",
    }
    values = {name: None if figure is None else figure.value for name, figure in figures.items()}
    return {name: {"measured": values[name], "words": text} for name, text in descriptions.items()}
