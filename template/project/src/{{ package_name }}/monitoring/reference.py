"""A compact profile of the training rows and the model's scores, to compare later data with.

It holds counts only, no rows: enough to tell a shift without the training data at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from ..data.split import PARTS
from ..features.catalogue import inputs, load
from ..modelling.export import MODEL, Scorer
from ..settings import Settings

REFERENCE = "monitoring/reference.parquet"
MOST_CATEGORIES = 100


def reference(settings: Settings, root: Path) -> dict[str, Any]:
    """Write monitoring/reference.parquet: a row for each bin or category of each column.

    Columns: `column`, `kind` (number, category, time or score), `bin` (its order), `low` and `high`
    (of a bin: low < value <= high, the first one open below and the last one above), `category`,
    `count` and `share`. Missing values are a category of their own named `(missing)`, and all
    beyond the hundred commonest categories are `(other)`.
    """
    rows = load(root / PARTS["train"], inputs(settings))
    bins = settings.monitoring.reference_bins
    parts = []
    for name, kind in inputs(settings).items():
        profile = _categories(rows[name]) if kind == "category" else _bins(rows[name], bins)
        parts.append(profile.assign(column=name, kind=kind))
    score = pd.Series(Scorer(root / MODEL).score(rows))
    parts.append(_bins(score, bins).assign(column="score", kind="score"))
    table = pd.concat(parts, ignore_index=True)
    table["share"] = table["count"] / len(rows)
    (root / REFERENCE).parent.mkdir(parents=True, exist_ok=True)
    duckdb.sql(
        'SELECT "column", kind, bin, low, high, category, count, share FROM "table"'
    ).write_parquet(str(root / REFERENCE))
    return {"rows": len(rows), "columns": len(parts)}


def _bins(values: pd.Series, bins: int) -> pd.DataFrame:
    """Counts in bins of about equal size; edges are quantiles, so that outliers take no room."""
    known = values.dropna().to_numpy(np.float64)
    known = known[np.isfinite(known)]
    shares = np.linspace(0, 1, bins + 1)[1:-1]
    inner = np.unique(np.quantile(known, shares)) if len(known) else np.empty(0)
    edges = np.concatenate([[-np.inf], inner, [np.inf]])
    counts = np.bincount(np.searchsorted(edges[1:-1], known, side="left"), minlength=len(edges) - 1)
    table = pd.DataFrame(
        {
            "bin": np.arange(len(counts)),
            "low": edges[:-1],
            "high": edges[1:],
            "category": None,
            "count": counts,
        }
    )
    return _with_missing(table, len(values) - len(known))


def _categories(values: pd.Series) -> pd.DataFrame:
    known = values[values != ""]
    counts = known.value_counts()
    counts = counts.sort_index().sort_values(ascending=False, kind="stable")
    top = counts.iloc[:MOST_CATEGORIES]
    rest = int(counts.iloc[MOST_CATEGORIES:].sum())
    names, sizes = [*map(str, top.index)], [*map(int, top)]
    if rest:
        names, sizes = [*names, "(other)"], [*sizes, rest]
    table = pd.DataFrame({"category": names, "count": sizes})
    table = table.assign(bin=np.arange(len(table)), low=np.nan, high=np.nan)
    return _with_missing(table, len(values) - len(known))


def _with_missing(table: pd.DataFrame, missing: int) -> pd.DataFrame:
    row = {
        "bin": len(table),
        "low": np.nan,
        "high": np.nan,
        "category": "(missing)",
        "count": missing,
    }
    return pd.DataFrame([*table.to_dict("records"), row])
