"""Writes the pages of the site that show a generated project: docs/example.md and docs/segments.md.

    python scripts/example.py           the text, from a rendering of the work tree (a part of `make sync`)
    python scripts/example.py --run     its figures and pictures too, and the board of the README: installs and runs it
                                        (`make example`)
    python scripts/example.py --check   fails when the text is not what it would write

Figures stand between two comments and are not compared: they move with every machine and release.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import copier

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / "docs"
PLOTS = ("precision_recall", "calibration", "value_by_threshold", "slices")
MEASURED = re.compile(r"<!-- measured -->\n.*?<!-- /measured -->\n", re.S)
GENERATED = "<!-- Written by `make sync`; edit scripts/example.py or the template -->\n"


def generate(path: Path) -> Path:
    """The default project of the work tree."""
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(
            scratch
        )  # from a folder that is no repository Copier also takes what is not committed
        shutil.copy(REPO / "copier.yml", plain)
        shutil.copytree(REPO / "template", plain / "template")
        copier.run_copy(str(plain), path, defaults=True, quiet=True)
    return path


def module_summary(path: Path) -> str:
    """The first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0].replace("|", "\\|")


def tree(root: Path) -> list[str]:
    lines = ["| file | |", "|---|---|"]
    for path in sorted((root / "src").rglob("*.py")):
        if summary := module_summary(path):
            name = path.relative_to(root / "src").as_posix()
            lines.append(f"| `{name}` | {summary} |")
    return lines


def block(text: str, name: str) -> str:
    """One top-level block of params.yaml."""
    match = re.search(rf"(?m)^{name}:\n(?:[ \n].*\n?)*", text)
    assert match, f"params.yaml has no block {name}"
    return match[0].rstrip()


def example(root: Path) -> str:
    """docs/example.md, its figures left out."""
    pages = sorted(path.name for path in (root / "docs/design").glob("*.md"))
    tests = len(list((root / "tests").rglob("test_*.py")))
    return "\n".join(
        [
            GENERATED,
            "# A generated project",
            "",
            "`copier copy --defaults`, and then `uv run my-model run`. Everything below came out of it.",
            "",
            "## What the run says",
            "",
            "<!-- measured -->",
            "<!-- /measured -->",
            "",
            "## Its code",
            "",
            *tree(root),
            "",
            f"Beside it {tests} files of tests, and the design documents {', '.join(f'`{p}`' for p in pages)}.",
            "",
            "## One block of its settings",
            "",
            "```yaml",
            block((root / "params.yaml").read_text(encoding="utf-8"), "goals"),
            "```",
            "",
        ]
    )


def plain(text: str) -> str:
    """One line of a design document without its quotes' comments and links."""
    text = re.sub(r"<!--.*?-->", "", " ".join(text.split()))
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("|", "\\|").strip()


def segments(root: Path) -> str:
    """docs/segments.md: each decision of each segment, where it lives and how it is checked."""
    lines = [
        GENERATED,
        "# The five segments",
        "",
        "Every generated project carries these decisions in `docs/design/`, filled in from the answers. Here is where",
    ]
    lines += [
        "each lives and what checks it in the default project, by the names of its files.",
        "",
    ]
    for path in sorted((root / "docs/design").glob("*.md")):
        head, *entries = re.split(r"(?m)^### ", path.read_text(encoding="utf-8"))
        title = re.search(r"(?m)^# (.+)$", head)
        assert title
        lines += [
            f"## {title[1]}",
            "",
            "| | decision | at the start | lives in | checked by |",
            "|---|---|---|---|---|",
        ]
        for entry in entries:
            name, _, question = entry.split("\n")[0].partition(" ")
            parts = dict(re.findall(r"(?ms)^- \*\*([\w ]+):\*\* (.*?)(?=^- \*\*|\Z)", entry))
            state, lives = parts["Status"].split("·")[0], parts["Where it lives"]
            checked = re.split(r"(?<=[.;]) ", plain(parts["How it is checked"]))[0].rstrip(".;")
            cells = (*map(plain, (name, question, state, lives)), checked)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def figures(root: Path) -> str:
    """What the project's own reports say, and its pictures."""
    rows = json.loads((root / "reports/candidates.json").read_text(encoding="utf-8"))["rows"]
    gate = json.loads((root / "reports/gate.json").read_text(encoding="utf-8"))["rows"]
    lines = ["| model | average precision | value of a decision | verdict |", "|---|---|---|---|"]
    for row in rows:
        metric = f"{row['metric']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        lines.append(f"| {row['name']} | {metric} | {row['value']:.3f} | {row['verdict']} |")
    lines += ["", "| target | measured | |", "|---|---|---|"]
    for row in gate:
        measured = "not yet" if row["measured"] is None else f"{row['measured']:.4g}"
        passed = {True: "pass", False: "FAIL", None: ""}[row["passed"]]
        lines.append(f"| {row['words']} | {measured} | {passed} |")
    lines += ["", *(f"![{name.replace('_', ' ')}](img/example/{name}.png)" for name in PLOTS)]
    return "<!-- measured -->\n" + "\n".join(lines) + "\n<!-- /measured -->\n"


def run(root: Path) -> str:
    for command in (
        ["git", "init", "--quiet", "--initial-branch", "main"],
        ["uv", "sync", "--quiet"],
        ["uv", "run", "--quiet", "my-model", "run"],
    ):
        subprocess.run(command, cwd=root, check=True)
    (DOCS / "img/example").mkdir(parents=True, exist_ok=True)
    for name in PLOTS:
        shutil.copy(root / f"reports/plots/{name}.png", DOCS / "img/example")
    subprocess.run(["uv", "run", "--quiet", "my-model", "design", "board"], cwd=root, check=True)
    shutil.copy(root / "reports/board.png", DOCS / "img")
    return figures(root)


def pages(root: Path) -> dict[Path, str]:
    """Each page as it should stand, its figures as they stand now."""
    text, target = example(root), DOCS / "example.md"
    if target.is_file() and (measured := MEASURED.search(target.read_text(encoding="utf-8"))):
        text = MEASURED.sub(lambda _: measured[0], text)
    return {target: text, DOCS / "segments.md": segments(root)}


def stale(root: Path) -> list[str]:
    made = pages(root).items()
    return [p.name for p, text in made if not p.is_file() or p.read_text("utf-8") != text]


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        root = generate(Path(scratch) / "my-model")
        if "--check" in arguments:
            behind = stale(root)
            print(f"docs/{', '.join(behind)}: behind, run make sync" if behind else "up to date")
            return 1 if behind else 0
        made = pages(root)
        if "--run" in arguments:
            fresh = run(root)
            made[DOCS / "example.md"] = MEASURED.sub(lambda _: fresh, made[DOCS / "example.md"])
        for path, text in made.items():
            path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
