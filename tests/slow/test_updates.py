"""`copier update` from every release, and to one that is made up, loses nothing that a team wrote.

A release is what tests/releases/ recorded of it (scripts/release.py). The next one is the work tree; the made-up one
after it changes what teams edit, so that there are conflicts. Before each update the project has run, promoted and
been committed: what a run leaves in git comes from one real run of each release and kind of problem.
"""

from __future__ import annotations

import io
import lzma
import re
import shutil
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml

from ..fast.conftest import ALL_PARTS, remember_compiled, remember_context
from .conftest import ENV, REPO, Project, by_turns, copy_files
from .test_readme import blocks

RELEASES = sorted(
    (REPO / "tests/releases").glob("*.tar.xz"),
    key=lambda path: [int(part) for part in path.name.split(".")[:3]],
)
NOW, FUTURE = "v90.0.0", "v91.0.0"
OLD = [f"v{path.name.removesuffix('.tar.xz')}" for path in RELEASES]
# A project comes from each release, so its type is one that the oldest knows
pytestmark = pytest.mark.of_types("binary", "regression")
# Where a project comes from, and where it goes
WAYS = [*((old, NOW) for old in OLD), (NOW, FUTURE)]
# What a team does before it updates, where the release has it
DAILY = ("run", "promote", "design show")
Files = dict[str, bytes]


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path.name} has no {old!r} any more: change this test"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def imagine(root: Path) -> None:
    """What a later release may do: rename a question, add one, touch lines that teams edit."""
    questions, project = root / "copier.yml", root / "template/project"
    replace(questions, "\ndescription:\n", "\nsummary:\n")
    replace(
        questions, 'default: "{{ business_goal }}"',
        'default: "{{ description | default(business_goal) }}"',
    )  # fmt: skip
    replace(questions, "answers.line(description,", "answers.line(summary,")
    replace(project / "pyproject.toml.jinja", "{{ description | trim", "{{ summary | trim")
    replace(
        project / "pyproject.toml.jinja",
        ", description, business_metric",
        ", summary, business_metric",
    )
    new = "team_size: {type: int, default: 5, help: Size}\n\n# --- problem ---\n"
    replace(questions, "\n# --- problem ---\n", new)
    replace(
        project / "README.md.jinja",
        "\n## Commands\n",
        "\nFor a team of {{ team_size }}.\n\n## Commands\n",
    )
    for goals in root.glob("template/problems/*/goals.yaml"):
        text, changed = re.subn(
            r"(?m)^(    metric: .*)$", r"\1, everywhere", goals.read_text("utf-8")
        )
        assert changed == 1
        goals.write_text(text, encoding="utf-8")
    replace(project / "params.yaml.jinja", "  seed: 7  #", "  new_setting: 1\n  seed: 7  #")
    page = "docs/design/1-business-goals-and-metrics.md.jinja"
    for path in (project / page, project / "docs/design/2-data-collection-and-labelling.md.jinja"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("- **Why:** ", "- **Why so:** ", 3), encoding="utf-8")
    (project / "docs/new.md").write_text("New in this release.\n", encoding="utf-8")
    for name in ("tests/test_layers.py.jinja", "tests/test_model.py.jinja"):
        path = project / name
        path.write_text(path.read_text("utf-8") + "\n\nNEW = True\n", encoding="utf-8")


