"""The one door: rows come from a source, are checked against the schema, and are kept or refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, TypeVar

import duckdb
from duckdb.func import FunctionNullHandling

from .. import problem
from ..images import FAULTS, SUFFIXES, Form, ImageError
from ..images import stored as stored_image
from ..parts import optional_module, parts_here
from ..paths import EVENTS, QUARANTINE, SCRATCH, report_path
from ..problem import data as problem_data
from ..settings import Settings, UserError
from .disclosure import Anonymity, anonymity, personal_in_texts
from .files import FileRows, open_files
from .incremental import SCHEMA_VERSION, carried_rows, refreshed_from
from .parsing import masked
from .retention import retained
from .schema import PERSONAL_KEY, checks, cleaned, masks, name, require_pillow, stored, text, typed
from .schema_versions import by_version, check_version, record_version

if TYPE_CHECKING:
    import pandas as pd  # not above: only the sample takes it

Report = TypeVar("Report", bound=Mapping[str, Any])
# Each adds its columns to the sample, where it is there
SAMPLE_INPUTS = ("data.sample_texts", "data.sample_images")
PARQUET = "(FORMAT parquet, COMPRESSION zstd)"
# Columns, beyond which looking for what a query works out twice costs more than it saves
WIDE_COLUMNS = 200
MAX_COLUMN_THREADS = 8_000  # columns by threads at once
ERROR_ADVICE = {
    "out of memory": "not enough memory; raise data.source.memory_limit",
    "no space left": "the disk is full",
    "maximum line size": "a line is longer than 2 MB: is a quote left open?",
}


class CollectReport(TypedDict):
    """What reports/collect.json holds; rows_in = rows_kept + rows_refused, always."""

    source: str
    schema_version: int
    rows_in: int
    rows_carried: NotRequired[int]  # of these, rows of earlier collections that were not read again
    rows_expected: NotRequired[int]  # that the other system counts
    rows_kept: int
    rows_refused: int
    refused: dict[str, int]  # reason -> rows
    columns: dict[str, dict[str, float]]  # column -> share of missing values
    personal: str  # the setting
    personal_columns: list[str]
    masked: list[str]  # what is masked in free texts
    personal_in_texts: dict[str, dict[str, int]]  # as `disclosure.personal_in_texts` counts it
    anonymity: NotRequired[Anonymity]  # where `data.quasi_identifiers` names columns
    first: str | None  # time of an event, ISO 8601
    last: str | None


def collect(settings: Settings, root: Path) -> CollectReport:
    """Read the source once; write what fits the schema and, with its reason, what does not.

    Personal columns are dropped or hashed, and texts masked, on the way in, before anything is written.

    Raises:
        UserError: when the source cannot be read or lacks a column of the schema, when the schema changed and its
            version did not, and when another system counts other rows.
    """
    check_version(settings, root)
    with database(settings, root) as sql:
        earliest = refreshed_from(sql, settings, root)
        rows_read = _stage_versions(sql, settings, root, earliest)
        expected = _check_count(sql, settings, rows_read) if earliest is None else None
        _check_images(sql, settings)
        _refuse(sql, settings)
        counts = _write_events(sql, settings, root, earliest)
    if expected is not None:
        counts["rows_expected"] = expected
    record_version(settings, root)
    return report(root, "collect", counts)


def _stage_versions(
    sql: duckdb.DuckDBPyConnection, settings: Settings, root: Path, earliest: datetime | None
) -> int:
    """Make the table `staged`, each file's rows read by the version of the schema that it was written under.

    Args:
        earliest: only rows from this moment on; None: all.

    Returns:
        how many rows the source has; 0 where nobody asks.
    """
    tables, rows_read = list[str](), 0
    for of_version, absent in by_version(settings, root):
        columns = _open(sql, of_version, root, earliest)
        if settings.data.source.expected:
            ((rows,),) = sql.execute("SELECT count(*) FROM whole_source").fetchall()
            rows_read += rows
        _stage(sql, of_version, columns, absent)
        tables.append(f"staged{len(tables)}")
        sql.execute(f"ALTER TABLE staged RENAME TO {tables[-1]}")
    if len(tables) == 1:
        sql.execute(f"ALTER TABLE {tables[0]} RENAME TO staged")
    else:
        sql.execute(f"CREATE TABLE staged AS {' UNION ALL '.join(f'FROM {t}' for t in tables)}")
    return rows_read


def _check_count(sql: duckdb.DuckDBPyConnection, settings: Settings, rows_read: int) -> int | None:
    """How many rows another system counts, by `data.source.expected`; None where nobody is asked.

    Raises:
        UserError: when the source has so many more or fewer that `data.source.tolerance` is passed.
    """
    source = settings.data.source
    if not source.expected:
        return None
    try:
        for statement in source.attach if source.kind != "sql" else ():
            sql.execute(statement)
        answer = sql.execute(source.expected.strip().rstrip(";")).fetchall()
        expected = int(answer[0][0])
    except (duckdb.Error, IndexError, TypeError, ValueError) as error:
        fault = first_line(error) if isinstance(error, duckdb.Error) else "its answer is no number"
        raise UserError(f"params.yaml: data.source.expected: {fault}") from None
    apart = abs(rows_read - expected) / max(1, expected)
    if apart > source.tolerance:
        raise UserError(
            f"data.source.expected: the source has {rows_read:,} rows where the other system counts {expected:,}: "
            f"{apart:.2%} apart, {source.tolerance:.2%} are allowed (data.source.tolerance); the events of the last "
            f"run stay"
        )
    return expected


@contextmanager
def database(
    settings: Settings, root: Path, folder: Path = Path(SCRATCH), tables: str = "work.duckdb"
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that keeps to `data.source.memory_limit` and spills to a folder that goes again.

    Args:
        tables: the file in it that they are kept in; ":memory:" for those that are read once.

    Raises:
        UserError: for what DuckDB refuses, in one line.
    """
    scratch = root / folder
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    sql = duckdb.connect(tables if tables == ":memory:" else str(scratch / tables))
    try:
        sql.execute("SET memory_limit = ?", [settings.data.source.memory_limit])
        sql.execute("SET temp_directory = ?", [str(scratch)])
        sql.execute("SET TimeZone = 'UTC'")
        limit_threads(sql, len(settings.data.schema_.columns))
        if any(rule.type == "image" for rule in settings.data.schema_.columns.values()):
            require_pillow(settings)
            teach_images(sql, images_folder(settings, root))
        if sys.stdout.isatty():
            sql.execute("SET enable_progress_bar = true")
        yield sql
    except duckdb.Error as error:
        raise UserError(f"{folder}: gave up: {first_line(error)}") from None
    finally:
        sql.close()
        shutil.rmtree(scratch, ignore_errors=True)


