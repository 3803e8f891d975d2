"""Which model answers: the one in production, as long as the part `rollout` brings no draw between two."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..parts import part_hint, part_module
from ..paths import ROUTER_STATE
from ..scoring.state import ARMS, Store, StoreError, get
from ..settings import Settings, UserError

CHAMPION, CHALLENGER = ARMS


class Single(NamedTuple):
    """The settings of a service with one model."""

    mode: str = "single"
    experiment: str = ""
    unit: str | None = None


class Champion(Store):
    """The interface of a router, for one model: `rollout.router.TrafficRouter` has the same for two."""

    shadows = False  # whether the challenger answers unseen
    interleaves = False  # whether both models fill each list by turns
    keys: tuple[str, ...] = ()  # of the settings that `change` takes

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.challenged = False  # whether there is a challenger; the service says so
        self.share = 0.0  # the challenger's
        self.settings = Single()
        for _ in range(2):  # of a damaged state, the second one is new
            with suppress(StoreError):  # the champion answers until it is within reach
                self.sync()
                break

    def assign(self, unit: Any) -> tuple[str, float, bool]:
        """An arm, the chance it had (its propensity), and whether there was anything to draw.

        Args:
            unit: by whose value arms are drawn; None: each row by itself.
        """
        return CHAMPION, 1.0, False

    def interleave(
        self, lists: Sequence[Any], first: Sequence[int], second: Sequence[int]
    ) -> tuple[list[int], list[str]]:
        """Two orders of n rows as one: here there is but the first, which is the champion's."""
        return list(first), [CHAMPION] * len(lists)

    def record(self, arm: str, error: bool, slow: bool) -> None:
        """Count an answer of an arm's: nothing is decided by the count here."""

    def reward(self, id: str, arm: str, reward: float, alone: bool = True) -> None:
        """Take what an answer earned: nothing learns from it here."""

    def sync(self) -> None:
        """Read whether the models have to be read again."""
        with self.opened() as sql:
            self.generation = int(get(sql, "generation"))

    def change(self, **changes: Any) -> None:
        """Change settings for all workers.

        Raises:
            UserError: always; there is no second model.
        """
        raise UserError(f"a second model {part_hint('rollout')}")

    def status(self) -> dict[str, Any]:
        """The settings and shares that hold now, as JSON.

        Raises:
            StoreError: when the shared state is out of reach.
        """
        self.sync()
        return self.last_status()

    def last_status(self) -> dict[str, Any]:
        """The settings and shares that this process read last, as JSON."""
        return {**self.settings._asdict(), "challenger": self.challenged, "share": self.share}


def make_router(settings: Settings, root: Path) -> Champion:
    """The part's router between two models where the project has the part, else the champion's own."""
    rollout = part_module("rollout.router")
    router: Champion = (
        rollout.open_router(settings, root) if rollout else Champion(root / ROUTER_STATE)
    )
    return router


def explore(
    decision: float, share: float, choices: int, rng: random.Random
) -> tuple[float, float, bool]:
    """A decision, drawn at random in a share of rows (epsilon-greedy); its propensity; whether it was drawn.

    What a model never decides, it never learns the outcome of: a little chance breaks the loop. The
    propensity is what inverse propensity weighting divides by (Horvitz and Thompson, 1952).

    Args:
        decision: the model's.
        share: of rows whose decision is drawn, 0 to 1.
        choices: how many decisions there are, numbered from 0.
    """
    explored = rng.random() < share
    taken = float(rng.randrange(choices)) if explored else decision
    return taken, share / choices + (1 - share) * (taken == decision), explored
