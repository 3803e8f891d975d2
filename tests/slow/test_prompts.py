"""`copier copy` in a real terminal, as a person types it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pexpect
import yaml

from .conftest import ENV, REPO

QUESTIONS = yaml.safe_load((REPO / "copier.yml").read_text(encoding="utf-8"))
FIRST_LINES = {
    name: spec["help"].splitlines()[0]
    for name, spec in QUESTIONS.items()
    if not name.startswith("_") and "help" in spec
}
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


def copy(template, target, size=(50, 160)) -> pexpect.spawn:
    command = [sys.executable, "-m", "copier", "copy", str(template), str(target)]
    child = pexpect.spawn(
        shlex.join(command), env={**ENV, "TERM": "xterm"}, encoding="utf-8", dimensions=size,
        timeout=30,
    )  # fmt: skip
    child.delaybeforesend = 0.2
    return child


def test_enter_through_all_questions(template, tmp_path):
    target = tmp_path / "my-model"
    child, questions, output = copy(template, target), [], ""
    while True:
        # Each question once: Copier draws it again when it is answered
        unanswered = [name for name in FIRST_LINES if name not in questions]
        ends = ["is generated. Next", pexpect.EOF]
        index = child.expect([*(re.escape(FIRST_LINES[name]) for name in unanswered), *ends])
        output += child.before
        if index >= len(unanswered):
            break
        questions.append(unanswered[index])
        child.send("\r")
    assert index == len(unanswered), output[-3000:]
    child.expect(pexpect.EOF)
    closing_text = ESCAPES.sub("", child.before)
    child.close()
    assert child.exitstatus == 0
    assert 10 <= len(questions) <= 14
    for command in (
        f"cd {target}",
        "git init -b main",
        "uv sync",
        "uv run my-model run",
        "adopt FILE",
    ):
        assert command in closing_text, command
    answers = yaml.safe_load((target / ".copier-answers.yml").read_text(encoding="utf-8"))
    assert answers["project_name"] == "My model"
    assert answers["problem_type"] == "binary"


# What is seen of a message before the line is cut
WRONG_ANSWERS = (
    ("project_name", "", "empty: write one line, such as"),
    ("business_goal", "a {{ b }}", "write it without {{, {% and {#"),
    ("label_delay_days", "99999", "use a number from 0 to 3650"),
)


def test_a_wrong_answer_is_told_whole_in_a_small_terminal_and_can_be_mended(template, tmp_path):
    child = copy(template, tmp_path / "made", (24, 80))
    for name, first in FIRST_LINES.items():
        condition = str(QUESTIONS[name].get("when", ""))
        of_another_kind = "problem_type" in condition and "'binary'" not in condition
        if QUESTIONS[name].get("ask") is False or of_another_kind:
            continue
        child.expect_exact(first)
        for wrong, answer, message in WRONG_ANSWERS:
            if wrong == name:
                child.send(f"\x15{answer}\r")  # Ctrl-U: instead of the default
                child.expect_exact(message)
                child.send("\x15" + ("7" if name == "label_delay_days" else "Churn"))
        child.send("\r")
        if name == WRONG_ANSWERS[-1][0]:
            break
    child.close(force=True)
    assert not (tmp_path / "made").exists()


EXISTING_FILES = {
    "README.md": "# Ours\n",
    "pyproject.toml": '[project]\nname = "ours"\n',
    "src/ours/__init__.py": "X = 1\n",
    "docs/index.md": "# Our pages\n",
}


def repository(path) -> dict[str, bytes]:
    for name, text in EXISTING_FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text, encoding="utf-8")
    return {name: (path / name).read_bytes() for name in EXISTING_FILES}


def test_into_a_repository_each_file_is_kept_unless_the_user_agrees(template, tmp_path):
    target = tmp_path / "theirs"
    repository(target)
    command = [sys.executable, "-m", "copier", "copy", "--defaults", str(template), str(target)]
    child = pexpect.spawn(
        shlex.join(command), env={**ENV, "TERM": "xterm"}, encoding="utf-8", dimensions=(50, 160),
        timeout=30,
    )  # fmt: skip
    questions = []
    while child.expect([r"Overwrite (\S+)\?", pexpect.EOF]) == 0:
        name = ESCAPES.sub("", child.match[1])
        if name not in questions:  # it is drawn again when it is answered
            questions.append(name)
            child.send("y" if name == "pyproject.toml" else "n")
    child.close()
    assert child.exitstatus == 0
    assert sorted(questions) == ["README.md", "docs/index.md", "pyproject.toml"]
    texts = {name: (target / name).read_text(encoding="utf-8") for name in EXISTING_FILES}
    assert texts.pop("pyproject.toml").startswith('[project]\nname = "my-model"\n')
    assert texts == {name: text for name, text in EXISTING_FILES.items() if name in texts}
    assert (target / "src/my_model/__main__.py").is_file()


def test_into_a_repository_without_a_terminal_nothing_of_theirs_is_touched(template, tmp_path):
    before = repository(tmp_path / "theirs")
    base_command = [sys.executable, "-m", "copier", "copy", "--defaults", "--quiet"]

    def copy_in(*options: str) -> int:
        command = [*base_command, *options, str(template), str(tmp_path / "theirs")]
        return subprocess.run(
            command, env=ENV, stdin=subprocess.DEVNULL, capture_output=True
        ).returncode

    assert copy_in() == 1
    assert {name: (tmp_path / "theirs" / name).read_bytes() for name in EXISTING_FILES} == before
    skip = ["--skip", "README.md", "--skip", "pyproject.toml", "--skip", "docs/index.md"]
    assert copy_in(*skip) == 0
    assert {name: (tmp_path / "theirs" / name).read_bytes() for name in EXISTING_FILES} == before
    assert (tmp_path / "theirs/params.yaml").is_file()
