"""Generated projects that are installed and run for real, one a problem type, shared by the tests.

Each is made once, by the worker that needs it first. A file of tests has a copy of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from filelock import FileLock

Choice = TypeVar("Choice")
REPO = Path(__file__).resolve().parents[2]
# Python that writes no bytecode starts three times slower, and these tests start it often
ENV = {
    key: value
    for key, value in os.environ.items()
    if key not in ("PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")
    and not key.startswith("PYTEST_XDIST")  # a pytest inside a test is no worker of this one
} | {
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
    "COLUMNS": "160",
}
# Rare combinations take turns: another one at each commit; EVERY=1 runs all of them, TURN=N those of
# the Nth commit
EVERY_COMBINATION = bool(os.environ.get("EVERY"))
TURN = int(
    os.environ.get("TURN") or subprocess.run(
        ["git", "rev-list", "--count", "HEAD"], cwd=REPO, capture_output=True, text=True
    ).stdout or 0
)  # fmt: skip
# Answers that are all another than the default; a run of everything takes turns between the types
OTHER_ANSWERS = {"split_by": "group", "object": "", "interpretable": "true", "personal_data": "false",
                 "prediction_mode": "batch", "label_source": "algorithm", "costly_error": "equal"}  # fmt: skip
ALL_PARTS = [
    "serving",
    "rollout",
    "monitoring",
    "edge",
    "compression",
    "analysis",
    "tuning",
    "networks",
    "labelling",
    "tracking",
    "cluster",
    "governance",
]
TYPES = sorted(path.name for path in (REPO / "template/problems").iterdir() if path.is_dir())


def by_turns(choices: Sequence[Choice], at_once: int = 1, commits: int = 1) -> list[Choice]:
    """Which of these it is the turn of at this commit; `commits`: after how many it is another's, as when everything else
    that takes turns has come round."""
    if EVERY_COMBINATION:
        return [*choices]
    return [
        choices[(TURN // commits * at_once + offset) % len(choices)] for offset in range(at_once)
    ]


@dataclass
class Project:
    """A generated project and its commands, called as a user calls them."""

    path: Path

    def call(
        self, *command: str, code: int | None = 0, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.path,
            env={**ENV, **env},
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        message = f"{' '.join(command)} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert code in (None, done.returncode), message[-6000:]
        return done

    def cli(
        self, *arguments: str, code: int | None = 0, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = self.call("uv", "run", "--quiet", "my-model", *arguments, code=code, **env)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def compress(self) -> dict | None:
        """The report of `compress`, if this kind of model has a smaller form. Whether it is as good is the data's
        to say: the exit code and what is printed are compared with the report, never taken for granted."""
        done = self.cli("compress", code=None)
        if done.returncode == 2:  # this kind of model has no smaller form
            assert done.stderr.startswith("error: compress: ")
            assert done.stderr.count("\n") == 1
            return None
        report = json.loads(self.read("reports/compression.json"))
        assert done.returncode == (0 if report["passed"] or not report["rows"] else 1), report
        assert report["why"] in " ".join(done.stdout.split())
        assert (self.path / "models/compressed/model.onnx").is_file() == report["passed"]
        return report

    def dvc(self, *arguments: str, code: int = 0) -> str:
        return self.call("uv", "run", "--quiet", "dvc", *arguments, code=code).stdout

    def git(self, *arguments: str) -> str:
        return self.call("git", *arguments).stdout

    def read(self, name: str) -> str:
        return (self.path / name).read_text(encoding="utf-8")

    def left_out(self) -> set[str]:
        """The commands that say nothing of this kind of problem."""
        code = "import json; from my_model.problem import LEFT_OUT; print(json.dumps([*LEFT_OUT]))"
        return set(json.loads(self.call("uv", "run", "--quiet", "python", "-c", code).stdout))

    def has_words_for(self, command: str) -> bool:
        """Whether a command says something of this kind of problem; where not, that its refusal is one line."""
        if command not in self.left_out():
            return True
        error = self.cli(*command.split(), code=2).stderr
        assert error.startswith(f"error: {command}: ")
        assert error.count("\n") == 1
        return False


@pytest.fixture(scope="session")
def common(tmp_path_factory) -> Path:
    """A folder of this test run that its workers share."""
    base_folder = tmp_path_factory.getbasetemp()
    return base_folder.parent if "PYTEST_XDIST_WORKER" in os.environ else base_folder


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """The folder, made by the worker that needs it first while the others wait. Read only."""
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(f"{folder}.lock"):
        if not done.is_file():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def template(common) -> Path:
    """The work tree as a repository with one commit: what a user would clone."""
    return made_once(common / "template", commit_work_tree) / "fivefold"


def commit_work_tree(folder: Path) -> None:
    path = folder / "fivefold"
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO, check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, files):
        if (REPO / name).is_file():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, path / name)
    Project(path).git("init", "--quiet", "--initial-branch", "main")
    Project(path).git("add", "--all", "--force")
    Project(path).git("commit", "--quiet", "--message", "template")


# Files that take long: begun first, so that no worker waits for them at the end
LONG_FILES = (
    "test_project.py", "test_daily.py", "test_inputs.py", "test_adopt.py", "test_updates.py",
    "test_awkward.py", "test_serving.py", "test_door.py", "test_monitoring.py", "test_workflows.py",
)  # fmt: skip
TURNS = 3


def pytest_collection_modifyitems(config, items) -> None:
    """Leave out what is not at its turn: `@pytest.mark.at_turn(n)` is run at one commit of three."""
    ranks = {name: rank for rank, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))
    if not EVERY_COMBINATION:
        left_out = [item for item in items if not _at_its_turn(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _at_its_turn(item)]


def _at_its_turn(item) -> bool:
    mark = item.get_closest_marker("at_turn")
    # A turn for each round of the types, whose number may share a factor with TURNS: else a test would keep to few types
    return mark is None or mark.args[0] == TURN // len(TYPES) % TURNS


def pytest_generate_tests(metafunc) -> None:
    """A test has a project of one type, another one at each commit; of two or of every type where it is marked so.

    `@pytest.mark.of_types(…)` says which types a test can have, where it cannot have all.
    """
    if "problem_type" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("of_types")
        types = sorted(mark.args) if mark else TYPES
        marks = {mark.name for mark in metafunc.definition.iter_markers()}
        turn = types if "every_type" in marks else by_turns(types, 1 + ("two_types" in marks))
        metafunc.parametrize("problem_type", turn, indirect=True, scope="session")


@pytest.fixture(scope="session")
def problem_type(request) -> str:
    return str(request.param)


def generate(template: Path, path: Path, like: Project | None = None, **answers: str) -> Project:
    """`copier copy --defaults` with some answers, `git init`, a first commit, `uv sync`.

    A project has every part but where other answers or parts are given; the README's has the default ones.

    Args:
        like: a project whose environment is copied before `uv sync`, which then has little to do.
    """
    if "prediction_mode" not in answers:
        answers = {"parts": str(ALL_PARTS), "tracker": "none", **answers}
    data = [argument for key, value in answers.items() for argument in ("--data", f"{key}={value}")]
    command = [sys.executable, "-m", "copier", "copy", "--defaults", "--quiet", *data]
    subprocess.run([*command, str(template), str(path)], check=True, env=ENV)
    project = Project(path)
    project.git("init", "--quiet", "--initial-branch", "main")
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "generated")
    if like:
        copy_environment(like, path)
    project.call("uv", "sync", "--quiet")
    return project


def copy_files(project: Project, folder: Path) -> Project:
    """A copy of the project without its environment."""
    ignored = shutil.ignore_patterns(".venv", "__pycache__")
    shutil.copytree(project.path, folder, symlinks=True, ignore=ignored)
    return Project(folder)


def copy_environment(project: Project, folder: Path) -> None:
    """A copy of the project's environment that works in another folder after `uv sync`.

    Its files are hard links, as those are that uv makes to its cache: whoever writes one writes a new one.
    The programs name the folder that they are in, and are written anew.
    """
    shutil.copytree(
        project.path / ".venv", folder / ".venv", symlinks=True, copy_function=link_or_copy,
        ignore=shutil.ignore_patterns(".lock"),  # a link would be the same lock
    )  # fmt: skip
    for program in (folder / ".venv/bin").iterdir():
        content = program.read_bytes()
        if not program.is_symlink() and bytes(project.path) in content:
            mode = program.stat().st_mode
            program.unlink()
            program.write_bytes(content.replace(bytes(project.path), bytes(folder)))
            program.chmod(mode)


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # too many links, or a file system without them
        shutil.copy2(source, target)


def await_answer(
    ask: Callable[[], object], process: subprocess.Popen[bytes], log: Path, seconds: float
) -> None:
    """Wait until a server that was just started answers; `ask` raises OSError until then."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            ask()
            return
        except OSError:
            printed = log.read_text()[-3000:]
            assert process.poll() is None, printed
            assert time.monotonic() < deadline, printed
            time.sleep(0.5)


