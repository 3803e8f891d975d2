"""A running service, asked over HTTP by commands that do not see its folders."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any

from ..settings import UserError

TOKEN = "SERVE_TOKEN"  # the environment variable with the secret that callers must show
OPERATE = "OPERATE_TOKEN"  # and with the one for operators; without it, SERVE_TOKEN opens them too
SECONDS = 60.0  # that loading a model may take


def reload(url: str) -> str:
    """Let the service read its models again; returns which it has then.

    Raises:
        UserError: when it cannot be reached, does not let us, or keeps the models that it had.
    """
    found = _ask(url, "POST", "/reload")
    return ", ".join(f"{arm} {one['model']}" for arm, one in found.items())


def router(url: str, changes: dict[str, Any]) -> dict[str, Any]:
    """What the service's router says, after these changes.

    Raises:
        UserError: as `reload`, and for a change that is not allowed; nothing is changed then.
    """
    return _ask(url, "PUT", "/router", changes) if changes else _ask(url, "GET", "/router")


def _ask(url: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
    given = None if body is None else json.dumps(body).encode()
    token = (os.environ.get(OPERATE) or os.environ.get(TOKEN) or "").strip()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        request = urllib.request.Request(
            url.rstrip("/") + path,
            given,
            {**headers, "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            found = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise UserError(f"{url}: {error.code}: {_said(error.read())}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"{url}: no service answers there: {reason}") from None
    if not isinstance(found, dict):
        raise UserError(f"{url}: something else answers there")
    return found


def _said(content: bytes) -> str:
    """Why a service refused something, in one line."""
    try:
        found = json.loads(content)
        problems = [f"{one['field']}: {one['allowed']}" for one in found.get("problems", [])]
        told = "; ".join(problems) or str(found["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        told = content[:200].decode("utf-8", "replace")
    return " ".join(told.split())
