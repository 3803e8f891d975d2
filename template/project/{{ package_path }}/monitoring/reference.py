"""A compact profile of the model on the test rows: all that later data is compared with.

What speaks of scores comes from the test rows, which the model has not seen: on those that it learnt
from it is too sure. What speaks of inputs and labels alone comes from all rows, unless these were split by
time: then the test rows are the newest, and the ones that later rows should look like.
It holds counts and sums, no row, so that the log can be watched without the training data.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import duckdb
import numpy as np
import pandas as pd
from scipy.special import gammaincinv, ndtri  # scipy.stats takes half a second to import

from .. import paths, problem
from ..data.label import is_labelled
from ..data.schema import name as quoted
from ..data.schema import no_label, text
from ..features.catalogue import inputs, load, load_truth, load_weight
from ..goals.gate import calibration, measure, representatives, resample, sample_rows
from ..modelling.scorer import load_scorer
from ..problem import data as problem_data
from ..problem import monitoring as problem_monitoring
from ..problem.decision import RULES
from ..problem.goals import aimed_quantile, came, claim, decide, numeric, spread
from ..problem.monitoring import OWN_FIGURES
from ..repository import verified
from ..scoring.rules import are_modelled
from ..settings import Settings, UserError, read_json, require_file
from .course import MIN_ROWS, Course, fit
from .watched import (
    CONTRAST,
    PIXELS,
    SECONDARY,
    SHARES,
    UNKNOWN_WORDS,
    Learnt,
    source_of,
    watched_kinds,
    watched_values,
)

MODELS = (paths.PRODUCTION, paths.CHALLENGER, paths.PREVIOUS)
MAX_REFERENCES = 50
SCORE, LABEL, CHANCE = "(score)", "(label)", "(score of {})"
OF_TEST_ROWS = " of the test rows"
MAX_CATEGORIES = 100
MAX_KNOWN_CATEGORIES = 10_000  # with those beyond the hundred, which are still told from new ones
SCORE_BINS = 50
RARE_SHARE = 0.01  # share of a category or of missing values, from which it is an axis of its own
PAIR_LEVELS = 4  # into which a number is cut where two columns are looked at together
PAIR_CATEGORIES = 7
MAX_ROWS = 200_000  # of which covariances are taken, the course is told and trees are fitted
NUMBER_PATTERN = r"-?\d+\.?\d*(e[-+]?\d+)?"
FOLDS = 3  # of the test rows, by which it is told what the model of errors leaves
SCORE_LEVELS = 10  # of each class's scores, in which it is told how often they come true
# Of kinds, in sentences; brightness and contrast lie between 0 and 1
UNITS = {
    "text": " characters",
    UNKNOWN_WORDS: " of all words",
    "image": " of brightness",
    CONTRAST: " of contrast",
    PIXELS: " pixels",
}
PRIOR_ROWS = 5  # by which such a level is drawn to what its scores say
CLAIM_ROWS = 20_000  # of the test rows, by which it is told what scores let expect
GROWTH = 4  # times the largest label of a series, beyond which none can be
CLAIM_DRAWS = 100  # of the test rows, by which it is told how far a claim strays by chance
BLOCKS = 8  # of consecutive test rows, which differ as windows do when nothing is wrong

Array = np.ndarray
Axes = list[tuple[str, int | None]]
Layers = dict[str, dict[Any, Array]]  # "tables", "counts" and "pairs" by phase, see `Profile`
Codes = Mapping[str, Array]  # of rows, by column
Part = tuple[pd.DataFrame, Array]  # inputs and labels of a part of the split
Answers = tuple[Array, Array, Array]  # label, score and what was decided, of rows


class ErrorModel(TypedDict):
    """Trees that tell a number's error, or its square, from the values of a row's columns."""

    mean: float  # error
    noise: float  # standard deviation of what the trees leave of rows they were not fitted on
    columns: list[str]
    trees: str  # LightGBM's text, compressed, in base64


class ClaimedMetric(TypedDict):
    """A metric that the scores of all classes let expect of the test rows."""

    value: float
    noise: float  # standard deviation of the measured value about the expected one, by chance
    phases: list[float]  # measured, the overall figure where a phase has few rows


class Facts(TypedDict, total=False):
    """What a reference says of its model and its rows, as JSON in the file."""

    label_means: list[float]  # by phase, where there are several
    decision: Any
    model: str  # checksum
    metrics: dict[str, float]  # on the test rows
    examination: list[float]  # how likely each place of a list is looked at, where that matters
    examined_rows: int  # of lists in random order, that tell it
    figures: dict[str, float]  # of the test rows, that only this kind of problem has
    errors: dict[str, ErrorModel]  # of a number: by what is averaged, as `losses` names it
    calibration_low: dict[str, Any]  # "whole" and by phase ("phases")
    label_values: list[str]
    label_low: float
    label_high: float
    label_mean: float
    classes: list[str]  # these four where each class has a score
    reliability: dict[str, list[list[float]]]  # "ends" and "ratios" by class, see `_class_facts`
    implied: list[float]
    claimed: dict[str, ClaimedMetric]
    spread: float  # unit of a number's errors
    quantile: float | None
    rows_seen: int
    trained_until: str | None


@dataclass
class Column:
    """How the values of a column become codes: small whole numbers, in `names`' order.

    number: one below the range, the bins, one above the range, missing · category: the commonest,
    other, new, missing. `coarse` maps a code to one of few levels.
    """

    name: str
    # number, bool, category, time or score; text: its length, image: its brightness; or one of `SECONDARY`
    kind: str
    edges: list[float] = field(default_factory=list)  # upper ends: a bin holds low < value <= high
    categories: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # known, but beyond the commonest
    singletons: int = 0  # categories met once: how likely a new one is (Good, 1953)
    coarse: list[int] = field(default_factory=list)
    dispersion: float = 1.0  # how much more consecutive rows differ than chance would have them
    block: float = 1.0  # rows, of which that holds
    place: list[float] = field(default_factory=list)  # normal score of a number's codes, missing 0
    popularity: list[int] = field(default_factory=list)  # fifth of each code: 0 the commonest
    vocabulary: list[str] = field(default_factory=list)  # the words that are known
    basis: str = (
        ""  # directions in which training's texts or images differ, as `Basis.packed` gives them
    )

    @property
    def source(self) -> str:
        """The raw column that the values come from."""
        return source_of(self.name, self.kind)

    @cached_property
    def names(self) -> list[str]:
        """What each code stands for: a bin's bounds, a category, or what is odd about a value."""
        if self.kind == "category":
            return [*self.categories, "(other)", "(new)", "(missing)"]
        # The lower end lies a hair below the smallest value
        digits, unit = ".0f" if self.kind == "text" else ".4g", UNITS.get(self.kind, "")
        ends = [f"{0.0 if abs(edge) < 1e-30 else edge:{digits}}" for edge in self.edges]
        ends = [end.replace("1e+30", "∞") for end in ends]
        inner = [high if low == high else f"{low} to {high}" for low, high in pairwise(ends)]
        bounded = [f"below {ends[0]}", *inner, f"above {ends[-1]}"]
        return [*(name + unit for name in bounded), "(missing)"]

    @property
    def fault_codes(self) -> dict[str, list[int]]:
        """The codes that speak of a fault, by what is wrong: new, missing or range."""
        last = len(self.names) - 1
        if self.kind == "category":
            return {"new": [last - 1] if self.others is not None else [], "missing": [last]}
        if (
            self.kind in SECONDARY
        ):  # the text has the faults, by its length; the image, by its brightness
            return {}
        return {"range": [0, last - 1], "missing": [last]}

    @cached_property
    def level_names(self) -> list[str]:
        """The name of each coarse level: the bounds of its bins, a category, or "(any other)"."""
        by_level: dict[int, list[str]] = {}
        for code, level in enumerate(self.coarse):
            by_level.setdefault(level, []).append(self.names[code])
        level_names = []
        for _, names in sorted(by_level.items()):
            if self.kind != "category" and len(names) > 1:
                low, high = names[0].split(" to ")[0], names[-1].split(" to ")[-1]
                low, high = low.removeprefix("below "), high.removeprefix("above ")
                low = low.removesuffix(UNITS.get(self.kind, ""))
                level_names.append(f"{low} to {high}")
            else:
                level_names.append(names[0] if len(names) == 1 else "(any other)")
        return level_names

    def codes(self, values: pd.Series | Array) -> Array:
        """The code of each value, as `features.catalogue.load` gives them, shape (n,), uint8."""
        if self.kind == "category":
            code_of = {value: code for code, value in enumerate(self.categories)}
            other_code, new_code = len(self.categories), len(self.categories) + 1
            code_of |= dict.fromkeys(self.others, other_code) | {"": new_code + 1}
            return pd.Series(values).map(code_of).fillna(new_code).to_numpy(np.uint8)
        numbers = np.asarray(values, dtype=np.float64)
        codes = np.searchsorted(self.edges, numbers, side="left")
        return np.where(np.isnan(numbers), len(self.edges) + 1, codes).astype(np.uint8)


