"""The dossier: pages, cards, figures, bill of materials and records in one folder and on one page to print.

Its order is that of Annex IV of the AI Act, as dossier.yaml has it. What is not there is named; nothing is left out in silence.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup
from ruamel.yaml import YAML

from .. import paths
from ..board import commonmark
from ..cards import find, plain, render, report, table, write
from ..documents import entry_texts, facts_of
from ..goals import gate
from ..repository import git, repository
from ..settings import Settings, UserError, read_text
from ..website import LINK
from .bom import write_bom
from .history import promotions
from .incidents import incidents
from .retired import sentence
from .retirement import gather

TEMPLATE, SECTIONS = (Path(__file__).with_name(f"dossier.{end}") for end in ("html.j2", "yaml"))
PAGE = "dossier.html"
MISSING = re.compile(r"not written: `([^`]+)`")
MAX_HASH = 12  # digits by which a version is told


class Dossier(NamedTuple):
    """What was written: the page, and what it says is missing, as keys of settings, files and decisions."""

    page: Path
    missing: list[str]


def dossier(settings: Settings, root: Path) -> Dossier:
    """Write the folder build/dossier anew: the page, and the files that it was made from, each with its hash.

    Raises:
        UserError: before the first run, and as `documents.filled` does.
    """
    facts = facts_of(root) | {"root": root, "bom": write_bom(settings, root)}
    texts, sections = _sections(root, facts), list[dict[str, Any]]()
    for number, (title, text) in enumerate(texts.items(), start=1):
        section = {
            "title": title,
            "number": number,
            "missing": [*dict.fromkeys(MISSING.findall(text))],
        }
        sections.append(section | {"html": Markup(commonmark().render(LINK.sub(r"\1", text)))})
    folder = root / paths.DOSSIER
    shutil.rmtree(folder, ignore_errors=True)
    page_facts = {"sections": sections, "name": settings.project.name, "state": _state(root)}
    write(folder / PAGE, render(TEMPLATE, page_facts))
    gather(root, folder)
    missing = dict.fromkeys(key for section in sections for key in section["missing"])
    return Dossier(folder / PAGE, [*missing])


def _sections(root: Path, facts: dict[str, Any]) -> dict[str, str]:
    """Of each section, by its title, the text as Markdown."""
    sections = YAML(typ="safe", pure=True).load(read_text(SECTIONS))["sections"]
    entries, texts = entry_texts(root, facts), {}
    for section in sections:
        named = str(section.get("decisions", "")).split()
        paragraphs = [
            _settings(facts["params"], section.get("settings", {})),
            *(BLOCKS[name](facts) for name in section.get("blocks", ())),
            *(_file(root, *pair) for pair in section.get("files", {}).items()),
            *(_decision(id_, entries.pop(id_, None)) for id_ in named),
        ]
        texts[section["title"]] = "\n\n".join(filter(None, paragraphs))
    if entries:
        further = [_decision(*pair) for pair in entries.items()]
        texts["Further decisions"] = "\n\n".join(further)
    return texts


def _settings(params: Any, keys: dict[str, str]) -> str:
    lines = []
    for topic, key in keys.items():
        value = find(params, key)
        text = _missing(key) if value is None else f"{plain(value, '%g')} (`params.yaml: {key}`)"
        lines.append(f"- **{topic}**: {text}")
    return "\n".join(lines)


def _decision(id_: str, entry: tuple[str, str] | None) -> str:
    if entry is None:
        return _missing(f"decision {id_}")
    page, text = entry
    return f"{text.strip()}\n\n*From `{page}`.*"


def _file(root: Path, name: str, by: str) -> str:
    """A page of Markdown, its headings two ranks lower."""
    path = root / name
    if not path.is_file():
        whose = f"`{by}` writes it" if by.islower() and " " not in by else f"{by} writes it"
        return f"{_missing(name)} ({whose})"
    text = re.sub(r"<!--.*?-->", "", read_text(path).replace("\r\n", "\n"), flags=re.S)
    return f"{re.sub(r'^(?=#+ )', '##', text, flags=re.M).strip()}\n\n*From `{name}`.*"


def _missing(key: str) -> str:
    return f"**not written: `{key}`**"


def _state(root: Path) -> str:
    """The commit that the dossier is of, in words."""
    try:
        commit = git(root, "log", "-1", "--format=%h of %aI").strip() if repository(root) else ""
        changed = bool(commit) and git(root, "status", "--porcelain", "--", ".")
    except UserError:  # before the first commit
        return "no commit"
    changes = ", and changes that no commit has" if changed else ""
    return f"commit {commit}{changes}" if commit else "no commit"


# The blocks


def _versions(facts: dict[str, Any]) -> str:
    manifest, bill = facts["manifest"] or {}, facts["bom"]
    rows = [
        [topic, str(manifest[key])[:MAX_HASH], paths.MANIFEST]
        for topic, key in (("model", "sha256"), ("data", "data_version"), ("code", "code_version"))
        if manifest.get(key)
    ]
    rows.append(["bill of materials", bill["serialNumber"].removeprefix("urn:uuid:"), paths.BOM])
    return f"### Versions\n\n{table(['of', 'version', 'from'], rows)}"


def _bill_of_materials(facts: dict[str, Any]) -> str:
    packages = [part for part in facts["bom"]["components"] if part["type"] == "library"]
    counts = Counter(part.get("scope", "installed") for part in packages)
    counted = ", ".join(f"{count} {scope}" for scope, count in sorted(counts.items()))
    cells = [[part["name"], part["version"], _licence(part)] for part in packages]
    half = -(-len(cells) // 2)  # side by side, on half as many pages
    pairs = zip_longest(cells[:half], cells[half:], fillvalue=list[str]())
    rows = [[*left, *right] for left, right in pairs]
    head = f"### Parts of others\n\nThe model, its data and {len(packages)} packages ({counted})"
    text = f"{head}, with their hashes, by CycloneDX: `{paths.BOM}`.\n\n"
    return text + str(table(["package", "version", "licence"] * 2, rows))


def _licence(part: dict[str, Any]) -> str:
    (licence,) = part.get("licenses") or [{"expression": "not told here"}]
    return str(licence.get("expression") or licence["license"]["name"])


def _gate(facts: dict[str, Any]) -> str:
    judged = report(facts["root"] / paths.GATE)
    if judged is None:
        return f"### The gate\n\n{_missing(paths.GATE)} (`run` writes it)"
    verdict = "passed" if judged["passed"] else "not passed"
    return f"### The gate\n\nIt is {verdict}.\n\n{gate.table(judged)}\n*From `{paths.GATE}`.*"


def _figures(facts: dict[str, Any]) -> str:
    root: Path = facts["root"]
    pictures = sorted(p for p in (root / paths.REPORTS).rglob("*.png") if p.name != "board.png")
    if not pictures:
        return f"### Pictures\n\n{_missing(paths.PLOTS)} (`run` writes it)"
    images = [
        f"![{path.stem.replace('_', ' ')}](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})"
        for path in pictures
    ]
    names = ", ".join(f"`{path.relative_to(root).as_posix()}`" for path in pictures)
    return f"### Pictures\n\n{' '.join(images)}\n\n*From {names}.*"


def _promotions(facts: dict[str, Any]) -> str:
    rows = []
    for entry in promotions(facts["root"]):
        signed = entry.get("promotion") or {}
        rows.append(
            [
                entry["at"][:16].replace("T", " "),
                signed.get("promoted_by") or entry["author"],
                signed.get("built_by"),
                entry.get("chosen"),
                str(entry.get("sha256") or "its manifest is not on this machine")[:MAX_HASH],
                f"{entry['subject']} ({entry['commit'][:7]})",
            ]
        )
    head = ["committed", "promoted by", "trained by", "method", "model", "commit"]
    pointer = f"{paths.PRODUCTION}.dvc"
    text = str(table(head, rows)) or f"{_missing(pointer)} (`promote` writes it)"
    return f"### Promotions\n\n{text}\n\n*From git's history of `{pointer}`.*"


def _retirement(facts: dict[str, Any]) -> str:
    text = sentence(facts["root"])
    return f"### In use, or not\n\nThe system is {plain(text) if text else 'not retired'}."


def _incidents(facts: dict[str, Any]) -> str:
    moment = "%Y-%m-%d %H:%M"
    rows = [
        [
            f"{incident.alert or 'noticed by a person'}{' (drill)' if incident.drill else ''}",
            *(at and f"{at:{moment}}" for at in (incident.start, incident.notice, incident.end)),
            f"{incident.fault} ({incident.by})",
            incident.end and f"{incident.cause}; {incident.remedy} ({incident.closed_by})",
        ]
        for incident in incidents(facts["root"])
    ]
    head = ["alert", "start", "notice", "end", "what", "cause and remedy"]
    text = str(table(head, rows)) or "None is logged."
    return f"### Incidents\n\n{text}\n\n*Times in UTC, from `{paths.INCIDENTS}`.*"


def _lines(title: str, file: str, absent: str) -> Callable[[dict[str, Any]], str]:
    """A block of the records of a file, each a JSON object a line."""

    def block(facts: dict[str, Any]) -> str:
        records = [*_records(facts["root"], file)]
        heads = [*dict.fromkeys(key for record in records for key in record if key != "salt")]
        rows = [[record.get(key) for key in heads] for record in records]
        return f"### {title}\n\n{table(heads, rows) or absent}\n\n*From `{file}`.*"

    return block


def _records(root: Path, file: str) -> Iterator[dict[str, Any]]:
    path = root / file
    for number, line in enumerate(read_text(path).splitlines() if path.is_file() else (), start=1):
        try:
            yield dict(json.loads(line))
        except (ValueError, TypeError):
            raise UserError(f"{file}:{number}: is no record: mend the line") from None


BLOCKS: dict[str, Callable[[dict[str, Any]], str]] = {
    "versions": _versions,
    "bill_of_materials": _bill_of_materials,
    "gate": _gate,
    "figures": _figures,
    "promotions": _promotions,
    "retirement": _retirement,
    "incidents": _incidents,
    "appeals": _lines("Appeals", paths.APPEALS, "Nobody appealed."),
    "oversight": _lines(
        "Stopped, overridden", paths.OVERSIGHT, "Nobody stopped the model, nobody is excluded."
    ),
}
