"""What an online experiment says: one verdict for each kind, from the prediction log and feedback.

Here are the choice of the kind, the plan of an A/B test, and its verdict; the others are in replay.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection
from scipy.stats import chisquare, norm

from ..data.schema import text
from ..data.source import report as write
from ..data.times import time_sql
from ..features.catalogue import inputs, load
from ..goals.gate import SURE, measure
from ..modelling.scorer import load_scorer
from ..paths import MANIFEST_FILE, MODEL_FILE, PRODUCTION, SPLITS, TRAINED
from ..problem.goals import decide
from ..records import SCORE_COLUMN, Unreadable, score_array
from ..repository import verified
from ..scoring.state import ARMS
from ..settings import Settings, UserError, read_json
from . import replay
from .comparison import difference, linear, sample_size
from .outcomes import outcomes
from .verdict import (
    FEWEST,
    GAIN,
    Report,
    check,
    earned,
    figure,
    guardrails,
    report,
    row,
    sentence,
    standing,
    waiting,
)

MANY_SHARES = 20  # more than an A/B test is given, and fewer than a bandit goes through
READ = f"_unit, _time, _arm, _propensity, {SCORE_COLUMN}, _decision, _fallback, _latency_ms, _y, _reward"
Array = np.ndarray


def experiment(
    settings: Settings,
    root: Path,
    kind: str | None = None,
    since: str | None = None,
    file: Path | None = None,
) -> Report:
    """Write reports/experiment.json: the verdict, the figures behind it, and the checks it rests on.

    Args:
        kind: one of `KINDS`; None: the one that the log's last answers tell of.
        since: leave out what is earlier, as 2026-01-31.
        file: of an interleaving, see `replay.interleaving`.

    Returns:
        {"mode", "state", "verdict", "figures", "checks", "notes"}; the state is waiting, decided,
        or broken: a check failed, so that the figures must not be believed or acted on.

    Raises:
        UserError: for a kind, date or file that is none.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(f"{kind}: no kind of experiment; use one of {', '.join(KINDS)}")
    if kind == "interleaving" or (file and kind is None):
        kind, found = "interleaving", replay.interleaving(settings, file)
    elif kind == "backtest":
        found = replay.backtest(settings, root)
    else:
        unreadable: list[Unreadable] = []
        with outcomes(settings, root, *inputs(settings), unreadable=unreadable) as sql:
            if since is not None:
                _leave_out(sql, since)
            kind = kind or _kind(sql)
            found = ONLINE[kind](sql, settings, root)
        found["notes"] += [f"not readable: {one}" for one in unreadable]
    found["mode"] = kind
    return write(root, "experiment", found)


def _leave_out(sql: DuckDBPyConnection, since: str) -> None:
    moment = sql.execute(f"SELECT {time_sql(text(since), 'VARCHAR', None)}").fetchall()[0][0]
    if moment is None:
        raise UserError(f"--since {since}: no date; write 2026-01-31")
    sql.execute("DELETE FROM answers WHERE _time < ?", [moment])


def _kind(sql: DuckDBPyConnection) -> str:
    ((drawn, unseen, chances, explored),) = sql.execute(
        "SELECT count(*) FILTER (_assigned), count(*) FILTER (NOT _answered), "
        "count(DISTINCT _propensity) FILTER (_assigned), count(*) FILTER (_decision_propensity < 1) "
        "FROM (FROM answers ORDER BY _time DESC LIMIT 100000)"
    ).fetchall()
    if drawn:
        return "bandit" if chances > MANY_SHARES else "ab"
    return "shadow" if unseen else "exploration" if explored else "ab"


