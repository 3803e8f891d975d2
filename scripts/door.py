"""Writes cookiecutter.json from copier.yml; with --check, fails when it is not what it would write."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).resolve().parents[1]
TARGET = REPO / "cookiecutter.json"
SLUG = "{% set taken = cookiecutter._taken %}MACRO{{ slug(cookiecutter.project_name) | trim }}"


def choices(spec: dict[str, Any]) -> dict[str, str]:
    """Each choice with its words; those that depend on another answer are Jinja around YAML."""
    listed = spec.get("choices", {})
    if isinstance(listed, str):
        listed = yaml.safe_load("\n".join(x for x in listed.splitlines() if "{%" not in x))
    if isinstance(listed, list):
        return {value: value for value in listed}
    return {value: re.sub(r"\{\{ (\w+) \}\}", r"\1", label) for label, value in listed.items()}


def entry(spec: dict[str, Any]) -> tuple[Any, Any]:
    """A question's value in cookiecutter.json, and its prompt."""
    inferred = "{" in str(spec["default"])
    question, named = spec["help"].splitlines()[0], choices(spec)
    if spec.get("multiselect"):  # which Cookiecutter has not: a list as YAML
        return "", f"{question} (as [{', '.join(named)}], or fewer; empty: inferred)"
    if named:
        first = "inferred" if inferred else spec["default"]
        other_labels = {value: label for value, label in named.items() if value != first}
        labels = {first: named.get(first, "what follows from the other answers"), **other_labels}
        return list(labels), {"__prompt__": question, **labels}
    if spec["type"] == "bool":
        return spec["default"], question
    if inferred:
        return "", f"{question} (empty: inferred)"
    return str(spec["default"]), question


def context(text: str, macros: str) -> dict[str, Any]:
    questions = {
        name: spec
        for name, spec in yaml.safe_load(text).items()
        if not name.startswith("_") and spec.get("when") is not False
    }
    # What a terminal of Copier asks comes first, then what it infers
    ordered = sorted(questions.items(), key=lambda question: question[1].get("ask") is False)
    entries = {name: entry(spec) for name, spec in ordered}
    # The folder's name has to be known before Copier is called: the one macro, in the other engine
    macro = re.search(r"\{% macro slug\(name\) %\}.*?\{% endmacro %\}", macros, re.S)
    taken = re.search(r"\{% set taken %\}(.*?)\{% endset %\}", macros, re.S)
    assert macro
    assert taken
    entries["project_slug"] = (
        SLUG.replace("MACRO", macro[0]),
        questions["project_slug"]["help"].splitlines()[0],
    )
    made = {name: value for name, (value, _) in entries.items()}
    prompts = {name: prompt for name, (_, prompt) in entries.items()}
    return {"_taken": " ".join(taken[1].split()), **made, "__prompts__": prompts}


def main(check: bool) -> int:
    macros = (REPO / "template/answers.jinja").read_text(encoding="utf-8")
    made = context((REPO / "copier.yml").read_text(encoding="utf-8"), macros)
    fresh = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
    if check:
        same = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == fresh
        print(f"cookiecutter.json is {'up to date' if same else 'behind: make sync'}")
        return 0 if same else 1
    TARGET.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
