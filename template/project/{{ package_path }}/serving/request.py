"""What a request says of itself: the id by which it is found again, and how its body is packed."""

from __future__ import annotations

import os
import re
import time
from itertools import count
from typing import Any

REQUEST_ID = re.compile("[A-Za-z0-9._~:/+=@-]{1,128}")
# https://www.w3.org/TR/trace-context/: version, trace, parent, flags
TRACE = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
PACKED = "packed"  # where a scope has its Content-Encoding, if there is one
REQUEST = "request"  # and the id

Headers = list[tuple[bytes, bytes]]
_stamp = f"{int(time.time() * 1000):011x}{os.urandom(4).hex()}"
_count = count().__next__


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
