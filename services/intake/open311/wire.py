"""How Open311 looks: XML by its elements, JSON by what is in them, and errors as a list.

A body is ``{root: content}``. JSON is the content alone; in XML each list is an element around
elements of its singular (the specification's Spark convention).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

from marshmallow import fields

from services.bus.dialect import Dialect
from services.bus.openapi import Shown
from services.bus.problems import Problem
from services.grid import json

JSON, XML = "json", "xml"

_SINGULAR = {
    "services": "service",
    "service_requests": "request",
    "service_request_updates": "request_update",
    "attributes": "attribute",
    "values": "value",
    "endpoints": "endpoint",
    "formats": "format",
    "errors": "error",
}
# What XML 1.0 has no way to write.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# The specification's: not there, no key that may, and 400 for what can't be done as asked. What
# passes by itself keeps its own, for whoever sends it again.
_KEPT = (403, 404, 429, 500, 503)
_UNAUTHORIZED = 401
_DECLARATION = '<?xml version="1.0" encoding="utf-8"?>\n'
# A reader would take it for a line feed.
_KEPT_AS_SENT = {"\r": "&#13;"}


class ErrorShown(Shown):
    """One error; ``code`` may say more than the answer's status."""

    code = fields.Integer()
    description = fields.String()


def write(body: Mapping[str, Any], spoken: str) -> bytes:
    """The bytes of ``{root: content}`` in a format."""
    ((root, content),) = body.items()
    if spoken == JSON:
        return json.dumps(content)
    return f"{_DECLARATION}{''.join(_parts(root, content))}".encode()


def errors(problem: Problem) -> dict[str, Any]:
    """The list of what is wrong, each with our own status as its code."""
    code = status(_UNAUTHORIZED) if problem.status == _UNAUTHORIZED else problem.status.value
    listed = problem.facts.get("errors") or []
    said = [f"{each['field']}: {each['detail']}" for each in listed] or [problem.detail]
    return {"errors": [{"code": code, "description": each} for each in said]}


def status(own: int) -> int:
    """The HTTP status for one of ours."""
    if own == _UNAUTHORIZED:
        return 403
    return own if own in _KEPT else 400


def _parts(name: str, value: Any) -> Iterator[str]:
    """An element and what is in it: a library's tree took six times as long for a long list."""
    if value is None or value in ([], ""):
        yield f"<{name}/>"
        return
    yield f"<{name}>"
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _parts(key, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _parts(_SINGULAR[name], inner)
    elif isinstance(value, bool):
        yield "true" if value else "false"
    else:
        yield escape(_UNWRITABLE.sub("\ufffd", str(value)), _KEPT_AS_SENT)
    yield f"</{name}>"


OPEN311 = Dialect(
    name="open311",
    key="api_key",
    media_types={JSON: "application/json; charset=utf-8", XML: "text/xml; charset=utf-8"},
    write=write,
    status=status,
    errors=errors,
    problem=ErrorShown(many=True),
)