@pytest.fixture(scope="module")
def history(template, tmp_path_factory) -> Path:
    """The template's repository with a tag for each release, this work tree and the made-up one."""
    root = tmp_path_factory.mktemp("history") / "fivefold"
    root.mkdir()
    repo = Project(root)
    repo.git("init", "--quiet", "--initial-branch", "main")

    def commit(tag: str) -> None:
        repo.git("add", "--all", "--force")
        repo.git("commit", "--quiet", "--message", tag)
        repo.git("tag", tag)

    def clear() -> None:
        for path in root.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    for archive, tag in zip(RELEASES, OLD, strict=True):
        clear()
        with tarfile.open(fileobj=io.BytesIO(lzma.decompress(archive.read_bytes()))) as tar:
            # Python before 3.11.4 knows no filter; the archives are our own
            tar.extractall(root, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        commit(tag)
    clear()
    shutil.copytree(template, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git"))
    commit(NOW)
    imagine(root)
    commit(FUTURE)
    return root


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Copier runs in this process (the command line is used in test_door and test_readme), and remembers what it compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GIT_DIR", raising=False)
        for name, value in ENV.items():
            if name.startswith("GIT_"):
                patch.setenv(name, value)
        remember_compiled(patch)
        remember_context(patch)
        yield


def update(project: Project, tag: str, conflict: str = "inline", **answers: Any) -> None:
    """`copier update --defaults --vcs-ref TAG --conflict … --data …`"""
    copier.run_update(
        project.path, data=answers, vcs_ref=tag, defaults=True, overwrite=True, quiet=True,
        conflict=conflict,
    )  # fmt: skip


def environment_of(project: Project) -> dict[str, str]:
    """Lets a project of any release run in the environment of another one."""
    environment = str(project.path / ".venv")
    return {"UV_PROJECT_ENVIRONMENT": environment, "UV_NO_SYNC": "1", "PYTHONPATH": "src"}


def fresh(history: Path, path: Path, tag: str, **answers: Any) -> Project:
    """A project of that release, committed."""
    copier.run_copy(str(history), path, data=answers, vcs_ref=tag, defaults=True, quiet=True)
    project = Project(path)
    project.git("init", "--quiet", "--initial-branch", "main")
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "generated")
    return project


def contents(root: Path) -> Files:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(root).parts[:1]
    }


@pytest.fixture(scope="module")
def lived(history, project, originals, problem_type, tmp_path_factory) -> Callable[[str], Files]:
    """lived(TAG): what the daily commands of that release leave in git, by file."""
    files_by_tag: dict[str, Files] = {}

    def live(tag: str) -> Files:
        if tag not in files_by_tag:
            root = tmp_path_factory.mktemp("lived") / "my-model"
            if tag == NOW:  # it has run, which stays uncommitted here
                release_project = copy_files(originals.ran(problem_type), root)
                release_project.git("reset", "--quiet", "--soft", "HEAD~1")
            else:
                release_project = fresh(history, root, tag, problem_type=problem_type)
            command, env = ("uv", "run", "--quiet", "my-model"), environment_of(project)
            for daily in DAILY[tag == NOW :]:
                *group, name = daily.split()
                if re.search(
                    rf" {name} ", release_project.call(*command, *group, "--help", **env).stdout
                ):
                    release_project.call(*command, *daily.split(), **env)
            release_project.git("add", "--all")
            # So no file that the template made is changed by a run, and no update can conflict with one
            assert release_project.git("diff", "--cached", "--name-only", "--diff-filter=a") == ""
            names = release_project.git("diff", "--cached", "--name-only").split()
            assert {"dvc.lock", "reports/gate.json", "models/production.dvc"} <= set(names)
            files_by_tag[tag] = {name: (root / name).read_bytes() for name in names}
            shutil.rmtree(root)
        return files_by_tag[tag]

    return live


def live(project: Project, files: Files) -> None:
    """A project after its first run, committed."""
    for name, text in files.items():
        (project.path / name).parent.mkdir(parents=True, exist_ok=True)
        (project.path / name).write_bytes(text)
    project.git("add", "--all")
    project.git("commit", "--quiet", "--allow-empty", "--message", "run and promote")


def conflicts(project: Project) -> list[str]:
    """The files that an update left to mend: with markers, or with a change that found no place."""
    unmerged = project.git("diff", "--name-only", "--relative", "--diff-filter=U").split()
    return [*unmerged, *(path.name for path in project.path.rglob("*.rej"))]


def test_every_release_is_recorded():
    text = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d\S+)\]", text, re.M) == [tag[1:] for tag in reversed(OLD)]
    assert OLD


