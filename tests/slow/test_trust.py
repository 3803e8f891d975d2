"""Ten thousand sets of answers, a quarter at each commit (FUZZ=100000 for more): each is refused in words, or its files parse."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from ..fast.conftest import compiled_once, copy_of_work_tree
from ..fuzz import answers, check
from .conftest import by_turns

CASES = int(os.environ.get("FUZZ", "10000"))
PART = 250
STARTS = range(0, CASES, PART)
TURN_STARTS = [*STARTS] if "FUZZ" in os.environ else by_turns(STARTS, len(STARTS) // 4)


def cases(first: int) -> range:
    return range(first, min(first + PART, CASES))


def part(source: Path, scratch: Path, first: int) -> list[str]:
    os.chdir(scratch)
    with tempfile.TemporaryDirectory() as cache, compiled_once(Path(cache)):
        messages = []
        for case in cases(first):
            try:
                messages.append(check(source, case))
            except Exception as error:
                raise AssertionError(f"case {case}, {answers(case)}: {error!r}") from None
        return messages


@pytest.fixture(scope="module")
def messages(tmp_path_factory) -> list[str]:
    source = copy_of_work_tree(tmp_path_factory.mktemp("source"))
    scratch = tmp_path_factory.mktemp("scratch")
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        count = len(TURN_STARTS)
        parts = pool.map(part, [source] * count, [scratch] * count, TURN_STARTS)
        all_messages = [message for part_messages in parts for message in part_messages]
    assert list(scratch.iterdir()) == []  # nothing ran, nothing was written
    return all_messages


def test_every_case_is_refused_or_parses(messages):
    assert len(messages) == sum(len(cases(first)) for first in TURN_STARTS)
    share = len([message for message in messages if message]) / len(messages)
    assert 0.2 < share < 0.9


def test_most_checks_were_met(messages):
    """The cases reach the validators: a generator that misses them proves nothing."""
    kinds = Counter(message.split("'")[1] for message in messages if "question '" in message)
    assert {
        "project_name",
        "project_slug",
        "package_name",
        "data_remote_url",
        "label_delay_days",
    } <= kinds.keys()
