"""Who gets which model by chance: where a unit stands, a bandit's share, two rankings in one list."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..scoring.state import ARMS
from ..settings import RouterSettings

CHAMPION, CHALLENGER = ARMS
MIN_CHANCE = 0.01  # of either arm of a bandit: off-policy estimates divide by it


def bandit_share(settings: RouterSettings, arms: Sequence[Sequence[float]]) -> float:
    """The challenger's chance of being drawn, at least 0.01 and at most 0.99.

    epsilon_greedy: a share epsilon by the toss of a coin, the rest to the arm with the higher mean.
    thompson: the chance that the challenger's mean is the higher one, under a uniform prior
    (Thompson, 1933); drawing with this chance is Thompson sampling, and the propensity is known.

    Args:
        settings: with the policy, and the epsilon of epsilon_greedy.
        arms: (number of rewards, sum of the rewards) of champion and challenger; a reward is 0 to 1.
    """
    if settings.policy == "epsilon_greedy":
        champion, challenger = ((total + 1) / (n + 2) for n, total in arms)
        greedy_share = 0.5 if champion == challenger else float(challenger > champion)
        share = settings.epsilon / 2 + (1 - settings.epsilon) * greedy_share
    else:
        share = _win_probability(*[(1 + total, 1 + n - total) for n, total in arms])
    return min(max(share, MIN_CHANCE), 1 - MIN_CHANCE)


def _win_probability(first: tuple[float, float], second: tuple[float, float]) -> float:
    """P(second > first) of two beta-distributed means, on a grid that is fine where they lie."""
    low = min(a / (a + b) - 8 * math.sqrt(a * b / (a + b) ** 3) for a, b in (first, second))
    high = max(a / (a + b) + 8 * math.sqrt(a * b / (a + b) ** 3) for a, b in (first, second))
    x = np.linspace(max(low, 0.0), min(high, 1.0), 4001)
    x = (x[1:] + x[:-1]) / 2
    log_densities = [(a - 1) * np.log(x) + (b - 1) * np.log1p(-x) for a, b in (first, second)]
    first_density, second_density = (np.exp(log - log.max()) for log in log_densities)
    first_cdf = np.cumsum(first_density) - first_density / 2
    return float((second_density * first_cdf).sum() / (second_density.sum() * first_density.sum()))


def position(experiment: str, unit: Any) -> float:
    """Where a unit stands in [0, 1): in every process alike, and anew for every experiment."""
    digest = hashlib.blake2b(f"{experiment}\x1f{unit}".encode(), digest_size=7).digest()
    return int.from_bytes(digest) / 2**56


def interleave(
    first: Sequence[Any], second: Sequence[Any], length: int, rng: random.Random
) -> list[tuple[Any, str]]:
    """Two rankings as one list, each item with the arm that it is credited to: team-draft
    interleaving (Radlinski et al., 2008). The arms pick in turns, each its best item that is not
    taken yet; a coin says who picks first in each round.

    Args:
        first: items of the champion, best first; second: of the challenger. Items are hashable.
    """
    rankings = {CHAMPION: iter(first), CHALLENGER: iter(second)}
    taken: set[Any] = set()
    picked: list[tuple[Any, str]] = []
    while len(picked) < length and rankings:
        for arm in rng.sample(list(rankings), len(rankings)):
            item = next((item for item in rankings[arm] if item not in taken), None)
            if item is None:
                del rankings[arm]
            elif len(picked) < length:
                taken.add(item)
                picked.append((item, arm))
    return picked
