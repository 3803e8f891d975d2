"""Who may ask for what: callers and operators have a secret each, and a page of another site may
change nothing in the name of the person who looks at it.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import os
import re
from contextlib import suppress
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from ..scoring.remote import OPERATE, TOKEN
from ..settings import UserError

OPERATORS = frozenset(("/router", "/reload"))
OPEN = frozenset(("/v2/health/live", "/v2/health/ready"))  # for those who only ask whether it lives
READS = frozenset(("GET", "HEAD", "OPTIONS"))
LOOKED_AT = frozenset((b"authorization", b"origin", b"sec-fetch-site", b"content-type"))
FROM_PAGES = (b"application/json", b"application/octet-stream")  # a form can send neither
CHALLENGE = (b"www-authenticate", b'Basic realm="the service token as password", charset="UTF-8"')
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
GUARDS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

Denied = tuple[int, str, list[tuple[bytes, bytes]]]  # status, words, headers


class Access:
    """Tells which requests are refused before they are read.

    Args:
        serve: the callers' secret; None lets everybody ask.
        operate: the operators' secret, which opens everything; None: the callers' serves for both.
    """

    def __init__(self, serve: str | None = None, operate: str | None = None) -> None:
        self._operators = _written(operate) or _written(serve)
        self._callers = _written(serve)
        self.guarded = bool(serve)
        if serve and operate and hmac.compare_digest(os.fsencode(serve), os.fsencode(operate)):
            raise UserError(f"{OPERATE} is {TOKEN} again: set another secret, or leave it out")

    def denied(self, scope: Any) -> Denied | None:
        """Why this request is refused, if it is."""
        headers = scope["headers"]
        seen = {key: value for key, value in headers if key in LOOKED_AT}
        if self._operators and scope["path"] not in OPEN:
            operates = scope["path"] in OPERATORS
            wanted = self._operators if operates else self._callers
            shown = _shown(seen.get(b"authorization", b""))
            if wanted and not _is(shown, wanted) and not _is(shown, self._operators):
                if operates and _is(shown, self._callers):
                    return 403, f"forbidden: this takes the operators' token ({OPERATE})", []
                words = "the operators' token" if operates else "the service's token"
                return 401, f"unauthorized: show {words}", [CHALLENGE]
        if b"origin" in seen or b"sec-fetch-site" in seen:
            return self._from_a_page(scope, seen)
        return None

    def _from_a_page(self, scope: Any, seen: dict[bytes, bytes]) -> Denied | None:
        """A browser asks: for this service's own page, or for somebody else's?"""
        host = next((value for key, value in scope["headers"] if key == b"host"), b"").lower()
        if not self._callers and not _cannot_be_rebound(host):
            # A name that its owner points at 127.0.0.1 makes a foreign page look like ours
            return 403, f"forbidden: set {TOKEN} to be reached by a browser under this name", []
        if scope["method"] in READS:
            return None
        site, origin = seen.get(b"sec-fetch-site"), seen.get(b"origin", b"").lower()
        ours = origin.partition(b"://")[2] == host if site is None else site in SAME
        if not ours:
            return 403, "forbidden: sent by the page of another site", []
        kind = seen.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind and kind not in FROM_PAGES:
            return 415, "unsupported media type: a page has to send application/json", []
        return None


SAME = (b"same-origin", b"none")


def secret(name: str) -> str | None:
    """The secret in an environment variable, without white space around it; a blank one is none.

    Raises:
        UserError: when it holds what no header can carry.
    """
    given = os.environ.get(name, "").strip()
    if re.search(r"[\x00-\x1f\x7f]", given):
        raise UserError(f"{name}: holds a line break or another control character; set it anew")
    return given or None


def page_policy(page: bytes) -> bytes:
    """A Content-Security-Policy that lets a page use its own script and style, and nothing else."""
    found = []
    for kind in ("script", "style"):
        parts = re.findall(rf"<{kind}>(.*?)</{kind}>".encode(), page, re.S)
        hashes = (base64.b64encode(sha256(one).digest()).decode() for one in parts)
        found.append(" ".join([f"{kind}-src", *(f"'sha256-{one}'" for one in hashes)]))
    return "; ".join([POLICY, "connect-src 'self'", "img-src data:", *found]).encode()


def _written(given: str | None) -> tuple[bytes, ...]:
    """A secret as clients may write it: UTF-8, or Latin-1 as Python's do."""
    if not given:
        return ()
    forms = {os.fsencode(given)}
    with suppress(UnicodeEncodeError):
        forms.add(given.encode("latin-1"))
    return tuple(forms)


def _shown(header: bytes) -> bytes:
    """The secret in an Authorization header, the scheme in any case."""
    scheme, _, given = header.partition(b" ")
    given = given.strip()
    match scheme.lower():
        case b"bearer":
            return given
        case b"basic":
            try:
                return base64.b64decode(given).partition(b":")[2]
            except ValueError:
                return b""
        case _:
            return b""


def _is(shown: bytes, secrets: tuple[bytes, ...]) -> bool:
    return any(hmac.compare_digest(shown, one) for one in secrets)


def _cannot_be_rebound(host: bytes) -> bool:
    """Whether a Host is an address or `localhost`, which no stranger's name server can point here."""
    try:
        name = urlsplit("//" + host.decode("ascii")).hostname or ""
        if name == "localhost" or name.endswith(".localhost"):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
