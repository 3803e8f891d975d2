"""The report: every window tested, what is wrong by name, and what was promised and is broken.

It is written for three readers: reports/monitor.json for programs, reports/monitor.html for people,
and reports/monitor.prom for Prometheus.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from .. import paths
from ..data.schema import TYPES
from ..data.schema import name as quoted
from ..features.catalogue import READ, inputs
from ..goals.gate import surely_more
from ..modelling.scorer import load_scorer
from ..parts import parts_here
from ..problem.goals import aimed_quantile, distance
from ..records import SCORE_COLUMN, Unreadable, score_array, settled
from ..settings import Settings
from . import performance as measured
from .drift import KINDS, Finding, as_dict, decide_alarms, diagnose, homogeneity, test_window
from .reference import MODELS, Profile, known, read, remember
from .search import search
from .windows import Windows, gather, labels_due, models, opened

REPLAYED = 500  # rows of a window that are scored again
SAME = 1e-3  # difference of a score that the log's rounding explains
LATE = 1.5  # times the delay that the settings give, after which a label is overdue
LOOP = "feedback_loop"
TRENDS = {"prediction_shift", "label_shift", "covariate_shift", "concept_drift"}
STAMP = "%Y%m%dT%H%M%S"  # with which the name of a batch begins
LOOP_WINDOWS = 3  # in a row in which the commonest objects must have gained

ALARMS = (
    *(*KINDS, LOOP, "performance", "calibration"),
    *("bad_slice", "labels_overdue", "fallback", "stale"),
)

Array = np.ndarray


def monitor(
    settings: Settings, root: Path, now: datetime | None = None, alone: bool = False
) -> dict[str, Any]:
    """Read the prediction log and the feedback, and write the report.

    Args:
        now: instead of the present moment.
        alone: compare with nothing but the test rows, because the log holds them again.

    Returns:
        what reports/monitor.json holds. While something is missing, `waiting` says what for.

    Raises:
        UserError: when the reference cannot be read.
    """
    now = now or datetime.now(UTC).replace(tzinfo=None)
    report = settled(
        lambda: _report(settings, root, now, alone),
        *(root / one for one in (paths.PREDICTIONS, paths.FEEDBACK)),
    )
    _write_report(report, settings, root)
    return report


def _report(settings: Settings, root: Path, now: datetime, alone: bool) -> dict[str, Any]:
    report: dict[str, Any] = {
        "made_at": now.isoformat(timespec="seconds"),
        "project": settings.project.name,
        "alarms": {},
        "waiting": [],
        "windows": [],
        "unreadable": [],
    }
    unreadable: list[Unreadable] = []
    remember(root)
    with opened(root, unreadable) as sql:
        _read(report, sql, settings, root, now, alone)
    report["unreadable"] = [asdict(one) | {"words": str(one)} for one in unreadable]
    return report


@dataclass
class Part:
    """What one model answered, and the reference that it is compared with."""

    model: str | None
    profile: Profile
    windows: Windows
    findings: dict[int, Finding]


def _read(
    report: dict[str, Any],
    sql: duckdb.DuckDBPyConnection | None,
    settings: Settings,
    root: Path,
    now: datetime,
    alone: bool,
) -> None:
    """Fill the report from the log, each model's answers beside the reference of that very model."""
    waiting = report["waiting"]
    current = read(root)
    if current is None and not known(root):
        waiting.append("a reference to compare with: `run` makes it once the gate is passed")
        return
    answered = {} if sql is None else models(sql, settings)
    if sql is None or not answered:
        waiting.append(f"predictions: {_served('send rows to `serve`, or ')}use `score FILE --log`")
        return
    parts: list[Part] = []
    for model in answered:
        mine = current is not None and current.facts["model"].startswith(model or "")
        profile = current if mine or model is None else read(root, model)
        if profile is None:
            waiting.append(
                f"the reference of model {model}, which gave {answered[model]:,} answers: they are "
                "compared with no other one's; `reference` makes that of the model in models/"
            )
            continue
        profile = profile.alone() if alone else profile
        windows = gather(sql, settings, profile, model, model == [*answered][-1])
        assert windows is not None  # it answered
        parts.append(_judged(report, sql, settings, root, Part(model, profile, windows, {})))
    if parts:
        report["windows"].sort(key=lambda one: one["start"])  # stable: the newer model last
        _fill(report, settings, parts, _freshness(sql, settings, root, parts[-1], now))


