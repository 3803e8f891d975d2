"""The table of contents: one command a stage, in the order in which data flows.

Stages are imported by the command that runs them, so that none pays for another's libraries.
Exit codes: 0 done; 1 the gate or a check failed; 2 wrong use or bad input; 3 the command broke.
"""

from __future__ import annotations

import gc
import io
import os
import re
import sys
import traceback
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from typer import rich_utils

from .settings import Settings, UserError, load, located, missing, read_json, set_values

app = typer.Typer(
    help=__doc__.split("\n")[0],
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
design = typer.Typer(help="The design documents: what is decided, and whether they are up to date.")
app.add_typer(design, name="design", no_args_is_help=True)
# A log is as wide as its lines; a terminal says for itself
console = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 120)
ROOT = Path()
URL = "Of a running service that does not see this folder: http://HOST:8000."


class Proposal(StrEnum):
    """What `propose` proposes."""

    MODEL = "model"
    TEMPLATE = "template"


def settings() -> Settings:
    return load(ROOT / "params.yaml")


@app.command()
def run(
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change params.yaml first."),
    ] = None,
) -> None:
    """Run the pipeline: every stage whose code, settings or data changed (`dvc repro`)."""
    if set_:
        set_values(ROOT / "params.yaml", set_)
    from .data.fingerprint import take
    from .repository import PRODUCTION, dvc, needs_repository, verified
    from .stages import complete

    given = settings()
    needs_repository(ROOT)
    verified(ROOT, PRODUCTION)  # what the gate compares with
    for line in [*complete(ROOT), *take(given, ROOT)]:
        console.print(line, markup=False)
    verdict = ROOT / "reports/gate.json"
    before = verdict.stat().st_mtime_ns if verdict.is_file() else 0
    ran = dvc(ROOT, "reproduce")
    if ran is None:
        judged = verdict.is_file() and verdict.stat().st_mtime_ns > before
        if not judged or _report("gate.json")["passed"]:
            raise typer.Exit(2)
        _candidates()
        _documents(draw=True)
        console.print(
            "The gate failed: the table above says by how much. The model stays as it was."
        )
        raise typer.Exit(1)
    _candidates()
    _gate()
    _skipped([stage.name for stage in ran])
    _documents(draw=bool(ran))
    console.print(
        "Next: [bold]reports/model_card.md[/] says what the model is, [bold]reports/board.html[/] what is decided;\n"
        "[bold]design status[/] lists what is open."
    )


@app.command()
def collect() -> None:
    """2 · Read the source; keep what fits the schema, put the rest in quarantine."""
    from .data.source import collect as stage

    found = stage(settings(), ROOT)
    console.print(
        f"collect: {found['rows_in']:,} rows in, {found['rows_kept']:,} kept, "
        f"{found['rows_refused']:,} refused (data/quarantine.parquet says why)"
    )


@app.command()
def label() -> None:
    """2 · Join the labels that were known by then."""
    from .data.label import label as stage

    found = stage(settings(), ROOT)
    console.print(
        f"label: {found['rows_labelled']:,} rows; {found['too_young']:,} too young to have a label, "
        f"{found['unlabelled']:,} never labelled"
    )
    if found["delay_days"] is None:
        console.print("label: every label counts as known; data.label.delay_days is open (null)")


@app.command()
def split() -> None:
    """2 · Cut into train, valid and test, and check that nothing leaks across."""
    from .data.split import split as stage

    found = stage(settings(), ROOT)
    parts = ", ".join(f"{name} {part['rows']:,}" for name, part in found["parts"].items())
    console.print(f"split: {parts}; dropped {sum(found['dropped'].values()):,} that would leak")


@app.command()
def train() -> None:
    """4 · Fit baselines and candidates, choose one, export it."""
    from .modelling.train import train as stage

    rows = stage(settings(), ROOT)["rows"]
    chosen = next(row["name"] for row in rows if row["chosen"])
    console.print(f"train: {len(rows)} models compared, chosen: {chosen}")


