"""The image as compose.yaml runs it, without Docker: its steps in a folder, mounted, read-only, as another user."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import yaml

from .conftest import ENV, Project
from .test_image import image, sql
from .test_project import Copy
from .test_serving import copy, rows, wait_for

__all__ = ["copy", "image", "rows"]  # fixtures
ROOM = "/mnt"  # where the image's /app is mounted
# What Docker does with an image: a file system of its own, read-only, with what compose mounts into it
MOUNT_SCRIPT = """
set -e
python=$(dirname "$(dirname "$(realpath "$1/.venv/bin/python")")")
mount -t tmpfs -o mode=755 tmpfs /media
mkdir /media/app /media/python
mount --bind "$1" /media/app
mount --bind "$python" /media/python
for folder in models reports monitoring; do
  mkdir -p "/media/$folder"
  mount --bind "$2/$folder" "/media/$folder"
done
mount --bind /media/app {room}
for folder in models reports monitoring; do mount --bind "/media/$folder" "{room}/$folder"; done
for folder in {read_only}; do mount -o remount,ro,bind "{room}/$folder"; done
mount -t tmpfs -o mode=755 tmpfs /root
mkdir -p "$python"
mount --bind /media/python "$python"
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -o remount,ro,bind {room}
cd {room}
shift 2
exec setpriv --reuid "$1" --regid "$2" --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "${@:3}"
"""


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


class Container:
    """The service as compose.yaml describes it, and what is mounted into it."""

    def __init__(
        self,
        image: tuple[Project, dict[str, str]],
        project: Project,
        user: str,
        more_read_only: str = "",
    ) -> None:
        app, env = image
        compose = yaml.safe_load(project.read("ops/compose.yaml"))
        service = compose["services"]["serve"]
        assert service["read_only"]
        mounts = [volume.split(":") for volume in service["volumes"]]
        assert {mount[0] for mount in mounts} == {"../models", "../reports", "../monitoring"}
        assert {mount[1] for mount in mounts} == {"/app/models", "/app/reports", "/app/monitoring"}
        assert service["tmpfs"] == ["/tmp"]
        read_only = [mount[0].removeprefix("../") for mount in mounts if mount[2:] == ["ro"]]
        script = MOUNT_SCRIPT.replace("{room}", ROOM)
        script = script.replace("{read_only}", " ".join([*read_only, more_read_only]))
        for name in ("models", "reports", "monitoring"):
            (app.path / name).mkdir(exist_ok=True)
        self.port, self.project = free_port(), project
        command = [*json.loads(env["ENTRYPOINT"]), *json.loads(env["CMD"])]
        command = [f"{ROOM}/.venv/bin/python", *command[1:]]
        command = [self.port if argument == "8000" else argument for argument in command]
        environment = {
            "PYTHONPATH": f"{ROOM}/src",
            "HOME": env["HOME"],
            "SERVE_TOKEN": "secret",
            "PATH": os.environ["PATH"],
        }
        self.log_file = app.path.parent / "told.log"
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "bash", "-c", script, "-", str(app.path), str(project.path),
                 *user.split(":"), *command],
                env=environment, stderr=log, stdout=log,
            )  # fmt: skip

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: object = None) -> object:
        connection = http.client.HTTPConnection("127.0.0.1", int(self.port), timeout=20)
        connection.request(
            method,
            path,
            None if body is None else json.dumps(body),
            {"Authorization": "Bearer secret"},
        )
        answer = connection.getresponse()
        content = answer.read().decode()
        connection.close()
        assert answer.status == 200, content
        return json.loads(content) if content.startswith(("{", "[")) else content

    def up(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, self.log_file.read_text()
            with contextlib.suppress(OSError):
                return bool(self.ask("GET", "/v2/health/ready"))
            return False

        wait_for(answers)

    def model(self) -> str:
        return str(self.ask("GET", "/model")["arms"]["champion"]["model"])  # type: ignore[index]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@pytest.fixture
def container(image, copy) -> Iterator[object]:
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root of a Linux machine may mount")
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True)
    if done.returncode:
        pytest.skip("no mounts of one's own here")
    started: list[Container] = []

    def start(user: str, more_read_only: str = "") -> Container:
        started.append(Container(image, copy, user, more_read_only))
        return started[-1]

    yield start
    for service in started:
        service.stop()


def another(project: Copy) -> str:
    """A model that was in production before: the baseline in the model's place; its version."""
    folder = project.path / "models/previous"
    shutil.copytree(project.path / "models/production", folder)
    shutil.copy(folder / "baseline.onnx", folder / "model.onnx")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {key: manifest["baseline"][key] for key in ("sha256", "decision")}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return str(manifest["sha256"][:12])


def owned(project: Copy, user: int, group: int, mode: int) -> None:
    """Give monitoring/ and what is in it to somebody."""
    for path in (project.path / "monitoring", *(project.path / "monitoring").rglob("*")):
        os.chown(path, user, group)
        path.chmod(mode if path.is_dir() else mode & 0o666)


