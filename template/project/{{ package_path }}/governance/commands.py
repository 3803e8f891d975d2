"""The commands for those who sign: what the model is made of, who stops it or appeals, incidents, its end, the dossier."""

from __future__ import annotations

from typing import Annotated

import typer

from ..cli import MODELLING, MONITORING, ROOT, URL, app, console, design, settings
from ..paths import APPEALS, ARCHIVE, BOM, DOSSIER, INCIDENTS, OVERSIGHT, RETIRED
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


oversight = typer.Typer(help="Stop the model, exclude rows from it, and answer appeals.")
app.add_typer(oversight, name="oversight", no_args_is_help=True, rich_help_panel=MONITORING)

BY = "Who does it."
REASON = "Why, in words."
COLUMN = "That names whom a row is about; else the router's unit."


@oversight.command("stop")
def stop_model(
    reason: Annotated[str | None, typer.Option(help=REASON)] = None,
    by: Annotated[str | None, typer.Option(help=BY)] = None,
    url: Annotated[str | None, typer.Option(help=URL)] = None,
) -> None:
    """Let no model answer from now on: every worker of the service answers by the fallback."""
    from .oversight import stop

    if url:
        from ..scoring.remote import operate

        operate(url, "/stop", {"by": by, "reason": reason})
    else:
        stop(ROOT, by, reason)
    console.print("stopped: the fallback answers, until `oversight resume`")


@oversight.command("resume")
def resume_model(
    reason: Annotated[str | None, typer.Option(help=REASON)] = None,
    by: Annotated[str | None, typer.Option(help=BY)] = None,
    url: Annotated[str | None, typer.Option(help=URL)] = None,
) -> None:
    """Let the models answer again."""
    from .oversight import resume

    if url:
        from ..scoring.remote import operate

        operate(url, "/resume", {"by": by, "reason": reason})
    else:
        resume(ROOT, by, reason)
    console.print("resumed: the models answer")


@oversight.command("exclude")
def exclude_unit(
    value: Annotated[str, typer.Argument(help="Whom, as the source writes it.")],
    column: Annotated[str | None, typer.Option(help=COLUMN)] = None,
    by: Annotated[str | None, typer.Option(help=BY)] = None,
    reason: Annotated[str | None, typer.Option(help=REASON)] = None,
) -> None:
    """Let no model decide on somebody's rows: the fallback answers them, and a person decides."""
    from .oversight import exclude

    column = exclude(settings(), ROOT, value, column, by, reason)
    console.print(f"excluded: rows of {column} {value!r}; a person decides", markup=False)


@oversight.command("include")
def include_unit(
    value: Annotated[str, typer.Argument(help="Whom, as the source writes it.")],
    column: Annotated[str | None, typer.Option(help=COLUMN)] = None,
    by: Annotated[str | None, typer.Option(help=BY)] = None,
    reason: Annotated[str | None, typer.Option(help=REASON)] = None,
) -> None:
    """Let models decide on somebody's rows again."""
    from .oversight import include

    column = include(settings(), ROOT, value, column, by, reason)
    console.print(f"included: models decide on {column} {value!r} again", markup=False)


@oversight.command("list")
def list_acts() -> None:
    """Show whether the model is stopped, and who is excluded."""
    from .oversight import phrase, read

    state = read(ROOT)
    stopped = f"stopped{phrase(state.stop)}" if state.stop else "not stopped"
    console.print(f"the model is {stopped}; {len(state.excluded):,} are excluded", markup=False)
    for (column, unit), act in state.excluded.items():
        name = f"{unit[:12]}… (a digest)" if "digest" in act else unit
        console.print(f"{column} {name}: excluded{phrase(act)}", markup=False)
    if state.stop or state.excluded:
        console.print(f"{OVERSIGHT} has every act, in its order", markup=False)


@oversight.command("appeal")
def record_appeal(
    id: Annotated[str, typer.Argument(help="Of the answer.")],
    reason: Annotated[str, typer.Option(help="What is wrong with it, in words.")],
    by: Annotated[str | None, typer.Option(help="Who records it.")] = None,
) -> None:
    """Record that somebody objects to an answer."""
    from .appeals import appeal, is_answered

    appeal(ROOT, id, reason, is_answered(ROOT), by)
    console.print(
        f"appeal on {id}: open; `oversight answer` records what comes of it", markup=False
    )


@oversight.command("appeals")
def list_appeals() -> None:
    """List appeals with the answers that they are about, the open ones first."""
    from .appeals import appeals

    listed = appeals(ROOT)
    n_open = sum(appeal.outcome is None for appeal in listed)
    console.print(f"{len(listed):,} appeals in {APPEALS}, {n_open:,} of them open", markup=False)
    for appeal in listed:
        answer = "the log has its answer no more"
        if appeal.answer:
            answer = "score {score:.4g}, decision {decision}, by {model} on {time:%Y-%m-%d %H:%M}".format(
                **appeal.answer
            )
        state = "open"
        if outcome := appeal.outcome:
            state = f"{outcome['outcome']} by {outcome['by']} on {outcome['at'][:10]} ({outcome['reason']})"
        console.print(f"{appeal.id}: {appeal.reason}", markup=False)
        console.print(f"  {answer}; appealed on {appeal.at[:10]}; {state}", markup=False)


@oversight.command("answer")
def answer_appeal(
    id: Annotated[str, typer.Argument(help="Of the answer that was appealed against.")],
    by: Annotated[str, typer.Option(help="Who decided.")],
    reason: Annotated[str, typer.Option(help=REASON)],
    upheld: Annotated[bool, typer.Option("--upheld", help="The decision stays.")] = False,
    changed: Annotated[bool, typer.Option("--changed", help="Another takes its place.")] = False,
) -> None:
    """Record what came of an appeal."""
    from .appeals import answer

    if upheld == changed:
        raise UserError("say one of --upheld and --changed")
    answer(ROOT, id, "upheld" if upheld else "changed", by, reason)
    console.print(f"appeal on {id}: {'upheld' if upheld else 'changed'}", markup=False)
