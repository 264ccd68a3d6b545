"""JSON Schema of marshmallow schemas, as the published contracts have it (OpenAPI, AsyncAPI)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema, fields

from services.bus.paging import CursorField
from services.grid.events.parts import InstantField, plain, plain_lines

COMPONENTS = "#/components/schemas/"
"""What a reference to a part begins with in OpenAPI and AsyncAPI documents."""

_PATTERNS: Mapping[Any, str] = {
    plain: r"^[^\x00-\x1f\x7f-\x9f]*$",
    plain_lines: r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$",
}
"""What checks of text that are functions come to."""

_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`")


class Converter(OpenAPIConverter):
    """apispec's reading of a schema, with its docstring, and texts that other languages read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.field_mapping = {
            **self.field_mapping,
            InstantField: ("string", "date-time"),
            CursorField: ("string", None),
            # Chinese file names are no URI as they stand.
            fields.Url: ("string", "iri"),
        }

    def schema2jsonschema(self, schema: Schema) -> dict[str, Any]:
        """See apispec; with the docstring as the description."""
        made: dict[str, Any] = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]
        return {"description": prose(type(schema)), **made}

    def field2pattern(self, field: fields.Field[Any], **kwargs: Any) -> dict[str, Any]:
        """See apispec; as ECMA-262 writes it."""
        made: dict[str, Any] = super().field2pattern(field, **kwargs)
        for check in field.validators:
            if check in _PATTERNS:
                made = {"pattern": _PATTERNS[check]}
        # Python's end of a text; in JSON Schema (ECMA-262) it is a plain $.
        return {name: pattern.replace(r"\Z", "$") for name, pattern in made.items()}


class Plugin(MarshmallowPlugin):
    """apispec's plugin, with our reading."""

    Converter = Converter


def prose(of: Any) -> str:
    """A docstring in Markdown."""
    text = inspect.cleandoc(of.__doc__ or "")
    return _ROLE.sub(r"`\1`", text).replace("``", "`")
