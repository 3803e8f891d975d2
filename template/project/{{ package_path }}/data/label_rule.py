"""What a label may be: one rule for requests, for files and for the log, as the problem has it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .. import problem
from ..problem import data as problem_data
from ..settings import Settings
from .parsing import canonical
from .schema import missing, no_label, text

MAX_LABEL_LENGTH = 200  # characters of a label
MAX_LISTED_VALUES = 100  # of a yes or no that are listed; beyond them, any text may be one


@dataclass(frozen=True)
class LabelRule:
    """What is allowed as a label: one of `values`, or a number from `low` to `high`, or any text.

    Attributes:
        numeric: whether it is a number, or yes and no as 1 and 0; else it is a text.
        values: as `canonical` writes them; none where any text may be a label, or any number.
        no_label: a pattern of whole texts that mean none; codes: the numbers that do.
        named: the values that the settings name.
    """

    numeric: bool
    values: tuple[str, ...]
    low: float
    high: float
    no_label: str
    codes: frozenset[float | str]
    named: list[str]

    @property
    def sql_type(self) -> str:
        """DuckDB's type of the column that keeps such labels."""
        return "DOUBLE" if self.numeric else "VARCHAR"

    @property
    def description(self) -> str:
        """What a label may be, for a message."""
        if self.values:
            remainder = f" and {len(self.values) - 10} more" if len(self.values) > 10 else ""
            return f"{' or '.join(self.values[:10])}{remainder}, or null"
        if not self.numeric:
            return f"a text of at most {MAX_LABEL_LENGTH} characters, or null"
        bounds = [f"at least {self.low:g}"] if math.isfinite(self.low) else []
        bounds += [f"at most {self.high:g}"] if math.isfinite(self.high) else []
        return " ".join(["a number", *([" and ".join(bounds)] if bounds else []), "or null"])

    def read(self, label: float | str | bool | None) -> float | str | None:
        """A label of a request as the log has it, None where it means none.

        Raises:
            ValueError: for one that is not allowed.
        """
        if label is None or label in self.codes:
            return None
        if isinstance(label, str):
            if len(label) > MAX_LABEL_LENGTH:
                raise ValueError(self.description)
            if re.fullmatch(self.no_label, label):
                return None
            label = label.strip()
        if self.numeric:
            if isinstance(label, str) or (isinstance(label, bool) and not self.values):
                raise ValueError(self.description)
            value = float(label)
            within = math.isfinite(value) and self.low <= value <= self.high
            if not within or (self.values and canonical(value) not in self.values):
                raise ValueError(self.description)
            return value
        code = str(label).lower() if isinstance(label, bool) else canonical(label)
        if self.values and code.lower() not in map(str.lower, self.values):
            raise ValueError(self.description)
        return code

    def sql(self, raw: str) -> str:
        """SQL for a label of a file as the log has it, NULL where it is not allowed.

        Args:
            raw: SQL of a text that is none of those that mean no label.
        """
        if not self.numeric:
            if not self.values:
                return f"CASE WHEN len({raw}) <= {MAX_LABEL_LENGTH} THEN {raw} END"
            # A code may be written as a number with a fraction: 1.0 is 1
            code = f"regexp_replace({raw}, '^([+-]?[0-9]+)[.]0*$', '\\1')"
            listed = ", ".join(text(allowed.lower()) for allowed in self.values)
            return f"CASE WHEN lower({code}) IN ({listed}) THEN {code} END"
        value = f"TRY_CAST({raw} AS DOUBLE)"
        if self.values:
            value = f"coalesce({value}, CAST(TRY_CAST({raw} AS BOOLEAN) AS DOUBLE))"
            return f"CASE WHEN {value} IN ({', '.join(self.values)}) THEN {value} END"
        fits = f"isfinite({value})"
        fits += f" AND {value} >= {self.low!r}" if math.isfinite(self.low) else ""
        fits += f" AND {value} <= {self.high!r}" if math.isfinite(self.high) else ""
        return f"CASE WHEN {fits} THEN {value} END"

    def reward(self, label: float | str | None) -> float | None:
        """What a bandit learns from a label; None where there is none, or it learns nothing."""
        return None if label is None else problem_data.reward(canonical(label), self.named)


def label_rule(settings: Settings, trained_values: Sequence[str] = ()) -> LabelRule:
    """The rule of a project.

    Args:
        trained_values: the values of the label that training knew, of a yes or no; the schema's `allowed` comes
            before them. Without both, numbers are 0, 1 and what the settings name, and a text is any.
    """
    label = settings.data.label
    column = settings.data.schema_.columns[label.column]
    numeric = column.type in ("number", "bool")
    values: list[str] = []
    named = [*map(_canonical, problem_data.named(label))]
    if problem.CLASSES:
        values = [*map(_canonical, column.allowed or problem_data.listed(label, trained_values))]
        if numeric:
            values = [value for value in map(_number, values) if value] or ["0", "1"]
            values += [value for value in map(_number, named) if value and value not in values]
    return LabelRule(
        numeric,
        tuple(dict.fromkeys(values)) if len(values) <= MAX_LISTED_VALUES else (),
        *(-math.inf if column.min is None else column.min,),
        *(math.inf if column.max is None else column.max,),
        no_label(settings),
        missing(column),
        named,
    )


def _canonical(value: str) -> str:
    """A value as `canonical` writes it: 1.0 is 1."""
    try:
        number = float(value)
    except ValueError:
        return value
    return canonical(number) if math.isfinite(number) else value


def _number(value: str) -> str | None:
    """A value as `canonical` writes a number: true is 1; None for a text that is no number."""
    code = {"true": "1", "t": "1", "yes": "1", "y": "1"}.get(value.lower(), value)
    code = {"false": "0", "f": "0", "no": "0", "n": "0"}.get(code.lower(), code)
    try:
        return canonical(float(code)) if math.isfinite(float(code)) else None
    except ValueError:
        return None
