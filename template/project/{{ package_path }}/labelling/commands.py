"""The commands of people who label, below `label`, which alone is the stage."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from ..cli import ROOT, console, label_commands, settings
from ..paths import LABEL_AUDIT, QUEUE, VOTES

COUNT = typer.Argument(min=1, max=100_000, help="Rows to queue.")


@label_commands.command("next")
def fill(count: Annotated[int, COUNT]) -> None:
    """Queue rows for people: that need another vote, at random, and those that the model doubts."""
    from .queue import fill_queue

    drawn = Counter(entry.drawn for entry in fill_queue(settings(), ROOT, count))
    reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in drawn.items())
    console.print(f"label next: {reasons}; {QUEUE} lists them, `label serve` asks people")


@label_commands.command()
def serve(
    port: Annotated[int | None, typer.Option(help="Instead of labelling.port.")] = None,
) -> None:
    """Open the labelling page on this machine: people answer the queue by keyboard."""
    from .server import start

    config = settings()
    server = start(config, ROOT, config.labelling.port if port is None else port)
    console.print(
        f"label serve: http://127.0.0.1:{server.server_address[1]}/ until Ctrl-C; answers go to {VOTES}"
    )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        console.print("label serve: ended; `git add labels` keeps the answers")
    finally:
        server.server_close()


@label_commands.command()
def audit() -> None:
    """List the rows whose label is probably wrong, for a second look; no label is changed."""
    from .audit import audit as look

    report = look(settings(), ROOT)
    tested = ""
    if report.precision is not None:
        tested = f"; of labels swapped on purpose, they are {report.precision:.0%} of the first"
    if report.listed or report.precision is None:
        console.print(
            f"label audit: {report.listed:,} of {report.rows:,} labels are doubtful{tested}; {LABEL_AUDIT} lists them, "
            "the likeliest mistake first. Look at them again; nothing was changed"
        )
    else:
        console.print(
            f"label audit: nothing is listed{tested}: on these features a list would be little better than chance"
        )


@label_commands.command()
def quality() -> None:
    """What labellers agree on, how each of them errs, which rows have no label."""
    from .quality import quality as judge
    from .quality import show

    config = settings()
    show(judge(config, ROOT), config, console)


@label_commands.command()
def functions() -> None:
    """How often each labelling function votes, agrees and is right."""
    from .functions import judge, show

    show(judge(settings(), ROOT), console)


@label_commands.command()
def responses() -> None:
    """Who gives labels and who does not, and what the silent would change."""
    from .responses import responses as analyse
    from .responses import show

    show(analyse(settings(), ROOT), console)


@label_commands.command()
def compare(
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help="CSV, Parquet, JSON, Excel; none: the feedback."),
    ] = None,
    id: Annotated[
        str, typer.Option(help="Its column with the rows' ids; else data.schema.id.")
    ] = "",
    label: Annotated[str, typer.Option(help="Its column with the labels; else the label's.")] = "",
) -> None:
    """Hold another source of labels against the data's, on the rows that both have."""
    from .sources import compare_sources, show

    show(compare_sources(settings(), ROOT, file, id, label), console)


@label_commands.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="To write: .csv, or .json for Label Studio.")],
) -> None:
    """Write the queue for another program: CSV, or Label Studio's tasks."""
    from .exchange import export_queue

    rows = export_queue(settings(), ROOT, file)
    beside = (
        f", {file.with_suffix('.xml')} is its labelling interface"
        if file.suffix.lower() == ".json"
        else ""
    )
    console.print(f"label export: {rows:,} rows in {file}{beside}", markup=False)


@label_commands.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A filled CSV, or Label Studio's JSON.")],
    who: Annotated[
        str | None, typer.Option(help="Who labelled, where the CSV does not say.")
    ] = None,
) -> None:
    """Add another program's answers to the votes; what was imported before is not added again."""
    from .exchange import import_votes

    counts = import_votes(settings(), ROOT, file, who)
    console.print(
        f"label import: {counts.added:,} votes added, {counts.present:,} were there, {counts.skipped:,} without an answer"
    )
