"""What a request's rows may hold: the event schema, checked at the door and flagged where it is odd."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from ..data.parsing import canonical, masked, part_of
from ..data.schema import (
    NO_GAP,
    NO_VALUE,
    PERSONAL_KEY,
    TYPES,
    VALUE_PHRASES,
    form,
    masks,
    missing,
    stored,
    value_phrase,
    value_range,
)
from ..data.times import EPOCH, seconds
from ..images import MAX_PIXELS, Decoded, ImageError, area, decoded
from ..images import stored as stored_image
from ..model import SPACES, InputColumn
from ..problem import data as problem_data
from ..settings import Settings, UserError
from .bounded import (
    MAX_PROBLEMS,
    NO_NAME,
    Problem,
    Refused,
    clip,
    echo,
    first_problem,
    list_decoder,
    members,
)

if TYPE_CHECKING:
    from .online import OnlineStore

MAX_LENGTH = {
    "category": 1_000,
    "text": 100_000,
    "time": 100,
    "history": 10_000,
}  # characters of a value, numbers of a history
TEXTS: dict[str, Any] = {
    kind: Annotated[str, msgspec.Meta(max_length=length)] for kind, length in MAX_LENGTH.items()
}
NUMBERS: Any = Annotated[list[float | None], msgspec.Meta(max_length=MAX_LENGTH["history"])]
INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
JSON_TYPES: dict[str, Any] = {
    "number": float | None,
    "bool": bool | None,
    "category": TEXTS["category"] | INT64 | float | None,  # codes may come as numbers
    "text": TEXTS["text"] | None,
    "image": str | None,  # as long as a body may be
    "history": NUMBERS | str | None,  # as a text where a protocol knows no lists
    "time": TEXTS["time"] | float | None,
}
# The calendar's ends, which a log can hold
MIN_TIME, MAX_TIME = -62_135_596_800.0, 253_402_300_799.999
DECODE_CELL = {kind: msgspec.json.Decoder(type_).decode for kind, type_ in JSON_TYPES.items()}
decode_numbers = msgspec.json.Decoder(NUMBERS).decode
decode_cells = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
MAX_REQUEST_PIXELS = (
    MAX_PIXELS // 2
)  # of all images of a request, which take up to 0.7 GB while they are decoded
MAX_BODY_BYTES = 1_000_000  # bytes of a body of which more than its first mistake is told
MAX_ROWS_BYTES = 200_000  # bytes of its rows that are looked at, the first with a mistake first
MAX_ROW_BYTES = 50_000
MAX_COMPARED = 25  # names that are compared with the schema's, each time a request is refused
MAX_NAME_LENGTH = 80  # of a name that is compared or sent back
IMAGES_IN_ALL = f"images of at most {MAX_REQUEST_PIXELS:,} pixels or bytes, together in a request"
NO_COLUMN = "no such column; see GET /model"


class Rows:
    """The rows of this project's schema: reads, checks and flags those of a request.

    Args:
        inputs: of the manifest: what the model reads, and what training saw of it; empty when
            there is no model.
        store: what is known by key, in the place of what rows leave out; None: nothing.
    """

    def __init__(
        self,
        settings: Settings,
        inputs: Sequence[InputColumn] = (),
        store: OnlineStore | None = None,
    ) -> None:
        self.store = store
        data = settings.data
        label = {data.label.column, data.label.time}
        columns = {n: column for n, column in data.schema_.columns.items() if n not in label}
        self.columns, self.names = columns, tuple(columns)
        numbered = [(i, name, column) for i, (name, column) in enumerate(columns.items())]
        self.positions = {name: i for i, name, _ in numbered}
        used = {entry["name"]: entry for entry in inputs}
        self.types: dict[str, str] = {entry["name"]: entry["type"] for entry in inputs}
        row: Any = msgspec.defstruct(
            "Row",
            [(f"c{i}", JSON_TYPES[column.type], None) for i, _, column in numbered],
            rename={f"c{i}": name for i, name, _ in numbered},
            forbid_unknown_fields=True,
            gc=False,
        )
        limits = settings.serving.limits
        self.max_rows, self.max_body = limits.rows, int(limits.body_mb * 1e6)
        self._decode = msgspec.json.Decoder(row | list[row]).decode
        self._decode_row = msgspec.json.Decoder(row).decode
        self._decode_list = list_decoder(self.max_rows, row)
        self._decode_raw = list_decoder(self.max_rows, msgspec.Raw)
        # What tells the lists of a request apart, and their items' topics, where rows are answered by list
        self._list, self._topic = (
            self.positions.get(name or "") for name in problem_data.list_columns(data.label)
        )
        self._times = [(i, column.formats) for i, _, column in numbered if column.type == "time"]
        self._event_time = self.positions.get(data.schema_.time or "")
        self._required = [
            i
            for i, name, column in numbered
            if column.required and name in used and name != data.schema_.time
        ]
        self.required = tuple(self.names[i] for i in self._required)
        self._ranges = [
            (i, *rule)
            for i, name, column in numbered
            if name in used and not column.personal and (rule := value_range(column, used[name]))
        ]
        self._optional = [
            i
            for i, name, column in numbered
            if name in used and not column.required and name != data.schema_.time
        ]
        self._without_gaps = [i for i, name, _ in numbered if name in used and "gaps" in used[name]]
        self._categories = [i for i, _, column in numbered if column.type == "category"]
        self.texts = [i for i, _, column in numbered if column.type == "text"]
        self.images = {i: form(column) for i, _, column in numbered if column.type == "image"}
        self.histories = [i for i, _, column in numbered if column.type == "history"]
        self._missing = [(i, codes) for i, _, column in numbered if (codes := missing(column))]
        sources = {column.source or name: i for i, name, column in numbered if not column.part}
        self._parts = [
            (i, sources[column.source or name], column.part)
            for i, name, column in numbered
            if column.part
        ]
        self._refuse = settings.scoring.out_of_range == "refuse"
        logged = stored(settings)
        self.logged_columns = [name for name in self.names if name in logged]
        picked = [self.positions[name] for name in self.logged_columns]
        # Of a single position, itemgetter gives no tuple
        self._pick = (
            itemgetter(*picked) if len(picked) > 1 else lambda row: [row[i] for i in picked]
        )
        self._logged_times = [
            i for i, name in enumerate(self.logged_columns) if columns[name].type == "time"
        ]
        self._logged_images = [
            i for i, name in enumerate(self.logged_columns) if columns[name].type == "image"
        ]
        self._hashed = self._hashed_positions(settings)
        text_masks = masks(settings)
        self._logged_texts = [
            (i, text_masks[name])
            for i, name in enumerate(self.logged_columns)
            if name in text_masks
        ]
        ranges = {self.names[i]: bounds for i, *bounds in self._ranges}
        self._allowed = {
            name: value_phrase(column, ranges.get(name), i in self._required)
            for i, name, column in numbered
        }

    def _hashed_positions(self, settings: Settings) -> list[int]:
        """The positions of personal columns, where they are hashed."""
        if settings.data.personal != "hash":
            return []
        positions = [i for i, column in enumerate(self.columns.values()) if column.personal]
        if positions and not os.environ.get(PERSONAL_KEY):
            raise UserError(f"data.personal: hash needs a secret key: `export {PERSONAL_KEY}=...`")
        return positions

    def read(self, body: bytes) -> tuple[list[list[Any]], bool]:
        """A request's rows, each with a value for every column of `names`, and whether it was a list.

        Raises:
            Refused: when the body is no row and no list of rows, with what is wrong.
        """
        try:
            # No row is without its brace: only where there are more of them, rows have to be counted
            if body.count(b"{") > self.max_rows and body.lstrip()[:1] == b"[":
                decoded, is_list = members(self._decode_list(body)), True
            else:
                decoded = self._decode(body)
                is_list = type(decoded) is list
                decoded = decoded if is_list else [decoded]
        except (ValueError, RecursionError, OverflowError) as error:
            raise Refused(self._explain(body, error)) from None
        return self.check([list(msgspec.structs.astuple(row)) for row in decoded]), is_list

    def check(self, rows: list[list[Any]]) -> list[list[Any]]:
        """Typed rows, changed in place: times read, the event's own time filled in, personal values hashed.

        Raises:
            Refused: no rows or too many, a time that is none, a required value that is missing.
        """
        if not 0 < len(rows) <= self.max_rows:
            raise Refused([Problem("rows", len(rows), f"1 to {self.max_rows} rows")])
        if self.store is not None:
            self.store.fill(rows, self.positions)
        problems: list[Problem] = []
        for index, row in enumerate(rows):
            self._normalise(row)
            self._read(row, index, problems)
            # As `collect` does: what the model learnt from is the hash
            for position in self._hashed:
                row[position] = hashed(row[position])
            if self._event_time is not None and row[self._event_time] is None:
                row[self._event_time] = time.time()
            for position in self._required:
                if row[position] is None or row[position] == "":
                    name = self.names[position]
                    problems.append(Problem(_field(index, name), None, self.allowed(name)))
            if len(problems) >= MAX_PROBLEMS:
                break
        if problems:
            raise Refused(problems)
        return rows

    def _read(self, row: list[Any], index: int, problems: list[Problem]) -> None:
        """Read a row's times and histories, in place; what is none of these is a problem."""
        for position, formats in self._times:
            if (value := row[position]) is None:
                continue
            if formats or type(value) is not float or not MIN_TIME <= value <= MAX_TIME:
                row[position] = self._read_time(value, self.names[position], index, problems)
        for position in self.histories:
            if row[position] is not None:
                row[position] = self._read_history(row[position], position, index, problems)

    def _normalise(self, row: list[Any]) -> None:
        """Make of a row's values what `collect` makes of them: codes, parts of texts, what is missing."""
        for position in self._categories:
            if type(row[position]) is not str and row[position] is not None:
                row[position] = canonical(row[position])
        for position, source, part in self._parts:  # of the text that they are taken from
            if row[position] is None and row[source] is not None:
                row[position] = part_of(row[source], part, SPACES)
        for position, codes in self._missing:
            value = row[position]
            if (value.strip(SPACES).lower() if isinstance(value, str) else value) in codes:
                row[position] = None

    def measure_images(self, rows: Sequence[Sequence[Any]], folder: Path | None) -> int:
        """The pixels of all images of these rows, before one is decoded.

        Args:
            rows: as `check` gives them.
            folder: that paths start from; None: none is followed.

        Raises:
            Refused: more of them than a request may have.
        """
        pixels = 0
        for index, row in enumerate(rows):
            for position, image_form in self.images.items():
                if not (value := row[position]):
                    continue
                # A small image may become a large one: that is work too, and place in the log
                pixels += max(area(value, folder), image_form.size**2)
                if pixels > MAX_REQUEST_PIXELS:
                    raise Refused([self._problem(index, position, value, IMAGES_IN_ALL)])
        return pixels

    def store_images(
        self, rows: Sequence[list[Any]], folder: Path | None, with_pixels: bool = False
    ) -> None:
        """Put in place of each image what tables and logs hold of it.

        Args:
            rows, folder: as `measure_images` takes them; rows are changed in place.
            with_pixels: keep beside it what the model reads, as `images.Decoded`: quicker, and more memory.

        Raises:
            Refused: what is no image.
        """
        problems: list[Problem] = []
        read = decoded if with_pixels else stored_image
        for index, row in enumerate(rows):
            for position, image_form in self.images.items():
                if not (value := row[position]):
                    continue
                try:
                    row[position] = read(value, image_form, folder)
                except ImageError as error:
                    reason = f"{self.allowed(self.names[position])}; this {error}"
                    problems.append(self._problem(index, position, value, reason))
            if len(problems) >= MAX_PROBLEMS:
                break
        if problems:
            raise Refused(problems)

    def _problem(self, index: int, position: int, value: Any, allowed: str) -> Problem:
        return Problem(_field(index, self.names[position]), clip(value), allowed)

    def without_pixels(self, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """The rows as tables hold them: of each image its stored form alone."""
        if not self.images:
            return rows
        return [
            [as_stored(value) if i in self.images else value for i, value in enumerate(row)]
            for row in rows
        ]

    def lists(self, rows: Sequence[Sequence[Any]]) -> tuple[list[Any], list[Any]]:
        """What tells the list of each row apart, and the topic of its item; without a column, all rows are one list."""
        columns = (
            [None if i is None else row[i] for row in rows] for i in (self._list, self._topic)
        )
        lists, topics = columns
        return lists, topics

    def by_column(self, rows: Sequence[Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """n rows as column -> n values, which `Model.score` takes."""
        return dict(zip(self.names, zip(*rows, strict=True), strict=True))

    def flags(self, rows: Sequence[Sequence[Any]]) -> list[list[str]]:
        """What is odd in each row, in words: values outside of what the schema, or else the training, had.

        Raises:
            Refused: when the settings refuse such rows.
        """
        flags, problems = [], []
        for index, row in enumerate(rows):
            odd = self._odd(row)
            flags.append([flag for flag, *_ in odd])
            for _, name, value, allowed in odd if self._refuse else ():
                field = _field(index, name) if name else f"[{index}]"
                problems.append(Problem(field, clip(value), allowed))
            if len(problems) >= MAX_PROBLEMS:
                break
        if problems:
            raise Refused(problems)
        return flags

    def _odd(self, row: Sequence[Any]) -> list[tuple[str, str, Any, str]]:
        """What is odd in a row: the flag, its column ("": all), the value, and what is allowed."""
        odd: list[tuple[str, str, Any, str]] = []
        for position, low, high, allowed in self._ranges:
            value = row[position]
            if value is None:
                continue
            if low <= value <= high if allowed is None else value in allowed:
                continue
            if allowed is not None and value.strip() in allowed:
                continue
            name = self.names[position]
            phrase = self.allowed(name)
            odd.append((f"{name}: {str(value)[:80]} is not {phrase}", name, value, phrase))
        for position in self._without_gaps:
            if row[position] is None or row[position] == "":
                name = self.names[position]
                odd.append((f"{name}: {NO_GAP}", name, None, "a value"))
        if self._optional and all(row[i] is None or row[i] == "" for i in self._optional):
            odd.append((NO_VALUE, "", None, "a value in some column"))
        return odd

    def to_log(self, row: Sequence[Any]) -> list[Any]:
        """A row's values as they may be written, in the order of `sql_types`: by setting, personal ones
        dropped and texts masked."""
        values = list(self._pick(row))
        for i in self._logged_images:
            values[i] = as_stored(values[i])
        for i in self._logged_times:
            if values[i] is not None:
                values[i] = EPOCH + timedelta(seconds=values[i])
        for i, kinds in self._logged_texts:
            if values[i]:
                values[i] = masked(values[i], kinds)
        return values

    def sql_types(self) -> dict[str, str]:
        """Column -> SQL type, of what `to_log` gives."""
        return {name: TYPES[self.columns[name].type] for name in self.logged_columns}

    def bounds(self, name: str) -> dict[str, Any]:
        """What a value of a column is refused beyond, as JSON Schema says it."""
        for position, low, high, allowed in self._ranges:
            if self._refuse and self.names[position] == name:
                if allowed is None:
                    return {"minimum": low, "maximum": high}
                empty = ["", None] if name not in self.required else []
                return {"enum": [*sorted(allowed - {""}), *empty]}
        return {}

    def allowed(self, name: str) -> str:
        """What a column may hold, in words."""
        return self._allowed[name]

    def _read_time(
        self, value: str | float, name: str, index: int, problems: list[Problem]
    ) -> float | None:
        """Seconds since 1970, read as the column's values are read from files."""
        try:
            moment = seconds(value, self.columns[name].formats)
            if MIN_TIME <= moment <= MAX_TIME:
                return moment
        except (ValueError, OverflowError, OSError):
            pass
        problems.append(Problem(_field(index, name), clip(value), VALUE_PHRASES["time"]))
        return None

    def _read_history(
        self, value: str | list[float | None], position: int, index: int, problems: list[Problem]
    ) -> str | None:
        """A history as tables and logs hold it."""
        try:
            if isinstance(value, str):
                return _written_history(value)
            return msgspec.json.encode(value).decode()
        except (ValueError, RecursionError):
            problems.append(self._problem(index, position, value, VALUE_PHRASES["history"]))
            return None

    def _explain(self, body: bytes, error: Exception) -> list[Problem]:
        """What is wrong with a body that could not be read as rows, within the bounds above."""
        is_list = body.lstrip()[:1] == b"["
        first, start = first_problem(error, body, f"a row, or a list of 1 to {self.max_rows} rows")
        if not isinstance(error, msgspec.ValidationError):
            return [first]
        if first.allowed == NO_NAME:
            name = str(first.got)
            first = Problem(_field(start or 0, name), None, self._suggest(name))
        elif name := self._column_of(first.field, is_list):
            allowed = _type_text(self.columns[name].type, error)
            if "length <=" in str(error):
                first.got = "a longer text"
            first.field, first.allowed = _field(start or 0, name), allowed
        if len(body) > MAX_BODY_BYTES:
            return [first]
        try:
            rows = members(self._decode_raw(body))[start or 0 :] if is_list else [body]
        except ValueError:  # something else is wrong behind the first mistake
            return [first]
        problems: list[Problem] = []
        nearest: dict[str, str] = {}
        size = 0
        for index, row in enumerate(rows, start or 0):
            raw = bytes(row)
            size += len(raw)
            if len(raw) > MAX_ROW_BYTES or size > MAX_ROWS_BYTES or len(problems) >= MAX_PROBLEMS:
                break
            self._explain_row(raw, index, problems, nearest)
        return problems or [first]

    def _explain_row(
        self, raw: bytes, index: int, problems: list[Problem], nearest: dict[str, str]
    ) -> None:
        """Add what is wrong with one row; `nearest` holds the names that were compared already."""
        try:
            self._decode_row(raw)
            return
        except (ValueError, RecursionError):
            pass
        try:
            cells = decode_cells(raw)
        except (ValueError, RecursionError):
            problems.append(Problem(f"[{index}]", echo(raw), "an object: column -> value"))
            return
        for name, value in cells.items():
            if len(problems) >= MAX_PROBLEMS:
                return
            if name not in self.columns:
                if name not in nearest:
                    nearest[name] = (
                        self._suggest(name) if len(nearest) < MAX_COMPARED else NO_COLUMN
                    )
                field = _field(index, name[:MAX_NAME_LENGTH])
                problems.append(Problem(field, echo(bytes(value)), nearest[name]))
                continue
            kind = self.columns[name].type
            try:
                DECODE_CELL[kind](value)
            except (ValueError, RecursionError) as error:
                problems.append(
                    Problem(_field(index, name), echo(bytes(value)), _type_text(kind, error))
                )

    def _column_of(self, path: str, is_list: bool) -> str:
        """The column that a decoder stumbled over; empty where that was no value of a column."""
        name = path.partition("].")[2] if is_list else path
        return name if name in self.columns else ""

    def _suggest(self, name: str) -> str:
        return _nearest(name, self.names) if len(name) <= MAX_NAME_LENGTH else NO_COLUMN


def as_stored(image: str | Decoded | None) -> str | None:
    """An image of a row as tables and logs hold it."""
    return image.text if isinstance(image, Decoded) else image


def _type_text(kind: str, error: Exception) -> str:
    """What a value may be, in words; the bound that it broke, where it has the right type."""
    if "length <=" in str(error):
        return f"{VALUE_PHRASES[kind]}, of at most {MAX_LENGTH[kind]:,} characters"
    if "`int` " in str(error):
        return f"{VALUE_PHRASES[kind]}; a number of more than 64 bits as a text"
    return VALUE_PHRASES[kind]


def hashed(value: str | None) -> str | None:
    """A personal value as `collect` writes it, with the project's secret key; None for a missing one."""
    if not value or not (value := value.strip(SPACES)):
        return None
    return hashlib.sha256(f"{os.environ[PERSONAL_KEY]}:{value}".encode()).hexdigest()


def _field(index: int, name: str) -> str:
    return f"[{index}].{name}"


@lru_cache(maxsize=64)  # the steps ahead of a series share one
def _written_history(text: str) -> str:
    """A history as tables and logs hold it; ValueError for what is none."""
    return msgspec.json.encode(decode_numbers(text)).decode()


@lru_cache(maxsize=1024)
def _nearest(name: str, names: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    matches = get_close_matches(name, names, 1)
    return f"no such column; did you mean {matches[0]}" if matches else NO_COLUMN
