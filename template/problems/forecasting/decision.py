"""YOURS: what is done with a forecast, in plain numpy: the same in training, in service and in the edge folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
# How far below and above a score the truth may lie: numbers, or of many rows one each, shape (n,)
Around = tuple[Any, Any] | None
SEASONS = 4  # of the latest values, that a series' level is told by
CLIP = 3.0  # times their mean; what lies beyond counts as that
# Rules before the model, wherever it answers; of several that hold of a row the first counts. Name -> of which of n rows it holds, by the model's raw inputs (numbers, NaN where missing; texts, "" where missing);
# how it is answered, a number, or None: the model answers, and a person looks;
# why, in words for the flags. For example:
#   RULES = {"minors": (lambda rows: rows["entity_age"] < 18, 0.0, "nothing is sold to people under 18")}
RULES: dict[str, tuple[Any, Any, str]] = {}


def level(histories: Array, season: int, fallback: float) -> Array:
    """The size of each series lately: the mean of its latest values other than zero, large ones clipped.

    Of the last four seasons; where there is none, of the whole history; never 0.

    Args:
        histories: shape (n, length), NaN where a value is missing; fallback: of a series without any value.

    Returns:
        shape (n,), float64.
    """
    sizes = np.abs(histories.astype(np.float64))
    present = np.isfinite(sizes) & (sizes > 0)
    recent = present.copy()
    recent[:, : -SEASONS * season] = False
    counted = np.where(recent.any(axis=1, keepdims=True), recent, present)
    count = np.maximum(counted.sum(axis=1), 1)
    values = np.where(counted, sizes, 0.0)
    mean = values.sum(axis=1) / count
    clipped = np.minimum(values, CLIP * mean[:, None]).sum(axis=1) / count
    return np.where(counted.any(axis=1), clipped, fallback)


def decide(score: Array, decision: float) -> Array:
    """The number to plan with, shape (n,): the forecast times a factor, as an error grows with its series."""
    return score * decision


def arranged(
    score: Array,
    decision: float,
    lists: Sequence[Any],
    topics: Sequence[Any],
    share: float = 0.0,
    draws: Array | None = None,
) -> tuple[Array, Array]:
    """The decisions of n rows that are answered together: each by itself, for certain."""
    return decide(score, decision), np.ones(len(score))


def bands(columns: Mapping[str, Any], around: Any, scale: Mapping[str, Any]) -> Around:
    """How far below and above its score the truth of each row lies, each of shape (n,).

    Args:
        columns: of n rows by name, histories of shape (n, length).
        around: the ends by step ahead, from the first, in units of the series' level.
        scale: of the manifest: the columns `history` and `horizon`, `season`, and `level`, of a series
            without a history. Without a scale, which no model of histories is, all rows have the first width.
    """
    if around is None or not scale:
        return around and (around[0][0], around[1][0])
    horizon = np.array(columns[scale["horizon"]], np.float64)
    step = np.clip(np.nan_to_num(horizon, nan=1.0), 1, len(around[0])).astype(np.int64) - 1
    size = level(columns[scale["history"]], scale["season"], scale["level"])
    return size * np.asarray(around[0])[step], size * np.asarray(around[1])[step]


def judge(
    score: float, decision: float, around: Around
) -> tuple[float, float | None, float | None, float | None]:
    """One score as (decision, confidence, low, high), as `decide` and `sureness` say of many."""
    if around is None:
        return score * decision, None, None, None
    return score * decision, None, score + around[0], score + around[1]


def sureness(score: Array, decision: float, around: Around) -> dict[str, Array]:
    """What else an answer says, by name, each of shape (n,): between which numbers the truth lies."""
    return {} if around is None else {"low": score + around[0], "high": score + around[1]}


def headline(score: float, confidence: float | None) -> float:
    """The score that an answer shows."""
    return score


def by_class(score: float, classes: Sequence[str]) -> dict[str, float]:
    """The score of each class, of a problem that has several."""
    return {}


def named(decided: float, classes: Sequence[str]) -> float:
    """A decision as an answer has it."""
    return decided


def choices(decision: float) -> int:
    """How many decisions there are; 0: they cannot be counted."""
    return 0


def unsure(score: float, decision: float, around: Around, margin: float) -> str:
    """Why a person should look at a forecast, or nothing: its interval is wider than `margin` times it."""
    if around is None or not margin:
        return ""
    return wide_words(margin) if around[1] - around[0] > margin * abs(score) else ""


def unsure_sql(decision: float, margin: float) -> tuple[str, str]:
    """What `unsure` says, as an SQL condition on the columns of `scored`, and the reason in words."""
    wide = f"{margin!r} > 0 AND scored.high - scored.low > {margin!r} * abs(scored.score)"
    return wide, wide_words(margin)


def wide_words(margin: float) -> str:
    """The reason why a forecast with a wide interval is looked at, in words."""
    return f"interval wider than {margin:g} times the forecast"


def table(score: Array, decision: float, around: Around, classes: Sequence[str]) -> dict[str, Any]:
    """Answers to many rows by column, each with n values."""
    answers = {"score": score, "decision": decide(score, decision)}
    return {**answers, **sureness(score, decision, around)}


def reasons(columns: Mapping[str, Any], usual: Mapping[str, Any]) -> list[list[str]]:
    """The columns that stand out in each row; a score here says nothing of them."""
    return []
