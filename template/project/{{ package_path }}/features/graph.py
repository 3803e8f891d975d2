"""An ONNX graph, put together node by node: what the preparations and the export write into."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    inliner,
    numpy_helper,
    version_converter,
)

from ..images import Form
from ..model import Tokens
from ..settings import UserError

OPSETS = {"": 21, "ai.onnx.ml": 3, "com.microsoft": 1}
TENSORS = {
    "category": TensorProto.STRING,
    "text": TensorProto.STRING,
    "time": TensorProto.DOUBLE,
    "image": TensorProto.UINT8,
}
SEPARATOR = "\x1f"  # between the two parts of a crossing: ASCII's own unit separator
INCLUDED = "_included_"  # what all names of another network begin with
OPEN_AXIS = 8  # the size that an axis of no size has where a network is tried
MAX_GAP = 1e-5  # between what a network says in its own opset and in the graph's

Array = np.ndarray


class Graph:
    """An ONNX graph while it is put together; `add` and `constant` return the name of an output.

    Its names begin with an underscore, as no column's does: the columns are the graph's inputs.
    """

    FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64  # of `Cast`

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.images: dict[str, Form] = {}  # by column: who reads one says in which form
        self.histories: dict[str, int] = {}  # by column: how many values, the latest last
        self.tokens: dict[str, Tokens] = {}  # by the name of the input that they come by

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

    def token_input(self, column: str, tokenizer: str, length: int) -> str:
        """An input of its own for the tokens of a column's text, int64, shape (n, tokens).

        `model.Scorer` makes them, of one row at a time: n is 1, and no token is there to fill up.

        Args:
            tokenizer: the content of a tokenizer.json (Hugging Face `tokenizers`).
            length: tokens that are read at most.
        """
        name = f"_tokens_{len(self.tokens)}"
        self.tokens[name] = Tokens(column, tokenizer, length)
        return name

    def include(self, model: ModelProto, feeds: Mapping[str, str], output: str) -> str:
        """Join another network's nodes to the graph, all of its names renamed.

        Args:
            model: in any opset; it is not changed.
            feeds: each of its inputs -> an output of this graph, of the type and shape that it wants.
            output: of any of its nodes.

        Returns:
            what `output` is called here.

        Raises:
            UserError: when it lacks that output or an input is not fed, or when it says something else in
                this graph's opset than in its own.
        """
        inputs = set(input_names(model))
        if inputs != set(feeds):
            raise UserError(f"its inputs are {', '.join(sorted(inputs))}")
        prefix = f"{INCLUDED}{len(self.nodes)}/"
        part = in_own_opset(model, output).graph
        _rename(part, prefix)
        for name, source in feeds.items():
            self.nodes.append(helper.make_node("Identity", [source], [f"{prefix}{name}"]))
        self.nodes.extend(part.node)
        self.constants.extend(part.initializer)
        return f"{prefix}{output}"

    def model(
        self, columns: Mapping[str, str], output: str, width: int | None, **properties: str
    ) -> bytes:
        """The graph as a file; the same nodes give the same bytes.

        What the output does not come from is left out: converters add class labels, for instance.

        Args:
            columns: raw column -> type; each is an input of shape (n, 1): number and bool float,
                category and text string, time double; an image is uint8, (n, channels, size, size), a history float, (n, values).
            output: the name of the only output, float, shape (n, width); None: a width to be found out.
            properties: what the file says of itself.
        """
        used, nodes = {output}, []
        for node in reversed(self.nodes):
            if used & set(node.output):
                used |= set(_read_by(node))
                nodes.append(node)
        shaped = helper.make_tensor_value_info
        inputs = [
            shaped(name, TENSORS.get(kind, self.FLOAT), [None, *self._shape(name)])
            for name, kind in columns.items()
        ]
        tokens = {name: of for name, of in sorted(self.tokens.items()) if name in used}
        inputs += [shaped(name, TensorProto.INT64, [None, None]) for name in tokens]
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
        if self.histories:
            properties["histories"] = "\n".join(sorted(self.histories))  # and reads these
        if tokens:
            properties["tokens"] = json.dumps(tokens)  # `model.Scorer` makes them
        helper.set_model_props(finished, properties)
        return bytes(finished.SerializeToString(deterministic=True))

    def _shape(self, column: str) -> list[int]:
        """The shape of one row's value."""
        if form := self.images.get(column):
            return [form.channels, form.size, form.size]
        return [self.histories.get(column, 1)]


