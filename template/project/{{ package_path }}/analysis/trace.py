"""One row through the exported model, step by step: what to look at when an answer surprises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import problem
from ..data.parsing import masked
from ..data.schema import masks
from ..data.split import TOKEN
from ..features.catalogue import inputs, load
from ..features.graph import INCLUDED
from ..images import from_pixels, to_pixels
from ..model import Scorer
from ..modelling.scorer import load_scorer
from ..paths import MANIFEST, MODEL, SPLITS
from ..problem.decision import arranged, named
from ..settings import Settings, UserError, read_json

MAX_WORDS, MAX_NAMED = 200, 10  # of a text: so many are left out, and so many of these are named
REGIONS = 4  # a side of an image, of which one after the other is hidden
GREY = 128


def trace(settings: Settings, root: Path, row: int) -> list[dict[str, Any]]:
    """Every step from the raw columns of a test row to the decision.

    Args:
        row: the index of the row in the test part, from 0.

    Returns:
        by step: {"step": what is computed, "name": of its output, "value": a number, a text or a
        list}. First the raw columns, of an image its size and which of its regions counts; then the features
        by name, the nodes between them and the score, then the decision; last, of each free text, the words
        without which the score would change most, and by how much they raise it (occlusion, Zeiler and
        Fergus, 2014).

    Raises:
        UserError: when there is no model, or no such row.
    """
    columns = inputs(settings)
    rows = load(root / SPLITS["test"], columns)
    if not 0 <= row < len(rows):
        raise UserError(f"row {row}: the test part has rows 0 to {len(rows) - 1}")
    frame = rows.iloc[[row]]
    raw = {name: frame[name].iloc[0] for name in frame}
    visible = {
        name: masked(value, settings.data.mask) if name in masks(settings) else value
        for name, value in raw.items()
    }
    nodes = _nodes(root / MODEL, frame)
    if any(visible[name] != raw[name] for name in masks(settings).keys() & raw.keys()):
        nodes = [step for step in nodes if not _is_text(step["value"])]
    steps = [{"step": "column", "name": name, "value": value} for name, value in visible.items()]
    steps = _told_images(steps, load_scorer(root / MODEL), frame)
    steps += nodes
    manifest = read_json(root / MANIFEST)
    scores, rule = steps[-1]["value"], manifest["decision"]
    decision = arranged(np.array([scores]), rule, [None], [None])[0][0]
    against = "against the costs" if problem.WIDE else f"against {rule:.4g}"
    if problem.LISTED:
        against = "alone in its list"
    answer = named(float(decision), manifest.get("label_values", []))
    steps.append({"step": against, "name": "decision", "value": answer})
    for name in (name for name, kind in columns.items() if kind == "text"):
        tokens = TOKEN.findall(visible[name])
        steps += _occluded(root / MODEL, frame, name, tokens, int(decision) if problem.WIDE else 0)
    return steps


def _told_images(
    steps: list[dict[str, Any]], scorer: Scorer, frame: pd.DataFrame
) -> list[dict[str, Any]]:
    """The steps with each image as its size and the region that counts, in place of its base64."""
    image_steps = []
    for step in steps:
        form = scorer.images.get(step["name"])
        if form and step["value"]:
            image_steps.append(step | {"value": f"an image of {form.size} × {form.size}"})
            region = _region(scorer, frame, step["name"])
            image_steps.append({"step": "region", "name": step["name"], "value": region})
        else:
            image_steps.append(step | {"value": "no image"} if form else step)
    return image_steps


def _occluded(
    path: Path, row: pd.DataFrame, column: str, tokens: Sequence[str], score: int
) -> list[dict[str, Any]]:
    """The words of one text that a score owes most to, or that lower it most: what it loses without each of them.

    Args:
        tokens: the words, in the order of the text; the first `MAX_WORDS` different ones are left out in turn.
        score: which of the model's.
    """
    text = row[column].iloc[0]
    distinct = list(dict.fromkeys(tokens))[:MAX_WORDS]
    texts = [text, *(_without(text, token) for token in distinct)]
    variants = pd.concat([row] * len(texts), ignore_index=True).assign(**{column: texts})
    scores = load_scorer(path).score(variants).reshape(len(texts), -1)[:, score]
    raised = scores[0] - scores[1:]
    largest = np.argsort(-np.abs(raised), kind="stable")[:MAX_NAMED]
    return [
        {"step": f"word of {column}", "name": distinct[i], "value": float(raised[i])}
        for i in largest
        if raised[i]
    ]


def _without(text: str, token: str) -> str:
    return TOKEN.sub(lambda match: " " if match[0] == token else match[0], text)


def _is_text(value: Any) -> bool:
    return isinstance(value[0] if isinstance(value, list) and value else value, str)


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


def _region(scorer: Scorer, row: pd.DataFrame, name: str) -> str:
    """Which region of an image moves the score most when it is hidden (occlusion: Zeiler and Fergus, 2014)."""
    whole = to_pixels(row[name].iloc[0])
    ends = np.linspace(0, whole.shape[1], REGIONS + 1).astype(int)
    images = []
    for i in range(REGIONS**2):
        down, right = divmod(i, REGIONS)
        hidden = whole.copy()
        hidden[:, ends[down] : ends[down + 1], ends[right] : ends[right + 1]] = GREY
        images.append(from_pixels(hidden))
    rows = pd.concat([row] * len(images), ignore_index=True).assign(**{name: images})
    moves = scorer.score(rows).reshape(len(images), -1) - scorer.score(row).reshape(1, -1)
    down, right = divmod(int(np.abs(moves).max(axis=1).argmax()), REGIONS)
    move = moves[down * REGIONS + right]
    return (
        f"{down + 1} of {REGIONS} down, {right + 1} of {REGIONS} across: hidden, it moves a score by "
        f"{move[np.abs(move).argmax()]:+.3g}"
    )


def _nodes(path: Path, row: pd.DataFrame) -> list[dict[str, Any]]:
    import onnx

    if not path.is_file():
        raise UserError(f"{path} is not here: train first (`run` does it)")
    model = onnx.load(path)
    graph = model.graph
    outputs = {output.name for output in graph.output}
    names = [
        (node.op_type, output)
        for node in graph.node
        for output in node.output
        # Of an encoder's nodes, a thousand or more, what the last gives is read by a node that is shown
        if output and not output.startswith(INCLUDED)
    ]
    graph.output.extend(onnx.ValueInfoProto(name=name) for _, name in names if name not in outputs)
    scorer = load_scorer(model.SerializeToString())
    values = scorer.session.run([name for _, name in names], scorer.feed(row))
    properties = {entry.key: entry.value for entry in model.metadata_props}
    features = properties.get("features", "").split("\n")
    steps: list[dict[str, Any]] = []
    # A model whose nodes are the project's own has no such names: the features are what is put together before it
    of_model = [i for i, (_, name) in enumerate(names) if name.startswith("_model/")]
    row_shape = 1, len(features)
    matrices = [i for i in range(*of_model[:1] or [len(names)]) if np.shape(values[i]) == row_shape]
    joined = [i for i in matrices if of_model or names[i][0] == "Concat"]
    matrix = max(joined, default=min(matrices, default=-1))
    for position, ((kind, name), value) in enumerate(zip(names, values, strict=True)):
        if position == matrix:  # what the model reads, perhaps beside the place where it was shown
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
