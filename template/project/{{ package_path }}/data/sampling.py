"""Which rows are taken, when not all are.

What is drawn by chance is drawn of all rows, before the split: whatever the method, each row counts by 1 / (its chance),
so train, valid and test all speak for all rows. The newest rows, a quota and a snowball speak for nobody but
themselves: they are taken of the training rows alone, after the split, and what judges a model stays whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired, TypedDict

import duckdb
import pandas as pd

from .. import problem
from ..paths import SPLITS
from ..problem import data as problem_data
from ..settings import Settings, UserError
from .reservoir import Reservoir
from .schema import WEIGHT, name, text

# A row's number between 0 and 1, of its key: the same rows are drawn again tomorrow, whatever their order
UNIFORM = "((md5_number_lower('{seed} sampling ' || key) >> 12) + 0.5) / 4503599627370496.0"
KEY = "params.yaml: data.sampling"
MAX_LISTED_VALUES = 20
EFFECTIVE = f"sum({WEIGHT}) * sum({WEIGHT}) / sum({WEIGHT} * {WEIGHT})"  # rows (Kish, 1965)


class SamplingReport(TypedDict):
    """What reports/split.json says of the rows that were taken: how many of how many; `by`: the rows of each value."""

    method: str
    rows: int
    taken: int
    by: NotRequired[dict[str, int]]


def draw(sql: duckdb.DuckDBPyConnection, settings: Settings, path: Path) -> SamplingReport | None:
    """Make `labelled`, the rows that are dealt out to the parts: all, or those that are drawn by chance.

    Rows that do not count alike have their weight in `_row_weight`: 1 / (chance of being drawn) (Horvitz and Thompson,
    1952), or the share that rows like it shall have over the share that they have; of mean 1.

    Args:
        path: of the labelled rows.

    Returns:
        None where all rows are taken as they are.

    Raises:
        UserError: when there are too few rows of a value, or weights that are no weights.
    """
    sampling, source = settings.data.sampling, f"read_parquet({text(str(path))})"
    if sampling.method == "all" or not sampling.by_chance:
        sql.execute(f"CREATE VIEW labelled AS FROM {source}")
        return None
    label, id_ = settings.data.label, settings.data.schema_.id
    bundle, file = problem_data.bundle(label), text(str(path))
    unit = f"CAST({bundle or 'file_row_number'} AS VARCHAR)"
    key = f"coalesce(CAST({name(id_)} AS VARCHAR), {unit})" if id_ and not bundle else unit
    numbered = f"read_parquet({file}, file_row_number = true)"
    size = _value(settings) if sampling.method == "weighted" else "1"
    stratum = _stratum(settings) if sampling.method in ("stratified", "importance") else "''"
    sql.execute(
        f"CREATE TABLE candidates AS SELECT {unit} AS unit, {key} AS key, {stratum} AS stratum, "
        f"CAST({size} AS DOUBLE) AS size, min(file_row_number) AS position FROM {numbered} GROUP BY ALL"
    )
    ((rows,),) = sql.execute(f"SELECT count(*) FROM {source}").fetchall()
    {"importance": _weigh, "reservoir": _pass_by}.get(sampling.method, _pick)(sql, settings)
    weight = "1 / chance / avg(1 / chance) OVER ()"
    columns = {column for column, *_ in sql.execute(f"DESCRIBE FROM {source}").fetchall()}
    if WEIGHT in columns:  # such as that of a soft label
        weight = f"{WEIGHT} * {weight}"
    weighs = f", {weight} AS {WEIGHT}" if sampling.weighs else ""
    replaced = f", {WEIGHT}" if weighs and WEIGHT in columns else ""
    sql.execute(
        f"CREATE TABLE labelled AS SELECT numbered.* EXCLUDE (file_row_number{replaced}){weighs} "
        f"FROM {numbered} AS numbered JOIN drawn ON drawn.unit = {unit} ORDER BY file_row_number"
    )
    report: SamplingReport = {"method": sampling.method, "rows": rows, "taken": _count(sql)}
    if sampling.by and sampling.method != "weighted":
        query = "SELECT stratum, count(*) FROM drawn JOIN candidates USING (unit) GROUP BY ALL ORDER BY 1"
        by_value = sql.execute(query).fetchall()
        report |= {"by": dict(by_value)} if len(by_value) <= MAX_LISTED_VALUES else {}
    return report


def _count(sql: duckdb.DuckDBPyConnection) -> int:
    ((count,),) = sql.execute("SELECT count(*) FROM labelled").fetchall()
    return int(count)


def _value(settings: Settings) -> str:
    """SQL on the labelled rows for what `data.sampling.by` has; they hold the label as a number."""
    by = settings.data.sampling.by or ""
    return "_y" if by == settings.data.label.column else name(by)


def _stratum(settings: Settings) -> str:
    """SQL on the labelled rows for the value that a row is drawn by, as a text."""
    value = _value(settings)
    if value == "_y" and problem.CLASSES:
        names = problem_data.named(settings.data.label)
        names = names if problem.WIDE else ["other", *names]
        codes = " ".join(f"WHEN {code} THEN {text(label)}" for code, label in enumerate(names))
        return f"CASE CAST(_y AS INTEGER) {codes} END"
    return f"coalesce(CAST({value} AS VARCHAR), 'missing')"


def _allot(counts: Mapping[str, int], settings: Settings) -> dict[str, int]:
    """How many rows of each value are taken: by `mix`, or in proportion; the largest remainders are rounded up. By chance
    each value has a row at least, since without one nothing would speak for it.

    Args:
        counts: of all rows, by value.

    Raises:
        UserError: when there are fewer, or `mix` names other values than the rows have.
    """
    sampling, total = settings.data.sampling, sum(counts.values())
    target = sampling.rows or round((sampling.share or 0) * total)
    if target > total:
        raise UserError(f"{KEY}.rows: {target:,} of {total:,} rows cannot be taken; write fewer")
    mix = sampling.mix or {value: count / total for value, count in counts.items()}
    _check_mix(counts, mix, settings)
    exact = {value: share * target for value, share in mix.items()}
    least = int(sampling.by_chance)
    allotted = {value: max(least, int(share)) for value, share in exact.items()}
    by_remainder = sorted(exact, key=lambda value: (allotted[value] - exact[value], value))
    for value in by_remainder[: max(0, target - sum(allotted.values()))]:
        allotted[value] += 1
    for value, count in allotted.items():
        if count > counts[value]:
            raise UserError(
                f"{KEY}.mix: {count:,} rows of {value!r:.80} are asked for, and there are {counts[value]:,}; "
                f"take fewer rows, or a smaller share of these"
            )
    return allotted


def _check_mix(counts: Mapping[str, int], mix: Mapping[str, float], settings: Settings) -> None:
    if absent := sorted({*mix} - {*counts}):
        raise UserError(f"{KEY}.mix: no row has {absent[0]!r:.80}; there are {_listed(counts)}")
    unnamed = sorted({*counts} - {*mix})
    if unnamed and settings.data.sampling.by_chance:
        raise UserError(
            f"{KEY}.mix: rows with {unnamed[0]!r:.80} would have no chance, and nothing would speak for them; "
            f"name each of {_listed(counts)}"
        )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{value!r:.40}" for value in sorted(counts)[:10])


def _strata(sql: duckdb.DuckDBPyConnection) -> dict[str, int]:
    query = "SELECT stratum, count(*) FROM candidates GROUP BY ALL ORDER BY 1"
    return dict(sql.execute(query).fetchall())


def _register(sql: duckdb.DuckDBPyConnection, numbers: Mapping[str, float]) -> None:
    """Make the table `allotted`: a number for each stratum."""
    sql.execute("CREATE TABLE allotted (stratum VARCHAR, number DOUBLE)")
    sql.executemany("INSERT INTO allotted VALUES (?, ?)", [[*pair] for pair in numbers.items()])


def _pick(sql: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Make `drawn` of so many units of each stratum, each with its chance, by Pareto sampling (Rosén, 1997): taken are
    those with the least odds of their number to their chance, of equal chances a simple random sample."""
    _register(sql, _allot(_strata(sql), settings))
    chance = "number / count(*) OVER (PARTITION BY stratum)"
    if settings.data.sampling.method == "weighted":
        chance = f"least(1.0, {_scale(sql)!r} * size)"
    uniform = UNIFORM.format(seed=settings.project.seed)
    sql.execute(
        f"CREATE TABLE drawn AS WITH chances AS (SELECT *, {uniform} AS u, {chance} AS chance "
        f"FROM candidates JOIN allotted USING (stratum)) "
        f"SELECT unit, chance FROM chances WHERE number > 0 QUALIFY row_number() OVER "
        f"(PARTITION BY stratum ORDER BY u * (1 - chance) / (chance * (1 - u)), position) <= number"
    )


