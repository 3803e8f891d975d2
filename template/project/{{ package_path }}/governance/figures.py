"""Figures that the gate asks of those who sign."""

from __future__ import annotations

from pathlib import Path

from ..goals.gate import Figure
from ..settings import Settings
from .membership import membership


def figures(settings: Settings, root: Path) -> dict[str, Figure | str | None]:
    """The figures of the part's targets, by the target's name; in the place of one, why nothing was measured."""
    return {"membership": membership(settings, root)}
