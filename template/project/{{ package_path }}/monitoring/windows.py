"""The prediction log and the feedback, as counts in windows of time.

DuckDB reads the files and counts; at most a sample of each window comes into memory, as codes of a
byte a value. So a log larger than memory takes time, not memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypedDict, cast

import duckdb
import numpy as np
from duckdb.func import FunctionNullHandling

from .. import problem
from ..agreements import UNIT_SECONDS
from ..data.schema import TYPES, text
from ..data.schema import name as quoted
from ..features.catalogue import light, momentum
from ..images import ImageError
from ..paths import FEEDBACK, PREDICTIONS
from ..problem import data as problem_data
from ..problem.goals import numeric
from ..problem.monitoring import OWN_FIGURES, sizes
from ..records import (
    ANSWER,
    LABEL,
    SCORE_COLUMN,
    WITHHELD,
    Unreadable,
    database,
    score_array,
    view,
)
from ..scoring.rules import ANSWERED
from ..settings import Settings
from .reference import CHANCE, SCORE, Column, Profile
from .watched import COMPONENTS, SECONDARY, TOPICS, Learnt, measure_of

EXAMPLES = 3  # of a column, that are shown
EXAMPLE_CHARACTERS = 300  # of a text
SAMPLE_ROWS = 10_000  # rows of a window that are looked at together, column by column
LABELLED_ROWS = 20_000  # of a window's rows with a label, that are looked at together
MEMORY_LIMIT = "600MB"
BRIGHTNESS, MOMENTUM = "brightness", "momentum"  # the functions in SQL

Array = np.ndarray


class Health(TypedDict):
    """What the report says of a window without a reference; times are UTC, in ISO format."""

    start: str
    rows: int
    first: str | None  # moment of the first row; None: no row
    last: str | None
    fallbacks: int  # rows that the fallback answered
    fallback_share: float
    latency_p99_ms: float | None
    flagged_share: float  # of rows whose input was odd
    rules: dict[str, float]  # by rule before the model, the share of all rows that it holds of
    model: str | None  # that answered most
    labels: int
    label_delay_days: float | None  # median


class Example(TypedDict):
    """A text or an image of the newest window that training had nothing like."""

    column: str
    kind: str  # text or image
    value: str  # the beginning of a text; of an image its stored form
    residual: float  # beside all directions in which training's differ
    time: str  # of the answer, UTC, in ISO format


@dataclass
class Windows:
    """What the log holds.

    Attributes:
        health: one entry a window, oldest first.
        counts: column -> rows by window and code, shape (windows, codes): categories and scores of
            all rows, numbers of those drawn.
        window: of each sampled row the window's number, from 0, shape (n,).
        codes: column -> the sampled rows' codes, shape (n,); the scores stand among the columns.
        score: the sampled rows' scores, shape (n,) or (n, classes).
        y: their labels as numbers, shape (n,), NaN where there is none (yet).
        truth: what came true of them, as `features.catalogue.load_truth` has it of rows of a file.
        logged: the columns of theirs that `OWN_FIGURES` needs, shape (n, columns), NaN where the log has none.
        drawn: which of them were drawn by chance, shape (n,); the others only have a label.
        strange: labels that no label can be -> how often, by window.
        gone: inputs that the log has not.
        broken: column -> unreadable values by window, shape (windows,).
        mix: rows by window and phase of the reference's course, those without a like last, shape
            (windows, phases + 1).
        mix_labelled: rows with a label by window and phase, of that shape.
        errors: of a number, the error that the reference lets expect: what is averaged -> its mean by
            window, shape (windows,).
    """

    health: list[Health]
    counts: dict[str, Array]
    window: Array
    codes: dict[str, Array]
    score: Array
    y: Array
    truth: Array
    logged: Array
    drawn: Array
    strange: list[dict[str, int]]
    gone: list[str]
    broken: dict[str, Array]
    mix: Array
    mix_labelled: Array
    errors: dict[str, Array]


@contextmanager
def opened(
    root: Path, unreadable: list[Unreadable] | None = None
) -> Iterator[duckdb.DuckDBPyConnection | None]:
    """A database with the views `predictions` and `feedback`; None while nothing was predicted.

    Args:
        root: the project's folder.
        unreadable: a list that takes the files and lines of the logs that cannot be read.
    """
    unreadable = [] if unreadable is None else unreadable
    with database(root, memory_limit=MEMORY_LIMIT) as sql:
        sql.execute("SET preserve_insertion_order = false")
        logged = view(sql, "predictions", root / PREDICTIONS, ANSWER, unreadable, all_columns=True)
        view(sql, "feedback", root / FEEDBACK, LABEL, unreadable)
        yield sql if logged else None


ANSWERS = "_answered AND _arm = 'champion'"
# What rules before the model answer says nothing of the model
SERVED = f"{ANSWERS} AND _model IS DISTINCT FROM '{ANSWERED}'"


def models(sql: duckdb.DuckDBPyConnection, settings: Settings) -> dict[str | None, int]:
    """Model -> rows that it answered in the log's newest windows; who answered last comes last.

    The model None stands for rows of which the log names no model, as of a fallback while none answered.
    """
    starts = _starts(sql, settings, SERVED)
    if not starts:
        return {}
    answers = sql.execute(
        "SELECT _model, count(*) FROM predictions "
        f"WHERE {SERVED} AND _fallback IS NULL AND _time >= {_moment(starts[0])} "
        "GROUP BY _model ORDER BY max(_time), _model"
    ).fetchall()
    return dict(answers) or {None: 0}


def gather(
    sql: duckdb.DuckDBPyConnection,
    settings: Settings,
    profile: Profile,
    model: str | None = None,
    newest: bool = True,
) -> Windows | None:
    """Count the log's newest windows; None when it has no answer of the champion yet.

    Args:
        sql: a database with the views of `opened`; gets the view `served` and the table `labels`.
        profile: the reference, whose columns and bins are counted.
        model: only this model's answers; None: all.
        newest: the model is the one that answered last, so that the fallback's answers count as its own.
    """
    starts = _starts(sql, settings, SERVED)
    if not starts:
        return None
    window_number = " + ".join(f"(_time >= {_moment(start)})::INT" for start in starts)
    condition = f"{SERVED} AND _time >= {_moment(starts[0])}"
    if model is not None:
        by_model = f"_model = {text(model)} AND _fallback IS NULL"
        condition += f" AND ({by_model} OR _fallback IS NOT NULL)" if newest else f" AND {by_model}"
    log_types = {row[0]: row[1] for row in sql.execute("DESCRIBE predictions").fetchall()}
    sql.execute(
        f"CREATE OR REPLACE TEMP VIEW served AS SELECT *, {window_number} - 1 AS _w, "
        f"{_hour(settings, profile, log_types)} AS _hour FROM predictions WHERE {condition}"
    )
    columns = {n: c for n, c in profile.columns.items() if c.kind != "score"}
    gone = [name for name, column in columns.items() if column.source not in log_types]
    columns = {name: c for name, c in columns.items() if name not in gone}
    values = {name: _value(column, log_types[column.source]) for name, column in columns.items()}
    _categories(sql, columns)
    _teach(sql, columns)
    unit = problem_data.logged(settings, {}, log_types).get("_level", "1.0")
    counts, broken = _counts(sql, profile, columns, values, log_types, len(starts), unit)
    _labels(sql, settings, profile)
    health = _health(sql, starts, window_number)
    strange = _strange(sql, profile, len(starts))
    window, codes, score, truth, logged, drawn, errors = _sample(
        sql, settings, profile, columns, values, log_types, health
    )
    for name, column in profile.columns.items():
        if column.kind != "category" and name != SCORE and name in codes:
            size = len(column.names)
            cell = window[drawn] * size + codes[name][drawn]
            rows = np.bincount(cell, minlength=len(starts) * size)
            counts[name] = rows.reshape(len(starts), size)
    sources = ("_w, _hour, count(*) FROM served", "w, hour, count(*) FROM labels")
    mix, mix_labelled = (_mix(sql, profile, source, len(starts)) for source in sources)
    return Windows(
        *(health, counts, window, codes, score, numeric(truth), truth),
        *(logged, drawn, strange, gone, broken),
        *(mix, mix_labelled, errors),
    )


def examples(
    sql: duckdb.DuckDBPyConnection, settings: Settings, profile: Profile, windows: Windows
) -> list[Example]:
    """The texts and images of the newest window that lie farthest beside what training had; none of rows about people.

    Args:
        sql: the database in which `gather` counted these windows last.
    """
    if settings.data.personal != "keep":
        return []
    selected: list[Example] = []
    for name, column in profile.columns.items():
        if column.kind not in (TOPICS[-1], COMPONENTS[-1]) or name in windows.gone:
            continue
        kind = "text" if column.kind == TOPICS[-1] else "image"
        beginning = f"left(value, {EXAMPLE_CHARACTERS})" if kind == "text" else "value"
        rows = sql.execute(
            f"SELECT {text(column.source)} AS column, '{kind}' AS kind, {beginning} AS value, residual, "
            "strftime(max(_time), '%Y-%m-%dT%H:%M:%S') AS time FROM (SELECT "
            f"CAST({quoted(column.source)} AS VARCHAR) AS value, {_value(column, 'VARCHAR')} AS residual, _time "
            f"FROM served WHERE _fallback IS NULL AND _w = {len(windows.health) - 1} "
            f"ORDER BY hash(_id) LIMIT {SAMPLE_ROWS}) WHERE residual IS NOT NULL GROUP BY ALL "
            f"ORDER BY residual DESC, time LIMIT {EXAMPLES}"
        )
        selected += cast(list[Example], rows.df().to_dict("records"))
    return selected


def _hour(settings: Settings, profile: Profile, log_types: dict[str, str]) -> str:
    """SQL for the hour since 1970 that decides on a row's phase: of its event, else of its answer."""
    time = settings.data.schema_.time
    if profile.course.phases < 2:
        return "0"
    event = f"TRY_CAST({quoted(time)} AS TIMESTAMP)" if time in log_types else "NULL::TIMESTAMP"
    return f"floor(epoch(coalesce({event}, _time)) / 3600)::BIGINT"


