"""What the method takes for granted about the data, tested on rows that what ships was not fitted to.

Independence: intraclass correlation of errors among rows of one unit and of one stretch of time (one-way analysis of
variance; Fisher, 1925), by permutation. Identical distribution: a model that tells the parts of the split apart
(Lopez-Paz and Oquab, 2017). Smoothness: labels and errors of nearest rows beside those of any two (as Geary's ratio,
1954). Normality: skewness and tails of errors (D'Agostino and Pearson, 1973).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import duckdb
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import problem
from ..data.schema import name as quoted
from ..data.schema import stored
from ..data.source import report as write
from ..features.catalogue import inputs, load, load_truth, load_weight
from ..goals.gate import interval, measure, representatives, resample, sample_rows
from ..modelling.evaluate import read_manifest
from ..modelling.fitting import fit_features
from ..modelling.folds import RowKeys
from ..modelling.scorer import load_scorer
from ..modelling.train import read_label, rows_to_fit
from ..paths import MANIFEST, MODEL, SPLITS
from ..problem.goals import came, claim, decide, numeric, unit
from ..settings import Settings
from .attribution import reached

MAX_ROWS, MAX_SLOW_ROWS = 10_000, 1_000  # of each part; of a model that reads texts or images
PERMUTATIONS = 999
HOLDS, OFF, BROKEN, NOT_ASSUMED = "holds", "a little off", "broken", "not assumed"
LEVEL = 0.01  # below which chance does not explain a figure
STRETCHES = 50  # of equally many rows, in the order of time
MIN_UNITS, MIN_REPEATS = (
    50,
    1.1,
)  # values of a column that names units, and rows of each, on average
# From which size on what chance does not explain matters for a decision
WIDER = 1.1  # of a standard error: by how much correlated rows widen the mean's
TOLD_APART = 0.6  # area under the curve of telling two parts apart
COMMON = 0.1  # share of the spread that near rows have in common
FOLDS, NAMED = 5, 3
TREES: dict[str, Any] = {
    "n_estimators": 100,
    "num_leaves": 15,
    "learning_rate": 0.05,
    "deterministic": True,
}

Array = np.ndarray


class Finding(NamedTuple):
    """What was measured of an assumption, and what follows for this model."""

    assumption: str  # independence, identical distribution, smoothness or normality
    subject: str  # of what, in two or three words
    figure: str  # what was measured, in words
    value: float
    p: float  # chance of such a figure where the assumption holds; of smoothness where nothing is alike
    verdict: str  # HOLDS, OFF, BROKEN or NOT_ASSUMED
    meaning: str


class Assumptions(TypedDict):
    """reports/assumptions.json."""

    model: str  # sha256
    rows: int
    findings: list[dict[str, Any]]  # each as a Finding
    verdict: str


@dataclass(frozen=True)
class Tested:
    """Test rows of what ships: their positions in the part, truth, errors, shape (n,), and answers."""

    rows: Array
    y: Array
    residual: Array
    score: Array
    decision: Any

    @classmethod
    def of(cls, settings: Settings, root: Path) -> Tested:
        """Score the test rows, of many a seeded draw, each as often as it counts."""
        path, decision = root / SPLITS["test"], read_manifest(root / MANIFEST)["decision"]
        truth, raw = load_truth(path), load(path, inputs(settings))
        rows = drawn(settings, path, truth)
        y, score = truth[rows], load_scorer(root / MODEL).score(raw.iloc[rows])
        decided = decide(score, decision)
        residual = claim(score, decided)
        if problem.CLAIMS:
            residual = came(y, decided) - residual
        return cls(rows, y, np.asarray(residual, np.float64), score, decision)


def assumptions(settings: Settings, root: Path) -> Assumptions:
    """Write reports/assumptions.json.

    Raises:
        UserError: when the split or the model is missing.
    """
    manifest, tested = read_manifest(root / MANIFEST), Tested.of(settings, root)
    parts, features = _parts(settings, root)
    groups = shared(settings, root, tested)
    findings = [
        *(_independence(settings, tested, group) for group in groups),
        *(_same_distribution(settings, parts, features, part) for part in ("valid", "test")),
        *_smoothness(settings, parts, tested),
        _normality(tested),
    ]
    result: Assumptions = {
        "model": manifest["sha256"],
        "rows": len(tested.y),
        "findings": [row._asdict() for row in findings],
        "verdict": summary(findings),
    }
    write(root, "assumptions", result)
    return result


def summary(findings: list[Finding]) -> str:
    """What is broken, in a sentence."""
    broken: dict[str, list[str]] = {}
    for row in findings:
        if row.verdict == BROKEN:
            broken.setdefault(row.assumption, []).append(row.subject)
    if not broken:
        return "No assumption is broken by more than matters."
    listed = (f"{name} ({', '.join(subjects)})" for name, subjects in broken.items())
    return f"Broken: {'; '.join(listed)}."


def show(result: Assumptions, console: Console) -> None:
    """Print what was measured of each assumption, and what it means."""
    table = Table("assumption", "measured", "verdict", "so", box=SIMPLE_HEAD)
    for row in result["findings"]:
        table.add_row(*(escape(row[key]) for key in ("assumption", "figure", "verdict", "meaning")))
    console.print(table)
    console.print(result["verdict"], markup=False)


def _verdict(p: float, matters: bool) -> str:
    """Whether an assumption holds: what chance explains does, what is small is a little off."""
    if p >= LEVEL:
        return HOLDS
    return BROKEN if matters else OFF


def drawn(settings: Settings, path: Path, truth: Array) -> Array:
    """Positions of rows of a part, each as often as it counts, not more than are looked at."""
    is_slow = {"text", "image"} & {*inputs(settings).values()}
    rows = representatives(len(truth), load_weight(path))
    max_rows = MAX_SLOW_ROWS if is_slow else MAX_ROWS
    return rows[sample_rows(len(rows), max_rows, settings.project.seed, unit(truth[rows]))]


def intraclass_correlation(
    residual: Array, unit_codes: Array, seed: int
) -> tuple[float, float, float]:
    """How alike the errors of one unit are, from 0 (not at all) to 1, with p, and how much wider standard errors are.

    Args:
        residual: shape (n,); unit_codes: from 0, of which unit each row is, shape (n,).

    Returns:
        the correlation, p by permutation (one-sided), and the factor on the standard error of the mean (Kish, 1965).
    """
    rng, rows = np.random.default_rng(seed), np.bincount(unit_codes)
    n, units = len(residual), len(rows)
    centred = residual - residual.mean()

    def between(values: Array) -> float:
        return float((np.bincount(unit_codes, values, units) ** 2 / rows).sum())

    total, observed = float((centred**2).sum()), between(centred)
    drawn = [between(rng.permutation(centred)) for _ in range(PERMUTATIONS)]
    p = (1 + sum(value >= observed for value in drawn)) / (1 + PERMUTATIONS)
    mean_between = observed / max(1, units - 1)
    mean_within = (total - observed) / max(1, n - units)
    size = (n - (rows**2).sum() / n) / max(1, units - 1)
    denominator = mean_between + (size - 1) * mean_within
    correlation = max(0.0, (mean_between - mean_within) / denominator) if denominator > 0 else 0.0
    weighted_size = float((rows**2).sum() / n)
    return correlation, p, float(np.sqrt(1 + max(0.0, weighted_size - 1) * correlation))


class Shared(NamedTuple):
    """What some rows have in common: its name in words, the code of each row, shape (n,), and whether it is drawn whole."""

    name: str
    codes: Array
    is_drawn_whole: bool


def shared(settings: Settings, root: Path, tested: Tested) -> list[Shared]:
    """What test rows share: units that are drawn whole, values of columns that name units, and stretches of time."""
    schema, whole, result = settings.data.schema_, unit(tested.y), list[Shared]()
    if whole is not None:
        codes = np.unique(whole, return_inverse=True)[1]
        result.append(Shared("rows that are drawn as a whole", codes, True))
    rows = duckdb.read_parquet(str(root / SPLITS["test"]))
    names = [
        name
        for name, column in stored(settings).items()
        if column.type == "category" and name != schema.id and name in rows.columns
    ]
    selection = ", ".join(map(quoted, [*names, *filter(None, [schema.time])])) or "1"
    frame = rows.project(selection).df().iloc[tested.rows]
    for name in names:
        codes, values = frame[name].fillna("").factorize()
        if len(values) >= MIN_UNITS and len(codes) >= MIN_REPEATS * len(values):
            result.append(Shared(f"rows of one {name}", codes, False))
    if schema.time and len(frame) >= 2 * STRETCHES:
        codes = np.empty(len(frame), np.int64)
        order = np.argsort(frame[schema.time].to_numpy(), kind="stable")
        codes[order] = np.arange(len(frame)) * STRETCHES // len(frame)
        result.append(Shared(f"rows of one fiftieth in the order of {schema.time}", codes, False))
    return result


def _independence(settings: Settings, tested: Tested, group: Shared) -> Finding:
    """Whether errors go together among rows that share something."""
    seed = settings.project.seed
    correlation, p, wider = intraclass_correlation(tested.residual, group.codes, seed)
    verdict = _verdict(p, wider >= WIDER)
    effect = f"and widen standard errors {wider:.2f} ×" if p < LEVEL else "no more than by chance"
    meaning = "Intervals that draw single rows are as wide as they should be."
    if group.is_drawn_whole:
        meaning = "Every interval here draws them whole, so it is counted."
    elif verdict != HOLDS:
        wide, narrow = (_interval_text(settings, tested, codes) for codes in (group.codes, None))
        meaning = (
            f"With {group.name} drawn as a whole, {settings.goals.metric} lies within {wide} in place of {narrow}: "
            "fewer rows than it seems speak for it."
        )
    figure = f"errors of {group.name} correlate by {correlation:.2f}, {effect}"
    return Finding("independence", group.name, figure, correlation, p, verdict, meaning)


def _interval_text(settings: Settings, tested: Tested, codes: Array | None) -> str:
    """The interval of the metric with whole units drawn, or those that are drawn everywhere."""
    goals, n = settings.goals, len(tested.y)
    units = unit(tested.y) if codes is None else codes
    weights = resample(n, goals.interval.resamples, settings.project.seed, units)
    decided = decide(tested.score, tested.decision)
    draws = measure(goals.metric, tested.y, tested.score, decided, weights)
    return "{:.3g} to {:.3g}".format(*interval(draws, goals.interval.level))


class Part(NamedTuple):
    """A part of the split as features, (n, width), its labels, (n,), and what stays together, (n,)."""

    matrix: Array
    label: Array
    keys: RowKeys


class Features(NamedTuple):
    """The names of features, and which of them are of the event's own time, bool, shape (width,)."""

    names: tuple[str, ...]
    is_of_time: Array


