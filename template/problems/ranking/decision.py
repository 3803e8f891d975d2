"""YOURS: what is done with the scores of a list, in plain numpy: the same in training, in service and in the edge
folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Around = tuple[float, float] | None  # no interval is told of an order
# Rules before the model, wherever it answers; of several that hold of a row the first counts. Name -> of which of n rows it holds, by the model's raw inputs (numbers, NaN where missing; texts, "" where missing);
# None: the model answers, and a person looks; why, in words for the flags. For example:
#   RULES = {"minors": (lambda rows: rows["entity_age"] < 18, None, "what people under 18 are shown")}
RULES: dict[str, tuple[Any, Any, str]] = {}


def decide(score: Array, decision: float) -> Array:
    """What a list is ordered by, the highest first, shape (n,): the scores."""
    return score


def ranks(score: Array, lists: Array) -> Array:
    """The place of each row in its list, from 1 for the highest score; equal ones keep their order.

    Args:
        score: shape (n,); lists: what the rows of one list share, shape (n,).

    Returns:
        shape (n,), int64.
    """
    _, codes = np.unique(lists, return_inverse=True)
    order = np.lexsort((np.arange(len(score)), -score, codes))
    sizes = np.bincount(codes)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    slots = np.empty(len(score), np.int64)
    slots[order] = np.arange(len(score)) - starts + 1
    return slots


def varied(score: Array, topics: Sequence[Any], variety: float) -> Array:
    """The places of one list's rows where variety counts: maximal marginal relevance (Carbonell and Goldstein, 1998).

    Each place goes to the row with the most of (1 - variety) x score - variety x share of the rows above with
    its topic; scores are stretched to 0 to 1.

    Args:
        score: shape (n,); topics: of the same rows.

    Returns:
        shape (n,), int64, from 1.
    """
    span = np.ptp(score)
    worth = (1 - variety) * ((score - score.min()) / span if span else np.zeros(len(score)))
    _, codes = np.unique(np.array([str(topic) for topic in topics]), return_inverse=True)
    above = np.zeros(int(codes.max()) + 1)
    slots, left = np.zeros(len(score), np.int64), np.ones(len(score), bool)
    for slot in range(1, len(score) + 1):
        value = np.where(left, worth - variety * above[codes] / max(1, slot - 1), -np.inf)
        row = int(np.argmax(value))
        slots[row], left[row] = slot, False
        above[codes[row]] += 1
    return slots


def swapped(slots: Array, share: float, draws: Array) -> tuple[Array, Array]:
    """The places of one list after some neighbours changed places, and the chance of each to come out there.

    Pairs begin at the first place or at the second, as the first draw says; each changes places with the chance
    `share`. What stands where by chance tells how much places are looked at, at a small price (Joachims, Swaminathan
    and Schnabel, 2017).

    Args:
        slots: places, from 1, shape (n,); draws: uniform numbers from 0 to 1, shape (n + 1,).

    Returns:
        places and propensities, each of shape (n,).
    """
    n = len(slots)
    row_at = np.argsort(slots, kind="stable")
    first = int(draws[0] >= 0.5)
    for upper in range(first, n - 1, 2):
        if draws[upper + 1] < share:
            row_at[[upper, upper + 1]] = row_at[[upper + 1, upper]]
    fresh = np.empty(n, np.int64)
    fresh[row_at] = np.arange(1, n + 1)
    ends = (slots > 1).astype(float) + (slots < n)
    return fresh, np.where(fresh == slots, 1 - share / 2 * ends, share / 2)


def arranged(
    score: Array,
    decision: float,
    lists: Sequence[Any],
    topics: Sequence[Any],
    share: float = 0.0,
    draws: Array | None = None,
) -> tuple[Array, Array]:
    """The decisions of n rows that are answered together: the place of each in its list.

    Args:
        score: shape (n,); decision: how much variety counts.
        lists, topics: of these rows, what tells lists and kinds of items apart.
        share: of neighbours that change places; draws: uniform numbers from 0 to 1, shape (2n,), which say which.

    Returns:
        places, and the chance of each row to come out there, each of shape (n,).
    """
    keys = np.array([str(key) for key in lists])
    slots, propensity = ranks(score, keys), np.ones(len(score))
    if not decision and not share:
        return slots, propensity
    for key in np.unique(keys):
        rows = np.flatnonzero(keys == key)
        if decision:
            slots[rows] = varied(score[rows], [topics[row] for row in rows.tolist()], decision)
        if share and draws is not None:
            fresh = draws[rows[0] + len(score) : rows[0] + len(score) + 1], draws[rows]
            slots[rows], propensity[rows] = swapped(slots[rows], share, np.concatenate(fresh))
    return slots, propensity


def bands(columns: Mapping[str, Any], around: Any, scale: Mapping[str, Any]) -> Around:
    """How far below and above its score the truth of a row lies: the same of all rows.

    Args:
        columns: of the rows; scale: of the manifest, by which their widths differ.
    """
    return around


def judge(
    score: float, decision: float, around: Around
) -> tuple[float, float | None, float | None, float | None]:
    """One score as (decision, confidence, low, high): a row alone is the first of its list."""
    return 1.0, None, None, None


def headline(score: float, confidence: float | None) -> float:
    """The score that an answer shows."""
    return score


def by_class(score: float, classes: Sequence[str]) -> dict[str, float]:
    """The score of each class, of a problem that has several."""
    return {}


def named(decided: float, classes: Sequence[str]) -> float:
    """A decision as an answer has it: the rank."""
    return int(decided)


def choices(decision: float) -> int:
    """How many decisions there are; 0: they cannot be counted."""
    return 0


def unsure(score: float, decision: float, around: Around, margin: float) -> str:
    """Why a person should look at a score, or nothing: of an order, nothing is."""
    return ""


def unsure_sql(decision: float, margin: float) -> tuple[str, str]:
    """What `unsure` says, as an SQL condition on the columns of `scored`, and the reason in words."""
    return "false", ""


def table(score: Array, decision: float, around: Around, classes: Sequence[str]) -> dict[str, Any]:
    """Answers to many rows by column, each with n values; `arranged` then says the ranks in their lists."""
    return {"score": score, "decision": np.ones(len(score))}


def reasons(columns: Mapping[str, Any], usual: Mapping[str, Any]) -> list[list[str]]:
    """The columns that stand out in each row; a score here says nothing of them."""
    return []
