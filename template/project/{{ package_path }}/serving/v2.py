"""The Open Inference Protocol, version 2, so that clients written for other servers work here.

One row is one place of every input tensor, of shape [n] or [n, 1]. Tensors come as JSON or, as
Triton's clients send them, as bytes behind the JSON (the binary tensor data extension).
https://github.com/open-inference/open-inference-protocol
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import GenericAlias
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from ..problem import DECISION_TYPE
from .bounded import MAX_ECHO, Refused, first_problem, list_decoder, list_type, members
from .rows import JSON_TYPES, Rows
from .service import Answer, Service

DATATYPES = {"number": "FP64", "bool": "BOOL", "time": "FP64"}
DATATYPES |= dict.fromkeys(("category", "text", "image", "history"), "BYTES")
INTEGER_TYPES = {
    f"{sign}INT{8 * size}": f"<{kind}{size}"
    for sign, kind in (("", "i"), ("U", "u"))
    for size in (1, 2, 4, 8)
}
FLOAT_TYPES = {f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)}
NUMPY_TYPES = {"BOOL": "?", **INTEGER_TYPES, **FLOAT_TYPES}
# What a column's values may come as. A code that is a number, 3 or 3.0, is read as the text 3
ACCEPTED = {
    "number": (*FLOAT_TYPES, *INTEGER_TYPES),
    "bool": ("BOOL", *INTEGER_TYPES, *FLOAT_TYPES),  # of numbers 0 and 1
    "category": ("BYTES", *INTEGER_TYPES, *FLOAT_TYPES),
    "text": ("BYTES",),
    "image": ("BYTES",),  # base64; behind the JSON also the file as it is
    "history": ("BYTES",),  # a text of JSON: [12, null, 7.5]
    "time": (*FLOAT_TYPES, *INTEGER_TYPES, "BYTES"),  # seconds since 1970, or ISO 8601
}
SEARCHED_BYTES = 1000  # bytes of a tensor's data in which it says whether it is nested
HEADER = "Inference-Header-Content-Length"
LIST_TYPES = {kind: GenericAlias(list, (type_,)) for kind, type_ in JSON_TYPES.items()}
DECISION_DATATYPE = "BYTES" if DECISION_TYPE == "VARCHAR" else "FP64"
OUTPUTS = {"score": "FP64", "decision": DECISION_DATATYPE, "id": "BYTES"}
encode = msgspec.json.encode


class V2Error(Exception):
    """A request that does not keep to the protocol."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Shape(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """[n] or [n, 1]."""

    rows: Annotated[int, msgspec.Meta(ge=1)]
    width: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1


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
def reader(columns: int, max_values: int | None = None) -> Callable[[bytes], Any]:
    """A decoder of inference requests with at most a tensor for each column.

    Args:
        max_values: of a tensor, after which it is left; None: it is taken as it is, and counted later.
    """
    tensor: Any = Tensor
    if max_values is not None:
        data = ("data", list_type(max_values, msgspec.Raw), msgspec.UNSET)
        tensor = msgspec.defstruct("Tensor", [data], bases=(Tensor,), kw_only=True)
    fields: list[Any] = [
        ("inputs", list_type(columns, tensor)),
        ("id", str | None, None),
        ("outputs", list_type(len(OUTPUTS), Output) | None, None),
        ("parameters", RequestParameters, RequestParameters()),
    ]
    return msgspec.json.Decoder(msgspec.defstruct("Inference", fields)).decode


def _value_type(datatype: str) -> Any:
    """The type of a tensor's values in JSON; null stands for a missing one."""
    if datatype == "BYTES":
        return str | None
    if datatype == "BOOL":
        return bool | Literal[0, 1] | None
    if datatype in INTEGER_TYPES:
        limits = np.iinfo(INTEGER_TYPES[datatype])
        largest = min(int(limits.max), 2**63 - 1)  # beyond, only as bytes
        return Annotated[int, msgspec.Meta(ge=int(limits.min), le=largest)] | None
    largest_float = float(np.finfo(FLOAT_TYPES[datatype]).max)
    return Annotated[float, msgspec.Meta(ge=-largest_float, le=largest_float)] | None


