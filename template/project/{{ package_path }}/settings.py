"""params.yaml, typed and frozen.

A key that is unknown, missing or of the wrong type is refused with the file, the line, the key and
what is allowed. Every module may import from here; this module imports only the problem's vocabulary.
"""

from __future__ import annotations

import io
import json
import re
import reprlib
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, SequenceNode

from .agreements import STRINGS, broken, with_article
from .parts import PARTS, part_hint, parts_here
from .paths import SETTINGS_FILE
from .problem import (
    CalibrationName,
    Candidate,
    Costs,
    Decision,
    Expectation,
    LabelKeys,
    Loss,
    MetricName,
    OwnServing,
    OwnTargets,
    Score,
)

# Bounds on both sides: a number that no clock, file or database can hold is a slip of the finger
Share = Annotated[float, Field(ge=0, le=1)]
AboveZero = Annotated[float, Field(gt=0, le=1e12)]
Seconds = Annotated[float, Field(gt=0, le=366 * 86_400)]
Count = Annotated[int, Field(ge=1, le=10**9)]
SmallCount = Annotated[int, Field(ge=1, le=1000)]
Mean = Annotated[float, Field(ge=-1000, le=1000)]  # of a channel of images
Spread = Annotated[float, Field(ge=1e-4, le=1000)]
ByChannel = Field(min_length=1, max_length=3)


class UserError(Exception):
    """Wrong use or bad input: the command line prints the message alone and exits with 2."""


MIN_PART_ROWS = 20  # of a part of the split, fewer of which say nothing
# Where the service's histogram of seconds is cut, by which alerts know what was slow
LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
# What comes with neither `uv sync` nor `pip install -e .` -> the words that bring it, after uv and after pip
INSTALL_EXTRAS = {
    "python_calamine": ("sync --group excel", "install --group excel"),
    "pillow": ("add --group scoring pillow", "install pillow"),
    "tokenizers": ("sync --group encoders", "install --group encoders"),
    "zensical": ("sync --group site", "install --group site"),
    "mlflow": ("sync --group mlflow", "install --group mlflow"),
    "wandb": ("sync --group wandb", "install --group wandb"),
    **dict.fromkeys(
        ("alembic", "sqlalchemy", "sqlparse"),
        ("sync --group mlflow-local", "install --group mlflow-local"),
    ),
    "imbalanced-learn": ("sync --group imbalance", "install --group imbalance"),
    "optuna": ("sync --group tuning", "install --group tuning"),
    "ray": ("sync --group cluster", "install --group cluster"),
    **dict.fromkeys(
        ("torch", "transformers", "safetensors"), ("sync --group torch", "install --group torch")
    ),
} | {
    f"dvc[{kind}]": (f"add 'dvc[{kind}]'", f"install 'dvc[{kind}]'")
    for kind in ("s3", "gs", "azure", "ssh")
}


def missing_library(library: str) -> UserError:
    """What to say of a library that is not installed: the commands that bring it."""
    by_uv, by_pip = INSTALL_EXTRAS.get(library, ("sync", "install -e ."))
    return UserError(f"{library} is not installed: `uv {by_uv}`, or without uv `pip {by_pip}`")


def require_file(path: Path) -> Path:
    """A file that an earlier stage leaves, if it did.

    Raises:
        UserError: when it is not there.
    """
    if not path.is_file():
        raise UserError(f"{path} is not here: `run` makes it, or the stages before this one")
    return path


def read_text(path: Path) -> str:
    """A file's text, its line ends as they are.

    Raises:
        UserError: when the file is not UTF-8, or holds the marks of a merge that was left open.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    if mark := re.search(r"^(<<<<<<<|>>>>>>>)( |$)", text, re.M):
        line = text.count("\n", 0, mark.start()) + 1
        raise UserError(
            f"{path}:{line}: holds the marks of a merge: `resolve` settles what the pipeline wrote, "
            "all else is mended by hand"
        )
    return text


def read_json(path: Path) -> Any:
    """What a report or a manifest holds.

    Raises:
        UserError: as `read_text`, or when it is not JSON or not here.
    """
    try:
        return json.loads(read_text(require_file(path)))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}; `run` writes it again") from None


def _each_once(values: tuple[str, ...]) -> tuple[str, ...]:
    if repeated := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"{repeated[0]!r:.80} is named twice")
    return values


EachOnce = AfterValidator(_each_once)
CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"


class Block(BaseModel):
    """What all blocks of params.yaml share: frozen, no key that is unknown, no infinite number."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True
    )


