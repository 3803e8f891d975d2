"""The command that lets a network learn from inputs alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..cli import MODELLING, ROOT, app, console, settings
from ..paths import PRETRAINED


@app.command(rich_help_panel=MODELLING)
def pretrain(
    feature: Annotated[str, typer.Argument(help="Of the catalogue, with encode: network.")],
    out: Annotated[Path | None, typer.Option(help="The folder to write.")] = None,
) -> None:
    """Let a feature's network learn from inputs without labels; its folder is what `encoder` names then."""
    from .pretraining import pretrain as stage

    folder = out or Path(PRETRAINED, feature)
    values, losses = stage(settings(), ROOT, feature, ROOT / folder)
    console.print(
        f"pretrain: {feature}: loss {losses[0]:.3g} to {losses[-1]:.3g} in {len(losses)} epochs of {values:,} values; "
        f"features.catalogue.{feature}.encoder: {folder.as_posix()} starts from them",
        markup=False,
    )
