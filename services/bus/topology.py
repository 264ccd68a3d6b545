"""Who owns what on the broker and in the database, in one place, declared before anybody publishes.

``python -m services.bus.topology`` declares exchanges, queues and bindings (AMQP_URI, and
LEVELS or PROFILES). What follows from the catalogue of events is derived from it: who is bound
to what, who may publish what, which collections a service's database user may touch.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import amqp
from kombu.connection import Connection

from services.grid.clock import monotonic
from services.grid.events import EventType, of_consumer, of_producer
from services.grid.profile import ProfileError, load

EVENTS = "huashi.events"
INBOUND = "huashi.inbound"
REPLIES = "huashi.replies"
REPLAYS = "huashi.replays"
"""By which intake sends one system's queue once more what it has lost: `<system>.<event's key>`."""
DEAD = "huashi.dead"
UNWANTED = "huashi.unwanted"
PARKED_QUEUE = "huashi.parked"
ADMINISTRATOR = "topology"
PROVISIONER = "provisioner"
"""Who makes the broker users and queues of other systems; the password is an operator's."""
RPC = "nameko-rpc"

SERVES: dict[str, tuple[str, ...]] = {
    "intake": (
        *("open_cases", "cases_of", "happened"),
        *("watch", "unwatch", "link", "unlink"),
    ),
    "dispatch": ("live_entries", "entries_of", "calls_of"),
    "escalation": ("supervise", "merge"),
}
"""Which methods a service answers by nameko RPC."""
CALLERS: dict[str, tuple[str, ...]] = {
    "escalation": ("open_cases", "cases_of", "live_entries", "entries_of", "calls_of"),
    "notify": ("happened",),
    "dispatch": ("supervise", "merge", "watch", "unwatch", "link", "unlink"),
}
"""Who may call which of them."""
ANSWER_SECONDS = 5.0
"""So long a question waits for its answer; one that nobody took by then is forgotten."""

COLLECTIONS: dict[str, tuple[str, ...]] = {
    "intake": (
        *("register", "timeline", "happenings", "reporters"),
        *("directory", "systems", "rejected", "sensors"),
    ),
    "dispatch": ("docket_{level}", "directory_{level}"),
    "escalation": ("custody", "custodians", "directory_escalation"),
    "notify": (
        *("notifications", "contacts", "subscriptions", "subscribers", "outbox"),
        "directory_notify",
    ),
}
"""What each service owns in MongoDB; no other user reads it."""

AUDIT_INDEXES: tuple[list[tuple[str, int]], ...] = (
    [("at", -1), ("_id", -1)],
    [("who", 1), ("at", -1), ("_id", -1)],
    [("cases", 1), ("at", -1), ("_id", -1)],
)
"""By what audit entries are looked up.

Who administers the database makes these indexes: a service that could might let entries expire.
"""

FRONT_DOOR = "intake"
"""The service that reads what other systems send, and answers them."""
SYSTEM_NAME = "[a-z][a-z0-9_]{0,39}"
"""The pattern of a system's name: one word of a routing key."""
_QUEUES_OF_SYSTEMS = f"^(intake\\.(inbound|lost)|system\\.{SYSTEM_NAME})\\.[a-z0-9_]+$"

_BOUND_BY_PROVISIONER = (INBOUND, REPLIES, EVENTS, REPLAYS, DEAD)

DELIVERY_LIMIT = 50
_RECOVERY_SECONDS = 30.0
_UNWANTED_BYTES = 256 * 1024 * 1024
_SEGMENT_BYTES = 16 * 1024 * 1024
# Answers are addressed by the random number of the queue that waits for them.
_UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class TopologyError(RuntimeError):
    """The topology could not be declared; says why and what to do."""


@dataclass(frozen=True)
class Instance:
    """One service, or one level's desk: a process, a broker user and a database user.

    ``queues`` maps a purpose (``events``, ``directory``) to the queue's name; ``audit`` is the
    collection of its audit trail, which it may only add to.
    """

    name: str
    service: str
    level: str
    queues: Mapping[str, str]
    collections: tuple[str, ...]
    audit: str


def instance(service: str, level: str = "") -> Instance:
    """The instance of a service, for dispatch that of a level."""
    prefix = f"{service}.{level}" if level else service
    return Instance(
        name=f"{service}-{level}" if level else service,
        service=service,
        level=level,
        queues={purpose: f"{prefix}.{purpose}" for purpose in ("events", "directory")},
        collections=tuple(name.format(level=level) for name in COLLECTIONS[service]),
        audit=f"audit_{service}_{level}" if level else f"audit_{service}",
    )


def instances(levels: Iterable[str]) -> list[Instance]:
    """All instances of a county with these levels."""
    desks = [instance("dispatch", level) for level in levels]
    return [instance("intake"), *desks, instance("escalation"), instance("notify")]


def users(levels: Iterable[str]) -> list[str]:
    """The broker's users: who declares, who makes other systems, and one for each instance."""
    return [ADMINISTRATOR, PROVISIONER, *(owner.name for owner in instances(levels))]


def again(queue: str) -> str:
    """The queue in which a letter that died of the delivery limit is tried once more, alone."""
    return f"{queue}.again"


def rpc_queue(name: str) -> str:
    """The queue of the questions that the instance of this name answers."""
    return f"rpc-{name}"


def bindings(owner: Instance) -> list[tuple[str, str]]:
    """What an instance reads: pairs of queue and binding key on ``huashi.events``."""
    return [_binding(owner, kind) for kind in of_consumer(owner.service)]


def declare(uri: str, levels: Sequence[str]) -> None:
    """Declares everything; to do it again changes nothing.

    A queue whose node has just been started may not be back yet: it is waited for.

    :raises TopologyError: the broker refuses it, or a queue exists with other arguments.
    """
    until = monotonic() + _RECOVERY_SECONDS
    while True:
        try:
            _declare_all(uri, levels)
        except _Recovering as error:
            if monotonic() > until:
                raise TopologyError(f"the topology could not be declared: {error}") from error
            time.sleep(0.5)
        else:
            return


class _Recovering(Exception):
    """The broker knows a queue, but has not brought it back yet."""


def _declare_all(uri: str, levels: Sequence[str]) -> None:
    with Connection(uri, connect_timeout=10) as connection:
        try:
            channel = connection.default_channel
            _declare_unwanted(channel)
            for exchange in (INBOUND, REPLIES, REPLAYS, DEAD):
                _exchange(channel, exchange, "topic")
            _exchange(channel, EVENTS, "topic", {"alternate-exchange": UNWANTED})
            _queue(channel, PARKED_QUEUE, {"x-queue-type": "quorum"})
            channel.queue_bind(PARKED_QUEUE, DEAD, "parked.#")
            _exchange(channel, RPC, "topic")
            for owner in instances(levels):
                _declare_queues(channel, owner)
                if owner.service in SERVES:
                    _declare_rpc(channel, owner)
        except amqp.exceptions.PreconditionFailed as error:
            raise TopologyError(
                f"{error.reply_text}: it was declared by another version. Let the services "
                "drain it, delete it, and run this step again"
            ) from error
        except (OSError, amqp.exceptions.AMQPError) as error:
            if "is down or inaccessible" in str(error):
                raise _Recovering(str(error)) from error
            raise TopologyError(f"the topology could not be declared: {error}") from error


def broker_definitions(
    levels: Sequence[str], passwords: Mapping[str, str], vhost: str = "/"
) -> dict[str, Any]:
    """RabbitMQ definitions with a user for each instance and one that may declare.

    :param passwords: by instance name, and for ``topology``.
    """
    owners = instances(levels)
    events = [
        {
            "user": owner.name,
            "vhost": vhost,
            "exchange": EVENTS,
            "write": _publishes(owner),
            "read": "^$",
        }
        for owner in owners
    ]
    dead = [
        {
            "user": owner.name,
            "vhost": vhost,
            "exchange": DEAD,
            "write": f"^(parked|again)\\.({_alternatives(owner.queues.values())})$",
            "read": "^$",
        }
        for owner in owners
    ]
    rpc = [
        {
            "user": owner.name,
            "vhost": vhost,
            "exchange": RPC,
            "write": _asks_and_answers(owner, owners),
            # Who waits for answers binds its own queue, by its own number.
            "read": f"^{_UUID}$" if owner.service in CALLERS else "^$",
        }
        for owner in owners
        if owner.service in SERVES or owner.service in CALLERS
    ]
    replies = {
        "user": FRONT_DOOR,
        "vhost": vhost,
        "exchange": REPLIES,
        "write": f"^{SYSTEM_NAME}\\.(accepted|rejected|status|lost)$",
        "read": "^$",
    }
    replays = {
        "user": FRONT_DOOR,
        "vhost": vhost,
        "exchange": REPLAYS,
        "write": f"^{SYSTEM_NAME}\\.case\\.",
        "read": "^$",
    }
    return {
        "vhosts": [{"name": vhost}],
        "users": [
            *(
                user(name, passwords[name])
                for name in (ADMINISTRATOR, *(owner.name for owner in owners))
            ),
            {**user(PROVISIONER, passwords[PROVISIONER]), "tags": "administrator"},
        ],
        "permissions": [
            {
                "user": ADMINISTRATOR,
                "vhost": vhost,
                "configure": ".*",
                "write": ".*",
                # A queue with a dead letter exchange is declared only by who may read it.
                "read": ".*",
            },
            {
                "user": PROVISIONER,
                "vhost": vhost,
                "configure": _QUEUES_OF_SYSTEMS,
                # A queue with dead letters is made by who may write them.
                "write": f"({_QUEUES_OF_SYSTEMS})|^({_alternatives([DEAD])})$",
                # To make a queue with dead letters is to read it, to bind it to read the exchange.
                "read": f"({_QUEUES_OF_SYSTEMS})|^({_alternatives(_BOUND_BY_PROVISIONER)})$",
            },
            *(
                {
                    "user": owner.name,
                    "vhost": vhost,
                    "configure": f"^{_replies(owner)}$",
                    "write": f"^({'|'.join(_writable(owner))})$",
                    "read": f"^({'|'.join(_readable(owner))})$",
                }
                for owner in owners
            ),
        ],
        "topic_permissions": [*events, *dead, *rpc, replies, replays],
    }


def user(name: str, password: str) -> dict[str, str]:
    """A user in RabbitMQ definitions; they hold a salted digest of the password only."""
    salt = secrets.token_bytes(4)
    digest = salt + hashlib.sha256(salt + password.encode()).digest()
    return {
        "name": name,
        "tags": "",
        "password_hash": base64.b64encode(digest).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
    }


def database_roles(
    levels: Sequence[str], database: str = "huashi"
) -> dict[str, list[dict[str, Any]]]:
    """MongoDB privileges for ``createRole``, by instance: its own collections, no deleting.

    Its audit trail it may add to and read.
    """
    actions = ["find", "insert", "update", "createIndex", "listIndexes"]

    def privilege(collection: str, allowed: list[str]) -> dict[str, Any]:
        return {"resource": {"db": database, "collection": collection}, "actions": allowed}

    return {
        owner.name: [
            *(privilege(name, actions) for name in owner.collections),
            privilege(owner.audit, ["find", "insert"]),
        ]
        for owner in instances(levels)
    }


def _binding(owner: Instance, kind: EventType) -> tuple[str, str]:
    purpose = "directory" if kind.name.startswith("directory.") else "events"
    # A desk hears of the cases addressed to its level, and of the whole directory.
    level = f".{owner.level}" if owner.level and kind.name.startswith("case.") else ""
    return owner.queues[purpose], f"{kind.name}{level}.#"


def _declare_unwanted(channel: Any) -> None:
    """Takes what merely nobody wanted, so that ``mandatory`` does not return it.

    A stream forgets the oldest by itself; a queue that nobody reads would grow.
    """
    _exchange(channel, UNWANTED, "fanout")
    _queue(
        channel,
        UNWANTED,
        {
            "x-queue-type": "stream",
            "x-max-length-bytes": _UNWANTED_BYTES,
            "x-stream-max-segment-size-bytes": _SEGMENT_BYTES,
        },
    )
    channel.queue_bind(UNWANTED, UNWANTED, "")


def _declare_queues(channel: Any, owner: Instance) -> None:
    for purpose, queue in owner.queues.items():
        # The custodian fires only what it has read up to: its queue has one reader at a time.
        single = owner.service == "escalation" and purpose == "events"
        _work_queue(channel, queue, f"again.{queue}", single=single)
        _work_queue(channel, again(queue), f"parked.{queue}", single=False)
        channel.queue_bind(again(queue), DEAD, f"again.{queue}")
    for queue, key in bindings(owner):
        channel.queue_bind(queue, EVENTS, key)


def _declare_rpc(channel: Any, owner: Instance) -> None:
    """Questions are asked again anyway: none is kept for longer than somebody waits for it."""
    queue = rpc_queue(owner.name)
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": 3,
        "x-message-ttl": int(ANSWER_SECONDS * 1000),
    }
    _queue(channel, queue, arguments)
    for method in SERVES[owner.service]:
        channel.queue_bind(queue, RPC, f"{owner.name}.{method}.#")


def _work_queue(channel: Any, queue: str, dead_key: str, *, single: bool) -> None:
    arguments = work_queue(dead_key)
    if single:
        arguments["x-single-active-consumer"] = True
    _queue(channel, queue, arguments)


def work_queue(dead_key: str) -> dict[str, Any]:
    """The arguments of a queue whose messages are worked on; ``dead_key`` is for what dies."""
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": DEAD,
        "x-dead-letter-routing-key": dead_key,
        "x-dead-letter-strategy": "at-least-once",
        # Without it at-least-once falls back to at-most-once silently.
        "x-overflow": "reject-publish",
    }


def _exchange(
    channel: Any, exchange: str, kind: str, arguments: Mapping[str, Any] | None = None
) -> None:
    channel.exchange_declare(
        exchange, kind, durable=True, auto_delete=False, arguments=dict(arguments or {})
    )


def _queue(channel: Any, queue: str, arguments: Mapping[str, Any]) -> None:
    channel.queue_declare(queue, durable=True, auto_delete=False, arguments=dict(arguments))


def _readable(owner: Instance) -> list[str]:
    """Patterns of what it may read: its queues; who asks, also what is answered."""
    queues = [name for queue in owner.queues.values() for name in (queue, again(queue))]
    if owner.service in SERVES:
        queues.append(rpc_queue(owner.name))
    asks = [_alternatives([RPC]), _replies(owner)] if owner.service in CALLERS else []
    doors = [f"intake\\.(inbound|lost)\\.{SYSTEM_NAME}"] if owner.service == FRONT_DOOR else []
    return [_alternatives(queues), *asks, *doors]


def _writable(owner: Instance) -> list[str]:
    exchanges = [EVENTS, DEAD]
    if owner.service in SERVES or owner.service in CALLERS:
        exchanges.append(RPC)
    if owner.service == FRONT_DOOR:
        exchanges += [REPLIES, REPLAYS]
    # To bind a queue is to write to it.
    return [_alternatives(exchanges), *filter(None, [_replies(owner)])]


def _replies(owner: Instance) -> str:
    """The pattern of the queues that it makes to wait for answers; empty if it never asks."""
    return f"rpc\\.reply-{owner.name}-{_UUID}" if owner.service in CALLERS else ""


def _asks_and_answers(asker: Instance, owners: Iterable[Instance]) -> str:
    """A pattern of everything that somebody may ask of anybody, and of what answers go to.

    A desk says of which level it is, and can't say another.
    """
    level = f".{asker.level}" if asker.level else ""
    words = [
        f"{owner.name}.{name}{level}"
        for owner in owners
        for name in SERVES.get(owner.service, ())
        if name in CALLERS.get(asker.service, ())
    ]
    asks = [_alternatives(words)] if words else []
    answers = [_UUID] if asker.service in SERVES else []
    return f"^({'|'.join([*asks, *answers])})$"


def _publishes(owner: Instance) -> str:
    """A desk publishes about cases for its own level only, but for what crosses levels."""
    words = []
    for kind in of_producer(owner.service):
        own = owner.level and kind.name.startswith("case.") and not kind.crosses
        level = f".{owner.level}" if own else ""
        words.append(f"{kind.name}{level}")
    return f"^({_alternatives(words)})(\\.|$)"


def _alternatives(words: Iterable[str]) -> str:
    return "|".join(re.escape(word).replace("\\-", "-") for word in words)


def _levels(environment: Mapping[str, str]) -> list[str]:
    if environment.get("LEVELS"):
        return [level.strip() for level in environment["LEVELS"].split(",")]
    folders = [Path(folder.strip()) for folder in environment.get("PROFILES", "").split(",")]
    found = [level for folder in folders for level in load(folder).levels]
    return list(dict.fromkeys(found))


def main() -> int:
    """The topology step; exit code 2 if the configuration is wrong, 1 if it failed."""
    uri = os.environ.get("AMQP_URI")
    if not uri or not (os.environ.get("LEVELS") or os.environ.get("PROFILES")):
        sys.stderr.write("set AMQP_URI, and LEVELS (household,group) or PROFILES (folders)\n")
        return 2
    try:
        declare(uri, _levels(os.environ))
    except ProfileError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except TopologyError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
