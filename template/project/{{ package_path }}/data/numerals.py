"""Telling from a column's texts how its numbers are written: decimal mark, units, words for nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .written import BLANKS, MINUS, QUOTES, grammar

FITS = 0.995  # share of the values that must be numbers, times, … to call a column so
UNIT = '[A-Za-zµμ°²³"][A-Za-zµμ°²³./"]{0,14}(?: [A-Za-z]{1,12})?'
CURRENCIES = (
    "[$€£¥₹₽₩₺₪฿₫₴₦₱₡₸]|(?:US|A|C|HK|NZ|R|S)[$]|USD|EUR|GBP|JPY|CHF|INR|CNY|AUD|CAD|BRL|SEK|NOK|DKK|PLN|"
    "CZK|HUF|TRY|ZAR|MXN|RUB|Rs[.]?|kr[.]?|Fr[.]?|[<>]=?|[≤≥~≈]"
)
ABOUT = set("<>≤≥~≈+") | {"<=", ">="}  # not exactly, which no unit hangs on
WRITTEN = re.compile(
    rf"(?P<before>[(+-]*)\s*(?P<first>{CURRENCIES})?\s*(?P<sign>[+-]?)"
    rf"(?P<number>[0-9.,](?:[0-9.,{BLANKS}{QUOTES}]*[0-9.,])?(?:[eE][+-]?[0-9]+)?)"
    rf"\s*(?P<last>%|‰|[+]|/ ?[0-9]+|out of [0-9]+|{CURRENCIES}|{UNIT})?\s*(?P<behind>[)-]?)",
    re.IGNORECASE,
)
# What people write for "nothing" beside the words that are never a value (`schema.NOTHING`)
UNKNOWN = re.compile(
    r"n\W?d\W?|n\W?a\W?|k\W?a\W?|s\W?d\W?|unkn?(own)?|missing|no ?data|(not|un)[ -]?(available|applicable|"
    r"given|known|specified|recorded|reported)|nil|empty|undefined|tb[acd]|unbekannt|inconnu|"
    r"desconocido|keine angabe|[<(\[]?(null|none|nan|na)[>)\]]?|[\W_]+|#.+",
    re.IGNORECASE,
)
SPREADSHEET = r"#(#+|N/[AD]|NV|GETTING_DATA|[A-Z][A-Z_/0]*[!?])"  # Excel's errors, in any language
SIZES = {"k": 1e3, "tsd": 1e3, "thousand": 1e3, "m": 1e6, "mn": 1e6, "mio": 1e6, "mln": 1e6,
         "million": 1e6, "b": 1e9, "bn": 1e9, "mrd": 1e9, "billion": 1e9}  # fmt: skip
MOST_WORDS = 10  # different words among numbers that are taken for "nothing"
FEW_NUMBERS = 10  # up to here, numbers beside words are codes beside words


@dataclass
class Reading:
    """How a column's numbers are written, and what to say of it."""

    decimal: str | None = None
    units: dict[str, float] = field(default_factory=dict)
    said: str = ""
    certain: bool = True  # no other decimal mark would do as well
    mixed: bool = False  # several units: no numbers until their factors are given


def reading(texts: Mapping[str, int], usual: str = ".") -> Reading | None:
    """How numbers are written, or None where the texts are none.

    Args:
        texts: the values of a column -> how often.
        usual: the decimal mark where the values leave it open, as in 1,208.
    """
    minus = str.maketrans(dict.fromkeys(MINUS, "-"))
    parsed: list[tuple[re.Match[str], int]] = []
    unparsed: Counter[str] = Counter()
    strange = 0
    for value, count in texts.items():
        if match := WRITTEN.fullmatch(value.translate(minus).strip()):
            parsed.append((match, count))
        elif UNKNOWN.fullmatch(value):
            continue
        elif re.search("[0-9]", value):
            strange += count
        else:
            unparsed[value.lower()] += count
    digits = sum(count for _, count in parsed)
    if not enough(digits, len(parsed), unparsed) or strange > (1 - FITS) * (digits + strange):
        return None
    if any(re.match("0[0-9]", match["number"]) for match, _ in parsed):
        return None  # a code
    if all(match["before"] == "(" for match, _ in parsed):
        return None  # brackets around every number mean no minus
    fits = {mark: _fitting(parsed, mark) for mark in ".,"}
    best = max(fits, key=lambda mark: (fits[mark], mark == usual))
    units, unit_note = _units(parsed)
    if fits[best] < FITS * digits:
        return None
    if units is None:
        return Reading(said=unit_note, mixed=True)
    told = _told(parsed, best, units, unit_note, any(set(value) & set(MINUS) for value in texts))
    told.certain = fits[","] != fits["."]
    return told


