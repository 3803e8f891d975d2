"""What each column is to the model: lists of rules, each with its reason; the first that holds decides."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from .label import numbers_rows
from .profile import Found

FEW = 20  # categories that a person still looks at one by one
MOST_CODES = 100  # up to here codes that are numbers keep their order
HASHED = {"encode": "hash", "bins": 32}
# A column for each of the commonest hundred: hashing into fewer mixes up categories that trees would tell apart
COMMONEST = {"encode": "one_hot", "bins": 100}
ID = re.compile(r"(^|_)(id|key|uuid|guid)$")
SENSITIVE = re.compile(
    r"(^|_)(gender|sex|race|ethnic|ethnicity|religion|nationality|disability|disabled)(_|$)"
)
PERSONAL = re.compile(
    r"(^|_)(e_?mail|phone|telephone|mobile|fax|address|street|surname|iban|ssn|passport)(_|$)"
    r"|^((first|last|full|given|family|user|customer|client|person|contact|patient)_?)?name$"
)
AMOUNT = re.compile(
    r"(^|_)(n|num|number|count|cnt|qty|quantity|total|sum|amount|price|cost|fee|salary|income|"
    r"rooms?|bedrooms?|bathrooms?|baths?|beds?|children|kids|dependents|siblings|sibsp|parch|persons?|"
    r"people|members|guests|visits|items|floors|stories|doors|seats|ages?|days|weeks|months|hours|"
    r"minutes|seconds|years|tenure|weight|height|length|width|size|area|distance|duration|temp|"
    r"temperature|humidity|speed|percent|pct|rate|ratio)(_|$)"
)
CODE = re.compile(
    r"(^|_)(code|type|kind|id|zip|zipcode|postal|postcode|class|subclass|grade|level|rank|category|cat|"
    r"group|region|district|ward|zone|area_code|state|county|country|sector|segment|cluster|status|"
    r"flag|month|weekday|dow|day|day_of_week|hour|week|quarter|season|year|store|shop|dept|department|"
    r"branch|version|subject|site|batch|lot|shift|team|gender|sex|race)(_|$)"
)


class Rule(NamedTuple):
    holds: Callable[[Found], bool]
    kind: str
    why: str


def _repeats(column: Found) -> float:
    """How often a value comes, on average."""
    return column.given / max(column.distinct, 1)


def _dense(column: Found) -> bool:
    """Whether the values leave few gaps."""
    return bool(column.distinct >= 0.4 * (column.high - column.low + 1))


def _years(column: Found) -> bool:
    return "year" in column.name and bool(column.low >= 1800 and column.high <= 2200)


# Of whole numbers: an amount, or a code that happens to be written in digits
CODES = (
    Rule(lambda c: bool(c.units or c.decimal), "number", "it is written as an amount"),
    Rule(lambda c: c.distinct == 2 and _repeats(c) >= 3, "category", "two values"),
    Rule(
        lambda c: bool(AMOUNT.search(c.name)) and (c.distinct > 8 or "age" not in c.name),
        "number",
        "its name is an amount's",
    ),
    Rule(
        lambda c: bool(CODE.search(c.name)) and c.distinct <= FEW and _repeats(c) >= 2,
        "category",
        "its name is a code's",
    ),
    Rule(
        lambda c: _years(c) and c.distinct <= MOST_CODES and _repeats(c) >= 20,
        "category",
        "years that come again and again",
    ),
    Rule(
        lambda c: (
            bool(CODE.search(c.name))
            and "year" not in c.name
            and _repeats(c) >= (5 if c.distinct <= MOST_CODES else 20)
        ),
        "category",
        "its name is a code's",
    ),
    Rule(
        lambda c: c.distinct <= FEW and _dense(c) and _repeats(c) >= 5,
        "category",
        "few whole values without gaps",
    ),
    Rule(
        lambda c: c.distinct <= FEW and _repeats(c) >= 20,
        "category",
        "few whole values that come again and again",
    ),
)


def tell_codes(columns: list[Found]) -> None:
    """Make categories of the numbers that are codes, and of what the user says."""
    for column in columns:
        if column.wanted == "category" and column.type != "category" and not column.part:
            column.coded = "--category says so"
        elif column.type == "number" and not column.wanted and not column.part:
            # A code that comes half of the time stands beside what was meant by missing
            rule = next((rule for rule in CODES if column.whole and rule.holds(column)), None)
            column.coded = rule.why if rule and rule.kind == "category" else ""
        if column.coded and column.type != "category":
            column.type = "category"


def _identifies(column: Found) -> bool:
    """Whether a category has nearly as many values as rows, or whole numbers count the rows."""
    if column.type == "category" and column.order:
        return False
    present, different = column.given, column.distinct
    if column.whole and column.type in ("number", "category") and column.low is not None:
        return present >= 50 and numbers_rows(column.low, column.high, different, present)
    often = different > 0.9 * present if present >= 50 else different == present >= 20
    return column.type == "category" and often and not column.wordy


def _few(column: Found) -> bool:
    return column.distinct <= FEW


def _named(column: Found, pattern: re.Pattern[str]) -> bool:
    return bool(pattern.search(column.name))


# What the model does not see
OUT = (
    Rule(lambda c: c.wanted == "drop", "out", "--drop says so"),
    Rule(lambda c: not c.given, "out", "no row has a value"),
    Rule(lambda c: c.distinct <= 1, "out", "every row has the same value"),
    Rule(lambda c: bool(c.wanted), "in", ""),
    Rule(
        lambda c: c.type == "number" and _identifies(c),
        "identifier",
        "an identifier: nearly every row has a value of its own",
    ),
    Rule(
        lambda c: (
            c.personal
            or (not _few(c) and c.type in ("category", "text", "number") and _named(c, PERSONAL))
        ),
        "personal",
        "personal by its name or its values, a guess",
    ),
    Rule(
        lambda c: _named(c, SENSITIVE) and (_few(c) or c.type == "category"),
        "out",
        "sensitive by its name: the answer must not hang on it",
    ),
    Rule(
        lambda c: _identifies(c),
        "identifier",
        "an identifier: nearly every row has a value of its own",
    ),
    Rule(
        lambda c: _named(c, ID) and not _few(c) and c.type not in ("time", "bool"),
        "identifier",
        "an identifier: its name says so",
    ),
    Rule(
        lambda c: c.type == "time" and not clock(c),
        "out",
        "a second moment; it may lie after the label was known",
    ),
    Rule(lambda c: c.type == "text", "out", "free text: {} values"),
    Rule(
        lambda c: (
            c.type == "category" and not c.coded and not _few(c) and c.distinct > 0.05 * c.given
        ),
        "many",
        "too many categories: {} values",
    ),
)


def clock(column: Found) -> bool:
    """Whether a time has no date."""
    forms = column.formats or ()
    return bool(forms) and not any("%d" in form or "%Y" in form for form in forms)


def treat(column: Found, rows: int, event: bool) -> None:
    """Decide what a column is to the model: `feature` prepares it, `why` keeps it out."""
    flag = {"impute": "flag"} if column.given < 0.95 * rows else {}
    column.feature = {
        "number": {"impute": "median", **flag, "scale": "standard", "encode": "number"},
        "bool": {**flag, "encode": "number"},
        "time": {"encode": "cyclic", "period": "day" if clock(column) else "week"},
    }.get(column.type, {"encode": "one_hot"} if _few(column) else COMMONEST)
    if column.why:  # its parts are columns of their own
        column.feature, column.personal = None, False
        return
    if event:
        rule = Rule(lambda _: True, "in", "")
        if column.distinct > 1 and (column.high - column.low).days < 14:
            rule = Rule(lambda _: True, "out", "two weeks are too few to tell weekdays")
    else:
        rule = next((rule for rule in OUT if rule.holds(column)), Rule(_few, "in", ""))
    column.why = rule.why.format(f"{column.distinct:,}")
    column.personal = rule.kind == "personal"
    if column.personal:
        column.feature, column.type = None, "text" if column.type == "number" else column.type
    elif rule.kind == "identifier":
        if not column.part:  # what a part gives is fixed
            column.type, column.feature = "category", HASHED
        column.unique = column.distinct == column.given == rows
    elif rule.kind == "many" and column.wordy:
        column.type, column.why = "text", f"free text: {column.distinct:,} values"
