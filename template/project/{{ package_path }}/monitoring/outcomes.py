"""The prediction log joined with what came true, read while the service goes on writing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from ..data.label import truth
from ..data.schema import TYPES, name, stored, text
from ..data.source import first_line
from ..settings import Settings, UserError

PREDICTIONS, FEEDBACK = "monitoring/predictions", "monitoring/feedback"
ANSWER = {
    **{"_id": "VARCHAR", "_time": "TIMESTAMP", "_arm": "VARCHAR", "_propensity": "DOUBLE"},
    **{"_assigned": "BOOLEAN", "_answered": "BOOLEAN", "_score": "DOUBLE", "_decision": "DOUBLE"},
    **{"_decision_propensity": "DOUBLE", "_explored": "BOOLEAN", "_fallback": "VARCHAR"},
    **{"_latency_ms": "DOUBLE", "_model": "VARCHAR", "_experiment": "VARCHAR"},
}
LABEL = {"_id": "VARCHAR", "_time": "TIMESTAMP", "_label": "VARCHAR", "_reward": "DOUBLE"}


@contextmanager
def outcomes(settings: Settings, root: Path, *inputs: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database whose table `answers` has a row for each answer and arm, in the order of time.

    Beside the log's own columns (`ANSWER`) it has `_unit`, the value of `serving.router.unit` or the
    row's id; `_reward`, the first that came; `_y`, the last label as a number; and `inputs`.

    Raises:
        UserError: when a file of the log cannot be read.
    """
    columns = {one: TYPES[kept.type] for one, kept in stored(settings).items()}
    unit = settings.serving.router.unit
    wanted = ANSWER | {one: columns[one] for one in (*inputs, unit) if one in columns}
    who = f"coalesce(CAST({name(unit)} AS VARCHAR), _id)" if unit in wanted else "_id"
    with (
        tempfile.TemporaryDirectory() as scratch,
        duckdb.connect(config={"memory_limit": settings.data.source.memory_limit}) as sql,
    ):
        sql.execute(f"SET temp_directory = {text(scratch)}; SET TimeZone = 'UTC'")
        for last in (False, True):
            query = (
                f"CREATE OR REPLACE TABLE answers AS "
                f"WITH feedback AS (SELECT _id, min_by(_reward, _time) AS _reward, "
                f"max_by({truth('_label', settings)}, _time) AS _y "
                f"FROM ({_rows(root / FEEDBACK, LABEL)}) GROUP BY _id) "
                f"SELECT answer.*, {who} AS _unit, _reward, _y FROM ({_rows(root / PREDICTIONS, wanted)}) "
                f"AS answer LEFT JOIN feedback USING (_id) ORDER BY _time, _id"
            )
            try:
                sql.execute(query)
                break
            except duckdb.IOException:  # a file became Parquet in between; a second look finds it
                if last:
                    raise
            except duckdb.Error as error:
                raise UserError(f"{root / PREDICTIONS}: {first_line(error)}") from None
        yield sql


def labels_since(settings: Settings, root: Path, since: datetime | None) -> int:
    """How many answers got a label, after this moment or at all."""
    with duckdb.connect() as sql:
        query = f"SELECT count(DISTINCT _id) FROM ({_rows(root / FEEDBACK, LABEL)}) WHERE _label IS NOT NULL AND _time > ?"
        moment = since.astimezone(UTC).replace(tzinfo=None) if since else datetime(1970, 1, 1)
        return int(sql.execute(query, [moment]).fetchall()[0][0])


def _rows(folder: Path, columns: Mapping[str, str]) -> str:
    """SQL for a log's rows: Parquet files, and what is not Parquet yet."""
    open_ = sorted(folder.glob("*.wal"))  # first: one that is gone by the next line is Parquet then
    closed = sorted(folder.glob("*.parquet"))
    # Gives its type to each column that no file has
    empty = ", ".join(f"CAST(NULL AS {kind}) AS {name(one)}" for one, kind in columns.items())
    parts = [f"SELECT {empty} WHERE false"]
    if closed:
        listed = ", ".join(text(str(path)) for path in closed)
        parts.append(f"SELECT * FROM read_parquet([{listed}], union_by_name = true)")
    for path in open_:
        if path.with_suffix(".parquet") in closed or not (types := _types(path)):
            continue
        parts.append(
            f"SELECT * FROM read_json({text(str(path))}, columns = {types}, ignore_errors = true, "
            f"format = 'newline_delimited') WHERE _id IS NOT NULL"
        )
    picked = ", ".join(
        f"TRY_CAST({name(one)} AS {kind}) AS {name(one)}" for one, kind in columns.items()
    )
    return f"SELECT {picked} FROM ({' UNION ALL BY NAME '.join(parts)})"


def _types(path: Path) -> str:
    """A `.wal` file's columns, as its first line names them, as a DuckDB struct; or nothing."""
    try:
        with path.open("rb") as file:
            columns = json.loads(file.readline())["columns"]
    except (OSError, ValueError, KeyError):
        return ""
    return "{" + ", ".join(f"{text(one)}: {text(kind)}" for one, kind in columns.items()) + "}"
