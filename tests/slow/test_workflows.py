"""Every step of each provider's file, as the provider runs it: a fresh clone, `CI=true`, a home with nothing in it.

Real are the shells, the package registry, git, DVC and the project; a bare repository takes what is pushed, a local
server the requests to merge, and `docker` only writes down what it was asked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ..providers import FILES, Step, steps
from .conftest import ALL_PARTS, ENV, Project, by_turns
from .test_updates import FUTURE, NOW, fresh, history  # noqa: F401

TOKEN = "secret"
# What each provider sets, of what the steps and the project read
PROVIDER_VARIABLES = {
    "github": {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "us/model", "GITHUB_REF_NAME": "main",
               "GITHUB_SERVER_URL": "https://github.com"},
    "gitlab": {"GITLAB_CI": "true", "CI_PROJECT_URL": "https://gitlab.com/us/model", "CI_PROJECT_ID": "7",
               "CI_DEFAULT_BRANCH": "main"},
    "circleci": {"CIRCLECI": "true", "CIRCLE_PROJECT_USERNAME": "us", "CIRCLE_PROJECT_REPONAME": "model",
                 "CIRCLE_BRANCH": "main"},
}  # fmt: skip
PUSHED_TO = {
    "github": "https://github.com/us/model",
    "gitlab": "https://gitlab.com/us/model.git",
    "circleci": "https://github.com/us/model",
}
# `uv run pytest` is all of the project's tests, which test_project.py runs in a project too: here those
# of its settings, documents and layers. WHOLE=1 takes all
# All providers take the same steps, as the fast tests show; GitHub's runner trains and proposes a conflict
ONE_PROVIDER = by_turns([*FILES])
TWO_PROVIDERS = ["github", *by_turns([ci for ci in FILES if ci != "github"])]
TESTS = "" if os.environ.get("WHOLE") else "-k 'params or pages or layers'"


class Forge:
    """Takes requests to merge."""

    def __init__(self) -> None:
        self.requests: list[dict[str, str]] = []
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                requests.append(json.loads(body))
                self.send_response(201)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def forge() -> Iterator[Forge]:
    new_forge = Forge()
    yield new_forge
    new_forge.server.shutdown()


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """The programs of a runner: a Python with pip and what the steps install into it, git, make, a `docker`."""
    root = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", str(root / "python")], check=True)
    docker = root / "python/bin/docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >> {root}/docker.txt\necho container\n', "utf-8")
    docker.chmod(0o755)
    # setup-uv on GitHub; the others install it by their first step
    subprocess.run([root / "python/bin/pip", "install", "--quiet", "uv>=0.11,<1"], check=True)
    return root


class Runner:
    """A machine of a provider with a clone of the origin."""

    def __init__(
        self, image: Path, origin: Path, root: Path, ci: str, forge: Forge, token: str = TOKEN
    ) -> None:
        self.secrets = {"secrets.PROPOSE_TOKEN": token, "github.token": "github's own"}
        self.ci, self.root, self.forge, self.origin = ci, root, forge, origin
        self.home = root / "home"
        self.home.mkdir(parents=True)
        self.path = root / "clone/project"
        prefixes = ("PIP_", "UV_", "SSL_", "REQUESTS_", "CURL_")
        self.env = {key: value for key, value in ENV.items() if key.startswith(prefixes)}
        self.env |= {
            "CI": "true", "HOME": str(self.home), "LANG": "C.UTF-8", "TERM": "dumb",
            "PATH": f"{image}/python/bin:/usr/local/bin:/usr/bin:/bin",
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or str(Path("~/.cache/uv").expanduser()),
            "PYTEST_ADDOPTS": TESTS, "RUNNER_TEMP": str(root),
            "GITHUB_API_URL": forge.address, "CI_API_V4_URL": forge.address,
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{origin}.insteadOf",
            "GIT_CONFIG_VALUE_0": PUSHED_TO[ci], "GITHUB_STEP_SUMMARY": str(root / "summary.md"),
            **PROVIDER_VARIABLES[ci],
        }  # fmt: skip
        if ci != "github":
            self.env["PROPOSE_TOKEN"] = TOKEN  # a variable of the provider's settings
        subprocess.run(["git", "clone", "--quiet", origin, self.path], check=True, env=self.env)

    def run(self, job: str) -> tuple[int, str]:
        """Exit code of the first step that failed, or 0; and the output of all steps."""
        code, output = 0, ""
        for step in steps(self.path, self.ci, job):
            if code and not step.always:
                continue
            done = subprocess.run(
                ["bash", "-c", step.command], cwd=self.path, env=self._environment(step),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            code, output = code or done.returncode, f"{output}$ {step.command}\n{done.stdout}\n"
        assert "Traceback" not in output, output[-5000:]
        return code, output

    def _environment(self, step: Step) -> dict[str, str]:
        variables = {
            key: re.sub(r"\$\{\{ (\S+) \}\}", lambda match: self.secrets[match[1]], value)
            for key, value in step.environment.items()
        }
        if "UV_CACHE_DIR" in variables:  # the provider keeps it from job to job
            variables["UV_CACHE_DIR"] = self.env["UV_CACHE_DIR"]
        return {**self.env, **variables}

    def pushed(self) -> list[str]:
        command = ["git", "-C", str(self.origin), "branch", "--format", "%(refname:short)"]
        return subprocess.check_output(command, text=True).split()


def bare(project: Project, path: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", "--bare", project.path, path], check=True)
    return path


@pytest.fixture(scope="module")
def promoted(template, originals, tmp_path_factory) -> dict[str, Project]:
    """A project a provider: run, promoted, pushed to its remote, retrained on the same day, committed."""
    root = tmp_path_factory.mktemp("promoted")
    first = originals.copy("binary", root / "github/my-model", has_run=False)
    first.cli("run", "--set", "data.source.rows=6000")
    first.cli("promote")
    first.cli("design", "sync")
    projects = {"github": first}
    for ci in ("gitlab", "circleci"):
        folder = root / f"{ci}/my-model"
        shutil.copytree(
            first.path, folder, ignore=shutil.ignore_patterns(".venv", ".git", ".github")
        )
        plain = root / f"{ci}-plain"
        arguments = [
            "copy",
            "--defaults",
            "--quiet",
            "--data",
            f"ci={ci}",
            "--data",
            f"parts={ALL_PARTS}",
        ]
        arguments += [str(template), str(plain)]
        subprocess.run([sys.executable, "-m", "copier", *arguments], check=True, env=ENV)
        name = FILES[ci]
        (folder / name).parent.mkdir(exist_ok=True)
        page = "docs/design/5-monitoring-and-validation.md"  # it names the files of the provider
        for file_name in (name, page):
            shutil.copy2(plain / file_name, folder / file_name)
        projects[ci] = Project(folder)
        projects[ci].git("init", "--quiet", "--initial-branch", "main")
    for project in projects.values():
        project.git("add", ".")
        project.git("commit", "--quiet", "--message", "Promote a model")
    shutil.rmtree(first.path / ".venv")
    return projects


def adopted(project: Project) -> None:
    """As after `adopt`: the source is a file of the team, which no runner has."""
    params = project.path / "params.yaml"
    text = params.read_text(encoding="utf-8").replace("kind: sample", "kind: files", 1)
    params.write_text(text.replace("paths: []", "paths: [../ours.csv]", 1), encoding="utf-8")
    project.cli("design", "sync")  # as the check asks for after a changed setting
    shutil.rmtree(project.path / ".venv")
    project.git("commit", "--quiet", "--all", "--message", "Adopt our data")


@pytest.mark.parametrize("ci", ONE_PROVIDER)
def test_the_check_passes(image, promoted, forge, tmp_path, ci):
    """In a clone of a promoted project whose remote is a folder elsewhere; on GitLab, of one that adopted a file."""
    clone = Project(tmp_path / "team")
    clone.path.mkdir()
    clone.git("clone", "--quiet", str(promoted[ci].path), ".")
    if ci == "gitlab":
        adopted(clone)
    runner = Runner(image, bare(clone, tmp_path / "origin.git"), tmp_path / "runner", ci, forge)
    code, output = runner.run("check")
    assert code == 0, output[-6000:]
    assert "Gate: passed" in output
    summary = (tmp_path / "runner/summary.md").read_text("utf-8") if ci == "github" else output
    assert "| target |" in summary


def test_the_image_is_built_and_started(image, promoted, forge, tmp_path):
    origin = bare(promoted["github"], tmp_path / "origin.git")
    runner = Runner(image, origin, tmp_path / "runner", "github", forge)
    code, output = runner.run("image")
    assert code == 0, output
    docker_calls = (image / "docker.txt").read_text(encoding="utf-8")
    assert "build --file ops/Dockerfile" in docker_calls
    assert "run --detach --name service" in docker_calls


@pytest.mark.parametrize("ci", ONE_PROVIDER)
def test_a_remote_that_no_runner_has_is_refused_early(image, promoted, forge, tmp_path, ci):
    origin = bare(promoted[ci], tmp_path / "origin.git")
    runner = Runner(image, origin, tmp_path / "runner", ci, forge)
    code, output = runner.run("retrain")
    assert code == 2
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "is a folder that is not on this machine" in line
    assert "Continuous integration in README.md" in line
    assert "dvc pull\n$" not in output
    assert forge.requests == []


@pytest.mark.parametrize("ci", TWO_PROVIDERS)
def test_a_retraining_is_proposed_once_and_only_when_there_was_one(
    image, promoted, forge, tmp_path, ci
):
    """GitHub's runner trains; on the others a training of today is committed, and none is due."""
    project = Project(tmp_path / "team/my-model")
    shutil.copytree(promoted[ci].path, project.path)
    project.call("uv", "sync", "--quiet")
    remote = tmp_path / "remote"
    project.dvc("remote", "modify", "storage", "url", str(remote))
    project.dvc("push", "--quiet")
    if ci == "github":  # other rows than those that are in production
        text = project.read("params.yaml")
        changed = text.replace("rows: 6000", "rows: 7000", 1)
        (project.path / "params.yaml").write_text(changed, encoding="utf-8")
    else:
        project.cli("retrain")
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "Move the remote")
    shutil.rmtree(project.path / ".venv")
    origin = bare(project, tmp_path / "origin.git")
    stored = len(list(remote.rglob("*")))
    runner = Runner(image, origin, tmp_path / "runner", ci, forge)
    code, output = runner.run("retrain")
    assert code == 0, output[-6000:]
    if ci != "github":
        assert "not due" in output
        assert "nothing was trained" in output
        assert (runner.pushed(), forge.requests) == (["main"], [])
        return
    assert "schedule: weekly, never yet" in output
    (branch,) = [name for name in runner.pushed() if name != "main"]
    (request,) = forge.requests
    assert (request["head"], request["base"]) == (branch, "main")
    assert "# Model card" in request["body"]
    assert len(list(remote.rglob("*"))) > stored  # data and model are there for whoever reviews it


