"""The list of tests/awkward.py: every file as people have them works, or gets one true line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from .. import awkward
from .conftest import REPO, Project
from .test_project import Copy

ITS_TYPES = pytest.mark.of_types(*awkward.LABEL)
# These go through the real command too, which adds exit codes, colours and the terminal
COMMAND_CASES = {
    "binary": [
        "names: strange ones, binary",
        "labels: no such column",
        "delay: negative",
        "files: a PDF",
        "files: a folder",
        "files: names and no rows",
    ],
    "multiclass": [
        "names: strange ones, multiclass",
        "labels: classes, some of them rare",
        "labels: one class",
        "labels: no class",
        "kinds: --category of what is not there",
    ],
    "regression": [
        "names: strange ones, regression",
        "labels: words for a number",
        "kinds: --drop of what is not there",
    ],
}


@pytest.fixture(scope="module")
def reader(project) -> Project:
    """The project with the optional reader of spreadsheets."""
    project.call("uv", "sync", "--quiet", "--group", "excel")
    return project


def cases(kind: str) -> list[awkward.Case]:
    return [case for case in awkward.CASES if awkward.kind_for(case.name, case.kind) == kind]


def test_the_list_is_long_and_has_every_kind_of_trouble():
    assert len(awkward.CASES) == len({case.name for case in awkward.CASES}) >= 80
    families = {case.name.partition(":")[0] for case in awkward.CASES}
    assert families >= {"names", "roles", "times", "numbers", "kinds", "labels", "delay", "sums", "files", "wide"}  # fmt: skip
    assert {case.outcome for case in awkward.CASES} == {"works", "refused", "either"}


@ITS_TYPES
def test_each_works_or_gets_one_true_line(reader, problem_type, tmp_path):
    done = reader.call(
        ".venv/bin/python", str(REPO / "tests/awkward.py"), ".", str(tmp_path), PYTHONPATH="src"
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["name"] for result in results] == [case.name for case in cases(problem_type)]
    bad = [
        f"{result['name']}: {'; '.join(result['wrong'])}" for result in results if result["wrong"]
    ]
    assert not bad, "\n".join([f"{len(bad)} of {len(results)}", *bad])


def test_without_the_reader_a_spreadsheet_says_what_to_install(project, tmp_path):
    """In an environment without it, as the default one is."""
    workbook = awkward.excel("rows.xlsx", awkward.table())(tmp_path)
    before = project.read("params.yaml")
    arguments = ["adopt", str(workbook), "--label", "price"]
    hidden = "import sys; sys.modules['python_calamine'] = None; from my_model.__main__ import main; main()"
    done = project.call(".venv/bin/python", "-c", hidden, *arguments, code=2, PYTHONPATH="src")
    assert "uv sync" in done.stderr
    assert done.stderr.count("\n") == 1
    assert project.read("params.yaml") == before


@pytest.fixture
def copy(ran, tmp_path) -> Copy:
    return Copy(ran, tmp_path / "my-model")


@ITS_TYPES
def test_some_of_them_by_the_command_itself(copy, problem_type, tmp_path):
    """Exit code 2, one line and nothing changed, or 0."""
    chosen = [case for case in cases(problem_type) if case.name in COMMAND_CASES[problem_type]]
    assert len(chosen) == len(COMMAND_CASES[problem_type])
    for index, case in enumerate(chosen):
        folder = tmp_path / str(index)
        folder.mkdir()
        arguments = [*case.arguments]
        arguments += [] if "--label" in arguments else ["--label", awkward.LABEL[problem_type]]
        before = copy.read("params.yaml")
        code = 2 if case.outcome == "refused" else 0
        done = copy.cli("adopt", str(case.make(folder)), *arguments, code=code)
        assert not awkward.INSIDE.search((done.stdout + done.stderr).replace(str(tmp_path), ""))
        if code:
            assert done.stderr.startswith("error: ")
            assert done.stderr.count("\n") == 1
            assert copy.read("params.yaml") == before
        else:
            copy.git("checkout", "--", "params.yaml")


def nasty(folder: Path, kind: str) -> tuple[Path, list[str]]:
    """Awkward names for everything, times with offsets, numbers as people write them, in JSON lines."""
    columns = awkward.of_kind(awkward.table(600), kind)
    rows = len(columns["age"])
    columns["key"] = columns.pop(awkward.LABEL[kind])
    columns["a: b"] = [
        f"{awkward.shifted(awkward.START, 5 * row):%Y-%m-%dT%H:%M:%S}+02:00" for row in range(rows)
    ]
    columns["side"] = [f"g{row // 3}" for row in range(rows)]
    columns["order"] = [f"${amount:,.2f}" for amount in columns.pop("spend")]
    columns["place"] = [
        "n.d." if row % 90 == 4 else f"{age} yrs" for row, age in enumerate(columns.pop("age"))
    ]
    path = folder / "rows (1).jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in awkward.objects(columns)), "utf-8")
    return path, ["--label", "key", "--time", "a: b", "--group", "side"]


@pytest.mark.at_turn(0)
@ITS_TYPES
def test_a_nasty_file_runs_to_a_model_and_is_scored(copy, problem_type, tmp_path):
    """The whole way: what adopt made of the file, the stages, the service's reader and `score` agree."""
    path, arguments = nasty(tmp_path, problem_type)
    copy.cli("adopt", str(path), *arguments)
    ran_to_the_gate(copy)
    collected = json.loads(copy.read("reports/collect.json"))
    assert (collected["rows_kept"], collected["rows_refused"]) == (600, 0)
    manifest = json.loads(copy.read("models/manifest.json"))
    inputs = {column["name"] for column in manifest["inputs"]}
    assert inputs >= {"order", "place", "plan"}
    copy.cli("score", str(path), "--out", "scores.parquet")
    query = "SELECT count(*), count(score) FROM 'scores.parquet'"
    command = f'import duckdb; print(duckdb.sql("{query}").fetchall())'
    assert "(600, 600)" in copy.call("uv", "run", "--quiet", "python", "-c", command).stdout


