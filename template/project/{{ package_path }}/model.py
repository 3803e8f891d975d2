"""An ONNX model: raw columns in, scores out. Training, service, batch and device all load it here.

Needs numpy and onnxruntime only, for images Pillow and for given encoders of texts tokenizers, and imports of this
package nothing but images.py, histories.py, problem/decision.py and data/parsing.py: `export` puts these files
beside the model.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import unicodedata
import warnings
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, Protocol, TypedDict

import numpy as np
import onnxruntime

try:
    from . import images
    from .data.parsing import masked
    from .histories import history_values, stacked
    from .problem import decision
except ImportError:  # in the edge folder, where the files lie beside this one
    import decision  # type: ignore[no-redef]
    import images  # type: ignore[no-redef]
    from histories import history_values, stacked  # type: ignore[no-redef]
    from parsing import masked  # type: ignore[no-redef]

Array = np.ndarray

CHUNK = 20_000  # rows scored at once
TEXTS_AT_ONCE = 32  # rows of a model of texts: each is as wide as its vocabulary then
IMAGES_AT_ONCE = 1  # together they take as long, and one padded to four takes four times as long
TOKENS_AT_ONCE = 1  # rows of a model of tokens: each is as long as its own text
MAX_CHARACTERS = 4_000  # of a text, that a model reads
MAX_SEARCHED = 4 * MAX_CHARACTERS  # of a text with all its blanks, which are left out
# To sort marks takes the square of their number: a text is taken in pieces, of whole words where it has any
PIECES = re.compile(r"(?s).{1,250}(?:\s|\Z)|.{1,250}")
DTYPES = {
    "tensor(string)": object,
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(uint8)": np.uint8,  # images alone
    "tensor(int64)": np.int64,  # tokens alone
}
# The runtime works on four numbers together and on what is left over by other code, which rounds
# otherwise: with a whole number of fours, a row has the same score to the last bit in any company
ROW_MULTIPLE = 4
# A row that only fills up has this for its text, which the graph leaves out: no text that was normalized holds it
FILLER = "\x1f"
SPACES = " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"  # as the database trims

# A number that a 32-bit float cannot hold becomes infinite, as in training: nothing to warn of
warnings.filterwarnings("ignore", "overflow encountered in cast", RuntimeWarning, __name__)


CPU = "CPUExecutionProvider"
LEVELS = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class ModelError(Exception):
    """A model that is missing, damaged or not what its manifest says."""


class InputColumn(TypedDict):
    """What the manifest says of a raw column: its type, whose it is, and what training saw of it."""

    name: str
    type: str  # number, bool, category, text, image, history or time
    family: str
    missing: float  # share of rows
    gaps: NotRequired[str]  # deleted: no row without a value was learnt from
    formats: NotRequired[list[str]]  # of times
    categories: NotRequired[list[str] | None]  # None: too many to list
    min: NotRequired[float]
    max: NotRequired[float]
    median: NotRequired[float]


class Columns(Protocol):
    """Values by column, such as a dictionary of lists or a data frame."""

    def __getitem__(self, name: str, /) -> Any: ...


class Tokens(NamedTuple):
    """What a graph's input of tokens is made of.

    `column`: the raw column. `tokenizer`: the content of a tokenizer.json (Hugging Face `tokenizers`). `length`:
    tokens that are read at most.
    """

    column: str
    tokenizer: str
    length: int

    def to_ids(self) -> Callable[[str], list[int]]:
        """A function from a text to the numbers of its tokens, 1 to `length` of them.

        Where a text has none, and the tokenizer puts none around it, its token is number 0.

        Raises:
            ModuleNotFoundError: without `tokenizers`.
            ValueError: when it cannot read the content.
        """
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(self.tokenizer)
            tokenizer.enable_truncation(self.length)
        except Exception as error:  # the library's own has no class
            raise ValueError(f"not a tokenizer that can be read: {error}") from None
        tokenizer.no_padding()
        return lambda text: tokenizer.encode(text).ids or [0]


class SessionChoice(NamedTuple):
    """How ONNX Runtime runs a model: its optimisation of the graph, and the execution provider, where it is installed."""

    graph: str = "all"  # of LEVELS
    provider: str = CPU


class Scorer:
    """An ONNX model whose inputs are columns of shape (n, 1), ready to score.

    Args:
        model: the file, or its bytes.
        threads: that one call may use; one row is too little work to share, and sums come in one order.
        sha256: what the file's checksum has to be.
        session: how ONNX Runtime runs it.

    Raises:
        ModelError: when the file is missing, cannot be read or has another checksum.
    """

    def __init__(
        self,
        model: Path | bytes,
        threads: int = 1,
        sha256: str | None = None,
        session: SessionChoice | None = None,
    ) -> None:
        source = model if isinstance(model, Path) else "the model"
        try:
            content = model.read_bytes() if isinstance(model, Path) else model
        except OSError as error:
            raise ModelError(f"{error.filename}: {error.strerror}") from None
        self.sha256 = hashlib.sha256(content).hexdigest()
        if sha256 and sha256 != self.sha256:
            raise ModelError(f"{source}: its checksum is not the manifest's")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = session or SessionChoice()
        options.graph_optimization_level = LEVELS[session.graph]
        installed = onnxruntime.get_available_providers()
        providers = dict.fromkeys(name for name in (session.provider, CPU) if name in installed)
        try:
            self.session = onnxruntime.InferenceSession(content, options, [*providers])
        except Exception as error:  # onnxruntime's own have no common class
            raise ModelError(f"{source}: not a model that can be read: {error}") from None
        self.dtypes = {node.name: DTYPES[node.type] for node in self.session.get_inputs()}
        facts = self.session.get_modelmeta().custom_metadata_map
        self.texts = frozenset(facts["texts"].split("\n") if "texts" in facts else ())
        self.images = _forms(self.session, facts.get("images", ""))
        named = facts["histories"].split("\n") if "histories" in facts else []
        widths = {node.name: node.shape[-1] for node in self.session.get_inputs()}
        self.histories = {name: int(widths[name]) for name in named}
        # As at training, whatever the settings say by now
        masks: dict[str, list[str]] = json.loads(facts.get("masks", "{}"))
        self._read = {name: partial(normalized, masks=masks.get(name, ())) for name in self.texts}
        entries: dict[str, tuple[str, str, int]] = json.loads(facts.get("tokens", "{}"))
        self.tokens = {name: Tokens(*entry) for name, entry in entries.items()}
        try:
            self._ids = {
                name: token_reader(tokens, masks.get(tokens.column, ()))
                for name, tokens in self.tokens.items()
            }
        except ModuleNotFoundError as error:
            raise ModelError(
                f"{source}: reads the tokens of texts, and {error.name} is not installed: `uv sync --group encoders`, "
                f"or without uv `pip install tokenizers`"
            ) from None
        except ValueError as error:
            raise ModelError(f"{source}: {error}") from None
        self._alone = bool(self.images or self.tokens)
        self._outputs = [node.name for node in self.session.get_outputs()]  # asked anew, costs 2 µs
        # The library's own method asks for the inputs' names anew on each call: 6 µs, a tenth of a row
        self._run = getattr(self.session, "_sess", self.session).run
        self._local = threading.local()

    def feed(self, columns: Columns, rows: slice = slice(None), pad: int = 0) -> dict[str, Array]:
        """What the session takes: an array for each input, of shape (n + pad, 1), the last row repeated, a text but
        `FILLER`.

        Of an image the shape is (n + pad, channels, size, size), of a history (n + pad, values), of tokens
        (1, tokens): of these n is 1.
        """
        feed = {}
        for name, dtype in self.dtypes.items():
            if name in self.tokens:
                feed[name] = self._token_ids(name, columns, rows)
                continue
            values = columns[name][rows]
            if form := self.images.get(name):
                values = np.stack([images.pixels(value, form) for value in values])
            if length := self.histories.get(name):
                feed[name] = stacked(values, length, pad)
                continue
            feed[name] = _array(values, dtype, pad, self._read.get(name))
        return feed

    def _token_ids(self, name: str, columns: Columns, rows: slice) -> Array:
        """The tokens of one row's text, int64, shape (1, tokens)."""
        (text,) = columns[self.tokens[name].column][rows]
        return np.array([self._ids[name](text)], np.int64)

    def _feed_one(self, columns: Columns) -> dict[str, Array]:
        """`feed` for one row: arrays are used again, since making one costs more than filling it."""
        feed = getattr(self._local, "feed", None)
        if feed is None:
            feed = self._local.feed = {
                name: np.full(
                    (ROW_MULTIPLE, self.histories.get(name, 1)),
                    FILLER if name in self.texts else 0,
                    dtype,
                )
                for name, dtype in self.dtypes.items()
            }
        for name, dtype in self.dtypes.items():
            value = columns[name][0]
            if read := self._read.get(name):
                feed[name][0, 0] = read(value)
            elif length := self.histories.get(name):
                feed[name][:] = history_values(value, length)
            elif dtype is object:
                feed[name].fill(value.strip(SPACES) if value else "")
            else:
                feed[name].fill(np.nan if value is None else value)
        return feed

    def run(self, columns: Columns, chunk: int = CHUNK) -> Array:
        """The model's output for n rows, float32, shape (n, width).

        Args:
            columns: for each input n values, None where missing: number, bool, category as text,
                time as seconds since 1970, image as its file's content in base64, history as JSON. Arrays and series are
                taken as they are, categories too.
            chunk: rows that are asked at once, a multiple of four.
        """
        first = columns[next(iter(self.dtypes))]
        n = len(first)
        if n == 1 and isinstance(first, (list, tuple, np.ndarray)) and not self._alone:
            return self._run(self._outputs, self._feed_one(columns), None)[0][:1]
        step = min(chunk, TEXTS_AT_ONCE) if self.texts else chunk
        step = min(step, IMAGES_AT_ONCE) if self.images else step
        step = min(step, TOKENS_AT_ONCE) if self.tokens else step
        result = np.empty((n, 1), np.float32)
        for start in range(0, n, chunk):
            size = min(chunk, n - start)
            # A part of a data frame costs more than one image takes in the runtime
            block = self._block(columns, slice(start, start + size))
            for offset in range(0, size, step):
                length = min(step, size - offset)
                # Always alone, a row has the same score in any company as well
                pad = 0 if self._alone else -length % ROW_MULTIPLE
                feed = self.feed(block, slice(offset, offset + length), pad)
                part = self._run(self._outputs, feed, None)[0]
                if not start + offset:
                    result = np.empty((n, part.shape[1]), np.float32)
                result[start + offset : start + offset + length] = part[:length]
        return result

    def _block(self, columns: Columns, rows: slice) -> Columns:
        """Some rows of the columns that the model reads: lists as they are, all else as arrays."""
        names = {*self.dtypes, *(tokens.column for tokens in self.tokens.values())} - {*self.tokens}
        parts = {name: columns[name][rows] for name in names}
        return {
            name: part if isinstance(part, (list, tuple)) else np.asarray(part)
            for name, part in parts.items()
        }

    def score(self, columns: Columns) -> Array:
        """Scores, float64, of n rows as `run` takes them, shape (n,), or (n, classes) where each has its own."""
        scores = self.run(columns).astype(np.float64)
        return scores[:, 0] if scores.shape[1] == 1 else scores


