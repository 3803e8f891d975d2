"""The report as one page for people: sentences first, then pictures; no script, nothing to load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..settings import Settings

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1f24; background: #fff }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
.light { padding: .6rem .9rem; border-radius: .4rem; margin: .4rem 0; border-left: .5rem solid }
.red { background: #fdecea; border-color: #c62828 } .amber { background: #fff6e0; border-color: #e09600 }
.green { background: #e9f6ec; border-color: #2e7d32 }
.light small, p.note { color: #57606a } table { border-collapse: collapse; font-size: .9rem }
td, th { padding: .2rem .7rem .2rem 0; text-align: left; border-bottom: 1px solid #e3e6ea }
td.n, th.n { text-align: right } svg { max-width: 100%; height: auto } svg text { font: 11px system-ui, sans-serif }
"""
# What each alarm means to somebody who owns the product, and what to do
SAYS = {
    "feature_drift": ("An input is broken or was changed.", "Repair its source; don't retrain on it."),
    "label_schema_drift": ("The true answers come in another form than before.", "Agree on what they mean, then label again."),
    "prediction_shift": ("The answers changed, though what comes in did not.", "Check which model is in service and how its inputs are made."),
    "label_shift": ("The outcome is more or less common than it was.", "Move the level or the threshold; retrain when it stays."),
    "covariate_shift": ("Other cases come in than before.", "See whether the model knows such cases; retrain when it is worse on them."),
    "concept_drift": ("The same cases now end differently: the model's knowledge is out of date.", "Retrain on newer data."),
    "feedback_loop": ("The model keeps choosing what it chose before.", "Let it explore (serving.exploration)."),
    "performance": ("The model does worse than was promised.", "See which of the other lights is on; go back or retrain."),
    "calibration": ("Its scores no longer agree with what comes true.", "Calibrate again on newer labels."),
    "bad_slice": ("It does badly for some kinds of case.", "Look at them; get more data on them."),
    "labels_overdue": ("The true answers do not come in.", "Find out why: without them nobody knows how good the model is."),
    "fallback": ("The model could not answer, and its stand-in did.", "Look into the service's log."),
    "stale": ("No predictions are made any more.", "Is the service up, and does anybody ask it?"),
}  # fmt: skip
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 200, 60, 40


def page(report: Mapping[str, Any], settings: Settings) -> str:
    """One HTML file from the report, readable without a network."""
    name, made = escape(report["project"]), report["made_at"].replace("T", " ")
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        f"<title>How is it doing? {name}</title><style>{STYLE}</style>",
        f"<h1>How is {name} doing?</h1><p class='note'>As of {made} UTC.</p>",
        *_lights(report),
    ]
    if report["windows"]:
        parts += _pictures(report, settings)
    return "\n".join(parts) + "\n"


def _lights(report: Mapping[str, Any]) -> list[str]:
    parts = []
    for kind, why in report["alarms"].items():
        what, do = SAYS[kind]
        reasons = "<br>".join(escape(one) for one in why)
        parts.append(
            f"<div class='light red'><b>{escape(what)}</b> {escape(do)}<br><small>{kind}: {reasons}</small></div>"
        )
    for one in report["waiting"]:
        parts.append(f"<div class='light amber'>Waiting for {escape(one)}.</div>")
    for one in report["unreadable"]:
        parts.append(f"<div class='light amber'>Not readable: {escape(one['words'])}.</div>")
    if report["windows"] and not report["alarms"]:
        parts.append(
            "<div class='light green'><b>Nothing is wrong</b> that could be measured.</div>"
        )
    if report["windows"]:
        parts.append(f"<p>{_summary(report)}</p>")
        parts += [f"<p class='note'>{escape(one)}</p>" for one in _compared(report["course"])]
    return parts


def _summary(report: Mapping[str, Any]) -> str:
    last = report["windows"][-1]
    said = [f"{report['rows']:,} predictions in {len(report['windows'])} windows were looked at."]
    told = [one for one in report["windows"] if one["performance"]["realised"]]
    metric = last["performance"]["metric"]
    if told:
        found = told[-1]["performance"]["realised"]
        said.append(
            f"The newest window with labels has {metric} {found['value']:.3g} "
            f"(between {found['low']:.3g} and {found['high']:.3g}); when the model was tested it was "
            f"{report['reference']['metric']:.3g}."
        )
    if estimated := last["performance"]["estimated"]:
        said.append(
            f"The newest window should reach {estimated['value']:.3g} "
            f"(between {estimated['low']:.3g} and {estimated['high']:.3g}), judged by its scores alone."
        )
    return escape(" ".join(said))


