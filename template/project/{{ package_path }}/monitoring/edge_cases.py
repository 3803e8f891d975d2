"""A drill of rows that no model should decide alone: each has to land in the queue for people, online and in files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError

import duckdb
import numpy as np
import pandas as pd

from .. import paths
from ..data.schema import NO_VALUE, TYPES, stored, text, value_range
from ..data.schema import name as quoted
from ..features.catalogue import inputs
from ..problem.decision import RULES
from ..records import WHY_REVIEWED, database, view
from ..scoring.batch import score
from ..scoring.rules import as_arrays, held
from ..settings import Settings

DRAWN = 5_000  # rows that are put together of values of different rows
UNSEEN = "never seen before"

Serve = Callable[[Path], AbstractContextManager[str]]
Fetch = Callable[[str, bytes | None], bytes]


class Case(NamedTuple):
    """An odd row.

    Attributes:
        kind: out of range, unseen category, empty or contradictory; row: column -> value.
        sign: how the flag begins that it has to get.
    """

    kind: str
    row: dict[str, Any]
    sign: str


def edge_cases(
    settings: Settings, raw: pd.DataFrame, rows: pd.DataFrame, described: Sequence[Any]
) -> tuple[list[Case], list[str]]:
    """Odd rows made of a plain one, and what contradictions nothing would see, in words.

    Args:
        raw: test rows, as the schema has them; rows: the same, as the model takes them.
        described: the model's inputs, as the manifest has them.
    """
    plain, columns = raw.iloc[0].to_dict(), settings.data.schema_.columns
    cases = []
    for entry in described:
        name, rule = entry["name"], columns[entry["name"]]
        bounds = None if rule.personal else value_range(rule, entry)
        if bounds is None:
            continue
        low, high, allowed = bounds
        kind = "out of range" if allowed is None else "unseen category"
        value = UNSEEN if allowed is not None else high + abs(high - low) + 1
        cases.append(Case(kind, {**plain, name: value}, f"{name}: "))
    moment = settings.data.schema_.time
    if any(not columns[e["name"]].required and e["name"] != moment for e in described):
        required = {
            n for n, rule in columns.items() if rule.required or n == settings.data.schema_.id
        }
        cases.append(
            Case("empty", {n: plain[n] if n in required else None for n in plain}, NO_VALUE)
        )
    if not RULES:
        unseen = "contradictory rows: rules alone see them; RULES of problem/decision.py is empty"
        return cases, [unseen]
    rng, kinds = np.random.default_rng(settings.project.seed), inputs(settings)
    mixed = {name: rng.integers(0, len(rows), DRAWN) for name in raw}
    drawn = {n: rows[n].to_numpy()[mixed[n]] for n in kinds}
    names = held(as_arrays(drawn, kinds), DRAWN)
    unmet = []
    for rule_name in RULES:
        if not len(holds := np.flatnonzero(names == rule_name)):
            unmet.append(f"no row made of values of different rows meets the rule {rule_name}")
            continue
        row = {name: raw[name].iloc[mixed[name][holds[0]]] for name in raw}
        cases.append(Case("contradictory", row, f"rule {rule_name}: "))
    return cases, unmet


def landed_in_files(settings: Settings, copy: Path, cases: Sequence[Case]) -> list[bool]:
    """Whether `score --log` puts each row into the queue for people, or says why it has no score; a rule may answer."""
    file, out = copy / "edge_cases.parquet", copy / "edge_cases_scored.parquet"
    columns = stored(settings)
    frame = pd.DataFrame([case.row for case in cases])
    picked = ", ".join(
        f"TRY_CAST({quoted(n)} AS {TYPES[columns[n].type]}) AS {quoted(columns[n].source or n)}"
        for n in frame
        if columns[n].part is None
    )
    with duckdb.connect() as sql:
        sql.register("frame", frame)
        sql.execute(f"COPY (SELECT {picked} FROM frame) TO {text(str(file))} (FORMAT parquet)")
    score(settings, copy, [str(file)], out, log=True, ungated=True)
    with duckdb.connect() as sql:
        answers = sql.execute("SELECT score, flags FROM read_parquet(?)", [str(out)]).fetchall()
    queued = _queued(copy)
    return [
        _is_flagged(case, flags) and (value is None or _is_settled(case) or _has(queued, case))
        for case, (value, flags) in zip(cases, answers, strict=True)
    ]


def landed_online(copy: Path, cases: Sequence[Case], serve: Serve, fetch: Fetch) -> list[bool]:
    """Whether the service queues each row for people, or refuses it; a rule may answer."""
    answers: list[Any] = []
    with serve(copy) as address:
        for case in cases:
            body = json.dumps({name: _as_json(value) for name, value in case.row.items()})
            try:
                answers.append(json.loads(fetch(f"{address}/predict", body.encode())))
            except HTTPError as error:
                answers.append({"refused": error.code == 422})
    queued = _queued(copy)  # the service has written all when it has stopped
    return [
        answer["refused"]
        if "refused" in answer
        else _is_flagged(case, answer["flags"]) and (_is_settled(case) or _has(queued, case))
        for case, answer in zip(cases, answers, strict=True)
    ]


def _as_json(value: Any) -> Any:
    """A value of a row as a client sends it."""
    if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, (pd.Timestamp, np.datetime64)):
        return pd.Timestamp(value).isoformat()
    return value.item() if isinstance(value, np.generic) else value


def _is_flagged(case: Case, flags: Sequence[str]) -> bool:
    return any(flag.startswith(case.sign) for flag in flags)


def _is_settled(case: Case) -> bool:
    """Whether a rule answers, so that nobody has to look."""
    rule = case.sign.removeprefix("rule ").removesuffix(": ")
    return case.kind == "contradictory" and RULES[rule][1] is not None


def _has(queued: Sequence[str], case: Case) -> bool:
    return any(f"; {case.sign}" in f"; {reason}" for reason in queued)


def _queued(copy: Path) -> list[str]:
    """Why rows stand in the queue for people."""
    with database(copy) as sql:
        view(sql, "review", copy / paths.REVIEW, {"_id": "VARCHAR", **WHY_REVIEWED}, [])
        return [why for (why,) in sql.execute("SELECT _why FROM review").fetchall()]


def summary(cases: Sequence[Case], landed: dict[str, list[bool]], unmet: Sequence[str]) -> str:
    """What came of the rows, in words."""
    counts = pd.Series([case.kind for case in cases]).value_counts(sort=False)
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    parts = [
        f"{sum(results)} of {len(cases)} odd rows ({kinds}) reach people {route}"
        for route, results in landed.items()
    ]
    lost = {
        case.sign.rstrip(": ")
        for results in landed.values()
        for case, has_landed in zip(cases, results, strict=True)
        if not has_landed
    }
    return "; ".join([*parts, *(f"not {sign}" for sign in sorted(lost)), *unmet])
