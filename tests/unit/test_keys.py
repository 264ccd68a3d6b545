"""The identity provider's keys on a clock of their own: fresh, stale, too old."""

from __future__ import annotations

import json

import eventlet
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.bus import keys
from services.bus.auth import InvalidToken
from services.bus.keys import KeysAway, PublishedKeys

PUBLIC = jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key())


class Provider:
    """What the client reads, instead of HTTP."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kids = ["one"]
        self.asked = 0
        self.away = False
        monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", lambda _client: self.fetch())

    def fetch(self) -> dict[str, object]:
        self.asked += 1
        if self.away:
            raise jwt.PyJWKClientConnectionError("connection refused")
        return {"keys": [{**json.loads(PUBLIC), "kid": kid} for kid in self.kids]}


class Hands:
    """A clock that the test moves."""

    now = 1000.0


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    return Provider(monkeypatch)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def published(provider: Provider, hands: Hands) -> PublishedKeys:
    assert provider.asked == 0
    return PublishedKeys("https://id.example/keys", lambda: hands.now)


def test_known_keys_are_read_again_behind_the_scenes(
    published: PublishedKeys, provider: Provider, hands: Hands
) -> None:
    assert published.find("one").key_id == "one"
    hands.now += keys.FRESH_SECONDS - 1
    published.find("one")
    eventlet.sleep(0)
    assert provider.asked == 1
    hands.now += 2
    provider.kids = ["two"]
    # It does not wait for what it does not need.
    assert published.find("one").key_id == "one"
    assert provider.asked == 1
    eventlet.sleep(0)
    assert provider.asked == 2
    # A key that was withdrawn is believed no more.
    with pytest.raises(InvalidToken):
        published.find("one")


def test_an_unknown_key_is_looked_for_once_in_a_while(
    published: PublishedKeys, provider: Provider, hands: Hands
) -> None:
    published.find("one")
    for _ in range(50):
        with pytest.raises(InvalidToken, match="try again in 10 s"):
            published.find("forged")
    assert provider.asked == 1
    hands.now += keys.COOLDOWN_SECONDS
    provider.kids.append("two")
    assert published.find("two").key_id == "two"
    assert provider.asked == 2


def test_what_was_read_is_believed_for_a_day_while_the_provider_is_away(
    published: PublishedKeys, provider: Provider, hands: Hands
) -> None:
    published.find("one")
    provider.away = True
    hands.now += keys.KEPT_SECONDS - 1
    assert published.find("one").key_id == "one"
    eventlet.sleep(0)
    hands.now += 1
    with pytest.raises(KeysAway, match="check JWKS_URL"):
        published.find("one")
    # It is asked no more often for being away.
    asked = provider.asked
    for _ in range(50):
        with pytest.raises(KeysAway):
            published.find("one")
    assert provider.asked == asked
    assert not published.ready()
    provider.away = False
    hands.now += keys.COOLDOWN_SECONDS
    assert published.find("one").key_id == "one"


def test_keys_that_are_for_nothing_of_ours_are_no_keys(
    published: PublishedKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {"keys": [{"kid": "one", "kty": "oct", "k": "a2V5"}]}
    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", lambda _client: shared)
    with pytest.raises(KeysAway):
        published.find("one")
