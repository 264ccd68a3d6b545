"""Where webhooks may go, by address, by name, and when a name changes its mind."""

from __future__ import annotations

import socket
import ssl
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from services.notify.addresses import Address, Addresses, NotAllowed, is_own
from services.notify.sender import HandshakeRefused, Sender
from tests.end_to_end.sink import sinks

PUBLIC = "93.184.216.34"


def never(_address: Address) -> bool:
    return False


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names mean each of these answers in turn; the names that were asked for."""
    asked: list[str] = []
    left = list(answers)
    look_up = socket.getaddrinfo

    def getaddrinfo(host: str, port: Any, *more: Any, **options: Any) -> list[Any]:
        if host.replace(".", "").isdigit():
            return look_up(host, port, *more, **options)
        asked.append(host)
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(0, socket.SOCK_STREAM, 0, "", (address, port)) for address in found]

    monkeypatch.setattr("services.notify.addresses.socket.getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1"),
        *("100.64.0.1", "169.254.169.254", "192.0.0.1", "198.18.0.1", "224.0.0.1", "239.1.1.1"),
        *("240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%lo", "fc00::1"),
        *("fec0::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1"),
        *("64:ff9b:1::1", "2002:a00:1::", "2001::1", "2001:db8::1", "::7f00:1", "4000::1"),
    ],
)
def test_inside_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolving(monkeypatch, [address])
    with pytest.raises(NotAllowed, match=r"is a private, .* WEBHOOK_ALLOW"):
        Addresses(own=never).of("town.example.cn", 443, plain=False)


@pytest.mark.parametrize(
    "address", [PUBLIC, "2606:4700::1111", f"::ffff:{PUBLIC}", "64:ff9b::5db8:d822"]
)
def test_public_addresses_are_sent_to_with_tls_only(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolving(monkeypatch, [address])
    addresses = Addresses(own=never)
    assert addresses.of("town.example.cn", 443, plain=False) == [address]
    with pytest.raises(NotAllowed, match="only https"):
        addresses.of("town.example.cn", 80, plain=True)


def test_what_is_allowed_may_be_inside_and_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = Addresses((ip_network("10.20.0.0/16"), ip_network("fd00::/8")), own=never)
    for address, good in (
        ("10.20.3.4", True), ("::ffff:10.20.3.4", True), ("fd12::1", True), ("10.21.0.1", False),
    ):  # fmt: skip
        resolving(monkeypatch, [address])
        for plain in (True, False):
            if good:
                assert addresses.of("in.example.cn", 80, plain=plain) == [address]
            else:
                with pytest.raises(NotAllowed):
                    addresses.of("in.example.cn", 80, plain=plain)


def test_of_several_addresses_only_the_good_ones_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["10.0.0.1", PUBLIC, "::1"])
    assert Addresses(own=never).of("town.example.cn", 443, plain=False) == [PUBLIC]


def test_our_own_addresses_are_refused_though_they_are_public(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, [PUBLIC])
    with pytest.raises(NotAllowed, match="an address of our own"):
        Addresses(own=lambda address: str(address) == PUBLIC).of("x.example.cn", 443, plain=False)
    # The broker and the database, by whatever name they are asked for.
    with pytest.raises(NotAllowed, match="an address of our own"):
        Addresses(hosts=("mongodb.example.cn",), own=never).of("x.example.cn", 443, plain=False)
    assert is_own(ip_address("127.0.0.1"))
    assert not is_own(ip_address(PUBLIC))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://town.example.cn/", "write an https URL"),
        ("https:///huashi", "write an https URL"),
        ("https://user@town.example.cn/", "leave out user and password"),
        ("https://town.example.cn/#part", "leave out what follows #"),
        ("https://town.example.cn:99999/", "can't be read"),
        ("https://[::ffff:10.0.0.1]/", "is a private"),
        ("https://192.168.0.1/", "is a private"),
        ("http://8.8.8.8/", "only https"),
    ],
)
def test_what_a_url_says_itself_is_checked_at_once(url: str, said: str) -> None:
    with pytest.raises(NotAllowed, match=said):
        Addresses().must_be_a_sink(url)


def test_a_name_that_means_inside_is_not_connected_to() -> None:
    with sinks("127.0.0.1") as (sink,):
        sender = Sender(Addresses(), lambda: 0.0)
        for host in ("localhost", "2130706433", "0x7f000001", "127.1"):
            url = f"https://{host}:{sink.port}/"
            with pytest.raises(HandshakeRefused, match="is a private"):
                sender.shake(url, "huashi", None)
            sent = sender.post(url, "1", "application/json", b"{}", None)
            assert sent.reason is not None
            assert "is a private" in sent.reason
            assert (sent.down, sent.blame) == (True, False)
        assert not sink.got
        assert not sink.shakes


@pytest.mark.parametrize(
    "url",
    [
        *("https://" + "a" * 70 + ".example/", "https://" + ("a" * 60 + ".") * 6 + "example/"),
        *("https://a..b/", "https://.a/", "https://%41/", "https://\x00/", "https://a b/"),
        *("https://[::1%25lo]/", "https://００１/", "https://" + "é" * 80 + "/", "https://a:b/"),
        *("https://[/", "https://xn--/", "https:///", "https://路灯/", "//x", "https://x\u202e/"),
    ],
)
def test_whatever_the_url_it_is_only_refused(url: str) -> None:
    sender = Sender(Addresses(), lambda: 0.0)
    with pytest.raises(HandshakeRefused):
        sender.shake(url, "huashi", None)
    assert sender.post(url, "1", "application/json", b"{}", None).reason is not None


def test_a_name_that_changes_its_mind_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was looked up is what is connected to: there is no second look-up to lie to."""
    connected: list[Any] = []

    def connect(address: Any, *_more: Any, **_options: Any) -> Any:
        connected.append(address)
        raise OSError("nobody there")

    monkeypatch.setattr("httpcore._backends.sync.socket.create_connection", connect)
    asked = resolving(monkeypatch, [PUBLIC], ["127.0.0.1"])
    sender = Sender(Addresses(own=never), lambda: 0.0)
    first, second = (
        sender.post("https://fickle.example.cn/", "1", "application/json", b"{}", None)
        for _ in range(2)
    )
    assert asked == ["fickle.example.cn"] * 2
    assert connected == [(PUBLIC, 443)]
    assert first.reason == "the webhook can't be reached: ConnectError"
    assert second.reason is not None
    assert "127.0.0.1 is a private" in second.reason


def test_the_certificate_must_be_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS asks for the name of the URL, not for the address that was connected to."""
    named: list[Any] = []
    wrap = ssl.SSLContext.wrap_socket

    def wrapped(self: ssl.SSLContext, sock: Any, **options: Any) -> Any:
        named.append(options["server_hostname"])
        return wrap(self, sock, **options)

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrapped)
    with sinks("127.0.0.1") as (sink,):
        sender = Sender(Addresses((ip_network("127.0.0.1"),)), lambda: 0.0)
        resolving(monkeypatch, ["127.0.0.1"])
        url = f"https://river.example.cn:{sink.port}/"
        assert sender.post(url, "1", "application/json", b"{}", None).reason is not None
    assert named == ["river.example.cn"]
