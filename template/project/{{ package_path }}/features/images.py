"""Images as features: what a linear model makes of the patches that they are made of.

The filters are learnt from the training images without their labels, as the centres of whitened patches (k-means,
Coates and Ng, 2012, "Learning feature representations with k-means"); how strongly each answers in each part of an
image is what a linear model sums up, as it does for the n-grams of texts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from onnx import ModelProto, TensorProto
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

from ..images import Form, pixels
from ..model import Scorer
from ..settings import Feature, UserError
from .graph import Graph, in_own_opset, input_names
from .text import GivenNetwork, LinearModel, tried

Array = np.ndarray
FILTERS = 64  # where `bins` does not say
MAX_IMAGES = 2_000  # that patches are learnt from, and how many of these
MAX_PATCHES = 20_000
GRID = 4  # parts a side in which answers are averaged
FINE = 32  # pixels a side, beyond which filters take steps of two or more
SMALL_PATCH, PATCH = 3, 5  # pixels a side, of images below and from
SMALL = 16  # pixels a side
MIN_CONTRAST = 1e-2  # so that a flat patch stays one
MIN_VARIANCE = 0.05  # below which whitening lifts no direction: that is noise
MAX_DIRECTIONS = 256  # in which answers vary most, that are summed up: more take minutes
MIN_SPREAD = 1e-3  # of a column, so that one that never varies stays 0
ROWS_AT_ONCE = 512
MAX_ANSWERS = 20_000  # that a network gives of a row: a linear model of more takes minutes
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


class Patches:
    """The filters of one image feature, and their part of the graph.

    Args:
        feature: `bins` is the number of filters.
        form: of the column's images.
    """

    def __init__(self, feature: Feature, form: Form) -> None:
        self.count, self.form = feature.bins or FILTERS, form
        self.side = SMALL_PATCH if form.size < SMALL else PATCH

    def fit(self, images: Array, seed: int) -> None:
        """Learn `filters_`, float32, shape (filters, channels, side, side), from n images.

        Args:
            images: uint8, shape (n, channels, size, size).

        Raises:
            ValueError: when they hold fewer different patches than filters.
        """
        patches = _normalised(self._drawn(images, np.random.default_rng(seed)))
        patches -= patches.mean(axis=0)
        vectors, values, _ = np.linalg.svd(np.cov(patches.T))
        whiten = vectors @ np.diag(1 / np.sqrt(values + MIN_VARIANCE)) @ vectors.T
        whitened = (patches @ whiten).astype(np.float32)
        if len(np.unique(whitened[:MAX_IMAGES], axis=0)) < self.count:
            raise ValueError
        means = MiniBatchKMeans(self.count, random_state=seed, n_init=3, batch_size=2048)
        centres = means.fit(whitened).cluster_centers_
        centres = centres / (np.linalg.norm(centres, axis=1, keepdims=True) + MIN_SPREAD)
        shape = (self.count, self.form.channels, self.side, self.side)
        self.filters_ = (centres @ whiten).reshape(shape).astype(np.float32)

    def to_nodes(self, graph: Graph, column: str) -> str:
        """Add the nodes from images, uint8, to what each part of an image holds, float32, shape (n, width).

        That is the mean of each channel, and of each filter's answers above and below 0.
        """
        graph.images[column] = self.form
        step, margin = max(1, self.form.size // FINE), self.side // 2
        values = graph.add("Cast", column, to=TensorProto.FLOAT)
        values = graph.add("Mul", values, graph.constant([[[[1 / 255]]]]))
        # The edge goes on beyond the image: black there would be an edge, the stronger the lighter the image
        margins = graph.constant([0, 0, margin, margin] * 2, np.int64)
        padded = graph.add("Pad", values, margins, mode="edge")
        answers = graph.add("Conv", padded, graph.constant(self.filters_), strides=[step] * 2)
        side = -(-self.form.size // step)
        above = _part_means(graph, graph.add("Relu", answers), side)
        # What lies above 0 less all is what lies below: half of the memory that both would take
        below = graph.add("Sub", above, _part_means(graph, answers, side))
        return graph.join([_part_means(graph, values, self.form.size), above, below])

    @property
    def weights(self) -> Array:
        """How much each column of the nodes counts, shape (width,): all channels as much as all filters.

        There are far fewer of them, and a penalty by column would leave little of what only the light tells.
        """
        of_channel, of_answers = self.form.channels * GRID**2, 2 * self.count * GRID**2
        return np.repeat([np.sqrt(of_answers / of_channel), 1.0], [of_channel, of_answers])

    def _drawn(self, images: Array, rng: np.random.Generator) -> Array:
        """Patches from anywhere in the images, values from 0 to 1, shape (patches, values)."""
        n, _, height, width = images.shape
        corners = (
            rng.integers(0, n, MAX_PATCHES),
            rng.integers(0, height - self.side + 1, MAX_PATCHES),
            rng.integers(0, width - self.side + 1, MAX_PATCHES),
        )
        patches = [
            images[i, :, y : y + self.side, x : x + self.side]
            for i, y, x in zip(*corners, strict=True)
        ]
        return np.stack(patches).reshape(MAX_PATCHES, -1) / 255.0


def _part_means(graph: Graph, maps: str, side: int) -> str:
    """Means over GRID x GRID parts that hold all of the maps, shape (n, maps, side, side), as (n, maps * GRID²)."""
    stride = side // GRID
    kernel = side - (GRID - 1) * stride
    means = graph.add("AveragePool", maps, kernel_shape=[kernel] * 2, strides=[stride] * 2)
    return graph.add("Flatten", means, axis=1)


def _normalised(patches: Array) -> Array:
    """Patches without their brightness and contrast."""
    centred = patches - patches.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.sqrt(centred.var(axis=1, keepdims=True) + MIN_CONTRAST))


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
        column, network = feature.column or name, GivenNetwork(name, str(feature.encoder))
        try:
            self._fit_input(network.model, column)
            self.output = feature.layer or network.model.graph.output[0].name
            self.model = in_own_opset(network.model, self.output)
            graph = Graph()
            answers = tried(graph, self.to_nodes(graph, column), {column: "image"}, [""])
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


class ImageModel(LinearModel):
    """All image features of a project: the answers of filters or of given networks, and the linear model of these.

    Args:
        features: their settings by name.
        forms: of each raw column with images.
        seed: the project's.
    """

    # Its columns vary by 1 each, so the weights' penalties are larger than those of n-grams
    penalties = (1000.0, 100.0, 30.0, 10.0, 3.0, 1.0)

    def __init__(
        self, features: Mapping[str, Feature], forms: Mapping[str, Form], seed: int
    ) -> None:
        super().__init__(features)
        self.seed = seed
        pairs = zip(features.items(), self.columns, strict=True)
        self.sources_ = [
            ImageNetwork(name, feature, forms[column])
            if feature.encode == "given"
            else Patches(feature, forms[column])
            for (name, feature), column in pairs
        ]

    def _fit(self, rows: pd.DataFrame) -> Array:
        rng = np.random.default_rng(self.seed)
        for name, column, patches in zip(self.features, self.columns, self.sources_, strict=True):
            if not isinstance(patches, Patches):  # whose network was given
                continue
            present = rows[column][rows[column] != ""].to_numpy()
            drawn = rng.permutation(len(present))[:MAX_IMAGES]
            try:
                patches.fit(
                    np.stack([pixels(image, patches.form) for image in present[drawn]]), self.seed
                )
            except ValueError:
                raise UserError(
                    f"features.catalogue: {name}: the training rows' images are too few or too alike to learn "
                    f"from; set use: false"
                ) from None
        graph = Graph()
        raw = graph.add("Identity", self._answers(graph))
        weights = np.concatenate([source.weights for source in self.sources_])
        columns = dict.fromkeys(self.columns, "image")
        answers = Scorer(graph.model(columns, raw, len(weights))).run(rows, ROWS_AT_ONCE)
        self.means_ = answers.mean(axis=0)
        self.spreads_ = ((answers.std(axis=0) + MIN_SPREAD) / weights).astype(np.float32)
        scaled = (answers - self.means_) / self.spreads_
        directions = PCA(
            min(MAX_DIRECTIONS, *scaled.shape), svd_solver="randomized", random_state=self.seed
        )
        self.directions_ = directions.fit(scaled).components_.T
        return np.asarray(scaled @ self.directions_)

    def _to_nodes(self, graph: Graph) -> str:
        centred = graph.add("Sub", self._answers(graph), graph.constant([self.means_]))
        scaled = graph.add("Div", centred, graph.constant([self.spreads_]))
        return graph.add("MatMul", scaled, graph.constant(self.directions_))

    def _answers(self, graph: Graph) -> str:
        pairs = zip(self.sources_, self.columns, strict=True)
        return graph.join([source.to_nodes(graph, column) for source, column in pairs])
