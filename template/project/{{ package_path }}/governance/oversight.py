"""What people take out of the models' hands: all rows by the stop switch, some by the list of exclusions.

Both are acts in monitoring/oversight.jsonl, one a line, in the order in which they were done; what holds follows from
them. The file is only added to, so that it also says who did what when. Each worker of the service looks at it several
times a second, `score` before it begins.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..data.retention import digest_of
from ..data.schema import PERSONAL_KEY, text
from ..paths import OVERSIGHT
from ..problem import LISTED
from ..records import EXCLUDED, STOPPED
from ..scoring.state import StoreError
from ..settings import Settings, UserError

WATCH_SECONDS = 0.2  # between looks at the file
MAX_WORDS = 2_000  # characters of a reason or a name
EXCLUDABLE = ("category", "text", "number")  # types of columns that can name whom a row is about
FLAGS = {
    STOPPED: "answered by the fallback: the model was stopped by its operator",
    EXCLUDED: "excluded: a person decides",
}
STOPPED_MESSAGE = "stopped: the fallback answers"
ACTS = ("stop", "resume", "exclude", "include")

Act = dict[
    str, Any
]  # act, at, by, reason; of an exclusion also column and value, or digest; once the salt
Unit = tuple[str, str]  # a column, and a value of it or its digest
log = logging.getLogger("serving")


@dataclass(frozen=True)
class State:
    """What holds: the act that stopped the model, or None; the units that are excluded, by the act that did it."""

    stop: Act | None = None
    excluded: Mapping[Unit, Act] = field(default_factory=dict)
    salt: str = ""  # of the digests


def read(root: Path) -> State:
    """What holds by the acts until now.

    Raises:
        UserError: when the file cannot be read, or a line is no act.
    """
    path, stop, salt = root / OVERSIGHT, None, ""
    excluded: dict[Unit, Act] = {}
    for act in read_lines(path):
        if act.get("act") not in ACTS:
            raise UserError(f"{path}: {act.get('act')!r:.80} is no act; it knows {', '.join(ACTS)}")
        salt = salt or act.get("salt", "")
        unit = (str(act.get("column")), str(act.get("value", act.get("digest"))))
        match act["act"]:
            case "exclude":
                excluded[unit] = act
            case "include":
                excluded.pop(unit, None)
            case name:
                stop = act if name == "stop" else None
    return State(stop, excluded, salt)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; none where there is no file.

    Raises:
        UserError: when the file cannot be read, or a line is no object.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            raise UserError(f"{path}: line {number} cannot be read; mend or delete that line")
        entries.append(entry)
    return entries


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Add an object to a file of JSON lines: whole, or not at all.

    Raises:
        StoreError: when it cannot be written.
    """
    line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            end = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, end)  # a full disk took a part
                raise OSError(0, "the disk is full")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; nothing was recorded") from None


def stamped(by: str | None, reason: str | None) -> dict[str, Any]:
    """When something is done, by whom and why, as a record has it.

    Raises:
        UserError: when one of the texts is too long.
    """
    for key, value in (("by", by), ("reason", reason)):
        if value and len(value) > MAX_WORDS:
            raise UserError(f"{key}: has {len(value):,} characters; at most {MAX_WORDS:,} are kept")
    return {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "by": by, "reason": reason}


def stop(root: Path, by: str | None = None, reason: str | None = None) -> Act:
    """Let no model answer from now on; returns the act.

    Raises:
        StoreError: when it cannot be recorded.
    """
    act = {"act": "stop", **stamped(by, reason)}
    append_line(root / OVERSIGHT, act)
    return act


def resume(root: Path, by: str | None = None, reason: str | None = None) -> Act:
    """Let the models answer again; returns the act.

    Raises:
        UserError: when they are not stopped, or it cannot be recorded.
    """
    if read(root).stop is None:
        raise UserError("the model is not stopped; `oversight list` shows what holds")
    act = {"act": "resume", **stamped(by, reason)}
    append_line(root / OVERSIGHT, act)
    return act


def exclude(
    settings: Settings,
    root: Path,
    value: str,
    column: str | None,
    by: str | None,
    reason: str | None,
) -> str:
    """Let no model decide on a unit's rows from now on; returns the column that names it.

    Args:
        value: as the source has it; column: that names units; None: `unit_column`.

    Raises:
        UserError: for a column that cannot name units, or a unit that is on the list already.
    """
    column, state = column or unit_column(settings), read(root)
    salt = state.salt or secrets.token_hex(16)
    unit = _unit(settings, salt, column, value)
    if unit in state.excluded:
        raise UserError(f"{column} {value!r}: is excluded since {state.excluded[unit]['at'][:10]}")
    key = "digest" if settings.data.schema_.columns[column].personal else "value"
    act = {"act": "exclude", **stamped(by, reason), "column": column, key: unit[1]}
    append_line(
        root / OVERSIGHT, act | ({"salt": salt} if key == "digest" and not state.salt else {})
    )
    return column


