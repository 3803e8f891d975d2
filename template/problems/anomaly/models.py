"""YOURS: the models by name, each as its own ONNX nodes: baselines, candidates, and what a score says.

None is told a label: each is fitted to rows among which what is odd still is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from lightgbm import LGBMRegressor
from sklearn.base import BaseEstimator
from sklearn.ensemble import IsolationForest

from .goals import MADE_ODD, is_odd

if TYPE_CHECKING:
    import pandas as pd

    from ..settings import Settings

Array = np.ndarray
# Each score is a farthest column or a sum over columns, which a person can follow
INTERPRETABLE = frozenset({"ecod"})
Trees = LGBMRegressor  # no candidate here has any
SIZED = dict.fromkeys(
    ("isolation_forest", "nearest", "ecod", "pca"), "plain"
)  # none has a size to find
FOLDS_AT_ONCE = 2  # of a stack, side by side
SCALED = False  # whether a label is standardised before a model learns it
RELATIVE = False  # whether a score is exact to a share of its own size
OPTIONS: dict[str, Any] = {}  # of skl2onnx
GRADIENTS: dict[str, Any] = {}  # losses of `goals.loss` that stand here: none
OUTPUT = {"name": "score", "probability": False}  # as the manifest has it
FURTHEST = 50.0  # standard deviations from the middle, beyond which all is equally far
# Rows that neighbours are looked for among, and which of them counts
MAX_NEIGHBOURS, NEIGHBOUR = 1000, 5
MOST_VALUES = 200  # of a category, that reasons are told by
KNOTS = 512  # of a column's distribution
LEAST_STEP = 0.01  # of a scale, as a share of the middle 80 % of scores


class Detector(BaseEstimator, ABC):
    """What all methods share: columns brought to one unit, and no label.

    Attributes:
        middle_, unit_: by which each column is brought to standard units, 32-bit, shape (width,).
    """

    def fit(self, x: Array, y: Array | None = None) -> Any:
        """Fit to x, shape (n, width), which may hold what is odd; y is not looked at."""
        spread = x.std(axis=0, dtype=np.float64)
        self.middle_ = x.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.unit_ = np.where(spread > 1e-6, spread, 1.0).astype(np.float32)
        self.learn(x)
        return self

    @abstractmethod
    def learn(self, x: Array) -> None:
        """What the method keeps of x, shape (n, width)."""

    @abstractmethod
    def oddness(self, x: Array) -> Array:
        """How odd each row is in the method's own unit, shape (n,)."""

    @abstractmethod
    def nodes(self, graph: Any, matrix: str) -> str:
        """`oddness` as ONNX nodes: the name of an output of shape (n, 1)."""

    def standard(self, x: Array) -> Array:
        """x in standard units, 32-bit, at most `FURTHEST` of them from the middle, of its shape."""
        z = (x.astype(np.float32) - self.middle_) / self.unit_
        return np.clip(z, np.float32(-FURTHEST), np.float32(FURTHEST))

    def standard_nodes(self, graph: Any, matrix: str) -> str:
        """`standard` as ONNX nodes."""
        z = graph.add("Sub", matrix, graph.constant([self.middle_]))
        z = graph.add("Div", z, graph.constant([self.unit_]))
        z = graph.add("Max", z, graph.constant([[-FURTHEST]]))
        return str(graph.add("Min", z, graph.constant([[FURTHEST]])))


