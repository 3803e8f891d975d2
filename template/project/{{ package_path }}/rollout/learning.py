"""Silent learning: a linear model beside the one in production that goes on learning from the log's labels.

Each call takes the labelled answers that it has not learnt from, in the order of time. The model first answers a block
of them, by which it is judged (progressive validation; Blum, Kalai and Langford, 1999), and then learns the block.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
from rich.console import Console

from .. import paths
from ..data.schema import name, stored
from ..data.split import row_key
from ..features.catalogue import inputs
from ..goals.gate import Gain, gain_interval, measure, resample
from ..modelling.boosting import Target
from ..modelling.registry import Track, challenge_by
from ..modelling.scorer import load_scorer
from ..problem.goals import aimed_quantile, decide, numeric
from ..records import Unreadable
from ..repository import verified
from ..settings import Settings, UserError, read_json
from .linear import LinearGraph, first_model, write_folder
from .outcomes import outcomes, truth_array
from .replay import model_inputs
from .router import open_router
from .verdict import MIN_SAMPLE

BLOCK = 500  # rows that are answered, and then learnt from together
MAX_WEIGHT = 20.0  # of a drawn decision: a rarer one would count for more rows than are like it
HIDDEN = ("single", "shadow")  # modes of the router in which nobody gets a second model's answers
Array = np.ndarray


class Learning(TypedDict):
    """What one call did: `rows` learnt from, `waiting` for the next, `weighted` of them by the chance of what was
    decided; and on them the metric of the model before it learnt each block, `learner`, and of the one in production,
    `champion`, None where they are too few. `unreadable`: what was left out of the logs."""

    rows: int
    waiting: int
    weighted: int
    learner: float | None
    champion: float | None
    gain: Gain | None
    unreadable: list[str]


def learn(settings: Settings, root: Path, track: Track = list) -> Learning:
    """Let the model that goes on learning take new labels, and put it in models/challenger; it begins as the linear
    candidate, fitted to the training rows. Without a new label nothing is written.

    Args:
        track: as `registry.challenge` takes it.

    Raises:
        UserError: when nothing is in production or it reads other inputs, when the log is empty, when another model
            is the challenger, or when users would get this one's answers.
    """
    production = verified(root, paths.PRODUCTION)
    basis = _basis(settings, root, production)
    unreadable: list[Unreadable] = []
    logged, waiting = _new_rows(settings, root, basis, unreadable)
    rows, y = model_inputs(logged, settings), truth_array(logged)
    report = Learning(
        rows=len(rows), waiting=waiting, weighted=0, learner=None, champion=None, gain=None,
        unreadable=[str(item) for item in unreadable],
    )  # fmt: skip
    if rows.empty:
        return report
    if basis is None:
        model, manifest = first_model(settings, root, read_json(production / paths.MANIFEST_FILE))
    else:
        model = (basis / paths.MODEL_FILE).read_bytes()
        manifest = read_json(basis / paths.MANIFEST_FILE)
    graph, state = LinearGraph(model, aimed_quantile(settings.goals)), manifest["learning"]
    chance = logged["_decision_propensity"].fillna(1.0).to_numpy(np.float64)
    weight, labels = 1 / np.maximum(chance, 1 / MAX_WEIGHT), numeric(y)
    weight *= np.array([state["class_weight"].get(str(int(label)), 1.0) for label in labels])
    scores = []
    for start in range(0, len(y), BLOCK):
        part = slice(start, start + BLOCK)
        scores.append(load_scorer(graph.content()).score(rows.iloc[part]))
        graph.learn(
            rows.iloc[part], labels[part], weight[part], Target(**state["target"]),
            settings.rollout.learning.memory_rows,
        )  # fmt: skip
    report["weighted"] = int((chance < 1).sum())
    sides = [(np.concatenate(scores), manifest["decision"])]
    champion = read_json(production / paths.MANIFEST_FILE)
    sides += [(load_scorer(production / paths.MODEL_FILE).score(rows), champion["decision"])]
    _compare(report, y, [(score, decide(score, by)) for score, by in sides], settings)
    judged = {"gain": report["gain"], "champion": champion["sha256"]}  # as `promote` asks for
    manifest["learning"] |= {"rows": state["rows"] + len(rows), **judged}
    manifest["trained_rows"] += len(rows)
    newest = logged["_time"].max().isoformat()
    manifest["trained_until"] = max(manifest["trained_until"] or "", newest)

    def fill(folder: Path) -> None:
        write_folder(folder, graph.content(), manifest, logged, basis or production, settings, root)

    challenge_by(root, fill, track)
    return report


def _basis(settings: Settings, root: Path, production: Path) -> Path | None:
    """The folder of the model that goes on learning: the challenger's, or production's once it was promoted; None:
    there is none that reads the inputs of today."""
    if not production.is_dir():
        raise UserError(f"{paths.PRODUCTION} is not here: nothing answers yet, use `promote`")
    columns = set(inputs(settings).items())
    if changes := _inputs_of(production) ^ columns:
        raise UserError(
            f"{paths.PRODUCTION}: the model reads other inputs than features.catalogue has now "
            f"({min(changes)[0]}); `run`, then `promote`"
        )
    if (mode := open_router(settings, root).settings.mode) not in HIDDEN:
        raise UserError(
            f"rollout.router.mode: in {mode} users get answers of the challenger, which `learn` would change; "
            "`rollout mode=shadow` first"
        )
    challenger = verified(root, paths.CHALLENGER)
    if challenger.is_dir() and not _learns(challenger):
        raise UserError(
            f"{paths.CHALLENGER} holds a model that `challenge` put there: `promote --challenger`, or delete that "
            f"folder and {paths.CHALLENGER}.dvc"
        )
    folders = [folder for folder in (challenger, production) if folder.is_dir()]
    return next((f for f in folders if _learns(f) and _inputs_of(f) == columns), None)


def _learns(folder: Path) -> bool:
    return "learning" in read_json(folder / paths.MANIFEST_FILE)


def _inputs_of(folder: Path) -> set[tuple[str, str]]:
    entries = read_json(folder / paths.MANIFEST_FILE)["inputs"]
    return {(entry["name"], entry["type"]) for entry in entries}


def _new_rows(
    settings: Settings, root: Path, basis: Path | None, unreadable: list[Unreadable]
) -> tuple[pd.DataFrame, int]:
    """Labelled answers that were not learnt from, the oldest first, and how many more there are.

    Without near-duplicates of rows that judge models, and of those
    that a model which begins anew is fitted to; without rows with gaps that no model learns from.
    """
    parts = [part for part in paths.SPLITS if basis is None or part != "train"]
    files = [str(root / paths.SPLITS[part]) for part in parts]
    learnt = [str(basis / paths.LEARNT_FILE)] if basis else []
    conditions = ["_y IS NOT NULL", f"_row_key NOT IN (SELECT _row_key FROM read_parquet({files}))"]
    conditions += [f"_digest NOT IN (SELECT _digest FROM read_parquet({learnt}))"] * bool(learnt)
    for column in settings.features.delete_rows:
        conditions.append(f"nullif(CAST({name(column)} AS VARCHAR), '') IS NOT NULL")
    with outcomes(settings, root, *stored(settings), unreadable=unreadable) as sql:
        if not sql.execute("SELECT count(*) FROM answers").fetchall()[0][0]:
            raise UserError(f"{paths.PREDICTIONS} holds no answers of a model: `serve` writes them")
        rows = sql.execute(
            f"WITH keyed AS (SELECT *, {row_key(settings)} AS _row_key, md5_number_lower(_id) AS _digest FROM answers "
            "WHERE _answered "
            "QUALIFY row_number() OVER (PARTITION BY _id ORDER BY _time) = 1) "
            f"SELECT *, count(*) OVER () AS _count FROM keyed WHERE {' AND '.join(conditions)} "
            f"ORDER BY _time, _id LIMIT {settings.rollout.learning.rows}"
        ).df()
    return rows, int(rows["_count"].max()) - len(rows) if len(rows) else 0


def _compare(
    report: Learning, y: Array, sides: list[tuple[Array, Array]], settings: Settings
) -> None:
    """Fill in the metric of both models, each by its scores and what it decides, and the paired interval of the gain."""
    goals = settings.goals
    figures = [measure(goals.metric, y, *side) for side in sides]
    if len(y) >= MIN_SAMPLE and np.isfinite(figures).all():
        weights = resample(len(y), goals.interval.resamples, settings.project.seed)
        learner, champion = (measure(goals.metric, y, *side, weights) for side in sides)
        report["learner"], report["champion"] = figures
        report["gain"] = gain_interval(goals.metric, learner, champion, goals.interval)


def show(report: Learning, settings: Settings, console: Console) -> None:
    """Print what was learnt from, and how the model compares with the one in production on answers new to both."""
    lines = [f"not readable: {item}" for item in report["unreadable"]]
    if not report["rows"]:
        lines.append("learn: no label that is new; POST /feedback brings them. Nothing is changed")
    else:
        remaining = f"; {report['waiting']:,} wait for the next call" if report["waiting"] else ""
        drawn = f", {report['weighted']:,} of them weighted by the chance of what was decided"
        drawn = drawn if report["weighted"] else ""
        lines.append(
            f"learn: {report['rows']:,} labelled answers are learnt from{drawn}{remaining}"
        )
        lines.append(_figures(report, settings.goals.metric))
    for line in lines:
        console.print(line, markup=False)


def _figures(report: Learning, metric: str) -> str:
    gain = report["gain"]
    if gain is None:
        return f"learn: too few to compare by {metric}: {MIN_SAMPLE} answers with more than one label would do"
    return (
        f"learn: {metric} before it learnt them {report['learner']:.4g}, production on the same "
        f"{report['champion']:.4g}: gain {gain['gain']:+.4g} (between {gain['low']:+.4g} and {gain['high']:+.4g}); "
        f"`promote --challenger` {'takes it' if gain['low'] > 0 else 'waits for a surer gain'}"
    )
