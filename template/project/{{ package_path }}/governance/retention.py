"""How long records are kept: what is younger than a kind's floor nobody deletes, what is older than its ceiling `forget` does.

Answers are `scoring.forget`'s; promotions stand in git's history, from which nothing is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..paths import APPEALS, INCIDENTS
from ..settings import Settings, UserError, read_text


def forget_records(settings: Settings, root: Path) -> dict[str, int]:
    """Delete incidents and appeals that were over longer ago than `governance.records` lets them be kept.

    Returns:
        file -> how many were deleted there; of kinds that have a ceiling.

    Raises:
        UserError: when a file holds a line that is no record; what stands in it stays.
    """
    records, now = settings.governance.records, datetime.now(UTC)
    return {
        file: _delete_over(root, file, is_last, key, now - timedelta(days=kind.at_most))
        for file, kind, is_last, key in (
            (INCIDENTS, records.incidents, lambda entry: entry.get("event") == "close", "end"),
            (APPEALS, records.appeals, lambda entry: "outcome" in entry, "at"),
        )
        if kind.at_most is not None
    }


def _delete_over(
    root: Path, file: str, is_last: Callable[[dict[str, str]], bool], key: str, until: datetime
) -> int:
    """Delete all lines of what was over before a moment; how many ids that were.

    Args:
        is_last: whether a line ends what its `id` names; key: of the line's moment.
    """
    path = root / file
    if not path.is_file():
        return 0
    lines = read_text(path).splitlines(keepends=True)
    past: set[str] = set()
    ids = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            ids.append(entry["id"])
            is_past = is_last(entry) and _utc(entry[key]) < until
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{file}:{number}: is no record: mend the line") from None
        # The last line of an id decides: an appeal may follow on one that was answered
        (past.add if is_past else past.discard)(entry["id"])
    if past:
        remaining = [line for id_, line in zip(ids, lines, strict=True) if id_ not in past]
        unfinished = path.with_name(f"{path.name}.new")
        unfinished.write_text("".join(remaining), encoding="utf-8", newline="\n")
        unfinished.replace(path)
    return len(past)


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
