"""The preparations: what each learns from the training rows, and what it then does, as ONNX nodes.

The nodes are written once and run by ONNX Runtime in training too, so a model is trained on what it will be
given, bit by bit: a difference in the last bit would be enough to send a row down another branch of a
tree. What was never seen in training: an unknown category, a missing value, and a number beyond the range
of training, which counts as the end of that range.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from onnx import TensorProto

from ..agreements import SUMMED
from ..data.schema import form, masks
from ..histories import LENGTH
from ..model import Scorer
from ..parts import optional_module
from ..problem.features import OWN, Own, leading
from ..settings import Feature, Settings
from .catalogue import OPERATIONS, crossed, inputs, selected, sources
from .graph import SEPARATOR, Graph
from .targets import TargetEncoding
from .text import Folds, TextModel, is_token, tokenized

if TYPE_CHECKING:
    from .images import ImageModel

Array = np.ndarray
MAX_CATEGORIES = 100
RANK_PARTS = 100  # between the quantiles by which a number becomes its rank
ROWS_AT_ONCE = 4_000  # the runtime holds several matrices of so many rows
MAX_COMPARED = 8  # categories, text by text; of more, a table of all is quicker
MAX_MAGNITUDE = np.float32(1e30)
DAY = 86_400.0
# Of a text, what its counts are of (RE2), and the columns that come of them
PATTERNS = {
    "characters": ".",
    "words": r"[\p{L}\p{N}_]+",
    "letters": r"[\p{L}\p{N}_]",  # of words
    "digits": r"\p{Nd}",
    "signs": r"[^\p{L}\p{N}\p{M}\s_]",
}
LENGTH_PARTS = ("characters", "words", "mean word length", "share of digits", "share of signs")
AGGREGATES = ("last", "mean", "spread", "lowest", "highest", "count")
# Length in seconds, number of steps, and seconds to add so that the first step comes first
PERIODS = {"day": (DAY, 24, 0.0), "week": (7 * DAY, 7, 3 * DAY), "year": (365.2425 * DAY, 52, 0.0)}


class Encoder(ABC):
    """What the features of one encoding learn from the training rows, and their part of the graph.

    Args:
        features: their settings by name. The input has one column for each, or two for each when
            they are crossings.
    """

    names_: list[str]

    def __init__(self, features: dict[str, Feature]) -> None:
        self.features = features

    @abstractmethod
    def fit(self, x: pd.DataFrame) -> None:
        """Learn from the training rows, and name the columns that come out (`names_`)."""

    @abstractmethod
    def to_nodes(self, graph: Graph, columns: list[str]) -> list[str]:
        """Add the nodes behind raw columns, inputs of shape (n, 1); the outputs are float32, (n, width)."""

    @property
    def crossed(self) -> bool:
        """Whether the features are crossings, which read two columns each."""
        return any(feature.cross for feature in self.features.values())


class Number(Encoder):
    """Missing values filled, the rest kept within the range of training, then scaled by setting.

    `impute`: median (when nothing is said) · mean · zero · constant: far below the smallest value,
    so that a tree can tell it apart · flag: the median, and a column that says so.
    """

    def fit(self, x: pd.DataFrame) -> None:
        values = self._read(x)
        features = list(self.features.values())
        self.learnt_ = [self._learn(values[:, i], feature) for i, feature in enumerate(features)]
        self.flagged_ = [i for i, feature in enumerate(features) if feature.impute == "flag"]
        names = list(self.features)
        self._encode(self._filled(values), names)
        self.names_ += [f"{names[i]} missing" for i in self.flagged_]

    def to_nodes(self, graph: Graph, columns: list[str]) -> list[str]:
        values = self._crossed_nodes(graph, columns) if self.crossed else graph.join(columns)
        fills = {"imputed_value_floats": [fill for fill, *_ in self.learnt_]}
        filled = graph.add(
            "Imputer", values, domain="ai.onnx.ml", replaced_value_float=np.nan, **fills
        )
        has_values = len(self.names_) > len(self.flagged_)
        parts = [self._encoded_nodes(graph, filled)] if has_values else []
        if self.flagged_:
            if len(self.flagged_) < len(self.features):
                flagged = graph.constant(self.flagged_, np.int64)
                values = graph.add("Gather", values, flagged, axis=1)
            parts.append(graph.add("Cast", graph.add("IsNaN", values), to=TensorProto.FLOAT))
        return parts

    def _read(self, x: pd.DataFrame) -> Array:
        values = x.to_numpy(np.float32)
        return crossed(values[:, ::2], values[:, 1::2], self._operation) if self.crossed else values

    @property
    def _operation(self) -> str | None:
        return next(iter(self.features.values())).operation  # all have the same

    def _crossed_nodes(self, graph: Graph, columns: list[str]) -> str:
        left, right = graph.join(columns[::2]), graph.join(columns[1::2])
        values = graph.add(OPERATIONS[self._operation or "product"][0], left, right)
        if self._operation != "ratio":
            return values
        is_zero = graph.add("Equal", right, graph.constant([[0.0]]))
        return graph.add("Where", is_zero, graph.constant([[np.nan]]), values)

    def _filled(self, values: Array) -> Array:
        fill, low, high, *_ = np.array(self.learnt_, np.float32).T
        return np.clip(np.where(np.isnan(values), fill, values), low, high)

    @staticmethod
    def _learn(column: Array, feature: Feature) -> tuple[float, float, float, float, float]:
        """Fill, smallest, largest, mean and 1 / standard deviation, or median and 1 / interquartile range (0 and 1 when
        not scaled)."""
        finite = column[np.isfinite(column)].astype(np.float64)
        finite = np.clip(finite if len(finite) else np.zeros(1), -MAX_MAGNITUDE, MAX_MAGNITUDE)
        low, high = finite.min(), finite.max()
        match feature.impute:
            case "mean":
                fill = finite.mean()
            case "zero":
                fill = 0.0
            case "constant":
                fill = low - max(1.0, high - low)
            case _:
                fill = float(np.median(finite))
        middle, spread = finite.mean(), finite.std()
        if feature.scale == "robust":
            lower, middle, upper = np.quantile(finite, (0.25, 0.5, 0.75))
            spread = upper - lower
        if feature.scale is None or spread <= 1e-6 * abs(middle):
            middle, spread = (0.0 if feature.scale is None else middle), 1.0
        return fill, min(low, fill), max(high, fill), middle, 1 / (spread or 1.0)

    def _encode(self, values: Array, names: list[str]) -> None:
        self.names_ = names.copy()

    def _encoded_nodes(self, graph: Graph, values: str) -> str:
        _, low, high, mean, rate = np.array(self.learnt_, np.float32).T
        clipped = graph.add("Max", values, graph.constant([low]))
        clipped = graph.add("Min", clipped, graph.constant([high]))
        if not mean.any() and (rate == 1).all():
            return clipped
        scaling = {"offset": mean.tolist(), "scale": rate.tolist()}
        return graph.add("Scaler", clipped, domain="ai.onnx.ml", **scaling)


class OwnNumbers(Number):
    """The features of problem/features.py: numbers that its nodes make from raw columns."""

    def __init__(self, definitions: Mapping[str, Own], kinds: Mapping[str, str]) -> None:
        plain = Feature(family="context", encode="number", impute="median", scale="standard")
        super().__init__(dict.fromkeys(definitions, plain))
        self.definitions = definitions
        self.kinds = {raw: kinds[raw] for item in definitions.values() for raw in item.columns}

    def fit(self, x: pd.DataFrame) -> None:
        graph = Graph()
        output = graph.add("Identity", self._own_nodes(graph))
        scorer = Scorer(graph.model(self.kinds, output, len(self.features)))
        super().fit(pd.DataFrame(scorer.run(x, ROWS_AT_ONCE), columns=list(self.features)))

    def to_nodes(self, graph: Graph, columns: list[str]) -> list[str]:
        return super().to_nodes(graph, [self._own_nodes(graph)])

    def _own_nodes(self, graph: Graph) -> str:
        return graph.join([item.nodes(graph, *item.columns) for item in self.definitions.values()])


class Trend(Number):
    """A moment as a number, in seconds: what went on rising or falling is read off its latest value.

    A moment after training counts as the last one of training, as the end of any number's range.
    """

    def to_nodes(self, graph: Graph, columns: list[str]) -> list[str]:
        plain = graph.add("Cast", graph.join(columns), to=TensorProto.FLOAT)
        return super().to_nodes(graph, [plain])


class Bins(Number):
    """A number cut at quantiles: one column for each inner edge, 1 above it.

    The columns of one value add up to its bin, so a linear model has a step for each bin and a
    tree can still cut anywhere.
    """

    def _encode(self, values: Array, names: list[str]) -> None:
        indices, edges = [], []
        for i, feature in enumerate(self.features.values()):
            shares = np.linspace(0, 1, (feature.bins or 2) + 1)[1:-1]
            cuts = np.quantile(values[:, i].astype(np.float64), shares).astype(np.float32)
            for cut in np.unique(cuts[cuts < values[:, i].max()]):
                indices.append(i)
                edges.append(cut)
        self.indices_, self.edges_ = np.array(indices, np.int64), np.array(edges, np.float32)
        self.names_ = [f"{names[i]} > {cut:g}" for i, cut in zip(indices, edges, strict=True)]

    def _encoded_nodes(self, graph: Graph, values: str) -> str:
        wide = graph.add("Gather", values, graph.constant(self.indices_, np.int64), axis=1)
        above = graph.add("Greater", wide, graph.constant([self.edges_]))
        return graph.add("Cast", above, to=TensorProto.FLOAT)


class Rank(Number):
    """A number as the share of training values below it, from 0 to 1, in straight lines between a hundred quantiles.

    As scikit-learn's QuantileTransformer: what repeats has the middle of its shares.
    """

    def _encode(self, values: Array, names: list[str]) -> None:
        self.names_ = names.copy()
        shares, knots = np.linspace(0, 1, RANK_PARTS + 1), []
        for column in values.T:
            cuts = np.quantile(column.astype(np.float64), shares).astype(np.float32)
            ends, codes = np.unique(cuts, return_inverse=True)
            middles = np.bincount(codes, shares) / np.bincount(codes)
            # As many for each feature: the last one again, where nothing more is added
            missing = RANK_PARTS + 1 - len(ends)
            knots.append([np.pad(part, (0, missing), "edge") for part in (ends, middles)])
        self.knots_ = np.array(knots, np.float32)  # shape (features, 2, knots)

    def _encoded_nodes(self, graph: Graph, values: str) -> str:
        ends, shares = self.knots_[:, 0], self.knots_[:, 1]
        gaps = np.diff(ends)
        axis = graph.constant([2], np.int64)
        above = graph.add(
            "Sub", graph.add("Unsqueeze", values, axis), graph.constant(ends[None, :, :-1])
        )
        parts = graph.add("Div", above, graph.constant(np.where(gaps > 0, gaps, 1)[None]))
        parts = graph.add("Clip", parts, graph.constant(0.0), graph.constant(1.0))
        steps = graph.add("Mul", parts, graph.constant(np.diff(shares)[None]))
        total = graph.add("ReduceSum", steps, axis, keepdims=0)
        return graph.add("Add", total, graph.constant([shares[:, 0]]))


class Cyclic(Encoder):
    """A moment or a number as a point on a circle, so that the last step is next to the first.

    It is cut into whole steps first (hour of the day, day of the week, week of the year; a number:
    its unit where the period is a whole number up to 366, else 1/64 of the period), and these look
    up their sine and cosine. Missing is the centre of the circle.
    """

    def fit(self, x: pd.DataFrame) -> None:
        feature = next(iter(self.features.values()))  # all have the same period
        if isinstance(feature.period, str):
            length, self.steps_, self.start_ = PERIODS[feature.period]
        else:
            length, self.start_ = float(feature.period or 1.0), 0.0
            whole = length.is_integer() and 1 < length <= 366
            self.steps_ = int(length) if whole else 64
        self.step_ = length / self.steps_
        self.names_ = [f"{name} {axis}" for name in self.features for axis in ("sin", "cos")]

    def to_nodes(self, graph: Graph, columns: list[str]) -> list[str]:
        def number(value: float) -> str:
            return graph.constant([[value]], np.float64)

        value = graph.add("Cast", graph.join(columns), to=TensorProto.DOUBLE)
        value = graph.add("Div", graph.add("Add", value, number(self.start_)), number(self.step_))
        # Of the sign of the value: counted from the table's end where that is negative
        step = graph.add("Mod", graph.add("Floor", value), number(self.steps_), fmod=1)
        step = graph.add("Where", graph.add("IsNaN", step), number(self.steps_), step)
        row = graph.add("Cast", step, to=TensorProto.INT64)
        angle = 2 * np.pi * np.arange(self.steps_) / self.steps_
        points = np.column_stack([np.sin(angle), np.cos(angle)])
        table = graph.constant(np.vstack([points, np.zeros((1, 2)), points[1:]]))
        return [graph.add("Flatten", graph.add("Gather", table, row, axis=0), axis=1)]


class Category(Encoder):
    """What the encodings of categories share: a crossing is its two parts put together."""

    def _texts(self, x: pd.DataFrame) -> list[tuple[Array, Array]]:
        """For each feature, the code of each row's text, shape (n,), and the distinct texts by code."""
        columns = [x.iloc[:, i] for i in range(x.shape[1])]
        if self.crossed:
            pairs = zip(columns[::2], columns[1::2], strict=True)
            columns = [left + SEPARATOR + right for left, right in pairs]
        factorized = [pd.factorize(column) for column in columns]
        return [(codes, np.asarray(texts, dtype=object)) for codes, texts in factorized]

    def _text_nodes(self, graph: Graph, columns: list[str]) -> list[str]:
        if not self.crossed:
            return columns
        separator = graph.constant([[SEPARATOR]], str)
        return [
            graph.add("StringConcat", graph.add("StringConcat", left, separator), right)
            for left, right in zip(columns[::2], columns[1::2], strict=True)
        ]