def images_folder(settings: Settings, root: Path) -> Path | None:
    """The folder that paths of images start from; None where none is followed."""
    images = settings.data.source.images
    return root / images if images else None


def teach_images(sql: duckdb.DuckDBPyConnection, folder: Path | None) -> None:
    """Give the database `stored_image`, NULL for what is none, and `image_fault`, which says why.

    Args:
        folder: that paths start from, from now on.
    """

    def value(raw: str | None, size: int, channels: int, fit: str) -> str | None:
        with suppress(ImageError):
            return stored_image(raw, Form(size, channels, fit), folder) if raw else None
        return None

    def fault(raw: str | None) -> str | None:
        try:
            stored_image(raw or "", Form(), folder)
        except ImageError as error:
            return str(error)
        return None

    for function in ("stored_image", "image_fault"):
        with suppress(duckdb.InvalidInputException):  # there is none yet
            sql.remove_function(function)
    sql.create_function("stored_image", value, null_handling=FunctionNullHandling.SPECIAL)
    sql.create_function("image_fault", fault, null_handling=FunctionNullHandling.SPECIAL)


def image_files(settings: Settings, root: Path) -> list[str]:
    """The paths of images that the source's rows hold, each once, in their order.

    Raises:
        UserError: when the source cannot be read.
    """
    rules = settings.data.schema_.columns.items()
    columns = [rule.source or column for column, rule in rules if rule.type == "image"]
    if not columns or not settings.data.source.images:
        return []
    with database(settings, root) as sql:
        source = _open(sql, settings, root)
        values = [f"trim(CAST({source[c][0]} AS VARCHAR))" for c in columns if c in source]
        listed = f"SELECT unnest([{', '.join(values)}]) AS x FROM source"
        is_path = " OR ".join(f"suffix(lower(x), {text(suffix)})" for suffix in SUFFIXES)
        query = f"SELECT DISTINCT x FROM ({listed}) WHERE {is_path} ORDER BY x"
        return [path for (path,) in sql.execute(query).fetchall()] if values else []


