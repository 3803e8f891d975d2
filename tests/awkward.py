"""Files as people have them, and what `adopt` must make of each: a right result, or one true line.

The list, its writers and its checks. It is written from what users have and need, not from what the
product does. `tests/slow/test_awkward.py` runs it with a generated project's Python, all in one
process:

    python awkward.py PROJECT FOLDER [STARTS]    one line of JSON a case: {"name", "wrong": […], …}

A case works (facts are checked in params.yaml, in what `adopt` said, and in the rows after the stages
collect, label and split), or is refused: one line that says what is wrong, where, and what to do,
with params.yaml as it was. Neither ever says a word about the database.
"""

from __future__ import annotations

import bz2
import contextlib
import csv
import functools
import gzip
import io
import json
import lzma
import math
import os
import random
import re
import shutil
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

ROWS = 160
TOPICS = ("billing", "outage", "question")
LABEL = {"binary": "churned", "multiclass": "topic", "regression": "price"}
# Words that a user cannot know, as they belong to the libraries inside
INSIDE = re.compile(
    r"duckdb|binder|catalog error|parser error|conversion error|out of range error|"
    r"invalid input error|internal error|reservoir|read_csv|read_parquet|try_cast|varchar|bigint|"
    r"(?-i:SELECT .+ FROM)|traceback|the database gave|sniff|pyarrow|numpy|pandas|errno|"
    r"\bNoneType\b|<class|Column\(|0x[0-9a-f]{6}",
    re.IGNORECASE,
)
Table = dict[str, list[Any]]


@dataclass(frozen=True)
class Case:
    """One file, what is typed, and what must come of it.

    Attributes:
        name: of the case; kind: of the project, or `any` of them.
        make: writes the file into a folder; returns what `adopt` is pointed at.
        arguments: further ones of the command; `--label` is added where it is missing.
        outcome: works, refused, or either of the two as long as `says` holds.
        says: patterns, in any case, that must stand in the output or in the refusal.
        never: patterns that must not.
        rows: kept by collect; labelled, positives: after the label stage.
        types, values, missing: of a heading; values from the first row on, times in seconds.
        used, unused: headings that the model must see and must not see.
        parts: heading -> at least so many columns taken from it.
        params: dotted key -> value in params.yaml.
    """

    name: str
    make: Callable[[Path], Path]
    kind: str = "any"
    arguments: tuple[str, ...] = ()
    outcome: str = "works"
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    rows: int | None = None
    labelled: int | None = None
    positives: int | None = None
    types: dict[str, str] = field(default_factory=dict)
    values: dict[str, list[Any]] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    used: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    parts: dict[str, int] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    needs: str = ""  # a library without which the file is refused, naming `uv sync`


def table(rows: int = ROWS) -> Table:
    """What every file holds: two numbers, a category, and a label of each kind."""
    rng = random.Random(5)
    made: Table = {name: [] for name in ("age", "spend", "plan", "churned", "topic", "price")}
    for _ in range(rows):
        age, spend = rng.randint(18, 90), round(rng.expovariate(0.02), 2)
        plan = rng.choice(["free", "basic", "pro"])
        pull = 1.5 * (plan == "free") + 0.04 * (age - 50) - 0.02 * spend
        churned = rng.random() < 1 / (1 + math.exp(-pull))
        topic = TOPICS[0 if plan == "free" and spend < 60 else 1 + (age > 50)]
        price = round(200 + 3 * age + 40 * (plan == "pro") + rng.gauss(0, 15), 2)
        row = (age, spend, plan, "yes" if churned else "no", topic, price)
        for name, value in zip(made, row, strict=True):
            made[name].append(value)
    return made


def of_kind(made: Table, kind: str) -> Table:
    """The table with the label of a project's kind alone."""
    other_labels = {*LABEL.values()} - {LABEL[kind]}
    return {name: values for name, values in made.items() if name not in other_labels}


def cycled(*values: Any, rows: int = ROWS) -> list[Any]:
    return [values[row % len(values)] for row in range(rows)]


def drawn(values: list[Any], rows: int = ROWS, seed: int = 9) -> list[Any]:
    rng = random.Random(seed)
    return [rng.choice(values) for _ in range(rows)]


def lines(made: Table, **csv_options: Any) -> str:
    """A CSV of the table; options as of csv.writer."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=csv_options.pop("end", "\n"), **csv_options)
    writer.writerow(made)
    writer.writerows(zip(*made.values(), strict=True))
    return out.getvalue()


def put(name: str, content: bytes | str, encoding: str = "utf-8") -> Callable[[Path], Path]:
    """Writes one file."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return make


CASES: list[Case] = []


def add(name: str, make: Callable[[Path], Path], **facts: Any) -> None:
    CASES.append(Case(name, make, **facts))


def kind_for(name: str, kind: str) -> str:
    """The kind of project that `any` stands for: by turns, so that each meets all kinds of file."""
    return kind if kind != "any" else [*LABEL][sum(name.encode()) % len(LABEL)]


def column(
    name: str, heading: str, cells: list[Any], kind: str = "any", sep: str = ",", **facts: Any
) -> None:
    """A case of one awkward column beside the usual ones; `cells` again and again."""
    made = of_kind(table(), kind := kind_for(name, kind))
    made[heading] = cycled(*cells) if len(cells) != ROWS else cells
    add(name, put("rows.csv", lines(made, delimiter=sep)), kind=kind, **facts)


# ---- Any column name --------------------------------------------------------------------------

KEYWORDS = [
    "all",
    "alter",
    "and",
    "any",
    "as",
    "asc",
    "attach",
    "between",
    "by",
    "call",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "columns",
    "constraint",
    "copy",
    "create",
    "cross",
    "current_date",
    "database",
    "date",
    "day",
    "default",
    "delete",
    "desc",
    "describe",
    "distinct",
    "drop",
    "else",
    "end",
    "epoch",
    "exclude",
    "except",
    "exists",
    "explain",
    "extract",
    "false",
    "filter",
    "first",
    "for",
    "foreign",
    "from",
    "full",
    "function",
    "glob",
    "grant",
    "group",
    "grouping",
    "having",
    "hour",
    "if",
    "ilike",
    "in",
    "index",
    "inner",
    "insert",
    "install",
    "intersect",
    "interval",
    "into",
    "is",
    "join",
    "key",
    "language",
    "last",
    "lateral",
    "left",
    "like",
    "limit",
    "load",
    "map",
    "minute",
    "month",
    "natural",
    "not",
    "null",
    "nulls",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "over",
    "partition",
    "pivot",
    "pragma",
    "primary",
    "qualify",
    "range",
    "recursive",
    "references",
    "replace",
    "returning",
    "right",
    "row",
    "rows",
    "sample",
    "schema",
    "select",
    "semi",
    "set",
    "show",
    "side",
    "similar",
    "some",
    "struct",
    "summarize",
    "table",
    "tablesample",
    "temp",
    "then",
    "time",
    "timestamp",
    "to",
    "trigger",
    "true",
    "type",
    "union",
    "unique",
    "unpivot",
    "update",
    "using",
    "value",
    "values",
    "view",
    "when",
    "where",
    "window",
    "with",
    "within",
    "year",
]
YAML = ["yes", "no", "on", "off", "null", "~", "1e3", "0x1F", "2026-01-01", "12:30", "ratio: a/b",
        "# of visits", "- item", "a, b", "{x}", "[y]", "&a", "*b", "!tag", "@x", "`x`", "%x", "|", ">",
        "? k", "'", '"', "say \"hi\"", "it's", "\\", "a\\nb", "a: {b: c}", "<<", "=", "---", "..."]  # fmt: skip
STRANGE = ["100%", "$", "€ spend", "???", "   ", "naïve", "東京", "عربى", "🚀", "👩‍👩‍👧", "ı", "ß", "e\u0301",
           "\u200bzero", "a\tb", "a\nb", "{{ x }}", "{% raw %}", "{0}", "%(x)s", "[bold]x[/]", "[/]", "../x",
           "__class__", "a.b", "a b", "a  b", "A B", "-1", "1", "2.5", "x" * 300, ";", "a;b", "a|b",
           "--label", "'; DROP TABLE source; --", '"x" AS y', "\ufeffbom", "Ⅳ", "ﬁne", "K", "x'y\"z"]  # fmt: skip
# What helper tables, their columns and their aliases may be called
HELPERS = ["key", "side", "place", "source", "sample", "staged", "given", "judged", "rows", "turn",
           "raw", "value", "values", "first", "start", "cut", "seen", "t0", "r0", "c0", "_0", "_y", "y",
           "rowid", "_row_key", "_why", "_known_at", "t", "g", "v", "x", "filename", "order", "label"]  # fmt: skip


def headed(names: list[str], kind: str, rows: int = ROWS) -> Table:
    """A table with a number under each of the names, beside the usual columns."""
    made, rng = of_kind(table(rows), kind), random.Random(3)
    return made | {name: [round(rng.random(), 3) for _ in range(rows)] for name in names}


