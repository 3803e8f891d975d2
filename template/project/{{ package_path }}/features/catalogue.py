"""What the model may see: the selected features, the raw columns behind them, and the leak checks.

Light to import: the preparations themselves are in pipeline.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from .. import problem
from ..agreements import SUMMED
from ..data.label import MIN_ROWS_TO_JUDGE, adds_up, numbers_rows, predictiveness
from ..data.schema import WEIGHT
from ..data.schema import name as quoted
from ..goals.gate import sample_rows
from ..histories import history_values
from ..images import Form, pixels
from ..problem import data as problem_data
from ..problem.features import OWN
from ..settings import STRINGS, Feature, Settings, UserError, require_file

Array = np.ndarray

# How a column is read from Parquet
READ_SQL = {
    "number": "CAST({0} AS DOUBLE)",
    "bool": "CAST({0} AS DOUBLE)",
    "category": "coalesce({0}, '')",
    "text": "coalesce({0}, '')",
    "image": "coalesce({0}, '')",
    "history": "coalesce({0}, '')",
    "time": "epoch({0})",
}
MAX_ROWS = 20_000  # that a leak check looks at
# The operator of the graph, and numpy's, by which a crossing joins two numbers
OPERATIONS: dict[str, tuple[str, Any]] = {
    "product": ("Mul", np.multiply),
    "ratio": ("Div", np.divide),
    "difference": ("Sub", np.subtract),
}
WATCHED_FORM = Form(32, 1, "stretch")  # of images, whose brightness and contrast need no more


def selected(settings: Settings) -> dict[str, Feature]:
    """The features that are used and known at prediction time, in the catalogue's order."""
    catalogue = settings.features.catalogue
    return {name: feature for name, feature in catalogue.items() if feature.use and feature.known}


def sources(name: str, feature: Feature) -> tuple[str, ...]:
    """The raw columns that a feature is made from."""
    return feature.cross or (feature.column or name,)


def inputs(settings: Settings) -> dict[str, str]:
    """The model's inputs: raw column -> type (number, bool, category, text, image, history or time), sorted by name.

    Raises:
        UserError: when a feature of the team's own takes a column that there is not.
    """
    columns = settings.data.schema_.columns
    names = {raw for item in selected(settings).items() for raw in sources(*item)}
    for name, feature in OWN.items():
        for raw in feature.columns:
            if not _can_be_learnt_from(raw, settings):
                reason = f"{raw!r} is no column to learn from"
                raise UserError(f"problem/features.py: OWN: {name}: {reason}")
        names |= {*feature.columns}
    return {name: columns[name].type for name in sorted(names)}


def _can_be_learnt_from(raw: str, settings: Settings) -> bool:
    """Whether there is such a column, which is kept and is not the label's."""
    column, label = settings.data.schema_.columns.get(raw), settings.data.label
    if column is None or raw in (label.column, label.time):
        return False
    return not (column.personal and settings.data.personal == "drop")


def crossed(left: Array, right: Array, operation: str | None) -> Array:
    """Two numbers of each row as one, by default their product; a ratio to 0 is missing."""
    with np.errstate(all="ignore"):
        values: Array = OPERATIONS[operation or "product"][1](left, right)
    return np.where(right == 0, np.nan, values) if operation == "ratio" else values


