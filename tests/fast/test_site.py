"""The template's own site: up to date, complete, without a broken link."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .conftest import REPO, tool

sys.path.insert(0, str(REPO / "scripts"))
import example
import reference


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("zensical"), "build", "--strict", "--clean"],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def site(tmp_path) -> Path:
    shutil.copytree(REPO / "docs", tmp_path / "docs")
    shutil.copy(REPO / "mkdocs.yml", tmp_path)
    return tmp_path


def test_it_builds_and_shows_its_pictures(site):
    done = build(site)
    assert done.returncode == 0, done.stdout[-3000:]
    html = (site / "build/site/example/index.html").read_text(encoding="utf-8")
    pictures = re.findall(r'<img [^>]*src="\.\./(img/example/[\w.]+)"', html)
    assert len(pictures) == len(example.PLOTS)
    assert [name for name in pictures if not (site / "build/site" / name).is_file()] == []


@pytest.mark.parametrize("broken", ["[x](nowhere.md)", "[x](why.md#nowhere)"])
def test_a_broken_link_stops_it(site, broken):
    page = site / "docs/index.md"
    page.write_text(f"{page.read_text('utf-8')}\n{broken}\n", encoding="utf-8")
    assert build(site).returncode != 0


def test_every_page_is_in_its_menu():
    text = (REPO / "mkdocs.yml").read_text(encoding="utf-8")
    menu = set(re.findall(r"[\w/-]+\.md", str(yaml.safe_load(text)["nav"])))
    assert menu == {p.relative_to(REPO / "docs").as_posix() for p in (REPO / "docs").rglob("*.md")}


def test_the_example_is_what_the_template_renders(generate):
    assert example.stale(generate()) == [], "make sync"


def test_the_reference_has_every_command_and_setting_of_the_template(generate):
    root = generate(parts=reference.every_part())
    assert reference.stale(root) == [], "make sync"
    commands, settings = (
        (REPO / f"docs/{name}.md").read_text("utf-8") for name in ("commands", "settings")
    )
    for usage in (
        "| `label`",
        "| `label next COUNT`",
        "| `score FILE [--out OUT]",
        "| `design site`",
    ):
        assert usage in commands
    for key in (
        "`goals.targets.metric` | `0.35`",
        "`modelling.boosting.leaves`",
        "`serving.limits",
    ):
        assert key in settings
    path = root / "params.yaml"
    path.write_text(path.read_text("utf-8").replace("threads: 1  #", "threads: 2  #"), "utf-8")
    assert reference.stale(root) == ["settings.md"]


def test_the_example_has_figures_and_a_stale_page_is_found(generate, monkeypatch, tmp_path):
    shutil.copytree(REPO / "docs", tmp_path / "docs")
    monkeypatch.setattr(example, "DOCS", tmp_path / "docs")
    page = tmp_path / "docs/example.md"
    text = page.read_text(encoding="utf-8")
    assert text.count("| chosen |") == 1  # it was run
    page.write_text(text.replace("| chosen |", "| not chosen |"), encoding="utf-8")
    assert example.stale(generate()) == []  # a figure may move
    page.write_text(text.replace("## Its code", "## Code"), encoding="utf-8")
    assert example.stale(generate()) == ["example.md"]


def test_every_decision_has_its_row(generate):
    rows = re.findall(r"(?m)^\| (\d\.\d+) \|", example.segments(generate()))
    assert len(rows) == len(set(rows)) >= 55
