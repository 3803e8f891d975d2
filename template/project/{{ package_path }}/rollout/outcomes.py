"""The prediction log joined with what came true, read while the service goes on writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from ..data.label import truth
from ..data.schema import TYPES, name, stored
from ..paths import FEEDBACK, LABEL_REPORT, PREDICTIONS
from ..problem import data as problem_data
from ..records import ANSWER, LABEL, Unreadable, database, retry_reading, view
from ..scoring.rules import ANSWERED
from ..settings import Settings, read_json


def _examination(root: Path) -> list[float]:
    """How likely each place of a list is looked at, as `label` told it; nothing where that does not matter."""
    path = root / LABEL_REPORT
    return list(read_json(path).get("examination", [])) if path.is_file() else []


def truth_array(rows: pd.DataFrame) -> np.ndarray:
    """What came true of rows of `answers`, as `features.catalogue.load_truth` has it of rows of a file."""
    with duckdb.connect() as sql:
        sql.register("rows", rows)
        selection = ", ".join(f"{value} AS _{i}" for i, value in enumerate(problem_data.TRUTH))
        columns = sql.execute(f"SELECT {selection} FROM rows").fetchnumpy().values()
    truth = np.column_stack([np.ma.filled(column, np.nan) for column in columns])
    return truth.astype(np.float64) if truth.shape[1] > 1 else truth[:, 0].astype(np.float64)


@contextmanager
def outcomes(
    settings: Settings, root: Path, *inputs: str, unreadable: list[Unreadable] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database whose table `answers` has a row for each answer and arm, in the order of time; those that a rule gave,
    where no model was asked, are in `ruled` alone.

    Beside the log's own columns (`records.ANSWER`) the table has `_unit`, the value of
    `rollout.router.unit` or the row's id; `_decision` and `_y`, the last label, as numbers;
    `_reward`, the first that came alone, or else the one beside the last label; and `inputs`.

    Args:
        inputs: columns of the schema that the log has too.
        unreadable: takes the files and lines of the logs that are left out.
    """
    losses = [] if unreadable is None else unreadable
    columns = {column: TYPES[rule.type] for column, rule in stored(settings).items()}
    unit = settings.rollout.router.unit
    types = ANSWER | {key: columns[key] for key in (*inputs, unit) if key in columns}
    unit_sql = f"coalesce(CAST({name(unit)} AS VARCHAR), _id)" if unit in types else "_id"
    y_sql = truth("_label", settings)
    facts = {"examination": _examination(root)}
    read = problem_data.list_columns(settings.data.label), problem_data.logged_inputs(settings)
    types |= {column: columns[column] for column in chain(*read) if column in columns}
    impressions = problem_data.logged(settings, facts, types)
    decision_sql = problem_data.decided("_decision", settings.data.label)

    def join_logs() -> duckdb.DuckDBPyConnection:
        sql = stack.enter_context(database(root, memory_limit=settings.data.source.memory_limit))
        losses.clear()
        view(sql, "logged", root / PREDICTIONS, types, losses)
        sql.execute(
            f"CREATE OR REPLACE TABLE ruled AS SELECT _time FROM logged WHERE _model = '{ANSWERED}'"
        )
        view(sql, "sent", root / FEEDBACK, LABEL, losses)
        # A reward that came alone was given as such, once; one beside a label goes with the label
        sql.execute(
            f"CREATE OR REPLACE TABLE answers AS WITH feedback AS (SELECT _id, coalesce("
            f"min_by(_reward, _time) FILTER (_label IS NULL AND _reward IS NOT NULL), "
            f"max_by(_reward, _time) FILTER (_label IS NOT NULL AND _reward IS NOT NULL)) AS _reward, "
            f"max_by({y_sql}, _time) FILTER ({y_sql} IS NOT NULL) AS _y FROM sent GROUP BY _id) "
            f"SELECT logged.* REPLACE ({decision_sql} AS _decision), {unit_sql} AS _unit, _reward, _y"
            f"{''.join(f', {value} AS {key}' for key, value in impressions.items())} "
            f"FROM logged LEFT JOIN feedback USING (_id) WHERE _model IS DISTINCT FROM '{ANSWERED}' ORDER BY _time, _id"
        )
        return sql

    with ExitStack() as stack:
        yield retry_reading(join_logs, root / PREDICTIONS, root / FEEDBACK)
