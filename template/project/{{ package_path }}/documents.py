"""The design pages: decisions counted and ranked, settings quoted, today's figures filled in, the board.

A page in git quotes settings, `<!--=params:KEY-->…<!--/-->`, which `sync` keeps true. What a run measures
stands there as a {dotted.fact}, such as {metrics.rows}, {fact%} for a share or {fact:} cut short, and is filled
in where the page is shown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import board, paths, problem
from .cards import CARD_SOURCES, LOOKUP_ERRORS, figure_text, find, params_of, plain, report, write
from .parts import PARTS, part_module
from .repository import edited
from .settings import LATENCY_BUCKETS, UserError, load, read_json, read_text

RISKS = ("high", "medium", "low", "")
STATUSES = ("open", "assumed", "settled")
STATUS = re.compile(r"(settled)|(open|assumed)\s*·\s*risk (high|medium|low)")
QUOTE = re.compile(r"<!--=(.*?)-->(?:((?:(?!<!--).)*)<!--/-->)?", re.S)
FENCED = re.compile(r"^ *```.*?^ *```", re.M | re.S)
# What `show` fills in: quotes and {dotted.facts}, but not in code or behind a backslash
FILLED = re.compile(
    r"^ *```.*?^ *```|(?<![\\`])(`+)(?!`)(?:(?!\n\s*\n).)*?(?<!`)\1(?!`)"
    r"|<!--=(?P<quote>.*?)-->(?:(?:(?!<!--).)*<!--/-->)?"
    r"|(?<!\\)\{(?P<fact>\w+(?:\.\w+)+)(?P<style>[%:]?)\}",
    re.M | re.S,
)
UNKNOWN, UNMEASURED = "not measured yet", "\ufffe"
# Reports that a command writes and nobody needs to have run
EXTRA_REPORTS = (
    *("assumptions", "bench", "compare", "compression", "curves", "experiment", "importance"),
    *("governance", "monitor", "readiness", "retrain", "tuning"),
)
# Of these, such as hold less while they wait for rows: a missing key was not measured
PARTIAL_REPORTS = ("experiment", "governance", "monitor")


@dataclass(frozen=True)
class Entry:
    """A decision of the design documents; risk is empty when it is settled."""

    id: str
    question: str
    segment: str
    status: str
    risk: str
    location: str  # file:line

    @property
    def order(self) -> tuple[int, ...]:
        """The numbers of the id: 2.10 comes after 2.9."""
        return tuple(int(part) for part in self.id.split("."))


def status(root: Path) -> list[Entry]:
    """Every entry (`### 2.10 Question?`) of docs/design, in the order of the ids.

    Raises:
        UserError: with file and line, where an id comes twice or an entry has no valid status.
    """
    entries_by_id: dict[str, Entry] = {}
    for path in sorted((root / paths.DESIGN).glob("*.md")):
        text = read_text(path).replace("\r\n", "\n")
        title = re.search(r"^# +(.+)$", text, re.M)
        for match in _entries(text):
            name, question, body = match.groups()
            location = _location(root, path, text, match.start())
            if name in entries_by_id:
                raise UserError(
                    f"{location}: {name} is at {entries_by_id[name].location} as well; give it a new id"
                )
            lines = re.findall(r"^- \*\*Status:\*\* *(.*?) *$", body, re.M)
            valid = STATUS.fullmatch(lines[0]) if len(lines) == 1 else None
            if not valid:
                raise UserError(
                    f"{location}: {name} needs one line '- **Status:** settled' or 'open · risk high' "
                    f"(or assumed; high, medium, low); it says {' and '.join(lines) or 'nothing'}"
                )
            segment = title[1] if title and title[1].split()[0] == name.split(".")[0] else name[0]
            state, risk = valid[1] or valid[2], valid[3] or ""
            entries_by_id[name] = Entry(name, question, segment, state, risk, location)
    return sorted(entries_by_id.values(), key=lambda entry: entry.order)


def _entries(text: str) -> Iterator[re.Match[str]]:
    """The entries of a page: id, question, body. Examples in fenced blocks are none."""
    masked = FENCED.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
    return re.finditer(r"^### +(\d+\.\d+)\b *(.*?) *$(.*?)(?=^#{1,3} |\Z)", masked, re.M | re.S)


def ranked(entries: list[Entry]) -> list[Entry]:
    """What is not settled, by risk, then open before assumed, then by id."""
    return sorted(
        (entry for entry in entries if entry.status != "settled"),
        key=lambda entry: (RISKS.index(entry.risk), STATUSES.index(entry.status), entry.order),
    )


def show_status(root: Path, console: Console) -> None:
    """Print the decisions by segment, what is open or assumed, the riskiest first, and edited machinery.

    Raises:
        UserError: where docs/design holds no decision, and as `status` does.
    """
    entries = status(root)
    if not entries:
        raise UserError(
            f"{paths.DESIGN} holds no entries: run the command from the project's folder"
        )
    columns = [*reversed(STATUSES), "total"]
    counts = Counter(key for e in entries for s in (e.segment, "all") for key in [(s, e.status)])
    summary = Table("segment", title="Decisions", box=SIMPLE_HEAD, title_justify="left")
    for column in columns:
        summary.add_column(column, justify="right")
    for segment in [*dict.fromkeys(entry.segment for entry in entries), "all"]:
        row = [counts[segment, state] for state in reversed(STATUSES)]
        style = "bold" if segment == "all" else None
        summary.add_row(escape(segment), *map(str, [*row, sum(row)]), style=style)
    console.print(summary)
    title = f"Look into next, each in the page of its segment in {paths.DESIGN}"
    heads = ("id", "question", "status", "risk", "line")
    ranking = Table(*heads, title=title, box=SIMPLE_HEAD, title_justify="left")
    for entry in ranked(entries):
        line = entry.location.rpartition(":")[2]
        ranking.add_row(entry.id, escape(entry.question), entry.status, entry.risk, line)
    console.print(ranking if ranking.row_count else "Everything is settled.")
    statements = part_module("governance.statements")
    if statements and (
        line := statements.pilot_line(load(root / paths.SETTINGS_FILE), date.today())
    ):
        console.print(line, markup=False)
    changed = edited(root)
    if changed:
        console.print("Edited files of the template, where its next update can conflict (lines):")
        for name, lines in changed.items():
            console.print(f"  {name} ({lines:,})", markup=False)
    if advice := outlook(root):
        console.print(advice, markup=False)


def sync(root: Path, check: bool) -> list[str]:
    """Refresh the settings that documents and alert rules quote from params.yaml.

    A quote is `<!--=params:goals.metric-->f1<!--/-->`. One of a report, as older templates had them, becomes
    `{metrics.rows}`: git keeps no figure that the next run changes.

    Args:
        check: write nothing.

    Returns:
        the stale quotes, one line each: where, what is true, what the document says.

    Raises:
        UserError: with file and line, where a quote has no end or names what can't exist. Nothing
            is written then.
    """
    params = params_of(root)
    files = [path for path in (*pages(root), root / paths.README) if path.is_file()]
    requoted = {path: _requoted(root, path, params) for path in files}
    rules = root / paths.ALERT_RULES
    if rules.is_file():
        requoted[rules] = _updated_rules(read_text(rules), params)
    for path, (text, stale) in requoted.items():
        if stale and not check:
            write(path, text)
    return [line for _, stale in requoted.values() for line in stale]


def _requoted(root: Path, path: Path, params: Any) -> tuple[str, list[str]]:
    """A page that quotes today's settings, and which of its quotes were stale."""
    text, start, parts, stale = read_text(path), 0, [], []
    for quote in QUOTE.finditer(text):
        location, name = f"{_location(root, path, text, quote.start())}", quote[1].strip()
        if quote[2] is None:
            raise UserError(f"{location}: the quote has no end; write <!--/--> behind its value")
        if name.startswith(f"{paths.REPORTS}/"):
            now, span = _as_fact(name, location), quote.span()
            stale.append(f"{location}: a measured figure is written {now}, the document quotes it")
        elif _of_absent_part(params, name.removeprefix("params:")):
            continue  # the part was taken out, and what it was set to stays said
        else:
            now, span = _setting(params, name, location), quote.span(2)
            if " ".join(quote[2].split()) == now:  # a value may be wrapped over two lines
                continue
            key = name.removeprefix("params:")
            stale.append(f"{location}: {key} is '{now}', the document says '{quote[2]}'")
        parts += [text[start : span[0]], now]
        start = span[1]
    return "".join([*parts, text[start:]]), stale


