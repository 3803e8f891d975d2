"""A smaller, quicker copy of the exported model, and what that costs.

What counts in these graphs is trees: fewer ones learn what all of them say, or they are cut to the first ones, which a
boosted model makes the most of. Rounding their leaves to 8 bits was tried and saves nothing, since a leaf is stored as a
32-bit float whatever it holds. Products of matrices, where a graph has large ones, get two
thin matrices that are trained anew (low rank), or weights of 8 bits.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .. import paths
from ..data.source import report as write
from ..features.catalogue import inputs, load, load_truth, load_weight
from ..goals.gate import Gain, Gate, gain_interval, measure, representatives, resample, sample_rows
from ..modelling.boosting import TREE_NODES
from ..modelling.evaluate import evaluate
from ..modelling.fitting import STACK_FOLDS
from ..modelling.scorer import latency, load_scorer
from ..modelling.train import Part, join_parts, read_parts
from ..parts import part_module
from ..problem.goals import decide, distance, unit
from ..repository import verified
from ..settings import Settings, read_json, require_file
from .distillation import judged_model, students
from .low_rank import factored

SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the trees, tried in this order
RANKS = (
    0.2,
    0.4,
    0.6,
)  # shares of a layer's weights that two thin matrices have, tried in this order
MIN_WEIGHTS = 4096  # of a matrix, below which other weights save less than they bring along
MAX_ROWS = 20_000
LARGEST_STUDENT = 0.5  # of the whole model's size
# Why nothing comes of a way whatever the metric
IDLE = {
    "distillation": "no trees, of which fewer could learn the same, or none of half the size",
    "fewer_trees": "no trees to cut",
    "low_rank": "no matrix large enough to gain by two thin ones",
    "eight_bits": "no matrix large enough to gain by weights of 8 bits",
}

Array = np.ndarray


class Way(TypedDict):
    """What a way of `compression.ways` came to on rows that no model has seen: its smallest copy that keeps the metric."""

    way: str
    why: str  # nothing came of it; empty where a copy keeps the metric
    size: float  # of the whole model, as the figures below are
    rows_per_second: float
    p50_ms: float
    gain: Gain | None  # of the metric, with its paired interval


class Compression(TypedDict):
    """What reports/compression.json holds."""

    passed: bool
    why: str
    ways: list[Way]
    rows: list[dict[str, Any]]  # {"what", "before", "after"}; none where nothing could be cut
    gate: Gate | None  # the verdict on the smaller model


def compress(settings: Settings, root: Path) -> Compression:
    """Look for the smallest copy that keeps the metric, and hold it against the whole gate.

    It is chosen of each of `compression.ways`, on rows that neither the whole model nor the copy has seen: the validation
    rows, or where what ships was fitted to them too, folds of these and the training rows, with a model fitted to the
    rest of each. Cost and gate come from the test rows. A model that passes goes to models/compressed, from where
    `promote --compressed` takes it; another does not.

    Raises:
        UserError: when train or evaluate has not run.
    """
    require_file(root / paths.METRICS_REPORT)
    manifest = read_json(root / paths.MANIFEST)
    before = (root / paths.MODEL).read_bytes()
    parts, _ = read_parts(settings, root)
    fitted = parts["train"]
    rounds = [Round(before, fitted, _load_part(settings, root, "valid"))]
    if manifest["trained_rows"] > len(fitted.label):
        fitted = join_parts(parts, settings)
        rounds = [*_rounds(settings, fitted, manifest)]
    report = Compression(passed=False, why="", ways=[], rows=[], gate=None)
    copies: list[bytes] = []
    for way in settings.compression.ways:
        entry, index = _smallest(way, settings, manifest, rounds)
        report["ways"].append(entry)
        if index is not None:
            copies += [*itertools.islice(_copies(way, settings, before, fitted), index, index + 1)]
    after = min(copies, key=len, default=None)
    if after:
        _judge(settings, root, before, after, manifest, report)
    else:
        limit = f"{settings.compression.max_loss:.1%} of {settings.goals.metric}"
        report["why"] = f"no way keeps within {limit} what it makes smaller"
    shutil.rmtree(root / paths.COMPRESSED, ignore_errors=True)
    if after and report["passed"]:
        reasons = _reasons(settings, root, manifest, after)
        fresh = _model_folder(root, after, manifest, root / paths.TRAINED, reasons)
        fresh.rename(root / paths.COMPRESSED)
    return write(root, "compression", report)


class Round(NamedTuple):
    """A model that teaches, the rows that it was fitted to, and rows that judge, with what came true of them."""

    model: bytes
    fit: Part
    judging: tuple[pd.DataFrame, Array]


def _rounds(settings: Settings, part: Part, manifest: dict[str, Any]) -> Iterator[Round]:
    """A round for each fold of some rows."""
    for sides in part.keys.folds(STACK_FOLDS, settings.project.seed):
        fit, held = (part.take(rows) for rows in sides)
        model = judged_model(settings, fit, held, manifest)
        yield Round(model, fit, _drawn(settings, held.rows, held.label, held.keys.weight))


def _smallest(
    way: str, settings: Settings, manifest: dict[str, Any], rounds: Sequence[Round]
) -> tuple[Way, int | None]:
    """The first of a way's copies that keeps the metric; None where there is no such. Sizes and times are of one round."""
    entry = Way(way=way, why="", size=1.0, rows_per_second=1.0, p50_ms=1.0, gain=None)
    made: tuple[bytes, ...] = ()
    index = -1
    makers = [_copies(way, settings, model, fit) for model, fit, _ in rounds]
    for made in zip(*makers, strict=False):  # one may have more trees, and so more copies
        index += 1
        pairs = [(model, copy) for (model, *_), copy in zip(rounds, made, strict=True)]
        gain, allowed = _gain(settings, manifest, [judging for *_, judging in rounds], pairs)
        entry["gain"] = gain
        if -gain["low"] <= allowed:
            break
    else:
        entry["why"] = (
            "each copy may lose more than compression.max_loss allows" if made else IDLE[way]
        )
    if made:
        (before, _, (rows, _)), after = rounds[0], made[0]
        entry["size"] = len(after) / len(before)
        entry["rows_per_second"] = _speed(after, rows) / _speed(before, rows)
        entry["p50_ms"] = latency(after, rows)["p50_ms"] / latency(before, rows)["p50_ms"]
    return entry, None if entry["why"] else index


