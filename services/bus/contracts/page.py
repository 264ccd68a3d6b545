"""The page ``docs/contracts/events.md``: the catalogue of events for people."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from services.bus.contracts.schemas import Contracts
from services.bus.json_schema import COMPONENTS
from services.bus.systems import OfSystems
from services.bus.topology import EVENTS, INBOUND, REPLIES
from services.grid.events import EventType

_SHOWN = "huashi.case.escalated.v1"
_OF_ALL = ("case", "state")
"""What every event about a case has."""

_ABOUT = f"""\
# Events

Written by `make contracts` from the schemas in `services/grid/events/`; do not edit it. For
programs the same is in [asyncapi.json](asyncapi.json) (AsyncAPI 3) and, a file each, in
[schemas](schemas) (JSON Schema 2020-12, each with a minimal and a full example).
[How another system uses them](../integrating/README.md).

All go to the topic exchange `{EVENTS}`, as CloudEvents 1.0 in structured JSON; but what other
systems send (`inbound`) goes to `{INBOUND}`, and what they are told (`reply`) to `{REPLIES}`, both
under their name. `{{level}}` and `{{path}}` in a routing key are those of the division addressed,
such as `case.escalated.village.46.90.02.104.214`. Fields may be added, and words to a list of
words: ignore what you do not know. Nothing that was released is taken away or narrowed."""


def text(contracts: Contracts) -> str:
    """The page, in Markdown."""
    return "\n\n".join(_sections(contracts)) + "\n"


def _sections(contracts: Contracts) -> Iterator[str]:
    yield _ABOUT
    yield _overview(contracts)
    yield "## The envelope"
    yield _fields(contracts.envelope)
    example = contracts.examples[_SHOWN]["full"] if _SHOWN in contracts.examples else None
    if example is not None:
        shown = json.dumps(example, ensure_ascii=False, indent=2)
        yield f"<details><summary>A whole event</summary>\n\n```json\n{shown}\n```\n\n</details>"
    yield "## Each event"
    for kind in contracts.kinds:
        yield from _event(contracts, kind)
    yield "## Parts"
    shown_at_events = set(contracts.data.values())
    for name in sorted(contracts.components):
        if name not in shown_at_events:
            part = contracts.components[name]
            yield f"### {name}"
            yield _lines(part["description"])
            yield _fields(part)


def _overview(contracts: Contracts) -> str:
    rows: list[tuple[str, ...]] = [
        (f"[{kind.channel}](#{_anchor(kind)})", kind.meaning, *map(_services, _ends(kind)))
        for kind in contracts.kinds
    ]
    return _table(("event", "meaning", "from", "to"), rows)


def _event(contracts: Contracts, kind: EventType) -> Iterator[str]:
    name = kind.full_name
    schema = contracts.components[contracts.data[kind.label]]
    yield f"### {kind.channel} v{kind.version}"
    said = [kind.meaning]
    if kind.custody:
        said.append("It says who holds the case now.")
    if kind.about:
        said.append(f"Its state has {' and '.join(f'`{each}`' for each in kind.about)}.")
    yield " ".join(said)
    producers, consumers = map(_services, _ends(kind))
    where = f" on `{kind.exchange}`" if isinstance(kind, OfSystems) else ""
    yield (
        f"`{name}` from {producers} to {consumers}, routing key `{kind.key}`{where}: "
        f"[schema and examples](schemas/{kind.label}.json)."
    )
    about = _lines(schema["description"])
    # Many docstrings only say which events they are of.
    if not re.fullmatch(r"(`[\w.]+`(, | and )?)+\.", about):
        yield about
    own = {key: value for key, value in schema["properties"].items() if key not in _OF_ALL}
    if set(_OF_ALL) <= set(schema["properties"]):
        yield "Of the case [its facts](#facts) and [its state](#state)" + (", and:" if own else ".")
    if own:
        yield _fields({**schema, "properties": own})


def _fields(schema: Mapping[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows: list[tuple[str, ...]] = []
    for name, field in schema["properties"].items():
        words = [field["description"]] if "description" in field else []
        if name not in required:
            default = json.dumps(field["default"], ensure_ascii=False) if "default" in field else ""
            words.append(f"without it: `{default}`" if default else "may be left out")
        rows.append((f"`{name}`", _kind(field), "; ".join(words)))
    return _table(("field", "what it is", ""), rows)


def _kind(field: Mapping[str, Any]) -> str:
    """What a value is, in words."""
    if "anyOf" in field:
        return " or ".join(_kind(each) for each in field["anyOf"])
    if "allOf" in field:
        return _kind(field["allOf"][0])
    if "$ref" in field:
        name = field["$ref"].removeprefix(COMPONENTS)
        return f"[{name}](#{name.lower()})"
    if "const" in field or "enum" in field:
        values = [field["const"]] if "const" in field else field["enum"]
        return " or ".join(f"`{json.dumps(value, ensure_ascii=False)}`" for value in values)
    kinds = field.get("type", "anything")
    return " or ".join(
        _plain(kind, field) for kind in ([kinds] if isinstance(kinds, str) else kinds)
    )


def _plain(kind: str, field: Mapping[str, Any]) -> str:
    if kind == "array":
        return f"list of {_kind(field['items'])}"
    if kind == "string":
        return "time" if field.get("format") == "date-time" else "text" + _length(field)
    if kind == "object" and field.get("additionalProperties"):
        return f"object with values {_kind(field['additionalProperties'])}"
    return kind


def _length(field: Mapping[str, Any]) -> str:
    said = f", at most {field['maxLength']} characters" if "maxLength" in field else ""
    return f"{said}, as `{field['pattern']}`" if "pattern" in field and not said else said


def _ends(kind: EventType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return kind.producers, kind.consumers


def _services(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _anchor(kind: EventType) -> str:
    """The anchor that Markdown gives the event's heading."""
    return f"{kind.channel}-v{kind.version}".replace(".", "")


def _lines(text: str) -> str:
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines
    )
