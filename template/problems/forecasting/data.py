"""YOURS: the label: how the sample's series come about, how rows become examples, and what `adopt` says.

A table of series has a row for each series and step: `day 3, shop 7, 12 sold`. An example is one step of one path: what
was known at a moment, the origin, and what came so many steps later. Nothing of it is from after the origin but the
columns that are known ahead, such as a promotion or a holiday, which stand as they are at the later step.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from . import LabelKeys
from .decision import CLIP, SEASONS

if TYPE_CHECKING:
    import pandas as pd  # not above: the service has no pandas

Array = np.ndarray

LIST_ROWS = 1  # of the sample, that are of one person at one moment
# What a truth holds of each row, in this order: SQL on the labelled rows. What came; numbers that stand for the row's
# path and series; how many steps ahead; the series' level, and its mean change by a season, which errors are told by
TRUTH = ("_y", "_path", "_series", "_horizon", "_level", "_change")
LABELLING_FUNCTIONS: dict[str, str] = {}  # this kind takes none
VALUE, PATH, SERIES, HORIZON, LEVEL, CHANGE = range(len(TRUTH))
MIN_CHANGE = 0.01  # of the level; a series that hardly changes counts as if it did so much
HISTORY = 64  # values, where the column says nothing of its length

# The sample: days that its series are told for, at most, and shares of them
DAYS, MIN_DAYS = 240, 100
NEW, ENDED, STOCK_OUTS, PROMOTED = 0.12, 0.08, 0.004, 0.08


def outcome(
    signal: Array, columns: Mapping[str, Array], rng: np.random.Generator
) -> dict[str, Array]:
    """The sample's label before its rows are made into series, which `planted` does.

    Args:
        signal: standardised, higher means more, shape (n,).

    Returns:
        the column label: a positive, right-skewed amount by row, shape (n,).
    """
    return {"label": np.exp(3.0 + 0.8 * signal)}


def planted(events: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The sample's events as series by day: each row a day of one object at one entity.

    A series has a level that wanders, a course by week and by year, discounts that are known ahead, days without
    stock, and noise; some begin late and some end early. What is told of an entity or an object is the same on all days.
    """
    import pandas as pd

    n = len(events)
    days = int(np.clip(round(3 * np.sqrt(n)), MIN_DAYS, DAYS))
    series, day = _calendar(n, days, rng)
    order = np.lexsort((series, day))
    series, day = series[order], day[order]
    table = events.copy()
    static = [name for name in events if name.startswith(("entity_", "object_", "pair_"))]
    first = events[static].iloc[: series.max() + 1].reset_index(drop=True)
    table[static] = first.iloc[series].set_index(events.index)
    end = events["event_time"].max().normalize()
    delay = events["label_time"] - events["event_time"]
    table["event_time"] = (end - pd.to_timedelta(days - 1 - day, unit="D")).to_numpy()
    table["event_time"] = table["event_time"].astype(events["event_time"].dtype)
    table["label_time"] = table["event_time"] + delay
    discount = _discounts(series, day, days, rng)
    sold = _sold(events["label"], series, day, days, discount, table["object_category"], rng)
    table["label"] = pd.Series(sold, events.index).mask(events["label"].isna())
    table["discount"] = discount
    table["series_id"] = pd.Categorical([f"s{number:04}" for number in series])
    table["object_price"] = (table["object_price"] * (1 + 0.15 * day / days)).round(2)
    return table


