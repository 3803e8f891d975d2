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

from ..parts import parts_here
from ..scoring.remote import OPERATE, TOKEN
from ..settings import UserError

OPERATOR_PATHS = frozenset(("/router", "/reload"))
if "governance" in parts_here():
    OPERATOR_PATHS |= {"/stop", "/resume"}
OPEN_PATHS = frozenset(("/v2/health/live", "/v2/health/ready"))  # probes need no secret
SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
CHECKED_HEADERS = frozenset((b"authorization", b"origin", b"sec-fetch-site", b"content-type"))
PAGE_MEDIA_TYPES = (b"application/json", b"application/octet-stream")  # a form can send neither
CHALLENGE = (b"www-authenticate", b'Basic realm="the service token as password", charset="UTF-8"')
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

Denial = tuple[int, str, list[tuple[bytes, bytes]]]  # status, message, headers


class Access:
    """Tells which requests are refused before they are read.

    Args:
        serve: the callers' secret; None lets everybody ask.
        operate: the operators' secret, which opens everything; None: the callers' serves for both.

    Raises:
        UserError: when both are the same.
    """

    def __init__(self, serve: str | None = None, operate: str | None = None) -> None:
        self._operators = _encodings(operate) or _encodings(serve)
        self._callers = _encodings(serve)
        self.guarded = bool(serve)
        if serve and operate and hmac.compare_digest(os.fsencode(serve), os.fsencode(operate)):
            raise UserError(f"{OPERATE} is {TOKEN} again: set another secret, or leave it out")

    def denial(self, scope: Any) -> Denial | None:
        """Why this ASGI request is refused before it is read; None lets it in.

        Secrets come as bearer tokens (RFC 6750) or as the password of a browser (RFC 7617).
        """
        checked = {key: value for key, value in scope["headers"] if key in CHECKED_HEADERS}
        if self._operators and scope["path"] not in OPEN_PATHS:
            for_operators = scope["path"] in OPERATOR_PATHS
            secrets = self._operators if for_operators else self._callers
            token = _credential(checked.get(b"authorization", b""))
            if secrets and not _matches(token, secrets) and not _matches(token, self._operators):
                if for_operators and _matches(token, self._callers):
                    return 403, f"forbidden: this takes the operators' token ({OPERATE})", []
                token_name = "the operators' token" if for_operators else "the service's token"
                return 401, f"unauthorized: show {token_name}", [CHALLENGE]
        if b"origin" in checked or b"sec-fetch-site" in checked:
            return self._page_denial(scope, checked)
        return None

    def _page_denial(self, scope: Any, checked: dict[bytes, bytes]) -> Denial | None:
        """Why a browser's request is refused: it came from somebody else's page, not from the service's own.

        https://www.w3.org/TR/fetch-metadata/ says which header tells them apart.
        """
        host = next((value for key, value in scope["headers"] if key == b"host"), b"").lower()
        if not self._callers and not _cannot_be_rebound(host):
            # A name that its owner points at 127.0.0.1 makes a foreign page look like ours
            return 403, f"forbidden: set {TOKEN} to be reached by a browser under this name", []
        if scope["method"] in SAFE_METHODS:
            return None
        site, origin = checked.get(b"sec-fetch-site"), checked.get(b"origin", b"").lower()
        same_site = origin.partition(b"://")[2] == host if site is None else site in SAME_SITES
        if not same_site:
            return 403, "forbidden: sent by the page of another site", []
        media_type = checked.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media_type and media_type not in PAGE_MEDIA_TYPES:
            return 415, "unsupported media type: a page has to send application/json", []
        return None


SAME_SITES = (b"same-origin", b"none")


def secret(name: str) -> str | None:
    """The secret in an environment variable, without white space around it; a blank one is none.

    Raises:
        UserError: when it holds what no header can carry.
    """
    value = os.environ.get(name, "").strip()
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise UserError(f"{name}: holds a line break or another control character; set it anew")
    return value or None


def page_policy(page: bytes) -> bytes:
    """A Content-Security-Policy that lets a page use its own script and style, and nothing else.

    https://www.w3.org/TR/CSP3/: an inline element is allowed by the hash of its content.
    """
    directives = []
    for kind in ("script", "style"):
        contents = re.findall(rf"<{kind}>(.*?)</{kind}>".encode(), page, re.S)
        hashes = (base64.b64encode(sha256(content).digest()).decode() for content in contents)
        directives.append(" ".join([f"{kind}-src", *(f"'sha256-{digest}'" for digest in hashes)]))
    return "; ".join([POLICY, "connect-src 'self'", "img-src data:", *directives]).encode()


def _encodings(text: str | None) -> tuple[bytes, ...]:
    """A secret as clients may write it: UTF-8, or Latin-1 as Python's do."""
    if not text:
        return ()
    encodings = {os.fsencode(text)}
    with suppress(UnicodeEncodeError):
        encodings.add(text.encode("latin-1"))
    return tuple(encodings)


def _credential(header: bytes) -> bytes:
    """The secret in an Authorization header, the scheme in any case."""
    scheme, _, token = header.partition(b" ")
    token = token.strip()
    match scheme.lower():
        case b"bearer":
            return token
        case b"basic":
            try:
                return base64.b64decode(token).partition(b":")[2]
            except ValueError:
                return b""
        case _:
            return b""


def _matches(token: bytes, secrets: tuple[bytes, ...]) -> bool:
    return any(hmac.compare_digest(token, encoded) for encoded in secrets)


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
