"""The Open Inference Protocol, version 2, so that clients written for other servers work here.

One row is one place of every input tensor, of shape [n] or [n, 1]. Tensors come as JSON or, as
Triton's clients send them, as bytes behind the JSON (the binary tensor data extension).
https://github.com/open-inference/open-inference-protocol
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import GenericAlias
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from ..problem import DECISION_TYPE
from .bounded import SHOWN, Refused, first_problem, listed, members, up_to
from .rows import GIVEN, Rows
from .service import Answer, Service

TENSOR = {"number": "FP64", "bool": "BOOL", "category": "BYTES", "text": "BYTES", "time": "FP64"}
INTEGERS = {
    f"{sign}INT{8 * size}": f"<{kind}{size}"
    for sign, kind in (("", "i"), ("U", "u"))
    for size in (1, 2, 4, 8)
}
FLOATS = {f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)}
NUMPY = {"BOOL": "?", **INTEGERS, **FLOATS}
# What a column's values may come as. A code that is a number, 3 or 3.0, is read as the text 3
SUITS = {
    "number": (*FLOATS, *INTEGERS),
    "bool": ("BOOL", *INTEGERS, *FLOATS),  # of numbers 0 and 1
    "category": ("BYTES", *INTEGERS, *FLOATS),
    "text": ("BYTES",),
    "time": (*FLOATS, *INTEGERS, "BYTES"),  # seconds since 1970, or ISO 8601
}
LOOKED_AT = 1000  # bytes of a tensor's data in which it says whether it is nested
HEADER = "Inference-Header-Content-Length"
LISTS = {kind: GenericAlias(list, (one,)) for kind, one in GIVEN.items()}
DECISION = "BYTES" if DECISION_TYPE == "VARCHAR" else "FP64"
OUTPUTS = {"score": "FP64", "decision": DECISION, "id": "BYTES"}
encode = msgspec.json.encode


class Wrong(Exception):
    """A request that does not keep to the protocol."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Shape(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """[n] or [n, 1]."""

    rows: Annotated[int, msgspec.Meta(ge=1)]
    ones: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1


class TensorParameters(msgspec.Struct, frozen=True):
    binary_data_size: Annotated[int, msgspec.Meta(ge=0)] | None = None


class OutputParameters(msgspec.Struct, frozen=True):
    binary_data: bool | None = None


class RequestParameters(msgspec.Struct, frozen=True):
    binary_data_output: bool = False


class Tensor(msgspec.Struct):
    name: str
    shape: Shape
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: TensorParameters = TensorParameters()


class Output(msgspec.Struct):
    name: str
    parameters: OutputParameters = OutputParameters()


@lru_cache(maxsize=8)
def reader(columns: int, most: int | None = None) -> Callable[[bytes], Any]:
    """A decoder of inference requests with at most a tensor for each column.

    Args:
        most: values of a tensor, after which it is left; None: it is taken as it is, and counted later.
    """
    tensor: Any = Tensor
    if most is not None:
        data = ("data", listed(most, msgspec.Raw), msgspec.UNSET)
        tensor = msgspec.defstruct("Tensor", [data], bases=(Tensor,), kw_only=True)
    fields: list[Any] = [
        ("inputs", listed(columns, tensor)),
        ("id", str | None, None),
        ("outputs", listed(len(OUTPUTS), Output) | None, None),
        ("parameters", RequestParameters, RequestParameters()),
    ]
    return msgspec.json.Decoder(msgspec.defstruct("Inference", fields)).decode


def _value(datatype: str) -> Any:
    """The type of a tensor's values in JSON; null stands for a missing one."""
    if datatype == "BYTES":
        return str | None
    if datatype == "BOOL":
        return bool | Literal[0, 1] | None
    if datatype in INTEGERS:
        kind = np.iinfo(INTEGERS[datatype])
        most = min(int(kind.max), 2**63 - 1)  # beyond, only as bytes
        return Annotated[int, msgspec.Meta(ge=int(kind.min), le=most)] | None
    most_float = float(np.finfo(FLOATS[datatype]).max)
    return Annotated[float, msgspec.Meta(ge=-most_float, le=most_float)] | None


