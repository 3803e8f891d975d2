"""What chance explains: whether so many are more than was allowed, told alike by service and monitor."""

from __future__ import annotations

import math

SURE = 0.001  # how unlikely a count must be before a promise counts as broken


def tail(count: int, of: int, share: float) -> float:
    """P(at least `count` of `of`) when each happens with the chance `share`: a binomial tail."""
    if count <= of * share:
        return 1.0
    if share <= 0:
        return 0.0
    logs = (
        math.lgamma(of + 1)
        - math.lgamma(k + 1)
        - math.lgamma(of - k + 1)
        + k * math.log(share)
        + (of - k) * math.log1p(-share)
        for k in range(count, min(of, count + 200) + 1)  # beyond, terms no longer matter
    )
    return min(1.0, sum(math.exp(one) for one in logs))


def surely_more(count: int, of: int, share: float) -> bool:
    """Whether so many of so many are more than the share that is allowed, beyond chance."""
    return tail(count, of, share) < SURE
