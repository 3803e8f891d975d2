"""The model as one ONNX file, from raw columns to the score, and what is measured on that file.

What the export rests on stands here too: trees that compare alike on both sides, and calibration, in
numpy and as nodes. Reading and scoring need onnxruntime only; each function imports what training needs.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnxruntime
import pandas as pd

from ..settings import UserError, needed

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer

    from ..features.pipeline import Graph

MODEL = "models/model.onnx"
BASELINE = "models/baseline.onnx"
MANIFEST = "models/manifest.json"
FITTED = "models/fitted.parquet"

OPSETS = {"": 21, "ai.onnx.ml": 3, "com.microsoft": 1}
CHUNK = 20_000  # rows scored at once
CALLS = 400  # of one row, timed
UNSEEN = "\x7f never seen"
KNOTS = 20
# Probabilities are told apart down to these; nearer to 1, a 32-bit float has no digits left
LOWEST, HIGHEST = 1e-7, 1 - 1e-4
Array = np.ndarray


class Scorer:
    """An exported model, ready to score; takes a file or its bytes.

    Raises:
        UserError: when the file is not there or is not a model.
    """

    def __init__(self, model: Path | bytes, threads: int = 1) -> None:
        self._bytes = model if isinstance(model, bytes) else needed(model).read_bytes()
        options = onnxruntime.SessionOptions()
        # One thread: one row is too little work to share, and sums come in one order
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(self._bytes, options)
        except Exception as error:  # onnxruntime's own have no common class
            raise UserError(f"{model!s:.80}: not a model that can be read: {error}") from None
        self.types = {one.name: one.type for one in self.session.get_inputs()}

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self._bytes).hexdigest()

    def feed(self, rows: pd.DataFrame) -> dict[str, Array]:
        """What the session takes: one (n, 1) array for each input."""
        kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64}
        return {
            name: rows[name].to_numpy(kinds.get(type_, object)).reshape(-1, 1)
            for name, type_ in self.types.items()
        }

    def score(self, rows: pd.DataFrame) -> Array:
        """The score of n rows as `features.catalogue.load` gives them, shape (n,)."""
        parts = [
            self.session.run(None, self.feed(rows.iloc[start : start + CHUNK]))[0]
            for start in range(0, len(rows), CHUNK)
        ]
        return np.concatenate([*parts, np.empty((0, 1))]).ravel().astype(np.float64)


class Rounded:
    """Mixed into a LightGBM model: rounds its thresholds down to 32-bit floats after the fit.

    The exported tree compares 32-bit floats. A feature is one already, so `x <= t` holds for the
    same rows when t is lowered to the next 32-bit float, and only then for both sides alike.
    """

    SHAPE = {
        "n_estimators": 150,
        "learning_rate": 0.06,
        "num_leaves": 15,
        "min_child_samples": 40,
        "colsample_bytree": 0.8,
        "reg_lambda": 1.0,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }

    def fit(self, x: Array, y: Array, **options: Any) -> Any:
        from lightgbm import Booster

        super().fit(x, y, **options)  # type: ignore[misc]
        text = self._Booster.model_to_string()  # type: ignore[has-type]
        lines = [
            _lowered(line) if line.startswith("threshold=") else line
            for line in text.split("\n")
            if not line.startswith("tree_sizes=")  # in characters, which have changed
        ]
        self._Booster = Booster(model_str="\n".join(lines))
        return self

    def go_on(self, x: Array, y: Array) -> Any:
        """Grow half as many trees again on top of those that are there, from other rows."""
        trees = self.get_params()["n_estimators"]  # type: ignore[attr-defined]
        self.set_params(n_estimators=trees // 2)  # type: ignore[attr-defined]
        self.fit(x, y, init_model=self._Booster)
        return self.set_params(n_estimators=trees)  # type: ignore[attr-defined]


def _lowered(line: str) -> str:
    values = np.array(line.removeprefix("threshold=").split(), dtype=np.float64)
    down = values.astype(np.float32)
    down = np.where(down > values, np.nextafter(down, np.float32(-np.inf)), down)
    return "threshold=" + " ".join(repr(float(value)) for value in down)


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration: a line (for a probability, of its log-odds), or a line through knots.

    `spread` and `middle` undo the standardised label that a number is trained on.
    """

    probability: bool
    slope: float = 1.0
    offset: float = 0.0
    knots: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    spread: float = 1.0
    middle: float = 0.0

    @property
    def straight(self) -> bool:
        return (self.slope, self.offset) == (1.0, 0.0)

    def __call__(self, score: Array) -> Array:
        """The calibrated score, shape (n,)."""
        if self.knots:
            score = np.interp(score, *self.knots)
        elif not self.straight and self.probability:
            score = 1 / (1 + np.exp(-self.slope * _log_odds(score) - self.offset))
        elif not self.straight:
            score = self.slope * score + self.offset
        return score * self.spread + self.middle

    def to_nodes(self, graph: Graph, score: str) -> str:
        """The same, on an output of shape (n, 1)."""
        if self.knots:
            x, y = (np.array(side, dtype=np.float64) for side in self.knots)
            # Each piece adds its slope times how far the score has come along it
            along = graph.add("Sub", score, graph.constant([x[:-1]]))
            along = graph.add("Max", along, graph.constant([[0.0]]))
            along = graph.add("Min", along, graph.constant([np.diff(x)]))
            slopes = (np.diff(y) / np.diff(x))[:, None]
            climbed = graph.add("MatMul", along, graph.constant(slopes))
            score = graph.add("Add", climbed, graph.constant([[y[0]]]))
        elif not self.straight:
            if self.probability:
                score = graph.add("Min", score, graph.constant([[HIGHEST]]))
                score = graph.add("Max", score, graph.constant([[LOWEST]]))
                rest = graph.add("Sub", graph.constant([[1.0]]), score)
                score = graph.add("Log", graph.add("Div", score, rest))
            score = graph.add("Mul", score, graph.constant([[self.slope]]))
            score = graph.add("Add", score, graph.constant([[self.offset]]))
            score = graph.add("Sigmoid", score) if self.probability else score
        if (self.spread, self.middle) != (1.0, 0.0):
            score = graph.add("Mul", score, graph.constant([[self.spread]]))
            score = graph.add("Add", score, graph.constant([[self.middle]]))
        return score


