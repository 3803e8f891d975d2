"""Fit the baselines and the candidates, measure all alike, choose one, export it.

The features are prepared once and shared by all models, which are fitted two at a time. They learn
from the training rows; calibration, decision and choice come from the validation rows; of the test
rows only the inputs are read, to compare each exported model with the trained one.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from joblib import parallel_config
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from ..data.schema import name as name_of
from ..data.split import PARTS
from ..features.catalogue import check_leaks, inputs, load, selected, sources
from ..features.pipeline import build
from ..goals.gate import compared, interval, measure, resample, some
from ..goals.gate import gain as gained
from ..goals.metrics import spread
from ..goals.value import decide, fit_decision, value
from ..settings import Settings, UserError
from . import baselines, candidates
from .export import (
    BASELINE,
    FITTED,
    MANIFEST,
    MODEL,
    Rounded,
    Scorer,
    export,
    fit_calibration,
    latency,
    parity,
    with_extremes,
)

REPORT = "reports/candidates.json"
MOST_ROWS = 20_000  # that an interval is drawn from
AT_ONCE = 2  # models that are fitted side by side
FLOOR = "random"
BASELINES = (FLOOR, "heuristic", "simple")
MOST_CATEGORIES = 100
LIBRARIES = ("lightgbm", "numpy", "onnx", "onnxruntime", "pandas", "scikit-learn", "skl2onnx")

Array = np.ndarray


@dataclass
class Prepared:
    """The parts, read and prepared once: train, valid and probe, the rows of the parity check."""

    columns: dict[str, str]
    rows: dict[str, pd.DataFrame]
    y: dict[str, Array]
    preparation: Any
    matrix: dict[str, Array]
    newest: Array | None  # places of the rows that a warm start goes on with


@dataclass
class Trial:
    """One model of the table. `file` is None where there is nothing to export."""

    name: str
    kind: str
    score: Array  # of the validation rows, calibrated
    seconds: float
    decision: float = 0.0
    drawn: Array = field(default_factory=lambda: np.empty(0))  # the metric by resample
    file: bytes | None = None
    parity: float | None = None
    row: dict[str, Any] = field(default_factory=dict)


def train(settings: Settings, root: Path) -> dict[str, Any]:
    """Write the chosen model, the best baseline, the manifest and the table of all that was tried.

    Returns:
        what reports/candidates.json holds: {"chosen": name, "rows": [one for each model]}.

    Raises:
        UserError: when a feature leaks the label or is ill-defined, when the split is missing, or
            when a part holds a single label value.
    """
    names = [*BASELINES, *dict.fromkeys(settings.modelling.candidates)]
    with (
        _progress() as bar,
        ThreadPoolExecutor(AT_ONCE) as pool,
        # Sums in one order give the same bits on any machine, and spare threads only wait for work
        threadpool_limits(settings.modelling.threads, "blas"),
    ):
        task = bar.add_task("features", total=len(names) + 1)
        data = _prepare(settings, root)
        bar.update(task, advance=1, description="models")
        # The last in the list take longest, so they start first
        runs = {name: pool.submit(_try, name, data, settings) for name in reversed(names)}
        for run in as_completed(runs.values()):
            run.result()
            bar.update(task, advance=1)
        trials = [runs[name].result() for name in names]
        _measure(trials, data, settings)
        chosen, fallback = _choose(trials, settings)
        report = {"chosen": chosen.name, "rows": [trial.row for trial in trials]}
        _write(settings, root, data, chosen, fallback, report)
    return report


def _prepare(settings: Settings, root: Path) -> Prepared:
    columns = inputs(settings)
    rows = {part: load(root / path, columns) for part, path in PARTS.items()}
    rows["probe"] = with_extremes(rows.pop("test"), columns)
    y = {part: _label(root / PARTS[part]) for part in ("train", "valid")}
    for part, labels in y.items():
        if len(np.unique(labels)) < 2:
            raise UserError(
                f"{PARTS[part]}: the label has a single value in its {len(labels)} rows; "
                f"collect more rows or change data.split"
            )
    check_leaks(rows["train"], y["train"], settings)
    preparation = build(settings).fit(rows["train"])
    matrix = {part: preparation.transform(frame) for part, frame in rows.items()}
    return Prepared(columns, rows, y, preparation, matrix, _newest(settings, root, y["train"]))


def _newest(settings: Settings, root: Path, y: Array) -> Array | None:
    """The places of the newest `modelling.warm_start` of the training rows; None when it is off.

    Training starts from all rows each time, and not from the file in production: that one's
    preparation was fitted on other rows, so its trees would cut at values that mean something else.
    """
    share, time = settings.modelling.warm_start, settings.data.schema_.time
    if not share or not time:
        return None
    query = f"SELECT epoch({name_of(time)}) AS at FROM read_parquet(?)"
    at = duckdb.execute(query, [str(root / PARTS["train"])]).fetchnumpy()["at"]
    newest = np.argsort(np.ma.filled(at, -np.inf), kind="stable")[-max(1, round(share * len(y))) :]
    if len(np.unique(y[newest])) < 2:
        raise UserError("modelling.warm_start: the newest rows have a single label; take more")
    return np.sort(newest)


def _label(path: Path) -> Array:
    return duckdb.execute("SELECT _y FROM read_parquet(?)", [str(path)]).fetchnumpy()["_y"]


def _try(name: str, data: Prepared, settings: Settings) -> Trial:
    """Fit, calibrate and export one model."""
    seed, y, matrix = settings.project.seed, data.y, data.matrix
    if name == FLOOR:
        score = baselines.floor(y["train"], len(y["valid"]), settings, seed)
        return Trial(name, "baseline", score, 0.0)
    # A number is learnt standardised: the exported model sums in 32 bits
    unit, middle = (1.0, 0.0) if candidates.CLASSIFIER else (spread(y["train"]), y["train"].mean())
    target = {part: (labels - middle) / unit for part, labels in y.items()}
    start = time.perf_counter()
    if kind := "baseline" if name in BASELINES else "":
        model = baselines.make(name, len(y["train"]), settings, seed)
    else:
        kind, model = "candidate", candidates.make(name, settings, seed)
    learnt = target["train"].astype(int if candidates.CLASSIFIER else float)
    # For a stack's folds; other processes than this one would need the rows copied
    with parallel_config("threading"):
        model.fit(matrix["train"], learnt)
    if isinstance(model, Rounded) and data.newest is not None:
        model.go_on(matrix["train"][data.newest], learnt[data.newest])
    seconds = time.perf_counter() - start

    raw = candidates.predict(model, matrix["valid"])
    head = fit_calibration(
        settings.modelling.calibration,
        target["valid"],
        raw,
        candidates.CLASSIFIER,
        float(unit),
        float(middle),
    )
    trial = Trial(name, kind, head(raw), seconds)
    trial.file = export(data.columns, data.preparation, model, head)
    trained = head(candidates.predict(model, matrix["probe"]))
    trial.parity = parity(trained, Scorer(trial.file), data.rows["probe"], unit)
    return trial


def _measure(trials: list[Trial], data: Prepared, settings: Settings) -> None:
    """Fill in the table: every figure on the validation rows, all from the same resamples."""
    goals, seed, y = settings.goals, settings.project.seed, data.y["valid"]
    few = some(len(y), MOST_ROWS, seed)
    weights = resample(len(few), goals.interval.resamples, seed)
    for one in trials:
        speed = {} if one.file is None else latency(one.file, data.rows["valid"])
        one.decision = fit_decision(y, one.score, goals.costs, goals.decision)
        decided = decide(one.score, one.decision)
        one.drawn = measure(goals.metric, y[few], one.score[few], decided[few], weights)
        low, high = interval(one.drawn, goals.interval.level)
        one.row = {
            "name": one.name,
            "kind": one.kind,
            "metric_name": goals.metric,
            "metric": measure(goals.metric, y, one.score, decided),
            "low": low,
            "high": high,
            "value": float(value(y, decided, goals.costs).mean()),
            "decision": one.decision,
            "fit_seconds": round(one.seconds, 3),
            "latency_p50_ms": speed.get("p50_ms"),
            "latency_p99_ms": speed.get("p99_ms"),
            "size_kb": None if one.file is None else round(len(one.file) / 1024, 1),
            "parity": one.parity,
            "chosen": False,
        }
    best = _best([one for one in trials if one.kind == "baseline"], goals.metric)
    for one in trials:
        gain = compared(goals.metric, one.drawn, best.drawn, goals.interval)
        one.row["gain_over_baseline"] = {
            "baseline": best.name,
            "value": float(gained(goals.metric, one.row["metric"], best.row["metric"])),
            "low": gain["low"],
            "high": gain["high"],
        }


def _best(trials: list[Trial], metric: str) -> Trial:
    return max(trials, key=lambda one: gained(metric, one.row["metric"], 0.0))


def _choose(trials: list[Trial], settings: Settings) -> tuple[Trial, Trial]:
    """The model that ships and the best baseline that can serve; writes every verdict."""
    metric = settings.goals.metric
    broken = {one.name: _broken(one, settings) for one in trials}
    spare = [one for one in trials if one.kind == "baseline" and one.file is not None]
    fallback = _best([one for one in spare if not broken[one.name]] or spare, metric)
    able = [one for one in trials if one.kind == "candidate" and not broken[one.name]]
    chosen = _best(able, metric) if able else fallback
    for one in trials:
        if one is chosen:
            verdict = "chosen" if able else "ships, because no candidate qualifies"
        elif broken[one.name]:
            verdict = broken[one.name]
        elif one.kind == "baseline":
            verdict = "baseline, kept as the fallback" if one is fallback else "baseline"
        else:
            behind = gained(metric, chosen.row["metric"], one.row["metric"])
            verdict = f"{behind:.4g} behind {chosen.name}"
        one.row.update(chosen=one is chosen, verdict=verdict)
    return chosen, fallback


def _broken(trial: Trial, settings: Settings) -> str:
    """Why a model cannot be chosen, in words; empty when it can."""
    limits, row = settings.modelling, trial.row
    slowest = settings.goals.targets.latency_p99_ms
    reasons = []
    if trial.file is not None:
        if row["parity"] > limits.parity:
            reasons.append(f"export differs by {row['parity']:.2g} > {limits.parity:g}")
        if slowest is not None and row["latency_p99_ms"] > slowest:
            reasons.append(f"latency {row['latency_p99_ms']:.3g} ms > {slowest:g} ms")
        if row["size_kb"] > 1024 * limits.max_size_mb:
            reasons.append(f"size {row['size_kb'] / 1024:.3g} MB > {limits.max_size_mb:g} MB")
        if trial.seconds > limits.max_fit_seconds:
            reasons.append(f"fit {trial.seconds:.3g} s > {limits.max_fit_seconds:g} s")
    if trial.kind == "candidate":
        if limits.interpretable and trial.name not in candidates.INTERPRETABLE:
            reasons.append("not interpretable")
        if row["gain_over_baseline"]["low"] <= 0:
            reasons.append("not better than the baseline beyond doubt")
    return "; ".join(reasons)


def _write(
    settings: Settings,
    root: Path,
    data: Prepared,
    chosen: Trial,
    fallback: Trial,
    report: dict[str, Any],
) -> None:
    """All files under other names first, then renamed, the manifest last."""
    assert chosen.file is not None
    assert fallback.file is not None
    (root / MODEL).parent.mkdir(parents=True, exist_ok=True)
    (root / REPORT).parent.mkdir(parents=True, exist_ok=True)
    seen = [str(root / PARTS[part]) for part in ("train", "valid")]
    keys = duckdb.read_parquet(seen).select("_row_key").distinct().order("_row_key")
    keys.write_parquet(str(root / f"{FITTED}.new"))
    fresh = {
        MODEL: chosen.file,
        BASELINE: fallback.file,
        REPORT: _json(report),
        MANIFEST: _json(_manifest(settings, root, data, chosen, fallback)),
    }
    for path, content in fresh.items():
        (root / f"{path}.new").write_bytes(content)
    for path in (FITTED, *fresh):
        os.replace(root / f"{path}.new", root / path)


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _manifest(
    settings: Settings, root: Path, data: Prepared, chosen: Trial, fallback: Trial
) -> dict[str, Any]:
    """What the model is, for whoever loads it. Equal runs give equal manifests."""
    dump = settings.model_dump_json(by_alias=True).encode()
    times = settings.data.schema_.time
    figures = ("metric_name", "metric", "low", "high", "value", "gain_over_baseline")
    manifest = {
        "problem": settings.project.problem,
        "sha256": _sha256(chosen.file),
        "chosen": chosen.name,
        "decision": chosen.decision,
        "calibration": settings.modelling.calibration,
        "inputs": [_input(name, data, settings) for name in data.columns],
        "output": {"name": "score", "probability": candidates.CLASSIFIER},
        "baseline": {
            "name": fallback.name,
            "decision": fallback.decision,
            "sha256": _sha256(fallback.file),
            "interval": _around(fallback, data.y["valid"], settings),
        },
        "interval": _around(chosen, data.y["valid"], settings),
        "validation": {name: chosen.row[name] for name in figures},
        "trained_rows": len(data.y["train"]),
        "trained_until": _latest(root / PARTS["train"], times) if times else None,
        "data_version": _sha256(*(root / path for path in PARTS.values())),
        "code_version": _sha256(*sorted(Path(__file__).parents[1].rglob("*.py"))),
        "settings_hash": _sha256(dump),
        "versions": {name: version(name) for name in LIBRARIES},
    }
    if candidates.CLASSIFIER:
        manifest["threshold"] = chosen.decision
    return manifest


def _around(trial: Trial, y: Array, settings: Settings) -> dict[str, float] | None:
    """How far from its prediction a number lies with the level of `goals.interval`: the quantiles
    of what was left over on the validation rows (split conformal; Lei et al., 2018)."""
    if candidates.CLASSIFIER:
        return None
    level = settings.goals.interval.level
    beyond = (1 - level) / 2 * (1 - 1 / (len(y) + 1))
    low, high = np.quantile(y - trial.score, [beyond, 1 - beyond])
    return {"level": level, "low": float(low), "high": float(high)}


def _sha256(*parts: bytes | Path | None) -> str:
    """Of bytes and of files, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
        elif part is not None:
            digest.update(part)
    return digest.hexdigest()


