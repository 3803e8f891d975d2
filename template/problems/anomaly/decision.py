"""YOURS: what is done with a score, in plain numpy: the same in training, in service and in the edge folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Around = tuple[float, float] | None  # of a number only: how far around a score the truth may lie
# Columns that an answer names at most; a value stands out that so few rows have
MOST_REASONS, RARE = 3, 0.01
FEW_ROWS = 16  # up to which values are looked up one by one, which is quicker then
# Rules before the model, wherever it answers; of several that hold of a row the first counts. Name -> of which of n rows it holds, by the model's raw inputs (numbers, NaN where missing; texts, "" where missing);
# how it is answered, 1.0 for odd or 0.0 for usual, or None: the model answers, and a person looks;
# why, in words for the flags. For example:
#   RULES = {"minors": (lambda rows: rows["entity_age"] < 18, 1.0, "people under 18 may buy nothing")}
RULES: dict[str, tuple[Any, Any, str]] = {}


def decide(score: Array, decision: float) -> Array:
    """1.0 where the score reaches the threshold, so that the row is flagged, else 0.0, shape (n,)."""
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
    """One score as (decision, confidence, low, high), as `decide` says of many; nothing tells how sure it is."""
    return float(score >= decision), None, None, None


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
    """How many decisions there are: usual and flagged."""
    return 2


def unsure(score: float, decision: float, around: Around, margin: float) -> str:
    """Why a person should look at a score, or nothing: it is flagged, or less than `margin` below."""
    return odd_words(decision, margin) if score >= decision - margin else ""


def unsure_sql(decision: float, margin: float) -> tuple[str, str]:
    """What `unsure` says, as an SQL condition on the columns of `scored`, and the reason in words."""
    return f"scored.score >= {decision - margin!r}", odd_words(decision, margin)


def odd_words(decision: float, margin: float) -> str:
    """The reason why an odd row is looked at, in words."""
    return f"odder than {decision - margin:.3%} of the usual rows"


def table(score: Array, decision: float, around: Around, classes: Sequence[str]) -> dict[str, Any]:
    """Answers to many rows by column, each with n values."""
    return {"score": score, "decision": decide(score, decision)}


def reasons(columns: Mapping[str, Any], usual: Mapping[str, Any]) -> list[list[str]]:
    """The columns that stand out in each of n rows, the rarest value first: at most `MOST_REASONS`.

    A value stands out that at most `RARE` of the usual rows have, or a number that so few lie beyond, on both
    sides together (the dimensions of ECOD; Li et al., 2022). A row that is odd by a combination alone has none.

    Args:
        columns: raw column -> n values, as a model takes them.
        usual: of the manifest, raw column -> what training saw: the share that is `missing`, and the shares of
            a category by value, or `ends` of a number, ascending, and the share below each.
    """
    names = [name for name in usual if name in columns]
    n = len(columns[names[0]]) if names else 0
    look_up = one_by_one if n <= FEW_ROWS else tail_shares
    tails = np.array([look_up(columns[name], usual[name]) for name in names]).reshape(-1, n)
    answers = []
    for row in tails.T:
        rare = np.flatnonzero(row <= RARE)
        ranked = rare[np.argsort(row[rare], kind="stable")]
        answers.append([names[i] for i in ranked[:MOST_REASONS]])
    return answers


def tail_share(value: Any, usual: Mapping[str, Any]) -> float:
    """The share of the usual rows that have such a value, or one farther out; of one beyond all of them minus
    how far beyond, as a share of their range."""
    if "ends" not in usual:
        text = "" if value is None else str(value).strip()
        return float(usual["shares"].get(text, 0.0) if text else usual["missing"])
    if value is None or value != value:
        return float(usual["missing"])
    ends, shares = usual["ends"], usual["shares"]
    beyond = max(ends[0] - value, value - ends[-1])
    if beyond > 0:
        return float(-beyond / ((ends[-1] - ends[0]) or 1.0))
    number = float(value)
    below = shares[sum(map(number.__gt__, ends))]  # of the first end that is not below it
    above = 1 - shares[sum(map(number.__ge__, ends)) - 1]
    return float(2 * min(below, above))


def one_by_one(values: Sequence[Any], usual: Mapping[str, Any]) -> list[float]:
    """`tail_share` of each of n values."""
    return [tail_share(value, usual) for value in values]


def tail_shares(values: Sequence[Any], usual: Mapping[str, Any]) -> Array:
    """`tail_share` of each of n values, shape (n,)."""
    if "ends" not in usual:
        return np.array(one_by_one(values, usual))
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    ends, shares = np.array(usual["ends"]), np.array(usual["shares"])
    last = len(ends) - 1
    below = shares[np.minimum(np.searchsorted(ends, numbers, side="left"), last)]
    above = 1 - shares[np.maximum(np.searchsorted(ends, numbers, side="right") - 1, 0)]
    beyond = np.maximum(ends[0] - numbers, numbers - ends[-1])
    far = -beyond / ((ends[-1] - ends[0]) or 1.0)
    tails = np.where(beyond > 0, far, 2 * np.minimum(below, above))
    return np.where(np.isnan(numbers), usual["missing"], tails)
