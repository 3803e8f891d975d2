"""Verdicts on what did not have to be shown to anybody: two answers to one row, or old rows again.

bandit, exploration: off-policy, from the logged chances · shadow: two answers to one row ·
interleaving: who was clicked · backtest: both models on rows later than either saw.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from ..features.catalogue import as_numbers, inputs, load, load_truth
from ..goals.gate import SIGNIFICANCE, gain_interval, measure, resample
from ..modelling.scorer import load_scorer
from ..problem.goals import constant_decisions, decide, distance, unit, value
from ..records import SCORE_COLUMN, WITHHELD, score_array
from ..repository import verified
from ..scoring.rules import are_modelled
from ..scoring.state import ARMS
from ..settings import STRINGS, Settings, UserError, read_json
from .comparison import OffPolicy, expected_rewards, linearize, mean, share_interval
from .outcomes import truth_array
from .verdict import (
    GAIN_NAMES,
    MIN_SAMPLE,
    Check,
    Report,
    champion_checks,
    check,
    figure,
    guardrails,
    report,
    row,
    sentence,
    waiting,
)

MAX_LOGGED_ROWS = 200_000  # the latest of the log, that an expected reward is fitted on
MAX_RESAMPLED_ROWS = 50_000  # rows of a backtest that an interval is drawn from
TIME_BLOCKS = 4  # of a backtest
Array = np.ndarray


def bandit(sql: DuckDBPyConnection, settings: Settings, root: Path) -> Report:
    """The report on a bandit: what each arm would earn if it answered everything."""
    ((start,),) = sql.execute(  # a share may move here; another model or name begins it anew
        f"WITH drawn AS (FROM answers WHERE _assigned AND _arm = '{ARMS[1]}' AND _fallback IS NULL) "
        f"SELECT coalesce(max(_time), TIMESTAMP '1970-01-01') FROM drawn "
        f"WHERE (_model, _experiment) IS DISTINCT FROM "
        f"(SELECT last((_model, _experiment) ORDER BY _time) FROM drawn)"
    ).fetchall()
    rows = _rewarded_rows(sql, "_assigned AND _propensity > 0 AND _time > ?", start)
    if len(rows) < MIN_SAMPLE or rows["_arm"].nunique() < 2:
        return waiting(
            f"{len(rows)} of {MIN_SAMPLE} answers drawn between two models have a reward; `rollout "
            f"mode=bandit` draws, POST /feedback rewards"
        )
    actions = rows["_arm"].to_numpy(object)
    policies = {f"the {arm} always": np.full(len(rows), arm, object) for arm in ARMS}
    checks = guardrails(rows[actions == ARMS[1]], settings)
    drawn = f"_assigned AND _time > TIMESTAMP '{start:%Y-%m-%d %H:%M:%S.%f}'"
    checks += _champion_checks(sql, settings, drawn)
    return _off_policy(rows, actions, "_propensity", policies, settings, checks)


def exploration(sql: DuckDBPyConnection, settings: Settings, root: Path) -> Report:
    """The report on exploration: what other decisions would earn, from those drawn at random."""
    if problem.LISTED:
        return waiting(
            "of lists, `monitor` tells from swapped neighbours how much places are looked at; which of two orders "
            "earns more, `rollout mode=interleave` tells"
        )
    rows = _rewarded_rows(sql, "_decision_propensity < 1 AND _decision_propensity > 0")
    if len(rows) < MIN_SAMPLE:
        return waiting(
            f"{len(rows)} of {MIN_SAMPLE} decisions with a chance have a reward; serving.exploration "
            f"above 0 draws some at random, POST /feedback rewards"
        )
    actions = rows["_decision"].to_numpy(np.float64)
    policies = {"as decided": _model_decisions(rows, actions, root)}
    folder = root / (paths.CHALLENGER if (root / paths.CHALLENGER).is_dir() else paths.TRAINED)
    if (folder / paths.MANIFEST_FILE).is_file():
        manifest = _read_manifest(folder)
        if {column["name"] for column in manifest["inputs"]} <= set(rows.columns):
            score = load_scorer(folder / paths.MODEL_FILE).score(model_inputs(rows, settings))
            policy = f"as {folder.relative_to(root).as_posix()} would decide"
            policies[policy] = decide(score, manifest["decision"])
    for policy, decision in constant_decisions(settings.data.label).items():
        policies[policy] = np.full(len(rows), decision)
    checks = _champion_checks(sql, settings, "_decision_propensity < 1")
    return _off_policy(rows, actions, "_decision_propensity", policies, settings, checks)


def _model_decisions(rows: pd.DataFrame, actions: Array, root: Path) -> Array:
    """What the model had decided on rows of which some were then drawn at random, shape (n,)."""
    if not problem.WIDE:  # the likelier of two
        return np.where(rows["_decision_propensity"] >= 0.5, actions, 1 - actions)
    scores = score_array(rows[SCORE_COLUMN])
    folder = root / (paths.PRODUCTION if (root / paths.PRODUCTION).is_dir() else paths.TRAINED)
    if not (folder / paths.MANIFEST_FILE).is_file():  # the costs are unknown
        return scores.argmax(axis=1).astype(np.float64)
    return decide(scores, _read_manifest(folder)["decision"])


def _champion_checks(sql: DuckDBPyConnection, settings: Settings, condition: str) -> list[Check]:
    """Whether the champion's own model gave its answers."""
    ((failed, answers),) = sql.execute(
        f"SELECT count(*) FILTER (_fallback NOT IN {WITHHELD}), count(*) FROM answers WHERE _answered AND _arm = '{ARMS[0]}' AND {condition}"
    ).fetchall()
    return champion_checks(failed, answers, settings)


