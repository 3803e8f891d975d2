"""What a file's columns hold: the type of each, how its values are written, and how they count.

Values are read, cleaned and typed by the same SQL as in `collect`. Types are told from a sample of
rows, counts from all of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection as SQL

from ..settings import Column
from . import times
from .numerals import FEW_NUMBERS, FITS, MOST_WORDS, SPREADSHEET, UNKNOWN, Reading, enough, reading
from .schema import cleaned, text, typed
from .source import MANY
from .written import HOST, PAIR, items_of

ROWS = 20_000  # that types and leaks are told from
CELLS = 20_000_000  # of the sample, at most: of very wide files fewer rows are looked at
AT_ONCE = 40  # columns that are counted in one pass: each takes memory of its own
TEXTS = 3000  # different values of a column that are looked at
EXACT = 2**53  # beyond it, not every whole number is a number of its own
FLAGS = 10  # items of lists that get a column each
NUMERIC = re.compile(r"U?((TINY|SMALL|BIG|HUGE)?INT|INTEGER)|FLOAT|DOUBLE|DECIMAL\(.*\)")
LOOKS_PERSONAL = r"\S+@\S+\.\S+|[+(][0-9][0-9 ()/.-]{6,}|[0-9]{2,5}[ .-][0-9]{3,4}[ .-][0-9]{3,4}"
CLOCKS = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p")  # times without a date
# People write for "nothing"
CODES = (-1, -9, -99, -999, -9999, -99999, 99, 999, 9999, 99999, 999999)


@dataclass(eq=False)
class Found:
    """One column: where it comes from, what it holds, and what becomes of it."""

    name: str  # in the project
    source: str  # the same, but each name once
    header: str  # as it stands in the file
    kind: str  # DuckDB's type
    work_name: str  # in tables of work, by place: no name of a user's may meet one of ours
    type: Any = "category"
    formats: tuple[str, ...] | None = None
    decimal: Any = None  # how numbers are written, as in settings.Column
    units: dict[str, float] | None = None
    missing: tuple[str, ...] | None = None
    part: str | None = None  # what is taken from the text in `source`
    given: int = 0  # values that are not missing
    wrong: int = 0  # of these, what is not of the type
    distinct: int = 0
    low: Any = None
    high: Any = None
    whole: bool = False  # numbers without fractions
    wordy: bool = False  # texts with blanks
    errors: bool = False  # of a spreadsheet, among its values
    personal: bool = False
    unique: bool = False  # an identifier with a different value in every row
    wanted: str = ""  # the kind that the user says: category, number or drop
    coded: str = ""  # why a number is taken for a category
    order: list[str] = field(default_factory=list)  # codes from the lowest to the highest
    feature: dict[str, Any] | None = None
    why: str = ""  # the model does not see it

    def sql(self, type_: str = "", raw: str = "") -> tuple[str, str]:
        """The cleaned and the typed value, as `collect` makes them; `raw` is one that is cleaned."""
        rule = Column.model_construct(
            type=type_ or self.type, source=self.source, formats=self.formats, part=self.part,
            decimal=self.decimal, units=self.units, missing=self.missing,
        )  # fmt: skip
        raw = raw or cleaned(self.work_name, self.kind, rule)
        return raw, typed(raw, self.kind.split("(")[0], rule)


def tell_types(
    sql: SQL, columns: list[Found], texts: Sequence[Found | None], events: Sequence[Found | None]
) -> list[str]:
    """Set the type of every column but `texts`, and append the parts of texts that hold several values.

    Args:
        events: columns that must be times.

    Returns:
        what the user must know of how values are read, a line each.
    """
    notes: list[str] = []
    open_: list[tuple[Found, Reading]] = []
    asked = [column for column in columns if column not in texts]
    for position, column in enumerate(asked):
        if len(asked) > MANY and position % AT_ONCE == 0:
            _narrow(sql, asked[position : position + AT_ONCE])
        note = _type(sql, column, column in events)
        if isinstance(note, Reading):
            open_.append((column, note))
        elif note:
            notes.append(note)
        elif column.type in ("category", "text") and column not in events and not column.wanted:
            notes += _parts(sql, column, columns)
    _narrow(sql, [])
    certain = {column for column, guess in open_ if guess.certain}
    usual = _usual(sql, columns, certain)
    for column, guess in open_:
        if guess.certain or usual == ".":
            continue
        again = reading(_texts(sql, column), usual)  # 1,208 in a file that writes 1,5
        if again:
            column.decimal, guess.said = again.decimal, again.said
    if usual == ",":
        notes += [_dotted(sql, column) for column in columns]
    notes += [_read(column, guess) for column, guess in open_]
    return list(filter(None, notes))


def _narrow(sql: SQL, columns: Sequence[Found]) -> None:
    """Let the view `sample` have some columns only, or all: a query is planned with all that there are."""
    if columns:
        kept = ", ".join(dict.fromkeys(column.work_name for column in columns))
        sql.execute(f"CREATE OR REPLACE TEMP TABLE narrow AS SELECT {kept} FROM drawn")
        sql.execute("CREATE OR REPLACE TEMP VIEW sample AS FROM narrow")
    elif sql.execute("FROM duckdb_tables() WHERE table_name = 'narrow'").fetchall():
        sql.execute("CREATE OR REPLACE TEMP VIEW sample AS FROM drawn")


def _read(column: Found, guess: Reading) -> str:
    doubt = "" if guess.certain or not re.search("[0-9][.,]", guess.said) else ", a guess"
    key = f"; see data.schema.columns.{column.name}" if doubt else ""
    return f"{column.name}: read as numbers, {guess.said}{doubt}{key}" if guess.said else ""


def _usual(sql: SQL, columns: list[Found], certain: set[Found]) -> str:
    """The decimal mark of the file: of the columns that leave no doubt of theirs, most decide."""
    commas = sum(column.decimal == "," for column in certain)
    points = sum(column.decimal == "." for column in certain)
    if commas:
        points += sum(dots != groups for dots, groups in (_dots(sql, column) for column in columns))
    return "," if commas > points else "."


def _dots(sql: SQL, column: Found) -> tuple[int, int]:
    """How many values of a column of plain numbers have a point, and how many so that 1.234 may be 1234."""
    if column.kind != "VARCHAR" or column.type != "number" or column.decimal or column.units:
        return 0, 0
    dots, groups = row(
        sql,
        f"SELECT count_if(contains(x, '.')), count_if(regexp_full_match(x, '[+-]?[1-9][0-9]?[0-9]?"
        f"([.][0-9][0-9][0-9])+')) FROM (SELECT {column.sql()[0]} AS x FROM sample)",
    )
    return dots or 0, groups or 0


def _dotted(sql: SQL, column: Found) -> str:
    """Read 1.234 as a thousand where all numbers may be so, in a file with decimal commas."""
    dots, groups = _dots(sql, column)
    if not dots or dots != groups:
        return ""
    column.decimal = ","
    return f"{column.name}: read as numbers, 1.234 is 1234, as the file has decimal commas, a guess"


def _type(sql: SQL, column: Found, event: bool) -> str | Reading:
    """Set the column's type; returns what the user must know of how it is read, if anything."""
    readable = column.kind == "VARCHAR" or NUMERIC.fullmatch(column.kind)
    likely = readable and not column.wanted and (event or times.NAMED.search(column.name))
    if likely and (formats := times.counted(sql, column.sql("number")[0], event)):
        column.type, column.formats = "time", formats
        return f"{column.name}: numbers read as times, {formats[0]}; see data.schema.columns.{column.name}"
    if column.kind != "VARCHAR" and not (event and readable):
        column.type = {"BOOLEAN": "bool", "UUID": "category"}.get(column.kind, "text")
        if NUMERIC.fullmatch(column.kind):
            column.type = "number"
        elif column.kind.startswith(("DATE", "TIMESTAMP")):
            column.type = "time"
        return ""
    raw = column.sql("number")[0]
    (digits,) = row(sql, f"SELECT bool_or(regexp_matches({raw}, '[0-9]')) FROM sample")
    kinds = ("number", "bool", "time") if digits else ("bool",)  # words are no times: soon told
    for type_ in ("time",) if event else kinds:
        raw, value = column.sql(type_)
        # 0123 is a code, and a year before 1000 was written with two digits
        odd = {"number": f"regexp_matches({raw}, '^0[0-9]')", "time": f"year({value}) < 1000"}
        query = (
            f"SELECT count({raw}), count({value}), count_if({odd.get(type_, 'false')}) FROM sample"
        )
        given, fits, strange = row(sql, query)
        if given and fits >= FITS * given and not strange:
            column.type = type_
            return ""
    if not event and not digits:
        return ""
    if not event and (_clock(sql, column) or (reading_note := _numbers(sql, column))):
        return "" if column.formats else reading_note
    return _dates(sql, column, event)


