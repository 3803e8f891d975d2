"""The questions: what is asked, what is refused and with which words, what each answer changes."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import copier
import pytest
import yaml

from .conftest import (
    ANSWERS_FILE,
    COMPUTED,
    COPIER_YML,
    QUESTIONS,
    REPO,
    choices,
    files,
    sums,
)

PROMPTED = {
    "project_name", "problem_type", "business_goal", "business_metric", "entity", "object",
    "costly_error", "label_source", "label_delay_days", "personal_data", "split_by",
    "prediction_mode", "parts", "ci",
}  # fmt: skip
FREE_TEXT = [
    name
    for name, spec in QUESTIONS.items()
    if spec["type"] == "str" and "choices" not in spec and name not in COMPUTED
]
LINES = [
    name for name in FREE_TEXT if name not in ("project_slug", "package_name", "data_remote_url")
]


def test_nothing_needs_trust():
    assert not COPIER_YML.keys() & {"_tasks", "_jinja_extensions", "_migrations", "_external_data"}


@pytest.mark.parametrize(
    ("problem_type", "label_source", "prediction_mode"),
    list(
        itertools.product(
            ["binary", "regression", "anomaly"], ["natural", "algorithm"], ["both", "batch"]
        )
    ),
)
def test_at_most_14_questions_are_asked(
    source, tmp_path, monkeypatch, problem_type, label_source, prediction_mode
):
    path = locals()
    names_asked = []

    def answer(questions, answers):
        name = questions[0]["name"]
        if not questions[0]["when"](answers):
            return answers
        names_asked.append(name)
        assert "default" in questions[0], f"{name} has no default"
        return {name: path.get(name, answers[name])}

    monkeypatch.setattr("copier._main.unsafe_prompt", answer)
    copier.run_copy(str(source), tmp_path / "made", quiet=True, unsafe=False)
    assert len(names_asked) <= 14
    expected = PROMPTED - ({"label_delay_days"} if label_source == "algorithm" else set())
    if (
        problem_type == "anomaly"
    ):  # what can be looked at sets the threshold, and not what errors cost
        expected = expected - {"costly_error"} | {"alert_budget"}
    assert set(names_asked) == expected
    made = yaml.safe_load((tmp_path / "made" / ANSWERS_FILE).read_text(encoding="utf-8"))
    assert (made["problem_type"], made["label_source"]) == (problem_type, label_source)


def test_every_question_has_a_default_and_says_in_one_line_what_it_changes():
    for name in QUESTIONS.keys() - COMPUTED:
        assert "default" in QUESTIONS[name], name
        question, *details = QUESTIONS[name]["help"].splitlines()
        assert question.rstrip(".").endswith("?") or "?" in question, name
        assert len(details) == 1, name
        assert details[0].startswith("  "), name


def test_what_is_not_asked_is_recorded_all_the_same(generate):
    made = yaml.safe_load((generate() / ANSWERS_FILE).read_text(encoding="utf-8"))
    recorded = {name for name in made if not name.startswith("_")}
    hidden = COMPUTED | {"cost_over_prediction", "cost_under_prediction", "alert_budget", "tracker"}
    hidden |= {"statements"}
    assert recorded == QUESTIONS.keys() - hidden


def test_no_question_is_dead(generate):
    dead = []
    for name, base, answers in sums():
        before, after = files(generate(**base)), files(generate(**answers))
        changed = {path for path in before | after if before.get(path) != after.get(path)}
        if not changed - {ANSWERS_FILE}:
            dead.append((name, answers[name]))
    assert dead == []


def test_generate_refuses_an_answer_to_no_question(generate):
    with pytest.raises(KeyError, match="licence"):
        generate(licence="MIT")
    with pytest.raises(KeyError, match="md_owner"):
        generate(md_owner="computed")


REFUSED = [
    *((name, "", "empty: write one line, such as: ") for name in LINES if name != "object"),
    *((name, "   ", "blank: write one line") for name in LINES),
    *((name, "two\nlines", "several lines: write one") for name in LINES),
    *((name, "two\u2028lines", "several lines: write one") for name in LINES),
    *((name, "a\x1b[31m", "tab or escape: write plain text") for name in LINES),
    *((name, "a\tb", "tab or escape: write plain text") for name in LINES),
    *(
        (name, text, "write it without {{, {% and {#")
        for name in LINES
        for text in ("{{ x }}", "{% x", "{# x")
    ),
    *((name, "x" * 300, "300 characters: 200 at most") for name in LINES),
    *(
        ("project_slug", text, says)
        for text, says in {
            "../x": "no command name: a-z",
            "Bad": "such as: bad",
            "a_b": "such as: a-b",
            "a--b": "such as: a-b",
            "-a": "no command name: a-z",
            "2a": "such as: model-2a",
            "é": "such as: e",
            "a\n": "no command name: a-z",
            "": "such as: my-model",
            "$(id)": "no command name: a-z",
            "'q'": "no command name: a-z",
            "🚀": "such as: my-model",
            "a" * 61: "61 characters: 60 at most",
            "test": "use another, such as: test-model",
            "numpy": "use another, such as: numpy-model",
            "import-linter": "use another",
        }.items()
    ),
    *(
        ("package_name", text, says)
        for text, says in {
            "test": "use another, such as: test_model",
            "tests": "use another",
            "src": "use another",
            "json": "use another, such as: json_model",
            "class": "use another, such as: class_model",
            "sklearn": "use another",
            "../x": "no package name: a-z",
            "a-b": "such as: a_b",
            "A": "no package name: a-z",
            "a b": "no package name: a-z",
            "a.b": "no package name: a-z",
            "a\n": "no package name: a-z",
            "": "such as: my_model",
            "a" * 31: "31 characters: 30 at most",
            "a" * 300: "300 characters: ",
        }.items()
    ),
    *(
        ("data_remote_url", text, says)
        for text, says in {
            "": "use letters, digits and",
            "a b": "use letters, digits and ._~/:@%+=- only: ../my-model-data",
            '"a"': "use letters, digits and",
            "a#b": "use letters, digits and",
            "a\nb": "use letters, digits and",
            "{{ x }}": "use letters, digits and",
            "$(id)": "use letters, digits and",
            "s3://bucket": "no folder: local takes a path, such as: ../my-model-data",
            "a" * 300: "300 characters: ",
        }.items()
    ),
    ("label_delay_days", -1, "use a number from 0 to 3650, not -1"),
    ("label_delay_days", 3651, "use a number from 0 to 3650"),
    ("label_delay_days", "soon", "invalid literal"),
    ("latency_budget_ms", 0, "use a number from 1 to 600000, not 0"),
    ("cost_false_negative", 0, "use a number from 0.001 to 1000000000, not "),
    ("cost_false_positive", -5, "use a number from 0.001 to 1000000000, not "),
    ("cost_false_negative", "nan", "use a number from 0.001 to 1000000000, not "),
    ("cost_false_negative", "inf", "use a number from 0.001 to 1000000000, not "),
    *(
        (name, ["neither"] if spec.get("multiselect") else "neither", "Invalid choice")
        for name, spec in QUESTIONS.items()
        if "choices" in spec
    ),
    ("costly_error", "under_prediction", "Invalid choice"),
]


TOGETHER = [
    ({"rollout": "ab", "parts": ["serving"]}, "add: rollout, or answer rollout: single"),
    ({"risk_class": "high", "parts": ["serving"]}, "add: governance, or risk_class: low"),
    ({"parts": ["governance"], "statements": ["use"]}, "use a mapping of blocks, such as: {use:"),
    ({"parts": ["governance"], "statements": {"uses": {}}}, "use the blocks frame, law"),
    (
        {"parts": ["governance"], "statements": {"use": {"wrong": "a\nb"}}},
        "several lines: write one",
    ),
]


@pytest.mark.parametrize(("answers", "says"), TOGETHER)
def test_answers_that_do_not_go_together_are_refused_in_a_line(source, tmp_path, answers, says):
    with pytest.raises(ValueError, match="Validation error") as refused:
        copier.run_copy(str(source), tmp_path / "made", data=answers, defaults=True, quiet=True)
    assert says in str(refused.value)
    fits(str(refused.value))


MISFITS = [
    ("s3", "gs://bucket", "begin with s3://, such as: s3://my-model-data"),
    ("s3", "s3://", "begin with s3://"),
    ("gs", "../folder", "begin with gs://"),
    ("azure", "s3://bucket", "begin with azure://"),
    ("ssh", "host/path", "begin with ssh://"),
    (
        "ssh",
        "ssh://me:secret@host/path",
        "a password is committed here: use `dvc remote modify --local`",
    ),
]


def fits(error: str) -> None:
    """In a terminal of 80 characters Copier's line is cut; what is wrong and what to write are before the cut."""
    name, _, message = error.partition("question '")[2].partition("': ")
    assert len(message) <= 78, message
    essence = re.split(r",? such as|, not ", message)[0]
    assert ": " in essence or essence.startswith(("use ", "write ")), message
    if name in PROMPTED:
        assert essence in error[:80], error
    assert "\n" not in message.strip()


