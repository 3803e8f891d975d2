"""A compact profile of the model on the test rows: all that later data is compared with.

What speaks of scores comes from the test rows, which the model has not seen: on those that it learnt
from it is too sure. What speaks of inputs and labels alone comes from all rows, unless these were split by
time: then the test rows are the newest, and the ones that later rows should look like.
It holds counts and sums, no row, so that the log can be watched without the training data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from scipy.special import gammaincinv, ndtri  # scipy.stats takes half a second to import

from ..data.schema import name as quoted
from ..data.schema import no_label, text
from ..data.source import EVENTS
from ..data.split import PARTS
from ..features.catalogue import inputs, load
from ..goals.gate import measure
from ..goals.value import aimed_quantile, decide
from ..modelling.export import MANIFEST, MODEL, Scorer
from ..repository import PRODUCTION, verified
from ..settings import Settings, UserError, read_json

REFERENCE = "monitoring/reference.parquet"
SCORE, LABEL = "(score)", "(label)"
ALONE = " of the test rows"
MOST_CATEGORIES = 100
MOST_KNOWN = 10_000  # rarer categories than the hundred that can still be told from new ones
SCORE_BINS = 50
LABEL_BINS = 10  # of a number; a yes or no has two
RARE = 0.01  # share of a category or of missing values, from which it is an axis of its own
PAIR_LEVELS = 4  # into which a number is cut where two columns are looked at together
PAIR_CATEGORIES = 7
MOST_ROWS = 200_000  # of which covariances are taken
BLOCKS = 8  # of consecutive test rows, which differ as windows do when nothing is wrong

Array = np.ndarray


@dataclass
class Column:
    """How the values of a column become codes: small whole numbers, in `names`' order.

    number: one below the range, the bins, one above the range, missing · category: the commonest,
    other, new, missing. `coarse` maps a code to one of few levels.
    """

    name: str
    kind: str  # number, bool, category, time or score
    edges: list[float] = field(default_factory=list)  # upper ends: a bin holds low < value <= high
    categories: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # known, but beyond the commonest
    singletons: int = 0  # categories met once: how likely a new one is (Good, 1953)
    coarse: list[int] = field(default_factory=list)
    dispersion: float = 1.0  # how much more consecutive rows differ than chance would have them
    block: float = 1.0  # rows, of which that holds
    place: list[float] = field(
        default_factory=list
    )  # of a number's codes: normal scores, missing 0
    popularity: list[int] = field(default_factory=list)  # fifth of each code: 0 the commonest

    @cached_property
    def names(self) -> list[str]:
        if self.kind == "category":
            return [*self.categories, "(other)", "(new)", "(missing)"]
        # The lower end lies a hair below the smallest value
        ends = [f"{0.0 if abs(one) < 1e-30 else one:.4g}" for one in self.edges]
        ends = [one.replace("1e+30", "∞") for one in ends]
        inner = [b if a == b else f"{a} to {b}" for a, b in pairwise(ends)]
        return [f"below {ends[0]}", *inner, f"above {ends[-1]}", "(missing)"]

    @property
    def odd(self) -> dict[str, list[int]]:
        """The codes that speak of a fault, by what is wrong."""
        last = len(self.names) - 1
        if self.kind == "category":
            return {"new": [last - 1] if self.others is not None else [], "missing": [last]}
        return {"range": [0, last - 1], "missing": [last]}

    @cached_property
    def levels(self) -> list[str]:
        """The coarse levels in words."""
        found: dict[int, list[str]] = {}
        for code, level in enumerate(self.coarse):
            found.setdefault(level, []).append(self.names[code])
        words = []
        for level in sorted(found):
            some = found[level]
            if self.kind != "category" and len(some) > 1:
                low, high = some[0].split(" to ")[0], some[-1].split(" to ")[-1]
                low, high = low.removeprefix("below "), high.removeprefix("above ")
                words.append(f"{low} to {high}")
            else:
                words.append(some[0] if len(some) == 1 else "(any other)")
        return words

    def codes(self, values: pd.Series | Array) -> Array:
        """The code of each value, as `features.catalogue.load` gives them, shape (n,), uint8."""
        if self.kind == "category":
            place = {value: code for code, value in enumerate(self.categories)}
            other, new = len(self.categories), len(self.categories) + 1
            place |= dict.fromkeys(self.others, other) | {"": new + 1}
            return pd.Series(values).map(place).fillna(new).to_numpy(np.uint8)
        known = np.asarray(values, dtype=np.float64)
        codes = np.searchsorted(self.edges, known, side="left")
        return np.where(np.isnan(known), len(self.edges) + 1, codes).astype(np.uint8)


@dataclass
class Moments:
    """Means and covariances of several axes at once, and how much blocks of rows differ in them.

    Attributes:
        axes: (column, level) of each: whether it has that coarse level, or where the level is None a
            number's normal scores; without a column just 1.
        mean: shape (axes,); covariance: shape (axes, axes); rows: of which they were taken.
        dispersion, block: as those of a column.
    """

    axes: list[tuple[str, int | None]]
    mean: Array
    covariance: Array
    rows: int
    dispersion: float = 1.0
    block: float = 1.0


@dataclass
class Profile:
    """The reference: columns, and tables of what fell into each of their codes.

    Attributes:
        labels: for a yes or no [0, 1], else upper ends of the label's bins, the last one infinite.
        tables: column -> by code and label bin, shape (codes, labels, 5): rows, sum of score, of
            label, of (label - score) squared, of loss; the score stands among the columns.
        seen: column -> rows by code, shape (codes,): of all rows that later ones should look like.
        pairs: (column, other) -> the same by coarse level of both.
        moments: what is looked at together -> means and covariances of its `axes`.
        facts: model, decision, figures, times.
    """

    columns: dict[str, Column]
    labels: list[float]
    tables: dict[str, Array]
    seen: dict[str, Array]
    pairs: dict[tuple[str, str], Array]
    moments: dict[str, Moments]
    facts: dict[str, Any]

    @property
    def quantile(self) -> float | None:
        """The share of outcomes that should lie at a score or below; None: the score is a mean."""
        return self.facts.get("quantile")

    def alone(self) -> Profile:
        """The test rows by themselves: for logs in which these come again, as a drill's do."""
        seen = {name: cells[..., 0].sum(axis=1) for name, cells in self.tables.items()}
        seen[LABEL] = self.tables[SCORE][..., 0].sum(axis=0)
        moments = {what: self.moments.get(what + ALONE, one) for what, one in self.moments.items()}
        return replace(self, seen=seen, moments=moments)

    @property
    def rows(self) -> int:
        return int(self.tables[SCORE][..., 0].sum())

    @property
    def binary(self) -> bool:
        return self.labels == [0.0, 1.0]

    def label_bins(self, y: Array) -> Array:
        """The bin of each label, shape (n,)."""
        return (y == 1).astype(np.int64) if self.binary else np.searchsorted(self.labels[:-1], y)


