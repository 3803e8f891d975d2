"""Telling from a column's texts how its numbers are written: decimal mark, units, words for nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .parsing import BLANKS, MINUS, QUOTES, grammar

FITS = 0.995  # share of the values that must be numbers, times, … to call a column so
UNIT = '[A-Za-zµμ°²³"][A-Za-zµμ°²³./"]{0,14}(?: [A-Za-z]{1,12})?'
CURRENCIES = (
    "[$€£¥₹₽₩₺₪฿₫₴₦₱₡₸]|(?:US|A|C|HK|NZ|R|S)[$]|USD|EUR|GBP|JPY|CHF|INR|CNY|AUD|CAD|BRL|SEK|NOK|DKK|PLN|"
    "CZK|HUF|TRY|ZAR|MXN|RUB|Rs[.]?|kr[.]?|Fr[.]?|[<>]=?|[≤≥~≈]"
)
APPROXIMATE = set("<>≤≥~≈+") | {"<=", ">="}  # not exactly, which no unit hangs on
NUMBER_TEXT = re.compile(
    rf"(?P<before>[(+-]*)\s*(?P<first>{CURRENCIES})?\s*(?P<sign>[+-]?)"
    rf"(?P<number>[0-9.,](?:[0-9.,{BLANKS}{QUOTES}]*[0-9.,])?(?:[eE][+-]?[0-9]+)?)"
    rf"\s*(?P<last>%|‰|[+]|/ ?[0-9]+|out of [0-9]+|{CURRENCIES}|{UNIT})?\s*(?P<behind>[)-]?)",
    re.IGNORECASE,
)
# What people write for "nothing" beside the words that are never a value (`schema.MISSING_WORDS`)
MISSING_TEXT = re.compile(
    r"n\W?d\W?|n\W?a\W?|k\W?a\W?|s\W?d\W?|unkn?(own)?|missing|no ?data|(not|un)[ -]?(available|applicable|"
    r"given|known|specified|recorded|reported)|nil|empty|undefined|tb[acd]|unbekannt|inconnu|"
    r"desconocido|keine angabe|[<(\[]?(null|none|nan|na)[>)\]]?|[\W_]+|#.+",
    re.IGNORECASE,
)
# Excel's errors, in any language
SPREADSHEET_ERROR = r"#(#+|N/[AD]|NV|GETTING_DATA|[A-Z][A-Z_/0]*[!?])"
MULTIPLIERS = {"k": 1e3, "tsd": 1e3, "thousand": 1e3, "m": 1e6, "mn": 1e6, "mio": 1e6, "mln": 1e6,
         "million": 1e6, "b": 1e9, "bn": 1e9, "mrd": 1e9, "billion": 1e9}  # fmt: skip
MAX_MISSING_WORDS = 10  # different words among numbers that are taken for "nothing"
MAX_NUMBER_CODES = 10  # up to here, numbers beside words are codes beside words


@dataclass
class NumberFormat:
    """How a column's numbers are written, and what to say of it."""

    decimal: str | None = None  # the mark before the fraction
    units: dict[str, float] = field(default_factory=dict)  # unit -> its factor
    note: str = ""  # for the user
    certain: bool = True  # no other decimal mark would do as well
    mixed: bool = False  # several units: no numbers until their factors are given


def infer_format(texts: Mapping[str, int], default_mark: str = ".") -> NumberFormat | None:
    """How a column's numbers are written, or None where its texts are no numbers.

    Args:
        texts: the values of a column -> how often.
        default_mark: the decimal mark where the values leave it open, as in 1,208.
    """
    minus = str.maketrans(dict.fromkeys(MINUS, "-"))
    parsed: list[tuple[re.Match[str], int]] = []
    unparsed: Counter[str] = Counter()
    n_strange = 0
    for value, count in texts.items():
        if match := NUMBER_TEXT.fullmatch(value.translate(minus).strip()):
            parsed.append((match, count))
        elif MISSING_TEXT.fullmatch(value):
            continue
        elif re.search("[0-9]", value):
            n_strange += count
        else:
            unparsed[value.lower()] += count
    n = sum(count for _, count in parsed)
    if not mostly_numbers(n, len(parsed), unparsed) or n_strange > (1 - FITS) * (n + n_strange):
        return None
    if any(re.match("0[0-9]", match["number"]) for match, _ in parsed):
        return None  # a code
    if all(match["before"] == "(" for match, _ in parsed):
        return None  # brackets around every number mean no minus
    fits = {mark: _count_fitting(parsed, mark) for mark in ".,"}
    best_mark = max(fits, key=lambda mark: (fits[mark], mark == default_mark))
    units, unit_note = _units(parsed)
    if fits[best_mark] < FITS * n:
        return None
    if units is None:
        return NumberFormat(note=unit_note, mixed=True)
    minus_signs = any(set(value) & set(MINUS) for value in texts)
    number_format = _describe(parsed, best_mark, units, unit_note, minus_signs)
    number_format.certain = fits[","] != fits["."]
    return number_format


