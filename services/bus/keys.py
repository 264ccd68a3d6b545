"""The identity provider's public keys (JWKS): read ahead, kept, and never asked for in a hurry.

A request with a known key never waits. The keys are read anew in the background after five
minutes, and at once when a token names a key that is not known, as after a rotation; but whatever
comes, at most once in ten seconds, so that forged tokens can't make us ask all the time.
"""

from __future__ import annotations

from collections.abc import Callable

import eventlet
import jwt
from eventlet.event import Event

from services.bus import logs, metrics
from services.bus.auth import ALGORITHMS, InvalidToken
from services.bus.errors import Retry
from services.grid.clock import monotonic

FRESH_SECONDS = 300.0
"""After so long the keys are read again."""
COOLDOWN_SECONDS = 10.0
"""Between two readings there is at least this much."""
KEPT_SECONDS = 86400.0
"""So long what was read last is believed while the identity provider is away."""
WAIT_SECONDS = 3.0
"""So long a request waits for keys that it can't do without."""

_READ_SECONDS = 5.0
_NEVER = float("-inf")

_log = logs.get(__name__)


class KeysAway(Retry):
    """No key can be believed now: the identity provider was never reached, or not for a day."""


class PublishedKeys:
    """The signing keys behind a JWKS URL, by their ids; see :class:`services.bus.auth.Keys`.

    :param now: monotonic seconds.
    """

    def __init__(self, url: str, now: Callable[[], float] = monotonic) -> None:
        # Redirects are not followed, and only http and https are.
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=WAIT_SECONDS)
        self._now = now
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at = self._tried_at = _NEVER
        self._reading: Event | None = None

    def find(self, kid: str) -> jwt.PyJWK:
        """The key of this id.

        :raises InvalidToken: the identity provider has none, or was asked a moment ago.
        :raises KeysAway: it could not be asked.
        """
        known = self._believed().get(kid)
        self._refresh(wanted=known is None)
        if known is None and self._reading is not None:
            self._wait(self._reading)
        believed = self._believed()
        if not believed:
            raise KeysAway(
                "the identity provider's keys can't be read: if it stays so, tell the operator to "
                "check JWKS_URL and the way to it"
            )
        if kid not in believed:
            raise InvalidToken(
                "the key that signed the token is not known: ask for a new token; after a change "
                f"of keys try again in {COOLDOWN_SECONDS:.0f} s"
            )
        return believed[kid]

    def ready(self) -> bool:
        """Whether there are keys to believe; begins to read them if not."""
        self._refresh(wanted=not self._believed())
        return bool(self._believed())

    def _believed(self) -> dict[str, jwt.PyJWK]:
        return self._keys if self._now() - self._read_at < KEPT_SECONDS else {}

    def _refresh(self, *, wanted: bool) -> None:
        """Begins to read the keys in a thread of its own, if it is time."""
        now = self._now()
        if self._reading is not None or now - self._tried_at < COOLDOWN_SECONDS:
            return
        if wanted or now - self._read_at > FRESH_SECONDS:
            self._tried_at = now
            self._reading = Event()
            eventlet.spawn_n(self._read, self._reading)

    def _read(self, done: Event) -> None:
        try:
            with eventlet.Timeout(_READ_SECONDS):
                found = self._client.get_signing_keys()
            kept = {str(key.key_id): key for key in found if key.algorithm_name in ALGORITHMS}
            if not kept:
                raise jwt.PyJWKClientError(f"no key there is for {' or '.join(ALGORITHMS)}")
            if kept.keys() != self._keys.keys():
                _log.info("keys read", kids=sorted(kept))
            self._keys, self._read_at = kept, self._now()
            metrics.KEYS_READ.labels("read").inc()
        except (jwt.PyJWTError, OSError, ValueError, eventlet.Timeout) as error:
            metrics.KEYS_READ.labels("failed").inc()
            _log.warning("the identity provider's keys can't be read", why=str(error))
        finally:
            self._reading = None
            done.send(None)

    @staticmethod
    def _wait(reading: Event) -> None:
        with eventlet.Timeout(WAIT_SECONDS, False):
            reading.wait()
