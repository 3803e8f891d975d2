"""What keeps the template working: moving pins, looking at the newest releases, making a release."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ALL_PARTS, REPO, TYPES, tool
from .test_ci import GIT, lint, pinned, workflows

sys.path.insert(0, str(REPO / "scripts"))
import bump
import mutants
import newest
import release

ACTIONS = {"actions/checkout": ["v7.0.1", "v7.0.2", "v6.9.9"], "astral-sh/setup-uv": ["v10.0.1", "v9.9.9", "v10.0.10", "v11"],
           "pre-commit/pre-commit-hooks": ["v6.0.0", "v6.1.0"]}  # fmt: skip


@pytest.fixture
def forge(tmp_path) -> str:
    """The repositories of the actions, with releases newer and older than the ones that are pinned."""
    for name, tags in ACTIONS.items():
        folder = tmp_path / "forge" / name
        folder.mkdir(parents=True)
        subprocess.run([*GIT, "init", "--quiet"], cwd=folder, check=True)
        for number, tag in enumerate(tags):
            message = ["--allow-empty", "--quiet", "--message", tag]
            subprocess.run([*GIT, "commit", *message], cwd=folder, check=True)
            # Every other tag is annotated: its commit is not the object that it names
            kind = ["tag", "--annotate", "--message", tag, tag] if number % 2 else ["tag", tag]
            subprocess.run([*GIT, *kind], cwd=folder, check=True)
    bump.newest.cache_clear()
    return str(tmp_path / "forge")


@pytest.fixture
def repo(tmp_path) -> Path:
    """The files that pin something, as they are."""
    for path in bump.pinned(REPO):
        copy = tmp_path / "repo" / path.relative_to(REPO)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return tmp_path / "repo"


def texts(repo: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in bump.pinned(repo))


def test_pins_and_date_move_to_the_newest(repo, forge, capsys):
    before = texts(repo)
    assert bump.main(["--date", "2031-01-02", "--forge", forge], repo) == 0
    output, after = capsys.readouterr().out, texts(repo)
    commit = subprocess.run(
        ["git", "rev-parse", "v7.0.2^{commit}"], cwd=f"{forge}/actions/checkout",
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    for name, tag in (("actions/checkout", "v7.0.2"), ("astral-sh/setup-uv", "v10.0.10")):
        used = re.findall(rf"uses: {name}@([0-9a-f]{{40}}) # (\S+)", after)
        assert len(used) == before.count(f"uses: {name}@") >= 4
        assert {version for _, version in used} == {tag}
    assert f"actions/checkout@{commit} # v7.0.2" in after
    assert 'exclude-newer = "2031-01-02T00:00:00Z"' in after
    assert "rev: v6.1.0" in after
    assert "exclude-newer: 20" in output
    assert "actions/checkout: v7.0.1 (3d3c42e) to v7.0.2" in output
    lines = list(zip(before.splitlines(), after.splitlines(), strict=True))
    changed = [new for old, new in lines if old != new]
    assert all(re.search(r"uses: |exclude-newer|rev: ", line) for line in changed)
    assert bump.main(["--date", "2031-01-02", "--forge", forge], repo) == 0
    assert capsys.readouterr().out == "everything is the newest\n"
    assert bump.main(["--date", "2030-01-01", "--forge", forge], repo) == 0  # never back
    assert texts(repo) == after


def test_what_cannot_be_asked_changes_nothing(repo, tmp_path, capsys):
    bump.newest.cache_clear()
    before = texts(repo)
    assert bump.main(["--date", "2031-01-02", "--forge", str(tmp_path / "nowhere")], repo) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert texts(repo) == before


def test_everything_that_is_pinned_is_found():
    names = {path.relative_to(REPO).as_posix() for path in bump.pinned(REPO)}
    paths = [path for path in REPO.glob("template/project/**/*") if path.is_file()]
    paths += list((REPO / ".github").rglob("*.yml"))
    pins = re.compile(r"uses: \S+@|exclude-newer = |^ +rev: ", re.M)
    holding = {
        path.relative_to(REPO).as_posix() for path in paths if pins.search(path.read_text("utf-8"))
    }
    assert holding <= names


def test_the_template_s_own_workflows_are_safe():
    assert len(workflows(REPO)) >= 2
    assert pinned(REPO) == []
    lint(REPO)
    done = subprocess.run(
        [tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *workflows(REPO)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    targets = set(re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text("utf-8"), re.M))
    run = "\n".join(path.read_text("utf-8") for path in workflows(REPO))
    assert set(re.findall(r"make (?:--silent )?([a-z]+)", run)) <= targets


@pytest.fixture
def scripted(monkeypatch, generate, tmp_path):
    """newest.py with its commands answered from a table instead of run."""
    calls: list[list[str]] = []
    answers: dict[str, tuple[int, str]] = {}

    def call(command: list[str], cwd: Path) -> tuple[int, str]:
        calls.append(command)
        if command[:2] == ["uv", "lock"]:
            version = "2.1" if "--upgrade" in command else "2.0"
            package = '[[package]]\nname = "duckdb"\nversion = "{}"\n'
            (cwd / "uv.lock").write_text(package.format(version))
        if command[:3] == ["uv", "pip", "list"]:
            listed = '{"name": "duckdb", "version": "2.1", "latest_version": "3.0"}'
            return 0, f'[{listed}, {{"name": "unnamed", "version": "1", "latest_version": "2"}}]'
        return answers.get(" ".join(command), (0, ""))

    def made(problem_type: str, path: Path) -> None:
        path.mkdir()
        text = (generate(problem_type=problem_type) / "pyproject.toml").read_text("utf-8")
        (path / "pyproject.toml").write_text(text)

    monkeypatch.setattr(newest, "call", call)
    monkeypatch.setattr(newest, "generate", made)
    return calls, answers


def test_the_newest_releases_are_reported(scripted, capsys):
    calls, _ = scripted
    assert newest.main(["regression"]) == 0
    output = capsys.readouterr().out
    assert "## regression" in output
    assert "- duckdb 2.0 to 2.1" in output
    assert "keep out 1 newer releases" in output
    assert "- duckdb 2.1; there is 3.0" in output
    assert [step for step in newest.STEPS if step not in calls] == []


def test_a_failure_with_the_newest_releases_is_told(scripted, capsys):
    _, answers = scripted
    answers["uv run --quiet pytest -q"] = (1, "FAILED tests/test_x.py\n1 failed")
    assert newest.main([]) == 1
    output = capsys.readouterr().out
    assert output.count("**failed with 1**") == len(newest.TYPES)
    assert "FAILED tests/test_x.py" in output
    answers["uv lock --quiet --upgrade"] = (1, "no solution found")
    assert newest.main(["binary"]) == 1
    assert "No set of versions fits" in capsys.readouterr().out
    assert newest.main(["clustering"]) == 2


def test_the_date_is_taken_away(generate, tmp_path):
    text = (generate() / "pyproject.toml").read_text("utf-8")
    (tmp_path / "pyproject.toml").write_text(text)
    newest.without_date(tmp_path)
    undated = (tmp_path / "pyproject.toml").read_text("utf-8")
    assert set(text.splitlines()) - set(undated.splitlines()) == {
        line for line in text.splitlines() if line.startswith("exclude-newer")
    }
    with pytest.raises(SystemExit):
        newest.without_date(tmp_path)


def test_a_release_moves_the_changelog():
    text = "# Changelog\n\n## [Unreleased]\n\n- new\n\n## [0.9.0] - 2026-01-01\n\n- old\n"
    fresh = release.released(text, "0.10.0", "2026-02-03")
    assert fresh == text.replace(
        "## [Unreleased]\n", "## [Unreleased]\n\n## [0.10.0] - 2026-02-03\n"
    )
    for version, says in (("0.9.0", "not newer"), ("0.2", "three numbers")):
        with pytest.raises(ValueError, match=says):
            release.released(text, version, "2026-02-03")
    with pytest.raises(ValueError, match="nothing stands"):
        release.released(fresh, "0.11.0", "2026-02-03")


def test_a_release_is_recorded_alike_each_time(tmp_path):
    subprocess.run([*GIT, "init", "--quiet"], cwd=tmp_path, check=True)
    for name in ("copier.yml", "template/a.jinja", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "tests").mkdir()
    subprocess.run([*GIT, "add", "."], cwd=tmp_path, check=True)
    subprocess.run([*GIT, "commit", "--quiet", "--message", "one"], cwd=tmp_path, check=True)
    first = release.record(tmp_path, "0.2.0", "HEAD").read_bytes()
    assert release.record(tmp_path, "0.3.0", "HEAD").read_bytes() == first
    listed = subprocess.run(
        ["tar", "-tJf", tmp_path / "tests/releases/0.2.0.tar.xz"], capture_output=True, text=True
    )
    assert listed.stdout.split() == ["copier.yml", "template/", "template/a.jinja"]


def test_each_listed_mistake_can_be_put_into_a_project(generate):
    """A text that moved would make `make mutants` say nothing about its mistake."""
    wrong = []
    for listed in mutants.read():
        (package,) = (generate(problem_type=listed.kind, parts=ALL_PARTS) / "src").iterdir()
        times = (package / listed.file).read_text(encoding="utf-8").count(listed.old)
        wrong += [f"{listed.file}: {listed.old!r} stands there {times} times"] * (times != 1)
    assert not wrong, "\n".join(wrong)


def holds(module: Path, name: str) -> bool:
    """Whether a module speaks of a name, or is a package with such a module."""
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    beside = (module / name, module / f"{name}.py")
    return bool(re.search(rf"\b{name}\b", text)) or any(path.exists() for path in beside)


def test_what_runs_beside_a_project_imports_what_is_there(generate):
    """Benchmarks, scripts and attacks run where no fast test does: a module that moved would break them unseen.

    A benchmark of one kind of problem takes what that kind alone has.
    """
    roots = [generate(problem_type=kind, parts=ALL_PARTS) / "src" for kind in TYPES]
    wrong = []
    for path in [
        source
        for folder in ("benchmarks", "scripts", "tests")
        for source in (REPO / folder).rglob("*.py")
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(
                "my_model"
            ):
                continue
            modules = [root / node.module.replace(".", "/") for root in roots]
            for name in node.names:
                if not any(holds(module, name.name) for module in modules):
                    wrong.append(
                        f"{path.relative_to(REPO)}:{node.lineno}: {node.module}.{name.name}"
                    )
    assert not wrong, "\n".join(wrong)
