"""The command of the service."""

from __future__ import annotations

from typing import Annotated

import typer

from ..cli import MODELLING, app, settings


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
