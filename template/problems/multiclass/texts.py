"""YOURS: what the sample's free texts are about, and how that goes with the label."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .data import SAMPLE

Array = np.ndarray
PHRASES = {  # topic, by the team that answers -> what is said about it
    "account": (
        "I cannot log in", "my password does not work", "please change my mail address", "how do I close my account",
        "the code never came", "my name is spelt wrong",
    ),
    "billing": (
        "I was charged twice", "the invoice is wrong", "my card was declined", "when do I get the refund",
        "the amount does not match", "I need a receipt for the tax office",
    ),
    "delivery": (
        "where is my parcel", "it has not arrived yet", "the box came damaged", "the courier left it in the rain",
        "the tracking shows nothing", "please send it to another address",
    ),
    "sales": (
        "do you have it in blue", "is there a discount for ten", "I would like to upgrade", "can I order two more",
        "what does the larger plan cost", "please send me an offer",
    ),
    "technical": (
        "the app crashes at the start", "the screen stays black", "it does not connect", "I get an error message",
        "the update broke it", "the button does nothing",
    ),
}  # fmt: skip
ELSEWHERE = 0.35  # share of the texts whose topic says nothing of the label


def likely_topics(labels: Array) -> Array:
    """The chance of each topic, by the label, shape (n, topics); without a label all are as likely.

    Args:
        labels: as `data.outcome` gives them, or missing, shape (n,).
    """
    classes = pd.Categorical(labels, categories=SAMPLE).codes
    chances = np.full((len(labels), len(SAMPLE)), 1 / len(SAMPLE))
    labelled = classes >= 0
    chances[labelled] = (
        ELSEWHERE / len(SAMPLE) + (1 - ELSEWHERE) * np.eye(len(SAMPLE))[classes[labelled]]
    )
    return chances
