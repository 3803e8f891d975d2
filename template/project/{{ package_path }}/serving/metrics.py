"""What Prometheus reads. With several workers the counts lie in files that every worker can add up.

The library looks for PROMETHEUS_MULTIPROC_DIR when it is imported: set it before this module is.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
CONTENT_TYPE = CONTENT_TYPE_LATEST
OTHER = "other"  # stands for every method and address that the service does not have
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "OPTIONS"))
REASONS = ("missing", "late", "failing")  # of what a fallback answers for
GONE = 499  # the client went away before there was an answer; nginx counts it so
disable_created_metrics()  # a time beside each counter, which nothing reads
REQUESTS = Counter(
    "serving_requests",
    f"Answers of any status, by method and address; status {GONE}: the client went away.",
    ["method", "path", "status"],
)
REQUEST_SECONDS = Histogram(
    "serving_request_seconds",
    "From a request's headers to its answer.",
    ["method", "path"],
    buckets=SECONDS,
)
PREDICTIONS = Counter("serving_predictions", "Rows answered by an arm's own model.", ["arm"])
FALLBACKS = Counter(
    "serving_fallbacks", "Rows answered by a fallback: arm, and what was wrong.", ["arm", "reason"]
)
LATENCY = Histogram(
    "serving_prediction_seconds",
    "From a request's rows to their answers.",
    ["arm"],
    buckets=SECONDS,
)
SCORE = Gauge(
    "serving_score_sum",
    "Sum of all scores: over serving_predictions_total, their mean.",
    ["arm"],
    multiprocess_mode="sum",
)
REVIEWED = Counter("serving_reviewed", "Rows queued for a person.")
FEEDBACK = Counter("serving_feedback", "Labels and rewards taken.")
SHADOW_DROPPED = Counter("serving_shadow_dropped", "Requests that the shadow was too slow for.")
CONNECTIONS = Gauge(
    "serving_connections", "Connections that are open.", multiprocess_mode="livesum"
)
CUT_OFF = Counter(
    "serving_connections_cut_off", "Connections that the service ended, and why.", ["reason"]
)
LOG_LOST = Gauge(
    "serving_log_lost", "Log lines lost because the disk refused them.", multiprocess_mode="livesum"
)
LOG_WAITING = Gauge(
    "serving_log_waiting", "Log lines that are not written yet.", multiprocess_mode="livesum"
)
LOG_FAILING = Gauge(
    "serving_log_failing", "1 while the disk refuses a log's lines.", multiprocess_mode="livemax"
)
SHARE = Gauge("serving_router_share", "The challenger's share.", multiprocess_mode="livemax")
DEGRADED = Gauge(
    "serving_degraded",
    "1 while the model in production cannot be used.",
    multiprocess_mode="livemax",
)
MODEL = Gauge(
    "serving_model_info",
    "Which model an arm has.",
    ["arm", "model", "data", "code"],
    multiprocess_mode="livemax",
)


RELOADS = Counter(
    "serving_reloads",
    "Times that the models were read, at the start too: ok or failed.",
    ["result"],
)
READ = Gauge(
    "serving_models_read",
    "Generation of the shared state at which a worker last read the models; -1: not with this result.",
    ["result"],
    multiprocess_mode="liveall",
)
STALE = Gauge(
    "serving_reload_failed",
    "1 while a model in its folder could not be loaded, and the one before it answers.",
    multiprocess_mode="livemax",
)


class _Tally:
    """Answers of one kind since the last `flush`: to add each to the library's metrics costs
    microseconds, and with several workers twice as many.
    """

    __slots__ = ("cuts", "rows", "scores", "seconds", "times")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.times = self.rows = 0
        self.seconds = self.scores = 0.0
        self.cuts = [0] * (len(SECONDS) + 1)

    def add(self, seconds: float) -> None:
        self.times += 1
        self.seconds += seconds
        self.cuts[bisect_left(SECONDS, seconds)] += 1

    def into(self, histogram: Any) -> None:
        """Add the durations to a histogram, which has no call of its own for many at once."""
        histogram._sum.inc(self.seconds)
        for bucket, count in zip(histogram._buckets, self.cuts, strict=True):
            if count:
                bucket.inc(count)


_requests: defaultdict[tuple[str, str, int], _Tally] = defaultdict(_Tally)
_answers: defaultdict[tuple[str, str], _Tally] = defaultdict(_Tally)
_loaded: set[tuple[str, ...]] = set()  # labels of the models that this process has said it has


def answered(arm: str, why: str, seconds: float, rows: int, scores: float) -> None:
    """Count rows that one arm answered together, or a fallback for it, and the sum of their scores."""
    tally = _answers[arm, why]
    tally.add(seconds)
    tally.rows += rows
    tally.scores += scores


def requested(method: str, path: str, status: int, seconds: float) -> None:
    """Count an answer: the method, the address as it is routed, and what it took."""
    _requests[method if method in METHODS else OTHER, path, status].add(seconds)


def flush() -> None:
    """Hand on what was counted; called by the thread that counts, ten times a second."""
    for (method, path, status), tally in list(_requests.items()):
        if tally.times:
            REQUESTS.labels(method, path, str(status)).inc(tally.times)
            tally.into(REQUEST_SECONDS.labels(method, path))
            tally.clear()
    for (arm, why), tally in list(_answers.items()):
        if tally.times:
            if why:
                FALLBACKS.labels(arm, why).inc(tally.rows)
            else:
                PREDICTIONS.labels(arm).inc(tally.rows)
                SCORE.labels(arm).inc(tally.scores)
            tally.into(LATENCY.labels(arm))
            tally.clear()


def cut_off(reason: str, status: int = 0) -> None:
    """Count a connection that was ended, and the answer if there still was one."""
    CUT_OFF.labels(reason).inc()
    if status:
        REQUESTS.labels(OTHER, OTHER, str(status)).inc()


def expect(methods: Mapping[str, Iterable[str]]) -> None:
    """Show counts of 0 before anything happened: the first error is a rise only then.

    Args:
        methods: of each address.
    """
    for path, some in methods.items():
        for method in set(some) - {"HEAD"}:
            for status in ("200", "500"):
                REQUESTS.labels(method, path, status)
    for reason in REASONS:
        FALLBACKS.labels("champion", reason)
    for result in ("ok", "failed"):
        RELOADS.labels(result)


def models(versions: Mapping[str, Any], degraded: bool) -> None:
    """Say which models are loaded."""
    now = {(arm, one.model, one.data, one.code) for arm, one in versions.items()}
    for gone in _loaded - now:
        # In a file that the workers share a metric cannot be taken back, only set to 0
        MODEL.labels(*gone).set(0)
        MODEL.remove(*gone)
    _loaded.clear()
    _loaded.update(now)
    for labels in now:
        MODEL.labels(*labels).set(1)
    DEGRADED.set(degraded)


def reloaded(well: bool, generation: int) -> None:
    """Count a reading of the models, and say which of the shared state it was."""
    RELOADS.labels("ok" if well else "failed").inc()
    STALE.set(not well)
    READ.labels("ok").set(generation if well else -1)
    READ.labels("failed").set(-1 if well else generation)


def readings() -> dict[str, tuple[float, str]]:
    """Of each worker of this service, by process id: the generation it read last, and the result."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return {}
    found: dict[str, tuple[float, str]] = {}
    for metric in multiprocess.MultiProcessCollector(CollectorRegistry()).collect():
        for one in metric.samples if metric.name == "serving_models_read" else ():
            pid, last = one.labels["pid"], (one.value, one.labels["result"])
            found[pid] = max(last, found.get(pid, last))
    return found