@app.command()
def evaluate() -> None:
    """4 · Test the exported model and hold it against every target; exit 1 when one is missed."""
    from .cards import write_cards
    from .modelling.compare import compare as changes
    from .modelling.evaluate import evaluate as stage

    gate = stage(settings(), ROOT)
    changes(settings(), ROOT)
    write_cards(ROOT)
    if not gate["passed"]:
        _gate()
        raise typer.Exit(1)
    console.print("evaluate: the gate is passed")


@app.command()
def compare() -> None:
    """4 · Say whose decision changes when the new model takes over from the one in production."""
    from .cards import refresh_model_card
    from .modelling.compare import NOTHING, show
    from .modelling.compare import compare as stage
    from .repository import PRODUCTION, verified

    verified(ROOT, PRODUCTION)
    found = stage(settings(), ROOT)
    if found is None:
        console.print(NOTHING)
        return
    refresh_model_card(ROOT)
    show(found, settings().modelling.evaluation.min_slice_rows, console)


@app.command()
def reference() -> None:
    """5 · Profile the training rows and scores, to compare later data with."""
    from .monitoring.reference import reference as stage

    found = stage(settings(), ROOT)
    console.print(f"reference: {found['columns']} profiles of {found['rows']:,} rows")


@app.command()
def experiment(
    kind: Annotated[
        str | None,
        typer.Argument(help="ab, bandit, exploration, shadow or backtest."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="How long an A/B test has to run.")] = False,
    effect: Annotated[
        float | None, typer.Option(help="Of the plan: least gain, as a share.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Leave out what is earlier.")] = None,
    file: Annotated[Path | None, typer.Option(help="Of clicks on lists of two models.")] = None,
) -> None:
    """5 · Say what an online experiment shows; exit 1 when a guardrail or its ground broke."""
    from .monitoring import experiment as stage
    from .monitoring.verdict import show

    if plan:
        found = stage.plan(settings(), ROOT, effect)
    else:
        found = stage.experiment(settings(), ROOT, kind or _kind_in_use(), since, file)
    show(found, console)
    if found["state"] == "broken":
        raise typer.Exit(1)


@app.command()
def adopt(
    file: Annotated[
        Path, typer.Argument(help="CSV, Parquet, JSON, Excel; a folder or glob. A row an event.")
    ],
    label: Annotated[str, typer.Option(help="The column to predict.")],
    time: Annotated[str | None, typer.Option(help="When the row happened.")] = None,
    group: Annotated[str | None, typer.Option(help="Rows to keep on one side.")] = None,
    positive: Annotated[str | None, typer.Option(help="The label that counts as yes.")] = None,
    label_time: Annotated[str | None, typer.Option(help="When the label became known.")] = None,
    delay: Annotated[float | None, typer.Option(help="Days that a label takes.")] = None,
    category: Annotated[list[str], typer.Option(help="Columns that are codes, A,B.")] = [],  # noqa: B006
    number: Annotated[list[str], typer.Option(help="Columns that are amounts.")] = [],  # noqa: B006
    drop: Annotated[list[str], typer.Option(help="Columns to leave out.")] = [],  # noqa: B006
) -> None:
    """Point the project at your own file: profile it and rewrite params.yaml, saying why."""
    from textwrap import fill

    from .data.adopt import Wishes
    from .data.adopt import adopt as profile

    kinds = map(tuple, (category, number, drop))
    wishes = Wishes(time, group, positive, label_time, delay, *kinds)
    for line in profile(file, label, wishes, ROOT):
        wrapped = fill(
            line, min(console.width, 80) - 2, subsequent_indent="  ", break_on_hyphens=False
        )
        console.print(f"· {wrapped}", markup=False, soft_wrap=True)
    _documents(draw=False)
    console.print("params.yaml is rewritten; read its diff, then use [bold]run[/].")


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="0.0.0.0 lets others in; needs SERVE_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Instead of serving.port.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port.")] = 1,
) -> None:
    """4 · Answer over HTTP from the model in production, or from the one just trained."""
    from .serving.server import serve as start

    start(host, port or settings().serving.port, workers)


