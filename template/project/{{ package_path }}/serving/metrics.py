"""What Prometheus reads. With several workers the counts lie in files that every worker can add up.

The library looks for PROMETHEUS_MULTIPROC_DIR when it is imported: set it before this module is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
CONTENT_TYPE = CONTENT_TYPE_LATEST
REQUESTS = Counter("requests", "Requests by address and status.", ["path", "status"])
PREDICTIONS = Counter("predictions", "Rows answered by an arm's own model.", ["arm"])
FALLBACKS = Counter(
    "fallbacks", "Rows answered by a fallback: arm, and what was wrong.", ["arm", "reason"]
)
LATENCY = Histogram(
    "prediction_seconds", "From a request's rows to their answers.", ["arm"], buckets=SECONDS
)
SCORE = Gauge(
    "score_sum",
    "Sum of all scores: over predictions_total, their mean.",
    ["arm"],
    multiprocess_mode="sum",
)
REVIEWED = Counter("reviewed", "Rows queued for a person.")
FEEDBACK = Counter("feedback", "Labels and rewards taken.")
SHADOW_DROPPED = Counter("shadow_dropped", "Requests that the shadow was too slow for.")
LOG_LOST = Gauge(
    "log_lost", "Log lines lost because the disk refused them.", multiprocess_mode="livesum"
)
LOG_WAITING = Gauge(
    "log_waiting", "Log lines that are not written yet.", multiprocess_mode="livesum"
)
SHARE = Gauge("router_share", "The challenger's share.", multiprocess_mode="livemax")
DEGRADED = Gauge(
    "degraded", "1 while the model in production cannot be used.", multiprocess_mode="livemax"
)
MODEL = Gauge(
    "model_info",
    "Which model an arm has.",
    ["arm", "model", "data", "code"],
    multiprocess_mode="livemax",
)


class _Children(dict[tuple[str, ...], Any]):
    """Labelled metrics by their labels: looking one up again costs the library a microsecond."""

    def __init__(self, parent: Any) -> None:
        super().__init__()
        self.parent = parent

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        self[labels] = self.parent.labels(*labels)
        return self[labels]


_predictions, _fallbacks = _Children(PREDICTIONS), _Children(FALLBACKS)
_latency, _score, _requests = _Children(LATENCY), _Children(SCORE), _Children(REQUESTS)


def answered(arm: str, why: str, seconds: float, scores: Sequence[float]) -> None:
    """Count rows that one arm answered together."""
    if why:
        _fallbacks[arm, why].inc(len(scores))
    else:
        _predictions[arm,].inc(len(scores))
        _score[arm,].inc(sum(scores))
    _latency[arm,].observe(seconds)


def requested(path: str, status: int) -> None:
    _requests[path, str(status)].inc()


def models(versions: Mapping[str, Any], degraded: bool) -> None:
    """Say which models are loaded."""
    MODEL.clear()
    for arm, version in versions.items():
        MODEL.labels(arm, version.model, version.data, version.code).set(1)
    DEGRADED.set(degraded)


def state(share: float, logs: Sequence[Any]) -> None:
    SHARE.set(share)
    LOG_LOST.set(sum(one.lost for one in logs))
    LOG_WAITING.set(sum(one.waiting() for one in logs))


def exposition() -> bytes:
    """All metrics as text, of all workers together."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry)
