"""Texts that hold something else: numbers as people write them, parts, and personal data.

The database reads files by the SQL here, the service reads requests by the functions beside it; a
test compares the two over awkward values. Needs the standard library only: `export` puts this file
beside the model, which masks what it reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

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

# Of no script that sets no blanks between words: there an address has no start
LETTERS = "A-Za-z\u00c0-\u0dff\u1e00-\u1fff\uff21-\uff5a"
EMAIL = (
    rf"(?P<value>[{LETTERS}0-9_.%+-]" r"{1,64}" rf"@(?:[{LETTERS}0-9_-]" r"{1,63}[.]){1,8}"
    r"(?:xn--[a-z0-9-]{2,59}|" rf"[{LETTERS}]" r"{2,24}))"
)  # fmt: skip
# What all numbers have; a text without is quickly left alone
SEVEN_DIGITS = re.compile(r"\d(?:\W{0,3}\d){6}")
MIN_DIGITS, OTHER_BYTES = 7, bytes({*range(256)} - {*b"0123456789"})
# Digits right behind or before one of these are part of something else, such as a price, a path or a time
ALONE = r"(?<![\w@#\u2116$\u20ac\u00a3\u00a5/\\=&?+-])(?<!\d[.:])(?P<value>{})(?![\w@$\u20ac\u00a3\u00a5%\u00b0])(?![.:/+-]\d)"
CARD = ALONE.format(
    r"\d{4}(?P<gap>[ -])\d{4}(?P=gap)\d{4}(?:(?P=gap)\d{1,7})?|\d{4}(?P<space>[ -])\d{6}(?P=space)\d{4,5}|\d{14,19}"
)
# ISO/IEC 7812: what the cards of the large networks begin with, and how long their numbers are
CARD_DIGITS = re.compile(
    "4[0-9]{15}(?:[0-9]{3})?|(?:5[1-5]|2[2-7]|35)[0-9]{14}|3[47][0-9]{13}|3[068][0-9]{12}|6[0-9]{15,18}"
)
PHONE = ALONE.format(
    "|".join(
        (
            r"\(?[+]\)?[1-9](?:[ ()./-]{0,3}\d){7,14}",  # from abroad, as ITU-T E.164 has it
            r"00[1-9]\d{0,3}[ ()./-](?:[ ()./-]{0,2}\d){6,11}",
            r"(?:1[-. ])?\([2-9]\d\d\)[ .-]?\d{3}[ .-]\d{4}",  # North America
            r"(?:1[-. ])?[2-9]\d\d(?P<us>[-. ])[1-9]\d\d(?P=us)\d{4}",
            r"1[3-9]\d(?P<cn>[ -])\d{4}(?P=cn)\d{4}",
            # The area first, which begins with 0
            r"\(0[1-9]\d{0,4}\)(?:[ ./-]{0,3}\d){5,9}",
            r"0[1-9](?P<two>[ .-])\d\d(?:(?P=two)\d\d){3}",
            r"0[1-9](?:(?P<four>[ -])\d{4}(?P=four)\d{4}|[ /-]{1,3}\d{6,8})",
            r"0[1-9]\d{1,4}(?: ?[/-] ?| )\d{2,8}(?:(?P<rest>[ -])\d{2,4}(?:(?P=rest)\d{2,4}){0,2})?",
        )
    )
)
# After such a word any seven digits are a phone's, unless they are a date
CALLED = (
    r"(?i)(?<![\w<])(?:tel|(?:tele)?(?:ph|f)one?|mobile?|cell|cellphone|handy|fax|whatsapp|sms|(?:call|ring|text) (?:me|us))"
    r"\b\W{1,3}(?:(?:number|nummer|no|nr|is(?:t)?|at|on|under|back)\W{1,3}){0,3}"
    r"(?P<value>(?!\d{1,4}[-./]\d{1,2}[-./]\d{1,4}\b)\(?\d(?:[ ()./-]{0,3}\d){6,14})(?!\w)(?![.:/+-]\d)"
)
# +1 234 567 890 is an amount as well; a phone with groups of three has two digits more
THOUSANDS = re.compile("[+][0-9]{1,3}(?:[ .][0-9]{3})+")
# Signs that other scripts and typesetters write for those above
PLAIN_SIGNS = {zero + i: ord(str(i)) for zero in (0x660, 0x6F0, 0x966, 0xFF10) for i in range(10)}
PLAIN_SIGNS |= str.maketrans(
    "\u2010\u2011\u2012\u2013\u2014\u2015\uff0d\uff0b\uff08\uff09\uff20\uff0e\u00a0\u202f\u2007\u3000",
    "-------+()@.    ",
)

AT_SIGNS = "@\uff20"  # without which there is no e-mail address


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


def masked(text: str, kinds: Collection[str]) -> str:
    """A text in which personal data is replaced by what it is: `<email>`, `<phone>`, `<card>`.

    Masking again changes nothing, and the time grows with the length of the text, whatever is in it.

    Args:
        kinds: what is looked for. email. phone: as people write it, from abroad, with an area in brackets or
            with a 0, in groups; bare digits only behind a word such as tel. card: of the large networks, with
            the right check digit.
    """
    has_sign, has_number = any(sign in text for sign in AT_SIGNS), _may_hold_number(text)
    for kind, pattern, holds in PERSONAL:
        if kind in kinds and (has_sign if kind == "email" else has_number):
            text = _replaced(text, pattern, holds, f"<{kind}>")
    return text


def _may_hold_number(text: str) -> bool:
    """Whether digits stand close enough for a phone or a card; most texts have few, and counting is quick."""
    if text.isascii() and len(text.encode().translate(None, OTHER_BYTES)) < MIN_DIGITS:
        return False
    return SEVEN_DIGITS.search(text) is not None


def _replaced(text: str, pattern: re.Pattern[str], holds: Callable[[str], bool], tag: str) -> str:
    plain = text if text.isascii() else text.translate(PLAIN_SIGNS)  # sign for sign
    pieces, end = [], 0
    for match in pattern.finditer(plain):
        if holds(match["value"]):
            start = match.start("value")
            start += plain[start] == "(" and ")" not in match["value"]  # a bracket around all of it
            pieces += [text[end:start], tag]
            end = match.end("value")
    return "".join([*pieces, text[end:]]) if pieces else text


def _is_card(number: str) -> bool:
    """Whether the digits are a card's, by its network and by the check digit (Luhn, ISO/IEC 7812-1)."""
    digits = re.sub("[ -]", "", number)
    if not CARD_DIGITS.fullmatch(digits):
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _is_phone(number: str) -> bool:
    digits = sum(map(str.isdecimal, number))
    return digits >= (11 if THOUSANDS.fullmatch(number) else 8 if "+" in number else 9)


# What is masked, in this order: the pattern of what may be some, and whether it is
PERSONAL = tuple(
    (kind, re.compile(pattern), holds)
    for kind, pattern, holds in (
        ("email", EMAIL, bool),
        ("card", CARD, _is_card),
        ("phone", PHONE, _is_phone),
        ("phone", CALLED, bool),
    )
)
