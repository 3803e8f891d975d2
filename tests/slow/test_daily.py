"""Days of a team: git, DVC and a remote between two colleagues, and what goes wrong between them.

One small project, that trains in seconds, stands for all; each test works on a copy of it.
"""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .conftest import Project, by_turns, generate
from .test_project import Copy, digest, env_of

QUICK = ("--set", "data.source.rows=6000", "--set", "modelling.candidates=[linear]")
# Of a made-up table, nothing is promised
EASY = (
    "--set", "modelling.candidates=[linear]", "--set", "modelling.few_rows.below=1",
    "--set", "goals.targets.confidence=null", "--set", "goals.targets.margin_over_baseline=null",
    "--set", "goals.targets.calibration_error=null",
)  # fmt: skip
MODEL = "models/production/model.onnx"
# What a stage makes; a fresh clone has to have the same bytes
STAGE_OUTPUTS = ("data/raw/events.parquet", "data/split/test.parquet", "models/model.onnx")


@pytest.fixture(scope="module")
def quick(originals, tmp_path_factory) -> Project:
    """A yes-or-no project of few rows and one candidate: two models were promoted, a third is trained.

    HEAD~1 is the commit of the second promotion, HEAD that of the third training.
    """
    root = tmp_path_factory.mktemp("daily")
    project = originals.copy("binary", root / "my-model", has_run=False)
    # A remote at an absolute path, as a team's share would be
    project.dvc("remote", "modify", "storage", "url", str(root / "share"))
    for seed in (7, 8):
        project.cli("run", *QUICK, "--set", f"project.seed={seed}")
        project.cli("promote")
    commit(project, "promote")
    project.dvc("push", "--quiet")
    train(project, 9)
    commit(project, "train")
    project.dvc("push", "--quiet")
    yield project
    shutil.rmtree(project.path / ".venv")


@pytest.fixture
def copy(quick, tmp_path) -> Copy:
    return Copy(quick, tmp_path / "anna" / "my-model")


def commit(project: Project, message: str) -> None:
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", message)


def train(project: Project, seed: int) -> None:
    """Another model: another sample."""
    project.cli("run", "--set", f"project.seed={seed}")


def clone_of(original: Copy, path: Path, *options: str) -> Copy:
    """What a colleague has after `git clone` and `dvc pull`; the remote is a folder that both reach."""
    path.parent.mkdir(parents=True, exist_ok=True)
    original.git("clone", "--quiet", *options, str(original.path), str(path))
    clone = Copy.__new__(Copy)
    clone.path, clone.env = path, original.env
    return clone


def one_line(project: Project, *arguments: str, code: int = 2) -> str:
    """What a refused command says: one line, and no traceback."""
    error = project.cli(*arguments, code=code).stderr.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    return error


def tree(root: Path) -> dict[str, str]:
    """Every file outside of git's and DVC's own folders."""
    return {
        path.relative_to(root).as_posix(): digest(path)
        for path in sorted(root.rglob("*"))
        if path.is_file() and not {".git", ".dvc", "__pycache__"} & set(path.parts)
    }


# --- the model in production ---


def day(anna: Copy, ben: Copy) -> None:
    """Anna promotes, Ben pulls: the same bytes, and every command that uses them works."""
    anna.cli("promote")
    commit(anna, "promote")
    anna.dvc("push", "--quiet")
    anna.git("clone", "--quiet", str(anna.path), str(ben.path))
    assert ben.cli("remote").stdout
    ben.dvc("pull", "--quiet")
    for name in (
        *STAGE_OUTPUTS,
        MODEL,
        "models/previous/model.onnx",
        "monitoring/reference.parquet",
    ):
        assert digest(ben.path / name) == digest(anna.path / name), name
    assert json.loads(ben.dvc("status", "--json")) == {}
    assert "Every stage was skipped" in ben.cli("run").stdout
    assert "nothing new to learn from" in ben.cli("retrain", "--now").stdout
    old = digest(ben.path / "models/previous/model.onnx")
    ben.cli("rollback")
    assert digest(ben.path / MODEL) == old
    commit(ben, "back")
    ben.dvc("push", "--quiet")


