"""The queue in the real Label Studio and its answers back: what it takes, what it exports, and that nothing comes twice."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import ENV, await_answer
from .test_project import copy

__all__ = ["copy"]  # a fixture
pytestmark = [pytest.mark.at_turn(0), pytest.mark.of_types("binary", "multiclass", "regression")]
PROGRAM = "label-studio==1.23.0"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
WHO = "ann@example.org"
START_SECONDS = 240
ALONE = {
    "COLLECT_ANALYTICS": "False", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": "",
    "LATEST_VERSION_CHECK": "False", "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
}  # fmt: skip


class LabelStudio:
    """Label Studio's interface for programs."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"

    def ask(self, path: str, content: Any = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        headers = {"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory) -> Iterator[LabelStudio]:
    folder = tmp_path_factory.mktemp("label-studio")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = ["uvx", "--quiet", "--python", sys.executable, "--from", PROGRAM, "label-studio", "start"]  # fmt: skip
    command += ["--no-browser", "--data-dir", str(folder / "data"), "--port", str(port)]
    command += ["--username", WHO, "--password", "for a test only", "--user-token", TOKEN]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=ENV | ALONE, stdout=log, stderr=log, start_new_session=True
        )
    server = LabelStudio(port)
    try:
        await_answer(lambda: server.ask("/api/projects/"), process, folder / "log", START_SECONDS)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def test_a_queue_goes_through_label_studio_and_comes_back_as_votes(
    copy, label_studio, problem_type
):
    copy.cli("label", "next", "6")
    copy.cli("label", "export", "tasks.json")
    created = label_studio.ask(
        "/api/projects/", {"title": problem_type, "label_config": copy.read("tasks.xml")}
    )
    number = created["id"]
    taken = label_studio.ask(f"/api/projects/{number}/import", json.loads(copy.read("tasks.json")))
    assert taken["task_count"] == 6
    assert taken["prediction_count"] == sum("predictions" in t for t in json.loads(copy.read("tasks.json")))  # fmt: skip

    tasks = label_studio.ask(f"/api/tasks?project={number}&fields=all")["tasks"]
    control = label_studio.ask(f"/api/projects/{number}")["parsed_label_config"]["label"]
    answered = {}
    for i, task in enumerate(tasks):
        value = {"number": i + 0.5}
        if control["type"] == "Choices":
            value = {"choices": [control["labels"][i % len(control["labels"])]]}
        result = {"from_name": "label", "to_name": "row", "type": next(iter(value)), "value": value}
        content = {"result": [result], "lead_time": 1.5, "was_cancelled": i == 5}
        label_studio.ask(f"/api/tasks/{task['id']}/annotations/", content)
        (label,) = value["choices"] if "choices" in value else [value["number"]]
        answered[task["data"]["row_id"]] = str(label)
    skipped = tasks[5]["data"]["row_id"]

    exported = label_studio.ask(f"/api/projects/{number}/export?exportType=JSON")
    (copy.path / "answers.json").write_text(json.dumps(exported))
    first = copy.cli("label", "import", "answers.json").stdout
    assert "5 votes added" in first
    votes = [json.loads(line) for line in copy.read("labels/votes.jsonl").splitlines()]
    del answered[skipped]
    assert {vote["id"]: vote["label"] for vote in votes} == answered
    assert {vote["who"] for vote in votes} == {"label-studio 1"}  # the export has no names
    assert {vote["seconds"] for vote in votes} == {1.5}
    assert "0 votes added, 5 were there" in copy.cli("label", "import", "answers.json").stdout
    copy.cli("run")
    labels = json.loads(copy.read("reports/label.json"))
    assert (labels["votes"], labels["agreed_rows"]) == (5, 5)
