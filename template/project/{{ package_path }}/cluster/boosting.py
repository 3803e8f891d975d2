"""Boosted trees grown by several workers together, each from its part of the rows (data parallel; Meng et al., 2016).

LightGBM's own network: the workers bin and count their rows, and agree on each split. Sums come in another order than in
one process, so the trees are alike, and not the same to the last bit; so many workers grow the same trees each time.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np

from .. import problem
from ..settings import UserError

Array = np.ndarray
ATTEMPTS = 3  # at one fit, each by workers that are started anew
START_SECONDS = 300.0  # that so many processors may take to come free


class Growers:
    """Workers that grow trees together; they are started by the first fit, and stay for those that follow.

    Args:
        ray: the library, connected.
        workers: so many, at least two.
    """

    def __init__(self, ray: Any, workers: int) -> None:
        self._ray, self._workers = ray, workers
        self._lock, self._actors = Lock(), list[Any]()
        self._group: Any = None

    def fit(self, trees: Any, x: Array, y: Array, options: Mapping[str, Any]) -> Any:
        """Trees fitted to n rows by all workers, as LightGBM's own class.

        Args:
            trees: of that class, or of a class that inherits of it, unfitted.
            x: shape (n, width); y: shape (n,); options: of its `fit`; those of n values are divided as the rows are.

        Returns:
            the fitted trees; None where a worker would lack a class.

        Raises:
            UserError: when workers were lost in each attempt.
        """
        parts = _parts(x, y, options, self._workers)
        if parts is None:
            return None
        with self._lock:  # a second fit would wait for the processors of the first
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return self._fit(trees, [self._ray.put(part) for part in parts])
                except (self._ray.exceptions.RayError, ConnectionError) as error:
                    self.stop()
                    cause = getattr(error, "cause", None)
                    if isinstance(cause, UserError):
                        raise cause from None
                    if attempt == ATTEMPTS:
                        line = str(cause or error).strip().splitlines()[0]
                        raise UserError(
                            f"the cluster lost workers in {ATTEMPTS} fits: {line}"
                        ) from None
        raise AssertionError

    def stop(self) -> None:
        """End the workers; those that wait for a lost one too."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._group is not None:
            self._ray.util.remove_placement_group(self._group)
        self._group, self._actors = None, []

    def _fit(self, trees: Any, parts: list[Any]) -> Any:
        if not self._actors:
            self._start()
        addresses = self._ray.get([actor.address.remote() for actor in self._actors])
        machines = ",".join(f"{host}:{port}" for host, port in addresses)
        network = {
            "machines": machines,
            "num_machines": len(addresses),
            "tree_learner": "data",
            "pre_partition": True,
        }
        waiting = [
            actor.fit.remote(trees, {**network, "local_listen_port": port}, part)
            for actor, part, (_, port) in zip(self._actors, parts, addresses, strict=True)
        ]
        first, fitted = waiting[0], None
        while waiting:  # one by one: when one is lost, the others would wait for it
            (done,), waiting = self._ray.wait(waiting)
            result = self._ray.get(done)
            fitted = result if done == first else fitted
        return fitted

    def _start(self) -> None:
        util = self._ray.util
        self._group = util.placement_group([{"CPU": 1}] * self._workers, strategy="SPREAD")
        if not self._group.wait(START_SECONDS):
            self.stop()
            raise UserError(
                f"cluster.boosting_workers: the cluster has no {self._workers} processors free for {START_SECONDS:g} seconds"
            )
        strategy = util.scheduling_strategies.PlacementGroupSchedulingStrategy(self._group)
        grower = self._ray.remote(num_cpus=1)(Grower)
        self._actors = [
            grower.options(scheduling_strategy=strategy).remote() for _ in range(self._workers)
        ]


class Grower:
    """One of the workers."""

    def address(self) -> tuple[str, int]:
        """This machine's address, and a port of it that is free."""
        import ray

        with socket.socket() as listener:
            listener.bind(("", 0))
            return ray.util.get_node_ip_address(), listener.getsockname()[1]

    def fit(self, trees: Any, network: Mapping[str, Any], part: tuple[Any, ...]) -> Any:
        """The trees fitted to this worker's rows together with the others'."""
        from ..problem import models

        x, y, options = part
        grown = models.Trees(**{**trees.get_params(), **network})
        return grown.fit(x, y, **options)


def _parts(x: Array, y: Array, options: Mapping[str, Any], workers: int) -> list[Any] | None:
    """Rows and options for each worker: lists stay whole, each worker has its share of each class; None: a class has
    too few rows for that."""
    n, sizes = len(y), options.get("group")
    if sizes is not None:
        of_list = np.repeat(np.arange(len(sizes)), sizes)
        shares = [np.flatnonzero(of_list % workers == part) for part in range(workers)]
    elif problem.CLASSES:
        if np.unique(y, return_counts=True)[1].min() < workers:
            return None
        order = np.argsort(y, kind="stable")
        shares = [np.sort(order[part::workers]) for part in range(workers)]
    else:
        shares = [np.arange(part, n, workers) for part in range(workers)]
    parts = []
    for part, rows in enumerate(shares):
        divided = {
            name: value[rows] if isinstance(value, np.ndarray) and len(value) == n else value
            for name, value in options.items()
        }
        if sizes is not None:
            divided["group"] = np.asarray(sizes)[part::workers]
        parts.append((x[rows], y[rows], divided))
    return parts
