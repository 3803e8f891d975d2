"""The exported model on the test rows: metrics, behaviour, comparison, pictures and the gate."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from statistics import NormalDist
from typing import Any, NotRequired, TypedDict

import duckdb
import numpy as np
import pandas as pd

from .. import paths, problem
from ..data.schema import name as quoted
from ..data.schema import stored
from ..data.source import report
from ..features.catalogue import inputs, load, load_truth, load_weight
from ..goals.gate import (
    Figure,
    Gain,
    Gate,
    calibration,
    effective_rows,
    gain,
    gain_interval,
    interval,
    judge,
    measure,
    representatives,
    resample,
    sample_rows,
)
from ..images import original_pixels
from ..model import Scorer, normalized
from ..parts import optional_module
from ..problem import data as problem_data
from ..problem.features import judged
from ..problem.goals import (
    OWN_TABLES,
    aimed_quantile,
    came,
    claim,
    confidence_gain,
    curves,
    decide,
    own_figures,
    unit,
)
from ..problem.goals import value as value_of
from ..repository import verified
from ..settings import Settings, UserError, read_json
from . import behaviour
from .behaviour import Answers, Slices
from .scorer import latency, load_scorer

MAX_ROWS = 50_000  # for the figures that need many passes; the rest see every row
MIN_SCRIPT_SHARE = 0.01  # of a column's texts, in other scripts than the commonest
SCRIPT_CHARACTERS = 500  # of a text, by which its script is told
# Of a column's values: how large each is, and in what unit
SIZED: dict[str, tuple[Callable[[str], int], str]] = {
    "text": (len, "characters"),
    "image": (original_pixels, "pixels"),
}
LETTER = re.compile("[A-Za-z]")
SCRIPTS = {"Cjk": "Han", **dict.fromkeys(("Hiragana", "Katakana"), "Japanese")}

Array = np.ndarray


class Production(Gain):
    """The new model's gain over the one in production, whose metric is `value`, on the same rows."""

    model: str  # sha256
    rows: int
    value: float


class Table(TypedDict):
    """What only this kind of problem reports: rows of figures by name, for the card too."""

    title: str
    note: str
    rows: list[dict[str, Any]]


class Metrics(TypedDict):
    """reports/metrics.json: what was measured on the test rows."""

    rows: int
    effective_rows: NotRequired[
        float
    ]  # where rows do not count alike: as many alike ones tell as much (Kish)
    primary: dict[str, Any]
    also: dict[str, float]
    baseline: dict[str, Any]
    production: Production | None
    value: dict[str, Any]
    classes: list[dict[str, Any]]
    tables: dict[str, Table]
    slices: Slices
    simpson: list[str]
    behaviour: dict[str, dict[str, Any]]
    expectations: dict[str, float]
    latency: dict[str, float]


