"""The parts of monitoring.py that run inside a generated project, with its environment and package.

Each prints one line of JSON.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from my_model.features.catalogue import inputs, load
from my_model.goals.gate import measure
from my_model.modelling.scorer import load_scorer
from my_model.monitoring import drill
from my_model.monitoring.diagnosis import KINDS as NAMED
from my_model.monitoring.diagnosis import decide_alarms, test_window
from my_model.monitoring.monitor import monitor
from my_model.monitoring.reference import read
from my_model.monitoring.windows import gather, opened
from my_model.paths import MODEL
from my_model.problem.decision import decide
from my_model.settings import Settings
from my_model.settings import load as settings_of
from shifts import KINDS, draw, draw_course, draw_numbers, spoil

ROOT = Path()
# How much of each kind is injected where kinds have to be told apart
SIZES = {"covariate_shift": 0.25, "label_shift": 0.12, "concept_drift": 1.0}
# Sizes at which the power is compared: small enough that not everything is found
POWER = {
    "covariate_shift": (0.05, 0.1),
    "label_shift": (0.03, 0.06),
    "concept_drift": (0.3, 0.6),
}
BATCH = 50  # windows of one report


def window(
    settings: Settings, scorer: Any, kind: str, size: float, rows: int, seed: int
) -> dict[str, Any]:
    """One window as `drill.write_log` takes it, shifted in one way."""
    drawn = draw(rows, seed, kind, size)
    if kind == "feature_drift":
        drawn, _, _ = spoil(drawn, np.empty(0), kind, seed)
    score = scorer.score(drill._inputs(settings, drawn.drop(columns="y")))
    label = drawn["y"].to_numpy()
    if kind in ("prediction_shift", "label_schema_drift"):
        drawn, score, label = spoil(drawn, score, kind, seed)
    return {
        "raw": drawn.drop(columns="y"),
        "y": drawn["y"].to_numpy(),
        "label": label,
        "score": score,
    }


def course(days: str, rows: str) -> None:
    """Windows of a day and of six hours that come as they always do, and days that do not.

    The project's rows end before 2026-03-02, a Monday.
    """
    settings, scorer = settings_of(), load_scorer(ROOT / MODEL)
    profile = read(ROOT)
    assert profile is not None
    first, results = pd.Timestamp("2026-03-02"), {}
    for name, hours, shift in (("day", 24, 0.0), ("six hours", 6, 0.0), ("shifted day", 24, 0.1)):
        windows = []
        for number in range(int(days)):
            start = str(first + pd.Timedelta(hours=number * (24 if hours == 24 else 30)))
            drawn = draw_course(int(rows), 110_000 + number, start, hours, shift)
            score = scorer.score(drill._inputs(settings, drawn.drop(columns="y")))
            y = drawn["y"].to_numpy()
            windows.append({"raw": drawn.drop(columns="y"), "y": y, "label": y, "score": score})
        batches = [
            report(settings, windows[at : at + BATCH]) for at in range(0, len(windows), BATCH)
        ]
        named = [window["kinds"] for batch in batches for window in batch["windows"]]
        kinds = Counter(kind for names in named for kind in names)
        alarmed, reports = sum(map(bool, named)), sum(bool(batch["alarms"]) for batch in batches)
        results[name] = {
            "windows": len(named),
            "alarmed": alarmed,
            "reports": reports,
            "kinds": kinds,
        }
    print(json.dumps({"phases": profile.course.describe(), "found": results}))


# Shifts of which labels tell nothing yet; by what the outcome is
ESTIMATED = {
    "covariate_shift": ((0.25, 0.5), (0.25, 0.5)),
    "label_shift": ((0.06, 0.12), (0.5, 1.0)),
    "none": ((0.0,), (0.0,)),
}


def estimate_rows(folder: str, count: str, rows: str) -> None:
    """Write the reference and windows for everybody, and what this monitor estimates before labels."""
    settings, scorer, out = settings_of(), load_scorer(ROOT / MODEL), Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    profile = read(ROOT)
    assert profile is not None
    binary = settings.project.problem == "binary"
    test = load(ROOT / "data/split/test.parquet", inputs(settings))
    y = duckdb.sql("SELECT _y FROM 'data/split/test.parquet'").fetchnumpy()["_y"]
    whole = test.assign(_score=scorer.score(test), y=y, _window=0)
    _save(whole, out / "reference.parquet")
    plan = [
        (kind, size)
        for kind, sizes in ESTIMATED.items()
        for size in sizes[0 if binary else 1]
        for _ in range(int(count))
    ]
    metrics = ("roc_auc", "average_precision") if binary else ("mae", "rmse")
    estimates: list[dict[str, Any]] = [{"plan": f"{kind} {size:g}"} for kind, size in plan]
    parts = []
    for first in range(0, len(plan), BATCH):
        batch = plan[first : first + BATCH]
        windows = []
        for at, (kind, size) in enumerate(batch):
            make = draw if binary else draw_numbers
            drawn = make(int(rows), 200_000 + first + at, kind, size)
            score = scorer.score(drill._inputs(settings, drawn.drop(columns="y")))
            y = drawn["y"].to_numpy()
            windows.append({"raw": drawn.drop(columns="y"), "y": y, "label": y, "score": score})
            parts.append(drawn.assign(_score=score, _window=first + at))
        for metric in metrics:
            goals = settings.goals.model_copy(update={"metric": metric})
            for at, estimate in enumerate(
                _unlabelled(settings.model_copy(update={"goals": goals}), windows)
            ):
                estimates[first + at][metric] = estimate
    _save(pd.concat(parts), out / "windows.parquet")
    print(json.dumps({"decision": profile.facts["decision"], "estimates": estimates}))


def _unlabelled(settings: Settings, windows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is estimated of each window before its labels, and what they say later."""
    profile = read(ROOT)
    assert profile is not None
    estimates = []
    with drill._copy(ROOT) as copy:
        drill.write_log(settings, copy, windows, profile.facts["decision"], [])
        moment = drill.BEGIN + timedelta(days=len(windows))
        for path in sorted((copy / "monitoring/feedback").iterdir()):
            path.unlink()
        early = monitor(looking(settings, len(windows)), copy, now=moment)["windows"]
    for window, reported in zip(windows, early, strict=True):
        decided = decide(window["score"], profile.facts["decision"])
        truth = measure(settings.goals.metric, window["y"], window["score"], decided)
        estimates.append(
            {**reported["performance"]["estimated"], "truth": truth, "kinds": reported["kinds"]}
        )
    return estimates


