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

TUNED_FOR_UNITS = 2_000  # at which the always-valid interval is narrowest; it holds at any number
Array = np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A figure with its standard error, and the number of independent units behind both."""

    value: float
    error: float
    units: int

    def interval(self, level: float) -> tuple[float, float]:
        """The normal interval (low, high), for one look, at an end set before the start."""
        half_width = float(norm.ppf((1 + level) / 2)) * self.error
        return self.value - half_width, self.value + half_width

    def anytime_interval(self, level: float) -> tuple[float, float]:
        """The interval (low, high) for any number of looks: the asymptotic confidence sequence of
        Waudby-Smith et al. (2024), by the mixture test of Johari et al. (2017)."""
        half_width = _anytime_quantile(self.units, level) * self.error
        return self.value - half_width, self.value + half_width


def _anytime_quantile(units: float, level: float) -> float:
    """How many standard errors the always-valid interval reaches to either side."""
    alpha = 1 - level
    rho = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / TUNED_FOR_UNITS
    growth = units * rho + 1
    return math.sqrt(2 * growth / (units * rho) * math.log(math.sqrt(growth) / alpha))


def linearize(total: Array, count: Array) -> Array:
    """A value by unit whose mean is sum(total) / sum(count), and whose spread is that ratio's.

    So what is assigned by unit and measured by row keeps its honest error: the delta method
    (Deng, Knoblich and Lu, 2018).

    Args:
        total: sum over each unit's rows; count: number of each unit's rows; both of shape (units,).

    Returns:
        shape (units,).
    """
    ratio = total.sum() / count.sum()
    return ratio + (total - ratio * count) / count.mean()


def mean(values: Array) -> Estimate:
    """The mean of independent values, one for each unit, shape (units,)."""
    return Estimate(
        float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), len(values)
    )


def difference(values: Array, second: Array, prior: Array | None = None) -> tuple[Estimate, float]:
    """The second arm's mean less the first's, and which share of its variance `prior` took away.

    Args:
        values: one for each unit; second: whether the unit is in the second arm; shape (units,).
        prior: a value of each unit from before the start, 0 where there is none, shape (units,):
            what it explains is taken out first (CUPED; Deng et al., 2013).
    """
    unadjusted = _difference_of_means(values, second)
    if prior is None or np.ptp(prior) == 0:
        return unadjusted, 0.0
    y, x = (np.where(second, v - v[second].mean(), v - v[~second].mean()) for v in (values, prior))
    adjusted = _difference_of_means(values - (y @ x) / (x @ x) * prior, second)
    return adjusted, 1 - (adjusted.error / unadjusted.error) ** 2 if unadjusted.error else 0.0


def _difference_of_means(values: Array, second: Array) -> Estimate:
    champion, challenger = mean(values[~second]), mean(values[second])
    gap = challenger.value - champion.value
    return Estimate(gap, math.hypot(champion.error, challenger.error), len(values))


def share_interval(successes: int, trials: int, level: float) -> tuple[float, float]:
    """The interval of a share for any number of looks: all p that a uniform mixture does not refute.

    The mixture's likelihood ratio is a martingale under p, and so passes 1 / alpha with a chance of
    at most alpha however often one looks (Ville, 1939; Robbins, 1970).
    """
    if not trials:
        return 0.0, 1.0

    failures = trials - successes

    def excess(p: float) -> float:  # of the log likelihood ratio over the one that refutes p
        log_ratio = float(betaln(successes + 1, failures + 1)) - successes * math.log(p)
        return log_ratio - failures * math.log1p(-p) + math.log(1 - level)

    tiny, estimate = 1e-12, min(max(successes / trials, 1e-9), 1 - 1e-9)
    low = brentq(excess, tiny, estimate) if excess(tiny) > 0 > excess(estimate) else 0.0
    high = brentq(excess, estimate, 1 - tiny) if excess(1 - tiny) > 0 > excess(estimate) else 1.0
    return float(low), float(high)


def sample_size(
    spread: float, effect: float, share: float, level: float, power: float
) -> dict[str, int]:
    """How many units of both arms find an effect with this power.

    Args:
        spread: standard deviation of a value by unit; effect: least difference worth finding.
        share: of the units that the second arm gets.
        level: of the interval; power: the chance to find the effect.

    Returns:
        {"one_look": looking once, at the end; "any_look": looking whenever one likes}.
    """
    scale, z_power = spread * math.sqrt(1 / share + 1 / (1 - share)), float(norm.ppf(power))
    one_look = (float(norm.ppf((1 + level) / 2)) + z_power) ** 2 * (scale / effect) ** 2

    def shortfall(log_units: float) -> float:
        units = math.exp(log_units)
        return (_anytime_quantile(units, level) + z_power) * scale / math.sqrt(units) - effect

    low, high = math.log(2), math.log(max(one_look, 2) * 1e6)
    any_look = math.exp(brentq(shortfall, low, high)) if shortfall(low) > 0 else 2.0
    return {"one_look": max(2, math.ceil(one_look)), "any_look": max(2, math.ceil(any_look))}


@dataclass(frozen=True)
class OffPolicy:
    """Off-policy evaluation: what a policy would earn, from logged rows that another policy chose.

    Args:
        reward: of each row.
        propensity: the chance with which the logged action was drawn.
        agrees: whether the policy would have taken the logged action.
        expected_logged: the reward that a model expects of the logged action.
        expected_policy: the reward that a model expects of the policy's action.
        unit: an integer for each row; rows of one unit may depend on one another.
            All are of shape (rows,); each estimate is by unit, shape (units,).
    """

    reward: Array
    propensity: Array
    agrees: Array
    expected_logged: Array
    expected_policy: Array
    unit: Array

    @property
    def weight(self) -> Array:
        """The importance weight of each row, shape (rows,)."""
        return self.agrees / self.propensity

    def ips(self) -> Array:
        """Inverse propensity scores (Horvitz and Thompson, 1952): no bias, and much noise."""
        return self.by_unit(self.weight * self.reward, np.ones(len(self.reward)))

    def snips(self) -> Array:
        """Self-normalised inverse propensity scores, over the sum of the weights (Swaminathan and
        Joachims, 2015): a little bias, and less noise."""
        return self.by_unit(self.weight * self.reward, self.weight)

    def dr(self) -> Array:
        """Doubly robust (Dudík, Langford and Li, 2011): right when either the chances or the
        expected rewards are, and the least noisy when both are."""
        pseudo_outcome = self.expected_policy + self.weight * (self.reward - self.expected_logged)
        return self.by_unit(pseudo_outcome, np.ones(len(self.reward)))

    def by_unit(self, total: Array, count: Array) -> Array:
        """The ratio sum(total) / sum(count) of rows, linearised by unit: shape (units,)."""
        return linearize(*(np.bincount(self.unit, values) for values in (total, count)))

    def effective_rows(self) -> float:
        """How many rows the weights leave: (sum w)² / sum w²."""
        return float(self.weight.sum() ** 2 / (self.weight**2).sum()) if self.agrees.any() else 0.0


def expected_rewards(
    features: Array, actions: Array, reward: Array, unit: Array, seed: int
) -> dict[Any, Array]:
    """The reward that a model expects of each action, for each row.

    The model of a row is fitted on the other half of the units, so that no row tells of itself
    (cross-fitting; Chernozhukov et al., 2018); an action with few rows gets their mean.

    Args:
        features: shape (rows, columns); actions: the logged ones; reward; unit: an integer for each
            row; the latter three of shape (rows,).

    Returns:
        action -> shape (rows,).
    """
    from lightgbm import LGBMRegressor

    folds = np.random.default_rng(seed).integers(0, 2, unit.max() + 1)[unit]
    predictions = {action: np.empty(len(reward)) for action in np.unique(actions)}
    for fold in (0, 1):
        for action, prediction in predictions.items():
            rows = (folds != fold) & (actions == action)
            if rows.sum() < 200:
                prediction[folds == fold] = reward[rows].mean() if rows.any() else reward.mean()
                continue
            model = LGBMRegressor(
                n_estimators=60, num_leaves=15, learning_rate=0.1, min_child_samples=40,
                random_state=seed, n_jobs=1, deterministic=True, force_row_wise=True, verbose=-1,
            )  # fmt: skip
            model.fit(features[rows], reward[rows])
            prediction[folds == fold] = np.asarray(model.predict(features[folds == fold]))
    return predictions
