"""Who is forgotten, and how long rows are kept: what `collect` leaves out before anything is written.

Of a person who was forgotten, nothing but a keyed digest is recorded, so that a later collection leaves the person out
again. The list is the team's, in git beside the settings: a colleague's collection leaves the same rows out.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..paths import FORGOTTEN
from ..settings import Settings, UserError
from .schema import cleaned, name, text, typed

SECONDS_A_DAY = 86_400


def digests(root: Path) -> tuple[str, list[dict[str, Any]]]:
    """The salt of the list of the forgotten, and its entries: `column`, the digests of the value as the source has it
    (`digest`) and as files have it (`stored`), and the date; empty without a list.

    Raises:
        UserError: when a line is none of such a list.
    """
    path = root / FORGOTTEN
    if not path.is_file():
        return "", []
    salt, entries = "", []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            salt = salt or entry["salt"]
            if "digest" in entry:
                entries.append(
                    {key: str(entry[key]) for key in ("column", "digest", "stored", "at")}
                )
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{FORGOTTEN}: line {number} is no entry of `forget`") from None
    return salt, entries


def record(root: Path, column: str, value: str, stored: str) -> bool:
    """Add somebody to the list of the forgotten; whether nobody had done so before.

    Args:
        value: as the source has it; stored: as files have it, which is its hash where personal values are hashed.
    """
    salt, entries = digests(root)
    lines = []
    if not salt:
        salt = secrets.token_hex(16)
        lines.append({"salt": salt})
    digest = digest_of(salt, value)
    if any(entry["digest"] == digest and entry["column"] == column for entry in entries):
        return False
    today = datetime.now(UTC).date().isoformat()
    digests_of = {"digest": digest, "stored": digest_of(salt, stored)}
    lines.append({"column": column, **digests_of, "at": today})
    (root / FORGOTTEN).parent.mkdir(exist_ok=True)
    with (root / FORGOTTEN).open("a", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return True


def digest_of(salt: str, value: str) -> str:
    """What stands on the list for a value: its SHA-256 with the list's salt, as hexadecimal digits."""
    return hashlib.sha256(f"{salt}:{value}".encode()).hexdigest()


def retained(
    query: str,
    columns: Mapping[str, tuple[str, str]],
    settings: Settings,
    root: Path,
    earliest: datetime | None = None,
) -> str:
    """SQL of those rows of a source that may be kept: of nobody who was forgotten, and none that is too old.

    Args:
        query: SQL of the rows; columns: name -> (name there, type).
        earliest: only rows from this moment on; None: all.
    """
    schema, retention = settings.data.schema_, settings.data.retention
    values = {column: _value(columns, settings, column) for column in settings.data.schema_.columns}
    conditions = _not_listed(root, values, "digest")
    moment = _value(columns, settings, schema.time) if schema.time else None
    if retention.days is not None and moment is not None:
        # A moment to come is a slip, by which nobody's rows are too old
        latest = f"(SELECT max({moment}) FROM ({query}) WHERE {moment} <= now()::TIMESTAMP)"
        oldest = f"{latest} - to_seconds({retention.days * SECONDS_A_DAY!r})"
        conditions.append(f"coalesce({moment} >= {oldest}, true)")
    if earliest is not None and moment is not None:
        conditions.append(f"{moment} >= {text(str(earliest))}::TIMESTAMP")
    return f"FROM ({query}) WHERE {' AND '.join(conditions)}" if conditions else query


def remembered(root: Path, columns: Collection[str]) -> str:
    """SQL that is true of rows of nobody who was forgotten, of a file that a stage or the service wrote.

    Args:
        columns: that the file has.
    """
    values = {column: name(column) for column in columns}
    return " AND ".join(_not_listed(root, values, "stored", anew=False)) or "true"


def _not_listed(
    root: Path, values: Mapping[str, str | None], digest: str, anew: bool = True
) -> list[str]:
    """SQL conditions by which rows of those who were forgotten are left out, one for each column that names people.

    Args:
        values: SQL of each column, or None; digest: which of the two that an entry has.
        anew: whether a list that names a column which is not there is an error, as it is of a source.
    """
    salt, entries = digests(root)
    conditions = []
    for column in sorted({entry["column"] for entry in entries}):
        if (value := values.get(column)) is None:
            if not anew:
                continue
            missing = (
                f"the source has no column {column!r} any more, which somebody was forgotten by"
            )
            raise UserError(f"{FORGOTTEN}: {missing}")
        listed = ", ".join(text(entry[digest]) for entry in entries if entry["column"] == column)
        hashed = f"sha256({text(salt + ':')} || CAST({value} AS VARCHAR))"
        conditions.append(f"coalesce({hashed} NOT IN ({listed}), true)")
    return conditions


def _value(columns: Mapping[str, tuple[str, str]], settings: Settings, column: str) -> str | None:
    """SQL of a column of a source, of the schema's type; None where the source has no such column."""
    rule = settings.data.schema_.columns.get(column)
    if rule is None or (rule.source or column) not in columns:
        return None
    raw, kind = columns[rule.source or column]
    return typed(cleaned(raw, kind, rule), kind.split("(")[0], rule)