class RobustZ(Detector):
    """A person's rule: how far a row's farthest column, or all of them together, lie from the median, in units
    of the median absolute deviation (Iglewicz and Hoaglin, 1993)."""

    def __init__(self, together: bool = False) -> None:
        self.together = together

    def learn(self, x: Array) -> None:
        """Keep the median and the deviation of each column; of one that hardly varies, a share of its spread."""
        middle = np.median(x, axis=0)
        deviation = 1.4826 * np.median(np.abs(x - middle), axis=0)
        self.middle_ = middle.astype(np.float32)
        robust = np.where(deviation > 1e-3 * self.unit_, deviation, self.unit_)
        self.unit_ = robust.astype(np.float32)

    def oddness(self, x: Array) -> Array:
        """The largest deviation of a row, or the root of their mean square, shape (n,)."""
        z = self.standard(x).astype(np.float64)
        return np.sqrt((z * z).mean(axis=1)) if self.together else np.abs(z).max(axis=1)

    def nodes(self, graph: Any, matrix: str) -> str:
        """`oddness` as ONNX nodes."""
        z, axes = self.standard_nodes(graph, matrix), graph.constant([1], np.int64)
        if not self.together:
            return str(graph.add("ReduceMax", graph.add("Abs", z), axes, keepdims=1))
        # In 64 bits: a sum whose order hangs on how many rows come together differs far behind the last bit
        z = graph.add("Cast", z, to=graph.DOUBLE)
        mean = graph.add("ReduceMean", graph.add("Mul", z, z), axes, keepdims=1)
        return str(graph.add("Cast", graph.add("Sqrt", mean), to=graph.FLOAT))


class Forest(Detector):
    """An isolation forest (Liu, Ting and Zhou, 2008): what few cuts at random set apart is odd.

    Exported as one tree ensemble whose leaves hold the path lengths less the usual one, so that their sum
    stays small and its 32 bits fine, its thresholds rounded down to 32-bit floats, so that both sides
    compare alike.
    """

    def __init__(self, trees: int = 100, seed: int = 0) -> None:
        self.trees = trees
        self.seed = seed

    def learn(self, x: Array) -> None:
        """Grow the trees, each on at most 256 rows."""
        forest = IsolationForest(
            n_estimators=self.trees, max_samples=min(256, len(x)), random_state=self.seed
        )
        self.forest_ = forest.fit(x.astype(np.float32))

    def oddness(self, x: Array) -> Array:
        """Two to the power of minus the mean path length, as a share of the usual one, shape (n,)."""
        return -self.forest_.score_samples(x.astype(np.float32))

    def nodes(self, graph: Any, matrix: str) -> str:
        """`oddness` as ONNX nodes."""
        usual = float(path_length(np.array([self.forest_._max_samples]))[0])
        mean = graph.add(
            "TreeEnsembleRegressor",
            matrix,
            domain="ai.onnx.ml",
            n_targets=1,
            aggregate_function="SUM",
            post_transform="NONE",
            **ensemble(self.forest_, usual),
        )
        exponent = graph.add("Mul", mean, graph.constant([[-1 / usual]]))
        return str(graph.add("Mul", graph.add("Exp", exponent), graph.constant([[0.5]])))


def path_length(rows: Array) -> Array:
    """The mean depth at which a search tree of so many rows ends without a find, of the shape of `rows`."""
    n = np.maximum(rows, 2).astype(np.float64)
    length = 2 * (np.log(n - 1) + np.euler_gamma) - 2 * (n - 1) / n
    return np.where(rows <= 1, 0.0, np.where(rows == 2, 1.0, length))


def ensemble(forest: IsolationForest, usual: float) -> dict[str, list[Any]]:
    """The attributes of one TreeEnsembleRegressor that adds up the path lengths of all trees.

    Args:
        usual: the path length that is taken off, so that the sum is 0 for a row like others; as a share
            of the trees, and with the logarithm of 2 in it.
    """
    trees = forest.estimators_
    columns: dict[str, list[Any]] = {
        "nodes_treeids": [], "nodes_nodeids": [], "nodes_featureids": [], "nodes_values": [],
        "nodes_modes": [], "nodes_truenodeids": [], "nodes_falsenodeids": [],
        "target_treeids": [], "target_nodeids": [], "target_ids": [], "target_weights": [],
    }  # fmt: skip
    for number, (tree, features) in enumerate(zip(trees, forest.estimators_features_, strict=True)):
        inner, depth = tree.tree_, np.zeros(tree.tree_.node_count)
        left, right = inner.children_left, inner.children_right
        for i in np.flatnonzero(left >= 0):  # a node stands before those below it
            depth[[left[i], right[i]]] = depth[i] + 1
        leaf = left < 0
        rounded = inner.threshold.astype(np.float32)
        lower = np.nextafter(rounded, np.float32(-np.inf))
        cuts = np.where(leaf, 0.0, np.where(rounded > inner.threshold, lower, rounded))
        length = depth + path_length(inner.n_node_samples)
        weights = np.log(2) * (length - usual) / len(trees)
        nodes, leaves = inner.node_count, np.flatnonzero(leaf).tolist()
        columns["nodes_treeids"] += [number] * nodes
        columns["nodes_nodeids"] += range(nodes)
        columns["nodes_featureids"] += np.where(
            leaf, 0, features[np.maximum(inner.feature, 0)]
        ).tolist()
        columns["nodes_values"] += cuts.astype(np.float64).tolist()
        columns["nodes_modes"] += np.where(leaf, "LEAF", "BRANCH_LEQ").tolist()
        columns["nodes_truenodeids"] += np.where(leaf, 0, left).tolist()
        columns["nodes_falsenodeids"] += np.where(leaf, 0, right).tolist()
        columns["target_treeids"] += [number] * len(leaves)
        columns["target_nodeids"] += leaves
        columns["target_ids"] += [0] * len(leaves)
        columns["target_weights"] += weights[leaf].tolist()
    return columns


