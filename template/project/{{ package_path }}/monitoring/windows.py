"""The prediction log and the feedback, as counts in windows of time.

DuckDB reads the files and counts; at most a sample of each window comes into memory, as codes of a
byte a value. So a log larger than memory takes time, not memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from .. import problem
from ..data.schema import TYPES, name, text
from ..paths import FEEDBACK, PREDICTIONS
from ..problem import data as problem_data
from ..records import ANSWER, LABEL, SCORE_COLUMN, Unreadable, database, score_array, view
from ..settings import Settings
from .reference import CHANCE, SCORE, Column, Profile

SAMPLE = 10_000  # rows of a window that are looked at together, column by column
LABELLED = 20_000  # the same of rows whose label is known
MEMORY = "600MB"
UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}

Array = np.ndarray


@dataclass
class Windows:
    """What the log holds.

    Attributes:
        health: one entry a window: times, rows, fallbacks, latency, labels and their delay.
        counts: column -> rows by window and code, shape (windows, codes): categories and scores of
            all rows, numbers of those drawn.
        window, codes, score, y: some rows, the label NaN where there is none (yet).
        drawn: which of them were drawn by chance; the others only because they have a label.
        strange: labels that no label can be -> how often, by window.
        gone: inputs that the log has not; broken: column -> unreadable values by window.
        mix: rows by window and phase of the reference's course, those without a like last, shape
            (windows, phases + 1); mix_labelled: the same of rows with a label.
        errors: of a number, what the reference lets expect of its errors: what is averaged -> mean by
            window.
    """

    health: list[dict[str, Any]]
    counts: dict[str, Array]
    window: Array
    codes: dict[str, Array]
    score: Array
    y: Array
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
        unreadable: takes what of the logs is left out.
    """
    lost = [] if unreadable is None else unreadable
    with database(root, memory_limit=MEMORY) as sql:
        sql.execute("SET preserve_insertion_order = false")
        there = view(sql, "predictions", root / PREDICTIONS, ANSWER, lost, others=True)
        view(sql, "feedback", root / FEEDBACK, LABEL, lost)
        yield sql if there else None


SERVED = "_answered AND _arm = 'champion'"


def models(sql: duckdb.DuckDBPyConnection, settings: Settings) -> dict[str | None, int]:
    """Which models answered in the log's newest windows, and how many rows; the newest last.

    None: rows of which the log does not say it, as of a fallback while no model answered at all.
    """
    starts = _starts(sql, settings, SERVED)
    if not starts:
        return {}
    found = sql.execute(
        "SELECT _model, count(*) FROM predictions "
        f"WHERE {SERVED} AND _fallback IS NULL AND _time >= {_moment(starts[0])} "
        "GROUP BY _model ORDER BY max(_time), _model"
    ).fetchall()
    return dict(found) or {None: 0}


def gather(
    sql: duckdb.DuckDBPyConnection,
    settings: Settings,
    profile: Profile,
    model: str | None = None,
    newest: bool = True,
) -> Windows | None:
    """Count the log's newest windows; None when it has no answer of the champion yet.

    Args:
        model: only this one's answers; None: all.
        newest: it is the model that answered last, so that what the fallback answered is its too.
    """
    starts = _starts(sql, settings, SERVED)
    if not starts:
        return None
    place = " + ".join(f"(_time >= {_moment(start)})::INT" for start in starts)
    kept = f"{SERVED} AND _time >= {_moment(starts[0])}"
    if model is not None:
        own = f"_model = {text(model)} AND _fallback IS NULL"
        kept += f" AND ({own} OR _fallback IS NOT NULL)" if newest else f" AND {own}"
    given = {row[0]: row[1] for row in sql.execute("DESCRIBE predictions").fetchall()}
    sql.execute(
        f"CREATE OR REPLACE TEMP VIEW served AS SELECT *, {place} - 1 AS _w, "
        f"{_hour(settings, profile, given)} AS _hour FROM predictions WHERE {kept}"
    )
    columns = {n: c for n, c in profile.columns.items() if c.kind != "score"}
    gone = [one for one in columns if one not in given]
    columns = {one: c for one, c in columns.items() if one not in gone}
    values = {one: _value(one, column, given[one]) for one, column in columns.items()}
    _categories(sql, columns)
    counts, broken = _counts(sql, profile, columns, values, given, len(starts))
    _labels(sql, settings, profile)
    health = _health(sql, starts)
    strange = _strange(sql, profile, len(starts))
    window, codes, score, y, drawn, errors = _sample(sql, profile, columns, values, health)
    for one, column in profile.columns.items():
        if column.kind != "category" and one != SCORE and one in codes:
            size = len(column.names)
            place = window[drawn] * size + codes[one][drawn]
            cells = np.bincount(place, minlength=len(starts) * size)
            counts[one] = cells.reshape(len(starts), size)
    mixes = (
        _mix(sql, profile, "_w, _hour, count(*) FROM served", len(starts)),
        _mix(sql, profile, "w, hour, count(*) FROM labels", len(starts)),
    )
    return Windows(
        *(health, counts, window, codes, score, y, drawn, strange, gone, broken, *mixes, errors)
    )


