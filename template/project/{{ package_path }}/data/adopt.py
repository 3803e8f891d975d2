"""`adopt`: point the project at the user's own file. Profile it, decide on every column, say why.

Values are read, cleaned and typed by the same SQL as in `collect`, so that what is said here about
a column is what will happen to it. Types are told from 20,000 rows, counts from all of them.
"""

from __future__ import annotations

import re
import tempfile
import unicodedata
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from duckdb import DuckDBPyConnection as SQL
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark
from ruamel.yaml.scalarstring import DoubleQuotedScalarString
from ruamel.yaml.tokens import CommentToken

from ..settings import Column, Settings, UserError, editor, load, write
from . import times
from .files import ENCODED, Rows, opened, relative
from .label import numbers_rows, predictiveness
from .schema import cleaned, rounded, text, typed
from .source import first_line

ROWS = 20_000  # that types and leaks are told from
AT_ONCE = 40  # columns that are counted in one pass: each takes memory of its own
FITS = 0.995  # share of the values that must be numbers, times, … to call a column so
FEW = 20  # up to here each category has a column of its own; more are hashed
HASHED = {"encode": "hash", "bins": 32}
NUMERIC = re.compile(r"U?((TINY|SMALL|BIG|HUGE)?INT|INTEGER)|FLOAT|DOUBLE|DECIMAL\(.*\)")
LATIN = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O", "œ": "oe", "ł": "l", "Ł": "L"}
)
YES = {"1", "yes", "y", "true", "t", "positive", "churned", "fraud", "bought", "won", "accepted"}
NO = {"0", "-1", "no", "n", "false", "f", "negative", "stayed", "retained", "lost", "rejected"}
ID = re.compile(r"(^|_)(id|key|uuid|guid)$")
SENSITIVE = re.compile(
    r"(^|_)(gender|sex|race|ethnic|ethnicity|religion|nationality|disability|disabled)(_|$)"
)
PERSONAL = re.compile(
    r"(^|_)(e_?mail|phone|telephone|mobile|fax|address|street|surname|iban|ssn|passport)(_|$)"
    r"|^((first|last|full|given|family|user|customer|client|person|contact|patient)_?)?name$"
)
LOOKS_PERSONAL = r"\S+@\S+\.\S+|[+(][0-9][0-9 ()/.-]{6,}|[0-9]{2,5}[ .-][0-9]{3,4}[ .-][0-9]{3,4}"


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
    given: int = 0  # values that are not missing
    wrong: int = 0  # of these, what is not of the type
    distinct: int = 0
    low: Any = None
    high: Any = None
    whole: bool = False  # numbers without fractions
    wordy: bool = False  # texts with blanks
    personal: bool = False
    unique: bool = False  # an identifier with a different value in every row
    feature: dict[str, Any] | None = None
    why: str = ""  # the model does not see it

    def sql(self, type_: str = "") -> tuple[str, str]:
        """The cleaned and the typed value, as `collect` makes them."""
        rule = Column.model_validate({"type": type_ or self.type, "formats": self.formats})
        raw = cleaned(self.column, self.kind, rule)
        return raw, typed(raw, self.kind.split("(")[0], rule)


def adopt(
    file: Path, label: str, time: str | None, group: str | None, positive: str | None, root: Path
) -> list[str]:
    """Profile a file and rewrite params.yaml for it, keeping its comments.

    Args:
        file: CSV or Parquet with one row an event.
        label, time, group: columns, as the file or the project spells them.
        positive: the label that counts as yes; None: guessed, where the label has two values.

    Returns:
        what was decided and why, a line each.

    Raises:
        UserError: when the file or a column cannot be used; params.yaml is then as it was.
    """
    settings = load(root / "params.yaml")
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as sql:
        sql.execute("SET memory_limit = ?", [settings.data.source.memory_limit])
        sql.execute("SET temp_directory = ?", [scratch])
        sql.execute("SET TimeZone = 'UTC'")
        try:
            rows = opened(sql, [str(file)], Path())
            path = relative(str(file), root)
            columns = _open(sql, file, rows, settings.project.seed)
            words = (label, time, group)
            roles = [None if word is None else _pick(columns, word, file) for word in words]
            return _decide(sql, settings, columns, roles, positive, path, root / "params.yaml")
        except duckdb.Error as error:
            coded = re.search("unicode|utf-8", str(error), re.IGNORECASE)
            why = ENCODED.format("LATIN1") if coded else f"cannot be read: {first_line(error)}"
            raise UserError(f"{file}: {why}") from None


