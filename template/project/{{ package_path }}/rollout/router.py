"""Which model answers: the one in production (champion) or the one that wants its place (challenger).

The state is one SQLite file that all workers and the `rollout` command share, so that a restart
loses nothing. A request only reads what is in memory; `sync` adds what this process counted and
brings in what others changed.
"""

from __future__ import annotations

import json
import logging
import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .. import problem
from ..goals.gate import surely_more
from ..paths import ROUTER_STATE
from ..scoring.state import ARMS, Store, StoreError, get, put
from ..settings import RouterSettings, Settings, UserError
from .chance import CHALLENGER, CHAMPION, bandit_share, interleave, position

SLOW_SHARE = 0.01  # of answers that may take longer than the 99th percentile that was promised
MAX_REMEMBERED = 1_000_000  # ids remembered, so that a reward sent twice counts once
TABLES = (
    "CREATE TABLE IF NOT EXISTS arms (name TEXT PRIMARY KEY, answers INTEGER NOT NULL DEFAULT 0, "
    "errors INTEGER NOT NULL DEFAULT 0, slow INTEGER NOT NULL DEFAULT 0, "
    "rewards INTEGER NOT NULL DEFAULT 0, reward REAL NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS rewarded (place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, "
    "reward REAL, alone INTEGER)",
)
MAX_WAITING = 100_000  # rewards kept in memory while the state is out of reach
log = logging.getLogger("serving")


