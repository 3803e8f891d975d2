"""The report: every window tested, what is wrong by name, and what was promised and is broken.

It is written for three readers: reports/monitor.json for programs, reports/monitor.html for people,
and reports/monitor.prom for Prometheus.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
from duckdb import DuckDBPyConnection
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from .. import paths, problem
from ..data.schema import TYPES
from ..data.schema import name as quoted
from ..features.catalogue import READ_SQL, inputs
from ..goals.gate import surely_more
from ..modelling.scorer import load_scorer
from ..parts import parts_here
from ..problem.goals import aimed_quantile, distance
from ..problem.monitoring import OWN_FIGURES, placed
from ..records import SCORE_COLUMN, STAMP_FORMAT, Unreadable, retry_reading, score_array
from ..settings import Settings
from .diagnosis import KINDS, Finding, as_dict, decide_alarms, diagnose, test_window
from .drift import homogeneity
from .performance import Performance, performance, popularity, slices
from .reference import MODELS, Profile, keep_references, read, reference_files
from .search import BadSlice, search
from .windows import Example, Health, Windows, examples, gather, labels_due, models, opened

REPLAY_ROWS = 500  # rows of a window that are scored again
SCORE_TOLERANCE = 1e-3  # difference of a score that the log's rounding explains
OVERDUE = 1.5  # times the delay that the settings give, after which a label is overdue
LOOP = "feedback_loop"
TREND_KINDS = {"prediction_shift", "label_shift", "covariate_shift", "concept_drift"}
LOOP_WINDOWS = 3  # in a row in which the commonest objects must have gained

ALARMS = (
    *(*KINDS, LOOP, "performance", "calibration"),
    *("bad_slice", "slice_shift", "labels_overdue", "fallback", "stale"),
)

Array = np.ndarray


class Freshness(TypedDict):
    """How old things are, and how many of the labels that are due have come; None where unknown."""

    last_prediction_hours: float | None
    quiet_hours: float | None  # of these the hours in which the reference, too, has rows
    label_delay_days: float | None  # median
    labels_due: int
    labels_overdue: float | None  # share of those due
    model_age_days: float | None  # since the last training row


class WindowReport(Health):
    """What the report says of a window with enough rows."""

    kinds: list[str]  # of shift
    labelled: bool  # its labels were tested
    because: dict[str, list[str]]  # kind -> what shows it
    detectors: dict[str, dict[str, Any]]  # kind -> {"alarm", "tests"}, the five surest
    explained: dict[str, float]
    label_mean_estimated: float | None
    label_shares_estimated: dict[str, float]
    performance: Performance
    effects: dict[str, float]  # column or pair -> Cohen's w
    figures: dict[str, float]  # that only this kind of problem has


class Report(TypedDict):
    """What reports/monitor.json holds; the latter keys once there is a window."""

    made_at: str
    project: str
    alarms: dict[str, list[str]]  # name -> reasons
    waiting: list[str]  # what is missing
    windows: list[WindowReport]  # oldest first
    unreadable: list[dict[str, Any]]  # files of the logs that were left out, whole or in part
    model: NotRequired[str]  # checksum
    reference: NotRequired[dict[str, Any]]
    course: NotRequired[dict[str, list[str]]]
    too_small: NotRequired[int]  # windows with fewer rows than are judged
    rows: NotRequired[int]
    popularity: NotRequired[dict[str, Any] | None]
    slices: NotRequired[list[dict[str, Any]]]
    bad_slices: NotRequired[list[BadSlice]]
    freshness: NotRequired[Freshness]
    examples: NotRequired[list[Example]]


def monitor(
    settings: Settings, root: Path, now: datetime | None = None, alone: bool = False
) -> Report:
    """Read the prediction log and the feedback, and write the report: as JSON, page and metrics.

    Args:
        now: instead of the present moment (UTC, without a zone of its own).
        alone: compare with nothing but the test rows, because the log holds them again.

    Returns:
        the report. While something is missing, `waiting` says what for.

    Raises:
        UserError: when a reference, or the model that it is of, cannot be read.
    """
    now = now or datetime.now(UTC).replace(tzinfo=None)
    report = retry_reading(
        lambda: _report(settings, root, now, alone),
        *(root / folder for folder in (paths.PREDICTIONS, paths.FEEDBACK)),
    )
    _write_report(report, settings, root)
    return report


def _report(settings: Settings, root: Path, now: datetime, alone: bool) -> Report:
    report: Report = {
        "made_at": now.isoformat(timespec="seconds"),
        "project": settings.project.name,
        "alarms": {},
        "waiting": [],
        "windows": [],
        "unreadable": [],
    }
    unreadable: list[Unreadable] = []
    keep_references(root)
    with opened(root, unreadable) as sql:
        if logs := _fill_windows(report, sql, settings, root, alone):
            # Stable: the newer model last
            report["windows"].sort(key=lambda window: window["start"])
            _fill_summary(report, logs, _freshness(logs[-1], now))
    report["unreadable"] = [asdict(file) | {"words": str(file)} for file in unreadable]
    return report


class ModelLog(NamedTuple):
    """What one model of a project answered, and the reference that it is compared with."""

    sql: DuckDBPyConnection
    settings: Settings
    root: Path
    profile: Profile
    windows: Windows


def _fill_windows(
    report: Report, sql: DuckDBPyConnection | None, settings: Settings, root: Path, alone: bool
) -> list[ModelLog]:
    """Fill `windows` and `waiting`, each model's answers beside that model's reference.

    Args:
        sql: a database with the views of `opened`; None: nothing was predicted yet.
        alone: compare with nothing but the test rows.

    Returns:
        the logs that were looked at, that of the model that answered last being last.
    """
    logs: list[ModelLog] = []
    waiting = report["waiting"]
    current = read(root)
    if current is None and not reference_files(root):
        waiting.append("a reference to compare with: `run` makes it once the gate is passed")
        return logs
    answers = {} if sql is None else models(sql, settings)
    if sql is None or not answers:
        route = _if_serving("send rows to `serve`, or ")
        waiting.append(f"predictions: {route}use `score FILE --log`")
        return logs
    for model in answers:
        is_current = current is not None and current.facts["model"].startswith(model or "")
        profile = current if is_current or model is None else read(root, model)
        if profile is None:
            waiting.append(
                f"the reference of model {model}, which gave {answers[model]:,} answers: they are "
                "compared with no other one's; `reference` makes that of the model in models/"
            )
            continue
        profile = profile.test_rows_only() if alone else profile
        windows = gather(sql, settings, profile, model, model == [*answers][-1])
        assert windows is not None  # it answered
        logs.append(ModelLog(sql, settings, root, profile, windows))
        _judge_windows(report, logs[-1])
    return logs


def _if_serving(text: str) -> str:
    """A text where the project has a service, else an empty one."""
    return text if "serving" in parts_here() else ""


def _judge_windows(report: Report, log: ModelLog) -> None:
    """Test and name the windows of a model's answers, and add them to the report."""
    monitoring, windows, profile = log.settings.monitoring, log.windows, log.profile
    judged = [w for w, h in enumerate(windows.health) if h["rows"] >= monitoring.min_rows]
    findings = {w: test_window(windows, profile, w, monitoring.statistics) for w in judged}
    decide_alarms([*findings.values()], monitoring.false_discovery, monitoring.effect)
    moved = [w for w, finding in findings.items() if finding.alarms("prediction_shift")]
    reproduced = _replay(log, moved)
    for w in judged:
        diagnose(findings[w], windows, profile, w, monitoring.effect, reproduced.get(w))
        report["windows"].append(_window(log, w, findings[w]))


