"""YOURS: what a history tells, features of your own, and how a row is shaken to see whether answers hold.

Of a history all features are made by ONNX nodes, in units of the series' own level: a model then knows a course
whatever its size is, and a series that grows stays one that it knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..histories import stacked
from .data import HISTORY
from .decision import CLIP, SEASONS, level

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray


class Own(NamedTuple):
    """A number of your own, made by ONNX nodes: training and service then compute it alike, to the last bit.

    Attributes:
        columns: the raw columns that it is made from.
        nodes: takes the graph (features/graph.py) and the name of each column there, all of shape
            (n, 1): numbers, yes and no as 32-bit floats, missing NaN; texts; times as 64-bit seconds.
            Returns the name of a 32-bit output of that shape, NaN where it is missing.
    """

    columns: tuple[str, ...]
    nodes: Callable[..., str]


# name -> Own. What is missing gets the median, and all is scaled, as in the catalogue. For example:
#   def age_at_start(graph, age, days):
#       return graph.add("Sub", age, graph.add("Div", days, graph.constant([[365.25]])))
#   OWN = {"age_at_start": Own(("entity_age", "entity_tenure_days"), age_at_start)}
OWN: dict[str, Own] = {}


LEVEL, SEASONAL, THETA = range(
    3
)  # the positions of the first columns: the level, and two forecasts in its units
LAGS = (1, 2, 3)  # steps back, beside those of one season and two
MAX_RATIO = 20.0  # of a value to the level; beyond, it counts as that
MAX_MAGNITUDE = 1e30
MAX_THETA = 128  # values that theta is fitted to: its constants grow with their square
RATES = np.linspace(0.05, 0.95, 19)  # of exponential smoothing, each of which is tried
SEASONAL_LIMIT = 1.645  # standard errors of an autocorrelation, from which theta takes out a season
MIN_RATIO = 0.05  # the lowest value, in units of the level, above which a season multiplies and is not added


class Course:
    """What the history of a series tells of a step ahead, in units of the series' level.

    The level stands first, as it is; then what the seasonal naive method and theta forecast for the row's own step.
    A value that is missing counts as the last one before it, and before the first known one as that of a season
    later. A series without a history has the level of most in training, and is expected to stay there.

    Args:
        length: of a history, the latest value last; season, ahead: in steps.
    """

    def __init__(self, length: int, season: int, ahead: int) -> None:
        self.length, self.season, self.ahead = length, season, ahead
        self.fallback_ = 1.0

    @property
    def names_(self) -> list[str]:
        """What its columns are called."""
        lags = [f"{lag} back" for lag in self._lags]
        seasons = [f"{k} seasons back" for k in range(2, self._seasons + 1)]
        means = [f"mean of {width}" for width in self._widths]
        kinds = (
            "spread",
            "change by season",
            "share of zeros",
            "share of gaps",
            "steps since a value",
        )
        return ["level", "seasonal naive", "theta", *seasons, *lags, *means, *kinds]

    @property
    def _lags(self) -> list[int]:
        lags = {*LAGS, self.season, 2 * self.season}
        return sorted(lag for lag in lags if lag <= self.length)

    @property
    def _widths(self) -> list[int]:
        widths = {2, self.season, 2 * self.season, SEASONS * self.season, self.length}
        return sorted(width for width in widths if width <= self.length)

    @property
    def _seasons(self) -> int:
        return max(1, min(SEASONS, self.length // self.season))

    def fit(self, x: pd.DataFrame) -> None:
        """Learn the level of a series without a history: the median of training's."""
        histories = stacked(x.iloc[:, 0].unique(), self.length)
        sizes = level(histories, self.season, np.nan)
        if np.isfinite(sizes).any():
            self.fallback_ = float(np.nanmedian(sizes))

    def to_nodes(self, graph: Any, columns: list[str]) -> list[str]:
        """Add the nodes behind a history and a step ahead; the one output is float32, shape (n, width)."""
        history, horizon = columns
        graph.histories[history] = self.length
        step = self._step(graph, horizon)
        is_missing = graph.add("IsNaN", history)
        values = graph.add("Where", is_missing, graph.constant([[0.0]]), history)
        values = graph.add("Max", values, graph.constant([[-MAX_MAGNITUDE]]))
        values = graph.add("Min", values, graph.constant([[MAX_MAGNITUDE]]))
        size = self._level(graph, values)
        ratios = graph.add("Div", values, size)
        ratios = graph.add("Max", ratios, graph.constant([[-MAX_RATIO]]))
        ratios = graph.add("Min", ratios, graph.constant([[MAX_RATIO]]))
        present = graph.add("Cast", graph.add("Not", is_missing), to=graph.FLOAT)
        latest = self._latest(graph, present)
        course = self._filled(graph, ratios, present, latest)
        seasonal = self._seasonal(graph, course, step)
        naive = _columns(graph, seasonal, 0, 1)
        parts = [size, naive, self._theta(graph, course, step)]
        if self._seasons > 1:
            parts.append(_columns(graph, seasonal, 1, self._seasons))
        back = graph.constant([self.length - lag for lag in self._lags], np.int64)
        parts += [
            graph.add("Gather", course, back, axis=1),
            *self._summaries(graph, course, values, present),
        ]
        last = _columns(graph, latest, self.length - 1, self.length)
        parts.append(graph.add("Sub", graph.constant([[float(self.length)]]), last))
        return [graph.join(parts)]

    def _step(self, graph: Any, horizon: str) -> str:
        """The place of each row's step ahead, from 0, int64, shape (n, 1)."""
        first, last = graph.constant([[1.0]]), graph.constant([[float(self.ahead)]])
        step = graph.add("Where", graph.add("IsNaN", horizon), first, horizon)
        step = graph.add("Min", graph.add("Max", graph.add("Round", step), first), last)
        return graph.add("Cast", graph.add("Sub", step, first), to=graph.INT64)

    def _level(self, graph: Any, values: str) -> str:
        """As `decision.level` has it, shape (n, 1)."""
        sizes = graph.add("Abs", values)
        is_used = graph.add("Greater", sizes, graph.constant([[0.0]]))
        used = graph.add("Cast", is_used, to=graph.FLOAT)
        start, level = (
            max(0, self.length - SEASONS * self.season),
            graph.constant([[self.fallback_]]),
        )
        for begin in dict.fromkeys((0, start)):  # of all, and before it of the latest
            part, counted = (_columns(graph, name, begin, self.length) for name in (sizes, used))
            width = self.length - begin
            total = _sum(graph, counted, width)
            count = graph.add("Max", total, graph.constant([[1.0]]))
            mean = graph.add("Div", _sum(graph, part, width), count)
            limit = graph.add("Mul", mean, graph.constant([[CLIP]]))
            clipped = graph.add("Div", _sum(graph, graph.add("Min", part, limit), width), count)
            is_told = graph.add("Greater", clipped, graph.constant([[0.0]]))
            level = graph.add("Where", is_told, clipped, level)
        return level

    def _latest(self, graph: Any, present: str) -> str:
        """The place, from 1, of the latest known value up to each; 0 where there is none; shape (n, length)."""
        positions = graph.constant([np.arange(1, self.length + 1, dtype=np.float32)])
        marked = graph.add(
            "Unsqueeze", graph.add("Mul", present, positions), graph.constant([1], np.int64)
        )
        window = {"kernel_shape": [self.length], "pads": [self.length - 1, 0], "strides": [1]}
        highest = graph.add("MaxPool", marked, **window)
        return graph.add("Squeeze", highest, graph.constant([1], np.int64))

    def _filled(self, graph: Any, ratios: str, present: str, latest: str) -> str:
        """The course without gaps, shape (n, length)."""
        unit, zero = graph.constant([[1.0]]), graph.constant([[0.0]])
        end, season = graph.constant([[float(self.length)]]), graph.constant([[float(self.season)]])
        before = graph.add("Max", graph.add("Sub", latest, unit), zero)
        carried = graph.add(
            "GatherElements", ratios, graph.add("Cast", before, to=graph.INT64), axis=1
        )
        positions = graph.constant([np.arange(1, self.length + 1, dtype=np.float32)])
        beyond = graph.constant([[float(self.length + 1)]])
        is_present = graph.add("Greater", present, zero)
        first = graph.add(
            "ReduceMin",
            graph.add("Where", is_present, positions, beyond),
            graph.constant([1], np.int64),
            keepdims=1,
        )
        seasons = graph.add("Ceil", graph.add("Div", graph.add("Sub", first, positions), season))
        later = graph.add("Add", positions, graph.add("Mul", seasons, season))
        source = graph.add("Max", graph.add("Sub", graph.add("Min", later, end), unit), zero)
        borrowed = graph.add(
            "GatherElements", carried, graph.add("Cast", source, to=graph.INT64), axis=1
        )
        borrowed = graph.add("Where", graph.add("Greater", later, end), unit, borrowed)
        is_before = graph.add("Less", latest, graph.constant([[0.5]]))
        return graph.add("Where", is_before, borrowed, carried)

    def _seasonal(self, graph: Any, course: str, step: str) -> str:
        """What was at the same place of one season, two and so on before, shape (n, seasons)."""
        phase = np.arange(self.ahead) % self.season
        seasons = np.arange(1, self._seasons + 1)
        positions = np.clip(
            self.length - seasons * self.season + phase[:, None], 0, self.length - 1
        )
        rows = graph.add("Gather", graph.constant(positions, np.int64), step, axis=0)
        return graph.add("GatherElements", course, graph.add("Flatten", rows, axis=1), axis=1)

    def _summaries(self, graph: Any, course: str, values: str, present: str) -> list[str]:
        """Means of the latest values, how much they vary, and shares of zeros and gaps, each of shape (n, k)."""
        weights = np.zeros((self.length, len(self._widths)), np.float32)
        for column, width in enumerate(self._widths):
            weights[-width:, column] = 1 / width
        means = _product(graph, course, weights)
        start = max(0, self.length - SEASONS * self.season)
        recent = _columns(graph, course, start, self.length)
        width = self.length - start
        gaps = graph.add("Sub", recent, _mean(graph, recent, width))
        spread = graph.add("Sqrt", _mean(graph, graph.add("Mul", gaps, gaps), width))
        lag = min(self.season, self.length - 1)
        ago = _columns(graph, course, 0, self.length - lag)
        change = graph.add("Sub", _columns(graph, course, lag, self.length), ago)
        is_zero = graph.add("Equal", values, graph.constant([[0.0]]))
        zeros = graph.add("Mul", graph.add("Cast", is_zero, to=graph.FLOAT), present)
        missing = graph.add("Sub", graph.constant([[1.0]]), present)
        shares = [
            _mean(graph, _columns(graph, name, start, self.length), width)
            for name in (zeros, missing)
        ]
        return [means, spread, _mean(graph, graph.add("Abs", change), self.length - lag), *shares]

    def _theta(self, graph: Any, course: str, step: str) -> str:
        """What theta (Assimakopoulos and Nikolopoulos, 2000) forecasts for each row's step, shape (n, 1).

        That is exponential smoothing with half the trend as its drift (Hyndman and Billah, 2003), of the course
        without its season where it has one. The rate is the one with the least squared error.
        """
        n, length = self.season, min(self.length, MAX_THETA)
        x = _columns(graph, course, self.length - length, self.length)
        seasonal = length >= 2 * n + (n % 2 == 0) and n > 1
        if not seasonal:
            return graph.add("GatherElements", self._smoothed(graph, x, length), step, axis=1)
        factors, shifts = self._season_indices(graph, x, length)
        is_positive = graph.add(
            "Greater",
            graph.add("ReduceMin", x, graph.constant([1], np.int64), keepdims=1),
            graph.constant([[MIN_RATIO]]),
        )
        phases = graph.constant(np.arange(length) % n, np.int64)
        ahead = graph.constant((length + np.arange(self.ahead)) % n, np.int64)
        plain = graph.add(
            "Where",
            is_positive,
            graph.add("Div", x, graph.add("Gather", factors, phases, axis=1)),
            graph.add("Sub", x, graph.add("Gather", shifts, phases, axis=1)),
        )
        smooth = self._smoothed(graph, plain, length)
        path = graph.add(
            "Where",
            is_positive,
            graph.add("Mul", smooth, graph.add("Gather", factors, ahead, axis=1)),
            graph.add("Add", smooth, graph.add("Gather", shifts, ahead, axis=1)),
        )
        return graph.add("GatherElements", path, step, axis=1)

    def _season_indices(self, graph: Any, x: str, length: int) -> tuple[str, str]:
        """What each place of a season is multiplied with, or gets added, shape (n, season): 1 and 0 where the
        course has none that is clear of chance."""
        n = self.season
        half, width = n // 2, n + 1 - n % 2
        kernel = np.ones(width, np.float32) / n
        if n % 2 == 0:
            kernel[[0, -1]] /= 2
        inner = length - width + 1
        smoothing = np.zeros((length, inner), np.float32)
        for column in range(inner):
            smoothing[column : column + width, column] = kernel
        phase = (np.arange(inner) + half) % n
        averaging = (phase[:, None] == np.arange(n)).astype(np.float32)
        averaging /= averaging.sum(axis=0)
        trend = _product(graph, x, smoothing)
        middle = _columns(graph, x, half, half + inner)
        safe = graph.add("Max", trend, graph.constant([[MIN_RATIO]]))
        ratios = _product(graph, graph.add("Div", middle, safe), averaging)
        factors = graph.add(
            "Div", ratios, graph.add("Max", _mean(graph, ratios, n), graph.constant([[MIN_RATIO]]))
        )
        factors = graph.add("Max", factors, graph.constant([[MIN_RATIO]]))
        shifts = _product(graph, graph.add("Sub", middle, trend), averaging)
        shifts = graph.add("Sub", shifts, _mean(graph, shifts, n))
        is_seasonal = self._is_seasonal(graph, x, length)
        return (
            graph.add("Where", is_seasonal, factors, graph.constant([[1.0]])),
            graph.add("Where", is_seasonal, shifts, graph.constant([[0.0]])),
        )

    def _is_seasonal(self, graph: Any, x: str, length: int) -> str:
        """Whether the autocorrelation at one season is clear of chance (Bartlett, 1946), shape (n, 1)."""
        centred = graph.add("Sub", x, _mean(graph, x, length))
        square = _sum(graph, graph.add("Mul", centred, centred), length)
        square = graph.add("Max", square, graph.constant([[1e-6]]))
        products = [
            _sum(
                graph,
                graph.add(
                    "Mul",
                    _columns(graph, centred, lag, length),
                    _columns(graph, centred, 0, length - lag),
                ),
                length - lag,
            )
            for lag in range(1, self.season + 1)
        ]
        correlations = graph.add("Div", graph.join(products), square)
        shorter = _columns(graph, correlations, 0, self.season - 1)
        twice = graph.constant([[2.0 / length]])
        chance = graph.add(
            "Mul", _sum(graph, graph.add("Mul", shorter, shorter), self.season - 1), twice
        )
        error = graph.add("Sqrt", graph.add("Add", chance, graph.constant([[1.0 / length]])))
        limit = graph.add("Mul", error, graph.constant([[SEASONAL_LIMIT]]))
        return graph.add(
            "Greater", _columns(graph, correlations, self.season - 1, self.season), limit
        )

    def _smoothed(self, graph: Any, x: str, length: int) -> str:
        """Exponential smoothing with drift, of the rate that errs least: the path ahead, shape (n, ahead)."""
        errors, ends = smoothing_constants(length)
        time = np.arange(length) - (length - 1) / 2
        slope = (time / (time**2).sum() / 2)[:, None]
        drift = _product(graph, x, slope)
        missed = _product(graph, x, errors)
        squares = graph.add("Mul", missed, missed)
        total = _product(graph, squares, np.repeat(np.eye(len(RATES)), length, axis=0))
        rate = graph.add("ArgMin", total, axis=1, keepdims=1)
        levels = _product(graph, x, ends)
        last = graph.add("GatherElements", levels, rate, axis=1)
        lead = ((1 - (1 - RATES) ** length) / RATES).astype(np.float32)
        lead_of_rate = graph.add("Gather", graph.constant(lead), rate, axis=0)
        steps = graph.constant([np.arange(self.ahead, dtype=np.float32)])
        return graph.add(
            "Add", last, graph.add("Mul", drift, graph.add("Add", steps, lead_of_rate))
        )