def loss(y: Array, score: Array, binary: bool) -> Array:
    """What a row adds to the figure that is watched: squared error of a yes or no, else absolute."""
    return (score - y) ** 2 if binary else np.abs(score - y)


def table(codes: Array, labels: Array, score: Array, y: Array, sizes: tuple[int, int]) -> Array:
    """Rows and sums by code and label bin, shape (codes, labels, 5), as `Profile.tables` has them."""
    place = codes.astype(np.int64) * sizes[1] + labels
    binary = sizes[1] == 2
    sums = (None, score, y, (y - score) ** 2, loss(y, score, binary))
    flat = [np.bincount(place, weights=one, minlength=sizes[0] * sizes[1]) for one in sums]
    return np.stack(flat, axis=1).reshape(*sizes, len(sums))


def reference(settings: Settings, root: Path) -> dict[str, Any]:
    """Write monitoring/reference.parquet from the split rows and the exported model.

    A row of it is a bin or category of a column within a bin of the label, with its rows and sums;
    or two coarse levels of two columns. How columns are cut stands in the file's metadata.

    Raises:
        UserError: when train has not run.
    """
    columns, bins = inputs(settings), settings.monitoring.reference_bins
    rows, y = _part(root / PARTS["test"], columns)
    scorer = Scorer(root / MODEL)
    manifest = read_json(root / MANIFEST)
    score = scorer.score(rows)
    decision = manifest["decision"]
    alike = [(rows, y)]
    if settings.data.split.by != "time":
        alike += [_part(root / PARTS[part], columns) for part in ("train", "valid")]
    inputs_seen = pd.concat([one for one, _ in alike], ignore_index=True)
    y_seen = np.concatenate([one for _, one in alike])
    labels = _label_edges(y_seen, settings.data.label.positive is not None)
    profile = Profile({}, labels, {}, {}, {}, {}, {})
    label_bins = profile.label_bins(y)
    profile.seen[LABEL] = np.bincount(profile.label_bins(y_seen), minlength=len(labels))
    codes, codes_seen = {}, {}
    for name, kind in [*columns.items(), (SCORE, "score")]:
        values = pd.Series(score) if kind == "score" else inputs_seen[name]
        # A score that reaches the decision means yes, and a bin does not hold its lower end
        cut = float(np.nextafter(decision, -np.inf))
        edges = [cut] if kind == "score" and profile.binary else []
        column = _column(name, kind, values, SCORE_BINS if kind == "score" else bins, edges)
        codes_seen[name] = column.codes(values)
        codes[name] = codes_seen[name] if kind == "score" else column.codes(rows[name])
        size = len(column.names)
        profile.seen[name] = seen = np.bincount(codes_seen[name], minlength=size)
        column.coarse = _coarse(column, seen)
        column.place = _place(column, seen)
        column.dispersion, column.block = _dispersion(codes_seen[name], size)
        profile.columns[name] = column
        profile.tables[name] = table(codes[name], label_bins, score, y, (size, len(labels)))
    _popularity(profile, settings, root)
    for a, b in combinations([n for n, c in profile.columns.items() if c.kind != "time"], 2):
        profile.pairs[a, b] = pair(profile.columns[a], profile.columns[b], codes[a], codes[b])
    _moments(profile, codes, codes_seen, y - score)
    decided = decide(score, decision)
    metrics = dict.fromkeys([settings.goals.metric, *settings.goals.also])
    profile.facts = {
        "model": scorer.sha256,
        "decision": decision,
        "metrics": {one: measure(one, y, score, decided) for one in metrics},
        "label_values": _label_values(settings, root) if profile.binary else [],
        "label_low": float(y_seen.min()),
        "label_high": float(y_seen.max()),
        "label_mean": float(y_seen.mean()),
        "spread": float(y.std()) or 1.0,
        "quantile": aimed_quantile(settings.goals),
        "rows_seen": len(y_seen),
        "trained_until": manifest.get("trained_until"),
    }
    _write(profile, root / REFERENCE)
    return {"rows": len(y_seen), "columns": len(profile.columns)}


