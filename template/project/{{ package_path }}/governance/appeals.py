"""Appeals: somebody objects to an answer, a person looks at it, and what came of it is recorded.

Both stand in monitoring/appeals.jsonl, one a line, which is only ever added to. An appeal is joined to its answer by the
answer's id in the prediction log.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..parts import part_module
from ..paths import APPEALS, PREDICTION_KEY, PREDICTIONS
from ..records import ANSWER, Unreadable, database, view
from ..settings import UserError
from .oversight import append_line, read_lines, stamped

OUTCOMES = ("upheld", "changed")  # of the decision: it stays, or another takes its place


class Appeal(NamedTuple):
    """An appeal with the answer that it is about, and what came of it.

    Attributes:
        id: of the answer; at, reason: of the appeal.
        answer: the columns of the log that tell the answer; None where the log has it no more.
        outcome: None while it is open, else act with `outcome`, `by`, `reason` and `at`.
    """

    id: str
    at: str
    reason: str
    answer: dict[str, Any] | None
    outcome: dict[str, Any] | None


def appeal(
    root: Path, id: str, reason: str, is_ours: Callable[[str], bool], by: str | None = None
) -> dict[str, Any]:
    """Record that somebody objects to an answer; returns the record.

    Args:
        is_ours: whether an answer was given with this id; by: who recorded it.

    Raises:
        UserError: for an id of no answer, without a reason, or while one on the same answer is open.
    """
    if not reason.strip():
        raise UserError("reason: say in words what is wrong with the answer")
    if not is_ours(id):
        raise UserError(f"id: {id[:80]!r} is none that an answer was given with")
    _, outcomes = _by_id(root)
    if outcomes.get(id, "") is None:
        raise UserError(f"id: {id}: an appeal is open already; `oversight appeals` lists it")
    entry = {"id": id, **stamped(by, reason.strip())}
    append_line(root / APPEALS, entry)
    return {"appeal": id, "at": entry["at"]}


def answer(root: Path, id: str, outcome: str, by: str, reason: str) -> None:
    """Record what came of an open appeal.

    Raises:
        UserError: when none is open on this id, or the name or the reason is missing.
    """
    if not by.strip() or not reason.strip():
        raise UserError("--by and --reason: who decided, and why, in words")
    _, outcomes = _by_id(root)
    if outcomes.get(id, "") is not None:
        raise UserError(f"{id[:80]}: no appeal on it is open; `oversight appeals` lists them")
    append_line(root / APPEALS, {"id": id, "outcome": outcome, **stamped(by, reason)})


def _by_id(root: Path) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any] | None]]:
    """Of each answer the last appeal, and what came of it, None while it is open."""
    appeals: dict[str, dict[str, Any]] = {}
    outcomes: dict[str, dict[str, Any] | None] = {}
    for entry in read_lines(root / APPEALS):
        id = str(entry.get("id"))
        if entry.get("outcome") in OUTCOMES:
            outcomes[id] = entry
        else:
            appeals[id], outcomes[id] = entry, None
    return appeals, outcomes


def appeals(root: Path) -> list[Appeal]:
    """All appeals, the open ones first, then the latest first; each with its answer.

    Raises:
        UserError: when the file cannot be read.
    """
    latest, outcomes = _by_id(root)
    logged = _answers(root, list(latest))
    listed = [
        Appeal(id, str(entry.get("at")), str(entry.get("reason")), logged.get(id), outcomes[id])
        for id, entry in latest.items()
    ]
    listed.sort(key=lambda appeal: appeal.at, reverse=True)
    return sorted(listed, key=lambda appeal: appeal.outcome is not None)


def _answers(root: Path, ids: list[str]) -> dict[str, dict[str, Any]]:
    """The answers that the prediction log has with these ids, as the caller got them."""
    if not ids:
        return {}
    unreadable: list[Unreadable] = []
    with database(root) as sql:
        view(sql, "logged", root / PREDICTIONS, ANSWER, unreadable)
        rows = sql.execute(
            "SELECT _id, _time, _score, _decision, _model, _fallback, _flags FROM logged "
            "WHERE coalesce(_answered, true) AND list_contains(?, _id)",
            [ids],
        ).fetchall()
    keys = ("time", "score", "decision", "model", "fallback", "flags")
    return {id: dict(zip(keys, values, strict=True)) for id, *values in rows}


def is_answered(root: Path) -> Callable[[str], bool]:
    """Tells whether an answer was given with an id: the log has it, or the service made it and the log is gone."""

    def tell(id: str) -> bool:
        if _answers(root, [id]):
            return True
        ids = part_module("serving.ids")
        has_key = ids and (os.environ.get(ids.KEY) or (root / PREDICTION_KEY).is_file())
        return bool(has_key and ids.Ids(ids.secret(root)).is_ours(id))

    return tell
