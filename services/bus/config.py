"""Configuration of a service process: read once from the environment, every problem at once."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from services.bus.auth import AUDIENCE, ISSUER
from services.bus.sealing import Unsealer
from services.grid.clock import ScaledClock

SERVICES = ("intake", "dispatch", "escalation", "notify")
LOG_LEVELS = ("debug", "info", "warning", "error")

_LEVEL = re.compile(r"[a-z][a-z0-9_]{0,39}")
_BIND = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<four>[A-Za-z0-9.-]+)):(?P<port>\d{1,5})")
_ORIGIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_SEALING = ("intake", "notify")
_UNSEAL_KEYS = 2
_KEY_LENGTH = 32
# Nobody is between us and a server on this machine.
_PLAIN = frozenset({("http", host) for host in ("127.0.0.1", "::1", "localhost")})

Network = IPv4Network | IPv6Network


class ConfigError(ValueError):
    """The environment can't be used; ``problems`` has one sentence for each variable."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Config:
    """What a process needs to know. Secrets are left out of its ``repr``.

    ``level`` is empty except for dispatch, ``profiles`` and ``unseal_keys`` except for intake,
    ``seal_key`` except for intake and notify, each with its own; ``notify_log`` is None except for
    notify. Of ``token_key`` and ``jwks_url`` one is empty. ``trusted_proxies`` are those whose
    X-Forwarded-For is believed. ``webhook_allow`` is what webhooks may reach besides public
    addresses, ``webhook_origin`` as whom they are sent, ``webhook_pause_seconds`` how long a sink
    takes nothing until it is paused, ``webhook_lease_seconds`` how long what a process has in hand
    is nobody else's.
    """

    service: str
    level: str
    amqp_uri: str = field(repr=False)
    mongodb_uri: str = field(repr=False)
    http_host: str
    http_port: int
    token_key: str = field(repr=False)
    jwks_url: str
    token_issuer: str
    token_audience: str
    trusted_proxies: tuple[Network, ...]
    seal_key: str = field(repr=False)
    unseal_keys: tuple[str, ...] = field(repr=False)
    profiles: tuple[Path, ...]
    notify_log: Path | None
    webhook_allow: tuple[Network, ...]
    webhook_origin: str
    webhook_pause_seconds: float
    webhook_lease_seconds: float
    log_level: str
    batch_size: int
    batch_linger: float
    stop_seconds: float
    reconcile_seconds: float
    clock: ScaledClock

    @property
    def instance(self) -> str:
        """``intake`` or ``dispatch-household``: also its user at the broker and database."""
        return f"{self.service}-{self.level}" if self.level else self.service

    @classmethod
    def from_environment(cls, service: str, environment: Mapping[str, str]) -> Config:
        """The configuration of ``service``.

        :raises ConfigError: naming every variable that is missing or wrong, and the cure. The
            values of secrets are never shown.
        """
        if service not in SERVICES:
            raise ConfigError([f"there is no service {service!r}: choose {', '.join(SERVICES)}"])
        reader = _Reader(environment)
        host, port = reader.bind("HTTP_BIND")
        jwks_url = reader.jwks_url("JWKS_URL", "TOKEN_KEY")
        config = cls(
            service=service,
            level=reader.level("LEVEL") if service == "dispatch" else "",
            amqp_uri=reader.amqp("AMQP_URI"),
            mongodb_uri=reader.mongodb("MONGODB_URI"),
            http_host=host,
            http_port=port,
            token_key="" if jwks_url else reader.token_key("TOKEN_KEY"),
            jwks_url=jwks_url,
            token_issuer=reader.named("TOKEN_ISSUER", "" if jwks_url else ISSUER),
            token_audience=reader.named("TOKEN_AUDIENCE", "" if jwks_url else AUDIENCE),
            trusted_proxies=reader.networks("TRUSTED_PROXIES"),
            seal_key=reader.seal_key("SEAL_KEY") if service in _SEALING else "",
            unseal_keys=reader.unseal_keys("UNSEAL_KEYS") if service == "intake" else (),
            profiles=reader.folders("PROFILES") if service == "intake" else (),
            notify_log=reader.file("NOTIFY_LOG") if service == "notify" else None,
            webhook_allow=reader.networks("WEBHOOK_ALLOW"),
            webhook_origin=reader.origin("WEBHOOK_ORIGIN", "huashi"),
            webhook_pause_seconds=reader.number("WEBHOOK_PAUSE_SECONDS", 14_400, 1, 30 * 86400),
            # A try takes ten seconds at most.
            webhook_lease_seconds=reader.number("WEBHOOK_LEASE_SECONDS", 60, 15, 3600),
            log_level=reader.one_of("LOG_LEVEL", LOG_LEVELS, "info"),
            batch_size=int(reader.number("BATCH_SIZE", 500, 1, 10_000, whole=True)),
            batch_linger=reader.number("BATCH_LINGER", 0.02, 0, 10),
            stop_seconds=reader.number("STOP_SECONDS", 20, 1, 600),
            reconcile_seconds=reader.number("RECONCILE_SECONDS", 600, 1, 7 * 86400),
            clock=reader.clock(),
        )
        if reader.problems:
            raise ConfigError(reader.problems)
        return config