def _fill_summary(report: Report, logs: list[ModelLog], freshness: Freshness) -> None:
    """Add what is told of all windows together: of the model that answered last."""
    sql, settings, _, profile, windows = logs[-1]
    monitoring, waiting = settings.monitoring, report["waiting"]
    labelled = profile.reweighted(windows.mix_labelled.sum(axis=0))
    min_slice_rows = settings.modelling.evaluation.min_slice_rows
    health = [window for log in logs for window in log.windows.health]
    if not report["windows"]:
        fullest = max((window["rows"] for window in health), default=0)
        waiting.append(
            f"rows: no window of {monitoring.window} has {monitoring.min_rows} yet, the fullest {fullest:,}: wait, or "
            "take longer ones (monitoring.window, monitoring.min_rows)"
        )
    if not any(window["labels"] for window in health):
        delay = settings.data.label.delay_days
        when = "some time" if delay is None else f"{delay:g} day{'s' * (delay != 1)}"
        route = _if_serving("POST /feedback or ")
        waiting.append(f"labels: they come {when} after a prediction, by {route}`feedback FILE`")
    if settings.data.label.delay_days is None:
        reason = "overdue labels: data.label.delay_days is null; say how many days a label takes"
        waiting.append(reason)
    report |= {
        "model": profile.facts["model"],
        "reference": {
            "rows": profile.rows,
            "metric": profile.facts["metrics"][settings.goals.metric],
            "label_mean": profile.facts["label_mean"],
            "trained_until": profile.facts["trained_until"],
            "figures": profile.facts.get("figures", {}),
        },
        "course": {"phases": profile.course.describe(), "lacks": profile.course.lacks},
        "too_small": sum(0 < window["rows"] < monitoring.min_rows for window in health),
        "rows": sum(window["rows"] for window in health),
        "popularity": popularity(windows, profile, settings),
        "slices": slices(windows, profile, settings, _moved_columns(report)),
        "bad_slices": search(windows, labelled, monitoring.false_discovery, min_slice_rows),
        "freshness": freshness,
        "examples": examples(sql, settings, profile, windows),
    }
    report["alarms"] = _alarms(report, settings, windows)


