"""What each column is to the model: lists of rules, each with its reason; the first that holds decides."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from .label import numbers_rows
from .profile import Profile

FEW_CATEGORIES = 20  # categories that a person still looks at one by one
MAX_ORDERED_CODES = 100  # up to here codes that are numbers keep their order
HASH_ENCODING = {"encode": "hash", "bins": 32}
MIN_TEXT_SHARE = 0.05  # of the rows that have a text or an image, for a model to learn from it
# A column for each of the commonest hundred: hashing into fewer mixes up categories that trees would tell apart
TOP_CATEGORIES = {"encode": "one_hot", "bins": 100}
ID_NAME = re.compile(r"(^|_)(id|key|uuid|guid)$")
SENSITIVE_NAME = re.compile(
    r"(^|_)(gender|sex|race|ethnic|ethnicity|religion|nationality|disability|disabled)(_|$)"
)
# What points at nobody alone, and together often does
QUASI_NAME = re.compile(
    r"(^|_)(age|birth|birthday|birthdate|dob|gender|sex|race|ethnicity|nationality|zip|zipcode|postcode|postal|plz|"
    r"city|town|district|region|country|occupation|job|profession|education|marital|religion)(_|$)"
)
PERSONAL_NAME = re.compile(
    r"(^|_)(e_?mail|phone|telephone|mobile|fax|address|street|surname|iban|ssn|passport)(_|$)"
    r"|^((first|last|full|given|family|user|customer|client|person|contact|patient)_?)?name$"
)
LIST_NAME = re.compile(
    r"(^|_)(query|search|session|list|request|slate|serp|impression|page_view|qid|srch)(_?(id|key|no|uuid))?$"
)
AMOUNT_NAME = re.compile(
    r"(^|_)(n|num|number|count|cnt|qty|quantity|total|sum|amount|price|cost|fee|salary|income|"
    r"rooms?|bedrooms?|bathrooms?|baths?|beds?|children|kids|dependents|siblings|sibsp|parch|persons?|"
    r"people|members|guests|visits|items|floors|stories|doors|seats|ages?|days|weeks|months|hours|"
    r"minutes|seconds|years|tenure|weight|height|length|width|size|area|distance|duration|temp|"
    r"temperature|humidity|speed|percent|pct|rate|ratio)(_|$)"
)
CODE_NAME = re.compile(
    r"(^|_)(code|type|kind|id|zip|zipcode|postal|postcode|class|subclass|grade|level|rank|category|cat|"
    r"group|region|district|ward|zone|area_code|state|county|country|sector|segment|cluster|status|"
    r"flag|month|weekday|dow|day|day_of_week|hour|week|quarter|season|year|store|shop|dept|department|"
    r"branch|version|subject|site|batch|lot|shift|team|gender|sex|race)(_|$)"
)


class Rule(NamedTuple):
    """What to do with a column of which `holds` is true, and why; `{}` in the reason is its values."""

    holds: Callable[[Profile], bool]
    verdict: str
    reason: str


def _rows_per_value(column: Profile) -> float:
    """How often a value comes, on average."""
    return column.present / max(column.distinct, 1)


def _dense(column: Profile) -> bool:
    """Whether the values leave few gaps."""
    return bool(column.distinct >= 0.4 * (column.high - column.low + 1))


def _years(column: Profile) -> bool:
    return "year" in column.name and bool(column.low >= 1800 and column.high <= 2200)


# Of whole numbers: an amount, or a code that happens to be written in digits
CODE_RULES = (
    Rule(lambda c: bool(c.units or c.decimal), "number", "it is written as an amount"),
    Rule(lambda c: c.distinct == 2 and _rows_per_value(c) >= 3, "category", "two values"),
    Rule(
        lambda c: _name_has(c, AMOUNT_NAME) and (c.distinct > 8 or "age" not in c.name),
        "number",
        "its name is an amount's",
    ),
    Rule(
        lambda c: _name_has(c, CODE_NAME) and _few_values(c) and _rows_per_value(c) >= 2,
        "category",
        "its name is a code's",
    ),
    Rule(
        lambda c: _years(c) and c.distinct <= MAX_ORDERED_CODES and _rows_per_value(c) >= 20,
        "category",
        "years that come again and again",
    ),
    Rule(
        lambda c: (
            _name_has(c, CODE_NAME)
            and "year" not in c.name
            and _rows_per_value(c) >= (5 if c.distinct <= MAX_ORDERED_CODES else 20)
        ),
        "category",
        "its name is a code's",
    ),
    Rule(
        lambda c: _few_values(c) and _dense(c) and _rows_per_value(c) >= 5,
        "category",
        "few whole values without gaps",
    ),
    Rule(
        lambda c: _few_values(c) and _rows_per_value(c) >= 20,
        "category",
        "few whole values that come again and again",
    ),
)


def mark_codes(columns: list[Profile]) -> None:
    """Make categories of the numbers that are codes, and of what the user says."""
    for column in columns:
        if column.user_kind == "category" and column.type != "category" and not column.part:
            column.code_reason = "--category says so"
        elif column.type == "number" and not column.user_kind and not column.part:
            # A code that comes half of the time stands beside what was meant by missing
            rule = next((rule for rule in CODE_RULES if column.whole and rule.holds(column)), None)
            column.code_reason = rule.reason if rule and rule.verdict == "category" else ""
        if column.code_reason and column.type != "category":
            column.type = "category"


def _identifies(column: Profile) -> bool:
    """Whether a category has nearly as many values as rows, or whole numbers count the rows."""
    if column.type == "category" and column.order:
        return False
    present, distinct = column.present, column.distinct
    if column.whole and column.type in ("number", "category") and column.low is not None:
        return present >= 50 and numbers_rows(column.low, column.high, distinct, present)
    nearly_unique = distinct > 0.9 * present if present >= 50 else distinct == present >= 20
    is_text = column.has_blanks or column.prose
    return column.type == "category" and nearly_unique and not is_text


def _few_values(column: Profile) -> bool:
    return column.distinct <= FEW_CATEGORIES


def _many_values(column: Profile) -> bool:
    """Whether a category has more values than a model can learn one by one."""
    is_category = column.type == "category" and not column.code_reason
    return is_category and not _few_values(column) and column.distinct > 0.05 * column.present


def _few_texts(column: Profile) -> bool:
    """Whether hardly a row has a text, mostly one of its own."""
    is_text = column.type == "category" and column.prose and column.distinct > 0.5 * column.present
    return bool(is_text and column.present < MIN_TEXT_SHARE * column.rows)


def _name_has(column: Profile, pattern: re.Pattern[str]) -> bool:
    return bool(pattern.search(column.name))


NEARLY_UNIQUE = "an identifier: nearly every row has a value of its own"
# What the model does not see
FEATURE_RULES = (
    Rule(lambda c: c.user_kind == "drop", "out", "--drop says so"),
    Rule(lambda c: not c.present, "out", "no row has a value"),
    Rule(lambda c: c.distinct <= 1, "out", "every row has the same value"),
    Rule(lambda c: bool(c.user_kind), "in", ""),
    Rule(
        lambda c: c.type == "image" and c.present < MIN_TEXT_SHARE * c.rows,
        "out",
        "nearly no row has an image",
    ),
    Rule(lambda c: c.type == "image", "in", ""),
    Rule(lambda c: c.type == "number" and _identifies(c), "identifier", NEARLY_UNIQUE),
    Rule(
        lambda c: (
            c.personal
            or (
                not _few_values(c)
                and c.type not in ("time", "bool")
                and _name_has(c, PERSONAL_NAME)
            )
        ),
        "personal",
        "personal by its name or its values, a guess",
    ),
    Rule(
        lambda c: _name_has(c, SENSITIVE_NAME) and (_few_values(c) or c.type == "category"),
        "out",
        "sensitive by its name: the answer must not hang on it",
    ),
    Rule(_identifies, "identifier", NEARLY_UNIQUE),
    Rule(
        lambda c: _name_has(c, ID_NAME) and not _few_values(c) and c.type not in ("time", "bool"),
        "identifier",
        "an identifier: its name says so",
    ),
    Rule(
        lambda c: c.type == "time" and not is_clock(c),
        "out",
        "a second moment; it may lie after the label was known",
    ),
    Rule(lambda c: c.type == "text", "out", "nothing that a model reads: {} values"),
    Rule(_few_texts, "text", "nearly no row has a text"),
    Rule(lambda c: _many_values(c) and bool(c.prose), "text", ""),
    Rule(
        lambda c: _many_values(c) and c.has_blanks,
        "text",
        "short texts, JSON or numbers in words: {} values",
    ),
    Rule(_many_values, "out", "too many categories: {} values"),
)


def is_clock(column: Profile) -> bool:
    """Whether a time has no date."""
    forms = column.formats or ()
    return bool(forms) and not any("%d" in form or "%Y" in form for form in forms)


def decide_feature(column: Profile, rows: int, event: bool) -> None:
    """Decide what a column is to the model: `feature` prepares it, `exclusion` keeps it out."""
    flag = {"impute": "flag"} if column.present < 0.95 * rows else {}
    column.feature = {
        "number": {"impute": "median", **flag, "scale": "standard", "encode": "number"},
        "bool": {**flag, "encode": "number"},
        "time": {"encode": "cyclic", "period": "day" if is_clock(column) else "week"},
        "image": {"encode": "patches"},
    }.get(column.type, {"encode": "one_hot"} if _few_values(column) else TOP_CATEGORIES)
    if column.exclusion:  # its parts are columns of their own
        column.feature, column.personal = None, False
        return
    if event:
        rule = Rule(lambda _: True, "in", "")
        if column.distinct > 1 and (column.high - column.low).days < 14:
            rule = Rule(lambda _: True, "out", "two weeks are too few to tell weekdays")
    else:
        rule = next(
            (rule for rule in FEATURE_RULES if rule.holds(column)), Rule(_few_values, "in", "")
        )
    column.exclusion = rule.reason.format(f"{column.distinct:,}")
    column.personal = rule.verdict == "personal"
    if column.personal:
        column.feature, column.type = None, "text" if column.type == "number" else column.type
    elif rule.verdict == "identifier":
        if not column.part:  # what a part gives is fixed
            column.type, column.feature = "category", HASH_ENCODING
        column.unique = column.distinct == column.present == rows
    elif rule.verdict == "text":
        column.type, column.feature = "text", {"encode": column.prose or "words"}
