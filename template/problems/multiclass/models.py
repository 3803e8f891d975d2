"""YOURS: the models by name, all of which can be exported: baselines, candidates, calibration.

The boosted trees come in ready, sized and seeded (modelling/boosting.py): only their use is chosen here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from lightgbm import LGBMClassifier
from sklearn.base import ClassifierMixin
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from .goals import of_truth

if TYPE_CHECKING:
    import pandas as pd

    from ..settings import Settings

Array = np.ndarray
# Each prediction is a sum of one weight for each feature and class, which a person can follow
INTERPRETABLE = frozenset({"linear"})
Trees = LGBMClassifier
# Whose size each candidate takes; `additive` has its own shapes, one question a tree or two
SIZED = {"lightgbm": "boosted", "stacked": "boosted", "bagged": "boosted", "forest": "boosted",
         "additive": "additive", "linear": "linear", "mlp": "linear"}  # fmt: skip
FOLDS_AT_ONCE = 2  # of a stack, side by side
SCALED = False  # whether a label is standardised before a model learns it
RELATIVE = False  # whether a score is exact to a share of its own size
OPTIONS = {"zipmap": False}  # of skl2onnx
OUTPUT = {"name": "score", "probability": True}  # as the manifest has it
SOFTENED = 0.1  # share of a label that `custom_loss` spreads over all classes
STEPS: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {}  # calibrations through knots
SCALES: dict[str, Any] = {}  # calibrations that take no label: none
LOWEST = 1e-7  # scores are told apart down to this
KEEPS = 1e-3  # weight of each offset's square, so that a class with few rows keeps its scores


def width(settings: Settings) -> int:
    """How many scores an answer has: one for each class."""
    return len(settings.data.label.classes)


def floor(y: Array, n: int, settings: Settings, seed: int) -> Array:
    """The share of each class, for each of n rows: what comes of knowing nothing, shape (n, classes)."""
    counts = np.bincount(y.astype(np.int64), minlength=width(settings))
    return np.tile(counts / counts.sum(), (n, 1))


def baseline(
    name: str, rows: int, settings: Settings, seed: int, names: Sequence[str] = ()
) -> DecisionTreeClassifier:
    """An unfitted baseline that can be exported and serve as the fallback.

    heuristic: a tree of two questions · simple: a tree of four.

    Args:
        rows: of training; a leaf holds at least a five-hundredth of them, and 20.
        names: of the features.
    """
    return DecisionTreeClassifier(
        max_depth={"heuristic": 2, "simple": 4}[name],
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
        y: codes of classes, shape (n,); score: raw, whose softmax are the probabilities, shape (n, classes); weight: how
            much each row counts, shape (n,); None: alike.

    Returns:
        the gradient and the second derivative of each row's loss by its scores, each of shape (n, classes).
    """
    raised = np.exp(score - score.max(axis=1, keepdims=True))
    share, classes = raised / raised.sum(axis=1, keepdims=True), score.shape[1]
    aim = np.eye(classes)[y.astype(int)] * (1 - SOFTENED) + SOFTENED / classes
    counts = 1.0 if weight is None else weight[:, None]
    # The second factor is LightGBM's own for several classes (Friedman, 2001)
    return counts * (share - aim), counts * classes / (classes - 1) * share * (1 - share)


# Losses of `goals.loss` that stand here, for boosted trees alone
GRADIENTS = {"custom": custom_loss}


def shifts(y: Array, settings: Settings) -> list[float | None]:
    """The scales that a label is tried on; None: as it is."""
    return [None]


