"""No answer can break a file, write elsewhere or run anything: some hundred cases; tests/slow has ten thousand by turns."""

from __future__ import annotations

import ast

import copier
import pytest

from ..fuzz import answers, check
from .conftest import files
from .test_rendering import TAG


def test_each_case_is_refused_in_words_or_parses(source):
    # 576, as 27, is a goal that would become a list: its page puts it at the start of a line
    refused = [check(source, case) for case in [*range(200), 576]]
    assert 20 <= len([refusal for refusal in refused if refusal]) <= 180  # both happen


@pytest.mark.parametrize("case", range(10_000, 10_012))
def test_whole_projects_say_the_same(source, tmp_path, monkeypatch, case):
    """Nothing is written for a refused case; else only the folder, all Python compiles, and nothing ran."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    refusal = check(source, case)
    target = work / "made"
    if refusal:
        with pytest.raises((ValueError, TypeError)):
            copier.run_copy(str(source), target, data=answers(case), defaults=True, quiet=True)
        assert list(tmp_path.rglob("*")) == [work]
        return
    copier.run_copy(str(source), target, data=answers(case), defaults=True, quiet=True)
    assert list(work.iterdir()) == [target]
    made = files(target)
    for name, content in made.items():
        assert not TAG.search(name)
        if name.endswith(".py"):
            ast.parse(content, name)
            compile(content, name, "exec")
    assert "PWNED" not in " ".join(made)