def _decide(
    sql: SQL, settings: Settings, columns: list[Found], roles: list[Found | None],
    positive: str | None, path: str, params: Path,
) -> list[str]:  # fmt: skip
    label, time, group = roles
    assert label is not None
    if len({one for one in roles if one}) < 3 - roles.count(None):
        raise UserError("--label, --time and --group must be different columns")
    binary = settings.project.problem == "binary"
    texts = (label, group) if binary else (group,)
    notes = [note for one in columns if one not in texts and (note := _type(sql, one, one is time))]
    rows, unread = _profile(sql, columns)
    if time and (time.type != "time" or not time.given or time.wrong > (1 - FITS) * time.given):
        raise UserError(
            f"--time {time.header}: {_examples(sql, time, 'time')} cannot be read as times"
        )
    yes, label_said = (_yes if binary else _number)(sql, label, positive)
    by, side, split_said = _split(sql, time, group, settings.data.split.test)
    for one in columns:
        if one not in (label, group):
            _treat(one, rows, one is time)
    if group:
        group.feature, group.why = HASHED, "the group that --group names"
    _leaks(sql, settings, [one for one in columns if one.feature and not one.why], label, yes)
    unique = sorted((one for one in columns if one.unique), key=lambda one: not ID.search(one.name))
    key = unique[0] if unique else None
    columns.sort(key=lambda one: one.name)
    seen = [one.name for one in columns if one.feature and not one.why]
    left = [f"{one.name}: left out, {one.why}" for one in columns if one.why]
    if not seen:
        raise UserError("; ".join([f"{path}: no column is left to learn from", *left]))
    rest = [one for one in columns if one not in (label, group, key) and not one.personal]
    open_ = [one for one in rest if not one.why or one.why.startswith("sensitive")]
    digits = settings.data.split.near_duplicate_digits
    told_apart = [*rest, *([group] if group else [])]
    if digits and by != "random" and _alike(sql, told_apart, digits, rows):
        digits = None
        said = "near-duplicates: not looked for, as too many rows are alike in all columns"
        split_said.append(said)
    sensitive = [one.name for one in open_ if SENSITIVE.search(one.name)]
    slices = [one.name for one in open_ if one.type == "category" and one.distinct <= FEW][:5]

    tree = editor().load(params.read_text(encoding="utf-8"))
    data, yes_ = tree["data"], None if yes is None else DoubleQuotedScalarString(yes)
    _set(data["source"], kind="files", paths=_flow([path]), rows=None)
    _set(data["schema"], id=key and key.name, time=time and time.name)
    whole = time is not None and time.given == rows
    rules = {one.name: (_rule(one, one is key, one is time and whole), "") for one in columns}
    _refill(data["schema"]["columns"], rules)
    _set(data["label"], column=label.name, positive=yes_, time=None, delay_days=0, as_of="latest")
    _set(data["split"], by=by, group=side and side.name, near_duplicate_digits=digits)
    lines = {one.name: (_line(one, one is time), one.why) for one in columns if one.feature}
    _refill(tree["features"]["catalogue"], lines)
    evaluation = tree["modelling"]["evaluation"]
    _set(evaluation, slices=_flow(slices), sensitive=_flow(sensitive), expectations=_flow({}))
    _set(tree["goals"]["targets"], metric=None, worst_slice=None)
    _set(tree["serving"]["router"], unit=side and side.name)
    _set(tree["monitoring"], popularity=None)
    write(params, tree)
    return [
        f"source: {path}, {rows:,} rows of {len(columns)} columns",
        *unread,
        *label_said,
        f"time: {time.name}, {time.low} to {time.high}" if time else "time: none; --time names it",
        *split_said,
        *notes,
        *(f"{one.name}: {one.wrong:,} of {one.given:,} values are no {one.type}; their rows go to quarantine"
          for one in columns if one.wrong),
        *left,
        f"sensitive: {', '.join(sensitive) or 'none'}, guessed by name (modelling.evaluation.sensitive)",
        f"features: {', '.join(seen)}; that all but the time belong to the entity is a guess",
        "goals.targets: metric and worst_slice are not promised yet; set them after the first run",
    ]  # fmt: skip


