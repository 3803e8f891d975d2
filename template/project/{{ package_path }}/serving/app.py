"""The service's addresses. `POST /predict` is answered first, in as few steps as there can be; the
rest goes through Starlette.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import hmac
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from ..repository import PRODUCTION, verified
from ..settings import Settings, UserError, load
from . import metrics, v2
from .openapi import document
from .bounded import Problem, Refused
from .service import CHAMPION, SECOND, Service, read_labels

TOKEN = "SERVE_TOKEN"  # the environment variable with the secret that callers must show
LOOPBACK = ("127.0.0.1", "::1", "localhost")
OPEN = ("/v2/health/live", "/v2/health/ready")  # for those who only ask whether it lives
PAGE = Path(__file__).with_name("page.html")
CARD = "reports/model_card.md"
MONITOR = "reports/monitor.prom"
JSON = [(b"content-type", b"application/json")]

log = logging.getLogger("serving")
encode = msgspec.json.encode
Handler = Callable[[Request, bytes], Awaitable[Response]]


class App:
    """The ASGI application of one worker process."""

    def __init__(self, settings: Settings, root: Path, token: str | None = None) -> None:
        self.settings, self.root = settings, root
        self._secrets = _headers(token)
        self._most = int(settings.serving.limits.body_mb * 1e6)
        self.service: Service | None = None
        self._rest = Starlette(routes=self._routes(), lifespan=self._lifespan)

    @property
    def live(self) -> Service:
        assert self.service is not None  # the server starts the lifespan first
        return self.service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        path = scope["path"]
        if self._secrets and path not in OPEN and not self._may(scope):
            metrics.requested("refused", 401)
            denied = [*JSON, (b"www-authenticate", b'Basic realm="the service token as password"')]
            await _send(
                send, 401, encode({"error": "unauthorized: show the service's token"}), denied
            )
        elif path == "/predict" and scope["method"] == "POST":
            status, body = await self._answered(receive, self._predict)
            metrics.requested(path, status)
            await _send(send, status, body, JSON)
        else:
            await self._rest(scope, receive, send)

    def _may(self, scope: Any) -> bool:
        given = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
        if given.lower().startswith(b"basic "):
            try:
                given = b"Basic " + base64.b64decode(given[6:]).partition(b":")[2]
            except ValueError:
                return False
        return any(hmac.compare_digest(given, secret) for secret in self._secrets)

    async def _answered(
        self, receive: Any, work: Callable[[bytes], Awaitable[bytes]]
    ) -> tuple[int, bytes]:
        """Read a body and answer it, within the limits."""
        try:
            return 200, await work(await self._body(receive))
        except Refused as refused:
            return refused.status, encode({"error": "refused", "problems": refused.problems})

    async def _body(self, receive: Any) -> bytes:
        """The request's body.

        Raises:
            Refused: 413 when it is too large, 408 when it takes too long to come.
        """
        message = await receive()
        body = message.get("body", b"")
        if message.get("more_body"):
            parts, size = [body], len(body)
            try:
                async with asyncio.timeout(self.settings.serving.limits.seconds):
                    while message.get("more_body") and size <= self._most:
                        message = await receive()
                        parts.append(message.get("body", b""))
                        size += len(parts[-1])
            except TimeoutError:
                raise Refused([Problem("body", "too slow", "within the time limit")], 408) from None
            body = b"".join(parts)
        if len(body) > self._most:
            raise Refused([Problem("body", f"over {self._most:,} bytes", "less")], 413)
        return body

    async def _predict(self, body: bytes) -> bytes:
        service = self.live
        rows, many = service.rows.read(body)
        answers = await service.answer(rows)
        return encode(answers if many else answers[0])

    # --- the other addresses ---

    def _routes(self) -> list[Route]:
        def route(path: str, work: Handler, *methods: str) -> Route:
            async def endpoint(request: Request) -> Response:
                try:
                    body = await self._body(request.receive) if request.method != "GET" else b""
                    response = await work(request, body)
                except Refused as refused:
                    found = {"error": "refused", "problems": refused.problems}
                    response = _json(found, refused.status)
                except v2.Wrong as wrong:
                    response = _json({"error": str(wrong)}, wrong.status)
                metrics.requested(path, response.status_code)
                return response

            return Route(path, endpoint, methods=list(methods or ("GET",)))

        model = "/v2/models/{name}"
        return [
            route("/", self._page),
            route("/model", self._model),
            route("/openapi.json", self._openapi),
            route("/metrics", self._metrics),
            route("/feedback", self._feedback, "POST"),
            route("/reload", self._reload, "POST"),
            route("/router", self._router, "GET", "PUT"),
            route("/v2", self._v2_server),
            route("/v2/health/live", self._v2_live),
            route("/v2/health/ready", self._v2_ready),
            *(
                route(prefix + end, work, *methods)
                for prefix in (model, model + "/versions/{version}")
                for end, work, *methods in (
                    ("", self._v2_model),
                    ("/ready", self._v2_model_ready),
                    ("/infer", self._v2_infer, "POST"),
                )
            ),
        ]

    async def _page(self, request: Request, _: bytes) -> Response:
        return FileResponse(PAGE, media_type="text/html; charset=utf-8")

    async def _model(self, request: Request, _: bytes) -> Response:
        service = self.live
        card = self.root / CARD
        return _json(
            {
                "name": service.name,
                "problem": self.settings.project.problem,
                "degraded": service.arms[CHAMPION].reason or None,
                "arms": {name: arm.version for name, arm in service.arms.items()},
                "router": service.router.status(),
                "columns": service.describe(),
                "card": card.read_text(encoding="utf-8") if card.is_file() else None,
            }
        )

    async def _openapi(self, request: Request, _: bytes) -> Response:
        return _json(document(self.settings, self.live))

    async def _metrics(self, request: Request, _: bytes) -> Response:
        content = metrics.exposition()
        if (report := self.root / MONITOR).is_file():  # what `monitor` found last
            content += report.read_bytes()
        return Response(content, media_type=metrics.CONTENT_TYPE)

    async def _feedback(self, request: Request, body: bytes) -> Response:
        labels = read_labels(body, self.settings.serving.limits.rows)
        self.live.feedback(labels)
        return _json({"taken": len(labels)})

    async def _reload(self, request: Request, _: bytes) -> Response:
        service = self.live
        await asyncio.to_thread(service.router.bump)
        await asyncio.to_thread(service.tick)
        return _json({name: arm.version for name, arm in service.arms.items()})

    async def _router(self, request: Request, body: bytes) -> Response:
        router = self.live.router
        if request.method == "PUT":
            await asyncio.to_thread(self.live.change, body)
        return _json(await asyncio.to_thread(router.status))

    async def _v2_server(self, request: Request, _: bytes) -> Response:
        return _json(v2.server(self.live))

    async def _v2_live(self, request: Request, _: bytes) -> Response:
        return _json({"live": True})

    async def _v2_ready(self, request: Request, _: bytes) -> Response:
        # Without its model the service still answers: ready, and `degraded` in the metrics
        return _json({"ready": True})

    async def _v2_model(self, request: Request, _: bytes) -> Response:
        return _json(v2.model(self.live, **request.path_params))

    async def _v2_model_ready(self, request: Request, _: bytes) -> Response:
        v2.check(self.live, **request.path_params)
        return _json({"name": self.live.name, "ready": True})

    async def _v2_infer(self, request: Request, body: bytes) -> Response:
        v2.check(self.live, **request.path_params)
        length = request.headers.get("inference-header-content-length")
        content, headers = await v2.infer(self.live, body, length)
        return Response(content, headers=headers)

    # --- life ---

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.service = service = Service(self.settings, self.root, bool(self._secrets))
        loop = asyncio.get_running_loop()
        # Not in a test's server, which runs outside of the main thread
        with suppress(RuntimeError, ValueError):
            if sys.platform != "win32":  # which has no such signal
                loop.add_signal_handler(signal.SIGHUP, loop.run_in_executor, None, service.load)
        log.info("ready", extra={"model": service.arms[CHAMPION].version.model})
        yield
        await asyncio.to_thread(service.close)
        log.info("stopped")


def _headers(token: str | None) -> tuple[bytes, ...]:
    return (f"Bearer {token}".encode(), f"Basic {token}".encode()) if token else ()


async def _send(send: Any, status: int, body: bytes, headers: Any) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def _json(content: Any, status: int = 200) -> Response:
    return Response(encode(content), status, media_type="application/json")


class _JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, and what was given as `extra`."""

    PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "color_message"}

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "pid": record.process,
            **{k.rstrip("_"): v for k, v in vars(record).items() if k not in self.PLAIN},
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def create() -> App:
    """What a worker process starts with."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Slow answers are rare and come from waiting: for a thread that writes logs, for the collector
    sys.setswitchinterval(0.0005)
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    root = Path()
    return App(load(root / "params.yaml"), root, os.environ.get(TOKEN))


def serve(host: str, port: int, workers: int) -> None:
    """Serve until told to stop (SIGTERM, Ctrl-C); SIGHUP reloads the models, where there is one.

    Raises:
        UserError: when others could reach it and no token is set, the port is not to be had, or a
            model is not the one that git names.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    for folder in (PRODUCTION, SECOND):
        verified(Path(), folder)
    if host not in LOOPBACK and not os.environ.get(TOKEN):
        raise UserError(
            f"--host {host} lets others in: set the secret first, `export {TOKEN}=...`, "
            f"or serve on 127.0.0.1"
        )
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise UserError(
            f"{host}:{port} is not to be had ({error.strerror}); --port N takes another"
        ) from None
    with tempfile.TemporaryDirectory(prefix="metrics-") as folder:
        if workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        config = uvicorn.Config(
            f"{__name__}:create",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            date_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=30,
        )
        server = uvicorn.Server(config)
        if workers == 1:
            server.run()
            return

        class Workers(Multiprocess):
            def handle_hup(self) -> None:
                """Let every worker reload in place: none stops, no connection is lost."""
                if sys.platform != "win32":
                    for process in self.processes:
                        os.kill(process.pid, signal.SIGHUP)

        Workers(config, sockets=[config.bind_socket()]).run()
