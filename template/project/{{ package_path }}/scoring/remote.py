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
TIMEOUT_SECONDS = 60.0  # that loading a model may take


def reload(url: str) -> str:
    """Let a service read its models again; returns the arms and their models, in a line.

    Raises:
        UserError: when the service cannot be reached, does not let us, or keeps its models.
    """
    models = _ask(url, "POST", "/reload")
    return ", ".join(f"{arm} {model['model']}" for arm, model in models.items())


def router_status(url: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The status of a service's router, after these changes.

    Raises:
        UserError: when the service cannot be reached, does not let us, or does not allow a change;
            nothing is changed then.
    """
    return _ask(url, "PUT", "/router", changes) if changes else _ask(url, "GET", "/router")


def operate(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """What a service answers to an operator's request, such as `/stop`.

    Raises:
        UserError: when the service cannot be reached, does not let us, or refuses.
    """
    return _ask(url, "POST", path, body)


def _ask(url: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """The JSON object that a service answers to a request."""
    payload = None if body is None else json.dumps(body).encode()
    token = (os.environ.get(OPERATE) or os.environ.get(TOKEN) or "").strip()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        request = urllib.request.Request(
            url.rstrip("/") + path,
            payload,
            {**headers, "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            content = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise UserError(f"{url}: {error.code}: {_refusal(error.read())}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"{url}: no service answers there: {reason}") from None
    if not isinstance(content, dict):
        raise UserError(f"{url}: something else answers there")
    return content


def _refusal(content: bytes) -> str:
    """Why a service refused something, in one line."""
    try:
        answer = json.loads(content)
        problems = [f"{p['field']}: {p['allowed']}" for p in answer.get("problems", [])]
        reason = "; ".join(problems) or str(answer["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        reason = content[:200].decode("utf-8", "replace")
    return " ".join(reason.split())