@app.command()
def monitor() -> None:
    """5 · Say what is wrong, by name, from the prediction log; exit 1 when something is."""
    from .cards import refresh_model_card
    from .monitoring.monitor import PAGE
    from .monitoring.monitor import monitor as stage

    report = stage(settings(), ROOT)
    refresh_model_card(ROOT)
    _windows(report)
    for kind, why in report["alarms"].items():
        console.print(f"[bold red]{kind}[/]")
        for one in why:
            console.print(f"  {one}", markup=False)
    for one in report["waiting"]:
        console.print(f"waiting for {one}", markup=False)
    for one in report["unreadable"]:
        console.print(f"not readable: {one['words']}", markup=False)
    if report["windows"] and not report["alarms"]:
        console.print("[green]Nothing is wrong[/] that could be measured.")
    console.print(f"{PAGE} shows it.")
    _notify("monitor", report["alarms"])
    raise typer.Exit(1 if report["alarms"] else 0)


def _notify(
    source: str, alarms: dict[str, list[str]], news: dict[str, list[str]] | None = None
) -> None:
    """Send alarms where the settings say; whatever comes of it, the command ends as it would."""
    from .monitoring.alerts import notify

    if said := notify(settings(), ROOT, source, alarms, news):
        console.print(said, markup=False)


@app.command()
def drill(
    name: Annotated[
        str, typer.Argument(help="all, or one of the failures that `drill --help` lists.")
    ],
) -> None:
    """5 · Inject a failure into a copy and see the alarm: covariate, label, concept, schema,
    feedback-loop, model-down, slow-model; exit 1 when none fires.
    """
    from .monitoring.drill import drill as run_drill

    missed = False
    for one in run_drill(settings(), ROOT, name):
        colour = "green" if one["fired"] else "bold red"
        console.print(f"[{colour}]{one['drill']}[/]: {one['words']}")
        missed |= not one["fired"]
    raise typer.Exit(1 if missed else 0)


@app.command()
def score(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="CSV, Parquet, JSON, Excel; folders, globs."),
    ],
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")] = Path(
        "data/scores.parquet"
    ),
    fallback: Annotated[bool, typer.Option("--fallback", help="The baseline may answer.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="At once; all cores.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="That a thread scores at once.")] = 20_000,
    log: Annotated[bool, typer.Option("--log", help="Keep it for the monitor.")] = False,
    ungated: Annotated[
        bool, typer.Option("--ungated", help="Also a model that missed the gate.")
    ] = False,
) -> None:
    """4 · Answer for every row of files of any size, as the service would."""
    from .serving.batch import score as work

    found = work(settings(), ROOT, files, out, fallback, threads, rows, log, ungated)
    console.print(
        f"score: {found['rows']:,} rows by {found['model']} of {found['folder']}, {found['flagged']:,} of them flagged, "
        f"{found['refused']:,} refused: {out}"
    )
    if found["fallback"]:
        console.print(f"answered by the baseline: {found['fallback']}", markup=False)
    if found["unreadable"]:
        console.print(f"{found['unreadable']:,} lines do not fit the header and are left out")


@app.command()
def feedback(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV, Parquet, JSON, Excel; globs.")],
    id: Annotated[str, typer.Option(help="Its column with the ids of the answers.")] = "id",
    label: Annotated[str, typer.Option(help="Its column with what came true; the label's.")] = "",
) -> None:
    """5 · Take the labels of rows that were scored, for the monitor."""
    from .serving.batch import feedback as work

    given = settings()
    column = label or given.data.label.column
    console.print(f"feedback: {work(given, ROOT, file, id, column):,} labels of {column}")


@app.command()
def bench() -> None:
    """4 · How quick the model is here, by batch size and threads; which of them to use."""
    from .serving.bench import bench as work
    from .serving.bench import show

    show(work(ROOT), console)


