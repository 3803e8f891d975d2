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
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from ..data.split import PARTS
from ..features.catalogue import inputs, load
from ..goals.gate import compared, gain, measure, resample
from ..goals.value import decide
from ..settings import Settings, UserError
from .evaluate import METRICS_FILE, PRODUCTION, evaluate
from .export import BASELINE, FITTED, MANIFEST, MODEL, Scorer, latency

REPORT = "reports/compression.json"
COMPRESSED = "models/compressed"
TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the trees, tried in this order
LEAST_WEIGHTS = 4096  # of a matrix, below which 8 bits save less than they bring along
MOST_ROWS = 20_000

Array = np.ndarray


def compress(settings: Settings, root: Path) -> dict[str, Any]:
    """Look for the fewest trees that keep the metric, and hold the result against the whole gate.

    The number of trees is chosen on the validation rows; cost and gate come from the test rows. A model
    that passes goes to models/compressed, from where `promote --compressed` takes it; another does not.

    Returns:
        what reports/compression.json holds: {"passed", "why", "rows": [{"what", "before", "after"}]}.

    Raises:
        UserError: when train or evaluate has not run.
    """
    metrics = root / METRICS_FILE
    if not (root / MANIFEST).is_file() or not metrics.is_file():
        raise UserError(f"{metrics} is not here: use `run` first")
    manifest = json.loads((root / MANIFEST).read_bytes())
    before = (root / MODEL).read_bytes()
    valid, y, few = _part(settings, root, "valid")
    decision, metric = manifest["decision"], settings.goals.metric

    def reached(model: bytes) -> float:
        score = Scorer(model).score(valid)
        return float(measure(metric, y, score, decide(score, decision)))

    allowed = settings.modelling.max_compression_loss
    best = reached(before)
    after = before
    for share in SHARES:
        model = smaller(before, share)
        if model != before and gain(metric, reached(model), best) >= -allowed * abs(best):
            after = model
            break
    report: dict[str, Any] = {"passed": False, "why": "", "rows": [], "gate": None}
    if after == before:
        report["why"] = f"nothing to cut or to quantise: {_made_of(before)}" if not _can(before) else (
            f"cutting a tenth of the trees already costs more than {allowed:.1%} of {metric}"
        )
    else:
        _judge(settings, root, before, after, manifest, report)
    shutil.rmtree(root / COMPRESSED, ignore_errors=True)
    if report["passed"]:
        fresh = _folder(root, after, manifest, root / "models")
        fresh.rename(root / COMPRESSED)
    (root / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def smaller(model: bytes, share: float) -> bytes:
    """The model with that share of each tree ensemble, the first ones, and 8-bit weights if it has large ones.

    Returns:
        the same bytes when it has neither.
    """
    import onnx

    graph = onnx.load_from_string(model)
    changed = False
    for node in graph.graph.node:
        if node.op_type in TREES:
            given = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
            trees = sorted(set(given["nodes_treeids"]))
            kept = set(trees[: max(1, round(share * len(trees)))])
            if len(kept) < len(trees):
                changed = True
                del node.attribute[:]
                node.attribute.extend(
                    onnx.helper.make_attribute(name, _of(kept, name, value, given))
                    for name, value in sorted(given.items())
                )
    if _large(graph):
        graph, changed = _in_8_bits(graph), True
    return bytes(graph.SerializeToString(deterministic=True)) if changed else model


def _of(trees: set[int], name: str, value: Any, given: dict[str, Any]) -> Any:
    """An attribute of a tree ensemble, of some of its trees."""
    prefix = name.split("_")[0]
    owners = given.get(f"{prefix}_treeids")
    if owners is None or not isinstance(value, list) or len(value) != len(owners):
        return value
    return [one for one, owner in zip(value, owners, strict=True) if owner in trees]


def _large(graph: Any) -> list[str]:
    """The weights of products of matrices that are worth having in 8 bits."""
    weights = {one.name: int(np.prod(one.dims)) for one in graph.graph.initializer}
    return [
        name
        for node in graph.graph.node
        if node.op_type in ("MatMul", "Gemm")
        for name in node.input[1:2]
        if weights.get(name, 0) >= LEAST_WEIGHTS
    ]


def _in_8_bits(graph: Any) -> Any:
    """Dynamic quantisation by ONNX Runtime: weights of 8 bits, activations as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        onnx.save(graph, source)
        quantize_dynamic(source, target, weight_type=QuantType.QInt8)
        return onnx.load(target)


def _can(model: bytes) -> bool:
    return smaller(model, SHARES[-1]) != model


def _made_of(model: bytes) -> str:
    import onnx

    kinds = {node.op_type for node in onnx.load_from_string(model).graph.node}
    linear = sorted(kind for kind in kinds if kind.startswith("Linear") or kind in TREES)
    return f"the weights of the model are in {', '.join(linear) or 'no operator'}"


def _part(settings: Settings, root: Path, part: str) -> tuple[pd.DataFrame, Array, Array]:
    """Rows and labels of a part, at most 20,000 drawn with the project's seed, and their places."""
    path = root / PARTS[part]
    rows = load(path, inputs(settings))
    y = duckdb.execute("SELECT _y FROM read_parquet(?)", [str(path)]).fetchnumpy()["_y"]
    few = np.arange(len(y))
    if len(y) > MOST_ROWS:
        few = np.sort(np.random.default_rng(settings.project.seed).choice(few, MOST_ROWS, False))
    return rows.iloc[few], y[few].astype(np.float64), few


def _judge(
    settings: Settings,
    root: Path,
    before: bytes,
    after: bytes,
    manifest: dict[str, Any],
    report: dict[str, Any],
) -> None:
    """Fill in what it cost and gained, and whether that is allowed."""
    goals, decision = settings.goals, manifest["decision"]
    test, y, _ = _part(settings, root, "test")
    weights = resample(len(y), goals.interval.resamples, settings.project.seed)
    scores = [Scorer(one).score(test) for one in (before, after)]
    drawn = [
        measure(goals.metric, y, score, decide(score, decision), weights) for score in scores
    ]
    found = compared(goals.metric, drawn[1], drawn[0], goals.interval)
    old = json.loads((root / METRICS_FILE).read_bytes())["primary"]["value"]
    limit = settings.modelling.max_compression_loss * abs(old)
    gate, new = _gate(settings, root, after, manifest)
    rows = report["rows"]
    rows += [
        {"what": "size in kB", "before": len(before) / 1024, "after": len(after) / 1024},
        {"what": "rows a second", "before": _speed(before, test), "after": _speed(after, test)},
        {
            "what": "one row, p50 in ms",
            "before": latency(before, test)["p50_ms"],
            "after": latency(after, test)["p50_ms"],
        },
        {"what": goals.metric, "before": old, "after": new},
        {"what": "surely lost of it, at most", "before": None, "after": max(0.0, -found["low"])},
        {
            "what": "largest change of a score",
            "before": None,
            "after": float(np.abs(scores[1] - scores[0]).max()),
        },
    ]
    report["gate"] = gate
    missed = [row["words"] for row in gate["rows"] if row["passed"] is False]
    if missed:
        report["why"] = f"it misses the gate: {', '.join(missed)}"
    elif found["low"] < -limit:
        report["why"] = (
            f"on the test rows it may lose {-found['low']:.4g} of {goals.metric}, "
            f"modelling.max_compression_loss allows {limit:.4g}"
        )
    else:
        report["passed"] = True
        report["why"] = f"it keeps {goals.metric} within {limit:.4g} and passes the gate"


def _gate(
    settings: Settings, root: Path, model: bytes, manifest: dict[str, Any]
) -> tuple[dict[str, Any], float]:
    """The verdict of the same `evaluate` on the same rows, and the primary metric."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "data").symlink_to((root / "data").resolve(), target_is_directory=True)
        _folder(root, model, manifest, scratch).rename(scratch / "models")
        if (root / PRODUCTION).is_dir():
            (scratch / PRODUCTION).symlink_to((root / PRODUCTION).resolve(), True)
        gate = evaluate(settings, scratch)
        report = json.loads((scratch / METRICS_FILE).read_bytes())
    return gate, report["primary"]["value"]


def _folder(root: Path, model: bytes, manifest: dict[str, Any], beside: Path) -> Path:
    """A new folder with the model and all that belongs to it."""
    import hashlib

    folder = Path(tempfile.mkdtemp(dir=beside, prefix="fresh-"))
    folder.chmod(0o755)
    for name in (BASELINE, FITTED):
        shutil.copy2(root / name, folder / Path(name).name)
    (folder / "model.onnx").write_bytes(model)
    changed = {
        **manifest,
        "sha256": hashlib.sha256(model).hexdigest(),
        "compressed_from": manifest["sha256"],
    }
    (folder / "manifest.json").write_text(json.dumps(changed, indent=2, sort_keys=True) + "\n")
    return folder


def _speed(model: bytes, rows: pd.DataFrame) -> float:
    """Rows a second in one call on one thread, the best of five."""
    scorer = Scorer(model)
    feed = scorer.feed(rows)
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        scorer.session.run(["score"], feed)
        spent.append(time.perf_counter() - start)
    return len(rows) / min(spent)
