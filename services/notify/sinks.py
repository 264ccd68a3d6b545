"""What contacts and subscriptions over HTTP have in common: a URL to send to, and a secret."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, validate

from services.bus import problems
from services.notify.addresses import NotAllowed
from services.notify.sender import PREFIX, key_of
from services.notify.shell import NotifyShell


def _secret(text: str) -> None:
    try:
        key_of(text)
    except ValueError as error:
        raise ValidationError(f"Not a secret: {error}.") from error


def secret_text() -> fields.String:
    """A secret to sign with, as it is sent to us; it is in no answer."""
    return fields.String(
        load_default=None,
        allow_none=True,
        validate=_secret,
        metadata={
            "description": f"signs each delivery (Standard Webhooks): `{PREFIX}` and 24 to 64 "
            "random bytes in base64"
        },
    )


def sink_url(**kwargs: Any) -> fields.Url:
    """Where to send to."""
    return fields.Url(
        schemes={"http", "https"},
        require_tld=False,
        validate=validate.Length(max=2000),
        metadata={
            "description": "https, on a public address; else an operator allows it with "
            "`WEBHOOK_ALLOW`"
        },
        **kwargs,
    )


def must_be_a_sink(notify: NotifyShell, url: str, field: str) -> None:
    """That a URL can be sent to, as far as it says itself; its name is looked up later.

    :raises services.bus.problems.Problem: a 422 that names the field.
    """
    try:
        notify.sender.addresses.must_be_a_sink(url)
    except NotAllowed as error:
        raise problems.invalid({field: str(error)}) from error


def sealed_secret(notify: NotifyShell, secret: str) -> str:
    """A secret as it is kept."""
    return notify.seal.close(secret)
