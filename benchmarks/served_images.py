"""An image of 224 × 224 (JPEG) through the service, against ONNX Runtime alone, with decoding apart.

    make bench-serving ONLY=image

This file runs inside of that, or by itself, with the environment of a project:

    PYTHONPATH=PROJECT/src python benchmarks/served_images.py PACKAGE PROJECT PORT

PROJECT is a project with one image column whose service listens on PORT. wrk asks it with 1, 4 and 16 connections; in turns with
it, the same model is called for one row, the image is decoded alone, into its stored form, and a server whose handler
reads the body and does nothing else is asked. Each turn counts the processor time of what it measures, which other work
on the machine does not change; the median of the turns counts. The ratio is the runtime's time for a row over the
service's time for a request without decoding; "the most" is the ratio of that empty handler and the runtime together.
"both": decoding and the runtime in one loop, over the service's whole time for a request. Decoding leaves the
processor's caches cold, which that loop pays as the service does.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

TURNS, SECONDS, CALLS = 5, 4, 100
SIDE = 224
LUA = """wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = [==[%s]==]
"""


def photo(seed: int = 0, light: int = 0) -> str:
    """A JPEG as a camera's, in base64: smooth, with some noise; `light` is added to each pixel."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (14, 14, 3), np.uint8)).resize((SIDE, SIDE))
    noisy = np.asarray(smooth).astype(int) + rng.integers(-6, 7, (SIDE, SIDE, 3)) + light
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def per_call(function: Callable[[], object]) -> float:
    """Milliseconds of this thread's processor time for a call."""
    function()
    start = time.thread_time()
    for _ in range(CALLS):
        function()
    return 1000 * (time.thread_time() - start) / CALLS


def listening(port: int) -> int:
    """The process that listens on a port, by its socket (Linux)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    inode = next(f[9] for f in map(str.split, lines) if f[1].endswith(f":{port:04X}") and f[3] == "0A")  # fmt: skip
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == f"socket:[{inode}]":
                return int(link.parts[2])
        except OSError:
            continue
    sys.exit(f"nothing listens on {port}")


def measured(port: int, pid: int, script: str, connections: int) -> tuple[float, float]:
    """Requests a second, and milliseconds of the service's processor time for a request."""

    def spent() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = spent()
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "-s", script, f"http://127.0.0.1:{port}/predict"]  # fmt: skip
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output:
        sys.exit(output)
    count = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    return count / SECONDS, 1000 * (spent() - before) / count


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """The empty handler: an ASGI application that reads a request's body and answers with a number."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"score":0.5}'})


@contextmanager
def empty_server(port: int) -> Iterator[int]:
    """The process of a server with the empty handler, once it listens on a port."""
    command = [sys.executable, "-m", "uvicorn", "served_images:nothing", "--port", str(port), "--no-access-log"]  # fmt: skip
    options = ["--app-dir", str(Path(__file__).parent), "--lifespan", "off", "--log-level", "error"]
    with subprocess.Popen([*command, *options]) as server:
        try:
            for _ in range(200):
                with socket.socket() as client:
                    if not client.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.1)
            yield server.pid
        finally:
            server.terminate()


def main() -> None:
    """Print a line of JSON with the medians of all turns."""
    package, project, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    images, model = (import_module(f"{package}.{name}") for name in ("images", "model"))
    scorer, sent, pid = model.Model(project / "models"), photo(), listening(port)
    (name, form), *_ = scorer.images.items()
    row = {column: [None] for column in scorer.types} | {name: [sent]}
    feed = scorer.feed(row)
    figures: dict[str, list[float]] = {}
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script, empty_server(port + 1) as empty:
        script.write(LUA % json.dumps({name: sent}))
        script.flush()
        for _ in range(TURNS):
            turn = {"runtime": per_call(lambda: scorer.session.run(None, feed))}
            turn["decoding"] = per_call(lambda: (images.area(sent), images.stored(sent, form)))
            turn["both in one loop"] = per_call(
                lambda: (
                    images.area(sent),
                    images.stored(sent, form),
                    scorer.session.run(None, feed),
                )
            )
            for connections in (1, 4, 16):
                speed, cost = measured(port, pid, script.name, connections)
                turn[f"requests a second, {connections} connections"] = speed
                turn[f"service, {connections} connections"] = cost
                work = cost - turn["decoding"]
                turn[f"ratio, {connections} connections"] = turn["runtime"] / work
                turn[f"both, {connections} connections"] = turn["both in one loop"] / cost
                _, cost = measured(port + 1, empty, script.name, connections)
                turn[f"the most, {connections} connections"] = turn["runtime"] / (
                    turn["runtime"] + cost
                )
            for key, value in turn.items():
                figures.setdefault(key, []).append(value)
    print(json.dumps({key: round(statistics.median(all_), 3) for key, all_ in figures.items()}, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
