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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd
from scipy.special import gammaincinv, ndtri  # scipy.stats takes half a second to import

from .. import paths, problem
from ..data.schema import name as quoted
from ..data.schema import no_label, text
from ..features.catalogue import inputs, load
from ..goals.gate import calibration, measure, resample, sample_rows
from ..modelling.scorer import load_scorer
from ..problem import data as problem_data
from ..problem import monitoring as problem_monitoring
from ..problem.goals import aimed_quantile, came, claim, decide, spread
from ..repository import verified
from ..settings import Settings, UserError, read_json
from .course import FEW, Course, fit

MODELS = (paths.PRODUCTION, paths.CHALLENGER, paths.PREVIOUS)
MOST_REFERENCES = 50
SCORE, LABEL, CHANCE = "(score)", "(label)", "(score of {})"
ALONE = " of the test rows"
MOST_CATEGORIES = 100
MOST_KNOWN = 10_000  # rarer categories than the hundred that can still be told from new ones
SCORE_BINS = 50
RARE = 0.01  # share of a category or of missing values, from which it is an axis of its own
PAIR_LEVELS = 4  # into which a number is cut where two columns are looked at together
PAIR_CATEGORIES = 7
MOST_ROWS = 200_000  # of which covariances are taken
NUMBER = r"-?\d+\.?\d*(e[-+]?\d+)?"
FOLDS = 3  # of the test rows, by which it is told what the model of errors leaves
LEVELS, SHRUNK = 10, 5  # of each class's scores; rows by which a level is drawn to what scores say
CLAIM_ROWS = 20_000  # of the test rows, by which it is told what scores let expect
CLAIM_DRAWS = 100  # of the test rows, by which it is told how far a claim strays by chance
BLOCKS = 8  # of consecutive test rows, which differ as windows do when nothing is wrong

Array = np.ndarray


@dataclass
class Column:
    """How the values of a column become codes: small whole numbers, in `names`' order.

    number: one below the range, the bins, one above the range, missing · category: the commonest,
    other, new, missing. `coarse` maps a code to one of few levels.
    """

    name: str
    kind: str  # number, bool, category, time or score
    edges: list[float] = field(default_factory=list)  # upper ends: a bin holds low < value <= high
    categories: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # known, but beyond the commonest
    singletons: int = 0  # categories met once: how likely a new one is (Good, 1953)
    coarse: list[int] = field(default_factory=list)
    dispersion: float = 1.0  # how much more consecutive rows differ than chance would have them
    block: float = 1.0  # rows, of which that holds
    place: list[float] = field(
        default_factory=list
    )  # of a number's codes: normal scores, missing 0
    popularity: list[int] = field(default_factory=list)  # fifth of each code: 0 the commonest

    @cached_property
    def names(self) -> list[str]:
        if self.kind == "category":
            return [*self.categories, "(other)", "(new)", "(missing)"]
        # The lower end lies a hair below the smallest value
        ends = [f"{0.0 if abs(one) < 1e-30 else one:.4g}" for one in self.edges]
        ends = [one.replace("1e+30", "∞") for one in ends]
        inner = [b if a == b else f"{a} to {b}" for a, b in pairwise(ends)]
        return [f"below {ends[0]}", *inner, f"above {ends[-1]}", "(missing)"]

    @property
    def odd(self) -> dict[str, list[int]]:
        """The codes that speak of a fault, by what is wrong."""
        last = len(self.names) - 1
        if self.kind == "category":
            return {"new": [last - 1] if self.others is not None else [], "missing": [last]}
        return {"range": [0, last - 1], "missing": [last]}

    @cached_property
    def levels(self) -> list[str]:
        """The coarse levels in words."""
        found: dict[int, list[str]] = {}
        for code, level in enumerate(self.coarse):
            found.setdefault(level, []).append(self.names[code])
        words = []
        for level in sorted(found):
            some = found[level]
            if self.kind != "category" and len(some) > 1:
                low, high = some[0].split(" to ")[0], some[-1].split(" to ")[-1]
                low, high = low.removeprefix("below "), high.removeprefix("above ")
                words.append(f"{low} to {high}")
            else:
                words.append(some[0] if len(some) == 1 else "(any other)")
        return words

    def codes(self, values: pd.Series | Array) -> Array:
        """The code of each value, as `features.catalogue.load` gives them, shape (n,), uint8."""
        if self.kind == "category":
            place = {value: code for code, value in enumerate(self.categories)}
            other, new = len(self.categories), len(self.categories) + 1
            place |= dict.fromkeys(self.others, other) | {"": new + 1}
            return pd.Series(values).map(place).fillna(new).to_numpy(np.uint8)
        known = np.asarray(values, dtype=np.float64)
        codes = np.searchsorted(self.edges, known, side="left")
        return np.where(np.isnan(known), len(self.edges) + 1, codes).astype(np.uint8)


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

    axes: list[tuple[str, int | None]]
    mean: Array
    covariance: Array
    rows: int
    dispersion: float = 1.0
    block: float = 1.0
    means: Array | None = None
    counts: Array | None = None

    def like(self, mix: Array) -> Moments:
        """The same of rows that are mixed otherwise: what differs between phases is weighted anew."""
        if self.means is None or self.counts is None:
            return self
        share, rows = mixed(mix, self.counts)
        usual, mean = self.counts / self.counts.sum(), share @ self.means
        now, then = (
            (self.means - weight @ self.means).T * weight @ (self.means - weight @ self.means)
            for weight in (share, usual)
        )
        covariance = self.covariance + now - then
        return replace(self, mean=mean, covariance=covariance, rows=int(rows))


