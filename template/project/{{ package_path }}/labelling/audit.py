"""Which labels are probably wrong: what models that have not seen the row take for improbable.

It tells first how many mistakes made on purpose it finds, and lists nothing where these are hardly more than by chance. It lists what is hard too, so it orders a person's work and changes nothing.
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd

from .. import problem
from ..data.label import is_labelled
from ..features.catalogue import inputs, load
from ..modelling.boosting import Size, lightgbm_params
from ..modelling.fitting import fit_features
from ..modelling.folds import RowKeys
from ..modelling.train import learnable, read_label
from ..paths import LABEL_AUDIT, LABELLED, OUT_OF_FOLD
from ..settings import Settings, UserError, require_file
from .aggregation import labels as voted_labels
from .rows import id_column, read_labels
from .selection import read_inputs
from .votes import current

# Small trees: larger ones learn single labels by heart, and are sure of what is wrong
LIGHT = Size(7, -1, 100, 0.0)
FEWEST_ROWS = 50  # below which no model tells a mistake from chance
TENTHS = 10  # parts that all numbers are cut into, so that a model can say how probable each is
DOUBTFUL = 5.5  # from which on a number is listed: a spread away, its part 2 % probable
PLANTED = 0.05  # share of the labels that are swapped on purpose
FEWEST_PLANTED, FIRST = 20, 100  # of these; and the first rows among which they are sought
USELESS = 0.25  # share of these among the first, below which a list is as good as chance
COLUMNS = ("rank", "id", "label", "suggested", "label_score", "suggested_score", "votes")

Array = np.ndarray


class Audit(NamedTuple):
    """How many labels were looked at, how many are listed, and how many of a hundred labels that were swapped on purpose
    would stand among the first as many of the list, as a share; None of too few rows."""

    rows: int
    listed: int
    precision: float | None


class Doubt(NamedTuple):
    """Doubtful rows, the likeliest mistake first: positions, what they might be instead, and what a model makes of the
    label and of that, each of shape (doubtful rows,)."""

    rows: Array
    suggested: Array
    label_score: Array
    suggested_score: Array


def confident_learning(y: Array, chances: Array) -> Doubt:
    """Rows that a model takes for another class with as much confidence as that class usually gets (Northcutt, Jiang
    and Chuang, 2021, off-diagonals of the confident joint), those first whose label it takes for the least probable.

    Args:
        y: codes of classes, shape (n,); chances: out of fold, shape (n, classes).
    """
    n, k = chances.shape
    means = [chances[y == j, j].mean() if (y == j).any() else np.inf for j in range(k)]
    confident = np.where(chances >= np.array(means), chances, -1.0)
    suggested = confident.argmax(axis=1)
    doubtful = np.flatnonzero((confident.max(axis=1) >= 0) & (suggested != y))
    label_score = chances[np.arange(n), y][doubtful]
    suggested_score = chances[np.arange(n), suggested][doubtful]
    # Its own chance alone: the margin puts first what one other class explains, not what is wrong
    order = np.argsort(label_score, kind="stable")
    rows = doubtful[order]
    return Doubt(rows, suggested[rows], label_score[order], suggested_score[order])


def unlikely_numbers(y: Array, part: Array, chances: Array) -> Doubt:
    """Rows whose number stands in a part of all numbers that a model takes for improbable, or is many spreads away.

    The doubt is -log(chance of the part) + 2 log(1 + |distance| / spread): the first tells a number that was
    swapped with another's, the second one that was mistyped, out of all proportion.

    Args:
        y: shape (n,); part: the tenth of all labels that each is in, shape (n,); chances: of these, out of fold,
            shape (n, parts).
    """
    middles = np.array([np.median(y[part == j]) for j in range(chances.shape[1])])
    expected = chances @ middles
    spread = np.sqrt(np.maximum(chances @ middles**2 - expected**2, 0))
    distance = np.abs(y - expected) / np.maximum(spread, max(np.quantile(spread, 0.05), 1e-12))
    label_score = chances[np.arange(len(y)), part]
    doubt = -np.log(label_score + 1e-6) + 2 * np.log1p(distance)
    doubtful = np.flatnonzero(doubt > DOUBTFUL)
    rows = doubtful[np.argsort(-doubt[doubtful], kind="stable")]
    return Doubt(rows, expected[rows], label_score[rows], chances[rows].max(axis=1))


def find(y: Array, part: Array, chances: Array) -> Doubt:
    """The doubtful rows of classes, or of numbers."""
    return (
        confident_learning(part, chances) if problem.CLASSES else unlikely_numbers(y, part, chances)
    )


def parts(y: Array) -> Array:
    """What a label is told by, shape (n,): its class, or the tenth of all numbers that it is in."""
    if problem.CLASSES:
        return y.astype(np.int64)
    cuts = np.digitize(y, np.quantile(y, np.arange(1, TENTHS) / TENTHS))
    return np.unique(cuts, return_inverse=True)[1].astype(np.int64)  # no gaps where many are equal


def out_of_fold(
    rows: pd.DataFrame,
    y: Array,
    keys: RowKeys,
    settings: Settings,
    extra: pd.DataFrame | None = None,
) -> tuple[Array, Array]:
    """How probable small boosted trees take each part of `parts` to be, where neither they nor the features have seen the
    row, shape (n, parts); and of extra rows the mean of all, shape (extra rows, parts)."""
    from lightgbm import LGBMClassifier

    options = lightgbm_params(settings.modelling, LIGHT, settings.project.seed)
    part = parts(y)
    chances = np.zeros((len(y), int(part.max()) + 1))
    folds = keys.folds(settings.modelling.few_rows.folds, settings.project.seed)
    extra_chances = np.zeros((0 if extra is None else len(extra), chances.shape[1]))
    to_fit = learnable(rows, settings)
    for fit, held in ((fit[to_fit[fit]], held) for fit, held in folds):
        preparation, table = fit_features(rows.iloc[fit], y[fit], keys.take(fit), settings)
        model = LGBMClassifier(**options).fit(table.matrix, part[fit])
        columns = model.classes_.astype(np.int64)
        chances[np.ix_(held, columns)] = model.predict_proba(preparation.transform(rows.iloc[held]))
        if extra is not None and len(extra):
            means = np.asarray(model.predict_proba(preparation.transform(extra))) / len(folds)
            extra_chances[:, columns] += means
    return chances, extra_chances


def self_test(rows: pd.DataFrame, y: Array, keys: RowKeys, settings: Settings) -> float | None:
    """Of labels that are swapped on purpose, which share stands among the first hundred of the list; None of too few rows.

    One in PLANTED of the labels gets that of another row, of classes another class. What is wrong already stands
    among the first too, so the share is rather too low.
    """
    rng = np.random.default_rng(settings.project.seed)
    picked = rng.permutation(len(y))[: round(PLANTED * len(y))]
    if len(picked) < FEWEST_PLANTED:
        return None
    planted = y.copy()
    planted[picked] = rng.permutation(y[picked])
    if problem.CLASSES:
        classes = np.unique(y)
        positions = np.searchsorted(classes, y[picked])
        turn = rng.integers(1, max(2, len(classes)), len(picked))
        planted[picked] = classes[(positions + turn) % len(classes)]
    chances, _ = out_of_fold(rows, planted, replace(keys, label=planted), settings)
    first = find(planted, parts(planted), chances).rows[: min(FIRST, len(picked))]
    return float(np.isin(first, picked[planted[picked] != y[picked]]).mean()) if len(first) else 0.0


def audit(settings: Settings, root: Path) -> Audit:
    """Write reports/label_audit.csv: the rows whose label is probably wrong, ranked; what they are labelled stays.

    Raises:
        UserError: when the stage `label` has not run, or too few rows have a label.
    """
    path = require_file(root / LABELLED)
    y, keys = read_label(path, settings)
    labelled = np.flatnonzero(is_labelled(y))
    if len(labelled) < FEWEST_ROWS:
        raise UserError(
            f"label audit: {len(labelled)} labels are too few to doubt one; {FEWEST_ROWS} are needed"
        )
    rows = load(path, inputs(settings)).iloc[labelled].reset_index(drop=True)
    y, keys = y[labelled], keys.take(labelled)
    id_ = f'CAST("{id_column(settings)}" AS VARCHAR)'
    row_ids = duckdb.execute(f"SELECT {id_} AS id FROM read_parquet('{path.as_posix()}')").df()[
        "id"
    ]
    ids = row_ids.to_numpy(object)[labelled]
    voted = {vote.id for vote in current(root) if vote.label is not None}
    unsettled = (
        sorted(voted - {*ids}) if problem.CLASSES else []
    )  # no label: no model has seen them
    extra = read_inputs(settings, root, unsettled) if unsettled else None
    chances, extra_chances = out_of_fold(rows, y, keys, settings, extra)
    texts = _label_texts(settings, root)
    spelt = [texts.get(id_) for id_ in ids]
    by_code = _spellings(y, spelt) if problem.CLASSES else {}
    if problem.CLASSES and voted:
        scores = dict(zip(ids, chances, strict=True))
        if extra is not None:
            scores |= dict(zip(extra.index, extra_chances, strict=True))
        _write_scores(root, {i: scores[i] for i in sorted(voted) if i in scores}, by_code)
    precision = self_test(rows, y, keys, settings)
    if precision is not None and precision < USELESS:
        (root / LABEL_AUDIT).unlink(missing_ok=True)
        return Audit(len(y), 0, precision)
    doubt = find(y, parts(y), chances)
    _write(root, ids, spelt, by_code, doubt)
    return Audit(len(y), len(doubt.rows), precision)


def _spellings(y: Array, spelt: list[Any]) -> dict[int, str]:
    """Each code of a class as people write it."""
    by_code = {}
    for code in np.unique(y):
        same = pd.Series([text for text, c in zip(spelt, y, strict=True) if c == code and text])
        by_code[int(code)] = str(same.mode()[0]) if len(same) else str(int(code))
    return by_code


def _write_scores(root: Path, scores: dict[str, Array], by_code: dict[int, str]) -> None:
    """labels/out_of_fold.jsonl: what `labelling.aggregation: model` joins votes with."""
    lines = []
    for id_, row in scores.items():
        shares = {label: round(float(row[code]), 4) for code, label in by_code.items()}
        lines.append(json.dumps({"id": id_, "scores": shares}, ensure_ascii=False))
    path = root / OUT_OF_FOLD
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    os.replace(fresh, path)


def _write(root: Path, ids: Array, spelt: list[Any], by_code: dict[int, str], doubt: Doubt) -> None:
    votes = pd.Series([vote.id for vote in current(root)], dtype=object).value_counts()
    path = root / LABEL_AUDIT
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for rank, (row, code, *figures) in enumerate(zip(*doubt, strict=True), 1):
            suggestion = by_code[int(code)] if problem.CLASSES else f"{code:.6g}"
            count = int(votes.get(ids[row], 0))
            table.writerow(
                [rank, ids[row], spelt[row], suggestion, *(f"{f:.6g}" for f in figures), count]
            )
    os.replace(fresh, path)


def _label_texts(settings: Settings, root: Path) -> dict[str, Any]:
    """The label of each row as it is written, by id: of people where they voted, else the row's own."""
    texts = read_labels(settings, root).set_index("_id")["_label"].to_dict()
    if voted := voted_labels(settings, root):
        texts |= dict(zip(voted.rows["id"], voted.rows["label"], strict=True))
    return texts
