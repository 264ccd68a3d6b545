"""Inputs that are wrong in some way, each made from a valid event and a seed.

Some are still valid, as a mutation may be: what counts is that each is answered, and that nothing
else suffers from it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from services.grid.events.bindings import BATCH, LARGEST, PLAIN, STRUCTURED
from services.intake.inbound import TYPES

_STRANGE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**63,
    10**40,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\x00",
    "\ud800",
    "\u202e村",
    "\ufeff",
    "a.b",
    "$where",
    "..",
    "2026-02-30T00:00:00Z",
    "0000-00-00",
    "9999-12-31T23:59:59.999999+23:59",
    "2026-03-02T20:00:00",
    "路灯" * 500,
    "🀄" * 30,
    [],
    {},
    [[]],
    {"$gt": ""},
    {"": None},
    {"a.b": {"$set": 1}},
    [None] * 300,
)
_KEYS = ("", "$where", "a.b", "specversion", "data_base64", "__proto__", "标题", "x" * 300, "\x00")
_BYTES = (
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\x00",
    b'"',
    b"{",
    b"]",
    b"\\u12",
    b"\xef\xbb\xbf",
)
_HEADER = (
    "%",
    "%zz",
    "%C3%28",
    "%ED%A0%80",
    "%00",
    '"',
    '"a',
    "\\",
    "é",
    "a" * 400,
    "",
    "%E6%9D%91",
)
_MEDIA_TYPES = (
    *(
        STRUCTURED,
        BATCH,
        PLAIN,
        "text/plain",
        "application/xml",
        "",
        "application/json; charset=gbk",
    ),
    *("application/cloudevents+json; charset=utf-16", "application/cloudevents+avro", ";", "a/b;c"),
)
# What a message says of its body; whoever decodes as that says may be kept busy for long.
_ENCODINGS = ("punycode", "utf-7", "unicode_escape", "gzip", "utf-16", "no such thing", "路灯")
_NESTED = 3000


class Input(NamedTuple):
    """What is sent: over HTTP with its header fields, over AMQP as a message."""

    body: bytes
    content_type: str
    headers: dict[str, str]
    encoding: str | None = None


def valid(random: Random, system: str) -> dict[str, Any]:
    """An event of any type that may come in, with a new id, at its smallest or with all fields."""
    kind = random.choice([*TYPES.values()])
    schema: Any = kind.schema
    data = random.choice([schema.example, schema.minimal])
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": f"{random.getrandbits(64):x}",
        "source": system,
        "type": kind.full_name,
        "time": "2026-03-02T20:00:00+08:00",
        "data": copy.deepcopy(data),
    }
    if "reference" in event["data"]:
        event["data"]["reference"] = event["id"]
    return event


def element(random: Random, system: str) -> dict[str, Any]:
    """An event that is JSON, with one to three things changed."""
    event = valid(random, system)
    for _ in range(random.randint(1, 3)):
        _change(random, event)
    return event


def malformed(random: Random, system: str) -> Input:
    """One input of any kind."""
    made: Callable[[Random, str], Input] = random.choice(
        [_structured, _structured, _binary, _torn, _torn, _nested, _large, _other]
    )
    found = made(random, system)
    return found._replace(encoding=random.choice(_ENCODINGS)) if random.random() < 0.1 else found


def encoded(event: Any) -> bytes:
    """As JSON, lone surrogates and numbers that JSON does not know included."""
    return json.dumps(event, ensure_ascii=True).encode()


def _change(random: Random, event: dict[str, Any]) -> None:
    """Replaces, takes away or adds a value somewhere."""
    node: Any = event
    while True:
        keys = [*node] if isinstance(node, dict) else [*range(len(node))]
        if not keys:
            return
        key = random.choice(keys)
        inner = node[key]
        if isinstance(inner, dict | list) and inner and random.random() < 0.8:
            node = inner
            continue
        action = random.random()
        if action < 0.6:
            node[key] = copy.deepcopy(random.choice(_STRANGE))
        elif action < 0.8:
            del node[key]
        elif isinstance(node, dict):
            node[random.choice(_KEYS)] = copy.deepcopy(random.choice(_STRANGE))
        else:
            node.append(copy.deepcopy(random.choice(_STRANGE)))
        return


def _structured(random: Random, system: str) -> Input:
    return Input(encoded(element(random, system)), STRUCTURED, {})


def _torn(random: Random, system: str) -> Input:
    """Bytes that are cut off, changed, put in or sent twice."""
    body = bytearray(encoded(valid(random, system)))
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(body) + 1)
        action = random.random()
        if action < 0.3:
            del body[place:]
        elif action < 0.6:
            body[place:place] = random.choice(_BYTES)
        elif action < 0.9 and place < len(body):
            body[place] = random.randrange(256)
        else:
            body += body[:place]
    return Input(bytes(body), STRUCTURED, {})


def _binary(random: Random, system: str) -> Input:
    """The attributes as header fields, of which one is strange or missing."""
    event = element(random, system)
    data = event.pop("data", {})
    headers = {
        f"ce-{name}": value if isinstance(value, str) and value.isascii() else "1"
        for name, value in event.items()
        if name.isalnum() and name.isascii() and len(name) < 200
    }
    # What a client would not send at all gets no answer.
    headers = {name: value.strip() for name, value in headers.items() if value.isprintable()}
    if headers and random.random() < 0.7:
        headers[random.choice([*headers])] = random.choice(_HEADER)
    return Input(encoded(data), PLAIN, headers)


def _nested(random: Random, system: str) -> Input:
    event = valid(random, system)
    depth = random.randint(1, _NESTED)
    opened, closed = random.choice([("[", "]"), ('{"a":', "}")])
    text = encoded(event).decode()
    cut = text.rindex("{")
    return Input(
        (text[:cut] + opened * depth + "1" + closed * depth + text[cut:]).encode(), STRUCTURED, {}
    )


def _large(random: Random, system: str) -> Input:
    """About as large as the largest, so that both sides of the limit are there."""
    event = valid(random, system)
    event["data"]["description"] = "灯" * ((LARGEST + random.randint(-3000, 3000)) // 6)
    return Input(encoded(event), STRUCTURED, {})


def _other(random: Random, system: str) -> Input:
    """Something of another media type, or no event at all."""
    body = random.choice([b"", b"null", b"[]", b"{}", b"0", b'"', encoded(valid(random, system))])
    return Input(body, random.choice(_MEDIA_TYPES), {})
