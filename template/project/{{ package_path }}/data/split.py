"""Train, valid and test: nothing that stands in one part may be known from an earlier one.

Sides are numbered in the order of PARTS. By time, a part starts where the one before it ends; by
group or at random, whole groups (or whole sets of near-duplicates) are dealt out.
"""

from __future__ import annotations

import itertools
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict
from zlib import crc32

import duckdb
import numpy as np
import pandas as pd

from .. import problem
from ..images import difference_hash
from ..paths import LABELLED, SPLIT, SPLITS
from ..problem import data as problem_data
from ..settings import MIN_PART_ROWS, Settings, UserError, require_file
from .sampling import SamplingReport, check_sample, draw, draw_training, judging_rows
from .schema import AGE, CAME_AT, name, rounded, stored, text
from .source import PARQUET, database, report
from .young import YoungReport, set_apart
from .young import write as write_young

COLUMNS_PER_PASS = 100  # columns that are looked at in one pass
MAX_DUPLICATE_SHARE = 0.2  # of a part; beyond, equal rows are no accident
# Texts nearly repeat each other of whose runs of three words four of five are the same (Jaccard). Of their
# signatures that many are, give or take 0.035: three of four leave hardly one of them out
SHINGLE, MIN_ALIKE, BANDS, BAND_ROWS = 3, 0.75, 32, 4
MIN_WORDS = 5  # of a text; shorter ones are alike by chance
MAX_GROUP_SHARE = 0.02  # of all rows; what more of them share is a template
SIMILAR_KINDS = ("text", "image")
MAX_ROWS = 300_000  # beyond, none are looked for: each takes a tenth of a millisecond, a text 512 B
MAX_CHARACTERS, ROWS_AT_ONCE = 4_000, 2_000
MAX_BITS = 3  # of 64, in which the hashes of two images may differ
MAX_COMPARED = 64  # images that each is compared with in a quarter of the hash: of more alike, most are a template
MIX = np.uint64(0x9E3779B97F4A7C15)  # of Fibonacci hashing (Knuth, 1998)
# Where no blanks part the words, each character counts as one
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
TOKEN = re.compile(f"[{UNSPACED}]|[^\\W{UNSPACED}]+")

Array = np.ndarray
SIMILAR_UNIT = "'similar ' || _similar_group"  # SQL for what is dealt out together, NULL where nothing is alike


class Gap(TypedDict):
    """Of a column with missing values: how the label differs where it is missing."""

    share: float  # of the rows without a value
    gap: float | None
    p_value: float | None


class SimilarRows(TypedDict):
    """Rows whose texts, or images, nearly repeat each other: the groups of them, and test rows with one in train or valid."""

    groups: int
    test_rows: int
    test_share: float


class WeakRows(TypedDict, total=False):
    """Rows without a label that are written for training alone: of which functions give one, or models may."""

    weak_rows: int
    unlabelled_rows: int


WriteWeak = Callable[[duckdb.DuckDBPyConnection, Path], WeakRows]


class SplitReport(WeakRows):
    """What reports/split.json holds."""

    by: str
    parts: dict[str, Any]  # part -> what `check_parts` says of it
    dropped: dict[str, int]  # reason -> rows
    missing: dict[str, Gap]  # by column
    sampling: NotRequired[SamplingReport]  # where not all rows are taken as they are
    effective_rows: NotRequired[
        dict[str, float]
    ]  # of each part (Kish), where rows do not count alike
    similar_texts: NotRequired[SimilarRows]  # where there are texts
    similar_images: NotRequired[SimilarRows]  # where there are images
    young: NotRequired[YoungReport]  # where rows younger than a label takes are weighed