@pytest.mark.parametrize(
    ("user", "owner"),
    [("4711:4711", (4711, 4711, 0o755)), ("4712:0", (0, 0, 0o775))],
    ids=["owner", "group 0"],
)
def test_commands_beside_the_service_reach_it(container, copy, rows, user, owner):
    before = another(copy)
    owned(copy, *owner)
    served = container(user)
    served.up()
    now = served.model()
    assert now != before
    served.ask("POST", "/predict", rows[:300])
    copy.cli("rollback")
    wait_for(lambda: served.model() == before)
    copy.cli("rollback", "--url", served.url, SERVE_TOKEN="secret")
    assert served.model() == now
    assert "mode shadow" in copy.cli("rollout", "mode=shadow").stdout
    wait_for(lambda: served.ask("GET", "/router")["mode"] == "shadow")  # type: ignore[index]
    assert (
        "mode ab"
        in copy.cli("rollout", "mode=ab", "--url", served.url, SERVE_TOKEN="secret").stdout
    )
    refused = copy.cli(
        "rollout", "share=7", "--url", served.url, SERVE_TOKEN="secret", code=2
    ).stderr
    assert re.search("422.*share", refused)
    assert "401" in copy.cli("rollout", "--url", served.url, code=2, SERVE_TOKEN="").stderr
    nobody = f"http://127.0.0.1:{free_port()}"
    assert "no service answers" in copy.cli("rollout", "--url", nobody, code=2).stderr
    copy.call("bash", "-c", "uv run --quiet my-model monitor; test $? -le 1")
    assert json.loads(copy.read("reports/monitor.json"))["windows"][0]["rows"] == 300
    served.stop()
    files = (copy.path / "monitoring/predictions").glob("*.parquet")
    ((count,),) = sql(copy, f"SELECT count(*) FROM read_parquet({[str(file) for file in files]})")
    assert count == 300


def test_a_folder_that_may_not_be_written_is_one_line_at_the_start(container, copy):
    owned(copy, 0, 0, 0o755)
    for user, read_only in (("4711:4711", ""), ("4711:4711", "monitoring")):
        served = container(user, read_only)
        assert served.process.wait(60) == 2
        (line,) = served.log_file.read_text().splitlines()
        assert line.startswith("error: monitoring/predictions: cannot be written by user 4711")


def test_back_without_git_puts_the_model_back_or_does_nothing(copy):
    before = another(copy)

    def production_version() -> str:
        return str(json.loads(copy.read("models/production/manifest.json"))["sha256"][:12])

    now = production_version()
    shutil.rmtree(copy.path / ".git")
    assert "git" in copy.cli("rollback", code=2).stderr  # DVC's record would be wrong
    assert production_version() == now
    for record in (copy.path / "models").glob("*.dvc"):
        record.unlink()
    assert "no git here" in copy.cli("rollback").stdout
    assert production_version() == before


def test_the_proxy_ends_tls_and_keeps_limits(ran, tmp_path):
    if not shutil.which("caddy"):
        pytest.skip("caddy is not installed (`make` brings it)")
    behind = free_port()
    text, port = ran.read("ops/Caddyfile"), free_port()
    check = [
        "caddy",
        "validate",
        "--adapter",
        "caddyfile",
        "--config",
        str(ran.path / "ops/Caddyfile"),
    ]
    environment = {**ENV, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    assert subprocess.run(check, env=environment, capture_output=True).returncode == 0
    environment |= {"SERVE_UPSTREAM": f"127.0.0.1:{behind}"}
    ports = f"\thttp_port {free_port()}\n\thttps_port {port}\n\tskip_install_trust\n"
    (tmp_path / "Caddyfile").write_text(
        text.replace("{\n\tadmin off\n", "{\n\tadmin off\n" + ports, 1)
    )
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", "Caddyfile"]
    upstream = subprocess.Popen(
        [sys.executable, "-c", ECHO, behind], stdout=subprocess.PIPE, text=True
    )
    proxy = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=(tmp_path / "log").open("w")
    )
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPSConnection(
            "localhost", int(port), timeout=20, context=context
        )
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return ask("GET", "/v2/health/ready")[0] == 200
        return False

    try:
        wait_for(answers)
        assert ask("POST", "/predict", b"x" * 100) == (200, "POST /predict 100")
        assert ask("POST", "/predict", b"x" * 5_000_000)[0] in (413, 502)
        assert ask("GET", "/", Odd="x" * 40_000)[0] == 431
        for path in ("/router", "/reload", "/metrics"):
            assert ask("GET", path)[0] == 403
        started = time.monotonic()
        with socket.create_connection(("localhost", int(port))) as plain:
            half = context.wrap_socket(plain, server_hostname="localhost")
            half.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            half.settimeout(30)
            assert half.recv(100) == b""  # headers that never end
        assert time.monotonic() - started < 25
    finally:
        for process in (proxy, upstream):
            process.terminate()
            process.wait(20)


ECHO = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Echo(BaseHTTPRequestHandler):
    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        content = f"{self.command} {self.path} {length}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
    do_GET = do_POST = answer
    def log_message(self, *arguments):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""
