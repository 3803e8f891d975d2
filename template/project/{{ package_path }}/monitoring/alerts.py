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
from typing import Any, NotRequired, TypedDict
from urllib.parse import urlsplit

from ..paths import ALERTS_SENT
from ..settings import Settings, UserError

TIMEOUT_SECONDS = 10.0  # that a webhook may take
FIRING, RESOLVED = "firing", "resolved"


class Alert(TypedDict):
    """An alarm as it is sent, and as monitoring/alerts.json keeps it."""

    name: str
    status: str  # FIRING or RESOLVED
    why: list[str]
    since: str  # ISO time of the first run that found it
    until: NotRequired[str]  # of the run that no longer did


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
    alert_settings = settings.monitoring.alerts
    if alert_settings.webhook is None:
        return ""
    moment = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    try:
        sent = _read_sent(root)
        before = sent.get(source, {})
        alerts = changed(before, alarms, moment)
        firing = {alert["name"]: alert for alert in alerts if alert["status"] == FIRING}
        alerts += changed({}, news or {}, moment)
        if not alerts:
            return ""
        address = _address(alert_settings.webhook)
        body = FORMATS[alert_settings.format](alerts, settings.project.name, source)
        _post(address, body)
        continuing = {name: alert for name, alert in before.items() if name in alarms}
        _write_sent(root, {**sent, source: continuing | firing})
    except (OSError, ValueError, HTTPException, UserError) as error:
        return f"alerts: nothing was sent: {_reason(error)} (monitoring.alerts.webhook)"
    names = ", ".join(f"{alert['name']} {alert['status']}" for alert in alerts)
    return f"alerts: sent: {names}"


def changed(
    before: Mapping[str, Alert], alarms: Mapping[str, list[str]], moment: str
) -> list[Alert]:
    """The alarms that began, say something else or are over.

    Figures move at every run; an alarm says something else when the words of its first line do.

    Args:
        before: the alarms that were firing at the last run, by name.
        alarms: what is wrong now by name, and why; moment: of this run, as ISO time.
    """
    alerts: list[Alert] = []
    for name, why in alarms.items():
        earlier = before.get(name)
        if earlier is None or _without_digits(earlier["why"]) != _without_digits(why):
            since = earlier["since"] if earlier else moment
            alerts.append({"name": name, "status": FIRING, "why": list(why), "since": since})
    for name, earlier in before.items():
        if name not in alarms:
            alerts.append({**earlier, "status": RESOLVED, "until": moment})
    return alerts


def _without_digits(lines: list[str]) -> list[str]:
    return ["".join(letter for letter in line if not letter.isdigit()) for line in lines[:1]]


def _json(alerts: list[Alert], project: str, source: str) -> Any:
    return {"project": project, "source": source, "alerts": alerts}


def _slack(alerts: list[Alert], project: str, source: str) -> Any:
    """An incoming webhook's message, in Slack's own markup."""
    lines = [f"*{_escaped(project)}*, `{source}`:"]
    for alert in alerts:
        sign = ":red_circle:" if alert["status"] == FIRING else ":white_check_mark: over:"
        lines.append(f"{sign} *{alert['name']}*: {_escaped('; '.join(alert['why']))}")
    return {"text": "\n".join(lines)}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _alertmanager(alerts: list[Alert], project: str, source: str) -> Any:
    """What POST /api/v2/alerts takes. An alert without an end there is over after a while of silence,
    so the end is told."""
    return [
        {
            "labels": {"alertname": alert["name"], "project": project, "source": source},
            "annotations": {"summary": "; ".join(alert["why"]) or alert["name"]},
            "startsAt": alert["since"],
            **({"endsAt": alert["until"]} if alert["status"] == RESOLVED else {}),
        }
        for alert in alerts
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
        fault = "holds no address that begins with https://" if address else "is not set"
        raise UserError(f"the environment variable {webhook} {fault}")
    return address


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow nothing: an alarm that was sent on as a GET has not arrived."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(address: str, body: Any) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "monitor"}
    request = urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_SECONDS) as answer:
        answer.read(1)


def _reason(error: Exception) -> str:
    """What went wrong, without the address: its path is often the secret."""
    if isinstance(error, urllib.error.HTTPError):
        host = urlsplit(error.url or "").hostname
        return f"{host} answered {error.code}"
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return f"no answer within {TIMEOUT_SECONDS:g} seconds"
    if isinstance(error, urllib.error.URLError):
        return str(getattr(error.reason, "strerror", None) or type(error.reason).__name__)
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "the address is none that can be asked"


def _read_sent(root: Path) -> dict[str, dict[str, Alert]]:
    """What was sent last; nothing where the file is not one that this module wrote."""
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
        sent = json.loads((root / ALERTS_SENT).read_text("utf-8"))
        alerts = [alert for by_name in sent.values() for alert in by_name.values()]
        if all({"name", "why", "since"} <= {*alert} for alert in alerts):
            return dict(sent)
    return {}


def _write_sent(root: Path, sent: dict[str, dict[str, Alert]]) -> None:
    path = root / ALERTS_SENT
    path.parent.mkdir(parents=True, exist_ok=True)
    new_path = path.with_name(f"{path.name}.new")
    new_path.write_text(json.dumps(sent, indent=1) + "\n", encoding="utf-8", newline="\n")
    new_path.replace(path)
