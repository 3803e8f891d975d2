"""Labels by rule: the functions of problem/data.py vote on rows without a label, and training learns from that.

Votes are put together by one weight for each function in a conditional logit, which starts from the shares of the
labels. No structure among functions is estimated from their votes alone (Ratner et al., 2017, do so by EM): where two
share a cause, their agreement would be taken for proof.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TypedDict

import duckdb
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid

from ..data.label import LEAST_SHARE, truth
from ..data.schema import WEIGHT, name, no_label, text
from ..data.source import PARQUET, database, first_line
from ..data.source import report as write_report
from ..data.split import WeakRows, WriteWeak, row_key
from ..paths import APART, FUNCTIONS, SPLITS, UNLABELLED, WEAK
from ..problem import data as problem_data
from ..settings import Settings, UserError, require_file

RIGHT = 0.62  # share of the votes that is taken to be right before gold rows say otherwise, were all labels as common
CERTAINTY = 25.0  # precision of a weight beforehand: a spread of 0.2, which some hundred rows move
ABSTAINS = -1

Array = np.ndarray


class FunctionRow(TypedDict):
    """One function in reports/label_functions.json: shares of all rows, and what holds on gold rows."""

    name: str
    coverage: float  # it votes
    overlap: float  # it votes, and another does
    conflict: float  # it votes, and another votes otherwise
    gold_votes: int
    accuracy: float | None  # of its votes on gold rows; None without any
    low: float | None
    high: float | None
    chance: float | None  # what as many votes for the same labels would get by chance
    weight: float  # that gold rows give it, see `gold_weights`


class FunctionsReport(TypedDict):
    """What reports/label_functions.json holds."""

    rows: int
    gold_rows: int
    coverage: float  # share of the rows on which a function votes
    functions: list[FunctionRow]


def gold_weights(votes: Array, y: Array, base: Array) -> tuple[Array, Array]:
    """What rows whose label is certain say of the functions: the conditional logit of their votes (McFadden, 1974),
    penalised towards equal votes, so that few gold rows change little.

    Args:
        votes: of J functions on n gold rows, codes of labels or ABSTAINS, shape (n, J).
        y: the labels, codes, shape (n,); base: the share of each label, shape (K,).

    Returns:
        an offset for each label, shape (K,), and a weight for each function, shape (J,).
    """
    from scipy.optimize import minimize

    k, codes = len(base), y.astype(int)
    says = (votes[:, :, None] == np.arange(k)).astype(float)  # (n, J, K)
    prior = np.concatenate(equal_weights(votes, y, base))
    penalty = np.concatenate([np.ones(k), np.full(votes.shape[1], CERTAINTY)])

    def loss(parameters: Array) -> tuple[float, Array]:
        logits = parameters[:k] + np.einsum("njk,j->nk", says, parameters[k:])
        logits -= logits.max(axis=1, keepdims=True)
        chances = np.exp(logits)
        total = chances.sum(axis=1, keepdims=True)
        error = chances / total
        error[np.arange(len(y)), codes] -= 1
        away = parameters - prior
        value = np.log(total).sum() - logits[np.arange(len(y)), codes].sum()
        slope = np.concatenate([error.sum(axis=0), np.einsum("njk,nk->j", says, error)])
        return value + 0.5 * (penalty * away**2).sum(), slope + penalty * away

    fitted = minimize(loss, prior, jac=True, method="L-BFGS-B").x
    return fitted[:k], fitted[k:]


def equal_weights(votes: Array, y: Array, base: Array) -> tuple[Array, Array]:
    """The same weight for each function, whatever gold rows say: as `gold_weights` without any.

    It is what a vote adds to the log odds of its label against each other label, of which all are as likely where it
    is wrong.
    """
    weight = np.log(RIGHT / (1 - RIGHT) * (len(base) - 1))
    return np.log(base), np.full(votes.shape[1], weight)


METHODS = {"shrunk": equal_weights, "gold": gold_weights}


def soft_labels(votes: Array, offsets: Array, weights: Array) -> Array:
    """How likely each label is, shape (n, K): the shares of the labels, moved by weighed votes.

    Args:
        votes: shape (n, J); offsets: shape (K,); weights: shape (J,).
    """
    says = votes[:, :, None] == np.arange(len(offsets))
    logits = offsets + np.einsum("njk,j->nk", says, weights)
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(chances / chances.sum(axis=1, keepdims=True))


def _shares(y: Array, settings: Settings) -> Array:
    """The share of each label among n rows, shape (K,): one row more of each, so that none is impossible."""
    classes = max(2, len(problem_data.named(settings.data.label)))
    counts = np.bincount(y.astype(int), minlength=classes) + 1.0
    return counts / counts.sum()


def _columns(settings: Settings) -> list[str]:
    """SQL for the vote of each function as a code of a label, NULL where it abstains.

    Raises:
        UserError: when there is no function.
    """
    if not problem_data.LABELLING_FUNCTIONS:
        raise UserError(
            "problem/data.py: LABELLING_FUNCTIONS is empty; write a rule there, or set labelling.functions.combine: none"
        )
    return [truth(f"({rule})", settings) for rule in problem_data.LABELLING_FUNCTIONS.values()]


def _require_rules(sql: duckdb.DuckDBPyConnection, rows: str, settings: Settings) -> None:
    """Refuse a function that cannot be worked out of these rows, or that votes for what is no label.

    Raises:
        UserError: naming the function.
    """
    pattern = no_label(settings)
    for (key, rule), vote in zip(
        problem_data.LABELLING_FUNCTIONS.items(), _columns(settings), strict=True
    ):
        position = f"problem/data.py: LABELLING_FUNCTIONS[{key!r}]"
        try:
            strange = sql.execute(
                f"SELECT CAST(({rule}) AS VARCHAR) AS vote FROM {rows} WHERE ({rule}) IS NOT NULL AND "
                f"{vote} IS NULL AND NOT regexp_full_match(vote, {text(pattern)}) LIMIT 1"
            ).fetchall()
        except duckdb.Error as error:
            message = first_line(error)
            raise UserError(f"{position}: {message:.160}; mend the rule, or take it out") from None
        if strange:
            raise UserError(
                f"{position}: votes {strange[0][0]!r:.60}, which data.label does not name"
            )


def _votes(sql: duckdb.DuckDBPyConnection, rows: str, settings: Settings) -> tuple[Array, Array]:
    """The votes on rows, codes or ABSTAINS, shape (n, J), and their labels, shape (n,): NaN where none is certain."""
    fields = [f"coalesce({vote}, {ABSTAINS})" for vote in _columns(settings)]
    table = sql.execute(f"SELECT _y, {', '.join(fields)} FROM {rows}").fetchnumpy()
    label, *votes = table.values()
    return np.column_stack(votes).astype(int), np.ma.filled(label, np.nan).astype(float)


def writer(settings: Settings, root: Path) -> WriteWeak | None:
    """How the stage `split` writes the training rows whose label the functions give, or whose label models may give;
    None where neither does.

    A row without a certain label stands once for each label that is likely, weighed by how likely, so that a model
    learns from it what the soft label says. Left out is whatever a row of another part can be known by: what is not
    earlier than all of valid, has a group of valid or test, or equals a row that has a label.

    Raises:
        UserError: for a function that cannot be worked out.
    """
    functions, unlabelled = settings.labelling.functions, settings.labelling.unlabelled
    if unlabelled is not None and unlabelled.ways:
        return partial(_write_apart, settings, root)
    if functions is None or functions.combine == "none":
        return None

    method = METHODS[functions.combine]

    def write(sql: duckdb.DuckDBPyConnection, folder: Path) -> WeakRows:
        gold = f"read_parquet({text(str(folder / Path(SPLITS['train']).name))})"
        _read_unlabelled(sql, settings, root, folder)
        for rows in (gold, "unlabelled"):
            _require_rules(sql, rows, settings)
        votes, y = _votes(sql, gold, settings)
        base = _shares(y, settings)
        columns = [f"v{j}" for j in range(votes.shape[1])]
        fields = zip(_columns(settings), columns, strict=True)
        selected = ", ".join(f"coalesce({vote}, {ABSTAINS}) AS {column}" for vote, column in fields)
        speaks = " OR ".join(f"{column} <> {ABSTAINS}" for column in columns)
        sql.execute(f"CREATE TABLE voted AS SELECT *, {selected} FROM unlabelled")
        patterns = sql.execute(
            f"SELECT DISTINCT {', '.join(columns)} FROM voted WHERE {speaks} ORDER BY ALL"
        ).df()
        chances = soft_labels(patterns.to_numpy(int), *method(votes, y, base))
        row, code = np.nonzero(chances >= LEAST_SHARE)
        shares = {"_y": code.astype(float), WEIGHT: functions.weight * chances[row, code]}
        sql.register("copies", patterns.iloc[row].assign(**shares))
        query = (
            f"SELECT * EXCLUDE ({', '.join(columns)}) FROM voted JOIN copies "
            f"USING ({', '.join(columns)}) ORDER BY _weak_row, _y"
        )
        sql.execute(f"COPY ({query}) TO {text(str(folder / Path(WEAK).name))} {PARQUET}")
        ((count,),) = sql.execute(f"SELECT count(*) FROM voted WHERE {speaks}").fetchall()
        return {"weak_rows": int(count)}

    return write


def _write_apart(
    settings: Settings, root: Path, sql: duckdb.DuckDBPyConnection, folder: Path
) -> WeakRows:
    """Write the rows without a label that may be trained on, for models to label them (`modelling.unlabelled`)."""
    _read_unlabelled(sql, settings, root, folder)
    query = "SELECT *, CAST(NULL AS DOUBLE) AS _y FROM unlabelled ORDER BY _weak_row"
    sql.execute(f"COPY ({query}) TO {text(str(folder / Path(APART).name))} {PARQUET}")
    ((count,),) = sql.execute("SELECT count(*) FROM unlabelled").fetchall()
    return {"unlabelled_rows": int(count)}


def _read_unlabelled(
    sql: duckdb.DuckDBPyConnection, settings: Settings, root: Path, folder: Path
) -> None:
    """Make the table `unlabelled`: the rows without a label that may be trained on, each with its number."""
    source = text(str(require_file(root / UNLABELLED)))
    sql.execute(
        f"CREATE TABLE unlabelled AS SELECT * EXCLUDE (file_row_number), file_row_number AS _weak_row "
        f"FROM (SELECT *, {row_key(settings)} AS _row_key FROM read_parquet({source}, file_row_number = true)) "
        f"WHERE {_apart(settings, folder)}"
    )


def _apart(settings: Settings, folder: Path) -> str:
    """SQL for whether a row without a label may be trained on beside the written parts."""
    split, time = settings.data.split, settings.data.schema_.time
    train, valid, test = (text(str(folder / Path(path).name)) for path in SPLITS.values())
    conditions = ["true"]
    if split.by == "time" and time:
        first = f"(SELECT min({name(time)}) FROM read_parquet({valid}))"
        conditions.append(f"coalesce({name(time)} < {first}, false)")
    if split.group:
        group = name(split.group)
        taken = f"SELECT {group} FROM read_parquet([{valid}, {test}]) WHERE {group} IS NOT NULL"
        conditions.append(f"coalesce({group} NOT IN ({taken}), true)")
    if split.near_duplicate_digits is not None:
        conditions.append(
            f"_row_key NOT IN (SELECT _row_key FROM read_parquet([{train}, {valid}, {test}]))"
        )
    return " AND ".join(conditions)


def judge(settings: Settings, root: Path) -> FunctionsReport:
    """Write reports/label_functions.json: how often each function votes, and how often it is right on gold rows.

    Gold are the rows of train and valid: whoever changes a function by what this says, has not seen test.

    Raises:
        UserError: when the split is missing, or a function cannot be worked out.
    """
    from ..goals.gate import Figure

    parts = [text(str(require_file(root / SPLITS[part]))) for part in ("train", "valid")]
    unlabelled = text(str(require_file(root / UNLABELLED)))
    with database(settings, root) as sql:
        rows = f"read_parquet([{', '.join([*parts, unlabelled])}], union_by_name = true)"
        _require_rules(sql, rows, settings)
        votes, y = _votes(sql, rows, settings)
    speaks, certain = votes != ABSTAINS, np.isfinite(y)
    base = _shares(y[certain], settings)
    _, weights = gold_weights(votes[certain], y[certain], base)
    lines = []
    for j, key in enumerate(problem_data.LABELLING_FUNCTIONS):
        remaining = np.delete(np.arange(votes.shape[1]), j)
        again = speaks[:, remaining].any(axis=1)
        differs = (speaks[:, remaining] & (votes[:, remaining] != votes[:, [j]])).any(axis=1)
        tested = speaks[:, j] & certain
        share = Figure(float("nan"))
        if tested.any():
            share = Figure.of_mean(votes[tested, j] == y[tested], settings.goals.interval.level)
        numbers = (share.value, share.low, share.high, base[votes[tested, j]].mean())
        accuracy, low, high, chance = (
            round(float(number), 6) if tested.any() and number is not None else None
            for number in numbers
        )
        line: FunctionRow = {
            "name": key,
            "coverage": round(float(speaks[:, j].mean()), 6),
            "overlap": round(float((speaks[:, j] & again).mean()), 6),
            "conflict": round(float((speaks[:, j] & differs).mean()), 6),
            "gold_votes": int(tested.sum()),
            "accuracy": accuracy,
            "low": low,
            "high": high,
            "chance": chance,
            "weight": round(float(weights[j]), 4),
        }
        lines.append(line)
    report: FunctionsReport = {
        "rows": len(votes),
        "gold_rows": int(certain.sum()),
        "coverage": round(float(speaks.any(axis=1).mean()), 6),
        "functions": lines,
    }
    return write_report(root, Path(FUNCTIONS).stem, report)


def show(report: FunctionsReport, console: Console) -> None:
    """Print the table of functions, and the sentence on what it is measured on."""
    grid = Grid(box=SIMPLE_HEAD, padding=0, pad_edge=False, collapse_padding=False)
    for heading in ("function", "coverage", "overlap", "conflict", "right", "chance", "weight"):
        grid.add_column(heading, justify="left" if heading == "function" else "right")
    for line in report["functions"]:
        right = "–"
        if line["accuracy"] is not None:
            right = f"{line['accuracy']:.3f} [dim]({line['low']:.2f}–{line['high']:.2f})[/]"
        shares = [f"{line[key]:.3f}" for key in ("coverage", "overlap", "conflict")]
        chance = "–" if line["chance"] is None else f"{line['chance']:.3f}"
        grid.add_row(line["name"], *shares, right, chance, f"{line['weight']:.2f}")
    console.print(grid)
    console.print(
        f"label functions: {report['coverage']:.1%} of {report['rows']:,} rows have a vote; right is judged on the "
        f"{report['gold_rows']:,} labelled rows of train and valid, chance is what such votes get by luck"
    )
