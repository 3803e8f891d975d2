"""Better hyper-parameters by search: proposed by a tree-structured Parzen estimator (Bergstra et al., 2011; Optuna), judged by
folds of the training rows, and written into params.yaml only where what ships with them gains beyond noise on the
validation rows, and loses beyond noise on no stretch before them. No test row is read for it but what `train` reads, the inputs.

What was tried stays in data/tuning.log, so that a search that ended, or was ended, goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from threadpoolctl import threadpool_limits

from ..data.rewriting import change, on_one_line
from ..data.source import report as write_report
from ..goals.gate import sample_rows
from ..modelling.boosting import Size
from ..modelling.fitting import (
    AT_ONCE,
    STACK_FOLDS,
    TrainingTable,
    attempt_linear,
    attempt_trees,
    find_sizes,
    fitting_executor,
)
from ..modelling.folds import Fold
from ..modelling.train import (
    Lead,
    Part,
    Trial,
    choice,
    fitted_again,
    held_apart,
    lead_over,
    read_parts,
    stretches,
    uses_folds,
)
from ..parts import executor
from ..paths import SETTINGS_FILE, TUNING_LOG, TUNING_PICTURE
from ..problem import models
from ..problem.goals import unit
from ..settings import Settings, UserError, editor, missing_library, read_text, write


class Range(NamedTuple):
    """What a hyper-parameter may be, its ends included."""

    low: float
    high: float
    log: bool = True
    whole: bool = False


class Space(NamedTuple):
    """What is sought for a candidate: the keys of a block of `modelling`, in which share of the time, and until how many
    trials of a search without a number of its own."""

    block: str
    ranges: dict[str, Range]
    share: float
    most_trials: int


SPACES = {
    "linear": Space("linear", {"l2": Range(1e-3, 1e3)}, 0.2, 30),
    "lightgbm": Space(
        "boosting",
        {
            "leaves": Range(4, 255, whole=True),
            "learning_rate": Range(0.01, 0.3),
            "min_leaf_rows": Range(2, 200, whole=True),
            "feature_share": Range(0.3, 1.0, log=False),
            "l2": Range(1e-3, 100.0),
        },
        0.8,
        1000,
    ),
}
MAX_ROWS = 20_000  # that a trial is fitted to; the comparison takes all
STARTUP = 5  # trials that are finished before others are compared with their median and pruned
Values = dict[str, float]


class Attempt(TypedDict):
    """Hyper-parameters, and the mean loss with them on the folds of the training rows."""

    values: Values
    loss: float


class Candidate(TypedDict):
    """What the search found for a candidate. `gains`: of what ships with that over what ships without it, on the validation
    rows and on stretches before them; empty where nothing did better on the folds."""

    trials: int
    pruned: int
    untuned: Attempt
    best: Attempt
    gains: list[Lead]
    applied: bool
    verdict: str


class Tuning(TypedDict):
    """reports/tuning.json."""

    metric: str
    verdict: str
    candidates: dict[str, Candidate]


@dataclass(frozen=True)
class Search:
    """A candidate whose hyper-parameters are sought: what it is fitted to, and the folds that judge it."""

    name: str
    settings: Settings
    table: TrainingTable
    size: Size  # that it has as the settings are
    folds: Sequence[Fold]

    @classmethod
    def of(cls, name: str, settings: Settings, table: TrainingTable) -> Search:
        """The search for a candidate of `SPACES` on training rows, of many on a draw of them."""
        seed, few_rows = settings.project.seed, settings.modelling.few_rows
        table = table.take(sample_rows(len(table.label), MAX_ROWS, seed, unit(table.label)))
        size = find_sizes([name], table, settings, use_folds=False)[models.SIZED[name]]
        is_small = len(table.label) < few_rows.below
        folds = table.keys.folds(few_rows.folds if is_small else STACK_FOLDS, seed)
        return cls(name, settings, table, size, folds)

    @property
    def untuned(self) -> Values:
        """The hyper-parameters as they are; of the numbers of leaves that a training tries, the one that it takes."""
        space = SPACES[self.name]
        block = getattr(self.settings.modelling, space.block)
        values = {key: getattr(block, key) for key in space.ranges}
        return values | ({"leaves": self.size.leaves} if "leaves" in values else {})

    @property
    def identity(self) -> str:
        """The name of a study whose trials can be compared: of the same rows, loss and limits."""
        space = SPACES[self.name]
        limits = getattr(self.settings.modelling, space.block).model_dump(exclude={*space.ranges})
        goals = self.settings.goals.model_dump(mode="json", include={"metric", "loss", "costs"})
        parts = [limits, goals, self.size.shift, repr(self.size.objective), len(self.folds)]
        digest = hashlib.sha256(json.dumps([*parts, self.settings.project.seed]).encode())
        weight = self.table.keys.weight
        for array in (self.table.matrix, self.table.label, weight):
            digest.update(np.ascontiguousarray(array).tobytes() if array is not None else b"")
        return f"{self.name}-{digest.hexdigest()[:16]}"

    def propose(self, trial: Any) -> Values:
        """The values that a trial is for, of three digits; a range takes in what the settings have."""
        values: Values = {}
        for key, (low, high, log, whole) in SPACES[self.name].ranges.items():
            low, high = min(low, self.untuned[key]), max(high, self.untuned[key])
            if whole:
                values[key] = trial.suggest_int(key, int(low), int(high), log=log)
            else:
                values[key] = float(f"{trial.suggest_float(key, low, high, log=log):.3g}")
        return values

    def submit(self, values: Values, folds: Sequence[Fold], pool: Executor) -> list[Future[Any]]:
        """Fits to some of the folds, whose results end with the loss."""
        config, size = with_values(self.settings, self.name, values), self.size
        attempt = attempt_linear
        if "leaves" in values:
            max_trees = self.settings.modelling.boosting.max_trees
            size = replace(size, leaves=int(values["leaves"]), depth=-1, trees=max_trees)
            attempt = attempt_trees
        return [pool.submit(attempt, size, fold, self.table, config) for fold in folds]


@dataclass
class Shipped:
    """What ships with the settings so far; `trial` is None before it is asked."""

    settings: Settings
    parts: dict[str, Part]
    pool: Executor
    trial: Trial | None = None

    def take(self, name: str, values: Values) -> tuple[Trial, list[Lead], bool]:
        """Change hyper-parameters of a candidate where what ships then gains beyond noise on the validation rows, and
        loses beyond noise on no stretch before them: one stretch alone would let it win by what holds in that one.

        Returns:
            what ships then; its leads over what ships so far, up to the first that forbids it; whether it was taken.
        """
        config = with_values(self.settings, name, values)
        self.trial = rival = self.trial or choice(self.settings, self.parts, self.pool)
        trial, gains = choice(config, self.parts, self.pool), list[Lead]()
        for parts in stretches(self.parts, config):
            pair = trial, rival
            if parts is not self.parts or uses_folds(
                parts, config
            ):  # they were judged by other rows
                pair = fitted_again(trial, parts, config), fitted_again(rival, parts, self.settings)
            gains.append(lead_over(*pair, config))
            if gains[0]["low"] <= 0 or gains[-1]["high"] < 0:
                return trial, gains, False
        self.settings, self.trial = config, trial
        return trial, gains, True


def with_values(settings: Settings, name: str, values: Values) -> Settings:
    """The settings with hyper-parameters of a candidate changed."""
    block = SPACES[name].block
    changed = {**values} | ({"leaves": (int(values["leaves"]),)} if "leaves" in values else {})
    changed_block = getattr(settings.modelling, block).model_copy(update=changed)
    modelling = settings.modelling.model_copy(update={block: changed_block})
    return settings.model_copy(update={"modelling": modelling})


def tune(
    settings: Settings, root: Path, seconds: float | None = None, trials: int | None = None
) -> Tuning:
    """Search, compare what came of it on the validation rows, and write params.yaml, reports/tuning.json and its picture.

    Args:
        seconds: for all candidates together; trials: that each is to have, those of earlier searches included.

    Raises:
        UserError: when Optuna is not installed, no candidate has a space to search, or the split is missing.
    """
    optuna = _optuna()
    names: list[str] = [name for name in SPACES if name in settings.modelling.candidates]
    if not names:
        raise UserError(
            f"modelling.candidates: none of {', '.join(SPACES)} is there, and no other is tuned"
        )
    searches: dict[str, tuple[Search, Any]] = {}
    shares = np.cumsum([SPACES[name].share for name in names])
    with (
        _progress() as bar,
        executor(settings, AT_ONCE) as pool,
        fitting_executor(settings) as fitting,
        threadpool_limits(settings.modelling.threads, "blas"),
    ):
        task = bar.add_task("features", total=seconds or (trials or 1) * len(names))
        parts, _ = read_parts(settings, root)
        fit, shipped = held_apart(settings, parts).fit, Shipped(settings, parts, fitting)
        start = time.monotonic()
        for name, share in zip(names, shares / shares[-1], strict=True):
            search = Search.of(name, settings, fit)
            study = _study(optuna, root / TUNING_LOG, search.identity)
            ends = np.inf if seconds is None else start + share * seconds
            _run(search, study, ends, trials or SPACES[name].most_trials, (pool, bar, task))
            searches[name] = search, study
        bar.update(task, description="what ships, compared")
        rows = {name: _outcome(*search, shipped) for name, search in searches.items()}
    write_settings(
        root / SETTINGS_FILE,
        {name: row["best"]["values"] for name, row in rows.items() if row["applied"]},
    )
    verdict = " ".join(row["verdict"] for row in rows.values())
    report: Tuning = {"metric": settings.goals.metric, "verdict": verdict, "candidates": rows}
    write_report(root, "tuning", report)
    _draw(root / TUNING_PICTURE, rows, {name: study for name, (_, study) in searches.items()})
    return report


def _optuna() -> Any:
    """Optuna, quiet; a UserError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise missing_library("optuna") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(optuna: Any, path: Path, name: str) -> Any:
    """A study of that name in a file of trials, begun where it is not there.

    Raises:
        UserError: when something else wrote the file.
    """
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path.parent.mkdir(parents=True, exist_ok=True)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP)
    try:
        backend = JournalFileBackend(str(path), JournalFileOpenLock(str(path)))
        storage = optuna.storages.JournalStorage(backend)
        return optuna.create_study(
            storage=storage, study_name=name, load_if_exists=True, pruner=pruner
        )
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not what `tune` left there; delete it to begin anew") from None


