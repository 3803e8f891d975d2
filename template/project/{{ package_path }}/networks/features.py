"""Features with `encode: network`: a network for each, trained on labels, whose outputs are columns.

A training row's own columns come from a network that was not fitted on the row, as those of n-grams do: a network is
trained on either half of the rows for the other half, and then on all of them, which is the one that ships.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import nn

from .. import problem
from ..data.schema import form, masks
from ..features.catalogue import sources
from ..features.graph import Graph
from ..features.text import LENGTH, Folds
from ..images import pixels
from ..model import Tokens, token_reader
from ..modelling.fitting import AT_ONCE
from ..settings import Feature, Settings, UserError
from .tasks import ImageTask, Labels, TextTask
from .training import Schedule, Task, fit, predict
from .vision import ConvNet, load_blocks

Array = np.ndarray


class Learner(ABC):
    """How the network of one feature is made and trained, and its part of the graph.

    Args:
        name: the feature's.
        feature: `encoder` is the folder that the network starts from.
    """

    def __init__(self, name: str, feature: Feature, settings: Settings) -> None:
        self.name, self.folder = name, feature.encoder
        self.column = sources(name, feature)[0]
        self.settings = settings

    @abstractmethod
    def read(self, values: pd.Series) -> None:
        """Bring n raw values into the form that `task` takes; a tokenizer of their own is learnt from texts here."""

    @abstractmethod
    def task(self, rows: Array, labels: Labels) -> Task:
        """Some of the values that were read, given by their positions, and their labels."""

    @abstractmethod
    def new_network(self, outputs: int) -> nn.Module:
        """A network before training, from the project's seed or from the feature's folder."""

    @abstractmethod
    def schedule(self) -> Schedule:
        """How long the network learns, and in how many processes."""

    @abstractmethod
    def keep(self, network: nn.Module) -> None:
        """Take the network that ships, in the form that `to_nodes` needs."""

    @abstractmethod
    def to_nodes(self, graph: Graph) -> str:
        """Add the nodes of the network that ships, from raw values to float32, shape (n, outputs)."""

    def fit_transform(self, values: pd.Series, labels: Labels, folds: Folds) -> Array:
        """Train the network that ships on n rows.

        Returns:
            the outputs of a row by a network that was not fitted on the row, float32, shape (n, outputs).
        """
        self.read(values)
        outputs = np.empty((len(values), labels.width), np.float32)
        everything = np.arange(len(values))
        cut = [(everything, everything[:0]), *halves(folds)]
        tasks = [self.task(fitted, labels) for fitted, _ in cut]
        networks = [self.new_network(labels.width) for _ in cut]
        schedule, whole = self.schedule(), tasks[0]
        with ThreadPoolExecutor(AT_ONCE if schedule.parallel == "none" else 1) as pool:
            list(pool.map(fit, networks, tasks, [schedule] * len(tasks)))
        self.keep(networks[0])
        for network, (_, held) in zip(networks[1:], cut[1:], strict=True):
            outputs[held] = predict(network, whole, held)
        return outputs

    def _schedule(self, epochs: int, batch: int, learning_rate: float) -> Schedule:
        """The training that settings ask for; one that is divided among processes has no other beside it."""
        networks, modelling = self.settings.networks, self.settings.modelling
        processes = networks.processes if networks.parallel != "none" else 1
        seed, threads = self.settings.project.seed, modelling.threads
        return Schedule(epochs, batch, learning_rate, seed, threads, networks.parallel, processes)


class ImageLearner(Learner):
    """The convolutional network of an image feature."""

    network_: ConvNet

    def __init__(self, name: str, feature: Feature, settings: Settings) -> None:
        super().__init__(name, feature, settings)
        self.form = form(settings.data.schema_.columns[self.column])

    def read(self, values: pd.Series) -> None:
        self.images = np.stack([pixels(image, self.form) for image in values])

    def task(self, rows: Array, labels: Labels) -> ImageTask:
        image = self.settings.networks.image
        return ImageTask(self.images[rows], labels.take(rows), image.ways, image.mixing)

    def new_network(self, outputs: int) -> ConvNet:
        torch.manual_seed(self.settings.project.seed)
        network = ConvNet(
            self.form.size, self.form.channels, self.settings.networks.image.widths, outputs
        )
        if self.folder:
            load_blocks(network, self.folder)
        return network

    def schedule(self) -> Schedule:
        image = self.settings.networks.image
        return self._schedule(image.epochs, image.batch, image.learning_rate)

    def keep(self, network: nn.Module) -> None:
        self.network_ = cast(ConvNet, network)

    def to_nodes(self, graph: Graph) -> str:
        graph.images[self.column] = self.form
        return self.network_.to_nodes(graph, self.column)


class TextLearner(Learner):
    """The transformer of a text feature."""

    def __init__(self, name: str, feature: Feature, settings: Settings) -> None:
        super().__init__(name, feature, settings)
        self.length = feature.length or LENGTH
        self.masks = masks(settings).get(self.column, ())

    def read(self, values: pd.Series) -> None:
        from .language import new_tokenizer, tokenizer_of, vocabulary_of

        self.tokenizer = (
            tokenizer_of(self.folder)
            if self.folder
            else new_tokenizer(values, self.settings.networks.text.vocabulary)
        )
        self.padding = vocabulary_of(self.tokenizer).padding
        tokens = Tokens(self.column, self.tokenizer, self.length)
        read = token_reader(tokens, self.masks)
        self.ids = [np.array(read(text)) for text in values]

    def task(self, rows: Array, labels: Labels) -> TextTask:
        ids = [self.ids[row] for row in rows]
        return TextTask(ids, labels.take(rows), self.padding)

    def new_network(self, outputs: int) -> nn.Module:
        from .language import TextNet, body_of, new_body

        torch.manual_seed(self.settings.project.seed)
        body = (
            body_of(self.folder, self.length)
            if self.folder
            else new_body(self.tokenizer, self.length, self.settings.networks.text)
        )
        return TextNet(body, outputs)

    def schedule(self) -> Schedule:
        text = self.settings.networks.text
        return self._schedule(text.epochs, text.batch, text.learning_rate)

    def keep(self, network: nn.Module) -> None:
        from .language import exported

        self.network_ = exported(network)

    def to_nodes(self, graph: Graph) -> str:
        from .language import to_nodes

        tokens = graph.token_input(self.column, self.tokenizer, self.length)
        return to_nodes(graph, self.network_, tokens)


class NetworkModel:
    """All network features of a project, one network each."""

    names_: list[str]

    def __init__(self, learners: list[Learner]) -> None:
        self.learners = learners

    def fit_transform(self, rows: pd.DataFrame, y: Array, folds: Folds) -> Array:
        """Learn from n rows, as `features.catalogue.load` gives them, and their labels, shape (n,).

        Returns:
            each row's columns by networks that were not fitted on the row, float32, shape (n, width).

        Raises:
            UserError: when the folder that a network starts from is missing or of another shape.
        """
        labels = Labels(y, np.unique(y) if problem.CLASSES else None)
        self.names_ = [
            f"{learner.name} {i}" if labels.width > 1 else learner.name
            for learner in self.learners
            for i in range(labels.width)
        ]
        parts = []
        for learner in self.learners:
            try:
                parts.append(learner.fit_transform(rows[learner.column], labels, folds))
            except UserError as error:
                raise UserError(f"features.catalogue: {learner.name}: {error}") from None
        return np.hstack(parts)

    def to_nodes(self, graph: Graph) -> str:
        """Add the nodes from raw columns to all outputs, float32, shape (n, width)."""
        return graph.join([learner.to_nodes(graph) for learner in self.learners])


def build(features: Mapping[str, Feature], settings: Settings) -> NetworkModel:
    """The untrained networks of features with `encode: network`, by name."""
    kinds = {"image": ImageLearner, "text": TextLearner}
    columns = settings.data.schema_.columns
    return NetworkModel(
        [
            kinds[columns[sources(name, feature)[0]].type](name, feature, settings)
            for name, feature in features.items()
        ]
    )


def halves(folds: Folds) -> Folds:
    """Folds put together to two, each held out once; as they are where there are fewer than three."""
    if len(folds) < 3:
        return folds
    middle = len(folds) // 2
    first, second = (
        np.sort(np.concatenate([held for _, held in part]))
        for part in (folds[:middle], folds[middle:])
    )
    return [(second, first), (first, second)]
