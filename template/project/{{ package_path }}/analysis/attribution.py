"""Makes the file by which a model's answers are explained (`analysis.reasons`), from the exported model and rows.

The one tree ensemble or linear model of the graph is taken apart, whatever library fitted it; the covers of leaves
are counted anew on the rows. Where there is no such one, as in a stack, the file has what a local surrogate needs.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..model import Array, Scorer
from ..modelling.boosting import LINEAR_NODES, PLAIN, TREE_NODES, Target
from ..modelling.export import part_of
from ..problem import UNLABELLED, models
from .reasons import LEAVES

MAX_ROWS = 20_000  # that covers and means are taken from
PROBED = 500  # rows in which a column is mixed, to see which features it reaches
COPIES, PER_COLUMN, MOST_COPIES = 144, 4, 1024  # of a row, that a surrogate is fitted to
LEAST_KEPT = 0.5  # share of the row's own values in a copy
LEVELS, MOST_CATEGORIES = 21, 50  # of a column's values, that copies are drawn from
MAX_LEAVES = 20_000  # beyond, a service would take many milliseconds, and the file many megabytes
MIN_COVER = 1e-3  # rows of a leaf that none of the rows reached
# Feature -> above, at most, whether a missing value meets it, the share of rows that do
Bounds = dict[int, tuple[float, float, bool, float]]


def reasons_file(
    model: bytes,
    rows: pd.DataFrame,
    kinds: Mapping[str, str],
    target: Target,
    seed: int,
    exact: bool = True,
) -> bytes:
    """The content of `paths.REASONS_FILE`; equal models and rows give equal bytes.

    Args:
        model: the ONNX file's content.
        rows: raw columns of rows that it was fitted to, n of them; kinds: the type of each column.
        target: what the label was fitted as.
    """
    import onnx

    rng = np.random.default_rng(seed)
    rows = rows.iloc[np.sort(rng.permutation(len(rows))[:MAX_ROWS])]
    graph = onnx.load_from_string(model)
    # What learns without labels makes sums of its own, such as path lengths: the less, the odder
    node = _summing_node(graph) if UNLABELLED is None else None
    arrays: dict[str, Array] = {}
    about: dict[str, Any]
    if node is None:
        is_bent = models.straighten(np.array([[0.25]])).item() != 0.25
        unit = "log-odds of the score" if is_bent else "the score"
        about = {"kind": "surrogate", "way": "a local linear surrogate", "unit": unit}
        arrays = {**_surroundings(rows, kinds, rng), "by_odds": np.array(is_bent)}
    else:
        arrays["graph"] = np.frombuffer(part_of(graph, node.input[0]), np.uint8)
        scorer = Scorer(arrays["graph"].tobytes())
        matrix = scorer.run(rows)
        arrays["shares"] = _shares(scorer, rows, kinds)
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        about = {"unit": _unit(attributes, target)}
        if node.op_type in TREE_NODES:
            about |= {"kind": "trees", "way": "Shapley values of the trees"}
            arrays |= _tree_arrays(attributes, matrix, target)
        else:
            about |= {"kind": "linear", "way": "weight by distance from the mean"}
            arrays |= _linear_arrays(attributes, matrix, target)
    about |= {"columns": [*kinds], "target": [target.spread, target.middle, target.shift]}
    text = json.dumps(about, sort_keys=True)
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, about=np.array(text), **arrays)
    return file.getvalue()


def target_of(content: bytes) -> Target:
    """What the label was fitted as, of a file's content; a ceiling, which no reason reads, is not in it."""
    about = json.loads(str(np.load(io.BytesIO(content))["about"]))
    spread, middle, shift = about["target"]
    return Target(spread, middle, shift)


def _summing_node(graph: Any) -> Any | None:
    """The node of the only tree ensemble or linear model behind the features; None for none, several or far too many leaves."""
    nodes = [n for n in graph.graph.node if n.op_type in (*TREE_NODES, *LINEAR_NODES)]
    of_model = [node for node in nodes if node.output[0].startswith("_model/")]
    if len(of_model) != 1 or of_model[0].op_type in LINEAR_NODES:
        return of_model[0] if len(of_model) == 1 else None
    modes = next(list(a.strings) for a in of_model[0].attribute if a.name == "nodes_modes")
    is_plain = {*modes} <= {b"LEAF", b"BRANCH_LEQ"}
    return of_model[0] if is_plain and modes.count(b"LEAF") <= MAX_LEAVES else None


