"""The exported model on the test rows: metrics, behaviour, comparison, pictures and the gate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from .. import paths, problem
from ..data.schema import name as quoted
from ..data.schema import stored
from ..data.source import report
from ..features.catalogue import inputs, load
from ..goals.gate import (
    Figure,
    calibration,
    compared,
    gain,
    interval,
    judge,
    measure,
    resample,
    sample_rows,
)
from ..model import Scorer
from ..problem import data as problem_data
from ..problem.goals import (
    METRICS,
    aimed_quantile,
    came,
    claim,
    confidence_gain,
    curves,
    decide,
    value,
)
from ..repository import verified
from ..settings import Settings, UserError, read_json
from . import behaviour
from .scorer import latency, load_scorer

MOST_ROWS = 50_000  # for the figures that need many passes; the rest see every row

Array = np.ndarray
Answers = tuple[Array, Array, Array]  # truth, score and decision of the same rows


def evaluate(settings: Settings, root: Path) -> dict[str, Any]:
    """Score the test rows once with the exported files and write everything that follows from it.

    Returns:
        the gate's verdict, as written to reports/gate.json.

    Raises:
        UserError: when train has not run.
    """
    manifest = manifest_at(root / paths.MANIFEST)
    goals, evaluation, seed = settings.goals, settings.modelling.evaluation, settings.project.seed
    # The pictures, their library included, take as long as scoring and the tests of behaviour
    with ThreadPoolExecutor(1) as pool:
        pool.submit(import_module, "matplotlib.figure")
        rows = load(root / paths.SPLITS["test"], inputs(settings))
        y, extra = beside(root / paths.SPLITS["test"], evaluation.slices)
        model, decision = load_scorer(root / paths.MODEL), manifest["decision"]
        ours = _answers(model, rows, y, decision)
        floor = _answers(
            load_scorer(root / paths.BASELINE), rows, y, manifest["baseline"]["decision"]
        )
        primary = measure(goals.metric, *ours)
        points = curves(y, ours[1], decision, goals.costs, settings.data.label)
        drawing = [pool.submit(_draw_curves, root / paths.PLOTS, points)]

        few = sample_rows(len(y), MOST_ROWS, seed)
        seen, part = rows.iloc[few], extra.iloc[few]
        ours_few, floor_few = _at(ours, few), _at(floor, few)
        weights = resample(len(few), goals.interval.resamples, seed)
        drawn = measure(goals.metric, *ours_few, weights)
        low, high = interval(drawn, goals.interval.level)
        floor_drawn = measure(goals.metric, *floor_few, weights)
        margin = compared(goals.metric, drawn, floor_drawn, goals.interval)
        least, level = evaluation.min_slice_rows, goals.interval.level
        parts = behaviour.slices(part, goals.metric, ours_few, weights, least, level)
        drawing.append(pool.submit(_draw_slices, root / paths.PLOTS, parts, goals.metric, primary))
        paradoxes = behaviour.simpson(part, seen, goals.metric, ours_few, floor_few, least)
        tested, expectations = _behaviour(settings, model, seen, ours_few, decision)
        for one in drawing:
            one.result()
    worst, keeps = min(
        ((name, one["keeps_high"]) for name, one in _judged(parts)),
        key=lambda pair: pair[1],
        default=(None, None),
    )
    tested["slices"] = None if keeps is None else Figure(keeps)
    tested |= _told(settings, ours, ours_few, weights, decision)
    production = _against_production(settings, root, rows, ours)
    speed = latency(root / paths.MODEL, rows)
    if goals.targets.latency_p99_ms and speed["p99_ms"] > goals.targets.latency_p99_ms:
        speed = latency(
            root / paths.MODEL, rows
        )  # a second look, before a busy machine is believed
    lead = gain(goals.metric, primary, measure(goals.metric, *floor))
    gate = judge(
        goals,
        {
            **tested,
            "invariance": tested["invariance"] or _untested(settings),
            "metric": Figure(primary, low, high, len(few)),
            "margin_over_baseline": Figure(lead, margin["low"], margin["high"], len(few)),
            "loss_to_production": Figure(production["high"]) if production else None,
            "worst_slice": tested["slices"],
            "calibration_error": tested["calibration"],
            "latency_p99_ms": Figure(speed["p99_ms"]),
        },
    )
    gate["model"] = manifest["sha256"]
    report(
        root,
        "metrics",
        {
            "rows": len(y),
            "primary": {"name": goals.metric, "value": primary, "low": low, "high": high},
            "also": {name: measure(name, *ours) for name in goals.also},
            "baseline": {
                "name": manifest["baseline"]["name"],
                "value": measure(goals.metric, *floor),
                **margin,
            },
            "production": production,
            "value": {
                "per_row": float(value(y, ours[2], goals.costs).mean()),
                "baseline_per_row": float(value(y, floor[2], goals.costs).mean()),
                "decision": decision,
            },
            "classes": _by_class(settings, ours) if problem.WIDE else [],
            "slices": parts,
            "simpson": paradoxes,
            "behaviour": behaviour.summary(
                {name: None if one is None else one.value for name, one in tested.items()}, worst
            ),
            "expectations": {name: figure.value for name, figure in expectations.items()},
            "latency": speed,
        },
    )
    return report(root, "gate", gate)


def _by_class(settings: Settings, answers: Answers) -> list[dict[str, Any]]:
    """Each class against all others: rows, recall, precision, the gap between its score and outcomes, and
    how often each class was decided on where this one was true."""
    y, score, decided = answers
    label, level, found = settings.data.label, settings.goals.interval.level, []
    names = dict(enumerate(problem_data.named(label)))
    for place, name in names.items():
        true, said = y == place, decided == place
        right = int((true & said).sum())
        gap = calibration(true.astype(np.float64), score[:, place], level)
        found.append(
            {
                "class": name,
                "rows": int(true.sum()),
                "recall": right / max(1, int(true.sum())),
                "precision": right / max(1, int(said.sum())),
                "calibration": gap.value,
                "decided": {
                    other: int((true & (decided == at)).sum()) for at, other in names.items()
                },
            }
        )
    return found


def manifest_at(path: Path) -> dict[str, Any]:
    """What a manifest says; UserError where there is none."""
    return dict(read_json(path))


def beside(path: Path, columns: tuple[str, ...]) -> tuple[Array, pd.DataFrame]:
    """The label and the slice columns of a part, rows in the file's order."""
    names = ", ".join(map(quoted, dict.fromkeys(columns)))
    query = f"SELECT _y{', ' + names if names else ''} FROM read_parquet(?)"
    frame = duckdb.execute(query, [str(path)]).df()
    return frame.pop("_y").to_numpy(np.float64), frame


