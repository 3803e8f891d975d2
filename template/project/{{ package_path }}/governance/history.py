"""Which models were promoted when, and by whom: what git has of them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..paths import GATE, METRICS_REPORT, PRODUCTION
from ..repository import git, repository
from ..settings import UserError

SEPARATOR = "\x1f"
FORMAT = SEPARATOR.join(("%H", "%aI", "%an", "%s"))


def promotions(root: Path) -> list[dict[str, Any]]:
    """Each commit that put another model into production, the newest first.

    Returns:
        `commit`, `at` (ISO 8601), `author`, `subject`; and of the reports that were committed with it `model` (SHA-256),
        `gate` (whether it was passed), `metric` and `value`, None where there was no such report.

    Raises:
        UserError: as `repository.git`.
    """
    pointer = f"{PRODUCTION}.dvc"
    if repository(root) is None:
        return []
    try:
        logged = git(root, "log", f"--format={FORMAT}", "--", pointer).splitlines()
    except UserError:  # before the first commit
        return []
    keys = ("commit", "at", "author", "subject")
    entries = [dict(zip(keys, line.split(SEPARATOR), strict=True)) for line in logged]
    return [{**entry, **_facts(root, entry["commit"])} for entry in entries]


def _facts(root: Path, commit: str) -> dict[str, Any]:
    gate, metrics = (_report_at(root, commit, name) for name in (GATE, METRICS_REPORT))
    primary = metrics.get("primary") or {}
    return {
        "model": gate.get("model"),
        "gate": gate.get("passed"),
        "metric": primary.get("name"),
        "value": primary.get("value"),
    }


def _report_at(root: Path, commit: str, name: str) -> dict[str, Any]:
    """A report as it was committed; empty where it was not."""
    with suppress(UserError, ValueError):
        return dict(json.loads(git(root, "show", f"{commit}:./{name}")))
    return {}
