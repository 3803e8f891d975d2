"""The exported file as training and monitoring use it: where it is, how it is loaded, how quick it is.

Needs numpy and onnxruntime only.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd

from ..model import ModelError, Scorer
from ..settings import UserError, require_file

CALLS, BLOCKS = 200, 5  # of one row, timed: so many in each of so many blocks


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
    """Milliseconds for one row through the file on one thread, warm: median and 99th percentile.

    In processor time of that thread, and of the quickest of several blocks, so that what else runs on
    the machine does not decide.
    """
    clock = time.thread_time
    if time.get_clock_info("thread_time").resolution > 1e-6:  # 16 ms on Windows
        clock = time.perf_counter
    scorer = load_scorer(model)
    table = scorer.feed(rows.head(CALLS))
    feeds = [
        {name: values[turn : turn + 1] for name, values in table.items()}
        for turn in range(min(len(rows), CALLS))
    ]
    spent = np.empty((blocks + 1, CALLS))  # the first block warms up
    for block in range(blocks + 1):
        for turn in range(CALLS):
            start = clock()
            scorer.session.run(None, feeds[turn % len(feeds)])
            spent[block, turn] = 1000 * (clock() - start)
    p50, p99 = np.quantile(spent[1:], [0.5, 0.99], axis=1).min(axis=1)
    return {"p50_ms": float(p50), "p99_ms": float(p99)}
