"""Write the generated project's Grafana dashboard, with Grafana's own builders.

It holds no number that was promised: those come as the series `target`, which the monitor exposes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

TARGET = Path(__file__).parents[1] / "template/project/ops/grafana/dashboard.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
# Row -> panels: title, unit, queries as (expression, legend)
ROWS: dict[str, list[tuple[str, str, list[tuple[str, str]]]]] = {
    "The promise": [
        (
            "Answers a second",
            "reqps",
            [
                ("sum by (arm) (rate(serving_predictions_total[5m]))", "{{arm}}"),
                ("sum by (reason) (rate(serving_fallbacks_total[5m]))", "fallback, model {{reason}}"),
            ],
        ),
        (
            "Share that the fallback answered",
            "percentunit",
            [
                ("serving:fallbacks:share5m", "last 5 minutes"),
                ("serving:fallbacks:share1h", "last hour"),
                ('monitoring_target{name="error_rate"}', "promised"),
            ],
        ),
        (
            "99th percentile of the time to answer",
            "s",
            [
                (
                    "histogram_quantile(0.99, sum by (le, arm) (rate(serving_prediction_seconds_bucket[5m])))",
                    "{{arm}}",
                ),
                ('monitoring_target{name="latency_p99_ms"} / 1000', "promised"),
            ],
        ),
        (
            "Requests by status",
            "reqps",
            [("sum by (status) (rate(serving_requests_total[5m]))", "{{status}}")],
        ),
    ],
    "The model": [
        ("Primary metric", "short", [("monitoring_performance", "{{kind}}"), ('monitoring_target{name="metric"}', "promised")]),
        (
            "Gap between scores and outcomes",
            "short",
            [("monitoring_calibration_gap", "gap"), ('monitoring_target{name="calibration_error"}', "promised")],
        ),
        ("Mean score", "short", [("sum by (arm) (serving_score_sum) / sum by (arm) (serving_predictions_total)", "{{arm}}")]),
        ("Labels", "short", [("monitoring_labels_overdue", "overdue share"), ("monitoring_label_delay_seconds / 86400", "delay, days")]),
    ],
    "What moved": [
        ("Largest shifts of the inputs and the score", "short", [("topk(10, monitoring_effect)", "{{column}}")]),
        ("Rows sent to a person, a second", "reqps", [("sum(rate(serving_reviewed_total[5m]))", "rows")]),
    ],
}  # fmt: skip


def build() -> Any:
    board = (
        Dashboard("Model in service")
        .uid("model-in-service")
        .tags(["model"])
        .refresh("1m")
        .time("now-24h", "now")
        .with_variable(DatasourceVariable("source").label("Prometheus").type("prometheus"))
        .with_row(Row("What is wrong"))
        .with_panel(
            Stat()
            .title("Alarms of the monitor")
            .datasource(SOURCE)
            .with_target(query("sum(monitoring_alarm)", "alarms"))
            .span(6)
            .height(6)
        )
        .with_panel(
            Table()
            .title("By name")
            .datasource(SOURCE)
            .with_target(query("monitoring_alarm == 1", "{{kind}}").instant())
            .span(12)
            .height(6)
        )
        .with_panel(
            Stat()
            .title("Hours since the monitor ran")
            .datasource(SOURCE)
            .with_target(query("(time() - monitoring_run_timestamp_seconds) / 3600", "hours"))
            .span(6)
            .height(6)
        )
    )
    for row, panels in ROWS.items():
        board = board.with_row(Row(row))
        for title, unit, queries in panels:
            panel = (
                Timeseries().title(title).datasource(SOURCE).unit(unit).min(0).span(12).height(8)
            )
            for expression, legend in queries:
                panel = panel.with_target(query(expression, legend))
            board = board.with_panel(panel)
    return board.build()


def query(expression: str, legend: str) -> Dataquery:
    return Dataquery().expr(expression).legend_format(legend).datasource(SOURCE)


def text() -> str:
    return JSONEncoder(sort_keys=True, indent=1).encode(build()) + "\n"


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(text(), encoding="utf-8")
    sys.exit(0)
