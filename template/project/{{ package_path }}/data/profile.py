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
CODES = (
    -1,
    -9,
    -99,
    -999,
    -9999,
    -99999,
    99,
    999,
    9999,
    99999,
    999999,
)  # people write for "nothing"


@dataclass(eq=False)
class Found:
    """One column: where it comes from, what it holds, and what becomes of it."""

    name: str  # in the project
    source: str  # the same, but each name once
    header: str  # as it stands in the file
    kind: str  # DuckDB's type
    column: str  # in tables of work, by place: no name of a user's may meet one of ours
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
        raw = raw or cleaned(self.column, self.kind, rule)
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
    asked = [one for one in columns if one not in texts]
    for place, one in enumerate(asked):
        if len(asked) > MANY and place % AT_ONCE == 0:
            _narrow(sql, asked[place : place + AT_ONCE])
        note = _type(sql, one, one in events)
        if isinstance(note, Reading):
            open_.append((one, note))
        elif note:
            notes.append(note)
        elif one.type in ("category", "text") and one not in events and not one.wanted:
            notes += _parts(sql, one, columns)
    _narrow(sql, [])
    certain = {one for one, guess in open_ if guess.certain}
    usual = _usual(sql, columns, certain)
    for one, guess in open_:
        if guess.certain or usual == ".":
            continue
        again = reading(_texts(sql, one), usual)  # 1,208 in a file that writes 1,5
        if again:
            one.decimal, guess.said = again.decimal, again.said
    if usual == ",":
        notes += [_dotted(sql, one) for one in columns]
    notes += [_read(one, guess) for one, guess in open_]
    return list(filter(None, notes))


def _narrow(sql: SQL, columns: Sequence[Found]) -> None:
    """Let the view `sample` have some columns only, or all: a query is planned with all that there are."""
    if columns:
        kept = ", ".join(dict.fromkeys(one.column for one in columns))
        sql.execute(f"CREATE OR REPLACE TEMP TABLE narrow AS SELECT {kept} FROM drawn")
        sql.execute("CREATE OR REPLACE TEMP VIEW sample AS FROM narrow")
    elif sql.execute("FROM duckdb_tables() WHERE table_name = 'narrow'").fetchall():
        sql.execute("CREATE OR REPLACE TEMP VIEW sample AS FROM drawn")


def _read(one: Found, guess: Reading) -> str:
    doubt = "" if guess.certain or not re.search("[0-9][.,]", guess.said) else ", a guess"
    key = f"; see data.schema.columns.{one.name}" if doubt else ""
    return f"{one.name}: read as numbers, {guess.said}{doubt}{key}" if guess.said else ""


def _usual(sql: SQL, columns: list[Found], certain: set[Found]) -> str:
    """The decimal mark of the file: of the columns that leave no doubt of theirs, most decide."""
    commas = sum(one.decimal == "," for one in certain)
    points = sum(one.decimal == "." for one in certain)
    if commas:
        points += sum(dots != groups for dots, groups in (_dots(sql, one) for one in columns))
    return "," if commas > points else "."


def _dots(sql: SQL, one: Found) -> tuple[int, int]:
    """How many values of a column of plain numbers have a point, and how many so that 1.234 may be 1234."""
    if one.kind != "VARCHAR" or one.type != "number" or one.decimal or one.units:
        return 0, 0
    dots, groups = row(
        sql,
        f"SELECT count_if(contains(x, '.')), count_if(regexp_full_match(x, '[+-]?[1-9][0-9]?[0-9]?"
        f"([.][0-9][0-9][0-9])+')) FROM (SELECT {one.sql()[0]} AS x FROM sample)",
    )
    return dots or 0, groups or 0


def _dotted(sql: SQL, one: Found) -> str:
    """Read 1.234 as a thousand where all numbers may be so, in a file with decimal commas."""
    dots, groups = _dots(sql, one)
    if not dots or dots != groups:
        return ""
    one.decimal = ","
    return f"{one.name}: read as numbers, 1.234 is 1234, as the file has decimal commas, a guess"


