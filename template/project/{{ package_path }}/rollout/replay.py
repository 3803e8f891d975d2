"""Verdicts on what did not have to be shown to anybody: two answers to one row, or old rows again.

bandit, exploration: off-policy, from the logged chances · shadow: two answers to one row ·
interleaving: who was clicked · backtest: both models on rows later than either saw.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection
from scipy.stats import binomtest, norm

from .. import paths, problem
from ..data.schema import name, text
from ..data.source import first_line
from ..features.catalogue import inputs, load
from ..goals.gate import SURE, compared, measure, resample
from ..modelling.scorer import load_scorer
from ..problem.goals import constant_decisions, decide, distance, value
from ..records import SCORE_COLUMN, score_array
from ..repository import verified
from ..scoring.state import ARMS
from ..settings import Settings, UserError, read_json
from .comparison import OffPolicy, expected, linear, mean, wins
from .verdict import (
    FEWEST,
    GAIN,
    Report,
    check,
    figure,
    guardrails,
    report,
    row,
    sentence,
    standing,
    waiting,
)

MOST_ROWS = 200_000  # the latest of the log, that an expected reward is fitted on
RESAMPLED = 50_000  # rows of a backtest that an interval is drawn from
BLOCKS = 4  # of time, in a backtest
Array = np.ndarray


def bandit(sql: DuckDBPyConnection, settings: Settings, root: Path) -> Report:
    """What each arm would earn if it answered everything."""
    ((start,),) = sql.execute(  # a share may move here; another model or name begins it anew
        f"WITH drawn AS (FROM answers WHERE _assigned AND _arm = '{ARMS[1]}' AND _fallback IS NULL) "
        f"SELECT coalesce(max(_time), TIMESTAMP '1970-01-01') FROM drawn "
        f"WHERE (_model, _experiment) IS DISTINCT FROM "
        f"(SELECT last((_model, _experiment) ORDER BY _time) FROM drawn)"
    ).fetchall()
    rows = _rewarded(sql, "_assigned AND _propensity > 0 AND _time > ?", [start])
    if len(rows) < FEWEST or rows["_arm"].nunique() < 2:
        return waiting(
            f"{len(rows)} of {FEWEST} answers drawn between two models have a reward; `rollout "
            f"mode=bandit` draws, POST /feedback rewards"
        )
    done = rows["_arm"].to_numpy(object)
    policies = {f"the {arm} always": np.full(len(rows), arm, object) for arm in ARMS}
    checks = guardrails(rows[done == ARMS[1]], settings)
    checks += _standing(
        sql, settings, f"_assigned AND _time > TIMESTAMP '{start:%Y-%m-%d %H:%M:%S.%f}'"
    )
    return _off_policy(rows, done, "_propensity", policies, settings, checks)


def exploration(sql: DuckDBPyConnection, settings: Settings, root: Path) -> Report:
    """What other decisions would earn, from those that `serving.exploration` drew at random."""
    rows = _rewarded(sql, "_decision_propensity < 1 AND _decision_propensity > 0")
    if len(rows) < FEWEST:
        return waiting(
            f"{len(rows)} of {FEWEST} decisions with a chance have a reward; serving.exploration "
            f"above 0 draws some at random, POST /feedback rewards"
        )
    done = rows["_decision"].to_numpy(np.float64)
    policies = {"as decided": _own_decisions(rows, done, root)}
    folder = root / (paths.CHALLENGER if (root / paths.CHALLENGER).is_dir() else paths.TRAINED)
    if (folder / paths.MANIFEST_FILE).is_file():
        manifest = _manifest(folder)
        if {one["name"] for one in manifest["inputs"]} <= set(rows.columns):
            score = load_scorer(folder / paths.MODEL_FILE).score(_as_inputs(rows, settings))
            words = f"as {folder.relative_to(root).as_posix()} would decide"
            policies[words] = decide(score, manifest["decision"])
    for words, always in constant_decisions(settings.data.label).items():
        policies[words] = np.full(len(rows), always)
    checks = _standing(sql, settings, "_decision_propensity < 1")
    return _off_policy(rows, done, "_decision_propensity", policies, settings, checks)


def _own_decisions(rows: pd.DataFrame, done: Array, root: Path) -> Array:
    """What the model had decided on rows of which some were then drawn at random, shape (n,)."""
    if not problem.WIDE:  # the likelier of two
        return np.where(rows["_decision_propensity"] >= 0.5, done, 1 - done)
    scores = score_array(rows[SCORE_COLUMN])
    folder = root / (paths.PRODUCTION if (root / paths.PRODUCTION).is_dir() else paths.TRAINED)
    if not (folder / paths.MANIFEST_FILE).is_file():  # the costs are unknown
        return scores.argmax(axis=1).astype(np.float64)
    return decide(scores, _manifest(folder)["decision"])


def _standing(sql: DuckDBPyConnection, settings: Settings, condition: str) -> list[Report]:
    """Whether the champion's own model gave its answers."""
    ((failed, answers),) = sql.execute(
        f"SELECT count(_fallback), count(*) FROM answers WHERE _answered AND _arm = '{ARMS[0]}' AND {condition}"
    ).fetchall()
    return standing(failed, answers, settings)