@dataclass
class Profile:
    """The reference: columns, and tables of what fell into each of their codes.

    Attributes:
        labels: for a yes or no [0, 1], else upper ends of the label's bins, the last one infinite.
        tables: column -> by code and label bin, shape (codes, labels, 5): rows, sum of score, of
            outcome, of (outcome - score) squared, of loss; the score stands among the columns. Where each
            class has a score, score is that of the class decided on, and outcome 1 where it was right.
        seen: column -> rows by code, shape (codes,): of all rows that later ones should look like.
        pairs: (column, other) -> the same by coarse level of both.
        moments: what is looked at together -> means and covariances of its `axes`.
        facts: model, decision, figures, times.
        course: which phase an hour is in; phased: tables, seen and pairs by phase, one axis more.
    """

    columns: dict[str, Column]
    labels: list[float]
    tables: dict[str, Array]
    seen: dict[str, Array]
    pairs: dict[tuple[str, str], Array]
    moments: dict[str, Moments]
    facts: dict[str, Any]
    course: Course = field(default_factory=Course)
    phased: dict[str, dict[Any, Array]] = field(default_factory=dict)

    def like(self, mix: Array) -> Profile:
        """The reference of rows that come in the phases in which a window's came.

        Args:
            mix: the window's rows by phase, those of no known phase last, shape (phases + 1,).

        Returns:
            the same where it knows one phase only. Counts are those of as many rows as tell as much as
            the reference's rows do in this mix (Kish, 1965).
        """
        if self.course.phases < 2 or not mix.sum():
            return self
        parts: dict[str, Any] = {}
        for what, layers in self.phased.items():
            parts[what] = {}
            for name, layer in layers.items():
                rows = _rows(layer, what)
                share, whole = mixed(mix, rows)
                each = whole * share / np.maximum(rows, 1)
                parts[what][name] = np.tensordot(each, layer, axes=1)
        moments = {what: one.like(mix) for what, one in self.moments.items()}
        share, _ = mixed(mix, _rows(self.phased["seen"][LABEL], "seen"))
        mean = float(share @ np.asarray(self.facts["label_means"]))
        facts = self.facts | {"label_mean": mean}
        tables, seen, pairs = (parts[what] for what in ("tables", "seen", "pairs"))
        return replace(self, tables=tables, seen=seen, pairs=pairs, moments=moments, facts=facts)

    @property
    def quantile(self) -> float | None:
        """The share of outcomes that should lie at a score or below; None: the score is a mean."""
        return self.facts.get("quantile")

    @cached_property
    def errors(self) -> dict[str, Any]:
        """What tells the size of a number's error from the codes of rows: trees, by what is averaged."""
        from lightgbm import Booster

        trees = {what: one["trees"] for what, one in self.facts.get("errors", {}).items()}
        return {
            what: Booster(model_str=zlib.decompress(b64decode(text)).decode())
            for what, text in trees.items()
        }

    def alone(self) -> Profile:
        """The test rows by themselves: for logs in which these come again, as a drill's do."""
        seen = {name: cells[..., 0].sum(axis=1) for name, cells in self.tables.items()}
        seen[LABEL] = self.tables[SCORE][..., 0].sum(axis=0)
        moments = {what: self.moments.get(what + ALONE, one) for what, one in self.moments.items()}
        # A drill draws them at random, so that all its windows are alike
        return replace(self, seen=seen, moments=moments, course=Course(), phased={})

    @property
    def rows(self) -> int:
        return int(self.tables[SCORE][..., 0].sum())

    def label_bins(self, y: Array) -> Array:
        """The bin of each label, shape (n,)."""
        return np.searchsorted(self.labels[:-1], y)


def mixed(mix: Array, rows: Array) -> tuple[Array, float]:
    """The share of each phase in a mix, shape (phases,), and how many rows the reference has of it.

    Args:
        mix: shape (phases + 1,): rows of the last have no like and are taken to come as the
            reference's do, as are those of a phase that the reference has not.
        rows: of the reference by phase, shape (phases,).
    """
    known = np.where(rows > 0, mix[:-1], 0.0)
    share = (known + (mix.sum() - known.sum()) * rows / rows.sum()) / mix.sum()
    return share, float(1 / (share**2 / np.maximum(rows, 1)).sum())


def _rows(layer: Array, what: str) -> Array:
    """Rows of the reference by phase."""
    counts = layer[..., 0] if what == "tables" else layer
    return np.asarray(counts.reshape(len(layer), -1).sum(axis=1), np.float64)


class Outcomes(NamedTuple):
    """What answers claimed and what came of them, each of shape (n,), and what a row adds to the loss."""

    claimed: Array
    came: Array
    loss: Array

    @classmethod
    def of(cls, y: Array, score: Array, decision: Any) -> Outcomes:
        """From labels of shape (n,) and scores of shape (n,) or (n, classes)."""
        decided = decide(score, decision)
        return cls(claim(score, decided), came(y, decided), problem_monitoring.row_loss(y, score))

    def take(self, rows: Array) -> Outcomes:
        """Those of some of the rows."""
        return Outcomes(*(values[rows] for values in self))

    @property
    def rest(self) -> Array:
        """What outcomes lie above the claims, shape (n,)."""
        return self.came - self.claimed


