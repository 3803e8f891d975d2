"""Free text as features: what a linear model of the words, or of the characters, of all texts makes of a row.

A text has thousands of n-grams, too many columns for trees. They are weighed by how rare they are (TF-IDF, Spärck
Jones, 1972) or hashed, an encoder that the team gives makes hundreds of numbers of a text, and a linear model sums
all of them up: one column of the matrix for a number or two classes, else one a
class. A training row's own columns come from a model that was not fitted on the row, as in scikit-learn's
TargetEncoder: the models that follow would trust these columns too much otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from onnx import TensorProto
from scipy.sparse import csr_matrix, hstack, vstack
from scipy.special import logsumexp
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from .. import problem
from ..model import Scorer, normalized
from ..settings import Feature, UserError
from .catalogue import sources
from .encoders import TextNetwork
from .graph import Graph

Array = np.ndarray
Folds = Sequence[tuple[Array, Array]]  # positions of the rows to fit on, and of those held out
# Letters and digits of any script, once for Python and once for RE2, whose own \w knows ASCII alone
TOKENS = {"words": (r"\w+", r"[\p{L}\p{N}_]+"), "characters": (None, ".")}
LENGTHS = {"words": (1, 2), "characters": (3, 5)}  # of an n-gram, in tokens
NO_TOKEN = "\x1f"  # where another text is longer; no text that a model reads holds it
MAX_NGRAMS = 10_000  # where `bins` does not say
MIN_TEXTS = 2  # that an n-gram stands in
PENALTIES = (4.0, 1.0, 1 / 4, 1 / 16, 1 / 64)
MIN_NORM = 1e-9  # so that a text without a known n-gram stays 0
MAX_TOKENS = 1_000_000  # more than any text has
ROWS_AT_ONCE = 512
MAX_HEAVY = 8  # n-grams that are named
MIN_TEXTS_NAMED = 5  # that these stand in; a rarer one may be a person's name


class HeavyNGrams(TypedDict):
    """The n-grams of a text that weigh most for a class, or for a higher (column 1) or a lower (0) answer."""

    feature: str
    column: int
    ngrams: list[str]


class NGrams:
    """The n-grams of one text feature, each text a vector of length 1, and their part of the graph.

    Args:
        feature: `encode` is words or characters, `bins` the number of n-grams.
    """

    def __init__(self, feature: Feature) -> None:
        self.encode = feature.encode
        self.vectorizer = TfidfVectorizer(
            analyzer="word" if feature.encode == "words" else "char",
            token_pattern=TOKENS[feature.encode][0],
            preprocessor=normalized,
            ngram_range=LENGTHS[feature.encode],
            max_features=feature.bins or MAX_NGRAMS,
            min_df=MIN_TEXTS,
            sublinear_tf=True,
            dtype=np.float32,
        )

    def to_nodes(self, graph: Graph, column: str) -> str:
        """Add the nodes from raw texts, shape (n, 1), to what `vectorizer` gives, float32, shape (n, n-grams)."""
        shortest, longest = LENGTHS[self.encode]
        is_words = self.encode == "words"
        grams = sorted(
            (tuple(gram.split(" ")) if is_words else tuple(gram), index)
            for gram, index in self.vectorizer.vocabulary_.items()
        )
        grams.sort(key=lambda pair: len(pair[0]))
        lengths = [len(gram) for gram, _ in grams]
        starts = [sum(size for size in lengths if size < n) for n in range(1, longest + 1)]
        tokens = tokenized(graph, column, TOKENS[self.encode][1])
        counts = graph.add(
            "TfIdfVectorizer", tokens, mode="TF", max_skip_count=0, min_gram_length=shortest,
            max_gram_length=longest, ngram_counts=starts, ngram_indexes=[index for _, index in grams],
            pool_strings=[token for gram, _ in grams for token in gram],
        )  # fmt: skip
        logs = _logs(graph, counts)
        weighed = graph.add("Mul", logs, graph.constant([self.vectorizer.idf_]))
        return _of_length_1(graph, weighed)

    def fit_transform(self, column: str, texts: pd.Series) -> csr_matrix:
        """Learn the n-grams of n texts, and give what `to_nodes` does.

        Raises:
            ValueError: when nothing stands in two texts.
        """
        return self.vectorizer.fit_transform(texts)


class HashedNGrams:
    """The words of one text feature and their pairs, in buckets (Weinberger et al., 2009), and their part of the graph.

    Nothing is learnt of the texts, so that a word that was never seen has its bucket too. MurmurHash3 of the
    words as UTF-8, modulo the buckets.

    Args:
        feature: `bins` is the number of buckets.
    """

    def __init__(self, feature: Feature) -> None:
        self.width = feature.bins or MAX_NGRAMS

    def to_nodes(self, graph: Graph, column: str) -> str:
        """Add the nodes from raw texts, shape (n, 1), to vectors of length 1, float32, shape (n, buckets)."""

        def number(value: int) -> str:
            return graph.constant([value], np.int64)

        tokens = tokenized(graph, column, TOKENS["words"][1])
        axis = number(1)
        left = graph.add("Slice", tokens, number(0), number(-1), axis)
        right = graph.add("Slice", tokens, number(1), number(MAX_TOKENS), axis)
        blank = graph.constant([[" "]], str)
        pairs = graph.add("StringConcat", graph.add("StringConcat", left, blank), right)
        # A pair is there where its second word is
        present = graph.join([is_token(graph, tokens), is_token(graph, right)])
        hashes = graph.add(
            "MurmurHash3", graph.join([tokens, pairs]), domain="com.microsoft", seed=0, positive=1
        )
        hashes = graph.add("Cast", hashes, to=TensorProto.INT64)
        buckets = graph.add("Mod", hashes, number(self.width))
        rows = graph.add("Shape", column, start=0, end=1)
        empty = graph.add("ConstantOfShape", graph.add("Concat", rows, number(self.width), axis=0))
        counts = graph.add("ScatterElements", empty, buckets, present, axis=1, reduction="add")
        return _of_length_1(graph, _logs(graph, counts))

    def fit_transform(self, column: str, texts: pd.Series) -> csr_matrix:
        """What the nodes give of n texts."""
        graph = Graph()
        output = graph.add("Identity", self.to_nodes(graph, column))
        scorer = Scorer(graph.model({column: "text"}, output, self.width))
        pieces = (texts[i : i + ROWS_AT_ONCE] for i in range(0, len(texts), ROWS_AT_ONCE))
        return vstack([csr_matrix(scorer.run({column: piece})) for piece in pieces]).tocsr()


def tokenized(graph: Graph, column: str, pattern: str) -> str:
    """Add the nodes from texts, shape (n, 1), to what a pattern finds in each, shape (n, most): `NO_TOKEN` behind it.

    Args:
        pattern: of RE2 (github.com/google/re2/wiki/Syntax).
    """
    flat = graph.add("Reshape", column, graph.constant([-1], np.int64))
    return graph.add(
        "Tokenizer", flat, domain="com.microsoft", mark=0, mincharnum=1, pad_value=NO_TOKEN, tokenexp=pattern
    )  # fmt: skip


def is_token(graph: Graph, tokens: str) -> str:
    """Add the nodes from `tokenized` to 1 where there is a token, else 0, float32, of the same shape."""
    absent = graph.add("Equal", tokens, graph.constant([[NO_TOKEN]], str))
    return graph.add("Cast", graph.add("Not", absent), to=TensorProto.FLOAT)


def _logs(graph: Graph, counts: str) -> str:
    """1 + log of counts, where 0 stays 0."""
    unit = graph.constant([[1.0]])
    logs = graph.add("Add", graph.add("Log", graph.add("Max", counts, unit)), unit)
    return graph.add("Mul", logs, graph.add("Min", counts, unit))


def _of_length_1(graph: Graph, vectors: str) -> str:
    """Each row divided by its Euclidean norm."""
    norm = graph.add("ReduceL2", vectors, graph.constant([1], np.int64), keepdims=1)
    return graph.add("Div", vectors, graph.add("Max", norm, graph.constant([[MIN_NORM]])))


class LinearModel(ABC):
    """Features with too many columns for trees, side by side, and the one linear model that sums them up.

    Args:
        features: their settings by name.
    """

    # Of the model's squared weights, 1 is scikit-learn's own; the best on the first fold is taken
    penalties: Sequence[float]
    names_: list[str]

    def __init__(self, features: Mapping[str, Feature]) -> None:
        self.features = features
        self.columns = [sources(name, feature)[0] for name, feature in features.items()]

    @abstractmethod
    def _fit(self, rows: pd.DataFrame) -> Any:
        """Learn what is summed up from n rows, and give the rows' matrix, shape (n, many)."""

    @abstractmethod
    def _to_nodes(self, graph: Graph) -> str:
        """Add the nodes from raw columns to the matrix that `_fit` gives, float32."""

    def fit_transform(self, rows: pd.DataFrame, y: Array, folds: Folds) -> Array:
        """Learn from n rows, as `features.catalogue.load` gives them, and their labels, shape (n,).

        Returns:
            each row's columns by a model that was not fitted on the row, float32, shape (n, width).

        Raises:
            UserError: when a feature has nothing to learn from.
        """
        matrix = self._fit(rows)
        classes = np.unique(y) if problem.CLASSES else None
        if classes is None:  # a column of 32 bits holds a number near 0 most exactly
            y = (y - y.mean()) / (y.std() or 1.0)
        self.penalty_ = _best_penalty(matrix, y, classes, folds, self.penalties)
        self.weights_, self.offset_ = _fit_linear(matrix, y, classes, self.penalty_)
        width, name = len(self.offset_), ", ".join(self.features)
        self.names_ = [name] if width == 1 else [f"{name} {i}" for i in range(width)]
        held_out = np.empty((len(y), width), np.float32)
        for fit, held in folds:
            weights, offset = _fit_linear(matrix[fit], y[fit], classes, self.penalty_)
            held_out[held] = matrix[held] @ weights + offset
        return held_out

    def to_nodes(self, graph: Graph) -> str:
        """Add the nodes from raw columns to the sums, float32, shape (n, width)."""
        sums = graph.add("MatMul", self._to_nodes(graph), graph.constant(self.weights_))
        return graph.add("Add", sums, graph.constant([self.offset_]))


