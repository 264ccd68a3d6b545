"""The channel ``webhook``: a POST to the recipient's own system."""

from __future__ import annotations

import httpx

from services.notify.channels import Message

_TIMEOUT_SECONDS = 5.0


class Webhook:
    """Sends JSON; any 2xx means that it arrived. Redirects are not followed."""

    def __init__(self) -> None:
        self._client = httpx.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=False)

    def send(self, message: Message, webhook: str | None) -> str | None:
        """See :class:`services.notify.channels.Channel`."""
        if webhook is None:
            return "no webhook is known for this recipient"
        try:
            answer = self._client.post(
                webhook, json=message.body(), headers={"Idempotency-Key": message.id}
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"the webhook can't be reached: {type(error).__name__}"
        if not answer.is_success:
            return f"the webhook answered {answer.status_code}"
        return None