class Nearest(Detector):
    """The distance to the fifth nearest of at most a thousand training rows.

    So small a sample is enough, and often better than all rows (Sugiyama and Borgwardt, 2013).
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def learn(self, x: Array) -> None:
        """Keep the sample, in standard units."""
        sample = np.random.default_rng(self.seed).permutation(len(x))[:MAX_NEIGHBOURS]
        self.rows_ = self.standard(x[np.sort(sample)])
        self.neighbour_ = min(NEIGHBOUR, len(self.rows_))

    def oddness(self, x: Array) -> Array:
        """The distance, shape (n,)."""
        z, result = self.standard(x).astype(np.float64), np.empty(len(x))
        neighbours = self.rows_.astype(np.float64)
        for start in range(0, len(z), 500):
            part = z[start : start + 500]
            squares = np.maximum(
                (part**2).sum(1)[:, None] - 2 * part @ neighbours.T + (neighbours**2).sum(1)[None],
                0.0,
            )
            nearest = np.partition(squares, self.neighbour_ - 1, axis=1)[:, self.neighbour_ - 1]
            result[start : start + 500] = np.sqrt(nearest)
        return result

    def nodes(self, graph: Any, matrix: str) -> str:
        """`oddness` as ONNX nodes."""
        z = self.standard_nodes(graph, matrix)
        # Of 64 bits: a difference of large squares has few digits left in 32
        z = graph.add("Cast", z, to=graph.DOUBLE)
        neighbours = self.rows_.astype(np.float64)
        axes = graph.constant([1], np.int64)
        length = graph.add("ReduceSum", graph.add("Mul", z, z), axes, keepdims=1)
        products = graph.add("MatMul", z, graph.constant(-2 * neighbours.T, np.float64))
        squares = graph.add("Add", products, graph.constant([(neighbours**2).sum(1)], np.float64))
        nearest = smallest(graph, squares, self.neighbour_)
        last = graph.constant([self.neighbour_ - 1], np.int64)
        square = graph.add("Add", graph.add("Gather", nearest, last, axis=1), length)
        square = graph.add("Max", square, graph.constant([[0.0]], np.float64))
        return str(graph.add("Cast", graph.add("Sqrt", square), to=graph.FLOAT))


def smallest(graph: Any, values: str, count: int) -> str:
    """The `count` smallest of each row of an output, ascending, as a node: the name of its first output."""
    from onnx import helper

    outputs = [f"_TopK_{len(graph.nodes)}", f"_places_{len(graph.nodes)}"]
    inputs = [values, graph.constant([count], np.int64)]
    graph.nodes.append(helper.make_node("TopK", inputs, outputs, axis=1, largest=0))
    return outputs[0]


class Ecod(Detector):
    """How far out a row is in each column by itself: the sum of the logarithms of the tails (ECOD; Li et al., 2022).

    The distributions are kept as at most 512 quantiles of each column, not as all rows.
    """

    def learn(self, x: Array) -> None:
        """Keep quantiles, and on which side each column has its long tail."""
        shares = np.linspace(0, 1, min(KNOTS, len(x)))
        quantiles = np.quantile(x, shares, axis=0, method="inverted_cdf")
        self.quantiles_ = quantiles.astype(np.float32)  # (knots, width)
        third = ((x.astype(np.float64) - self.middle_) ** 3).mean(axis=0)
        self.leftward_ = third < 0

    def oddness(self, x: Array) -> Array:
        """The largest of three sums: of the left tails, of the right ones, of the longer ones, shape (n,)."""
        x, least = x.astype(np.float32), 1 / len(self.quantiles_)
        left, right = np.empty(x.shape), np.empty(x.shape)
        for column, quantiles in enumerate(self.quantiles_.T):
            below = np.searchsorted(quantiles, x[:, column], side="right") * least
            above = 1 - np.searchsorted(quantiles, x[:, column], side="left") * least
            left[:, column] = -np.log(np.maximum(below, least))
            right[:, column] = -np.log(np.maximum(above, least))
        longer = np.where(self.leftward_, left, right)
        return np.max([side.sum(axis=1) for side in (left, right, longer)], axis=0)

    def nodes(self, graph: Any, matrix: str) -> str:
        """`oddness` as ONNX nodes."""
        axes, n = graph.constant([1], np.int64), len(self.quantiles_)
        # The logarithms are looked up, in 64 bits: a row then has the same bits alone and in company
        tails = -np.log(np.maximum(np.arange(n + 1), 1) / n)
        left, right = (
            graph.add("Gather", graph.constant(table, np.float64), counts(graph, matrix, met, self))
            for table, met in ((tails, "LessOrEqual"), (tails[::-1], "Less"))
        )
        longer = graph.add("Where", graph.constant(self.leftward_[None], np.bool_), left, right)
        sums = [graph.add("ReduceSum", side, axes, keepdims=1) for side in (left, right, longer)]
        return str(graph.add("Cast", graph.add("Max", *sums), to=graph.FLOAT))


def counts(graph: Any, matrix: str, met: str, model: Ecod) -> str:
    """How many quantiles of each column are below a row's value, as ONNX nodes: a binary search of all columns at once.

    Args:
        met: the operator that says so of a quantile and a value: Less, or LessOrEqual.

    Returns:
        the name of whole numbers, shape (n, width).
    """
    knots, width = model.quantiles_.shape
    step = 1 << knots.bit_length()
    padded = np.full((width, step - 1), np.inf, np.float32)  # nothing is above these
    padded[:, :knots] = model.quantiles_.T
    flat = graph.constant(padded.ravel())
    start = graph.constant([np.arange(width) * (step - 1)], np.int64)
    position = start
    while step := step // 2:
        middle = graph.add("Add", position, graph.constant([[step - 1]], np.int64))
        is_met = graph.add(met, graph.add("Gather", flat, middle), matrix)
        taken = graph.add("Cast", is_met, to=graph.INT64)
        ahead = graph.add("Mul", taken, graph.constant([[step]], np.int64))
        position = graph.add("Add", position, ahead)
    return str(graph.add("Sub", position, start))


class Pca(Detector):
    """How far a row lies off the directions in which rows vary most (Shyu et al., 2003)."""

    def __init__(self, explained: float = 0.9) -> None:
        self.explained = explained

    def learn(self, x: Array) -> None:
        """Keep the directions that explain a share of the variance, and one at least is left out."""
        z = self.standard(x).astype(np.float64)
        values, vectors = np.linalg.eigh(z.T @ z / len(z))
        share = np.cumsum(values[::-1]) / max(values.sum(), 1e-12)
        count = min(int(np.searchsorted(share, self.explained)) + 1, len(values) - 1)
        main = vectors[:, ::-1][:, : max(0, count)]
        # 64 bits: what is left over is a small difference
        self.rest_ = np.eye(len(values)) - main @ main.T

    def oddness(self, x: Array) -> Array:
        """The root of the mean square of what is left over, shape (n,)."""
        residual = self.standard(x).astype(np.float64) @ self.rest_
        return np.sqrt((residual**2).mean(axis=1))

    def nodes(self, graph: Any, matrix: str) -> str:
        """`oddness` as ONNX nodes."""
        z = graph.add("Cast", self.standard_nodes(graph, matrix), to=graph.DOUBLE)
        residual = graph.add("MatMul", z, graph.constant(self.rest_, np.float64))
        square, axes = graph.add("Mul", residual, residual), graph.constant([1], np.int64)
        mean = graph.add("ReduceMean", square, axes, keepdims=1)
        return str(graph.add("Cast", graph.add("Sqrt", mean), to=graph.FLOAT))


def width(settings: Settings) -> int:
    """How many scores an answer has."""
    return 1


def floor(y: Array, n: int, settings: Settings, seed: int) -> Array:
    """A score drawn at random for each of n rows, shape (n,): what comes of knowing nothing."""
    return np.random.default_rng(seed).random(n)


def baseline(
    name: str, rows: int, settings: Settings, seed: int, names: Sequence[str] = ()
) -> Detector:
    """An unfitted baseline that can be exported and serve as the fallback.

    heuristic: the column that lies farthest out · simple: all columns together.

    Args:
        rows: of training.
        names: of the features.
    """
    return RobustZ(together=name == "simple")


def objectives(settings: Settings) -> list[dict[str, Any]]:
    """What boosted trees may minimise: there are none."""
    return []


def shifts(y: Array, settings: Settings) -> list[float | None]:
    """The scales that a label is tried on; None: as it is."""
    return [None]


def candidate(
    name: str, settings: Settings, seed: int, trees: Any, folds: Sequence[tuple[Array, Array]]
) -> Detector:
    """An unfitted model.

    isolation_forest: what few cuts at random set apart (Liu et al., 2008) · nearest: the distance to the
    nearest rows (Sugiyama and Borgwardt, 2013) · ecod: how far out each column is by itself (Li et al.,
    2022) · pca: what the main directions leave over (Shyu et al., 2003).

    Args:
        trees, folds: of what learns from labels; not used.

    Raises:
        ValueError: when no candidate has this name.
    """
    match name:
        case "isolation_forest":
            return Forest(settings.modelling.forest.trees, seed)
        case "nearest":
            return Nearest(seed)
        case "ecod":
            return Ecod()
        case "pca":
            return Pca()
        case _:
            raise ValueError(f"no candidate is named {name}")


def aims_at_mean(settings: Settings) -> bool:
    """Whether a score means an average: it is a share of rows."""
    return False


def held_out_loss(y: Array, score: Array, settings: Settings) -> float:
    """What sizes and calibrations would be compared by: nothing here has a size."""
    return 0.0


def fit_matrix(matrix: Array, y: Array) -> Array:
    """What a model is fitted to, shape (n, width): the features alone."""
    return matrix


def fit_options(model: Any, y: Array, held: Array | None = None) -> dict[str, Any]:
    """What else a model takes to be fitted to labels y: nothing."""
    return {}


def matrix_nodes(graph: Any, matrix: str, width: int) -> tuple[str, int]:
    """`fit_matrix` as ONNX nodes: the name of the output, and how many columns it has."""
    return matrix, width


def predict(model: Detector, matrix: Array, width: int) -> Array:
    """How odd each row is in the method's own unit, shape (n,)."""
    return np.asarray(model.oddness(matrix), dtype=np.float64)