def _clock(sql: SQL, column: Found) -> bool:
    """Make a text column a time when its values are times of the day."""
    raw, value = column.sql("time")
    (seen,) = row(
        sql, f"SELECT count_if(regexp_matches({raw}, '^[0-9][0-9]?:[0-9][0-9]')) FROM sample"
    )
    if not seen:
        return False
    column.formats = CLOCKS
    raw, value = column.sql("time")
    given, fits = row(sql, f"SELECT count({raw}), count({value}) FROM sample")
    column.type = "time" if fits >= FITS * given else column.type
    column.formats = _used(sql, raw, CLOCKS) if column.type == "time" else None
    return column.type == "time"


def _used(sql: SQL, raw: str, formats: tuple[str, ...]) -> tuple[str, ...]:
    counts = ", ".join(f"count(try_strptime({raw}, {text(form)}))" for form in formats)
    fitting = row(sql, f"SELECT {counts} FROM sample")
    return tuple(form for form, n in zip(formats, fitting, strict=True) if n)


def _numbers(sql: SQL, column: Found) -> str | Reading:
    """Make a text column a number when its values are numbers as people write them."""
    raw = column.sql("number")[0]
    (given, digits, personal) = row(
        sql,
        f"SELECT count({raw}), count_if(regexp_matches({raw}, '[0-9]')), "
        f"count_if(regexp_full_match({raw}, {text(LOOKS_PERSONAL)})) FROM sample",
    )
    if not digits or digits < 0.02 * given or personal > 0.5 * given:
        return ""
    guess = reading(_texts(sql, column))
    if guess is None:
        return ""
    if guess.mixed:
        return "" if "/" in guess.said else f"{column.name}: {guess.said}"
    column.type, column.decimal, column.units = "number", guess.decimal, guess.units or None
    return guess


