"""What is made of people's labels, on the samples and digits: votes joined, wrong labels listed, and rows queued.

    make bench-labelling                    about fifteen minutes on two free cores; ONLY=votes,audit,queue for some

votes: twenty made labellers, right in 55 to 95 of 100, three votes a row on 5,000 rows; what `label audit` leaves of a model joins
them too, and 200 gold rows choose. audit: one in twenty labels is swapped with another class, or another row's number. queue: labels
that boosted trees need for what as many at random give (the mean of ten seeds), picked as `label next` does. Exit code 1 when a
figure is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from spine import REPO, SMALL_ENV, copier, git, timed, uv

HOME = REPO / "build/labelling"
KINDS = ("binary", "multiclass", "regression")
SEEDS = 10
Array = np.ndarray


def rows_of(count: int) -> tuple[Any, Array, Any, Any]:
    """Inputs, label codes or numbers, keys and settings of a project's labelled rows. Runs with the project's Python."""
    from my_model.features.catalogue import inputs, load
    from my_model.modelling.train import read_label
    from my_model.settings import load as settings

    config, path = settings(Path("params.yaml")), Path("data/labelled.parquet")
    y, keys = read_label(path, config)
    picked = np.random.default_rng(0).permutation(len(y))[:count]
    rows = load(path, inputs(config)).iloc[picked].reset_index(drop=True)
    return rows, y[picked], keys.take(picked), config


def votes(seeds: int) -> list[dict[str, Any]]:
    """Share of rows with the right label, by method."""
    from dataclasses import replace

    from my_model.labelling.aggregation import METHODS, Table, choose
    from my_model.labelling.audit import out_of_fold

    rows, y, keys, config = rows_of(5000)
    k, n, shares = int(y.max()) + 1, len(y), {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        skill = rng.uniform(0.55, 0.95, 20)
        who = np.argsort(rng.random((n, 20)), axis=1)[:, :3].ravel()
        row = np.repeat(np.arange(n), 3)
        truth = y.astype(int)[row]
        wrong = (truth + rng.integers(1, k, len(row))) % k
        labels = np.where(rng.random(len(row)) < skill[who], truth, wrong)
        names = [[str(i) for i in range(count)] for count in (n, 20, k)]
        table = Table(row, who, labels, *names)
        label = METHODS["majority"](table).label.astype(float)
        chances, _ = out_of_fold(rows, label, replace(keys, label=label), config)
        full = np.full((n, k), 1e-3)
        full[:, : chances.shape[1]] = chances
        table = replace(table, scores=full)
        gold = {str(i): str(int(y[i])) for i in rng.permutation(n)[:200]}
        start = time.perf_counter()
        chosen = choose(table, gold, config)
        seconds = time.perf_counter() - start
        for method in METHODS:
            right = METHODS[method](table).label == y
            shares.setdefault(method, []).append(float(right.mean()))
        shares.setdefault("auto", []).append(shares[chosen][-1])
        shares.setdefault("seconds", []).append(seconds)
    means = {method: float(np.mean(values)) for method, values in shares.items()}
    gains = np.array(shares["auto"]) - np.array(shares["majority"])
    is_met = bool(gains.min() >= -0.002 and means["seconds"] <= 1)  # all three are fitted to choose
    text = ", ".join(f"{method} {value:.3f}" for method, value in means.items())
    return [{"figure": text, "target": "auto >= majority", "met": is_met}]


def audit(seeds: int) -> list[dict[str, Any]]:
    """Share of swapped labels among the first hundred that are listed."""
    from my_model.labelling.audit import self_test

    rows, y, keys, config = rows_of(18_000)
    shares = []
    for seed in range(min(seeds, 3)):
        project = config.project.model_copy(update={"seed": seed})
        share = self_test(rows, y, keys, config.model_copy(update={"project": project}))
        shares.append(share or 0.0)
    mean = float(np.mean(shares))
    return [{"figure": f"first hundred {mean:.2f}", "target": ">= 0.7", "met": mean >= 0.7}]


def queue(seeds: int) -> list[dict[str, Any]]:
    """Labels ratio against random."""
    from my_model.problem import CLASSES, WIDE

    if not CLASSES:
        return []
    sets = {"sample": (*_sample(), 8, 200)}
    if WIDE:
        from sklearn.datasets import load_digits

        sets["digits"] = (*load_digits(return_X_y=True), 10, 40)
    lines = []
    for name, (x, y, steps, batch) in sets.items():
        curves = {
            way: np.mean([_curve(x, y, way, seed, steps, batch) for seed in range(seeds)], axis=0)
            for way in (False, True)
        }
        count = batch * np.arange(1, steps + 1)
        goal = float(np.maximum.accumulate(curves[False])[-1])
        best = np.maximum.accumulate(curves[True])
        ratio = float(np.interp(goal, best, count)) / count[-1] if best[-1] >= goal else np.inf
        text = f"{name}: {goal:.4f} at random from {count[-1]:,}; queued {ratio:.2f} x of them"
        lines.append({"figure": text, "target": "<= 0.8 x", "met": bool(ratio <= 0.8)})
    return lines


def _sample() -> tuple[Array, Array]:
    from my_model.modelling.fitting import fit_features

    rows, y, keys, config = rows_of(18_000)
    preparation, _ = fit_features(rows, y, keys, config)
    return np.nan_to_num(np.asarray(preparation.transform(rows), float)), y.astype(int)


def _curve(x: Array, y: Array, is_queued: bool, seed: int, steps: int, batch: int) -> list[float]:
    """ROC AUC, of several classes the accuracy, on rows apart by the number of labels."""
    from lightgbm import LGBMClassifier
    from my_model.labelling.selection import MEMBERS, bootstrap, disagreement, pick_rows
    from sklearn.metrics import accuracy_score, roc_auc_score

    k, rng = int(y.max()) + 1, np.random.default_rng(seed)
    order = rng.permutation(len(y))
    size = min(4000, len(y) // 3)
    test, pool = order[:size], order[size:][:8000]
    labelled, left, figures = pool[:batch], pool[batch:], []
    options = {"num_leaves": 7, "n_estimators": 60, "min_child_samples": 5, "verbose": -1}

    def fitted(rows: Array, rows_to_answer: Array) -> Array:
        model = LGBMClassifier(**options).fit(x[rows], y[rows])
        chances = np.zeros((len(rows_to_answer), k))
        chances[:, model.classes_.astype(int)] = model.predict_proba(x[rows_to_answer])
        return chances[:, 1] if k == 2 else chances

    for _ in range(steps):
        answered = fitted(labelled, test)
        figures.append(
            roc_auc_score(y[test], answered)
            if k == 2
            else accuracy_score(y[test], answered.argmax(axis=1))
        )
        at_random = batch if not is_queued else round(0.3 * batch)
        picked = np.arange(at_random)  # the pool is in random order
        if is_queued:
            pool_left = left[at_random:]
            draws = [labelled[bootstrap(y[labelled], rng)] for _ in range(MEMBERS)]
            doubt = disagreement(np.array([fitted(rows, pool_left) for rows in draws]))
            doubted = pick_rows(doubt, x[pool_left], batch - at_random)
            picked = np.r_[picked, at_random + doubted]
        labelled = np.r_[labelled, left[picked]]
        left = np.delete(left, picked)
    return figures


def call(python: Path, folder: Path, *arguments: str) -> str:
    """Standard output of a command in a project."""
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    env = {**SMALL_ENV, "PYTHONPATH": "src", "PATH": path, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [str(python), *arguments], cwd=folder, env=env, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit((done.stdout + done.stderr)[-3000:])
    return done.stdout


def main() -> int:
    """Measure all; 1 when a figure is missed."""
    figures = {"votes": votes, "audit": audit, "queue": queue}
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="votes,audit,queue")
    parser.add_argument("--python", type=Path, help="with a project's libraries, and no new one")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(figures[options.measure](options.seeds)))
        return 0
    HOME.mkdir(parents=True, exist_ok=True)
    is_met = True
    for kind in KINDS:
        folder = HOME / kind
        subprocess.run(["rm", "-rf", str(folder)], check=True)
        answers = ["--data", f"problem_type={kind}", "--data", "parts=[labelling]"]
        timed([*copier(REPO, folder), *answers], REPO)
        git(folder, "init", "--quiet", "--initial-branch", "main")
        python = options.python or HOME / "env/bin/python"
        if options.python is None:
            timed([uv(), "sync", "--quiet"], folder, UV_PROJECT_ENVIRONMENT=str(HOME / "env"))
        for stage in ("collect", "label"):
            call(python, folder, "-m", "my_model", stage)
        for name in options.only.split(","):
            if kind == "regression" and name == "votes":
                continue
            answer = call(
                python, folder, __file__, "--measure", name, "--seeds", str(options.seeds)
            )
            for line in json.loads(answer.splitlines()[-1]):
                verdict = "met" if line["met"] else "MISSED"
                print(f"{kind} {name}: {line['figure']}  {line['target']}  {verdict}", flush=True)
                is_met &= line["met"]
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
