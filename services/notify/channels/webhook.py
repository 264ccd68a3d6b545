"""The channel ``webhook``: a POST to the recipient's own system."""

from __future__ import annotations

from typing import Any

import eventlet
import httpx

from services.notify.channels import Message

_TIMEOUT_SECONDS = 5.0
_LONGEST_SECONDS = 10.0


class Webhook:
    """Sends JSON; any 2xx means that it arrived. Redirects are not followed."""

    def __init__(self) -> None:
        self._client = httpx.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=False)

    def send(self, message: Message, webhook: str | None) -> str | None:
        """See :class:`services.notify.channels.Channel`."""
        if webhook is None:
            return "no webhook is known for this recipient"
        request: dict[str, Any] = {
            "json": message.body(),
            "headers": {"Idempotency-Key": message.id},
        }
        try:
            # httpx limits each read, not the whole; and what the answer holds nobody needs.
            with (
                eventlet.Timeout(_LONGEST_SECONDS),
                self._client.stream("POST", webhook, **request) as answer,
            ):
                fine, status = answer.is_success, answer.status_code
        except eventlet.Timeout:
            return f"the webhook did not answer within {_LONGEST_SECONDS:.0f} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"the webhook can't be reached: {type(error).__name__}"
        return None if fine else f"the webhook answered {status}"