class TextModel(LinearModel):
    """All text features of a project: their n-grams or an encoder's numbers, and the linear model of these."""

    penalties = PENALTIES

    def __init__(self, features: Mapping[str, Feature]) -> None:
        super().__init__(features)
        self.sources_ = [_source(name, feature) for name, feature in features.items()]

    def _fit(self, rows: pd.DataFrame) -> csr_matrix:
        self.rows_ = len(rows)
        parts = [csr_matrix(self._weigh(i, rows[name])) for i, name in enumerate(self.columns)]
        self.widths_ = [part.shape[1] for part in parts]
        return hstack(parts).tocsr()

    def _to_nodes(self, graph: Graph) -> str:
        pairs = zip(self.sources_, self.columns, strict=True)
        return graph.join([source.to_nodes(graph, column) for source, column in pairs])

    def heaviest(self) -> list[HeavyNGrams]:
        """What the linear model goes by: the n-grams of most weight times rarity, the heaviest first.

        Named are those of at least `MIN_TEXTS_NAMED` training texts without a digit.
        """
        heavy: list[HeavyNGrams] = []
        columns = self.weights_ if self.weights_.shape[1] > 1 else self.weights_ * [-1.0, 1.0]
        ends = np.cumsum(self.widths_)
        for name, source, end in zip(self.features, self.sources_, ends, strict=True):
            if not isinstance(
                source, NGrams
            ):  # of a bucket or an encoder's number nobody knows the words
                continue
            library = source.vectorizer
            grams, idf = library.get_feature_names_out(), library.idf_
            texts = (1 + self.rows_) / np.exp(idf - 1) - 1  # as the library makes rarity of them
            common = np.round(texts) >= MIN_TEXTS_NAMED
            named = common & [not any(map(str.isdigit, gram)) for gram in grams]
            weights = columns[end - len(grams) : end] * (idf * named)[:, None]
            for column, weight in enumerate(weights.T):
                first = np.argsort(-weight, kind="stable")[:MAX_HEAVY]
                listed = [str(grams[i]) for i in first if weight[i] > 0]
                heavy.append({"feature": name, "column": column, "ngrams": listed})
        return heavy

    def _weigh(self, index: int, texts: pd.Series) -> Any:
        try:
            return self.sources_[index].fit_transform(self.columns[index], texts)
        except ValueError:
            raise UserError(
                f"features.catalogue: {list(self.features)[index]}: nothing stands in two texts of the training "
                f"rows; set use: false"
            ) from None


