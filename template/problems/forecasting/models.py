"""YOURS: the models by name, all of which can be exported: baselines, candidates, intervals.

One model knows all series and all steps ahead: it learns in units of each series' level, and the graph multiplies
the level back.

The boosted trees come in ready, sized and seeded (modelling/boosting.py): only their use is chosen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from lightgbm import LGBMRegressor
from sklearn.base import RegressorMixin
from sklearn.ensemble import RandomForestRegressor, VotingRegressor
from sklearn.linear_model import Ridge

from ..histories import stacked
from .data import HISTORY, HORIZON, LEVEL, VALUE
from .decision import level as level_of
from .features import SEASONAL, THETA
from .goals import aimed_quantile, numeric

if TYPE_CHECKING:
    import pandas as pd

    from ..settings import Settings

Array = np.ndarray
# Each prediction is a sum of one weight for each feature, which a person can follow
INTERPRETABLE = frozenset({"linear"})
Trees = LGBMRegressor
# Whose size each candidate takes; `additive` has its own shapes, one question a tree or two
SIZED = {"lightgbm": "boosted", "combined": "boosted", "forest": "boosted", "additive": "additive",
         "linear": "linear"}  # fmt: skip
SCALED = False  # whether a label is standardised before a model learns it
RELATIVE = True  # whether a score is exact to a share of its own size
OPTIONS: dict[str, Any] = {}  # of skl2onnx
GRADIENTS: dict[str, Any] = {}  # losses of `goals.loss` that stand here: none
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


class OneColumn(Ridge):
    """A forecast that the matrix holds already: one of its columns, as it is.

    Args:
        column: its place.
    """

    coef_: Array

    def __init__(self, column: int = 0, alpha: float = 1.0) -> None:
        super().__init__(alpha=alpha)
        self.column = column

    def fit(self, x: Array, y: Array, sample_weight: Array | None = None) -> OneColumn:
        """Take x, shape (n, features); nothing is learnt of y, shape (n,)."""
        super().fit(x[:2], y[:2])
        self.coef_ = (np.arange(x.shape[1]) == self.column).astype(np.float64)
        self.intercept_ = 0.0
        return self


def width(settings: Settings) -> int:
    """How many scores an answer has."""
    return 1


def floor(y: Array, n: int, settings: Settings, seed: int) -> Array:
    """One number for each of n rows, shape (n,): the training label's mean, or the quantile of the loss."""
    share, truth = quantile(settings), numeric(y)
    return np.full(n, np.mean(truth) if share is None else np.quantile(truth, share))


def baseline(
    name: str, rows: int, settings: Settings, seed: int, names: Sequence[str] = ()
) -> OneColumn:
    """An unfitted baseline that can be exported and serve as the fallback.

    heuristic: what was one season ago · simple: theta (Assimakopoulos and Nikolopoulos, 2000), a line and
    exponential smoothing. Both stand in the matrix already.

    Args:
        rows: of training; names: of the features.
    """
    return OneColumn({"heuristic": SEASONAL, "simple": THETA}[name] - 1)  # behind the level


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


def shifts(y: Array, settings: Settings) -> list[float | None]:
    """The scales that a label is tried on: as it is, in units of its series' level."""
    return [None]


def candidate(
    name: str, settings: Settings, seed: int, trees: Any, folds: Sequence[tuple[Array, Array]]
) -> RegressorMixin:
    """An unfitted model, of all series and all steps ahead, whose labels are in units of their series' level.

    linear: ridge regression, of a quantile where the loss asks for one · lightgbm: boosted trees (Ke et al., 2017)
    with the step ahead as a feature · combined: the mean of these and theta · additive: boosted trees of one question
    or two, a sum of simple curves (Friedman, 2001) · forest: the mean of deep trees on draws of rows and columns
    (Breiman, 2001).

    Args:
        trees: unfitted LightGBM of the size that `modelling.fitting.find_sizes` found.

    Raises:
        ValueError: when no candidate has this name.
    """
    share = quantile(settings)
    match name:
        case "linear":
            l2 = settings.modelling.linear.l2
            return Ridge(alpha=l2) if share is None else QuantileRidge(share, l2)
        case "lightgbm" | "additive":
            return trees
        case "combined":
            return VotingRegressor([("lightgbm", trees), ("theta", OneColumn(THETA - 1))])
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
    """What sizes are compared by: the loss that is asked for, in units of each row's level, mean over n rows."""
    level = np.ones(len(y)) if y.ndim == 1 else y[:, LEVEL]
    error, share = (numeric(y) - score) / level, quantile(settings)
    if share is None:
        return float(np.mean(error**2))
    return float(np.mean(np.maximum(share * error, (share - 1) * error)))


def fit_matrix(matrix: Array, y: Array) -> Array:
    """What a model is fitted to, shape (n, width - 1): the features without the level, which a model is not to know."""
    return matrix[:, 1:]


