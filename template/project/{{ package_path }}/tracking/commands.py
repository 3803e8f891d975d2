"""The commands of tracking: send the last run, export the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..cli import MODELLING, ROOT, app, console, settings

catalogue = typer.Typer(help="What was made of what, for a catalogue of data.")


@app.command(rich_help_panel=MODELLING)
def track() -> None:
    """Send the last run and the model in production to the tracker, as `run` and `promote` do by themselves."""
    from .trackers import track as send

    for line in send(settings(), ROOT):
        console.print(line, markup=False)


@catalogue.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the two files go.")],
) -> None:
    """Write data sets, features, the model and what each is made of: for DataHub, and as OpenLineage events."""
    from .catalogue import export as write

    for path, entries in write(settings(), ROOT, folder).items():
        console.print(f"catalogue: {path}: {entries} entries", markup=False)


app.add_typer(catalogue, name="catalogue", no_args_is_help=True, rich_help_panel=MODELLING)
