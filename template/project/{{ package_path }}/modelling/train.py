"""Fit the baselines and the candidates, measure all alike, choose one, fit it again, export it.

The features are prepared once and shared by all models, which are fitted two at a time. Models learn
from the training rows; calibration, decision and choice come from the validation rows, or where rows
are few from cross-validation over both. What ships is then fitted again on both. Of the test rows
only the inputs are read, to compare each exported model with the trained one.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import duckdb
import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from .. import problem
from ..agreements import SUMMED
from ..data.label import is_labelled
from ..data.schema import name as name_of
from ..features.catalogue import (
    check_leaks,
    ends,
    inputs,
    load,
    load_truth,
    load_weight,
    selected,
    sources,
)
from ..features.text import HeavyNGrams
from ..goals.gate import (
    Figure,
    gain_interval,
    interval,
    measure,
    representatives,
    resample,
    sample_rows,
)
from ..goals.gate import gain as gained
from ..model import Model
from ..parts import optional_module
from ..paths import (
    APART,
    BASELINE,
    CANDIDATES,
    FITTED,
    LABEL_REPORT,
    MANIFEST,
    MODEL,
    REASONS,
    SPLITS,
    WEAK,
    YOUNG,
)
from ..problem import data as problem_data
from ..problem import models
from ..problem.features import judged, may_choose
from ..problem.goals import decide, fit_decision, numeric, spread, together, unit, value
from ..settings import MIN_PART_ROWS, Settings, UserError
from .behaviour import augmented
from .boosting import Size
from .calibration import Calibration
from .export import export
from .fitting import (
    BASELINES,
    Fitted,
    TrainingTable,
    alternatives,
    find_sizes,
    fit_features,
    fit_head,
    fit_model,
    fitting_executor,
    out_of_fold,
)
from .folds import RowKeys
from .imbalance import require_library, takes
from .scorer import latency, load_scorer, parity, with_extremes
from .unlabelled import Unlabelled, given_model

MAX_ROWS = 20_000  # that an interval is drawn from
MAX_CELLS_FOLDED = 1_000_000  # of the inputs; beyond, no cross-validation, however few the rows
FLOOR = BASELINES[0]
# Stands behind the name of a model that also learnt from changed copies of rows, as a way of `modelling.imbalance`
# does behind that of one whose rare classes it made count
AUGMENTED = "augmented"
# What may stand behind the parts, for training alone: its file, and the parts that it stands apart from
BEHIND = {
    "weak": (WEAK, ("valid", "test")),
    "young_train": (YOUNG["train"], ("valid", "test")),
    "young_valid": (YOUNG["valid"], ("test",)),
    "unlabelled": (APART, ("valid", "test")),
}
MAX_CATEGORIES = 100
PAST = 2  # stretches before the validation rows, on which `tune` judges too what ships
LIBRARIES = ("lightgbm", "numpy", "onnx", "onnxruntime", "pandas", "scikit-learn", "skl2onnx")

Array = np.ndarray


class Lead(TypedDict):
    """By how much a model is better than another, `baseline`, with its interval."""

    baseline: str
    value: float
    low: float
    high: float


class CandidateRow(TypedDict):
    """A model in reports/candidates.json, as it was judged."""

    name: str
    kind: str  # baseline or candidate
    metric_name: str
    metric: float
    low: float
    high: float
    value: float  # of a row's decision, by the costs
    decision: Any
    fit_seconds: float
    latency_p50_ms: Any  # a float, as the three below; None where there is no file
    latency_p99_ms: Any
    size_kb: Any
    parity: Any
    fitted: str | None  # the size that was found, in words
    chosen: bool
    gain_over_baseline: NotRequired[Lead]
    gain_over_plain: NotRequired[
        Lead
    ]  # of a variant: over the same model fitted to the rows as they are
    labelled_rows: NotRequired[int]  # of those without a label, that a model labelled for it
    verdict: NotRequired[str]
    refit: NotRequired[bool]


class Candidates(TypedDict):
    """reports/candidates.json: the models that were compared, and which of them ships.

    `judged`: how many `rows` the figures come from, and `by` what; `shipped`: how many `rows` the model that
    ships was fitted to, and whether in a `refit`; `variants`: what those of the training rows gain, in words.
    """

    chosen: str
    rows: list[CandidateRow]
    judged: dict[str, Any]
    shipped: dict[str, Any]
    variants: str
    texts: NotRequired[list[HeavyNGrams]]  # of what ships; where it reads free texts
    deleted: NotRequired[str]  # rows with gaps that no model learnt from, in words


@dataclass
class Prepared:
    """The rows that models are fitted to, and those that they are judged by.

    `held` is None where rows are few: then `fit` holds train and valid, and each row is judged by
    models that were fitted without it. `probe` are the rows of the parity check.
    """

    columns: dict[str, str]
    rows: dict[str, pd.DataFrame]
    preparation: Any
    fit: TrainingTable  # its rows, and behind them those with weak labels and changed copies
    held: TrainingTable | None
    probe: Array
    newest: Array | None  # positions of the rows that a warm start goes on with

    @property
    def judged(self) -> Array:
        """The labels of the rows that models are judged by, shape (n,)."""
        return self.fit.label[: len(self.rows["fit"])] if self.held is None else self.held.label

    @property
    def weight(self) -> Array | None:
        """How much each of these rows counts, shape (n,); None: all alike."""
        weight = (self.held or self.fit).keys.weight
        return None if weight is None else weight[: len(self.judged)]

    @property
    def representatives(self) -> Array:
        """The positions of these rows, each as often as it counts, for what takes no weights."""
        return representatives(len(self.judged), self.weight)


@dataclass
class Trial:
    """One model of the table. `file` is None where there is nothing to export."""

    name: str
    kind: str
    score: Array  # of the rows that it is judged by, calibrated: shape (n,), or (n, classes)
    seconds: float
    head: Calibration | None = None
    size: Size | None = None
    decision: Any = 0.0
    labelled_rows: int | None = None  # of those without a label, that a model labelled for it
    draws: Array = field(default_factory=lambda: np.empty(0))  # the metric by resample
    file: bytes | None = None
    parity: float | None = None
    row: CandidateRow = field(init=False, repr=False)

    @property
    def method(self) -> str:
        """What fits it: the name without the variant of the rows that it was fitted to."""
        return self.name.partition(" ")[0]

    @property
    def variant(self) -> str:
        """Of the rows that it was fitted to, see `AUGMENTED`; empty: as they are."""
        return self.name.partition(" ")[2]


def train(settings: Settings, root: Path) -> Candidates:
    """Write the chosen model, the best baseline, the manifest and the table of all fitted models.

    Returns:
        what reports/candidates.json holds.

    Raises:
        UserError: when a feature leaks the label or is ill-defined, when the split is missing, or
            when a part holds a single label value.
    """
    require_library(settings.modelling.imbalance)
    with (
        _progress() as bar,
        fitting_executor(settings) as pool,
        # Sums in one order give the same bits on any machine, and spare threads only wait for work
        threadpool_limits(settings.modelling.threads, "blas"),
    ):
        task = bar.add_task("features", total=len(settings.modelling.candidates) + 6)
        parts, deleted = read_parts(settings, root)
        labelled = np.flatnonzero(is_labelled(parts["train"].label))
        _check_leaks(parts["train"], labelled, settings)
        trials, data, chosen, fallback = _compare(settings, parts, pool, partial(bar.update, task))
        plain = data[""]
        bar.update(task, description="refit")
        judged_by = "cross-validation" if plain.held is None else "validation"
        shipped = _refit(settings, parts, data, chosen, fallback)
        report: Candidates = {
            "chosen": chosen.name,
            "rows": [trial.row for trial in trials],
            "judged": {"rows": len(plain.judged), "by": judged_by},
            "shipped": {"rows": len(shipped.rows["fit"]), "refit": "refit" in chosen.row},
            "variants": _gain_words([trial.row for trial in trials]),
        }
        if texts := shipped.preparation.texts:
            report["texts"] = texts.heaviest()
        if deleted:
            report["deleted"] = deleted
        manifest = _manifest(settings, root, shipped, plain, chosen, fallback)
        if problem.UNLABELLED is not None:
            manifest["stability"] = asdict(_stability(chosen, data[chosen.variant], settings))
        reasons = _reasons(settings, shipped, chosen)
        if reasons is not None:
            manifest["reasons"] = _sha256(reasons)
        _write_models(root, chosen, fallback, report, manifest, reasons)
    return report


def _compare(
    settings: Settings, parts: dict[str, Part], pool: Executor, step: Callable[..., None]
) -> tuple[list[Trial], dict[str, Prepared], Trial, Trial]:
    """Fit and judge all models: these, the rows by variant, what ships, and the best baseline that can serve.

    Args:
        step: is told of progress, as `Progress.update` is.
    """
    use_folds = uses_folds(parts, settings)
    names = [*BASELINES, *_candidates(settings, use_folds)]
    augmented_too = [AUGMENTED] if settings.modelling.augmentation.copies else []
    unlabelled = settings.labelling.unlabelled if "unlabelled" in parts else None
    augmented_too += unlabelled.ways if unlabelled else []
    variants = ["", *augmented_too, *settings.modelling.imbalance]
    data = _variants(settings, parts, use_folds, variants)
    step(advance=1, description="sizes")
    plain = data[""]
    sizes = find_sizes(
        [name for name in names if name in models.SIZED], plain.fit, settings, use_folds
    )
    if plain.held is not None and settings.data.split.by == "time" and "boosted" in sizes:
        sizes["boosted"] = _best_size(sizes["boosted"], plain, settings)
    jobs = [
        (name, variant)
        for variant in data
        for name in names
        if not variant or (name in models.SIZED and takes(variant, name))
    ]
    step(advance=1, description="models", total=len(jobs) + 3)
    # The last in the list take longest, so they start first
    runs = {
        (name, variant): pool.submit(
            _run_trial,
            name,
            variant,
            data[variant],
            sizes.get(models.SIZED.get(name, "")),
            settings,
        )
        for name, variant in reversed(jobs)
    }
    for run in as_completed(runs.values()):
        run.result()
        step(advance=1)
    trials = [runs[job].result() for job in jobs]
    _measure(trials, plain, settings)
    return trials, data, *_choose(trials, settings, may_choose(plain.judged))


def _candidates(settings: Settings, use_folds: bool) -> list[str]:
    also = settings.modelling.few_rows.also if use_folds else ()
    return list(dict.fromkeys((*settings.modelling.candidates, *also)))


@dataclass
class Part:
    """A part of the split as it was read; `scores`: of a given model, of rows without a label."""

    rows: pd.DataFrame
    label: Array
    keys: RowKeys
    scores: Array | None = None

    def take(self, rows: Array) -> Part:
        """The part's rows at some positions."""
        scores = None if self.scores is None else self.scores[rows]
        frame = self.rows.iloc[rows].reset_index(drop=True)
        return Part(frame, self.label[rows], self.keys.take(rows), scores)