@app.command()
def export(
    edge: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For onnxruntime and numpy alone.")
    ] = None,
    quantize: Annotated[
        bool, typer.Option("--quantize", help="First make the model smaller, if that passes.")
    ] = False,
) -> None:
    """4 · Make the model smaller, and say what that cost; leave it in a folder that needs nothing else."""
    from .serving.batch import folder

    if not edge and not quantize:
        raise UserError("export: say --edge DIR, --quantize, or both")
    source = folder(ROOT)
    if quantize:
        from .modelling.compress import COMPRESSED, compress, show

        found = compress(settings(), ROOT)
        show(found, _report("gate.json"), console)
        if found["rows"] and not found["passed"]:
            raise typer.Exit(1)
        if found["passed"]:
            from .monitoring.reference import reference as stage

            source = ROOT / COMPRESSED
            stage(settings(), ROOT, COMPRESSED)  # what its own answers will be compared with
    if edge:
        from .serving.edge import export as work

        console.print(f"export: {work(source, edge)} holds {source}; its README says how to use it")


@app.command()
def gate() -> None:
    """Print the last gate as a Markdown table; exit 1 when it was not passed."""
    from .goals.gate import table

    found = _report("gate.json")
    print(table(found), end="")
    if changes := _changes(found):
        print(f"\n{changes}")
    raise typer.Exit(0 if found["passed"] else 1)


@app.command()
def promote(
    challenger: Annotated[
        bool, typer.Option("--challenger", help="The one that `challenge` put beside it.")
    ] = False,
    compressed: Annotated[
        bool, typer.Option("--compressed", help="The smaller one of `export --quantize`.")
    ] = False,
    url: Annotated[str | None, typer.Option(help=URL)] = None,
) -> None:
    """4 · Make the model that passed the gate the one in production; a running service takes it."""
    from .modelling import registry

    registry.promote(ROOT, challenger, compressed, _tracking())
    _changed("promoted", url)


@app.command()
def challenge(url: Annotated[str | None, typer.Option(help=URL)] = None) -> None:
    """4 · Put the model that passed the gate beside the one in production, for `rollout`."""
    from .modelling import registry

    registry.challenge(ROOT, _tracking())
    _changed("beside production, and `rollout` says what it gets", url)


@app.command()
def rollback(url: Annotated[str | None, typer.Option(help=URL)] = None) -> None:
    """4 · Put the previous model back into production; a running service takes it."""
    from .modelling import registry

    registry.rollback(ROOT, _tracking())
    _changed("back", url)


@app.command()
def resolve() -> None:
    """Settle a merge in what the pipeline wrote (dvc.lock, reports/, *.dvc); exit 1 when more is left."""
    from .merging import bring
    from .merging import resolve as settle

    settled, left = settle(ROOT)
    for name in settled:
        console.print(f"settled: {name}, as it was pulled", markup=False)
    for name in left:
        console.print(f"left for you: {name}", markup=False)
    if not settled and not left:
        console.print("No file is in conflict.")
        return
    lacks = "" if left else bring(ROOT)
    if lacks:
        console.print(f"not brought yet, `dvc pull` does it: {lacks}", markup=False)
    console.print(
        "Next: mend the files above, `git add` them, and `resolve` again." if left else
        "Next: `run`, which works out again what follows from both; then commit."
    )  # fmt: skip
    raise typer.Exit(1 if left else 0)


@app.command()
def retrain(
    now: Annotated[bool, typer.Option("--now", help="Whether it is due or not.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only say whether it is due.")] = False,
) -> None:
    """5 · Train when it is due, and promote what came of it if it is better at 95 % confidence."""
    from .modelling import registry
    from .monitoring import retrain as stage

    reasons = stage.due(settings(), ROOT) + (["asked for"] if now else [])
    for line in reasons or ["not due: neither schedule nor labels nor drift ask for it"]:
        console.print(line, markup=False)
    if check or not reasons:
        return
    track = _tracking()
    code = 0
    try:
        run()
        if not stage.compared_with_production(ROOT):
            from .repository import dvc

            again = dvc(ROOT, "reproduce", targets="evaluate", force=True, single_item=True)
            code = 1 if again is None else 0
    except typer.Exit as done:
        if done.exit_code == 2:
            _notify("retrain", {"retrain_failed": ["the pipeline stopped; its log says why"]})
            raise
        code = done.exit_code
    except UserError as error:
        _notify("retrain", {"retrain_failed": [str(error)]})
        raise
    found = stage.conclude(ROOT, reasons)
    if found["promote"]:
        registry.promote(ROOT, track=track)
        _changed("promoted; `rollback` undoes it", None)
    console.print(f"{'Promoted' if found['promote'] else 'Not promoted'}: {found['why']}.")
    missed = {"retrain_missed": [f"not promoted: {found['why']}"]} if code else {}
    _notify("retrain", missed, {"promoted": [found["why"]]} if found["promote"] else {})
    if code:
        raise typer.Exit(1)


