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

from .. import problem
from ..data.schema import text
from ..data.source import report as write_report
from ..data.times import time_sql
from ..features.catalogue import inputs, load
from ..goals.gate import SIGNIFICANCE, measure
from ..modelling.scorer import load_scorer
from ..paths import MANIFEST_FILE, MODEL_FILE, SPLITS
from ..problem.goals import decide
from ..records import SCORE_COLUMN, Unreadable, score_array
from ..scoring.batch import answering_folder
from ..scoring.state import ARMS
from ..settings import Settings, UserError, read_json
from . import replay
from .comparison import difference, linearize, sample_size
from .outcomes import outcomes
from .verdict import (
    GAIN_NAMES,
    MIN_SAMPLE,
    Check,
    FigureRow,
    Report,
    champion_checks,
    check,
    earnings,
    figure,
    guardrails,
    report,
    row,
    sentence,
    waiting,
)

MAX_AB_SHARES = 20  # more than an A/B test is given, and fewer than a bandit goes through
LOG_COLUMNS = f"_unit, _time, _arm, _propensity, {SCORE_COLUMN}, _decision, _fallback, _latency_ms, _y, _reward"
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
        kind: one of `KINDS`; None: that of the log's last answers.
        since: leave out what is earlier, as 2026-01-31.
        file: of an interleaving, see `replay.interleaving`.

    Returns:
        the report; its state is waiting, decided, or broken: a check failed, so that the figures
        must not be believed or acted on.

    Raises:
        UserError: when there is no such kind, or the date or the file cannot be read.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(f"{kind}: no kind of experiment; use one of {', '.join(KINDS)}")
    if file and kind in (None, "interleaving"):
        kind, result = "interleaving", replay.interleaving(settings, file)
    elif kind == "interleaving" and not problem.LISTED:
        result = replay.interleaving(settings, None)
    elif kind == "backtest":
        result = replay.backtest(settings, root)
    else:
        unreadable: list[Unreadable] = []
        with outcomes(settings, root, *inputs(settings), unreadable=unreadable) as sql:
            if since is not None:
                _drop_before(sql, since)
            kind = kind or _detect_kind(sql)
            result = (replay.interleaved if kind == "interleaving" else ONLINE[kind])(
                sql, settings, root
            )
            ((ruled,),) = sql.execute("SELECT count(*) FROM ruled").fetchall()
        if ruled:
            result["notes"].append(f"{ruled:,} answers that a rule gave are left aside.")
        result["notes"] += [f"not readable: {loss}" for loss in unreadable]
    result["mode"] = kind
    return write_report(root, "experiment", result)


def _drop_before(sql: DuckDBPyConnection, since: str) -> None:
    """Leave out the answers that are earlier than a date."""
    moment = sql.execute(f"SELECT {time_sql(text(since), 'VARCHAR', None)}").fetchall()[0][0]
    if moment is None:
        raise UserError(f"--since {since}: no date; write 2026-01-31")
    for table in ("answers", "ruled"):
        sql.execute(f"DELETE FROM {table} WHERE _time < ?", [moment])


def _detect_kind(sql: DuckDBPyConnection) -> str:
    """The kind of experiment that the log's last 100,000 answers are of."""
    ((drawn, unseen, chances, explored),) = sql.execute(
        "SELECT count(*) FILTER (_assigned), count(*) FILTER (NOT _answered), "
        "count(DISTINCT _propensity) FILTER (_assigned), count(*) FILTER (_decision_propensity < 1) "
        "FROM (FROM answers ORDER BY _time DESC LIMIT 100000)"
    ).fetchall()
    if drawn and problem.LISTED:
        ((mixed,),) = sql.execute(
            "SELECT count(*) FROM (SELECT _list FROM (FROM answers WHERE _assigned AND _request IS NOT NULL ORDER BY _time DESC LIMIT 10000) "
            "GROUP BY _list, _request HAVING count(DISTINCT _arm) > 1)"
        ).fetchall()
        if mixed:
            return "interleaving"
    if drawn:
        return "bandit" if chances > MAX_AB_SHARES else "ab"
    return "shadow" if unseen else "exploration" if explored else "ab"


