"""YOURS: the models by name, all of which can be exported: baselines, candidates, calibration.

The boosted trees come in ready, sized and seeded (modelling/boosting.py): only their use is chosen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from lightgbm import LGBMRegressor
from sklearn.base import RegressorMixin
from sklearn.ensemble import BaggingRegressor, RandomForestRegressor, StackingRegressor
from sklearn.linear_model import Ridge
from sklearn.tree import DecisionTreeRegressor

from .goals import aimed_quantile

if TYPE_CHECKING:
    import pandas as pd

    from ..settings import Settings

Array = np.ndarray
# Each prediction is a sum of one weight for each feature, which a person can follow
INTERPRETABLE = frozenset({"linear"})
Trees = LGBMRegressor
# Whose size each candidate takes; `additive` has its own shapes, one question a tree or two
SIZED = {"lightgbm": "boosted", "stacked": "boosted", "bagged": "boosted", "forest": "boosted",
         "additive": "additive", "linear": "linear", "monotone": "boosted"}  # fmt: skip
FOLDS_AT_ONCE = 2  # of a stack, side by side
SCALED = True  # whether a label is standardised before a model learns it
RELATIVE = False  # whether a score is exact to a share of its own size
OPTIONS: dict[str, Any] = {}  # of skl2onnx
OUTPUT = {"name": "score", "probability": False}  # as the manifest has it


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
        """Fit to x, shape (n, features), and y, shape (n,), whose rows have weights, shape (n,)."""
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        super().fit(x, y, sample_weight=weight)
        floor = 1e-3 * (np.std(y) or 1.0)
        for _ in range(self.rounds):
            error = y - super().predict(x)
            width = np.maximum(np.abs(error), floor)
            # The parabola's lowest point lies beside the truth where over and under weigh unlike
            super().fit(x, y + (2 * self.share - 1) * width, sample_weight=weight / width)
        return self


class QuantileTree(DecisionTreeRegressor):
    """A tree whose leaves answer with a quantile of their rows; None: with their mean."""

    def __init__(
        self,
        share: float | None = None,
        max_depth: int | None = None,
        min_samples_leaf: int = 1,
        random_state: int | None = None,
    ) -> None:
        super().__init__(
            max_depth=max_depth, min_samples_leaf=min_samples_leaf, random_state=random_state
        )
        self.share = share

    def fit(self, x: Array, y: Array, sample_weight: Array | None = None) -> QuantileTree:
        """Fit to x, shape (n, features), and y, shape (n,), whose rows have weights, shape (n,)."""
        super().fit(x, y, sample_weight)
        if self.share is not None:
            leaves = self.apply(x)
            for leaf in np.unique(leaves):
                rows = leaves == leaf
                weighed: dict[str, Any] = {}
                if sample_weight is not None:  # for which numpy has no interpolation
                    weighed = {"weights": sample_weight[rows], "method": "inverted_cdf"}
                self.tree_.value[leaf, 0, 0] = np.quantile(y[rows], self.share, **weighed)
        return self


def width(settings: Settings) -> int:
    """How many scores an answer has."""
    return 1


def floor(y: Array, n: int, settings: Settings, seed: int) -> Array:
    """One number for each of n rows, shape (n,): the training label's mean, or the quantile of the loss."""
    share = quantile(settings)
    return np.full(n, np.mean(y) if share is None else np.quantile(y, share))