class TrafficRouter(Store):
    """Draws an arm for each row, by the mode that the settings or the last `change` say.

    Args:
        file: of the shared state. One whose settings were written from another params.yaml starts
            anew; the rewards of a bandit are kept.
        block: `rollout.router` of params.yaml.
        error_rate: largest share of answers that the challenger may fail in a canary; None: any.
        latency_ms: what counts as slow; None: nothing does.
    """

    def __init__(
        self, file: Path, block: RouterSettings, error_rate: float | None, latency_ms: float | None
    ) -> None:
        super().__init__(file)
        self._error_rate, self._latency = error_rate, latency_ms
        self.challenged = False  # whether there is a challenger; the service says so
        self.share = 0.0  # the challenger's
        self.settings = self._configured = block
        self._rng = random.Random()
        self._lock = threading.Lock()
        self._counts = {name: [0, 0, 0] for name in ARMS}  # answers, errors, slow
        self._rewards: deque[tuple[str, str, float, bool]] = deque(maxlen=MAX_WAITING)
        for _ in range(2):  # of a damaged state, the second one is new
            with suppress(StoreError):  # the champion answers until it is within reach
                self.sync()
                break

    def prepare(self, sql: sqlite3.Connection) -> None:
        """Make the tables, and start anew where the settings are others than before."""
        super().prepare(sql)
        for table in TABLES:
            sql.execute(table)
        settings_json = self._configured.model_dump_json()
        columns = {row[1] for row in sql.execute("PRAGMA table_info(rewarded)")}
        for column in {"reward REAL", "alone INTEGER"}:
            if column.split()[0] not in columns:  # an older version's
                sql.execute(f"ALTER TABLE rewarded ADD COLUMN {column}")
        sql.executemany("INSERT OR IGNORE INTO arms (name) VALUES (?)", [(arm,) for arm in ARMS])
        if get(sql, "written") != settings_json:
            put(sql, written=settings_json)
            _start_mode(sql, self._configured)

    # --- a request ---

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the settings that `change` takes."""
        return tuple(RouterSettings.model_fields)

    @property
    def shadows(self) -> bool:
        """Whether the challenger answers unseen."""
        return self.challenged and self.settings.mode == "shadow"

    @property
    def interleaves(self) -> bool:
        """Whether both models fill each list by turns."""
        return self.challenged and self.settings.mode == "interleave"

    def interleave(
        self, lists: Sequence[Any], first: Sequence[int], second: Sequence[int]
    ) -> tuple[list[int], list[str]]:
        """Two orders of n rows as one, list by list: team draft (Radlinski et al., 2008).

        Args:
            lists: what tells the list of each row apart.
            first, second: the place of each row in its list, by the champion and by the challenger.

        Returns:
            the place of each row in the common order, from 1, and the arm that it is credited to.
        """
        slots, teams = [0] * len(lists), [CHAMPION] * len(lists)
        by_list: dict[Any, list[int]] = {}
        for row, key in enumerate(lists):
            by_list.setdefault(key, []).append(row)
        for rows in by_list.values():
            ours, theirs = (sorted(rows, key=order.__getitem__) for order in (first, second))
            merged = interleave(ours, theirs, len(rows), self._rng)
            for slot, (row, arm) in enumerate(merged, start=1):
                slots[row], teams[row] = slot, arm
        return slots, teams

    def assign(self, unit: Any) -> tuple[str, float, bool]:
        """An arm, the chance it had (the propensity), and whether there was anything to draw.

        Whoever has the same unit gets the same arm, in every process and after every restart; a
        larger share only moves units from the champion to the challenger. Without a unit, and in a
        bandit, each row is drawn by itself.
        """
        mode, share = self.settings.mode, self.share
        if not self.challenged or mode in ("single", "shadow", "interleave"):
            return CHAMPION, 1.0, False
        if share == 0 and mode == "canary":
            return CHAMPION, 1.0, False
        if mode == "bandit" or unit is None:
            point = self._rng.random()
        else:
            point = position(self.settings.experiment, unit)
        return (CHALLENGER, share, True) if point < share else (CHAMPION, 1 - share, True)

    def record(self, arm: str, error: bool, slow: bool) -> None:
        """Count an answer of an arm's."""
        with self._lock:
            counts = self._counts[arm]
            counts[0] += 1
            counts[1] += error
            counts[2] += slow

    def reward(self, id: str, arm: str, reward: float, alone: bool = True) -> None:
        """Take what an answer earned (0 to 1); however often one id comes, it counts once.

        Args:
            alone: it was given as such: a second one is passed over. Else it came with a label, and a
                corrected label corrects it.
        """
        with self._lock:
            self._rewards.append((id, arm, reward, alone))

    # --- between requests ---

    def sync(self) -> None:
        """Add what was counted here, let the canary take its step, and read what holds now.

        Raises:
            StoreError: when the shared state is out of reach; the counts are kept for the next turn.
        """
        with self._lock:
            counts, self._counts = self._counts, {name: [0, 0, 0] for name in ARMS}
            rewards, self._rewards = self._rewards, deque(maxlen=MAX_WAITING)
        try:
            with self.opened() as sql:
                sql.execute("BEGIN IMMEDIATE")
                for arm, counted in counts.items():
                    if counted[0]:
                        sql.execute(
                            "UPDATE arms SET answers = answers + ?, errors = errors + ?, "
                            "slow = slow + ? WHERE name = ?",
                            [*counted, arm],
                        )
                for rewarded in rewards:
                    _count_reward(sql, *rewarded)
                if rewards:
                    sql.execute(
                        "DELETE FROM rewarded WHERE place <= (SELECT max(place) FROM rewarded) - ?",
                        [MAX_REMEMBERED],
                    )
                settings = RouterSettings.model_validate_json(get(sql, "settings"))
                if settings.mode == "canary":
                    self._step_canary(sql, settings)
                share = _share(sql, settings)
                generation = int(get(sql, "generation"))
                sql.execute("COMMIT")
        except BaseException:
            with self._lock:  # the next turn takes them along
                for arm, counted in counts.items():
                    self._counts[arm] = list(map(sum, zip(self._counts[arm], counted, strict=True)))
                self._rewards.extendleft(reversed(rewards))
            raise
        self.settings, self.share, self.generation = settings, share, generation

    def _step_canary(self, sql: sqlite3.Connection, settings: RouterSettings) -> None:
        """Lower the canary when a guardrail broke; raise it when it has held for long enough."""
        step, since = int(get(sql, "step")), float(get(sql, "since"))
        answers, errors, slow = sql.execute(
            "SELECT answers, errors, slow FROM arms WHERE name = ?", [CHALLENGER]
        ).fetchone()
        limits = [
            (errors, self._error_rate, "failed"),
            (slow, None if self._latency is None else SLOW_SHARE, f"took over {self._latency} ms"),
        ]
        for count, limit, fault in limits:
            if step >= 0 and limit is not None and surely_more(count, answers, limit):
                reason = f"{count} of the challenger's {answers} answers {fault}"
                log.error("canary lowered", extra={"reason": reason})
                put(sql, step=-1, why=reason)
                return
        waited = time.time() - since
        can_rise = 0 <= step < len(settings.steps) - 1
        if can_rise and waited >= settings.step_seconds and answers >= settings.step_requests:
            log.info("canary raised", extra={"share": settings.steps[step + 1]})
            put(sql, step=step + 1, since=time.time())
            _reset_counts(sql)

    def change(self, **changes: Any) -> None:
        """Change settings for all workers; a new mode, or a canary's again, starts from its beginning.

        Raises:
            UserError: when a key or value is not allowed; nothing is changed then.
            StoreError: when the shared state is out of reach.
        """
        with self.opened() as sql:
            sql.execute("BEGIN IMMEDIATE")
            before = RouterSettings.model_validate_json(get(sql, "settings"))
            try:
                after = RouterSettings.model_validate({**before.model_dump(), **changes})
                if after.mode == "interleave" and not problem.LISTED:
                    raise UserError(
                        "mode: interleave mixes two orders, and no lists are answered here"
                    )
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                key = ".".join(map(str, first["loc"])) or "router"
                raise UserError(f"{key}: {first['msg'].removeprefix('Value error, ')}") from None
            if after.mode != before.mode or after.mode == "canary":
                _start_mode(sql, after)
            else:
                put(sql, settings=after.model_dump_json())
            sql.execute("COMMIT")
        self.sync()

    def status(self) -> dict[str, Any]:
        """What holds now, and how the arms have been doing since the mode or the step began.

        Returns:
            the keys of `last_status`, "lowered" (why the canary was, or None), and "arms": name ->
            counts of "answers", "errors", "slow" and "rewards", and the sum "reward".

        Raises:
            StoreError: when the shared state is out of reach.
        """
        self.sync()
        with self.opened() as sql:
            keys = ("answers", "errors", "slow", "rewards", "reward")
            rows = sql.execute(f"SELECT name, {', '.join(keys)} FROM arms").fetchall()
            reason = get(sql, "why")
        arms = {name: dict(zip(keys, counts, strict=True)) for name, *counts in rows}
        return {**self.last_status(), "lowered": reason or None, "arms": arms}

    def last_status(self) -> dict[str, Any]:
        """The settings, "challenger" (whether there is one) and its "share", as of the last `sync`."""
        return {**self.settings.model_dump(), "challenger": self.challenged, "share": self.share}