def failed_elsewhere(generation: int, seconds: float) -> dict[str, str]:
    """Wait until the other workers have read the models of a generation too.

    Args:
        seconds: after which those that have not are named.

    Returns:
        `worker <process id>` -> what went wrong there; empty when all is well.
    """
    end = time.monotonic() + seconds
    while True:
        now = readings()
        late = {pid for pid, (read, _) in now.items() if read < generation}
        if not late or time.monotonic() > end:
            break
        time.sleep(0.1)
    told = dict.fromkeys(late, f"has not read them within {seconds:g} s")
    for pid in now.keys() - late - {str(os.getpid())}:
        if now[pid][1] == "failed":
            told[pid] = "could not load them, its log says why"
    return {f"worker {pid}": told[pid] for pid in sorted(told)}


def state(share: float, logs: Sequence[Any]) -> None:
    SHARE.set(share)
    LOG_LOST.set(sum(one.lost for one in logs))
    LOG_WAITING.set(sum(one.waiting() for one in logs))
    LOG_FAILING.set(any(one.error for one in logs))


def died(pid: int) -> None:
    """Take back what a worker that is no more said of itself; what it counted stays."""
    multiprocess.mark_process_dead(pid)


class _Together(multiprocess.MultiProcessCollector):
    """The metrics of all workers, without the models that none of them has any more."""

    def collect(self) -> Iterator[Any]:
        for metric in super().collect():
            if metric.name == "serving_model_info":
                metric.samples = [one for one in metric.samples if one.value]
            yield metric


def exposition() -> bytes:
    """All metrics as text, of all workers together."""
    flush()
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        _Together(registry)
    return generate_latest(registry)
