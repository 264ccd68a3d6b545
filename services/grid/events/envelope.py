"""The envelope: structured CloudEvents 1.0 JSON, the same inside and outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from uuid import UUID, uuid5

from marshmallow import INCLUDE, Schema, ValidationError, fields, validate

from services.grid import json
from services.grid.clock import Instant, parse
from services.grid.events.catalogue import CATALOGUE
from services.grid.events.shape import exact

CONTENT_TYPE = "application/cloudevents+json"
LONGEST_BODY = 256 * 1024
"""Bytes of an event's body; what is longer no service reads (an event of ours has some 2 KiB)."""
NAMESPACE = UUID("6f1d1b0e-6f0b-5c5e-9c37-4d8f7a0b2c11")
_PREFIX = "huashi."


class InvalidEvent(ValueError):
    """A message that is not one of our events; ``errors`` maps each field to what is wrong."""

    def __init__(self, errors: Mapping[str, Any]) -> None:
        super().__init__("; ".join(f"{name}: {why}" for name, why in flatten(errors).items()))
        self.errors = dict(errors)


def flatten(errors: Mapping[Any, Any] | list[Any], prefix: str = "") -> dict[str, str]:
    """Marshmallow's nested messages as ``{"data.state.token.hop": "why"}``."""
    if isinstance(errors, list):
        return {prefix: " ".join(str(item) for item in errors)}
    flat: dict[str, str] = {}
    for name, inner in errors.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(inner, Mapping | list):
            flat.update(flatten(inner, path))
        else:
            flat[path] = str(inner)
    return flat


def _messages(error: ValidationError) -> dict[str, Any]:
    messages = error.messages
    return messages if isinstance(messages, dict) else {"_schema": messages}


class EnvelopeSchema(Schema):
    """CloudEvents 1.0 in structured JSON; further attributes are kept."""

    class Meta:
        unknown = INCLUDE

    specversion = fields.String(required=True, validate=validate.Equal("1.0"))
    id = fields.String(
        required=True,
        validate=validate.Length(1, 200),
        metadata={"description": "the same decision has the same id: redelivery is known by it"},
    )
    source = fields.String(
        required=True,
        validate=validate.Length(1, 200),
        metadata={"description": "who says so: `huashi/escalation`, `huashi/dispatch/village`"},
    )
    type = fields.String(required=True, validate=validate.Length(1, 200))
    subject = fields.String(
        required=True,
        validate=validate.Length(1, 200),
        metadata={"description": "what it is about: the case's id, or the directory's entry"},
    )
    time = fields.String(
        required=True, metadata={"format": "date-time", "description": "when it was decided"}
    )
    datacontenttype = fields.String(validate=validate.Equal("application/json"))
    traceparent = fields.String(
        validate=validate.Regexp(r"^[0-9a-f]{2}(-[0-9a-f]+){3}$"),
        metadata={"description": "W3C Trace Context: the same for all events of a case"},
    )
    data = fields.Dict(required=True)


_ENVELOPE = EnvelopeSchema()
_EXACT = exact(_ENVELOPE)


@dataclass(frozen=True, slots=True)
class Event:
    """One fact that happened, in the past tense.

    ``type`` is the short name (``case.escalated``); ``version`` is that of its data schema.
    ``key`` is the routing key, ``<type>.<level>.<path>`` of the division addressed; it is
    not part of the body, so an event that was received has the one it was delivered with.
    """

    id: str
    type: str
    subject: str
    time: Instant
    source: str
    data: dict[str, Any]
    key: str = ""
    version: int = 1
    traceparent: str | None = None
    extensions: dict[str, Any] = field(default_factory=dict)

    @property
    def full_type(self) -> str:
        """The type as CloudEvents carry it: ``huashi.case.escalated.v1``."""
        return f"{_PREFIX}{self.type}.v{self.version}"

    @property
    def custody(self) -> bool:
        """Whether it says who holds a case now."""
        kind = CATALOGUE.get(self.full_type)
        return kind is not None and kind.custody

    def body(self) -> bytes:
        """The structured CloudEvents JSON that goes over the bus."""
        envelope: dict[str, Any] = {
            **self.extensions,
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.full_type,
            "subject": self.subject,
            "time": self.time,
            "datacontenttype": "application/json",
            "data": self.data,
        }
        if self.traceparent is not None:
            envelope["traceparent"] = self.traceparent
        return json.dumps(envelope)

    @classmethod
    def read(cls, body: bytes, key: str = "") -> Event:
        """The event of a message body, its data validated, unknown fields kept.

        :raises InvalidEvent: with every field that is wrong.
        """
        if len(body) > LONGEST_BODY:
            raise InvalidEvent({"body": [f"{len(body)} bytes: at most {LONGEST_BODY} are read"]})
        try:
            raw = json.loads(body)
        except json.InvalidJson as error:
            raise InvalidEvent({"body": [str(error)]}) from error
        if not isinstance(raw, dict):
            raise InvalidEvent({"body": ["not a JSON object: send one CloudEvents envelope"]})
        try:
            envelope = raw if _EXACT(raw) else _ENVELOPE.load(raw)
        except ValidationError as error:
            raise InvalidEvent(_messages(error)) from error
        kind = CATALOGUE.get(envelope["type"])
        if kind is None:
            raise InvalidEvent({"type": [f"{envelope['type']!r} is not in the catalogue"]})
        try:
            time = parse(envelope["time"])
        except ValueError as error:
            raise InvalidEvent({"time": [str(error)]}) from error
        try:
            data = kind.load(envelope["data"])
        except ValidationError as error:
            raise InvalidEvent({"data": _messages(error)}) from error
        return cls(
            id=envelope.pop("id"),
            type=kind.name,
            subject=envelope.pop("subject"),
            time=time,
            source=envelope.pop("source"),
            data=data,
            key=key,
            version=kind.version,
            traceparent=envelope.pop("traceparent", None),
            extensions={
                name: value
                for name, value in envelope.items()
                if name not in ("specversion", "type", "time", "datacontenttype", "data")
            },
        )

    def as_document(self) -> dict[str, Any]:
        """The form in which a document keeps an event that it has not published yet."""
        return {
            "id": self.id,
            "type": self.type,
            "version": self.version,
            "subject": self.subject,
            "time": self.time,
            "source": self.source,
            "data": self.data,
            "key": self.key,
            "traceparent": self.traceparent,
            "extensions": self.extensions,
        }

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Event:
        """The event of :meth:`as_document`."""
        return cls(**document)


def event_id(subject: str, token: object, kind: str, discriminator: str = "") -> str:
    """The UUIDv5 of (case, token, type, discriminator): the same decision, the same id."""
    return str(uuid5(NAMESPACE, f"{subject}|{token}|{kind}|{discriminator}"))


def traceparent_of(identity: str) -> str:
    """A W3C traceparent for a trace that begins here, the same for the same ``identity``."""
    digits = blake2b(f"trace|{identity}".encode(), digest_size=16).hexdigest()
    return f"00-{digits}-{digits[:16]}-01"
