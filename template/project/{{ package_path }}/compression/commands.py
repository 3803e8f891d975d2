"""The command that makes the model smaller."""

from __future__ import annotations

import typer

from ..cli import MODELLING, ROOT, app, console, settings
from ..parts import part_module
from ..paths import COMPRESSED, GATE
from ..settings import read_json


@app.command(rich_help_panel=MODELLING)
def compress() -> None:
    """Make a smaller copy of the model, and say what that cost; exit 1 when the copy does not pass."""
    from .compress import compress as stage
    from .compress import show

    report = stage(settings(), ROOT)
    show(report, read_json(ROOT / GATE), console)
    if report["rows"] and not report["passed"]:
        raise typer.Exit(1)
    if report["passed"] and (monitoring := part_module("monitoring.reference")):
        # What the smaller model's own answers will be compared with
        monitoring.reference(settings(), ROOT, COMPRESSED)
