"""The command that leaves the model in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..cli import MODELLING, ROOT, app, console


@app.command(rich_help_panel=MODELLING)
def export(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write.")],
    compressed: Annotated[
        bool, typer.Option("--compressed", help="The smaller model of `compress`.")
    ] = False,
) -> None:
    """Leave the model in a folder that scores with onnxruntime and numpy alone."""
    from ..modelling.registry import smaller_model
    from ..scoring.batch import answering_folder
    from .folder import export as work

    source = smaller_model(ROOT) if compressed else answering_folder(ROOT)
    console.print(f"export: {work(source, target)} holds {source}; its README says how to use it")
