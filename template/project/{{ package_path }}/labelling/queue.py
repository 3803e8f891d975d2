"""Which rows people label next: those that need another vote, a random share to measure by, and what the model doubts.

What it doubts is narrowed to rows unlike each other: the most uncertain alone are often the same case many times over.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import blake2b
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
from ..paths import MANIFEST, MODEL, QUEUE, SCRATCH, SPLITS
from ..settings import Settings, UserError, read_json
from .aggregation import Table, aggregate
from .rows import id_column, read_labels, source
from .votes import Vote, current, gold, read_lines

RANDOM, UNCERTAIN, AGAIN, CERTAIN = "random", "uncertain", "again", "gold"  # why a row is queued
NARROWED = 10  # times the rows that are picked: so many of the most uncertain are spread out
MAX_SCORED = 20_000  # rows that the model scores, of all without a label
MAX_EXTRA = 3  # votes beyond those that a row needs, after which more hardly settle what it is

Array = np.ndarray


@dataclass(frozen=True)
class Entry:
    """A row in the queue.

    drawn: why it is there. score: what the model says of it, one for each class where it has several. votes: how many
    it had when it was queued.
    """

    id: str
    drawn: str
    score: float | list[float] | None = None
    votes: int = 0


def chance(id_: str, seed: int) -> float:
    """A row's fixed random number in [0, 1): by it the random share is drawn, so that what was queued for another
    reason before it was reached belongs to the sample as well (permanent random numbers; Ohlsson, 1995)."""
    digest = blake2b(f"{seed}:{id_}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def votes_needed(id_: str, settings: Settings) -> int:
    """How many people label a row: several for the repeated share, which its id alone decides."""
    several = chance(id_, settings.project.seed + 1) < settings.labelling.repeated
    return settings.labelling.votes if several else 1


def unsettled(votes: list[Vote], settings: Settings) -> list[str]:
    """The rows that need another vote, the nearest to done first: too few votes, or no agreement."""
    agreed = aggregate(Table.of(votes, settings), settings)["label"].to_dict()
    missing = {}
    for id_, count in Counter(vote.id for vote in votes).items():
        needed = votes_needed(id_, settings)
        disputed = id_ in agreed and agreed[id_] is None and count < needed + MAX_EXTRA
        if count < needed or disputed:
            missing[id_] = max(1, needed - count)
    return sorted(missing, key=lambda id_: (missing[id_], id_))


def read_queue(root: Path) -> list[Entry]:
    """The queue as `label next` left it, in its order.

    Raises:
        UserError: where there is none, or a line is no entry.
    """
    entries = []
    for number, content in read_lines(root / QUEUE):
        try:
            entries.append(Entry(**content))
        except TypeError:
            raise UserError(
                f"{QUEUE}:{number}: not an entry; `label next N` writes it anew"
            ) from None
    if not entries:
        raise UserError(f"{QUEUE}: is empty or not here; `label next N` fills it")
    return entries


def fill_queue(settings: Settings, root: Path, count: int) -> list[Entry]:
    """Write labels/queue.jsonl: at most `count` rows; what stood there before and was not answered may come again.

    First rows that need another vote. Of the others a random share, and the rows that the model is least sure of, spread
    out; without a model all at random. Rows whose label is certain are mixed in.

    Raises:
        UserError: when `collect` has not run, no row is left, or a line is no vote.
    """
    labelling, seed = settings.labelling, settings.project.seed
    rows, votes, certain = read_labels(settings, root), current(root), gold(settings, root)
    again = unsettled(votes, settings)
    answered = {vote.id for vote in votes}
    fresh = rows.loc[rows["_label"].isna(), "_id"].tolist()
    fresh = [id_ for id_ in fresh if id_ not in answered and id_ not in certain]
    if not again and not fresh:
        raise UserError("label next: every row has a label; `label quality` says how good they are")
    rng = np.random.default_rng([seed, len(votes)])
    checks = _draw(
        rng,
        [*certain] or rows["_id"][rows["_label"].notna()].tolist(),
        round(labelling.gold * count),
    )
    again = again[: count - len(checks)]
    left = min(count - len(checks) - len(again), len(fresh))
    is_trained = (root / MODEL).is_file() and (root / SPLITS["train"]).is_file()
    share = labelling.random if is_trained else 1.0
    by_chance = sorted(fresh, key=lambda id_: chance(id_, seed))
    at_random = by_chance[: round(share * left)]
    picked: dict[str, Any] = {}
    if left > len(at_random):
        pool = _draw(rng, by_chance[len(at_random) :], MAX_SCORED)
        picked = pick(settings, root, pool, left - len(at_random))
    entries = [
        *(Entry(id_, RANDOM) for id_ in at_random),
        *(Entry(id_, UNCERTAIN, score) for id_, score in picked.items()),
        *(Entry(id_, CERTAIN) for id_ in checks),
    ]
    mixed = [
        entries[i] for i in rng.permutation(len(entries))
    ]  # nobody can tell why a row is there
    counts = Counter(vote.id for vote in votes)
    queue = [*(Entry(id_, AGAIN, votes=counts[id_]) for id_ in again), *mixed]
    _write(root, queue)
    return queue


def _draw(rng: np.random.Generator, ids: list[str], count: int) -> list[str]:
    chosen = rng.choice(len(ids), min(count, len(ids)), replace=False) if ids else []
    return [ids[i] for i in chosen]


def _write(root: Path, entries: Iterable[Entry]) -> None:
    path = root / QUEUE
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    lines = "".join(f"{json.dumps(asdict(entry), ensure_ascii=False)}\n" for entry in entries)
    fresh.write_text(lines, encoding="utf-8", newline="\n")
    os.replace(fresh, path)


def pick(settings: Settings, root: Path, pool: list[str], count: int) -> dict[str, Any]:
    """The rows that the model is least sure of, spread out by their features.

    Of a number nothing says how sure a score is: its rows are spread out alone.

    Args:
        pool: ids of rows without a label.

    Returns:
        the score of each picked row, by its id.
    """
    rows = _read_inputs(settings, root, pool)
    scores = load_scorer(root / MODEL).score(rows)
    decision = read_json(root / MANIFEST).get("decision") if problem.UNLABELLED is not None else 0.5
    doubt = uncertainty(scores, float(decision or 0.0))
    likely = np.argsort(-doubt, kind="stable")[: NARROWED * count]
    train = root / SPLITS["train"]
    preparation, _ = fit_features(
        load(train, inputs(settings)), *read_label(train, settings), settings
    )
    matrix = np.nan_to_num(np.asarray(preparation.transform(rows.iloc[likely]), dtype=np.float64))
    chosen = likely[spread_out(matrix, count)]
    return {str(rows.index[i]): np.round(scores[i], 6).tolist() for i in chosen}


def _read_inputs(settings: Settings, root: Path, ids: list[str]) -> pd.DataFrame:
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
