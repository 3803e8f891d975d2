"""What every candidate of a number has to beat: a constant, one rule, a simple model."""

from __future__ import annotations

import numpy as np
from sklearn.tree import DecisionTreeRegressor

from ..settings import Settings
from .candidates import QuantileTree, quantile

Array = np.ndarray


def floor(y: Array, n: int, settings: Settings, seed: int) -> Array:
    """The same number for each of n rows: the training label's mean, or the quantile of the loss."""
    share = quantile(settings)
    return np.full(n, np.mean(y) if share is None else np.quantile(y, share))


def make(name: str, rows: int, settings: Settings, seed: int) -> DecisionTreeRegressor:
    """An unfitted baseline that can be exported and serve as the fallback.

    heuristic: the one best rule on one feature · simple: a tree of four questions. A leaf answers
    with the mean of its rows, or the quantile that the loss asks for.

    Args:
        rows: of training; a leaf holds at least a five-hundredth of them, and 20.
    """
    return QuantileTree(
        share=quantile(settings),
        max_depth={"heuristic": 1, "simple": 4}[name],
        min_samples_leaf=max(20, rows // 500),
        random_state=seed,
    )
