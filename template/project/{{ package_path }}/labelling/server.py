"""The labelling page, on this machine alone: people answer the queue row by row, and each answer is a line of votes.

The page is served to 127.0.0.1, asks nothing of any other address, and takes answers from itself only.
"""

from __future__ import annotations

import json
import re
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .. import problem
from ..paths import VOTES
from ..settings import Settings, UserError, read_text
from .aggregation import require_numbers
from .queue import CERTAIN, Entry, read_queue, votes_needed
from .rows import keys, read_fields, read_labels
from .votes import MAX_NAME, Vote, append, current, now, parse

HOST = "127.0.0.1"
MAX_BODY, MAX_BATCH = 100_000, 500
LEASE_SECONDS = 600.0  # for which a row that was sent to one person is not sent to others
PAGE = Path(__file__).with_name("page.html").read_bytes()

Setup = dict[str, Any]


class Session:
    """The queue, the votes on it, and what each person has to do next. Its methods may be called by several threads.

    Raises:
        UserError: without a queue, without guidelines, or for a label with more values than keys.
    """

    def __init__(self, settings: Settings, root: Path) -> None:
        self._settings, self._root = settings, root
        self._entries = {entry.id: entry for entry in read_queue(root)}
        labels = read_labels(settings, root)["_label"]
        by_key = keys(settings, labels)
        path = root / settings.labelling.guidelines
        if not path.is_file():
            raise UserError(f"labelling.guidelines: {settings.labelling.guidelines} is not here")
        self.setup: Setup = {
            "keys": by_key,
            "number": not by_key,
            "guidelines": read_text(path),
            "show_score": settings.labelling.show_score,
        }
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._live: dict[tuple[str, str], Vote] = {}
        self._leases: dict[tuple[str, str], float] = {}  # id, person -> when the row was sent

    def _refresh(self) -> None:
        """Read the votes again where the file is another than this session left: somebody pulled."""
        stamp = self._file_stamp()
        if stamp != self._stamp:
            self._live = {(vote.id, vote.who): vote for vote in current(self._root)}
            self._stamp = stamp

    def _file_stamp(self) -> tuple[int, int] | None:
        path = self._root / VOTES
        if not path.is_file():
            return None
        status = path.stat()
        return status.st_mtime_ns, status.st_size

    def rows(self, who: str, count: int) -> dict[str, Any]:
        """The next rows of a person: at most `count`, with their fields, and how many are done and left."""
        with self._lock:
            self._refresh()
            pending = self._pending(who)
            done = sum(person == who for _, person in self._live)
            batch = pending[:count]
            self._leases |= {(entry.id, who): time.monotonic() for entry in batch}
        fields = read_fields(self._settings, self._root, [entry.id for entry in batch])
        score = self._settings.labelling.show_score
        rows = [
            {"id": entry.id, "fields": fields[entry.id], "score": entry.score if score else None}
            for entry in batch
            if entry.id in fields  # else a later `collect` has it no more
        ]
        return {"rows": rows, "done": done, "left": len(pending)}

    def _pending(self, who: str) -> list[Entry]:
        """The entries that a person has not answered and that have not enough answers; gold is for everybody.

        A row that somebody else's page holds counts as answered for a while: two people at once share the work.
        """
        oldest = time.monotonic() - LEASE_SECONDS
        self._leases = {key: sent for key, sent in self._leases.items() if sent > oldest}
        held_elsewhere = {key for key in self._leases if key[1] != who}
        votes = Counter(id_ for id_, _ in held_elsewhere | {*self._live})

        def is_open(entry: Entry) -> bool:
            if (entry.id, who) in self._live:
                return False
            limit = max(votes_needed(entry.id, self._settings), entry.votes + 1)
            return entry.drawn == CERTAIN or votes[entry.id] < limit

        return [entry for entry in self._entries.values() if is_open(entry)]

    def vote(self, content: Mapping[str, Any]) -> None:
        """Add what a person said to labels/votes.jsonl; the same answer again, as after a lost reply, is none.

        Args:
            content: id, who, answer, label and seconds, as the page sends them.

        Raises:
            ValueError: when it is no vote on a row of the queue.
        """
        if not isinstance(content, Mapping) or content.get("id") not in self._entries:
            raise ValueError("this row is not in the queue; load the page again")
        entry = self._entries[content["id"]]
        allowed = ("id", "who", "answer", "label", "seconds")
        sent = {key: content[key] for key in allowed if key in content}
        scored = self._settings.labelling.show_score and entry.score is not None
        vote = parse({**sent, "at": now(), "score_shown": scored, "drawn": entry.drawn})
        if vote.label is not None:
            self._check_label(vote.label)
        with self._lock:
            self._refresh()
            live = self._live.get((vote.id, vote.who))
            is_same = live is not None and (live.answer, live.label) == (vote.answer, vote.label)
            if is_same or (live is None and vote.answer == "withdrawn"):
                return
            append(self._root / VOTES, [vote])
            self._live.pop((vote.id, vote.who), None)
            if vote.answer != "withdrawn":
                self._live[vote.id, vote.who] = vote
            self._stamp = self._file_stamp()

    def _check_label(self, label: str) -> None:
        by_key = self.setup["keys"]
        if by_key and label not in by_key.values():
            raise ValueError(
                f"{label!r:.40} is no label; the keys give {', '.join(by_key.values())}"
            )
        if not problem.CLASSES:
            try:
                require_numbers([label])
            except UserError as error:
                raise ValueError(str(error)) from None


