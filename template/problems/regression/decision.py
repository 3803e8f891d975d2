"""YOURS: what is done with a score, in plain numpy: the same in training, in service and in the edge folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Around = tuple[float, float] | None  # how far below and above a score the truth may lie
# Rules before the model, wherever it answers; of several that hold of a row the first counts. Name -> of which of n rows it holds, by the model's raw inputs (numbers, NaN where missing; texts, "" where missing);
# how it is answered, a number, or None: the model answers, and a person looks;
# why, in words for the flags. For example:
#   RULES = {"minors": (lambda rows: rows["entity_age"] < 18, 0.0, "people under 18 buy nothing")}
RULES: dict[str, tuple[Any, Any, str]] = {}


def decide(score: Array, decision: float) -> Array:
    """The prediction moved by the shift, shape (n,): the number to plan with."""
    return score + decision


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
    """How far below and above its score the truth of a row lies: the same of all rows.

    Args:
        columns: of the rows; scale: of the manifest, by which their widths differ.
    """
    return around


def judge(
    score: float, decision: float, around: Around
) -> tuple[float, float | None, float | None, float | None]:
    """One score as (decision, confidence, low, high), as `decide` and `sureness` say of many."""
    if around is None:
        return score + decision, None, None, None
    return score + decision, None, score + around[0], score + around[1]


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
    """Why a person should look at a score, or nothing: its interval is wider than `margin` times it."""
    if around is None or not margin:
        return ""
    return wide_words(margin) if around[1] - around[0] > margin * abs(score) else ""


def unsure_sql(decision: float, margin: float) -> tuple[str, str]:
    """What `unsure` says, as an SQL condition on the columns of `scored`, and the reason in words."""
    wide = f"{margin!r} > 0 AND scored.high - scored.low > {margin!r} * abs(scored.score)"
    return wide, wide_words(margin)


def wide_words(margin: float) -> str:
    """The reason why a number with a wide interval is looked at, in words."""
    return f"interval wider than {margin:g} times the number"


def table(score: Array, decision: float, around: Around, classes: Sequence[str]) -> dict[str, Any]:
    """Answers to many rows by column, each with n values."""
    answers = {"score": score, "decision": decide(score, decision)}
    return {**answers, **sureness(score, decision, around)}


def reasons(columns: Mapping[str, Any], usual: Mapping[str, Any]) -> list[list[str]]:
    """The columns that stand out in each row; a score here says nothing of them."""
    return []
