"""`run`, `score` and `tune` on a real Ray cluster of two nodes, whose workers are killed at work."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .conftest import ENV, Project

pytestmark = pytest.mark.at_turn(0)
START_SECONDS = 120
ROWS = "COPY (SELECT r.* FROM 'data/raw/events.parquet' AS r, range({copies})) TO '{file}'"


class Cluster:
    """Two nodes of one processor each, in process groups of their own."""

    def __init__(self, project: Project, folder: Path, logs: Path) -> None:
        self.folder, self.logs, self.programs = folder, logs, project.path / ".venv/bin"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        port = self.address.partition(":")[2]
        head = ("--head", "--port", port, "--temp-dir", str(folder), "--include-dashboard=false")
        self.nodes = [self._start("head", *head), self._start("node", "--address", self.address)]

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = self.logs / name
        command = [str(self.programs / "ray"), "start", "--num-cpus", "1", "--block", *arguments]
        with log.open("wb") as output:
            node = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True,
                env={**ENV, "RAY_USAGE_STATS_ENABLED": "0"},
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in log.read_text():
            assert node.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        return node

    def at_work(self, function: str) -> list[int]:
        """The processes of workers that run a function just now, begun by these nodes."""
        pids = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (path / "cmdline").read_bytes().startswith(f"ray::{function}".encode()):
                    parent = re.search(r"^PPid:\s+(\d+)", (path / "status").read_text(), re.M)
                    above = Path("/proc", parent[1], "cmdline").read_bytes() if parent else b""
                    pids += [int(path.name)] * (str(self.folder).encode() in above)
        return pids

    def kill_at_work(self, function: str) -> None:
        """Kill a worker in the middle of a function."""
        deadline = time.monotonic() + START_SECONDS
        while not (pids := self.at_work(function)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(pids[0], signal.SIGKILL)

    def stop(self) -> None:
        for node in self.nodes:
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        for pid in self.at_work(""):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster(ran, tmp_path_factory) -> Iterator[Cluster]:
    ran.call("uv", "sync", "--quiet", "--group", "cluster", "--group", "tuning")
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # the names of sockets in it have to be short
    nodes = Cluster(ran, folder, tmp_path_factory.mktemp("nodes"))
    yield nodes
    nodes.stop()
    shutil.rmtree(folder, ignore_errors=True)


def python(project: Project, *arguments: str, code: int = 0) -> str:
    """The output of the project's Python, without `uv run`, which would take the groups out again."""
    done = project.call(str(project.path / ".venv/bin/python"), *arguments, code=code)
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def set_cluster(project: Project, **keys: object) -> None:
    text = project.read("params.yaml")
    block = re.search(r"(?ms)^cluster:.*?(?=^\w|\Z)", text)
    assert block is not None
    changed = block[0]
    for key, value in keys.items():
        value = "null" if value is None else value
        changed = re.sub(rf"(?m)^  {key}: \S+", f"  {key}: {value}", changed)
    (project.path / "params.yaml").write_text(text.replace(block[0], changed))


def metrics(project: Project) -> dict[str, float]:
    rows = json.loads(project.read("reports/candidates.json"))["rows"]
    return {row["name"]: row["metric"] for row in rows}


def test_a_cluster_trains_the_same_model_and_one_grown_together_is_as_good(ran, cluster):
    model = ran.path / "models/model.onnx"
    before, alone = model.read_bytes(), metrics(ran)
    set_cluster(ran, address=cluster.address)
    ran.call("uv", "run", "--quiet", "--group", "cluster", "my-model", "run")  # nothing to do
    model.unlink()
    python(ran, "-m", "my_model", "train")
    assert (model.read_bytes(), metrics(ran)) == (before, alone)
    if not any("lightgbm" in name or "boost" in name for name in alone):
        return  # no candidate of this kind has trees that are boosted
    set_cluster(ran, boosting_workers=2)
    trained = subprocess.Popen(
        [ran.path / ".venv/bin/python", "-m", "my_model", "train"], cwd=ran.path, env=ENV,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    cluster.kill_at_work("Grower.fit")
    assert trained.wait() == 0
    together, after = metrics(ran), model.read_bytes()
    assert together != alone  # whatever ships
    for name in alone:
        assert together[name] == pytest.approx(alone[name], abs=0.005, rel=0.005), name
    python(ran, "-m", "my_model", "train")
    assert model.read_bytes() == after  # whoever was lost, and another time
    set_cluster(ran, boosting_workers=1, address=None)


def test_no_row_is_lost_with_a_worker_or_a_machine(ran, cluster, tmp_path):
    rows = tmp_path / "rows.parquet"
    query = ROWS.format(copies=20, file=rows)
    python(ran, "-c", f"import duckdb; duckdb.execute({query!r})")
    score = ("-m", "my_model", "score", str(rows), "--ungated", "--rows", "2000", "--out")
    set_cluster(ran, address=None)
    python(ran, *score, "alone.parquet")
    set_cluster(ran, address=cluster.address)
    for lost in ("worker", "machine"):
        command = [ran.path / ".venv/bin/python", *score, f"{lost}.parquet"]
        with subprocess.Popen(command, cwd=ran.path, env=ENV, stderr=subprocess.DEVNULL) as scored:
            if lost == "worker":
                cluster.kill_at_work("_call")
            else:
                cluster.kill_at_work("_call")
                os.killpg(cluster.nodes[1].pid, signal.SIGKILL)
            assert scored.wait() == 0
        assert (ran.path / f"{lost}.parquet").read_bytes() == (
            ran.path / "alone.parquet"
        ).read_bytes()
    set_cluster(ran, workers=64)
    output = python(ran, *score, "none.parquet", code=2)
    assert output.startswith("error: params.yaml:")
    assert output.count("\n") == 1
    assert "cluster.workers: 64 are asked for" in output
    assert not (ran.path / "none.parquet").exists()


def test_trials_are_sought_by_workers_and_no_cluster_is_an_error(ran, cluster):
    set_cluster(ran, address=cluster.address, workers=1)
    if "tune" not in ran.left_out():
        before = ran.read("params.yaml")
        ran.call("uv", "sync", "--quiet", "--group", "cluster", "--group", "tuning")
        python(ran, "-m", "my_model", "tune", "--trials", "3")
        report = json.loads(ran.read("reports/tuning.json"))["candidates"]
        assert {row["trials"] for row in report.values()} == {3}
        (ran.path / "params.yaml").write_text(before)
    cluster.stop()
    output = python(ran, "-m", "my_model", "train", code=2)
    assert output.startswith("error: params.yaml:")
    assert output.count("\n") == 1
    assert f"no cluster answers at {cluster.address}" in output