def _like(pattern: str, description: str) -> AfterValidator:
    """A text of a given form, or a refusal that says in words which form."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{value!r:.80} is not allowed: write {description}")
        return value

    return AfterValidator(check)


_LINE = rf"[^\s{CONTROL}]([^{CONTROL}]*[^\s{CONTROL}])?"


def _one_line(value: str) -> str:
    if not re.fullmatch(_LINE, value):
        raise ValueError(
            f"{value!r:.80} is not allowed: write a text on one line, without blank ends"
        )
    return value


Text = Annotated[str, AfterValidator(_one_line)]
FilePath = Annotated[str, _like(rf"(?=.*\S)[^{CONTROL}]+", "a file, a folder or a glob of files")]

# A format as both the database and Python's strptime read it; the words are those of data/times.py
_FIELD = r"%([aAbBfGpuUVwWzZ%]|-?[dHIjmMSy]|Y)"
_FORMATS = rf"(?s)([^%]|{_FIELD})*{_FIELD}([^%]|{_FIELD})*|epoch_(s|ms|us|ns)|excel|quarter|iso"
_FORMAT_WORDS = "it as %d.%m.%Y, epoch_s, epoch_ms, epoch_us, epoch_ns, excel, quarter or iso"
_WEBHOOK = "an address that begins with https://, or the name of an environment variable"
_PARTS = "first, second, host, count or has ITEM"
_PART_TYPES = {
    "first": "number", "second": "number", "count": "number", "host": "category", "has": "bool"
}  # fmt: skip


class Project(Block):
    """What the project is called, which kind of problem it is, and the seed of all that is drawn."""

    name: Text
    slug: Annotated[str, _like(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", "small letters, digits and hyphens")]
    problem: str
    seed: Annotated[int, Field(ge=0, lt=2**31)]


class IntervalSettings(Block):
    """How intervals of figures are made: their level, and how many resamples they are drawn from."""

    level: Annotated[float, Field(gt=0.5, lt=1)]
    resamples: Annotated[int, Field(ge=50, le=10_000)]


class Targets(Block, OwnTargets):
    """What was promised. `null` means not promised yet: measured and shown, never failed."""

    metric: float | None
    margin_over_baseline: float | None
    loss_to_production: Annotated[float, Field(ge=0)] | None
    worst_slice: Share | None
    calibration_error: Annotated[float, Field(ge=0)] | None
    perturbation: Annotated[float, Field(ge=0)] | None
    invariance: Annotated[float, Field(ge=0)] | None
    direction: Share | None
    confidence: float | None
    latency_p99_ms: AboveZero | None
    error_rate: Share | None
    label_agreement: Annotated[float, Field(ge=-1, le=1)] | None = None  # of the part labelling
    label_coverage: Share | None = None
    empty_statements: Annotated[int, Field(ge=0, le=100)] | None = None  # of the part governance
    monthly_cost: AboveZero | None = None
    membership: Share | None = None


class Goals(Block):
    """What is wanted: the metric, what decisions cost, and what was promised."""

    metric: MetricName
    also: Annotated[tuple[MetricName, ...], EachOnce]
    costs: Costs
    decision: Literal["costs"] | Decision
    loss: Loss
    interval: IntervalSettings
    undecided: Literal["estimate", "blocks"]
    targets: Targets


def _enough_memory(value: str) -> str:
    """At least 10 MB, below which no table can be joined."""
    amount = float(re.sub(r"[^\d.]", "", value)) * (1000 if "G" in value else 1)
    if amount < 10:
        raise ValueError(f"{value!r:.80} is not allowed: the database needs 10MB at least")
    return value


class Source(Block):
    """Where the events come from: the project's own sample, files, or a query."""

    kind: Literal["sample", "files", "sql"]
    rows: Count | None
    paths: tuple[FilePath, ...]
    images: FilePath | None = None  # the folder that paths of images start from
    versions: dict[Count, tuple[FilePath, ...]] = Field(default_factory=dict)
    refresh_days: AboveZero | None = None
    expected: Annotated[str, Field(min_length=1)] | None = None
    tolerance: Share = 0.0
    attach: tuple[str, ...]
    query: Annotated[str, Field(min_length=1)] | None
    memory_limit: Annotated[
        str,
        _like(r"\d{1,6}(\.\d{1,3})?\s?[MG]i?B", "500MB or 1.5GB"),
        AfterValidator(_enough_memory),
    ]

    @model_validator(mode="after")
    def _complete(self) -> Source:
        if self.kind == "files" and not self.paths:
            raise ValueError("kind: files needs at least one entry under paths")
        if self.kind == "sql" and not self.query:
            raise ValueError("kind: sql needs a query")
        if self.kind == "sample" and self.rows is None:
            raise ValueError("kind: sample needs rows, the number of events to make")
        if self.kind != "files" and self.versions:
            raise ValueError("versions are of files: kind: files")
        return self


# Which keys only columns of some types can have
KEY_TYPES = {
    "units": ("number",),
    "decimal": ("number", "category"),
    "min": ("number",),
    "max": ("number",),
    "allowed": STRINGS,
    "size": ("image",),
    "colours": ("image",),
    "fit": ("image",),
    "formats": ("time",),
    "length": ("history",),
}


class ColumnSettings(Block):
    """One column of an event, as it must arrive."""

    type: Literal["number", "category", "text", "image", "history", "time", "bool"]
    # The column's name in the source, when it differs
    source: Annotated[str, Field(min_length=1)] | None = None
    # What is taken from a text: first or second of two numbers, an address's host, the count of a
    # list, or whether it has an item
    part: Annotated[str, _like(r"first|second|host|count|has .+", _PARTS)] | None = None
    missing: tuple[Annotated[str, Field(min_length=1)], ...] | None = None  # that mean no value
    decimal: Literal[".", ","] | None = None  # of numbers as people write them, such as 1,234.5
    units: Annotated[dict[str, AboveZero], Field(min_length=1)] | None = None  # unit -> factor
    required: bool = False
    unique: bool = False
    min: float | None = None
    max: float | None = None
    allowed: Annotated[tuple[str, ...], Field(min_length=1), EachOnce] | None = None
    # How a time is written: as strptime spells it, or counted from 1970, or as a word says
    formats: (
        Annotated[
            tuple[Annotated[str, _like(_FORMATS, _FORMAT_WORDS)], ...],
            Field(min_length=1),
            EachOnce,
        ]
        | None
    ) = None
    size: Annotated[int, Field(ge=8, le=512)] | None = None  # of an image, in pixels a side
    colours: Literal["rgb", "grey"] | None = None
    fit: Literal["crop", "stretch", "pad"] | None = None  # of an image that is not square
    length: Annotated[int, Field(ge=4, le=2000)] | None = (
        None  # of a history: how many values, the latest last
    )
    personal: bool = False

    @model_validator(mode="after")
    def _agrees(self) -> ColumnSettings:
        """What a key means depends on the type."""
        for key, types in KEY_TYPES.items():
            if getattr(self, key) is not None and self.type not in types:
                allowed, actual = with_article(" or ".join(types)), with_article(self.type)
                raise ValueError(f"{key} is for {allowed}, this is {actual}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min: {self.min:g} is above max: {self.max:g}; no value would do")
        if self.part and self.source is None:
            raise ValueError("part needs source, the column of the source that it is taken from")
        kind = _PART_TYPES.get((self.part or "").partition(" ")[0], self.type)
        if self.type != kind:
            raise ValueError(f"part: {self.part} gives a {kind}, not a {self.type}")
        return self