def _parts(settings: Settings, root: Path) -> tuple[dict[str, Part], Features]:
    """The parts of the split, each no more rows than are looked at, and what their features are."""
    columns = inputs(settings)
    train, y, keys = rows_to_fit(root / SPLITS["train"], settings)
    moment = settings.data.schema_.time
    preparation, table = fit_features(train, y, keys, settings)
    is_of_time = np.zeros(table.matrix.shape[1], bool)
    if moment is not None and moment in columns:
        is_of_time = reached(preparation.transform, train, [moment])[moment]
    parts = {}
    for part, path in SPLITS.items():
        y, keys = read_label(root / path, settings)
        rows = drawn(settings, root / path, y)
        matrix = preparation.transform(load(root / path, columns).iloc[rows])
        parts[part] = Part(np.asarray(matrix), numeric(y[rows]), keys.take(rows))
    return parts, Features(tuple(preparation.names), is_of_time)


def told_apart(
    first: Array, second: Array, groups: Array | None, seed: int
) -> tuple[float, float, Array]:
    """How well a model tells rows of two samples apart that it has not seen.

    Args:
        first, second: features, shapes (n, width) and (m, width).
        groups: what stays on one side of a fold, shape (n + m,); None: each row goes by itself.

    Returns:
        the area under the curve, its p (Mann and Whitney, 1947), and how much each feature has a part in it, (width,).
    """
    from lightgbm import LGBMClassifier
    from scipy.stats import mannwhitneyu
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    x, side = np.vstack([first, second]), np.repeat([0, 1], [len(first), len(second)])
    score, gains = np.zeros(len(x)), np.zeros(x.shape[1])
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = kind(FOLDS, shuffle=True, random_state=seed)
    for fit, held in folds.split(x, side, groups):
        model = LGBMClassifier(**TREES, importance_type="gain", random_state=seed, verbosity=-1)
        model.fit(x[fit], side[fit])
        score[held] = np.asarray(model.predict_proba(x[held]))[:, 1]
        gains += model.feature_importances_
    test = mannwhitneyu(score[side == 1], score[side == 0], alternative="greater")
    return float(test.statistic / (len(first) * len(second))), float(test.pvalue), gains