def read_parts(settings: Settings, root: Path) -> tuple[dict[str, Part], str]:
    """train, valid, of the rows alone test, and of `BEHIND` what is there, those that judge no model without rows that none
    learns from; and in words how many these were.

    Raises:
        UserError: when what is left is too little, and as `train`.
    """
    parts = _read(settings, root, given_model(settings, root))
    deleted = _deletion_words(parts["train"].rows, settings)
    judging = ("valid", "test")
    parts |= {n: _without_gaps(p, settings) for n, p in parts.items() if n not in judging}
    _check_rest(parts["train"], deleted)
    return parts, deleted


def rows_to_fit(path: Path, settings: Settings) -> tuple[pd.DataFrame, Array, RowKeys]:
    """The rows of a part that a fit may see, see `learnable`: the model's inputs, their truth, and their keys."""
    part = Part(load(path, inputs(settings)), *read_label(path, settings))
    part = _without_gaps(part, settings)
    return part.rows, part.label, part.keys


def _read(settings: Settings, root: Path, teacher: Model | None = None) -> dict[str, Part]:
    """train, valid and, of the rows alone, test; and of `BEHIND` what is there."""
    parts = {}
    columns = inputs(settings)
    for name, path in SPLITS.items():
        rows = load(root / path, columns)
        parts[name] = Part(rows, *read_label(root / path, settings))
    for name in ("train", "valid") if problem.UNLABELLED is None else ():
        label = parts[name].label
        if any(len(np.unique(labels)) < 2 for labels in (models.learnt(label), numeric(label))):
            raise UserError(
                f"{SPLITS[name]}: the label has a single value in its {len(label)} rows; "
                f"collect more rows or change data.split"
            )
    for name, (file, judges) in BEHIND.items():
        if (root / file).is_file():
            part = _read_behind(root / file, judges, parts, columns, settings)
            if name == "unlabelled" and teacher is not None and len(part.label):
                part.scores = teacher.score(load(root / file, teacher.types))
            if len(part.label):
                parts[name] = part
    return parts