# What a column's name may not be -> why
MISNAMED = {
    r"^[_(]": "a name that begins with _ or ( is the project's own",
    r"^$|^\s|\s$": "a name is not empty, and has no blank at either end",
    r'["\\]': "a name has no quote mark and no backslash",
    rf"[{CONTROL}]": "a name has no line break, tab or other control character",
}


def _misnamed(name: str) -> str:
    """What is wrong with the name of a column or a feature, or nothing."""
    return next((reason for sign, reason in MISNAMED.items() if re.search(sign, name)), "")


class Schema(Block):
    """What an event holds: its columns, and which of them is its id and which its time."""

    version: Count
    id: str | None
    time: str | None
    columns: dict[str, ColumnSettings]

    @model_validator(mode="after")
    def _names(self) -> Schema:
        """Names that begin with an underscore are the project's own; the database knows no case."""
        lower: dict[str, str] = {}
        for name in self.columns:
            fault = _misnamed(name)
            if twin := lower.setdefault(name.lower(), name) if not fault else "":
                fault = f"differs from {twin!r} in its case alone" if twin != name else ""
            if fault:
                keys = ("data", "schema", "columns", name)
                raise Misplaced(keys, f"{fault}; take another name, with source: {name!r:.40}")
        return self


# As the database reads it too
_MOMENT = r"latest|\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?)?"


def _on_the_calendar(value: str) -> str:
    try:
        if value != "latest":
            datetime.fromisoformat(value)
    except ValueError as error:
        raise ValueError(
            f"{value!r:.80} is no moment ({error}): write latest or 2026-01-31"
        ) from None
    return value


class Retention(Block):
    """How many days rows are kept at most, and at least."""

    days: AboveZero | None = None
    floor_days: AboveZero | None = None  # of a law or a contract; it wins

    @model_validator(mode="after")
    def _floor_wins(self) -> Retention:
        if self.days is not None and self.floor_days is not None and self.days < self.floor_days:
            raise ValueError(
                f"days: {self.days:g} is less than floor_days: {self.floor_days:g}, and the floor wins: write no less"
            )
        return self


class History(Block):
    """A column of earlier values: of which column, of which rows, and since when each was known."""

    of: str
    by: str
    known_at: str | None = None  # null: a value is known from its row's moment on


class LabelSettings(Block, LabelKeys):
    """Which column is the label, where labels come from, and how many days they take."""

    time: str | None
    source: Literal["natural", "user", "team", "algorithm"]
    solicited: str | None = None  # the column that says that a user was asked at random
    delay_days: Annotated[float, Field(ge=0, le=36_525)] | None
    as_of: Annotated[str, _like(_MOMENT, "latest or 2026-01-31"), AfterValidator(_on_the_calendar)]
    young: Literal["leave_out", "weigh"] = "leave_out"

    @field_validator(*sorted({*LabelKeys.model_fields} - {"column"}))
    @classmethod
    def _on_one_line(cls, value: Any) -> Any:
        texts = [value] if isinstance(value, str) else value
        for text in texts if isinstance(texts, (list, tuple)) else ():
            _one_line(text)
        return value


class Split(Block):
    """How the labelled rows are parted into train, valid and test; `valid` and `test` are shares."""

    by: Literal["time", "group", "random"]
    group: str | None
    valid: Annotated[float, Field(gt=0, lt=0.5)]
    test: Annotated[float, Field(gt=0, lt=0.5)]
    near_duplicate_digits: Annotated[int, Field(ge=1, le=12)] | None

    @model_validator(mode="after")
    def _complete(self) -> Split:
        if self.by == "group" and not self.group:
            raise ValueError("by: group needs group, the column whose values stay on one side")
        return self


# Method -> the keys that it needs, of `a|b` a single one, and those that it reads as well
_SAMPLING: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "all": ((), ()),
    "random": (("rows|share",), ()),
    "stratified": (("rows|share", "by"), ("mix",)),
    "weighted": (("rows|share", "by"), ()),
    "reservoir": (("rows",), ()),
    "importance": (("by", "mix"), ()),
    "time": (("rows|days",), ()),
    "quota": (("rows", "by", "mix"), ()),
    "snowball": (("by", "along", "seeds", "waves"), ()),
}


class Sampling(Block):
    """Which of the rows are taken: by which method, how many, by which column."""

    method: Literal[
        "all", "random", "stratified", "weighted", "reservoir", "importance",
        "time", "quota", "snowball",
    ] = "all"  # fmt: skip
    rows: Count | None = None
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    by: str | None = None
    mix: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=dict)
    days: AboveZero | None = None
    along: str | None = None
    seeds: Annotated[tuple[Text, ...], EachOnce] = ()
    waves: Annotated[int, Field(ge=1, le=100)] | None = None

    @property
    def by_chance(self) -> bool:
        """Whether the chance of each row is known: what is drawn speaks for all rows."""
        return self.method not in ("time", "quota", "snowball")

    @property
    def weighs(self) -> bool:
        """Whether rows have unequal chances, so that each counts by its weight."""
        return self.method in ("stratified", "weighted", "importance")

    @model_validator(mode="after")
    def _complete(self) -> Sampling:
        needs, also = _SAMPLING[self.method]
        reads = {key for choice in (*needs, *also) for key in choice.split("|")}
        is_set = [key for key in type(self).model_fields if key != "method" and getattr(self, key)]
        if idle := [key for key in is_set if key not in reads]:
            raise ValueError(f"method: {self.method} does not read {idle[0]}; leave it empty")
        for choice in needs:
            count = len(set(choice.split("|")) & {*is_set})
            if count != 1:
                fault = "needs" if count == 0 else "takes only one of"
                raise ValueError(f"method: {self.method} {fault} {choice.replace('|', ' or ')}")
        if self.mix and abs(sum(self.mix.values()) - 1) > 1e-6:
            raise ValueError(f"mix: its shares add up to {sum(self.mix.values()):g}, not to 1")
        return self