def _hour(settings: Settings, profile: Profile, given: dict[str, str]) -> str:
    """SQL for the hour since 1970 that decides on a row's phase: of its event, else of its answer."""
    time = settings.data.schema_.time
    if profile.course.phases < 2:
        return "0"
    own = f"TRY_CAST({name(time)} AS TIMESTAMP)" if time in given else "NULL::TIMESTAMP"
    return f"floor(epoch(coalesce({own}, _time)) / 3600)::BIGINT"


def _mix(sql: duckdb.DuckDBPyConnection, profile: Profile, what: str, windows: int) -> Array:
    """Rows by window and phase, shape (windows, phases + 1)."""
    found = sql.execute(f"SELECT {what} GROUP BY ALL").fetchall()
    window, hours, rows = np.array(found, dtype=np.int64).reshape(-1, 3).T
    return profile.course.mix(window, hours, rows, windows)


def labels_due(
    sql: duckdb.DuckDBPyConnection, settings: Settings, before: datetime
) -> tuple[int, int]:
    """Answers of the newest windows from before this moment, and how many of them have a label."""
    starts = _starts(sql, settings, SERVED)
    if not starts:
        return 0, 0
    (found,) = sql.execute(
        "WITH due AS (SELECT hash(_id) AS id FROM predictions "
        f"WHERE {SERVED} AND _time >= {_moment(starts[0])} AND _time < {_moment(before)}), "
        "told AS (SELECT DISTINCT hash(_id) AS id FROM feedback WHERE _label IS NOT NULL) "
        "SELECT count(*), count(told.id) FROM due LEFT JOIN told USING (id)"
    ).fetchall()
    return found[0], found[1]


def _moment(when: datetime) -> str:
    return f"TIMESTAMP '{when:%Y-%m-%d %H:%M:%S.%f}'"


def _starts(sql: duckdb.DuckDBPyConnection, settings: Settings, served: str) -> list[datetime]:
    """Where the windows begin, oldest first."""
    window, most = settings.monitoring.window, settings.monitoring.windows
    (found,) = sql.execute(
        f"SELECT count(*), min(_time), max(_time) FROM predictions WHERE {served} AND _time IS NOT NULL"
    ).fetchall()
    rows, first, last = found
    if not rows:
        return []
    if isinstance(window, str):
        step = int(window[:-1]) * UNITS[window[-1]]
        # Weeks begin on Mondays: 1970 did on a Thursday
        offset = 4 * 86_400 if window.endswith("w") else 0
        epoch = datetime(1970, 1, 1)
        newest = (int((last - epoch).total_seconds()) - offset) // step * step + offset
        starts = [epoch + timedelta(seconds=newest - back * step) for back in range(most)]
        return [one for one in reversed(starts) if one + timedelta(seconds=step) > first]
    back = [rows - window * number for number in range(1, most + 1) if rows - window * number >= 0]
    if not back:
        return [first]
    begins = sql.execute(
        "SELECT _time FROM (SELECT _time, row_number() OVER (ORDER BY _time) - 1 AS n FROM predictions "
        f"WHERE {served}) WHERE n IN ({', '.join(map(str, back))}) ORDER BY _time"
    ).fetchall()
    return sorted({one[0] for one in begins})


def _value(column: str, known: Column, given: str) -> str:
    """SQL for a value as the reference cuts it: text, or a 32-bit number, NULL where missing."""
    if known.kind == "category":
        return f"nullif(CAST({name(column)} AS VARCHAR), '')"
    if known.kind == "time":
        return f"epoch(TRY_CAST({name(column)} AS TIMESTAMP))"
    plain = f"TRY_CAST({name(column)} AS FLOAT)"
    if given in ("DOUBLE", "FLOAT"):
        plain = f"CAST({name(column)} AS FLOAT)"
        return f"CASE WHEN isnan({plain}) THEN NULL ELSE {plain} END"
    return plain


