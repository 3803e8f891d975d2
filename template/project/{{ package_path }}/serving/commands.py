"""The commands of the service, and of what it looks up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..cli import MODELLING, ROOT, app, console, settings
from ..settings import UserError


@app.command(rich_help_panel=MODELLING)
def serve(
    host: Annotated[
        str, typer.Option(help="0.0.0.0 lets others in; needs SERVE_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Instead of serving.port.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port.")] = 1,
) -> None:
    """Answer over HTTP from the model in production, or from the one just trained."""
    from .server import serve as start

    start(host, port or settings().serving.port, workers)


@app.command(rich_help_panel=MODELLING)
def materialize(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE...]", help="As score takes them; none: the data's own."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Else serving.online_store.")] = None,
) -> None:
    """Write what is known by key, as the latest history of a series, where the service looks."""
    from ..scoring.materialize import materialize as write

    params = settings()
    kept = params.serving.online_store
    if out is None and kept is None:
        raise UserError("params.yaml: serving.online_store: names no file; name one, or use --out")
    target = out or ROOT / str(kept)
    for column, count in write(params, ROOT, files or [], target).items():
        console.print(f"materialize: {count:,} values of {column}: {target}", markup=False)
