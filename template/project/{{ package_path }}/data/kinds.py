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


def _repeats(one: Found) -> float:
    """How often a value comes, on average."""
    return one.given / max(one.distinct, 1)


def _dense(one: Found) -> bool:
    """Whether the values leave few gaps."""
    return bool(one.distinct >= 0.4 * (one.high - one.low + 1))


def _years(one: Found) -> bool:
    return "year" in one.name and bool(one.low >= 1800 and one.high <= 2200)


# Of whole numbers: an amount, or a code that happens to be written in digits
CODES = (
    Rule(lambda one: bool(one.units or one.decimal), "number", "it is written as an amount"),
    Rule(lambda one: one.distinct == 2 and _repeats(one) >= 3, "category", "two values"),
    Rule(
        lambda one: bool(AMOUNT.search(one.name)) and (one.distinct > 8 or "age" not in one.name),
        "number",
        "its name is an amount's",
    ),
    Rule(
        lambda one: bool(CODE.search(one.name)) and one.distinct <= FEW and _repeats(one) >= 2,
        "category",
        "its name is a code's",
    ),
    Rule(
        lambda one: _years(one) and one.distinct <= MOST_CODES and _repeats(one) >= 20,
        "category",
        "years that come again and again",
    ),
    Rule(
        lambda one: (
            bool(CODE.search(one.name))
            and "year" not in one.name
            and _repeats(one) >= (5 if one.distinct <= MOST_CODES else 20)
        ),
        "category",
        "its name is a code's",
    ),
    Rule(
        lambda one: one.distinct <= FEW and _dense(one) and _repeats(one) >= 5,
        "category",
        "few whole values without gaps",
    ),
    Rule(
        lambda one: one.distinct <= FEW and _repeats(one) >= 20,
        "category",
        "few whole values that come again and again",
    ),
)


def tell_codes(columns: list[Found]) -> None:
    """Make categories of the numbers that are codes, and of what the user says."""
    for one in columns:
        if one.wanted == "category" and one.type != "category" and not one.part:
            one.coded = "--category says so"
        elif one.type == "number" and not one.wanted and not one.part:
            # A code that comes half of the time stands beside what was meant by missing
            rule = next((rule for rule in CODES if one.whole and rule.holds(one)), None)
            one.coded = rule.why if rule and rule.kind == "category" else ""
        if one.coded and one.type != "category":
            one.type = "category"


def _identifies(one: Found) -> bool:
    """Whether a category has nearly as many values as rows, or whole numbers count the rows."""
    if one.type == "category" and one.order:
        return False
    if one.whole and one.type in ("number", "category") and one.low is not None:
        return one.given >= 50 and numbers_rows(one.low, one.high, one.distinct, one.given)
    often = one.distinct > 0.9 * one.given if one.given >= 50 else one.distinct == one.given >= 20
    return one.type == "category" and often and not one.wordy


def _few(one: Found) -> bool:
    return one.distinct <= FEW


def _named(one: Found, pattern: re.Pattern[str]) -> bool:
    return bool(pattern.search(one.name))


# What the model does not see
OUT = (
    Rule(lambda one: one.wanted == "drop", "out", "--drop says so"),
    Rule(lambda one: not one.given, "out", "no row has a value"),
    Rule(lambda one: one.distinct <= 1, "out", "every row has the same value"),
    Rule(lambda one: bool(one.wanted), "in", ""),
    Rule(
        lambda one: one.type == "number" and _identifies(one),
        "identifier",
        "an identifier: nearly every row has a value of its own",
    ),
    Rule(
        lambda one: (
            one.personal
            or (
                not _few(one)
                and one.type in ("category", "text", "number")
                and _named(one, PERSONAL)
            )
        ),
        "personal",
        "personal by its name or its values, a guess",
    ),
    Rule(
        lambda one: _named(one, SENSITIVE) and (_few(one) or one.type == "category"),
        "out",
        "sensitive by its name: the answer must not hang on it",
    ),
    Rule(
        lambda one: _identifies(one),
        "identifier",
        "an identifier: nearly every row has a value of its own",
    ),
    Rule(
        lambda one: _named(one, ID) and not _few(one) and one.type not in ("time", "bool"),
        "identifier",
        "an identifier: its name says so",
    ),
    Rule(
        lambda one: one.type == "time" and not clock(one),
        "out",
        "a second moment; it may lie after the label was known",
    ),
    Rule(lambda one: one.type == "text", "out", "free text: {} values"),
    Rule(
        lambda one: (
            one.type == "category"
            and not one.coded
            and not _few(one)
            and one.distinct > 0.05 * one.given
        ),
        "many",
        "too many categories: {} values",
    ),
)


def clock(one: Found) -> bool:
    """Whether a time has no date."""
    return bool(one.formats) and not any("%d" in form or "%Y" in form for form in one.formats or ())


def treat(one: Found, rows: int, event: bool) -> None:
    """Decide what a column is to the model: `feature` prepares it, `why` keeps it out."""
    flag = {"impute": "flag"} if one.given < 0.95 * rows else {}
    one.feature = {
        "number": {"impute": "median", **flag, "scale": "standard", "encode": "number"},
        "bool": {**flag, "encode": "number"},
        "time": {"encode": "cyclic", "period": "day" if clock(one) else "week"},
    }.get(one.type, {"encode": "one_hot"} if _few(one) else COMMONEST)
    if one.why:  # its parts are columns of their own
        one.feature, one.personal = None, False
        return
    if event:
        rule = Rule(lambda _: True, "in", "")
        if one.distinct > 1 and (one.high - one.low).days < 14:
            rule = Rule(lambda _: True, "out", "two weeks are too few to tell weekdays")
    else:
        rule = next((rule for rule in OUT if rule.holds(one)), Rule(_few, "in", ""))
    one.why = rule.why.format(f"{one.distinct:,}")
    one.personal = rule.kind == "personal"
    if one.personal:
        one.feature, one.type = None, "text" if one.type == "number" else one.type
    elif rule.kind == "identifier":
        if not one.part:  # what a part gives is fixed
            one.type, one.feature = "category", HASHED
        one.unique = one.distinct == one.given == rows
    elif rule.kind == "many" and one.wordy:
        one.type, one.why = "text", f"free text: {one.distinct:,} values"
