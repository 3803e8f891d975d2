"""A project whose sample has more than a table: the whole life cycle, for one kind of answer by turns."""

from __future__ import annotations

import json

import pytest

from .conftest import TURNS, TYPES, Project, by_turns, generate
from .test_serving import Server

pytestmark = pytest.mark.at_turn(0)
COLUMNS = {"text": "context_message", "image": "object_photo"}  # input -> its column of the sample
# Of the test part: the first of all events are from another season than the monitor's reference, and ring
ROWS = (
    "import duckdb; print(duckdb.sql(\"SELECT * FROM 'data/split/test.parquet' "
    "USING SAMPLE reservoir(900 ROWS) REPEATABLE (7)\").df().filter(regex='^[^_]')"
    ".to_json(orient='records', date_format='iso'))"
)


@pytest.fixture(scope="module", params=by_turns([*COLUMNS], commits=len(TYPES) * TURNS))
def input_kind(request) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def lived(template, problem_type, input_kind, tmp_path_factory) -> Project:
    """After its first run and `promote`."""
    path = tmp_path_factory.mktemp("inputs") / "my-model"
    project = generate(template, path, problem_type=problem_type, inputs=f"[{input_kind}]")
    project.cli("run")
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "first run")
    project.cli("promote")
    return project


def test_the_model_reads_it_and_passes_the_gate(lived, input_kind):
    assert json.loads(lived.read("reports/gate.json"))["passed"]
    read = {column["name"] for column in json.loads(lived.read("models/manifest.json"))["inputs"]}
    assert COLUMNS[input_kind] in read
    lived.cli("design", "sync", "--check")


def test_its_own_tests_and_its_lint_pass(lived):
    lived.call("uv", "run", "pytest", "-q", "-x")
    lived.call("make", "lint")


def test_it_is_answered_alike_by_the_service_in_files_and_on_a_device(lived, input_kind):
    rows = json.loads(lived.call("uv", "run", "--quiet", "python", "-c", ROWS).stdout)
    server = Server(lived)
    try:
        status, answer = server.ask("POST", "/predict", rows)
        assert status == 200, answer
        served = [row["score"] for row in json.loads(answer)]
        without = server.predict(rows[0] | {COLUMNS[input_kind]: None})
        assert without["fallback"] is False
        status, answer = server.ask("POST", "/predict", rows[0] | {COLUMNS[input_kind]: 5})
        assert (status, COLUMNS[input_kind] in answer) == (422, True)
    finally:
        server.stop()
    (lived.path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    lived.cli("score", "rows.json", "--out", "scores.parquet", "--log")
    lived.cli("export", "edge")
    command = "cd edge && uv run --quiet python predict.py < ../rows.json"
    device = [json.loads(line) for line in lived.call("sh", "-c", command).stdout.splitlines()]
    code = "import duckdb; print([s for (s,) in duckdb.sql(\"SELECT score FROM 'scores.parquet'\").fetchall()])"
    batch = json.loads(lived.call("uv", "run", "--quiet", "python", "-c", code).stdout)
    assert [row["score"] for row in device] == pytest.approx(batch, rel=1e-5, abs=1e-6)
    assert served == pytest.approx(batch, rel=1e-5, abs=1e-6)


def test_it_is_watched_and_every_drill_rings(lived):
    done = lived.call("uv", "run", "--quiet", "my-model", "drill", "all")
    assert "did not fire" not in done.stdout
    left_out = sum(command.startswith("drill ") for command in lived.left_out())
    assert done.stdout.count(": left out: ") == left_out
    assert done.stdout.count("fired") >= 7 - left_out
    lived.cli("monitor")
    assert json.loads(lived.read("reports/monitor.json"))["rows"] >= 900


def test_a_row_of_it_is_traced_and_the_model_compressed(lived, input_kind):
    assert COLUMNS[input_kind] in lived.cli("trace", "3").stdout
    lived.compress()
