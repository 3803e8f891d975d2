"""What a developer's tools and a newcomer find: in the template, and in a generated project."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ..slow import conftest as slow
from .conftest import REPO, tool

# What a provider of CI, uv, `run` or the process itself sets, so that nobody writes it into a file
SET_ELSEWHERE = {"GITHUB_TOKEN", "GIT_CONFIG_COUNT", "OPENBLAS_NUM_THREADS", "PATH", "PROMETHEUS_MULTIPROC_DIR", "PYTHONWARNINGS", "STAGE_JOURNAL"}  # fmt: skip
# Named by params.yaml, so that the code holds no name of its own
OF_SETTINGS = {"ALERTS_WEBHOOK"}


def constants(package: Path) -> dict[str, str]:
    """Every `NAME = "text"` at the head of a module, as `module.NAME`."""
    return {
        f"{path.stem}.{target.id}": node.value.value
        for path in package.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }


def variables(package: Path) -> set[str]:
    """The environment variables that a package asks for by name."""
    values, names = constants(package), set()
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        origin = {
            alias.asname or alias.name: f"{(node.module or '').rpartition('.')[2]}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
                variable = node.slice
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "os.environ.get":
                variable = node.args[0]
            else:
                continue
            if isinstance(variable, ast.Constant):
                names.add(str(variable.value))
            elif isinstance(variable, ast.Name | ast.Attribute):
                name = ast.unparse(variable)
                for key in (f"{path.stem}.{name}", origin.get(name, name)):
                    if key in values:
                        names.add(values[key])
    return names


@pytest.mark.parametrize("answers", [{}, {"prediction_mode": "batch"}, {"ci": "none"}])
def test_the_example_of_an_environment_names_what_is_read(generate, answers):
    root = generate(**answers)
    read = variables(next((root / "src").iterdir()))
    assert read > {"SERVE_TOKEN", "OPERATE_TOKEN", "PERSONAL_KEY", "REMOTE_KEY"}
    if "prediction_mode" in answers:
        read -= {"SERVE_TOKEN", "OPERATE_TOKEN"}  # of a service that is asked elsewhere
    else:
        compose = (root / "ops/compose.yaml").read_text(encoding="utf-8")
        read |= set(re.findall(r"\$\{(\w+):", compose))
    if "ci" in answers:
        read -= {"PROPOSE_TOKEN", "REMOTE_KEY"}
    text = (root / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"(?m)^(\w+)=$", text)) == read - SET_ELSEWHERE | OF_SETTINGS
    assert "\n.env\n" in (root / ".gitignore").read_text(encoding="utf-8")


@pytest.mark.parametrize("house", ["template", "project"])
def test_make_help_lists_every_target(generate, house):
    root = REPO if house == "template" else generate()
    text = (root / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^\.PHONY: (.*)$", text)[0].split())
    done = subprocess.run(["make", "help"], cwd=root, capture_output=True, text=True, check=True)
    assert set(re.findall(r"(?m)^  make ([\w-]+)\t\S", done.stdout)) == targets
    assert subprocess.run(["make"], cwd=root, capture_output=True, text=True).stdout == done.stdout


def test_both_pages_hold_the_same_facts_of_the_folders(generate):
    root = generate()
    readme, agents = ((root / name).read_text("utf-8") for name in ("README.md", "AGENTS.md"))
    facts = agents.partition("## What is where\n")[2].partition("\n## ")[0].strip()
    assert facts in readme
    named = set(re.findall(r"`(?:src/my_model/)?([a-z]+)/`", facts))
    folders = {path.parent.name for path in (root / "src/my_model").glob("*/__init__.py")}
    assert named >= folders


@pytest.mark.parametrize(
    ("ci", "name"),
    [
        ("github", ".github/pull_request_template.md"),
        ("gitlab", ".gitlab/merge_request_templates/Default.md"),
    ],
)
def test_a_pull_request_asks_for_the_table_of_the_gate(generate, ci, name):
    root = generate(ci=ci)
    text = (root / name).read_text(encoding="utf-8")
    gate = (root / "src/my_model/goals/gate.py").read_text(encoding="utf-8")
    (head,) = re.findall(r'"(\| target .*?\|)"', gate)
    assert head in text
    assert head in (REPO / ".github/pull_request_template.md").read_text(encoding="utf-8")
    for command in re.findall(r"`make ([a-z ]+)`", text):
        assert all(
            f"\n{target}:" in (root / "Makefile").read_text("utf-8") for target in command.split()
        )


@pytest.mark.parametrize("house", ["template", "project"])
def test_editors_and_containers_agree_with_the_tools(generate, house):
    root = REPO if house == "template" else generate(python_version="3.12")
    made = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    rules = (root / ".editorconfig").read_text(encoding="utf-8")
    assert f"max_line_length = {made['tool']['ruff']['line-length']}" in rules
    container = json.loads((root / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    oldest = made["project"]["requires-python"].removeprefix(">=")
    assert container["image"].endswith(f":{oldest}")


def misspelt(root: Path, *names: str) -> list[str]:
    done = subprocess.run(
        [tool("codespell"), *names], cwd=root, capture_output=True, text=True
    )  # fmt: skip
    return re.findall(r"(?m)^\S+:\d+: (\w+) ==>", done.stdout)


def test_words_are_spelt_right_and_answers_may_be_in_any_language(generate, tmp_path):
    assert misspelt(REPO) == []
    root = generate(business_goal="Was ist oder wird ein Kunde, der als nd gilt", entity="Kunde")
    lint = (root / "Makefile").read_text(encoding="utf-8")
    (files,) = re.findall(r"uv run codespell (.*)", lint)
    for paths in (["README.md", "AGENTS.md", "docs", "src"], files.split()):
        assert misspelt(root, *paths) == []
    (tmp_path / "wrong.md").write_text("A sentance.\n", encoding="utf-8")
    assert misspelt(root, str(tmp_path / "wrong.md")) == ["sentance"]
    hooks = yaml.safe_load((root / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]
    assert "uv run codespell" in [hook["entry"] for hook in hooks["hooks"]]


def test_pull_requests_to_the_template_run_all_and_main_publishes_the_site():
    workflow = yaml.safe_load((REPO / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert "pull_request" in workflow[True]  # YAML 1.1 reads `on` so
    steps = {
        job: [step.get("run", "") for step in workflow["jobs"][job]["steps"]]
        for job in workflow["jobs"]
    }
    assert ".ci/run" in steps["test"]
    assert "make docs" in steps["site"]
    (publish,) = (
        step for step in workflow["jobs"]["site"]["steps"] if "gh-pages" in step.get("run", "")
    )
    assert publish["if"] == "github.event_name == 'push'"


def imports_of(source: str, package: str) -> set[tuple[str, str]]:
    """What a text imports of a package, as (module, name), the code in its strings included; none of what is no Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set()
    pairs: set[tuple[str, str]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == package:
            module = str(node.module).partition(".")[2]
            pairs |= {(module, alias.name) for alias in node.names if alias.name != "*"}
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and package in node.value
        ):
            pairs |= imports_of(node.value, package) if node.value != source else set()
    return pairs


