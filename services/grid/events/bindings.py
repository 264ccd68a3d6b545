"""CloudEvents 1.0 from outside: the HTTP and the AMQP binding, and the JSON format, read strictly.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md,
amqp-protocol-binding.md and formats/json-format.md beside it. RabbitMQ speaks AMQP 0-9-1, so what
the binding calls application properties are the message's headers; both prefixes that it allows
are read, and the ``ce-`` of HTTP, which people use on RabbitMQ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_to_bytes

from services.grid import json
from services.grid.clock import Instant, instant, parse

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
PLAIN = "application/json"
LARGEST = 64 * 1024
"""Bytes of one event, in the JSON format or as binary data."""
MOST = 100
"""Events of a batch."""

_REQUIRED = ("specversion", "id", "source", "type")
_OPTIONAL = ("subject", "time", "datacontenttype", "dataschema", "traceparent")
_LONGEST = 200
_HTTP = "ce-"
_AMQP = ("cloudevents:", "cloudevents_", "ce-")
_NAME = re.compile(r"[a-z0-9]{1,40}")
# Halves of surrogate pairs come over AMQP only.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')

Errors = dict[str, str]


@dataclass(frozen=True, slots=True)
class Incoming:
    """An event as another system sent it; ``data`` is any JSON value, ``extensions`` the rest."""

    id: str
    source: str
    type: str
    data: Any
    subject: str | None = None
    time: Instant | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """What can't be read as an event: each wrong field with its cure, and what it says of itself.

    ``large``: it is over the limit of size.
    """

    errors: Errors
    id: str | None = None
    source: str | None = None
    type: str | None = None
    large: bool = False


Read = Incoming | Unread


def of_http(media_type: str, fields: Iterable[tuple[str, str]], body: bytes) -> list[Read]:
    """The events of a request; of a batch as many as it has, else one.

    Which mode it is, the media type says: header fields do not matter in the structured ones.

    :raises ValueError: a batch that can't be taken apart; what is wrong, and the cure.
    """
    if media_type == BATCH:
        return _of_batch(body)
    if media_type == STRUCTURED:
        return [of_json(body)]
    found: dict[str, Any] = {}
    errors: Errors = {}
    for name, value in fields:
        if name.lower().startswith(_HTTP):
            attribute = name.lower().removeprefix(_HTTP)
            try:
                found[attribute] = _header(value)
            except ValueError as error:
                errors[attribute] = str(error)
    return [_binary(found, errors, media_type, body)]


def of_amqp(content_type: str | None, headers: Mapping[str, Any], body: bytes) -> Read:
    """The event of a message."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type == STRUCTURED:
        return of_json(body)
    if media_type == BATCH:
        return Unread({"content_type": "a batch goes over HTTP: publish a message for each event"})
    if media_type != PLAIN:
        shown = "none" if not media_type else media_type if media_type.isascii() else "not ASCII"
        return Unread({"content_type": f"{shown}: write {STRUCTURED}, or {PLAIN} with headers"})
    found: dict[str, Any] = {}
    for name, value in headers.items():
        # A name that is no UTF-8 is bytes.
        own = isinstance(name, str)
        prefix = next((each for each in _AMQP if own and name.lower().startswith(each)), None)
        if prefix is not None:
            # AMQP has times of its own.
            time = instant(value.astimezone(UTC)) if isinstance(value, datetime) else value
            found[name.lower().removeprefix(prefix)] = time
    return _binary(found, {}, media_type, body)


def of_json(body: bytes) -> Read:
    """The event of a JSON text."""
    if len(body) > LARGEST:
        return _too_large(len(body))
    try:
        value = json.loads(body)
    except json.InvalidJson as error:
        return Unread({"body": f"{error}: send one CloudEvent in UTF-8"})
    return _structured(value)


def _of_batch(body: bytes) -> list[Read]:
    try:
        values = json.loads(body)
    except json.InvalidJson as error:
        # One event with what we can't keep takes no other along.
        return _one_by_one(body, error)
    if not isinstance(values, list):
        raise ValueError("a batch is a JSON array of events: send [{...}, {...}]")
    if len(values) > MOST:
        raise ValueError(f"a batch of {len(values)} events: send at most {MOST} at once")
    sizes = [len(json.dumps(value)) for value in values]
    return [
        _structured(value) if size <= LARGEST else _too_large(size)
        for value, size in zip(values, sizes, strict=True)
    ]


