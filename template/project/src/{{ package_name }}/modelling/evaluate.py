"""The exported model on the test rows: metrics, behaviour, comparison, pictures and the gate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from ..data.split import PARTS
from ..features.catalogue import inputs, load
from ..goals.gate import compared, gain, interval, judge, measure, resample
from ..goals.metrics import METRICS, calibration_error, confidence_gain, curves
from ..goals.value import decide, value
from ..settings import Settings, UserError
from . import behaviour
from .export import BASELINE, MANIFEST, MODEL, Scorer, latency

METRICS_FILE = "reports/metrics.json"
GATE = "reports/gate.json"
PLOTS = "reports/plots"
PRODUCTION = "models/production"
MOST_ROWS = 50_000  # for the figures that need many passes; the rest see every row

Array = np.ndarray


def evaluate(settings: Settings, root: Path) -> dict[str, Any]:
    """Score the test rows once with the exported files and write everything that follows from it.

    Returns:
        the gate's verdict, as written to reports/gate.json.

    Raises:
        UserError: when train has not run.
    """
    manifest = _manifest(root / MANIFEST)
    goals = settings.goals
    rows = load(root / PARTS["test"], inputs(settings))
    y, extra = _beside(root / PARTS["test"], settings.modelling.evaluation.slices)
    model, baseline = Scorer(root / MODEL), Scorer(root / BASELINE)
    score, floor = model.score(rows), baseline.score(rows)
    decision = manifest["decision"]
    decided, floor_decided = (
        decide(score, decision),
        decide(floor, manifest["baseline"]["decision"]),
    )

    few = _some(len(y), settings.project.seed)
    weights = resample(len(few), goals.interval.resamples, settings.project.seed)
    drawn = measure(goals.metric, y[few], score[few], decided[few], weights)
    floor_drawn = measure(goals.metric, y[few], floor[few], floor_decided[few], weights)
    low, high = interval(drawn, goals.interval.level)
    primary = measure(goals.metric, y, score, decided)
    margin = compared(goals.metric, drawn, floor_drawn, goals.interval)
    production = _against_production(settings, root, rows, y, score, decided)

    parts = behaviour.slices(
        extra.iloc[few],
        goals.metric,
        (y[few], score[few], decided[few]),
        weights,
        settings.modelling.evaluation,
        goals.interval.level,
    )
    paradoxes = behaviour.simpson(
        extra.iloc[few],
        rows.iloc[few],
        goals.metric,
        y[few],
        (score[few], decided[few]),
        (floor[few], floor_decided[few]),
        settings.modelling.evaluation.min_slice_rows,
    )
    tested, expectations = _behaviour(settings, model, rows.iloc[few], y[few], decision, parts)
    tested["calibration"] = calibration_error(y, score)
    tested["confidence"] = confidence_gain(y, score, decided, decision)
    speed = latency(root / MODEL, rows)

    report = {
        "rows": len(y),
        "primary": {"name": goals.metric, "value": primary, "low": low, "high": high},
        "also": {name: measure(name, y, score, decided) for name in goals.also},
        "baseline": {
            "name": manifest["baseline"]["name"],
            "value": measure(goals.metric, y, floor, floor_decided),
            **margin,
        },
        "production": production,
        "value": {
            "per_row": float(value(y, decided, goals.costs).mean()),
            "baseline_per_row": float(value(y, floor_decided, goals.costs).mean()),
            "decision": decision,
        },
        "slices": parts,
        "simpson": paradoxes,
        "behaviour": behaviour.summary(tested, _worst(parts)[0]),
        "expectations": expectations,
        "latency": speed,
    }
    gate = judge(
        goals.targets,
        goals.metric,
        {
            "metric": primary,
            "margin_over_baseline": margin["low"],
            "loss_to_production": production["high"] if production else None,
            "worst_slice": tested["slices"],
            "calibration_error": tested["calibration"],
            "perturbation": tested["perturbation"],
            "invariance": tested["invariance"],
            "direction": tested["direction"],
            "confidence": tested["confidence"],
            "latency_p99_ms": speed["p99_ms"],
        },
    )
    gate["model"] = manifest["sha256"]
    (root / METRICS_FILE).parent.mkdir(parents=True, exist_ok=True)
    _pictures(root / PLOTS, curves(y, score, decision, goals.costs), parts, goals.metric, primary)
    (root / METRICS_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (root / GATE).write_text(json.dumps(gate, indent=2) + "\n", encoding="utf-8")
    return gate


def _manifest(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} is not here: train first (the `run` command does it in order)")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _beside(path: Path, columns: tuple[str, ...]) -> tuple[Array, pd.DataFrame]:
    """The label and the slice columns of a part, rows in the file's order."""
    names = ", ".join(f'"{name}"' for name in dict.fromkeys(columns))
    query = f"SELECT _y{', ' + names if names else ''} FROM read_parquet(?)"
    frame = duckdb.execute(query, [str(path)]).df()
    return frame.pop("_y").to_numpy(np.float64), frame


