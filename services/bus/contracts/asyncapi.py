"""The AsyncAPI 3 document of the county's events, made from the catalogue.

A channel is a routing key on the exchange, an operation what one of our services sends or reads.
Another system that subscribes is one more reader of the same channels.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator
from typing import Any

from services.bus.contracts.schemas import Contracts
from services.bus.systems import OfSystems
from services.bus.topology import EVENTS, INBOUND, REPLIES
from services.grid.events import EventType
from services.grid.events.envelope import CONTENT_TYPE

_BINDING = "0.3.0"

_ABOUT = f"""\
What happens to a county's cases, as events: CloudEvents 1.0 in structured JSON, UTF-8, on the topic
exchange `{EVENTS}` of RabbitMQ, each confirmed and persistent.

- **Any number of times, in any order.** An event may come again and late. The same `id` is the same
  event; of two events of a case the one with the greater token `(round, stage, hop, seq)` in
  `data.state` is what holds, with stage held < withdrawn < resolved < closed.
- **Unknown fields stay.** A newer Huashi may send more fields, and more words where a list of words
  is given: do not refuse them. What is released is neither taken away nor narrowed; what can't be
  said so gets a new version of its type beside the old one.
- **Other systems** write to `{INBOUND}` under their own name, and their answers come on `{REPLIES}`
  under it.
- **No personal data.** People are references, such as `officer:...`; free text is refused if it
  holds a phone or identity number."""

_PARAMETERS = {
    "level": {
        "description": "The level addressed, as the county's profile calls it.",
        "examples": ["household", "village", "township"],
    },
    "path": {
        "description": "The division addressed, from the county down, a word for each step of the "
        "directory; by default the code split 2.2.2.3.3.2.3. Bind `case.*.*.46.90.02.104.#` for "
        "all of a township.",
        "examples": ["46.90.02.104.214.03.007"],
    },
    "system": {
        "description": "The name under which an operator added a system.",
        "examples": ["hotline"],
    },
}


_CORRELATION = {
    "description": "What it is about: the case.",
    "location": "$message.payload#/subject",
}


def document(contracts: Contracts) -> dict[str, Any]:
    """The AsyncAPI document of a catalogue, as JSON."""
    keys: dict[str, list[EventType]] = {}
    for kind in contracts.kinds:
        keys.setdefault(kind.channel, []).append(kind)
    return {
        "asyncapi": "3.0.0",
        "id": "urn:huashi",
        "info": {
            "title": "Huashi 化事: events",
            "version": importlib.metadata.version("huashi"),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0"},
            "tags": [{"name": name} for name in _families(contracts.kinds)],
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {"county": _server()},
        "channels": {name: _channel(kinds) for name, kinds in keys.items()},
        "operations": dict(_operations(keys)),
        "components": {
            "messages": {kind.label: _message(contracts, kind) for kind in contracts.kinds},
            "parameters": _PARAMETERS,
            "schemas": contracts.components,
            "securitySchemes": {
                "user": {
                    "type": "userPassword",
                    "description": "Each service and each system has a user of its own.",
                }
            },
        },
    }


def _server() -> dict[str, Any]:
    return {
        "host": "{host}:5671",
        "protocol": "amqps",
        "protocolVersion": "0.9.1",
        "description": "The county's RabbitMQ.",
        "variables": {"host": {"description": "Where it is.", "default": "rabbitmq"}},
        "security": [{"$ref": "#/components/securitySchemes/user"}],
    }


def _channel(kinds: list[EventType]) -> dict[str, Any]:
    first = kinds[0]
    made: dict[str, Any] = {
        "address": first.key,
        "title": first.channel,
        "summary": kinds[-1].meaning,
        "servers": [{"$ref": "#/servers/county"}],
        "messages": {kind.label: _reference(kind) for kind in kinds},
        "tags": [{"name": _family(first)}],
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {
                    "name": first.exchange if isinstance(first, OfSystems) else EVENTS,
                    "type": "topic",
                    "durable": True,
                    "autoDelete": False,
                    "vhost": "/",
                },
                "bindingVersion": _BINDING,
            }
        },
    }
    named = [name for name in _PARAMETERS if f"{{{name}}}" in first.key]
    if named:
        made["parameters"] = {name: {"$ref": f"#/components/parameters/{name}"} for name in named}
    return made


def _operations(keys: dict[str, list[EventType]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each service does: its sends and its reads."""
    for name, kinds in keys.items():
        for action, verb, attribute, binding in (
            ("send", "sends", "producers", {"deliveryMode": 2, "mandatory": True}),
            ("receive", "reads", "consumers", {"ack": True}),
        ):
            for service in dict.fromkeys(
                each for kind in kinds for each in getattr(kind, attribute)
            ):
                yield (
                    f"{service}.{verb}.{name}",
                    {
                        "action": action,
                        "channel": {"$ref": f"#/channels/{name}"},
                        "summary": f"{service} {verb} {name}.",
                        "tags": [{"name": service}],
                        "messages": [
                            {"$ref": f"#/channels/{name}/messages/{kind.label}"}
                            for kind in kinds
                            if service in getattr(kind, attribute)
                        ],
                        "bindings": {"amqp": {**binding, "bindingVersion": _BINDING}},
                    },
                )


def _message(contracts: Contracts, kind: EventType) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": kind.label,
        "title": f"{kind.channel}, version {kind.version}",
        "summary": kind.meaning,
        "contentType": CONTENT_TYPE,
        **({} if isinstance(kind, OfSystems) else {"correlationId": _CORRELATION}),
        "payload": contracts.payload(kind),
        "examples": [
            {"name": name, "payload": example}
            for name, example in contracts.examples[kind.label].items()
        ],
        "x-producers": list(kind.producers),
        "x-consumers": list(kind.consumers),
    }
    if kind.custody:
        made["x-custody"] = True
    return made


def _families(kinds: Iterable[EventType]) -> list[str]:
    return list(dict.fromkeys(_family(kind) for kind in kinds))


def _family(kind: EventType) -> str:
    return kind.channel.partition(".")[0]


def _reference(kind: EventType) -> dict[str, str]:
    return {"$ref": f"#/components/messages/{kind.label}"}
