"""The project as a site that a browser reads without a network: its documents with today's figures, cards, pictures, the
board, and what the monitor saw. Zensical lays the pages out; they lie as in the project, so that links between them hold.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from . import board, paths
from .cards import write
from .documents import decisions, facts_of, filled, pages, status
from .settings import UserError, missing_library, read_text

HOME = "README.md"
# What commands leave beside the documents, where they ran: file -> title
REPORTS = {
    paths.MODEL_CARD: "Model card",
    paths.DATA_CARD: "Data card",
    paths.COMPARE_PAGE: "Beside the model in production",
    paths.PICTURES: "Pictures",
    paths.BOARD: "Board",
    paths.MONITOR_PAGE: "Monitor",
}
LINK = re.compile(r"(?<!!)\[([^][]+)\]\((?![a-z]+:|#)([^()#\s]+)(?:#[^()\s]*)?\)")
HEADING = re.compile(r"^(### +(\d+\.\d+)\b.*?) *$", re.M)


def build_site(root: Path) -> int:
    """Write the site into build/site.

    Returns:
        how many pages there are.

    Raises:
        UserError: when zensical is not installed or ends with an error, and as `documents.filled` does.
    """
    if find_spec("zensical") is None:
        raise missing_library("zensical")
    facts = facts_of(root)
    name, tiles = decisions(root, facts)
    documents = [path for path in (root / HOME, *pages(root)) if path.is_file()]
    texts = {path.relative_to(root).as_posix(): filled(root, path, facts) for path in documents}
    titles = {page: board.title(text) or Path(page).stem for page, text in texts.items()}
    texts |= {page: read_text(root / page) for page in REPORTS if (root / page).is_file()}
    pictures = sorted(path.relative_to(root) for path in (root / paths.REPORTS).rglob("*.png"))
    texts[paths.PICTURES] = "# Pictures\n" + "".join(
        f"\n## {path.stem.replace('_', ' ').capitalize()}\n\n![{path.stem}]({path.relative_to(paths.REPORTS)})\n"
        for path in pictures
    )
    entries = {e.id: Path("..", e.location.rpartition(":")[0]) for e in status(root)}
    links = {id_: f"{page.with_suffix('.html').as_posix()}#{id_}" for id_, page in entries.items()}
    texts[paths.BOARD] = board.sheet(name, tiles, links)
    folder = root / paths.SITE_PAGES
    shutil.rmtree(folder, ignore_errors=True)
    for page, text in texts.items():
        write(folder / page, _prepared(page, text, texts) if page.endswith(".md") else text)
    for path in pictures:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, folder / path)
    reports = {page: title for page, title in REPORTS.items() if page in texts}
    readme = titles.pop(HOME, None)
    navigation: list[dict[str, Any]] = [{readme: HOME}] if readme else []
    for section, section_pages in (("What was decided", titles), ("What was measured", reports)):
        navigation.append({section: [{title: page} for page, title in section_pages.items()]})
    _lay_out(root, name, navigation)
    return len(texts)


def _prepared(page: str, text: str, pages_inside: Collection[str]) -> str:
    """A page whose decisions can be linked to, and whose links lead to pages of the site and to the web alone."""

    def kept_or_plain(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), match[2]))
        return match[0] if target in pages_inside else match[1]

    return LINK.sub(kept_or_plain, HEADING.sub(r"\1 {: #\2}", text))


def _lay_out(root: Path, name: str, navigation: list[dict[str, Any]]) -> None:
    """Let Zensical make the site of the pages.

    Args:
        navigation: title -> page, or a section's title -> such a list.
    """
    config = (root / paths.SITE_PAGES).with_suffix(".yml")
    content = {
        "site_name": name,
        "docs_dir": Path(paths.SITE_PAGES).name,
        "site_dir": Path(paths.SITE).name,
        "use_directory_urls": False,
        "theme": {"name": "material", "font": False, "features": ["navigation.sections"]},
        "plugins": ["search", "offline"],
        "markdown_extensions": ["attr_list", "fenced_code", "tables"],
        "nav": navigation,
    }
    with config.open("w", encoding="utf-8", newline="\n") as file:
        YAML().dump(content, file)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "-f", config.name]
    done = subprocess.run(command, cwd=config.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"zensical could not lay out {config}: {done.stderr.strip()[-300:]}")