def fit_options(model: Any, y: Array, held: Array | None = None) -> dict[str, Any]:
    """What else a model takes to be fitted to labels y: nothing."""
    return {}


def matrix_nodes(graph: Any, matrix: str, width: int) -> tuple[str, int]:
    """`fit_matrix` as ONNX nodes: the name of the output, and how many columns it has."""
    ends = (graph.constant([position], np.int64) for position in (1, width, 1))
    return graph.add("Slice", matrix, *ends), width - 1


def predict(model: RegressorMixin, matrix: Array, width: int) -> Array:
    """The forecast before calibration, shape (n,): what a model says in units of the level, times the level."""
    share = np.asarray(model.predict(matrix[:, 1:]), dtype=np.float64).ravel()
    return share * matrix[:, 0].astype(np.float64)


def own_nodes(graph: Any, model: Any, matrix: str) -> str | None:
    """A linear model as ONNX nodes of its own, which sum in 64 bits: the features of a course say nearly the same, and
    have large weights that cancel out. None: skl2onnx converts it."""
    if not isinstance(model, Ridge) or isinstance(model, OneColumn):
        return None
    # Four columns, so that a row has its bits in any company (`features._product`)
    weights = np.pad(np.reshape(model.coef_, (-1, 1)), ((0, 0), (0, 3))).astype(np.float64)
    wide = graph.add("Cast", matrix, to=graph.DOUBLE)
    product = graph.add("MatMul", wide, graph.constant(weights, np.float64))
    ends = (graph.constant([position], np.int64) for position in (0, 1, 1))
    offset = graph.constant([[float(np.ravel(model.intercept_)[0])]], np.float64)
    total = graph.add("Add", graph.add("Slice", product, *ends), offset)
    return str(graph.add("Cast", total, to=graph.FLOAT))


def register(boosted: type) -> None:
    """Tell skl2onnx how to export what it does not know: `boosted`, the class of the trees."""
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_regressor_output_shapes
    from skl2onnx.operator_converters.linear_regressor import convert_sklearn_linear_regressor

    shape = calculate_linear_regressor_output_shapes
    update_registered_converter(boosted, "LightGbmLGBMRegressor", shape, convert_lightgbm)
    for linear in (QuantileRidge, OneColumn):
        update_registered_converter(
            linear, f"Linear{linear.__name__}", shape, convert_sklearn_linear_regressor
        )


def learnt(y: Array) -> Array:
    """Labels as a model is fitted to them, shape (n,): in units of their series' level."""
    return y if y.ndim == 1 else y[:, VALUE] / y[:, LEVEL]


def taught(y: Array) -> Array:
    """Labels as features that learn from them see them, shape (n,)."""
    return learnt(y)


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
    """The slope and the offset of a calibration by a line: none is asked for."""
    return 1.0, 0.0


STEPS: dict[str, Any] = {}  # calibrations through knots: none
SCALES: dict[str, Any] = {}  # calibrations that take no label: none


def score_nodes(graph: Any, output: str, prepared: str) -> str:
    """The raw score, shape (n, 1), of what the exported model answers: times the level, which stands first."""
    ends = (graph.constant([position], np.int64) for position in (0, 1, 1))
    return graph.add("Mul", output, graph.add("Slice", prepared, *ends))


def around(y: Array, score: Array, level: float) -> dict[str, Any] | None:
    """How far from its forecast a number lies with a level of confidence, by step ahead, in units of the series'
    level: the quantiles of what was left over on the rows that models are judged by (split conformal; Lei et al.,
    2018).

    A further row falls between each two neighbours of n rows with a chance of 1 / (n + 1), so the quantiles are
    those places of n + 1.
    """
    size, step = np.ones(len(y)), np.ones(len(y), np.int64)
    if y.ndim > 1:
        size, step = y[:, LEVEL], np.maximum(1, y[:, HORIZON]).astype(np.int64)
    left_over = (numeric(y) - score) / size
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = [], []
    for ahead in range(1, int(step.max()) + 1):
        of_step = left_over[step == ahead]
        errors = of_step if len(of_step) else left_over
        below, above = np.quantile(errors, ends, method="weibull")
        low.append(float(below))
        high.append(float(above))
    return {"level": level, "low": low, "high": high}


def described(
    decision: float, values: list[str], settings: Settings, rows: pd.DataFrame
) -> dict[str, Any]:
    """What the manifest says of this kind of problem beside what it says of each: by what intervals are scaled."""
    label = settings.data.label
    if label.history is None or not {label.history, label.horizon} <= {*rows}:
        return {}
    length = settings.data.schema_.columns[label.history].length or HISTORY
    histories = stacked(rows[label.history].unique(), length)
    sizes = level_of(histories, label.season, np.nan)
    finite = sizes[np.isfinite(sizes)]
    scale = {
        "history": label.history,
        "horizon": label.horizon,
        "season": label.season,
        "level": float(np.median(finite)) if len(finite) else 1.0,
    }
    return {"scale": scale}