def _mix(sql: duckdb.DuckDBPyConnection, profile: Profile, source: str, windows: int) -> Array:
    """Rows by window and phase, shape (windows, phases + 1)."""
    cells = sql.execute(f"SELECT {source} GROUP BY ALL").fetchall()
    window, hours, rows = np.array(cells, dtype=np.int64).reshape(-1, 3).T
    return profile.course.mix(window, hours, rows, windows)


def labels_due(
    sql: duckdb.DuckDBPyConnection, settings: Settings, before: datetime
) -> tuple[int, int]:
    """How many answers of the newest windows were given before a moment (UTC), and how many have a label.

    Where rows without a label are nothing unusual (`problem.UNLABELLED`), only what was decided on as 1 is waited
    for: that is what people look at.
    """
    decided = "" if problem.UNLABELLED is None else "AND _decision = 1 "
    starts = _starts(sql, settings, SERVED)
    if not starts:
        return 0, 0
    ((due, labelled),) = sql.execute(
        "WITH due AS (SELECT hash(_id) AS id FROM predictions "
        f"WHERE {SERVED} AND _time >= {_moment(starts[0])} AND _time < {_moment(before)} {decided}), "
        "labelled AS (SELECT DISTINCT hash(_id) AS id FROM feedback WHERE _label IS NOT NULL) "
        "SELECT count(*), count(labelled.id) FROM due LEFT JOIN labelled USING (id)"
    ).fetchall()
    return due, labelled


