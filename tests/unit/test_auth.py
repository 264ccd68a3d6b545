"""Bearer tokens: what we issued is believed while it is valid, and nothing else is."""

from __future__ import annotations

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.bus.auth import InvalidToken, Tokens, issue
from services.grid.scope import WHOLE, Scope

KEY = "k" * 40
NOW = 1_800_000_000.0
VILLAGE = Scope("469002104214", "village")
ALL = {
    "iss": "huashi",
    "aud": "huashi",
    "sub": "x",
    "role": "operator",
    "exp": int(NOW) + 60,
}
OFFICER = {**ALL, "role": "officer", "division": "469002104214", "level": "village"}

LOCAL = Tokens(KEY)


def test_a_token_says_who_calls_and_for_what() -> None:
    token = issue(KEY, "qh-3", "officer", NOW, 3600, scope=VILLAGE)
    identity = LOCAL.verify(token, NOW + 10)
    assert (identity.subject, identity.role, identity.scope) == ("qh-3", "officer", VILLAGE)
    team = Scope("469002104214", "village", "469002104214-security")
    token = issue(KEY, "qh-4", "lead", NOW, 3600, scope=team)
    assert LOCAL.verify(token, NOW).scope == team
    assert LOCAL.verify(issue(KEY, "x", "auditor", NOW, 60), NOW).scope == WHOLE
    assert LOCAL.verify(issue(KEY, "x", "operator", NOW, 60, scope=Scope("469002")), NOW).scope == (
        Scope("469002")
    )


def test_a_token_is_valid_for_its_time_and_for_half_a_minute_of_unlike_clocks() -> None:
    token = issue(KEY, "reporter:1", "reporter", NOW, 60)
    for now in (NOW - 29, NOW, NOW + 59, NOW + 89):
        assert LOCAL.verify(token, now).role == "reporter"
    with pytest.raises(InvalidToken, match="expired: ask for a new one"):
        LOCAL.verify(token, NOW + 91)
    with pytest.raises(InvalidToken, match="not valid yet: check the clock"):
        LOCAL.verify(token, NOW - 31)


def signed(claims: dict[str, object], key: object = KEY, algorithm: str = "HS256") -> str:
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "not valid"),
        ("nonsense", "not valid"),
        ("a.b.c", "not valid"),
        (signed(ALL, "another" * 6), "Signature verification failed"),
        (signed(ALL, "k" * 64, "HS512"), "alg value is not allowed"),
        (jwt.encode(ALL, "", algorithm="none"), "alg value is not allowed"),
        (signed({**ALL, "iss": "elsewhere"}), "Invalid issuer"),
        (signed({**ALL, "iss": None}), 'missing the "iss" claim'),
        (signed({**ALL, "aud": "elsewhere"}), "Audience doesn't match"),
        (signed({**ALL, "aud": None}), 'missing the "aud" claim'),
        (signed({**ALL, "sub": None}), 'missing the "sub" claim'),
        (signed({**ALL, "sub": ""}), "sub must be 1 to 120"),
        (signed({**ALL, "sub": "王小明"}), "sub must be 1 to 120 visible ASCII"),
        (signed({**ALL, "sub": "13812345678"}), "sub is a phone or identity number"),
        (signed({**ALL, "exp": None}), 'missing the "exp" claim'),
        (signed({**ALL, "exp": True}), "exp is not a time"),
        (signed({**ALL, "exp": "soon"}), "exp is not a time"),
        (signed({**ALL, "nbf": "soon"}), "nbf is not a time"),
        (signed({**ALL, "nbf": int(NOW) + 3600}), "not valid yet"),
        (signed({**ALL, "exp": int(NOW) - 31}), "expired"),
        (signed({**ALL, "role": "emperor"}), "no known role: it must be one of reporter"),
        (signed({**ALL, "role": None}), "no known role"),
        (signed({**ALL, "role": ["operator"]}), "no known role"),
        (signed({**OFFICER, "division": None}), "no division: the role officer is for"),
        (signed({**OFFICER, "role": "lead", "level": None}), "no level: the role lead is for"),
        (signed({**OFFICER, "division": "沙美村"}), "division must be a division code"),
        (signed({**OFFICER, "division": ["469002"]}), "division must be a division code"),
        (signed({**OFFICER, "level": "Village"}), "level must be a level, such as village"),
        (signed({**OFFICER, "unit": ""}), "unit must be a unit's id"),
        (signed({**ALL, "level": "village"}), "a level, which the role operator is not for"),
    ],
)
def test_anything_else_is_not_believed_and_it_is_said_why(token: str, said: str) -> None:
    with pytest.raises(InvalidToken, match=said):
        LOCAL.verify(token, NOW)


