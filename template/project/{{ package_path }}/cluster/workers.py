"""The workers of a Ray cluster as an executor: what runs in threads of one machine runs there instead, with the same answers.

Whatever a task reads travels with it, so the machines share no disk; this package goes along, so that they run its code,
and its libraries are installed on each. A task whose worker or machine is lost is done again by another.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ..model import SessionChoice
from ..settings import Settings, UserError, missing_library
from .boosting import Growers
from .scoring import PackedModel, answers

PACKAGE = Path(__file__).parents[1]
WORKER = "FIVEFOLD_WORKER"  # the environment variable of a worker: what runs there begins no tasks
CONNECT_SECONDS = 10.0
RETRIES = 5  # of a task whose worker was lost
STORED = 64  # values that the cluster keeps for tasks to come
SMALL = (str, int, float, type(None))  # travels with its task; all else once

Columns = Mapping[str, np.ndarray]


class Workers(Executor):
    """Tasks of a Ray cluster.

    Args:
        address: of the cluster, as `ray.init` takes it.
        workers: tasks of scoring that are under way at once.
        boosting_workers: that grow the trees of one model together; 1: none do.
        threads: of the sums of linear algebra in a task.

    Raises:
        UserError: when Ray is not installed, no cluster answers at the address, or the cluster has fewer processors.
    """

    def __init__(self, address: str, workers: int, boosting_workers: int, threads: int) -> None:
        self._ray = ray = _connected(address)
        processors = int(ray.cluster_resources().get("CPU", 0))
        for key, count in (("workers", workers), ("boosting_workers", boosting_workers)):
            if count > processors:
                ray.shutdown()
                raise UserError(
                    f"cluster.{key}: {count} are asked for, and the cluster at {address} has {processors} processors"
                )
        self.workers, self._threads = workers, threads
        self.grow = Growers(ray, boosting_workers).fit if boosting_workers > 1 else None
        self._task = ray.remote(num_cpus=1, max_retries=RETRIES)(_call)
        self._stored: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        self._lock = Lock()

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """A task; what several take is sent once. What the function raises is raised by the future's `result`."""
        stored = [arg if isinstance(arg, SMALL) else self._store(arg) for arg in args]
        return self._start(self._threads, function, options, *stored)

    def scoring(
        self, folder: Path, file: str, session: SessionChoice
    ) -> tuple[int, Callable[[Columns], Columns]]:
        """How many threads are to hand out rows, and what lets a worker answer those of one: `scoring.batch.answers`.

        Args:
            folder, file, session: of the model, as `Model` takes them.
        """
        packed = self._ray.put(PackedModel.of(folder, file, session))
        return 2 * self.workers, lambda rows: self._start(0, answers, {}, packed, rows).result()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing: the connection serves what comes next, and ends with the process."""

    def _start(self, threads: int, function: Callable[..., Any], *args: Any) -> Future[Any]:
        outcome: Future[Any] = Future()
        task = self._task.remote(threads, function, *args).future()
        task.add_done_callback(lambda done: self._settle(outcome, done))
        return outcome

    def _store(self, value: Any) -> Any:
        """Where the cluster has a value, which is kept here as well: so no other gets its id."""
        with self._lock:
            if id(value) not in self._stored:
                self._stored[id(value)] = value, self._ray.put(value)
            self._stored.move_to_end(id(value))
            if len(self._stored) > STORED:
                self._stored.popitem(last=False)
            return self._stored[id(value)][1]

    def _settle(self, outcome: Future[Any], done: Future[Any]) -> None:
        """Hand on a task's result, or its error without the traceback of the worker."""
        error = done.exception()
        cause = getattr(error, "cause", None) or error
        if cause is None:
            outcome.set_result(done.result())
        elif isinstance(cause, self._ray.exceptions.RayError):
            reason = str(cause).strip().splitlines()[0]
            message = (
                f"the cluster lost a task in {1 + RETRIES} attempts ({reason}); nothing was written"
            )
            outcome.set_exception(UserError(message))
        elif isinstance(cause, ImportError):
            hint = "`uv sync --group cluster` in this project on each machine"
            outcome.set_exception(UserError(f"a worker of the cluster: {cause}; {hint}"))
        else:
            outcome.set_exception(cause)


def connect(settings: Settings) -> Workers | None:
    """The workers that the settings ask for; None: this machine alone, as on a worker itself.

    Raises:
        UserError: as `Workers`.
    """
    block, address = settings.cluster, settings.cluster.address
    if (
        address and ":" not in address
    ):  # so that a machine without a cluster needs no other settings
        address = os.environ.get(address)
    if not address or WORKER in os.environ:
        return None
    return _workers(address, block.workers, block.boosting_workers, settings.modelling.threads)


_workers = cache(Workers)


def _connected(address: str) -> Any:
    """The library, connected to a cluster."""
    # Else each worker would build the environment of what `uv run` started anew
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # of a minute each
    try:
        import ray
    except ImportError:
        raise missing_library("ray") from None
    host, _, port = address.rpartition(":")
    environment = {"py_modules": [str(PACKAGE)], "env_vars": {WORKER: "1"}}
    try:
        # Ray itself waits for minutes
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=environment,
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"cluster.address: no cluster answers at {address} ({reason}); `ray start --head` begins one, "
            "`ray start --address HOST:6379` adds a machine"
        ) from None
    return ray


def _call(
    threads: int, function: Callable[..., Any], options: Mapping[str, Any], *args: Any
) -> Any:
    if not threads:  # of a machine that only scores
        return function(*args, **options)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads, "blas"):  # sums in one order, as on one machine
        return function(*args, **options)