def mostly_numbers(numbers: int, distinct: int, texts: Mapping[str, int]) -> bool:
    """Whether numbers with some words among them are a column of numbers.

    Nearly all are numbers, or a few words stand beside many different numbers.

    Args:
        numbers: how many values are numbers; distinct: how many of these are different.
        texts: the other values -> how often.
    """
    n_texts = sum(texts.values())
    if not numbers or n_texts <= (1 - FITS) * (numbers + n_texts):
        return numbers > 0
    return len(texts) <= MAX_MISSING_WORDS and distinct > MAX_NUMBER_CODES and numbers >= n_texts


def _count_fitting(parsed: Iterable[tuple[re.Match[str], int]], decimal: str) -> int:
    """How many of the values the grammar of a decimal mark takes."""
    take = re.compile(grammar(decimal)).fullmatch
    return sum(count for match, count in parsed if take(match["number"]))


def _describe(
    parsed: list[tuple[re.Match[str], int]], decimal: str, units: dict[str, float], unit_note: str, minus: bool
) -> NumberFormat:  # fmt: skip
    """The smallest settings that read the values, with what a user must know of them."""
    thousands = f"[{',' if decimal == '.' else '.'}{BLANKS}{QUOTES}]"
    numbers = [match["number"] for match, _ in parsed]
    marked = [number for number in numbers if re.search(thousands, number)]
    marked = marked or [number for number in numbers if decimal == "," in number]
    signed = any(match["before"].startswith("(") or match["behind"] for match, _ in parsed)
    notes = []
    if marked:
        notes.append(f"{marked[0]} is {re.sub(thousands, '', marked[0]).replace(',', '.')}")
    if signed:
        notes.append("(5) or 5- is -5")
    if units:
        notes.append(unit_note)
    mark = decimal if marked or signed or minus else None
    return NumberFormat(mark, units, ", ".join(notes))


def _units(parsed: list[tuple[re.Match[str], int]]) -> tuple[dict[str, float] | None, str]:
    """The units with their factors, and what to say; None where they cannot be taken together."""
    readings: list[tuple[list[str], dict[str, float]]] = []
    for side in ("first", "last"):
        counts: Counter[str] = Counter()
        for match, count in parsed:
            counts[_normalize(match[side] or "")] += count
        bare, total = counts.pop("", 0), sum(counts.values())
        kinds: dict[str, set[str]] = {}
        for unit in counts:
            kind = "" if unit in APPROXIMATE else unit.rstrip(".").removesuffix("s")
            kinds.setdefault(kind, set()).add(unit)
        multipliers = {unit: MULTIPLIERS[unit] for unit in counts if unit in MULTIPLIERS}
        thousands = bare and min(multipliers.values(), default=0) == 1e3
        if len(multipliers) == len(counts) > 0 and (len(multipliers) > 1 or thousands):
            notes = [f"{unit} is times {size:,.0f}" for unit, size in multipliers.items()]
            readings.append((notes, multipliers))
            continue
        if counts and set(counts) <= {"st", "nd", "rd", "th"}:
            kinds = {"st": set(counts)}
        main_kind = max(kinds, key=lambda kind: sum(counts[u] for u in kinds[kind]), default="")
        if kinds and sum(counts[unit] for unit in kinds[main_kind]) < FITS * total:
            listed = ", ".join(sorted(counts)[:6])
            return None, f"numbers in several units ({listed}); give each its factor under units"
        names = sorted(kinds.get(main_kind, ()))
        readings.append((names, dict.fromkeys(names, 1.0)))
    units = readings[0][1] | readings[1][1]
    names = readings[0][0] + readings[1][0]
    note = ", ".join(names)
    return units, f"without {note}" if names and 1.0 in units.values() else note


def _normalize(unit: str) -> str:
    return re.sub(r"\s+", " ", unit.strip().lower())