class OneHot(Category):
    """A column for each category of training, at most `bins` or 100 of them, commonest first.

    All zeros for any other. Missing is a category of its own where training had it.
    """

    def fit(self, x: pd.DataFrame) -> None:
        self.categories_: list[list[str]] = []
        for (codes, texts), feature in zip(self._texts(x), self.features.values(), strict=True):
            counts = np.bincount(codes, minlength=len(texts))
            ranked = sorted(zip(-counts, texts, strict=True))
            common = ranked[: feature.bins or MAX_CATEGORIES]
            self.categories_.append(sorted(str(text) for _, text in common))
        self.names_ = [
            f"{name} = {text.replace(SEPARATOR, ' × ') or '(missing)'}"
            for name, texts in zip(self.features, self.categories_, strict=True)
            for text in texts
        ]

    def to_nodes(self, graph: Graph, columns: list[str]) -> list[str]:
        equal = []
        texts = self._text_nodes(graph, columns)
        for text, categories in zip(texts, self.categories_, strict=True):
            if len(categories) <= MAX_COMPARED:
                equal.append(graph.add("Equal", text, graph.constant([categories], str)))
            else:
                codes = graph.constant([range(len(categories))])
                equal.append(graph.add("Equal", graph.look_up(text, categories), codes))
        return [graph.add("Cast", graph.join(equal), to=TensorProto.FLOAT)]


