"""Moves what the template pins, once a week: python scripts/bump.py [--date 2026-11-16] [--forge https://github.com]

- `exclude-newer` of a generated project, to a week ago, so that what it installs has been out for a while;
- every action (`uses: owner/name@commit # v1.2.3`), the template's own and those that it generates, to the newest release;
- `rev:` of the pre-commit hooks that a project gets.

Prints a line for each move. Needs git and a network; nothing is written when something cannot be asked.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
DATE = re.compile(r'(?m)^(exclude-newer = ")(\d{4}-\d\d-\d\d)(T00:00:00Z")$')
ACTION = re.compile(r"(uses: )([\w.-]+/[\w.-]+)@([0-9a-f]{40}) # (v[\d.]+)")
HOOK = re.compile(r"(repo: https://github\.com/)([\w.-]+/[\w.-]+)(\n +rev: )(v[\d.]+)")


class NotAsked(Exception):
    """A repository did not answer, or has no release."""


@cache
def newest(name: str, forge: str) -> tuple[str, str]:
    """The newest release of a repository, as its tag and its commit.

    Raises:
        NotAsked: when it has none, or cannot be reached.
    """
    url = f"{forge}/{name}"
    done = subprocess.run(["git", "ls-remote", "--tags", url], capture_output=True, text=True)
    if done.returncode:
        raise NotAsked(f"{url} does not answer: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        commit, ref = line.split("\t")
        tag = ref.removeprefix("refs/tags/")
        # An annotated tag has a second line, which names the commit itself; it comes after
        if re.fullmatch(r"v\d+\.\d+\.\d+(\^\{\})?", tag):
            found[tag.removesuffix("^{}")] = commit
    if not found:
        raise NotAsked(f"{url} has no release such as v1.2.3")
    tag = max(found, key=lambda one: [int(part) for part in one[1:].split(".")])
    return tag, found[tag]


def bump(text: str, date: str, forge: str) -> tuple[str, list[str]]:
    """The text with everything moved that is pinned in it, and what was moved."""
    moved = []

    def say(what: str, old: str, new: str) -> None:
        if old != new:
            moved.append(f"{what}: {old} to {new}")

    def to_date(found: re.Match[str]) -> str:
        new = max(found[2], date)  # never back
        say("exclude-newer", found[2], new)
        return f"{found[1]}{new}{found[3]}"

    def action(found: re.Match[str]) -> str:
        tag, commit = newest(found[2], forge)
        say(found[2], f"{found[4]} ({found[3][:7]})", f"{tag} ({commit[:7]})")
        return f"{found[1]}{found[2]}@{commit} # {tag}"

    def hook(found: re.Match[str]) -> str:
        tag, _ = newest(found[2], forge)
        say(found[2], found[4], tag)
        return f"{found[1]}{found[2]}{found[3]}{tag}"

    text = DATE.sub(to_date, text)
    text = ACTION.sub(action, text)
    return HOOK.sub(hook, text), moved


def pinned(repo: Path) -> list[Path]:
    """The files that pin something."""
    project = repo / "template/project"
    found = [project / "pyproject.toml.jinja", project / ".pre-commit-config.yaml"]
    for folder in (repo / ".github/workflows", project / ".github/workflows"):
        found += sorted(path for path in folder.glob("*.yml*") if path.is_file())
    return found


def main(words: list[str], repo: Path = REPO) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    week_ago = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=7)
    parser.add_argument("--date", default=week_ago.isoformat(), help="the new exclude-newer")
    parser.add_argument("--forge", default="https://github.com", help="where the actions live")
    given = parser.parse_args(words)
    made, lines = {}, set()
    try:
        for path in pinned(repo):
            made[path], moved = bump(path.read_text(encoding="utf-8"), given.date, given.forge)
            lines |= set(moved)
    except NotAsked as error:
        print(f"error: {error}; nothing was changed", file=sys.stderr)
        return 2
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    print("\n".join(f"- {line}" for line in sorted(lines)) or "everything is the newest")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
