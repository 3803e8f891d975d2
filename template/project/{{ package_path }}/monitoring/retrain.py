"""When to train anew, and whether what came of it takes over from the model in production."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import paths
from ..data.source import report as write
from ..records import LABEL, database, retry_reading, view
from ..repository import verified
from ..settings import Settings, read_json

# A little less than the calendar's, because no timer is punctual
DAYS = {"daily": 0.9, "weekly": 6.5, "monthly": 27.0, "drift": float("inf")}


def due(settings: Settings, root: Path, now: datetime | None = None) -> list[str]:
    """Why a training is due, one line a reason; empty when it is not.

    By the calendar since the last one, by labels that came since, or by a metric of the monitor
    that was beyond its limit in several of the last windows and is in the latest.

    Raises:
        UserError: when the model in production is not the one that git names, or a report is not
            JSON.
    """
    rules = settings.monitoring.retraining
    verified(root, paths.PRODUCTION)
    now = now or datetime.now(UTC)
    last_run = _read_report(root / paths.RETRAIN).get("at")
    since = datetime.fromisoformat(last_run) if last_run else None
    reasons = []
    days_since = (now - since).total_seconds() / 86400 if since else float("inf")
    if days_since > DAYS[rules.every]:
        last_run = f"last on {since:%Y-%m-%d}" if since else "never yet"
        reasons.append(f"schedule: {rules.every}, {last_run}")
    if rules.labels is not None and (count := labels_since(settings, root, since)) >= rules.labels:
        reasons.append(f"labels: {count:,} came since, {rules.labels:,} are enough")
    for name, beyond in _beyond_limits(root).items():
        watched = not rules.watch or name in rules.watch
        if watched and persists(beyond, rules.violations, rules.windows):
            measured = [value for value in beyond if value is not None][-rules.windows :]
            times = f"{sum(measured)} of the last {len(measured)} windows"
            reasons.append(f"drift: {name} beyond its limit in {times}, and in the latest")
    return reasons


def labels_since(settings: Settings, root: Path, since: datetime | None) -> int:
    """How many answers got their first label after this moment; None: at any time."""
    moment = since.astimezone(UTC).replace(tzinfo=None) if since else datetime(1970, 1, 1)

    def count() -> int:
        with database(root) as sql:
            view(sql, "told", root / paths.FEEDBACK, LABEL, [])
            query = (
                "SELECT count(*) FROM (SELECT min(_time) AS first FROM told WHERE _label IS NOT NULL "
                "GROUP BY _id) WHERE first > ?"
            )
            return int(sql.execute(query, [moment]).fetchall()[0][0])

    return retry_reading(count, root / paths.FEEDBACK)


def persists(beyond: Sequence[bool | None], violations: int, windows: int) -> bool:
    """Whether a metric was beyond its limit in enough of the last windows, and is in the latest.

    Args:
        beyond: by window, oldest first; None where it could not be measured, as before labels come.
            Such windows do not count: the latest is the latest that could be measured.
    """
    latest = [value for value in beyond if value is not None][-windows:]
    return bool(latest) and latest[-1] and sum(latest) >= violations


def _beyond_limits(root: Path) -> dict[str, list[bool | None]]:
    """Each metric of the monitor: whether it was beyond its limit, by window, oldest first.

    Reads {"windows": [{"detectors": {KIND: ...}, "kinds": [the kinds of shift that it has],
    "performance": {"realised": null or {...}, "beyond": {"performance": false}}}]}: what is beyond
    its limit is what the monitor says.
    """
    beyond_by_name: dict[str, list[bool | None]] = {}
    for window in _read_report(root / paths.MONITOR_REPORT).get("windows", []):
        performance = window.get("performance") or {}
        flags: dict[str, bool | None] = {k: k in window["kinds"] for k in window["detectors"]}
        flags |= performance.get("beyond") or {}
        if not performance.get("realised") and "concept_drift" in flags:
            flags["concept_drift"] = None  # labels tell of it, and there are none yet
        for name, beyond in flags.items():
            beyond_by_name.setdefault(name, []).append(beyond)
    return beyond_by_name


def conclude(
    root: Path,
    reasons: Sequence[str],
    now: datetime | None = None,
    obstacles: Sequence[str] = (),
) -> dict[str, Any]:
    """Write reports/retrain.json: whether the model that was just evaluated takes over, and why.

    It does when nothing is in production, or when the interval of its gain over production, on rows
    that neither was fitted on, lies above 0.

    Args:
        obstacles: why it may not take over by itself, one line each, however much better.

    Returns:
        {"at", "reasons", "promote", "why", "gain", "low", "high", "rows"}, figures None without a
        comparison.

    Raises:
        UserError: when a report or a manifest is not JSON.
    """
    gate, production = _read_report(root / paths.GATE), root / paths.PRODUCTION
    comparison = _read_report(root / paths.METRICS_REPORT).get("production") or {}
    promote, why = False, "it missed the gate"
    if gate.get("passed"):
        if not production.is_dir():
            promote, why = True, "nothing was in production, and it passed the gate"
        elif _sha256(root) == _read_report(production / paths.MANIFEST_FILE)["sha256"]:
            why = "it is the model in production: there was nothing new to learn from"
        elif not comparison:
            why = "too few rows are new to both models to tell which is better"
        else:
            promote = comparison["low"] > 0
            why = (
                f"{'better' if promote else 'not shown to be better'}: a gain of {comparison['gain']:+.4g}, between "
                f"{comparison['low']:.4g} and {comparison['high']:.4g}, on {comparison['rows']:,} rows new to both"
            )
    if promote and obstacles:
        promote, why = False, f"{why}; a person has to promote it: {'; '.join(obstacles)}"
    at = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    figures = {name: comparison.get(name) for name in ("gain", "low", "high", "rows")}
    decision = {"at": at, "reasons": list(reasons), "promote": promote, "why": why}
    return write(root, "retrain", decision | figures)


def compared_with_production(root: Path) -> bool:
    """Whether the evaluation compared with the model that is in production now; True without one.

    Raises:
        UserError: when a report or a manifest is not JSON.
    """
    if not (root / paths.PRODUCTION).is_dir():
        return True
    comparison = _read_report(root / paths.METRICS_REPORT).get("production") or {}
    production = _read_report(root / paths.PRODUCTION / paths.MANIFEST_FILE)["sha256"]
    return (bool(comparison) and comparison["model"] == production) or _sha256(root) == production


def _sha256(root: Path) -> str:
    return str(_read_report(root / paths.MANIFEST)["sha256"])


def _read_report(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.is_file() else {}
