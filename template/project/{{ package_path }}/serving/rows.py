"""What a request's rows may hold: the event schema, checked at the door and flagged where it is odd."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Annotated, Any

import msgspec

from ..data.schema import TYPES, missing, stored
from ..data.times import EPOCH, seconds
from ..data.written import canonical, part_of
from ..model import SPACES
from ..scoring.ranges import WORDS, value_range, value_words
from ..settings import Settings, UserError
from .bounded import (
    MOST_TOLD,
    NO_NAME,
    Problem,
    Refused,
    first_problem,
    members,
    short,
    shown,
    up_to,
)

KEY = "PERSONAL_KEY"  # as in data/source.py: what personal values are hashed with
LONGEST = {"category": 1_000, "text": 100_000, "time": 100}  # characters of a value
INTEGER = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
GIVEN: dict[str, Any] = {
    "number": float | None,
    "bool": bool | None,
    # Codes may come as numbers
    "category": Annotated[str, msgspec.Meta(max_length=LONGEST["category"])]
    | INTEGER
    | float
    | None,
    "text": Annotated[str, msgspec.Meta(max_length=LONGEST["text"])] | None,
    "time": Annotated[str, msgspec.Meta(max_length=LONGEST["time"])] | float | None,
}
FIRST, LAST = -62_135_596_800.0, 253_402_300_799.999  # the calendar's ends, which a log can hold
READ = {kind: msgspec.json.Decoder(given).decode for kind, given in GIVEN.items()}
read_cells = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
EXPLAINED_BODY = 1_000_000  # bytes of a body of which more than its first mistake is told
EXPLAINED_ROWS = 200_000  # bytes of its rows that are looked at, the first with a mistake first
EXPLAINED_ROW = 50_000
MOST_NEAR = 25  # names that are compared with the schema's, each time a request is refused
LONGEST_NAME = 80  # of a name that is compared or sent back
UNKNOWN = "no such column; see GET /model"


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
        row: Any = msgspec.defstruct(
            "Row",
            fields,
            rename={f"c{place}": name for place, name in enumerate(self.names)},
            forbid_unknown_fields=True,
            gc=False,
        )
        self.most = settings.serving.limits.rows
        self._decode = msgspec.json.Decoder(row | list[row]).decode
        self._decode_row = msgspec.json.Decoder(row).decode
        self._decode_many = up_to(self.most, row)
        self._decode_raw = up_to(self.most, msgspec.Raw)
        at = self.at = {name: place for place, name in enumerate(self.names)}
        self._times = [
            (at[name], one.formats) for name, one in self.columns.items() if one.type == "time"
        ]
        self._now = at.get(data.schema_.time or "")
        self._required = [
            at[name]
            for name, one in self.columns.items()
            if one.required and name in seen and name != data.schema_.time
        ]
        self.required = tuple(self.names[place] for place in self._required)
        self._rules = [
            (at[name], *rule)
            for name, one in self.columns.items()
            if name in seen and not one.personal and (rule := value_range(one, seen[name]))
        ]
        self._codes = [at[name] for name, one in self.columns.items() if one.type == "category"]
        self._missing = [
            (at[name], codes) for name, one in self.columns.items() if (codes := missing(one))
        ]
        raw = {one.source or name: at[name] for name, one in self.columns.items() if not one.part}
        self._parts = [
            (at[n], raw[one.source or n], one.part) for n, one in self.columns.items() if one.part
        ]
        self._refuse = settings.scoring.out_of_range == "refuse"
        kept = stored(settings)
        self.logs = [name for name in self.names if name in kept]
        places = [at[name] for name in self.logs]
        # Of a single place, itemgetter gives no tuple
        self._pick = (
            itemgetter(*places) if len(places) > 1 else lambda row: [row[i] for i in places]
        )
        self._kept_times = [
            place for place, name in enumerate(self.logs) if self.columns[name].type == "time"
        ]
        self._hashed = self._to_hash(settings)
        ranges = {self.names[place]: rule for place, *rule in self._rules}
        self._words = {
            name: value_words(one, ranges.get(name), at[name] in self._required)
            for name, one in self.columns.items()
        }

    def _to_hash(self, settings: Settings) -> list[int]:
        """The places of personal columns, where they are hashed."""
        if settings.data.personal != "hash":
            return []
        places = [self.at[name] for name, one in self.columns.items() if one.personal]
        if places and not os.environ.get(KEY):
            raise UserError(f"data.personal: hash needs a secret key: `export {KEY}=...`")
        return places

    def read(self, body: bytes) -> tuple[list[list[Any]], bool]:
        """A request's rows, each with a value for every column of `names`, and whether it was a list.

        Raises:
            Refused: when the body is no row and no list of rows, with what is wrong.
        """
        try:
            # No row is without its brace: only where there are more of them, rows have to be counted
            if body.count(b"{") > self.most and body.lstrip()[:1] == b"[":
                found, many = members(self._decode_many(body)), True
            else:
                found = self._decode(body)
                many = type(found) is list
                found = found if many else [found]
        except (ValueError, RecursionError, OverflowError) as error:
            raise Refused(self._explain(body, error)) from None
        return self.checked([list(msgspec.structs.astuple(row)) for row in found]), many

    def checked(self, rows: list[list[Any]]) -> list[list[Any]]:
        """The same typed rows, with times read, the event's own time filled in and personal values hashed.

        Raises:
            Refused: no rows or too many, a time that is none, a required value that is missing.
        """
        if not 0 < len(rows) <= self.most:
            raise Refused([Problem("rows", len(rows), f"1 to {self.most} rows")])
        problems: list[Problem] = []
        for place, row in enumerate(rows):
            self._settle(row)
            for at, formats in self._times:
                value = row[at]
                if value is None:
                    continue
                if formats or type(value) is not float or not FIRST <= value <= LAST:
                    row[at] = self._time(value, self.names[at], place, problems)
            for at in self._hashed:  # as `collect` does: what the model learnt from is the hash
                row[at] = _hashed(row[at])
            if self._now is not None and row[self._now] is None:
                row[self._now] = time.time()
            for at in self._required:
                if row[at] is None or row[at] == "":
                    name = self.names[at]
                    problems.append(Problem(_at(place, name), None, self.words(name)))
            if len(problems) >= MOST_TOLD:
                break
        if problems:
            raise Refused(problems)
        return rows

    def _settle(self, row: list[Any]) -> None:
        """Make of a row's values what `collect` makes of them: codes, parts of texts, what is missing."""
        for at in self._codes:
            if type(row[at]) is not str and row[at] is not None:
                row[at] = canonical(row[at])
        for at, whole, part in self._parts:  # of the text that they are taken from
            if row[at] is None and row[whole] is not None:
                row[at] = part_of(row[whole], part, SPACES)
        for at, codes in self._missing:
            value = row[at]
            if (value.strip(SPACES).lower() if isinstance(value, str) else value) in codes:
                row[at] = None

    def by_column(self, rows: Sequence[Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """The rows as column -> values."""
        return dict(zip(self.names, zip(*rows, strict=True), strict=True))

    def flags(self, rows: Sequence[Sequence[Any]]) -> list[list[str]]:
        """What is odd, in words, by row: outside of what the schema, or else the training, had.

        Raises:
            Refused: when the settings refuse such rows.
        """
        flags, problems = [], []
        for place, row in enumerate(rows):
            words: list[str] = []
            for at, low, high, allowed in self._rules:
                value = row[at]
                if value is None:
                    continue
                if low <= value <= high if allowed is None else value in allowed:
                    continue
                if allowed is not None and value.strip() in allowed:
                    continue
                name = self.names[at]
                words.append(f"{name}: {str(value)[:80]} is not {self.words(name)}")
                if self._refuse:
                    problems.append(Problem(_at(place, name), short(value), self.words(name)))
            flags.append(words)
            if len(problems) >= MOST_TOLD:
                break
        if problems:
            raise Refused(problems)
        return flags

    def logged(self, row: Sequence[Any]) -> list[Any]:
        """A row's values as they may be written, in the order of `sql_types`: personal ones dropped by
        setting."""
        kept = list(self._pick(row))
        for at in self._kept_times:
            if kept[at] is not None:
                kept[at] = EPOCH + timedelta(seconds=kept[at])
        return kept

    def sql_types(self) -> dict[str, str]:
        """Column -> SQL type, of what `logged` gives."""
        return {name: TYPES[self.columns[name].type] for name in self.logs}

    def bounds(self, name: str) -> dict[str, Any]:
        """What a value of a column is refused beyond, as JSON Schema says it."""
        for at, low, high, allowed in self._rules:
            if self._refuse and self.names[at] == name:
                if allowed is None:
                    return {"minimum": low, "maximum": high}
                empty = ["", None] if name not in self.required else []
                return {"enum": [*sorted(allowed - {""}), *empty]}
        return {}

    def words(self, name: str) -> str:
        """What a column may hold."""
        return self._words[name]

    def _time(
        self, value: str | float, name: str, place: int, problems: list[Problem]
    ) -> float | None:
        """Seconds since 1970, read as the column's values are read from files."""
        try:
            found = seconds(value, self.columns[name].formats)
            if FIRST <= found <= LAST:
                return found
        except (ValueError, OverflowError, OSError):
            pass
        problems.append(Problem(_at(place, name), short(value), WORDS["time"]))
        return None

    def _explain(self, body: bytes, error: Exception) -> list[Problem]:
        """What is wrong with a body that could not be read as rows, within the bounds above."""
        many = body.lstrip()[:1] == b"["
        first, at = first_problem(error, body, f"a row, or a list of 1 to {self.most} rows")
        if not isinstance(error, msgspec.ValidationError):
            return [first]
        if first.allowed == NO_NAME:
            name = str(first.got)
            first = Problem(_at(at or 0, name), None, self._near(name))
        elif first.field in self.columns:
            first.field = _at(0, first.field)
        if len(body) > EXPLAINED_BODY:
            return [first]
        try:
            rows = members(self._decode_raw(body))[at or 0 :] if many else [body]
        except ValueError:  # something else is wrong behind the first mistake
            return [first]
        problems: list[Problem] = []
        near: dict[str, str] = {}
        size = 0
        for place, row in enumerate(rows, at or 0):
            raw = bytes(row)
            size += len(raw)
            if len(raw) > EXPLAINED_ROW or size > EXPLAINED_ROWS or len(problems) >= MOST_TOLD:
                break
            self._explain_row(raw, place, problems, near)
        return problems or [first]

    def _explain_row(
        self, raw: bytes, place: int, problems: list[Problem], near: dict[str, str]
    ) -> None:
        """Add what is wrong with one row; `near` holds the names that were compared already."""
        try:
            self._decode_row(raw)
            return
        except (ValueError, RecursionError):
            pass
        try:
            cells = read_cells(raw)
        except (ValueError, RecursionError):
            problems.append(Problem(f"[{place}]", shown(raw), "an object: column -> value"))
            return
        for name, value in cells.items():
            if len(problems) >= MOST_TOLD:
                return
            if name not in self.columns:
                if name not in near:
                    near[name] = self._near(name) if len(near) < MOST_NEAR else UNKNOWN
                where = _at(place, name[:LONGEST_NAME])
                problems.append(Problem(where, shown(bytes(value)), near[name]))
                continue
            kind = self.columns[name].type
            try:
                READ[kind](value)
            except (ValueError, RecursionError) as error:
                problems.append(
                    Problem(_at(place, name), shown(bytes(value)), _allowed(kind, error))
                )

    def _near(self, name: str) -> str:
        return _nearest(name, self.names) if len(name) <= LONGEST_NAME else UNKNOWN


def _allowed(kind: str, error: Exception) -> str:
    """What a value may be, in words; the bound that it broke, where it has the right type."""
    if "length <=" in str(error):
        return f"{WORDS[kind]}, of at most {LONGEST[kind]:,} characters"
    if "`int` " in str(error):
        return f"{WORDS[kind]}; a number of more than 64 bits as a text"
    return WORDS[kind]


def _hashed(value: str | None) -> str | None:
    if not value or not (value := value.strip(SPACES)):
        return None
    return hashlib.sha256(f"{os.environ[KEY]}:{value}".encode()).hexdigest()


def _at(place: int, name: str) -> str:
    return f"[{place}].{name}"


@lru_cache(maxsize=1024)
def _nearest(name: str, names: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, names, 1)
    return f"no such column; did you mean {near[0]}" if near else UNKNOWN