def plan(settings: Settings, root: Path, effect: float | None = None) -> Report:
    """How long an A/B test has to run to find `effect`, a share of what is earned, before it starts.

    The spread by unit and the units a day are the log's, or else the test rows' under the model
    that would be the champion.

    Raises:
        UserError: when there is neither a log nor a model, or the effect is not above 0.
    """
    given, router = settings.rollout.verdict, settings.rollout.router
    effect = given.effect if effect is None else effect
    if effect <= 0:
        raise UserError(f"--effect {effect:g}: the least gain worth finding is above 0")
    if not 0 < router.share < 1:
        raise UserError("rollout.router.share: an A/B test needs a share between 0 and 1")
    with outcomes(settings, root) as sql:
        rows = sql.execute(
            f"SELECT {READ} FROM answers WHERE _answered AND _arm = '{ARMS[0]}'"
        ).df()
    gain, source = earned(rows, settings), "the log"
    rows, gain = rows[np.isfinite(gain)], gain[np.isfinite(gain)]
    if rows["_unit"].nunique() < FEWEST:
        source = "the test rows, until the log has labels"
        rows = _offline(settings, root)
        gain = earned(rows, settings)
    codes, units = pd.factorize(rows["_unit"])
    z = linear(np.bincount(codes, gain), np.bincount(codes).astype(float))
    days = (rows["_time"].max() - rows["_time"].min()).total_seconds() / 86400
    spread, daily = float(z.std(ddof=1)), len(units) / max(days, 1.0)
    worth = effect * abs(float(z.mean())) or effect * spread  # where gains and costs cancel out
    found = sample_size(spread, worth, router.share, settings.goals.interval.level, given.power)
    once, always = (
        f"{count:,} units, about {math.ceil(count / daily):,} days" for count in found.values()
    )
    verdict = (
        f"To find a gain of {effect:.3g} of the {GAIN[given.metric]}, {worth:.3g}, with a chance of {given.power:.0%}: "
        f"{once}, if you look once at the end; {always}, if you may stop at any look."
    )
    figures = [
        row(f"{GAIN[given.metric]} now", [z.mean()]),
        row("spread by unit", [spread]),
        row("units a day", [daily]),
    ]
    notes = [f"Spread and traffic are those of {source}; {router.share:.0%} go to the challenger."]
    return {**report(verdict, figures=figures, notes=notes), "mode": "plan", "needs": found}


def _offline(settings: Settings, root: Path) -> pd.DataFrame:
    """The test rows as if the champion-to-be had answered them."""
    production = verified(root, PRODUCTION)
    folder = production if production.is_dir() else root / TRAINED
    test, unit = root / SPLITS["test"], settings.rollout.router.unit
    if not (folder / MANIFEST_FILE).is_file():
        raise UserError(f"{folder}/manifest.json is not here: `run` first, or serve and get labels")
    manifest = read_json(folder / MANIFEST_FILE)
    rows = duckdb.execute(
        "SELECT *, CAST(row_number() OVER () AS VARCHAR) AS _unit FROM read_parquet(?)",
        [str(test)],
    ).df()
    if unit in rows:
        rows["_unit"] = rows[unit].astype(str)
    time = settings.data.schema_.time
    moment = rows[time] if time in rows else pd.Timestamp(0)
    decided = decide(
        load_scorer(folder / MODEL_FILE).score(load(test, inputs(settings))), manifest["decision"]
    )
    return rows.assign(_time=moment, _reward=rows["_y"], _decision=decided)


# --- A/B ---


def _ab(sql: DuckDBPyConnection, settings: Settings, root: Path) -> Report:
    """The two arms by unit, with what has to hold before a difference means anything."""
    start, notes = _start(sql)
    rows = sql.execute(
        f"SELECT {READ} FROM answers WHERE _assigned AND _answered AND _time > ?", [start]
    ).df()
    if rows.empty:
        return waiting(
            "no answer was drawn between two models; `challenge` puts one beside production, "
            "`rollout mode=ab` begins"
        )
    codes, units = pd.factorize(rows["_unit"])
    challenger = (rows["_arm"] == ARMS[1]).to_numpy()
    sides = [np.bincount(codes[one], minlength=len(units)) > 0 for one in (~challenger, challenger)]
    second = sides[1]
    checks = [
        _ratio(rows, second),
        check("units that met both arms", "at most", 0, int((sides[0] & second).sum())),
        *guardrails(rows[challenger], settings),
        *standing(
            int(rows["_fallback"][~challenger].notna().sum()), int((~challenger).sum()), settings
        ),
    ]
    gain = earned(rows, settings)
    known = np.isfinite(gain)
    labelled = np.bincount(codes, known) > 0
    few = min(int((labelled & one).sum()) for one in (~second, second))
    metric = settings.rollout.verdict.metric
    if few < FEWEST:
        what = "label" if metric == "value" else "reward"
        return waiting(
            f"{few} of {FEWEST} units have a {what} in the arm that has fewer; POST /feedback "
            f"brings them",
            checks,
            notes,
        )
    checks.append(_covered(codes, known, second))
    total, count = np.bincount(codes, np.where(known, gain, 0)), np.bincount(codes, known)
    z = _by_arm(total[labelled], count[labelled], second[labelled])
    before = _before(sql, settings, rows["_time"].min(), pd.Index(units))
    gap, explained = difference(z, second[labelled], None if before is None else before[labelled])
    if explained:
        notes.append(f"What units earned before the start explains {explained:.0%} of the spread.")
    means = (float(z[one].mean()) for one in (~second[labelled], second[labelled]))
    found = figure(GAIN[metric], means, gap, settings.goals.interval.level)
    verdict = sentence(
        found,
        settings.rollout.verdict.effect,
        "The challenger is better, however often you looked",
        "The challenger is worse, however often you looked",
    )
    figures = [found, *_beside(rows, challenger, settings)]
    return report(verdict, figures=figures, checks=checks, notes=notes)


