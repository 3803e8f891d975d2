"""Limits by caller: how many requests, and how many labels, one may send a minute.

Counts of this minute and of the one before lie in a table of fixed size that the workers of a service share; the rate
is what a window of a minute would hold that ends now, if the minute before was even. A caller is the secret that it
shows and the address it comes from; behind a proxy, all who come through it are one.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import time
from pathlib import Path
from typing import Any

from ..settings import Settings

SLOTS = (
    1 << 16
)  # callers that are told apart: of a thousand at once, one in a hundred shares a slot with another
SECONDS = 60
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the server's, where it has several workers
HEADERS = (b"authorization",)

log = logging.getLogger("serving")


class Rate:
    """How often each caller did something in the last minute, for all workers of this service.

    Args:
        name: of what is counted, which names the shared file.
        per_minute: how much of it a caller may do.
    """

    def __init__(self, name: str, per_minute: int) -> None:
        self.name, self.per_minute = name, per_minute
        self._table = memoryview(_shared(name, 4 * SLOTS * 4)).cast("I")

    def wait(self, caller: bytes, count: int = 1) -> int:
        """Count something that a caller does, if it still may; else the seconds after which to try again."""
        now = time.time()
        minute, elapsed = int(now // SECONDS), now % SECONDS / SECONDS
        digest = hashlib.blake2b(caller, digest_size=4).digest()
        slot = 4 * (int.from_bytes(digest, "big") % SLOTS)
        table = self._table  # of a slot: an even minute, its count, an odd minute, its count
        this, last = (slot, slot + 2) if minute % 2 == 0 else (slot + 2, slot)
        before = table[last + 1] if table[last] == minute - 1 else 0
        current = table[this + 1] if table[this] == minute else 0
        if current + before * (1 - elapsed) + count > self.per_minute:
            return max(1, round(SECONDS * (1 - elapsed)))
        table[this], table[this + 1] = minute, current + count
        return 0


def _shared(name: str, size: int) -> mmap.mmap:
    """Memory of zeros that the workers of a service share, or this process alone where it has no others."""
    folder = os.environ.get(SHARED_FOLDER)
    if folder is None:
        return mmap.mmap(-1, size)
    descriptor = os.open(Path(folder) / f"{name}.limit", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(descriptor, size)  # what another worker counted stays
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


class Limits:
    """The limits of a service, as `serving.limits` sets them.

    Args:
        open_paths: addresses that are never refused, as those of the operators.
    """

    def __init__(self, settings: Settings, open_paths: frozenset[str]) -> None:
        limits = settings.serving.limits
        requests, labels = limits.requests_per_minute, limits.labels_per_minute
        self._open_paths = open_paths
        self._requests = Rate("requests", requests) if requests else None
        self._labels = Rate("labels", labels) if labels else None

    def wait(self, scope: Any) -> int:
        """The seconds after which an ASGI request may come again; 0: it may come now. Only what sends something counts."""
        if not self._requests or scope["method"] != "POST" or scope["path"] in self._open_paths:
            return 0
        return self._refused(self._requests, scope, 1)

    def wait_for_labels(self, scope: Any, count: int) -> int:
        """The seconds after which so many labels may come again; 0: they may come now."""
        return self._refused(self._labels, scope, count) if self._labels else 0

    def _refused(self, rate: Rate, scope: Any, count: int) -> int:
        seconds = rate.wait(_caller(scope), count)
        if seconds:
            details = {"limit": rate.name, "client": (scope.get("client") or ("",))[0]}
            log.warning("a caller is over its limit", extra=details)
        return seconds


def _caller(scope: Any) -> bytes:
    secret = b"".join(value for key, value in scope["headers"] if key in HEADERS)
    return secret + b"\0" + str((scope.get("client") or ("",))[0]).encode()


def make(settings: Settings, open_paths: frozenset[str]) -> Limits | None:
    """The limits of a service; None where the settings set none."""
    limits = settings.serving.limits
    if limits.requests_per_minute is None and limits.labels_per_minute is None:
        return None
    return Limits(settings, open_paths)
