"""YOURS: what the sample's free texts are about, and how that goes with the label."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
PHRASES = {  # topic -> what is said about it
    "interest": (
        "is the offer still open", "that sounds good", "I would like to order", "we have been looking for this",
        "can I have it before the weekend", "my friends recommended it", "it is a birthday present",
        "which sizes are there", "please reserve it for me",
    ),
    "question": (
        "how do I change my address", "what are your opening hours", "I need a copy of the invoice",
        "which countries do you ship to", "where do I find my contract", "is there a phone number",
    ),
    "complaint": (
        "please stop sending me offers", "I am disappointed", "the last parcel came damaged", "I want my money back",
        "nobody answers my mails", "it is far too expensive", "I am thinking of leaving", "this is the third mistake",
        "that was a waste of time",
    ),
}  # fmt: skip
CHANCES = {0.0: (0.22, 0.36, 0.42), 1.0: (0.6, 0.26, 0.14)}  # label -> of each topic


def likely_topics(labels: Array) -> Array:
    """The chance of each topic, by the label, shape (n, topics); without a label all are as likely.

    Args:
        labels: as `data.outcome` gives them, or missing, shape (n,).
    """
    chances = np.full((len(labels), len(PHRASES)), 1 / len(PHRASES))
    for label, likely in CHANCES.items():
        chances[labels == label] = likely
    return chances
