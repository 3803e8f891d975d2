"""Target encoding: a category as what the labels of training rows in it were (Micci-Barreca, 2001).

By scikit-learn's TargetEncoder: the mean label of a category, drawn to that of all rows the more, the fewer rows it has
and the more these differ. A training row has what the labels of the other folds say, which are cut as the split demands:
by its own label a model would trust a rare category too much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.preprocessing import TargetEncoder

from .. import problem
from ..settings import Feature
from .catalogue import sources
from .graph import SEPARATOR, Graph

Array = np.ndarray


class TargetEncoding:
    """A column for the label of each feature, or one a class where there are more than two.

    What training never saw has the mean of all rows; missing is a category of its own.

    Args:
        features: their settings by name; a crossing is its two parts put together.
    """

    names_: list[str]

    def __init__(self, features: Mapping[str, Feature]) -> None:
        self.columns = [sources(name, feature) for name, feature in features.items()]
        self.features = list(features)

    def fit_transform(
        self, rows: pd.DataFrame, y: Array, folds: Sequence[tuple[Array, Array]]
    ) -> Array:
        """Learn from n rows, as `features.catalogue.load` gives them, and their labels, shape (n,).

        Returns:
            each row's columns by the labels of the other folds, float32, shape (n, width).
        """
        parts = [
            rows[first].str.cat([rows[n] for n in also], SEPARATOR) for first, *also in self.columns
        ]
        texts = np.column_stack([part.to_numpy(object) for part in parts])
        classes = np.unique(y) if problem.CLASSES else y[:0]
        labels = [y == c for c in (classes if len(classes) > 2 else classes[1:])] or [y]
        of = [f" of class {i}" for i in range(len(labels))] if len(labels) > 1 else [""]
        self.names_ = [f"{name} mean label{suffix}" for name in self.features for suffix in of]
        shape = (len(self.features), len(labels))
        held_out = np.empty((len(y), *shape), np.float32)
        self.tables_: list[tuple[list[str], list[Array]]] = []
        for j, label in enumerate(labels):
            label = label.astype(np.float64)
            encoder = TargetEncoder(target_type="continuous").fit(texts, label)
            for i, values in enumerate(encoder.encodings_):
                if not j:
                    self.tables_.append((encoder.categories_[i].tolist(), []))
                self.tables_[i][1].append(np.append(values, encoder.target_mean_))
            for fit, held in folds:
                part = TargetEncoder(target_type="continuous").fit(texts[fit], label[fit])
                held_out[held, :, j] = part.transform(texts[held])
        return held_out.reshape(len(y), -1)

    def to_nodes(self, graph: Graph) -> str:
        """Add the nodes from raw columns to what all training rows say, float32, shape (n, width)."""
        encoded = []
        for (text, *also), (categories, values) in zip(self.columns, self.tables_, strict=True):
            for right in also:
                left = graph.add("StringConcat", text, graph.constant([[SEPARATOR]], str))
                text = graph.add("StringConcat", left, right)
            row = graph.add("Cast", graph.look_up(text, categories), to=Graph.INT64)  # -1: the last
            table = graph.constant(np.column_stack(values))
            encoded.append(graph.add("Flatten", graph.add("Gather", table, row, axis=0), axis=1))
        return graph.join(encoded)
