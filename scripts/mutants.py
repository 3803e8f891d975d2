"""`make mutants`: put careless mistakes into a generated project, one at a time, and see which its tests notice.

The mistakes stand in tests/attacks/mistakes.yaml. First all tests run once, and it is noted which functions each of
them calls; then a mistake costs seconds, since only those tests run that call the function that it stands in, and the
first failure ends it. Words limit a run to the mistakes that hold one of them; `--resume` leaves out what was noticed
before.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

SCRIPTS = Path(__file__).resolve().parent
REPO = SCRIPTS.parent
sys.path.insert(0, str(REPO))

from tests.machinery.__main__ import installed, torch_installed  # noqa: E402

MISTAKES = REPO / "tests/attacks/mistakes.yaml"
RESULTS = REPO / "build/mutants/results.jsonl"
SHARE = 0.95  # that must be noticed
TRACE_FROM = 20  # mistakes of a kind of problem, for which it pays to see what each test calls
SECONDS = 900  # after which a mistake that lets the tests hang counts as noticed


@dataclass(frozen=True)
class Mistake:
    """A text of a module, and the text that a tired person would have written."""

    file: str
    mistake: str
    old: str
    new: str
    kind: str = "binary"


@dataclass
class Test:
    """A test function: what it takes, with its fixtures, and the functions that it calls, as module:line."""

    seconds: float = 0.0
    functions: set[str] = field(default_factory=set)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "words", nargs="*", help="only mistakes whose file or words hold one of these"
    )
    parser.add_argument("--jobs", type=int, default=2, help="tested at a time")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what an earlier run noticed"
    )
    parser.add_argument(
        "--env",
        type=Path,
        help="an environment of a generated project, to use instead of a new one",
    )
    options = parser.parse_args()
    mistakes = [
        mutant
        for mutant in read()
        if not options.words or any(w in f"{mutant.file} {mutant.mistake}" for w in options.words)
    ]
    before = _noticed_before() if options.resume else set()
    left = [mutant for mutant in mistakes if _key(mutant) not in before]
    missed = _try(left, options.jobs, options.env, "a" if options.resume else "w") if left else []
    share = 1 - len(missed) / len(mistakes)
    print(
        f"\n{len(mistakes) - len(missed)} of {len(mistakes)} mistakes were noticed: {share:.1%}, wanted {SHARE:.0%}"
    )
    return 0 if share >= SHARE else 1


def read() -> list[Mistake]:
    """The list, line breaks written as \\n."""
    listed = yaml.safe_load(MISTAKES.read_text(encoding="utf-8"))
    return [
        Mistake(**{key: value.replace("\\n", "\n") for key, value in entry.items()})
        for entry in listed
    ]


def _key(mutant: Mistake) -> str:
    return json.dumps([mutant.kind, mutant.file, mutant.old, mutant.new])


def _noticed_before() -> set[str]:
    lines = RESULTS.read_text("utf-8").splitlines() if RESULTS.is_file() else []
    return {result["mistake"] for result in map(json.loads, lines) if result["by"]}


def _try(mistakes: list[Mistake], jobs: int, env: Path | None, mode: str) -> list[Mistake]:
    """Put each into a copy of a project; what no test noticed comes back."""
    missed = []
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as scratch,
        ThreadPoolExecutor(jobs) as pool,
        RESULTS.open(mode, encoding="utf-8") as results,
    ):
        projects = {
            kind: _project(kind, Path(scratch))
            for kind in sorted({mutant.kind for mutant in mistakes})
        }
        if wrong := [
            f"{mutant.file}: {mutant.old!r}"
            for mutant in mistakes
            if _count(projects[mutant.kind], mutant) != 1
        ]:
            sys.exit("\n  ".join(["these stand there not once, mend the list:", *wrong]))
        python = _python(env, next(iter(projects.values())))
        tests = {
            kind: _calls(project, python)
            if sum(mutant.kind == kind for mutant in mistakes) >= TRACE_FROM
            else {}
            for kind, project in projects.items()
        }

        def attempt(mutant: Mistake) -> tuple[str, float]:
            began = time.perf_counter()
            return _noticed(mutant, projects[mutant.kind], python, tests[mutant.kind]), (
                time.perf_counter() - began
            )

        for n, (mutant, (by, seconds)) in enumerate(
            zip(mistakes, pool.map(attempt, mistakes), strict=True), 1
        ):
            missed += [] if by else [mutant]
            print(json.dumps({"mistake": _key(mutant), "by": by}), file=results, flush=True)
            print(
                f"{n}/{len(mistakes)} {'noticed' if by else 'MISSED '} {seconds:3.0f} s  "
                f"{mutant.file}: {mutant.mistake}{f' ({by})' if by else ''}",
                flush=True,
            )
    return missed


def _project(kind: str, scratch: Path) -> Path:
    """A generated project with the tests of the machinery, not installed."""
    arguments = [
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
        "parts=[serving, rollout, monitoring, edge, compression, analysis, tuning, networks, labelling, tracking, cluster, governance]",
    ]
    subprocess.run([sys.executable, "-m", *arguments, str(REPO), str(scratch / kind)], check=True)
    subprocess.run(["git", "init", "--quiet", str(scratch / kind)], check=True)
    return scratch / kind


def _python(env: Path | None, project: Path) -> Path:
    """With torch where pip finds one: what trains networks has mistakes too."""
    if env:
        return env.absolute() / "bin/python"
    python = installed(project, RESULTS.with_name("env"))
    return torch_installed(python, RESULTS.with_name("torch")) or python


def _module(project: Path, mutant: Mistake) -> Path:
    return next((project / "src").iterdir()) / mutant.file


def _count(project: Path, mutant: Mistake) -> int:
    return _module(project, mutant).read_text(encoding="utf-8").count(mutant.old)


def _calls(project: Path, python: Path) -> dict[str, Test]:
    """Run all tests without a mistake, and note what each calls; once for the same files."""
    files = (
        path for folder in ("src", "tests") for path in sorted((project / folder).rglob("*.py"))
    )
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    notes, whole = RESULTS.with_name(f"calls-{digest}"), RESULTS.with_name(f"calls-{digest}.whole")
    if not whole.exists():
        shutil.rmtree(notes, ignore_errors=True)
        notes.mkdir()
        copy = project.with_name(f"{project.name}-calls")
        shutil.copytree(project, copy, ignore=shutil.ignore_patterns(".venv"))
        (package,) = (copy / "src").iterdir()
        customize = f"import sys\n\nsys.path.append({str(SCRIPTS)!r})\nimport called\n"
        (notes / "sitecustomize.py").write_text(customize, encoding="utf-8")
        plugin = {"MUTANTS_FOLDER": str(notes), "MUTANTS_PACKAGE": package.name}
        if by := _failure(copy, python, ["-p", "called", "tests"], 3600, plugin):
            sys.exit(f"the tests fail without any mistake: {by}")
        whole.touch()
    return read_calls(notes)


def read_calls(notes: Path) -> dict[str, Test]:
    """The tests, by what `called` wrote of them."""
    lines = [
        line.split("\t")
        for path in notes.glob("*.tsv")
        for line in path.read_text("utf-8").splitlines()
    ]
    functions: dict[str, set[str]] = {}
    for at, function in (fields for kind, *fields in lines if kind == "call"):
        functions.setdefault(at, set()).add(function)
    seconds = {
        name: float(took) for kind, name, took in (line for line in lines if line[0] == "fixture")
    }
    tests: dict[str, Test] = {}
    for name, took, *fixtures in (fields for kind, *fields in lines if kind == "test"):
        test = tests.setdefault(name.split("[")[0], Test())  # with all its parameters
        test.seconds += float(took)
        for caller in (name, *fixtures):
            test.functions |= functions.get(caller, set())
            test.seconds += seconds.get(caller, 0.0)
    return tests


def _noticed(mutant: Mistake, project: Path, python: Path, tests: dict[str, Test]) -> str:
    """The test that fails for a mistake; empty when none does."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "project"
        shutil.copytree(project, copy, ignore=shutil.ignore_patterns(".venv"))
        path = _module(copy, mutant)
        text = path.read_text(encoding="utf-8")
        around = _functions(text, text.count("\n", 0, text.index(mutant.old)) + 1)
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        project_tests = [str(test) for test in (copy / "tests").glob("test_*.py")]
        return _failure(
            copy, python, _callers(mutant.file, around, tests) or [*project_tests, "tests"]
        )