def _one_by_one(body: bytes, wrong: json.InvalidJson) -> list[Read]:
    try:
        texts = json.elements(body)
    except json.InvalidJson as error:
        raise ValueError(f"the batch can't be read: {wrong}") from error
    if len(texts) > MOST:
        raise ValueError(f"a batch of {len(texts)} events: send at most {MOST} at once")
    return [of_json(text) for text in texts]


def _too_large(size: int) -> Unread:
    return Unread({"body": f"{size} bytes: an event has at most {LARGEST}"}, large=True)


def _structured(value: Any) -> Read:
    if not isinstance(value, dict):
        return Unread({"body": "not a JSON object: send one CloudEvents envelope, {...}"})
    found = dict(value)
    if "data_base64" in found:
        why = "binary data means nothing here: send JSON in data"
        return _refused(found, {"data_base64": why})
    data = found.pop("data", None)
    return _event(found, {}, data)


def _binary(found: dict[str, Any], errors: Errors, media_type: str, body: bytes) -> Read:
    if len(body) > LARGEST:
        return _too_large(len(body))
    if "datacontenttype" in found:
        errors["datacontenttype"] = "in binary mode it is the content type: leave it out"
        del found["datacontenttype"]
    try:
        data = json.loads(body)
    except json.InvalidJson as error:
        data, errors["data"] = None, f"{error}: send JSON in UTF-8"
    return _event({**found, "datacontenttype": media_type}, errors, data)


def _event(found: dict[str, Any], errors: Errors, data: Any) -> Read:
    """The event of attributes that are told already."""
    for name in _REQUIRED:
        if found.get(name) is None and name not in errors:
            errors[name] = "missing: CloudEvents need specversion, id, source and type"
    for name, value in found.items():
        why = _wrong(name, value)
        if why is not None:
            errors.setdefault(name if _NAME.fullmatch(name) else "attributes", why)
    if "specversion" not in errors and found["specversion"] != "1.0":
        errors["specversion"] = "write 1.0"
    kind = found.get("datacontenttype")
    if isinstance(kind, str) and kind.partition(";")[0].strip().lower() != PLAIN:
        errors["datacontenttype"] = f"write {PLAIN}, or leave it out"
    time: Instant | None = None
    if isinstance(found.get("time"), str) and "time" not in errors:
        try:
            time = parse(found["time"])
        except ValueError as error:
            errors["time"] = str(error)
    if errors:
        return _refused(found, errors)
    return Incoming(
        id=found["id"],
        source=found["source"],
        type=found["type"],
        data=data,
        subject=found.get("subject"),
        time=time,
        traceparent=found.get("traceparent"),
    )


def _wrong(name: str, value: Any) -> str | None:
    """What is wrong with an attribute; extensions may be other scalars."""
    known = name in _REQUIRED or name in _OPTIONAL
    checks = (
        (not _NAME.fullmatch(name), "an attribute's name has lower-case letters and digits only"),
        (known and not isinstance(value, str), "write text"),
        (not isinstance(value, str | bool | int | float), "write text, a number, true or false"),
        (value == "" and known, "write something, or leave it out"),
        (isinstance(value, str) and len(value) > _LONGEST, f"at most {_LONGEST} characters"),
        (isinstance(value, str) and _CONTROL.search(value), "leave out control characters"),
    )
    return None if value is None else next((why for wrong, why in checks if wrong), None)


def _refused(found: Mapping[str, Any], errors: Errors) -> Unread:
    """With what it says of itself, as far as that can be said back."""

    def said(name: str) -> str | None:
        value = found.get(name)
        return value if isinstance(value, str) and _wrong(name, value) is None else None

    return Unread(errors, said("id"), said("source"), said("type"))


def _header(value: str) -> str:
    """The value of a header field: quotes are taken off, then percent-encoding is undone.

    HTTP binding 3.1.3.2; a server hands over the bytes as Latin-1.

    :raises ValueError: what is wrong, and the cure.
    """
    quoted = _QUOTED.fullmatch(value)
    text = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else value
    if not text.isascii():
        raise ValueError("a header value is ASCII: percent-encode all else as UTF-8 (%E8%B7%AF)")
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ValueError("a % that begins no encoding: write %25")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise ValueError("what is percent-encoded is not UTF-8") from error