def _type(sql: SQL, one: Found, event: bool) -> str | Reading:
    """Set the column's type; returns what the user must know of how it is read, if anything."""
    told = one.kind == "VARCHAR" or NUMERIC.fullmatch(one.kind)
    likely = told and not one.wanted and (event or times.NAMED.search(one.name))
    if likely and (formats := times.counted(sql, one.sql("number")[0], event)):
        one.type, one.formats = "time", formats
        return (
            f"{one.name}: numbers read as times, {formats[0]}; see data.schema.columns.{one.name}"
        )
    if one.kind != "VARCHAR" and not (event and told):
        one.type = {"BOOLEAN": "bool", "UUID": "category"}.get(one.kind, "text")
        if NUMERIC.fullmatch(one.kind):
            one.type = "number"
        elif one.kind.startswith(("DATE", "TIMESTAMP")):
            one.type = "time"
        return ""
    raw = one.sql("number")[0]
    (digits,) = row(sql, f"SELECT bool_or(regexp_matches({raw}, '[0-9]')) FROM sample")
    kinds = ("number", "bool", "time") if digits else ("bool",)  # words are no times: soon told
    for type_ in ("time",) if event else kinds:
        raw, value = one.sql(type_)
        # 0123 is a code, and a year before 1000 was written with two digits
        odd = {"number": f"regexp_matches({raw}, '^0[0-9]')", "time": f"year({value}) < 1000"}
        query = (
            f"SELECT count({raw}), count({value}), count_if({odd.get(type_, 'false')}) FROM sample"
        )
        given, fits, strange = row(sql, query)
        if given and fits >= FITS * given and not strange:
            one.type = type_
            return ""
    if not event and not digits:
        return ""
    if not event and (_clock(sql, one) or (found := _numbers(sql, one))):
        return "" if one.formats else found
    return _dates(sql, one, event)


def _clock(sql: SQL, one: Found) -> bool:
    """Make a text column a time when its values are times of the day."""
    raw, value = one.sql("time")
    (seen,) = row(
        sql, f"SELECT count_if(regexp_matches({raw}, '^[0-9][0-9]?:[0-9][0-9]')) FROM sample"
    )
    if not seen:
        return False
    one.formats = CLOCKS
    raw, value = one.sql("time")
    given, fits = row(sql, f"SELECT count({raw}), count({value}) FROM sample")
    one.type = "time" if fits >= FITS * given else one.type
    one.formats = _used(sql, raw, CLOCKS) if one.type == "time" else None
    return one.type == "time"


def _used(sql: SQL, raw: str, formats: tuple[str, ...]) -> tuple[str, ...]:
    counts = ", ".join(f"count(try_strptime({raw}, {text(form)}))" for form in formats)
    found = row(sql, f"SELECT {counts} FROM sample")
    return tuple(form for form, n in zip(formats, found, strict=True) if n)


def _numbers(sql: SQL, one: Found) -> str | Reading:
    """Make a text column a number when its values are numbers as people write them."""
    raw = one.sql("number")[0]
    (given, digits, personal) = row(
        sql,
        f"SELECT count({raw}), count_if(regexp_matches({raw}, '[0-9]')), "
        f"count_if(regexp_full_match({raw}, {text(LOOKS_PERSONAL)})) FROM sample",
    )
    if not digits or digits < 0.02 * given or personal > 0.5 * given:
        return ""
    guess = reading(_texts(sql, one))
    if guess is None:
        return ""
    if guess.mixed:
        return "" if "/" in guess.said else f"{one.name}: {guess.said}"
    one.type, one.decimal, one.units = "number", guess.decimal, guess.units or None
    return guess


def _texts(sql: SQL, one: Found) -> dict[str, int]:
    """Some different values of a text column -> how often they stand in the sample."""
    raw = one.sql("number")[0]
    return dict(
        sql.execute(
            f"SELECT x, count(*) AS n FROM (SELECT {raw} AS x FROM sample) WHERE x IS NOT NULL "
            f"GROUP BY x ORDER BY n DESC, hash(x) LIMIT {TEXTS}"
        ).fetchall()
    )


def _dates(sql: SQL, one: Found, wanted: bool) -> str:
    """Make a text column a time when its values are dates in formats that strptime knows."""
    raw = one.sql("time")[0]
    sql.execute(
        f"CREATE OR REPLACE TEMP TABLE dates AS SELECT DISTINCT CAST({raw} AS VARCHAR) AS x FROM sample "
        f"WHERE {raw} IS NOT NULL ORDER BY hash(x) LIMIT 5000"
    )
    query = f"SELECT count(*), count_if(regexp_matches(x, '{times.DATED}')) FROM dates"
    count, dated = row(sql, query)
    formats, doubt = times.formats(sql, count, dated, wanted)
    if formats:
        one.type, one.formats = "time", formats
    return f"{one.name}: {doubt}; see data.schema.columns.{one.name}.formats" if doubt else ""


