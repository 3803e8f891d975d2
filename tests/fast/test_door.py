"""The Cookiecutter door: what comes out is what Copier makes, byte for byte."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cookiecutter.hooks
import pytest

from .conftest import (
    ANSWERS_FILE,
    AWKWARD,
    COMPUTED,
    QUESTIONS,
    REPO,
    TEXTS,
    files,
    matrix,
    pairs,
    presets,
)

PARTS = ("cookiecutter.json", "hooks", "{{ cookiecutter.project_slug }}", "pyproject.toml")


@pytest.fixture(scope="session")
def door(source) -> Path:
    """The plain folder that all rendering is from, with what Cookiecutter needs of it."""
    for name in PARTS:
        if (REPO / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPO / name, source / name, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy(REPO / name, source)
    return source


@pytest.fixture
def in_process(monkeypatch):
    """Runs a rendered hook in this process, where what Copier compiles is remembered."""

    def run(script_path: str, cwd: str = ".") -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cwd)
            patch.setattr(sys, "path", [*sys.path])
            try:
                runpy.run_path(script_path)
            except SystemExit as end:
                if end.code:
                    raise cookiecutter.exceptions.FailedHookException(str(end.code)) from end

    monkeypatch.setattr("cookiecutter.hooks.run_script", run)


def bake(cookies, door, **answers):
    # A list is typed as YAML there: parts="[serving, rollout]"
    typed = {
        name: str(answer) if isinstance(answer, list) else answer
        for name, answer in answers.items()
    }
    return cookies.bake(extra_context=typed, template=str(door))


def rows() -> list[dict[str, Any]]:
    """The whole matrix in the slow tier; here each two short-listed answers once, and the presets."""
    short_list = [*pairs(), *presets().values(), dict.fromkeys(TEXTS, AWKWARD)]
    return matrix() if os.environ.get("WHOLE") else short_list


def test_both_doors_are_equal_over_the_matrix(door, cookies, generate, in_process):
    for answers in rows():
        baked = bake(cookies, door, **answers)
        assert baked.exception is None, f"{answers}: {baked.exception!r}"
        expected, made = files(generate(**answers)), files(baked.project_path)
        assert made.keys() == expected.keys(), answers
        assert [n for n in made if made[n] != expected[n]] == [], answers
        slug = re.search(rb"^project_slug: (\S+)$", made[ANSWERS_FILE], re.M)
        assert slug[1].decode() == baked.project_path.name


@pytest.mark.parametrize(
    "name",
    ["Größe 2", "3 Bären", "東京", "import", "scikit learn", "x" * 200, "It's ok", "Łódź ſ ı"],
)
def test_both_doors_name_the_folder_alike(door, cookies, generate, in_process, name):
    baked = bake(cookies, door, project_name=name)
    assert files(baked.project_path) == files(generate(project_name=name))


def test_numbers_and_truths_as_a_terminal_gives_them(door, cookies, generate, in_process):
    baked = bake(
        cookies, door, label_delay_days="30", cost_false_positive="2.5", personal_data="no"
    )
    expected = generate(label_delay_days=30, cost_false_positive=2.5, personal_data=False)
    assert files(baked.project_path) == files(expected)


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"project_slug": "9 bad"}, "such as: model-9-bad"),
        ({"project_name": "two\nlines"}, "several lines: write one"),
        ({"label_delay_days": "-3"}, "use a number from 0 to 3650"),
        ({"costly_error": "over_prediction"}, "costly_error"),
    ],
)
def test_a_bad_answer_leaves_no_folder(door, cookies, in_process, capfd, tmpdir, answers, says):
    baked = bake(cookies, door, **answers)
    assert baked.exit_code == -1
    error = capfd.readouterr().err
    assert "no project was made" in error
    assert says in error
    assert "Traceback" not in error
    assert [p for p in Path(tmpdir).rglob("*") if p.is_file()] == []


def test_its_file_of_questions_is_up_to_date():
    script = REPO / "scripts/door.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_asks_what_copier_asks():
    made = json.loads((REPO / "cookiecutter.json").read_text(encoding="utf-8"))
    questions = [name for name in made if not name.startswith("_")]
    assert set(questions) == QUESTIONS.keys() - COMPUTED
    assert set(made["__prompts__"]) == set(questions)
    inferred = [QUESTIONS[name].get("ask") is False for name in questions]
    assert inferred == sorted(inferred)  # those that Copier asks come first


def test_a_folder_that_is_in_use_is_left_alone(door, cookies, in_process, tmp_path, capfd):
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model/README.md").write_text("mine\n")
    from cookiecutter.main import cookiecutter as run

    with pytest.raises(cookiecutter.exceptions.FailedHookException):
        run(str(door), no_input=True, output_dir=str(tmp_path), overwrite_if_exists=True)
    assert files(tmp_path / "my-model") == {"README.md": b"mine\n"}
    assert "uvx copier copy" in capfd.readouterr().err


@pytest.fixture
def bridge(monkeypatch):
    monkeypatch.syspath_prepend(str(REPO / "hooks"))
    import bridge

    return bridge


def test_without_copier_and_uv_it_says_what_to_type(bridge, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bridge, "has_copier", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    context = {"_template": "/srv/a template", "project_name": "It's", "owner": "inferred"}
    made = tmp_path / "made"
    made.mkdir()
    assert bridge.main(REPO, context, made) == 1
    error = capsys.readouterr().err
    assert "--replay" in error
    assert "copier copy --data 'project_name=It'\"'\"'s' '/srv/a template'" in error
    assert list(made.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "fits"), [("9.18.2", False), ("9.19.0", True), ("10.0.1", False)]
)
def test_an_unfit_copier_is_none(bridge, monkeypatch, version, fits):
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    assert bridge.has_copier() is fits


def test_where_a_project_came_from(bridge, tmp_path):
    """A path as it is, an address without its password, an archive by its forge or by pyproject."""

    def git(*arguments: str) -> None:
        identity = [
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@localhost",
            "-c",
            "commit.gpgsign=false",
        ]
        subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True
        )

    (tmp_path / "pyproject.toml").write_text('[project]\nurls.Repository = "https://f.example/t"\n')
    (tmp_path / ".git_archival.txt").write_text("describe-name: v1.2.0-3-gabc\n")
    zipped = bridge.origin(tmp_path, "/tmp/t.zip")
    assert zipped == ("git+https://f.example/t", "v1.2.0-3-gabc")
    forge = "https://f.example/o/t/archive/refs/tags/v1.2.0.zip"
    assert bridge.origin(tmp_path, forge)[0] == "https://f.example/o/t.git"
    forge = "https://f.example/a/o/t/-/archive/v1/t-v1.zip"
    assert bridge.origin(tmp_path, forge)[0] == "https://f.example/a/o/t.git"
    assert bridge.origin(tmp_path, str(tmp_path)) == (str(tmp_path), "")
    (tmp_path / ".git_archival.txt").write_text("describe-name: $Format:%(describe)$\n")
    assert bridge.origin(tmp_path, "t.zip")[1] == ""
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "one")
    git("tag", "v0.1.0")
    git("remote", "add", "origin", "https://me:secret@f.example/o/t.git")
    assert bridge.origin(tmp_path, str(tmp_path)) == (str(tmp_path), "v0.1.0")
    assert bridge.origin(tmp_path, "gh:o/t") == ("https://f.example/o/t.git", "v0.1.0")
    git("remote", "set-url", "origin", "ssh://git@f.example/o/t.git")
    assert bridge.origin(tmp_path, "git@f.example:o/t")[0] == "ssh://git@f.example/o/t.git"
