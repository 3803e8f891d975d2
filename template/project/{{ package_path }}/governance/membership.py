"""How far a score tells who was trained on: what an attacker gains who knows a row and asks for its score."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .. import problem
from ..features.catalogue import inputs, load, load_truth
from ..goals.gate import Figure, resample, sample_rows
from ..modelling.scorer import load_scorer
from ..paths import MODEL, SPLITS
from ..problem.goals import numeric, unit
from ..settings import Settings

MAX_ROWS = 50_000  # of each side
MIN_ROWS = 50  # of each half, below which nothing can be said
LEAST = 1e-7  # of a chance, where its logarithm is taken

Array = np.ndarray


def membership(settings: Settings, root: Path) -> Figure | str:
    """Membership advantage of the shipped model (Yeom et al., 2018): the share of training rows less that of test rows
    whose loss lies below a threshold, as an attacker takes a row for one of training; 0 is chance, 1 is certainty.

    The threshold is learnt on one half of the rows and judged on the other, and the other way round, so that chance
    alone gives 0 on average. What differs between training and test rows for another reason, as their time, counts as
    if it were memory: the figure is an upper bound.

    Returns:
        the advantage with its bootstrap interval, or why nothing is measured, in words.
    """
    seed, goals = settings.project.seed, settings.goals
    sides = [_losses(settings, root / SPLITS[part], root / MODEL) for part in ("train", "test")]
    (train, train_units), (test, test_units) = _on_one_scale(sides)
    halves = [
        _halves(train, train_units, seed),
        _halves(test, test_units, seed + 1),
    ]
    if min(int((half == side).sum()) for half in halves for side in (0, 1)) < MIN_ROWS:
        return f"fewer than {MIN_ROWS} rows in half of the training or test rows"
    draws = goals.interval.resamples
    weights = [
        resample(len(train), draws, seed, train_units),
        resample(len(test), draws, seed + 1, test_units),
    ]
    values, drawn = [], []
    for half in (0, 1):
        learnt = [loss[side == half] for loss, side in zip((train, test), halves, strict=True)]
        threshold = best_threshold(*learnt)
        below = [loss <= threshold for loss in (train, test)]
        judged = [side != half for side in halves]
        values.append(float(below[0][judged[0]].mean() - below[1][judged[1]].mean()))
        rates = [
            w[:, rows] @ hit[rows] / np.maximum(w[:, rows].sum(axis=1), 1)
            for w, rows, hit in zip(weights, judged, below, strict=True)
        ]
        drawn.append(rates[0] - rates[1])
    mean = np.mean(drawn, axis=0)
    return Figure.of_draws(
        float(np.mean(values)), mean, goals.interval.level, len(train) + len(test)
    )


def best_threshold(members: Array, strangers: Array) -> float:
    """The loss at or below which rows are taken for members, with the largest gap between the shares of the two, each of
    shape (n,)."""
    losses = np.unique(np.concatenate([members, strangers]))
    shares = [
        np.searchsorted(np.sort(side), losses, side="right") / len(side)
        for side in (members, strangers)
    ]
    return float(losses[np.argmax(shares[0] - shares[1])])


def _losses(settings: Settings, path: Path, model: Path) -> tuple[Array, Array, Array | None]:
    """Labels and scores of a part's rows, or of a seeded draw of 50,000 of them, and what goes together of them."""
    y, seed = load_truth(path), settings.project.seed
    taken = sample_rows(len(y), MAX_ROWS, seed, unit(y))
    rows = load(path, inputs(settings)).iloc[taken]
    return y[taken], load_scorer(model).score(rows), unit(y[taken])


def _on_one_scale(
    sides: list[tuple[Array, Array, Array | None]],
) -> list[tuple[Array, Array | None]]:
    """The loss of each row, shape (n,), and what goes together; of two parts."""
    labels, scores = [numeric(y) for y, *_ in sides], [score for _, score, _ in sides]
    if problem.LISTED:  # a score places a row among others, and is in no unit of the label
        middle, scale = (f(np.concatenate(scores)) for f in (np.mean, np.std))
        spread, mean = (f(np.concatenate(labels)) for f in (np.std, np.mean))
        scores = [mean + (score - middle) / (scale or 1.0) * spread for score in scores]
    losses = [loss(y, score) for y, score in zip(labels, scores, strict=True)]
    return [(row_loss, units) for row_loss, (_, _, units) in zip(losses, sides, strict=True)]


def loss(y: Array, score: Array) -> Array:
    """What a row's score costs, shape (n,): log loss of classes, the absolute error of numbers; where no label says
    what is right, how odd the row is to the model.

    Args:
        y: labels as numbers, shape (n,); score: shape (n,), or (n, classes).
    """
    if problem.UNLABELLED is not None:
        return score
    if problem.WIDE:
        chance = score[np.arange(len(y)), y.astype(np.int64)]
    elif problem.CLASSES:
        chance = np.where(y == 1, score, 1 - score)
    else:
        return np.abs(y - score)
    return -np.log(np.clip(chance, LEAST, 1.0))


def _halves(losses: Array, units: Array | None, seed: int) -> Array:
    """The half, 0 or 1, of each of n rows, drawn; rows that go together are in one, shape (n,)."""
    rng = np.random.default_rng(seed)
    if units is None:
        return rng.integers(0, 2, len(losses))
    codes = np.unique(units, return_inverse=True)[1]
    return rng.integers(0, 2, int(codes.max()) + 1)[codes]