def input_names(model: ModelProto) -> list[str]:
    """The inputs that a network has to be fed: those that no constant of its own fills."""
    filled = {tensor.name for tensor in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in filled]


def in_own_opset(model: ModelProto, output: str) -> ModelProto:
    """A network with one output and no functions, in the opset of `Graph`; one that is so stays the same.

    Args:
        output: of any of its nodes.

    Raises:
        UserError: as `Graph.include`.
    """
    single = ModelProto()
    single.CopyFrom(inliner.inline_local_functions(model) if model.functions else model)
    if output not in {name for node in single.graph.node for name in node.output if name}:
        named = ", ".join(value.name for value in model.graph.output)
        raise UserError(f"no node of it gives {output!r}; its outputs are {named}")
    outputs = [value for value in single.graph.output if value.name == output]
    del single.graph.output[:]
    single.graph.output.extend(outputs or [ValueInfoProto(name=output)])
    if single.graph.sparse_initializer:
        raise UserError("it holds sparse constants, which no model here can hold")
    versions = {_domain(entry.domain): entry.version for entry in single.opset_import}
    for domain in {_domain(node.domain) for node in _nested(single.graph.node)} - {""}:
        if versions.get(domain, 1) > OPSETS.get(domain, 0):
            raise UserError(f"it has operators of {domain}, which no model here can hold")
    if versions[""] == OPSETS[""]:
        return single
    values = _random_values(single)
    expected = _answers(single, values)
    change = f"brought from opset {versions['']} to {OPSETS['']}"
    try:
        converted = version_converter.convert_version(single, OPSETS[""])
    except Exception as error:  # the converter's own have no common class
        raise UserError(f"it cannot be {change}: {' '.join(str(error).split())[:200]}") from None
    if not np.allclose(_answers(converted, values), expected, rtol=MAX_GAP, atol=MAX_GAP):
        raise UserError(f"{change}, it gives other values")
    return converted


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _nested(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, and those of the graphs inside of them, such as the branches of an If."""
    for node in nodes:
        yield node
        for graph in _inside(node):
            yield from _nested(graph.node)


def _inside(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _rename(graph: GraphProto, prefix: str) -> None:
    """Put a prefix before all names, in the graphs inside too (`onnx.compose` leaves out constants read there)."""
    del graph.value_info[:]
    for named in (*graph.initializer, *graph.input, *graph.output):
        named.name = f"{prefix}{named.name}"
    for node in graph.node:
        node.name = ""
        node.input[:] = [name and f"{prefix}{name}" for name in node.input]
        node.output[:] = [name and f"{prefix}{name}" for name in node.output]
        for inner in _inside(node):
            _rename(inner, prefix)


def _read_by(node: NodeProto) -> Iterator[str]:
    """What a node reads, the graphs inside of it too."""
    for nested in _nested([node]):
        yield from nested.input
        for graph in _inside(nested):
            yield from (value.name for value in graph.output)


def _random_values(model: ModelProto) -> dict[str, Array]:
    """A value for each input of a network: of axes whose size is open, the first is 1 and others are 8."""
    rng, names, values = np.random.default_rng(0), input_names(model), {}
    for value in model.graph.input:
        if value.name in names:
            tensor = value.type.tensor_type
            dims = tensor.shape.dim
            shape = [dim.dim_value or (OPEN_AXIS if i else 1) for i, dim in enumerate(dims)]
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            is_real = np.issubdtype(dtype, np.floating)
            drawn = rng.random(shape) if is_real else rng.integers(0, 2, shape)
            values[value.name] = np.asarray(drawn).astype(dtype)
    return values


def _answers(model: ModelProto, values: Mapping[str, Array]) -> Array:
    """A network's only output.

    Raises:
        UserError: when it cannot be run.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        return np.asarray(session.run(None, dict(values))[0])
    except Exception as error:  # onnxruntime's own have no common class
        raise UserError(f"it cannot be run: {' '.join(str(error).split())[:200]}") from None
