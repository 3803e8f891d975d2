"""Free texts, images and histories as numbers that can be watched.

Of a text the length and the share of words that training did not have, of an image brightness, contrast and the pixels of
its original. Of both also what they say or show: where they lie along the two directions in which training's differ most,
and the residual that all directions leave (principal components, Hotelling, 1933; residuals as a control, Jackson and
Mudholkar, 1979). Of a history what its latest values are to all of them, its shares of zeros and gaps, and how much it
changes from step to step: a series that grows is no drift.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..features.catalogue import as_numbers, light, small_pixels
from ..histories import history_values
from ..images import original_pixels
from ..model import normalized

Array = np.ndarray
Measure = Callable[[str | None], float]

UNKNOWN_WORDS, CONTRAST, PIXELS = "unknown words", "contrast", "pixels"
ZEROS, GAPS, UNREST = "zeros", "gaps", "change by step"
SHARES = frozenset({UNKNOWN_WORDS, CONTRAST, ZEROS, GAPS})  # kinds whose values lie between 0 and 1
TOPICS = ("first topic", "second topic", "residual of topics")
COMPONENTS = ("first component", "second component", "residual of components")
# The kinds of the further columns of each type, as they stand in brackets behind its name
DERIVED = {
    "text": (UNKNOWN_WORDS, *TOPICS),
    "image": (CONTRAST, PIXELS, *COMPONENTS),
    "history": (ZEROS, GAPS, UNREST),
}
SECONDARY = frozenset(kind for kinds in DERIVED.values() for kind in kinds)
MAX_VOCABULARY = 2_000
MIN_TEXTS = 5  # that a word of the vocabulary stands in; a rarer one may be a person's name
# Of a text, which are looked at: a share needs no more, and a window has many thousands of texts
MAX_CHARACTERS = 1_000
# Where no blanks part the words, each character counts as one; a run of letters without end is cut
TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]{1,40}")
WIDTH = 1024  # numbers that describe a text or an image: hashed words, 32 by 32 pixels
MAX_DIRECTIONS = 16  # that are kept, at most one for each `ROWS_PER_DIRECTION` training rows
ROWS_PER_DIRECTION = 20
MAX_FITTED = 5_000  # training rows that they are taken of
FOLDS = 5  # by which training's own residuals are taken beside directions that had no part in them
FLAT = 0.02  # contrast that is added to an image's own: a plain one has none to divide by


class Basis(NamedTuple):
    """The directions in which training's texts or images differ most.

    `mean`: of their descriptors, shape (1024,). `directions`: orthonormal, shape (k, 1024), k at least 2.
    """

    mean: Array
    directions: Array

    @classmethod
    def fit(cls, descriptors: Array, count: int) -> Basis:
        """The basis of n descriptors, shape (n, 1024), with a count of directions; of fewer, the others are nil."""
        from sklearn.utils.extmath import randomized_svd

        mean = descriptors.mean(axis=0) if len(descriptors) else np.zeros(WIDTH)
        directions = np.zeros((count, WIDTH))
        if len(descriptors) > count:
            directions = randomized_svd(descriptors - mean, count, random_state=0)[2]
        return cls(mean, directions)

    def along(self, index: int | None, descriptor: Array) -> float:
        """Where a descriptor lies along a direction; None: how far beside all of them, as a Euclidean norm."""
        centred = descriptor - self.mean
        if index is not None:
            return float(self.directions[index] @ centred)
        return float(np.linalg.norm(centred - (self.directions @ centred) @ self.directions))

    def packed(self) -> str:
        """The basis as text: 32-bit numbers in base64, the mean first."""
        return base64.b64encode(np.vstack(self).astype("<f4").tobytes()).decode()

    @classmethod
    def unpacked(cls, packed: str) -> Basis:
        """The reverse of `packed`."""
        mean, *directions = np.frombuffer(base64.b64decode(packed), "<f4").reshape(-1, WIDTH)
        return cls(mean.astype(np.float64), np.array(directions, np.float64))


class Learnt(NamedTuple):
    """What training says of a derived column: the `vocabulary` of unknown words, the packed `basis` of the others."""

    vocabulary: list[str]
    basis: str


def watched_kinds(columns: Mapping[str, str]) -> dict[str, str]:
    """The columns that are watched, by kind: the model's inputs, and the further ones of each text, image and history."""
    derived = {f"{n} ({kind})": kind for n, type_ in columns.items() for kind in DERIVED.get(type_, ())}  # fmt: skip
    return {**columns, **derived}


