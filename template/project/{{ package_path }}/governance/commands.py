"""The commands of those who sign: the stop switch, who is excluded, appeals."""

from __future__ import annotations

from typing import Annotated

import typer

from ..cli import MONITORING, ROOT, URL, app, console, settings
from ..paths import APPEALS, OVERSIGHT
from ..settings import UserError

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
