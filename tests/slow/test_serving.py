"""The service under load, killed, reloaded and asked by strangers: real processes on loopback."""

from __future__ import annotations

import csv
import http.client
import json
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import ENV, Project, copy_files
from .test_project import Copy

ROUNDS = 10  # of the crash test
SOAK_SECONDS = 60
ROWS = """
import duckdb, json
names = [n for n in duckdb.sql("FROM 'data/split/test.parquet'").columns if not n.startswith("_")]
names = [n for n in names if n not in ("label", "label_time", "entity_email")]
for row in duckdb.sql(f"SELECT {', '.join(names)} FROM 'data/split/test.parquet' LIMIT 2000").fetchall():
    print(json.dumps(dict(zip(names, row)), default=str))
"""
LOGGED = """
import duckdb, sys, time
from pathlib import Path
from my_model.serving.log import compact
folder = Path("monitoring") / sys.argv[1]
for _ in range(600):  # another process may be at it
    compact(folder)
    if not list(folder.glob("*.wal")):
        break
    time.sleep(0.1)
for id, arm in duckdb.sql(f"SELECT _id, _arm FROM read_parquet('{folder}/*.parquet')").fetchall():
    print(id, arm)
"""


class Server:
    """`my-model serve` on a free port, as a user starts it."""

    def __init__(self, project: Project, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.project = project
        self.out = (project.path / "serve.log").open("a")
        command = [str(environment(project) / "bin/my-model"), "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, *options], cwd=project.path, env=ENV | env_of(project), stderr=self.out
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                assert self.get("/v2/health/ready")[0] == 200
                return
            except OSError:
                assert time.monotonic() < deadline, project.read("serve.log")[-2000:]
                assert self.process.poll() is None, project.read("serve.log")[-2000:]
                time.sleep(0.02)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        response = answer.status, answer.read().decode()
        connection.close()
        return response

    def open_connection(self) -> http.client.HTTPConnection:
        """A connection that is kept open."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.connect()
        return connection

    def get(self, path: str) -> tuple[int, str]:
        return self.ask("GET", path)

    def predict(self, row: object) -> dict:
        status, answer = self.ask("POST", "/predict", row)
        assert status == 200, answer
        return dict(json.loads(answer))

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        self.process.send_signal(signal_number)
        self.process.wait(60)
        self.out.close()


def environment(project: Project) -> Path:
    return Path(env_of(project).get("UV_PROJECT_ENVIRONMENT", project.path / ".venv"))


def env_of(project: Project) -> dict[str, str]:
    return getattr(project, "env", {})


@pytest.fixture
def copy(in_production, tmp_path) -> Copy:
    """A project that has run and promoted its model, to be changed."""
    return Copy(in_production, tmp_path / "copy")


@pytest.fixture
def serve(copy):
    """serve("--workers", "2", settings={"serving.timeout_ms": 50})"""
    started: list[Server] = []

    def start(*options: str, settings: dict[str, object] | None = None) -> Server:
        for key, value in (settings or {}).items():
            set_(copy, key, value)
        started.append(Server(copy, *options))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)


def set_(project: Project, key: str, value: object) -> None:
    """Change params.yaml as `run --set` does, without running."""
    code = (
        "from my_model.settings import set_values; from pathlib import Path; import sys; "
        "set_values(Path('params.yaml'), [sys.argv[1]])"
    )
    project.call("uv", "run", "--quiet", "python", "-c", code, f"{key}={json.dumps(value)}")


@pytest.fixture(scope="module")
def trained_again(in_production, problem_type, tmp_path_factory) -> Copy:
    """With another model, which passes the gate, and here may be a little worse than the one in production."""
    project = Copy(in_production, tmp_path_factory.mktemp("again") / "copy")
    candidate = {"anomaly": "ecod", "ranking": "lambdarank"}.get(problem_type, "linear")
    changes = (f"modelling.candidates=[{candidate}]", "goals.targets.loss_to_production=null")
    project.cli("run", "--set", changes[0], "--set", changes[1])
    return project


@pytest.fixture
def another_model(copy, trained_again) -> None:
    """In the copy, another model was trained and not promoted."""
    shutil.rmtree(copy.path)
    copy_files(trained_again, copy.path)


@pytest.fixture(scope="module")
def rows(in_production) -> list[dict]:
    done = in_production.call("uv", "run", "--quiet", "python", "-c", ROWS)
    return [json.loads(line) for line in done.stdout.splitlines()]


def logged(project: Project, log_name: str = "predictions") -> list[tuple[str, str]]:
    done = project.call("uv", "run", "--quiet", "python", "-c", LOGGED, log_name)
    return [tuple(line.split()) for line in done.stdout.splitlines()]  # type: ignore[misc]


@contextmanager
def load(server: Server, rows: list[dict], threads: int = 4) -> Iterator[list[tuple[float, str]]]:
    """Ask without a pause; what was answered comes as (when, id). An error ends a thread."""
    answered: list[tuple[float, str]] = []
    stop = threading.Event()

    def work(start: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        for index in range(start, 10**9, threads):
            if stop.is_set():
                return
            try:
                connection.request("POST", "/predict", json.dumps(rows[index % len(rows)]))
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):
                return
            assert answer.status == 200, content
            answered.append((time.monotonic(), json.loads(content)["id"]))

    workers = [threading.Thread(target=work, args=[n]) for n in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield answered
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def metric(text: str, name: str) -> float:
    """The sum of a metric over its labels."""
    return sum(float(x) for x in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.M))


def wait_for(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_killed_under_load_it_loses_nothing_older_than_a_second(serve, copy, rows):
    rng, durable = random.Random(7), set()
    set_(copy, "serving.log.rotate_seconds", 1)
    for _ in range(ROUNDS):
        server = serve()
        with load(server, rows) as answered:
            end = time.monotonic() + 1.1 + rng.random()
            wait_for(lambda end=end: time.monotonic() > end)
            killed = time.monotonic()
            server.stop(signal.SIGKILL)
        durable |= {id for when, id in answered if when < killed - 1}
    ids = [id for id, _ in logged(copy)]
    assert len(ids) == len(set(ids))
    assert durable - set(ids) == set()
    assert len(durable) > 100 * ROUNDS
    assert serve().predict(rows[0])["fallback"] is False  # and it goes on


def test_told_to_stop_it_answers_what_it_took_and_logs_all(serve, copy, rows):
    server = serve()
    with load(server, rows) as answered:
        wait_for(lambda: len(answered) > 500)
        server.stop()
    assert {id for _, id in answered} <= {id for id, _ in logged(copy)}
    assert not list((copy.path / "monitoring/predictions").glob("*.wal"))


@pytest.mark.usefixtures("another_model")
def test_a_reload_and_a_rollback_drop_no_request(serve, copy, rows):
    server = serve()
    before = server.predict(rows[0])["version"]["model"]
    with load(server, rows) as answered:
        copy.cli("promote")
        wait_for(lambda: server.predict(rows[0])["version"]["model"] != before)
        copy.cli("rollback")
        wait_for(lambda: server.predict(rows[0])["version"]["model"] == before)
        server.process.send_signal(signal.SIGHUP)
        target_count = len(answered) + 200
        wait_for(lambda: len(answered) > target_count)
    status, text = server.get("/metrics")
    assert status == 200
    assert metric(text, "serving_fallbacks_total") == 0
    assert metric(text, "serving_predictions_total") >= len(answered)


@pytest.mark.usefixtures("another_model")
def test_workers_share_the_load_the_router_and_the_metrics(serve, copy, rows):
    copy.cli("challenge")
    server = serve("--workers", "2", settings={"rollout.router.mode": "ab"})
    for row in rows[:400]:
        server.predict(row)  # a new connection each: both workers get some
    for _ in range(100):  # a worker hands on what it counted ten times a second
        if metric(server.get("/metrics")[1], "serving_predictions_total") == 400:
            break
        time.sleep(0.05)
    assert metric(server.get("/metrics")[1], "serving_predictions_total") == 400
    for _ in range(5):
        assert len({server.predict(rows[0])["arm"] for _ in range(4)}) == 1  # sticky across them
    output = copy.cli("rollout", "mode=ab", "share=1.0").stdout
    assert "share is 1" in output
    wait_for(lambda: {server.predict(row)["arm"] for row in rows[:40]} == {"challenger"})
    server.stop()
    assert len(logged(copy)) > 400


@pytest.mark.usefixtures("another_model")
def test_a_canary_that_fails_is_lowered_and_the_command_says_why(serve, copy, rows):
    copy.cli("challenge")
    (copy.path / "models/challenger/model.onnx").write_bytes(b"broken")
    (copy.path / "models/challenger.dvc").unlink()  # else `serve` refuses it at once
    server = serve(settings={"rollout.router.mode": "canary", "rollout.router.steps": [0.5, 1.0]})
    with load(server, rows) as answered:
        wait_for(lambda: json.loads(server.get("/router")[1])["lowered"])
        target_count = len(answered) + 200
        wait_for(lambda: len(answered) > target_count)
    assert "failed" in copy.cli("rollout").stdout
    assert {server.predict(row)["arm"] for row in rows[:40]} == {"champion"}


@pytest.mark.two_types
def test_it_answers_online_what_batch_answers(serve, copy, rows):
    server = serve()
    status, content = server.ask("POST", "/predict", rows[:1000])
    assert status == 200
    online = [prediction["score"] for prediction in json.loads(content)]
    with (copy.path / "rows.csv").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([[*rows[0]], *([*row.values()] for row in rows[:1000])])
    copy.cli("score", "rows.csv", "--out", "scores.parquet")
    code = (
        "import duckdb, json; print(json.dumps([r[0] for r in "
        "duckdb.sql(\"SELECT score FROM 'scores.parquet'\").fetchall()]))"
    )
    batch = json.loads(copy.call("uv", "run", "--quiet", "python", "-c", code).stdout)
    # One row and many are summed in another order: the last digits of a 32-bit float
    assert max(abs(a - b) for a, b in zip(online, batch, strict=True)) <= 1e-6 * max(
        1, *map(abs, batch)
    )


def test_schemathesis_finds_no_undocumented_answer(serve, copy, problem_type):
    if problem_type in (
        "forecasting",
        "ranking",
    ):  # what is known by key is asked for, not that nothing is
        copy.cli("materialize")
    server = serve()
    done = subprocess.run(
        ["uvx", "--from", "schemathesis>=4,<5", "schemathesis", "run", f"{server.url}/openapi.json",
         "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method",
         "--max-examples", "40", "--seed", "7", "--workers", "1", "--generation-database", "none"],
        env=ENV, capture_output=True, text=True, cwd=server.project.path,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    # What the document allows of a row is answered, what it does not allow is refused
    done = subprocess.run(
        ["uvx", "--from", "schemathesis>=4,<5", "schemathesis", "run", f"{server.url}/openapi.json",
         "--include-path", "/predict", "--checks", "positive_data_acceptance,negative_data_rejection",
         "--max-examples", "100", "--seed", "7", "--workers", "1", "--generation-database", "none"],
        env=ENV, capture_output=True, text=True, cwd=server.project.path,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert server.process.poll() is None


TRITON = """
import json, sys
import numpy as np
import tritonclient.http as triton
client = triton.InferenceServerClient(sys.argv[1])
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("my-model")
row = json.loads(sys.argv[2])
names = {field["name"]: field["datatype"] for field in client.get_model_metadata("my-model")["inputs"]}
inputs = []
for name, value in row.items():
    kind = names.get(name)
    if value is None or name == "event_time" or kind is None:
        continue
    if name.endswith("_time"):
        value = np.datetime64(value.replace(" ", "T"), "s").astype(float)
    tensor = triton.InferInput(name, [1, 1], kind)
    dtype = {"BYTES": object, "BOOL": bool}.get(kind, np.float64)
    tensor.set_data_from_numpy(np.array([[value]], dtype=dtype))
    inputs.append(tensor)
response = client.infer("my-model", inputs)
print(json.dumps([response.as_numpy("score")[0].tolist(), response.as_numpy("id")[0, 0].decode()]))
"""


def test_a_client_of_the_inference_protocol_that_we_did_not_write_gets_a_prediction(serve, rows):
    server = serve()
    done = subprocess.run(
        ["uv", "run", "--no-project", "--quiet", "--with", "tritonclient[http]>=2.50,<3", "--with", "numpy",
         "python", "-c", TRITON, f"127.0.0.1:{server.port}", json.dumps(rows[0])],
        env=ENV, capture_output=True, text=True, cwd=server.project.path,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    scores, id = json.loads(done.stdout)
    same = server.predict({k: v for k, v in rows[0].items() if k != "event_time"})
    expected = [*same["scores"].values()] if "scores" in same else [same["score"]]
    assert scores == pytest.approx(expected, abs=1e-2)  # its time is another
    assert len(id) == 40


@pytest.mark.at_turn(1)
def test_its_memory_stays_flat(serve, copy, rows):
    server = serve(settings={"serving.log.rotate_seconds": 10})
    script = copy.path / "load.lua"
    bodies = ",\n".join(f"[==[{json.dumps(row)}]==]" for row in rows[:200])
    script.write_text(
        f"local rows = {{{bodies}}}\nlocal n = 0\nwrk.method = 'POST'\n"
        "request = function() n = n % #rows + 1 return wrk.format(nil, nil, nil, rows[n]) end\n"
    )
    command = [
        "wrk",
        "-t1",
        "-c16",
        f"-d{SOAK_SECONDS}s",
        "-s",
        str(script),
        f"{server.url}/predict",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        sizes = []
        while run.poll() is None:
            time.sleep(2)
            status = Path(f"/proc/{server.process.pid}/status").read_text()
            sizes.append(int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024)  # type: ignore[index]
        output = run.stdout.read()
    assert "Non-2xx" not in output, output
    half = sizes[len(sizes) // 4 : -1]
    assert max(half[len(half) // 2 :]) < 1.1 * max(half[: len(half) // 2]) + 2, sizes
    assert max(sizes) < 150, sizes  # MB
    server.stop()
    request_count = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    assert len(logged(copy)) >= request_count


def browsed(server, copy, query: str = "") -> subprocess.CompletedProcess:
    """The page as a browser has it once its scripts have run."""
    return subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={copy.path / 'browser'}", "--virtual-time-budget=5000", "--dump-dom",
         f"{server.url}/{query}"],
        capture_output=True, text=True, env=ENV, timeout=120,
    )  # fmt: skip


def test_the_page_works_in_a_browser(serve, copy):
    server = serve()
    done = browsed(server, copy)
    assert "Model card" in done.stdout, done.stderr[-2000:]
    assert 'name="object_price"' in done.stdout
    assert ">the service did not answer" not in done.stdout


def test_a_link_to_the_page_asks_at_once(serve, copy, problem_type):
    if problem_type == "forecasting":
        copy.cli("materialize")
    server = serve()
    if problem_type == "forecasting":
        series = json.loads(server.get("/model")[1])["online_store"]["series_id"]["first"][-1]
        done = browsed(server, copy, f"?series_id={series}")
        assert 'class="path"' in done.stdout
        assert done.stdout.count("<tr><td>14</td>") == 1
        # The history, of which the page knows no more than its series
        assert done.stdout.partition('<path d="')[2].partition('"')[0].count("L") > 10
    else:
        done = browsed(server, copy, "?object_price=31.5")
        assert "answered by champion" in done.stdout


def test_it_refuses_to_be_open_to_all_without_a_token(copy):
    done = copy.cli("serve", "--host", "0.0.0.0", code=2)
    assert "SERVE_TOKEN" in done.stderr


def test_a_port_that_is_taken_is_one_line(serve, copy):
    server = serve()
    done = copy.cli("serve", "--port", str(server.port), code=2)
    assert "Traceback" not in done.stderr
    assert str(server.port) in done.stderr
