"""Makes what the manifests do not hold: users, their rights, passwords and keys.

``python -m deploy.kubernetes.credentials PROFILES AMQP MONGODB FOLDER`` writes five files that
only their owner may read:

- ``rabbitmq-definitions.json``, to be imported into RabbitMQ (``rabbitmqctl import_definitions``);
- ``mongodb-users.js``, to be run by an administrator (``mongosh URI mongodb-users.js``);
- ``mongodb-rights.js``, to be run the same way, also when users are there already: the rights of
  each service as they are now, and the indexes of the audit trails;
- ``provisioner-password``, with which ``huashi system`` makes users and queues of other systems:
  no pod has it;
- ``secrets.yaml``, for ``kubectl apply -f``: one Secret for each instance, so that a pod has
  just its own passwords.

It never writes over what is there: passwords that are in use are not lost by mistake.
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import yaml

from services.bus import topology
from services.bus.sealing import new_key
from services.grid.profile import ProfileError, load

NAMESPACE = "huashi"
_USAGE = (
    "usage: python -m deploy.kubernetes.credentials PROFILES AMQP MONGODB FOLDER\n"
    "such as: profiles/qionghai amqp://rabbitmq:5672/huashi "
    "mongodb://mongodb:27017/huashi?replicaSet=rs0 credentials\n"
)


def files(levels: list[str], amqp: str, mongodb: str) -> dict[str, str]:
    """The five files by name.

    :param amqp: the broker's URI without a user; its path is the vhost.
    :param mongodb: the database's URI without a user; its path is the database.
    """
    owners = topology.instances(levels)
    passwords = {name: secrets.token_urlsafe(32) for name in topology.users(levels)}
    vhost = urlsplit(amqp).path.removeprefix("/") or "/"
    database = urlsplit(mongodb).path.removeprefix("/")
    documents = [
        _secret(
            "huashi-topology",
            {"AMQP_URI": _with_user(amqp, topology.ADMINISTRATOR, passwords)},
        ),
    ]
    for owner in owners:
        values = {
            "AMQP_URI": _with_user(amqp, owner.name, passwords),
            "MONGODB_URI": _with_user(mongodb, owner.name, passwords),
        }
        if owner.service in ("intake", "notify"):
            # Each its own: what one seals the other can't open.
            values["SEAL_KEY"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
            values["UNSEAL_KEYS"] = new_key()
        documents.append(_secret(f"huashi-{owner.name}", values))
    definitions = topology.broker_definitions(levels, passwords, vhost)
    return {
        "rabbitmq-definitions.json": json.dumps(definitions, indent=2),
        "provisioner-password": passwords[topology.PROVISIONER],
        "mongodb-users.js": _mongodb_users(levels, database, passwords),
        "mongodb-rights.js": _mongodb_rights(levels, database),
        "secrets.yaml": yaml.safe_dump_all(documents, sort_keys=False),
    }


def _mongodb_users(levels: list[str], database: str, passwords: dict[str, str]) -> str:
    lines = [f"db = db.getSiblingDB({json.dumps(database)});"]
    for name, privileges in topology.database_roles(levels, database).items():
        role = {"role": name, "privileges": privileges, "roles": []}
        user = {"user": name, "pwd": passwords[name], "roles": [name]}
        lines += [f"db.createRole({json.dumps(role)});", f"db.createUser({json.dumps(user)});"]
    return "\n".join(lines) + "\n"


def _mongodb_rights(levels: list[str], database: str) -> str:
    lines = [f"db = db.getSiblingDB({json.dumps(database)});"]
    for name, privileges in topology.database_roles(levels, database).items():
        role = json.dumps({"privileges": privileges, "roles": []})
        lines.append(f"db.updateRole({json.dumps(name)}, {role});")
    for owner in topology.instances(levels):
        # The services may only add to their trails: the indexes are made for them.
        lines += [
            f"db.getCollection({json.dumps(owner.audit)}).createIndex({json.dumps(dict(keys))});"
            for keys in topology.AUDIT_INDEXES
        ]
    return "\n".join(lines) + "\n"


def _secret(name: str, values: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "type": "Opaque",
        "stringData": values,
    }


def _with_user(uri: str, name: str, passwords: dict[str, str]) -> str:
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=f"{name}:{passwords[name]}@{parts.netloc}"))


def main(arguments: list[str]) -> int:
    """Exit codes: 0 done, 1 something is there already, 2 the arguments are wrong."""
    if len(arguments) != 4:
        sys.stderr.write(_USAGE)
        return 2
    names, amqp, mongodb, target = arguments
    if urlsplit(amqp).scheme not in ("amqp", "amqps") or len(urlsplit(mongodb).path) < 2:
        sys.stderr.write(_USAGE)
        return 2
    try:
        profiles = [load(Path(name)) for name in names.split(",")]
    except ProfileError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    folder = Path(target)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        sys.stderr.write(f"{folder} is there already: name a folder that is not\n")
        return 1
    levels = list(dict.fromkeys(level for profile in profiles for level in profile.levels))
    for name, text in files(levels, amqp, mongodb).items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