def _texts(sql: SQL, column: Found) -> dict[str, int]:
    """Some different values of a text column -> how often they stand in the sample."""
    raw = column.sql("number")[0]
    return dict(
        sql.execute(
            f"SELECT x, count(*) AS n FROM (SELECT {raw} AS x FROM sample) WHERE x IS NOT NULL "
            f"GROUP BY x ORDER BY n DESC, hash(x) LIMIT {TEXTS}"
        ).fetchall()
    )


def _dates(sql: SQL, column: Found, wanted: bool) -> str:
    """Make a text column a time when its values are dates in formats that strptime knows."""
    raw = column.sql("time")[0]
    sql.execute(
        f"CREATE OR REPLACE TEMP TABLE dates AS SELECT DISTINCT CAST({raw} AS VARCHAR) AS x FROM sample "
        f"WHERE {raw} IS NOT NULL ORDER BY hash(x) LIMIT 5000"
    )
    query = f"SELECT count(*), count_if(regexp_matches(x, '{times.DATED}')) FROM dates"
    count, dated = row(sql, query)
    formats, doubt = times.formats(sql, count, dated, wanted)
    if formats:
        column.type, column.formats = "time", formats
    return f"{column.name}: {doubt}; see data.schema.columns.{column.name}.formats" if doubt else ""


