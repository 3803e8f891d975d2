"""Makes a release: python scripts/release.py 0.2.0 [--of COMMIT]

Moves [Unreleased] of CHANGELOG.md under the version, and records what Copier renders in
tests/releases/VERSION.tar.xz, so that the update tests can begin at every release, in a clone without tags too.
Commit and tag are left to you; the last line says how.
"""

from __future__ import annotations

import argparse
import datetime
import lzma
import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PARTS = ("copier.yml", "template")
HEADING = "## [Unreleased]\n"


def record(repo: Path, version: str, commit: str) -> Path:
    """The same commit always gives the same bytes."""
    tar = subprocess.run(
        ["git", "archive", "--format=tar", commit, *PARTS],
        cwd=repo,
        check=True,
        capture_output=True,
    ).stdout
    target = repo / f"tests/releases/{version}.tar.xz"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(lzma.compress(tar, preset=9 | lzma.PRESET_EXTREME))
    return target


def released(text: str, version: str, day: str) -> str:
    """The changelog with what is unreleased under the version.

    Raises:
        ValueError: when the version is no newer one, or nothing is unreleased.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(f"{version} is no version; write three numbers, such as: 0.2.0")
    past = [
        tuple(map(int, numbers))
        for numbers in re.findall(r"^## \[(\d+)\.(\d+)\.(\d+)\]", text, re.M)
    ]
    if past and tuple(map(int, version.split("."))) <= max(past):
        raise ValueError(f"{version} is not newer than {'.'.join(map(str, max(past)))}")
    news = text.partition(HEADING)[2].partition("\n## [")[0]
    if not news.strip():
        raise ValueError("nothing stands under [Unreleased] in CHANGELOG.md")
    return text.replace(HEADING, f"{HEADING}\n## [{version}] - {day}\n", 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version")
    parser.add_argument("--of", default="HEAD", help="the commit that is released")
    arguments = parser.parse_args()
    log = REPO / "CHANGELOG.md"
    try:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        fresh = released(log.read_text(encoding="utf-8"), arguments.version, today)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    record(REPO, arguments.version, arguments.of)
    log.write_text(fresh, encoding="utf-8")
    print(
        f"git add . && git commit -m 'Release {arguments.version}' && git tag v{arguments.version}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