@pytest.mark.parametrize("ci", ONE_PROVIDER)
def test_the_newest_template_is_proposed(image, history, forge, tmp_path, ci):  # noqa: F811
    project = fresh(history, tmp_path / "team/my-model", NOW, ci=ci)
    if ci == "github":  # a target of the team's own, on a line that the newer release changed
        params = project.path / "params.yaml"
        text = re.sub(
            r"(?m)^(    metric: )\S+ ", r"\g<1>0.123 ", params.read_text("utf-8"), count=1
        )
        params.write_text(text, encoding="utf-8")
        project.git("commit", "--quiet", "--all", "--message", "Promise more")
    origin = bare(project, tmp_path / "origin.git")
    runner = Runner(image, origin, tmp_path / "runner", ci, forge)
    code, output = runner.run("template")
    assert code == 0, output[-6000:]
    assert f"template/{FUTURE} is proposed" in output
    assert f"template/{FUTURE}" in runner.pushed()
    ((*_, body),) = [tuple(request.values()) for request in forge.requests]
    assert ("- `params.yaml`" in body) == (ci == "github")  # a conflict, at which CI will stop
    subprocess.run(["git", "switch", "--quiet", "main"], cwd=runner.path, check=True)
    code, output = runner.run("template")
    assert (code, len(forge.requests)) == (0, 1)
    assert "is there already" in output  # a proposal that is open is left alone


