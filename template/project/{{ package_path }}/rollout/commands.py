"""The commands of a second model: put it beside production, give it a share, judge it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..cli import BY, MODELLING, MONITORING, ROOT, URL, app, console, settings
from ..paths import ROUTER_STATE


@app.command(rich_help_panel=MODELLING)
def challenge(
    by: Annotated[str | None, typer.Option(help=BY)] = None,
    url: Annotated[str | None, typer.Option(help=URL)] = None,
) -> None:
    """Put the model that passed the gate beside the one in production, for `rollout`."""
    from ..modelling import registry
    from ..scoring.commands import announce, signed, tracking

    registry.challenge(ROOT, tracking(), signed(by))
    announce("beside production, and `rollout` says what it gets", url)


@app.command(rich_help_panel=MODELLING)
def learn(url: Annotated[str | None, typer.Option(help=URL)] = None) -> None:
    """Let a linear model beside production go on learning from the log's labels, unseen by users."""
    from ..scoring.commands import announce, tracking
    from .learning import learn as go_on
    from .learning import show

    report = go_on(settings(), ROOT, tracking())
    show(report, settings(), console)
    if report["rows"]:
        announce("beside production; `rollout mode=shadow` lets it answer unseen", url)


@app.command(rich_help_panel=MONITORING)
def rollout(
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as mode=canary.")
    ] = None,
    url: Annotated[str | None, typer.Option(help=URL)] = None,
) -> None:
    """Show which model answers how much, or change it while the service runs."""
    from .router import open_router, parse_changes, show

    if url:
        from ..scoring.remote import router_status

        show(router_status(url, parse_changes(changes or [])), console)
        return
    router = open_router(settings(), ROOT)
    if changes:
        router.change(**parse_changes(changes))
    show(router.status(), console)


@app.command(rich_help_panel=MONITORING)
def experiment(
    kind: Annotated[
        str | None,
        typer.Argument(help="ab, bandit, exploration, shadow or backtest."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="How long an A/B test has to run.")] = False,
    effect: Annotated[
        float | None, typer.Option(help="Of the plan: least gain, as a share.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Leave out what is earlier.")] = None,
    file: Annotated[Path | None, typer.Option(help="Of clicks on lists of two models.")] = None,
) -> None:
    """Say what an online experiment shows; exit 1 when a guardrail or its ground broke."""
    from . import experiment as experiments
    from .verdict import show

    if plan:
        result = experiments.plan(settings(), ROOT, effect)
    else:
        result = experiments.experiment(settings(), ROOT, kind or _kind_in_use(), since, file)
    show(result, console)
    if result["state"] == "broken":
        raise typer.Exit(1)


def _kind_in_use() -> str | None:
    """The kind of experiment that the router runs now, where `rollout` changed it while running."""
    if not (ROOT / ROUTER_STATE).is_file():
        return None
    from .router import open_router

    mode = open_router(settings(), ROOT).settings.mode
    return {"canary": "ab", "ab": "ab", "bandit": "bandit", "shadow": "shadow"}.get(mode)
