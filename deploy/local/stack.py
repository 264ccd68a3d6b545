"""The whole stack in one folder: servers, topology, services, and what there is to know of it."""

from __future__ import annotations

import base64
import configparser
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil
from pymongo import MongoClient

from deploy.local.processes import (
    MARK,
    StackError,
    end,
    free_ports,
    listening,
    of_folder,
    wait_until,
)
from deploy.local.servers import MongoDB, RabbitMQ
from services.bus import auth, topology
from services.bus.sealing import new_key
from services.grid.clock import ScaledClock, instant, monotonic
from services.grid.profile import Profile, ProfileError, load
from services.grid.scope import WHOLE, Scope

ROOT = Path(__file__).resolve().parents[2]
DATABASE = "huashi"
_SERVICES = "services"
_READY_SECONDS = 120.0
_TOKEN_SECONDS = 30 * 86400.0
_TAIL_LINES = 25
# What services are told of the environment, by how its names begin.
_PASSED_ON = ("LOG_LEVEL", "BATCH_", "STOP_SECONDS", "RECONCILE_", "TRUSTED_PROXIES", "WEBHOOK_")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Replica:
    """One service process; ``name`` is what the supervisor calls it."""

    name: str
    instance: topology.Instance
    port: int


class Stack:
    """The stack of one run folder.

    :param folder: everything is written there.
    :param environment: PROFILES, TIME_SCALE, TIME_ANCHOR, AMQP_URI, MONGODB_URI, KEEP and
        REPLICAS_<SERVICE>, as in ``docs/operating/local-stack.md``.
    :param say: told what is being done.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], say: Say = lambda _line: None
    ) -> None:
        self.folder = folder.resolve()
        self._environment = environment
        self._say = say

    @property
    def description(self) -> Path:
        """``stack.json``: how to reach everything."""
        return self.folder / "stack.json"

    def is_running(self) -> bool:
        """Whether its supervisor lives and it came up completely."""
        return self.description.exists() and self._supervisor_answers()

    def up(self) -> dict[str, Any]:
        """Starts everything and returns what ``stack.json`` says, once all are ready.

        :raises StackError: something did not start; what had started is ended again.
        """
        if self.is_running():
            self._say(f"already running: {self.description}")
            found: dict[str, Any] = json.loads(self.description.read_text())
            self._same(found)
            return found
        self._clean()
        try:
            return self._up()
        except BaseException:
            self.down()
            raise

    def _same(self, running: Mapping[str, Any]) -> None:
        """That what is asked for is what is running.

        :raises StackError: it is not.
        """
        asked = self._environment
        profiles = [profile.name for profile in self._profiles()] if asked.get("PROFILES") else []
        scale = asked.get("TIME_SCALE")
        wrong = []
        if profiles and profiles != running["profiles"]:
            wrong.append(f"PROFILES {','.join(running['profiles'])}")
        if scale and float(scale) != running["clock"]["scale"]:
            wrong.append(f"TIME_SCALE {running['clock']['scale']:g}")
        if wrong:
            raise StackError(f"it is running with {' and '.join(wrong)}: end it first (make down)")

    def down(self) -> None:
        """Ends what this folder's stack started, also what a crash left, and nothing else."""
        self.description.unlink(missing_ok=True)
        if self._supervisor_answers():
            # All services at once; the supervisor by itself would end one after the other.
            self.control("stop", f"{_SERVICES}:*")
        processes = of_folder(self.folder)
        supervisors = [each for each in processes if "supervisord" in " ".join(_command(each))]
        # The supervisor first: it stops its children in order, and starts none again.
        end(supervisors)
        end(of_folder(self.folder))

    def control(self, *arguments: str) -> str:
        """Runs ``supervisorctl``; returns what it says."""
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisorctl", "-c", self._config, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def pid(self, name: str) -> int:
        """The process id of one program, such as ``escalation`` or ``rabbitmq``."""
        return int(self.control("pid", self._program_name(name)).strip())

    def stop(self, name: str) -> None:
        """Ends one program, which then stays down."""
        self.control("stop", self._program_name(name))

    def start(self, name: str) -> None:
        """Starts one program that was stopped."""
        self.control("start", self._program_name(name))

    @staticmethod
    def _program_name(name: str) -> str:
        return name if name in ("rabbitmq", "mongodb") else f"{_SERVICES}:{name}"

    @property
    def _config(self) -> Path:
        return self.folder / "supervisord.conf"

    def _supervisor_answers(self) -> bool:
        return self._config.exists() and self.control("pid").strip().isdigit()

    def _clean(self) -> None:
        left = of_folder(self.folder)
        if left:
            self._say(f"ending {len(left)} processes that an earlier crash left")
            self.down()
        if self._environment.get("KEEP") != "1":
            for name in ("rabbitmq", "mongodb", "logs", "secrets.json", "ports.json"):
                path = self.folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for name in ("stack.json", "supervisord.conf", "s.sock"):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)

    def _up(self) -> dict[str, Any]:
        profiles = self._profiles()
        levels = list(dict.fromkeys(level for profile in profiles for level in profile.levels))
        replicas = self._replicas(levels)
        users = [
            topology.ADMINISTRATOR,
            topology.PROVISIONER,
            "root",
            *(each.instance.name for each in replicas),
        ]
        known = self._secrets(users)
        clock = self._clock()
        port, distribution, names, database, management = self._server_ports()
        folder = self.folder / "rabbitmq"
        rabbitmq = RabbitMQ(folder, port, distribution, names, self.folder, management)
        mongodb = MongoDB(self.folder / "mongodb", database, self.folder)
        uris = self._uris(rabbitmq, mongodb, known, replicas)
        servers = self._prepare_servers(rabbitmq, mongodb, levels, known)
        self._write_config(servers, replicas, uris, known, clock)
        with self._telling("supervisor"):
            self._start_supervisor()
        if "rabbitmq" in servers:
            with self._telling("RabbitMQ"):
                rabbitmq.wait(uris["amqp"])
        if "mongodb" in servers:
            with self._telling("MongoDB"):
                mongodb.wait(known["root"])
                roles = topology.database_roles(levels, DATABASE)
                mongodb.grant(known["root"], DATABASE, roles, known)
        index_audit_trails(uris["mongodb"], levels)
        with self._telling("topology"):
            self._declare(uris["amqp"], levels)
        with self._telling(f"{len(replicas)} services"):
            self.control("start", f"{_SERVICES}:*")
            self._await_ready(replicas)
        description = self._describe(profiles, replicas, uris, known, clock)
        self.description.touch(mode=0o600)
        self.description.write_text(json.dumps(description, indent=2, ensure_ascii=False))
        return description

    @staticmethod
    def _declare(uri: str, levels: Sequence[str]) -> None:
        try:
            topology.declare(uri, levels)
        except topology.TopologyError as error:
            raise StackError(str(error)) from error

    def _profiles(self) -> list[Profile]:
        names = self._environment.get("PROFILES") or str(ROOT / "profiles" / "qionghai")
        try:
            return [load(Path(name.strip())) for name in names.split(",")]
        except ProfileError as error:
            raise StackError(str(error)) from error

    def _folders(self) -> str:
        names = self._environment.get("PROFILES") or str(ROOT / "profiles" / "qionghai")
        return ",".join(str(Path(name.strip()).resolve()) for name in names.split(","))

    def _replicas(self, levels: Sequence[str]) -> list[Replica]:
        wanted: list[tuple[str, topology.Instance]] = []
        for owner in topology.instances(levels):
            variable = f"REPLICAS_{owner.service.upper()}"
            text = self._environment.get(variable, "1")
            if not text.isdigit() or not 1 <= int(text) <= 20:
                raise StackError(f"{variable} is {text!r}: write a whole number from 1 to 20")
            for number in range(1, int(text) + 1):
                suffix = f"-{number}" if number > 1 else ""
                wanted.append((f"{owner.name}{suffix}", owner))
        ports = free_ports(len(wanted))
        return [
            Replica(name, owner, port) for (name, owner), port in zip(wanted, ports, strict=True)
        ]

    def _server_ports(self) -> list[int]:
        """Five ports for the servers; data that was kept knows them by the ones it had."""
        path = self.folder / "ports.json"
        ports: list[int] = json.loads(path.read_text()) if path.exists() else []
        if len(ports) < 5:
            ports += free_ports(5 - len(ports))
            path.write_text(json.dumps(ports))
        return ports

    def _clock(self) -> ScaledClock:
        now = ScaledClock().now()
        anchored = {"TIME_ANCHOR": f"{now}/{now}", **_given(self._environment, "TIME_")}
        try:
            return ScaledClock.from_environment(anchored)
        except ValueError as error:
            raise StackError(str(error)) from error

    def _secrets(self, names: Sequence[str]) -> dict[str, str]:
        """A password for each user and the keys; made once, kept in the folder."""
        path = self.folder / "secrets.json"
        known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        for name in (*names, "TOKEN_KEY"):
            known.setdefault(name, secrets.token_hex(24))
        for name in ("SEAL_KEY", "NOTIFY_SEAL_KEY"):
            seal = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
            known.setdefault(name, seal)
        known.setdefault("UNSEAL_KEYS", new_key())
        path.touch(mode=0o600)
        path.write_text(json.dumps(known))
        return known

    def _uris(
        self,
        rabbitmq: RabbitMQ,
        mongodb: MongoDB,
        known: Mapping[str, str],
        replicas: Sequence[Replica],
    ) -> dict[str, str]:
        """``amqp`` and ``mongodb`` for the administrator, and ``amqp:<instance>`` and so on."""
        amqp, mongo = self._environment.get("AMQP_URI"), self._environment.get("MONGODB_URI")
        uris = {
            "amqp": amqp or rabbitmq.uri(topology.ADMINISTRATOR, known[topology.ADMINISTRATOR]),
            "mongodb": mongo or mongodb.uri("root", known["root"], DATABASE, "admin"),
        }
        if not amqp:
            password = known[topology.PROVISIONER]
            uris["broker"] = rabbitmq.management(topology.PROVISIONER, password)
        for name in {replica.instance.name for replica in replicas}:
            uris[f"amqp:{name}"] = amqp or rabbitmq.uri(name, known[name])
            uris[f"mongodb:{name}"] = mongo or mongodb.uri(name, known[name], DATABASE)
        return uris

    def _prepare_servers(
        self,
        rabbitmq: RabbitMQ,
        mongodb: MongoDB,
        levels: Sequence[str],
        known: Mapping[str, str],
    ) -> dict[str, tuple[list[str], dict[str, str]]]:
        servers = {}
        if not self._environment.get("AMQP_URI"):
            rabbitmq.prepare(topology.broker_definitions(levels, known))
            servers["rabbitmq"] = (rabbitmq.command, rabbitmq.environment)
        if not self._environment.get("MONGODB_URI"):
            mongodb.prepare()
            servers["mongodb"] = (mongodb.command, mongodb.environment)
        return servers

    def _write_config(
        self,
        servers: Mapping[str, tuple[list[str], dict[str, str]]],
        replicas: Sequence[Replica],
        uris: Mapping[str, str],
        known: Mapping[str, str],
        clock: ScaledClock,
    ) -> None:
        """The supervisor's configuration; it holds passwords, so only its owner may read it."""
        config = configparser.RawConfigParser()
        socket = self.folder / "s.sock"
        config["unix_http_server"] = {"file": str(socket), "chmod": "0600"}
        config["supervisord"] = {
            "logfile": str(self.folder / "logs" / "supervisord.log"),
            "pidfile": str(self.folder / "supervisord.pid"),
            "childlogdir": str(self.folder / "logs"),
            "directory": str(ROOT),
            "silent": "true",
        }
        config["rpcinterface:supervisor"] = {
            "supervisor.rpcinterface_factory": ("supervisor.rpcinterface:make_main_rpcinterface")
        }
        config["supervisorctl"] = {"serverurl": f"unix://{socket}"}
        config[f"group:{_SERVICES}"] = {
            "programs": ",".join(replica.name for replica in replicas),
            "priority": "20",
        }
        for name, (command, environment) in servers.items():
            config[f"program:{name}"] = self._program(name, command, environment, priority=10)
        for replica in replicas:
            owner = replica.instance
            environment = {
                MARK: str(self.folder),
                "PYTHONUNBUFFERED": "1",
                "AMQP_URI": uris[f"amqp:{owner.name}"],
                "MONGODB_URI": uris[f"mongodb:{owner.name}"],
                "HTTP_BIND": f"127.0.0.1:{replica.port}",
                "TIME_SCALE": f"{clock.scale:g}",
                "TIME_ANCHOR": f"{_text(clock.anchor_real)}/{_text(clock.anchor_virtual)}",
                "TOKEN_KEY": known["TOKEN_KEY"],
                **({"LEVEL": owner.level} if owner.level else {}),
                **_given(self._environment, *_PASSED_ON),
            }
            if owner.service == "intake":
                keys = {name: known[name] for name in ("SEAL_KEY", "UNSEAL_KEYS")}
                environment |= {**keys, "PROFILES": self._folders()}
            if owner.service == "notify":
                environment["NOTIFY_LOG"] = str(self.folder / "logs" / "notifications.jsonl")
                environment["SEAL_KEY"] = known["NOTIFY_SEAL_KEY"]
            command = [sys.executable, "-m", "services.bus.run", owner.service]
            config[f"program:{replica.name}"] = {
                **self._program(replica.name, command, environment, priority=20),
                "autostart": "false",
            }
        self._config.touch(mode=0o600)
        with self._config.open("w") as file:
            config.write(file)

    def _program(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], priority: int
    ) -> dict[str, str]:
        quoted = ",".join(f'{key}="{value}"' for key, value in environment.items())
        return {
            "command": " ".join(f'"{part}"' for part in command).replace("%", "%%"),
            "environment": quoted.replace("%", "%%"),
            "priority": str(priority),
            "autorestart": "true",
            # A service that was killed is back at once; one that can't start is not hidden.
            "startsecs": "0",
            "stopasgroup": "false",
            "killasgroup": "true",
            "stopwaitsecs": "30",
            "redirect_stderr": "true",
            "stdout_logfile": str(self.folder / "logs" / f"{name}.log"),
            "stdout_logfile_maxbytes": "20MB",
            "stdout_logfile_backups": "2",
        }

    def _start_supervisor(self) -> None:
        environment = {**os.environ, MARK: str(self.folder)}
        subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", self._config],
            check=True,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "logs" / "supervisord.err").open("w"),
        )
        wait_until("an answer of the supervisor", self._supervisor_answers, _READY_SECONDS)

    def _await_ready(self, replicas: Sequence[Replica]) -> None:
        waiting = {replica.name: replica for replica in replicas}

        def all_ready() -> bool:
            ready = [name for name, replica in waiting.items() if _is_ready(replica.port)]
            # Somebody else's service on the port would also say that it is ready. To know whose
            # it is takes a look at every process of the machine, which services that only just
            # start would have to wait for.
            ours = listening(self.folder) if ready else set()
            for name in ready:
                if waiting[name].port in ours:
                    del waiting[name]
            return not waiting

        try:
            wait_until("the readiness of all services", all_ready, _READY_SECONDS)
        except StackError as error:
            name = next(iter(waiting))
            tail = (self.folder / "logs" / f"{name}.log").read_text(errors="replace")
            lines = "\n".join(tail.splitlines()[-_TAIL_LINES:])
            raise StackError(
                f"{error}: {', '.join(waiting)}. The log of {name}:\n{lines}"
            ) from error

    def _describe(
        self,
        profiles: Sequence[Profile],
        replicas: Sequence[Replica],
        uris: Mapping[str, str],
        known: Mapping[str, str],
        clock: ScaledClock,
    ) -> dict[str, Any]:
        urls: dict[str, str] = {}
        for replica in replicas:
            urls.setdefault(replica.instance.name, f"http://127.0.0.1:{replica.port}")
        return {
            "profiles": [profile.name for profile in profiles],
            "intake": urls["intake"],
            "desks": {
                replica.instance.level: urls[replica.instance.name]
                for replica in replicas
                if replica.instance.level
            },
            "escalation": urls["escalation"],
            "notify": urls["notify"],
            "amqp": uris["amqp"],
            "mongodb": uris["mongodb"],
            "broker": uris.get("broker"),
            "tokens": _tokens(known["TOKEN_KEY"], profiles[0]),
            "clock": {
                "real": _text(clock.anchor_real),
                "virtual": _text(clock.anchor_virtual),
                "scale": clock.scale,
            },
        }

    def token(self, subject: str, role: str, scope: Scope) -> str:
        """A token that this stack's services believe.

        :raises StackError: there is no stack here, or a token like this is never believed.
        """
        path = self.folder / "secrets.json"
        if not path.exists():
            raise StackError(f"there is no stack in {self.folder}: make up starts one")
        key: str = json.loads(path.read_text())["TOKEN_KEY"]
        return _issued(key, subject, role, scope)

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        started = monotonic()
        yield
        self._say(f"{what} ready after {monotonic() - started:.1f} s")


