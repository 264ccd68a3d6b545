"""Secrets at rest: sealed with the service's own key, opened only to sign with."""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken


class Unsealable(Exception):
    """A secret was sealed with another key than this process has."""


class Seal:
    """Seals and opens secrets with SEAL_KEY."""

    def __init__(self, key: str) -> None:
        self._fernet = Fernet(key)

    def close(self, secret: str) -> str:
        """As it may be kept."""
        return self._fernet.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """What was sealed.

        :raises Unsealable: it was with another key.
        """
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise Unsealable(
                "its secret can't be opened: SEAL_KEY of notify is not the one it was sealed with"
            ) from error
