"""Writes docs/questions.md from copier.yml; with --check, fails when it is not what it would write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).resolve().parents[1]
TARGET = REPO / "docs/questions.md"
HEAD = """# The questions

Written from `copier.yml` by `make sync`; edit that file. In a terminal, the questions in **bold** are asked, at most 14
of them. Any other is inferred from an answer before it and can be set: `copier copy --data owner="Search team" …`.
`--defaults` asks nothing.

All text is one line of at most 200 characters; quotes, emoji, `$(…)` and any alphabet are fine, and `{{`, `{%` and
`{#` are not. The answers stand in `.copier-answers.yml` of the project.
"""


def default(spec: dict[str, Any]) -> str:
    value = spec["default"]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not value:
        return f"`{value}`" if value == 0 else "empty"
    return "inferred" if "{" in str(value) else f"`{value}`"


def answers(name: str, spec: dict[str, Any]) -> str:
    choices = spec.get("choices")
    if isinstance(choices, str):  # choices that depend on another answer: Jinja around YAML
        lines = [line for line in choices.splitlines() if "{%" not in line]
        choices = yaml.safe_load("\n".join(lines))
    if isinstance(choices, dict):
        several = "several of<br>" if spec.get("multiselect") else ""
        return several + "<br>".join(f"`{value}`: {label}" for label, value in choices.items())
    if choices:
        return ", ".join(f"`{value}`" for value in choices)
    kinds = {
        "str": "text",
        "int": "a whole number",
        "float": "a number",
        "bool": "yes, no",
        "yaml": "a mapping",
    }
    return kinds[spec["type"]]


def table(text: str) -> str:
    lines, questions = [HEAD], yaml.safe_load(text)
    for line in text.splitlines():
        name = line.split(":")[0]
        if line.startswith("# --- "):
            block = line.strip("# -")
            if block == "computed":
                break
            lines += ["", f"## {block.capitalize()}", "", "| name | question | answers | default |"]
            lines += ["|---|---|---|---|"]
        elif name.isidentifier() and name in questions and not name.startswith("_"):
            spec = questions[name]
            question, changes = spec["help"].splitlines()
            heading = name if spec.get("ask") is False else f"**{name}**"
            cells = [
                heading,
                f"{question}<br>{changes.strip()}",
                answers(name, spec),
                default(spec),
            ]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def main(check: bool) -> int:
    fresh = table((REPO / "copier.yml").read_text(encoding="utf-8"))
    if check:
        same = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == fresh
        print(
            "docs/questions.md is up to date" if same else "docs/questions.md is behind: make sync"
        )
        return 0 if same else 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
