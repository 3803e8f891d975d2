"""README and design pages speak of what that project has: its commands, files, settings, addresses and words.

What there is, is taken from each project itself: its commands from the code, its settings from the model of
params.yaml, the files of its stages from dvc.yaml, what commands write from the code.
"""

from __future__ import annotations

import ast
import copy
import functools
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .conftest import ALL_PARTS, AWKWARD, MACHINERY, PART_SETS, TEXTS, TYPES, Answers, files

SPAN = re.compile(r"(?<![\\`])(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.S)
FENCE = re.compile(r"(?ms)^ *```\n(.*?)^ *```")
# What providers of continuous integration call their own things
PROVIDERS = re.compile(
    r"defaults:|run: \{working-directory.*|working_directory: .*|cd FOLDER|include: .*|checkout: .*|write_repository"
)
PATH = re.compile(
    r"[\w.{}*-]+(/[\w.{}*…-]*)+|[\w-]*\.(py|md|yaml|yml|toml|lock|json|html|png|prom|parquet|onnx|dvc|sqlite)"
)
ADDRESS = re.compile(r"(?:GET |POST |localhost:8000)?(/[\w./…-]*)")
SETTING = re.compile(r"([a-z_]\w*(?:\.[a-z_]\w*)*)(?:: ?[\w.-]+)?")
# Programs that a text may call, and what a span may be that names nothing of a project
PROGRAMS = {
    ".", "cd", "copier", "curl", "docker", "dvc", "export", "git", "make", "openssl", "pip", "pre-commit", "promtool",
    "pytest", "python", "source", "uv", "uvx",
}  # fmt: skip
# Written beside the project, in the image, or by the programs above
ELSEWHERE = re.compile(
    r"/app/|\.venv|build/design|uv\.lock|dvc\.lock|models/production\.dvc|.*\.rej|incoming/|\.dvc/config\.local|\.git\b"
)
# What a project without a service does not speak of, and one in which nothing is matched with the entity
NOT_WITHOUT_SERVING = r"(?<![\w/])/(feedback|metrics|predict)\b|POST |the service (answers|hands|logs|names)|Docker|compose|port 8000"
NOT_WITHOUT_OBJECT = r"[Ii]nterleaving|(?<!of )\bpair\b(?! are)|what is put before"
NOT_OF_A_NUMBER = (
    r"wrong alarm|yes[- ]or[- ]no decision|explored at random|missed yes|\bprecision\b(?! )"
)
NOT_OF_A_YES_OR_NO = r"\bMAE\b|too low a number|pinball"
UNWANTED = {
    "anomaly": rf"{NOT_OF_A_YES_OR_NO}|wrong alarm|missed yes",
    "binary": NOT_OF_A_YES_OR_NO,
    "forecasting": NOT_OF_A_NUMBER,
    "multiclass": rf"{NOT_OF_A_YES_OR_NO}|wrong alarm|yes[- ]or[- ]no decision|missed yes|threshold from which",
    "ranking": rf"{NOT_OF_A_YES_OR_NO}|wrong alarm|yes[- ]or[- ]no decision|missed yes",
    "regression": NOT_OF_A_NUMBER,
}
ARTICLE = re.compile(
    r"\b[Aa] (?=[aeio](?!ne\b|nce\b)|u(?!n[ia]|s[eu]|ti|su))[\w]+|\b[Aa]n (?=[bcdfgjklmnpqrtvwxyz]|h(?!our|onest))[a-z]\w+"
)
VOWELS = {"entity": "order", "object": "item", "business_metric": "orders a day", "owner": "Orders"}


def combinations() -> list[Answers]:
    """Each kind of problem, mode and object, with the answers that pages branch on besides."""
    labels = itertools.cycle(["natural", "user", "team", "algorithm"])
    extras = itertools.cycle(
        [
            {"split_by": "group", "ci": "gitlab"},
            {"split_by": "random", "ci": "none"},
            {"data_remote": "s3"},
            {},
        ]
    )
    parts = itertools.cycle([{"parts": part_set} for part_set in PART_SETS] + [{}])
    inputs = itertools.cycle([{"inputs": ["text", "image"]}, {}, {}, {}])
    grid = itertools.product(TYPES, ["online", "batch", "both"], ["item", ""])
    return [
        {**VOWELS, **next(parts), **next(inputs), "problem_type": kind, "prediction_mode": mode, "object": object_name,
         "label_source": next(labels), **next(extras)}
        for kind, mode, object_name in grid
    ]  # fmt: skip


def pages(root: Path) -> Iterator[tuple[str, str]]:
    for path in [root / "README.md", root / "AGENTS.md", *sorted((root / "docs").rglob("*.md"))]:
        yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")


@functools.cache
def commands(source: str) -> dict[str, set[str]]:
    """From a command's words to its options, by the functions that Typer is given."""
    options_of: dict[str, set[str]] = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if not (isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith(".command")):
                continue
            group = ast.unparse(mark.func).removesuffix(".command")
            name = str(ast.literal_eval(mark.args[0])) if mark.args else node.name
            options = {"--help"}
            for argument in node.args.args:
                kind = ast.unparse(argument.annotation or ast.Constant(""))
                if "typer.Option" in kind:
                    options |= set(re.findall(r"'(--[\w-]+)'", kind)) or {
                        f"--{argument.arg.replace('_', '-')}"
                    }
            options_of[("" if group == "app" else f"{group} ") + name] = options
    return options_of


ASK = """
import json, sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1], "src")))
from importlib import import_module
settings = import_module(next(Path(sys.argv[1], "src").iterdir()).name + ".settings")
def walk(schema, whole, path=""):
    for part in schema.get("anyOf", []) + schema.get("allOf", []) + [whole.get(schema.get("$ref", "").rpartition("/")[2])]:
        if part: yield from walk(part, whole, path)
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict): yield from walk(extra, whole, path)
    for key, block in schema.get("properties", {}).items():
        yield path + key
        yield from walk(block, whole, path + key + ".")
schema = settings.Settings.model_json_schema(by_alias=True)
print(json.dumps(sorted(set(walk(schema, schema["$defs"])))))
"""


@functools.cache
def settings_of(package: Path) -> set[str]:
    """Every dotted key that params.yaml can hold."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", ASK, package.parents[1]], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return set(json.loads(done.stdout))


_SETTINGS: dict[str, set[str]] = {}


@functools.cache
def _tokens(content: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """The words of a file, in lower case, and what may be the path of a file that it writes."""
    text = content.decode("utf-8")
    tokens = frozenset(re.findall(r"[\w-]+", text.lower()))
    paths = re.findall(r"(?<![\w./-])[\w.-]+(?:/[\w.-]+)+", text)
    return tokens, frozenset(paths) | {Path(path).parts[0] for path in paths}


class Project:
    """What there is in a project, as its own files say."""

    def __init__(self, answers: Answers, root: Path) -> None:
        self.answers, self.root = answers, root
        package = next((root / "src").iterdir())
        self.package, self.slug = (
            package.name,
            yaml.safe_load((root / "params.yaml").read_text("utf-8"))["project"]["slug"],
        )
        self.commands = {
            name: options
            for path in package.rglob("commands.py")
            for name, options in commands(path.read_text("utf-8")).items()
        }
        kind = str(answers.get("problem_type", "binary"))
        if kind not in _SETTINGS:
            _SETTINGS[kind] = settings_of(package)
        blocks = yaml.safe_load((root / "params.yaml").read_text("utf-8"))
        self.settings = {key for key in _SETTINGS[kind] if key.split(".")[0] in blocks}
        content = files(root)
        folders = {parent.as_posix() for name in content for parent in Path(name).parents}
        self.files = content.keys() | folders
        self.folders = tuple(f"/{name}" for name in folders)
        read = [
            _tokens(text)
            for name, text in content.items()
            if not name.endswith(".pyc")
            and not name.startswith("docs/")
            and name not in ("README.md", "AGENTS.md")
        ]
        self.vocabulary = frozenset[str]().union(*(tokens for tokens, _ in read))
        self.made = frozenset[str]().union(*(paths for _, paths in read))
        app = package / "serving/app.py"
        self.addresses = set()
        if app.is_file():
            self.addresses = {"/", *re.findall(r'"(/[\w./{}]*)"', app.read_text("utf-8"))}
        self.targets = set(re.findall(r"(?m)^([a-z]+):", content["Makefile"].decode()))

        self.absent: set[str] = set()  # commands of parts that are not here

    def faults(self, name: str, text: str) -> Iterator[str]:
        """What a page names that is not there, and words that speak of it."""
        prose = FENCE.sub("", text)
        for block in FENCE.findall(text):
            for line in re.sub(r"\\\n", " ", block).splitlines():
                if PROVIDERS.fullmatch(line.strip()):
                    continue
                yield from self.line(re.split(r"(?:^|\s)# ", line)[0].strip())
        for span in SPAN.finditer(prose):
            if fault := self.span(" ".join(span[2].split())):
                yield fault
        plain = re.sub(r"<!--.*?-->", "", prose, flags=re.S)
        for pattern in self.unwanted():
            yield from (f"the word {match[0]!r}" for match in re.finditer(pattern, plain))
        if AWKWARD not in self.answers.values():
            flat = " ".join(re.sub(r"`[^`]*`", "X", plain).split())
            yield from (f"the article of {match[0]!r}" for match in ARTICLE.finditer(flat))

    def unwanted(self) -> Iterator[str]:
        if not self.addresses:
            yield NOT_WITHOUT_SERVING
        # What is ranked is there, whatever it is matched with
        is_ranking = self.answers.get("problem_type") == "ranking"
        if not str(self.answers.get("object", "offer")) and not is_ranking:
            yield NOT_WITHOUT_OBJECT
        yield UNWANTED[str(self.answers.get("problem_type", "binary"))]

    def line(self, line: str) -> Iterator[str]:
        """A line that somebody types: each of its commands."""
        for part in re.split(r"&&|\|\||;|\|", line):
            part = re.sub(r"^(\w+=\S* )+", "", part.strip())
            if part and (fault := self.command(part)):
                yield fault

    def command(self, text: str) -> str | None:
        """A command of the project, of make, or of a program that is none of its own."""
        match = re.match(
            rf"(?:uv run )?{re.escape(self.slug)} (.+)|python -m {self.package} (.+)", text
        )
        if match:
            return self.project_command(match[1] or match[2], text)
        arguments = text.split()
        if arguments[0] == "make":
            return None if arguments[1] in self.targets else f"make target {arguments[1]!r}"
        return None if arguments[0] in PROGRAMS else f"command {text!r}"

    def project_command(self, text: str, whole: str) -> str | None:
        arguments = text.split()
        if arguments[0] in ("…", "COMMAND", "--help"):
            return None
        groups = {name.split()[0] for name in self.commands if " " in name}
        name = " ".join(arguments[:2]) if arguments[0] in groups else arguments[0]
        if name not in self.commands:
            return f"command {whole!r}"
        options = {argument.split("=")[0] for argument in arguments if argument.startswith("--")}
        unknown_options = options - self.commands[name]
        return f"option {sorted(unknown_options)} of {whole!r}" if unknown_options else None

    def span(self, span: str) -> str | None:
        """What stands between backticks: a command, a setting, a file, an address, or a word of the project's own files."""
        if PROVIDERS.fullmatch(span):
            return None
        tokens = span.split()
        if tokens[0] in self.absent and "=" not in span:
            return f"command {span!r}"
        if tokens[0] in ("make", "uv", self.slug, "python", "promtool", "git", "uvx"):
            return self.command(span)
        if tokens[0] in {name.split()[0] for name in self.commands} and (
            len(tokens) > 1 or tokens[0] not in self.vocabulary
        ):
            return self.project_command(span, span)
        if tokens[0] in ("dvc", "pytest", "export", "docker", "curl") or span.startswith("{"):
            return None
        if span.startswith("params.yaml: "):
            span = span.removeprefix("params.yaml: ")
            return None if self.is_setting(span) else f"setting {span!r}"
        if (address := ADDRESS.fullmatch(span)) and (
            span.startswith(("/", "GET", "POST", "localhost"))
        ):
            path = address[1].replace("…", "")
            is_served = any(
                route == path or (address[1].endswith("…") and route.startswith(path))
                for route in self.addresses
            )
            return None if is_served or path.startswith("/app/") else f"address {span!r}"
        if PATH.fullmatch(span):
            return None if self.is_file(span) else f"file {span!r}"
        if (key := SETTING.fullmatch(span)) and "." in key[1]:
            return None if self.is_setting(span) else f"setting {span!r}"
        if re.fullmatch(r"--[\w-]+( \S+)*", span):
            options = set().union(*self.commands.values())
            return (
                None
                if tokens[0].split("=")[0] in options | {"--defaults", "--data"}
                else f"option {span!r}"
            )
        missing = [
            token
            for token in re.findall(r"[A-Za-z_][\w-]*", span)
            if token.lower() not in self.vocabulary and not token.isupper()
        ]
        return f"word {span!r}" if missing and "Status" not in span and span != "In short" else None

    def is_setting(self, span: str) -> bool:
        key = SETTING.fullmatch(span)
        return bool(key) and (
            key[1] in self.settings
            or any(setting.endswith(f".{key[1]}") for setting in self.settings if "." not in key[1])
        )

    def is_file(self, name: str) -> bool:
        if ELSEWHERE.match(name) or name.rstrip("/") in MACHINERY:
            return True
        if name.endswith("…"):
            return any(path.startswith(name[:-1]) for path in self.files)
        bare = name.rpartition("/")[0] if "*" in name else name.rstrip("/")
        if bare in self.files or any(folder.endswith(f"/{bare}") for folder in self.folders):
            return True
        if any(path.endswith(f"/{bare}") for path in self.files):
            return True
        if bare.endswith((".py", ".yml", ".yaml", "file")):  # no command writes such a file
            return False
        # `report(root, "curves", …)` writes reports/curves.json
        stem = re.fullmatch(r"reports/(\w+)\.json", bare)
        return bare in self.made or (stem is not None and stem[1] in self.vocabulary)


@functools.cache
def _whole(root: Path, problem_type: str) -> Project:
    return Project({"problem_type": problem_type}, root)


def faults(answers: Answers, root: Path, whole: Path) -> dict[str, list[str]]:
    """What each page names that is not there.

    Args:
        whole: a project of the same answers with every part: an entry that says which part it needs may name
            what that part would bring.
    """
    project = Project(answers, root)
    complete = copy.copy(_whole(whole, str(answers.get("problem_type", "binary"))))
    complete.answers = answers
    project.absent = complete.commands.keys() - project.commands.keys()
    faults_by_page: dict[str, list[str]] = {}
    for name, text in pages(root):
        entries = re.split(r"(?m)^(?=### )", text)
        wrong = {
            fault
            for entry in entries
            for fault in (complete if "- **Needs:** the part " in entry else project).faults(
                name, entry
            )
        }
        if wrong:
            faults_by_page[name] = sorted(wrong)
    return faults_by_page


@pytest.mark.parametrize(
    "answers",
    combinations(),
    ids=lambda answers: "-".join(
        str(answers[k]) for k in ("problem_type", "prediction_mode", "object")
    ),
)
def test_a_project_speaks_of_what_it_has(generate, answers):
    assert faults(answers, generate(**answers), generate(**answers | {"parts": ALL_PARTS})) == {}


DECIDE = (
    "problem_type",
    "ci",
    "prediction_mode",
    "license",
    "data_remote",
    "scheduler",
    "package_name",
    "project_name",
    "project_slug",
)


def test_the_rest_of_the_matrix_does_too(generate, all_variants):
    contents: set[tuple[bytes, ...]] = set()
    for answers, root in all_variants:
        content = tuple(text.encode() for _, text in pages(root))
        if content not in contents and not any(answers.get(name) == AWKWARD for name in TEXTS):
            contents.add(content)
            # Of the answers that decide which files there are; the others change the words of pages alone
            deciding = {key: answers[key] for key in DECIDE if key in answers}
            assert faults(answers, root, generate(**deciding, parts=ALL_PARTS)) == {}, answers


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        ("README.md", "```\nuv run my-model retrian\n```\n"),
        ("README.md", "Type `uv run my-model design draw`.\n"),
        ("README.md", "Type `promote --smaller` for it.\n"),
        ("README.md", "See `make deploy`.\n"),
        ("README.md", "```\nmake deploy\n```\n"),
        ("AGENTS.md", "See `src/my_model/data/collect.py`, then `make proof`.\n"),
        ("docs/index.md", "See `src/my_model/data/collect.py`.\n"),
        ("docs/index.md", "See `reports/modelcard.md` and more.\n"),
        ("docs/design/0-frame.md", "Set `goals.metrics` first.\n"),
        ("docs/design/0-frame.md", "Set `params.yaml: modelling.candidate` first.\n"),
        ("docs/design/5-monitoring-and-validation.md", "Ask `/predictions` for it.\n"),
        ("docs/design/5-monitoring-and-validation.md", "Send `POST /label` there.\n"),
        ("docs/design/5-monitoring-and-validation.md", "The state is `halfopen_state`.\n"),
        ("README.md", "This is a offer that stands.\n"),
        ("README.md", "That is an project.\n"),
        ("README.md", "It makes too low a number of them.\n"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(generate, tmp_path, page, wrong):
    root = tmp_path / "project"
    shutil.copytree(generate(), root)
    with (root / page).open("a", encoding="utf-8") as file:
        file.write(f"\n{wrong}")
    assert list(faults({}, root, generate(parts=ALL_PARTS))) == [page]


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ({"prediction_mode": "batch"}, "Type `serve` for it."),
        ({"prediction_mode": "batch"}, "Ask `/feedback` for it."),
        ({"prediction_mode": "batch"}, "```\nuv run my-model challenge\n```"),
        ({"prediction_mode": "batch"}, "Look into `ops/Dockerfile`."),
        ({}, "```\nuv run my-model challenge\n```"),
        ({}, "Set `rollout.router.mode` first."),
        ({"parts": []}, "Then `monitor` says so."),
        ({"object": ""}, "Also interleaving."),
        ({"problem_type": "regression"}, "Few wrong alarms."),
        ({"ci": "none"}, "See `.github/workflows/ci.yml`."),
    ],
)
def test_what_another_project_has_is_a_fault_here(generate, tmp_path, answers, wrong):
    root = tmp_path / "project"
    shutil.copytree(generate(**answers), root)
    with (root / "README.md").open("a", encoding="utf-8") as file:
        file.write(f"\n{wrong}\n")
    assert list(faults(answers, root, generate(parts=ALL_PARTS))) == ["README.md"]