def test_the_model_in_production_reaches_a_colleague(copy, tmp_path):
    ben = clone_of(copy, tmp_path / "scratch")
    ben.path = tmp_path / "ben" / "my-model"
    ben.path.parent.mkdir()
    day(copy, ben)
    # and what he put back reaches her
    copy.git("pull", "--quiet", "--no-rebase", str(ben.path), "main")
    assert "dvc pull" in one_line(copy, "score", "data/raw/events.parquet")
    copy.dvc("pull", "--quiet", "--force")
    assert digest(copy.path / MODEL) == digest(ben.path / MODEL)
    copy.cli("score", "data/raw/events.parquet")


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """A real S3 server with an empty bucket named `team`, and the environment of its users."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["uvx", "--quiet", "--from", "moto[server]>=5,<6", "moto_server", "-p", str(port)]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            request = urllib.request.Request(f"{address}/team", method="PUT")
            for _ in range(600):
                with suppress(OSError):
                    urllib.request.urlopen(request, timeout=5).close()
                    break
                time.sleep(0.1)
            keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
            yield {**keys, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": address}
        finally:
            server.terminate()


def test_the_model_in_production_reaches_a_colleague_over_s3(template, quick, tmp_path):
    answers = {"data_remote": "s3", "data_remote_url": "s3://team/my-model"}
    s3_project = generate(template, tmp_path / "made" / "my-model", like=quick, **answers)
    anna = Copy(quick, tmp_path / "anna" / "my-model")
    shutil.copy(s3_project.path / ".dvc/config", anna.path / ".dvc/config")
    commit(anna, "s3")
    with s3_server() as keys:
        anna.env = {**env_of(s3_project), **keys}
        ben = clone_of(anna, tmp_path / "scratch")
        ben.path = tmp_path / "ben" / "my-model"
        ben.path.parent.mkdir()
        day(anna, ben)
        put = "import fsspec; fsspec.filesystem('s3').put('data/raw/events.parquet', 's3://team/rows/')"
        anna.call("uv", "run", "--quiet", "python", "-c", put)
        for rows, out in (("data/raw/events.parquet", "here"), ("s3://team/rows", "bucket")):
            anna.cli("score", rows, "--out", f"{out}.parquet")
        here, bucket = ((anna.path / f"{out}.parquet").read_bytes() for out in ("here", "bucket"))
        assert here == bucket
        assert "s3://team/none is not there" in anna.cli("score", "s3://team/none", code=2).stderr
    shutil.rmtree(s3_project.path / ".venv")


def test_clearing_dvc_s_cache_keeps_every_model_in_use(copy):
    copy.cli("challenge")
    copy.dvc("gc", "--workspace", "--force", "--quiet")
    used = {name: tree(copy.path / f"models/{name}") for name in ("production", "previous", "challenger")}  # fmt: skip
    for name in used:
        shutil.rmtree(copy.path / f"models/{name}")
    copy.dvc("checkout", "--quiet")
    assert {name: tree(copy.path / f"models/{name}") for name in used} == used
    copy.cli("promote", "--challenger")
    assert not (copy.path / "models/challenger.dvc").exists()


MODEL_COMMANDS = [
    ("run",), ("promote",), ("challenge",), ("rollback",), ("retrain", "--check"), ("monitor",),
    ("score", "data/raw/events.parquet"), ("serve",), ("bench",), ("export", "edge"),
    ("experiment", "backtest"), ("compare",),
]  # fmt: skip


def test_a_model_that_is_not_the_one_that_git_names_is_never_used_in_silence(copy):
    before = (copy.path / MODEL).read_bytes()
    (copy.path / MODEL).write_bytes((copy.path / "models/previous/model.onnx").read_bytes())
    digests = tree(copy.path)
    for command in MODEL_COMMANDS:
        error = one_line(copy, *command)
        reason = "models/production is not the model that models/production.dvc names"
        assert reason in error, command
        assert "dvc pull --force models/production.dvc" in error
    shutil.rmtree(copy.path / "models/production")
    for command in MODEL_COMMANDS[:3]:
        assert "dvc pull models/production.dvc" in one_line(copy, *command), command
    unmoved = {name: value for name, value in digests.items() if "production/" not in name}
    assert unmoved == tree(copy.path)
    copy.dvc("checkout", "--quiet", "models/production.dvc")
    assert (copy.path / MODEL).read_bytes() == before
    copy.cli("score", "data/raw/events.parquet")


def test_without_git_or_with_a_broken_dvc_no_model_is_moved(copy):
    before = tree(copy.path)
    config = copy.path / ".dvc/config"
    text = config.read_text()
    for break_it, mend in [
        (lambda: (copy.path / ".git").rename(copy.path / "git"),
         lambda: (copy.path / "git").rename(copy.path / ".git")),
        (lambda: config.write_text(text.replace("[core]", "[core")), lambda: config.write_text(text)),
    ]:  # fmt: skip
        break_it()
        for command in (("promote",), ("rollback",), ("challenge",), ("run",)):
            one_line(copy, *command)
        mend()
        assert tree(copy.path) == before
    # DVC itself fails after the models have changed places: they change back
    cache = copy.path / ".dvc/cache"
    cache.rename(copy.path / "elsewhere")
    cache.write_text("a file, where a folder should be")
    for command in (("promote",), ("rollback",), ("challenge",)):
        one_line(copy, *command)
    cache.unlink()
    (copy.path / "elsewhere").rename(cache)
    assert tree(copy.path) == before


# --- what run sees ---


def customers(path: Path, rows: int, seed: int = 4) -> None:
    draw = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tenure", "plan", "churned"])
        for _ in range(rows):
            tenure, plan = round(draw.uniform(0, 60), 2), draw.choice(["free", "pro"])
            writer.writerow([tenure, plan, int(draw.random() < (0.7 if tenure < 12 else 0.2))])


def rows_in(project: Project) -> int:
    return json.loads(project.read("reports/collect.json"))["rows_in"]


@pytest.mark.at_turn(1)
def test_a_source_that_changed_is_read_again(copy):
    root = copy.path
    (root / "in").mkdir()
    customers(root / "in/a.csv", 2600)
    shutil.rmtree(root / "models/production")
    (root / "models/production.dvc").unlink()
    copy.cli("adopt", "in/a.csv", "--label", "churned")
    run = ["run", *EASY]
    copy.cli(*run)
    assert rows_in(copy) == 2600
    assert "Every stage was skipped" in copy.cli(*run).stdout
    customers(root / "in/a.csv", 3000)  # it grew
    assert "The source changed" in copy.cli(*run).stdout
    assert rows_in(copy) == 3000
    changed = root / "in/a.csv"
    changed.write_text(changed.read_text().replace("pro", "Pro"))  # as long as before
    assert "collect: 3,000 rows" in copy.cli(*run).stdout
    assert "Every stage was skipped" in copy.cli(*run).stdout
    customers(root / "in/b.csv", 300, seed=6)  # another file that the glob takes
    copy.cli(*run, "--set", "data.source.paths=[in/*.csv]")
    assert rows_in(copy) == 3300
    (root / "in/b.csv").unlink()
    copy.cli(*run)
    assert rows_in(copy) == 3000
    # On a machine without the files, the rows stay what they were
    (root / "in").rename(root.parent / "in")
    output = copy.cli(*run).stdout
    assert "cannot be read on this machine" in output
    assert "Every stage was skipped" in output


@pytest.mark.at_turn(0)
def test_a_query_is_asked_again_and_its_answer_decides(copy):
    shutil.rmtree(copy.path / "models/production")
    (copy.path / "models/production.dvc").unlink()
    import_rows = "import duckdb; duckdb.connect('shop.db').execute(\"{}\")"
    customers(copy.path / "a.csv", 2600)
    copy.cli("adopt", "a.csv", "--label", "churned")
    copy.call("uv", "run", "python", "-c", import_rows.format("CREATE TABLE t AS FROM 'a.csv'"))
    settings = [
        "data.source.kind=sql", "data.source.query=SELECT * FROM shop.t",
        "data.source.attach=[\"ATTACH 'shop.db' AS shop (READ_ONLY)\"]", "data.source.paths=[]",
    ]  # fmt: skip
    copy.cli("run", *EASY, *(argument for setting in settings for argument in ("--set", setting)))
    assert rows_in(copy) == 2600
    assert "Every stage was skipped" in copy.cli("run").stdout
    copy.call("uv", "run", "python", "-c", import_rows.format("INSERT INTO t FROM t LIMIT 50"))
    assert "The source changed" in copy.cli("run").stdout
    assert rows_in(copy) == 2650


def test_a_changed_helper_is_a_changed_stage(copy):
    package = copy.path / "src/my_model"
    helper, stage = package / "monitoring/ours.py", package / "monitoring/reference.py"
    helper.write_text('"""Ours."""\n\nLIMIT = 1\n')
    stage.write_text(stage.read_text() + "\n\nfrom .ours import LIMIT  # noqa: E402, F401\n")
    output = copy.cli("run").stdout
    assert "dvc.yaml: reference + src/my_model/monitoring/ours.py" in output
    helper.write_text('"""Ours."""\n\nLIMIT = 2\n')
    output = copy.cli("run").stdout
    assert "collect, label, split, train, evaluate: each skipped" in output
    assert "reference:" in output
    stage.write_text(stage.read_text().replace("from .ours", "# from .ours"))
    helper.unlink()
    assert "- src/my_model/monitoring/ours.py" in copy.cli("run").stdout


# --- two people trained ---


@pytest.mark.parametrize("way", by_turns(["merge", "rebase"]))
def test_two_people_trained_and_promoted(copy, tmp_path, way):
    rebase, anna = way == "rebase", copy
    ben = clone_of(anna, tmp_path / "ben" / "my-model")
    ben.git("reset", "--quiet", "--hard", "origin/main~1")
    ben.dvc("pull", "--quiet")
    anna.cli("promote")
    commit(anna, "anna trained")
    anna.dvc("push", "--quiet")
    ben.cli("run", "--set", "modelling.calibration=isotonic")
    ben.cli("promote")
    readme = ben.path / "README.md"
    readme.write_text(readme.read_text() + "\nBen's line.\n")
    commit(ben, "ben trained")
    pull = ["git", "pull", "--quiet", "--rebase" if rebase else "--no-rebase", "--no-edit"]
    assert ben.call(*pull, str(anna.path), "main", code=1)
    in_conflict = ben.git("diff", "--name-only", "--diff-filter=U").split()
    assert {"dvc.lock", "reports/metrics.json", "models/production.dvc"} <= set(in_conflict)
    assert all(re.fullmatch(r"dvc\.lock|reports/.*|models/.*\.dvc", name) for name in in_conflict)
    output = ben.cli("resolve").stdout
    assert "settled: dvc.lock" in output
    assert ben.git("diff", "--name-only", "--diff-filter=U") == ""
    assert digest(ben.path / MODEL) == digest(anna.path / MODEL)
    ben.cli("run")
    assert "Every stage was skipped" in ben.cli("run").stdout
    settings = ben.read("params.yaml")
    assert "calibration: isotonic" in settings
    assert "seed: 9" in settings
    assert "Ben's line." in ben.read("README.md")
    ben.git("add", "--all")
    if rebase:
        ben.call("git", "rebase", "--continue", GIT_EDITOR="true")
    else:
        ben.git("commit", "--quiet", "--no-edit")
    assert ben.git("status", "--porcelain") == ""
    ben.dvc("push", "--quiet")
    ben.cli("score", "data/raw/events.parquet")


def test_a_conflict_in_what_people_write_is_left_to_them(copy, tmp_path):
    ben = clone_of(copy, tmp_path / "ben" / "my-model")
    for project, seed in ((copy, 18), (ben, 19)):
        params = project.path / "params.yaml"
        params.write_text(params.read_text().replace("seed: 9", f"seed: {seed}"))
        project.path.joinpath("reports/gate.json").write_text(f'{{"seed": {seed}}}\n')
        commit(project, "seed")
    ben.call("git", "pull", "--quiet", "--no-rebase", str(copy.path), "main", code=1)
    marked = ben.read("params.yaml")
    done = ben.cli("resolve", code=1)
    assert "settled: reports/gate.json" in done.stdout
    assert "left for you: params.yaml" in done.stdout
    assert ben.read("params.yaml") == marked
    assert ben.read("reports/gate.json") == '{"seed": 18}\n'
    assert re.search(r"params\.yaml:\d+: holds the marks of a merge", one_line(ben, "run"))
    assert "No file is in conflict" in copy.cli("resolve").stdout


READER_COMMANDS = {
    "params.yaml": ("run",), "dvc.yaml": ("run",), "dvc.lock": ("run",), ".dvc/config": ("run",),
    "uv.lock": ("run",), "models/production.dvc": ("score", "data/raw/events.parquet"),
    "reports/gate.json": ("gate",), "reports/inputs.json": ("run",),
    "reports/retrain.json": ("retrain", "--check"),
    "reports/monitor.json": ("retrain", "--check"), "models/manifest.json": ("trace",),
    "docs/design/1-business-goals-and-metrics.md": ("design", "sync", "--check"),
    "src/my_model/__main__.py": ("run",), "src/my_model/cards.md.j2": ("evaluate",),
    ".copier-answers.yml": ("design", "status"),
}  # fmt: skip


@pytest.mark.parametrize("name", READER_COMMANDS)
def test_the_marks_of_a_merge_are_one_line(copy, name):
    path = copy.path / name
    text = path.read_text() if path.is_file() else "{}\n"
    path.write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> theirs\n")
    if name == "src/my_model/__main__.py" or name == "uv.lock":
        done = copy.call(
            "uv",
            "run",
            "--quiet",
            "my-model",
            *READER_COMMANDS[name],
            code=2 if name == "uv.lock" else 1,
        )
        assert "<<<<<<<" in done.stderr or name in done.stderr
        return
    if name == ".copier-answers.yml":
        copy.cli(*READER_COMMANDS[name])  # it is Copier that reads it
        return
    error = one_line(copy, *READER_COMMANDS[name])
    assert f"{name}:1: holds the marks of a merge" in error


# --- where projects live ---


@pytest.mark.at_turn(1)
def test_a_project_in_a_folder_of_a_larger_repository(copy, tmp_path):
    top = tmp_path / "mono"
    shutil.move(copy.path, top / "ml/my-model")
    shutil.rmtree(top / "ml/my-model/.git")
    mono = Project(top)
    mono.git("init", "--quiet", "--initial-branch", "main")
    commit(mono, "all")
    copy.path = top / "ml/my-model"
    assert "Every stage was skipped" in copy.cli("run").stdout
    copy.dvc("remote", "modify", "--local", "storage", "url", str(top / "ml/data"))
    assert "lies inside the repository" in copy.cli("promote").stdout
    (top / ".gitignore").write_text("/ml/data/\n")
    assert "lies inside the repository" not in copy.cli("promote").stdout
    (copy.path / ".dvc/config.local").unlink()
    commit(mono, "promote")
    copy.dvc("push", "--quiet")
    clone = tmp_path / "ben"
    mono.git("clone", "--quiet", str(top), str(clone))
    ben = Copy.__new__(Copy)
    ben.path, ben.env = clone / "ml/my-model", copy.env
    ben.dvc("pull", "--quiet")
    assert "Every stage was skipped" in ben.cli("run").stdout
    assert digest(ben.path / MODEL) == digest(copy.path / MODEL)
    for project, whole, seed in ((ben, Project(clone), 10), (copy, mono, 11)):
        train(project, seed)
        commit(whole, "train")
    Project(clone).call("git", "pull", "--quiet", "--no-rebase", str(top), "main", code=1)
    ben.path.joinpath("params.yaml").write_text(copy.read("params.yaml"))
    Project(clone).git("add", "ml/my-model/params.yaml")
    ben.cli("resolve")
    assert Project(clone).git("diff", "--name-only", "--diff-filter=U") == ""


@pytest.mark.parametrize("autocrlf", by_turns(["true", "input"]))
def test_a_fresh_clone_has_nothing_to_do(copy, tmp_path, autocrlf):
    copy.cli("promote")
    commit(copy, "promote")
    copy.dvc("push", "--quiet")
    ben = clone_of(copy, tmp_path / "ben" / "my-model", "--config", f"core.autocrlf={autocrlf}")
    ben.dvc("pull", "--quiet")
    assert json.loads(ben.dvc("status", "--json")) == {}
    assert "Every stage was skipped" in ben.cli("run").stdout
    assert ben.git("status", "--porcelain") == ""


@pytest.mark.at_turn(2)
def test_folders_on_another_disk_work_or_are_refused_at_once(copy, tmp_path):
    before = tree(copy.path)
    for name in ("data", "models", "monitoring", "reports", "models/production"):
        (tmp_path / "disk").mkdir()
        moved = tmp_path / "disk" / Path(name).name
        shutil.move(copy.path / name, moved)
        (copy.path / name).symlink_to(moved)
        for command in (("run",), ("promote",)) if name == "data" else (("run",),):
            assert f"{name} is a link" in one_line(copy, *command)
        (copy.path / name).unlink()
        shutil.move(moved, copy.path / name)
        shutil.rmtree(tmp_path / "disk")
    assert tree(copy.path) == before
    # DVC's cache on the other disk, and links into it in place of files
    copy.dvc("cache", "dir", str(tmp_path / "cache"), "--local")
    copy.dvc("config", "--local", "cache.type", "symlink")
    train(copy, 10)
    copy.cli("promote")
    assert (copy.path / MODEL).is_symlink()
    train(copy, 11)
    copy.cli("challenge")
    copy.cli("promote", "--challenger")
    copy.cli("rollback")
    copy.cli("score", "data/raw/events.parquet")
    assert "Every stage was skipped" in copy.cli("run").stdout


@pytest.mark.parametrize("encoding", ["ascii", *by_turns(["latin-1", "cp1252"])])
def test_what_a_terminal_cannot_show_is_replaced(copy, encoding):
    for name in ("params.yaml", "docs/design/1-business-goals-and-metrics.md"):
        path = copy.path / name
        path.write_text(
            path.read_text("utf-8").replace("name: My model", "name: Модель 模型 – 🚀"), "utf-8"
        )
    env = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    if encoding == "ascii":
        copy.cli("run", *QUICK, **env)
        copy.cli("promote", **env)
    for command in (
        ("gate",), ("design", "status"), ("trace",), ("score", "data/raw/events.parquet"),
        ("--help",), ("experiment", "--plan"), ("retrain", "--check"),
    ):  # fmt: skip
        copy.cli(*command, **env)
    copy.cli("monitor", **env)


@pytest.mark.at_turn(0)
def test_a_locale_without_utf_8_changes_no_byte(copy):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    before = tree(copy.path)
    for folder in ("data", "models/model.onnx", "monitoring", "reports", ".dvc/cache"):
        path = copy.path / folder
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    copy.cli("run", **plain)
    after = tree(copy.path)
    same = [
        name
        for name in before
        if name.endswith((".parquet", ".onnx", "params.yaml", "data_card.md"))
    ]
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