class Ordinal(Category):
    """The position of a category in the order that its feature sets, from 0; -1 when unknown or missing."""

    def fit(self, x: pd.DataFrame) -> None:
        self.names_ = list(self.features)

    def to_nodes(self, graph: Graph, columns: list[str]) -> list[str]:
        pairs = zip(columns, self.features.values(), strict=True)
        return [graph.look_up(column, feature.order or ()) for column, feature in pairs]


class Hash(Category):
    """A column for each of `bins` buckets that categories are hashed into (Weinberger et al., 2009).

    MurmurHash3 of the text as UTF-8, modulo the bins. Nothing is learnt, so a category that was
    never seen has its bucket too.
    """

    def fit(self, x: pd.DataFrame) -> None:
        self.bins_ = [feature.bins or 2 for feature in self.features.values()]
        pairs = zip(self.features, self.bins_, strict=True)
        self.names_ = [f"{name} hash {i}" for name, bins in pairs for i in range(bins)]

    def to_nodes(self, graph: Graph, columns: list[str]) -> list[str]:
        texts = graph.join(self._text_nodes(graph, columns))
        hashes = graph.add("MurmurHash3", texts, domain="com.microsoft", seed=0, positive=1)
        hashes = graph.add("Cast", hashes, to=TensorProto.INT64)
        buckets = graph.add("Mod", hashes, graph.constant([self.bins_], np.int64))
        if len(self.bins_) > 1:
            indices = np.repeat(np.arange(len(self.bins_)), self.bins_)
            buckets = graph.add("Gather", buckets, graph.constant(indices, np.int64), axis=1)
        codes = np.concatenate([np.arange(bins) for bins in self.bins_])
        equal = graph.add("Equal", buckets, graph.constant([codes], np.int64))
        return [graph.add("Cast", equal, to=TensorProto.FLOAT)]