def _open(sql: SQL, file: Path, rows: Rows, seed: int) -> list[Found]:
    """The columns. Makes the view `source` of all rows and the table `sample` of some."""
    if not rows.named and rows.columns:
        first = sql.execute(f"FROM ({rows.query}) LIMIT 1").fetchone() or ()
        shown = ", ".join(str(value) for value in first)
        raise UserError(f"{file}: starts with {shown:.60}, not with column names; add them")
    (count,) = _row(sql, f"SELECT count(*) FROM ({rows.query})")
    if not count:
        raise UserError(f"{file}: has column names but no rows")
    # Chance decides row by row, which needs no memory; on one thread it decides alike each time
    share = min(100.0, 110 * ROWS / count) if count > ROWS else 100.0
    drawn = f"USING SAMPLE {share}% (bernoulli, {seed})" if share < 100 else ""
    sql.execute("SET threads = 1")
    sql.execute(f"CREATE TEMP TABLE sample AS FROM (FROM ({rows.query}) {drawn}) LIMIT {ROWS}")
    sql.execute("RESET threads")
    sql.execute(f"CREATE TEMP VIEW source AS {rows.query if drawn else 'FROM sample'}")
    columns: dict[str, Found] = {}
    for place, ((source, (column, kind)), header) in enumerate(
        zip(rows.columns.items(), rows.headers, strict=True), start=1
    ):
        base = (_snake(source) if header.strip() else "") or f"column_{place}"
        turns = (f"{base}_{turn}" if turn else base for turn in range(len(rows.columns)))
        plain = next(turn for turn in turns if turn not in columns)
        columns[plain] = Found(plain, source, header, kind, column)
    return list(columns.values())


def _snake(header: str) -> str:
    plain = unicodedata.normalize("NFKD", header.translate(LATIN))
    plain = plain.encode("ascii", "ignore").decode()
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain)
    plain = re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")
    return f"c_{plain}" if plain[:1].isdigit() else plain


def _pick(columns: list[Found], word: str, file: Path) -> Found:
    """The column that a word means: spelt so, else but for its case, else in snake_case."""
    for form in (str, str.casefold, _snake):
        for spelling in ("header", "source", "name"):
            hits = [one for one in columns if form(getattr(one, spelling)) == form(word) != ""]
            if len(hits) == 1:
                return hits[0]
    headers = [" ".join(one.header.split()) or "(no name)" for one in columns]
    lower = [one.casefold() for one in headers]
    near = get_close_matches(word.casefold(), lower, 1, 0.5)
    hint = f"is it {headers[lower.index(near[0])]!r}? " if near else ""
    raise UserError(f"{file}: has no column {word!r}; {hint}it has {', '.join(headers):.500}")


def _type(sql: SQL, one: Found, wanted: bool) -> str:
    """Set the column's type; returns what the user must know of its dates, if anything."""
    if one.kind == "VARCHAR":
        for type_ in ("time",) if wanted else ("number", "bool", "time"):
            raw, value = one.sql(type_)
            # 0123 is a code, and a year before 1000 was written with two digits
            odd = {"number": f"regexp_matches({raw}, '^0[0-9]')", "time": f"year({value}) < 1000"}
            query = f"SELECT count({raw}), count({value}), count_if({odd.get(type_, 'false')}) FROM sample"
            given, fits, strange = _row(sql, query)
            if given and fits >= FITS * given and not strange:
                one.type = type_
                return ""
        return _dates(sql, one, wanted)
    one.type = {"BOOLEAN": "bool", "UUID": "category"}.get(one.kind, "text")
    if NUMERIC.fullmatch(one.kind):
        one.type = "number"
    elif one.kind.startswith(("DATE", "TIMESTAMP")):
        one.type = "time"
    return ""