def _source(name: str, feature: Feature) -> NGrams | HashedNGrams | TextNetwork:
    """What makes numbers of one text feature, too many for trees."""
    if feature.encode == "given":
        return TextNetwork(name, feature)
    return HashedNGrams(feature) if feature.encode == "hashed" else NGrams(feature)


def _best_penalty(
    matrix: Any, y: Array, classes: Array | None, folds: Folds, penalties: Sequence[float]
) -> float:
    """The penalty with the least loss on the rows that the first fold holds out; without folds, the middle one."""
    losses: dict[float, float] = {}
    for fit, held in folds[:1]:
        for penalty in penalties:
            weights, offset = _fit_linear(matrix[fit], y[fit], classes, penalty)
            losses[penalty] = _loss(matrix[held] @ weights + offset, y[held], classes)
    return min(losses, key=lambda penalty: losses[penalty], default=penalties[len(penalties) // 2])


def _loss(columns: Array, y: Array, classes: Array | None) -> float:
    """The mean squared error, or of classes the mean log loss, of n rows of columns, shape (n, width)."""
    if classes is None:
        return float(np.mean((columns[:, 0] - y) ** 2))
    odds = columns if columns.shape[1] > 1 else np.hstack([np.zeros_like(columns), columns])
    of_truth = odds[np.arange(len(y)), np.searchsorted(classes, y)]
    return float(np.mean(logsumexp(odds, axis=1) - of_truth))


def _fit_linear(
    matrix: Any, y: Array, classes: Array | None, penalty: float
) -> tuple[Array, Array]:
    """Weights, shape (n-grams, width), and offsets, shape (width,).

    Args:
        classes: all that the columns are for; y may lack one whose only row is held out. None: y is a number.
    """
    if classes is None:
        model = Ridge(penalty, solver="lsqr").fit(matrix, y)
        return model.coef_[:, None].astype(np.float32), np.array([model.intercept_], np.float32)
    width, present = len(classes) if len(classes) > 2 else 1, np.flatnonzero(np.isin(classes, y))
    weights, offset = np.zeros((matrix.shape[1], width), np.float32), np.zeros(width, np.float32)
    if len(present) > 1:
        model = LogisticRegression(C=1 / penalty, max_iter=300, tol=1e-3).fit(matrix, y)
        # Of two classes there are the second's odds alone: half of them are for it, half against the first
        halves = np.array([-0.5, 0.5]) if width > len(present) == 2 else np.ones(1)
        columns = present if width > 1 else [0]
        weights[:, columns], offset[columns] = model.coef_.T * halves, model.intercept_ * halves
    return weights, offset