def _same_distribution(
    settings: Settings, parts: dict[str, Part], features: Features, part: str
) -> Finding:
    """Whether the rows of a later part, labels included, could be rows of the training part, but for when they were."""
    first, second = parts["train"], parts[part]
    taken = np.flatnonzero(~features.is_of_time)
    matrices, names = (
        [s.matrix[:, taken] for s in (first, second)],
        [features.names[i] for i in taken],
    )
    if problem.CLAIMS:  # else labels are hardly there, and come by other ways than rows do
        labels = first.label, second.label
        matrices = [np.column_stack(pair) for pair in zip(matrices, labels, strict=True)]
        names.append("the label")
    keys = first.keys.joined(second.keys)
    groups = keys.group if keys.unit is None else keys.unit
    area, p, gains = told_apart(matrices[0], matrices[1], groups, settings.project.seed)
    verdict = _verdict(p, area >= TOLD_APART)
    strongest = ", ".join(names[at] for at in np.argsort(-gains)[:NAMED] if gains[at] > 0)
    meaning = f"What is measured on {part} speaks of rows like those that were trained on."
    if verdict != HOLDS:
        meaning = (
            f"What is measured on {part} is about other rows than were trained on; they differ most by {strongest}. "
            "Expect the next rows to differ as much, and train as often as the monitor says."
        )
    figure = f"a model tells {part} rows from train rows with an area under the curve of {area:.2f} (0.5: not at all)"
    return Finding("identical distribution", part, figure, area, p, verdict, meaning)