@pytest.mark.at_turn(1)
def test_github_s_own_token_is_not_enough_for_a_changed_workflow(image, history, forge, tmp_path):  # noqa: F811
    project = fresh(history, tmp_path / "team/my-model", NOW)
    later = Project(tmp_path / "later")
    shutil.copytree(history, later.path)
    # As if this release had changed a workflow since the project was made
    workflow = later.path / "template/project/.github/workflows/ci.yml.jinja"
    workflow.write_text(
        workflow.read_text("utf-8").replace("name: CI\n", "name: Checks\n"), "utf-8"
    )
    later.git("commit", "--quiet", "--all", "--message", "rename")
    later.git("tag", "v92.0.0")
    answers = project.path / ".copier-answers.yml"
    answers.write_text(answers.read_text("utf-8").replace(str(history), str(later.path)), "utf-8")
    project.git("commit", "--quiet", "--all", "--message", "moved")
    origin = bare(project, tmp_path / "origin.git")
    runner = Runner(image, origin, tmp_path / "runner", "github", forge, token="")
    code, output = runner.run("template")
    assert code == 2
    assert (
        "changes workflows, which only a token of your own may: set the secret PROPOSE_TOKEN"
        in output
    )
    assert (runner.pushed(), forge.requests) == (["main"], [])
