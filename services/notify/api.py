"""Notify over HTTP: how a recipient can be reached."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from marshmallow import Schema, fields

from services.bus import problems
from services.bus.openapi import Shown
from services.bus.web import Answer, Call
from services.notify.shell import NotifyShell
from services.notify.sinks import must_be_a_sink, sealed_secret, secret_text, sink_url

KEEPERS = ("operator", "system")

_RECIPIENT = re.compile(
    r"officer:[^\s/]{1,80}|desk:[a-z][a-z0-9_]{0,39}:[0-9]{6,32}|division:[0-9]{6,32}", re.ASCII
)


class ContactBody(Schema):
    """Body of ``PUT /v1/contacts/{recipient}``; a webhook of null forgets it."""

    example: ClassVar[dict[str, Any]] = {"webhook": "https://town.example.cn/huashi"}

    webhook = sink_url(required=True, allow_none=True)
    secret = secret_text()


class ContactShown(Shown):
    """How a recipient is reached."""

    recipient = fields.String()
    webhook = fields.Url(allow_none=True, require_tld=False)
    signed = fields.Boolean(metadata={"description": "whether there is a secret to sign with"})


def put_contact(notify: NotifyShell, call: Call, recipient: str) -> Answer:
    """Keeps where a recipient's webhook is; it travels nowhere else."""
    if not _RECIPIENT.fullmatch(recipient):
        allowed = "officer:<id>, desk:<level>:<division> or division:<code>"
        raise problems.invalid({"recipient": f"{recipient!r} is not a recipient: write {allowed}"})
    webhook, secret = call.body["webhook"], call.body["secret"]
    if webhook is not None:
        must_be_a_sink(notify, webhook, "webhook")
    sealed = None if secret is None or webhook is None else sealed_secret(notify, secret)
    notify.contacts.put(recipient, webhook, sealed)
    call.trail.about(webhook="forgotten" if webhook is None else "kept")
    return Answer({"recipient": recipient, "webhook": webhook, "signed": sealed is not None})