def _read_behind(
    path: Path,
    judges: Sequence[str],
    parts: dict[str, Part],
    columns: dict[str, str],
    settings: Settings,
) -> Part:
    """Rows for training alone; copies of a row, one for each likely label, stay on one side of a fold.

    Args:
        judges: the parts that they stand apart from, in their order.

    Raises:
        UserError: when they do not.
    """
    part = Part(load(path, columns), *read_label(path, settings))
    judging = [str(path.parent / Path(SPLITS[name]).name) for name in judges]
    pairs = [("_row_key", settings.data.split.near_duplicate_digits is not None)]
    pairs += [(name_of(str(settings.data.split.group)), settings.data.split.group is not None)]
    shared = any(
        duckdb.execute(
            f"SELECT 1 FROM read_parquet(?) SEMI JOIN (FROM read_parquet(?)) USING ({column}) LIMIT 1",
            [str(path), judging],
        ).fetchall()
        for column, matters in pairs
        if matters
    )
    times, later = part.keys.time, parts[judges[0]].keys.time
    if settings.data.split.by == "time" and times is not None and later is not None and len(times):
        shared |= bool(times.max() >= later.min())
    if shared:
        raise UserError(
            f"data/split/{path.name}: rows for training alone stand in valid or test, or overlap them; run `split` again"
        )
    if "_weak_row" not in duckdb.read_parquet(str(path)).columns:
        return part
    cases = duckdb.read_parquet(str(path)).project("_weak_row").fetchnumpy()["_weak_row"]
    return replace(part, keys=replace(part.keys, unit=np.asarray(cases)))


def _check_leaks(part: Part, labelled: Array, settings: Settings) -> None:
    """Stop when a feature gives the label away, as it is or in the unit that labels are learnt in.

    Args:
        labelled: the positions of the rows that have a label.

    Raises:
        UserError: naming the columns.
    """
    rows, truth = part.rows.iloc[labelled], part.label[labelled]
    labels = models.learnt(truth).astype(np.float64)
    check_leaks(rows, labels, settings)
    if models.RELATIVE and truth.ndim > 1:  # as the label is, so the column
        numbers = {
            n: models.learnt(np.column_stack([rows[n], truth[:, 1:]])).astype(np.float32)
            for n, kind in inputs(settings).items()
            if kind == "number"
        }
        check_leaks(rows.assign(**numbers), labels, settings)


def read_label(path: Path, settings: Settings) -> tuple[Array, RowKeys]:
    """The truth of a part's n rows, as `features.catalogue.load_truth` has it, and what keeps these rows together
    or apart; with their weights where the file has a column `_row_weight`."""
    data = settings.data
    moment = f"epoch({name_of(data.schema_.time)})" if data.schema_.time else "NULL"
    group = f"CAST({name_of(data.split.group)} AS VARCHAR)" if data.split.group else "NULL"
    label = load_truth(path)
    frame = duckdb.read_parquet(str(path)).project(f"{moment}, {group}").df()
    seconds, groups_read = (frame.iloc[:, i] for i in range(2))
    times = seconds.astype(float).fillna(-np.inf).to_numpy() if data.schema_.time else None
    groups = _fill_groups(groups_read) if data.split.group else None
    keys = (times, groups, together(label), load_weight(path))
    return label, RowKeys(data.split.by, numeric(label), *keys)


def _fill_groups(units: pd.Series) -> Array:
    """The groups of rows; a row without one is a group of its own."""
    own_groups = pd.Series([f"\x00{i}" for i in range(len(units))], units.index)
    return units.fillna(own_groups).to_numpy(object)


def uses_folds(parts: dict[str, Part], settings: Settings) -> bool:
    """Whether models are judged by cross-validation, which a very wide table has no time for.

    What learns without labels needs no rows with them: all of those that are held out judge it. Training rows that were
    not drawn by chance judge nothing.
    """
    if problem.UNLABELLED is not None or not settings.data.sampling.by_chance:
        return False
    rows = len(parts["train"].label) + len(parts["valid"].label)
    cells = rows * parts["train"].rows.shape[1]
    return rows < settings.modelling.few_rows.below and cells <= MAX_CELLS_FOLDED