@dataclass
class Moments:
    """Means and covariances of several axes at once, and how much blocks of rows differ in them.

    Attributes:
        axes: (column, level) of each: whether it has that coarse level, or where the level is None a
            number's normal scores; without a column just 1.
        mean: shape (axes,); covariance: shape (axes, axes); rows: of which they were taken.
        dispersion, block: as those of a column.
        means, counts: means and rows by phase, shape (phases, axes) and (phases,).
    """

    axes: Axes
    mean: Array
    covariance: Array
    rows: int
    dispersion: float = 1.0
    block: float = 1.0
    means: Array | None = None
    counts: Array | None = None

    def reweighted(self, mix: Array) -> Moments:
        """The moments of rows that come in other shares of the phases.

        The covariance is that within phases, as it is, and that between them, weighted anew.

        Args:
            mix: rows by phase, as `phase_shares` takes them, shape (phases + 1,).
        """
        if self.means is None or self.counts is None:
            return self
        shares, rows = phase_shares(mix, self.counts)
        old_shares, mean = self.counts / self.counts.sum(), shares @ self.means
        between, old_between = (
            (self.means - weight @ self.means).T * weight @ (self.means - weight @ self.means)
            for weight in (shares, old_shares)
        )
        covariance = self.covariance + between - old_between
        return replace(self, mean=mean, covariance=covariance, rows=int(rows))


@dataclass
class Profile:
    """The reference: columns, and tables of what fell into each of their codes.

    Attributes:
        labels: for a yes or no [0, 1], else upper ends of the label's bins, the last one infinite.
        tables: column -> by code and label bin, shape (codes, labels, 5): rows, sum of score, of
            outcome, of (outcome - score) squared, of loss; the score stands among the columns. Where each
            class has a score, score is that of the class decided on, and outcome 1 where it was right.
        counts: column -> rows by code, shape (codes,): of the reference rows, which later ones should
            look like: all, or the test rows alone where these are the newest.
        pairs: (column, column) -> test rows by coarse level of both, shape (levels, levels).
        moments: what is looked at together -> means and covariances of its `axes`.
        facts: model, decision, figures, times.
        course: which phase an hour is in; phased: tables, counts and pairs by phase, one axis more.
    """

    columns: dict[str, Column]
    labels: list[float]
    tables: dict[str, Array]
    counts: dict[str, Array]
    pairs: dict[tuple[str, str], Array]
    moments: dict[str, Moments]
    facts: Facts
    course: Course = field(default_factory=Course)
    phased: Layers = field(default_factory=dict)

    def reweighted(self, mix: Array) -> Profile:
        """The reference of rows that come in the phases in which a window's came.

        Args:
            mix: the window's rows by phase, those of no known phase last, shape (phases + 1,).

        Returns:
            this very reference where it knows one phase only. Its counts add up to the effective
            sample size: as many rows as tell as much as the reference's do in this mix (Kish, 1965).
        """
        if self.course.phases < 2 or not mix.sum():
            return self
        parts: dict[str, Any] = {}
        for attribute, layers in self.phased.items():
            parts[attribute] = {}
            for name, layer in layers.items():
                rows = _phase_rows(layer, attribute)
                shares, effective_rows = phase_shares(mix, rows)
                weights = effective_rows * shares / np.maximum(rows, 1)
                parts[attribute][name] = np.tensordot(weights, layer, axes=1)
        moments = {name: moments.reweighted(mix) for name, moments in self.moments.items()}
        shares, _ = phase_shares(mix, _phase_rows(self.phased["counts"][LABEL], "counts"))
        mean = float(shares @ np.asarray(self.facts["label_means"]))
        facts: Facts = self.facts | {"label_mean": mean}
        return replace(self, **parts, moments=moments, facts=facts)

    @property
    def quantile(self) -> float | None:
        """The share of outcomes that should lie at a score or below; None: the score is a mean."""
        return self.facts.get("quantile")

    @cached_property
    def error_models(self) -> dict[str, Any]:
        """LightGBM's trees for a number's error by the values of columns."""
        from lightgbm import Booster

        return {
            target: Booster(model_str=zlib.decompress(b64decode(model["trees"])).decode())
            for target, model in self.facts.get("errors", {}).items()
        }

    def test_rows_only(self) -> Profile:
        """The reference of the test rows alone: for logs in which these come again, as a drill's do."""
        counts = {name: cells[..., 0].sum(axis=1) for name, cells in self.tables.items()}
        counts[LABEL] = self.tables[SCORE][..., 0].sum(axis=0)
        moments = {key: self.moments.get(key + OF_TEST_ROWS, m) for key, m in self.moments.items()}
        # A drill draws them at random, so that all its windows are alike
        return replace(self, counts=counts, moments=moments, course=Course(), phased={})

    @property
    def rows(self) -> int:
        """How many test rows the reference was made of."""
        return int(self.tables[SCORE][..., 0].sum())

    def label_bins(self, y: Array) -> Array:
        """The bin of each label, from labels of shape (n,); shape (n,)."""
        return np.searchsorted(self.labels[:-1], y)

    def axis_values(self, axes: Axes, codes: Codes) -> Array:
        """The value of each row on each axis of `Moments`, shape (rows, axes).

        Args:
            codes: column -> code of each row, shape (rows,).
        """
        values = []
        for name, level in axes:
            if not name:
                values.append(np.ones(len(codes[SCORE])))
                continue
            column = self.columns[name]
            levels = np.asarray(column.coarse)
            by_code = np.asarray(column.place) if level is None else (levels == level).astype(float)
            values.append(by_code[codes[name]])
        return np.stack(values, axis=1)