def _calendar(n: int, days: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """The series and the day of each of n rows: as many series as it takes, the last one cut; each of shape (n,)."""
    series: list[Array] = []
    numbers: list[Array] = []
    total = 0
    while total < n:
        start = int(rng.integers(days // 4, days * 3 // 4)) if rng.random() < NEW else 0
        end = int(rng.integers(days // 2, days)) if rng.random() < ENDED else days
        start, end = (0, days) if end - start < days // 4 else (start, end)
        start = max(start, end - (n - total))
        series.append(np.full(end - start, len(series)))
        numbers.append(np.arange(start, end))
        total += end - start
    return np.concatenate(series), np.concatenate(numbers)


def _discounts(series: Array, day: Array, days: int, rng: np.random.Generator) -> Array:
    """The discount of each row, a share of the price, mostly 0: of a whole week of one series, shape (n,)."""
    shape = series.max() + 1, days // 7 + 1
    is_on = rng.random(shape) < PROMOTED
    discounts = np.where(is_on, rng.choice([0.1, 0.2, 0.3, 0.4], shape), 0.0)
    return np.asarray(discounts[series, day // 7])


def _sold(
    size: pd.Series,
    series: Array,
    day: Array,
    days: int,
    discount: Array,
    category: pd.Series,
    rng: np.random.Generator,
) -> Array:
    """What each series sold on each day, whole numbers, shape (n,).

    Args:
        size: whose values, one a series, are the levels to begin with.
        series, day, discount, category: of each row, shape (n,).
    """
    count = int(series.max()) + 1
    level = size.fillna(size.median()).to_numpy()[:count].clip(2, 400)
    steps = 0.015 * rng.standard_normal((count, days)) + 0.0004 * rng.standard_normal((count, 1))
    wander = np.cumsum(steps, axis=1)
    kind = category.cat.codes.to_numpy()
    weekly = np.random.default_rng(3).normal(0, 0.25, (kind.max() + 2, 7))
    by_series = 0.1 * rng.standard_normal((count, 7))
    phase = 2 * np.pi * (np.arange(kind.max() + 2) / (kind.max() + 2))
    yearly = 0.25 * np.sin(2 * np.pi * day / 365.25 + phase[kind])
    effect = 1.2 + 0.8 * rng.random(count)
    course = (
        np.log(level[series])
        + wander[series, day]
        + weekly[kind, day % 7]
        + by_series[series, day % 7]
        + yearly
        + effect[series] * discount
        + 0.12 * rng.standard_normal(len(day))
    )
    out_of_stock = rng.random((count, days)) < STOCK_OUTS
    for _ in range(2):  # of up to three days
        out_of_stock[:, 1:] |= out_of_stock[:, :-1] & (rng.random((count, days - 1)) < 0.5)
    return np.where(out_of_stock[series, day], 0.0, rng.poisson(np.exp(course))).astype(np.float64)


Columns = Mapping[str, tuple[str, str]]  # of a source: name -> (name in its SQL, type)
# What a column of a step is called, in a table with a row for each series: a day, a month, a quarter or a year
DATE_NAME = re.compile(
    r"[0-9]{4}([-/. ]?[0-9]{1,2}([-/. ]?[0-9]{1,2}([ T][0-9:.]+Z?)?)?|[-_ /]?Q[1-4])?|Q[1-4][-_ /]?[0-9]{4}|"
    r"[0-9]{1,2}[-/. ]([0-9]{1,2}|[A-Za-z]{3,9})[-/. ]([0-9]{4}|[0-9]{2})|[A-Za-z]{3,9}[-/. ]([0-9]{4}|[0-9]{2})"
)
UNNAMED = re.compile(r"(Unnamed: [0-9]+|column[0-9]+|)")  # of the rows' numbers, as files have them
MIN_STEPS = 8  # rows of a series, on average, in a file whose columns are asked which of them tell series apart
MAX_COMPARED = 8  # columns that are asked
MIN_DATES = 4  # columns of steps, from which on a table is taken for one with a row for each series
BETWEEN = " · "  # the values of several columns that tell series apart together


def long_rows(query: str, columns: Columns, settings: Any) -> tuple[str, Columns]:
    """A source with a row for each series and step, whatever its layout is (`data.label.layout` and `joined`).

    Args:
        query: SQL of its rows; columns: theirs.

    Returns:
        the same of those rows. A source whose rows hold histories stays as it is.
    """
    label, rules = settings.data.label, settings.data.schema_.columns
    names = {
        key: (rules[name].source or name) if name in rules else name
        for key, name in (
            ("column", label.column), ("series", label.series), ("history", label.history),
            ("time", settings.data.schema_.time),
        )
    }  # fmt: skip
    if names["history"] in columns:
        return query, columns
    return _lengthened(query, columns, label.layout, label.joined, names)


def _lengthened(
    query: str,
    columns: Columns,
    layout: str,
    joined: Sequence[str],
    names: Mapping[str, str | None],
) -> tuple[str, Columns]:
    """As `long_rows`; names: of the columns `column`, `series` and `time`, as the source has them."""
    value, series, time = (str(names[key]) for key in ("column", "series", "time"))
    if layout != "single" and value in columns and time in columns:
        layout = "long"  # a file that stands otherwise than the first
    listed = {name: column for name, column in columns.items() if name not in (value, series)}
    if layout == "single":
        query = f"SELECT *, {_text(series)} AS _series FROM ({query})"
        return query, {**columns, series: ("_series", "VARCHAR")}
    if layout == "dates":
        steps = [name for name in listed if DATE_NAME.fullmatch(name.strip())]
        fixed = {name: column for name, column in columns.items() if name not in steps}
        query, made_columns = _unpivoted(query, columns, steps, fixed, (time, value))
    elif layout == "series" and time in columns:
        steps = [name for name in listed if name != time and not UNNAMED.fullmatch(name)]
        query, made_columns = _unpivoted(
            query, columns, steps, {time: columns[time]}, (series, value)
        )
    else:
        made_columns = dict(columns)
    if joined and all(name in made_columns for name in joined):
        parts = (f"coalesce(CAST({made_columns[name][0]} AS VARCHAR), '')" for name in joined)
        query = (
            f"SELECT *, concat_ws({_text(BETWEEN)}, {', '.join(parts)}) AS _series FROM ({query})"
        )
        made_columns = {**made_columns, series: ("_series", "VARCHAR")}
    return query, made_columns


def _unpivoted(
    query: str,
    columns: Columns,
    steps: Sequence[str],
    fixed: Columns,
    names: tuple[str, str],
) -> tuple[str, dict[str, tuple[str, str]]]:
    """Columns as rows: SQL of a row for each cell that is not empty, and its columns.

    Args:
        steps: the columns that become rows; fixed: those that stand beside each.
        names: what the column with their names is called, and the one with their values.
    """
    kind = "VARCHAR" if any(columns[name][1] == "VARCHAR" for name in steps) else "DOUBLE"
    cells = ", ".join(f"CAST({columns[name][0]} AS {kind})" for name in steps)
    kept_columns = "".join(f"{column}, " for column, _ in fixed.values())
    is_empty = "trim(_value) IN ('', 'nan', 'NaN')" if kind == "VARCHAR" else "NOT isfinite(_value)"
    rows = (
        f"SELECT {kept_columns}unnest([{', '.join(map(_text, steps))}]::VARCHAR[]) AS _name, "
        f"unnest([{cells}]::{kind}[]) AS _value FROM ({query})"
    )
    name, value = names
    made_columns = {**fixed, name: ("_name", "VARCHAR"), value: ("_value", kind)}
    return f"SELECT * FROM ({rows}) WHERE _value IS NOT NULL AND NOT {is_empty}", made_columns


def adopted_layout(
    sql: Any, query: str, columns: Columns, label: str, time: str | None, group: str | None
) -> dict[str, Any]:
    """How a new file stands: a row for each series and step, or for each series, or for each step.

    Args:
        sql: a database; query: SQL of the file's rows; columns: theirs.
        label, time, group: what the user calls the columns of the value, the moment and the series; of a file that
            has no such columns, what they are to be called. `group` may name several, with commas.

    Returns:
        query, columns: of a row for each series and step · time, group: the names of these columns · keys of
        `data.label` · lines: what was decided, and why. Nothing of a file that is long already.
    """
    spelt = {_plain(name): name for name in columns}
    joined = [spelt.get(_plain(name), "") for name in (group or "").split(",")]
    joined = joined if len(joined) > 1 and all(joined) else []
    time = spelt.get(_plain(time), time) if time else None
    layout, line = _told_layout(sql, query, columns, _plain(label) in spelt, time, group)
    if layout == "dates":
        time = time or _free_name("date", spelt)
        fixed = {n: column for n, column in columns.items() if not DATE_NAME.fullmatch(n.strip())}
        joined = joined or _telling_apart(sql, query, fixed, None, group)
        if not joined:  # nothing to call a series by
            return {}
    elif layout == "long" and not joined:
        if group or time not in columns or _plain(label) not in spelt:
            return {}
        remaining = {n: c for n, c in columns.items() if n not in (spelt[_plain(label)], time)}
        joined = _telling_apart(sql, query, remaining, columns[str(time)][0], None)
        if not joined:
            return {}
    lines = [line] if line else []
    if len(joined) == 1:
        group, joined = joined[0], []
        lines.append(f"source: series are told apart by {group}; --group names another column")
    elif joined:
        group = "series" if group is None or "," in group else group
        lines.append(f"source: series are told apart by {' and '.join(joined)} (data.label.joined)")
    group = group or "series"
    group = group if group in columns and not joined else _free_name(group, spelt)
    names = {"column": label, "series": group, "time": time}
    query, made_columns = _lengthened(query, columns, layout, joined, names)
    return {"query": query, "columns": made_columns, "time": time, "group": group,
            "keys": {"layout": layout, "joined": joined}, "lines": lines}  # fmt: skip


def _told_layout(
    sql: Any, query: str, columns: Columns, has_value: bool, time: str | None, group: str | None
) -> tuple[str, str]:
    """How a file stands, as `data.label.layout` has it, and a line on what it is taken for; none of a long one.

    Args:
        has_value: whether a column is called as the label is; time, group: the columns that the user names.
    """
    dates = sum(bool(DATE_NAME.fullmatch(name.strip())) for name in columns)
    if not has_value and dates >= MIN_DATES:
        of_steps = f"a column for each of {dates:,} steps"
        return "dates", f"source: a row for each series and {of_steps} (data.label.layout)"
    if time is None or time not in columns or (has_value and group):
        return "long", ""
    if (not has_value and len(columns) < 3) or not _is_distinct(sql, query, columns, time):
        return "long", ""
    if has_value:
        advice = "since each moment has one row; --group names what tells several apart"
        return "single", f"source: a single series, {advice}"
    of_series = f"a column for each of {len(columns) - 1:,} series"
    return "series", f"source: a row for each step and {of_series} (data.label.layout)"


def _plain(name: str) -> str:
    """A column's name without what files and people spell differently."""
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_") or name


def _is_distinct(sql: Any, query: str, columns: Columns, *names: str) -> bool:
    """Whether no two rows have the same values of some columns."""
    values = ", ".join(f"trim(CAST({columns[name][0]} AS VARCHAR))" for name in names)
    ((rows, distinct),) = sql.execute(
        f"SELECT count(*), count(DISTINCT hash({values})) FROM ({query})"
    ).fetchall()
    return bool(rows == distinct)


def _telling_apart(
    sql: Any, query: str, columns: Columns, time: str | None, group: str | None
) -> list[str]:
    """The fewest columns that tell the series of a file apart: with the moment, no two rows have the same values.

    Args:
        columns: that may; time: SQL of the moment; None where each row is a series.
        group: the one that the user names.
    """
    named = [name for name in columns if group and _plain(name) == _plain(group)]
    if named or not columns:
        return named
    values = {name: f"CAST({column} AS VARCHAR)" for name, (column, _) in columns.items()}
    counts = ", ".join(f"count(DISTINCT {value})" for value in values.values())
    ((rows, *distinct),) = sql.execute(f"SELECT count(*), {counts} FROM ({query})").fetchall()
    # What is another value in nearly every row tells rows apart, and no series
    limit = rows if time is None else rows / MIN_STEPS
    counted = sorted(
        (n, name)
        for n, name in zip(distinct, columns, strict=True)
        if n <= limit and (n > 1 or time is None)
    )
    candidates = [name for _, name in counted[-MAX_COMPARED:]]
    for size in (1, 2, 3):
        for names in combinations(candidates, size):
            listed = ", ".join([values[name] for name in names] + ([time] if time else []))
            ((n,),) = sql.execute(
                f"SELECT count(DISTINCT hash({listed})) FROM ({query})"
            ).fetchall()
            if n == rows:
                return [name for name in columns if name in names]
    return []


def made(label: LabelKeys) -> set[str]:
    """The columns that the stage `label` makes, and no source needs to have."""
    if label.series is None:
        return set()
    return {name for name in (label.history, label.horizon, label.target_time) if name}


def examples(sql: Any, settings: Any, known_at: str) -> tuple[str, str]:
    """What is learnt from, of a database with the view `events`: a row for each step of each path.

    Paths begin every so many steps, counted back from the last one at which a whole path is known, at each series that
    has a value by then: at the latest moment of any value of that step. A step's row has the event's own columns as they were at that step, the path's origin as its
    time, and the values that were known at the origin as its history.

    Args:
        known_at: SQL for when the value of an event was known.

    Returns:
        the name of the table or view, and SQL on it for when a label was known.
    """
    label = settings.data.label
    if label.series is None:
        return "events", known_at
    sql.execute(
        "CREATE VIEW numbered_events AS SELECT *, row_number() OVER () AS _number FROM events"
    )
    _merge_steps(sql, settings, known_at)
    _fill_steps(sql, label)
    starts = f"range((SELECT max(step) FROM steps) - {label.ahead}, -1, -{label.stride})"
    origins = f"SELECT unnest({starts}) AS origin"
    _make_paths(sql, settings, origins, "origin BETWEEN first AND last")
    time, row_id = settings.data.schema_.time, settings.data.schema_.id
    replaced = {
        time: "paths.moment",
        label.history: "CAST(to_json(paths.past) AS VARCHAR)",
        label.horizon: "CAST(steps.step - paths.origin AS DOUBLE)",
        label.target_time: f"events_.{_quoted(time)}",
        row_id: f"CAST(events_.{_quoted(row_id)} AS VARCHAR) || '@' || (steps.step - paths.origin)",
        label.column: "steps.value",
    }
    changes = ", ".join(
        f"{made_of} AS {_quoted(name)}" for name, made_of in replaced.items() if name
    )
    sql.execute(
        f"CREATE TABLE examples AS SELECT events_.* EXCLUDE (_number) REPLACE ({changes}), "
        f"steps.known_at AS _step_known_at, paths._level, paths._change FROM paths "
        f"JOIN steps ON steps.series = paths.series "
        f"AND steps.step BETWEEN paths.origin + 1 AND paths.origin + {label.ahead} "
        f"JOIN numbered_events AS events_ ON events_._number = steps.event "
        f"ORDER BY paths.origin, paths.series, steps.step"
    )
    return "examples", "_step_known_at"


def _merge_steps(sql: Any, settings: Any, known_at: str) -> None:
    """Make the table `steps`: of each series and step with a row its value, when it was known, the latest moment, and
    which event stands for it."""
    label, schema = settings.data.label, settings.data.schema_
    time, value = _quoted(schema.time), f"TRY_CAST({_quoted(label.column)} AS DOUBLE)"
    order = f"{time}, {_quoted(schema.id)}" if schema.id else time
    merged = {
        "last": f"arg_max({value}, ({order}))",
        "sum": f"sum({value})",
        "mean": f"avg({value})",
    }
    moment = f"max({known_at})" if label.repeated != "last" else f"arg_max({known_at}, ({order}))"
    unit = label.step
    index = f"date_diff('{unit}', {_start(settings)}, date_trunc('{unit}', {time}))"
    sql.execute(
        f"CREATE TABLE steps AS SELECT {_quoted(label.series)} AS series, CAST({index} AS INTEGER) AS step, "
        f"{merged[label.repeated]} AS value, {moment} AS known_at, max({time}) AS moment, "
        f"arg_max(_number, ({order})) AS event FROM numbered_events "
        f"WHERE {_quoted(label.series)} IS NOT NULL AND {time} IS NOT NULL GROUP BY 1, 2"
    )


def _start(settings: Any) -> str:
    """SQL for the beginning of the first step."""
    time = _quoted(settings.data.schema_.time)
    return f"(SELECT date_trunc('{settings.data.label.step}', min({time})) FROM events)"


def future(sql: Any, settings: Any) -> str:
    """The steps ahead of each series, of a database with the view `events`, whose values are all known.

    Every series goes on from the last step of which any has a value. A step ahead that has a row already, without a
    value, is as that row says; of any other, what never changes within the series is as it was, and the rest is
    missing.

    Returns:
        the name of the table: the columns of the events without the label, and those of `made`.
    """
    label, schema = settings.data.label, settings.data.schema_
    time, series = _quoted(schema.time), _quoted(label.series)
    for kind, name in (
        ("VIEW", "numbered_events"),
        *(("TABLE", n) for n in ("steps", "courses", "paths", "future")),
    ):
        sql.execute(f"DROP {kind} IF EXISTS {name}")
    sql.execute(
        "CREATE VIEW numbered_events AS SELECT *, row_number() OVER () AS _number FROM events"
    )
    _merge_steps(sql, settings, time)
    _fill_steps(sql, label)
    newest = "SELECT max(step) AS origin FROM steps WHERE value IS NOT NULL"
    _make_paths(sql, settings, newest, "origin >= first")
    described = [row[0] for row in sql.execute("DESCRIBE events").fetchall()]
    fixed = {name for name in described if name not in (schema.time, label.series, label.column)}
    as_it_was = ", ".join(
        f"CASE WHEN count(DISTINCT {_quoted(name)}) = 1 THEN any_value({_quoted(name)}) END AS {_quoted(name)}"
        for name in sorted(fixed)
    )
    begin = f"{_start(settings)} + to_{label.step}s(CAST(paths.origin + ahead AS INTEGER))"
    within = f"(paths.moment - date_trunc('{label.step}', paths.moment))"
    moment = f"CAST(coalesce(events_.{time}, {begin} + {within}) AS TIMESTAMP)"
    columns = {name: f"coalesce(events_.{_quoted(name)}, usual.{_quoted(name)})" for name in fixed}
    columns |= {
        str(label.series): "paths.series",
        schema.time: "paths.moment",
        label.history: "CAST(to_json(paths.past) AS VARCHAR)",
        label.horizon: "CAST(ahead AS DOUBLE)",
        **({label.target_time: moment} if label.target_time else {}),
        **({schema.id: f"CAST(paths.series AS VARCHAR) || '@' || {moment}"} if schema.id else {}),
    }
    made_of = ", ".join(f"{value} AS {_quoted(name)}" for name, value in columns.items())
    sql.execute(
        f"CREATE TABLE future AS WITH usual AS (SELECT {series} AS _of{', ' + as_it_was if fixed else ''} FROM events "
        f"GROUP BY 1) SELECT {made_of} FROM paths CROSS JOIN (SELECT unnest(range(1, {label.ahead + 1})) AS ahead) "
        f"JOIN usual ON usual._of = paths.series LEFT JOIN steps ON steps.series = paths.series "
        f"AND steps.step = paths.origin + ahead "
        f"LEFT JOIN numbered_events AS events_ ON events_._number = steps.event ORDER BY paths.series, ahead"
    )
    return "future"


def known_by_key(sql: Any, settings: Any) -> dict[str, str]:
    """What is known of each series, for the service: its history, the moment that it goes up to, and of what is known
    ahead a list, a value for each step.

    Args:
        sql: a database with the view `events`, whose values are all known.

    Returns:
        column -> SQL of a row for each of its values, in the order that they are listed in; nothing where no column
        tells series apart.
    """
    label, schema = settings.data.label, settings.data.schema_
    if label.series is None:
        return {}
    table, horizon = future(sql, settings), _quoted(label.horizon)
    left_out = {label.series, label.horizon, label.target_time, schema.id}
    columns = [row[0] for row in sql.execute(f"DESCRIBE {table}").fetchall()]
    selected = (
        f"any_value({_quoted(name)}) AS {_quoted(name)}"
        if name in (schema.time, label.history)
        else f"list({_quoted(name)} ORDER BY {horizon}) AS {_quoted(name)}"
        for name in columns
        if name not in left_out
    )
    series = _quoted(label.series)
    return {
        label.series: f"SELECT {series}, {', '.join(selected)} FROM {table} GROUP BY 1 ORDER BY 1"
    }


HOURS, MONTHS = (
    {"hour": 1, "day": 24, "week": 168},
    {"month": 1, "quarter": 3, "year": 12},
)  # of a step


def steps_after(origin: datetime, label: LabelKeys) -> list[datetime]:
    """The moments of the steps ahead of an origin, by the calendar: of a month's last days, the last that there is."""
    if label.step in HOURS:
        step = timedelta(hours=HOURS[label.step])
        return [origin + ahead * step for ahead in range(1, label.ahead + 1)]
    moments = []
    for ahead in range(1, label.ahead + 1):
        years, month = divmod(origin.month - 1 + ahead * MONTHS[label.step], 12)
        last_day = monthrange(origin.year + years, month + 1)[1]
        day = min(origin.day, last_day)
        moments.append(origin.replace(year=origin.year + years, month=month + 1, day=day))
    return moments


def repeated(label: LabelKeys) -> list[str]:
    """The columns of a row that a file of answers repeats, beside its id: of which series and moment a forecast is."""
    return [name for name in (label.series, label.target_time) if name]


def _make_paths(sql: Any, settings: Any, origins: str, holds: str) -> None:
    """Make the table `paths`: of each series and origin what was known then, and the scales of the series.

    Args:
        origins: SQL of the steps at which paths begin; holds: whether a series has a path there.
    """
    label = settings.data.label
    length = settings.data.schema_.columns[label.history].length or HISTORY
    begin = f"CAST({_start(settings)} + to_{label.step}s(CAST(origin AS INTEGER)) AS TIMESTAMP)"
    position = "step - first + 1"
    sizes = ", ".join(f"{made_of} AS {name}" for name, made_of in _scales_of("past", label).items())
    sql.execute(
        f"CREATE TABLE paths AS WITH origins AS (SELECT origin, coalesce(max(steps.moment), {begin}) AS moment "
        f"FROM ({origins}) "
        f"LEFT JOIN steps ON steps.step = origin GROUP BY origin), "
        f"pasts AS (SELECT series, origin, moment, "
        f"list_transform(range(greatest(origin - {length} + 1, first), origin + 1), lambda step: "
        f"CASE WHEN all_known[{position}] <= moment THEN all_values[{position}] END) AS past "
        f"FROM courses, origins WHERE {holds}) "
        f"SELECT *, {sizes} FROM pasts WHERE len(list_filter(past, lambda x: x IS NOT NULL)) > 0"
    )


def _fill_steps(sql: Any, label: LabelKeys) -> None:
    """Make the table `courses`: of each series its values and when they were known, step by step without a hole."""
    gap = "0.0" if label.gaps == "zero" else "NULL"
    sql.execute(
        f"CREATE TABLE courses AS WITH ends AS (SELECT series, min(step) AS first, max(step) AS last FROM steps "
        f"GROUP BY series), grid AS (SELECT series, first, last, unnest(range(first, last + 1)) AS step FROM ends) "
        f"SELECT grid.series, any_value(first) AS first, any_value(last) AS last, "
        f"list(CASE WHEN steps.series IS NULL THEN {gap} ELSE steps.value END ORDER BY grid.step) AS all_values, "
        f"list(coalesce(steps.known_at, TIMESTAMP '0001-01-01') ORDER BY grid.step) AS all_known "
        f"FROM grid LEFT JOIN steps ON steps.series = grid.series AND steps.step = grid.step GROUP BY grid.series"
    )


def truth(column: str, label: LabelKeys, has_label: str) -> str:
    """SQL for a label as a number: itself.

    Args:
        column: SQL of the label as it came; has_label: SQL for whether there is one.
    """
    return f"TRY_CAST({column} AS DOUBLE)"


def level(history: str, season: int) -> str:
    """`decision.level` as SQL, NULL for a series without any value; `history`: SQL of a list of numbers."""
    lately = f"{history}[-{SEASONS * season}:]"
    sizes = "list_transform(list_filter({}, lambda x: x != 0), lambda x: abs(x))"

    def clipped(values: str) -> str:
        # The mean stands in a list of its own: the database would work it out anew for each value
        limited = f"list_transform({values}, lambda x: least(x, {CLIP} * mean))"
        return f"list_transform([list_avg({values})], lambda mean: list_avg({limited}))[1]"

    return f"coalesce({clipped(sizes.format(lately))}, {clipped(sizes.format(history))})"


def change(history: str, season: int) -> str:
    """SQL for the mean change of a series by a season, NULL where it is not told (the scale of MASE; Hyndman and
    Koehler, 2006)."""
    later = f"{history}[{season + 1}:]"
    return f"list_avg(list_transform({later}, lambda x, i: abs(x - {history}[i])))"


def _scales(label: LabelKeys, columns: Collection[str]) -> dict[str, str]:
    """SQL for the level and the change of a row's series, by its history; 1 without one."""
    if label.history is None or label.history not in columns:
        return {"_level": "1.0", "_change": "1.0"}
    return _scales_of(f"CAST(nullif({_quoted(label.history)}, '') AS DOUBLE[])", label)


def _scales_of(history: str, label: LabelKeys) -> dict[str, str]:
    """SQL for the level and the change of a series; `history`: SQL of a list of numbers."""
    size = f"coalesce({level(history, label.season)}, 1.0)"
    moved = f"coalesce({change(history, label.season)}, {size})"
    return {"_level": size, "_change": f"greatest({moved}, {MIN_CHANGE} * {size})"}


def circumstances(sql: Any, settings: Any) -> tuple[dict[str, str], str, dict[str, Any]]:
    """How labelled rows came about, beside `_y`.

    Args:
        sql: a database with the view `judged`: the examples, and `_y`.

    Returns:
        columns, name -> SQL on that view: `_path` and `_series` as numbers that stand for them, `_horizon`, `_level`
        and `_change` · no order · what reports/label.json says of it: how many series and paths.
    """
    label, schema = settings.data.label, settings.data.schema_
    if label.series is None:
        return _keys(settings, schema.time, schema.columns) | _scales(label, schema.columns), "", {}
    columns = _keys(settings, schema.time, schema.columns) | {
        "_level": "_level",
        "_change": "_change",
    }
    counts = f"count(DISTINCT {columns['_series']}), count(DISTINCT {columns['_path']})"
    ((series, paths),) = sql.execute(f"SELECT {counts} FROM judged WHERE _y IS NOT NULL").fetchall()
    return columns, "", {"series": series, "paths": paths, "steps_ahead": label.ahead}


def _keys(settings: Any, moment: str | None, columns: Collection[str]) -> dict[str, str]:
    """SQL for the numbers that stand for a row's path and series, and how many steps ahead it is.

    Without a column that tells series apart, the rows of one history are one.
    """
    label = settings.data.label
    horizon = f"coalesce({_quoted(label.horizon)}, 1.0)" if label.horizon in columns else "1.0"
    key = label.series if label.series in columns else label.history
    if label.series is None or key not in columns:
        alone = "CAST(row_number() OVER () AS DOUBLE)"
        return {"_path": alone, "_series": alone, "_horizon": horizon}
    series = f"coalesce(CAST({_quoted(key)} AS VARCHAR), '')"
    origin = f"coalesce(CAST({_quoted(moment)} AS VARCHAR), '')" if moment in columns else "''"
    return {
        "_path": _number(f"{series} || '@' || {origin}"),
        "_series": _number(series),
        "_horizon": horizon,
    }


def _number(value: str) -> str:
    """SQL for a number that stands for a text: 52 bits of its hash, which a float holds exactly."""
    return f"CAST(md5_number_lower({value}) >> 12 AS DOUBLE)"


def _text(value: str) -> str:
    """A text in SQL."""
    return "'" + value.replace("'", "''") + "'"


def _quoted(column: str | None) -> str:
    return '"' + (column or "").replace('"', '""') + '"'


def list_columns(label: LabelKeys) -> tuple[str | None, str | None]:
    """The columns that tell lists apart, and what their items are about: none, rows stand by themselves."""
    return None, None


def bundle(label: LabelKeys) -> str | None:
    """The column of labelled rows by which they stay together however they are split: its path, where rows make series."""
    return "_path" if label.series else None


def logged_inputs(settings: Any) -> list[str]:
    """The columns of a logged answer that `logged` reads: of the series and its scale."""
    label, schema = settings.data.label, settings.data.schema_
    return [*filter(None, (label.series, label.history, label.horizon, schema.time))]


def logged(settings: Any, facts: Mapping[str, Any], columns: Collection[str]) -> dict[str, str]:
    """What `TRUTH` needs of a logged answer beside `_y`: name -> SQL on the log's columns.

    Args:
        columns: that the log has; one that a file scored may hold no more than what the model reads.
    """
    label, moment = settings.data.label, settings.data.schema_.time
    keys = _keys(settings, moment, columns)
    return keys | _scales(label, columns)


def decided(column: str, label: LabelKeys) -> str:
    """SQL for a logged decision as a number."""
    return column


def named(label: LabelKeys) -> list[str]:
    """The values of the label that the settings name: none."""
    return []


def listed(label: LabelKeys, training_values: Sequence[str]) -> list[str]:
    """All values that a label may be: any number, so none is listed."""
    return []


def outlook(in_source: tuple[int, int], fed_back: tuple[int, int]) -> str:
    """What `design status` says of the labels: nothing, since all that is learnt is learnt from them."""
    return ""


def single(label: LabelKeys) -> str:
    """What a label that cannot be learnt has beside its one value, in words."""
    return ""


def lacking(training_labels: Array, other_labels: Array, label: LabelKeys) -> str:
    """Which classes stand in some parts and have no row to learn from, in words; of a number ""."""
    return ""


def reward(value: str, named_values: list[str]) -> float | None:
    """What a bandit learns from a label; None: of a number it does not."""
    return None


def coded(values: pd.Series, keys: Mapping[str, Any], same: Callable[[str], str]) -> Array:
    """Labels of a new file as numbers, shape (n,)."""
    return values.to_numpy(np.float64)


def adopted(
    header: str,
    name: str,
    counts: Mapping[str, int],
    spelt: Mapping[str, str],
    wish: tuple[str, str] | None,
    missing: str,
) -> tuple[dict[str, Any], str, str]:
    """What a new label's values mean: nothing has to be chosen of a number.

    Returns:
        the keys of `data.label`, a line on what was decided, and why it cannot be learnt, or "".

    Raises:
        ValueError: when a value is wished for as the yes.
    """
    if wish is not None:
        raise ValueError(
            "--positive is for a yes or no; this project forecasts a number: leave it out"
        )
    return {}, "", ""


def adopted_lists(
    columns: Mapping[str, str], group: str | None
) -> tuple[dict[str, Any], list[str]]:
    """How the rows of a new file make lists: they make series, as `adopted_series` says.

    Returns:
        no keys of `data.label`, and nothing to say.
    """
    return {}, []


# Of each step: the most days that lie between two values, its season, and how many steps are forecast
STEPS_BY_DAYS = {
    "hour": (0.5, 24, 24), "day": (3.5, 7, 14), "week": (16.0, 52, 8), "month": (60.0, 12, 6), "quarter": (200.0, 4, 4),
    "year": (float("inf"), 1, 2),
}  # fmt: skip
MAX_SEASONS = 9  # of a history
MAX_EXAMPLES = 300_000  # beyond, origins lie farther apart
ORIGINS = 30  # that a series is to have, where it is long enough
COLUMNS_AT_ONCE = 200  # that are looked at in one query
MAX_CHANGING = 0.05  # of the series, in which a column may change that is the series' own
MAX_GROUPS, MAX_LEVELS = (
    50,
    5,
)  # values of a column that forecasts are summed by, and how many such columns
MADE = ("history", "horizon", "target_time")  # what the columns are called that `label` makes


def adopted_series(
    sql: Any,
    values: Mapping[str, str],
    kinds: Mapping[str, str],
    time: str | None,
    group: str | None,
) -> dict[str, Any]:
    """How the rows of a new file make series, by the steps of their times.

    Args:
        sql: a database with the file's rows as the view `source`.
        values: SQL of each column's values; kinds: their types.
        time, group: the columns that tell when a value was, and of which series.

    Returns:
        keys of `data.label`; columns: what `label` makes, as the schema has it; features: of these, as the catalogue has
        them; unknown: numbers that change within a series, which nobody may know ahead; lines: what was decided, and
        why.
    """
    if time is None or group is None:
        line = "series: none told; --time and --group name the columns that tell when a value was, and of which series"
        keys: dict[str, Any] = {"layout": "long", "joined": [], "summed_by": []}
        keys |= dict.fromkeys(("series", *MADE))
        return {"keys": keys, "columns": {}, "features": {}, "unknown": [], "lines": [line]}
    step, spans = _found_step(sql, values[time], values[group])
    _, season, ahead = STEPS_BY_DAYS[step]
    ((steps, series),) = sql.execute(
        f"SELECT date_diff('{step}', min({values[time]}), max({values[time]})) + 1, count(DISTINCT {values[group]}) "
        f"FROM source"
    ).fetchall()
    ahead = max(1, min(ahead, steps // 8))
    length = max(4, min(MAX_SEASONS * season, (steps - ahead) // 2))
    season = season if season <= length else 1
    stride = max(1, min(ahead, steps // ORIGINS))
    while series * (steps // stride) * ahead > MAX_EXAMPLES and stride < steps // 4:
        stride += 1
    names = {key: _free_name(key, kinds) for key in MADE}
    keys = {"layout": "long", "joined": [], "series": group, "step": step, "ahead": ahead, "season": season, "stride": stride,
            "gaps": "missing", "repeated": "last" if spans else "sum", **names}  # fmt: skip
    several = "" if spans else "; rows of one step are summed (data.label.repeated)"
    lines = [
        f"series: {series:,}, told apart by {group}; a value each {step}, {ahead} steps ahead are forecast from the last "
        f"{length}, a season is {season} steps (data.label.ahead, season){several}",
        "gaps: a step without a row is missing; where it means that nothing was sold, data.label.gaps: zero",
    ]
    numbers, categories = (
        [n for n, k in kinds.items() if k == kind] for kind in ("number", "category")
    )
    unknown = _changing(sql, values, numbers, values[group])
    keys["summed_by"], sum_lines = _levels(sql, values, categories, values[group])
    lines += sum_lines
    columns = {
        names["history"]: {"type": "history", "length": int(length)},
        names["horizon"]: {"type": "number", "min": 1},
        names["target_time"]: {"type": "time"},
    }
    return {"keys": keys, "columns": columns, "features": _features_of_steps(names, step),
            "unknown": unknown, "lines": lines}  # fmt: skip


def _features_of_steps(names: Mapping[str, str], step: str) -> dict[str, Any]:
    """What the catalogue says of the columns that `label` makes: the history, how far ahead, and the step's place in
    the day, the week and the year, as far as steps are that short."""
    moment = names["target_time"]
    features: dict[str, Any] = {
        names["history"]: {"family": "cross", "encode": "course"},
        names["horizon"]: {"family": "context", "impute": "median", "encode": "number"},
    }
    if step in ("hour", "day"):
        features[moment] = {"family": "context", "encode": "cyclic", "period": "week"}
    if step == "hour":
        features[f"{moment}_day"] = {
            "family": "context", "encode": "cyclic", "period": "day", "column": moment
        }  # fmt: skip
    if step != "year":
        features[f"{moment}_year"] = {
            "family": "context", "encode": "cyclic", "period": "year", "column": moment
        }  # fmt: skip
    return features


def _found_step(sql: Any, time: str, series: str) -> tuple[str, bool]:
    """The step from one value of a series to the next, as most are, and whether each moment has one row at most."""
    ((seconds, rows, moments),) = sql.execute(
        f"SELECT median(gap), sum(n), count(*) FROM (SELECT n, epoch(moment) - lag(epoch(moment)) OVER "
        f"(PARTITION BY series ORDER BY moment) AS gap FROM (SELECT {series} AS series, {time} AS moment, "
        f"count(*) AS n FROM source WHERE {time} IS NOT NULL GROUP BY 1, 2))"
    ).fetchall()
    days = (seconds or 86_400) / 86_400
    step = next(name for name, (limit, *_) in STEPS_BY_DAYS.items() if days <= limit)
    return step, rows is None or rows <= 1.05 * moments


def _free_name(name: str, taken: Mapping[str, str]) -> str:
    while name in taken:
        name += "_"
    return name


def _levels(
    sql: Any, values: Mapping[str, str], categories: Sequence[str], series: str
) -> tuple[list[str], list[str]]:
    """The columns that series are grouped by, of a few values each, and a line on them."""
    few_valued: list[str] = []
    for start in range(0, len(categories), COLUMNS_AT_ONCE):
        chunk = categories[start : start + COLUMNS_AT_ONCE]
        counts = ", ".join(f"count(DISTINCT {values[name]})" for name in chunk)
        ((limit, *distinct),) = sql.execute(
            f"SELECT least({MAX_GROUPS}, count(DISTINCT {series}) - 1), {counts} FROM source"
        ).fetchall()
        few_valued += [name for name, n in zip(chunk, distinct, strict=True) if 2 <= n <= limit]
    changing = _changing(sql, values, few_valued, series)
    levels = [name for name in few_valued if name not in changing][:MAX_LEVELS]
    line = f"sums: forecasts are summed and judged by {' and by '.join(levels)} too (data.label.summed_by)"
    return levels, [line] if levels else []


def _changing(
    sql: Any, values: Mapping[str, str], columns: Sequence[str], series: str
) -> list[str]:
    """Which columns change within a series."""
    changing: list[str] = []
    for start in range(0, len(columns), COLUMNS_AT_ONCE):
        chunk = columns[start : start + COLUMNS_AT_ONCE]
        moves = ", ".join(
            f"min({values[n]}) < max({values[n]}) AS c{i}" for i, n in enumerate(chunk)
        )
        counts = ", ".join(f"avg(CAST(c{i} AS INT))" for i in range(len(chunk)))
        (shares,) = sql.execute(
            f"SELECT {counts} FROM (SELECT {moves} FROM source GROUP BY {series})"
        ).fetchall()
        changing += [
            n for n, share in zip(chunk, shares, strict=True) if (share or 0) > MAX_CHANGING
        ]
    return changing