@pytest.mark.parametrize(("old", "new"), WAYS)
def test_an_untouched_project_equals_a_fresh_one(history, lived, tmp_path, old, new, problem_type):
    first_answers = {
        "problem_type": problem_type,
        "owner": "Search team",
        "description": "Who buys",
    }
    project = fresh(history, tmp_path / "my-model", old, **first_answers)
    live(project, lived(old))
    update(project, new)
    assert conflicts(project) == []
    recorded = yaml.safe_load(project.read(".copier-answers.yml"))
    # A question that was renamed keeps its answer; a default that changed reaches no answer that is recorded
    assert recorded["summary" if new == FUTURE else "description"] == "Who buys"
    answers = {name: value for name, value in recorded.items() if not name.startswith("_")}
    assert answers.items() >= {"problem_type": problem_type, "owner": "Search team"}.items()
    expected = fresh(history, tmp_path / "fresh", new, **answers)
    assert contents(project.path) == {**contents(expected.path), **lived(old)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ci", "gitlab"),
        ("ci", "none"),
        ("data_remote", "s3"),
        ("rollout", "canary"),
        ("license", "MIT"),
    ],
)
def test_an_answer_can_be_changed_by_an_update(history, tmp_path, name, value):
    project = fresh(history, tmp_path / "my-model", OLD[-1])
    # An address belongs to its remote, so it is given with it
    extra_answers = {"data_remote_url": "s3://bucket/models"} if name == "data_remote" else {}
    update(project, NOW, **{name: value, **extra_answers})
    expected = fresh(history, tmp_path / "fresh", NOW, **{name: value, **extra_answers})
    assert contents(project.path) == contents(expected.path)


@dataclass
class Team:
    """A project that a team worked on for a while."""

    project: Project
    base: str  # the commit that was generated
    head: str = "HEAD"  # their last commit before the first update

    def lines(self, sign: str) -> dict[str, Counter[str]]:
        """The lines that they added (+) or took away (-), by file."""
        lines_by_file: dict[str, Counter[str]] = {}
        name, prefix = "", "+++ b/" if sign == "+" else "--- a/"
        diff = self.project.git(
            "diff", "--unified=0", "--no-renames", "--relative", self.base, self.head
        )
        for line in diff.splitlines():
            if line.startswith(("+++ ", "--- ")):
                name = line.removeprefix(prefix) if line.startswith(prefix) else name
            elif line.startswith(sign) and line[1:].strip():
                lines_by_file.setdefault(name, Counter())[line[1:]] += 1
        return lines_by_file

    def deleted(self) -> list[str]:
        """The files that they deleted, or gave another name."""
        command = ("diff", "--name-only", "--diff-filter=D", "--no-renames", "--relative")
        return self.project.git(*command, self.base, self.head).splitlines()

    def commit(self) -> None:
        self.project.git("add", "--all")
        self.project.git("commit", "--quiet", "--message", "a year of work")
        self.head = self.project.git("rev-parse", "HEAD").strip()


CONFLICT_BLOCK = re.compile(
    r"^<<<<<<< before updating\n(.*?)^=======\n(.*?)^>>>>>>> after updating\n", re.S | re.M
)


def rejected(path: Path, sign: str) -> Counter[str]:
    """The lines that a change without a place would add (+) to a file or take away (-)."""
    beside = path.with_name(f"{path.name}.rej")
    lines = beside.read_text("utf-8").splitlines() if beside.is_file() else []
    return Counter(line[1:] for line in lines if line.startswith(sign))


def gained(team: Team, name: str) -> Counter[str]:
    """The lines that the template itself has added to a file, from what was generated to what the answers name now."""
    answers = yaml.safe_load(team.project.read(".copier-answers.yml"))
    data = {key: value for key, value in answers.items() if not key.startswith("_")}
    with tempfile.TemporaryDirectory() as folder:
        copier.run_copy(
            answers["_src_path"], folder, data=data, vcs_ref=answers["_commit"], defaults=True,
            quiet=True,
        )  # fmt: skip
        newest = Path(folder, name)
        lines = newest.read_text("utf-8").splitlines() if newest.is_file() else []
    generated = team.project.git("show", f"{team.base}:./{name}").splitlines()
    return Counter(lines) - Counter(generated)


