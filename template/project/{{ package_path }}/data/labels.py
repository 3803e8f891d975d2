"""What a label may be: one rule for requests, for files and for the log, as the problem has it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .. import problem
from ..problem import data as problem_data
from ..settings import Settings
from .schema import missing, no_label, text
from .written import canonical

LONGEST = 200  # characters of a label
MOST_VALUES = 100  # of a yes or no that are listed; beyond them, any text may be one


@dataclass(frozen=True)
class LabelRule:
    """A label that is one of a few values is one of `values`, as `canonical` writes them; a number lies in bounds.

    Attributes:
        numeric: whether it is a number, or yes and no as 1 and 0; else it is a text.
        values: none where any text may be a label, or any number.
        nothing: a pattern of whole texts that mean no label; codes: the numbers that do.
        named: the values that the settings name.
    """

    numeric: bool
    values: tuple[str, ...]
    low: float
    high: float
    nothing: str
    codes: frozenset[float | str]
    named: list[str]

    @property
    def sql_type(self) -> str:
        return "DOUBLE" if self.numeric else "VARCHAR"

    @property
    def words(self) -> str:
        """What a label may be, in words."""
        if self.values:
            more = f" and {len(self.values) - 10} more" if len(self.values) > 10 else ""
            return f"{' or '.join(self.values[:10])}{more}, or null"
        if not self.numeric:
            return f"a text of at most {LONGEST} characters, or null"
        ends = [f"at least {self.low:g}"] if math.isfinite(self.low) else []
        ends += [f"at most {self.high:g}"] if math.isfinite(self.high) else []
        return " ".join(["a number", *([" and ".join(ends)] if ends else []), "or null"])

    def read(self, given: float | str | bool | None) -> float | str | None:
        """A label of a request as the log has it, None where it means none.

        Raises:
            ValueError: for one that is not allowed.
        """
        if given is None or given in self.codes:
            return None
        if isinstance(given, str):
            if len(given) > LONGEST:
                raise ValueError(self.words)
            if re.fullmatch(self.nothing, given):
                return None
            given = given.strip()
        if self.numeric:
            if isinstance(given, str) or (isinstance(given, bool) and not self.values):
                raise ValueError(self.words)
            value = float(given)
            within = math.isfinite(value) and self.low <= value <= self.high
            if not within or (self.values and canonical(value) not in self.values):
                raise ValueError(self.words)
            return value
        word = str(given).lower() if isinstance(given, bool) else canonical(given)
        known = [one.lower() for one in self.values]
        if known and word.lower() not in known:
            raise ValueError(self.words)
        return word

    def sql(self, told: str) -> str:
        """SQL for the same of a text of a file; NULL where it is not allowed."""
        if not self.numeric:
            if not self.values:
                return f"CASE WHEN len({told}) <= {LONGEST} THEN {told} END"
            # A code may be written as a number with a fraction: 1.0 is 1
            code = f"regexp_replace({told}, '^([+-]?[0-9]+)[.]0*$', '\\1')"
            listed = ", ".join(text(one.lower()) for one in self.values)
            return f"CASE WHEN lower({code}) IN ({listed}) THEN {code} END"
        value = f"TRY_CAST({told} AS DOUBLE)"
        if self.values:
            value = f"coalesce({value}, CAST(TRY_CAST({told} AS BOOLEAN) AS DOUBLE))"
            return f"CASE WHEN {value} IN ({', '.join(self.values)}) THEN {value} END"
        fits = f"isfinite({value})"
        fits += f" AND {value} >= {self.low!r}" if math.isfinite(self.low) else ""
        fits += f" AND {value} <= {self.high!r}" if math.isfinite(self.high) else ""
        return f"CASE WHEN {fits} THEN {value} END"

    def reward(self, label: float | str | None) -> float | None:
        """What a bandit learns from a label; None where there is none, or it learns nothing."""
        return None if label is None else problem_data.reward(canonical(label), self.named)


def label_rule(settings: Settings, seen: Sequence[str] = ()) -> LabelRule:
    """The rule of a project.

    Args:
        seen: the values of the label that training knew, of a yes or no; the schema's `allowed` comes
            before them. Without both, numbers are 0, 1 and what the settings name, and a text is any.
    """
    label = settings.data.label
    column = settings.data.schema_.columns[label.column]
    numeric = column.type in ("number", "bool")
    values: list[str] = []
    named = [_coded(one) for one in problem_data.named(label)]
    if problem.CLASSES:
        values = [_coded(one) for one in column.allowed or problem_data.listed(label, seen)]
        if numeric:
            values = [one for one in map(_number, values) if one] or ["0", "1"]
            values += [one for one in map(_number, named) if one and one not in values]
    return LabelRule(
        numeric,
        tuple(dict.fromkeys(values)) if len(values) <= MOST_VALUES else (),
        *(-math.inf if column.min is None else column.min,),
        *(math.inf if column.max is None else column.max,),
        no_label(settings),
        missing(column),
        named,
    )


def _coded(value: str) -> str:
    """A value as `canonical` writes it: 1.0 is 1."""
    try:
        number = float(value)
    except ValueError:
        return value
    return canonical(number) if math.isfinite(number) else value


def _number(value: str) -> str | None:
    """The same as a number: true is 1; None for a text that is none."""
    word = {"true": "1", "t": "1", "yes": "1", "y": "1"}.get(value.lower(), value)
    word = {"false": "0", "f": "0", "no": "0", "n": "0"}.get(word.lower(), word)
    try:
        return canonical(float(word)) if math.isfinite(float(word)) else None
    except ValueError:
        return None
