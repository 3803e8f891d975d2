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

from ..parts import parts_here
from ..records import WITHHELD
from ..settings import LATENCY_BUCKETS

CONTENT_TYPE = CONTENT_TYPE_LATEST
UNKNOWN = "other"  # stands for every method and address that the service does not have
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "OPTIONS"))
FALLBACK_REASONS = ("missing", "late", "failing")  # of what a fallback answers for
CLIENT_GONE = 499  # the client went away before there was an answer; nginx counts it so
disable_created_metrics()  # a time beside each counter, which nothing reads
REQUESTS = Counter(
    "serving_requests",
    f"Answers of any status, by method and address; status {CLIENT_GONE}: the client went away.",
    ["method", "path", "status"],
)
REQUEST_SECONDS = Histogram(
    "serving_request_seconds",
    "From a request's headers to its answer.",
    ["method", "path"],
    buckets=LATENCY_BUCKETS,
)
PREDICTIONS = Counter("serving_predictions", "Rows answered by an arm's own model.", ["arm"])
FALLBACKS = Counter(
    "serving_fallbacks", "Rows answered by a fallback: arm, and what was wrong.", ["arm", "reason"]
)
LATENCY = Histogram(
    "serving_prediction_seconds",
    "From a request's rows to their answers.",
    ["arm"],
    buckets=LATENCY_BUCKETS,
)
SCORE = Gauge(
    "serving_score_sum",
    "Sum of all scores: over serving_predictions_total, their mean.",
    ["arm"],
    multiprocess_mode="sum",
)
REVIEWED = Counter("serving_reviewed", "Rows queued for a person.")
RULES = Counter(
    "serving_rules", "Rows that a rule before the model holds of, by its name.", ["rule"]
)
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
if "governance" in parts_here():
    STOPPED = Gauge(
        "serving_stopped", "1 while people have stopped the model.", multiprocess_mode="livemax"
    )
    WITHHELD_ROWS = Counter(
        "serving_withheld", "Rows that people took out of the models' hands, and why.", ["reason"]
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
MODELS_READ = Gauge(
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

    __slots__ = ("answers", "bucket_counts", "rows", "scores", "seconds")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.answers = self.rows = 0
        self.seconds = self.scores = 0.0
        self.bucket_counts = [0] * (len(LATENCY_BUCKETS) + 1)

    def add(self, seconds: float) -> None:
        self.answers += 1
        self.seconds += seconds
        self.bucket_counts[bisect_left(LATENCY_BUCKETS, seconds)] += 1

    def add_to(self, histogram: Any) -> None:
        """Add the durations to a histogram, which has no call of its own for many at once."""
        histogram._sum.inc(self.seconds)
        for bucket, count in zip(histogram._buckets, self.bucket_counts, strict=True):
            if count:
                bucket.inc(count)


_requests: defaultdict[tuple[str, str, int], _Tally] = defaultdict(_Tally)
_answers: defaultdict[tuple[str, str], _Tally] = defaultdict(_Tally)
_loaded: set[tuple[str, ...]] = set()  # labels of the models that this process has said it has


def count_answers(arm: str, reason: str, seconds: float, rows: int, scores: float) -> None:
    """Count rows that one arm answered together, or a fallback for it.

    Args:
        reason: one of `FALLBACK_REASONS` or `records.WITHHELD`; empty when the arm's own model answered.
        seconds: from the request's rows to their answers.
        scores: their sum.
    """
    tally = _answers[arm, reason]
    tally.add(seconds)
    tally.rows += rows
    tally.scores += scores


def count_request(method: str, path: str, status: int, seconds: float) -> None:
    """Count an answer.

    Args:
        path: the address as it is routed.
        seconds: from the request's headers to the answer.
    """
    _requests[method if method in METHODS else UNKNOWN, path, status].add(seconds)


def flush() -> None:
    """Hand on what was counted; called by the thread that counts, ten times a second."""
    for (method, path, status), tally in list(_requests.items()):
        if tally.answers:
            REQUESTS.labels(method, path, str(status)).inc(tally.answers)
            tally.add_to(REQUEST_SECONDS.labels(method, path))
            tally.clear()
    for (arm, reason), tally in list(_answers.items()):
        if tally.answers:
            if reason in WITHHELD:
                WITHHELD_ROWS.labels(reason).inc(tally.rows)
            elif reason:
                FALLBACKS.labels(arm, reason).inc(tally.rows)
            else:
                PREDICTIONS.labels(arm).inc(tally.rows)
                SCORE.labels(arm).inc(tally.scores)
            tally.add_to(LATENCY.labels(arm))
            tally.clear()


def count_cut_off(reason: str, status: int = 0) -> None:
    """Count a connection that was ended, and the answer if there still was one."""
    CUT_OFF.labels(reason).inc()
    if status:
        REQUESTS.labels(UNKNOWN, UNKNOWN, str(status)).inc()


def init_counters(methods: Mapping[str, Iterable[str]]) -> None:
    """Show counts of 0 before anything happened: the first error is a rise only then.

    Args:
        methods: of each address.
    """
    for path, allowed in methods.items():
        for method in set(allowed) - {"HEAD"}:
            for status in ("200", "500"):
                REQUESTS.labels(method, path, status)
    for reason in FALLBACK_REASONS:
        FALLBACKS.labels("champion", reason)
    for reason in WITHHELD if "governance" in parts_here() else ():
        WITHHELD_ROWS.labels(reason)
    for result in ("ok", "failed"):
        RELOADS.labels(result)


def set_models(versions: Mapping[str, Any], degraded: bool) -> None:
    """Show which models are loaded.

    Args:
        versions: arm -> `service.Version`.
        degraded: the model in production cannot be used.
    """
    current = {(arm, v.model, v.data, v.code) for arm, v in versions.items()}
    for unloaded in _loaded - current:
        # In a file that the workers share a metric cannot be taken back, only set to 0
        MODEL.labels(*unloaded).set(0)
        MODEL.remove(*unloaded)
    _loaded.clear()
    _loaded.update(current)
    for labels in current:
        MODEL.labels(*labels).set(1)
    DEGRADED.set(degraded)


def count_reload(succeeded: bool, generation: int) -> None:
    """Count a reading of the models.

    Args:
        generation: of the shared state that asked for it.
    """
    RELOADS.labels("ok" if succeeded else "failed").inc()
    STALE.set(not succeeded)
    MODELS_READ.labels("ok").set(generation if succeeded else -1)
    MODELS_READ.labels("failed").set(-1 if succeeded else generation)


def model_readings() -> dict[str, tuple[float, str]]:
    """Of each worker of this service, by process id: the generation it read last, and the result."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return {}
    latest: dict[str, tuple[float, str]] = {}
    for metric in multiprocess.MultiProcessCollector(CollectorRegistry()).collect():
        for sample in metric.samples if metric.name == "serving_models_read" else ():
            pid, reading = sample.labels["pid"], (sample.value, sample.labels["result"])
            latest[pid] = max(reading, latest.get(pid, reading))
    return latest


def failed_workers(generation: int, seconds: float) -> dict[str, str]:
    """Wait until the other workers have read the models of a generation too.

    Args:
        seconds: after which those that have not are named.

    Returns:
        `worker <process id>` -> what went wrong there; empty when all is well.
    """
    deadline = time.monotonic() + seconds
    while True:
        latest = model_readings()
        late = {pid for pid, (last, _) in latest.items() if last < generation}
        if not late or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    failures = dict.fromkeys(late, f"has not read them within {seconds:g} s")
    for pid in latest.keys() - late - {str(os.getpid())}:
        if latest[pid][1] == "failed":
            failures[pid] = "could not load them, its log says why"
    return {f"worker {pid}": failures[pid] for pid in sorted(failures)}


def set_stopped(is_stopped: bool) -> None:
    """Show whether people have stopped the model."""
    STOPPED.set(is_stopped)


def set_state(share: float, logs: Sequence[Any]) -> None:
    """Show the router's share of the challenger, and how the logs are doing.

    Args:
        logs: each a `log.Log`.
    """
    SHARE.set(share)
    LOG_LOST.set(sum(writer.lost for writer in logs))
    LOG_WAITING.set(sum(writer.waiting() for writer in logs))
    LOG_FAILING.set(any(writer.error for writer in logs))


def forget_worker(pid: int) -> None:
    """Take back what a worker that is no more said of itself; what it counted stays."""
    multiprocess.mark_process_dead(pid)


class _AllWorkers(multiprocess.MultiProcessCollector):
    """The metrics of all workers, without the models that none of them has any more."""

    def collect(self) -> Iterator[Any]:
        for metric in super().collect():
            if metric.name == "serving_model_info":
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric


def exposition() -> bytes:
    """All metrics as text, of all workers together."""
    flush()
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        _AllWorkers(registry)
    return generate_latest(registry)