def index_audit_trails(uri: str, levels: Sequence[str]) -> None:
    """Makes the indexes that the services have no right to make; again, it changes nothing."""
    with MongoClient[dict[str, Any]](uri) as client:
        database = client.get_default_database()
        for owner in topology.instances(levels):
            for keys in topology.AUDIT_INDEXES:
                database[owner.audit].create_index(keys)


def _tokens(key: str, profile: Profile) -> dict[str, str]:
    """A token for each role, and for an officer of each level, all for the profile's region.

    ``officer`` and ``lead`` are of its last level: they may act at every desk.
    """
    levels = profile.levels
    scoped = {
        **{role: (role, levels[-1]) for role in auth.SCOPED},
        **{f"officer:{level}": ("officer", level) for level in levels},
    }
    return {
        **{role: _issued(key, role, role, WHOLE) for role in ("operator", "auditor", "reporter")},
        **{
            name: _issued(key, name, role, Scope(profile.region, level))
            for name, (role, level) in scoped.items()
        },
    }


def _issued(key: str, subject: str, role: str, scope: Scope) -> str:
    try:
        return auth.issue(key, subject, role, ScaledClock().real(), _TOKEN_SECONDS, scope=scope)
    except auth.InvalidToken as error:
        raise StackError(str(error)) from error


def _given(environment: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if value and any(name.startswith(prefix) for prefix in prefixes)
    }


def _text(seconds: float) -> str:
    return instant(datetime.fromtimestamp(seconds, UTC))


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=3) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