def own_nodes(graph: Any, model: Detector, matrix: str) -> str | None:
    """A model as ONNX nodes of its own: the name of the raw score, shape (n, 1)."""
    from onnx import helper

    start = "_model/matrix"  # by such a name `trace` tells where the model begins
    graph.nodes.append(helper.make_node("Identity", [matrix], [start]))
    return model.nodes(graph, start)


def register(boosted: type) -> None:
    """Tell skl2onnx how to export what it does not know: nothing here is exported by it."""


def learnt(y: Array) -> Array:
    """Labels as a model is fitted to them, shape (n,): it does not look at them."""
    return y


def taught(y: Array) -> Array:
    """Labels as features that learn from them see them, shape (n,): what is not known to be odd is usual."""
    return is_odd(y)


def stopping_loss(trees: Any) -> float | None:
    """The loss that early stopping saw: there is none."""
    return None


def straighten(score: Array) -> Array:
    """Scores where a calibration is a line: they are so already, shape (n,)."""
    return score


def bend(line: Array) -> Array:
    """The way back from `straighten`: the line itself, shape (n,)."""
    return line


def straighten_nodes(graph: Any, score: str) -> str:
    """`straighten` as ONNX nodes; takes and returns names in the graph."""
    return score


def bend_nodes(graph: Any, line: str) -> str:
    """`bend` as ONNX nodes; takes and returns names in the graph."""
    return line


