"""What the service knows and does behind its addresses: models, router, fallback, logs, metrics.

One instance a worker process. Answering reads what is in memory; a background thread brings in what
other workers and commands changed (models, router) and writes what this one counted.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import queue
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..settings import Settings
from . import metrics
from .log import Log
from .model import Model, ModelError
from .router import ARMS, Router, explore
from .rows import Problem, Refused, Rows

CHAMPION, CHALLENGER = ARMS
PRODUCTION, TRAINED, SECOND = "models/production", "models", "models/challenger"
PREDICTIONS, FEEDBACK, REVIEW = "monitoring/predictions", "monitoring/feedback", "monitoring/review"
STATE = "monitoring/router.sqlite"
TICK = 0.5  # seconds between looks at what others changed
LATE = 3  # late answers in a row, after which a model rests
REST_SECONDS = 5.0
WAITING = 1000  # requests that a shadow may be behind

log = logging.getLogger("serving")
encode = msgspec.json.encode


class Version(msgspec.Struct, frozen=True):
    """Which model answered, from which data and code."""

    model: str
    data: str
    code: str


class Answer(msgspec.Struct, gc=False):
    """What is said about one row.

    `confidence`: the probability that the decision is right · `interval`: where the truth of a
    number lies. One of the two is null. `flags`: what was odd, in words.
    """

    id: str
    score: float
    decision: float
    confidence: float | None
    interval: tuple[float, float] | None
    version: Version
    arm: str
    fallback: bool
    explored: bool
    flags: list[str]


class Label(msgspec.Struct, forbid_unknown_fields=True):
    """What came true of a prediction. `reward` (0 to 1) is what a bandit learns from."""

    id: str
    label: float | str | bool | None = None
    reward: float | None = None


class Arm:
    """A model that may answer, and how it has been doing."""

    def __init__(self, name: str, model: Model | None, reason: str = "") -> None:
        self.name, self.model, self.reason = name, model, reason
        self.quick = False  # quick enough to be called without leaving the event loop
        self.late = 0
        self.resting_until = 0.0
        self.letter = "ab"[ARMS.index(name)]
        self.version = Version("none", "none", "none")
        if model:
            manifest = model.manifest
            self.version = Version(
                model.version,
                str(manifest.get("data_version"))[:12],
                str(manifest.get("code_version"))[:12],
            )


class Service:
    """Answers rows, takes feedback, and keeps itself up to date."""

    def __init__(self, settings: Settings, root: Path, guarded: bool = False) -> None:
        self.settings, self.root, self.guarded = settings, root, guarded
        self.given = settings.serving
        self.name = settings.project.slug
        self._rng = random.Random()
        self._stamp = f"{int(time.time() * 1000):011x}{os.urandom(4).hex()}"
        self._count = itertools.count().__next__
        self._pool = ThreadPoolExecutor(4, "model")
        self._shadows: queue.Queue[Any] = queue.Queue(WAITING)
        self._stop = threading.Event()
        self._loading = threading.Lock()
        targets = settings.goals.targets
        self.router = Router(
            root / STATE, self.given.router, targets.error_rate, targets.latency_p99_ms
        )
        self._slow = targets.latency_p99_ms or float("inf")
        self.load()
        self._generation = self.router.generation
        log_columns = {
            "_id": "VARCHAR",
            **{"_time": "TIMESTAMP", "_arm": "VARCHAR", "_propensity": "DOUBLE"},
            **{"_assigned": "BOOLEAN", "_answered": "BOOLEAN", "_score": "DOUBLE"},
            **{"_decision": "DOUBLE", "_decision_propensity": "DOUBLE", "_explored": "BOOLEAN"},
            **{"_confidence": "DOUBLE", "_low": "DOUBLE", "_high": "DOUBLE"},
            **{"_fallback": "VARCHAR", "_flags": "VARCHAR[]", "_latency_ms": "DOUBLE"},
            **{"_model": "VARCHAR", "_data": "VARCHAR", "_code": "VARCHAR"},
            **self.rows.sql_types(),
        }
        each = (self.given.log.flush_seconds, self.given.log.rotate_seconds)
        self.predictions = Log(root / PREDICTIONS, log_columns, *each)
        self.review = Log(root / REVIEW, {**log_columns, "_why": "VARCHAR"}, *each)
        numeric = settings.data.schema_.columns[settings.data.label.column].type in (
            "number",
            "bool",
        )
        self._label_type = "DOUBLE" if numeric else "VARCHAR"
        self.feedback_log = Log(
            root / FEEDBACK,
            {
                "_id": "VARCHAR",
                "_time": "TIMESTAMP",
                "_label": self._label_type,
                "_reward": "DOUBLE",
            },
            *each,
        )
        self._threads = [
            threading.Thread(target=work, name=work.__name__, daemon=True)
            for work in (self._keep_up, self._shadow)
        ]
        for thread in self._threads:
            thread.start()

    # --- models ---

    def load(self) -> None:
        """Read the models again; requests go on with the old ones until the new ones are in place."""
        with self._loading:
            folder = self.root / PRODUCTION
            folder = folder if folder.is_dir() else self.root / TRAINED
            champion = self._arm(CHAMPION, folder)
            baseline, reason = None, ""
            try:
                baseline = Model(folder, "baseline.onnx")
            except ModelError as error:
                reason = str(error)
            second = self.root / SECOND
            challenger = self._arm(CHALLENGER, second) if second.is_dir() else None
            known = champion.model or baseline
            self.rows = Rows(self.settings, known.inputs if known else ())
            self.arms = {CHAMPION: champion, **({CHALLENGER: challenger} if challenger else {})}
            self.router.two = challenger is not None
            self.baseline = baseline
            if reason:
                log.warning("no baseline to fall back to", extra={"reason": reason})
        metrics.models(
            {name: arm.version for name, arm in self.arms.items()}, champion.model is None
        )

    def _arm(self, name: str, folder: Path) -> Arm:
        try:
            arm = Arm(name, Model(folder))
            assert arm.model is not None
            columns = self.settings.data.schema_.columns
            if unknown := [one["name"] for one in arm.model.inputs if one["name"] not in columns]:
                raise ModelError(f"{folder}: reads {unknown[0]}, which data.schema.columns has not")
            row = {one["name"]: [one.get("median")] for one in arm.model.inputs}
            for _ in range(2):  # the first call is slow whatever comes
                start = time.perf_counter()
                arm.model.score(
                    {n: v if arm.model.types[n] != "category" else [""] for n, v in row.items()}
                )
                arm.quick = self._is_quick(time.perf_counter() - start)
            log.info(
                "model loaded",
                extra={"arm": name, "model": arm.version.model, "name_": arm.model.name},
            )
            return arm
        except ModelError as error:
            log.error("model not usable", extra={"arm": name, "reason": str(error)})
            return Arm(name, None, str(error))

    def _is_quick(self, seconds: float) -> bool:
        return 1000 * seconds < self.given.timeout_ms / 20

    # --- answers ---

    async def answer(self, columns: Mapping[str, Sequence[Any]], n: int) -> list[Answer]:
        """Answer n rows, and log what was answered.

        Raises:
            Refused: when a value is odd and the settings refuse such rows.
        """
        start = time.perf_counter()
        flags = self.rows.flags(columns)
        unit = self.router.settings.unit
        units = columns[unit] if unit in columns else [None] * n
        routed = [self.router.assign(one) for one in units]
        names = {arm for arm, _, _ in routed}
        answers: list[Any] = [None] * n
        logged = self.rows.logged(columns)
        now = datetime.now(UTC).replace(tzinfo=None)
        for name in names:
            places = [place for place in range(n) if routed[place][0] == name]
            part = columns if len(places) == n else _take(columns, places)
            arm = self.arms.get(name) or self.arms[CHAMPION]
            version, scored, decided, confidence, interval, why = await self._score(
                arm, part, len(places)
            )
            took = time.perf_counter() - start
            self.router.record(name, error=bool(why), slow=1000 * took > self._slow)
            metrics.answered(name, why, took, scored)
            for at, place in enumerate(places):
                decision, chance, explored = decided[at], 1.0, False
                if self.given.exploration and confidence is not None:
                    decision, chance, explored = explore(
                        decision, self.given.exploration, self._rng
                    )
                row_flags = flags.get(place, [])
                if why:
                    row_flags = [*row_flags, f"answered by the fallback: the model was {why}"]
                sure = None if confidence is None else confidence[at]
                low, high = (None, None) if interval is None else (interval[0][at], interval[1][at])
                one = Answer(
                    f"{arm.letter}{self._stamp}{self._count():08x}",
                    scored[at],
                    decision,
                    sure,
                    None if low is None or high is None else (low, high),
                    version,
                    name,
                    bool(why),
                    explored,
                    row_flags,
                )
                answers[place] = one
                record = logged[place]
                record["_id"] = one.id
                record["_time"] = now
                record["_arm"], record["_propensity"], record["_assigned"] = routed[place]
                record["_answered"] = True
                record["_score"] = one.score
                record["_decision"] = decision
                record["_decision_propensity"] = chance
                record["_explored"] = explored
                record["_confidence"] = sure
                record["_low"], record["_high"] = low, high
                record["_fallback"] = why or None
                record["_flags"] = row_flags
                record["_latency_ms"] = 1000 * took
                record["_model"], record["_data"], record["_code"] = (
                    version.model,
                    version.data,
                    version.code,
                )
                self.predictions.append(encode(record))
                self._to_review(record, row_flags, arm)
        if self.router.shadows:
            self._to_shadow(columns, logged)
        return answers

    async def _score(
        self, arm: Arm, columns: Mapping[str, Sequence[Any]], n: int
    ) -> tuple[Version, list[float], list[float], list[float] | None, Any, str]:
        """The arm's scores, or, with the reason why, those of what stands in for it."""
        score, why = await self._try(arm, columns, n)
        model, version = arm.model, arm.version
        if score is None and arm.name == CHALLENGER:
            champion = self.arms[CHAMPION]
            score, _ = await self._try(champion, columns, n)
            model, version = champion.model, champion.version
        if score is None:
            model = self.baseline
            version = (
                Version(model.version, version.data, version.code)
                if model
                else Version("fixed", "none", "none")
            )
            try:
                score = None if model is None else model.score(columns)
            except Exception:  # whatever it is, a fixed answer is better than none
                log.exception("the baseline failed")
        if score is None or not np.isfinite(score).all():
            model, score = None, np.full(n, self.given.fallback)
            version = Version("fixed", "none", "none")
        if model is None:
            return version, score.tolist(), score.tolist(), None, None, why
        confidence, interval = model.confidence(score), model.interval(score)
        return (
            version,
            score.tolist(),
            model.decide(score).tolist(),
            None if confidence is None else confidence.tolist(),
            None if interval is None else (interval[0].tolist(), interval[1].tolist()),
            why,
        )

    async def _try(
        self, arm: Arm, columns: Mapping[str, Sequence[Any]], n: int
    ) -> tuple[Any | None, str]:
        """The model's scores, or None and what was wrong with it: missing, late or failing."""
        model = arm.model
        if model is None:
            return None, "missing"
        start = time.perf_counter()
        if arm.late >= LATE and start < arm.resting_until:
            return None, "late"
        try:
            if arm.quick and n <= 10:
                score = model.score(columns)
                arm.quick = self._is_quick(time.perf_counter() - start)
            else:
                work = asyncio.get_running_loop().run_in_executor(self._pool, model.score, columns)
                score = await asyncio.wait_for(work, self.given.timeout_ms / 1000)
                arm.quick = n <= 10 and self._is_quick(time.perf_counter() - start) or arm.quick
            arm.late = 0
        except TimeoutError:
            arm.late += 1
            arm.resting_until = time.perf_counter() + REST_SECONDS
            return None, "late"
        except Exception:  # whatever it is, the caller gets an answer
            log.exception("the model failed", extra={"arm": arm.name})
            return None, "failing"
        return (score, "") if np.isfinite(score).all() else (None, "failing")

    def _to_review(self, record: dict[str, Any], flags: list[str], arm: Arm) -> None:
        """Queue for a person what is odd, and what the model was not sure of."""
        why = "; ".join(flags)
        model, margin = arm.model, self.given.review_margin
        if (
            not why
            and model
            and model.probability
            and abs(record["_score"] - model.decision) < margin
        ):
            why = f"score within {margin:g} of the threshold"
        if why:
            metrics.REVIEWED.inc()
            self.review.append(encode({**record, "_why": why}))

    def _to_shadow(
        self, columns: Mapping[str, Sequence[Any]], logged: list[dict[str, Any]]
    ) -> None:
        try:
            self._shadows.put_nowait((columns, logged))
        except queue.Full:
            metrics.SHADOW_DROPPED.inc()

    def _shadow(self) -> None:
        """Score what the champion answered with the challenger as well, and only log it."""
        while not self._stop.is_set() or not self._shadows.empty():
            try:
                columns, logged = self._shadows.get(timeout=0.2)
            except queue.Empty:
                continue
            arm = self.arms.get(CHALLENGER)
            if arm is None or arm.model is None:
                continue
            model, start, why = arm.model, time.perf_counter(), ""
            try:
                score = model.score(columns)
            except Exception:
                log.exception("the shadow failed")
                score, why = np.full(len(logged), np.nan), "failing"
            took = time.perf_counter() - start
            decided, sure = model.decide(score), model.confidence(score)
            self.router.record(CHALLENGER, error=bool(why), slow=1000 * took > self._slow)
            for place, record in enumerate(logged):
                record.update(
                    _arm=CHALLENGER,
                    _answered=False,
                    _score=float(score[place]),
                    _decision=float(decided[place]),
                    _confidence=None if sure is None else float(sure[place]),
                    _fallback=why or None,
                    _latency_ms=1000 * took,
                    _model=arm.version.model,
                    _data=arm.version.data,
                    _code=arm.version.code,
                )
                self.predictions.append(encode(record))

    # --- what it is ---

    def describe(self) -> list[dict[str, Any]]:
        """The columns that a row may have, and what each may hold."""
        model = self.arms[CHAMPION].model or self.baseline
        seen = {one["name"]: one for one in model.inputs} if model else {}
        return [
            {
                "name": name,
                "type": one.type,
                "allowed": self.rows.words(name),
                "used": name in seen,
                "choices": list(one.allowed or seen.get(name, {}).get("categories") or [])[:50],
                "typical": seen.get(name, {}).get("median"),
            }
            for name, one in self.rows.columns.items()
        ]

    def example(self) -> dict[str, Any]:
        """A row as training had many: what the page's form and the documents start from."""
        return {
            one["name"]: one["choices"][0] if one["choices"] else one["typical"]
            for one in self.describe()
            if one["used"] and (one["choices"] or one["typical"] is not None)
        }

    # --- feedback ---

    def feedback(self, labels: Sequence[Label]) -> None:
        """Log what came true, and let the router learn from it.

        Raises:
            Refused: an id that no prediction of this project has, a label of another type.
        """
        problems = []
        for place, one in enumerate(labels):
            if len(one.id) != 28 or one.id[0] not in "ab" or set(one.id) - set("0123456789abcdef"):
                problems.append(Problem(f"[{place}].id", one.id[:80], "the id of a prediction"))
            if self._label_type == "DOUBLE" and isinstance(one.label, str):
                problems.append(Problem(f"[{place}].label", one.label[:80], "a number or null"))
            if one.reward is not None and not 0 <= one.reward <= 1:
                problems.append(Problem(f"[{place}].reward", one.reward, "between 0 and 1"))
            if one.label is None and one.reward is None:
                problems.append(Problem(f"[{place}]", None, "a label or a reward"))
        if problems:
            raise Refused(problems)
        now = datetime.now(UTC).replace(tzinfo=None)
        for one in labels:
            reward = self._reward(one)
            if reward is not None:
                self.router.reward(one.id, ARMS["ab".index(one.id[0])], reward)
            record = {"_id": one.id, "_time": now, "_label": one.label, "_reward": reward}
            self.feedback_log.append(encode(record))
        metrics.FEEDBACK.inc(len(labels))

    def _reward(self, one: Label) -> float | None:
        """What was given; else, for yes or no, 1 for a yes."""
        positive = self.settings.data.label.positive
        if one.reward is not None or one.label is None or positive is None:
            return one.reward
        if isinstance(one.label, str):
            return float(one.label == positive)
        return (
            float(one.label == float(positive))
            if positive.replace(".", "", 1).isdigit()
            else float(one.label)
        )

    # --- in the background ---

    def _keep_up(self) -> None:
        while not self._stop.wait(TICK):
            try:
                self.tick()
            except Exception:  # a thread that dies would leave the service deaf
                log.exception("could not keep up")

    def tick(self) -> None:
        """Bring in what others changed, and write what was counted here."""
        self.router.sync()
        if self.router.generation != self._generation:
            self._generation = self.router.generation
            self.load()
        logs = (self.predictions, self.review, self.feedback_log)
        metrics.state(self.router.share, [one for one in logs])

    def close(self) -> None:
        """Write everything that waits."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.router.sync()
        for one in (self.predictions, self.review, self.feedback_log):
            one.close()


def _take(columns: Mapping[str, Sequence[Any]], places: Sequence[int]) -> dict[str, Sequence[Any]]:
    return {name: [values[place] for place in places] for name, values in columns.items()}
