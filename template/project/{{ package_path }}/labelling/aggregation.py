"""Of several votes on a row its label: by majority, by Dawid and Skene, with a model's scores; of numbers the median."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd

from .. import problem
from ..data.label import JoinVotes
from ..data.schema import has_label, name, no_label
from ..paths import OUT_OF_FOLD, VOTES
from ..settings import Settings, UserError
from .rows import certain_labels, slice_columns
from .votes import Vote, current, gold, moment, read_lines, spelling

ROUNDS, TOLERANCE = 200, 1e-5  # of EM at most, and the change of a chance at which it stops
SMOOTHING = 1.0  # votes that each labeller is taken to have given rightly of each class, and as many wrongly
FLOOR = 1e-3  # of a model's chance: no model is so sure that votes could not outweigh it
FEWEST_GOLD = 20  # rows below which an accuracy says next to nothing

Array = np.ndarray


@dataclass(frozen=True)
class Table:
    """n votes that hold a label, as arrays: which row, which labeller, which value, each of shape (n,).

    `scores`: out of fold, how probable a model takes each value of each row to be, shape (rows, values), NaN where it
    says nothing; None: there is no model.
    """

    rows: Array
    labellers: Array
    values: Array
    ids: list[str]
    names: list[str]
    labels: list[str]
    scores: Array | None = None

    @classmethod
    def of(
        cls, votes: list[Vote], settings: Settings, scores: Mapping[str, Mapping[str, float]] = {}
    ) -> Table:
        """The table of the votes that hold a label.

        Args:
            scores: as `read_scores` gives them.
        """
        labelled = [vote for vote in votes if vote.label is not None]
        spelt = [spelling(str(vote.label), settings) for vote in labelled]
        ids, rows = np.unique([vote.id for vote in labelled], return_inverse=True)
        names, labellers = np.unique([vote.who for vote in labelled], return_inverse=True)
        labels, values = np.unique(spelt, return_inverse=True)
        by_row = [[scores.get(i, {}).get(label, np.nan) for label in labels] for i in ids]
        matrix = np.array(by_row) if scores and by_row else None
        return cls(rows, labellers, values, ids.tolist(), names.tolist(), labels.tolist(), matrix)

    def counts(self) -> Array:
        """Votes by row and value, shape (rows, values)."""
        shape = len(self.ids), len(self.labels)
        flat = np.bincount(self.rows * shape[1] + self.values, minlength=shape[0] * shape[1])
        return flat.reshape(shape)

    def numbers(self) -> Array:
        """The value of each vote as a number, shape (n,).

        Raises:
            UserError: when a label is no number.
        """
        return require_numbers(self.labels)[self.values]


def require_numbers(labels: Iterable[str | None]) -> Array:
    """Labels of a column of numbers, as numbers.

    Raises:
        UserError: naming the first label that is none.
    """
    texts = pd.Series(list(labels), dtype=object)
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(float)
    if (wrong := ~np.isfinite(numbers)).any():
        label = texts[int(np.argmax(wrong))]
        raise UserError(f"{VOTES}: the label {label!r:.40} is no number, as its column needs")
    return numbers


class Aggregated(NamedTuple):
    """The label of each of n rows: an index of `Table.labels`, or a number; and how sure it is, each (n,)."""

    label: Array
    confidence: Array


def majority(table: Table) -> Aggregated:
    """The value with most votes, and its share of them; of several with as many the first, which no share above a half
    can be."""
    counts = table.counts()
    return Aggregated(counts.argmax(axis=1), counts.max(axis=1) / counts.sum(axis=1))


def dawid_skene(table: Table) -> Aggregated:
    """The likeliest value by expectation maximisation over each labeller's mistakes (Dawid and Skene, 1979).

    Each labeller has a matrix of chances to say one value where another is true. It is smoothed: who gave few votes
    is taken to be somewhat better than chance, and no vote is impossible.

    Returns:
        the likeliest values and how likely they are.
    """
    posterior, _ = _expectation_maximisation(table)
    return Aggregated(posterior.argmax(axis=1), posterior.max(axis=1))


def with_model(table: Table) -> Aggregated:
    """As `dawid_skene`, with a model's scores of each row in the place of the share of each value (Raykar et al., 2010).

    A row that the model says nothing of has these shares.
    """
    posterior, _ = _expectation_maximisation(table, table.scores)
    return Aggregated(posterior.argmax(axis=1), posterior.max(axis=1))


def skills(table: Table) -> Array:
    """How often each labeller is right by `dawid_skene`, shape (labellers,)."""
    posterior, confusion = _expectation_maximisation(table)
    return np.asarray(np.einsum("lkk,k->l", confusion, posterior.mean(axis=0)))


def _expectation_maximisation(table: Table, scores: Array | None = None) -> tuple[Array, Array]:
    """The chance of each value by row (rows, values), and confusion (labellers, true value, value said)."""
    n, labellers, k = len(table.ids), len(table.names), len(table.labels)
    counts = table.counts()
    posterior = counts / counts.sum(axis=1, keepdims=True)
    prior_votes = np.full((k, k), SMOOTHING / max(1, k - 1)) + np.eye(k) * SMOOTHING
    logarithms = None if scores is None else np.log(np.maximum(scores, FLOOR))
    voted = table.labellers * k + table.values  # (n votes,)
    confusion = np.zeros((labellers, k, k))
    for _ in range(ROUNDS):
        weights = posterior[table.rows]  # (n votes, k)
        for true in range(k):
            sums = np.bincount(voted, weights[:, true], labellers * k)
            confusion[:, true] = sums.reshape(labellers, k)
        confusion += prior_votes
        confusion /= confusion.sum(axis=2, keepdims=True)
        log_prior = np.log(posterior.mean(axis=0) + 1e-12)
        likelihood = np.log(confusion)[table.labellers, :, table.values]  # (n votes, k)
        updated: Array = np.stack(
            [np.bincount(table.rows, likelihood[:, j], n) for j in range(k)], axis=1
        )
        updated += (
            log_prior
            if logarithms is None
            else np.where(np.isnan(logarithms), log_prior, logarithms)
        )
        updated -= updated.max(axis=1, keepdims=True)
        updated = np.exp(updated)
        updated /= updated.sum(axis=1, keepdims=True)
        change = np.abs(updated - posterior).max()
        posterior = updated
        if change < TOLERANCE:
            break
    return posterior, confusion


METHODS = {"majority": majority, "dawid_skene": dawid_skene, "model": with_model}


def median(table: Table, tolerance: float | None) -> Aggregated:
    """The median of each row's numbers, and the share of the votes within a tolerance of it; None: all agree."""
    numbers = pd.Series(table.numbers())
    medians = numbers.groupby(table.rows).median().to_numpy()
    agree = np.abs(numbers.to_numpy() - medians[table.rows]) <= (
        np.inf if tolerance is None else tolerance
    )
    return Aggregated(medians, pd.Series(agree).groupby(table.rows).mean().to_numpy())


