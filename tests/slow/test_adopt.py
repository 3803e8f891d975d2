"""`adopt` on a file as people have them, then `run`: a model trained on their rows."""

from __future__ import annotations

import csv
import json
import math
import random
from datetime import date, timedelta
from pathlib import Path

import pytest

from .test_project import Copy

HEADER = ["Customer ID", "signup date", "Âge (années)", "Plan", "plan", "always", "never", "Spend €",
          "last-seen", "e-mail", "City; town", "churned"]  # fmt: skip


def write(file: Path, labels: list[str], rows: int = 4000) -> Path:
    """A CSV with spaces, unicode and duplicates by case in its header, a constant and an all-missing
    column, dates in several formats, quotes and line breaks in values, and the label given."""
    rng = random.Random(5)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(HEADER)
        for row in range(rows):
            day, month = rng.randint(1, 28), rng.randint(1, 9)
            age, spend = rng.randint(18, 90), round(rng.expovariate(0.02), 2)
            plan = rng.choice(["free", "basic", "pro"])
            dates = [
                f"2026-{month:02}-{day:02}",
                f"{day:02}/{month:02}/2026",
                f"{day:02}.{month:02}.2026",
            ]
            pull = 1.5 * (plan == "free") + 0.04 * (age - 50) - 0.02 * spend
            index = min(
                len(labels) - 1,
                int(rng.random() < 1 / (1 + math.exp(-pull)))
                + (rng.random() < 0.1 and len(labels) > 2),
            )
            writer.writerow(
                [f"c{row // 2:05}", f"2026-{month:02}-{day:02}", age if rng.random() > 0.1 else "", plan,
                 rng.choice("abcdef"), "same", "", spend, rng.choice(dates), f"c{row // 2}@mail.example",
                 rng.choice(['Paris "centre"', "Lyon, Rhône", "東京", "New\nYork"]), labels[index]]
            )  # fmt: skip
    return file


def number(file: Path, rows: int = 3000) -> Path:
    rng = random.Random(6)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, delimiter=";")
        writer.writerow(["Rooms", "rooms", "District name", "Built", "Price"])
        for _ in range(rows):
            rooms, district = rng.randint(1, 7), rng.choice(["north", "south", "east"])
            built = rng.randint(1950, 2020)
            price = 30 * rooms + 2 * (built - 1950) + 40 * (district == "north") + rng.gauss(0, 15)
            writer.writerow([rooms, rng.random(), district, built, round(price, 1)])
    return file


def faults(file: Path, rows: int = 6000) -> Path:
    """A CSV of machines, of which one in 40 has a fault; people looked at half of the rows."""
    rng = random.Random(8)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["Machine", "Vibration", "Temp °C", "Line", "Fault"])
        for row in range(rows):
            is_odd, vibration = rng.random() < 0.025, rng.gauss(1, 0.1)
            if is_odd:  # usual by each column, but the machine does not get hot as it shakes
                vibration = 1 + rng.choice([-1, 1]) * rng.uniform(0.08, 0.2)
            heat = 60 + (-40 if is_odd else 40) * (vibration - 1) + rng.gauss(0, 1)
            answer = ("fault" if is_odd else "ok") if rng.random() < 0.5 else ""
            writer.writerow(
                [f"m{row}", round(vibration, 3), round(heat, 1), rng.choice("ABC"), answer]
            )
    return file


def searches(file: Path, lists: int = 2500) -> Path:
    """A CSV of results as they were shown, the best rated first, one list in five shuffled; some want what is cheap,
    others what is dear."""
    rng = random.Random(9)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["Search ID", "When", "Who", "SKU", "Department", "Price", "Stars", "Slot", "Shuffled", "Clicks"])  # fmt: skip
        for key in range(lists):
            items = [(rng.randrange(80), rng.gauss(4, 0.5)) for _ in range(6)]
            is_shuffled, who = rng.random() < 0.2, rng.choice(["student", "manager"])
            items.sort(key=lambda item: rng.random() if is_shuffled else -item[1])
            when = f"2026-0{1 + key * 8 // lists}-{1 + key % 28:02}"
            for slot, (item, stars) in enumerate(items, start=1):
                price = 5 + item % 40
                dislike = (price / 5 - 4) * (1 if who == "student" else -1)
                is_wanted = rng.random() < 1 / (1 + math.exp(dislike))
                clicks = int(is_wanted and rng.random() < 1 / slot)
                writer.writerow([f"q{key}", when, who, f"s{item}", rng.choice(["hats", "bags"]), price,
                                 f"{stars:.1f}", slot, int(is_shuffled), clicks])  # fmt: skip
    return file


