"""The commands of segment 5: reference, monitor, drills, retraining."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..cli import MONITORING, ROOT, app, console, settings
from ..parts import part_module
from ..paths import MONITOR_PAGE
from ..settings import UserError


@app.command(rich_help_panel=MONITORING)
def reference() -> None:
    """Profile the training rows and scores, to compare later data with."""
    from .reference import reference as stage

    summary = stage(settings(), ROOT)
    console.print(f"reference: {summary['columns']} profiles of {summary['rows']:,} rows")


@app.command(rich_help_panel=MONITORING)
def monitor() -> None:
    """Say what is wrong, by name, from the prediction log; exit 1 when something is."""
    from ..cards import refresh_model_card
    from .monitor import monitor as stage

    report = stage(settings(), ROOT)
    refresh_model_card(ROOT)
    _print_windows(report)
    for kind, reasons in report["alarms"].items():
        console.print(f"[bold red]{kind}[/]")
        for reason in reasons:
            console.print(f"  {reason}", markup=False)
    for missing in report["waiting"]:
        console.print(f"waiting for {missing}", markup=False)
    for file in report["unreadable"]:
        console.print(f"not readable: {file['words']}", markup=False)
    if report["windows"] and not report["alarms"]:
        console.print("[green]Nothing is wrong[/] that could be measured.")
    console.print(f"{MONITOR_PAGE} shows it.")
    _notify("monitor", report["alarms"])
    raise typer.Exit(1 if report["alarms"] else 0)


@app.command(rich_help_panel=MONITORING)
def drill(
    name: Annotated[
        str, typer.Argument(help="all, or one of the failures that `drill --help` lists.")
    ],
) -> None:
    """Inject a failure into a copy and see the alarm: covariate, label, concept, schema,
    feedback-loop, edge-cases, model-down, slow-model; exit 1 when none fires.
    """
    from .drill import drill as run_drill

    missed = False
    for outcome in run_drill(settings(), ROOT, name):
        colour = {True: "green", False: "bold red", None: "yellow"}[outcome["fired"]]
        console.print(f"[{colour}]{outcome['drill']}[/]: ", end="")
        console.print(outcome["words"], markup=False)
        missed |= outcome["fired"] is False
    raise typer.Exit(1 if missed else 0)


@app.command(rich_help_panel=MONITORING)
def retrain(
    now: Annotated[bool, typer.Option("--now", help="Whether it is due or not.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only say whether it is due.")] = False,
) -> None:
    """Train when it is due, and promote what came of it if it is better at 95 % confidence."""
    from ..commands import run
    from ..modelling import registry
    from ..scoring.commands import announce, tracking
    from . import retrain as stage

    reasons = stage.due(settings(), ROOT) + (["asked for"] if now else [])
    for line in reasons or ["not due: neither schedule nor labels nor drift ask for it"]:
        console.print(line, markup=False)
    if check or not reasons:
        return
    track = tracking()
    code = 0
    try:
        run()
        if not stage.compared_with_production(ROOT):
            from ..repository import reproduce

            again = reproduce(ROOT, "--force", "--single-item", "evaluate")
            code = 1 if again is None else 0
    except typer.Exit as done:
        if done.exit_code == 2:
            _notify("retrain", {"retrain_failed": ["the pipeline stopped; its log says why"]})
            raise
        code = done.exit_code
    except UserError as error:
        _notify("retrain", {"retrain_failed": [str(error)]})
        raise
    bounds = part_module("governance.bounds")
    obstacles = bounds.obstacles(settings(), ROOT) if bounds else []
    decision = stage.conclude(ROOT, reasons, obstacles=obstacles)
    if decision["promote"]:
        registry.promote(ROOT, track=track)
        announce("promoted; `rollback` undoes it", None)
    console.print(f"{'Promoted' if decision['promote'] else 'Not promoted'}: {decision['why']}.")
    missed = {"retrain_missed": [f"not promoted: {decision['why']}"]} if code else {}
    _notify("retrain", missed, {"promoted": [decision["why"]]} if decision["promote"] else {})
    if code:
        raise typer.Exit(1)


def _notify(
    source: str, alarms: dict[str, list[str]], news: dict[str, list[str]] | None = None
) -> None:
    """Send alarms where the settings say; whatever comes of it, the command ends as it would."""
    from .alerts import notify

    if message := notify(settings(), ROOT, source, alarms, news):
        console.print(message, markup=False)


def _print_windows(report: Any) -> None:
    interval = "{value:.3g} ({low:.3g}–{high:.3g})"
    heads = ("from", "rows", "labels", "estimated", "measured", "shows")
    table = Table(*heads, title="Windows of the prediction log, newest first", box=SIMPLE_HEAD)
    for window in report["windows"][::-1][:14]:
        figures = [window["performance"][key] for key in ("estimated", "realised")]
        cells = ["–" if figure is None else interval.format(**figure) for figure in figures]
        start, kinds = window["start"].replace("T", " ")[:16], ", ".join(window["kinds"]) or "–"
        table.add_row(start, f"{window['rows']:,}", f"{window['labels']:,}", *cells, kinds)
    if table.row_count:
        console.print(table)
