"""The model as one ONNX file, from raw columns to the score, and what is measured on that file.

Reading and scoring need onnxruntime only; each function imports what training needs.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pandas as pd

from ..settings import UserError, needed

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer

    from .calibration import Calibration

MODEL = "models/model.onnx"
BASELINE = "models/baseline.onnx"
MANIFEST = "models/manifest.json"
FITTED = "models/fitted.parquet"

OPSETS = {"": 21, "ai.onnx.ml": 3, "com.microsoft": 1}
CHUNK = 20_000  # rows scored at once
CALLS, BLOCKS = 200, 5  # of one row, timed: so many in each of so many blocks
UNSEEN = "\x7f never seen"
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
        """The score of n rows as `features.catalogue.load` gives them, shape (n,).

        Rows go in fours, as in service: what is beyond a multiple of four is summed in another order,
        and a row would not have the same bits alone and among others.
        """
        n = len(rows)
        whole = rows.iloc[np.minimum(np.arange(n + -n % 4), n - 1)] if n % 4 else rows
        parts = [
            self.session.run(None, self.feed(whole.iloc[start : start + CHUNK]))[0]
            for start in range(0, len(whole), CHUNK)
        ]
        return np.concatenate([*parts, np.empty((0, 1))]).ravel().astype(np.float64)[:n]


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
    from ..problem import models
    from .boosting import Boosted

    models.register(Boosted)
    graph = Graph()
    matrix = to_nodes(preparation, graph)
    width = len(preparation.get_feature_names_out())
    part = to_onnx(
        model,
        initial_types=[("features", FloatTensorType([None, width]))],
        options={id(model): models.OPTIONS} if models.OPTIONS else None,
        target_opset={name: version for name, version in OPSETS.items() if "micro" not in name},
    ).graph
    output = _absorb(graph, part, matrix, part.output[-1].name)
    score = calibration.to_nodes(graph, models.score_nodes(graph, output))
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


def parity(trained: Array, scorer: Scorer, rows: pd.DataFrame, unit: float | Array = 1.0) -> float:
    """The largest |difference| between the trained pipeline's scores and the exported model's.

    Args:
        trained: the pipeline's score of `rows`, shape (n,).
        unit: what differences are divided by: for a number, the label's standard deviation; one
            value, or one a row.

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


def latency(model: Path | bytes, rows: pd.DataFrame, blocks: int = BLOCKS) -> dict[str, float]:
    """Milliseconds for one row through the file on one thread, warm: median and 99th percentile.

    In processor time of that thread, and of the quickest of several blocks, so that what else runs on
    the machine does not decide.
    """
    clock = time.thread_time
    if time.get_clock_info("thread_time").resolution > 1e-6:  # 16 ms on Windows
        clock = time.perf_counter
    scorer = Scorer(model)
    table = scorer.feed(rows.head(CALLS))
    feeds = [
        {name: values[turn : turn + 1] for name, values in table.items()}
        for turn in range(min(len(rows), CALLS))
    ]
    spent = np.empty((blocks + 1, CALLS))  # the first block warms up
    for block in range(blocks + 1):
        for turn in range(CALLS):
            start = clock()
            scorer.session.run(None, feeds[turn % len(feeds)])
            spent[block, turn] = 1000 * (clock() - start)
    p50, p99 = np.quantile(spent[1:], [0.5, 0.99], axis=1).min(axis=1)
    return {"p50_ms": float(p50), "p99_ms": float(p99)}
