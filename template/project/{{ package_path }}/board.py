"""The board: five segments as five columns on one sheet, as a team would draw them on a whiteboard.

It needs neither a script nor a network.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from textwrap import shorten, wrap
from typing import Any

from .cards import render

# Sign and colour of each state; the colours are told apart in light and in dark
STATES = {"settled": ("●", "#1a7f37"), "assumed": ("◐", "#9a6700"), "open": ("○", "#cf222e")}
# Characters of a decision that the board shows; the value and the figure share a line
MAX_CHARS = {"topic": 26, "value": 46, "figure": 26}
TEMPLATE = Path(__file__).with_name("board.html.j2")
WIDTH, HEIGHT, DOTS = 20.0, 15.0, 90  # of the picture: inches, and dots an inch


@dataclass(frozen=True)
class Tile:
    """A decision as the board shows it: three words for its subject, what is in force, today's figure."""

    id: str
    question: str
    segment: str
    state: str
    risk: str
    topic: str
    value: str
    figure: str
    rank: int  # among those that are not settled; 0 for the settled


@cache
def commonmark() -> Any:
    """The reader of Markdown with tables, which takes no HTML: `render` gives a text as HTML."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table")


def strip_markup(markdown: str) -> str:
    """The words of a line of Markdown, without its markup."""
    (line,) = commonmark().parseInline(markdown)
    return "".join(token.content for token in line.children or [])


def title(markdown: str) -> str:
    """What the first heading says; empty where there is none."""
    heading = next((line for line in markdown.splitlines() if line.startswith("# ")), "")
    return strip_markup(heading[2:])


def sheet(name: str, decisions: Sequence[Tile], links: Mapping[str, str] | None = None) -> str:
    """The board as one page of HTML, which needs no script and no network.

    Args:
        name: the project's.
        links: from a decision's id to where it stands in full.
    """
    first, remainder = _ranking(decisions)
    facts = {
        "title": f"{name}: the board",
        "decisions": decisions,
        "signs": {state: sign for state, (sign, _) in STATES.items()},
        "columns": _columns(decisions),
        "links": links or {},
        "first": first,
        "remainder": remainder,
    }
    return render(TEMPLATE, facts, short=_shorten)


def _count(decisions: Sequence[Tile], state: str) -> int:
    return sum(decision.state == state for decision in decisions)


def _shorten(decision: Tile) -> list[str]:
    """Topic, value and figure, cut to what is read at a glance."""
    figure = shorten(decision.figure, MAX_CHARS["figure"], placeholder="…")
    room = MAX_CHARS["value"] - len(figure) * 6 // 5  # a figure is bold
    value = shorten(decision.value, room, placeholder="…")
    return [shorten(decision.topic, MAX_CHARS["topic"], placeholder="…"), value, figure]


def _columns(decisions: Sequence[Tile]) -> list[tuple[str, list[Tile]]]:
    return [(name, list(group)) for name, group in groupby(decisions, attrgetter("segment"))]


def _ranking(decisions: Sequence[Tile]) -> tuple[list[Tile], str]:
    """What to look into next, the riskiest first: all that is open or of high risk, then the ids of the rest."""
    ranked = sorted((entry for entry in decisions if entry.rank), key=attrgetter("rank"))
    first = [decision for decision in ranked if decision.state == "open" or decision.risk == "high"]
    lower = [decision.id for decision in ranked if decision not in first]
    if not ranked:
        return [], "Everything is settled."
    return first, f"Then what is assumed at less risk: {', '.join(lower)}." if lower else ""


def picture(name: str, decisions: Sequence[Tile], path: Path) -> None:
    """Draw the board as a PNG of 1800 x 1350 pixels, equal to the byte for equal decisions."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DOTS)
    figure.text(0.01, 0.972, f"{name}: the board", fontsize=17, weight="bold", parse_math=False)
    for position, (state, (sign, colour)) in enumerate(STATES.items()):
        caption = f"{sign} {_count(decisions, state)} {state}"
        figure.text(0.6 + 0.13 * position, 0.972, caption, fontsize=13, color=colour)
    frames = _columns(decisions)
    strip = [group for frame, group in frames if frame.startswith("0")]
    columns = [(frame, group) for frame, group in frames if not frame.startswith("0")]
    top = 0.955
    for group in strip:
        for position, decision in enumerate(group):
            left, width = 0.01 + 0.98 * position / len(group), 0.98 / len(group) - 0.008
            _draw(figure, decision, left, top, width, 0.05)
        top -= 0.05
    deepest = max((len(group) for _, group in columns), default=1)
    first, remainder = _ranking(decisions)
    lines = -(-len(first) // 5)
    foot = 0.045 + 0.0275 * lines
    step = min(0.05, (top - 0.035 - foot) / deepest)
    for position, (frame, group) in enumerate(columns):
        left, width = 0.01 + 0.98 * position / len(columns), 0.98 / len(columns) - 0.008
        figure.text(left, top - 0.022, frame, fontsize=12, weight="bold", parse_math=False)
        for row, decision in enumerate(group):
            _draw(figure, decision, left, top - 0.03 - step * row, width, step)
    figure.text(0.01, foot - 0.005, "Look into next", fontsize=12, weight="bold")
    for position, decision in enumerate(first):
        column, row = divmod(position, max(lines, 1))
        text = f"{STATES[decision.state][0]} {decision.id} {decision.question} {decision.risk}"
        figure.text(0.01 + 0.196 * column, foot - 0.012 - 0.0275 * row, "\n".join(wrap(text, 52)[:2]),
                    fontsize=8.5, va="top", color=STATES[decision.state][1], parse_math=False)  # fmt: skip
    figure.text(0.01, 0.008, remainder, fontsize=9, color="#57606a", parse_math=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that the font does not have
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    # A palette makes the file a quarter as large
    image = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())
    image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path)


def _draw(figure: Any, entry: Tile, left: float, top: float, width: float, step: float) -> None:
    from matplotlib.patches import Rectangle

    (sign, colour), (topic, value, measured) = STATES[entry.state], _shorten(entry)
    height, shape = min(0.042, step - 0.002), figure.transFigure
    corner = (left, top - height)
    figure.add_artist(Rectangle(corner, width, height, color="#f3f4f6", transform=shape))
    figure.add_artist(Rectangle(corner, 0.003, height, color=colour, transform=shape))
    risk = "high risk" if entry.risk == "high" else ""
    shade, weight = ("#57606a", "normal") if measured.startswith("not ") else ("black", "bold")
    figure.text(left + 0.006, top - 0.017, sign, fontsize=11, color=colour)
    figure.text(left + 0.018, top - 0.017, f"{entry.id} {topic}",
                fontsize=10.5, weight="bold", parse_math=False)  # fmt: skip
    end, line = left + width - 0.004, top - height + 0.006
    style: dict[str, Any] = {"fontsize": 9.5, "parse_math": False}
    figure.text(end, top - 0.017, risk, fontsize=8.5, color=colour, ha="right")
    figure.text(left + 0.018, line, value, **style)
    figure.text(end, line, measured, color=shade, weight=weight, ha="right", **style)
