"""The server in front of the application: clients that dawdle or flood are bounded, and a stop answers
whatever was accepted. uvicorn does the rest.

No timer is set for a request: ten times a second the server looks at all of its connections.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import json
import logging
import os
import re
import signal
import socket
import struct
import sys
import tempfile
import time
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from ..data.schema import require_pillow, require_tokenizers
from ..paths import CHALLENGER, PRODUCTION, SETTINGS_FILE
from ..repository import verified
from ..settings import Limits, UserError, load
from . import ids, metrics
from .access import OPERATE, TOKEN, Access, secret
from .app import CUT, log_as_json
from .service import make_folders

LOOPBACK = ("127.0.0.1", "::1", "localhost")
BACKLOG = 2048
QUIET_SECONDS = 1.0  # seconds without a request, after which a stop ends an open connection
MAX_UNREAD_BYTES = 64_000_000  # bytes of answers that wait for slow readers, all together
RESTART_SECONDS = 2.0  # between replacements of workers
# That a worker has for its first answer: on a busy machine imports alone take many
START_SECONDS = 60.0
MAX_PIPELINED = 100  # requests of one connection behind the one that is answered
MAX_CHUNKS = 20_000  # of a body: each costs a call, however small it is
RESERVED_FILES = 48  # descriptors that the service needs for itself
SO_ATTACH_FILTER = 26  # of Linux
STARTUP_FAILED = 3
# An offer to change to HTTP/2, as Java's clients make it: the parser would take the body for that
UPGRADE = re.compile(rb"\r\nupgrade:", re.I)

log = logging.getLogger("serving")
Sockets = list[socket.socket]


class Phase(IntEnum):
    """What a connection is at."""

    IDLE = 0  # between requests
    HEAD = 1  # a request's headers come
    BODY = 2  # and its body
    ANSWER = 3  # the application works on it
    DRAIN = 4  # answered before it was whole: the rest is thrown away


IDLE, HEAD, BODY, ANSWER, DRAIN = Phase


class State(ServerState):
    """What the connections of a process share."""

    connections: set[Any]  # each a Connection; uvicorn names its own classes

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.now = time.monotonic()
        self.stopping: float | None = None  # since when
        self.max_head_bytes = int(limits.header_kb * 1000)
        self.max_message_bytes = 4 * int(limits.body_mb * 1e6) + self.max_head_bytes
        self.max_connections = _max_connections(limits.connections)


class Excess(Exception):
    """A client sends more pieces than are taken; it stops the parser, which sends on what it makes of it."""


class Lingering:
    """A connection that is closed when the client has read the last answer: at once, it would be reset."""

    def __init__(self, transport: Any) -> None:
        self.write, self.close = transport.write, transport.write_eof


class Connection(HttpToolsProtocol):
    """A client's connection, which is told apart by what it is at, since when, and bytes since then."""

    server_state: State
    answering: Any = None  # the request that is being answered; `cycle` is the one that came last

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.phase, self.since, self.size = HEAD, self.server_state.now, 0
        self.header_count = 0
        self.refused = False  # nothing more is taken
        self.unread_since: float | None = None
        state = self.server_state
        if len(self.connections) > state.max_connections and not make_room(self, state):
            self.refuse(503, "too many connections")

    def data_received(self, data: bytes) -> None:
        if self.phase == IDLE or self.phase == ANSWER:  # of a next request
            self.phase, self.since, self.size = HEAD, self.server_state.now, 0
        self.size += len(data)
        if self.refused:
            if self.size > self.server_state.max_message_bytes:
                self.transport.abort()
            return
        max_head = self.server_state.max_head_bytes
        if self.phase == HEAD and len(data) > max_head and data.find(b"\r\n\r\n", 0, max_head) < 0:
            self.refuse(431, "headers too large")
            return
        if self.phase == HEAD and UPGRADE.search(data):
            head, end, body = data.partition(b"\r\n\r\n")
            data = UPGRADE.sub(b"\r\nx-declined:", head) + end + body
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # in parts, so that its name was not seen
            self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            cause = error.__context__
            self.refuse(*(cause.args if isinstance(cause, Excess) else (400, "not HTTP")))
            return
        if self.phase == HEAD and self.size > max_head:
            self.refuse(431, "headers too large")
        elif self.phase == BODY and len(self.headers) > self.header_count:
            self.refuse(400, "headers behind the body")
        elif self.phase >= BODY and self.size > self.server_state.max_message_bytes:
            self.refuse(413, "body too large")

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Go on where the client has sent all it will send, and still waits for an answer (TCP half-close)."""
        if self.phase != ANSWER or self.refused:
            return None
        self.cycle.keep_alive = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.pipeline.clear()
        if self.answering is not None:
            self.answering.disconnected = True
            self.answering.message_event.set()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_chunk_header(self) -> None:
        self.chunks += 1
        if self.chunks > MAX_CHUNKS:
            raise Excess(413, "too many chunks")

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise Excess(400, "too many requests at once")
        self.chunks = 0
        super().on_headers_complete()
        self.phase, self.since = BODY, self.server_state.now
        self.header_count = len(self.headers)
        if self.server_state.stopping is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.phase = IDLE if self.cycle.response_complete else ANSWER
        self.since, self.size = self.server_state.now, 0

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self.unread_since = None
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self.flow.resume_reading()
        if self.phase == ANSWER:
            self.phase, self.since = IDLE, self.server_state.now
        elif self.phase == BODY:
            self.phase, self.since = DRAIN, self.server_state.now

    def refuse(self, status: int, reason: str) -> None:
        """Take no more of a request; say why, if nothing else is being said."""
        if self.phase == DRAIN:
            self.transport.abort()
            return
        self.refused = True
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            metrics.count_cut_off(reason, status)
            body = json.dumps({"error": reason}).encode()
            head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(
                STATUS_LINE[status] + head.encode() + b"connection: close\r\n\r\n" + body
            )
            with suppress(OSError):
                self.transport.write_eof()  # the client reads it before the connection is reset
        else:
            metrics.count_cut_off(reason)
            cycle.keep_alive = False
            cycle.transport = Lingering(self.transport)  # type: ignore[assignment]
            if self.phase == BODY:  # the application says it, and counts it
                cycle.scope[CUT] = status  # type: ignore[literal-required]
                cycle.message_event.set()
        self.phase, self.since, self.size = DRAIN, self.server_state.now, 0

    def check_time(self, now: float) -> int:
        """End what takes too long; returns the bytes of answers that the client has not read.

        Args:
            now: seconds of the monotonic clock.
        """
        unread: int = self.transport.get_write_buffer_size()
        if not unread:
            self.unread_since = None
        elif self.unread_since is None:
            self.unread_since = now
        elif self._is_late(self.unread_since, self.server_state.limits.seconds, busy=True):
            self.abort("slow reader")
            return 0
        self._check_request(now)
        return unread

    def _check_request(self, now: float) -> None:
        limits, has_begun = self.server_state.limits, self.phase != HEAD or self.size
        if self.phase == IDLE or not has_begun:
            if self._is_late(self.since, limits.seconds if not has_begun else limits.idle_seconds):
                self.transport.close()
        elif self.phase == DRAIN:
            if self._is_late(self.since, limits.seconds):
                self.transport.abort()
        elif self.flow.read_paused:  # while an earlier request is under way
            self.since = now
        elif self.phase != ANSWER and self._is_late(self.since, limits.seconds, busy=True):
            self.refuse(408, "slow headers" if self.phase == HEAD else "slow body")

    def _is_late(self, since: float, seconds: float, busy: bool = False) -> bool:
        """Whether these seconds are over; when the service stops, fewer count from then on.

        Args:
            busy: a request or an answer is under way.
        """
        now, stopping = self.server_state.now, self.server_state.stopping
        grace = self.server_state.limits.stop_seconds / 2 if busy else QUIET_SECONDS
        overdue = stopping is not None and now - max(since, stopping) > grace
        return now - since > seconds or overdue

    def abort(self, reason: str) -> None:
        """End the connection at once, and count it."""
        metrics.count_cut_off(reason)
        self.transport.abort()


def make_room(new: Connection, state: State) -> bool:
    """End the connection that has been idle longest, or has owed its headers longest.

    Returns:
        whether there was one beside the new connection.
    """
    for phase in (IDLE, HEAD):
        waiting = [c for c in state.connections if c.phase == phase and c is not new]
        if waiting:
            oldest: Any = min(waiting, key=lambda c: c.since)
            state.connections.discard(oldest)
            oldest.abort("too many connections")
            return True
    return False


class Server(uvicorn.Server):
    """A process's server.

    Args:
        parent: the id of the process that started this one, without which it ends; None: nothing does.
    """

    def __init__(self, config: uvicorn.Config, limits: Limits, parent: int | None = None) -> None:
        super().__init__(config)
        self.server_state: State = State(limits)
        self._parent = parent

    async def on_tick(self, counter: int) -> bool:
        self._check_connections()
        if self._parent not in (None, os.getppid()):  # a worker does not outlive its parent
            self.should_exit = True
        return await super().on_tick(counter)

    def _check_connections(self) -> None:
        state = self.server_state
        now = state.now = time.monotonic()
        unread = [(c.check_time(now), c) for c in list(state.connections)]
        metrics.CONNECTIONS.set(len(unread))
        metrics.flush()
        total = sum(size for size, _ in unread)
        for size, connection in sorted(unread, key=lambda pair: -pair[0]) if total else ():
            if total <= MAX_UNREAD_BYTES:
                break
            total -= size
            connection.abort("slow readers")

    async def shutdown(self, sockets: Sockets | None = None) -> None:
        """Answer every connection that was accepted, for `stop_seconds`, then end what is left."""
        state, loop = self.server_state, asyncio.get_running_loop()
        state.now = state.stopping = time.monotonic()
        deadline = state.stopping + state.limits.stop_seconds
        for connection in list(state.connections):
            if connection.cycle is not None and not connection.cycle.response_complete:
                connection.cycle.keep_alive = False
        accepted = [client for listener in sockets or [] for client in last_accepted(listener)]
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for client in accepted:
            with suppress(OSError):
                await loop.connect_accepted_socket(self._connection, client)
        while (state.connections or state.tasks) and not self.force_exit and state.now < deadline:
            await asyncio.sleep(0.05)
            self._check_connections()
        for connection in list(state.connections):
            connection.transport.abort()
        for task in list(state.tasks):
            task.cancel()
        metrics.flush()
        if not self.force_exit:
            await self.lifespan.shutdown()

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)


class Worker(Process):
    """A process of several that answer on one socket."""

    def __init__(self, config: uvicorn.Config, sockets: Sockets, limits: Limits) -> None:
        self.limits = limits
        self.parent = os.getpid()
        self._own_server: Server | None = None
        self.begun, self.has_answered = time.monotonic(), False
        super().__init__(config, sockets)

    def is_alive(self, timeout: float = 5) -> bool:
        """Whether it answers within so many seconds; one that starts has `START_SECONDS` for its first answer."""
        if not self.process.is_alive():
            return False
        if self.ping(timeout):
            self.has_answered = True
            return True
        return not self.has_answered and time.monotonic() < self.begun + START_SECONDS

    def target(self, sockets: Sockets | None = None) -> None:
        try:
            super().target(sockets)
        except Exception as error:
            if self.server.started:
                raise
            traceback = None if isinstance(error, UserError) else error
            log.error("a worker cannot start", extra={"reason": str(error)}, exc_info=traceback)
            sys.exit(STARTUP_FAILED)

    @property
    def server(self) -> Server:
        if self._own_server is None:  # it cannot be sent to a process, so that it is made there
            self._own_server = Server(self.config, self.limits, self.parent)
        return self._own_server


class Workers(Multiprocess):
    """Starts the workers, replaces those that die, and hands on signals."""

    def __init__(self, config: uvicorn.Config, sockets: Sockets, limits: Limits) -> None:
        super().__init__(config, sockets)
        self.limits = limits
        self.failed = False
        # What stops these stops all; those after them are tried again
        self._first_workers: list[Process] = []
        self._replace_after: dict[int, float] = {}  # when a worker that died may be replaced

    def _start_worker(self) -> Worker:
        worker = Worker(self.config, self.sockets, self.limits)
        worker.start()
        return worker

    def init_processes(self) -> None:
        self.processes = [self._start_worker() for _ in range(self.processes_num)]
        self._first_workers = list(self.processes)

    def keep_subprocess_alive(self) -> None:
        """Replace workers that died, again and again where they cannot start, while others answer."""
        for index, worker in enumerate(self.processes):
            if worker.is_alive(timeout=self.config.timeout_worker_healthcheck):
                continue
            worker.kill()
            worker.join()
            metrics.forget_worker(worker.pid or 0)
            if all(process.exitcode == STARTUP_FAILED for process in self._first_workers):
                self.failed = True
                self.should_exit.set()
                return
            if time.monotonic() < self._replace_after.get(index, 0.0):
                continue
            log.error("a worker died and is replaced", extra={"worker": worker.pid})
            self.processes[index] = self._start_worker()
            self._replace_after[index] = time.monotonic() + RESTART_SECONDS

    def handle_hup(self) -> None:
        """Let every worker reload in place: none stops, no connection is lost."""
        if sys.platform != "win32":
            for process in self.processes:
                with suppress(ProcessLookupError):
                    os.kill(process.pid or 0, signal.SIGHUP)

    def handle_ttin(self) -> None:
        self.processes_num += 1
        self.processes.append(self._start_worker())

    def handle_ttou(self) -> None:
        pids = {worker.pid for worker in self.processes}
        super().handle_ttou()
        for pid in pids - {worker.pid for worker in self.processes}:
            metrics.forget_worker(pid or 0)

    def terminate_all(self) -> None:
        for listener in self.sockets:
            shut(listener)
            listener.close()
        super().terminate_all()

    def join_all(self) -> None:
        """Wait for the workers, and no longer than they may take."""
        deadline = time.monotonic() + self.limits.stop_seconds + 3
        for worker in self.processes:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.exitcode is None:
                log.error("a worker did not stop in time", extra={"worker": worker.pid})
                worker.process.kill()
                worker.process.join()


def shut(listener: socket.socket) -> None:
    """Let no new connection begin, while those that wait to be accepted stay.

    Linux drops what a socket's filter refuses; elsewhere, and where that is forbidden, nothing happens.
    """
    if sys.platform != "linux":
        return
    refuse_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # return 0 bytes
    program = struct.pack("HL", 1, ctypes.addressof(refuse_all))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def last_accepted(listener: socket.socket) -> Sockets:
    """The connections that wait on a socket which is about to be closed."""
    shut(listener)
    waiting = []
    listener.setblocking(False)
    with suppress(OSError):
        while True:
            waiting.append(listener.accept()[0])
            waiting[-1].setblocking(False)
    return waiting


def _max_connections(limit: int) -> int:
    """How many connections a process may have open: the service needs files of its own."""
    if sys.platform == "win32":
        return limit
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit if files < 0 else max(8, min(limit, files - max(files // 8, RESERVED_FILES)))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: when the port is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise UserError(
            f"{host}:{port} is not to be had ({error.strerror}); --port N takes another"
        ) from None
    listener.set_inheritable(True)
    return listener


def serve(host: str, port: int, workers: int) -> None:
    """Serve until told to stop (SIGTERM, Ctrl-C); SIGHUP reloads the models, where there is one.

    Raises:
        UserError: when others could reach it and no token is set, the port is not to be had, or a
            model is not the one that git names.
        ChildProcessError: when no worker could start.
    """
    for folder in (PRODUCTION, CHALLENGER):
        verified(Path(), folder)
    if not secret(TOKEN) and host not in LOOPBACK:
        raise UserError(
            f"--host {host} lets others in: set the secret first, `export {TOKEN}=...`, "
            f"or serve on 127.0.0.1"
        )
    Access(secret(TOKEN), secret(OPERATE))
    settings = load(Path(SETTINGS_FILE))
    require_pillow(settings)
    require_tokenizers(settings)
    limits = settings.serving.limits
    make_folders(Path())
    listener = listen(host, port)
    # The workers', and those that replace them
    os.environ[ids.KEY] = os.fsdecode(ids.secret(Path()))
    config = uvicorn.Config(
        f"{__package__}.app:create",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        http=Connection,
        backlog=BACKLOG,
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        ws="none",
    )
    if workers == 1:
        Server(config, limits).run(sockets=[listener])
        return
    log_as_json()
    group = Workers(config, [listener], limits)
    with tempfile.TemporaryDirectory(prefix="metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        group.run()
    if group.failed:
        message = "no worker could start; the lines before this say why"
        raise ChildProcessError(errno.ECHILD, message)
