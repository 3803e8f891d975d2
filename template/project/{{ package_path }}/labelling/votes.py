"""The votes that people gave: append-only JSON lines, read and written here alone.

A line is never changed. A later vote of the same person on the same row takes the earlier one's place, so that undoing
is a vote too, and two people who label at the same time merge by taking the lines of both.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from ..paths import GOLD, VOTES
from ..settings import Settings, UserError

Answer = Literal["label", "cannot_tell", "withdrawn"]
MAX_NAME = 80  # characters of a person's name
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Vote:
    """What one person said of one row.

    Args:
        id: the row's, as text. who: the person. at: when, ISO 8601 in UTC.
        answer: a label; that it cannot be told; or that the person takes an earlier vote back.
        label: as the project writes it; None unless `answer` is "label".
        seconds: from the row's appearance to the key; None where nobody measured.
        score_shown: whether the person saw what the model says.
        drawn: why the row was in the queue (`random`, `uncertain`, `gold`, ...); None for none.
    """

    id: str
    who: str
    at: str
    answer: Answer
    label: str | None = None
    seconds: float | None = None
    score_shown: bool = False
    drawn: str | None = None


def now() -> str:
    """This moment as a vote holds it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(text: str) -> datetime:
    """A vote's time, in UTC; without a zone it is UTC.

    Raises:
        ValueError: when it is none.
    """
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def spelling(label: str, settings: Settings) -> str:
    """A label as votes hold it: of a column of numbers `1.0` and `1` are the same."""
    if settings.data.schema_.columns[settings.data.label.column].type != "number":
        return label
    try:
        number = float(label)
    except ValueError:
        return label
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)


def parse(content: Any) -> Vote:
    """A vote of a JSON object.

    Raises:
        ValueError: saying what is wrong with it.
    """
    if not isinstance(content, Mapping):
        raise ValueError("a vote is an object")
    unknown = sorted({*content} - {*Vote.__annotations__})
    missing = [
        key for key in ("id", "who", "at", "answer") if not isinstance(content.get(key), str)
    ]
    if unknown or missing:
        raise ValueError(f"{unknown[0]!r:.40} is no key" if unknown else f"{missing[0]} is missing")
    vote = Vote(**content)
    if vote.answer not in get_args(Answer):
        raise ValueError(f"answer is one of {', '.join(get_args(Answer))}")
    if (vote.answer == "label") != isinstance(vote.label, str) or vote.label == "":
        raise ValueError("label is a text where answer is label, and null elsewhere")
    if not vote.id or not vote.who.strip() or len(vote.who) > MAX_NAME:
        raise ValueError(f"id and who are texts, who of at most {MAX_NAME} characters")
    if vote.seconds is not None and not isinstance(vote.seconds, (int, float)):
        raise ValueError("seconds is a number or null")
    if not isinstance(vote.score_shown, bool) or not isinstance(vote.drawn, (str, type(None))):
        raise ValueError("score_shown is true or false, drawn a text or null")
    moment(vote.at)
    return vote


def read(path: Path) -> list[Vote]:
    """All votes of a file in its order; none where it is not there.

    Raises:
        UserError: naming the first line that is no vote, by its number.
    """
    votes = []
    for number, line in read_lines(path):
        try:
            votes.append(parse(line))
        except ValueError as error:
            raise UserError(f"{path}:{number}: not a vote: {error}") from None
    return votes


def read_lines(path: Path) -> list[tuple[int, Any]]:
    """The objects of a file of JSON lines, each with its number from 1; none where it is not there.

    Raises:
        UserError: naming the first line that is not JSON.
    """
    if not path.is_file():
        return []
    lines = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line.strip():
            try:
                lines.append((number, json.loads(line)))
            except ValueError:
                raise UserError(
                    f"{path}:{number}: not JSON: {line[:40]!r}; mend the line"
                ) from None
    return lines


def append(path: Path, votes: Iterable[Vote]) -> int:
    """Add votes to a file: each line at once and whole, and on the disk when this returns.

    A line that a crash cut short stays by itself: what comes after it begins a new one.

    Returns:
        how many were added.
    """
    lines = [json.dumps(asdict(vote), ensure_ascii=False) for vote in votes]
    content = "".join(f"{line}\n" for line in lines).encode()
    if not content:
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK, path.open("ab") as file:
        if file.tell():
            with path.open("rb") as earlier:
                earlier.seek(-1, os.SEEK_END)
                content = content if earlier.read() == b"\n" else b"\n" + content
        os.write(file.fileno(), content)
        os.fsync(file.fileno())
    return len(lines)


def latest(votes: Iterable[Vote]) -> list[Vote]:
    """The votes that hold: of each person on each row the last by time, unless it was taken back."""
    newest: dict[tuple[str, str], Vote] = {}
    for vote in sorted(
        votes, key=lambda vote: moment(vote.at)
    ):  # stable: of one moment the later line
        newest.pop((vote.id, vote.who), None)
        newest[vote.id, vote.who] = vote
    return [vote for vote in newest.values() if vote.answer != "withdrawn"]


def current(root: Path) -> list[Vote]:
    """The votes of the project that hold."""
    return latest(read(root / VOTES))


def gold(settings: Settings, root: Path) -> dict[str, str]:
    """The labels that are certain, by the id of their row.

    Raises:
        UserError: as `read`.
    """
    votes = latest(read(root / GOLD))
    return {vote.id: spelling(vote.label, settings) for vote in votes if vote.label is not None}
