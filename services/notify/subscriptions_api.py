"""Subscriptions over HTTP: an operator has events sent to another system."""

from __future__ import annotations

import secrets
import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar

from marshmallow import Schema, fields, validate

from services.bus import problems
from services.bus.access import Guard
from services.bus.errors import Refused
from services.bus.fold import Decision, Document, Record, Work
from services.bus.openapi import Shown
from services.bus.problems import Problem
from services.bus.web import Answer, Call
from services.grid.atlas import Atlas
from services.grid.clock import Instant, instant
from services.grid.directory import DivisionError
from services.grid.events.envelope import NAMESPACE
from services.grid.events.parts import CODE, WORD, InstantField
from services.notify import subscriptions
from services.notify.sender import HandshakeRefused, new_secret
from services.notify.shell import NotifyShell
from services.notify.sinks import must_be_a_sink, sealed_secret, secret_text, sink_url

SUBSCRIBERS = ("operator",)
SEEING = ("operator", "auditor")

_MOST_RATE = 600_000
_MOST_SHOWN = 10_000


class SubscriptionBody(Schema):
    """Body of ``POST /v1/subscriptions``."""

    example: ClassVar[dict[str, Any]] = {
        "types": ["case.escalated", "case.resolved"],
        "level": "township",
        "division": "469002104",
        "sink": "https://river.example.cn/huashi",
        "rate": 600,
    }

    types = fields.List(
        fields.String(validate=validate.OneOf(subscriptions.TYPES)),
        load_default=list,
        validate=validate.Length(max=len(subscriptions.TYPES)),
        metadata={"description": "none is all of them"},
    )
    level = fields.String(
        load_default=None,
        allow_none=True,
        validate=WORD,
        metadata={"description": "only while a desk of this level holds the case"},
    )
    division = fields.String(
        load_default=None,
        allow_none=True,
        validate=CODE,
        metadata={"description": "only cases that are held, or happened, there or below"},
    )
    sink = sink_url(required=True)
    secret = secret_text()
    rate = fields.Integer(
        strict=True,
        load_default=None,
        allow_none=True,
        validate=validate.Range(1, _MOST_RATE),
        metadata={"description": "requests a minute at most; the sink may allow less"},
    )


class ResumeBody(Schema):
    """Body of ``POST /v1/subscriptions/{identity}/resume``."""

    example: ClassVar[dict[str, Any]] = {}


class ReplayBody(Schema):
    """Body of ``POST /v1/subscriptions/{identity}/replay``."""

    example: ClassVar[dict[str, Any]] = {"from": "2026-11-23T08:30:00+08:00"}

    since = InstantField(
        required=True,
        data_key="from",
        metadata={"description": "what intake has heard of since then"},
    )


class SubscriptionsQuery(Schema):
    """What the list takes."""

    example: ClassVar[dict[str, Any]] = {"division": "469002104"}

    division = fields.String(
        load_default=None,
        validate=CODE,
        metadata={"description": "only those for this division or below"},
    )


class SubscriptionShown(Shown):
    """A subscription, and how it does. The times but for `made` and `replayed_to` are real ones."""

    id = fields.String()
    by = fields.String(metadata={"description": "who made it"})
    made = InstantField()
    types = fields.List(fields.String())
    level = fields.String(allow_none=True)
    division = fields.String(allow_none=True)
    sink = fields.String()
    rate = fields.Integer(
        allow_none=True, metadata={"description": "requests a minute that the sink allows"}
    )
    status = fields.String(
        validate=validate.OneOf((*subscriptions.SENDING, "joining", "paused", "ended", "removed"))
    )
    since = InstantField(metadata={"description": "when it came to this status"})
    reason = fields.String(
        allow_none=True,
        metadata={"description": "why it is paused or ended, or what fails since `failing_since`"},
    )
    failing_since = InstantField(allow_none=True)
    quiet_until = InstantField(allow_none=True, metadata={"description": "nothing is sent before"})
    delivered_at = InstantField(
        allow_none=True, metadata={"description": "when it took something, about"}
    )
    waiting = fields.Integer(
        metadata={"description": "cases with events that wait, counted up to 10,000"}
    )
    oldest_waiting = InstantField(allow_none=True)
    replayed_to = InstantField(
        allow_none=True, metadata={"description": "how far intake's timeline was read"}
    )


class SubscriptionWithSecret(SubscriptionShown):
    """The same with its secret, which is shown just now and never again."""

    secret = fields.String(allow_none=True, metadata={"description": "null if it was shown before"})


class SubscriptionsShown(Shown):
    """All of them, the oldest first."""

    subscriptions = fields.List(fields.Nested(SubscriptionShown))


def subscribe(notify: NotifyShell, call: Call) -> Answer:
    """Asks the sink, and subscribes it."""
    atlas, body = notify.county.atlas(), dict(call.body)
    if body["division"] is not None:
        _must_be_known(atlas, body["division"])
    body["division"] = call.guard.narrowed(atlas, body["division"]).division
    must_be_a_sink(notify, body["sink"], "sink")
    identity = _identity(call)
    known = notify.webhooks.subscribers.read([identity]).get(identity)
    if known is not None and known.document is not None:
        if not subscriptions.asks_the_same(known.document, body):
            why = "this Idempotency-Key made another subscription, or one that was removed"
            raise Refused(f"{why}: use a new key")
        return _answer(notify, known.document, None)
    notify.webhooks.subscribers.forget()
    if len(notify.webhooks.subscribers.all()) >= subscriptions.MOST:
        cure = "remove one that is not needed any more"
        raise Refused(f"there are {subscriptions.MOST} subscriptions: {cure}")
    rate = _agreed(notify, body["sink"], body["rate"])
    secret = body["secret"] or new_secret()
    sealed = sealed_secret(notify, secret)
    made = subscriptions.made(
        identity,
        call.identity.subject,
        body,
        sealed=sealed,
        rate=rate,
        now=notify.now,
        real=notify.clock.real(),
    )

    def change(record: Record) -> Decision:
        # Two at once under the same key: the first counts.
        document = record.document or made
        return Decision(document, answer=document)

    document = _run(notify, call, identity, change)
    return _answer(notify, document, secret if document["secret"] == sealed else None)


