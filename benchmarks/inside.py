"""The parts of spine.py and serving.py that run inside a generated project, with its environment and package.

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
import numpy as np
import pandas as pd
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
    from my_model.features.catalogue import inputs
    from my_model.features.catalogue import load as read
    from my_model.modelling import fitting
    from my_model.modelling.export import export
    from my_model.modelling.scorer import load_scorer, with_extremes
    from my_model.modelling.train import read_label
    from my_model.paths import SPLITS
    from my_model.problem import models

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
        part: timed(lambda path=path: read(Path(path), columns)) for part, path in SPLITS.items()
    }
    label = {part: read_label(Path(path), settings) for part, path in SPLITS.items()}
    rows["probe"] = with_extremes(rows["test"], columns)
    files: list[bytes] = []

    def prepared(parts: list[str]) -> tuple[Any, fitting.TrainingTable]:
        """The preparation fitted to some parts together, and their rows as models take them."""
        together = pd.concat([rows[part] for part in parts], ignore_index=True)
        y = np.concatenate([label[part][0] for part in parts])
        keys = [label[part][1] for part in parts]
        time_, group = (
            None
            if getattr(keys[0], key) is None
            else np.concatenate([getattr(k, key) for k in keys])
            for key in ("time", "group")
        )
        keys_ = fitting.RowKeys(keys[0].by, y, time_, group)
        return timed(lambda: fitting.fit_features(together, y, keys_, settings))

    def fit(name: str, preparation: Any, table: fitting.TrainingTable, probe: Any) -> None:
        """Fit, score the rows of the parity check, convert, and score them with the file."""
        size = sizes.get(models.SIZED.get(name, ""))
        model = timed(lambda: fitting.fit_model(name, table, size, settings))
        raw = timed(lambda: model.raw(valid))
        head = fitting.fit_head(raw, label["valid"][0], model.target, settings)
        files.append(timed(lambda: export(preparation, model.model, head, models.width(settings))))
        timed(lambda: model.raw(probe))
        timed(lambda: load_scorer(files[-1]).score(rows["probe"]))

    preparation, table = prepared(["train"])
    valid, probe = (timed(lambda p=p: preparation.transform(rows[p])) for p in ("valid", "probe"))
    fitting.AT_ONCE = 1  # one call after the other
    names = settings.modelling.candidates
    sizes = timed(lambda: fitting.find_sizes(names, table, settings, use_folds=False))
    for name in ("heuristic", "simple", *names):
        fit(name, preparation, table, probe)
    # What ships, and the fallback, again on train and valid
    preparation, table = prepared(["train", "valid"])
    valid, probe = (timed(lambda p=p: preparation.transform(rows[p])) for p in ("valid", "probe"))
    for name in ("simple", names[-1]):
        fit(name, preparation, table, probe)
    scorer = load_scorer(files[-1])
    first_rows = rows["test"].head(50_000)
    evaluation = settings.modelling.evaluation
    # Evaluation: the test rows, again with noise and for each expectation; reference: train
    for part in (
        rows["test"],
        first_rows,
        *[first_rows] * len(evaluation.expectations),
        rows["train"],
    ):
        timed(lambda part=part: scorer.score(part))
    print(sum(spent), sum(spent) + imports)


def usual_preparation(settings: Settings, model: Any) -> Any:
    """The pipeline that people serve: the same features by scikit-learn's own transformers."""
    from my_model.features.catalogue import selected
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import (
        KBinsDiscretizer,
        OneHotEncoder,
        OrdinalEncoder,
        StandardScaler,
    )

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
    parts = [(kind, makers[kind](), names) for kind, names in by.items()]
    return make_pipeline(ColumnTransformer(parts), model)


def one_row() -> None:
    """One row through the exported model against the pipeline that people serve, as a ratio of medians:
    the same features by scikit-learn's own transformers and the same LightGBM."""
    from lightgbm import LGBMClassifier
    from my_model.features.catalogue import inputs
    from my_model.features.catalogue import load as read
    from my_model.modelling import fitting
    from my_model.modelling.boosting import Size
    from my_model.modelling.calibration import Calibration
    from my_model.modelling.export import export
    from my_model.modelling.scorer import load_scorer
    from my_model.paths import SPLITS
    from my_model.problem import models

    settings = load()
    columns = inputs(settings)
    train = read(Path(SPLITS["train"]), columns)
    y = duckdb.execute(f"SELECT _y FROM '{SPLITS['train']}'").fetchnumpy()["_y"]
    keys = fitting.RowKeys("random", y)
    preparation, table = fitting.fit_features(train, y, keys, settings)
    # As many trees as the peer has
    fitted = fitting.fit_model("lightgbm", table, Size(31, -1, 150, 0.0), settings)
    scorer = load_scorer(export(preparation, fitted.model, Calibration(), models.width(settings)))

    usual = usual_preparation(settings, LGBMClassifier(n_estimators=150, n_jobs=1, verbose=-1))
    usual.fit(train, y)
    frames = [train.iloc[[turn]] for turn in range(50)]
    feeds = [scorer.feed(row) for row in frames]
    spent: list[list[float]] = [[], []]
    for _ in range(8):  # in turn, so that a busy moment of the machine meets both
        for side, (call, rows) in enumerate(
            (
                (usual.predict_proba, frames),
                (lambda feed: scorer.session.run(["score"], feed), feeds),
            )
        ):
            for row in rows:
                start = time.perf_counter()
                call(row)
                spent[side].append(time.perf_counter() - start)
    served, exported = (statistics.median(seconds) for seconds in spent)
    print(served / exported)


