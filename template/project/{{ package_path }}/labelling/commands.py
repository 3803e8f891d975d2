"""The commands of people who label, below `label`, which alone is the stage."""

from __future__ import annotations

from ..cli import ROOT, console, label_commands, settings


@label_commands.command()
def quality() -> None:
    """What labellers agree on, how each of them errs, which rows have no label."""
    from .quality import quality as judge
    from .quality import show

    config = settings()
    show(judge(config, ROOT), config, console)