@app.command()
def remote() -> None:
    """Say whether DVC's remote can be reached from here, before anything waits for it."""
    from .ci import remote as ask

    console.print(f"the DVC remote answers: {ask(ROOT)}", markup=False)


@app.command()
def propose(
    what: Annotated[Proposal, typer.Argument(help="What `retrain` left, or the newest template.")],
) -> None:
    """Propose a change as a branch and a pull request, from a scheduled job."""
    from . import ci
    from .repository import dvc, needs_repository

    needs_repository(ROOT)
    if what is Proposal.MODEL:
        done = ci.propose_model(ROOT, lambda: dvc(ROOT, "push"))
    else:
        done = ci.propose_template(ROOT)
    console.print(done, markup=False)


@app.command()
def curves() -> None:
    """5 · Say whether more data or a bigger model would gain more (reports/curves.png)."""
    from .monitoring.curves import curves as stage
    from .monitoring.curves import show

    show(stage(settings(), ROOT), console)


@app.command()
def trace(row: Annotated[int, typer.Argument(help="Of the test part, from 0.")] = 0) -> None:
    """5 · Follow one test row through the model, step by step."""
    from .monitoring.trace import lines as stage

    for line in stage(settings(), ROOT, row):
        console.print(line, markup=False)


@app.command()
def rollout(
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as mode=canary.")
    ] = None,
    url: Annotated[str | None, typer.Option(help=URL)] = None,
) -> None:
    """5 · Show which model answers how much, or change it while the service runs."""
    from .serving.router import Router, parsed, show
    from .serving.service import STATE

    if url:
        from .serving.remote import router as ask

        show(ask(url, parsed(changes or [])), console)
        return
    given, targets = settings().serving.router, settings().goals.targets
    router = Router(ROOT / STATE, given, targets.error_rate, targets.latency_p99_ms)
    if changes:
        router.change(**parsed(changes))
    show(router.status(), console)


@design.command()
def status() -> None:
    """Count the decisions by segment, and rank what is still open by its risk."""
    from .documents import show_status

    show_status(ROOT, console)


@design.command()
def sync(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 when stale.")
    ] = False,
) -> None:
    """Refresh the settings that the documents quote."""
    from .documents import sync as refresh

    stale = refresh(ROOT, check)
    for line in stale:
        console.print(line, markup=False)
    if check and stale:
        console.print("the documents are behind: run `design sync`")
        raise typer.Exit(1)
    console.print("documents are up to date" if check or not stale else f"{len(stale)} refreshed")


@design.command()
def show(
    page: Annotated[
        str | None,
        typer.Argument(metavar="[PAGE|ID|DIR]", help="2, index or 2.10; all. Of --site: folder."),
    ] = None,
    site: Annotated[
        bool, typer.Option("--site", help="As HTML, in DIR (build/design), with the board.")
    ] = False,
) -> None:
    """Print the pages with today's figures filled in: all, one of them, or one decision."""
    from .documents import SITE, write_site
    from .documents import show as print_pages

    if not site:
        return print_pages(ROOT, page, console)
    folder = Path(page or SITE)
    console.print(f"{write_site(ROOT, ROOT / folder)} pages: open {folder / 'index.html'}")


@design.command()
def board() -> None:
    """Draw the five segments on one page: what is decided, and today's figures."""
    from .documents import draw_board

    console.print(f"{' and '.join(draw_board(ROOT))}: what is decided, and today's figures")


@design.command()
def ready() -> None:
    """Score the project against the 28 tests of the ML Test Score, by what its checks left behind."""
    from .monitoring.readiness import readiness, show

    show(readiness(settings(), ROOT), console)


def _report(name: str) -> Any:
    return read_json(ROOT / "reports" / name)


