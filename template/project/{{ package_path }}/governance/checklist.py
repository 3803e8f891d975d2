"""Which of the fourteen entries for those who sign are shown, each by what a command left behind or by a setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from .. import paths
from ..documents import status
from ..settings import Settings, read_json
from .statements import RIGHTS, empty_uses


class Entry(TypedDict):
    """One of the fourteen: its id, what it asks, whether that is shown, and what shows it or is still needed."""

    id: str
    question: str
    is_shown: bool
    because: str


def entries(settings: Settings, root: Path) -> list[Entry]:
    """The fourteen entries in the order of their ids.

    Raises:
        UserError: where a report is not JSON, or a page has an entry without a status.
    """
    proofs = {**_frame(settings, root), **_goals(settings, root), **_model(settings, root)}
    questions = {entry.id: entry.question for entry in status(root)}
    return [
        Entry(
            id=id_,
            question=questions.get(id_, ""),
            is_shown=holds,
            because=proof if holds else need,
        )
        for id_, (holds, proof, need) in (proofs | _service(settings, root)).items()
    ]


Proof = tuple[bool, str, str]  # whether it is shown, what shows it, what is needed


def _frame(settings: Settings, root: Path) -> dict[str, Proof]:
    governance = settings.governance
    open_ids = {entry.id for entry in status(root) if entry.status == "open"}
    roles, pilot = governance.roles, governance.pilot
    signed = _report(root, f"{paths.PRODUCTION}/{paths.MANIFEST_FILE}").get("promotion") or {}
    second = bool(signed) and signed.get("built_by") != signed.get("promoted_by")
    return {
        "0.5": (
            "0.5" not in open_ids,
            "the entry is no longer open",
            f"write the entry in {paths.DESIGN}, and give it another status than open",
        ),
        "0.6": (
            bool(roles.fills and roles.checks and second),
            "governance.roles, and two names in the manifest of the model in production",
            "governance.roles.fills and checks, and `promote --by NAME` of a second person",
        ),
        "0.7": (
            bool(pilot.ends and pilot.success and pilot.stop),
            f"governance.pilot ends on {pilot.ends}, with a rule for both ways",
            "governance.pilot: ends, success and stop",
        ),
    }  # fmt: skip


def _goals(settings: Settings, root: Path) -> dict[str, Proof]:
    governance = settings.governance
    uses, rights = (
        empty_uses(settings),
        [k for k in RIGHTS if getattr(governance.source, k) is None],
    )
    return {
        "1.8": (not uses, "governance.use, in the card", f"governance.use: {', '.join(uses)}"),
        "1.9": (
            governance.law is not None,
            f"governance.risk: {governance.risk}, by {governance.law}",
            "governance.law: the text that the class follows from",
        ),
        "1.10": (
            _is_met(root, "monthly_cost"),
            "goals.targets.monthly_cost, held by the gate",
            "governance.prices.rows_per_day and goals.targets.monthly_cost, then `run` until the gate holds it",
        ),
        "2.11": (
            not rights and bool(governance.groups),
            "governance.source and the shares of governance.groups, in the data card",
            "governance.source: " + (", ".join(rights) or "whole") + "; governance.groups: "
            + ("named" if governance.groups else "a column and its shares"),
        ),
    }  # fmt: skip


def _model(settings: Settings, root: Path) -> dict[str, Proof]:
    model = str(_report(root, paths.MANIFEST).get("sha256", ""))
    bounds = settings.governance.retraining
    bounded = not bounds.new_columns and None not in (
        bounds.size, bounds.metric, bounds.changed_decisions,
    )  # fmt: skip
    return {
        "4.14": (
            bool(model) and model in _text(root, paths.BOM),
            f"{paths.BOM} names the model that was trained last",
            "`bom` after the last training",
        ),
        "4.15": (
            bool(model) and _report(root, paths.COMPARE).get("model") == model,
            f"{paths.COMPARE} compares the model that was trained last",
            "a model in production, then `run` or `compare`",
        ),
        "4.16": (bounded, "governance.retraining", "a bound under each key of governance.retraining"),
    }  # fmt: skip


def _service(settings: Settings, root: Path) -> dict[str, Proof]:
    records = settings.governance.records
    kinds = [name for name, kind in records if kind.at_least is None]
    return {
        "5.17": (
            all(f'"{name}"' in _text(root, paths.OVERSIGHT_DRILLS) for name in ("stop", "exclusion", "appeal")),
            "each drill of oversight",
            "`drill stop`, `drill exclusion` and `drill appeal`",
        ),
        "5.18": (
            _is_met(root, "membership"),
            "goals.targets.membership, held by the gate",
            "goals.targets.membership, then `run` until the gate holds it",
        ),
        "5.19": (
            bool(_text(root, paths.INCIDENTS)) and (root / paths.RUNBOOK).is_file(),
            f"{paths.RUNBOOK}, and {paths.INCIDENTS}",
            "`incident drill`, or an incident that was closed",
        ),
        "5.20": (
            not kinds,
            "governance.records",
            f"governance.records: at_least of {', '.join(kinds)}",
        ),
    }  # fmt: skip


def _is_met(root: Path, target: str) -> bool:
    rows = _report(root, paths.GATE).get("rows", [])
    return any(row["target"] == target and row["passed"] is True for row in rows)


def _report(root: Path, name: str) -> dict[str, Any]:
    return dict(read_json(root / name)) if (root / name).is_file() else {}


def _text(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="utf-8") if (root / name).is_file() else ""
