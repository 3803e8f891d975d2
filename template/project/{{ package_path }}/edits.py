"""Which of the template's own files the team has edited: there the next `copier update` can conflict."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from .paths import PIPELINE, TEMPLATE_ANSWERS
from .repository import git
from .settings import UserError

MACHINERY = (
    "src", "tests", "ops", PIPELINE, "Makefile",
    ".github", ".gitlab-ci.yml", ".circleci", ".pre-commit-config.yaml",
)  # fmt: skip
# Of these, files that a team is meant to edit, or a command rewrites
TEAM_FILES = (
    "cards.md.j2", "/data/sample.py", "prometheus/rules.yml",
)  # fmt: skip


def edited(root: Path) -> dict[str, int]:
    """The machinery's files that differ from what generating and updating left, with the lines changed.

    Each stretch between two commits of the answers file counts, since an update carries edits along. What the
    team added is no file of the template. Edits that were committed together with the first answers cannot be seen.

    Returns:
        {path: lines added and removed}; empty without git, where nothing was committed yet, and for a
        project that left the template.
    """
    has_history = _git(root, "rev-parse", "--is-shallow-repository") == ["false"]
    if not has_history or not (root / TEMPLATE_ANSWERS).is_file():
        return {}
    commits = _git(root, "log", "--format=%H", "--", TEMPLATE_ANSWERS)  # the newest first
    ends = ["", *(f"{commit}^" for commit in commits[:-1])]
    lines, added_files = Counter[str](), set[str]()
    for start, end in zip(commits, ends, strict=False):
        span = ["--relative", "--no-renames", start, *([end] if end else []), "--", *MACHINERY]
        added_files.update(_git(root, "diff", "--name-only", "--diff-filter=A", *span))
        for row in _git(root, "diff", "--numstat", "--diff-filter=M", *span):
            added, removed, name = row.split("\t")
            if not (name.endswith(TEAM_FILES) or "/problem/" in name) and (root / name).is_file():
                lines[name] += sum(int(count) for count in (added, removed) if count.isdigit())
    return {name: count for name, count in sorted(lines.items()) if name not in added_files}


def _git(root: Path, *arguments: str) -> list[str]:
    """The lines that git prints; none where it refuses or is not installed."""
    try:
        return git(root, "-c", "core.quotePath=false", *arguments).splitlines()
    except UserError:
        return []
