"""A student of fewer trees, fitted to what the whole model says of the training rows (Hinton et al., 2015)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from .. import problem
from ..features.catalogue import inputs, load, load_truth
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
from ..modelling.train import rows_to_fit
from ..paths import SPLITS
from ..problem import models
from ..problem.goals import unit
from ..settings import Settings

SHARES = (0.1, 0.2, 0.3, 0.45)  # of the leaves that the whole model has
RATE = 0.15  # of learning: what a model says has no noise to be careful of
MAX_ROWS = 100_000  # of training that a student learns from
LEAST = 1e-3  # score below which a class is not taught

Array = np.ndarray


def students(
    settings: Settings, root: Path, whole: bytes, parts: Sequence[str]
) -> Iterator[tuple[bytes, Target]]:
    """Models of fewer trees as ONNX, the smallest first, each with what its label was fitted as.

    They learn the calibrated scores of rows: numbers as they are, of classes each as often as its score says.

    Args:
        whole: the model that teaches, as ONNX; it has trees.
        parts: of the split, whose rows it teaches.
    """
    tables = [rows_to_fit(root / SPLITS[part], settings) for part in parts]
    rows, label, keys = tables[0]
    for part_rows, labels, added in tables[1:]:
        rows, label = (
            pd.concat([rows, part_rows], ignore_index=True),
            np.concatenate([label, labels]),
        )
        keys = keys.joined(added)
    taken = np.sort(sample_rows(len(label), MAX_ROWS, settings.project.seed, unit(label)))
    rows, label, keys = rows.iloc[taken].reset_index(drop=True), label[taken], keys.take(taken)
    preparation, table = fit_features(rows, label, keys, settings)
    taught = _taught(table, load_scorer(whole).score(rows))
    plain = settings.goals.model_copy(update={"loss": "plain"}) if problem.CLASSES else None
    settings = settings.model_copy(update={"goals": plain}) if plain else settings
    count, leaves = _leaves(whole)
    shift = models.shifts(taught.label, settings)[-1]  # on the log scale where a number is skewed
    for share in SHARES:
        trees = max(1, round(share * count / leaves / models.width(settings)))
        size = Size(leaves, -1, trees, 0.0, shift, {"learning_rate": RATE})
        student = fit_model("lightgbm", taught, size, settings)
        head = Calibration(target=student.target)
        yield export(preparation, student.model, head, student.width), student.target


def judged_model(settings: Settings, root: Path, method: str) -> bytes:
    """A baseline or candidate fitted to the training rows alone, as ONNX: what ships may have seen the validation rows.

    Args:
        method: its name, with the size of its trees that is best on these rows.
    """
    train, valid = (root / SPLITS[part] for part in ("train", "valid"))
    preparation, table = fit_features(*rows_to_fit(train, settings), settings)
    sizes = {} if method in BASELINES else find_sizes([method], table, settings, use_folds=False)
    fitted = fit_model(method, table, sizes.get(models.SIZED.get(method, "")), settings)
    raw = fitted.raw(preparation.transform(load(valid, inputs(settings))))
    head = fit_head(raw, load_truth(valid), fitted.target, settings)
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