def lost(team: Team) -> list[str]:
    """What the update took: an added line that is nowhere, a removed one that is back in silence."""
    missing = []
    for name, added in team.lines("+").items():
        path = team.project.path / name
        current = Counter(path.read_text("utf-8").splitlines()) if path.is_file() else Counter()
        current += rejected(path, "+")
        missing += [f"{name}: {line}" for line in (added - current).elements()]
    for name, removed in team.lines("-").items():
        path = team.project.path / name
        if not path.is_file():
            continue
        previous = Counter(team.project.git("show", f"{team.head}:./{name}").splitlines())
        settled = Counter(CONFLICT_BLOCK.sub("", path.read_text("utf-8")).splitlines())
        settled -= rejected(path, "-")
        back = {line for line in removed if settled[line] > previous[line]}
        if back:  # unless the template has another line that reads alike, such as an entry's status
            settled -= gained(team, name)
            back = {line for line in back if settled[line] > previous[line]}
        missing += [f"{name} has again: {line}" for line in back]
    return missing


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# 0.1.0 has other files of tests than the releases after it
DELETED = [
    *("tests/test_data.py", "tests/modelling/test_behaviour.py"),
    *("docs/design/5-monitoring-and-validation.md", "tests/test_layers.py"),
]
RENAMED = ("tests/test_model.py", "tests/goals/test_gate.py")


def work(project: Project, ran: Files | None = None) -> Team:
    """Runs, own features and source, changed targets, filled documents, files deleted and renamed, own CI step."""
    root = project.path
    base = project.git("rev-parse", "HEAD").strip()
    live(project, ran or {})
    params, package = root / "params.yaml", root / "src/my_model"
    text = params.read_text(encoding="utf-8")
    # Targets, seed, source, split and a feature of their own
    text = re.sub(r"(?m)^(    metric: )\S+ ", r"\g<1>0.123 ", text, count=1)
    text = text.replace("  seed: 7 ", "  seed: 11 ").replace("    test: 0.2\n", "    test: 0.25\n")
    text = text.replace("    kind: sample ", "    kind: sql ")
    ours = "    entity_visits: {family: entity, impute: zero, scale: standard, encode: number}\n"
    text = text.replace("    event_time: {family", f"{ours}    event_time: {{family")
    write(params, text)
    write(package / "features/ours.py", '"""What we compute."""\n\nOURS = 1\n')
    source = package / "data/source.py"
    write(
        source, source.read_text("utf-8") + "\n\ndef from_our_warehouse() -> int:\n    return 1\n"
    )
    for page in ("1-business-goals-and-metrics", "2-data-collection-and-labelling"):
        path = root / f"docs/design/{page}.md"
        page_text = re.sub(
            r"(?m)^(- \*\*Why:\*\*) .*$",
            r"\1 We talked to sales about it.",
            path.read_text("utf-8"),
        )
        write(
            path,
            re.sub(r"(?m)^- \*\*Status:\*\* (open|assumed).*$", "- **Status:** settled", page_text),
        )
    for name in DELETED:
        (root / name).unlink(missing_ok=True)
    before = next(name for name in RENAMED if (root / name).is_file())
    project.git("mv", before, "tests/test_our_own.py")
    ci = root / ".github/workflows/ci.yml"
    step = "      - name: Ours\n        run: make ours\n"
    write(ci, ci.read_text("utf-8").replace("      - name: Test\n", f"{step}      - name: Test\n"))
    write(root / "Makefile", (root / "Makefile").read_text("utf-8") + "\nours:\n\techo ours\n")
    toml = root / "pyproject.toml"
    write(toml, toml.read_text("utf-8").replace('  "rich>=', '  "requests>=2,<3",\n  "rich>='))
    readme = root / "README.md"
    write(readme, "# Ours\n\nAsk Kim.\n" + readme.read_text("utf-8").partition("\n")[2])
    team = Team(project, base)
    team.commit()
    assert len(team.lines("+")) >= 9
    return team


def check_update(team: Team, new: str) -> list[str]:
    """That an update lost nothing and says where it conflicts; returns these files."""
    project = team.project
    assert lost(team) == []
    assert len(team.deleted()) >= len(DELETED)
    assert [name for name in team.deleted() if (project.path / name).exists()] == []
    answers = yaml.safe_load(project.read(".copier-answers.yml"))
    assert answers["_commit"] == new
    conflicted, files = conflicts(project), contents(project.path)
    assert sorted(conflicted) == sorted(
        name for name, text in files.items() if b"\n<<<<<<< " in text
    )
    edited = {*team.lines("+"), *team.lines("-")}
    assert set(conflicted) <= edited  # nothing conflicts that nobody edited
    for name in files.keys() - set(conflicted):
        if name.endswith(".py"):
            compile((project.path / name).read_bytes(), name, "exec")
    return conflicted