def _moment(when: datetime) -> str:
    return f"TIMESTAMP '{when:%Y-%m-%d %H:%M:%S.%f}'"


def _starts(sql: duckdb.DuckDBPyConnection, settings: Settings, served: str) -> list[datetime]:
    """Where the windows begin, oldest first."""
    window, max_windows = settings.monitoring.window, settings.monitoring.windows
    ((rows, first, last),) = sql.execute(
        f"SELECT count(*), min(_time), max(_time) FROM predictions WHERE {served} AND _time IS NOT NULL"
    ).fetchall()
    if not rows:
        return []
    if isinstance(window, str):
        step = int(window[:-1]) * UNIT_SECONDS[window[-1]]
        # Weeks begin on Mondays: 1970 did on a Thursday
        offset = 4 * 86_400 if window.endswith("w") else 0
        epoch = datetime(1970, 1, 1)
        newest = (int((last - epoch).total_seconds()) - offset) // step * step + offset
        starts = [epoch + timedelta(seconds=newest - back * step) for back in range(max_windows)]
        return [start for start in reversed(starts) if start + timedelta(seconds=step) > first]
    firsts = [rows - window * back for back in range(1, max_windows + 1) if rows >= window * back]
    if not firsts:
        return [first]
    begins = sql.execute(
        "SELECT _time FROM (SELECT _time, row_number() OVER (ORDER BY _time) - 1 AS n FROM predictions "
        f"WHERE {served}) WHERE n IN ({', '.join(map(str, firsts))}) ORDER BY _time"
    ).fetchall()
    return sorted({start for (start,) in begins})