def _dates(sql: SQL, one: Found, wanted: bool) -> str:
    """Make a text column a time when its values are dates in formats that strptime knows."""
    raw = one.sql("time")[0]
    sql.execute(
        f"CREATE OR REPLACE TEMP TABLE dates AS SELECT DISTINCT {raw} AS x FROM sample "
        f"WHERE {raw} IS NOT NULL ORDER BY hash(x) LIMIT 5000"
    )
    query = (
        f"SELECT count(*), count_if(regexp_matches(x, '{times.DATED}')), "
        f"count_if(regexp_full_match(x, '-?[0-9.]*,[0-9]+')) FROM dates"
    )
    count, dated, commas = _row(sql, query)
    if count and commas >= FITS * count:
        return f"{one.name}: numbers with a decimal comma, which are read as text; write 1234.5"
    formats, doubt = times.formats(sql, count, dated, wanted)
    if formats:
        one.type, one.formats = "time", formats
    return f"{one.name}: {doubt}; see data.schema.columns.{one.name}.formats" if doubt else ""


def _profile(sql: SQL, columns: list[Found]) -> tuple[int, list[str]]:
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
        f"[count({value}), count(DISTINCT {value}), count_if(contains(CAST({raw} AS VARCHAR), ' ')), "
        f"count_if(regexp_full_match(CAST({raw} AS VARCHAR), {text(LOOKS_PERSONAL)}))]"
        for raw, value in (one.sql() for one in columns)
    ]
    parts = []
    sampled = _row(sql, f"SELECT {', '.join(looks)} FROM sample")
    for one, (given, distinct, blanks, personal) in zip(columns, sampled, strict=True):
        raw, value = one.sql()
        number = one.type == "number"
        ends = f"min({value}), max({value})" if number or one.type == "time" else "NULL, NULL"
        whole = f"bool_and({value} = floor({value}))" if number else "false"
        fits = f"count_if(isfinite({value}))" if number else f"count({value})"
        # What repeats often in the sample is counted there: only what may be unique is worth more
        exact = str(distinct) if distinct < 0.1 * given else f"count(DISTINCT {value})"
        parts.append(f"[count({raw}), count({raw}) - {fits}, {exact}], {ends}, {whole}")
        one.wordy = (blanks or 0) > 0.5 * given
        one.personal = 0 < 0.8 * given <= (personal or 0) and one.type in ("category", "text")
    rows, *row = _row(sql, f"SELECT count(*), {', '.join(parts)} FROM source")
    for one, found in zip(columns, zip(*[iter(row)] * 4, strict=True), strict=True):
        (one.given, one.wrong, one.distinct), one.low, one.high, one.whole = found
    return int(rows)


def _treat(one: Found, rows: int, event: bool) -> None:
    """Decide what a column is to the model: `feature` prepares it, `why` keeps it out."""
    few, often = one.distinct <= FEW, one.given >= 50 and one.distinct > 0.9 * one.given
    flag = {"impute": "flag"} if one.given < 0.95 * rows else {}
    number, id_like = one.type == "number", bool(ID.search(one.name)) and one.type != "time"
    numbered = number and _numbers_rows(one)
    looks, one.personal = one.personal, False
    by_name = not few and one.type in ("category", "text", "number") and PERSONAL.search(one.name)
    one.feature = {
        "number": {"impute": "median", **flag, "scale": "standard", "encode": "number"},
        "bool": {**flag, "encode": "number"},
        "time": {"encode": "cyclic", "period": "week"},
    }.get(one.type, {"encode": "one_hot"} if few else HASHED)
    if one.distinct <= 1:
        one.why = "every row has the same value" if one.given else "no row has a value"
    elif event:
        if (one.high - one.low).days < 14:
            one.why = "two weeks are too few to tell weekdays"
    elif looks or by_name:
        one.personal, one.feature = True, None
        one.why = "personal by its name or its values, a guess"
        one.type = "text" if number else one.type
    elif SENSITIVE.search(one.name) and (few or one.type == "category"):
        one.why = "sensitive by its name: the answer must not hang on it"
    elif id_like and few and number:
        one.type, one.feature = "category", {"encode": "one_hot"}  # a code has no order
    elif numbered or (id_like and not few) or (one.type == "category" and often and not one.wordy):
        nearly = "its name says so" if id_like else "nearly every row has a value of its own"
        one.type, one.feature, one.why = "category", HASHED, f"an identifier: {nearly}"
        one.unique = one.distinct == one.given == rows
    elif one.type == "time":
        one.why = "a second moment; it may lie after the label was known"
    elif one.type == "text" or (
        not few and one.type == "category" and one.distinct > 0.05 * one.given
    ):
        one.type = "text" if one.wordy else one.type
        what = "free text" if one.wordy else "too many categories"
        one.why = f"{what}: {one.distinct:,} values"


