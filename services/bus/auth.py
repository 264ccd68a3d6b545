"""Bearer tokens: who calls, in which role, for which part of the county.

A token is a JWT. On a local stack it is signed with the key that its services share (HS256), in
production by the county's identity provider, whose public keys are at JWKS_URL (RS256 or ES256).
One or the other: the algorithm follows from the configuration and never from the token.

Claims: ``iss``, ``aud``, ``exp`` and, if sent, ``nbf``; ``sub`` (a reference, never a name or
number: events carry it), ``role``, and the scope: ``division``, ``level``, ``unit``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jwt

from services.grid.scope import WHOLE, Scope

ISSUER = AUDIENCE = "huashi"
"""The issuer and audience of a local stack's tokens."""

ROLES = ("reporter", "officer", "lead", "operator", "auditor", "system")
SCOPED = ("officer", "lead")
"""Roles that are always for a division and a level; others for a division at most."""
REPORTERS = ("reporter", "system")
"""Roles that see what they reported themselves, and nothing else."""

ALGORITHMS = ("RS256", "ES256")
"""What an identity provider may sign with."""

API_KEY = "hk_"
"""How the key of a system begins, which is no JWT: :mod:`services.intake.systems`."""

_SHARED_KEY_ALGORITHM = "HS256"
# Clocks of our machines may differ by this much.
_LEEWAY_SECONDS = 30.0
_SUBJECT = re.compile(r"[!-~]{1,120}")
_PERSONAL = re.compile(r"(\+?86)?1[3-9][0-9]{9}|[1-9][0-9]{16}[0-9Xx]")
_CLAIMS = {
    "division": (re.compile(r"[0-9]{6,32}"), "a division code, 6 digits or more"),
    "level": (re.compile(r"[a-z][a-z0-9_]{0,39}"), "a level, such as village"),
    "unit": (re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,80}"), "a unit's id"),
}


class InvalidToken(ValueError):
    """The token can't be believed; the message is for the caller and says the cure."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: ``subject`` is a reference (never a person's name), ``role`` one of ROLES."""

    subject: str
    role: str
    scope: Scope = WHOLE

    def claims(self) -> dict[str, str]:
        """What a token says of them, and :func:`identity_of` reads."""
        limits = {name: value for name, value in self.scope.as_dict().items() if value is not None}
        return {"sub": self.subject, "role": self.role, **limits}


ANONYMOUS = Identity("", "anonymous")
"""Who calls a public route without a token."""


class Keys(Protocol):
    """An identity provider's public keys."""

    def find(self, kid: str) -> jwt.PyJWK:
        """The key of this id.

        :raises InvalidToken: there is none.
        :raises services.bus.errors.Retry: it can't be said now.
        """


class ApiKeys(Protocol):
    """The keys of other systems, where a service knows them."""

    def identity(self, key: str) -> Identity:
        """Whose key it is.

        :raises InvalidToken: nobody's, or no longer.
        :raises services.bus.errors.Retry: it can't be said now.
        """


def issue(
    key: str,
    subject: str,
    role: str,
    now: float,
    lifetime: float,
    *,
    scope: Scope = WHOLE,
) -> str:
    """A token of a local stack for ``subject`` in ``role``.

    :param now: real Unix seconds (``Clock.real()``): tokens expire in the real world's time.
    :param lifetime: seconds until it expires.
    :raises ValueError: a token like this would not be believed.
    """
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        **Identity(subject, role, scope).claims(),
        "iat": int(now),
        "nbf": int(now),
        "exp": int(now + lifetime),
    }
    identity_of(claims)
    return jwt.encode(claims, key, algorithm=_SHARED_KEY_ALGORITHM)


@dataclass(frozen=True)
class Tokens:
    """Which tokens are believed: signed with ``key``, or with one of ``keys`` if there are."""

    key: str = ""
    keys: Keys | None = None
    issuer: str = ISSUER
    audience: str = AUDIENCE

    def verify(self, token: str, now: float) -> Identity:
        """Who the token speaks for.

        :param now: real Unix seconds (``Clock.real()``).
        :raises InvalidToken: it is not ours, not whole, or expired.
        :raises services.bus.errors.Retry: the identity provider's keys are not known.
        """
        try:
            header = jwt.get_unverified_header(token)
            key, algorithms = self._key_of(header)
            payload = jwt.decode(
                token,
                key,
                algorithms=algorithms,
                audience=self.audience,
                issuer=self.issuer,
                # The library would read the system clock; the time is checked below.
                options={
                    "require": ["iss", "aud", "sub", "exp"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.PyJWTError as error:
            raise InvalidToken(f"the token is not valid ({error}): ask for a new one") from error
        _check_times(payload, now)
        return identity_of(payload)

    def _key_of(self, header: Mapping[str, Any]) -> tuple[str | jwt.PyJWK, list[str]]:
        if self.keys is None:
            return self.key, [_SHARED_KEY_ALGORITHM]
        # Before any key is looked for: what is signed otherwise can't make us ask for keys.
        if header.get("alg") not in ALGORITHMS:
            raise InvalidToken(f"the token must be signed with {' or '.join(ALGORITHMS)}")
        kid = header.get("kid")
        if not isinstance(kid, str) or not kid:
            raise InvalidToken("the token's head has no kid: it must say which key signed it")
        return self.keys.find(kid), list(ALGORITHMS)


def _check_times(payload: Mapping[str, Any], now: float) -> None:
    for name in ("exp", "nbf"):
        value = payload.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidToken(f"the token's {name} is not a time: ask for a new one")
    if payload["exp"] <= now - _LEEWAY_SECONDS:
        raise InvalidToken("the token has expired: ask for a new one")
    if payload.get("nbf", 0) > now + _LEEWAY_SECONDS:
        raise InvalidToken("the token is not valid yet: check the clock of who issued it")


def identity_of(payload: Mapping[str, Any]) -> Identity:
    """Who the claims of a token speak of.

    :raises InvalidToken: they are missing or can't be used.
    """
    subject, role = payload["sub"], payload.get("role")
    if not _SUBJECT.fullmatch(subject):
        raise InvalidToken("the token's sub must be 1 to 120 visible ASCII characters")
    if _PERSONAL.fullmatch(subject):
        raise InvalidToken("the token's sub is a phone or identity number: use a reference")
    if role not in ROLES:
        raise InvalidToken(f"the token has no known role: it must be one of {', '.join(ROLES)}")
    claims = {name: payload.get(name) for name in _CLAIMS}
    for name, value in claims.items():
        pattern, allowed = _CLAIMS[name]
        if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
            raise InvalidToken(f"the token's {name} must be {allowed}")
        if value is None and role in SCOPED and name != "unit":
            raise InvalidToken(
                f"the token has no {name}: the role {role} is for a division and a level"
            )
        if value is not None and role not in SCOPED and name != "division":
            raise InvalidToken(f"the token has a {name}, which the role {role} is not for")
    return Identity(subject, role, Scope(**claims))
