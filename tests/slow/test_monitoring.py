"""The project watches itself: from an empty log to a page, and every drill, as a user types them."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from .conftest import Project
from .test_serving import Copy, Server, copy  # noqa: F401  (the fixture)

SHIFTS = ("covariate", "label", "concept", "schema", "feedback-loop")


def test_it_waits_for_predictions_and_then_reports_on_them(copy: Copy):  # noqa: F811
    output = copy.cli("monitor").stdout
    assert "waiting for predictions" in output
    rows = copy.call(
        "uv", "run", "--quiet", "python", "-c",
        "import duckdb; print(duckdb.sql(\"SELECT * FROM 'data/split/test.parquet' LIMIT 900\")"
        ".df().filter(regex='^[^_]').to_json(orient='records', date_format='iso'))",
    ).stdout  # fmt: skip
    server = Server(copy)
    try:
        status, content = server.ask("POST", "/predict", json.loads(rows))
        assert status == 200, content
        answers = json.loads(content)
        alike = answers[0]["decision"] if isinstance(answers[0]["decision"], str) else 1.0
        labels = [{"id": answer["id"], "label": alike} for answer in answers[:60]]
        server.ask("POST", "/feedback", labels)
        # Labels that are all alike are no such rows as before; of rows that were flagged they say nothing
        copy.cli("monitor", code=0 if "drill label" in copy.left_out() else 1)
        assert "monitoring_alarm" in server.get("/metrics")[1]
    finally:
        server.stop()
    report = json.loads(copy.read("reports/monitor.json"))
    assert report["rows"] == 900
    assert report["windows"][-1]["labels"] == 60
    assert "How it is doing" in copy.read("reports/model_card.md")
    assert "up to date" in copy.dvc("status")  # a report makes no stage run again


@pytest.mark.parametrize("name", SHIFTS)
def test_every_shift_rings_its_alarm(ran: Project, name):
    if ran.has_words_for(f"drill {name}"):
        assert "fired" in ran.cli("drill", name).stdout


@pytest.mark.parametrize("name", ["model-down", "slow-model"])
def test_a_service_that_fails_rings_its_alarm(ran: Project, name):
    output = ran.cli("drill", name).stdout
    assert "fired" in output
    assert "judged by a real Prometheus" in output or not shutil.which("prometheus")


def test_odd_rows_reach_people_in_files_and_online(ran: Project):
    counted = re.findall(r"(\d+) of (\d+) odd rows", ran.cli("drill", "edge-cases").stdout)
    assert len(counted) == 2
    assert all(reached == total != "0" for reached, total in counted)
