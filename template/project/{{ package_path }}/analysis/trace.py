"""One row through the exported model, step by step: what to look at when an answer surprises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import problem
from ..features.catalogue import inputs, load
from ..modelling.scorer import load_scorer
from ..paths import MANIFEST, MODEL, SPLITS
from ..problem.decision import named
from ..problem.goals import decide
from ..settings import Settings, UserError, read_json


def trace(settings: Settings, root: Path, row: int) -> list[dict[str, Any]]:
    """Every step from the raw columns of a test row to the decision.

    Args:
        row: its place in the test part, from 0.

    Returns:
        by step: {"step": what is computed, "name": of its output, "value": a number, a text or a
        list}. First the raw columns, then the features by name, the nodes between them and the
        score, the decision last.

    Raises:
        UserError: when there is no model, or no such row.
    """
    rows = load(root / SPLITS["test"], inputs(settings))
    if not 0 <= row < len(rows):
        raise UserError(f"row {row}: the test part has rows 0 to {len(rows) - 1}")
    one = rows.iloc[[row]]
    steps = [{"step": "column", "name": name, "value": one[name].iloc[0]} for name in one]
    steps += _nodes(root / MODEL, one)
    manifest = read_json(root / MANIFEST)
    scores, by = steps[-1]["value"], manifest["decision"]
    decision = decide(np.array([scores]), by)[0]
    against = "against the costs" if problem.WIDE else f"against {by:.4g}"
    shown = named(float(decision), manifest.get("label_values", []))
    return [*steps, {"step": against, "name": "decision", "value": shown}]


def lines(settings: Settings, root: Path, row: int) -> list[str]:
    """The same to read, one line a step."""
    found = []
    for one in trace(settings, root, row):
        value = one["value"]
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        short = text if len(text) < 70 else f"{text[:60]}… ({len(value)} values)"
        found.append(f"{one['step']:<22} {one['name']:<40} {short}")
    return found


def _nodes(path: Path, row: pd.DataFrame) -> list[dict[str, Any]]:
    import onnx

    if not path.is_file():
        raise UserError(f"{path} is not here: train first (`run` does it)")
    model = onnx.load(path)
    graph = model.graph
    known = {one.name for one in graph.output}
    names = [(node.op_type, output) for node in graph.node for output in node.output if output]
    graph.output.extend(onnx.ValueInfoProto(name=name) for _, name in names if name not in known)
    scorer = load_scorer(model.SerializeToString())
    values = scorer.session.run([name for _, name in names], scorer.feed(row))
    features = next((one.value for one in model.metadata_props if one.key == "features"), "").split(
        "\n"
    )
    steps, told = [], False
    for (kind, name), value in zip(names, values, strict=True):
        if not told and np.shape(value) == (1, len(features)) and kind == "Concat":
            told = True  # the prepared features, all together for the first time
            steps += [
                {"step": "feature", "name": feature, "value": _plain(number)}
                for feature, number in zip(features, np.ravel(value), strict=True)
            ]
        steps.append({"step": kind, "name": name, "value": _plain(value)})
    return steps


def _plain(value: Any) -> Any:
    """A number or a text where there is one, else a list."""
    found = np.ravel(value).tolist()
    return found[0] if len(found) == 1 else found