class Model(Scorer):
    """An exported model and what its manifest says of it.

    Args:
        folder: holds manifest.json and the file.
        file: model.onnx, or baseline.onnx for the fallback.
        threads: that one call may use.
        session: how ONNX Runtime runs it.

    Raises:
        ModelError: when a file is missing, cannot be read or has another checksum.
    """

    def __init__(
        self,
        folder: Path,
        file: str = "model.onnx",
        threads: int = 1,
        session: SessionChoice | None = None,
    ) -> None:
        try:
            self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
            entry = self.manifest["baseline"] if file == "baseline.onnx" else self.manifest
            sha256: str = entry["sha256"]
            self.name: str = entry.get("name") or entry["chosen"]
            self.decision: Any = entry["decision"]
            self.classes: list[str] = self.manifest.get("label_values", [])
            self.inputs: list[InputColumn] = self.manifest["inputs"]
            self.types: dict[str, str] = {column["name"]: column["type"] for column in self.inputs}
            self.usual: dict[str, Any] = self.manifest.get("usual", {})
            ends = entry.get("interval")
            # Ends around a score, of all rows or of some kinds of them
            self.interval: tuple[Any, Any] | None = ends and (ends["low"], ends["high"])
            self.scale: dict[str, Any] = self.manifest.get("scale", {})
        except OSError as error:
            raise ModelError(f"{error.filename}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{folder / 'manifest.json'}: not a manifest: {error!r}") from None
        super().__init__(folder / file, threads, sha256, session)
        self.version = self.sha256[:12]

    def bands(self, columns: Columns) -> tuple[Any, Any] | None:
        """How far below and above its score the truth of each row may lie: a number for all, or of shape (n,).

        Args:
            columns: the rows as `run` takes them; read where the manifest has a `scale`.
        """
        if not self.scale:
            return decision.bands({}, self.interval, {})
        values = {name: stacked(columns[name], length) for name, length in self.histories.items()}
        return decision.bands(
            {**{n: columns[n] for n in self.types}, **values}, self.interval, self.scale
        )

    def judge(
        self, score: Any, band: tuple[float, float] | None = None
    ) -> tuple[float, float | None, float | None, float | None]:
        """One row's score, or scores, as (decision, confidence, low, high): what `table` says of many.

        The decision is a number, of classes their index; None stands for what the kind of problem has not.
        `band`: around this row's score, as `band_of` gives it.
        """
        return decision.judge(score, self.decision, band)

    def unsure(self, score: Any, margin: float, band: tuple[float, float] | None = None) -> str:
        """Why a person should look at a row of this score, or these scores; empty where nobody need.

        Args:
            margin: `scoring.review_margin`, in the unit that the kind of problem gives it.
            band: around this score, as `band_of` gives it.
        """
        return decision.unsure(score, self.decision, band, margin)

    def reasons(self, columns: Columns) -> list[list[str]]:
        """The columns that stand out in each of n rows as `run` takes them; nothing where answers name none."""
        return decision.reasons({name: columns[name] for name in self.types}, self.usual)

    def arranged(
        self,
        score: Array,
        lists: Sequence[Any],
        topics: Sequence[Any],
        share: float = 0.0,
        draws: Array | None = None,
    ) -> tuple[Array, Array]:
        """The decisions of n rows that are answered together, and the chance of each: `problem.decision.arranged`."""
        return decision.arranged(score, self.decision, lists, topics, share, draws)

    def named(self, decided: float) -> float | str:
        """A decision as an answer has it."""
        return decision.named(decided, self.classes)

    def table(self, score: Array, columns: Columns) -> dict[str, Any]:
        """Answers to n rows by column: score, decision, confidence or low and high, and all scores where a
        row has several; `columns` holds the rows as `run` takes them."""
        return decision.table(score, self.decision, self.bands(columns), self.classes)


