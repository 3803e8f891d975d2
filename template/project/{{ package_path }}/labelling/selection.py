"""What the model doubts, narrowed to rows unlike each other: the most uncertain alone are often one case many times over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import problem
from ..data.label import known_from, truth
from ..data.point_in_time import join_histories
from ..data.schema import name, text
from ..data.source import database
from ..features.catalogue import inputs, load
from ..modelling.fitting import fit_features
from ..modelling.scorer import load_scorer
from ..modelling.train import read_label
from ..paths import MANIFEST, MODEL, SCRATCH, SPLITS
from ..settings import Settings, read_json
from .rows import id_column, source

NARROWED = 10  # times the rows that are picked: so many of the most uncertain are spread out

Array = np.ndarray


def pick(settings: Settings, root: Path, pool: list[str], count: int) -> dict[str, Any]:
    """The rows that the model is least sure of, spread out by their features.

    Of a number nothing says how sure a score is: its rows are spread out alone.

    Args:
        pool: ids of rows without a label.

    Returns:
        the score of each picked row, by its id.
    """
    rows = read_inputs(settings, root, pool)
    scores = load_scorer(root / MODEL).score(rows)
    decision = read_json(root / MANIFEST).get("decision") if problem.UNLABELLED is not None else 0.5
    train = root / SPLITS["train"]
    preparation, _ = fit_features(
        load(train, inputs(settings)), *read_label(train, settings), settings
    )

    def features(chosen: Array) -> Array:
        matrix = preparation.transform(rows.iloc[chosen])
        return np.nan_to_num(np.asarray(matrix, dtype=np.float64))

    chosen = pick_rows(scores, float(decision or 0.0), features, count)
    return {str(rows.index[i]): np.round(scores[i], 6).tolist() for i in chosen}


def pick_rows(
    scores: Array, decision: float, features: Callable[[Array], Array], count: int
) -> Array:
    """Positions of at most `count` rows: of NARROWED times as many that the model is least sure of, those unlike each other.

    Args:
        scores: shape (n,), or (n, classes); decision: the score at which a yes turns.
        features: the matrix of some rows, by their positions, shape (rows, width).
    """
    doubt = uncertainty(scores, decision)
    likely = np.argsort(-doubt, kind="stable")[: NARROWED * count]
    return np.asarray(likely[spread_out(features(likely), count)])


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
    """How unsure the model is of each row, shape (n,): of classes what the likeliest lacks, of a yes how near its score is
    to where it turns, of a number nothing.

    Args:
        scores: shape (n,), or (n, classes).
    """
    if scores.ndim == 2:
        return np.asarray(1 - scores.max(axis=1))
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