def _categories(sql: duckdb.DuckDBPyConnection, columns: dict[str, Column]) -> None:
    """A type for each category column, whose numbers are its codes."""
    for place, column in enumerate(columns.values()):
        if column.kind == "category":
            words = [*column.categories, *(column.others or [])] or ["\x7f none"]
            sql.execute(f"CREATE TYPE t{place} AS ENUM ({', '.join(map(text, words))})")


def _code(place: int, column: Column, value: str) -> str:
    """SQL for the code of a category."""
    most = len(column.categories)
    code = f"enum_code(TRY_CAST({value} AS t{place}))"
    unknown = most + 1 if column.others is not None else most
    # `least` would pass over a NULL
    known = f"CASE WHEN {code} IS NULL THEN {unknown} ELSE least({code}, {most}) END"
    return f"CASE WHEN {value} IS NULL THEN {most + 2} ELSE {known} END"


def _counts(
    sql: duckdb.DuckDBPyConnection,
    profile: Profile,
    columns: dict[str, Column],
    values: dict[str, str],
    given: dict[str, str],
    windows: int,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Rows by window and code of categories and scores, and unreadable values, in one scan."""
    parts = {
        one: f"histogram({_code(place, column, values[one])})"
        for place, (one, column) in enumerate(columns.items())
        if column.kind == "category"
    }
    parts[SCORE] = f"histogram(_score, {profile.columns[SCORE].edges}) FILTER (_fallback IS NULL)"
    typed = {one: TYPES[column.kind] for one, column in columns.items()}
    wrong = [one for one in columns if typed[one] != given[one] and typed[one] != "VARCHAR"]
    for one in wrong:
        bad = f"{name(one)} IS NOT NULL AND TRY_CAST({name(one)} AS {typed[one]}) IS NULL"
        parts[f"_wrong {one}"] = f"count(*) FILTER ({bad})"
    found = sql.execute(
        f"SELECT _w, {', '.join(parts.values())} FROM served GROUP BY _w"
    ).fetchall()
    counts, broken = {}, {}
    for at, one in enumerate(parts, start=1):
        if one.startswith("_wrong "):
            broken[one.removeprefix("_wrong ")] = np.zeros(windows, dtype=np.int64)
            for row in found:
                broken[one.removeprefix("_wrong ")][row[0]] = row[at]
            continue
        column = profile.columns[one]
        counts[one] = np.zeros((windows, len(column.names)), dtype=np.int64)
        for row in found:
            cells = row[at] or {}
            if column.kind == "category":
                for code, rows in cells.items():
                    counts[one][row[0], code] = rows
                continue
            for edge, rows in cells.items():
                counts[one][row[0], np.searchsorted(column.edges, edge, side="left")] = rows
    return counts, broken


def _labels(sql: duckdb.DuckDBPyConnection, settings: Settings, profile: Profile) -> None:
    """The newest label of each answered row, once for all who need it; rows go by their hashed id."""
    y = problem_data.truth("label", settings.data.label, "known")
    sql.execute(
        "CREATE OR REPLACE TEMP TABLE labels AS WITH told AS (SELECT hash(_id) AS id, max(_time) AS came, "
        "arg_max(CAST(_label AS VARCHAR), _time) AS label FROM feedback WHERE _label IS NOT NULL "
        f"GROUP BY ALL) SELECT id, w, hour, delay, label, known, {y} AS y FROM (SELECT id, w, hour, label, "
        f"epoch(came) - epoch(_time) AS delay, coalesce({_known(profile)}, false) AS known FROM told JOIN "
        "(SELECT hash(_id) AS id, _w AS w, _hour AS hour, _time FROM served WHERE _fallback IS NULL) USING (id))"
    )


def _health(sql: duckdb.DuckDBPyConnection, starts: list[datetime]) -> list[dict[str, Any]]:
    """What a window says without the reference."""
    found = sql.execute(
        "SELECT served._w, count(*), min(_time), max(_time), count(*) FILTER (_fallback IS NOT NULL), "
        "approx_quantile(_latency_ms::DOUBLE, 0.99), count(*) FILTER (len(_flags) > 0), "
        "mode(_model) FILTER (_fallback IS NULL), "
        "any_value(l.labels), any_value(l.delay) FROM served LEFT JOIN (SELECT w, count(*) AS labels, "
        "median(delay) AS delay FROM labels GROUP BY w) l ON l.w = served._w GROUP BY served._w"
    ).fetchall()
    by_window = {row[0]: row for row in found}
    health = []
    for window, start in enumerate(starts):
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
                "model": row[7],
                "labels": row[8] or 0,
                "label_delay_days": None if row[9] is None else row[9] / 86_400,
            }
        )
    return health


def _known(profile: Profile) -> str:
    """SQL for whether a label is one that there was before."""
    number, facts = "TRY_CAST(label AS DOUBLE)", profile.facts
    if problem.CLASSES:
        values = facts["label_values"]
        words = ", ".join(text(one) for one in values) or "NULL"
        numbers = ", ".join(f"TRY_CAST({text(one)} AS DOUBLE)" for one in values) or "NULL"
        return f"(label IN ({words}) OR coalesce({number} IN ({numbers}), false))"
    # A tenth beyond what was seen is no other unit yet
    room = (facts["label_high"] - facts["label_low"]) / 10
    low, high = facts["label_low"] - room, facts["label_high"] + room
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
    shown = "label" if problem.CLASSES else "'out of range'"
    found = sql.execute(
        f"SELECT w, {shown}, count(*) FROM labels WHERE NOT known GROUP BY ALL ORDER BY 1, 3 DESC, 2"
    ).fetchall()
    for window, label, rows in found:
        strange[window][str(label)[:40]] = rows
    return strange


def _sample(
    sql: duckdb.DuckDBPyConnection,
    profile: Profile,
    columns: dict[str, Column],
    values: dict[str, str],
    health: list[dict[str, Any]],
) -> tuple[Array, dict[str, Array], Array, Array, Array, dict[str, Array]]:
    """A sample of each window's rows, drawn by their id: window, codes, score, label, whether drawn;
    and the errors that are to be expected of those drawn."""
    # Rows are taken whose hashed id is low enough; each window has its own bar
    whole = 2**63
    some = [min(1.0, SAMPLE / max(1, one["rows"])) for one in health]
    more = [min(1.0, LABELLED / max(1, one["labels"])) for one in health]
    bars = [
        f"[{', '.join(str(int(share * whole)) for share in shares)}][_w + 1]"
        for shares in (some, more)
    ]
    parts = [
        f"({_code(place, column, values[one])})::UTINYINT AS _{place}"
        if column.kind == "category"
        else f"{values[one]} AS _{place}"
        for place, (one, column) in enumerate(columns.items())
    ]
    kept = f"(hash(_id) >> 1) <= greatest({bars[0]}, {bars[1]})"
    drawn = f"(hash(_id) >> 1) <= {bars[0]}"
    found = sql.execute(
        f"SELECT _w, _score, {SCORE_COLUMN} AS _scores, _y, {drawn} AS _drawn, {', '.join(parts)} "
        f"FROM (FROM served WHERE _fallback IS NULL AND {kept}) s "
        f"LEFT JOIN (SELECT id AS _hash, y AS _y FROM labels) ON _hash = hash(_id) "
        f"WHERE _y IS NOT NULL OR {drawn}"
    ).fetchnumpy()
    score = score_array(_filled(found.pop("_scores")))
    plain = {key: _filled(value) for key, value in found.items()}
    codes, raw = {}, {SCORE: plain["_score"].astype(np.float64)}
    for place, (one, column) in enumerate(columns.items()):
        raw[one] = given = plain[f"_{place}"]
        codes[one] = given if column.kind == "category" else column.codes(given)
    codes[SCORE] = profile.columns[SCORE].codes(raw[SCORE])
    for place, one in enumerate(profile.facts["classes"]):
        chance = score[:, place] if place < score.shape[1] else np.full(len(score), np.nan)
        codes[CHANCE.format(one)] = profile.columns[CHANCE.format(one)].codes(chance)
    window, y = plain["_w"].astype(np.int64), plain["_y"].astype(np.float64)
    chosen = plain["_drawn"].astype(bool)
    return window, codes, score, y, chosen, _errors(profile, raw, chosen, window, len(health))


def _errors(
    profile: Profile, raw: dict[str, Array], drawn: Array, window: Array, windows: int
) -> dict[str, Array]:
    """The mean error that the reference's trees tell of the drawn rows, by what is averaged and window."""
    found, count = {}, np.bincount(window[drawn], minlength=windows)
    for what, told in profile.facts.get("errors", {}).items():
        if drawn.any() and {*told["columns"]} <= {*raw}:
            rows = np.stack([raw[one][drawn] for one in told["columns"]], 1).astype(np.float64)
            sums = np.bincount(window[drawn], profile.errors[what].predict(rows), windows)
            found[what] = sums / np.maximum(count, 1)
    return found


def _filled(values: Array) -> Array:
    """A column of the database without its mask: NaN, nothing or 0 where a value is missing."""
    nothing = {"f": np.nan, "O": None}.get(values.dtype.kind, 0)
    return np.asarray(np.ma.filled(values, nothing))