def phase_shares(mix: Array, rows: Array) -> tuple[Array, float]:
    """The share of each phase in a mix, and how many rows the reference has of such a mix.

    Args:
        mix: rows by phase, shape (phases + 1,). Those of the last belong to no phase and are taken to
            come as the reference's do, as are those of a phase that the reference has no rows of.
        rows: of the reference by phase, shape (phases,).

    Returns:
        the shares, shape (phases,), and the effective sample size of the reference's rows where they
        are weighted to have these shares (Kish, 1965).
    """
    known_rows = np.where(rows > 0, mix[:-1], 0.0)
    shares = (known_rows + (mix.sum() - known_rows.sum()) * rows / rows.sum()) / mix.sum()
    return shares, float(1 / (shares**2 / np.maximum(rows, 1)).sum())


def _phase_rows(layer: Array, attribute: str) -> Array:
    """Rows of the reference by phase, shape (phases,), from one of `Profile.phased`'s arrays."""
    counts = layer[..., 0] if attribute == "tables" else layer
    return np.asarray(counts.reshape(len(layer), -1).sum(axis=1), np.float64)


class Outcomes(NamedTuple):
    """What answers claimed and what came of them, each of shape (n,), and what a row adds to the loss."""

    claimed: Array
    came: Array
    loss: Array

    @classmethod
    def of(cls, y: Array, score: Array, decision: Any) -> Outcomes:
        """The outcomes of labels of shape (n,) and scores of shape (n,) or (n, classes)."""
        decided = decide(score, decision)
        return cls(claim(score, decided), came(y, decided), problem_monitoring.row_loss(y, score))

    def take(self, rows: Array) -> Outcomes:
        """The outcomes of some rows, by their index or a mask."""
        return Outcomes(*(values[rows] for values in self))

    @property
    def residual(self) -> Array:
        """How far what came lies above what was claimed, shape (n,)."""
        return self.came - self.claimed


def table(codes: Array, labels: Array, outcomes: Outcomes, sizes: tuple[int, int]) -> Array:
    """Rows and sums by code and label bin, shape (codes, labels, 5), as `Profile.tables` has them.

    Args:
        codes: of a column, shape (n,); labels: the label's bin of each row, shape (n,).
        sizes: how many codes and label bins there are.
    """
    cell = codes.astype(np.int64) * sizes[1] + labels
    sums = (None, outcomes.claimed, outcomes.came, outcomes.residual**2, outcomes.loss)
    flat = [np.bincount(cell, weights, sizes[0] * sizes[1]) for weights in sums]
    return np.stack(flat, axis=1).reshape(*sizes, len(sums))


def reference(settings: Settings, root: Path, folder: str = paths.TRAINED) -> dict[str, Any]:
    """Write monitoring/reference.parquet from the split rows and the exported model.

    Of a model elsewhere (`folder`) it is written beside that model, and goes where the folder goes.

    A row of it is a bin or category of a column within a bin of the label, with its rows and sums;
    or two coarse levels of two columns. How columns are cut stands in the file's metadata.

    Returns:
        {"rows", "columns", "course"}: how many rows and columns were counted, and the course's phases,
        a line each.

    Raises:
        UserError: when train has not run.
    """
    columns = inputs(settings)
    read_parts = {part: _read_part(root / path, columns) for part, path in paths.SPLITS.items()}
    scorer = load_scorer(root / folder / paths.MODEL_FILE)
    manifest = read_json(root / folder / paths.MANIFEST_FILE)
    score = scorer.score(read_parts["test"][0])
    (test, *earlier), learnt = _watched_parts(read_parts, columns)
    test_path = root / paths.SPLITS["test"]
    truth, (rows, y) = load_truth(test_path)[_alike(test_path, columns)], test
    watched_score = score / problem_monitoring.sizes(truth)
    # Training rows of an earlier time, or that were not drawn by chance, are not like those to come
    is_alike = settings.data.split.by != "time" and settings.data.sampling.by_chance
    ref_parts = [test, *(earlier if is_alike else [])]
    ref_rows = pd.concat([part_rows for part_rows, _ in ref_parts], ignore_index=True)
    ref_y = np.concatenate([part_y for _, part_y in ref_parts])
    labels = problem_monitoring.label_edges(ref_y, settings.data.label)
    profile = Profile({}, labels, {}, {}, {}, {}, {})
    decision = manifest["decision"]
    outcomes = Outcomes.of(y, watched_score, decision)
    ref_codes = _cut_columns(profile, settings, ref_rows, watched_score, decision)
    # The test rows are the first
    codes = {name: column_codes[: len(y)] for name, column_codes in ref_codes.items()}
    _add_popularity(profile, settings, root)
    for name, (vocabulary, basis) in learnt.items():
        profile.columns[name].vocabulary, profile.columns[name].basis = vocabulary, basis
    phase = _fit_course(profile, settings, root, test, earlier)[: len(ref_y)]
    _count_rows(profile, codes, ref_codes, (outcomes, y), ref_y, phase)
    _add_moments(profile, codes, ref_codes, outcomes.residual, phase)
    decided = decide(score, decision)
    metrics = dict.fromkeys([settings.goals.metric, *settings.goals.also])
    profile.facts["decision"] = decision
    profile.facts |= {
        "model": scorer.sha256,
        "metrics": {metric: measure(metric, truth, score, decided) for metric in metrics},
        "figures": OWN_FIGURES[1](truth, score, None, interval=manifest.get("interval"))
        if OWN_FIGURES
        else {},
        **_facts_of_figures(settings, root),
        **(_examination(root) if problem.LISTED else {}),
        "errors": _fit_errors(profile, rows, codes, _losses(metrics, truth, score), watched_score),
        "calibration_low": _calibration_lows(
            profile, settings, numeric(truth), score, phase[: len(y)]
        ),
        "label_values": _label_values(settings, root) if problem.CLASSES else [],
        **_label_range(root, len(ref_parts)),
        "label_mean": _mean_label(ref_y),
        "classes": problem_data.named(settings.data.label) if problem.WIDE else [],
        **(_class_facts(settings, (y, score, decided), phase[: len(y)]) if problem.WIDE else {}),
        "spread": spread(numeric(truth)),
        "quantile": aimed_quantile(settings.goals),
        "rows_seen": len(ref_y),
        "trained_until": manifest.get("trained_until"),
    }
    path = paths.REFERENCE if folder == paths.TRAINED else f"{folder}/{paths.REFERENCE_FILE}"
    _write_profile(profile, root / path)
    course = profile.course.describe()
    return {"rows": len(ref_y), "columns": len(profile.columns), "course": course}