def evaluate(settings: Settings, root: Path) -> Gate:
    """Score the test rows once with the exported files and write everything that follows from it.

    Returns:
        the gate's verdict, as written to reports/gate.json.

    Raises:
        UserError: when train has not run.
    """
    manifest = read_manifest(root / paths.MANIFEST)
    baseline = manifest["baseline"]
    goals, evaluation, seed = settings.goals, settings.modelling.evaluation, settings.project.seed
    # The pictures, their library included, take as long as scoring and the tests of behaviour
    with ThreadPoolExecutor(1) as pool:
        pool.submit(import_module, "matplotlib.figure")
        rows = load(root / paths.SPLITS["test"], inputs(settings))
        y, extra = label_and_slices(root / paths.SPLITS["test"], slice_kinds(settings))
        test_part = rows, y
        rows, y, sources, basis = judged(rows, y, seed)
        extra = extra.iloc[sources]
        row_weight = load_weight(root / paths.SPLITS["test"])
        alike = representatives(len(y), row_weight)
        model, decision = load_scorer(root / paths.MODEL), manifest["decision"]
        ours = _answers(model, rows, y, decision)
        floor = _answers(load_scorer(root / paths.BASELINE), rows, y, baseline["decision"])
        primary, floor_metric = (measure(goals.metric, *a, row_weight) for a in (ours, floor))
        label = settings.data.label
        points = curves(
            y[alike], ours[1][alike], decision, goals.costs, label, manifest["interval"]
        )
        points |= _label_delays(root)
        drawings = [pool.submit(_draw_curves, root / paths.PLOTS, points)]

        sample = sample_rows(len(y), MAX_ROWS, seed, unit(y))
        inputs_sample, slices_sample = rows.iloc[sample], extra.iloc[sample]
        ours_sample, floor_sample = _take(ours, sample), _take(floor, sample)
        sample_weight = None if row_weight is None else row_weight[sample]
        weights = resample(
            len(sample), goals.interval.resamples, seed, unit(y[sample]), sample_weight
        )
        draws = measure(goals.metric, *ours_sample, weights)
        low, high = interval(draws, goals.interval.level)
        floor_draws = measure(goals.metric, *floor_sample, weights)
        margin = gain_interval(goals.metric, draws, floor_draws, goals.interval)
        min_rows, level = evaluation.min_slice_rows, goals.interval.level
        parts = behaviour.slices(
            slices_sample, goals.metric, ours_sample, weights, min_rows, level, sample_weight
        )
        drawings.append(pool.submit(_draw_slices, root / paths.PLOTS, parts, goals.metric, primary))
        paradoxes = behaviour.simpson(
            slices_sample, inputs_sample, goals.metric, ours_sample, floor_sample, min_rows
        )
        tested, expectations = _behaviour(settings, model, inputs_sample, ours_sample, decision)
        for drawing in drawings:
            drawing.result()
    worst, keeps = min(
        ((name, entry["keeps_high"]) for name, entry in _measured_slices(parts)),
        key=lambda pair: pair[1],
        default=(None, None),
    )
    tested["slices"] = None if keeps is None else Figure(keeps)
    tested |= _reliability(settings, ours, ours_sample, weights, decision, row_weight)
    production = _against_production(settings, root, test_part, ours)
    speed = latency(root / paths.MODEL, rows)
    if goals.targets.latency_p99_ms and speed["p99_ms"] > goals.targets.latency_p99_ms:
        speed = latency(root / paths.MODEL, rows)  # before a busy machine is believed
    lead = gain(goals.metric, primary, floor_metric)
    governance = optional_module("governance.figures")
    signed = governance.figures(settings, root, speed["p50_ms"] / 1000) if governance else ({}, {})
    figures = {
        **signed[0],
        **tested,
        "invariance": tested["invariance"] or _untested_reason(settings),
        "metric": Figure(primary, low, high, len(sample)),
        "margin_over_baseline": Figure(lead, margin["low"], margin["high"], len(sample)),
        "loss_to_production": Figure(production["high"]) if production else None,
        "worst_slice": tested["slices"],
        "calibration_error": tested["calibration"],
        "latency_p99_ms": Figure(speed["p99_ms"]),
        **_labels_judged(root, level),
        **({"stability": Figure(**manifest["stability"])} if "stability" in manifest else {}),
        **{
            target: Figure(value)
            for target, value in own_figures(y, ours[1], manifest["interval"]).items()
        },
    }
    metrics: Metrics = {
        "rows": len(y),
        "primary": {"name": goals.metric, "value": primary, "low": low, "high": high},
        "also": {name: measure(name, *ours, row_weight) for name in goals.also},
        "baseline": {"name": baseline["name"], "value": floor_metric, **margin},
        "production": production,
        "value": {
            "per_row": _mean_value(settings, ours, row_weight),
            "baseline_per_row": _mean_value(settings, floor, row_weight),
            "decision": decision,
        },
        "classes": _by_class(settings, ours, row_weight) if problem.WIDE else [],
        "tables": _own_tables(settings, root, ours, floor),
        "slices": parts,
        "simpson": paradoxes,
        "behaviour": behaviour.summary(tested, worst),
        "expectations": {name: figure.value for name, figure in expectations.items()},
        "latency": speed,
    }
    if signed[1]:
        report(root, "governance", signed[1])
    if row_weight is not None:
        metrics["effective_rows"] = round(effective_rows(row_weight), 1)
    report(root, "metrics", metrics)
    gate = judge(goals, figures, basis)
    gate["model"] = manifest["sha256"]
    return report(root, "gate", gate)


def _mean_value(settings: Settings, answers: Answers, row_weight: Array | None) -> float:
    truth, _, decided = answers
    return float(np.average(value_of(truth, decided, settings.goals.costs), weights=row_weight))