def _start(sql: DuckDBPyConnection) -> tuple[Any, list[str]]:
    """The end of the time in which another share or name was drawn by, or another model answered."""
    notes, start = [], pd.Timestamp(0).to_pydatetime()
    own = f"CASE _arm WHEN '{ARMS[1]}' THEN _propensity ELSE 1 - _propensity END"
    changes = [
        (f"round({own}, 9)", "true", "another share was drawn"),
        ("coalesce(_experiment, '')", "true", "units were drawn for another experiment"),
    ]
    changes += [
        ("_model", f"_fallback IS NULL AND _arm = '{arm}'", f"another {arm} answered")
        for arm in ARMS
    ]
    for what, where, words in changes:
        ((last,),) = sql.execute(
            f"WITH drawn AS (SELECT _time, {what} AS what FROM answers WHERE _assigned AND _answered "
            f"AND {where}) SELECT max(_time) FROM drawn "
            f"WHERE what <> (SELECT last(what ORDER BY _time) FROM drawn)"
        ).fetchall()
        if last is not None:
            notes.append(f"Only answers after {last:%Y-%m-%d %H:%M:%S} count: until then {words}.")
            start = max(start, last)
    return start, notes


def _ratio(rows: pd.DataFrame, second: Array) -> Report:
    """Sample-ratio mismatch (Fabijan et al., 2019): units by arm against the logged chance."""
    first = rows.iloc[0]
    share = first["_propensity"] if first["_arm"] == ARMS[1] else 1 - first["_propensity"]
    got = [int((~second).sum()), int(second.sum())]
    p = 1.0
    if 0 < share < 1:
        p = float(chisquare(got, [len(second) * (1 - share), len(second) * share]).pvalue)
    words = f"chance of {got[0]:,} and {got[1]:,} units by arm, {share:.3g} drawn for the second"
    return check(words, "at least", SURE, p)


def _covered(codes: Array, known: Array, second: Array) -> Report:
    """Labels that come for one arm more than for the other tell of the labels, not of the models."""
    z = _by_arm(np.bincount(codes, known), np.bincount(codes).astype(float), second)
    gap, _ = difference(z, second)
    p = 2 * norm.sf(abs(gap.value) / gap.error) if gap.error else 1.0
    return check("chance of arms labelled so unevenly", "at least", SURE, p)


def _by_arm(total: Array, count: Array, second: Array) -> Array:
    z = np.empty(len(total))
    for side in (second, ~second):
        z[side] = linear(total[side], count[side])
    return z


def _before(
    sql: DuckDBPyConnection, settings: Settings, start: Any, units: pd.Index
) -> Array | None:
    """What each unit earned before anything was drawn for it; None when the log has nothing."""
    rows = sql.execute(
        f"SELECT {READ} FROM answers WHERE NOT _assigned AND _answered AND _time < ?",
        [start.to_pydatetime()],
    ).df()
    gain, place = earned(rows, settings), units.get_indexer(rows["_unit"])
    use = np.isfinite(gain) & (place >= 0)
    if not use.any():
        return None
    count = np.bincount(place[use], minlength=len(units)).astype(float)
    return linear(np.bincount(place[use], gain[use], len(units)), count)


def _beside(rows: pd.DataFrame, challenger: Array, settings: Settings) -> list[Report]:
    """Figures by arm to look at; nothing is decided on them."""
    metric = settings.goals.metric
    sides = [rows[~challenger], rows[challenger]]
    labelled = [side[side["_y"].notna() & side[SCORE_COLUMN].notna()] for side in sides]
    found: dict[str, list[float]] = {}
    if min(map(len, labelled)) >= FEWEST:
        found[metric] = [
            measure(
                metric,
                side["_y"].to_numpy(np.float64),
                score_array(side[SCORE_COLUMN]),
                side["_decision"].to_numpy(np.float64),
            )
            for side in labelled
        ]
    found["mean reward"] = [float(side["_reward"].mean()) for side in sides]
    found["share answered by a fallback"] = [
        float(side["_fallback"].notna().mean()) for side in sides
    ]
    found["p99 in ms"] = [float(side["_latency_ms"].quantile(0.99)) for side in sides]
    return [row(words, pair) for words, pair in found.items() if np.isfinite(pair).all()]


ONLINE: dict[str, Callable[[DuckDBPyConnection, Settings, Path], Report]] = {
    "ab": _ab,
    "bandit": replay.bandit,
    "exploration": replay.exploration,
    "shadow": replay.shadow,
}
KINDS = (*ONLINE, "backtest", "interleaving")
