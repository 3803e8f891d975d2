"""What the commands of all folders share: the application, its console, the segments of `--help`, other parts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from .parts import part_module
from .paths import SETTINGS_FILE
from .settings import Settings, UserError, load

# The headings of `--help`: the project as a whole, and the five segments
PROJECT, GOALS, DATA = "Project", "1 Business goals and metrics", "2 Data and labels"
MODELLING, MONITORING = "4 Modelling and deployment", "5 Monitoring and validation"
ROOT = Path()
BY = "Who signs for it; the manifest and the card keep the name."
URL = "Of a running service that does not see this folder: http://HOST:8000."


class _InOrder(TyperGroup):
    """Lists the group `label` where data flows through it, and not before all commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = [name for name in super().list_commands(ctx) if name != "label"]
        if "label" in self.commands:
            names.insert(names.index("collect") + 1 if "collect" in names else len(names), "label")
        return names


app = typer.Typer(
    cls=_InOrder,
    help="One command a stage, in the order in which data flows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
design = typer.Typer(help="The design documents: what is decided, and whether they are up to date.")
# Alone it is the stage; the part `labelling` adds what people do
label_commands = typer.Typer()
# A log is as wide as its lines; a terminal says for itself
console = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 120)


def settings() -> Settings:
    """The settings of the project in this folder.

    Raises:
        UserError: as `load`.
    """
    return load(ROOT / SETTINGS_FILE)


def refresh_documents(draw: bool) -> None:
    """Let the documents quote today's settings, and draw the board anew.

    A page that cannot be read is no reason to call a run a failure.
    """
    from .documents import draw_board, sync

    try:
        if stale := sync(ROOT, check=False):
            console.print(f"Quotes of settings in the documents, refreshed: {len(stale)}.")
        if draw:
            draw_board(ROOT, anew=False)
    except UserError as error:
        console.print(f"the documents are behind: {error}", markup=False)


def say_retired() -> None:
    """Say of a retired system that it answers nobody, whatever is trained or promoted."""
    if (mark := part_module("governance.retired")) and (sentence := mark.sentence(ROOT)):
        console.print(f"{sentence}; nothing answers until `retire --undo`", markup=False)


def track() -> None:
    """Let a tracker know of the last run and the model in production; what it lacks is a line, and no failure."""
    if trackers := part_module("tracking.trackers"):
        try:
            message = trackers.track_in_background(settings(), ROOT)
        except UserError as error:
            message = f"not tracked: {error}"
        if message:
            console.print(message, markup=False)
