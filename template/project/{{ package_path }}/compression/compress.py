"""A smaller, quicker copy of the exported model, and what that costs.

What counts in these graphs is trees. They are cut to the first ones, which a boosted model makes the most
of; rounding their leaves to 8 bits was tried and saves nothing, since a leaf is stored as a 32-bit float
whatever it holds. Products of matrices, where a graph has large ones, get weights of 8 bits.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .. import paths
from ..data.source import report as write
from ..features.catalogue import inputs, load, load_truth, load_weight
from ..goals.gate import Gate, gain_interval, measure, representatives, resample, sample_rows
from ..modelling.evaluate import evaluate
from ..modelling.scorer import latency, load_scorer
from ..problem.goals import decide, distance, unit
from ..repository import verified
from ..settings import Settings, read_json, require_file

TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the trees, tried in this order
MIN_WEIGHTS = 4096  # of a matrix, below which 8 bits save less than they bring along
MAX_ROWS = 20_000

Array = np.ndarray


class Compression(TypedDict):
    """What reports/compression.json holds."""

    passed: bool
    why: str
    rows: list[dict[str, Any]]  # {"what", "before", "after"}; none where nothing could be cut
    gate: Gate | None  # the verdict on the smaller model


def compress(settings: Settings, root: Path) -> Compression:
    """Look for the fewest trees that keep the metric, and hold the result against the whole gate.

    The number of trees is chosen on the validation rows; cost and gate come from the test rows. A model
    that passes goes to models/compressed, from where `promote --compressed` takes it; another does not.

    Raises:
        UserError: when train or evaluate has not run.
    """
    require_file(root / paths.METRICS_REPORT)
    manifest = read_json(root / paths.MANIFEST)
    before = (root / paths.MODEL).read_bytes()
    valid = _load_part(settings, root, "valid")
    after = before
    for share in SHARES:
        model = smaller(before, share)
        loss, allowed = _loss(settings, manifest, valid, before, model)
        if model == before or loss <= allowed:
            after = model
            break
    report = Compression(passed=False, why="", rows=[], gate=None)
    if after != before:
        _judge(settings, root, before, after, manifest, report)
    elif smaller(before, SHARES[-1]) == before:
        report["why"] = f"nothing to cut or to quantise: {_weight_operators(before)}"
    else:
        limit = f"{settings.compression.max_loss:.1%} of {settings.goals.metric}"
        report["why"] = f"cutting a tenth of the trees may already cost more than {limit}"
    shutil.rmtree(root / paths.COMPRESSED, ignore_errors=True)
    if report["passed"]:
        fresh = _model_folder(root, after, manifest, root / paths.TRAINED)
        fresh.rename(root / paths.COMPRESSED)
    return write(root, "compression", report)


def _loss(
    settings: Settings,
    manifest: dict[str, Any],
    part: tuple[pd.DataFrame, Array],
    before: bytes,
    after: bytes,
) -> tuple[float, float]:
    """What the smaller model may lose of the metric, by its interval, and what it is allowed to.

    Args:
        part: rows and what came true of them, as `load_truth` has it; before, after: the two models as ONNX.
    """
    goals, (rows, y) = settings.goals, part
    weights = resample(len(y), goals.interval.resamples, settings.project.seed, unit(y))
    drawn = []
    for model in (before, after):
        score = load_scorer(model).score(rows)
        decided = decide(score, manifest["decision"])
        drawn.append(measure(goals.metric, y, score, decided, weights))
    difference = gain_interval(goals.metric, drawn[1], drawn[0], goals.interval)
    allowed = settings.compression.max_loss * abs(float(np.median(drawn[0])))
    return max(0.0, -difference["low"]), allowed


def smaller(model: bytes, share: float) -> bytes:
    """Cut each tree ensemble of a model to its first trees, and give large matrices 8-bit weights.

    Args:
        model: the ONNX file's content.
        share: of the trees that stay, above 0 and up to 1; at least one tree does.

    Returns:
        the smaller file's content; the same bytes when nothing could be cut.
    """
    import onnx

    graph = onnx.load_from_string(model)
    changed = False
    for node in graph.graph.node:
        if node.op_type in TREES:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            trees = sorted(set(attributes["nodes_treeids"]))
            kept_trees = set(trees[: max(1, round(share * len(trees)))])
            if len(kept_trees) < len(trees):
                changed = True
                del node.attribute[:]
                node.attribute.extend(
                    onnx.helper.make_attribute(name, _of_trees(kept_trees, name, value, attributes))
                    for name, value in sorted(attributes.items())
                )
    # Beside 8-bit weights, the other factor is rounded by the largest number of all rows in a call. Of
    # texts most of it is small, and series have any level: a row's score would hang on its company
    keys = {entry.key for entry in graph.metadata_props}
    is_uneven = "histories" in keys or ("texts" in keys and "tokens" not in keys)
    if _large_products(graph) and not is_uneven:
        graph, changed = _quantise(graph), True
    return bytes(graph.SerializeToString(deterministic=True)) if changed else model


def _of_trees(trees: set[int], name: str, value: Any, attributes: dict[str, Any]) -> Any:
    """An attribute of a tree ensemble, cut to the entries of some of its trees.

    Args:
        attributes: all of the ensemble, of which `{prefix}_treeids` names each entry's tree.
    """
    prefix = name.split("_")[0]
    owners = attributes.get(f"{prefix}_treeids")
    if owners is None or not isinstance(value, list) or len(value) != len(owners):
        return value
    return [entry for entry, owner in zip(value, owners, strict=True) if owner in trees]


def _large_products(graph: Any) -> list[Any]:
    """The nodes of products of matrices whose weights are worth having in 8 bits."""
    weights = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.graph.initializer}
    return [
        node
        for node in graph.graph.node
        if node.op_type in ("MatMul", "Gemm") and weights.get(node.input[1], 0) >= MIN_WEIGHTS
    ]


def _quantise(graph: Any) -> Any:
    """Dynamic quantisation by ONNX Runtime: large weights of 8 bits, activations as they come, all else as it is."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for node in (nodes := _large_products(graph)):
        node.name = node.output[0]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        onnx.save(graph, source)
        names = [node.name for node in nodes]
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, nodes_to_quantize=names)
        return onnx.load(target)


