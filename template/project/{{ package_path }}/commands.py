"""The commands of the project as a whole: run it, settle a merge, propose a change, keep the documents true."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from .cli import (
    GOALS,
    PROJECT,
    ROOT,
    app,
    console,
    design,
    refresh_documents,
    say_retired,
    settings,
    track,
)
from .paths import GATE, PRODUCTION, SETTINGS_FILE, SITE
from .settings import quote_dates, read_json, set_values


@app.command(rich_help_panel=PROJECT)
def run(
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change params.yaml first."),
    ] = None,
) -> None:
    """Run the pipeline: every stage whose code, settings or data changed (`dvc repro`)."""
    if set_:
        set_values(ROOT / SETTINGS_FILE, set_)
    if count := quote_dates(ROOT / SETTINGS_FILE):
        console.print(f"params.yaml: {count} put in quotes, since DVC takes no bare dates")
    from .data.fingerprint import take
    from .modelling.tables import show_candidates, show_gate
    from .repository import needs_repository, reproduce, verified
    from .stages import complete

    config = settings()
    needs_repository(ROOT)
    verified(ROOT, PRODUCTION)  # what the gate compares with
    for line in [*complete(ROOT), *take(config, ROOT)]:
        console.print(line, markup=False)
    gate_path = ROOT / GATE
    before = gate_path.stat().st_mtime_ns if gate_path.is_file() else 0
    ran = reproduce(ROOT)
    if ran is None:
        judged = gate_path.is_file() and gate_path.stat().st_mtime_ns > before
        if not judged or read_json(ROOT / GATE)["passed"]:
            raise typer.Exit(2)
        show_candidates(ROOT, console)
        refresh_documents(draw=True)
        track()
        say_retired()
        console.print(
            "The gate failed: the table above says by how much. The model stays as it was."
        )
        raise typer.Exit(1)
    show_candidates(ROOT, console)
    show_gate(ROOT, console)
    _report_skipped(ran)
    refresh_documents(draw=True)
    track()
    say_retired()
    console.print(
        "Next: [bold]reports/model_card.md[/] says what the model is, [bold]reports/board.html[/] what is decided;\n"
        "[bold]design status[/] lists what is open."
    )


@app.command(rich_help_panel=PROJECT)
def resolve() -> None:
    """Settle a merge in what the pipeline wrote (dvc.lock, reports/, *.dvc); exit 1 when more is left."""
    from .repository import pull
    from .repository import resolve as settle

    settled, unsettled = settle(ROOT)
    for name in settled:
        console.print(f"settled: {name}, as it was pulled", markup=False)
    for name in unsettled:
        console.print(f"left for you: {name}", markup=False)
    if not settled and not unsettled:
        console.print("No file is in conflict.")
        return
    pull_error = "" if unsettled else pull(ROOT)
    if pull_error:
        console.print(f"not brought yet, `dvc pull` does it: {pull_error}", markup=False)
    console.print(
        "Next: mend the files above, `git add` them, and `resolve` again." if unsettled else
        "Next: `run`, which works out again what follows from both; then commit."
    )  # fmt: skip
    raise typer.Exit(1 if unsettled else 0)


@app.command(rich_help_panel=PROJECT)
def remote() -> None:
    """Say whether DVC's remote can be reached from here, before anything waits for it."""
    from .ci import remote as ask

    console.print(f"the DVC remote answers: {ask(ROOT)}", markup=False)


@app.command(rich_help_panel=PROJECT)
def propose(
    what: Annotated[
        Literal["model", "template"],
        typer.Argument(help="What `retrain` left, or the newest template."),
    ],
) -> None:
    """Propose a change as a branch and a pull request, from a scheduled job."""
    from . import ci
    from .repository import dvc, needs_repository

    needs_repository(ROOT)
    if what == "model":
        message = ci.propose_model(ROOT, lambda: dvc(ROOT, "push"))
    else:
        message = ci.propose_template(ROOT)
    console.print(message, markup=False)


@app.command(rich_help_panel=GOALS)
def gate() -> None:
    """Print the last gate as a Markdown table; exit 1 when it was not passed."""
    from .goals.gate import table
    from .modelling.tables import changed_decisions

    report = read_json(ROOT / GATE)
    print(table(report), end="")
    if changes := changed_decisions(ROOT, report):
        print(f"\n{changes}")
    raise typer.Exit(0 if report["passed"] else 1)


@design.command()
def status() -> None:
    """Count the decisions by segment, and rank what is still open by its risk."""
    from .documents import show_status

    show_status(ROOT, console)


@design.command()
def sync(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 when stale.")
    ] = False,
) -> None:
    """Refresh the settings that the documents quote."""
    from .documents import sync as refresh

    stale = refresh(ROOT, check)
    for line in stale:
        console.print(line, markup=False)
    if check and stale:
        console.print("the documents are behind: run `design sync`")
        raise typer.Exit(1)
    console.print("documents are up to date" if check or not stale else f"{len(stale)} refreshed")


@design.command()
def show(
    page: Annotated[
        str | None, typer.Argument(metavar="[PAGE|ID]", help="2, index or 2.10; all.")
    ] = None,
) -> None:
    """Print the pages with today's figures filled in: all, one of them, or one decision."""
    from .documents import show as print_pages

    print_pages(ROOT, page, console)


@design.command()
def site() -> None:
    """Build the pages, cards, pictures and the board as a site that needs no network (build/site)."""
    from .website import build_site

    console.print(f"{build_site(ROOT)} pages: open {SITE}/index.html")


@design.command()
def board() -> None:
    """Draw the five segments on one page: what is decided, and today's figures."""
    from .documents import draw_board

    console.print(f"{' and '.join(draw_board(ROOT))}: what is decided, and today's figures")


@design.command()
def ready() -> None:
    """Score the project against the 28 tests of the ML Test Score, by what its checks left behind."""
    from .readiness import readiness, show

    show(readiness(settings(), ROOT), console)


app.add_typer(design, name="design", no_args_is_help=True, rich_help_panel=PROJECT)


def _report_skipped(ran: list[str]) -> None:
    """Say in one line which stages did not run, and why."""
    from .stages import names

    skipped = [name for name in names(ROOT) if name not in ran]
    if skipped:
        subject = f"{', '.join(skipped)}: each" if ran else "Every stage was"
        end = "." if ran else "; the tables are those of the last run."
        console.print(f"{subject} skipped, since nothing that it reads changed{end}")