def _moved_columns(report: Report) -> set[str]:
    """The columns that moved in all rows of the newest window."""
    detectors = report["windows"][-1]["detectors"] if report["windows"] else {}
    tests = [test for detector in detectors.values() for test in detector["tests"]]
    return {test["what"] for test in tests if test["alarm"]}


def _shifted_slices(report: Report, share: float) -> list[str]:
    """Slices whose newest rows moved where all rows did not, by Benjamini and Hochberg (1995) over all slices.

    Args:
        share: of false discoveries that is borne (monitoring.false_discovery).
    """
    tested = sum("score_p" in entry for entry in report["slices"])
    moved = sorted(
        (entry for entry in report["slices"] if "alone" in entry),
        key=lambda entry: entry["alone"]["p"],
    )
    passed = [i for i, e in enumerate(moved, 1) if e["alone"]["p"] <= share * i / tested]
    return [
        f"{entry['slice']}: {entry['alone']['column']} moved by {entry['alone']['effect']:.2f} (Cohen's w), in all rows it did not"
        for entry in moved[: max(passed, default=0)]
    ]


def _window(log: ModelLog, w: int, finding: Finding) -> WindowReport:
    """What the report says of one window: its figures, and what the tests found there."""
    _, settings, _, profile, windows = log
    tests = sorted(finding.tests, key=lambda test: (not test.alarm, test.p))
    detectors = {
        kind: {
            "alarm": bool(finding.alarms(kind)),
            "tests": [as_dict(test) for test in tests if test.detector == kind][:5],
        }
        for kind in KINDS
    }
    shifts = ("covariate_shift", "prediction_shift")
    return {
        **windows.health[w],
        "kinds": [*finding.kinds],
        "labelled": any(test.detector == "x" for test in finding.tests),
        "because": finding.kinds,
        "detectors": detectors,
        "explained": finding.explained,
        "label_mean_estimated": finding.label_mean,
        "label_shares_estimated": finding.label_shares,
        "performance": performance(windows, profile, settings, w, "label_shift" in finding.kinds),
        "effects": {t.what: round(t.effect, 4) for t in finding.tests if t.detector in shifts},
        "figures": _own_figures(windows, w),
    }


def _own_figures(windows: Windows, w: int) -> dict[str, float]:
    """The figures of a window's drawn rows that only this kind of problem has."""
    if OWN_FIGURES is None:
        return {}
    drawn = (windows.window == w) & windows.drawn
    truth, score = windows.truth[drawn], windows.score[drawn]
    return dict(OWN_FIGURES[1](truth, score, placed(truth, score), windows.logged[drawn]))


