"""Drills: inject a failure into a copy, and see which alarm rings and how soon.

An alarm that was never heard is a guess. The shifts are drawn from the test rows, so that each is of
one known kind; a broken or slow model is put into a copy that is then really served.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import duckdb
import numpy as np
import pandas as pd
from prometheus_client.parser import text_string_to_metric_families

from .. import paths, problem
from ..agreements import SUMMED
from ..data.label import is_labelled
from ..data.schema import TYPES, stored, text
from ..data.schema import name as quoted
from ..features.catalogue import as_numbers, inputs, load, load_truth
from ..model import Model
from ..modelling.scorer import load_scorer
from ..parts import part_hint, part_module, parts_here
from ..problem import data as problem_data
from ..problem import monitoring as problem_monitoring
from ..problem.decision import table
from ..problem.goals import claim, decide, numeric
from ..records import SCORE_COLUMN
from ..scoring.rules import are_modelled
from ..settings import Settings, UserError, read_json
from .edge_cases import edge_cases, landed_in_files, landed_online, summary
from .monitor import Report, monitor
from .reference import Profile, read

CLEAN_WINDOWS, SHIFTED_WINDOWS = 5, 3  # before and after the change
WINDOW_ROWS = 2000
ROUNDS = 8  # of a feedback loop
BEGIN = datetime(2026, 1, 5)
DEADLINE = 90.0  # seconds that a served drill may take
SLOW_SIZE = 3000  # of the matrices that make a model slow: a second on a quick core
BURN_RATE = 14.4  # times the budget, as in ops/prometheus/rules.yml
EDGES = "edge-cases"
OVERSIGHT = part_module("governance.drills")  # None: nobody stops the model or excludes rows
ALERTS = {"model-down": "ModelDown", "slow-model": "ModelNotAnsweringFast"}

Array = np.ndarray


class Outcome(TypedDict):
    """What came of a drill, or of all that are left out for the same reason."""

    drill: str
    fired: bool | None  # None: it was left out
    words: str  # what fired and how soon
    kinds: NotRequired[list[str]]  # of shift, that the windows after the change show
    shares: NotRequired[dict[float, list[float]]]  # of the commonest objects, by exploration


class LoggedWindow(TypedDict):
    """Answers of one window of a log: n rows with their scores and labels."""

    raw: pd.DataFrame  # columns as the schema has them
    y: Array  # shape (n,)
    score: Array  # shape (n,), or (n, classes) where each class has a score
    around: NotRequired[
        Any
    ]  # how far below and above its score each truth may lie, as `Model.bands` gives it
    label: NotRequired[Array]  # shape (n,), as it is fed back, where that is not `y`
    truth: NotRequired[Array]  # of the rows as they stand in the file, as `load_truth` has it


def drill(settings: Settings, root: Path, name: str) -> Iterator[Outcome]:
    """Run one drill, or `all`.

    Yields:
        the outcome of each; of `all`, last, what is left out.

    Raises:
        UserError: when there is no such drill here, or nothing to drill on yet.
    """
    drills = [*SHIFTS, "feedback-loop", EDGES, *ALERTS, *(OVERSIGHT.DRILLS if OVERSIGHT else ())]
    if name not in (*drills, "all"):
        raise UserError(f"drill {name}: no such drill; there are all, {', '.join(drills)}")
    profile = read(root)
    if profile is None or not (root / paths.SPLITS["test"]).is_file():
        raise UserError("drill: no reference or test rows yet: use `run` first")
    left_out = defaultdict(list)
    for chosen in drills if name == "all" else [name]:
        if reason := _reason_left_out(settings, chosen):
            if name != "all":
                raise UserError(f"drill {name}: {reason}")
            left_out[reason].append(chosen)
        elif chosen in SHIFTS:
            yield _run_shift(settings, root, profile, chosen)
        elif chosen in ALERTS:
            yield _run_service(settings, root, chosen)
        elif chosen == EDGES:
            yield _run_edges(settings, root)
        elif OVERSIGHT and chosen in OVERSIGHT.DRILLS:
            yield _run_oversight(settings, root, chosen)
        else:
            yield _run_loop(settings, root, profile)
    for reason, names in left_out.items():
        yield Outcome(drill=", ".join(names), fired=None, words=f"left out: {reason}")


def _reason_left_out(settings: Settings, name: str) -> str:
    """Why this project has nothing to drill; empty when it has."""
    if reason := problem.LEFT_OUT.get(f"drill {name}"):
        return reason
    if name in OWN_DRILLS:
        return str(problem_monitoring.OWN_SHIFTS[OWN_DRILLS[name]][4](settings.data.label))
    served = (*ALERTS, *(OVERSIGHT.DRILLS if OVERSIGHT else ()))
    if name in served and "serving" not in parts_here():
        return f"the service {part_hint('serving')}"
    if name == "feedback-loop" and not settings.monitoring.popularity:
        return "monitoring.popularity names no column"
    return ""


class Rows:
    """The n test rows that a model is asked about, from which logs are drawn.

    Attributes:
        raw: the columns as the schema has them, without the label; inputs: as the model takes them.
        y: labels, shape (n,); score: of the model in production, else of the trained one, shape (n,)
            or (n, classes).
        claimed: by the scores of each row, what its outcome should be, shape (n,).
    """

    def __init__(self, settings: Settings, root: Path) -> None:
        path = root / paths.SPLITS["test"]
        label = {settings.data.label.column, settings.data.label.time}
        self.label = settings.data.label
        self.columns = [column for column in stored(settings) if column not in label]
        names = ", ".join(map(quoted, self.columns))
        raw = duckdb.execute(f"SELECT {names} FROM read_parquet(?)", [str(path)]).df()
        rows, columns = load(path, inputs(settings)), inputs(settings)
        is_modelled = are_modelled(rows, columns)
        self.raw, self.inputs = (frame[is_modelled].reset_index(drop=True) for frame in (raw, rows))
        self.truth = load_truth(path)[is_modelled]
        self.y = numeric(self.truth)
        self.scorer = load_scorer(_model(root))
        self.score = self.scorer.score(self.inputs)
        self.model = Model(_model(root).parent)
        decision = read_json(_model(root).with_name(paths.MANIFEST_FILE))["decision"]
        self.claimed = claim(self.score, decide(self.score, decision))

    def __len__(self) -> int:
        return len(self.y)

    def window(self, taken: Array | slice = slice(None)) -> LoggedWindow:
        """All rows, or those at some positions, as one window of a log."""
        truth = self.truth[taken]
        raw = self.raw.iloc[taken]
        around = self.model.bands(self.inputs.iloc[taken])
        score = self.score[taken]
        return LoggedWindow(raw=raw, y=self.y[taken], score=score, truth=truth, around=around)


def _model(root: Path) -> Path:
    production = root / paths.PRODUCTION / paths.MODEL_FILE
    return production if production.is_file() else root / paths.MODEL


def write_log(
    settings: Settings,
    root: Path,
    windows: list[LoggedWindow],
    decision: Any,
    labels: list[str],
    model: str | None = None,
) -> None:
    """Write a prediction log and its feedback, as the service does, one window of a day each.

    Args:
        labels: how 0, 1 … are written, empty when labels are numbers.
        decision: as the manifest has it.
        model: the version that answered; None: the log does not say it.
    """
    version = "NULL::VARCHAR" if model is None else text(model)
    for folder in (paths.PREDICTIONS, paths.FEEDBACK):
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir(parents=True)
    for number, window in enumerate(windows):
        n = len(window["y"])
        start = BEGIN + timedelta(days=number)
        moments = pd.Series(pd.date_range(start, start + timedelta(hours=23), n))
        ids = [f"a{number:05x}{row:022x}" for row in range(n)]
        classes = problem_data.named(settings.data.label)
        answers = table(window["score"], decision, window.get("around"), classes)
        truth = window.get("truth", window["y"])
        decided = problem_monitoring.placed(truth, answers["decision"])
        log = window["raw"].reset_index(drop=True).assign(
            _id=ids, _time=moments, _score=answers["score"], _decision=decided,
            _low=answers.get("low"), _high=answers.get("high"),
        )  # fmt: skip
        if problem.WIDE:
            log[SCORE_COLUMN] = answers["scores"].tolist()
        fed_back: Any = window.get("label")
        if fed_back is None:
            y = problem_monitoring.fed_back(window["y"], truth)
            fed_back = [labels[min(int(code), len(labels) - 1)] for code in y] if labels else y
        label_times = moments + timedelta(days=settings.data.label.delay_days or 0)
        feedback = pd.DataFrame({"_id": ids, "_time": label_times, "_label": fed_back})
        feedback = feedback[is_labelled(window["y"])]
        raw = _cast_columns(settings, window["raw"])
        scores = f"{SCORE_COLUMN}, " if problem.WIDE else ""
        with duckdb.connect() as sql:
            sql.register("log", log)
            sql.register("feedback", feedback)
            sql.execute(
                f"COPY (SELECT _id, _time::TIMESTAMP AS _time, 'champion' AS _arm, 1.0::DOUBLE AS _propensity, "
                f"true AS _answered, _score, {scores}_decision, _low::DOUBLE AS _low, _high::DOUBLE AS _high, "
                f"false AS _explored, NULL::VARCHAR AS _fallback, "
                f"[]::VARCHAR[] AS _flags, 1.0::DOUBLE AS _latency_ms, {version} AS _model, {raw} FROM log) "
                f"TO {text(str(root / paths.PREDICTIONS / f'{number:03}.parquet'))} (FORMAT parquet)"
            )
            sql.execute(
                "COPY (SELECT _id, _time::TIMESTAMP AS _time, _label, NULL::DOUBLE AS _reward FROM feedback) "
                f"TO {text(str(root / paths.FEEDBACK / f'{number:03}.parquet'))} (FORMAT parquet)"
            )


def _cast_columns(settings: Settings, raw: pd.DataFrame) -> str:
    """The columns of raw rows in SQL, each of the type that the schema gives it."""
    types = {name: TYPES[column.type] for name, column in stored(settings).items()}
    return ", ".join(f"TRY_CAST({quoted(c)} AS {types[c]}) AS {quoted(c)}" for c in raw.columns)


def _label_texts(settings: Settings, profile: Profile) -> list[str]:
    """How the labels 0, 1 … are written, when they are words."""
    label = settings.data.label
    if settings.data.schema_.columns[label.column].type != "category":
        return []
    return problem_monitoring.written(label, profile.facts["label_values"])


@contextmanager
def _copy(root: Path) -> Iterator[Path]:
    """A folder with this project's settings, models and reference, and nothing else."""
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        copy = Path(folder)
        shutil.copy2(root / paths.SETTINGS_FILE, copy)
        unnamed = shutil.ignore_patterns("*.dvc")  # the copies are changed
        shutil.copytree(root / paths.TRAINED, copy / paths.TRAINED, ignore=unnamed)
        if (root / paths.REFERENCE).is_file():
            (copy / paths.REFERENCE).parent.mkdir(parents=True)
            shutil.copy2(root / paths.REFERENCE, copy / paths.REFERENCE)
        yield copy