def _shares(scorer: Scorer, rows: pd.DataFrame, kinds: Mapping[str, str]) -> Array:
    """How much of each feature is each raw column's, shape (width, columns): equal parts of those that it hangs on."""
    parts = np.array([*reached(scorer.run, rows, kinds).values()], np.float64).T
    parts[parts.sum(axis=1) == 0] = 1.0  # it was the same in all of these rows
    return np.asarray(parts / parts.sum(axis=1, keepdims=True))


def reached(
    transform: Callable[[pd.DataFrame], Array], rows: pd.DataFrame, columns: Iterable[str]
) -> dict[str, Array]:
    """Which features each raw column has a part in, bool, shape (width,): those that change when its values do.

    Args:
        transform: makes the features of raw rows, shape (n, width).
    """
    rng, rows = np.random.default_rng(0), rows.head(PROBED)
    before, masks = transform(rows), {}
    for name in columns:
        values = rows[name].to_numpy()[rng.permutation(len(rows))]
        after = transform(rows.assign(**{name: values}))
        both_missing = np.isnan(after) & np.isnan(before)
        masks[name] = np.any((after != before) & ~both_missing, axis=0)
    return masks


def _unit(attributes: Mapping[str, Any], target: Target) -> str:
    link = attributes.get("post_transform", b"NONE")
    if link in (b"LOGISTIC", b"SOFTMAX"):
        return "log-odds before calibration"
    if target == PLAIN:
        return "the score before calibration"
    return "the label's unit" if target.shift is None else f"log(label + {target.shift:g})"


def _linear_arrays(
    attributes: Mapping[str, Any], matrix: Array, target: Target
) -> dict[str, Array]:
    """The weights, shape (scores, width), the means of the features and the score of those means."""
    weights = np.array(attributes["coefficients"]).reshape(-1, matrix.shape[1])
    offsets = np.array(attributes.get("intercepts", [0.0] * len(weights)))
    if (
        "classlabels_ints" in attributes and len(weights) == 2
    ):  # of no and yes, each the other's negative
        weights, offsets = weights[1:], offsets[1:]
    weights, mean = weights * target.spread, matrix.mean(axis=0, dtype=np.float64)
    base = weights @ mean + offsets * target.spread + target.middle
    return {"weights": weights, "mean": mean, "base": base}


def _tree_arrays(attributes: Mapping[str, Any], matrix: Array, target: Target) -> dict[str, Array]:
    """The leaves of an ensemble, put together by the number of features on their paths, and the mean score."""
    prefix = "class" if "class_ids" in attributes else "target"
    ids = attributes[f"{prefix}_ids"]
    labels = attributes.get("classlabels_int64s", ())
    # Of two classes one alone has weights, or both have: then it is the second that counts
    only = len({*ids}) == 1
    width = 1 if only or len(labels) == 2 else max(ids) + 1
    entries = zip(
        attributes[f"{prefix}_treeids"],
        attributes[f"{prefix}_nodeids"],
        ids,
        attributes[f"{prefix}_weights"],
        strict=True,
    )
    values: dict[tuple[int, int], Array] = {}
    for tree, node, score, weight in entries:
        leaf = values.setdefault((tree, node), np.zeros(width))
        if width > 1 or only or score == 1:
            leaf[score if width > 1 else 0] += weight * target.spread
    base = np.array(attributes.get("base_values") or [0.0] * width)[-width:] * target.spread
    base = base + target.middle
    by_size: dict[int, list[tuple[Bounds, Array]]] = {}
    for bounds, leaf in _leaves(attributes, values, matrix):
        if not bounds:
            base = base + leaf
            continue
        base = base + leaf * np.prod([bound[3] for bound in bounds.values()])
        by_size.setdefault(len(bounds), []).append((bounds, leaf))
    arrays = {"base": base, "bounds": np.array(sorted(by_size), np.int64)}
    types = (np.int32, np.float32, np.float32, bool, np.float64)
    for size, leaves in by_size.items():
        columns = [[[f, *bound] for f, bound in bounds.items()] for bounds, _ in leaves]
        for i, (name, dtype) in enumerate(zip(LEAVES, types, strict=False)):
            made = [[entry[i] for entry in column] for column in columns]
            arrays[f"{name} {size}"] = np.ascontiguousarray(np.array(made, dtype).T)
        arrays[f"value {size}"] = np.ascontiguousarray(np.array([leaf for _, leaf in leaves]).T)
    return arrays