def identifiers(count: int = 300) -> list[str]:
    """Names that the package's SQL gives, all of them, and others from its source up to a count."""
    import my_model

    package = Path(my_model.__file__).parent
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py")))
    sql_names = re.findall(r"\b(?:AS|BY|FROM|JOIN|TABLE|VIEW|WITH) \(?([a-z_][a-z_0-9]*)\b", text)
    source_names = sorted(set(re.findall(r"\b[a-z_][a-z_0-9]*\b", text)))
    names = dict.fromkeys([*sql_names, *random.Random(7).sample(source_names, count)])
    usable = [name for name in names if name not in table(1) and not INSIDE.search(name)]
    return usable[: max(count, len(set(sql_names)))]


def named(names: list[str], kind: str, file: str = "rows.csv") -> Callable[[Path], Path]:
    return put(file, lines(headed(names, kind)))


def unidentifying(names: list[str]) -> tuple[str, ...]:
    """All but those whose name says that they identify a row."""
    return tuple(name for name in names if not name.endswith("key"))


for kind_ in LABEL:
    add(
        f"names: SQL's words, {kind_}",
        named(KEYWORDS, kind_),
        kind=kind_,
        used=unidentifying(KEYWORDS),
    )
    add(f"names: YAML's marks, {kind_}", named(YAML, kind_), kind=kind_, used=tuple(YAML))
    add(f"names: strange ones, {kind_}", named(STRANGE, kind_), kind=kind_)
    add(f"names: helpers, {kind_}", named(HELPERS, kind_), kind=kind_, used=unidentifying(HELPERS))
add(
    "names: the package's own",
    lambda folder: put("rows.csv", lines(headed(identifiers(), "binary")))(folder),
    kind="binary",
)


def in_roles(label: str, when: str, group: str, kind: str) -> Callable[[Path], Path]:
    """A file whose label, time and group are called so."""
    made = of_kind(table(), kind)
    made[label] = made.pop(LABEL[kind])
    start = datetime(2026, 1, 1)
    made[when] = [f"{start + timedelta(hours=9 * row):%Y-%m-%d %H:%M}" for row in range(ROWS)]
    made[group] = [f"g{row // 3}" for row in range(ROWS)]
    return put("rows.csv", lines(made))


ROLES = ["key", "side", "place", "source", "sample", "rows", "value", "first", "order", "group", "select",
         "time", "label", "_y", "rowid", "t0", "a: b", "東京", "x\"y", "it's", "null", "{{ x }}", "t", "%s"]  # fmt: skip
for turn, label in enumerate(ROLES):
    when, group = ROLES[(turn + 8) % len(ROLES)], ROLES[(turn + 16) % len(ROLES)]
    kind_ = kind_for(f"{turn}", "any")
    add(f"roles: label {label!r}, time {when!r}, group {group!r}", in_roles(label, when, group, kind_),
        kind=kind_, arguments=("--label", label, "--time", when, "--group", group), labelled=ROWS)  # fmt: skip

add("names: the same twice", put("rows.csv", lines(of_kind(table(), "binary")).replace(
    "age,spend", "amount,amount", 1)), kind="binary", says=("amount",))  # fmt: skip
add("names: apart from their case the same", named(["Score", "SCORE", "score"], "binary"),
    kind="binary", used=("Score", "SCORE", "score"))  # fmt: skip
add("names: one is empty", named([""], "binary"), kind="binary", rows=ROWS)
add("names: several are empty", put("rows.csv", lines(headed(["u", "v"], "binary")).replace(
    ",u,v", ",,", 1)), kind="binary", rows=ROWS)  # fmt: skip
add("names: blanks around", named([" width ", "  height"], "binary"), kind="binary", rows=ROWS)

# ---- Times ------------------------------------------------------------------------------------

