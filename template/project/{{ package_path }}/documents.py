"""The documents: decisions counted and ranked, quotes refreshed, cards of the model and the data.

The texts of the cards stand in cards.md, which says how its {dotted.facts} are filled in.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .goals.gate import table
from .goals.metrics import METRICS
from .settings import UserError, load

DESIGN = "docs/design"
MODEL_CARD, DATA_CARD = "reports/model_card.md", "reports/data_card.md"
MONITOR, COMPARE = "reports/monitor.json", "reports/compare.json"
STAGES = ("collect", "label", "split", "candidates", "metrics", "gate")
MEASURED = [*(f"reports/{name}.json" for name in STAGES), "models/manifest.json"]
RULES = "ops/prometheus/rules.yml"
# Where the service's histogram of seconds is cut, as serving/metrics.py has it
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
RISKS = ("high", "medium", "low", "")
STATUSES = ("open", "assumed", "settled")
STATUS = re.compile(r"(settled)|(open|assumed)\s*·\s*risk (high|medium|low)")
QUOTE = re.compile(r"<!--=(.*?)-->(?:((?:(?!<!--).)*)<!--/-->)?", re.S)
MISSING = (LookupError, TypeError, ValueError)  # what `_find` raises where a path ends too soon
KEPT = {
    "met": "which it keeps",
    "missed": "which it misses",
    "undecided": "which so few rows cannot tell",
}
TARGETS = {"slices": "worst_slice", "calibration": "calibration_error"}  # of tests named otherwise
MOST_SLICES = 20
_, MODEL_TEXT, DATA_TEXT, WORDS = re.split(
    r"(?m)^(?=# )", Path(__file__).with_name("cards.md").read_text(encoding="utf-8")
)
MEANING = dict(re.findall(r"(?m)^- (\w+): (.+)$", WORDS))


@dataclass(frozen=True)
class Entry:
    """A decision of the design documents; risk is empty when it is settled."""

    id: str
    question: str
    segment: str
    status: str
    risk: str
    where: str  # file:line

    @property
    def order(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.id.split("."))


def status(root: Path) -> list[Entry]:
    """Every entry (`### 2.10 Question?`) of docs/design, in the order of the ids.

    Raises:
        UserError: with file and line, where an id comes twice or an entry has no valid status.
    """
    found: dict[str, Entry] = {}
    for path in sorted((root / DESIGN).glob("*.md")):
        text = _read(path).replace("\r\n", "\n")
        # Examples in fenced blocks are no entries; their lines still count
        text = re.sub(
            r"^ *```.*?^ *```", lambda m: "\n" * m[0].count("\n"), text, flags=re.M | re.S
        )
        title = re.search(r"^# +(.+)$", text, re.M)
        entries = r"^### +(\d+\.\d+)\b *(.*?) *$(.*?)(?=^#{1,3} |\Z)"
        for match in re.finditer(entries, text, re.M | re.S):
            name, question, body = match.groups()
            where = f"{path.relative_to(root).as_posix()}:{_line(text, match.start())}"
            if name in found:
                raise UserError(
                    f"{where}: {name} is at {found[name].where} as well; give it a new id"
                )
            lines = re.findall(r"^- \*\*Status:\*\* *(.*?) *$", body, re.M)
            valid = STATUS.fullmatch(lines[0]) if len(lines) == 1 else None
            if not valid:
                raise UserError(
                    f"{where}: {name} needs one line '- **Status:** settled' or 'open · risk high' "
                    f"(or assumed; high, medium, low); it says {' and '.join(lines) or 'nothing'}"
                )
            segment = title[1] if title and title[1].split()[0] == name.split(".")[0] else name[0]
            state, risk = valid[1] or valid[2], valid[3] or ""
            found[name] = Entry(name, question, segment, state, risk, where)
    return sorted(found.values(), key=lambda entry: entry.order)


def ranked(entries: list[Entry]) -> list[Entry]:
    """What is not settled, by risk, then open before assumed, then by id."""
    return sorted(
        (entry for entry in entries if entry.status != "settled"),
        key=lambda one: (RISKS.index(one.risk), STATUSES.index(one.status), one.order),
    )


def show_status(root: Path, console: Console) -> None:
    """Print the decisions by segment, and below what is open or assumed, the riskiest first."""
    entries = status(root)
    if not entries:
        raise UserError(f"{DESIGN} holds no entries: run the command from the project's folder")
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
    title = f"Look into next, each in the page of its segment in {DESIGN}"
    heads = ("id", "question", "status", "risk", "line")
    rest = Table(*heads, title=title, box=SIMPLE_HEAD, title_justify="left")
    for one in ranked(entries):
        line = one.where.rpartition(":")[2]
        rest.add_row(one.id, escape(one.question), one.status, one.risk, line)
    console.print(rest if rest.row_count else "Everything is settled.")


def sync(root: Path, check: bool) -> list[str]:
    """Refresh what documents and alert rules quote from params.yaml and from reports/*.json.

    A quote is `<!--=params:goals.metric-->f1<!--/-->` or `<!--=reports/metrics.json:rows-->…`.

    Args:
        check: write nothing.

    Returns:
        the stale quotes, one line each: where, what is true, what the document says.

    Raises:
        UserError: with file and line, where a quote has no end or names what can't exist. Nothing
            is written then.
    """
    params, stale, fresh = _params(root), [], {}
    for path in [*sorted((root / DESIGN).glob("*.md")), root / "docs/index.md", root / "README.md"]:
        if not path.is_file():
            continue
        text, start, parts = _read(path), 0, []
        for quote in QUOTE.finditer(text):
            where = f"{path.relative_to(root).as_posix()}:{_line(text, quote.start())}"
            if quote[2] is None:
                raise UserError(f"{where}: the quote has no end; write <!--/--> behind its value")
            now = _quoted(root, params, quote[1].strip(), where)
            if " ".join(quote[2].split()) == now:  # a value may be wrapped over two lines
                continue
            name = quote[1].strip().removeprefix("params:")
            stale.append(f"{where}: {name} is '{now}', the document says '{quote[2]}'")
            parts += [text[start : quote.start(2)], now]
            start = quote.end(2)
        if parts:
            fresh[path] = "".join([*parts, text[start:]])
    rules = root / RULES
    if rules.is_file():
        text = _read(rules)
        lines = [
            _promised(params, line, f"{RULES}:{at}") for at, line in enumerate(text.split("\n"), 1)
        ]
        for at, (old, now) in enumerate(zip(text.split("\n"), lines, strict=True), 1):
            if old != now:
                stale.append(f"{RULES}:{at}: is '{now.strip()}', the file says '{old.strip()}'")
        if lines != text.split("\n"):
            fresh[rules] = "\n".join(lines)
    for path, text in ({} if check else fresh).items():
        _write(path, text)
    return stale


def _promised(params: Any, line: str, where: str) -> str:
    """A line of the alert rules with the number that its comment names; what is not promised is +Inf.

    `x > 0.01  # =params:goals.targets.error_rate` takes the setting, `le="0.05" …  # =bucket:KEY`
    the first bucket of the service's histogram that is not below that many milliseconds.
    """
    marked = re.fullmatch(r"(.*?)(\s+# =(params|bucket):([\w.]+))", line)
    if not marked:
        return line
    code, comment, kind, key = marked.groups()
    try:
        value = _find(params, key)
    except MISSING:
        raise UserError(f"{where}: params.yaml has no {key}; correct the comment") from None
    if kind == "bucket":
        ends = [one for one in BUCKETS if value is not None and one >= value / 1000]
        return re.sub(r'le="[^"]*"', f'le="{ends[0] if ends else "+Inf"}"', code) + comment
    return re.sub(r"\S+$", "+Inf" if value is None else f"{value:g}", code) + comment


def _quoted(root: Path, params: Any, quote: str, where: str) -> str:
    source, _, path = quote.partition(":")
    if source == "params":
        try:
            return _plain(_find(params, path), "%g")
        except MISSING:
            raise UserError(f"{where}: params.yaml has no {path}; correct the quote") from None
    if not re.fullmatch(r"reports/(\w[\w-]*/)*\w[\w.-]*\.json", source):
        raise UserError(f"{where}: '{quote}' is neither params:KEY nor reports/FILE.json:KEY")
    value = _fact(_json(root / source), path)
    return "not measured yet" if value is None else _plain(value)


