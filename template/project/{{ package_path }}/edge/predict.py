"""Score rows with numpy and onnxruntime, for images Pillow, for tokens tokenizers: JSON or CSV in, a line of JSON for each row out.

`export` puts this file beside the model and model.py, and it runs there:

    python predict.py < rows.json
"""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rules
from histories import history_values  # the files beside it
from images import Form, stored
from model import Model, ModelError
from times import seconds

MAX_FIELD = 2**31 - 1  # characters of a CSV's field: a text may be long
TRUE, FALSE = ("true", "t", "1", "1.0", "yes", "y"), ("false", "f", "0", "0.0", "no", "n")


def read_rows(text: str) -> list[dict[str, Any]]:
    """A JSON object, a list or lines of them, or a CSV with its header; an empty field is missing."""
    text = text.strip()
    if text.startswith(("{", "[")):
        try:
            records = json.loads(text)
        except ValueError:
            records = [json.loads(line) for line in text.split("\n") if line.strip()]
        return records if isinstance(records, list) else [records]
    csv.field_size_limit(MAX_FIELD)
    return list(csv.DictReader(io.StringIO(text, newline="")))


def to_input(
    raw: Any, kind: str, formats: list[str] | None = None, form: Form | None = None
) -> Any:
    """What the model takes of a value: None where missing; a time as seconds since 1970; an image in its form."""
    if raw is None or raw == "":
        return None
    match kind:
        case "number":
            return float(raw)
        case "bool":
            text = str(raw).lower()
            if text not in TRUE + FALSE:
                raise ValueError(f"{raw!r} is not yes or no")
            return text in TRUE
        case "time":
            return seconds(raw, formats)
        case "history":  # a list, or the text of one
            values = history_values(raw if isinstance(raw, str) else json.dumps(raw), None)
            if np.isinf(values).any():
                raise ValueError("a history holds finite numbers and nulls")
            return raw if isinstance(raw, str) else json.dumps(raw)
        case "image":  # without a form, the model does not look at it
            return stored(str(raw), form, Path.cwd()) if form else None
        case _:  # a code that comes as a number
            return str(int(raw) if isinstance(raw, float) and raw.is_integer() else raw)


def main() -> None:
    """Read standard input, write standard output."""
    model = Model(Path(__file__).parent)
    rows = read_rows(sys.stdin.buffer.read().decode("utf-8-sig"))
    formats = {column["name"]: column.get("formats") for column in model.inputs}
    columns: dict[str, list[Any]] = {name: [] for name in model.types}
    for position, row in enumerate(rows):
        for name, kind in model.types.items():
            try:
                form = model.images.get(name)
                columns[name].append(to_input(row.get(name), kind, formats[name], form))
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"row {position}, {name}: {error}") from None
    if not rows:
        return
    scores = model.score(columns)
    answers = model.table(scores, columns)
    if keys := model.manifest.get("lists"):
        lists, topics = ([row.get(keys[key]) for row in rows] for key in ("list", "topic"))
        answers["rank"] = answers["decision"] = model.arranged(scores, lists, topics)[0]
    held = rules.held(rules.as_arrays(columns, model.types), len(rows))
    reasons = model.reasons(columns) if model.usual else []
    of_rows = zip(*(column.tolist() for column in answers.values()), strict=True)
    for i, (rule, values) in enumerate(zip(held, of_rows, strict=True)):
        answer = dict(zip(answers, values, strict=True))
        if model.usual:
            answer["reasons"] = reasons[i]
        print(json.dumps(finished(answer, rule, model)))


def finished(answer: dict[str, Any], rule: str, model: Model) -> dict[str, Any]:
    """An answer as it is printed: a rule's in the place of the model's where a rule settles the row."""
    version = model.version
    if rules.answers(rule):
        values, version = rules.columns_of(rule, model.classes), rules.ANSWERED
        answer = {name: None if values[name] != values[name] else values[name] for name in answer}
    if rule:
        answer["flags"] = [rules.flag(rule)]
    if "scores" in answer:
        answer["scores"] = dict(zip(model.classes, answer["scores"], strict=True))
    return {**answer, "model": version}


if __name__ == "__main__":
    try:
        main()
    except ModuleNotFoundError:  # for tokenizers the model has a line of its own
        print("error: images need Pillow: pip install pillow", file=sys.stderr)
        sys.exit(2)
    except (ValueError, csv.Error, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