def _candidates() -> None:
    found = _report("candidates.json")
    rows, judged = found["rows"], found["judged"]
    by = "the validation rows" if judged["by"] == "validation" else "all rows by cross-validation"
    title = f"Models on {by} (metric: {rows[0]['metric_name']})"
    # Narrow gaps leave the verdict, the only column that wraps, some 25 of a terminal's 80 characters
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", padding=0, pad_edge=False)
    for heading in ("model", "metric", "value", "fit s", "p99 ms", "kB", ""):
        left = heading in ("model", "")
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading != "")
    for row in rows:
        none, latency = row["size_kb"] is None, row["latency_p99_ms"]
        table.add_row(
            row["name"],
            f"{row['metric']:.4g} [dim]({row['low']:.3g}–{row['high']:.3g})[/]",
            f"{row['value']:.3g}",
            f"{row['fit_seconds']:.2f}",
            "–" if none else f"{latency:.2f}",
            "–" if none else f"{row['size_kb']:.0f}",
            row["verdict"],
            style="bold" if row["chosen"] else None,
        )
    console.print(table)
    sizes = [f"{row['name']} {row['fitted']}" for row in rows if row["fitted"]]
    if sizes:
        console.print(f"Found on held-out rows: {'; '.join(sizes)}.", markup=False)
    if found["shipped"]["refit"]:
        console.print(
            f"{found['chosen']} ships fitted again on train and valid, {found['shipped']['rows']:,} "
            f"rows; the figures above are of the fit before.\n", markup=False,
        )  # fmt: skip


def _gate() -> None:
    from .goals.gate import cells

    found = _report("gate.json")
    title = "Gate: [green]passed[/]" if found["passed"] else "Gate: [bold red]FAILED[/]"
    table = Table(
        "target", "promised", "measured", "", title=title, box=SIMPLE_HEAD, title_justify="left"
    )
    table.columns[2].no_wrap = True
    for row in found["rows"]:
        *told, verdict = cells(row)
        colour = {None: "dim", True: "green", False: "bold red"}[row["passed"]]
        if row["passed"] and row["verdict"] == "undecided":
            colour = "yellow"
        table.add_row(*told, f"[{colour}]{verdict}")
    console.print(table)
    if changes := _changes(found):
        console.print(f"{changes}\n", markup=False)


def _changes(gate: Any) -> str:
    """What `compare` says of the model that the gate judged; empty where nothing was in production."""
    if not (ROOT / "reports/compare.json").is_file():
        return ""
    from .modelling.compare import sentences

    found = _report("compare.json")
    return sentences(found) if found["model"] == gate.get("model") else ""


def _windows(report: Any) -> None:
    heads = ("from", "rows", "labels", "estimated", "measured", "shows")
    table = Table(*heads, title="Windows of the prediction log, newest first", box=SIMPLE_HEAD)
    for one in report["windows"][::-1][:14]:
        found = [one["performance"][key] for key in ("estimated", "realised")]
        told = [
            "–" if f is None else "{value:.3g} ({low:.3g}–{high:.3g})".format(**f) for f in found
        ]
        start, kinds = one["start"].replace("T", " ")[:16], ", ".join(one["kinds"]) or "–"
        table.add_row(start, f"{one['rows']:,}", f"{one['labels']:,}", *told, kinds)
    if table.row_count:
        console.print(table)


def _kind_in_use() -> str | None:
    """The kind of experiment that the router runs now, where it was told while running."""
    from .serving.service import STATE

    if not (ROOT / STATE).is_file():
        return None
    from .serving.router import Router

    given, targets = settings().serving.router, settings().goals.targets
    mode = Router(ROOT / STATE, given, targets.error_rate, targets.latency_p99_ms).settings.mode
    return {"canary": "ab", "ab": "ab", "bandit": "bandit", "shadow": "shadow"}.get(mode)


def _tracking() -> Any:
    """Lets DVC keep folders; refuses now what DVC would refuse when a model has taken its place."""
    from .repository import dvc, needs_repository, repository

    if repository(ROOT) is None and not list(ROOT.glob("models/*.dvc")):  # a copy on a server
        return list
    needs_repository(ROOT)
    return lambda folders: dvc(ROOT, "add", targets=folders)


