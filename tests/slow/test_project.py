"""A generated project does what its README says, as its user would do it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from .conftest import OTHER_ANSWERS, REPO, TYPES, Project, copy_files, generate

OUTPUTS = [
    "data/raw/events.parquet",
    "data/quarantine.parquet",
    "data/labelled.parquet",
    "data/split/train.parquet",
    "data/split/valid.parquet",
    "data/split/test.parquet",
    "models/model.onnx",
    "models/baseline.onnx",
    "models/manifest.json",
    "reports/candidates.json",
    "reports/metrics.json",
    "reports/gate.json",
    "reports/model_card.md",
    "reports/data_card.md",
    "monitoring/reference.parquet",
]

# A model that is worse than the default one whatever chance does: leaves of a fifth of the rows
PLAIN = ("--set", "modelling.candidates=[forest]", "--set", "modelling.forest.min_leaf_rows=2000")
PLAINER = {
    "anomaly": ("--set", "modelling.candidates=[isolation_forest]")
}  # of kinds that have no such forest


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def env_of(project: Project) -> dict[str, str]:
    return {
        "UV_PROJECT_ENVIRONMENT": str(project.path / ".venv"),
        "UV_NO_SYNC": "1",
        "PYTHONPATH": "src",
    }


class Copy(Project):
    """A copied project; its commands use the first one's environment and its own code."""

    def __init__(self, original: Project, folder: Path) -> None:
        super().__init__(copy_files(original, folder).path)
        self.env = env_of(original)

    def call(self, *command, code=0, **env):
        return super().call(*command, code=code, **{**self.env, **env})


@pytest.fixture
def copy(ran, tmp_path) -> Copy:
    return Copy(ran, tmp_path / "my-model")


@pytest.mark.every_type
def test_the_first_run_leaves_every_file_of_the_contract(ran):
    assert [name for name in OUTPUTS if not (ran.path / name).is_file()] == []
    paths = [
        path
        for name in ("data", "models", "monitoring", "reports")
        for path in (ran.path / name).rglob("*")
    ]
    assert paths
    assert [path for path in paths if path.suffix in (".pkl", ".pickle", ".joblib")] == []
    assert list((ran.path / "reports/plots").glob("*.png"))


@pytest.mark.every_type
def test_the_default_gate_is_passed_and_the_table_explains_every_model(ran):
    assert json.loads(ran.read("reports/gate.json"))["passed"]
    rows = json.loads(ran.read("reports/candidates.json"))["rows"]
    kinds = [row["kind"] for row in rows]
    assert kinds.count("baseline") >= 3 <= kinds.count("candidate")
    assert [row["verdict"] for row in rows if row["chosen"]] == ["chosen"]
    assert all(row["verdict"] for row in rows)
    assert all(row["parity"] <= 1e-5 for row in rows if row["kind"] == "candidate")


@pytest.mark.every_type
def test_no_row_is_lost_at_the_door(ran):
    report = json.loads(ran.read("reports/collect.json"))
    rows = int(re.search(r"^    rows: (\d+)", ran.read("params.yaml"), re.M)[1])  # type: ignore[index]
    assert report["rows_in"] == report["rows_kept"] + report["rows_refused"] == rows
    assert report["rows_refused"] == sum(report["refused"].values()) > 0


def test_a_second_run_does_nothing(ran):
    before = {name: (ran.path / name).stat().st_mtime_ns for name in OUTPUTS}
    assert "up to date" in ran.dvc("repro")
    assert before == {name: (ran.path / name).stat().st_mtime_ns for name in OUTPUTS}


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ("goals.targets.perturbation=0.9", {"evaluate", "reference"}),
        ("modelling.refit=false", {"train", "evaluate", "reference"}),
        ("data.split.test=0.25", {"split", "train", "evaluate", "reference"}),
        ("monitoring.reference_bins=10", {"reference"}),
    ],
)
def test_a_changed_setting_reruns_what_depends_on_it_only(copy, change, stages):
    # The copy has no bytecode, as a fresh clone has none: that is no change
    assert json.loads(copy.dvc("status", "--json")) == {}
    key, value = change.split("=")
    code = f"from my_model.settings import set_values; set_values(__import__('pathlib').Path('params.yaml'), ['{key}={value}'])"
    copy.call("uv", "run", "python", "-c", code)
    status = json.loads(copy.dvc("status", "--json"))
    assert status
    assert set(status) <= stages


def test_a_rerun_from_nothing_gives_the_same_model_byte_for_byte(ran, copy):
    for name in ("data", "models", "monitoring", ".dvc/cache"):
        shutil.rmtree(copy.path / name)
    copy.cli("run")
    same = [name for name in OUTPUTS if name.endswith((".parquet", ".onnx", "manifest.json"))]
    assert {n: digest(copy.path / n) for n in same} == {n: digest(ran.path / n) for n in same}


def test_push_and_pull_in_a_fresh_clone_give_the_same_model(ran, copy, tmp_path):
    copy.dvc("push", "--quiet")
    clone = tmp_path / "elsewhere" / "my-model"
    clone.parent.mkdir()
    copy.git("clone", "--quiet", str(copy.path), str(clone))
    fresh = Copy.__new__(Copy)
    fresh.path, fresh.env = clone, copy.env
    remote = (copy.path / copy.dvc("remote", "list").split()[1]).resolve()
    assert remote.is_dir()
    fresh.dvc("remote", "modify", "--local", "storage", "url", str(remote))
    fresh.dvc("pull", "--quiet")
    for name in ("models/model.onnx", "models/manifest.json", "data/split/test.parquet"):
        assert digest(fresh.path / name) == digest(ran.path / name)


