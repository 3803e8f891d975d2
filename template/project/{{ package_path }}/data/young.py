"""Rows younger than the days that a label takes, whose label came already: for training alone, each weighed by how
seldom a label like its own has come by its age, as among young rows the labels that come soon are too many."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import duckdb
import numpy as np
import pandas as pd

from .. import problem
from ..paths import YOUNG
from ..problem import data as problem_data
from ..settings import Settings
from .schema import AGE, CAME_AT, WEIGHT, text
from .source import PARQUET

LEAST_SHARE = 0.1  # of the labels of each value, that came by an age from which on rows are taken
MIN_LABELS = 20  # of a value, fewer of which say nothing of when such labels come
BINS = 5  # of labels that are numbers, each a fifth of them

Array = np.ndarray
# What `rows` of the split has for `_side` of a young row: of train, of valid (learnt from once valid is), of neither
SIDES = {"train": -2, "valid": -3}
NEITHER = -4


class YoungReport(TypedDict):
    """What reports/split.json says of young rows."""

    rows: dict[
        str, int
    ]  # that are learnt from with train, and with valid too once valid is learnt from
    effective_rows: float  # of all of these, by their weights (Kish, 1965)
    from_days: (
        float | None
    )  # the age from which on LEAST_SHARE of the labels of each value came; None: not to tell
    too_early: int  # rows with a label that are younger than that
    reason: str  # why no row is taken; "" where some are


def arrival(y: Array, days: Array, settings: Settings) -> tuple[list[Array], Array]:
    """After how many days labels of each value came, of rows that are old enough to have all of theirs.

    Args:
        y: n labels, codes of classes or numbers; days: after which each came, shape (n,).

    Returns:
        the days by value, ascending, and of numbers the ends of the bins that they stand in, but the last.
    """
    count, ends = max(2, len(problem_data.named(settings.data.label))), np.empty(0)
    if not problem.CLASSES and len(y):
        shares = np.arange(1, BINS) / BINS
        ends = np.unique(np.quantile(y, shares, method="inverted_cdf"))
        ends = ends[ends < y.max()]  # many equal labels are one bin
        count = len(ends) + 1
    return [np.sort(days[_bins(y, ends) == k]) for k in range(count)], ends


def _bins(y: Array, ends: Array) -> Array:
    return y.astype(int) if problem.CLASSES else np.searchsorted(ends, y)


def weights(came: list[Array], ends: Array, y: Array, ages: Array) -> Array:
    """How much each of n young rows counts: 1 over the share of the labels of its value that came by its age, the
    inverse of its chance to be here (Horvitz and Thompson, 1952).

    Args:
        came, ends: as `arrival` gives them; y, ages: shape (n,), ages in days.
    """
    shares = np.zeros(len(y))
    for k, days in enumerate(came):
        rows = _bins(y, ends) == k
        shares[rows] = np.searchsorted(days, ages[rows], side="right") / max(1, len(days))
    return 1 / np.maximum(shares, LEAST_SHARE)


def first_age(came: list[Array], settings: Settings) -> tuple[float | None, str]:
    """The age in days from which on rows are taken, and why there is none: "" where there is one."""
    least = min(range(len(came)), key=lambda k: len(came[k]))
    if len(came[least]) < MIN_LABELS:
        count = f"{len(came[least])} old enough training rows"
        return None, f"{count} have {_value(least, came, settings)}, which tell no delay"
    ages = [float(np.quantile(days, LEAST_SHARE, method="inverted_cdf")) for days in came]
    latest, delay = int(np.argmax(ages)), settings.data.label.delay_days or 0.0
    if ages[latest] < delay:
        return ages[latest], ""
    return ages[latest], (
        f"less than {LEAST_SHARE:.0%} of the rows with {_value(latest, came, settings)} have their label before "
        f"data.label.delay_days ({delay:g}), so young rows are of other labels"
    )


def _value(k: int, came: list[Array], settings: Settings) -> str:
    """What the labels of one kind are called."""
    if not problem.CLASSES:
        return f"a label in part {k + 1} of {len(came)} by size"
    names = problem_data.named(settings.data.label)
    return f"the label {[*names][k]}" if problem.WIDE else f"{'a' if k else 'no'} {names[0]}"


def set_apart(sql: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Take young rows out of the parts that they were dealt to, before anything is counted or dropped.

    By time a part's rows are young when the next part begins: dealt to it, their label not settled then but here.
    What is young at `data.label.as_of` is later than the test rows and is not used. Otherwise it goes with its group
    or its like, so that nothing of it stands in another part.
    """
    if settings.data.split.by == "time":
        starts = "(SELECT _side - 1 AS side, min(_moment) AS start FROM rows WHERE _side > 0 GROUP BY ALL)"
        sql.execute(
            f"UPDATE rows SET {AGE} = (epoch(start) - epoch(_moment)) / 86400 FROM {starts} AS next "
            f"WHERE rows._side = next.side AND _known_at >= start AND {CAME_AT} < start"
        )
    sql.execute(
        f"UPDATE rows SET _side = CASE _side WHEN 0 THEN {SIDES['train']} WHEN 1 THEN {SIDES['valid']} ELSE {NEITHER} END "
        f"WHERE {AGE} IS NOT NULL"
    )


