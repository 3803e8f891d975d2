"""The stop switch under load: seconds from the request until every worker answers by the fallback, and requests lost.

    make bench-oversight                 about two minutes on two free cores

A service of two workers is asked by wrk as fast as it goes, and by connections of this process, each of which one worker
answers; `POST /stop` and `POST /resume` come in turns. The time is that until the last answer that does not obey was
asked for. Lost is what failed, or had another status than 200.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from spine import REPO
from tables import HOME, SMALL_ENV, Projects

TURNS, WORKERS, THREADS, WATCHED_SECONDS = 10, 2, 6, 1.5
BY_STOP = "the model was stopped by its operator"
ROWS = """
import duckdb, json
names = [n for n in duckdb.sql("FROM 'data/split/test.parquet'").columns if not n.startswith("_")]
names = [n for n in names if n not in ("label", "label_time", "entity_email")]
for row in duckdb.sql(f"SELECT {', '.join(names)} FROM 'data/split/test.parquet' LIMIT 200").fetchall():
    print(json.dumps(dict(zip(names, row)), default=str))
"""
LUA = """local rows = {%s}
local n = 0
wrk.method = "POST"
request = function() n = n %% #rows + 1 return wrk.format(nil, nil, nil, rows[n]) end
"""


class Traffic:
    """Requests without a pause, over connections that stay open."""

    def __init__(self, port: int, rows: list[str]) -> None:
        # When each was asked for, and whether a stop answered
        self.answers: list[tuple[float, bool]] = []
        self.lost, self._ending = 0, threading.Event()
        self._port, self._rows = port, rows
        self._threads = [threading.Thread(target=self._ask, args=[n]) for n in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, index: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while not self._ending.is_set():
            begun = time.monotonic()
            try:
                connection.request("POST", "/predict", self._rows[index % len(self._rows)])
                response = connection.getresponse()
                content = response.read().decode()
                self.lost += response.status != 200
                self.answers.append((begun, BY_STOP in content))
            except (OSError, http.client.HTTPException):
                self.lost += 1
            index += THREADS

    def seconds_to_obey(self, path: str, is_stopped: bool) -> float:
        """Post to an address; seconds until the last request whose answer did not obey."""
        start = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        connection.request("POST", path, "{}")
        if connection.getresponse().status != 200:
            sys.exit(f"{path} was refused")
        time.sleep(WATCHED_SECONDS)
        late = [at - start for at, by_stop in self.answers if at > start and by_stop != is_stopped]
        return max(late, default=0.0)

    def end(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()


def measured(port: int, folder: Path, rows: list[str]) -> None:
    """Stop and resume by turns under load, and say how soon each was obeyed."""
    script = folder / "load.lua"
    script.write_text(LUA % ",".join(f"[==[{row}]==]" for row in rows))
    seconds = int(2 * TURNS * WATCHED_SECONDS) + 4
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(script)]
    with subprocess.Popen(
        [*command, f"http://127.0.0.1:{port}/predict"], stdout=subprocess.PIPE, text=True
    ) as load:
        traffic = Traffic(port, rows)
        time.sleep(1)
        times: dict[str, list[float]] = {"stop": [], "resume": []}
        for _ in range(TURNS):
            times["stop"].append(traffic.seconds_to_obey("/stop", True))
            times["resume"].append(traffic.seconds_to_obey("/resume", False))
        traffic.end()
        output = load.communicate()[0]
    lost = traffic.lost + sum(
        int(count) for count in re.findall(r"(?:Non-2xx or 3xx responses:|connect|read|write|timeout) (\d+)", output)
    )  # fmt: skip
    requests = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    for name, values in times.items():
        print(
            f"{name}: {TURNS} times, obeyed after {statistics.median(values):.2f} s (median), {max(values):.2f} s (most)"
        )
    print(
        f"requests: {requests + len(traffic.answers):,} at {requests / seconds:,.0f} a second, {lost} lost"
    )


def main() -> None:
    """Make a project, serve it, measure."""
    HOME.mkdir(parents=True, exist_ok=True)
    projects = Projects(REPO, [], "parts=[serving, governance]")
    folder = projects.fresh("binary", "oversight")
    for command in ("run", "promote"):
        code, output, _ = projects.call("binary", folder, "-m", "my_model", command)
        if code:
            sys.exit(f"{command}: {output[-2000:]}")
    _, output, _ = projects.call("binary", folder, "-c", ROWS)
    rows = [line for line in output.splitlines() if line.startswith("{")]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    python = projects.bases["binary"][1]
    service = subprocess.Popen(
        [python, "-m", "my_model", "serve", "--port", str(port), "--workers", str(WORKERS)],
        cwd=folder, env={**SMALL_ENV, "PYTHONPATH": "src", "PATH": os.environ["PATH"]}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("POST", "/predict", rows[0])
                if not json.loads(connection.getresponse().read())["fallback"]:
                    break
            except OSError:
                if time.monotonic() > deadline:
                    sys.exit("the service did not start")
            time.sleep(0.2)
        measured(port, folder, rows)
    finally:
        service.terminate()
        service.wait(30)


if __name__ == "__main__":
    main()