def band_of(bands: tuple[Any, Any] | None, row: int) -> tuple[float, float] | None:
    """The band around one row's score, of those that `Model.bands` gives."""
    if bands is None or np.ndim(bands[0]) == 0:
        return bands
    return float(bands[0][row]), float(bands[1][row])


def normalized(text: str | None, masks: Collection[str] = ()) -> str:
    """A free text as models read it: characters in one form (NFKC), small letters, single blanks, not endless.

    Args:
        masks: kinds of personal data that are masked before.
    """
    text = masked(text, masks) if text and masks else text or ""
    small = _composed(text[:MAX_SEARCHED]).lower()
    # Of some letters with two marks, such as Ϊ́, only the small one has them in one character
    return " ".join(_composed(small).split())[:MAX_CHARACTERS].rstrip()


def token_reader(tokens: Tokens, masks: Collection[str] = ()) -> Callable[[str | None], list[int]]:
    """A function from a raw text to the numbers of its tokens: of the text as it is, but for what is masked.

    Raises:
        ModuleNotFoundError, ValueError: as `Tokens.to_ids`.
    """
    to_ids = tokens.to_ids()
    return lambda text: to_ids(masked(text or "", masks).strip(SPACES)[:MAX_SEARCHED])


def _composed(text: str) -> str:
    if text.isascii():
        return text
    return "".join(unicodedata.normalize("NFKC", piece) for piece in PIECES.findall(text))


def _forms(session: onnxruntime.InferenceSession, fits: str) -> dict[str, images.Form]:
    """The form of each image that a session takes: its shape is the input's, its fit on a line of `fits`."""
    shapes = {node.name: node.shape for node in session.get_inputs()}
    pairs = [line.split(" ", 1) for line in fits.splitlines()]
    return {name: images.Form(shapes[name][2], shapes[name][1], fit) for fit, name in pairs}


def _array(
    values: Sequence[Any], dtype: type, pad: int, read: Callable[[str | None], str] | None
) -> Array:
    if read:
        values = [*map(read, values), *[FILLER] * pad]
        pad = 0
    elif dtype is object and isinstance(values, (list, tuple)):
        values = [value.strip(SPACES) if value else "" for value in values]
    # None becomes NaN, and what a 32-bit float cannot hold becomes infinite
    array: Array = np.array(values, dtype)
    array = array if array.ndim > 2 else array.reshape(-1, 1)
    return np.concatenate([array, np.repeat(array[-1:], pad, axis=0)]) if pad else array