def table(codes: Array, labels: Array, outcomes: Outcomes, sizes: tuple[int, int]) -> Array:
    """Rows and sums by code and label bin, shape (codes, labels, 5), as `Profile.tables` has them."""
    place = codes.astype(np.int64) * sizes[1] + labels
    sums = (None, outcomes.claimed, outcomes.came, outcomes.rest**2, outcomes.loss)
    flat = [np.bincount(place, weights=one, minlength=sizes[0] * sizes[1]) for one in sums]
    return np.stack(flat, axis=1).reshape(*sizes, len(sums))


def reference(settings: Settings, root: Path, folder: str = paths.TRAINED) -> dict[str, Any]:
    """Write monitoring/reference.parquet from the split rows and the exported model.

    Of a model elsewhere (`folder`) it is written beside that model, and goes where the folder goes.

    A row of it is a bin or category of a column within a bin of the label, with its rows and sums;
    or two coarse levels of two columns. How columns are cut stands in the file's metadata.

    Raises:
        UserError: when train has not run.
    """
    columns, test = inputs(settings), root / paths.SPLITS["test"]
    rows, y = _part(test, columns)
    scorer = load_scorer(root / folder / paths.MODEL_FILE)
    manifest = read_json(root / folder / paths.MANIFEST_FILE)
    score = scorer.score(rows)
    earlier = [_part(root / paths.SPLITS[part], columns) for part in ("train", "valid")]
    alike = [(rows, y), *(earlier if settings.data.split.by != "time" else [])]
    inputs_seen = pd.concat([one for one, _ in alike], ignore_index=True)
    y_seen = np.concatenate([one for _, one in alike])
    labels = problem_monitoring.label_edges(y_seen, settings.data.label)
    profile = Profile({}, labels, {}, {}, {}, {}, {})
    outcomes = Outcomes.of(y, score, manifest["decision"])
    codes_seen = _columns(
        profile, settings, inputs_seen, (score, outcomes.claimed), manifest["decision"]
    )
    codes = {
        name: some[: len(y)] for name, some in codes_seen.items()
    }  # the test rows are the first
    _popularity(profile, settings, root)
    phase = _course(profile, settings, root, (rows, y), earlier)[: len(y_seen)]
    _count(profile, codes, codes_seen, (outcomes, y), y_seen, phase)
    _moments(profile, codes, codes_seen, outcomes.rest, phase)
    decided = decide(score, manifest["decision"])
    metrics = dict.fromkeys([settings.goals.metric, *settings.goals.also])
    profile.facts["decision"] = manifest["decision"]
    profile.facts |= {
        "model": scorer.sha256,
        "metrics": {one: measure(one, y, score, decided) for one in metrics},
        "errors": _errors(profile, rows, codes, y, score) if problem_monitoring.ERRORS else {},
        "calibration_low": _calibration(profile, settings, y, score, phase[: len(y)]),
        "label_values": _label_values(settings, root) if problem.CLASSES else [],
        "label_low": float(y_seen.min()),
        "label_high": float(y_seen.max()),
        "label_mean": float(y_seen.mean()),
        "classes": problem_data.named(settings.data.label) if problem.WIDE else [],
        **(_by_class(settings, (y, score, decided), phase[: len(y)]) if problem.WIDE else {}),
        "spread": spread(y),
        "quantile": aimed_quantile(settings.goals),
        "rows_seen": len(y_seen),
        "trained_until": manifest.get("trained_until"),
    }
    place = paths.REFERENCE if folder == paths.TRAINED else f"{folder}/{paths.REFERENCE_FILE}"
    _write_profile(profile, root / place)
    return {"rows": len(y_seen), "columns": len(profile.columns), "course": profile.course.words()}


def _columns(
    profile: Profile,
    settings: Settings,
    seen: pd.DataFrame,
    scores: tuple[Array, Array],
    decision: Any,
) -> dict[str, Array]:
    """Cut the columns and the scores; returns the code of each row by column.

    Args:
        scores: of the test rows, and of these the one that decided.
    """
    codes, bins = {}, settings.monitoring.reference_bins
    watched = {SCORE: scores[1]}
    if problem.WIDE:
        names = problem_data.named(settings.data.label)
        watched = {
            CHANCE.format(name): scores[0][:, place] for place, name in enumerate(names)
        } | watched
    for name, type_ in [*inputs(settings).items(), *dict.fromkeys(watched, "score").items()]:
        values = pd.Series(watched[name]) if type_ == "score" else seen[name]
        edges = problem_monitoring.score_cuts(decision) if type_ == "score" else []
        column = _column(name, type_, values, SCORE_BINS if type_ == "score" else bins, edges)
        codes[name] = column.codes(values)
        counts = np.bincount(codes[name], minlength=len(column.names))
        column.coarse = _coarse(column, counts)
        column.place = _place(column, counts)
        profile.columns[name] = column
        profile.seen[name] = counts
    return codes