def _cut_columns(
    profile: Profile, settings: Settings, ref_rows: pd.DataFrame, score: Array, decision: Any
) -> Codes:
    """Cut the columns and the scores; returns the code of each row by column.

    Args:
        score: of the test rows, shape (n,) or (n, classes).
    """
    codes, bins = {}, settings.monitoring.reference_bins
    watched = {}
    for index, name in enumerate(problem_data.named(settings.data.label) if problem.WIDE else []):
        watched[CHANCE.format(name)] = score[:, index]
    watched[SCORE] = claim(score, decide(score, decision))
    kinds = watched_kinds(inputs(settings)) | dict.fromkeys(watched, "score")
    for name, type_ in kinds.items():
        values = pd.Series(watched[name]) if type_ == "score" else ref_rows[name]
        edges = problem_monitoring.score_cuts(decision) if type_ == "score" else []
        column = _cut_column(name, type_, values, SCORE_BINS if type_ == "score" else bins, edges)
        codes[name] = column.codes(values)
        counts = np.bincount(codes[name], minlength=len(column.names))
        column.coarse = _coarse_levels(column, counts)
        column.place = _normal_scores(column, counts)
        profile.columns[name] = column
        profile.counts[name] = counts
    return codes


def _fit_course(
    profile: Profile, settings: Settings, root: Path, test: Part, earlier: list[Part]
) -> Array:
    """Keep the course that rows of all parts show; returns their phases, the test rows' first."""
    parts, time = [test, *earlier], settings.data.schema_.time
    y = np.concatenate([part_y for _, part_y in parts])
    if time is None:
        return np.zeros(len(y), dtype=np.int64)
    files = [str(root / paths.SPLITS[part]) for part in ("test", "train", "valid")]
    query = f"SELECT coalesce(floor(epoch({quoted(time)}) / 3600), -1)::BIGINT AS hour FROM read_parquet(?)"
    columns = inputs(settings)
    hours = np.concatenate(
        [
            duckdb.execute(query, [file]).fetchnumpy()["hour"][_alike(Path(file), columns)]
            for file in files
        ]
    )
    step, features = 1 + len(y) // MAX_ROWS, []
    sampled = np.flatnonzero(hours >= 0)[::step]
    if not len(sampled):
        return np.zeros(len(y), dtype=np.int64)
    for name, column in profile.columns.items():
        if column.kind in ("time", "score"):
            continue
        values = pd.concat([rows[name] for rows, _ in parts], ignore_index=True)
        codes = column.codes(values)[sampled]
        features += _level_indicators(np.asarray(column.coarse)[codes])
        if column.kind == "number":
            features.append(np.asarray(column.place)[codes])
    features += _level_indicators(profile.label_bins(y[sampled]))
    test_hours = hours[: profile.counts[SCORE].sum()]
    course = settings.monitoring.course
    profile.course = fit(hours[sampled], features, test_hours, course.time_zone, course.holidays)
    phase = profile.course.phase(hours)
    return np.where(hours < 0, profile.course.phases, phase) if phase.any() else phase


def _calibration_lows(
    profile: Profile, settings: Settings, y: Array, score: Array, phase: Array
) -> dict[str, Any]:
    """How far scores and outcomes surely are apart, over all test rows and by phase."""
    level, share = settings.goals.interval.level, aimed_quantile(settings.goals)
    unit = spread(y) if share is None else None
    masks = [phase == number for number in range(profile.course.phases)]
    decided = decide(score, profile.facts["decision"])
    claimed, outcome = claim(score, decided), came(y, decided)
    lows = [calibration(outcome[m], claimed[m], level, share, unit).low for m in masks if m.any()]
    return {"whole": calibration(outcome, claimed, level, share, unit).low, "phases": lows}


def _class_facts(settings: Settings, answers: Answers, phase: Array) -> Facts:
    """What the scores of all classes say of the test rows.

    Returns:
        reliability: by class the upper ends of tenths of its scores, and how much more often rows there
        were of it than they said · implied: the mean score of each class, recalibrated by that · claimed:
        metric -> the `value` that such scores let expect, the `noise` by which what came strays from
        it by chance, and what was measured in each phase (`phases`, the overall figure where few rows
        are).
    """
    y, score, _ = answers
    cuts, ratios = [], []
    for k, class_score in enumerate(score.T):
        ends = np.quantile(class_score, np.linspace(0, 1, SCORE_LEVELS + 1)[1:-1])
        level = np.searchsorted(ends, class_score)
        rows, hits, total = (
            np.bincount(level, w, SCORE_LEVELS) for w in (None, y == k, class_score)
        )
        mean = np.maximum(total / np.maximum(rows, 1), 1e-9)
        cuts.append(ends.tolist())
        ratios.append(((hits + PRIOR_ROWS * mean) / (rows + PRIOR_ROWS) / mean).tolist())
    facts: Facts = {"reliability": {"ends": cuts, "ratios": ratios}}
    chance = recalibrated(facts, score)
    return facts | {
        "implied": chance.mean(axis=0).tolist(),
        "claimed": _claimed_metrics(settings, answers, chance, phase),
    }


def recalibrated(facts: Facts, score: Array) -> Array:
    """Scores as often as the reference found them to come true, shape (n, classes), rows of sum 1.

    Histogram binning (Zadrozny and Elkan, 2001), a class at a time: the scores of a model that is a
    little off for one class would mislead what is estimated from them.

    Args:
        facts: of the reference, with `reliability`; score: shape (n, classes).
    """
    curve = facts["reliability"]
    factors = [
        np.asarray(ratios)[np.searchsorted(ends, class_score)]
        for ends, ratios, class_score in zip(curve["ends"], curve["ratios"], score.T, strict=True)
    ]
    chance = score * np.stack(factors, axis=1)
    return np.asarray(chance / np.maximum(chance.sum(axis=1, keepdims=True), 1e-300))


def _claimed_metrics(
    settings: Settings, answers: Answers, chance: Array, phase: Array
) -> dict[str, ClaimedMetric]:
    """Each metric that the chances of the classes let expect of the test rows, as `_class_facts` has it."""
    rows = sample_rows(len(answers[0]), CLAIM_ROWS, 0)
    y, score, decided = (values[rows] for values in answers)
    chance, phase = chance[rows], phase[rows]
    weights = resample(len(y), CLAIM_DRAWS, 0)
    parts = [np.flatnonzero(phase == number) for number in range(int(phase.max()) + 1)]
    claims: dict[str, ClaimedMetric] = {}
    for name in dict.fromkeys([settings.goals.metric, *settings.goals.also]):
        drawn = measure(name, y, score, decided, weights)
        drawn -= expected(name, score, decided, chance, weights)
        whole = measure(name, y, score, decided)
        claims[name] = {
            "value": float(expected(name, score, decided, chance)[0]),
            "noise": float(np.std(drawn)),
            "phases": [
                measure(name, y[i], score[i], decided[i]) if len(i) >= MIN_ROWS else whole
                for i in parts
            ],
        }
    return claims