@pytest.mark.parametrize(("old", "new"), WAYS)
def test_a_team_loses_no_line(history, lived, tmp_path, old, new, problem_type):
    project = fresh(history, tmp_path / "my-model", old, problem_type=problem_type)
    team = work(project, lived(old))
    update(project, new)
    conflicted = check_update(team, new)
    if new == FUTURE:
        assert "params.yaml" in conflicted  # the line of the target that both changed
        assert b"New in this release.\n" in contents(project.path).values()
        project.call("make", "conflicts", code=2)


def test_a_team_loses_no_line_by_two_updates_in_a_row(history, lived, tmp_path, problem_type):
    project = fresh(history, tmp_path / "my-model", OLD[-1], problem_type=problem_type)
    team = work(project, lived(OLD[-1]))
    update(project, NOW)
    for name in check_update(team, NOW):  # as docs/updating.md says: theirs is above the =======
        text = project.read(name)
        write(project.path / name, CONFLICT_BLOCK.sub(r"\1", text))
    project.call("make", "conflicts")
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "update")
    live(project, lived(NOW))  # the next run, by the new release
    update(project, FUTURE)
    replaced = lived(OLD[-1]).keys()  # what the second run wrote anew is no line of theirs
    assert [line for line in lost(team) if line.partition(":")[0] not in replaced] == []
    assert "params.yaml" in conflicts(project)


def test_a_team_loses_no_line_where_conflicts_are_set_aside(history, lived, tmp_path, problem_type):
    """`copier update --conflict rej`: what finds no place is beside its file, and nothing is marked."""
    project = fresh(history, tmp_path / "my-model", NOW, problem_type=problem_type)
    team = work(project, lived(NOW))
    update(project, FUTURE, conflict="rej")
    assert lost(team) == []
    assert not [name for name, text in contents(project.path).items() if b"\n<<<<<<< " in text]
    assert "params.yaml.rej" in conflicts(project)
    assert "+    metric: 0.123" in project.read("params.yaml.rej")
    project.call("make", "conflicts", code=2)


@pytest.mark.at_turn(2)
def test_a_project_in_a_folder_of_a_larger_repository_is_updated(history, lived, tmp_path):
    """Only that folder is touched, and only that folder has to be clean."""
    whole, folder = Project(tmp_path / "shop"), tmp_path / "shop/services/my-model"
    write(whole.path / "till/main.py", "PRICE = 1\n")
    whole.git("init", "--quiet", "--initial-branch", "main")
    copier.run_copy(str(history), folder, vcs_ref=NOW, defaults=True, quiet=True)
    whole.git("add", "--all")
    whole.git("commit", "--quiet", "--message", "generated")
    project = Project(folder)
    team = work(project, lived(NOW))
    write(whole.path / "till/main.py", "PRICE = 2\n")
    update(project, FUTURE)
    assert "params.yaml" in check_update(team, FUTURE)
    project.call("make", "conflicts", code=2)
    touched = whole.git("diff", "--name-only", "HEAD").split()
    assert [name for name in touched if not name.startswith("services/my-model/")] == [
        "till/main.py"
    ]
    assert whole.read("till/main.py") == "PRICE = 2\n"