def _run(
    search: Search,
    study: Any,
    ends: float,
    trials: int,
    run: tuple[Executor, Progress, TaskID],
) -> None:
    """Add trials to a study, first of the settings as they are, until a moment comes or it has so many.

    The seed of each trial comes of how many are finished, so that a search in two goes is the one in one go. On a
    cluster as many trials are under way as it has workers, and begin and end together, so that no clock decides.

    Args:
        ends: as `time.monotonic` has it.
    """
    import optuna

    state, untuned = optuna.trial.TrialState, search.untuned
    pool, bar, task = run
    for trial in study.get_trials(states=[state.RUNNING]):  # a search was killed
        study.tell(trial.number, state=state.FAIL)
    if (begun := _trial_of(study, untuned)) is None:
        study.enqueue_trial(untuned)
    while (finished := len(_finished(study))) < trials or begun is None:
        if (last := time.monotonic()) >= ends and begun is not None:
            return
        batch = {}
        count = _at_once(pool, trials - finished) if begun else 1
        for number in range(finished, finished + count):
            study.sampler = optuna.samplers.TPESampler(seed=search.settings.project.seed + number)
            trial = study.ask()
            batch[trial.number] = trial, search.propose(trial), list[float]()
        _try(search, [*batch.values()], pool, ends if begun else None)
        for trial, _, losses in batch.values():
            if len(losses) == len(search.folds):
                study.tell(trial, float(np.mean(losses)))
            else:  # what the time cut off is tried again in the next search
                study.tell(trial, state=state.FAIL if time.monotonic() >= ends else state.PRUNED)
        begun = begun or _trial_of(study, untuned)
        text = f"{search.name}, {finished + 1} trials, best loss {study.best_value:.5g}"
        step = 1.0 if ends == np.inf else time.monotonic() - last
        bar.update(task, advance=step, description=text)


