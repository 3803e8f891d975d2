"""YOURS: the models by name, all of which can be exported: baselines, candidates, calibration.

The boosted trees come in ready, sized and seeded (modelling/boosting.py): only their use is chosen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from lightgbm import LGBMClassifier
from sklearn.base import ClassifierMixin
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

if TYPE_CHECKING:
    import pandas as pd

    from ..settings import Settings

Array = np.ndarray
# Each prediction is a sum of one weight for each feature, which a person can follow
INTERPRETABLE = frozenset({"linear"})
Trees = LGBMClassifier
# Whose size each candidate takes; `additive` has its own shapes, one question a tree or two
SIZED = {"lightgbm": "boosted", "stacked": "boosted", "bagged": "boosted", "forest": "boosted",
         "additive": "additive", "linear": "linear", "monotone": "boosted", "mlp": "linear"}  # fmt: skip
FOLDS_AT_ONCE = 2  # of a stack, side by side
SCALED = False  # whether a label is standardised before a model learns it
RELATIVE = False  # whether a score is exact to a share of its own size
OPTIONS = {"zipmap": False}  # of skl2onnx
OUTPUT = {"name": "score", "probability": True}  # as the manifest has it
SOFTENED = 0.1  # share of a label that `custom_loss` spreads over all classes
# Scores are told apart down to these; nearer to 1, a 32-bit float has no digits left
LOWEST, HIGHEST = 1e-7, 1 - 1e-4


def width(settings: Settings) -> int:
    """How many scores an answer has."""
    return 1


def floor(y: Array, n: int, settings: Settings, seed: int) -> Array:
    """A score drawn at random for each of n rows, shape (n,): what comes of knowing nothing."""
    return np.random.default_rng(seed).random(n)


def baseline(
    name: str, rows: int, settings: Settings, seed: int, names: Sequence[str] = ()
) -> DecisionTreeClassifier:
    """An unfitted baseline that can be exported and serve as the fallback.

    heuristic: the one best rule on one feature · simple: a tree of four questions.

    Args:
        rows: of training; a leaf holds at least a five-hundredth of them, and 20.
        names: of the features.
    """
    return DecisionTreeClassifier(
        max_depth={"heuristic": 1, "simple": 4}[name],
        min_samples_leaf=max(20, rows // 500),
        class_weight=class_weight(settings),
        random_state=seed,
    )


def objectives(settings: Settings) -> list[dict[str, Any]]:
    """What boosted trees may minimise, as LightGBM's parameters: the log loss, weighed by `goals.loss`."""
    return [{"class_weight": class_weight(settings)}]


def custom_loss(y: Array, score: Array, weight: Array | None) -> tuple[Array, Array]:
    """What boosted trees minimise for `goals.loss: custom`; write yours here. Log loss towards softened labels (Szegedy
    et al., 2016), so that a label that may be wrong is never learnt for certain.

    Args:
        y: 1 for yes, shape (n,); score: log-odds, shape (n,); weight: how much each row counts, shape (n,); None: alike.

    Returns:
        the gradient and the second derivative of each row's loss by its score, each of shape (n,).
    """
    share, counts = 1 / (1 + np.exp(-score)), 1.0 if weight is None else weight
    aim = y * (1 - SOFTENED) + SOFTENED / 2
    return counts * (share - aim), counts * share * (1 - share)


# Losses of `goals.loss` that stand here, for boosted trees alone
GRADIENTS = {"custom": custom_loss}


def shifts(y: Array, settings: Settings) -> list[float | None]:
    """The scales that a label is tried on; None: as it is."""
    return [None]


def candidate(
    name: str, settings: Settings, seed: int, trees: Any, folds: Sequence[tuple[Array, Array]]
) -> ClassifierMixin:
    """An unfitted model.

    linear: logistic regression · lightgbm: boosted trees (Ke et al., 2017) · stacked: a logistic
    regression of the other two's scores (Wolpert, 1992), taken out of fold · bagged: the mean of
    eight boosted models, each on its own draw of the rows (Breiman, 1996) · additive: boosted trees
    of one question or two, a sum of simple curves (Friedman, 2001) · forest: the mean of deep trees
    on draws of rows and columns (Breiman, 2001) · monotone: boosted trees that no column moves against
    `modelling.evaluation.expectations` · mlp: a network of two hidden layers, whatever `goals.loss` says.

    Args:
        trees: unfitted LightGBM of the size that `modelling.fitting.find_sizes` found.
        folds: of the rows that it will be fitted on, for the stack: each the rows to fit and the
            rows to answer, as indices.

    Raises:
        ValueError: when no candidate has this name.
    """
    weight = class_weight(settings)
    strength = 1 / settings.modelling.linear.l2
    linear = LogisticRegression(C=strength, class_weight=weight, max_iter=500, tol=1e-3)
    match name:
        case "linear":
            return linear
        case "lightgbm" | "additive" | "monotone":
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
        case "mlp":
            return MLPClassifier((64, 32), early_stopping=True, random_state=seed)
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
    clipped = np.clip(score, 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(y == 1, np.log(clipped), np.log(1 - clipped))))