def test_whatever_tests_and_benchmarks_import_of_a_project_is_there():
    """They run for minutes before they would say so, and some of them only at their turn."""
    package, kinds = REPO / "template/project/{{ package_path }}", REPO / "template/problems"
    missing, count = [], 0
    for path in [*REPO.glob("tests/**/*.py"), *REPO.glob("benchmarks/*.py")]:
        for module, name in imports_of(path.read_text(encoding="utf-8"), "my_model"):
            parts = module.split(".") if module else []
            is_kind = parts[:1] == ["problem"]
            roots = [kind.joinpath(*parts[1:]) for kind in kinds.iterdir()] if is_kind else []
            roots = roots or [package.joinpath(*parts)]
            files = [f for root in roots for f in (root.with_suffix(".py"), root / "__init__.py")]
            text = "".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
            if not text or any((root / f"{name}.py").is_file() for root in roots):
                continue  # a module, or one that the test itself writes
            count += 1
            bound = rf"(?m)^(?:def |class |async def |(?:from .*)?import .*)?(?:\w+, )*{name}\b"
            if not re.search(bound, text):
                missing.append(f"{path.relative_to(REPO)}: {module}.{name}")
    assert count > 40
    assert missing == []


def test_all_that_takes_turns_meets_each_kind_of_answer(monkeypatch):
    """Periods that share a factor would keep a test to the same kinds for ever."""

    class Item:
        """A test that is run at one of so many turns."""

        def __init__(self, turn: int) -> None:
            self.turn = turn

        def get_closest_marker(self, _: str) -> Any:
            return SimpleNamespace(args=(self.turn,))

    met = set()
    for turn in range(2 * len(slow.TYPES) * slow.TURNS):
        monkeypatch.setattr(slow, "TURN", turn)
        (kind,) = slow.by_turns(slow.TYPES)
        (second,) = slow.by_turns(["text", "image"], commits=len(slow.TYPES) * slow.TURNS)
        met |= {(kind, n, second) for n in range(slow.TURNS) if slow._at_its_turn(Item(n))}
    assert len(met) == len(slow.TYPES) * slow.TURNS * 2