def read_scores(root: Path) -> dict[str, dict[str, float]]:
    """What models that have not seen a row say of it, as `label audit` left it: a chance by id and label.

    Raises:
        UserError: for a line that is none.
    """
    scores = {}
    for number, line in read_lines(root / OUT_OF_FOLD):
        try:
            scores[str(line["id"])] = {str(k): float(p) for k, p in line["scores"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(
                f"{OUT_OF_FOLD}:{number}: not a row's scores; `label audit` writes it anew"
            ) from None
    return scores


def deciding(votes: list[Vote], settings: Settings, root: Path) -> dict[str, str]:
    """The certain labels that methods are chosen by: of labels/gold.jsonl, and those that rows brought along where a queue
    mixed them in as such. What people look at again since it is in doubt is no yardstick.

    Raises:
        UserError: as `certain_labels`.
    """
    if settings.labelling.aggregation != "auto":
        return {}
    checks = {vote.id for vote in votes if vote.drawn == "gold"}
    brought = certain_labels(settings, root) if checks else {}
    return {i: label for i, label in brought.items() if i in checks} | gold(settings, root)


def choose(table: Table, certain: Mapping[str, str], settings: Settings) -> str:
    """The method that joins the votes: as `labelling.aggregation` says; by `auto` the best on rows whose label is certain.

    Another than majority has to be right more often than it by more than chance gives (one standard error of the
    discordant rows; McNemar, 1947), on at least FEWEST_GOLD rows. Without scores of a model `model` is `dawid_skene`.
    """
    method = settings.labelling.aggregation
    if not problem.CLASSES:
        return "median"
    if method != "auto":
        return "dawid_skene" if method == "model" and table.scores is None else method
    shared = [i for i, id_ in enumerate(table.ids) if id_ in certain]
    if len(shared) < FEWEST_GOLD:
        return "majority"
    right = {
        name_: np.array(
            [table.labels[chosen[i]] == certain[table.ids[i]] for i in shared], dtype=int
        )
        for name_, chosen in ((m, METHODS[m](table).label) for m in methods(table))
    }
    gains = {name_: rows - right["majority"] for name_, rows in right.items()}
    better = [n for n, gain in gains.items() if gain.sum() > np.sqrt(np.abs(gain).sum())]
    return max(better, key=lambda name_: gains[name_].sum(), default="majority")


def methods(table: Table) -> list[str]:
    """The ways to join votes on classes that a table allows."""
    return [m for m in METHODS if m != "model" or table.scores is not None]


def aggregate(table: Table, settings: Settings, method: str | None = None) -> pd.DataFrame:
    """The label of each row that has votes.

    Args:
        method: as `choose` gives it; None: as it does where no label is certain.

    Returns:
        by id: label, as text, None where the votes do not agree; confidence; votes, how many.
    """
    if not len(table.rows):
        return pd.DataFrame({"label": [], "confidence": [], "votes": []}, dtype=object)
    if problem.CLASSES:
        chosen, confidence = METHODS[method or choose(table, {}, settings)](table)
        texts = np.array(table.labels, dtype=object)[chosen]
    else:
        numbers, confidence = median(table, settings.labelling.tolerance)
        texts = np.array(
            [spelling(repr(float(value)), settings) for value in numbers], dtype=object
        )
    texts[confidence <= settings.labelling.agreement] = None
    columns = {
        "label": pd.Series(texts, table.ids, dtype=object),
        "confidence": confidence,
        "votes": np.bincount(table.rows),
    }
    return pd.DataFrame(columns, index=table.ids)


class Voted(NamedTuple):
    """The labels that people gave.

    rows: id, label (text, or None where the votes do not agree), voted_at (of the last vote, UTC without zone, or
    NaT); votes: how many there are; last: when the last one was given; method: what joined them; table: the votes.
    """

    rows: pd.DataFrame
    votes: int
    last: str | None
    method: str
    table: Table


def labels(settings: Settings, root: Path) -> Voted | None:
    """The labels of all rows that somebody voted on, as of `data.label.as_of`; None without votes.

    A row whose label is certain (labels/gold.jsonl) has that one. A row on which all say that it cannot be told has
    none.

    Raises:
        UserError: for a line that is no vote.
    """
    votes, certain = current(root), gold(settings, root)
    if settings.data.label.as_of != "latest":
        end = moment(settings.data.label.as_of)
        votes = [vote for vote in votes if moment(vote.at) <= end]
    if not votes and not certain:
        return None
    if settings.data.schema_.id is None:
        raise UserError(
            "data.schema.id: null is not allowed where there are votes: they name rows by it"
        )
    table = Table.of(votes, settings, read_scores(root))
    method = choose(table, deciding(votes, settings, root), settings)
    agreed = aggregate(table, settings, method)["label"].to_dict()
    if settings.data.schema_.columns[settings.data.label.column].type == "number":
        require_numbers({*certain.values(), *agreed.values()} - {None})
    moments: dict[str, pd.Timestamp | None] = dict.fromkeys(certain)
    for vote in votes:
        time = pd.Timestamp(moment(vote.at)).tz_localize(None)
        moments[vote.id] = max(time, moments.get(vote.id) or time)
    rows = {
        "id": list(moments),
        "label": pd.Series([certain.get(i, agreed.get(i)) for i in moments], dtype=object),
        "voted_at": pd.to_datetime(pd.Series(list(moments.values()), dtype="datetime64[us]")),
    }
    last = max((vote.at for vote in votes), key=moment, default=None)
    return Voted(pd.DataFrame(rows), len(votes), last, method, table)


def joined(settings: Settings, root: Path) -> JoinVotes | None:
    """How the stage `label` puts people's labels in the place of the rows' own; None where nobody voted.

    It makes the table `collected` of the events, with two columns more: `_is_voted`, and `_voted_at`, the time of the
    last vote, from which on a history has the label.

    Raises:
        UserError: as `labels`.
    """
    voted = labels(settings, root)
    if voted is None:
        return None

    def join(sql: duckdb.DuckDBPyConnection, source: str) -> dict[str, Any]:
        sql.register("voted", voted.rows)
        column, id_ = name(settings.data.label.column), name(str(settings.data.schema_.id))
        ((_, type_, *_),) = sql.execute(f"DESCRIBE SELECT {column} FROM {source}").fetchall()
        cast = f"CAST(CAST(voted.label AS VARCHAR) AS {type_})"
        sql.execute(
            f"CREATE TABLE collected AS SELECT event.* EXCLUDE (_row) "
            f"REPLACE (CASE WHEN voted.id IS NULL THEN event.{column} ELSE {cast} END AS {column}), "
            f"voted.id IS NOT NULL AS _is_voted, CAST(voted.voted_at AS TIMESTAMP) AS _voted_at "
            f"FROM (SELECT *, row_number() OVER () AS _row FROM {source}) AS event "
            f"LEFT JOIN voted ON CAST(event.{id_} AS VARCHAR) = voted.id ORDER BY event._row"
        )
        counted = f"SELECT count(*), count({column}) FROM collected WHERE _is_voted"
        ((rows, agreed),) = sql.execute(counted).fetchall()
        return {
            "votes": voted.votes,
            "voted_rows": rows,
            "agreed_rows": agreed,
            "voted_until": voted.last,
            "aggregation": voted.method,
            **_promised(sql, settings, voted.table),
        }

    return join


def _promised(
    sql: duckdb.DuckDBPyConnection, settings: Settings, table: Table
) -> dict[str, dict[str, Any]]:
    """What the gate holds of labels: alpha with its standard error, and the slice whose rows are the least labelled."""
    from .agreement import krippendorff

    figures: dict[str, dict[str, Any]] = {}
    if alpha := krippendorff(table):
        repeated = int((table.counts().sum(axis=1) > 1).sum())
        figures["agreement"] = dict(
            zip(("alpha", "error", "rows"), (*alpha, repeated), strict=True)
        )
    label_, coverage = settings.data.label.column, []
    is_labelled = has_label(name(label_), no_label(settings))
    for column in slice_columns(settings):
        groups = sql.execute(
            f"SELECT CAST({name(column)} AS VARCHAR), avg(CASE WHEN {is_labelled} THEN 1 ELSE 0 END) FROM collected "
            f"WHERE {name(column)} IS NOT NULL GROUP BY 1 HAVING count(*) >= ? ORDER BY 2, 1 LIMIT 1",
            [settings.modelling.evaluation.min_slice_rows],
        ).fetchall()
        coverage += [(share, f"{column}: {value}") for value, share in groups]
    if coverage:
        share, slice_ = min(coverage)
        figures["coverage"] = {"slice": slice_, "share": round(share, 6)}
    return figures
