"""Answers made at random, most of them nasty, and what must hold for each: refused in words, or files that parse.

Questions, checks and templates are the real ones, through Copier's own questionnaire; written is nothing. Case number n
is always the same, so that a failure can be looked at again: `check(source, n)`.
"""

from __future__ import annotations

import configparser
import functools
import random
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from copier._main import Worker
from markdown_it import MarkdownIt

from .fast.conftest import COMPUTED, QUESTIONS, choices

LINES = (
    "project_name",
    "owner",
    "business_goal",
    "description",
    "business_metric",
    "entity",
    "object",
)
NASTY = [
    "$(touch PWNED)", "`touch PWNED`", "; touch PWNED #", "| touch PWNED", "&& touch PWNED", "\\", "\\\\n", "\"", "'", "'''", '"""',
    "${HOME}", "%PATH%", "%(x)s", "{x}", "{0.__class__}", "}}", "%}", "#}", "<b>", "</td>", "<!--=params:goals.metric-->",
    "-->", "[x](y)", "![x](y)", "*", "__import__('os').system('touch PWNED')", "# h", "- item", "1. x", "> q", "| a | b |",
    "---", "...", "!!python/object/apply:os.system ['touch PWNED']", "&a *a", "? k", ": v", "key: value", "@x", "%TAG", "null",
    "~", "true", "no", "0x10", "1e3", "2026-01-01", "[[x]]", "[tool.x]", "a = 1", "\u200b", "\u202e", "é", "ß", "ı", "東京", "عربى",
    "🚀", "👩‍👩‍👧", "\U0010ffff", "FROM x", "RUN touch PWNED", "../..", "C:\\x", "/etc/passwd", "~/x", "&amp;", "&#x41;",
    "a" * 60, " ", "  ", "\xa0", "…", "“", "·", "<script>", "``` x", "~~~", "\\u0041", "$x$", "=", "+", "import os",
]  # fmt: skip
REFUSED = [
    "{{ 7*7 }}",
    "{% x",
    "{#",
    "\n",
    "\r",
    "\t",
    "\x00",
    "\x1b[31m",
    "\x85",
    "\u2028",
    "\ufeff",
    "\x7f",
    "\ud800",
]
NUMBERS = ["0", "1", "-1", "2.5", "1e3", "1e400", "nan", "inf", "-inf", "3650", "3651", "12345678901234567890", "1,5", "five", "",
           "0x10", " 7 ", "true", "$(id)", "{{ 1 }}"]  # fmt: skip
OUT_OF_BOUNDS = ["-1", "3651"]
NAMES = ["my-model", "a", "churn-2", "x" * 60, "x" * 61, "../x", "a/b", "-a", "a--b", "A", "a_b", "numpy", "test", "con", "é", "", "a b",
         "a;b", "$(id)", "a\n", ".", "..", "__init__", "{{ x }}", "import", "a.b"]  # fmt: skip
REMOTES = ["../x", "/srv/data", "s3://bucket/x", "gs://b", "azure://c", "ssh://h/x", "s3://", "ssh://me:secret@h/x", "a b", "$(id)",
          "x\ny", "C:/x", "../../../etc", "file:///x", "", "'q'", "x#y"]  # fmt: skip


