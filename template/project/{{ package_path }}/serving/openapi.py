"""The OpenAPI document of the service, written from the event schema and the models that are loaded."""

from __future__ import annotations

from typing import Any

import msgspec

from ..settings import Settings
from .rows import Problem
from .service import Answer, Label, Service
from .v2 import Inference

TYPES: dict[str, dict[str, Any]] = {
    "number": {"type": ["number", "null"]},
    "bool": {"type": ["boolean", "null"]},
    "category": {"type": ["string", "number", "null"]},
    "text": {"type": ["string", "null"]},
    "time": {
        "anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}, {"type": "null"}]
    },
}


class Refusal(msgspec.Struct):
    """Why a request was not answered."""

    error: str
    problems: list[Problem] = []


def document(settings: Settings, service: Service) -> dict[str, Any]:
    """OpenAPI 3.1, as a tree for JSON."""
    schemas, components = msgspec.json.schema_components(
        [Answer, Label, Refusal, Inference], ref_template="#/components/schemas/{name}"
    )
    answer, label, refusal, inference = schemas
    rows, limits = service.rows, settings.serving.limits
    properties = {
        name: TYPES[one.type] | ({"description": words} if (words := rows.words(name)) else {})
        for name, one in rows.columns.items()
    }
    components["Row"] = {
        "title": "Row",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "example": service.example(),
    }
    row = {"$ref": "#/components/schemas/Row"}
    many = {"type": "array", "items": row, "minItems": 1, "maxItems": limits.rows}
    free: dict[str, Any] = {"type": "object"}
    refused = {413: refusal, 408: refusal, 422: refusal}

    def call(
        words: str, ok: Any, body: Any = None, name: str = "", more: dict[int, Any] | None = None
    ) -> dict[str, Any]:
        answers = {200: ok, 401: refusal, **(more or {}), **(refused if body else {})}
        found: dict[str, Any] = {
            "summary": words,
            "responses": {
                str(status): {"description": _WORDS[status], "content": _content(schema)}
                for status, schema in answers.items()
            },
        }
        if body:
            found["requestBody"] = {"required": True, "content": _content(body)}
        if name:
            found["parameters"] = [
                {"name": one, "in": "path", "required": True, "schema": {"type": "string"}}
                for one in name.split()
            ]
        return found

    model, missing = "/v2/models/{name}", {404: refusal}
    text = {
        "text/plain": {"schema": {"type": "string"}},
        "text/html": {"schema": {"type": "string"}},
    }
    plain = call("", free)
    plain["responses"]["200"]["content"] = text
    paths = {
        "/": {"get": {**plain, "summary": "The page for people"}},
        "/predict": {
            "post": call(
                "Answer a row, or a list of rows",
                {"anyOf": [answer, {"type": "array", "items": answer}]},
                {"anyOf": [row, many]},
            )
        },
        "/feedback": {
            "post": call(
                "Say what came true of a prediction",
                free,
                {"anyOf": [label, {"type": "array", "items": label}]},
            )
        },
        "/model": {"get": call("What this model is", free)},
        "/metrics": {"get": {**plain, "summary": "Metrics for Prometheus"}},
        "/openapi.json": {"get": call("This document", free)},
        "/reload": {"post": call("Read the models again", free)},
        "/router": {
            "get": call("Which model answers how much", free),
            "put": call("Change it while running", free, free),
        },
        "/v2": {"get": call("Open Inference Protocol: the server", free)},
        "/v2/health/live": {"get": call("Whether the process runs", free)},
        "/v2/health/ready": {"get": call("Whether it answers", free)},
    }
    for prefix, name in ((model, "name"), (model + "/versions/{version}", "name version")):
        paths |= {
            prefix: {"get": call("Inputs and outputs", free, None, name, missing)},
            f"{prefix}/ready": {"get": call("Whether it answers", free, None, name, missing)},
            f"{prefix}/infer": {
                "post": call("Answer tensors", free, inference, name, {400: refusal, **missing})
            },
        }
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": settings.project.name,
            "version": service.arms["champion"].version.model,
            "description": "Answers from the exported model. `GET /` shows it to people.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }
    if service.guarded:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
    return found


_WORDS = {
    200: "Done",
    400: "Not the protocol",
    401: "The token is missing or wrong",
    404: "No such model",
    408: "The body came too slowly",
    413: "The body is too large",
    422: "What was sent is not allowed: the field, what came, what is allowed",
}


def _content(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
