"""The commands of segment 4 up to the model: train, evaluate, compare."""

from __future__ import annotations

import typer

from ..cli import MODELLING, ROOT, app, console, settings
from ..paths import PRODUCTION


@app.command(rich_help_panel=MODELLING)
def train() -> None:
    """Fit baselines and candidates, choose one, export it."""
    from .train import train as stage

    report = stage(settings(), ROOT)
    rows = report["rows"]
    if deleted := report.get("deleted"):
        console.print(f"train: {deleted}")
    chosen = next(row["name"] for row in rows if row["chosen"])
    console.print(f"train: {len(rows)} models compared, chosen: {chosen}")


@app.command(rich_help_panel=MODELLING)
def evaluate() -> None:
    """Test the exported model and hold it against every target; exit 1 when one is missed."""
    from ..cards import write_cards
    from .compare import compare as changes
    from .evaluate import evaluate as stage
    from .tables import show_gate

    gate = stage(settings(), ROOT)
    changes(settings(), ROOT)
    write_cards(ROOT)
    if not gate["passed"]:
        show_gate(ROOT, console)
        raise typer.Exit(1)
    console.print("evaluate: the gate is passed")


@app.command(rich_help_panel=MODELLING)
def compare() -> None:
    """Say whose decision changes when the new model takes over from the one in production."""
    from ..cards import refresh_model_card
    from ..repository import verified
    from .compare import NO_PRODUCTION, show
    from .compare import compare as stage

    verified(ROOT, PRODUCTION)
    comparison = stage(settings(), ROOT)
    if comparison is None:
        console.print(NO_PRODUCTION)
        return
    refresh_model_card(ROOT)
    show(comparison, settings().modelling.evaluation.min_slice_rows, console)
