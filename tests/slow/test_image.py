"""What the image and the edge folder hold is enough: their steps, run here in clean folders without Docker."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import ENV, Project, made_once

TRAINING = {
    "dvc", "lightgbm", "matplotlib", "onnx", "onnxmltools", "pandas", "pyarrow", "scikit-learn", "scipy",
    "skl2onnx",
}  # fmt: skip
MAX_IMAGE_MB = 350


def sql(project: Project, query: str) -> list[list[object]]:
    """What the project's own DuckDB answers."""
    code = "import duckdb, json, sys; print(json.dumps(duckdb.execute(sys.argv[1]).fetchall()))"
    return json.loads(project.call("uv", "run", "--quiet", "python", "-c", code, query).stdout)


def stages(text: str) -> list[list[tuple[str, str]]]:
    """The instructions of a Dockerfile, by stage, with their arguments."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", text))
    lines = [line.split(" ", 1) for line in joined.splitlines() if line.strip()]
    starts = [index for index, (name, _) in enumerate(lines) if name == "FROM"]
    return [
        [(name, arguments) for name, arguments in lines[start:end]]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)
    ]


@pytest.fixture(scope="module")
def image(ran, common, problem_type) -> tuple[Project, dict[str, str]]:
    """A folder with what the image's /app gets, made by its own steps, and its last stage's settings."""
    build, final = stages(ran.read("ops/Dockerfile"))
    env: dict[str, str] = {}
    for name, instruction in [*build, *final]:
        if name == "ENV":
            env |= dict(assignment.split("=", 1) for assignment in shlex.split(instruction))

    def make(root: Path) -> None:
        build_image(ran, root / "app", [*build, *final], env["UV_LINK_MODE"])

    app = Project(made_once(common / f"image-{problem_type}", make) / "app")
    env = {name: value.replace("/app", str(app.path)) for name, value in env.items()}
    env["PATH"] = env["PATH"].replace("$PATH", ENV["PATH"])
    return app, env | {"ENTRYPOINT": dict(final)["ENTRYPOINT"], "CMD": dict(final)["CMD"]}


def build_image(
    ran: Project, folder: Path, instructions: list[tuple[str, str]], link_mode: str
) -> None:
    """Take the steps that copy files or install into the folder, which stands for /app."""
    app = Project(folder)
    app.path.mkdir()
    for name, instruction in instructions:
        arguments = shlex.split(instruction)
        if name == "COPY" and not arguments[0].startswith("--from"):
            for source in (path for name in arguments[:-1] for path in ran.path.glob(name)):
                target = app.path / arguments[-1]
                target = target / source.name if arguments[-1].endswith("/") else target
                if source.is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(source, target, ignore=ignored)
                else:
                    shutil.copy(source, target)
        elif name == "RUN" and arguments[0] in ("uv", "python"):
            app.call(*arguments, UV_LINK_MODE=link_mode, UV_COMPILE_BYTECODE="1")
    shutil.copytree(ran.path / "models", app.path / "models")  # what is mounted
    (app.path / "monitoring").mkdir()


def test_the_image_holds_no_training_library_and_is_small(image):
    app, _ = image
    listed = app.call("uv", "pip", "list", "--python", ".venv", "--format", "json").stdout
    names = {package["name"] for package in json.loads(listed)}
    assert {"onnxruntime", "uvicorn", "duckdb"} <= names
    assert names & TRAINING == set()
    files = [path for path in app.path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < MAX_IMAGE_MB * 1e6


def test_the_image_scores_a_file(image, ran, tmp_path):
    app, env = image
    entry = json.loads(env["ENTRYPOINT"])
    entry[0] = str(app.path / ".venv/bin/python")
    file = str(ran.path / "data/raw/events.parquet")
    arguments = ["score", file, "--out", str(tmp_path / "image.parquet")]
    app.call(*entry, *arguments, PYTHONPATH=env["PYTHONPATH"])
    ran.cli("score", file, "--out", str(tmp_path / "project.parquet"))
    same = "SELECT count(*) FROM (FROM '{0}/image.parquet' EXCEPT FROM '{0}/project.parquet')"
    assert sql(ran, same.format(tmp_path)) == [[0]]


def test_the_image_starts_with_a_token_only_and_is_healthy(image, ran):
    app, env = image
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [*json.loads(env["ENTRYPOINT"]), *json.loads(env["CMD"])]
    command[0] = str(app.path / ".venv/bin/python")
    command = [port if argument == "8000" else argument for argument in command]
    env = {**ENV, "PYTHONPATH": env["PYTHONPATH"]}
    done = subprocess.run(command, cwd=app.path, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "SERVE_TOKEN" in done.stderr
    check = re.search(r"CMD (\[\"python\".*urllib.*\])", ran.read("ops/Dockerfile"))
    assert check is not None
    healthy = [command[0], *json.loads(check[1].replace("8000", port))[1:]]
    with subprocess.Popen(command, cwd=app.path, env={**env, "SERVE_TOKEN": "secret"}) as process:
        try:
            until = time.monotonic() + 30
            while subprocess.run(healthy, env=env, capture_output=True).returncode:
                assert process.poll() is None
                assert time.monotonic() < until, "not healthy within 30 s"
                time.sleep(0.1)
        finally:
            process.terminate()
    assert process.returncode in (0, -15)


def test_the_edge_folder_needs_onnxruntime_and_numpy_alone(ran, tmp_path):
    folder, file = Project(tmp_path / "edge"), ran.path / "data/raw/events.parquet"
    assert "edge" in ran.cli("export", str(folder.path)).stdout
    rows = f"SELECT * EXCLUDE (label, label_time) FROM '{file}' LIMIT 500"
    sql(ran, f"COPY ({rows}) TO '{tmp_path}/rows.csv'")
    ran.cli("score", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "out.parquet"))
    folder.call("uv", "venv", "--quiet", str(tmp_path / "env"))
    python = str(tmp_path / "env/bin/python")
    folder.call("uv", "pip", "install", "--quiet", "--python", python, "numpy", "onnxruntime")
    names = json.loads(
        folder.call("uv", "pip", "list", "--python", python, "--format", "json").stdout
    )
    assert {package["name"] for package in names} & (TRAINING | {"duckdb", "pydantic"}) == set()
    done = subprocess.run(
        [python, "predict.py"], cwd=folder.path, env=ENV, capture_output=True, text=True,
        input=(tmp_path / "rows.csv").read_text(encoding="utf-8"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores = [json.loads(line)["score"] for line in done.stdout.splitlines()]
    expected = sql(ran, f"SELECT score FROM '{tmp_path}/out.parquet'")
    assert scores == [score for (score,) in expected]


def test_a_smaller_model_is_shown_with_its_price_and_bench_with_its_pick(ran):
    if ran.has_words_for("compress"):
        assert ran.compress()
    assert "score --rows" in ran.cli("bench").stdout
    assert (ran.path / "reports/bench.png").is_file()
    ran.git("checkout", "--quiet", "--", ".")
    ran.git("clean", "--quiet", "--force", "reports")
    shutil.rmtree(ran.path / "models/compressed", ignore_errors=True)