def _part(path: Path, columns: dict[str, str]) -> tuple[pd.DataFrame, Array]:
    """Inputs and labels of a part of the split."""
    rows = load(path, columns)
    found = duckdb.execute("SELECT _y FROM read_parquet(?)", [str(path)])
    return rows, found.fetchnumpy()["_y"].astype(np.float64)


def pair(a: Column, b: Column, codes_a: Array, codes_b: Array) -> Array:
    """Rows by coarse level of two columns, shape (levels of a, levels of b)."""
    sizes = max(a.coarse) + 1, max(b.coarse) + 1
    place = np.asarray(a.coarse)[codes_a] * sizes[1] + np.asarray(b.coarse)[codes_b]
    return np.bincount(place, minlength=sizes[0] * sizes[1]).reshape(sizes)


def read(root: Path) -> Profile | None:
    """The reference of the model in production, else of the one just trained; None without one.

    Raises:
        UserError: when the file is not one that this version wrote.
    """
    path = verified(root, PRODUCTION) / "reference.parquet"
    path = path if path.is_file() else root / REFERENCE
    if not path.is_file():
        return None
    try:
        with duckdb.connect() as sql:
            (found,) = sql.execute(
                "SELECT value FROM parquet_kv_metadata(?) WHERE key = 'profile'", [str(path)]
            ).fetchall()
            rows = sql.execute("FROM read_parquet(?)", [str(path)]).df()
        head = json.loads(found[0])
    except (duckdb.Error, ValueError):
        raise UserError(f"{path}: not a reference that can be read; run `reference`") from None
    columns = {one["name"]: Column(**one) for one in head["columns"]}
    profile = Profile(columns, head["labels"], {}, {}, {}, {}, head["facts"])
    kind = rows["kind"]
    for name, part in rows[kind == "seen"].groupby("column", sort=False):
        profile.seen[name] = part["count"].to_numpy(np.int64)
    for name, part in rows[kind == "moment"].groupby("column", sort=False):
        one = head["moments"][name]
        cells = part["y"].to_numpy().reshape(2 * [len(one["axes"])])
        one |= {"axes": [(a, b) for a, b in one["axes"]], "mean": np.array(one["mean"])}
        profile.moments[name] = Moments(**one, covariance=cells)
    for name, part in rows[~kind.isin(["seen", "moment", "pair"])].groupby("column", sort=False):
        cells = np.zeros((len(columns[name].names), len(profile.labels), 5))
        sums = part[["count", "score", "y", "squares", "loss"]].to_numpy(np.float64)
        cells[part["bin"].to_numpy(), part["label"].to_numpy(np.int64)] = sums
        profile.tables[name] = cells
    pairs = rows[kind == "pair"]
    bins, others, counts = (pairs[one].to_numpy(np.int64) for one in ("bin", "other_bin", "count"))
    for (a, b), at in pairs.groupby(["column", "other"], sort=False).indices.items():
        cells = np.zeros((max(columns[a].coarse) + 1, max(columns[b].coarse) + 1), dtype=np.int64)
        cells[bins[at], others[at]] = counts[at]
        profile.pairs[a, b] = cells
    return profile


