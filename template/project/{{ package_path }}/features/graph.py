"""An ONNX graph, put together node by node: what the preparations and the export write into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..images import Form

OPSETS = {"": 21, "ai.onnx.ml": 3, "com.microsoft": 1}
TENSORS = {
    "category": TensorProto.STRING,
    "text": TensorProto.STRING,
    "time": TensorProto.DOUBLE,
    "image": TensorProto.UINT8,
}


class Graph:
    """An ONNX graph while it is put together; `add` and `constant` return the name of an output.

    Its names begin with an underscore, as no column's does: the columns are the graph's inputs.
    """

    FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE  # of `Cast`

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.images: dict[str, Form] = {}  # by column: who reads one says in which form

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of an ONNX operator (onnx.ai/onnx/operators) to the graph."""
        output = f"_{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, values: Any, dtype: type = np.float32) -> str:
        """A constant; `dtype=str` makes one of strings."""
        name = f"_constant_{len(self.constants)}"
        if dtype is str:
            texts = np.asarray(values, dtype=object)
            data = [text.encode() for text in texts.ravel()]
            tensor = helper.make_tensor(name, TensorProto.STRING, texts.shape, data)
        else:
            tensor = numpy_helper.from_array(np.asarray(values, dtype=dtype), name)
        self.constants.append(tensor)
        return name

    def join(self, parts: list[str]) -> str:
        """Outputs of shape (n, width) side by side, as one output."""
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=1)

    def look_up(self, texts: str, categories: Sequence[str]) -> str:
        """The position of each text among the categories, from 0, as a float; -1 for any other text."""
        return self.add(
            "LabelEncoder",
            texts,
            domain="ai.onnx.ml",
            keys_strings=list(categories),
            values_floats=[float(i) for i in range(len(categories))],
            default_float=-1.0,
        )

    def model(
        self, columns: Mapping[str, str], output: str, width: int, **properties: str
    ) -> bytes:
        """The graph as a file; the same nodes give the same bytes.

        What the output does not come from is left out: converters add class labels, for instance.

        Args:
            columns: raw column -> type; each is an input of shape (n, 1): number and bool float,
                category and text string, time double; an image is uint8, (n, channels, size, size).
            output: the name of the only output, float, shape (n, width).
            properties: what the file says of itself.
        """
        used, nodes = {output}, []
        for node in reversed(self.nodes):
            if used & set(node.output):
                used |= set(node.input)
                nodes.append(node)
        shaped = helper.make_tensor_value_info
        inputs = [
            shaped(name, TENSORS.get(kind, self.FLOAT), [None, *self._shape(name)])
            for name, kind in columns.items()
        ]
        outputs = [shaped(output, self.FLOAT, [None, width])]
        constants = [tensor for tensor in self.constants if tensor.name in used]
        graph = helper.make_graph(nodes[::-1], "model", inputs, outputs, constants)
        opsets = [helper.make_opsetid(name, version) for name, version in OPSETS.items()]
        finished = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        if texts := [name for name, kind in columns.items() if kind == "text"]:
            properties["texts"] = "\n".join(texts)  # `model.Scorer` normalizes them
        if self.images:
            fits = [f"{self.images[name].fit} {name}" for name in sorted(self.images)]
            properties["images"] = "\n".join(fits)  # `model.Scorer` decodes them
        helper.set_model_props(finished, properties)
        return bytes(finished.SerializeToString(deterministic=True))

    def _shape(self, column: str) -> list[int]:
        """The shape of one row's value."""
        if form := self.images.get(column):
            return [form.channels, form.size, form.size]
        return [1]
