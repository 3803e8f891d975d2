"""Texts that hold something else: numbers as people write them, and the parts of a text.

The database reads files by the SQL here, the service reads requests by the functions beside it; a
test compares the two over awkward values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MINUS = "\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d"  # what typesetters write for it
BLANKS = " \u00a0\u2007\u2009\u202f"
QUOTES = "'\u2019\u02bc"
ITEM_PADDING = " \t\r\n[](){}'\""  # an item of a list
NUMBER = "[+-]?(?:[0-9]+(?:[.][0-9]*)?|[.][0-9]+)"
GAP = "[ \\t\\r\\n]"
# A gap is no separator beside another one: a text of blanks would be tried in every division of them
PAIR = f"[^0-9+.-]*({NUMBER})(?:{GAP}*[,;/|x\u00d7]{GAP}*|{GAP}+|{GAP}*-{GAP}*)({NUMBER})[^0-9]*"
HOST = "^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@\\s]*@)?([^/?#:\\s]+)"
UPPER, LOWER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"


def quoted(value: str) -> str:
    """A string in SQL."""
    return "'" + value.replace("'", "''") + "'"


def grammar(decimal: str) -> str:
    """A pattern of whole numbers and fractions, thousands marked or not, after Unicode's minus is -.

    Marks stand before three digits (in India also two), and the first group does not begin with 0:
    so 1,5 and 0,208 can only have a decimal comma.
    """
    marks = _thousands_marks(decimal)
    return (
        f"[+-]?(?:[1-9][0-9]?[0-9]?(?:{marks}[0-9][0-9][0-9]?)*{marks}[0-9][0-9][0-9]|[0-9]+)?"
        f"(?:[{decimal}][0-9]*)?(?:[eE][+-]?[0-9]+)?"
    )


def _thousands_marks(decimal: str) -> str:
    return f"[{',' if decimal == '.' else '.'}{BLANKS}{QUOTES}]"


def number_sql(raw: str, decimal: str, units: Mapping[str, float]) -> str:
    """SQL for a number as people write it, NULL where a text is none.

    Read are thousands marks, a unit before or behind, (1,234) and 1,234- as negative, Unicode's minus.

    Args:
        decimal: the mark before the fraction.
        units: what may stand before or behind, in any case -> what the number is then multiplied by.
    """
    value = f"translate({raw}, {quoted(MINUS)}, {quoted('-' * len(MINUS))})"
    factor = ""
    if units:
        names = sorted(units, key=len, reverse=True)
        multipliers = "".join(
            f" WHEN regexp_matches({value}, {quoted(_unit_pattern([name]))}) THEN {units[name]!r}"
            for name in names
            if units[name] != 1
        )
        factor = multipliers and f" * CASE{multipliers} ELSE 1.0 END"
        value = f"regexp_replace({value}, {quoted(_unit_pattern(names))}, '\\1\\2', 'g')"
    value = f"regexp_replace({value}, '^(?:\\((.*)\\)|(.*[0-9].*)-)$', '-\\1\\2')"
    marks = quoted(_thousands_marks(decimal))
    plain = f"replace(regexp_replace({value}, {marks}, '', 'g'), ',', '.')"
    parsed = (
        f"CASE WHEN regexp_full_match({value}, {quoted(grammar(decimal))}) "
        f"THEN TRY_CAST({plain} AS DOUBLE){factor} END"
    )
    # 1.234 is a thousand and more where the comma is the decimal mark
    return f"coalesce(TRY_CAST({raw} AS DOUBLE), {parsed})" if decimal == "." else parsed


def _unit_pattern(names: list[str]) -> str:
    """A pattern of a unit at either end, inside of a sign or of brackets."""
    listed = "|".join(re.escape(name.strip()).replace("\\ ", "\\s*") for name in names)
    return f"(?i)^([(+-]*)\\s*(?:{listed})\\s*|\\s*(?:{listed})\\s*([)-]?)$"


def canonical_sql(raw: str) -> str:
    """SQL for a code written as a number: 8.0 is 8."""
    whole = f"regexp_replace(CAST({raw} AS VARCHAR), '^([+-]?[0-9]+)[.]0*$', '\\1')"
    return f"CASE WHEN {raw} IS NOT NULL THEN {whole} END"


def canonical(value: int | float | str) -> str:
    """A code as the column has it, of a number or a text in a request."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def part_sql(raw: str, part: str) -> str:
    """SQL for a part of a text, as text; NULL where it has none."""
    kind, _, item = part.partition(" ")
    match kind:
        case "host":
            host = f"translate(regexp_extract({raw}, {quoted(HOST)}, 1), '{UPPER}', '{LOWER}')"
            return f"nullif(regexp_replace({host}, '^www[.]', ''), '')"
        case "first" | "second":
            group = 1 if kind == "first" else 2
            return f"nullif(regexp_extract({raw}, {quoted(f'^{PAIR}$')}, {group}), '')"
    split = " ".join(f"WHEN contains({raw}, '{mark}') THEN '{mark}'" for mark in "|;")
    items = f"string_split({raw}, CASE {split} ELSE ',' END)"
    items = f"list_transform({items}, lambda item: trim(item, {quoted(ITEM_PADDING)}))"
    items = f"list_filter({items}, lambda item: item <> '')"
    if kind == "count":
        return f"CAST(len({items}) AS VARCHAR)"
    return f"CAST(list_contains({items}, {quoted(item)}) AS VARCHAR)"


def items_of(value: str) -> list[str]:
    """The items of a list in a text: [a, b], a|b or a; b."""
    mark = next((mark for mark in "|;" if mark in value), ",")
    return [item for piece in value.split(mark) if (item := piece.strip(ITEM_PADDING))]


def part_of(value: str | None, part: str, blanks: str) -> str | float | bool | None:
    """A part of a text as the database takes it: a host, a number, or whether an item is there.

    Args:
        blanks: what the database trims.
    """
    if value is None or not (value := value.strip(blanks)):
        return None
    kind, _, item = part.partition(" ")
    match kind:
        case "host":
            match = re.search(HOST, value)
            host = match[1].translate(str.maketrans(UPPER, LOWER)) if match else ""
            return host.removeprefix("www.") or None
        case "first" | "second":
            match = re.fullmatch(PAIR, value)
            return float(match[1 if kind == "first" else 2]) if match else None
        case "count":
            return float(len(items_of(value)))
    return item in items_of(value)