class Derived(Number):
    """Numbers that nodes make of raw columns of one type, then filled and scaled as in the catalogue.

    Args:
        names: of the numbers.
    """

    kind: str  # the type of the columns

    def __init__(self, names: list[str]) -> None:
        plain = Feature(family="context", encode="number", impute="median", scale="standard")
        super().__init__(dict.fromkeys(names, plain))

    @abstractmethod
    def _derived_nodes(self, graph: Graph, columns: list[str]) -> str:
        """Add the nodes from raw columns to the numbers, float32, shape (n, numbers), NaN where missing."""

    def fit(self, x: pd.DataFrame) -> None:
        graph = Graph()
        output = graph.add("Identity", self._derived_nodes(graph, list(x)))
        scorer = Scorer(graph.model(dict.fromkeys(x, self.kind), output, len(self.features)))
        distinct = x.loc[:, ~x.columns.duplicated()]
        super().fit(pd.DataFrame(scorer.run(distinct, ROWS_AT_ONCE), columns=list(self.features)))

    def to_nodes(self, graph: Graph, columns: list[str]) -> list[str]:
        return super().to_nodes(graph, [self._derived_nodes(graph, columns)])


class DateParts(Derived):
    """What the calendar says of a moment, in UTC, as numbers for trees: those of `parts`, Monday and January first.

    The year, month and day of a number of days are Hinnant's (chrono-compatible low-level date algorithms, 2013).
    """

    kind = "time"

    def __init__(self, features: dict[str, Feature]) -> None:
        self.parts = [feature.parts or () for feature in features.values()]
        names = zip(features, self.parts, strict=True)
        super().__init__([f"{name} {part}" for name, parts in names for part in parts])

    def _derived_nodes(self, graph: Graph, columns: list[str]) -> str:
        derived = []
        for column, parts in zip(columns, self.parts, strict=True):
            is_missing = graph.add("IsNaN", column)
            zero = graph.constant([[0.0]], np.float64)
            seconds = graph.add("Floor", graph.add("Where", is_missing, zero, column))
            calendar = self._calendar(graph, graph.add("Cast", seconds, to=Graph.INT64))
            for part in parts:
                number = graph.add("Cast", calendar[part], to=Graph.FLOAT)
                missing = graph.constant([[np.nan]])
                derived.append(graph.add("Where", is_missing, missing, number))
        return graph.join(derived)

    @staticmethod
    def _calendar(graph: Graph, seconds: str) -> dict[str, str]:
        """Each part of a moment in seconds since 1970, int64, shape (n, 1)."""

        def calculate(operator: str, left: str, right: str | int) -> str:
            of = graph.constant([[right]], np.int64) if isinstance(right, int) else right
            return graph.add(operator, left, of)

        def times(left: str, number: int) -> str:
            return calculate("Mul", left, number)

        def whole(left: str, number: int) -> str:  # of what is not negative
            return calculate("Div", left, number)

        in_day = calculate("Mod", seconds, 86_400)
        days = whole(calculate("Sub", seconds, in_day), 86_400)
        weekday = calculate("Mod", calculate("Add", days, 3), 7)  # 1970 began on a Thursday
        # Eras of 400 years, each from a first of March on, so that a leap day is the last of its year
        from_zero = calculate("Add", days, 719_468)
        era = whole(from_zero, 146_097)
        day_of_era = calculate("Sub", from_zero, times(era, 146_097))
        leaps = calculate("Sub", whole(day_of_era, 1_460), whole(day_of_era, 36_524))
        leaps = calculate("Add", leaps, whole(day_of_era, 146_096))
        year_of_era = whole(calculate("Sub", day_of_era, leaps), 365)
        before = calculate("Add", times(year_of_era, 365), whole(year_of_era, 4))
        before = calculate("Sub", before, whole(year_of_era, 100))
        day_of_year = calculate("Sub", day_of_era, before)
        month = whole(calculate("Add", times(day_of_year, 5), 2), 153)  # from March on
        first = whole(calculate("Add", times(month, 153), 2), 5)
        day = calculate("Add", calculate("Sub", day_of_year, first), 1)
        month = calculate("Add", calculate("Mod", calculate("Add", month, 2), 12), 1)
        is_early = graph.add("Less", month, graph.constant([[3]], np.int64))
        year = calculate("Add", times(era, 400), year_of_era)
        is_weekend = graph.add("Greater", weekday, graph.constant([[4]], np.int64))
        return {
            "hour": whole(in_day, 3_600),
            "weekday": weekday,
            "weekend": graph.add("Cast", is_weekend, to=Graph.INT64),
            "day": day,
            "month": month,
            "quarter": calculate("Add", whole(calculate("Sub", month, 1), 3), 1),
            "year": calculate("Add", year, graph.add("Cast", is_early, to=Graph.INT64)),
        }