def candidate(
    name: str, settings: Settings, seed: int, trees: Any, folds: Sequence[tuple[Array, Array]]
) -> ClassifierMixin:
    """An unfitted model.

    linear: multinomial logistic regression · lightgbm: boosted trees, one a class and round (Ke et
    al., 2017) · stacked: a logistic regression of the other two's scores (Wolpert, 1992), taken out of
    fold · bagged: the mean of four boosted models, each on its own draw of the rows (Breiman, 1996)
    · additive: boosted trees of one question or two, a sum of simple curves (Friedman, 2001) ·
    forest: the mean of deep trees on draws of rows and columns (Breiman, 2001) · mlp: a network of two
    hidden layers, whatever `goals.loss` says.

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
        case "lightgbm" | "additive":
            return trees
        case "stacked":
            parts = [("linear", linear), ("lightgbm", trees)]
            last = LogisticRegression(C=10.0, class_weight=weight)
            return StackingClassifier(
                parts, last, stack_method="predict_proba", cv=list(folds), n_jobs=FOLDS_AT_ONCE
            )
        case "bagged":
            return BaggingClassifier(trees, n_estimators=4, max_samples=0.7, random_state=seed)
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
    """What the loss makes of the classes: nothing, the same weight, or what an error costs on average."""
    match settings.goals.loss:
        case "balanced":
            return "balanced"
        case "costs":
            table = np.asarray(settings.goals.costs.table)
            wrong = (table.sum(axis=1) - len(table) * np.diag(table)) / (len(table) - 1)
            return dict(enumerate((wrong / wrong.mean()).tolist()))
        case _:
            return None


def aims_at_mean(settings: Settings) -> bool:
    """Whether a score means an average: a probability does."""
    return True


def held_out_loss(y: Array, score: Array, settings: Settings) -> float:
    """The mean log loss: what sizes and calibrations are compared by."""
    return float(-np.mean(np.log(np.clip(of_truth(y, score), LOWEST, 1.0))))


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
    """The probability of each class before calibration, shape (n, width); 0 for one it never saw."""
    scores = np.asarray(model.predict_proba(matrix), dtype=np.float64)
    if scores.shape[1] == width:
        return scores
    padded = np.zeros((len(scores), width))
    padded[:, np.asarray(model.classes_, dtype=np.int64)] = scores
    return padded


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
    """Scores where a calibration is a line: their logarithms, shape (n, classes)."""
    return np.log(np.maximum(score, LOWEST))


def bend(line: Array) -> Array:
    """The way back from `straighten`: the softmax, probabilities that add up to 1, shape (n, classes)."""
    raised = np.exp(line - line.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def straighten_nodes(graph: Any, score: str) -> str:
    """`straighten` as ONNX nodes.

    Args:
        graph: that they are added to; score: the name of the scores in it.

    Returns:
        the name of the output.
    """
    return graph.add("Log", graph.add("Max", score, graph.constant([[LOWEST]])))


def bend_nodes(graph: Any, line: str) -> str:
    """`bend` as ONNX nodes; takes and returns names in the graph."""
    return graph.add("Softmax", line, axis=1)


def fit_line(kind: str, y: Array, score: Array) -> tuple[float, tuple[float, ...]]:
    """The slope and the offset of each class of a calibration, after `straighten`.

    temperature: a slope alone (Guo et al., 2017) · offsets: a slope, and for each class how much too
    seldom it is said; no matrix of slopes, which a few hundred rows would not settle.

    Returns:
        the slope, and the offset of each class.
    """
    from scipy.optimize import minimize

    line, rows = straighten(score), np.arange(len(y))
    true, classes = y.astype(np.int64), score.shape[1]
    free = classes if kind == "offsets" else 0

    def loss(values: Array) -> tuple[float, Array]:
        """The mean log loss with a penalty, and its gradient; values: the slope's logarithm, the offsets."""
        offsets = values[1:] if free else np.zeros(classes)
        after = bend(np.exp(values[0]) * line + offsets)
        log_loss = -np.log(np.maximum(after[rows, true], 1e-300)).mean()
        penalty = KEEPS * (values[1:] ** 2).sum()
        after[rows, true] -= 1
        slope = np.exp(values[0]) * (after * line).sum() / len(y)
        gradient = np.append(slope, after.mean(axis=0)[:free] + 2 * KEEPS * values[1:])
        return log_loss + penalty, gradient

    start, bounds = np.zeros(1 + free), [(-3, 3)] * (1 + free)
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    offsets = best.x[1:] if free else np.zeros(classes)
    return float(np.exp(best.x[0])), tuple(offsets.tolist())


def score_nodes(graph: Any, output: str, prepared: str) -> str:
    """The raw scores, shape (n, classes), of what the exported model answers."""
    return output


def around(y: Array, score: Array, level: float) -> dict[str, float] | None:
    """How far around a score the truth lies; None, since a probability says so itself."""
    return None


def described(
    decision: Any, values: list[str], settings: Settings, rows: pd.DataFrame
) -> dict[str, Any]:
    """What the manifest says of this kind of problem beside what it says of each."""
    return {"label_values": list(settings.data.label.classes)}
