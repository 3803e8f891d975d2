"""YOURS: how a row is shaken to see whether the answer holds; a column of your own goes in here too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def shaken(rows: pd.DataFrame, names: Sequence[str], share: float, seed: int) -> pd.DataFrame:
    """Rows whose numbers got noise of `share` of each column's spread; `names`: of these columns."""
    rng, noisy = np.random.default_rng(seed), rows.copy()
    for name in names:
        noise = share * rows[name].std() * rng.standard_normal(len(rows))
        noisy[name] = (rows[name] + noise).astype(np.float32)
    return noisy
