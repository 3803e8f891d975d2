"""Encoders that the team gives: networks, trained elsewhere, whose answers to an image or a text are summed up.

Nothing of them is learnt here: their nodes are joined into the one graph, and the linear model of images or texts
(features/text.py) is fitted to what they give.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import ModelProto, TensorProto, numpy_helper

from ..images import Form
from ..model import Scorer
from ..paths import MODEL_FILE
from ..settings import Feature, UserError, missing_library, read_text
from .graph import Graph, in_own_opset, input_names

Array = np.ndarray
TOKENIZER_FILE = "tokenizer.json"  # beside the network of a text's encoder
MAX_ANSWERS = 20_000  # that a network gives of a row: a linear model of more takes minutes
LENGTH = 128  # tokens, where `length` does not say
# What a transformer is fed, and which of its outputs is read, the first that it has
TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TEXT_OUTPUTS = ("sentence_embedding", "last_hidden_state")
MIN_SPREAD = 1e-3  # of a number of the network, so that one that never varies stays 0
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
ROWS_AT_ONCE = 512


class ImageNetwork:
    """A network whose answers to an image are summed up, and its part of the graph.

    Args:
        name: the feature's.
        feature: `encoder` is the network's file, `layer` an output inside of it; `means` and `spreads` bring
            values from 0 to 1 into the form that it wants.
        form: of the column's images.

    Raises:
        UserError: when the file is missing, is no network, or reads no such images.
    """

    def __init__(self, name: str, feature: Feature, form: Form) -> None:
        self.feature, self.form = feature, form
        column, network = feature.column or name, _Network(name, str(feature.encoder))
        try:
            self._fit_input(network.model, column)
            self.output = feature.layer or network.model.graph.output[0].name
            self.model = in_own_opset(network.model, self.output)
            graph = Graph()
            answers = _tried(graph, self.to_nodes(graph, column), {column: "image"}, [""])
        except UserError as error:
            raise network.refused(error) from None
        if answers.ndim != 2 or len(answers) != 1 or not np.isfinite(answers).all():
            raise network.refused(f"{self.output} is no row of numbers for an image")
        self.width = answers.shape[1]
        if self.width > MAX_ANSWERS:
            raise network.refused(
                f"{self.output} holds {self.width:,} numbers an image; name a later layer, of at most {MAX_ANSWERS:,}"
            )

    def to_nodes(self, graph: Graph, column: str) -> str:
        """Add the nodes from images, uint8, to what the network makes of each, float32, shape (n, width)."""
        graph.images[column] = self.form
        values = graph.add("Cast", column, to=graph.FLOAT)
        values = graph.add("Mul", values, graph.constant(1 / 255))
        means = np.reshape(self.feature.means or (0.0,), (1, -1, 1, 1))
        spreads = np.reshape(self.feature.spreads or (1.0,), (1, -1, 1, 1))
        centred = graph.add("Sub", values, graph.constant(means))
        values = graph.add("Div", centred, graph.constant(spreads))
        values = graph.add("Cast", values, to=self.kind)
        answers = graph.include(self.model, {self.input: values}, self.output)
        return graph.add("Flatten", graph.add("Cast", answers, to=graph.FLOAT), axis=1)

    @property
    def weights(self) -> Array:
        """How much each column of the nodes counts, shape (width,)."""
        return np.ones(self.width)

    def _fit_input(self, model: ModelProto, column: str) -> None:
        """Find the input of the images, and set its size where that is open.

        Raises:
            UserError: when there is none, or it is of another shape.
        """
        names = input_names(model)
        if len(names) != 1:
            raise UserError(f"it has the inputs {', '.join(names)}, and an image is one")
        self.input = names[0]
        (value,) = (value for value in model.graph.input if value.name == self.input)
        tensor = value.type.tensor_type
        if tensor.elem_type not in FLOATS:
            raise UserError(f"{self.input} takes no floating-point numbers")
        self.kind = tensor.elem_type
        shape = (1, self.form.channels, self.form.size, self.form.size)
        sizes = [dim.dim_value for dim in tensor.shape.dim]
        if len(sizes) != 4 or any(
            size not in (0, due) for size, due in zip(sizes, shape, strict=True)
        ):
            due_sizes = " × ".join(str(size or "any") for size in sizes)
            raise UserError(
                f"it reads {due_sizes}, and the images of {column} are {' × '.join(map(str, shape))}: "
                f"set size and colours of data.schema.columns.{column}"
            )
        for dim, due in list(zip(tensor.shape.dim, shape, strict=True))[1:]:
            dim.dim_value = due


class TextNetwork:
    """A transformer whose numbers of a text are summed up, and its part of the graph.

    Of hidden states, one a token, the mean is taken. A text is read as it is written, of its tokens the first
    `length`, and one at a time, so that no token is there to fill up.

    Args:
        name: the feature's.
        feature: `encoder` is a folder with model.onnx and tokenizer.json.

    Raises:
        UserError: when a file is missing or cannot be read, or tokenizers is not installed.
    """

    def __init__(self, name: str, feature: Feature) -> None:
        try:
            import tokenizers  # noqa: F401
        except ModuleNotFoundError:
            raise missing_library("tokenizers") from None
        self.length, folder = feature.length or LENGTH, Path(str(feature.encoder))
        network = _Network(name, str(folder), MODEL_FILE, TOKENIZER_FILE)
        self.tokenizer, column = read_text(folder / TOKENIZER_FILE), feature.column or name
        try:
            self._choose_ends(network.model)
            self.model = in_own_opset(network.model, self.output)
            graph = Graph()
            hidden = graph.add("Cast", self._hidden(graph, column), to=graph.FLOAT)
            # More tokens than a position is learnt for would fail at the first long text
            answers = _tried(graph, hidden, {column: "text"}, ["", "a b " * self.length])
        except UserError as error:
            raise network.refused(error) from None
        if answers.ndim not in (2, 3) or len(answers) != 1 or not np.isfinite(answers).all():
            raise network.refused(f"{self.output} holds no numbers of a text or of its tokens")
        self.is_by_token = answers.ndim == 3
        self.width = answers.shape[-1]

    def fit_transform(self, column: str, texts: pd.Series) -> Array:
        """Learn where the network's numbers lie, and give those of n texts, float32, shape (n, width)."""
        graph = Graph()
        output = graph.add("Identity", self._pooled(graph, column))
        scorer = Scorer(graph.model({column: "text"}, output, self.width))
        answers = scorer.run({column: texts}, ROWS_AT_ONCE)
        self.means_ = answers.mean(axis=0)
        # A text is about as long a vector as one of n-grams, so that one penalty does for both
        spreads = (answers.std(axis=0) + MIN_SPREAD) * np.sqrt(self.width)
        self.spreads_ = spreads.astype(np.float32)
        return np.asarray((answers - self.means_) / self.spreads_)

    def to_nodes(self, graph: Graph, column: str) -> str:
        """Add the nodes from tokens to what `fit_transform` gives."""
        centred = graph.add("Sub", self._pooled(graph, column), graph.constant([self.means_]))
        return graph.add("Div", centred, graph.constant([self.spreads_]))

    def _choose_ends(self, model: ModelProto) -> None:
        inputs, outputs = input_names(model), [value.name for value in model.graph.output]
        if "input_ids" not in inputs or not {*inputs} <= {*TEXT_INPUTS}:
            raise UserError(
                f"its inputs are {', '.join(inputs)}; can be fed: {', '.join(TEXT_INPUTS)}"
            )
        present = [name for name in TEXT_OUTPUTS if name in outputs]
        if not present:
            raise UserError(
                f"its outputs are {', '.join(outputs)}; can be read: {' or '.join(TEXT_OUTPUTS)}"
            )
        self.output = present[0]
        self.kinds = {
            value.name: value.type.tensor_type.elem_type
            for value in model.graph.input
            if value.name in inputs
        }

    def _hidden(self, graph: Graph, column: str) -> str:
        ids = graph.token_input(column, self.tokenizer, self.length)
        shape = graph.add("Shape", ids)
        mask, types = (
            graph.add("ConstantOfShape", shape, value=numpy_helper.from_array(np.array([value])))
            for value in (1, 0)
        )
        sources = dict(zip(TEXT_INPUTS, (ids, mask, types), strict=True))
        feeds = {
            name: graph.add("Cast", sources[name], to=kind) for name, kind in self.kinds.items()
        }
        return graph.include(self.model, feeds, self.output)

    def _pooled(self, graph: Graph, column: str) -> str:
        hidden = graph.add("Cast", self._hidden(graph, column), to=graph.FLOAT)
        if not self.is_by_token:
            return hidden
        return graph.add("ReduceMean", hidden, graph.constant([1], np.int64), keepdims=0)


