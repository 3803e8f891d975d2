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

from ..goals.gate import surely_more
from ..paths import ROUTER_STATE
from ..scoring.state import ARMS, Store, StoreError, get, put
from ..settings import Router as Settings
from ..settings import Settings as ProjectSettings
from ..settings import UserError
from .chance import CHALLENGER, CHAMPION, bandit_share, position

SLOW_SHARE = 0.01  # of answers that may take longer than the 99th percentile that was promised
MOST_REWARDED = 1_000_000  # ids remembered, so that a reward sent twice counts once
TABLES = (
    "CREATE TABLE IF NOT EXISTS arms (name TEXT PRIMARY KEY, answers INTEGER NOT NULL DEFAULT 0, "
    "errors INTEGER NOT NULL DEFAULT 0, slow INTEGER NOT NULL DEFAULT 0, "
    "rewards INTEGER NOT NULL DEFAULT 0, reward REAL NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS rewarded (place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, "
    "reward REAL, alone INTEGER)",
)
MOST_WAITING = 100_000  # rewards kept in memory while the state is out of reach
log = logging.getLogger("serving")


class Router(Store):
    """Draws an arm for each row, by the mode that the settings or the last `change` say.

    Args:
        file: of the shared state. One whose settings were written from another params.yaml starts
            anew; the rewards of a bandit are kept.
        error_rate: largest share of answers that the challenger may fail in a canary; None: any.
        latency_ms: what counts as slow; None: nothing does.
    """

    def __init__(
        self, file: Path, given: Settings, error_rate: float | None, latency_ms: float | None
    ) -> None:
        super().__init__(file)
        self._error_rate, self._latency = error_rate, latency_ms
        self.two = False  # whether there is a challenger; the service says so
        self.share = 0.0  # the challenger's
        self.settings = self._given = given
        self._rng = random.Random()
        self._lock = threading.Lock()
        self._counts = {name: [0, 0, 0] for name in ARMS}  # answers, errors, slow
        self._rewards: deque[tuple[str, str, float, bool]] = deque(maxlen=MOST_WAITING)
        for _ in range(2):  # of a damaged state, the second one is new
            with suppress(StoreError):  # the champion answers until it is within reach
                self.sync()
                break

    def prepare(self, sql: sqlite3.Connection) -> None:
        """Make the tables, and start anew where the settings are others than before."""
        super().prepare(sql)
        for table in TABLES:
            sql.execute(table)
        written = self._given.model_dump_json()
        known = {row[1] for row in sql.execute("PRAGMA table_info(rewarded)")}
        for column in {"reward REAL", "alone INTEGER"}:
            if column.split()[0] not in known:  # an older version's
                sql.execute(f"ALTER TABLE rewarded ADD COLUMN {column}")
        sql.executemany("INSERT OR IGNORE INTO arms (name) VALUES (?)", [(a,) for a in ARMS])
        if get(sql, "written") != written:
            put(sql, written=written)
            _start(sql, self._given)

    # --- a request ---

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the settings that `change` takes."""
        return tuple(Settings.model_fields)

    @property
    def shadows(self) -> bool:
        return self.two and self.settings.mode == "shadow"

    def assign(self, unit: Any) -> tuple[str, float, bool]:
        """An arm, the chance it had (its propensity), and whether there was anything to draw.

        Whoever has the same unit gets the same arm, in every process and after every restart; a
        larger share only moves units from the champion to the challenger. Without a unit, and in a
        bandit, each row is drawn by itself.
        """
        mode, share = self.settings.mode, self.share
        if not self.two or mode in ("single", "shadow") or (share == 0 and mode == "canary"):
            return CHAMPION, 1.0, False
        if mode == "bandit" or unit is None:
            place = self._rng.random()
        else:
            place = position(self.settings.experiment, unit)
        return (CHALLENGER, share, True) if place < share else (CHAMPION, 1 - share, True)

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
        """Add what was counted here, let the canary take its step, and read what holds now."""
        with self._lock:
            counts, self._counts = self._counts, {name: [0, 0, 0] for name in ARMS}
            rewards, self._rewards = self._rewards, deque(maxlen=MOST_WAITING)
        try:
            with self.opened() as sql:
                sql.execute("BEGIN IMMEDIATE")
                for arm, found in counts.items():
                    if found[0]:
                        sql.execute(
                            "UPDATE arms SET answers = answers + ?, errors = errors + ?, "
                            "slow = slow + ? WHERE name = ?",
                            [*found, arm],
                        )
                for rewarded in rewards:
                    _reward(sql, *rewarded)
                if rewards:
                    sql.execute(
                        "DELETE FROM rewarded WHERE place <= (SELECT max(place) FROM rewarded) - ?",
                        [MOST_REWARDED],
                    )
                settings = Settings.model_validate_json(get(sql, "settings"))
                if settings.mode == "canary":
                    self._step(sql, settings)
                share = _share(sql, settings)
                generation = int(get(sql, "generation"))
                sql.execute("COMMIT")
        except BaseException:
            with self._lock:  # the next turn takes them along
                for arm, found in counts.items():
                    self._counts[arm] = [
                        a + b for a, b in zip(self._counts[arm], found, strict=True)
                    ]
                self._rewards.extendleft(reversed(rewards))
            raise
        self.settings, self.share, self.generation = settings, share, generation

    def _step(self, sql: sqlite3.Connection, settings: Settings) -> None:
        """Lower the canary when a guardrail broke; raise it when it has held for long enough."""
        place, since = int(get(sql, "step")), float(get(sql, "since"))
        answers, errors, slow = sql.execute(
            "SELECT answers, errors, slow FROM arms WHERE name = ?", [CHALLENGER]
        ).fetchone()
        limits = [
            (errors, self._error_rate, "failed"),
            (slow, None if self._latency is None else SLOW_SHARE, f"took over {self._latency} ms"),
        ]
        for count, most, words in limits:
            if place >= 0 and most is not None and surely_more(count, answers, most):
                why = f"{count} of the challenger's {answers} answers {words}"
                log.error("canary lowered", extra={"reason": why})
                put(sql, step=-1, why=why)
                return
        waited = time.time() - since
        more = 0 <= place < len(settings.steps) - 1
        if more and waited >= settings.step_seconds and answers >= settings.step_requests:
            log.info("canary raised", extra={"share": settings.steps[place + 1]})
            put(sql, step=place + 1, since=time.time())
            _forget(sql)

    def change(self, **changes: Any) -> None:
        """Change settings for all workers; a new mode, or a canary's again, starts from its beginning.

        Raises:
            UserError: a key or value that the settings do not allow; nothing is changed then.
        """
        with self.opened() as sql:
            sql.execute("BEGIN IMMEDIATE")
            before = Settings.model_validate_json(get(sql, "settings"))
            try:
                after = Settings.model_validate({**before.model_dump(), **changes})
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                key = ".".join(map(str, first["loc"])) or "router"
                raise UserError(f"{key}: {first['msg'].removeprefix('Value error, ')}") from None
            if after.mode != before.mode or after.mode == "canary":
                _start(sql, after)
            else:
                put(sql, settings=after.model_dump_json())
            sql.execute("COMMIT")
        self.sync()

    def status(self) -> dict[str, Any]:
        """What holds now, and how the arms have been doing since the mode or the step began."""
        self.sync()
        with self.opened() as sql:
            keys = ("answers", "errors", "slow", "rewards", "reward")
            rows = sql.execute(f"SELECT name, {', '.join(keys)} FROM arms").fetchall()
            why = get(sql, "why")
        arms = {name: dict(zip(keys, found, strict=True)) for name, *found in rows}
        return {**self.remembered(), "lowered": why or None, "arms": arms}

    def remembered(self) -> dict[str, Any]:
        """What of it this process knows by itself."""
        return {**self.settings.model_dump(), "challenger": self.two, "share": self.share}


def open_router(settings: ProjectSettings, root: Path) -> Router:
    """The router of a project, with its guardrails as `goals.targets` promises them."""
    targets = settings.goals.targets
    given = settings.rollout.router
    return Router(root / ROUTER_STATE, given, targets.error_rate, targets.latency_p99_ms)


def parsed(changes: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE words as `change` takes them, each value as JSON where it is some, else as text.

    Raises:
        UserError: when one has no equals sign.
    """
    found = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise UserError(f"{change}: write KEY=VALUE, such as mode=canary")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _reward(sql: sqlite3.Connection, id: str, arm: str, reward: float, alone: bool) -> None:
    """Count a reward of an id that has none yet, or correct the one that came with its label."""
    query = "INSERT OR IGNORE INTO rewarded (id, reward, alone) VALUES (?, ?, ?)"
    add = "UPDATE arms SET rewards = rewards + ?, reward = reward + ? WHERE name = ?"
    if sql.execute(query, [id, reward, alone]).rowcount:
        sql.execute(add, [1, reward, arm])
        return
    ((before, first),) = sql.execute("SELECT reward, alone FROM rewarded WHERE id = ?", [id])
    if first == 0:  # an older version did not write it down
        sql.execute("UPDATE rewarded SET reward = ?, alone = ? WHERE id = ?", [reward, alone, id])
        sql.execute(add, [0, reward - before, arm])


