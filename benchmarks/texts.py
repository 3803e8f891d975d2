"""Free texts against scikit-learn's own words: TfidfVectorizer and a linear model, on four public sets.

    make bench-texts                    all four; about six minutes the first time, on two cores
    make bench-texts ONLY=news,foods    some of them
    make bench-texts ONLY=large         100,000 texts put together from sentences of the news: time and memory

Each set gets a fresh project: `adopt FILE --label COLUMN` and `run`, no edit. The peer is fitted on train and valid of
the same split files and the columns that the project's model takes: TfidfVectorizer() for each text, scaled numbers, a
column a category, then LogisticRegression(max_iter=1000) or Ridge(). Both predict the test rows. Compared are log loss and macro F1, of numbers
the mean absolute error; worse beyond noise: the 95 % interval of the difference over 2,000 paired resamples of the test
rows lies on the wrong side of 0. Processor time is that of `adopt` and `run` with all their stages, candidates and
reports, against that of the peer's fit. Exit code 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from public import TEXTS
from spine import REPO
from tables import HOME, LEVEL, PARITY, RESAMPLES, SEED, Projects, tables, trained

Array = np.ndarray
LARGE = "large"  # the set of 100,000 texts
# What its run may take: memory, and processor time against the peer's fit
MAX_LARGE_MB, MAX_LARGE_RATIO = 2_000, 1.5
LARGE_ROWS = 50_000  # rows, from which the peer is fitted with the project's n-grams as well
MIN_WORDS = 3.0  # a column whose values have more on average is a text


def macro_f1(truth: Array, decided: Array, counts: Array) -> Array:
    """The unweighted mean of each class's F1, for each row of `counts`, shape (resamples, n)."""
    scores = []
    for label in np.unique(truth):
        hits = counts @ ((truth == label) & (decided == label))
        scores.append(2 * hits / (counts @ (truth == label) + counts @ (decided == label)))
    return np.mean(scores, axis=0)


def figures(kind: str, truth: Array, score: Array, counts: Array) -> dict[str, Array]:
    """Each figure for each row of `counts`, the larger the better."""
    if kind == "regression":
        return {"mean absolute error": -(counts @ np.abs(score - truth) / counts.sum(1))}
    chances = np.column_stack([1 - score, score]) if kind == "binary" else score
    of_truth = chances[np.arange(len(truth)), truth.astype(int)]
    loss = counts @ -np.log(np.clip(of_truth, 1e-7, 1)) / counts.sum(1)
    return {"log loss": -loss, "macro F1": macro_f1(truth, chances.argmax(1), counts)}


def peer(folder: Path, kind: str) -> None:
    """Fit scikit-learn's own on a project's split files; writes folder/peer.npz. Runs with the project's Python."""
    import duckdb
    import pandas as pd
    from sklearn.base import clone
    from sklearn.compose import make_column_transformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from threadpoolctl import threadpool_limits

    train, valid, test = (
        duckdb.execute("FROM read_parquet(?)", [str(folder / f"data/split/{part}.parquet")]).df()
        for part in ("train", "valid", "test")
    )
    fit = pd.concat([train, valid], ignore_index=True)
    steps: list[Any] = []
    for name in np.load(folder / "ours.npz")["columns"].tolist():
        if pd.api.types.is_numeric_dtype(fit[name]):
            fit[name], test[name] = (rows[name].astype(float).fillna(0.0) for rows in (fit, test))
            steps.append((StandardScaler(), [name]))
            continue
        fit[name], test[name] = (rows[name].fillna("").astype(str) for rows in (fit, test))
        is_text = fit[name].str.split().str.len().mean() > MIN_WORDS
        steps.append(
            (TfidfVectorizer(), name)
            if is_text
            else (OneHotEncoder(handle_unknown="ignore"), [name])
        )
    linear = Ridge() if kind == "regression" else LogisticRegression(max_iter=1000)
    model = make_pipeline(make_column_transformer(*steps), linear)
    start = time.process_time()
    with threadpool_limits(1):
        model.fit(fit, fit["_y"])
    seconds = [time.process_time() - start]
    if (
        len(fit) > LARGE_ROWS
    ):  # the same n-grams as the project's, which the library would take by these options
        pairs = TfidfVectorizer(
            ngram_range=(1, 2), min_df=2, max_features=10_000, sublinear_tf=True
        )
        start = time.process_time()
        with threadpool_limits(1):
            make_pipeline(make_column_transformer((pairs, "body")), clone(linear)).fit(
                fit, fit["_y"]
            )
        seconds.append(time.process_time() - start)
    score = model.predict(test) if kind == "regression" else model.predict_proba(test)
    np.savez(folder / "peer.npz", score=score[:, 1] if kind == "binary" else score, seconds=seconds)


