"""`cookiecutter` as a user types it: from a path, an address, an archive; with and without Copier beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .conftest import ENV, REPO, Project

ANSWERS = {"project_name": "Größe 2", "ci": "none", "label_delay_days": "30"}
BIN = Path(sys.executable).parent


class Door:
    """A home of its own for Cookiecutter, and a template with one release."""

    def __init__(self, template: Path, root: Path) -> None:
        self.template = root / "origin" / "fivefold"
        shutil.copytree(template, self.template)
        self.repo = Project(self.template)
        self.repo.git("tag", "v0.1.0")
        self.root = root
        self.env = {**ENV, "HOME": str(root), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        # uv's cache stays where it is
        self.env.setdefault("UV_CACHE_DIR", str(Path("~/.cache/uv").expanduser()))

    def bake(self, *arguments: str, code: int = 0, tool=(BIN / "cookiecutter",), **env: str) -> str:
        done = subprocess.run(
            [*map(str, tool), *arguments],
            cwd=self.root, env={**self.env, **env}, capture_output=True, text=True,
            input="y\n",  # a clone that is there already may be replaced
        )  # fmt: skip
        assert done.returncode == code, f"{arguments}: {done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    def copier(self, source: str, *arguments: str) -> dict[str, bytes]:
        target = self.root / "expected" / "grosse-2"
        shutil.rmtree(target, ignore_errors=True)
        data = [
            argument
            for name, value in ANSWERS.items()
            for argument in ("--data", f"{name}={value}")
        ]
        command = [sys.executable, "-m", "copier", "copy", "--defaults", "--quiet"]
        subprocess.run([*command, *data, *arguments, source, str(target)], check=True, env=self.env)
        return contents(target)


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(root).parts[:1]
    }


@pytest.fixture(scope="module")
def door(template, tmp_path_factory) -> Door:
    return Door(template, tmp_path_factory.mktemp("door"))


@pytest.mark.at_turn(2)
def test_both_doors_are_equal_over_the_whole_matrix():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "tests/fast/test_door.py",
        "-k",
        "over_the_matrix",
    ]
    done = subprocess.run(
        command, cwd=REPO, env={**ENV, "WHOLE": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "1 passed" in done.stdout


ANSWER_ARGUMENTS = [f"{name}={value}" for name, value in ANSWERS.items()]


@pytest.mark.parametrize("how", ["path", "relative", "address", "tag", "archive"])
def test_the_same_bytes_by_either_door(door, how):
    target = door.root / "grosse-2"
    address = f"git+file://{door.template}"
    shutil.rmtree(target, ignore_errors=True)
    arguments, source = {
        "path": ([str(door.template)], str(door.template)),
        "relative": (["origin/fivefold"], str(door.template)),
        "address": ([address], address),
        "tag": ([address, "--checkout", "v0.1.0"], address),
        "archive": ([str(door.root / "fivefold.zip")], address),
    }[how]
    if how == "archive":
        project = door.template / "pyproject.toml"
        before = project.read_text(encoding="utf-8")
        urls = f'[project.urls]\nRepository = "{address}"\n\n[dependency-groups]\n'
        project.write_text(before.replace("[dependency-groups]\n", urls, 1), encoding="utf-8")
        door.repo.git("commit", "--quiet", "--all", "--message", "say where it lives")
        door.repo.git("tag", "v0.1.1")
        archive = ["archive", "--prefix=fivefold/", "--output", str(door.root / "fivefold.zip")]
        door.repo.git(*archive, "v0.1.1")
    output = door.bake("--no-input", *arguments, *ANSWER_ARGUMENTS)
    assert "uv run grosse-2 run" in output
    assert contents(target) == door.copier(
        source, "--vcs-ref", "v0.1.1" if how == "archive" else "HEAD"
    )
    recorded = yaml.safe_load((target / ".copier-answers.yml").read_text(encoding="utf-8"))
    assert recorded["_src_path"] == source
    assert recorded["_commit"] == ("v0.1.1" if how == "archive" else "v0.1.0")


@pytest.mark.at_turn(0)
def test_an_update_works_on_what_came_through_it(template, tmp_path):
    door = Door(template, tmp_path)
    door.bake("--no-input", f"git+file://{door.template}", *ANSWER_ARGUMENTS)
    project = Project(tmp_path / "grosse-2")
    project.git("init", "--quiet", "--initial-branch", "main")
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "generated")
    readme = door.template / "template/project/README.md.jinja"
    readme.write_text(readme.read_text("utf-8") + "\nNew in 0.2.\n", encoding="utf-8")
    door.repo.git("commit", "--quiet", "--all", "--message", "add a line")
    door.repo.git("tag", "v0.2.0")
    project.call(sys.executable, "-m", "copier", "update", "--defaults", "--quiet")
    assert project.read("README.md").endswith("\nNew in 0.2.\n")
    assert contents(project.path) == door.copier(f"git+file://{door.template}")


def test_replay_makes_the_same_again(door):
    target = door.root / "grosse-2"
    shutil.rmtree(target, ignore_errors=True)
    door.bake("--no-input", str(door.template), *ANSWER_ARGUMENTS)
    first = contents(target)
    shutil.rmtree(target)
    door.bake("--replay", str(door.template))
    assert contents(target) == first


@pytest.mark.at_turn(1)
def test_without_copier_uv_brings_it_or_a_message_says_what_to_type(template, tmp_path):
    """In an environment with Cookiecutter alone; the answers are kept and the folder is not."""
    door, alone = Door(template, tmp_path), tmp_path / "alone"
    subprocess.run([BIN / "uv", "venv", "--quiet", "--python", sys.executable, alone], check=True)
    subprocess.run(
        [BIN / "uv", "pip", "install", "--quiet", "--python", alone, "cookiecutter>=2.7,<3"],
        check=True,
    )
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "git").symlink_to(shutil.which("git"))
    tool = (alone / "bin/cookiecutter",)
    arguments = ["--no-input", f"git+file://{door.template}", *ANSWER_ARGUMENTS]
    output = door.bake(*arguments, tool=tool, PATH=str(tools), code=1)
    assert "pip install 'copier>=9.19,<10'" in output
    assert "--replay" in output
    assert not (tmp_path / "grosse-2").exists()
    door.bake("--replay", f"git+file://{door.template}", tool=tool)
    assert contents(tmp_path / "grosse-2") == door.copier(f"git+file://{door.template}")


def test_without_hooks_the_placeholder_says_what_to_do(door):
    door.bake("--no-input", "--accept-hooks", "no", str(door.template), "project_name=Bare")
    (placeholder,) = contents(door.root / "bare").items()
    assert placeholder[0] == "NOT-RENDERED.md"
    assert f"uvx copier copy {door.template} bare" in placeholder[1].decode()


class TestToolsBuiltOnCookiecutter:
    """They call Cookiecutter's Python and set other entries than its own command does."""

    def cruft(self, door: Door, *arguments: str, cwd: Path, code: int = 0) -> str:
        command = [str(BIN / "uv"), "tool", "run", "--quiet", "--with", "copier>=9.19,<10", "cruft"]
        done = subprocess.run(
            [*command, *arguments],
            cwd=cwd,
            env=door.env,
            capture_output=True,
            text=True,
            input="y\n",
        )
        assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def test_cruft_creates_checks_and_updates(self, template, tmp_path):
        door = Door(template, tmp_path)
        extra = '{"project_name": "Größe 2", "ci": "none", "label_delay_days": "30"}'
        options = ("--no-input", "--extra-context", extra, "--output-dir", str(tmp_path))
        self.cruft(door, "create", *options, str(door.template), cwd=tmp_path)
        target = tmp_path / "grosse-2"
        expected = door.copier(str(door.template))
        files = contents(target)
        del files[".cruft.json"]
        assert files == expected
        project = Project(target)
        project.git("init", "--quiet", "--initial-branch", "main")
        project.git("add", ".")
        project.git("commit", "--quiet", "--message", "made")
        assert "up to date" in self.cruft(door, "check", cwd=target)
        makefile = door.template / "template/project/Makefile.jinja"
        makefile.write_text(makefile.read_text("utf-8") + "# newer\n", encoding="utf-8")
        door.repo.git("commit", "--quiet", "--all", "--message", "newer")
        door.repo.git("tag", "v0.2.0")
        assert "out of date" in self.cruft(door, "check", cwd=target, code=1)
        self.cruft(door, "update", "--skip-apply-ask", cwd=target)
        changed = project.git("status", "--porcelain").split()
        assert changed == ["M", ".copier-answers.yml", "M", ".cruft.json", "M", "Makefile"]
        answers = yaml.safe_load((target / ".copier-answers.yml").read_text(encoding="utf-8"))
        assert (answers["_src_path"], answers["_commit"]) == (str(door.template), "v0.2.0")
        assert (target / "Makefile").read_text("utf-8").endswith("# newer\n")

    def test_a_call_from_python_makes_the_same(self, door):
        """With the whole context of its own, as scaffolding tools do, and no word on where the template is."""
        code = """
import sys
from cookiecutter.generate import generate_context, generate_files
context = generate_context(sys.argv[1] + "/cookiecutter.json", extra_context={"ci": "none"})
context["cookiecutter"] = {
    key: value[0] if isinstance(value, list) else value
    for key, value in context["cookiecutter"].items()
} | {"project_slug": "grosse-2", "project_name": "Größe 2", "label_delay_days": "30"}
print(generate_files(sys.argv[1], context, sys.argv[2]))
"""
        folder = door.root / "by-python"
        folder.mkdir()
        command = [sys.executable, "-c", code, str(door.template), str(folder)]
        done = subprocess.run(command, cwd=door.root, env=door.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert contents(folder / "grosse-2") == door.copier(str(door.template))

    def test_where_the_template_cannot_be_found_it_is_one_line(self, door, tmp_path):
        text = (door.template / "hooks/post_gen_project.py").read_text(encoding="utf-8")
        (tmp_path / "hook.py").write_text(
            text.replace("{{cookiecutter | tojson | tojson}}", repr('{"_template": "/nowhere"}')),
            encoding="utf-8",
        )
        done = subprocess.run(
            # Not from a folder that is a template
            ["sh", "-c", f"cd {tmp_path}; {sys.executable} hook.py; exit $?"], env=door.env,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "cannot find the template '/nowhere'" in line
        assert "uvx copier copy" in line