def _by_class(
    settings: Settings, answers: Answers, row_weight: Array | None
) -> list[dict[str, Any]]:
    """Each class against all others: rows, recall, precision, the gap between its score and outcomes, and
    how often each class was decided on where this one was true."""
    y, score, decided = answers
    level, classes = settings.goals.interval.level, []
    counts = np.ones(len(y)) if row_weight is None else row_weight
    names = dict(enumerate(problem_data.named(settings.data.label)))
    for code, name in names.items():
        true, predicted = y == code, decided == code
        right = counts[true & predicted].sum()
        gap = calibration(true.astype(np.float64), score[:, code], level, weight=row_weight)
        decisions = {label: int((true & (decided == i)).sum()) for i, label in names.items()}
        classes.append(
            {
                "class": name,
                "rows": int(true.sum()),
                "recall": float(right / (counts[true].sum() or 1)),
                "precision": float(right / (counts[predicted].sum() or 1)),
                "calibration": gap.value,
                "decided": decisions,
            }
        )
    return classes


def _own_tables(
    settings: Settings, root: Path, ours: Answers, baseline: Answers
) -> dict[str, Table]:
    """The tables that only this kind of problem has."""
    if OWN_TABLES is None:
        return {}

    def read(columns: Sequence[str]) -> pd.DataFrame:
        query = f"SELECT {', '.join(map(quoted, columns))} FROM read_parquet(?)"
        return duckdb.execute(query, [str(root / paths.SPLITS["test"])]).df()

    return dict(OWN_TABLES(settings, read, ours, baseline))


def read_manifest(path: Path) -> dict[str, Any]:
    """The content of a model's manifest.

    Raises:
        UserError: when the file is not there, or is not JSON.
    """
    return dict(read_json(path))


def slice_kinds(settings: Settings) -> dict[str, str]:
    """The columns that rows are sliced by, and their types."""
    columns = settings.data.schema_.columns
    return {name: columns[name].type for name in settings.modelling.evaluation.slices}


def label_and_slices(path: Path, kinds: Mapping[str, str]) -> tuple[Array, pd.DataFrame]:
    """The truth of a part's n rows, as `load_truth` has it, and their slice columns, in the file's order.

    Args:
        kinds: as `slice_kinds` gives them; a text's slice is its length, an image's the pixels of its original, by the
            quarters of the training rows, which lie beside the file. In a column of its own stands a text's script,
            where they have several.
    """
    names = ", ".join(map(quoted, kinds))
    y = load_truth(path)
    query = f"SELECT {names or 'NULL AS _none'} FROM read_parquet(?)"
    frame = duckdb.execute(query, [str(path)]).df()[[*kinds]]
    for column in (name for name, kind in kinds.items() if kind in SIZED):
        train = path.with_name(Path(paths.SPLITS["train"]).name)
        query = f"SELECT {quoted(column)} FROM read_parquet(?)"
        of_training = duckdb.execute(query, [str(train)]).df()[column]
        values = frame[column].fillna("")
        frame[column] = _size_names(values, of_training.fillna(""), *SIZED[kinds[column]])
        scripts = values.map(script) if kinds[column] == "text" else values[:0]
        of_letters = scripts[scripts != ""]
        if (of_letters != of_letters.mode().get(0)).mean() >= MIN_SCRIPT_SHARE:
            frame[f"{column}: script"] = scripts
    return y, frame


def _size_names(
    values: pd.Series, of_training: pd.Series, size: Callable[[str], int], unit: str
) -> Array:
    """Which quarter of the training values each of n texts or images is as large as, in words; empty for none.

    Args:
        size: of a value that is not empty.
        unit: of the size.
    """
    measured = [size(value) for value in of_training if value]
    quarters = np.quantile(measured or [0], [0.25, 0.5, 0.75], method="inverted_cdf")
    ends = sorted({int(end) for end in quarters}) if measured else []
    starts = [end + 1 for end in ends]
    names = [f"{start:,} to {end:,} {unit}" for start, end in zip(starts, ends[1:], strict=False)]
    names = [f"up to {end:,} {unit}" for end in ends[:1]] + names
    names += [f"over {end:,} {unit}" for end in ends[-1:]] or ["any size"]
    return np.array(
        [names[np.searchsorted(ends, size(value))] if value else "" for value in values], object
    )


def script(text: str) -> str:
    """The script of most letters of a text, as Unicode names it: Latin, Cyrillic, Han; empty for no letters.

    Where Japanese syllables are, Han letters count as Japanese too.
    """
    if text.isascii():
        return "Latin" if LETTER.search(text) else ""
    scripts = Counter(map(_letter_script, normalized(text)[:SCRIPT_CHARACTERS]))
    del scripts[""]
    if scripts["Japanese"]:
        scripts["Japanese"] += scripts.pop("Han", 0)
    return max(scripts, key=lambda name: (scripts[name], name), default="")


