"""The OpenAPI document of the service, written from the event schema and the models that are loaded."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from ..data.labels import LONGEST as LONGEST_LABEL
from ..settings import Router, Settings
from .bounded import Problem
from .ids import FORM
from .request import ID
from .rows import FIRST, LAST, LONGEST
from .service import Answer, Service
from .v2 import HEADER, OUTPUTS, SUITS, TENSOR

Tree = dict[str, Any]
REQUEST_ID = "The id that the request came with, else its trace's, else a new one; the log has it."
STATUS = {
    200: "Done",
    400: "Not the protocol",
    401: "The token is missing or wrong",
    403: "Not for this token, or from another site",
    404: "No such model",
    405: "Another method; the header says which there are",
    408: "The body came too slowly",
    413: "The body is too large",
    415: "Content-Encoding is neither gzip nor identity",
    422: "What was sent is not allowed: the field, what came, what is allowed",
    500: "A mistake of the service's own; its log has the request's id",
    503: "Too much is waiting; try again",
}
ALWAYS = (401, 403, 405, 500)
WITH_A_BODY = (408, 413, 415, 422, 503)


class Refusal(msgspec.Struct):
    """Why a request was not answered."""

    error: str
    problems: list[Problem] = []
    request: str = ""


def document(settings: Settings, service: Service) -> Tree:
    """OpenAPI 3.1, as a tree for JSON."""
    (answer, refusal), components = msgspec.json.schema_components(
        [Answer, Refusal], ref_template="#/components/schemas/{name}"
    )
    components |= {
        "Row": _row(service),
        "Label": _label(service),
        "Inference": _inference(service),
        "Router": _router(service),
    }
    found: Tree = {
        "openapi": "3.1.0",
        "info": {
            "title": settings.project.name,
            "version": service.arms["champion"].version.model,
            "description": "Answers from the exported model. `GET /` shows it to people.",
        },
        "paths": _paths(service, answer, refusal),
        "components": {
            "schemas": components,
            "parameters": {
                "RequestId": _header(
                    "x-request-id", f"{REQUEST_ID} One that is not {ID.pattern} is passed over."
                ),
                "TraceParent": _header(
                    "traceparent", "W3C Trace Context; one that is none is passed over."
                ),
            },
        },
    }
    if service.guarded:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
    return found


def _paths(service: Service, answer: Tree, refusal: Tree) -> Tree:
    """The addresses and what may be asked of each."""
    row, label, inference, router = (_ref(n) for n in ("Row", "Label", "Inference", "Router"))
    most = service.rows.most
    call = partial(_call, refusal)

    free: Tree = {"type": "object"}
    paths: Tree = {
        "/": {"get": _plain(call("The page for people", free), "text/html")},
        "/predict": {
            "post": call(
                "Answer a row, or a list of rows",
                {"anyOf": [answer, {"type": "array", "items": answer}]},
                {"anyOf": [row, _many(row, most)]},
            )
        },
        "/feedback": {
            "post": call(
                "Say what came true of a prediction",
                {"type": "object", "properties": {"taken": {"type": "integer"}}},
                {"anyOf": [label, {**_many(label, most), "minItems": 0}]},
            )
        },
        "/model": {"get": call("What this model is", free)},
        "/metrics": {"get": _plain(call("Metrics for Prometheus", free), "text/plain")},
        "/openapi.json": {"get": call("This document", free)},
        "/reload": {"post": call("Read the models again", free, more=(409, 503))},
        "/router": {
            "get": call("Which model answers how much", free, more=(503,)),
            "put": call("Change it while running", free, router),
        },
        "/v2": {"get": call("Open Inference Protocol: the server", free)},
        "/v2/health/live": {"get": call("Whether the process runs", free)},
        "/v2/health/ready": {"get": call("Whether it answers", free, more=(503,))},
    }
    model = "/v2/models/{name}"
    served = {"name": service.name, "version": service.arms["champion"].version.model}
    for prefix, names in (
        (model, ("name",)),
        (model + "/versions/{version}", ("name", "version")),
    ):
        calls = {
            prefix: {"get": call("Inputs and outputs", free, more=(404,))},
            f"{prefix}/ready": {"get": call("Whether it answers", free, more=(404, 503))},
            f"{prefix}/infer": {"post": call("Answer tensors", free, inference, (400, 404))},
        }
        packed = calls[f"{prefix}/infer"]["post"]["responses"]["200"]["content"]
        packed["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
        for methods in calls.values():
            for operation in methods.values():
                operation["parameters"] += [_in_path(name, served[name]) for name in names]
        paths |= calls
    return paths


def _call(
    refusal: Tree, words: str, ok: Tree, body: Tree | None = None, more: tuple[int, ...] = ()
) -> Tree:
    """An operation that answers JSON."""
    codes = sorted({*ALWAYS, *more, *(WITH_A_BODY if body else ())})
    responses = {200: _response(200, ok), **{code: _response(code, refusal) for code in codes}}
    found: Tree = {
        "summary": words,
        "parameters": [_ref("RequestId", "parameters"), _ref("TraceParent", "parameters")],
        "responses": {str(code): response for code, response in responses.items()},
    }
    if body:
        found["requestBody"] = {
            "required": True,
            "description": "May be packed: Content-Encoding: gzip",
            "content": _json(body),
        }
    return found


def _row(service: Service) -> Tree:
    """What a row may hold; bounds where a value beyond them is refused."""
    rows = service.rows
    properties = {}
    for name, one in rows.columns.items():
        required = name in rows.required
        kinds: Tree = {
            "number": {"type": ["number"]},
            "bool": {"type": ["boolean"]},
            "category": {"type": ["string", "number"], "maxLength": LONGEST["category"]},
            "text": {"type": ["string"], "maxLength": LONGEST["text"]},
            "time": {"type": ["string", "number"], "maxLength": LONGEST["time"]},
        }
        found = kinds[one.type]
        if one.type == "time":
            found |= {"format": "date-time", "minimum": FIRST, "maximum": LAST}
        if required and "string" in found["type"]:
            found["minLength"] = 1
        if not required:
            found["type"] = [*found["type"], "null"]
        found |= rows.bounds(name)
        properties[name] = {**found, "description": rows.words(name)}
    return {
        "title": "Row",
        "type": "object",
        "properties": properties,
        "required": list(rows.required),
        "additionalProperties": False,
        "example": service.example(),
    }


def _label(service: Service) -> Tree:
    rule = service.labels
    label: Tree = {"type": ["number", "null"]}
    if rule.values and rule.numeric:
        label = {"enum": [*map(float, rule.values), None]}
    elif rule.values:
        label = {"enum": [*rule.values, None]}
    elif not rule.numeric:
        label = {"type": ["string", "null"], "maxLength": LONGEST_LABEL}
    return {
        "title": "Label",
        "description": "What came true of a prediction; `reward` is what a bandit learns from.",
        "type": "object",
        "properties": {
            "id": {"type": "string", "pattern": FORM.pattern, "description": "of its answer"},
            "label": {**label, "description": rule.words},
            "reward": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        },
        "required": ["id"],
        "anyOf": [
            {"required": ["label"], "properties": {"label": {"not": {"type": "null"}}}},
            {"required": ["reward"], "properties": {"reward": {"type": "number"}}},
        ],
        "additionalProperties": False,
    }


def _inference(service: Service) -> Tree:
    """A request of the Open Inference Protocol, for the columns that there are."""
    rows, columns = service.rows, service.rows.columns
    shape = {
        "description": "[n] or [n, 1], of all tensors the same n",
        "type": "array",
        "prefixItems": [{"type": "integer", "minimum": 1, "maximum": rows.most}, {"const": 1}],
        "items": False,
        "minItems": 1,
    }
    size = {
        "type": ["integer", "null"],
        "minimum": 0,
        "description": f"Of bytes behind the JSON, whose length {HEADER} gives",
    }
    tensors = []
    for kind, suits in SUITS.items():
        if names := [name for name, one in columns.items() if one.type == kind]:
            tensor = _object(
                name={"enum": names},
                shape=shape,
                datatype={"enum": list(suits)},
                data={"type": "array", "maxItems": rows.most, "description": "Flat or nested"},
                parameters=_object(binary_data_size=size),
            )
            tensors.append({"title": kind, **tensor, "required": ["name", "shape", "datatype"]})
    flag = {"type": ["boolean", "null"]}
    output = _object(name={"enum": list(OUTPUTS)}, parameters=_object(binary_data=flag))
    outputs = {"type": ["array", "null"], "items": {**output, "required": ["name"]}}
    example = [
        {"name": name, "shape": [1, 1], "datatype": TENSOR[columns[name].type], "data": [value]}
        for name, value in service.example().items()
    ]
    return {
        "title": "Inference",
        **_object(
            inputs={
                "type": "array",
                "items": {"anyOf": tensors},
                "minItems": 1,
                "maxItems": len(rows.names),
            },
            id={"type": ["string", "null"]},
            outputs={**outputs, "maxItems": len(OUTPUTS), "uniqueItems": True},
            parameters=_object(binary_data_output={"type": "boolean"}),
        ),
        "required": ["inputs"],
        "example": {"inputs": example},
    }


def _router(service: Service) -> Tree:
    """The settings of the router, of which a change gives some."""
    properties = Router.model_json_schema()["properties"]
    properties["unit"] = {"enum": [*service.units, None]}
    return {"title": "Router", **_object(**properties), "additionalProperties": False}


def _object(**properties: Tree) -> Tree:
    return {"type": "object", "properties": properties}


def _many(item: Tree, most: int) -> Tree:
    return {"type": "array", "items": item, "minItems": 1, "maxItems": most}


def _ref(name: str, kind: str = "schemas") -> Tree:
    return {"$ref": f"#/components/{kind}/{name}"}


def _json(schema: Tree) -> Tree:
    return {"application/json": {"schema": schema}}


def _plain(operation: Tree, media: str) -> Tree:
    """The same operation, whose answer is no JSON."""
    operation["responses"]["200"]["content"] = {media: {"schema": {"type": "string"}}}
    return operation


def _response(status: int, schema: Tree) -> Tree:
    headers: Tree = {"x-request-id": {"description": REQUEST_ID, "schema": {"type": "string"}}}
    if status == 405:
        headers["allow"] = {"schema": {"type": "string"}}
    words = STATUS.get(status, "Not now")
    return {"description": words, "headers": headers, "content": _json(schema)}


def _header(name: str, words: str) -> Tree:
    return {"name": name, "in": "header", "description": words, "schema": {"type": "string"}}


def _in_path(name: str, served: str) -> Tree:
    return {"name": name, "in": "path", "required": True, "schema": {"enum": [served]}}
