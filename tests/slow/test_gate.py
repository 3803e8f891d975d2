"""The front of the service: a stop, a killed worker, clients that dawdle, errors that ring."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from . import test_serving
from .conftest import ENV
from .test_serving import Server, metric, wait_for

copy, rows, serve = test_serving.copy, test_serving.rows, test_serving.serve  # fixtures

STOP_SECONDS = 10  # that a stop may take, whatever clients do
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"


def connected(server: Server, sent: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    client.sendall(sent)
    return client


def request(row: dict, close: bool = False) -> bytes:
    body = json.dumps(row).encode()
    end = b"Connection: close\r\n" if close else b""
    return HEAD + end + b"Content-Length: %d\r\n\r\n" % len(body) + body


def dribble(client: socket.socket, content: bytes, stop: threading.Event) -> None:
    with suppress(OSError):
        for index in range(len(content)):
            client.sendall(content[index : index + 1])
            if stop.wait(0.2):
                return


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_stop_takes_no_longer_than_it_may_whatever_clients_do(serve, rows, workers):
    server, stop = serve("--workers", workers), threading.Event()
    large_request, row = request({"rows": rows[:900]}), request(rows[0])
    large_request = (
        HEAD + b"Content-Length: %d\r\n\r\n" % len(body := json.dumps(rows[:900]).encode()) + body
    )
    kinds = [b"", b"GET", HEAD, row[:-1], HEAD + b"Content-Length: 5\r\n\r\n", row,
             HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n", HEAD + b"Expect: 100-continue\r\n"]  # fmt: skip
    with ExitStack() as stack:
        for kind in kinds:
            for _ in range(25):
                stack.enter_context(connected(server, kind))
        for content in (row, HEAD + b"Content-Length: 4000\r\n\r\n" + b" " * 4000):
            slow = stack.enter_context(connected(server))
            threading.Thread(target=dribble, args=[slow, content, stop], daemon=True).start()
        for _ in range(10):  # who asks and never reads
            reader = socket.socket()
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", server.port))
            stack.callback(reader.close)
            threading.Thread(target=_pour, args=[reader, large_request, 20], daemon=True).start()
        assert server.predict(rows[0])["id"]
        start = time.monotonic()
        server.stop()
        took = time.monotonic() - start
        stop.set()
    assert took <= STOP_SECONDS
    print(f"a stop with {workers} workers took {took:.1f} s")


def _pour(client: socket.socket, content: bytes, times: int) -> None:
    with suppress(OSError):
        for _ in range(times):
            client.sendall(content)


class Callers:
    """Threads that ask without a pause; whatever goes wrong after a connection was accepted is kept."""

    def __init__(self, server: Server, row: dict, threads: int, keep: bool) -> None:
        self.answered, self.failed = 0, []
        self._port, self._content, self._keep = server.port, request(row, close=not keep), keep
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while True:
            try:
                client = socket.create_connection(("127.0.0.1", self._port), timeout=20)
            except OSError:  # nobody listens any more, and nothing was accepted
                return
            with client:
                while True:
                    try:
                        client.sendall(self._content)
                        head, body = self._read(client)
                    except OSError as error:
                        self.failed.append(repr(error))
                        return
                    if not head.startswith(b"HTTP/1.1 200") or not body.endswith(b"}"):
                        self.failed.append(repr(head + body)[:300])
                        return
                    self.answered += 1
                    if b"connection: close" in head:
                        break

    @staticmethod
    def _read(client: socket.socket) -> tuple[bytes, bytes]:
        received = b""
        while True:
            head, blank, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            if blank and length and len(body) >= int(length[1]):
                return head, body
            part = client.recv(65536)
            if not part:
                return head, body
            received += part

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "new"])
def test_a_stop_under_load_fails_no_request_that_was_accepted(serve, rows, workers, keep):
    for _ in range(3):
        server = serve("--workers", workers)
        callers = Callers(server, rows[0], 16, keep)
        wait_for(lambda callers=callers: callers.answered > 300)
        server.stop()
        callers.join()
        assert callers.failed == []


def workers_of(server: Server) -> list[int]:
    """The processes that answer: those that hold the metrics' files open."""
    path = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [
        int(pid)
        for pid in path.read_text().split()
        if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    ]