def _report_on(
    settings: Settings, root: Path, profile: Profile, windows: list[LoggedWindow]
) -> Report:
    """What the monitor says of a log with these windows, one a day, in a copy of the project."""
    min_rows = min(settings.monitoring.min_rows, WINDOW_ROWS)
    daily = {"window": "1d", "windows": len(windows), "min_rows": min_rows}
    daily_monitor = settings.monitoring.model_copy(update=daily)
    settings = settings.model_copy(update={"monitoring": daily_monitor})
    with _copy(root) as copy:
        texts, model = _label_texts(settings, profile), profile.facts["model"][:12]
        write_log(settings, copy, windows, profile.facts["decision"], texts, model)
        return monitor(settings, copy, now=BEGIN + timedelta(days=len(windows)), alone=True)


# Shifts of one kind


def _covariate(rows: Rows, profile: Profile, rng: np.random.Generator) -> dict[str, Any]:
    """Draw other rows: those with a long text, a light image or much of one number or category come more often."""
    columns = [column for column in profile.columns.values() if column.kind != "score"]
    inputs = as_numbers(rows.inputs, {column.name: column.kind for column in columns})
    for column in sorted(columns, key=lambda column: column.kind == "number"):
        if column.kind in ("number", "text", "image") and len(column.edges) > 5:
            values = inputs[column.name].to_numpy(np.float64)
            rank = pd.Series(values).rank(pct=True).fillna(0.5).to_numpy()
            return {"weights": np.exp(2.5 * rank)}
    column = next((column for column in columns if column.kind == "category"), columns[0])
    codes = column.codes(inputs[column.name])
    return {"weights": np.where(codes == np.bincount(codes).argmax(), 4.0, 1.0)}


