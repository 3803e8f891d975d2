"""Forgetting: what the logs and the online store have of a person, or of times too long ago, is deleted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from ..data.retention import SECONDS_A_DAY, record
from ..data.schema import PERSONAL_KEY, name, text
from ..paths import EVENTS, FEEDBACK, GOLD, OUT_OF_FOLD, PREDICTIONS, QUEUE, REVIEW, VOTES
from ..settings import Settings, UserError

LABELS = (
    VOTES,
    GOLD,
    QUEUE,
    OUT_OF_FOLD,
)  # what people said of rows, or are asked, and a model says


class Forgotten(NamedTuple):
    """What was deleted.

    Attributes:
        answers: rows of the logs of answers and of reviews; labels: of the log of feedback.
        held: rows that stay since they are younger than the floor of `Settings.answer_days`.
        lines: of the online store, and of what people said of the person's rows; is_new: whether the person was not on the list before.
        is_unknown: whether no file here has such a person, as after a slip of the pen.
        open_files: of logs that a service still writes, in which more may stand.
    """

    answers: int
    labels: int
    held: int
    lines: int
    is_new: bool
    is_unknown: bool
    open_files: int


def forget(settings: Settings, root: Path, column: str, value: str) -> Forgotten:
    """Delete what logs, online store and people's labels have of a person, and let `collect` leave the person out from now on.

    Rows younger than the floor of `Settings.answer_days` stay: the floor wins.

    Args:
        column: that names the person, in the schema's names; value: as the source has it.

    Raises:
        UserError: for a column that there is not, or that no file has.
    """
    rule = settings.data.schema_.columns.get(column)
    if rule is None:
        raise UserError(f"--column {column}: is not a column of data.schema.columns")
    if rule.personal and settings.data.personal == "drop":
        raise UserError(
            f"--column {column}: is personal, and data.personal drops it: no file has it"
        )
    logged = value
    if rule.personal and settings.data.personal == "hash":
        if not os.environ.get(PERSONAL_KEY):
            raise UserError(
                f"data.personal: hash needs its secret key: `export {PERSONAL_KEY}=...`"
            )
        logged = hashlib.sha256(f"{os.environ[PERSONAL_KEY]}:{value}".encode()).hexdigest()
    is_person = f"CAST({name(column)} AS VARCHAR) = {text(logged)}"
    answers, labels, held = _delete(
        settings, root, lambda columns: is_person if column in columns else None
    )
    ids = _ids_of(settings, root, is_person)
    store = root / str(settings.scoring.online_store)
    person = {"column": column, "value": logged}
    lines = _delete_lines(store, lambda entry: {**entry, **person} == entry)
    lines += sum(
        _delete_lines(root / path, lambda entry: entry.get("id") in ids) for path in LABELS
    )
    has_events = _count_events(root, is_person) > 0
    is_new = record(root, column, value, logged)
    is_unknown = is_new and not (has_events or answers or held or lines)
    return Forgotten(answers, labels, held, lines, is_new, is_unknown, _open_files(root))


def forget_old(settings: Settings, root: Path) -> Forgotten:
    """Delete answers older than `Settings.answer_days` lets them be, with what was fed back on them.

    Raises:
        UserError: where no such number of days is set.
    """
    days = settings.answer_days[1]
    if days is None:
        raise UserError("data.retention.days: is null, and nobody is named: use --id, or set it")
    is_old = f"_time < now()::TIMESTAMP - to_seconds({days * SECONDS_A_DAY!r})"
    answers, labels, held = _delete(settings, root, lambda _: is_old)
    return Forgotten(answers, labels, held, 0, False, False, _open_files(root))


def _delete(
    settings: Settings, root: Path, condition: Callable[[set[str]], str | None]
) -> tuple[int, int, int]:
    """Delete rows of answers, and labels of these; returns how many of each, and how many answers stay by the floor.

    Args:
        condition: takes the columns of a file, gives SQL of what is to be deleted, or None for nothing.
    """
    floor = settings.answer_days[0]
    is_free = (
        "true"
        if floor is None
        else f"_time < now()::TIMESTAMP - to_seconds({floor * SECONDS_A_DAY!r})"
    )
    answers = labels = held = 0
    with duckdb.connect() as sql:
        sql.execute("SET TimeZone = 'UTC'")
        sql.execute("CREATE TABLE deleted (_id VARCHAR)")
        for folder in (PREDICTIONS, REVIEW):
            for path in sorted((root / folder).glob("*.parquet")):
                columns = {row[0] for row in sql.execute(f"DESCRIBE FROM {_read(path)}").fetchall()}
                if (rows := condition(columns)) is None:
                    continue
                count = f"SELECT count(*) FILTER ({is_free}), count(*) FILTER (NOT {is_free}) FROM {_read(path)} WHERE {rows}"
                ((free, young),) = sql.execute(count).fetchall()
                held += young
                if free:
                    answers += free
                    sql.execute(
                        f"INSERT INTO deleted SELECT _id FROM {_read(path)} WHERE {rows} AND {is_free}"
                    )
                    _rewrite(sql, path, f"NOT coalesce({rows} AND {is_free}, false)")
        for path in sorted((root / FEEDBACK).glob("*.parquet")):
            is_theirs = "_id IN (SELECT _id FROM deleted)"
            ((count,),) = sql.execute(
                f"SELECT count(*) FROM {_read(path)} WHERE {is_theirs}"
            ).fetchall()
            if count:
                labels += count
                _rewrite(sql, path, f"NOT {is_theirs}")
    return answers, labels, held


def _read(path: Path) -> str:
    return f"read_parquet({text(str(path))})"


def _rewrite(sql: duckdb.DuckDBPyConnection, path: Path, condition: str) -> None:
    """Put a file with those rows alone that a condition is true of in the place of a log's file."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        sql.execute(
            f"COPY (FROM {_read(path)} WHERE {condition}) TO {text(str(unfinished))} (FORMAT parquet, COMPRESSION zstd)"
        )
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _ids_of(settings: Settings, root: Path, condition: str) -> set[str]:
    """The ids of a person's rows, as people's labels name them; none where there are no events, or no ids.

    Args:
        condition: SQL that is true of the person's rows.
    """
    key = settings.data.schema_.id
    if key is None or not (root / EVENTS).is_file():
        return set()
    query = f"SELECT CAST({name(key)} AS VARCHAR) FROM {_read(root / EVENTS)} WHERE {condition}"
    return {row_id for (row_id,) in duckdb.execute(query).fetchall()}


def _count_events(root: Path, condition: str) -> int:
    """How many events are a person's; 0 where there are none yet."""
    if not (root / EVENTS).is_file():
        return 0
    query = f"SELECT count(*) FROM {_read(root / EVENTS)} WHERE {condition}"
    ((count,),) = duckdb.execute(query).fetchall()
    return int(count)


def _delete_lines(path: Path, is_theirs: Callable[[dict[str, Any]], bool]) -> int:
    """Delete the lines of a file of JSON lines that are a person's; returns how many. What is no JSON stays."""
    if not path.is_file():
        return 0
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    remaining = []
    for line in lines:
        with suppress(ValueError):
            if is_theirs(json.loads(line)):
                continue
        remaining.append(line)
    if len(remaining) < len(lines):
        unfinished = path.with_name(f"{path.name}.new")
        unfinished.write_text("".join(remaining), encoding="utf-8", newline="\n")
        unfinished.replace(path)
    return len(lines) - len(remaining)


def _open_files(root: Path) -> int:
    """How many files of logs are still written, by a service that runs or by one that ended without a word."""
    return sum(
        1 for folder in (PREDICTIONS, FEEDBACK, REVIEW) for _ in (root / folder).glob("*.wal")
    )