def split(settings: Settings, root: Path, write_weak: WriteWeak | None = None) -> SplitReport:
    """Write the three parts, each with `_row_key`, and check them as they stand in the files.

    Rows that would leak are dropped: those whose label came only after the next part had begun,
    and those of a later part whose group or near-duplicate stands in an earlier one. Rows whose texts or images alone
    nearly repeat each other are dealt out together at random, where no group is set, and counted else.

    Args:
        write_weak: writes rows for training alone into the folder of the written parts, and counts them. As
            `labelling.functions` does.

    Returns:
        what reports/split.json holds.

    Raises:
        UserError: when a part is left too small, or a check of `check_parts` fails.
    """
    require_file(root / LABELLED)
    staging = root / f"{SPLIT}.new"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        with database(settings, root) as sql:
            sampled = draw(sql, settings, root / LABELLED)
            _key_rows(sql, settings)
            compared = _mark_similar(sql, settings)
            _SIDES[settings.data.split.by](sql, settings)
            weighs_young = settings.data.label.young == "weigh"
            if weighs_young:
                set_apart(sql, settings)
            dropped = {"label_not_known": _drop_not_known(sql, settings)}
            has_groups = settings.data.split.group or problem_data.bundle(settings.data.label)
            dropped["group"] = _drop_straddlers(sql, "_group") if has_groups else 0
            deduplicate = settings.data.split.near_duplicate_digits is not None
            dropped["near_duplicates"] = _drop_straddlers(sql, "_row_key") if deduplicate else 0
            _check_duplicates(sql, dropped["near_duplicates"])
            if settings.data.label.solicited:
                dropped["unsolicited"] = _drop_unsolicited(sql)
            dealt = judging_rows(sql)
            sampled = sampled or draw_training(sql, settings)
            for side, (part, path) in enumerate(SPLITS.items()):
                _write_part(sql, side, part, staging / Path(path).name, settings)
            _check_solicited(sql, settings, staging)
            effective = check_sample(sql, settings, staging, dealt)
            counts: SplitReport = {
                "by": settings.data.split.by,
                "parts": check_parts(sql, settings, staging),
                "dropped": dropped,
                "missing": _gap_tests(sql, settings, staging),
            }
            if sampled:
                counts["sampling"] = sampled
            if effective:
                counts["effective_rows"] = effective
            if "text" in compared:
                counts["similar_texts"] = _count_similar(sql, "text")
            if "image" in compared:
                counts["similar_images"] = _count_similar(sql, "image")
            if weighs_young:
                counts["young"] = write_young(sql, settings, staging)
            if write_weak:
                counts |= write_weak(sql, staging)
        target = (root / SPLITS["train"]).parent
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return report(root, "split", counts)


