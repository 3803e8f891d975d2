"""A user without uv: the three lines of the project's README."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from .conftest import ENV, Project


@pytest.mark.at_turn(1)
def test_the_three_lines_of_the_readme_work(template, tmp_path):
    project = generate_without_uv(template, tmp_path)
    (block,) = re.findall(r"Without uv.*?```\n(.*?)```", project.read("README.md"), re.S)
    lines = [line.split("#")[0].strip() for line in block.splitlines()]
    assert [line.split()[0] for line in lines] == ["python", ".", "pip", "my-model"]
    script = "\n".join(lines).replace("pip install", "pip install --quiet --no-compile")
    path = f"{tmp_path}/bin:/usr/local/bin:/usr/bin:/bin"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys._base_executable)  # type: ignore[attr-defined]
    commands = f"{script} --set data.source.rows=4000\nmy-model promote\nmy-model serve --help"
    done = subprocess.run(
        ["bash", "-e", "-c", commands], cwd=project.path, env={**ENV, "PATH": path},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Gate: passed" in done.stdout
    assert "promoted" in done.stdout


def generate_without_uv(template, root) -> Project:
    """Generated and committed, not installed."""
    command = [sys.executable, "-m", "copier", "copy", "--defaults", "--quiet"]
    subprocess.run([*command, str(template), str(root / "my-model")], check=True, env=ENV)
    project = Project(root / "my-model")
    project.git("init", "--quiet", "--initial-branch", "main")
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "generated")
    return project