def _replay(log: ModelLog, moved: list[int]) -> dict[int, bool]:
    """By window whose scores moved, whether the model gives the logged scores to the logged inputs.

    If it does, a shift of the scores comes from the inputs; if not, another model answered, or the
    inputs were changed on their way (decision 3.5). At most REPLAY_ROWS of a window are scored again.
    """
    sql, settings, root, profile, windows = log
    columns = inputs(settings)
    if not moved or windows.gone:
        return {}
    stored = [root / name / paths.MODEL_FILE for name in (*MODELS, paths.TRAINED)]
    files = (p for p in stored if p.is_file() and load_scorer(p).sha256 == profile.facts["model"])
    if (path := next(files, None)) is None:
        return {}
    picked = [
        f"{READ_SQL[kind].format(f'TRY_CAST({quoted(name)} AS {TYPES[kind]})')} AS _{index}"
        for index, (name, kind) in enumerate(columns.items())
    ]
    frame = sql.execute(
        f"SELECT _w, {SCORE_COLUMN} AS _scores, {', '.join(picked)} FROM served WHERE _fallback IS NULL AND _w IN {(*moved, -1)} "
        f"QUALIFY row_number() OVER (PARTITION BY _w ORDER BY hash(_id)) <= {REPLAY_ROWS}"
    ).df()
    window, logged = frame.pop("_w").to_numpy(), score_array(frame.pop("_scores"))
    frame.columns = [*columns]
    dtypes = {name: np.float32 for name, kind in columns.items() if kind in ("number", "bool")}
    replayed = load_scorer(path).score(frame.astype(dtypes))
    if replayed.shape != logged.shape:
        return dict.fromkeys(map(int, np.unique(window)), False)
    differs = distance(replayed, logged) > SCORE_TOLERANCE * profile.facts["spread"]
    return {int(w): bool(differs[window == w].mean() < 0.01) for w in np.unique(window)}


def _freshness(log: ModelLog, now: datetime) -> Freshness:
    """How old things are at a moment (UTC, without a zone of its own)."""
    sql, settings, root, profile, windows = log
    lasts = [datetime.fromisoformat(w["last"]) for w in windows.health if w["last"]]
    delays = [w["label_delay_days"] for w in windows.health if w["label_delay_days"] is not None]
    delay, due, labelled = settings.data.label.delay_days, 0, 0
    if delay is not None:
        due, labelled = labels_due(sql, settings, now - timedelta(days=OVERDUE * delay, hours=1))
    until, age = profile.facts["trained_until"], None
    if until:
        age = (now - datetime.fromisoformat(until)).total_seconds() / 86_400
    # A batch speaks of earlier moments, and its file of when it was made
    stamps = [path.name[:15] for path in (root / paths.PREDICTIONS).glob("*-batch.parquet")]
    lasts += [datetime.strptime(s, STAMP_FORMAT) for s in stamps if re.fullmatch(r"\d{8}T\d{6}", s)]
    last = min(now, max(lasts)) if lasts else None
    return {
        "last_prediction_hours": (now - last).total_seconds() / 3600 if last else None,
        "quiet_hours": profile.course.waited(last, now) if last else None,
        "label_delay_days": float(np.median(delays)) if delays else None,
        "labels_due": due,
        "labels_overdue": 1 - labelled / due if due else None,
        "model_age_days": age,
    }


def _feedback_loop(report: Report, windows: Windows, settings: Settings) -> str | None:
    """Whether ever fewer objects get ever more rows, window after window, beyond the least effect."""
    popular = report["popularity"]
    if not popular:
        return None
    min_rows = settings.monitoring.min_rows
    full = [w for w, health in enumerate(windows.health) if health["rows"] >= min_rows]
    # Less what such hours let expect
    mean = float(np.mean(popular["top_usual"])) or 1.0
    shares = [min(1.0, popular["top_share"][w] * mean / popular["top_usual"][w]) for w in full]
    if len(shares) <= LOOP_WINDOWS:
        return None
    n, m = windows.health[full[-1]]["rows"], windows.health[full[0]]["rows"]
    last_counts = np.array([shares[-1] * n, (1 - shares[-1]) * n])
    first_counts = np.array([shares[0] * m, (1 - shares[0]) * m])
    p, effect = homogeneity(last_counts, first_counts)
    run = longest = 0
    for before, after in itertools.pairwise(shares):
        run = run + 1 if after > before else 0
        longest = max(longest, run)
    grown = shares[-1] > shares[0] and longest >= LOOP_WINDOWS
    if grown and effect >= settings.monitoring.effect and p * len(full) < 0.01:
        return (
            f"the commonest tenth of {popular['column']} had {shares[0]:.0%} of the rows and has "
            f"{shares[-1]:.0%}, {len(full)} windows later"
        )
    return None


