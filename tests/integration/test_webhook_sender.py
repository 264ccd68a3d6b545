"""What is sent, and what is made of an answer: on a real sink."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from email.utils import formatdate
from ipaddress import ip_network
from typing import Any

import pytest

from services.notify.addresses import Addresses
from services.notify.channels import Sent
from services.notify.seal import Seal, Unsealable
from services.notify.sender import (
    LONGEST_WAIT_SECONDS,
    HandshakeRefused,
    Sender,
    key_of,
    new_secret,
    signature,
)
from tests.end_to_end.sink import OK, Got, Reply, Sink, sinks


@pytest.fixture
def sink() -> Iterator[Sink]:
    with sinks("127.0.0.1") as (made,):
        yield made


@pytest.fixture
def sender() -> Iterator[Sender]:
    made = Sender(Addresses((ip_network("127.0.0.1"),)), time.time)
    yield made
    made.close()


def post(sender: Sender, sink: Sink, secret: str | None = None) -> Sent:
    return sender.post(sink.url, "m-1", "application/json", b"{}", secret)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """Made with the library ``standardwebhooks`` 1.1.0."""
    secret = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
    made = signature(secret, "msg_1", 1614265330, '{"title":"路灯"}'.encode())
    assert made == "v1,cJHxJtx01n+CzkfrUCVedFCvwZWtCgA8kdox/d9sreg="


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_%%%", "whsec_QUJD", "QUJD" * 8, "whsec_" + "QUJD" * 22]
)
def test_what_is_no_secret_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 random bytes"):
        key_of(secret)
    assert len(key_of(new_secret())) == 32


def test_a_secret_is_opened_with_its_own_key_only() -> None:
    key, other = (base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (1, 2))
    sealed = Seal(key).close("whsec_x")
    assert "whsec" not in sealed
    assert Seal(key).open(sealed) == "whsec_x"
    with pytest.raises(Unsealable, match="SEAL_KEY"):
        Seal(other).open(sealed)


def test_what_was_taken_needs_no_more_and_what_is_unsigned_says_so(
    sender: Sender, sink: Sink
) -> None:
    assert post(sender, sink) == Sent()
    (got,) = sink.got
    assert got.id == got.headers["idempotency-key"] == "m-1"
    assert "webhook-signature" not in got.headers
    assert "authorization" not in got.headers


@pytest.mark.parametrize(
    ("reply", "made"),
    [
        ((200, {}), Sent()),
        ((400, {}), Sent("the webhook answered 400")),
        ((500, {"Retry-After": "9"}), Sent("the webhook answered 500")),
        ((410, {}), Sent("the webhook answered 410", gone=True)),
        ((301, {"Location": "/"}), Sent(
            "the webhook answered 301: redirects are not followed")),
        ((429, {}), Sent("the webhook answered 429", down=True, blame=False)),
        ((429, {"Retry-After": "7"}), Sent(
            "the webhook answered 429", 7.0, down=True, blame=False)),
        ((503, {"Retry-After": "soon"}), Sent("the webhook answered 503", down=True, blame=False)),
        ((429, {"Retry-After": f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT"}), Sent(
            "the webhook answered 429", down=True, blame=False)),
        ((429, {"Retry-After": "9" * 9}), Sent(
            "the webhook answered 429", LONGEST_WAIT_SECONDS, down=True, blame=False)),
    ],
)  # fmt: skip
def test_each_answer_says_what_to_do(sender: Sender, sink: Sink, reply: Reply, made: Sent) -> None:
    sink.answer = lambda _got: reply
    assert post(sender, sink) == made


def test_patience_may_be_asked_for_until_a_date(sender: Sender, sink: Sink) -> None:
    for ahead, least, most in ((120, 115, 121), (-50, 0, 0)):
        date = formatdate(time.time() + ahead, usegmt=True)
        sink.answer = lambda _got, date=date: (429, {"Retry-After": date})  # type: ignore[misc]
        assert least <= post(sender, sink).wait <= most


def test_a_sink_that_is_too_slow_may_be_so_because_of_the_event(sender: Sender, sink: Sink) -> None:
    def late(_got: Got) -> Reply:
        time.sleep(12)
        return OK

    sink.answer = late
    sent = post(sender, sink)
    assert sent == Sent("the webhook did not answer within 10 s", down=True)


def test_a_long_answer_is_not_read_to_its_end(sender: Sender) -> None:
    class Long(Sink):
        def handler(self) -> Any:
            class Handler(super().handler()):  # type: ignore[misc]
                def _reply(self, status: int, _headers: dict[str, str]) -> None:
                    self.send_response(status)
                    self.send_header("Content-Length", str(10**12))
                    self.end_headers()
                    try:
                        while True:
                            self.wfile.write(bytes(65536))
                    except OSError:
                        self.close_connection = True

            return Handler

    with sinks("127.0.0.1", kind=Long) as (sink,):
        sink.answer = lambda _got: (200, {})
        began = time.monotonic()
        assert post(sender, sink) == Sent()
        assert time.monotonic() - began < 3


def test_the_handshake_agrees_on_the_lesser_rate(sender: Sender, sink: Sink) -> None:
    for asked, allowed, agreed in (
        (None, None, None), (None, "*", None), (60, "*", 60), (60, None, 60),
        (None, "120", 120), (60, "120", 60), (600, "120", 120),
    ):  # fmt: skip
        rate = {} if allowed is None else {"WebHook-Allowed-Rate": allowed}
        sink.handshake = (200, {"WebHook-Allowed-Origin": "county.example.cn", **rate})
        assert sender.shake(sink.url, "county.example.cn", asked) == agreed
        shake = sink.shakes[-1]
        assert shake["webhook-request-origin"] == "county.example.cn"
        assert shake.get("webhook-request-rate") == (None if asked is None else str(asked))
    for wrong in ("0", "-1", "many", "1.5"):
        sink.handshake = (200, {"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": wrong})
        with pytest.raises(HandshakeRefused, match="answer the requests a minute"):
            sender.shake(sink.url, "county.example.cn", None)
