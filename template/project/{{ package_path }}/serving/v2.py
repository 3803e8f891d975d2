"""The Open Inference Protocol, version 2, so that clients written for other servers work here.

One row is one place of every input tensor, of shape [n] or [n, 1]. Tensors come as JSON or, as
Triton's clients send them, as bytes behind the JSON (the binary tensor data extension).
https://github.com/open-inference/open-inference-protocol
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from .rows import GIVEN, Rows
from .service import Service

TENSOR = {"number": "FP64", "bool": "BOOL", "category": "BYTES", "text": "BYTES", "time": "FP64"}
NUMPY = {
    "BOOL": "?",
    **{
        f"{sign}INT{8 * size}": f"<{kind}{size}"
        for sign, kind in (("", "i"), ("U", "u"))
        for size in (1, 2, 4, 8)
    },
    **{f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}
encode = msgspec.json.encode


class Wrong(Exception):
    """A request that does not keep to the protocol."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class Inference(msgspec.Struct):
    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Output] = []
    parameters: dict[str, Any] = {}


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
    return {
        "name": name,
        "versions": [service.arms["champion"].version.model],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": column, "datatype": TENSOR[one.type], "shape": [-1, 1]}
            for column, one in columns.items()
        ],
        "outputs": [
            {"name": "score", "datatype": "FP64", "shape": [-1, 1]},
            {"name": "decision", "datatype": "FP64", "shape": [-1, 1]},
            {"name": "id", "datatype": "BYTES", "shape": [-1, 1]},
        ],
    }


async def infer(
    service: Service, body: bytes, json_length: str | None
) -> tuple[bytes, dict[str, str]]:
    """POST /v2/models/<name>/infer: the answer's body and headers.

    Raises:
        Wrong: when the request does not keep to the protocol.
        Refused: when a value is not allowed.
    """
    if json_length is not None and not (json_length.isascii() and json_length.isdigit()):
        raise Wrong("Inference-Header-Content-Length: not a number")
    length = len(body) if json_length is None else int(json_length)
    try:
        request = msgspec.json.decode(body[:length], type=Inference)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Wrong(f"not an inference request: {error}") from None
    columns, n = _columns(service.rows, request, body[length:])
    rows = service.rows.checked([list(row) for row in zip(*columns, strict=True)])
    answers = await service.answer(rows)
    values: dict[str, list[Any]] = {
        "score": [one.score for one in answers],
        "decision": [one.decision for one in answers],
        "id": [one.id for one in answers],
    }
    wanted = request.outputs or [Output(name) for name in values]
    all_binary = bool(request.parameters.get("binary_data_output"))
    outputs, tail = [], []
    for one in wanted:
        if one.name not in values:
            raise Wrong(f"outputs: no {one.name!r}; there are {', '.join(values)}")
        kind = "BYTES" if one.name == "id" else "FP64"
        entry: dict[str, Any] = {"name": one.name, "datatype": kind, "shape": [n, 1]}
        if one.parameters.get("binary_data", all_binary):
            tail.append(_to_bytes(values[one.name], kind))
            entry["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            entry["data"] = values[one.name]
        outputs.append(entry)
    head = {
        "model_name": service.name,
        "model_version": answers[0].version.model,
        **({"id": request.id} if request.id else {}),
        "outputs": outputs,
        "parameters": {
            "arm": ",".join(sorted({one.arm for one in answers})),
            "fallback": any(one.fallback for one in answers),
        },
    }
    content = encode(head)
    if not tail:
        return content, {"content-type": "application/json"}
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(content)),
    }
    return b"".join([content, *tail]), headers


def _columns(rows: Rows, request: Inference, tail: bytes) -> tuple[list[Sequence[Any]], int]:
    """A value a row for every column, None where no tensor gave one."""
    given: dict[str, list[Any]] = {}
    for tensor in request.inputs:
        if tensor.name not in rows.columns:
            raise Wrong(f"inputs: no column {tensor.name!r}; GET /v2/models/<name> lists them")
        if tensor.name in given:
            raise Wrong(f"inputs: {tensor.name!r} stands there twice")
        shape = tensor.shape
        if len(shape) not in (1, 2) or shape[1:] not in ([], [1]) or shape[0] < 1:
            raise Wrong(f"inputs.{tensor.name}: shape {shape} is not [n] or [n, 1]")
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            values = [v[0] if type(v) is list and len(v) == 1 else v for v in tensor.data or []]
        elif type(size) is int and 0 <= size <= len(tail):
            values, tail = _from_bytes(tensor, tail[:size]), tail[size:]
        else:
            raise Wrong(f"inputs.{tensor.name}: binary_data_size {size!r} does not fit the body")
        if len(values) != shape[0]:
            raise Wrong(f"inputs.{tensor.name}: {len(values)} values for shape {shape}")
        kind = rows.columns[tensor.name].type
        try:
            given[tensor.name] = [msgspec.convert(_plain(v, kind), GIVEN[kind]) for v in values]
        except (msgspec.ValidationError, OverflowError) as error:
            raise Wrong(f"inputs.{tensor.name}: {error}; give {TENSOR[kind]}") from None
    sizes = {len(values) for values in given.values()}
    if len(sizes) != 1:
        raise Wrong(f"inputs: tensors of one length are needed, here are {sorted(sizes) or 'none'}")
    n = sizes.pop()
    return [given.get(name) or [None] * n for name in rows.names], n


def _plain(value: Any, kind: str) -> Any:
    """A tensor knows no null: NaN is a missing number, 1 a true."""
    if isinstance(value, float) and value != value:
        return None
    return value == 1 if kind == "bool" and value in (0, 1) else value


def _from_bytes(tensor: Tensor, content: bytes) -> list[Any]:
    if tensor.datatype == "BYTES":
        values, at = [], 0
        try:
            while at < len(content):
                (size,) = struct.unpack_from("<I", content, at)
                if at + 4 + size > len(content):
                    raise Wrong(f"inputs.{tensor.name}: cut short")
                values.append(content[at + 4 : at + 4 + size].decode())
                at += 4 + size
        except (struct.error, UnicodeDecodeError) as error:
            raise Wrong(f"inputs.{tensor.name}: {error}") from None
        return values
    try:
        return np.frombuffer(content, NUMPY[tensor.datatype]).tolist()
    except (KeyError, ValueError) as error:
        raise Wrong(f"inputs.{tensor.name}: not {tensor.datatype}: {error}") from None


def _to_bytes(values: Sequence[Any], kind: str) -> bytes:
    if kind == "BYTES":
        return b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)
    return np.asarray(values, NUMPY[kind]).tobytes()