def _course(
    profile: Profile,
    settings: Settings,
    root: Path,
    test: tuple[pd.DataFrame, Array],
    earlier: list[tuple[pd.DataFrame, Array]],
) -> Array:
    """Keep the course that rows of all parts show; returns their phases, the test rows' first."""
    parts, time = [test, *earlier], settings.data.schema_.time
    y = np.concatenate([one for _, one in parts])
    if time is None:
        return np.zeros(len(y), dtype=np.int64)
    files = [str(root / paths.SPLITS[part]) for part in ("test", "train", "valid")]
    query = f"SELECT coalesce(floor(epoch({quoted(time)}) / 3600), -1)::BIGINT AS hour FROM read_parquet(?)"
    hours = np.concatenate([duckdb.execute(query, [one]).fetchnumpy()["hour"] for one in files])
    step, features = 1 + len(y) // MOST_ROWS, []
    few = np.flatnonzero(hours >= 0)[::step]
    if not len(few):
        return np.zeros(len(y), dtype=np.int64)
    for name, column in profile.columns.items():
        if column.kind in ("time", "score"):
            continue
        codes = column.codes(pd.concat([rows[name] for rows, _ in parts], ignore_index=True))[few]
        features += _levels(np.asarray(column.coarse)[codes])
        if column.kind == "number":
            features.append(np.asarray(column.place)[codes])
    features += _levels(profile.label_bins(y[few]))
    tested = hours[: profile.seen[SCORE].sum()]
    given = settings.monitoring.course
    profile.course = fit(hours[few], features, tested, given.time_zone, given.holidays)
    phase = profile.course.phase(hours)
    return np.where(hours < 0, profile.course.phases, phase) if phase.any() else phase


def _calibration(
    profile: Profile, settings: Settings, y: Array, score: Array, phase: Array
) -> dict[str, Any]:
    """How far scores and outcomes surely are apart, over all test rows and by phase."""
    level, share = settings.goals.interval.level, aimed_quantile(settings.goals)
    unit = spread(y) if share is None else None
    parts = [phase == one for one in range(profile.course.phases)]
    decided = decide(score, profile.facts["decision"])
    said, truth = claim(score, decided), came(y, decided)
    lows = [
        calibration(truth[one], said[one], level, share, unit).low for one in parts if one.any()
    ]
    return {"whole": calibration(truth, said, level, share, unit).low, "phases": lows}


def _by_class(
    settings: Settings, answers: tuple[Array, Array, Array], phase: Array
) -> dict[str, Any]:
    """What the scores of all classes say of the test rows.

    Returns:
        reliability: by class the upper ends of tenths of its scores, and how much more often rows there
        were of it than they said · implied: the mean score of each class, made right by that · claimed:
        metric -> the `value` that such scores let expect, the `noise` by which what came strays from
        it by chance, and what was measured in each phase (`phases`, the overall figure where few rows
        are).
    """
    y, score, _ = answers
    cuts, ratios = [], []
    for place, own in enumerate(score.T):
        ends = np.quantile(own, np.linspace(0, 1, LEVELS + 1)[1:-1])
        level = np.searchsorted(ends, own)
        rows, hits, said = (np.bincount(level, one, LEVELS) for one in (None, y == place, own))
        mean = np.maximum(said / np.maximum(rows, 1), 1e-9)
        cuts.append(ends.tolist())
        ratios.append(((hits + SHRUNK * mean) / (rows + SHRUNK) / mean).tolist())
    facts: dict[str, Any] = {"reliability": {"ends": cuts, "ratios": ratios}}
    chance = made_right(facts, score)
    return facts | {
        "implied": chance.mean(axis=0).tolist(),
        "claimed": _claimed(settings, answers, chance, phase),
    }


def made_right(facts: Mapping[str, Any], score: Array) -> Array:
    """Scores as the reference found them to come true, shape (n, classes): those of a model that is a
    little off for one class would mislead what is estimated from them."""
    told = facts["reliability"]
    factors = [
        np.asarray(ratios)[np.searchsorted(ends, own)]
        for ends, ratios, own in zip(told["ends"], told["ratios"], score.T, strict=True)
    ]
    right = score * np.stack(factors, axis=1)
    return np.asarray(right / np.maximum(right.sum(axis=1, keepdims=True), 1e-300))


def _claimed(
    settings: Settings, answers: tuple[Array, Array, Array], chance: Array, phase: Array
) -> dict[str, Any]:
    """Each metric that the chances of the classes let expect of the test rows, as `_by_class` has it."""
    rows = sample_rows(len(answers[0]), CLAIM_ROWS, 0)
    y, score, decided = (values[rows] for values in answers)
    chance, phase = chance[rows], phase[rows]
    weights = resample(len(y), CLAIM_DRAWS, 0)
    parts = [np.flatnonzero(phase == one) for one in range(int(phase.max()) + 1)]
    told: dict[str, Any] = {}
    for name in dict.fromkeys([settings.goals.metric, *settings.goals.also]):
        drawn = measure(name, y, score, decided, weights)
        drawn -= expected(name, score, decided, chance, weights)
        whole = measure(name, y, score, decided)
        told[name] = {
            "value": float(expected(name, score, decided, chance)[0]),
            "noise": float(np.std(drawn)),
            "phases": [
                measure(name, y[one], score[one], decided[one]) if len(one) >= FEW else whole
                for one in parts
            ],
        }
    return told


