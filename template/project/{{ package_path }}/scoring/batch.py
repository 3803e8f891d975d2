"""Score files of any size: the same model and the same answers as the service gives, in Parquet.

DuckDB reads and types the rows as `collect` does and spills to disk; threads score pieces of them; the answers are written in the order of the rows, one for each.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import duckdb
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .. import problem
from ..data import schema
from ..data.files import FileRows, find_files, open_files
from ..data.label_rule import label_rule
from ..data.point_in_time import looked_up
from ..data.schema import (
    cleaned,
    has_label,
    name,
    no_label,
    other_form,
    stored,
    text,
    typed,
    value_phrase,
    value_range,
)
from ..data.source import (
    PARQUET,
    database,
    first_line,
    hint,
    images_folder,
    pseudonymized,
    set_key,
    teach_images,
    typed_columns,
)
from ..model import Array, Model, ModelError, SessionChoice
from ..parts import part_module
from ..paths import (
    BASELINE_FILE,
    FEEDBACK,
    GATE,
    MANIFEST_FILE,
    MODEL,
    MODEL_FILE,
    PREDICTIONS,
    PRODUCTION,
    REVIEW,
    TRAINED,
)
from ..problem import data as problem_data
from ..problem.decision import unsure_sql
from ..records import (
    ANSWER,
    EXCLUDED,
    LABEL,
    SCORE_COLUMN,
    STAMP_FORMAT,
    STOPPED,
    WHY_REVIEWED,
    Unreadable,
    view,
)
from ..records import database as log_database
from ..repository import verified
from ..settings import Settings, UserError, read_json
from . import rules

REPEATED = "_repeated "  # and its name: a column of the rows that their answers repeat
EXCLUDED_COLUMN = "_excluded"  # of the rows, where some are: whether no model decides one
CLASS_PREFIX = "_class_"  # and its place: a column of scores on the way to the table
# Likewise, a column of names joined by what stands in no name
REASONS_TEXT, SEPARATOR = "_reasons", "\x1f"
OVERSIGHT = part_module("governance.oversight")  # None: nobody stops the model or excludes rows
MAX_IMAGES = 1_000  # that a thread scores at once
MB_PER_THREAD = 60  # that a thread of the database needs while it takes rows in
NAN = "CAST('nan' AS DOUBLE)"


class BatchSummary(NamedTuple):
    """What a batch was answered by, and of how many rows.

    Attributes:
        refused: rows without a score; flagged: rows with one and with flags.
        unreadable: lines of CSV files that do not fit the header.
        model: its name and version; folder: where it is, below the project.
        fallback: why the baseline answered, or empty.
        notes: what else the reader should know of the files.
    """

    rows: int
    refused: int
    flagged: int
    unreadable: int
    model: str
    folder: str
    fallback: str
    notes: tuple[str, ...] = ()


def score(
    settings: Settings,
    root: Path,
    paths: Sequence[str],
    out: Path,
    fallback: bool = False,
    threads: int | None = None,
    rows: int | None = None,
    log: bool = False,
    ungated: bool = False,
    images: Path | None = None,
) -> BatchSummary:
    """Score every row of the files, and write one answer a row, in their order.

    The columns of `out`: the row's id, or else its place, which with `log` follows the name of this batch, as `feedback`
    takes it; score, decision, confidence, low, high,
    flags, fallback as the service answers them, `score: NAME` of each class where classes have
    scores, and `reasons` where answers name columns that stand out; _model, _data, _code: the versions. A row that the service would refuse has no score, and
    its flags say why.

    Args:
        paths: files, folders or globs of raw rows, as `data.files` reads them; the schema maps their columns.
        fallback: let the baseline answer when the model is missing or damaged.
        threads: that score at once; None: as `scoring.hardware` says.
        rows: that a thread scores at once; None: as that says.
        log: also write what the model saw and said to monitoring/predictions, and what a person should
            look at to monitoring/review, as the service does; a row at its event's time where it has one.
        ungated: let a model answer that has not passed the gate.
        images: the folder that paths of images start from; None: that of the settings. A folder of images is its own.

    Raises:
        UserError: when a file or the model cannot be used, or nothing answers any more; `out` is then as it was.
    """
    if mark := part_module("governance.retired"):
        mark.refuse(root)
    folder = answering_folder(root)
    if not ungated:
        _refuse_ungated(root, folder)
    hardware = settings.scoring.hardware
    session = SessionChoice(hardware.graph, hardware.provider)
    state = OVERSIGHT and OVERSIGHT.read(root)
    stopped = OVERSIGHT.refuse_stopped(state, fallback) if state else ""
    model, reason = _load_model(folder, fallback, session, stopped)
    stand_in = _stand_in(folder) if state and state.excluded else None
    files = [file for path in paths for file in find_files(path, root)]
    unfinished, notes = out.with_name(f"{out.name}.new"), list[str]()
    scratch = out.parent.resolve() / f".{out.name}.{os.getpid()}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with database(settings, root, scratch, ":memory:") as sql:
            _limit(sql, settings)
            set_key(sql, settings)
            for part in _read_together(files):
                if "image" in model.types.values():
                    usual = images or images_folder(settings, root)
                    teach_images(sql, Path(part[0]) if Path(part[0]).is_dir() else usual)
                notes += _stage(sql, settings, root, model, part, state)
            counted = "SELECT count(*), count_if(_refused) FROM staged"
            ((total, refused),) = sql.execute(counted).fetchall()
            if not total:
                raise UserError(f"{', '.join(paths)}: no rows to score")
            rows = min(rows or hardware.rows, MAX_IMAGES if model.images else total)
            threads, answer = (
                threads or hardware.threads or os.cpu_count() or 1,
                partial(answers, model),
            )
            cluster = part_module("cluster.workers")
            if workers := cluster and cluster.connect(settings):
                threads, answer = workers.scoring(
                    folder, BASELINE_FILE if reason else MODEL_FILE, session
                )
            rules.check(model.types, model.classes)
            _score_rows(sql, model, total, threads, rows, answer)
            if stand_in:
                notes += _answer_excluded(sql, stand_in, rows)
            if problem.LISTED:
                _rank_lists(sql, model)
            stamp = _batch_stamp() if log else ""
            key = _write_scores(sql, model, unfinished, bool(reason), stamp, stand_in)
            flagged = _count_flagged(sql)
            notes += _rule_counts(sql)
            if log:
                failed = STOPPED if stopped else reason
                _append_logs(sql, settings, model, root, key, failed, stamp, stand_in)
            unreadable = _count_unreadable(sql)
        unfinished.replace(out)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}; nothing was written") from None
    finally:
        unfinished.unlink(missing_ok=True)
    model_name, location = f"{model.name} {model.version}", folder.relative_to(root).as_posix()
    counts = total, refused, flagged, unreadable
    return BatchSummary(*counts, model_name, location, reason, tuple(notes))


def _read_together(files: Sequence[str]) -> list[list[str]]:
    """Files in the order that they are read in: one by one, but for those of series, whose steps may stand in several."""
    parts: list[list[str]] = []
    for file in files:
        if problem.HISTORIES and parts and not any(map(os.path.isdir, (file, parts[-1][0]))):
            parts[-1].append(file)
        else:
            parts.append([file])
    return parts


def answering_folder(root: Path) -> Path:
    """The folder of the model that answers: production's, or else that of the model just trained.

    Raises:
        UserError: when the model in production is not the one that git names.
    """
    production = verified(root, PRODUCTION)
    return production if production.is_dir() else root / TRAINED


def _limit(sql: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Give the database half of the memory; the other half is for what is being scored."""
    limit = re.fullmatch(r"([\d.]+)\s?([MG])(i?)B", settings.data.source.memory_limit)
    assert limit is not None  # the settings are checked
    size = float(limit[1]) * {"M": 1, "G": 1000}[limit[2]] / 2
    threads = max(1, min(os.cpu_count() or 1, int(size // MB_PER_THREAD)))
    sql.execute("SET memory_limit = ?", [f"{size:.0f}{'Mi' if limit[3] else 'M'}B"])
    sql.execute("SET threads = ?", [threads])


def _refuse_ungated(root: Path, folder: Path) -> None:
    """Refuse a model of which the gate says that it missed, or says nothing while it speaks of another.

    What is in production was promoted, and so has passed.
    """
    files = (root / GATE, folder / MANIFEST_FILE)
    if folder != root / TRAINED or not all(map(Path.is_file, files)):
        return
    gate, model = read_json(root / GATE), read_json(folder / MANIFEST_FILE)["sha256"]
    if not gate.get("passed") or gate.get("model") != model:
        reason = "missed the gate" if gate.get("model") == model else "was not before the gate"
        raise UserError(
            f"{MODEL} {reason} ({GATE}): `gate` says why; --ungated lets it answer all the same"
        )


def _load_model(
    folder: Path, fallback: bool, session: SessionChoice, stopped: str
) -> tuple[Model, str]:
    """The model and "", or the baseline that may stand in for it and the reason why it does.

    Args:
        stopped: why the model may not answer; empty where it may.
    """
    try:
        if not stopped:
            return Model(folder, session=session), ""
        reason = stopped
    except ModelError as error:
        if not fallback:
            raise UserError(
                f"{error}; a batch has no fallback unless you ask for it: --fallback lets the "
                f"baseline answer"
            ) from None
        reason = str(error)
    try:
        return Model(folder, "baseline.onnx"), reason
    except ModelError as error:
        raise UserError(f"{reason}; and of the baseline: {error}") from None


def _stand_in(folder: Path) -> Model:
    """The baseline, which answers rows that no model decides.

    Raises:
        UserError: when it cannot be used.
    """
    try:
        return Model(folder, "baseline.onnx")
    except ModelError as error:
        raise UserError(
            f"{error}; the baseline answers whoever is excluded from the model"
        ) from None


def _stage(
    sql: duckdb.DuckDBPyConnection,
    settings: Settings,
    root: Path,
    model: Model,
    files: list[str],
    state: Any,
) -> list[str]:
    """Append the rows of files to the table `staged`: id, what the model takes, flags, and whether refused.

    Args:
        state: what people took out of the models' hands; None where no part of the project lets them.

    Returns:
        what the reader should know of series that the files hold.
    """
    columns, file = settings.data.schema_.columns, ", ".join(files)
    names = [*(entry["name"] for entry in model.inputs), settings.data.schema_.time]
    sources = [columns[column].source or column for column in names if column in columns]
    try:
        rows = open_files(sql, files, Path(), sources)
        if problem.HISTORIES:
            long_query, long_columns = problem_data.long_rows(rows.query, rows.columns, settings)
            rows = replace(rows, query=long_query, columns=dict(long_columns), notes=[])
            rows = _with_paths(sql, settings, rows)
        rows = _with_histories(settings, root, model, file, rows)
        query = _staging_query(
            settings, model, file, rows, _excluded_sql(sql, settings, state, file, rows)
        )
        tables = sql.execute("FROM duckdb_tables() WHERE table_name = 'staged'").fetchall()
        sql.execute(f"{'INSERT INTO staged' if tables else 'CREATE TABLE staged AS'} {query}")
    except duckdb.Error as error:
        raise UserError(f"{file}: {first_line(error)}") from None
    return rows.notes if problem.HISTORIES else []


def _with_paths(sql: duckdb.DuckDBPyConnection, settings: Settings, rows: FileRows) -> FileRows:
    """The rows themselves, or of a table of series, whose rows hold no histories, those of the steps ahead."""
    columns, label = settings.data.schema_.columns, cast(Any, settings.data.label)
    origins = {column: rule.source or column for column, rule in columns.items()}
    made = problem_data.made(label)
    needs = {settings.data.schema_.time, label.column, *problem_data.repeated(label)} - made
    if not made or origins.get(str(label.history)) in rows.columns:
        return rows
    if any(origins.get(str(column)) not in rows.columns for column in needs):
        return rows  # what is missing is told of the rows as they are
    values = typed_columns(settings, rows, {*columns} - made).items()
    typed_sql = ", ".join(f"{value} AS {name(column)}" for column, value in values)
    sql.execute(f"CREATE OR REPLACE TABLE events AS SELECT {typed_sql} FROM ({rows.query})")
    table = problem_data.future(sql, settings)
    made_columns = sql.execute(f"DESCRIBE {table}").fetchall()
    counts = (
        f"(SELECT count(DISTINCT {name(label.series)}) FROM {of})" for of in ("events", table)
    )
    (series, continued) = sql.execute(f"SELECT {', '.join(counts)}").fetchall()[0]
    ended = f"{series - continued:,} of {series:,} series have no value as late as a history reaches, and no forecast"
    return FileRows(
        notes=[ended] if continued < series else [],
        query=f"FROM {table}",
        columns={origins[row[0]]: (name(row[0]), row[1]) for row in made_columns},
        headers=[row[0] for row in made_columns],
    )


def _with_histories(
    settings: Settings, root: Path, model: Model, file: str, rows: FileRows
) -> FileRows:
    """The rows with what the online store knows of them, where the model reads histories that they have not.

    Raises:
        UserError: when there is no such store, or the rows do not say what it would know something of.
    """
    columns, made = settings.data.schema_.columns, settings.data.histories
    read = [entry["name"] for entry in model.inputs if entry["name"] in made]
    absent = [name_ for name_ in read if (columns[name_].source or name_) not in rows.columns]
    if not absent:
        return rows
    store = root / str(settings.scoring.online_store)
    if not store.is_file():
        raise UserError(
            f"{file}: has no column {absent[0]!r}, and {store} is not there: `materialize` makes it"
        )
    keys = typed_columns(settings, rows, {made[column].by for column in absent})
    for column in absent:
        if (by := made[column].by) not in keys:
            raise UserError(f"{file}: has no column {by!r}; {hint(by, rows.columns)}")
    keys = {column: pseudonymized(settings, column, value) for column, value in keys.items()}
    query = looked_up(rows.query, settings, store, absent, keys)
    added = {columns[column].source or column: (name(column), "VARCHAR") for column in absent}
    return replace(rows, query=query, columns={**rows.columns, **added})


def _repeated(settings: Settings, source: FileRows) -> dict[str, str]:
    """SQL for the columns that the answers repeat, by the name that they have there."""
    names = {*problem_data.repeated(settings.data.label)} & {*stored(settings)}
    values = typed_columns(settings, source, names).items()
    return {column: pseudonymized(settings, column, value) for column, value in values}


def _excluded_sql(
    sql: duckdb.DuckDBPyConnection, settings: Settings, state: Any, file: str, source: FileRows
) -> str:
    """SQL of whether no model decides a row of a source; empty where nobody is excluded."""
    if not state or not state.excluded:
        return ""
    values = typed_columns(settings, source, {column for column, _ in state.excluded}).items()
    logged = {column: pseudonymized(settings, column, value) for column, value in values}
    excluded = str(OVERSIGHT.is_excluded_sql(settings, state, file, logged))
    if not problem.LISTED:
        return excluded
    # Places hang on one another: a list goes as a whole
    key = _list_keys(settings, file, source)["_list"]
    lists = sql.execute(f"SELECT DISTINCT {key} FROM ({source.query}) WHERE {excluded}").fetchall()
    return f"{key} IN ({', '.join(text(row[0]) for row in lists)})" if lists else "false"


def _staging_query(
    settings: Settings, model: Model, file: str, source: FileRows, excluded: str
) -> str:
    """SQL for the rows of one source; the positions of the model's inputs name the columns."""
    data = settings.data
    refuse = settings.scoring.out_of_range == "refuse"
    cleaned_sql, typed_sql, inputs_sql = [], [], []
    invalid, unusual, gaps, optional = [], [], [], list[str]()
    for position, entry in enumerate(model.inputs):
        column, rule = entry["name"], data.schema_.columns.get(entry["name"])
        if rule is None or rule.type != entry["type"]:
            raise UserError(
                f"params.yaml: data.schema.columns.{column}: the model was trained on it as "
                f"{entry['type']}; train again"
            )
        origin, raw, value = rule.source or column, f"r{position}", f"t{position}"
        is_event_time = rule.type == "time" and column == data.schema_.time
        if origin in source.columns:
            source_sql, kind = source.columns[origin]
            cleaned_sql.append(f"{cleaned(source_sql, kind, rule)} AS {raw}")
            typed_sql.append(f"{typed(raw, kind.split('(')[0], rule)} AS {value}")
        elif is_event_time:
            cleaned_sql.append(f"NULL AS {raw}")
            typed_sql.append(f"CAST(NULL AS TIMESTAMP) AS {value}")
        else:
            raise UserError(f"{file}: has no column {origin!r}; {hint(origin, source.columns)}")
        # A text is masked by the model, as at training
        fed = pseudonymized(settings, column, value) if rule.personal else value
        inputs_sql.append(f"{_model_value(fed, rule.type, is_event_time)} AS c{position}")

        bounds = None if rule.personal else value_range(rule, entry)
        requirement = text(
            f" is not {value_phrase(rule, bounds, rule.required and column != data.schema_.time)}"
        )
        excerpt = "'a value'" if rule.personal else f"left(CAST({raw} AS VARCHAR), 80)"
        message = f"{text(column + ': ')} || coalesce({excerpt}, 'null') || {requirement}"
        if rule.type in schema.TYPE_PHRASES:
            fault = f"{text(column + ': ')} || {excerpt} || ' ' || image_fault({raw})"
            misfit = fault if rule.type == "image" else message
            invalid.append((f"{raw} IS NOT NULL AND {value} IS NULL", misfit))
        if rule.required and not is_event_time:
            invalid.append((f"{raw} IS NULL", message))
        if entry.get("gaps"):
            gaps.append((f"{raw} IS NULL", text(f"{column}: {schema.NO_GAP}")))
        optional += [f"{raw} IS NULL"] * (not rule.required and not is_event_time)
        if bounds:
            low, high, allowed = bounds
            message = message.replace(excerpt, f"left(CAST({value} AS VARCHAR), 80)")
            if allowed is None:
                unusual.append((f"{value} NOT BETWEEN {low!r} AND {high!r}", message))
            else:
                unusual.append((schema.none_of(value, sorted(allowed)), message))
    if fault := other_form(settings, model.images):
        raise UserError(f"params.yaml: {fault}")
    gaps.append((" AND ".join(optional) or "false", text(schema.NO_VALUE)))
    flagged = invalid + unusual + gaps
    refused = _any_of(flagged if refuse else invalid)
    flagged = flagged + [(EXCLUDED_COLUMN, text(OVERSIGHT.FLAGS[EXCLUDED]))] * bool(excluded)
    flags = ", ".join(f"CASE WHEN {condition} THEN {flag} END" for condition, flag in flagged)
    raw_id, id_sql = _id_sql(settings, source)
    cleaned_sql.append(f"{raw_id} AS id")
    cleaned_sql.append(f"{_event_time(settings, source)} AS moment")
    keys = _list_keys(settings, file, source) if problem.LISTED else {}
    keys |= {name(REPEATED + n): value for n, value in _repeated(settings, source).items()}
    keys |= {EXCLUDED_COLUMN: f"({excluded})"} if excluded else {}
    cleaned_sql += [f"{value} AS {key}" for key, value in keys.items()]
    return (
        f"WITH cleaned AS (SELECT {', '.join(cleaned_sql)} FROM ({source.query})), "
        f"typed AS (SELECT *, {', '.join(typed_sql)} FROM cleaned) "
        f"SELECT {id_sql} AS _id, moment AS _at, {', '.join([*inputs_sql, *keys])}, {refused} AS _refused, "
        f"CASE WHEN {_any_of(flagged)} THEN list_filter([{flags}], lambda flag: flag IS NOT NULL) "
        f"ELSE CAST([] AS VARCHAR[]) END AS _flags FROM typed"
    )


def _id_sql(settings: Settings, source: FileRows) -> tuple[str, str]:
    """SQL for the id in a file, as `id`, and of `id` as the log has it; of rows without one, NULL."""
    data = settings.data
    key = data.schema_.id
    rule = data.schema_.columns[key] if key else None
    dropped = rule is not None and rule.personal and data.personal == "drop"
    if not rule or not key or dropped or (rule.source or key) not in source.columns:
        return "1", "CAST(NULL AS VARCHAR)"
    raw = f"CAST({source.columns[rule.source or key][0]} AS VARCHAR)"
    return raw, pseudonymized(settings, key, "trim(id)")


def _list_keys(settings: Settings, file: str, source: FileRows) -> dict[str, str]:
    """SQL for what tells the lists of a file apart, and their items' topics, as texts.

    Without a column for lists, all rows are one.
    """
    columns, keys = settings.data.schema_.columns, {"_list": "''"}
    for key, column in zip(
        ("_list", "_topic"), problem_data.list_columns(settings.data.label), strict=True
    ):
        rule = columns[column] if column else None
        origin = rule and (rule.source or column)
        if rule and origin in source.columns:
            source_sql, kind = source.columns[origin]
            keys[key] = cleaned(source_sql, kind, rule)
        elif rule and key == "_list":
            raise UserError(
                f"{file}: has no column {origin!r}; {hint(str(origin), source.columns)}"
            )
    return {
        key: f"coalesce(CAST({keys.get(key, 'NULL')} AS VARCHAR), '')"
        for key in ("_list", "_topic")
    }


def _event_time(settings: Settings, source: FileRows) -> str:
    """SQL for the moment that a row speaks of, NULL where it does not say."""
    columns, column = settings.data.schema_.columns, settings.data.schema_.time
    rule = columns[column] if column else None
    origin = rule and (rule.source or column)
    if (
        rule is None
        or origin not in source.columns
        or (rule.personal and settings.data.personal != "keep")
    ):
        return "CAST(NULL AS TIMESTAMP)"
    source_sql, kind = source.columns[origin]
    return typed(cleaned(source_sql, kind, rule), kind.split("(")[0], rule)


def _any_of(conditions: list[tuple[str, str]]) -> str:
    if not conditions:
        return "false"
    return f"coalesce({' OR '.join(f'({condition})' for condition, _ in conditions)}, false)"


def _model_value(value: str, kind: str, is_event_time: bool) -> str:
    """SQL for a typed value as the model takes it: missing is NaN, '' or, for the event's time, now."""
    match kind:
        case "category" | "text" | "image" | "history":
            return f"coalesce({value}, '')"
        case "time":
            missing = "epoch(CAST(now() AS TIMESTAMP))" if is_event_time else NAN
            return f"coalesce(epoch({value}), {missing})"
        case _:
            return f"coalesce(CAST({value} AS DOUBLE), {NAN})"


def answers(model: Model, columns: Mapping[str, Array], ruled: bool = True) -> dict[str, Array]:
    """What a model and the rules answer to n rows: columns of shape (n,), as the table `scored` takes them.

    Args:
        ruled: whether rules may settle a row.

    Raises:
        UserError: when a score is not finite.
    """
    answered = _answer_columns(model, model.score(columns), columns)
    if problem.REASONS:  # as one text: the database tells no type of nothing but empty lists
        joined = [SEPARATOR.join(row) for row in model.reasons(columns)]
        answered[REASONS_TEXT] = np.array(joined, object)
    held = np.full(len(answered["score"]), "", object)
    if rules.RULES:
        held = rules.held(rules.as_arrays(columns, model.types), len(held))
        if not ruled:  # those that let a person look still hold
            held = np.array(["" if rules.answers(rule) else rule for rule in held], object)
        _settle(answered, held, model.classes)
    return answered | {"_rule": held}


def _score_rows(
    sql: duckdb.DuckDBPyConnection,
    model: Model,
    total: int,
    threads: int,
    rows: int,
    answer: Callable[[Mapping[str, Array]], dict[str, Array]],
) -> None:
    """Fill the table `scored`, a row for each of `staged`, in its order; `answer`: as `answers` does of that model."""
    wide = ", scores DOUBLE[]" if problem.WIDE else ""
    wide += ", reasons VARCHAR[]" if problem.REASONS else ""
    wide += ", _rule VARCHAR"
    sql.execute(
        f"CREATE TABLE scored (score DOUBLE, decision {problem.DECISION_TYPE}, confidence DOUBLE, "
        f"low DOUBLE, high DOUBLE{wide})"
    )
    columns = ", ".join(f"c{position}" for position in range(len(model.inputs)))
    names = [entry["name"] for entry in model.inputs]

    def score_piece(start: int) -> dict[str, Array]:
        with sql.cursor() as cursor:
            # A piece is read by one thread: the others have their own
            values: dict[str, Any] = cursor.execute(
                f"SELECT {columns} FROM staged WHERE rowid BETWEEN ? AND ? ORDER BY rowid",
                [start, start + rows - 1],
            ).fetchnumpy()
        return answer(dict(zip(names, values.values(), strict=True)))

    with _progress_bar() as bar, ThreadPoolExecutor(threads) as pool:
        task = bar.add_task("score", total=total)
        sql.execute("BEGIN")
        for part in _results_in_order(pool, score_piece, range(0, total, rows), 2 * threads):
            sql.execute(f"INSERT INTO scored BY NAME {_select_answers(part)} FROM part")
            bar.update(task, advance=len(part["score"]))
        sql.execute("COMMIT")


def _answer_excluded(sql: duckdb.DuckDBPyConnection, baseline: Model, rows: int) -> list[str]:
    """Put the baseline's answers in `scored` in the place of a model's or a rule's, of rows that neither decides; how
    many, in words."""
    columns = ", ".join(f"c{position}" for position in range(len(baseline.inputs)))
    names = [entry["name"] for entry in baseline.inputs]
    sql.execute("CREATE TABLE held AS SELECT 0::BIGINT AS _row, * FROM scored LIMIT 0")
    numbers = sql.execute(
        f"SELECT rowid FROM staged WHERE {EXCLUDED_COLUMN} ORDER BY 1"
    ).fetchnumpy()
    (row_ids,) = numbers.values()
    for start in range(0, len(row_ids), rows):
        _row = row_ids[start : start + rows]
        taken = {"_row": _row}  # noqa: F841  # the database reads it by its name
        values: dict[str, Any] = sql.execute(
            f"SELECT {columns} FROM staged JOIN taken ON staged.rowid = taken._row ORDER BY staged.rowid"
        ).fetchnumpy()
        inputs = dict(zip(names, values.values(), strict=True))
        part = answers(baseline, inputs, ruled=False) | {"_row": _row}
        sql.execute(f"INSERT INTO held BY NAME {_select_answers(part)}, _row FROM part")
    columns = ", ".join(
        f"CASE WHEN _row IS NULL THEN scored.{column} ELSE held.{column} END AS {column}"
        for column, *_ in sql.execute("DESCRIBE scored").fetchall()
    )
    sql.execute(
        f"CREATE TABLE merged AS SELECT {columns} FROM scored LEFT JOIN held ON scored.rowid = _row "
        "ORDER BY scored.rowid; DROP TABLE scored; ALTER TABLE merged RENAME TO scored"
    )
    return [f"{len(row_ids):,} rows are excluded: a person decides, the baseline answers"]


def _rank_lists(sql: duckdb.DuckDBPyConnection, model: Model) -> None:
    """Put in `scored` the place of each row in its list: as a list may lie in several pieces, of all rows at once."""
    columns = sql.execute(
        "SELECT score, _list, _topic, _refused FROM staged POSITIONAL JOIN scored"
    ).fetchnumpy()
    score, lists, topics, refused = (np.ma.filled(column, None) for column in columns.values())
    taken = np.flatnonzero(~refused.astype(bool))
    slot = np.full(len(score), np.nan)
    slot[taken], _ = model.arranged(score[taken], lists[taken].tolist(), topics[taken].tolist())
    slots = {"place": slot}  # noqa: F841  # the database reads it by its name
    sql.execute(
        "CREATE TABLE ranked AS SELECT scored.* REPLACE (place AS decision), TRY_CAST(place AS INTEGER) AS rank "
        "FROM scored POSITIONAL JOIN slots; DROP TABLE scored; ALTER TABLE ranked RENAME TO scored"
    )


def _results_in_order(
    pool: ThreadPoolExecutor, function: Any, starts: range, max_waiting: int
) -> Iterator[dict[str, Array]]:
    """The function's results of all starts in their order, never more than `max_waiting` of them waiting."""
    waiting: deque[Future[dict[str, Array]]] = deque()
    for start in starts:
        waiting.append(pool.submit(function, start))
        if len(waiting) >= max_waiting:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _answer_columns(model: Model, score: Array, rows: Mapping[str, Array]) -> dict[str, Array]:
    """The columns of a model's answers to n scores, each of shape (n,).

    Raises:
        UserError: when a score is not finite.
    """
    if not np.isfinite(score).all():
        raise UserError(f"{model.name} {model.version} gave no finite score for some row")
    columns = model.table(score, rows)
    scores = columns.pop("scores", np.empty((len(score), 0)))
    return columns | {f"{CLASS_PREFIX}{i}": column for i, column in enumerate(scores.T.copy())}


def _settle(answers: dict[str, Array], held: Array, classes: Sequence[str]) -> None:
    """Put the answers of rules in the place of the model's, as the service gives them.

    Args:
        answers: the model's, by column; changed in place.
        held: the rule that holds of each row, shape (n,).
    """
    for rule in filter(rules.answers, set(held)):
        values = rules.columns_of(rule, classes)
        scores = values["scores"] if problem.WIDE else ()
        values |= {f"{CLASS_PREFIX}{i}": share for i, share in enumerate(scores)}
        for column, value in (values | {REASONS_TEXT: ""}).items():
            if column in answers:
                answers[column] = np.where(held == rule, value, answers[column])


def _count_flagged(sql: duckdb.DuckDBPyConnection) -> int:
    """How many rows have a score and flags, those of rules too."""
    has_flags = f"NOT _refused AND len({_flags_sql()}) > 0"
    query = f"SELECT count_if({has_flags}) FROM staged POSITIONAL JOIN scored"
    return int(sql.execute(query).fetchall()[0][0])


def _rule_counts(sql: duckdb.DuckDBPyConnection) -> list[str]:
    """How many rows each rule holds of, in words."""
    query = "SELECT _rule, count(*) FROM staged POSITIONAL JOIN scored WHERE _rule <> '' AND NOT _refused GROUP BY 1 ORDER BY 1"
    counts = sql.execute(query).fetchall() if rules.RULES else []
    outcomes = {True: "were answered by it", False: "go to a person"}
    return [
        f"{n:,} rows: {rules.flag(rule)}; they {outcomes[rules.answers(rule)]}"
        for rule, n in counts
    ]


def _flags_sql(for_a_person: bool = False) -> str:
    """SQL for the flags of a row, those of rules too; `for_a_person`: but for rules that settle the row."""
    cases = " ".join(
        f"WHEN {text(rule)} THEN [{text(rules.flag(rule))}]"
        for rule in rules.RULES
        if not (for_a_person and rules.answers(rule))
    )
    return f"list_concat(_flags, CASE _rule {cases} ELSE [] END)" if cases else "_flags"


def _select_answers(part: dict[str, Array]) -> str:
    """SQL for the columns of answers, those of the classes as one list."""
    columns = [column for column in part if not column.startswith("_")]
    # None, where a rule answers
    columns = [f"nullif({c}, 'nan') AS {c}" if part[c].dtype.kind == "f" else c for c in columns]
    columns.append("_rule")
    if class_columns := [column for column in part if column.startswith(CLASS_PREFIX)]:
        columns.append(f"[{', '.join(class_columns)}] AS scores")
    if REASONS_TEXT in part:
        split = f"string_split({REASONS_TEXT}, chr({ord(SEPARATOR)}))"
        columns.append(f"CASE WHEN {REASONS_TEXT} = '' THEN [] ELSE {split} END AS reasons")
    return f"SELECT {', '.join(columns)}"


def _write_scores(
    sql: duckdb.DuckDBPyConnection,
    model: Model,
    file: Path,
    fallback: bool,
    stamp: str,
    stand_in: Model | None,
) -> str:
    """Write the answers; returns SQL for the id of each: where rows have none, their place after the batch's stamp."""
    columns = ["score", "decision", "confidence", "low", "high", *["rank"] * problem.LISTED]
    answers = ", ".join(
        f"CASE WHEN NOT _refused THEN {column} END AS {column}" for column in columns
    )
    if problem.REASONS:
        answers += ", CASE WHEN NOT _refused THEN reasons END AS reasons"
    classes = model.classes if problem.WIDE else []
    answers += "".join(
        f", CASE WHEN NOT _refused THEN scores[{position + 1}] END AS {name(f'score: {label}')}"
        for position, label in enumerate(classes)
    )
    staged = [row[0] for row in sql.execute("DESCRIBE staged").fetchall()]
    repeated = {n: n.removeprefix(REPEATED) for n in staged if n.startswith(REPEATED)}
    taken = {"id", *columns, "flags", "fallback"}
    answers = (
        "".join(
            f"{name(n)} AS {name(f'_{column}' if column in taken else column)}, "
            for n, column in repeated.items()
        )
        + answers
    )
    versions = ", ".join(f"{value} AS {key}" for key, value in _versions(model, stand_in).items())
    by_fallback = EXCLUDED_COLUMN if stand_in and not fallback else str(fallback).lower()
    ((has_ids,),) = sql.execute("SELECT count(_id) > 0 FROM staged").fetchall()
    row_number = "row_number() OVER () - 1"
    key = "_id" if has_ids else f"{text(f'{stamp}-')} || ({row_number})" if stamp else row_number
    sql.execute(
        f"COPY (SELECT {key} AS id, {answers}, {_flags_sql()} AS flags, {by_fallback} AS fallback, "
        f"{versions} FROM staged POSITIONAL JOIN scored) TO {text(str(file))} {PARQUET}"
    )
    return key


def _append_logs(
    sql: duckdb.DuckDBPyConnection,
    settings: Settings,
    model: Model,
    root: Path,
    key: str,
    fallback: str,
    stamp: str,
    stand_in: Model | None,
) -> None:
    """Append answers and inputs to the prediction log, and to the queue for people what was odd or unsure;
    a row without a time (or with one to come) is logged at the present."""
    columns = []
    for position, entry in enumerate(model.inputs):
        value = f"CASE WHEN isnan(c{position}) THEN NULL ELSE c{position} END"
        match entry["type"]:
            case "category" | "text" | "image" | "history":
                value = f"nullif(c{position}, '')"
                value = f"masked({value})" if entry["name"] in schema.masks(settings) else value
            case "time":
                value = f"make_timestamp(CAST(1e6 * ({value}) AS BIGINT))"
        columns.append(f"CAST({value} AS {schema.TYPES[entry['type']]}) AS {name(entry['name'])}")
    lists = dict(
        zip(("_list", "_topic"), problem_data.list_columns(settings.data.label), strict=True)
    )
    for raw, column in lists.items() if problem.LISTED else ():
        if column and column not in model.types:  # what `rank` came from
            columns.append(f"nullif({raw}, '') AS {name(column)}")
    reason = text(fallback) if fallback else "NULL"
    if stand_in:
        reason = f"CASE WHEN {EXCLUDED_COLUMN} THEN {text(EXCLUDED)} ELSE {reason} END"
    values = {
        **{"_id": key, "_time": f"least(coalesce(_at, {_now_sql()}), {_now_sql()})"},
        **{"_arm": "'champion'", "_propensity": "1.0", "_assigned": "true", "_answered": "true"},
        **{"_score": "scored.score", "_decision": "scored.decision", "_decision_propensity": "1.0"},
        "_explored": "false",
        **{"_confidence": "scored.confidence", "_low": "scored.low", "_high": "scored.high"},
        **{"_fallback": reason, "_flags": _flags_sql()},
        **_versions(model, stand_in),
        "_rule": "nullif(_rule, '')",
        **({SCORE_COLUMN: "scored.scores"} if problem.WIDE else {}),
        **({"_reasons": "scored.reasons"} if problem.REASONS else {}),
    }
    fields = [f"CAST({values.get(key, 'NULL')} AS {kind}) AS {key}" for key, kind in ANSWER.items()]
    rows = "FROM staged POSITIONAL JOIN scored WHERE NOT _refused"
    query = f"SELECT {', '.join([*fields, *columns])}"
    _append_file(sql, root / PREDICTIONS, stamp, f"{query} {rows}")
    (reason_column,) = WHY_REVIEWED
    query += f", {_review_reason(model, settings)} AS {reason_column} {rows}"
    ((queued,),) = sql.execute(f"SELECT count({reason_column}) FROM ({query})").fetchall()
    if queued:
        _append_file(sql, root / REVIEW, stamp, f"FROM ({query}) WHERE {reason_column} IS NOT NULL")


def _append_file(sql: duckdb.DuckDBPyConnection, log: Path, stamp: str, query: str) -> int:
    """Add a file with these rows to a log; returns how many."""
    log.mkdir(parents=True, exist_ok=True)
    unfinished = log / f"{stamp}.parquet.new"
    try:
        ((rows,),) = sql.execute(f"COPY ({query}) TO {text(str(unfinished))} {PARQUET}").fetchall()
        unfinished.replace(log / f"{stamp}.parquet")
    finally:
        unfinished.unlink(missing_ok=True)
    return int(rows)


def _review_reason(model: Model, settings: Settings) -> str:
    """SQL for why a person should look at a row, NULL when nobody has to: as `Model.unsure` has it."""
    margin = settings.scoring.review_margin
    unsure, reason = unsure_sql(model.decision, margin)
    flags = _flags_sql(for_a_person=True)
    return (
        f"CASE WHEN len({flags}) > 0 THEN array_to_string({flags}, '; ') WHEN {_settled_sql()} THEN NULL "
        f"WHEN {unsure} THEN {text(reason)} END"
    )


def _settled_sql() -> str:
    """SQL for whether a rule answers a row."""
    names = [text(rule) for rule in rules.RULES if rules.answers(rule)]
    return f"_rule IN ({', '.join(names)})" if names else "false"


def _versions(model: Model, stand_in: Model | None) -> dict[str, str]:
    """SQL for the versions of model, data and code, by column of the log; `stand_in`: what answers whoever is excluded."""
    kinds = {kind: str(model.manifest.get(f"{kind}_version"))[:12] for kind in ("data", "code")}
    answered_by = (
        f"CASE WHEN {_settled_sql()} THEN {text(rules.ANSWERED)} ELSE {text(model.version)} END"
    )
    if stand_in:
        version = text(stand_in.version)
        answered_by = f"CASE WHEN {EXCLUDED_COLUMN} THEN {version} ELSE {answered_by} END"
    return {"_model": answered_by, **{f"_{kind}": text(value) for kind, value in kinds.items()}}


def _now_sql() -> str:
    return f"TIMESTAMP '{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}'"


def _batch_stamp() -> str:
    return f"{time.strftime(STAMP_FORMAT, time.gmtime())}-{os.getpid()}-batch"


def feedback(settings: Settings, root: Path, file: str, key: str, label: str) -> int:
    """Append the labels of a file to the log that the monitor reads.

    Args:
        key: the column with the ids of the predictions; label: the column with what came true.

    Returns:
        how many labels there were; rows without one are passed over.

    Raises:
        UserError: when the file cannot be read, or a label is not one of the settings' labels; nothing
            is written then.
    """
    with read_label_file(settings, root, file, key, label) as sql:
        values = {column: f"CAST(NULL AS {kind})" for column, kind in LABEL.items()}
        # A label has the type that the column gives it
        values |= {"_id": "_id", "_time": _now_sql(), "_label": "_label"}
        selected = ", ".join(f"{value} AS {column}" for column, value in values.items())
        query = f"SELECT {selected} FROM labels"
        return _append_file(sql, root / FEEDBACK, _batch_stamp(), query)


@contextmanager
def read_label_file(
    settings: Settings, root: Path, file: str, key: str, label: str
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database whose table `labels` has the labels of a file: `_id` as text, and `_label` as the log has it.

    Args:
        key: the column with what rows are named by; label: the column with the labels.

    Raises:
        UserError: when the file cannot be read, or a label is not one of the settings' labels.
    """
    columns, id_column = settings.data.schema_.columns, settings.data.schema_.id
    rule = label_rule(settings, _label_values(root))
    try:
        with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as sql:
            sql.execute("SET temp_directory = ?", [scratch])
            sql.execute("SET TimeZone = 'UTC'")
            is_id = key in (id_column, columns[id_column].source) if id_column else False
            # By the project's names, or as the file that was adopted has them
            origins = {c: columns[c].source or c for c in (key, label) if c in columns}
            rows = open_files(sql, [file], root, (key, label, *origins.values()))
            key, label = (
                origins[c] if c not in rows.columns and origins.get(c) in rows.columns else c
                for c in (key, label)
            )
            for column in (key, label):
                if column not in rows.columns:
                    raise UserError(
                        f"{file}: has no column {column!r}; {hint(column, rows.columns)}"
                    )
            id_sql = f"trim(CAST({rows.columns[key][0]} AS VARCHAR))"
            if id_column and is_id:
                set_key(sql, settings)
                id_sql = pseudonymized(settings, id_column, id_sql)  # as the log has it
            sql.execute(
                f"CREATE TABLE labels AS SELECT _id, raw, {rule.sql('raw')} AS _label FROM (SELECT {id_sql} AS _id, "
                f"nullif(trim(CAST({rows.columns[label][0]} AS VARCHAR)), '') AS raw FROM ({rows.query})) "
                f"WHERE _id IS NOT NULL AND {has_label('raw', no_label(settings))}"
            )
            query = "SELECT raw, count(*) OVER () FROM labels WHERE _label IS NULL LIMIT 1"
            if invalid := sql.execute(query).fetchone():
                raise UserError(
                    f"{file}: {label}: {invalid[1]:,} labels are not {rule.description}, such as {invalid[0][:80]!r}; nothing was taken"
                )
            yield sql
    except duckdb.Error as error:
        raise UserError(f"{file}: {first_line(error)}") from None


def without_answer(root: Path) -> int:
    """How many labels of the file of feedback that was written last are of no answer in the prediction log."""
    unreadable: list[Unreadable] = []
    newest = max((root / FEEDBACK).glob("*-batch.parquet"))
    with log_database(root) as sql:
        view(sql, "predictions", root / PREDICTIONS, {"_id": "VARCHAR"}, unreadable)
        query = "SELECT count(*) FROM read_parquet(?) ANTI JOIN predictions USING (_id)"
        ((count,),) = sql.execute(query, [str(newest)]).fetchall()
    return int(count)


def _label_values(root: Path) -> list[str]:
    """The label's values that the model which answers was trained on."""
    folder = PRODUCTION if (root / PRODUCTION).is_dir() else TRAINED
    try:
        manifest = json.loads((root / folder / MANIFEST_FILE).read_bytes())
        return list(manifest.get("label_values", []))
    except (OSError, ValueError):
        return []


def _count_unreadable(sql: duckdb.DuckDBPyConnection) -> int:
    """Lines of a CSV that do not fit its header."""
    tables = {row[0] for row in sql.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if "reject_errors" not in tables:
        return 0
    ((count,),) = sql.execute(
        "SELECT count(DISTINCT (scan_id, file_id, line)) FROM reject_errors"
    ).fetchall()
    return int(count)


def _progress_bar() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
