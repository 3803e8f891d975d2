"""YOURS: this folder says what the problem is, a yes or no. Here its names; the five files say the rest.

goals · data · features · models · monitoring, one for each segment, and decision.py, which the edge folder
carries too. Every command imports this file: it needs neither numpy nor LightGBM, and nothing of the package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = "binary"
CLASSES = True  # a label is one of a few values, and not a number
WIDE = False  # an answer has one score, and not one for each class
LISTED = False  # each row is judged and answered by itself
EXPLORES = True  # a decision can be drawn at random, for what is learnt from it
LEFT_OUT: dict[str, str] = {}  # commands that say nothing of this kind of problem -> why
CLAIMS = True  # a score says what will come, and can be held against it
HISTORIES = False  # no column holds the values of a series up to a moment
REASONS = False  # an answer names no columns that stand out
# Rows without a label are left out: there is nothing to learn from them
UNLABELLED: float | None = None
MetricName = Literal[
    "accuracy", "average_precision", "brier", "f1", "log_loss", "precision", "recall", "roc_auc"
]
# plain: log loss on the rows as they are · balanced: both classes weigh the same · costs: each
# row weighs what getting it wrong costs · focal, custom: of boosted trees; other models take plain
Loss = Literal["plain", "balanced", "costs", "focal", "custom"]
CalibrationName = Literal["none", "sigmoid", "isotonic"]
# Calibrations that put scores right again after rare classes were made to count more in a fit
REBALANCED: tuple[str, ...] = ("sigmoid", "isotonic")
Candidate = Literal[
    "linear", "lightgbm", "stacked", "bagged", "additive", "forest", "monotone", "mlp"
]
Decision = Annotated[float, Field(ge=0, le=1)]  # the score from which on it is a yes
DECISION_TYPE = "DOUBLE"  # in SQL: a decision is 1 or 0
# The probability of a yes to answer with when no model can
Score = Annotated[float, Field(ge=0, le=1)]
Expectation = Literal["up", "down"]  # how a score should move
TARGET_RANGE = {  # what each metric can be, and so what can be promised of it
    **dict.fromkeys(("accuracy", "average_precision", "brier", "f1"), (0.0, 1.0)),
    **dict.fromkeys(("precision", "recall", "roc_auc"), (0.0, 1.0)),
    "log_loss": (0.0, float("inf")),
}
# What is told of the labels of some rows: its key in reports, its words, and SQL that makes it of `_y`
FIGURE = ("positives", "share of positives", "avg(_y)")


class Costs(BaseModel):
    """What each kind of right and wrong decision costs, in one unit; a gain is negative."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    false_positive: Annotated[float, Field(gt=0)]
    false_negative: Annotated[float, Field(gt=0)]
    true_positive: Annotated[float, Field(le=0)]
    true_negative: Annotated[float, Field(le=0)]


class OwnTargets(BaseModel):
    """What is promised of this kind of problem alone: nothing."""


class OwnServing(BaseModel):
    """The settings of the service that this kind of problem alone has: none."""


OWN_RULES: dict[str, tuple[str, str]] = {}


class LabelKeys(BaseModel):
    """The keys of `data.label` that say which column, and what its values mean."""

    column: str
    positive: str | None  # the value that counts as yes


def agreements(settings: Any) -> Iterator[tuple[str, str]]:
    """What does not go together in settings that are well-formed: the key and what is wrong."""
    if settings.data.label.positive is None:
        yield "data.label.positive", "null is not allowed: write the value that counts as yes"


def answer_words(label: str, keys: dict[str, str], shift: str | None) -> dict[str, str | None]:
    """What the model card says of an answer.

    Args:
        label: the label's column; keys: of `data.label`, as texts; shift: the decision, as a text.

    Returns:
        answer: what a score means · unit and shift: for a number only.
    """
    chance = f"a score from 0 to 1: the higher it is, the likelier {label} is {keys['positive']}"
    return {"answer": chance, "unit": None, "shift": None}