def write_cards(root: Path) -> None:
    """Write what the stages measured as a card of the model and a card of the data.

    Raises:
        UserError: naming the report or manifest that is missing or broken.
    """
    facts = {"params": _params(root)}
    for path in (root / name for name in MEASURED):
        if not isinstance(found := _json(path), dict):
            raise UserError(f"{path} is not here, or holds no report: run the pipeline first")
        facts[path.stem] = found
    facts["monitor"] = _json(root / MONITOR) or {}
    changes = _json(root / COMPARE) or {}
    facts["compare"] = changes if changes.get("model") == facts["manifest"]["sha256"] else {}
    facts["now"] = _of_model(facts) | _of_data(facts) | _of_service(facts)
    for name, text in ((MODEL_CARD, MODEL_TEXT), (DATA_CARD, DATA_TEXT)):
        _write(root / name, _filled(text, facts))


def refresh_model_card(root: Path) -> None:
    """Write the cards again after `monitor`, when there are any."""
    if (root / MODEL_CARD).is_file():
        write_cards(root)


def _filled(text: str, facts: Any) -> str:
    def say(match: re.Match[str]) -> str:
        path, style = match.groups()
        value = _fact(facts, path)
        if value is None or (path.startswith("now.") and not value):
            raise LookupError(path)
        if path.startswith("now."):
            return str(value)
        if style == "%":
            return f"{value:.1%}"
        return _plain(value[:12] if style else value, digits=",")

    blocks = []
    for block in re.sub(r"(?m)^(#.*|\{now\.\w+\})$", r"\n\1\n", text).split("\n\n"):
        said = []
        for sentence in re.split(r"(?<=\.)\s+", block.strip()):
            with suppress(LookupError):
                said.append(re.sub(r"\{([\w.]+)([%:]?)\}", say, sentence.replace("\n", " ")))
        blocks += [" ".join(said)] if any(said) else []
    # A heading stays where something else than the next heading comes below it
    below = zip(blocks, [*blocks[1:], "## "], strict=True)
    whole = "\n\n".join(a for a, b in below if not (a[:3] == b[:3] == "## ")) + "\n"
    return re.sub(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(\.\d+)?", r"\1 \2", whole)


def _of_model(facts: Any) -> dict[str, Any]:
    """What the model card words from several facts; empty where there is nothing to say."""
    fact = partial(_fact, facts)
    label, positive = (_plain(fact(f"params.data.label.{key}")) for key in ("column", "positive"))
    number = label if fact("manifest.threshold") is None else None
    chance = f"a score from 0 to 1: the higher it is, the likelier {label} is {positive}"
    metric, models = fact("metrics.primary.name"), fact("candidates.rows") or []
    better = "higher" if METRICS[metric].higher_is_better else "lower"
    chosen: dict[str, Any] = next((row for row in models if row["chosen"]), {})
    verdict = chosen.get("verdict")
    held_out = "all rows, each judged by models that were fitted without it"
    promised = {row["target"]: row for row in facts["gate"]["rows"]}
    tests, untested = [], []
    for name, one in (fact("metrics.behaviour") or {}).items():
        if one["measured"] is None:
            untested.append(name)
            continue
        row = promised[TARGETS.get(name, name)]
        kept = KEPT[row["verdict"]] if row["verdict"] else ""
        promise = "nothing" if row["limit"] is None else f"{row['rule']} {row['limit']:g}, {kept}"
        figure = f"{_plain(one['words'])}: {_plain(one['measured'])}"
        tests.append(f"- **{name.capitalize()}**: {figure}; promised is {promise}.")
    slices = [
        [f"{column} = {name}", *(one.get(key) for key in ("rows", "metric", "keeps"))]
        for column, entries in (fact("metrics.slices") or {}).items()
        for name, one in entries.items()
    ]
    judged = sorted((row for row in slices if row[2] is not None), key=lambda row: row[3])
    also = [[name, one, MEANING[name]] for name, one in (fact("metrics.also") or {}).items()]
    inputs = [f"{_plain(one['name'])} ({one['type']})" for one in fact("manifest.inputs") or []]
    return {
        "answer": f"a number: the {label} that it expects" if number else chance,
        "meaning": f"{MEANING[metric]}; {better} is better",
        "also": _table("figure", "value", "what it is", rows=also),
        "tried": len(models),
        "judged_on": {"cross-validation": held_out}.get(
            fact("candidates.judged.by"), "the validation rows"
        ),
        "fitted": chosen.get("fitted"),
        "refit": fact("candidates.shipped.refit") and "again",
        "fate": "was chosen" if verdict == "chosen" else _plain(verdict),
        "unit": number if tests else None,
        "shift": number and _plain(fact("metrics.value.decision")),
        "cheapest": fact("params.goals.decision") == "costs" and "cheapest",
        "behaviour": "\n".join(tests),
        "untested": ", ".join(untested),
        "slices": _table("slice", "rows", "figure", "kept", rows=judged[:MOST_SLICES]),
        "judged": len(judged),
        "small": ", ".join(f"{_plain(row[0])} ({row[1]} rows)" for row in slices if row[2] is None),
        "simpson": _plain(" ".join(fact("metrics.simpson") or [])),
        "verdict": "passed" if facts["gate"]["passed"] else "not passed",
        "gate": table(facts["gate"]).strip().replace("nan", "not a number"),
        "inputs": ", ".join(inputs),
    }


def _of_service(facts: Any) -> dict[str, Any]:
    """What the model card says of the model in service; empty before the first predictions."""
    fact = partial(_fact, facts)
    if not (windows := fact("monitor.windows")):
        return {}

    def told(one: Any, key: str) -> str | None:
        found = one["performance"][key]
        between = found and f"(between {_plain(found['low'])} and {_plain(found['high'])})"
        return (
            found and f"{_plain(one['performance']['metric'])} {_plain(found['value'])} {between}"
        )

    labelled = [one for one in windows if one["performance"]["realised"]]
    this = fact("monitor.model") == fact("manifest.sha256")
    alarms = [f"{_plain(kind)}: {_plain(why)}" for kind, why in facts["monitor"]["alarms"].items()]
    return {
        "served": "In service, it" if this else "The model in service is another one; that",
        "realised": told(labelled[-1], "realised") if labelled else None,
        "estimated": told(windows[-1], "estimated"),
        "well": not alarms and "well in all",
        "alarms": "; ".join(alarms),
        "waiting": _plain(fact("monitor.waiting") or "").removesuffix("not set"),
    }


def _of_data(facts: Any) -> dict[str, Any]:
    """The same for the data card."""
    fact = partial(_fact, facts)
    kept, tested = fact("collect.columns") or {}, fact("split.missing") or {}
    gaps, parts = [], []
    for name, one in sorted(kept.items(), key=lambda pair: -pair[1]["missing"]):
        gap, p = (tested.get(name, {}).get(key) for key in ("gap", "p_value"))
        if one["missing"]:
            told = "below 0.0001" if p is not None and p < 1e-4 else p
            gaps.append([name, f"{one['missing']:.1%}", gap, told])
    for name in ("train", "valid", "test"):
        one = facts["split"]["parts"][name]
        share = one.get("positives", one.get("mean"))
        parts.append([name, one["rows"], share, one.get("first"), one.get("last")])
    label = "mean label" if fact("label.positives") is None else "share of positives"
    source = fact("params.data.source.kind")
    return {
        "source": MEANING[source],
        "made_up": source == "sample" and "made up",
        "refused": _table("reason", "rows", rows=(fact("collect.refused") or {}).items()),
        "labeller": MEANING[fact("params.data.label.source")],
        "personal": MEANING[fact("collect.personal")],
        "none": not fact("collect.personal_columns") and "No",
        "missing": _table("column", "missing", "gap", "p", rows=gaps),
        "whole": ", ".join(_plain(name) for name in sorted(kept) if not kept[name]["missing"]),
        "chance": any(row[3] is not None for row in gaps) and "chance",
        "by": MEANING[fact("split.by")],
        "parts": _table("part", "rows", label, "from", "to", rows=parts),
        "blind": not fact("params.modelling.evaluation.sensitive") and "No",
    }


def _table(*head: str, rows: Iterable[Iterable[Any]]) -> str | None:
    """A Markdown table; None where it has no rows."""
    body = [["—" if cell is None else _plain(cell, digits=",") for cell in row] for row in rows]
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]
    return "\n".join(lines) if body else None