def text(rng: random.Random) -> str:
    parts = [rng.choice(NASTY) for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.06:
        parts.append(rng.choice(REFUSED))
    if rng.random() < 0.03:
        parts.append("x" * 200)
    rng.shuffle(parts)
    return rng.choice(["", " "]).join(parts)


def answers(case: int) -> dict[str, Any]:
    """About half of the questions, each answered with something that its kind of answer could be.

    In every tenth case a single one, as the first answer that is refused hides the others.
    """
    rng = random.Random(case)
    wild = rng.random() < 0.4  # or only the free text is nasty
    chosen: dict[str, Any] = {}
    names = sorted(QUESTIONS.keys() - COMPUTED)  # a set has no order of its own
    if alone := case % 10 == 9:
        names, wild = [names[case // 10 % len(names)]], True
    for name in names:
        if not alone and rng.random() < 0.5:
            continue
        kind = QUESTIONS[name]["type"]
        if name in LINES:
            chosen[name] = text(rng)
        elif QUESTIONS[name].get("multiselect"):
            options = choices(name)
            chosen[name] = rng.sample(options, rng.randint(0, min(3, len(options))))
            chosen[name] += [rng.choice(["other", text(rng)])] if wild else []
        elif options := choices(name):
            chosen[name] = rng.choice([*options, "other", text(rng)] if wild else options)
        elif kind in ("int", "float"):
            numbers = OUT_OF_BOUNDS if alone else NUMBERS
            number = rng.randint(1, 100)  # a share is one of them too
            chosen[name] = (
                rng.choice(numbers) if wild else str(number / 1000 if kind == "float" else number)
            )
        elif kind == "yaml":
            chosen[name] = {
                "other" if alone else rng.choice(["frame", "use"]): {"wrong": text(rng)}
            }
        elif name == "data_remote_url":
            chosen[name] = rng.choice(REMOTES)
        else:
            chosen[name] = rng.choice(NAMES if wild else NAMES[:3])
            if name == "package_name" and not wild:  # Python's names have no hyphens
                chosen[name] = chosen[name].replace("-", "_")
    return dict(sorted(chosen.items()))


MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})


@functools.lru_cache(maxsize=8)  # a page is parsed, and compared
def outline(page: str) -> list[str]:
    """The blocks of a page, and its inline HTML: neither may hang on an answer."""
    blocks = MARKDOWN.parse(page)
    inline = [
        child for block in blocks for child in block.children or [] if child.type == "html_inline"
    ]
    # Comments mark what the page quotes from params.yaml
    return [block.type for block in blocks] + [
        x.content for x in inline if not x.content.startswith("<!--")
    ]


def parse(name: str, made: str, context: dict[str, Any]) -> None:
    """What must hold for the file, whatever was answered."""
    if name.endswith((".yml", ".yaml")):
        tree = yaml.load(made, yaml.CSafeLoader)
        assert isinstance(tree, dict)
        if name == "params.yaml":
            assert tree["project"]["name"] == context["project_name"]
    elif name == "pyproject.toml":
        project = tomllib.loads(made)["project"]
        assert project["description"] == context["description"].strip()
        assert project["authors"] == [{"name": context["owner"].strip()}]
        assert list(project["scripts"]) == [context["project_slug"]]
    elif name == ".dvc/config":
        config = configparser.ConfigParser()
        config.read_string(made)
        assert config["'remote \"storage\"'"]["url"].endswith(context["data_remote_url"])
    elif name.endswith(".md"):
        outline(made)
    assert "\x00" not in made


PAGES = ("README.md", "docs/index.md", "docs/design/0-frame.md")
FILES = (
    "params.yaml", "pyproject.toml", ".dvc/config", "Makefile", ".github/workflows/ci.yml", ".gitlab-ci.yml", ".circleci/config.yml", *PAGES,
)  # fmt: skip


# The second and third are Copier's own, of a number that is none
CLEAR = (
    r"^Validation error for question '\w+': .|^Invalid |to float: '|^invalid literal for int\(\)"
)


def check(source: Path, case: int) -> str:
    """Gives the words of the refusal, or "" when the files of the case were made and parse.

    Raises:
        AssertionError: when neither.
    """
    data, target = answers(case), source / "never written"
    with Worker(
        src_path=str(source), dst_path=target, data=data, defaults=True, quiet=True
    ) as copier:
        try:
            copier._ask()
        except (ValueError, TypeError) as error:
            refusal = str(error)
            assert re.search(CLEAR, refusal), refusal
            return refusal
        context = copier._render_context()
        remembered = yaml.safe_dump(copier._answers_to_remember(), allow_unicode=True)
        assert yaml.safe_load(remembered)["project_name"] == context["project_name"]
        assert re.fullmatch(r"[a-z][a-z0-9-]{0,59}", context["project_slug"])
        assert re.fullmatch(r"[a-z][a-z0-9_]{0,29}", context["package_name"])
        plain = {
            **context,
            **{name: "plain" for name in context if name in LINES and context[name]},
        }
        plain |= {f"md_{name}": "plain" for name in LINES if context.get(f"md_{name}")}
        for name in FILES:
            file = copier.jinja_env.get_template(f"template/project/{name}.jinja")
            made = file.render(**context)
            parse(name, made, context)
            if name in PAGES:
                assert outline(made) == outline(file.render(**plain)), (
                    f"{name}: an answer changed its outline"
                )
    assert not target.exists()
    return ""