def looking(settings: Settings, windows: int) -> Settings:
    options = settings.monitoring.model_copy(update={"window": "1d", "windows": windows})
    return settings.model_copy(update={"monitoring": options})


def report(settings: Settings, windows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the monitor says of these windows, in a copy of the project."""
    profile = read(ROOT)
    assert profile is not None
    with drill._copy(ROOT) as copy:
        drill.write_log(settings, copy, windows, profile.facts["decision"], [])
        moment = drill.BEGIN + timedelta(days=len(windows))
        return monitor(looking(settings, len(windows)), copy, now=moment)


def false_alarms(count: str, rows: str) -> None:
    """Windows without a shift that raise any alarm, each looked at in a report with others."""
    settings, scorer = settings_of(), load_scorer(ROOT / MODEL)
    kinds: Counter[str] = Counter()
    alarmed = reports = 0
    for first in range(0, int(count), BATCH):
        windows = [
            window(settings, scorer, "none", 0.0, int(rows), 50_000 + first + number)
            for number in range(min(BATCH, int(count) - first))
        ]
        result = report(settings, windows)
        named = [window["kinds"] for window in result["windows"]]
        alarmed += sum(map(bool, named))
        kinds.update(kind for names in named for kind in names)
        kinds.update(list(result["alarms"]))
        reports += bool(result["alarms"])
    print(
        json.dumps({"windows": int(count), "alarmed": alarmed, "reports": reports, "kinds": kinds})
    )


def naming(seeds: str, rows: str) -> None:
    """How often the report gives a window the one right name, by kind; with labels and before them."""
    settings, scorer = settings_of(), load_scorer(ROOT / MODEL)
    right: Counter[str] = Counter()
    names: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for kind in KINDS:
        size = SIZES.get(kind, 0.0)
        for seed in range(int(seeds)):
            # A report of its own: four windows as ever, then the shifted one
            windows = [
                window(settings, scorer, "none", 0.0, int(rows), 90_000 + 10 * seed + number)
                for number in range(4)
            ]
            windows.append(window(settings, scorer, kind, size, int(rows), 70_000 + seed))
            kinds = report(settings, windows)["windows"][-1]["kinds"]
            name = " + ".join(kinds) or "none"
            names[kind][name] += 1
            right[kind] += name == kind
    total = sum(right.values()) / (int(seeds) * len(KINDS))
    print(json.dumps({"right": total, "by_kind": right, "said": names}))


def power_rows(folder: str, nulls: str, shifted: str, rows: str) -> None:
    """Write the reference and all windows for everybody, and how loud this monitor is about each."""
    settings, scorer, out = settings_of(), load_scorer(ROOT / MODEL), Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    test = load(ROOT / "data/split/test.parquet", inputs(settings))
    y = duckdb.sql("SELECT _y FROM 'data/split/test.parquet'").fetchnumpy()["_y"]
    _save(
        test.assign(_score=scorer.score(test), y=y, _window=0, _kind="reference"),
        out / "reference.parquet",
    )
    plan = [("none", 0.0)] * int(nulls)
    plan += [
        (kind, size) for kind, sizes in POWER.items() for size in sizes for _ in range(int(shifted))
    ]
    statistics, parts = [], []
    for first in range(0, len(plan), BATCH):
        batch = plan[first : first + BATCH]
        windows = [
            window(settings, scorer, kind, size, int(rows), 20_000 + first + at)
            for at, (kind, size) in enumerate(batch)
        ]
        for at, logged in enumerate(windows):
            frame = logged["raw"].assign(_score=logged["score"], y=logged["y"], _window=first + at)
            parts.append(frame.assign(_kind=f"{batch[at][0]} {batch[at][1]:g}"))
        statistics += _smallest(settings, windows)
    _save(pd.concat(parts), out / "windows.parquet")
    print(
        json.dumps({"plan": [f"{kind} {size:g}" for kind, size in plan], "statistics": statistics})
    )


def _smallest(settings: Settings, windows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    profile = read(ROOT)
    assert profile is not None
    with tempfile.TemporaryDirectory() as folder:
        drill.write_log(settings, Path(folder), windows, profile.facts["decision"], [])
        with opened(Path(folder)) as sql:
            assert sql is not None
            gathered = gather(sql, looking(settings, len(windows)), profile)
        assert gathered is not None
        findings = [test_window(gathered, profile, number) for number in range(len(windows))]
    options = settings.monitoring
    decide_alarms(findings, options.false_discovery, options.effect)
    # Faults of a column are no part of the peers' drift reports either
    tested = [
        [
            test
            for test in finding.tests
            if test.detector in NAMED and test.detector != "feature_drift"
        ]
        for finding in findings
    ]
    return [
        {
            "alarm": any(test.alarm for test in tests),
            "loudest": max(-math.log10(max(test.p / test.weight, 1e-300)) for test in tests),
        }
        for tests in tested
    ]


def speed_rows(folder: str, rows: str) -> None:
    """A log of that many rows in ten days, with and without labels, and the reference's rows."""
    settings, scorer, out = settings_of(), load_scorer(ROOT / MODEL), Path(folder)
    n = int(rows) // 10
    windows = [window(settings, scorer, "none", 0.0, n, 300 + day) for day in range(10)]
    drill.write_log(settings, out, windows, 0.3, [])
    test = load(ROOT / "data/split/test.parquet", inputs(settings))
    test = test.assign(_score=scorer.score(test), _time=pd.Timestamp("2026-01-01"))
    y = duckdb.sql("SELECT _y FROM 'data/split/test.parquet'").fetchnumpy()["_y"]
    _save(test.assign(y=y), out / "reference.parquet")
    for name in ("models", "monitoring/reference.parquet"):
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to((ROOT / name).resolve())
    print(json.dumps({"rows": 10 * n}))


def speed(folder: str, labels: str) -> None:
    """Seconds and peak memory (bytes) of one report on that log, all that it writes included."""
    import matplotlib.backends.backend_svg  # noqa: F401  # no imports are timed, of the peers' either

    settings, out = looking(settings_of(), 10), Path(folder)
    hidden = out / "monitoring/feedback"
    aside = out / "monitoring/aside"
    if labels == "without":
        hidden.rename(aside)
    try:
        start = time.perf_counter()
        result = monitor(settings, out, now=drill.BEGIN + timedelta(days=10))
        seconds = time.perf_counter() - start
    finally:
        if labels == "without":
            aside.rename(hidden)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "rows": result["rows"]}))


def _save(rows: pd.DataFrame, path: Path) -> None:
    with duckdb.connect() as sql:
        sql.register("rows", rows)
        sql.execute(f"COPY (SELECT * FROM rows) TO '{path}' (FORMAT parquet)")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
