"""The online store: what is known of a series, an item or a customer by its key, so that requests can leave it out.

A file of JSON lines, as `materialize` writes them, that the service reads again when another one is in its place.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..data.parsing import canonical
from ..settings import Settings
from .rows import DECODE_CELL, hashed

MAX_LISTED = 200  # keys that the page offers
log = logging.getLogger("serving")
read_values = msgspec.json.Decoder(dict[str, Any]).decode
read_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Entry(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A line of the file: of which column's which value something is known, and what: `values` by column."""

    column: str
    value: str
    values: dict[str, msgspec.Raw]


read_entry = msgspec.json.Decoder(Entry).decode


def lookup_key(value: Any, is_hashed: bool) -> str:
    """A value of a request as files by key have it; `is_hashed`: it is personal, and only its hash is written."""
    key = value if isinstance(value, str) else canonical(value)
    return hashed(key) or "" if is_hashed else key


class WatchedFile(ABC):
    """A file that is read again when another one is in its place; one that cannot be read leaves what was known."""

    CONTENT = ""  # what it holds, in words for the log
    entries: dict[str, Any]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._signature: tuple[int, ...] | None = None
        self.entries = {}

    def refresh(self) -> None:
        """Read the file where it is another one than before."""
        try:
            status = self.path.stat()
        except OSError:  # none is there yet, or no longer: what was known stays
            return
        signature = (status.st_mtime_ns, status.st_size, status.st_ino)
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self.entries = self._read()
        except (OSError, ValueError) as error:
            details = {"file": str(self.path), "reason": str(error)}
            log.error(f"{self.CONTENT} not readable, what was known stays", extra=details)
            return
        details = {"file": str(self.path), "entries": self._counts()}
        log.info(f"{self.CONTENT} read", extra=details)

    @abstractmethod
    def _read(self) -> dict[str, Any]:
        """What the file holds.

        Raises:
            OSError, ValueError: when it cannot be read; the line stands in the message.
        """

    def _counts(self) -> Any:
        return len(self.entries)


class OnlineStore(WatchedFile):
    """What is known by key.

    Attributes:
        entries: column -> its value -> what is known of it, a JSON object as bytes.
    """

    CONTENT = "online store"
    entries: dict[str, dict[str, bytes]]

    def __init__(self, path: Path, settings: Settings) -> None:
        super().__init__(path)
        self._kinds = {name: column.type for name, column in settings.data.schema_.columns.items()}
        columns = settings.data.schema_.columns.items()
        self._personal = {name for name, column in columns if column.personal}
        self._hashed = self._personal if settings.data.personal == "hash" else set()
        self.refresh()

    def _counts(self) -> dict[str, int]:
        return {column: len(entries) for column, entries in self.entries.items()}

    def _read(self) -> dict[str, dict[str, bytes]]:
        entries: dict[str, dict[str, bytes]] = {}
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    entry = read_entry(line)
                    for name in (entry.column, *entry.values):
                        if name not in self._kinds:
                            raise ValueError(f"{name!r} is no column of data.schema.columns")
                    values = {
                        n: raw for n, raw in entry.values.items() if self._fits(n, bytes(raw))
                    }
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"line {number}: {error}") from None
                of_column = entries.setdefault(entry.column, {})
                if before := of_column.get(entry.value):  # a line for each of several histories
                    values = read_values(before) | values
                of_column[entry.value] = msgspec.json.encode(values)
        return entries

    def _fits(self, name: str, raw: bytes) -> bool:
        """Whether something is known of a column.

        Raises:
            ValueError: what the column may not hold, be it for all rows or, as a list, for each step ahead.
        """
        decode = DECODE_CELL[self._kinds[name]]
        if raw[:1] == b"[" and self._kinds[name] != "history":
            for value in read_list(raw):
                decode(value)
        else:
            decode(raw)
        return raw != b"null"

    def values_of(self, column: str, value: Any) -> dict[str, Any] | None:
        """What is known of a column's value, by column; None where that is nothing."""
        entries = self.entries.get(column)
        if entries is None or not isinstance(value, str | int | float):
            return None
        raw = entries.get(lookup_key(value, column in self._hashed))
        return None if raw is None else read_values(raw)

    def completed(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row, or a series, with what is known of it in the place of what it leaves out."""
        for column in self.entries:
            if values := self.values_of(column, row.get(column)):
                row = values | {name: value for name, value in row.items() if value is not None}
        return row

    def fill(self, rows: Sequence[list[Any]], positions: dict[str, int]) -> None:
        """Put what is known in the place of what rows leave out, in place.

        Args:
            rows: each with a value for every column; positions: column -> its place in a row.
        """
        for column in self.entries:
            key = positions.get(column)
            if key is None:
                continue
            for row in rows:
                for name, value in (self.values_of(column, row[key]) or {}).items():
                    position = positions.get(name)
                    # A list of anything but a history has a value for each step ahead, of which a row is one
                    if position is None or row[position] is not None:
                        continue
                    if self._kinds[name] == "history" or not isinstance(value, list):
                        row[position] = value

    def describe(self) -> dict[str, Any]:
        """What GET /model says: by column how many values something is known of, and the first of them; of people no
        more than how many."""
        return {
            column: {
                "count": len(entries),
                "first": [] if column in self._personal else [*entries][:MAX_LISTED],
            }
            for column, entries in self.entries.items()
        }
