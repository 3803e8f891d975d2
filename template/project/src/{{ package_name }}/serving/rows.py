"""What a request's rows may hold: the event schema, checked at the door and flagged where it is odd."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..data.schema import TYPES, stored
from ..settings import Column, Settings, UserError

KEY = "PERSONAL_KEY"  # as in data/source.py: what personal values are hashed with
GIVEN: dict[str, Any] = {
    "number": float | None,
    "bool": bool | None,
    "category": str | None,
    "text": str | None,
    "time": str | float | None,
}
WORDS = {
    "number": "a number or null",
    "bool": "true, false or null",
    "category": "a text or null",
    "text": "a text or null",
    "time": "a time such as 2026-01-31T12:00:00Z, seconds since 1970, or null",
}


class Problem(msgspec.Struct):
    """One thing that is wrong with a request: which field, what came, what is allowed."""

    field: str
    got: Any
    allowed: str


class Refused(Exception):
    """A request that cannot be answered as it is."""

    def __init__(self, problems: list[Problem], status: int = 422) -> None:
        super().__init__(problems)
        self.problems, self.status = problems, status


class Rows:
    """The rows of this project's schema.

    Args:
        inputs: of the manifest: what the model reads, and what training saw of it; empty when
            there is no model.
    """

    def __init__(self, settings: Settings, inputs: Sequence[Mapping[str, Any]] = ()) -> None:
        data = settings.data
        label = {data.label.column, data.label.time}
        self.columns = {n: one for n, one in data.schema_.columns.items() if n not in label}
        self.names = tuple(self.columns)
        seen = {one["name"]: one for one in inputs}
        fields = [
            (f"c{place}", GIVEN[one.type], None) for place, one in enumerate(self.columns.values())
        ]
        self.row: Any = msgspec.defstruct(
            "Row",
            fields,
            rename={f"c{place}": name for place, name in enumerate(self.names)},
            forbid_unknown_fields=True,
            gc=False,
        )
        self._decode = msgspec.json.Decoder(self.row | list[self.row]).decode
        self._limits = settings.serving.limits
        self._times = [name for name, one in self.columns.items() if one.type == "time"]
        self._now = data.schema_.time
        self._required = [
            name
            for name, one in self.columns.items()
            if one.required and name in seen and name != self._now
        ]
        self._rules = [
            (name, *rule)
            for name, one in self.columns.items()
            if name in seen and not one.personal and (rule := _rule(one, seen[name]))
        ]
        self._refuse = settings.serving.out_of_range == "refuse"
        self._logged = stored(settings)
        self._hashed = [
            name for name, one in self._logged.items() if one.personal and data.personal == "hash"
        ]
        if self._hashed and not os.environ.get(KEY):
            raise UserError(f"data.personal: hash needs a secret key: `export {KEY}=...`")

    def read(self, body: bytes) -> tuple[dict[str, Sequence[Any]], int, bool]:
        """A request's columns, how many rows they hold, and whether it was a list.

        Raises:
            Refused: when the body is no row and no list of rows, with everything that is wrong.
        """
        try:
            found = self._decode(body)
        except (msgspec.DecodeError, RecursionError, OverflowError) as error:
            raise Refused(self._explain(body, error)) from None
        many = type(found) is list
        rows = found if many else [found]
        return self.table([msgspec.structs.astuple(row) for row in rows]), len(rows), many

    def table(self, rows: Sequence[Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """Typed rows as columns, with times read and the event's own time filled in.

        Raises:
            Refused: no rows or too many, a time that is none, a required value that is missing.
        """
        if not 0 < len(rows) <= self._limits.rows:
            raise Refused([Problem("rows", len(rows), f"1 to {self._limits.rows} rows")])
        columns: dict[str, Sequence[Any]] = dict(
            zip(self.names, zip(*rows, strict=True), strict=True)
        )
        problems: list[Problem] = []
        for name in self._times:
            columns[name] = [
                value if value is None else self._time(value, name, place, problems)
                for place, value in enumerate(columns[name])
            ]
        if self._now and None in columns[self._now]:
            now = time.time()
            columns[self._now] = [now if value is None else value for value in columns[self._now]]
        for name in self._required:
            problems += [
                Problem(_at(place, name), None, self.words(name))
                for place, value in enumerate(columns[name])
                if value is None or value == ""
            ]
        if problems:
            raise Refused(problems)
        return columns

    def flags(self, columns: Mapping[str, Sequence[Any]]) -> dict[int, list[str]]:
        """What is odd, in words, by row: outside of what the schema, or else the training, had.

        Raises:
            Refused: when the settings refuse such rows.
        """
        odd: list[tuple[int, str]] = []
        for name, low, high, allowed in self._rules:
            values = columns[name]
            if allowed is None:
                odd += [
                    (place, name)
                    for place, value in enumerate(values)
                    if value is not None and not low <= value <= high
                ]
            else:
                odd += [
                    (place, name)
                    for place, value in enumerate(values)
                    if value is not None and value not in allowed and value.strip() not in allowed
                ]
        if not odd:
            return {}
        if self._refuse:
            raise Refused(
                [
                    Problem(_at(place, name), _shown(columns[name][place]), self.words(name))
                    for place, name in odd
                ]
            )
        flags: dict[int, list[str]] = {}
        for place, name in odd:
            value = columns[name][place]
            words = f"{name}: {str(value)[:80]} is not {self.words(name)}"
            flags.setdefault(place, []).append(words)
        return flags

    def logged(self, columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
        """The rows as they may be written: personal columns dropped, hashed or kept."""
        kept = {name: columns[name] for name in self._logged if name in columns}
        for name in self._times:
            if name in kept:
                kept[name] = [
                    None
                    if value is None
                    else datetime.fromtimestamp(value, UTC).replace(tzinfo=None)
                    for value in kept[name]
                ]
        for name in self._hashed:
            kept[name] = [
                None
                if value is None
                else hashlib.sha256(f"{os.environ[KEY]}:{value}".encode()).hexdigest()
                for value in kept[name]
            ]
        return [dict(zip(kept, row, strict=True)) for row in zip(*kept.values(), strict=True)]

    def sql_types(self) -> dict[str, str]:
        """Column -> SQL type, of what `logged` gives."""
        return {name: TYPES[one.type] for name, one in self._logged.items() if name in self.columns}

    def words(self, name: str) -> str:
        """What a column may hold."""
        for column, low, high, allowed in self._rules:
            if column == name:
                if allowed is None:
                    return f"between {low:g} and {high:g}"
                shown = sorted(allowed)
                more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
                return f"one of {', '.join(shown[:10])}{more}"
        if name in self._required:
            return WORDS[self.columns[name].type].replace(" or null", "").replace(", or null", "")
        return WORDS[self.columns[name].type]

    def _time(
        self, value: str | float, name: str, place: int, problems: list[Problem]
    ) -> float | None:
        """Seconds since 1970; a time without a zone is taken as UTC."""
        try:
            found = datetime.fromisoformat(value) if isinstance(value, str) else value
            if isinstance(found, datetime):
                return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
            datetime.fromtimestamp(found, UTC)  # one that a log can hold
            return found
        except (ValueError, OverflowError, OSError):
            problems.append(Problem(_at(place, name), _shown(value), WORDS["time"]))
            return None

    def _explain(self, body: bytes, error: Exception) -> list[Problem]:
        """Everything that is wrong with a body that could not be read as rows: the slow way."""
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return [
                Problem(
                    "body", body[:40].decode("utf-8", "replace"), "JSON: a row, or a list of rows"
                )
            ]
        problems = []
        for place, row in enumerate(found if isinstance(found, list) else [found]):
            if not isinstance(row, dict):
                problems.append(Problem(f"[{place}]", _shown(row), "an object: column -> value"))
                continue
            for name, value in row.items():
                if name not in self.columns:
                    problems.append(
                        Problem(_at(place, name), _shown(value), _near(name, self.names))
                    )
                    continue
                try:
                    msgspec.convert(value, GIVEN[self.columns[name].type])
                except msgspec.ValidationError:
                    problems.append(
                        Problem(_at(place, name), _shown(value), WORDS[self.columns[name].type])
                    )
        return problems[:100] or [Problem("body", None, str(error))]


def _shown(value: Any) -> Any:
    """What came, short enough to send back."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    return value[:80] if isinstance(value, str) else str(value)[:80]


def _at(place: int, name: str) -> str:
    return f"[{place}].{name}"


def _near(name: str, names: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, list(names), 1)
    return f"no such column; {'did you mean ' + near[0] if near else 'see GET /model'}"


def _rule(
    column: Column, seen: Mapping[str, Any]
) -> tuple[float, float, frozenset[str] | None] | None:
    """(least, most, allowed) of a column: what the schema says, else what training saw."""
    if column.type == "number":
        bounds = [
            seen.get(key) if given is None else given
            for key, given in (("min", column.min), ("max", column.max))
        ]
        return None if None in bounds else (*bounds, None)  # type: ignore[return-value]
    if column.type == "category":
        allowed = column.allowed or seen.get("categories")
        return (0.0, 0.0, frozenset((*allowed, ""))) if allowed else None
    return None
