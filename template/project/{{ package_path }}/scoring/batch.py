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
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .. import problem
from ..data.files import Rows as FileRows
from ..data.files import located, opened
from ..data.labels import label_rule
from ..data.schema import TYPES, WORDS, cleaned, has_label, name, no_label, none_of, text, typed
from ..data.source import PARQUET, database, first_line, hint, know_key, treated
from ..model import CHUNK, Array, Model, ModelError
from ..paths import FEEDBACK, GATE, MANIFEST_FILE, MODEL, PREDICTIONS, PRODUCTION, REVIEW, TRAINED
from ..problem.decision import unsure_sql
from ..records import ANSWER, LABEL, SCORE_COLUMN, WHY_REVIEWED
from ..repository import verified
from ..settings import Settings, UserError, read_json
from .ranges import value_range, value_words

OF_CLASS = "_class_"  # and its place: a column of scores on the way to the table
A_THREAD_MB = 60  # that a thread of the database needs while it takes rows in


def score(
    settings: Settings,
    root: Path,
    paths: Sequence[str],
    out: Path,
    fallback: bool = False,
    threads: int | None = None,
    rows: int = CHUNK,
    log: bool = False,
    ungated: bool = False,
) -> dict[str, Any]:
    """Score every row of the files, and write one answer a row, in their order.

    The columns of `out`: the row's id, or else its place; score, decision, confidence, low, high,
    flags, fallback as the service answers them, and `score: NAME` of each class where classes have
    scores; _model, _data, _code: the versions. A row that the service would refuse has no score, and
    its flags say why.

    Args:
        paths: files, folders or globs of raw rows, as `data.files` reads them; the schema maps their columns.
        fallback: let the baseline answer when the model is missing or damaged.
        threads: that score at once, all cores when None.
        rows: that a thread scores at once.
        log: also write what the model saw and said to monitoring/predictions, and what a person should
            look at to monitoring/review, as the service does; a row at its event's time where it has one.
        ungated: let a model answer that has not passed the gate.

    Returns:
        {"rows", "refused", "flagged", "unreadable": counts, "model": its name and version, "folder":
        where it is}.

    Raises:
        UserError: for a file or a model that cannot be used; `out` is then as it was.
    """
    place = folder(root)
    if not ungated:
        _passed(root, place)
    model, reason = _model(place, fallback)
    listed = [one for path in paths for one in located(path, root)]
    fresh = out.with_name(f"{out.name}.new")
    scratch = out.parent.resolve() / f".{out.name}.{os.getpid()}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with database(settings, root, scratch, ":memory:") as sql:
            _limit(sql, settings)
            know_key(sql, settings)
            for file in listed:
                _stage(sql, settings, model, file)
            ((total, refused, flagged),) = sql.execute(
                "SELECT count(*), count_if(_refused), count_if(len(_flags) > 0) FROM given"
            ).fetchall()
            if not total:
                raise UserError(f"{', '.join(paths)}: no rows to score")
            _score(sql, model, total, threads or os.cpu_count() or 1, rows)
            key = _write_scores(sql, model, fresh, bool(reason))
            if log:
                _log(sql, settings, model, root, key, reason)
            unreadable = _unreadable(sql)
        fresh.replace(out)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}; nothing was written") from None
    finally:
        fresh.unlink(missing_ok=True)
    return {
        "rows": total,
        "refused": refused,
        "flagged": flagged - refused,
        "unreadable": unreadable,
        "model": f"{model.name} {model.version}",
        "folder": place.relative_to(root).as_posix(),
        "fallback": reason,
    }


def folder(root: Path) -> Path:
    """Where the model that answers is: in production, or else the one just trained.

    Raises:
        UserError: when the one in production is not the one that git names.
    """
    production = verified(root, PRODUCTION)
    return production if production.is_dir() else root / TRAINED