def expected(
    metric: str,
    score: Array,
    decided: Array,
    chance: Array,
    weights: Array | None = None,
    rng: np.random.Generator | None = None,
) -> Array:
    """A metric of rows whose labels are not known, shape (resamples,).

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
    each = weights[:, :, None] * chance
    each = each if rng is None else rng.poisson(each).astype(np.float64)
    y, rows = np.tile(np.arange(classes, dtype=np.float64), n), np.repeat(np.arange(n), classes)
    found = measure(metric, y, score[rows], decided[rows], each.reshape(len(weights), -1))
    return np.asarray(found, np.float64)


def _errors(
    profile: Profile, rows: pd.DataFrame, codes: Mapping[str, Array], y: Array, score: Array
) -> dict[str, dict[str, Any]]:
    """How large the error of a number is where columns have these values: trees on the test rows.

    Returns:
        for the absolute error (`loss`) and the squared one (`squares`): its mean, the spread of what
        the trees do not tell of rows that they were not fitted on (`noise`), and the trees as text.
    """
    from lightgbm import LGBMRegressor

    step, found = 1 + len(y) // MOST_ROWS, {}
    names = [name for name, column in profile.columns.items() if column.kind != "time"]
    values_of = {SCORE: score} | {
        name: codes[name] if profile.columns[name].kind == "category" else rows[name].to_numpy()
        for name in names
        if name != SCORE
    }
    matrix = np.stack([values_of[name][::step] for name in names], axis=1).astype(np.float64)
    gap, block = np.abs(y - score)[::step], np.arange(len(matrix)) % FOLDS

    def fitted(some: Array, values: Array) -> Any:
        model = LGBMRegressor(
            n_estimators=70, num_leaves=31, learning_rate=0.1, min_child_samples=20,
            n_jobs=1, deterministic=True, force_row_wise=True, random_state=0, verbose=-1,
        )  # fmt: skip
        return model.fit(matrix[some], values[some])

    for what, values in (("loss", gap), ("squares", gap**2)):
        rest = values - values.mean()
        for one in range(FOLDS if len(values) > 4 * FEW else 0):
            model = fitted(block != one, values)
            rest[block == one] = values[block == one] - model.predict(matrix[block == one])
        trees = fitted(block >= 0, values).booster_.model_to_string()
        found[what] = {
            "mean": float(values.mean()),
            "noise": float(rest.std()),
            "columns": names,
            "trees": b64encode(zlib.compress(_short(trees).encode(), 9)).decode(),
        }
    return found


def _short(trees: str) -> str:
    """Trees as LightGBM writes them, with five digits where a prediction needs them and else with one."""

    def rounded(line: str) -> str:
        digits = 5 if line.startswith(("threshold=", "leaf_value=")) else 1
        return re.sub(NUMBER, lambda one: f"{float(one[0]):.{digits}g}", line)

    long = ("threshold=", "leaf_value=", "split_gain=", "leaf_weight=", "internal_")
    lines = trees.partition("\nparameters:")[0].split("\n")
    # The sizes of the trees' texts, of which there are others now
    kept = [line for line in lines if not line.startswith("tree_sizes=")]
    return "\n".join(rounded(line) if line.startswith(long) else line for line in kept)


def _levels(levels: Array) -> list[Array]:
    """Whether a row has each level that is neither rare nor usual, each of shape (rows,)."""
    share = np.bincount(levels) / len(levels)
    return [levels == one for one in np.flatnonzero((share > RARE) & (share < 1 - RARE))]


def _count(
    profile: Profile,
    codes: Mapping[str, Array],
    codes_seen: Mapping[str, Array],
    answers: tuple[Outcomes, Array],
    y_seen: Array,
    phase: Array,
) -> None:
    """Fill tables, seen and pairs, by phase where there are several, and tell how blocks differ."""
    outcomes, y = answers
    phases = profile.course.phases
    labels, labels_seen = profile.label_bins(y), profile.label_bins(y_seen)
    parts = [np.flatnonzero(phase == one) for one in range(phases)] if phases > 1 else []
    tested = [part[part < len(y)] for part in parts]
    phased: dict[str, dict[Any, Array]] = {"tables": {}, "seen": {}, "pairs": {}}
    for name, column in profile.columns.items():
        sizes = len(column.names), len(profile.labels)
        column.dispersion, column.block = _dispersion(codes_seen[name], sizes[0], phase)
        profile.tables[name] = table(codes[name], labels, outcomes, sizes)
        if parts:
            few = [
                table(codes[name][one], labels[one], outcomes.take(one), sizes) for one in tested
            ]
            phased["tables"][name] = np.stack(few)
            own = tested if column.kind == "score" else parts
            phased["seen"][name] = _by_part(codes_seen[name], own, sizes[0])
    paired = [
        n for n, c in profile.columns.items() if c.kind not in ("time", "score") or n == SCORE
    ]
    for a, b in combinations(paired, 2):
        both = profile.columns[a], profile.columns[b]
        profile.pairs[a, b] = pair(*both, codes[a], codes[b])
        if parts:
            few = [pair(*both, codes[a][one], codes[b][one]) for one in tested]
            phased["pairs"][a, b] = np.stack(few)
    profile.seen[LABEL] = np.bincount(labels_seen, minlength=len(profile.labels))
    if parts:
        phased["seen"][LABEL] = _by_part(labels_seen, parts, len(profile.labels))
        profile.facts["label_means"] = [float(y_seen[one].mean()) for one in parts]
        profile.phased = phased


def _by_part(codes: Array, parts: list[Array], size: int) -> Array:
    return np.stack([np.bincount(codes[one], minlength=size) for one in parts])


def _part(path: Path, columns: dict[str, str]) -> tuple[pd.DataFrame, Array]:
    """Inputs and labels of a part of the split."""
    rows = load(path, columns)
    found = duckdb.execute("SELECT _y FROM read_parquet(?)", [str(path)])
    return rows, found.fetchnumpy()["_y"].astype(np.float64)


def pair(a: Column, b: Column, codes_a: Array, codes_b: Array) -> Array:
    """Rows by coarse level of two columns, shape (levels of a, levels of b)."""
    sizes = max(a.coarse) + 1, max(b.coarse) + 1
    place = np.asarray(a.coarse)[codes_a] * sizes[1] + np.asarray(b.coarse)[codes_b]
    return np.bincount(place, minlength=sizes[0] * sizes[1]).reshape(sizes)


def answering(root: Path) -> str | None:
    """The checksum of the model that answers now: in production, or else the one just trained."""
    for folder in (verified(root, paths.PRODUCTION), root / paths.TRAINED):
        if folder.is_dir() and (folder / paths.MANIFEST_FILE).is_file():
            return str(read_json(folder / paths.MANIFEST_FILE)["sha256"])
    return None


def known(root: Path) -> dict[str, Path]:
    """Where the reference of each model is that has one here, by the model's checksum.

    Raises:
        UserError: when a file is not one that this version wrote.
    """
    beside = [root / name / paths.REFERENCE_FILE for name in (*MODELS, paths.MONITORING)]
    found: dict[str, Path] = {}
    for path in (*beside, *sorted((root / paths.REFERENCES).glob("*.parquet"))):
        if path.is_file():
            found.setdefault(_head(path)["facts"]["model"], path)
    return found


def remember(root: Path) -> None:
    """Keep the references of all models that are here: answers outlive the model that gave them.

    Raises:
        UserError: when the model in production is not the one that git names; nothing is kept then.
    """
    verified(root, paths.PRODUCTION)
    kept = root / paths.REFERENCES
    for model, path in known(root).items():
        target = kept / f"{model[:12]}.parquet"
        if not target.is_file():
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)
    oldest_first = sorted(kept.glob("*.parquet"), key=lambda one: one.stat().st_mtime)
    for path in oldest_first[:-MOST_REFERENCES]:
        path.unlink(missing_ok=True)


def read(root: Path, model: str | None = None) -> Profile | None:
    """The reference of a model, by the beginning of its checksum; None without one.

    Args:
        model: None: the one that answers now. Where no model is here, any reference will do.

    Raises:
        UserError: when the file is not one that this version wrote.
    """
    model, files = model or answering(root), known(root)
    path = next((one for key, one in files.items() if model is None or key.startswith(model)), None)
    return None if path is None else _read(path)


def _head(path: Path) -> dict[str, Any]:
    """What a reference says of itself.

    Raises:
        UserError: when the file is not one that this version wrote.
    """
    try:
        with duckdb.connect() as sql:
            query = "SELECT value FROM parquet_kv_metadata(?) WHERE key = 'profile'"
            (found,) = sql.execute(query, [str(path)]).fetchall()
        head = dict(json.loads(found[0]))
        head["facts"]["model"]
    except (duckdb.Error, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not a reference that can be read; run `reference`") from None
    return head


def _read(path: Path) -> Profile:
    head = _head(path)
    try:
        with duckdb.connect() as sql:
            rows = sql.execute("FROM read_parquet(?)", [str(path)]).df()
    except duckdb.Error:
        raise UserError(f"{path}: not a reference that can be read; run `reference`") from None
    columns = {one["name"]: Column(**one) for one in head["columns"]}
    profile = Profile(columns, head["labels"], {}, {}, {}, {}, head["facts"])
    profile.course = Course(**head.get("course", {}))
    kind = rows["kind"]
    for name, part in rows[kind == "moment"].groupby("column", sort=False):
        one: dict[str, Any] = head["moments"][name]
        cells = part["y"].to_numpy().reshape(2 * [len(one["axes"])])
        one |= {"axes": [(a, b) for a, b in one["axes"]]}
        arrays: dict[str, Any] = {
            key: np.array(one.pop(key)) for key in ("mean", "means", "counts") if one.get(key)
        }
        profile.moments[name] = Moments(**one, **arrays, covariance=cells)
    rows = rows[kind != "moment"]
    phase = (
        rows["phase"].fillna(-1).to_numpy(np.int64) if "phase" in rows else np.full(len(rows), -1)
    )
    vars(profile).update(_cells(rows[phase < 0], profile, np.zeros((phase < 0).sum(), np.int64), 1))
    if profile.course.phases > 1:
        layers = _cells(rows[phase >= 0], profile, phase[phase >= 0], profile.course.phases)
        profile.phased = layers
    for what in ("tables", "seen", "pairs"):
        plain = {name: cells[0] for name, cells in vars(profile)[what].items()}
        vars(profile)[what] = plain
    return profile


def _cells(
    rows: pd.DataFrame, profile: Profile, phase: Array, phases: int
) -> dict[str, dict[Any, Array]]:
    """Tables, seen and pairs by phase, from the rows that have them."""
    found: dict[str, dict[Any, Array]] = {"tables": {}, "seen": {}, "pairs": {}}
    columns, size = profile.columns, len(profile.labels)
    kind = rows["kind"].to_numpy()
    bins, others, label, counts = (
        rows[one].fillna(0).to_numpy(np.int64) for one in ("bin", "other_bin", "label", "count")
    )
    sums = rows[["count", "score", "y", "squares", "loss"]].to_numpy(np.float64)
    for (name, other, what), at in rows.groupby(
        [
            "column",
            rows["other"].fillna(""),
            np.where(np.isin(kind, ["seen", "pair"]), kind, "table"),
        ],
        sort=False,
    ).indices.items():
        if what == "pair":
            shape = max(columns[name].coarse) + 1, max(columns[other].coarse) + 1
            cells = found["pairs"][name, other] = np.zeros((phases, *shape), dtype=np.int64)
            cells[phase[at], bins[at], others[at]] = counts[at]
        elif what == "seen":
            wide = size if name == LABEL else len(columns[name].names)
            cells = found["seen"][name] = np.zeros((phases, wide), dtype=np.int64)
            cells[phase[at], bins[at]] = counts[at]
        else:
            shape = len(columns[name].names), size
            found["tables"][name] = np.zeros((phases, *shape, 5))
            found["tables"][name][phase[at], bins[at], label[at]] = sums[at]
    return found


def _write_profile(profile: Profile, path: Path) -> None:
    parts = _written(profile, vars(profile))
    for phase in range(profile.course.phases if profile.phased else 0):
        layers = {
            what: {name: cells[phase] for name, cells in some.items()}
            for what, some in profile.phased.items()
        }
        # Without the zeros, of which there are many
        parts += [one[one["count"] > 0].assign(phase=phase) for one in _written(profile, layers)]
    moments = {}
    for name, one in profile.moments.items():
        bins, others = (grid.ravel() for grid in np.indices(one.covariance.shape))
        rows = {"column": name, "kind": "moment", "bin": bins, "other_bin": others}
        parts.append(pd.DataFrame({"y": one.covariance.ravel(), "count": one.rows, **rows}))
        kept = {key: value for key, value in vars(one).items() if key != "covariance"}
        arrays = {key: value.tolist() for key, value in kept.items() if hasattr(value, "tolist")}
        moments[name] = kept | arrays
    rows = pd.concat([one for one in parts if len(one)], ignore_index=True)
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


def _written(profile: Profile, counted: Mapping[str, Any]) -> list[pd.DataFrame]:
    """Tables, pairs and seen as rows of the file."""
    parts = []
    for name, cells in counted["tables"].items():
        column = profile.columns[name]
        bins, labels = (grid.ravel() for grid in np.indices(cells.shape[:2]))
        flat = cells.reshape(-1, 5)
        part = pd.DataFrame(flat, columns=["count", "score", "y", "squares", "loss"])
        words = np.array(column.names, dtype=object)[bins]
        parts.append(
            part.assign(column=name, kind=column.kind, bin=bins, label=labels, words=words)
        )
    for (a, b), counts in counted["pairs"].items():
        bins, others = (grid.ravel() for grid in np.indices(counts.shape))
        rows = {"column": a, "other": b, "kind": "pair", "bin": bins, "other_bin": others}
        parts.append(pd.DataFrame({"count": counts.ravel().astype(float), **rows}))
    for name, counts in counted["seen"].items():
        rows = {"column": name, "kind": "seen", "bin": np.arange(len(counts))}
        parts.append(pd.DataFrame({"count": counts.astype(float), **rows}))
    return parts


def _label_values(settings: Settings, root: Path) -> list[str]:
    """The label's values as they came in; none when there are too many to be classes."""
    label = settings.data.label.column
    found = duckdb.execute(
        f"SELECT DISTINCT CAST({quoted(label)} AS VARCHAR) FROM read_parquet(?) "
        f"WHERE {quoted(label)} IS NOT NULL ORDER BY 1 LIMIT 101",
        [str(root / paths.EVENTS)],
    ).fetchall()
    values = [one[0] for one in found if not re.fullmatch(no_label(settings), one[0])]
    if settings.data.schema_.columns[label].type == "bool":
        values += ["0", "1"]
    return values if len(values) <= MOST_CATEGORIES else []


