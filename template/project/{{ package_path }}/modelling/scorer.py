"""The exported file as training and monitoring use it: where it is, how quick it is, whether it says what the trained
model says, of usual rows and of odd ones.

Needs numpy and onnxruntime only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..images import from_pixels
from ..model import ModelError, Scorer
from ..settings import UserError, require_file

CALLS, BLOCKS = 200, 5  # of one row, timed: so many in each of so many blocks
UNSEEN = "\x7f never seen"
# Nothing, nothing but zeros, a single value, huge and negative ones, gaps at the start, inside and at the end
ODD_HISTORIES = (
    "[]",
    "[0,0,0,0,0,0,0,0]",
    "[5]",
    "[1e30,1e30,-1e30]",
    "[-4,-5,-4,-6]",
    "[null,null,3,null,4,null]",
    "[null]",
)
Array = np.ndarray


def load_scorer(model: Path | bytes) -> Scorer:
    """An exported model, of a file or of its bytes, ready to score.

    Raises:
        UserError: when the file is not there or is not a model.
    """
    try:
        return Scorer(model if isinstance(model, bytes) else require_file(model))
    except ModelError as error:
        raise UserError(str(error)) from None


def latency(model: Path | bytes, rows: pd.DataFrame, blocks: int = BLOCKS) -> dict[str, float]:
    """Milliseconds for one row through the file on one thread, warm: the median `p50_ms`, and `p99_ms`.

    In processor time of that thread, and of the quickest of several blocks, so that what else runs on
    the machine does not decide.
    """
    clock = time.thread_time
    if time.get_clock_info("thread_time").resolution > 1e-6:  # 16 ms on Windows
        clock = time.perf_counter
    scorer = load_scorer(model)
    feeds = [scorer.feed(rows, slice(i, i + 1)) for i in range(min(len(rows), CALLS))]
    milliseconds = np.empty((blocks + 1, CALLS))  # the first block warms up
    for block in range(blocks + 1):
        for i in range(CALLS):
            start = clock()
            scorer.session.run(None, feeds[i % len(feeds)])
            milliseconds[block, i] = 1000 * (clock() - start)
    p50, p99 = np.quantile(milliseconds[1:], [0.5, 0.99], axis=1).min(axis=1)
    return {"p50_ms": float(p50), "p99_ms": float(p99)}


def parity(trained: Array, scorer: Scorer, rows: pd.DataFrame, unit: float | Array = 1.0) -> float:
    """The largest |difference| between the trained pipeline's scores and the exported model's.

    Args:
        trained: the pipeline's score of `rows`, shape (n,), or (n, classes) where each has its own.
        unit: what differences are divided by: for a number, the label's standard deviation; one
            value, or one a row.

    Returns:
        infinity when either gives no finite number for some row.
    """
    gap = np.abs(trained - scorer.score(rows)) / unit
    return float(gap.max()) if np.isfinite(gap).all() else float("inf")


def with_extremes(rows: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """The rows, and copies of the first twenty with what training is unlikely to have had.

    Each column by itself, and all together: missing, unknown, very long, huge, infinite.
    """
    numbers = [np.nan, 1e30, -1e30, np.inf, -np.inf, 0.0]
    extremes: dict[str, list[Any]] = {
        "category": ["", UNSEEN, "é 日本", "x" * 300],
        "text": [
            "",
            "?!",
            UNSEEN,
            "日本語 テスト",
            "straße İstanbul ΣΑΣ",
            "x" * 9000,
            "\x01a\x1fb 🙂",
        ],
        "image": ["", *_odd_images()] if "image" in columns.values() else [],
        "history": ["", *ODD_HISTORIES],
        "time": [*numbers, 4e9, -4e9],
    }
    values = {name: extremes.get(type_, numbers) for name, type_ in columns.items()}
    changes: list[dict[str, Any]] = [{name: value} for name in columns for value in values[name]]
    changes += [{name: values[name][i % len(values[name])] for name in columns} for i in range(8)]
    copies = [rows.head(20).assign(**change) for change in changes]
    return pd.concat([rows, *copies], ignore_index=True).astype(rows.dtypes.to_dict())


def _odd_images() -> list[str]:
    """Images of other shapes and colours than most: a long one, a white one, noise, a single pixel."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 40, 90), dtype=np.uint8)
    return [from_pixels(image) for image in (noise, noise | 255, noise[:1], noise[:, :1, :1])]
