"""What a system is on the broker, made through RabbitMQ's management API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    def must_answer(self) -> None:
        """That it is there, and knows who asks.

        :raises Failure: it is not, or does not.
        """
        self._ask("GET", "whoami")

    def has(self, name: str) -> bool:
        """Whether a system has its user."""
        return self._ask("GET", f"users/{systems.user_of(name)}", missing=True).status_code == 200

    def provide(self, name: str, password: str | None, subscription: Sequence[str] | None) -> None:
        """Makes what a system is, or puts it right; ``password`` None keeps the one it has.

        :param subscription: the binding keys of the events that it is sent; None for no such
            queue: one that it had goes, with all that waits in it.

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
        events = systems.subscribed_queues(name, subscription or ())
        for queue in [*systems.queues(name), *(events if subscription is not None else ())]:
            body = {"durable": True, "auto_delete": False, "arguments": queue.arguments}
            self._ask("PUT", f"queues/{here}/{queue.name}", body)
            self._bind(queue)
        if subscription is None:
            self._delete(events)
        self._ask("PUT", rights, systems.permissions(name))

    def remove(self, name: str) -> None:
        """Takes a system's user away, which ends its connections, and then its queues."""
        self._ask("DELETE", f"users/{systems.user_of(name)}", missing=True)
        self._delete([*systems.queues(name), *systems.subscribed_queues(name, ())])

    def _bind(self, queue: systems.QueueOf) -> None:
        """Gives a queue its bindings and no others; those that are too many go first."""
        wanted = set(queue.bindings)
        there = self._ask("GET", f"queues/{self._vhost}/{queue.name}/bindings").json()
        # Each queue is bound to the default exchange by its name, for ever.
        known = {(each["source"], each["routing_key"]): each for each in there if each["source"]}
        for exchange, key in known.keys() - wanted:
            path = f"bindings/{self._vhost}/e/{exchange}/q/{queue.name}"
            properties = quote(known[exchange, key]["properties_key"], safe="")
            self._ask("DELETE", f"{path}/{properties}", missing=True)
        for exchange, key in sorted(wanted - known.keys()):
            path = f"bindings/{self._vhost}/e/{exchange}/q/{queue.name}"
            self._ask("POST", path, {"routing_key": key})

    def _delete(self, queues: Iterable[systems.QueueOf]) -> None:
        for queue in queues:
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
