"""Score rows with nothing but numpy and onnxruntime: JSON or CSV in, a line of JSON for each row out.

`export` puts this file beside the model and model.py, and it runs there:

    python predict.py < rows.json
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

from model import Model, ModelError  # the files beside it
from times import seconds

YES, NO = ("true", "t", "1", "1.0", "yes", "y"), ("false", "f", "0", "0.0", "no", "n")


def rows(text: str) -> list[dict[str, Any]]:
    """A JSON object, a list or lines of them, or a CSV with its header; an empty field is missing."""
    text = text.strip()
    if text.startswith(("{", "[")):
        try:
            read = json.loads(text)
        except ValueError:
            read = [json.loads(line) for line in text.splitlines() if line.strip()]
        return read if isinstance(read, list) else [read]
    return list(csv.DictReader(text.splitlines()))


def value(raw: Any, kind: str, formats: list[str] | None = None) -> Any:
    """What the model takes of a value: None where missing; a time as seconds since 1970."""
    if raw is None or raw == "":
        return None
    match kind:
        case "number":
            return float(raw)
        case "bool":
            word = str(raw).lower()
            if word not in YES + NO:
                raise ValueError(f"{raw!r} is not yes or no")
            return word in YES
        case "time":
            return seconds(raw, formats)
        case _:  # a code that comes as a number
            return str(int(raw) if isinstance(raw, float) and raw.is_integer() else raw)


def main() -> None:
    """Read standard input, write standard output."""
    model = Model(Path(__file__).parent)
    read_rows = rows(sys.stdin.read())
    formats = {column["name"]: column.get("formats") for column in model.inputs}
    columns: dict[str, list[Any]] = {name: [] for name in model.types}
    for position, row in enumerate(read_rows):
        for name, kind in model.types.items():
            try:
                columns[name].append(value(row.get(name), kind, formats[name]))
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"row {position}, {name}: {error}") from None
    if not read_rows:
        return
    answers = model.table(model.score(columns))
    for values in zip(*(column.tolist() for column in answers.values()), strict=True):
        answer = dict(zip(answers, values, strict=True))
        if "scores" in answer:
            answer["scores"] = dict(zip(model.classes, answer["scores"], strict=True))
        print(json.dumps({**answer, "model": model.version}))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
