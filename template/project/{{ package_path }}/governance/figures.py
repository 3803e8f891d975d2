"""What the gate and the cards say for those who sign: empty statements, a month's cost, who is rare in the rows, who
can be told to have been trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from ..goals.gate import Count, Figure
from ..settings import Settings
from .cost import Cost, monthly_cost
from .coverage import Coverage, coverage
from .membership import membership
from .statements import empty_uses

Figures = dict[str, Figure | str | None]


class Report(TypedDict):
    """reports/governance.json: what the cards and pages show beside the gate's rows."""

    empty_uses: list[str]
    cost: Cost | None
    coverage: list[Coverage]


def figures(settings: Settings, root: Path, row_seconds: float) -> tuple[Figures, Report]:
    """A figure for each target of the part, and what the cards show beside them.

    Args:
        row_seconds: of a core for one row through the model.
    """
    empty = empty_uses(settings)
    cost = monthly_cost(settings, root, row_seconds)
    report = Report(empty_uses=empty, cost=cost, coverage=coverage(settings, root))
    measured: Figures = {
        # What stands there may be as good as what is missing is bad: an interval from 0 leaves the gate undecided
        "empty_statements": Count(
            float(len(empty)), 0.0, float(len(empty)), note=", ".join(empty) or None
        ),
        "monthly_cost": Figure(cost["month"]) if cost else "no rows a day are set",
        "membership": membership(settings, root),
    }
    return measured, report