class _Reader:
    """Reads variables and collects what is wrong with them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def _text(self, name: str, cure: str) -> str:
        value = self._environment.get(name, "").strip()
        if not value:
            self.problems.append(f"{name} is not set: {cure}")
        return value

    def _wrong(self, name: str, value: str, cure: str) -> None:
        self.problems.append(f"{name} is {value!r}: {cure}")

    def level(self, name: str) -> str:
        cure = "write the level that this desk serves, such as household"
        value = self._text(name, cure)
        if value and not _LEVEL.fullmatch(value):
            self._wrong(name, value, cure)
        return value

    def bind(self, name: str) -> tuple[str, int]:
        cure = "write host:port, such as 127.0.0.1:8001"
        value = self._text(name, cure)
        match = _BIND.fullmatch(value)
        if match and 0 < int(match["port"]) < 65536:
            return match["six"] or match["four"], int(match["port"])
        if value:
            self._wrong(name, value, cure)
        return "", 0

    def amqp(self, name: str) -> str:
        cure = "write amqp://user:password@host:port/vhost"
        return self._uri(name, ("amqp", "amqps"), cure)

    def mongodb(self, name: str) -> str:
        cure = "write mongodb://user:password@host:port/huashi?authSource=..."
        value = self._uri(name, ("mongodb", "mongodb+srv"), cure)
        if value and len(urlsplit(value).path) < 2:
            self.problems.append(f"{name} names no database: {cure}")
        return value

    def _uri(self, name: str, schemes: tuple[str, ...], cure: str) -> str:
        value = self._text(name, cure)
        # It holds a password, so the value itself is never repeated.
        try:
            parts = urlsplit(value)
            right = parts.scheme in schemes and bool(parts.netloc.rpartition("@")[2])
        except ValueError:
            right = False
        if value and not right:
            self.problems.append(f"{name} is not a URI of {' or '.join(schemes)}: {cure}")
        return value if right else ""

    def token_key(self, name: str) -> str:
        cure = (
            f"write a secret of at least {_KEY_LENGTH} characters, the same for all services, or "
            "set JWKS_URL instead"
        )
        value = self._text(name, cure)
        if value and len(value) < _KEY_LENGTH:
            self.problems.append(f"{name} has only {len(value)} characters: {cure}")
        return value

    def jwks_url(self, name: str, instead_of: str) -> str:
        value = self._environment.get(name, "").strip()
        try:
            parts = urlsplit(value)
            host = parts.hostname or ""
        except ValueError:
            parts, host = urlsplit(""), ""
        if value and self._environment.get(instead_of, "").strip():
            self.problems.append(f"{name} and {instead_of} are both set: keep one of them")
        elif value and not host:
            self._wrong(name, value, "write the https URL of the identity provider's keys")
        elif value and parts.scheme != "https" and (parts.scheme, host) not in _PLAIN:
            self._wrong(name, value, "write https: who can change what is read can be anybody")
        return value

    def named(self, name: str, default: str) -> str:
        if default and not self._environment.get(name, "").strip():
            return default
        return self._text(name, "write what the identity provider's tokens say, with JWKS_URL")

    def origin(self, name: str, default: str) -> str:
        value = self._environment.get(name, "").strip() or default
        if not _ORIGIN.fullmatch(value):
            self._wrong(name, value, "write a host name, such as huashi.qionghai.example.cn")
        return value

    def networks(self, name: str) -> tuple[Network, ...]:
        found = []
        for part in filter(None, map(str.strip, self._environment.get(name, "").split(","))):
            try:
                found.append(ip_network(part))
            except ValueError:
                self._wrong(name, part, "write networks or addresses, such as 10.42.0.0/16")
        return tuple(found)

    def seal_key(self, name: str) -> str:
        cure = "write 32 random bytes as URL-safe base64 (44 characters)"
        value = self._text(name, cure)
        try:
            length = len(base64.b64decode(value, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError):
            length = -1
        if value and length != _KEY_LENGTH:
            self.problems.append(f"{name} is not a key: {cure}")
        return value

    def unseal_keys(self, name: str) -> tuple[str, ...]:
        """What other systems seal to: the newest first; none if nothing is set."""
        cure = (
            "write one or two private P-256 keys, the newest first, as PKCS #8 DER in URL-safe "
            "base64, separated by a comma"
        )
        found = tuple(filter(None, map(str.strip, self._environment.get(name, "").split(","))))
        try:
            Unsealer(found)
        except ValueError as error:
            self.problems.append(f"{name} has what is not a key ({error}): {cure}")
        if len(found) > _UNSEAL_KEYS:
            self.problems.append(f"{name} has {len(found)} keys: {cure}")
        return found

    def folders(self, name: str) -> tuple[Path, ...]:
        cure = "write folders with a profile.yaml, separated by commas, such as profiles/qionghai"
        found = []
        for part in filter(None, map(str.strip, self._text(name, cure).split(","))):
            folder = Path(part)
            if not (folder / "profile.yaml").is_file():
                self.problems.append(f"{name} names {part!r}, which has no profile.yaml: {cure}")
            found.append(folder)
        return tuple(found)

    def file(self, name: str) -> Path:
        cure = "write the path of a file in a folder that exists"
        value = self._text(name, cure)
        path = Path(value)
        if value and (path.is_dir() or not path.parent.is_dir()):
            self._wrong(name, value, cure)
        return path

    def one_of(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        value = self._environment.get(name, default).strip().lower()
        if value not in allowed:
            self._wrong(name, value, f"choose {', '.join(allowed)}")
        return value

    def number(
        self, name: str, default: float, least: float, most: float, *, whole: bool = False
    ) -> float:
        text = self._environment.get(name, str(default))
        try:
            value = float(int(text) if whole else float(text))
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            kind = "a whole number" if whole else "a number"
            self._wrong(name, text, f"write {kind} from {least} to {most}")
            return default
        return value

    def clock(self) -> ScaledClock:
        try:
            return ScaledClock.from_environment(self._environment)
        except ValueError as error:
            self.problems.append(str(error))
            return ScaledClock()