def join_parts(parts: dict[str, Part], settings: Settings) -> Part:
    """The rows of train and valid as one part, as models learn from them."""
    train, valid = parts["train"], _without_gaps(parts["valid"], settings)
    return _behind(train, valid, train.keys.joined(valid.keys))


def _behind(part: Part, added: Part, keys: RowKeys) -> Part:
    """The rows of a part, and behind them those of another, by the keys of both."""
    rows = pd.concat([part.rows, added.rows], ignore_index=True)
    return Part(rows, np.concatenate([part.label, added.label]), keys)


def _variants(
    settings: Settings, parts: dict[str, Part], with_valid: bool, names: Sequence[str]
) -> dict[str, Prepared]:
    """The rows by the name of each variant, see `AUGMENTED`; "": as they are, which most others share."""
    prepared: dict[bool, Prepared] = {}
    data = {}
    for name in names:
        with_copies = name == AUGMENTED
        if with_copies not in prepared:
            prepared[with_copies] = _prepare(settings, parts, with_valid, with_copies)
        rows, way = prepared[with_copies], None if name in ("", AUGMENTED) else name
        if name in ("self_training", "given_model"):
            added = _unlabelled(settings, parts["unlabelled"], rows, name == "given_model")
            data[name] = replace(rows, fit=replace(rows.fit, unlabelled=added))
        else:
            data[name] = replace(rows, fit=replace(rows.fit, imbalance=way))
    return data


def _unlabelled(settings: Settings, part: Part, data: Prepared, is_given: bool) -> Unlabelled:
    """Rows without a label as a fit takes them; `is_given`: a given model labels them, all of them."""
    unlabelled, matrix = settings.labelling.unlabelled, data.preparation.transform(part.rows)
    assert unlabelled is not None
    sure = 0.0 if is_given else unlabelled.self_training or 0.0
    scores = part.scores if is_given else None
    return Unlabelled(matrix, part.keys, scores, sure, unlabelled.weight)


def _prepare(
    settings: Settings, parts: dict[str, Part], with_valid: bool, with_copies: bool = False
) -> Prepared:
    """Fit the preparation and apply it: to the training rows, or to those of train and valid as a whole."""
    columns, original = inputs(settings), parts["train"]
    if with_valid:
        original = join_parts(parts, settings)
    fit = original
    for name in ("weak", "young_train", *(("young_valid",) if with_valid else ())):
        if name in parts:
            fit = _behind(fit, parts[name], fit.keys.followed_by(parts[name].keys))
    if with_copies:
        fit = _with_copies(fit, columns, settings)
    preparation, fitted = fit_features(fit.rows, fit.label, fit.keys, settings)

    def table(part: Part) -> TrainingTable:
        matrix = preparation.transform(part.rows)
        return TrainingTable(matrix, part.label, part.keys, tuple(preparation.names))

    rows = {"fit": original.rows, "probe": with_extremes(parts["test"].rows, columns)}
    held = None if with_valid else table(_judging(parts["valid"], settings))
    probe, newest = preparation.transform(rows["probe"]), _newest(settings, fit)
    return Prepared(columns, rows, preparation, fitted, held, probe, newest)


def _without_gaps(part: Part, settings: Settings) -> Part:
    """The rows of a part that have a value in each column of `features.delete_rows`."""
    if not settings.features.delete_rows:
        return part
    return part.take(np.flatnonzero(learnable(part.rows, settings)))


def learnable(rows: pd.DataFrame, settings: Settings) -> Array:
    """Which of n rows a fit may see, shape (n,): all but those that `features.delete_rows` keeps from every model."""
    return ~np.any([np.zeros(len(rows), bool), *_gaps(rows, settings).values()], axis=0)


def _gaps(rows: pd.DataFrame, settings: Settings) -> dict[str, Array]:
    """By column of `features.delete_rows`, which of n rows have no value there, shape (n,)."""
    deleted = settings.features.delete_rows
    return {name: (rows[name].isna() | (rows[name] == "")).to_numpy() for name in deleted}


def _deletion_words(rows: pd.DataFrame, settings: Settings) -> str:
    """How many of the training rows have gaps that delete them, and why, in words."""
    if not (gaps := _gaps(rows, settings)):
        return ""
    n, count = len(rows), int((~learnable(rows, settings)).sum())
    reasons = [
        f"{gaps[name].sum():,} without {name} ({reason})"
        for name, reason in settings.features.delete_rows.items()
    ]
    return f"{count:,} of {n:,} training rows ({count / n:.1%}) are learnt from by no model: {'; '.join(reasons)}"


def _check_rest(train: Part, deleted: str) -> None:
    """Stop where what rows with gaps leave is too little to learn from.

    Args:
        deleted: what is said of them, in words.

    Raises:
        UserError: with these words.
    """
    too_few = len(train.label) < MIN_PART_ROWS
    is_single = problem.UNLABELLED is None and len(np.unique(models.learnt(train.label))) < 2
    if deleted and (too_few or is_single):
        raise UserError(
            f"features.delete_rows: what is left is too little to learn from: {deleted}"
        )


def _judging(part: Part, settings: Settings) -> Part:
    """A part as models are judged by it: its own rows, or with others among them (`problem.features.judged`)."""
    rows, label, sources, _ = judged(part.rows, part.label, settings.project.seed)
    keys = part.keys if isinstance(sources, slice) else part.keys.take(sources)
    return Part(rows, label, replace(keys, label=label))


