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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import numpy as np

from .. import images
from ..data.label_rule import label_rule
from ..data.schema import other_form
from ..model import MAX_CHARACTERS, Array, Model, ModelError, SessionChoice, band_of
from ..parts import optional_module, part_module
from ..paths import CHALLENGER as CHALLENGER_FOLDER
from ..paths import FEEDBACK, PREDICTIONS, PRODUCTION, REVIEW, TRAINED
from ..problem import LISTED, REASONS, WIDE
from ..problem import data as problem_data
from ..problem.decision import arranged, by_class, choices, headline, named
from ..problem.goals import fixed_decision, fixed_score
from ..records import ANSWER, FOLDERS, LABEL, SCORE_COLUMN, WHY_REVIEWED, WITHHELD
from ..scoring import rules
from ..scoring.state import ARMS, StoreError
from ..settings import Settings, UserError
from . import ids, metrics
from .bounded import MAX_PROBLEMS, Problem, Refused, clip, first_problem, list_decoder, members
from .explained import Explaining, Explanation
from .log import Log
from .online import OnlineStore
from .routing import CHALLENGER, CHAMPION, explore, make_router
from .rows import Rows

RECOMMEND = optional_module("serving.recommend")  # None: no lists of items are answered
OVERSIGHT = part_module("governance.oversight")  # None: nobody stops the model or excludes rows
RETIRED = part_module("governance.retired")  # None: nothing is ever retired
TIDY_SECONDS = 6.0  # that logs may take to become Parquet when the service stops
TICK_SECONDS = 0.5  # seconds between looks at what others changed
RELOAD_SECONDS = 20.0  # that `/reload` waits for the other workers
MAX_LATE = 3  # late answers in a row, after which a model rests
REST_SECONDS = 5.0
PREDICTING = ("/predict", "/forecast", "/recommend")  # and what ends in /infer
PROBE_ROWS = 64  # rows by which a model is timed when it is loaded
# What it is timed with and shown by, where training has no plain value
PLAIN = {"category": "", "text": "a " * (MAX_CHARACTERS // 2)}
# Of a single grey pixel: the smallest PNG
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
EXAMPLES = {"text": "any text", "image": PIXEL, "history": "[1, null, 2]"}
# Texts, and images, that `timeout_ms` is meant for; a request of more may take as much longer
TEXTS_IN_TIME, IMAGES_IN_TIME = 100, 10
MAX_PROBE_SECONDS = 0.1  # that a single row takes, beyond which no more of them are timed
# Images that are decoded on the event loop: no more, longer or larger ones, since that takes a few milliseconds
QUICK_IMAGES, QUICK_CHARACTERS, QUICK_PIXELS = 4, 100_000, 100_000
MAX_IMAGE_BODIES = 16  # of the largest that is allowed: so much of images waits to be decoded
MAX_CHANGE_BYTES = 10_000  # bytes of a change of the router's settings
ALLOWED_IDS = "an id that this service gave an answer; labels of others: `feedback FILE`"
MAX_SHADOW_ROWS = 20_000  # that a shadow may be behind; MAX_CHARACTERS of texts count as another
DENIED_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)

Note = tuple[list[str], str]  # of a row: its flags, and the rule that holds of it, or ""

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
    classes have scores; `score` is then that of the decision. `reasons`: the columns that stand out, where
    answers name some. `rank`: the place in its list, from 1, where rows are answered by list; so is then the
    decision. `explanation`: what each column adds to the score, where that was asked for; null where nothing tells.
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
    reasons: list[str] | msgspec.UnsetType = msgspec.UNSET
    rank: int | msgspec.UnsetType = msgspec.UNSET
    explanation: Explanation | msgspec.UnsetType | None = msgspec.UNSET


class ColumnDescription(TypedDict):
    """What `/model` says of a column that a row may have."""

    name: str
    type: str
    allowed: str  # in words
    used: bool  # whether the model reads it
    logged: bool
    choices: list[str]  # at most fifty
    typical: Any  # a value as training had many, None where it has no single one


class Label(msgspec.Struct, forbid_unknown_fields=True):
    """What came true of a prediction. `reward` (0 to 1) is what a bandit learns from."""

    id: str
    label: float | str | bool | None = None
    reward: float | None = None


def read_labels(body: bytes, limit: int) -> list[Label]:
    """The labels of a request's body, JSON.

    Args:
        limit: how many there may be.

    Raises:
        Refused: when it is no label and no list of them, or more than `limit`.
    """
    try:
        if body.count(b"{") > limit and body.lstrip()[:1] == b"[":
            return members(list_decoder(limit, Label)(body))
        decoded = _decode_labels(body)
    except (ValueError, RecursionError, OverflowError) as error:
        allowed = f"an object with id and label, reward or both, or a list of 1 to {limit} such"
        raise Refused([first_problem(error, body, allowed)[0]]) from None
    return decoded if isinstance(decoded, list) else [decoded]


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
        self.quick_rows = 1  # rows up to which it is
        self.late_answers = 0
        self.resting_until = 0.0
        self.waiting: list[tuple[Sequence[Sequence[Any]], asyncio.Future[Array]]] = []
        self.letter = "ab"[ARMS.index(name)]
        self.explainer: Any = None  # of `analysis.reasons`, where answers are explained
        self.explains_quickly = False  # enough to do so without leaving the event loop
        self.version = Version("none", "none", "none")
        if model:
            manifest = model.manifest
            self.version = Version(
                model.version,
                str(manifest.get("data_version"))[:12],
                str(manifest.get("code_version"))[:12],
            )

    def is_resting(self) -> bool:
        """Whether it was late so often that it is left alone for a while."""
        return self.late_answers >= MAX_LATE and time.perf_counter() < self.resting_until

    def score_together(self, rows: Sequence[Sequence[Any]], schema: Rows) -> asyncio.Future[Array]:
        """The scores of these rows, shape (n,) or (n, classes), made with those of all requests that wait by then.

        Args:
            rows: as `Rows.check` gives them.
            schema: what they are rows of.
        """
        loop = asyncio.get_running_loop()
        if not self.waiting:
            loop.call_soon(self._score_waiting, schema)
        future: asyncio.Future[Array] = loop.create_future()
        self.waiting.append((rows, future))
        return future

    def _score_waiting(self, schema: Rows) -> None:
        # As many as are quick together; the others' turn comes after what else the event loop has to do
        sizes = itertools.accumulate(len(rows) for rows, _ in self.waiting)
        count = max(1, sum(size <= self.quick_rows for size in sizes))
        waiting, self.waiting = self.waiting[:count], self.waiting[count:]
        self._score_requests(waiting, schema)
        if self.waiting:
            asyncio.get_running_loop().call_soon(self._score_waiting, schema)

    def _score_requests(
        self,
        waiting: list[tuple[Sequence[Sequence[Any]], asyncio.Future[Array]]],
        schema: Rows,
    ) -> None:
        assert self.model is not None
        start, start_row = time.perf_counter(), 0
        try:
            rows = [row for rows, _ in waiting for row in rows]
            scores = self.model.score(schema.by_column(rows))
        except Exception as error:
            if len(waiting) > 1:  # the others need not suffer with it
                for request in waiting:
                    self._score_requests([request], schema)
            elif not waiting[0][1].cancelled():
                waiting[0][1].set_exception(error)
            return
        self.quick = time.perf_counter() - start < self.quick_seconds
        for request_rows, future in waiting:
            if not future.cancelled():
                future.set_result(scores[start_row : start_row + len(request_rows)])
            start_row += len(request_rows)


class Service:
    """Answers rows, takes feedback, and keeps itself up to date.

    Args:
        root: the project's folder, with the models, the logs and the router's state.
        guarded: whether callers have to show a secret, as the OpenAPI document says.

    Raises:
        UserError: when the settings do not fit, as a secret key that is missing.
    """

    def __init__(self, settings: Settings, root: Path, guarded: bool = False) -> None:
        self.settings, self.root, self.guarded = settings, root, guarded
        self.serving = settings.serving
        self.name = settings.project.slug
        self._rng = random.Random()
        self._ids = ids.Ids(ids.secret(root))
        self._pool = ThreadPoolExecutor(4, "model")
        # One request after the other: large images take half a gigabyte while they are decoded
        self._image_pool = ThreadPoolExecutor(1, "images")
        self.explaining = Explaining(self.serving)
        self._image_bytes = 0  # of the images that wait for it
        self._image_folder = root / self.serving.images if self.serving.images else None
        file = settings.scoring.online_store
        self.store = OnlineStore(root / file, settings) if file else None
        self.nearest = RECOMMEND.nearest_items(settings, root) if RECOMMEND else None
        self._shadows: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # Rows handed to the shadow's thread, and of them those begun
        self._shadow_queued = self._shadow_begun = 0
        self._stop = threading.Event()
        self._loading = threading.Lock()
        targets = settings.goals.targets
        self.router = make_router(settings, root)
        hardware = settings.scoring.hardware
        self._session = SessionChoice(hardware.graph, hardware.provider)
        self._slow_ms = targets.latency_p99_ms or float("inf")
        self.arms: dict[str, Arm] = {}
        self.baseline: Model | None = None
        self.unloaded: dict[str, str] = {}  # what the folders have and could not be loaded -> why
        self.retired = ""  # when, by whom and why nothing answers any more
        self._threshold: Any = None  # by which the last model that worked decided
        self._reported = ""  # what the router's state was last said to lack
        self._generation = self.router.generation
        self.load()
        # What people took out of the models' hands
        self.oversight = OVERSIGHT and OVERSIGHT.Oversight(settings, root, metrics.set_stopped)
        log_columns = {**ANSWER, **self.rows.sql_types()}
        # A record's keys are the same in each, and known beforehand: five times as fast as a dict
        fields = [(f"f{i}", Any) for i in range(len(log_columns))]
        rename = {f"f{i}": name for i, name in enumerate(log_columns)}
        self._record: Any = msgspec.defstruct("Record", fields, rename=rename, gc=False)
        self._log_columns = tuple(log_columns)
        label_columns = {**LABEL, "_label": self.label_rule.sql_type}
        options = self.serving.log
        periods = (options.flush_seconds, options.rotate_seconds, options.keep_days)
        self.predictions = Log(root / PREDICTIONS, log_columns, *periods)
        self.review = Log(root / REVIEW, {**log_columns, **WHY_REVIEWED}, *periods)
        self.feedback_log = Log(root / FEEDBACK, label_columns, *periods)
        self._threads = [
            threading.Thread(target=loop, name=loop.__name__, daemon=True)
            for loop in (self._keep_up, self._shadow)
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
            first_load, generation = not self.arms, self._generation
            try:
                failures = self._load_models()
            except Exception as error:  # whatever it is, the models that work stay
                if first_load:
                    raise
                log.exception("the models could not be read")
                failures = {CHAMPION: type(error).__name__}
            self.unloaded = failures
        for arm, reason in failures.items():
            model = self.baseline if arm == "baseline" else self.arms[arm].model
            message = "reload failed, the model before stays" if model else "model not usable"
            details = {"arm": arm, "reason": reason, "model": model.version if model else None}
            log.error(message, extra=details)
        champion = self.arms[CHAMPION].model
        metrics.set_models({name: arm.version for name, arm in self.arms.items()}, champion is None)
        metrics.count_reload(not failures, generation)
        return failures

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
            self._report(str(error))
            only_worker = len(metrics.model_readings()) < 2
            return self.load() | ({} if only_worker else {"other workers": f"not told: {error}"})
        return self.load() | metrics.failed_workers(self._generation, RELOAD_SECONDS)

    def _load_models(self) -> dict[str, str]:
        """Load what the folders have and put in place what works; what does not, and why."""
        failures: dict[str, str] = {}
        arms = {}
        self.retired = RETIRED.sentence(self.root) if RETIRED else ""
        production = self._production()
        for name, folder in ((CHAMPION, production), (CHALLENGER, self.root / CHALLENGER_FOLDER)):
            current = self.arms.get(name)
            if name == CHALLENGER and not (folder.is_dir() or _tracked(folder)):
                continue
            try:
                arms[name] = self._load_arm(name, folder)
            except ModelError as error:
                failures[name] = str(error)
                arms[name] = current if current and current.model else Arm(name, None, str(error))
        champion = arms[CHAMPION]
        reference = champion.model
        baseline = self.baseline if CHAMPION in failures and reference else None  # they go together
        if baseline is None:
            try:
                baseline = self._check_model(
                    Model(production, "baseline.onnx", session=self._session)
                )
            except ModelError as error:
                failures["baseline"] = str(error)
                baseline = self.baseline
        reference = reference or baseline
        label_values = reference.manifest.get("label_values", ()) if reference else ()
        rows = Rows(self.settings, reference.inputs if reference else (), self.store)
        rules.check(rows.types, problem_data.named(self.settings.data.label))
        rule = label_rule(self.settings, label_values)
        self.rows, self.label_rule, self.arms, self.baseline = rows, rule, arms, baseline
        self.router.challenged = CHALLENGER in arms
        if champion.model:
            self._threshold = champion.model.decision
        return failures

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

    def _load_arm(self, name: str, folder: Path) -> Arm:
        """The model of a folder, timed.

        Raises:
            ModelError: when it cannot be used, whatever is wrong with it.
        """
        if not folder.is_dir():
            raise ModelError(f"{folder}: is not here")
        model = Model(folder, session=self._session)
        arm = Arm(name, model, quick_seconds=self.serving.timeout_ms / 20_000)
        assert arm.model is not None
        seconds: dict[int, float] = {}
        self._check_model(arm.model, seconds)
        arm.quick = seconds[1] < arm.quick_seconds
        row_seconds = max((seconds[PROBE_ROWS] - seconds[1]) / (PROBE_ROWS - 1), 1e-7)
        arm.quick_rows = 1 + int(max(0.0, arm.quick_seconds / 4 - seconds[1]) / row_seconds)
        arm.explainer = self.explaining.load(folder, arm.model)
        details = {"arm": name, "model": arm.version.model, "name_": arm.model.name}
        log.info("model loaded", extra=details)
        return arm

    def _check_model(self, model: Model, seconds: dict[int, float] | None = None) -> Model:
        """A model that fits the settings and gives a finite score to a plain row.

        Args:
            seconds: takes the time by number of rows.

        Raises:
            ModelError: one that does not.
        """
        seconds = {} if seconds is None else seconds
        columns = self.settings.data.schema_.columns
        try:
            for entry in model.inputs:
                column = columns.get(entry["name"])
                if column is None or column.type != entry["type"]:
                    mismatch = "has not" if column is None else f"has as {column.type}"
                    raise ModelError(
                        f"{model.name}: reads {entry['name']} as {entry['type']}, which data.schema.columns {mismatch}"
                    )
            if fault := other_form(self.settings, model.images):
                raise ModelError(fault)
            if WIDE and model.classes != (classes := problem_data.named(self.settings.data.label)):
                raise ModelError(
                    f"{model.name}: tells {', '.join(model.classes)} apart, and data.label.classes names {', '.join(classes)}"
                )
            Rows(self.settings, model.inputs)
            label_rule(self.settings, model.manifest.get("label_values", ()))
            row: dict[str, Any] = {
                entry["name"]: PLAIN.get(entry["type"], entry.get("median"))
                for entry in model.inputs
            }
            row |= {name: images.noise(form) for name, form in model.images.items()}
            for n in (1, PROBE_ROWS, 1, PROBE_ROWS):  # the first call is slow whatever comes
                if n > 1 and seconds[1] > MAX_PROBE_SECONDS:
                    seconds[n] = n * seconds[1]
                    continue
                start = time.perf_counter()
                probe_columns = {name: [value] * n for name, value in row.items()}
                scores = model.score(probe_columns)
                seconds[n] = time.perf_counter() - start
                bands = model.bands(probe_columns)
                judged = model.judge(scores[-1].tolist(), band_of(bands, n - 1))
                if LISTED:
                    model.arranged(scores, [""] * n, [""] * n)
                shape = (n, len(model.classes)) if WIDE else (n,)
                if scores.shape != shape or not all(map(math.isfinite, (*scores.flat, judged[0]))):
                    raise ModelError(f"{model.name}: gives no finite score to a plain row")
        except (ModelError, UserError):
            raise
        except Exception as error:  # a graph that does not run, a manifest of another form
            text = " ".join(str(error).split())[:200]
            raise ModelError(f"{model.name}: does not run: {type(error).__name__} {text}") from None
        return model

    @property
    def ready(self) -> bool:
        """Whether requests should come here, by `serving.ready`."""
        arm = self.arms[CHAMPION]
        return self.serving.ready == "any" or (arm.model is not None and not arm.is_resting())

    # --- answers ---

    def gone(self, path: str) -> tuple[int, str, list[Any]] | None:
        """Why a request for predictions is refused before it is read: the system was retired; None while it is in use."""
        if self.retired and (path in PREDICTING or path.endswith("/infer")):
            return 410, self.retired, []
        return None

    async def explain(self, rows: Sequence[list[Any]], request: str = "") -> list[Answer]:
        """As `answer`, each with its reasons.

        Raises:
            Refused: as `answer`, or when too many rows wait to be explained.
        """
        with self.explaining.admitted(len(rows)):
            arms, schema = self.arms, self.rows
            answers = await self.answer(rows, request)
            await self.explaining.add(answers, [schema.by_column([row]) for row in rows], arms)
        return answers

    async def answer(self, rows: Sequence[list[Any]], request: str = "") -> list[Answer]:
        """Answer rows as `Rows.check` gives them, and log what was answered.

        Args:
            request: the id of the request, as it is logged.

        Raises:
            Refused: when a value is odd and the settings refuse such rows, or one is no image.
        """
        start = time.perf_counter()
        if self.rows.images:
            await self._store_images(rows)
        notes = self._by_rules(rows, self.rows.flags(rows))
        # The experiment may have another name once rows are scored
        common = (start, request, self.router.settings.experiment)
        ways = [rules.ANSWERED if rules.answers(rule) else "" for _, rule in notes]
        if self.oversight:
            ways = self.oversight.withheld(ways, rows, self.rows)
        if not any(ways):
            return await self._ask(rows, notes, common)
        answers: dict[int, Answer] = {}
        for way in sorted(set(ways), reverse=True):  # models last
            indices = [i for i in range(len(rows)) if ways[i] == way]
            part = [rows[i] for i in indices], [notes[i] for i in indices]
            if way == rules.ANSWERED:
                answered = self._settle(*part, common)
            else:
                answered = await (
                    self._withhold(way, *part, common) if way else self._ask(*part, common)
                )
            answers |= zip(indices, answered, strict=True)
        return [answers[i] for i in range(len(rows))]

    def _by_rules(self, rows: Sequence[list[Any]], flags: Sequence[list[str]]) -> list[Note]:
        """The flags of rows, and the rule that holds of each."""
        if not rules.RULES:
            return [(row_flags, "") for row_flags in flags]
        columns = rules.as_arrays(self.rows.by_column(rows), self.rows.types)
        notes = list(zip(flags, rules.held(columns, len(rows)).tolist(), strict=True))
        for row_flags, rule in notes:
            if rule:
                metrics.RULES.labels(rule).inc()
            if rule and not rules.answers(rule):
                row_flags.append(rules.flag(rule))  # for a person
        return notes

    def _settle(
        self, rows: Sequence[list[Any]], notes: Sequence[Note], common: tuple[float, str, str]
    ) -> list[Answer]:
        """The answers of rows that rules settle; no model is asked."""
        classes, champion = problem_data.named(self.settings.data.label), self.arms[CHAMPION]
        pairs = [rules.answer_of(rule, classes) for _, rule in notes]
        version = Version(rules.ANSWERED, champion.version.data, champion.version.code)
        scored, draws = (version, None, [score for score, _ in pairs], ""), [(CHAMPION, 1.0, False)]
        slots = [(decided, 1.0, False) for _, decided in pairs]
        answered = self._to_answers(
            CHAMPION, scored, rows, notes, draws * len(rows), slots, *common
        )
        return [answer for answer, _ in answered]

    async def _withhold(
        self,
        reason: str,
        rows: Sequence[list[Any]],
        notes: Sequence[Note],
        common: tuple[float, str, str],
    ) -> list[Answer]:
        """The fallback's answers to rows that people took out of the models' hands, whatever the router draws."""
        scored = await self._stand_in(self.arms[CHAMPION], rows, reason)
        slots = self._slots(scored[1], scored[2], rows, 0.0) if LISTED else None
        draws = [(CHAMPION, 1.0, False)] * len(rows)
        answered = self._to_answers(CHAMPION, scored, rows, notes, draws, slots, *common)
        return [answer for answer, _ in answered]

    async def _ask(
        self, rows: Sequence[list[Any]], notes: Sequence[Note], common: tuple[float, str, str]
    ) -> list[Answer]:
        """The answers of rows that no rule settles: those of the models that are drawn."""
        draws = self._draw_arms(rows)
        names = {name for name, _, _ in draws}
        answered: list[Any] = [None] * len(rows)
        if self.router.interleaves:
            return await self._interleaved(rows, notes, common)
        if len(names) == 1:
            answered = await self._answer(names.pop(), rows, notes, draws, *common)
        for name in names:
            indices = [i for i, draw in enumerate(draws) if draw[0] == name]
            arm_rows = [rows[i] for i in indices]
            arm_notes, arm_draws = [notes[i] for i in indices], [draws[i] for i in indices]
            arm_answers = await self._answer(name, arm_rows, arm_notes, arm_draws, *common)
            for i, pair in zip(indices, arm_answers, strict=True):
                answered[i] = pair
        if self.router.shadows:
            self._queue_shadow(rows, [record for _, record in answered])
        return [answer for answer, _ in answered]

    def _draw_arms(self, rows: Sequence[Sequence[Any]]) -> list[tuple[str, float, bool]]:
        """For each row an arm, its chance, and whether there was anything to draw; all rows of a list have the same."""
        assign, unit = self.router.assign, self.rows.positions.get(self.router.settings.unit or "")
        if not LISTED:
            return [assign(None if unit is None else row[unit]) for row in rows]
        lists, _ = self.rows.lists(rows)
        by_list: dict[Any, tuple[str, float, bool]] = {}
        for key, row in zip(lists, rows, strict=True):
            if key not in by_list:
                by_list[key] = assign(key if unit is None else row[unit])
        return [by_list[key] for key in lists]

    async def _interleaved(
        self,
        rows: Sequence[list[Any]],
        notes: Sequence[Note],
        common: tuple[float, str, str],
    ) -> list[Answer]:
        """Answer lists that both models fill by turns: each row is the arm's that placed it."""
        scored = {name: await self._score(self.arms[name], rows) for name in (CHAMPION, CHALLENGER)}
        lists, topics = self.rows.lists(rows)
        slots: dict[str, list[int]] = {}
        for name, (_, model, scores, _) in scored.items():
            arrange = model.arranged if model else _arranged_as_given
            slots[name] = arrange(np.array(scores), lists, topics)[0].tolist()
        merged, teams = self.router.interleave(lists, *slots.values())
        answered: list[Any] = [None] * len(rows)
        for name, (version, model, scores, reason) in scored.items():
            indices = [i for i, team in enumerate(teams) if team == name]
            arm_scored = version, model, [scores[i] for i in indices], reason
            answers = self._to_answers(
                name,
                arm_scored,
                [rows[i] for i in indices],
                [notes[i] for i in indices],
                [(name, 0.5, True)] * len(indices),
                [(merged[i], 1.0, False) for i in indices],
                *common,
            )
            for i, (answer, _) in zip(indices, answers, strict=True):
                answered[i] = answer
        return answered

    async def _store_images(self, rows: Sequence[list[Any]]) -> None:
        """Bring the images of a request into their stored form: a few small ones at once, others by another thread.

        Raises:
            Refused: what is no image, or too many pixels; 503 when too many images wait.
        """
        schema, folder = self.rows, self._image_folder
        values = [row[i] for row in rows for i in schema.images if row[i]]
        if not values:
            return
        size = sum(map(len, values))
        is_short = folder is None and len(values) <= QUICK_IMAGES and size <= QUICK_CHARACTERS
        if is_short and schema.measure_images(rows, None) <= QUICK_PIXELS:
            schema.store_images(rows, None, with_pixels=True)
            return
        if self._image_bytes + size > MAX_IMAGE_BODIES * schema.max_body:
            raise Refused([Problem("rows", "images, and too many wait", "a later try")], 503)

        def decode() -> None:
            schema.measure_images(rows, folder)
            schema.store_images(rows, folder)

        self._image_bytes += size
        try:
            await asyncio.get_running_loop().run_in_executor(self._image_pool, decode)
        finally:
            self._image_bytes -= size

    async def _answer(
        self,
        name: str,
        rows: Sequence[Sequence[Any]],
        notes: Sequence[Note],
        draws: Sequence[tuple[str, float, bool]],
        start: float,
        request: str,
        experiment: str,
    ) -> list[tuple[Answer, Any]]:
        """One arm's answers, each with what is logged of it."""
        arm = self.arms.get(name) or self.arms[CHAMPION]
        scored = await self._score(arm, rows)
        share = self.serving.exploration
        decided = self._slots(scored[1], scored[2], rows, share) if LISTED else None
        return self._to_answers(
            name, scored, rows, notes, draws, decided, start, request, experiment
        )

    def _slots(
        self,
        model: Model | None,
        scores: list[Any],
        rows: Sequence[Sequence[Any]],
        exploration: float,
    ) -> list[tuple[float, float, bool]]:
        """The place of each row in its list, the chance of it, and whether it was drawn."""
        share, draws = exploration if model else 0.0, None
        if share:
            draws = np.array([self._rng.random() for _ in range(2 * len(rows))])
        arrange = model.arranged if model else _arranged_as_given
        slots, chances = arrange(np.array(scores), *self.rows.lists(rows), share, draws)
        pairs = zip(slots.tolist(), chances.tolist(), strict=True)
        return [(slot, chance, chance <= share / 2) for slot, chance in pairs]

    def _to_answers(
        self,
        name: str,
        scored: tuple[Version, Model | None, list[Any], str],
        rows: Sequence[Sequence[Any]],
        notes: Sequence[Note],
        draws: Sequence[tuple[str, float, bool]],
        slots: Sequence[tuple[float, float, bool]] | None,
        start: float,
        request: str,
        experiment: str,
    ) -> list[tuple[Answer, Any]]:
        """The answers of one arm from what it scored, each with what is logged of it.

        Args:
            slots: of rows that are answered by list, as `_slots` gives them.
        """
        arm = self.arms.get(name) or self.arms[CHAMPION]
        version, model, scores, reason = scored
        seconds = time.perf_counter() - start
        fallback, is_settled = bool(reason), version.model == rules.ANSWERED
        is_withheld = reason in WITHHELD
        if not is_settled and not is_withheld:
            self.router.record(name, error=fallback, slow=1000 * seconds > self._slow_ms)
        now = datetime.now(UTC).replace(tzinfo=None)
        share = self.serving.exploration if model and not is_withheld else 0.0
        fallback_flags = [_fallback_flag(reason)] if reason else []
        classes = model.classes if model else problem_data.named(self.settings.data.label)
        judge = model.judge if model else self._fixed_decision
        by_column = self.rows.by_column(rows) if model and model.scale else {}
        bands = model.bands(by_column) if model else None
        answered, records, total = [], [], 0.0
        reasons = self._reasons(model, rows)
        for i, (row, note, model_score, (_, propensity, assigned), row_reasons) in enumerate(
            zip(rows, notes, scores, draws, reasons, strict=True)
        ):
            odd, rule = note
            band = band_of(bands, i)
            decided, confidence, low, high = judge(model_score, band)
            score = headline(model_score, confidence)
            total += score
            p_decision, explored = 1.0, False
            if slots:
                decided, p_decision, explored = slots[i]
            elif share and model:
                n_choices = choices(model.decision)
                decided, p_decision, explored = explore(decided, share, n_choices, self._rng)
            decision = named(decided, classes)
            row_flags = odd + ([rules.flag(rule)] if is_settled else fallback_flags)
            interval = None if low is None or high is None else (low, high)
            id = self._ids.new(arm.letter)
            values = (score, decision, confidence, interval, version, name, fallback, explored)
            class_scores = by_class(model_score, classes) or msgspec.UNSET
            record = self._record(
                id,
                *(now, name, propensity, assigned, True, score, decision, p_decision, explored),
                *(confidence, low, high, reason or None, row_flags, 1000 * seconds),
                *(version.model, version.data, version.code, experiment, request, rule or None),
                *((model_score,) if WIDE else ()),
                *((row_reasons,) if REASONS else ()),
                *self.rows.to_log(row),
            )
            if odd or not is_settled:
                self._queue_review(record, model_score, row_flags, arm, band)
            records.append(record)
            rank = int(decided) if LISTED else msgspec.UNSET
            answered.append(
                (Answer(id, *values, row_flags, class_scores, row_reasons, rank), record)
            )
        if not is_settled:
            metrics.count_answers(name, reason, seconds, len(scores), total)
        self.predictions.append(encode_lines(records).rstrip(b"\n"))
        return answered

    def _reasons(self, model: Model | None, rows: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """The columns that stand out in each row; unset where answers name none."""
        if not REASONS:
            return [msgspec.UNSET] * len(rows)
        return model.reasons(self.rows.by_column(rows)) if model else [[]] * len(rows)

    async def _score(
        self, arm: Arm, rows: Sequence[Sequence[Any]]
    ) -> tuple[Version, Model | None, list[Any], str]:
        """The arm's scores, or, with the reason why, those of what stands in for it."""
        scores, reason = await self._try_model(arm, rows)
        if scores:
            return arm.version, arm.model, scores, reason
        champion = self.arms[CHAMPION]
        if arm is not champion:
            scores, _ = await self._try_model(champion, rows)
            if scores:
                return champion.version, champion.model, scores, reason
        return await self._stand_in(arm, rows, reason)

    async def _stand_in(
        self, arm: Arm, rows: Sequence[Sequence[Any]], reason: str
    ) -> tuple[Version, Model | None, list[Any], str]:
        """The scores of the baseline, or fixed ones where it has none either."""
        if self.baseline:
            try:
                if _is_slow(self.baseline) and len(rows) > arm.quick_rows:
                    output = await self._score_aside(self.baseline, rows)
                else:
                    output = self.baseline.score(self.rows.by_column(rows))
                scores = output.tolist()
                if _finite(scores):
                    version = self.arms[CHAMPION].version
                    version = Version(self.baseline.version, version.data, version.code)
                    return version, self.baseline, scores, reason
            except TimeoutError:
                log.error("the baseline was late")
            except Exception:  # whatever it is, a fixed answer is better than none
                log.exception("the baseline failed")
        fixed = [fixed_score(self.settings)] * len(rows)
        return Version("fixed", "none", "none"), None, fixed, reason

    def _fixed_decision(self, score: Any, band: Any = None) -> tuple[float, None, None, None]:
        """What `Model.judge` says of a score, of the one that no model gave."""
        return fixed_decision(score, self.settings, self._threshold), None, None, None

    async def _try_model(self, arm: Arm, rows: Sequence[Sequence[Any]]) -> tuple[list[Any], str]:
        """The model's scores, or none and what was wrong with it: missing, late or failing."""
        model = arm.model
        if model is None:
            return [], "missing"
        start = time.perf_counter()
        if arm.is_resting():
            return [], "late"
        try:
            if arm.quick and len(rows) <= arm.quick_rows:
                output = await arm.score_together(rows, self.rows)
            else:
                output = await self._score_aside(model, rows)
                if len(rows) <= arm.quick_rows:
                    arm.quick = time.perf_counter() - start < arm.quick_seconds
            arm.late_answers = 0
        except TimeoutError:
            arm.late_answers += 1
            arm.resting_until = time.perf_counter() + REST_SECONDS
            return [], "late"
        except Exception:  # whatever it is, the caller gets an answer
            log.exception("the model failed", extra={"arm": arm.name})
            return [], "failing"
        scores = output.tolist()
        return (scores, "") if _finite(scores) else ([], "failing")

    async def _score_aside(self, model: Model, rows: Sequence[Sequence[Any]]) -> Array:
        """A model's scores of these rows, made by another thread than the event loop's.

        Raises:
            TimeoutError: when they take too long.
        """
        seconds = self.serving.timeout_ms / 1000
        if _is_slow(model):
            in_time = IMAGES_IN_TIME if model.images else TEXTS_IN_TIME
            seconds *= max(1.0, len(rows) / in_time)
        columns = self.rows.by_column(rows)
        task = asyncio.get_running_loop().run_in_executor(self._pool, model.score, columns)
        return await asyncio.wait_for(task, seconds)

    def _queue_review(
        self,
        record: Any,
        score: Any,
        flags: list[str],
        arm: Arm,
        band: tuple[float, float] | None,
    ) -> None:
        """Queue for a person what is odd, and what the model was not sure of."""
        reason = "; ".join(flags)
        if arm.model and not reason:
            reason = arm.model.unsure(score, self.settings.scoring.review_margin, band)
        if reason:
            metrics.REVIEWED.inc()
            self.review.append(encode({**self._as_dict(record), "_why": reason}))

    def _as_dict(self, record: Any) -> dict[str, Any]:
        """A record of the log, as column -> value."""
        return dict(zip(self._log_columns, msgspec.structs.astuple(record), strict=True))

    def _queue_shadow(self, rows: Sequence[Sequence[Any]], records: list[Any]) -> None:
        long = (*self.rows.texts, *self.rows.images)
        rows = self.rows.without_pixels(rows)
        texts = (row[i] or "" for row in rows for i in long)
        size = len(records) + sum(map(len, texts)) // MAX_CHARACTERS
        if self._shadow_queued + size > self._shadow_begun + MAX_SHADOW_ROWS:
            metrics.SHADOW_DROPPED.inc()
            return
        self._shadow_queued += size
        self._shadows.put((self.rows.by_column(rows), records, size))

    def _shadow(self) -> None:
        """Score what the champion answered with the challenger as well, and only log it."""
        while not self._stop.is_set() or not self._shadows.empty():
            try:
                columns, records, size = self._shadows.get(timeout=0.2)
            except queue.Empty:
                continue
            self._shadow_begun += size
            arm = self.arms.get(CHALLENGER)
            if arm is None or arm.model is None:
                continue
            model, start, reason = arm.model, time.perf_counter(), ""
            try:
                scores, bands = model.score(columns).tolist(), model.bands(columns)
            except Exception:
                log.exception("the shadow failed")
                scores, bands, reason = [None] * len(records), None, "failing"
            seconds = time.perf_counter() - start
            self.router.record(CHALLENGER, error=bool(reason), slow=1000 * seconds > self._slow_ms)
            slots = self._shadow_places(model, columns, scores) if LISTED and not reason else None
            for i, (model_score, record) in enumerate(zip(scores, records, strict=True)):
                score, decision, confidence, low, high = (None,) * 5
                if model_score is not None:
                    decided, confidence, low, high = model.judge(model_score, band_of(bands, i))
                    decided = decided if slots is None else slots[i]
                    score, decision = headline(model_score, confidence), model.named(decided)
                shadow_record = self._as_dict(record)
                shadow_record |= {
                    **{"_arm": CHALLENGER, "_answered": False, "_score": score},
                    **{"_decision": decision, "_confidence": confidence},
                    **({SCORE_COLUMN: model_score} if WIDE else {}),
                    **{"_low": low, "_high": high, "_fallback": reason or None},
                    **{"_latency_ms": 1000 * seconds, "_model": arm.version.model},
                    **{"_data": arm.version.data, "_code": arm.version.code},
                }
                self.predictions.append(encode(shadow_record))

    def _shadow_places(
        self, model: Model, columns: Mapping[str, Sequence[Any]], scores: list[float]
    ) -> list[float]:
        """The places of a request's rows in their lists by a shadow's scores."""
        rows = list(zip(*(columns[name] for name in self.rows.names), strict=True))
        slots, _ = model.arranged(np.array(scores), *self.rows.lists(rows))
        return [float(slot) for slot in slots]

    # --- what it is ---

    @property
    def classes(self) -> list[str]:
        """The classes that have a score of their own in an answer, in their order; none of other problems."""
        return problem_data.named(self.settings.data.label) if WIDE else []

    @property
    def units(self) -> list[str]:
        """The columns that the router may draw arms by: a row has them, and the log."""
        return list(self.rows.logged_columns)

    def change(self, body: bytes) -> None:
        """Change the router's settings for all workers.

        Args:
            body: JSON, an object with the settings that change.

        Raises:
            Refused: what is no change, or one that is not allowed; nothing is changed then.
            StoreError: when the shared state is out of reach.
        """
        if len(body) > MAX_CHANGE_BYTES:
            raise Refused([Problem("body", f"over {MAX_CHANGE_BYTES:,} bytes", "less")], 413)
        try:
            changes = _decode_change(body)
        except (ValueError, RecursionError) as error:
            allowed = "an object with settings of rollout.router"
            raise Refused([first_problem(error, body, allowed)[0]]) from None
        keys = self.router.keys
        for key in changes if keys else ():
            if key not in keys:
                raise Refused([Problem(key[:80], clip(changes[key]), f"one of {', '.join(keys)}")])
        unit = changes.get("unit")
        if unit is not None and unit not in self.units:
            raise Refused([Problem("unit", clip(unit), f"null or one of {', '.join(self.units)}")])
        try:
            self.router.change(**changes)
        except StoreError:
            raise
        except UserError as error:
            received = body[:80].decode("utf-8", "replace")
            raise Refused([Problem("body", received, str(error)[:500])]) from None
        self.tick()

    def describe(self) -> list[ColumnDescription]:
        """The columns that a row may have, and what each may hold, in the order of the schema."""
        model = self.arms[CHAMPION].model or self.baseline
        inputs = model.inputs if model else []
        used: dict[str, Mapping[str, Any]] = {column["name"]: column for column in inputs}
        return [
            {
                "name": name,
                "type": column.type,
                "allowed": self.rows.allowed(name),
                "used": name in used,
                "logged": name in self.rows.logged_columns,
                "choices": list(column.allowed or used.get(name, {}).get("categories") or [])[:50],
                # A required text of which training saw too many to list
                "typical": EXAMPLES.get(column.type)
                or used.get(name, {}).get("median", "any" if column.required else None),
            }
            for name, column in self.rows.columns.items()
        ]

    def example(self) -> dict[str, Any]:
        """A typical row, column -> value: what the page's form and the OpenAPI document start from."""
        return {
            column["name"]: column["choices"][0] if column["choices"] else column["typical"]
            for column in self.describe()
            if column["used"] and (column["choices"] or column["typical"] is not None)
        }

    # --- feedback ---

    def feedback(self, labels: Sequence[Label]) -> None:
        """Log what came true, and let the router learn from it.

        Raises:
            Refused: an id that no prediction of this project has, a label of another type.
        """
        problems: list[Problem] = []
        for i, entry in enumerate(labels):
            if len(problems) >= MAX_PROBLEMS:
                break
            try:
                entry.label = self.label_rule.read(entry.label)
            except ValueError as error:
                problems.append(Problem(f"[{i}].label", clip(entry.label), str(error)))
                continue
            if not self._ids.is_ours(entry.id):
                problems.append(Problem(f"[{i}].id", entry.id[:80], ALLOWED_IDS))
            if entry.reward is not None and not 0 <= entry.reward <= 1:
                problems.append(Problem(f"[{i}].reward", entry.reward, "between 0 and 1"))
            if entry.label is None and entry.reward is None:
                problems.append(Problem(f"[{i}]", None, "a label or a reward"))
        if problems:
            raise Refused(problems)
        now = datetime.now(UTC).replace(tzinfo=None)
        for entry in labels:
            reward = self.label_rule.reward(entry.label) if entry.reward is None else entry.reward
            if reward is not None:
                arm = ARMS["ab".index(entry.id[0])]
                self.router.reward(entry.id, arm, reward, alone=entry.label is None)
            record = {"_id": entry.id, "_time": now, "_label": entry.label, "_reward": reward}
            self.feedback_log.append(encode(record))
        metrics.FEEDBACK.inc(len(labels))

    def oversee(self, path: str, body: bytes) -> dict[str, Any]:
        """Do what a request for `/stop`, `/resume` or `/appeal` asks for.

        Raises:
            Refused: what is no such request; StoreError: when it cannot be recorded.
        """
        assert self.oversight is not None  # the address is there with the part
        try:
            return dict(self.oversight.ask(path, body, self._ids.is_ours))
        except StoreError:
            raise
        except UserError as error:
            received = body[:80].decode("utf-8", "replace")
            raise Refused([Problem("body", received, str(error)[:500])]) from None

    # --- in the background ---

    def _keep_up(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            try:
                self.tick()
            except Exception:  # a thread that dies would leave the service deaf
                log.exception("could not keep up")

    def tick(self) -> None:
        """Bring in what others changed, and write what was counted here."""
        for file in (self.store, self.nearest):
            if file is not None:
                file.refresh()
        try:
            self.router.sync()
            self._report("")
        except StoreError as error:  # the rest does not need it
            self._report(str(error))
        finally:
            logs = (self.predictions, self.review, self.feedback_log)
            metrics.set_state(self.router.share, list(logs))
        if self.router.generation != self._generation:
            self._generation = self.router.generation
            self.load()

    def _report(self, reason: str) -> None:
        """Log what the router's state lacks, when that is something else than before."""
        if reason == self._reported:
            return
        self._reported = reason
        if reason:
            log.error("router state out of reach: what was counted waits", extra={"reason": reason})
        else:
            log.info("router state within reach again")

    def close(self) -> None:
        """Write everything that waits; what fails keeps nothing else from being written."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.oversight:
            self.oversight.close()
        for pool in (self._pool, self._image_pool):
            pool.shutdown(wait=False, cancel_futures=True)
        logs = (self.predictions, self.review, self.feedback_log)
        deadline = time.monotonic() + TIDY_SECONDS

        def close_by_deadline(writer: Log) -> None:
            writer.close(max(0.0, deadline - time.monotonic()))

        tasks: list[Callable[[], object]] = [writer.stop for writer in logs]
        tasks += [self.router.sync, *(partial(close_by_deadline, writer) for writer in logs)]
        for task in tasks:
            try:
                task()
            except Exception as error:
                details = {"reason": " ".join(str(error).split()) or type(error).__name__}
                log.error("not all could be written", extra=details)


def _arranged_as_given(
    score: Array, lists: Sequence[Any], topics: Sequence[Any], *_: Any
) -> tuple[Array, Array]:
    """The places of rows that no model scored: in each list as they came."""
    return arranged(score, 0.0, lists, topics)


def _fallback_flag(reason: str) -> str:
    """What the flags of an answer by a fallback say of its reason."""
    if OVERSIGHT and reason in WITHHELD:
        return str(OVERSIGHT.FLAGS[reason])
    return f"answered by the fallback: the model was {reason}"


def _is_slow(model: Model) -> bool:
    """Whether a row of this model is much work."""
    return bool(model.texts or model.images)


def _finite(scores: Sequence[Any]) -> bool:
    """Whether all scores of all rows are numbers."""
    return all(map(math.isfinite, itertools.chain.from_iterable(scores) if WIDE else scores))


def make_folders(root: Path) -> None:
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
            if error.errno not in DENIED_ERRNOS:
                continue
            user = f" by user {os.getuid()}" if hasattr(os, "getuid") else ""
            raise UserError(
                f"{folder}: cannot be written{user} ({error.strerror}), and answers are logged there: "
                f"give this user the folder, or mount one that it may write to"
            ) from None


def _tracked(folder: Path) -> bool:
    """Whether DVC has a record of a folder, so that there should be one."""
    return folder.with_name(f"{folder.name}.dvc").is_file()