def _updated_rules(text: str, params: Any) -> tuple[str, list[str]]:
    """The alert rules with today's targets, and which of their lines were stale."""
    lines = text.split("\n")
    fresh = [
        _updated_rule(params, line, f"{paths.ALERT_RULES}:{number}")
        for number, line in enumerate(lines, 1)
    ]
    stale = [
        f"{paths.ALERT_RULES}:{number}: is '{now.strip()}', the file says '{old.strip()}'"
        for number, (old, now) in enumerate(zip(lines, fresh, strict=True), 1)
        if old != now
    ]
    return "\n".join(fresh), stale


def _updated_rule(params: Any, line: str, location: str) -> str:
    """A line of the alert rules with the number that its comment names; what is not promised is +Inf.

    `x > 0.01  # =params:goals.targets.error_rate` takes the setting, `le="0.05" …  # =bucket:KEY`
    the first bucket of the service's histogram that is not below that many milliseconds.
    """
    marked = re.fullmatch(r"(.*?)(\s+# =(params|bucket):([\w.]+))", line)
    if not marked:
        return line
    code, comment, kind, key = marked.groups()
    if _of_absent_part(params, key):
        return line
    try:
        value = find(params, key)
    except LOOKUP_ERRORS:
        raise UserError(f"{location}: params.yaml has no {key}; correct the comment") from None
    if kind == "bucket":
        ends = [end for end in LATENCY_BUCKETS if value is not None and end >= value / 1000]
        return re.sub(r'le="[^"]*"', f'le="{ends[0] if ends else "+Inf"}"', code) + comment
    return re.sub(r"\S+$", "+Inf" if value is None else f"{value:g}", code) + comment