def baseline(
    name: str, rows: int, settings: Settings, seed: int, names: Sequence[str] = ()
) -> DecisionTreeRegressor:
    """An unfitted baseline that can be exported and serve as the fallback.

    heuristic: the one best rule on one feature · simple: a tree of four questions. A leaf answers
    with the mean of its rows, or the quantile that the loss asks for.

    Args:
        rows: of training; a leaf holds at least a five-hundredth of them, and 20.
        names: of the features.
    """
    return QuantileTree(
        share=quantile(settings),
        max_depth={"heuristic": 1, "simple": 4}[name],
        min_samples_leaf=max(20, rows // 500),
        random_state=seed,
    )


def objectives(settings: Settings) -> list[dict[str, Any]]:
    """What boosted trees may minimise, as LightGBM's parameters.

    The loss that is asked for; for the median the squared error too, which is smoother and may
    still come out nearer: the one that does better on held-out rows is taken.
    """
    match quantile(settings):
        case None:
            return [{"objective": "regression"}]
        case 0.5:
            return [{"objective": "regression_l1"}, {"objective": "regression"}]
        case share:
            return [{"objective": "quantile", "alpha": share}]


def custom_loss(y: Array, score: Array, weight: Array | None) -> tuple[Array, Array]:
    """What boosted trees minimise for `goals.loss: custom`; write yours here. The pseudo-Huber loss (Charbonnier et al.,
    1994): squared near the truth, absolute beyond the label's spread.

    Args:
        y, score: the label and what is said of it, in the label's spread, on the log scale where that is tried, each
            of shape (n,); weight: how much each row counts, shape (n,); None: alike.

    Returns:
        the gradient and the second derivative of each row's loss by its score, each of shape (n,). Here in place of the
        second derivative its bound by a parabola, which no outlier brings to 0.
    """
    error, counts = score - y, 1.0 if weight is None else weight
    bend = 1 / np.sqrt(1 + error**2)
    return counts * error * bend, counts * bend


# Losses of `goals.loss` that stand here, for boosted trees alone
GRADIENTS = {"custom": custom_loss}


def shifts(y: Array, settings: Settings) -> list[float | None]:
    """The scales that a label is tried on: as it is (None), and where it is skewed and never
    negative, the logarithm of the label plus this."""
    if y.min() < 0 or y.std() == 0:
        return [None]
    skewness = float(np.mean(((y - y.mean()) / y.std()) ** 3))
    return [None, 0.0 if y.min() > 0 else 1.0] if skewness > 1 else [None]


def candidate(
    name: str, settings: Settings, seed: int, trees: Any, folds: Sequence[tuple[Array, Array]]
) -> RegressorMixin:
    """An unfitted model.

    linear: ridge regression, of a quantile where the loss asks for one · lightgbm: boosted trees
    (Ke et al., 2017) · stacked: a ridge regression of the other two's predictions (Wolpert, 1992),
    taken out of fold · bagged: the mean of eight boosted models, each on its own draw of the rows
    (Breiman, 1996) · additive: boosted trees of one question or two, a sum of simple curves
    (Friedman, 2001) · forest: the mean of deep trees on draws of rows and columns (Breiman, 2001) ·
    monotone: boosted trees of the mean that no column moves against `modelling.evaluation.expectations`.

    Args:
        trees: unfitted LightGBM of the size that `modelling.fitting.find_sizes` found.
        folds: of the rows that it will be fitted on, for the stack: each the rows to fit and the
            rows to answer, as indices.

    Raises:
        ValueError: when no candidate has this name.
    """
    share = quantile(settings)
    l2 = settings.modelling.linear.l2
    linear = Ridge(alpha=l2) if share is None else QuantileRidge(share, l2)
    match name:
        case "linear":
            return linear
        case "lightgbm" | "additive":
            return trees
        case "monotone":
            # Of the median or a quantile, LightGBM moves leaves once more, past the bounds
            return trees if callable(trees.objective) else trees.set_params(objective="regression")
        case "stacked":
            parts = [("linear", linear), ("lightgbm", trees)]
            last = Ridge(alpha=1.0) if share is None else QuantileRidge(share)
            return StackingRegressor(parts, last, cv=list(folds), n_jobs=FOLDS_AT_ONCE)
        case "bagged":
            return BaggingRegressor(trees, n_estimators=8, max_samples=0.7, random_state=seed)
        case "forest":
            return RandomForestRegressor(
                settings.modelling.forest.trees,
                min_samples_leaf=settings.modelling.forest.min_leaf_rows,
                max_features=0.4,
                random_state=seed,
            )
        case _:
            raise ValueError(f"no candidate is named {name}")


def quantile(settings: Settings) -> float | None:
    """The quantile that the loss asks for; None for the mean."""
    return aimed_quantile(settings.goals)


def aims_at_mean(settings: Settings) -> bool:
    """Whether a prediction means an average, and not a quantile."""
    return quantile(settings) is None


def held_out_loss(y: Array, score: Array, settings: Settings) -> float:
    """What sizes and calibrations are compared by: the loss that is asked for, mean over n rows."""
    error, share = y - score, quantile(settings)
    if share is None:
        return float(np.mean(error**2))
    return float(np.mean(np.maximum(share * error, (share - 1) * error)))


def fit_matrix(matrix: Array, y: Array) -> Array:
    """What a model is fitted to, shape (n, width): the features alone."""
    return matrix


def fit_options(model: Any, y: Array, held: Array | None = None) -> dict[str, Any]:
    """What else a model takes to be fitted to labels y: nothing."""
    return {}


def matrix_nodes(graph: Any, matrix: str, width: int) -> tuple[str, int]:
    """`fit_matrix` as ONNX nodes: the name of the output, and how many columns it has."""
    return matrix, width


def predict(model: RegressorMixin, matrix: Array, width: int) -> Array:
    """The prediction before calibration, shape (n,)."""
    return np.asarray(model.predict(matrix), dtype=np.float64).ravel()


def own_nodes(graph: Any, model: Any, matrix: str) -> str | None:
    """A model as ONNX nodes of its own; None: skl2onnx converts them all."""
    return None


def register(boosted: type) -> None:
    """Tell skl2onnx how to export what it does not know: `boosted`, the class of the trees."""
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_regressor_output_shapes
    from skl2onnx.operator_converters.decision_tree import convert_sklearn_decision_tree_regressor
    from skl2onnx.operator_converters.linear_regressor import convert_sklearn_linear_regressor

    shape = calculate_linear_regressor_output_shapes
    update_registered_converter(boosted, "LightGbmLGBMRegressor", shape, convert_lightgbm)
    update_registered_converter(
        QuantileRidge, "LinearQuantileRidge", shape, convert_sklearn_linear_regressor
    )
    update_registered_converter(
        QuantileTree,
        "QuantileTreeRegressor",
        shape,
        convert_sklearn_decision_tree_regressor,
        options={"decision_leaf": [True, False], "decision_path": [True, False]},
    )


def learnt(y: Array) -> Array:
    """Labels as a model is fitted to them, shape (n,)."""
    return y


def taught(y: Array) -> Array:
    """Labels as features that learn from them see them, shape (n,)."""
    return y


def stopping_loss(trees: Any) -> float | None:
    """The loss that early stopping saw; None: `held_out_loss` tells, in the label's own unit."""
    return None


def straighten(score: Array) -> Array:
    """Scores where a calibration is a line: they are so already, shape (n,)."""
    return score


def bend(line: Array) -> Array:
    """The way back from `straighten`: the line itself, shape (n,)."""
    return line


def straighten_nodes(graph: Any, score: str) -> str:
    """`straighten` as ONNX nodes.

    Args:
        graph: that they are added to; score: the name of the scores in it.

    Returns:
        the name of the output.
    """
    return score


def bend_nodes(graph: Any, line: str) -> str:
    """`bend` as ONNX nodes; takes and returns names in the graph."""
    return line


def fit_line(kind: str, y: Array, score: Array) -> tuple[float, float]:
    """The slope and the offset of a calibration by a line: least squares of the labels on the scores."""
    slope, offset = np.polyfit(score, y, 1)
    return float(slope), float(offset)


def with_ends(x: Array, height: Array) -> tuple[Array, Array]:
    """Knots of an isotonic calibration (Zadrozny and Elkan, 2002), and one more beyond each end, so that
    the largest scores are told apart too.

    Args:
        x: scores, ascending; height: their calibrated values; each of shape (knots,).
    """
    far = 10 * np.ptp(x)
    rise = far * np.ptp(height) / np.ptp(x)
    return np.r_[x[0] - far, x, x[-1] + far], np.r_[height[0] - rise, height, height[-1] + rise]


STEPS = {"isotonic": with_ends}  # calibrations through knots, and how they go on beyond the last
SCALES: dict[str, Any] = {}  # calibrations that take no label: none


def score_nodes(graph: Any, output: str, prepared: str) -> str:
    """The raw score, shape (n, 1), of what the exported model answers: just that."""
    return output


def around(y: Array, score: Array, level: float) -> dict[str, float] | None:
    """How far from its prediction a number lies with a level of confidence: the quantiles of what was
    left over on the rows that models are judged by (split conformal; Lei et al., 2018).

    A further row falls between each two neighbours of n rows with a chance of 1 / (n + 1), so the
    quantiles are those places of n + 1.
    """
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(y - score, ends, method="weibull")
    return {"level": level, "low": float(low), "high": float(high)}


def described(
    decision: float, values: list[str], settings: Settings, rows: pd.DataFrame
) -> dict[str, Any]:
    """What the manifest says of this kind of problem beside what it says of each; `values`: of the label."""
    return {}
