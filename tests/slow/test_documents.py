"""The design pages of a project that has run: figures filled in, the board in a browser and on paper."""

from __future__ import annotations

import json
import posixpath
import re
import subprocess
from pathlib import Path

import pytest

from .conftest import ENV
from .test_project import Copy

# Not there after a run, `promote` and the commands below: another model has to be compared first, Optuna to be there, and
# the rows of a day to be set
NEVER_YET = {
    *("metrics.production.gain", "tuning.verdict", "compare.changed", "compare.share"),
    *(f"governance.cost.{name}" for name in ("answering", "month", "storage", "training")),
}
MEASURE = """<script>
const wide = element => Math.round(element.getBoundingClientRect().width);
const columns = [...document.querySelectorAll('.columns > section')].map(wide);
const over = [...document.querySelectorAll('body *')].filter(element => element.scrollWidth > element.clientWidth + 1
  && getComputedStyle(element).display != 'inline').map(element => element.outerHTML.slice(0, 80));
const page = document.documentElement;
document.body.innerHTML = '<pre>' + JSON.stringify({columns, over, page: page.scrollWidth}) + '</pre>';
</script>"""


def chromium(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-pdf-header-footer",
         f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=5000", *arguments],
        capture_output=True, text=True, env=ENV, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def copy(ran, tmp_path) -> Copy:
    return Copy(ran, tmp_path / "my-model")


@pytest.fixture
def board(copy) -> str:
    copy.cli("design", "board")
    return copy.read("reports/board.html")


def test_what_a_run_measures_is_in_no_page_and_every_figure_of_a_page_is_measured(copy):
    before = {path: path.read_bytes() for path in (copy.path / "docs").rglob("*.md")}
    for command in ("promote", "curves", "explain", "assumptions", "design ready", "monitor"):
        if copy.has_words_for(command):
            copy.cli(*command.split())
        assert "up to date" in copy.cli("design", "sync", "--check").stdout
    assert {path: path.read_bytes() for path in before} == before
    assert copy.git("status", "--porcelain", "docs", "README.md") == ""
    quoted = {
        figure
        for path in (copy.path / "docs/design").glob("*.md")
        for figure in re.findall(r"\{(\w+(?:\.\w+)+)[%:]?\}", path.read_text(encoding="utf-8"))
    }
    facts = "\n".join(f"- {figure} is {{{figure}}}" for figure in sorted(quoted))
    (copy.path / "docs/design/6-ours.md").write_text(f"# 6 Ours\n\n{facts}\n", encoding="utf-8")
    output = copy.cli("design", "show", "6").stdout
    waiting = set(re.findall(r"(\S+) is not measured yet", output))
    assert waiting == (quoted & NEVER_YET) | {"monitor.rows"} & quoted, output
    assert len(quoted) > 20


def test_the_board_has_five_equal_columns_and_nothing_overflows(copy, board):
    for width in (1600, 2400):
        path = copy.path / "measured.html"
        path.write_text(board + MEASURE, encoding="utf-8")
        dom = chromium(copy.path, f"--window-size={width},1000", "--dump-dom", path.as_uri())
        layout = json.loads(
            re.search(r"<pre>(.*)</pre>", dom)[1].replace("&lt;", "<").replace("&gt;", ">")
        )  # type: ignore[index]
        assert len(layout["columns"]) == 5
        assert max(layout["columns"]) - min(layout["columns"]) <= 1
        assert layout["over"] == []
        assert layout["page"] <= width


@pytest.mark.parametrize("paper", ["A4 landscape", "A3 landscape", "letter landscape", "landscape"])
def test_the_board_prints_on_one_sheet(copy, board, paper):
    path, sheet = copy.path / "print.html", copy.path / "sheet.pdf"
    assert "@page { size: landscape;" in board
    path.write_text(board.replace("size: landscape", f"size: {paper}"), encoding="utf-8")
    chromium(copy.path, f"--print-to-pdf={sheet}", path.as_uri())
    content = sheet.read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", content)) == 1
    wide, high = map(float, re.search(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", content).groups())  # type: ignore[union-attr]
    assert wide > high


def test_the_site_is_built_and_read_offline(copy):
    copy.cli("design", "board")
    copy.call("make", "site", UV_NO_SYNC="0", UV_PROJECT_ENVIRONMENT=str(copy.path / ".venv"))
    home = copy.path / "build/site/index.html"
    dom = chromium(copy.path, "--dump-dom", home.as_uri())
    pages = {path.relative_to(home.parent).as_posix() for path in home.parent.rglob("*.html")}
    hrefs = re.findall(r'href="([^"#]+\.html)', dom)
    links = {posixpath.normpath(link) for link in hrefs if "://" not in link}
    assert {"docs/design/0-frame.html", "reports/model_card.html", "reports/board.html"} <= links
    assert links <= pages
    text = copy.read("build/site/docs/design/4-modelling-and-deployment.html")
    assert "not measured yet" not in text.split("4.4 ")[0]
    assert 'id="4.4"' in text
    assert "4-modelling-and-deployment.html#4.4" in copy.read("build/site/reports/board.html")
    picture = copy.path / "build/site/reports/plots/slices.png"
    assert picture.read_bytes() == (copy.path / "reports/plots/slices.png").read_bytes()
    assert "plots/slices.png" in copy.read("build/site/reports/pictures.html")
