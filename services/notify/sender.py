"""The one sender of webhooks: of notifications (the channel ``webhook``) and of subscriptions.

Every delivery with a secret is signed as Standard Webhooks says (``webhook-id``,
``webhook-timestamp``, ``webhook-signature``): ``docs/integrating/webhooks.md`` has how to
verify it. Redirects are not followed, and no proxy of the environment is used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import eventlet
import httpcore
import httpx

from services.notify.addresses import Addresses, Guarded, NotAllowed
from services.notify.channels import Sent

LONGEST_SECONDS = 10.0
"""So long one request takes at most, whatever the other side does."""
LONGEST_WAIT_SECONDS = 86400.0
"""A sink that asks for more patience than this is tried after it."""
PREFIX = "whsec_"
"""How a secret begins; what follows is 24 to 64 bytes in base64."""

_CONNECT_SECONDS = 5.0
_SECRET_BYTES = 32
_MOST_CONNECTIONS = 100
_IDLE_SECONDS = 15.0
# What a sink answers nobody reads; so much of it is taken, to use the connection again.
_MOST_READ = 16 * 1024
_RATE = re.compile(r"[1-9][0-9]{0,8}")


class HandshakeRefused(Exception):
    """The sink did not agree to be sent to; says what it answered, and the cure."""


def new_secret() -> str:
    """A secret to sign with."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def key_of(secret: str) -> bytes:
    """The bytes of a secret.

    :raises ValueError: it is none.
    """
    cure = f"write {PREFIX} and 24 to 64 random bytes in base64, or leave it out to get one"
    if not secret.startswith(PREFIX):
        raise ValueError(cure)
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(cure) from error
    if not 24 <= len(key) <= 64:
        raise ValueError(cure)
    return key


def signature(secret: str, identity: str, at: int, body: bytes) -> str:
    """``v1,<base64>``: HMAC-SHA256 of ``<id>.<timestamp>.<body>`` (Standard Webhooks)."""
    signed = f"{identity}.{at}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()


class Sender:
    """Posts to sinks; safe for several threads.

    :param real: Unix seconds of the real world.
    """

    def __init__(self, addresses: Addresses, real: Callable[[], float]) -> None:
        self.addresses = addresses
        self._real = real
        context = httpx.create_ssl_context()
        self._pools = {
            scheme: httpcore.ConnectionPool(
                ssl_context=context,
                max_connections=_MOST_CONNECTIONS,
                keepalive_expiry=_IDLE_SECONDS,
                network_backend=Guarded(addresses, plain=scheme == "http"),
            )
            for scheme in ("http", "https")
        }

    def close(self) -> None:
        """Ends the connections."""
        for pool in self._pools.values():
            pool.close()

    def post(
        self, url: str, identity: str, content_type: str, body: bytes, secret: str | None
    ) -> Sent:
        """Sends one message; any 2xx means that it arrived.

        :param identity: the same for the same message, however often it is sent.
        """
        headers = {
            "Content-Type": content_type,
            "Idempotency-Key": identity,
            "webhook-id": identity,
        }
        if secret is not None:
            at = int(self._real())
            headers["webhook-timestamp"] = str(at)
            headers["webhook-signature"] = signature(secret, identity, at, body)
        try:
            status, answered = self._ask("POST", url, headers, body)
        except NotAllowed as error:
            return Sent(f"the webhook may not be sent to: {error}", down=True, blame=False)
        except (eventlet.Timeout, httpcore.TimeoutException):
            within = f"within {LONGEST_SECONDS:.0f} s"
            return Sent(f"the webhook did not answer {within}", down=True)
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            kind = type(error).__name__
            return Sent(f"the webhook can't be reached: {kind}", down=True, blame=False)
        if 200 <= status < 300:
            return Sent()
        reason = f"the webhook answered {status}"
        if 300 <= status < 400:
            return Sent(f"{reason}: redirects are not followed")
        busy = status in (429, 503)
        wait = self._patience(answered.get("retry-after", "")) if busy else 0.0
        return Sent(reason, wait, gone=status == 410, down=busy, blame=not busy)

    def shake(self, url: str, origin: str, rate: int | None) -> int | None:
        """The handshake of CloudEvents' webhooks: asks whether events may be sent there.

        :param origin: who will send (``WebHook-Request-Origin``).
        :param rate: the requests a minute that are asked for; None for as many as there are.
        :returns: the requests a minute that are allowed; None if there is no limit.
        :raises HandshakeRefused: they may not.
        """
        headers = {"WebHook-Request-Origin": origin}
        if rate is not None:
            headers["WebHook-Request-Rate"] = str(rate)
        try:
            status, answered = self._ask("OPTIONS", url, headers, b"")
        except NotAllowed as error:
            raise HandshakeRefused(str(error)) from error
        except (eventlet.Timeout, httpcore.TimeoutException) as error:
            said = f"it did not answer OPTIONS within {LONGEST_SECONDS:.0f} s: see that it runs"
            raise HandshakeRefused(said) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            said = f"it can't be reached ({type(error).__name__}): see that it runs"
            raise HandshakeRefused(said) from error
        if not 200 <= status < 300:
            cure = "answer it with 200 and WebHook-Allowed-Origin"
            raise HandshakeRefused(f"it answered OPTIONS with {status}: {cure}")
        allowed = answered.get("webhook-allowed-origin", "")
        if allowed not in ("*", origin):
            said = f"WebHook-Allowed-Origin is {allowed[:100]!r}: answer {origin} or *"
            raise HandshakeRefused(said)
        return _agreed(rate, answered.get("webhook-allowed-rate", "*").strip())

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str]]:
        """The status and headers of an answer; what it holds is not looked at."""
        try:
            to = httpx.URL(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise NotAllowed(f"the URL can't be used: {error}") from error
        self.addresses.must_be_a_sink(url)
        target = httpcore.URL(
            scheme=to.raw_scheme, host=to.raw_host, port=to.port, target=to.raw_path
        )
        times = dict.fromkeys(("read", "write", "pool"), LONGEST_SECONDS)
        times["connect"] = _CONNECT_SECONDS
        sent = [*{"User-Agent": "Huashi", "Accept": "*/*", **headers}.items()]
        # httpcore limits each read, not the whole.
        with (
            eventlet.Timeout(LONGEST_SECONDS),
            self._pools[to.scheme].stream(
                method, target, headers=sent, content=body, extensions={"timeout": times}
            ) as answer,
        ):
            read = 0
            for chunk in answer.iter_stream():
                read += len(chunk)
                if read > _MOST_READ:
                    break
            found = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in answer.headers
            }
            return answer.status, found

    def _patience(self, text: str) -> float:
        """The seconds of a ``Retry-After``; it may also be a date."""
        if text.isascii() and text.isdigit() and len(text) < 10:
            return min(float(text), LONGEST_WAIT_SECONDS)
        try:
            until = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            # OverflowError: a year or day of too many digits.
            return 0.0
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        return min(max(0.0, until.timestamp() - self._real()), LONGEST_WAIT_SECONDS)


def _agreed(asked: int | None, allowed: str) -> int | None:
    if allowed == "*":
        return asked
    if not _RATE.fullmatch(allowed):
        cure = "answer the requests a minute that are allowed, or *"
        raise HandshakeRefused(f"WebHook-Allowed-Rate is {allowed[:100]!r}: {cure}")
    return int(allowed) if asked is None else min(asked, int(allowed))