def _start(sql: sqlite3.Connection, settings: Settings) -> None:
    """Begin a mode: the canary's first step, nothing counted yet; rewards and reloads are kept."""
    generation = get(sql, "generation") or "0"
    put(sql, settings=settings.model_dump_json(), step=0, since=time.time(), why="")
    put(sql, generation=generation)
    _forget(sql)


def _forget(sql: sqlite3.Connection) -> None:
    sql.execute("UPDATE arms SET answers = 0, errors = 0, slow = 0")


def _share(sql: sqlite3.Connection, settings: Settings) -> float:
    """The challenger's share in this mode."""
    match settings.mode:
        case "ab":
            return settings.share
        case "canary":
            place = int(get(sql, "step"))
            return settings.steps[min(place, len(settings.steps) - 1)] if place >= 0 else 0.0
        case "bandit":
            rows = {
                name: found
                for name, *found in sql.execute("SELECT name, rewards, reward FROM arms")
            }
            return bandit_share(settings, [rows[name] for name in ARMS])
        case _:
            return 0.0


def show(found: dict[str, Any], console: Any) -> None:
    """Print what `Router.status` says."""
    from rich.box import SIMPLE_HEAD  # a worker has no use for it
    from rich.table import Table

    table = Table("arm", "answers", "failed", "slow", "rewards", "mean reward", box=SIMPLE_HEAD)
    for name, one in found["arms"].items():
        mean = f"{one['reward'] / one['rewards']:.4g}" if one["rewards"] else "–"
        counts = (f"{one[key]:,}" for key in ("answers", "errors", "slow", "rewards"))
        table.add_row(name, *counts, mean)
    console.print(f"mode {found['mode']}, the challenger's share is {found['share']:.3g}")
    if found["lowered"]:
        again = "`rollout mode=canary` begins again"
        console.print(f"[bold red]lowered:[/] {found['lowered']}; {again}")
    console.print(table)