@lru_cache(maxsize=64)
def _readers(datatype: str, nested: bool, most: int) -> tuple[Callable[[bytes], Any], ...]:
    """Decoders of a tensor's data: of as few values as there may be, and of more."""
    item = _value(datatype)
    if nested:
        fields = [("value", item)]
        item = msgspec.defstruct("Row", fields, array_like=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(list[item]).decode, up_to(most, item)  # type: ignore[valid-type]


def server(service: Service) -> dict[str, Any]:
    """GET /v2."""
    version = service.arms["champion"].version.code
    return {"name": service.name, "version": version, "extensions": ["binary_tensor_data"]}


def check(service: Service, name: str, version: str | None = None) -> None:
    """Whether this model is served.

    Raises:
        Wrong: 404, naming the one that is.
    """
    ours = service.arms["champion"].version.model
    if name != service.name or version not in (None, ours):
        raise Wrong(f"no such model: this is {service.name}, version {ours}", 404)


def model(service: Service, name: str, version: str | None = None) -> dict[str, Any]:
    """GET /v2/models/<name>."""
    check(service, name, version)
    columns = service.rows.columns
    classes = service.classes
    width = len(classes) or 1
    return {
        "name": name,
        "versions": [service.arms["champion"].version.model],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": column, "datatype": TENSOR[one.type], "shape": [-1, 1]}
            for column, one in columns.items()
        ],
        "outputs": [
            {"name": output, "datatype": kind, "shape": [-1, width if output == "score" else 1]}
            for output, kind in OUTPUTS.items()
        ],
        **({"parameters": {"classes": ",".join(map(_escaped, classes))}} if classes else {}),
    }


def _escaped(name: str) -> str:
    """A class's name in a list with commas."""
    return name.replace("\\", "\\\\").replace(",", "\\,")


async def infer(
    service: Service, body: bytes, json_length: str | None, request: str = ""
) -> tuple[bytes, dict[str, str]]:
    """POST /v2/models/<name>/infer: the answer's body and headers.

    Args:
        json_length: of the header, where bytes stand behind the JSON.
        request: id, as it is logged.

    Raises:
        Wrong: when the request does not keep to the protocol, or a value is not allowed.
    """
    length = _json_length(body, json_length)
    rows = service.rows
    head = body[:length] if length < len(body) else body
    # Between two values stands a comma: only where there are more, tensors are counted as they come
    full = len(rows.names) * (rows.most + 8)
    most = rows.most if head.count(b",") > full else None
    try:
        given = reader(len(rows.names), most)(head)
    except (ValueError, RecursionError) as error:
        raise _wrong(error, head) from None
    outputs = members(given.outputs) if given.outputs else []
    _check_outputs(outputs)
    columns = _columns(rows, members(given.inputs), body[length:])
    try:
        checked = rows.checked([list(row) for row in zip(*columns, strict=True)])
        answers = await service.answer(checked, request)
    except Refused as refused:
        reasons = [f"{one.field}: {one.got!r}; give {one.allowed}" for one in refused.problems[:10]]
        raise Wrong("; ".join(reasons), refused.status) from None
    return _answered(service, given, outputs, answers)


def _json_length(body: bytes, told: str | None) -> int:
    """How many bytes of a body are JSON, as the header tells."""
    if told is None:
        return len(body)
    number = told.isascii() and told.isdigit() and len(told) < 12
    if not number or int(told) > len(body):
        came = f"{told[:SHOWN]!r} of a body of {len(body)} bytes"
        raise Wrong(f"{HEADER}: {came}; give the number of bytes of its JSON")
    return int(told)


def _answered(
    service: Service, given: Any, outputs: Sequence[Output], answers: Sequence[Answer]
) -> tuple[bytes, dict[str, str]]:
    """The answer's body and headers: of the outputs that were asked for, or of all."""
    scores = [
        [*one.scores.values()] if isinstance(one.scores, dict) else [one.score] for one in answers
    ]
    values: dict[str, list[Any]] = {
        "score": [value for row in scores for value in row],
        "decision": [one.decision for one in answers],
        "id": [one.id for one in answers],
    }
    found, tail = [], []
    for one in outputs or [Output(name) for name in values]:
        kind = OUTPUTS[one.name]
        width = len(scores[0]) if one.name == "score" else 1
        entry: dict[str, Any] = {"name": one.name, "datatype": kind, "shape": [len(answers), width]}
        packed = one.parameters.binary_data
        if given.parameters.binary_data_output if packed is None else packed:
            tail.append(_to_bytes(values[one.name], kind))
            entry["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            entry["data"] = values[one.name]
        found.append(entry)
    told = {
        "model_name": service.name,
        "model_version": answers[0].version.model,
        **({"id": given.id} if given.id else {}),
        "outputs": found,
        "parameters": {
            "arm": ",".join(sorted({one.arm for one in answers})),
            "fallback": any(one.fallback for one in answers),
        },
    }
    content = encode(told)
    if not tail:
        return content, {"content-type": "application/json"}
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(content)),
    }
    return b"".join([content, *tail]), headers


def _wrong(error: Exception, body: bytes, where: str = "") -> Wrong:
    """What a decoder stumbled over, in a line: where, what came, what is allowed."""
    problem, _ = first_problem(error, body, "")
    field = f"{where}{problem.field}" if problem.field != "body" else where or "body"
    return Wrong(
        f"{field}: {problem.got}" + (f"; give {problem.allowed}" if problem.allowed else "")
    )