def _of_absent_part(params: Any, key: str) -> bool:
    """Whether a setting is of a part whose block params.yaml has not."""
    part = key.split(".")[0]
    return part in PARTS and params.get(part) is None


def _setting(params: Any, quote: str, location: str) -> str:
    kind, _, key = quote.partition(":")
    if kind != "params":
        raise UserError(
            f"{location}: '{quote}' is not params:KEY; a measured figure is {_braces('REPORT.KEY')}"
        )
    try:
        return plain(find(params, key), "%g")
    except LOOKUP_ERRORS:
        raise UserError(f"{location}: params.yaml has no {key}; correct the quote") from None


def _as_fact(quote: str, location: str) -> str:
    """`reports/metrics.json:rows`, the former way, as `{metrics.rows}`."""
    old = re.fullmatch(rf"{paths.REPORTS}/(\w+)\.json:(\w+(?:\.\w+)*)", quote)
    if not old:
        raise UserError(
            f"{location}: '{quote}' is no figure; write {_braces('REPORT.KEY')}, as in {_braces('metrics.rows')}"
        )
    return _braces(f"{old[1]}.{old[2]}")


def _braces(name: str) -> str:
    return "{" + name + "}"


def facts_of(root: Path) -> dict[str, Any]:
    """All that a page can quote: {"params": …, "manifest": …, a report's name: its content or None}."""
    facts: dict[str, Any] = dict.fromkeys([*(Path(p).stem for p in CARD_SOURCES), *EXTRA_REPORTS])
    facts |= {path.stem: report(path) for path in sorted((root / paths.REPORTS).glob("*.json"))}
    return facts | {"params": params_of(root), "manifest": report(root / paths.MANIFEST)}


def filled(root: Path, path: Path, facts: dict[str, Any], unknown: str = UNKNOWN) -> str:
    """A page with today's settings and figures in it, and without comments.

    Args:
        unknown: what stands for a figure that nothing has measured.

    Raises:
        UserError: with file and line, for a figure that no report holds, and as `sync` does.
    """
    text = read_text(path).replace("\r\n", "\n")

    def fill(match: re.Match[str]) -> str:
        location = _location(root, path, text, match.start())
        if (quote := match["quote"]) is not None:
            quote = quote.strip()
            if _of_absent_part(facts["params"], quote.removeprefix("params:")):
                return unknown
            if not quote.startswith(f"{paths.REPORTS}/"):
                return _setting(facts["params"], quote, location)
            return _figure(facts, _as_fact(quote, location)[1:-1], "", location) or unknown
        if match["fact"]:
            return _figure(facts, match["fact"], match["style"], location) or unknown
        return match[0]

    return re.sub(r"<!--.*?-->", "", FILLED.sub(fill, text), flags=re.S)


def _figure(facts: dict[str, Any], path: str, style: str, location: str) -> str:
    """What a fact says today; empty where nothing was measured."""
    tree, keys = facts, path.split(".")
    for depth, key in enumerate(keys):
        if tree is None or tree in ({}, []):
            return ""
        try:
            tree = find(tree, key)
        except LOOKUP_ERRORS:
            if depth and keys[0] in PARTIAL_REPORTS:
                return ""
            available = ", ".join(map(str, tree)) if isinstance(tree, dict) else "nothing below it"
            raise UserError(
                f"{location}: {_braces(path)} is no figure: there is no {'.'.join(keys[: depth + 1])}, only {available}"
            ) from None
    try:
        return figure_text(facts, path, style)
    except LookupError:
        return ""
    except (TypeError, ValueError):
        raise UserError(
            f"{location}: {_braces(path + style)} is {plain(tree)}; leave out '{style}'"
        ) from None