def test_each_message_of_each_check_is_tried():
    """A message is a line between two tags of a macro that gives one: one without a case here fails."""
    text = (REPO / "template/answers.jinja").read_text(encoding="utf-8")
    messages = []
    checks = ("line", "within", "slug_check", "package_check", "remote_check", "statements_check")
    for name in checks:
        body = text.split("{% macro " + name + "(")[1].split("{% endmacro %}")[0]
        messages += [line for line in body.splitlines()[1:] if not line.startswith("{%")]
    assert len(messages) == 20
    # The longest of what a message says between its values
    fragments = [max(re.split(r"\{\{.*?\}\}", line), key=len).strip(" ':") for line in messages]
    tried = [says for *_, says in (*REFUSED, *MISFITS, *TOGETHER) if len(says) > 8]
    missing = [
        fragment
        for fragment in fragments
        if not any(fragment in says or says in fragment for says in tried)
    ]
    assert missing == []


@pytest.mark.parametrize(("name", "answer", "says"), REFUSED)
def test_a_refused_answer_says_why_and_writes_nothing(source, tmp_path, name, answer, says):
    target = tmp_path / "made"
    with pytest.raises((ValueError, copier.errors.CopierError)) as error:
        copier.run_copy(
            str(source), target, data={name: answer}, defaults=True, quiet=True, unsafe=False
        )
    assert says in str(error.value)
    assert "Traceback" not in str(error.value)
    if "Invalid choice" not in says and "invalid literal" not in says:
        assert name in str(error.value)
        fits(str(error.value))
    assert not target.exists() or not list(target.iterdir())