def _value(column: Column, log_type: str) -> str:
    """SQL for a value as the reference cuts it: text, or a 32-bit number, NULL where missing."""
    name = column.source
    if column.kind == "category":
        return f"nullif(CAST({quoted(name)} AS VARCHAR), '')"
    if column.kind == "text":
        return f"nullif(length(trim(CAST({quoted(name)} AS VARCHAR))), 0)::FLOAT"
    if column.kind == "image":
        return f"{BRIGHTNESS}(CAST({quoted(name)} AS VARCHAR))"
    if column.kind == "history":
        return f"{MOMENTUM}(CAST({quoted(name)} AS VARCHAR))"
    if column.kind in SECONDARY:
        return f"{quoted(column.name)}(CAST({quoted(name)} AS VARCHAR))"
    if column.kind == "time":
        return f"epoch(TRY_CAST({quoted(name)} AS TIMESTAMP))"
    plain = f"TRY_CAST({quoted(name)} AS FLOAT)"
    if log_type in ("DOUBLE", "FLOAT"):
        plain = f"CAST({quoted(name)} AS FLOAT)"
        return f"CASE WHEN isnan({plain}) THEN NULL ELSE {plain} END"
    return plain


def _categories(sql: duckdb.DuckDBPyConnection, columns: dict[str, Column]) -> None:
    """A type for each category column, whose numbers are its codes."""
    for index, column in enumerate(columns.values()):
        if column.kind == "category":
            names = [*column.categories, *(column.others or [])] or ["\x7f none"]
            sql.execute(f"DROP TYPE IF EXISTS t{index}")  # another model's, in the same log
            sql.execute(f"CREATE TYPE t{index} AS ENUM ({', '.join(map(text, names))})")


def _code(index: int, column: Column, value: str) -> str:
    """SQL for the code of a category."""
    n_common = len(column.categories)
    code = f"enum_code(TRY_CAST({value} AS t{index}))"
    unknown = n_common + 1 if column.others is not None else n_common
    # `least` would pass over a NULL
    category = f"CASE WHEN {code} IS NULL THEN {unknown} ELSE least({code}, {n_common}) END"
    return f"CASE WHEN {value} IS NULL THEN {n_common + 2} ELSE {category} END"


