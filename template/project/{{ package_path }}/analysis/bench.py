"""How quick the exported model is here, by batch size and threads, and which of them to use."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..model import CHUNK, Model, ModelError
from ..paths import BENCH, BENCH_PICTURE
from ..scoring.batch import folder
from ..settings import UserError

SIZES = (1, 10, 100, 1_000, 5_000, CHUNK)
SECONDS = 0.5  # for each of them
LEAST_GAIN = 1.05  # a larger size or one more thread has to bring at least this


def bench(root: Path, seconds: float = SECONDS, sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """Call the model from 1, 2, 4 … threads at once with batches of rows, and write what came of it.

    As `score` and `serve --workers` do, each call has one thread to itself; more of them inside one
    call would add up a row's trees in another order.

    Args:
        seconds: to measure each pair of size and threads for.
        sizes: rows in a call, rising.

    Returns:
        what reports/bench.json holds: {"model", "cores", "rows": [{"batch", "threads", "p50_ms",
        "p99_ms", "rows_per_second"}], "best": {"batch", "threads", "why"}}.

    Raises:
        UserError: when there is no model that can be used.
    """
    try:
        model = Model(folder(root))
    except ModelError as error:
        raise UserError(f"{error}; train first (`run` does it)") from None
    cores = os.cpu_count() or 1
    counts = sorted({*(2**power for power in range(cores.bit_length())), cores})
    feeds = {size: _rows(model, size) for size in sizes}
    rows = [
        {"batch": size, "threads": threads, **_measure(model, feeds[size], size, threads, seconds)}
        for size in sizes
        for threads in counts
    ]
    report = {
        "model": f"{model.name} {model.version}",
        "cores": cores,
        "rows": rows,
        "best": pick(rows),
    }
    (root / BENCH).parent.mkdir(parents=True, exist_ok=True)
    (root / BENCH).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8", newline="\n")
    _picture(rows, root / BENCH_PICTURE)
    return report


def pick(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The smallest batch and the fewest threads that come within 5 % of the most rows a second."""
    most = max(rows, key=lambda one: one["rows_per_second"])
    near = [one for one in rows if LEAST_GAIN * one["rows_per_second"] >= most["rows_per_second"]]
    best = min(near, key=lambda one: (one["threads"], one["batch"]))
    single = next(one for one in rows if one["threads"] == 1)
    times = best["rows_per_second"] / single["rows_per_second"]
    why = (
        f"{best['rows_per_second']:,.0f} rows a second, {times:.1f} times what {single['batch']} row a "
        f"call reaches on one thread; more rows or threads bring under {LEAST_GAIN - 1:.0%}"
    )
    return {"batch": best["batch"], "threads": best["threads"], "why": why}


def _rows(model: Model, n: int) -> dict[str, Any]:
    """Rows as the manifest says that training saw them, drawn with a fixed seed."""
    rng = np.random.default_rng(1)
    columns: dict[str, Any] = {}
    for one in model.inputs:
        if one["type"] == "category":
            columns[one["name"]] = rng.choice(one.get("categories") or ["a", "b", "c"], n).tolist()
        else:
            low, high = one.get("min", 0.0), one.get("max", 1.0)
            columns[one["name"]] = rng.uniform(low, high, n)
    return columns


def _measure(
    model: Model, columns: dict[str, Any], size: int, threads: int, seconds: float
) -> dict[str, float]:
    """Milliseconds of a call, and rows a second of all threads together."""

    def work(until: float) -> list[float]:
        spent: list[float] = []
        while not spent or time.perf_counter() < until:
            start = time.perf_counter()
            model.score(columns)
            spent.append(time.perf_counter() - start)
        return spent

    model.score(columns)  # the first call is slow whatever comes
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        calls = [one for part in pool.map(work, [start + seconds] * threads) for one in part]
        took = time.perf_counter() - start
    p50, p99 = np.quantile(calls, [0.5, 0.99])
    return {
        "p50_ms": 1000 * float(p50),
        "p99_ms": 1000 * float(p99),
        "rows_per_second": size * len(calls) / took,
    }


def _picture(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Rows a second by batch size, a line for each number of threads."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for threads in sorted({one["threads"] for one in rows}):
        some = [one for one in rows if one["threads"] == threads]
        sizes = [one["batch"] for one in some]
        words = f"{threads} thread{'s' if threads > 1 else ''}"
        left.plot(sizes, [one["rows_per_second"] for one in some], "o-", label=words)
        right.plot(sizes, [one["p99_ms"] for one in some], "o-", label=words)
    left.set(title="Throughput", xlabel="rows in a call", ylabel="rows a second", xscale="log")
    right.set(title="Time of a call", xlabel="rows in a call", ylabel="p99 in ms", xscale="log")
    right.set_yscale("log")
    left.legend()
    figure.savefig(file, dpi=100)


def show(found: dict[str, Any], console: Console) -> None:
    """Print the figures as a table, and what to use."""
    best, title = found["best"], f"{found['model']} on {found['cores']} cores"
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for head in ("rows in a call", "threads", "p50 ms", "p99 ms", "rows a second"):
        table.add_column(head, justify="right")
    for row in found["rows"]:
        chosen = (row["batch"], row["threads"]) == (best["batch"], best["threads"])
        figures = (f"{row['p50_ms']:.3f}", f"{row['p99_ms']:.3f}", f"{row['rows_per_second']:,.0f}")
        size = (f"{row['batch']:,}", str(row["threads"]))
        table.add_row(*size, *figures, style="bold" if chosen else None)
    console.print(table)
    console.print(
        f"For files: [bold]score --rows {best['batch']} --threads {best['threads']}[/]: {best['why']}.\n"
        f"{BENCH} has the figures, {BENCH_PICTURE} shows them."
    )
