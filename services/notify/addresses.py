"""Where webhooks may go: out into the world, and inside only where an operator allows it.

What a sink's name means is looked up at each connection, and the connection goes to just the
address that was looked at: a name that means another address a moment later gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from urllib.parse import urlsplit

import httpcore

from services.bus.config import Network

Address = IPv4Address | IPv6Address

_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# Nobody has this one (TEST-NET-1): where it can be bound, any address can.
_NOBODY = IPv4Address("192.0.2.1")
_CURE = "an operator allows it with WEBHOOK_ALLOW"


class NotAllowed(Exception):
    """A webhook may not go there; says why and the cure."""


class NameNotFound(httpcore.ConnectError):
    """The name of a sink can't be looked up."""


def is_own(address: Address) -> bool:
    """Whether it is an address of this machine: then it can be bound."""
    return _can_be_bound(address) and not _can_be_bound(_NOBODY)


@dataclass(frozen=True)
class Addresses:
    """The one rule for where webhooks may go.

    :param allowed: the operator's allow list: what is in it may be reached whatever it is, and
        without TLS.
    :param hosts: names of our own servers, which must not be reached from outside either.
    :param own: whether an address is this machine's.
    """

    allowed: tuple[Network, ...] = ()
    hosts: tuple[str, ...] = ()
    own: Callable[[Address], bool] = is_own

    def must_be_a_sink(self, url: str) -> None:
        """Checks what can be said of a URL before its name is looked up.

        :raises NotAllowed: it can't be one, or it names an address that is not allowed.
        """
        try:
            parts = urlsplit(url)
            host, _port = parts.hostname, parts.port
        except ValueError as error:
            raise NotAllowed(f"the URL can't be read: {error}") from error
        if parts.scheme not in ("http", "https") or not host:
            raise NotAllowed("write an https URL, such as https://town.example.cn/huashi")
        if parts.username is not None or parts.password is not None:
            raise NotAllowed("leave out user and password: deliveries are signed instead")
        if parts.fragment:
            raise NotAllowed("leave out what follows #: it is never sent")
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            # A name: what it means is looked at when it is connected to.
            return
        self._must_be_allowed(address, plain=parts.scheme == "http")

    def of(self, host: str, port: int, *, plain: bool) -> list[str]:
        """The addresses of a host that may be connected to, in the resolver's order.

        :param plain: whether without TLS.
        :raises NotAllowed: it has none.
        :raises OSError: the name can't be looked up.
        :raises UnicodeError: no name is like this.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        good: list[str] = []
        why: NotAllowed | None = None
        for text in dict.fromkeys(str(item[4][0]) for item in found):
            try:
                self._must_be_allowed(ipaddress.ip_address(text), plain=plain)
            except NotAllowed as error:
                why = why or error
            else:
                good.append(text)
        if not good:
            raise why or NotAllowed("the name has no address")
        return good

    def _must_be_allowed(self, address: Address, *, plain: bool) -> None:
        if any(_within(form, self.allowed) for form in _forms(address)):
            return
        if plain:
            raise NotAllowed(f"only https is sent to: write an https URL, or {_CURE}")
        if not all(map(_is_public, _forms(address))):
            kind = "a private, local or multicast address"
            raise NotAllowed(f"{address} is {kind}: write a public one, or {_CURE}")
        if any(map(self.own, _forms(address))) or str(address) in self._ours():
            raise NotAllowed(f"{address} is an address of our own: write another, or {_CURE}")

    def _ours(self) -> set[str]:
        found: set[str] = set()
        for host in self.hosts:
            try:
                answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                # Its own users can't reach it now either.
                continue
            found |= {str(item[4][0]) for item in answers}
        return found


class Guarded(httpcore.NetworkBackend):
    """Connects to addresses that are allowed, and to no other.

    :param plain: whether what is connected is used without TLS.
    """

    def __init__(self, addresses: Addresses, *, plain: bool) -> None:
        self._addresses = addresses
        self._plain = plain
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """See httpcore. TLS asks for the certificate of the name, whatever the address.

        :raises NotAllowed: no address of the host is allowed.
        """
        try:
            found = self._addresses.of(host, port, plain=self._plain)
        except (OSError, UnicodeError) as error:
            raise NameNotFound(host) from error
        for address in found[:-1]:
            try:
                return self._sockets.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._sockets.connect_tcp(found[-1], port, timeout, local_address, socket_options)


def _forms(address: Address) -> list[Address]:
    """An address with the IPv4 address that it holds, if it does (mapped, 6to4, NAT64)."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _NAT64:
        return [IPv4Address(int(address) & 0xFFFFFFFF)]
    if address.sixtofour is not None:
        return [address, address.sixtofour]
    return [address]


def _is_public(address: Address) -> bool:
    if address.version == 6 and address not in _UNICAST:
        return False
    return address.is_global and not address.is_multicast


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == each.version and address in each for each in networks)


def _can_be_bound(address: Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
