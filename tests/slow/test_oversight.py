"""The stop switch, exclusions and appeals on a real service of two workers, under load."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .test_serving import Server, copy, rows, serve, wait_for

__all__ = ["copy", "rows", "serve"]  # fixtures
pytestmark = pytest.mark.at_turn(2)
THREADS = 6  # each with a connection of its own, which one worker answers
SECONDS_ALLOWED = 1.0
BY_STOP = "answered by the fallback: the model was stopped by its operator"
EXCLUDED = "excluded: a person decides"


@contextmanager
def traffic(server: Server, data: list[dict]) -> Iterator[list[tuple[float, bool]]]:
    """Ask without a pause; of each answer: when it was asked for, and whether it is the fallback's by a stop."""
    answered: list[tuple[float, bool]] = []
    failures: list[object] = []
    ending = threading.Event()

    def work(start: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        index = start
        while not ending.is_set():
            begun = time.monotonic()
            try:
                connection.request("POST", "/predict", json.dumps(data[index % len(data)]))
                response = connection.getresponse()
                content = json.loads(response.read())
                answered.append((begun, BY_STOP in content["flags"]))
            except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
                failures.append(error)
            index += THREADS

    workers = [threading.Thread(target=work, args=[number]) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    try:
        yield answered
    finally:
        ending.set()
        for worker in workers:
            worker.join()
    assert failures == []  # no request is lost


def wrk(server: Server, folder: Path, data: list[dict], seconds: int) -> subprocess.Popen[str]:
    """As many requests as the service takes, by a client in C."""
    bodies = ",\n".join(f"[==[{json.dumps(row)}]==]" for row in data[:200])
    script = folder / "load.lua"
    script.write_text(
        f"local rows = {{{bodies}}}\nlocal n = 0\nwrk.method = 'POST'\n"
        "request = function() n = n % #rows + 1 return wrk.format(nil, nil, nil, rows[n]) end\n"
    )
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(script), f"{server.url}/predict"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def seconds_to_obey(server: Server, data: list[dict], path: str, is_stopped: bool) -> float:
    """Seconds from a request until the last answer that does not obey it, of requests without a pause."""
    with traffic(server, data) as answered:
        wait_for(lambda: len(answered) > 20 * THREADS)
        start = time.monotonic()
        assert server.ask("POST", path, {"by": "test", "reason": "a test"})[0] == 200
        wait_for(lambda: time.monotonic() > start + 2 * SECONDS_ALLOWED)
    late = [when - start for when, by_stop in answered if when > start and by_stop != is_stopped]
    assert sum(when > start for when, _ in answered) > 20 * THREADS
    return max(late, default=0.0)


def test_every_worker_obeys_a_stop_within_a_second_and_no_request_is_lost(serve, rows, tmp_path):
    server = serve("--workers", "2")
    with wrk(server, tmp_path, rows, 12) as load:
        assert seconds_to_obey(server, rows, "/stop", True) <= SECONDS_ALLOWED
        assert seconds_to_obey(server, rows, "/resume", False) <= SECONDS_ALLOWED
        output = str(load.stdout.read()) if load.stdout else ""
    assert "Non-2xx" not in output, output
    assert "Socket errors" not in output, output
    assert int(re.search(r"(\d+) requests in", output)[1]) > 100  # type: ignore[index]
    project = server.project
    project.cli("oversight", "stop", "--by", "Ada", "--url", server.url)
    server.stop()
    server = serve("--workers", "2")
    assert json.loads(server.get("/model")[1])["stopped"]["by"] == "Ada"
    assert {BY_STOP in server.predict(row)["flags"] for row in rows[:40]} == {True}
    assert "stopped by Ada" in project.cli("oversight", "list").stdout
    project.cli("oversight", "resume")
    wait_for(lambda: not any(server.predict(row)["fallback"] for row in rows[:20]))


def test_rows_of_who_is_excluded_go_to_a_person_and_an_appeal_is_answered(serve, copy, rows):
    server = serve("--workers", "2")
    column = "entity_id" if "entity_id" in rows[0] else next(iter(rows[0]))
    unit = str(rows[0][column])
    copy.cli("oversight", "exclude", unit, "--column", column, "--by", "Ada")
    time.sleep(1)
    for _ in range(20):  # each over a connection of its own
        assert EXCLUDED in server.predict(rows[0])["flags"]
    stranger = next(row for row in rows if str(row[column]) != unit)
    assert EXCLUDED not in server.predict(stranger)["flags"]
    id = server.predict(stranger)["id"]
    assert server.ask("POST", "/appeal", {"id": id[:-1] + "x", "reason": "wrong"})[0] == 422
    assert server.ask("POST", "/appeal", {"id": id, "reason": "wrong"})[0] == 200
    wait_for(lambda: "score" in copy.cli("oversight", "appeals").stdout)
    copy.cli("oversight", "answer", id, "--changed", "--by", "Ada", "--reason", "it was wrong")
    assert "changed by Ada" in copy.cli("oversight", "appeals").stdout
    copy.cli("oversight", "include", unit, "--column", column)
    wait_for(lambda: EXCLUDED not in server.predict(rows[0])["flags"])


@pytest.mark.parametrize("name", ["stop", "exclusion", "appeal"])
def test_each_drill_shows_that_it_works(in_production, name):
    assert f"{name}: " in in_production.cli("drill", name).stdout
    assert f'"drill": "{name}"' in in_production.read("monitoring/drills.jsonl")