def _write(profile: Profile, path: Path) -> None:
    parts = []
    for name, cells in profile.tables.items():
        column = profile.columns[name]
        bins, labels = (grid.ravel() for grid in np.indices(cells.shape[:2]))
        flat = cells.reshape(-1, 5)
        part = pd.DataFrame(flat, columns=["count", "score", "y", "squares", "loss"])
        words = np.array(column.names, dtype=object)[bins]
        parts.append(
            part.assign(column=name, kind=column.kind, bin=bins, label=labels, words=words)
        )
    for (a, b), counts in profile.pairs.items():
        bins, others = (grid.ravel() for grid in np.indices(counts.shape))
        rows = {"column": a, "other": b, "kind": "pair", "bin": bins, "other_bin": others}
        parts.append(pd.DataFrame({"count": counts.ravel().astype(float), **rows}))
    for name, counts in profile.seen.items():
        rows = {"column": name, "kind": "seen", "bin": np.arange(len(counts))}
        parts.append(pd.DataFrame({"count": counts.astype(float), **rows}))
    moments = {}
    for name, one in profile.moments.items():
        bins, others = (grid.ravel() for grid in np.indices(one.covariance.shape))
        rows = {"column": name, "kind": "moment", "bin": bins, "other_bin": others}
        parts.append(pd.DataFrame({"y": one.covariance.ravel(), "count": one.rows, **rows}))
        kept = {key: value for key, value in vars(one).items() if key != "covariance"}
        moments[name] = kept | {"mean": one.mean.tolist()}
    rows = pd.concat(parts, ignore_index=True)
    rows = rows[(rows["count"] > 0) | rows["other"].isna()]
    head = {
        "moments": moments,
        "columns": [asdict(column) for column in profile.columns.values()],
        "labels": profile.labels,
        "facts": profile.facts,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    duckdb.execute(
        'COPY (SELECT "column", other, kind, bin, other_bin::INT AS other_bin, label::INT AS label, '
        "words, count::BIGINT AS count, score, y, squares, loss FROM rows) "
        f"TO {text(str(path))} (FORMAT parquet, COMPRESSION zstd, "
        "KV_METADATA {profile: " + text(json.dumps(head)) + "})"
    )


def _label_values(settings: Settings, root: Path) -> list[str]:
    """The label's values as they came in; none when there are too many to be classes."""
    label = settings.data.label.column
    found = duckdb.execute(
        f"SELECT DISTINCT CAST({quoted(label)} AS VARCHAR) FROM read_parquet(?) "
        f"WHERE {quoted(label)} IS NOT NULL ORDER BY 1 LIMIT 101",
        [str(root / EVENTS)],
    ).fetchall()
    values = [one[0] for one in found if not re.fullmatch(no_label(settings), one[0])]
    if settings.data.schema_.columns[label].type == "bool":
        values += ["0", "1"]
    return values if len(values) <= MOST_CATEGORIES else []


def _label_edges(y: Array, binary: bool) -> list[float]:
    if binary:
        return [0.0, 1.0]
    inner = np.unique(np.quantile(y, np.linspace(0, 1, LABEL_BINS + 1)[1:-1]))
    return [*inner.tolist(), float("inf")]


def _column(name: str, kind: str, values: pd.Series, bins: int, extra: Sequence[float]) -> Column:
    if kind == "category":
        counts = values[values != ""].value_counts()
        counts = counts.sort_index().sort_values(ascending=False, kind="stable")
        known = [*map(str, counts.index)]
        others = known[MOST_CATEGORIES:] if len(known) <= MOST_KNOWN else None
        singletons = int((counts == 1).sum())
        return Column(name, kind, [], known[:MOST_CATEGORIES], others, singletons)  # type: ignore[arg-type]
    known = values.to_numpy(np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return Column(name, kind, [0.0, 1.0])
    inner = np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1], method="lower")
    low, high = known.min(), known.max()
    inner = [one for one in {*inner.tolist(), *extra} if low < one < high]
    if len(np.unique(known)) <= bins:  # a bin for each value
        inner = [one for one in np.unique(known).tolist() if one < high]
    if kind == "score":  # no range of its own: a score beyond what was seen is no fault
        return Column(name, kind, [-1e30, *sorted(inner), 1e30])
    return Column(name, kind, [float(np.nextafter(low, -np.inf)), *sorted(inner), float(high)])