def fit_line(kind: str, y: Array, score: Array) -> tuple[float, float]:
    """The slope and the offset of a calibration by a line: a score stays as it is."""
    return 1.0, 0.0


STEPS: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {}  # calibrations by labels


def share_knots(y: Array, score: Array) -> tuple[Array, Array]:
    """Knots from a method's own score to the share of rows that are less odd.

    Of rows that the model was not fitted on, among which those that were made odd do not count. Beyond the
    largest score it goes on rising, so that what is odder than all of them is told apart too.

    Args:
        y: labels, shape (n,); score: raw, shape (n,).

    Returns:
        raw scores, ascending, and the share at each.
    """
    real = np.sort(score[y != MADE_ODD])
    n = len(real)
    levels = np.r_[np.linspace(0, 0.9, 10), 0.95, 0.975, 0.99, 0.995, 0.9975, 0.999, 1.0]
    x = np.quantile(real, levels)
    shares = 0.5 / n + (1 - 1 / n) * levels
    # Knots closer than this would make a slope that magnifies the last bit of a 32-bit float
    step = max(LEAST_STEP * float(np.subtract(*np.quantile(real, [0.9, 0.1]))), 1e-6)
    spaced = [0]
    for i in range(1, len(x)):
        if x[i] - x[spaced[-1]] >= step:
            spaced.append(i)
    x, shares = x[spaced], shares[spaced]
    far = 10 * max(float(np.ptp(real)), step)
    return np.r_[x[0] - far, x, x[-1] + far], np.r_[0.0, shares, 1.0]


