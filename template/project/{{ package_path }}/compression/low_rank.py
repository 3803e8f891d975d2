"""Two thin matrices in the place of a large one: low rank, each layer trained anew to say what the whole layer says.

The first matrix leads to the directions in which the layer's answers to rows lie most (Eckart and Young, 1936); the second
is fitted by least squares to these answers, from what the layers before, already thin, hand on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..modelling.export import part_of
from ..modelling.scorer import load_scorer

MOST_NUMBERS = 20_000_000  # that a layer is given for all rows that it is trained on
MAX_ROWS = 2_000  # of these


def factored(model: bytes, names: list[str], share: float, rows: pd.DataFrame) -> bytes:
    """A model with thin matrices, as ONNX; the same bytes where it has no layer that takes them.

    Args:
        names: the outputs of the products of matrices, in the order of the graph.
        share: of a layer's weights that its two matrices have at most.
        rows: that the layers are trained on.
    """
    import onnx

    graph = onnx.load_from_string(model)
    # The layers of tokens answer each token of a row; products of histories are what features are made by, and not learnt
    if {"tokens", "histories"} & {entry.key for entry in graph.metadata_props}:
        return model
    whole = onnx.load_from_string(model)
    for name in names:
        _thin(graph, whole, name, share, rows.head(MAX_ROWS))
    return bytes(graph.SerializeToString(deterministic=True)) if names else model


def _thin(graph: Any, whole: Any, name: str, share: float, rows: pd.DataFrame) -> None:
    """Put two matrices in the place of that of a product."""
    from onnx import helper, numpy_helper

    position = next(i for i, node in enumerate(graph.graph.node) if name in node.output)
    node = graph.graph.node[position]
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    is_turned = any(a.name == "transB" and a.i for a in node.attribute)
    weights = numpy_helper.to_array(tensors[node.input[1]]).astype(np.float64)
    weights = weights.T if is_turned else weights
    rows = rows.head(max(1, MOST_NUMBERS // len(weights)))
    inputs, now = (
        load_scorer(part_of(model, node.input[0])).run(rows).astype(np.float64)
        for model in (whole, graph)
    )
    answers = inputs @ weights
    rank = max(1, int(share * weights.size / sum(weights.shape)))
    first = weights @ np.linalg.eigh(answers.T @ answers)[1][:, -rank:]
    second = np.linalg.lstsq(now @ first, answers, rcond=None)[0]
    for part, matrix in (("first", first), ("second", second.T if is_turned else second)):
        tensor = numpy_helper.from_array(matrix.astype(np.float32), f"{name}/{part}")
        graph.graph.initializer.append(tensor)
    if sum(node.input[1] in user.input for user in graph.graph.node) == 1:
        graph.graph.initializer.remove(tensors[node.input[1]])
    thin = helper.make_node("MatMul", [node.input[0], f"{name}/first"], [f"{name}/thin"])
    node.input[0], node.input[1] = f"{name}/thin", f"{name}/second"
    graph.graph.node.insert(position, thin)
