"""One row through the exported model, step by step: what to look at when an answer surprises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import problem
from ..data.parsing import masked
from ..data.schema import masks
from ..features.catalogue import inputs, load
from ..modelling.scorer import load_scorer
from ..paths import MANIFEST, MODEL, SPLITS
from ..problem.decision import named
from ..problem.goals import decide
from ..settings import Settings, UserError, read_json


def trace(settings: Settings, root: Path, row: int) -> list[dict[str, Any]]:
    """Every step from the raw columns of a test row to the decision.

    Args:
        row: the index of the row in the test part, from 0.

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
    frame = rows.iloc[[row]]
    for name, kinds in masks(settings).items():
        if name in frame:
            frame = frame.assign(**{name: masked(frame[name].iloc[0], kinds)})
    steps = [{"step": "column", "name": name, "value": frame[name].iloc[0]} for name in frame]
    steps += _nodes(root / MODEL, frame)
    manifest = read_json(root / MANIFEST)
    scores, rule = steps[-1]["value"], manifest["decision"]
    decision = decide(np.array([scores]), rule)[0]
    against = "against the costs" if problem.WIDE else f"against {rule:.4g}"
    answer = named(float(decision), manifest.get("label_values", []))
    return [*steps, {"step": against, "name": "decision", "value": answer}]


def lines(settings: Settings, root: Path, row: int) -> list[str]:
    """The steps of `trace` as text, one line a step, long values cut.

    Raises:
        UserError: as `trace`.
    """
    text_lines = []
    for step in trace(settings, root, row):
        value = step["value"]
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        text = text if text.isprintable() else repr(text)
        unit = "characters" if isinstance(value, str) else "values"
        short = text if len(text) < 70 else f"{text[:60]}… ({len(value)} {unit})"
        text_lines.append(f"{step['step']:<22} {step['name']:<40} {short}")
    return text_lines


def _nodes(path: Path, row: pd.DataFrame) -> list[dict[str, Any]]:
    import onnx

    if not path.is_file():
        raise UserError(f"{path} is not here: train first (`run` does it)")
    model = onnx.load(path)
    graph = model.graph
    outputs = {output.name for output in graph.output}
    names = [(node.op_type, output) for node in graph.node for output in node.output if output]
    graph.output.extend(onnx.ValueInfoProto(name=name) for _, name in names if name not in outputs)
    scorer = load_scorer(model.SerializeToString())
    values = scorer.session.run([name for _, name in names], scorer.feed(row))
    properties = {entry.key: entry.value for entry in model.metadata_props}
    features = properties.get("features", "").split("\n")
    steps: list[dict[str, Any]] = []
    matrix = next((i for i, (_, name) in enumerate(names) if name.startswith("_model/")), 0) - 1
    for position, ((kind, name), value) in enumerate(zip(names, values, strict=True)):
        if position == matrix and np.shape(value) == (1, len(features)):  # what the model reads
            steps += [
                {"step": "feature", "name": feature, "value": _plain(number)}
                for feature, number in zip(features, np.ravel(value), strict=True)
            ]
        steps.append({"step": kind, "name": name, "value": _plain(value)})
    return steps


def _plain(value: Any) -> Any:
    """A number or a text where there is one, else a list."""
    values = np.ravel(value).tolist()
    return values[0] if len(values) == 1 else values