def _parts(sql: SQL, column: Found, columns: list[Found]) -> list[str]:
    """Append columns for what a text holds: an address's host, two numbers, the items of a list."""
    if column.kind not in ("VARCHAR", "VARCHAR[]") and not column.kind.endswith("[]"):
        return []
    raw = column.sql("text")[0]
    given, hosts, pairs, lists = row(
        sql,
        f"SELECT count(x), count_if(regexp_matches(x, {text(HOST)})), "
        f"count_if(regexp_full_match(x, {text(PAIR)})), count_if(regexp_matches(x, '[,;|]')) "
        f"FROM (SELECT CAST({raw} AS VARCHAR) AS x FROM sample)",
    )
    parts: list[tuple[str, str, str]] = []
    if not given:
        return []
    if hosts >= FITS * given:
        parts = [("host", "host", "category")]
    elif pairs >= FITS * given:
        parts = [("first", "first", "number"), ("second", "second", "number")]
    elif lists >= 0.2 * given and (items := _items(sql, raw)):
        parts = [("count", "count", "number")]
        parts += [(f"has {item}", f"has_{item}", "bool") for item in items]
    taken = {each.name for each in columns}
    made = []
    for part, ending, type_ in parts:
        plain = re.sub(r"\W+", "_", f"{column.name}_{ending}".lower(), flags=re.ASCII).strip("_")
        turns = (f"{plain}_{turn}" if turn else plain for turn in range(len(columns) + FLAGS))
        made.append(next(turn for turn in turns if turn not in taken))
        taken.add(made[-1])
        columns.append(replace(column, name=made[-1], type=type_, part=part))
    if parts:
        column.type, column.why = "text", f"its parts are columns of their own: {', '.join(made)}"
    return []


def _items(sql: SQL, raw: str) -> list[str]:
    """The commonest items of lists, none where the texts are no lists.

    The items of lists come again in other company: there are fewer of them than different lists,
    and they are short.
    """
    query = (
        f"SELECT x, count(*) FROM (SELECT CAST({raw} AS VARCHAR) AS x FROM sample) "
        f"WHERE x IS NOT NULL GROUP BY x ORDER BY hash(x) LIMIT {TEXTS}"
    )
    texts = dict(sql.execute(query).fetchall())
    counts: Counter[str] = Counter()
    for value, count in texts.items():
        for item in set(items_of(value)):
            counts[item] += count
    total = sum(texts.values())
    often = [item for item, n in counts.most_common() if n >= 0.02 * total]
    covered = sum(counts[item] for item in often) >= 0.5 * sum(counts.values())
    if (
        len(texts) < 3
        or len(counts) > 0.7 * len(texts)
        or not covered
        or max(map(len, counts)) > 40
    ):
        return []
    return [item for item in often if counts[item] < 0.98 * total][:FLAGS]


def valued(columns: Sequence[Found], table: str) -> str:
    """SQL of rows with the cleaned and the typed value of each column: r0, v0, r1, v1, …

    Each is an expression of its own: one that stands in a query ten times is worked out ten times.
    """
    raws = ", ".join(f"{column.sql()[0]} AS r{position}" for position, column in enumerate(columns))
    values = ", ".join(
        f"{column.sql(raw=f'r{position}')[1]} AS v{position}"
        for position, column in enumerate(columns)
    )
    return f"(SELECT *, {values} FROM (SELECT {raws} FROM {table}))"