def likeness(values: Array, near_values: Array, nearest: Array, seed: int) -> tuple[float, float]:
    """How much less values differ from that of the nearest row than from that of any row, 1: not at all, 0: as much.

    Args:
        values: shape (n,), or (n, columns); near_values: of rows to be near to, shape (m,), or (m, columns).
        nearest: which of these is nearest, shape (n,).

    Returns:
        1 less the ratio of the mean squared differences, and p by permutation (one-sided).
    """
    rng = np.random.default_rng(seed)

    def difference(drawn: Array) -> float:
        return float(((values - drawn[nearest]) ** 2).mean())

    observed = difference(near_values)
    shuffled = [difference(rng.permutation(near_values)) for _ in range(PERMUTATIONS)]
    p = (1 + sum(value <= observed for value in shuffled)) / (1 + PERMUTATIONS)
    return 1 - observed / (float(np.mean(shuffled)) or 1.0), p


def _smoothness(settings: Settings, parts: dict[str, Part], tested: Tested) -> list[Finding]:
    """Whether near rows have near labels, and whether the model leaves out what near rows share."""
    from sklearn.neighbors import NearestNeighbors

    train, test, seed = parts["train"], parts["test"], settings.project.seed
    middle, spread = train.matrix.mean(axis=0), train.matrix.std(axis=0)
    scaled = [(x - middle) / np.where(spread > 0, spread, 1.0) for x in (train.matrix, test.matrix)]
    findings = []
    if problem.CLAIMS:
        near = NearestNeighbors(n_neighbors=1).fit(scaled[0]).kneighbors(scaled[1])[1][:, 0]
        labels = _columns(train.label), _columns(test.label)
        share, p = likeness(labels[1], labels[0], near, seed)
        verdict, meaning = HOLDS, "Models that go by likeness have something to go by."
        if p >= LEVEL:
            verdict = BROKEN
            meaning = "Being near says nothing here: look for other features before larger models."
        figure = f"labels of nearest rows differ {share:.0%} less than those of any two"
        findings.append(
            Finding("smoothness", "labels of near rows", figure, share, p, verdict, meaning)
        )
    near = NearestNeighbors(n_neighbors=2).fit(scaled[1]).kneighbors(scaled[1])[1][:, 1]
    share, p = likeness(tested.residual, tested.residual, near, seed)
    verdict = _verdict(p, share >= COMMON)
    meaning = "The model leaves out nothing that near rows share."
    if verdict != HOLDS:
        meaning = "Near rows share what the model leaves out: try larger trees, or a feature of it."
    figure = f"errors of nearest rows differ {share:.0%} less than those of any two"
    return [
        *findings,
        Finding("smoothness", "errors of near rows", figure, share, p, verdict, meaning),
    ]


def _columns(label: Array) -> Array:
    """Labels whose squared differences mean something: numbers as they are, classes as a column each."""
    if not problem.CLASSES:
        return label[:, None]
    return (label[:, None] == np.unique(label)[None]).astype(np.float64)


def _normality(tested: Tested) -> Finding:
    """Whether errors of numbers are normal, and what rests on that."""
    from scipy.stats import kurtosis, normaltest, skew

    if problem.CLASSES:
        meaning = "Nothing here assumes it: labels are no numbers, and intervals are drawn anew."
        return Finding("normality", "errors", "not measured", 0.0, 1.0, NOT_ASSUMED, meaning)
    residual = tested.residual
    deviation = (residual - residual.mean()) / (residual.std() or 1.0)
    beyond = float((np.abs(deviation) > 1.96).mean())
    p = float(normaltest(residual).pvalue)
    figure = (
        f"errors have skewness {skew(residual):.2f} and excess kurtosis {kurtosis(residual):.2f}; "
        f"{beyond:.1%} lie beyond 1.96 standard deviations (of normal ones 5 %)"
    )
    meaning = (
        "Nothing here assumes it: intervals are drawn anew, and bands take quantiles of errors."
    )
    return Finding("normality", "errors", figure, beyond, p, NOT_ASSUMED, meaning)
