"""What a run says when it ends: the table of models, and the gate."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..goals.gate import Gate, cells
from ..paths import CANDIDATES, COMPARE, GATE
from ..settings import read_json

if TYPE_CHECKING:
    from .compare import Comparison
    from .train import CandidateRow, Candidates


def show_candidates(root: Path, console: Console) -> None:
    """Print the models of the last training, the chosen one in bold, and why each other was not."""
    report: Candidates = read_json(root / CANDIDATES)
    rows, judged = report["rows"], report["judged"]
    by = "the validation rows" if judged["by"] == "validation" else "all rows by cross-validation"
    title = f"Models on {by} (metric: {rows[0]['metric_name']})"
    # Narrow gaps leave the verdict, the only column that wraps, some 25 of a terminal's 80 characters
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", padding=0, pad_edge=False)
    for heading in ("model", "metric", "value", "fit s", "p99 ms", "kB", ""):
        left = heading in ("model", "")
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading != "")
    for row in rows:
        unexported, latency = row["size_kb"] is None, row["latency_p99_ms"]
        table.add_row(
            row["name"].replace(" ", "\n  "),
            f"{row['metric']:.4g} [dim]({row['low']:.3g}–{row['high']:.3g})[/]",
            f"{row['value']:.3g}",
            f"{row['fit_seconds']:.2f}",
            "–" if unexported else f"{latency:.2f}",
            "–" if unexported else f"{row['size_kb']:.0f}",
            row["verdict"] + _over_plain(row),
            style="bold" if row["chosen"] else None,
        )
    console.print(table)
    if any("gain_over_plain" in row for row in rows):
        console.print(f"{report['variants'].capitalize()}.", markup=False, highlight=False)
    # A variant takes the size of its model
    plain = [row for row in rows if "gain_over_plain" not in row]
    sizes = [f"{row['name']} {row['fitted']}" for row in plain if row["fitted"]]
    if sizes:
        console.print(f"Found on held-out rows: {'; '.join(sizes)}.", markup=False)
    if report["shipped"]["refit"]:
        console.print(
            f"{report['chosen']} ships fitted again on train and valid, {report['shipped']['rows']:,} "
            f"rows; the figures above are of the fit before.\n", markup=False,
        )  # fmt: skip


def _over_plain(row: CandidateRow) -> str:
    """The line that says what a variant of the rows gains over the same model fitted to the rows as they are."""
    if (lead := row.get("gain_over_plain")) is None:
        return ""
    rows = f", {row['labelled_rows']:,} rows labelled" if "labelled_rows" in row else ""
    return f"\n{lead['value']:+.3g} ({lead['low']:+.2g} to {lead['high']:+.2g}) over plain{rows}"


def show_gate(root: Path, console: Console) -> None:
    """Print every target of the last gate: what was promised, what was measured, met or missed."""
    gate: Gate = read_json(root / GATE)
    title = "Gate: [green]passed[/]" if gate["passed"] else "Gate: [bold red]FAILED[/]"
    heads = ("target", "promised", "measured", "")
    table = Table(*heads, title=title, box=SIMPLE_HEAD, title_justify="left")
    table.columns[2].no_wrap = True
    hues = {None: "dim", True: "green", False: "bold red"}
    for row in gate["rows"]:
        target, promised, measured, verdict = cells(row)
        hue = "yellow" if row["verdict"] == "undecided" and row["passed"] else hues[row["passed"]]
        # A longer line of a reason would cut the other columns in a terminal of 80 characters
        measured = fill(measured, 20) if row.get("reason") else measured
        table.add_row(target, promised, measured, f"[{hue}]{verdict}")
    console.print(table)
    if changes := changed_decisions(root, gate):
        console.print(f"{changes}\n", markup=False)


def changed_decisions(root: Path, gate: Gate) -> str:
    """The sentences of `compare` on the model that the gate judged; empty where nothing was in production."""
    if not (root / COMPARE).is_file():
        return ""
    from .compare import sentences

    comparison: Comparison = read_json(root / COMPARE)
    return sentences(comparison) if comparison["model"] == gate.get("model") else ""