def count(sql: SQL, columns: list[Found]) -> tuple[int, list[str]]:
    """Count every column over all rows; returns the rows, and what to say of unreadable lines."""
    rows = 0
    for start in range(0, len(columns), AT_ONCE):
        rows = _count(sql, columns[start : start + AT_ONCE])
    if not sql.execute("FROM duckdb_tables() WHERE table_name = 'reject_errors'").fetchall():
        return rows, []
    query = "SELECT CAST(error_type AS VARCHAR), count(DISTINCT line) FROM reject_errors GROUP BY 1"
    lost = dict(sql.execute(query).fetchall())
    if "INVALID ENCODING" in lost:
        raise duckdb.Error("not utf-8")
    note = f"source: {sum(lost.values()):,} lines cannot be read ({', '.join(lost).lower()})"
    return rows, [note] if lost else []


def _count(sql: SQL, columns: list[Found]) -> int:
    """Count some columns in one pass; returns the rows."""
    looks = [
        f"[count(v{at}), count(DISTINCT v{at})"
        + "".join(f", count_if({look})" for look in _looks(column, f"r{at}"))
        + "]"
        for at, column in enumerate(columns)
    ]
    parts = []
    sampled = row(sql, f"SELECT {', '.join(looks)} FROM {valued(columns, 'sample')}")
    for at, (column, (given, distinct, *texts)) in enumerate(zip(columns, sampled, strict=True)):
        raw, value = f"r{at}", f"v{at}"
        number = column.type == "number"
        ends = f"min({value}), max({value})" if number or column.type == "time" else "NULL, NULL"
        whole = f"bool_and({value} = floor({value}))" if number else "false"
        fits = f"count_if(isfinite({value}))" if number else f"count({value})"
        # What repeats often in the sample is counted there: only what may be unique is worth more
        exact = str(distinct) if distinct < 0.1 * given else f"count(DISTINCT {value})"
        parts.append(f"[count({raw}), count({raw}) - {fits}, {exact}], {ends}, {whole}")
        blanks, personal, errors = (seen or 0 for seen in texts or (0, 0, 0))
        column.wordy, column.errors = blanks > 0.5 * given, errors > 0
        column.personal = 0 < 0.8 * given <= personal
    rows, *counts = row(
        sql, f"SELECT count(*), {', '.join(parts)} FROM {valued(columns, 'source')}"
    )
    for column, counted in zip(columns, zip(*[iter(counts)] * 4, strict=True), strict=True):
        (column.given, column.wrong, column.distinct), column.low, column.high, column.whole = (
            counted
        )
    return int(rows)


def _looks(column: Found, raw: str) -> list[str]:
    """SQL of what is asked of each value of a text: has it blanks, is it personal, or an error."""
    if column.type not in ("category", "text"):
        return []
    raw = f"CAST({raw} AS VARCHAR)"
    patterns = (text(LOOKS_PERSONAL), text(SPREADSHEET))
    matches = (f"regexp_full_match({raw}, {pattern})" for pattern in patterns)
    return [f"contains({raw}, ' ')", *matches]


def settle(sql: SQL, columns: list[Found]) -> list[str]:
    """Tell words and codes for "nothing" from values, and numbers that are no amounts from those that are.

    Returns:
        what was taken for missing, a line each.
    """
    notes = []
    for column in columns:
        doubtful = column.wrong or (column.errors and column.type != "number")
        words = _words(sql, column) if doubtful else {}
        if words:
            column.missing = tuple(words)
            shown = [f"{n:,} {word!r}" for word, n in words.items()]
            notes.append(f"{column.name}: taken for missing: {', '.join(shown)}")
            _count(sql, [column])
        if column.type == "number" and column.low is not None and column.wanted != "category":
            notes += _ends(sql, column)
        whole = column.type == "number" and column.whole
        if whole and max(abs(column.low), abs(column.high)) >= EXACT:
            column.type, column.coded = "category", "too long to be exact as a number"
            _count(sql, [column])
    return notes


