"""What the labels that have come so far are enough for, where models learn without them."""

from __future__ import annotations

from pathlib import Path

from .. import problem
from ..paths import FEEDBACK, LABEL_REPORT
from ..problem import data as problem_data
from ..records import LABEL, database, view
from ..settings import Settings, read_json
from .label import truth


def outlook(settings: Settings, root: Path) -> str:
    """What can be done with the labels by now, in words; "" where models learn from them anyway.

    They are counted in the labelled data, and by the newest verdict on each id in the feedback.
    """
    path = root / LABEL_REPORT
    if problem.UNLABELLED is None or not path.is_file():
        return ""
    summary = read_json(path)
    odd_rows = round(summary[problem.FIGURE[0]] * summary["rows_labelled"])
    y = truth("_label", settings)
    with database(root) as sql:
        view(sql, "feedback", root / FEEDBACK, LABEL, [])
        ((fed_odd, fed_back),) = sql.execute(
            f"SELECT count(*) FILTER (y = 1), count(*) FROM (SELECT max_by({y}, _time) AS y FROM feedback "
            f"WHERE {y} IS NOT NULL GROUP BY _id)"
        ).fetchall()
    in_source = odd_rows, summary["rows_labelled"] - odd_rows
    return problem_data.outlook(in_source, (fed_odd, fed_back - fed_odd))