def _column(name: str, kind: str, values: pd.Series, bins: int, extra: Sequence[float]) -> Column:
    if kind == "category":
        counts = values[values != ""].value_counts()
        counts = counts.sort_index().sort_values(ascending=False, kind="stable")
        known = [*map(str, counts.index)]
        others = known[MOST_CATEGORIES:] if len(known) <= MOST_KNOWN else None
        singletons = int((counts == 1).sum())
        return Column(name, kind, [], known[:MOST_CATEGORIES], others, singletons)  # type: ignore[arg-type]
    known = values.to_numpy(np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return Column(name, kind, [0.0, 1.0])
    inner = np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1], method="lower")
    low, high = known.min(), known.max()
    inner = [one for one in {*inner.tolist(), *extra} if low < one < high]
    if len(np.unique(known)) <= bins:  # a bin for each value
        inner = [one for one in np.unique(known).tolist() if one < high]
    if kind == "score":  # no range of its own: a score beyond what was seen is no fault
        return Column(name, kind, [-1e30, *sorted(inner), 1e30])
    return Column(name, kind, [float(np.nextafter(low, -np.inf)), *sorted(inner), float(high)])


def _place(column: Column, counts: Array) -> list[float]:
    """Where each code of a number lies: its normal score, a missing one in the middle."""
    if column.kind in ("category", "time"):
        return []
    before = np.cumsum(counts[:-1]) - counts[:-1] / 2
    share = np.clip(before / max(1, counts[:-1].sum()), RARE / 2, 1 - RARE / 2)
    return [*ndtri(share).tolist(), 0.0]