def _with_copies(part: Part, columns: dict[str, str], settings: Settings) -> Part:
    """The rows and their changed copies, which stand on the side of the row that they were made of."""
    modelling, n = settings.modelling, len(part.label)
    source = np.tile(np.arange(n), 1 + modelling.augmentation.copies)
    keys = part.keys.take(source)
    if keys.group is None:
        by = "group" if keys.by == "random" else keys.by
        keys = replace(keys, by=by, group=source)
    rows = augmented(part.rows, columns, modelling.augmentation, settings.project.seed)
    return Part(rows, part.label[source], keys)


def _stability(trial: Trial, data: Prepared, settings: Settings) -> Figure:
    """The share of one half's alerts that the other agrees on, where a model is fitted to each half of the rows.

    What needs no labels to be told: a method that flags other rows whenever it sees other rows of the same
    kind flags them by chance. Each half has its own threshold on the rows that models are judged by.
    """
    assert data.held is not None
    goals, y, n = settings.goals, data.held.label, len(data.fit.label)
    order, alerts = np.random.default_rng(settings.project.seed).permutation(n), []
    for half in np.array_split(order, 2):
        fitted = fit_model(trial.method, data.fit.take(np.sort(half)), trial.size, settings)
        score = fitted.raw(data.held.matrix)
        alerts.append(decide(score, fit_decision(y, score, goals.costs, goals.decision)) == 1)
    return Figure.of_mean(alerts[1][alerts[0]], goals.interval.level)


def _newest(settings: Settings, part: Part) -> Array | None:
    """The positions of the newest `modelling.warm_start` of the rows; None when it is off.

    Training starts from all rows each time, and not from the file in production: that one's
    preparation was fitted on other rows, so its trees would cut at values that mean something else.
    """
    share = settings.modelling.warm_start
    if not share or part.keys.time is None:
        return None
    count = max(1, round(share * len(part.label)))
    newest = np.argsort(part.keys.time, kind="stable")[-count:]
    if len(np.unique(models.learnt(part.label[newest]))) < 2:
        raise UserError("modelling.warm_start: the newest rows have a single label; take more")
    return np.sort(newest)


def _best_size(early_stopped: Size, data: Prepared, settings: Settings) -> Size:
    """The size of boosted trees that is best on the validation rows by the primary metric.

    Held-out training rows of one stretch of time can mislead about the next: a share of yes that moved
    stops trees early by their log loss though they rank better and better.
    """
    assert data.held is not None
    held = data.held.take(data.representatives)
    goals, y, figures = settings.goals, held.label, []
    sizes = alternatives(early_stopped, settings)
    for size in sizes:
        fitted = fit_model("lightgbm", data.fit, size, settings)
        score = fit_head(raw := fitted.raw(held.matrix), y, fitted.target, settings)(raw)
        decided = decide(score, fit_decision(y, score, goals.costs, goals.decision))
        figures.append(float(gained(goals.metric, measure(goals.metric, y, score, decided), 0.0)))
    return sizes[int(np.argmax(figures))]


def _run_trial(
    name: str, variant: str, data: Prepared, size: Size | None, settings: Settings
) -> Trial:
    """Fit, calibrate and export one model.

    Args:
        variant: of the rows that it is fitted to, see `AUGMENTED`.
    """
    if name == FLOOR:
        rows = len(data.judged)
        alike = representatives(len(data.fit.label), data.fit.keys.weight)
        score = models.floor(data.fit.label[alike], rows, settings, settings.project.seed)
        return Trial(name, "baseline", score, 0.0)
    start = time.perf_counter()
    fitted = fit_model(name, data.fit, size, settings, data.newest)
    seconds = time.perf_counter() - start
    if data.held is None:
        raw = out_of_fold(name, data.fit, size, settings)[: len(data.judged)]
    else:
        raw = fitted.raw(data.held.matrix)
    alike, always = data.representatives, data.fit.imbalance is not None
    head = fit_head(raw[alike], data.judged[alike], fitted.target, settings, always)
    kind = "baseline" if size is None else "candidate"
    trial = Trial(f"{name} {variant}".rstrip(), kind, head(raw), seconds, head, size)
    trial.labelled_rows = fitted.labelled_rows
    _export(trial, fitted, data)
    return trial


def _export(trial: Trial, fitted: Fitted, data: Prepared) -> None:
    """Turn a fitted model into a file, and compare the two."""
    assert trial.head is not None
    trial.file = export(data.preparation, fitted.model, trial.head, fitted.width)
    trained = trial.head(fitted.raw(data.probe))
    unit = parity_unit(data.fit.label, trained, fitted.target.shift)
    trial.parity = parity(trained, load_scorer(trial.file), data.rows["probe"], unit)


def parity_unit(y: Array, trained: Array, shift: float | None) -> Array:
    """What a difference of answers is divided by: the label's spread, or more where 32 bits tell no finer.

    A 32-bit float has seven digits of an amount. On the log scale the last bit is a share of the amount; for a number
    far from 0, such as a year, the digits behind the point are few.

    Args:
        y: labels, shape (n,).
        trained: answers, shape (m,), or (m, classes).
        shift: of the log scale; None: the label as it is.
    """
    share = 1.0 if models.RELATIVE else 0.1
    amount = np.abs(trained) * share if shift is None else trained + shift
    return np.maximum(spread(y), amount)


