"""What the workers of a service and the commands share: one SQLite file, so that a restart loses nothing."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from ..settings import UserError

ARMS = ("champion", "challenger")  # the model in production, and the one that wants its place
TIMEOUT_SECONDS = 2.0  # that another process may hold the state
# What the store says -> what it means
FAILURE_PHRASES = {
    "full": "the disk is full",
    "readonly": "it may only be read",
    "locked": "another process holds it",
    "unable to open": "it cannot be opened",
    "disk i/o": "the disk fails",
}

log = logging.getLogger("serving")


class StoreError(UserError):
    """The shared state cannot be read or written now."""


class Store:
    """The shared state's file; a router adds tables in `prepare`.

    Args:
        file: of the shared state; a damaged one is set aside and begun anew.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.generation = 0  # raised when the models have to be read again
        self._begun = False

    def prepare(self, sql: sqlite3.Connection) -> None:
        """Make the tables, within a transaction."""
        sql.execute("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        sql.execute("INSERT OR IGNORE INTO state VALUES ('generation', '0')")

    def _begin(self) -> None:
        """Make the shared state, or bring it to these settings."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with _connect(self._file) as sql:
            sql.execute("BEGIN IMMEDIATE")
            self.prepare(sql)
            sql.execute("COMMIT")

    def bump(self) -> None:
        """Let all workers read the models again.

        Raises:
            StoreError: when the shared state is out of reach.
        """
        with self.opened() as sql:
            _raise_generation(sql)

    def note(self, event: str) -> None:
        """Keep in the shared state that an event was; out of reach of the state, nothing is kept."""
        with suppress(StoreError), self.opened() as sql:
            if not get(sql, event):
                put(sql, **{event: 1})

    def noted(self, event: str) -> bool:
        """Whether `note` kept this event."""
        with suppress(StoreError), self.opened() as sql:
            return bool(get(sql, event))
        return False

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """The shared state, begun anew when it is damaged.

        Raises:
            StoreError: when the state is out of reach.
        """
        try:
            if not self._begun:
                self._begin()
                self._begun = True
            with _connect(self._file) as sql:
                yield sql
        except (sqlite3.Error, OSError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            self._begun = False  # it may have been deleted
            if not _is_disk_failure(error):
                log.error("router state unreadable, begun anew", extra={"reason": str(error)})
                with suppress(OSError):
                    self._file.replace(self._file.with_suffix(".unreadable"))
            raise StoreError(f"{self._file}: {_failure_phrase(error)}") from None


def _connect(file: Path) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(file, timeout=TIMEOUT_SECONDS, isolation_level=None))


def _is_disk_failure(error: Exception) -> bool:
    """Whether the disk or the system is to blame, and not the file's content."""
    if isinstance(error, sqlite3.OperationalError):
        return "no such table" not in str(error) and "no such column" not in str(error)
    return isinstance(error, OSError)


def _failure_phrase(error: Exception) -> str:
    """What a failure of the store is, in words for a user."""
    if isinstance(error, OSError):
        return (error.strerror or "it is out of reach").lower()
    message = str(error).lower()
    phrases = (phrase for part, phrase in FAILURE_PHRASES.items() if part in message)
    return next(phrases, "its content is damaged")


def bump(file: Path) -> None:
    """Let the workers that share this state, if there are any, read the models again.

    Raises:
        StoreError: when the state is out of reach.
    """
    if not file.is_file():
        return
    try:
        with _connect(file) as sql:
            _raise_generation(sql)
    except sqlite3.Error as error:
        raise StoreError(f"{file}: {_failure_phrase(error)}: no running service was told") from None


def _raise_generation(sql: sqlite3.Connection) -> None:
    sql.execute("UPDATE state SET value = value + 1 WHERE key = 'generation'")


def get(sql: sqlite3.Connection, key: str) -> str:
    """The text that the state keeps under a key, empty when there is none."""
    row = sql.execute("SELECT value FROM state WHERE key = ?", [key]).fetchone()
    return row[0] if row else ""


def put(sql: sqlite3.Connection, **values: Any) -> None:
    """Keep values in the state, each under its key and as a text."""
    sql.executemany(
        "INSERT OR REPLACE INTO state VALUES (?, ?)", [(k, str(v)) for k, v in values.items()]
    )
