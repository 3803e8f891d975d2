"""YOURS: what the sample's free texts are about, and how that goes with the label."""

from __future__ import annotations

import numpy as np
import pandas as pd

Array = np.ndarray
PHRASES = {  # topic -> what is said about it
    "little": (
        "I am only looking", "it has to be cheap", "money is short this month", "just one small thing",
        "we have enough for now", "maybe next month", "do you have anything on sale",
    ),
    "usual": (
        "the same as last week please", "our usual order", "nothing special this time", "as always",
        "we are happy with it", "just the weekly things",
    ),
    "much": (
        "it is for the whole family", "we are planning a big party", "the best quality please", "we need a large order",
        "we are moving house", "please send the complete set", "price is no matter",
    ),
}  # fmt: skip
SHARPNESS = 3.0  # how strongly the amount decides on the topic


def likely_topics(labels: Array) -> Array:
    """The chance of each topic, by the label, shape (n, topics); without a label as of one in the middle.

    Args:
        labels: as `data.outcome` gives them, or missing, shape (n,).
    """
    rank = pd.Series(labels).rank(pct=True).fillna(0.5).to_numpy()
    typical = np.linspace(0, 1, len(PHRASES))  # the rank that each topic is told at most
    likely = np.exp(-SHARPNESS * np.abs(rank[:, None] - typical))
    return likely / likely.sum(axis=1, keepdims=True)