@pytest.mark.parametrize(("old", "new"), WAYS)
def test_a_line_in_the_middle_of_every_file_survives(
    history, lived, tmp_path, old, new, problem_type
):
    """So no release renames or removes a file that somebody may have edited; 0.2.0 alone moves files of 0.1.0."""
    project = fresh(history, tmp_path / "my-model", old, problem_type=problem_type)
    base, count = project.git("rev-parse", "HEAD").strip(), 0
    generated = contents(project.path)
    live(project, lived(old))
    for name, text in generated.items():
        if name != ".copier-answers.yml":
            lines = text.decode("utf-8").splitlines(keepends=True)
            lines.insert(len(lines) // 2, f"# our line {count}\n")
            (project.path / name).write_text("".join(lines), encoding="utf-8")
            count += 1
    team = Team(project, base)
    team.commit()
    added = [team.lines("+")[name].total() for name in generated if name in team.lines("+")]
    assert sum(added) == count > 60
    update(project, new)
    moved = generated.keys() - contents(fresh(history, tmp_path / "new", new).path).keys()
    assert not moved or old == "v0.1.0"
    assert [line for line in lost(team) if line.split(": ")[0] not in moved] == []


def test_a_lost_line_would_be_found(history, tmp_path):
    project = fresh(history, tmp_path / "my-model", NOW)
    team = work(project, {"reports/gate.json": b"{\n}\n"})
    assert lost(team) == []
    replace(project.path / "params.yaml", "    metric: 0.123 ", "    metric: 0.35 ")
    (project.path / "src/my_model/features/ours.py").unlink()
    missing = "\n".join(lost(team))
    assert "params.yaml:     metric: 0.123" in missing
    assert "ours.py: OURS = 1" in missing
    replace(project.path / "params.yaml", "  seed: 11 ", "  seed: 7 ")
    (project.path / "reports/gate.json").unlink()
    missing = "\n".join(lost(team))
    assert "params.yaml has again:   seed: 7" in missing
    assert "reports/gate.json: {" in missing


@pytest.mark.at_turn(1)
def test_an_updated_project_passes_its_own_tests(history, project, lived, problem_type, tmp_path):
    """With edits that leave it runnable; in the environment that the same release was installed into."""
    updated = fresh(history, tmp_path / "my-model", OLD[0], problem_type=problem_type)
    base = updated.git("rev-parse", "HEAD").strip()
    live(updated, lived(OLD[0]))
    params = updated.path / "params.yaml"
    text = re.sub(r"(?m)^(    metric: )\S+ ", r"\g<1>0.123 ", updated.read("params.yaml"), count=1)
    write(params, text.replace("  seed: 7 ", "  seed: 11 "))
    write(updated.path / "src/my_model/features/ours.py", '"""What we compute."""\n\nOURS = 1\n')
    ours = "from my_model.features.ours import OURS\n\n\ndef test_ours():\n    assert OURS == 1\n"
    write(updated.path / "tests/test_ours.py", ours)
    team = Team(updated, base)
    team.commit()
    update(updated, NOW)
    assert conflicts(updated) == []
    assert lost(team) == []
    updated.call("make", "conflicts")
    env = environment_of(project)
    updated.call("uv", "run", "--quiet", "my-model", "design", "sync", **env)
    command = ["uv", "run", "--quiet", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
    done = updated.call(*command, **env)
    assert " passed" in done.stdout


@pytest.fixture
def existing(tmp_path) -> Team:
    """A repository that was there before the template, with files of the same names."""
    root = Project(tmp_path / "shop")
    write(
        root.path / "README.md", "# Shop\n\nWhat we sell, and to whom.\n\n## Commands\n\nAsk Kim.\n"
    )
    write(root.path / "src/shop/till.py", "PRICE = 1\n")
    write(root.path / "pyproject.toml", '[project]\nname = "shop"\n\n[tool.shop]\nopen = "nine"\n')
    write(root.path / ".gitignore", "*.till\n")
    root.git("init", "--quiet", "--initial-branch", "main")
    base = root.git("hash-object", "-t", "tree", "/dev/null").strip()  # nothing was generated yet
    team = Team(root, base)
    team.commit()
    return team


def copy_into(team: Team, history: Path, *options: str, code: int = 0) -> None:
    """`copier copy … .`, as docs/existing.md has it, where nobody can answer."""
    arguments = ("--defaults", "--quiet", "--vcs-ref", NOW, *options)
    team.project.call(
        sys.executable, "-m", "copier", "copy", *arguments, str(history), ".", code=code
    )


def test_nothing_of_a_repository_that_is_there_is_replaced_unasked(history, existing):
    copy_into(existing, history, code=1)
    assert existing.project.git("diff", "HEAD") == ""
    existing.project.git("clean", "-d", "--force", "--quiet")
    skipped = ("README.md", "pyproject.toml", ".gitignore")
    copy_into(existing, history, *(argument for name in skipped for argument in ("--skip", name)))
    assert existing.project.git("diff", "HEAD") == ""
    assert (existing.project.path / "src/my_model/__main__.py").is_file()


def test_what_was_replaced_on_purpose_comes_back_and_updates_merge_around_it(history, existing):
    project = existing.project
    (block,) = blocks(REPO / "docs/existing.md", "Without a terminal")
    copied = f"{sys.executable} -m copier copy --quiet --vcs-ref {NOW}"
    block = block.replace("uvx copier copy", copied).replace("URL-OF-THIS-REPOSITORY", str(history))
    project.call("bash", "-e", "-c", block)
    assert project.git("diff", "--name-only", "HEAD").split() == [".gitignore", "pyproject.toml"]
    toml = project.path / "pyproject.toml"
    ours = project.git("show", "HEAD:pyproject.toml").partition("[tool.shop]")
    write(toml, f"{toml.read_text('utf-8')}\n{''.join(ours[1:])}")
    taken = ['pyproject.toml: name = "shop"']  # the project's own name is another
    assert lost(existing) == taken
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "generate")
    update(project, FUTURE)
    assert lost(existing) == taken
    assert set(conflicts(project)) <= {"README.md"}
    assert (project.path / "docs/new.md").is_file()


@pytest.mark.at_turn(1)
def test_a_project_that_left_the_template_goes_on_working(ran, tmp_path):
    """By the lines of its own README."""
    project = copy_files(ran, tmp_path / "my-model")
    *_, leave = blocks(project.path / "README.md", "Update from the template")
    project.call("bash", "-e", "-c", leave)
    pull_request_page = ".github/pull_request_template.md"  # of the project's pull requests
    names = contents(project.path).keys() - {pull_request_page}
    template_files = [name for name in names if re.search("copier|renovate|template", name)]
    assert template_files == []
    command, env = ("uv", "run", "--quiet", "my-model"), environment_of(ran)
    project.call(*command, "run", **env)
    assert project.git("status", "--porcelain") == ""  # nothing was left to do
    replace(project.path / "src/my_model/goals/gate.py", "import math\n", "import math\n\n")
    project.git("commit", "--quiet", "--all", "--message", "edit")
    assert "its next update" not in project.call(*command, "design", "status", **env).stdout
    project.call("make", "conflicts")
    quick = ("tests/test_params.py", "tests/test_layers.py")
    project.call("uv", "run", "--quiet", "pytest", "-q", "-p", "no:cacheprovider", *quick, **env)
    project.call(sys.executable, "-m", "copier", "update", "--defaults", code=1)


# Answers that bring files and settings, or take them away: without, with
CHANGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    *(({"parts": [p for p in ALL_PARTS if p != part]}, {"parts": ALL_PARTS}) for part in ALL_PARTS),
    ({"inputs": []}, {"inputs": ["text"]}),
]


