"""`adopt`: point the project at the user's own file. Profile it, decide on every column, say why.

Here is the order of the steps, what each role of a column needs, and what is written.
"""

from __future__ import annotations

import csv
import math
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection as SQL
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from .. import problem
from ..paths import SETTINGS_FILE
from ..problem import data as problem_data
from ..settings import Settings, UserError, editor, load, read_text, write
from .files import ENCODED, Rows, opened, relative
from .kinds import FEW, HASHED, ID, MOST_CODES, SENSITIVE, tell_codes, treat
from .label import adds_up, predictiveness
from .numerals import FITS
from .profile import (
    AT_ONCE,
    CELLS,
    ROWS,
    Found,
    count,
    examples,
    order_codes,
    row,
    settle,
    tell_types,
    valued,
)
from .rewriting import change, in_quotes, on_one_line, refill
from .schema import has_label, rounded, unlabelled
from .source import first_line, ready_for
from .split import FEWEST_ROWS

LATIN = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O", "œ": "oe", "ł": "l", "Ł": "L"}
)
FEWEST = 20  # rows with a label that can be trained, chosen and tested on
WAITED = 0.95  # share of the measured delays that data.label.delay_days covers
NAMED = 12  # columns that a line lists by name


@dataclass(frozen=True)
class Wishes:
    """What the user says of the file, as it was typed."""

    time: str | None = None
    group: str | None = None
    yes: str | None = None
    label_time: str | None = None
    delay: float | None = None
    category: tuple[str, ...] = ()
    number: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


@dataclass
class Roles:
    """The columns that are more than features."""

    label: Found
    time: Found | None
    group: Found | None
    label_time: Found | None

    def all(self) -> list[Found]:
        return [one for one in (self.label, self.time, self.group, self.label_time) if one]


def adopt(file: Path, label: str, wishes: Wishes, root: Path) -> list[str]:
    """Profile a file and rewrite params.yaml for it, keeping its comments.

    Args:
        file: one that `files.opened` reads, or a folder or a glob of such; one row an event.
        label: the column to predict, as the file or the project spells it; columns in wishes likewise.

    Returns:
        what was decided and why, a line each.

    Raises:
        UserError: when the file or a column cannot be used; params.yaml is then as it was.
    """
    settings = load(root / SETTINGS_FILE)
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as sql:
        sql.execute("SET memory_limit = ?", [settings.data.source.memory_limit])
        sql.execute("SET temp_directory = ?", [scratch])
        sql.execute("SET TimeZone = 'UTC'")
        try:
            found = opened(sql, [str(file)], Path())
            ready_for(sql, len(found.columns))
            path = relative(str(file), root)
            columns = _open(sql, file, found, settings.project.seed)
            roles = _roles(columns, label, wishes, file)
            said = _decide(sql, settings, columns, roles, wishes, path, root / SETTINGS_FILE)
            return [said[0], *(f"source: {note}" for note in found.notes), *said[1:]]
        except duckdb.Error as error:
            coded = re.search("unicode|utf-8", str(error), re.IGNORECASE)
            why = ENCODED.format("LATIN1") if coded else f"cannot be read: {first_line(error)}"
            raise UserError(f"{file}: {why}") from None


def _roles(columns: list[Found], label: str, wishes: Wishes, file: Path) -> Roles:
    """The columns that the user names; sets the kinds that are wished for."""
    words = (label, wishes.time, wishes.group, wishes.label_time)
    flags = ("label", "time", "group", "label-time")
    roles = Roles(*(  # type: ignore[arg-type]
        None if word is None else _pick(columns, word, file, flag)
        for flag, word in zip(flags, words, strict=True)
    ))  # fmt: skip
    if len(set(roles.all())) < len(roles.all()):
        raise UserError("--label, --time, --label-time and --group must be different columns")
    for kind in ("category", "number", "drop"):
        for word in _split_list(getattr(wishes, kind), columns):
            one = _pick(columns, word, file, kind)
            if one in roles.all():
                raise UserError(f"--{kind} {word}: is the label, the time or the group already")
            if one.wanted not in ("", kind):
                raise UserError(f"--{kind} {word}: stands under --{one.wanted} too; choose")
            one.wanted = kind
    return roles