@lru_cache(maxsize=10_000)
def _letter_script(character: str) -> str:
    if not character.isalpha():
        return ""
    first = re.split("[ -]", unicodedata.name(character, ""))[0].capitalize()
    return SCRIPTS.get(first, first)


def _answers(model: Scorer, rows: pd.DataFrame, y: Array, decision: Any) -> Answers:
    score = model.score(rows)
    return y, score, decide(score, decision)


def _take(answers: Answers, rows: Array) -> Answers:
    truth, score, decided = answers
    return truth[rows], score[rows], decided[rows]


def _measured_slices(parts: Slices) -> Iterator[tuple[str, behaviour.Slice]]:
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
    columns, share = inputs(settings), evaluation.perturbation
    moved = behaviour.perturbation(
        model.score, rows, columns, before, y, decision, share, seed, level
    )
    changed = behaviour.invariance(model.score, rows, before, y, evaluation.sensitive)
    return {
        "perturbation": moved,
        "invariance": None if changed is None else Figure(changed),
        "direction": max(shares.values(), key=lambda figure: figure.value, default=None),
    }, shares


def _untested_reason(settings: Settings) -> str | None:
    """Why no sensitive column could be changed."""
    sensitive = settings.modelling.evaluation.sensitive
    return "not a feature, nothing to test" if sensitive else None


def _reliability(
    settings: Settings,
    answers: Answers,
    sample: Answers,
    weights: Array,
    decision: Any,
    row_weight: Array | None,
) -> dict[str, Figure | None]:
    """Whether scores can be taken at their word, and whether the surer half is the better one.

    Args:
        sample: the answers of the rows that the weights are for.
        row_weight: how much each row of the answers counts, shape (n,); None: all alike.
    """
    level, share = settings.goals.interval.level, aimed_quantile(settings.goals)
    counts = None if row_weight is None else row_weight[None]
    sure, rows = confidence_gain(*answers, decision, counts), len(sample[0])
    y, score, decided = answers
    figures: dict[str, Figure | None] = {"calibration": None, "confidence": None}
    if problem.CLAIMS:
        outcomes = came(y, decided), claim(score, decided)
        figures["calibration"] = calibration(*outcomes, level, share, weight=row_weight)
    if sure is not None:
        draws = confidence_gain(*sample, decision, weights)
        figures["confidence"] = Figure.of_draws(float(np.mean(sure)), draws, level, rows)
    return figures


def in_production(
    settings: Settings, root: Path, rows: pd.DataFrame
) -> tuple[dict[str, Any], pd.DataFrame, Array] | None:
    """The model in production, and the test rows for it; None where nothing is in production.

    Args:
        rows: the test rows as the new model takes them.

    Returns:
        that model's manifest, the n test rows as it takes them, and whether it was fitted on each,
        bool, shape (n,).

    Raises:
        UserError: when the data no longer has a column that this model takes, or other classes.
    """
    folder, test = verified(root, paths.PRODUCTION), root / paths.SPLITS["test"]
    if not (folder / paths.MODEL_FILE).is_file():
        return None
    old = read_manifest(folder / paths.MANIFEST_FILE)
    types = {name: column.type for name, column in stored(settings).items()}
    takes = {column["name"]: column["type"] for column in old["inputs"]}
    missing = sorted(name for name, type_ in takes.items() if types.get(name) != type_)
    kind = settings.project.problem
    if not missing and problem.WIDE and old["problem"] == kind:
        before, classes = old["label_values"], problem_data.named(settings.data.label)
        if before != classes:
            raise UserError(
                f"{folder}: tells {', '.join(before)} apart, and data.label names {', '.join(classes)}; "
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
    settings: Settings, root: Path, test_part: tuple[pd.DataFrame, Array], ours: Answers
) -> Production | None:
    """The gain over the model in production, on test rows that it was not fitted on either.

    Args:
        test_part: the test rows and their labels, before others were put among them to judge by.
    """
    production = in_production(settings, root, test_part[0])
    if production is None:
        return None
    (old, rows, fitted), goals = production, settings.goals
    rows, _, sources, _ = judged(rows, test_part[1], settings.project.seed)
    fitted = fitted[sources]
    unfitted = np.flatnonzero(~fitted)
    if len(unfitted) < settings.modelling.evaluation.min_slice_rows:
        return None
    units = unit(ours[0][unfitted])
    unfitted = unfitted[sample_rows(len(unfitted), MAX_ROWS, settings.project.seed, units)]
    new = _take(ours, unfitted)
    model = load_scorer(root / paths.PRODUCTION / paths.MODEL_FILE)
    theirs = _answers(model, rows.iloc[unfitted], new[0], old["decision"])
    resamples, seed = goals.interval.resamples, settings.project.seed
    row_weight = load_weight(root / paths.SPLITS["test"])
    row_weight = None if row_weight is None else row_weight[unfitted]
    weights = resample(len(unfitted), resamples, seed, unit(new[0]), row_weight)
    draws, old_draws = (measure(goals.metric, *answers, weights) for answers in (new, theirs))
    return {
        "model": old["sha256"],
        "rows": len(unfitted),
        "value": measure(goals.metric, *theirs, row_weight),
        **gain_interval(goals.metric, draws, old_draws, goals.interval),
    }