@pytest.mark.parametrize(("remote", "url", "says"), MISFITS)
def test_an_address_must_fit_its_remote(source, tmp_path, remote, url, says):
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        copier.run_copy(
            str(source), tmp_path / "made", data={"data_remote": remote, "data_remote_url": url},
            defaults=True, quiet=True, unsafe=False,
        )  # fmt: skip
    fits(str(error.value))


@pytest.mark.parametrize(
    ("name", "slug", "package"),
    [
        ("My model", "my-model", "my_model"),
        ("Größe, Øre & Straße", "grosse-ore-strasse", "grosse_ore_strasse"),
        ("Łódź e\u0301te\u0301 Æon", "lodz-ete-aeon", "lodz_ete_aeon"),
        ("Ann's model", "anns-model", "anns_model"),
        ("🚀", "my-model", "my_model"),
        ("Прогноз", "my-model", "my_model"),
        ("3D printing", "model-3d-printing", "model_3d_printing"),
        ("JSON", "json-model", "json_model"),
        ("scikit learn", "scikit-learn-model", "scikit_learn_model"),
        ("../../etc", "etc", "etc"),
        ("x" * 200, "x" * 50, "x" * 30),
    ],
)
def test_a_project_s_name_becomes_a_command_and_a_package(generate, name, slug, package):
    root = generate(project_name=name)
    made = yaml.safe_load((root / ANSWERS_FILE).read_text(encoding="utf-8"))
    assert (made["project_slug"], made["package_name"]) == (slug, package)
    assert (root / "src" / package / "__main__.py").is_file()


def test_names_of_python_and_of_dependencies_are_taken(source, generate):
    import keyword
    import tomllib

    text = (source / "template/answers.jinja").read_text(encoding="utf-8")
    taken = set(text.split("{% set taken %}")[1].split())
    project = tomllib.loads((generate() / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"]
    requirements = project["project"]["dependencies"] + groups["dev"]
    names = {
        re.split(r"[<>=\[;]", requirement)[0].replace("-", "_").replace(".", "_")
        for requirement in requirements
    }
    names |= sys.stdlib_module_names | set(keyword.kwlist)
    assert {name for name in names if re.fullmatch("[a-z][a-z0-9_]*", name)} <= taken


def test_a_choice_of_costs_sets_them(generate):
    def costs(**answers):
        text = (generate(**answers) / "params.yaml").read_text(encoding="utf-8")
        return yaml.safe_load(text)["goals"]["costs"]

    pairs = {
        "false_negative": (1, 5), "false_positive": (5, 1), "equal": (1, 1),
    }  # fmt: skip
    for answer in choices("costly_error"):
        made = costs(costly_error=answer)
        assert (made["false_positive"], made["false_negative"]) == pairs[answer]
    pairs = {"under_prediction": (1, 3), "over_prediction": (3, 1), "equal": (1, 1)}
    for answer in choices("costly_error", "regression"):
        made = costs(problem_type="regression", costly_error=answer)
        assert (made["over_prediction"], made["under_prediction"]) == pairs[answer]


def test_the_table_of_questions_is_up_to_date():
    script = REPO / "scripts/questions.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