class Lengths(Derived):
    """How long a text is and what it is made of, as numbers for trees.

    The columns of a text: its characters, words and their mean length, and the shares of digits and of signs
    (neither letters, digits nor blanks). A text without characters has 0 in all of them.
    """

    kind = "text"

    def __init__(self, features: dict[str, Feature]) -> None:
        super().__init__([f"{name} {part}" for name in features for part in LENGTH_PARTS])

    def _derived_nodes(self, graph: Graph, columns: list[str]) -> str:
        unit, parts = graph.constant([[1.0]]), []
        for column in columns:
            counts = {name: self._count(graph, column, PATTERNS[name]) for name in PATTERNS}
            characters = graph.add("Max", counts["characters"], unit)
            mean_length = graph.add(
                "Div", counts["letters"], graph.add("Max", counts["words"], unit)
            )
            shares = [graph.add("Div", counts[name], characters) for name in ("digits", "signs")]
            parts += [counts["characters"], counts["words"], mean_length, *shares]
        return graph.join(parts)

    @staticmethod
    def _count(graph: Graph, column: str, pattern: str) -> str:
        present = is_token(graph, tokenized(graph, column, pattern))
        return graph.add("ReduceSum", present, graph.constant([1], np.int64), keepdims=1)


class Aggregates(Derived):
    """What earlier values come to, as numbers for trees: the last, their mean, spread, lowest and highest, and how many.

    The columns of a history. Missing values are passed over; without any, all columns but the count are missing.

    Args:
        lengths: by history, how many values it has at most.
    """

    kind = "history"

    def __init__(self, features: dict[str, Feature], lengths: Mapping[str, int]) -> None:
        super().__init__([f"{name} {part}" for name in features for part in AGGREGATES])
        self.lengths = lengths

    def _derived_nodes(self, graph: Graph, columns: list[str]) -> str:
        parts = []
        for column in columns:
            graph.histories[column] = self.lengths[column]
            parts += self._of_history(graph, column, self.lengths[column])
        return graph.join(parts)

    @staticmethod
    def _of_history(graph: Graph, column: str, length: int) -> list[str]:
        """The aggregates of a history, each of shape (n, 1), as `AGGREGATES` names them."""
        axis, zero = graph.constant([1], np.int64), graph.constant([[0.0]])
        is_missing = graph.add("IsNaN", column)

        def reduced(operator: str, fill: float, values: str) -> str:
            present = graph.add("Where", is_missing, graph.constant([[fill]]), values)
            return graph.add(operator, present, axis, keepdims=1)

        count = reduced("ReduceSum", 0.0, graph.constant([np.ones(length)]))
        is_empty = graph.add("Equal", count, zero)
        missing = graph.constant([[np.nan]])

        def missing_if_empty(value: str) -> str:
            return graph.add("Where", is_empty, missing, value)

        total = graph.add("Max", count, graph.constant([[1.0]]))
        mean = graph.add("Div", reduced("ReduceSum", 0.0, column), total)
        gaps = graph.add("Sub", column, mean)
        squares = reduced("ReduceSum", 0.0, graph.add("Mul", gaps, gaps))
        spread = graph.add("Sqrt", graph.add("Div", squares, total))
        latest = reduced("ReduceMax", 0.0, graph.constant([np.arange(length)]))
        filled = graph.add("Where", is_missing, zero, column)
        index = graph.add("Cast", latest, to=TensorProto.INT64)
        last = graph.add("GatherElements", filled, index, axis=1)
        lowest, highest = (
            reduced(operator, end, column)
            for operator, end in (("ReduceMin", np.inf), ("ReduceMax", -np.inf))
        )
        return [*map(missing_if_empty, (last, mean, spread, lowest, highest)), count]