class _Network:
    """What is read of an encoder, and how it is refused.

    Args:
        name: the feature's.
        path: the file, or the folder that holds `files`, the first of which is the network's.

    Raises:
        UserError: when a file is missing or holds no network.
    """

    def __init__(self, name: str, path: str, *files: str) -> None:
        self.name, self.path = name, path
        parts = [Path(path, file) for file in files] or [Path(path)]
        for part in parts:
            if not part.is_file():
                raise self.refused(
                    f"{part.as_posix()} is not here; put it there and `dvc add {path}`, or `dvc pull {path}` "
                    f"where somebody did"
                )
        try:
            self.model: ModelProto = onnx.load(parts[0])
        except Exception:  # the reader's own is of a library that only onnx names
            raise self.refused(
                f"{parts[0].as_posix()} is no ONNX network that can be read"
            ) from None
        if not self.model.graph.output:
            raise self.refused(f"{parts[0].as_posix()} is no ONNX network that can be read")

    def refused(self, reason: Any) -> UserError:
        """Why a feature cannot be made by this encoder."""
        return UserError(f"features.catalogue: {self.name}: encoder {self.path}: {reason}")


def _tried(graph: Graph, output: str, columns: dict[str, str], values: list[str]) -> Array:
    """What a graph gives of the last of several values of its one column.

    Raises:
        UserError: when it cannot be run.
    """
    (column,) = columns
    try:
        scorer = Scorer(graph.model(columns, graph.add("Identity", output), None))
        for value in values:
            feed = scorer.feed({column: [value]})
            answers = scorer.session.run(None, feed)[0]
    except Exception as error:  # onnxruntime's own have no common class
        raise UserError(f"it cannot be run: {' '.join(str(error).split())[:200]}") from None
    return np.asarray(answers)
