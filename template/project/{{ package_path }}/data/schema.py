"""The event schema as SQL: how a raw value becomes a typed one, and which rows are refused why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ..settings import Column, Settings
from .numerals import SPREADSHEET
from .times import time_sql
from .written import canonical_sql, number_sql, part_sql

TYPES = {
    "number": "DOUBLE",
    "category": "VARCHAR",
    "text": "VARCHAR",
    "time": "TIMESTAMP",
    "bool": "BOOLEAN",
}
WORDS = {"number": "a number", "time": "a time", "bool": "yes or no"}
# What files write for "nothing". Not for category and text, where NA may be Namibia
NOTHING = ("-", "?", "n/a", "na", "nan", "nat", "none", "null")


def stored(settings: Settings) -> dict[str, Column]:
    """The columns that are kept: all but personal ones that `data.personal` drops."""
    columns = settings.data.schema_.columns
    drop = settings.data.personal == "drop"
    return {name: column for name, column in columns.items() if not (drop and column.personal)}


def name(column: str) -> str:
    """A column's name in SQL."""
    return '"' + column.replace('"', '""') + '"'


def text(value: str) -> str:
    """A string in SQL."""
    return "'" + value.replace("'", "''") + "'"


def no_label(settings: Settings) -> str:
    """The pattern, of whole texts, of what means no label: the column's own words, else the usual ones."""
    return unlabelled(settings.data.schema_.columns[settings.data.label.column].missing)


def unlabelled(own: Sequence[str] | None = None) -> str:
    """The same for a column's own words; without any, the usual ones and the errors of spreadsheets."""
    alternatives = "|".join(map(re.escape, NOTHING if own is None else own))
    return rf"(?i)\s*({alternatives}{f'|{SPREADSHEET}' if own is None else ''}|)\s*"


def has_label(value: str, nothing: str) -> str:
    """SQL: whether a label is there, and not a text that means none."""
    same = f"regexp_full_match(CAST({value} AS VARCHAR), {text(nothing)})"
    return f"({value} IS NOT NULL AND NOT {same})"


def rounded(value: str, digits: int) -> str:
    """SQL for a number cut to so many significant digits."""
    size = f"CAST(floor(log10(abs({value}))) AS INTEGER)"
    return f"CASE WHEN {value} = 0 THEN 0.0 ELSE round({value}, {digits - 1} - {size}) END"


def none_of(value: str, words: Iterable[str]) -> str:
    """SQL: a value is there and is none of these. A long `IN` becomes a join, which mixes rows up."""
    listed = ", ".join(text(word) for word in words)
    return f"({value} IS NOT NULL AND coalesce(list_position([{listed}], {value}), 0) = 0)"


def cleaned(raw: str, raw_type: str, column: Column) -> str:
    """SQL for a raw value without what only looks like one: NULL where nothing was given."""
    kept = raw
    if raw_type in ("FLOAT", "DOUBLE"):
        kept = f"CASE WHEN isnan({raw}) THEN NULL ELSE {raw} END"
    elif column.part:
        kept = part_sql(f"nullif(trim(CAST({raw} AS VARCHAR)), '')", column.part)
    elif raw_type == "VARCHAR" or raw_type.startswith("ENUM"):
        kept = f"nullif(trim(CAST({raw} AS VARCHAR)), '')"
        if column.type not in ("category", "text"):
            kept = f"CASE WHEN {none_of(f'lower({kept})', NOTHING)} THEN {kept} END"
    if not column.missing:
        return kept
    lowered = f"lower(CAST({kept} AS VARCHAR))"
    there = none_of(lowered, [word.lower() for word in column.missing])
    if codes := [code for code in missing(column) if isinstance(code, float)]:
        value = typed(kept, raw_type, column)
        there = f"{there} AND coalesce({value} NOT IN ({', '.join(map(repr, codes))}), true)"
    return f"CASE WHEN {there} THEN {kept} END"


def missing(column: Column) -> frozenset[float | str]:
    """The values that mean none in a column: numbers of a number, else texts in lower case."""
    lowered = [word.lower() for word in column.missing or ()]
    if column.type != "number":
        return frozenset(lowered)
    return frozenset(value for value in map(_number, lowered) if value is not None)


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def typed(raw: str, raw_type: str, column: Column) -> str:
    """SQL for a cleaned value in the type of its column, NULL where it does not fit."""
    raw_type = "VARCHAR" if column.part else raw_type
    if column.type == "time":
        return time_sql(raw, raw_type, column.formats)
    if column.type == "bool" and raw_type == "VARCHAR":
        return (
            f"CASE WHEN lower({raw}) IN ('true', 't', '1', '1.0', 'yes', 'y') THEN true "
            f"WHEN lower({raw}) IN ('false', 'f', '0', '0.0', 'no', 'n') THEN false END"
        )
    if column.type == "category" and (column.decimal or raw_type in ("FLOAT", "DOUBLE", "DECIMAL")):
        return canonical_sql(raw)
    value = f"TRY_CAST({raw} AS {TYPES[column.type]})"
    if column.type == "number" and raw_type == "VARCHAR" and (column.decimal or column.units):
        value = number_sql(raw, column.decimal or ".", column.units or {})
    return (
        f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END" if column.type == "number" else value
    )


def checks(rule: Column, raw: str, value: str) -> Iterator[tuple[str, str]]:
    """The rules of one column, all but `unique`, which needs every row at once.

    Args:
        raw, value: SQL of the cleaned and of the typed value.

    Yields:
        each rule in words, and the SQL condition under which a row breaks it and is refused.
    """
    if rule.type in WORDS:
        yield f"is not {WORDS[rule.type]}", f"{raw} IS NOT NULL AND {value} IS NULL"
    if rule.type == "number":
        yield "is not finite", f"isinf({value})"
    if rule.required:
        yield "is missing", f"{raw} IS NULL"
    if rule.min is not None:
        yield f"is below {rule.min:g}", f"{value} < {rule.min!r}"
    if rule.max is not None:
        yield f"is above {rule.max:g}", f"{value} > {rule.max!r}"
    if rule.allowed is not None:
        reason = f"is not one of {', '.join(rule.allowed)}"
        yield reason, none_of(f"CAST({value} AS VARCHAR)", rule.allowed)