def _place(column: Column, counts: Array) -> list[float]:
    """Where each code of a number lies: its normal score, a missing one in the middle."""
    if column.kind in ("category", "time"):
        return []
    before = np.cumsum(counts[:-1]) - counts[:-1] / 2
    share = np.clip(before / max(1, counts[:-1].sum()), RARE / 2, 1 - RARE / 2)
    return [*ndtri(share).tolist(), 0.0]


def along(
    profile: Profile, axes: Sequence[tuple[str, int | None]], codes: Mapping[str, Array]
) -> Array:
    """Rows along axes, as `Moments` has them, shape (rows, axes)."""
    found = []
    for name, level in axes:
        if not name:
            found.append(np.ones(len(codes[SCORE])))
            continue
        column = profile.columns[name]
        levels = np.asarray(column.coarse)
        value = np.asarray(column.place) if level is None else (levels == level).astype(float)
        found.append(value[codes[name]])
    return np.stack(found, axis=1)


def _moments(
    profile: Profile, codes: Mapping[str, Array], codes_seen: Mapping[str, Array], rest: Array
) -> None:
    """What is looked at together: numbers, categories, and what outcomes leave along the numbers."""
    axes: dict[str, list[tuple[str, int | None]]] = {"numbers": [], "categories": []}
    for name, column in profile.columns.items():
        if column.kind in ("time", "score"):
            continue
        levels = np.bincount(column.coarse, weights=profile.seen[name]) / profile.seen[name].sum()
        usual = int(levels.argmax())
        seen = [code for code, share in enumerate(levels) if share >= RARE and code != usual]
        if column.kind == "category":
            axes["categories"] += [(name, code) for code in seen]
            continue
        if levels[:-1].max() < 1 - RARE:
            axes["numbers"].append((name, None))
        axes["numbers"] += [(name, code) for code in seen if code == len(levels) - 1]
    alone = profile.seen[LABEL].sum() == len(rest)
    step = 1 + int(profile.seen[LABEL].sum()) // MOST_ROWS
    codes_seen = {name: some[::step] for name, some in codes_seen.items()}
    step = 1 + len(rest) // MOST_ROWS
    codes, rest = {name: some[::step] for name, some in codes.items()}, rest[::step]
    for what, some in axes.items():
        if some:
            profile.moments[what] = _moment(some, along(profile, some, codes_seen))
            if not alone:
                profile.moments[what + ALONE] = _moment(some, along(profile, some, codes))
    both = [("", None), (SCORE, None), *axes["numbers"]]
    values = along(profile, both, codes) * rest[:, None]
    profile.moments["outcomes"] = _moment(both, values)


