"""The OpenAPI document of the service: openapi.yaml, filled in from the event schema and the loaded models."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML

from ..data.label_rule import MAX_LABEL_LENGTH
from ..parts import optional_module, parts_here
from ..settings import RouterSettings, Settings
from .bounded import Problem
from .ids import PREDICTION_ID, REQUEST_ID
from .rows import MAX_LENGTH, MAX_TIME, MIN_TIME, Rows
from .service import PREDICTING, Answer, Service
from .v2 import ACCEPTED, DATATYPES, OUTPUTS

Tree = dict[str, Any]
SKELETON = Path(__file__).with_name("openapi.yaml")


class Refusal(msgspec.Struct):
    """Why a request was not answered."""

    error: str
    problems: list[Problem] = []
    request: str = ""


@cache
def _skeleton() -> bytes:
    """openapi.yaml as JSON: reading YAML takes 40 ms, in which the service would answer nobody."""
    return msgspec.json.encode(YAML(typ="safe").load(SKELETON))


def document(settings: Settings, service: Service) -> Tree:
    """The service's OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0), as a tree for JSON."""
    tree: Tree = msgspec.json.decode(_skeleton())
    version = service.arms["champion"].version.model
    tree["info"] |= {"title": settings.project.name, "version": version}
    components = tree["components"]
    identified = components["responses"]["400"]["headers"]["x-request-id"]["description"]
    rule = f" One that is not {REQUEST_ID.pattern} is passed over."
    components["parameters"]["RequestId"]["description"] = identified + rule
    for name, value in (("Name", service.name), ("Version", version)):
        components["parameters"][name]["schema"]["enum"] = [value]
    schemas = components["schemas"]
    schemas |= msgspec.json.schema_components(
        [Answer, Refusal], ref_template="#/components/schemas/{name}"
    )[1]
    if service.explaining.refusal:
        parameters = tree["paths"]["/predict"]["post"]["parameters"]
        parameters[:] = [entry for entry in parameters if entry.get("name") != "explain"]
    schemas["Row"] |= {
        "properties": {name: _column(service.rows, name) for name in service.rows.columns},
        "required": list(service.rows.required),
        "example": service.example(),
    }
    if (forecast := optional_module("serving.forecast")) and forecast.serves(settings):
        schemas["Series"] |= forecast.schema(settings, schemas["Row"])
    else:
        del tree["paths"]["/forecast"], schemas["Series"]
    if (recommend := optional_module("serving.recommend")) and recommend.serves(settings):
        schemas["Context"] |= recommend.schema(settings, schemas["Row"])
    else:
        del tree["paths"]["/recommend"], schemas["Context"], schemas["Recommendation"]
    schemas["Label"]["properties"]["id"]["pattern"] = PREDICTION_ID.pattern
    _fill_oversight(tree)
    schemas["Label"]["properties"]["label"] = _label(service)
    for name in ("Rows", "Labels"):
        schemas[name]["maxItems"] = service.rows.max_rows
    _fill_inference(schemas["Inference"], schemas.pop("Tensor"), service)
    if "rollout" in parts_here():  # a change of the router gives only what it changes
        changes = RouterSettings.model_json_schema()["properties"]
        schemas["Router"]["properties"] = {**changes, "unit": {"enum": [*service.units, None]}}
    else:
        del tree["paths"]["/router"]["put"], schemas["Router"]
    if "governance" in parts_here():  # a system can be retired
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
        gone = {"description": "Retired: nothing answers any more", "content": content}
        for path, methods in tree["paths"].items():
            if path in PREDICTING or path.endswith("/infer"):
                methods["post"]["responses"]["410"] = gone
    if service.guarded:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        tree["security"] = [{"token": []}]
    return tree


def _fill_oversight(tree: Tree) -> None:
    """What the part governance asks of a service and refuses, where the project has it."""
    paths, components = tree["paths"], tree["components"]
    if "governance" in parts_here():
        components["schemas"]["Appeal"]["properties"]["id"]["pattern"] = PREDICTION_ID.pattern
        for path in paths.values():
            if "post" in path:
                path["post"]["responses"]["429"] = {"$ref": "#/components/responses/429"}
        return
    for path in ("/stop", "/resume", "/appeal"):
        del paths[path]
    del (
        components["schemas"]["Act"],
        components["schemas"]["Appeal"],
        components["responses"]["429"],
    )


def _column(rows: Rows, name: str) -> Tree:
    """What a column of a row may hold; bounds where a value beyond them is refused."""
    kind, required = rows.columns[name].type, name in rows.required
    schemas: dict[str, Tree] = {
        "number": {"type": ["number"]},
        "bool": {"type": ["boolean"]},
        "category": {"type": ["string", "number"], "maxLength": MAX_LENGTH["category"]},
        "text": {"type": ["string"], "maxLength": MAX_LENGTH["text"]},
        "image": {"type": ["string"], "contentEncoding": "base64", "maxLength": rows.max_body},
        "history": {
            "type": ["array"],
            "items": {"type": ["number", "null"]},
            "maxItems": MAX_LENGTH["history"],
        },
        "time": {"type": ["string", "number"], "maxLength": MAX_LENGTH["time"]}
        | {"format": "date-time", "minimum": MIN_TIME, "maximum": MAX_TIME},
    }
    schema = schemas[kind]
    if required and "string" in schema["type"]:
        schema["minLength"] = 1
    if not required:
        schema["type"] = [*schema["type"], "null"]
    return {**schema, **rows.bounds(name), "description": rows.allowed(name)}


def _label(service: Service) -> Tree:
    """What a label of feedback may be."""
    rule = service.label_rule
    schema: Tree = {"type": ["number", "null"]}
    if rule.values:
        schema = {"enum": [*(map(float, rule.values) if rule.numeric else rule.values), None]}
    elif not rule.numeric:
        schema = {"type": ["string", "null"], "maxLength": MAX_LABEL_LENGTH}
    return {**schema, "description": rule.description}


def _fill_inference(inference: Tree, tensor: Tree, service: Service) -> None:
    """Fill in a request of the Open Inference Protocol: a tensor for each type that a column has."""
    rows, columns, fields = service.rows, service.rows.columns, inference["properties"]
    tensor["properties"]["shape"]["prefixItems"][0]["maximum"] = rows.max_rows
    tensor["properties"]["data"]["maxItems"] = rows.max_rows
    tensors = fields["inputs"]["items"]["anyOf"] = []
    for kind, datatypes in ACCEPTED.items():
        if names := [name for name, column in columns.items() if column.type == kind]:
            tensors.append({**deepcopy(tensor), "title": kind})
            tensors[-1]["properties"]["name"]["enum"] = names
            tensors[-1]["properties"]["datatype"]["enum"] = list(datatypes)
    fields["inputs"]["maxItems"] = len(rows.names)
    fields["outputs"]["maxItems"] = len(OUTPUTS)
    fields["outputs"]["items"]["properties"]["name"]["enum"] = list(OUTPUTS)
    example = [
        {"name": name, "shape": [1, 1], "datatype": DATATYPES[columns[name].type], "data": [value]}
        for name, value in service.example().items()
    ]
    inference["example"] = {"inputs": example}
