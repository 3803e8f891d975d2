"""YOURS: this folder says what the problem is, one of several classes. Here its names; the five files say the rest.

goals · data · features · models · monitoring, one for each segment, and decision.py, which the edge folder
carries too. Every command imports this file: it needs neither numpy nor LightGBM, and nothing of the package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

NAME = "multiclass"
CLASSES = True  # a label is one of a few values, and not a number
WIDE = True  # an answer has a score for each class, and not one score
LISTED = False  # each row is judged and answered by itself
EXPLORES = True  # a decision can be drawn at random, for what is learnt from it
LEFT_OUT: dict[str, str] = {}  # commands that say nothing of this kind of problem -> why
CLAIMS = True  # a score says what will come, and can be held against it
HISTORIES = False  # no column holds the values of a series up to a moment
REASONS = False  # an answer names no columns that stand out
# Rows without a label are left out: there is nothing to learn from them
UNLABELLED: float | None = None
MOST_CLASSES = 100
MetricName = Literal["accuracy", "balanced_accuracy", "brier", "log_loss", "macro_f1", "top_k"]
# plain: log loss on the rows as they are · balanced: all classes weigh the same · costs: each
# row weighs what getting its class wrong costs on average · focal, custom: of boosted trees; other
# models take plain
Loss = Literal["plain", "balanced", "costs", "focal", "custom"]
CalibrationName = Literal["none", "temperature", "offsets"]
# Calibrations that put scores right again after rare classes were made to count more in a fit
REBALANCED: tuple[str, ...] = ("offsets",)
Candidate = Literal["linear", "lightgbm", "stacked", "bagged", "additive", "forest", "mlp"]
# Beside `costs`: the class with the highest score, whatever errors cost
Decision = Literal["likeliest"]
DECISION_TYPE = "VARCHAR"  # in SQL: a decision is the name of a class
ClassName = Annotated[str, Field(min_length=1)]
Score = ClassName  # the class to answer with when no model can
# Up or down, and the class whose score moves
Expectation = Annotated[str, Field(pattern="^(up|down) .+$")]
TARGET_RANGE = {  # what each metric can be, and so what can be promised of it
    **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "top_k"), (0.0, 1.0)),
    "brier": (0.0, 2.0),
    "log_loss": (0.0, float("inf")),
}
# What is told of the labels of some rows: its key in reports, its words, and SQL that makes it of `_y`
FIGURE = (
    "commonest",
    "share of the commonest class",
    "list_max(map_values(histogram(_y))) / count(_y)",
)


class Costs(BaseModel):
    """What a decision for a class costs, in one unit; a gain is negative.

    `pairs` has what differs: true class -> class that was decided on -> cost.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    wrong: Annotated[float, Field(gt=0)]
    right: Annotated[float, Field(le=0)]
    pairs: dict[ClassName, dict[ClassName, float]]
    _table: list[list[float]] = PrivateAttr(default_factory=list)

    @property
    def table(self) -> list[list[float]]:
        """The cost of each decision by true class, shape (classes, classes), in the order of the classes."""
        return self._table

    def settle(self, classes: tuple[str, ...]) -> Costs:
        """Fill in the table: row t, column d is a decision for class d where t is true; returns these costs."""
        self._table[:] = [
            [self.pairs.get(t, {}).get(d, self.right if t == d else self.wrong) for d in classes]
            for t in classes
        ]
        return self


class OwnTargets(BaseModel):
    """What is promised of this kind of problem alone: nothing."""


class OwnServing(BaseModel):
    """The settings of the service that this kind of problem alone has: none."""


OWN_RULES: dict[str, tuple[str, str]] = {}


class LabelKeys(BaseModel):
    """The keys of `data.label` that say which column, and what its values mean."""

    column: str
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2, max_length=MOST_CLASSES)]
    other: ClassName | None  # the class that every value which is not listed counts as

    @field_validator("classes")
    @classmethod
    def _in_order(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """Sorted, so that the order in which they are written changes no model."""
        if len({name.lower() for name in names}) < len(names):
            raise ValueError("two classes have the same name; upper and lower case do not matter")
        return tuple(sorted(names))


def agreements(settings: Any) -> Iterator[tuple[str, str]]:
    """Where settings name a class that `data.label.classes` has not: the key and what is wrong."""
    label, costs = settings.data.label, settings.goals.costs
    classes = label.classes
    allowed = f"one of data.label.classes ({', '.join(classes)[:200]})"
    if label.other is not None and label.other not in classes:
        yield "data.label.other", f"{label.other!r:.80} is not {allowed}"
    for truth, row in costs.pairs.items():
        for name in (truth, *row):
            if name not in classes:
                yield "goals.costs.pairs", f"{name!r:.80} is not {allowed}"
        for name, cost in row.items():
            if name == truth and cost > 0:
                yield (
                    "goals.costs.pairs",
                    f"{truth!r:.80} decided rightly costs {cost:g}; at most 0",
                )
    beliefs = {
        "modelling.evaluation.expectations": settings.modelling.evaluation.expectations,
        "features.hypotheses": settings.features.hypotheses,
    }
    for key, entries in beliefs.items():
        for column, expected in entries.items():
            if (name := expected.partition(" ")[2]) not in classes:
                yield f"{key}.{column}", f"{name!r:.80} is not {allowed}"
    if settings.serving and settings.serving.fallback not in classes:
        yield "serving.fallback", f"{settings.serving.fallback!r:.80} is not {allowed}"
    costs.settle(classes)


def answer_words(label: str, keys: dict[str, str], shift: str | None) -> dict[str, str | None]:
    """What the model card says of an answer.

    Args:
        label: the label's column; keys: of `data.label`, as texts; shift: the decision, as a text.

    Returns:
        answer: what a score means · unit and shift: for a number only.
    """
    chance = f"a score from 0 to 1 for each class of {label} ({keys['classes']}): how likely it is"
    return {"answer": chance, "unit": None, "shift": None}