def _split_list(given: Sequence[str], columns: list[Found]) -> list[str]:
    """Column names, of which several may stand in a text with commas; a name may have some itself."""
    headers = {one.header for one in columns}
    lists = [
        [one] if one in headers else next(csv.reader([one], skipinitialspace=True), [])
        for one in given
    ]
    return [word.strip() for words in lists for word in words if word.strip()]


def _decide(
    sql: SQL, settings: Settings, columns: list[Found], roles: Roles, wishes: Wishes, path: str,
    params: Path,
) -> list[str]:  # fmt: skip
    label, time = roles.label, roles.time
    texts = [label, roles.group] if problem.CLASSES else [roles.group]
    texts += [one for one in columns if one.wanted == "category" and one.kind == "VARCHAR"]
    notes = tell_types(sql, columns, texts, (time, roles.label_time))
    rows, said = count(sql, columns)
    notes += settle(sql, [one for one in columns if one not in texts])
    _check_types(sql, columns, roles)
    cut = settings.data.split
    needed = math.ceil(FEWEST_ROWS / min(cut.valid, cut.test, 1 - cut.valid - cut.test))
    check = _classes if problem.CLASSES else _number
    keys, label_said = check(sql, label, wishes.yes, rows, needed)
    delay, delay_said = _delay(sql, roles, wishes)
    by, side, split_said = _split(sql, roles, cut.test, rows)
    _treat_all(sql, settings, columns, roles, keys, rows)
    seen = [one for one in columns if one.feature and not one.why]
    left = _grouped("left out", [(one.name, one.why) for one in columns if one.why])
    if not seen:
        raise UserError("; ".join([f"{path}: no column is left to learn from", *left]))
    key = _key(columns)
    rest = [
        one for one in columns if one not in roles.all() and one is not key and not one.personal
    ]
    told_apart = [*rest, *filter(None, (time, roles.group))]
    digits, alike_said = _digits(sql, settings, by, told_apart, rows)
    open_ = [one for one in rest if not one.why or one.why.startswith("sensitive")]
    sensitive = [one.name for one in open_ if SENSITIVE.search(one.name)]
    slices = [one.name for one in open_ if one.type == "category" and one.distinct <= FEW][:5]

    tree = editor().load(read_text(params).replace("\r\n", "\n"))
    _rewrite(tree, columns, roles, key, path, rows)
    late = roles.label_time and roles.label_time.name
    change(tree["data"]["label"], column=label.name, time=late, delay_days=delay)
    _name_values(tree, keys)
    side_name = side and side.name
    change(tree["data"]["split"], by=by, group=side_name, near_duplicate_digits=digits)
    lists = {"slices": on_one_line(slices), "sensitive": on_one_line(sensitive)}
    change(tree["modelling"]["evaluation"], **lists)
    if "rollout" in tree:
        change(tree["rollout"]["router"], unit=side_name)
    write(params, tree)
    when = f"{time.name}, {time.low} to {time.high}" if time else "none; --time names it"
    said += [*label_said, *delay_said, f"time: {when}", *split_said, *alike_said, *notes]
    whole = len([one for one in columns if not one.part])
    return [
        f"source: {path}, {rows:,} rows of {whole} columns",
        *said,
        *_columns_said(columns, seen),
        *left,
        f"sensitive: {_listed(sensitive) or 'none'}, guessed by name (modelling.evaluation.sensitive)",
        _features(seen, whole),
        "goals.targets: metric and worst_slice are not promised yet; set them after the first run",
    ]


