"""The values of a series up to a moment, as tables hold them: a text of JSON such as [12, null, 7.5], the latest last.

Needs numpy alone: `export` puts this file beside a model that reads one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

Array = np.ndarray
LENGTH = 64  # values, where the column of a history says nothing of its length


def history_values(text: str | None, length: int | None) -> Array:
    """The latest values of a history, float32, shape (length,): NaN where one is missing, on the left where it is
    shorter.

    Args:
        text: as tables hold it; empty for none.
        length: None: as many as there are.

    Raises:
        ValueError: when it is no list of numbers.
    """
    values = np.array(json.loads(text) if text else [], np.float64).astype(np.float32)
    if values.ndim != 1:
        raise ValueError("not a list of numbers")
    if length is None:
        return values
    row = np.full(length, np.nan, np.float32)
    if taken := min(length, len(values)):
        row[-taken:] = values[-taken:]
    return row


def stacked(texts: Sequence[str | None], length: int, pad: int = 0) -> Array:
    """Histories, float32, shape (n + pad, length), the last one repeated; the rows of one path share theirs."""
    read = {text: history_values(text, length) for text in set(texts)}
    rows = np.stack([read[text] for text in texts])
    return np.concatenate([rows, np.repeat(rows[-1:], pad, axis=0)]) if pad else rows