class Originals:
    """The project of a type that is generated, installed and run once for all files of tests."""

    def __init__(self, template: Path, common: Path) -> None:
        self._template, self._common = template, common

    def ran(self, problem_type: str) -> Project:
        """After its first run, committed. Read only."""
        return Project(made_once(self._common / problem_type, self._make) / "my-model")

    def copy(self, problem_type: str, folder: Path, has_run: bool) -> Project:
        """An installed copy of one's own, before or after the first run."""
        original = self.ran(problem_type)
        source = original if has_run else Project(original.path.with_name("generated"))
        project = copy_files(source, folder)
        copy_environment(original, folder)
        project.call("uv", "sync", "--quiet")
        return project

    def _make(self, folder: Path) -> None:
        project = generate(self._template, folder / "my-model", problem_type=folder.name)
        copy_files(project, folder / "generated")
        project.cli("run")
        project.git("add", ".")
        project.git("commit", "--quiet", "--message", "first run")


@pytest.fixture(scope="session")
def originals(template, common) -> Originals:
    return Originals(template, common)


@pytest.fixture(scope="module")
def project(originals, problem_type, tmp_path_factory) -> Iterator[Project]:
    """A default project of each type, installed, not run yet."""
    folder = tmp_path_factory.mktemp(problem_type) / "my-model"
    yield originals.copy(problem_type, folder, has_run=False)
    shutil.rmtree(folder / ".venv")


@pytest.fixture(scope="module")
def ran(originals, problem_type, tmp_path_factory) -> Iterator[Project]:
    """The same project after its first run, committed."""
    folder = tmp_path_factory.mktemp(problem_type) / "my-model"
    yield originals.copy(problem_type, folder, has_run=True)
    shutil.rmtree(folder / ".venv")


@pytest.fixture(scope="module")
def in_production(originals, problem_type, tmp_path_factory) -> Iterator[Project]:
    """The same project with its first model promoted, which is not committed."""
    folder = tmp_path_factory.mktemp(problem_type) / "my-model"
    project = originals.copy(problem_type, folder, has_run=True)
    project.cli("promote")
    yield project
    shutil.rmtree(folder / ".venv")