def _name_values(tree: CommentedMap, keys: dict[str, Any]) -> None:
    """Write what the label's values mean: keys of `data.label`, or with dots those of other blocks."""
    for path, value in keys.items():
        *blocks, key = path.split(".") if "." in path else ("data", "label", path)
        block = tree
        for name in blocks:
            block = block.get(name, {})
        if key in block:  # the block of a part is there with the part
            change(block, **{key: _quoted(value)})


def _quoted(value: Any) -> Any:
    """A text, a list of texts, nothing or an empty block as the settings write it."""
    if isinstance(value, list):
        return in_quotes(value)
    return DoubleQuotedScalarString(value) if isinstance(value, str) else value


def _columns_said(columns: list[Found], seen: list[Found]) -> list[str]:
    """What does not fit its column, and which numbers are taken for categories."""
    coded = [(one.name, one.coded) for one in seen if one.coded]
    return [
        *(
            f"{one.name}: {one.wrong:,} of {one.given:,} values are no {one.type}; their rows go to "
            f"quarantine"
            for one in columns
            if one.wrong
        ),
        *_grouped("categories, not numbers", coded),
    ]


def _treat_all(
    sql: SQL,
    settings: Settings,
    columns: list[Found],
    roles: Roles,
    keys: dict[str, Any],
    rows: int,
) -> None:
    """Decide on every column, leave out what gives the label away, and sort them by name."""
    tell_codes([one for one in columns if one not in roles.all()])
    order_codes(sql, columns, MOST_CODES)
    for one in columns:
        if one not in (roles.label, roles.group, roles.label_time):
            treat(one, rows, one is roles.time)
    if roles.group:
        roles.group.feature, roles.group.why = HASHED, "the group that --group names"
    seen = [one for one in columns if one.feature and not one.why]
    _leaks(sql, settings, seen, roles.label, keys)
    columns.sort(key=lambda one: one.name)


def _key(columns: list[Found]) -> Found | None:
    """The identifier of a row: one that is called so before others."""
    unique = [one for one in columns if one.unique]
    return min(unique, key=lambda one: not ID.search(one.name), default=None)


def _rewrite(
    tree: Any, columns: list[Found], roles: Roles, key: Found | None, path: str, rows: int
) -> None:
    """Set the source, the schema and the features."""
    data, time = tree["data"], roles.time
    change(data["source"], kind="files", paths=on_one_line([path]), rows=None)
    change(data["schema"], id=key and key.name, time=time and time.name)
    whole = time is not None and time.given == rows
    rules = {one.name: (_rule(one, one is key, one is time and whole), "") for one in columns}
    refill(data["schema"]["columns"], rules)
    lines = {one.name: (_line(one, one is time), one.why) for one in columns if one.feature}
    if (
        time
    ):  # rows are split by it, so that later ones are met: what went on rising is worth a feature
        trend = f"{time.name}_trend"
        while trend in {one.name for one in columns}:
            trend += "_"
        line = {"family": "context", "column": time.name, "scale": "standard", "encode": "number"}
        lines[trend] = (on_one_line(line), "")
    refill(tree["features"]["catalogue"], lines)
    # What belongs to the rows that were there before
    change(data["label"], as_of="latest")
    change(tree["modelling"]["evaluation"], expectations=on_one_line({}))
    change(tree["goals"]["targets"], metric=None, worst_slice=None)
    if "monitoring" in tree:
        change(tree["monitoring"], popularity=None)