def _weight_operators(model: bytes) -> str:
    import onnx

    kinds = {node.op_type for node in onnx.load_from_string(model).graph.node}
    linear = sorted(kind for kind in kinds if kind.startswith("Linear") or kind in TREES)
    return f"the weights of the model are in {', '.join(linear) or 'no operator'}"


def _load_part(settings: Settings, root: Path, part: str) -> tuple[pd.DataFrame, Array]:
    """Rows of a part and what came true of them: at most MAX_ROWS, drawn with the project's seed."""
    path = root / paths.SPLITS[part]
    rows, y = load(path, inputs(settings)), load_truth(path)
    alike = representatives(len(y), load_weight(path))
    sample = alike[sample_rows(len(y), MAX_ROWS, settings.project.seed, unit(y))]
    return rows.iloc[sample], y[sample]


def _judge(
    settings: Settings,
    root: Path,
    before: bytes,
    after: bytes,
    manifest: dict[str, Any],
    report: Compression,
) -> None:
    """Fill the report: what the smaller model costs and gains on the test rows, and whether it passes."""
    metric = settings.goals.metric
    test = _load_part(settings, root, "test")
    loss, allowed = _loss(settings, manifest, test, before, after)
    rows, changed = test[0], [load_scorer(m).score(test[0]) for m in (before, after)]
    gate = _gate(settings, root, after, manifest)
    report["rows"] = [
        {"what": figure, "before": old, "after": new}
        for figure, old, new in (
            ("size in kB", len(before) / 1024, len(after) / 1024),
            ("rows a second", _speed(before, rows), _speed(after, rows)),
            ("one row, p50 in ms", *(latency(m, rows)["p50_ms"] for m in (before, after))),
            (f"what it may lose of {metric}", None, loss),
            ("largest change of a score", None, float(distance(*changed).max())),
        )
    ]
    report["gate"] = gate
    missed = [row["words"] for row in gate["rows"] if row["passed"] is False]
    if missed:
        report["why"] = f"it misses the gate: {', '.join(missed)}"
    elif loss > allowed:
        report["why"] = (
            f"on the test rows it may lose {loss:.4g} of {metric}, and "
            f"compression.max_loss allows {allowed:.4g}"
        )
    else:
        report["passed"] = True
        report["why"] = f"it keeps {metric} within {allowed:.4g} and passes the gate"


def _gate(settings: Settings, root: Path, model: bytes, manifest: dict[str, Any]) -> Gate:
    """The verdict of the same `evaluate` on the same rows."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        # Copies: Windows makes a link only for an administrator
        shutil.copytree(root / paths.SPLIT, scratch / paths.SPLIT)
        _model_folder(root, model, manifest, scratch).rename(scratch / paths.TRAINED)
        if (production := verified(root, paths.PRODUCTION)).is_dir():
            shutil.copytree(production, scratch / paths.PRODUCTION)
        return evaluate(settings, scratch)


def _model_folder(root: Path, model: bytes, manifest: dict[str, Any], beside: Path) -> Path:
    """A new folder with the model and all that belongs to it."""
    import hashlib

    folder = Path(tempfile.mkdtemp(dir=beside, prefix="fresh-"))
    folder.chmod(0o755)
    for name in (paths.BASELINE_FILE, paths.FITTED_FILE):
        shutil.copy2(root / paths.TRAINED / name, folder / name)
    (folder / paths.MODEL_FILE).write_bytes(model)
    sha256 = hashlib.sha256(model).hexdigest()
    changed = {**manifest, "sha256": sha256, "compressed_from": manifest["sha256"]}
    (folder / paths.MANIFEST_FILE).write_text(
        json.dumps(changed, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n"
    )
    return folder


def _speed(model: bytes, rows: pd.DataFrame) -> float:
    """Rows a second on one thread, the best of five."""
    scorer = load_scorer(model)
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        scorer.run(rows)
        spent.append(time.perf_counter() - start)
    return len(rows) / min(spent)


def show(report: Compression, gate: Gate, console: Console) -> None:
    """Print what the smaller model gained and cost, beside the gate's rows before and after."""
    if report["gate"]:
        table = Table("", "before", "after", box=SIMPLE_HEAD)
        table.columns[1].justify = table.columns[2].justify = "right"
        before = {row["target"]: row["measured"] for row in gate["rows"]}
        rows = [(row["what"], row["before"], row["after"]) for row in report["rows"]]
        for row in report["gate"]["rows"]:
            rows.append((row["words"], before[row["target"]], row["measured"]))
        for label, *figures in rows:
            if figures[1] is not None:
                table.add_row(label, *("–" if f is None else f"{f:,.4g}" for f in figures))
        console.print(table)
    end = ": `promote --compressed` takes it" if report["passed"] else "; the model stays as it is"
    console.print(f"{report['why']}{end}", markup=False)
