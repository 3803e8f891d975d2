"""The training of a network, in one process or divided among several: by rows, or by layers.

Several processes meet over gloo, on this machine. By rows (data parallel, `DistributedDataParallel`), each takes
a share of every batch, and the mean of their gradients is the gradient of one process. By layers (pipeline parallel,
GPipe, Huang et al., 2019), each holds a share of the layers, and a batch goes through them in parts.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Array = np.ndarray
Step = Callable[[Array, np.random.Generator], float]

WEIGHT_DECAY = 1e-3
ROWS_AT_ONCE = 256  # that are predicted


class Task(Protocol):
    """What a network learns: rows as it takes them, what is to come out, and how wrong it is.

    Processes are sent one, so it can be pickled.
    """

    def __len__(self) -> int: ...

    def batch(self, rows: Array, rng: np.random.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        """The network's inputs for some rows, changed by chance, and what is to come out."""

    def inputs(self, rows: Array) -> tuple[Tensor, ...]:
        """The network's inputs for some rows, as they are."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """How wrong the output is, a mean over rows."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a network learns, and in how many threads and processes.

    `threads`: of each process. `parallel`: rows or layers are divided among `processes`; none.
    """

    epochs: int
    batch: int
    learning_rate: float
    seed: int
    threads: int
    parallel: str = "none"
    processes: int = 1


def fit(network: nn.Module, task: Task, schedule: Schedule) -> list[float]:
    """Train a network in place, by AdamW with a learning rate that rises and falls once (one cycle, Smith, 2018).

    The same seed gives the same weights on the same machine; another number of threads or processes changes their
    last digits, as it changes the order of sums.

    Returns:
        the mean loss of each epoch.
    """
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(schedule.threads)
    if schedule.parallel == "none":
        network.train()
        return _train(network.parameters(), _Alone(network, task), len(task), schedule)
    with tempfile.TemporaryDirectory() as folder:
        # Not forked: the libraries' own threads would be missing in the child
        torch.multiprocessing.start_processes(
            _work, (network, task, schedule, folder), schedule.processes, start_method="spawn"
        )
        losses: list[float] = []
        states: dict[str, Tensor] = {}
        for rank in range(schedule.processes):
            saved = torch.load(Path(folder, f"{rank}.pt"), weights_only=True)
            states |= saved["state"]
            losses = saved["losses"] or losses
    # A share of the layers may hold more, such as the numbers of positions
    network.load_state_dict({name: states[name] for name in network.state_dict()})
    return losses


def predict(network: nn.Module, task: Task, rows: Array) -> Array:
    """The network's outputs for some rows of a task, float32, shape (rows, width)."""
    network.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(rows), ROWS_AT_ONCE):
            parts.append(network(*task.inputs(rows[start : start + ROWS_AT_ONCE])).numpy())
    return np.concatenate(parts)


def _train(
    parameters: Iterable[nn.Parameter], step: Step, row_count: int, schedule: Schedule
) -> list[float]:
    """Take steps through all rows, in another order each epoch; the rest that fills no batch waits for the next."""
    rng = np.random.default_rng(schedule.seed)
    size = max(min(schedule.batch, row_count) // schedule.processes, 1) * schedule.processes
    batches = max(row_count // size, 1)
    rate = schedule.learning_rate
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=WEIGHT_DECAY)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=max(batches * schedule.epochs, 2)
    )
    losses = []
    for _ in range(schedule.epochs):
        order, total = rng.permutation(row_count), 0.0
        for start in range(0, batches * size, size):
            optimizer.zero_grad()
            total += step(order[start : start + size], rng)
            optimizer.step()
            cycle.step()
        losses.append(total / batches)
    return losses


class _Alone:
    def __init__(self, network: nn.Module, task: Task) -> None:
        self.network, self.task = network, task

    def __call__(self, rows: Array, rng: np.random.Generator) -> float:
        inputs, target = self.task.batch(rows, rng)
        loss = self.task.loss(self.network(*inputs), target)
        loss.backward()
        return float(loss.detach())


class _OfRows:
    """The share of each batch that one process takes; all draw the same batch, so that chance is the same."""

    def __init__(self, network: nn.Module, task: Task) -> None:
        self.network, self.task = DistributedDataParallel(network), task
        self.share = slice(dist.get_rank(), None, dist.get_world_size())

    def __call__(self, rows: Array, rng: np.random.Generator) -> float:
        inputs, target = self.task.batch(rows, rng)
        output = self.network(*(values[self.share] for values in inputs))
        loss = self.task.loss(output, target[self.share])
        loss.backward()
        mean = loss.detach() / dist.get_world_size()
        dist.all_reduce(mean)
        return float(mean)


class _OfLayers:
    """The share of the layers that one process holds: `network` is that share alone."""

    def __init__(self, network: nn.Module, task: Task, schedule: Schedule) -> None:
        from torch.distributed.pipelining import ScheduleGPipe, SplitPoint, pipeline

        rank, world = dist.get_rank(), dist.get_world_size()
        self.task, self.rank, self.is_last = task, rank, rank == world - 1
        size = max(min(schedule.batch, len(task)) // world, 1)
        points = dict.fromkeys(_borders(network, world), SplitPoint.BEGINNING)
        pipe = pipeline(network, task.inputs(np.arange(size)), split_spec=points)
        stage = pipe.build_stage(rank, torch.device("cpu"))
        self.network = stage.submod
        self.schedule = ScheduleGPipe(stage, world, loss_fn=task.loss)

    def __call__(self, rows: Array, rng: np.random.Generator) -> float:
        inputs, target = self.task.batch(rows, rng)
        losses: list[Tensor] = []
        self.schedule.step(
            *(inputs if self.rank == 0 else ()),
            **({"target": target, "losses": losses} if self.is_last else {}),
        )
        return float(torch.stack(losses).mean().detach()) if losses else 0.0


def _borders(network: nn.Module, count: int) -> list[str]:
    """The layers that begin a share, all shares being about as long: of the network's longest list of layers."""
    depths = {
        name: len(module)
        for name, module in network.named_modules()
        if isinstance(module, nn.ModuleList)
    }
    layers = max(depths, key=lambda name: depths[name])
    return [f"{layers}.{round(i * depths[layers] / count)}" for i in range(1, count)]


def _work(rank: int, network: nn.Module, task: Task, schedule: Schedule, folder: str) -> None:
    """What one process does: its share of the training, and leaving its layers and losses in the folder."""
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(schedule.threads)
    # Of the library's own code that divides layers
    warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
    network = deepcopy(network)  # tensors are sent as memory that all processes share
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", meeting, rank=rank, world_size=schedule.processes)
    network.train()
    if schedule.parallel == "rows":
        step: _OfRows | _OfLayers = _OfRows(network, task)
        losses = _train(network.parameters(), step, len(task), schedule)
        state = network.state_dict() if rank == 0 else {}
    else:
        step = _OfLayers(network, task, schedule)
        losses = _train(step.network.parameters(), step, len(task), schedule)
        state = step.network.state_dict()
        losses = losses if step.is_last else []
    torch.save({"state": state, "losses": losses}, Path(folder, f"{rank}.pt"))
    dist.barrier()  # nobody leaves while another one waits for an answer
    # At once: when what divides the rows is taken apart, gloo's threads can wait for Python, and Python for them
    os._exit(0)
