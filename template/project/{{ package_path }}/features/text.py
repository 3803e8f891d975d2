"""Free text as features: what a linear model of the words, or of the characters, of all texts makes of a row.

A text has thousands of n-grams, too many columns for trees. They are weighed by how rare they are (TF-IDF, Spärck
Jones, 1972) or hashed, an encoder that the team gives makes hundreds of numbers of a text, and a linear model sums
all of them up: one column of the matrix for a number or two classes, else one a
class. A training row's own columns come from a model that was not fitted on the row, as in scikit-learn's
TargetEncoder: the models that follow would trust these columns too much otherwise.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import onnx
import pandas as pd
from onnx import ModelProto, TensorProto, numpy_helper
from scipy.sparse import coo_matrix, csr_matrix, hstack, vstack
from scipy.special import logsumexp
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression, Ridge

from .. import problem
from ..model import FILLER, ROW_MULTIPLE, Scorer, normalized
from ..paths import MODEL_FILE
from ..settings import Feature, UserError, missing_library, read_text
from .catalogue import sources
from .graph import Graph, in_own_opset, input_names

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


TOKENIZER_FILE = "tokenizer.json"  # beside the network of a text's encoder
LENGTH = 128  # tokens, where `length` does not say
# What a transformer is fed, and which of its outputs is read, the first that it has
TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TEXT_OUTPUTS = ("sentence_embedding", "last_hidden_state")
MIN_SPREAD = 1e-3  # of a number of the network, so that one that never varies stays 0


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
        self.encode, self.limit = feature.encode, feature.bins or MAX_NGRAMS

    def fit_transform(self, column: str, texts: Sequence[str]) -> csr_matrix:
        """Learn the commonest n-grams of n texts (`ngrams_`) and how rare each is (`idf_`).

        Returns:
            the texts weighed, float32, shape (n, n-grams), to the last bit what scikit-learn's TfidfVectorizer
            gives of the same n-grams.

        Raises:
            ValueError: when none stands in `MIN_TEXTS` texts.
        """
        counts, self.ngrams_ = ngram_counts(texts, self.encode, self.limit)
        library = TfidfTransformer(sublinear_tf=True)
        weighed: csr_matrix = library.fit(counts).transform(counts, copy=False)
        self.idf_: Array = library.idf_
        return weighed

    def to_nodes(self, graph: Graph, column: str) -> str:
        """Add the nodes from raw texts, shape (n, 1), to what `fit_transform` gives, float32, shape (m, n-grams).

        Rows that only fill up are left out: m counts the others.
        """
        shortest, longest = LENGTHS[self.encode]
        is_words = self.encode == "words"
        grams = sorted(
            (tuple(gram.split(" ")) if is_words else tuple(gram), index)
            for index, gram in enumerate(self.ngrams_)
        )
        grams.sort(key=lambda pair: len(pair[0]))
        lengths = [len(gram) for gram, _ in grams]
        starts = [sum(size for size in lengths if size < n) for n in range(1, longest + 1)]
        tokens = tokenized(graph, without_fillers(graph, column), TOKENS[self.encode][1])
        counts = graph.add(
            "TfIdfVectorizer", tokens, mode="TF", max_skip_count=0, min_gram_length=shortest,
            max_gram_length=longest, ngram_counts=starts, ngram_indexes=[index for _, index in grams],
            pool_strings=[token for gram, _ in grams for token in gram],
        )  # fmt: skip
        # With a whole number of fours, a text has the same bits alone as in company (`model.ROW_MULTIPLE`)
        idf, excess = self.idf_, -len(grams) % ROW_MULTIPLE
        if excess:
            counts = graph.add("Pad", counts, graph.constant([0, 0, 0, excess], np.int64))
            idf = np.pad(idf, (0, excess))
        logs = _logs(graph, counts)
        weighed = graph.add("Mul", logs, graph.constant([idf]))
        vectors = _of_length_1(graph, weighed)
        if not excess:
            return vectors
        ends = [graph.constant([number], np.int64) for number in (0, len(grams), 1)]
        return graph.add("Slice", vectors, *ends)


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
        """Add the nodes from raw texts, shape (n, 1), to vectors of length 1, float32, shape (m, buckets).

        Rows that only fill up are left out: m counts the others.
        """

        def number(value: int) -> str:
            return graph.constant([value], np.int64)

        tokens = tokenized(graph, without_fillers(graph, column), TOKENS["words"][1])
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
        rows = graph.add("Shape", tokens, start=0, end=1)
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
        network = GivenNetwork(name, str(folder), MODEL_FILE, TOKENIZER_FILE)
        self.tokenizer, column = read_text(folder / TOKENIZER_FILE), feature.column or name
        try:
            self._choose_ends(network.model)
            self.model = in_own_opset(network.model, self.output)
            graph = Graph()
            hidden = graph.add("Cast", self._hidden(graph, column), to=graph.FLOAT)
            # More tokens than a position is learnt for would fail at the first long text
            answers = tried(graph, hidden, {column: "text"}, ["", "a b " * self.length])
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


class GivenNetwork:
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


def tried(graph: Graph, output: str, columns: dict[str, str], values: list[str]) -> Array:
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


def without_fillers(graph: Graph, column: str) -> str:
    """Add the nodes from texts, shape (n, 1), to those of rows that do not only fill up, shape (m,)."""
    is_text = graph.add("Not", graph.add("Equal", column, graph.constant([[FILLER]], str)))
    return graph.add("Compress", column, is_text)


def tokenized(graph: Graph, column: str, pattern: str) -> str:
    """Add the nodes from n texts to what a pattern finds in each, shape (n, most): `NO_TOKEN` behind it.

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
    # The log of 0 is less than any number, and becomes 0
    return graph.add("Relu", graph.add("Add", graph.add("Log", counts), graph.constant([[1.0]])))


