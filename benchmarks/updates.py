"""Measures what a long life costs, one line each.

    make updates

`copier update` of an untouched default project, one release behind, is held against what it cannot do without: a
`git clone` of the template and two renderings of it, timed in turn in one run. Once the renderings are from plain
folders, and once from the repository, as `copier copy` is typed. Then the matrix of the fast tests, the two
doors, and the lines that update tests lost. Exit code 1 when a figure is missed.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from spine import REPO, SMALL_ENV, git, timed

RELEASES = sorted(
    (REPO / "tests/releases").glob("*.tar.xz"),
    key=lambda path: [int(part) for part in path.name.split(".")[:3]],
)


def copier(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "copier", *map(str, arguments), "--quiet", "--defaults"]


def history(root: Path) -> Path:
    """A repository with two releases: the last one recorded, and the work tree's commit."""
    repo = root / "fivefold"
    repo.mkdir()
    git(repo, "init", "--quiet", "--initial-branch", "main")
    subprocess.run(["tar", "-xJf", RELEASES[-1], "-C", repo], check=True)
    git(repo, "add", "--all", "--force")
    git(repo, "commit", "--quiet", "--message", "last release")
    git(repo, "tag", "v1.0.0")
    for path in repo.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    clone = root / "now"
    timed(["git", "clone", "--quiet", str(REPO), str(clone)], root)
    shutil.rmtree(clone / ".git")
    shutil.copytree(clone, repo, dirs_exist_ok=True)
    git(repo, "add", "--all", "--force")
    git(repo, "commit", "--quiet", "--message", "this release")
    git(repo, "tag", "v2.0.0")
    return repo


def update(root: Path) -> tuple[list[float], list[float]]:
    """Ratios of an update to a clone and two renderings from folders, and from the repository."""
    repo, first = history(root), root / "first"
    timed(copier("copy", "--vcs-ref", "v1.0.0", repo, first), root)
    git(first, "init", "--quiet")
    git(first, "add", ".")
    git(first, "commit", "--quiet", "--message", "generated")
    bare, typed = [], []
    for turn in range(6):
        project, clone = root / f"project{turn}", root / f"clone{turn}"
        shutil.copytree(first, project)
        cloned = timed(["git", "clone", "--quiet", str(repo), str(clone)], root)
        from_folders, from_repository = cloned, cloned
        for tag in ("v1.0.0", "v2.0.0"):
            git(clone, "checkout", "--quiet", tag)
            plain, made = root / f"plain{turn}{tag}", root / f"made{turn}{tag}"
            shutil.copytree(clone, plain, ignore=shutil.ignore_patterns(".git"))
            from_folders += timed(copier("copy", plain, made / "a"), root)
            from_repository += timed(copier("copy", "--vcs-ref", tag, repo, made / "b"), root)
        seconds = timed(copier("update", "--vcs-ref", "v2.0.0"), project)
        bare.append(seconds / from_folders)
        typed.append(seconds / from_repository)
    return bare[1:], typed[1:]  # the first turn warms up


def tests(*arguments: str) -> tuple[bool, float, str]:
    """Whether those tests passed, what the first of them took, and what pytest said."""
    command = [sys.executable, "-m", "pytest", "-q", "--durations=0", "-vv", *arguments]
    done = subprocess.run(command, cwd=REPO, env=SMALL_ENV, capture_output=True, text=True)
    seconds = sum(map(float, re.findall(r"^(\d+\.\d+)s (?:setup|call)", done.stdout, re.M)))
    return done.returncode == 0, seconds, done.stdout


def show(title: str, figure: str, target: str, reached: bool) -> bool:
    print(f"{title:<64} {figure:>7}   {target:<22} {'ok' if reached else 'MISSED'}", flush=True)
    return reached


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        bare, typed = update(Path(scratch))
    reached = True
    for source, ratios in (("from folders", bare), ("as typed", typed)):
        ratio, spread = statistics.median(ratios), f"{min(ratios):.2f}-{max(ratios):.2f}"
        title = f"copier update against a clone and two renderings, {source}"
        reached &= show(title, f"{ratio:.2f} x", f"<= 1.5 x ({spread})", ratio <= 1.5)
    _, seconds, _ = tests("tests/fast/test_rendering.py::test_no_tag_is_left_over")
    reached &= show("render of the whole matrix", f"{seconds:.0f} s", "<= 60 s", seconds <= 60)
    equal, _, _ = tests("tests/slow/test_door.py", "-k", "whole_matrix")
    reached &= show("both doors, whole matrix", "equal" if equal else "differ", "equal", equal)
    passed, _, output = tests("tests/slow/test_updates.py", "-k", "no_line or survives")
    lost = len(re.findall(r"^E +'[^']+: ", output, re.M)) if not passed else 0
    reached &= show("user lines lost over all update tests", str(lost), "0", passed)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