def smoothing_constants(length: int) -> tuple[Array, Array]:
    """Exponential smoothing as matrices, the first value its start.

    Returns:
        what a course is multiplied with for its one-step errors, of each rate of `RATES` one after the other, shape
        (length, rates * length), and for the level at its end, shape (length, rates); float32.
    """
    errors, ends = [], []
    for rate in RATES:
        level = np.zeros(length)
        level[0] = 1.0
        of_rate = np.zeros((length, length))
        for t in range(1, length):
            of_rate[:, t] = np.eye(length)[t] - level
            level = level + rate * of_rate[:, t]
        errors.append(of_rate)
        ends.append(level)
    return np.hstack(errors).astype(np.float32), np.array(ends).T.astype(np.float32)


class Unscaled:
    """The first columns where no history is read: a level of 1, at which each series is expected to stay."""

    names_ = ("level", "seasonal naive", "theta")

    def fit(self, x: pd.DataFrame) -> None:
        """Nothing is learnt."""

    def to_nodes(self, graph: Any, columns: list[str]) -> list[str]:
        """Add the nodes; the one output is float32, shape (n, 3)."""
        first = (graph.constant([end], np.int64) for end in (0, 1))
        rows = graph.add("Slice", graph.add("Shape", columns[0]), *first)
        shape = graph.add("Concat", rows, graph.constant([len(self.names_)], np.int64), axis=0)
        return [graph.add("Expand", graph.constant([[1.0]]), shape)]