@pytest.mark.parametrize(
    ("role", "scope"),
    [("emperor", WHOLE), ("officer", WHOLE), ("officer", Scope("46", "village"))],
)
def test_what_would_not_be_believed_is_not_issued(role: str, scope: Scope) -> None:
    with pytest.raises(InvalidToken):
        issue(KEY, "x", role, NOW, 60, scope=scope)


# -- an identity provider's keys -----------------------------------------------------------

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
SMALL = rsa.generate_private_key(65537, 1024)
OF_RSA, OF_EC = jwt.algorithms.RSAAlgorithm.to_jwk, jwt.algorithms.ECAlgorithm.to_jwk


class Published:
    """Keys as an identity provider publishes them; ``asked`` are the ids looked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._keys = {
            "rsa": jwt.PyJWK(json.loads(OF_RSA(RSA.public_key()))),
            "ec": jwt.PyJWK(json.loads(OF_EC(EC.public_key()))),
            "small": jwt.PyJWK(json.loads(OF_RSA(SMALL.public_key()))),
        }

    def find(self, kid: str) -> jwt.PyJWK:
        self.asked.append(kid)
        if kid not in self._keys:
            raise InvalidToken("the key that signed the token is not known")
        return self._keys[kid]


def verified(token: str) -> str:
    issuer = {"issuer": "https://id.example", "audience": "huashi-qionghai"}
    return Tokens("", Published(), **issuer).verify(token, NOW).subject


PUBLISHED = {**ALL, "iss": "https://id.example", "aud": ["huashi-qionghai", "account"]}


def of_provider(key: object, algorithm: str, **head: object) -> str:
    return jwt.encode(PUBLISHED, key, algorithm=algorithm, headers=head)  # type: ignore[arg-type]


def test_rs256_and_es256_are_believed_with_the_key_that_the_head_names() -> None:
    assert verified(of_provider(RSA, "RS256", kid="rsa")) == "x"
    assert verified(of_provider(EC, "ES256", kid="ec")) == "x"


PUBLIC_PEM = RSA.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def with_hmac_of_the_public_key() -> str:
    """The classic: HS256 with the public key, which everybody has, as the secret."""
    import hashlib  # noqa: PLC0415
    import hmac  # noqa: PLC0415

    def part(raw: bytes) -> bytes:
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    head = {"alg": "HS256", "typ": "JWT", "kid": "rsa"}
    said = part(json.dumps(head).encode()) + b"." + part(json.dumps(PUBLISHED).encode())
    return (said + b"." + part(hmac.digest(PUBLIC_PEM, said, hashlib.sha256))).decode()


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (with_hmac_of_the_public_key(), "must be signed with RS256 or ES256"),
        (jwt.encode(PUBLISHED, "", algorithm="none", headers={"kid": "rsa"}), "must be signed"),
        (of_provider(KEY, "HS256", kid="rsa"), "must be signed with RS256 or ES256"),
        (of_provider(RSA, "RS512", kid="rsa"), "must be signed with RS256 or ES256"),
        (of_provider(RSA, "RS256"), "no kid"),
        (of_provider(RSA, "RS256", kid="other"), "is not known"),
        (of_provider(RSA, "RS256", kid="ec"), "does not match the key's algorithm"),
        (of_provider(rsa.generate_private_key(65537, 2048), "RS256", kid="rsa"), "Signature"),
        (of_provider(SMALL, "RS256", kid="small"), "2048"),
    ],
)
def test_the_algorithm_is_ours_to_say(token: str, said: str) -> None:
    with pytest.raises(InvalidToken, match=said):
        verified(token)


def test_a_local_token_is_nothing_to_services_with_an_identity_provider() -> None:
    keys = Published()
    with pytest.raises(InvalidToken):
        Tokens("", keys).verify(issue(KEY, "x", "operator", NOW, 60), NOW)
    assert keys.asked == []