def _log_odds(score: Array) -> Array:
    score = np.clip(score, LOWEST, HIGHEST)
    return np.log(score / (1 - score))


def fit_calibration(
    kind: Literal["none", "sigmoid", "isotonic"],
    y: Array,
    score: Array,
    probability: bool,
    spread: float = 1.0,
    middle: float = 0.0,
) -> Calibration:
    """Learn a calibration from rows that the model was not fitted on.

    sigmoid: logistic regression on the log-odds (Platt, 1999), for a number a line · isotonic: the
    best rising steps (Zadrozny and Elkan, 2002) over twenty groups of equal size, joined by lines.
    A model whose scores fall where the truth rises is left as it is.

    Args:
        y: truth; score: the model's; both in the unit that it was trained in, shape (n,).
        spread, middle: put on the result: out = spread * calibrated + middle.
    """
    from sklearn.isotonic import isotonic_regression
    from sklearn.linear_model import LogisticRegression

    plain = Calibration(probability, spread=spread, middle=middle)
    if kind == "none" or np.ptp(score) == 0:
        return plain
    if kind == "sigmoid":
        if probability:
            line = LogisticRegression(C=1e6).fit(_log_odds(score)[:, None], y)
            slope, offset = float(line.coef_[0, 0]), float(line.intercept_[0])
        else:
            slope, offset = (float(one) for one in np.polyfit(score, y, 1))
        return Calibration(probability, slope, offset, None, spread, middle) if slope > 0 else plain
    groups = np.array_split(np.argsort(score, kind="stable"), min(KNOTS, len(score)))
    x = np.array([score[group].mean() for group in groups])
    height = isotonic_regression([y[group].mean() for group in groups])
    # Knots closer than this would make a slope that magnifies the last bit of a 32-bit float
    kept = [0]
    for i in range(1, len(x)):
        if x[i] - x[kept[-1]] > 1e-3 * np.ptp(score):
            kept.append(i)
    if len(kept) < 2:
        return plain
    knots = (tuple(map(float, x[kept])), tuple(map(float, height[kept])))
    return Calibration(probability, knots=knots, spread=spread, middle=middle)


