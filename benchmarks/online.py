"""The figures of the HTTP service against MLflow, BentoML, LitServe and an empty FastAPI handler.

All serve the project's features and LightGBM on loopback, the peers behind scikit-learn's own
transformers, one process each, asked by wrk for the same rows; ours logs every prediction and counts every metric. The servers
take turns, so that each meets the same noise, and the median of the turns counts. The peers are
installed into environments of their own; their code stands below, as their documentation has it.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from spine import REPO, SMALL_ENV, Project, timed, uv

TURNS = 3
SECONDS = 5
TEXT_CHARACTERS = 2000
FRAME = """
import joblib, numpy as np, pandas as pd
pipeline = joblib.load("{scratch}/pipeline.joblib")
NUMBERS = {numbers}

def predict(rows):
    frame = pd.DataFrame(rows)
    frame = frame.astype({{name: np.float32 for name in NUMBERS}})
    return pipeline.predict_proba(frame)[:, 1].tolist()
"""
BENTOML = """
import bentoml
from frame import predict

@bentoml.service(workers=1)
class Peer:
    @bentoml.api(route="/predict")
    def predict(self, rows: list[dict]) -> list[float]:
        return predict(rows)
"""
LITSERVE = """
import sys
import litserve
from frame import predict

class Peer(litserve.LitAPI):
    def setup(self, device):
        pass
    def decode_request(self, request):
        return request["rows"]
    def predict(self, rows):
        return predict(rows)
    def encode_response(self, output):
        return {"scores": output}

if __name__ == "__main__":
    litserve.LitServer(Peer(), accelerator="cpu", workers_per_device=1).run(port=int(sys.argv[1]), log_level="error", generate_client_file=False)
"""
EMPTY = """
from fastapi import FastAPI

app = FastAPI()

@app.post("/predict")
async def predict():
    return {"score": 0.5}
"""
# An answer for each row that came, and nothing else
READING = """
from fastapi import FastAPI, Request

app = FastAPI()

@app.post("/predict")
async def predict(request: Request):
    rows = await request.json()
    return [{"score": 0.5, "rank": place} for place in range(len(rows))]
"""
SAVE = """
import joblib, mlflow.sklearn
mlflow.sklearn.save_model(
    joblib.load("{scratch}/pipeline.joblib"), "{scratch}/mlflow-model",
    pyfunc_predict_fn="predict_proba", serialization_format="cloudpickle",
)
"""
# What the pipeline of images decodes by; the peer finds this file on its path
DECODING = """
import base64, io
import numpy as np
from PIL import Image

