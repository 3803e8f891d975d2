"""What rows give away of people: combinations that few rows share, and personal data in free texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

import duckdb

from ..settings import Settings
from .parsing import masked
from .schema import name, stored

SMALLEST_GROUP = 5  # rows that share a combination; below, it points at somebody
TEXTS_READ = 5_000  # rows whose texts are looked at
KINDS = ("email", "phone", "card")


class Anonymity(TypedDict):
    """How far rows hide among each other (k-anonymity; Sweeney, 2002), by `data.quasi_identifiers`.

    `k`: the fewest rows that share a combination of values; `rows_below`: how many rows share theirs with fewer
    than five; `without`: column -> how many there would be without that column.
    """

    columns: list[str]
    k: int
    rows_below: int
    share_below: float
    without: dict[str, int]


def anonymity(sql: duckdb.DuckDBPyConnection, settings: Settings, events: str) -> Anonymity | None:
    """How many rows share their combination of quasi-identifiers; None where the settings name none that is kept.

    Times count by the day. A missing value is a value.

    Args:
        events: SQL of the rows.
    """
    columns = [column for column in settings.data.quasi_identifiers if column in stored(settings)]
    if not columns:
        return None
    smallest, below, rows = _groups(sql, settings, events, columns)
    without = {
        column: _groups(sql, settings, events, [name_ for name_ in columns if name_ != column])[1]
        for column in columns
    }
    return {
        "columns": columns,
        "k": smallest,
        "rows_below": below,
        "share_below": round(below / max(1, rows), 6),
        "without": without,
    }


def _groups(
    sql: duckdb.DuckDBPyConnection, settings: Settings, events: str, columns: Sequence[str]
) -> tuple[int, int, int]:
    """The fewest rows that share a combination, how many rows are in groups below `SMALLEST_GROUP`, and all rows."""
    rules = settings.data.schema_.columns
    days = {c: f"date_trunc('day', {name(c)})" for c in columns if rules[c].type == "time"}
    keys = ", ".join(days.get(column, name(column)) for column in columns) or "()"
    query = f"SELECT count(*) AS n FROM {events} GROUP BY {keys}"
    total = (
        f"SELECT min(n), coalesce(sum(n) FILTER (n < {SMALLEST_GROUP}), 0), sum(n) FROM ({query})"
    )
    ((smallest, below, rows),) = sql.execute(total).fetchall()
    return int(smallest or 0), int(below), int(rows or 0)


def personal_in_texts(
    sql: duckdb.DuckDBPyConnection, settings: Settings, events: str
) -> dict[str, dict[str, int]]:
    """In how many of the first rows a free text holds personal data that `data.mask` leaves there: column -> kind -> rows.

    What has the form of an e-mail address, a phone or a payment card; no name, and no address of a street.

    Args:
        events: SQL of the rows.
    """
    kinds = [kind for kind in KINDS if kind not in settings.data.mask]
    counts: dict[str, dict[str, int]] = {}
    for column, rule in stored(settings).items():
        if rule.type != "text" or rule.personal or not kinds:
            continue
        query = f"SELECT {name(column)} FROM {events} WHERE {name(column)} IS NOT NULL LIMIT {TEXTS_READ}"
        texts = [text for (text,) in sql.execute(query).fetchall()]
        hits = Counter(kind for text in texts for kind in kinds if masked(text, [kind]) != text)
        if hits:
            counts[column] = dict(sorted(hits.items()))
    return counts
