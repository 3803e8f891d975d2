"""How quick the exported model is here, by batch size and threads, and which of them to use."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import onnxruntime
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..data.source import report as write
from ..images import noise
from ..model import CHUNK, CPU, LEVELS, Model, ModelError, SessionChoice
from ..paths import BENCH, BENCH_PICTURE
from ..scoring.batch import answering_folder
from ..settings import UserError, set_values

SIZES = (1, 10, 100, 1_000, 5_000, CHUNK)
VOCABULARY, TEXT_LENGTH = ["the", "order", "came", "late", "and", "broken"], 60  # of a made-up text
MAX_IMAGES = 1_000  # rows in a call of a model of images: more take their time, and no other
REMOTE = "AzureExecutionProvider"  # asks a service elsewhere, and runs nothing here
MAX_GAP = 1e-6  # of scores, beyond which another choice is no other way to the same ones
SECONDS = 0.5  # for each of them
MIN_GAIN = 1.05  # a larger size or one more thread has to bring at least this


class Speed(TypedDict):
    """What was measured with one size of batch and one number of threads."""

    batch: int  # rows in a call
    threads: int
    p50_ms: float  # of a call
    p99_ms: float
    rows_per_second: float  # of all threads together


class Session(TypedDict):
    """What was measured with one optimisation of the graph and one execution provider, on one thread."""

    graph: str
    provider: str
    p50_ms: float  # of one row
    rows_per_second: float  # in the largest batch
    gap: float  # largest difference of a score from that of the usual choice


class BatchChoice(TypedDict):
    """The size of batch and the number of threads to use, and why."""

    batch: int
    threads: int
    why: str


class Choice(BatchChoice):
    """These, and how ONNX Runtime is to run the model."""

    graph: str
    provider: str


class Bench(TypedDict):
    """What reports/bench.json holds."""

    model: str  # name and version
    cores: int
    rows: list[Speed]
    sessions: list[Session]
    best: Choice


def bench(root: Path, seconds: float = SECONDS, sizes: Sequence[int] = SIZES) -> Bench:
    """Call the model from 1, 2, 4 … threads at once with batches of rows, and write what came of it.

    As `score` and `serve --workers` do, each call has one thread to itself; more of them inside one
    call would add up a row's trees in another order. Then each optimisation of the graph, and each execution provider that
    is installed, is compared with the usual ones.

    Args:
        seconds: to measure each pair of size and threads for.
        sizes: rows in a call, rising.

    Raises:
        UserError: when there is no model that can be used.
    """
    try:
        model = Model(answering_folder(root))
    except ModelError as error:
        raise UserError(f"{error}; train first (`run` does it)") from None
    cores = os.cpu_count() or 1
    counts = sorted({*(2**power for power in range(cores.bit_length())), cores})
    sizes = [size for size in sizes if size <= MAX_IMAGES] if model.images else sizes
    feeds = {size: _rows(model, size) for size in sizes}
    pairs = ((size, threads) for size in sizes for threads in counts)
    rows = [_measure(model, feeds[size], size, threads, seconds) for size, threads in pairs]
    ends = [(sizes[0], feeds[sizes[0]]), (sizes[-1], feeds[sizes[-1]])]
    sessions = _sessions(answering_folder(root), model, ends, seconds)
    name, session = f"{model.name} {model.version}", pick_session(sessions)
    best = Choice(**pick(rows), graph=session.graph, provider=session.provider)
    result = Bench(model=name, cores=cores, rows=rows, sessions=sessions, best=best)
    report = write(root, "bench", result)
    _draw(rows, root / BENCH_PICTURE)
    return report


def pick_session(sessions: Sequence[Session]) -> SessionChoice:
    """The graph and provider that are quickest with one row and many together, if that is by 5 % and scores stay.

    Args:
        sessions: the usual choice first.
    """
    usual = sessions[0]

    def gain(session: Session) -> float:
        speedup = session["rows_per_second"] / usual["rows_per_second"]
        return float(np.sqrt(speedup * usual["p50_ms"] / session["p50_ms"]))

    alike = [session for session in sessions if session["gap"] <= MAX_GAP]
    best = max(alike, key=gain)
    best = best if gain(best) >= MIN_GAIN else usual
    return SessionChoice(best["graph"], best["provider"])


def _sessions(
    folder: Path, model: Model, ends: Sequence[tuple[int, dict[str, Any]]], seconds: float
) -> list[Session]:
    """Each graph on the processor and each other provider that is installed, the usual choice first.

    Args:
        ends: the smallest and the largest batch, each its size and its rows.
    """
    compared = [n for n in onnxruntime.get_available_providers() if n not in (CPU, REMOTE)]
    tried = [SessionChoice(graph) for graph in reversed(LEVELS)]
    tried += [SessionChoice(provider=name) for name in compared]
    usual, sessions = model.score(ends[-1][1]), []
    for choice in tried:
        loaded = Model(folder, session=choice)
        session, batch_speed = (_measure(loaded, rows, size, 1, seconds) for size, rows in ends)
        unit = np.maximum(1.0, np.abs(usual))
        gap = float((np.abs(loaded.score(ends[-1][1]) - usual) / unit).max())
        figures = Session(
            graph=choice.graph,
            provider=choice.provider,
            p50_ms=session["p50_ms"],
            rows_per_second=batch_speed["rows_per_second"],
            gap=gap,
        )
        sessions.append(figures)
    return sessions


def write_choice(path: Path, best: Choice) -> None:
    """Write the choice into params.yaml, where `score` and `serve` read it; comments stay."""
    values = {"rows": best["batch"], **{key: best[key] for key in ("threads", "graph", "provider")}}
    set_values(path, [f"scoring.hardware.{key}={value}" for key, value in values.items()])


def pick(rows: Sequence[Speed]) -> BatchChoice:
    """The fewest threads, and with them the smallest batch, within 5 % of the most rows a second."""
    fastest = max(rows, key=lambda row: row["rows_per_second"])
    near = [row for row in rows if MIN_GAIN * row["rows_per_second"] >= fastest["rows_per_second"]]
    best = min(near, key=lambda row: (row["threads"], row["batch"]))
    single = next(row for row in rows if row["threads"] == 1)
    speedup = best["rows_per_second"] / single["rows_per_second"]
    why = (
        f"{best['rows_per_second']:,.0f} rows a second, {speedup:.1f} times what {single['batch']} row a "
        f"call reaches on one thread; more rows or threads bring under {MIN_GAIN - 1:.0%}"
    )
    return BatchChoice(batch=best["batch"], threads=best["threads"], why=why)


def _rows(model: Model, n: int) -> dict[str, Any]:
    """Rows as the manifest says that training saw them, drawn with a fixed seed."""
    rng = np.random.default_rng(1)
    columns: dict[str, Any] = {}
    for column in model.inputs:
        name = column["name"]
        if column["type"] == "category":
            columns[name] = rng.choice(column.get("categories") or ["a", "b", "c"], n).tolist()
        elif column["type"] == "image":
            columns[name] = [noise(model.images[name])] * n
        elif column["type"] == "history":
            values = rng.uniform(1, 2, model.histories[name]).round(3).tolist()
            columns[name] = [json.dumps(values)] * n
        elif column["type"] == "text":
            columns[name] = [" ".join(rng.choice(VOCABULARY, TEXT_LENGTH)) for _ in range(n)]
        else:
            columns[name] = rng.uniform(column.get("min", 0.0), column.get("max", 1.0), n)
    return columns


def _measure(
    model: Model, columns: dict[str, Any], size: int, threads: int, seconds: float
) -> Speed:
    """Call the model from so many threads at once for `seconds`; `columns` has `size` rows."""

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
        calls = [t for times in pool.map(work, [start + seconds] * threads) for t in times]
        elapsed = time.perf_counter() - start
    p50, p99 = (1000 * float(duration) for duration in np.quantile(calls, [0.5, 0.99]))
    speed = size * len(calls) / elapsed
    return Speed(batch=size, threads=threads, p50_ms=p50, p99_ms=p99, rows_per_second=speed)


def _draw(rows: Sequence[Speed], file: Path) -> None:
    """Rows a second by batch size, a line for each number of threads."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for threads in sorted({row["threads"] for row in rows}):
        curve = [row for row in rows if row["threads"] == threads]
        sizes = [row["batch"] for row in curve]
        label = f"{threads} thread{'s' if threads > 1 else ''}"
        left.plot(sizes, [row["rows_per_second"] for row in curve], "o-", label=label)
        right.plot(sizes, [row["p99_ms"] for row in curve], "o-", label=label)
    left.set(title="Throughput", xlabel="rows in a call", ylabel="rows a second", xscale="log")
    right.set(title="Time of a call", xlabel="rows in a call", ylabel="p99 in ms", xscale="log")
    right.set_yscale("log")
    left.legend()
    figure.savefig(file, dpi=100)