def _served(words: str) -> str:
    """Words that hold where the project has a service; else none."""
    return words if "serving" in parts_here() else ""


def _judged(
    report: dict[str, Any],
    sql: duckdb.DuckDBPyConnection,
    settings: Settings,
    root: Path,
    part: Part,
) -> Part:
    """Test and name the windows of a model's answers, and add them to the report."""
    given, windows, profile = settings.monitoring, part.windows, part.profile
    judged = [w for w, one in enumerate(windows.health) if one["rows"] >= given.min_rows]
    findings = {w: test_window(windows, profile, w) for w in judged}
    decide_alarms([*findings.values()], given.false_discovery, given.effect)
    moved = [w for w, one in findings.items() if one.alarms("prediction_shift")]
    same = _replay(sql, settings, root, profile, windows, moved)
    for w in judged:
        diagnose(findings[w], windows, profile, w, given.effect, same.get(w))
        report["windows"].append(_window(settings, profile, windows, w, findings[w]))
    part.findings = findings
    return part


def _fill(
    report: dict[str, Any], settings: Settings, parts: list[Part], freshness: dict[str, Any]
) -> None:
    """Add what is told of all windows together: of the model that answered last."""
    given, waiting = settings.monitoring, report["waiting"]
    windows, profile = parts[-1].windows, parts[-1].profile
    health = [one for part in parts for one in part.windows.health]
    if not report["windows"]:
        waiting.append(f"rows: no window has {given.min_rows} yet (monitoring.min_rows)")
    if not any(one["labels"] for one in health):
        late = settings.data.label.delay_days
        when = "some time" if late is None else f"{late:g} day{'s' * (late != 1)}"
        waiting.append(
            f"labels: they come {when} after a prediction, by {_served('POST /feedback or ')}`feedback FILE`"
        )
    if settings.data.label.delay_days is None:
        waiting.append(
            "overdue labels: data.label.delay_days is null; say how many days a label takes"
        )
    report |= {
        "model": profile.facts["model"],
        "reference": {
            "rows": profile.rows,
            "metric": profile.facts["metrics"][settings.goals.metric],
            "label_mean": profile.facts["label_mean"],
            "trained_until": profile.facts["trained_until"],
        },
        "course": {"phases": profile.course.words(), "lacks": profile.course.lacks},
        "too_small": len([one for one in health if 0 < one["rows"] < given.min_rows]),
        "rows": sum(one["rows"] for one in health),
        "popularity": measured.popularity(windows, profile, settings),
        "slices": measured.slices(windows, profile, settings),
        "bad_slices": search(
            windows,
            profile.like(windows.mix_labelled.sum(axis=0)),
            given.false_discovery,
            settings.modelling.evaluation.min_slice_rows,
        ),
        "freshness": freshness,
    }
    report["alarms"] = _alarms(report, settings, windows)


def _window(
    settings: Settings, profile: Profile, windows: Windows, w: int, finding: Finding
) -> dict[str, Any]:
    detectors = {
        kind: {
            "alarm": bool(finding.alarms(kind)),
            "tests": [
                as_dict(one)
                for one in sorted(finding.tests, key=lambda t: (not t.alarm, t.p))
                if one.detector == kind
            ][:5],
        }
        for kind in KINDS
    }
    return {
        **windows.health[w],
        "kinds": [*finding.kinds],
        "labelled": any(one.detector == "x" for one in finding.tests),
        "because": finding.kinds,
        "detectors": detectors,
        "explained": finding.explained,
        "label_mean_estimated": finding.label_mean,
        "label_shares_estimated": finding.label_shares,
        "performance": measured.performance(
            windows, profile, settings, w, "label_shift" in finding.kinds
        ),
        "effects": {
            one.what: round(one.effect, 4)
            for one in finding.tests
            if one.detector in ("covariate_shift", "prediction_shift")
        },
    }


