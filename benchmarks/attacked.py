"""What the requests of tests/attacks/absurd_requests.py cost a worker, and what hypothesis gets out of it."""

from __future__ import annotations

import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from online import Peer, environment
from spine import REPO, Project, timed, uv

sys.path.insert(0, str(REPO / "tests/attacks"))
from absurd_requests import Attack, attacks, full

REQUESTS = int(os.environ.get("FUZZ", "20000"))


def processor(pid: int) -> float:
    """Milliseconds that a process has run, all of its threads together."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6


def peak(pid: int) -> float:
    """Peak resident memory, in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def sent(port: int, attack: Attack) -> tuple[int, int]:
    """The status of the answer and its length; 0 when the connection was closed instead."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(attack.method, attack.path, attack.body, attack.headers)
        answer = connection.getresponse()
        return answer.status, len(answer.read())
    except (OSError, http.client.HTTPException):
        return 0, 0
    finally:
        connection.close()


def cost(port: int, pid: int, attack: Attack, times: int) -> tuple[float, int]:
    """The least milliseconds of the processor over some tries, and the status."""
    spent = []
    for _ in range(times):
        before = processor(pid)
        status, _ = sent(port, attack)
        time.sleep(0.02)  # what is done behind the answer counts too
        spent.append(processor(pid) - before)
    return min(spent), status


def refused(project: Project) -> list[tuple[str, float, str, bool]]:
    """Processor time and memory of every attack against a full legal request, and the fuzz of both protocols."""
    project.run("-m", "my_model", "run")
    ours = Peer("ours", [str(project.path / ".venv/bin/my-model"), "serve", "--port", "PORT"],
                "/predict", {}, [])  # fmt: skip
    ours.bodies = {1: '{"object_id": "any"}'}
    with ours.running(project.path, environment(project, ours)) as (port, _, _):
        pid = int(
            subprocess.check_output(["pgrep", "-f", "--", f"--port {port}"], text=True).split()[0]
        )
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/openapi.json")
        schemas = json.loads(connection.getresponse().read())["components"]["schemas"]
        example = schemas["Row"]["example"]
        legal = full(example)
        base = statistics.median(cost(port, pid, legal, 1)[0] for _ in range(7))
        worst = 0.0
        for attack in attacks(example, "my-model"):
            spent, status = cost(port, pid, attack, 1)
            if spent > 1.5 * base:  # was it the machine?
                spent = min(spent, cost(port, pid, attack, 2)[0])
            if status != 200:
                worst = max(worst, spent / base)
            if status >= 500 or (status != 200 and spent > 2 * base):
                print(f"{attack.name}: {status}, {spent / base:.2f} x")
        peak_memory = peak(pid)
        python = project.scratch / "fuzz"
        timed([uv(), "venv", "--quiet", "--python", sys.executable, str(python)], project.scratch)
        timed(
            [
                uv(),
                "pip",
                "install",
                "--quiet",
                "--python",
                str(python / "bin/python"),
                "hypothesis",
            ],
            project.scratch,
        )
        script = [
            str(python / "bin/python"),
            str(REPO / "tests/attacks/fuzz_requests.py"),
            str(port),
            str(REQUESTS),
        ]
        done = subprocess.run(script, capture_output=True, text=True)
        print(done.stdout, done.stderr[-3000:])
    return [
        ("a refused request's processor time, against a full legal one", worst, "<= 2 x", worst <= 2),
        ("memory of a worker under all of them, in MB", peak_memory, "<= 200", peak_memory <= 200),
        (f"answers with 5xx over {REQUESTS:,} requests that no client means", float(done.returncode != 0), "0", done.returncode == 0),
    ]  # fmt: skip