def include(
    settings: Settings,
    root: Path,
    value: str,
    column: str | None,
    by: str | None,
    reason: str | None,
) -> str:
    """Let models decide on a unit's rows again; returns the column that names it.

    Raises:
        UserError: for a unit that is not on the list.
    """
    column, state = column or unit_column(settings), read(root)
    unit = _unit(settings, state.salt, column, value)
    if unit not in state.excluded:
        raise UserError(f"{column} {value!r}: is not excluded; `oversight list` shows who is")
    key = "digest" if "digest" in state.excluded[unit] else "value"
    append_line(
        root / OVERSIGHT, {"act": "include", **stamped(by, reason), "column": column, key: unit[1]}
    )
    return column


def unit_column(settings: Settings) -> str:
    """The column that names whom a row is about: the router's unit, what the split keeps together, or the id.

    Raises:
        UserError: when the settings name none.
    """
    unit = settings.rollout.router.unit if settings.rollout else None
    column = unit or settings.data.split.group or settings.data.schema_.id
    if column is None:
        raise UserError("--column: which column names whom a row is about? The settings do not say")
    return column


def _unit(settings: Settings, salt: str, column: str, value: str) -> Unit:
    """A unit as the list has it.

    Raises:
        UserError: for a column that cannot name units.
    """
    rule = settings.data.schema_.columns.get(column)
    if rule is None or column in (settings.data.label.column, settings.data.label.time):
        raise UserError(
            f"--column {column}: is not a column of data.schema.columns that rows come with"
        )
    if rule.type not in EXCLUDABLE:
        raise UserError(f"--column {column}: is of type {rule.type}, which names nobody")
    if not rule.personal:
        return column, _as_text(value, rule.type)
    if settings.data.personal == "drop":
        raise UserError(
            f"--column {column}: is personal, and data.personal drops it: no row has it"
        )
    if settings.data.personal == "hash":
        if not (key := os.environ.get(PERSONAL_KEY)):
            raise UserError(
                f"data.personal: hash needs its secret key: `export {PERSONAL_KEY}=...`"
            )
        value = sha256(f"{key}:{value}".encode()).hexdigest()
    return column, digest_of(salt, value)


def _as_text(value: Any, kind: str) -> str:
    """A value of a column as the list has it.

    Raises:
        UserError: when a column of numbers has no such value.
    """
    if kind != "number":
        return str(value).strip()
    try:
        return repr(float(value))
    except ValueError:
        raise UserError(f"{value!r:.80} is no number, as the column has them") from None


def is_excluded_sql(settings: Settings, state: State, file: str, present: Mapping[str, str]) -> str:
    """SQL that is true of the rows of a file that no model decides; empty where nobody is excluded.

    Args:
        present: SQL of each column that the file has, as logs have them.

    Raises:
        UserError: when the file does not say of a column that somebody is excluded by.
    """
    conditions = []
    for column in sorted({column for column, _ in state.excluded}):
        if column not in present:
            raise UserError(
                f"{file}: has no column {column!r}, by which {OVERSIGHT} excludes rows from the model"
            )
        rule, value = settings.data.schema_.columns[column], present[column]
        units = [unit for of_column, unit in state.excluded if of_column == column]
        value = f"CAST({value} AS {'DOUBLE' if rule.type == 'number' else 'VARCHAR'})"
        if rule.personal:
            value = f"sha256({text(state.salt + ':')} || {value})"
        listed = ", ".join(
            unit if rule.type == "number" and not rule.personal else text(unit) for unit in units
        )
        conditions.append(f"coalesce({value} IN ({listed}), false)")
    return " OR ".join(conditions)


def refuse_stopped(state: State, fallback: bool) -> str:
    """Why the baseline answers a batch in place of a stopped model; empty while it is not stopped.

    Raises:
        UserError: when it is stopped, and `fallback` does not let the baseline answer.
    """
    if state.stop is None:
        return ""
    message = f"the model was stopped{phrase(state.stop)}"
    if not fallback:
        raise UserError(
            f"{message}: `oversight resume` lets it answer again, --fallback the baseline"
        )
    return message


def phrase(act: Mapping[str, Any]) -> str:
    """By whom, when and why something was done, in words that follow on."""
    by = f" by {act['by']}" if act.get("by") else ""
    return f"{by} on {act['at'][:16].replace('T', ' ')}" + (
        f" ({act['reason']})" if act.get("reason") else ""
    )