def expected(
    metric: str,
    score: Array,
    decided: Array,
    chance: Array,
    weights: Array | None = None,
    rng: np.random.Generator | None = None,
) -> Array:
    """The expected value of a metric on rows whose labels are not known, shape (resamples,).

    Each row stands there once with each class, weighted by how likely it is: confidence-based
    performance estimation (Guo et al., 2017; Garg et al., 2022).

    Args:
        score: shape (n, classes); decided: shape (n,).
        chance: of each class to be the true one, shape (n, classes), or (resamples, n, classes).
        weights: how often each row counts, shape (resamples, n); None: once.
        rng: for labels that are drawn by their chances, as they will come; None: their expectation.
    """
    n, classes = score.shape
    weights = np.ones((1, n)) if weights is None else weights
    case_weights = weights[:, :, None] * chance
    case_weights = case_weights if rng is None else rng.poisson(case_weights).astype(np.float64)
    y, rows = np.tile(np.arange(classes, dtype=np.float64), n), np.repeat(np.arange(n), classes)
    values = measure(metric, y, score[rows], decided[rows], case_weights.reshape(len(weights), -1))
    return np.asarray(values, np.float64)


def _losses(metrics: Collection[str], truth: Array, score: Array) -> dict[str, Array]:
    """The errors of rows that these metrics average, each of shape (n,)."""
    named = {problem_monitoring.ERRORS.get(metric) for metric in metrics}
    losses = problem_monitoring.losses(truth, score)
    return {name: loss for name, loss in losses.items() if name in named}


def _fit_errors(
    profile: Profile, rows: pd.DataFrame, codes: Codes, losses: dict[str, Array], score: Array
) -> dict[str, ErrorModel]:
    """How large the error of a number is where columns have these values: trees on the test rows.

    Args:
        losses: of `problem.monitoring`, each of shape (n,).

    Returns:
        for each loss: its mean, the spread of what the trees do not tell of rows that they were not fitted on
        (`noise`), and the trees as text.
    """
    if not losses:
        return {}
    from lightgbm import LGBMRegressor

    models: dict[str, ErrorModel] = {}
    step = 1 + len(score) // MAX_ROWS
    names = [name for name, column in profile.columns.items() if column.kind != "time"]
    values_of = {SCORE: score} | {
        name: codes[name] if profile.columns[name].kind == "category" else rows[name].to_numpy()
        for name in names
        if name != SCORE
    }
    matrix = np.stack([values_of[name][::step] for name in names], axis=1).astype(np.float64)
    block = np.arange(len(matrix)) % FOLDS

    def fitted(mask: Array, values: Array) -> Any:
        model = LGBMRegressor(
            n_estimators=70, num_leaves=31, learning_rate=0.1, min_child_samples=20,
            n_jobs=1, deterministic=True, force_row_wise=True, random_state=0, verbose=-1,
        )  # fmt: skip
        return model.fit(matrix[mask], values[mask])

    for target, loss in losses.items():
        values = loss[::step]
        residual = values - values.mean()
        for fold in range(FOLDS if len(values) > 4 * MIN_ROWS else 0):
            model = fitted(block != fold, values)
            residual[block == fold] = values[block == fold] - model.predict(matrix[block == fold])
        trees = fitted(block >= 0, values).booster_.model_to_string()
        models[target] = {
            "mean": float(values.mean()),
            "noise": float(residual.std()),
            "columns": names,
            "trees": b64encode(zlib.compress(_shortened(trees).encode(), 9)).decode(),
        }
    return models


def _shortened(trees: str) -> str:
    """Trees as LightGBM writes them, with five digits where a prediction needs them and else with one."""

    def rounded(line: str) -> str:
        digits = 5 if line.startswith(("threshold=", "leaf_value=")) else 1
        return re.sub(NUMBER_PATTERN, lambda match: f"{float(match[0]):.{digits}g}", line)

    prefixes = ("threshold=", "leaf_value=", "split_gain=", "leaf_weight=", "internal_")
    lines = trees.partition("\nparameters:")[0].split("\n")
    # The sizes of the trees' texts are others now
    lines = [line for line in lines if not line.startswith("tree_sizes=")]
    return "\n".join(rounded(line) if line.startswith(prefixes) else line for line in lines)


def _level_indicators(levels: Array) -> list[Array]:
    """Whether a row has each level that is neither rare nor usual, each of shape (rows,)."""
    share = np.bincount(levels) / len(levels)
    used = np.flatnonzero((share > RARE_SHARE) & (share < 1 - RARE_SHARE))
    return [levels == level for level in used]


def _count_rows(
    profile: Profile,
    codes: Codes,
    ref_codes: Codes,
    answers: tuple[Outcomes, Array],
    ref_y: Array,
    phase: Array,
) -> None:
    """Fill tables, counts and pairs, by phase where there are several, and tell how blocks differ."""
    (outcomes, y), phases = answers, profile.course.phases
    labels, ref_labels = profile.label_bins(y), profile.label_bins(ref_y)
    parts = [np.flatnonzero(phase == number) for number in range(phases)] if phases > 1 else []
    test_parts = [part[part < len(y)] for part in parts]
    phased: Layers = {"tables": {}, "counts": {}, "pairs": {}}
    for name, column in profile.columns.items():
        sizes = len(column.names), len(profile.labels)
        column.dispersion, column.block = _dispersion(ref_codes[name], sizes[0], phase)
        profile.tables[name] = table(codes[name], labels, outcomes, sizes)
        if parts:
            layers = [
                table(codes[name][part], labels[part], outcomes.take(part), sizes)
                for part in test_parts
            ]
            phased["tables"][name] = np.stack(layers)
            column_parts = test_parts if column.kind == "score" else parts
            phased["counts"][name] = _counts_by_part(ref_codes[name], column_parts, sizes[0])
    paired = [
        n for n, c in profile.columns.items() if c.kind not in ("time", "score") or n == SCORE
    ]
    for a, b in combinations(paired, 2):
        columns = profile.columns[a], profile.columns[b]
        profile.pairs[a, b] = pair_counts(*columns, codes[a], codes[b])
        if parts:
            layers = [pair_counts(*columns, codes[a][part], codes[b][part]) for part in test_parts]
            phased["pairs"][a, b] = np.stack(layers)
    profile.counts[LABEL] = np.bincount(ref_labels, minlength=len(profile.labels))
    if parts:
        phased["counts"][LABEL] = _counts_by_part(ref_labels, parts, len(profile.labels))
        profile.facts["label_means"] = [_mean_label(ref_y[part]) for part in parts]
        profile.phased = phased


def _mean_label(y: Array) -> float:
    """The mean of the labels that are there; 0 where none is."""
    labelled = y[is_labelled(y)]
    return float(labelled.mean()) if len(labelled) else 0.0


def _counts_by_part(codes: Array, parts: list[Array], size: int) -> Array:
    """Rows by part and code, shape (parts, size)."""
    return np.stack([np.bincount(codes[part], minlength=size) for part in parts])


def _read_part(path: Path, columns: dict[str, str]) -> Part:
    """Inputs and labels of a part of the split, these in the units that they are watched in."""
    alike = _alike(path, columns)
    truth = load_truth(path)[alike]
    return load(path, columns).iloc[alike], numeric(truth) / problem_monitoring.sizes(truth)