@lru_cache(maxsize=64)
def _decoders(datatype: str, nested: bool, max_values: int) -> tuple[Callable[[bytes], Any], ...]:
    """Decoders of a tensor's data: of as few values as there may be, and of more."""
    item = _value_type(datatype)
    if nested:
        fields = [("value", item)]
        item = msgspec.defstruct("Row", fields, array_like=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(list[item]).decode, list_decoder(max_values, item)  # type: ignore[valid-type]


def server(service: Service) -> dict[str, Any]:
    """What GET /v2 answers: the server's metadata."""
    version = service.arms["champion"].version.code
    return {"name": service.name, "version": version, "extensions": ["binary_tensor_data"]}


def check(service: Service, name: str, version: str | None = None) -> None:
    """Let a request for this model pass, and refuse one for another.

    Raises:
        V2Error: 404, naming the one that is.
    """
    current = service.arms["champion"].version.model
    if name != service.name or version not in (None, current):
        raise V2Error(f"no such model: this is {service.name}, version {current}", 404)


def model(service: Service, name: str, version: str | None = None) -> dict[str, Any]:
    """What GET /v2/models/<name> answers: the model's inputs and outputs as tensors.

    Raises:
        V2Error: 404, when another model is asked for.
    """
    check(service, name, version)
    columns = service.rows.columns
    classes = service.classes
    width = len(classes) or 1
    return {
        "name": name,
        "versions": [service.arms["champion"].version.model],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": column, "datatype": DATATYPES[rule.type], "shape": [-1, 1]}
            for column, rule in columns.items()
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
        V2Error: when the request does not keep to the protocol, or a value is not allowed.
    """
    length = _json_length(body, json_length)
    rows = service.rows
    head = body[:length] if length < len(body) else body
    # Between two values stands a comma: only where there are more, tensors are counted as they come
    max_commas = len(rows.names) * (rows.max_rows + 8)
    max_values = rows.max_rows if head.count(b",") > max_commas else None
    try:
        inference = reader(len(rows.names), max_values)(head)
    except (ValueError, RecursionError) as error:
        raise _decoding_error(error, head) from None
    outputs = members(inference.outputs) if inference.outputs else []
    _check_outputs(outputs)
    columns = _columns(rows, members(inference.inputs), body[length:])
    try:
        typed = rows.check([list(row) for row in zip(*columns, strict=True)])
        answers = await service.answer(typed, request)
    except Refused as refused:
        reasons = [f"{p.field}: {p.got!r}; give {p.allowed}" for p in refused.problems[:10]]
        raise V2Error("; ".join(reasons), refused.status) from None
    return _response(service, inference, outputs, answers)


def _json_length(body: bytes, header: str | None) -> int:
    """How many bytes of a body are JSON, as the header tells."""
    if header is None:
        return len(body)
    is_number = header.isascii() and header.isdigit() and len(header) < 12
    if not is_number or int(header) > len(body):
        received = f"{header[:MAX_ECHO]!r} of a body of {len(body)} bytes"
        raise V2Error(f"{HEADER}: {received}; give the number of bytes of its JSON")
    return int(header)


def _response(
    service: Service, inference: Any, outputs: Sequence[Output], answers: Sequence[Answer]
) -> tuple[bytes, dict[str, str]]:
    """The answer's body and headers: of the outputs that were asked for, or of all."""
    scores = [answer.scores or {"": answer.score} for answer in answers]
    values: dict[str, list[Any]] = {
        "score": [value for by_class in scores for value in by_class.values()],
        "decision": [answer.decision for answer in answers],
        "id": [answer.id for answer in answers],
    }
    entries, tail = [], []
    for output in outputs or [Output(name) for name in values]:
        datatype = OUTPUTS[output.name]
        shape = [len(answers), len(scores[0]) if output.name == "score" else 1]
        entry: dict[str, Any] = {"name": output.name, "datatype": datatype, "shape": shape}
        as_bytes = output.parameters.binary_data
        if inference.parameters.binary_data_output if as_bytes is None else as_bytes:
            tail.append(_to_bytes(values[output.name], datatype))
            entry["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            entry["data"] = values[output.name]
        entries.append(entry)
    response = {
        "model_name": service.name,
        "model_version": answers[0].version.model,
        **({"id": inference.id} if inference.id else {}),
        "outputs": entries,
        "parameters": {
            "arm": ",".join(sorted({answer.arm for answer in answers})),
            "fallback": any(answer.fallback for answer in answers),
        },
    }
    content = encode(response)
    if not tail:
        return content, {"content-type": "application/json"}
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(content)),
    }
    return b"".join([content, *tail]), headers


def _decoding_error(error: Exception, body: bytes, path: str = "") -> V2Error:
    """What a decoder stumbled over, in a line: where, what came, what is allowed."""
    problem, _ = first_problem(error, body, "")
    field = f"{path}{problem.field}" if problem.field != "body" else path or "body"
    advice = f"; give {problem.allowed}" if problem.allowed else ""
    return V2Error(f"{field}: {problem.got}{advice}")


def _check_outputs(outputs: Sequence[Output]) -> None:
    names = [output.name for output in outputs]
    for name in names:
        if name not in OUTPUTS:
            raise V2Error(f"outputs: no {name[:MAX_ECHO]!r}; there are {', '.join(OUTPUTS)}")
        if names.count(name) > 1:
            raise V2Error(f"outputs: {name!r} stands there twice")


def _columns(rows: Rows, tensors: Sequence[Tensor], tail: bytes) -> list[Sequence[Any]]:
    """For every column of `rows` n values, of equal type; None where no tensor gave the column.

    Args:
        tail: the bytes behind the JSON, in the order of the tensors that have them.

    Raises:
        V2Error: a tensor that does not suit its column, or not the others.
    """
    table: dict[str, list[Any]] = {}
    for tensor in tensors:
        name, path = tensor.name, f"inputs.{tensor.name[:MAX_ECHO]}"
        if name not in rows.columns:
            raise V2Error(
                f"inputs: no column {name[:MAX_ECHO]!r}; GET /v2/models/<name> lists them"
            )
        if name in table:
            raise V2Error(f"{path}: stands there twice")
        kind = rows.columns[name].type
        if tensor.datatype not in ACCEPTED[kind]:
            received, accepted = tensor.datatype[:MAX_ECHO], ", ".join(ACCEPTED[kind])
            raise V2Error(f"{path}: datatype {received!r} does not suit a {kind}; give {accepted}")
        if tensor.shape.rows > rows.max_rows:
            raise V2Error(f"{path}: {tensor.shape.rows} rows; give 1 to {rows.max_rows}", 422)
        size = tensor.parameters.binary_data_size
        if size is None:
            values = _from_json(tensor, path, rows.max_rows)
        elif size > len(tail):
            raise V2Error(f"{path}: binary_data_size {size}, of which {len(tail)} bytes came")
        else:
            values, tail = _from_bytes(tensor, path, tail[:size], kind), tail[size:]
        if len(values) != tensor.shape.rows:
            raise V2Error(f"{path}: {len(values)} values for a shape of {tensor.shape.rows} rows")
        try:
            table[name] = msgspec.convert([_to_cell(v, kind) for v in values], LIST_TYPES[kind])
        except (ValueError, OverflowError) as error:
            raise _decoding_error(error, b"", path) from None
    if tail:
        raise V2Error(f"{len(tail)} bytes stand behind the last tensor; see binary_data_size")
    lengths = sorted({len(values) for values in table.values()})
    if len(lengths) != 1:
        raise V2Error(f"inputs: tensors of one length are needed, here are {lengths or 'none'}")
    return [table.get(name) or [None] * lengths[0] for name in rows.names]


def _from_json(tensor: Tensor, path: str, max_values: int) -> list[Any]:
    """A tensor's data, of values as its datatype says."""
    data: Any = tensor.data
    is_list = type(data) is not msgspec.Raw and data is not msgspec.UNSET
    raw = b"[" + b",".join(map(bytes, members(data))) + b"]" if is_list else bytes(data or b"")
    if not raw:
        raise V2Error(f"{path}: no data, and no binary_data_size in its parameters")
    nested = raw[:SEARCHED_BYTES].lstrip()[1:].lstrip()[:1] == b"["
    decode, decode_list = _decoders(tensor.datatype, nested, max_values)
    try:
        # Between two values stands a comma: only where there are more, they have to be counted
        values = decode(raw) if raw.count(b",") < tensor.shape.rows else members(decode_list(raw))
    except (ValueError, RecursionError) as error:
        raise _decoding_error(error, raw, f"{path}.data") from None
    return [item.value for item in values] if nested else values


def _from_bytes(tensor: Tensor, path: str, content: bytes, kind: str) -> list[Any]:
    """A tensor's data, of bytes; of texts not more than there may be and one."""
    rows, datatype = tensor.shape.rows, tensor.datatype
    if datatype != "BYTES":
        size = np.dtype(NUMPY_TYPES[datatype]).itemsize
        if len(content) != rows * size:
            raise V2Error(f"{path}: {len(content)} bytes; {rows} of {datatype} take {rows * size}")
        return list(np.frombuffer(content, NUMPY_TYPES[datatype]).tolist())
    values: list[str] = []
    end = 0
    while end < len(content) and len(values) <= rows:
        start = end + 4
        end = start + int.from_bytes(content[end:start], "little")
        if end > len(content):
            raise V2Error(f"{path}: text {len(values)} is cut short")
        try:
            values.append(content[start:end].decode())
        except UnicodeDecodeError as error:
            if kind == "image":  # its file, as no base64 and no path is
                values.append(b64encode(content[start:end]).decode())
                continue
            raise V2Error(f"{path}: text {len(values)} is not UTF-8: {error.reason}") from None
    return values


def _to_cell(value: Any, kind: str) -> Any:
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
    return np.asarray(values, NUMPY_TYPES[kind]).tobytes()
