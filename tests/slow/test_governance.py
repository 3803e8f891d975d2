"""What those who sign ask for, as a team lives it: a bill of materials, an incident, the dossier, the end and its undoing."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from .conftest import ENV, Project

pytestmark = pytest.mark.at_turn(0)
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(str(error) if error else 0)
"""


@pytest.fixture(scope="module")
def promoted(ran) -> Project:
    """The project that ran, whatever its gate said: its model is in production."""
    ran.git("add", ".")
    gate = json.loads(ran.read("reports/gate.json"))
    if not gate["passed"]:
        text = json.dumps(gate | {"passed": True})
        (ran.path / "reports/gate.json").write_text(text, encoding="utf-8")
    ran.cli("promote", "--by", "Grace")
    ran.git("add", ".")
    ran.git("commit", "-qm", "Promote a model")
    return ran


@pytest.fixture(scope="module")
def address(promoted) -> Iterator[str]:
    """Where two workers of the service answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [promoted.path / ".venv/bin/my-model", "serve", "--port", str(port), "--workers", "2"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=promoted.path, env=ENV, stdout=quiet, stderr=quiet
    ) as process:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
        while ask(f"{url}/v2/health/live")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield url
        process.terminate()


def ask(url: str, body: bytes | None = None) -> tuple[int, str]:
    """The status of an answer, and its text; 0 while nothing answers."""
    try:
        with urllib.request.urlopen(url, body, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def statuses(url: str, until: int) -> set[int]:
    """The statuses of forty requests in a row, once there is no other, within five seconds."""
    deadline = time.monotonic() + 5
    while (codes := {ask(f"{url}/predict", b"{}")[0] for _ in range(40)}) != {until}:
        if time.monotonic() > deadline:
            break
    return codes


def test_the_bill_of_materials_is_valid_and_names_each_package(promoted):
    assert (promoted.path / "reports/bom.json").is_file()  # by `promote`
    promoted.cli("bom")
    text = promoted.read("reports/bom.json")
    done = subprocess.run(
        ["uv", "run", "--quiet", "--no-project", "--with", "cyclonedx-python-lib[json-validation]>=11,<12",
         "python", "-c", VALIDATE], input=text, capture_output=True, text=True, env=ENV,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    packages = {part["name"] for part in json.loads(text)["components"] if "scope" in part}
    locked = set(re.findall(r'(?m)^\[\[package\]\]\nname = "(.*)"', promoted.read("uv.lock")))
    assert packages == locked - {"my-model"}
    promoted.cli("bom")
    assert promoted.read("reports/bom.json") == text


def test_an_incident_is_opened_closed_and_rehearsed(promoted):
    text = promoted.cli("incident", "open", "--what", "all alike", "--alert", "ModelDown").stdout
    assert "docs/runbook.md#modeldown" in text
    (incident,) = re.findall(r"incident (\w+) is open", text)
    promoted.cli("incident", "close", incident, "--cause", "a join", "--remedy", "a test")
    error = promoted.cli("incident", "close", incident, "--cause", "c", "--remedy", "r", code=2)
    assert error.stderr.startswith(f"error: {incident}: is closed already")
    assert "(drill) ModelDown" in promoted.cli("incident", "drill").stdout
    assert promoted.read("governance/incidents.jsonl").count('"drill": true') == 1


def test_the_dossier_holds_each_section_and_every_decision(promoted):
    output = promoted.cli("design", "dossier").stdout
    page = promoted.read("build/dossier/dossier.html")
    assert re.findall(r'<h2 id="s(\d)">', page)[:9] == [*"123456789"]
    pages = (promoted.path / "docs/design").glob("*.md")
    ids = [id_ for path in pages for id_ in re.findall(r"(?m)^### (\d+\.\d+) ", path.read_text())]
    assert [id_ for id_ in ids if f"<h3>{id_} " not in page] == []
    assert "Grace" in page
    assert "all alike" in page
    assert "not written: governance/standards.md" in output
    assert "reports/bom.json" in page


def test_a_retired_system_answers_410_in_each_worker_and_comes_back(promoted, address):
    (before,) = {ask(f"{address}/predict", b"{}")[0] for _ in range(5)}
    assert before in (200, 422)
    promoted.cli("retire", "--reason", "The next one takes over", "--by", "Grace")
    assert statuses(address, 410) == {410}
    assert "by Grace: The next one takes over" in ask(f"{address}/predict", b"{}")[1]
    assert ask(f"{address}/v2/health/live")[0] == 200
    refused = promoted.cli("score", "data/raw/events.parquet", code=2).stderr
    assert refused.startswith("error: models/retired.json: retired on ")
    assert refused.count("\n") == 1
    assert "retired on" in promoted.cli("run", code=None).stdout
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=promoted.path / "models/retired"
    )
    assert done.returncode == 0
    assert "models/retired.json" in promoted.git("status", "--porcelain", "--untracked-files=all")
    promoted.cli("retire", "--undo")
    assert statuses(address, before) == {before}
    assert "Retired on" not in promoted.read("reports/model_card.md")
