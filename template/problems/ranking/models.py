"""YOURS: the models by name, all of which can be exported: baselines, candidates, calibration.

Models learn from clicks as they came, with the place where a row was shown as one more feature; whoever is asked for
a score later is asked as if each row stood at the first place. So a click at the bottom is explained by the row,
and one at the top in part by its place (the position as a feature, frozen: Ling et al., 2017). The boosted trees
come in ready, sized and seeded (modelling/boosting.py): only their use is chosen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from lightgbm import LGBMRanker
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.tree import DecisionTreeRegressor

from .data import LIST, MOST_GRADE, POSITION, RAW
from .goals import numeric

if TYPE_CHECKING:
    import pandas as pd

    from ..settings import Settings

Array = np.ndarray
# Each score is a sum of one weight for each feature, which a person can follow
INTERPRETABLE = frozenset({"linear"})
SCALED = False  # whether a label is standardised before a model learns it
RELATIVE = False  # whether a score is exact to a share of its own size
OPTIONS: dict[str, Any] = {}  # of skl2onnx
GRADIENTS: dict[str, Any] = {}  # losses of `goals.loss` that stand here: none
OUTPUT = {"name": "score", "probability": False}  # as the manifest has it
# Whose size each candidate takes; `additive` has its own shapes, one question a tree or two
SIZED = {"lightgbm": "boosted", "lambdarank": "boosted", "forest": "boosted", "additive": "additive",
         "linear": "linear"}  # fmt: skip
FIRST = 1.0  # the place at which every score is told
LAMBDARANK = {"objective": "lambdarank", "metric": "ndcg"}


class Trees(LGBMRanker):
    """LightGBM that knows lists, whatever it minimises; pairs are told by whole grades."""

    def fit(self, x: Array, y: Array, **options: Any) -> Any:  # type: ignore[override]
        """Fit to a matrix, shape (n, width), and labels, shape (n,), with the sizes of the lists as `group`."""
        if self.objective is None:  # LightGBM would take pairs then
            self.set_params(objective="regression")
        if self.objective == LAMBDARANK["objective"]:
            y = np.clip(np.rint(y), 0, MOST_GRADE)
        return super().fit(x, y, **options)


class OneColumn(Ridge):
    """A rule: order by the one column, rising or falling, that goes best with the label."""

    coef_: Array

    def fit(self, x: Array, y: Array) -> OneColumn:
        """Fit to x, shape (n, features), and y, shape (n,)."""
        super().fit(x, y)
        spread = x.std(axis=0)
        moved = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1)
        trend = np.where(spread > 0, moved.T @ (y - y.mean()), 0.0)
        trend[-1] = 0.0  # the last column is the place where it was shown
        best = int(np.argmax(np.abs(trend)))
        slope = trend[best] / len(y) / (spread[best] or 1)
        self.coef_ = np.where(np.arange(x.shape[1]) == best, slope, 0.0)
        self.intercept_ = float(y.mean() - slope * x[:, best].mean())
        return self


class Popularity(Ridge):
    """Order by how often an item was clicked, wherever it stood.

    Args:
        columns: of the features, those that tell items apart.
    """

    coef_: Array

    def __init__(self, columns: tuple[int, ...] = (), alpha: float = 1.0) -> None:
        super().__init__(alpha=alpha)
        self.columns = columns

    def fit(self, x: Array, y: Array) -> Popularity:
        """Fit to x, shape (n, features), and y, shape (n,)."""
        is_item = np.isin(np.arange(x.shape[1]), self.columns)
        super().fit(np.where(is_item, x, 0.0), y)
        self.coef_ = np.where(is_item, self.coef_, 0.0)
        return self


def width(settings: Settings) -> int:
    """How many scores an answer has."""
    return 1


def floor(y: Array, n: int, settings: Settings, seed: int) -> Array:
    """A random order: a score drawn for each of n rows, shape (n,)."""
    return np.random.default_rng(seed).random(n)


def baseline(name: str, rows: int, settings: Settings, seed: int, names: Sequence[str] = ()) -> Any:
    """An unfitted baseline that can be exported and serve as the fallback.

    heuristic: order by the one best column · simple: popularity, how often an item was clicked, or where no
    feature tells items apart a tree of four questions.

    Args:
        rows: of training; a leaf holds at least a five-hundredth of them, and 20.
        names: of the features.
    """
    if name == "heuristic":
        return OneColumn()
    item = settings.data.label.item
    columns = [i for i, feature in enumerate(names) if item and feature.startswith(f"{item}=")]
    if columns:
        return Popularity(tuple(columns))
    return DecisionTreeRegressor(
        max_depth=4, min_samples_leaf=max(20, rows // 500), random_state=seed
    )


def objectives(settings: Settings) -> list[dict[str, Any]]:
    """What boosted trees may minimise, as LightGBM's parameters: the squared error of each row's click."""
    return [{"objective": "regression", "metric": "l2"}]


def shifts(y: Array, settings: Settings) -> list[float | None]:
    """The scales that a label is tried on: as it is."""
    return [None]


def candidate(
    name: str, settings: Settings, seed: int, trees: Any, folds: Sequence[tuple[Array, Array]]
) -> Any:
    """An unfitted model.

    linear: ridge regression of clicks · lightgbm: boosted trees, row by row (Ke et al., 2017) · lambdarank: boosted
    trees whose gradients are the pairs of a list, by what a swap does to its NDCG (Burges, 2010) · additive: boosted
    trees of one question or two, a sum of simple curves (Friedman, 2001) · forest: the mean of deep trees on draws
    of rows and columns (Breiman, 2001).

    Args:
        trees: unfitted LightGBM of the size that `modelling.fitting.find_sizes` found.

    Raises:
        ValueError: when no candidate has this name.
    """
    match name:
        case "linear":
            return Ridge(alpha=settings.modelling.linear.l2)
        case "lightgbm" | "additive":
            return trees
        case "lambdarank":
            return trees.set_params(**LAMBDARANK)
        case "forest":
            return RandomForestRegressor(
                settings.modelling.forest.trees,
                min_samples_leaf=settings.modelling.forest.min_leaf_rows,
                max_features=0.4,
                random_state=seed,
            )
        case _:
            raise ValueError(f"no candidate is named {name}")


def aims_at_mean(settings: Settings) -> bool:
    """Whether a score means an average, and not a quantile."""
    return True


def held_out_loss(y: Array, score: Array, settings: Settings) -> float:
    """What sizes and calibrations are compared by: the squared error of the gain, mean over n rows."""
    return float(np.mean((numeric(y) - score) ** 2))


def fit_matrix(matrix: Array, y: Array) -> Array:
    """What a model is fitted to, shape (n, width + 1): the features, and the place where each row was shown."""
    slot = np.full(len(y), FIRST) if y.ndim == 1 else y[:, POSITION]
    return np.column_stack([matrix, slot.astype(matrix.dtype)])


def fit_options(model: Any, y: Array, held: Array | None = None) -> dict[str, Any]:
    """What else a model takes to be fitted to labels y: the sizes of the lists, whose rows stand together.

    Args:
        held: labels of rows that early stopping looks at.
    """
    if not isinstance(model, LGBMRanker):
        return {}
    options: dict[str, Any] = {"group": list_sizes(y)}
    return options if held is None else {**options, "eval_group": [list_sizes(held)]}


def list_sizes(y: Array) -> Array:
    """How many rows each list has, in the order of the rows; of labels alone each row is one."""
    if y.ndim == 1:
        return np.ones(len(y), np.int64)
    starts = np.flatnonzero(np.diff(y[:, LIST], prepend=np.nan) != 0)
    return np.diff(np.append(starts, len(y)))


def predict(model: Any, matrix: Array, width: int) -> Array:
    """The score before calibration as if each row stood at the first place, shape (n,)."""
    frozen = np.column_stack([matrix, np.full(len(matrix), FIRST, matrix.dtype)])
    return np.asarray(model.predict(frozen), dtype=np.float64).ravel()


def matrix_nodes(graph: Any, matrix: str, width: int) -> tuple[str, int]:
    """The matrix that a model is fitted to as ONNX nodes: the first place stands behind each row's features.

    Args:
        graph: that they are added to.
        matrix: the name of the features in it, shape (n, width).

    Returns:
        the name of the output, and how many columns it has.
    """
    ends = graph.constant([0, 0, 0, 1], np.int64)
    padded = graph.add("Pad", matrix, ends, graph.constant(np.float32(0)))
    is_place = graph.constant([[*[False] * width, True]], np.bool_)
    return graph.add("Where", is_place, graph.constant([[FIRST]]), padded), width + 1


def own_nodes(graph: Any, model: Any, matrix: str) -> str | None:
    """A model as ONNX nodes of its own; None: skl2onnx converts them all."""
    return None


def register(boosted: type) -> None:
    """Tell skl2onnx how to export what it does not know: `boosted`, the class of the trees."""
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_regressor_output_shapes
    from skl2onnx.operator_converters.linear_regressor import convert_sklearn_linear_regressor

    shape = calculate_linear_regressor_output_shapes
    update_registered_converter(boosted, "LightGbmLGBMRanker", shape, convert_lightgbm)
    for rule in (OneColumn, Popularity):
        update_registered_converter(
            rule, f"Linear{rule.__name__}", shape, convert_sklearn_linear_regressor
        )


def learnt(y: Array) -> Array:
    """Labels as a model is fitted to them, shape (n,): clicks or grades as they came."""
    return y if y.ndim == 1 else y[:, RAW]


def taught(y: Array) -> Array:
    """Labels as features that learn from them see them, shape (n,): gains, weighted by how seldom a place is looked at."""
    return numeric(y)


def stopping_loss(trees: Any) -> float | None:
    """The loss that early stopping saw: the squared error of clicks at the places where they were."""
    return float(trees.best_score_["valid_0"]["l2"])


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
    """The slope and the offset of a calibration by a line: least squares of the gains on the scores."""
    slope, offset = np.polyfit(score, numeric(y), 1)
    return float(slope), float(offset)


# Slopes of a calibration against their mean: none so flat that two scores become equal, nor so steep that the last
# bits of a 32-bit score grow
RISES = 0.05, 1.4


def rising(x: Array, height: Array) -> tuple[Array, Array]:
    """Knots of an isotonic calibration (Zadrozny and Elkan, 2002) that rises everywhere, beyond its ends as well: the
    order of scores stays.

    Args:
        x: scores, ascending; height: their calibrated values; each of shape (knots,).
    """
    far, slope = 10 * np.ptp(x), np.ptp(height) / np.ptp(x)
    climbs = np.clip(np.diff(height) / np.diff(x) / slope, *RISES) * slope * np.diff(x)
    risen = height[0] + np.r_[0.0, np.cumsum(climbs)]
    risen += (height - risen).mean()
    ends = risen[0] - far * slope, risen[-1] + far * slope
    return np.r_[x[0] - far, x, x[-1] + far], np.r_[ends[0], risen, ends[1]]


STEPS = {"curve": rising}  # calibrations through knots
SCALES: dict[str, Any] = {}  # calibrations that take no label: none


def score_nodes(graph: Any, output: str, prepared: str) -> str:
    """The raw score, shape (n, 1), of what the exported model answers: just that."""
    return output


def around(y: Array, score: Array, level: float) -> dict[str, float] | None:
    """Between which numbers the truth lies: nothing is told of an order."""
    return None


def described(
    decision: float, values: list[str], settings: Settings, rows: pd.DataFrame
) -> dict[str, Any]:
    """What the manifest says of this kind of problem beside what it says of each: which columns tell a list apart.

    Args:
        values: of the label; rows: that the model was fitted to, as it takes them.
    """
    label = settings.data.label
    return {"lists": {"list": label.list, "topic": label.topic}}
