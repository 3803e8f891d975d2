"""The service's addresses. `POST /predict` is answered first, in as few steps as there can be; the
rest goes through Starlette.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from ..parts import optional_module, part_module, parts_here
from ..paths import MODEL_CARD, MONITOR_METRICS, SETTINGS_FILE
from ..scoring.state import StoreError
from ..settings import Settings, load
from . import metrics, v2
from .access import (
    OPERATE,
    OPERATOR_PATHS,
    SECURITY_HEADERS,
    TOKEN,
    Access,
    Denial,
    page_policy,
    secret,
)
from .bounded import Problem, Refused, inflate, told_once
from .ids import PACKED, REQUEST, Headers, identify
from .openapi import document
from .service import CHAMPION, Service, read_labels

PAGE = Path(__file__).with_name("page.html")
FORECAST = optional_module("serving.forecast")  # None: no rows make series
RECOMMEND = optional_module("serving.recommend")  # None: no lists of items are answered
LIMITS = part_module("governance.limits")  # None: no caller has a limit
JSON_HEADERS = [(b"content-type", b"application/json")]
OVERSEEN = ("/stop", "/resume", "/appeal")  # addresses of the part governance
CUT = "cut"  # the server puts a status here when it waits no longer for the rest of a body
MAX_HELD_BODIES = 16  # of the largest that is allowed: so much of unfinished bodies is kept at once
CUT_PROBLEMS = {
    400: ("no HTTP", "a body as its headers say"),
    408: ("too slow", "within the time limit"),
    413: ("too large", "less"),
}

log = logging.getLogger("serving")
encode = msgspec.json.encode
Handler = Callable[[Request, bytes], Awaitable[Response]]


class ClientGone(Exception):
    """The client went away before its request was whole."""


class App:
    """The ASGI application of one worker process.

    Args:
        root: the project's folder, with the models, the logs and the router's state.
        token: the secret that callers must show; None: everybody may ask.
        operate: the secret for /router and /reload; None: the callers' serves for both.
    """

    def __init__(
        self, settings: Settings, root: Path, token: str | None = None, operate: str | None = None
    ) -> None:
        self.settings, self.root = settings, root
        self._access = Access(token, operate)
        self._limits = LIMITS and LIMITS.make(settings, OPERATOR_PATHS)
        self._max_body = int(settings.serving.limits.body_mb * 1e6)
        self._held_bytes = 0  # bytes of bodies that are not whole yet
        self._page_content = PAGE.read_bytes()
        self._page_policy = page_policy(self._page_content)
        self.service: Service | None = None
        self._serves_paths = bool(FORECAST and FORECAST.serves(settings))
        self._recommends = bool(RECOMMEND and RECOMMEND.serves(settings))
        routes = self._routes()
        self._routing = Router(routes, redirect_slashes=False, lifespan=self._lifespan)
        self._methods = {route.path: sorted(route.methods or ()) for route in routes}
        self._methods |= {"/predict": ["POST"]}
        self._patterns = [(route.path_regex, route.path) for route in routes if "{" in route.path]
        metrics.init_counters(self._methods)

    @property
    def live(self) -> Service:
        """The service behind the addresses, once the lifespan has begun."""
        assert self.service is not None  # the server starts the lifespan first
        return self.service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._routing(scope, receive, send)
            return
        start = time.perf_counter()
        method, path = scope["method"], scope["path"]
        echoed = identify(scope)
        denial = self._access.denial(scope) or self.live.gone(path)
        if self._limits and denial is None and (seconds := self._limits.wait(scope)):
            denial = _too_many("requests", seconds)
        if denial is None and path == "/predict" and method == "POST":
            try:
                status, headers = 200, JSON_HEADERS
                body = await self._predict(await self._body(scope, receive), scope)
            except Exception as error:  # whatever it is, the caller gets an answer
                status, body, headers = self._error_answer(scope, error)
            metrics.count_request(method, path, status, time.perf_counter() - start)
            await _send(send, status, body, [*headers, *echoed])
            return
        route = self._route_path(path)
        try:
            if denial is not None:
                status, message, headers = denial
                added = [*headers, *echoed, *SECURITY_HEADERS]
                await _send(send, status, encode({"error": message}), [*JSON_HEADERS, *added])
            else:
                status = await self._answer_route(scope, receive, send, route, echoed)
        except Exception as error:
            status, body, headers = self._error_answer(scope, error)
            await _send(send, status, body, [*headers, *echoed, *SECURITY_HEADERS])
        metrics.count_request(method, route or metrics.UNKNOWN, status, time.perf_counter() - start)

    def _route_path(self, path: str) -> str | None:
        """An address as it is routed, `/v2/models/{name}` for one; None for an unknown one."""
        if path in self._methods:
            return path
        return next((name for pattern, name in self._patterns if pattern.match(path)), None)

    async def _answer_route(
        self, scope: Any, receive: Any, send: Any, route: str | None, echoed: Headers
    ) -> int:
        """Let Starlette answer; returns the status.

        Raises:
            Exception: whatever a handler raises before its answer began.
        """
        status = 0

        async def guarded(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *echoed, *SECURITY_HEADERS]
            await send(message)

        if route is None:
            response = _json({"error": "no such address: GET /openapi.json lists them"}, 404)
        elif scope["method"] not in (methods := self._methods[route]):
            allowed = {"allow": ", ".join([*methods, "OPTIONS"])}
            if scope["method"] == "OPTIONS":
                response = Response(status_code=204, headers=allowed)
            else:
                response = _json({"error": f"{route} takes {allowed['allow']}"}, 405, allowed)
        else:
            try:
                await self._routing(scope, receive, guarded)
            except Exception as error:
                if not status:
                    raise
                self._error_answer(scope, error)  # too late for another answer
            return status
        await response(scope, receive, guarded)
        return status

    def _error_answer(self, scope: Any, error: Exception) -> tuple[int, bytes, Headers]:
        """What a client is told of an error: its status, body and headers.

        An error that nobody foresaw is logged with the request's id, in one line, and only its id is told.
        """
        match error:
            case Refused():
                content: dict[str, Any] = {"error": "refused", "problems": error.problems}
                accepts = [(b"accept-encoding", b"gzip")] if error.status == 415 else []
                return error.status, encode(content), [*JSON_HEADERS, *accepts]
            case v2.V2Error():
                return error.status, encode({"error": str(error)}), JSON_HEADERS
            case StoreError():
                return 503, encode({"error": str(error)}), JSON_HEADERS
            case ClientGone():
                return metrics.CLIENT_GONE, b"", []
            case _:
                id, method = scope[REQUEST], scope["method"]
                details = {"request": id, "method": method, "path": scope["path"]}
                log.error("a request failed", exc_info=error, extra=details)
                return 500, encode({"error": "internal error", "request": id}), JSON_HEADERS

    async def _body(self, scope: Any, receive: Any) -> bytes:
        """The request's body.

        Raises:
            Refused: 413 when it is too large, 408 when it takes too long to come, 503 when too much
                of other bodies is waited for.
            Gone: when the client went away.
        """
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            parts, size = [body], len(body)
            self._held_bytes += size
            try:
                while message.get("more_body") and size <= self._max_body:
                    if cut := scope.get(CUT):
                        raise Refused([Problem("body", *CUT_PROBLEMS[cut])], cut)
                    if self._held_bytes > MAX_HELD_BODIES * self._max_body:
                        raise Refused([Problem("body", "one of too many", "a later try")], 503)
                    message = await receive()
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    self._held_bytes += len(parts[-1])
            finally:
                self._held_bytes -= size
            body = b"".join(parts)
        if message["type"] == "http.disconnect":
            raise ClientGone
        if len(body) > self._max_body:
            raise Refused([Problem("body", f"over {self._max_body:,} bytes", "less")], 413)
        return inflate(body, scope[PACKED], self._max_body) if PACKED in scope else body

    async def _predict(self, body: bytes, scope: Any) -> bytes:
        service = self.live
        is_explained = service.explaining.is_asked(scope["query_string"])
        rows, is_list = service.rows.read(body)
        answer = service.explain if is_explained else service.answer
        answers = await answer(rows, scope[REQUEST])
        return encode(answers if is_list else answers[0])

    # --- the other addresses ---

    def _routes(self) -> list[Route]:
        def route(path: str, handler: Handler, *methods: str) -> Route:
            async def endpoint(request: Request) -> Response:
                reads = request.method in ("GET", "HEAD")
                body = b"" if reads else await self._body(request.scope, request.receive)
                return await handler(request, body)

            return Route(path, endpoint, methods=list(methods or ("GET",)))

        model = "/v2/models/{name}"
        return [
            route("/", self._page),
            route("/model", self._model),
            route("/openapi.json", self._openapi),
            route("/metrics", self._metrics),
            *([route("/forecast", self._forecast, "POST")] if self._serves_paths else []),
            *([route("/recommend", self._recommend, "POST")] if self._recommends else []),
            route("/known", self._known),
            route("/feedback", self._feedback, "POST"),
            route("/reload", self._reload, "POST"),
            *(route(path, self._oversee, "POST") for path in OVERSEEN if LIMITS),
            route("/router", self._router, "GET", *(["PUT"] if "rollout" in parts_here() else [])),
            route("/v2", self._v2_server),
            route("/v2/health/live", self._v2_live),
            route("/v2/health/ready", self._v2_ready),
            *(
                route(prefix + end, handler, *methods)
                for prefix in (model, model + "/versions/{version}")
                for end, handler, *methods in (
                    ("", self._v2_model),
                    ("/ready", self._v2_model_ready),
                    ("/infer", self._v2_infer, "POST"),
                )
            ),
        ]

    async def _page(self, request: Request, _: bytes) -> Response:
        policy = {"content-security-policy": self._page_policy.decode()}
        return Response(self._page_content, headers=policy, media_type="text/html")

    async def _model(self, request: Request, _: bytes) -> Response:
        service = self.live
        card = self.root / MODEL_CARD
        return _json(
            {
                "name": service.name,
                "problem": self.settings.project.problem,
                "degraded": service.arms[CHAMPION].reason or None,
                "arms": {name: arm.version for name, arm in service.arms.items()},
                "router": await asyncio.to_thread(self._router_status),
                **({"stopped": service.oversight.stop} if service.oversight else {}),
                "unloaded": service.unloaded or None,
                **({"retired": service.retired} if service.retired else {}),
                "columns": service.describe(),
                "explains": not service.explaining.refusal,
                "online_store": service.store.describe() if service.store is not None else {},
                "series": FORECAST.described(self.settings) if self._serves_paths else None,
                "retrieval": RECOMMEND.described(self.settings) if self._recommends else None,
                "card": card.read_text(encoding="utf-8") if card.is_file() else None,
            }
        )

    def _router_status(self) -> dict[str, Any]:
        try:
            return self.live.router.status()
        except StoreError as error:  # the page has more to show
            return {**self.live.router.last_status(), "error": str(error)}

    async def _openapi(self, request: Request, _: bytes) -> Response:
        return _json(document(self.settings, self.live))

    async def _metrics(self, request: Request, _: bytes) -> Response:
        content = metrics.exposition()
        try:
            content += (self.root / MONITOR_METRICS).read_bytes()  # what `monitor` found last
        except FileNotFoundError:
            pass
        except OSError as error:  # the service's own metrics are worth having without it
            log.warning("monitor's metrics unreadable", extra={"reason": str(error)})
        return Response(content, media_type=metrics.CONTENT_TYPE)

    async def _forecast(self, request: Request, body: bytes) -> Response:
        bounds = (time.time(), self._max_body)
        steps = FORECAST.steps_of(body, self.settings, *bounds, self.live.store)
        try:
            rows, _ = self.live.rows.read(steps)
            return _json(await self.live.answer(rows, request.scope[REQUEST]))
        except Refused as error:
            raise Refused(told_once(error.problems), error.status) from None

    async def _recommend(self, request: Request, body: bytes) -> Response:
        answered = RECOMMEND.recommend(body, self.settings, self.live, request.scope[REQUEST])
        return _json(await answered)

    async def _known(self, request: Request, _: bytes) -> Response:
        """What the online store knows of a value of a column."""
        store, query = self.live.store, request.query_params
        values = store and store.values_of(query.get("column", ""), query.get("value"))
        if values is not None:
            return _json(values)
        counts = store.describe() if store else {}
        listed = ", ".join(f"{entry['count']:,} of {column}" for column, entry in counts.items())
        error = f"not known; known are {listed or 'none yet, `materialize` writes them'}"
        return _json({"error": error}, 404)

    async def _feedback(self, request: Request, body: bytes) -> Response:
        labels = read_labels(body, self.settings.serving.limits.rows)
        if self._limits and (seconds := self._limits.wait_for_labels(request.scope, len(labels))):
            status, message, headers = _too_many("labels", seconds)
            return _json({"error": message}, status, {k.decode(): v.decode() for k, v in headers})
        self.live.feedback(labels)
        return _json({"taken": len(labels)})

    async def _oversee(self, request: Request, body: bytes) -> Response:
        return _json(await asyncio.to_thread(self.live.oversee, request.url.path, body))

    async def _reload(self, request: Request, _: bytes) -> Response:
        service = self.live
        reasons = await asyncio.to_thread(service.reload)
        versions = {name: arm.version for name, arm in service.arms.items()}
        if not reasons:
            return _json(versions)
        failures = "; ".join(f"{source}: {reason}" for source, reason in reasons.items())
        return _json({"error": f"not loaded, what works stays: {failures}", "arms": versions}, 409)

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
        # Without its model the service still answers: `serving.ready` says whether that will do
        return self._readiness({})

    async def _v2_model(self, request: Request, _: bytes) -> Response:
        return _json(v2.model(self.live, **request.path_params))

    async def _v2_model_ready(self, request: Request, _: bytes) -> Response:
        v2.check(self.live, **request.path_params)
        return self._readiness({"name": self.live.name})

    def _readiness(self, fields: dict[str, Any]) -> Response:
        if self.live.ready:
            return _json({**fields, "ready": True})
        return _json({**fields, "ready": False, "error": "the model does not answer"}, 503)

    async def _v2_infer(self, request: Request, body: bytes) -> Response:
        v2.check(self.live, **request.path_params)
        length = request.headers.get("inference-header-content-length")
        content, headers = await v2.infer(self.live, body, length, request.scope[REQUEST])
        return Response(content, headers=headers)

    # --- life ---

    @asynccontextmanager
    async def _lifespan(self, _: Any) -> AsyncIterator[None]:
        self.service = service = Service(self.settings, self.root, self._access.guarded)
        loop = asyncio.get_running_loop()
        # Not in a test's server, which runs outside of the main thread
        with suppress(RuntimeError, ValueError):
            if sys.platform != "win32":  # which has no such signal
                loop.add_signal_handler(signal.SIGHUP, loop.run_in_executor, None, service.load)
        log.info("ready", extra={"model": service.arms[CHAMPION].version.model})
        yield
        await asyncio.to_thread(service.close)
        log.info("stopped")


async def _send(send: Any, status: int, body: bytes, headers: Any) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def _too_many(counted: str, seconds: int) -> Denial:
    """Refuse a caller that is over its limit (RFC 6585), and say when it may come again."""
    again = (b"retry-after", str(seconds).encode())
    return 429, f"too many {counted} in a minute: try again in {seconds} s", [again]


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(content), status, headers, media_type="application/json")


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


def log_as_json() -> None:
    """Let every logger of this process write lines of JSON to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def create() -> App:
    """The application of the project in the working folder, with the secrets of the environment.

    Raises:
        UserError: when params.yaml is wrong, or a secret cannot be used.
    """
    log_as_json()
    # Slow answers are rare and come from waiting: for a thread that writes logs, for the collector
    sys.setswitchinterval(0.0005)
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    root = Path()
    return App(load(root / SETTINGS_FILE), root, secret(TOKEN), secret(OPERATE))
