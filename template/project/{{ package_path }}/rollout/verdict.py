"""What every experiment's report is made of: figures with intervals, checks, one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NotRequired, TypedDict

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
from .router import SLOW_SHARE

MIN_SAMPLE = 100  # units of each arm, or rows, below which nothing is said
GAIN_NAMES = {"value": "value per prediction", "reward": "reward per prediction"}
# Share answered by a fallback from which an arm is no model, where nothing is promised
MAX_FALLBACK_SHARE = 0.5
# What a broken check means, the worst first, by what marks it
BROKEN_VERDICTS: dict[Literal["standing", "guardrail", "check"], str] = {
    "standing": "Stop: the champion is broken ({faults}): a fallback answered for it, so nothing here is told of "
    "the model in production. Mend that first, then begin anew.",
    "guardrail": "Stop: the challenger broke a guardrail ({faults}). `rollout mode=single` takes it back.",
    "check": "Stop: what was compared is not comparable ({faults}), so no effect may be read from it. Find what "
    "loses or moves answers on the way to the log, then begin anew.",
}
Array = np.ndarray
FigureRow = dict[str, Any]  # "figure": its name, and what of both arms, gain and interval it has


class Check(TypedDict):
    """A condition that figures rest on, or a promise that holds whatever an arm earns."""

    check: str
    rule: str
    limit: float
    measured: float
    passed: bool
    guardrail: bool
    standing: bool


class Report(TypedDict):
    """What reports/experiment.json holds; `needs`, units by number of looks, is a plan's."""

    mode: str
    state: str
    verdict: str
    figures: list[FigureRow]
    checks: list[Check]
    notes: list[str]
    needs: NotRequired[dict[str, int]]


def report(
    verdict: str,
    state: str = "decided",
    figures: Sequence[FigureRow] = (),
    checks: Sequence[Check] = (),
    notes: Sequence[str] = (),
) -> Report:
    """An experiment's report, without its mode; a check that is broken takes the place of the verdict.

    Args:
        state: waiting or decided; broken where a check is.
    """
    broken = [result for result in checks if not result["passed"]]
    if broken:
        state = "broken"
        faults = "; ".join(map(_check_phrase, broken))
        verdict = next(
            text for kind, text in BROKEN_VERDICTS.items() if any(result[kind] for result in broken)
        ).format(faults=faults)
    return {
        "mode": "", "state": state, "verdict": verdict,
        "figures": list(figures), "checks": list(checks), "notes": list(notes),
    }  # fmt: skip


def waiting(need: str, checks: Sequence[Check] = (), notes: Sequence[str] = ()) -> Report:
    """The report of an experiment that has too little to go by, and says what it needs."""
    return report(f"Nothing to say yet: {need}.", "waiting", (), checks, notes)


def check(
    name: str,
    rule: str,
    limit: float,
    measured: float,
    guardrail: bool = False,
    standing: bool = False,
) -> Check:
    """A check of a measured figure against its limit.

    Args:
        rule: "at most" or "at least".
        guardrail: the challenger's promise; standing: whether there is a champion to compare with.
    """
    passed = measured <= limit if rule == "at most" else measured >= limit
    return {
        "check": name, "rule": rule, "limit": limit, "measured": float(measured),
        "passed": bool(passed), "guardrail": guardrail, "standing": standing,
    }  # fmt: skip


def _check_phrase(check: Check) -> str:
    return f"{check['check']}: {check['measured']:.4g}, {check['rule']} {check['limit']:g}"