# Of every type they pass in test_adopt.py, on adopted rows
def test_its_own_tests_pass(ran):
    ran.call("uv", "run", "pytest", "-q", "-x", "-n", "0")  # the other core has work


@pytest.mark.at_turn(2)
def test_its_own_tests_pass_with_other_answers(template, problem_type, tmp_path):
    other_type = TYPES[TYPES.index(problem_type) - 1]  # than in the test above
    answers = {**OTHER_ANSWERS, "problem_type": other_type, "project_name": "Parcel delays"}
    project = generate(template, tmp_path / "other", **answers)
    project.call("uv", "run", "pytest", "-q", "-x")
    shutil.rmtree(project.path / ".venv")


@pytest.mark.two_types
def test_its_lint_passes(ran, common):
    """Style, spelling and types. What mypy knows of the libraries is the same for each type."""
    ran.call("make", "lint", MYPY_CACHE_DIR=str(common / "mypy"))


@pytest.mark.at_turn(0)
def test_its_types_hold_on_windows(ran):
    """What only Unix has is no attribute there."""
    ran.call("uv", "run", "--group", "types", "mypy", "--platform", "win32")


@pytest.mark.at_turn(1)
def test_the_benchmarks_call_what_a_project_has(ran):
    """Nothing else runs them between one measurement and the next."""
    files = [str(REPO / "benchmarks" / name) for name in ("inside.py", "watched.py")]
    check = 'uv run --quiet --group types mypy --ignore-missing-imports "$@" || test $? = 1'
    search_path = os.pathsep.join(("src", str(REPO / "benchmarks")))
    output = ran.call("sh", "-c", check, "sh", *files, MYPYPATH=search_path).stdout
    assert "checked 2 source files" in output
    wrong = ("[attr-defined]", "[call-arg]", "[name-defined]")
    assert [line for line in output.splitlines() if line.endswith(wrong)] == []


@pytest.mark.two_types
def test_the_documents_are_counted_and_synced(copy):
    copy.cli("design", "sync", "--check")  # what the first run measured is in no page
    status = copy.cli("design", "status").stdout
    assert re.search(r"\b69\b", status)  # every decision of the catalogue
    copy.call(
        "uv",
        "run",
        "python",
        "-c",
        "from my_model.settings import *; set_values(Path('params.yaml'), ['data.split.test=0.25'])",
    )
    assert "data.split.test" in copy.cli("design", "sync", "--check", code=1).stdout


def test_a_missed_target_stops_the_run_with_1_and_says_by_how_much(copy):
    done = copy.cli("run", "--set", "goals.targets.margin_over_baseline=1e9", code=1)
    assert "MISSED, by" in done.stdout
    assert "gain over the best baseline" in done.stdout
    assert "MISSED, by" in copy.cli("gate", code=1).stdout
    copy.cli("design", "sync", "--check")  # the run let the documents quote the new setting


def test_promote_needs_the_gate_and_a_challenger_is_compared(copy, problem_type):
    copy.cli("promote")
    assert (copy.path / "models/production.dvc").is_file()
    copy.cli("run", *PLAINER.get(problem_type, PLAIN), code=1)
    assert_worse_than_production(copy)


def assert_worse_than_production(project: Project) -> None:
    gate = {row["target"]: row for row in json.loads(project.read("reports/gate.json"))["rows"]}
    assert gate["loss_to_production"]["measured"] is not None
    assert gate["loss_to_production"]["passed"] is False


@pytest.mark.two_types
def test_retrain_acts_when_due_and_promotes_only_what_is_better(copy, problem_type):
    assert "nothing was in production" in copy.cli("retrain").stdout
    assert copy.cli("retrain").stdout.startswith("not due")
    assert "nothing new to learn from" in copy.cli("retrain", "--now").stdout
    before = digest(copy.path / "models/production/model.onnx")
    copy.cli("run", *PLAINER.get(problem_type, PLAIN), code=1)
    assert_worse_than_production(copy)
    assert "Not promoted: it missed the gate" in copy.cli("retrain", "--now", code=1).stdout
    assert digest(copy.path / "models/production/model.onnx") == before


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seed: 7", "seed: seven", "project.seed"),
        ("kind: sample", "kind: files", "data.source"),
        ("metric:", "metrik:", "goals.metrik: no such key"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(copy, old, new, says):
    params = copy.path / "params.yaml"
    params.write_text(params.read_text().replace(old, new, 1))
    error = copy.cli("run", code=2).stderr.strip()
    assert says in error
    assert error.startswith("error: params.yaml:")
    assert "\n" not in error


def test_a_run_outside_git_says_what_to_do(copy):
    shutil.rmtree(copy.path / ".git")
    assert "git init" in copy.cli("run", code=2).stderr


def test_what_dvc_refuses_is_one_line_too(copy):
    pipeline = copy.path / "dvc.yaml"
    text = pipeline.read_text()
    for broken, says in (
        (f"{text}broken: [\n", "dvc.yaml:"),
        ("", "dvc.yaml:1: has no stages"),
        (text.replace("outs:", "outz:"), "dvc: "),
    ):
        pipeline.write_text(broken)
        error = copy.cli("run", code=2).stderr.strip()
        assert error.startswith(f"error: {says}")
        assert "\n" not in error
