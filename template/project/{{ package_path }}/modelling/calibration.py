"""From a model's raw score to the answer: a calibration, and for a number the way back to its own unit.

In numpy and as ONNX nodes. A calibration is kept only where it does better on rows that it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from .boosting import PLAIN, Target

if TYPE_CHECKING:
    from ..features.graph import Graph

Array = np.ndarray
Kind = Literal["none", "sigmoid", "isotonic"]
KNOTS = 20
FOLDS = 5  # that a calibration is tried on
# Probabilities are told apart down to these; nearer to 1, a 32-bit float has no digits left
LOWEST, HIGHEST = 1e-7, 1 - 1e-4


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration: a line (for a probability, of its log-odds), or a line through knots.

    `target` undoes what a number was trained as; `factor` then makes up for the logarithm, whose mean
    is not the mean (smearing; Duan, 1983).
    """

    probability: bool
    slope: float = 1.0
    offset: float = 0.0
    knots: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    target: Target = PLAIN
    factor: float = 1.0

    @property
    def straight(self) -> bool:
        return (self.slope, self.offset) == (1.0, 0.0)

    def __call__(self, score: Array) -> Array:
        """The calibrated score in the label's unit, shape (n,)."""
        value = self.target.back(self.adjusted(score))
        if self.factor == 1.0:
            return value
        shift = self.target.shift or 0.0
        return (value + shift) * self.factor - shift

    def adjusted(self, score: Array) -> Array:
        """The calibrated score, still in the unit of training, shape (n,)."""
        if self.knots:
            return np.interp(score, *self.knots)
        if self.straight:
            return score
        if self.probability:
            return 1 / (1 + np.exp(-self.slope * _log_odds(score) - self.offset))
        return self.slope * score + self.offset

    def to_nodes(self, graph: Graph, score: str) -> str:
        """The same, on an output of shape (n, 1)."""
        if self.knots:
            x, y = (np.array(side, dtype=np.float64) for side in self.knots)
            # Each piece adds its slope times how far the score has come along it
            along = graph.add("Sub", score, graph.constant([x[:-1]]))
            along = graph.add("Max", along, graph.constant([[0.0]]))
            along = graph.add("Min", along, graph.constant([np.diff(x)]))
            slopes = (np.diff(y) / np.diff(x))[:, None]
            climbed = graph.add("MatMul", along, graph.constant(slopes))
            score = graph.add("Add", climbed, graph.constant([[y[0]]]))
        elif not self.straight:
            if self.probability:
                score = graph.add("Min", score, graph.constant([[HIGHEST]]))
                score = graph.add("Max", score, graph.constant([[LOWEST]]))
                rest = graph.add("Sub", graph.constant([[1.0]]), score)
                score = graph.add("Log", graph.add("Div", score, rest))
            score = graph.add("Mul", score, graph.constant([[self.slope]]))
            score = graph.add("Add", score, graph.constant([[self.offset]]))
            score = graph.add("Sigmoid", score) if self.probability else score
        return self._back_nodes(graph, score)

    def _back_nodes(self, graph: Graph, score: str) -> str:
        target = self.target
        if target == PLAIN:
            return score
        if target.shift is None:
            score = graph.add("Mul", score, graph.constant([[target.spread]]))
            return graph.add("Add", score, graph.constant([[target.middle]]))

        def number(value: float) -> str:
            return graph.constant([[value]], np.float64)

        # In 64 bits: a last bit of the logarithm is a share of the amount
        wide = graph.add("Cast", score, to=graph.DOUBLE)
        wide = graph.add(
            "Add", graph.add("Mul", wide, number(target.spread)), number(target.middle)
        )
        wide = graph.add("Exp", graph.add("Min", wide, number(target.ceiling)))
        wide = graph.add("Mul", wide, number(self.factor))
        wide = graph.add("Sub", wide, number(target.shift))
        return graph.add("Cast", wide, to=graph.FLOAT)


def _log_odds(score: Array) -> Array:
    score = np.clip(score, LOWEST, HIGHEST)
    return np.log(score / (1 - score))


def fit_calibration(
    kind: Kind,
    y: Array,
    score: Array,
    probability: bool,
    loss: Callable[[Array, Array], float],
    target: Target = PLAIN,
) -> Calibration:
    """Learn a calibration from rows that the model was not fitted on, if it helps.

    sigmoid: logistic regression on the log-odds (Platt, 1999), for a number a line · isotonic: the
    best rising steps (Zadrozny and Elkan, 2002) over twenty groups of equal size, joined by lines,
    and going on beyond the first and the last. It is fitted to four fifths of the rows five times;
    where the other fifths are not better off, or a score falls where the truth rises, none is used.

    Args:
        y: truth; score: the model's; both in the unit that it was trained in, shape (n,).
        loss: of truth and score in that unit, the less the better.
        target: what the label was trained as.
    """
    plain = Calibration(probability, target=target)
    if kind == "none" or np.ptp(score) == 0:
        return plain
    part = np.random.default_rng(0).permutation(len(y)) % FOLDS
    tried = score.astype(np.float64).copy()
    for i in range(FOLDS):
        fit = part != i
        if np.ptp(score[fit]) > 0 and np.ptp(y[fit]) > 0:
            tried[~fit] = _fit(kind, y[fit], score[fit], probability).adjusted(score[~fit])
    if loss(y, tried) >= loss(y, score):
        return plain
    fitted = _fit(kind, y, score, probability)
    return Calibration(probability, fitted.slope, fitted.offset, fitted.knots, target)


def _fit(kind: Kind, y: Array, score: Array, probability: bool) -> Calibration:
    from sklearn.isotonic import isotonic_regression
    from sklearn.linear_model import LogisticRegression

    if kind == "sigmoid":
        if probability:
            line = LogisticRegression(C=1e6).fit(_log_odds(score)[:, None], y)
            slope, offset = float(line.coef_[0, 0]), float(line.intercept_[0])
        else:
            slope, offset = (float(one) for one in np.polyfit(score, y, 1))
        return Calibration(probability, slope, offset) if slope > 0 else Calibration(probability)
    groups = np.array_split(np.argsort(score, kind="stable"), min(KNOTS, len(score)))
    x = np.array([score[group].mean() for group in groups])
    height = isotonic_regression([y[group].mean() for group in groups])
    # Knots closer than this would make a slope that magnifies the last bit of a 32-bit float
    kept = [0]
    for i in range(1, len(x)):
        if x[i] - x[kept[-1]] > 1e-3 * np.ptp(score):
            kept.append(i)
    if len(kept) < 2:
        return Calibration(probability)
    x, height = _beyond(x[kept], height[kept], probability)
    return Calibration(probability, knots=(tuple(map(float, x)), tuple(map(float, height))))


def _beyond(x: Array, height: Array, probability: bool) -> tuple[Array, Array]:
    """Knots outside of the groups' means, so that the largest scores are told apart as well."""
    if probability:
        inner = (x > 1e-3) & (x < 1 - 1e-3)
        return np.r_[0.0, x[inner], 1.0], np.r_[0.0, height[inner], 1.0]
    far = 10 * np.ptp(x)
    rise = far * np.ptp(height) / np.ptp(x)
    return np.r_[x[0] - far, x, x[-1] + far], np.r_[height[0] - rise, height, height[-1] + rise]
