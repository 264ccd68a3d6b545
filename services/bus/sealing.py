"""Reporters whom another system has sealed to intake (JWE): on their way they are ciphertext.

What goes over AMQP may lie in queues and dead letters. So a system encrypts who reports to
intake's public key (``GET /v1/keys``), as a compact JWE with ``ECDH-ES+A256KW`` and ``A256GCM``;
intake opens it, and keeps it encrypted in the register like any other.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from services.grid import json

ALGORITHM, ENCRYPTION = "ECDH-ES+A256KW", "A256GCM"
LONGEST = 8192
"""Characters of what is sealed."""
_HEADER = {"alg", "enc", "kid", "epk", "typ", "cty"}
_ANEW = "seal it anew to the key of GET /v1/keys"


def new_key() -> str:
    """A new private key: P-256, PKCS #8 in DER, as URL-safe base64."""
    made = ec.generate_private_key(ec.SECP256R1())
    raw = made.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return base64.urlsafe_b64encode(raw).decode()


def _read(key: str) -> ECKey:
    try:
        made = load_der_private_key(base64.b64decode(key, altchars=b"-_", validate=True), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("it can't be read") from error
    if not isinstance(made, ec.EllipticCurvePrivateKey) or not isinstance(made.curve, ec.SECP256R1):
        raise ValueError("it is not of P-256")
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ECKey.import_key(pem)


class NotOpened(ValueError):
    """It can't be opened; says why and the cure, and nothing of what is in it."""


class Unsealer:
    """Intake's keys: the first is published, those behind it still open what was sealed before.

    :param keys: as :func:`new_key` makes them.
    :raises ValueError: one is not such a key.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        found = [_read(key) for key in keys]
        self._keys = {key.thumbprint(): key for key in found}

    def public(self) -> dict[str, Any]:
        """The JWK Set of the key to seal to; empty if there is none."""
        published = list(self._keys.items())[:1]
        named = {"use": "enc", "alg": ALGORITHM}
        return {
            "keys": [{**key.as_dict(private=False), "kid": kid, **named} for kid, key in published]
        }

    def open(self, sealed: str) -> Any:
        """What was sealed.

        :raises NotOpened: it is not sealed to us, or not as we want it.
        """
        kid = _kid(sealed)
        key = self._keys.get(kid)
        if key is None:
            raise NotOpened(f"is sealed to the key {kid!r}, which is not ours: {_ANEW}")
        try:
            opened = jwe.decrypt_compact(sealed, key, algorithms=[ALGORITHM, ENCRYPTION])
            return json.loads(opened.plaintext or b"")
        except json.InvalidJson:
            # From nothing: the cause would show what is in it.
            raise NotOpened("is no JSON: seal {name, phone, address} as JSON") from None
        except (JoseError, InvalidTag, ValueError, TypeError, KeyError):
            raise NotOpened(f"can't be opened: {_ANEW}") from None


def _kid(sealed: str) -> str:
    """Which key the head names; what the head may hold is checked before anything is computed."""
    try:
        raw = sealed.partition(".")[0]
        head = json.loads(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)))
    except (binascii.Error, ValueError) as error:
        raise NotOpened("is no compact JWE: write five parts of base64url with dots") from error
    if not isinstance(head, dict) or sealed.count(".") != 4:
        raise NotOpened("is no compact JWE: write five parts of base64url with dots")
    if (head.get("alg"), head.get("enc")) != (ALGORITHM, ENCRYPTION):
        raise NotOpened(f"write alg {ALGORITHM} and enc {ENCRYPTION}")
    more = sorted(str(name) for name in head.keys() - _HEADER)
    if more:
        raise NotOpened(f"its head has {', '.join(more)[:80]}: leave it out")
    kid = head.get("kid")
    if not isinstance(kid, str):
        raise NotOpened("its head has no kid: write that of the key of GET /v1/keys")
    return kid[:100]