def plan(settings: Settings, root: Path, effect: float | None = None) -> Report:
    """How long an A/B test has to run to find `effect`, a share of what is earned, before it starts.

    The spread by unit and the units a day are the log's, or else the test rows' under the model
    that would be the champion. The report has "needs", as `comparison.sample_size` gives them.

    Raises:
        UserError: when there is neither a log nor a model, or the effect is not above 0.
    """
    criteria, router = settings.rollout.verdict, settings.rollout.router
    effect = criteria.effect if effect is None else effect
    if effect <= 0:
        raise UserError(f"--effect {effect:g}: the least gain worth finding is above 0")
    if not 0 < router.share < 1:
        raise UserError("rollout.router.share: an A/B test needs a share between 0 and 1")
    with outcomes(settings, root) as sql:
        rows = _logged(sql, f"_arm = '{ARMS[0]}'")
    gain, source = earnings(rows, settings), "the log"
    rows, gain = rows[np.isfinite(gain)], gain[np.isfinite(gain)]
    if rows["_unit"].nunique() < MIN_SAMPLE:
        source = "the test rows, until the log has labels"
        rows = _answered_test_rows(settings, root)
        gain = earnings(rows, settings)
    codes, units = pd.factorize(rows["_unit"])
    unit_gains = linearize(np.bincount(codes, gain), np.bincount(codes).astype(float))
    days = (rows["_time"].max() - rows["_time"].min()).total_seconds() / 86400
    spread, per_day = float(unit_gains.std(ddof=1)), len(units) / max(days, 1.0)
    # The spread where gains and costs cancel out
    min_gain = effect * abs(float(unit_gains.mean())) or effect * spread
    level = settings.goals.interval.level
    needs = sample_size(spread, min_gain, router.share, level, criteria.power)
    one_look, any_look = (
        f"{count:,} units, about {math.ceil(count / per_day):,} days" for count in needs.values()
    )
    verdict = (
        f"To find a gain of {effect:.3g} of the {GAIN_NAMES[criteria.metric]}, {min_gain:.3g}, with a chance of {criteria.power:.0%}: "
        f"{one_look}, if you look once at the end; {any_look}, if you may stop at any look."
    )
    figures = [
        row(f"{GAIN_NAMES[criteria.metric]} now", [unit_gains.mean()]),
        row("spread by unit", [spread]),
        row("units a day", [per_day]),
    ]
    notes = [f"Spread and traffic are those of {source}; {router.share:.0%} go to the challenger."]
    return {**report(verdict, figures=figures, notes=notes), "mode": "plan", "needs": needs}


def _logged(sql: DuckDBPyConnection, condition: str, *values: Any) -> pd.DataFrame:
    """The logged answers that were shown, of a condition and the values of its question marks."""
    query = f"SELECT {LOG_COLUMNS} FROM answers WHERE _answered AND {condition}"
    return sql.execute(query, list(values)).df()


def _answered_test_rows(settings: Settings, root: Path) -> pd.DataFrame:
    """The test rows as if the champion-to-be had answered them."""
    folder = answering_folder(root)
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
    times = rows[time] if time in rows else pd.Timestamp(0)
    decisions = decide(
        load_scorer(folder / MODEL_FILE).score(load(test, inputs(settings))), manifest["decision"]
    )
    return rows.assign(_time=times, _reward=rows["_y"], _decision=decisions)


# --- A/B ---


def _ab(sql: DuckDBPyConnection, settings: Settings, root: Path) -> Report:
    """The two arms by unit, with what has to hold before a difference means anything."""
    start, notes = _comparable_since(sql)
    rows = _logged(sql, "_assigned AND _time > ?", start)
    if rows.empty:
        return waiting(
            "no answer was drawn between two models; `challenge` puts one beside production, "
            "`rollout mode=ab` begins"
        )
    codes, units = pd.factorize(rows["_unit"])
    challenger = (rows["_arm"] == ARMS[1]).to_numpy()
    sides = [np.bincount(codes[arm], minlength=len(units)) > 0 for arm in (~challenger, challenger)]
    second = sides[1]
    checks = [
        _sample_ratio_check(rows, second),
        check("units that met both arms", "at most", 0, int((sides[0] & second).sum())),
        *guardrails(rows[challenger], settings),
        *champion_checks(
            int(rows["_fallback"][~challenger].notna().sum()), int((~challenger).sum()), settings
        ),
    ]
    gain = earnings(rows, settings)
    measured = np.isfinite(gain)
    labelled = np.bincount(codes, measured) > 0
    fewest = min(int((labelled & arm).sum()) for arm in (~second, second))
    metric = settings.rollout.verdict.metric
    if fewest < MIN_SAMPLE:
        signal = "label" if metric == "value" else "reward"
        return waiting(
            f"{fewest} of {MIN_SAMPLE} units have a {signal} in the arm that has fewer; POST /feedback "
            f"brings them",
            checks,
            notes,
        )
    checks.append(_label_balance_check(codes, measured, second))
    total, count = np.bincount(codes, np.where(measured, gain, 0)), np.bincount(codes, measured)
    unit_gains = _linearize_by_arm(total[labelled], count[labelled], second[labelled])
    prior = _gains_before(sql, settings, rows["_time"].min(), pd.Index(units))
    prior = None if prior is None else prior[labelled]
    gap, explained = difference(unit_gains, second[labelled], prior)
    if explained:
        notes.append(f"What units earned before the start explains {explained:.0%} of the spread.")
    means = (float(unit_gains[arm].mean()) for arm in (~second[labelled], second[labelled]))
    primary = figure(GAIN_NAMES[metric], means, gap, settings.goals.interval.level)
    better, worse = (
        f"The challenger is {w}, however often you looked" for w in ("better", "worse")
    )
    verdict = sentence(primary, settings.rollout.verdict.effect, better, worse)
    figures = [primary, *_secondary_figures(rows, challenger, settings)]
    return report(verdict, figures=figures, checks=checks, notes=notes)


