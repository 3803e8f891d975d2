"""Whether the groups that the model is for stand in its training rows as often as among people."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import duckdb
import numpy as np

from .. import paths
from ..data.schema import name
from ..goals.gate import Figure
from ..settings import Settings

# The four-fifths rule (US Uniform Guidelines on Employee Selection Procedures, 29 CFR 1607.4 D), for rows
LEAST_SHARE = 0.8


class Coverage(TypedDict):
    """A value of a column: its share of the training rows with its interval, and among those the model is for."""

    column: str
    value: str
    rows: int
    share: float
    low: float
    high: float
    expected: float
    rare: bool  # surely below four fifths of what is expected


def coverage(settings: Settings, root: Path) -> list[Coverage]:
    """Each group of `governance.groups` in the training rows, by Wilson's interval (1927) at `goals.interval.level`."""
    level, entries = settings.goals.interval.level, []
    for column, shares in settings.governance.groups.items():
        query = (
            f"SELECT lower(CAST({name(column)} AS VARCHAR)) AS value, count(*) FROM read_parquet(?) "
            "WHERE value IS NOT NULL GROUP BY ALL"
        )
        source = str(root / paths.SPLITS["train"])
        counts = dict(duckdb.execute(query, [source]).fetchall())
        rows = sum(counts.values())
        for value, expected in shares.items() if rows else ():
            count = counts.get(value.lower(), 0)
            figure = Figure.of_mean(np.arange(rows) < count, level)
            low, high = float(figure.low or 0), float(figure.high or 0)
            entry = Coverage(
                column=column, value=value, rows=count, share=figure.value, low=low, high=high,
                expected=expected, rare=high < LEAST_SHARE * expected,
            )  # fmt: skip
            entries.append(entry)
    return entries