def ran_to_the_gate(copy: Copy) -> None:
    """`run` ends with 0, or with 1 as the gate says no, which is the file's matter."""
    code = copy.call("sh", "-c", "uv run --quiet my-model run >run.txt 2>&1; echo $?").stdout
    output = copy.read("run.txt")
    assert int(code) < 2, output[-3000:]
    assert "Traceback" not in output
    assert not awkward.INSIDE.search(output.replace(str(copy.path), ""))


@pytest.mark.at_turn(2)
@ITS_TYPES
def test_a_file_sorted_by_its_label_runs(copy, problem_type, tmp_path):
    columns = awkward.of_kind(awkward.table(600), problem_type)
    order = sorted(range(600), key=lambda row: columns[awkward.LABEL[problem_type]][row])
    path = tmp_path / "sorted.csv"
    path.write_text(
        awkward.lines({key: [values[row] for row in order] for key, values in columns.items()})
    )
    copy.cli("adopt", str(path), "--label", awkward.LABEL[problem_type])
    ran_to_the_gate(copy)
    assert "stacked" in copy.read("reports/candidates.json")


@pytest.mark.at_turn(1)
@ITS_TYPES
@pytest.mark.parametrize("columns", [1000])
def test_a_very_wide_file_stays_within_the_memory_limit(copy, problem_type, tmp_path, columns):
    """So many columns in 200 MB are 5,000 in the 1 GB that is the default, in less time."""
    named_columns = awkward.of_kind(awkward.table(2000), problem_type)
    path, names = tmp_path / "wide.csv", [f"sensor {index}" for index in range(columns)]
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow([*named_columns, *names])
        for index, row in enumerate(zip(*named_columns.values(), strict=True)):
            numbers = [(index * 7 + turn * 13) % 101 / 7 for turn in range(columns)]
            writer.writerow([*row, *(f"{number:.3f}" for number in numbers)])
    params = copy.read("params.yaml").replace("memory_limit: 1GB", "memory_limit: 200MB")
    (copy.path / "params.yaml").write_text(params, encoding="utf-8")
    copy.cli("adopt", str(path), "--label", awkward.LABEL[problem_type])
    assert copy.read("params.yaml").count("sensor_") >= columns
    assert "memory_limit: 200MB" in copy.read("params.yaml")
    copy.cli("collect")