ENCODERS: dict[str, type[Encoder]] = {
    "number": Number,
    "trend": Trend,
    "bins": Bins,
    "cyclic": Cyclic,
    "one_hot": OneHot,
    "ordinal": Ordinal,
    "hash": Hash,
    "date_parts": DateParts,
    "lengths": Lengths,
}


class FromLabels(Protocol):
    """Columns that are learnt from labels, those of a training row by what was not fitted on the row."""

    names_: list[str]

    def fit_transform(self, rows: pd.DataFrame, y: Array, folds: Folds) -> Array: ...

    def to_nodes(self, graph: Graph) -> str: ...


@dataclass
class Preparation:
    """All encoders of a project: fitted once, and then nodes, in training as in service.

    Args:
        columns: the raw columns that the graph takes, each with its type.
        encoders: each with the raw columns that it reads.
        texts: the model of all free texts; None where there are none.
        images: and that of all images.
        networks: those that are trained on labels; None where there are none.
        targets: what the labels of each category are; None where no feature asks for it.
        properties: what the model's file says of how its columns are read.
    """

    columns: Mapping[str, str]
    encoders: list[tuple[Encoder, list[str]]]
    texts: TextModel | None = None
    images: ImageModel | None = None
    networks: FromLabels | None = None
    targets: FromLabels | None = None
    properties: dict[str, str] = field(default_factory=dict)

    def fit_transform(self, rows: pd.DataFrame, y: Array, folds: Folds) -> Array:
        """Learn from n training rows, as `features.catalogue.load` gives them, and their labels, shape (n,).

        Returns:
            their matrix, shape (n, width): as `transform` gives it, but for what was learnt from labels,
            which comes from the other folds.
        """
        for encoder, columns in self.encoders:
            encoder.fit(rows[columns])
        if not self._from_labels:
            return self.transform(rows)
        parts = [model.fit_transform(rows, y, folds) for model in self._from_labels]
        if self.encoders:  # by themselves: the nodes of texts are slow, and not asked of these rows
            read = {raw for _, columns in self.encoders for raw in columns}
            # An encoder reads no pixels: of an image's column no more than how many rows there are
            plain = {
                name: "category" if kind == "image" else kind
                for name, kind in self.columns.items()
                if name in read
            }
            parts.insert(0, Preparation(plain, self.encoders).scorer.run(rows, ROWS_AT_ONCE))
        return np.hstack(parts)

    @property
    def names(self) -> list[str]:
        """What the columns of the matrix are called."""
        names = [name for encoder, _ in self.encoders for name in encoder.names_]
        return names + [name for model in self._from_labels for name in model.names_]

    def to_nodes(self, graph: Graph) -> str:
        """Add all nodes, from the raw columns to the matrix: float32, shape (n, width)."""
        outputs = [
            name for encoder, read in self.encoders for name in encoder.to_nodes(graph, read)
        ]
        return graph.join(outputs + [model.to_nodes(graph) for model in self._from_labels])

    @property
    def _from_labels(self) -> list[FromLabels]:
        return [model for model in (self.texts, self.images, self.networks, self.targets) if model]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "scorer"}

    def transform(self, rows: pd.DataFrame) -> Array:
        """The matrix of n rows, shape (n, width), by the very nodes that the exported model holds."""
        return self.scorer.run(rows, ROWS_AT_ONCE)

    @cached_property
    def scorer(self) -> Scorer:
        """The nodes as a model that gives the matrix."""
        graph = Graph()
        matrix = graph.add("Identity", self.to_nodes(graph))
        return Scorer(graph.model(self.columns, matrix, len(self.names), **self.properties))


