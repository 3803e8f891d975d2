"""Does the template still work with what was released today? python scripts/newest.py [TYPE ...]

Generates a project of each problem type, takes away the date before which its packages must have been released, installs the
newest that its ranges allow, runs its tests and the project itself, and prints a report in Markdown: what is newer
than on the template's date, what the ranges keep out, what failed. Exit code 1 when something did.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
TYPES = sorted(path.name for path in (REPO / "template/problems").iterdir() if path.is_dir())
ENV = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")}
STEPS = (
    ["uv", "sync", "--quiet"],
    ["uv", "run", "--quiet", "ruff", "check", "--quiet", "."],
    ["uv", "run", "--quiet", "pytest", "-q"],
    ["uv", "run", "--quiet", "my-model", "run", "--set", "data.source.rows=8000"],
)


def call(command: list[str], cwd: Path) -> tuple[int, str]:
    done = subprocess.run(command, cwd=cwd, env=ENV, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def generate(problem_type: str, path: Path) -> None:
    """A project of the work tree's last commit, as a repository of its own."""
    data = ["--data", f"problem_type={problem_type}", "--data", "machinery_tests=true"]
    data += ["--vcs-ref", "HEAD"]
    for command in (
        [
            sys.executable,
            "-m",
            "copier",
            "copy",
            "--quiet",
            "--defaults",
            *data,
            str(REPO),
            str(path),
        ],
        ["git", "-C", str(path), "init", "--quiet", "--initial-branch", "main"],
    ):
        code, output = call(command, REPO)
        if code:
            raise SystemExit(output)


def without_date(path: Path) -> None:
    """Takes away `exclude-newer`: the newest release counts."""
    file = path / "pyproject.toml"
    text, count = re.subn(r'(?m)^exclude-newer = ".*"\n', "", file.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{file} has {count} lines of exclude-newer; one was expected")
    file.write_text(text, encoding="utf-8")


def versions(path: Path) -> dict[str, str]:
    """What the lock file settled on."""
    text = (path / "uv.lock").read_text(encoding="utf-8")
    return dict(re.findall(r'\[\[package\]\]\nname = "(.+)"\nversion = "(.+)"', text))


def examine(problem_type: str, path: Path) -> tuple[str, bool]:
    """The report on one problem type, and whether all went well."""
    generate(problem_type, path)
    lines = [f"## {problem_type}", ""]
    code, output = call(["uv", "lock", "--quiet"], path)
    before = versions(path) if code == 0 else {}
    without_date(path)
    if code == 0:
        code, output = call(["uv", "lock", "--quiet", "--upgrade"], path)
    if code:
        return "\n".join([*lines, "No set of versions fits:", "", *quoted(output)]), False
    after = versions(path)
    newer = {name: new for name, new in after.items() if name in before and before[name] != new}
    lines += [f"{len(newer)} packages are newer than on the template's date."]
    lines += ["", *(f"- {name} {before[name]} to {new}" for name, new in sorted(newer.items())), ""]
    failed = False
    for command in STEPS:
        code, output = call(command, path)
        lines.append(
            f"- `{' '.join(command)}`: {'fine' if code == 0 else f'**failed with {code}**'}"
        )
        if code:
            failed = True
            lines += ["", *quoted(output), ""]
    lines += ["", *kept_out(path)]
    return "\n".join(lines), not failed


def kept_out(path: Path) -> list[str]:
    """Newer releases of what the project names, which its ranges do not allow."""
    named = set(
        re.findall(
            r'(?m)^  "([a-z0-9.-]+)(?:\[.*\])?>=', (path / "pyproject.toml").read_text("utf-8")
        )
    )
    code, output = call(["uv", "pip", "list", "--quiet", "--outdated", "--format", "json"], path)
    if code:
        return ["What the ranges keep out could not be listed:", "", *quoted(output)]
    outdated = [package for package in json.loads(output) if package["name"] in named]
    lines = [f"- {x['name']} {x['version']}; there is {x['latest_version']}" for x in outdated]
    return [f"The ranges keep out {len(outdated)} newer releases.", "", *lines]


def quoted(output: str) -> list[str]:
    return ["```", *output.strip().splitlines()[-30:], "```"]


def main(types: list[str]) -> int:
    if unknown := set(types) - set(TYPES):
        print(
            f"error: no problem type {', '.join(sorted(unknown))}; there are {', '.join(TYPES)}",
            file=sys.stderr,
        )
        return 2
    good = True
    for problem_type in types or TYPES:
        with tempfile.TemporaryDirectory() as scratch:
            report, fine = examine(problem_type, Path(scratch) / "my-model")
        good &= fine
        print(report, flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