def enough(numbers: int, distinct: int, words: Mapping[str, int]) -> bool:
    """Whether numbers with some words among them are a column of numbers.

    Nearly all are numbers, or a few words stand beside many different numbers.
    """
    rest = sum(words.values())
    if not numbers or rest <= (1 - FITS) * (numbers + rest):
        return numbers > 0
    return len(words) <= MOST_WORDS and distinct > FEW_NUMBERS and numbers >= rest


def _fitting(parsed: Iterable[tuple[re.Match[str], int]], decimal: str) -> int:
    """How many of the values the grammar of a decimal mark takes."""
    take = re.compile(grammar(decimal)).fullmatch
    return sum(count for match, count in parsed if take(match["number"]))


def _told(
    parsed: list[tuple[re.Match[str], int]], decimal: str, units: dict[str, float], unit_note: str, minus: bool
) -> Reading:  # fmt: skip
    """The smallest settings that read the values, with what a user must know of them."""
    thousands = f"[{',' if decimal == '.' else '.'}{BLANKS}{QUOTES}]"
    numbers = [match["number"] for match, _ in parsed]
    marked = [shown for shown in numbers if re.search(thousands, shown)]
    marked = marked or [shown for shown in numbers if decimal == "," in shown]
    signed = any(match["before"].startswith("(") or match["behind"] for match, _ in parsed)
    notes = []
    if marked:
        notes.append(f"{marked[0]} is {re.sub(thousands, '', marked[0]).replace(',', '.')}")
    if signed:
        notes.append("(5) or 5- is -5")
    if units:
        notes.append(unit_note)
    mark = decimal if marked or signed or minus else None
    return Reading(mark, units, ", ".join(notes))


def _units(parsed: list[tuple[re.Match[str], int]]) -> tuple[dict[str, float] | None, str]:
    """The units with their factors, and what to say; None where they cannot be taken together."""
    readings: list[tuple[list[str], dict[str, float]]] = []
    for side in ("first", "last"):
        counts: Counter[str] = Counter()
        for match, count in parsed:
            counts[_plain(match[side] or "")] += count
        bare, total = counts.pop("", 0), sum(counts.values())
        kinds: dict[str, set[str]] = {}
        for unit in counts:
            kind = "" if unit in ABOUT else unit.rstrip(".").removesuffix("s")
            kinds.setdefault(kind, set()).add(unit)
        sized = {unit: SIZES[unit] for unit in counts if unit in SIZES}
        if (
            len(sized) == len(counts)
            and sized
            and (len(sized) > 1 or (bare and min(sized.values()) == 1e3))
        ):
            notes = [f"{unit} is times {size:,.0f}" for unit, size in sized.items()]
            readings.append((notes, sized))
            continue
        if counts and set(counts) <= {"st", "nd", "rd", "th"}:
            kinds = {"st": set(counts)}
        often = max(kinds, key=lambda kind: sum(counts[u] for u in kinds[kind]), default="")
        if kinds and sum(counts[unit] for unit in kinds[often]) < FITS * total:
            listed = ", ".join(sorted(counts)[:6])
            return None, f"numbers in several units ({listed}); give each its factor under units"
        names = sorted(kinds.get(often, ()))
        readings.append((names, dict.fromkeys(names, 1.0)))
    units = readings[0][1] | readings[1][1]
    names = readings[0][0] + readings[1][0]
    return units, f"without {', '.join(names)}" if names and 1.0 in units.values() else ", ".join(
        names
    )


def _plain(unit: str) -> str:
    return re.sub(r"\s+", " ", unit.strip().lower())
