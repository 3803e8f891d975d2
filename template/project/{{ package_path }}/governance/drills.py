"""Drills of what people may do to the model: stop it, take somebody out of its hands, appeal against an answer.

Each asks a service of two workers that runs on a copy of the project, and says whether it obeyed and how soon.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..paths import OVERSIGHT_DRILLS
from ..problem import LISTED
from ..records import EXCLUDED, STOPPED
from ..settings import Settings
from .appeals import answer, appeals
from .oversight import FLAGS, append_line, exclude, stamped, unit_column

IN_ROW = 40  # answers in a row, each over a connection of its own, after which every worker has given some
SECONDS_ALLOWED = 1.0  # until every worker obeys a stop
DEADLINE = 20.0

Drill = Callable[[Settings, Path, str, bytes], tuple[bool, str]]


def stop_drill(settings: Settings, root: Path, address: str, body: bytes) -> tuple[bool, str]:
    """Stop the model while it is asked; then every answer is the fallback's. And let it answer again."""
    start = time.monotonic()
    _post(f"{address}/stop", b'{"by": "drill"}')
    seconds = _seconds_until(address, body, FLAGS[STOPPED], start)
    _post(f"{address}/resume", b'{"by": "drill"}')
    resumed = _seconds_until(address, body, None, time.monotonic())
    worked = seconds is not None and seconds <= SECONDS_ALLOWED and resumed is not None
    if seconds is None:
        return False, f"the model still answered {DEADLINE:.0f} s after POST /stop"
    again = "answers again" if resumed is not None else "does not answer again"
    return (
        worked,
        f"every worker obeyed {seconds:.2f} s after POST /stop; resumed, the model {again}",
    )


def exclusion_drill(settings: Settings, root: Path, address: str, body: bytes) -> tuple[bool, str]:
    """Exclude a unit of the test rows; then its rows, and no others, go to a person."""
    column, rows = unit_column(settings), json.loads(body)
    if not (units := [str(row[column]) for row in rows if row.get(column) is not None]):
        return False, f"no test row has a value of {column}"
    start = time.monotonic()
    exclude(settings, root, units[0], column, "drill", None)
    theirs = json.dumps([row for row in rows if str(row.get(column)) == units[0]]).encode()
    seconds = _seconds_until(address, theirs, FLAGS[EXCLUDED], start)
    flagged = [FLAGS[EXCLUDED] in entry["flags"] for entry in _answers(address, body)]
    strangers = sum(
        flag for flag, row in zip(flagged, rows, strict=True) if str(row.get(column)) != units[0]
    )
    message = f"rows of {column} {units[0]!r} went to a person "
    message += "never" if seconds is None else f"after {seconds:.2f} s"
    if LISTED:
        message += f"; with them, rows of others in the same lists: {strangers}"
    return seconds is not None and (LISTED or not strangers), message


def appeal_drill(settings: Settings, root: Path, address: str, body: bytes) -> tuple[bool, str]:
    """Appeal against an answer of the service, and against one that it never gave; answer the appeal."""
    id = _answers(address, body)[0]["id"]
    invented_status, _ = _post(
        f"{address}/appeal", json.dumps({"id": f"a{'0' * 39}", "reason": "drill"}).encode()
    )
    status, _ = _post(f"{address}/appeal", json.dumps({"id": id, "reason": "drill"}).encode())
    deadline = time.monotonic() + DEADLINE
    while not (joined := [appeal for appeal in appeals(root) if appeal.id == id and appeal.answer]):
        if time.monotonic() > deadline:
            return False, f"POST /appeal answered {status}, and no appeal has its answer"
        time.sleep(0.1)
    answer(root, id, "upheld", "drill", "drill")
    closed = [appeal.outcome for appeal in appeals(root) if appeal.id == id and appeal.outcome]
    worked = bool(joined and closed) and status == 200 and invented_status == 422
    invented = "refused" if invented_status == 422 else f"answered {invented_status}"
    return (
        worked,
        f"an appeal was joined to its answer and answered; one on an invented id was {invented}",
    )


DRILLS: dict[str, Drill] = {
    "stop": stop_drill,
    "exclusion": exclusion_drill,
    "appeal": appeal_drill,
}


def record(root: Path, name: str, message: str) -> None:
    """Keep that a drill worked, for those who ask when it was tried.

    Raises:
        UserError: when it cannot be written.
    """
    entry = {"drill": name, "words": message, "at": stamped("drill", None)["at"]}
    append_line(root / OVERSIGHT_DRILLS, entry)


def _seconds_until(address: str, body: bytes, flag: str | None, start: float) -> float | None:
    """Seconds from `start` until all answers have a flag, or none by a stop; None: too late. By as many in a row that
    each worker gave some, the moment of the first of them."""
    since, in_row = time.monotonic(), 0
    while in_row < IN_ROW:
        begun = time.monotonic()
        answers = _answers(address, body)
        obeyed = bool(answers) and all(
            flag in entry["flags"] if flag else FLAGS[STOPPED] not in entry["flags"]
            for entry in answers
        )
        since = begun if obeyed and not in_row else since
        in_row = in_row + 1 if obeyed else 0
        if time.monotonic() - start > DEADLINE:
            return None
    return max(0.0, since - start)


def _answers(address: str, body: bytes) -> Sequence[dict[str, Any]]:
    status, content = _post(f"{address}/predict", body)
    answered = json.loads(content)
    return answered if status == 200 else []


def _post(address: str, body: bytes) -> tuple[int, bytes]:
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answered:
            return answered.status, answered.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