def _comparable_since(sql: DuckDBPyConnection) -> tuple[Any, list[str]]:
    """The end of the time in which another share or name was drawn by, or another model answered."""
    notes, start = [], pd.Timestamp(0).to_pydatetime()
    share = f"CASE _arm WHEN '{ARMS[1]}' THEN _propensity ELSE 1 - _propensity END"
    changes = [
        (f"round({share}, 9)", "true", "another share was drawn"),
        ("coalesce(_experiment, '')", "true", "units were drawn for another experiment"),
    ]
    changes += [
        ("_model", f"_fallback IS NULL AND _arm = '{arm}'", f"another {arm} answered")
        for arm in ARMS
    ]
    for expression, condition, event in changes:
        ((end,),) = sql.execute(
            f"WITH drawn AS (SELECT _time, {expression} AS what FROM answers WHERE _assigned AND _answered "
            f"AND {condition}) SELECT max(_time) FROM drawn "
            f"WHERE what <> (SELECT last(what ORDER BY _time) FROM drawn)"
        ).fetchall()
        if end is not None:
            notes.append(f"Only answers after {end:%Y-%m-%d %H:%M:%S} count: until then {event}.")
            start = max(start, end)
    return start, notes


def _sample_ratio_check(rows: pd.DataFrame, second: Array) -> Check:
    """Sample-ratio mismatch (Fabijan et al., 2019): units by arm against the logged chance."""
    first = rows.iloc[0]
    share = first["_propensity"] if first["_arm"] == ARMS[1] else 1 - first["_propensity"]
    n = [int((~second).sum()), int(second.sum())]
    p = 1.0
    if 0 < share < 1:
        p = float(chisquare(n, [len(second) * (1 - share), len(second) * share]).pvalue)
    name = f"chance of {n[0]:,} and {n[1]:,} units by arm, {share:.3g} drawn for the second"
    return check(name, "at least", SIGNIFICANCE, p)


def _label_balance_check(codes: Array, measured: Array, second: Array) -> Check:
    """Labels that come for one arm more than for the other tell of the labels, not of the models."""
    rows = np.bincount(codes).astype(float)
    gap, _ = difference(_linearize_by_arm(np.bincount(codes, measured), rows, second), second)
    p = 2 * norm.sf(abs(gap.value) / gap.error) if gap.error else 1.0
    return check("chance of arms labelled so unevenly", "at least", SIGNIFICANCE, p)


def _linearize_by_arm(total: Array, count: Array, second: Array) -> Array:
    """Values by unit as `linearize` gives them, each arm around its own ratio; shape (units,)."""
    values = np.empty(len(total))
    for arm in (second, ~second):
        values[arm] = linearize(total[arm], count[arm])
    return values


def _gains_before(
    sql: DuckDBPyConnection, settings: Settings, start: Any, units: pd.Index
) -> Array | None:
    """What each unit earned before the first draw, shape (units,); None when the log has nothing."""
    rows = _logged(sql, "NOT _assigned AND _time < ?", start.to_pydatetime())
    gain, index = earnings(rows, settings), units.get_indexer(rows["_unit"])
    usable = np.isfinite(gain) & (index >= 0)
    if not usable.any():
        return None
    count = np.bincount(index[usable], minlength=len(units)).astype(float)
    return linearize(np.bincount(index[usable], gain[usable], len(units)), count)


def _secondary_figures(
    rows: pd.DataFrame, challenger: Array, settings: Settings
) -> list[FigureRow]:
    """Figures by arm to look at; nothing is decided on them."""
    metric = settings.goals.metric
    arms = [rows[~challenger], rows[challenger]]
    labelled = [arm[arm["_y"].notna() & arm[SCORE_COLUMN].notna()] for arm in arms]
    pairs: dict[str, list[float]] = {}
    # Of a list, the log's order is the one that was shown: both arms would be judged by their own
    if min(map(len, labelled)) >= MIN_SAMPLE and not problem.LISTED:
        pairs[metric] = [
            measure(
                metric,
                arm["_y"].to_numpy(np.float64),
                score_array(arm[SCORE_COLUMN]),
                arm["_decision"].to_numpy(np.float64),
            )
            for arm in labelled
        ]
    pairs["mean reward"] = [float(arm["_reward"].mean()) for arm in arms]
    pairs["share answered by a fallback"] = [float(arm["_fallback"].notna().mean()) for arm in arms]
    pairs["p99 in ms"] = [float(arm["_latency_ms"].quantile(0.99)) for arm in arms]
    return [row(name, pair) for name, pair in pairs.items() if np.isfinite(pair).all()]


ONLINE: dict[str, Callable[[DuckDBPyConnection, Settings, Path], Report]] = {
    "ab": _ab,
    "bandit": replay.bandit,
    "exploration": replay.exploration,
    "shadow": replay.shadow,
}
KINDS = (*ONLINE, "backtest", "interleaving")
