"""Made-up events to start with: what people did with what they were shown, and what came of it.

They behave like real ones where it hurts: labels come late, values are missing for a reason, some
rows are sent twice or are plainly wrong, and the world drifts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..problem.data import LIST_ROWS, outcome, planted

Array = np.ndarray
END, DAYS = np.datetime64("2026-07-04T00:00:00", "ms"), 180
OBJECTS = 400
RESENT = 0.01
CHANNELS = ["email", "push", "search", "social", "web"]
DEVICES = ["desktop", "phone", "tablet"]
GENDERS = ["f", "m", "x"]
PLANS = ["free", "basic", "plus", "pro"]
REGIONS = ["centre", "east", "north", "south", "west"]
CATEGORIES = ["books", "games", "garden", "home", "music", "sports", "toys", "travel"]


def make(rows: int, seed: int, delay_days: float) -> pd.DataFrame:
    """Draw events, in the order of their time.

    Args:
        rows: how many, those that are sent twice included.
        seed: same seed, same events.
        delay_days: after this, and up to half as long again, the label is known.

    Returns:
        the columns of the default `data.schema.columns`, 100,000 rows in about a second.
    """
    rng = np.random.default_rng(seed)
    resent = int(RESENT * rows) if LIST_ROWS == 1 else 0
    n_moments = -(-(rows - resent) // LIST_ROWS)
    n = n_moments * LIST_ROWS

    def shared(values: Array) -> Array:
        """What was drawn for each moment, for its rows."""
        return np.repeat(values, LIST_ROWS, axis=0)

    progress = shared(np.sort(rng.random(n_moments)))  # 0 at the first day, 1 at the last
    days = max(DAYS, round(24 * delay_days))  # long enough to have labels in every part of a split
    times = END - ((1 - progress) * days * 86_400_000).astype("timedelta64[ms]")

    n_people = max(20, n // 6)
    person = shared(rng.integers(0, n_people, n_moments))
    age = np.clip(rng.normal(42, 15, n_people), 18, 95).round()[person]
    plan = rng.choice(4, n_people, p=[0.4, 0.3, 0.2, 0.1])[person]
    region = rng.integers(0, len(REGIONS), n_people)[person]
    gender = rng.choice(3, n_people, p=[0.49, 0.49, 0.02])[person]
    income = np.exp(rng.normal(10.3, 0.45, n_people) + 0.15 * rng.random(n_people))[person]
    joined = rng.exponential(500, n_people)[person]
    tenure = (joined + progress * DAYS).round()

    draws = rng.zipf(1.4, 4 * n)
    item = draws[draws <= OBJECTS][:n] - 1
    item = np.append(item, rng.integers(0, OBJECTS, n - len(item)))
    if LIST_ROWS > 1:
        item = _distinct_items(progress[::LIST_ROWS], rng)
    category = rng.integers(0, len(CATEGORIES), OBJECTS)[item]
    # Prices rise over the half-year: a drift of the input
    price = np.exp(rng.normal(3.2, 0.6, OBJECTS))[item] * (1 + 0.15 * progress)
    rating = np.clip(rng.normal(3.8, 0.7, OBJECTS), 1, 5).round(1)[item]

    views = rng.poisson(0.8 + 1.2 * (rng.random(n_people)[person] < 0.3), n)
    days_since = np.where(views > 0, rng.exponential(12, n).round(1), np.nan)
    # Push takes over from e-mail: a drift of the mix
    channel = shared(_draw(rng, np.linspace([4, 1, 2, 1, 3], [1, 4, 2, 1, 3], n_moments)))
    device = shared(_draw(rng, np.broadcast_to([3.0, 6.0, 1.0], (n_moments, 3))))
    basket = shared(rng.poisson(1.5, n_moments).astype(np.float64))

    hour = (times - times.astype("datetime64[D]")).astype(np.float64) / 3_600_000
    weekend = ((times.astype("datetime64[D]").astype(np.int64) + 3) % 7) >= 5
    signal = (
        0.5 * np.tanh((np.log1p(tenure) - 5.8) / 1.2)
        - 0.7 * (np.log(price) - 3.2) * np.array([1.5, 1.0, 0.6, 0.2])[plan]
        + 0.55 * np.log1p(views)
        + 0.5 * np.where(views > 0, np.exp(-np.nan_to_num(days_since) / 8), 0)
        + 0.35 * np.where(channel == 1, np.where(device == 1, 1.0, -1.2), 0)  # push: phones only
        + 0.3 * np.where(channel == 2, 1.0, 0)
        + 0.35 * np.cos((age - 40) / 9)
        + np.array([0.4, -0.3, 0.0, 0.2, -0.4])[region] * np.where(category % 2, 1.0, -0.5)
        + np.array([0.5, 0.2, -0.4, -0.1, 0.3, 0.0, -0.3, -0.2])[category]
        + 0.25 * (rating - 3.8)
        + 0.2 * np.minimum(basket, 3)
        + 0.25 * np.where(weekend, 1.0, 0.0) * np.where(hour > 12, 1.0, -0.5)
        + 0.1 * (np.log(income) - 10.3)
        - 0.12 * progress  # and the label drifts as well
    )
    covariates = {"category": category, "channel": channel, "progress": progress, "item": item}
    covariates |= {"price": _standardized(np.log(price)), "tenure": _standardized(np.log1p(tenure))}
    outcomes = outcome(_standardized(signal), covariates, rng)
    known_at = times + (delay_days * (1 + 0.5 * rng.random(n) ** 4) * 86_400_000).astype(
        "timedelta64[ms]"
    )

    events = pd.DataFrame(
        {
            "context_basket_size": np.where(rng.random(n) < 0.02, np.nan, basket),
            "context_channel": _category(CHANNELS, channel),
            "context_device": _category(DEVICES, device, rng.random(n) < 0.01),
            # Not everybody says it, the old less often than the young
            "entity_age": np.where(rng.random(n) < 0.04 + 0.1 * (age > 60), np.nan, age),
            "entity_email": _category([f"person{i}@mail.example" for i in range(n_people)], person),
            "entity_gender": _category(GENDERS, gender, rng.random(n) < 0.05),
            "entity_id": _category([f"p{i:06}" for i in range(n_people)], person),
            # Missing because of what it is: the rich keep it to themselves
            "entity_income": np.where(
                rng.random(n) < 0.5 * (income > 50_000), np.nan, income.round(-1)
            ),
            "entity_plan": _category(PLANS, plan),
            "entity_region": _category(REGIONS, region),
            "entity_tenure_days": tenure,
            "event_id": _category([f"e{i:08}" for i in range(n)], np.arange(n)),
            "event_time": times,
            "label": pd.Series(outcomes.pop("label")).mask(rng.random(n) < 0.02),
            "label_time": known_at,
            "object_category": _category(CATEGORIES, category),
            "object_id": _category([f"o{i:04}" for i in range(OBJECTS)], item),
            "object_price": price.round(2),
            "object_rating": np.where(item % 13 == 5, np.nan, rating),  # new ones have none yet
            "pair_days_since_last": days_since,  # never seen before: nothing to count from
            "pair_past_views": views.astype(np.float64),
            **outcomes,
        }
    )
    events = planted(events, rng)
    _corrupt(events, rng)
    return _with_resent(events, rng.choice(n, resent, replace=False), rng)


def _standardized(values: Array) -> Array:
    return (values - values.mean()) / values.std()


def _distinct_items(progress: Array, rng: np.random.Generator) -> Array:
    """Items that lists of `LIST_ROWS` show, none twice: common ones more often, and a few come later; shape (rows,)."""
    lists = len(progress)
    weight = 1 / np.sqrt(np.arange(OBJECTS) + 5.0)
    start = np.where(np.arange(OBJECTS) % 10 == 3, np.linspace(0, 1, OBJECTS), 0.0)
    keys = rng.random((lists, OBJECTS)) ** (
        1 / weight
    )  # weighted draws (Efraimidis and Spirakis, 2006)
    keys[progress[:, None] < start] = -1.0
    return np.argpartition(-keys, LIST_ROWS, axis=1)[:, :LIST_ROWS].ravel()


def _category(names: list[str], positions: Array, missing: Array | None = None) -> pd.Categorical:
    codes = positions if missing is None else np.where(missing, -1, positions)
    return pd.Categorical.from_codes(codes, names)


def _draw(rng: np.random.Generator, weights: Array) -> Array:
    """One of k places in each row, by weights of shape (n, k)."""
    edges = np.cumsum(weights, axis=1)
    return (edges < (rng.random(len(weights)) * edges[:, -1])[:, None]).sum(axis=1)


def _corrupt(events: pd.DataFrame, rng: np.random.Generator) -> None:
    """Make three rows in a thousand wrong, so that the door has something to refuse."""
    wrong = rng.choice(len(events), 3 * len(events) // 1000, replace=False)
    parts = np.array_split(wrong, 4)
    events["context_channel"] = events["context_channel"].cat.add_categories("pigeon")
    for column, value, rows in zip(
        ("entity_age", "object_price", "context_channel", "object_id"),
        (999.0, -1.0, "pigeon", None),
        parts,
        strict=True,
    ):
        events.loc[rows, column] = value


def _with_resent(events: pd.DataFrame, rows: Array, rng: np.random.Generator) -> pd.DataFrame:
    """Put copies behind some rows: a fifth have the same id, the others a new one and tiny changes."""
    copies = events.iloc[rows].copy()
    new_id = rng.random(len(rows)) > 0.2
    renamed = np.where(new_id, copies["event_id"].astype(str) + "r", copies["event_id"].astype(str))
    copies["event_id"] = renamed
    copies["entity_income"] *= np.where(new_id, 1 + 1e-7, 1.0)
    copies["event_time"] += pd.to_timedelta(np.where(new_id, 1, 0), unit="s")
    combined = pd.concat([events.astype({"event_id": str}), copies])
    return combined.sort_values("event_time", kind="stable", ignore_index=True)