def test_a_killed_worker_is_replaced_and_what_it_said_of_itself_is_gone(serve, rows):
    server = serve("--workers", "2", settings={"serving.limits.idle_seconds": 60})
    wait_for(lambda: len(workers_of(server)) == 2)

    def metric_value(name: str) -> float:
        return metric(server.get("/metrics")[1], name)

    with ExitStack() as stack:
        clients = [stack.enter_context(connected(server, request(rows[0]))) for _ in range(40)]
        for client in clients:
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        wait_for(lambda: metric_value("serving_connections") >= 40)
        predictions = metric_value("serving_predictions_total")
        lost = 0
        for pid in workers_of(server):  # one of the two may have taken all connections
            if not lost:
                os.kill(pid, signal.SIGKILL)
                wait_for(lambda pid=pid: len(set(workers_of(server)) - {pid}) == 2)
                lost = sum(not _open(client) for client in clients)
        assert lost
        wait_for(lambda: metric_value("serving_connections") <= 40 - lost + 2)
        assert metric_value("serving_predictions_total") >= predictions  # what it had counted stays
    wait_for(lambda: server.predict(rows[0])["fallback"] is False)


def _open(client: socket.socket) -> bool:
    client.settimeout(0.05)
    try:
        return client.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def test_a_worker_that_cannot_be_replaced_does_not_stop_the_others(serve, copy, rows):
    server = serve("--workers", "2")
    wait_for(lambda: copy.read("serve.log").count('"message": "ready"') == 2)
    settings = copy.path / "params.yaml"
    before, whole = workers_of(server), settings.read_text()
    settings.write_text(whole + "nothing_known: 1\n")
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: copy.read("serve.log").count("a worker cannot start") >= 2)
    assert server.predict(rows[0])["fallback"] is False
    assert all(json.loads(line) for line in copy.read("serve.log").splitlines())  # no traceback
    settings.write_text(whole)
    wait_for(lambda: len(set(workers_of(server)) - {before[0]}) == 2)
    wait_for(lambda: server.predict(rows[0])["fallback"] is False)


def test_workers_none_of_which_can_start_end_the_service(copy):
    (page,) = copy.path.glob("src/*/serving/page.html")
    page.unlink()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = str(test_serving.environment(copy) / "bin/my-model")
    arguments = ("serve", "--workers", "2", "--port", port)
    done = copy.call(program, *arguments, code=3, **test_serving.env_of(copy))
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    reasons = [event["reason"] for event in events if event["message"] == "a worker cannot start"]
    assert reasons
    assert all("page.html" in reason for reason in reasons)
    assert "no worker could start" in done.stderr.splitlines()[-1]


def test_workers_whose_parent_is_killed_do_not_stay(serve):
    server = serve("--workers", "2")
    wait_for(lambda: len(workers_of(server)) == 2)
    children = workers_of(server)
    server.stop(signal.SIGKILL)
    wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in children))


def test_a_model_that_all_workers_replaced_is_told_of_no_more(serve, copy):
    server = serve("--workers", "2")
    manifest = copy.path / "models/production/manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"code_version": "another"}))

    def code_versions() -> set[str]:
        text = server.get("/metrics")[1]
        return set(re.findall(r'^serving_model_info\{.*code="(\w+)".*\} ', text, re.M))

    assert "another" not in code_versions()
    assert server.ask("POST", "/reload")[0] == 200  # when both have it
    assert code_versions() == {"another"}


