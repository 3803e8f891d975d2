"""From a model's raw score to the answer: a calibration, and for a number the way back to its own unit.

In numpy and as ONNX nodes. A calibration is kept only where it does better on rows that it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..problem import CalibrationName, models
from .boosting import PLAIN, Target

if TYPE_CHECKING:
    from ..features.graph import Graph

Array = np.ndarray
KNOTS = 20
FOLDS = 5  # that a calibration is tried on


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration: a line where `problem.models.straighten` leads, or a line through knots.

    `target` undoes what a number was trained as; `factor` then makes up for the logarithm, whose mean
    is not the mean (smearing; Duan, 1983).
    """

    slope: float = 1.0
    offset: float | tuple[float, ...] = 0.0  # of each class where a row has several scores
    knots: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    target: Target = PLAIN
    factor: float = 1.0

    @property
    def straight(self) -> bool:
        """Whether the line leaves every score as it is."""
        return (self.slope, self.offset) == (1.0, 0.0)

    def __call__(self, score: Array) -> Array:
        """The calibrated score in the label's unit, of the shape of `score`."""
        value = self.target.back(self.adjusted(score))
        if self.factor == 1.0:
            return value
        shift = self.target.shift or 0.0
        return (value + shift) * self.factor - shift

    def adjusted(self, score: Array) -> Array:
        """The calibrated score, still in the unit of training, of the shape of `score`."""
        if self.knots:
            return np.interp(score, *self.knots)
        if self.straight:
            return score
        return models.bend(self.slope * models.straighten(score) + np.asarray(self.offset))

    def to_nodes(self, graph: Graph, score: str) -> str:
        """Add the calibration's nodes behind a score of shape (n, width); the name of their output, shaped alike."""
        if self.knots:
            x, y = (np.array(side, dtype=np.float64) for side in self.knots)
            slopes = (np.diff(y) / np.diff(x))[:, None]
            # Each piece adds its slope times how far the score has come along it: sums far larger than a
            # score, so in 64 bits
            climb = ("Sub", [x[:-1]]), ("Max", [[0.0]]), ("Min", [np.diff(x)]), ("MatMul", slopes)
            score = graph.add("Cast", score, to=graph.DOUBLE)
            for operator, value in (*climb, ("Add", [[y[0]]])):
                score = graph.add(operator, score, graph.constant(value, np.float64))
            score = graph.add("Cast", score, to=graph.FLOAT)
        elif not self.straight:
            score = models.straighten_nodes(graph, score)
            score = graph.add("Mul", score, graph.constant([[self.slope]]))
            score = graph.add("Add", score, graph.constant(np.atleast_2d(self.offset)))
            score = models.bend_nodes(graph, score)
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
        wide = graph.add("Mul", wide, number(target.spread))
        wide = graph.add("Add", wide, number(target.middle))
        wide = graph.add("Exp", graph.add("Min", wide, number(target.ceiling)))
        wide = graph.add("Mul", wide, number(self.factor))
        wide = graph.add("Sub", wide, number(target.shift))
        return graph.add("Cast", wide, to=graph.FLOAT)


def fit_calibration(
    kind: CalibrationName,
    y: Array,
    score: Array,
    loss: Callable[[Array, Array], float],
    target: Target = PLAIN,
    always: bool = False,
) -> Calibration:
    """Learn a calibration from rows that the model was not fitted on, if it helps.

    A line by `problem.models.fit_line`; or, for a name in `problem.models.STEPS` (isotonic), the
    best rising steps (Zadrozny and Elkan, 2002) over twenty groups of equal size, joined by lines,
    and going on beyond the first and the last. It is fitted to four fifths of the rows five times;
    where the other fifths are not better off, or a score falls where the truth rises, none is used.
    One for a name in `problem.models.SCALES` takes no label, and is always used.

    Args:
        y: truth, shape (n,); score: the model's, shape (n,) or (n, classes); both in the unit that it
            was trained in.
        loss: of truth and score in that unit, the less the better.
        target: what the label was trained as.
        always: take it without asking whether it helps.
    """
    plain = Calibration(target=target)
    if scale := models.SCALES.get(kind):
        x, height = scale(y, score)
        return Calibration(knots=(tuple(map(float, x)), tuple(map(float, height))), target=target)
    if kind == "none" or np.ptp(score) == 0:
        return plain
    if not always and loss(y, _cross_fitted(kind, y, score)) >= loss(y, score):
        return plain
    fitted = _fit(kind, y, score)
    return Calibration(fitted.slope, fitted.offset, fitted.knots, target)


def _cross_fitted(kind: CalibrationName, y: Array, score: Array) -> Array:
    """Each score by a calibration that was fitted to four fifths of the rows without it."""
    fold = np.random.default_rng(0).permutation(len(y)) % FOLDS
    calibrated = score.astype(np.float64).copy()
    for i in range(FOLDS):
        fit = fold != i
        if np.ptp(score[fit]) > 0 and np.ptp(y[fit]) > 0:
            calibrated[~fit] = _fit(kind, y[fit], score[fit]).adjusted(score[~fit])
    return calibrated


def _fit(kind: CalibrationName, y: Array, score: Array) -> Calibration:
    from sklearn.isotonic import isotonic_regression

    with_ends = models.STEPS.get(kind)
    if with_ends is None:
        slope, offset = models.fit_line(kind, y, score)
        return Calibration(slope, offset) if slope > 0 else Calibration()
    groups = np.array_split(np.argsort(score, kind="stable"), min(KNOTS, len(score)))
    x = np.array([score[group].mean() for group in groups])
    height = isotonic_regression([models.taught(y[group]).mean() for group in groups])
    # Knots closer than this would make a slope that magnifies the last bit of a 32-bit float
    spaced = [0]
    for i in range(1, len(x)):
        if x[i] - x[spaced[-1]] > 1e-3 * np.ptp(score):
            spaced.append(i)
    if len(spaced) < 2:
        return Calibration()
    x, height = with_ends(x[spaced], height[spaced])
    return Calibration(knots=(tuple(map(float, x)), tuple(map(float, height))))