def _refit(
    settings: Settings,
    parts: dict[str, Part],
    data: dict[str, Prepared],
    chosen: Trial,
    fallback: Trial,
) -> Prepared:
    """Fit what ships again, on train and valid: more rows, and the newest ones.

    Size, calibration and decision stay as they were found. A model that would break a limit that way
    stays as it was, and so do both then.

    Returns:
        what the chosen file was fitted to.
    """
    as_judged = data[chosen.variant]
    if as_judged.held is None or not settings.modelling.refit:
        return as_judged
    variants = sorted({trial.variant for trial in (chosen, fallback)})
    joined_of = _variants(settings, parts, True, variants)
    refitted = []
    for trial in [chosen] if chosen is fallback else [chosen, fallback]:
        assert trial.head is not None
        joined = joined_of[trial.variant]
        fitted = fit_model(trial.method, joined.fit, trial.size, settings, joined.newest)
        fresh = replace(trial, head=replace(trial.head, target=fitted.target))
        _export(fresh, fitted, joined)
        assert fresh.file is not None
        size = len(fresh.file) / 1024**2
        if (fresh.parity or 0) > settings.modelling.parity or size > settings.modelling.max_size_mb:
            return as_judged
        refitted.append((trial, fresh))
    for trial, fresh in refitted:
        trial.file, trial.parity, trial.head = fresh.file, fresh.parity, fresh.head
        size_kb = round(len(fresh.file or b"") / 1024, 1)
        trial.row |= {"parity": fresh.parity, "size_kb": size_kb, "refit": True}
    return joined_of[chosen.variant]


def _measure(trials: list[Trial], data: Prepared, settings: Settings) -> None:
    """Fill in the table: every figure on the validation rows, all from the same resamples."""
    _measure_each(trials, data, settings)
    goals = settings.goals
    best = _best([trial for trial in trials if trial.kind == "baseline"], goals.metric)
    plain = {trial.name: trial for trial in trials if not trial.variant}
    for trial in trials:
        trial.row["gain_over_baseline"] = lead_over(trial, best, settings)
        if trial.variant:
            trial.row["gain_over_plain"] = lead_over(trial, plain[trial.method], settings)
        if trial.labelled_rows is not None:
            trial.row["labelled_rows"] = trial.labelled_rows


def _measure_each(trials: list[Trial], data: Prepared, settings: Settings) -> None:
    """Each model's figures, without what it gains over others."""
    goals, seed, y = settings.goals, settings.project.seed, data.judged
    rows = sample_rows(len(y), MAX_ROWS, seed, unit(y))
    alike, row_weight = data.representatives, data.weight
    sampled_weight = None if row_weight is None else row_weight[rows]
    weights = resample(len(rows), goals.interval.resamples, seed, unit(y[rows]), sampled_weight)
    for trial in trials:
        speed = {} if trial.file is None else _speed(trial.file, data, settings)
        trial.decision = fit_decision(y[alike], trial.score[alike], goals.costs, goals.decision)
        decided = decide(trial.score, trial.decision)
        trial.draws = measure(goals.metric, y[rows], trial.score[rows], decided[rows], weights)
        low, high = interval(trial.draws, goals.interval.level)
        trial.row = {
            "name": trial.name,
            "kind": trial.kind,
            "metric_name": goals.metric,
            "metric": measure(goals.metric, y, trial.score, decided, row_weight),
            "low": low,
            "high": high,
            "value": float(np.average(value(y, decided, goals.costs), weights=row_weight)),
            "decision": trial.decision,
            "fit_seconds": round(trial.seconds, 3),
            "latency_p50_ms": speed.get("p50_ms"),
            "latency_p99_ms": speed.get("p99_ms"),
            "size_kb": None if trial.file is None else round(len(trial.file) / 1024, 1),
            "parity": trial.parity,
            "fitted": _size_text(trial),
            "chosen": False,
        }


def held_apart(settings: Settings, parts: dict[str, Part], variant: str = "") -> Prepared:
    """The training rows as models are fitted to them, judged by the validation rows, however few these are."""
    return _variants(settings, parts, False, ["", variant])[variant]


def choice(settings: Settings, parts: dict[str, Part], pool: Executor) -> Trial:
    """What `train` would choose."""
    _, _, chosen, _ = _compare(settings, parts, pool, lambda **_: None)
    return chosen


def stretches(parts: dict[str, Part], settings: Settings) -> Iterator[dict[str, Part]]:
    """The parts as they are, then `PAST` times the training rows alone, cut as these are cut from the validation rows.

    Where the split is not by time these are draws, and no past. One that lacks a class ends this. Rows with labels that
    stand behind the parts are left out, since they may be later.
    """
    behind = {name: part for name, part in parts.items() if name == "unlabelled"}
    yield parts
    for _ in range(PAST):
        train, valid = parts["train"], parts["valid"]
        share = len(valid.label) / (len(train.label) + len(valid.label))
        sides = train.keys.held_out(share, settings.project.seed)
        fit, held = (train.take(rows) for rows in sides)
        classes = len(np.unique(train.keys.label)) if problem.CLASSES else 2
        if min(len(np.unique(part.keys.label)) for part in (fit, held)) < classes:
            return
        parts = {"train": fit, "valid": held, "test": valid, **behind}
        yield parts


def fitted_again(trial: Trial, parts: dict[str, Part], settings: Settings) -> Trial:
    """The same candidate or baseline on other parts, its size found anew."""
    data = held_apart(settings, parts, trial.variant)
    return trial_apart(trial.method, data, settings, trial.variant)


def trial_apart(name: str, data: Prepared, settings: Settings, variant: str = "") -> Trial:
    """A model fitted, calibrated and exported as `train` does, with the decision and the figures of the rows that judge.

    Args:
        data: as `held_apart` gives it, of the variant.
    """
    size = None
    if kind := models.SIZED.get(name):
        size = find_sizes([name], data.fit, settings, use_folds=False)[kind]
        if kind == "boosted" and settings.data.split.by == "time":
            size = _best_size(size, data, settings)
    trial = _run_trial(name, variant, data, size, settings)
    _measure_each([trial], data, settings)
    return trial


