"""The commands of both READMEs and of the tutorial do what they say, typed as they stand there."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ENV, REPO

BIN = Path(sys.executable).parent


def blocks(page: Path, heading: str) -> list[str]:
    """The fenced commands under a heading, without their comments."""
    text = page.read_text(encoding="utf-8")
    part = re.split(r"(?m)^## ", text.split(f"\n## {heading}\n", 1)[1])[0]
    return re.findall(r"(?m)^```\n(.*?)^```", part, re.S)


class Reader:
    """Somebody who copies lines from a README into one shell."""

    def __init__(self, template: Path, root: Path) -> None:
        self.template, self.root, self.folder = template, root, root
        shims = root / "bin"
        shims.mkdir()
        # uvx would fetch what is already installed here
        (shims / "uvx").write_text('#!/bin/sh\n[ "$1" = --with ] && shift 2\nexec "$@"\n')
        (shims / "uvx").chmod(0o755)
        path = os.pathsep.join([str(shims), str(BIN), os.environ["PATH"]])
        self.env = {**ENV, "PATH": path, "HOME": str(root)}
        self.env.setdefault("UV_CACHE_DIR", str(Path("~/.cache/uv").expanduser()))

    def type(self, block: str) -> str:
        block = block.replace("URL-OF-THIS-REPOSITORY", str(self.template))
        # Nobody sits there to answer; a template without a tag gives its last commit
        block = re.sub(r"copier (copy|update)\b", r"copier \1 --defaults --quiet", block)
        done = subprocess.run(
            ["bash", "-e", "-c", f"{block}\npwd > {self.root}/where"],
            cwd=self.folder, env=self.env, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        self.folder = Path((self.root / "where").read_text(encoding="utf-8").strip())
        return " ".join(f"{done.stdout} {done.stderr}".split())


def table(path: Path) -> None:
    """customers.csv and events.csv of the READMEs."""
    rng = random.Random(1)
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["customer_id", "signup_date", "age", "plan", "visits", "churned"])
        for row in range(5000):
            day = f"2026-{rng.randint(1, 9):02}-{rng.randint(1, 28):02}"
            age, plan, visits = rng.randint(18, 90), rng.choice("abc"), rng.randint(0, 30)
            # Several columns together, so that one of them alone is beaten
            pull = 2 * (plan == "a") + 0.06 * (age - 54) - 0.15 * (visits - 15) - 1
            churned = int(rng.random() < 1 / (1 + math.exp(-pull)))
            writer.writerow([f"c{row // 2}", day, age, plan, visits, churned])


@pytest.fixture(scope="module")
def reader(template, tmp_path_factory) -> Reader:
    return Reader(template, tmp_path_factory.mktemp("reader"))


def test_start_a_project(reader):
    start, own_data, live = blocks(REPO / "README.md", "Start a project")
    reader.type(start)
    assert reader.folder.name == "my-project"
    assert (reader.folder / "models/model.onnx").is_file()
    table(reader.folder / "customers.csv")
    reader.type(own_data)
    # The service would go on for ever
    serve = r"timeout 10 uv run my-model serve || [ $? -eq 124 ]"
    assert "&& uv run my-model serve" in live
    reader.type(live.replace("&& uv run my-model serve", f"\n{serve}"))
    assert (reader.folder / "reports/monitor.html").is_file()
    (update,) = blocks(REPO / "README.md", "Keep it up to date")
    reader.type(f"git add . && git commit --quiet --message ours\n{update}")
    shutil.copy(reader.folder / "customers.csv", reader.folder / "events.csv")


def test_the_project_s_own_readme(reader):
    """After the test above: on the same project."""
    page = reader.folder / "README.md"
    first, _ = blocks(page, "First steps")  # the second is for pip: test_pip.py
    reader.type(first)
    (own_data,) = blocks(page, "Your own data")
    reader.type(own_data)
    share, merge = blocks(page, "Share and promote")
    reader.type(share)
    reader.type(merge.partition("\ngit add")[0])  # where nothing is in conflict, as after it
    assert (reader.folder / "models/production.dvc").is_file()


def test_with_cookiecutter(reader):
    text = (REPO / "README.md").read_text(encoding="utf-8")
    command = re.search(r"`uvx (--with copier cookiecutter) URL-OF-THIS-REPOSITORY`", text)
    assert command
    cookies = reader.root / "cookies"
    cookies.mkdir()
    reader.folder = cookies
    reader.type(f"uvx {command[1]} --no-input URL-OF-THIS-REPOSITORY")
    assert (cookies / "my-model/params.yaml").is_file()


@pytest.mark.at_turn(1)
def test_the_tutorial_shows_what_it_says(template, tmp_path):
    reader, output, quoted = Reader(template, tmp_path), "", []
    page = (REPO / "docs/tutorial.md").read_text(encoding="utf-8")
    for language, block in re.findall(r"(?m)^```(\w*)\n((?:.*\n)*?)^```$", page):
        if language == "python":
            (reader.folder / "flights.py").write_text(block, encoding="utf-8")
        elif language == "text":
            quoted += [(" ".join(line.split()), output) for line in block.splitlines()]
        else:
            output = reader.type(block)
    assert len(quoted) >= 8
    for line, output in quoted:
        assert line in output
    assert (reader.folder / "build/site/reports/monitor.html").is_file()


@pytest.mark.at_turn(2)
def test_what_the_how_to_adds_is_measured(template, tmp_path):
    reader = Reader(template, tmp_path)
    reader.type(
        "uvx copier copy URL-OF-THIS-REPOSITORY my-model\ncd my-model\ngit init -q\nuv sync -q"
    )
    page = (REPO / "docs/howto.md").read_text(encoding="utf-8")
    changes = re.findall(r"(?m)^```python\n# (\S+), in place of: (.*)\n((?:.*\n)*?)^```$", page)
    assert len(changes) == 3
    for name, old, new in changes:
        file = reader.folder / name
        text = file.read_text(encoding="utf-8")
        assert text.count(old) == 1
        file.write_text(text.replace(old, new.strip()), encoding="utf-8")
    reader.type(
        "uv run my-model run --set data.source.rows=4000 --set 'goals.also=[specificity]' || [ $? = 1 ]"
    )
    metrics = json.loads((reader.folder / "reports/metrics.json").read_text(encoding="utf-8"))
    assert 0 < metrics["also"]["specificity"] < 1
    inputs = json.loads((reader.folder / "models/manifest.json").read_text(encoding="utf-8"))[
        "inputs"
    ]
    assert {"object_price", "object_rating"} <= {column["name"] for column in inputs}
    reader.type("uv run ruff check src && uv run -q --group types mypy")
