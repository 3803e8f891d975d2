"""Whether the exported file says what the trained model says, of usual rows and of odd ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..model import Scorer

UNSEEN = "\x7f never seen"
Array = np.ndarray


def parity(trained: Array, scorer: Scorer, rows: pd.DataFrame, unit: float | Array = 1.0) -> float:
    """The largest |difference| between the trained pipeline's scores and the exported model's.

    Args:
        trained: the pipeline's score of `rows`, shape (n,), or (n, classes) where each has its own.
        unit: what differences are divided by: for a number, the label's standard deviation; one
            value, or one a row.

    Returns:
        infinity when either gives no finite number for some row.
    """
    gap = np.abs(trained - scorer.score(rows)) / unit
    return float(gap.max()) if np.isfinite(gap).all() else float("inf")


def with_extremes(rows: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """The rows, and copies of the first twenty with what training is unlikely to have had.

    Each column by itself, and all together: missing, unknown, very long, huge, infinite.
    """
    numbers = [np.nan, 1e30, -1e30, np.inf, -np.inf, 0.0]
    odd: dict[str, list[Any]] = {
        "category": ["", UNSEEN, "é 日本", "x" * 300],
        "time": [*numbers, 4e9, -4e9],
    }
    values = {name: odd.get(type_, numbers) for name, type_ in columns.items()}
    changes: list[dict[str, Any]] = [{name: value} for name in columns for value in values[name]]
    changes += [
        {name: values[name][turn % len(values[name])] for name in columns} for turn in range(8)
    ]
    copies = [rows.head(20).assign(**change) for change in changes]
    return pd.concat([rows, *copies], ignore_index=True).astype(rows.dtypes.to_dict())
