"""Bearer tokens: what we issued is believed while it is valid, and nothing else is."""

from __future__ import annotations

import jwt
import pytest

from services.bus.auth import InvalidToken, issue, verify

KEY = "k" * 40
NOW = 1_800_000_000.0


def test_a_token_says_who_calls() -> None:
    token = issue(KEY, "officer:qh-3", "officer", NOW, 3600, divisions=["469002104214"])
    identity = verify(token, KEY, NOW + 10)
    assert (identity.subject, identity.role) == ("officer:qh-3", "officer")
    assert dict(identity.claims) == {"divisions": ["469002104214"]}


def test_a_token_expires_in_the_time_that_is_given() -> None:
    token = issue(KEY, "reporter:1", "reporter", NOW, 60)
    assert verify(token, KEY, NOW + 59).role == "reporter"
    with pytest.raises(InvalidToken, match="expired: ask for a new one"):
        verify(token, KEY, NOW + 3600)


def _signed(key: str = KEY, algorithm: str = "HS256", **changed: object) -> str:
    claims = {
        "iss": "huashi",
        "aud": "huashi",
        "sub": "x",
        "role": "operator",
        "exp": int(NOW) + 60,
        **changed,
    }
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        "a.b.c",
        _signed(key="another" * 6),
        _signed(algorithm="HS512"),
        jwt.encode({"sub": "x", "role": "operator"}, "", algorithm="none"),
        _signed(iss="elsewhere"),
        _signed(aud="elsewhere"),
        _signed(sub=None),
        _signed(exp=None),
        _signed(exp=True),
        _signed(role="emperor"),
        _signed(role=None),
        _signed(role=["operator"]),
        _signed(nbf=int(NOW) + 3600),
    ],
)
def test_anything_else_is_not_believed(token: str) -> None:
    with pytest.raises(InvalidToken):
        verify(token, KEY, NOW)


def test_a_token_is_not_issued_for_an_unknown_role_or_twice_for_one_claim() -> None:
    with pytest.raises(ValueError, match="no role 'emperor': choose reporter"):
        issue(KEY, "x", "emperor", NOW, 60)
    with pytest.raises(ValueError, match="exp can't be given"):
        issue(KEY, "x", "operator", NOW, 60, exp=1)
