"""YOURS: this folder says what the problem is, the order of a list. Here its names; the five files say the rest.

goals · data · features · models · monitoring, one for each segment, and decision.py, which the edge folder
carries too. Every command imports this file: it needs neither numpy nor LightGBM, and nothing of the package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

NAME = "ranking"
CLASSES = False  # a label is a number: a click (1 or 0) or a grade
WIDE = False  # an answer has one score
LISTED = True  # rows belong to lists, and are split, judged, routed and answered by list
# Commands that say nothing of this kind of problem -> why
LEFT_OUT = {
    "learn": "what is clicked depends on where it stood; `retrain` learns from whole lists, which tell how much",
    "label audit": "what an item is worth hangs on its list, so no row's score says that its label is wrong",
    "label responses": "an item without a click is an answer too, and who looks at which place is corrected for",
    "label functions": "a rule says of a row nothing that places it in its list",
    "unlabelled rows": "what an item is worth hangs on its list, and no model says it of a row",
    "young rows": "a list is known when all of its rows are, so none of them is learnt from before",
}
CLAIMS = True  # a score says what a row gains, and can be held against it
HISTORIES = False  # no column holds the values of a series up to a moment
REASONS = False  # an answer names no columns that stand out
# Rows without a label are left out: there is nothing to learn from them
UNLABELLED: float | None = None
EXPLORES = True  # neighbours of a list can change places, for what is learnt from it
# clicks_ndcg_5 takes clicks as they are: shown beside the others, never to be decided on
MetricName = Literal[
    "clicks_ndcg_5", "coverage_5", "diversity_5", "map", "mrr", "ndcg_3", "ndcg_5", "ndcg_10",
    "new_items_5", "recall_3", "recall_5", "recall_10",
]  # fmt: skip
Loss = Literal["clicks"]  # what was clicked, where it was shown
CalibrationName = Literal["none", "line", "curve"]
REBALANCED: tuple[str, ...] = ()  # calibrations of what balances classes: there are none
Candidate = Literal["linear", "lightgbm", "lambdarank", "additive", "forest"]
# How much variety counts in an order beside the scores (MMR); 0: scores alone
Decision = Annotated[float, Field(ge=0, lt=1)]
DECISION_TYPE = "DOUBLE"  # in SQL: a decision is a rank
# The score to answer with when no model can: rows that share it keep the order in which they came
Score = Annotated[float, Field(allow_inf_nan=False)]
Expectation = Literal["up", "down"]  # how a score should move
# What each metric can be, and so what can be promised of it
TARGET_RANGE = dict.fromkeys(get_args(MetricName), (0.0, 1.0)) | {"diversity_5": (1.0, 5.0)}
# What is told of the labels of some rows: its key in reports, its words, and SQL that makes it of `_y`
FIGURE = ("mean", "mean label", "avg(_y)")


class Costs(BaseModel):
    """What a list is worth, in one unit of money or utility."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    click: Annotated[float, Field(gt=0)]  # one at the top; further down it counts by its discount


class OwnTargets(BaseModel):
    """What is promised of this kind of problem alone: nothing."""