def _grouped(what: str, reasons: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each column and its reason; one for all columns that share it."""
    lines: dict[str, list[str]] = {}
    shared: dict[str, list[tuple[str, str]]] = {}
    for column, why in reasons:
        shared.setdefault(re.split(r": | \(", why)[0], []).append((column, why))
    for reason, members in shared.items():
        if len(members) == 1:
            ((column, why),) = members
            alone = what.replace("categories, not numbers", "a category, not a number")
            lines[f"{column}: {alone}, {why}"] = []
            continue
        detail = [why[len(reason) :].strip(": ()").removesuffix(" values") for _, why in members]
        same = len(set(detail)) == 1
        names = [
            c if same or not d else f"{c} ({d})" for (c, _), d in zip(members, detail, strict=True)
        ]
        lines[f"{what}, {members[0][1] if same else reason}: {_listed(names)}"] = []
    return [*lines]


def _listed(names: Sequence[str]) -> str:
    """Names in a row, the first of many."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _features(seen: list[Found], columns: int) -> str:
    counts = Counter(one.type for one in seen)
    told = ", ".join(f"{kind} {n}" for kind, n in sorted(counts.items()))
    names = _listed([one.name for one in seen])
    return (
        f"features: {len(seen)} from {columns} columns ({told}): {names}; "
        f"that all but the time belong to the entity is a guess"
    )


def _open(sql: SQL, file: Path, rows: Rows, seed: int) -> list[Found]:
    """The columns. Makes the view `source` of all rows and the table `sample` of some."""
    if not rows.named and rows.columns:
        first = sql.execute(f"FROM ({rows.query}) LIMIT 1").fetchone() or ()
        shown = ", ".join(str(value) for value in first)
        raise UserError(f"{file}: starts with {shown:.60}, not with column names; add them")
    (number,) = row(sql, f"SELECT count(*) FROM ({rows.query})")
    if not number:
        raise UserError(f"{file}: has column names but no rows")
    # Chance decides row by row, which needs no memory; on one thread it decides alike each time
    share = 100 * max(1_000, min(ROWS, CELLS // len(rows.columns))) / number
    drawn = f"USING SAMPLE {share}% (bernoulli, {seed})" if share < 100 else ""
    sql.execute("SET threads = 1")
    sql.execute(f"CREATE TEMP TABLE drawn AS FROM ({rows.query}) {drawn}")
    sql.execute("RESET threads")
    sql.execute("CREATE TEMP VIEW sample AS FROM drawn")
    # What is looked at many times, some columns at once, is read from the file only once
    made = "TABLE" if drawn and len(rows.columns) > 10 * AT_ONCE else "VIEW"
    sql.execute(f"CREATE TEMP {made} source AS {rows.query if drawn else 'FROM sample'}")
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


def _pick(columns: list[Found], word: str, file: Path, flag: str) -> Found:
    """The column that a word means: spelt so, else but for its case, else in snake_case."""
    for form in (str, str.casefold, _snake):
        for spelling in ("header", "source", "name"):
            hits = [one for one in columns if form(getattr(one, spelling)) == form(word) != ""]
            if len(hits) == 1:
                return hits[0]
            if form is str and spelling == "header" and len(hits) > 1:
                several = " and ".join(str(columns.index(one) + 1) for one in hits)
                raise UserError(
                    f"{file}: has {len(hits)} columns {word!r}, the columns {several}: rename one, or "
                    f"write --{flag} {hits[-1].name} for the last"
                )
    headers = [" ".join(one.header.split()) or "(no name)" for one in columns]
    lower = [one.casefold() for one in headers]
    near = get_close_matches(word.casefold(), lower, 1, 0.5)
    hint = f"is it {headers[lower.index(near[0])]!r}? " if near else ""
    raise UserError(f"{file}: has no column {word!r}; {hint}it has {', '.join(headers):.500}")


def _check_types(sql: SQL, columns: list[Found], roles: Roles) -> None:
    """Refuse a time that is none, and a number that the user wants where there is none."""
    for flag, one in (("time", roles.time), ("label-time", roles.label_time)):
        if one and (one.type != "time" or not one.given or one.wrong > (1 - FITS) * one.given):
            why = f"{examples(sql, one, 'time')} cannot be read as times; write them as 2026-01-31 12:00"
            raise UserError(f"--{flag} {one.header}: {why}")
    if (time := roles.time) and time.distinct < 3:
        raise UserError(
            f"--time {time.header}: has {time.distinct} different times; a split by time needs more: "
            f"leave --time out, or name another column"
        )
    if (group := roles.group) and group.distinct < 3:
        raise UserError(
            f"--group {group.header}: has {group.distinct} different values, which cannot be divided "
            f"into training, validation and test: leave --group out, or name another column"
        )
    for one in columns:
        if one.wanted == "number" and one.type != "number":
            raise UserError(f"--number {one.header}: {examples(sql, one, 'number')} are no numbers")


def _number(
    sql: SQL, label: Found, wish: str | None, rows: int, needed: int
) -> tuple[dict[str, Any], list[str]]:
    """Check a label that must be a number."""
    keys = _adopted(label, {}, {}, wish, "")[0]
    if label.type != "number" or label.wrong > (1 - FITS) * label.given:
        which = examples(sql, label, "number")
        raise UserError(
            f"--label {label.header}: {which} are no number (1234.5), which this project predicts"
        )
    if label.distinct < 2:
        raise UserError(
            f"--label {label.header}: has a single value, {label.low:g}; nothing can be learnt"
        )
    said = [f"label: {label.name}, a number from {label.low:g} to {label.high:g}"]
    return keys, said + _enough(label, label.given - label.wrong, rows, needed)


def _enough(label: Found, labelled: int, rows: int, needed: int) -> list[str]:
    """What to say of rows without a label; refuses what is too little to train and test with.

    Args:
        needed: rows that the split stage takes to fill each part.
    """
    if labelled < FEWEST:
        raise UserError(
            f"--label {label.header}: {labelled:,} of {rows:,} rows have a label; training, validation "
            f"and test need at least {FEWEST} together: collect more"
        )
    said = []
    if labelled <= 0.5 * rows:
        without = f"{rows - labelled:,} of {rows:,} rows"
        said.append(f"label: missing in {without}; nothing is learnt from them")
    if labelled < needed:
        said.append(
            f"rows: {labelled:,} with a label are too few to run with: {FEWEST_ROWS} in each of training, "
            f"validation and test take {needed:,}; collect more, or change data.split"
        )
    return said


def _classes(
    sql: SQL, label: Found, wish: str | None, rows: int, needed: int
) -> tuple[dict[str, Any], list[str]]:
    """Check a label that must be one of a few values, and say what these mean."""
    value = label.sql()[1]
    query = (
        f"SELECT v, count(*) FROM (SELECT {value} AS v FROM source) WHERE v IS NOT NULL "
        f"GROUP BY v ORDER BY 2 DESC, v"
    )
    spelt: dict[str, str] = {}
    counts: dict[str, int] = {}
    nothing = []
    for value, number in sql.execute(query).fetchall():
        if re.fullmatch(unlabelled(), value):
            nothing.append(value)
            continue
        spelt.setdefault(_same(value), value)
        counts[_same(value)] = counts.get(_same(value), 0) + number
    missing = f"; {', '.join(map(repr, nothing))} means missing" if nothing else ""
    if len(counts) < 2:
        only = "".join(f"a single value, {value!r}" for value in spelt.values()) or "no value"
        raise UserError(f"--label {label.header}: has {only}{missing}; nothing can be learnt")
    keys, said, fault = _adopted(label, counts, spelt, wish, missing)
    lines = [said, *_enough(label, sum(counts.values()), rows, needed)]
    if fault:
        raise UserError(fault)
    return keys, lines


def _adopted(
    label: Found, counts: dict[str, int], spelt: dict[str, str], wish: str | None, missing: str
) -> tuple[dict[str, Any], str, str]:
    """What the problem makes of the label's values."""
    wanted = None if wish is None else (wish, _same(wish))
    try:
        return problem_data.adopted(label.header, label.name, counts, spelt, wanted, missing)
    except ValueError as error:
        raise UserError(str(error)) from None


def _delay(sql: SQL, roles: Roles, wishes: Wishes) -> tuple[float | None, list[str]]:
    """How many days a label takes: as the user says, as measured, else left open."""
    if wishes.delay is not None:
        if not 0 <= wishes.delay < math.inf:
            raise UserError(
                f"--delay {wishes.delay:g}: write the days that a label takes, 0 or more"
            )
        return wishes.delay, [f"delay: a label takes {wishes.delay:g} days, as --delay says"]
    if roles.time and roles.label_time:
        late = f"epoch({roles.label_time.sql()[1]}) - epoch({roles.time.sql()[1]})"
        wait, known, early = row(
            sql,
            f"SELECT quantile_cont(d, {WAITED}), count(d), count_if(d < 0) FROM "
            f"(SELECT ({late}) / 86400 AS d FROM source)",
        )
        if known:
            digits = 2 - math.floor(math.log10(wait)) if wait > 0 else 0
            delay = max(0.0, round(wait, max(0, min(6, digits))))
            said = [f"delay: {100 * WAITED:.0f}% of {known:,} labels came within {delay:g} days"]
            if early:
                odd = (
                    f"{early:,} labels came before their rows: is --time {roles.time.header} right?"
                )
                said.append(f"delay: {odd}")
            return delay, said
    return None, [
        "delay: how long a label takes is left open (data.label.delay_days: null); every label counts "
        "as known and none as overdue; --delay DAYS or --label-time COLUMN settles that"
    ]


def _same(value: str) -> str:
    """What label values are compared by, as in the label stage: no case, and 1.0 is 1."""
    try:
        return f"{float(value):.15g}"
    except ValueError:
        return value.lower().strip()


def _split(sql: SQL, roles: Roles, test: float, rows: int) -> tuple[str, Found | None, list[str]]:
    """How to split, the group to keep on one side, and why."""
    time, group = roles.time, roles.group
    without = [
        f"{role}: {rows - one.given:,} of {rows:,} rows have no {one.name}{so}"
        for role, one, so in (
            ("time", time, "; a split by time leaves them out"),
            ("group", group, ""),
        )
        if one and one.given < rows
    ]
    if time and group:
        (lost,) = row(
            sql,
            f"WITH rows AS (SELECT {time.sql()[1]} AS t, {group.sql()[0]} AS g FROM source), "
            f"seen AS (SELECT t, g, min(t) OVER (PARTITION BY g) AS first FROM rows), "
            f"cut AS (SELECT quantile_disc(t, {1 - test}) AS start FROM rows) "
            f"SELECT avg(CAST(g IS NOT NULL AND first < start AS INT)) FROM seen, cut WHERE t >= start",
        )
        cost = f"{100 * (lost or 0):.0f}% of the test rows, whose {group.name} came before"
        if lost > 0.5:
            said = f"split: by time alone; {group.name} on one side would cost {cost}"
            return "time", None, [said, *without]
        said = f"split: by time, {group.name} on one side, which costs {cost}"
        return "time", group, [said, *without]
    if time:
        said = "split: by time, as the model will meet rows later than those it learnt from"
        return "time", None, [said, *without]
    if group:
        said = f"split: by {group.name}, whose rows stay on one side"
        return "group", group, [said, *without]
    return "random", None, ["split: random, as neither --time nor --group was given"]


def _leaks(
    sql: SQL, settings: Settings, columns: list[Found], label: Found, keys: dict[str, Any]
) -> None:
    """Leave out what gives the label away: a column by itself, or numbers that make it up together.

    Sets how codes are prepared too: in their order where the label follows it.
    """
    frame = pd.concat(
        [
            _values(sql, columns[start : start + AT_ONCE], label, start)
            for start in range(0, max(1, len(columns)), AT_ONCE)
        ],
        axis=1,
    )
    aim = frame.pop("y0")
    y = problem_data.coded(aim, keys, _same)
    for place, one in enumerate(columns):
        values = frame[f"c{place}"].to_numpy(object if one.type == "category" else np.float64)
        score = predictiveness(values, y, settings.project.seed)
        if score >= settings.features.leak_score and one.wanted in ("", "drop"):
            one.why = (
                f"it predicts the label by itself ({score:.4f}): is it known only after the fact?"
            )
        elif one.order and (
            len(one.order) == 2
            or len(one.order) > 8
            or (not problem.WIDE and _rises(values, y, one.order))
        ):
            one.feature = {"encode": "ordinal", "order": one.order}
    if not problem.CLASSES:
        parts = {one.name: frame[f"c{p}"] for p, one in enumerate(columns) if one.type != "time"}
        together, how = adds_up(parts, y)
        for one in columns:
            if one.name in together and not one.why:
                one.why = f"the label is a {how} of {', '.join(together)}"


def _values(sql: SQL, columns: list[Found], label: Found, start: int) -> pd.DataFrame:
    """Some columns of the labelled rows of the sample: c and their place; with the first, the label, y0."""
    read = {"time": "epoch({})", "category": "coalesce(CAST({} AS VARCHAR), '')"}
    aim = f"v{len(columns)}"
    picked = [
        f"{read.get(one.type, 'CAST({} AS DOUBLE)').format(f'v{at}')} AS c{start + at}"
        for at, one in enumerate(columns)
    ]
    picked += [] if start else [f"{aim} AS y0"]
    known = f"{aim} IS NOT NULL" if not problem.CLASSES else has_label(aim, unlabelled())
    rows = valued([*columns, label], "sample")
    return sql.execute(f"SELECT {', '.join(picked)} FROM {rows} WHERE {known}").df()


def _rises(values: np.ndarray, y: np.ndarray, order: list[str]) -> bool:
    """Whether the mean label only rises, or only falls, along at least three codes."""
    means = [y[values == one].mean() for one in order if (values == one).any()]
    steps = np.diff(means)
    return len(steps) > 1 and bool((steps > 0).all() or (steps < 0).all())


def _digits(
    sql: SQL, settings: Settings, by: str, columns: list[Found], rows: int
) -> tuple[int | None, list[str]]:
    """How exactly near-duplicates are told: not at all where more than a tenth of the rows would be some.

    About as the split stage tells them.
    """
    digits = settings.data.split.near_duplicate_digits
    if not digits or by == "random":
        return digits, []
    if any(one.distinct > 0.9 * rows and one.type in ("category", "text") for one in columns):
        return digits, []
    read = {"number": rounded("{0}", digits), "time": "CAST({0} AS DATE)"}
    keys = [read.get(one.type, "{0}").format(f"v{place}") for place, one in enumerate(columns)]
    size = 0
    while size < len(columns):  # rows that differ in some columns differ in all
        size = 2 * size or AT_ONCE
        rows_ = valued(columns[:size], "source")
        query = f"SELECT count(DISTINCT hash({', '.join(keys[:size])})) FROM {rows_}"
        if row(sql, query)[0] >= 0.9 * rows:
            return digits, []
    return None, ["near-duplicates: not looked for, as too many rows are alike in all columns"]


def _rule(one: Found, key: bool, whole: bool) -> CommentedMap:
    """The column's line in data.schema.columns."""
    said = {
        "source": (one.source != one.name or one.part) and one.source,
        "part": one.part,
        "formats": one.formats and on_one_line(list(one.formats)),
        "decimal": one.decimal and DoubleQuotedScalarString(one.decimal),
        "units": one.units and on_one_line(
            {DoubleQuotedScalarString(unit): size for unit, size in one.units.items()}
        ),
        "missing": one.missing and in_quotes(list(one.missing)),
        "required": key or whole,
        "unique": key,
        "personal": one.personal,
    }  # fmt: skip
    return on_one_line({"type": one.type, **{word: value for word, value in said.items() if value}})


def _line(one: Found, event: bool) -> CommentedMap:
    """The column's line in features.catalogue."""
    use = {"use": False} if one.why else {}
    prepared = dict(one.feature or {})
    if "order" in prepared:
        prepared["order"] = in_quotes(prepared["order"])
    return on_one_line({"family": "context" if event else "entity", **use, **prepared})