def _latest(path: Path, column: str) -> str:
    query = f"SELECT max({name_of(column)}) FROM read_parquet(?)"
    ((found,),) = duckdb.execute(query, [str(path)]).fetchall()
    return str(found.isoformat())


def _input(name: str, data: Prepared, settings: Settings) -> dict[str, Any]:
    """A raw column: its type, whose it is, and what training saw of it."""
    kind, values = data.columns[name], data.rows["train"][name]
    features = selected(settings).items()
    families = {one.family for key, one in features if name in sources(key, one)}
    own = selected(settings).get(name)
    entry: dict[str, Any] = {
        "name": name,
        "type": kind,
        "family": own.family if own else sorted(families)[0],
    }
    if formats := settings.data.schema_.columns[name].formats:
        entry["formats"] = list(formats)  # how files and requests write the time
    if kind == "category":
        seen = sorted(set(values.unique()) - {""})
        entry["missing"] = float((values == "").mean())
        entry["categories"] = seen if len(seen) <= MOST_CATEGORIES else None
        return entry
    known = values[np.isfinite(values)].to_numpy(np.float64)
    entry["missing"] = float(values.isna().mean())
    if len(known):
        low, high = data.rows["train"].attrs["ends"][
            name
        ]  # a 32-bit end may leave its own value out
        entry |= {"min": low, "max": high, "median": float(np.median(known))}
    return entry


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("train: {task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