def pipeline(scratch: str) -> None:
    """Leave the pipeline that people serve for other servers, and 100 whole rows to ask them all."""
    import importlib.metadata
    import json

    import joblib
    import numpy as np
    from my_model.features.catalogue import inputs
    from my_model.features.catalogue import load as read
    from my_model.modelling.boosting import Boosted, Size

    settings = load()
    columns = inputs(settings)
    train = read(Path("data/split/train.parquet"), columns)
    y = duckdb.execute("SELECT _y FROM 'data/split/train.parquet'").fetchnumpy()["_y"].astype(int)
    model = Boosted.of(settings, Size(31, -1, 150, 0.0), 7)
    fitted = usual_preparation(settings, model).fit(train, y)
    joblib.dump(fitted, f"{scratch}/pipeline.joblib")
    test = read(Path("data/split/test.parquet"), columns)
    numbers = [name for name, kind in columns.items() if kind in ("number", "bool")]
    whole = np.flatnonzero(np.isfinite(test.select_dtypes("number")).all(axis=1))[:100]
    frame = test.iloc[whole].to_dict("records")
    plain = [
        {name: value if isinstance(value, str) else float(value) for name, value in row.items()}
        for row in frame
    ]
    versions = [
        f"{name}=={importlib.metadata.version(name)}"
        for name in ("scikit-learn", "numpy", "joblib", "pandas")
    ]
    contents = {"rows": plain, "numbers": numbers, "versions": versions}
    Path(scratch, "rows.json").write_text(json.dumps(contents))


def text_pipeline(scratch: str) -> None:
    """Leave the pipeline that people serve for the project's one text, and 100 texts to ask all servers."""
    import importlib.metadata
    import json

    import joblib
    from my_model.features.catalogue import inputs
    from my_model.features.catalogue import load as read
    from my_model.features.text import MAX_NGRAMS, MIN_TEXTS
    from my_model.paths import SPLITS
    from sklearn.compose import make_column_transformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    columns = inputs(load())
    (name,) = columns
    train, test = (read(Path(SPLITS[part]), columns) for part in ("train", "test"))
    y = duckdb.execute(f"SELECT _y FROM '{SPLITS['train']}'").fetchnumpy()["_y"].astype(int)
    counts = TfidfVectorizer(
        ngram_range=(1, 2), min_df=MIN_TEXTS, max_features=MAX_NGRAMS, sublinear_tf=True
    )
    usual = make_pipeline(
        make_column_transformer((counts, name)), LogisticRegression(max_iter=1000)
    )
    joblib.dump(usual.fit(train, y), f"{scratch}/pipeline.joblib")
    texts = test[name].tolist()[:100]
    versions = [
        f"{package}=={importlib.metadata.version(package)}"
        for package in ("scikit-learn", "numpy", "joblib", "pandas")
    ]
    contents = {"rows": [{name: text} for text in texts], "numbers": [], "versions": versions}
    Path(scratch, "rows.json").write_text(json.dumps(contents))


def text_alone(scratch: str, seconds: str) -> None:
    """The mean seconds that one of the texts takes through ONNX Runtime, and through the function that normalises."""
    import json

    import pandas as pd
    from my_model.model import normalized
    from my_model.modelling.scorer import load_scorer
    from my_model.paths import MODEL

    rows = pd.DataFrame(json.loads(Path(scratch, "rows.json").read_text())["rows"])
    texts = rows.iloc[:, 0].tolist()
    scorer = load_scorer(Path(MODEL))
    feeds = [scorer.feed(rows.iloc[[row]]) for row in range(len(rows))]
    spent, calls, start = [0.0, 0.0], 0, time.perf_counter()
    while time.perf_counter() - start < float(seconds):
        for feed, text in zip(feeds, texts, strict=True):
            before = time.perf_counter()
            scorer.session.run(["score"], feed)
            between = time.perf_counter()
            normalized(text)
            spent = [spent[0] + between - before, spent[1] + time.perf_counter() - between]
            calls += 1
    print(*(total / calls for total in spent))