def _copies(way: str, settings: Settings, before: bytes, part: Part) -> Iterator[bytes]:
    """The copies that a way makes, the smallest first: of distillation those of half the size at most.

    Args:
        part: the rows that a student learns from.
    """
    if way == "distillation":
        if not _has_trees(before):
            return
        for content in students(settings, before, part):
            if len(content) > LARGEST_STUDENT * len(before):
                return
            yield content
    elif way == "low_rank":
        import onnx

        names = [node.output[0] for node in _large_products(onnx.load_from_string(before))]
        for share in RANKS:
            content = factored(before, names, share, part.rows)
            if content == before:
                return
            yield content
    elif way == "eight_bits":
        content = smaller(before, 1.0)
        if content != before:
            yield content
    else:
        for share in SHARES if _has_trees(before) else ():
            content = smaller(before, share, eight_bits=False)
            if content != before:
                yield content


def _gain(
    settings: Settings,
    manifest: dict[str, Any],
    parts: Sequence[tuple[pd.DataFrame, Array]],
    pairs: Sequence[tuple[bytes, bytes]],
) -> tuple[Gain, float]:
    """What smaller models gain of the metric, with its interval, and what they are allowed to lose.

    Args:
        parts: rows and what came true of them, as `load_truth` has it; pairs: for each the whole and the smaller model,
            as ONNX.
    """
    goals, y = settings.goals, np.concatenate([truth for _, truth in parts])
    weights = resample(len(y), goals.interval.resamples, settings.project.seed, unit(y))
    drawn = []
    for models in zip(*pairs, strict=True):
        answers = [load_scorer(m).score(rows) for m, (rows, _) in zip(models, parts, strict=True)]
        score = np.concatenate(answers)
        decided = decide(score, manifest["decision"])
        drawn.append(measure(goals.metric, y, score, decided, weights))
    difference = gain_interval(goals.metric, drawn[1], drawn[0], goals.interval)
    return difference, settings.compression.max_loss * abs(float(np.median(drawn[0])))


