"""The command that searches for better hyper-parameters."""

from __future__ import annotations

from typing import Annotated

import typer

from ..cli import MODELLING, ROOT, app, console, refresh_documents, settings


@app.command(rich_help_panel=MODELLING)
def tune(
    seconds: Annotated[
        float | None, typer.Option(min=1, help="How long; 60 where nothing is said.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=2, help="Go on until each candidate has so many.")
    ] = None,
) -> None:
    """Search for better hyper-parameters; write into params.yaml what gains beyond noise."""
    from .tune import show
    from .tune import tune as work

    report = work(settings(), ROOT, 60.0 if seconds is None and trials is None else seconds, trials)
    show(report, console)
    if any(row["applied"] for row in report["candidates"].values()):
        refresh_documents(draw=False)
        console.print("params.yaml is changed; read its diff, then use [bold]run[/].")
