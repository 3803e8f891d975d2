"""The Cookiecutter door: renders template/ with Copier, so that there is no second template.

post_gen_project.py calls main(). Where Cookiecutter's Python lacks Copier, uv runs this file again with it:
python bridge.py ARGUMENTS.json
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

COPIER = "copier>=9.19,<10"
PLACEHOLDER = "NOT-RENDERED.md"
INFERRED = ("", "inferred")  # how cookiecutter.json says that Copier works the default out


def git(repo: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(repo), *arguments], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def address(url: str) -> str:
    """The same address without a password, and so that Copier takes it for a repository's."""
    url = re.sub(r"^(https?://)[^/@]*@", r"\1", url)  # the answers are committed
    is_repository = re.match(r"git[@+:]|https://git(hub|lab)\.com/|[\w.-]+@", url) or url.endswith(
        ".git"
    )
    return url if is_repository or not url else f"git+{url}"


def origin(repo: Path, template: str) -> tuple[str, str]:
    """The address and the commit that `copier update` needs, each empty where nothing tells.

    Args:
        repo: The folder that Cookiecutter read the template from.
        template: What its user typed: a path, an address, an archive.
    """
    top = git(repo, "rev-parse", "--show-toplevel")
    archive = template.lower().endswith(".zip")
    if top and Path(top).resolve() == repo:
        local = not re.match(r"\w[\w+.-]+:|[\w.-]+@", template)
        url = "" if local else git(repo, "config", "remote.origin.url")
        # A tool's own clone of a folder is gone after it
        folder = Path(template) if local and Path(template).is_absolute() else repo
        return address(url) or str(folder), git(repo, "describe", "--tags", "--always")
    if not archive:
        return str(repo), ""
    # `git archive`, and so the archives of the forges, write the nearest tag into this file
    noted = (repo / ".git_archival.txt").read_text(encoding="utf-8")
    commit = re.search(r"^describe-name: ([^$\s]+)$", noted, re.M)
    forge = re.match(r"(https?://[^/]+/[^/]+/.+?)/(-/)?archive/", template)
    project = tomllib.loads((repo / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    url = f"{forge[1]}.git" if forge else project.get("urls", {}).get("Repository", "")
    return address(url), commit[1] if commit else ""


def answers_of(context: dict[str, Any]) -> dict[str, Any]:
    """The answers, without Cookiecutter's own entries and those that are left to Copier."""
    # An empty object is an answer: matched with nothing
    return {
        name: value
        for name, value in context.items()
        if not name.startswith("_") and (value not in INFERRED or name == "object")
    }


def render(repo: Path, project: Path, data: dict[str, Any]) -> None:
    import copier

    # What Cookiecutter asked though Copier would not has its default here, so that it changes nothing
    copier.run_copy(str(repo), project, data=data, vcs_ref="HEAD", defaults=True)


def record(answers_file: Path, url: str, commit: str) -> None:
    """Writes where the template came from in place of the folder that it was rendered from."""
    import yaml

    head, *lines = answers_file.read_text(encoding="utf-8").splitlines(keepends=True)
    source = {key: value for key, value in (("_commit", commit), ("_src_path", url)) if value}
    answer_lines = [line for line in lines if not re.match(r"_(commit|src_path):", line)]
    noted = yaml.safe_dump(source, allow_unicode=True, width=10_000) if source else ""
    answers_file.write_text("".join([head, noted, *answer_lines]), encoding="utf-8")


def command(template: str, data: dict[str, Any]) -> str:
    """The `copier copy` that does the same."""
    options = [option for name, value in data.items() for option in ("--data", f"{name}={value}")]
    return shlex.join(["uvx", "copier", "copy", *options, template])


def has_copier() -> bool:
    try:
        installed = importlib.metadata.version("copier")
    except importlib.metadata.PackageNotFoundError:
        return False
    low, high = re.findall(r"\d+(?:\.\d+)?", COPIER)
    major, minor = (int(part) for part in installed.split(".")[:2])
    return [int(part) for part in low.split(".")] <= [major, minor] < [int(high)]


def main(repo: Path, context: dict[str, Any], project: Path) -> int:
    """Fills the folder that Cookiecutter made; 0 when it did.

    After another code Cookiecutter removes the folder, unless it was there before.
    """
    template = context.setdefault("_template", str(repo))  # some tools do not say
    (project / PLACEHOLDER).unlink(missing_ok=True)
    if any(project.iterdir()):
        say(
            f"{project} is not empty. Copier asks about each file that differs:",
            f"  {command(template, answers_of(context))} {shlex.quote(str(project))}",
        )
        return 1
    if not has_copier():
        return elsewhere(repo, context, project)
    try:
        render(repo, project, answers_of(context))
    except Exception as error:
        say(f"no project was made: {' '.join(str(error).split())}")
        return 1
    url, commit = origin(repo, template)
    record(project / ".copier-answers.yml", url, commit)
    if not url or not commit:
        say(
            "`copier update` will not work here: this copy of the template does not tell its origin."
        )
        say("  Use the address of its repository to get a project that can be updated.")
    return 0


def elsewhere(repo: Path, context: dict[str, Any], project: Path) -> int:
    """The same in an environment that uv makes, or the words that say what is missing."""
    uv = shutil.which("uv")
    if not uv:
        say(
            f"This template needs {COPIER}, which is not installed beside Cookiecutter. One of:",
            f"  {sys.executable} -m pip install '{COPIER}'",
            "  pipx inject cookiecutter copier",
            f"  uvx --with '{COPIER}' cookiecutter {shlex.quote(context['_template'])} --replay",
            "Your answers are kept: add --replay to the next cookiecutter command. Or without Cookiecutter:",
            f"  {command(context['_template'], answers_of(context))} {shlex.quote(str(project))}",
        )
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        arguments = Path(scratch, "arguments.json")
        arguments.write_text(json.dumps([str(repo), context, str(project)]), encoding="utf-8")
        options = ["run", "--quiet", "--no-project", "--python", sys.executable, "--with", COPIER]
        return subprocess.call([uv, *options, "python", __file__, str(arguments)])


def say(*lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr)


if __name__ == "__main__":
    repo_path, answers, folder = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if not has_copier():  # or uv would call itself for ever
        sys.exit(f"uv did not bring {COPIER}")
    sys.exit(main(Path(repo_path), answers, Path(folder)))