def _changed(words: str, url: str | None) -> None:
    """A model took another place: let a running service read it."""
    from .repository import exposed_remote, repository
    from .serving.router import bump
    from .serving.service import STATE

    if repository(ROOT) is None:
        console.print(f"{words}; no git here, so no record of it is kept", markup=False)
    else:
        console.print(f"{words}: commit models/*.dvc, then `dvc push`", markup=False)
        if remote := exposed_remote(ROOT):
            console.print(
                f"first: the DVC remote, {remote}, lies inside the repository, and git would take the data "
                "in; name it in .gitignore, or `dvc remote modify storage url PATH` moves it",
                markup=False,
            )
    if url:
        from .serving.remote import reload

        console.print(f"the service took it: {reload(url)}", markup=False)
    else:
        bump(ROOT / STATE)


def _documents(draw: bool) -> None:
    """Let the documents quote today's settings, and draw the board anew.

    A page that cannot be read is no reason to call a run a failure.
    """
    from .documents import draw_board, sync

    try:
        if stale := sync(ROOT, check=False):
            console.print(f"Quotes of settings in the documents, refreshed: {len(stale)}.")
        if draw:
            draw_board(ROOT)
    except UserError as error:
        console.print(f"the documents are behind: {error}", markup=False)


def _skipped(ran: list[str]) -> None:
    """Say in one line which stages did not run, and why."""
    from .stages import names

    skipped = [name for name in names(ROOT) if name not in ran]
    if skipped:
        every = "Every stage was" if not ran else f"{', '.join(skipped)}: each"
        every = f"{every} skipped, since nothing that it reads changed"
        console.print(f"{every}; the tables are those of the last run." if not ran else f"{every}.")


def main() -> None:
    """Run a command; what the user can mend is one line and exit code 2."""
    # A command ends too soon for collecting garbage, or for taking pandas and scikit-learn down piece
    # by piece, to pay: together they would be a third of a stage's start
    gc.set_threshold(100_000, 50, 100)
    # numpy's library starts a thread for each core; training sets its own number
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # What a terminal or a log cannot show is replaced; the work is not lost to one character
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    code = 3
    try:
        code = _run()
    except BaseException as error:  # SystemExit too: a library's 1 is not a check that failed
        with suppress(Exception):
            _broken(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # nobody reads it any more
            stream.flush()
    _leave(code)


def _leave(code: int) -> None:
    """End the process: at once, or in order where coverage, a profiler or a debugger writes at its end."""
    tools = getattr(sys, "monitoring", None)  # from Python 3.12
    watched = bool(tools and any(map(tools.get_tool, range(6))))
    if watched or sys.gettrace() or sys.getprofile():
        sys.exit(code)
    os._exit(code)


def _run() -> int:
    """Run the command that this process was given; its exit code."""
    try:
        if re.search("[\ud800-\udfff]", str(Path.cwd())):  # DVC and DuckDB take paths as UTF-8
            raise UserError("this locale cannot write the project's path: set PYTHONUTF8=1")
        code = app(standalone_mode=False)  # else an interrupt or a closed pipe would be a 1
        return code if isinstance(code, int) else 0
    except UserError as error:
        print(f"error: {located(str(error), ROOT / 'params.yaml')}", file=sys.stderr)
    except ModuleNotFoundError as error:
        name = str(error.name).partition(".")[0]
        if name == __package__:
            raise
        print(f"error: {missing(name)}", file=sys.stderr)
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        rich_utils.rich_format_error(error)  # type: ignore[arg-type]  # wrong use
        return int(error.exit_code)
    return 2


def _broken(error: BaseException) -> None:
    """Say why a command did not come to its end."""
    told = "this command broke (exit code 3)"
    if isinstance(error, OSError) and error.strerror:  # the machine's fault: where says nothing
        where = f": {error.filename}" if error.filename else ""
        print(f"error: {told}: {error.strerror}{where}", file=sys.stderr)
        return
    if isinstance(error, Exception):
        traceback.print_exception(error)
    print(f"error: {told}: {type(error).__name__}", file=sys.stderr)


if __name__ == "__main__":
    main()
