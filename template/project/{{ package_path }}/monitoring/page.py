"""The report as one page for people, page.html.j2: sentences first, then pictures; no script, nothing to load."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ..cards import render
from ..problem.monitoring import OWN_FIGURES, OWN_SHIFTS
from ..settings import Settings

TEMPLATE = Path(__file__).with_name("page.html.j2")
# What each alarm means to somebody who owns the product, and what to do
MEANINGS = {
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
    "slice_shift": ("Other cases come in than before for some kinds of case alone.", "See what changed there; retrain when it is worse on them."),
    "labels_overdue": ("The true answers do not come in.", "Find out why: without them nobody knows how good the model is."),
    "fallback": ("The model could not answer, and its stand-in did.", "Look into the service's log."),
    "stale": ("No predictions are made any more.", "Is the service up, and does anybody ask it?"),
} | {kind: (meaning, advice) for kind, (meaning, advice, *_) in OWN_SHIFTS.items()}  # fmt: skip
MAX_COLUMNS = 20  # rows of the heat map
MAX_NAME = 30  # characters beside it
MAX_FIGURES = 14  # windows with room for a figure in each cell


def page(report: Mapping[str, Any], settings: Settings) -> str:
    """The report of `monitor` as one HTML page, which needs no script and no network."""
    windows = report["windows"]
    days = [window["start"][5:16].replace("T", " ").removesuffix(" 00:00") for window in windows]
    facts = {
        "report": report,
        "meanings": MEANINGS,
        "days": days,
        "metric": settings.goals.metric,
        "figures_title": OWN_FIGURES[0] if OWN_FIGURES else "",
        "labelled": [f for window in windows if (f := window["performance"]["realised"])],
        "lines": Markup(_lines(days, report, settings.goals.targets.metric)) if windows else "",
        "heat": Markup(_heat(days, windows)) if windows else "",
    }
    return render(TEMPLATE, facts, short=_format)


def _format(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else f"{value:,}"


def _lines(days: Sequence[str], report: Mapping[str, Any], target: float | None) -> str:
    """The metric over the windows, measured and estimated, with the estimate's interval, as SVG."""
    figure, axes = _axes(3.0, 0.1)
    figures = [window["performance"] for window in report["windows"]]
    for key, name, colour in (
        ("realised", "measured", "#1b1f24"),
        ("estimated", "estimated from the scores", "#1976d2"),
    ):
        x = [index for index, window in enumerate(figures) if window[key]]
        values = [figures[index][key]["value"] for index in x]
        axes.plot(x, values, "o-", color=colour, label=name)
    low, high = ([figures[index]["estimated"][end] for index in x] for end in ("low", "high"))
    axes.fill_between(x, low, high, color="#90caf9", alpha=0.4, linewidth=0)
    side = axes.get_yaxis_transform()
    for name, level in (("when tested", report["reference"]["metric"]), ("promised", target)):
        if level is not None:
            axes.axhline(level, color="#888", linestyle="--", linewidth=1)
            axes.text(1, level, f" {name}", transform=side, va="center")
    bottom, top = axes.get_ylim()
    for level in np.linspace(bottom, top, 5)[1:-1]:
        axes.text(0, level, f"{level:.3g} ", transform=side, ha="right", va="center")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    _name_days(axes, days)
    return _svg(figure, "lines")


def _heat(days: Sequence[str], windows: Sequence[Mapping[str, Any]]) -> str:
    """Effects by column and window, as SVG: Cohen's w, with a frame where a test of the column rang."""
    from matplotlib.patches import Rectangle

    names: list[str] = sorted(
        {name for window in windows for name in window["effects"] if " with " not in name},
        key=lambda name: (-max(window["effects"].get(name, 0.0) for window in windows), name),
    )[:MAX_COLUMNS]
    effects = [[window["effects"].get(name, 0.0) for window in windows] for name in names]
    figure, axes = _axes(0.6 + 0.22 * len(names), 0.31)
    axes.pcolormesh(effects, cmap="Blues", vmin=0, vmax=1.3, edgecolors="white", linewidth=1.5)
    for index, window in enumerate(windows):
        tests = [test for kind in window["detectors"].values() for test in kind["tests"]]
        rang = {test["what"].split(":")[0] for test in tests if test["alarm"]}
        for row, name in enumerate(names):
            if not index:
                axes.text(
                    -0.1, row + 0.5, _shorten(name), ha="right", va="center", parse_math=False
                )
            if name in rang:
                axes.add_patch(Rectangle((index, row), 1, 1, fill=False, edgecolor="#c62828", lw=2))
            effect = effects[row][index]
            if effect >= 0.1 and len(days) <= MAX_FIGURES:
                ink = "white" if effect > 0.7 else "black"
                at = index + 0.5, row + 0.5
                axes.text(*at, f"{effect:.2f}", ha="center", va="center", color=ink)
    axes.set_xlim(0, max(len(days), 6))
    axes.set_ylim(len(names), 0)
    _name_days(axes, days, 0.5)
    return _svg(figure, "heat")


def _shorten(name: str) -> str:
    """A column's name as the heat map has room for, whole in what says how the column was derived."""
    source, bracket, kind = name.partition(" (")
    room = MAX_NAME - len(bracket + kind) - 1
    return name if len(name) <= MAX_NAME else f"{source[: max(1, room)]}…{bracket}{kind}"


def _axes(height: float, left: float) -> tuple[Any, Any]:
    """A figure of 9 inches' width; its axes are a bare area, since ticks take most of the time to draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height))
    axes = figure.add_axes((left, 0.3 / height, 0.88 - left, 1 - 0.6 / height), frameon=False)
    axes.set_axis_off()
    return figure, axes


def _name_days(axes: Any, days: Sequence[str], shift: float = 0.0) -> None:
    """Name the windows below, eight of them at most."""
    units: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    for index in range(0, len(days), -(-len(days) // 8)):
        axes.annotate(days[index], (index + shift, 0), (0, -12), ha="center", **units)


def _svg(figure: Any, name: str) -> str:
    """A figure as SVG to stand inside a page: letters stay letters, no address, the same for the same figures."""
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=no_metadata)
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", "<svg" + file.getvalue().partition("<svg")[2])