def source_of(column: str, kind: str) -> str:
    """The raw column that a column of `watched_kinds` comes from."""
    return column.removesuffix(f" ({kind})") if kind in SECONDARY else column


def watched_values(
    parts: Mapping[str, pd.DataFrame], columns: Mapping[str, str]
) -> tuple[dict[str, pd.DataFrame], dict[str, Learnt]]:
    """The inputs of each part of the split with the columns of `watched_kinds`.

    Returns:
        the parts, and what part "train" says of each derived column.
    """
    watched, learnt = dict(parts), dict[str, Learnt]()
    for source, type_ in columns.items():
        if type_ not in DERIVED:
            continue
        of_kinds, of_folds = _learn(type_, parts["train"][source])
        measures = {kind: measure_of(kind, of_kind) for kind, of_kind in of_kinds.items()}
        learnt |= {f"{source} ({kind})": of_kind for kind, of_kind in of_kinds.items()}
        of_training = [measures | of_fold for of_fold in of_folds]
        for part, rows in parts.items():
            of_rows = of_training if part == "train" else [measures]
            numbers = {kind: np.empty(len(rows)) for kind in measures}
            # Row by row: what describes a text or an image is made once for all kinds
            for i, value in enumerate(rows[source]):
                for kind, function in of_rows[i % len(of_rows)].items():
                    numbers[kind][i] = function(value)
            derived = {f"{source} ({kind})": values for kind, values in numbers.items()}
            watched[part] = watched[part].assign(**derived)
    return {part: as_numbers(rows, columns) for part, rows in watched.items()}, learnt


def measure_of(kind: str, learnt: Learnt) -> Measure:
    """A function from a text, a stored image or a history to its number of a kind; NaN where it has none."""
    if kind in DERIVED["history"]:
        return partial(course_number, kind)
    if kind == UNKNOWN_WORDS:
        return partial(unknown_share, frozenset(learnt.vocabulary))
    if kind == CONTRAST:
        return lambda image: light(image)[1]
    if kind == PIXELS:
        return lambda image: float(original_pixels(image)) if image else np.nan
    return partial(_along, kind, Basis.unpacked(learnt.basis))


