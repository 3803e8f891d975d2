"""Which rows people label next: those that need another vote, a random share to measure by, and what the model doubts."""

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

from ..paths import MODEL, QUEUE, SPLITS
from ..settings import Settings, UserError
from .aggregation import Table, aggregate
from .rows import read_labels
from .votes import Vote, current, gold, read_lines

RANDOM, UNCERTAIN, AGAIN, CERTAIN = "random", "uncertain", "again", "gold"  # why a row is queued
MAX_SCORED = 20_000  # rows that the model scores, of all without a label
MAX_EXTRA = 3  # votes beyond those that a row needs, after which more hardly settle what it is


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
        minimum = votes_needed(id_, settings)
        disputed = id_ in agreed and agreed[id_] is None and count < minimum + MAX_EXTRA
        if count < minimum or disputed:
            missing[id_] = max(1, minimum - count)
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
        from .selection import pick  # takes the libraries that train

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
    return [ids[i] for i in rng.permutation(len(ids))[:count]]


def _write(root: Path, entries: Iterable[Entry]) -> None:
    path = root / QUEUE
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    lines = "".join(f"{json.dumps(asdict(entry), ensure_ascii=False)}\n" for entry in entries)
    fresh.write_text(lines, encoding="utf-8", newline="\n")
    os.replace(fresh, path)