def _words(sql: SQL, column: Found) -> dict[str, int]:
    """The words among values that mean none -> how often; of a text those of a spreadsheet's errors."""
    raw, value = column.sql()
    odd = f"regexp_full_match(CAST({raw} AS VARCHAR), {text(SPREADSHEET)})"
    if column.type == "number":
        odd = f"{value} IS NULL"
    query = (
        f"SELECT x, count(*) AS n FROM (SELECT CAST({raw} AS VARCHAR) AS x, {odd} AS odd FROM source) "
        f"WHERE x IS NOT NULL AND odd GROUP BY x ORDER BY n DESC, x LIMIT 200"
    )
    counts = dict(sql.execute(query).fetchall())
    if column.type != "number":
        return counts if len(counts) <= MOST_WORDS else {}
    meaning_none = {word: n for word, n in counts.items() if UNKNOWN.fullmatch(word)}
    words = {
        word: n
        for word, n in counts.items()
        if word not in meaning_none and not re.search("[0-9]", word)
    }
    distinct = column.distinct or FEW_NUMBERS + 1
    fit = enough(column.given - column.wrong, distinct, words) and len(words) <= MOST_WORDS
    return meaning_none | words if fit else meaning_none


def _ends(sql: SQL, column: Found) -> list[str]:
    """Take -999 and the like for missing where such a number stands apart from all others."""
    notes = []
    for low in (True, False):
        end = column.low if low else column.high
        if end not in CODES or column.distinct < 3:
            continue
        value = column.sql()[1]
        extremes = row(
            sql,
            f"SELECT count_if(v = {end!r}), count(v), min(v) FILTER (v <> {end!r}), "
            f"max(v) FILTER (v <> {end!r}) FROM (SELECT {value} AS v FROM sample)",
        )
        often, present, least, most = extremes
        if least is None or often == 0:
            continue
        gap = least - end if low else end - most
        plain = f"{end:.0f}"
        key = f"data.schema.columns.{column.name}.missing"
        apart = gap > most - least or (end <= -99 and least >= 0)
        if apart and often >= 2:
            column.missing = (*(column.missing or ()), plain)
            notes.append(
                f"{column.name}: taken for missing: {plain}, apart from all others; see {key}"
            )
            _count(sql, [column])
        elif column.distinct > FEW_NUMBERS and ((low and least >= 0) or often > 0.02 * present):
            notes.append(f'{column.name}: is {plain} a code for missing? If so: {key}: ["{plain}"]')
    return notes


def row(sql: SQL, query: str) -> tuple[Any, ...]:
    return sql.execute(query).fetchall()[0]


def examples(sql: SQL, column: Found, type_: str) -> str:
    """Some values that are not of a type, for a message."""
    raw, value = column.sql(type_) if column.kind == "VARCHAR" else (column.work_name, "NULL")
    query = f"SELECT DISTINCT CAST({raw} AS VARCHAR) FROM source WHERE {raw} IS NOT NULL AND {value} IS NULL"
    rows = sql.execute(f"{query} LIMIT 3").fetchall()
    shown = [f"'{' '.join(row[0].split()):.40}'" for row in rows]
    return "values such as " + ", ".join(sorted(shown)) if shown else "its values, all missing,"


def order_codes(sql: SQL, columns: list[Found], most: int) -> None:
    """Set the order of numbers that are taken for categories, where there are at most so many."""
    for column in columns:
        if not column.coded or column.low is None:
            continue
        column.units = column.decimal = None
        raw = column.sql("text")[0]
        if (
            column.kind == "VARCHAR"
            and row(sql, f"SELECT count_if(contains({raw}, '.')) FROM sample")[0]
        ):
            column.decimal = "."  # 8.0 is 8
        if column.distinct > most:
            continue
        value = column.sql()[1]
        query = (
            f"SELECT x, TRY_CAST(x AS DOUBLE) AS n FROM (SELECT DISTINCT {value} AS x FROM source) "
            f"WHERE n IS NOT NULL ORDER BY n, x LIMIT {most}"
        )
        column.order = [each[0] for each in sql.execute(query).fetchall()]