def _outcome_gap(bad_slice: BadSlice, settings: Settings) -> str:
    """How far the outcomes of a slice lie from its scores, as a clause of a sentence."""
    gap = bad_slice["outcome_less_score"]
    if aimed_quantile(settings.goals) is None:
        return f"outcomes lie {gap:+.3g} from the scores"
    return f"{gap:+.0%} of the outcomes lie above the scores against what should"


def _shifts(report: Report, settings: Settings) -> dict[str, list[str]]:
    """The kinds of shift that the newest windows show, a trend only when so many in a row do."""
    alarms: dict[str, list[str]] = {}
    windows, trend_windows = report["windows"], settings.monitoring.trend_windows
    labelled = [window for window in windows if window["labelled"]]
    # The newest window has no labels yet; the newest one that has tells of the concept
    for series in (labelled, windows):
        for kind in series[-1]["kinds"] if series else ():
            run = [*itertools.takewhile(lambda window: kind in window["kinds"], reversed(series))]  # noqa: B023
            if kind in TREND_KINDS and len(run) < trend_windows:
                continue
            day = run[-1]["start"].replace("T", " ")[:16]
            alarms[kind] = [f"since {day}: {why}" for why in series[-1]["because"][kind]] or [day]
    return alarms


def _realised(report: Report) -> list[Performance]:
    """The figures of the windows with enough labels, the newest last."""
    figures = (window["performance"] for window in report["windows"])
    return [measured for measured in figures if measured["realised"]]


def _broken_promises(report: Report, settings: Settings) -> dict[str, list[str]]:
    """Which promises the newest windows with labels surely break."""
    trend_windows = settings.monitoring.trend_windows
    newest, alarms = _realised(report)[-trend_windows:], {}
    sentences = {
        "performance": settings.goals.metric + " is {value}",
        "calibration": "scores and outcomes are {value} apart",
    }
    for kind, sentence in sentences.items():
        if len(newest) < trend_windows or not all(figures["beyond"][kind] for figures in newest):
            continue
        last = newest[-1]
        figure = last["realised"] if kind == "performance" else last["calibration"]
        assert figure is not None  # a window with enough labels has both
        value = f"{figure['value']:.3g} ({figure['low']:.3g} to {figure['high']:.3g})"
        promised = f"promised is {last['limits'][kind]:.3g}"
        alarms[kind] = [f"{sentence.format(value=value)} on {last['labels']:,} labels; {promised}"]
    return alarms


def _alarms(report: Report, settings: Settings, windows: Windows) -> dict[str, list[str]]:
    """What is wrong now: reasons, as sentences, by name of the alarm.

    Shifts and broken promises are those of the newest windows.
    """
    alarms = _shifts(report, settings)
    if loop := _feedback_loop(report, windows, settings):
        alarms[LOOP] = [loop]
    alarms |= _broken_promises(report, settings)
    if report["bad_slices"]:
        alarms["bad_slice"] = [
            f"{s['slice']}: {s['rows']:,} rows, {_outcome_gap(s, settings)}; the loss differs by "
            f"{s['excess_loss']:+.0%} from what these let expect"
            for s in report["bad_slices"][:3]
        ]
    fresh, monitoring = report["freshness"], settings.monitoring
    if shifted := _shifted_slices(report, monitoring.false_discovery):
        alarms["slice_shift"] = shifted[:3]
    due, overdue = fresh["labels_due"], fresh["labels_overdue"]
    if overdue is not None and overdue > monitoring.labels_overdue:
        alarms["labels_overdue"] = [f"of {due:,} labels that are due, {overdue:.0%} have not come"]
    if fresh["quiet_hours"] is not None and fresh["quiet_hours"] > monitoring.stale_hours:
        alarms["stale"] = [f"the last one is {fresh['last_prediction_hours']:.0f} hours old"]
    promised = settings.goals.targets.error_rate
    last = report["windows"][-1] if report["windows"] else None
    if promised is not None and last and surely_more(last["fallbacks"], last["rows"], promised):
        rows = f"{last['fallback_share']:.1%} of the last window's rows"
        alarms["fallback"] = [f"{rows} were answered by the fallback; promised is {promised:.1%}"]
    return alarms


