"""The cards of the model and the data, and how a {dotted.fact} of any page is filled in.

The texts of the cards are the template cards.md.j2; `render` fills in every page of HTML too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, StrictUndefined, Undefined
from markupsafe import Markup

from . import paths, problem
from .goals import gate
from .problem.goals import METRICS
from .settings import UserError, load, read_json, read_text

TEMPLATE = Path(__file__).with_name("cards.md.j2")
STAGES = ("collect", "label", "split", "candidates", "metrics", "gate")
CARD_SOURCES = [*map(paths.report_path, STAGES), paths.MANIFEST]
# What `find` raises where a path ends too soon
LOOKUP_ERRORS = (LookupError, TypeError, ValueError)
TARGET_STATES = {
    "met": "which it keeps",
    "missed": "which it misses",
    "undecided": "which so few rows cannot tell",
}
TARGETS = {"slices": "worst_slice", "calibration": "calibration_error"}  # of tests named otherwise
MAX_SLICES = 20
# Keys of governance.use and governance.source -> how the cards name them
USES = {
    "intended": "for",
    "users": "used by",
    "wrong": "not for",
    "misuse": "misuse that can be foreseen",
    "trade_offs": "given up",
}
RIGHTS = {
    "owner": "whose it is",
    "licence": "licence",
    "consent": "consent",
    "purpose": "collected for",
    "readers": "who may read it",
    "missing": "who is missing",
}
# What values of the settings mean, to a reader who is no engineer
MEANING = {
    "sample": "were made up by the project's own generator",
    "files": "were read from files",
    "sql": "were read from a database",
    "natural": "is what happened",
    "user": "was given by users",
    "team": "was given by a team",
    "algorithm": "was given by an algorithm",
    "drop": "left out before anything was written",
    "hash": "replaced by hashes with a secret key before anything was written",
    "keep": "kept as they are",
    "time": "by time, the latest for the test",
    "group": "by group, each on one side only",
    "random": "at random",
}


def render(
    template: Path,
    facts: dict[str, Any],
    undefined: type[Undefined] = StrictUndefined,
    finalize: Callable[[Any], Any] | None = None,
    **filters: Any,
) -> str:
    """A template with its facts filled in; every value is escaped for HTML.

    Args:
        undefined: what a fact is that is not there.
        finalize: applied to every value before it is escaped; for another language than HTML, it gives Markup.
        filters: functions that the template may pipe a value through.
    """
    environment = Environment(
        autoescape=True,
        finalize=finalize,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=undefined,
    )
    environment.filters |= filters
    return environment.from_string(read_text(template).replace("\r\n", "\n")).render(facts)


def write_cards(root: Path) -> None:
    """Write what the stages measured as a card of the model and a card of the data.

    Raises:
        UserError: naming the report or manifest that is missing or broken.
    """
    facts = {"params": params_of(root)}
    for path in (root / name for name in CARD_SOURCES):
        if not isinstance(content := report(path), dict):
            raise UserError(f"{path} is not here, or holds no report: run the pipeline first")
        facts[path.stem] = content
    facts["monitor"] = report(root / paths.MONITOR_REPORT) or {}
    facts["retired"] = report(root / paths.RETIRED) or {}
    facts["governance"] = report(root / paths.GOVERNANCE) or {}
    for name in (paths.COMPARE, paths.ASSUMPTIONS):
        content = report(root / name) or {}
        is_current = content.get("model") == facts["manifest"]["sha256"]
        facts[Path(name).stem] = content if is_current else {}
    in_use = report(root / paths.PRODUCTION / paths.MANIFEST_FILE) or {}
    if in_use.get("sha256") == facts["manifest"]["sha256"]:
        facts["promotion"] = in_use.get("promotion")
    measured = _prune(facts) | {"meaning": MEANING, "table": table}
    cards = {paths.MODEL_CARD: _model_facts(facts), paths.DATA_CARD: _data_facts(facts)}
    for name, card_facts in cards.items():
        text = render(
            TEMPLATE,
            measured | card_facts | {"card": Path(name).stem},
            undefined=ChainableUndefined,
            finalize=_as_markup,
            percent="{:.1%}".format,
        )
        write(root / name, _lay_out(text))


def refresh_model_card(root: Path) -> None:
    """Write the cards again after `monitor`, when there are any."""
    if (root / paths.MODEL_CARD).is_file():
        write_cards(root)


def figure_text(facts: Any, path: str, style: str) -> str:
    """The words for one {dotted.fact} of a page, as Markdown in one line.

    Raises:
        LookupError: where nothing was measured.
    """
    value = _prune(find(facts, path))
    if value is None:
        raise LookupError(path)
    return f"{value:.1%}" if style == "%" else plain(value[:12] if style else value, digits=",")


def _prune(tree: Any) -> Any:
    """Without what nothing has measured: None, NaN, and what is empty. None where nothing is left."""
    if isinstance(tree, dict):
        tree = {key: inner for key, value in tree.items() if (inner := _prune(value)) is not None}
    empty = tree in ("", [], {}) or (isinstance(tree, float) and math.isnan(tree))
    return None if empty else tree


def _as_markup(value: Any) -> Any:
    """A value as a template shows it: as Markdown text, unless it is Markdown already."""
    return value if hasattr(value, "__html__") else Markup(plain(value, digits=","))


def _lay_out(text: str) -> str:
    """Each paragraph in one line, and no heading that another one of its rank follows."""
    blocks = [
        block if block.startswith(("|", "- ")) else " ".join(block.split())
        for block in re.split(r"\n\s*\n", text.strip())
    ]
    below = zip(blocks, [*blocks[1:], "## "], strict=True)
    page = "\n\n".join(a for a, b in below if not (a[:3] == b[:3] == "## ")) + "\n"
    return re.sub(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(\.\d+)?", r"\1 \2", page)


def _model_facts(facts: Any) -> dict[str, Any]:
    """What the model card tells besides single facts."""
    metrics, candidates = facts["metrics"], facts["candidates"]
    label = facts["params"]["data"]["label"]
    keys = {key: plain(label[key]) for key in problem.LabelKeys.model_fields}
    answers = problem.answer_words(keys["column"], keys, plain(metrics["value"]["decision"]))
    promised = {row["target"]: row for row in facts["gate"]["rows"]}
    tests, untested = [], []
    for name, test in (metrics.get("behaviour") or {}).items():
        if test["measured"] is None:
            untested.append(name)
        else:
            tests.append(promised[TARGETS.get(name, name)] | test | {"name": name})
    slices = [
        [f"{column} = {name}", *(row.get(key) for key in ("rows", "metric", "keeps"))]
        for column, entries in (metrics.get("slices") or {}).items()
        for name, row in entries.items()
    ]
    windows, also = facts["monitor"].get("windows") or [], metrics.get("also") or {}
    columns = label.get("classes") or ["a lower answer", "a higher answer"]
    return {
        **{key: text and Markup(text) for key, text in answers.items()},
        "primary": METRICS[metrics["primary"]["name"]],
        "chosen": next((_prune(row) for row in candidates["rows"] if row["chosen"]), {}),
        "judged_on": "all rows, each judged by models that were fitted without it"
        if candidates["judged"]["by"] == "cross-validation"
        else "the validation rows",
        "also": [[name, figure, METRICS[name].meaning] for name, figure in also.items()],
        "kept": TARGET_STATES,
        "classes": [
            [row["class"], row["rows"], row["recall"], row["precision"], row["calibration"]]
            for row in metrics.get("classes") or []
        ],
        "confused": [
            [row["class"], *row["decided"].values()] for row in metrics.get("classes") or []
        ],
        "own_tables": [
            (
                entry["title"],
                entry["note"],
                [key.replace("_", " ") for key in entry["rows"][0]],
                [row.values() for row in entry["rows"]],
            )
            for entry in (metrics.get("tables") or {}).values()
            if entry["rows"]
        ],
        "texts": [
            [row["feature"], columns[row["column"]], ", ".join(map(_visible, row["ngrams"]))]
            for row in candidates.get("texts") or []
            if row["ngrams"]
        ],
        "uses": _statements(facts, "use", USES),
        "tests": tests,
        "untested": ", ".join(untested),
        "slices": sorted((row for row in slices if row[2] is not None), key=lambda row: row[3]),
        "max_slices": MAX_SLICES,
        "small": [Markup(f"{plain(row[0])} ({row[1]} rows)") for row in slices if row[2] is None],
        "gate_table": Markup(gate.table(facts["gate"]).strip().replace("nan", "not a number")),
        "labelled": [window for window in windows if window["performance"]["realised"]],
        "inputs": [
            Markup(f"{plain(c['name'])} ({c['type']})") for c in facts["manifest"]["inputs"]
        ],
    }


def _statements(facts: Any, block: str, headings: dict[str, str]) -> list[list[str]]:
    """What is written down under each key of a block of the part `governance`; nothing without the part."""
    texts = (facts["params"].get("governance") or {}).get(block, {})
    return [
        [heading, texts[key] or f"not written: governance.{block}.{key}"]
        for key, heading in headings.items()
        if texts
    ]


def _visible(gram: str) -> str:
    """An n-gram among others that commas divide: blanks at its ends, or behind a comma of its own, can be told."""
    return gram if re.fullmatch(r"\w+( \w+)*", gram) else gram.replace(" ", "␣")


def _data_facts(facts: Any) -> dict[str, Any]:
    """What the data card tells besides single facts."""
    columns, tested = facts["collect"].get("columns") or {}, facts["split"].get("missing") or {}
    gaps = []
    for name, column in sorted(columns.items(), key=lambda pair: -pair[1]["missing"]):
        gap, p = (tested.get(name, {}).get(key) for key in ("gap", "p_value"))
        if column["missing"]:
            p_text = "below 0.0001" if p is not None and p < 1e-4 else p
            gaps.append([name, f"{column['missing']:.1%}", gap, p_text])
    parts = []
    for name in ("train", "valid", "test"):
        part = facts["split"]["parts"][name]
        share = part.get(problem.FIGURE[0])
        parts.append([name, part["rows"], share, part.get("first"), part.get("last")])
    return {
        "refused": (facts["collect"].get("refused") or {}).items(),
        "gaps": gaps,
        "tested": any(row[3] is not None for row in gaps),
        "whole": ", ".join(name for name in sorted(columns) if not columns[name]["missing"]),
        "parts": parts,
        "rights": _statements(facts, "source", RIGHTS),
        "covered": [
            [
                f"{row['column']} = {row['value']}",
                row["rows"],
                *(f"{row[key]:.1%}" for key in ("share", "low", "high", "expected")),
                "rare" if row["rare"] else "",
            ]
            for row in facts["governance"].get("coverage") or []
        ],
        "mean_words": problem.FIGURE[1],
    }


def table(head: list[str], rows: Iterable[Iterable[Any]]) -> Markup:
    """A Markdown table; nothing where it has no rows."""
    body = [["—" if cell is None else plain(cell, digits=",") for cell in row] for row in rows]
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]
    return Markup("\n".join(lines) if body else "")


def plain(value: Any, style: str = "%.4g", digits: str = "d") -> str:
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
            pairs = [f"{plain(k)}: {plain(v, style, digits)}" for k, v in value.items()]
            return ", ".join(pairs) or "none"
        case list() | tuple():
            return ", ".join(plain(item, style, digits) for item in value) or "none"
    text = " ".join(str(value).split()).replace("<", "&lt;").replace(">", "&gt;")
    # An underscore inside a word is no emphasis: average_precision stays readable
    return re.sub(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def find(tree: Any, path: str) -> Any:
    """The value at a dotted path in nested mappings and lists, whose items are counted from 0.

    Raises:
        LookupError, TypeError or ValueError: where the path goes on below its end.
    """
    for key in path.split("."):
        tree = tree[int(key) if isinstance(tree, list) else key]
    return tree


def write(path: Path, text: str) -> None:
    """Replace a file at once, as UTF-8 with the line ends of `text`; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(text.encode("utf-8"))
    fresh.replace(path)


def report(path: Path) -> Any:
    """What a report holds; None where it was not written yet."""
    return read_json(path) if path.is_file() else None


def params_of(root: Path) -> Any:
    """The settings as JSON has them, with the keys of params.yaml.

    Raises:
        UserError: as `settings.load`.
    """
    return load(root / paths.SETTINGS_FILE).model_dump(mode="json", by_alias=True)
