"""`copier copy` in a real terminal, as a person types it."""

from __future__ import annotations

import re
import shlex
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


def copy(template, target) -> pexpect.spawn:
    words = [sys.executable, "-m", "copier", "copy", str(template), str(target)]
    child = pexpect.spawn(
        shlex.join(words), env={**ENV, "TERM": "xterm"}, encoding="utf-8", dimensions=(50, 160),
        timeout=30,
    )  # fmt: skip
    child.delaybeforesend = 0.2
    return child


def test_enter_through_all_questions(template, tmp_path):
    target = tmp_path / "my-model"
    child, asked, seen = copy(template, target), [], ""
    while True:
        # Each question once: Copier draws it again when it is answered
        left = [name for name in FIRST_LINES if name not in asked]
        ends = ["is generated. Next", pexpect.EOF]
        found = child.expect([*(re.escape(FIRST_LINES[name]) for name in left), *ends])
        seen += child.before
        if found >= len(left):
            break
        asked.append(left[found])
        child.send("\r")
    assert found == len(left), seen[-3000:]
    child.expect(pexpect.EOF)
    rest = ESCAPES.sub("", child.before)
    child.close()
    assert child.exitstatus == 0
    assert 10 <= len(asked) <= 14
    for words in (
        f"cd {target}",
        "git init -b main",
        "uv sync",
        "uv run my-model run",
        "adopt FILE",
    ):
        assert words in rest, words
    answers = yaml.safe_load((target / ".copier-answers.yml").read_text(encoding="utf-8"))
    assert answers["project_name"] == "My model"
    assert answers["problem_type"] == "binary"


def test_a_wrong_answer_is_told_at_once_and_can_be_mended(template, tmp_path):
    child = copy(template, tmp_path / "made")
    child.expect_exact(FIRST_LINES["project_name"])
    child.send("\x15\r")  # Ctrl-U: an empty line
    child.expect_exact("it is empty")
    child.send("Churn\r")
    child.expect_exact(FIRST_LINES["problem_type"])
    child.close(force=True)
    assert not (tmp_path / "made").exists()
