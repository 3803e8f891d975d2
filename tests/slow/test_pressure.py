"""The service on a bad day of its machine: a full disk, too few descriptors. Answers go on, figures are true."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .test_project import Copy
from .test_serving import Server, copy, logged, metric, rows, serve, wait_for

__all__ = ["copy", "rows", "serve"]  # fixtures
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
CALLS, ROWS = 120, 1000
MAX_GROWTH_MB = 110  # three queues' bounds, and what the allocator keeps
QUIET = {
    "serving.log.flush_seconds": 0.05, "serving.log.rotate_seconds": 2, "scoring.review_margin": 0.0
}  # fmt: skip


def memory(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def figures(server: Server) -> tuple[float, float]:
    text = server.get("/metrics")[1]
    return metric(text, "serving_log_waiting"), metric(text, "serving_log_lost")


@contextmanager
def small_disk(project: Copy) -> Iterator[Callable[[Server], None]]:
    """A disk of 3 MB under monitoring/, which gets room when the server is given to what this yields."""
    mount_point = str(project.path / "monitoring")
    shutil.rmtree(mount_point, ignore_errors=True)
    Path(mount_point).mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", mount_point]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    grown = ["mount", "-o", "remount,size=900m", mount_point]
    try:
        yield lambda _: subprocess.run(grown, check=True)  # type: ignore[func-returns-value]
    finally:
        backup = project.path / "kept"
        shutil.copytree(mount_point, backup)
        subprocess.run(["umount", "--lazy", mount_point], check=True)
        shutil.copytree(backup, mount_point, dirs_exist_ok=True)


@contextmanager
def small_files(project: Copy) -> Iterator[Callable[[Server], None]]:
    """No file may grow beyond 300 kB, until the server may again."""

    def grow(server: Server) -> None:
        unlimited = resource.RLIM_INFINITY
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))

    yield grow


@pytest.mark.parametrize("pressure", [small_disk, small_files], ids=["disk", "files"])
def test_a_full_disk_loses_only_what_is_counted(serve, copy, rows, pressure):
    with pressure(copy) as give_room:
        server = serve(settings=QUIET)
        if pressure is small_files:
            limits = (300_000, resource.RLIM_INFINITY)
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
        server.predict(rows[0])
        sent, sizes, opened = 1, [], []
        for _ in range(CALLS):
            status, _ = server.ask("POST", "/predict", rows[:ROWS])
            assert status == 200
            sent += ROWS
            sizes.append(memory(server))
            opened.append(descriptors(server))
        wait_for(lambda: sum(figures(server)) > 0.5 * sent)
        waiting, lost = figures(server)
        assert waiting > 1000
        assert lost > 1000
        assert max(sizes) - sizes[0] < MAX_GROWTH_MB, sizes
        assert max(opened) <= opened[0] + 8, opened
        give_room(server)
        wait_for(lambda: figures(server)[0] == 0)
        lost = figures(server)[1]
        sent += len(json.loads(server.ask("POST", "/predict", rows[:10])[1]))
        server.stop()
        logged_ids = [id for id, _ in logged(copy)]
        assert len(logged_ids) == len(set(logged_ids))
        assert len(logged_ids) + lost == sent


def test_too_few_descriptors_stop_no_answer_on_an_open_connection(serve, copy, rows):
    server = serve(settings=QUIET)
    connection = server.open_connection()
    limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)

    def ask() -> str:
        connection.request("POST", "/predict", json.dumps(rows[0]))
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        return str(json.loads(content)["id"])

    sent = [ask()]
    # As many as it has: neither a file, nor a process, nor the router's state can be opened
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    log = copy.path / "serve.log"
    sent += [ask() for _ in range(50)]
    wait_for(lambda: "log not written" in log.read_text() or "out of reach" in log.read_text())
    sent += [ask() for _ in range(50)]
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
    wait_for(lambda: figures(server) == (0, 0))
    sent += [ask() for _ in range(50)]
    wait_for(lambda: list((copy.path / "monitoring/predictions").glob("*.parquet")))  # it went on
    connection.close()
    server.stop()
    assert {id for id, _ in logged(copy)} >= set(sent)