@pytest.mark.parametrize(("without", "with_it"), by_turns(CHANGES, 2), ids=str)
def test_an_answer_comes_and_goes_by_an_update_with_the_team_s_edits_kept(
    history, tmp_path, without, with_it
):
    """`copier update --data 'parts=[…]'`: the same as if it had been asked for, or not, from the start."""
    part = without.get("parts", ["serving"])[0]  # one that is there before and after
    project = fresh(history, tmp_path / "my-model", NOW, **without)
    plain, whole = (
        fresh(history, tmp_path / name, NOW, **answers)
        for name, answers in (("plain", without), ("whole", with_it))
    )
    team = Team(project, project.git("rev-parse", "HEAD").strip())
    edits = {
        "params.yaml": ("  seed: 7  #", "  seed: 11  #"),
        "README.md": ("## First steps", "## Our first steps"),
        "docs/design/5-monitoring-and-validation.md": ("### 5.15 ", "### 5.15 For us: "),
        f"src/my_model/{part}/__init__.py": ('"""A part', '"""Our part'),
    }
    for name, (old, new) in edits.items():
        for root in (project.path, plain.path, whole.path):
            replace(root / name, old, new)
    team.commit()
    for answers, expected in ((with_it, whole), (without, plain)):
        update(project, NOW, **answers)
        assert conflicts(project) == []
        assert lost(team) == []
        assert contents(project.path) == contents(expected.path)
        project.git("add", "--all")
        project.git("commit", "--quiet", "--message", "answers")
