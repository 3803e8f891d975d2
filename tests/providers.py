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
            f"set -eo pipefail\n{step['run']}",
            {**first.get("env", {}), **step.get("env", {})},
            step.get("if") == "always()",
        )
        for step in first["steps"]
        if "run" in step
    ]


def _gitlab(root: Path, job: str) -> list[Step]:
    config = _yaml(root / FILES["gitlab"])
    job_config = config[job]
    before = job_config.get("before_script", config["default"]["before_script"])
    lines = "\n".join(["set -eo pipefail", *before, *job_config["script"]])
    made = [Step(lines, job_config.get("variables", {}))]
    return made + [Step(line, always=True) for line in job_config.get("after_script", [])]


def _circleci(root: Path, job: str) -> list[Step]:
    made = []
    for step in _yaml(root / FILES["circleci"])["jobs"][job]["steps"]:
        if isinstance(step, dict) and "run" in step:
            run = {"command": step["run"]} if isinstance(step["run"], str) else step["run"]
            command = f"set -eo pipefail\n{run['command']}"
            made.append(Step(command, run.get("environment", {}), run.get("when") == "always"))
    return made


def lines(root: Path, ci: str, job: str) -> list[str]:
    """The commands in order, a line each, without what is a provider's own."""
    commands = [line for step in steps(root, ci, job) for line in step.command.splitlines()]
    commands = [
        line for line in commands if "pip install" not in line and line != "set -eo pipefail"
    ]
    # What a provider adds to show a result in its own way
    display_options = r' --output-format github| >> "\$GITHUB_STEP_SUMMARY"'
    return [re.sub(display_options, "", line) for line in commands]


def _yaml(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