def _teach(sql: duckdb.DuckDBPyConnection, columns: dict[str, Column]) -> None:
    """Functions for the numbers of texts and images; only sampled rows ask them."""
    functions: dict[str, Callable[[str | None], float]] = {
        column.name: measure_of(column.kind, Learnt(column.vocabulary, column.basis))
        for column in columns.values()
        if column.kind in SECONDARY
    }
    if any(column.kind == "image" for column in columns.values()):
        functions[BRIGHTNESS] = lambda image: light(image)[0]
    if any(column.kind == "history" for column in columns.values()):
        functions[MOMENTUM] = momentum

    def value(function: Callable[[str | None], float], of: str | None) -> float | None:
        try:
            number = function(of)
        except ImageError:
            return None
        return number if np.isfinite(number) else None

    nulls = FunctionNullHandling.SPECIAL
    for name, function in functions.items():
        with suppress(duckdb.InvalidInputException):  # another model's, in the same log
            sql.remove_function(name)
        sql.create_function(
            name, partial(value, function), ["VARCHAR"], "DOUBLE", null_handling=nulls
        )


def _counts(
    sql: duckdb.DuckDBPyConnection,
    profile: Profile,
    columns: dict[str, Column],
    values: dict[str, str],
    log_types: dict[str, str],
    windows: int,
    unit: str,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Rows by window and code of categories and scores, and unreadable values, in one scan.

    Args:
        unit: SQL of what scores are watched in units of.
    """
    parts = {
        name: f"histogram({_code(index, column, values[name])})"
        for index, (name, column) in enumerate(columns.items())
        if column.kind == "category"
    }
    edges = profile.columns[SCORE].edges
    parts[SCORE] = f"histogram(_score / {unit}, {edges}) FILTER (_fallback IS NULL)"
    for name, column in columns.items():
        expected = TYPES.get(column.kind, "VARCHAR")
        if expected not in (log_types[column.source], "VARCHAR"):
            value = quoted(name)
            is_unreadable = f"{value} IS NOT NULL AND TRY_CAST({value} AS {expected}) IS NULL"
            parts[f"_wrong {name}"] = f"count(*) FILTER ({is_unreadable})"
    query = f"SELECT _w, {', '.join(parts.values())} FROM served GROUP BY _w"
    window_rows = sql.execute(query).fetchall()
    counts, broken = {}, {}
    for position, name in enumerate(parts, start=1):
        if name.startswith("_wrong "):
            unreadable = broken[name.removeprefix("_wrong ")] = np.zeros(windows, dtype=np.int64)
            for row in window_rows:
                unreadable[row[0]] = row[position]
            continue
        column = profile.columns[name]
        counts[name] = np.zeros((windows, len(column.names)), dtype=np.int64)
        for row in window_rows:
            cells = row[position] or {}
            if column.kind == "category":
                for code, rows in cells.items():
                    counts[name][row[0], code] = rows
                continue
            for edge, rows in cells.items():
                counts[name][row[0], np.searchsorted(column.edges, edge, side="left")] = rows
    return counts, broken


def _labels(sql: duckdb.DuckDBPyConnection, settings: Settings, profile: Profile) -> None:
    """The newest label of each answered row, once for all who need it; rows go by their hashed id."""
    y = problem_data.truth("label", settings.data.label, "known")
    sql.execute(
        "CREATE OR REPLACE TEMP TABLE labels AS WITH newest AS (SELECT hash(_id) AS id, max(_time) AS came, "
        "arg_max(CAST(_label AS VARCHAR), _time) AS label FROM feedback WHERE _label IS NOT NULL "
        f"GROUP BY ALL) SELECT id, w, hour, delay, label, known, {y} AS y FROM (SELECT id, w, hour, label, "
        f"epoch(came) - epoch(_time) AS delay, coalesce({_known_label(profile)}, false) AS known FROM newest JOIN "
        "(SELECT hash(_id) AS id, _w AS w, _hour AS hour, _time FROM served WHERE _fallback IS NULL) USING (id))"
    )


def _health(
    sql: duckdb.DuckDBPyConnection, starts: list[datetime], window_number: str
) -> list[Health]:
    """What a window says without the reference; `window_number`: SQL, from 1."""
    query = (
        f"SELECT {window_number} - 1, _rule, count(*) FROM predictions WHERE {ANSWERS} GROUP BY ALL"
    )
    by_rule: dict[int, dict[str, int]] = {}
    for window, rule, count in sql.execute(query).fetchall():
        by_rule.setdefault(window, {})[rule or ""] = count
    window_rows = sql.execute(
        f"SELECT served._w, count(*), min(_time), max(_time), count(*) FILTER (_fallback NOT IN {WITHHELD}), "
        "approx_quantile(_latency_ms::DOUBLE, 0.99), count(*) FILTER (len(_flags) > 0), "
        "mode(_model) FILTER (_fallback IS NULL), "
        "any_value(l.labels), any_value(l.delay) FROM served LEFT JOIN (SELECT w, count(*) AS labels, "
        "median(delay) AS delay FROM labels GROUP BY w) l ON l.w = served._w GROUP BY served._w"
    ).fetchall()
    by_window = {row[0]: row for row in window_rows}
    health: list[Health] = []
    for window, start in enumerate(starts):
        counts = by_rule.get(window, {})
        row = by_window.get(window) or (window, 0, *[None] * 8)
        health.append(
            {
                "start": start.isoformat(),
                "rows": row[1],
                "first": row[2] and row[2].isoformat(),
                "last": row[3] and row[3].isoformat(),
                "fallbacks": row[4] or 0,
                "fallback_share": (row[4] or 0) / max(1, row[1]),
                "latency_p99_ms": row[5],
                "flagged_share": (row[6] or 0) / max(1, row[1]),
                "rules": {rule: n / sum(counts.values()) for rule, n in counts.items() if rule},
                "model": row[7],
                "labels": row[8] or 0,
                "label_delay_days": None if row[9] is None else row[9] / 86_400,
            }
        )
    return health


def _known_label(profile: Profile) -> str:
    """SQL for whether a label is one that there was before."""
    number, facts = "TRY_CAST(label AS DOUBLE)", profile.facts
    if problem.CLASSES:
        values = facts["label_values"]
        texts = ", ".join(text(value) for value in values) or "NULL"
        numbers = ", ".join(f"TRY_CAST({text(value)} AS DOUBLE)" for value in values) or "NULL"
        return f"(label IN ({texts}) OR coalesce({number} IN ({numbers}), false))"
    # A tenth beyond what was seen is no other unit yet
    margin = (facts["label_high"] - facts["label_low"]) / 10
    low, high = facts["label_low"] - margin, facts["label_high"] + margin
    if facts["label_low"] >= 0:
        low = facts["label_low"] / 2
    return f"({number} BETWEEN {low!r} AND {high!r})"


def _strange(
    sql: duckdb.DuckDBPyConnection, profile: Profile, windows: int
) -> list[dict[str, int]]:
    """Labels that the reference does not have: other classes, numbers far out of range."""
    strange: list[dict[str, int]] = [{} for _ in range(windows)]
    if problem.CLASSES and not profile.facts["label_values"]:
        return strange
    label_sql = "label" if problem.CLASSES else "'out of range'"
    label_rows = sql.execute(
        f"SELECT w, {label_sql}, count(*) FROM labels WHERE NOT known GROUP BY ALL ORDER BY 1, 3 DESC, 2"
    ).fetchall()
    for window, label, rows in label_rows:
        strange[window][str(label)[:40]] = rows
    return strange


def _sample(
    sql: duckdb.DuckDBPyConnection,
    settings: Settings,
    profile: Profile,
    columns: dict[str, Column],
    values: dict[str, str],
    log_types: dict[str, str],
    health: list[Health],
) -> tuple[Array, dict[str, Array], Array, Array, Array, Array, dict[str, Array]]:
    """A sample of each window's rows, by their id or their list: `window`, `codes`, `score`, `truth`, `logged`, `drawn`
    and `errors` of `Windows`."""
    # Rows are taken whose hashed id is low enough; each window has its own bar
    hash_range = 2**63
    drawn_shares = [min(1.0, SAMPLE_ROWS / max(1, window["rows"])) for window in health]
    labelled_shares = [min(1.0, LABELLED_ROWS / max(1, window["labels"])) for window in health]
    thresholds = [
        f"[{', '.join(str(int(share * hash_range)) for share in shares)}][_w + 1]"
        for shares in (drawn_shares, labelled_shares)
    ]
    parts = [
        f"({_code(index, column, values[name])})::UTINYINT AS _{index}"
        if column.kind == "category"
        else f"{values[name]} AS _{index}"
        for index, (name, column) in enumerate(columns.items())
    ]
    added = problem_data.logged(settings, profile.facts, log_types)
    unit = f"hash({added['_list']})" if problem.LISTED else "hash(_id)"
    is_sampled = f"({unit} >> 1) <= greatest({thresholds[0]}, {thresholds[1]})"
    is_drawn = f"({unit} >> 1) <= {thresholds[0]}"
    added_sql = "".join(f", {value} AS {name}" for name, value in added.items())
    picked = {"_truth": problem_data.TRUTH, "_logged": OWN_FIGURES[2] if OWN_FIGURES else ()}
    truths = ", ".join(f"{v} AS {name}{i}" for name, of in picked.items() for i, v in enumerate(of))
    fetched = sql.execute(
        f"SELECT _w, _score, {SCORE_COLUMN} AS _scores, {truths}, {is_drawn} AS _drawn, {', '.join(parts)} "
        f"FROM (SELECT *{added_sql} FROM served WHERE _fallback IS NULL AND {is_sampled}) s "
        f"LEFT JOIN (SELECT id AS _hash, y AS _y FROM labels) ON _hash = hash(_id) "
        f"WHERE _y IS NOT NULL OR {is_drawn} ORDER BY {unit}, hash(_id), _time"
    ).fetchnumpy()
    score = score_array(_filled(fetched.pop("_scores")))
    plain = {key: _filled(value) for key, value in fetched.items()}
    truth, logged = (_stacked(plain, name, len(of)) for name, of in picked.items())
    truth = truth if truth.shape[1] > 1 else truth[:, 0]
    codes, raw = {}, {SCORE: plain["_score"].astype(np.float64) / sizes(truth)}
    for index, (name, column) in enumerate(columns.items()):
        raw[name] = column_values = plain[f"_{index}"]
        codes[name] = column_values if column.kind == "category" else column.codes(column_values)
    codes[SCORE] = profile.columns[SCORE].codes(raw[SCORE])
    for index, name in enumerate(profile.facts["classes"]):
        chance = score[:, index] if index < score.shape[1] else np.full(len(score), np.nan)
        codes[CHANCE.format(name)] = profile.columns[CHANCE.format(name)].codes(chance)
    window, drawn = plain["_w"].astype(np.int64), plain["_drawn"].astype(bool)
    errors = _errors(profile, raw, drawn, window, len(health))
    return window, codes, score, truth, logged, drawn, errors


def _stacked(plain: dict[str, Array], name: str, count: int) -> Array:
    """The columns `name0`, `name1` … beside each other, float64, shape (n, count)."""
    columns = [plain[f"{name}{index}"] for index in range(count)]
    return np.column_stack([np.empty((len(plain["_w"]), 0)), *columns]).astype(np.float64)


def _errors(
    profile: Profile, raw: dict[str, Array], drawn: Array, window: Array, windows: int
) -> dict[str, Array]:
    """The mean error that the reference's trees tell of the drawn rows, by what is averaged and window."""
    means, count = {}, np.bincount(window[drawn], minlength=windows)
    for measure, trees in profile.facts.get("errors", {}).items():
        if drawn.any() and {*trees["columns"]} <= {*raw}:
            rows = np.stack([raw[name][drawn] for name in trees["columns"]], 1).astype(np.float64)
            sums = np.bincount(window[drawn], profile.error_models[measure].predict(rows), windows)
            means[measure] = sums / np.maximum(count, 1)
    return means


def _filled(values: Array) -> Array:
    """A column of the database without its mask: NaN, nothing or 0 where a value is missing."""
    placeholder = {"f": np.nan, "O": None}.get(values.dtype.kind, 0)
    return np.asarray(np.ma.filled(values, placeholder))
