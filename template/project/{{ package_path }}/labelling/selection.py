"""What more labels would settle, narrowed to rows unlike each other: the first alone are often one case many times over.

Members of a committee learn from different draws of the labelled rows (query by bagging; Abe and Mamitsuka, 1998). Where
they disagree, a label teaches; where all of them are equally unsure, the row itself is a matter of chance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import entr

from .. import problem
from ..data.label import known_from, truth
from ..data.point_in_time import join_histories
from ..data.schema import name, text
from ..data.source import database
from ..features.catalogue import inputs, load
from ..modelling.boosting import Size
from ..modelling.fitting import TrainingTable, fit_features, fit_model
from ..modelling.scorer import load_scorer
from ..modelling.train import rows_to_fit
from ..paths import MANIFEST, MODEL, SCRATCH, SPLITS
from ..problem import models
from ..settings import Settings, read_json
from .rows import id_column, source

NARROWED = 3  # times the rows that are picked: so many of the most doubtful are spread out
MEMBERS = 8
LEAVES, TREES = 7, 60  # of each member

Array = np.ndarray


def pick(settings: Settings, root: Path, pool: list[str], count: int) -> dict[str, Any]:
    """The rows that a label teaches the most of, spread out by their features.

    Args:
        pool: ids of rows without a label.

    Returns:
        the score that the model gives each picked row, by its id.
    """
    rows = read_inputs(settings, root, pool)
    scores = load_scorer(root / MODEL).score(rows)
    train = rows_to_fit(root / SPLITS["train"], settings)
    preparation, table = fit_features(*train, settings)
    matrix = np.nan_to_num(np.asarray(preparation.transform(rows)))
    if problem.LISTED or problem.UNLABELLED is not None:
        doubt = uncertainty(scores, float(read_json(root / MANIFEST).get("decision") or 0.0))
    else:
        doubt = disagreement(committee(table, matrix, settings))
    chosen = pick_rows(doubt, matrix, count)
    return {str(rows.index[i]): np.round(scores[i], 6).tolist() for i in chosen}


def pick_rows(doubt: Array, matrix: Array, count: int) -> Array:
    """Positions of at most `count` rows: of NARROWED times as many with the most doubt, those unlike each other.

    Args:
        doubt: shape (n,); matrix: the features of the rows, shape (n, width).
    """
    likely = np.argsort(-doubt, kind="stable")[: NARROWED * count]
    return np.asarray(likely[spread_out(matrix[likely].astype(np.float64), count)])


def committee(table: TrainingTable, matrix: Array, settings: Settings) -> Array:
    """What boosted trees say that learnt from different draws of the labelled rows.

    Args:
        table: the labelled rows; matrix: the features of n rows, shape (n, width).

    Returns:
        scores of shape (MEMBERS, n), or (MEMBERS, n, classes).
    """
    rng = np.random.default_rng(settings.project.seed)
    size = Size(LEAVES, -1, TREES, 0.0, objective=models.objectives(settings)[0])
    drawn = [bootstrap(models.learnt(table.label), rng) for _ in range(MEMBERS)]
    members = [fit_model("lightgbm", table.take(rows), size, settings) for rows in drawn]
    return np.array([member.raw(matrix) for member in members])


def bootstrap(y: Array, rng: np.random.Generator) -> Array:
    """Positions of n rows drawn from n with replacement, in their order; of classes as many of each as there are."""
    if not problem.CLASSES:
        return np.sort(rng.integers(len(y), size=len(y)))
    parts = [np.flatnonzero(y == value) for value in np.unique(y)]
    return np.sort(np.concatenate([rng.choice(part, len(part)) for part in parts]))


def disagreement(scores: Array) -> Array:
    """How far members disagree on each of n rows, shape (n,).

    Of classes the information that a label would give about the member (Houlsby et al., 2011): the entropy of their mean
    less the mean of their entropies, in nats. Of a number their variance.

    Args:
        scores: of shape (members, n), or (members, n, classes).
    """
    if not problem.CLASSES:
        return np.asarray(scores.var(axis=0))
    shares = scores if scores.ndim == 3 else np.stack([1 - scores, scores], axis=2)
    return np.asarray(entr(shares.mean(axis=0)).sum(axis=1) - entr(shares).sum(axis=2).mean(axis=0))


def read_inputs(settings: Settings, root: Path, ids: list[str]) -> pd.DataFrame:
    """The model's raw inputs of collected rows, with their histories, by id."""
    with database(settings, root) as sql:
        sql.execute(f"CREATE VIEW collected AS FROM {source(root)}")
        y = truth(name(settings.data.label.column), settings)
        join_histories(sql, settings, y, known_from(settings))
        sql.register("pool", pd.DataFrame({"id": pd.Series(ids, dtype=object)}))
        key = f"CAST({name(id_column(settings))} AS VARCHAR)"
        path = root / SCRATCH / "pool.parquet"
        chosen = f"SELECT {key} AS _id, * FROM events WHERE {key} IN (SELECT CAST(id AS VARCHAR) FROM pool)"
        sql.execute(f"COPY ({chosen} ORDER BY _id) TO {text(str(path))} (FORMAT parquet)")
        order = [
            id_
            for (id_,) in sql.execute(f"SELECT _id FROM read_parquet({text(str(path))})").fetchall()
        ]
        return load(path, inputs(settings)).set_axis(order)


def uncertainty(scores: Array, decision: float) -> Array:
    """How near each score is to where a yes turns, shape (n,), below 0; of what has no such score nothing.

    Args:
        scores: shape (n,).
    """
    return -np.abs(scores - decision) if problem.CLASSES else np.zeros(len(scores))


def spread_out(matrix: Array, count: int) -> Array:
    """Positions of rows unlike each other: from the first on, each is the farthest from all before it (greedy k-centre;
    Gonzalez, 1985; for labels: Sener and Savarese, 2018).

    Args:
        matrix: shape (n, width); its columns are brought to one spread.

    Returns:
        at most `count` positions.
    """
    if not len(matrix):
        return np.zeros(0, dtype=np.int64)
    spread = matrix.std(axis=0)
    x = (matrix - matrix.mean(axis=0)) / np.where(spread > 0, spread, 1)
    chosen, distance = [0], np.full(len(x), np.inf)
    while len(chosen) < min(count, len(x)):
        distance = np.minimum(distance, ((x - x[chosen[-1]]) ** 2).sum(axis=1))
        distance[chosen[-1]] = -1.0  # equal rows are taken too, but no row twice
        chosen.append(int(distance.argmax()))
    return np.array(chosen, dtype=np.int64)