def export(
    columns: Mapping[str, str],
    preparation: ColumnTransformer,
    model: Any,
    calibration: Calibration,
) -> bytes:
    """Preparation, model and calibration as one graph; the same ones give the same bytes.

    Args:
        columns: raw column -> type; each becomes an input of shape (n, 1): number and bool float,
            category string, time double.

    Returns:
        an ONNX model whose only output is `score` (`_score` where a column is called so), float, shape (n, 1).
    """
    from onnx import TensorProto, helper
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    from ..features.pipeline import Graph, to_nodes
    from .candidates import CLASSIFIER, register

    register()
    graph = Graph()
    matrix = to_nodes(preparation, graph)
    width = len(preparation.get_feature_names_out())
    part = to_onnx(
        model,
        initial_types=[("features", FloatTensorType([None, width]))],
        options={id(model): {"zipmap": False}} if CLASSIFIER else None,
        target_opset={name: version for name, version in OPSETS.items() if "micro" not in name},
    ).graph
    output = _absorb(graph, part, matrix, part.output[-1].name)
    if CLASSIFIER:
        output = graph.add("Gather", output, graph.constant([1], np.int64), axis=1)
    score = calibration.to_nodes(graph, output)
    named = "_score" if "score" in columns else "score"
    graph.nodes.append(helper.make_node("Identity", [score], [named]))

    kinds = {"category": TensorProto.STRING, "time": TensorProto.DOUBLE}
    nodes, constants = _needed(graph, named)
    whole = helper.make_graph(
        nodes,
        "model",
        [
            helper.make_tensor_value_info(name, kinds.get(type_, TensorProto.FLOAT), [None, 1])
            for name, type_ in columns.items()
        ],
        [helper.make_tensor_value_info(named, TensorProto.FLOAT, [None, 1])],
        constants,
    )
    opsets = [helper.make_opsetid(name, version) for name, version in OPSETS.items()]
    finished = helper.make_model(whole, opset_imports=opsets, ir_version=10)
    names = "\n".join(preparation.get_feature_names_out())
    helper.set_model_props(finished, {"features": names})
    return bytes(finished.SerializeToString(deterministic=True))


def _absorb(graph: Any, part: Any, matrix: str, wanted: str) -> str:
    """Copy another graph's nodes and constants, its one input replaced; returns its output."""
    renamed = {part.input[0].name: matrix, "": ""}
    for tensor in part.initializer:
        renamed[tensor.name] = f"_model/{tensor.name}"
        tensor.name = renamed[tensor.name]
        graph.constants.append(tensor)
    for node in part.node:
        for output in node.output:
            renamed.setdefault(output, f"_model/{output}")
        node.input[:] = [renamed[name] for name in node.input]
        node.output[:] = [renamed[name] for name in node.output]
        node.name = ""
        graph.nodes.append(node)
    return renamed[wanted]


def _needed(graph: Any, output: str) -> tuple[list[Any], list[Any]]:
    """The nodes and constants that an output comes from: not the converters' class labels."""
    wanted, nodes = {output}, []
    for node in reversed(graph.nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            nodes.append(node)
    return nodes[::-1], [tensor for tensor in graph.constants if tensor.name in wanted]


def parity(trained: Array, scorer: Scorer, rows: pd.DataFrame, unit: float = 1.0) -> float:
    """The largest |difference| between the trained pipeline's scores and the exported model's.

    Args:
        trained: the pipeline's score of `rows`, shape (n,).
        unit: what differences are divided by: for a number, the label's standard deviation.

    Returns:
        infinity when either gives no finite number for some row.
    """
    gap = np.abs(trained - scorer.score(rows)) / unit
    return float(gap.max()) if np.isfinite(gap).all() else float("inf")


def with_extremes(rows: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """The rows, and copies of the first twenty with what training is unlikely to have had.

    Each column by itself, and all together: missing, unknown, very long, huge, infinite.
    """
    numbers = [np.nan, 1e30, -1e30, np.inf, -np.inf, 0.0]
    odd: dict[str, list[Any]] = {
        "category": ["", UNSEEN, "é 日本", "x" * 300],
        "time": [*numbers, 4e9, -4e9],
    }
    values = {name: odd.get(type_, numbers) for name, type_ in columns.items()}
    changes: list[dict[str, Any]] = [{name: value} for name in columns for value in values[name]]
    changes += [
        {name: values[name][turn % len(values[name])] for name in columns} for turn in range(8)
    ]
    copies = [rows.head(20).assign(**change) for change in changes]
    return pd.concat([rows, *copies], ignore_index=True).astype(rows.dtypes.to_dict())


def latency(model: Path | bytes, rows: pd.DataFrame) -> dict[str, float]:
    """Milliseconds for one row through the file on one thread, warm: median and 99th percentile."""
    scorer = Scorer(model)
    table = scorer.feed(rows.head(CALLS))
    spent = []
    for turn in range(CALLS + CALLS // 4):
        row = turn % min(len(rows), CALLS)
        feed = {name: values[row : row + 1] for name, values in table.items()}
        start = time.perf_counter()
        scorer.session.run(None, feed)
        spent.append(1000 * (time.perf_counter() - start))
    p50, p99 = np.quantile(spent[CALLS // 4 :], [0.5, 0.99])
    return {"p50_ms": float(p50), "p99_ms": float(p99)}
