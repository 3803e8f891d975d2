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
    releases: dict[str, str] = {}
    for line in done.stdout.splitlines():
        commit, ref = line.split("\t")
        tag = ref.removeprefix("refs/tags/")
        # An annotated tag has a second line, which names the commit itself; it comes after
        if re.fullmatch(r"v\d+\.\d+\.\d+(\^\{\})?", tag):
            releases[tag.removesuffix("^{}")] = commit
    if not releases:
        raise NotAsked(f"{url} has no release such as v1.2.3")
    tag = max(releases, key=lambda version: [int(part) for part in version[1:].split(".")])
    return tag, releases[tag]


def bump(text: str, date: str, forge: str) -> tuple[str, list[str]]:
    """The text with everything moved that is pinned in it, and what was moved."""
    moved = []

    def say(pin: str, old: str, new: str) -> None:
        if old != new:
            moved.append(f"{pin}: {old} to {new}")

    def to_date(match: re.Match[str]) -> str:
        new = max(match[2], date)  # never back
        say("exclude-newer", match[2], new)
        return f"{match[1]}{new}{match[3]}"

    def action(match: re.Match[str]) -> str:
        tag, commit = newest(match[2], forge)
        say(match[2], f"{match[4]} ({match[3][:7]})", f"{tag} ({commit[:7]})")
        return f"{match[1]}{match[2]}@{commit} # {tag}"

    def hook(match: re.Match[str]) -> str:
        tag, _ = newest(match[2], forge)
        say(match[2], match[4], tag)
        return f"{match[1]}{match[2]}{match[3]}{tag}"

    text = DATE.sub(to_date, text)
    text = ACTION.sub(action, text)
    return HOOK.sub(hook, text), moved


def pinned(repo: Path) -> list[Path]:
    """The files that pin something."""
    project = repo / "template/project"
    files = [project / "pyproject.toml.jinja", project / ".pre-commit-config.yaml"]
    for folder in (repo / ".github/workflows", project / ".github/workflows"):
        files += sorted(path for path in folder.glob("*.yml*") if path.is_file())
    return files


def main(arguments: list[str], repo: Path = REPO) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    week_ago = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=7)
    parser.add_argument("--date", default=week_ago.isoformat(), help="the new exclude-newer")
    parser.add_argument("--forge", default="https://github.com", help="where the actions live")
    options = parser.parse_args(arguments)
    made, lines = {}, set()
    try:
        for path in pinned(repo):
            made[path], moved = bump(path.read_text(encoding="utf-8"), options.date, options.forge)
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