def _columns(graph: Any, values: str, start: int, end: int) -> str:
    ends = (graph.constant([position], np.int64) for position in (start, end, 1))
    return str(graph.add("Slice", values, *ends))


def _product(graph: Any, values: str, weights: Array) -> str:
    """Sums of n rows by weights, shape (width, k), as a matrix product, shape (n, k).

    Of at least four columns: the runtime sums a single one, or a row by itself, in an order that depends on where in
    memory the row stands, and a row would have other last bits in other company.
    """
    count = weights.shape[1]
    padded = np.pad(weights, ((0, 0), (0, max(0, 4 - count)))).astype(np.float32)
    product = str(graph.add("MatMul", values, graph.constant(padded)))
    return product if count >= 4 else _columns(graph, product, 0, count)


def _sum(graph: Any, values: str, width: int) -> str:
    return _product(graph, values, np.ones((width, 1)))


def _mean(graph: Any, values: str, width: int) -> str:
    return _product(graph, values, np.full((width, 1), 1 / width))


def leading(settings: Any, columns: Mapping[str, str]) -> list[Any]:
    """The encoder whose columns stand first, the level before all, with the raw columns that it reads.

    Args:
        columns: the model's inputs, with their types.
    """
    label = settings.data.label
    if label.history in columns and label.horizon in columns:
        length = settings.data.schema_.columns[label.history].length or HISTORY
        return [(Course(length, label.season, label.ahead), [label.history, label.horizon])]
    # An image or a text costs more to read than the count of its rows is worth
    ranked = sorted(columns, key=lambda name: columns[name] in ("image", "text"))
    return [(Unscaled(), ranked[:1])]