def guardrails(rows: pd.DataFrame, settings: Settings) -> list[Check]:
    """Checks of the challenger's answers against what a service must keep whatever it earns.

    Args:
        rows: the challenger's answers, with `_fallback` and `_latency_ms`.
    """
    targets, checks = settings.goals.targets, []
    max_latency = targets.latency_p99_ms
    rate = MAX_FALLBACK_SHARE if targets.error_rate is None else targets.error_rate
    limits = [("share answered by a fallback", rows["_fallback"].notna(), rate)]
    if max_latency is not None:
        slow = rows["_latency_ms"] > max_latency
        limits.append((f"share above {max_latency:g} ms", slow, SLOW_SHARE))
    for name, events, limit in limits:
        if len(rows):
            result = check(f"challenger's {name}", "at most", limit, events.mean(), guardrail=True)
            # Only what chance does not explain counts as broken
            result["passed"] = not surely_more(int(events.sum()), len(rows), limit)
            checks.append(result)
    return checks


def champion_checks(failed: int, answers: int, settings: Settings) -> list[Check]:
    """The check whether the champion's own model answered for it; none where nothing was answered.

    Args:
        failed: how many of the champion's answers a fallback gave; answers: of how many.
    """
    if not answers:
        return []
    promised = settings.goals.targets.error_rate
    limit = MAX_FALLBACK_SHARE if promised is None else promised
    name = "champion's share answered by a fallback"
    result = check(name, "at most", limit, failed / answers, standing=True)
    return [result | {"passed": not surely_more(failed, answers, limit)}]


def earnings(rows: pd.DataFrame, settings: Settings) -> Array:
    """What each row earned, by `rollout.verdict.metric`, shape (rows,); NaN where not known yet."""
    if settings.rollout.verdict.metric == "reward":
        return rows["_reward"].to_numpy(np.float64)
    y, decision = (rows[column].to_numpy(np.float64) for column in ("_y", "_decision"))
    measured = np.isfinite(y) & np.isfinite(decision)
    return np.where(measured, value(y, decision, settings.goals.costs), np.nan)


def row(name: str, pair: Iterable[float] = (), **extras: Any) -> FigureRow:
    """A figure of a report: its value of both arms, or of neither, and what else is known of it."""
    return {"figure": name, **dict(zip(ARMS, map(float, pair), strict=False)), **extras}


def figure(name: str, pair: Iterable[float], gain: Estimate, level: float) -> FigureRow:
    """A figure of both arms with the challenger's gain, the always-valid interval and one look's."""
    low, high = gain.anytime_interval(level)
    one_look, units = list(gain.interval(level)), gain.units
    return row(name, pair, gain=gain.value, low=low, high=high, one_look=one_look, units=units)


def sentence(primary: FigureRow, effect: float, better: str, worse: str) -> str:
    """A gain as a sentence: better, worse, no difference that is worth something, or undecided.

    Args:
        primary: with a gain, as `figure` makes it.
        effect: least gain that matters, as a share of the champion's figure.
    """
    worth = effect * abs(primary["champion"])
    span = (
        f"{primary['gain']:+.4g} in {primary['figure']}, between {primary['low']:.4g} "
        f"and {primary['high']:.4g}"
    )
    if primary["low"] > 0:
        return f"{better}: {span}."
    if primary["high"] < 0:
        return f"{worse}: {span}."
    if max(-primary["low"], primary["high"]) < worth:
        return f"No difference that matters: {span}, so less than {worth:g} either way."
    return f"Undecided: {span}. Let it run on."


def show(result: Report, console: Console) -> None:
    """Print a report: the figures, the checks, the notes, and the verdict last."""
    names = (*ARMS, "gain", "low", "high")
    table = Table("figure", *names, box=SIMPLE_HEAD, title=result["mode"], title_justify="left")
    for row in result["figures"]:
        table.add_row(row["figure"], *(f"{row[n]:.4g}" if n in row else "–" for n in names))
    if result["figures"]:
        console.print(table)
    for check in result["checks"]:
        mark = "[green]holds[/]" if check["passed"] else "[bold red]BROKEN[/]"
        console.print(f"{mark} {_check_phrase(check)}")
    for line in result["notes"]:
        console.print(f"· {line}", markup=False)
    console.print(result["verdict"], markup=False, style="bold")
