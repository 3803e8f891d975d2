"""YOURS: this folder says what the problem is, how a series goes on. Here its names; the five files say the rest.

goals · data · features · models · monitoring, one for each segment, and decision.py, which the edge folder
carries too. Every command imports this file: it needs neither numpy nor LightGBM, and nothing of the package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = "forecasting"
CLASSES = False  # a label is a number: what a series was at a later step
WIDE = False  # an answer has one score: what is expected at one step
LISTED = False  # each step of a path has an answer of its own
EXPLORES = False  # a number cannot be drawn at random
# Commands that say nothing of this kind of problem -> why
MEASURED = "what a series goes on to be is measured, and nobody has to say it"
LEFT_OUT = {
    "learn": "a forecast is learnt from whole courses, and the log has each only up to a moment: `retrain`",
    "label next": MEASURED,
    "label serve": MEASURED,
    "label quality": MEASURED,
    "label audit": MEASURED,
    "label functions": MEASURED,
    "unlabelled rows": MEASURED,
    "young rows": "what a series is at a step is there when the step is over, and not before",
    "label responses": MEASURED,
    "label compare": MEASURED,
    "label import": MEASURED,
    "label export": MEASURED,
    "reasons": "a forecast goes on from a course as a whole, and no column adds its share",
}
CLAIMS = True  # a score says what will come, and can be held against it
HISTORIES = True  # a column holds the values of a series up to the moment of the forecast
REASONS = False  # an answer names no columns that stand out
# Rows without a label are left out: there is nothing to learn from them
UNLABELLED: float | None = None
MetricName = Literal["bias", "mae", "mase", "rmse", "smape", "wape"]
# metric: the one that goals.metric asks for, the mean for bias and rmse, else the median · squared: the mean ·
# absolute: the median · quantile: the quantile that the costs ask for
Loss = Literal["metric", "squared", "absolute", "quantile"]
CalibrationName = Literal["none"]  # a forecast is on the scale of its series as it comes
REBALANCED: tuple[str, ...] = ()  # calibrations of what balances classes: there are none
Candidate = Literal["linear", "lightgbm", "combined", "additive", "forest"]
# What the forecast is multiplied with before it is planned with
Decision = Annotated[float, Field(ge=0, allow_inf_nan=False)]
DECISION_TYPE = "DOUBLE"  # in SQL: a decision is a number
# The forecast to answer with when no model can
Score = Annotated[float, Field(allow_inf_nan=False)]
Expectation = Literal["up", "down"]  # how a forecast should move
TARGET_RANGE = {  # what each metric can be, and so what can be promised of it
    **dict.fromkeys(("bias", "mae", "mase", "rmse", "wape"), (0.0, float("inf"))),
    "smape": (0.0, 200.0),
}
# What is told of the labels of some rows: its key in reports, its words, and SQL that makes it of `_y`
FIGURE = ("mean", "mean label", "avg(_y)")


class Costs(BaseModel):
    """What one unit too much and one unit too little cost, in one unit of money or utility."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    over_prediction: Annotated[float, Field(gt=0)]
    under_prediction: Annotated[float, Field(gt=0)]


class OwnTargets(BaseModel):
    """What is promised of this kind of problem alone."""

    coverage_gap: Annotated[float, Field(ge=0, le=1)] | None


# Their words for a reader, and whether the figure must reach them or stay below


class OwnServing(BaseModel):
    """The settings of the service that this kind of problem alone has: none."""


OWN_RULES: dict[str, tuple[str, str]] = {
    "coverage_gap": (
        "how far the share of outcomes inside their interval is from its level, worst step ahead",
        "at most",
    )
}


class LabelKeys(BaseModel):
    """The keys of `data.label` that say which column is forecast, and how its rows make series."""

    column: str
    layout: Literal["long", "single", "dates", "series"]  # of the source
    joined: tuple[str, ...]  # the source's columns whose values make `series` together
    series: str | None  # null: each row is an example by itself, whose history it holds
    step: Literal["hour", "day", "week", "month", "quarter", "year"]
    ahead: Annotated[int, Field(ge=1, le=400)]
    season: Annotated[int, Field(ge=1, le=400)]
    stride: Annotated[int, Field(ge=1, le=400)]
    gaps: Literal["missing", "zero"]
    repeated: Literal["last", "sum", "mean"]
    history: str | None  # the columns that are made of them
    horizon: str | None
    target_time: str | None
    summed_by: tuple[str, ...]  # by whose values sums of forecasts are judged, beside their total


# The keys of `data.label` that name columns, and which types these may have
COLUMN_TYPES = {
    "series": ("category",), "history": ("history",), "horizon": ("number",), "target_time": ("time",),
    "summed_by": ("category",),
}  # fmt: skip


def agreements(settings: Any) -> Iterator[tuple[str | tuple[str, ...], str]]:
    """What does not go together in settings that are well-formed: the key and what is wrong."""
    data, label = settings.data, settings.data.label
    columns = data.schema_.columns
    for key, name in _named_columns(label):
        types = COLUMN_TYPES[key]
        if name not in columns or columns[name].type not in types:
            reason = (
                f"{name!r:.80} is no column of data.schema.columns that is a {' or '.join(types)}"
            )
            yield f"data.label.{key}", reason
        elif columns[name].personal and data.personal == "drop":
            yield f"data.label.{key}", f"{name!r:.80} is personal and data.personal drops it"
    histories = [name for name, column in columns.items() if column.type == "history"]
    if len(histories) > 1 or (histories and label.history != histories[0]):
        yield "data.label.history", f"name the one column of type history: {', '.join(histories)}"
    if label.history and label.horizon is None:
        yield "data.label.horizon", "name the number column with the steps ahead of each row"
    features = [f for f in settings.features.catalogue.items() if f[1].use and f[1].known]
    read = {column for n, f in features for column in f.cross or (f.column or n,)}
    for name in sorted({label.history, label.horizon} & {*columns} - read):
        reason = f"no feature uses {name!r:.80}, and a forecast is a multiple of its series' level"
        yield "features.catalogue", reason
    if label.series is None:
        if label.summed_by:
            yield (
                "data.label.summed_by",
                "needs data.label.series: rows that make no series have no sums",
            )
        return
    if label.history is None:
        yield "data.label.history", "name the column of type history that each row's past goes to"
    if data.schema_.time is None:
        yield "data.schema.time", "needs the column with the moment of each value of a series"
    length = columns[label.history].length if label.history in columns else None
    if length is not None and length < label.season:
        yield "data.label.season", f"a season of {label.season} steps needs a history as long"


def _named_columns(label: LabelKeys) -> Iterator[tuple[str, str]]:
    """Each key of `COLUMN_TYPES` with each column that it names."""
    for key in COLUMN_TYPES:
        names = getattr(label, key)
        for name in names if isinstance(names, tuple) else filter(None, (names,)):
            yield key, name


def answer_words(label: str, keys: dict[str, str], shift: str | None) -> dict[str, str | None]:
    """What the model card says of an answer.

    Args:
        label: the label's column; keys: of `data.label`, as texts; shift: the decision, as a text.

    Returns:
        answer: what a score means · unit: of the tests of behaviour · shift: how it becomes what to plan with.
    """
    answer = f"a number: the {label} of a series that it expects at a step ahead"
    planned = None if shift is None else f"times {shift}"
    return {"answer": answer, "unit": label, "shift": planned}