def shaken(rows: pd.DataFrame, names: Sequence[str], share: float, seed: int) -> pd.DataFrame:
    """Rows whose numbers got noise of `share` of each column's spread, and histories of `share` of each value.

    Args:
        names: of these columns; the steps ahead stay whole, and columns of text that hold no history as they are.
    """
    rng, noisy = np.random.default_rng(seed), rows.copy()
    for name in names:
        noise = share * rows[name].std() * rng.standard_normal(len(rows))
        noisy[name] = (rows[name] + noise).astype(np.float32)
    for name in rows:
        if rows[name].dtype != np.float32 and rows[name].astype(str).str.startswith("[").any():
            changed = {text: _shaken_history(text, share, rng) for text in rows[name].unique()}
            noisy[name] = rows[name].map(changed)
    return noisy


def _shaken_history(text: str, share: float, rng: np.random.Generator) -> str:
    if not text.startswith("["):
        return text
    values = json.loads(text)
    factors = 1 + share * rng.standard_normal(len(values))
    pairs = zip(values, factors.tolist(), strict=True)
    return json.dumps([None if value is None else value * factor for value, factor in pairs])


def judged(
    rows: pd.DataFrame, y: Array, seed: int
) -> tuple[pd.DataFrame, Array, Array | slice, str]:
    """The rows that a model is judged by: those of the part as they are.

    Args:
        rows: n raw rows, as a model takes them; y: their labels, shape (n,).

    Returns:
        the rows, their labels, from which of the n each comes, and what figures rest on, in words, or "".
    """
    return rows, y, slice(None), ""


def may_choose(y: Array) -> bool:
    """Whether one of several models may be chosen by rows with these labels, shape (n,): by what came of them."""
    return True
