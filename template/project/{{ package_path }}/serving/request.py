"""The id by which a request is found again: in its answer, in the log, at who sent it."""

from __future__ import annotations

import os
import re
import time
from itertools import count
from typing import Any

ID = re.compile("[A-Za-z0-9._~:/+=@-]{1,128}")
# https://www.w3.org/TR/trace-context/: version, trace, parent, flags
PARENT = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_stamp = f"{int(time.time() * 1000):011x}{os.urandom(4).hex()}"
_count = count().__next__


def fresh() -> str:
    """An id that no other request has, in any process."""
    return f"{_stamp}{_count():08x}"


def request_id(scope: Any) -> str:
    """The id that a client gave its request: `x-request-id`, else the trace of `traceparent`; else a
    fresh one. One that is unsafe to log or to send back is passed over."""
    id = trace = ""
    for key, value in scope["headers"]:
        if key == b"x-request-id":
            given = value.decode("latin-1")
            id = given if ID.fullmatch(given) else id
        elif key == b"traceparent":
            match = PARENT.fullmatch(value.decode("latin-1"))
            trace = match[1] if match else trace
    return id or trace or fresh()
