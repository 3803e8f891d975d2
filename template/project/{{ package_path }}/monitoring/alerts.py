"""Alarms on their way to people: a webhook that takes JSON, Slack's messages or Alertmanager's alerts.

An alarm is sent when it begins, when what it says changes, and when it is over; not at every run.
"""

from __future__ import annotations

import contextlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..paths import ALERTS_SENT
from ..settings import Settings, UserError

SECONDS = 10.0  # that a webhook may take
FIRING, RESOLVED = "firing", "resolved"

Alert = dict[str, Any]


def notify(
    settings: Settings,
    root: Path,
    source: str,
    alarms: Mapping[str, list[str]],
    news: Mapping[str, list[str]] | None = None,
    now: datetime | None = None,
) -> str:
    """Send what is new of the alarms to `monitoring.alerts.webhook`.

    Args:
        source: the command that found them, whose own alarms are told apart.
        alarms: what is wrong by name, and why; news: what happened once, and is over at once.

    Returns:
        one line for the terminal: what was sent, or why it was not; empty where there was nothing to
        send. What could not be sent is tried again at the next run.
    """
    given = settings.monitoring.alerts
    if given.webhook is None:
        return ""
    moment = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    try:
        known = _known(root)
        before = known.get(source, {})
        alerts = changed(before, alarms, moment)
        still = {one["name"]: one for one in alerts if one["status"] == FIRING}
        alerts += changed({}, news or {}, moment)
        if not alerts:
            return ""
        address = _address(given.webhook)
        body = FORMATS[given.format](alerts, settings.project.name, source)
        _post(address, body)
        kept = {name: one for name, one in before.items() if name in alarms}
        _keep(root, {**known, source: kept | still})
    except (OSError, ValueError, HTTPException, UserError) as error:
        return f"alerts: nothing was sent: {_why(error)} (monitoring.alerts.webhook)"
    told = ", ".join(f"{one['name']} {one['status']}" for one in alerts)
    return f"alerts: sent: {told}"


def changed(
    before: Mapping[str, Alert], alarms: Mapping[str, list[str]], moment: str
) -> list[Alert]:
    """The alarms that began, say something else or are over, each {"name", "status", "why", "since"}.

    Figures move at every run; an alarm says something else when the words of its first line do.
    """
    found = []
    for name, why in alarms.items():
        old = before.get(name)
        if old is None or _words(old["why"]) != _words(why):
            since = old["since"] if old else moment
            found.append({"name": name, "status": FIRING, "why": list(why), "since": since})
    for name, old in before.items():
        if name not in alarms:
            found.append({**old, "status": RESOLVED, "until": moment})
    return found


def _words(why: list[str]) -> list[str]:
    return ["".join(letter for letter in one if not letter.isdigit()) for one in why[:1]]


def _json(alerts: list[Alert], project: str, source: str) -> Any:
    return {"project": project, "source": source, "alerts": alerts}


def _slack(alerts: list[Alert], project: str, source: str) -> Any:
    """An incoming webhook's message, in Slack's own markup."""
    lines = [f"*{_escaped(project)}*, `{source}`:"]
    for one in alerts:
        sign = ":red_circle:" if one["status"] == FIRING else ":white_check_mark: over:"
        lines.append(f"{sign} *{one['name']}*: {_escaped('; '.join(one['why']))}")
    return {"text": "\n".join(lines)}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _alertmanager(alerts: list[Alert], project: str, source: str) -> Any:
    """What POST /api/v2/alerts takes. An alert without an end there is over after a while of silence,
    so the end is told."""
    return [
        {
            "labels": {"alertname": one["name"], "project": project, "source": source},
            "annotations": {"summary": "; ".join(one["why"]) or one["name"]},
            "startsAt": one["since"],
            **({"endsAt": one["until"]} if one["status"] == RESOLVED else {}),
        }
        for one in alerts
    ]


FORMATS: dict[str, Callable[[list[Alert], str, str], Any]] = {
    "json": _json,
    "slack": _slack,
    "alertmanager": _alertmanager,
}


def _address(webhook: str) -> str:
    """The address itself, or what the environment variable of that name holds."""
    if "://" in webhook:
        return webhook
    address = os.environ.get(webhook, "").strip()
    if not address.startswith(("http://", "https://")):
        what = "holds no address that begins with https://" if address else "is not set"
        raise UserError(f"the environment variable {webhook} {what}")
    return address


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follow nothing: an alarm that was sent on as a GET has not arrived."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(address: str, body: Any) -> None:
    request = urllib.request.Request(
        address,
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "User-Agent": "monitor"},
        method="POST",
    )
    with urllib.request.build_opener(_Stay).open(request, timeout=SECONDS) as answer:
        answer.read(1)


def _why(error: Exception) -> str:
    """What went wrong, without the address: its path is often the secret."""
    if isinstance(error, urllib.error.HTTPError):
        host = urlsplit(error.url or "").hostname
        return f"{host} answered {error.code}"
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return f"no answer within {SECONDS:g} seconds"
    if isinstance(error, urllib.error.URLError):
        return str(getattr(error.reason, "strerror", None) or type(error.reason).__name__)
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "the address is none that can be asked"


def _known(root: Path) -> dict[str, dict[str, Alert]]:
    """What was sent last; nothing where the file is not one that this module wrote."""
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
        known = json.loads((root / ALERTS_SENT).read_text("utf-8"))
        alerts = [one for some in known.values() for one in some.values()]
        if all({"name", "why", "since"} <= {*one} for one in alerts):
            return dict(known)
    return {}


def _keep(root: Path, known: dict[str, dict[str, Alert]]) -> None:
    path = root / ALERTS_SENT
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8", newline="\n")
    fresh.replace(path)