def show(report: Bench, console: Console) -> None:
    """Print the figures as a table, and what to use."""
    best, title = report["best"], f"{report['model']} on {report['cores']} cores"
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for head in ("rows in a call", "threads", "p50 ms", "p99 ms", "rows a second"):
        table.add_column(head, justify="right")
    for row in report["rows"]:
        chosen = (row["batch"], row["threads"]) == (best["batch"], best["threads"])
        figures = (f"{row['p50_ms']:.3f}", f"{row['p99_ms']:.3f}", f"{row['rows_per_second']:,.0f}")
        size = (f"{row['batch']:,}", str(row["threads"]))
        table.add_row(*size, *figures, style="bold" if chosen else None)
    console.print(table)
    compared = Table("graph", "provider", "one row, p50 ms", "rows a second", box=SIMPLE_HEAD)
    for session in report["sessions"]:
        used = (session["graph"], session["provider"]) == (best["graph"], best["provider"])
        row_ms, batch_speed = f"{session['p50_ms']:.3f}", f"{session['rows_per_second']:,.0f}"
        compared.add_row(
            session["graph"],
            session["provider"],
            row_ms,
            batch_speed,
            style="bold" if used else None,
        )
    console.print(compared)
    console.print(
        f"For files: [bold]score --rows {best['batch']} --threads {best['threads']}[/]: {best['why']}.\n"
        f"{BENCH} has the figures, {BENCH_PICTURE} shows them."
    )