def lead_over(trial: Trial, rival: Trial, settings: Settings) -> Lead:
    """By how much a model is better than another on the same rows and resamples."""
    metric = settings.goals.metric
    margin = gain_interval(metric, trial.draws, rival.draws, settings.goals.interval)
    lead = float(gained(metric, trial.row["metric"], rival.row["metric"]))
    return Lead(baseline=rival.name, value=lead, low=margin["low"], high=margin["high"])


def _gain_words(rows: Sequence[CandidateRow]) -> str:
    """What comes of the variants of the training rows, in words: those that help beyond noise, or that none does."""
    leads = {row["name"]: row["gain_over_plain"] for row in rows if "gain_over_plain" in row}
    if not leads:
        return "no other rows, weights or losses tried"
    names = sorted(leads, key=lambda name: leads[name]["value"], reverse=True)
    clear = [name for name in names if leads[name]["low"] > 0]
    listed = ", ".join(
        f"{n} {leads[n]['value']:+.3g} ({leads[n]['low']:+.2g} to {leads[n]['high']:+.2g})"
        for n in clear or names[:1]
    )
    if not clear:
        return f"none of {len(leads)} variants helps beyond noise; the best is {listed}"
    return f"{len(clear)} of {len(leads)} variants help beyond noise: {listed}"


def _size_text(trial: Trial) -> str | None:
    """The size that was found for a candidate, for a reader: trees, leaves, scale of the label."""
    if trial.size is None:
        return None
    trees = f"{trial.size.trees} trees of {trial.size.leaves} leaves"
    has_trees = models.SIZED[trial.method] in ("boosted", "additive") and trial.method != "forest"
    parts = [trees] if has_trees else []
    return ", ".join(parts + (["log scale"] if trial.size.shift is not None else [])) or None


def _speed(file: bytes, data: Prepared, settings: Settings) -> dict[str, float]:
    """A model's latency in milliseconds, measured twice before the model counts as too slow."""
    limit, speed = settings.goals.targets.latency_p99_ms, latency(file, data.rows["fit"])
    if limit is not None and speed["p99_ms"] > limit:
        return min(speed, latency(file, data.rows["fit"]), key=lambda times: times["p99_ms"])
    return speed


def _best(trials: list[Trial], metric: str) -> Trial:
    return max(trials, key=lambda trial: gained(metric, trial.row["metric"], 0.0))


def _choose(trials: list[Trial], settings: Settings, by_metric: bool = True) -> tuple[Trial, Trial]:
    """The model that ships and the best baseline that can serve; writes every verdict.

    Args:
        by_metric: whether the best candidate ships; else the first, in the order of the settings.
    """
    metric = settings.goals.metric
    reasons = {trial.name: _reasons_against(trial, settings) for trial in trials}
    servable = [trial for trial in trials if trial.kind == "baseline" and trial.file is not None]
    fallback = _best([trial for trial in servable if not reasons[trial.name]] or servable, metric)
    qualified = [trial for trial in trials if trial.kind == "candidate" and not reasons[trial.name]]
    chosen = fallback
    if qualified:
        chosen = _best(qualified, metric) if by_metric else qualified[0]
    for trial in trials:
        if trial is chosen:
            verdict = "chosen" if qualified else "ships, because no candidate qualifies"
        elif reasons[trial.name]:
            verdict = reasons[trial.name]
        elif trial.kind == "baseline":
            verdict = "baseline, kept as the fallback" if trial is fallback else "baseline"
        elif not by_metric:
            verdict = f"{chosen.name} stands before it, and these rows tell no better"
        else:
            behind = gained(metric, chosen.row["metric"], trial.row["metric"])
            verdict = f"{behind:.4g} behind {chosen.name}"
        trial.row |= {"chosen": trial is chosen, "verdict": verdict}
    return chosen, fallback


def _reasons_against(trial: Trial, settings: Settings) -> str:
    """Why a model cannot be chosen, in words; empty when it can be."""
    limits, row = settings.modelling, trial.row
    slowest = settings.goals.targets.latency_p99_ms
    reasons = []
    if trial.file is not None:
        if row["parity"] > limits.parity:
            reasons.append(f"export differs by {row['parity']:.2g} > {limits.parity:g}")
        if slowest is not None and row["latency_p99_ms"] > slowest:
            reasons.append(f"latency {row['latency_p99_ms']:.3g} ms > {slowest:g} ms")
        if row["size_kb"] > 1024 * limits.max_size_mb:
            reasons.append(f"size {row['size_kb'] / 1024:.3g} MB > {limits.max_size_mb:g} MB")
        if trial.seconds > limits.max_fit_seconds:
            reasons.append(f"fit {trial.seconds:.3g} s > {limits.max_fit_seconds:g} s")
    if trial.kind == "candidate":
        if limits.interpretable and trial.method not in models.INTERPRETABLE:
            reasons.append("not interpretable")
        if row["gain_over_baseline"]["value"] <= 0:
            reasons.append("no better than the baseline")
        elif trial.variant and row["gain_over_plain"]["low"] <= 0:
            reasons.append(f"no better than {trial.method} beyond noise")
    return "; ".join(reasons)


def _reasons(settings: Settings, shipped: Prepared, chosen: Trial) -> bytes | None:
    """What the file that explains answers holds; None without the part analysis, and where no answer is explained."""
    attribution = optional_module("analysis.attribution")
    if attribution is None or "reasons" in problem.LEFT_OUT:
        return None
    assert chosen.file is not None
    assert chosen.head is not None
    rows, target = shipped.rows["fit"], chosen.head.target
    made: bytes = attribution.reasons_file(
        chosen.file, rows, shipped.columns, target, settings.project.seed
    )
    return made