def _label(rows: Rows, profile: Profile, rng: np.random.Generator) -> dict[str, Any]:
    """Draw the same rows of each label, but the higher labels come more often."""
    y = rows.y / problem_monitoring.sizes(rows.truth)
    return {"weights": np.exp(1.2 * problem_monitoring.ranked(y))}


def _concept(rows: Rows, profile: Profile, rng: np.random.Generator) -> dict[str, Any]:
    """Draw the same rows, but where scores are high the outcome has nothing to do with them.

    A score of a row in a list tells little of its one click, and a forecast little beside the level of its series:
    there high and low scores change outcomes.
    """
    y = rows.y.copy()
    if problem.LISTED or problem.HISTORIES:
        unit = problem_monitoring.sizes(rows.truth) * np.ones(len(y))
        order = np.argsort(rows.claimed / unit, kind="stable")
        y[order] = (rows.y / unit)[order[::-1]] * unit[order]
        return {"y": y}
    upper = np.flatnonzero(rows.claimed > np.median(rows.claimed))
    y[upper] = rng.choice(rows.y, len(upper))
    return {"y": y}


def _schema(rows: Rows, profile: Profile, rng: np.random.Generator) -> dict[str, Any]:
    """Put a number in another unit, or rename a category, and write labels of a new kind."""
    raw = rows.raw.copy()
    columns = profile.columns.values()
    numbers = [c.name for c in columns if c.kind == "number" and len(c.edges) > 5]
    categories = [c.name for c in columns if c.kind == "category" and c.others == []]
    if numbers:
        raw[numbers[0]] = raw[numbers[0]] * 100
    elif categories:
        category = raw[categories[0]]
        raw[categories[0]] = category.astype(object).where(category.isna(), "renamed")
    elif unstructured := [c.name for c in columns if c.kind in SUMMED]:
        raw[unstructured[0]] = None
    label = problem_monitoring.strange(rows.y, rows.label, profile.facts["label_values"], rng)
    return {"raw": raw, "label": label}


