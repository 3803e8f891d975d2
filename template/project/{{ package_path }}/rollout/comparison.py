"""Estimates of an experiment: by unit, with intervals, and what they need before the start.

Everything here takes numpy arrays and knows nothing of the log.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln
from scipy.stats import norm

TUNED_FOR = 2_000  # units at which the always-valid interval is narrowest; it holds at any number
Array = np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A figure with its standard error, which comes from so many independent units."""

    value: float
    error: float
    units: int

    def interval(self, level: float) -> tuple[float, float]:
        """For one look, at an end that was set before the start."""
        reach = float(norm.ppf((1 + level) / 2)) * self.error
        return self.value - reach, self.value + reach

    def always(self, level: float) -> tuple[float, float]:
        """For any number of looks: the asymptotic confidence sequence of Waudby-Smith et al.
        (2024), the interval of the mixture test of Johari et al. (2017)."""
        reach = _stretch(self.units, level) * self.error
        return self.value - reach, self.value + reach


def _stretch(units: float, level: float) -> float:
    """How many standard errors the always-valid interval reaches to either side."""
    alpha = 1 - level
    rho = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / TUNED_FOR
    grown = units * rho + 1
    return math.sqrt(2 * grown / (units * rho) * math.log(math.sqrt(grown) / alpha))


def linear(total: Array, count: Array) -> Array:
    """A value by unit whose mean is sum(total) / sum(count), and whose spread is that ratio's.

    So what is assigned by unit and measured by row keeps its honest error: the delta method
    (Deng, Knoblich and Lu, 2018). Shape (units,).
    """
    ratio = total.sum() / count.sum()
    return ratio + (total - ratio * count) / count.mean()


def mean(values: Array) -> Estimate:
    """Of one value by unit."""
    return Estimate(
        float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), len(values)
    )


def difference(values: Array, second: Array, before: Array | None = None) -> tuple[Estimate, float]:
    """The second arm's mean less the first's, and which share of its variance `before` took away.

    Args:
        values: one for each unit, shape (units,); second: whether it is in the second arm.
        before: of the same units before the start, 0 where there is nothing: what it explains is
            taken out first (CUPED; Deng et al., 2013).
    """
    plain = _difference(values, second)
    if before is None or np.ptp(before) == 0:
        return plain, 0.0
    centred = [
        np.where(second, one - one[second].mean(), one - one[~second].mean())
        for one in (values, before)
    ]
    slope = (centred[0] @ centred[1]) / (centred[1] @ centred[1])
    adjusted = _difference(values - slope * before, second)
    return adjusted, 1 - (adjusted.error / plain.error) ** 2 if plain.error else 0.0


def _difference(values: Array, second: Array) -> Estimate:
    one, two = mean(values[~second]), mean(values[second])
    return Estimate(two.value - one.value, math.hypot(one.error, two.error), len(values))


def wins(count: int, of: int, level: float) -> tuple[float, float]:
    """The share behind `count` of `of`, always valid: all p that a uniform mixture does not refute.

    Its likelihood ratio is a martingale under p, and so passes 1 / alpha with a chance of at most
    alpha however often one looks (Ville, 1939; Robbins, 1970).
    """
    if not of:
        return 0.0, 1.0

    def against(p: float) -> float:
        grown = float(betaln(count + 1, of - count + 1))
        return grown - count * math.log(p) - (of - count) * math.log1p(-p) + math.log(1 - level)

    tiny, best = 1e-12, min(max(count / of, 1e-9), 1 - 1e-9)
    low = brentq(against, tiny, best) if against(tiny) > 0 > against(best) else 0.0
    high = brentq(against, best, 1 - tiny) if against(1 - tiny) > 0 > against(best) else 1.0
    return float(low), float(high)


def sample_size(
    spread: float, effect: float, share: float, level: float, power: float
) -> dict[str, int]:
    """How many units find an effect with this power: at one look, and looking whenever one likes.

    Args:
        spread: standard deviation by unit; effect: least difference worth finding, same unit.
        share: of the units that the second arm gets.
    """
    scale, found = spread * math.sqrt(1 / share + 1 / (1 - share)), float(norm.ppf(power))
    once = (float(norm.ppf((1 + level) / 2)) + found) ** 2 * (scale / effect) ** 2

    def spare(log_units: float) -> float:
        units = math.exp(log_units)
        return (_stretch(units, level) + found) * scale / math.sqrt(units) - effect

    low, high = math.log(2), math.log(max(once, 2) * 1e6)
    always = math.exp(brentq(spare, low, high)) if spare(low) > 0 else 2.0
    return {"one_look": max(2, math.ceil(once)), "any_look": max(2, math.ceil(always))}


@dataclass(frozen=True)
class OffPolicy:
    """What a policy would earn for each row, told from rows that another policy chose.

    Args:
        reward: of each row; chance: with which what was done was done; same: whether the policy
            would have done it; each of shape (rows,).
        done, would: the reward that a model expects of what was done and of what the policy would.
        unit: an integer for each row; rows of one unit may depend on one another.
    """

    reward: Array
    chance: Array
    same: Array
    done: Array
    would: Array
    unit: Array

    @property
    def weight(self) -> Array:
        return self.same / self.chance

    def ips(self) -> Array:
        """Inverse propensity scores (Horvitz and Thompson, 1952): no bias, and much noise."""
        return self.by_unit(self.weight * self.reward, np.ones(len(self.reward)))

    def snips(self) -> Array:
        """The same over the sum of the weights (Swaminathan and Joachims, 2015)."""
        return self.by_unit(self.weight * self.reward, self.weight)

    def dr(self) -> Array:
        """Doubly robust (Dudík, Langford and Li, 2011): right when either the chances or the
        expected rewards are, and the least noisy when both are."""
        gained = self.would + self.weight * (self.reward - self.done)
        return self.by_unit(gained, np.ones(len(self.reward)))

    def by_unit(self, total: Array, count: Array) -> Array:
        return linear(*(np.bincount(self.unit, one) for one in (total, count)))

    def effective_rows(self) -> float:
        """How many rows the weights leave: (sum w)² / sum w²."""
        return float(self.weight.sum() ** 2 / (self.weight**2).sum()) if self.same.any() else 0.0


def expected(
    features: Array, done: Array, reward: Array, unit: Array, seed: int
) -> dict[Any, Array]:
    """The reward that a model expects of each thing that can be done, for each row: action -> (rows,).

    Fitted on the other half of the units, so that no row is told by itself (Chernozhukov et al.,
    2018); of an action with few rows, their mean.
    """
    from lightgbm import LGBMRegressor

    half = np.random.default_rng(seed).integers(0, 2, unit.max() + 1)[unit]
    found = {action: np.empty(len(reward)) for action in np.unique(done)}
    for side in (0, 1):
        for action, told in found.items():
            rows = (half != side) & (done == action)
            if rows.sum() < 200:
                told[half == side] = reward[rows].mean() if rows.any() else reward.mean()
                continue
            model = LGBMRegressor(
                n_estimators=60, num_leaves=15, learning_rate=0.1, min_child_samples=40,
                random_state=seed, n_jobs=1, deterministic=True, force_row_wise=True, verbose=-1,
            )  # fmt: skip
            model.fit(features[rows], reward[rows])
            told[half == side] = np.asarray(model.predict(features[half == side]))
    return found