def _leaves(
    attributes: Mapping[str, Any], values: Mapping[tuple[int, int], Array], matrix: Array
) -> list[tuple[Bounds, Array]]:
    """Each leaf's bounds and its value; covers are shares of the rows at the node before."""
    keys = [*zip(attributes["nodes_treeids"], attributes["nodes_nodeids"], strict=True)]
    at = {key: i for i, key in enumerate(keys)}
    features, cuts = attributes["nodes_featureids"], attributes["nodes_values"]
    missing_left = attributes.get("nodes_missing_value_tracks_true") or [0] * len(features)
    sides = attributes["nodes_truenodeids"], attributes["nodes_falsenodeids"]

    def walk(tree: int, node: int, rows: Array) -> tuple[float, list[tuple[Bounds, Array]]]:
        """How many rows reach a node, and the leaves below it, their paths from that node down."""
        i = at[tree, node]
        if attributes["nodes_modes"][i] == b"LEAF":
            return max(float(len(rows)), MIN_COVER), [({}, values[tree, node])]
        feature, cut = features[i], float(np.float32(cuts[i]))
        x = matrix[rows, feature]
        is_left = (x <= cut) | (np.isnan(x) & bool(missing_left[i]))
        parts = [
            walk(tree, side[i], rows[mask])
            for side, mask in zip(sides, (is_left, ~is_left), strict=True)
        ]
        cover = parts[0][0] + parts[1][0]
        for is_right, (reached, leaves) in enumerate(parts):
            for bounds, _ in leaves:
                low, high, missing, share = bounds.get(feature, (-np.inf, np.inf, True, 1.0))
                low, high = (max(low, cut), high) if is_right else (low, min(high, cut))
                missing = missing and bool(missing_left[i]) != bool(is_right)
                bounds[feature] = low, high, missing, share * reached / cover
        return cover, [*parts[0][1], *parts[1][1]]

    roots = dict(reversed(keys))  # the first node of each tree
    everywhere = np.arange(len(matrix))
    return [leaf for tree, node in roots.items() for leaf in walk(tree, node, everywhere)[1]]


def _surroundings(
    rows: pd.DataFrame, kinds: Mapping[str, str], rng: np.random.Generator
) -> dict[str, Array]:
    """What copies of a row keep, bool, shape (copies, columns), and the values that they have instead.

    Drawn from each column by itself, numbers from its quantiles and categories from the most usual ones, so that the
    file holds no row; a text, an image or a history is left out instead.
    """
    width = len(kinds)
    n = min(MOST_COPIES, max(COPIES, PER_COLUMN * width))
    shares = np.linspace(1, LEAST_KEPT, n)  # the first copy is the row itself
    keeps = rng.random((n, width)).argsort(axis=1) < np.round(shares * width)[:, None]
    arrays = {"kept": keeps}
    for i, (name, kind) in enumerate(kinds.items()):
        values = rows[name]
        if kind == "category":
            usual = values.value_counts().head(MOST_CATEGORIES)
            drawn = rng.choice(usual.index.to_numpy(str), n, p=usual.to_numpy() / usual.sum())
        elif kind in ("number", "bool", "time"):
            numbers = values.to_numpy(np.float64)
            finite = numbers[np.isfinite(numbers)] if np.isfinite(numbers).any() else np.zeros(1)
            method: Any = "nearest" if kind == "bool" else "linear"
            levels = np.quantile(finite, np.linspace(0, 1, LEVELS), method=method)
            drawn = rng.choice(levels, n)
            drawn[rng.random(n) < np.isnan(numbers).mean()] = np.nan
        else:
            drawn = np.full(n, "")
        arrays[f"drawn {i}"] = drawn
    return arrays