def _parts(sql: SQL, one: Found, columns: list[Found]) -> list[str]:
    """Append columns for what a text holds: an address's host, two numbers, the items of a list."""
    if one.kind not in ("VARCHAR", "VARCHAR[]") and not one.kind.endswith("[]"):
        return []
    raw = one.sql("text")[0]
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
        plain = re.sub(r"\W+", "_", f"{one.name}_{ending}".lower(), flags=re.ASCII).strip("_")
        turns = (f"{plain}_{turn}" if turn else plain for turn in range(len(columns) + FLAGS))
        made.append(next(turn for turn in turns if turn not in taken))
        taken.add(made[-1])
        columns.append(replace(one, name=made[-1], type=type_, part=part))
    if parts:
        one.type, one.why = "text", f"its parts are columns of their own: {', '.join(made)}"
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
    raws = ", ".join(f"{one.sql()[0]} AS r{place}" for place, one in enumerate(columns))
    values = ", ".join(
        f"{one.sql(raw=f'r{place}')[1]} AS v{place}" for place, one in enumerate(columns)
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
    words = f"source: {sum(lost.values()):,} lines cannot be read ({', '.join(lost).lower()})"
    return rows, [words] if lost else []


def _count(sql: SQL, columns: list[Found]) -> int:
    """Count some columns in one pass; returns the rows."""
    looks = [
        f"[count(v{at}), count(DISTINCT v{at})"
        + "".join(f", count_if({look})" for look in _looks(one, f"r{at}"))
        + "]"
        for at, one in enumerate(columns)
    ]
    parts = []
    sampled = row(sql, f"SELECT {', '.join(looks)} FROM {valued(columns, 'sample')}")
    for at, (one, (given, distinct, *texts)) in enumerate(zip(columns, sampled, strict=True)):
        raw, value = f"r{at}", f"v{at}"
        number = one.type == "number"
        ends = f"min({value}), max({value})" if number or one.type == "time" else "NULL, NULL"
        whole = f"bool_and({value} = floor({value}))" if number else "false"
        fits = f"count_if(isfinite({value}))" if number else f"count({value})"
        # What repeats often in the sample is counted there: only what may be unique is worth more
        exact = str(distinct) if distinct < 0.1 * given else f"count(DISTINCT {value})"
        parts.append(f"[count({raw}), count({raw}) - {fits}, {exact}], {ends}, {whole}")
        blanks, personal, errors = (seen or 0 for seen in texts or (0, 0, 0))
        one.wordy, one.errors = blanks > 0.5 * given, errors > 0
        one.personal = 0 < 0.8 * given <= personal
    rows, *counts = row(
        sql, f"SELECT count(*), {', '.join(parts)} FROM {valued(columns, 'source')}"
    )
    for one, counted in zip(columns, zip(*[iter(counts)] * 4, strict=True), strict=True):
        (one.given, one.wrong, one.distinct), one.low, one.high, one.whole = counted
    return int(rows)


def _looks(one: Found, raw: str) -> list[str]:
    """SQL of what is asked of each value of a text: has it blanks, is it personal, or an error."""
    if one.type not in ("category", "text"):
        return []
    raw = f"CAST({raw} AS VARCHAR)"
    patterns = (text(LOOKS_PERSONAL), text(SPREADSHEET))
    return [f"contains({raw}, ' ')", *(f"regexp_full_match({raw}, {one})" for one in patterns)]


def settle(sql: SQL, columns: list[Found]) -> list[str]:
    """Tell words and codes for "nothing" from values, and numbers that are no amounts from those that are.

    Returns:
        what was taken for missing, a line each.
    """
    notes = []
    for one in columns:
        words = _words(sql, one) if one.wrong or (one.errors and one.type != "number") else {}
        if words:
            one.missing = tuple(words)
            shown = [f"{n:,} {word!r}" for word, n in words.items()]
            notes.append(f"{one.name}: taken for missing: {', '.join(shown)}")
            _count(sql, [one])
        if one.type == "number" and one.low is not None and one.wanted != "category":
            notes += _ends(sql, one)
        if one.type == "number" and one.whole and max(abs(one.low), abs(one.high)) >= EXACT:
            one.type, one.coded = "category", "too long to be exact as a number"
            _count(sql, [one])
    return notes


def _words(sql: SQL, one: Found) -> dict[str, int]:
    """The words among values that mean none -> how often; of a text those of a spreadsheet's errors."""
    raw, value = one.sql()
    odd = f"regexp_full_match(CAST({raw} AS VARCHAR), {text(SPREADSHEET)})"
    if one.type == "number":
        odd = f"{value} IS NULL"
    query = (
        f"SELECT x, count(*) AS n FROM (SELECT CAST({raw} AS VARCHAR) AS x, {odd} AS odd FROM source) "
        f"WHERE x IS NOT NULL AND odd GROUP BY x ORDER BY n DESC, x LIMIT 200"
    )
    counts = dict(sql.execute(query).fetchall())
    if one.type != "number":
        return counts if len(counts) <= MOST_WORDS else {}
    known = {word: n for word, n in counts.items() if UNKNOWN.fullmatch(word)}
    words = {
        word: n for word, n in counts.items() if word not in known and not re.search("[0-9]", word)
    }
    distinct = one.distinct or FEW_NUMBERS + 1
    fit = enough(one.given - one.wrong, distinct, words) and len(words) <= MOST_WORDS
    return known | words if fit else known


def _ends(sql: SQL, one: Found) -> list[str]:
    """Take -999 and the like for missing where such a number stands apart from all others."""
    notes = []
    for low in (True, False):
        end = one.low if low else one.high
        if end not in CODES or one.distinct < 3:
            continue
        value = one.sql()[1]
        found = row(
            sql,
            f"SELECT count_if(v = {end!r}), count(v), min(v) FILTER (v <> {end!r}), "
            f"max(v) FILTER (v <> {end!r}) FROM (SELECT {value} AS v FROM sample)",
        )
        often, given, least, most = found
        if least is None or often == 0:
            continue
        gap = least - end if low else end - most
        plain = f"{end:.0f}"
        key = f"data.schema.columns.{one.name}.missing"
        apart = gap > most - least or (end <= -99 and least >= 0)
        if apart and often >= 2:
            one.missing = (*(one.missing or ()), plain)
            notes.append(
                f"{one.name}: taken for missing: {plain}, apart from all others; see {key}"
            )
            _count(sql, [one])
        elif one.distinct > FEW_NUMBERS and ((low and least >= 0) or often > 0.02 * given):
            notes.append(f'{one.name}: is {plain} a code for missing? If so: {key}: ["{plain}"]')
    return notes


def row(sql: SQL, query: str) -> tuple[Any, ...]:
    return sql.execute(query).fetchall()[0]


def examples(sql: SQL, one: Found, type_: str) -> str:
    """Some values that are not of a type, for a message."""
    raw, value = one.sql(type_) if one.kind == "VARCHAR" else (one.column, "NULL")
    query = f"SELECT DISTINCT CAST({raw} AS VARCHAR) FROM source WHERE {raw} IS NOT NULL AND {value} IS NULL"
    rows = sql.execute(f"{query} LIMIT 3").fetchall()
    shown = [f"'{' '.join(row[0].split()):.40}'" for row in rows]
    return "values such as " + ", ".join(sorted(shown)) if shown else "its values, all missing,"


def order_codes(sql: SQL, columns: list[Found], most: int) -> None:
    """Set the order of numbers that are taken for categories, where there are at most so many."""
    for one in columns:
        if not one.coded or one.low is None:
            continue
        one.units = one.decimal = None
        raw = one.sql("text")[0]
        if (
            one.kind == "VARCHAR"
            and row(sql, f"SELECT count_if(contains({raw}, '.')) FROM sample")[0]
        ):
            one.decimal = "."  # 8.0 is 8
        if one.distinct > most:
            continue
        value = one.sql()[1]
        query = (
            f"SELECT x, TRY_CAST(x AS DOUBLE) AS n FROM (SELECT DISTINCT {value} AS x FROM source) "
            f"WHERE n IS NOT NULL ORDER BY n, x LIMIT {most}"
        )
        one.order = [each[0] for each in sql.execute(query).fetchall()]