def limit_threads(sql: duckdb.DuckDBPyConnection, columns: int) -> None:
    """Let what wide queries take grow with their columns: not with their square, nor with the cores.

    A thread holds some thousand values of every column that it reads, and more that it writes.
    """
    if columns > WIDE_COLUMNS:
        sql.execute("SET disabled_optimizers = 'common_subexpressions'")
        ((threads,),) = sql.execute("SELECT current_setting('threads')").fetchall()
        sql.execute(f"SET threads = {max(1, min(threads, MAX_COLUMN_THREADS // columns))}")


def report(root: Path, stage: str, content: Report) -> Report:
    """Write reports/<stage>.json, and give back what it holds."""
    path = root / report_path(stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")
    return content


def first_line(error: Exception) -> str:
    """The first line of the database's message, without its prefix, or what to do about the error."""
    line = str(error).strip().split("\n")[0]
    for sign, advice in ERROR_ADVICE.items():
        if re.search(sign, line, re.IGNORECASE):
            return advice
    return re.sub(r"^([A-Z]\w+ )+(Error|Exception): ", "", line)


def _open(
    sql: duckdb.DuckDBPyConnection, settings: Settings, root: Path, earliest: datetime | None = None
) -> Mapping[str, tuple[str, str]]:
    """Make the view `source`: the rows as they come, their columns named by place; and `whole_source`, without any
    left out.

    Args:
        earliest: only rows from this moment on; None: all.

    Returns:
        the source's columns: name -> (name in the view, type).
    """
    source = settings.data.source
    try:
        if source.kind == "files":
            rows = open_files(sql, source.paths, root, source_columns(settings))
            query = rows.query
            columns: Mapping[str, tuple[str, str]] = rows.columns
            if len(rows.files) > 1:
                # Files read side by side come in any order, and the same rows must give the same file
                sql.execute("SET threads = 1")
        else:
            if source.kind == "sample":
                sql.register("made", sample_events(settings))
                relation = "made"
            else:
                for statement in source.attach:
                    sql.execute(statement)
                relation = f"({(source.query or '').strip().rstrip(';')}\n)"
            described = sql.execute(f"DESCRIBE FROM {relation}").fetchall()
            columns = {row[0]: (f"_{position}", row[1]) for position, row in enumerate(described)}
            query = f"SELECT * FROM {relation} AS _t({', '.join(work_name for work_name, _ in columns.values())})"
        sql.execute(f"CREATE OR REPLACE TEMP VIEW whole_source AS FROM ({query})")
        query, columns = problem_data.long_rows(query, columns, settings)
        query = retained(query, columns, settings, root, earliest)
        limited = source.rows is not None and source.kind != "sample"
        limit = f" LIMIT {source.rows}" if limited else ""
        sql.execute(f"CREATE OR REPLACE TEMP VIEW source AS FROM ({query}){limit}")
    except duckdb.Error as error:
        key = "paths" if source.kind == "files" else "query"
        raise UserError(f"params.yaml: data.source.{key}: {first_line(error)}") from None
    except UserError as error:
        raise UserError(f"params.yaml: data.source.paths: {error}") from None
    return columns


def sample_events(settings: Settings) -> pd.DataFrame:
    """The events of the built-in sample, with the columns that the answer to `inputs` brought."""
    from .sample import make

    rows, seed = settings.data.source.rows, settings.project.seed
    assert rows is not None
    events = make(rows, seed, settings.data.label.delay_days or 0)
    for module in filter(None, map(optional_module, SAMPLE_INPUTS)):
        events = module.add(events, seed)
    return events


def source_columns(settings: Settings) -> list[str]:
    """The names of the source's columns that the schema needs."""
    return [rule.source or column for column, rule in settings.data.schema_.columns.items()]


def _stage(
    sql: duckdb.DuckDBPyConnection,
    settings: Settings,
    source: Mapping[str, tuple[str, str]],
    absent: Collection[str] = (),
) -> None:
    """Read the source, once, into the table `staged`.

    Its columns are named by place, `k0`, `k1`, … as `stored` lists them. Beside them stand `_why`,
    the first rule that the row breaks (NULL: none), `_value`, what it broke it with, and `_raw0`,
    `_raw1`, …: the values as they came of each set of columns in which it breaks one. A personal
    value is in none of these.

    Args:
        absent: columns that the source does not have.
    """
    set_key(sql, settings)
    parts = _parts(settings)
    try:
        if len(parts) == 1:
            query = _typed_part(settings, source, parts[0], "source", absent)
            sql.execute(f"CREATE TABLE staged AS SELECT * RENAME (_raw AS _raw0) FROM ({query})")
        else:  # an expression takes memory of its own: so many columns are worked on a set at a time
            sql.execute("SET threads = 1; CREATE TABLE given AS FROM source")
            for position, part in enumerate(parts):
                query = _typed_part(settings, source, part, "given", absent)
                sql.execute(f"CREATE TABLE part{position} AS {query}")
            _join_parts(sql, len(parts))
    except duckdb.Error as error:
        raise UserError(f"params.yaml: data.source: reading failed: {first_line(error)}") from None
    sql.execute("RESET threads")
    limit_threads(sql, len(settings.data.schema_.columns))


def _parts(settings: Settings) -> list[list[str]]:
    """The schema's columns in sets that are worked on together."""
    columns = list(settings.data.schema_.columns)
    starts = range(0, max(1, len(columns)), WIDE_COLUMNS)
    return [columns[start : start + WIDE_COLUMNS] for start in starts]


def _typed_part(
    settings: Settings,
    source: Mapping[str, tuple[str, str]],
    columns: list[str],
    rows: str,
    absent: Collection[str] = (),
) -> str:
    """SQL for some columns of the source: typed, and whether a row breaks one of their rules."""
    cleaned_values, typed_values, reasons, values, stored_values, raws = [], [], [], [], [], []
    names, label = work_names(settings), settings.data.label
    made = problem_data.made(label) | {
        *settings.data.histories,
        *absent,
    }  # which no source needs to have
    made = made if problem.UNLABELLED is None else {*made, label.column}
    if "labelling" in parts_here():  # people bring the label
        made = {*made, label.column, *filter(None, [label.time])}
    for position, column in enumerate(columns):
        rule = settings.data.schema_.columns[column]
        origin = rule.source or column
        if origin not in source and column not in made:
            key = f"params.yaml: data.schema.columns.{column}"
            raise UserError(f"{key}: the source has no column {origin!r}; {hint(origin, source)}")
        # A label that the source has not yet is one that no row has, and what `label` makes comes later
        empty = ("CAST(NULL AS VARCHAR)", "VARCHAR")
        work_name, kind = empty if column in absent else source.get(origin, empty)
        raw, value = f"r{position}", f"t{position}"
        cleaned_values.append(f"{cleaned(work_name, kind, rule)} AS {raw}")
        typed_values.append(f"{typed(raw, kind.split('(')[0], rule)} AS {value}")
        for reason, broken in checks(rule, raw, value):
            reasons.append(f"WHEN {broken} THEN {text(f'{column} {reason}')}")
            if not rule.personal:
                excerpt = pseudonymized(settings, column, f"CAST({raw} AS VARCHAR)")
                values.append(f"WHEN {broken} THEN left({excerpt}, 80)")
        if column in names:
            stored_values.append(f"{pseudonymized(settings, column, value)} AS {names[column]}")
            raws.append(pseudonymized(settings, column, f"CAST({raw} AS VARCHAR)"))
    return (
        f"WITH cleaned AS (SELECT {', '.join(cleaned_values)} FROM {rows}), "
        f"typed AS (SELECT *, {', '.join(typed_values)} FROM cleaned), "
        f"judged AS (SELECT *, {_case(reasons)} AS _why FROM typed) "
        f"SELECT {', '.join([*stored_values, '_why'])}, "
        f"CASE WHEN _why IS NOT NULL THEN {_case(values)} END AS _value, "
        f"CASE WHEN _why IS NOT NULL THEN CAST([{', '.join(raws)}] AS VARCHAR[]) END AS _raw FROM judged"
    )


def _join_parts(sql: duckdb.DuckDBPyConnection, parts: int) -> None:
    """Make `staged` of the tables `part0`, `part1`, …, which hold the same rows."""
    tables = [f"part{position}" for position in range(parts)]
    columns = ", ".join(f"{table}.* EXCLUDE (_why, _value, _raw)" for table in tables)
    raws = ", ".join(f"{table}._raw AS _raw{position}" for position, table in enumerate(tables))
    first = " ".join(f"WHEN {table}._why IS NOT NULL THEN {table}._value" for table in tables)
    sql.execute(
        f"CREATE TABLE staged AS SELECT {columns}, "
        f"coalesce({', '.join(f'{table}._why' for table in tables)}) AS _why, "
        f"CASE {first} END AS _value, {raws} FROM {' POSITIONAL JOIN '.join(tables)}"
    )
    for table in ("given", *tables):
        sql.execute(f"DROP TABLE {table}")


def work_names(settings: Settings) -> dict[str, str]:
    """What the kept columns are called in tables of work: never as the user calls them."""
    return {column: f"k{position}" for position, column in enumerate(stored(settings))}


def hint(missing: str, available: Iterable[str]) -> str:
    """For a message: the available name nearest to a missing one, or all of them."""
    matches = get_close_matches(missing, list(available), 1)
    return f"is it {matches[0]!r}?" if matches else f"it has {', '.join(available)}"[:200]


def _case(branches: list[str]) -> str:
    return f"CASE {' '.join(branches)} END" if branches else "CAST(NULL AS VARCHAR)"


def set_key(sql: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Tell the database what `pseudonymized` hashes with, and how it masks.

    Raises:
        UserError: when personal values are to be hashed and there is no key.
    """
    personal = any(column.personal for column in settings.data.schema_.columns.values())
    if settings.data.personal == "hash" and personal and not os.environ.get(PERSONAL_KEY):
        raise UserError(
            f"data.personal: hash needs a secret key: `export {PERSONAL_KEY}=...`, then run again"
        )
    sql.execute("SET VARIABLE personal_key = ?", [os.environ.get(PERSONAL_KEY, "")])
    if masks(settings):
        kinds = settings.data.mask
        sql.create_function("masked", lambda value: masked(value, kinds), ["VARCHAR"], "VARCHAR")


def pseudonymized(settings: Settings, column: str, value: str) -> str:
    """SQL for a value as it may be written: by the settings a personal one is hashed, and a text masked."""
    rule = settings.data.schema_.columns[column]
    if column in masks(settings):
        return f"masked({value})"
    if not rule.personal or settings.data.personal == "keep":
        return value
    return f"sha256(getvariable('personal_key') || ':' || {value})"


def typed_columns(settings: Settings, rows: FileRows, names: Collection[str]) -> dict[str, str]:
    """SQL of those of these columns that a file has, each of the schema's type, NULL for what is none."""
    values, columns = {}, settings.data.schema_.columns
    for column in (column for column in columns if column in names):
        origin, rule = columns[column].source or column, columns[column]
        if origin in rows.columns:
            raw, kind = rows.columns[origin]
            values[column] = typed(cleaned(raw, kind, rule), kind.split("(")[0], rule)
    return values


def _check_images(sql: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Refuse a column of which no image can be read: nobody wants all its rows in quarantine."""
    columns = work_names(settings)
    for column, rule in stored(settings).items():
        if rule.type != "image":
            continue
        reasons = {f"{column} {fault}": fault for fault in FAULTS}
        query = (
            f"SELECT _why, any_value(_value), count(*) AS n, (SELECT count({columns[column]}) FROM staged) "
            f"FROM staged WHERE _why IN ({', '.join(map(text, reasons))}) GROUP BY _why ORDER BY n DESC"
        )
        broken = sql.execute(query).fetchall()
        if not broken or broken[0][-1]:
            continue
        why, value, *_ = broken[0]
        total = sum(count for *_, count, _ in broken)
        example = f", such as {value}" if value else ""
        folder = settings.data.source.images
        raise UserError(
            f"params.yaml: data.source.images: {column}: none of {total:,} images can be read; the value "
            f"{reasons[why]}{example}; paths start from {folder or 'no folder (null)'}: is that right?"
        )


def _refuse(sql: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Make the table `refused`: broken rows, rows that repeat what must be unique, unreadable lines."""
    columns = work_names(settings)
    sql.execute("CREATE TABLE repeated (place BIGINT, why VARCHAR)")
    for column, rule in stored(settings).items():
        if rule.unique:
            work_name = columns[column]
            valid = "_why IS NULL AND rowid NOT IN (SELECT place FROM repeated)"
            sql.execute(
                f"INSERT INTO repeated SELECT place, {text(f'{column} comes twice')} FROM (SELECT rowid "
                f"AS place, row_number() OVER (PARTITION BY {work_name} ORDER BY rowid) AS turn "
                f"FROM staged WHERE {valid} AND {work_name} IN (SELECT {work_name} FROM staged "
                f"WHERE {valid} GROUP BY {work_name} HAVING count(*) > 1)) WHERE turn > 1"
            )
    as_text = ", ".join(
        f"CASE WHEN _raw{part} IS NULL THEN CAST({columns[column]} AS VARCHAR) "
        f"ELSE _raw{part}[{position}] END AS {columns[column]}"
        for part, names in enumerate(_parts(settings))
        for position, column in enumerate(filter(columns.__contains__, names), start=1)
    )
    sql.execute(
        f"CREATE TABLE refused AS SELECT {as_text}, coalesce(_why, why) AS _why, "
        f"coalesce(_why || ': ' || _value, _why, why) AS _reason "
        f"FROM staged LEFT JOIN repeated ON staged.rowid = place "
        f"WHERE _why IS NOT NULL OR why IS NOT NULL ORDER BY staged.rowid"
    )
    tables = {row[0] for row in sql.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if "reject_errors" in tables:  # lines of a CSV that do not fit its header; not quoted
        sql.execute(
            "INSERT INTO refused BY NAME SELECT DISTINCT ON (file_id, line) "
            "'a line of the file ' || lower(error_type) AS _why, "
            "'line ' || line || ' of ' || parse_filename(file_path) || ' ' || lower(error_type) AS _reason "
            "FROM reject_errors JOIN reject_scans USING (scan_id, file_id) ORDER BY file_id, line"
        )


def _too_many_refused(settings: Settings, root: Path, rows: int, refused: Mapping[str, int]) -> str:
    """What is said of a source that hardly fits the schema; the quarantine is there to be looked at, the events stay."""
    (root / f"{QUARANTINE}.new").replace(root / QUARANTINE)
    (root / f"{EVENTS}.new").unlink()
    count = sum(refused.values())
    commonest = sorted(refused.items(), key=lambda item: -item[1])[:3]
    reasons = "; ".join(f"{reason} ({number:,})" for reason, number in commonest)
    share, limit = count / (count + rows), settings.data.max_refused
    return (
        f"data.max_refused: {count:,} of {count + rows:,} rows are refused, {share:.1%} where {limit:.1%} are allowed: "
        f"{reasons}; {QUARANTINE} has them"
    )


def _write_events(
    sql: duckdb.DuckDBPyConnection, settings: Settings, root: Path, earliest: datetime | None
) -> CollectReport:
    schema, columns = settings.data.schema_, work_names(settings)
    listed = ", ".join(f"{work_name} AS {name(column)}" for column, work_name in columns.items())
    events = (
        f"SELECT {listed} FROM staged WHERE staged._why IS NULL "
        f"AND staged.rowid NOT IN (SELECT place FROM repeated) ORDER BY staged.rowid"
    )
    carried = 0
    if earliest is not None:
        sql.execute(f"CREATE TABLE carried AS {carried_rows(settings, root, earliest, events)}")
        ((carried,),) = sql.execute("SELECT count(*) FROM carried").fetchall()
        events = f"FROM carried UNION ALL FROM ({events})"
    (root / EVENTS).parent.mkdir(parents=True, exist_ok=True)
    quarantine = f"SELECT {listed}, _reason FROM refused"
    for path, query in ((EVENTS, events), (QUARANTINE, quarantine)):
        target, kind = text(f"{root / path}.new"), PARQUET.removesuffix(")")
        metadata = "KV_METADATA {" + f"{SCHEMA_VERSION}: '{schema.version}'" + "}"
        sql.execute(f"COPY ({query}) TO {target} {kind}, {metadata})")
    file = f"read_parquet({text(str(root / EVENTS) + '.new')})"
    times = f"min({name(schema.time)}), max({name(schema.time)})" if schema.time else "NULL, NULL"
    present = ", ".join(f"count({name(column)})" for column in columns)
    counts = f"SELECT count(*), {times}, {present} FROM {file}"
    ((rows, first, last, *present_counts),) = sql.execute(counts).fetchall()
    reasons = "SELECT _why, count(*) FROM refused GROUP BY ALL ORDER BY ALL"
    refused = dict(sql.execute(reasons).fetchall())
    if not rows:
        fault = max(refused, key=lambda reason: refused[reason]) if refused else "it is empty"
        raise UserError(f"params.yaml: data.source: no row of the source fits the schema: {fault}")
    if sum(refused.values()) > settings.data.max_refused * (rows + sum(refused.values())):
        raise UserError(_too_many_refused(settings, root, rows, refused))
    hidden, texts = anonymity(sql, settings, file), personal_in_texts(sql, settings, file)
    for path in (EVENTS, QUARANTINE):
        (root / f"{path}.new").replace(root / path)
    entries: CollectReport = {
        "source": settings.data.source.kind,
        "schema_version": schema.version,
        "rows_in": rows + sum(refused.values()),
        "rows_kept": rows,
        "rows_refused": sum(refused.values()),
        "refused": refused,
        "columns": {
            column: {"missing": round(1 - count / rows, 6)}
            for column, count in zip(columns, present_counts, strict=True)
        },
        "personal": settings.data.personal,
        "personal_columns": [key for key, rule in schema.columns.items() if rule.personal],
        "masked": [*settings.data.mask] if masks(settings) else [],
        "personal_in_texts": texts,
        "first": first.isoformat() if first else None,
        "last": last.isoformat() if last else None,
    }
    if hidden is not None:
        entries["anonymity"] = hidden
    if earliest is not None:
        entries["rows_carried"] = carried
    return entries