def _encoder(
    group: str, features: dict[str, Feature], columns: list[str], settings: Settings
) -> Encoder:
    """The unfitted encoder of features of like encoding, which read these columns."""
    if group == "aggregates":
        rules = settings.data.schema_.columns
        return Aggregates(features, {raw: rules[raw].length or LENGTH for raw in columns})
    if group.endswith("_rank"):
        return Rank(features)
    return ENCODERS.get(group, ENCODERS[next(iter(features.values())).encode])(features)


def _group(feature: Feature, kind: str) -> str:
    """What features have in common that share an encoder; `kind`: the type of their columns."""
    if feature.encode == "cyclic":
        return f"cyclic_{kind}_{feature.period}"
    if feature.encode == "number" and kind == "time" and not feature.cross:
        return "trend"
    group = f"crossed_{feature.encode}_{feature.operation}" if feature.cross else feature.encode
    return f"{group}_rank" if feature.scale == "rank" else group


def build(settings: Settings) -> Preparation:
    """The unfitted preparation of all selected features.

    Features of like encoding share one encoder, so that the graph has few nodes and one row is quick.
    """
    kinds = inputs(settings)
    groups: dict[str, dict[str, Feature]] = {}
    # All in one, since what one text says may hang on another
    summed: dict[str, dict[str, Feature]] = {kind: {} for kind in SUMMED}
    by_labels: dict[str, dict[str, Feature]] = {"network": {}, "target": {}}
    for name, feature in selected(settings).items():
        kind = kinds[sources(name, feature)[0]]
        if feature.encode in by_labels:
            by_labels[feature.encode][name] = feature
            continue
        if feature.encode == "course":  # read by what the kind of problem puts first
            continue
        if kind in SUMMED and feature.encode != "lengths":
            summed[kind][name] = feature
            continue
        groups.setdefault(_group(feature, kind), {})[name] = feature
    encoders: list[tuple[Encoder, list[str]]] = [*leading(settings, kinds)]
    for group, features in groups.items():
        columns = [raw for name, feature in features.items() for raw in sources(name, feature)]
        encoders.append((_encoder(group, features, columns, settings), columns))
    if OWN:
        own_numbers = OwnNumbers(OWN, kinds)
        encoders.append((own_numbers, list(own_numbers.kinds)))
    read_masked = {name: mask for name, mask in masks(settings).items() if name in kinds}
    properties = {"masks": json.dumps(read_masked)} if read_masked else {}
    preparation = Preparation(kinds, encoders, properties=properties)
    if summed["text"]:
        preparation.texts = TextModel(summed["text"])
    if summed["image"]:
        from .images import ImageModel  # which takes half a second to import

        forms = {name: form(column) for name, column in settings.data.schema_.columns.items()}
        preparation.images = ImageModel(summed["image"], forms, settings.project.seed)
    if target := by_labels["target"]:
        preparation.targets = TargetEncoding(target)
    if trained := by_labels["network"]:
        preparation.networks = optional_module("networks.features").build(trained, settings)
    return preparation