def _own_shift(rows: Rows, profile: Profile, rng: np.random.Generator, kind: str) -> dict[str, Any]:
    """Other labels, as a shift brings them that only this kind of problem has."""
    return {"y": problem_monitoring.OWN_SHIFTS[kind][3](rows.y, rows.truth, rng)}


def _changed(rows: Rows, profile: Profile, rng: np.random.Generator, name: str) -> dict[str, Any]:
    """What a drill changes that only this kind of problem has."""
    change, _ = problem_monitoring.OWN_CHANGES[name]
    return dict(change(rows.raw, rows.y, rows.truth, rows.label, rng))


# Drill -> the kind of shift that it injects
OWN_DRILLS = {kind.replace("_", "-"): kind for kind in problem_monitoring.OWN_SHIFTS}
# Drill -> what it changes, and the kinds that have to be named
SHIFTS: dict[str, tuple[Callable[..., dict[str, Any]], set[str]]] = {
    "covariate": (_covariate, {"covariate_shift"}),
    "label": (_label, {"label_shift"}),
    "concept": (_concept, {"concept_drift"}),
    "schema": (_schema, {"feature_drift", "label_schema_drift"}),
    **{name: (partial(_own_shift, kind=kind), {kind}) for name, kind in OWN_DRILLS.items()},
    **{n: (partial(_changed, name=n), k) for n, (_, k) in problem_monitoring.OWN_CHANGES.items()},
}