def _check_outputs(outputs: Sequence[Output]) -> None:
    names = [one.name for one in outputs]
    for name in names:
        if name not in OUTPUTS:
            raise Wrong(f"outputs: no {name[:SHOWN]!r}; there are {', '.join(OUTPUTS)}")
        if names.count(name) > 1:
            raise Wrong(f"outputs: {name!r} stands there twice")


def _columns(rows: Rows, tensors: Sequence[Tensor], tail: bytes) -> list[Sequence[Any]]:
    """A value a row for every column, None where no tensor gave one."""
    given: dict[str, list[Any]] = {}
    for tensor in tensors:
        name, where = tensor.name, f"inputs.{tensor.name[:SHOWN]}"
        if name not in rows.columns:
            raise Wrong(f"inputs: no column {name[:SHOWN]!r}; GET /v2/models/<name> lists them")
        if name in given:
            raise Wrong(f"{where}: stands there twice")
        kind = rows.columns[name].type
        if tensor.datatype not in SUITS[kind]:
            came, fits = tensor.datatype[:SHOWN], ", ".join(SUITS[kind])
            raise Wrong(f"{where}: datatype {came!r} does not suit a {kind}; give {fits}")
        if tensor.shape.rows > rows.most:
            raise Wrong(f"{where}: {tensor.shape.rows} rows; give 1 to {rows.most}", 422)
        size = tensor.parameters.binary_data_size
        if size is None:
            values = _from_json(tensor, where, rows.most)
        elif size > len(tail):
            raise Wrong(f"{where}: binary_data_size {size}, of which {len(tail)} bytes came")
        else:
            values, tail = _from_bytes(tensor, where, tail[:size]), tail[size:]
        if len(values) != tensor.shape.rows:
            raise Wrong(f"{where}: {len(values)} values for a shape of {tensor.shape.rows} rows")
        try:
            given[name] = msgspec.convert([_plain(v, kind) for v in values], LISTS[kind])
        except (ValueError, OverflowError) as error:
            raise _wrong(error, b"", where) from None
    if tail:
        raise Wrong(f"{len(tail)} bytes stand behind the last tensor; see binary_data_size")
    sizes = {len(values) for values in given.values()}
    if len(sizes) != 1:
        raise Wrong(f"inputs: tensors of one length are needed, here are {sorted(sizes) or 'none'}")
    n = sizes.pop()
    return [given.get(name) or [None] * n for name in rows.names]


def _from_json(tensor: Tensor, where: str, most: int) -> list[Any]:
    """A tensor's data, of values as its datatype says."""
    data: Any = tensor.data
    counted = type(data) is not msgspec.Raw and data is not msgspec.UNSET
    raw = b"[" + b",".join(map(bytes, members(data))) + b"]" if counted else bytes(data or b"")
    if not raw:
        raise Wrong(f"{where}: no data, and no binary_data_size in its parameters")
    nested = raw[:LOOKED_AT].lstrip()[1:].lstrip()[:1] == b"["
    few, many = _readers(tensor.datatype, nested, most)
    try:
        # Between two values stands a comma: only where there are more, they have to be counted
        values = few(raw) if raw.count(b",") < tensor.shape.rows else members(many(raw))
    except (ValueError, RecursionError) as error:
        raise _wrong(error, raw, f"{where}.data") from None
    return [one.value for one in values] if nested else values


def _from_bytes(tensor: Tensor, where: str, content: bytes) -> list[Any]:
    """The same of bytes; of texts not more than there may be and one."""
    rows, kind = tensor.shape.rows, tensor.datatype
    if kind != "BYTES":
        size = np.dtype(NUMPY[kind]).itemsize
        if len(content) != rows * size:
            raise Wrong(f"{where}: {len(content)} bytes; {rows} of {kind} take {rows * size}")
        return list(np.frombuffer(content, NUMPY[kind]).tolist())
    values: list[str] = []
    at = 0
    while at < len(content) and len(values) <= rows:
        start = at + 4
        at = start + int.from_bytes(content[at:start], "little")
        if at > len(content):
            raise Wrong(f"{where}: text {len(values)} is cut short")
        try:
            values.append(content[start:at].decode())
        except UnicodeDecodeError as error:
            raise Wrong(f"{where}: text {len(values)} is not UTF-8: {error.reason}") from None
    return values


def _plain(value: Any, kind: str) -> Any:
    """A value as a request's row has it: NaN is a missing one, 1 a true."""
    if isinstance(value, float):
        if value != value:
            return None
        if value in (np.inf, -np.inf):
            raise ValueError("not a finite number")
    if kind == "bool" and value in (0, 1):
        return value == 1
    return value


def _to_bytes(values: Sequence[Any], kind: str) -> bytes:
    if kind == "BYTES":
        return b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)
    return np.asarray(values, NUMPY[kind]).tobytes()