def _rewarded_rows(sql: DuckDBPyConnection, condition: str, *values: Any) -> pd.DataFrame:
    """The latest answers with a reward, of a condition and the values of its question marks."""
    query = f"FROM answers WHERE _answered AND _reward IS NOT NULL AND {condition}"
    return sql.execute(f"{query} ORDER BY _time DESC LIMIT {MAX_LOGGED_ROWS}", list(values)).df()


def model_inputs(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Logged columns as `features.catalogue.load` gives them to a model."""
    columns: dict[str, Any] = {}
    for key, kind in inputs(settings).items():
        if kind in (*STRINGS, "image", "history"):
            columns[key] = rows[key].astype(object).where(rows[key].notna(), "").astype(str)
        elif kind == "time":
            columns[key] = (rows[key] - pd.Timestamp(0)).dt.total_seconds()
        else:
            columns[key] = rows[key].astype(np.float32)
    return pd.DataFrame(columns)


def _off_policy(
    rows: pd.DataFrame,
    actions: Array,
    propensity_column: str,
    policies: dict[str, Array],
    settings: Settings,
    checks: list[Check],
) -> Report:
    """The report on policies: each by three estimates; the first two are compared by the doubly
    robust one.

    Args:
        actions: the logged ones, shape (n,).
        propensity_column: with the chance of each logged action.
        policies: name -> the action for each row, shape (n,).
    """
    level = settings.goals.interval.level
    reward, propensity = (rows[key].to_numpy(np.float64) for key in ("_reward", propensity_column))
    unit = pd.factorize(rows["_unit"])[0]
    features = as_numbers(model_inputs(rows, settings), inputs(settings))
    for column, kind in inputs(settings).items():
        if kind == "category":
            features[column] = pd.factorize(features[column], sort=True)[0]
    matrix = np.column_stack([features[column] for column in features])
    predictions = expected_rewards(matrix, actions, reward, unit, settings.project.seed)
    policy_gains, figures = [], []
    for policy, choices in policies.items():
        logged, chosen = (_expected_for(predictions, taken) for taken in (actions, choices))
        estimator = OffPolicy(reward, propensity, actions == choices, logged, chosen, unit)
        for method in (estimator.dr, estimator.snips, estimator.ips):
            estimate, left = mean(method()), estimator.effective_rows()
            low, high = estimate.interval(level)
            title = f"reward, {policy}: {method.__name__}"
            figures.append(row(title, [estimate.value], low=low, high=high, effective_rows=left))
        # Weights average 1 where what was done was done with the chance that was logged
        weight = mean(estimator.by_unit(estimator.weight, np.ones(len(rows))))
        p = 2 * norm.sf(abs(weight.value - 1) / weight.error) if weight.error else 1.0
        checks.append(check(f"chance of such weights, {policy}", "at least", SIGNIFICANCE, p))
        policy_gains.append(estimator.dr())
    first, second = list(policies)[:2]
    means = (gains.mean() for gains in policy_gains[:2])
    primary = figure(GAIN_NAMES["reward"], means, mean(policy_gains[1] - policy_gains[0]), level)
    better, worse = (f"'{second}' would earn {w} than '{first}'" for w in ("more", "less"))
    verdict = sentence(primary, settings.rollout.verdict.effect, better, worse)
    return report(verdict, figures=[primary, *figures], checks=checks)


def _expected_for(predictions: dict[Any, Array], actions: Array) -> Array:
    """The reward that is expected of each row's action, shape (n,); of an unknown one, the mean."""
    mean_reward = float(np.mean([rewards.mean() for rewards in predictions.values()]))
    taken = [actions == action for action in predictions]
    return np.select(taken, list(predictions.values()), default=mean_reward)


def shadow(sql: DuckDBPyConnection, settings: Settings, root: Path) -> Report:
    """The report on a shadow: how far the unseen challenger differs from production, who is right."""
    rows = sql.execute(
        "WITH unseen AS (FROM answers WHERE NOT _answered), now AS (FROM unseen "
        "WHERE _model = (SELECT last(_model ORDER BY _time) FROM unseen)) "
        f"SELECT a.*, a.{SCORE_COLUMN} AS scores, now._score AS score, "
        f"now.{SCORE_COLUMN} AS new_scores, now._decision AS decision, now._fallback AS new_fallback, "
        "now._latency_ms AS new_latency_ms FROM answers a JOIN now USING (_id) "
        "WHERE a._answered AND NOT a._explored AND a._fallback IS NULL ORDER BY a._time, _id"
    ).df()
    if len(rows) < MIN_SAMPLE:
        return waiting(
            f"{len(rows)} of {MIN_SAMPLE} rows were answered by both; `challenge` puts a model beside "
            f"production, `rollout mode=shadow` lets it answer unseen"
        )
    unseen = rows[["new_fallback", "new_latency_ms"]].set_axis(["_fallback", "_latency_ms"], axis=1)
    level, checks = settings.goals.interval.level, guardrails(unseen, settings)
    shadowed = "_id IN (SELECT _id FROM answers WHERE NOT _answered)"
    checks += _champion_checks(sql, settings, shadowed)
    rows = rows[rows["score"].notna()]
    if len(rows) < MIN_SAMPLE:
        return waiting(f"the challenger scored {len(rows)} rows of {MIN_SAMPLE}", checks)
    keys = ("_score", "score", "_decision", "decision", "_y")
    score, new_score, decision, new_decision, y = (rows[key].to_numpy(np.float64) for key in keys)
    is_number = not problem.CLASSES
    alike = np.abs(decision - new_decision) <= (float(score.std()) / 10 if is_number else 0.0)
    low, high = share_interval(int(alike.sum()), len(rows), level)
    share_name = "share answered alike" + (", within a tenth of the spread" if is_number else "")
    distances = distance(score_array(rows["scores"]), score_array(rows["new_scores"]))
    gap = float(np.quantile(distances, 0.99))
    figures = [
        row(share_name, gain=float(alike.mean()), low=low, high=high),
        row("mean score", (score.mean(), new_score.mean())),
        row("gap of the scores that 99 % of rows keep", gain=gap),
    ]
    verdict = (
        f"Both answer alike in {alike.mean():.1%} of {len(rows):,} rows (between {low:.1%} and "
        f"{high:.1%})."
    )
    labelled = np.isfinite(y)
    codes = pd.factorize(rows["_unit"][labelled])[0]
    if len(np.unique(codes)) < MIN_SAMPLE:
        return report(f"{verdict} Which is right, no label says yet.", "decided", figures, checks)
    y, decisions = truth_array(rows[labelled]), (decision[labelled], new_decision[labelled])
    values = [value(y, decided, settings.goals.costs) for decided in decisions]
    gains = linearize(np.bincount(codes, values[1] - values[0]), np.bincount(codes).astype(float))
    primary = figure(GAIN_NAMES["value"], (arm.mean() for arm in values), mean(gains), level)
    better, worse = (f"The challenger decides {w}" for w in ("better", "worse"))
    outcome = sentence(primary, settings.rollout.verdict.effect, better, worse)
    return report(f"{verdict} {outcome}", "decided", [primary, *figures], checks)


def interleaved(sql: DuckDBPyConnection, settings: Settings, root: Path) -> Report:
    """The report on lists that both models filled in the service: whose items were clicked more, of each list."""
    rows = sql.execute(
        "WITH lists AS (SELECT _list, _request, count(DISTINCT _arm) AS arms, count(_y) AS labels, "
        f"sum(coalesce(_y, 0)) FILTER (_arm = '{ARMS[1]}') - sum(coalesce(_y, 0)) FILTER (_arm = '{ARMS[0]}') AS lead "
        "FROM answers WHERE _assigned AND _answered AND _propensity = 0.5 AND _fallback IS NULL "
        "GROUP BY _list, _request) SELECT sign(lead), count(*) FROM lists WHERE arms > 1 AND labels > 0 GROUP BY 1"
    ).fetchall()
    counts = {int(lead or 0): int(lists) for lead, lists in rows}
    checks = _champion_checks(sql, settings, "_assigned")
    challenger = sql.execute(f"FROM answers WHERE _answered AND _arm = '{ARMS[1]}'").df()
    checks += guardrails(challenger, settings)
    return _preference(counts.get(1, 0), counts.get(-1, 0), settings, checks)


def interleaving(settings: Settings, file: Path | None) -> Report:
    """The report on interleaving: whose ranking is preferred, of lists that both models filled
    (Radlinski et al., 2008).

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
    if unknown := sorted(str(winner) for winner in counts if winner not in (*ARMS, "tie")):
        raise UserError(f"{file}: winner {unknown[0]!r} is none of {', '.join(ARMS)}, tie")
    return _preference(counts.get(ARMS[1], 0), counts.get(ARMS[0], 0), settings)


def _preference(won: int, lost: int, settings: Settings, checks: Sequence[Check] = ()) -> Report:
    """The report on lists that the challenger won and lost."""
    n_lists = won + lost
    if n_lists < MIN_SAMPLE:
        clicks = (
            "`rollout mode=interleave` lets both models fill lists, POST /feedback tells clicks"
        )
        return waiting(f"{n_lists} of {MIN_SAMPLE} lists have a winner; {clicks}", checks)
    low, high = share_interval(won, n_lists, settings.goals.interval.level)
    share_name = "share of lists that the challenger wins"
    p = float(binomtest(won, n_lists).pvalue)  # the sign test
    primary = row(share_name, gain=won / n_lists, low=low, high=high, units=n_lists, p_one_look=p)
    result = f"wins {won / n_lists:.1%} of {n_lists:,} lists, between {low:.1%} and {high:.1%}"
    if low > 0.5:
        verdict = f"The challenger's ranking is preferred: it {result}."
    elif high < 0.5:
        verdict = f"Production's ranking is preferred: the challenger {result}."
    else:
        verdict = f"Undecided: the challenger {result}."
    return report(verdict, figures=[primary], checks=checks)


def backtest(settings: Settings, root: Path) -> Report:
    """The report on a backtest: production and the challenger, or else the model just trained, on
    rows that are later than those of both.

    Raises:
        UserError: when a model reads a column that the features no longer have.
    """
    folders = [verified(root, folder) for folder in (paths.PRODUCTION, paths.CHALLENGER)]
    if not folders[1].is_dir():
        folders[1] = root / paths.TRAINED
    if not all((folder / paths.MANIFEST_FILE).is_file() for folder in folders):
        return waiting("a backtest needs a model in production and another; `run`, then `promote`")
    models = [_read_manifest(folder) for folder in folders]
    if models[0]["sha256"] == models[1]["sha256"]:
        return waiting(
            "the other model is the one in production; `run` on newer data makes another"
        )
    columns = inputs(settings)
    if missing := {entry["name"] for model in models for entry in model["inputs"]} - columns.keys():
        raise UserError(
            f"{paths.PRODUCTION}: a model reads {min(missing)}, which is no feature any more"
        )
    until = max(str(model["trained_until"]) for model in models)
    rows, y = _unseen_rows(settings, root, folders, until)
    if len(y) < MIN_SAMPLE:
        return waiting(
            f"{len(y)} of {MIN_SAMPLE} labelled rows are later than both models; `run` again"
        )
    goals = settings.goals
    scores = [load_scorer(folder / paths.MODEL_FILE).score(rows) for folder in folders]
    decided = [
        decide(score, model["decision"]) for score, model in zip(scores, models, strict=True)
    ]
    values = [value(y, decision, goals.costs) for decision in decided]
    gap = mean(values[1] - values[0])
    level = goals.interval.level
    figures = [figure(GAIN_NAMES["value"], (arm.mean() for arm in values), gap, level)]
    answers, index, units = list(zip(scores, decided, strict=True)), np.arange(len(y)), unit(y)
    for block, part in enumerate([index, *np.array_split(index, TIME_BLOCKS)]):
        latest = part[-MAX_RESAMPLED_ROWS:]
        resamples, seed = goals.interval.resamples, settings.project.seed
        lists = None if units is None else units[latest]
        weights = resample(len(latest), resamples, seed, lists)
        sides = [(y[latest], score[latest], decision[latest]) for score, decision in answers]
        measured = (measure(goals.metric, *side) for side in sides)
        resampled = [measure(goals.metric, *side, weights) for side in sides]
        part_name = f", stretch {block} of {TIME_BLOCKS}" if block else ""
        gain = gain_interval(goals.metric, resampled[1], resampled[0], goals.interval)
        figures.append(row(f"{goals.metric}{part_name}", measured, **gain, units=len(latest)))
    ahead = sum(stretch["gain"] > 0 for stretch in figures[2:])
    outcome = sentence(figures[1], 0.0, "The new model is better", "The new model is worse")
    basis = f"{len(y):,} rows that neither had seen; ahead in {ahead} of {TIME_BLOCKS} stretches of time"
    return report(f"{outcome} ({basis})", figures=figures)


def _unseen_rows(
    settings: Settings, root: Path, folders: list[Path], until: str
) -> tuple[pd.DataFrame, Array]:
    """Labelled rows that no model was fitted on, later than all that they were, oldest first; without those that a rule
    answers."""
    time = settings.data.schema_.time
    is_later = f"{name(time)} > TRY_CAST({text(until)} AS TIMESTAMP)" if time else "true"
    parts = [str(root / part) for part in paths.SPLITS.values()]
    fitted = [str(folder / paths.FITTED_FILE) for folder in folders]
    target = root / paths.BACKTEST
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with duckdb.connect() as sql:
            sql.execute(
                f"COPY (FROM read_parquet({parts}) WHERE {is_later} AND _row_key NOT IN "
                f"(SELECT _row_key FROM read_parquet({fitted})) "
                f"ORDER BY {name(time) if time else '_row_key'}) TO {text(str(target))}"
            )
        rows, columns = load(target, inputs(settings)), inputs(settings)
        modelled = are_modelled(rows, columns)
        return rows[modelled], load_truth(target)[modelled]
    finally:
        target.unlink(missing_ok=True)


def _read_manifest(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / paths.MANIFEST_FILE))
