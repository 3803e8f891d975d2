"""Commands that look closer: learning curves, which columns matter, what is assumed, one row traced, how quick the model is."""

from __future__ import annotations

from typing import Annotated

import typer

from ..cli import MODELLING, ROOT, app, console, settings
from ..paths import SETTINGS_FILE


@app.command(rich_help_panel=MODELLING)
def curves() -> None:
    """Say whether more data or a bigger model would gain more (reports/curves.png)."""
    from .curves import curves as stage
    from .curves import show

    show(stage(settings(), ROOT), console)


@app.command(rich_help_panel=MODELLING)
def explain(
    row: Annotated[
        int | None, typer.Option(help="Why a row of the test part has its score.")
    ] = None,
) -> None:
    """Which columns and families matter, which could go (reports/importance.png)."""
    from .contributions import explain_row
    from .importance import importance, show

    config = settings()
    if row is None:
        show(importance(config, ROOT), console)
        return
    way, added_by = explain_row(config, ROOT, row)
    console.print(way, markup=False)
    for name, value, added in added_by:
        console.print(f"{added:+.4g}  {name} = {value}", markup=False)


@app.command(rich_help_panel=MODELLING)
def assumptions() -> None:
    """What the method takes for granted of the data, and whether it is so (in the card too)."""
    from ..cards import refresh_model_card
    from .assumptions import assumptions as stage
    from .assumptions import show

    show(stage(settings(), ROOT), console)
    refresh_model_card(ROOT)


@app.command(rich_help_panel=MODELLING)
def trace(row: Annotated[int, typer.Argument(help="Of the test part, from 0.")] = 0) -> None:
    """Follow one test row through the model, step by step."""
    from .trace import lines as stage

    for line in stage(settings(), ROOT, row):
        console.print(line, markup=False)


@app.command(rich_help_panel=MODELLING)
def bench(
    write: Annotated[
        bool, typer.Option("--write", help="Into params.yaml, for `score` and `serve`.")
    ] = False,
) -> None:
    """How quick the model is here, by batch size, threads and runtime; which of them to use."""
    from .bench import bench as work
    from .bench import show, write_choice

    report = work(ROOT)
    show(report, console)
    if write:
        write_choice(ROOT / SETTINGS_FILE, report["best"])
        console.print(f"{SETTINGS_FILE}: scoring.hardware has them, `score` and `serve` take them")