class Oversight:
    """What holds, as a worker of the service sees it: kept up to date by a thread of its own.

    What cannot be read is not obeyed and not forgotten: what held before goes on, and where nothing held yet, as at a
    start, the model counts as stopped.

    Args:
        announce: takes whether the model is stopped, whenever that was looked at.
    """

    def __init__(self, settings: Settings, root: Path, announce: Callable[[bool], object]) -> None:
        self._settings, self._root, self._announce = settings, root, announce
        self.stop: Act | None = None
        self._units: dict[str, set[str]] = {}  # column -> values or digests
        self._salt, self._seen, self._reported = "", None, ""
        self._ending, self._turn = threading.Event(), threading.Lock()
        self._look()
        self._thread = threading.Thread(target=self._watch, name="oversight", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ending.wait(WATCH_SECONDS):
            try:
                self._look()
            except Exception:  # a thread that dies would leave the worker deaf
                log.exception("could not look what people decided")

    def _look(self) -> None:
        """Take in what was done since the last look."""
        with self._turn:
            path = self._root / OVERSIGHT
            try:
                status = path.stat()
                signature: Any = (status.st_ino, status.st_size, status.st_mtime_ns)
            except OSError:  # no file, or none that can be reached: reading it says which
                signature = "none"
            if signature != self._seen:
                try:
                    self._take(read(self._root))
                    self._seen, self._reported = signature, ""
                except UserError as error:
                    self._report(str(error))
            self._announce(self.stop is not None)

    def _report(self, reason: str) -> None:
        if self._seen is None and self.stop is None:
            self.stop = {"act": "stop", **stamped(None, reason)}
        if reason != self._reported:
            log.error(
                "what people decided cannot be read: what held goes on", extra={"reason": reason}
            )
        self._reported = reason

    def _take(self, state: State) -> None:
        if state.stop != self.stop:
            if state.stop:
                log.warning(STOPPED_MESSAGE, extra=_logged(state.stop))
            else:
                log.warning("resumed: the models answer")
        units: dict[str, set[str]] = {}
        for column, unit in state.excluded:
            units.setdefault(column, set()).add(unit)
        self.stop, self._units, self._salt = state.stop, units, state.salt

    def ask(self, path: str, body: bytes, is_ours: Callable[[str], bool]) -> dict[str, Any]:
        """Do what a request for `/stop`, `/resume` or `/appeal` asks for; this worker obeys at once.

        Args:
            body: JSON, an object; is_ours: whether the service gave an answer with this id.

        Raises:
            UserError: what is no such request; StoreError: when it cannot be recorded.
        """
        fields = _fields(body, ("id", "reason") if path == "/appeal" else ("by", "reason"))
        if path == "/appeal":
            from .appeals import appeal

            return appeal(self._root, fields.get("id") or "", fields.get("reason") or "", is_ours)
        if path == "/resume":
            resume(self._root, **fields)
        else:
            act = {"act": "stop", **stamped(fields.get("by"), fields.get("reason"))}
            self.stop = act  # whatever becomes of its record
            log.warning(STOPPED_MESSAGE, extra=_logged(act))
            append_line(self._root / OVERSIGHT, act)
        self._look()
        return {"stopped": self.stop}

    def withheld(self, ways: list[str], rows: Sequence[Sequence[Any]], schema: Any) -> list[str]:
        """What answers each of n rows: EXCLUDED, STOPPED, or what would answer it otherwise.

        A rule before the model answers in the model's place, stopped or not; of who is excluded it decides nothing.

        Args:
            ways: what would answer each row, "" a model; rows: as `Rows.check` gives them; schema: those `Rows`.
        """
        if self.stop is not None:
            ways = [way or STOPPED for way in ways]
        excluded = [
            (schema.positions[column], units, self._settings.data.schema_.columns[column])
            for column, units in self._units.items()
            if column in schema.positions
        ]
        if not excluded:
            return ways
        held = [
            any(self._is_listed(row[i], units, rule) for i, units, rule in excluded) for row in rows
        ]
        if LISTED and any(held):  # places hang on one another: a list goes as a whole
            keys, _ = schema.lists(rows)
            lists = {key for key, is_held in zip(keys, held, strict=True) if is_held}
            held = [key in lists for key in keys]
        return [EXCLUDED if is_held else way for is_held, way in zip(held, ways, strict=True)]

    def _is_listed(self, value: Any, units: set[str], rule: Any) -> bool:
        if value is None:
            return False
        if rule.personal:
            return digest_of(self._salt, str(value)) in units
        return _as_text(value, rule.type) in units

    def close(self) -> None:
        """Look no more."""
        self._ending.set()
        self._thread.join()


def _fields(body: bytes, names: Sequence[str]) -> dict[str, str | None]:
    """The texts of a request's body: a JSON object with some of these names, or nothing.

    Raises:
        UserError: when it is something else.
    """
    try:
        fields = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        fields = None
    if (
        not isinstance(fields, dict)
        or not {*fields} <= {*names}
        or not all(isinstance(value, str | None) for value in fields.values())
    ):
        raise UserError(f"an object with {' and '.join(names)}, each a text")
    return fields


def _logged(act: Act) -> dict[str, Any]:
    return {"by": act.get("by"), "reason": act.get("reason"), "at": act["at"]}