def _moment(axes: list[tuple[str, int | None]], values: Array) -> Moments:
    """Moments of rows; how much blocks of them differ is told by T squared, as `hotelling` has it."""
    mean, covariance = values.mean(axis=0), np.atleast_2d(np.cov(values.T))
    parts = np.array_split(values, BLOCKS)
    gap = np.stack([part.mean(axis=0) for part in parts]) - mean
    statistic = len(parts[0]) * np.einsum("bi,ij,bj->", gap, np.linalg.pinv(covariance), gap)
    usual = 2 * gammaincinv((BLOCKS - 1) * len(axes) / 2, 0.95)  # chi-squared's
    return Moments(
        axes, mean, covariance, len(values), float(max(1.0, statistic / usual)), len(parts[0])
    )


def _coarse(column: Column, counts: Array) -> list[int]:
    last = len(counts) - 1
    if column.kind == "category":
        top = min(len(column.categories), PAIR_CATEGORIES)
        level = np.minimum(np.arange(last + 1), top)
        return [*level[:-1].tolist(), top + 1]
    share = (np.cumsum(counts[:-1]) - counts[:-1] / 2) / max(1, counts[:-1].sum())
    levels = SCORE_BINS // 5 if column.kind == "score" else PAIR_LEVELS
    level = np.minimum((share * levels).astype(int), levels - 1)
    _, level = np.unique(level, return_inverse=True)
    return [*level.tolist(), int(level.max()) + 1]


def _dispersion(codes: Array, size: int) -> tuple[float, float]:
    """By which factor consecutive blocks of rows surely differ more than by chance, and their rows.

    Days differ, entities come again: a test that takes rows as independent would cry wolf.
    """
    blocks = np.array_split(codes, BLOCKS)
    counts = np.stack([np.bincount(block, minlength=size) for block in blocks]).astype(float)
    counts = counts[:, counts.sum(axis=0) >= 5 * BLOCKS]
    if counts.shape[1] < 2:
        return 1.0, len(blocks[0])
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    limit = 2 * gammaincinv(freedom / 2, 0.95)  # chi-squared's
    return float(max(1.0, statistic / limit)), len(blocks[0])


def _popularity(profile: Profile, settings: Settings, root: Path) -> None:
    """Fifths of the training rows by how common their object is: 0 the commonest, 4 the rarest."""
    name = settings.monitoring.popularity
    column = profile.columns.get(name or "")
    if column is None or column.kind != "category":
        return
    query = f"SELECT {quoted(column.name)}, count(*) FROM read_parquet(?) GROUP BY ALL"
    counts = dict(duckdb.execute(query, [str(root / PARTS["train"])]).fetchall())
    ranked = sorted(column.categories, key=lambda one: (-counts.get(one, 0), one))
    total, before, fifth = sum(counts.values()) or 1, 0, {}
    for one in ranked:
        fifth[one] = min(4, int(5 * (before + counts.get(one, 0) / 2) / total))
        before += counts.get(one, 0)
    column.popularity = [*(fifth[one] for one in column.categories), 4, 4, 4]