def _some(n: int, seed: int) -> Array:
    """All rows, or a seeded sample of them in their order."""
    if n <= MOST_ROWS:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, MOST_ROWS, replace=False))


def _worst(parts: dict[str, Any]) -> tuple[str | None, float | None]:
    judged = [
        (f"{column} = {name}", entry["keeps_high"])
        for column, entries in parts.items()
        for name, entry in entries.items()
        if entry["metric"] is not None
    ]
    return min(judged, key=lambda pair: pair[1]) if judged else (None, None)


def _behaviour(
    settings: Settings,
    model: Scorer,
    rows: pd.DataFrame,
    y: Array,
    decision: float,
    parts: dict[str, Any],
) -> tuple[dict[str, float | None], dict[str, float]]:
    evaluation, seed = settings.modelling.evaluation, settings.project.seed
    shares = behaviour.direction(model.score, rows, y, evaluation.expectations)
    return {
        "perturbation": behaviour.perturbation(
            model.score, rows, y, decision, evaluation.perturbation, seed
        ),
        "invariance": behaviour.invariance(model.score, rows, y, evaluation.sensitive),
        "direction": max(shares.values(), default=None),
        "slices": _worst(parts)[1],
    }, shares


def _against_production(
    settings: Settings, root: Path, rows: pd.DataFrame, y: Array, score: Array, decided: Array
) -> dict[str, Any] | None:
    """The gain over the model in production, on test rows that it was not fitted on either."""
    folder = root / PRODUCTION
    if not (folder / "model.onnx").is_file():
        return None
    old, goals = _manifest(folder / "manifest.json"), settings.goals
    missing = sorted({column["name"] for column in old["inputs"]} - set(rows.columns))
    if missing or old["problem"] != settings.project.problem:
        raise UserError(
            f"{folder}: takes columns that the data no longer has ({', '.join(missing)}); "
            f"remove the folder to start afresh"
        )
    fresh = (
        duckdb.execute(
            "SELECT _row_key NOT IN (SELECT _row_key FROM read_parquet(?)) AS fresh "
            "FROM read_parquet(?)",
            [str(folder / "fitted.parquet"), str(root / PARTS["test"])],
        )
        .df()["fresh"]
        .to_numpy(bool)
    )
    use = np.flatnonzero(fresh)
    if len(use) < settings.modelling.evaluation.min_slice_rows:
        return None
    use = use[_some(len(use), settings.project.seed)]
    old_score = Scorer(folder / "model.onnx").score(rows.iloc[use])
    old_decided = decide(old_score, old["decision"])
    weights = resample(len(use), goals.interval.resamples, settings.project.seed)
    new_drawn = measure(goals.metric, y[use], score[use], decided[use], weights)
    old_drawn = measure(goals.metric, y[use], old_score, old_decided, weights)
    return {
        "model": old["sha256"],
        "rows": len(use),
        "value": measure(goals.metric, y[use], old_score, old_decided),
        **compared(goals.metric, new_drawn, old_drawn, goals.interval),
    }


def _pictures(
    folder: Path,
    drawn: dict[str, Any],
    parts: dict[str, Any],
    metric: str,
    overall: float,
) -> None:
    """Each curve as JSON points and as PNG, and the slices as bars."""
    from matplotlib.figure import Figure

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, curve in drawn.items():
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        points = []
        for label, (x, height) in curve["series"].items():
            plain = label not in ("model", "cost") and "%" not in label
            axes.plot(x, height, "--" if plain else "-", label=label, alpha=0.6 if plain else 1)
            points += [
                {"series": label, "x": float(a), "y": float(b)}
                for a, b in zip(x, height, strict=True)
            ]
        axes.set(title=curve["title"], xlabel=curve["x"], ylabel=curve["y"])
        axes.legend()
        figure.savefig(folder / f"{name}.png", dpi=100)
        (folder / f"{name}.json").write_text(json.dumps(points) + "\n", encoding="utf-8")
    bars = [
        (f"{column} = {name}", entry["metric"])
        for column, entries in parts.items()
        for name, entry in entries.items()
        if entry["metric"] is not None
    ]
    if not bars:
        return
    names, heights = zip(*sorted(bars, key=lambda bar: gain(metric, bar[1], 0.0)), strict=True)
    figure = Figure(figsize=(6, 1.2 + 0.22 * len(bars)), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, heights)
    axes.axvline(overall, linestyle="--", color="black", label="all rows")
    better = "higher" if METRICS[metric].higher_is_better else "lower"
    axes.set(title=f"Slices, worst first ({better} is better)", xlabel=metric)
    axes.invert_yaxis()
    axes.legend()
    figure.savefig(folder / "slices.png", dpi=100)
    (folder / "slices.json").write_text(
        json.dumps(
            [{"series": metric, "x": n, "y": h} for n, h in zip(names, heights, strict=True)]
        )
        + "\n",
        encoding="utf-8",
    )
