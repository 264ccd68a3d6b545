"""Holds real answers against the OpenAPI documents, in both directions.

What the documents promise must be there, and nothing may be there that they do not tell: the
published documents leave objects open, so that a newer service may say more; here they are closed.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

from services.bus import web

_SCHEMAS = "#/components/schemas/"
# It has what belongs to each problem.
_OPEN = ("Problem",)


def service_class(service: str) -> type:
    """The nameko class of a service."""
    found: type = importlib.import_module(f"services.{service}.service").Service
    return found


@cache
def document(service: str) -> dict[str, Any]:
    """The OpenAPI document of a service."""
    return web.document(service_class(service))


def check(service: str, answer: httpx.Response) -> None:
    """Fails if an answer of a service is not as its document says."""
    found = _operation(service, answer.request.method.lower(), answer.request.url.path)
    if found is None:
        assert answer.status_code in (404, 405), f"{answer.request.url} is not documented"
        return
    responses = found["responses"]
    said = f"{answer.request.method} {answer.request.url.path} answered {answer.status_code}"
    status = str(answer.status_code)
    assert status in responses, f"{said}: document it in the route's problems, or as its status"
    response = responses[status]
    if "$ref" in response:
        response = document(service)["components"]["responses"][response["$ref"].split("/")[-1]]
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in response["content"], f"{said} with {kind}"
    schema = response["content"][kind].get("schema")
    if schema is not None:
        many = schema.get("type") == "array"
        name = (schema["items"] if many else schema)["$ref"].removeprefix(_SCHEMAS)
        wrong = [
            f"{'.'.join(map(str, error.instance_path))}: {error.message}"
            for each in (answer.json() if many else [answer.json()])
            for error in _closed(service, name).iter_errors(each)
        ]
        assert not wrong, f"{said}, and its schema {name} says otherwise: {wrong}"


def validator(service: str, schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """A validator of a schema that may refer to the components of a service's document."""
    whole = {**schema, "components": document(service)["components"]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


@cache
def _closed(service: str, name: str) -> jsonschema_rs.Draft202012Validator:
    schemas = {
        other: schema if other in _OPEN else {**schema, "additionalProperties": False}
        for other, schema in document(service)["components"]["schemas"].items()
    }
    whole = {"$ref": _SCHEMAS + name, "components": {"schemas": schemas}}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


@cache
def _templates(service: str) -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    return [
        (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), operations)
        for path, operations in document(service)["paths"].items()
    ]


def _operation(service: str, method: str, path: str) -> dict[str, Any] | None:
    for pattern, operations in _templates(service):
        if pattern.fullmatch(path):
            found: dict[str, Any] | None = operations.get(method)
            return found
    return None