def _at_once(pool: Executor, limit: int) -> int:
    """Trials that are under way together: one on this machine, on a cluster one for each worker."""
    return max(1, min(getattr(pool, "workers", 1), limit))


def _try(
    search: Search, batch: list[tuple[Any, Values, list[float]]], pool: Executor, ends: float | None
) -> None:
    """Fill in the losses of trials, some folds at a time, until the search ends, and of each until it is pruned; `ends` is
    None for those that are to have all."""
    for start in range(0, len(search.folds), AT_ONCE):
        folds = search.folds[start : start + AT_ONCE]
        runs = [search.submit(values, folds, pool) for _, values, _ in batch]
        for (trial, _, losses), fits in zip(batch, runs, strict=True):
            losses += [fit.result()[1] for fit in fits]
            trial.report(float(np.mean(losses)), len(losses))
        if ends is not None:
            batch = [e for e in batch if time.monotonic() < ends and not e[0].should_prune()]


def _finished(study: Any) -> list[Any]:
    """The trials that came to a loss or were pruned."""
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]


def _trial_of(study: Any, values: Values) -> Any:
    """The trial of some values that came to a loss; None: there is none."""
    trials = (trial for trial in _finished(study) if trial.params == values)
    return next((trial for trial in trials if trial.state.name == "COMPLETE"), None)