def along(
    profile: Profile, axes: Sequence[tuple[str, int | None]], codes: Mapping[str, Array]
) -> Array:
    """Rows along axes, as `Moments` has them, shape (rows, axes)."""
    found = []
    for name, level in axes:
        if not name:
            found.append(np.ones(len(codes[SCORE])))
            continue
        column = profile.columns[name]
        levels = np.asarray(column.coarse)
        value = np.asarray(column.place) if level is None else (levels == level).astype(float)
        found.append(value[codes[name]])
    return np.stack(found, axis=1)


def _moments(
    profile: Profile,
    codes: Mapping[str, Array],
    codes_seen: Mapping[str, Array],
    rest: Array,
    phase: Array,
) -> None:
    """What is looked at together: numbers, categories, and what outcomes leave along the numbers."""
    axes: dict[str, list[tuple[str, int | None]]] = {"numbers": [], "categories": []}
    for name, column in profile.columns.items():
        if column.kind in ("time", "score"):
            continue
        levels = np.bincount(column.coarse, weights=profile.seen[name]) / profile.seen[name].sum()
        usual = int(levels.argmax())
        seen = [code for code, share in enumerate(levels) if share >= RARE and code != usual]
        if column.kind == "category":
            axes["categories"] += [(name, code) for code in seen]
            continue
        if levels[:-1].max() < 1 - RARE:
            axes["numbers"].append((name, None))
        axes["numbers"] += [(name, code) for code in seen if code == len(levels) - 1]
    of_classes = [n for n, c in profile.columns.items() if c.kind == "score" and n != SCORE]
    axes["scores"] = []
    axes["scores"] += [(name, None) for name in of_classes[:-1]]  # they add up to 1
    alone = profile.seen[LABEL].sum() == len(rest)
    step = 1 + int(profile.seen[LABEL].sum()) // MOST_ROWS
    codes_seen = {name: some[::step] for name, some in codes_seen.items()}
    phase_seen, phase, phases = phase[::step], phase[: len(rest)], profile.course.phases
    step = 1 + len(rest) // MOST_ROWS
    codes, rest = {name: some[::step] for name, some in codes.items()}, rest[::step]
    phase = phase[::step]
    for what, some in axes.items():
        if some:
            own = phase if what == "scores" else phase_seen
            values = along(profile, some, codes if what == "scores" else codes_seen)
            profile.moments[what] = _moment(some, values, own, phases)
            if not alone and what != "scores":
                values = along(profile, some, codes)
                profile.moments[what + ALONE] = _moment(some, values, phase, phases)
    both = [("", None), (SCORE, None), *axes["numbers"]]
    values = along(profile, both, codes) * rest[:, None]
    profile.moments["outcomes"] = _moment(both, values, phase, phases)


