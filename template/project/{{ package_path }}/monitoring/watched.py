"""Free texts and images as two numbers each that can be watched.

Of a text the length and the share of words that training did not have, of an image brightness and contrast.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pandas as pd

from ..features.catalogue import as_numbers, light
from ..model import normalized

UNKNOWN_WORDS, CONTRAST = "unknown words", "contrast"
SECOND = {"text": UNKNOWN_WORDS, "image": CONTRAST}  # the kind of its second column
SECONDARY = frozenset(SECOND.values())
MAX_VOCABULARY = 2_000
MIN_TEXTS = 5  # that a word of the vocabulary stands in; a rarer one may be a person's name
# Of a text, which are looked at: a share needs no more, and a window has many thousands of texts
MAX_CHARACTERS = 1_000
# Where no blanks part the words, each character counts as one; a run of letters without end is cut
TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]{1,40}")


def watched_kinds(columns: Mapping[str, str]) -> dict[str, str]:
    """The columns that are watched, by kind: the model's inputs, and the second one of each text and image."""
    second = {name: SECOND[kind] for name, kind in columns.items() if kind in SECOND}
    return {**columns, **{f"{name} ({kind})": kind for name, kind in second.items()}}


def source_of(column: str, kind: str) -> str:
    """The raw column that a column of `watched_kinds` comes from."""
    return column.removesuffix(f" ({kind})") if kind in SECONDARY else column


def watched_values(
    parts: Mapping[str, pd.DataFrame], columns: Mapping[str, str]
) -> tuple[dict[str, pd.DataFrame], dict[str, list[str]]]:
    """The inputs of each part of the split with the columns of `watched_kinds`.

    Returns:
        the parts, and of each column of unknown words the vocabulary: the commonest words of part "train".
    """
    watched, vocabularies = dict(parts), {}
    for column, kind in watched_kinds(columns).items():
        source = source_of(column, kind)
        if kind == CONTRAST:
            for part, rows in parts.items():
                contrasts = np.array([light(image)[1] for image in rows[source]])
                watched[part] = watched[part].assign(**{column: contrasts})
        if kind != UNKNOWN_WORDS:
            continue
        vocabulary, elsewhere = _vocabularies(parts["train"][source])
        vocabularies[column] = sorted(vocabulary)
        for part, rows in parts.items():
            # A training text holds words of which it is itself a source: with those it would look
            # better known than any later one does. It is measured by the words that are as common
            # without it (leave-one-out), so that all parts are as likely to have unknown ones
            words_of_part = elsewhere if part == "train" else vocabulary
            shares = [unknown_share(words_of_part, text) for text in rows[source]]
            watched[part] = watched[part].assign(**{column: np.array(shares, np.float64)})
    return {part: as_numbers(rows, columns) for part, rows in watched.items()}, vocabularies


def unknown_share(vocabulary: Collection[str], text: str) -> float:
    """The share of a text's words, from 0 to 1, that a vocabulary does not have; NaN without a word."""
    tokens = TOKEN.findall(normalized(text[:MAX_CHARACTERS]))
    hits = sum(map(vocabulary.__contains__, tokens))
    return (len(tokens) - hits) / len(tokens) if tokens else np.nan


def _vocabularies(texts: Iterable[str]) -> tuple[set[str], set[str]]:
    """The commonest words of texts, and those that are as common in the others of each of these texts."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update({*TOKEN.findall(normalized(text[:MAX_CHARACTERS]))})
    ranked = sorted(counts.values(), reverse=True)
    # Words as common as the first that has no place have none either: no order among them is better
    least = max(MIN_TEXTS, ranked[MAX_VOCABULARY] + 1 if len(ranked) > MAX_VOCABULARY else 0)
    vocabulary = {token for token, count in counts.items() if count >= least}
    return vocabulary, {token for token in vocabulary if counts[token] > least}
