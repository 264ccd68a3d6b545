"""Bearer tokens: who calls, in which role. One shared key (HS256), one issuer, one audience."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import jwt

ISSUER = AUDIENCE = "huashi"
ROLES = ("reporter", "officer", "lead", "operator", "auditor", "system")

_ALGORITHM = "HS256"
_REGISTERED = frozenset({"iss", "aud", "sub", "role", "iat", "exp"})
# Clocks of our machines may differ by this much.
_LEEWAY_SECONDS = 30.0


class InvalidToken(ValueError):
    """The token can't be believed; the message is for the caller and says the cure."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: ``subject`` is a reference (never a person's name), ``role`` one of ROLES.

    ``claims`` has what else the token says, such as the divisions of an officer.
    """

    subject: str
    role: str
    claims: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


ANONYMOUS = Identity("", "anonymous")
"""Who calls a public route without a token."""


def issue(key: str, subject: str, role: str, now: float, lifetime: float, **claims: Any) -> str:
    """A token for ``subject`` in ``role``.

    :param now: real Unix seconds (``Clock.real()``): tokens expire in the real world's time.
    :param lifetime: seconds until it expires.
    :raises ValueError: an unknown role, or a claim that the token already has.
    """
    if role not in ROLES:
        raise ValueError(f"there is no role {role!r}: choose {', '.join(ROLES)}")
    if taken := _REGISTERED & claims.keys():
        raise ValueError(f"{', '.join(sorted(taken))} can't be given as further claims")
    registered = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "role": role,
        "iat": int(now),
        "exp": int(now + lifetime),
    }
    return jwt.encode({**claims, **registered}, key, algorithm=_ALGORITHM)


def verify(token: str, key: str, now: float) -> Identity:
    """Who the token speaks for.

    :param now: real Unix seconds (``Clock.real()``).
    :raises InvalidToken: it is not ours, not whole, or expired.
    """
    try:
        payload = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            # The library would read the system clock; the time is checked below.
            options={
                "require": ["iss", "aud", "sub", "exp"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except jwt.InvalidTokenError as error:
        raise InvalidToken(f"the token is not valid ({error}): ask for a new one") from error
    for name in ("exp", "nbf"):
        value = payload.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidToken(f"the token's {name} is not a time: ask for a new one")
    if payload["exp"] <= now - _LEEWAY_SECONDS:
        raise InvalidToken("the token has expired: ask for a new one")
    if payload.get("nbf", 0) > now + _LEEWAY_SECONDS:
        raise InvalidToken("the token is not valid yet: check the clock of who issued it")
    role = payload.get("role")
    if role not in ROLES:
        raise InvalidToken(f"the token has no known role: it must be one of {', '.join(ROLES)}")
    claims = {name: value for name, value in payload.items() if name not in _REGISTERED}
    return Identity(payload["sub"], role, MappingProxyType(claims))
