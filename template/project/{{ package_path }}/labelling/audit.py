"""Which labels are probably wrong: confident learning on scores of models that have not seen the row.

It lists what is hard too, so it orders a person's work and changes nothing.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd

from .. import problem
from ..data.label import is_labelled
from ..features.catalogue import inputs, load
from ..modelling.boosting import Size
from ..modelling.fitting import fit_features, fit_model
from ..modelling.folds import RowKeys
from ..modelling.train import read_label
from ..paths import LABEL_AUDIT, LABELLED
from ..settings import Settings, UserError, require_file
from .aggregation import labels as voted_labels
from .rows import id_column, read_labels
from .votes import current

# Small trees: larger ones learn single labels by heart, and are sure of what is wrong
LIGHT = Size(7, -1, 100, 0.0)
FEWEST_ROWS = 50  # below which no model tells a mistake from chance
FAR = 3.0  # times the usual error of a number, from which on it is listed
COLUMNS = ("rank", "id", "label", "suggested", "label_score", "suggested_score", "votes")

Array = np.ndarray


class Audit(NamedTuple):
    """How many labels were looked at, and how many are listed."""

    rows: int
    listed: int


class Doubt(NamedTuple):
    """Doubtful rows, the likeliest mistake first: positions, what they might be instead, and what a model makes of the
    label and of that, each of shape (doubtful rows,)."""

    rows: Array
    suggested: Array
    label_score: Array
    suggested_score: Array


def confident_learning(y: Array, chances: Array) -> Doubt:
    """Rows that a model takes for another class with as much confidence as that class usually gets (Northcutt, Jiang
    and Chuang, 2021, off-diagonals of the confident joint), ranked by the normalised margin.

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
    order = np.argsort(label_score - suggested_score, kind="stable")
    rows = doubtful[order]
    return Doubt(rows, suggested[rows], label_score[order], suggested_score[order])


def far_numbers(y: Array, predicted: Array) -> Doubt:
    """Rows whose number lies more than FAR times the usual error from what a model expects, the farthest first.

    Args:
        y, predicted: shape (n,); the usual error is 1.4826 times the median absolute one, a normal one's spread.
    """
    errors = np.abs(y - predicted)
    usual = 1.4826 * float(np.median(errors))
    doubtful = np.flatnonzero(errors > FAR * usual)
    rows = doubtful[np.argsort(-errors[doubtful], kind="stable")]
    return Doubt(rows, predicted[rows], y[rows], predicted[rows])


def out_of_fold(rows: pd.DataFrame, y: Array, keys: RowKeys, settings: Settings) -> Array:
    """What light boosted trees say of each row when neither they nor the features have seen it, shape (n,) or
    (n, classes)."""
    scores: Array | None = None
    for fit, held in keys.folds(settings.modelling.few_rows.folds, settings.project.seed):
        preparation, table = fit_features(rows.iloc[fit], y[fit], keys.take(fit), settings)
        fitted = fit_model("lightgbm", table, LIGHT, settings)
        raw = fitted.raw(preparation.transform(rows.iloc[held]))
        values = raw if problem.CLASSES else fitted.target.back(raw)
        if scores is None:
            scores = np.zeros((len(y), *values.shape[1:]))
        scores[held] = values
    assert scores is not None
    return scores


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
    scores = out_of_fold(rows, y, keys, settings)
    if problem.CLASSES:
        chances = scores if scores.ndim == 2 else np.stack([1 - scores, scores], axis=1)
        doubt = confident_learning(y.astype(np.int64), chances)
    else:
        doubt = far_numbers(y, scores)
    id_ = f'CAST("{id_column(settings)}" AS VARCHAR)'
    ids = duckdb.execute(f"SELECT {id_} AS id FROM read_parquet('{path.as_posix()}')").df()["id"]
    _write(settings, root, ids.to_numpy(object)[labelled], y, doubt)
    return Audit(len(y), len(doubt.rows))


def _write(settings: Settings, root: Path, ids: Array, y: Array, doubt: Doubt) -> None:
    texts = _label_texts(settings, root)
    spelt = [texts.get(id_) for id_ in ids]
    by_code: dict[Any, Any] = {}
    if problem.CLASSES:  # each code as people write it
        for code in np.unique(y):
            same = pd.Series([text for text, c in zip(spelt, y, strict=True) if c == code and text])
            by_code[int(code)] = same.mode()[0] if len(same) else str(int(code))
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
