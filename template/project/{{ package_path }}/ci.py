"""What continuous integration does beyond the commands of every day: is the remote in reach, and propose.

A proposal is a branch with one commit, and a pull request where the provider can be asked for one.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from . import paths
from .parts import part_module
from .repository import default_remote, dvc, git
from .settings import UserError, load, read_json

PAGES = (paths.MODEL_CARD, paths.COMPARE_PAGE)  # of a pull request, where they are there
COPIER = ["uvx", "--quiet", "--from", "copier>=9.19,<10", "copier"]
KEY = "REMOTE_KEY"  # the text of a key file, for the remotes that want a file
KEY_OPTION = {"gs": "credentialpath", "ssh": "keyfile"}
TIMEOUT = 60  # seconds that a remote may take to answer
# What `dvc status --cloud` calls files that the remote has not: they are on this machine, or not even there
NOT_ON_REMOTE = {"new", "missing"}
TOKEN = "PROPOSE_TOKEN"


@dataclass(frozen=True)
class Provider:
    """One provider, as its own environment variables name things."""

    name: str
    sign: str  # the variable that says that it runs here
    user: str  # whose password the token is
    address: str  # to push to
    base: str  # the branch that is proposed to
    requests: str  # its list of pull requests
    keys: tuple[str, str, str, str]  # of a request: branch, base, title, body


_GITHUB = ("head", "base", "title", "body")
PROVIDERS = (
    Provider(
        "GitHub", "GITHUB_ACTIONS", "x-access-token", "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}",
        "GITHUB_REF_NAME", "{GITHUB_API_URL}/repos/{GITHUB_REPOSITORY}/pulls", _GITHUB,
    ),
    Provider(
        "GitLab", "GITLAB_CI", "oauth2", "{CI_PROJECT_URL}.git", "CI_DEFAULT_BRANCH",
        "{CI_API_V4_URL}/projects/{CI_PROJECT_ID}/merge_requests",
        ("source_branch", "target_branch", "title", "description"),
    ),
    Provider(
        "CircleCI", "CIRCLECI", "x-access-token",
        "{GITHUB_SERVER_URL}/{CIRCLE_PROJECT_USERNAME}/{CIRCLE_PROJECT_REPONAME}", "CIRCLE_BRANCH",
        "{GITHUB_API_URL}/repos/{CIRCLE_PROJECT_USERNAME}/{CIRCLE_PROJECT_REPONAME}/pulls", _GITHUB,
    ),
)  # fmt: skip
# What GitHub's own runners set, for the others that work on its repositories
GITHUB = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_API_URL": "https://api.github.com"}


def remote(root: Path) -> str:
    """The address of DVC's remote, once it has answered; takes its key from REMOTE_KEY first.

    Raises:
        UserError: when it is not there, cannot be reached, says no, or lacks what `dvc pull` would
            bring; with what to do.
    """
    hint = "see Continuous integration in README.md"
    name, url = default_remote(root)
    if not name:
        raise UserError(f".dvc/config names no remote: `dvc remote add --default`; {hint}")
    kind = url.partition("://")[0] if "://" in url else ""
    if os.environ.get(KEY) and kind in KEY_OPTION:
        _keep_key(root, name, KEY_OPTION[kind])
    described = f"the DVC remote {name!r}, {url},"
    if not kind and not Path(url).is_dir():
        raise UserError(
            f"{described} is a folder that is not on this machine: `dvc push` makes it; a runner needs "
            f"a remote that it can reach, {hint}"
        )
    try:
        # What never answers must not keep the job
        missing = json.loads(dvc(root, "status", "--cloud", "--json", timeout=TIMEOUT))
    except subprocess.TimeoutExpired:
        raise UserError(f"{described} did not answer in {TIMEOUT} seconds; {hint}") from None
    except UserError as error:
        if "is not installed" in str(error):
            raise
        raise UserError(f"{described} cannot be used: {error!s:.200}; {hint}") from None
    lacking = sorted(name for name, state in missing.items() if state in NOT_ON_REMOTE)
    if lacking:
        raise UserError(
            f"{described} lacks {len(lacking):,} of the files that git names, such as {lacking[0]}: `dvc push` "
            f"from where they are; {hint}"
        )
    return url


def _keep_key(root: Path, name: str, option: str) -> None:
    path = root / paths.DVC_SCRATCH / "remote_key"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(os.environ[KEY].strip() + "\n", encoding="utf-8", newline="\n")
    dvc(root, "remote", "modify", "--local", name, option, str(path))


def propose_model(root: Path, push: Callable[[], Any]) -> str:
    """Propose what `retrain` left, if it trained a model that was not there before.

    Args:
        push: brings data and models to DVC's remote.

    Returns:
        what was done, in a sentence.
    """
    if not git(root, "status", "--porcelain", "--", paths.RETRAIN):
        return "nothing was trained: there is nothing to propose"
    if not git(root, "status", "--porcelain", "--", paths.PIPELINE_LOCK, paths.TRAINED):
        return "the same model came of it: there is nothing to propose"
    retraining = read_json(root / paths.RETRAIN)
    if (bill := part_module("governance.bom")) and (root / paths.MODEL).is_file():
        bill.write_bom(load(root / paths.SETTINGS_FILE), root)
    push()
    title = f"Retrain: {'promoted' if retraining['promote'] else 'not promoted'}"
    texts = [(root / name).read_text(encoding="utf-8") for name in PAGES if (root / name).is_file()]
    git(root, "add", "--update", "--", ".")
    git(root, "add", "--", paths.PIPELINE_LOCK, paths.TRAINED, paths.REPORTS)
    branch = f"retrain-{re.sub(r'[^0-9T]', '', retraining['at'][:19])}"
    return _propose(root, branch, title, "\n\n".join([f"{retraining['why']}.", *texts]))


def propose_template(root: Path) -> str:
    """Propose the newest version of the template, with its conflicts listed.

    All of this module is read before the update, which may leave conflicts in the package too.

    Raises:
        UserError: when Copier refuses, or the token may not change workflows.
    """
    if _provider():  # `uv sync` may have written the lock file anew, and Copier wants a clean tree
        if git(root, "ls-files", "uv.lock"):
            git(root, "checkout", "--", "uv.lock")
        else:
            (root / "uv.lock").unlink(missing_ok=True)
    check = _call(root, [*COPIER, "check-update", "--quiet"])
    old = _version(root)
    if check.returncode == 0:
        return f"the template is up to date: {old}"
    if check.returncode != 2:  # 2: there is a newer one
        raise UserError(f"copier: {_last_line(check)}")
    update = _call(root, [*COPIER, "update", "--quiet", "--defaults", "--skip-answered"])
    if update.returncode:
        raise UserError(f"copier: {_last_line(update)}")
    new = _version(root)
    # Both are listed before `git add`, which forgets what was a conflict
    conflicts = git(root, "diff", "--name-only", "--diff-filter=U").splitlines()
    conflicts += git(root, "ls-files", "--others", "--exclude-standard", "*.rej").splitlines()
    git(root, "add", "--all", "--", ".")
    provider, own_token = _provider(), os.environ.get(TOKEN)
    touched = git(root, "diff", "--cached", "--name-only", "HEAD", "--", ".github/workflows")
    if provider and provider.name == "GitHub" and touched and not own_token:
        raise UserError(
            f"{new} changes workflows, which only a token of your own may: set the secret {TOKEN}, or "
            f"run `uvx copier update` yourself"
        )
    lines = [f"From {old} to {new}. docs/design and params.yaml merge line by line."]
    if conflicts:
        marks = "between the marks <<<<<<< and >>>>>>> or from the .rej file"
        lines += ["", f"To mend by hand, {marks}:", "", *(f"- `{name}`" for name in conflicts)]
    title = f"Update from the template: {old} to {new}"
    return _propose(root, f"template/{new}", title, "\n".join(lines))


def _propose(root: Path, branch: str, title: str, body: str) -> str:
    """Commit what is staged on a branch, push it, and ask for a pull request.

    Without a provider, on somebody's machine, the branch goes to `origin` and nobody is asked.
    """
    provider = _provider()
    address, environment, token = "origin", {}, ""
    if provider:
        address = provider.address.format_map({**GITHUB, **os.environ})
        token = os.environ.get(TOKEN) or os.environ.get("GITHUB_TOKEN", "")
        if not token:
            raise UserError(f"{TOKEN} is not set: see Continuous integration in README.md")
        secret = base64.b64encode(f"{provider.user}:{token}".encode()).decode()
        count = int(os.environ.get("GIT_CONFIG_COUNT", 0))
        environment = {  # not on the command line, where others could read it
            "GIT_CONFIG_COUNT": str(count + 1),
            f"GIT_CONFIG_KEY_{count}": f"http.{address}.extraHeader",
            f"GIT_CONFIG_VALUE_{count}": f"Authorization: Basic {secret}",
        }
    if _call(root, ["git", "ls-remote", "--exit-code", address, f"refs/heads/{branch}"], environment).returncode == 0:  # fmt: skip
        return f"{branch} is there already: a proposal that is open is left alone"
    git(root, "switch", "--create", branch)
    identity = ["-c", "user.name=ci", "-c", "user.email=ci@localhost"]
    git(root, *identity, "commit", "--quiet", "--no-verify", "--message", title)
    pushed = _call(root, ["git", "push", "--quiet", address, f"HEAD:refs/heads/{branch}"], environment)  # fmt: skip
    if pushed.returncode:
        raise UserError(f"{branch} could not be pushed to {address}: {_last_line(pushed)}")
    if not provider:
        return f"{branch} is pushed: open a pull request"
    _open_pull_request(provider, token, (branch, os.environ[provider.base], title, body[:60_000]))
    return f"{branch} is proposed: {title}"


def _open_pull_request(provider: Provider, token: str, values: tuple[str, str, str, str]) -> None:
    address = provider.requests.format_map({**GITHUB, **os.environ})
    content = json.dumps(dict(zip(provider.keys, values, strict=True))).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(address, content, headers)
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except HTTPError as error:
        reason = error.read(300).decode(errors="replace")
        raise UserError(
            f"{values[0]} is pushed, but {provider.name} opened no pull request ({error.code}: {reason}); "
            f"may {TOKEN} do so? See Continuous integration in README.md"
        ) from None
    except URLError as error:
        raise UserError(f"{values[0]} is pushed, but {address}: {error.reason}") from None


def _provider() -> Provider | None:
    return next((provider for provider in PROVIDERS if os.environ.get(provider.sign)), None)


def _version(root: Path) -> str:
    answers = (root / paths.TEMPLATE_ANSWERS).read_text(encoding="utf-8")
    recorded = re.search(r"(?m)^_commit: (.+)$", answers)
    return recorded[1].strip("'\"") if recorded else "unknown"


def _call(
    root: Path, command: list[str], environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, cwd=root, env={**os.environ, **(environment or {})}, capture_output=True,
            text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"{command[0]}: {error.strerror}; is it installed?") from None


def _last_line(process: subprocess.CompletedProcess[str]) -> str:
    lines = (process.stderr or process.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit code {process.returncode}"
