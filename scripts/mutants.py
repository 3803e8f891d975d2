"""`make mutants`: put careless mistakes into a generated project, one at a time, and see which its tests notice.

The mistakes stand in tests/attacks/mistakes.yaml. A mistake's own folder is tested first, then the rest, and the
first failure ends it. A run takes about an hour on two cores; words limit it to the mistakes that hold one of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[1]
MISTAKES = REPO / "tests/attacks/mistakes.yaml"
SHARE = 0.95  # that must be noticed
SECONDS = 900  # after which a mistake that lets the tests hang counts as noticed


@dataclass(frozen=True)
class Mistake:
    """A text of a module, and the text that a tired person would have written."""

    file: str
    mistake: str
    old: str
    new: str
    kind: str = "binary"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "words", nargs="*", help="only mistakes whose file or words hold one of these"
    )
    parser.add_argument("--jobs", type=int, default=2, help="tested at a time")
    parser.add_argument(
        "--own", action="store_true", help="only the tests of a mistake's own folder"
    )
    parser.add_argument(
        "--env",
        type=Path,
        help="an environment of a generated project, to use instead of a new one",
    )
    given = parser.parse_args()
    mistakes = [
        one
        for one in read()
        if not given.words or any(w in f"{one.file} {one.mistake}" for w in given.words)
    ]
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as scratch,
        ThreadPoolExecutor(given.jobs) as pool,
    ):
        kinds = {
            kind: _project(kind, Path(scratch)) for kind in sorted({one.kind for one in mistakes})
        }
        python = _python(given.env, next(iter(kinds.values())))
        wrong = [
            f"{one.file}: {one.old!r}" for one in mistakes if _count(kinds[one.kind], one) != 1
        ]
        if wrong:
            print("these stand there not once, mend the list:", *wrong, sep="\n  ")
            return 2
        broken = [
            by for by in pool.map(lambda at: _failure(at, python, ["tests"]), kinds.values()) if by
        ]
        if broken:
            print("the tests fail without any mistake:", *broken, sep="\n  ")
            return 2
        runs = pool.map(
            lambda one: (one, _noticed(one, kinds[one.kind], python, given.own)), mistakes
        )
        missed = []
        for one, by in runs:
            print(
                f"{'noticed' if by else 'MISSED '}  {one.file}: {one.mistake}{f' ({by})' if by else ''}",
                flush=True,
            )
            missed += [] if by else [one]
    share = 1 - len(missed) / len(mistakes)
    print(
        f"\n{len(mistakes) - len(missed)} of {len(mistakes)} mistakes were noticed: {share:.1%}, wanted {SHARE:.0%}"
    )
    return 0 if share >= SHARE else 1


def read() -> list[Mistake]:
    """The list, line breaks written as \\n."""
    listed = yaml.safe_load(MISTAKES.read_text(encoding="utf-8"))
    return [
        Mistake(**{key: value.replace("\\n", "\n") for key, value in one.items()}) for one in listed
    ]


def _project(kind: str, scratch: Path) -> Path:
    """A generated project with the tests of the machinery, not installed."""
    words = [
        "copier",
        "copy",
        "--defaults",
        "--quiet",
        "--vcs-ref",
        "HEAD",
        "--data",
        f"problem_type={kind}",
        "--data",
        "machinery_tests=true",
        "--data",
        "parts=[serving, rollout, monitoring, edge, compression, analysis]",
    ]
    subprocess.run([sys.executable, "-m", *words, str(REPO), str(scratch / kind)], check=True)
    subprocess.run(["git", "init", "--quiet", str(scratch / kind)], check=True)
    return scratch / kind


def _python(env: Path | None, project: Path) -> Path:
    if env is None:
        variables = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
        subprocess.run(["uv", "sync", "--quiet"], cwd=project, env=variables, check=True)
        env = project / ".venv"
    return env.absolute() / "bin/python"


def _module(project: Path, one: Mistake) -> Path:
    return next((project / "src").iterdir()) / one.file


def _count(project: Path, one: Mistake) -> int:
    return _module(project, one).read_text(encoding="utf-8").count(one.old)


def _noticed(one: Mistake, project: Path, python: Path, own: bool) -> str:
    """The test that fails for a mistake; empty when none does."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "project"
        shutil.copytree(project, copy, ignore=shutil.ignore_patterns(".venv"))
        path = _module(copy, one)
        path.write_text(
            path.read_text(encoding="utf-8").replace(one.old, one.new), encoding="utf-8"
        )
        for tests in _tests(copy, one, own):
            if by := _failure(copy, python, tests):
                return by
    return ""


def _tests(project: Path, one: Mistake, own: bool) -> list[list[str]]:
    """What to run, in this order: the tests of the module, of its folder, and all."""
    path, machinery = Path(one.file), project / "tests/machinery"
    folder, name = machinery / path.parent, f"test_{path.stem}.py"
    if path.parts[0] == "problem":  # its tests stand where their own kind of test does
        names = {test.stem for test in REPO.glob(f"template/problems/{one.kind}/test_*.jinja")}
        first = sorted(test for test in (project / "tests").rglob("*.py") if test.name in names)
    else:
        first = [folder / name] if (folder / name).is_file() else []
    there = [folder] if path.parent.name else sorted(folder.glob("test_*.py"))
    groups = [
        *([first] if first else []),
        *([there] if folder.is_dir() else []),
        *([] if own else [[project / "tests"]]),
    ]
    return [[str(test.relative_to(project)) for test in group] for group in groups]


def _failure(project: Path, python: Path, tests: list[str]) -> str:
    variables = {
        **os.environ,
        "PYTHONPATH": str(project / "src"),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
    }
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-x",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "--tb",
        "no",
        *tests,
    ]
    try:
        done = subprocess.run(
            command, cwd=project, env=variables, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return (
        failed[0].split(" - ")[0].split(" ", 1)[1]
        if failed
        else ("" if done.returncode == 0 else "crash")
    )


if __name__ == "__main__":
    sys.exit(main())
