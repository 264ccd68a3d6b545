"""Real servers for the tests: started once a session on free ports, in a temporary folder."""

from __future__ import annotations

import os
import secrets
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pymongo import MongoClient

from deploy.local.processes import MARK, free_ports, of_folder
from deploy.local.servers import MongoDB, RabbitMQ
from deploy.local.stack import Stack
from services.bus import topology
from services.grid.clock import FrozenClock
from tests.end_to_end.county import QUICK, County

LEVELS = ("household", "group", "village", "township")
_HERE = Path(__file__).parent
_LONGEST_FIRST = ("simulator", "end_to_end", "integration", "contract", "property", "unit")

# Some two hundred services are started from the same sources: they are compiled once, also where
# the environment (as that of many a container) says that nobody keeps what he compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first: ``make test`` hands out file by file to two processes.

    The longest file of all is the simulator's: begun last, one process would end long after the
    other. And begun first, it has no stack of its process beside it.
    """
    place = {folder: number for number, folder in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.relative_to(_HERE).parts[0], 0))


def kill(folder: Path) -> None:
    """Ends the servers and stacks of a folder as a power failure would."""
    while processes := of_folder(folder):
        # The supervisor would start the others again.
        for process in sorted(processes, key=lambda each: each.create_time()):
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=10)


@dataclass
class Server:
    """A server process of the test session, that a test may kill and start again."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    wait: Callable[[], None]
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait()

    def kill(self) -> None:
        """As a power failure would."""
        kill(Path(self.environment[MARK]))
        assert self.process is not None
        self.process.wait()


@dataclass
class Broker:
    """RabbitMQ, with a user ``test`` who may do everything, and the users of the services."""

    node: RabbitMQ
    server: Server
    passwords: dict[str, str]

    def uri(self, user: str = "test", vhost: str = "/") -> str:
        return self.node.uri(user, self.passwords[user], vhost)


@dataclass
class Database:
    """MongoDB, with the user ``root``."""

    node: MongoDB
    server: Server
    password: str

    def uri(self, database: str = "") -> str:
        return self.node.uri("root", self.password, database, "admin")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("broker")
    names = topology.users(LEVELS)
    passwords = {name: secrets.token_hex(16) for name in [*names, "test"]}
    definitions = topology.broker_definitions(LEVELS, passwords)
    definitions["users"].append(
        {**topology.user("test", passwords["test"]), "tags": "administrator"}
    )
    definitions["permissions"].append(
        {"user": "test", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    )
    ports = free_ports(4)
    node = RabbitMQ(folder / "rabbitmq", *ports[:3], folder, ports[3])
    node.prepare(definitions)
    uri = node.uri("test", passwords["test"])
    server = Server(node.command, node.environment, folder / "log", lambda: node.wait(uri))
    server.start()
    yield Broker(node, server, passwords)
    server.kill()


@pytest.fixture
def vhost_uri(broker: Broker) -> str:
    """A virtual host in which nothing is declared yet; who makes one may do everything in it."""
    name = f"test_{uuid.uuid4().hex}"
    management = broker.node.management("test", broker.passwords["test"])
    httpx.put(f"{management}/api/vhosts/{name}").raise_for_status()
    return broker.uri(vhost=name)


@pytest.fixture(scope="session")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    folder = tmp_path_factory.mktemp("mongo")
    password = secrets.token_hex(16)
    node = MongoDB(folder / "mongodb", free_ports(1)[0], folder)
    node.prepare()
    server = Server(node.command, node.environment, folder / "log", lambda: node.wait(password))
    server.start()
    yield Database(node, server, password)
    server.kill()


@pytest.fixture
def database(mongo: Database) -> Iterator[Any]:
    """A database of its own for each test."""
    with MongoClient[dict[str, Any]](mongo.uri()) as client:
        name = f"test-{uuid.uuid4().hex}"
        yield client[name]
        client.drop_database(name)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@contextmanager
def _stacks(factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stack]]:
    """Makes whole local stacks, each in a folder of its own, and ends them at last."""
    made: list[Stack] = []

    def make(**environment: str) -> Stack:
        stack = Stack(factory.mktemp("run"), {"LOG_LEVEL": "info", **environment})
        made.append(stack)
        stack.up()
        return stack

    try:
        yield make
    finally:
        for stack in made:
            kill(stack.folder)


@pytest.fixture(scope="module")
def make_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stack]]:
    """Stacks that a module needs for itself: they end with it, for they share two cores."""
    with _stacks(tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="module")
def own_county(make_stack: Callable[..., Stack]) -> County:
    """The same for a module that reports hundreds: they climb, and are supervised for ever."""
    return County(make_stack(PROFILES=QUICK, TIME_SCALE="600"))


@pytest.fixture(scope="session")
def county(tmp_path_factory: pytest.TempPathFactory) -> Iterator[County]:
    """A stack with ten minutes of deadlines in a second: an hour is six seconds."""
    with _stacks(tmp_path_factory) as make:
        yield County(make(PROFILES=QUICK, TIME_SCALE="600"))
