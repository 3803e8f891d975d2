"""Columns of what came before: of each row the earlier values of its customer, shop or category, as they were known.

A point-in-time join: nothing of a row's own moment or later is seen, and nothing that was written later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from ..histories import LENGTH
from ..settings import Settings
from .schema import name, text

# Times the length: of so many moments at which something was written the values are looked at, where some come late
LATE = 4


def join_histories(
    sql: duckdb.DuckDBPyConnection, settings: Settings, truth: str, known_at: str
) -> None:
    """Make `events` of the view `collected`: the same rows in the same order, with their histories (`data.histories`).

    A history has the latest values that were known before the row's moment, in the order of their moments; of rows with
    the same id the one that was written last counts.

    Args:
        truth: SQL of the label as a number; known_at: SQL of the moment at which it is known.
    """
    joins, columns = [], []
    for i, (column, history) in enumerate(settings.data.histories.items()):
        _write_windows(sql, settings, column, (truth, known_at), f"_windows{i}")
        key = f"collected.{name(history.by)}"
        time = f"collected.{name(str(settings.data.schema_.time))}"
        joins.append(
            f"ASOF LEFT JOIN _windows{i} ON {key} = _windows{i}.key AND {time} > _windows{i}.written"
        )
        columns.append(f"{_latest(settings, column, f'_windows{i}.items')} AS {name(column)}")
    if not columns:
        sql.execute("CREATE VIEW events AS FROM collected")
        return
    sql.execute(
        f"CREATE TABLE events AS SELECT collected.* EXCLUDE (_row) REPLACE ({', '.join(columns)}) "
        f"FROM (SELECT *, row_number() OVER () AS _row FROM collected) AS collected {' '.join(joins)} ORDER BY _row"
    )


def known_histories(
    sql: duckdb.DuckDBPyConnection, settings: Settings, truth: str, known_at: str
) -> list[tuple[str, str]]:
    """What is known at last of each customer, shop or category, of a database with the view `events`.

    Args:
        truth, known_at: as `join_histories` takes them.

    Returns:
        the column that something is known by, and SQL of a row for each of its values, by history.
    """
    sql.execute("CREATE OR REPLACE VIEW collected AS FROM events")
    tables = []
    for i, (column, history) in enumerate(settings.data.histories.items()):
        _write_windows(sql, settings, column, (truth, known_at), f"_windows{i}")
        latest = _latest(settings, column, "arg_max(items, written)")
        # What is written after the latest row, as a label that needs its delay, is not known yet, whatever stands there
        until = f"written <= (SELECT max({name(str(settings.data.schema_.time))}) FROM collected)"
        query = f"SELECT key AS {name(history.by)}, {latest} AS {name(column)} FROM _windows{i} WHERE {until} GROUP BY 1 ORDER BY 1"
        tables.append((history.by, query))
    return tables


def looked_up(
    query: str, settings: Settings, store: Path, histories: Sequence[str], keys: Mapping[str, str]
) -> str:
    """SQL of rows, in their order, with the histories that the online store has of them.

    Args:
        query: SQL of rows that have none; store: the file that `materialize` writes.
        histories: their columns; keys: SQL, in the rows, of each column that they are known by.
    """
    selected, joined = [], []
    columns = "{'column': 'VARCHAR', 'value': 'VARCHAR', 'values': 'JSON'}"
    lines = f"read_json({text(str(store))}, format = 'newline_delimited', columns = {columns})"
    for i, column in enumerate(histories):
        by = settings.data.histories[column].by
        member = text('$."' + column + '"')
        past = f'json_extract("values", {member})'
        entries = (
            f"SELECT value, CAST({past} AS VARCHAR) AS past FROM {lines} "
            f'WHERE "column" = {text(by)} AND {past} IS NOT NULL'
        )
        joined.append(
            f"LEFT JOIN ({entries}) AS _known{i} ON _known{i}.value = CAST({keys[by]} AS VARCHAR)"
        )
        selected.append(f"_known{i}.past AS {name(column)}")
    return (
        f"SELECT rows.* EXCLUDE (_row), {', '.join(selected)} FROM (SELECT *, row_number() OVER () AS _row "
        f"FROM ({query})) AS rows {' '.join(joined)} ORDER BY _row"
    )


def _write_windows(
    sql: duckdb.DuckDBPyConnection,
    settings: Settings,
    column: str,
    label: tuple[str, str],
    table: str,
) -> None:
    """Make a table of what is known by each key from each moment on at which something was written: `key`, `written`
    and `items`, the moment, the writing and the value of each of the last rows."""
    data, history = settings.data, settings.data.histories[column]
    time, row_id = name(str(data.schema_.time)), data.schema_.id
    value, known_at = (
        label if history.of == data.label.column else (f"CAST({name(history.of)} AS DOUBLE)", time)
    )
    known_at = name(history.known_at) if history.known_at else known_at
    length = data.schema_.columns[column].length or LENGTH
    may_be_late = known_at != time
    buckets = length * (LATE if may_be_late else 1)
    row = f"CAST({name(row_id)} AS VARCHAR)" if row_id else "NULL"
    sql.execute(
        f"CREATE OR REPLACE TEMP TABLE {table} AS WITH entries AS (SELECT {name(history.by)} AS key, {time} AS moment, "
        f"greatest({time}, coalesce({known_at}, {time})) AS written, {row} AS row_id, {value} AS value FROM collected "
        f"WHERE {name(history.by)} IS NOT NULL AND {time} IS NOT NULL), "
        f"steps AS (SELECT key, written, list(struct_pack(moment, written, row_id, value) ORDER BY moment, row_id) AS items "
        f"FROM entries WHERE isfinite(value) GROUP BY key, written) "
        f"SELECT key, written, flatten(list(items) OVER (PARTITION BY key ORDER BY written ROWS BETWEEN {buckets - 1} "
        f"PRECEDING AND CURRENT ROW)) AS items FROM steps"
    )


def _latest(settings: Settings, column: str, items: str) -> str:
    """SQL of a history, as tables hold it; items: SQL of the list that `_write_windows` makes."""
    schema = settings.data.schema_
    rule = schema.columns.get(schema.id or "")
    if rule is not None and not rule.unique:
        # Of a row that was written again, what it said last
        is_last = "NOT list_bool_or(list_transform(items, lambda b: b.row_id = a.row_id AND b.written > a.written))"
        items = (
            f"list_transform([{items}], lambda items: list_filter(items, lambda a: {is_last}))[1]"
        )
    length = schema.columns[column].length or LENGTH
    values = f"list_transform(list_sort({items})[-{length}:], lambda item: item.value)"
    return f"CAST(to_json({values}) AS VARCHAR)"