def listed(notify: NotifyShell, call: Call) -> dict[str, Any]:
    """Those within the caller's division."""
    atlas = notify.county.atlas()
    place = call.guard.narrowed(atlas, call.query["division"]).division
    notify.webhooks.subscribers.forget()
    found = [
        _shown(notify, each)
        for each in notify.webhooks.subscribers.all()
        if place is None
        or (each["division"] is not None and atlas.directory.within(each["division"], place))
    ]
    return {"subscriptions": found}


def show(notify: NotifyShell, call: Call, identity: str) -> dict[str, Any]:
    """One of them."""
    return _shown(notify, _of(notify, call.guard, identity))


def remove(notify: NotifyShell, call: Call, identity: str) -> dict[str, Any]:
    """Takes one away."""
    _of(notify, call.guard, identity)
    real = notify.clock.real()
    _run(notify, call, identity, lambda record: subscriptions.removed(record.document, real))
    notify.webhooks.lines.drop(identity)
    return _shown(notify, _read(notify, identity))


def resume(notify: NotifyShell, call: Call, identity: str) -> dict[str, Any]:
    """Goes on with one that is paused, once its sink has agreed anew."""
    known = _of(notify, call.guard, identity)
    rate, real = known["rate"], notify.clock.real()
    if known["status"] == "paused":
        try:
            rate = notify.sender.shake(known["sink"], notify.config.webhook_origin, known["asked"])
        except HandshakeRefused as error:
            raise Refused(f"the sink does not agree: {error}", status="paused") from error
    _run(notify, call, identity, lambda record: subscriptions.resumed(record.document, rate, real))
    return _shown(notify, _read(notify, identity))


def replay(notify: NotifyShell, call: Call, identity: str) -> dict[str, Any]:
    """Sends once more what happened from a time on."""
    _of(notify, call.guard, identity)
    since, clock = call.body["since"], notify.clock
    now, real, scale = clock.now(), clock.real(), 1 / clock.real_seconds(1)

    def change(record: Record) -> Decision:
        return subscriptions.replayed(record.document, since, now=now, real=real, scale=scale)

    _run(notify, call, identity, change)
    return _shown(notify, _read(notify, identity))


def _must_be_known(atlas: Atlas, division: str) -> None:
    try:
        atlas.directory.known(division)
    except DivisionError as error:
        raise problems.invalid({"division": str(error)}) from error


def _identity(call: Call) -> str:
    """A new id; under an ``Idempotency-Key`` always the same."""
    if call.idempotency_key is None:
        return secrets.token_hex(6)
    named = f"subscription|{call.identity.subject}|{call.idempotency_key}"
    return uuid.uuid5(NAMESPACE, named).hex[:12]


def _agreed(notify: NotifyShell, sink: str, rate: int | None) -> int | None:
    try:
        return notify.sender.shake(sink, notify.config.webhook_origin, rate)
    except HandshakeRefused as error:
        raise problems.invalid({"sink": str(error)}) from error


def _run(notify: NotifyShell, call: Call, identity: str, change: Any) -> Any:
    answer = notify.webhooks.fold.run([Work(identity, change)])[0].result()
    notify.webhooks.subscribers.forget()
    call.trail.about(subscription=identity)
    notify.ring()
    return answer


def _read(notify: NotifyShell, identity: str) -> Document:
    record = notify.webhooks.subscribers.read([identity]).get(identity)
    if record is None or record.document is None:
        raise Problem(404, "there is no such subscription: huashi subscription list shows them")
    return record.document


def _of(notify: NotifyShell, guard: Guard, identity: str) -> Document:
    """A subscription that the caller may see.

    :raises Problem: a 404 or a 403.
    """
    atlas, guard.asked = notify.county.atlas(), True
    document = _read(notify, identity)
    if document["status"] == "removed":
        raise Problem(404, "there is no such subscription: huashi subscription list shows them")
    if document["division"] is None:
        guard.must_be_of_the_county()
    else:
        guard.narrowed(atlas, document["division"])
    return document


def _answer(notify: NotifyShell, document: Document, secret: str | None) -> Answer:
    location = {"Location": f"/v1/subscriptions/{document['id']}"}
    return Answer({**_shown(notify, document), "secret": secret}, headers=location)


def _shown(notify: NotifyShell, document: Document) -> dict[str, Any]:
    lines, identity = notify.webhooks.lines, document["id"]
    trouble, reading = document["trouble"], document["replay"]
    quiet = document["quiet_until"] > notify.clock.real()
    return {
        **{
            name: document[name]
            for name in ("id", "by", "made", "types", "level", "division", "sink", "rate", "status")
        },
        "since": _real(document["since"]),
        "reason": document["why"] or (trouble and trouble["reason"]),
        "failing_since": trouble and _real(trouble["since"]),
        "quiet_until": _real(document["quiet_until"]) if quiet else None,
        "delivered_at": _real(document["delivered_at"]),
        "waiting": lines.waiting(identity, _MOST_SHOWN),
        "oldest_waiting": _real(lines.oldest(identity)),
        "replayed_to": reading and reading["at"],
    }


def _real(seconds: float | None) -> Instant | None:
    return None if seconds is None else instant(datetime.fromtimestamp(seconds, UTC))
