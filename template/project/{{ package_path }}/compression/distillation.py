"""Fewer trees, fitted to what all trees of a model say of the training rows (distillation; Hinton et al., 2015)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .. import problem
from ..goals.gate import sample_rows
from ..modelling.boosting import TREE_NODES, Boosted, Size
from ..modelling.export import converted, export, part_of
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


def students(settings: Settings, whole: bytes, part: Part) -> Iterator[bytes]:
    """Copies of a model with fewer trees, as ONNX, the smallest first; all else in them is as it was.

    Each ensemble of trees learns what the ensemble in its place says of rows: a number as it is, of classes each as often
    as the ensemble expects the class.

    Args:
        whole: the model that teaches, as ONNX; it has trees.
        part: the rows that it teaches.
    """
    import onnx

    seed, label = settings.project.seed, part.label
    part = part.take(np.sort(sample_rows(len(label), MAX_ROWS, seed, unit(label))))
    graph = onnx.load_from_string(whole)
    nodes = [node for node in graph.graph.node if node.op_type in TREE_NODES]
    lessons = [(node, _taught(graph, node, part), *_leaves(node)) for node in nodes]
    for share in SHARES:
        for node, table, count, largest in lessons:
            leaves = min(LEAVES, largest)
            trees = max(1, round(share * count / leaves / models.width(settings)))
            size = Size(leaves, -1, trees, 0.0, None, {"learning_rate": RATE})
            student = Boosted.of(settings, size, seed)
            student.fit(table.matrix, table.label, **table.fit_options(student))
            part_nodes = converted(student, table.matrix.shape[1]).node
            (ensemble,) = (made for made in part_nodes if made.op_type in TREE_NODES)
            del node.attribute[:]
            node.attribute.extend(ensemble.attribute)
        yield bytes(graph.SerializeToString(deterministic=True))


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


def _leaves(node: Any) -> tuple[int, int]:
    """How many leaves all trees of an ensemble have, and the largest of them."""
    import onnx

    facts = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    modes = zip(facts["nodes_modes"], facts["nodes_treeids"], strict=True)
    trees = Counter(tree for mode, tree in modes if mode == b"LEAF")
    return sum(trees.values()), max(2, *trees.values())


def _taught(graph: Any, node: Any, part: Part) -> TrainingTable:
    """The matrix that an ensemble of a model is given for n rows, and as their labels what the ensemble says of them."""
    tensors = (node.input[0], node.output[-1])
    matrix, answers = (load_scorer(part_of(graph, name)).run(part.rows) for name in tensors)
    weight = part.keys.weight
    if not problem.CLASSES:
        return TrainingTable(matrix, answers[:, 0], RowKeys("random", answers[:, 0], weight=weight))
    of, classes = np.nonzero(answers > LEAST)
    shares = answers[of, classes] * (1.0 if weight is None else weight[of])
    label = classes.astype(np.float64)
    return TrainingTable(matrix[of], label, RowKeys("random", label, weight=shares))