def show(root: Path, page: str | None, console: Console) -> None:
    """Print the design pages, one of them or one decision, with today's figures.

    Args:
        page: 2, 2-data…, index or 2.10; None for all pages.

    Raises:
        UserError: where nothing is called so, and as `filled` does.
    """
    from rich.markdown import Markdown

    facts = facts_of(root)
    name = Path(page or "").name.removesuffix(".md")
    files = [p for p in pages(root) if p.is_file() and name in ("", p.stem, p.stem.split("-")[0])]
    texts = [filled(root, path, facts) for path in files]
    if re.fullmatch(r"\d+\.\d+", name):
        texts = [text for id_, (_, text) in entry_texts(root, facts).items() if id_ == name]
    if not texts:
        names = ", ".join(p.stem for p in pages(root) if p.is_file())
        raise UserError(f"no page or decision is called {page!r}; there: {names}, or an id as 2.10")
    for text in texts:
        console.print(Markdown(text), soft_wrap=False)


def entry_texts(root: Path, facts: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Of each decision, by its id, the page it stands in and its text with today's figures.

    Raises:
        UserError: as `status` and `filled`.
    """
    texts: dict[str, tuple[str, str]] = {}
    for page in sorted({entry.location.rpartition(":")[0] for entry in status(root)}):
        text = filled(root, root / page, facts)
        texts |= {match[1]: (page, match[0]) for match in _entries(text)}
    return texts


def draw_board(root: Path, anew: bool = True) -> list[str]:
    """Draw reports/board.html and reports/board.png: what is decided by segment, and today's figures.

    Args:
        anew: draw the picture again where the page stays as it was, too.

    Returns:
        the names of both files.
    """
    name, tiles = decisions(root, facts_of(root))
    sheet = board.sheet(name, tiles)
    page, picture = root / paths.BOARD, root / paths.BOARD_PICTURE
    drawn_before = page.is_file() and picture.is_file()
    if anew or not drawn_before or page.read_text(encoding="utf-8") != sheet:
        write(page, sheet)
        board.picture(name, tiles, picture)
    return [paths.BOARD, paths.BOARD_PICTURE]


def decisions(root: Path, facts: dict[str, Any]) -> tuple[str, list[board.Tile]]:
    """The project's name, and each entry as the board shows it, with its place in the ranking.

    Raises:
        UserError: where docs/design holds no decision, and as `filled` does.
    """
    entries, short = status(root), {}
    if not entries:
        raise UserError(
            f"{paths.DESIGN} holds no entries: run the command from the project's folder"
        )
    rank = {entry.id: number for number, entry in enumerate(ranked(entries), 1)}
    for path in sorted((root / paths.DESIGN).glob("*.md")):
        for match in _entries(filled(root, path, facts, UNMEASURED)):
            line = re.search(r"^- \*\*In short:\*\* *(.*?) *$", match[3], re.M)
            topic, _, detail = board.strip_markup(line[1] if line else match[2]).partition(": ")
            value, _, figure = detail.partition(" · ")
            short[match[1]] = topic, value, UNKNOWN if UNMEASURED in figure else figure
    tiles = [
        board.Tile(
            e.id,
            board.strip_markup(e.question),
            e.segment,
            e.status,
            e.risk,
            *short[e.id],
            rank.get(e.id, 0),
        )
        for e in entries
    ]
    return facts["params"]["project"]["name"], tiles


def pages(root: Path) -> list[Path]:
    """The documents that people write: their first page, and those of the segments in order."""
    return [root / paths.DOCUMENTS_HOME, *sorted((root / paths.DESIGN).glob("*.md"))]


def _location(root: Path, path: Path, text: str, position: int) -> str:
    return f"{path.relative_to(root).as_posix()}:{_line(text, position)}"


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def outlook(root: Path) -> str:
    """What can be done with the labels by now, in words; "" where models learn from them anyway.

    They are counted in the labelled data, and by the newest verdict on each id in the feedback.
    """
    from .data.label import truth
    from .problem.data import outlook as advice_on
    from .records import LABEL, database, view

    path = root / paths.LABEL_REPORT
    if problem.UNLABELLED is None or not path.is_file():
        return ""
    summary = read_json(path)
    odd_rows = round(summary[problem.FIGURE[0]] * summary["rows_labelled"])
    y = truth("_label", load(root / paths.SETTINGS_FILE))
    with database(root) as sql:
        view(sql, "feedback", root / paths.FEEDBACK, LABEL, [])
        ((fed_odd, fed_back),) = sql.execute(
            f"SELECT count(*) FILTER (y = 1), count(*) FROM (SELECT max_by({y}, _time) AS y FROM feedback "
            f"WHERE {y} IS NOT NULL GROUP BY _id)"
        ).fetchall()
    in_source = odd_rows, summary["rows_labelled"] - odd_rows
    return advice_on(in_source, (fed_odd, fed_back - fed_odd))
