"""The commands for those who sign: what the model is made of, incidents, the end of it, and the dossier."""

from __future__ import annotations

from typing import Annotated

import typer

from ..cli import MODELLING, MONITORING, ROOT, URL, app, console, design, settings
from ..paths import ARCHIVE, BOM, DOSSIER, INCIDENTS, RETIRED
from ..settings import UserError

incident = typer.Typer(help="What went wrong in service: who noticed it when, and how it ended.")
WHO = "Who says so; else whom git names."


@app.command(rich_help_panel=MODELLING)
def bom() -> None:
    """Write the bill of materials: the model, its data and each package, by CycloneDX (reports/bom.json)."""
    from .bom import write_bom

    components = write_bom(settings(), ROOT)["components"]
    packages = [part for part in components if part["type"] == "library"]
    licensed = sum("licenses" in part for part in packages)
    console.print(
        f"bom: the model, its data and {len(packages)} packages, {licensed} of them with their licence: {BOM}"
    )


@design.command("dossier")
def write_dossier() -> None:
    """Gather pages, cards, bill of materials, figures and records in one folder, with a page to print (build/dossier)."""
    from .dossier import dossier

    made = dossier(settings(), ROOT)
    for key in made.missing:
        console.print(f"not written: {key}", markup=False)
    console.print(f"dossier: open {made.page.as_posix()}; its files lie in {DOSSIER}")


@app.command(rich_help_panel=MONITORING)
def retire(
    reason: Annotated[str, typer.Option(help="Why nothing is to answer any more.")] = "",
    by: Annotated[str, typer.Option(help="Who says so.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Let the model answer again.")] = False,
    url: Annotated[str | None, typer.Option(help=URL)] = None,
) -> None:
    """Switch the system off: archive it, and let the service answer 410 with the reason; `--undo` takes that back."""
    from ..scoring.commands import tracking
    from .retirement import reinstate
    from .retirement import retire as switch_off

    if undo and (reason or by):
        raise UserError("--undo: takes no --reason and no --by: git says who committed it")
    if undo:
        reinstate(ROOT)
        console.print(f"in use again: commit that {RETIRED} is gone; {ARCHIVE} stays as it is")
    elif not (reason and by):
        raise UserError("retire: --reason TEXT and --by NAME: say why, and who says so")
    else:
        mark = switch_off(settings(), ROOT, reason, by, tracking())
        console.print(f"retired by {mark['by']}: {mark['reason']}", markup=False)
        console.print(
            f"the archive is {ARCHIVE}: commit {RETIRED} and {ARCHIVE}.dvc, then `dvc push`"
        )
    if url:
        from ..scoring.remote import reload

        console.print(f"the service took it: {reload(url)}", markup=False)


@incident.command("open")
def open_(
    fault: Annotated[str, typer.Option("--what", help="What is wrong, in a sentence.")],
    alert: Annotated[
        str | None, typer.Option(help="That rang; none where a person noticed.")
    ] = None,
    by: Annotated[str | None, typer.Option(help=WHO)] = None,
    start: Annotated[
        str | None, typer.Option(help="Since when, as 2026-11-28T17:05 (UTC); else now.")
    ] = None,
) -> None:
    """Log that something is wrong, from now on or since an earlier moment."""
    from .incidents import open_incident, runbook

    opened = open_incident(ROOT, alert, fault, by, start)
    console.print(f"incident {opened.id} is open: commit {INCIDENTS}", markup=False)
    if alert:
        console.print(f"what to do: {runbook(ROOT)[alert]}", markup=False)
    if settings().governance.risk == "high":
        console.print(
            f"should it be a serious one, the authority is told by {opened.report_by:%Y-%m-%d} at the latest, of some kinds "
            "within 2 or 10 days (AI Act, Art. 73)",
            markup=False,
        )


@incident.command()
def close(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `incident list` has it.")],
    cause: Annotated[str, typer.Option(help="What caused it.")],
    remedy: Annotated[str, typer.Option(help="What was done, and is to keep it from coming back.")],
    by: Annotated[str | None, typer.Option(help=WHO)] = None,
    end: Annotated[str | None, typer.Option(help="Since when it is over; else now.")] = None,
) -> None:
    """Log that an incident is over."""
    from .incidents import close_incident

    closed = close_incident(ROOT, id, cause, remedy, by, end)
    assert closed.end is not None  # it was just closed
    lasted = closed.end - closed.start
    console.print(f"incident {id} is closed, after {lasted}: commit {INCIDENTS}", markup=False)


@incident.command("list")
def list_() -> None:
    """Show the log, the newest incident first."""
    from .incidents import incidents

    logged, is_high = incidents(ROOT), settings().governance.risk == "high"
    moment = "%Y-%m-%d %H:%M"
    for entry in reversed(logged):
        until = f"to {entry.end:{moment}}" if entry.end else "and open"
        sign = entry.alert or "noticed by a person"
        lines = [
            f"{entry.id}{' (drill)' if entry.drill else ''} {sign}: from {entry.start:{moment}} {until}, UTC",
            f"  {entry.fault} ({entry.by}, {entry.notice:{moment}})",
        ]
        if entry.end:
            lines.append(f"  {entry.cause}; {entry.remedy} ({entry.closed_by})")
        elif is_high:
            lines.append(f"  should it be a serious one: told by {entry.report_by:%Y-%m-%d}")
        console.print("\n".join(lines), markup=False)
    if not logged:
        console.print(f"No incident is logged in {INCIDENTS}.")


@incident.command()
def drill(by: Annotated[str | None, typer.Option(help=WHO)] = None) -> None:
    """Let an alert ring on a copy, log an incident of it, close it and show the log; exit 1 when nothing rings."""
    from .incidents import drill as run_drill
    from .incidents import runbook

    rehearsed, message = run_drill(settings(), ROOT, by)
    console.print(message, markup=False)
    if rehearsed is None:
        raise typer.Exit(1)
    section = runbook(ROOT).get(str(rehearsed.alert), "nothing is written")
    console.print(f"what to do: {section}", markup=False)
    list_()


app.add_typer(incident, name="incident", no_args_is_help=True, rich_help_panel=MONITORING)
