"""The models of a yes-or-no problem, by name; all can be exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from lightgbm import LGBMClassifier
from sklearn.base import ClassifierMixin
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression

from ..settings import Settings
from .boosting import Rounded, Size, shape
from .folds import Fold

Array = np.ndarray
# Each prediction is a sum of one weight for each feature, which a person can follow
INTERPRETABLE = frozenset({"linear"})
CLASSIFIER = True
Trees = LGBMClassifier
FOLDS_AT_ONCE = 2  # of a stack, side by side


class Boosted(Rounded, LGBMClassifier):  # type: ignore[misc]  # `fit` is meant to differ
    """LightGBM whose thresholds are 32-bit floats."""


def objectives(settings: Settings) -> list[dict[str, Any]]:
    """What boosted trees may minimise, as LightGBM's parameters: the log loss, weighed by `goals.loss`."""
    return [{"class_weight": class_weight(settings)}]


def shifts(y: Array, settings: Settings) -> list[float | None]:
    """The scales that a label is tried on; None: as it is."""
    return [None]


def make(
    name: str, settings: Settings, seed: int, size: Size, folds: Sequence[Fold]
) -> ClassifierMixin:
    """An unfitted model.

    linear: logistic regression · lightgbm: boosted trees (Ke et al., 2017) · stacked: a logistic
    regression of the other two's scores (Wolpert, 1992), taken out of fold · bagged: the mean of
    eight boosted models, each on its own draw of the rows (Breiman, 1996) · additive: boosted trees
    of one question or two, a sum of simple curves (Friedman, 2001) · forest: the mean of deep trees
    on draws of rows and columns (Breiman, 2001).

    Args:
        size: of the boosted trees, as `fitting.find_sizes` found it.
        folds: of the rows that it will be fitted on, for the stack.
    """
    weight = class_weight(settings)
    linear = LogisticRegression(C=1.0, class_weight=weight, max_iter=500, tol=1e-3)
    trees = Boosted(**shape(settings.modelling.boosting, size, settings.modelling.threads, seed))
    match name:
        case "linear":
            return linear
        case "lightgbm" | "additive":
            return trees
        case "stacked":
            parts = [("linear", linear), ("lightgbm", trees)]
            last = LogisticRegression(C=10.0, class_weight=weight)
            return StackingClassifier(
                parts, last, stack_method="predict_proba", cv=list(folds), n_jobs=FOLDS_AT_ONCE
            )
        case "bagged":
            return BaggingClassifier(trees, n_estimators=8, max_samples=0.7, random_state=seed)
        case "forest":
            return RandomForestClassifier(
                settings.modelling.forest.trees,
                min_samples_leaf=settings.modelling.forest.min_leaf_rows,
                class_weight=weight,
                random_state=seed,
            )
        case _:
            raise ValueError(f"no candidate is named {name}")


def class_weight(settings: Settings) -> dict[int, float] | str | None:
    """What the loss makes of the classes: nothing, the same weight, or what an error costs."""
    costs = settings.goals.costs
    match settings.goals.loss:
        case "balanced":
            return "balanced"
        case "costs":
            no = costs.false_positive - costs.true_negative
            yes = costs.false_negative - costs.true_positive
            return {0: 2 * no / (no + yes), 1: 2 * yes / (no + yes)}
        case _:
            return None


def aims_at_mean(settings: Settings) -> bool:
    """Whether a score means an average: a probability does."""
    return True


def held_out_loss(y: Array, score: Array, settings: Settings) -> float:
    """The mean log loss: what sizes and calibrations are compared by."""
    sure = np.clip(score, 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(y == 1, np.log(sure), np.log(1 - sure))))


def predict(model: ClassifierMixin, matrix: Array) -> Array:
    """The probability of yes before calibration, shape (n,)."""
    return np.asarray(model.predict_proba(matrix)[:, 1], dtype=np.float64)


def register() -> None:
    """Tell skl2onnx how to export what it does not know."""
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes

    update_registered_converter(
        Boosted,
        "LightGbmLGBMClassifier",
        calculate_linear_classifier_output_shapes,
        convert_lightgbm,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )
