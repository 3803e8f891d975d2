"""The queue out to other programs, and their answers back in as votes: CSV, and the JSON of Label Studio.

Label Studio gives each task an `id` of its own, so the project's is called `row_id` in both.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from .. import problem
from ..paths import VOTES
from ..problem import data as problem_data
from ..settings import Settings, UserError, read_text
from .aggregation import require_numbers
from .queue import Entry, read_queue
from .rows import keys, read_fields, read_labels
from .votes import Vote, append, now, parse, read, spelling

ID, LABEL, WHO, AT = "row_id", "label", "who", "at"
CANNOT_TELL = "cannot tell"
FORMATS = (".csv", ".json")
SHEET_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for a formula


@dataclass(frozen=True)
class Imported:
    """How many votes came in, and how many were there already or left out as skipped."""

    added: int
    present: int
    skipped: int


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"{path}: neither .csv nor .json, the two that are read and written")
    return suffix


def export_queue(settings: Settings, root: Path, path: Path) -> int:
    """Write the queue to a CSV, or to a JSON of Label Studio's tasks with its configuration (.xml) beside it.

    Returns:
        how many rows were written.

    Raises:
        UserError: without a queue, or for a file of another kind.
    """
    suffix = _suffix(path)
    entries = read_queue(root)
    fields = read_fields(settings, root, [entry.id for entry in entries])
    entries = [entry for entry in entries if entry.id in fields]
    if suffix == ".csv":
        _replace(path, _table(entries, fields))
        return len(entries)
    by_key = keys(settings, read_labels(settings, root)["_label"])
    tasks = [_task(settings, entry, fields[entry.id], [*by_key.values()]) for entry in entries]
    _replace(path, json.dumps(tasks, ensure_ascii=False, indent=1) + "\n")
    _replace(path.with_suffix(".xml"), _configuration(by_key))
    return len(entries)


def _replace(path: Path, content: str) -> None:
    try:
        fresh = path.with_name(f"{path.name}.new")
        fresh.write_text(content, encoding="utf-8", newline="\n")
        os.replace(fresh, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def _table(entries: Sequence[Entry], fields: Mapping[str, list[list[Any]]]) -> str:
    """A CSV: the row's id, an empty label and labeller to be filled in, and what is known of the row."""
    columns = list(dict.fromkeys(column for entry in entries for column, _, _ in fields[entry.id]))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([ID, LABEL, WHO, *(f"data_{column}" for column in columns)])
    for entry in entries:
        values = {column: _inert(value) for column, _, value in fields[entry.id]}
        writer.writerow([entry.id, "", "", *(values.get(column, "") for column in columns)])
    return buffer.getvalue()


def _inert(value: str) -> str:
    """A text that no spreadsheet runs: what begins like a formula and is no number gets an apostrophe."""
    try:
        float(value)
    except ValueError:
        return f"'{value}" if value.startswith(SHEET_FORMULA) else value
    return value


def _task(
    settings: Settings, entry: Entry, fields: list[list[Any]], values: list[str]
) -> dict[str, Any]:
    """A task of Label Studio: what is shown, and what the model says as its prediction."""
    task: dict[str, Any] = {"data": {ID: entry.id, "html": _html(fields)}}
    if entry.score is not None:
        label, score = _prediction(settings, entry.score, values)
        value = {"choices": [label]} if problem.CLASSES else {"number": float(label)}
        result = {"from_name": LABEL, "to_name": "row", "type": next(iter(value)), "value": value}
        task["predictions"] = [{"model_version": "queue", "score": score, "result": [result]}]
    return task


def _prediction(settings: Settings, score: Any, values: list[str]) -> tuple[str, float]:
    """The label that a score of the queue stands for, and how likely it is."""
    if not problem.CLASSES:
        return str(score), 0.0
    if isinstance(score, list):
        likeliest = int(np.argmax(score))
        return problem_data.named(settings.data.label)[likeliest], score[likeliest]
    yes = spelling(problem_data.named(settings.data.label)[0], settings)
    no = next((value for value in values if value != yes), yes)
    return (yes, score) if score >= 0.5 else (no, 1 - score)


def _html(fields: list[list[Any]]) -> str:
    """A row as a table, whatever its values hold."""
    lines = []
    for column, kind, value in fields:
        shows = escape(value)
        if kind == "image":
            shows = f'<img src="data:image/png;base64,{escape(value)}" style="min-width:12em">'
        lines.append(f"<tr><th>{escape(column)}</th><td>{shows}</td></tr>")
    return f"<table>{''.join(lines)}</table>"


def _configuration(by_key: Mapping[str, str]) -> str:
    """Label Studio's labelling interface: the row, and its choices with their keys, or a number."""
    choices = "".join(
        f"    <Choice value={quoteattr(label)} hotkey={quoteattr(key)}/>\n"
        for key, label in by_key.items()
    )
    control = f'  <Choices name="{LABEL}" toName="row" choice="single">\n{choices}  </Choices>\n'
    if not by_key:
        control = f'  <Number name="{LABEL}" toName="row"/>\n'
    return f'<View>\n  <HyperText name="row" value="$html"/>\n{control}</View>\n'


def import_votes(settings: Settings, root: Path, path: Path, who: str | None = None) -> Imported:
    """Add the answers of a file to labels/votes.jsonl: all of them, or none where one cannot be read.

    What was imported before is not added again.

    Args:
        who: who labelled rows of a CSV without a column `who`.

    Raises:
        UserError: naming what in the file is no vote.
    """
    text = read_text(path) if path.is_file() else ""
    if not text:
        raise UserError(f"{path}: is not here, or empty")
    reader = _from_csv(text, path, who) if _suffix(path) == ".csv" else _from_json(text, path)
    rows = {*read_labels(settings, root)["_id"]}
    is_number = settings.data.schema_.columns[settings.data.label.column].type == "number"
    votes = read(root / VOTES)
    earlier = {_identity(vote, timed) for vote in votes for timed in (True, False)}
    fresh, present, skipped = [], 0, 0
    for position, content in reader:
        if content is None:
            skipped += 1
            continue
        try:
            vote = parse({**content, "at": content["at"] or now()})
        except ValueError as error:
            raise UserError(f"{position}: {error}") from None
        if vote.id not in rows:
            raise UserError(f"{position}: {ID} {vote.id!r:.60} is none of the collected rows")
        if vote.label is not None and is_number:
            require_numbers([vote.label])
        identity = _identity(vote, with_time=bool(content["at"]))
        if identity in earlier:
            present += 1
            continue
        earlier.add(identity)
        fresh.append(vote)
    return Imported(append(root / VOTES, fresh), present, skipped)


def _identity(vote: Vote, with_time: bool) -> tuple[Any, ...]:
    return vote.id, vote.who, vote.answer, vote.label, vote.at if with_time else None


def _content(
    id_: str, who: str, label: str | None, at: str | None, seconds: float | None
) -> dict[str, Any]:
    answer = "cannot_tell" if label is None else "label"
    return {"id": id_, "who": who, "answer": answer, "label": label, "at": at, "seconds": seconds}


def _from_csv(text: str, path: Path, who: str | None) -> Iterator[tuple[str, Any]]:
    """Each line with its number; None for one without a label."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    names = reader.fieldnames or []
    if missing := [name for name in (ID, LABEL) if name not in names]:
        raise UserError(f"{path}:1: has no column {missing[0]}; `label export` writes such a file")
    for line in reader:
        position = f"{path}:{reader.line_num}"
        label, person = (line[LABEL] or "").strip(), (line.get(WHO) or who or "").strip()
        if not label:
            yield position, None
            continue
        if not person:
            raise UserError(
                f"{position}: nobody stands in its column {WHO}; fill it, or give --who NAME"
            )
        answer = None if label.lower() == CANNOT_TELL else label
        yield (
            position,
            _content((line[ID] or "").strip(), person, answer, line.get(AT) or None, None),
        )


def _from_json(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    """Each annotation of each task, by its position; None for one that was skipped (`was_cancelled`)."""
    try:
        tasks = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(tasks, list):
        raise UserError(f"{path}: not a list of tasks, as Label Studio exports them (JSON)")
    for number, task in enumerate(tasks, 1):
        position = f"{path}: task {number}"
        try:
            row = str(task["data"][ID])
            for annotation in task.get("annotations", []):
                yield position, _annotation(row, annotation)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{position}: not as Label Studio exports it ({reason:.80})") from None


def _annotation(row: str, annotation: Mapping[str, Any]) -> dict[str, Any] | None:
    if annotation.get("was_cancelled"):
        return None
    person = annotation.get("completed_by")
    if isinstance(person, dict):
        person = person.get("email") or person.get("id")
    values = [
        result["value"]
        for result in annotation.get("result", [])
        if result.get("from_name") == LABEL
    ]
    label = None
    if values:
        number = values[0].get("number")
        label = str(number) if number is not None else str(values[0]["choices"][0])
    who = person if isinstance(person, str) else f"label-studio {person}"
    at = annotation.get("updated_at") or annotation.get("created_at")
    return _content(row, who, label, at, annotation.get("lead_time"))
