"""The parts of spine.py that run inside a generated project, with its environment and package.

Each prints plain numbers: seconds, bytes or a ratio.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
from my_model.settings import Settings, load
from threadpoolctl import threadpool_limits


def changed(settings: Settings, **changes: object) -> Settings:
    """The settings with dotted keys changed (dots written as double underscores)."""
    tree = settings.model_dump(by_alias=True, mode="json")
    for key, value in changes.items():
        *parents, last = key.split("__")
        block = tree
        for name in parents:
            block = block[name]
        block[last] = value
    return Settings.model_validate(tree)


def parquet(file: str, rows: str) -> None:
    """Write that many of the sample's events (20 columns and more) to one Parquet file."""
    from my_model.data.sample import make

    database = duckdb.connect()
    with tempfile.TemporaryDirectory() as folder:
        for chunk in range(int(rows) // 250_000):
            events = make(250_000, chunk, 7.0)  # noqa: F841  (DuckDB reads it by its name)
            database.execute(
                f"COPY (SELECT * REPLACE ('{chunk}-' || event_id AS event_id, "
                f"'{chunk}-' || entity_id AS entity_id) FROM events) "
                f"TO '{folder}/{chunk:03}.parquet' (FORMAT parquet)"
            )
        database.execute(
            f"COPY (SELECT * FROM read_parquet('{folder}/*.parquet')) TO '{file}' (FORMAT parquet)"
        )


def stages(file: str) -> None:
    """Seconds and peak memory (bytes) of collect, label and split on a file."""
    from my_model.data.label import label
    from my_model.data.source import collect
    from my_model.data.split import split

    settings = changed(
        load(), data__source__kind="files", data__source__paths=[file], data__source__rows=None
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for stage in (collect, label, split):
            stage(settings, Path(folder))
        seconds = time.perf_counter() - start
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def calls() -> None:
    """Seconds of the library calls that a run on this project is made of, in one process; then the
    same with the imports that such a process needs.

    Generating, reading and writing the tables, fitting and applying the preparation and each model,
    converting them, and scoring with the exported files: each as often as the run does it, without
    checks, resampling, pictures and further starts of Python.
    """
    start = time.perf_counter()
    from my_model.data.sample import make
    from my_model.data.split import PARTS
    from my_model.features.catalogue import inputs
    from my_model.features.catalogue import load as read
    from my_model.features.pipeline import build
    from my_model.goals.metrics import spread
    from my_model.modelling import baselines, candidates
    from my_model.modelling.export import Scorer, export, fit_calibration, with_extremes

    imports = time.perf_counter() - start
    settings = load()
    threadpool_limits(settings.modelling.threads, "blas")  # as the training does
    source = settings.data.source.rows or 0
    database, columns, spent = duckdb.connect(), inputs(settings), []

    def timed(call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        spent.append(time.perf_counter() - start)
        return result

    events = timed(lambda: make(source, settings.project.seed, settings.data.label.delay_days))
    with tempfile.TemporaryDirectory() as folder:
        database.register("events", events.astype({"event_id": str}))
        for _ in range(3):  # collect, label and split: each reads the rows and writes them
            timed(lambda: database.execute(f"COPY events TO '{folder}/x.parquet'").fetchall())
            timed(lambda: database.execute(f"FROM '{folder}/x.parquet'").df())
    rows = {
        part: timed(lambda path=path: read(Path(path), columns)) for part, path in PARTS.items()
    }
    y = {
        part: duckdb.execute(f"SELECT _y FROM '{path}'").fetchnumpy()["_y"]
        for part, path in PARTS.items()
    }
    unit = 1.0 if candidates.CLASSIFIER else spread(y["train"])
    target = {part: label / unit for part, label in y.items()}
    kind = int if candidates.CLASSIFIER else float
    rows["probe"] = with_extremes(rows["test"], columns)
    preparation = timed(lambda: build(settings).fit(rows["train"]))
    matrix = {
        part: timed(lambda part=part: preparation.transform(rows[part]))
        for part in ("train", "valid", "probe")
    }
    seed, files = settings.project.seed, []
    for name in ("heuristic", "simple", *settings.modelling.candidates):
        if name in settings.modelling.candidates:
            model = candidates.make(name, settings, seed)
        else:
            model = baselines.make(name, len(y["train"]), settings, seed)
        timed(lambda model=model: model.fit(matrix["train"], target["train"].astype(kind)))
        raw = timed(lambda model=model: candidates.predict(model, matrix["valid"]))
        head = fit_calibration(
            settings.modelling.calibration, target["valid"], raw, candidates.CLASSIFIER
        )
        files.append(
            timed(lambda model=model, head=head: export(columns, preparation, model, head))
        )
        timed(lambda model=model: candidates.predict(model, matrix["probe"]))
        timed(lambda: Scorer(files[-1]).score(rows["probe"]))
    scorer = Scorer(files[-1])
    few = rows["test"].head(50_000)
    evaluation = settings.modelling.evaluation
    # Evaluation: the test rows, again with noise and for each expectation; reference: train
    for part in (rows["test"], few, *[few] * len(evaluation.expectations), rows["train"]):
        timed(lambda part=part: scorer.score(part))
    print(sum(spent), sum(spent) + imports)


def one_row() -> None:
    """One row through the exported model against scikit-learn, as ratios of medians, two of them.

    First the pipeline that people serve: the same features by scikit-learn's own transformers and
    the same LightGBM. Then the project's own preparation, which is quicker than those.
    """
    from lightgbm import LGBMClassifier
    from my_model.data.split import PARTS
    from my_model.features.catalogue import inputs, selected
    from my_model.features.catalogue import load as read
    from my_model.features.pipeline import build
    from my_model.modelling import candidates
    from my_model.modelling.export import Scorer, export, fit_calibration
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import (
        KBinsDiscretizer,
        OneHotEncoder,
        OrdinalEncoder,
        StandardScaler,
    )

    settings = load()
    columns = inputs(settings)
    train = read(Path(PARTS["train"]), columns)
    y = duckdb.execute(f"SELECT _y FROM '{PARTS['train']}'").fetchnumpy()["_y"]
    preparation = build(settings).fit(train)
    model = candidates.make("lightgbm", settings, settings.project.seed)
    model.fit(preparation.transform(train), y)
    head = fit_calibration("none", y, y, candidates.CLASSIFIER)
    scorer = Scorer(export(columns, preparation, model, head))

    by: dict[str, list[str]] = {}
    for name, feature in selected(settings).items():
        if not feature.cross and feature.encode != "cyclic":
            by.setdefault("one_hot" if feature.encode == "hash" else feature.encode, []).append(
                name
            )
    makers = {
        "number": lambda: make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
        "bins": lambda: make_pipeline(SimpleImputer(strategy="median"), KBinsDiscretizer()),
        "one_hot": lambda: OneHotEncoder(handle_unknown="ignore", sparse_output=False),
        "ordinal": lambda: OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    }
    usual = make_pipeline(
        ColumnTransformer([(kind, makers[kind](), names) for kind, names in by.items()]),
        LGBMClassifier(n_estimators=150, n_jobs=1, verbose=-1),
    ).fit(train, y)
    frames = [train.iloc[[turn]] for turn in range(50)]
    feeds = [scorer.feed(row) for row in frames]
    spent: list[list[float]] = [[], [], []]
    for _ in range(8):  # in turn, so that a busy moment of the machine meets all three
        for place, (call, rows) in enumerate(
            (
                (usual.predict_proba, frames),
                (lambda row: candidates.predict(model, preparation.transform(row)), frames),
                (lambda feed: scorer.session.run(["score"], feed), feeds),
            )
        ):
            for row in rows:
                start = time.perf_counter()
                call(row)
                spent[place].append(time.perf_counter() - start)
    served, own, exported = (statistics.median(one) for one in spent)
    print(served / exported, own / exported)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
