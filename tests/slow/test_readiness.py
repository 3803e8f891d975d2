"""A project with every part, taken through what its README says: all 28 items of the ML Test Score are shown by a check."""

from __future__ import annotations

import json

import pytest

from .conftest import Project
from .test_serving import ROWS, Server

pytestmark = [pytest.mark.at_turn(1), pytest.mark.of_types("binary")]
# What counts of the tests; the others pass in test_project.py
TESTS = [
    f"tests/test_{name}.py" for name in ("data", "model", "codes", "answers", "alarms", "rollout")
]


LABELS = """
import duckdb
for (label,) in duckdb.sql("SELECT _y FROM 'data/split/test.parquet' LIMIT 2000").fetchall():
    print(label)
"""


def test_each_of_the_28_items_is_shown_by_what_a_user_does(project):
    slices = json.dumps(["context_channel", "context_device", "entity_gender"])
    project.cli("run", "--set", "modelling.candidates=[linear]")
    project.cli("promote")
    project.cli(
        "run", "--set", "modelling.candidates=[lightgbm, linear, stacked]", "--set", "rollout.router.mode=shadow",
        "--set", f"modelling.evaluation.slices={slices}",
    )  # fmt: skip
    project.cli("challenge")
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "a challenger, unseen")
    serve(project)
    for command in ("monitor", "experiment", "explain", "curves"):
        project.cli(command)
    project.call("uv", "run", "--quiet", "pytest", "-q", "-n", "2", *TESTS)
    output = project.cli("design", "ready").stdout
    items = json.loads(project.read("reports/readiness.json"))["items"]
    assert [item for item in items if not item["points"]] == []
    assert "28 of 28 are shown" in output


def serve(project: Project) -> None:
    """Both models answer test rows, and the labels come back."""
    rows, labels = (
        [json.loads(line) for line in project.call("uv", "run", "-q", "python", "-c", code).stdout.splitlines()]
        for code in (ROWS, LABELS)
    )  # fmt: skip
    server = Server(project)
    try:
        for start in range(0, len(rows), 500):
            status, answers = server.ask("POST", "/predict", rows[start : start + 500])
            assert status == 200, answers
            pairs = zip(json.loads(answers), labels[start:], strict=False)
            status, refusal = server.ask(
                "POST",
                "/feedback",
                [{"id": answer["id"], "label": label} for answer, label in pairs],
            )
            assert status == 200, refusal
    finally:
        server.stop()