def _alike(path: Path, columns: Mapping[str, str]) -> Array:
    """The positions of a part's rows that a model is asked about, each as often as it counts: what they have in common
    is like that of all rows.

    Raises:
        UserError: when rules before the model answer all of them.
    """
    alike = representatives(len(load_truth(path)), load_weight(path))
    if not RULES:
        return alike
    alike = alike[are_modelled(load(path, columns), columns)[alike]]
    if not len(alike):
        raise UserError(f"problem/decision.py: RULES: answer every row of {path}")
    return alike


def _label_range(root: Path, parts: int) -> Facts:
    """The smallest and the largest label of the first parts, as they are fed back: test, train and valid."""
    names = ("test", "train", "valid")[:parts]
    y = np.concatenate([numeric(load_truth(root / paths.SPLITS[name])) for name in names])
    low, high = float(y.min()), float(y.max())
    # A series may grow, and what fell to nothing is no fault: far beyond all lies another unit
    if problem.HISTORIES:
        low, high = min(0.0, GROWTH * low), GROWTH * high
    return {"label_low": low, "label_high": high}


def _facts_of_figures(settings: Settings, root: Path) -> Facts:
    """What the figures that only this kind of problem has need to know of the training data."""
    if not OWN_FIGURES or OWN_FIGURES[3] is None:
        return {}
    with duckdb.connect() as sql:
        events = text(str(require_file(root / paths.EVENTS)))
        sql.execute(f"CREATE VIEW events AS FROM read_parquet({events})")
        facts: Facts = OWN_FIGURES[3](sql, settings)
        return facts


def _examination(root: Path) -> Facts:
    """How likely each place of a list is looked at, as `label` told it; nothing where that does not matter."""
    report = read_json(require_file(root / paths.LABEL_REPORT))
    curve = report.get("examination", [])
    return {"examination": curve, "examined_rows": report.get("random_rows", 0)}


def _watched_parts(
    parts: dict[str, Part], columns: dict[str, str]
) -> tuple[list[Part], dict[str, Learnt]]:
    """The parts with what is watched of texts and images, the test rows first, and what training says of it."""
    raw = {part: rows for part, (rows, _) in parts.items()}
    values, learnt = watched_values(raw, columns)
    return [(values[part], parts[part][1]) for part in ("test", "train", "valid")], learnt


def pair_counts(a: Column, b: Column, codes_a: Array, codes_b: Array) -> Array:
    """Rows by coarse level of two columns, from each row's codes; shape (levels of a, levels of b)."""
    sizes = max(a.coarse) + 1, max(b.coarse) + 1
    cell = np.asarray(a.coarse)[codes_a] * sizes[1] + np.asarray(b.coarse)[codes_b]
    return np.bincount(cell, minlength=sizes[0] * sizes[1]).reshape(sizes)


def answering_model(root: Path) -> str | None:
    """The checksum of the model that answers now: in production, or else the one just trained.

    Raises:
        UserError: when the model in production is not the one that git names.
    """
    for folder in (verified(root, paths.PRODUCTION), root / paths.TRAINED):
        if folder.is_dir() and (folder / paths.MANIFEST_FILE).is_file():
            return str(read_json(folder / paths.MANIFEST_FILE)["sha256"])
    return None


def reference_files(root: Path) -> dict[str, Path]:
    """The reference file of each model that has one here, by the model's checksum.

    Raises:
        UserError: when a file is not one that this version wrote.
    """
    beside = [root / name / paths.REFERENCE_FILE for name in (*MODELS, paths.MONITORING)]
    files: dict[str, Path] = {}
    for path in (*beside, *sorted((root / paths.REFERENCES).glob("*.parquet"))):
        if path.is_file():
            files.setdefault(_read_head(path)["facts"]["model"], path)
    return files


def keep_references(root: Path) -> None:
    """Keep the references of all models that are here: answers outlive the model that gave them.

    Raises:
        UserError: when the model in production is not the one that git names, or a file is not one
            that this version wrote; nothing is kept then.
    """
    verified(root, paths.PRODUCTION)
    folder = root / paths.REFERENCES
    for model, path in reference_files(root).items():
        target = folder / f"{model[:12]}.parquet"
        if not target.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)
    oldest_first = sorted(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime)
    for path in oldest_first[:-MAX_REFERENCES]:
        path.unlink(missing_ok=True)


def read(root: Path, model: str | None = None) -> Profile | None:
    """The reference of a model, by the beginning of its checksum; None without one.

    Args:
        model: None: the one that answers now. Where no model is here, any reference will do.

    Raises:
        UserError: when the file is not one that this version wrote, or the model in production is
            not the one that git names.
    """
    model, files = model or answering_model(root), reference_files(root)
    matching = [files[key] for key in files if model is None or key.startswith(model)]
    return _read_profile(matching[0]) if matching else None


