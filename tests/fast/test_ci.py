"""Continuous integration for each provider: the official schema, the linters, the same steps."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from ..hooks import local
from ..providers import FILES, JOBS, lines, steps
from .conftest import REPO, choices, tool

SCHEMAS = {
    "github": "vendor.github-workflows",
    "gitlab": "vendor.gitlab-ci",
    "circleci": "vendor.circle-ci",
}
GIT = ["git", "-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "commit.gpgsign=false"]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def workflows(root: Path) -> list[Path]:
    return sorted((root / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("ci", FILES)
def test_it_is_what_the_provider_s_own_schema_asks_for(generate, ci):
    root = generate(ci=ci)
    done = run(
        tool("check-jsonschema"), "--builtin-schema", SCHEMAS[ci], FILES[ci], cwd=root
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    other_files = [name for provider, name in FILES.items() if provider != ci]
    assert [name for name in other_files if (root / name).exists()] == []


def test_none_has_no_file(generate):
    root = generate(ci="none")
    assert [n for n in [*FILES.values(), "renovate.json"] if (root / n).exists()] == []
    assert {*FILES, "none"} == set(choices("ci"))


def test_the_template_is_followed_where_there_is_a_provider(generate):
    root = generate()
    for schema, names in {
        "vendor.github-workflows": [str(path) for path in workflows(root)],
        "vendor.renovate": ["renovate.json"],
    }.items():
        done = run(tool("check-jsonschema"), "--builtin-schema", schema, *names, cwd=root)
        assert done.returncode == 0, done.stdout + done.stderr
    made = {ci: (generate(ci=ci) / "renovate.json").read_bytes() for ci in FILES}
    assert len(set(made.values())) == 1
    assert json.loads(made["github"])["enabledManagers"] == ["copier"]


@pytest.mark.parametrize("job", JOBS)
def test_each_provider_takes_the_same_steps(generate, job):
    made = {ci: lines(generate(ci=ci), ci, job) for ci in FILES}
    assert made["gitlab"] == made["circleci"] == made["github"]
    assert len(made["github"]) >= {"check": 8, "retrain": 5, "template": 2}[job]
    project_commands = [
        line for line in made["github"] if re.match(r"(uv run|uv sync|make) ?", line)
    ]
    # All but the two that take the sample, without the models that are not there
    assert len(project_commands) >= len(made["github"]) - 2 * (job == "check")


@pytest.mark.parametrize("ci", FILES)
def test_a_timer_runs_its_own_job_alone(generate, ci):
    root = generate(ci=ci)
    config = yaml.safe_load((root / FILES[ci]).read_text(encoding="utf-8"))
    if ci == "github":
        timed = [path.name for path in workflows(root) if "cron:" in path.read_text("utf-8")]
        assert timed == ["retrain.yml", "template.yml"]
    elif ci == "gitlab":
        rules = {job: config[job]["rules"][0]["if"] for job in JOBS}
        timer = '$CI_PIPELINE_SOURCE == "schedule"'
        assert rules.pop("check") == '$CI_PIPELINE_SOURCE != "schedule"'
        assert rules == {job: f'{timer} && $JOB == "{job}"' for job in rules}
        assert {"if": timer} in config["workflow"]["rules"]
    else:
        assert config["parameters"]["job"] == {
            "type": "enum",
            "enum": [*JOBS, "site"],
            "default": "check",
        }
        for job in JOBS:
            when = {"equal": [job, "<< pipeline.parameters.job >>"]}
            assert config["workflows"][job] == {"when": when, "jobs": [job]}
    readme = (root / "README.md").read_text(encoding="utf-8")
    part = readme.split("\n## Continuous integration\n")[1].split("\n## ")[0]
    for phrase in (
        "PROPOSE_TOKEN",
        "my-model remote",
        *({"gitlab": ["JOB"], "github": ["RETRAIN"]}.get(ci, [])),
    ):
        assert phrase in part, phrase


@pytest.mark.parametrize("ci", FILES)
def test_the_site_is_published_when_somebody_asks_for_it(generate, ci):
    root = generate(ci=ci)
    assert "make site" in "\n".join(step.command for step in steps(root, ci, "site"))
    config = yaml.safe_load((root / FILES[ci]).read_text(encoding="utf-8"))
    if ci == "github":
        assert config["jobs"]["site"]["if"] == "github.event_name == 'workflow_dispatch'"
    elif ci == "gitlab":
        assert config["site"]["rules"][0]["when"] == "manual"
        assert config["site"]["pages"] == {"publish": "build/site"}
    else:
        assert config["jobs"]["site"]["steps"][-1] == {"store_artifacts": {"path": "build/site"}}
        assert "site" in config["workflows"]


@pytest.mark.parametrize("data_remote", ["s3", "gs", "azure", "ssh"])
def test_the_remote_s_credentials_are_named(generate, data_remote):
    root = generate(data_remote=data_remote)
    job = yaml.safe_load((root / ".github/workflows/retrain.yml").read_text("utf-8"))["jobs"][
        "retrain"
    ]
    assert job["env"]
    lint(root)
    for ci in FILES:
        readme = (generate(ci=ci, data_remote=data_remote) / "README.md").read_text("utf-8")
        assert [name for name in job["env"] if f"`{name}`" not in readme] == []


@pytest.mark.parametrize("ci", FILES)
def test_it_runs_on_the_python_that_was_asked_for(generate, ci):
    text = (generate(ci=ci, python_version="3.12") / FILES[ci]).read_text(encoding="utf-8")
    assert re.search(r"(python:|python-version: \")3\.12\b", text)


def pinned(folder: Path) -> list[str]:
    """Actions that are not pinned by a full commit with its version in a comment."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in workflows(folder))
    used = re.findall(r"uses: (\S+.*)", text)
    assert used
    return [u for u in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", u)]


def lint(folder: Path) -> None:
    for command in ([tool("actionlint")], [tool("zizmor"), "--offline", "--pedantic", "--quiet"]):
        done = run(*command, *workflows(folder), cwd=folder)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_the_generated_workflows_are_safe(generate):
    root = generate()
    assert pinned(root) == []
    lint(root)
    for path in workflows(root):
        assert yaml.safe_load(path.read_text(encoding="utf-8"))["permissions"] == {}, path


def test_the_linters_see_what_is_wrong(generate, tmp_path):
    bad = tmp_path / ".github/workflows/bad.yml"
    bad.parent.mkdir(parents=True)
    bad.write_text(
        (generate() / FILES["github"]).read_text("utf-8").replace("@3d3c42e5", "@v7 #", 1)
    )
    assert len(pinned(tmp_path)) == 1
    bad.write_text(
        (generate() / FILES["github"]).read_text("utf-8").replace("github.ref", "gitub.ref")
    )
    with pytest.raises(AssertionError, match="gitub"):
        lint(tmp_path)


@pytest.fixture
def repository(generate, tmp_path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    for name in ("Makefile", ".pre-commit-config.yaml", "README.md"):
        (root / name).write_bytes((generate() / name).read_bytes())
    run(*GIT, "init", "--quiet", cwd=root)
    run(*GIT, "add", ".", cwd=root)
    return root


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "README.md",
            "a\n<<<<<<< before updating\nmine\n=======\ntheirs\n>>>>>>> after updating\n",
        ),
        ("params.yaml.rej", "a change that found no place\n"),
    ],
)
def test_a_conflict_gets_past_neither_ci_nor_the_hook(repository, name, text):
    accepted = run("make", "conflicts", cwd=repository)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    (repository / name).write_text(text)
    run(*GIT, "add", ".", cwd=repository)
    refused = run("make", "conflicts", cwd=repository)
    assert refused.returncode != 0
    assert name in refused.stdout
    config = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text("utf-8"))
    hooks = {hook["id"]: hook for hook in config["repos"][0]["hooks"]}
    if name.endswith(".rej"):
        assert re.search(hooks["rejected-changes"]["files"], name)
    else:
        assert re.search(hooks["conflict-markers"]["entry"], text, re.M)


def test_the_template_s_own_hook_knows_the_same_markers(generate):
    entries = [
        hook["entry"]
        for folder in (REPO, generate())
        for repo in yaml.safe_load((folder / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
        for hook in repo["hooks"]
        if hook["id"] == "conflict-markers"
    ]
    assert len(entries) == 2
    assert len(set(entries)) == 1


def test_every_rendering_passes_the_hooks_that_mend_text(distinct_files):
    hooks = [h for repo in local(REPO / "template/project/.pre-commit-config.yaml")["repos"] for h in repo["hooks"]]  # fmt: skip
    endings = {"check-toml": (".toml",), "check-yaml": (".yaml", ".yml", ".dvc")}
    programs = {hook["id"]: hook["entry"] for hook in hooks if hook["id"] == hook["name"]}
    assert len(programs) >= 6
    for name, command in programs.items():
        if name == "check-added-large-files":
            continue  # asks git; the slow tests do
        listed = [
            path for _, path, _ in distinct_files if path.name.endswith(endings.get(name, ""))
        ]
        done = run(command, *listed, cwd=REPO)
        assert done.returncode == 0, done.stdout[:3000] + done.stderr[:3000]
