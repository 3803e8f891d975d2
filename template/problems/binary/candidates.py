"""The models of a yes-or-no problem, by name; all can be exported."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightgbm import LGBMClassifier
from sklearn.base import ClassifierMixin
from sklearn.ensemble import BaggingClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from ..settings import Settings
from .export import Rounded

Array = np.ndarray
# Each prediction is a sum of one weight for each feature, which a person can follow
INTERPRETABLE = frozenset({"linear"})
CLASSIFIER = True
FOLDS_AT_ONCE = 2  # of a stack, side by side


class Boosted(Rounded, LGBMClassifier):
    """LightGBM whose thresholds are 32-bit floats."""


def make(name: str, settings: Settings, seed: int) -> ClassifierMixin:
    """An unfitted model.

    linear: logistic regression · lightgbm: boosted trees (Ke et al., 2017) · stacked: a logistic
    regression of the other two's scores (Wolpert, 1992), taken out of fold; the folds are runs of
    neighbouring rows, which keeps what is close in time together · bagged: the mean of eight
    smaller boosted models, each on its own draw of the rows (Breiman, 1996).
    """
    weight = class_weight(settings)
    trees: dict[str, Any] = {
        "class_weight": weight,
        "random_state": seed,
        "n_jobs": settings.modelling.threads,
    }
    linear = LogisticRegression(C=1.0, class_weight=weight, max_iter=500, tol=1e-3)
    match name:
        case "linear":
            return linear
        case "lightgbm":
            return Boosted(**Boosted.SHAPE, **trees)
        case "stacked":
            parts = [("linear", linear), ("lightgbm", Boosted(**Boosted.SHAPE, **trees))]
            last = LogisticRegression(C=10.0, class_weight=weight)
            folds: dict[str, Any] = {"cv": KFold(3), "n_jobs": FOLDS_AT_ONCE}
            return StackingClassifier(parts, last, stack_method="predict_proba", **folds)
        case "bagged":
            small = Boosted(**Boosted.SHAPE, **trees).set_params(n_estimators=50)
            return BaggingClassifier(small, n_estimators=8, max_samples=0.7, random_state=seed)
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
