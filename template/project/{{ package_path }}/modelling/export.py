"""The model as one ONNX file, from raw columns to the score."""

from __future__ import annotations

from typing import Any

from onnx import ModelProto, TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

from ..features.graph import OPSETS, Graph
from ..features.pipeline import Preparation
from ..problem import models
from .boosting import Boosted
from .calibration import Calibration


def export(preparation: Preparation, model: Any, calibration: Calibration, width: int) -> bytes:
    """Preparation, model and calibration as one graph; equal parts give equal bytes.

    Args:
        model: fitted to the preparation's matrix; skl2onnx converts what brings no nodes of its own.
        width: how many scores a row has.

    Returns:
        an ONNX model whose inputs are the raw columns and whose only output is `score` (`_score` where
        a column is called so), float, shape (n, width).
    """
    graph = Graph()
    prepared = preparation.to_nodes(graph)
    matrix, columns_fitted = models.matrix_nodes(graph, prepared, len(preparation.names))
    output = models.own_nodes(graph, model, matrix)
    if output is None:
        part = converted(model, columns_fitted)
        output = _absorb(graph, part, matrix, part.output[-1].name)
    score = calibration.to_nodes(graph, models.score_nodes(graph, output, prepared))
    columns = preparation.columns
    output_name = "_score" if "score" in columns else "score"
    graph.nodes.append(helper.make_node("Identity", [score], [output_name]))
    properties = {"features": "\n".join(preparation.names), **preparation.properties}
    return graph.model(columns, output_name, width, **properties)


def converted(model: Any, width: int) -> Any:
    """A fitted model's nodes as a graph of its own, from a matrix of so many columns to what the model says."""
    models.register(Boosted)
    return to_onnx(
        model,
        initial_types=[("features", FloatTensorType([None, width]))],
        options={id(model): models.OPTIONS} if models.OPTIONS else None,
        target_opset={name: version for name, version in OPSETS.items() if "micro" not in name},
    ).graph


def _absorb(graph: Graph, part: Any, matrix: str, result: str) -> str:
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
    return renamed[result]


def part_of(model: ModelProto, name: str) -> bytes:
    """The part of a model that makes one of its tensors, of shape (n, width), as a model whose output that is."""
    names, nodes = {name}, list[Any]()
    for node in reversed(model.graph.node):
        if names & {*node.output}:
            names |= {*node.input}
            nodes.insert(0, node)
    part = ModelProto()
    part.CopyFrom(model)
    del part.graph.node[:], part.graph.initializer[:], part.graph.output[:]
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(t for t in model.graph.initializer if t.name in names)
    part.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]))
    return bytes(part.SerializeToString(deterministic=True))