def _read_head(path: Path) -> dict[str, Any]:
    """What a reference says of itself.

    Raises:
        UserError: when the file is not one that this version wrote.
    """
    try:
        with duckdb.connect() as sql:
            query = "SELECT value FROM parquet_kv_metadata(?) WHERE key = 'profile'"
            (row,) = sql.execute(query, [str(path)]).fetchall()
        head = dict(json.loads(row[0]))
        head["facts"]["model"]
    except (duckdb.Error, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not a reference that can be read; run `reference`") from None
    return head


def _read_profile(path: Path) -> Profile:
    head = _read_head(path)
    try:
        with duckdb.connect() as sql:
            rows = sql.execute("FROM read_parquet(?)", [str(path)]).df()
    except duckdb.Error:
        raise UserError(f"{path}: not a reference that can be read; run `reference`") from None
    columns = {fields["name"]: Column(**fields) for fields in head["columns"]}
    profile = Profile(columns, head["labels"], {}, {}, {}, {}, head["facts"])
    profile.course = Course(**head.get("course", {}))
    kind = rows["kind"]
    for name, part in rows[kind == "moment"].groupby("column", sort=False):
        fields: dict[str, Any] = head["moments"][name]
        cells = part["y"].to_numpy().reshape(2 * [len(fields["axes"])])
        fields |= {"axes": [(column, level) for column, level in fields["axes"]]}
        arrays: dict[str, Any] = {
            key: np.array(fields.pop(key)) for key in ("mean", "means", "counts") if fields.get(key)
        }
        profile.moments[name] = Moments(**fields, **arrays, covariance=cells)
    rows = rows[kind != "moment"]
    phase = rows.get("phase", pd.Series(-1, rows.index)).fillna(-1).to_numpy(np.int64)
    if profile.course.phases > 1:
        phased = rows[phase >= 0]
        profile.phased = _read_cells(phased, profile, phase[phase >= 0], profile.course.phases)
    rows = rows[phase < 0]
    whole = _read_cells(rows, profile, np.zeros(len(rows), np.int64), 1)
    for attribute, by_name in whole.items():
        setattr(profile, attribute, {name: cells[0] for name, cells in by_name.items()})
    return profile


def _read_cells(rows: pd.DataFrame, profile: Profile, phase: Array, phases: int) -> Layers:
    """Tables, counts and pairs by phase, from the rows that have them."""
    layers: Layers = {"tables": {}, "counts": {}, "pairs": {}}
    columns, size = profile.columns, len(profile.labels)
    kind = np.where(rows["kind"].isin(["seen", "pair"]), rows["kind"], "table")
    bins, other_bins, label, count = (
        rows[key].fillna(0).to_numpy(np.int64) for key in ("bin", "other_bin", "label", "count")
    )
    sums = rows[["count", "score", "y", "squares", "loss"]].to_numpy(np.float64)
    groups = rows.groupby(["column", rows["other"].fillna(""), kind], sort=False).indices
    for (name, second, row_kind), at in groups.items():
        if row_kind == "pair":
            shape = max(columns[name].coarse) + 1, max(columns[second].coarse) + 1
            cells = layers["pairs"][name, second] = np.zeros((phases, *shape), dtype=np.int64)
            cells[phase[at], bins[at], other_bins[at]] = count[at]
        elif row_kind == "seen":
            width = size if name == LABEL else len(columns[name].names)
            cells = layers["counts"][name] = np.zeros((phases, width), dtype=np.int64)
            cells[phase[at], bins[at]] = count[at]
        else:
            cells = layers["tables"][name] = np.zeros((phases, len(columns[name].names), size, 5))
            cells[phase[at], bins[at], label[at]] = sums[at]
    return layers


def _write_profile(profile: Profile, path: Path) -> None:
    frames = _frames(profile, vars(profile))
    for phase in range(profile.course.phases if profile.phased else 0):
        layers = {
            attribute: {name: cells[phase] for name, cells in by_phase.items()}
            for attribute, by_phase in profile.phased.items()
        }
        # Without the zeros, of which there are many
        phased = _frames(profile, layers)
        frames += [frame[frame["count"] > 0].assign(phase=phase) for frame in phased]
    moments = {}
    for name, moment in profile.moments.items():
        bins, other_bins = (grid.ravel() for grid in np.indices(moment.covariance.shape))
        rows = {"column": name, "kind": "moment", "bin": bins, "other_bin": other_bins}
        frames.append(pd.DataFrame({"y": moment.covariance.ravel(), "count": moment.rows, **rows}))
        fields = {key: value for key, value in vars(moment).items() if key != "covariance"}
        arrays = {key: value.tolist() for key, value in fields.items() if hasattr(value, "tolist")}
        moments[name] = fields | arrays
    rows = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    rows = rows.reindex(columns=[*rows.columns, *({"phase"} - {*rows.columns})])
    rows = rows[(rows["count"] > 0) | rows["other"].isna()]
    head = {
        "moments": moments,
        "columns": [asdict(column) for column in profile.columns.values()],
        "labels": profile.labels,
        "facts": profile.facts,
        "course": asdict(profile.course),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    duckdb.execute(
        'COPY (SELECT "column", other, kind, bin, other_bin::INT AS other_bin, label::INT AS label, '
        "phase::INT AS phase, words, count::BIGINT AS count, score, y, squares, loss FROM rows) "
        f"TO {text(str(path))} (FORMAT parquet, COMPRESSION zstd, "
        "KV_METADATA {profile: " + text(json.dumps(head)) + "})"
    )


def _frames(profile: Profile, counted: Mapping[str, Any]) -> list[pd.DataFrame]:
    """Tables, pairs and counts as rows of the file."""
    frames = []
    for name, cells in counted["tables"].items():
        column = profile.columns[name]
        bins, labels = (grid.ravel() for grid in np.indices(cells.shape[:2]))
        flat = cells.reshape(-1, 5)
        part = pd.DataFrame(flat, columns=["count", "score", "y", "squares", "loss"])
        code_names = np.array(column.names, dtype=object)[bins]
        columns = {"column": name, "kind": column.kind, "bin": bins, "label": labels}
        frames.append(part.assign(**columns, words=code_names))
    for (a, b), counts in counted["pairs"].items():
        bins, other_bins = (grid.ravel() for grid in np.indices(counts.shape))
        rows = {"column": a, "other": b, "kind": "pair", "bin": bins, "other_bin": other_bins}
        frames.append(pd.DataFrame({"count": counts.ravel().astype(float), **rows}))
    for name, counts in counted["counts"].items():
        rows = {"column": name, "kind": "seen", "bin": np.arange(len(counts))}
        frames.append(pd.DataFrame({"count": counts.astype(float), **rows}))
    return frames


def _label_values(settings: Settings, root: Path) -> list[str]:
    """The label's values as they came in; none when there are too many to be classes."""
    label = settings.data.label.column
    rows = duckdb.execute(
        f"SELECT DISTINCT CAST({quoted(label)} AS VARCHAR) FROM read_parquet(?) "
        f"WHERE {quoted(label)} IS NOT NULL ORDER BY 1 LIMIT 101",
        [str(root / paths.EVENTS)],
    ).fetchall()
    values = [value for (value,) in rows if not re.fullmatch(no_label(settings), value)]
    if settings.data.schema_.columns[label].type == "bool":
        values += ["0", "1"]
    return values if len(values) <= MAX_CATEGORIES else []


def _cut_column(name: str, kind: str, values: pd.Series, bins: int, cuts: list[float]) -> Column:
    """A column in bins of about as many rows each, and at these cuts, or by its commonest categories."""
    if kind == "category":
        counts = values[values != ""].value_counts()
        counts = counts.sort_index().sort_values(ascending=False, kind="stable")
        names = [*map(str, counts.index)]
        rarer = names[MAX_CATEGORIES:] if len(names) <= MAX_KNOWN_CATEGORIES else None
        singletons = int((counts == 1).sum())
        return Column(name, kind, [], names[:MAX_CATEGORIES], rarer, singletons)  # type: ignore[arg-type]
    numbers = values.to_numpy(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return Column(name, kind, [0.0, 1.0])
    inner = np.quantile(numbers, np.linspace(0, 1, bins + 1)[1:-1], method="lower")
    low, high = numbers.min(), numbers.max()
    inner = [cut for cut in {*inner.tolist(), *cuts} if low < cut < high]
    if len(np.unique(numbers)) <= bins:  # a bin for each value
        inner = [value for value in np.unique(numbers).tolist() if value < high]
    if kind == "score":  # no range of its own: a score beyond what was seen is no fault
        return Column(name, kind, [-1e30, *sorted(inner), 1e30])
    if kind in SECONDARY:
        lower, upper = (0.0, 1.0) if kind in SHARES else (-1e30, 1e30)
        if len(inner) < bins - 1:  # few values: what lies beyond all of them has bins of its own
            ends = {float(np.nextafter(low, -np.inf)), float(high)}
            inner += [end for end in ends - {*inner} if lower <= end < upper]
        low, high = lower, upper
    return Column(name, kind, [float(np.nextafter(low, -np.inf)), *sorted(inner), float(high)])


def _normal_scores(column: Column, counts: Array) -> list[float]:
    """Where each code of a number lies: its normal score, a missing one in the middle."""
    if column.kind in ("category", "time"):
        return []
    ranks = np.cumsum(counts[:-1]) - counts[:-1] / 2
    share = np.clip(ranks / max(1, counts[:-1].sum()), RARE_SHARE / 2, 1 - RARE_SHARE / 2)
    return [*ndtri(share).tolist(), 0.0]


def _add_moments(
    profile: Profile, codes: Codes, ref_codes: Codes, residual: Array, phase: Array
) -> None:
    """What is looked at together: numbers, categories, and what outcomes leave along the numbers."""
    axes: dict[str, Axes] = {"numbers": [], "categories": []}
    for name, column in profile.columns.items():
        if column.kind in ("time", "score"):
            continue
        rows = np.bincount(column.coarse, weights=profile.counts[name])
        shares, top = rows / rows.sum(), int(rows.argmax())
        common = [i for i, share in enumerate(shares) if share >= RARE_SHARE and i != top]
        if column.kind == "category":
            axes["categories"] += [(name, level) for level in common]
            continue
        if shares[:-1].max() < 1 - RARE_SHARE:
            axes["numbers"].append((name, None))
        if column.kind not in SECONDARY:  # missing where the text is: the same axis once more
            axes["numbers"] += [(name, level) for level in common if level == len(shares) - 1]
    of_classes = [n for n, c in profile.columns.items() if c.kind == "score" and n != SCORE]
    axes["scores"] = []
    axes["scores"] += [(name, None) for name in of_classes[:-1]]  # they add up to 1
    test_only = profile.counts[LABEL].sum() == len(residual)
    step = 1 + int(profile.counts[LABEL].sum()) // MAX_ROWS
    ref_codes = {name: column_codes[::step] for name, column_codes in ref_codes.items()}
    ref_phase, phase, phases = phase[::step], phase[: len(residual)], profile.course.phases
    step = 1 + len(residual) // MAX_ROWS
    codes = {name: column_codes[::step] for name, column_codes in codes.items()}
    residual, phase = residual[::step], phase[::step]
    for group, group_axes in axes.items():
        if not group_axes:
            continue
        row_codes, row_phase = (codes, phase) if group == "scores" else (ref_codes, ref_phase)
        values = profile.axis_values(group_axes, row_codes)
        profile.moments[group] = _moments_of(group_axes, values, row_phase, phases)
        if not test_only and group != "scores":
            values = profile.axis_values(group_axes, codes)
            profile.moments[group + OF_TEST_ROWS] = _moments_of(group_axes, values, phase, phases)
    outcome_axes: Axes = [("", None), (SCORE, None), *axes["numbers"]]
    values = profile.axis_values(outcome_axes, codes) * residual[:, None]
    profile.moments["outcomes"] = _moments_of(outcome_axes, values, phase, phases)


def _moments_of(axes: Axes, values: Array, phase: Array, phases: int) -> Moments:
    """Moments of rows; how much blocks of them differ is told by T squared, as `hotelling` has it."""
    mean, covariance = values.mean(axis=0), np.atleast_2d(np.cov(values.T))
    residuals, means = values - mean, None
    counts = np.bincount(phase, minlength=phases + 1).astype(np.float64)
    if phases > 1:  # a block is as its phases let expect
        sums = [np.bincount(phase, column, phases + 1) for column in values.T]
        means = np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]
        residuals = values - means[phase]
        means, counts = means[:phases], counts[:phases]
    parts = np.array_split(residuals, BLOCKS)
    gap = np.stack([part.mean(axis=0) for part in parts])
    within = np.atleast_2d(np.cov(residuals.T))
    statistic = len(parts[0]) * np.einsum("bi,ij,bj->", gap, np.linalg.pinv(within), gap)
    limit = 2 * gammaincinv((BLOCKS - 1) * len(axes) / 2, 0.95)  # chi-squared's
    dispersion = float(max(1.0, statistic / limit))
    moments = Moments(axes, mean, covariance, len(values), dispersion, len(parts[0]))
    return replace(moments, means=means, counts=None if means is None else counts)


def _coarse_levels(column: Column, counts: Array) -> list[int]:
    """The coarse level of each code, from the rows of each."""
    last = len(counts) - 1
    if column.kind == "category":
        top = min(len(column.categories), PAIR_CATEGORIES)
        level = np.minimum(np.arange(last + 1), top)
        return [*level[:-1].tolist(), top + 1]
    share = (np.cumsum(counts[:-1]) - counts[:-1] / 2) / max(1, counts[:-1].sum())
    levels = SCORE_BINS // 5 if column.kind == "score" else PAIR_LEVELS
    level = np.minimum((share * levels).astype(int), levels - 1)
    _, level = np.unique(level, return_inverse=True)
    return [*level.tolist(), int(level.max()) + 1]


def _dispersion(codes: Array, size: int, phase: Array) -> tuple[float, float]:
    """By which factor consecutive blocks of rows surely differ more than by chance, and their rows.

    Days differ beyond their course, entities come again: a test that takes rows as independent would
    cry wolf.
    """
    blocks = np.array_split(codes, BLOCKS)
    counts = np.stack([np.bincount(block, minlength=size) for block in blocks]).astype(float)
    common = counts.sum(axis=0) >= 5 * BLOCKS
    counts = counts[:, common]
    if counts.shape[1] < 2:
        return 1.0, len(blocks[0])
    used = common[codes]
    phase, phases = phase[: len(codes)], int(phase.max()) + 1
    phase_counts = np.bincount(phase[used] * size + codes[used], minlength=phases * size)
    phase_counts = phase_counts.reshape(phases, size)[:, common]
    parts = zip(np.array_split(phase, BLOCKS), np.array_split(used, BLOCKS), strict=True)
    mix = [np.bincount(in_block[mask], minlength=phases) for in_block, mask in parts]
    shares = phase_counts / np.maximum(phase_counts.sum(axis=1, keepdims=True), 1)
    likely = np.stack(mix) @ shares
    statistic = ((counts - likely) ** 2 / np.maximum(likely, 1e-9)).sum()
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    limit = 2 * gammaincinv(freedom / 2, 0.95)  # chi-squared's
    return float(max(1.0, statistic / limit)), len(blocks[0])


def _add_popularity(profile: Profile, settings: Settings, root: Path) -> None:
    """Fifths of the training rows by how common their object is: 0 the commonest, 4 the rarest."""
    name = settings.monitoring.popularity
    column = profile.columns.get(name or "")
    if column is None or column.kind != "category":
        return
    query = f"SELECT {quoted(column.name)}, count(*) FROM read_parquet(?) GROUP BY ALL"
    counts = dict(duckdb.execute(query, [str(root / paths.SPLITS["train"])]).fetchall())
    ranked = sorted(column.categories, key=lambda value: (-counts.get(value, 0), value))
    total, before, fifth = sum(counts.values()) or 1, 0, {}
    for value in ranked:
        fifth[value] = min(4, int(5 * (before + counts.get(value, 0) / 2) / total))
        before += counts.get(value, 0)
    column.popularity = [*(fifth[value] for value in column.categories), 4, 4, 4]