def open_router(settings: Settings, root: Path) -> TrafficRouter:
    """The router of a project, with its guardrails as `goals.targets` promises them."""
    targets = settings.goals.targets
    block, file = settings.rollout.router, root / ROUTER_STATE
    return TrafficRouter(file, block, targets.error_rate, targets.latency_p99_ms)


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE arguments as `TrafficRouter.change` takes them: each value as JSON, or else as text.

    Raises:
        UserError: when an argument has no equals sign.
    """
    parsed = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise UserError(f"{change}: write KEY=VALUE, such as mode=canary")
        try:
            parsed[key] = json.loads(value)
        except ValueError:
            parsed[key] = value
    return parsed


def _count_reward(sql: sqlite3.Connection, id: str, arm: str, reward: float, alone: bool) -> None:
    """Count a reward of an id that has none yet, or correct the one that came with its label."""
    query = "INSERT OR IGNORE INTO rewarded (id, reward, alone) VALUES (?, ?, ?)"
    add = "UPDATE arms SET rewards = rewards + ?, reward = reward + ? WHERE name = ?"
    if sql.execute(query, [id, reward, alone]).rowcount:
        sql.execute(add, [1, reward, arm])
        return
    ((earlier, was_alone),) = sql.execute("SELECT reward, alone FROM rewarded WHERE id = ?", [id])
    if was_alone == 0:  # an older version did not write it down
        sql.execute("UPDATE rewarded SET reward = ?, alone = ? WHERE id = ?", [reward, alone, id])
        sql.execute(add, [0, reward - earlier, arm])


def _start_mode(sql: sqlite3.Connection, settings: RouterSettings) -> None:
    """Begin a mode: the canary's first step, nothing counted yet; rewards and reloads are kept."""
    generation = get(sql, "generation") or "0"
    put(sql, settings=settings.model_dump_json(), step=0, since=time.time(), why="")
    put(sql, generation=generation)
    _reset_counts(sql)


def _reset_counts(sql: sqlite3.Connection) -> None:
    sql.execute("UPDATE arms SET answers = 0, errors = 0, slow = 0")


def _share(sql: sqlite3.Connection, settings: RouterSettings) -> float:
    """The challenger's share in this mode."""
    match settings.mode:
        case "ab":
            return settings.share
        case "canary":
            step = int(get(sql, "step"))
            return settings.steps[min(step, len(settings.steps) - 1)] if step >= 0 else 0.0
        case "bandit":
            rows = sql.execute("SELECT name, rewards, reward FROM arms")
            totals = {name: rewards for name, *rewards in rows}
            return bandit_share(settings, [totals[name] for name in ARMS])
        case _:
            return 0.0


def show(status: dict[str, Any], console: Any) -> None:
    """Print what `TrafficRouter.status` says."""
    from rich.box import SIMPLE_HEAD  # a worker has no use for it
    from rich.table import Table

    table = Table("arm", "answers", "failed", "slow", "rewards", "mean reward", box=SIMPLE_HEAD)
    for name, arm in status["arms"].items():
        mean = f"{arm['reward'] / arm['rewards']:.4g}" if arm["rewards"] else "–"
        counts = (f"{arm[key]:,}" for key in ("answers", "errors", "slow", "rewards"))
        table.add_row(name, *counts, mean)
    share = f"the challenger's share is {status['share']:.3g}"
    if status["mode"] == "interleave":
        share = "both fill each list by turns"
    console.print(f"mode {status['mode']}, {share}")
    if status["lowered"]:
        again = "`rollout mode=canary` begins again"
        console.print(f"[bold red]lowered:[/] {status['lowered']}; {again}")
    console.print(table)