def _replay(
    sql: duckdb.DuckDBPyConnection,
    settings: Settings,
    root: Path,
    profile: Profile,
    windows: Windows,
    moved: list[int],
) -> dict[int, bool]:
    """By window whose scores moved, whether the model gives the logged scores to the logged inputs.

    If it does, a shift of the scores comes from the inputs; if not, another model answered, or the
    inputs were changed on their way (decision 3.5).
    """
    columns = inputs(settings)
    if not moved or windows.gone:
        return {}
    here = [root / name / paths.MODEL_FILE for name in (*MODELS, paths.TRAINED)]
    files = (
        one for one in here if one.is_file() and load_scorer(one).sha256 == profile.facts["model"]
    )
    if (path := next(files, None)) is None:
        return {}
    picked = [
        f"{READ[kind].format(f'TRY_CAST({quoted(one)} AS {TYPES[kind]})')} AS _{place}"
        for place, (one, kind) in enumerate(columns.items())
    ]
    frame = sql.execute(
        f"SELECT _w, {SCORE_COLUMN} AS _scores, {', '.join(picked)} FROM served WHERE _fallback IS NULL AND _w IN {(*moved, -1)} "
        f"QUALIFY row_number() OVER (PARTITION BY _w ORDER BY hash(_id)) <= {REPLAYED}"
    ).df()
    place, logged = frame.pop("_w").to_numpy(), score_array(frame.pop("_scores"))
    frame.columns = [*columns]
    plain = {one: np.float32 for one, kind in columns.items() if kind in ("number", "bool")}
    again = load_scorer(path).score(frame.astype(plain))
    if again.shape != logged.shape:
        return dict.fromkeys(map(int, np.unique(place)), False)
    wrong = distance(again, logged) > SAME * profile.facts["spread"]
    return {int(w): bool(wrong[place == w].mean() < 0.01) for w in np.unique(place)}


def _freshness(
    sql: duckdb.DuckDBPyConnection, settings: Settings, root: Path, part: Part, now: datetime
) -> dict[str, Any]:
    """How old things are, in hours and days, and how many labels are overdue."""
    health, profile = part.windows.health, part.profile
    lasts = [datetime.fromisoformat(one["last"]) for one in health if one["last"]]
    delays = [one["label_delay_days"] for one in health if one["label_delay_days"] is not None]
    late, due, labelled = settings.data.label.delay_days, 0, 0
    if late is not None:
        due, labelled = labels_due(sql, settings, now - timedelta(days=LATE * late, hours=1))
    until = profile.facts["trained_until"]
    age = None
    if until:
        age = (now - datetime.fromisoformat(until)).total_seconds() / 86_400
    # A batch speaks of earlier moments, and its file of when it was made
    made = [one.name[:15] for one in (root / paths.PREDICTIONS).glob("*-batch.parquet")]
    lasts += [datetime.strptime(one, STAMP) for one in made if re.fullmatch(r"\d{8}T\d{6}", one)]
    last = min(now, max(lasts)) if lasts else None
    return {
        "last_prediction_hours": (now - last).total_seconds() / 3600 if last else None,
        # Of these the hours in which the reference, too, has rows
        "quiet_hours": profile.course.waited(last, now) if last else None,
        "label_delay_days": float(np.median(delays)) if delays else None,
        "labels_due": due,
        "labels_overdue": 1 - labelled / due if due else None,
        "model_age_days": age,
    }