def _of_length_1(graph: Graph, vectors: str) -> str:
    """Each row divided by its Euclidean norm."""
    norm = graph.add("ReduceL2", vectors, graph.constant([1], np.int64), keepdims=1)
    return graph.add("Div", vectors, graph.add("Max", norm, graph.constant([[MIN_NORM]])))


def ngram_counts(texts: Sequence[str], encode: str, limit: int) -> tuple[csr_matrix, list[str]]:
    """How often each of n texts has which n-gram: of those of `MIN_TEXTS` texts or more, the commonest.

    They are scikit-learn's choice, ties included, found otherwise: an n-gram that comes only once is part of no longer
    one that comes twice, so that millions of them need no name and no place in an order.

    Args:
        encode: words or characters.
        limit: of n-grams.

    Returns:
        the counts, float32, shape (n, n-grams), and the n-grams in their alphabetical order.

    Raises:
        ValueError: when no n-gram stands in so many texts.
    """
    tokens, lengths, names = _tokens(texts, encode)
    shortest, longest = LENGTHS[encode]
    owners = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    starts, codes = np.arange(len(tokens)), np.zeros(len(tokens), np.int64)
    ngrams, parts, labels = [""], [], []
    for n in range(1, longest + 1):
        is_whole = starts + n <= len(tokens)
        is_whole[is_whole] = owners[starts[is_whole]] == owners[starts[is_whole] + n - 1]
        starts, codes = starts[is_whole], codes[is_whole]
        codes, unique = pd.factorize(codes * len(names) + tokens[starts + n - 1])
        is_kept = np.bincount(codes, minlength=len(unique)) >= MIN_TEXTS
        starts, codes = starts[is_kept[codes]], (np.cumsum(is_kept) - 1)[codes[is_kept[codes]]]
        heads, tails = np.divmod(unique[is_kept], len(names))
        joint = " " if encode == "words" and n > 1 else ""
        ngrams = [ngrams[i] + joint + names[j] for i, j in zip(heads, tails, strict=True)]
        if n >= shortest:
            cells = (np.ones(len(codes), np.float32), (owners[starts], codes))
            parts.append(coo_matrix(cells, (len(lengths), len(ngrams))).tocsr())
            labels += ngrams
    counts = hstack(parts, format="csr")
    common = np.flatnonzero(np.bincount(counts.indices, minlength=len(labels)) >= MIN_TEXTS)
    columns = np.array(sorted(common, key=labels.__getitem__), np.int64)
    if not len(columns):
        raise ValueError
    if len(columns) > limit:
        totals = np.asarray(counts.sum(axis=0)).ravel()[columns]
        columns = columns[np.sort((-totals).argsort()[:limit])]
    chosen = counts[:, columns]
    chosen.sort_indices()
    return chosen, [labels[column] for column in columns]


def _tokens(texts: Iterable[str], encode: str) -> tuple[Array, list[int], list[str]]:
    """All tokens of the texts one behind the other, as positions in the names that come last; how many each text has."""
    pattern = TOKENS[encode][0]
    find = re.compile(pattern).findall if pattern else list
    positions: defaultdict[str, int] = defaultdict(count().__next__)
    tokens, lengths = array("q"), []
    for text in texts:
        row = find(normalized(text))
        tokens.extend(map(positions.__getitem__, row))
        lengths.append(len(row))
    return np.frombuffer(tokens, np.int64), lengths, list(positions)


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

    def to_nodes(self, graph: Graph) -> str:
        """Add the nodes from raw columns to the sums, float32, shape (n, width); 0 for rows that only fill up."""
        sums = super().to_nodes(graph)
        if any(isinstance(source, TextNetwork) for source in self.sources_):
            return sums  # always asked alone: no row fills up
        rows, texts = (graph.add("Shape", of, start=0, end=1) for of in (self.columns[0], sums))
        no_rows, no_columns = graph.constant([0, 0], np.int64), graph.constant([0], np.int64)
        added = graph.add("Concat", no_rows, graph.add("Sub", rows, texts), no_columns, axis=0)
        return graph.add("Pad", sums, added)

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
            grams, idf = source.ngrams_, source.idf_
            texts = (1 + self.rows_) / np.exp(idf - 1) - 1  # as the library makes rarity of them
            common = np.round(texts) >= MIN_TEXTS_NAMED
            named = common & [not any(map(str.isdigit, gram)) for gram in grams]
            weights = columns[end - len(grams) : end] * (idf * named)[:, None]
            for column, weight in enumerate(weights.T):
                first = np.argsort(-weight, kind="stable")[:MAX_HEAVY]
                listed = [grams[i] for i in first if weight[i] > 0]
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
