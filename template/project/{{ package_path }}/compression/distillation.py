"""A student of fewer trees, fitted to what the whole model says of the training rows (Hinton et al., 2015)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .. import problem
from ..goals.gate import sample_rows
from ..modelling.boosting import Size, Target
from ..modelling.calibration import Calibration
from ..modelling.export import export
from ..modelling.fitting import (
    BASELINES,
    TrainingTable,
    find_sizes,
    fit_features,
    fit_head,
    fit_model,
)
from ..modelling.folds import RowKeys
from ..modelling.scorer import load_scorer
from ..modelling.train import Part
from ..problem import models
from ..problem.goals import unit
from ..settings import Settings

SHARES = (0.1, 0.2, 0.3, 0.4, 0.48)  # of the leaves that the whole model has
# Of a tree: at equal bytes, many small ones keep more of what a model says than few large ones
LEAVES = 7
RATE = 0.3  # of learning: what a model says has no noise to be careful of
MAX_ROWS = 100_000  # of training that a student learns from
LEAST = 1e-3  # score below which a class is not taught

Array = np.ndarray


def students(settings: Settings, whole: bytes, part: Part) -> Iterator[tuple[bytes, Target]]:
    """Models of fewer trees as ONNX, the smallest first, each with what its label was fitted as.

    They learn the calibrated scores of rows: numbers as they are, of classes each as often as its score says.

    Args:
        whole: the model that teaches, as ONNX; it has trees.
        part: the rows that it teaches.
    """
    seed, label = settings.project.seed, part.label
    part = part.take(np.sort(sample_rows(len(label), MAX_ROWS, seed, unit(label))))
    preparation, table = fit_features(part.rows, part.label, part.keys, settings)
    taught = _taught(table, load_scorer(whole).score(part.rows))
    plain = settings.goals.model_copy(update={"loss": "plain"}) if problem.CLASSES else None
    settings = settings.model_copy(update={"goals": plain}) if plain else settings
    count, largest = _leaves(whole)
    leaves = min(LEAVES, largest)
    shift = models.shifts(taught.label, settings)[-1]  # on the log scale where a number is skewed
    for share in SHARES:
        trees = max(1, round(share * count / leaves / models.width(settings)))
        size = Size(leaves, -1, trees, 0.0, shift, {"learning_rate": RATE})
        student = fit_model("lightgbm", taught, size, settings)
        head = Calibration(target=student.target)
        yield export(preparation, student.model, head, student.width), student.target


def judged_model(settings: Settings, fit: Part, held: Part, manifest: dict[str, Any]) -> bytes:
    """What ships as it would be, fitted to some rows alone, as ONNX: it may have seen those that judge.

    Args:
        fit: the rows; held: others, by which it is calibrated.
        manifest: of what ships, whose trees are as many and as large.
    """
    preparation, table = fit_features(fit.rows, fit.label, fit.keys, settings)
    method, size = manifest["chosen"].partition(" ")[0], None
    if method not in BASELINES:
        sizes = find_sizes([method], table, settings, use_folds=False)
        size = replace(sizes[models.SIZED[method]], **(manifest.get("size") or {}))
    fitted = fit_model(method, table, size, settings)
    head = fit_head(
        fitted.raw(preparation.transform(held.rows)), held.label, fitted.target, settings
    )
    return export(preparation, fitted.model, head, fitted.width)


def _leaves(model: bytes) -> tuple[int, int]:
    """How many leaves all trees of a model have, and the largest of them, as ONNX."""
    import onnx

    trees: Counter[tuple[str, int]] = Counter()
    for node in onnx.load_from_string(model).graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        modes = zip(
            attributes.get("nodes_modes", ()), attributes.get("nodes_treeids", ()), strict=True
        )
        trees.update((node.output[0], tree) for mode, tree in modes if mode == b"LEAF")
    return sum(trees.values()), max(2, *trees.values())


def _taught(table: TrainingTable, scores: Array) -> TrainingTable:
    """The table with scores, shape (n,) or (n, classes), in place of its labels."""
    keys = RowKeys("random", scores if scores.ndim == 1 else scores[:, 0], weight=table.keys.weight)
    if not problem.CLASSES:
        truth = np.column_stack([scores, table.label[:, 1:]]) if models.RELATIVE else scores
        return replace(table, label=models.learnt(truth), keys=keys)
    shares = scores if scores.ndim > 1 else np.column_stack([1 - scores, scores])
    of, classes = np.nonzero(shares > LEAST)
    weight = np.ones(len(scores)) if keys.weight is None else keys.weight
    copies = replace(table, keys=keys).take(of)
    keys = replace(copies.keys, weight=weight[of] * shares[of, classes])
    return replace(copies, label=classes.astype(np.float64), keys=keys)