def _scale(sql: duckdb.DuckDBPyConnection) -> float:
    """What sizes are multiplied with to be chances that add up to the rows that are taken: of large ones 1, no more."""
    query = "SELECT count(*) FILTER (size IS NULL OR NOT size > 0 OR isinf(size)), sum(size), max(number) FROM candidates, allotted"
    ((faulty, total, target),) = sql.execute(query).fetchall()
    if faulty:
        raise UserError(f"{KEY}.by: {faulty:,} rows have no number above 0, and so no chance")
    scale, capped = target / total, -1
    while True:
        query = "SELECT count(*) FILTER (size * $1 >= 1), sum(size) FILTER (size * $1 < 1) FROM candidates"
        ((certain, smaller),) = sql.execute(query, [scale]).fetchall()
        if certain == capped or not smaller:
            return float(scale)
        scale, capped = (target - certain) / smaller, certain


def _pass_by(sql: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Make `drawn` of the rows that a reservoir holds when all have passed by."""
    reservoir = Reservoir(settings.data.sampling.rows or 1, settings.project.seed)
    stream = sql.cursor().execute("SELECT unit FROM candidates ORDER BY position")
    while len(batch := stream.fetch_df_chunk(50)):
        reservoir.extend(batch["unit"].tolist())
    if reservoir.count < reservoir.size:
        fault = f"{reservoir.size:,} of {reservoir.count:,} rows cannot be taken; write fewer"
        raise UserError(f"{KEY}.rows: {fault}")
    sql.register("taken", pd.DataFrame({"unit": reservoir.items()}))
    chance = reservoir.size / reservoir.count
    sql.execute(f"CREATE TABLE drawn AS SELECT unit, {chance!r} AS chance FROM taken")


def _weigh(sql: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Make `drawn` of all rows; their chance is the share of rows like them over the share that is aimed at."""
    counts, mix = _strata(sql), settings.data.sampling.mix
    _check_mix(counts, mix, settings)
    total = sum(counts.values())
    _register(sql, {value: counts[value] / total / share for value, share in mix.items()})
    sql.execute(
        "CREATE TABLE drawn AS SELECT unit, number AS chance FROM candidates JOIN allotted USING (stratum)"
    )


def draw_training(sql: duckdb.DuckDBPyConnection, settings: Settings) -> SamplingReport | None:
    """Leave training rows out of `rows`, where the method is not by chance: the others go to side -1.

    Returns:
        how many of the training rows were taken; None for other methods.

    Raises:
        UserError: when there are too few rows of a value, or no row has a seed's value.
    """
    sampling = settings.data.sampling
    if sampling.by_chance:
        return None
    value = {"quota": _stratum, "snowball": _value}.get(sampling.method, lambda _: "''")(settings)
    along = name(sampling.along) if sampling.along else "NULL"
    bundle = problem_data.bundle(settings.data.label) or "NULL"
    sql.execute(
        f"CREATE TABLE training AS SELECT numbered.position, numbered._moment AS moment, "
        f"coalesce(CAST({bundle} AS VARCHAR), CAST(numbered.position AS VARCHAR)) AS unit, "
        f"{value} AS value, {along} AS link FROM labelled POSITIONAL JOIN "
        f"(SELECT rowid AS position, _moment, _side FROM rows) AS numbered WHERE numbered._side = 0"
    )
    taken = {"time": _newest, "quota": _quota, "snowball": _snowball}[sampling.method]
    sql.execute(f"CREATE TABLE taken AS {taken(sql, settings)}")
    sql.execute(
        "UPDATE rows SET _side = -1 WHERE _side = 0 AND rowid NOT IN (SELECT position FROM taken)"
    )
    query = "SELECT (SELECT count(*) FROM training), (SELECT count(*) FROM taken)"
    ((rows, count),) = sql.execute(query).fetchall()
    return {"method": sampling.method, "rows": rows, "taken": count}


def _newest(sql: duckdb.DuckDBPyConnection, settings: Settings) -> str:
    """SQL for the newest days, or so many of the newest rows; whole lists and paths, which have one moment."""
    sampling = settings.data.sampling
    if sampling.days is not None:
        return (
            f"SELECT position FROM training WHERE epoch(moment) > "
            f"(SELECT max(epoch(moment)) FROM training) - {86_400 * sampling.days!r}"
        )
    newest_first = "dense_rank() OVER (ORDER BY moment DESC NULLS LAST, unit)"
    return f"SELECT position FROM training QUALIFY {newest_first} <= {sampling.rows}"


def _quota(sql: duckdb.DuckDBPyConnection, settings: Settings) -> str:
    """SQL for the newest rows of each value, until its quota is full."""
    query = "SELECT value, count(*) FROM training GROUP BY ALL ORDER BY 1"
    _register(sql, _allot(dict(sql.execute(query).fetchall()), settings))
    return (
        "SELECT position FROM training JOIN allotted ON value = stratum QUALIFY row_number() OVER "
        "(PARTITION BY value ORDER BY moment DESC NULLS LAST, position DESC) <= number"
    )


def _snowball(sql: duckdb.DuckDBPyConnection, settings: Settings) -> str:
    """SQL for the rows of the seeds, and of all that a wave reaches: whoever has a row that is linked to one of theirs."""
    sampling = settings.data.sampling
    sql.execute(
        "CREATE TABLE reached AS SELECT unnest($1::VARCHAR[]) AS value", [[*sampling.seeds]]
    )
    ((absent,),) = sql.execute(
        "SELECT min(value) FROM reached WHERE value NOT IN (SELECT CAST(value AS VARCHAR) FROM training WHERE value IS NOT NULL)"
    ).fetchall()
    if absent is not None:
        fault = f"no training row has {absent!r:.80} in {sampling.by}"
        raise UserError(f"{KEY}.seeds: {fault}; name others")
    for _ in range(sampling.waves or 0):
        sql.execute(
            "INSERT INTO reached SELECT DISTINCT CAST(value AS VARCHAR) FROM training WHERE link IN (SELECT link "
            "FROM training WHERE link IS NOT NULL AND CAST(value AS VARCHAR) IN (FROM reached)) "
            "AND value IS NOT NULL AND CAST(value AS VARCHAR) NOT IN (FROM reached)"
        )
    return "SELECT position FROM training WHERE CAST(value AS VARCHAR) IN (FROM reached)"


def judging_rows(sql: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """How many rows of `rows` stand in valid and test."""
    query = "SELECT count(*) FILTER (_side = 1), count(*) FILTER (_side = 2) FROM rows"
    return dict(zip(("valid", "test"), sql.execute(query).fetchall()[0], strict=True))


def check_sample(
    sql: duckdb.DuckDBPyConnection, settings: Settings, folder: Path, dealt: Mapping[str, int]
) -> dict[str, float]:
    """Look at the written parts, whatever made them: what judges a model has to be drawn by chance, or whole.

    Args:
        dealt: as `judging_rows` counted them, before rows were taken otherwise than by chance.

    Returns:
        the effective number of rows of each part (Kish, 1965), where rows do not count alike.

    Raises:
        UserError: when a part that judges lacks rows that were dealt to it, or rows lack the weight that makes up for
            their chance.
    """
    effective = {}
    for part, path in SPLITS.items():
        file = f"read_parquet({text(str(folder / Path(path).name))})"
        columns = {column for column, *_ in sql.execute(f"DESCRIBE FROM {file}").fetchall()}
        weight, number = (WEIGHT, EFFECTIVE) if WEIGHT in columns else ("1.0", "count(*)")
        query = f"SELECT count(*), count(*) FILTER ({weight} >= 0 AND isfinite({weight})), {number} FROM {file}"
        ((rows, weighed, effective_rows),) = sql.execute(query).fetchall()
        method = settings.data.sampling.method
        if rows != dealt.get(part, rows):
            raise UserError(
                f"data/split: {part} has {rows:,} of the {dealt[part]:,} rows that were dealt to it, and data.sampling.method: "
                f"{method} does not draw by chance: it may take training rows only; run `split` again"
            )
        if weighed < rows or (settings.data.sampling.weighs and WEIGHT not in columns):
            raise UserError(
                f"data/split: rows of {part} have no {WEIGHT}, and data.sampling.method: {method} gave rows unequal chances; "
                f"run `split` again"
            )
        if WEIGHT in columns:
            effective[part] = round(float(effective_rows), 1)
    return effective
