"""What settings say of each other: the rules that take more than one key.

Whatever `settings.load` accepts, no stage refuses for its form: a rule of form stands here or at its
key, and in no stage. What only the data can tell stays with the stage that reads the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import problem
from .parts import part_hint

if TYPE_CHECKING:
    from .settings import Data, Feature, Settings

# Which column types an encoding can take, and which settings of a feature it reads
TAKES = {
    "number": {"number", "bool", "time"},
    "bins": {"number"},
    "cyclic": {"number", "time"},
    "one_hot": {"category"},
    "ordinal": {"category"},
    "hash": {"category"},
    "target": {"category"},
    "date_parts": {"time"},
    "words": {"text"},
    "characters": {"text"},
    "hashed": {"text"},
    "lengths": {"text"},
    "given": {"text", "image"},
    "network": {"text", "image"},
    "patches": {"image"},
    "course": {"history"},
    "aggregates": {"history"},
}
READS: dict[str, set[str]] = {
    "number": {"impute", "scale", "operation"},
    "bins": {"impute", "bins", "operation"},
    "cyclic": {"period"},
    "one_hot": {"bins"},
    "ordinal": {"order"},
    "hash": {"bins"},
    "target": set(),
    "date_parts": {"parts"},
    "words": {"bins"},
    "characters": {"bins"},
    "hashed": {"bins"},
    "lengths": set(),
    "given": {"encoder", "layer", "length", "means", "spreads"},
    "network": {"encoder", "length"},
    "patches": {"bins"},
    "course": set(),
    "aggregates": set(),
}
# Of `given`, by the type of its column
READS_GIVEN = {"text": {"length"}, "image": {"layer", "means", "spreads"}}
# What each way of `modelling.augmentation` changes
WAYS = {
    **{"noise": "number", "missing": "number", "typos": "text", "deletion": "text"},
    **dict.fromkeys(("light", "flip", "shift", "turn"), "image"),
}
# Ways of `modelling.imbalance` that only boosted trees take, and the candidates that are these alone
BOOSTED_WAYS = dict.fromkeys(("two_phase", "focal"), ("lightgbm", "additive"))
KEYS = sorted(set().union(*READS.values()))
# Of `governance.records`, at least, where the risk is high: logs by Art. 19 and 26 of the AI Act, documentation by Art. 18
RECORD_DAYS = {"answers": 183, "incidents": 3650, "appeals": 3650, "promotions": 3650}
MAX_BINS = 1024  # but for n-grams of texts, which a linear model sums up
# The types that a scale says nothing of: two values have no quartiles, and a rank ends with training as a moment goes on
UNSCALED = {"robust": ("bool",), "rank": ("bool", "time")}
CROSSED = (
    "number",
    "bins",
    "one_hot",
    "hash",
    "target",
)  # the encodings that two columns together can take
STRINGS = ("category", "text")  # the types whose values are strings, which a key can hide
SUMMED = {"text", "image"}  # the types whose columns a linear model sums up
UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}

ALL_TYPES = frozenset({"number", "category", "text", "image", "history", "time", "bool"})
Keys = str | Sequence[str]


class Role(NamedTuple):
    """A column that a setting names: which types will do, and whether it may be one that is dropped."""

    keys: Keys
    column: str | None
    types: frozenset[str] = ALL_TYPES
    may_be_dropped: bool = False


def with_article(noun: str) -> str:
    """A noun after its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def broken(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """Give each rule that the settings break: the key that is to be changed, and what is wrong."""
    for rule in (
        _roles_fit,
        _parts_stand_whole,
        _label_fits,
        _sampling_fits,
        _young_fits,
        _features_fit,
        _histories_fit,
        _numbers_fit,
        _imbalance_fits,
        _monotone_fits,
        _windows_fit,
        _labelling_fits,
        _functions_fit,
        _unlabelled_fits,
        _explained_fits,
        _callers_fit,
        _governance_fits,
        _records_fit,
    ):
        yield from rule(settings)


def _callers_fit(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """Limits by caller need the part that counts callers."""
    if settings.governance is None and settings.serving is not None:
        for limit in ("requests_per_minute", "labels_per_minute"):
            if getattr(settings.serving.limits, limit) is not None:
                yield f"serving.limits.{limit}", f"counts callers; it {part_hint('governance')}"


def _labelling_fits(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """What is promised of people's labels needs people who label, a tolerance numbers, and weighed votes classes."""
    targets, labelling = settings.goals.targets, settings.labelling
    for target in ("label_agreement", "label_coverage"):
        if getattr(targets, target) is None:
            continue
        key = f"goals.targets.{target}"
        if labelling is None:
            yield key, f"is about people's labels; it {part_hint('labelling')}"
        elif reason := problem.LEFT_OUT.get("label quality"):
            yield key, f"nobody labels here: {reason}"
    if labelling and labelling.tolerance is not None and problem.CLASSES:
        yield "labelling.tolerance", "is for numbers, and the label is a class: write null"
    if labelling and not problem.CLASSES and labelling.aggregation not in ("auto", "majority"):
        yield (
            "labelling.aggregation",
            "weighs votes for classes; numbers are joined by their median: write auto",
        )


def _governance_fits(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """What is promised to those who sign needs the part, a high risk its own checks, and shares add up to 1 at most."""
    governance, targets = settings.governance, settings.goals.targets
    if governance is None:
        for target in ("empty_statements", "monthly_cost", "membership"):
            if getattr(targets, target) is not None:
                yield f"goals.targets.{target}", f"it {part_hint('governance')}"
        return
    for column, shares in governance.groups.items():
        if sum(shares.values()) > 1.001:
            yield ("governance", "groups", column), "shares of one column add up to more than 1"
    roles = governance.roles
    if roles.checks and (roles.fills or "").casefold() == roles.checks.casefold():
        yield "governance.roles.checks", "is who fills in the pages; somebody else checks them"
    if governance.risk != "high":
        return
    if not governance.second_person:
        yield "governance.second_person", "is true where governance.risk is high"
    if targets.empty_statements != 0:
        yield "goals.targets.empty_statements", "is 0 where governance.risk is high"
    if targets.membership is None:
        yield (
            "goals.targets.membership",
            "is promised where governance.risk is high: write 0.2 or less",
        )


def _roles(settings: Settings) -> Iterator[Role]:
    data, evaluation = settings.data, settings.modelling.evaluation
    moment, not_a_time = frozenset({"time"}), ALL_TYPES - {"time"}
    yield Role("data.schema.id", data.schema_.id, may_be_dropped=True)
    yield Role("data.schema.time", data.schema_.time, moment)
    yield Role("data.label.column", data.label.column, not_a_time)
    yield Role("data.label.time", data.label.time, moment)
    yield Role("data.label.solicited", data.label.solicited, frozenset({"bool"}))
    yield Role("data.split.group", data.split.group)
    yield from _roles_of_sampling(data)
    if settings.rollout:
        yield Role("rollout.router.unit", settings.rollout.router.unit)
    if settings.monitoring:
        popularity = settings.monitoring.popularity
        yield Role("monitoring.popularity", popularity, frozenset({"category"}))
        for name, statistic in settings.monitoring.statistics.items():
            # The largest gap of two distributions takes an order
            types = ALL_TYPES - {"time"} - ({"category"} if statistic == "ks" else set())
            yield Role(("monitoring", "statistics", name), name, types)
    for name in data.quasi_identifiers:
        yield Role("data.quasi_identifiers", name, ALL_TYPES - {"text", "image", "history"})
    for name in evaluation.slices:
        yield Role("modelling.evaluation.slices", name, not_a_time)
    for name in evaluation.sensitive:
        yield Role("modelling.evaluation.sensitive", name, may_be_dropped=True)
    for name in evaluation.expectations:
        keys = ("modelling", "evaluation", "expectations", name)
        yield Role(keys, name, frozenset({"number"}))
    for name in settings.governance.groups if settings.governance else ():
        yield Role(("governance", "groups", name), name, frozenset({"category", "bool"}))
    for name in settings.features.hypotheses:
        yield Role(("features", "hypotheses", name), name, frozenset({"number"}))
    yield from _roles_of_histories(data)
    for name, feature in settings.features.catalogue.items():
        for raw in feature.cross or (feature.column or name,):
            yield Role(("features", "catalogue", name), raw, may_be_dropped=True)


def _roles_of_sampling(data: Data) -> Iterator[Role]:
    sampling, types = data.sampling, frozenset({"category", "bool"})
    if sampling.method == "weighted":
        types = frozenset({"number"})
    elif sampling.by == data.label.column and problem.CLASSES:
        types = ALL_TYPES
    yield Role("data.sampling.by", sampling.by, types)
    yield Role("data.sampling.along", sampling.along, frozenset({"category"}))


def _roles_of_histories(data: Data) -> Iterator[Role]:
    numbers = frozenset({"number", "bool"})
    for name, history in data.histories.items():
        keys = ("data", "histories", name)
        yield Role(keys, name, frozenset({"history"}))
        yield Role(keys, history.of, ALL_TYPES if history.of == data.label.column else numbers)
        yield Role(keys, history.by, frozenset({"category", "text"}))
        yield Role(keys, history.known_at, frozenset({"time"}))


def _roles_fit(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """Every column that a setting names stands in the schema, is kept, and has a type that will do."""
    columns = settings.data.schema_.columns
    drops = settings.data.personal == "drop"
    for keys, name, types, may_be_dropped in _roles(settings):
        if name is None:
            continue
        if (column := columns.get(name)) is None:
            fault = "is not a column of data.schema.columns; name one, or null where that may stand"
            yield keys, f"{name!r:.80} {fault}"
        elif column.type not in types:
            allowed = " or ".join(sorted(types))
            actual = with_article(column.type)
            yield keys, f"{name!r:.80} is {actual}; name a column that is {with_article(allowed)}"
        elif column.personal and drops and not may_be_dropped:
            fault = "is personal and data.personal drops it; name a column that is kept"
            yield keys, f"{name!r:.80} {fault}"
    for name, column in columns.items():
        if column.personal and settings.data.personal == "hash" and column.type not in STRINGS:
            reason = f"a personal {column.type} cannot be hashed; make it a category, or drop it"
            yield ("data", "schema", "columns", name), reason


def _histories_fit(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """Histories are of rows that stand by themselves and have a moment, and each encoding has one that it reads."""
    data = settings.data
    for name, history in data.histories.items():
        keys = ("data", "histories", name)
        if problem.HISTORIES:
            yield keys, "rows of series hold their history already: data.label.history"
        elif data.schema_.time is None:
            yield keys, "needs data.schema.time, the column with the moment of an event"
        elif name in (history.of, history.by, history.known_at):
            yield keys, "is made of other columns than itself"
    for name, feature in settings.features.catalogue.items():
        if feature.use and feature.encode == "course" and not problem.HISTORIES:
            reason = (
                "only a forecast goes on with a course; encode: aggregates reads a history here"
            )
            yield ("features", "catalogue", name), reason


def _parts_stand_whole(settings: Settings) -> Iterator[tuple[Keys, str]]:
    columns = settings.data.schema_.columns
    whole = {column.source or name for name, column in columns.items() if column.part is None}
    for name, column in columns.items():
        if column.part and column.source not in whole:
            keys = ("data", "schema", "columns", name, "source")
            yield keys, f"{column.source!r} needs a line of its own, without part"


def _label_fits(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """The label is of the kind that the project's code answers with, and has what it needs."""
    data = settings.data
    if settings.project.problem != problem.NAME:
        reason = f"this project's code answers {problem.NAME}; another kind is another project"
        yield "project.problem", reason
    label, moment = data.label, data.schema_.time
    yield from problem.agreements(settings)
    if data.split.group == label.column:
        reason = f"{label.column!r:.80} is the label; name what its rows have in common"
        yield "data.split.group", reason
    nobody_asked = problem.LEFT_OUT.get("label responses")
    if label.solicited and nobody_asked:
        yield "data.label.solicited", f"write null: {nobody_asked}"
    needs_time = {
        "data.split.by": data.split.by == "time",
        "data.label.time": label.time is not None,
        "data.label.as_of": label.as_of != "latest",
        "data.source.refresh_days": data.source.refresh_days is not None,
        "modelling.warm_start": settings.modelling.warm_start > 0,
    }
    for keys, is_set in needs_time.items():
        if is_set and moment is None:
            yield keys, "needs data.schema.time, the column with the moment of an event"


def _sampling_fits(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """Rows that belong together are drawn together, and only rows that can have weights get them."""
    data, keys = settings.data, "data.sampling.method"
    method, label = data.sampling.method, data.label.column
    if problem.HISTORIES and method not in ("all", "time"):
        yield keys, f"{method} would tear series apart; take all, or the newest origins (time)"
    elif problem.LISTED and method not in ("all", "random", "time"):
        yield keys, f"{method} would tear lists apart; take all, or whole lists by random or time"
    elif problem.UNLABELLED is not None and data.sampling.weighs:
        yield keys, f"{method} gives rows weights, which no method here takes; write random"
    if method == "time" and data.schema_.time is None:
        yield keys, "time needs data.schema.time, the column with the moment of an event"
    if method == "snowball" and label in (data.sampling.by, data.sampling.along):
        yield keys, f"snowball goes from row to row by what they share, not by the label {label}"


def _young_fits(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """Rows that are younger than their label takes are weighed by when labels come: that has to be told."""
    label, key = settings.data.label, "data.label.young"
    if label.young == "leave_out":
        return
    if reason := problem.LEFT_OUT.get("young rows"):
        yield key, f"{reason}; write leave_out"
    elif label.time in (None, settings.data.schema_.time):
        yield key, "weigh needs data.label.time, the column with the moment at which a label came"
    elif not label.delay_days:
        yield key, "weigh needs data.label.delay_days above 0: without a delay no row is young"
    elif settings.data.sampling.method != "all":
        yield key, "weigh takes each row that it can; write leave_out, or data.sampling.method: all"


def _numbers_fit(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """Numbers that the metric or the kind of problem bounds lie within their bounds."""
    target, metric = settings.goals.targets.metric, settings.goals.metric
    low, high = problem.TARGET_RANGE[metric]
    if target is not None and not low <= target <= high:
        yield "goals.targets.metric", f"{target:g} is no {metric}, which is {_between(low, high)}"
    if settings.rollout and settings.rollout.router.mode == "interleave" and not problem.LISTED:
        yield "rollout.router.mode", "interleave mixes two orders, and no lists are answered here"
    floor = settings.data.retention.floor_days
    if settings.serving and floor and (settings.serving.log.keep_days or floor) < floor:
        reason = f"{settings.serving.log.keep_days:g} is less than data.retention.floor_days: {floor:g}, and the floor wins"
        yield "serving.log.keep_days", reason
    if settings.serving and settings.serving.exploration and not problem.EXPLORES:
        yield "serving.exploration", "only a yes or no can be drawn at random; write 0.0"


def _records_fit(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """No setting deletes a record before its floor, and where the risk is high no floor is laxer than RECORD_DAYS."""
    if settings.governance is None:
        return
    records, retention = settings.governance.records, settings.data.retention
    base = "governance.records"
    for kind, least in RECORD_DAYS.items() if settings.governance.risk == "high" else ():
        floor = getattr(records, kind).at_least
        if (floor or 0) < least:
            value = "null" if floor is None else floor
            reason = f"at_least is {value}, and governance.risk: high asks for {least} days or more"
            yield f"{base}.{kind}", reason
    if records.promotions.at_most is not None:
        yield f"{base}.promotions", "git keeps who promoted what for good; write null for at_most"
    at_least, at_most = records.answers.at_least or 0, records.answers.at_most
    keep_days = settings.serving.log.keep_days if settings.serving else None
    for key, days in (
        ("data.retention.days", retention.days),
        ("data.retention.floor_days", retention.floor_days),
        ("serving.log.keep_days", keep_days),
    ):
        if days is not None and days < at_least:
            reason = f"{days:g} is less than {base}.answers.at_least: {at_least}"
            yield key, f"{reason}; write null, or no less"
    if at_most is not None and at_most < (retention.floor_days or 0):
        reason = f"at_most is {at_most}, below data.retention.floor_days: {retention.floor_days:g}"
        yield f"{base}.answers", reason


def _imbalance_fits(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """What is tried for rare classes has classes, plain rows to stand beside, and a calibration that undoes it."""
    modelling, loss = settings.modelling, settings.goals.loss
    if not modelling.imbalance:
        return
    if not problem.REBALANCED:
        yield "modelling.imbalance", "no label here is one of several classes; write []"
    elif modelling.calibration not in problem.REBALANCED:
        ways = " or ".join(problem.REBALANCED)
        reason = f"{modelling.calibration} leaves scores off that modelling.imbalance moves; write {ways}"
        yield "modelling.calibration", reason
    if problem.REBALANCED and loss != "plain":
        reason = f"stands beside plain rows, and goals.loss: {loss} weighs all; write plain there, or [] here"
        yield "modelling.imbalance", reason
    for way in modelling.imbalance:
        names = BOOSTED_WAYS.get(way, modelling.candidates)
        if not {*names} & {*modelling.candidates}:
            yield "modelling.imbalance", f"{way} needs {' or '.join(names)} in modelling.candidates"


def _monotone_fits(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """The candidate that keeps to expectations has some."""
    modelling = settings.modelling
    if "monotone" in modelling.candidates and not modelling.evaluation.expectations:
        reason = (
            "monotone keeps to modelling.evaluation.expectations, and there are none; leave it out"
        )
        yield "modelling.candidates", reason


def _windows_fit(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """The windows of the monitor hold enough rows, and a report looks back far enough."""
    if (monitoring := settings.monitoring) is None:
        return
    window, min_rows = monitoring.window, monitoring.min_rows
    if isinstance(window, int) and window < min_rows:
        reason = f"a window of {window} rows is never judged: min_rows is {min_rows}"
        yield "monitoring.window", reason
    if isinstance(window, str) and int(window[:-1]) * UNIT_SECONDS[window[-1]] > 366 * 86_400:
        yield "monitoring.window", f"{window} is longer than a year"
    looked_back = {
        "monitoring.retraining.violations": monitoring.retraining.violations,
        "monitoring.trend_windows": monitoring.trend_windows,
    }
    reason = f"never reached: a report looks back {monitoring.windows} windows (monitoring.windows)"
    for key, count in looked_back.items():
        if count > monitoring.windows:
            yield key, reason


def _between(low: float, high: float) -> str:
    if high == float("inf"):
        return f"at least {low:g}"
    return f"at most {high:g}" if low == -float("inf") else f"between {low:g} and {high:g}"


def _features_fit(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """Features that are used and known at prediction time fit their columns, and there is one."""
    chosen = {n: f for n, f in settings.features.catalogue.items() if f.use and f.known}
    if not chosen:
        yield "features.catalogue", "no feature is both used and known at prediction time"
    augmentation = settings.modelling.augmentation
    types = {settings.data.schema_.columns[raw].type for raw in _sources(chosen)}
    for way in augmentation.ways if augmentation.copies else ():
        if WAYS[way] not in types:
            fault = f"{way} changes {with_article(WAYS[way])}, and the model reads none; remove it"
            yield "modelling.augmentation.ways", fault
    for name in sorted({*settings.features.delete_rows} - _sources(chosen)):
        fault = "no feature that is used is made from it, so no model misses it; remove the line"
        yield ("features", "delete_rows", name), fault
    for name, feature in settings.features.catalogue.items():
        if feature.reason and name in chosen:
            fault = "reason says why a feature is left out; remove it, or write use: false"
            yield ("features", "catalogue", name), fault
    for name, feature in chosen.items():
        reason = _wrong_columns(name, feature, settings) or _wrong_keys(feature)
        if reason := reason or _wrong_encoder(name, feature, settings):
            yield ("features", "catalogue", name), reason


def _sources(features: Mapping[str, Feature]) -> set[str]:
    """The raw columns that features are made from."""
    return {
        raw
        for name, feature in features.items()
        for raw in feature.cross or (feature.column or name,)
    }


def _wrong_columns(name: str, feature: Feature, settings: Settings) -> str | None:
    """Why a feature cannot be made from its columns, or None."""
    data, encode = settings.data, feature.encode
    roles = {
        data.label.column: "the label",
        data.label.time: "the time at which the label became known",
        data.label.solicited: "whether a user was asked",
        data.schema_.id: "the identifier of a row",
    }
    for raw in feature.cross or (feature.column or name,):
        column = data.schema_.columns[raw]
        if raw in roles:
            return f"{raw} is {roles[raw]}; a model that sees it learns nothing: use: false"
        if column.personal and data.personal == "drop":
            return f"{raw} is personal and data.personal drops it; remove the feature"
        if column.type not in TAKES[encode]:
            allowed = " or ".join(sorted(TAKES[encode]))
            return f"encode: {encode} needs {with_article(allowed)} column, {raw} is {column.type}"
        if encode == "cyclic" and (column.type == "time") != isinstance(feature.period, str):
            return "period must be day, week or year for a time, a number for a number"
        if feature.cross and column.type == "time":
            return "a time cannot be crossed"
        if column.type in UNSCALED.get(feature.scale or "", ()):
            return f"scale: {feature.scale} means nothing to a {column.type}; write standard, or remove it"
    return None


def _wrong_keys(feature: Feature) -> str | None:
    """Which key means nothing to a feature's encoding, is missing or has a wrong value, or None."""
    encode = feature.encode
    if feature.cross and feature.column:
        return "cross names its columns; remove column"
    if feature.cross and encode not in CROSSED:
        return f"encode: {encode} cannot cross; use hash or one_hot, number or bins for numbers"
    if feature.cross and feature.cross[0] == feature.cross[1]:
        return "cross needs two different columns"
    if feature.operation and not feature.cross:
        return "operation joins the two numbers of a cross; remove it"
    if encode == "target" and problem.UNLABELLED is not None:
        return "encode: target needs the labels of training rows, and here they are seldom known; use one_hot or hash"
    if encode == "date_parts" and not feature.parts:
        return "encode: date_parts needs parts, such as [hour, weekday]"
    for key in KEYS:
        if getattr(feature, key) is not None and key not in READS[encode]:
            return f"{key} means nothing to encode: {encode}; remove it"
    if feature.bins and feature.bins > MAX_BINS and not TAKES[encode] & SUMMED:
        return f"bins: {feature.bins} are columns of a dense matrix; at most {MAX_BINS}"
    if encode in ("bins", "hash") and feature.bins is None:
        return f"encode: {encode} needs bins"
    if encode == "ordinal" and not feature.order:
        return "encode: ordinal needs order, its categories from the lowest to the highest"
    return None


def _wrong_encoder(name: str, feature: Feature, settings: Settings) -> str | None:
    """Which key of a given encoder is missing, means nothing to the column or does not fit it, or None."""
    if feature.encode == "network" and settings.networks is None:
        return f"encode: network {part_hint('networks')}"
    if feature.encode not in ("given", "network"):
        return None
    column = settings.data.schema_.columns[feature.column or name]
    if feature.encode == "network":
        is_wrong = feature.length and column.type != "text"
        return "length means nothing to a network of images; remove it" if is_wrong else None
    if feature.encoder is None:
        file = "the file of a network" if column.type == "image" else "its folder"
        return f"encode: given needs encoder, {file}"
    for type_, keys in READS_GIVEN.items():
        for key in sorted(keys):
            if type_ != column.type and getattr(feature, key) is not None:
                return f"{key} means nothing to an encoder of {column.type}; remove it"
    channels = 1 if column.colours == "grey" else 3
    for key in ("means", "spreads"):
        values = getattr(feature, key)
        if values is not None and len(values) not in (1, channels):
            return f"{key} holds {len(values)} numbers: write 1 or {channels}, for each channel of its images"
    return None


def _functions_fit(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """Rules label rows of kinds of answer whose labels they can name, for models that take weights."""
    if not settings.labelling:
        return
    functions, key = settings.labelling.functions, "labelling.functions"
    yield from _stands_as_it_may(functions, key, "label functions")
    if functions is None:
        return
    if functions.labels < 1 and settings.data.schema_.id is None:
        yield f"{key}.labels", "needs data.schema.id, which rows are drawn by; write 1"
    networks = [n for n, f in settings.features.catalogue.items() if f.encode == "network"]
    if functions.combine != "none" and networks:
        yield f"{key}.combine", f"{networks[0]} (encode: network) takes no weights; write none"


def _explained_fits(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """Answers are explained of problems where a column adds to a score."""
    reason = problem.LEFT_OUT.get("reasons")
    if reason and settings.serving and settings.serving.explain:
        yield "serving.explain", f"write false: {reason}"


def _stands_as_it_may(block: Any, key: str, subject: str) -> Iterator[tuple[Keys, str]]:
    """A block is there unless it says nothing of this kind of problem."""
    reason = problem.LEFT_OUT.get(subject)
    if reason and block:
        yield key, f"leave this block out: {reason}"
    elif block is None and not reason:
        yield key, "is missing"


def _unlabelled_fits(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """Labels of models are tried beside labels of people, and for what a model can be sure of."""
    if not settings.labelling:
        return
    unlabelled, key = settings.labelling.unlabelled, "labelling.unlabelled"
    yield from _stands_as_it_may(unlabelled, key, "unlabelled rows")
    if unlabelled is None or not unlabelled.ways:
        return
    way = unlabelled.ways[0]
    if settings.labelling.functions and settings.labelling.functions.combine != "none":
        reason = (
            "the rules label these rows already: write null, or labelling.functions.combine: none"
        )
        yield f"{key}.{way}", reason
    if way == "self_training" and {*settings.modelling.candidates} <= {"stacked"}:
        yield f"{key}.{way}", "a stack takes none; name another of modelling.candidates, or null"