def _functions(text: str, line: int) -> set[int]:
    """Where the functions begin that hold a line; none for a line of the module itself."""
    return {
        min(part.lineno for part in (node, *getattr(node, "decorator_list", [])))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        and node.lineno <= line <= (node.end_lineno or 0)
    }


def _callers(file: str, around: set[int], tests: dict[str, Test]) -> list[str]:
    """The tests that call a function, its own ones first, then those of quick files.

    Of a line that stands in no function, all that call any of the module's.
    """
    locations = [f"{file}:{line}" for line in around]
    callers = [
        name
        for name, test in tests.items()
        if (
            test.functions.intersection(locations)
            if locations
            else any(function.startswith(f"{file}:") for function in test.functions)
        )
    ]
    seconds: dict[str, float] = {}
    for name in callers:
        test = name.split("::")[0]
        seconds[test] = seconds.get(test, 0.0) + tests[name].seconds

    def rank(name: str) -> tuple[Any, ...]:
        test = Path(name.split("::")[0])
        distance = (
            test.stem != f"test_{Path(file).stem}",
            test.parent.name != Path(file).parent.name,
        )
        return *distance, seconds[str(test)], test, tests[name].seconds

    return sorted(callers, key=rank)


def _failure(
    project: Path,
    python: Path,
    tests: list[str],
    seconds: float = SECONDS,
    plugin_variables: dict[str, str] | None = None,
) -> str:
    """The first test that fails."""
    variables = {
        **os.environ,
        "PYTHONPATH": f"{project / 'src'}:{SCRIPTS}" if plugin_variables else str(project / "src"),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        **(plugin_variables or {}),
    }
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    options = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "--tb", "no"]
    command = [str(python), "-m", "pytest", *options, *tests]
    try:
        done = subprocess.run(
            command, cwd=project, env=variables, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if failed:
        return failed[0].split(" - ")[0].split(" ", 1)[1]
    return "" if done.returncode == 0 else "crash"


if __name__ == "__main__":
    sys.exit(main())
