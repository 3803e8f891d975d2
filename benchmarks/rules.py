"""What labelling functions are worth: ROC AUC with and without them, by the number of labelled training rows.

    make bench-rules            about ten minutes on two free cores

The built-in sample of a yes or no and of several classes, with the functions that its problem/data.py has. Of 20,000 events a
share keeps its label (`labelling.functions.labels`); the rest are rows of which nobody knows the label. Judged on the later
rows whose label was not used, a mean over seeds, of the linear model. Plain training overtakes where the gain is
no longer above its noise (1.96 standard errors of the seeds' gains). Exit code 1 when that is below 500 labelled rows of
a yes or no; five classes that 300 rows teach better than six rules do are shown, and nothing is asked of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from spine import REPO, SMALL_ENV, copier, timed, uv

HOME = REPO / "build/rules"
ROWS, SEEDS = 20_000, 5
COUNTS = {"binary": (100, 300, 500, 1000, 2000, 4000), "multiclass": (100, 300, 500)}
LEAST = {"binary": 500}  # labelled training rows at which rules are still to gain
WAYS = ("none", "shrunk", "gold")


def judge(seed: int, count: int) -> None:
    """The AUC of each way to combine; prints JSON. Runs with the project's Python, in its folder."""
    import duckdb
    from inside import changed
    from my_model.data.label import label
    from my_model.data.source import collect
    from my_model.data.split import split
    from my_model.features.catalogue import inputs, load
    from my_model.labelling.functions import writer
    from my_model.modelling.scorer import load_scorer
    from my_model.modelling.train import train
    from my_model.problem.data import truth
    from my_model.settings import load as settings
    from sklearn.metrics import roc_auc_score

    scores: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for way in WAYS:
            config = changed(
                settings(Path("params.yaml")),
                project__seed=seed,
                data__source__rows=ROWS,
                data__label__delay_days=0,
                data__label__time=None,
                labelling__functions__labels=count / (0.6 * ROWS),
                labelling__functions__combine=way,
                modelling__candidates=["linear"],
                modelling__few_rows__also=[],
            )
            if way == WAYS[0]:
                collect(config, root)
                label(config, root)
            scores["rows"] = split(config, root, writer(config, root))["parts"]["train"]["rows"]
            train(config, root)
            paths = [str(root / f"data/{n}.parquet") for n in ("unlabelled", "raw/events")]
            label_code = truth("label", config.data.label, "label IS NOT NULL")
            query = (
                f"SELECT event_id, {label_code} AS y, event_time >= (SELECT min(event_time) FROM "
                f"read_parquet('{root}/data/split/valid.parquet')) AS later FROM read_parquet(?)"
            )
            events = duckdb.execute(query, [paths[1]]).df().set_index("event_id")
            ids = duckdb.read_parquet(paths[0]).project("event_id").df()["event_id"]
            table = events[~events.index.duplicated()].loc[ids]
            use = (table["later"] & table["y"].notna()).to_numpy()
            rows = load(Path(paths[0]), inputs(config))
            answers = load_scorer(root / "models/model.onnx").score(rows)[use]
            y = table["y"].to_numpy()[use]
            scores[way] = float(roc_auc_score(y, answers, multi_class="ovr"))
    print(json.dumps(scores))


def call(python: Path, folder: Path, *arguments: str) -> dict[str, float]:
    """What a run of this file in a project prints."""
    env = {**SMALL_ENV, "PYTHONPATH": f"src{os.pathsep}{Path(__file__).parent}"}
    done = subprocess.run(
        [str(python), "-W", "ignore", __file__, *arguments],
        cwd=folder, env=env, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit((done.stdout + done.stderr)[-3000:])
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> int:
    """Measure all; 1 when rules gain nothing where they should."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", type=Path, help="with a project's libraries, and no new one")
    parser.add_argument("--only", help="binary or multiclass")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--judge", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.judge:
        judge(*options.judge)
        return 0
    figures, python = {}, options.python or HOME / "project/bin/python"
    overtaken: dict[str, int | None] = {}
    for kind, counts in COUNTS.items():
        if options.only not in (None, kind):
            continue
        folder = HOME / kind
        HOME.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        answers = ["--data", f"problem_type={kind}", "--data", "parts=[labelling]"]
        timed([*copier(REPO, folder), *answers], REPO)
        if options.python is None:
            env = str(HOME / "project")
            timed([uv(), "sync", "--quiet"], folder, UV_PROJECT_ENVIRONMENT=env)
        overtaken[kind] = None
        for count in counts:
            draws = [
                call(python, folder, "--judge", str(seed), str(count))
                for seed in range(1, options.seeds + 1)
            ]
            figures[f"{kind} {count}"] = draws
            auc = {way: np.array([draw[way] for draw in draws]) for way in WAYS}
            gain = auc["gold"] - auc["none"]
            noise = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
            if gain.mean() <= noise and overtaken[kind] is None:
                overtaken[kind] = count
            means = ", ".join(f"{way} {values.mean():.3f}" for way, values in auc.items())
            rows = int(np.mean([draw["rows"] for draw in draws]))
            print(
                f"{kind}: {rows} labelled rows: {means}; gain {gain.mean():+.4f} ± {noise:.4f}",
                flush=True,
            )
    for kind, rows in overtaken.items():
        text = f"at {rows}" if rows else f"beyond {COUNTS[kind][-1]}"
        print(
            f"{kind}: plain training overtakes {text} labelled rows (asked: >= {LEAST.get(kind, 0)})"
        )
    (HOME / "rules.json").write_text(json.dumps(figures, indent=1) + "\n")
    return (
        1
        if any(rows is not None and rows < LEAST.get(kind, 0) for kind, rows in overtaken.items())
        else 0
    )


if __name__ == "__main__":
    sys.exit(main())