def _outcome(search: Search, study: Any, shipped: Shipped) -> Candidate:
    """The best trial; where it did better on the folds, what ships with it held against what ships without it."""
    metric = search.settings.goals.metric
    name, untuned, best = search.name, _trial_of(study, search.untuned), study.best_trial
    finished = _finished(study)
    values = {
        key: value if isinstance(value, int) else float(f"{value:.3g}")
        for key, value in best.params.items()
    }
    row: Candidate = {
        "trials": len(finished),
        "pruned": sum(trial.state.name == "PRUNED" for trial in finished),
        "untuned": {"values": untuned.params, "loss": untuned.value},
        "best": {"values": values, "loss": best.value},
        "gains": [],
        "applied": False,
        "verdict": f"{name}: none of {len(finished)} trials does better on the folds of the training rows.",
    }
    if best.value >= untuned.value:
        row["best"] = row["untuned"]
        return row
    trial, row["gains"], row["applied"] = shipped.take(name, values)
    margins = [f"{g['value']:+.3g} ({g['low']:+.2g} to {g['high']:+.2g})" for g in row["gains"]]
    before = f", on stretches before them {', '.join(margins[1:])}" if margins[1:] else ""
    end = "the last is a loss beyond noise" if margins[1:] else "nothing beyond noise"
    end = "; it is written" if row["applied"] else f": {end}, and the settings stay"
    instead = (
        "" if trial.name == (rival := row["gains"][0]["baseline"]) else f" in place of {rival}"
    )
    row["verdict"] = (
        f"{name}: with the best of {len(finished)} trials {trial.name} ships{instead}; {metric} gains {margins[0]} "
        f"on the validation rows{before}{end}."
    )
    return row


def write_settings(path: Path, changes: Mapping[str, Values]) -> None:
    """Change hyper-parameters of candidates, and nothing else in params.yaml."""
    if not changes:
        return
    tree = editor().load(read_text(path).replace("\r\n", "\n"))
    for name, values in changes.items():
        block: dict[str, Any] = {**values}
        if "leaves" in block:
            block["leaves"] = on_one_line([int(block["leaves"])])
        if (key := SPACES[name].block) in tree["modelling"]:
            change(tree["modelling"][key], **block)
        else:  # settings that are older than the key
            change(tree["modelling"], **{key: on_one_line(block)})
    write(path, tree)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = TextColumn("tune: {task.description}"), BarColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _draw(path: Path, rows: Mapping[str, Candidate], studies: Mapping[str, Any]) -> None:
    from matplotlib.figure import Figure

    picture = Figure(figsize=(6, 3 * len(rows)), layout="constrained")
    for axes, (name, row) in zip(
        np.ravel(picture.subplots(len(rows), 1, squeeze=False)), rows.items(), strict=True
    ):
        finished = _finished(studies[name])
        order, losses = np.arange(1, len(finished) + 1), np.array([t.value for t in finished])
        pruned = np.array([trial.state.name == "PRUNED" for trial in finished])
        for label, marker, drawn in (("to the end", "o", ~pruned), ("pruned", "x", pruned)):
            axes.plot(order[drawn], losses[drawn], marker, label=label, alpha=0.6)
        best = np.minimum.accumulate(np.where(pruned, np.inf, losses))
        axes.step(order, best, where="post", label="best")
        axes.axhline(row["untuned"]["loss"], color="grey", lw=0.8, ls="--", label="untuned")
        axes.set(title=name, xlabel="trial", ylabel="loss on the folds")
        axes.legend(fontsize=8)
    picture.savefig(path, dpi=100)


def show(report: Tuning, console: Console) -> None:
    """Print what each hyper-parameter is and what did best on the folds, and the verdict."""
    table = Table("", "as it is", "best on the folds", box=SIMPLE_HEAD)
    for name, row in report["candidates"].items():
        for key, value in row["untuned"]["values"].items():
            block, best = SPACES[name].block, row["best"]["values"][key]
            table.add_row(f"modelling.{block}.{key}", f"{value:g}", f"{best:g}")
        losses = row["untuned"]["loss"], row["best"]["loss"]
        table.add_row(f"{name}: loss on the folds", *(f"{loss:.5g}" for loss in losses))
    console.print(table)
    for row in report["candidates"].values():
        console.print(f"· {row['verdict']}", markup=False)
    console.print(f"{TUNING_PICTURE} shows the trials.", markup=False)
