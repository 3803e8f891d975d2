"""What every candidate of a yes-or-no problem has to beat: chance, one rule, a simple model."""

from __future__ import annotations

import numpy as np
from sklearn.tree import DecisionTreeClassifier

from ..settings import Settings
from .candidates import class_weight

Array = np.ndarray


def floor(y: Array, n: int, settings: Settings, seed: int) -> Array:
    """A score drawn at random for each of n rows: what comes of knowing nothing."""
    return np.random.default_rng(seed).random(n)


def make(name: str, rows: int, settings: Settings, seed: int) -> DecisionTreeClassifier:
    """An unfitted baseline that can be exported and serve as the fallback.

    heuristic: the one best rule on one feature · simple: a tree of four questions.

    Args:
        rows: of training; a leaf holds at least a five-hundredth of them, and 20.
    """
    return DecisionTreeClassifier(
        max_depth={"heuristic": 1, "simple": 4}[name],
        min_samples_leaf=max(20, rows // 500),
        class_weight=class_weight(settings),
        random_state=seed,
    )
