"""What every experiment's report is made of: figures with intervals, checks, one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..goals.gate import surely_more
from ..problem.goals import value
from ..scoring.state import ARMS
from ..settings import Settings
from .comparison import Estimate

FEWEST = 100  # units of each arm, or rows, below which nothing is said
SLOW_SHARE = 0.01  # of answers that may take longer than the 99th percentile that was promised
GAIN = {"value": "value per prediction", "reward": "reward per prediction"}
MOSTLY = (
    0.5  # share answered by a fallback from which an arm is no model, where nothing is promised
)
# What a broken check means, the worst first, by what marks it
BROKEN = {
    "standing": "Stop: the champion is broken ({what}): a fallback answered for it, so nothing here is told of "
    "the model in production. Mend that first, then begin anew.",
    "guardrail": "Stop: the challenger broke a guardrail ({what}). `rollout mode=single` takes it back.",
    "check": "Stop: what was compared is not comparable ({what}), so no effect may be read from it. Find what "
    "loses or moves answers on the way to the log, then begin anew.",
}
Array = np.ndarray
Report = dict[str, Any]


def report(
    verdict: str,
    state: str = "decided",
    figures: Sequence[Report] = (),
    checks: Sequence[Report] = (),
    notes: Sequence[str] = (),
) -> Report:
    """A report; a check that is broken takes the place of the verdict."""
    broken = [one for one in checks if not one["passed"]]
    if broken:
        state = "broken"
        what = "; ".join(
            f"{one['check']}: {one['measured']:.4g}, {one['rule']} {one['limit']:g}"
            for one in broken
        )
        verdict = next(
            said for sign, said in BROKEN.items() if any(one[sign] for one in broken)
        ).format(what=what)
    lists = {"figures": list(figures), "checks": list(checks), "notes": list(notes)}
    return {"mode": "", "state": state, "verdict": verdict, **lists}


def waiting(what: str, checks: Sequence[Report] = (), notes: Sequence[str] = ()) -> Report:
    """The report of an experiment that has too little to go by, and says what it needs."""
    return report(f"Nothing to say yet: {what}.", "waiting", (), checks, notes)


def check(
    words: str,
    rule: str,
    limit: float,
    measured: float,
    guardrail: bool = False,
    standing: bool = False,
) -> Report:
    """A condition that figures rest on, or a promise that holds whatever an arm earns.

    Args:
        guardrail: the challenger's promise; standing: whether there is a champion to compare with.
    """
    passed = measured <= limit if rule == "at most" else measured >= limit
    return {
        **{"check": words, "rule": rule, "limit": limit, "measured": float(measured)},
        **{"passed": bool(passed), "guardrail": guardrail, "standing": standing},
    }


def guardrails(rows: pd.DataFrame, settings: Settings) -> list[Report]:
    """The challenger's answers against what a service must keep whatever it earns."""
    targets, found = settings.goals.targets, []
    slowest = targets.latency_p99_ms
    limits = [("share answered by a fallback", rows["_fallback"].notna(), targets.error_rate)]
    if targets.error_rate is None:
        limits = [(*limits[0][:2], MOSTLY)]
    if slowest is not None:
        limits.append((f"share above {slowest:g} ms", rows["_latency_ms"] > slowest, SLOW_SHARE))
    for words, happened, limit in limits:
        if limit is not None and len(rows):
            one = check(f"challenger's {words}", "at most", limit, happened.mean(), guardrail=True)
            # Only what chance does not explain counts as broken
            one["passed"] = not surely_more(int(happened.sum()), len(rows), limit)
            found.append(one)
    return found


def standing(failed: int, answers: int, settings: Settings) -> list[Report]:
    """Whether the champion's own model answered for it, as far as was promised.

    Args:
        failed: how many of its answers a fallback gave.
    """
    if not answers:
        return []
    promised = settings.goals.targets.error_rate
    limit = MOSTLY if promised is None else promised
    words = "champion's share answered by a fallback"
    one = check(words, "at most", limit, failed / answers, standing=True)
    return [one | {"passed": not surely_more(failed, answers, limit)}]


def earned(rows: pd.DataFrame, settings: Settings) -> Array:
    """What each row earned, by `rollout.verdict.metric`; NaN where it is not known yet."""
    if settings.rollout.verdict.metric == "reward":
        return rows["_reward"].to_numpy(np.float64)
    y, decided = (rows[one].to_numpy(np.float64) for one in ("_y", "_decision"))
    known = np.isfinite(y) & np.isfinite(decided)
    return np.where(known, value(y, decided, settings.goals.costs), np.nan)


def row(words: str, pair: Iterable[float] = (), **more: Any) -> Report:
    """A figure of both arms, or of neither, with what else is known of it."""
    return {"figure": words, **dict(zip(ARMS, map(float, pair), strict=False)), **more}


def figure(words: str, pair: Iterable[float], gain: Estimate, level: float) -> Report:
    """A figure of both arms, and the gain with the interval that allows for looking."""
    low, high = gain.always(level)
    once, units = list(gain.interval(level)), gain.units
    return row(words, pair, gain=gain.value, low=low, high=high, one_look=once, units=units)


def sentence(found: Report, effect: float, better: str, worse: str) -> str:
    """A gain as a sentence: better, worse, no difference that is worth something, or undecided.

    Args:
        effect: least gain that matters, as a share of the champion's figure.
    """
    worth = effect * abs(found["champion"])
    span = (
        f"{found['gain']:+.4g} in {found['figure']}, between {found['low']:.4g} "
        f"and {found['high']:.4g}"
    )
    if found["low"] > 0:
        return f"{better}: {span}."
    if found["high"] < 0:
        return f"{worse}: {span}."
    if max(-found["low"], found["high"]) < worth:
        return f"No difference that matters: {span}, so less than {worth:g} either way."
    return f"Undecided: {span}. Let it run on."


def show(found: Report, console: Console) -> None:
    """Print a report: the figures, the checks, the notes, and the verdict last."""
    names = (*ARMS, "gain", "low", "high")
    table = Table("figure", *names, box=SIMPLE_HEAD, title=found["mode"], title_justify="left")
    for row in found["figures"]:
        table.add_row(row["figure"], *(f"{row[n]:.4g}" if n in row else "–" for n in names))
    if found["figures"]:
        console.print(table)
    for row in found["checks"]:
        mark = "[green]holds[/]" if row["passed"] else "[bold red]BROKEN[/]"
        limit = f"{row['rule']} {row['limit']:g}"
        console.print(f"{mark} {row['check']}: {row['measured']:.4g}, {limit}")
    for line in found["notes"]:
        console.print(f"· {line}", markup=False)
    console.print(found["verdict"], markup=False, style="bold")
