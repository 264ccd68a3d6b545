"""A broker and a database for one measure."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.local.processes import end, free_ports, of_folder
from deploy.local.servers import MongoDB, RabbitMQ
from services.bus import topology


@contextmanager
def servers(*levels: str) -> Iterator[tuple[str, str]]:
    """A broker with the topology of these levels, and a database, in a folder of their own.

    Yields how to reach them as somebody who may do everything.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            yield _started(folder, levels)
        finally:
            end(of_folder(folder))


def _started(folder: Path, levels: Sequence[str]) -> tuple[str, str]:
    names = topology.users(levels)
    passwords = {name: secrets.token_hex(16) for name in [*names, "bench"]}
    definitions = topology.broker_definitions(levels, passwords)
    definitions["users"].append(topology.user("bench", passwords["bench"]))
    definitions["permissions"].append(
        {"user": "bench", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    )
    rabbitmq = RabbitMQ(folder / "rabbitmq", *free_ports(3), folder)
    rabbitmq.prepare(definitions)
    # As in production, where the open cases fit into memory: by default half of the machine's.
    mongodb = MongoDB(folder / "mongodb", free_ports(1)[0], folder, cache_gb=4)
    mongodb.prepare()
    for server in (rabbitmq, mongodb):
        with (folder / "log").open("ab") as log:
            subprocess.Popen(
                server.command,
                env={**os.environ, **server.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    amqp = rabbitmq.uri("bench", passwords["bench"])
    rabbitmq.wait(amqp)
    mongodb.wait(passwords["bench"])
    topology.declare(amqp, levels)
    return amqp, mongodb.uri("root", passwords["bench"], "bench", "admin")