def _answers(model: Scorer, rows: pd.DataFrame, y: Array, decision: Any) -> Answers:
    score = model.score(rows)
    return y, score, decide(score, decision)


def _at(answers: Answers, rows: Array) -> Answers:
    truth, score, decided = answers
    return truth[rows], score[rows], decided[rows]


def _judged(parts: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The slices that are large enough to have a metric, under the names that readers see."""
    for column, entries in parts.items():
        for name, entry in entries.items():
            if entry["metric"] is not None:
                yield f"{column} = {name}", entry


def _behaviour(
    settings: Settings, model: Scorer, rows: pd.DataFrame, answers: Answers, decision: Any
) -> tuple[dict[str, Figure | None], dict[str, Figure]]:
    """The tests that score changed rows, and what each expectation gave."""
    evaluation, seed = settings.modelling.evaluation, settings.project.seed
    level, (y, before, _) = settings.goals.interval.level, answers
    shares = behaviour.direction(
        model.score, rows, before, y, evaluation.expectations, settings.data.label, level
    )
    moved = behaviour.perturbation(
        model.score, rows, before, y, decision, evaluation.perturbation, seed, level
    )
    changed = behaviour.invariance(model.score, rows, before, y, evaluation.sensitive)
    return {
        "perturbation": moved,
        "invariance": None if changed is None else Figure(changed),
        "direction": max(shares.values(), key=lambda one: one.value, default=None),
    }, shares


def _untested(settings: Settings) -> str | None:
    """Why no sensitive column could be changed."""
    if not settings.modelling.evaluation.sensitive:
        return None
    return "not a feature, nothing to test"


def _told(
    settings: Settings, answers: Answers, few: Answers, weights: Array, decision: Any
) -> dict[str, Figure | None]:
    """Whether scores can be taken at their word, and whether the surer half is the better one.

    Args:
        few: the rows that the weights are for.
    """
    level, share = settings.goals.interval.level, aimed_quantile(settings.goals)
    sure, rows = confidence_gain(*answers, decision), len(few[0])
    y, score, decided = answers
    told: dict[str, Figure | None] = {
        "calibration": calibration(came(y, decided), claim(score, decided), level, share),
        "confidence": None,
    }
    if sure is not None:
        draws = confidence_gain(*few, decision, weights)
        told["confidence"] = Figure.of_draws(sure, draws, level, rows)
    return told


def in_production(
    settings: Settings, root: Path, rows: pd.DataFrame
) -> tuple[dict[str, Any], pd.DataFrame, Array] | None:
    """The model in production, and the test rows for it; None where nothing is in production.

    Args:
        rows: the test rows as the new model takes them.

    Returns:
        its manifest, the n test rows as it takes them, and on which of them it was fitted, shape (n,).

    Raises:
        UserError: when the data no longer has a column that it takes.
    """
    folder, test = verified(root, paths.PRODUCTION), root / paths.SPLITS["test"]
    if not (folder / paths.MODEL_FILE).is_file():
        return None
    old = manifest_at(folder / paths.MANIFEST_FILE)
    there = {name: column.type for name, column in stored(settings).items()}
    takes = {one["name"]: one["type"] for one in old["inputs"]}
    missing = sorted(name for name, type_ in takes.items() if there.get(name) != type_)
    kind = settings.project.problem
    if not missing and problem.WIDE and old["problem"] == kind:
        before, here = old["label_values"], problem_data.named(settings.data.label)
        if before != here:
            raise UserError(
                f"{folder}: tells {', '.join(before)} apart, and data.label names {', '.join(here)}; "
                f"remove the folder and {paths.PRODUCTION}.dvc to start afresh"
            )
    if missing or old["problem"] != kind:
        raise UserError(
            f"{folder}: takes columns that the data no longer has ({', '.join(missing)}); "
            f"remove the folder and {paths.PRODUCTION}.dvc to start afresh"
        )
    if not takes.items() <= inputs(settings).items():  # the new model does without one of them
        rows = load(test, takes)
    fitted = duckdb.execute(
        "SELECT _row_key IN (SELECT _row_key FROM read_parquet(?)) AS fitted FROM read_parquet(?)",
        [str(folder / paths.FITTED_FILE), str(test)],
    ).fetchnumpy()["fitted"]
    return old, rows, np.asarray(fitted)


def _against_production(
    settings: Settings, root: Path, rows: pd.DataFrame, ours: Answers
) -> dict[str, Any] | None:
    """The gain over the model in production, on test rows that it was not fitted on either."""
    there = in_production(settings, root, rows)
    if there is None:
        return None
    (old, rows, fitted), goals = there, settings.goals
    use = np.flatnonzero(~fitted)
    if len(use) < settings.modelling.evaluation.min_slice_rows:
        return None
    use = use[sample_rows(len(use), MOST_ROWS, settings.project.seed)]
    new = _at(ours, use)
    model = load_scorer(root / paths.PRODUCTION / paths.MODEL_FILE)
    theirs = _answers(model, rows.iloc[use], new[0], old["decision"])
    weights = resample(len(use), goals.interval.resamples, settings.project.seed)
    drawn, old_drawn = (measure(goals.metric, *one, weights) for one in (new, theirs))
    gained = compared(goals.metric, drawn, old_drawn, goals.interval)
    return {
        "model": old["sha256"],
        "rows": len(use),
        "value": measure(goals.metric, *theirs),
        **gained,
    }


def _draw_curves(folder: Path, drawn: dict[str, Any]) -> None:
    """Each curve as JSON points and as PNG."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, curve in drawn.items():
        words = {"title": curve["title"], "xlabel": curve["x"], "ylabel": curve["y"]}
        with _picture(folder / name, words, figsize=(6, 4)) as (axes, points):
            for label, (x, height) in curve["series"].items():
                plain = label not in ("model", "cost") and "%" not in label
                axes.plot(x, height, "--" if plain else "-", label=label, alpha=0.6 if plain else 1)
                points += [
                    {"series": label, "x": float(a), "y": float(b)}
                    for a, b in zip(x, height, strict=True)
                ]


def _draw_slices(folder: Path, parts: dict[str, Any], metric: str, overall: float) -> None:
    """The slices as bars, as JSON and as PNG."""
    bars = [(name, one["metric"]) for name, one in _judged(parts)]
    if not bars:
        return
    names, heights = zip(*sorted(bars, key=lambda bar: gain(metric, bar[1], 0.0)), strict=True)
    better = "higher" if METRICS[metric].higher_is_better else "lower"
    words = {"title": f"Slices, worst first ({better} is better)", "xlabel": metric}
    shape = {"figsize": (6, 1.2 + 0.22 * len(bars)), "layout": "constrained"}  # for long names
    with _picture(folder / "slices", words, **shape) as (axes, points):
        axes.barh(names, heights)
        axes.axvline(overall, linestyle="--", color="black", label="all rows")
        axes.invert_yaxis()
        points += [
            {"series": metric, "x": name, "y": height}
            for name, height in zip(names, heights, strict=True)
        ]


@contextmanager
def _picture(path: Path, words: dict[str, str], **shape: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Axes to draw on and points to fill in; both are written when the block ends."""
    from matplotlib.figure import Figure

    points: list[Any] = []
    figure = Figure(**shape)
    axes = figure.subplots()
    yield axes, points
    axes.set(**words)
    axes.legend()
    figure.savefig(f"{path}.png", dpi=100)
    path.with_suffix(".json").write_text(json.dumps(points) + "\n", encoding="utf-8", newline="\n")