def _compared(course: Mapping[str, Sequence[str]]) -> list[str]:
    """Which hours are compared with which, and of which courses the reference cannot tell."""
    kept = course["phases"]
    said = (
        [f"Compared with their like: {one}." for one in kept]
        if len(kept) > 1 or ";" in "".join(kept)
        else []
    )
    return said + [
        f"Not told, so compared with all hours: courses {one}." for one in course["lacks"]
    ]


def _pictures(report: Mapping[str, Any], settings: Settings) -> list[str]:
    windows = report["windows"]
    days = [one["start"][5:16].replace("T", " ").removesuffix(" 00:00") for one in windows]
    metric, target = settings.goals.metric, settings.goals.targets.metric
    figures = [one["performance"] for one in windows]
    parts = [
        f"<h2>How well it does: {metric}</h2>",
        _lines(
            days,
            {
                "measured": [f["realised"] and f["realised"]["value"] for f in figures],
                "estimated from the scores": [f["estimated"] and f["estimated"]["value"] for f in figures],
            },
            [f["estimated"] and (f["estimated"]["low"], f["estimated"]["high"]) for f in figures],
            {"when tested": report["reference"]["metric"], "promised": target},
        ),
        "<h2>What moved</h2><p class='note'>Darker means further from the reference; a frame marks an alarm.</p>",
        _heat(days, windows),
        "<h2>Windows</h2>",
        _table(
            ["from", "rows", "labels", "fallback", "what it shows"],
            [
                [day, f"{one['rows']:,}", f"{one['labels']:,}", f"{one['fallback_share']:.1%}", ", ".join(one["kinds"]) or "–"]
                for day, one in zip(days, windows, strict=True)
            ][::-1],
        ),
    ]  # fmt: skip
    if report["popularity"]:
        rows = report["popularity"]["fifths"]
        parts += [
            f"<h2>Common and rare: {escape(report['popularity']['column'])}</h2>",
            _table(
                ["fifth, commonest first", "share when tested", "share now", "mean decision", metric, "calibration gap"],
                [[str(r["fifth"]), f"{r['share_then']:.1%}", f"{r['share_now']:.1%}", *(_figure(r[k]) for k in ("mean_decision", "metric", "calibration_gap"))] for r in rows],
            ),
        ]  # fmt: skip
    if report["slices"]:
        parts += [
            "<h2>Named slices, worst first</h2>",
            _table(
                ["slice", "rows", "labels", metric, "calibration gap", "shift of the scores", "moved most"],
                [[r["slice"], f"{r['rows']:,}", f"{r['labels']:,}", *(_figure(r.get(k)) for k in ("metric", "calibration_gap", "score_effect")), f"{r['moved']} ({r['moved_effect']:.2f})" if "moved" in r else "–"] for r in report["slices"][:25]],
            ),
        ]  # fmt: skip
    if report["bad_slices"]:
        parts += [
            "<h2>Slices that nobody named</h2>",
            _table(
                ["slice", "rows", "loss beyond its own claim", "outcomes less scores"],
                [[r["slice"], f"{r['rows']:,}", f"{r['excess_loss']:+.0%}", f"{r['outcome_less_score']:+.3g}"] for r in report["bad_slices"]],
            ),
        ]  # fmt: skip
    fresh = report["freshness"]
    parts += [
        "<h2>How fresh things are</h2>",
        _table(
            ["what", "figure"],
            [[key.replace("_", " "), _figure(value)] for key, value in fresh.items()],
        ),
    ]
    return parts


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else f"{value:,}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' if (at and cell[:1] in '0123456789–+-') or (tag == 'th' and at) else ''}>{escape(cell)}</{tag}>"
            for at, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><tr>{line(head, 'th')}</tr>{body}</table>"