def _run_shift(settings: Settings, root: Path, profile: Profile, name: str) -> Outcome:
    rows = Rows(settings, root)
    rng = np.random.default_rng(settings.project.seed)
    change, expected = SHIFTS[name]
    windows: list[LoggedWindow] = []
    for number in range(CLEAN_WINDOWS + SHIFTED_WINDOWS):
        changed = change(rows, profile, rng) if number >= CLEAN_WINDOWS else {}
        chance = changed.get("weights", np.ones(len(rows)))
        taken = rng.choice(len(rows), WINDOW_ROWS, p=chance / chance.sum())
        raw = changed.get("raw", rows.raw).iloc[taken]
        y, score = changed.get("y", rows.y)[taken], rows.score[taken]
        seen_inputs = rows.inputs.iloc[taken]
        if "raw" in changed:  # the model sees what is logged
            seen_inputs = _inputs(settings, raw)
            score = rows.scorer.score(seen_inputs)
        window = LoggedWindow(raw=raw, y=y, score=score, truth=rows.truth[taken])
        window["around"] = rows.model.bands(seen_inputs)
        if "label" in changed:
            window["label"] = changed["label"][taken]
        windows.append(window)
    start = time.perf_counter()
    report = _report_on(settings, root, profile, windows)
    seconds = time.perf_counter() - start
    kinds = [set(window["kinds"]) for window in report["windows"]]
    false_alarms = set().union(*kinds[:CLEAN_WINDOWS])
    first = next((w for w in range(CLEAN_WINDOWS, len(kinds)) if expected <= kinds[w]), None)
    reported = sorted(set().union(*kinds[CLEAN_WINDOWS:]))
    if first is None:
        message = f"{' and '.join(sorted(expected))} did not fire; the report says {', '.join(reported) or 'nothing'}"
    else:
        reasons = report["windows"][first]["because"]
        because = "; ".join(reasons[kind][0] for kind in sorted(expected) if reasons[kind])
        message = (
            f"{' and '.join(sorted(expected))} fired in window {first - CLEAN_WINDOWS + 1} after the change "
            f"({WINDOW_ROWS:,} rows each), the report took {seconds:.1f} s: {because}"
        )
    if false_alarms:
        message += f"; false alarm before it: {', '.join(sorted(false_alarms))}"
    fired = first is not None and not false_alarms
    return Outcome(drill=name, fired=fired, words=message, kinds=reported)