def write_large(rows: int = 100_000) -> dict[str, Any]:
    """Texts of two to six sentences of the news, four of five from their own topic; returns what `adopt` is told."""
    with (HOME / "csv/news.csv").open(encoding="utf-8", newline="") as file:
        texts = [(row["topic"], row["body"].split(". ")) for row in csv.DictReader(file)]
    topics = sorted({topic for topic, _ in texts})
    sentences = {topic: [s for t, parts in texts if t == topic for s in parts] for topic in topics}
    rng = random.Random(SEED)
    with (HOME / f"csv/{LARGE}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "topic"])
        for _ in range(rows):
            topic = rng.choice(topics)
            sources = [
                topic if rng.random() < 0.8 else rng.choice(topics)
                for _ in range(rng.randint(2, 6))
            ]
            writer.writerow([". ".join(rng.choice(sentences[source]) for source in sources), topic])
    options = dict.fromkeys(("positive", "time", "group"))
    return {**options, "label": "topic", "kind": "multiclass", "rows": rows}


def processor_seconds() -> float:
    """Of all processes that were started from here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compared(projects: Projects, name: str, about: dict[str, Any]) -> dict[str, Any]:
    """One set: each figure of ours and the peer's, and whether ours is worse beyond noise."""
    kind, folder = about["kind"], projects.fresh(about["kind"], name)
    before = processor_seconds()
    result = {"kind": kind, "rows": about["rows"], **trained(projects, name, about, folder)}
    result["processor_seconds"] = processor_seconds() - before
    if "failed" in result:
        return result
    scripts = Path(__file__).parent
    for arguments in (
        [str(scripts / "defaults.py"), "ours", ".", "ours.npz"],
        [__file__, "--peer", kind],
    ):
        code, output, _ = projects.call(kind, folder, *arguments)
        if code:
            sys.exit(output[-3000:])
    ours, theirs = np.load(folder / "ours.npz"), np.load(folder / "peer.npz")
    truth, rng = ours["truth"].astype(float), np.random.default_rng(SEED)
    n, tail = len(truth), (1 - LEVEL) / 2
    drawn = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)
    counts = np.vstack([np.ones(n), drawn])
    pairs = [
        figures(kind, truth, part, counts) for part in (ours["ours"].astype(float), theirs["score"])
    ]
    result["figures"] = {
        figure: {
            "ours": abs(float(pairs[0][figure][0])),
            "peer": abs(float(pairs[1][figure][0])),
            "worse": bool(np.quantile(pairs[0][figure][1:] - pairs[1][figure][1:], 1 - tail) < 0),
        }
        for figure in pairs[0]
    }
    result["peer_seconds"] = theirs["seconds"].tolist()
    return result


def main() -> int:
    """Measure what `--only` names; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--only", default=",".join([*TEXTS, LARGE]), help=", ".join([*TEXTS, LARGE])
    )
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        peer(Path(), options.peer)
        return 0
    names = options.only.split(",")
    if unknown := set(names) - {*TEXTS, LARGE}:
        sys.exit(f"no set {', '.join(sorted(unknown))}; there are {', '.join(TEXTS)}, {LARGE}")
    HOME.mkdir(parents=True, exist_ok=True)
    projects, missed = Projects(REPO, []), 0
    results = {}
    sets = tables([*{"news", *names} - {LARGE}])  # the large set is made of the news
    sets = {name: about for name, about in sets.items() if name in names}
    sets |= {LARGE: write_large()} if LARGE in names else {}
    for name, about in sets.items():
        results[name] = result = compared(projects, name, about)
        if "failed" in result:
            missed += 1
            print(f"{name}: {result['failed']}")
            continue
        missed += result["parity"] > PARITY
        print(
            f"{name} ({result['kind']}, {result['rows']:,} rows): chosen {result['chosen']}, parity "
            f"{result['parity']:.1e}, adopt and run {result['processor_seconds']:.0f} s of processor, the peer's fit {result['peer_seconds'][0]:.1f} s"
        )
        if name == LARGE:  # the largest of all processes that were started until now
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            missed += peak > MAX_LARGE_MB
            print(f"  peak memory {peak:,.0f} MB of at most {MAX_LARGE_MB:,}")
            single, pairs = (result["processor_seconds"] / part for part in result["peer_seconds"])
            missed += single > MAX_LARGE_RATIO
            print(
                f"  {single:.1f} x the peer's fit of at most {MAX_LARGE_RATIO} x; {pairs:.1f} x with the project's n-grams"
            )
        for figure, row in result["figures"].items():
            missed += row["worse"]
            verdict = "WORSE beyond noise" if row["worse"] else "no worse beyond noise"
            print(
                f"  {figure:<20} ours {row['ours']:.4f}   scikit-learn {row['peer']:.4f}   {verdict}"
            )
    (HOME / "texts.json").write_text(json.dumps(results, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