def _limit(sql: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Half of the memory is the database's, the other half for what is being scored."""
    found = re.fullmatch(r"([\d.]+)\s?([MG])(i?)B", settings.data.source.memory_limit)
    assert found is not None  # the settings are checked
    size = float(found[1]) * {"M": 1, "G": 1000}[found[2]] / 2
    threads = max(1, min(os.cpu_count() or 1, int(size // A_THREAD_MB)))
    sql.execute("SET memory_limit = ?", [f"{size:.0f}{'Mi' if found[3] else 'M'}B"])
    sql.execute("SET threads = ?", [threads])


def _passed(root: Path, place: Path) -> None:
    """Refuse a model of which the gate says that it missed, or says nothing while it speaks of another.

    What is in production was promoted, and so has passed.
    """
    if place != root / TRAINED or not all(map(Path.is_file, (root / GATE, place / MANIFEST_FILE))):
        return
    gate, model = read_json(root / GATE), read_json(place / MANIFEST_FILE)["sha256"]
    if not gate.get("passed") or gate.get("model") != model:
        what = "missed the gate" if gate.get("model") == model else "was not before the gate"
        raise UserError(
            f"{MODEL} {what} ({GATE}): `gate` says why; --ungated lets it answer all the same"
        )


def _model(place: Path, fallback: bool) -> tuple[Model, str]:
    """The model, or with the reason why, the baseline that stands in for it when it may."""
    try:
        return Model(place), ""
    except ModelError as error:
        if not fallback:
            raise UserError(
                f"{error}; a batch has no fallback unless you ask for it: --fallback lets the "
                f"baseline answer"
            ) from None
        reason = str(error)
    try:
        return Model(place, "baseline.onnx"), reason
    except ModelError as error:
        raise UserError(f"{reason}; and of the baseline: {error}") from None


def _stage(sql: duckdb.DuckDBPyConnection, settings: Settings, model: Model, file: str) -> None:
    """Append a file's rows to the table `given`: id, what the model takes, flags, and whether refused."""
    columns = settings.data.schema_.columns
    names = [*(one["name"] for one in model.inputs), settings.data.schema_.time]
    wanted = [columns[one].source or one for one in names if one in columns]
    try:
        rows = opened(sql, [file], Path(), wanted)
        query = _query(settings, model, file, rows)
        there = sql.execute("FROM duckdb_tables() WHERE table_name = 'given'").fetchall()
        sql.execute(f"{'INSERT INTO given' if there else 'CREATE TABLE given AS'} {query}")
    except duckdb.Error as error:
        raise UserError(f"{file}: {first_line(error)}") from None


def _query(settings: Settings, model: Model, file: str, source: FileRows) -> str:
    """SQL for the rows of one source; the places of the model's inputs name the columns."""
    data = settings.data
    refuse = settings.scoring.out_of_range == "refuse"
    first, second, third = [], [], []
    wrong, odd = [], []
    for place, one in enumerate(model.inputs):
        column, rule = one["name"], data.schema_.columns.get(one["name"])
        if rule is None or rule.type != one["type"]:
            raise UserError(
                f"params.yaml: data.schema.columns.{column}: the model was trained on it as "
                f"{one['type']}; train again"
            )
        origin, raw, value = rule.source or column, f"r{place}", f"t{place}"
        now = rule.type == "time" and column == data.schema_.time
        if origin in source.columns:
            given, kind = source.columns[origin]
            first.append(f"{cleaned(given, kind, rule)} AS {raw}")
            second.append(f"{typed(raw, kind.split('(')[0], rule)} AS {value}")
        elif now:
            first.append(f"NULL AS {raw}")
            second.append(f"CAST(NULL AS TIMESTAMP) AS {value}")
        else:
            raise UserError(f"{file}: has no column {origin!r}; {hint(origin, source.columns)}")
        third.append(f"{_fed(treated(settings, column, value), rule.type, now)} AS c{place}")

        bounds = None if rule.personal else value_range(rule, one)
        words = text(
            f" is not {value_words(rule, bounds, rule.required and column != data.schema_.time)}"
        )
        given = "'a value'" if rule.personal else f"left(CAST({raw} AS VARCHAR), 80)"
        told = f"{text(column + ': ')} || coalesce({given}, 'null') || {words}"
        if rule.type in WORDS:
            wrong.append((f"{raw} IS NOT NULL AND {value} IS NULL", told))
        if rule.required and not now:
            wrong.append((f"{raw} IS NULL", told))
        if bounds:
            low, high, allowed = bounds
            told = told.replace(given, f"left(CAST({value} AS VARCHAR), 80)")
            if allowed is None:
                odd.append((f"{value} NOT BETWEEN {low!r} AND {high!r}", told))
            else:
                odd.append((none_of(value, sorted(allowed)), told))
    broken = _any(wrong + odd if refuse else wrong)
    flags = ", ".join(f"CASE WHEN {when} THEN {told} END" for when, told in wrong + odd)
    key = data.schema_.id
    rule = data.schema_.columns[key] if key else None
    if (
        rule
        and key
        and (rule.source or key) in source.columns
        and not (rule.personal and data.personal == "drop")
    ):
        first.append(f"CAST({source.columns[rule.source or key][0]} AS VARCHAR) AS id")
        shown = treated(settings, key, "trim(id)")
    else:
        shown = "CAST(NULL AS VARCHAR)"
        first.append("1 AS id")
    first.append(f"{_event_time(settings, source)} AS moment")
    return (
        f"WITH cleaned AS (SELECT {', '.join(first)} FROM ({source.query})), "
        f"given AS (SELECT *, {', '.join(second)} FROM cleaned) "
        f"SELECT {shown} AS _id, moment AS _at, {', '.join(third)}, {broken} AS _refused, "
        f"CASE WHEN {_any(wrong + odd)} THEN list_filter([{flags}], lambda one: one IS NOT NULL) "
        f"ELSE CAST([] AS VARCHAR[]) END AS _flags FROM given"
    )


def _event_time(settings: Settings, source: FileRows) -> str:
    """SQL for the moment that a row speaks of, NULL where it does not say."""
    schema = settings.data.schema_
    rule = schema.columns[schema.time] if schema.time else None
    origin = rule and (rule.source or schema.time)
    if (
        rule is None
        or origin not in source.columns
        or (rule.personal and settings.data.personal != "keep")
    ):
        return "CAST(NULL AS TIMESTAMP)"
    given, kind = source.columns[origin]
    return typed(cleaned(given, kind, rule), kind.split("(")[0], rule)


def _any(conditions: list[tuple[str, str]]) -> str:
    return (
        f"coalesce({' OR '.join(f'({when})' for when, _ in conditions)}, false)"
        if conditions
        else "false"
    )


def _fed(value: str, kind: str, now: bool) -> str:
    """SQL for a typed value as the model takes it: missing is NaN, '' or, for the event's time, now."""
    match kind:
        case "category":
            return f"coalesce({value}, '')"
        case "time":
            missing = "epoch(CAST(now() AS TIMESTAMP))" if now else "CAST('nan' AS DOUBLE)"
            return f"coalesce(epoch({value}), {missing})"
        case _:
            return f"coalesce(CAST({value} AS DOUBLE), CAST('nan' AS DOUBLE))"


def _score(
    sql: duckdb.DuckDBPyConnection, model: Model, total: int, threads: int, rows: int
) -> None:
    """Fill the table `scored`, a row for each of `given`, in its order."""
    wide = ", scores DOUBLE[]" if problem.WIDE else ""
    sql.execute(
        f"CREATE TABLE scored (score DOUBLE, decision {problem.DECISION_TYPE}, confidence DOUBLE, "
        f"low DOUBLE, high DOUBLE{wide})"
    )
    columns = ", ".join(f"c{place}" for place in range(len(model.inputs)))
    names = [one["name"] for one in model.inputs]

    def piece(start: int) -> dict[str, Array]:
        with sql.cursor() as own:
            # A piece is read by one thread: the others have their own
            found: dict[str, Any] = own.execute(
                f"SELECT {columns} FROM given WHERE rowid BETWEEN ? AND ? ORDER BY rowid",
                [start, start + rows - 1],
            ).fetchnumpy()
        score = model.score(dict(zip(names, found.values(), strict=True)))
        return _answers(model, score)

    with _progress() as bar, ThreadPoolExecutor(threads) as pool:
        task = bar.add_task("score", total=total)
        sql.execute("BEGIN")
        for part in _in_order(pool, piece, range(0, total, rows), 2 * threads):
            sql.execute(f"INSERT INTO scored BY NAME {_picked(part)} FROM part")
            bar.update(task, advance=len(part["score"]))
        sql.execute("COMMIT")


def _in_order(
    pool: ThreadPoolExecutor, work: Any, starts: range, ahead: int
) -> Iterator[dict[str, Array]]:
    """The results of all starts in their order, never more than `ahead` of them waiting."""
    waiting: deque[Future[dict[str, Array]]] = deque()
    for start in starts:
        waiting.append(pool.submit(work, start))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _answers(model: Model, score: Array) -> dict[str, Array]:
    """The columns of the answers that a model has."""
    if not np.isfinite(score).all():
        raise UserError(f"{model.name} {model.version} gave no finite score for some row")
    found = model.table(score)
    scores = found.pop("scores", np.empty((len(score), 0)))
    return found | {f"{OF_CLASS}{place}": column for place, column in enumerate(scores.T.copy())}


def _picked(part: dict[str, Array]) -> str:
    """SQL for the columns of answers, those of the classes as one list."""
    picked = [one for one in part if not one.startswith(OF_CLASS)]
    if several := [one for one in part if one.startswith(OF_CLASS)]:
        picked.append(f"[{', '.join(several)}] AS scores")
    return f"SELECT {', '.join(picked)}"


def _write_scores(sql: duckdb.DuckDBPyConnection, model: Model, file: Path, fallback: bool) -> str:
    """Write the answers; returns SQL for what they are called by."""
    answers = ", ".join(
        f"CASE WHEN NOT _refused THEN {one} END AS {one}"
        for one in ("score", "decision", "confidence", "low", "high")
    )
    classes = model.classes if problem.WIDE else []
    answers += "".join(
        f", CASE WHEN NOT _refused THEN scores[{place + 1}] END AS {name(f'score: {one}')}"
        for place, one in enumerate(classes)
    )
    stamped = ", ".join(f"{text(value)} AS {key}" for key, value in _versions(model).items())
    ((known,),) = sql.execute("SELECT count(_id) > 0 FROM given").fetchall()
    key = "_id" if known else "row_number() OVER () - 1"
    sql.execute(
        f"COPY (SELECT {key} AS id, {answers}, _flags AS flags, {str(fallback).lower()} AS fallback, "
        f"{stamped} FROM given POSITIONAL JOIN scored) TO {text(str(file))} {PARQUET}"
    )
    return key


def _log(
    sql: duckdb.DuckDBPyConnection,
    settings: Settings,
    model: Model,
    root: Path,
    key: str,
    fallback: str,
) -> None:
    """Append answers and inputs to the prediction log, and to the queue for people what was odd or unsure;
    a row without an id gets one of this batch, one without a time (or with one to come) the present."""
    stamp = _stamp()
    columns = []
    for place, one in enumerate(model.inputs):
        value = f"CASE WHEN isnan(c{place}) THEN NULL ELSE c{place} END"
        match one["type"]:
            case "category":
                value = f"nullif(c{place}, '')"
            case "time":
                value = f"make_timestamp(CAST(1e6 * ({value}) AS BIGINT))"
        columns.append(f"CAST({value} AS {TYPES[one['type']]}) AS {name(one['name'])}")
    if key != "_id":
        key = f"{text(stamp)} || '-' || ({key})"
    versions = _versions(model)
    said = {
        **{
            "_id": key,
            "_time": f"least(coalesce(_at, {_now()}), {_now()})",
            "_arm": "'champion'",
            "_propensity": "1.0",
        },
        **{"_assigned": "true", "_answered": "true", "_score": "scored.score"},
        **{"_decision": "scored.decision", "_decision_propensity": "1.0", "_explored": "false"},
        **{"_confidence": "scored.confidence", "_low": "scored.low", "_high": "scored.high"},
        **{"_fallback": text(fallback) if fallback else "NULL", "_flags": "_flags"},
        **{one: text(value) for one, value in versions.items()},
        **({SCORE_COLUMN: "scored.scores"} if problem.WIDE else {}),
    }
    answer = [f"CAST({said.get(one, 'NULL')} AS {kind}) AS {one}" for one, kind in ANSWER.items()]
    rows = "FROM given POSITIONAL JOIN scored WHERE NOT _refused"
    _append(sql, root / PREDICTIONS, stamp, f"SELECT {', '.join([*answer, *columns])} {rows}")
    (why,) = WHY_REVIEWED
    query = f"SELECT {', '.join([*answer, *columns])}, {_unsure(model, settings)} AS {why} {rows}"
    ((queued,),) = sql.execute(f"SELECT count({why}) FROM ({query})").fetchall()
    if queued:
        _append(sql, root / REVIEW, stamp, f"FROM ({query}) WHERE {why} IS NOT NULL")


def _append(sql: duckdb.DuckDBPyConnection, log: Path, stamp: str, query: str) -> int:
    """Add a file with these rows to a log; returns how many."""
    log.mkdir(parents=True, exist_ok=True)
    fresh = log / f"{stamp}.parquet.new"
    try:
        ((rows,),) = sql.execute(f"COPY ({query}) TO {text(str(fresh))} {PARQUET}").fetchall()
        fresh.replace(log / f"{stamp}.parquet")
    finally:
        fresh.unlink(missing_ok=True)
    return int(rows)


def _unsure(model: Model, settings: Settings) -> str:
    """SQL for why a person should look at a row, NULL when nobody has to: as `Model.unsure` has it."""
    margin = settings.scoring.review_margin
    unsure, words = unsure_sql(model.decision, margin)
    return f"CASE WHEN len(_flags) > 0 THEN array_to_string(_flags, '; ') WHEN {unsure} THEN {text(words)} END"


def _versions(model: Model) -> dict[str, str]:
    """Of model, data and code, as the log's columns have them."""
    return {
        "_model": model.version,
        "_data": str(model.manifest.get("data_version"))[:12],
        "_code": str(model.manifest.get("code_version"))[:12],
    }


def _now() -> str:
    return f"TIMESTAMP '{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}'"


def _stamp() -> str:
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}-batch"


def feedback(settings: Settings, root: Path, file: str, key: str, label: str) -> int:
    """Append the labels of a file to the log that the monitor reads.

    Args:
        key: the column with the ids of the predictions, label: the one with what came true.

    Returns:
        how many labels there were; rows without one are passed over.

    Raises:
        UserError: for a file that cannot be read, or labels that are none; nothing is written then.
    """
    known = settings.data.schema_
    rule = label_rule(settings, _label_values(root))
    try:
        with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as sql:
            sql.execute("SET temp_directory = ?", [scratch])
            sql.execute("SET TimeZone = 'UTC'")
            rows = opened(sql, [file], root, (key, label))
            for column in (key, label):
                if column not in rows.columns:
                    raise UserError(
                        f"{file}: has no column {column!r}; {hint(column, rows.columns)}"
                    )
            by = f"trim(CAST({rows.columns[key][0]} AS VARCHAR))"
            if known.id and key == (known.columns[known.id].source or known.id):
                know_key(sql, settings)
                by = treated(settings, known.id, by)  # as the log has it
            sql.execute(
                f"CREATE TABLE told AS SELECT _id, told, {rule.sql('told')} AS _label FROM (SELECT {by} AS _id, "
                f"nullif(trim(CAST({rows.columns[label][0]} AS VARCHAR)), '') AS told FROM ({rows.query})) "
                f"WHERE _id IS NOT NULL AND {has_label('told', no_label(settings))}"
            )
            wrong = "SELECT told, count(*) OVER () FROM told WHERE _label IS NULL LIMIT 1"
            if bad := sql.execute(wrong).fetchone():
                raise UserError(
                    f"{file}: {label}: {bad[1]:,} labels are not {rule.words}, such as {bad[0][:80]!r}; nothing was taken"
                )
            said = {"_id": "_id", "_time": _now(), "_label": "_label"}
            # A label has the type that the column gives it
            kept = ", ".join(
                f"{said[one]} AS {one}" if one in said else f"CAST(NULL AS {kind}) AS {one}"
                for one, kind in LABEL.items()
            )
            return _append(sql, root / FEEDBACK, _stamp(), f"SELECT {kept} FROM told")
    except duckdb.Error as error:
        raise UserError(f"{file}: {first_line(error)}") from None


def _label_values(root: Path) -> list[str]:
    """The label's values that the model which answers was trained on."""
    place = PRODUCTION if (root / PRODUCTION).is_dir() else TRAINED
    try:
        manifest = json.loads((root / place / MANIFEST_FILE).read_bytes())
        return list(manifest.get("label_values", []))
    except (OSError, ValueError):
        return []


def _unreadable(sql: duckdb.DuckDBPyConnection) -> int:
    """Lines of a CSV that do not fit its header."""
    tables = {one[0] for one in sql.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if "reject_errors" not in tables:
        return 0
    ((count,),) = sql.execute(
        "SELECT count(DISTINCT (scan_id, file_id, line)) FROM reject_errors"
    ).fetchall()
    return int(count)


def _progress() -> Progress:
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