def load(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """The model's inputs, in the file's row order.

    Args:
        columns: raw column -> type, as `features.catalogue.inputs` gives them.

    Returns:
        number and bool as float32 (missing NaN, beyond its range infinite), category, text,
        image and history as str (missing ""), time as float64 seconds since 1970 (missing NaN).

    Raises:
        UserError: when the file is not there.
    """
    selection = [
        f"{READ_SQL[type_].format(quoted(name))} AS _{i}"
        for i, (name, type_) in enumerate(columns.items())
    ]
    query = f"SELECT {', '.join(selection)} FROM read_parquet(?)"
    frame = duckdb.execute(query, [str(require_file(path))]).df()
    frame.columns = pd.Index(list(columns))
    narrow = {name: np.float32 for name, type_ in columns.items() if type_ in ("number", "bool")}
    with np.errstate(over="ignore"):
        return frame.astype(narrow)


def load_truth(path: Path) -> Array:
    """What came true of a part's n rows, in the file's order: float64, shape (n,), or (n, columns) where
    `problem.data.TRUTH` has several."""
    selection = ", ".join(f"{sql} AS _{i}" for i, sql in enumerate(problem_data.TRUTH))
    query = f"SELECT {selection} FROM read_parquet(?)"
    columns = duckdb.execute(query, [str(require_file(path))]).fetchnumpy().values()
    truth = np.column_stack([np.ma.filled(column, np.nan) for column in columns])
    return truth.astype(np.float64) if truth.shape[1] > 1 else truth[:, 0].astype(np.float64)


def load_weight(path: Path) -> Array | None:
    """How much each of a part's n rows counts, in the file's order, shape (n,); None where all count alike."""
    part = duckdb.read_parquet(str(path))
    if WEIGHT not in part.columns:
        return None
    return np.asarray(part.project(f"CAST({WEIGHT} AS DOUBLE) AS weight").fetchnumpy()["weight"])


def as_numbers(rows: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """The model's inputs with a number in the place of each free text, image and history, missing NaN.

    Of a text its length in characters, of an image its brightness, from 0 for black to 1 for white, of a history what
    its latest values are to all of them: whatever its level is, 1 where it goes on as it did.
    """
    numbers: dict[str, Any] = {}
    for name, type_ in columns.items():
        if type_ == "text":
            numbers[name] = rows[name].str.len().astype(np.float64).replace(0, np.nan)
        elif type_ == "image":
            numbers[name] = np.array([light(image)[0] for image in rows[name]])
        elif type_ == "history":
            numbers[name] = np.array([momentum(text) for text in rows[name]])
    return rows.assign(**numbers)


@lru_cache(maxsize=100_000)  # the rows of one path share it
def momentum(history: str | None) -> float:
    """The mean of the latest eighth of a stored history's values as a share of the mean of all; NaN where there is none."""
    values = history_values(history or "", None)
    present = values[np.isfinite(values)].astype(np.float64)
    mean = present.mean() if len(present) else 0.0
    if not mean:
        return np.nan
    # Rounded: a series twice as large has the same number, and not one beyond the largest of training by a last bit
    return round(float(present[-max(1, len(present) // 8) :].mean() / mean), 5)


def light(image: str | None) -> tuple[float, float]:
    """Brightness and contrast of a stored image: mean and standard deviation of its pixels, of 0 to 1; else NaN."""
    if not image:
        return np.nan, np.nan
    values = small_pixels(image)
    return float(values.mean()), float(values.std())


@lru_cache(maxsize=2048)  # the rows of which the database asks for column after column
def small_pixels(image: str) -> Array:
    """The grey pixels of a stored image once it is 32 by 32, each from 0 to 1, shape (1024,)."""
    values: Array = pixels(image, WATCHED_FORM).ravel() / 255
    return values


def ends(paths: Sequence[Path], name: str, type_: str) -> tuple[float, float] | None:
    """The least and the greatest finite value of a column of numbers, yes and no or times, in all of its 64 bits.

    Args:
        paths: of Parquet files.

    Returns:
        None where no value is finite.
    """
    value = READ_SQL[type_].format(quoted(name))
    query = f"SELECT min({value}), max({value}) FROM read_parquet(?) WHERE isfinite({value})"
    ((low, high),) = duckdb.execute(query, [[*map(str, paths)]]).fetchall()
    return None if low is None else (low, high)


def check_leaks(train: pd.DataFrame, y: Array, settings: Settings) -> None:
    """Stop when a feature gives the label away or names the row.

    Refused are an identifier, a feature that predicts the label by itself at least as well as
    `features.leak_score`, and for a number as the label, numbers that make it up together. Looks at
    no more than 20,000 rows, drawn with the project's seed.

    Args:
        train: the model's inputs as `features.catalogue.load` gives them, n training rows.
        y: the label as models learn it, shape (n,).

    Raises:
        UserError: naming the columns.
    """
    seed, limit = settings.project.seed, settings.features.leak_score
    kinds = inputs(settings)
    if identifiers := [name for name in kinds if _identifies_rows(train[name], kinds[name])]:
        raise UserError(
            f"features.catalogue: {', '.join(identifiers)} is (nearly) a different value in every row: "
            f"an identifier, which a model can only learn by heart; set use: false"
        )
    rows = sample_rows(len(y), MAX_ROWS, seed)
    train, y = train.iloc[rows], y[rows]
    scores = {name: predictiveness(values, y, seed) for name, values in _values(train, settings)}
    if leaks := [f"{name} ({score:.4f})" for name, score in scores.items() if score >= limit]:
        raise UserError(
            f"features.catalogue: {', '.join(leaks)} predicts the label by itself "
            f"(features.leak_score: {limit}); is it known only after the fact? set known: false"
        )
    if problem.CLASSES:
        return
    plain = {name for name, kind in kinds.items() if kind not in ("time", "history", *SUMMED)}
    parts = {str(name): values for name, values in train.items() if name in plain}
    addends, formula = adds_up(parts, y)
    if addends:
        raise UserError(
            f"features.catalogue: the label is a {formula} of {', '.join(addends)}; "
            f"set known: false for what is known only with it"
        )


def _values(train: pd.DataFrame, settings: Settings) -> Iterator[tuple[str, Array]]:
    """Each raw column and each crossing, as one array of n numbers or texts; of an image, whether there is one."""
    for name, type_ in inputs(settings).items():
        if type_ in (
            "image",
            "history",
        ):  # what it shows is to predict the label, but not that it is there
            yield f"whether {name} is there", (train[name] != "").to_numpy(np.float64)
        else:
            yield name, train[name].to_numpy(object if type_ in STRINGS else np.float64)
    for name, feature in selected(settings).items():
        if feature.cross:
            left, right = (train[raw] for raw in feature.cross)
            if feature.encode in ("one_hot", "hash", "target"):
                yield name, (left + "\x1f" + right).to_numpy(object)
            else:
                numbers = left.to_numpy(np.float64), right.to_numpy(np.float64)
                yield name, crossed(*numbers, feature.operation)


def _identifies_rows(values: pd.Series, type_: str) -> bool:
    """Whether a category is nearly unique, or a whole number counts or numbers the rows."""
    if type_ == "category":
        present = values[values != ""]
        return len(present) >= MIN_ROWS_TO_JUDGE and present.nunique() > 0.9 * len(present)
    if type_ in SUMMED or type_ == "history":
        return False
    present = values[np.isfinite(values)].to_numpy(np.float64)
    n = len(present)
    if type_ != "number" or n < MIN_ROWS_TO_JUDGE or not np.all(present == np.floor(present)):
        return False
    return numbers_rows(present.min(), present.max(), len(np.unique(present)), n)
