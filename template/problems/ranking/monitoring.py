"""YOURS: what the monitor watches of orders, and what its drills break."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from . import LabelKeys
from .data import GAIN, POSITION, RAW

Array = np.ndarray
# Metrics that are estimated from what the inputs tell of the error: none of an order
ERRORS: dict[str, str] = {}
# Decisions of 1 whose share is watched by itself, as a reader calls them
FLAGGED: str | None = None
# Metrics that labels of such rows alone can tell
OF_FLAGGED: frozenset[str] = frozenset()
LABEL_BINS = 10


def row_loss(y: Array, score: Array) -> Array:
    """What a row adds to the figure that is watched, shape (n,): the squared error of its expected gain."""
    return (score - y) ** 2


def label_edges(y: Array, label: LabelKeys) -> list[float]:
    """The upper ends of the bins that gains are counted in; nothing gained is one of its own."""
    gains = y[y > 0] if (y > 0).any() else np.ones(1)
    inner = np.unique(np.quantile(gains, np.linspace(0, 1, LABEL_BINS)[1:-1]))
    # A little above each value: what a log gives back may differ in its last bits
    return [0.0, *(inner * (1 + 1e-6)).tolist(), float("inf")]


def score_cuts(decision: float) -> list[float]:
    """Where the bins of the score must end: anywhere."""
    return []


def ranked(y: Array) -> Array:
    """Labels from 0 to 1 in their order, shape (n,), for the drill that draws the higher ones more often."""
    return pd.Series(y).rank(pct=True).to_numpy()


def written(label: LabelKeys, values: Sequence[str]) -> list[str]:
    """How the labels 0 and 1 are written; nothing of a number."""
    return []


def fed_back(y: Array, truth: Array) -> Array:
    """Labels as they come back from where a row was shown, shape (n,): gains less the weight of the place."""
    if truth.ndim == 1:
        return y
    weight = np.divide(
        truth[:, GAIN], np.exp2(truth[:, RAW]) - 1, out=np.ones(len(y)), where=truth[:, RAW] > 0
    )
    usual = (
        pd.Series(np.where(truth[:, RAW] > 0, weight, np.nan))
        .groupby(truth[:, POSITION])
        .transform("mean")
    )
    return np.log2(1 + y / usual.fillna(1.0).to_numpy())


def placed(truth: Array, decisions: Any) -> Any:
    """The logged decisions of rows that are drawn one by one, shape (n,): where they were shown."""
    return decisions if truth.ndim == 1 else truth[:, POSITION]


def strange(y: Array, label: LabelKeys, values: Sequence[str], rng: np.random.Generator) -> Array:
    """Labels in another unit, shape (n,)."""
    return y * 100