def _rewarded(
    sql: DuckDBPyConnection, condition: str, values: list[Any] | None = None
) -> pd.DataFrame:
    query = f"FROM answers WHERE _answered AND _reward IS NOT NULL AND {condition}"
    return sql.execute(f"{query} ORDER BY _time DESC LIMIT {MOST_ROWS}", values or []).df()


def _as_inputs(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Logged columns as `features.catalogue.load` gives them to a model."""
    found: dict[str, Any] = {}
    for one, kind in inputs(settings).items():
        if kind == "category":
            found[one] = rows[one].astype(object).where(rows[one].notna(), "").astype(str)
        elif kind == "time":
            found[one] = (rows[one] - pd.Timestamp(0)).dt.total_seconds()
        else:
            found[one] = rows[one].astype(np.float32)
    return pd.DataFrame(found)


def _off_policy(
    rows: pd.DataFrame,
    done: Array,
    chance: str,
    policies: dict[str, Array],
    settings: Settings,
    checks: list[Report],
) -> Report:
    """Each policy by three estimates; the first two are compared by the doubly robust one."""
    level = settings.goals.interval.level
    reward, chances = (rows[one].to_numpy(np.float64) for one in ("_reward", chance))
    unit, features = pd.factorize(rows["_unit"])[0], _as_inputs(rows, settings)
    matrix = np.column_stack(
        [
            features[one] if kind != "category" else pd.factorize(features[one], sort=True)[0]
            for one, kind in inputs(settings).items()
        ]
    )
    told = expected(matrix, done, reward, unit, settings.project.seed)
    gained, figures = [], []
    for words, would in policies.items():
        one = OffPolicy(reward, chances, done == would, _of(told, done), _of(told, would), unit)
        for estimate in (one.dr, one.snips, one.ips):
            this = mean(estimate())
            low, high = this.interval(level)
            named, left = f"reward, {words}: {estimate.__name__}", one.effective_rows()
            figures.append(row(named, [this.value], low=low, high=high, effective_rows=left))
        # Weights average 1 where what was done was done with the chance that was logged
        weight = mean(one.by_unit(one.weight, np.ones(len(rows))))
        p = 2 * norm.sf(abs(weight.value - 1) / weight.error) if weight.error else 1.0
        checks.append(check(f"chance of such weights, {words}", "at least", SURE, p))
        gained.append(one.dr())
    first, second = list(policies)[:2]
    means = (one.mean() for one in gained[:2])
    found = figure(GAIN["reward"], means, mean(gained[1] - gained[0]), level)
    verdict = sentence(
        found,
        settings.rollout.verdict.effect,
        f"'{second}' would earn more than '{first}'",
        f"'{second}' would earn less than '{first}'",
    )
    return report(verdict, figures=[found, *figures], checks=checks)


def _of(told: dict[Any, Array], actions: Array) -> Array:
    """The reward that is expected of each row's action; of one that was never taken, the mean."""
    usual = float(np.mean([one.mean() for one in told.values()]))
    return np.select([actions == one for one in told], list(told.values()), default=usual)


def shadow(sql: DuckDBPyConnection, settings: Settings, root: Path) -> Report:
    """How far the challenger, which answers unseen, differs from production, and which is right."""
    rows = sql.execute(
        "WITH unseen AS (FROM answers WHERE NOT _answered), now AS (FROM unseen "
        "WHERE _model = (SELECT last(_model ORDER BY _time) FROM unseen)) "
        f"SELECT a._score, a.{SCORE_COLUMN} AS own, a._decision, a._y, a._unit, now._score AS score, "
        f"now.{SCORE_COLUMN} AS others, now._decision AS decision, now._fallback, now._latency_ms FROM answers a JOIN now USING (_id) "
        "WHERE a._answered AND NOT a._explored AND a._fallback IS NULL ORDER BY a._time, _id"
    ).df()
    if len(rows) < FEWEST:
        return waiting(
            f"{len(rows)} of {FEWEST} rows were answered by both; `challenge` puts a model beside "
            f"production, `rollout mode=shadow` lets it answer unseen"
        )
    level, checks = settings.goals.interval.level, guardrails(rows, settings)
    checks += _standing(sql, settings, "_id IN (SELECT _id FROM answers WHERE NOT _answered)")
    rows = rows[rows["score"].notna()]
    if len(rows) < FEWEST:
        return waiting(f"the challenger scored {len(rows)} rows of {FEWEST}", checks)
    names = ("_score", "score", "_decision", "decision", "_y")
    one, two, decided, other, y = (rows[column].to_numpy(np.float64) for column in names)
    number = not problem.CLASSES
    same = np.abs(decided - other) <= (float(one.std()) / 10 if number else 0.0)
    low, high = wins(int(same.sum()), len(rows), level)
    words = "share answered alike" + (", within a tenth of the spread" if number else "")
    moved = distance(score_array(rows["own"]), score_array(rows["others"]))
    gap = float(np.quantile(moved, 0.99))
    figures = [
        row(words, gain=float(same.mean()), low=low, high=high),
        row("mean score", (one.mean(), two.mean())),
        row("gap of the scores that 99 % of rows keep", gain=gap),
    ]
    verdict = (
        f"Both answer alike in {same.mean():.1%} of {len(rows):,} rows (between {low:.1%} and "
        f"{high:.1%})."
    )
    known = np.isfinite(y)
    codes = pd.factorize(rows["_unit"][known])[0]
    if len(np.unique(codes)) < FEWEST:
        return report(f"{verdict} Which is right, no label says yet.", "decided", figures, checks)
    worth = [value(y[known], side[known], settings.goals.costs) for side in (decided, other)]
    by_unit = linear(np.bincount(codes, worth[1] - worth[0]), np.bincount(codes).astype(float))
    found = figure(GAIN["value"], (side.mean() for side in worth), mean(by_unit), level)
    said = sentence(
        found,
        settings.rollout.verdict.effect,
        "The challenger decides better",
        "The challenger decides worse",
    )
    return report(f"{verdict} {said}", "decided", [found, *figures], checks)


def interleaving(settings: Settings, file: Path | None) -> Report:
    """Whose ranking is preferred, of lists that both filled (Radlinski et al., 2008).

    Args:
        file: CSV, Parquet or JSON lines with `winner` (champion, challenger or tie) of each list,
            or with `id` of the list and `arm` that is credited for each click.

    Raises:
        UserError: when the file is missing, cannot be read or has other columns or words.
    """
    if file is None:
        return waiting("interleaving needs who won or was clicked: add --file clicks.csv")
    if not file.is_file():
        raise UserError(f"{file} is not here")
    reader = {".parquet": "read_parquet", ".csv": "read_csv"}.get(file.suffix, "read_json")
    source = f"{reader}({text(str(file))})"
    try:
        with duckdb.connect() as sql:
            columns = {row[0] for row in sql.execute(f"DESCRIBE FROM {source}").fetchall()}
            if "winner" in columns:
                lists = f"SELECT winner FROM {source}"
            elif {"id", "arm"} <= columns:
                clicks = [f"count(*) FILTER (arm = '{arm}')" for arm in ARMS]
                lists = (
                    f"SELECT CASE WHEN bool_or(arm IS NULL OR arm NOT IN {ARMS}) THEN max(arm) "
                    f"ELSE ['{ARMS[0]}', 'tie', '{ARMS[1]}'][2 + sign({clicks[1]} - {clicks[0]})] "
                    f"END AS winner FROM {source} GROUP BY id"
                )
            else:
                raise UserError(f"{file}: needs a column `winner`, or `id` and `arm` of each click")
            query = f"SELECT winner, count(*) FROM ({lists}) GROUP BY ALL"
            counts: dict[Any, int] = dict(sql.execute(query).fetchall())
    except duckdb.Error as error:
        raise UserError(f"{file}: cannot be read: {first_line(error)}") from None
    if odd := sorted(str(one) for one in counts if one not in (*ARMS, "tie")):
        raise UserError(f"{file}: winner {odd[0]!r} is none of {', '.join(ARMS)}, tie")
    won = counts.get(ARMS[1], 0)
    lists_ = won + counts.get(ARMS[0], 0)
    if lists_ < FEWEST:
        return waiting(f"{lists_} of {FEWEST} lists have a winner")
    low, high = wins(won, lists_, settings.goals.interval.level)
    words = "share of lists that the challenger wins"
    p = float(binomtest(won, lists_).pvalue)  # the sign test
    found = row(words, gain=won / lists_, low=low, high=high, units=lists_, p_one_look=p)
    span = f"wins {won / lists_:.1%} of {lists_:,} lists, between {low:.1%} and {high:.1%}"
    if low > 0.5:
        verdict = f"The challenger's ranking is preferred: it {span}."
    elif high < 0.5:
        verdict = f"Production's ranking is preferred: the challenger {span}."
    else:
        verdict = f"Undecided: the challenger {span}."
    return report(verdict, figures=[found])


def backtest(settings: Settings, root: Path) -> Report:
    """Production and the challenger, or the model just trained, on rows later than either saw.

    Raises:
        UserError: when a model reads a column that the features no longer have.
    """
    folders = [verified(root, folder) for folder in (paths.PRODUCTION, paths.CHALLENGER)]
    if not folders[1].is_dir():
        folders[1] = root / paths.TRAINED
    if not all((folder / paths.MANIFEST_FILE).is_file() for folder in folders):
        return waiting("a backtest needs a model in production and another; `run`, then `promote`")
    models = [_manifest(folder) for folder in folders]
    if models[0]["sha256"] == models[1]["sha256"]:
        return waiting(
            "the other model is the one in production; `run` on newer data makes another"
        )
    known = inputs(settings)
    if gone := {one["name"] for model in models for one in model["inputs"]} - known.keys():
        raise UserError(
            f"{paths.PRODUCTION}: a model reads {min(gone)}, which is no feature any more"
        )
    rows, y = _unseen(settings, root, folders, max(str(one["trained_until"]) for one in models))
    if len(y) < FEWEST:
        return waiting(
            f"{len(y)} of {FEWEST} labelled rows are later than both models; `run` again"
        )
    goals = settings.goals
    score = [load_scorer(folder / paths.MODEL_FILE).score(rows) for folder in folders]
    decided = [decide(one, model["decision"]) for one, model in zip(score, models, strict=True)]
    worth = [value(y, one, goals.costs) for one in decided]
    gap = mean(worth[1] - worth[0])
    level = goals.interval.level
    figures = [figure(GAIN["value"], (one.mean() for one in worth), gap, level)]
    for place, part in enumerate([np.arange(len(y)), *np.array_split(np.arange(len(y)), BLOCKS)]):
        few = part[-RESAMPLED:]
        weights = resample(len(few), goals.interval.resamples, settings.project.seed)
        sides = [(y[few], one[few], two[few]) for one, two in zip(score, decided, strict=True)]
        once = (measure(goals.metric, *side) for side in sides)
        drawn = [measure(goals.metric, *side, weights) for side in sides]
        words = f", stretch {place} of {BLOCKS}" if place else ""
        gains = compared(goals.metric, drawn[1], drawn[0], goals.interval)
        figures.append(row(f"{goals.metric}{words}", once, **gains, units=len(few)))
    ahead = sum(one["gain"] > 0 for one in figures[2:])
    said = sentence(figures[1], 0.0, "The new model is better", "The new model is worse")
    more = f"{len(y):,} rows that neither had seen; ahead in {ahead} of {BLOCKS} stretches of time"
    return report(f"{said} ({more})", figures=figures)


def _unseen(
    settings: Settings, root: Path, folders: list[Path], until: str
) -> tuple[pd.DataFrame, Array]:
    """Labelled rows that no model was fitted on, later than all that they were, oldest first."""
    time = settings.data.schema_.time
    later = f"{name(time)} > TRY_CAST({text(until)} AS TIMESTAMP)" if time else "true"
    parts = [str(root / part) for part in paths.SPLITS.values()]
    fitted = [str(folder / paths.FITTED_FILE) for folder in folders]
    target = root / paths.BACKTEST
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = f"read_parquet({text(str(target))})"
    try:
        with duckdb.connect() as sql:
            sql.execute(
                f"COPY (FROM read_parquet({parts}) WHERE {later} AND _row_key NOT IN "
                f"(SELECT _row_key FROM read_parquet({fitted})) "
                f"ORDER BY {name(time) if time else '_row_key'}) TO {text(str(target))}"
            )
            y = sql.execute(f"SELECT _y FROM {rows}").fetchnumpy()["_y"]
        return load(target, inputs(settings)), np.asarray(y, np.float64)
    finally:
        target.unlink(missing_ok=True)


def _manifest(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / paths.MANIFEST_FILE))
