"""The first commit passes the project's own pre-commit hooks, and so does what a run leaves."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from ..hooks import BIN, local
from .conftest import ENV, Project
from .test_project import Copy

# What leaves files that git keeps, in an order in which each has what it needs
LEAVE_FILES = (
    "run", "compress", "promote", "curves", "bench", "retrain --now", "design sync",
)  # fmt: skip


class Hooked(Project):
    """A project with pre-commit's hook in its .git."""

    def __init__(self, project: Project, config) -> None:
        super().__init__(project.path)
        self.config = str(config)
        hooks_config = local(project.path / ".pre-commit-config.yaml")
        config.write_text(yaml.safe_dump(hooks_config), encoding="utf-8")

    def hooks(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pre_commit", "run", "--config", self.config, *arguments]
        environment = {
            **ENV,
            "PATH": f"{BIN}:{ENV['PATH']}",
            "PRE_COMMIT_HOME": f"{self.config}.home",
        }
        return subprocess.run(
            command, cwd=self.path, env=environment, capture_output=True, text=True
        )

    def passes(self, *arguments: str) -> None:
        done = self.hooks(*arguments)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert self.git("diff", "--name-only") == ""  # no file was mended either


@pytest.fixture
def first(ran, tmp_path) -> Hooked:
    """The project as it was generated, installed and staged, with nothing committed."""
    project = Copy(ran, tmp_path / "my-model")
    for name in ("data", "models", "monitoring", "reports", ".git", "dvc.lock"):
        project.call("rm", "-rf", name)
    project.git("init", "--quiet", "--initial-branch", "main")
    project.git("add", ".")
    return Hooked(project, tmp_path / "hooks.yaml")


def test_the_first_commit_passes(first):
    assert "uv.lock" in first.git("diff", "--staged", "--name-only").split()
    assert (first.path / "uv.lock").stat().st_size > 500_000  # what the hook takes for too large
    first.passes()
    first.passes("--all-files")


def test_the_hooks_look_at_what_is_committed(first):
    (first.path / "model.bin").write_bytes(bytes(2_000_000))
    (first.path / "reports").mkdir()
    (first.path / "reports/note.md").write_text("a  \nb", encoding="utf-8", newline="\n")
    first.git("add", ".")
    done = first.hooks()
    assert done.returncode == 1
    for message in ("model.bin (1954 KB) exceeds", "Fixing reports/note.md"):
        assert message in done.stdout, message


@pytest.mark.at_turn(0)
def test_what_the_commands_leave_passes(ran, tmp_path):
    project = Copy(ran, tmp_path / "my-model")
    hooked = Hooked(project, tmp_path / "hooks.yaml")
    for command in LEAVE_FILES:
        if command == "compress":
            project.compress()
        elif project.has_words_for(command):
            project.cli(*command.split())
    project.git("add", ".")
    staged = project.git("diff", "--staged", "--name-only").split()
    pictures = () if "curves" in project.left_out() else ("reports/curves.png",)
    for name in ("models/production.dvc", "reports/bench.json", *pictures):
        assert name in staged
    hooked.passes()
    hooked.passes("--all-files")