def _numbers_rows(one: Found) -> bool:
    """Whether whole numbers count the rows, within the bounds that `features.catalogue` refuses."""
    if not one.whole or one.given < 50:
        return False
    return numbers_rows(one.low, one.high, one.distinct, one.given)


def _row(sql: SQL, query: str) -> tuple[Any, ...]:
    return sql.execute(query).fetchall()[0]


def _examples(sql: SQL, one: Found, type_: str) -> str:
    """Some values that are not of a type, for a message."""
    raw, value = one.sql(type_) if one.kind == "VARCHAR" else (one.column, "NULL")
    query = f"SELECT DISTINCT CAST({raw} AS VARCHAR) FROM source WHERE {raw} IS NOT NULL AND {value} IS NULL"
    rows = sql.execute(f"{query} LIMIT 3").fetchall()
    found = [f"'{' '.join(row[0].split()):.40}'" for row in rows]
    return "values such as " + ", ".join(sorted(found)) if found else "its values, all missing,"


def _number(sql: SQL, label: Found, positive: str | None) -> tuple[None, list[str]]:
    """Check a label that must be a number."""
    if positive is not None:
        raise UserError(
            "--positive is for a yes or no; this project predicts a number: leave it out"
        )
    if label.type != "number" or label.wrong > (1 - FITS) * label.given:
        which = _examples(sql, label, "number")
        raise UserError(
            f"--label {label.header}: {which} are no number (1234.5), which this project predicts"
        )
    if label.distinct < 2:
        raise UserError(
            f"--label {label.header}: has a single value, {label.low:g}; nothing can be learnt"
        )
    return None, [f"label: {label.name}, a number from {label.low:g} to {label.high:g}"]


def _yes(sql: SQL, label: Found, positive: str | None) -> tuple[str, list[str]]:
    """The label value that counts as yes: the one given, else a guess between two."""
    query = f"SELECT {label.sql()[1]} AS v, count(*) FROM source WHERE v IS NOT NULL GROUP BY v ORDER BY 2 DESC, v"
    spelt: dict[str, str] = {}
    counts: dict[str, int] = {}
    for value, count in sql.execute(query).fetchall():
        spelt.setdefault(_same(value), value)
        counts[_same(value)] = counts.get(_same(value), 0) + count
    values = ", ".join([*map(repr, list(spelt.values())[:6]), *(["…"] if len(spelt) > 6 else [])])
    if len(counts) < 2:
        raise UserError(
            f"--label {label.header}: has a single value ({values}); nothing can be learnt"
        )
    if positive is not None:
        key, how = _same(positive), "as --positive says; every other value is no"
        if key not in counts:
            raise UserError(
                f"--positive {positive}: {label.header} has no such value; it has {values}"
            )
    elif len(counts) > 2:
        raise UserError(
            f"--label {label.header}: has {len(counts):,} values ({values}) where a yes or no has two; "
            f"say which one counts as yes: --positive VALUE"
        )
    else:
        hits = [one for one in counts if one in YES] or [one for one in counts if one not in NO]
        hits = hits or list(counts)
        key, how = hits[0], "a guess by the word; --positive names another"
        if len(hits) == 2:
            key, how = min(counts, key=counts.__getitem__), "the rarer one, a guess; see --positive"
    return spelt[key], [f"label: {spelt[key]!r} of {label.name} counts as yes "
                        f"({100 * counts[key] / sum(counts.values()):.2f}%), {how}"]  # fmt: skip


def _same(value: str) -> str:
    """What label values are compared by, as in the label stage: no case, and 1.0 is 1."""
    try:
        return f"{float(value):.15g}"
    except ValueError:
        return value.lower().strip()