class Data(Block):
    """The segment of the data: source, schema, label and split."""

    source: Source
    schema_: Schema = Field(alias="schema")
    personal: Literal["drop", "hash", "keep"]
    mask: Annotated[tuple[Literal["email", "phone", "card"], ...], EachOnce]
    retention: Retention = Field(default_factory=Retention)
    quasi_identifiers: Annotated[tuple[str, ...], EachOnce] = ()
    max_refused: Share = 0.5
    histories: dict[str, History] = Field(default_factory=dict)
    label: LabelSettings
    sampling: Sampling = Field(default_factory=Sampling)
    split: Split


DatePart = Literal["hour", "weekday", "weekend", "day", "month", "quarter", "year"]


class Feature(Block):
    """How one column becomes one feature."""

    family: Literal["entity", "object", "cross", "context"]
    known: bool = True  # known at prediction time
    use: bool = True
    owner: Text | None = None  # who looks after it
    cost: Annotated[float, Field(ge=0, le=1e12)] = 0.0  # a month, to have it
    impute: Literal["median", "mean", "zero", "constant", "flag"] | None = None
    reason: Text | None = None  # why it is left out
    scale: Literal["standard", "robust", "rank"] | None = None
    encode: Literal[
        "number",
        "bins",
        "one_hot",
        "ordinal",
        "hash",
        "target",
        "cyclic",
        "date_parts",
        "words",
        "characters",
        "hashed",
        "lengths",
        "patches",
        "course",
        "aggregates",
        "given",
        "network",
    ]
    bins: Annotated[int, Field(ge=2, le=20_000)] | None = None
    period: Literal["day", "week", "year"] | AboveZero | None = None
    parts: Annotated[tuple[DatePart, ...], Field(min_length=1), EachOnce] | None = None
    order: Annotated[tuple[str, ...], EachOnce] | None = None
    cross: tuple[str, str] | None = None
    operation: Literal["product", "ratio", "difference"] | None = None  # of two numbers: a product
    column: str | None = None  # that it is made from, when the feature has another name
    # Of `given`: the network's file, or of a text its folder; of `network`: the folder that it starts from
    encoder: FilePath | None = None
    layer: Text | None = None  # an output inside of the network, in place of its own
    length: Annotated[int, Field(ge=8, le=4096)] | None = None  # of a text, in tokens
    means: Annotated[tuple[Mean, ...], ByChannel] | None = None  # taken off values from 0 to 1
    spreads: Annotated[tuple[Spread, ...], ByChannel] | None = None  # and what they are divided by


class Features(Block):
    """The features by name, from which score on one alone is taken for a leak, and which gaps no model learns from:
    column -> why."""

    leak_score: Annotated[float, Field(gt=0.5, le=1)]
    hypotheses: dict[str, Expectation]
    delete_rows: dict[str, Text] = Field(default_factory=dict)
    catalogue: dict[str, Feature]

    @model_validator(mode="after")
    def _names(self) -> Features:
        for name in self.catalogue:
            if fault := _misnamed(name):
                raise Misplaced(("features", "catalogue", name), fault)
        return self


class Evaluation(Block):
    """How a model's behaviour is tested: slices, sensitive columns, expectations, noise."""

    slices: Annotated[tuple[str, ...], EachOnce]
    min_slice_rows: Count
    sensitive: Annotated[tuple[str, ...], EachOnce]
    expectations: dict[str, Expectation]
    perturbation: Share


class Boosting(Block):
    """How the size of boosted trees is found."""

    leaves: Annotated[
        tuple[Annotated[int, Field(ge=2, le=1024)], ...],
        Field(min_length=1, max_length=10),
        EachOnce,
    ]
    max_trees: Annotated[int, Field(ge=10, le=20_000)]
    patience: Count
    held_out: Annotated[float, Field(gt=0, le=0.5)]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    min_leaf_rows: Count
    feature_share: Annotated[float, Field(gt=0, le=1)]
    l2: Annotated[float, Field(ge=0, le=1e12)]


class Linear(Block):
    """How the linear candidate is held back."""

    l2: Annotated[float, Field(gt=0, le=1e12)] = 1.0


class Forest(Block):
    """The size of a random forest."""

    trees: Annotated[int, Field(ge=10, le=1000)]
    min_leaf_rows: Count


class FewRows(Block):
    """How models are chosen where a validation part would be too small to choose by."""

    below: Annotated[int, Field(ge=0, le=10**9)]
    also: Annotated[tuple[Candidate, ...], EachOnce]
    folds: Annotated[int, Field(ge=2, le=20)]
    repeats: Annotated[int, Field(ge=1, le=20)]


Way = Literal["noise", "missing", "typos", "deletion", "light", "flip", "shift", "turn"]


Rebalancing = Literal[
    "class_weights", "costs", "under_sampling", "tomek_links", "smote", "two_phase", "focal"
]


class Augmentation(Block):
    """Changed copies of training rows: how many of each, in which ways, and how much of a value changes."""

    copies: Annotated[int, Field(ge=0, le=20)]
    ways: Annotated[tuple[Way, ...], Field(min_length=1), EachOnce]
    share: Share


class Modelling(Block):
    """Which models are compared, within which limits, and how the chosen one is calibrated."""

    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1), EachOnce]
    boosting: Boosting
    forest: Forest
    linear: Linear = Linear()
    few_rows: FewRows
    refit: bool
    calibration: CalibrationName
    interpretable: bool
    max_size_mb: AboveZero
    max_fit_seconds: AboveZero
    threads: SmallCount
    warm_start: Share
    augmentation: Augmentation = Augmentation(copies=0, ways=("noise",), share=0.02)
    imbalance: Annotated[tuple[Rebalancing, ...], EachOnce] = ()
    parity: AboveZero
    evaluation: Evaluation