class _Handler(BaseHTTPRequestHandler):
    """Answers the page's requests, and refuses those of other sites."""

    session: Session
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        if self._refused():
            return
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        match url.path:
            case "/":
                self._send(200, PAGE, "text/html; charset=utf-8")
            case "/setup":
                self._send_json(200, self.session.setup)
            case "/rows":
                who, count = query.get("who", "").strip(), query.get("count", "20")
                if not 0 < len(who) <= MAX_NAME or not re.fullmatch(r"\d{1,6}", count):
                    self._send_json(400, {"error": "who and count are needed"})
                    return
                self._answer(lambda: self.session.rows(who, min(int(count), MAX_BATCH)))
            case _:
                self._send_json(404, {"error": "no such page"})

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not re.fullmatch(r"\d{1,9}", length) or int(length) > MAX_BODY:
            self.close_connection = True
            self._send_json(413, {"error": f"a vote has at most {MAX_BODY:,} bytes"})
            return
        body = self.rfile.read(int(length))
        if self._refused():
            return
        if urlsplit(self.path).path != "/vote":
            self._send_json(404, {"error": "no such page"})
            return

        def vote() -> dict[str, Any]:
            self.session.vote(json.loads(body))
            return {"saved": True}

        self._answer(vote)

    def _answer(self, work: Any) -> None:
        try:
            content = work()
        except ValueError as error:
            self._send_json(400, {"error": str(error)})
        except (UserError, OSError) as error:  # what a person mends while the page tries again
            self._send_json(503, {"error": str(error)})
        else:
            self._send_json(200, content)

    def _refused(self) -> bool:
        """Whether a request came under a foreign name or from another site's page, and was told so."""
        port = self.connection.getsockname()[1]
        host = self.headers.get("host", "")
        reason = ""
        if host not in (f"{HOST}:{port}", f"localhost:{port}"):
            reason = "forbidden: this page is reached by its address only"
        elif self.command == "POST":
            site, origin = self.headers.get("sec-fetch-site"), self.headers.get("origin")
            if site not in (None, "same-origin", "none") or origin not in (None, f"http://{host}"):
                reason = "forbidden: sent by the page of another site"
            elif not self.headers.get("content-type", "").startswith("application/json"):
                reason = "forbidden: a vote is application/json"
        if reason:
            self._send_json(403, {"error": reason})
        return bool(reason)

    def _send_json(self, status: int, content: Any) -> None:
        body = json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
        self._send(status, body, "application/json")

    def _send(self, status: int, body: bytes, media_type: str) -> None:
        self.send_response(status)
        for header, value in (
            ("content-type", media_type),
            ("content-length", str(len(body))),
            ("cache-control", "no-store"),
            ("content-security-policy", POLICY),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ):
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a line for each row would hide what the command says."""


def _policy(page: bytes) -> str:
    """A Content-Security-Policy by which the page runs its own script and style, and asks this address alone."""
    hashes = {
        kind: b64encode(
            sha256(re.findall(rf"<{kind}>(.*?)</{kind}>".encode(), page, re.S)[0]).digest()
        )
        for kind in ("script", "style")
    }
    inline = "; ".join(f"{kind}-src 'sha256-{digest.decode()}'" for kind, digest in hashes.items())
    closed = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return f"{closed}; connect-src 'self'; img-src data:; {inline}"


POLICY = _policy(PAGE)


def start(settings: Settings, root: Path, port: int) -> ThreadingHTTPServer:
    """A server of the page that listens already; `serve_forever` lets it answer.

    Args:
        port: 0 takes a free one.

    Raises:
        UserError: as `Session`, or when the port is taken.
    """
    handler = type("Handler", (_Handler,), {"session": Session(settings, root)})
    try:
        return ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise UserError(
            f"port {port}: {error.strerror}; `label serve --port` takes another"
        ) from None
