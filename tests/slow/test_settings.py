"""What params.yaml may hold, by 5,000 cases that hypothesis makes, half of them at each commit."""

from __future__ import annotations

import pytest

from .conftest import REPO, Project, by_turns

FUZZ = REPO / "tests/attacks/fuzz_settings.py"


@pytest.mark.at_turn(0)
@pytest.mark.parametrize("part", by_turns(["value or files", "structure or files"]))
def test_whatever_the_file_holds_it_gives_settings_or_one_line(project: Project, part: str):
    command = ["uv", "run", "--quiet", "--with", "hypothesis>=6.100,<7", "pytest", "-q", "-n", "0"]
    done = project.call(*command, "-p", "no:cacheprovider", "-k", part, str(FUZZ))
    assert "12 passed" in done.stdout, done.stdout
