"""Cursors for everybody: sealed, because a plain one says when a case was resolved, and its id."""

from __future__ import annotations

import base64
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.bus.paging import Cursor

_NONCE = 12


class SealedCursors:
    """The same cursor is always the same text, so that a page keeps its ``ETag``.

    :param seal_key: the service's own.
    """

    def __init__(self, seal_key: str) -> None:
        self._secret = hmac.digest(seal_key.encode(), b"cursors", "sha256")
        self._cipher = AESGCM(self._secret)

    def text(self, plain: str | None) -> str | None:
        """A cursor as it is handed out."""
        if plain is None:
            return None
        text = plain.encode()
        # Of the text itself: no other is ever sealed with this one.
        nonce = hmac.digest(self._secret, text, "sha256")[:_NONCE]
        return base64.urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, text, None)).decode()

    def read(self, text: str) -> Cursor:
        """The cursor of :meth:`text`.

        :raises ValueError: it is none.
        """
        try:
            raw = base64.urlsafe_b64decode(text)
            return Cursor.read(self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], None).decode())
        except (InvalidTag, ValueError) as error:
            raise ValueError("not a cursor") from error
