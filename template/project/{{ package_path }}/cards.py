"""The cards of the model and the data, and how a {dotted.fact} of any page is filled in.

The texts of the cards stand in cards.md, which says how their facts are filled in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from . import problem
from .goals.gate import table
from .problem.goals import METRICS
from .settings import UserError, load, read_json, read_text

MODEL_CARD, DATA_CARD = "reports/model_card.md", "reports/data_card.md"
MONITOR, COMPARE = "reports/monitor.json", "reports/compare.json"
STAGES = ("collect", "label", "split", "candidates", "metrics", "gate")
MEASURED = [*(f"reports/{name}.json" for name in STAGES), "models/manifest.json"]
FACT = re.compile(r"\{([\w.]+)([%:]?)\}")
MISSING = (LookupError, TypeError, ValueError)  # what `find` raises where a path ends too soon
KEPT = {
    "met": "which it keeps",
    "missed": "which it misses",
    "undecided": "which so few rows cannot tell",
}
TARGETS = {"slices": "worst_slice", "calibration": "calibration_error"}  # of tests named otherwise
MOST_SLICES = 20
TEXTS = Path(__file__).with_name("cards.md")
_PARTS = re.split(r"(?m)^(?=# )", read_text(TEXTS).replace("\r\n", "\n"))
if len(_PARTS) != 4:
    raise UserError(f"{TEXTS}: needs three headings with one #, for the two cards and the words")
_, MODEL_TEXT, DATA_TEXT, WORDS = _PARTS
MEANING = dict(re.findall(r"(?m)^- (\w+): (.+)$", WORDS))


def write_cards(root: Path) -> None:
    """Write what the stages measured as a card of the model and a card of the data.

    Raises:
        UserError: naming the report or manifest that is missing or broken.
    """
    facts = {"params": params_of(root)}
    for path in (root / name for name in MEASURED):
        if not isinstance(found := report(path), dict):
            raise UserError(f"{path} is not here, or holds no report: run the pipeline first")
        facts[path.stem] = found
    facts["monitor"] = report(root / MONITOR) or {}
    changes = report(root / COMPARE) or {}
    facts["compare"] = changes if changes.get("model") == facts["manifest"]["sha256"] else {}
    facts["now"] = _of_model(facts) | _of_data(facts) | _of_service(facts)
    for name, text in ((MODEL_CARD, MODEL_TEXT), (DATA_CARD, DATA_TEXT)):
        write(root / name, _filled(text, facts))


def refresh_model_card(root: Path) -> None:
    """Write the cards again after `monitor`, when there are any."""
    if (root / MODEL_CARD).is_file():
        write_cards(root)


def said(facts: Any, path: str, style: str) -> str:
    """The words for one {dotted.fact}, as Markdown in one line.

    Raises:
        LookupError: where nothing was measured.
    """
    value = _fact(facts, path)
    if value is None or (path.startswith("now.") and not value):
        raise LookupError(path)
    if path.startswith("now."):
        return str(value)
    if style == "%":
        return f"{value:.1%}"
    return plain(value[:12] if style else value, digits=",")


def _filled(text: str, facts: Any) -> str:
    blocks = []
    for block in re.sub(r"(?m)^(#.*|\{now\.\w+\})$", r"\n\1\n", text).split("\n\n"):
        kept = []
        for sentence in re.split(r"(?<=\.)\s+", block.strip()):
            with suppress(LookupError):
                kept.append(
                    FACT.sub(lambda m: said(facts, *m.groups()), sentence.replace("\n", " "))
                )
        blocks += [" ".join(kept)] if any(kept) else []
    # A heading stays where something else than the next heading comes below it
    below = zip(blocks, [*blocks[1:], "## "], strict=True)
    whole = "\n\n".join(a for a, b in below if not (a[:3] == b[:3] == "## ")) + "\n"
    return re.sub(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(\.\d+)?", r"\1 \2", whole)


def _of_model(facts: Any) -> dict[str, Any]:
    """What the model card words from several facts; empty where there is nothing to say."""
    fact = partial(_fact, facts)
    keys = {key: plain(fact(f"params.data.label.{key}")) for key in problem.LabelKeys.model_fields}
    shift = plain(fact("metrics.value.decision"))
    answers = problem.answer_words(keys["column"], keys, shift)
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
        figure = f"{plain(one['words'])}: {plain(one['measured'])}"
        tests.append(f"- **{name.capitalize()}**: {figure}; promised is {promise}.")
    slices = [
        [f"{column} = {name}", *(one.get(key) for key in ("rows", "metric", "keeps"))]
        for column, entries in (fact("metrics.slices") or {}).items()
        for name, one in entries.items()
    ]
    judged = sorted((row for row in slices if row[2] is not None), key=lambda row: row[3])
    also = [[name, one, MEANING[name]] for name, one in (fact("metrics.also") or {}).items()]
    inputs = [f"{plain(one['name'])} ({one['type']})" for one in fact("manifest.inputs") or []]
    return {
        "answer": answers["answer"],
        "meaning": f"{MEANING[metric]}; {better} is better",
        "also": _table("figure", "value", "what it is", rows=also),
        "tried": len(models),
        "judged_on": {"cross-validation": held_out}.get(
            fact("candidates.judged.by"), "the validation rows"
        ),
        "fitted": chosen.get("fitted"),
        "refit": fact("candidates.shipped.refit") and "again",
        "fate": "was chosen" if verdict == "chosen" else plain(verdict),
        "unit": answers["unit"] if tests else None,
        "shift": answers["shift"],
        "cheapest": fact("params.goals.decision") == "costs" and "cheapest",
        "behaviour": "\n".join(tests),
        "untested": ", ".join(untested),
        "slices": _table("slice", "rows", "figure", "kept", rows=judged[:MOST_SLICES]),
        "judged": len(judged),
        "small": ", ".join(f"{plain(row[0])} ({row[1]} rows)" for row in slices if row[2] is None),
        "simpson": plain(" ".join(fact("metrics.simpson") or [])),
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
        between = found and f"(between {plain(found['low'])} and {plain(found['high'])})"
        return found and f"{plain(one['performance']['metric'])} {plain(found['value'])} {between}"

    labelled = [one for one in windows if one["performance"]["realised"]]
    this = fact("monitor.model") == fact("manifest.sha256")
    alarms = [f"{plain(kind)}: {plain(why)}" for kind, why in facts["monitor"]["alarms"].items()]
    return {
        "served": "In service, it" if this else "The model in service is another one; that",
        "realised": told(labelled[-1], "realised") if labelled else None,
        "estimated": told(windows[-1], "estimated"),
        "well": not alarms and "well in all",
        "alarms": "; ".join(alarms),
        "waiting": plain(fact("monitor.waiting") or "").removesuffix("not set"),
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
        parts.append(
            [name, one["rows"], one.get(problem.MEAN[0]), one.get("first"), one.get("last")]
        )
    source = fact("params.data.source.kind")
    return {
        "source": MEANING[source],
        "made_up": source == "sample" and "made up",
        "refused": _table("reason", "rows", rows=(fact("collect.refused") or {}).items()),
        "labeller": MEANING[fact("params.data.label.source")],
        "personal": MEANING[fact("collect.personal")],
        "none": not fact("collect.personal_columns") and "No",
        "missing": _table("column", "missing", "gap", "p", rows=gaps),
        "whole": ", ".join(plain(name) for name in sorted(kept) if not kept[name]["missing"]),
        "chance": any(row[3] is not None for row in gaps) and "chance",
        "by": MEANING[fact("split.by")],
        "parts": _table("part", "rows", problem.MEAN[1], "from", "to", rows=parts),
        "blind": not fact("params.modelling.evaluation.sensitive") and "No",
    }


def _table(*head: str, rows: Iterable[Iterable[Any]]) -> str | None:
    """A Markdown table; None where it has no rows."""
    body = [["—" if cell is None else plain(cell, digits=",") for cell in row] for row in rows]
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]
    return "\n".join(lines) if body else None


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
            return ", ".join(plain(one, style, digits) for one in value) or "none"
    text = " ".join(str(value).split()).replace("<", "&lt;").replace(">", "&gt;")
    # An underscore inside a word is no emphasis: average_precision stays readable
    return re.sub(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def find(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree[int(key) if isinstance(tree, list) else key]
    return tree


def _fact(tree: Any, path: str) -> Any:
    """As `find`; None where nothing was measured."""
    try:
        value = find(tree, path)
    except MISSING:
        return None
    empty = value in ("", [], {}) or (isinstance(value, float) and math.isnan(value))
    return None if empty else value


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(text.encode("utf-8"))
    fresh.replace(path)


def report(path: Path) -> Any:
    """What a report holds; None where it was not written yet."""
    return read_json(path) if path.is_file() else None


def params_of(root: Path) -> Any:
    return load(root / "params.yaml").model_dump(mode="json", by_alias=True)
