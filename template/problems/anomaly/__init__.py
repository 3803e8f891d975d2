"""YOURS: this folder says what the problem is, what is odd. Here its names; the five files say the rest.

goals · data · features · models · monitoring, one for each segment, and decision.py, which the edge folder
carries too. Every command imports this file: it needs neither numpy nor LightGBM, and nothing of the package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = "anomaly"
CLASSES = True  # a label is one of a few values, and not a number
WIDE = False  # an answer has one score, and not one for each class
LISTED = False  # each row is judged and answered by itself
EXPLORES = True  # a decision can be drawn at random, for what is learnt from it
# Commands that say nothing of this kind of problem -> why
LEFT_OUT = {
    "learn": "what is odd is learnt from all rows, and labels teach it nothing",
    "compress": "each method is needed whole: of fewer trees or coarser distances a score would mean another share",
    "curves": "some thousand rows show what is usual, and without labels of all rows no curve tells what more would bring",
    "tune": "what is odd is learnt without labels, and no fold tells which hyper-parameters find more of it",
    "drill label": "people label what is flagged, so a share among labels says nothing of all rows",
    "drill concept": "a score claims no outcome that could change",
    "label audit": "what is odd is learnt without labels, so a score that differs from a label proves neither wrong",
    "label responses": "people label what was flagged, so who gets no label was chosen and not asked",
    "label functions": "what is odd is learnt without labels, so rules have none to give; a rule is the baseline here",
    "unlabelled rows": "what is odd is learnt without labels, so rows without one are learnt from already",
    "young rows": "what is odd is learnt without labels, so young rows are learnt from already",
}
CLAIMS = False  # a score says how odd a row is, which nothing that comes can prove wrong
HISTORIES = False  # no column holds the values of a series up to a moment
REASONS = True  # an answer names the columns that stand out
# The number in place of a label that a row has not: models learn from such rows too, and figures leave them out
UNLABELLED: float | None = 2.0
MetricName = Literal["average_precision", "precision", "recall", "roc_auc"]
Loss = Literal["plain"]  # what is odd is learnt without labels
# share: of the rows that models are judged by, how many are less odd
CalibrationName = Literal["none", "share"]
REBALANCED: tuple[str, ...] = ()  # calibrations of what balances classes: there are none
Candidate = Literal["isolation_forest", "nearest", "ecod", "pca"]
# The alert budget: which share of the rows people can look at
Decision = Annotated[float, Field(gt=0, le=0.5)]
DECISION_TYPE = "DOUBLE"  # in SQL: a decision is 1 or 0
# The score to answer with when no model can
Score = Annotated[float, Field(ge=0, le=1)]
Expectation = Literal["up", "down"]  # how a score should move
# What each metric can be, and so what can be promised of it
TARGET_RANGE = dict.fromkeys(("average_precision", "precision", "recall", "roc_auc"), (0.0, 1.0))
# What is told of the labels of some rows: its key in reports, its words, and SQL that makes it of `_y`
FIGURE = ("odd", "share of odd rows among the labelled", "coalesce(avg(_y) FILTER (_y < 2), 0)")


class Costs(BaseModel):
    """What each kind of right and wrong decision costs, in one unit; a gain is negative."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    false_positive: Annotated[float, Field(gt=0)]
    false_negative: Annotated[float, Field(gt=0)]
    true_positive: Annotated[float, Field(le=0)]
    true_negative: Annotated[float, Field(le=0)]


class OwnTargets(BaseModel):
    """What is promised of this kind of problem alone."""

    stability: Annotated[float, Field(ge=0, le=1)] | None


# Their words for a reader, and whether the figure must reach them or stay below


class OwnServing(BaseModel):
    """The settings of the service that this kind of problem alone has: none."""


OWN_RULES = {
    "stability": ("alerts on which the models of two halves of the rows agree", "at least")
}


class LabelKeys(BaseModel):
    """The keys of `data.label` that say which column, and what its values mean."""

    column: str
    positive: str | None  # the value that counts as odd


def agreements(settings: Any) -> Iterator[tuple[str, str]]:
    """What does not go together in settings that are well-formed: the key and what is wrong."""
    if settings.data.label.positive is None:
        yield "data.label.positive", "null is not allowed: write the value that counts as odd"
    if settings.goals.decision == "costs":
        fault = "costs would take labels of all rows: write the share that people can look at"
        yield "goals.decision", f"{fault}, such as 0.02"
    for target, why in (
        ("calibration_error", "a score is a share of rows, and no chance that could come true"),
        ("confidence", "nothing tells how sure it is that a row is odd"),
    ):
        if getattr(settings.goals.targets, target) is not None:
            yield f"goals.targets.{target}", f"{why}; write null"


def answer_words(label: str, keys: dict[str, str], shift: str | None) -> dict[str, str | None]:
    """What the model card says of an answer.

    Args:
        label: the label's column; keys: of `data.label`, as texts; shift: the decision, as a text.

    Returns:
        answer: what a score means · unit and shift: for a number only.
    """
    share = "a score from 0 to 1: the share of usual rows that are less odd; no chance of anything"
    return {"answer": share, "unit": None, "shift": None}
