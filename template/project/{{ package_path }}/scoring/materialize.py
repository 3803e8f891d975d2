"""What is known by key, written for the service: requests then name a series, an item or a customer, and leave it out.

The word is that of feature stores: what tables hold is brought to where it is looked up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from ..data.files import FileRows, find_files, open_files
from ..data.label import known_from, truth
from ..data.point_in_time import known_histories
from ..data.retention import remembered
from ..data.schema import name, stored, text
from ..data.source import (
    database,
    first_line,
    hint,
    pseudonymized,
    set_key,
    source_columns,
    typed_columns,
)
from ..paths import EVENTS
from ..problem import data as problem_data
from ..settings import Settings, UserError, require_file

ROWS_AT_ONCE = 10_000


def materialize(settings: Settings, root: Path, paths: Sequence[str], out: Path) -> dict[str, int]:
    """Write what is known by key: a JSON object a line, with a `column`, a `value` of it, and the `values` that are known of that, by column.

    Args:
        paths: files, folders or globs of raw rows, the newest too; none: the events that `collect` wrote.

    Returns:
        column -> of how many of its values something is known.

    Raises:
        UserError: when a file cannot be used, or nothing is known by key; `out` is then as it was.
    """
    unfinished, counts = out.with_name(f"{out.name}.new"), dict[str, int]()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with database(settings, root, tables=":memory:") as sql:
            _read_events(sql, settings, root, paths)
            columns = stored(settings)
            tables = [*problem_data.known_by_key(sql, settings).items()]
            truth_sql = truth(name(settings.data.label.column), settings)
            tables += known_histories(sql, settings, truth_sql, known_from(settings))
            with unfinished.open("w", encoding="utf-8", newline="\n") as file:
                for column, query in ((c, q) for c, q in tables if c in columns):
                    lines = 0
                    for entry in _entries(sql, settings, column, query):
                        lines += 1
                        file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n")
                    counts[column] = max(lines, counts.get(column, 0))
        if not any(counts.values()):
            raise UserError(
                "nothing is known by key: no column of this project says what it would be of"
            )
        unfinished.replace(out)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}; nothing was written") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return counts


def _read_events(
    sql: duckdb.DuckDBPyConnection, settings: Settings, root: Path, paths: Sequence[str]
) -> None:
    """Make the table `events`: the rows of files as `collect` would write them, or those that it wrote."""
    if not paths:
        source = f"read_parquet({text(str(require_file(root / EVENTS)))})"
        columns_here = [row[0] for row in sql.execute(f"DESCRIBE FROM {source}").fetchall()]
        # Who was forgotten since then is in them until the next `collect`
        sql.execute(f"CREATE VIEW events AS FROM {source} WHERE {remembered(root, columns_here)}")
        return
    set_key(sql, settings)
    files = [file for path in paths for file in find_files(path, root)]
    try:
        rows = open_files(sql, files, Path(), source_columns(settings))
        query, columns = problem_data.long_rows(rows.query, rows.columns, settings)
        rows = FileRows(query, dict(columns), rows.headers)
        made = problem_data.made(settings.data.label) | {*settings.data.histories}
        selected = typed_columns(settings, rows, {*stored(settings)} - made)
        for column in sorted(_required(settings) - {*selected}):
            missing = f"has no column {column!r}; {hint(column, rows.columns)}"
            raise UserError(f"{', '.join(paths)}: {missing}")
        events = (
            f"{pseudonymized(settings, column, value)} AS {name(column)}"
            for column, value in selected.items()
        )
        sql.execute(
            f"CREATE TABLE events AS FROM (SELECT {', '.join(events)} FROM ({rows.query})) "
            f"WHERE {remembered(root, selected)}"
        )
    except duckdb.Error as error:
        raise UserError(f"{', '.join(paths)}: {first_line(error)}") from None


def _required(settings: Settings) -> set[str]:
    """The columns without which nothing can be told of what is known by key."""
    data = settings.data
    histories = ((h.of, h.by, h.known_at) for h in data.histories.values())
    read = {column for columns in histories for column in columns}
    return {column for column in {data.schema_.time, data.label.column, *read} if column}


def _entries(
    sql: duckdb.DuckDBPyConnection, settings: Settings, column: str, query: str
) -> Iterator[dict[str, Any]]:
    """The lines of the file about one column, in the order of the query.

    A list with the same value for each step says the value once; what is missing is left out.
    """
    kinds = {n: rule.type for n, rule in settings.data.schema_.columns.items()}
    rows = sql.execute(query)
    names = [entry[0] for entry in rows.description or ()]
    while batch := rows.fetchmany(ROWS_AT_ONCE):
        for values in batch:
            row = dict(zip(names, values, strict=True))
            key = row.pop(column)
            plain = {n: _plain(value, kinds[n]) for n, value in row.items()}
            present = {n: value for n, value in plain.items() if value is not None}
            if key is not None and present:
                yield {"column": column, "value": str(key), "values": present}


def _plain(value: Any, kind: str) -> Any:
    """A value of the database as JSON has it."""
    if isinstance(value, list):
        values = [_plain(item, kind) for item in value]
        return values[0] if all(item == values[0] for item in values) else values
    if kind == "history":
        return None if value is None else json.loads(value)
    return value.isoformat() if kind == "time" and value is not None else value