def _loop(report: Mapping[str, Any], windows: Windows, settings: Settings) -> str | None:
    """Whether ever fewer objects get ever more rows, window after window, beyond the least effect."""
    found = report["popularity"]
    if not found:
        return None
    full = [
        w for w, one in enumerate(windows.health) if one["rows"] >= settings.monitoring.min_rows
    ]
    # Less what such hours let expect
    usual = float(np.mean(found["top_usual"])) or 1.0
    shares = [min(1.0, found["top_share"][w] * usual / found["top_usual"][w]) for w in full]
    if len(shares) <= LOOP_WINDOWS:
        return None
    n, m = windows.health[full[-1]]["rows"], windows.health[full[0]]["rows"]
    now = np.array([shares[-1] * n, (1 - shares[-1]) * n])
    then = np.array([shares[0] * m, (1 - shares[0]) * m])
    p, effect = homogeneity(now, then)
    run = longest = 0
    for before, after in itertools.pairwise(shares):
        run = run + 1 if after > before else 0
        longest = max(longest, run)
    grown = (
        shares[-1] > shares[0] and effect >= settings.monitoring.effect and longest >= LOOP_WINDOWS
    )
    if grown and p * len(full) < 0.01:
        return (
            f"the commonest tenth of {found['column']} had {shares[0]:.0%} of the rows and has "
            f"{shares[-1]:.0%}, {len(full)} windows later"
        )
    return None


def _off(one: Any, settings: Settings) -> str:
    """How far the outcomes of a slice lie from its scores, in words."""
    if aimed_quantile(settings.goals) is None:
        return f"outcomes lie {one['outcome_less_score']:+.3g} from the scores"
    return (
        f"{one['outcome_less_score']:+.0%} of the outcomes lie above the scores against what should"
    )


def _shifts(report: Mapping[str, Any], settings: Settings) -> dict[str, list[str]]:
    """The kinds of shift that the newest windows show, a trend only when so many in a row do."""
    alarms: dict[str, list[str]] = {}
    told, row = report["windows"], settings.monitoring.trend_windows
    labelled = [one for one in told if one["labelled"]]
    # The newest window has no labels yet; the newest one that has tells of the concept
    for series in (labelled, told):
        for kind in series[-1]["kinds"] if series else ():
            run = [*itertools.takewhile(lambda one: kind in one["kinds"], reversed(series))]  # noqa: B023
            if kind in TRENDS and len(run) < row:
                continue
            day = run[-1]["start"].replace("T", " ")[:16]
            alarms[kind] = [f"since {day}: {why}" for why in series[-1]["because"][kind]] or [day]
    return alarms


def _broken(report: Mapping[str, Any], settings: Settings) -> dict[str, list[str]]:
    """Which promises the newest windows with labels surely break."""
    told = [one["performance"] for one in report["windows"] if one["performance"]["realised"]]
    row = settings.monitoring.trend_windows
    newest, alarms = told[-row:], {}
    words = {
        "performance": settings.goals.metric + " is {value}",
        "calibration": "scores and outcomes are {value} apart",
    }
    for kind, said in words.items():
        if len(newest) < row or not all(one["beyond"][kind] for one in newest):
            continue
        last = newest[-1]
        figure = last["realised" if kind == "performance" else "calibration"]
        value = f"{figure['value']:.3g} ({figure['low']:.3g} to {figure['high']:.3g})"
        alarms[kind] = [
            f"{said.format(value=value)} on {last['labels']:,} labels; promised is "
            f"{last['limits'][kind]:.3g}"
        ]
    return alarms


def _alarms(
    report: Mapping[str, Any], settings: Settings, windows: Windows
) -> dict[str, list[str]]:
    """What is wrong now, by name: why, in sentences. Shifts are those of the newest windows."""
    alarms = _shifts(report, settings)
    if loop := _loop(report, windows, settings):
        alarms[LOOP] = [loop]
    alarms |= _broken(report, settings)
    if report["bad_slices"]:
        alarms["bad_slice"] = [
            f"{one['slice']}: {one['rows']:,} rows, {_off(one, settings)}; the loss differs by {one['excess_loss']:+.0%} from what these let expect"
            for one in report["bad_slices"][:3]
        ]
    fresh, given = report["freshness"], settings.monitoring
    if fresh["labels_overdue"] is not None and fresh["labels_overdue"] > given.labels_overdue:
        alarms["labels_overdue"] = [
            f"of {fresh['labels_due']:,} labels that are due, {fresh['labels_overdue']:.0%} have not come"
        ]
    if fresh["quiet_hours"] is not None and fresh["quiet_hours"] > given.stale_hours:
        alarms["stale"] = [f"the last one is {fresh['last_prediction_hours']:.0f} hours old"]
    promised, last = settings.goals.targets.error_rate, (report["windows"] or [None])[-1]
    if promised is not None and last and surely_more(last["fallbacks"], last["rows"], promised):
        alarms["fallback"] = [
            f"{last['fallback_share']:.1%} of the last window's rows were answered by the fallback; "
            f"promised is {promised:.1%}"
        ]
    return alarms


