"""What the model costs a month, from its own speed, the rows of a day and the prices in the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from .. import paths
from ..settings import Settings, read_json

DAYS_A_MONTH = 365.25 / 12
TRAININGS_A_MONTH = {
    "daily": DAYS_A_MONTH,
    "weekly": DAYS_A_MONTH / 7,
    "monthly": 1.0,
    "drift": 1.0,
}


class Cost(TypedDict):
    """A month, in the currency of the prices: of answering, of training, of storage, and all three."""

    answering: float
    training: float
    storage: float
    month: float
    build: float  # paid once


def monthly_cost(settings: Settings, root: Path, row_seconds: float) -> Cost | None:
    """What a month costs; None while `governance.prices.rows_per_day` is not set.

    Args:
        row_seconds: of a core for one row through the model, as `latency` measures it.
    """
    prices = settings.governance.prices
    if prices.rows_per_day is None:
        return None
    hours = prices.rows_per_day * DAYS_A_MONTH * row_seconds / 3600
    schedule = settings.monitoring.retraining.every if settings.monitoring else "monthly"
    fits = (row.get("fit_seconds") or 0.0 for row in read_json(root / paths.CANDIDATES)["rows"])
    training = sum(fits) / 3600 * TRAININGS_A_MONTH[schedule] * prices.core_hour
    files = [root / paths.MODEL, *(root / part for part in paths.SPLITS.values())]
    storage = sum(file.stat().st_size for file in files) / 1e9 * prices.gigabyte_month
    answering = hours * prices.core_hour
    return Cost(
        answering=answering,
        training=training,
        storage=storage,
        month=answering + training + storage,
        build=prices.build,
    )