def write(sql: duckdb.DuckDBPyConnection, settings: Settings, folder: Path) -> YoungReport:
    """Write the young rows of each side that may be trained on, with their weights, once the parts stand.

    Left out is what a row that judges could be known by: what has its group or equals it.
    """
    mature = sql.execute(
        f"SELECT _y, greatest(epoch({CAME_AT}) - epoch(_moment), 0) / 86400 AS days FROM rows "
        f"WHERE _side = 0 AND {CAME_AT} IS NOT NULL AND _moment IS NOT NULL"
    ).fetchnumpy()
    y, days = (np.asarray(mature[key], float) for key in ("_y", "days"))
    came, ends = arrival(y, days, settings)
    from_days, reason = first_age(came, settings)
    shared = ["_group"] + ["_row_key"] * (settings.data.split.near_duplicate_digits is not None)
    apart = " AND ".join(
        f"coalesce({key} NOT IN (SELECT {key} FROM rows WHERE {key} IS NOT NULL AND (_side = 2 OR _side = 1 AND "
        f"young._side = {SIDES['train']})), true)"
        for key in shared
    )
    young = sql.execute(
        f"SELECT rowid AS position, _side, _y, {AGE} AS age FROM rows AS young "
        f"WHERE _side IN ({', '.join(map(str, SIDES.values()))}) AND {apart} ORDER BY ALL"
    ).df()
    is_late = young["age"].to_numpy() >= (np.inf if reason or from_days is None else from_days)
    taken = young[is_late]
    weight = weights(came, ends, taken["_y"].to_numpy(), taken["age"].to_numpy())
    sql.register("taken", pd.DataFrame({"position": taken["position"], WEIGHT: weight}))
    for part, side in SIDES.items():
        sql.execute(
            f"COPY (SELECT labelled.* EXCLUDE ({CAME_AT}, {AGE}), keyed._row_key, {WEIGHT} FROM labelled POSITIONAL JOIN "
            f"(SELECT rowid AS position, _row_key, _side FROM rows) AS keyed JOIN taken USING (position) "
            f"WHERE keyed._side = {side} ORDER BY position) TO {text(str(folder / Path(YOUNG[part]).name))} {PARQUET}"
        )
    effective = float(weight.sum() ** 2 / (weight**2).sum()) if len(weight) else 0.0
    return {
        "rows": {part: int((taken["_side"] == side).sum()) for part, side in SIDES.items()},
        "effective_rows": round(effective, 1),
        "from_days": None if from_days is None else round(from_days, 3),
        "too_early": len(young) - len(taken),
        "reason": reason,
    }


def in_words(young: YoungReport) -> str:
    """What is made of rows younger than a label takes."""
    if young["reason"]:
        return f"no row younger than a label takes is trained on: {young['reason']}"
    count = sum(young["rows"].values())
    return (
        f"{count:,} rows younger than a label takes have theirs and are trained on, as much as {young['effective_rows']:,.0f} "
        f"alike ones by their weights; {young['too_early']:,} younger than {young['from_days']:.3g} days are left out"
    )
