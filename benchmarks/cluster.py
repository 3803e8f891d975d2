"""Several workers against one process: files scored and models trained by a Ray cluster of this machine's processors.

    make bench-cluster                   two nodes of one processor each; about fifteen minutes on two free cores
    make bench-cluster ONLY=score

A cluster pays from the size on from which its ratio is below 1; on one machine it has the same processors as the process
that it is held against, so the ratio says what a cluster costs. More machines divide the workers' part of it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from spine import REPO, timed, uv
from tables import HOME, Projects

ADDRESS, WORKERS = "127.0.0.1:6397", 2
SCORED = (100_000, 1_000_000, 5_000_000)
TRAINED = (10_000, 100_000, 400_000)
COPY = "import duckdb; duckdb.execute(\"COPY (SELECT r.* FROM 'data/raw/events.parquet' AS r, range(1000) LIMIT {n}) TO 'big.parquet'\")"


def cluster(programs: Path) -> None:
    """Start the nodes."""
    ends = [
        ["--head", "--port", ADDRESS.partition(":")[2], "--include-dashboard=false"],
        ["--address", ADDRESS],
    ]
    for end in ends:
        command = [programs / "ray", "start", "--num-cpus", "1", "--disable-usage-stats", *end]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def change(folder: Path, **keys: object) -> None:
    """Set keys of params.yaml where they stand first."""
    path = folder / "params.yaml"
    text = path.read_text()
    for key, value in keys.items():
        text = re.sub(rf"(?m)^(  +{key}:) \S+", rf"\1 {value}", text, count=1)
    path.write_text(text)


def measured(projects: Projects, folder: Path, *command: str) -> float:
    """The seconds of a command that has to work."""
    code, output, seconds = projects.call("binary", folder, "-m", "my_model", *command)
    if code:
        sys.exit(f"{' '.join(command)}: {output[-2000:]}")
    return seconds


def metric(folder: Path) -> float:
    """Of the candidate lightgbm on the validation rows."""
    rows = json.loads((folder / "reports/candidates.json").read_text())["rows"]
    return float(next(row["metric"] for row in rows if row["name"] == "lightgbm"))


def score(projects: Projects, folder: Path) -> None:
    """Scoring: one thread, two threads, and two workers."""
    measured(projects, folder, "run")
    for n in SCORED:
        projects.call("binary", folder, "-c", COPY.format(n=n))
        command = ("score", "big.parquet", "--ungated", "--out")
        change(folder, address="null")
        single = measured(projects, folder, *command, "alone.parquet", "--threads", "1")
        double = measured(projects, folder, *command, "alone.parquet", "--threads", "2")
        change(folder, address=ADDRESS)
        workers = measured(projects, folder, *command, "workers.parquet")
        same = (folder / "alone.parquet").read_bytes() == (folder / "workers.parquet").read_bytes()
        print(
            f"score, {n:,} rows: one thread {single:.1f} s, two {double:.1f} s, two workers {workers:.1f} s "
            f"({workers / single:.2f} ×, {workers / double:.2f} ×), the same file: {same}", flush=True,
        )  # fmt: skip


def train(projects: Projects, folder: Path) -> None:
    """Training: this process, a fit by each worker, and fits by two workers together."""
    for n in TRAINED:
        change(folder, rows=n, address="null", boosting_workers=1)
        for stage in ("collect", "label", "split"):
            measured(projects, folder, stage)
        alone, figure = measured(projects, folder, "train"), metric(folder)
        change(folder, address=ADDRESS)
        tasks, same = measured(projects, folder, "train"), metric(folder) == figure
        change(folder, boosting_workers=WORKERS)
        together, gap = measured(projects, folder, "train"), metric(folder) - figure
        print(
            f"train, {n:,} rows: here {alone:.1f} s, a fit by each worker {tasks:.1f} s ({tasks / alone:.2f} ×, the same "
            f"metric: {same}), by two together {together:.1f} s ({together / alone:.2f} ×, metric {gap:+.4f})", flush=True,
        )  # fmt: skip


PARTS = {"score": score, "train": train}


def main() -> None:
    """Measure what `--only` names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help="of score, train")
    names = parser.parse_args().only.split(",")
    HOME.mkdir(parents=True, exist_ok=True)
    projects = Projects(REPO, [], "parts=[serving, monitoring, cluster]")
    base, environment = projects.bases["binary"][0], HOME / "project"
    group = [uv(), "sync", "--quiet", "--group", "cluster"]
    timed(group, base, UV_PROJECT_ENVIRONMENT=str(environment))
    folder = projects.fresh("binary", "cluster")
    cluster(environment / "bin")
    try:
        time.sleep(5)  # until the second node is in
        for name in names:
            PARTS[name](projects, folder)
    finally:
        subprocess.run(
            [environment / "bin/ray", "stop", "--force"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


if __name__ == "__main__":
    main()
