"""Times: how a column's are read, in SQL for files and in Python for requests, and how `adopt` tells.

A moment is UTC everywhere. What says another offset is moved there, what says none is taken as UTC.
`formats` of a column name how its values are written: as strptime spells them, or a word of `WORDS`.
Without any it is ISO 8601: 2026-01-31, 2026-01-31 12:00, 2026-01-31T12:00:00.5+02:00.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection as SQL

EPOCH = datetime(1970, 1, 1)
# Numbers that count from 1970 -> how many a second; they are told apart by their size
PER_SECOND = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000, "epoch_ns": 1_000_000_000}
EXCEL_EPOCH = 25_569  # the first of 1970 in days of a spreadsheet
NAMED_FORMATS = (*PER_SECOND, "excel", "quarter", "iso")
OLDEST, NEWEST = 1e8, 4.2e9  # 1973 to 2103 in seconds: what a count from 1970 may be
TIME_NAME = re.compile(
    r"(^|_)(time|timestamp|datetime|date|epoch|ts|created|updated|modified|at)(_|$)"
)
QUARTER_TEXT = r"([0-9]{4})[-_ /]?Q([1-4])|Q([1-4])[-_ /]?([0-9]{4})"
ISO_TEXT = re.compile(
    r"([0-9]{4,6})([-/])([0-9]{1,2})\2([0-9]{1,2})"
    r"(?:[ T]([0-9]{1,2}):([0-9]{1,2})(?::([0-9]{1,2})(?:\.([0-9]+))?)?)?"
    r" *(Z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?|[A-Z][A-Za-z_]+/[A-Za-z_/]+)?"
)
DATE_TEXT = "[0-9]{1,4}[-/. ][A-Za-z0-9]+[-/. ]+[0-9]{2}|[A-Za-z]{3} [0-9]+, [0-9]{4}"
DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d %b %Y", "%d %B %Y", "%d-%b-%y", "%d-%b-%Y",
        "%b %d, %Y", "%B %d, %Y")  # fmt: skip
CLOCK_SUFFIXES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", "T%H:%M:%S", "T%H:%M:%SZ", "T%H:%M:%S.%fZ",
          " %I:%M %p", " %I:%M:%S %p", " %H:%M%z", " %H:%M %z", " %H:%M:%S%z", " %H:%M:%S %z",
          ", %H:%M", ", %H:%M:%S")  # fmt: skip
# With the name of the day, as e-mails (RFC 2822), logs and C write them
WEEKDAY_FORMATS = ("%a, %d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S GMT", "%a, %d %b %Y %H:%M:%S UTC",
         "%a, %d %b %Y", "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S UTC %Y", "%d/%b/%Y:%H:%M:%S %z",
         "%A, %d %B %Y", "%A, %B %d, %Y")  # fmt: skip
# Only of the column that --time names
SHORT_FORMATS = ("%Y%m%d", "%Y%m%d%H%M%S", "%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S", "%Y-%m", "%Y/%m", "%m/%Y", "%m-%Y", "%Y%m", "%Y", "%b %Y", "%B %Y",
         "%b-%Y", "%b-%y", "%b %y", "%Y-%b", "%Y %b", "%Y %B", "%B-%Y")  # fmt: skip


def time_sql(raw: str, raw_type: str, formats: Sequence[str] | None) -> str:
    """SQL for a value as a moment in UTC (TIMESTAMP), NULL where it is none.

    The session's time zone must be UTC, as `data.source.database` sets it.
    """
    if raw_type.startswith(("TIMESTAMP", "DATE")):
        return f"TRY_CAST({raw} AS TIMESTAMP)"
    if raw_type != "VARCHAR":
        raw = f"regexp_replace(CAST({raw} AS VARCHAR), '[.]0+$', '')"
    strptime_formats = [form for form in formats or () if form not in NAMED_FORMATS]
    parts = []
    for form in formats or ("iso",):
        if form in NAMED_FORMATS:
            parts.append(_named_sql(raw, form))
        elif form == strptime_formats[0]:
            listed = ", ".join("'" + form.replace("'", "''") + "'" for form in strptime_formats)
            parts.append(f"TRY_CAST(try_strptime({raw}, [{listed}]) AS TIMESTAMP)")
    return parts[0] if len(parts) == 1 else f"coalesce({', '.join(parts)})"


def _named_sql(raw: str, form: str) -> str:
    if form == "iso":
        moved = f"TRY_CAST(regexp_replace({raw}, ' +([+-])', '\\1') AS TIMESTAMPTZ)"
        offset = f"regexp_matches({raw}, '[0-9] *([+-][0-9:]+|[A-Z][A-Za-z_]+/[A-Za-z_/]+)$')"
        dashed = f"regexp_matches({raw}, '^[0-9]+-[0-9]+-[0-9]+$')"
        return (
            f"CASE WHEN {offset} AND NOT {dashed} THEN TRY_CAST({moved} AS TIMESTAMP) "
            f"ELSE TRY_CAST({raw} AS TIMESTAMP) END"
        )
    if form == "quarter":
        year, number = (
            f"coalesce(nullif(regexp_extract({raw}, '^({QUARTER_TEXT})$', {first}), ''), "
            f"regexp_extract({raw}, '^({QUARTER_TEXT})$', {second}))"
            for first, second in ((2, 5), (3, 4))
        )
        month = f"(3 * TRY_CAST({number} AS INT) - 2)"
        return f"TRY_CAST({year} || '-' || {month} || '-01' AS TIMESTAMP)"
    number = f"TRY_CAST({raw} AS DOUBLE)"
    count = f"86400 * ({number} - {EXCEL_EPOCH})"
    if form in PER_SECOND:
        count = f"{number} / {PER_SECOND[form]}"
    return f"CASE WHEN abs({count}) < 2e11 THEN make_timestamp(CAST(round(1e6 * ({count})) AS BIGINT)) END"


def seconds(value: str | float, formats: Sequence[str] | None) -> float:
    """A value of a request as seconds since 1970, read as `time_sql` reads it from a file.

    A number without a format of its own is seconds already, and ISO 8601 is always understood.

    Raises:
        ValueError: when it is no time.
    """
    number = not isinstance(value, str)
    text = f"{value:.0f}" if number and float(value).is_integer() else str(value).strip()
    for form in formats or ():
        try:
            return _parse(text, form)
        except (ValueError, OverflowError):
            continue
    return float(value) if number else _parse(text, "iso")


def _parse(text: str, form: str) -> float:
    """A text in one format as seconds since 1970.

    Raises:
        ValueError: when it does not fit the format.
    """
    if form in PER_SECOND:
        return round(1e6 * float(text) / PER_SECOND[form]) / 1e6  # the database keeps microseconds
    if form == "excel":
        return 86_400 * (float(text) - EXCEL_EPOCH)
    if form == "quarter":
        if not (matched := re.fullmatch(QUARTER_TEXT, text)):
            raise ValueError(f"{text!r} is no quarter")
        year, quarter = int(matched[1] or matched[4]), int(matched[2] or matched[3])
        return (datetime(year, 3 * quarter - 2, 1) - EPOCH).total_seconds()
    if form == "iso":
        return _utc(_parse_iso(text))
    return _utc(datetime.strptime(text, form.replace("%-", "%")))


def _parse_iso(text: str) -> datetime:
    if not (matched := ISO_TEXT.fullmatch(text)):
        return datetime.fromisoformat(text)
    year, _, month, day, hour, minute, second, part, zone = matched.groups()
    moment = datetime(
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0)
    ) + timedelta(microseconds=int(f"{part or '':0<6.6}"))
    if not zone or zone in ("Z", "UTC"):
        return moment
    if "/" in zone:
        try:
            return moment.replace(tzinfo=ZoneInfo(zone))
        except KeyError:
            raise ValueError(f"{zone!r} is no time zone") from None
    digits = zone[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return moment + offset if zone[0] == "-" else moment - offset


def _utc(moment: datetime) -> float:
    if moment.tzinfo:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return (moment - EPOCH).total_seconds()


def epoch_format(sql: SQL, raw: str, is_event: bool) -> tuple[str, ...]:
    """The format of numbers in the table `sample` that count from 1970, by their size; () if they don't.

    Args:
        is_event: the user says that they are times, so days of a spreadsheet count too.
    """
    query = (
        f"SELECT min(x), max(x), count(x), count(*) FROM (SELECT TRY_CAST({raw} AS DOUBLE) AS x "
        f"FROM sample WHERE {raw} IS NOT NULL)"
    )
    low, high, numbers, present = sql.execute(query).fetchall()[0]
    if not present or numbers < 0.995 * present:
        return ()
    for form, per_second in PER_SECOND.items():
        if OLDEST * per_second <= low and high <= NEWEST * per_second:
            return (form,)
    return ("excel",) if is_event and low >= 20_000 and high <= 80_000 else ()


def infer_formats(sql: SQL, count: int, dated: int, is_event: bool) -> tuple[tuple[str, ...], str]:
    """The formats in which the texts of the table `dates` (column x) are times, and what is in doubt.

    Args:
        count, dated: how many texts there are, and how many look like dates.
        is_event: the user says that the column holds times, so that bare years count too.
    """
    if not count or (dated < 0.9 * count and not is_event):
        return (), ""
    orders: dict[str, str] = {}
    for mark in "/.-":
        query = (
            f"SELECT count_if(CAST(split_part(x, '{mark}', 1) AS INT) > 12), "
            f"count_if(CAST(split_part(x, '{mark}', 2) AS INT) > 12), count(*) FROM "
            f"(SELECT x FROM dates WHERE regexp_matches(x, '^[0-9][0-9]?[{mark}][0-9][0-9]?[{mark}]'))"
        )
        first, second, n_dates = sql.execute(query).fetchall()[0]
        if n_dates:
            orders[mark] = "" if first == second else "day" if first > second else "month"
    guess = next(filter(None, orders.values()), "day")
    pairs = [f"%d{m}%m{m}" if (o or guess) == "day" else f"%m{m}%d{m}" for m, o in orders.items()]
    # Two-digit years first: %Y would take 26 for the year 26
    bases = [*(pair + year for year in ("%y", "%Y") for pair in pairs), *DATE_FORMATS]
    remaining = count
    used: list[str] = []
    candidates = [base + clock for base in bases for clock in CLOCK_SUFFIXES]
    candidates += [*WEEKDAY_FORMATS, *((*SHORT_FORMATS, "quarter") if is_event else ())]
    for form in candidates:
        query = f"DELETE FROM dates WHERE {time_sql('x', 'VARCHAR', (form,))} IS NOT NULL"
        if remaining and (n_read := sql.execute(query).fetchall()[0][0]):
            used, remaining = [*used, form], remaining - n_read
    if not used or remaining > 0.05 * count:
        return (), ""
    doubtful = ", ".join(f"01{mark}02{mark}…" for mark, order in orders.items() if not order)
    return tuple(used), f"{doubtful} is read {guess} first, a guess" if doubtful else ""
