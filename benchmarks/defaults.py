"""Ten lines of a good engineer: default calls on a project's own split files. Part of tables.py.

    python defaults.py peers FOLDER KIND UNUSED OUT NAME,…   their predictions of the test rows
    python defaults.py ours FOLDER OUT                       those of models/model.onnx

FOLDER is a generated project that has run. `ours` and LightGBM's and scikit-learn's peers run with
the project's environment, CatBoost with one of its own. OUT is a NumPy archive with one array of
shape (test rows,) for each name and the seconds of each fit; `ours` adds the truth.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

MOST_CATEGORIES = 255  # that HistGradientBoosting takes; beyond, it sees the codes as numbers
Array = np.ndarray


def usable(folder: Path, unused: list[str]) -> tuple[Any, Any, Any, Any]:
    """Train and valid together, and test: every column that a good engineer would use.

    All but the label, what `unused` names (ids, names of persons, what is known too late), columns
    of one value and free text. Texts that are numbers throughout are numbers, as pandas reads them;
    other texts are categories; of a time, what people take from it.

    Returns:
        x and y of both.
    """
    parts = [
        duckdb.execute("FROM read_parquet(?)", [str(folder / f"data/split/{part}.parquet")]).df()
        for part in ("train", "valid", "test")
    ]
    rows = pd.concat(parts, ignore_index=True)
    y = rows["_y"].to_numpy(float)
    features: dict[str, Any] = {}
    for name in rows.columns:
        column = rows[name]
        if name.startswith("_") or name in unused or column.nunique() < 2:
            continue
        if pd.api.types.is_datetime64_any_dtype(column):
            for part in ("year", "month", "day", "weekday", "hour"):
                features[f"{name} {part}"] = getattr(column.dt, part).astype(float)
        elif pd.api.types.is_numeric_dtype(column):
            features[name] = column.astype(float)
        elif pd.to_numeric(column, errors="coerce").notna().sum() == column.notna().sum():
            features[name] = pd.to_numeric(column).astype(float)
        elif column.nunique() <= 0.5 * column.notna().sum():
            features[name] = column.astype(object).where(column.notna()).astype("category")
    fitted_rows, x = len(parts[0]) + len(parts[1]), pd.DataFrame(features)
    return x[:fitted_rows], y[:fitted_rows], x[fitted_rows:], y[fitted_rows:]


def coded(x: Any) -> Any:
    """Columns of more categories than HistGradientBoosting takes, as their codes."""
    category_codes = {
        name: x[name].cat.codes.astype(float)
        for name in x.select_dtypes("category")
        if x[name].cat.categories.size > MOST_CATEGORIES
    }
    return x.assign(**category_codes)


def named(x: Any) -> Any:
    """Categories as the texts that CatBoost takes."""
    texts = {
        name: x[name].astype(object).fillna("missing").astype(str)
        for name in x.select_dtypes("category")
    }
    return x.assign(**texts)


def logistic(x: Any) -> Any:
    """Logistic regression on scaled numbers and one column for each category."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_column_selector(dtype_include="number")
    categories = make_column_selector(dtype_include="category")
    prepared = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore"), categories),
    )
    return make_pipeline(prepared, LogisticRegression(max_iter=1000))


def make(name: str, yes_or_no: bool, categories: list[str]) -> Any:
    """A library's default call; `…_l1` the same with the loss that the mean absolute error asks for."""
    library, _, l1 = name.partition("_")
    if library == "lightgbm":
        import lightgbm

        plain = {"verbose": -1, **({"objective": "regression_l1"} if l1 else {})}
        return (lightgbm.LGBMClassifier if yes_or_no else lightgbm.LGBMRegressor)(**plain)
    if library == "histgb":
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        native = {"categorical_features": "from_dtype", "random_state": 0}
        if yes_or_no:
            return HistGradientBoostingClassifier(**native)
        return HistGradientBoostingRegressor(
            loss="absolute_error" if l1 else "squared_error", **native
        )
    import catboost

    quiet = {"verbose": 0, "allow_writing_files": False, "cat_features": categories}
    if yes_or_no:
        return catboost.CatBoostClassifier(**quiet)
    return catboost.CatBoostRegressor(loss_function="MAE" if l1 else "RMSE", **quiet)


def peers(folder: str, kind: str, unused: str, out: str, names: str) -> None:
    """Fit each on train and valid, predict test."""
    x, y, new, _ = usable(Path(folder), unused.split(","))
    classes = kind != "regression"
    shape = {"catboost": named, "histgb": coded}
    answers: dict[str, Any] = {}
    for name in names.split(","):
        form = shape.get(name.partition("_")[0], lambda table: table)
        model = (
            logistic(x)
            if name == "logistic"
            else make(name, classes, list(x.select_dtypes("category")))
        )
        start = time.perf_counter()
        model.fit(form(x), y)
        fitted = time.perf_counter() - start
        new_x = form(new)
        predictions = model.predict_proba(new_x) if classes else model.predict(new_x)
        answers[name] = predictions[:, 1] if kind == "binary" else predictions
        answers[f"seconds {name}"] = fitted
    np.savez(out, columns=np.array(list(x.columns), dtype=str), **answers)


def ours(folder: str, out: str) -> None:
    """The exported model's scores, as the project itself reads and scores the test rows."""
    from my_model.features.catalogue import inputs, load
    from my_model.modelling.scorer import load_scorer
    from my_model.paths import MODEL, SPLITS
    from my_model.settings import load as settings

    root = Path(folder)
    columns = inputs(settings(root / "params.yaml"))
    rows = load(root / SPLITS["test"], columns)
    truth = duckdb.execute(f"SELECT _y FROM '{root / SPLITS['test']}'").fetchnumpy()["_y"]
    score = load_scorer(root / MODEL).score(rows)
    np.savez(out, ours=score, truth=truth, columns=np.array(list(columns), dtype=str))


if __name__ == "__main__":
    {"peers": peers, "ours": ours}[sys.argv[1]](*sys.argv[2:])
