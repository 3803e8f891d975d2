"""The commands of segment 2: adopt a file, draw from a stream, collect, label, split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..cli import DATA, ROOT, app, console, label_commands, refresh_documents, settings


@app.command(rich_help_panel=DATA)
def adopt(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="CSV, Parquet, JSON, Excel; a folder or glob; images by class; s3://.",
        ),
    ],
    label: Annotated[str | None, typer.Option(help="The column to predict.")] = None,
    time: Annotated[str | None, typer.Option(help="When the row happened.")] = None,
    group: Annotated[str | None, typer.Option(help="Rows to keep on one side.")] = None,
    positive: Annotated[str | None, typer.Option(help="The label that counts as yes.")] = None,
    label_time: Annotated[str | None, typer.Option(help="When the label became known.")] = None,
    delay: Annotated[float | None, typer.Option(help="Days that a label takes.")] = None,
    category: Annotated[list[str], typer.Option(help="Columns that are codes, A,B.")] = [],  # noqa: B006
    number: Annotated[list[str], typer.Option(help="Columns that are amounts.")] = [],  # noqa: B006
    drop: Annotated[list[str], typer.Option(help="Columns to leave out.")] = [],  # noqa: B006
    values: Annotated[
        str, typer.Option(help="What people will give, yes,no: no row has a label.")
    ] = "",
) -> None:
    """Point the project at your own file: profile it and rewrite params.yaml, saying why."""
    from textwrap import fill

    from .adopt import AdoptOptions
    from .adopt import adopt as profile

    awaited = tuple(value for part in values.split(",") if (value := part.strip()))
    kinds = map(tuple, (category, number, drop, awaited))
    options = AdoptOptions(time, group, positive, label_time, delay, *kinds)
    for line in profile(file, label, options, ROOT):
        wrapped = fill(
            line, min(console.width, 80) - 2, subsequent_indent="  ", break_on_hyphens=False
        )
        console.print(f"· {wrapped}", markup=False, soft_wrap=True)
    refresh_documents(draw=False)
    console.print("params.yaml is rewritten; read its diff, then use [bold]run[/].")


@app.command(rich_help_panel=DATA)
def collect() -> None:
    """Read the source; keep what fits the schema, put the rest in quarantine."""
    from ..parts import optional_module
    from .source import collect as stage

    if statements := optional_module("governance.statements"):
        statements.require_rights(settings())
    counts = stage(settings(), ROOT)
    console.print(
        f"collect: {counts['rows_in']:,} rows in, {counts['rows_kept']:,} kept, "
        f"{counts['rows_refused']:,} refused (data/quarantine.parquet says why)"
    )
    if "rows_carried" in counts:
        console.print(
            f"collect: {counts['rows_carried']:,} of these are older than data.source.refresh_days and were not read again"
        )
    if (hidden := counts.get("anonymity")) and hidden["rows_below"]:
        console.print(
            f"collect: {hidden['rows_below']:,} rows ({hidden['share_below']:.1%}) share their {', '.join(hidden['columns'])} "
            "with fewer than five (data.quasi_identifiers)"
        )
    for column, kinds in counts["personal_in_texts"].items():
        listed = ", ".join(f"{kind} in {rows:,}" for kind, rows in kinds.items())
        console.print(
            f"collect: personal data in {column}, of its first texts: {listed} (data.mask)"
        )


@label_commands.callback(invoke_without_command=True)
def label(context: typer.Context) -> None:
    """Join the labels that were known by then."""
    if context.invoked_subcommand:
        return
    from ..parts import optional_module
    from .label import label as stage

    labelling, config = optional_module("labelling.aggregation"), settings()
    counts = stage(config, ROOT, labelling.joined(config, ROOT) if labelling else None)
    console.print(
        f"label: {counts['rows_labelled']:,} rows with a label; {counts['too_young']:,} too young to have a label, "
        f"{counts['unlabelled']:,} never labelled"
    )
    if arrivals := counts.get("arrivals"):
        days = arrivals["days"]
        console.print(
            f"label: half of the labels came within {days['0.5']:.3g} days of the event, 95 % within {days['0.95']:.3g} "
            f"(data.label.delay_days: {counts['delay_days']})"
        )
    if "votes" in counts:
        console.print(
            f"label: of {counts['voted_rows']:,} rows with votes or a certain label, {counts['agreed_rows']:,} have a label by them "
            f"(joined by {counts['aggregation']})"
        )
    if counts["delay_days"] is None:
        console.print("label: every label counts as known; data.label.delay_days is open (null)")


@app.command(rich_help_panel=DATA)
def split() -> None:
    """Cut into train, valid and test, and check that nothing leaks across."""
    from ..parts import optional_module
    from .split import split as stage
    from .young import in_words

    functions, config = optional_module("labelling.functions"), settings()
    counts = stage(config, ROOT, functions.writer(config, ROOT) if functions else None)
    parts = ", ".join(f"{name} {part['rows']:,}" for name, part in counts["parts"].items())
    unsolicited = counts["dropped"].pop("unsolicited", 0)
    console.print(f"split: {parts}; dropped {sum(counts['dropped'].values()):,} that would leak")
    if unsolicited:
        console.print(
            f"split: {unsolicited:,} rows of valid and test left out, since their users were not asked (data.label.solicited)"
        )
    if sampling := counts.get("sampling"):
        console.print(
            f"split: data.sampling.method {sampling['method']} took {sampling['taken']:,} of {sampling['rows']:,} rows"
        )
    if effective := counts.get("effective_rows"):
        shares = ", ".join(f"{name} {rows:,.0f}" for name, rows in effective.items())
        console.print(f"split: by their weights these tell as much as alike ones: {shares}")
    similar = {"a text": counts.get("similar_texts"), "an image": counts.get("similar_images")}
    for subject, rows in similar.items():
        if rows:
            console.print(
                f"split: {rows['test_rows']:,} test rows ({rows['test_share']:.1%}) nearly repeat {subject} of train or valid"
            )
    if "weak_rows" in counts:
        console.print(
            f"split: {counts['weak_rows']:,} rows without a label have one by functions, for training alone"
        )
    if "unlabelled_rows" in counts:
        console.print(
            f"split: {counts['unlabelled_rows']:,} rows without a label may be learnt from (labelling.unlabelled)"
        )
    if young := counts.get("young"):
        console.print(f"split: {in_words(young)}", markup=False)


@app.command(rich_help_panel=DATA)
def reservoir(
    source: Annotated[str, typer.Argument(help="CSV or JSON lines; - for what is piped in.")],
    target: Annotated[Path, typer.Argument(help="The file to write.")],
    rows: Annotated[int, typer.Option(min=1, help="How many rows to draw.")],
) -> None:
    """Draw rows at random from a stream of any length, in one pass and fixed memory."""
    from .reservoir import draw_stream

    taken, count = draw_stream(source, target, rows, settings().project.seed)
    console.print(f"reservoir: {taken:,} of {count:,} rows, in {target}", markup=False)


app.add_typer(label_commands, name="label", rich_help_panel=DATA)
