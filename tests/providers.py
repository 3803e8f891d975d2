"""What a provider of continuous integration would run: the jobs of its file, as shell commands with their environment."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FILES = {
    "github": ".github/workflows/ci.yml",
    "gitlab": ".gitlab-ci.yml",
    "circleci": ".circleci/config.yml",
}
JOBS = {"check": "ci", "retrain": "retrain", "template": "template"}  # job -> GitHub's file


@dataclass
class Step:
    """What one shell runs, and whether it does so after a failure too."""

    command: str
    environment: dict[str, str] = field(default_factory=dict)
    always: bool = False


def steps(root: Path, ci: str, job: str) -> list[Step]:
    return {"github": _github, "gitlab": _gitlab, "circleci": _circleci}[ci](root, job)


def _github(root: Path, job: str) -> list[Step]:
    jobs = _yaml(root / f".github/workflows/{JOBS.get(job, 'ci')}.yml")["jobs"]
    first = jobs.get(job) or next(iter(jobs.values()))
    return [
        Step(
            f"set -eo pipefail\n{one['run']}",
            {**first.get("env", {}), **one.get("env", {})},
            one.get("if") == "always()",
        )
        for one in first["steps"]
        if "run" in one
    ]


def _gitlab(root: Path, job: str) -> list[Step]:
    found = _yaml(root / FILES["gitlab"])
    one = found[job]
    before = one.get("before_script", found["default"]["before_script"])
    lines = "\n".join(["set -eo pipefail", *before, *one["script"]])
    made = [Step(lines, one.get("variables", {}))]
    return made + [Step(line, always=True) for line in one.get("after_script", [])]


def _circleci(root: Path, job: str) -> list[Step]:
    made = []
    for one in _yaml(root / FILES["circleci"])["jobs"][job]["steps"]:
        if isinstance(one, dict) and "run" in one:
            run = {"command": one["run"]} if isinstance(one["run"], str) else one["run"]
            command = f"set -eo pipefail\n{run['command']}"
            made.append(Step(command, run.get("environment", {}), run.get("when") == "always"))
    return made


def lines(root: Path, ci: str, job: str) -> list[str]:
    """The commands in order, a line each, without what is a provider's own."""
    found = [line for step in steps(root, ci, job) for line in step.command.splitlines()]
    found = [line for line in found if "pip install" not in line and line != "set -eo pipefail"]
    # What a provider adds to show a result in its own way
    shown = r' --output-format github| >> "\$GITHUB_STEP_SUMMARY"'
    return [re.sub(shown, "", line) for line in found]


def _yaml(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