def _inputs(settings: Settings, raw: pd.DataFrame) -> pd.DataFrame:
    """Raw rows as the model takes them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        picked = _cast_columns(settings, raw)
        with duckdb.connect() as sql:
            sql.register("raw", raw)
            sql.execute(f"COPY (SELECT {picked} FROM raw) TO {text(str(path))} (FORMAT parquet)")
        return load(path, inputs(settings))


# The feedback loop


def simulate(
    settings: Settings, rows: Rows, profile: Profile, exploration: float, seed: int
) -> list[LoggedWindow]:
    """Draw windows in which an object is shown the more, the better liked it was when it was shown.

    The top of a list gets more than its share of looks: what is shown grows with the power 1.5 of
    the likes (here: scores) gathered so far.

    Args:
        exploration: the share of the rows, from 0 to 1, that is drawn by chance instead.

    Returns:
        ROUNDS windows of WINDOW_ROWS rows.
    """
    rng, name = np.random.default_rng(seed), settings.monitoring.popularity
    _, objects = np.unique(rows.raw[name].astype(str), return_inverse=True)
    object_rows = np.maximum(1, np.bincount(objects))
    appeal = rows.claimed - min(0.0, rows.claimed.min())
    likes = np.bincount(objects, weights=appeal)
    windows: list[LoggedWindow] = []
    chance = np.ones(len(rows)) / len(rows)
    for _ in range(ROUNDS):
        taken = rng.choice(len(rows), WINDOW_ROWS, p=chance)
        windows.append(rows.window(taken))
        likes += np.bincount(objects[taken], weights=appeal[taken], minlength=len(object_rows))
        greedy = (likes**1.5 / object_rows)[objects]
        chance = (1 - exploration) * greedy / greedy.sum() + exploration / len(rows)
    return windows


def _run_loop(settings: Settings, root: Path, profile: Profile) -> Outcome:
    rows = Rows(settings, root)
    shares, fired = {}, {}
    for exploration in (0.0, 0.5):
        windows = simulate(settings, rows, profile, exploration, settings.project.seed)
        report = _report_on(settings, root, profile, windows)
        popularity = report["popularity"]
        assert popularity is not None  # the settings name a column
        shares[exploration] = popularity["top_share"]
        fired[exploration] = report["alarms"].get("feedback_loop")
    course = (
        f"in {ROUNDS} rounds the commonest tenth went from {shares[0.0][0]:.0%} to {shares[0.0][-1]:.0%} "
        f"of the rows, where half of them are explored to {shares[0.5][-1]:.0%}"
    )
    ringing = bool(fired[0.0])
    message = f"feedback_loop {'fired' if ringing else 'did not fire'}: {course}"
    return Outcome(drill="feedback-loop", fired=ringing, words=message, shares=shares)


# Rows that no model should decide alone


def _run_edges(settings: Settings, root: Path) -> Outcome:
    rows, landed = Rows(settings, root), {}
    cases, unmet = edge_cases(settings, rows.raw, rows.inputs, rows.model.inputs)
    online = ["online"] if "serving" in parts_here() else []
    for route in ("in files", *online):  # a copy for each: the queue for people is empty then
        with _copy(root) as copy:
            if route == "online":
                landed[route] = landed_online(copy, cases, _service, _fetch)
            else:
                landed[route] = landed_in_files(settings, copy, cases)
    fired = all(all(results) for results in landed.values())
    return Outcome(drill=EDGES, fired=fired, words=summary(cases, landed, unmet))


# Drills of the service


def _run_oversight(settings: Settings, root: Path, name: str) -> Outcome:
    """A drill of what people may do to a service of two workers."""
    body = _body(settings, Rows(settings, root))
    with _copy(root) as copy:
        for path in (paths.OVERSIGHT, paths.APPEALS):  # of the real service
            (copy / path).unlink(missing_ok=True)
        with _service(copy, "--workers", "2") as address:
            worked, message = OVERSIGHT.DRILLS[name](settings, copy, address, body)
    if worked:
        OVERSIGHT.record(root, name, message)
    return Outcome(drill=name, fired=worked, words=message)


def _run_service(settings: Settings, root: Path, name: str) -> Outcome:
    alert, body = ALERTS[name], _body(settings, Rows(settings, root))
    with _copy(root) as copy:
        model = _model(copy)
        if name == "model-down":
            model.write_bytes(b"broken")
        else:
            _slow_down(model)
        with _service(copy) as address, _prometheus(settings, root, copy, address, alert) as alerts:
            start = time.monotonic()
            while time.monotonic() - start < DEADLINE:
                _fetch(f"{address}/predict", body)
                ringing = alerts()
                if alert in ringing:
                    seconds = time.monotonic() - start
                    judge = "a real Prometheus" if shutil.which("prometheus") else "its metrics"
                    other_alerts = sorted(ringing - {alert})
                    message = f"{alert} fired after {seconds:.1f} s of requests, judged by {judge}"
                    if other_alerts:
                        message += f" (also: {', '.join(other_alerts)})"
                    return Outcome(drill=name, fired=True, words=message)
                time.sleep(0.1)
    message = f"{alert} did not fire within {DEADLINE:.0f} s"
    return Outcome(drill=name, fired=False, words=message)


def _body(settings: Settings, rows: Rows) -> bytes:
    raw = rows.raw.head(20)
    times = [c for c in raw if stored(settings)[c].type == "time"]
    as_text = raw.assign(**{c: raw[c].astype(str).where(raw[c].notna(), None) for c in times})
    return json.dumps(json.loads(as_text.to_json(orient="records"))).encode()


def _slow_down(path: Path) -> None:
    """Put a large and useless product of matrices into the model, and sign it anew."""
    import hashlib

    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["score before" if tensor == "score" else tensor for tensor in node.output]
        node.input[:] = ["score before" if tensor == "score" else tensor for tensor in node.input]
    kind = graph.output[0].type.tensor_type.elem_type
    shape = helper.make_tensor("slow shape", TensorProto.INT64, [2], [SLOW_SIZE, SLOW_SIZE])
    zero = helper.make_tensor("slow nothing", TensorProto.FLOAT, [], [0.0])
    graph.initializer.extend([shape, zero])
    nodes = [
        # Made from the score, so that it cannot be worked out ahead
        helper.make_node("ReduceMax", ["score before"], ["slow one"]),
        helper.make_node("Cast", ["slow one"], ["slow cast"], to=TensorProto.FLOAT),
        helper.make_node("Expand", ["slow cast", "slow shape"], ["slow matrix"]),
        helper.make_node("MatMul", ["slow matrix", "slow matrix"], ["slow square"]),
        helper.make_node("MatMul", ["slow square", "slow matrix"], ["slow cube"]),
        helper.make_node("ReduceMax", ["slow cube"], ["slow most"], keepdims=0),
        helper.make_node("Mul", ["slow most", "slow nothing"], ["slow zero"]),
        helper.make_node("Cast", ["slow zero"], ["slow add"], to=kind),
        helper.make_node("Add", ["score before", "slow add"], ["score"]),
    ]
    graph.node.extend(nodes)
    content = model.SerializeToString()
    path.write_bytes(content)
    manifest = path.with_name(paths.MANIFEST_FILE)
    signed = json.loads(manifest.read_bytes()) | {"sha256": hashlib.sha256(content).hexdigest()}
    manifest.write_text(json.dumps(signed), encoding="utf-8", newline="\n")


@contextmanager
def _service(folder: Path, *options: str) -> Iterator[str]:
    """The service of the copy, on a free port."""
    port = _free_port()
    package = __package__.split(".")[0]
    command = [sys.executable, "-m", package, "serve", "--port", str(port), *options]
    environment = {k: v for k, v in os.environ.items() if k not in ("SERVE_TOKEN", "OPERATE_TOKEN")}
    with _process(command, folder, environment) as process:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                _fetch(f"{address}/v2/health/live")  # without its model it is not ready
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise UserError("drill: the service did not start: try `serve`") from None
                time.sleep(0.1)
        yield address


@contextmanager
def _prometheus(
    settings: Settings, root: Path, copy: Path, address: str, alert: str
) -> Iterator[Callable[[], set[str]]]:
    """Give a function that says which alerts ring.

    It asks a real Prometheus where one is installed, with the project's own rules, in which `alert`
    does not wait to be sure, so that a drill is soon over; else it reads the service's metrics.
    """
    rules, program = root / paths.ALERT_RULES, shutil.which("prometheus")
    if not program or not rules.is_file():
        budget = settings.goals.targets.error_rate or 1.0
        yield lambda: _by_metrics(_fetch(f"{address}/metrics").decode(), BURN_RATE * budget)
        return
    before, mark, after = rules.read_text(encoding="utf-8").partition(f"- alert: {alert}\n")
    after = re.sub(r"for: \w+", "for: 0s", after, count=1)
    (copy / "rules.yml").write_text(before + mark + after, encoding="utf-8", newline="\n")
    job = {"job_name": "serve", "static_configs": [{"targets": [address.removeprefix("http://")]}]}
    intervals = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config = {"global": intervals, "rule_files": ["rules.yml"], "scrape_configs": [job]}
    (copy / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8", newline="\n")
    port = _free_port()
    command = [
        program,
        f"--config.file={copy / 'prometheus.yml'}",
        f"--storage.tsdb.path={copy / 'series'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with _process(command, copy, dict(os.environ)):

        def ringing() -> set[str]:
            try:
                answer = json.loads(_fetch(f"http://127.0.0.1:{port}/api/v1/alerts"))
            except OSError:  # it is still starting
                return set()
            firing = [a for a in answer["data"]["alerts"] if a["state"] == "firing"]
            return {a["labels"]["alertname"] for a in firing}

        yield ringing


def _by_metrics(exposition: str, max_share: float) -> set[str]:
    """Which of ALERTS would ring, from one reading of the service's metrics.

    Args:
        exposition: the metrics in Prometheus' text format.
        max_share: of the answers that the fallback may give.
    """
    values: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            values[sample.name] += sample.value
    answered = values["serving_fallbacks_total"] + values["serving_predictions_total"]
    ringing = {ALERTS["model-down"]} if values["serving_degraded"] else set()
    if answered and values["serving_fallbacks_total"] / answered > max_share:
        ringing.add(ALERTS["slow-model"])
    return ringing


@contextmanager
def _process(
    command: list[str], folder: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=quiet, stderr=quiet
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _fetch(address: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(address, body, timeout=30) as answer:
        return bytes(answer.read())
