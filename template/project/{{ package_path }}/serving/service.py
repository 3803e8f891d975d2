"""What the service knows and does behind its addresses: models, router, fallback, logs, metrics.

One instance a worker process. Answering reads what is in memory; a background thread brings in what
other workers and commands changed (models, router) and writes what this one counted.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import math
import os
import queue
import random
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ..data.labels import label_rule
from ..model import Array, Model, ModelError
from ..paths import CHALLENGER as CHALLENGER_FOLDER
from ..paths import FEEDBACK, PREDICTIONS, PRODUCTION, REVIEW, TRAINED
from ..problem import WIDE
from ..problem import data as problem_data
from ..problem.decision import by_class, choices, headline, named
from ..problem.goals import fixed_decision, fixed_score
from ..records import ANSWER, FOLDERS, LABEL, SCORE_COLUMN, WHY_REVIEWED
from ..scoring.state import ARMS, StoreError
from ..settings import Settings, UserError
from . import ids, metrics
from .bounded import MOST_TOLD, Problem, Refused, first_problem, members, short, up_to
from .log import Log
from .routing import CHALLENGER, CHAMPION, explore, make_router
from .rows import Rows

TIDY_SECONDS = 6.0  # that logs may take to become Parquet when the service stops
TICK = 0.5  # seconds between looks at what others changed
RELOAD_SECONDS = 20.0  # that `/reload` waits for the other workers
LATE = 3  # late answers in a row, after which a model rests
REST_SECONDS = 5.0
PROBE = 64  # rows by which a model is timed when it is loaded
MOST_CHANGE = 10_000  # bytes of a change of the router's settings
KNOWN_IDS = "an id that this service gave an answer; labels of others: `feedback FILE`"
WAITING = 20_000  # rows that a shadow may be behind
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)

log = logging.getLogger("serving")
encode = msgspec.json.encode
encode_lines = msgspec.json.Encoder().encode_lines


class Version(msgspec.Struct, frozen=True):
    """Which model answered, from which data and code."""

    model: str
    data: str
    code: str


class Answer(msgspec.Struct, gc=False):
    """What is said about one row.

    `confidence`: the chance that the decision is right · `interval`: where the truth of a
    number lies. One of the two is null. `flags`: what was odd, in words. `scores`: of each class, where
    classes have scores; `score` is then that of the decision.
    """

    id: str
    score: float
    decision: float | str
    confidence: float | None
    interval: tuple[float, float] | None
    version: Version
    arm: str
    fallback: bool
    explored: bool
    flags: list[str]
    scores: dict[str, float] | msgspec.UnsetType = msgspec.UNSET


class Label(msgspec.Struct, forbid_unknown_fields=True):
    """What came true of a prediction. `reward` (0 to 1) is what a bandit learns from."""

    id: str
    label: float | str | bool | None = None
    reward: float | None = None


def read_labels(body: bytes, most: int) -> list[Label]:
    """The labels of a request.

    Raises:
        Refused: when it is no label and no list of them, or more than `most`.
    """
    try:
        if body.count(b"{") > most and body.lstrip()[:1] == b"[":
            return members(up_to(most, Label)(body))
        found = _decode_labels(body)
    except (ValueError, RecursionError, OverflowError) as error:
        allowed = f"an object with id and label, reward or both, or a list of 1 to {most} such"
        raise Refused([first_problem(error, body, allowed)[0]]) from None
    return found if isinstance(found, list) else [found]


_decode_change = msgspec.json.Decoder(dict[str, Any]).decode
_decode_labels = msgspec.json.Decoder(Label | list[Label]).decode


class Arm:
    """A model that may answer, and how it has been doing.

    While it is quick, requests that came in together are scored together, on the event loop: one
    call for sixteen rows takes little longer than one for one row.
    """

    def __init__(
        self, name: str, model: Model | None, reason: str = "", quick_seconds: float = 0.0
    ) -> None:
        self.name, self.model, self.reason = name, model, reason
        self.quick_seconds = quick_seconds
        self.quick = False  # quick enough to be called without leaving the event loop
        self.few = 1  # rows up to which it is
        self.late = 0
        self.resting_until = 0.0
        self.waiting: list[tuple[Sequence[Sequence[Any]], asyncio.Future[Array]]] = []
        self.letter = "ab"[ARMS.index(name)]
        self.version = Version("none", "none", "none")
        if model:
            manifest = model.manifest
            self.version = Version(
                model.version,
                str(manifest.get("data_version"))[:12],
                str(manifest.get("code_version"))[:12],
            )

    def rests(self) -> bool:
        """Whether it was late so often that it is left alone for a while."""
        return self.late >= LATE and time.perf_counter() < self.resting_until

    def together(self, rows: Sequence[Sequence[Any]], rows_of: Rows) -> asyncio.Future[Array]:
        """The scores of these rows, with those of all requests that are waiting by then."""
        loop = asyncio.get_running_loop()
        if not self.waiting:
            loop.call_soon(self._score_waiting, rows_of)
        future: asyncio.Future[Array] = loop.create_future()
        self.waiting.append((rows, future))
        return future

    def _score_waiting(self, rows_of: Rows) -> None:
        assert self.model is not None
        waiting, self.waiting = self.waiting, []
        start, at = time.perf_counter(), 0
        try:
            rows = [row for rows, _ in waiting for row in rows]
            scores = self.model.score(rows_of.by_column(rows))
        except Exception as error:
            if len(waiting) > 1:  # the others need not suffer with it
                for one in waiting:
                    self.waiting = [one]
                    self._score_waiting(rows_of)
            elif not waiting[0][1].cancelled():
                waiting[0][1].set_exception(error)
            return
        self.quick = time.perf_counter() - start < self.quick_seconds
        for part, future in waiting:
            if not future.cancelled():
                future.set_result(scores[at : at + len(part)])
            at += len(part)


class Service:
    """Answers rows, takes feedback, and keeps itself up to date."""

    def __init__(self, settings: Settings, root: Path, guarded: bool = False) -> None:
        self.settings, self.root, self.guarded = settings, root, guarded
        self.given = settings.serving
        self.name = settings.project.slug
        self._rng = random.Random()
        self._ids = ids.Ids(ids.secret(root))
        self._pool = ThreadPoolExecutor(4, "model")
        self._shadows: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._handed = self._shadowed = 0  # rows to the shadow's thread, and of them those begun
        self._stop = threading.Event()
        self._loading = threading.Lock()
        targets = settings.goals.targets
        self.router = make_router(settings, root)
        self._slow = targets.latency_p99_ms or float("inf")
        self.arms: dict[str, Arm] = {}
        self.baseline: Model | None = None
        self.unloaded: dict[str, str] = {}  # what the folders have and could not be loaded -> why
        self._threshold: Any = None  # by which the last model that worked decided
        self._said = ""  # what the router's state was last said to lack
        self._generation = self.router.generation
        self.load()
        log_columns = {**ANSWER, **self.rows.sql_types()}
        # A record's keys are the same in each, and known beforehand: five times as fast as a dict
        fields = [(f"f{place}", Any) for place in range(len(log_columns))]
        rename = {f"f{place}": name for place, name in enumerate(log_columns)}
        self._record: Any = msgspec.defstruct("Record", fields, rename=rename, gc=False)
        self._places = {name: place for place, name in enumerate(log_columns)}
        kept = self.given.log
        each = (kept.flush_seconds, kept.rotate_seconds, kept.keep_days)
        self.predictions = Log(root / PREDICTIONS, log_columns, *each)
        self.review = Log(root / REVIEW, {**log_columns, **WHY_REVIEWED}, *each)
        self.feedback_log = Log(root / FEEDBACK, {**LABEL, "_label": self.labels.sql_type}, *each)
        self._threads = [
            threading.Thread(target=work, name=work.__name__, daemon=True)
            for work in (self._keep_up, self._shadow)
        ]
        for thread in self._threads:
            thread.start()

    # --- models ---

    def load(self) -> dict[str, str]:
        """Read the models again. What cannot be used is not taken, and what answers until then goes on.

        Requests go on with the old ones until the new ones are in place.

        Returns:
            champion, challenger or baseline -> why it could not be loaded; empty when all is well.
        """
        with self._loading:
            begins, generation = not self.arms, self._generation
            try:
                loaded = self._read()
            except Exception as error:  # whatever it is, the models that work stay
                if begins:
                    raise
                log.exception("the models could not be read")
                loaded = {CHAMPION: type(error).__name__}
            self.unloaded = loaded
        for what, why in loaded.items():
            kept = self.baseline if what == "baseline" else self.arms[what].model
            words = "reload failed, the model before stays" if kept else "model not usable"
            told = {"arm": what, "reason": why, "model": kept.version if kept else None}
            log.error(words, extra=told)
        champion = self.arms[CHAMPION].model
        metrics.models({name: arm.version for name, arm in self.arms.items()}, champion is None)
        metrics.reloaded(not loaded, generation)
        return loaded

    def reload(self) -> dict[str, str]:
        """Read the models again here, and wait until the other workers of this service have done so.

        Returns:
            What `load` does, and worker -> why, for those that could not load them or were not told.
        """
        try:
            self.router.bump()
            self.router.sync()
            self._generation = self.router.generation
        except StoreError as error:  # this worker can do without
            self._say(str(error))
            alone = len(metrics.readings()) < 2
            return self.load() | ({} if alone else {"other workers": f"not told: {error}"})
        return self.load() | metrics.failed_elsewhere(self._generation, RELOAD_SECONDS)

    def _read(self) -> dict[str, str]:
        """Load what the folders have and put in place what works; what does not, and why."""
        reasons: dict[str, str] = {}
        arms = {}
        production = self._production()
        for name, folder in ((CHAMPION, production), (CHALLENGER, self.root / CHALLENGER_FOLDER)):
            before = self.arms.get(name)
            if name == CHALLENGER and not (folder.is_dir() or _tracked(folder)):
                continue
            try:
                arms[name] = self._arm(name, folder)
            except ModelError as error:
                reasons[name] = str(error)
                arms[name] = before if before and before.model else Arm(name, None, str(error))
        champion = arms[CHAMPION]
        known = champion.model
        baseline = self.baseline if CHAMPION in reasons and known else None  # they go together
        if baseline is None:
            try:
                baseline = self._usable(Model(production, "baseline.onnx"))
            except ModelError as error:
                reasons["baseline"] = str(error)
                baseline = self.baseline
        known = known or baseline
        seen = known.manifest.get("label_values", ()) if known else ()
        rows = Rows(self.settings, known.inputs if known else ())
        labels = label_rule(self.settings, seen)
        self.rows, self.labels, self.arms, self.baseline = rows, labels, arms, baseline
        self.router.two = CHALLENGER in arms
        if champion.model:
            self._threshold = champion.model.decision
        return reasons

    def _production(self) -> Path:
        """The folder of the model that answers: the one promoted, or, before there ever was one, the one trained."""
        production = self.root / PRODUCTION
        if production.is_dir():
            self.router.note("promoted")
            return production
        if _tracked(production) or self.router.noted("promoted"):
            return production  # nothing else is served in its place
        if not self.arms:
            log.warning("nothing was promoted yet: the model that was trained last answers")
        return self.root / TRAINED

    def _arm(self, name: str, folder: Path) -> Arm:
        """The model of a folder, timed.

        Raises:
            ModelError: when it cannot be used, whatever is wrong with it.
        """
        if not folder.is_dir():
            raise ModelError(f"{folder}: is not here")
        arm = Arm(name, Model(folder), quick_seconds=self.given.timeout_ms / 20_000)
        assert arm.model is not None
        took: dict[int, float] = {}
        self._usable(arm.model, took)
        arm.quick = took[1] < arm.quick_seconds
        each = max((took[PROBE] - took[1]) / (PROBE - 1), 1e-7)
        arm.few = 1 + int(max(0.0, arm.quick_seconds / 4 - took[1]) / each)
        told = {"arm": name, "model": arm.version.model, "name_": arm.model.name}
        log.info("model loaded", extra=told)
        return arm

    def _usable(self, model: Model, took: dict[int, float] | None = None) -> Model:
        """A model that fits the settings and gives a finite score to a plain row.

        Args:
            took: takes the seconds by number of rows.

        Raises:
            ModelError: one that does not.
        """
        took = {} if took is None else took
        columns = self.settings.data.schema_.columns
        try:
            for one in model.inputs:
                rule = columns.get(one["name"])
                if rule is None or rule.type != one["type"]:
                    has = "has not" if rule is None else f"has as {rule.type}"
                    raise ModelError(
                        f"{model.name}: reads {one['name']} as {one['type']}, which data.schema.columns {has}"
                    )
            if WIDE and model.classes != (here := problem_data.named(self.settings.data.label)):
                raise ModelError(
                    f"{model.name}: tells {', '.join(model.classes)} apart, and data.label.classes names {', '.join(here)}"
                )
            Rows(self.settings, model.inputs)
            label_rule(self.settings, model.manifest.get("label_values", ()))
            row = {
                one["name"]: "" if one["type"] == "category" else one.get("median")
                for one in model.inputs
            }
            for n in (1, PROBE, 1, PROBE):  # the first call is slow whatever comes
                start = time.perf_counter()
                scores = model.score({name: [value] * n for name, value in row.items()})
                took[n] = time.perf_counter() - start
                judged = model.judge(scores[-1].tolist())
                shape = (n, len(model.classes)) if WIDE else (n,)
                if scores.shape != shape or not all(map(math.isfinite, (*scores.flat, judged[0]))):
                    raise ModelError(f"{model.name}: gives no finite score to a plain row")
        except (ModelError, UserError):
            raise
        except Exception as error:  # a graph that does not run, a manifest of another form
            told = " ".join(str(error).split())[:200]
            raise ModelError(f"{model.name}: does not run: {type(error).__name__} {told}") from None
        return model

    @property
    def ready(self) -> bool:
        """Whether requests should come here, by `serving.ready`."""
        if self.given.ready == "any":
            return True
        arm = self.arms[CHAMPION]
        return arm.model is not None and not arm.rests()

    # --- answers ---

    async def answer(self, rows: Sequence[Sequence[Any]], request: str = "") -> list[Answer]:
        """Answer rows as `Rows.checked` gives them, and log what was answered.

        Args:
            request: the id of the request, as it is logged.

        Raises:
            Refused: when a value is odd and the settings refuse such rows.
        """
        start = time.perf_counter()
        flags = self.rows.flags(rows)
        assign, at = self.router.assign, self.rows.at.get(self.router.settings.unit or "")
        drawn = [assign(None if at is None else row[at]) for row in rows]
        experiment = self.router.settings.experiment  # may have another name once rows are scored
        names = {name for name, _, _ in drawn}
        told = (start, request, experiment)
        found: list[Any] = [None] * len(rows)
        if len(names) == 1:
            found = await self._answer(names.pop(), rows, flags, drawn, *told)
        for name in names:
            places = [place for place, one in enumerate(drawn) if one[0] == name]
            own = [rows[at] for at in places]
            odd, chances = [flags[at] for at in places], [drawn[at] for at in places]
            part = await self._answer(name, own, odd, chances, *told)
            for place, one in zip(places, part, strict=True):
                found[place] = one
        if self.router.shadows:
            self._to_shadow(rows, [record for _, record in found])
        return [answer for answer, _ in found]

    async def _answer(
        self,
        name: str,
        rows: Sequence[Sequence[Any]],
        flags: Sequence[list[str]],
        drawn: Sequence[tuple[str, float, bool]],
        start: float,
        request: str,
        experiment: str,
    ) -> list[tuple[Answer, Any]]:
        """One arm's answers, each with what is logged of it."""
        arm = self.arms.get(name) or self.arms[CHAMPION]
        version, model, scores, why = await self._score(arm, rows)
        took = time.perf_counter() - start
        slow = 1000 * took > self._slow
        self.router.record(name, error=bool(why), slow=slow)
        now = datetime.now(UTC).replace(tzinfo=None)
        explores = self.given.exploration if model else 0.0
        odd = [f"answered by the fallback: the model was {why}"] if why else []
        classes = model.classes if model else problem_data.named(self.settings.data.label)
        found, records, total = [], [], 0.0
        for row, row_flags, score, (_, propensity, assigned) in zip(
            rows, flags, scores, drawn, strict=True
        ):
            place, sure, low, high = model.judge(score) if model else self._fixed(score)
            shown = headline(score, sure)
            total += shown
            chance, explored = 1.0, False
            if explores and model:
                many = choices(model.decision)
                place, chance, explored = explore(place, explores, many, self._rng)
            decision = named(place, classes)
            row_flags = row_flags + odd
            around = None if low is None or high is None else (low, high)
            id = self._ids.new(arm.letter)
            told = (shown, decision, sure, around, version, name, bool(why), explored, row_flags)
            chances = by_class(score, classes) or msgspec.UNSET
            record = self._record(
                id,
                *(now, name, propensity, assigned, True, shown, decision, chance, explored),
                *(sure, low, high, why or None, row_flags, 1000 * took),
                *(version.model, version.data, version.code, experiment, request),
                *((score,) if WIDE else ()),
                *self.rows.logged(row),
            )
            self._to_review(record, score, row_flags, arm)
            records.append(record)
            found.append((Answer(id, *told, chances), record))
        metrics.answered(name, why, took, len(scores), total)
        self.predictions.append(encode_lines(records).rstrip(b"\n"))
        return found

    async def _score(
        self, arm: Arm, rows: Sequence[Sequence[Any]]
    ) -> tuple[Version, Model | None, list[Any], str]:
        """The arm's scores, or, with the reason why, those of what stands in for it."""
        scores, why = await self._try(arm, rows)
        if scores:
            return arm.version, arm.model, scores, why
        champion = self.arms[CHAMPION]
        if arm is not champion:
            scores, _ = await self._try(champion, rows)
            if scores:
                return champion.version, champion.model, scores, why
        if self.baseline:
            try:
                scores = self.baseline.score(self.rows.by_column(rows)).tolist()
                if _finite(scores):
                    version = champion.version
                    version = Version(self.baseline.version, version.data, version.code)
                    return version, self.baseline, scores, why
            except Exception:  # whatever it is, a fixed answer is better than none
                log.exception("the baseline failed")
        return Version("fixed", "none", "none"), None, [fixed_score(self.settings)] * len(rows), why

    def _fixed(self, score: Any) -> tuple[float, None, None, None]:
        """What `Model.judge` says of a score, of the one that no model gave."""
        return fixed_decision(score, self.settings, self._threshold), None, None, None

    async def _try(self, arm: Arm, rows: Sequence[Sequence[Any]]) -> tuple[list[Any], str]:
        """The model's scores, or none and what was wrong with it: missing, late or failing."""
        model = arm.model
        if model is None:
            return [], "missing"
        start = time.perf_counter()
        if arm.rests():
            return [], "late"
        try:
            if arm.quick and len(rows) <= arm.few:
                found = await arm.together(rows, self.rows)
            else:
                columns = self.rows.by_column(rows)
                work = asyncio.get_running_loop().run_in_executor(self._pool, model.score, columns)
                found = await asyncio.wait_for(work, self.given.timeout_ms / 1000)
                if len(rows) <= arm.few:
                    arm.quick = time.perf_counter() - start < arm.quick_seconds
            arm.late = 0
        except TimeoutError:
            arm.late += 1
            arm.resting_until = time.perf_counter() + REST_SECONDS
            return [], "late"
        except Exception:  # whatever it is, the caller gets an answer
            log.exception("the model failed", extra={"arm": arm.name})
            return [], "failing"
        scores = found.tolist()
        return (scores, "") if _finite(scores) else ([], "failing")

    def _to_review(self, record: Any, score: Any, flags: list[str], arm: Arm) -> None:
        """Queue for a person what is odd, and what the model was not sure of."""
        why = "; ".join(flags)
        if arm.model and not why:
            why = arm.model.unsure(score, self.settings.scoring.review_margin)
        if why:
            metrics.REVIEWED.inc()
            self.review.append(encode({**self._logged(record), "_why": why}))

    def _logged(self, record: Any) -> dict[str, Any]:
        return dict(zip(self._places, msgspec.structs.astuple(record), strict=True))

    def _to_shadow(self, rows: Sequence[Sequence[Any]], records: list[Any]) -> None:
        if self._handed + len(records) > self._shadowed + WAITING:
            metrics.SHADOW_DROPPED.inc()
            return
        self._handed += len(records)
        self._shadows.put((self.rows.by_column(rows), records))

    def _shadow(self) -> None:
        """Score what the champion answered with the challenger as well, and only log it."""
        while not self._stop.is_set() or not self._shadows.empty():
            try:
                columns, records = self._shadows.get(timeout=0.2)
            except queue.Empty:
                continue
            self._shadowed += len(records)
            arm = self.arms.get(CHALLENGER)
            if arm is None or arm.model is None:
                continue
            model, start, why = arm.model, time.perf_counter(), ""
            try:
                scores = model.score(columns).tolist()
            except Exception:
                log.exception("the shadow failed")
                scores, why = [None] * len(records), "failing"
            took = time.perf_counter() - start
            self.router.record(CHALLENGER, error=bool(why), slow=1000 * took > self._slow)
            for score, record in zip(scores, records, strict=True):
                shown, decision, sure, low, high = (None,) * 5
                if score is not None:
                    place, sure, low, high = model.judge(score)
                    shown, decision = headline(score, sure), model.named(place)
                logged = self._logged(record)
                logged |= {
                    **{"_arm": CHALLENGER, "_answered": False, "_score": shown},
                    **{"_decision": decision, "_confidence": sure, "_low": low, "_high": high},
                    **({SCORE_COLUMN: score} if WIDE else {}),
                    **{"_fallback": why or None, "_latency_ms": 1000 * took},
                    **{"_model": arm.version.model, "_data": arm.version.data},
                    "_code": arm.version.code,
                }
                self.predictions.append(encode(logged))

    # --- what it is ---

    @property
    def classes(self) -> list[str]:
        """The classes that have a score of their own in an answer, in their order; none of other problems."""
        return problem_data.named(self.settings.data.label) if WIDE else []

    @property
    def units(self) -> list[str]:
        """The columns that the router may draw arms by: a row has them, and the log."""
        return list(self.rows.logs)

    def change(self, body: bytes) -> None:
        """Change the router's settings, as JSON has them.

        Raises:
            Refused: what is no change, or one that is not allowed; nothing is changed then.
            StoreError: when the shared state is out of reach.
        """
        if len(body) > MOST_CHANGE:
            raise Refused([Problem("body", f"over {MOST_CHANGE:,} bytes", "less")], 413)
        try:
            changes = _decode_change(body)
        except (ValueError, RecursionError) as error:
            told = first_problem(error, body, "an object with settings of rollout.router")
            raise Refused([told[0]]) from None
        known = self.router.keys
        for key in changes if known else ():
            if key not in known:
                raise Refused(
                    [Problem(key[:80], short(changes[key]), f"one of {', '.join(known)}")]
                )
        unit = changes.get("unit")
        if unit is not None and unit not in self.units:
            raise Refused([Problem("unit", short(unit), f"null or one of {', '.join(self.units)}")])
        try:
            self.router.change(**changes)
        except StoreError:
            raise
        except UserError as error:
            came = body[:80].decode("utf-8", "replace")
            raise Refused([Problem("body", came, str(error)[:500])]) from None
        self.tick()

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
                "logged": name in self.rows.logs,
                "choices": list(one.allowed or seen.get(name, {}).get("categories") or [])[:50],
                # A required text of which training saw too many to list
                "typical": seen.get(name, {}).get("median", "any" if one.required else None),
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
        problems: list[Problem] = []
        for place, one in enumerate(labels):
            if len(problems) >= MOST_TOLD:
                break
            try:
                one.label = self.labels.read(one.label)
            except ValueError as error:
                problems.append(Problem(f"[{place}].label", short(one.label), str(error)))
                continue
            if not self._ids.known(one.id):
                problems.append(Problem(f"[{place}].id", one.id[:80], KNOWN_IDS))
            if one.reward is not None and not 0 <= one.reward <= 1:
                problems.append(Problem(f"[{place}].reward", one.reward, "between 0 and 1"))
            if one.label is None and one.reward is None:
                problems.append(Problem(f"[{place}]", None, "a label or a reward"))
        if problems:
            raise Refused(problems)
        now = datetime.now(UTC).replace(tzinfo=None)
        for one in labels:
            reward = self.labels.reward(one.label) if one.reward is None else one.reward
            if reward is not None:
                arm = ARMS["ab".index(one.id[0])]
                self.router.reward(one.id, arm, reward, alone=one.label is None)
            record = {"_id": one.id, "_time": now, "_label": one.label, "_reward": reward}
            self.feedback_log.append(encode(record))
        metrics.FEEDBACK.inc(len(labels))

    # --- in the background ---

    def _keep_up(self) -> None:
        while not self._stop.wait(TICK):
            try:
                self.tick()
            except Exception:  # a thread that dies would leave the service deaf
                log.exception("could not keep up")

    def tick(self) -> None:
        """Bring in what others changed, and write what was counted here."""
        try:
            self.router.sync()
            self._say("")
        except StoreError as error:  # the rest does not need it
            self._say(str(error))
        finally:
            logs = (self.predictions, self.review, self.feedback_log)
            metrics.state(self.router.share, list(logs))
        if self.router.generation != self._generation:
            self._generation = self.router.generation
            self.load()

    def _say(self, reason: str) -> None:
        """Log what the router's state lacks, when that is something else than before."""
        if reason == self._said:
            return
        self._said = reason
        if reason:
            log.error("router state out of reach: what was counted waits", extra={"reason": reason})
        else:
            log.info("router state within reach again")

    def close(self) -> None:
        """Write everything that waits; what fails keeps nothing else from being written."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)
        logs = (self.predictions, self.review, self.feedback_log)
        until = time.monotonic() + TIDY_SECONDS

        def wait(for_log: Log) -> None:
            for_log.close(max(0.0, until - time.monotonic()))

        waits = (partial(wait, one) for one in logs)
        tasks: list[Callable[[], object]] = [*(one.stop for one in logs), self.router.sync, *waits]
        for work in tasks:
            try:
                work()
            except Exception as error:
                told = {"reason": " ".join(str(error).split()) or type(error).__name__}
                log.error("not all could be written", extra=told)


def _finite(scores: Sequence[Any]) -> bool:
    """Whether all scores of all rows are numbers."""
    return all(map(math.isfinite, itertools.chain.from_iterable(scores) if WIDE else scores))


def prepared(root: Path) -> None:
    """Make the folders that the service writes to.

    Raises:
        UserError: when one of them cannot be written; a full disk may have room later.
    """
    for name in FOLDERS:
        folder = root / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            if error.errno not in FORBIDDEN:
                continue
            who = f" by user {os.getuid()}" if hasattr(os, "getuid") else ""
            raise UserError(
                f"{folder}: cannot be written{who} ({error.strerror}), and answers are logged there: "
                f"give this user the folder, or mount one that it may write to"
            ) from None


def _tracked(folder: Path) -> bool:
    """Whether DVC has a record of a folder, so that there should be one."""
    return folder.with_name(f"{folder.name}.dvc").is_file()