def _moment(
    axes: list[tuple[str, int | None]], values: Array, phase: Array, phases: int
) -> Moments:
    """Moments of rows; how much blocks of them differ is told by T squared, as `hotelling` has it."""
    mean, covariance = values.mean(axis=0), np.atleast_2d(np.cov(values.T))
    rest, means = values - mean, None
    counts = np.bincount(phase, minlength=phases + 1).astype(np.float64)
    if phases > 1:  # a block is as its phases let expect
        sums = [np.bincount(phase, one, phases + 1) for one in values.T]
        means = np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]
        rest = values - means[phase]
        means, counts = means[:phases], counts[:phases]
    parts = np.array_split(rest, BLOCKS)
    gap, within = np.stack([part.mean(axis=0) for part in parts]), np.atleast_2d(np.cov(rest.T))
    statistic = len(parts[0]) * np.einsum("bi,ij,bj->", gap, np.linalg.pinv(within), gap)
    usual = 2 * gammaincinv((BLOCKS - 1) * len(axes) / 2, 0.95)  # chi-squared's
    dispersion = float(max(1.0, statistic / usual))
    found = Moments(axes, mean, covariance, len(values), dispersion, len(parts[0]))
    return replace(found, means=means, counts=None if means is None else counts)


def _coarse(column: Column, counts: Array) -> list[int]:
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
    usual = counts.sum(axis=0) >= 5 * BLOCKS
    counts = counts[:, usual]
    if counts.shape[1] < 2:
        return 1.0, len(blocks[0])
    kept = usual[codes]
    phase, phases = phase[: len(codes)], int(phase.max()) + 1
    known = np.bincount(phase[kept] * size + codes[kept], minlength=phases * size)
    known = known.reshape(phases, size)[:, usual]
    mix = [
        np.bincount(one[some], minlength=phases)
        for one, some in zip(
            np.array_split(phase, BLOCKS), np.array_split(kept, BLOCKS), strict=True
        )
    ]
    expected = np.stack(mix) @ (known / np.maximum(known.sum(axis=1, keepdims=True), 1))
    statistic = ((counts - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    limit = 2 * gammaincinv(freedom / 2, 0.95)  # chi-squared's
    return float(max(1.0, statistic / limit)), len(blocks[0])


def _popularity(profile: Profile, settings: Settings, root: Path) -> None:
    """Fifths of the training rows by how common their object is: 0 the commonest, 4 the rarest."""
    name = settings.monitoring.popularity
    column = profile.columns.get(name or "")
    if column is None or column.kind != "category":
        return
    query = f"SELECT {quoted(column.name)}, count(*) FROM read_parquet(?) GROUP BY ALL"
    counts = dict(duckdb.execute(query, [str(root / paths.SPLITS["train"])]).fetchall())
    ranked = sorted(column.categories, key=lambda one: (-counts.get(one, 0), one))
    total, before, fifth = sum(counts.values()) or 1, 0, {}
    for one in ranked:
        fifth[one] = min(4, int(5 * (before + counts.get(one, 0) / 2) / total))
        before += counts.get(one, 0)
    column.popularity = [*(fifth[one] for one in column.categories), 4, 4, 4]