def _lines(
    days: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    band: Sequence[tuple[float, float] | None],
    levels: Mapping[str, float | None],
) -> str:
    """Lines over the windows, with a band, and levels as dashes."""
    values = [v for line in series.values() for v in line if v is not None]
    values += [v for one in band if one for v in one] + [
        v for v in levels.values() if v is not None
    ]
    low, high = min(values), max(values)
    room = (high - low) * 0.1 or 0.1
    low, high = low - room, high + room
    step = (WIDTH - LEFT - 24) / max(1, len(days) - 1)

    def x(at: int) -> float:
        return LEFT + (at * step if len(days) > 1 else (WIDTH - LEFT) / 2)

    def y(value: float) -> float:
        return 10 + (HEIGHT - BOTTOM - 10) * (high - value) / (high - low)

    parts = [f"<svg viewBox='0 0 {WIDTH} {HEIGHT + 20}' role='img'>"]
    known = [(at, one) for at, one in enumerate(band) if one]
    if len(known) > 1:
        points = [f"{x(at):.1f},{y(one[1]):.1f}" for at, one in known]
        points += [f"{x(at):.1f},{y(one[0]):.1f}" for at, one in reversed(known)]
        parts.append(f"<polygon points='{' '.join(points)}' fill='#90caf9' opacity='.4'/>")
    for name, level in levels.items():
        if level is not None:
            parts.append(
                f"<line x1='{LEFT}' x2='{WIDTH - 10}' y1='{y(level):.1f}' y2='{y(level):.1f}' stroke='#888' "
                f"stroke-dasharray='4'/><text x='{WIDTH - 12}' y='{y(level) - 3:.1f}' text-anchor='end'>{name}</text>"
            )
    for colour, (name, line) in zip(("#1b1f24", "#1976d2"), series.items(), strict=False):
        dots = [(x(at), y(value)) for at, value in enumerate(line) if value is not None]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in dots)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
        parts += [f"<circle cx='{a:.1f}' cy='{b:.1f}' r='3' fill='{colour}'/>" for a, b in dots]
        at = LEFT + 200 * [*series].index(name)
        parts.append(
            f"<rect x='{at}' y='{HEIGHT + 6}' width='10' height='10' fill='{colour}'/>"
            f"<text x='{at + 15}' y='{HEIGHT + 15}'>{name}</text>"
        )
    for value in (low + room, (low + high) / 2, high - room):
        parts.append(
            f"<text x='{LEFT - 8}' y='{y(value) + 4:.1f}' text-anchor='end'>{value:.3g}</text>"
        )
    for at in {0, len(days) // 2, len(days) - 1}:
        parts.append(
            f"<text x='{x(at):.1f}' y='{HEIGHT - BOTTOM + 20}' text-anchor='middle'>{escape(days[at])}</text>"
        )
    return "".join([*parts, "</svg>"])


def _heat(days: Sequence[str], windows: Sequence[Mapping[str, Any]]) -> str:
    """Effects by column and window."""
    names: list[str] = sorted(
        {name for one in windows for name in one["effects"] if " with " not in name},
        key=lambda name: -max(one["effects"].get(name, 0.0) for one in windows),
    )[:20]
    wide, high, left = min(40.0, 440 / len(windows)), 16, 190
    parts = [f"<svg viewBox='0 0 {WIDTH} {high * len(names) + 24}' role='img'>"]
    for row, name in enumerate(names):
        parts.append(
            f"<text x='{left - 6}' y='{row * high + 12}' text-anchor='end'>{escape(name[:30])}</text>"
        )
        for at, one in enumerate(windows):
            effect = one["effects"].get(name, 0.0)
            alarmed = any(
                test["alarm"] and test["what"].split(":")[0] == name
                for kind in one["detectors"].values()
                for test in kind["tests"]
            )
            frame = "stroke='#c62828' stroke-width='2'" if alarmed else "stroke='#fff'"
            parts.append(
                f"<rect x='{left + at * wide:.1f}' y='{row * high + 1}' width='{wide - 2:.1f}' height='{high - 3}' "
                f"fill='#1976d2' fill-opacity='{min(1.0, 0.04 + effect):.2f}' {frame}>"
                f"<title>{escape(name)}, {escape(days[at])}: {effect:.2f}</title></rect>"
            )
    for at in {0, len(days) - 1}:
        parts.append(
            f"<text x='{left + at * wide:.1f}' y='{high * len(names) + 16}'>{escape(days[at])}</text>"
        )
    return "".join([*parts, "</svg>"])
