"""YOURS: this folder says what the problem is, a number. Here its names; the five files say the rest.

goals · data · features · models · monitoring, one for each segment, and decision.py, which the edge folder
carries too. Every command imports this file: it needs neither numpy nor LightGBM, and nothing of the package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = "regression"
CLASSES = False  # a label is a number, and not one of a few values
WIDE = False  # an answer has one score, and not one for each class
LISTED = False  # each row is judged and answered by itself
EXPLORES = False  # a number cannot be drawn at random
LEFT_OUT = {  # commands that say nothing of this kind of problem -> why
    "label functions": "rules that vote need a label of some values, and an amount has none",
    "unlabelled rows": "what a model is sure of is a label of some values, and an amount has none",
}
CLAIMS = True  # a score says what will come, and can be held against it
HISTORIES = False  # no column holds the values of a series up to a moment
REASONS = False  # an answer names no columns that stand out
# Rows without a label are left out: there is nothing to learn from them
UNLABELLED: float | None = None
MetricName = Literal["bias", "mae", "mape", "r2", "rmse"]
# metric: the one that goals.metric asks for, the median for mae and mape, else the mean · squared:
# the mean · absolute: the median · quantile: the quantile that the costs ask for · custom: of boosted
# trees; other models take squared
Loss = Literal["metric", "squared", "absolute", "quantile", "custom"]
CalibrationName = Literal["none", "sigmoid", "isotonic"]
REBALANCED: tuple[str, ...] = ()  # calibrations of what balances classes: there are none
Candidate = Literal["linear", "lightgbm", "stacked", "bagged", "additive", "forest", "monotone"]
Decision = Annotated[float, Field(allow_inf_nan=False)]  # what is added to the prediction
DECISION_TYPE = "DOUBLE"  # in SQL: a decision is a number
# The prediction to answer with when no model can
Score = Annotated[float, Field(allow_inf_nan=False)]
Expectation = Literal["up", "down"]  # how a prediction should move
TARGET_RANGE = {  # what each metric can be, and so what can be promised of it
    **dict.fromkeys(("mae", "mape", "rmse"), (0.0, float("inf"))),
    "bias": (-float("inf"), float("inf")),
    "r2": (-float("inf"), 1.0),
}
# What is told of the labels of some rows: its key in reports, its words, and SQL that makes it of `_y`
FIGURE = ("mean", "mean label", "avg(_y)")


class Costs(BaseModel):
    """What one unit too much and one unit too little cost, in one unit of money or utility."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    over_prediction: Annotated[float, Field(gt=0)]
    under_prediction: Annotated[float, Field(gt=0)]


class OwnTargets(BaseModel):
    """What is promised of this kind of problem alone: nothing."""


class OwnServing(BaseModel):
    """The settings of the service that this kind of problem alone has: none."""


OWN_RULES: dict[str, tuple[str, str]] = {}


class LabelKeys(BaseModel):
    """The keys of `data.label` that say which column, and what its values mean."""

    column: str
    positive: str | None  # null: no value of a number counts as yes


def agreements(settings: Any) -> Iterator[tuple[str, str]]:
    """What does not go together in settings that are well-formed: the key and what is wrong."""
    if settings.data.label.positive is not None:
        yield "data.label.positive", "a number has no value that counts as yes; write null"


def answer_words(label: str, keys: dict[str, str], shift: str | None) -> dict[str, str | None]:
    """What the model card says of an answer.

    Args:
        label: the label's column; keys: of `data.label`, as texts; shift: the decision, as a text.

    Returns:
        answer: what a score means · unit: of the tests of behaviour · shift: how it becomes what to plan with.
    """
    answer = f"a number: the {label} that it expects"
    planned = None if shift is None else f"plus {shift}"
    return {"answer": answer, "unit": label, "shift": planned}
