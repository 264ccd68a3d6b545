"""What a system is on the broker, made through RabbitMQ's management API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from cli.failures import Exit, Failure
from services.bus import systems
from services.bus.topology import user

_SECONDS = 15.0


class Broker:
    """The management API of one broker.

    :param url: with the user and password of somebody who may make users.
    """

    def __init__(self, url: str, vhost: str = "/") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not parts.username:
            raise Failure(
                Exit.USAGE,
                "HUASHI_BROKER is no URL with a user: write https://provisioner:PASSWORD@HOST:15672",
            )
        local = parts.hostname in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.Client(base_url=f"{url}/api/", timeout=_SECONDS, trust_env=not local)
        self._vhost = quote(vhost, safe="")

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def has(self, name: str) -> bool:
        """Whether a system has its user."""
        return self._ask("GET", f"users/{systems.user_of(name)}", missing=True).status_code == 200

    def provide(self, name: str, password: str | None) -> None:
        """Makes what a system is, or puts it right; ``password`` None keeps the one it has.

        In this order it never has a right too many: RabbitMQ lets a user without a line of topic
        permissions write under any key.
        """
        account, here = systems.user_of(name), self._vhost
        if password is not None:
            self._ask("PUT", f"users/{account}", user(account, password))
        for limit, value in systems.limits().items():
            self._ask("PUT", f"user-limits/{account}/{limit}", {"value": value})
        rights = f"permissions/{here}/{account}"
        self._ask("PUT", f"topic-{rights}", systems.topic_permissions(name))
        for queue in systems.queues(name):
            body = {"durable": True, "auto_delete": False, "arguments": queue.arguments}
            self._ask("PUT", f"queues/{here}/{queue.name}", body)
            binding = f"bindings/{here}/e/{queue.exchange}/q/{queue.name}"
            self._ask("POST", binding, {"routing_key": queue.key})
        self._ask("PUT", rights, systems.permissions(name))

    def remove(self, name: str) -> None:
        """Takes a system's user away, which ends its connections, and then its queues."""
        self._ask("DELETE", f"users/{systems.user_of(name)}", missing=True)
        for queue in systems.queues(name):
            self._ask("DELETE", f"queues/{self._vhost}/{queue.name}", missing=True)

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, missing: bool = False
    ) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            said = f"RabbitMQ's management API does not answer ({type(error).__name__})"
            raise Failure(Exit.UNREACHABLE, f"{said}: check HUASHI_BROKER") from error
        if answer.is_success or (missing and answer.status_code == 404):
            return answer
        why = answer.text[:300]
        raise Failure(
            Exit.REFUSED,
            f"RabbitMQ refuses {method} {path} ({answer.status_code}): {why}. The user needs the "
            "tag administrator, and the topology step must have run",
        )
