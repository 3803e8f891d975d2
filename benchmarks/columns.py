"""Measures what `adopt` takes columns for, beside what people typed them as.

    make bench-columns                      the ten tables of ../shared/data/column-types
    python benchmarks/columns.py FOLDER     others: CSV files, and types.json as there

types.json has for each file its label and the kind of each column as people judged it. Nothing of
the tables is shipped, so without the folder there is nothing to measure. Exit code 1 when a figure
is missed.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from spine import Project

BENCHMARKS = Path(__file__).resolve().parent
FOLDER = BENCHMARKS.parents[1] / "shared/data/column-types"
USELESS = ("an identifier", "every row has the same value", "no row has a value")
TO_REACH = {"typed as people did": 0.93, "categories found": 0.9, "numbers that are some": 0.93}
CLASSES = 20  # a label with more values than these, all numbers, is a number


def adopted(project: Project, file: Path, label: str) -> dict[str, str]:
    """Header -> what `adopt` takes the column for, in the words of types.json."""
    with file.open(newline="", encoding="utf-8") as lines:
        values = Counter(row[label] for row in csv.DictReader(lines) if row[label])
    number = len(values) > CLASSES and all(re.fullmatch(r"-?[0-9.]+", value) for value in values)
    params = project.path / "params.yaml"
    before = params.read_text("utf-8")
    # What a column is taken for hangs on the label only by what it gives away
    kind = "regression" if number else "binary"
    params.write_text(re.sub("(?m)^  problem: .*$", f"  problem: {kind}", before), "utf-8")
    options = [] if number else ["--positive", values.most_common(1)[0][0]]
    try:
        project.run("-m", "my_model", "adopt", str(file), "--label", label, *options)
        text = params.read_text("utf-8")
    finally:
        params.write_text(before, "utf-8")
    tree = YAML(typ="safe").load(text)
    columns = tree["data"]["schema"]["columns"]
    reasons = dict(re.findall(r"(?m)^    (\w+): \{.*\}  # (.*)$", text.partition("\nfeatures:")[2]))
    parts: dict[str, list[str]] = {}
    for line in columns.values():
        if "part" in line:
            parts.setdefault(line["source"], []).append(line["part"])
    return {
        line.get("source", name): column_kind(
            line, reasons.get(name, ""), parts.get(line.get("source", name), [])
        )
        for name, line in columns.items()
        if "part" not in line
    }


def column_kind(line: dict[str, Any], reason: str, parts: list[str]) -> str:
    """A column's line in params.yaml, and why the model does not see it, as a kind."""
    if parts:
        return {"host": "url", "count": "list"}.get(parts[0], "text")
    if reason.startswith(USELESS):
        return "useless"
    if reason.startswith("too many categories"):
        return "text"
    if line["type"] == "number":
        markers = [
            marker for marker in line.get("missing", ()) if not re.fullmatch(r"-?[0-9.]+", marker)
        ]
        return "number in text" if markers or "decimal" in line or "units" in line else "number"
    return {"bool": "category"}.get(line["type"], line["type"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    folder = parser.parse_args().folder
    if not (folder / "types.json").is_file():
        print(f"{folder} has no types.json: nothing to compare with, nothing measured")
        return
    tables = json.loads((folder / "types.json").read_text("utf-8"))
    pairs: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        project = Project(Path(scratch))
        for file, table in tables.items():
            ours = adopted(project, (folder / file).resolve(), table["label"])
            for column, kind in table["types"].items():
                theirs = kind.split(" (")[0]
                pairs.append((theirs, ours[column]))
                if theirs != ours[column]:
                    print(f"{file}: {column}: {theirs} to people, {ours[column]} to adopt")
    categories = [ours for theirs, ours in pairs if theirs == "category"]
    numbers = [theirs for theirs, ours in pairs if ours == "number"]
    figures = {
        "typed as people did": sum(theirs == ours for theirs, ours in pairs) / len(pairs),
        "categories found": categories.count("category") / max(len(categories), 1),
        "numbers that are some": numbers.count("number") / max(len(numbers), 1),
    }
    print(f"{len(pairs)} columns of {len(tables)} tables")
    for name, share in figures.items():
        print(f"{name:24s} {share:.3f}  (to reach {TO_REACH[name]:.2f})")
    sys.exit(any(share < TO_REACH[name] for name, share in figures.items()))


if __name__ == "__main__":
    main()
