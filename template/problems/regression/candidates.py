"""The models of a problem with a number for an answer, by name; all can be exported."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightgbm import LGBMRegressor
from sklearn.base import RegressorMixin
from sklearn.ensemble import BaggingRegressor, StackingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from ..settings import Settings
from .export import Rounded

Array = np.ndarray
# Each prediction is a sum of one weight for each feature, which a person can follow
INTERPRETABLE = frozenset({"linear"})
CLASSIFIER = False
FOLDS_AT_ONCE = 2  # of a stack, side by side


class Boosted(Rounded, LGBMRegressor):
    """LightGBM whose thresholds are 32-bit floats."""


class QuantileRidge(Ridge):
    """A linear model of a quantile, found by a row of weighted ridge regressions.

    The pinball loss is bounded from above by a parabola through each residual, which is minimised
    exactly, and so on (MM algorithm; Hunter and Lange, Quantile regression via an MM algorithm,
    2000). Takes every row, where a linear program would take minutes.
    """

    def __init__(self, share: float = 0.5, alpha: float = 1.0, rounds: int = 25) -> None:
        super().__init__(alpha=alpha)
        self.share = share
        self.rounds = rounds

    def fit(self, x: Array, y: Array, sample_weight: Array | None = None) -> QuantileRidge:
        own = np.ones(len(y)) if sample_weight is None else sample_weight
        super().fit(x, y, sample_weight=own)
        floor = 1e-3 * (np.std(y) or 1.0)
        for _ in range(self.rounds):
            error = y - super().predict(x)
            width = np.maximum(np.abs(error), floor)
            # The parabola's lowest point lies beside the truth where over and under weigh unlike
            super().fit(x, y + (2 * self.share - 1) * width, sample_weight=own / width)
        return self


def make(name: str, settings: Settings, seed: int) -> RegressorMixin:
    """An unfitted model.

    linear: ridge regression, of a quantile where the loss asks for one · lightgbm: boosted trees
    (Ke et al., 2017) · stacked: a ridge regression of the other two's predictions (Wolpert, 1992),
    taken out of fold; the folds are runs of neighbouring rows, which keeps what is close in time
    together · bagged: the mean of eight smaller boosted models, each on its own draw of the rows
    (Breiman, 1996).
    """
    share = quantile(settings)
    trees: dict[str, Any] = {"random_state": seed, "n_jobs": settings.modelling.threads}
    if share is not None:
        trees |= {"objective": "quantile", "alpha": share}
    linear = Ridge(alpha=1.0) if share is None else QuantileRidge(share)
    match name:
        case "linear":
            return linear
        case "lightgbm":
            return Boosted(**Boosted.SHAPE, **trees)
        case "stacked":
            parts = [("linear", linear), ("lightgbm", Boosted(**Boosted.SHAPE, **trees))]
            last = Ridge(alpha=1.0) if share is None else QuantileRidge(share)
            return StackingRegressor(parts, last, cv=KFold(3), n_jobs=FOLDS_AT_ONCE)
        case "bagged":
            small = Boosted(**Boosted.SHAPE, **trees).set_params(n_estimators=50)
            return BaggingRegressor(small, n_estimators=8, max_samples=0.7, random_state=seed)
        case _:
            raise ValueError(f"no candidate is named {name}")


def quantile(settings: Settings) -> float | None:
    """The quantile that the loss asks for; None for the mean."""
    costs = settings.goals.costs
    match settings.goals.loss:
        case "absolute":
            return 0.5
        case "quantile":
            return costs.under_prediction / (costs.under_prediction + costs.over_prediction)
        case _:
            return None


def predict(model: RegressorMixin, matrix: Array) -> Array:
    """The prediction before calibration, shape (n,)."""
    return np.asarray(model.predict(matrix), dtype=np.float64).ravel()


def register() -> None:
    """Tell skl2onnx how to export what it does not know."""
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_regressor_output_shapes
    from skl2onnx.operator_converters.linear_regressor import convert_sklearn_linear_regressor

    shape = calculate_linear_regressor_output_shapes
    update_registered_converter(Boosted, "LightGbmLGBMRegressor", shape, convert_lightgbm)
    update_registered_converter(
        QuantileRidge, "LinearQuantileRidge", shape, convert_sklearn_linear_regressor
    )
