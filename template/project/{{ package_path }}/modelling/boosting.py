"""Boosted trees: how large they are, what they are fitted to, and thresholds that compare alike once exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .. import problem
from ..features.catalogue import selected
from ..problem import models
from ..settings import Modelling, Settings
from .imbalance import as_built_in, log_odds

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
        """The target of training labels, shape (n,); with a shift, of their logarithm."""
        scaled = y if shift is None else np.log(y + shift)
        ceiling = np.inf if shift is None else float(scaled.max() + np.log(2))
        return cls(float(np.std(scaled)) or 1.0, float(np.mean(scaled)), shift, ceiling)

    def forward(self, y: Array) -> Array:
        """Labels as the model learns them, shape (n,)."""
        scaled = y if self.shift is None else np.log(y + self.shift)
        return (scaled - self.middle) / self.spread

    def back(self, score: Array) -> Array:
        """The model's scores in the label's own unit, shape (n,)."""
        value = score * self.spread + self.middle
        return value if self.shift is None else np.exp(np.minimum(value, self.ceiling)) - self.shift


PLAIN = Target()
# What a model is in ONNX
TREE_NODES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
LINEAR_NODES = ("LinearClassifier", "LinearRegressor")


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

    # What fits trees by several workers of a cluster, each with its part of the rows; None: this process fits them
    grow_together: ClassVar[Callable[..., models.Trees | None] | None] = None

    @classmethod
    def of(cls, settings: Settings, size: Size, seed: int) -> Boosted:
        """Unfitted trees of a size."""
        return cls(**lightgbm_params(settings.modelling, size, seed))

    def fit(self, x: Array, y: Array, **options: Any) -> Any:  # type: ignore[override]
        """Fit to a matrix, shape (n, width), and labels, shape (n,), as LightGBM does; round the thresholds.

        A loss that LightGBM does not bring (`objective` is a function) starts at the shares of the classes, as its
        own losses do, and the trees are then read as theirs.
        """
        from lightgbm import Booster

        start = None
        if callable(self.objective):
            start = log_odds(y, options.get("sample_weight")) if problem.CLASSES else np.empty(0)
        if start is not None and len(start) and "init_model" not in options:
            options["init_score"] = np.tile(start, len(y) if len(start) == 1 else (len(y), 1))
        self._grow(x, y, options)
        text = self.booster_.model_to_string()
        lines = [
            _round_down(line) if line.startswith("threshold=") else line
            for line in text.split("\n")
            if not line.startswith("tree_sizes=")  # in characters, which have changed
        ]
        if start is not None:
            lines = as_built_in(lines, start * ("init_model" not in options))
            objective = next(line for line in lines if line.startswith("objective="))
            self._objective = objective.removeprefix("objective=").partition(" ")[0]
        self._Booster = Booster(model_str="\n".join(lines))
        return self

    def _grow(self, x: Array, y: Array, options: Mapping[str, Any]) -> None:
        grow = None if "init_model" in options else type(self).grow_together
        grown = grow(self, x, y, options) if grow else None
        if grown is None:
            super().fit(x, y, **options)
        for key, value in vars(grown).items() if grown else ():
            if "_" in (key[0], key[-1]) and key != "_other_params":  # what it learnt
                setattr(self, key, value)

    def continue_training(self, x: Array, y: Array, **options: Any) -> Any:
        """Grow half as many trees again on top of the fitted ones, from other rows: (n, width) and (n,)."""
        trees = self.get_params()["n_estimators"]
        self.set_params(n_estimators=max(1, trees // 2))
        self.fit(x, y, init_model=self._Booster, **options)
        return self.set_params(n_estimators=trees)


def monotone_signs(names: Sequence[str], settings: Settings) -> list[int]:
    """Of each column of the matrix 1 where it must not lower the score, -1 where it must not raise it, else 0: of numbers,
    as they are or in bins, by `modelling.evaluation.expectations`."""
    ways, expected = {"up": 1, "down": -1}, settings.modelling.evaluation.expectations
    signs = {
        name: ways[expected[column]]
        for name, feature in selected(settings).items()
        if (column := feature.column or name) in expected
        and feature.encode in ("number", "bins")
        and not feature.cross
    }
    return [signs.get(name.partition(" > ")[0], 0) for name in names]


def boosted_within(model: Any) -> list[Boosted]:
    """The boosted trees that a fitted model is or holds: those of a stack, and of each draw of a bag."""
    if isinstance(model, Boosted):
        return [model]
    parts = getattr(model, "estimators_", ())
    return [trees for part in parts for trees in boosted_within(part)]


def _round_down(line: str) -> str:
    values = np.array(line.removeprefix("threshold=").split(), dtype=np.float64)
    rounded = values.astype(np.float32)
    rounded = np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    return "threshold=" + " ".join(repr(float(value)) for value in rounded)


def lightgbm_params(modelling: Modelling, size: Size, seed: int) -> dict[str, Any]:
    """LightGBM's parameters for trees of a size; equal parameters give equal trees, bit by bit."""
    boosting = modelling.boosting
    return {
        "n_estimators": size.trees,
        "num_leaves": size.leaves,
        "max_depth": size.depth,
        "learning_rate": boosting.learning_rate,
        "min_child_samples": boosting.min_leaf_rows,
        "colsample_bytree": boosting.feature_share,
        "reg_lambda": boosting.l2,
        "n_jobs": modelling.threads,
        "random_state": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
        **size.objective,
    }
