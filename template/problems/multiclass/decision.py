"""YOURS: what is done with scores, in plain numpy: the same in training, in service and in the edge folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Around = tuple[float, float] | None  # of a number only: how far around a score the truth may lie
# The cost of each decision (column) by true class (row), shape (classes, classes)
CostMatrix = Sequence[Sequence[float]]
# Rules before the model, wherever it answers; of several that hold of a row the first counts. Name -> of which of n rows it holds, by the model's raw inputs (numbers, NaN where missing; texts, "" where missing);
# how it is answered, a class, or None: the model answers, and a person looks;
# why, in words for the flags. For example:
#   RULES = {"minors": (lambda rows: rows["entity_age"] < 18, "billing", "people under 18 always go there")}
RULES: dict[str, tuple[Any, Any, str]] = {}


def expected_costs(score: Array, decision: CostMatrix) -> Array:
    """The cost to be expected of each decision, shape (n, classes), of scores of that shape.

    Summed class by class, so that a row has the same bits alone and among others.
    """
    costs = np.zeros(np.shape(score))
    for truth, row in enumerate(decision):
        costs += np.asarray(score)[:, truth, None] * np.asarray(row)
    return costs


def decide(score: Array, decision: CostMatrix) -> Array:
    """The index of the class that costs least, shape (n,) (Elkan, 2001); of equal ones the first."""
    return expected_costs(score, decision).argmin(axis=1).astype(np.float64)


def arranged(
    score: Array,
    decision: Any,
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
    score: Sequence[float], decision: CostMatrix, around: Around
) -> tuple[float, float | None, float | None, float | None]:
    """One row's scores as (decision, confidence, low, high), as `decide` and `sureness` say of many."""
    index = int(decide(np.array([score]), decision)[0])
    return float(index), score[index], None, None


def sureness(score: Array, decision: CostMatrix, around: Around) -> dict[str, Array]:
    """What else an answer says, by name, each of shape (n,): the chance that the decision is right."""
    return {"confidence": chosen(score, decide(score, decision))}


def chosen(score: Array, decided: Array) -> Array:
    """The score of the class that was decided on, shape (n,)."""
    return np.take_along_axis(score, decided.astype(np.int64)[:, None], axis=1)[:, 0]


def headline(score: Sequence[float], confidence: float | None) -> float:
    """The one score that an answer shows: that of the class decided on."""
    return max(score) if confidence is None else confidence


def by_class(score: Sequence[float], classes: Sequence[str]) -> dict[str, float]:
    """One row's score of each class."""
    return dict(zip(classes, score, strict=True))


def named(decided: float, classes: Sequence[str]) -> str:
    """A decision as an answer has it: the name of the class."""
    return classes[int(decided)]


def choices(decision: CostMatrix) -> int:
    """How many decisions there are."""
    return len(decision)


def unsure(score: Sequence[float], decision: CostMatrix, around: Around, margin: float) -> str:
    """Why a person should look at a row, or nothing: the next best class costs hardly more."""
    lowest, second = np.partition(expected_costs(np.array([score]), decision)[0], 1)[:2]
    return near_words(margin) if second - lowest < margin else ""


def unsure_sql(decision: CostMatrix, margin: float) -> tuple[str, str]:
    """What `unsure` says, as an SQL condition on the columns of `scored`, and the reason in words."""
    costs = [
        " + ".join(
            f"scored.scores[{truth + 1}] * {row[decided]!r}" for truth, row in enumerate(decision)
        )
        for decided in range(len(decision))
    ]
    ranked = f"list_sort([{', '.join(costs)}])"
    return f"{ranked}[2] - {ranked}[1] < {margin!r}", near_words(margin)


def near_words(margin: float) -> str:
    """The reason why a row with a close second class is looked at, in words."""
    return f"another class is expected to cost less than {margin:g} more"


def table(
    score: Array, decision: CostMatrix, around: Around, classes: Sequence[str]
) -> dict[str, Any]:
    """Answers to many rows by column, each with n values; `scores` has shape (n, classes)."""
    decided = decide(score, decision)
    confidence = chosen(score, decided)
    names = np.array(classes, dtype=object)[decided.astype(np.int64)]
    return {"score": confidence, "decision": names, "confidence": confidence, "scores": score}


def reasons(columns: Mapping[str, Any], usual: Mapping[str, Any]) -> list[list[str]]:
    """The columns that stand out in each row; a score here says nothing of them."""
    return []
