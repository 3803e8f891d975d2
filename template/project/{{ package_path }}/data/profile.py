"""What a file's columns hold: the type of each, how its values are written, and how they count.

Values are read, cleaned and typed by the same SQL as in `collect`. Types are told from a sample of
rows, counts from all of them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
from duckdb import DuckDBPyConnection as SQL

from ..images import (
    NOT_THERE,
    OUTSIDE,
    SUFFIXES,
    Form,
    ImageError,
    located,
    sides,
    stored,
    to_pixels,
)
from ..settings import STRINGS, ColumnSettings
from . import times
from .numerals import (
    FITS,
    MAX_MISSING_WORDS,
    MAX_NUMBER_CODES,
    MISSING_TEXT,
    SPREADSHEET_ERROR,
    NumberFormat,
    infer_format,
    mostly_numbers,
)
from .parsing import HOST, PAIR, items_of
from .schema import cleaned, text, typed
from .source import WIDE_COLUMNS

SAMPLE_ROWS = 20_000  # that types and leaks are told from
MAX_SAMPLE_CELLS = 20_000_000  # of the sample, at most: of very wide files fewer rows are looked at
COLUMNS_PER_PASS = 40  # columns that are counted in one pass: each takes memory of its own
MAX_TEXTS = 3000  # different values of a column that are looked at
EXACT_BELOW = 2**53  # beyond it, not every whole number is a number of its own
MAX_FLAGS = 10  # items of lists that get a column each
NUMERIC = re.compile(r"U?((TINY|SMALL|BIG|HUGE)?INT|INTEGER)|FLOAT|DOUBLE|DECIMAL\(.*\)")
LOOKS_PERSONAL = r"\S+@\S+\.\S+|[+(][0-9][0-9 ()/.-]{6,}|[0-9]{2,5}[ .-][0-9]{3,4}[ .-][0-9]{3,4}"
# Scripts that set no blank between words: five of their letters in a row are a text, where a word of another has less
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]{5}"
NUMBER_WORDS = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fifteen|"
    "(four|six|seven|eight|nine)teen|twenty|thirty|forty|fifty|(six|seven|eigh|nine)ty|"
    "hundred|thousand|million|and"
)
# JSON, lists, numbers in words
NO_PROSE = r"(?is)\s*[\[{].*[\]}]\s*|" + rf"(({NUMBER_WORDS})[\s,-]*)+"
# Mean characters of free text; names, places and codes are shorter. A Chinese character is about two of English
MIN_LENGTH = {"words": 20, "characters": 10}
CLOCK_FORMATS = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p")  # times without a date
IMAGE_PATH = rf"(?i)[^\n]+({'|'.join(map(re.escape, SUFFIXES))})"
# How the files of `images.FORMATS` begin in base64: PNG, JPEG, GIF, WebP, BMP, TIFF
IMAGE_BASE64 = (
    r"(data:image/[a-z+.-]+;base64,)?(iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk[0-3]|SUkqA|TU0AK)\S{40,}"
)
MAX_IMAGES = 100  # of a column that are looked at
READABLE = 0.9  # share of these from which on the column is one of images
SIDES = (64, 32, 16, 8)  # pixels that images are brought to: the most that half of them have
GREY_SPREAD = 4  # between the colours of a pixel that is grey, as a JPEG has it
# People write for "nothing"
MISSING_CODES = (-1, -9, -99, -999, -9999, -99999, 99, 999, 9999, 99999, 999999)


class Images(NamedTuple):
    """What a column of images holds, by a sample of them.

    Attributes:
        folder: that their paths start from; None where they stand in base64.
        size, colours: as in settings.ColumnSettings.
        sizes: the images' own, such as "640 × 480", the commonest first.
    """

    folder: Path | None
    size: int
    colours: str
    sizes: list[str]


@dataclass(eq=False)
class Profile:
    """One column: where it comes from, what it holds, and what becomes of it."""

    name: str  # in the project
    source: str  # the same, but each name once
    header: str  # as it stands in the file
    sql_type: str  # DuckDB's type
    work_name: str  # in tables of work, by place: no name of a user's may meet one of ours
    type: Any = "category"
    formats: tuple[str, ...] | None = None
    decimal: Any = None  # how numbers are written, as in settings.ColumnSettings
    units: dict[str, float] | None = None
    missing: tuple[str, ...] | None = None
    images: Images | None = None
    part: str | None = None  # what is taken from the text in `source`
    rows: int = 0
    present: int = 0  # values that are not missing
    invalid: int = 0  # of these, what is not of the type
    distinct: int = 0
    low: Any = None
    high: Any = None
    whole: bool = False  # numbers without fractions
    has_blanks: bool = False  # texts with blanks
    prose: str = ""  # what free text is read by: words or characters; of anything else ""
    has_errors: bool = False  # of a spreadsheet, among its values
    personal: bool = False
    unique: bool = False  # an identifier with a different value in every row
    user_kind: str = ""  # the kind that the user says: category, number or drop
    code_reason: str = ""  # why a number is taken for a category
    order: list[str] = field(default_factory=list)  # codes from the lowest to the highest
    feature: dict[str, Any] | None = None
    exclusion: str = ""  # why the model does not see it

    def sql(self, type_: str = "", raw: str = "") -> tuple[str, str]:
        """SQL of the cleaned and of the typed value, as `collect` makes them.

        Args:
            type_: a type to try; without it, the column's.
            raw: SQL of a value that is cleaned already.
        """
        counted_as = "text" if self.images else self.type  # nobody decodes an image to count it
        rule = ColumnSettings.model_construct(
            type=type_ or counted_as, source=self.source, formats=self.formats, part=self.part,
            decimal=self.decimal, units=self.units, missing=self.missing,
        )  # fmt: skip
        raw = raw or cleaned(self.work_name, self.sql_type, rule)
        return raw, typed(raw, self.sql_type.split("(")[0], rule)


def find_images(sql: SQL, columns: Sequence[Profile], folders: Sequence[Path]) -> None:
    """Make images of the columns that hold them, as paths or in base64; leave out what cannot be read.

    Args:
        folders: that paths may start from; of them, and of what absolute paths share, the one with most of the files.
    """
    samples = {column: values for column in columns if (values := _image_values(sql, column))}
    paths = [x for xs in samples.values() for x in xs if x.lower().endswith(SUFFIXES)]
    if absolute := [os.path.dirname(path) for path in paths if os.path.isabs(path)]:
        shared = Path(os.path.commonpath(absolute))
        folders = [*folders, *([] if shared == Path(shared.anchor) else [shared])]

    def files(folder: Path) -> int:
        full_paths = [located(path, folder) for path in paths]
        return sum(path.is_relative_to(folder) and os.path.isfile(path) for path in full_paths)

    folder = max(folders, key=files) if folders and paths else None
    for column, values in samples.items():
        _judge_images(column, values, folder if values[0].lower().endswith(SUFFIXES) else None)


def _image_values(sql: SQL, column: Profile) -> list[str]:
    """Some different values of a column of images, in which all are paths, or all base64; of another none."""
    if column.sql_type != "VARCHAR":
        return []
    values = f"(SELECT {column.sql('text')[0]} AS x FROM sample)"
    path = f"regexp_full_match(x, {text(IMAGE_PATH)}) AND NOT contains(x, '://')"
    encoded = f"regexp_full_match(x, {text(IMAGE_BASE64)})"
    query = f"SELECT count(x), count_if({path}), count_if({encoded}) FROM {values}"
    present, *counts = row(sql, query)
    for count, condition in zip(counts, (path, encoded), strict=True):
        if 0 < FITS * present <= count:
            query = f"SELECT DISTINCT x FROM {values} WHERE {condition} ORDER BY hash(x), x LIMIT {MAX_IMAGES}"
            return [value for (value,) in sql.execute(query).fetchall()]
    return []


def _judge_images(column: Profile, values: list[str], folder: Path | None) -> None:
    """Decide by a sample whether a column's images can be read, and in which form."""
    sizes, faults, is_grey = list[tuple[int, int]](), Counter[str](), True
    for value in values:
        try:
            sizes.append(sides(value, folder))
            colours = to_pixels(stored(value, Form(32), folder)).astype(int)
            is_grey = is_grey and int(np.ptp(colours, axis=0).max()) <= GREY_SPREAD
        except ImageError as error:
            faults[str(error)] += 1
    if len(values) - faults.total() < READABLE * len(values):
        fault, count = faults.most_common(1)[0]
        count_text = f"{count:,} of the {len(values):,} looked at"
        reason = f"images that cannot be read, {count_text}: the value {fault}"
        if folder and fault in (NOT_THERE, OUTSIDE):
            reason += f"; let all paths start from {folder}, and adopt again"
        column.type, column.exclusion = "text", reason
        return
    half = sorted(min(size) for size in sizes)[len(sizes) // 2]
    size = next((side for side in SIDES if side <= half), SIDES[-1])
    common = Counter(f"{width} × {height}" for width, height in sizes).most_common()
    colours_ = "grey" if is_grey else "rgb"
    column.type = "image"
    column.images = Images(folder, size, colours_, [sides_text for sides_text, _ in common])


def infer_types(
    sql: SQL, columns: list[Profile], texts: list[Profile | None], events: Sequence[Profile | None]
) -> list[str]:
    """Set the type of every column, and append the parts of texts that hold several values.

    Args:
        texts: columns whose type stays.
        events: columns that must be times.

    Returns:
        what the user must know of how values are read, a line each.
    """
    notes: list[str] = []
    guesses: list[tuple[Profile, NumberFormat]] = []
    untyped = [column for column in columns if column not in texts]
    for position, column in enumerate(untyped):
        if len(untyped) > WIDE_COLUMNS and position % COLUMNS_PER_PASS == 0:
            _narrow(sql, untyped[position : position + COLUMNS_PER_PASS])
        note = _infer_type(sql, column, column in events)
        if isinstance(note, NumberFormat):
            guesses.append((column, note))
        elif note:
            notes.append(note)
        elif column.type in STRINGS and column not in events and not column.user_kind:
            notes += _add_parts(sql, column, columns)
    _narrow(sql, [])
    certain = {column for column, guess in guesses if guess.certain}
    mark = _decimal_mark(sql, columns, certain)
    for column, guess in guesses:
        if guess.certain or mark == ".":
            continue
        reread = infer_format(_text_counts(sql, column), mark)  # 1,208 in a file that writes 1,5
        if reread:
            column.decimal, guess.note = reread.decimal, reread.note
    if mark == ",":
        notes += [_read_thousands(sql, column) for column in columns]
    notes += [_number_note(column, guess) for column, guess in guesses]
    return list(filter(None, notes))


def _narrow(sql: SQL, columns: Sequence[Profile]) -> None:
    """Let the view `sample` have some columns only, or all: a query is planned with all that there are."""
    if columns:
        selected = ", ".join(dict.fromkeys(column.work_name for column in columns))
        sql.execute(f"CREATE OR REPLACE TEMP TABLE narrow AS SELECT {selected} FROM drawn")
        sql.execute("CREATE OR REPLACE TEMP VIEW sample AS FROM narrow")
    elif sql.execute("FROM duckdb_tables() WHERE table_name = 'narrow'").fetchall():
        sql.execute("CREATE OR REPLACE TEMP VIEW sample AS FROM drawn")


def _number_note(column: Profile, guess: NumberFormat) -> str:
    doubt = "" if guess.certain or not re.search("[0-9][.,]", guess.note) else ", a guess"
    key = f"; see data.schema.columns.{column.name}" if doubt else ""
    return f"{column.name}: read as numbers, {guess.note}{doubt}{key}" if guess.note else ""


def _decimal_mark(sql: SQL, columns: list[Profile], certain: set[Profile]) -> str:
    """The decimal mark of the file: of the columns that leave no doubt of theirs, most decide."""
    n_commas = sum(column.decimal == "," for column in certain)
    n_points = sum(column.decimal == "." for column in certain)
    if n_commas:
        n_points += sum(dots != groups for dots, groups in (_count_points(sql, c) for c in columns))
    return "," if n_commas > n_points else "."


def _count_points(sql: SQL, column: Profile) -> tuple[int, int]:
    """How many values of a column of plain numbers have a point, and how many so that 1.234 may be 1234."""
    if column.sql_type != "VARCHAR" or column.type != "number" or column.decimal or column.units:
        return 0, 0
    dots, groups = row(
        sql,
        f"SELECT count_if(contains(x, '.')), count_if(regexp_full_match(x, '[+-]?[1-9][0-9]?[0-9]?"
        f"([.][0-9][0-9][0-9])+')) FROM (SELECT {column.sql()[0]} AS x FROM sample)",
    )
    return dots or 0, groups or 0


def _read_thousands(sql: SQL, column: Profile) -> str:
    """Read 1.234 as a thousand where all numbers may be so, in a file with decimal commas."""
    dots, groups = _count_points(sql, column)
    if not dots or dots != groups:
        return ""
    column.decimal = ","
    return f"{column.name}: read as numbers, 1.234 is 1234, as the file has decimal commas, a guess"


def _infer_type(sql: SQL, column: Profile, event: bool) -> str | NumberFormat:
    """Set the column's type; returns what the user must know of how it is read, if anything."""
    readable = column.sql_type == "VARCHAR" or NUMERIC.fullmatch(column.sql_type)
    timelike = readable and not column.user_kind and (event or times.TIME_NAME.search(column.name))
    if timelike and (formats := times.epoch_format(sql, column.sql("number")[0], event)):
        column.type, column.formats = "time", formats
        return f"{column.name}: numbers read as times, {formats[0]}; see data.schema.columns.{column.name}"
    if column.sql_type != "VARCHAR" and not (event and readable):
        column.type = {"BOOLEAN": "bool", "UUID": "category"}.get(column.sql_type, "text")
        if NUMERIC.fullmatch(column.sql_type):
            column.type = "number"
        elif column.sql_type.startswith(("DATE", "TIMESTAMP")):
            column.type = "time"
        return ""
    raw = column.sql("number")[0]
    (digits,) = row(sql, f"SELECT bool_or(regexp_matches({raw}, '[0-9]')) FROM sample")
    kinds = ("number", "bool", "time") if digits else ("bool",)  # words are no times: soon told
    for type_ in ("time",) if event else kinds:
        raw, value = column.sql(type_)
        # 0123 is a code, and a year before 1000 was written with two digits
        suspects = {"number": f"regexp_matches({raw}, '^0[0-9]')", "time": f"year({value}) < 1000"}
        query = f"SELECT count({raw}), count({value}), count_if({suspects.get(type_, 'false')}) FROM sample"
        present, fits, n_suspect = row(sql, query)
        if present and fits >= FITS * present and not n_suspect:
            column.type = type_
            return ""
    if not event and not digits:
        return ""
    if not event and (_infer_clock(sql, column) or (reading_note := _infer_number(sql, column))):
        return "" if column.formats else reading_note
    return _infer_dates(sql, column, event)


def _infer_clock(sql: SQL, column: Profile) -> bool:
    """Make a text column a time when its values are times of the day."""
    raw, value = column.sql("time")
    query = f"SELECT count_if(regexp_matches({raw}, '^[0-9][0-9]?:[0-9][0-9]')) FROM sample"
    if not row(sql, query)[0]:
        return False
    column.formats = CLOCK_FORMATS
    raw, value = column.sql("time")
    present, fits = row(sql, f"SELECT count({raw}), count({value}) FROM sample")
    column.type = "time" if fits >= FITS * present else column.type
    column.formats = _used_formats(sql, raw, CLOCK_FORMATS) if column.type == "time" else None
    return column.type == "time"


def _used_formats(sql: SQL, raw: str, formats: tuple[str, ...]) -> tuple[str, ...]:
    counts = ", ".join(f"count(try_strptime({raw}, {text(form)}))" for form in formats)
    fitting = row(sql, f"SELECT {counts} FROM sample")
    return tuple(form for form, n in zip(formats, fitting, strict=True) if n)


def _infer_number(sql: SQL, column: Profile) -> str | NumberFormat:
    """Make a text column a number when its values are numbers as people write them."""
    raw = column.sql("number")[0]
    (present, digits, personal) = row(
        sql,
        f"SELECT count({raw}), count_if(regexp_matches({raw}, '[0-9]')), "
        f"count_if(regexp_full_match({raw}, {text(LOOKS_PERSONAL)})) FROM sample",
    )
    if not digits or digits < 0.02 * present or personal > 0.5 * present:
        return ""
    guess = infer_format(_text_counts(sql, column))
    if guess is None:
        return ""
    if guess.mixed:
        return "" if "/" in guess.note else f"{column.name}: {guess.note}"
    column.type, column.decimal, column.units = "number", guess.decimal, guess.units or None
    return guess


def _text_counts(sql: SQL, column: Profile) -> dict[str, int]:
    """Some different values of a text column -> how often they stand in the sample."""
    raw = column.sql("number")[0]
    query = (
        f"SELECT x, count(*) AS n FROM (SELECT {raw} AS x FROM sample) WHERE x IS NOT NULL "
        f"GROUP BY x ORDER BY n DESC, hash(x) LIMIT {MAX_TEXTS}"
    )
    return dict(sql.execute(query).fetchall())


def _infer_dates(sql: SQL, column: Profile, is_event: bool) -> str:
    """Make a text column a time when its values are dates in formats that strptime knows."""
    raw = column.sql("time")[0]
    sql.execute(
        f"CREATE OR REPLACE TEMP TABLE dates AS SELECT DISTINCT CAST({raw} AS VARCHAR) AS x FROM sample "
        f"WHERE {raw} IS NOT NULL ORDER BY hash(x) LIMIT 5000"
    )
    query = f"SELECT count(*), count_if(regexp_matches(x, '{times.DATE_TEXT}')) FROM dates"
    count, dated = row(sql, query)
    formats, doubt = times.infer_formats(sql, count, dated, is_event)
    if formats:
        column.type, column.formats = "time", formats
    return f"{column.name}: {doubt}; see data.schema.columns.{column.name}.formats" if doubt else ""


def _add_parts(sql: SQL, column: Profile, columns: list[Profile]) -> list[str]:
    """Append columns for what a text holds: an address's host, two numbers, the items of a list."""
    if column.sql_type not in ("VARCHAR", "VARCHAR[]") and not column.sql_type.endswith("[]"):
        return []
    raw = column.sql("text")[0]
    present, hosts, pairs, lists = row(
        sql,
        f"SELECT count(x), count_if(regexp_matches(x, {text(HOST)})), "
        f"count_if(regexp_full_match(x, {text(PAIR)})), count_if(regexp_matches(x, '[,;|]')) "
        f"FROM (SELECT CAST({raw} AS VARCHAR) AS x FROM sample)",
    )
    parts: list[tuple[str, str, str]] = []
    if not present:
        return []
    if hosts >= FITS * present:
        parts = [("host", "host", "category")]
    elif pairs >= FITS * present:
        parts = [("first", "first", "number"), ("second", "second", "number")]
    elif lists >= 0.2 * present and (items := _common_items(sql, raw)):
        parts = [("count", "count", "number")]
        parts += [(f"has {item}", f"has_{item}", "bool") for item in items]
    taken = {c.name for c in columns}
    names = []
    for part, ending, type_ in parts:
        base = re.sub(r"\W+", "_", f"{column.name}_{ending}".lower(), flags=re.ASCII).strip("_")
        candidates = (f"{base}_{i}" if i else base for i in range(len(columns) + MAX_FLAGS))
        names.append(next(candidate for candidate in candidates if candidate not in taken))
        taken.add(names[-1])
        columns.append(replace(column, name=names[-1], type=type_, part=part))
    if parts:
        column.type = "text"
        column.exclusion = f"its parts are columns of their own: {', '.join(names)}"
    return []


def _common_items(sql: SQL, raw: str) -> list[str]:
    """The commonest items of lists, none where the texts are no lists.

    The items of lists come again in other company: there are fewer of them than different lists,
    and they are short.
    """
    query = (
        f"SELECT x, count(*) FROM (SELECT CAST({raw} AS VARCHAR) AS x FROM sample) "
        f"WHERE x IS NOT NULL GROUP BY x ORDER BY hash(x) LIMIT {MAX_TEXTS}"
    )
    texts = dict(sql.execute(query).fetchall())
    counts: Counter[str] = Counter()
    for value, count in texts.items():
        for item in set(items_of(value)):
            counts[item] += count
    total = sum(texts.values())
    common = [item for item, n in counts.most_common() if n >= 0.02 * total]
    covered = sum(counts[item] for item in common) >= 0.5 * sum(counts.values())
    repeated = len(texts) >= 3 and len(counts) <= 0.7 * len(texts)
    if not (repeated and covered) or max(map(len, counts)) > 40:
        return []
    return [item for item in common if counts[item] < 0.98 * total][:MAX_FLAGS]


def typed_rows(columns: Sequence[Profile], table: str) -> str:
    """SQL of rows with the cleaned and the typed value of each column: r0, v0, r1, v1, …

    Each is an expression of its own: one that stands in a query ten times is worked out ten times.
    """
    raws = ", ".join(f"{column.sql()[0]} AS r{i}" for i, column in enumerate(columns))
    values = ", ".join(f"{c.sql(raw=f'r{i}')[1]} AS v{i}" for i, c in enumerate(columns))
    return f"(SELECT *, {values} FROM (SELECT {raws} FROM {table}))"


def count_values(sql: SQL, columns: list[Profile]) -> tuple[int, list[str]]:
    """Count the values of every column over all rows, and set `present`, `distinct`, `low` and the like.

    Returns:
        the number of rows, and what to say of lines that cannot be read.

    Raises:
        duckdb.Error: for a file that is not UTF-8.
    """
    rows = 0
    for start in range(0, len(columns), COLUMNS_PER_PASS):
        rows = _count(sql, columns[start : start + COLUMNS_PER_PASS])
    if not sql.execute("FROM duckdb_tables() WHERE table_name = 'reject_errors'").fetchall():
        return rows, []
    query = "SELECT CAST(error_type AS VARCHAR), count(DISTINCT line) FROM reject_errors GROUP BY 1"
    lost = dict(sql.execute(query).fetchall())
    if "INVALID ENCODING" in lost:
        raise duckdb.Error("not utf-8")
    note = f"source: {sum(lost.values()):,} lines cannot be read ({', '.join(lost).lower()})"
    return rows, [note] if lost else []


def _count(sql: SQL, columns: list[Profile]) -> int:
    """Count some columns in one pass; returns the rows."""
    checks = [
        f"[count(v{i}), count(DISTINCT v{i})"
        + "".join(f", {count}" for count in _text_figures(column, f"r{i}"))
        + "]"
        for i, column in enumerate(columns)
    ]
    parts = []
    sampled = row(sql, f"SELECT {', '.join(checks)} FROM {typed_rows(columns, 'sample')}")
    for i, (column, (present, distinct, *matches)) in enumerate(zip(columns, sampled, strict=True)):
        raw, value = f"r{i}", f"v{i}"
        number = column.type == "number"
        ends = f"min({value}), max({value})" if number or column.type == "time" else "NULL, NULL"
        whole = f"bool_and({value} = floor({value}))" if number else "false"
        fits = f"count_if(isfinite({value}))" if number else f"count({value})"
        # What repeats often in the sample is counted there: only what may be unique is worth more
        exact = str(distinct) if distinct < 0.1 * present else f"count(DISTINCT {value})"
        parts.append(f"[count({raw}), count({raw}) - {fits}, {exact}], {ends}, {whole}")
        _judge_text(column, present, *(count or 0 for count in matches or [0] * 6))
    query = f"SELECT count(*), {', '.join(parts)} FROM {typed_rows(columns, 'source')}"
    rows, *values = row(sql, query)
    for column, figures in zip(columns, zip(*[iter(values)] * 4, strict=True), strict=True):
        counts, column.low, column.high, column.whole = figures
        column.rows = rows
        column.present, column.invalid, column.distinct = counts
    return int(rows)


def _text_figures(column: Profile, raw: str) -> list[str]:
    """SQL of what is counted of a text: characters, and values with blanks, personal, errors, without prose."""
    if column.type not in STRINGS:
        return []
    raw = f"CAST({raw} AS VARCHAR)"
    full = "count_if(regexp_full_match({}, {}))".format
    return [
        f"CAST(sum(length({raw})) AS BIGINT)",
        f"count_if(contains({raw}, ' '))",
        full(raw, text(LOOKS_PERSONAL)),
        full(raw, text(SPREADSHEET_ERROR)),
        f"count_if(regexp_matches({raw}, {text(UNSPACED)}))",
        full(raw, text(NO_PROSE)),
    ]


def _judge_text(
    column: Profile, present: int, length: int, blanks: int, personal: int, errors: int, unspaced: int,
    no_prose: int,
) -> None:  # fmt: skip
    """Set what the figures of `_text_figures` say of the texts that are present.

    Free text is long on average, and half of its values have blanks or stand in a script without any
    between words; the script decides first, as Thai sets blanks between sentences.
    """
    column.has_blanks, column.has_errors = blanks > 0.5 * present, errors > 0
    column.personal = 0 < 0.8 * present <= personal
    unit = "characters" if unspaced > 0.5 * present else "words" if column.has_blanks else ""
    is_prose = unit and no_prose <= 0.5 * present and length >= MIN_LENGTH[unit] * present
    column.prose = unit if is_prose else ""


def mark_missing(sql: SQL, columns: list[Profile]) -> list[str]:
    """Set which values mean missing, and make categories of numbers that are too long to be exact.

    Returns:
        what was taken for missing, a line each.
    """
    notes = []
    for column in columns:
        suspect = column.invalid or (column.has_errors and column.type != "number")
        spellings = _missing_words(sql, column) if suspect else {}
        if spellings:
            column.missing = tuple(spellings)
            counts = [f"{n:,} {spelling!r}" for spelling, n in spellings.items()]
            notes.append(f"{column.name}: taken for missing: {', '.join(counts)}")
            _count(sql, [column])
        if column.type == "number" and column.low is not None and column.user_kind != "category":
            notes += _missing_codes(sql, column)
        whole = column.type == "number" and column.whole
        if whole and max(abs(column.low), abs(column.high)) >= EXACT_BELOW:
            column.type, column.code_reason = "category", "too long to be exact as a number"
            _count(sql, [column])
    return notes


def _missing_words(sql: SQL, column: Profile) -> dict[str, int]:
    """The words among values that mean none -> how often; of a text those of a spreadsheet's errors."""
    raw, value = column.sql()
    suspect = f"regexp_full_match(CAST({raw} AS VARCHAR), {text(SPREADSHEET_ERROR)})"
    if column.type == "number":
        suspect = f"{value} IS NULL"
    query = (
        f"SELECT x, count(*) AS n FROM (SELECT CAST({raw} AS VARCHAR) AS x, {suspect} AS odd FROM source) "
        f"WHERE x IS NOT NULL AND odd GROUP BY x ORDER BY n DESC, x LIMIT 200"
    )
    counts = dict(sql.execute(query).fetchall())
    if column.type != "number":
        return counts if len(counts) <= MAX_MISSING_WORDS else {}
    certain = {x: n for x, n in counts.items() if MISSING_TEXT.fullmatch(x)}
    likely = {x: n for x, n in counts.items() if x not in certain and not re.search("[0-9]", x)}
    distinct = column.distinct or MAX_NUMBER_CODES + 1
    numbers = column.present - column.invalid
    if mostly_numbers(numbers, distinct, likely) and len(likely) <= MAX_MISSING_WORDS:
        return certain | likely
    return certain


def _missing_codes(sql: SQL, column: Profile) -> list[str]:
    """Take -999 and the like for missing where such a number stands apart from all others."""
    notes = []
    for low in (True, False):
        end = column.low if low else column.high
        if end not in MISSING_CODES or column.distinct < 3:
            continue
        value = column.sql()[1]
        n_code, present, lowest, highest = row(
            sql,
            f"SELECT count_if(v = {end!r}), count(v), min(v) FILTER (v <> {end!r}), "
            f"max(v) FILTER (v <> {end!r}) FROM (SELECT {value} AS v FROM sample)",
        )
        if lowest is None or n_code == 0:
            continue
        gap = lowest - end if low else end - highest
        code = f"{end:.0f}"
        key = f"data.schema.columns.{column.name}.missing"
        apart = gap > highest - lowest or (end <= -99 and lowest >= 0)
        frequent = n_code > 0.02 * present
        if apart and n_code >= 2:
            column.missing = (*(column.missing or ()), code)
            note = f"{column.name}: taken for missing: {code}, apart from all others; see {key}"
            notes.append(note)
            _count(sql, [column])
        elif column.distinct > MAX_NUMBER_CODES and ((low and lowest >= 0) or frequent):
            notes.append(f'{column.name}: is {code} a code for missing? If so: {key}: ["{code}"]')
    return notes


def row(sql: SQL, query: str) -> tuple[Any, ...]:
    """The first row of a query's answer."""
    return sql.execute(query).fetchall()[0]


def examples(sql: SQL, column: Profile, type_: str) -> str:
    """Some values that are not of a type, for a message."""
    raw, value = column.sql(type_) if column.sql_type == "VARCHAR" else (column.work_name, "NULL")
    query = f"SELECT DISTINCT CAST({raw} AS VARCHAR) FROM source WHERE {raw} IS NOT NULL AND {value} IS NULL"
    rows = sql.execute(f"{query} LIMIT 3").fetchall()
    values = [f"'{' '.join(row[0].split()):.40}'" for row in rows]
    return "values such as " + ", ".join(sorted(values)) if values else "its values, all missing,"


def order_codes(sql: SQL, columns: list[Profile], max_codes: int) -> None:
    """Set the order of numbers that are taken for categories, where there are at most `max_codes`."""
    for column in columns:
        if not column.code_reason or column.low is None:
            continue
        column.units = column.decimal = None
        raw = column.sql("text")[0]
        query = f"SELECT count_if(contains({raw}, '.')) FROM sample"
        if column.sql_type == "VARCHAR" and row(sql, query)[0]:
            column.decimal = "."  # 8.0 is 8
        if column.distinct > max_codes:
            continue
        value = column.sql()[1]
        query = (
            f"SELECT x, TRY_CAST(x AS DOUBLE) AS n FROM (SELECT DISTINCT {value} AS x FROM source) "
            f"WHERE n IS NOT NULL ORDER BY n, x LIMIT {max_codes}"
        )
        column.order = [code for code, _ in sql.execute(query).fetchall()]