class Hardware(Block):
    """How the exported model is run on this hardware: rows in a call, calls at once, and ONNX Runtime's own choices."""

    rows: Count = 20_000
    threads: Count | None = None  # None: all cores
    graph: Literal["none", "basic", "extended", "all"] = "all"
    provider: Annotated[Text, Field(pattern="^[A-Za-z]+ExecutionProvider$")] = (
        "CPUExecutionProvider"
    )


class Scoring(Block):
    """What holds of every answer, in files and in the service."""

    out_of_range: Literal["flag", "refuse"]
    review_margin: Annotated[float, Field(ge=0, le=1e12)]
    hardware: Hardware = Hardware()
    online_store: FilePath | None = None  # what is known by key, as `materialize` writes it


class Limits(Block):
    """What one request, and all that are open, may take up of the service."""

    rows: Annotated[int, Field(ge=1, le=1_000_000)]
    body_mb: Annotated[float, Field(gt=0, le=1024)]
    seconds: Seconds
    header_kb: Annotated[float, Field(ge=1, le=1000)]
    connections: Annotated[int, Field(ge=8, le=100_000)]
    idle_seconds: Seconds
    stop_seconds: Annotated[float, Field(ge=1, le=600)]
    requests_per_minute: Annotated[int, Field(ge=1, le=10**9)] | None = (
        None  # of the part governance
    )
    labels_per_minute: Annotated[int, Field(ge=1, le=10**9)] | None = None


class LogSettings(Block):
    """When the log of predictions is written, when it begins a new file, and how long it is kept."""

    flush_seconds: Seconds
    rotate_seconds: Seconds
    keep_days: Annotated[float, Field(ge=1, le=36_600)] | None


class Serving(Block, OwnServing):
    """The HTTP service: its port, limits, log, and what it answers when no model can."""

    port: Annotated[int, Field(ge=1, le=65535)]
    limits: Limits
    timeout_ms: Annotated[float, Field(gt=0, le=3_600_000)]
    images: FilePath | None = None  # the folder of images that requests may name
    fallback: Score
    ready: Literal["model", "any"]
    log: LogSettings
    exploration: Share
    explain: bool = False  # whether answers are explained on request


class RouterSettings(Block):
    """Which share of the requests a second model answers, and how that share changes."""

    mode: Literal["single", "shadow", "canary", "ab", "bandit", "interleave"]
    experiment: Annotated[Text, Field(max_length=100)]  # each row of the log holds the name
    unit: str | None
    share: Share
    steps: Annotated[tuple[Share, ...], Field(min_length=1)]
    step_seconds: Seconds
    step_requests: Count
    policy: Literal["thompson", "epsilon_greedy"]
    epsilon: Share

    @model_validator(mode="after")
    def _rising(self) -> RouterSettings:
        if list(self.steps) != sorted(set(self.steps)) or self.steps[0] == 0:
            raise ValueError("steps: each share must be above the one before, the first above 0")
        return self


class Verdict(Block):
    """What an experiment compares two models by, and which effect it must be able to see."""

    metric: Literal["value", "reward"]
    effect: AboveZero
    power: Annotated[float, Field(gt=0.5, lt=1)]


class Learning(Block):
    """Of the model that goes on learning: what one call takes at most, and what its past counts for against it."""

    rows: Annotated[int, Field(ge=100, le=1_000_000)] = 20_000
    memory_rows: Annotated[float, Field(ge=1)] = 5000


class Rollout(Block):
    """A second model: who gets which, what decides between the two, and how one goes on learning."""

    router: RouterSettings
    verdict: Verdict
    learning: Learning = Learning()


class CompressionSettings(Block):
    """How much of the metric a smaller copy of the model may lose, as a share, and the ways to make one."""

    max_loss: Share
    ways: Annotated[
        tuple[Literal["distillation", "fewer_trees", "low_rank", "eight_bits"], ...],
        EachOnce,
        Field(min_length=1),
    ] = ("distillation", "fewer_trees", "low_rank", "eight_bits")


ImageWay = Literal["shift", "flip", "turn", "light", "noise"]


class ImageNetworkSettings(Block):
    """The convolutional network of an image, and how it is trained."""

    widths: Annotated[
        tuple[Annotated[int, Field(ge=2, le=2048)], ...], Field(min_length=1, max_length=8)
    ]
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch: Annotated[int, Field(ge=2, le=10_000)]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    ways: Annotated[tuple[ImageWay, ...], EachOnce]
    mixing: Annotated[float, Field(ge=0, le=10)]


class TextNetworkSettings(Block):
    """The transformer of a text, and how it is trained."""

    width: Annotated[int, Field(ge=8, le=8192)]
    layers: Annotated[int, Field(ge=1, le=100)]
    heads: Annotated[int, Field(ge=1, le=128)]
    vocabulary: Annotated[int, Field(ge=100, le=1_000_000)]
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch: Annotated[int, Field(ge=2, le=10_000)]
    learning_rate: Annotated[float, Field(gt=0, le=1)]

    @model_validator(mode="after")
    def _heads(self) -> TextNetworkSettings:
        if self.width % self.heads:
            raise ValueError(f"width: {self.width} is no multiple of heads: {self.heads}")
        return self


class Pretraining(Block):
    """How a network learns without labels."""

    epochs: Annotated[int, Field(ge=1, le=10_000)]
    temperature: Annotated[float, Field(gt=0, le=10)]
    masked: Annotated[float, Field(gt=0, lt=1)]


class NetworkSettings(Block):
    """The networks of features with `encode: network`, and in how many processes they are trained."""

    image: ImageNetworkSettings
    text: TextNetworkSettings
    pretraining: Pretraining
    parallel: Literal["none", "rows", "layers"]
    processes: Annotated[int, Field(ge=2, le=64)]


