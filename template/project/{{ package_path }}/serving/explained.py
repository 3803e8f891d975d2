"""`POST /predict?explain=true`: an answer with what each column adds to its score.

One row after the other, with time for answers without reasons in between, and a bounded number in all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec

from .. import problem
from ..model import Model, ModelError
from ..parts import part_hint, part_module
from ..settings import Serving
from .bounded import MAX_ECHO, Problem, Refused

MAX_ROWS = 100  # rows of one request that are explained
MAX_WAITING = 200  # and of all requests together

UNEXPLAINED = (
    f"not explained: what answered tells no reasons, or not in time, or {MAX_ROWS} were before"
)

log = logging.getLogger("serving")


class Contribution(msgspec.Struct, frozen=True):
    """What a raw column adds to a score."""

    column: str
    added: float


class Explanation(msgspec.Struct, frozen=True):
    """What each raw column adds to a row's score beside `base`, the most first.

    `way`: how that was told. `unit`: of all amounts. `class`: whose score it is, where each class has one. `sum`: of
    base and amounts. `fit`: null where that is the raw score; else a local surrogate's weighted R².
    """

    way: str
    unit: str
    class_: str | None = msgspec.field(name="class")
    base: float
    sum: float
    fit: float | None
    contributions: list[Contribution]


class Explaining:
    """What a worker explains: the models that can be, and how many rows wait."""

    def __init__(self, serving: Serving) -> None:
        self._seconds, self._waiting = serving.timeout_ms / 1000, 0
        self._module = part_module("analysis.reasons") if serving.explain else None
        self.refusal = ""  # why nothing is explained
        if self._module is None:
            off = "serving.explain is false" if part_module("analysis") else part_hint("analysis")
            self.refusal = problem.LEFT_OUT.get("reasons", off)
        self._turn = asyncio.Lock()

    def load(self, folder: Path, model: Model) -> Any:
        """What explains a model's answers, None where nothing does; reads no file where nobody may ask."""
        if self._module is None:
            return None
        try:
            return self._module.Explainer(folder, model)
        except ModelError as error:
            log.warning("answers are not explained", extra={"reason": str(error)})
            return None

    def is_asked(self, query: bytes) -> bool:
        """Whether a request's query asks for reasons.

        Raises:
            Refused: when it asks for something else than true or false, or for what cannot be told here.
        """
        if not query:
            return False
        values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("explain", ["false"])
        if values == ["false"]:
            return False
        if values != ["true"]:
            raise Refused([Problem("explain", values[-1][:MAX_ECHO], "true or false, once")])
        if self.refusal:
            raise Refused([Problem("explain", True, f"false: {self.refusal}")])
        return True

    @contextmanager
    def admitted(self, n: int) -> Iterator[None]:
        """Room for n rows of a request that are to be explained, of which the first 100 are.

        Raises:
            Refused: when too many wait already (503).
        """
        n = min(n, MAX_ROWS)
        if self._waiting + n > MAX_WAITING:
            raise Refused([Problem("rows", "explained, and too many wait", "a later try")], 503)
        self._waiting += n
        try:
            yield
        finally:
            self._waiting -= n

    async def add(
        self,
        answers: Sequence[Any],
        rows: Sequence[Mapping[str, Sequence[Any]]],
        arms: Mapping[str, Any],
    ) -> None:
        """Give answers their explanation; null with a flag where there is none, or not in time.

        Args:
            rows: each as `Scorer.run` takes a single one.
            arms: the models that answered, by name.
        """
        deadline = time.perf_counter() + self._seconds
        for number, (answer, row) in enumerate(zip(answers, rows, strict=True)):
            arm = arms.get(answer.arm) if number < MAX_ROWS else None
            answer.explanation = None
            # Another arm, or the baseline, may have stood in for the one that was drawn
            if arm and arm.explainer and arm.version == answer.version and not answer.fallback:
                async with self._turn:
                    if time.perf_counter() < deadline:
                        answer.explanation = await _explain(arm, row, answer.decision)
                    await asyncio.sleep(0)  # whoever is not to be explained is answered now
            if answer.explanation is None:
                answer.flags = [*answer.flags, UNEXPLAINED]


async def _explain(arm: Any, row: Mapping[str, Sequence[Any]], decision: Any) -> Explanation | None:
    """One row's reasons: at once where that is as quick as answers are made at once, else by another thread."""
    explainer = arm.explainer
    column, start = (
        explainer.model.classes.index(decision) if problem.WIDE else 0,
        time.perf_counter(),
    )
    try:
        if arm.explains_quickly:
            reasons = explainer.explain(row, column)
        else:
            reasons = await asyncio.to_thread(explainer.explain, row, column)
    except Exception:  # the answer itself is there
        log.exception("the reasons failed", extra={"arm": arm.name})
        return None
    arm.explains_quickly = time.perf_counter() - start < arm.quick_seconds
    columns = [Contribution(*column) for column in reasons.columns]
    head = (reasons.way, reasons.unit, reasons.class_, reasons.base, reasons.sum, reasons.fit)
    return Explanation(*head, columns)