def sales(file: Path, weeks: int = 150) -> Path:
    """A CSV of what shops sold of two products in each week, of which no column alone tells series apart."""
    rng = random.Random(11)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["Week", "Shop", "Product", "District", "Sold"])
        for shop in range(25):
            for product in ("bread", "tea"):
                level, course = rng.uniform(20, 300), rng.random()
                for week in range(weeks):
                    day = date(2022, 1, 3) + timedelta(weeks=week)
                    season = 1 + 0.3 * math.sin(2 * math.pi * (week / 52 + course))
                    sold = round(level * season * math.exp(rng.gauss(0, 0.1)))
                    writer.writerow([f"{day:%d.%m.%Y}", f"shop {shop}", product, shop % 4, sold])
    return file


@pytest.fixture
def copy(ran, tmp_path) -> Copy:
    return Copy(ran, tmp_path / "my-model")


def test_their_file_trains_a_model(copy, problem_type, tmp_path):
    their_own = {"binary": ["0", "1"], "multiclass": ["stays", "leaves", "moves, abroad"]}
    if labels := their_own.get(problem_type):
        arguments = [str(write(tmp_path / "their file.csv", labels)), "--label", "churned",
                 "--time", "signup date", "--group", "Customer ID"]  # fmt: skip
    elif problem_type == "anomaly":
        file = faults(tmp_path / "faults.csv")
        arguments = [str(file), "--label", "Fault", "--positive", "fault"]
    elif problem_type == "ranking":
        file = searches(tmp_path / "searches.csv")
        arguments = [str(file), "--label", "Clicks", "--time", "When"]
    elif problem_type == "forecasting":
        arguments = [str(sales(tmp_path / "sales.csv")), "--label", "Sold", "--time", "Week"]
    else:
        arguments = [str(number(tmp_path / "prices.csv")), "--label", "Price"]
    comments = copy.read("params.yaml").count("#")
    output = copy.cli("adopt", *arguments).stdout
    assert copy.read("params.yaml").count("#") >= comments - 40  # the sample's own lines may go
    assert "[2.10]" in copy.read("params.yaml")
    if labels:
        for column_name in ("always", "never", "e_mail"):
            assert column_name in output
    copy.cli("run")
    report = json.loads(copy.read("reports/metrics.json"))
    assert report["baseline"]["low"] > 0
    collected = json.loads(copy.read("reports/collect.json"))
    assert collected["rows_kept"] >= 0.99 * collected["rows_in"]
    if (
        problem_type == "forecasting"
    ):  # on their paths, which are shorter than a season, and their levels
        for name in ("level-shift", "changed-season", "dead-feed"):
            assert " fired in window " in copy.cli("drill", name).stdout
    manifest = json.loads(copy.read("models/manifest.json"))
    names = {column["name"] for column in manifest["inputs"]}
    of_problem = {
        "anomaly": {"vibration", "temp", "line"},
        "forecasting": {"history", "horizon", "product"},
        "ranking": {"price", "stars", "department"},
        "regression": {"rooms", "district_name", "built"},
    }
    expected = of_problem.get(problem_type, {"plan", "spend"})
    for name in expected:
        assert any(input_name.startswith(name) for input_name in names), names
    labels_and_ids = {"customer_id", "e_mail", "always", "never", "churned", "fault", "clicks"}
    assert not names & {*labels_and_ids, "search_id", "slot", "shuffled"}
    assert problem_type == "ranking" or "price" not in names
    if problem_type == "multiclass":
        assert manifest["label_values"] == sorted(labels)
        assert [class_row["class"] for class_row in report["classes"]] == sorted(labels)
    output = copy.call("uv", "run", "pytest", "-q", "-x", "-n", "0").stdout
    # They ran on their rows, not on the sample
    assert "whether your test rows are enough" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv", "--label", "churned"], "nowhere.csv"),
        (["FILE", "--label", "churn"], "churned"),
        (["FILE", "--label", "churned", "--time", "when"], "when"),
    ],
)
def test_what_cannot_be_adopted_changes_nothing(copy, tmp_path, arguments, message):
    file = write(tmp_path / "their.csv", ["0", "1"], rows=200)
    before = copy.read("params.yaml")
    error = copy.cli(
        "adopt", *[str(file) if argument == "FILE" else argument for argument in arguments], code=2
    ).stderr
    assert message in error
    assert error.count("\n") == 1
    assert copy.read("params.yaml") == before


@pytest.mark.two_types
def test_a_label_of_the_wrong_kind_is_refused_with_a_hint(copy, problem_type, tmp_path):
    file = write(tmp_path / "their.csv", ["no", "maybe", "yes"], rows=600)
    if problem_type == "multiclass":  # each value is a class; none of them is the yes
        error = copy.cli(
            "adopt", str(file), "--label", "churned", "--positive", "yes", code=2
        ).stderr
        assert "leave it out" in error
        assert error.count("\n") == 1
        assert "3 classes of churned" in copy.cli("adopt", str(file), "--label", "churned").stdout
        return
    error = copy.cli("adopt", str(file), "--label", "churned", code=2).stderr
    assert error.count("\n") == 1
    is_number = problem_type in ("forecasting", "ranking", "regression")
    assert ("number" if is_number else "--positive") in error
    if not is_number:
        copy.cli("adopt", str(file), "--label", "churned", "--positive", "yes")