def _key_rows(sql: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Make the table `rows`: what the split needs to know of each row, in the file's order.

    Its columns begin with an underscore, as no column of the schema may, since it is joined with them.
    """
    data = settings.data
    time = name(data.schema_.time) if data.schema_.time else "CAST(NULL AS TIMESTAMP)"
    group = f"CAST({name(data.split.group) if data.split.group else 'NULL'} AS VARCHAR)"
    solicited = f"coalesce({name(data.label.solicited)}, false)" if data.label.solicited else "true"
    known_at = "_known_at"
    if bundle := problem_data.bundle(data.label):  # by the first moment, known when all are
        whole = f"OVER (PARTITION BY {bundle})"
        time, known_at = f"min({time}) {whole}", f"max(_known_at) {whole}"
        group = f"coalesce(min({group}) {whole}, CAST({bundle} AS VARCHAR))"
    young = f", {CAME_AT}, {AGE}" if data.label.young == "weigh" else f", NULL AS {AGE}"
    sql.execute(
        f"CREATE TABLE rows AS SELECT {row_key(settings)} AS _row_key, {group} AS _group, "
        f"{time} AS _moment, {known_at} AS _known_at, {solicited} AS _solicited, _y, 0::TINYINT AS _side{young} "
        "FROM labelled"
    )


def row_key(settings: Settings) -> str:
    """SQL for a number that near-duplicates share: numbers rounded, the moment to its day.

    The row's identifier is left out. With `near_duplicate_digits: null` nothing is rounded.
    """
    schema, digits = settings.data.schema_, settings.data.split.near_duplicate_digits
    label = settings.data.label
    excluded = {schema.id, label.column, label.time} - {schema.time}
    parts = []
    for column, rule in stored(settings).items():
        value = name(column)
        if column in excluded:
            continue
        if digits is not None and rule.type == "number":
            value = rounded(value, digits)
        elif digits is not None and column == schema.time:
            value = f"CAST({value} AS DATE)"
        parts.append(f"coalesce(CAST({value} AS VARCHAR), '')")
    return f"md5_number_lower(concat_ws(chr(31), {', '.join(parts)}))"


def _mark_similar(sql: duckdb.DuckDBPyConnection, settings: Settings) -> list[str]:
    """Give rows whose texts nearly repeat each other a `_text_group` in common, those whose images do an
    `_image_group`, and those that either ties together a `_similar_group`; which of text and image were compared."""
    n, groups = _count(sql, "true"), dict.fromkeys(SIMILAR_KINDS, np.empty(0, np.int32))
    columns = {
        kind: [
            key for key, rule in stored(settings).items() if rule.type == kind and not rule.personal
        ]
        for kind in SIMILAR_KINDS
        if settings.data.split.near_duplicate_digits is not None and n <= MAX_ROWS
    }
    if columns.get("text"):
        cut = ", ".join(f"left({name(column)}, {MAX_CHARACTERS})" for column in columns["text"])
        batches = _batches(sql, f"concat_ws(' ', {cut})")
        groups["text"] = similar_groups(
            np.concatenate([text_signatures(batch) for batch in batches])
        )
    if columns.get("image"):
        hashes = [
            np.fromiter(
                map(difference_hash, itertools.chain(*_batches(sql, name(column)))), np.uint64
            )
            for column in columns["image"]
        ]
        groups["image"] = joined_groups([similar_images(of_column) for of_column in hashes])
    compared = [kind for kind in SIMILAR_KINDS if columns.get(kind)]
    alone = np.full(n, -1, np.int32)
    marks = {
        f"_{kind}_group": groups[kind] if kind in compared else alone for kind in SIMILAR_KINDS
    }
    marks["_similar_group"] = (
        joined_groups([groups[kind] for kind in compared]) if compared else alone
    )
    sql.register("marks", pd.DataFrame(marks))
    marked = ", ".join(f"nullif(marks.{mark}, -1) AS {mark}" for mark in marks)
    sql.execute(
        f"CREATE OR REPLACE TABLE rows AS SELECT keyed.*, {marked} FROM rows AS keyed POSITIONAL JOIN marks"
    )
    return compared


def _batches(sql: duckdb.DuckDBPyConnection, selection: str) -> Iterator[list[Any]]:
    """A value of each labelled row, some thousand at once."""
    cursor = sql.cursor().execute(f"SELECT {selection} FROM labelled")
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        yield [value for (value,) in rows]


def text_signatures(texts: Sequence[str]) -> Array:
    """The MinHash signatures (Broder, 1997) of n texts: how many entries two have in common estimates how many of
    their runs of `SHINGLE` words are the same.

    Returns:
        shape (n, BANDS * BAND_ROWS), uint32; all 0 for a text of fewer than `MIN_WORDS` words.
    """
    tokens = [TOKEN.findall(text[:MAX_CHARACTERS].lower()) for text in texts]
    tokens = [row if len(row) >= MIN_WORDS else [] for row in tokens]
    lengths = np.array([len(row) for row in tokens])
    signatures = np.zeros((len(texts), BANDS * BAND_ROWS), np.uint32)
    if not lengths.any():
        return signatures
    hashes = (crc32(token.encode()) for row in tokens for token in row)
    codes = np.fromiter(hashes, np.uint64, int(lengths.sum()))
    # Permutations of all numbers of 32 bits: multiplied by an odd one, modulo 2^32 as unsigned numbers go
    size = (2, signatures.shape[1])
    multipliers, offsets = np.random.default_rng(0).integers(0, 2**32, size, np.uint32)
    multipliers |= np.uint32(1)
    last = len(codes) - SHINGLE + 1
    shingles = np.zeros(last, np.uint64)
    for i in range(SHINGLE):
        shingles = (shingles + codes[i : last + i]) * MIX
        shingles ^= shingles >> np.uint64(29)
    owners = np.repeat(np.arange(len(texts)), lengths)
    is_whole = owners[:last] == owners[SHINGLE - 1 :]
    numbers = (shingles[is_whole] >> np.uint64(32)).astype(np.uint32)
    owners = owners[:last][is_whole]
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    for column, (multiplier, offset) in enumerate(zip(multipliers, offsets, strict=True)):
        least = np.minimum.reduceat(numbers * multiplier + offset, starts)
        signatures[owners[starts], column] = least
    return signatures


def similar_groups(signatures: Array) -> Array:
    """Which of n texts nearly repeat each other: a number that they share, else -1; shape (n,), int32.

    Candidates are alike in a whole band of their signatures (Leskovec et al., 2020, chapter 3); each is compared with
    two of the others, and groups are what hangs together. What more than `MAX_GROUP_SHARE` of the rows share is a
    template, and no group.
    """
    rows = np.flatnonzero(signatures.any(axis=1))
    texts, n = signatures[rows], len(rows)
    links = []
    for start in range(0, texts.shape[1] if n else 0, BAND_ROWS):
        halves = np.ascontiguousarray(texts[:, start : start + BAND_ROWS]).view(np.uint64)
        keys = halves[:, 0] * MIX + halves[:, 1]
        order = np.argsort(keys, kind="stable")
        is_same = keys[order][1:] == keys[order][:-1]
        first = np.maximum.accumulate(np.where(np.append(True, ~is_same), np.arange(n), 0))
        for candidates in (order[:-1], order[first[1:]]):
            pairs = np.stack([order[1:][is_same], candidates[is_same]])
            alike = (texts[pairs[0]] == texts[pairs[1]]).mean(axis=1)
            links.append(rows[pairs[:, alike >= MIN_ALIKE]])
    return _groups_of(links, len(signatures))


def similar_images(hashes: Array) -> Array:
    """Which of n images nearly repeat each other, by `images.difference_hash`: groups as `similar_groups` gives them.

    Of two that differ in `MAX_BITS` of 64 bits, one of the four quarters is the same: only within it are hashes
    compared, each with the next `MAX_COMPARED` in their order.
    """
    rows, links = np.flatnonzero(hashes), []
    for shift in range(0, 64, 64 // (MAX_BITS + 1)):
        keys = (hashes >> np.uint64(shift)) & np.uint64(0xFFFF)
        order = rows[np.lexsort((hashes[rows], keys[rows]))]
        for step in range(1, min(MAX_COMPARED + 1, len(order))):
            pairs = np.stack([order[step:], order[:-step]])
            pairs = pairs[:, keys[pairs[0]] == keys[pairs[1]]]
            if not pairs.size:
                break
            differing = np.bitwise_count(hashes[pairs[0]] ^ hashes[pairs[1]])
            links.append(pairs[:, differing <= MAX_BITS])
    return _groups_of(links, len(hashes))


def joined_groups(groups: Sequence[Array]) -> Array:
    """Groups of n rows that any of these, each of shape (n,), ties together: as `similar_groups` gives them."""
    links = []
    for numbers in groups:
        order = np.argsort(numbers, kind="stable")
        is_same = (numbers[order][1:] == numbers[order][:-1]) & (numbers[order][1:] >= 0)
        links.append(np.stack([order[1:], order[:-1]])[:, is_same])
    return _groups_of(links, len(groups[0]))


def _groups_of(links: Sequence[Array], n: int) -> Array:
    """What hangs together of n rows by pairs of them, each of shape (2, pairs): a number that they share, -1 for a
    row alone and for a template; shape (n,), int32."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = np.concatenate([np.empty((2, 0), np.int64), *links], axis=1)
    graph = coo_matrix((np.ones(ends.shape[1], bool), tuple(ends)), (n, n))
    _, numbers = connected_components(graph, directed=False)
    sizes = np.bincount(numbers)[numbers]
    is_group = (sizes > 1) & (sizes <= max(2, MAX_GROUP_SHARE * n))
    return np.where(is_group, numbers, -1).astype(np.int32)


def _count_similar(sql: duckdb.DuckDBPyConnection, kind: str) -> SimilarRows:
    mark = f"_{kind}_group"
    of_groups = f"SELECT {mark} FROM rows WHERE {mark} IS NOT NULL AND _side"
    repeats = _count(sql, f"_side = 2 AND {mark} IN ({of_groups} IN (0, 1))")
    ((groups,),) = sql.execute(f"SELECT count(DISTINCT {mark}) FROM rows").fetchall()
    share = repeats / max(1, _count(sql, "_side = 2"))
    return {"groups": groups, "test_rows": repeats, "test_share": round(share, 6)}


def _by_time(sql: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    cut = settings.data.split
    shares = [1 - cut.valid - cut.test, 1 - cut.test]
    query = f"SELECT quantile_disc(_moment, {shares!r}) FROM rows WHERE {AGE} IS NULL"
    ((moments,),) = sql.execute(query).fetchall()
    first, second = moments or (None, None)
    sql.execute(
        "UPDATE rows SET _side = CASE WHEN _moment IS NULL THEN -1 WHEN _moment < ? THEN 0 "
        "WHEN _moment < ? THEN 1 ELSE 2 END",
        [first, second],
    )


def _by_units(sql: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Deal out groups, or rows with their near-duplicates, in an order that the seed settles.

    At random the deal is stratified: within each label value of a yes or no, within each tenth of
    a number. A unit belongs to the stratum of its highest label.
    """
    cut, seed = settings.data.split, settings.project.seed
    unit = "CAST(_row_key AS VARCHAR)"
    # A group may hold texts and images that another has as well
    has_groups = cut.group or problem_data.bundle(settings.data.label)
    shared = "_group" if has_groups else SIMILAR_UNIT
    unit = f"coalesce({shared}, {unit})"
    stratum = "0"
    if cut.by == "random":
        stratum = "top" if problem.CLASSES else "ntile(10) OVER (ORDER BY top, unit)"
    sql.execute(
        f"CREATE TABLE units AS WITH units AS (SELECT {unit} AS unit, max(_y) AS top, count(*) AS n "
        f"FROM rows WHERE {AGE} IS NULL GROUP BY ALL), strata AS (SELECT unit, n, {stratum} AS stratum FROM units), "
        f"dealt AS (SELECT unit, (sum(n) OVER deal - n / 2) / sum(n) OVER (PARTITION BY stratum) AS share "
        f"FROM strata WINDOW deal AS (PARTITION BY stratum ORDER BY md5(unit || '{seed}'), unit "
        f"ROWS UNBOUNDED PRECEDING)) "
        f"SELECT unit, CASE WHEN share < {1 - cut.valid - cut.test} THEN 0 "
        f"WHEN share < {1 - cut.test} THEN 1 ELSE 2 END AS side FROM dealt"
    )
    sql.execute(f"UPDATE rows SET _side = units.side FROM units WHERE units.unit = {unit}")


_SIDES = {"time": _by_time, "group": _by_units, "random": _by_units}


def _drop_not_known(sql: duckdb.DuckDBPyConnection, settings: Settings) -> int:
    """Rows without a place in time, and rows whose label came when the next part had begun."""
    if settings.data.split.by != "time":
        return 0
    starts = (
        "(SELECT _side - 1 AS side, min(_moment) AS start FROM rows WHERE _side > 0 GROUP BY ALL)"
    )
    sql.execute(
        f"UPDATE rows SET _side = -1 FROM {starts} AS next "
        f"WHERE rows._side = next.side AND _known_at >= next.start"
    )
    return _count(sql, "_side = -1")


def _drop_straddlers(sql: duckdb.DuckDBPyConnection, column: str) -> int:
    """Rows whose key or group stands in an earlier part as well."""
    before = _count(sql, "_side = -1")
    first = (
        f"(SELECT {column} AS shared, min(_side) AS side FROM rows WHERE _side >= 0 "
        f"AND {column} IS NOT NULL GROUP BY ALL HAVING min(_side) < max(_side))"
    )
    sql.execute(
        f"UPDATE rows SET _side = -1 FROM {first} AS first "
        f"WHERE rows.{column} = first.shared AND rows._side > first.side"
    )
    return _count(sql, "_side = -1") - before


def _drop_unsolicited(sql: duckdb.DuckDBPyConnection) -> int:
    """Rows of valid and test of whoever answered unasked: they speak for nobody but themselves."""
    before = _count(sql, "_side = -1")
    sql.execute("UPDATE rows SET _side = -1 WHERE _side > 0 AND NOT _solicited")
    return _count(sql, "_side = -1") - before


def _check_solicited(sql: duckdb.DuckDBPyConnection, settings: Settings, folder: Path) -> None:
    """Stop where a row that judges, as it stands in the files, is of somebody who was not asked (`data.label.solicited`).

    Raises:
        UserError: naming the part.
    """
    if settings.data.label.solicited is None:
        return
    for part in ("valid", "test"):
        file = text(str(folder / Path(SPLITS[part]).name))
        query = f"SELECT count(*) FROM read_parquet({file}) WHERE {name(settings.data.label.solicited)} IS NOT true"
        ((unsolicited,),) = sql.execute(query).fetchall()
        if unsolicited:
            raise UserError(
                f"data/split: {unsolicited:,} rows of {part} are of users who were not asked ({settings.data.label.solicited}), "
                f"and only those asked at random speak for all; run `split` again"
            )


def _check_duplicates(sql: duckdb.DuckDBPyConnection, dropped: int) -> None:
    later = _count(sql, "_side > 0")
    if dropped > MAX_DUPLICATE_SHARE * (dropped + later):
        raise UserError(
            f"params.yaml: data.split.near_duplicate_digits: {dropped:,} of the {dropped + later:,} rows "
            f"of valid and test equal an earlier one; use more digits, or null if they are separate events"
        )


def _count(sql: duckdb.DuckDBPyConnection, condition: str) -> int:
    ((count,),) = sql.execute(f"SELECT count(*) FROM rows WHERE {condition}").fetchall()
    return int(count)


def _write_part(
    sql: duckdb.DuckDBPyConnection, side: int, part: str, path: Path, settings: Settings
) -> None:
    if (rows := _count(sql, f"_side = {side}")) < MIN_PART_ROWS:
        late = "; or is the label's delay too long?" if settings.data.split.by == "time" else ""
        raise UserError(
            f"params.yaml: data.split: {rows} rows left for {part}, at least {MIN_PART_ROWS} are needed: "
            f"collect more, or change data.split{late}"
        )
    young = f" EXCLUDE ({CAME_AT}, {AGE})" if settings.data.label.young == "weigh" else ""
    sql.execute(
        f"COPY (SELECT labelled.*{young}, rows._row_key FROM labelled POSITIONAL JOIN rows "
        f"WHERE rows._side = {side}) TO {text(str(path))} {PARQUET}"
    )


def check_parts(sql: duckdb.DuckDBPyConnection, settings: Settings, folder: Path) -> dict[str, Any]:
    """Look at the written parts, whatever made them, and stop where one leaks into another.

    Returns:
        for each part its rows, the figure of its labels (`problem.FIGURE`), first and last event.

    Raises:
        UserError: naming the groups, rows or times that stand on two sides, or classes that no
            training row has.
    """
    data = settings.data
    files = {
        part: f"read_parquet({text(str(folder / Path(path).name))})"
        for part, path in SPLITS.items()
    }
    time = name(data.schema_.time) if data.schema_.time else "CAST(NULL AS TIMESTAMP)"
    figure = problem.FIGURE[0]
    figures: dict[str, Any] = {}
    for part, file in files.items():
        query = f"SELECT count(*), {problem.FIGURE[2]}, min({time}), max({time}), max(_known_at) FROM {file}"
        rows, label_figure, first, last, known_at = sql.execute(query).fetchall()[0]
        for earlier, entry in figures.items():
            if data.split.by == "time" and (
                entry["last"] >= first or (entry["known"] or first) > first
            ):
                raise UserError(
                    f"data/split: {earlier} reaches {max(entry['last'], entry['known'] or first)} and "
                    f"{part} starts at {first}: their times overlap; run `split` again"
                )
        span = {"first": first, "last": last, "known": known_at}
        figures[part] = {"rows": rows, figure: label_figure, **span}
    query = "SELECT DISTINCT _y FROM read_parquet(?)"
    paths = [str(folder / f"{part}.parquet") for part in ("train", "valid", "test")]
    train_labels, held_out_labels = (
        sql.execute(query, [sources]).fetchnumpy()["_y"] for sources in (paths[:1], paths[1:])
    )
    if fault := problem_data.lacking(train_labels, held_out_labels, data.label):
        raise UserError(f"params.yaml: data.split: {fault}")
    shared = [(data.split.group, f"values of {data.split.group}")] if data.split.group else []
    bundle = problem_data.bundle(data.label)
    shared += [(bundle, f"{bundle[1:]}s")] if bundle else []
    shared += [("_row_key", "rows")] if data.split.near_duplicate_digits is not None else []
    parts = list(files)
    for column, subject in shared:
        for i, later in enumerate(parts):
            for earlier in parts[:i]:
                query = f"SELECT CAST({name(column)} AS VARCHAR) AS shared FROM"
                leaked = sql.execute(
                    f"{query} {files[later]} WHERE shared IS NOT NULL INTERSECT "
                    f"{query} {files[earlier]} ORDER BY 1 LIMIT 3"
                ).fetchall()
                if leaked:
                    values = ", ".join(row[0] for row in leaked)
                    raise UserError(
                        f"data/split: {subject} stand in both {earlier} and {later}, such as {values}; "
                        f"run `split` again"
                    )
    for entry in figures.values():
        del entry["known"]
        entry[figure] = round(entry[figure], 6)
        for key in ("first", "last"):
            entry[key] = entry[key].isoformat() if entry[key] else None
    return figures


def _gap_tests(sql: duckdb.DuckDBPyConnection, settings: Settings, folder: Path) -> dict[str, Gap]:
    """For each column with gaps in train: their share, and how the label differs where it is missing.

    `gap` is the mean label of the rows without a value less that of the others; `p_value` is of
    Welch's test (1947) with the normal distribution, None where a side has fewer than two rows.
    """
    file = f"read_parquet({text(str(folder / Path(SPLITS['train']).name))})"
    gaps_by_column: dict[str, Gap] = {}
    data = settings.data
    label_columns = {data.label.column, data.label.time} - {data.schema_.time}
    columns = [column for column in stored(settings) if column not in label_columns]
    present = ", ".join(f"count({name(column)})" for column in columns)
    ((total, *counts),) = sql.execute(f"SELECT count(*), {present or 1} FROM {file}").fetchall()
    gaps = [column for column, count in zip(columns, counts, strict=False) if count < total]
    y = "_y" if problem.UNLABELLED is None else f"nullif(_y, {problem.UNLABELLED!r})"
    rows: list[Any] = []
    for start in range(0, len(gaps), COLUMNS_PER_PASS):
        figures = ", ".join(
            f"count(*) FILTER ({side}), avg({y}) FILTER ({side}), var_samp({y}) FILTER ({side})"
            for column in gaps[start : start + COLUMNS_PER_PASS]
            for side in (f"{name(column)} IS NULL", f"{name(column)} IS NOT NULL")
        )
        (row,) = sql.execute(f"SELECT {figures} FROM {file}").fetchall()
        rows += [row[offset : offset + 6] for offset in range(0, len(row), 6)]
    for column, (n, mean, var, n_present, mean_present, var_present) in zip(
        gaps, rows, strict=True
    ):
        gap = None if mean is None or mean_present is None else mean - mean_present
        spreads = None not in (var, var_present)
        error = math.sqrt(var / n + var_present / n_present) if spreads else 0.0
        p = math.erfc(abs(gap) / error / math.sqrt(2)) if gap is not None and error else None
        gaps_by_column[column] = {
            "share": round(n / (n + n_present), 6),
            "gap": None if gap is None else round(gap, 6),
            "p_value": None if p is None else float(f"{p:.4g}"),
        }
    return gaps_by_column