def _split(
    sql: SQL, time: Found | None, group: Found | None, test: float
) -> tuple[str, Found | None, list[str]]:
    """How to split, the group to keep on one side, and why."""
    if time and group:
        (lost,) = _row(
            sql,
            f"WITH rows AS (SELECT {time.sql()[1]} AS t, {group.sql()[0]} AS g FROM source), "
            f"seen AS (SELECT t, g, min(t) OVER (PARTITION BY g) AS first FROM rows), "
            f"cut AS (SELECT quantile_disc(t, {1 - test}) AS start FROM rows) "
            f"SELECT avg(CAST(g IS NOT NULL AND first < start AS INT)) FROM seen, cut WHERE t >= start",
        )
        cost = f"{100 * lost:.0f}% of the test rows, whose {group.name} came before"
        if lost > 0.5:
            said = f"split: by time alone; {group.name} on one side would cost {cost}"
            return "time", None, [said]
        return "time", group, [f"split: by time, {group.name} on one side, which costs {cost}"]
    if time:
        said = "split: by time, as the model will meet rows later than those it learnt from"
        return "time", None, [said]
    if group:
        return "group", group, [f"split: by {group.name}, whose rows stay on one side"]
    return "random", None, ["split: random, as neither --time nor --group was given"]


def _leaks(
    sql: SQL, settings: Settings, columns: list[Found], label: Found, yes: str | None
) -> None:
    """Leave out each column that predicts the label by itself."""
    read = {"time": "epoch({})", "category": "coalesce(CAST({} AS VARCHAR), '')"}
    parts = [read.get(one.type, "CAST({} AS DOUBLE)").format(one.sql()[1]) for one in columns]
    aim = label.sql()[1]
    picked = ", ".join(f"{part} AS c{place}" for place, part in enumerate([*parts, aim]))
    frame = sql.execute(f"SELECT {picked} FROM sample WHERE {aim} IS NOT NULL").df()
    y = frame.pop(f"c{len(columns)}")
    y = y if yes is None else y.map(_same) == _same(yes)
    for place, one in enumerate(columns):
        values = frame[f"c{place}"].to_numpy(object if one.type == "category" else np.float64)
        score = predictiveness(values, y.to_numpy(np.float64), settings.project.seed)
        if score >= settings.features.leak_score:
            one.why = (
                f"it predicts the label by itself ({score:.4f}): is it known only after the fact?"
            )


def _alike(sql: SQL, columns: list[Found], digits: int, rows: int) -> bool:
    """Whether more than a tenth of the rows are near-duplicates, about as the split stage tells them."""
    if any(one.distinct > 0.9 * rows and one.type in ("category", "text") for one in columns):
        return False
    read = {"number": rounded("{0}", digits), "time": "CAST({0} AS DATE)"}
    keys = ", ".join(read.get(one.type, "{0}").format(one.sql()[1]) for one in columns)
    return bool(_row(sql, f"SELECT count(DISTINCT hash({keys})) FROM source")[0] < 0.9 * rows)


def _rule(one: Found, key: bool, whole: bool) -> CommentedMap:
    """The column's line in data.schema.columns."""
    said = {
        "source": one.source != one.name and one.source,
        "formats": one.formats and _flow(list(one.formats)),
        "required": key or whole,
        "unique": key,
        "personal": one.personal,
    }
    return _flow({"type": one.type, **{word: value for word, value in said.items() if value}})


def _line(one: Found, event: bool) -> CommentedMap:
    """The column's line in features.catalogue."""
    use = {"use": False} if one.why else {}
    return _flow({"family": "context" if event else "entity", **use, **(one.feature or {})})


def _flow(value: Any) -> Any:
    """A list or mapping that stands on one line."""
    made = CommentedMap(value) if isinstance(value, dict) else CommentedSeq(value)
    made.fa.set_flow_style()
    return made


def _set(block: CommentedMap, **values: Any) -> None:
    """Change values; their comments move up to them."""
    block.update(values)
    for key in values:
        if token := block.ca.items.get(key, [None] * 4)[2]:
            block.ca.items[key][2] = CommentToken(f" {token.value.lstrip(' ')}", CommentMark(0))


def _refill(block: CommentedMap, lines: dict[str, tuple[CommentedMap, str]]) -> None:
    """Replace what a block holds, line by line, each with its comment.

    What stands below the block, such as the heading of the next one, may hang on its last line.
    """
    last = block.ca.items.get(next(reversed(block), None), [None] * 4)[2]
    below = last.value.partition("\n")[2] if last else ""
    block.clear()
    block.ca.items.clear()
    for key, (line, why) in lines.items():
        block[key] = line
        tail = below if key == next(reversed(lines)) else ""
        if why or tail:
            words = f" # {' '.join(why.split())}\n" if why else "\n"
            block.ca.items[key] = [None, None, CommentToken(f"{words}{tail}", CommentMark(0)), None]
