"""The prediction log joined with what came true, read while the service goes on writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import duckdb

from ..data.label import truth
from ..data.schema import TYPES, name, stored
from ..paths import FEEDBACK, PREDICTIONS
from ..problem import data as problem_data
from ..records import ANSWER, LABEL, Unreadable, database, settled, view
from ..settings import Settings


@contextmanager
def outcomes(
    settings: Settings, root: Path, *inputs: str, unreadable: list[Unreadable] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database whose table `answers` has a row for each answer and arm, in the order of time.

    Beside the log's own columns (`records.ANSWER`) it has `_unit`, the value of `rollout.router.unit`
    or the row's id; `_decision` and `_y`, the last label, as numbers; `_reward`, the first that came alone, or else the one
    beside the last label; and `inputs`.

    Args:
        unreadable: takes what of the logs is left out.
    """
    lost = [] if unreadable is None else unreadable
    columns = {one: TYPES[kept.type] for one, kept in stored(settings).items()}
    unit = settings.rollout.router.unit
    wanted = ANSWER | {one: columns[one] for one in (*inputs, unit) if one in columns}
    who = f"coalesce(CAST({name(unit)} AS VARCHAR), _id)" if unit in wanted else "_id"
    y = truth("_label", settings)
    decided = problem_data.decided("_decision", settings.data.label)

    def joined() -> duckdb.DuckDBPyConnection:
        sql = opened.enter_context(database(root, memory_limit=settings.data.source.memory_limit))
        lost.clear()
        view(sql, "given", root / PREDICTIONS, wanted, lost)
        view(sql, "told", root / FEEDBACK, LABEL, lost)
        # A reward that came alone was given as such, once; one beside a label goes with the label
        sql.execute(
            f"CREATE OR REPLACE TABLE answers AS WITH feedback AS (SELECT _id, coalesce("
            f"min_by(_reward, _time) FILTER (_label IS NULL AND _reward IS NOT NULL), "
            f"max_by(_reward, _time) FILTER (_label IS NOT NULL AND _reward IS NOT NULL)) AS _reward, "
            f"max_by({y}, _time) FILTER ({y} IS NOT NULL) AS _y FROM told GROUP BY _id) "
            f"SELECT given.* REPLACE ({decided} AS _decision), {who} AS _unit, _reward, _y FROM given LEFT JOIN feedback USING (_id) "
            f"ORDER BY _time, _id"
        )
        return sql

    with ExitStack() as opened:
        yield settled(joined, root / PREDICTIONS, root / FEEDBACK)
