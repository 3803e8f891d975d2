"""The commands of the models in use: promote and roll back, score files, take labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from ..cli import (
    BY,
    DATA,
    MODELLING,
    MONITORING,
    ROOT,
    URL,
    app,
    console,
    say_retired,
    settings,
    track,
)
from ..parts import part_module
from ..paths import FORGOTTEN, MODEL_POINTERS, PREDICTIONS, ROUTER_STATE, SCORES
from ..settings import UserError


@app.command(rich_help_panel=MODELLING)
def promote(
    challenger: Annotated[
        bool, typer.Option("--challenger", help="The one that `challenge` put beside it.")
    ] = False,
    compressed: Annotated[
        bool, typer.Option("--compressed", help="The smaller one of `compress`.")
    ] = False,
    ungated: Annotated[
        bool,
        typer.Option("--ungated", help="Of --challenger: also one of `learn` without a sure gain."),
    ] = False,
    by: Annotated[str | None, typer.Option(help=BY)] = None,
    url: Annotated[str | None, typer.Option(help=URL)] = None,
) -> None:
    """Make the model that passed the gate the one in production; a running service takes it."""
    from ..cards import refresh_model_card
    from ..modelling import registry

    signatures = signed(by, challenger)
    registry.promote(ROOT, challenger, compressed, tracking(), ungated, signatures)
    if signatures:
        refresh_model_card(ROOT)
    if (bill := part_module("governance.bom")) and not challenger:
        try:
            bill.write_bom(settings(), ROOT)
        except UserError as error:  # the model is in its place whatever the bill lacks
            console.print(f"no bill of materials: {error}", markup=False)
    announce("promoted", url)


def signed(by: str | None, challenger: bool = False) -> Mapping[str, str] | None:
    """Who signs for a model that is about to answer, as its manifest keeps it; None where nobody has to.

    Raises:
        UserError: when the settings ask for another name.
    """
    if promotion := part_module("governance.promotion"):
        names: Mapping[str, str] = promotion.approve(settings(), ROOT, by, challenger)
        return names
    return {"promoted_by": by} if by else None


@app.command(rich_help_panel=MODELLING)
def rollback(url: Annotated[str | None, typer.Option(help=URL)] = None) -> None:
    """Put the previous model back into production; a running service takes it."""
    from ..modelling import registry

    registry.rollback(ROOT, tracking())
    announce("back", url)


@app.command(rich_help_panel=MODELLING)
def score(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="CSV, Parquet, JSON, Excel; folders, also of images; globs."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")] = Path(SCORES),
    fallback: Annotated[bool, typer.Option("--fallback", help="The baseline may answer.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="At once; else scoring.hardware.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Of a thread at once; likewise.")] = None,
    log: Annotated[bool, typer.Option("--log", help="Keep it for the monitor.")] = False,
    ungated: Annotated[
        bool, typer.Option("--ungated", help="Also a model that missed the gate.")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="Where paths of images start; else data.source.images."),
    ] = None,
) -> None:
    """Answer for every row of files of any size, as the service would."""
    from .batch import score as score_files

    options = (fallback, threads, rows, log, ungated, images)
    result = score_files(settings(), ROOT, files, out, *options)
    console.print(
        f"score: {result.rows:,} rows by {result.model} of {result.folder}, {result.flagged:,} of them with a flag, "
        f"{result.refused:,} refused: {out}"
    )
    for note in result.notes:
        console.print(note, markup=False)
    if result.fallback:
        console.print(f"answered by the baseline: {result.fallback}", markup=False)
    if result.unreadable:
        console.print(f"{result.unreadable:,} lines do not fit the header and are left out")


@app.command(rich_help_panel=MONITORING)
def feedback(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV, Parquet, JSON, Excel; globs.")],
    id: Annotated[str, typer.Option(help="Its column with the ids of the answers.")] = "id",
    label: Annotated[str, typer.Option(help="Its column with what came true; the label's.")] = "",
) -> None:
    """Take the labels of rows that were scored, for the monitor."""
    from .batch import feedback as append_labels
    from .batch import without_answer

    params = settings()
    column = label or params.data.label.column
    count = append_labels(params, ROOT, file, id, column)
    console.print(f"feedback: {count:,} labels of {column}")
    if unmatched := without_answer(ROOT):
        console.print(
            f"{unmatched:,} of them are of no answer in {PREDICTIONS}: the column {id} has to hold the ids of answers, as "
            "the service or `score --log` gave them",
            markup=False,
        )


@app.command(rich_help_panel=MODELLING)
def materialize(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE...]", help="As score takes them; none: the data's own."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Else scoring.online_store.")] = None,
) -> None:
    """Write what is known by key, as the latest history of a series, where the service looks."""
    from .materialize import materialize as write

    params = settings()
    store = params.scoring.online_store
    if out is None and store is None:
        raise UserError("params.yaml: scoring.online_store: names no file; name one, or use --out")
    target = out or ROOT / str(store)
    for column, count in write(params, ROOT, files or [], target).items():
        console.print(f"materialize: {count:,} values of {column}: {target}", markup=False)


@app.command(rich_help_panel=DATA)
def forget(
    id: Annotated[str | None, typer.Option(help="Whom; without it, what is too old.")] = None,
    column: Annotated[
        str | None, typer.Option(help="That names people; else data.split.group.")
    ] = None,
) -> None:
    """Delete what logs and the online store have of a person, or of too long ago (data.retention)."""
    from . import forget as forgetting

    params = settings()
    column = column or params.data.split.group
    if id is None:
        records = part_module("governance.retention")
        deleted = records.forget_records(params, ROOT) if records else {}
        for file, count in deleted.items():
            console.print(f"forget: {count:,} records of {file} are deleted", markup=False)
        if deleted and params.answer_days[1] is None:
            return
        result = forgetting.forget_old(params, ROOT)
    elif column is None:
        raise UserError("--id: which column names people? --column NAME says so")
    else:
        result = forgetting.forget(params, ROOT, column, id)
    console.print(
        f"forget: {result.answers:,} answers, {result.labels:,} labels and {result.lines:,} lines of what is looked up and of people's labels are deleted"
    )
    if result.held:
        console.print(
            f"{result.held:,} answers stay: they are younger than data.retention.floor_days"
            f"{' or governance.records.answers' if params.governance else ''}"
        )
    if result.open_files:
        seconds = f"{params.serving.log.rotate_seconds:g} seconds" if params.serving else "a while"
        console.print(
            f"{result.open_files} files of logs are still written; forget again in {seconds}"
        )
    if result.is_unknown:
        console.print(
            f"no file here has {column} {id!r}: is that how the source writes it?", markup=False
        )
    if id is not None:
        console.print(
            f"commit {FORGOTTEN}, then `run`: data, splits and model are made without that person;"
        )
        console.print(
            "then `dvc gc --workspace --cloud` deletes earlier versions of the data", markup=False
        )


def tracking() -> Callable[[list[str]], object]:
    """Lets DVC keep folders; refuses now what DVC would refuse when a model has taken its place."""
    from ..repository import dvc, needs_repository, repository

    if repository(ROOT) is None and not list(ROOT.glob(MODEL_POINTERS)):  # a copy on a server
        return list
    needs_repository(ROOT)
    return lambda folders: dvc(ROOT, "add", *folders)


def announce(message: str, url: str | None) -> None:
    """A model took another place: let a running service read it."""
    from ..repository import exposed_remote, repository
    from .state import bump

    if repository(ROOT) is None:
        console.print(f"{message}; no git here, so no record of it is stored", markup=False)
    else:
        console.print(f"{message}: commit {MODEL_POINTERS}, then `dvc push`", markup=False)
        if remote := exposed_remote(ROOT):
            console.print(
                f"first: the DVC remote, {remote}, lies inside the repository, and git would take the data "
                "in; name it in .gitignore, or `dvc remote modify storage url PATH` moves it",
                markup=False,
            )
    if url:
        from .remote import reload

        console.print(f"the service took it: {reload(url)}", markup=False)
    else:
        bump(ROOT / ROUTER_STATE)
    say_retired()
    track()