def smaller(model: bytes, share: float, eight_bits: bool = True) -> bytes:
    """Cut each tree ensemble of a model to its first trees, and give large matrices 8-bit weights.

    Args:
        model: the ONNX file's content.
        share: of the trees that stay, above 0 and up to 1; at least one tree does.
        eight_bits: whether matrices get such weights.

    Returns:
        the smaller file's content; the same bytes when nothing could be cut.
    """
    import onnx

    graph = onnx.load_from_string(model)
    changed = False
    for node in graph.graph.node:
        if node.op_type in TREE_NODES:
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
    if eight_bits and _large_products(graph) and not is_uneven:
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


def _has_trees(model: bytes) -> bool:
    import onnx

    return any(node.op_type in TREE_NODES for node in onnx.load_from_string(model).graph.node)


def _load_part(settings: Settings, root: Path, part: str) -> tuple[pd.DataFrame, Array]:
    """Rows of a part and what came true of them: at most MAX_ROWS, drawn with the project's seed."""
    path = root / paths.SPLITS[part]
    return _drawn(settings, load(path, inputs(settings)), load_truth(path), load_weight(path))


def _drawn(
    settings: Settings, rows: pd.DataFrame, y: Array, weight: Array | None
) -> tuple[pd.DataFrame, Array]:
    """At most MAX_ROWS of the rows, each as often as it counts."""
    alike = representatives(len(y), weight)
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
    gain, allowed = _gain(settings, manifest, [test], [(before, after)])
    loss = max(0.0, -gain["low"])
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


def _reasons(
    settings: Settings, root: Path, manifest: dict[str, Any], model: bytes
) -> bytes | None:
    """What explains the smaller model's answers; None where the whole model's are not explained."""
    attribution = part_module("analysis.attribution")
    if attribution is None or "reasons" not in manifest:
        return None
    target = attribution.target_of((root / paths.REASONS).read_bytes())
    kinds = inputs(settings)
    rows = load(root / paths.SPLITS["train"], kinds)
    made: bytes = attribution.reasons_file(model, rows, kinds, target, settings.project.seed)
    return made


def _model_folder(
    root: Path, model: bytes, manifest: dict[str, Any], beside: Path, reasons: bytes | None = None
) -> Path:
    """A new folder with the model and all that belongs to it."""
    import hashlib

    folder = Path(tempfile.mkdtemp(dir=beside, prefix="fresh-"))
    folder.chmod(0o755)
    for name in (paths.BASELINE_FILE, paths.FITTED_FILE):
        shutil.copy2(root / paths.TRAINED / name, folder / name)
    (folder / paths.MODEL_FILE).write_bytes(model)
    sha256 = hashlib.sha256(model).hexdigest()
    changed = {**manifest, "sha256": sha256, "compressed_from": manifest["sha256"]}
    changed.pop("reasons", None)
    if reasons is not None:
        (folder / paths.REASONS_FILE).write_bytes(reasons)
        changed["reasons"] = hashlib.sha256(reasons).hexdigest()
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
    """Print what each way gained and cost, and the gate's rows before the smaller model and after."""
    tried = Table("on unseen rows", "size", "rows/s", "one row", "metric", box=SIMPLE_HEAD)
    for way in report["ways"]:
        gain = way["gain"]
        if gain is None:
            tried.add_row(way["way"], "–", "–", "–", way["why"])
            continue
        ratios = (way["size"], way["rows_per_second"], way["p50_ms"])
        change = f"{gain['gain']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})"
        tried.add_row(
            way["way"],
            *(f"× {ratio:.2f}" for ratio in ratios),
            "; ".join(filter(None, (change, way["why"]))),
        )
    console.print(tried)
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