def _write_models(
    root: Path,
    chosen: Trial,
    fallback: Trial,
    report: Candidates,
    manifest: dict[str, Any],
    reasons: bytes | None,
) -> None:
    """Write all files under other names first, then rename them, the manifest last."""
    assert chosen.file is not None
    assert fallback.file is not None
    (root / MODEL).parent.mkdir(parents=True, exist_ok=True)
    (root / CANDIDATES).parent.mkdir(parents=True, exist_ok=True)
    files = [str(root / SPLITS[part]) for part in ("train", "valid")]
    files += _files_behind(root, chosen)
    keys = duckdb.read_parquet(files).select("_row_key").distinct().order("_row_key")
    keys.write_parquet(str(root / f"{FITTED}.new"))
    contents = {
        MODEL: chosen.file,
        BASELINE: fallback.file,
        **({} if reasons is None else {REASONS: reasons}),
        CANDIDATES: _json(report),
        MANIFEST: _json(manifest),
    }
    for path, content in contents.items():
        (root / f"{path}.new").write_bytes(content)
    for path in (FITTED, *contents):
        os.replace(root / f"{path}.new", root / path)


def _files_behind(root: Path, chosen: Trial) -> list[str]:
    """The files of rows that stood behind the parts when a model was fitted."""
    is_taught = chosen.variant in ("self_training", "given_model")
    names = [name for name in BEHIND if name != "unlabelled" or is_taught]
    return [str(path) for name in names if (path := root / BEHIND[name][0]).is_file()]


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _manifest(
    settings: Settings,
    root: Path,
    data: Prepared,
    compared: Prepared,
    chosen: Trial,
    fallback: Trial,
) -> dict[str, Any]:
    """What the model is, for whoever loads it. Equal runs give equal manifests.

    Args:
        data: what ships was fitted to; compared: what models were compared on.
    """
    alike = compared.representatives
    judged = compared.judged[alike]
    dump = settings.model_dump_json(by_alias=True).encode()
    times, level = settings.data.schema_.time, settings.goals.interval.level
    row: dict[str, Any] = {**chosen.row}
    fitted_parts = ["train", "valid"] if data.held is None else ["train"]
    files = [root / SPLITS[part] for part in fitted_parts]
    figures = ("metric_name", "metric", "low", "high", "value", "gain_over_baseline")
    return {
        "problem": settings.project.problem,
        "sha256": _sha256(chosen.file),
        "chosen": chosen.name,
        "decision": chosen.decision,
        "named_labels": problem_data.named(settings.data.label),
        "calibration": settings.modelling.calibration,
        "inputs": [_input(name, data, settings, files) for name in data.columns],
        "output": models.OUTPUT,
        "baseline": {
            "name": fallback.name,
            "decision": fallback.decision,
            "sha256": _sha256(fallback.file),
            "interval": models.around(judged, fallback.score[alike], level),
        },
        "interval": models.around(judged, chosen.score[alike], level),
        "validation": {name: row[name] for name in figures},
        "size": chosen.size and {n: getattr(chosen.size, n) for n in ("leaves", "depth", "trees")},
        "trained_rows": len(data.rows["fit"]),
        "trained_until": _latest_time(data.fit.keys.time) if times else None,
        "data_version": _sha256(
            *(root / path for path in SPLITS.values()), *map(Path, _files_behind(root, chosen))
        ),
        "code_version": _sha256(*sorted(Path(__file__).parents[1].rglob("*.py"))),
        "settings_hash": _sha256(dump),
        "versions": {name: version(name) for name in LIBRARIES},
        **models.described(
            chosen.decision, _label_values(root / LABEL_REPORT), settings, data.rows["fit"]
        ),
    }


def _label_values(path: Path) -> list[str]:
    """The values that the label had; none where there were too many, or nobody counted."""
    return list(json.loads(path.read_bytes()).get("values", [])) if path.is_file() else []


def _sha256(*parts: bytes | Path | None) -> str:
    """The SHA-256 of bytes and of files, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
        elif part is not None:
            digest.update(part)
    return digest.hexdigest()


def _latest_time(seconds: Array | None) -> str | None:
    finite = seconds[np.isfinite(seconds)] if seconds is not None else np.empty(0)
    return pd.Timestamp(finite.max(), unit="s").isoformat() if len(finite) else None


def _input(name: str, data: Prepared, settings: Settings, files: Sequence[Path]) -> dict[str, Any]:
    """A raw column: its type, whose it is, and what training saw of it; `files`: of the rows that were fitted to."""
    kind, values = data.columns[name], data.rows["fit"][name]
    features = selected(settings).items()
    families = {feature.family for key, feature in features if name in sources(key, feature)}
    namesake = selected(settings).get(name)
    entry: dict[str, Any] = {
        "name": name,
        "type": kind,
        "family": namesake.family if namesake else sorted(families or {"context"})[0],
    }
    if name in settings.features.delete_rows:
        entry["gaps"] = "deleted"
    if formats := settings.data.schema_.columns[name].formats:
        entry["formats"] = list(formats)  # how files and requests write the time
    if kind in SUMMED or kind == "history":
        return entry | {"missing": float((values == "").mean())}
    if kind == "category":
        categories = sorted(set(values.unique()) - {""})
        entry["missing"] = float((values == "").mean())
        entry["categories"] = categories if len(categories) <= MAX_CATEGORIES else None
        return entry
    finite = values[np.isfinite(values)].to_numpy(np.float64)
    entry["missing"] = float(values.isna().mean())
    if len(finite) and (bounds := ends(files, name, kind)):
        # A 32-bit end may leave its own value out
        entry |= {"min": bounds[0], "max": bounds[1], "median": float(np.median(finite))}
    return entry


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = TextColumn("train: {task.description:<10}"), BarColumn(), MofNCompleteColumn()
    hidden = not console.is_terminal
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=hidden)
