"""What a retraining may change by itself: beyond these bounds a person looks at the pull request and promotes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import paths
from ..settings import Settings, read_json


def obstacles(settings: Settings, root: Path) -> list[str]:
    """Why the model that was trained last may not take over by itself, one line each; empty when it may.

    Raises:
        UserError: when a manifest or a report is not JSON.
    """
    bounds = settings.governance.retraining
    reasons = []
    if settings.governance.second_person:
        reasons.append("a second person promotes (governance.second_person)")
    production = root / paths.PRODUCTION
    if not production.is_dir():
        return reasons
    fresh, current = (
        read_json(root / name)
        for name in (paths.MANIFEST, f"{paths.PRODUCTION}/{paths.MANIFEST_FILE}")
    )
    columns = sorted(_columns(fresh) - _columns(current))
    if columns and not bounds.new_columns:
        reasons.append(
            f"reads {', '.join(columns)}, which the one in production does not (new_columns)"
        )
    sizes = [(root / paths.MODEL).stat().st_size, (production / paths.MODEL_FILE).stat().st_size]
    change = sizes[0] / sizes[1] - 1
    if bounds.size is not None and abs(change) > bounds.size:
        reasons.append(f"its file is {change:+.0%} in size; {bounds.size:.0%} is allowed (size)")
    comparison = read_json(root / paths.METRICS_REPORT).get("production") or {}
    gain, value = comparison.get("gain", 0.0), abs(comparison.get("value") or 1.0)
    if bounds.metric is not None and abs(gain) > bounds.metric * value:
        reasons.append(
            f"its metric differs by {gain / value:+.1%}; {bounds.metric:.1%} is allowed, also of what seems better (metric)"
        )
    return [*reasons, *_decisions(settings, root, fresh, current)]


def _decisions(settings: Settings, root: Path, fresh: Any, current: Any) -> list[str]:
    """Whether too many rows are decided otherwise, by the report of `compare` about these two models."""
    limit = settings.governance.retraining.changed_decisions
    if limit is None or fresh["sha256"] == current["sha256"]:
        return []
    path = root / paths.COMPARE
    report = read_json(path) if path.is_file() else {}
    if (report.get("model"), report.get("production")) != (fresh["sha256"], current["sha256"]):
        return ["how many decisions change was not compared: `compare` (changed_decisions)"]
    if not report["rows"]:
        return ["no row is new to both models, by which to tell whose decision changes"]
    if report["share"] > limit:
        return [
            f"{report['share']:.1%} of rows are decided otherwise; {limit:.1%} is allowed (changed_decisions)"
        ]
    return []


def _columns(manifest: Any) -> set[str]:
    return {column["name"] for column in manifest["inputs"]}
