"""Boosted trees: how large they are, what they are fitted to, and thresholds that compare alike once exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..problem import models
from ..settings import Boosting, Settings

Array = np.ndarray


@dataclass(frozen=True)
class Target:
    """What a model is fitted to: the label itself, or a number standardised, on the log scale or not.

    Standardised, because the exported model sums in 32 bits. `shift` is added before the logarithm;
    None: no logarithm. `ceiling` bounds the logarithm on the way back, which a line could shoot past.
    """

    spread: float = 1.0
    middle: float = 0.0
    shift: float | None = None
    ceiling: float = np.inf

    @classmethod
    def of(cls, y: Array, shift: float | None = None) -> Target:
        """For training labels, shape (n,)."""
        scaled = y if shift is None else np.log(y + shift)
        top = np.inf if shift is None else float(scaled.max() + np.log(2))
        return cls(float(np.std(scaled)) or 1.0, float(np.mean(scaled)), shift, top)

    def forward(self, y: Array) -> Array:
        """Labels as the model learns them, shape (n,)."""
        scaled = y if self.shift is None else np.log(y + self.shift)
        return (scaled - self.middle) / self.spread

    def back(self, score: Array) -> Array:
        """The model's scores in the label's own unit, shape (n,)."""
        value = score * self.spread + self.middle
        return value if self.shift is None else np.exp(np.minimum(value, self.ceiling)) - self.shift


PLAIN = Target()


@dataclass(frozen=True)
class Size:
    """How large boosted trees were found to be, and what they are fitted to."""

    leaves: int
    depth: int
    trees: int
    loss: float  # on the held-out rows
    shift: float | None = None  # of a number on the log scale
    objective: Mapping[str, Any] = field(default_factory=dict)


class Boosted(models.Trees):
    """LightGBM that rounds its thresholds down to 32-bit floats after each fit.

    The exported tree compares 32-bit floats. A feature is one already, so `x <= t` holds for the
    same rows when t is lowered to the next 32-bit float, and only then for both sides alike.
    """

    @classmethod
    def of(cls, settings: Settings, size: Size, seed: int) -> Boosted:
        """An unfitted one of a size."""
        return cls(**shape(settings.modelling.boosting, size, settings.modelling.threads, seed))

    def fit(self, x: Array, y: Array, **options: Any) -> Any:  # type: ignore[override]
        from lightgbm import Booster

        super().fit(x, y, **options)
        text = self.booster_.model_to_string()
        lines = [
            _lowered(line) if line.startswith("threshold=") else line
            for line in text.split("\n")
            if not line.startswith("tree_sizes=")  # in characters, which have changed
        ]
        self._Booster = Booster(model_str="\n".join(lines))
        return self

    def continue_training(self, x: Array, y: Array) -> Any:
        """Grow half as many trees again on top of those that are there, from other rows."""
        trees = self.get_params()["n_estimators"]
        self.set_params(n_estimators=max(1, trees // 2))
        self.fit(x, y, init_model=self._Booster)
        return self.set_params(n_estimators=trees)


def _lowered(line: str) -> str:
    values = np.array(line.removeprefix("threshold=").split(), dtype=np.float64)
    down = values.astype(np.float32)
    down = np.where(down > values, np.nextafter(down, np.float32(-np.inf)), down)
    return "threshold=" + " ".join(repr(float(value)) for value in down)


def shape(boosting: Boosting, size: Size, threads: int, seed: int) -> dict[str, Any]:
    """LightGBM's parameters for trees of a size; the same ones give the same bits."""
    return {
        "n_estimators": size.trees,
        "num_leaves": size.leaves,
        "max_depth": size.depth,
        "learning_rate": boosting.learning_rate,
        "min_child_samples": boosting.min_leaf_rows,
        "colsample_bytree": boosting.feature_share,
        "reg_lambda": boosting.l2,
        "n_jobs": threads,
        "random_state": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
        **size.objective,
    }
