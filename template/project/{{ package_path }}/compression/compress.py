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
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .. import paths
from ..features.catalogue import inputs, load
from ..goals.gate import compared, measure, resample, sample_rows
from ..modelling.evaluate import evaluate
from ..modelling.scorer import latency, load_scorer
from ..problem.goals import decide, distance
from ..repository import verified
from ..settings import Settings, read_json, require_file

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
    require_file(root / paths.METRICS_REPORT)
    manifest = read_json(root / paths.MANIFEST)
    before = (root / paths.MODEL).read_bytes()
    valid = _part(settings, root, "valid")
    after = before
    for share in SHARES:
        model = smaller(before, share)
        loss, allowed = _loss(settings, manifest, valid, before, model)
        if model == before or loss <= allowed:
            after = model
            break
    report: dict[str, Any] = {"passed": False, "why": "", "rows": [], "gate": None}
    if after != before:
        _judge(settings, root, before, after, manifest, report)
    elif smaller(before, SHARES[-1]) == before:
        report["why"] = f"nothing to cut or to quantise: {_made_of(before)}"
    else:
        least = f"{settings.compression.max_loss:.1%} of {settings.goals.metric}"
        report["why"] = f"cutting a tenth of the trees may already cost more than {least}"
    shutil.rmtree(root / paths.COMPRESSED, ignore_errors=True)
    if report["passed"]:
        fresh = _folder(root, after, manifest, root / paths.TRAINED)
        fresh.rename(root / paths.COMPRESSED)
    (root / paths.COMPRESSION).write_text(
        json.dumps(report, indent=2) + "\n", encoding="utf-8", newline="\n"
    )
    return report


def _loss(
    settings: Settings,
    manifest: dict[str, Any],
    part: tuple[pd.DataFrame, Array],
    before: bytes,
    after: bytes,
) -> tuple[float, float]:
    """What the smaller model may lose of the metric, by its interval, and what it is allowed to."""
    goals, (rows, y) = settings.goals, part
    weights = resample(len(y), goals.interval.resamples, settings.project.seed)
    drawn = []
    for model in (before, after):
        score = load_scorer(model).score(rows)
        decided = decide(score, manifest["decision"])
        drawn.append(measure(goals.metric, y, score, decided, weights))
    found = compared(goals.metric, drawn[1], drawn[0], goals.interval)
    allowed = settings.compression.max_loss * abs(float(np.median(drawn[0])))
    return max(0.0, -found["low"]), allowed


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


def _made_of(model: bytes) -> str:
    import onnx

    kinds = {node.op_type for node in onnx.load_from_string(model).graph.node}
    linear = sorted(kind for kind in kinds if kind.startswith("Linear") or kind in TREES)
    return f"the weights of the model are in {', '.join(linear) or 'no operator'}"


def _part(settings: Settings, root: Path, part: str) -> tuple[pd.DataFrame, Array]:
    """Rows and labels of a part, at most 20,000 drawn with the project's seed."""
    path = root / paths.SPLITS[part]
    rows = load(path, inputs(settings))
    y = duckdb.execute("SELECT _y FROM read_parquet(?)", [str(path)]).fetchnumpy()["_y"]
    few = sample_rows(len(y), MOST_ROWS, settings.project.seed)
    return rows.iloc[few], y[few].astype(np.float64)


def _judge(
    settings: Settings,
    root: Path,
    before: bytes,
    after: bytes,
    manifest: dict[str, Any],
    report: dict[str, Any],
) -> None:
    """Fill in what it cost and gained, and whether that is allowed."""
    metric = settings.goals.metric
    test = _part(settings, root, "test")
    loss, allowed = _loss(settings, manifest, test, before, after)
    rows, changed = test[0], [load_scorer(one).score(test[0]) for one in (before, after)]
    gate = _gate(settings, root, after, manifest)
    report["rows"] = [
        {"what": what, "before": one, "after": other}
        for what, one, other in (
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


def _gate(settings: Settings, root: Path, model: bytes, manifest: dict[str, Any]) -> dict[str, Any]:
    """The verdict of the same `evaluate` on the same rows."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        # Copies: Windows makes a link only for an administrator
        shutil.copytree(root / paths.SPLIT, scratch / paths.SPLIT)
        _folder(root, model, manifest, scratch).rename(scratch / paths.TRAINED)
        if (production := verified(root, paths.PRODUCTION)).is_dir():
            shutil.copytree(production, scratch / paths.PRODUCTION)
        return evaluate(settings, scratch)


def _folder(root: Path, model: bytes, manifest: dict[str, Any], beside: Path) -> Path:
    """A new folder with the model and all that belongs to it."""
    import hashlib

    folder = Path(tempfile.mkdtemp(dir=beside, prefix="fresh-"))
    folder.chmod(0o755)
    for name in (paths.BASELINE_FILE, paths.FITTED_FILE):
        shutil.copy2(root / paths.TRAINED / name, folder / name)
    (folder / paths.MODEL_FILE).write_bytes(model)
    changed = {
        **manifest,
        "sha256": hashlib.sha256(model).hexdigest(),
        "compressed_from": manifest["sha256"],
    }
    (folder / paths.MANIFEST_FILE).write_text(
        json.dumps(changed, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n"
    )
    return folder


def _speed(model: bytes, rows: pd.DataFrame) -> float:
    """Rows a second in one call on one thread, the best of five."""
    scorer = load_scorer(model)
    feed = scorer.feed(rows)
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        scorer.session.run(None, feed)
        spent.append(time.perf_counter() - start)
    return len(rows) / min(spent)


def show(found: dict[str, Any], gate: dict[str, Any], console: Console) -> None:
    """Print what the smaller model gained and cost, beside the gate's rows before and after."""
    if found["rows"]:
        table = Table("", "before", "after", box=SIMPLE_HEAD)
        table.columns[1].justify = table.columns[2].justify = "right"
        before = {row["target"]: row["measured"] for row in gate["rows"]}
        rows = [(row["what"], row["before"], row["after"]) for row in found["rows"]]
        for row in found["gate"]["rows"]:
            rows.append((row["words"], before[row["target"]], row["measured"]))
        for words, *figures in rows:
            if figures[1] is not None:
                table.add_row(words, *("–" if one is None else f"{one:,.4g}" for one in figures))
        console.print(table)
    next_ = ": `promote --compressed` takes it" if found["passed"] else "; the model stays as it is"
    console.print(f"{found['why']}{next_}", markup=False)
