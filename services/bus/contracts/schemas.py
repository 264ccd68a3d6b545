"""What the catalogue of events comes to: the JSON Schema of each event, with its examples.

The full example of an event is a file (``tests/contract/examples``), and the minimal one is what is
left of it without all that may be left out.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apispec import APISpec
from marshmallow import Schema, fields

from services.bus.json_schema import COMPONENTS, Plugin
from services.bus.systems import OfSystems
from services.bus.topology import INBOUND
from services.grid.events import EventType
from services.grid.events.envelope import EnvelopeSchema
from services.grid.events.parts import StateSchema

EXAMPLES = Path(__file__).parents[3] / "tests" / "contract" / "examples"
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_OURS = ("subject", "time")
"""What our own events have besides what CloudEvents ask for."""
_REFERENCE = re.compile(r'"\$ref": "#/\$defs/(\w+)"')


class ContractError(ValueError):
    """The catalogue is not whole; says what is missing and where it belongs."""


@dataclass(frozen=True)
class Contracts:
    """The events of a catalogue for those who read no Python.

    ``components`` are the schemas of data and of its parts, by name; ``data`` says which of them an
    event's data has, ``examples`` has ``{minimal, full}`` of each, both by the event's label.
    """

    kinds: tuple[EventType, ...]
    components: dict[str, dict[str, Any]]
    data: dict[str, str]
    envelope: dict[str, Any]
    examples: dict[str, dict[str, dict[str, Any]]]

    @classmethod
    def of(cls, kinds: Iterable[EventType], folder: Path = EXAMPLES) -> Contracts:
        """Those of a catalogue.

        :param folder: where the full examples are.
        :raises ContractError: an example is missing, or two schemas have the same name.
        """
        kinds = tuple(kinds)
        plugin = Plugin()
        spec = APISpec(title="", version="", openapi_version="3.1.0", plugins=[plugin])
        converter = plugin.converter
        assert converter is not None  # noqa: S101 - init_spec made it
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                data = {
                    kind.label: str(
                        converter.resolve_nested_schema(kind.schema)["$ref"]  # type: ignore[no-untyped-call]
                    ).removeprefix(COMPONENTS)
                    for kind in kinds
                }
            except UserWarning as error:
                raise ContractError(f"two schemas have the same name: {error}") from error
        return cls(
            kinds,
            spec.to_dict()["components"]["schemas"],
            data,
            converter.schema2jsonschema(EnvelopeSchema()),  # type: ignore[no-untyped-call]
            {
                kind.label: _shown(kind) if isinstance(kind, OfSystems) else _examples(kind, folder)
                for kind in kinds
            },
        )

    def payload(self, kind: EventType) -> dict[str, Any]:
        """The schema of an event's body, its data a reference to a component."""
        properties = {
            **self.envelope["properties"],
            "type": {"type": "string", "const": kind.full_name},
            "data": {"$ref": COMPONENTS + self.data[kind.label]},
        }
        required = self.envelope["required"]
        if isinstance(kind, OfSystems) and kind.exchange == INBOUND:
            required = [name for name in required if name not in _OURS]
        return {
            "title": kind.label,
            "description": kind.meaning,
            "type": self.envelope["type"],
            "required": required,
            "properties": properties,
            "additionalProperties": True,
        }

    def schemas(self) -> dict[str, dict[str, Any]]:
        """A JSON Schema (2020-12) of each event by its label, needing no other file."""
        return {kind.label: self._schema(kind) for kind in self.kinds}

    def _schema(self, kind: EventType) -> dict[str, Any]:
        body = _inside(self.payload(kind))
        components = _inside(self.components)
        needed: dict[str, Any] = {}
        waiting = [self.data[kind.label]]
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed[name] = components[name]
                waiting += _REFERENCE.findall(json.dumps(components[name]))
        return {
            "$schema": _DRAFT,
            "$id": f"urn:huashi:schema:{kind.channel}.v{kind.version}",
            **body,
            "$defs": {name: needed[name] for name in sorted(needed)},
            "examples": list(self.examples[kind.label].values()),
        }


def _inside(schemas: dict[str, Any]) -> dict[str, Any]:
    """The same with references to definitions in the same file."""
    inside: dict[str, Any] = json.loads(json.dumps(schemas).replace(f'"{COMPONENTS}', '"#/$defs/'))
    return inside


def _shown(kind: OfSystems) -> dict[str, dict[str, Any]]:
    """The examples of what other systems send or are told, which their schemas have."""
    told: Any = kind.schema
    head = {"specversion": "1.0", "id": "12345-2026-0302-77-1", "type": kind.full_name}
    head["source"] = "hotline" if kind.exchange == INBOUND else "huashi/intake"
    if kind.exchange != INBOUND or kind.name == "sensor.reading":
        head["time"] = "2026-03-02T12:00:00.000Z"
    if kind.exchange != INBOUND:
        head["subject"] = told.minimal.get("case", "hotline")
    examples = {"minimal": told.minimal, "full": told.example}
    return {name: {**head, "data": data} for name, data in examples.items()}


def _examples(kind: EventType, folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / f"{kind.full_name}.json"
    try:
        full = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ContractError(
            f"{kind.full_name} has no example: write one with all its fields, {path.name} in "
            "tests/contract/examples"
        ) from error
    return {"minimal": minimal(kind, full), "full": full}


def minimal(kind: EventType, full: Mapping[str, Any]) -> dict[str, Any]:
    """An event with nothing that may be left out, and what it says."""
    least = _least(EnvelopeSchema(), full)
    data = _least(kind.loader, full["data"])
    for name in kind.about:
        data["state"][name] = full["data"]["state"][name]
    if full["data"].get("state", {}).get("resolution") and "state" in data:
        # Whoever was resolved has a resolution, in whatever event.
        data["state"]["resolution"] = _least(
            StateSchema().fields["resolution"].schema,  # type: ignore[attr-defined]
            full["data"]["state"]["resolution"],
        )
    return {**least, "data": data}


def _least(schema: Schema, value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _least_of(field, value[name])
        for name, field in schema.fields.items()
        if field.required and name in value
    }


def _least_of(field: fields.Field[Any], value: Any) -> Any:
    if field.allow_none:
        return None
    if isinstance(field, fields.Nested):
        return _least(field.schema, value)
    return [] if isinstance(field, fields.List) else value
