"""Ten thousand sets of answers (FUZZ=100000 for more): each is refused in words, or its files parse."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from ..fast.conftest import compiled_once, copy_of_work_tree
from ..fuzz import answers, check

CASES = int(os.environ.get("FUZZ", "10000"))
PART = 250


def part(source: Path, scratch: Path, first: int) -> list[str]:
    os.chdir(scratch)
    with tempfile.TemporaryDirectory() as own, compiled_once(Path(own)):
        found = []
        for case in range(first, min(first + PART, CASES)):
            try:
                found.append(check(source, case))
            except Exception as error:
                raise AssertionError(f"case {case}, {answers(case)}: {error!r}") from None
        return found


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[str]:
    source = copy_of_work_tree(tmp_path_factory.mktemp("source"))
    scratch = tmp_path_factory.mktemp("scratch")
    starts = range(0, CASES, PART)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(part, [source] * len(starts), [scratch] * len(starts), starts)
        made = [words for one in parts for words in one]
    assert list(scratch.iterdir()) == []  # nothing ran, nothing was written
    return made


def test_every_case_is_refused_or_parses(found):
    assert len(found) == CASES
    share = len([words for words in found if words]) / CASES
    assert 0.2 < share < 0.9


def test_most_checks_were_met(found):
    """The cases reach the validators: a generator that misses them proves nothing."""
    kinds = Counter(words.split("'")[1] for words in found if "question '" in words)
    assert {
        "project_name",
        "project_slug",
        "package_name",
        "data_remote_url",
        "label_delay_days",
    } <= kinds.keys()
