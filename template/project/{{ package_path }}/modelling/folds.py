"""Rows apart from each other as the split demands: what a model is judged by is never what it learnt from.

For a split by time neighbours in time stay together, by group whole groups do; at random, each part
gets the same mix of labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .. import problem

Array = np.ndarray
Fold = tuple[Array, Array]  # positions of the rows to fit on, and of those held out
STRATA = 10  # of a number, each a tenth of the rows


@dataclass(frozen=True)
class RowKeys:
    """What keeps rows together or apart, for n rows.

    Args:
        by: as `data.split.by`.
        label: shape (n,): numbers, or codes of classes; two distinct values count as classes.
        time: seconds, -inf where missing, shape (n,); needed for a split by time.
        group: shape (n,), rows of one value stay together; None for none.
        unit: shape (n,), rows of one value are one case, such as a list; None: each row is one.
        weight: how much each row counts in a fit, shape (n,); None: all alike.
    """

    by: Literal["time", "group", "random"]
    label: Array
    time: Array | None = None
    group: Array | None = None
    unit: Array | None = None
    weight: Array | None = None

    def take(self, rows: Array) -> RowKeys:
        """The keys of some of the rows."""
        keys = (self.time, self.group, self.unit, self.weight)
        time, group, unit, weight = (None if key is None else key[rows] for key in keys)
        return RowKeys(self.by, self.label[rows], time, group, unit, weight)

    def joined(self, behind: RowKeys) -> RowKeys:
        """The keys of these rows, and behind them of others that have as much."""
        names = ("time", "group", "unit", "weight")
        pairs = [(getattr(self, name), getattr(behind, name)) for name in names]
        joined = (None if pair[0] is None else np.concatenate(pair) for pair in pairs)
        return RowKeys(self.by, np.concatenate([self.label, behind.label]), *joined)

    def followed_by(self, behind: RowKeys) -> RowKeys:
        """The keys of these rows, each counting as before, and behind them of rows for training alone.

        Args:
            behind: with weights; a row without a unit is a case of its own.
        """
        n, units = len(self.label), np.arange(len(behind.label))
        unit = np.arange(n) if self.unit is None else self.unit
        weight = np.ones(n) if self.weight is None else self.weight
        cases = (units if behind.unit is None else behind.unit) + 1 + unit.max(initial=-1)
        return replace(self, unit=unit, weight=weight).joined(replace(behind, unit=cases))

    def folds(self, count: int, seed: int, repeat: int = 0) -> list[Fold]:
        """Cut all rows into folds, each held out once.

        Args:
            count: of the folds; fewer where there are fewer groups.
            repeat: another number cuts otherwise: a shuffle, or for time other borders.

        Returns:
            as many folds as there are different parts, at least two.
        """
        part = self._parts(count, seed + 1000 * repeat, repeat)
        cut = [(np.flatnonzero(part != i), np.flatnonzero(part == i)) for i in np.unique(part)]
        classes = len(np.unique(self.label))
        has_classes = problem.CLASSES or classes == 2
        lacking = (len(np.unique(self.label[fit])) < classes for fit, _ in cut)
        if has_classes and self.by != "random" and any(lacking):
            # A class that stands in one stretch of time or one group: nothing learns from the rest
            return RowKeys("random", self.label, unit=self.unit).folds(count, seed, repeat)
        return cut

    def held_out(self, share: float, seed: int) -> Fold:
        """Hold out about a share of the rows: the latest, whole groups, or a stratified draw.

        Returns:
            the positions of the rows to fit on, and of those held out.
        """
        if self.unit is not None:
            by_unit, codes = self._units()
            fit, held = by_unit.held_out(share, seed)
            return np.flatnonzero(np.isin(codes, fit)), np.flatnonzero(np.isin(codes, held))
        if self.by == "time" and self.time is not None:
            order = np.argsort(self.time, kind="stable")
            cut = len(order) - max(1, round(share * len(order)))
            return np.sort(order[:cut]), np.sort(order[cut:])
        return self.folds(max(2, round(1 / share)), seed)[0]

    def _units(self) -> tuple[RowKeys, Array]:
        """The keys of the units, each by its first row, and the number of each row's unit, shape (n,)."""
        unit = np.asarray(self.unit)
        _, first, codes = np.unique(unit, return_index=True, return_inverse=True)
        return replace(self.take(first), unit=None), codes

    def _parts(self, count: int, seed: int, repeat: int) -> Array:
        """The number of its fold for each row, shape (n,)."""
        if self.unit is not None:
            by_unit, codes = self._units()
            return by_unit._parts(count, seed, repeat)[codes]
        rng = np.random.default_rng(seed)
        n = len(self.label)
        if self.by == "time" and self.time is not None:
            rank = np.empty(n, dtype=np.int64)
            rank[np.argsort(self.time, kind="stable")] = np.arange(n)
            # Each repeat moves the borders by a part of a fold; the row at the end joins the start
            return (rank + repeat * n // (3 * count)) % n * count // n
        if self.group is not None:
            names, codes = np.unique(self.group.astype(str), return_inverse=True)
            rank = rng.permutation(len(names))
            return rank[codes] % min(count, max(2, len(names)))
        shuffled = rng.permutation(n)
        return self._strata()[shuffled].argsort(kind="stable").argsort()[shuffled.argsort()] % count

    def _strata(self) -> Array:
        """The class of each row, or the tenth of the labels that it stands in."""
        names, codes = np.unique(self.label, return_inverse=True)
        if len(names) > 2 and not problem.CLASSES:
            codes = self.label.argsort(kind="stable").argsort() * STRATA // len(self.label)
        return codes
