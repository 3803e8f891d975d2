"""The free text of the sample: what the customer wrote, in phrases that go with the label.

The texts behave like real ones where it hurts: most hold phrases that say nothing, many are about
another topic, some words are misspelt, a few texts are empty or very long.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..problem.texts import PHRASES, likely_topics

Array = np.ndarray
COLUMN = "context_message"
MISSING, EMPTY = 0.05, 0.02  # shares of the rows
LONG, LONG_PHRASES = 0.003, 250  # share of the rows, and phrases: more than a model reads
STOP = 0.35  # the chance that a text ends after any phrase
MISSPELT = 0.03  # share of the phrases with two letters swapped
ON_TOPIC = 0.45  # share of the phrases that are about the text's topic
SMALL_TALK = (
    "hello", "hi there", "good morning", "dear team", "thanks", "thank you in advance", "best regards",
    "please answer soon", "I am writing from my phone", "I have been a customer for a while", "as I said last week",
    "I look forward to your answer", "sorry for the long text", "that is all for today", "have a nice day",
)  # fmt: skip


def add(events: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Put the column `context_message` beside the other columns of the sample.

    Args:
        events: n rows as `sample.make` gives them; a row that was sent twice has the same text twice.
        seed: same seed, same texts.

    Returns:
        the events with their texts, None where there is none; 100,000 rows in about a second.
    """
    rng = np.random.default_rng([seed, 1])  # the other columns stay as they are without texts
    first = ~events["event_id"].str.removesuffix("r").duplicated()
    texts = _texts(likely_topics(events.loc[first, "label"].to_numpy()), rng)
    position = pd.factorize(events["event_id"].str.removesuffix("r"))[0]
    return events.assign(**{COLUMN: texts[position]})


def _texts(chances: Array, rng: np.random.Generator) -> Array:
    """A text for each row of `chances`, the chance of each topic, shape (n, topics); shape (n,)."""
    n = len(chances)
    topic = (chances.cumsum(axis=1) < rng.random(n)[:, None]).sum(axis=1)
    topic = np.minimum(topic, chances.shape[1] - 1)  # where a sum stays below 1 by rounding
    sizes = np.where(rng.random(n) < LONG, LONG_PHRASES, rng.geometric(STOP, n))
    row = np.repeat(np.arange(n), sizes)
    groups = [SMALL_TALK, *PHRASES.values()]
    counts = np.array([len(group) for group in groups])
    group = np.where(rng.random(len(row)) < ON_TOPIC, 1 + topic[row], 0)
    phrases = np.array([phrase for phrases in groups for phrase in phrases], dtype=object)
    starts = np.cumsum(counts) - counts
    drawn = phrases[starts[group] + (rng.random(len(row)) * counts[group]).astype(int)]
    for index in np.flatnonzero(rng.random(len(row)) < MISSPELT):
        drawn[index] = _misspelt(drawn[index], rng)
    ends = np.cumsum(sizes)
    joined = [". ".join(drawn[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
    texts = np.array([text[0].upper() + text[1:] for text in joined], dtype=object)
    chance = rng.random(n)
    texts[chance < MISSING + EMPTY] = ""
    texts[chance < MISSING] = None
    return texts


def _misspelt(phrase: str, rng: np.random.Generator) -> str:
    """The phrase with two neighbouring characters swapped."""
    left = int(rng.integers(len(phrase) - 1))
    return phrase[:left] + phrase[left + 1] + phrase[left] + phrase[left + 2 :]