def to_pixels(images):
    opened = (Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB") for image in images)
    return np.stack([np.asarray(image.resize((64, 64)), np.float32).ravel() / 255 for image in opened])
"""


class Peer:
    """A server: how it is started, and what it is asked."""

    def __init__(
        self, name: str, command: list[str], path: str, single_row: object, hundred_rows: object
    ) -> None:
        self.name, self.command, self.path = name, command, path
        self.bodies = {1: json.dumps(single_row), 100: json.dumps(hundred_rows)}

    @contextmanager
    def running(self, folder: Path, env: dict[str, str]) -> Iterator[tuple[int, float, float]]:
        """The port, the seconds until the first answer, and the memory of its processes, in MB."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [argument.replace("PORT", str(port)) for argument in self.command]
        start = time.perf_counter()
        with open(folder / f"{self.name}.log", "a") as out:
            process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=out, stderr=out, start_new_session=True
            )
        try:
            while not self.answers(port):
                if process.poll() is not None or time.perf_counter() - start > 90:
                    sys.exit(f"{self.name}: {(folder / f'{self.name}.log').read_text()[-3000:]}")
                time.sleep(0.01)
            yield port, time.perf_counter() - start, memory(process.pid)
        finally:
            os.killpg(process.pid, 15)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()

    def answers(self, port: int) -> bool:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{self.path}",
            self.bodies[1].encode(),
            {"content-type": "application/json"},
        )
        try:
            return bool(urllib.request.urlopen(request, timeout=10).status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def load_test(
        self, port: int, rows: int, connections: int, script: Path
    ) -> tuple[float, float]:
        """Requests a second and the 99th percentile in ms."""
        script.write_text(
            f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\n"
            f"wrk.body = [==[{self.bodies[rows]}]==]\n"
        )
        url = f"http://127.0.0.1:{port}{self.path}"
        command = ["wrk", "-t1", f"-c{connections}", "--latency", "-s", str(script), url]
        subprocess.run([*command, "-d1s"], check=True, capture_output=True)  # warms up
        report = subprocess.run(
            [*command, f"-d{SECONDS}s"], check=True, capture_output=True, text=True
        ).stdout
        if "Non-2xx" in report:
            sys.exit(f"{self.name} refused requests:\n{report}")
        number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", report).groups()  # type: ignore[union-attr]
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", report)[1])  # type: ignore[index]
        return rate, float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def shares(folder: Path, python: Path, home: Path, path: str, body: object) -> dict[str, float]:
    """Requests a second over one connection to a project's service, as a share of those of handlers that do nothing.

    Args:
        folder, python: of the project, with a model in production; home: takes the handlers and their environment.
        path: an address of the service; body: what it is sent, and the handlers too.

    Returns:
        empty (a handler that reads nothing), reading (one that reads JSON) -> the share, the median of the turns.
    """
    peer_python = home / "peer/bin/python"
    if not peer_python.is_file():
        timed([uv(), "venv", "--quiet", "--python", sys.executable, str(home / "peer")], REPO)
        packages = ("fastapi", "uvicorn", "uvloop", "httptools")
        timed([uv(), "pip", "install", "--quiet", "--python", str(peer_python), *packages], REPO)
    (home / "empty.py").write_text(EMPTY)
    (home / "reading.py").write_text(READING)
    bind = ["--host", "127.0.0.1", "--port", "PORT", "--no-access-log", "--log-level", "error"]
    serve = [str(python), "-m", "my_model", "serve", "--port", "PORT"]
    ours = Peer("ours", serve, path, body, body)
    peers = [
        Peer(name, [str(peer_python), "-m", "uvicorn", f"{name}:app", *bind], "/predict", body, body)
        for name in ("empty", "reading")
    ]  # fmt: skip
    ratios: dict[str, list[float]] = {peer.name: [] for peer in peers}
    with ExitStack() as stack:
        env = {**SMALL_ENV, "PYTHONPATH": str(folder / "src")}
        port = stack.enter_context(ours.running(folder, env))[0]
        ports = [stack.enter_context(peer.running(home, SMALL_ENV))[0] for peer in peers]
        for _ in range(TURNS):
            rate, _ = ours.load_test(port, 1, 1, home / "load.lua")
            for peer, peer_port in zip(peers, ports, strict=True):
                peer_rate, _ = peer.load_test(peer_port, 1, 1, home / "load.lua")
                ratios[peer.name].append(rate / peer_rate)
    return {name: statistics.median(values) for name, values in ratios.items()}


def memory(pid: int) -> float:
    """Resident megabytes of a process and all below it."""
    total, waiting = 0.0, [pid]
    while waiting:
        process_id = waiting.pop()
        try:
            status = Path(f"/proc/{process_id}/status").read_text()
            waiting += map(
                int, Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
            )
        except OSError:
            continue
        match = re.search(r"VmRSS:\s+(\d+)", status)  # one that has just ended has none
        total += int(match[1]) / 1024 if match else 0.0
    return total


def trained(project: Project) -> None:
    """Run the project, and leave the peers' pipeline and their rows in its scratch folder."""
    project.run("-m", "my_model", "run", "--set", "modelling.candidates=[lightgbm]")
    project.inside("pipeline", str(project.scratch))


def peers(project: Project, *only: str, train: Callable[[Project], None] = trained) -> list[Peer]:
    """Ours first; each of the others, or those that are named, installed into an environment of its own."""
    scratch = project.scratch
    train(project)
    contents = json.loads((scratch / "rows.json").read_text())
    frame = contents["rows"]
    (scratch / "frame.py").write_text(FRAME.format(scratch=scratch, numbers=contents["numbers"]))
    for name, code in (("bento", BENTOML), ("lit", LITSERVE), ("empty", EMPTY)):
        (scratch / f"{name}.py").write_text(code)
    (scratch / "save.py").write_text(SAVE.format(scratch=scratch))
    needs = [
        *contents["versions"],
        "lightgbm",
        "onnx",
        "onnxruntime",
        "pydantic",
        "ruamel.yaml",
        "duckdb",
    ]
    python = {}
    for name, packages in (
        ("mlflow", ["mlflow>=3,<4", *needs]),
        ("bentoml", ["bentoml>=1.4,<2", *needs]),
        ("litserve", ["litserve>=0.2,<1", *needs]),
        ("empty", ["fastapi", "uvicorn", "uvloop", "httptools"]),
    ):
        if only and name not in only:
            continue
        folder = scratch / f"peer-{name}"
        timed([uv(), "venv", "--quiet", "--python", sys.executable, str(folder)], scratch)
        python[name] = str(folder / "bin/python")
        timed([uv(), "pip", "install", "--quiet", "--python", python[name], *packages], scratch)
    if "mlflow" in python:
        timed([python["mlflow"], "save.py"], scratch, PYTHONPATH=str(project.path / "src"))
    split = {"columns": list(frame[0]), "data": [list(row.values()) for row in frame]}
    first_row = {**split, "data": split["data"][:1]}
    bind = ["--host", "127.0.0.1", "--port", "PORT"]
    servers = [
        Peer("ours", [str(project.path / ".venv/bin/my-model"), "serve", "--port", "PORT"], "/predict", frame[0], frame),
        Peer("empty", [python.get("empty", ""), "-m", "uvicorn", "empty:app", *bind, "--no-access-log", "--log-level", "error"],
             "/predict", frame[0], frame),
        Peer("mlflow", [python.get("mlflow", ""), "-m", "mlflow", "models", "serve", "-m", str(scratch / "mlflow-model"), "--env-manager", "local", *bind],
             "/invocations", {"dataframe_split": first_row}, {"dataframe_split": split}),
        Peer("bentoml", [python.get("bentoml", ""), "-m", "bentoml", "serve", "bento:Peer", *bind], "/predict", {"rows": frame[:1]}, {"rows": frame}),
        Peer("litserve", [python.get("litserve", ""), "lit.py", "PORT"], "/predict", {"rows": frame[:1]}, {"rows": frame}),
    ]  # fmt: skip
    return [server for server in servers if server.name == "ours" or server.name in python]


def environment(project: Project, server: Peer) -> dict[str, str]:
    """What a server is started with."""
    return SMALL_ENV | {
        "PYTHONPATH": f"{project.path / 'src'}{os.pathsep}{project.scratch}",
        "PATH": f"{Path(server.command[0]).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_MODELS_WORKERS": "1",
        "BENTOML_DO_NOT_TRACK": "True",
    }


@contextmanager
def hog(count: int) -> Iterator[None]:
    """So many other processes that never wait."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def single(project: Project) -> list[tuple[str, float, str, bool]]:
    """One row over 1 connection, against the empty handler: alone, and beside a process that never
    waits. Both servers run side by side and are asked in turns."""
    ours, empty = peers(project, "empty")
    scratch = project.scratch
    lines = []
    with (
        ours.running(project.path, environment(project, ours)) as (port, _, _),
        empty.running(scratch, environment(project, empty)) as (empty_port, _, _),
    ):
        for hogs, condition, least in ((0, "alone", 0.75), (1, "beside a processor hog", 0.5)):
            ratios = []
            with hog(hogs):
                for _ in range(2 * TURNS):
                    rate, _ = ours.load_test(port, 1, 1, scratch / "load.lua")
                    ratios.append(rate / empty.load_test(empty_port, 1, 1, scratch / "load.lua")[0])
            ratio = statistics.median(ratios)
            name = f"1 row, 1 connection, against the empty handler, {condition}"
            lines.append((name, ratio, f">= {least} x", ratio >= least))
    return lines


def reasons(project: Project) -> list[tuple[str, float, str, bool]]:
    """One row with its reasons over 1 connection against the same row without: of trees, and of the stack that the sample
    gets, both asked of one service in turns."""
    scratch = project.scratch / "reasons"
    scratch.mkdir()
    explained = Project(scratch, "serving, analysis")
    lines = []
    for candidate in ("lightgbm", "stacked"):
        explained.run("-m", "my_model", "run", "--set", f"modelling.candidates=[{candidate}]")
        explained.inside("pipeline", str(scratch))
        row = json.loads((scratch / "rows.json").read_text())["rows"][0]
        command = [str(explained.path / ".venv/bin/my-model"), "serve", "--port", "PORT"]
        plain, with_reasons = (
            Peer("ours", command, path, row, row) for path in ("/predict", "/predict?explain=true")
        )
        ratios = []
        with plain.running(explained.path, environment(explained, plain)) as (port, _, _):
            for _ in range(2 * TURNS):
                rate, _ = with_reasons.load_test(port, 1, 1, scratch / "load.lua")
                ratios.append(rate / plain.load_test(port, 1, 1, scratch / "load.lua")[0])
        ratio = statistics.median(ratios)
        name = f"1 row with its reasons against one without, {candidate}"
        lines.append((name, ratio, ">= 0.2 x", ratio >= 0.2))
    return lines


def write_texts(path: Path, rows: int = 3000) -> None:
    """A CSV of texts of 2,000 characters, as many words in use as a language has, and a yes or no that goes with some."""
    rng = random.Random(7)
    syllables = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
    drawn = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(25_000)]
    lexicon = list(dict.fromkeys(drawn))  # each once
    shares = [1 / (10 + rank) for rank in range(len(lexicon))]  # Zipf's law
    good = {*lexicon[50:2000:2]}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "liked"])
        for _ in range(rows):
            tokens = rng.choices(lexicon, shares, k=500)
            share = sum(token in good for token in tokens) / len(tokens)
            writer.writerow(
                [
                    " ".join(tokens)[:TEXT_CHARACTERS],
                    "yes" if rng.gauss(share, 0.01) > 0.23 else "no",
                ]
            )


def text(project: Project) -> list[tuple[str, float, str, bool]]:
    """One text of 2,000 characters over 16 connections: against MLflow with TfidfVectorizer and LogisticRegression,
    and against ONNX Runtime alone, called with a text that is normalised already; that time is taken off ours.

    The last line says how near to the runtime a server of Python comes that does nothing beside: the time of its
    empty handler is added to the runtime's."""
    text_project = Project(project.scratch / "text")
    text_project.scratch.mkdir()

    def train(project: Project) -> None:
        write_texts(project.scratch / "texts.csv")
        project.run(
            "-m", "my_model", "adopt", str(project.scratch / "texts.csv"), "--label", "liked"
        )
        settings = ("modelling.candidates=[linear]", "goals.targets.calibration_error=null")
        project.run("-m", "my_model", "run", *(f"--set={setting}" for setting in settings))
        project.inside("text_pipeline", str(project.scratch))

    ours, empty, mlflow = peers(text_project, "empty", "mlflow", train=train)
    load, folder = text_project.scratch / "load.lua", text_project.scratch
    rates, empty_rates, ratios, shares, bounds = [], [], [], [], []
    with (
        ours.running(text_project.path, environment(text_project, ours)) as (port, _, _),
        empty.running(folder, environment(text_project, empty)) as (empty_port, _, _),
        mlflow.running(folder, environment(text_project, mlflow)) as (mlflow_port, _, _),
    ):
        for _ in range(TURNS):
            rates.append(ours.load_test(port, 1, 16, load)[0])
            empty_rates.append(empty.load_test(empty_port, 1, 16, load)[0])
            ratios.append(rates[-1] / mlflow.load_test(mlflow_port, 1, 16, load)[0])
            alone, normalising = text_project.inside("text_alone", str(folder), str(SECONDS))
            shares.append(alone / (1 / rates[-1] - normalising))
            bounds.append(alone / (alone + 1 / empty_rates[-1]))
    rate, empty_rate, ratio, share, bound = map(
        statistics.median, (rates, empty_rates, ratios, shares, bounds)
    )
    print(
        f"a text: {rate:,.0f} requests a second, the empty handler {empty_rate:,.0f}; at last ONNX Runtime "
        f"{1e3 * alone:.2f} ms, normalising {1e3 * normalising:.2f} ms"
    )
    return [
        ("one text of 2,000 characters, against MLflow", ratio, ">= 20 x", ratio >= 20),
        ("the same against ONNX Runtime alone", share, ">= 0.7 x", share >= 0.7),
        ("the empty handler and ONNX Runtime, nothing else", bound, "-", True),
    ]


def image(project: Project) -> list[tuple[str, float, str, bool]]:
    """One image of 224 × 224 over 16 connections: against MLflow with its pixels and LogisticRegression, and against
    ONNX Runtime alone (served_images.py, in processor time: decoding apart, and together with it)."""
    image_project = Project(project.scratch / "image")
    image_project.scratch.mkdir()
    folder, load = image_project.scratch, image_project.scratch / "load.lua"

    def train(project: Project) -> None:
        (folder / "decoding.py").write_text(DECODING)
        project.inside("write_photos", str(folder / "photos"))
        project.run("-m", "my_model", "adopt", str(folder / "photos"), "--label", "class", "--positive", "dark")  # fmt: skip
        unset = ("calibration_error", "perturbation", "confidence", "latency_p99_ms")
        settings = [
            "modelling.candidates=[linear]",
            *(f"goals.targets.{key}=null" for key in unset),
        ]
        project.run("-m", "my_model", "run", *(f"--set={setting}" for setting in settings))
        project.inside("image_pipeline", str(folder), str(folder / "photos"))

    ours, mlflow = peers(image_project, "mlflow", train=train)
    ratios = []
    with (
        ours.running(image_project.path, environment(image_project, ours)) as (port, _, _),
        mlflow.running(folder, environment(image_project, mlflow)) as (mlflow_port, _, _),
    ):
        for _ in range(TURNS):
            rate = ours.load_test(port, 1, 16, load)[0]
            ratios.append(rate / mlflow.load_test(mlflow_port, 1, 16, load)[0])
        script = str(Path(__file__).with_name("served_images.py"))
        command = [str(image_project.path / ".venv/bin/python"), script, "my_model", ".", str(port)]
        env = {**SMALL_ENV, "PYTHONPATH": "src"}
        done = subprocess.run(
            command, cwd=image_project.path, env=env, capture_output=True, text=True, check=True
        )
    figures = json.loads(done.stdout)
    ratio, share = statistics.median(ratios), figures["ratio, 16 connections"]
    print(
        f"an image: {rate:,.0f} requests a second; decoding {figures['decoding']} ms, ONNX Runtime "
        f"{figures['runtime']} ms, both in one loop {figures['both in one loop']} ms of processor time"
    )
    return [
        ("one image of 224 × 224, against MLflow", ratio, ">= 20 x", ratio >= 20),
        ("against ONNX Runtime alone, decoding apart", share, ">= 0.7 x", share >= 0.7),
        ("the empty handler and ONNX Runtime, nothing else", figures["the most, 16 connections"], "-", True),
        ("decoding and ONNX Runtime in one loop, against all", figures["both, 16 connections"], "-", True),
    ]  # fmt: skip


def http(project: Project) -> list[tuple[str, float, str, bool]]:
    """Requests a second and latency, ours against each peer's."""
    scratch = project.scratch
    rates: dict[tuple[str, int, int], list[float]] = {}
    slowest: dict[str, list[float]] = {}
    starts: dict[str, list[float]] = {}
    sizes: dict[str, list[float]] = {}
    served = peers(project)
    for _ in range(TURNS):
        for server in served:
            folder = project.path if server.name == "ours" else scratch
            with server.running(folder, environment(project, server)) as (port, start, _):
                starts.setdefault(server.name, []).append(start)
                for rows, connections in ((1, 1), (1, 16), (100, 1), (100, 16)):
                    rate, p99 = server.load_test(port, rows, connections, scratch / "load.lua")
                    rates.setdefault((server.name, rows, connections), []).append(rate)
                    if (rows, connections) == (1, 1):
                        slowest.setdefault(server.name, []).append(p99)
                pid = int(
                    subprocess.check_output(
                        ["pgrep", "-f", f"port[= ]{port}|lit.py {port}"], text=True
                    ).split()[0]
                )
                sizes.setdefault(server.name, []).append(memory(pid))
    rate = {key: statistics.median(values) for key, values in rates.items()}
    for server in served:
        figures = ", ".join(
            f"{rows} row{'s' * (rows > 1)} at {c}: {rate[server.name, rows, c]:,.0f}/s"
            for rows, c in ((1, 1), (1, 16), (100, 1), (100, 16))
        )
        print(
            f"{server.name:10}{figures}, p99 {statistics.median(slowest[server.name]):.2f} ms, "
            f"{statistics.median(sizes[server.name]):.0f} MB, starts in {statistics.median(starts[server.name]):.1f} s"
        )
    lines = []
    for name in ("mlflow", "bentoml", "litserve"):
        ratio = rate["ours", 1, 16] / rate[name, 1, 16]
        lines.append((f"1 row, 16 connections, against {name}", ratio, ">= 40 x", ratio >= 40))
    ratio = rate["ours", 1, 16] / rate["empty", 1, 16]
    lines.append(("the same against an empty FastAPI handler", ratio, ">= 0.7 x", ratio >= 0.7))
    late = statistics.median(slowest["ours"]) / statistics.median(slowest["empty"])
    lines.append(("p99, 1 connection, against the empty handler", late, "<= 3 x", late <= 3))
    best = max(rate[name, 100, 16] for name in ("mlflow", "bentoml", "litserve"))
    batch_ratio = rate["ours", 100, 16] / best
    lines.append(
        ("100 rows against the best of the three", batch_ratio, ">= 5 x", batch_ratio >= 5)
    )
    start, size = statistics.median(starts["ours"]), max(sizes["ours"])
    lines.append(("start to first answer", start, "<= 2 s", start <= 2))
    lines.append(("memory of one worker, after the load, in MB", size, "<= 150", size <= 150))
    return lines