# The kinds of shift that monitoring/diagnosis.py tells apart, and what labels tell
Watched = Literal[
    "feature_drift", "label_schema_drift", "prediction_shift", "label_shift", "covariate_shift",
    "concept_drift", "performance", "calibration",
]  # fmt: skip


class Retraining(Block):
    """When a new model is trained: by the calendar, by new labels, or after violations."""

    every: Literal["daily", "weekly", "monthly", "drift"]
    labels: Count | None
    violations: SmallCount
    windows: SmallCount
    watch: Annotated[tuple[Watched, ...], EachOnce]

    @model_validator(mode="after")
    def _within_windows(self) -> Retraining:
        if self.violations > self.windows:
            raise ValueError("violations: more than the windows that are looked at")
        return self


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError):  # what zoneinfo raises for a folder, a path, no name
        raise ValueError(f"{value!r:.80} is no time zone: write UTC or Europe/Berlin") from None
    return value


def _date(value: str) -> str:
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise ValueError(f"{value!r:.80} is no date: write it as 2026-12-25") from None


class CourseSettings(Block):
    """Which clock and which holidays the course of a day and a week is read by."""

    time_zone: Annotated[str, AfterValidator(_zone)]
    holidays: tuple[Annotated[str, AfterValidator(_date)], ...]


class Alerts(Block):
    """Where alarms are sent to; an address that is a secret stays in an environment variable."""

    webhook: Annotated[str, _like(r"https?://\S+|[A-Z][A-Z0-9_]*", _WEBHOOK)] | None
    format: Literal["json", "slack", "alertmanager"]


class Monitoring(Block):
    """The windows of the log, when a difference is an alarm, and what becomes of it."""

    reference_bins: Annotated[int, Field(ge=2, le=200)]
    window: (
        Annotated[str, _like(r"[1-9]\d{0,5}[mhdw]", "30m, 6h, 1d, 1w or a number of rows")] | Count
    )
    windows: Annotated[int, Field(ge=1, le=100)]
    min_rows: Annotated[int, Field(ge=50, le=10**9)]
    false_discovery: Annotated[float, Field(gt=0, lt=0.5)]
    effect: Annotated[float, Field(gt=0, lt=1)]
    trend_windows: Annotated[int, Field(ge=1, le=100)]
    statistics: dict[str, Literal["chi_square", "jensen_shannon", "psi", "ks"]] = Field(
        default_factory=dict
    )
    course: CourseSettings
    alerts: Alerts
    popularity: str | None
    labels_overdue: Share
    stale_hours: Annotated[float, Field(gt=0, le=24 * 366)]
    retraining: Retraining


class LabellingFunctions(Block):
    """How the functions of problem/data.py label rows for training, and how much such a row counts."""

    combine: Literal["none", "shrunk", "gold"]
    weight: Annotated[float, Field(gt=0, le=1)]
    labels: Annotated[float, Field(gt=0, le=1)]


class UnlabelledRows(Block):
    """Which models label rows for training, and how much such a row counts."""

    self_training: Annotated[float, Field(ge=0.5, lt=1)] | None
    given_model: FilePath | None
    weight: Annotated[float, Field(gt=0, le=1)]

    @property
    def ways(self) -> list[Literal["self_training", "given_model"]]:
        """The ways that are on: each is tried beside the rows as they are."""
        ways: tuple[Literal["self_training", "given_model"], ...] = ("self_training", "given_model")
        return [way for way in ways if getattr(self, way) is not None]


class Labelling(Block):
    """Who labels which rows, and what is made of their votes."""

    functions: LabellingFunctions | None = None
    unlabelled: UnlabelledRows | None = None
    aggregation: Literal["auto", "majority", "dawid_skene", "model"]
    agreement: Annotated[float, Field(ge=0.5, lt=1)]
    tolerance: Annotated[float, Field(ge=0)] | None
    votes: Annotated[int, Field(ge=1, le=100)]
    repeated: Share
    random: Share
    gold: Annotated[float, Field(ge=0, le=0.5)]
    show_score: bool
    keys: dict[Annotated[str, _like(r"[^\W_]", "a single letter or digit")], Text]
    guidelines: FilePath
    port: Annotated[int, Field(ge=1, le=65_535)]

    @field_validator("keys")
    @classmethod
    def _free_keys(cls, keys: dict[str, str]) -> dict[str, str]:
        if taken := sorted({"s", "x", "u"} & {key.lower() for key in keys}):
            raise ValueError(
                f"{taken[0]} is taken: s skips, x says that it cannot be told, u undoes"
            )
        if len({*keys.values()}) < len(keys):
            raise ValueError("two keys have the same label")
        return keys


class TrackingSettings(Block):
    """Which tracker is told of runs and of the model in production, and how long a run waits for it."""

    tracker: Literal["none", "mlflow", "wandb"]
    uri: Annotated[
        str,
        _like(
            r"sqlite:///\S+|https?://[^\s@]+", "sqlite:///FILE or https://HOST, without a password"
        ),
    ]
    offline: bool
    seconds: Annotated[float, Field(ge=1, le=3600)]


class ClusterSettings(Block):
    """Where the workers are that fit, score and search, and how many of them do so at once."""

    address: Annotated[str, _like(r"\S+:\d{1,5}|[A-Z][A-Z0-9_]*", "HOST:PORT or a variable")] | None
    workers: Annotated[int, Field(ge=1, le=1024)]
    boosting_workers: Annotated[int, Field(ge=1, le=1024)]


class Roles(Block):
    """Who fills in the design documents, who checks them, and who may promote a model, by name."""

    fills: Text | None
    checks: Text | None
    promotes: Annotated[tuple[Text, ...], EachOnce]