def fit_matrix(matrix: Array, y: Array) -> Array:
    """What a model is fitted to, shape (n, width): the features alone."""
    return matrix


def fit_options(model: Any, y: Array, held: Array | None = None) -> dict[str, Any]:
    """What else a model takes to be fitted to labels y: nothing."""
    return {}


def matrix_nodes(graph: Any, matrix: str, width: int) -> tuple[str, int]:
    """`fit_matrix` as ONNX nodes: the name of the output, and how many columns it has."""
    return matrix, width


def predict(model: ClassifierMixin, matrix: Array, width: int) -> Array:
    """The probability of yes before calibration, shape (n,)."""
    return np.asarray(model.predict_proba(matrix)[:, 1], dtype=np.float64)


def own_nodes(graph: Any, model: Any, matrix: str) -> str | None:
    """A model as ONNX nodes of its own; None: skl2onnx converts them all."""
    return None


def register(boosted: type) -> None:
    """Tell skl2onnx how to export what it does not know: `boosted`, the class of the trees."""
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes

    update_registered_converter(
        boosted,
        "LightGbmLGBMClassifier",
        calculate_linear_classifier_output_shapes,
        convert_lightgbm,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )


def learnt(y: Array) -> Array:
    """Labels as a model is fitted to them, shape (n,)."""
    return y.astype(int)


def taught(y: Array) -> Array:
    """Labels as features that learn from them see them, shape (n,)."""
    return y


def stopping_loss(trees: Any) -> float | None:
    """The loss that early stopping saw, weighed as the fit is; None: `held_out_loss` tells."""
    return float(*trees.best_score_["valid_0"].values())


def straighten(score: Array) -> Array:
    """Scores where a calibration is a line: their log-odds (Platt, 1999), shape (n,)."""
    score = np.clip(score, LOWEST, HIGHEST)
    return np.log(score / (1 - score))


def bend(line: Array) -> Array:
    """The way back from `straighten`: the logistic function of the log-odds, shape (n,)."""
    return 1 / (1 + np.exp(-line))


def straighten_nodes(graph: Any, score: str) -> str:
    """`straighten` as ONNX nodes.

    Args:
        graph: that they are added to; score: the name of the scores in it.

    Returns:
        the name of the output.
    """
    score = graph.add("Min", score, graph.constant([[HIGHEST]]))
    score = graph.add("Max", score, graph.constant([[LOWEST]]))
    complement = graph.add("Sub", graph.constant([[1.0]]), score)
    return graph.add("Log", graph.add("Div", score, complement))


def bend_nodes(graph: Any, line: str) -> str:
    """`bend` as ONNX nodes; takes and returns names in the graph."""
    return graph.add("Sigmoid", line)


def fit_line(kind: str, y: Array, score: Array) -> tuple[float, float]:
    """The slope and the offset of a calibration after `straighten`: a logistic regression (Platt, 1999)."""
    line = LogisticRegression(C=1e6).fit(straighten(score)[:, None], y)
    return float(line.coef_[0, 0]), float(line.intercept_[0])


def with_ends(x: Array, height: Array) -> tuple[Array, Array]:
    """Knots of an isotonic calibration (Zadrozny and Elkan, 2002), with 0 and 1 in place of those nearest
    to either, so that the largest scores are told apart too.

    Args:
        x: scores, ascending; height: their calibrated values; each of shape (knots,).
    """
    inner = (x > 1e-3) & (x < 1 - 1e-3)
    return np.r_[0.0, x[inner], 1.0], np.r_[0.0, height[inner], 1.0]


STEPS = {"isotonic": with_ends}  # calibrations through knots, and how they go on beyond the last
SCALES: dict[str, Any] = {}  # calibrations that take no label: none


def score_nodes(graph: Any, output: str, prepared: str) -> str:
    """The raw score, shape (n, 1), of what the exported model answers: the second of two columns."""
    return graph.add("Gather", output, graph.constant([1], np.int64), axis=1)


def around(y: Array, score: Array, level: float) -> dict[str, float] | None:
    """How far around a score the truth lies; None, since a probability says so itself."""
    return None


def described(
    decision: float, values: list[str], settings: Settings, rows: pd.DataFrame
) -> dict[str, Any]:
    """What the manifest says of this kind of problem beside what it says of each; `values`: of the label."""
    return {"threshold": decision, "label_values": values}