def _write_report(report: Report, settings: Settings, root: Path) -> None:
    from .page import page

    for path, content in (
        (paths.MONITOR_REPORT, json.dumps(report, indent=1, allow_nan=False) + "\n"),
        (paths.MONITOR_PAGE, page(report, settings)),
        (paths.MONITOR_METRICS, exposition(report, settings)),
    ):
        new_path = root / f"{path}.new"
        new_path.parent.mkdir(parents=True, exist_ok=True)
        new_path.write_text(content, encoding="utf-8", newline="\n")
        new_path.replace(root / path)


def exposition(report: Report, settings: Settings) -> str:
    """The report in Prometheus' text format; the service hands it out with its own metrics."""
    registry = CollectorRegistry()

    def add(name: str, text: str, samples: Mapping[str, float | None], label: str = "") -> None:
        present = {key: value for key, value in samples.items() if value is not None}
        if present:
            gauge = Gauge(name, text, [label] if label else [], registry=registry)
            for key, value in present.items():
                (gauge.labels(key) if label else gauge).set(value)

    made = datetime.fromisoformat(report["made_at"]).replace(tzinfo=UTC).timestamp()
    add("monitoring_run_timestamp_seconds", "When the report was made.", {"": made})
    ringing = {kind: float(kind in report["alarms"]) for kind in ALARMS}
    add("monitoring_alarm", "1 while the report says that this is wrong.", ringing, "kind")
    left_out = [file["lines"] for file in report["unreadable"]]
    add("monitoring_unreadable_files", "Files of the logs left out.", {"": left_out.count(0)})
    add("monitoring_unreadable_lines", "Lines of the logs left out.", {"": sum(left_out)})
    targets = settings.goals.targets.model_dump()
    add("monitoring_target", "What was promised (params.yaml: goals.targets).", targets, "name")
    if not report["windows"]:
        return generate_latest(registry).decode()
    last = report["windows"][-1]
    estimated = last["performance"]["estimated"]
    add("monitoring_effect", "Shift of a column in the newest window (Cohen's w).",
        last["effects"], "column")  # fmt: skip
    if last["figures"]:
        add("monitoring_figure", "What the newest window shows.", last["figures"], "figure")
    if last["rules"]:
        add("monitoring_rule_share", "Share of the newest window that a rule before the model holds of.",
            last["rules"], "rule")  # fmt: skip
    add("monitoring_window_rows", "Rows of the newest window.", {"": last["rows"]})
    measured = _realised(report)
    realised = measured[-1]["realised"] if measured else None
    gap = measured[-1]["calibration"] if measured else None
    figures = {
        "reference": report["reference"]["metric"],
        "estimated": estimated["value"] if estimated else None,
        "realised": realised["value"] if realised else None,
    }
    add("monitoring_performance", f"The primary metric, {settings.goals.metric}.",
        figures, "kind")  # fmt: skip
    # The lower end, as an alarm takes it: a rule on it rings for what is sure
    add("monitoring_calibration_gap", "Least gap between scores and outcomes, by its interval.",
        {"": gap["low"] if gap else None if problem.CLAIMS else float("nan")})  # fmt: skip
    fresh = report["freshness"]
    add("monitoring_labels_overdue", "Share of the labels due.", {"": fresh["labels_overdue"]})
    ages = (
        ("last_prediction", fresh["quiet_hours"], 3600),  # hours without rows are no silence
        ("label_delay", fresh["label_delay_days"], 86_400),
        ("model_age", fresh["model_age_days"], 86_400),
    )
    for name, age, unit in ages:
        seconds = None if age is None else age * unit
        add(f"monitoring_{name}_seconds", f"{name.replace('_', ' ')}.", {"": seconds})
    add("monitoring_model_age_days", "model age days.", {"": fresh["model_age_days"]})
    add("monitoring_bad_slices", "Slices found on which the model is worse than it claims.",
        {"": len(report["bad_slices"])})  # fmt: skip
    return generate_latest(registry).decode()