START = datetime(2026, 1, 5, 10, 30, tzinfo=UTC)
MOMENTS = [START + timedelta(days=row % 100, hours=row // 100) for row in range(ROWS)]
COARSE = [START + timedelta(days=31 * (row % 24)) for row in range(ROWS)]  # of two years


def moments(
    name: str, form: Callable[[datetime], str], truth: Callable[[datetime], datetime] | None = None,
    times: list[datetime] = MOMENTS, **facts: Any,
) -> None:  # fmt: skip
    """A case of a time written in one way, read to the second."""
    kind = kind_for(name, "any")
    made = of_kind(table(), kind) | {"when": [form(moment) for moment in times]}
    read = truth or (lambda moment: moment)
    seconds = [read(moment).timestamp() for moment in times[:12]]
    facts = {"arguments": ("--time", "when"), "values": {"when": seconds}, "rows": ROWS, **facts}
    if facts.get("outcome", "works") != "works":
        facts.pop("values"), facts.pop("rows")
    add(f"times: {name}", put("rows.csv", lines(made)), kind=kind, **facts)


def at_midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0)


def month_start(moment: datetime) -> datetime:
    return at_midnight(moment).replace(day=1)


def quarter_start(moment: datetime) -> datetime:
    return month_start(moment).replace(month=(moment.month - 1) // 3 * 3 + 1)


def shifted(moment: datetime, hours: float) -> datetime:
    return moment + timedelta(hours=hours)


moments("ISO", lambda moment: f"{moment:%Y-%m-%d %H:%M:%S}")
moments("ISO with T and Z", lambda moment: f"{moment:%Y-%m-%dT%H:%M:%SZ}")
moments("ISO with milliseconds", lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S}.000Z")
moments("an offset", lambda moment: f"{shifted(moment, 2):%Y-%m-%dT%H:%M:%S}+02:00")
moments("an offset without a colon", lambda moment: f"{shifted(moment, -7):%Y-%m-%d %H:%M:%S}-0700")
moments(
    "an offset of half an hour", lambda moment: f"{shifted(moment, 5.5):%Y-%m-%d %H:%M:%S}+05:30"
)
moments("an offset of hours alone", lambda moment: f"{shifted(moment, 1):%Y-%m-%d %H:%M:%S}+01")
moments("offsets that differ", lambda moment: (
    f"{shifted(moment, 2):%Y-%m-%dT%H:%M:%S}+02:00" if moment.day % 2 else f"{moment:%Y-%m-%dT%H:%M:%SZ}"))  # fmt: skip
moments("UTC in words", lambda moment: f"{moment:%Y-%m-%d %H:%M:%S} UTC")
moments("RFC 2822", lambda moment: f"{shifted(moment, 1):%a, %d %b %Y %H:%M:%S} +0100")
moments("RFC 2822 in GMT", lambda moment: f"{moment:%a, %d %b %Y %H:%M:%S} GMT")
moments("epoch seconds", lambda moment: f"{moment.timestamp():.0f}", says=(r"second|epoch_s\b",))
moments("epoch seconds with a fraction", lambda moment: f"{moment.timestamp():.1f}")
moments(
    "epoch milliseconds",
    lambda moment: f"{moment.timestamp() * 1e3:.0f}",
    says=("millisecond|epoch_ms",),
)
moments(
    "epoch microseconds",
    lambda moment: f"{moment.timestamp() * 1e6:.0f}",
    says=("microsecond|epoch_us",),
)
moments("epoch nanoseconds", lambda moment: f"{int(moment.timestamp()) * 10**9}", outcome="either",
        says=("when|nanosecond",))  # fmt: skip
moments("a month's name", lambda moment: f"{moment:%b} {moment.day}, {moment:%Y}", at_midnight)
moments("a month's whole name", lambda moment: f"{moment.day} {moment:%B %Y}", at_midnight)
moments("a month's name and two digits", lambda moment: f"{moment:%d-%b-%y}", at_midnight)
moments("a month and a year in words", lambda moment: f"{moment:%b-%Y}", month_start, COARSE)
moments("a whole month and a year", lambda moment: f"{moment:%B %Y}", month_start, COARSE)
moments("year and month", lambda moment: f"{moment:%Y-%m}", month_start, COARSE)
moments("quarters", lambda moment: f"{moment:%Y}Q{(moment.month + 2) // 3}", quarter_start, COARSE)
moments(
    "quarters with a dash",
    lambda moment: f"{moment:%Y}-Q{(moment.month + 2) // 3}",
    quarter_start,
    COARSE,
)
moments(
    "quarters first",
    lambda moment: f"Q{(moment.month + 2) // 3} {moment:%Y}",
    quarter_start,
    COARSE,
)
moments("weeks", lambda moment: f"{moment:%G-W%V}", times=COARSE, outcome="either", says=("when",))
moments("compact days", lambda moment: f"{moment:%Y%m%d}", at_midnight)
moments("compact ISO", lambda moment: f"{moment:%Y%m%dT%H%M%SZ}")
moments("fourteen digits", lambda moment: f"{moment:%Y%m%d%H%M%S}")
moments("the day first", lambda moment: f"{moment:%d/%m/%Y %H:%M}")
moments("the month first, with AM", lambda moment: f"{moment:%m/%d/%Y %I:%M %p}")
moments("dots", lambda moment: f"{moment:%d.%m.%Y}", at_midnight)
moments("slashes, the year first", lambda moment: f"{moment:%Y/%m/%d %H:%M:%S}")
moments("a weekday in front", lambda moment: f"{moment:%A, %d %B %Y}", at_midnight)
moments("days and clocks without a date", lambda moment: f"{moment:%H:%M}", outcome="refused",
        says=("when", "time"))  # fmt: skip
moments("serial numbers of a spreadsheet", lambda moment: f"{(moment - datetime(1899, 12, 30, tzinfo=UTC)).days}",
        at_midnight, outcome="either", says=("when",))  # fmt: skip
moments("months in another language", lambda moment: f"{moment.day}. Jänner {moment:%Y}", outcome="refused",
        says=("when", "time"))  # fmt: skip
moments("words", lambda moment: "yesterday", outcome="refused", says=("when", "yesterday"))
YEARS = of_kind(table(), "regression") | {"when": [1990 + row % 30 for row in range(ROWS)]}
add("times: years", put("rows.csv", lines(YEARS)), kind="regression", arguments=("--time", "when"),
    values={"when": [datetime(1990 + row, 1, 1, tzinfo=UTC).timestamp() for row in range(9)]})  # fmt: skip
column("times: day and month cannot be told apart", "when", [f"0{1 + row % 9}/0{1 + row % 7}/2026" for row in range(ROWS)],
       arguments=("--time", "when"), says=("when", "day|month"))  # fmt: skip
column("times: day first and month first in one column", "when", ["25/01/2026", "01/26/2026"],
       arguments=("--time", "when"), outcome="either", says=("when",))  # fmt: skip
column("times: some rows have none", "when", ["2026-01-05", "2026-02-07", "2026-03-09", ""],
       arguments=("--time", "when"), says=("when|time", r"\b40\b"))  # fmt: skip
column("times: none at all", "when", [""], arguments=("--time", "when"), outcome="refused",
       says=("when", "missing"))  # fmt: skip
column("times: a placeholder among them", "when", [*[f"{moment:%Y-%m-%d}" for moment in MOMENTS[: ROWS - 1]], "0000-00-00"],
       arguments=("--time", "when"), outcome="either", says=("when", "0000-00-00|1"))  # fmt: skip
column("times: all the same moment", "when", ["2026-01-05"], arguments=("--time", "when"),
       outcome="either", says=("when|time",))  # fmt: skip
column("times: a feature with offsets", "seen", [f"{shifted(moment, 2):%Y-%m-%dT%H:%M:%S}+02:00" for moment in MOMENTS],
       types={"seen": "time"}, values={"seen": [moment.timestamp() for moment in MOMENTS[:5]]})  # fmt: skip

# ---- Numbers as people write them -------------------------------------------------------------

NUMBERS = [1234.5, 208.0, 98765.25, 3.5, 1208.75, 456789.0, 77.0]


def numbers(name: str, cells: list[str], read: list[float | None], **facts: Any) -> None:
    """A case of a number written in one way."""
    facts = {
        "types": {"amount": "number"},
        "values": {"amount": read},
        "used": ("amount",),
        **facts,
    }
    column(f"numbers: {name}", "amount", cells, **facts)


def spelt(form: Callable[[float], str]) -> list[str]:
    return [form(number) for number in NUMBERS]


def swiss(number: float) -> str:
    return f"{number:,.2f}".replace(",", "'")


def german(number: float) -> str:
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


def blanks(number: float, blank: str = " ") -> str:
    return f"{number:,.2f}".replace(",", blank)


numbers("thousands by comma", spelt(lambda number: f"{number:,.2f}"), NUMBERS)
numbers("thousands by apostrophe", spelt(swiss), NUMBERS)
numbers(
    "thousands by a curly apostrophe",
    spelt(lambda number: swiss(number).replace("'", "’")),
    NUMBERS,
)
numbers("thousands by blank", spelt(blanks), NUMBERS)
numbers("thousands by a hard blank", spelt(lambda number: blanks(number, "\u00a0")), NUMBERS)
numbers("thousands by a narrow blank", spelt(lambda number: blanks(number, "\u202f")), NUMBERS)
numbers("a decimal comma", spelt(german), NUMBERS, sep=";")
numbers(
    "a decimal comma alone",
    [f"{number:.2f}".replace(".", ",") for number in NUMBERS],
    NUMBERS,
    sep=";",
)
numbers(
    "a decimal comma and blanks",
    spelt(lambda number: blanks(number).replace(".", ",")),
    NUMBERS,
    sep=";",
)
numbers("dollars", spelt(lambda number: f"${number:,.2f}"), NUMBERS)
numbers("negative dollars", ["-$1,234.50", "$208.00", "($77.00)"], [-1234.5, 208.0, -77.0])
numbers("euros behind", spelt(lambda number: f"{german(number)} €"), NUMBERS, sep=";")
numbers("euros in front", spelt(lambda number: f"€{number:,.2f}"), NUMBERS)
numbers("pounds", spelt(lambda number: f"£{number:,.2f}"), NUMBERS)
numbers("yen", ["¥1,200", "¥980", "¥15,000"], [1200.0, 980.0, 15000.0])
numbers("a currency's code", spelt(lambda number: f"USD {number:,.2f}"), NUMBERS)
numbers("francs", spelt(lambda number: f"CHF {swiss(number)}"), NUMBERS)
numbers("per cent", ["12%", "7.5%", "100%", "0.3%", "55%"], [12.0, 7.5, 100.0, 0.3, 55.0], outcome="either",
        values={}, never=("amount: left out",))  # fmt: skip
numbers("brackets for negative", ["(1,234)", "208", "77"], [-1234.0, 208.0, 77.0])
numbers("a minus behind", ["1234-", "208", "77.5-"], [-1234.0, 208.0, -77.5])
numbers("a typesetter's minus", ["\u22121234.5", "208", "\u221277"], [-1234.5, 208.0, -77.0])
numbers("a plus", ["+1.5", "-2.5", "+3"], [1.5, -2.5, 3.0])
numbers("exponents", ["1e3", "2.5E-2", "1.2e+05"], [1000.0, 0.025, 120000.0])
numbers("blanks around", ["  12.5", "13 ", " 14.25 "], [12.5, 13.0, 14.25])
numbers("one unit", ["120 kg", "95.5 kg", "61kg"], [120.0, 95.5, 61.0])
numbers("a unit in small letters and large", ["5 km", "7.5 KM", "12 km"], [5.0, 7.5, 12.0])
numbers("degrees", ["21.5 °C", "19 °C", "23.25 °C"], [21.5, 19.0, 23.25])
numbers("stars out of five", ["4.9 out of 5", "3.5 out of 5", "1.0 out of 5"], [4.9, 3.5, 1.0])
numbers("two units of one kind", ["120 kg", "900 g", "61 kg"], [], outcome="either", values={}, used=(),
        types={}, says=("amount",))  # fmt: skip
numbers("thousands as k", ["12k", "3.5k", "100k"], [], outcome="either", values={}, used=(), types={},
        says=("amount",))  # fmt: skip
numbers("millions as M", ["€1.5M", "€300K", "€12M"], [], outcome="either", values={}, used=(), types={},
        says=("amount",))  # fmt: skip
numbers("below a limit of detection", ["<0.1", "0.5", "1.2", ">90", "7", "8", "9.5"], [], values={}, used=(),
        types={}, says=("amount",))  # fmt: skip
numbers("ranges", ["5-10", "11-20", "21-30"], [], values={}, used=(), types={})
numbers(
    "1,208 in a column with fractions", ["1,208", "77.5", "12,000.25"], [1208.0, 77.5, 12000.25]
)
numbers(
    "1,208 in a column with decimal commas",
    ["1,208", "77,5", "12,25"],
    [1.208, 77.5, 12.25],
    sep=";",
)
numbers("1,208 throughout", ["1,208", "3,500", "12,000", "7,125"], [1208.0, 3500.0, 12000.0, 7125.0],
        says=("amount", "1,208|3,500|12,000|thousand|comma"))  # fmt: skip
numbers("2,4 throughout", ["1,5", "2,4", "12,25", "0,208"], [1.5, 2.4, 12.25, 0.208], sep=";")
WORDY = [round(1.7 * row % 97 + 0.5, 1) for row in range(ROWS)]


def with_placeholder(placeholder: str, times: int = 4) -> list[Any]:
    """Numbers, a few of which are a word."""
    return [placeholder if row % (ROWS // times) == 3 else value for row, value in enumerate(WORDY)]


for placeholder in ("n.d.", "unknown", "missing", "not available", "#N/A", "tbd", "ND", "."):
    numbers(f"a few are {placeholder}", with_placeholder(placeholder), WORDY[:3], missing={"amount": 4}, rows=ROWS,
            says=("amount", re.escape(placeholder)))  # fmt: skip
for placeholder in ("NA", "NaN", "null", "-", "?", "None", "n/a"):
    numbers(
        f"a few are {placeholder}",
        with_placeholder(placeholder),
        WORDY[:3],
        missing={"amount": 4},
        rows=ROWS,
    )
numbers("two words of several", with_placeholder("n.d.")[: ROWS // 2] + with_placeholder("unknown")[ROWS // 2 :], WORDY[:3],
        missing={"amount": 4}, rows=ROWS, says=("n.d.", "unknown"))  # fmt: skip
numbers("a spreadsheet's hash marks", with_placeholder("#####"), WORDY[:3], missing={"amount": 4},
        says=("amount", "###"))  # fmt: skip
numbers("a spreadsheet's errors", with_placeholder("#DIV/0!"), WORDY[:3], missing={"amount": 4},
        says=("amount", "DIV/0"))  # fmt: skip
for code in (-1, 99, 999, -999, 9999):
    low = [
        -1.0 if code == -1 and row % 9 == 0 else code if row % 9 == 0 else 20 + row % 37
        for row in range(ROWS)
    ]
    numbers(f"{code} may mean missing", low, [], values={}, says=("amount", rf"{code}\b"))
numbers("leading zeros are codes", ["01234", "09876", "00045", "10234"], [], values={}, used=(),
        types={"amount": "category"})  # fmt: skip
numbers("infinite ones", with_placeholder("inf"), [], values={}, used=(), says=("amount",))
numbers("huge ones", ["1e30", "2e29", "3e-28"], [1e30, 2e29, 3e-28], outcome="either", used=())
numbers("as quoted texts", ['"12"', '"7.5"', '"3"'], [], values={}, used=(), types={}, outcome="either",
        says=("amount",))  # fmt: skip

# ---- Kinds of column --------------------------------------------------------------------------

CODES = drawn([3, 7, 11, 20, 42])
LISTS = ["red", "red|blue", "blue|green", "green", "red|green|blue"]
for name, form in {
    "by bars": lambda tags: tags,
    "by semicolons": lambda tags: tags.replace("|", ";"),
    "by commas": lambda tags: tags.replace("|", ", "),
    "in brackets": lambda tags: f"[{tags.replace('|', ', ')}]",
    "as JSON": lambda tags: json.dumps(tags.split("|")),
    "as Python": lambda tags: str(tags.split("|")),
}.items():
    column(f"kinds: lists {name}", "tags", drawn([form(tags) for tags in LISTS]), parts={"tags": 1})
COORDINATES = [f"{48 + row * 0.01:.4f}, {2 + row * 0.013:.4f}" for row in range(ROWS)]
column("kinds: pairs of coordinates", "position", COORDINATES, parts={"position": 2})
column(
    "kinds: pairs in brackets",
    "position",
    [f"({pair})" for pair in COORDINATES],
    parts={"position": 2},
)
column(
    "kinds: pairs by a blank",
    "position",
    [pair.replace(",", "") for pair in COORDINATES],
    parts={"position": 2},
)
column("kinds: addresses", "link", [f"https://www.{host}/a/{row}" for row, host in enumerate(drawn(["x.com", "y.org", "z.net"]))],
       parts={"link": 1})  # fmt: skip
column(
    "kinds: codes by name",
    "region_code",
    CODES,
    types={"region_code": "category"},
    says=("region_code",),
)
column(
    "kinds: --category",
    "level",
    CODES,
    arguments=("--category", "level"),
    types={"level": "category"},
)
column("kinds: --category twice", "level", CODES, arguments=("--category", "level,age"),
       types={"level": "category", "age": "category"})  # fmt: skip
column("kinds: --number", "region_code", CODES, arguments=("--number", "region_code"),
       types={"region_code": "number"}, used=("region_code",))  # fmt: skip
column(
    "kinds: --drop",
    "level",
    CODES,
    arguments=("--drop", "level"),
    unused=("level",),
    used=("age", "spend"),
)
column(
    "kinds: --drop by the file's spelling",
    "My Level",
    CODES,
    arguments=("--drop", "My Level"),
    unused=("My Level",),
)
column("kinds: --drop of what is not there", "level", CODES, arguments=("--drop", "levle"), outcome="refused",
       says=("levle", "level"))  # fmt: skip
column("kinds: --category of what is not there", "level", CODES, arguments=("--category", "nothing"), outcome="refused",
       says=("nothing",))  # fmt: skip
column("kinds: --number of words", "level", drawn(["low", "mid", "high"]), arguments=("--number", "level"),
       outcome="refused", says=("level", "low|mid|high"))  # fmt: skip
column("kinds: two options for one column", "level", CODES, arguments=("--number", "level", "--drop", "level"),
       outcome="refused", says=("level",))  # fmt: skip
column("kinds: --drop of the label", "level", CODES, kind="binary", arguments=("--drop", "churned"), outcome="refused",
       says=("churned", "label"))  # fmt: skip
column("kinds: --drop of the rest", "level", CODES, kind="binary", arguments=("--drop", "level,age,spend,plan"),
       outcome="refused", says=("column",))  # fmt: skip
column(
    "kinds: booleans in words",
    "flag",
    ["TRUE", "FALSE", "True", "false"],
    types={"flag": "bool"},
    used=("flag",),
)
column("kinds: yes and no", "flag", ["Y", "N", "y", "n"], used=("flag",))
column("kinds: one value", "flag", ["x"], unused=("flag",), says=("flag",))
column("kinds: nothing at all", "flag", [""], unused=("flag",), says=("flag",))
SENTENCES = [
    f"the customer called about {row} things, and was {drawn(['glad', 'angry'])[row]}"
    for row in range(ROWS)
]
SCRIPTS = {"Chinese": "客户打电话询问第{}件事情,并且感到非常满意", "Japanese": "お客様は{}件の用件で電話をかけて、とても満足した。",
           "Thai": "ลูกค้าโทรมาสอบถามเรื่องที่ {} และรู้สึกพอใจมาก"}  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def by(unit: str) -> dict[str, Any]:
    """The facts of a column `note` of free text that a model reads by its words or its characters."""
    return {"used": ("note",), "types": {"note": "text"}, "says": (f"free text, read by its {unit}: note",),
            "params": {"features.catalogue.note": {"family": "entity", "encode": unit}}, "rows": ROWS}  # fmt: skip


for kind_ in LABEL:
    column(f"kinds: free text, {kind_}", "note", SENTENCES, kind_, **by("words"))
    for script, sentence in SCRIPTS.items():
        column(f"kinds: free text in {script}, {kind_}", "note", [sentence.format(row) for row in range(ROWS)],
               kind_, **by("characters"))  # fmt: skip
    for name, cells, reason in (
        ("nearly all missing", [text if row % 25 == 4 else "" for row, text in enumerate(SENTENCES)], "nearly no row"),
        ("one throughout", SENTENCES[:1], "same value"),
        ("short ones", [f"Town{row} Land{row % 40}" for row in range(ROWS)], "short texts"),
        ("JSON", [json.dumps({"shop": row, "note": "it came late"}) for row in range(ROWS)], "JSON"),
        ("numbers in words", [f"{UNITS[row % 7]} hundred and {TENS[row % 8]}-{UNITS[row % 9]}" for row in range(ROWS)],
         "numbers in words"),
    ):  # fmt: skip
        column(f"kinds: free text, {name}, {kind_}", "note", cells, kind_, unused=("note",),
               says=("note", reason), never=("free text",))  # fmt: skip
column("kinds: free text, three again and again", "note", SENTENCES[:3], used=("note",), types={"note": "category"},
       never=("free text",))  # fmt: skip
column("kinds: free text, with gaps", "note", [text if row % 3 else "" for row, text in enumerate(SENTENCES)],
       **by("words") | {"missing": {"note": 54}})  # fmt: skip
column("kinds: free text, lines, quotes and tags", "note", [f'<p>"{text}"</p>\r\n\tso\n' for text in SENTENCES],
       **by("words"))  # fmt: skip
column(
    "kinds: free text, a long one",
    "note",
    ["so it went on " * 9_000, *SENTENCES[1:]],
    **by("words"),
)
column("kinds: free text, --drop", "note", SENTENCES, arguments=("--drop", "note"), unused=("note",), never=("free text",),
       says=("note: left out, --drop",))  # fmt: skip
column("kinds: free text, --category", "note", SENTENCES, arguments=("--category", "note"), used=("note",),
       types={"note": "category"}, never=("free text",))  # fmt: skip
column("kinds: free text under a person's name", "full name", SENTENCES, unused=("full name",),
       says=("full_name", "personal"), never=("free text",))  # fmt: skip
column(
    "kinds: an id in every row",
    "ref",
    [f"A-{row:06}" for row in range(ROWS)],
    unused=("ref",),
    says=("ref",),
)
column("kinds: e-mail addresses", "contact", [f"p{row}@mail.example" for row in range(ROWS)], unused=("contact",),
       says=("contact", "personal"))  # fmt: skip
column("kinds: letters from abroad as categories", "city", ["München", "東京", "São Paulo", "Łódź"], used=("city",),
       types={"city": "category"}, values={"city": ["München", "東京", "São Paulo", "Łódź"]})  # fmt: skip
column(
    "kinds: NA may be Namibia",
    "country",
    ["NA", "DE", "FR"],
    types={"country": "category"},
    says=(),
)
column(
    "kinds: quotes, commas and line ends in values",
    "note",
    ['a "b"', "c, d", "e\nf", "g;h"],
    rows=ROWS,
)

# ---- Labels -----------------------------------------------------------------------------------


def labelled(name: str, labels: list[Any], kind: str = "binary", **facts: Any) -> None:
    """A case of an awkward label; the words of missing ones again and again."""
    made = of_kind(table(), kind)
    made[LABEL[kind]] = labels
    add(f"labels: {name}", put("rows.csv", lines(made)), kind=kind, **facts)


ANSWERS, PRICES = table()["churned"], table()["price"]
for placeholder in (
    "NA",
    "n/a",
    "null",
    "",
    "NaN",
    "None",
    "N/A",
    "#N/A",
    "#DIV/0!",
    "#NAME?",
    "####",
    " ",
):
    holed = [placeholder if row % 8 == 0 else answer for row, answer in enumerate(ANSWERS)]
    yes = holed.count("yes")
    labelled(f"{placeholder!r} among yes and no", holed, labelled=140, positives=yes)
    labelled(
        f"{placeholder!r} with --positive",
        holed,
        arguments=("--positive", "yes"),
        labelled=140,
        positives=yes,
    )
    labelled(f"{placeholder!r} among prices", [placeholder if row % 8 == 0 else price for row, price in enumerate(PRICES)],
             kind="regression", labelled=140)  # fmt: skip
for name, spell in {"1 and 0": ("1", "0"), "1.0 and 0.0": ("1.0", "0.0"), "TRUE and FALSE": ("TRUE", "FALSE"), "Yes and No": ("Yes ", " No"),
                    "Y and N": ("Y", "N"), "ja and nein": ("ja", "nein"), "good and bad": ("bad", "good")}.items():  # fmt: skip
    arguments = ("--positive", spell[0].strip()) if name in ("ja and nein", "good and bad") else ()
    labelled(name, [spell[answer == "no"] for answer in ANSWERS], arguments=arguments, labelled=ROWS,
             positives=ANSWERS.count("yes"))  # fmt: skip
labelled(
    "positive in another case",
    ANSWERS,
    arguments=("--positive", "YES"),
    positives=ANSWERS.count("yes"),
)
labelled("a positive that is not there", ANSWERS, arguments=("--positive", "maybe"), outcome="refused",
         says=("--positive", "maybe", "yes", "no"))  # fmt: skip
labelled("three values and no --positive", drawn(["yes", "no", "maybe"]), outcome="refused",
         says=("churned", "--positive"))  # fmt: skip
labelled(
    "three values and --positive",
    drawn(["yes", "no", "maybe"]),
    arguments=("--positive", "yes"),
    labelled=ROWS,
)
labelled(
    "all the same", ["yes"] * ROWS, outcome="refused", says=("churned", "single value|one value")
)
labelled("all missing", [""] * ROWS, outcome="refused", says=("churned",))
labelled(
    "all missing, a number", [""] * ROWS, kind="regression", outcome="refused", says=("price",)
)
labelled(
    "one price throughout",
    [7.5] * ROWS,
    kind="regression",
    outcome="refused",
    says=("price", "7.5"),
)
labelled("a single positive", ["yes" if row == 7 else "no" for row in range(ROWS)], outcome="either",
         says=("churned|label", r"\b1\b|single|one"))  # fmt: skip
labelled("three positives", ["yes" if row % 60 == 7 else "no" for row in range(ROWS)], outcome="either",
         says=("churned|label", r"\b3\b|three|few"))  # fmt: skip
labelled(
    "prices in dollars", [f"${price:,.2f}" for price in PRICES], kind="regression", labelled=ROWS
)
labelled("prices with a few words", ["n.d." if row % 40 == 3 else price for row, price in enumerate(PRICES)],
         kind="regression", labelled=156, says=("n.d.",))  # fmt: skip
labelled("words for a number", drawn(["low", "mid", "high"]), kind="regression", outcome="refused",
         says=("price", "number", "low|mid|high"))  # fmt: skip
labelled(
    "a number for yes or no",
    PRICES,
    outcome="refused",
    says=("churned", "--positive|regression|number"),
)
labelled("infinite prices", ["inf" if row % 40 == 3 else price for row, price in enumerate(PRICES)], kind="regression",
         outcome="either", says=("price",))  # fmt: skip
CLASSES = table()["topic"]
for placeholder in ("NA", "n/a", "", "None", "#N/A", " "):
    labelled(f"{placeholder!r} among classes", [placeholder if row % 8 == 0 else topic for row, topic in enumerate(CLASSES)],
             kind="multiclass", labelled=140)  # fmt: skip
for name, spell in {"numbers": ("1", "2", "3"), "decimals": ("1.0", "2.0", "3.0"),
                    "blanks around": (" billing", "outage ", "a question"), "quotes": ('a "b"', "c, d", "e: [f]"),
                    "letters from abroad": ("München", "東京", "Łódź"), "yes, no and maybe": ("yes", "no", "maybe"),
                    "words of YAML": ("null: 1", "~x", "- off"), "words that are columns": ("age", "plan", "score"),
                    "signs": ("<b>x</b>", "a|b", "{{ c }}"), "length": ("a" * 500, "b" * 500, "c" * 500)}.items():  # fmt: skip
    labelled(f"classes in {name}", [spell[TOPICS.index(topic)] for topic in CLASSES], kind="multiclass",
             labelled=ROWS)  # fmt: skip
labelled("classes in three spellings of one", [("Billing", "BILLING", "billing ")[TOPICS.index(topic)] for topic in CLASSES],
         kind="multiclass", outcome="refused", says=("topic", "single value"))  # fmt: skip
labelled("classes, some of them rare", [f"rare {row}" if row % 12 == 3 else topic for row, topic in enumerate(CLASSES)],
         kind="multiclass", labelled=ROWS, says=("14 rarest", "other"))  # fmt: skip
labelled("classes, a few of them rare", [f"rare {row}" if row in (3, 50, 90) else topic for row, topic in enumerate(CLASSES)],
         kind="multiclass", outcome="refused", says=("topic", "rare 3", "collect|leave"))  # fmt: skip
labelled("classes, one of a single row", ["lonely" if row == 3 else topic for row, topic in enumerate(CLASSES)],
         kind="multiclass", outcome="either", says=("lonely",))  # fmt: skip
labelled(
    "one class",
    ["billing"] * ROWS,
    kind="multiclass",
    outcome="refused",
    says=("topic", "single value|one value"),
)
labelled("two classes", [topic if topic != "outage" else "billing" for topic in CLASSES], kind="multiclass",
         outcome="either", says=("topic", "binary|two|2"))  # fmt: skip
labelled("no class", [""] * ROWS, kind="multiclass", outcome="refused", says=("topic",))
labelled("a class for each row", [f"c{row}" for row in range(ROWS)], kind="multiclass", outcome="refused",
         says=("topic", "160|each|many|rare"))  # fmt: skip
labelled(
    "prices for classes",
    PRICES,
    kind="multiclass",
    outcome="refused",
    says=("topic", "regression|number"),
)
labelled("--positive for classes", CLASSES, kind="multiclass", arguments=("--positive", "billing"), outcome="refused",
         says=("--positive", "class"))  # fmt: skip
labelled("--positive for a number", PRICES, kind="regression", arguments=("--positive", "1"), outcome="refused",
         says=("--positive", "number"))  # fmt: skip
for rows_ in (1, 2, 5, 10):
    for kind_ in LABEL:
        add(f"labels: {rows_} rows, {kind_}", put("rows.csv", lines(of_kind(table(rows_), kind_))), kind=kind_,
            outcome="either", says=(r"\brows\b.*(few|least|more|need)|single value|one row",))  # fmt: skip
column(
    "labels: a group of one value",
    "team",
    ["a"],
    arguments=("--group", "team"),
    outcome="refused",
    says=("team",),
)
column("labels: a group with a value in every row", "team", [f"t{row}" for row in range(ROWS)], arguments=("--group", "team"),
       outcome="either", says=("team",))  # fmt: skip
column("labels: a group with missing values", "team", [*[f"t{row}" for row in range(15)], ""], arguments=("--group", "team"),
       says=("team",), labelled=ROWS, missing={"team": 10})  # fmt: skip
column(
    "labels: a group of two values",
    "team",
    ["a", "b"],
    arguments=("--group", "team"),
    outcome="either",
    says=("team",),
)
add("labels: two columns with the label's name", put("rows.csv", lines(of_kind(table(), "binary")).replace(
    "age,", "churned,", 1)), kind="binary", outcome="refused", says=("churned", "two|twice|2"))  # fmt: skip
add("labels: two columns that differ by case", put("rows.csv", lines(of_kind(table(), "binary")).replace(
    "age,", "Churned,", 1)), kind="binary", labelled=ROWS, positives=ANSWERS.count("yes"))  # fmt: skip
add("labels: no such column", put("rows.csv", lines(of_kind(table(), "binary"))), kind="binary",
    arguments=("--label", "churn"), outcome="refused", says=("churn", "churned"))  # fmt: skip
add("labels: the label as time too", put("rows.csv", lines(of_kind(table(), "binary"))), kind="binary",
    arguments=("--time", "churned"), outcome="refused", says=("--time", "label"))  # fmt: skip
LARGE_IDS = [2**53 + 1 + row for row in range(ROWS)]
column("labels: ids beyond 2^53", "customer_id", LARGE_IDS, values={"customer_id": [str(customer) for customer in LARGE_IDS[:4]]},
       unused=("customer_id",))  # fmt: skip
column("labels: groups beyond 2^53", "customer", [2**60 + row // 4 for row in range(ROWS)], arguments=("--group", "customer"),
       values={"customer": [str(2**60), str(2**60), str(2**60), str(2**60), str(2**60 + 1)]})  # fmt: skip
column("labels: the label again in other words", "outcome", ["lost" if answer == "yes" else "kept" for answer in ANSWERS],
       kind="binary", unused=("outcome",), says=("outcome",))  # fmt: skip

# ---- Delay ------------------------------------------------------------------------------------

DAYS = [f"{moment:%Y-%m-%d}" for moment in MOMENTS]
KNOWN_DAYS = [
    f"{shifted(moment, 24 * (3 + row % 3)):%Y-%m-%d}" for row, moment in enumerate(MOMENTS)
]


def delayed(name: str, arguments: tuple[str, ...], **facts: Any) -> None:
    made = of_kind(table(), "binary") | {"when": DAYS, "known": KNOWN_DAYS}
    add(
        f"delay: {name}",
        put("rows.csv", lines(made)),
        kind="binary",
        arguments=("--time", "when", *arguments),
        **facts,
    )


delayed("not known", ("--drop", "known"), says=("delay",), params={"data.label.delay_days": None})
delayed("given", ("--drop", "known", "--delay", "7"), params={"data.label.delay_days": 7})
delayed(
    "given as a fraction",
    ("--drop", "known", "--delay", "0.5"),
    params={"data.label.delay_days": 0.5},
)
delayed("measured", ("--label-time", "known"), says=("delay", r"\b[345](\.\d+)?\b"),
        params={"data.label.time": "known"}, unused=("known",))  # fmt: skip
delayed(
    "measured and given",
    ("--label-time", "known", "--delay", "30"),
    outcome="either",
    says=("delay",),
)
delayed("negative", ("--delay", "-1"), outcome="refused", says=("delay", "-1"))
delayed(
    "a time that is not there",
    ("--label-time", "knwon"),
    outcome="refused",
    says=("knwon", "known"),
)
delayed(
    "a label time that is none", ("--label-time", "plan"), outcome="refused", says=("plan", "time")
)
delayed(
    "the event's time as the label's",
    ("--label-time", "when"),
    outcome="either",
    says=("when|label-time",),
)
KNOWN_BEFORE = of_kind(table(), "binary") | {"when": KNOWN_DAYS, "known": DAYS}
add("delay: known before the event", put("rows.csv", lines(KNOWN_BEFORE)), kind="binary",
    arguments=("--time", "when", "--label-time", "known"), outcome="either", says=("known|delay", "before|earlier|negative"))  # fmt: skip

# ---- Parts that add up to the label -----------------------------------------------------------


def summed(name: str, parts: Table, **facts: Any) -> None:
    made = of_kind(table(), "regression")
    made["price"] = [round(sum(row), 2) for row in zip(*parts.values(), strict=True)]
    if name.startswith("a rest"):
        made["price"] = [
            round(row[0] - sum(row[1:]), 2) for row in zip(*parts.values(), strict=True)
        ]
    facts = {"unused": tuple(parts), "says": tuple(parts), **facts}
    add(f"sums: {name}", put("rows.csv", lines(made | parts)), kind="regression", **facts)


PART = {
    seed: [round(random.Random(seed * 1000 + row).expovariate(0.02), 2) for row in range(ROWS)]
    for seed in range(1, 5)
}
summed("two parts", {"casual": PART[1], "registered": PART[2]})
summed("three parts", {"rent": PART[1], "food": PART[2], "other": PART[3]})
summed("four parts", {"q1": PART[1], "q2": PART[2], "q3": PART[3], "q4": PART[4]})
summed("a rest", {"total": [value + 100 for value in PART[1]], "discount": PART[2]})
summed(
    "whole numbers",
    {
        "casual": [row % 17 for row in range(ROWS)],
        "registered": [row * 7 % 41 for row in range(ROWS)],
    },
)

# ---- Files ------------------------------------------------------------------------------------


def sheet(made: Table) -> str:
    """A worksheet of Excel: numbers as numbers, all else as inline texts."""
    body = []
    for row in [list(made), *zip(*made.values(), strict=True)]:
        cells = [
            f"<c><v>{value}</v></c>" if isinstance(value, int | float)
            else f'<c t="inlineStr"><is><t>{escape(str(value))}</t></is></c>'
            for value in row
        ]  # fmt: skip
        body.append(f"<row>{''.join(cells)}</row>")
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return f'<worksheet xmlns="{space}"><sheetData>{"".join(body)}</sheetData></worksheet>'


def excel(name: str, *sheets: Table) -> Callable[[Path], Path]:
    """Writes a workbook."""
    base = "http://schemas.openxmlformats.org"
    kinds = f"{base}/officeDocument/2006/relationships"
    sheet_numbers = range(1, len(sheets) + 1)
    listed = "".join(f'<sheet name="S{n}" sheetId="{n}" r:id="r{n}"/>' for n in sheet_numbers)
    related = "".join(
        f'<Relationship Id="r{n}" Type="{kinds}/worksheet" Target="worksheets/sheet{n}.xml"/>'
        for n in sheet_numbers
    )
    typed = "".join(
        f'<Override PartName="/xl/worksheets/sheet{n}.xml" ContentType="application/vnd.'
        f'openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>'
        for n in sheet_numbers
    )
    files = {
        "[Content_Types].xml": f'<Types xmlns="{base}/package/2006/content-types"><Default Extension="rels" '
        f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" '
        f'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>{typed}</Types>',
        "_rels/.rels": f'<Relationships xmlns="{base}/package/2006/relationships"><Relationship Id="r0" '
        f'Type="{kinds}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{base}/spreadsheetml/2006/main" xmlns:r="{kinds}"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{base}/package/2006/relationships">{related}</Relationships>',
        **{f"xl/worksheets/sheet{n}.xml": sheet(worksheet) for n, worksheet in zip(sheet_numbers, sheets, strict=True)},
    }  # fmt: skip
    return zipped(name, files)


def zipped(name: str, files: dict[str, str | bytes]) -> Callable[[Path], Path]:
    """Writes an archive."""

    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as out:
            for inner, content in files.items():
                out.writestr(inner, content)
        return folder / name

    return make


def parquet(query: str, name: str = "rows.parquet") -> Callable[[Path], Path]:
    """Writes what a query makes of the table, which it calls `rows`."""

    def make(folder: Path) -> Path:
        import duckdb

        put("plain.csv", lines(table()))(folder)
        rows = f"(FROM read_csv('{folder}/plain.csv'))"
        duckdb.execute(f"COPY ({query.format(rows=rows)}) TO '{folder}/{name}' (FORMAT parquet)")
        (folder / "plain.csv").unlink()
        return folder / name

    return make


def several(files: dict[str, str | bytes], pointed: str) -> Callable[[Path], Path]:
    """Writes some files into a folder of their own, and points at that, at a glob or at one."""

    def make(folder: Path) -> Path:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            put(name, content)(folder)
        return folder / pointed

    return make


def objects(made: Table) -> list[dict[str, Any]]:
    return [dict(zip(made, row, strict=True)) for row in zip(*made.values(), strict=True)]


YES_NO = of_kind(table(), "binary")
PLAIN, PRICED = lines(YES_NO), lines(of_kind(table(), "regression"))
JSONL = "".join(json.dumps(row) + "\n" for row in objects(YES_NO))
HALF = ROWS // 2
HALVES = [lines({name: values[part] for name, values in YES_NO.items()})
          for part in (slice(HALF), slice(HALF, None))]  # fmt: skip
LOOSE: dict[str, Any] = {
    "outcome": "either", "rows": None, "labelled": None, "positives": None, "values": {}, "used": (),
}  # fmt: skip
RIGHT: dict[str, Any] = {
    "kind": "binary", "rows": ROWS, "labelled": ROWS, "positives": ANSWERS.count("yes"),
    "used": ("age", "spend", "plan"), "values": {"age": YES_NO["age"][:5], "plan": YES_NO["plan"][:5]},
}  # fmt: skip


def file(name: str, make: Callable[[Path], Path], **facts: Any) -> None:
    """A case of a file that holds the plain table in some form."""
    add(f"files: {name}", make, **{**RIGHT, **facts})


def no_file(name: str, make: Callable[[Path], Path], *says: str, **facts: Any) -> None:
    """A case of what cannot be read."""
    add(f"files: {name}", make, kind="binary", outcome="refused", says=says, **facts)


for end, title in {"\n": "LF", "\r\n": "CRLF", "\r": "CR"}.items():
    file(f"lines end with {title}", put("rows.csv", lines(YES_NO, end=end)))
for mark, title in {
    ",": "commas",
    ";": "semicolons",
    "\t": "tabs",
    "|": "bars",
    "^": "carets",
}.items():
    file(f"split by {title}", put("rows.txt", lines(YES_NO, delimiter=mark)))
file("every value in quotes", put("rows.csv", lines(YES_NO, quoting=csv.QUOTE_ALL)))
file("an ending in capitals", put("ROWS.CSV", PLAIN))
file("no ending", put("rows", PLAIN))
file("an ending of another kind", put("rows.data", PLAIN))
file("a name with blanks, quotes and brackets", put("my 'rows' [1] (é) *.csv", PLAIN))
file("a mark of UTF-8", put("rows.csv", PLAIN, "utf-8-sig"))
file("no line end at the end", put("rows.csv", PLAIN.rstrip("\n")))
file("empty lines at the end", put("rows.csv", PLAIN + "\n\n\n"))
file("a comma at the end of each line", put("rows.csv", PLAIN.replace("\n", ",\n")))
file("UTF-16 with a mark", put("rows.csv", PLAIN, "utf-16"), outcome="either", says=())
for name, code in {"UTF-16 without a mark": "utf-16-le", "UTF-16 with the high byte first": "utf-16-be",
                   "UTF-32": "utf-32"}.items():  # fmt: skip
    file(name, put("rows.csv", PLAIN, code), outcome="either", says=())
CITIES = lines(YES_NO | {"city": cycled("München", "Zürich", "Köln")})
for code in ("latin-1", "cp1252", "mac-roman"):
    file(f"{code}", put("rows.csv", CITIES, code), outcome="either", says=())
file("gzip", put("rows.csv.gz", gzip.compress(PLAIN.encode())))
file("gzip without its ending", put("rows.csv", gzip.compress(PLAIN.encode())))
file("zip", zipped("rows.zip", {"rows.csv": PLAIN}))
file("zip made on a Mac", zipped("rows.zip", {"rows.csv": PLAIN, "__MACOSX/._rows.csv": b"x"}))
file("bzip2", put("rows.csv.bz2", bz2.compress(PLAIN.encode())), outcome="either", says=())
file("xz", put("rows.csv.xz", lzma.compress(PLAIN.encode())), outcome="either", says=())
file("JSON lines", put("rows.jsonl", JSONL))
file("JSON lines, another ending", put("rows.ndjson", JSONL))
file("JSON lines that end in .json", put("rows.json", JSONL))
file("a JSON array", put("rows.json", json.dumps(objects(YES_NO))))
file("a JSON array in many lines", put("rows.json", json.dumps(objects(YES_NO), indent=2)))
file("a JSON array inside an object", put("rows.json", json.dumps({"meta": 1, "data": objects(YES_NO)})),
     outcome="either", says=())  # fmt: skip
file("packed JSON lines", put("rows.jsonl.gz", gzip.compress(JSONL.encode())))
file("JSON lines that lack keys", put("rows.jsonl", "".join(
    json.dumps({key: value for key, value in row.items() if turn % 5 or key != "spend"}) + "\n"
    for turn, row in enumerate(objects(YES_NO)))), missing={"spend": 32})  # fmt: skip
file("JSON lines with true, null and numbers", put("rows.jsonl", "".join(
    json.dumps({**row, "flag": turn % 2 == 0, "spend": row["spend"] if turn % 4 else None}) + "\n"
    for turn, row in enumerate(objects(YES_NO)))), missing={"spend": 40})  # fmt: skip
file("JSON lines with objects inside", put("rows.jsonl", "".join(
    json.dumps({"age": row["age"], "spend": row["spend"], "who": {"plan": row["plan"]}, "churned": row["churned"]}) + "\n"
    for row in objects(YES_NO))), used=("age", "spend"), values={"age": YES_NO["age"][:5]})  # fmt: skip
file("Parquet", parquet("SELECT * EXCLUDE price FROM {rows}"))
file("Parquet without its ending", parquet("SELECT * EXCLUDE price FROM {rows}", "rows.bin"))
file(
    "Parquet that ends in .csv",
    parquet("SELECT * EXCLUDE price FROM {rows}", "rows.csv"),
    outcome="either",
    says=(),
)
file("Parquet with decimals and small types", parquet(
    "SELECT * EXCLUDE price REPLACE (CAST(age AS UTINYINT) AS age, CAST(spend AS DECIMAL(18, 2)) AS spend) FROM {rows}"))  # fmt: skip
file("Parquet with lists and structs", parquet(
    "SELECT * EXCLUDE price, [age, 1] AS nested, {{'a': age}} AS inner FROM {rows}"))  # fmt: skip
file("Parquet with times in a zone", parquet(
    "SELECT * EXCLUDE price, TIMESTAMPTZ '2026-01-05 10:00:00+02' + to_days(CAST(row_number() OVER () AS INT)) AS \"when\" FROM {rows}"),
    arguments=("--time", "when"), values={"when": [datetime(2026, 1, 6 + row, 8, tzinfo=UTC).timestamp() for row in range(4)]})  # fmt: skip
file("Parquet with a time of day and an interval", parquet(
    "SELECT * EXCLUDE price, TIME '10:00' AS clock, BLOB 'x' AS bytes FROM {rows}"))  # fmt: skip
file("Parquet with enums and booleans", parquet(
    "SELECT * EXCLUDE (price, churned), churned = 'yes' AS churned FROM {rows}"))  # fmt: skip
file("a folder", several({"in/a.csv": HALVES[0], "in/b.csv": HALVES[1]}, "in"))
file("a folder with other files in it", several({"in/a.csv": HALVES[0], "in/b.csv": HALVES[1], "in/README.md": "x",
     "in/.DS_Store": b"\x00"}, "in"))  # fmt: skip
file(
    "a glob",
    several({"in/a.csv": HALVES[0], "in/b.csv": HALVES[1], "in/c.txt": "nothing"}, "in/*.csv"),
)
file("a folder of JSON lines", several({"in/a.jsonl": JSONL}, "in"))
file("columns in another order in the second file", several({"in/a.csv": HALVES[0], "in/b.csv": lines(
    {name: YES_NO[name][HALF:] for name in ("churned", "plan", "spend", "age")})}, "in"))  # fmt: skip
file("a column that the second file lacks", several({"in/a.csv": HALVES[0], "in/b.csv": lines(
    {name: YES_NO[name][HALF:] for name in ("age", "plan", "churned")})}, "in"),
     outcome="either", says=(), missing={})  # fmt: skip
file(
    "a title above the names",
    put("rows.csv", f"Customers of 2026\n\n{PLAIN}"),
    outcome="either",
    says=(),
)
file(
    "comments above the names",
    put("rows.csv", f"# exported on Monday\n# by nobody\n{PLAIN}"),
    outcome="either",
    says=(),
)
file("a line with too many values", put("rows.csv", PLAIN.replace("\n", "\n1,2,free,no,9,9,9\n", 1)),
     **LOOSE, says=("line|row",))  # fmt: skip
file(
    "a line with too few values",
    put("rows.csv", PLAIN + "44,12.5\n"),
    **LOOSE,
    says=("line|row|label",),
)
file(
    "a line of totals at the end",
    put("rows.csv", PLAIN + "Total,,,\n"),
    **LOOSE,
    says=("age|total",),
)
file(
    "a null byte inside",
    put("rows.csv", PLAIN.replace("free", "fr\x00ee", 1)),
    **LOOSE,
)
file(
    "a value of a hundred kilobytes",
    put("rows.csv", lines(YES_NO | {"note": ["x" * 100_000, *["y"] * (ROWS - 1)]})),
)
file("a quote that never ends", put("rows.csv", PLAIN.replace("free", '"free', 1)), **LOOSE)
for name, book in {"Excel": excel("rows.xlsx", YES_NO), "Excel without its ending": excel("rows", YES_NO),
                   "Excel with two sheets": excel("rows.xlsx", YES_NO, {"a": [1]})}.items():  # fmt: skip
    file(name, book, needs="python_calamine")
no_file("empty", put("rows.csv", ""), "rows.csv", "empty")
no_file("blank lines alone", put("rows.csv", "\n\n\n"), "rows.csv")
no_file("names and no rows", put("rows.csv", "age,plan,churned\n"), "rows.csv", "no rows")
no_file("no names", put("rows.csv", PLAIN.partition("\n")[2]), "rows.csv|churned", "name|column")
no_file("not here", lambda folder: folder / "nowhere.csv", "nowhere.csv")
no_file("a glob that fits nothing", lambda folder: folder / "*.nothing", r"\*\.nothing")
no_file("an empty folder", several({"in/.hidden": b""}, "in"), "in")
no_file("a folder of other things", several({"in/README.md": "x"}, "in"), "in")
no_file(
    "two files in one zip",
    zipped("rows.zip", {"a.csv": PLAIN, "b.csv": PLAIN}),
    "rows.zip",
    "2 files|two",
)
no_file("an empty zip", zipped("rows.zip", {}), "rows.zip", "empty")
no_file("a zip cut short", lambda folder: put("rows.zip", zipped("x.zip", {"rows.csv": PLAIN})(folder).read_bytes()[:900])(folder),
        "rows.zip")  # fmt: skip
no_file("a gzip cut short", put("rows.csv.gz", gzip.compress(PLAIN.encode())[:-200]), "rows.csv.gz")
no_file("a Parquet cut short", lambda folder: put("cut.parquet", parquet("FROM {rows}")(folder).read_bytes()[:-50])(folder),
        "cut.parquet")  # fmt: skip
no_file("a Parquet that is text", put("rows.parquet", PLAIN), "rows.parquet", "csv")
no_file(
    "a web page",
    put("rows.csv", "<!DOCTYPE html><html><body>Sign in</body></html>"),
    "rows.csv",
    "page|html",
)
no_file("a PDF", put("rows.csv", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj"), "rows.csv", "pdf")
no_file("a picture", put("rows.csv", b"\x89PNG\r\n\x1a\n" + bytes(200)), "rows.csv")
no_file("a pickle", put("rows.pkl", b"\x80\x04\x95\x10" + bytes(100)), "rows.pkl")
no_file("bytes of no kind", put("rows.csv", bytes(range(128, 256)) * 40), "rows.csv")
no_file(
    "JSON that ends too soon",
    put("rows.json", json.dumps(objects(YES_NO))[:-40]),
    "rows.json",
    "json",
)
no_file(
    "a JSON line that is none", put("rows.jsonl", JSONL + "{oops\n"), "rows.jsonl", "json|line|row"
)
no_file("JSON of numbers", put("rows.json", "[1, 2, 3]"), "rows.json")
no_file("JSON by columns", put("rows.json", json.dumps(YES_NO)), "rows.json", "row|object|list")
no_file("an empty JSON array", put("rows.json", "[]"), "rows.json", "no rows|empty")
no_file("CSV and Parquet together", lambda folder: (several({"in/a.csv": PLAIN}, "in")(folder), parquet(
    "SELECT * EXCLUDE price FROM {rows}", "in/b.parquet")(folder), folder / "in")[2], "parquet")  # fmt: skip

# ---- Wide -------------------------------------------------------------------------------------

# In more sets than one of those that are worked on together, in `adopt` and in `collect`
add("wide: 450 columns", named([f"sensor_{number}" for number in range(450)], "regression"), kind="regression",
    rows=ROWS)  # fmt: skip


# ---- Running them -----------------------------------------------------------------------------


def check(case: Case, project: Path, folder: Path) -> dict[str, Any]:
    """Adopt one file in a copy of a project's settings; what is wrong, and what was said."""
    root = folder / "project"
    root.mkdir(parents=True)
    before = (project / "params.yaml").read_bytes()
    (root / "params.yaml").write_bytes(before)
    path = case.make(folder)
    arguments = ["adopt", str(path), *case.arguments]
    arguments += [] if "--label" in arguments else ["--label", LABEL[case.kind]]
    start = time.perf_counter()
    output, refusal, crash = called(root, *arguments)
    seconds = time.perf_counter() - start
    wrong = [f"crashed: {crash}"] if crash else []
    outcome = "refused" if refusal else "works"
    expected, says = case.outcome, case.says
    if case.needs and not _is_installed(case.needs):
        expected, says = "refused", ("uv sync",)
    report = " ".join((refusal or output).split())  # however wide the terminal is
    if not crash:
        if expected not in (outcome, "either"):
            wrong.append(f"{outcome}, where it should be {expected}")
        wrong += [
            f"does not say /{pattern}/" for pattern in says if not re.search(pattern, report, re.I)
        ]
        wrong += [f"says /{pattern}/" for pattern in case.never if re.search(pattern, report, re.I)]
        if match := INSIDE.search(report.replace(str(folder), "")):
            wrong.append(f"a word from inside: {match[0]!r}")
    if refusal:
        wrong += refused_well(refusal, path, case)
    if refusal or crash:
        if (root / "params.yaml").read_bytes() != before:
            wrong.append("params.yaml changed")
    elif outcome == expected or expected == "either":
        wrong += facts(case, root)
    return {"name": case.name, "wrong": wrong, "seconds": round(seconds, 2), "outcome": outcome,
            "words": arguments[1:], "said": report[-3000:]}  # fmt: skip


def called(root: Path, *arguments: str) -> tuple[str, str, str]:
    """What a command said, its refusal and its crash, in this process and inside a project."""
    from my_model.settings import UserError

    out, previous_folder = io.StringIO(), Path.cwd()
    os.chdir(root)
    try:
        with contextlib.redirect_stdout(out):
            _command().main(list(arguments), standalone_mode=False)
    except UserError as error:
        return out.getvalue(), str(error), ""
    except (Exception, SystemExit) as error:
        if hasattr(
            error, "format_message"
        ):  # of the command line itself, such as an unknown option
            return out.getvalue(), f"{' '.join(arguments[2:])}: {error.format_message()}", ""
        frames = traceback.format_exc().strip().splitlines()[-3:]
        return (
            out.getvalue(),
            "",
            f"{type(error).__name__}: {error!s:.300} {' '.join(frames)!s:.300}",
        )
    finally:
        os.chdir(previous_folder)
    return out.getvalue(), "", ""


@functools.cache
def _command() -> Any:
    """The command line, made once: that takes a third of a short command's time."""
    from my_model.__main__ import find_commands
    from typer.main import get_command

    return get_command(find_commands())


def _is_installed(library: str) -> bool:
    from importlib.util import find_spec

    return find_spec(library) is not None


def refused_well(refusal: str, path: Path, case: Case) -> list[str]:
    """One line, not too long, that says where."""
    wrong = []
    if len(refusal.splitlines()) != 1:
        wrong.append(f"{len(refusal.splitlines())} lines")
    if len(refusal) > 900:
        wrong.append(f"{len(refusal)} characters")
    locations = [path.name, path.stem, "--", "params.yaml", *case.arguments]
    if not any(location in refusal for location in locations):
        wrong.append("does not say where")
    if "no such option" in refusal.lower():
        wrong.append("an option is missing")
    return wrong


def facts(case: Case, root: Path) -> Iterator[str]:
    """What does not hold of the settings and of the rows after collect, label and split."""
    from ruamel.yaml import YAML

    tree = YAML(typ="safe").load((root / "params.yaml").read_text(encoding="utf-8"))
    yield from facts_of_settings(case, tree)
    for stage in ("collect", "label", "split"):
        output, refusal, crash = called(root, stage)
        if problem := refusal or crash:
            if case.outcome == "works":
                yield f"{stage} stopped after adopt: {problem:.300}"
            elif INSIDE.search(problem):
                yield f"{stage} stopped with a word from inside: {problem:.300}"
            return
        if INSIDE.search(output):
            yield f"{stage}: a word from inside"
    yield from facts_of_rows(case, tree, root)


def column_of(heading: str, tree: Any) -> str | None:
    """The project's name of a heading."""
    columns = tree["data"]["schema"]["columns"]
    for normalized in (lambda text: text, lambda text: " ".join(str(text).split()).casefold()):
        for name, rule in columns.items():
            if "part" not in rule and normalized(rule.get("source", name)) == normalized(heading):
                return str(name)
    return None


def facts_of_settings(case: Case, tree: Any) -> Iterator[str]:
    columns, catalogue = tree["data"]["schema"]["columns"], tree["features"]["catalogue"]
    features = {
        raw
        for name, rule in catalogue.items()
        if rule.get("use", True) and rule.get("known", True)
        for raw in rule.get("cross", [name])
    }
    for heading, type_ in case.types.items():
        name = column_of(heading, tree)
        if (is_ := columns.get(name, {}).get("type")) != type_:
            yield f"{heading!r} is a {is_}, not a {type_}"
    unseen = [heading for heading in case.used if column_of(heading, tree) not in features]
    if unseen:
        yield f"the model does not see {unseen[:8]}"
    leaked = [heading for heading in case.unused if column_of(heading, tree) in features]
    if leaked:
        yield f"the model sees {leaked}"
    for heading, minimum in case.parts.items():
        made = [
            name
            for name, rule in columns.items()
            if rule.get("source") == heading and rule.get("part") and name in features
        ]
        if len(made) < minimum:
            yield f"{len(made)} columns that the model sees are taken from {heading!r}"
    for key, value in case.params.items():
        block = tree
        for part in key.split("."):
            block = block[part]
        if block != value:
            yield f"{key} is {block!r}, not {value!r}"


def facts_of_rows(case: Case, tree: Any, root: Path) -> Iterator[str]:
    import duckdb

    events = duckdb.execute("FROM read_parquet(?)", [str(root / "data/raw/events.parquet")])
    names = [entry[0] for entry in events.description]
    rows = events.fetchall()
    if case.rows is not None and len(rows) != case.rows:
        yield f"{len(rows)} rows kept, not {case.rows}"
    for heading, values in case.values.items():
        name = column_of(heading, tree)
        if name not in names:
            yield f"{heading!r} is not among the rows"
            continue
        cells = [plain(row[names.index(name)]) for row in rows[: len(values)]]
        if not all(
            alike(actual, expected) for actual, expected in zip(cells, values, strict=False)
        ):
            yield f"{heading!r} holds {cells[:4]}, not {values[:4]}"
    for heading, count in case.missing.items():
        name = column_of(heading, tree)
        absent = sum(row[names.index(name)] is None for row in rows) if name in names else -1
        if absent != count:
            yield f"{absent} values of {heading!r} are missing, not {count}"
    query = "SELECT count(*), sum(_y) FROM read_parquet(?)"
    (counts,) = duckdb.execute(query, [str(root / "data/labelled.parquet")]).fetchall()
    if case.labelled is not None and counts[0] != case.labelled:
        yield f"{counts[0]} rows have a label, not {case.labelled}"
    if case.positives is not None and counts[1] != case.positives:
        yield f"{counts[1]} rows are positive, not {case.positives}"


def plain(value: Any) -> Any:
    """A time in seconds, all else as it is."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
    return value


def alike(actual: Any, expected: Any) -> bool:
    if isinstance(actual, int | float) and isinstance(expected, int | float):
        return math.isclose(actual, expected, rel_tol=1e-9, abs_tol=1e-9)
    return str(actual) == str(expected)


def main(project: Path, folder: Path, prefixes: list[str]) -> None:
    """A line of JSON for each case of the project's kind."""
    from ruamel.yaml import YAML

    text = (project / "params.yaml").read_text(encoding="utf-8")
    kind = YAML(typ="safe").load(text)["project"]["problem"]
    for position, case in enumerate(CASES):
        case_kind = kind_for(case.name, case.kind)
        if case_kind != kind or not case.name.startswith(tuple(prefixes) or ""):
            continue
        case_folder = folder / str(position)
        shutil.rmtree(case_folder, ignore_errors=True)
        case_folder.mkdir(parents=True)
        resolved = Case(**{**case.__dict__, "kind": case_kind})
        print(json.dumps(check(resolved, project, case_folder)), flush=True)
        shutil.rmtree(case_folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), sys.argv[3:])