class Pilot(Block):
    """When a pilot ends, and what decides by then whether the model stays."""

    ends: date | None
    success: Text | None
    stop: Text | None


class Use(Block):
    """What a model is for and what it is not for, as the card says it."""

    intended: Text | None
    users: Text | None
    wrong: Text | None
    misuse: Text | None
    trade_offs: Text | None


class Rights(Block):
    """Whose the data is, by what right it is used here, and who is missing in it."""

    owner: Text | None
    licence: Text | None
    consent: Text | None
    purpose: Text | None
    readers: Text | None
    missing: Text | None


class Prices(Block):
    """What a month in service costs, by its rows, the hours of a core and the storage, all in one currency."""

    rows_per_day: Annotated[float, Field(gt=0, le=1e12)] | None
    core_hour: Annotated[float, Field(ge=0, le=1e6)]
    gigabyte_month: Annotated[float, Field(ge=0, le=1e6)]
    build: Annotated[float, Field(ge=0, le=1e12)]


class RetrainingBounds(Block):
    """What a retraining may change by itself; a model beyond them waits for a person."""

    new_columns: bool
    size: Share | None
    metric: AboveZero | None
    changed_decisions: Share | None


class RecordKeeping(Block):
    """For how many days a kind of record is kept: at least, which nobody shortens, and at most; None: no limit."""

    at_least: Annotated[int, Field(ge=0, le=36_500)] | None = None
    at_most: Annotated[int, Field(ge=1, le=36_500)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> RecordKeeping:
        if self.at_least is not None and self.at_most is not None and self.at_most < self.at_least:
            raise ValueError(f"at_most is {self.at_most}, below at_least: {self.at_least}")
        return self


class Records(Block):
    """How long each kind of record is kept."""

    answers: RecordKeeping
    incidents: RecordKeeping
    appeals: RecordKeeping
    promotions: RecordKeeping


class Governance(Block):
    """What those who sign ask for: the class of risk, roles, use, rights, costs, bounds and records."""

    risk: Literal["low", "limited", "high"]
    law: Text | None
    roles: Roles
    second_person: bool
    pilot: Pilot
    use: Use
    source: Rights
    groups: dict[str, dict[str, Share]]
    prices: Prices
    retraining: RetrainingBounds
    records: Records


# The block of a part is there with the part: only what needs the part reads the block
ABSENT: Any = None


class Settings(Block):
    """All of params.yaml; the block of a part is there with the part."""

    project: Project
    goals: Goals
    data: Data
    features: Features
    modelling: Modelling
    scoring: Scoring
    serving: Serving = ABSENT
    rollout: Rollout = ABSENT
    monitoring: Monitoring = ABSENT
    compression: CompressionSettings = ABSENT
    networks: NetworkSettings = ABSENT
    labelling: Labelling = ABSENT
    tracking: TrackingSettings = ABSENT
    cluster: ClusterSettings = ABSENT
    governance: Governance = ABSENT

    @property
    def answer_days(self) -> tuple[float | None, float | None]:
        """For how many days answers are kept, at least and at most, by `data.retention` and `governance.records`.

        The stricter of both counts; None: no limit.
        """
        answers = self.governance.records.answers if self.governance else RecordKeeping()
        retention = self.data.retention
        floors = filter(None, (retention.floor_days, answers.at_least))
        ceilings = filter(None, (retention.days, answers.at_most))
        return max(floors, default=None), min(ceilings, default=None)

    @model_validator(mode="before")
    @classmethod
    def _parts_are_here(cls, tree: Any) -> Any:
        """A part that is here has its block, and no other part has one."""
        if isinstance(tree, dict):  # dumped settings have None for a part that is not here
            tree = {name: block for name, block in tree.items() if block is not None}
        for name in PARTS:
            installed, present = name in parts_here(), isinstance(tree, dict) and name in tree
            if present and not installed:
                raise Misplaced(name, f"leave this block out, it {part_hint(name)}")
            if installed and name in cls.model_fields and not present:
                raise Misplaced(name, "is missing")
        return tree

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        for keys, message in broken(self):
            raise Misplaced(keys, message)
        return self


class Misplaced(ValueError):
    """A value that is well-formed but does not agree with another one; knows its own key."""

    def __init__(self, key: str | Sequence[str], message: str) -> None:
        super().__init__(message)
        self.keys = key.split(".") if isinstance(key, str) else list(key)


def load(path: Path | str = SETTINGS_FILE) -> Settings:
    """Read and check the settings.

    Raises:
        UserError: with the file, the line and the key of the first thing that is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not here: run the command from the project's folder")
    text = read_text(path)
    tree = _parsed(text, path)
    if not isinstance(tree, dict):
        blocks = ", ".join(Settings.model_fields)
        raise UserError(f"{path}:1: holds no settings; the file needs the blocks {blocks}")
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(path, YAML(typ="safe").compose(text), error)) from None


class _Values(SafeConstructor):
    """Values of YAML: a date stays the text that it is, and what cannot be a value has its line."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, OverflowError, AttributeError, LookupError) as error:
            message = " ".join(f"{node.value!r:.60} cannot be read ({error})".split())
            raise ConstructorError(None, None, message, node.start_mark) from None


_Values.add_constructor("tag:yaml.org,2002:timestamp", _Values.construct_yaml_str)


def _parsed(text: str, name: Path | str) -> Any:
    """YAML as plain lists, mappings and values.

    Raises:
        UserError: with the line of what is not YAML, or not a value.
    """
    yaml = YAML(typ="safe")
    yaml.Constructor = _Values
    try:
        return yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(str(error.problem or error.context).split())
        raise UserError(
            f"{name}:{mark.line + 1 if mark else 1}: not valid YAML: {message}"
        ) from None
    except YAMLError as error:  # a character that YAML does not allow has a position, and no line
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1
        message = " ".join(str(error).split('"')[0].split()) or "cannot be read"
        raise UserError(f"{name}:{line}: not valid YAML: {message}") from None
    except RecursionError:
        raise UserError(f"{name}:1: not valid YAML: nested too deeply") from None


def line_of(node: Any, keys: Sequence[str | int]) -> tuple[int, list[str]]:
    """The line (from 1) of the deepest of `keys` that stands below a composed node, and those keys."""
    line, existing = 0, []
    for key in keys:
        if isinstance(node, MappingNode):
            below = {str(name.value): (name, value) for name, value in node.value}
        else:
            below = {str(index): (value, value) for index, value in enumerate(_entries(node))}
        if str(key) not in below:
            break
        name, node = below[str(key)]
        line = name.start_mark.line
        existing.append(str(key))
    return line + 1, existing


def _entries(node: Any) -> list[Any]:
    return node.value if isinstance(node, SequenceNode) else []


def _explain(path: Path, node: Any, error: ValidationError) -> str:
    # key -> line, errors: several of a value of many kinds
    by_key: dict[str, tuple[int, list[Any]]] = {}
    for detail in error.errors(include_url=False):
        cause = detail.get("ctx", {}).get("error")
        absent = detail["type"] in ("extra_forbidden", "missing")
        keys = cause.keys if isinstance(cause, Misplaced) else list(detail["loc"])
        line, existing = line_of(node, keys)
        name = " ".join(".".join(map(str, keys if absent or not existing else existing)).split())
        by_key.setdefault(name, (line, []))[1].append(detail)
    # A misspelt key is also a missing one: the misspelling is the one to show
    name = min(by_key, key=lambda key: by_key[key][1][0]["type"] != "extra_forbidden")
    line, errors = by_key[name]
    suffix = f" (and {len(by_key) - 1} more)" if len(by_key) > 1 else ""
    return f"{path}:{line}: {name}: {_error_text(errors)}{suffix}"


_SHORT = reprlib.Repr()  # aliases can make a small file large beyond telling
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 80, 80


def _error_text(errors: list[Any]) -> str:
    """What is wrong with a key, and what is allowed."""
    first = errors[0]
    if first["type"] == "extra_forbidden":
        return "no such key; is it misspelt?"
    if first["type"] == "missing":
        return "is missing"
    if isinstance(first.get("ctx", {}).get("error"), ValueError):
        return str(first["msg"]).removeprefix("Value error, ")
    noise = "^Input should be |, (unable|got) .*| or instance of .*"
    allowed = " or ".join(re.sub(noise, "", detail["msg"]) for detail in errors)
    allowed = allowed.replace("tuple", "list").replace("a valid boolean", "true or false")
    return f"{_SHORT.repr(first['input'])} is not allowed: it should be {allowed}"


def located(message: str, path: Path) -> str:
    """A message that begins with a key of the settings, with the file and the line of that key."""
    match = re.match(r"(?:params\.yaml: )?(\w+(?:\.\w+)+): ", message)
    if match and path.is_file():
        line, existing = line_of(YAML(typ="safe").compose(read_text(path)), match[1].split("."))
        if ".".join(existing) == match[1]:
            return f"{path}:{line}: {message.removeprefix('params.yaml: ')}"
    return message


def editor() -> YAML:
    """YAML that comes back as it was: comments, quotes, indents, `null` and long lines."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml


def quote_dates(path: Path) -> int:
    """Put dates of the settings into quotes, since DVC refuses a file with bare ones; returns how many.

    Raises:
        UserError: as `load`.
    """
    load(path)
    text = path.read_bytes().decode("utf-8")
    dates, nodes = [], [YAML(typ="safe").compose(text)]
    while nodes:
        node = nodes.pop()
        pairs = node.value if isinstance(node, MappingNode) else []
        nodes += [inner for pair in pairs for inner in pair] + _entries(node)
        if node.tag == "tag:yaml.org,2002:timestamp":
            dates.append((node.start_mark.index, node.end_mark.index))
    for start, end in sorted(dates, reverse=True):
        text = f'{text[:start]}"{text[start:end].strip()}"{text[end:]}'
    if dates:
        path.write_bytes(text.encode("utf-8"))
    return len(dates)


def set_values(path: Path, changes: list[str]) -> None:
    """Change keys of params.yaml in place, keeping its comments, if the result is allowed.

    Args:
        changes: each `dotted.key=value`, the value as YAML.

    Raises:
        UserError: when a key is unknown or a value is refused; the file is then as it was.
    """
    tree = editor().load(read_text(path).replace("\r\n", "\n"))
    for change in changes:
        key, equals, value = change.partition("=")
        *parents, last = key.split(".")
        block = tree
        for name in parents:
            block = block.get(name) if isinstance(block, dict) else None
        if (part := key.split(".")[0]) in PARTS and part not in tree:
            raise UserError(f"--set {change}: {part} {part_hint(part)}")
        if not equals or not isinstance(block, dict) or last not in block:
            raise UserError(f"--set {change}: no such key in {path}; write KEY=VALUE")
        block[last] = _parsed(value, f"--set {key}")
    write(path, tree)


def dump(path: Path, tree: Any, fresh: Path) -> None:
    """Write YAML that was read from `path` to `fresh`, with the line ends that an editor gave it."""
    buffer = io.StringIO()
    editor().dump(tree, buffer)
    text = buffer.getvalue().replace("\r", "")  # comments bring their own line ends along
    ends = "\r\n" if b"\r\n" in path.read_bytes() else "\n"
    fresh.write_text(text, encoding="utf-8", newline=ends)


def write(path: Path, tree: Any) -> None:
    """Replace the settings file at once, and only by one that `load` accepts.

    Raises:
        UserError: as `load`, naming the line in the file that was refused.
    """
    fresh = path.with_name(f"{path.name}.new")
    try:
        dump(path, tree, fresh)
        try:
            load(fresh)
        except UserError as error:
            raise UserError(str(error).replace(str(fresh), str(path))) from None
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