def _plain(value: Any, style: str = "%.4g", digits: str = "d") -> str:
    """A value as Markdown text in one line; no part of it is taken for markup or ends a quote."""
    match value:
        case None:
            return "not set"
        case bool():
            return "yes" if value else "no"
        case int():
            return format(value, digits)
        case float() if math.isnan(value):
            return "not a number"
        case float():
            large = style == "%.4g" and 1e4 <= abs(value) < 1e15
            return format(value, f"{digits.strip('d')}.0f") if large else style % value
        case dict():
            pairs = [f"{_plain(k)}: {_plain(v, style, digits)}" for k, v in value.items()]
            return ", ".join(pairs) or "none"
        case list() | tuple():
            return ", ".join(_plain(one, style, digits) for one in value) or "none"
    text = " ".join(str(value).split()).replace("<", "&lt;").replace(">", "&gt;")
    # An underscore inside a word is no emphasis: average_precision stays readable
    return re.sub(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def _find(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree[int(key) if isinstance(tree, list) else key]
    return tree


def _fact(tree: Any, path: str) -> Any:
    """As `_find`; None where nothing was measured."""
    try:
        value = _find(tree, path)
    except MISSING:
        return None
    empty = value in ("", [], {}) or (isinstance(value, float) and math.isnan(value))
    return None if empty else value


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")  # keeps the line ends as they are
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(text.encode("utf-8"))
    fresh.replace(path)


def _json(path: Path) -> Any:
    try:
        return json.loads(_read(path)) if path.is_file() else None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}; run the pipeline again") from None


def _params(root: Path) -> Any:
    return load(root / "params.yaml").model_dump(mode="json", by_alias=True)