def _label_delays(root: Path) -> dict[str, Any]:
    """The picture of how many labels came after how many days, as `curves` gives pictures; none where nothing tells."""
    path = root / paths.LABEL_REPORT
    arrivals = read_json(path).get("arrivals") if path.is_file() else None
    if arrivals is None:
        return {}
    shares = [float(share) for share in arrivals["days"]]
    proposed = [[arrivals["proposed_days"]] * 2, [0.0, 1.0]]
    series = {
        "labels: 5 % to 99 %": [[*arrivals["days"].values()], shares],
        "days in which 95 % came": proposed,
    }
    title = "Labels that had come, by days after the event"
    return {"label_delay": (title, "days after the event", "share of the labels", series)}


def _labels_judged(root: Path, level: float) -> dict[str, Figure | str | None]:
    """What the stage `label` says of people's labels, as the gate reads it: how far they agree, and what they cover.

    Args:
        level: of the interval of the agreement.
    """
    path = root / paths.LABEL_REPORT
    report = read_json(path) if path.is_file() else {}
    if not report.get("votes"):
        return dict.fromkeys(("label_agreement", "label_coverage"), "nobody has voted")
    alpha, coverage = report.get("agreement"), report.get("coverage")
    agreement: Figure | str = "no row has two votes, or all votes are equal"
    if alpha:
        half = NormalDist().inv_cdf((1 + level) / 2) * alpha["error"]
        high = min(1.0, alpha["alpha"] + half)
        agreement = Figure(alpha["alpha"], alpha["alpha"] - half, high, alpha["rows"])
    covered = Figure(coverage["share"]) if coverage else "no column cuts slices"
    return {"label_agreement": agreement, "label_coverage": covered}


def _draw_curves(folder: Path, pictures: dict[str, Any]) -> None:
    """Each picture of `problem.goals.curves` as JSON points and as PNG."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, (title, x_axis, y_axis, curves_by_name) in pictures.items():
        texts = {"title": title, "xlabel": x_axis, "ylabel": y_axis}
        with _picture(folder / name, texts, figsize=(6, 4)) as (axes, points):
            for label, (x, height) in curves_by_name.items():
                plain = label not in ("model", "cost") and "%" not in label
                axes.plot(x, height, "--" if plain else "-", label=label, alpha=0.6 if plain else 1)
                pairs = zip(map(float, x), map(float, height), strict=True)
                points += [{"series": label, "x": a, "y": b} for a, b in pairs]


def _draw_slices(folder: Path, parts: Slices, metric: str, overall: float) -> None:
    """The slices as bars, as JSON and as PNG."""
    bars = [(name, entry["metric"]) for name, entry in _measured_slices(parts)]
    if not bars:
        return
    bars.sort(key=lambda bar: gain(metric, bar[1], 0.0))
    better = "higher" if gain(metric, 1.0, 0.0) > 0 else "lower"
    texts = {"title": f"Slices, worst first ({better} is better)", "xlabel": metric}
    shape = {"figsize": (6, 1.2 + 0.22 * len(bars)), "layout": "constrained"}  # for long names
    with _picture(folder / "slices", texts, **shape) as (axes, points):
        axes.barh(*zip(*bars, strict=True))
        axes.axvline(overall, linestyle="--", color="black", label="all rows")
        axes.invert_yaxis()
        points += [{"series": metric, "x": name, "y": height} for name, height in bars]


@contextmanager
def _picture(path: Path, texts: dict[str, str], **shape: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Axes to draw on and points to fill in; both are written when the block ends."""
    from matplotlib.figure import Figure

    points: list[Any] = []
    figure = Figure(**shape)
    axes = figure.subplots()
    yield axes, points
    axes.set(**texts)
    axes.legend()
    figure.savefig(f"{path}.png", dpi=100)
    path.with_suffix(".json").write_text(json.dumps(points) + "\n", encoding="utf-8", newline="\n")