def write_photos(folder: str) -> None:
    """900 photos, a folder for the usual ones and one for those that are a little darker, which some of the others are by chance."""
    import base64

    from served_images import photo

    for number in range(900):
        kind, light = ("dark", -6) if number % 3 == 0 else ("usual", 0)
        path = Path(folder, kind, f"{number}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(photo(number, light)))


def image_pipeline(scratch: str, photos: str) -> None:
    """Leave the pipeline that people serve for the project's one image, and 100 images to ask all servers."""
    import base64
    import importlib.metadata
    import json

    import joblib
    from served_images import photo
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    sys.path.insert(0, scratch)
    from decoding import to_pixels

    files = sorted(Path(photos).rglob("*.jpg"))
    train = pd.DataFrame({"image": [base64.b64encode(f.read_bytes()).decode() for f in files]})
    dark = np.array([path.parent.name == "dark" for path in files])
    usual = make_pipeline(
        make_column_transformer((FunctionTransformer(to_pixels), "image")),
        LogisticRegression(max_iter=200),
    )
    joblib.dump(usual.fit(train, dark), f"{scratch}/pipeline.joblib")
    versions = [
        f"{package}=={importlib.metadata.version(package)}"
        for package in ("scikit-learn", "numpy", "joblib", "pandas", "pillow")
    ]
    rows = [{"image": photo(seed)} for seed in range(100)]
    Path(scratch, "rows.json").write_text(
        json.dumps({"rows": rows, "numbers": [], "versions": versions})
    )


def scored(file: str) -> None:
    """Seconds of the command `score` on a file, and its peak memory in bytes."""
    import subprocess

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "my_model",
            "score",
            file,
            "--out",
            f"{folder}/out.parquet",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
    print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)


def predicted(file: str, kind: str) -> None:
    """Seconds of `pipeline.predict` on a file, 100,000 rows at a time; fitting is not counted.

    own: the preparation and the model that `train` chose, fitted as it fits them · usual: the same
    model behind scikit-learn's own transformers.
    """
    import json
    import os
    import subprocess

    from my_model.features.catalogue import READ_SQL, inputs
    from my_model.features.catalogue import load as read
    from my_model.modelling import fitting
    from my_model.modelling.boosting import Boosted
    from my_model.modelling.train import read_label
    from my_model.paths import SPLITS
    from my_model.problem import models
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    settings = changed(load(), modelling__threads=os.cpu_count())
    chosen = json.loads(Path("models/manifest.json").read_bytes())["chosen"]
    columns = inputs(settings)
    y = duckdb.execute(f"SELECT _y FROM '{SPLITS['train']}'").fetchnumpy()["_y"]
    label, keys = read_label(Path(SPLITS["train"]), settings)
    rows = read(Path(SPLITS["train"]), columns)
    preparation, table = fitting.fit_features(rows, label, keys, settings)
    sizes = fitting.find_sizes([chosen], table, settings, use_folds=False)
    folds = keys.folds(fitting.STACK_FOLDS, settings.project.seed)
    size = sizes[models.SIZED[chosen]]
    seed = settings.project.seed
    model = models.candidate(chosen, settings, seed, Boosted.of(settings, size, seed), folds)
    make = {
        "own": lambda: make_pipeline(FunctionTransformer(preparation.transform), model),
        "usual": lambda: usual_preparation(settings, model),
    }[kind]
    pipeline = make().fit(rows, y)
    # What a script with these imports takes to start, as `score` takes it too
    imports = "import duckdb, pandas, sklearn.pipeline, lightgbm"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", imports], check=True)
    database = duckdb.connect()
    picked = ", ".join(
        f"{READ_SQL[type_].format(name)} AS {name}" for name, type_ in columns.items()
    )
    numbers = {name: "float32" for name, type_ in columns.items() if type_ in ("number", "bool")}
    rows = database.execute(f"SELECT {picked} FROM '{file}'")
    writer = duckdb.connect()
    writer.execute("CREATE TABLE scores (score DOUBLE)")
    while len(chunk := rows.fetch_df_chunk(49)):  # of 2048 rows
        score = {"score": pipeline.predict_proba(chunk.astype(numbers))[:, 1]}  # noqa: F841
        writer.execute("INSERT INTO scores SELECT * FROM score")
    with tempfile.TemporaryDirectory() as folder:
        writer.execute(f"COPY scores TO '{folder}/scores.parquet'")
    print(time.perf_counter() - start)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
