"""What params.yaml may hold, by 5,000 cases that hypothesis makes: values of one kind, structure of the other."""

from __future__ import annotations

from .conftest import REPO, TYPES, Project

FUZZ = REPO / "tests/attacks/fuzz_settings.py"


def test_whatever_the_file_holds_it_gives_settings_or_one_line(project: Project, problem_type: str):
    part = "value or files" if problem_type == TYPES[0] else "structure or files"
    command = ["uv", "run", "--quiet", "--with", "hypothesis>=6.100,<7", "pytest", "-q", "-n", "0"]
    done = project.call(*command, "-p", "no:cacheprovider", "-k", part, str(FUZZ))
    assert "12 passed" in done.stdout, done.stdout