def _learn(type_: str, values: pd.Series) -> tuple[dict[str, Learnt], list[dict[str, Measure]]]:
    """What training's n texts or images say of each kind, and how those of each fold are measured otherwise themselves.

    What they are a source of would make them look more usual than any later one is: their words are looked for among those
    that are as common without them (leave-one-out), and residuals are those beside the directions of the other folds
    (cross-fitting). So all parts are alike where nothing moved. Row i is in fold i modulo `FOLDS`.
    """
    if type_ == "history":  # of which nothing has to be learnt
        return {kind: Learnt([], "") for kind in DERIVED[type_]}, [{}]
    describe, kinds = DESCRIPTORS[type_]
    vocabulary, elsewhere = _vocabularies(values) if type_ == "text" else (set(), set())
    rows = np.array([i for i, value in enumerate(values) if value], np.int64)
    rows = rows[:: 1 + len(rows) // MAX_FITTED]
    descriptors = np.array([*map(describe, values.iloc[rows])], np.float64).reshape(-1, WIDTH)
    count = min(max(2, len(rows) // ROWS_PER_DIRECTION), MAX_DIRECTIONS)
    basis = Basis.fit(descriptors, count).packed()
    learnt = {kind: Learnt([], basis if kind in kinds else "") for kind in DERIVED[type_]}
    if type_ == "text":
        learnt[UNKNOWN_WORDS] = Learnt(sorted(vocabulary), "")
    of_folds: list[dict[str, Measure]] = []
    for fold in range(FOLDS):
        without_fold = Basis.fit(descriptors[rows % FOLDS != fold], count)
        of_folds.append({kinds[-1]: partial(_along, kinds[-1], without_fold)})
        if type_ == "text":
            of_folds[-1][UNKNOWN_WORDS] = partial(unknown_share, elsewhere)
    return learnt, of_folds


@lru_cache(maxsize=100_000)  # the rows of one path share theirs
def course_number(kind: str, history: str | None) -> float:
    """What a stored history has of a kind of `DERIVED`, whatever its level is; NaN for none."""
    values = history_values(history, None).astype(np.float64)
    is_present = np.isfinite(values)
    if not is_present.any():
        return np.nan
    if kind == GAPS:
        return float(1 - is_present.mean())
    present = values[is_present]
    if kind == ZEROS:
        return float((present == 0).mean())
    mean = np.abs(present).mean()
    return float(np.abs(np.diff(present)).mean() / mean) if mean and len(present) > 1 else np.nan


def _along(kind: str, basis: Basis, value: str | None) -> float:
    """Where a text or an image lies along the direction of a kind, or its residual; NaN for none."""
    if not value:
        return np.nan
    describe, kinds = DESCRIPTORS["text" if kind in TOPICS else "image"]
    index = kinds.index(kind)
    return basis.along(index if index < len(kinds) - 1 else None, describe(value))


@lru_cache(maxsize=2048)  # as many rows as the database asks for column after column
def hashed_words(text: str) -> Array:
    """The words of a text as 1,024 numbers of Euclidean norm 1: roots of how often those of a hash occur."""
    codes = [zlib.crc32(token.encode()) % WIDTH for token in _tokens(text)]
    counts = np.sqrt(np.bincount(codes, minlength=WIDTH)) if codes else np.zeros(WIDTH)
    return counts / max(1.0, float(np.linalg.norm(counts)))


def appearance(image: str) -> Array:
    """A stored image as 1,024 numbers: its grey pixels once it is 32 by 32, without its brightness and contrast."""
    values = small_pixels(image)
    return np.asarray((values - values.mean()) / (values.std() + FLAT))


# What describes a text or an image, and the kinds that are made of it
DESCRIPTORS: dict[str, tuple[Callable[[str], Array], tuple[str, ...]]] = {
    "text": (hashed_words, TOPICS),
    "image": (appearance, COMPONENTS),
}


@lru_cache(maxsize=2048)  # as above
def _tokens(text: str) -> list[str]:
    return TOKEN.findall(normalized(text[:MAX_CHARACTERS]))


def unknown_share(vocabulary: Collection[str], text: str | None) -> float:
    """The share of a text's words, from 0 to 1, that a vocabulary does not have; NaN without a word."""
    tokens = _tokens(text or "")
    hits = sum(map(vocabulary.__contains__, tokens))
    return (len(tokens) - hits) / len(tokens) if tokens else np.nan


def _vocabularies(texts: Iterable[str]) -> tuple[set[str], set[str]]:
    """The commonest words of texts, and those that are as common in the others of each of these texts."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update({*_tokens(text)})
    ranked = sorted(counts.values(), reverse=True)
    # Words as common as the first that has no place have none either: no order among them is better
    least = max(MIN_TEXTS, ranked[MAX_VOCABULARY] + 1 if len(ranked) > MAX_VOCABULARY else 0)
    vocabulary = {token for token, count in counts.items() if count >= least}
    return vocabulary, {token for token in vocabulary if counts[token] > least}
