"""YOURS: what is done with a score, in plain numpy: the same in training, in service and in the edge folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Around = tuple[float, float] | None  # how far below and above a score the truth may lie
# Rules before the model, wherever it answers; of several that hold of a row the first counts. Name -> of which of n rows it holds, by the model's raw inputs (numbers, NaN where missing; texts, "" where missing);
# how it is answered, 1.0 for yes or 0.0 for no, or None: the model answers, and a person looks;
# why, in words for the flags. For example:
#   RULES = {"minors": (lambda rows: rows["entity_age"] < 18, 0.0, "no offers to people under 18")}
RULES: dict[str, tuple[Any, Any, str]] = {}


def decide(score: Array, decision: float) -> Array:
    """1.0 where the score reaches the threshold, else 0.0, shape (n,)."""
    return (score >= decision).astype(np.float64)


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
    yes = score >= decision
    return float(yes), score if yes else 1 - score, None, None


def sureness(score: Array, decision: float, around: Around) -> dict[str, Array]:
    """What else an answer says, by name, each of shape (n,): the chance that the decision is right."""
    return {"confidence": np.where(score >= decision, score, 1 - score)}


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
    """How many decisions there are: no and yes."""
    return 2


def unsure(score: float, decision: float, around: Around, margin: float) -> str:
    """Why a person should look at a score, or nothing: it is nearer to the threshold than `margin`."""
    return near_words(margin) if abs(score - decision) < margin else ""


def unsure_sql(decision: float, margin: float) -> tuple[str, str]:
    """What `unsure` says, as an SQL condition on the columns of `scored`, and the reason in words."""
    return f"abs(scored.score - {decision!r}) < {margin!r}", near_words(margin)


def near_words(margin: float) -> str:
    """The reason why a score near to the threshold is looked at, in words."""
    return f"score within {margin:g} of the threshold"


def table(score: Array, decision: float, around: Around, classes: Sequence[str]) -> dict[str, Any]:
    """Answers to many rows by column, each with n values."""
    answers = {"score": score, "decision": decide(score, decision)}
    return {**answers, **sureness(score, decision, around)}


def reasons(columns: Mapping[str, Any], usual: Mapping[str, Any]) -> list[list[str]]:
    """The columns that stand out in each row; a score here says nothing of them."""
    return []
