"""Collecting only what is new: the newest days of the source are read again, older rows stay as they were collected."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import duckdb

from ..paths import EVENTS
from ..settings import Settings
from .retention import SECONDS_A_DAY, remembered
from .schema import TYPES, name, stored, text

SCHEMA_VERSION = "schema_version"  # of a file's rows, in its metadata


def refreshed_from(
    sql: duckdb.DuckDBPyConnection, settings: Settings, root: Path
) -> datetime | None:
    """The moment that `data.source.refresh_days` leads back to from the newest event; None: all rows are read.

    All are read too where the events were collected by another version of the schema, or have other columns.
    """
    days, moment = settings.data.source.refresh_days, settings.data.schema_.time
    if days is None or moment is None or not (root / EVENTS).is_file():
        return None
    file = text(str(root / EVENTS))
    entries = sql.execute(f"SELECT key, value FROM parquet_kv_metadata({file})").fetchall()
    version = {bytes(key): bytes(value) for key, value in entries}.get(SCHEMA_VERSION.encode())
    described = sql.execute(f"DESCRIBE FROM read_parquet({file})").fetchall()
    today = {column: TYPES[rule.type] for column, rule in stored(settings).items()}
    if version != str(settings.data.schema_.version).encode():
        return None
    if {row[0]: row[1] for row in described} != today:
        return None
    latest = f"SELECT max({name(moment)}) FROM read_parquet({file}) WHERE {name(moment)} <= now()::TIMESTAMP"
    ((earliest,),) = sql.execute(
        f"SELECT ({latest}) - to_seconds({days * SECONDS_A_DAY!r})"
    ).fetchall()
    return earliest


def carried_rows(settings: Settings, root: Path, earliest: datetime, fresh: str) -> str:
    """SQL of the rows of earlier collections that were not read again, in place of which no fresh row came.

    Args:
        earliest: the moment from which rows were read; fresh: SQL of the rows that were.
    """
    schema, retention = settings.data.schema_, settings.data.retention
    moment = name(str(schema.time))
    conditions = [f"coalesce({moment} < {text(str(earliest))}::TIMESTAMP, true)"]
    conditions.append(remembered(root, stored(settings)))
    if retention.days is not None:
        latest = f"(SELECT max({moment}) FROM ({fresh}) WHERE {moment} <= now()::TIMESTAMP)"
        oldest = f"{latest} - to_seconds({retention.days * SECONDS_A_DAY!r})"
        conditions.append(f"coalesce({moment} >= {oldest}, true)")
    for column, rule in stored(settings).items():
        if rule.unique:
            key = name(column)
            conditions.append(
                f"({key} IS NULL OR {key} NOT IN (SELECT {key} FROM ({fresh}) WHERE {key} IS NOT NULL))"
            )
    file = text(str(root / EVENTS))
    return f"SELECT * FROM read_parquet({file}) WHERE {' AND '.join(conditions)}"