SCALES = {"share": share_knots}  # calibrations that take no label


def score_nodes(graph: Any, output: str, prepared: str) -> str:
    """The raw score, shape (n, 1), of what the exported model answers: just that."""
    return output


def around(y: Array, score: Array, level: float) -> dict[str, float] | None:
    """How far around a score the truth lies; None, since a score is no estimate of a truth."""
    return None


def described(
    decision: float, values: list[str], settings: Settings, rows: pd.DataFrame
) -> dict[str, Any]:
    """What the manifest says of this kind of problem beside what it says of each.

    Args:
        values: of the label; rows: that the model was fitted to, as it takes them.
    """
    usual = {str(name): usual_values(rows[name]) for name in rows if rows[name].dtype != np.float64}
    usual = {
        name: facts for name, facts in usual.items() if facts
    }  # not of times: they all lie ahead
    return {"threshold": decision, "label_values": values, "usual": usual}


def usual_values(values: pd.Series) -> dict[str, Any]:
    """What `decision.reasons` needs to know of a column: how common its values are; nothing of one with more than
    `MOST_VALUES` texts, of which each is rare."""
    n = max(1, len(values))
    if values.dtype.kind != "f":
        counts = values.astype(str).str.strip().value_counts()
        missing = float(counts.get("", 0)) / n
        shares = {str(k): float(v) / n for k, v in counts.items() if k}
        return {"missing": missing, "shares": shares} if len(shares) <= MOST_VALUES else {}
    finite = np.sort(values[np.isfinite(values)].to_numpy(np.float64))
    missing = float(1 - len(finite) / n)
    if not len(finite):
        return {"missing": missing, "ends": [0.0, 1.0], "shares": [0.0, 1.0]}
    levels = np.unique(np.r_[0.0, 0.001, 0.005, np.linspace(0.01, 0.99, 50), 0.995, 0.999, 1.0])
    ends = np.unique(np.quantile(finite, levels))
    # In the middle of equal values, so that what many rows have stands out on neither side
    below, upto = (np.searchsorted(finite, ends, side=side) for side in ("left", "right"))
    shares_below = (below + upto) / (2 * len(finite))
    return {"missing": missing, "ends": ends.tolist(), "shares": shares_below.tolist()}
