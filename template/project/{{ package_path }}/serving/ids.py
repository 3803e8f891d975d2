"""Ids of predictions and of requests: by the first feedback finds its answer, by the second a log its request.

An id of a prediction carries a checksum that only this service can make, so that feedback on an answer that
was never given is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import logging
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..paths import PREDICTION_KEY

KEY = "PREDICTION_KEY"  # the environment variable with the secret that several machines share
DIGEST_BYTES = 6  # a forger who tries 10,000 ids a second needs 900 years for one
PREDICTION_ID = re.compile("[ab][0-9a-f]{27}" + 2 * DIGEST_BYTES * "[0-9a-f]")
STEM_LENGTH = 28  # characters before the checksum: arm, start of the process, chance, count
REQUEST_ID = re.compile("[A-Za-z0-9._~:/+=@-]{1,128}")
# https://www.w3.org/TR/trace-context/: version, trace, parent, flags
TRACE = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
PACKED = "packed"  # where a scope has its Content-Encoding, if there is one
REQUEST = "request"  # and the id

Headers = list[tuple[bytes, bytes]]
_stamp = f"{int(time.time() * 1000):011x}{os.urandom(4).hex()}"
_count = itertools.count().__next__
log = logging.getLogger("serving")


class Ids:
    """Makes ids and knows them again: a keyed BLAKE2 (RFC 7693) of arm, process and count.

    Args:
        secret: of any length; whoever has the same secret knows these ids.
    """

    def __init__(self, secret: bytes) -> None:
        key = hashlib.blake2b(secret, digest_size=32).digest()
        self._keyed = hashlib.blake2b(key=key, digest_size=DIGEST_BYTES)
        self._stamp = f"{int(time.time() * 1000):011x}{os.urandom(4).hex()}"
        self._count = itertools.count().__next__

    def new(self, arm: str) -> str:
        """An id that was never given before.

        Args:
            arm: the letter of the arm that answers, `a` or `b`.
        """
        stem = f"{arm}{self._stamp}{self._count():08x}"
        digest = self._keyed.copy()
        digest.update(stem.encode())
        return stem + digest.hexdigest()

    def is_ours(self, id: str) -> bool:
        """Whether an id was made with this secret, for the arm that its first letter names."""
        if not PREDICTION_ID.fullmatch(id):
            return False
        digest = self._keyed.copy()
        digest.update(id[:STEM_LENGTH].encode())
        return hmac.compare_digest(id[STEM_LENGTH:], digest.hexdigest())


def identify(scope: Any) -> Headers:
    """Note a request's id in its scope, and how its body is packed; returns the headers that tell it.

    The id is the client's `x-request-id`, else the trace of its `traceparent`, else one that no other
    request has. One that is unsafe to log or to send back is passed over.
    """
    id, trace, echoed = "", "", []
    for key, value in scope["headers"]:
        if key == b"x-request-id":
            text = value.decode("latin-1")
            id = text if REQUEST_ID.fullmatch(text) else id
        elif key == b"traceparent":
            if match := TRACE.fullmatch(value.decode("latin-1")):
                trace, echoed = match[1], [(key, value)]
        elif key == b"content-encoding":
            scope[PACKED] = value.decode("latin-1").strip().lower()
    scope[REQUEST] = id = id or trace or f"{_stamp}{_count():08x}"
    return [(b"x-request-id", id.encode()), *echoed]


def secret(root: Path) -> bytes:
    """The secret of this service's ids: PREDICTION_KEY, else what monitoring/prediction.key holds.

    A first start writes that file. Where it cannot be written, the secret lasts as long as the process.
    """
    if shared := os.environ.get(KEY, "").strip():
        return os.fsencode(shared)
    path = root / PREDICTION_KEY
    try:
        with suppress(FileNotFoundError):
            if stored := _read(path):
                return stored
        return _write_new(path)
    except OSError as error:
        log.warning(
            "no place for the key of ids: after a restart, feedback on earlier answers is refused",
            extra={"reason": f"{path}: {error.strerror}", "remedy": f"set {KEY}"},
        )
        return os.urandom(16).hex().encode()


def _write_new(path: Path) -> bytes:
    fresh = path.with_suffix(f".{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh.unlink(missing_ok=True)
    try:
        with open(fresh, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
            out.write(os.urandom(16).hex().encode() + b"\n")
        if path.exists():  # and holds nothing
            fresh.replace(path)
        else:
            try:
                os.link(fresh, path)  # another process that starts as well may be first
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return _read(path)


def _read(path: Path) -> bytes:
    return path.read_bytes().replace(b"\0", b"").strip()  # which no environment can hold