def test_endless_headers_and_bodies_are_bounded_in_memory(serve, rows):
    server = serve()

    def size() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]

    before = size()
    line, part = b"X-Filler: " + b"x" * 1000 + b"\r\n", b" " * 1000
    floods = [(HEAD, line), (HEAD + b"X: ", b"x" * 1000), (b"GET /" + b"x" * 1000, b"x" * 1000),
              (HEAD + b"Content-Length: 400000000\r\n\r\n", part),
              (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"3e8\r\n" + part + b"\r\n"),
              (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", line),
              (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;x=", part.replace(b" ", b"x"))]  # fmt: skip
    threads = [threading.Thread(target=_flood, args=[server, *flood]) for flood in floods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert size() - before < 60_000  # kB
    assert server.predict(rows[0])["fallback"] is False


def _flood(server: Server, start: bytes, part: bytes) -> None:
    """Send 400 MB, or until the service has enough."""
    with connected(server, start) as client, suppress(OSError):
        for _ in range(400):
            client.sendall(part * 1000)


PAGE = """<!doctype html><title>waits</title><script>
fetch("http://127.0.0.1:PORT/feedback", {method: "POST", mode: "no-cors", body: '[{"id": "a", "reward": 1}]'})
  .finally(() => { document.title = "done"; });
</script>"""


def test_a_browser_runs_our_page_and_no_page_of_others_changes_anything(serve, copy):
    server = serve()
    page = copy.path / "evil"
    page.mkdir()
    (page / "index.html").write_text(PAGE.replace("PORT", str(server.port)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        "python3",
        "-m",
        "http.server",
        str(port),
        "--bind",
        "127.0.0.1",
        "--directory",
        page,
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as web_server:
        wait_for(lambda: _fetch(f"http://127.0.0.1:{port}/"))
        foreign = browse(f"http://127.0.0.1:{port}/", copy.path)
        ours = browse(f"{server.url}/", copy.path)
        web_server.terminate()
    assert "<title>done</title>" in foreign.stdout
    text = server.get("/metrics")[1]
    assert 'method="POST",path="/feedback",status="403"} 1' in text
    assert "Content Security Policy" not in ours.stderr
    assert 'name="object_price"' in ours.stdout
    assert "Model card" in ours.stdout


def browse(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--enable-logging=stderr", f"--user-data-dir={folder / 'browser'}",
         "--virtual-time-budget=5000", "--dump-dom", url],
        capture_output=True, text=True, env=ENV, timeout=120,
    )  # fmt: skip


def _fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bytes(answer.read())
    except OSError:
        return b""


def test_an_error_of_the_services_own_rings_in_a_real_prometheus(serve, copy):
    """The model card cannot be read, as from a broken disk: GET /model fails, and the alert fires."""
    card = copy.path / "reports/model_card.md"
    card.unlink()
    card.symlink_to("/proc/self/mem")  # a file that opens, and gives an error when it is read
    server = serve()
    status, body = server.get("/model")
    assert status == 500
    answer = json.loads(body)
    (line,) = [line for line in copy.read("serve.log").splitlines() if answer["request"] in line]
    logged = json.loads(line)
    assert logged["path"] == "/model"
    assert "OSError" in logged["error"]
    with ExitStack() as stack:
        ringing = prometheus(copy.path, server, stack)
        wait_for(lambda: server.get("/model")[0] == 500 and "ServiceErrorsFast" in ringing(), 90)
        assert "ServiceDown" not in ringing()


def prometheus(project: Path, server: Server, stack: ExitStack) -> Callable[[], set[str]]:
    """Start Prometheus with the project's rules, none of which waits to be sure; which alerts ring?"""
    folder = project / "prometheus"
    folder.mkdir()
    rules = (project / "ops/prometheus/rules.yml").read_text()
    (folder / "rules.yml").write_text(re.sub(r"for: \w+", "for: 0s", rules))
    config = (project / "ops/prometheus/prometheus.yml").read_text()
    config = config.replace("serve:8000", f"127.0.0.1:{server.port}").replace("15s", "1s")
    config = re.sub(r" +authorization:\n +credentials_file:.*\n", "", config)
    (folder / "prometheus.yml").write_text(config)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = stack.enter_context((folder / "log").open("w"))
    process = stack.enter_context(
        subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}",
             f"--storage.tsdb.path={folder / 'series'}", f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log, cwd=folder,
        )
    )  # fmt: skip
    stack.callback(process.terminate)

    def ringing() -> set[str]:
        response = json.loads(_fetch(f"http://127.0.0.1:{port}/api/v1/alerts") or b"{}")
        alerts = response.get("data", {}).get("alerts", [])
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    return ringing


@pytest.mark.parametrize("secret", ["", "  ", "\n"])
def test_a_blank_secret_lets_nobody_in(copy, secret):
    done = copy.cli("serve", "--host", "0.0.0.0", code=2, SERVE_TOKEN=secret)
    assert "SERVE_TOKEN" in done.stderr
