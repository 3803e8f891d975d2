"""What went wrong in service, who noticed it when, and when it was over: a log that git keeps.

Nothing in it is rewritten: one line opens an incident and another closes it, so that two branches that log at once can be merged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ..parts import part_hint, part_module, parts_here
from ..paths import ALERT_RULES, INCIDENTS
from ..repository import git
from ..settings import Settings, UserError, read_text

REPORT_DAYS = 15  # after notice, at the latest, of a serious incident: AI Act, Art. 73 (2)
SECONDS = "%Y-%m-%dT%H:%M:%S"
OPENED = ("id", "alert", "fault", "start", "notice", "by", "drill")
CLOSED = ("id", "end", "cause", "remedy", "by")


@dataclass
class Incident:
    """An incident, with its times in UTC.

    Attributes:
        alert: that rang; None where a person noticed. start: since when it was wrong; notice: when `by` logged it.
        drill: whether it was only rehearsed. end, cause, remedy, closed_by: None as long as it is open.
    """

    id: str
    alert: str | None
    fault: str
    start: datetime
    notice: datetime
    by: str
    drill: bool
    end: datetime | None = None
    cause: str | None = None
    remedy: str | None = None
    closed_by: str | None = None

    @property
    def report_by(self) -> datetime:
        """Until when an authority is told of it, should it be a serious one."""
        return self.notice + timedelta(days=REPORT_DAYS)


def incidents(root: Path) -> list[Incident]:
    """All incidents of the log, in the order in which they were noticed; none without a log.

    Raises:
        UserError: with the line that is none of such a log.
    """
    path = root / INCIDENTS
    lines = read_text(path).splitlines() if path.is_file() else []
    logged: dict[str, Incident] = {}
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            if entry["event"] == "open" and entry["id"] not in logged:
                fields = {key: entry[key] for key in OPENED} | _times(entry, "start", "notice")
                logged[entry["id"]] = Incident(**fields)
                continue
            incident = logged[entry["id"]]
            if entry["event"] != "close" or incident.end:
                raise ValueError
            incident.end, incident.closed_by = _times(entry, "end")["end"], entry["by"]
            incident.cause, incident.remedy = entry["cause"], entry["remedy"]
        except (ValueError, KeyError, TypeError):
            reason = "neither opens an incident nor closes one that is open"
            raise UserError(f"{INCIDENTS}:{number}: {reason}; `incident` writes them") from None
    return sorted(logged.values(), key=lambda incident: (incident.notice, incident.id))


def open_incident(
    root: Path,
    alert: str | None,
    fault: str,
    by: str | None,
    start: str | None,
    drill: bool = False,
) -> Incident:
    """Log an incident.

    Args:
        alert: of the alert rules; None: a person noticed.
        by: who noticed it; None: whom git names.
        start: since when it was wrong, as ISO 8601, in UTC where it says no offset; None: now.

    Raises:
        UserError: for an alert that no rule has, a time to come, and where nobody is named.
    """
    now, taken = _now(), {incident.id for incident in incidents(root)}
    if alert is not None and alert not in (rules := runbook(root)):
        listed = f"there are {', '.join(rules)}" if rules else "there are no rules"
        raise UserError(f"--alert {alert}: is no alert of {ALERT_RULES}; {listed}")
    begun, moment = (_moment("--start", start, now) if start else now), now
    while (id_ := f"{moment:%Y%m%dT%H%M%S}") in taken:
        moment += timedelta(seconds=1)
    values = (id_, alert, _line("--what", fault), begun, now, _who(root, by), drill)
    _append(root, "open", dict(zip(OPENED, values, strict=True)))
    return Incident(*values)


def close_incident(
    root: Path, id_: str, cause: str, remedy: str, by: str | None, end: str | None = None
) -> Incident:
    """Log that an incident is over, what caused it and what was done.

    Args:
        by: who says so; None: whom git names. end: since when it is over, as `start` of `open_incident`; None: now.

    Raises:
        UserError: for one that is not open, and a time before its start or to come.
    """
    logged = {incident.id: incident for incident in incidents(root)}
    is_open = [id_ for id_, incident in logged.items() if not incident.end]
    if id_ not in is_open:
        state = "is closed already" if id_ in logged else "is no incident"
        raise UserError(f"{id_}: {state} of {INCIDENTS}; open are {', '.join(is_open) or 'none'}")
    incident, now = logged[id_], _now()
    incident.end = _moment("--end", end, now, incident.start) if end else now
    incident.cause, incident.remedy = _line("--cause", cause), _line("--remedy", remedy)
    incident.closed_by = _who(root, by)
    values = (id_, incident.end, incident.cause, incident.remedy, incident.closed_by)
    _append(root, "close", dict(zip(CLOSED, values, strict=True)))
    return incident


def runbook(root: Path) -> dict[str, str]:
    """Each alert of the rules, and the section of the runbook that it names; empty without rules."""
    path = root / ALERT_RULES
    if not path.is_file():
        return {}
    groups = YAML(typ="safe").load(read_text(path))["groups"]
    rules = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    return {rule["alert"]: rule["annotations"].get("runbook_url", "") for rule in rules}


def drill(settings: Settings, root: Path, by: str | None) -> tuple[Incident | None, str]:
    """Let an alert ring by a drill of the monitor, on a copy; open an incident of it, and close it.

    Returns:
        the incident, marked as a drill, or None when nothing rang; and what rang and how soon, in words.

    Raises:
        UserError: without the part `monitoring`, before the first run, and where nobody is named.
    """
    drills = part_module("monitoring.drill")
    if drills is None:
        raise UserError(f"incident drill: what lets an alert ring {part_hint('monitoring')}")
    who, begun, incident = _who(root, by), f"{_now():{SECONDS}}", None
    name = "model-down" if "serving" in parts_here() else "schema"
    (outcome,) = drills.drill(settings, root, name)
    if outcome["fired"]:
        kinds = ("".join(map(str.capitalize, kind.split("_"))) for kind in outcome.get("kinds", ()))
        rang = {drills.ALERTS.get(name), *kinds}
        alert = next((alert for alert in runbook(root) if alert in rang), None)
        opened = open_incident(root, alert, f"drill {name}: {outcome['words']}", who, begun, True)
        cause = f"the drill {name} broke a copy"
        remedy = "none: the copy is gone, and nobody was served by it"
        incident = close_incident(root, opened.id, cause, remedy, who)
    return incident, outcome["words"]


def _append(root: Path, event: str, fields: Mapping[str, Any]) -> None:
    path = root / INCIDENTS
    path.parent.mkdir(exist_ok=True)
    as_text = {
        key: f"{value:{SECONDS}}Z" if isinstance(value, datetime) else value
        for key, value in fields.items()
    }
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps({"event": event, **as_text}, ensure_ascii=False) + "\n")


def _times(entry: Mapping[str, str], *keys: str) -> dict[str, datetime]:
    return {key: datetime.strptime(entry[key], f"{SECONDS}Z").replace(tzinfo=UTC) for key in keys}


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _moment(option: str, text: str, now: datetime, earliest: datetime | None = None) -> datetime:
    """A moment that was given, in UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"{option} {text}: is no time such as {now:%Y-%m-%dT%H:%M}") from None
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > now or (earliest and moment < earliest):
        limit = f"before the start, {earliest:{SECONDS}}Z" if moment <= now else "still to come"
        raise UserError(f"{option} {text}: is {limit}; times are UTC where they say no offset")
    return moment.replace(microsecond=0)


def _line(option: str, text: str) -> str:
    """A sentence that was given, in one line."""
    if not (line := " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text).split())):
        raise UserError(f"{option}: is empty: write a sentence")
    return line


def _who(root: Path, by: str | None) -> str:
    """Who says so: the name that was given, or the one that git has."""
    if by is None:
        try:
            by = git(root, "var", "GIT_AUTHOR_IDENT").partition("<")[0]
        except UserError:
            raise UserError("--by NAME: who says so? git names nobody (user.name)") from None
    return _line("--by", by)