class Retrieval(BaseModel):
    """How POST /recommend finds the items that are then ranked."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    source: Literal["popularity", "nearest"]
    count: Annotated[int, Field(ge=1, le=100_000)]
    file: str | None
    by: str | None  # the column of a request whose nearest items are looked up
    show: Annotated[int, Field(ge=1, le=100_000)] | None

    @field_validator("file")
    @classmethod
    def _is_a_path(cls, file: str | None) -> str | None:
        if file is not None and not (file.strip() and file.isprintable()):
            raise ValueError(f"{file!r:.80} is not allowed: write the path of a file")
        return file

    @model_validator(mode="after")
    def _complete(self) -> Retrieval:
        if self.source == "nearest" and not (self.file and self.by):
            raise ValueError("source: nearest needs file, of the nearest items, and by, a column")
        return self


class OwnServing(BaseModel):
    """The settings of the service that this kind of problem alone has."""

    retrieval: Retrieval | None = None  # None: there is no POST /recommend


OWN_RULES: dict[str, tuple[str, str]] = {}


class LabelKeys(BaseModel):
    """The keys of `data.label` that say which column, and what stands in the others of a list."""

    column: str
    list: str | None  # null: each row is by itself, and in a request all are one list
    item: str | None  # what is ranked; coverage and new items are counted by it
    topic: str | None  # what an item is about; diversity is counted by it
    position: str | None  # where the row was shown, from 1; null: it does not matter for the label
    random: str | None  # whether the list was shown in random order
    propensity: str | None  # the chance that the row was looked at, where it is known


def agreements(settings: Any) -> Iterator[tuple[str | tuple[str, ...], str]]:
    """What does not go together in settings that are well-formed: the key and what is wrong."""
    label, columns = settings.data.label, settings.data.schema_.columns
    relevance = {
        "list": ("category", "text", "number"), "item": ("category", "text", "number"),
        "topic": ("category", "text"), "position": ("number",), "random": ("bool", "number"),
        "propensity": ("number",),
    }  # fmt: skip
    features = settings.features.catalogue.items()
    used = {feature.column or name for name, feature in features if feature.use and feature.known}
    used |= {raw for _, feature in features if feature.use for raw in feature.cross or ()}
    for key, types in relevance.items():
        name = getattr(label, key)
        if name is None:
            continue
        if name not in columns or columns[name].type not in types:
            reason = (
                f"{name!r:.80} is no column of data.schema.columns that is a {' or '.join(types)}"
            )
            yield f"data.label.{key}", reason
        elif columns[name].personal and settings.data.personal == "drop":
            yield f"data.label.{key}", f"{name!r:.80} is personal and data.personal drops it"
        elif name in used and key in ("list", "position", "random", "propensity"):
            reason = "is not known before the list is shown; set known: false"
            yield ("features", "catalogue", name), f"{name} says how it was shown, and {reason}"
    if label.position and not label.random and not label.propensity:
        reason = (
            "the chance to be seen cannot be told: name random or propensity, or position: null"
        )
        yield "data.label.position", reason
    yield from _retrieval_fits(settings)


def _retrieval_fits(settings: Any) -> Iterator[tuple[str, str]]:
    """What does not go together in how items are retrieved: the key and what is wrong."""
    label, columns = settings.data.label, settings.data.schema_.columns
    retrieval = settings.serving.retrieval if settings.serving else None
    if retrieval is None or label.item is None:
        return
    if retrieval.count > (limit := settings.serving.limits.rows):
        reason = f"{retrieval.count} rows are more than a request may have: {limit} (serving.limits.rows)"
        yield "serving.retrieval.count", reason
    if retrieval.source != "nearest":
        return
    name, types = retrieval.by, ("category", "text", "number")
    if name not in columns or columns[name].type not in types:
        reason = f"{name!r:.80} is no column of data.schema.columns that is a {' or '.join(types)}"
        yield "serving.retrieval.by", reason
    elif columns[name].personal and settings.data.personal == "drop":
        yield "serving.retrieval.by", f"{name!r:.80} is personal and data.personal drops it"
    elif name in (label.item, label.topic, label.column, label.time):
        yield "serving.retrieval.by", f"{name} differs by item; name what a request says"


def answer_words(label: str, keys: dict[str, str], shift: str | None) -> dict[str, str | None]:
    """What the model card says of an answer.

    Args:
        label: the label's column; keys: of `data.label`, as texts; shift: the decision, as a text.

    Returns:
        answer: what a score means · unit: of the tests of behaviour · shift: to what to plan with.
    """
    answer = f"a rank in its list and the score that it follows: the {label} expected at the top"
    return {"answer": answer, "unit": label, "shift": None}