def _write_report(report: dict[str, Any], settings: Settings, root: Path) -> None:
    from .page import page

    for path, content in (
        (paths.MONITOR_REPORT, json.dumps(report, indent=1, allow_nan=False) + "\n"),
        (paths.MONITOR_PAGE, page(report, settings)),
        (paths.MONITOR_METRICS, exposition(report, settings)),
    ):
        fresh = root / f"{path}.new"
        fresh.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(content, encoding="utf-8", newline="\n")
        fresh.replace(root / path)


def exposition(report: Mapping[str, Any], settings: Settings) -> str:
    """The report as Prometheus reads it: the service hands it out with its own metrics."""
    registry = CollectorRegistry()

    def add(name: str, words: str, samples: Mapping[str, float | None], label: str = "") -> None:
        known = {key: value for key, value in samples.items() if value is not None}
        if known:
            gauge = Gauge(name, words, [label] if label else [], registry=registry)
            for key, value in known.items():
                (gauge.labels(key) if label else gauge).set(value)

    made = datetime.fromisoformat(report["made_at"]).replace(tzinfo=UTC).timestamp()
    add("monitoring_run_timestamp_seconds", "When the report was made.", {"": made})
    add(
        "monitoring_alarm",
        "1 while the report says that this is wrong.",
        {one: float(one in report["alarms"]) for one in ALARMS},
        "kind",
    )
    left_out = [one["lines"] for one in report["unreadable"]]
    add("monitoring_unreadable_files", "Files of the logs left out.", {"": left_out.count(0)})
    add("monitoring_unreadable_lines", "Lines of the logs left out.", {"": sum(left_out)})
    targets = settings.goals.targets.model_dump()
    add("monitoring_target", "What was promised (params.yaml: goals.targets).", targets, "name")
    if not report["windows"]:
        return generate_latest(registry).decode()
    last = report["windows"][-1]
    add("monitoring_effect", "Shift of a column in the newest window (Cohen's w).",
        last["effects"], "column")  # fmt: skip
    add("monitoring_window_rows", "Rows of the newest window.", {"": last["rows"]})
    told = [one["performance"] for one in report["windows"] if one["performance"]["realised"]]
    figures = {
        "reference": report["reference"]["metric"],
        "estimated": (last["performance"]["estimated"] or {}).get("value"),
        "realised": told[-1]["realised"]["value"] if told else None,
    }
    add("monitoring_performance", f"The primary metric, {settings.goals.metric}.",
        figures, "kind")  # fmt: skip
    # The lower end, as an alarm takes it: a rule on it rings for what is sure
    add("monitoring_calibration_gap", "Least gap between scores and outcomes, by its interval.",
        {"": told[-1]["calibration"]["low"] if told else None})  # fmt: skip
    fresh = report["freshness"]
    add("monitoring_labels_overdue", "Share of the labels due.", {"": fresh["labels_overdue"]})
    fresh = fresh | {
        "last_prediction_hours": fresh["quiet_hours"]
    }  # hours without rows are no silence
    units = {"last_prediction_hours": 3600, "label_delay_days": 86_400, "model_age_days": 86_400}
    for key, unit in units.items():
        value = None if fresh[key] is None else fresh[key] * unit
        what = key.rpartition("_")[0]
        add(f"monitoring_{what}_seconds", f"{what.replace('_', ' ')}.", {"": value})
    add(f"monitoring_{key}", f"{key.replace('_', ' ')}.", {"": fresh[key]})
    add("monitoring_bad_slices", "Slices found on which the model is worse than it claims.",
        {"": len(report["bad_slices"])})  # fmt: skip
    return generate_latest(registry).decode()
