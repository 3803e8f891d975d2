"""What each feature or column adds to scores: exactly of boosted trees (Shapley values; Lundberg et al., 2020) and of a
linear model, in closed form; of any other, and of one row, by sampling (Štrumbelj and Kononenko, 2014).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.parsing import masked
from ..data.schema import masks
from ..features.catalogue import inputs, load
from ..model import Model, ModelError
from ..modelling.boosting import Boosted
from ..modelling.scorer import load_scorer
from ..paths import MODEL, SPLITS, TRAINED
from ..settings import Settings, UserError
from .reasons import Explainer

ORDERS_OF_ONE = 50  # orders of the columns, each both ways, of a single row

Array = np.ndarray


def exact_contributions(model: Any, matrix: Array) -> tuple[str, Array, float] | None:
    """What each feature adds to each raw score of a matrix, shape (n, width).

    Returns:
        the way; contributions of shape (n, width, scores), in the unit before any link, beside the score of the mean
        row; and the largest |difference| between their sum and the score. None where a model has no exact ones.
    """
    n, width = matrix.shape
    if isinstance(model, Boosted) and model.booster_.num_feature() == width:
        parts = np.asarray(model.booster_.predict(matrix, pred_contrib=True))
        parts = parts.reshape(n, -1, width + 1)
        score = np.asarray(model.booster_.predict(matrix, raw_score=True)).reshape(n, -1)
        gap = np.abs(parts.sum(axis=2) - score).max()
        return "Shapley values of the trees", parts[..., :-1].transpose(0, 2, 1), float(gap)
    coefficients = getattr(model, "coef_", None)
    if coefficients is None or np.shape(coefficients)[-1] != width:
        return None
    weights = np.atleast_2d(coefficients)
    middle = matrix.mean(axis=0, dtype=np.float64)
    values = (matrix - middle)[:, :, None] * weights.T[None]
    score = matrix.astype(np.float64) @ weights.T
    gap = np.abs(values.sum(axis=1) + middle @ weights.T - score).max()
    return "weight by distance from the mean", values, float(gap)


def sampled_contributions(
    score: Callable[[pd.DataFrame], Array],
    rows: pd.DataFrame,
    background: pd.DataFrame,
    orders: int,
    seed: int,
) -> Array:
    """What each raw column adds to each score beside that of rows drawn from a background: Shapley values by sampling.

    In a random order of the columns, and then in its reverse, one column after the other gets the row's value.

    Args:
        score: of a frame of m rows, shape (m,) or (m, scores).
        rows: n rows; background: rows to draw from.

    Returns:
        shape (n, columns, scores): the sum over the columns is the row's score less the mean score of its draws.
    """
    rng, n, names = np.random.default_rng(seed), len(rows), [*rows]
    steps = []
    for _ in range(orders):
        order = rng.permutation(len(names))
        for way in (order, order[::-1]):
            state = background.iloc[rng.integers(len(background), size=n)].reset_index(drop=True)
            states = [state]
            for column in way:
                value = rows[names[column]].to_numpy()
                states.append(states[-1].assign(**{names[column]: value}))
            scores = score(pd.concat(states, ignore_index=True)).reshape(len(states), n, -1)
            steps.append(np.diff(scores, axis=0)[np.argsort(way)])
    return np.asarray(np.mean(steps, axis=0).transpose(1, 0, 2))


def explain_row(
    settings: Settings, root: Path, row: int
) -> tuple[str, list[tuple[str, str, float]]]:
    """Why a row of the test part has its score: the way, and each raw column, its value in words and what it adds.

    As the service tells it, the most first; where each class has a score, to that of the likeliest. Where the model came
    without reasons, beside the mean of the test rows.

    Raises:
        UserError: when there is no model, or no such row.
    """
    scorer, rows = load_scorer(root / MODEL), load(root / SPLITS["test"], inputs(settings))
    if not 0 <= row < len(rows):
        raise UserError(f"--row {row}: the test part has rows 0 to {len(rows) - 1}")
    frame, seed = rows.iloc[[row]].reset_index(drop=True), settings.project.seed
    column = int(np.argmax(scorer.score(frame).reshape(-1)))
    way, added = _by_file(root, frame, column)
    if added is None:
        values = sampled_contributions(scorer.score, frame, rows, ORDERS_OF_ONE, seed)[0]
        added = dict(zip(rows, values[:, column].tolist(), strict=True))
    kinds, hidden = inputs(settings), masks(settings)
    listed = []
    for name, amount in added.items():
        value = frame[name].iloc[0]
        value = masked(value, settings.data.mask) if name in hidden else value
        listed.append((name, _value_text(kinds[name], value), amount))
    return way, sorted(listed, key=lambda item: -abs(item[2]))


def _by_file(root: Path, row: pd.DataFrame, column: int) -> tuple[str, dict[str, float] | None]:
    """The way in which the file beside the model tells of a row, and what each column adds; None where it tells nothing."""
    try:
        reasons = Explainer(root / TRAINED, Model(root / TRAINED)).explain(row, column)
    except ModelError:
        return "sampled Shapley values, beside the mean of the test rows", None
    of = "" if reasons.class_ is None else f" of {reasons.class_}"
    fit = "" if reasons.fit is None else f" with R² {reasons.fit:.2f}"
    head = f"{reasons.way}{fit}, in {reasons.unit}{of}: {reasons.sum:.4g} = {reasons.base:.4g} and what columns add"
    return head, dict(reasons.columns)


def _value_text(kind: str, value: Any) -> str:
    if value == "" or value != value:
        return "missing"
    if kind == "time":
        return pd.Timestamp(value, unit="s").isoformat(" ", "seconds")
    return (
        "an image"
        if kind == "image"
        else f"{value:.60}"
        if isinstance(value, str)
        else f"{value:g}"
    )
