"""The presets: complete, rendered as they say, and listed."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from .conftest import ANSWERS_FILE, COSTLY_ERROR, REPO, files, presets
from .test_questions import PROMPTED

PAGE = (REPO / "docs/presets.md").read_text(encoding="utf-8")


def test_there_are_eight_or_more_and_the_page_lists_each():
    assert len(presets()) >= 8
    assert re.findall(r"^\| `([\w-]+)` \|", PAGE, re.M) == [*presets()]
    assert "docs/presets.md" in (REPO / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", presets())
def test_a_preset_settles_what_an_expert_would_be_asked(generate, name):
    answers = presets()[name]
    costly = COSTLY_ERROR.get(answers["problem_type"])
    # A team's host is not known; parts follow from the roll-out; errors that cost alike are not asked for
    open_ = {"ci", "parts"} | (set() if costly else {"costly_error"})
    assert PROMPTED - open_ <= answers.keys()
    root = generate(**answers)
    recorded = yaml.safe_load((root / ANSWERS_FILE).read_text(encoding="utf-8"))
    for key, value in answers.items():
        assert recorded[key] == value, f"{key} is not asked with these answers"
    online = answers["prediction_mode"] != "batch"
    assert ("rollout" in answers, "latency_budget_ms" in answers) == (online, online)
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    costs = params["goals"]["costs"]
    answered_costs = {
        k.removeprefix("cost_"): v for k, v in answers.items() if k.startswith("cost_")
    }
    assert {k: costs[k] for k in answered_costs} == answered_costs
    assert not costly or answered_costs[answers["costly_error"]] == max(answered_costs.values())
    explanation = (REPO / f"presets/{name}.yml").read_text(encoding="utf-8")
    assert explanation.count("# ") >= 4  # it says why


def test_a_preset_by_the_command_of_its_page(source, generate, tmp_path):
    command = re.search(r"uvx (copier copy --data-file \S+)", PAGE)
    arguments = command[1].replace("presets/", f"{REPO}/presets/").split()
    done = subprocess.run(
        [sys.executable, "-m", *arguments, "--defaults", str(source), str(tmp_path / "made")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "made") == files(generate(**presets()["fraud"]))
