"""huashi system: two places, and no step of both, so each command can be done again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cli import systems
from cli.client import Client
from cli.failures import Exit, Failure

URL = "https://provisioner:word@broker.example.cn:15671"


class Intake:
    """What intake knows, as the client asks it."""

    def __init__(self, *names: str, broker: str | None = URL) -> None:
        self.stack = SimpleNamespace(broker=broker, vhost="/")
        self.names = {*names}
        self.keys = 1

    def remove_system(self, name: str) -> dict[str, Any]:
        if name not in self.names:
            raise Failure(Exit.NOT_FOUND, f"there is no system {name}")
        self.names.remove(name)
        return {"name": name, "removed": True}

    def rotate_key(self, name: str, *, sole: bool) -> dict[str, Any]:
        self.keys += 1
        return {"name": name, "key": f"hk_{self.keys}", "subscription": None, "bindings": []}


class Broker:
    """A broker with its users; ``away`` while it answers nobody."""

    users: set[str]
    away = False

    def __init__(self, _url: str, _vhost: str) -> None:
        """Connects to nothing yet."""

    def _answer(self) -> None:
        if Broker.away:
            raise Failure(Exit.UNREACHABLE, "RabbitMQ's management API does not answer")

    def must_answer(self) -> None:
        self._answer()

    def has(self, name: str) -> bool:
        self._answer()
        return name in Broker.users

    def provide(self, name: str, _password: str | None, _subscription: Any) -> None:
        self._answer()
        Broker.users.add(name)

    def remove(self, name: str) -> None:
        self._answer()
        Broker.users.discard(name)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(autouse=True)
def broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "Broker", Broker)
    monkeypatch.setattr(Broker, "users", {"hotline"}, raising=False)
    monkeypatch.setattr(Broker, "away", False)


def client(intake: Intake) -> Client:
    return cast("Client", intake)


def test_a_user_that_was_left_behind_is_removed_the_next_time() -> None:
    # The last time it ended between the two.
    intake = Intake()
    assert systems.remove(client(intake), "hotline")["removed"] is True
    assert Broker.users == set()
    with pytest.raises(Failure, match="no system") as nobody:
        systems.remove(client(intake), "hotline")
    assert nobody.value.code is Exit.NOT_FOUND


def test_a_name_that_is_none_reaches_no_other_user() -> None:
    Broker.users.add("x/../intake")
    with pytest.raises(Failure, match="no system"):
        systems.remove(client(Intake()), "x/../intake")
    assert "x/../intake" in Broker.users


def test_while_the_broker_is_away_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broker, "away", True)
    intake = Intake("hotline")
    for act in (
        lambda: systems.remove(client(intake), "hotline"),
        lambda: systems.rotate(client(intake), "hotline", sole=False),
    ):
        with pytest.raises(Failure, match="does not answer"):
            act()
    assert (intake.names, intake.keys) == ({"hotline"}, 1)


def test_without_a_broker_it_is_told_that_the_user_stays() -> None:
    assert systems.remove(client(Intake("hotline", broker=None)), "hotline")["amqp"] is None
    assert systems.remove(client(Intake("hotline")), "hotline")["amqp"] == {
        "user": "system.hotline"
    }
