"""Who may ask and answer: nameko's RPC with no more rights than it needs, on a real broker."""

from __future__ import annotations

import uuid
from typing import Any

import amqp
import pytest
from kombu.connection import Connection

from services.bus import topology
from services.bus.topology import EVENTS, RPC
from tests.conftest import LEVELS, Broker
from tests.end_to_end.county import eventually

DESK = "dispatch-household"
NUMBER = str(uuid.UUID(int=7))
REPLIES = f"rpc.reply-escalation-{NUMBER}"


@pytest.fixture(scope="module")
def declared(broker: Broker) -> Broker:
    """Everything as the topology step leaves it, with a queue that waits for answers."""
    topology.declare(broker.uri(topology.ADMINISTRATOR), LEVELS)
    topology.declare(broker.uri(topology.ADMINISTRATOR), LEVELS)
    with Connection(broker.uri("escalation")) as connection:
        channel: Any = connection.default_channel
        channel.queue_declare(REPLIES, durable=True, auto_delete=False)
        channel.queue_bind(REPLIES, RPC, NUMBER)
    return broker


def refused(broker: Broker, user: str, act: Any) -> bool:
    with Connection(broker.uri(user)) as connection:
        try:
            channel: Any = connection.default_channel
            channel.confirm_select()
            act(channel)
        except amqp.exceptions.AccessRefused:
            return True
    return False


def publish(key: str, exchange: str = RPC) -> Any:
    message = amqp.Message(b"{}", content_type="application/json")
    return lambda channel: channel.basic_publish_confirm(message, exchange, key)


def get(queue: str) -> Any:
    return lambda channel: channel.basic_get(queue)


def declare(queue: str) -> Any:
    return lambda channel: channel.queue_declare(queue, durable=True, auto_delete=False)


def bind(queue: str, key: str, exchange: str = RPC) -> Any:
    return lambda channel: channel.queue_bind(queue, exchange, key)


@pytest.mark.parametrize("user", ["intake", DESK])
def test_who_answers_reads_its_own_questions_and_only_answers(declared: Broker, user: str) -> None:
    other = DESK if user == "intake" else "intake"
    assert not refused(declared, user, get(f"rpc-{user}"))
    assert not refused(declared, user, publish(NUMBER))
    for act in (
        get(f"rpc-{other}"),
        get("rpc-dispatch-group"),
        get(f"rpc-{user}x"),
        get(REPLIES),
        publish("intake.open_cases"),
        publish("dispatch-group.live_entries"),
        publish(f"{NUMBER}.more"),
        publish(REPLIES, ""),
        publish(f"rpc-{other}", ""),
        declare(f"rpc-{user}"),
        declare(f"rpc.reply-{other}-{NUMBER}"),
        declare(f"rpc.reply-dispatch-{NUMBER}"),
        declare(REPLIES),
        bind(f"rpc-{user}", "intake.open_cases"),
        lambda channel: channel.queue_delete(f"rpc-{user}"),
        lambda channel: channel.exchange_declare(RPC, "topic", durable=True, auto_delete=False),
    ):
        assert refused(declared, user, act)


def test_a_desk_asks_what_its_officers_may_have_done_and_intake_nothing(declared: Broker) -> None:
    mine = f"rpc.reply-{DESK}-{NUMBER}"
    assert not refused(declared, DESK, declare(mine))
    assert not refused(declared, DESK, bind(mine, NUMBER))
    assert not refused(declared, DESK, get(mine))
    for name in ("supervise", "merge"):
        assert not refused(declared, DESK, publish(f"escalation.{name}.household")), name
        assert refused(declared, "notify", publish(f"escalation.{name}")), name
        assert refused(declared, "intake", publish(f"escalation.{name}")), name
    for name in ("watch", "unwatch", "link", "unlink"):
        assert not refused(declared, DESK, publish(f"intake.{name}.household")), name
        assert refused(declared, "escalation", publish(f"intake.{name}")), name
    for act in (
        publish("intake.happened"),
        publish("escalation.migrate"),
        publish("escalation.merge"),
        publish("escalation.merge.township"),
        publish("escalation.merge.household.more"),
        get("rpc-escalation"),
        bind(mine, "escalation.merge"),
        bind(mine, "#"),
        declare(f"rpc.reply-dispatch-group-{NUMBER}"),
    ):
        assert refused(declared, DESK, act)
    assert refused(declared, "intake", declare(f"rpc.reply-intake-{NUMBER}"))


def test_the_custodian_asks_what_is_declared_and_reads_its_own_answers(declared: Broker) -> None:
    assert not refused(declared, "escalation", get(REPLIES))
    # What desks ask it, it answers.
    assert not refused(declared, "escalation", get("rpc-escalation"))
    assert not refused(declared, "escalation", publish(NUMBER))
    for name in ("intake.open_cases", "intake.cases_of", f"{DESK}.live_entries"):
        assert not refused(declared, "escalation", publish(name)), name
    for act in (
        publish("intake.report"),
        publish("intake.open_cases.more"),
        publish("dispatch-county.live_entries"),
        publish("dispatch-.live_entries"),
        publish(f"{NUMBER}.more"),
        publish("escalation.merge"),
        declare("rpc-escalation"),
        get("rpc-intake"),
        get(f"rpc-{DESK}"),
        get(f"{REPLIES}x"),
        declare("rpc-intake"),
        declare("rpc.reply-escalation-1"),
        declare(f"rpc.reply-intake-{NUMBER}"),
        declare(f"x{REPLIES}"),
        bind(REPLIES, "#"),
        bind(REPLIES, f"{DESK}.live_entries"),
        bind(REPLIES, "case.#", EVENTS),
        bind("rpc-intake", NUMBER),
    ):
        assert refused(declared, "escalation", act)


def test_notify_asks_for_the_timeline_and_for_nothing_else(declared: Broker) -> None:
    assert not refused(declared, "notify", publish("intake.happened"))
    assert not refused(declared, "notify", declare(f"rpc.reply-notify-{NUMBER}"))
    for act in (
        publish(NUMBER),
        publish("intake.open_cases"),
        publish("intake.cases_of"),
        publish(f"{DESK}.live_entries"),
        get(REPLIES),
        get("rpc-intake"),
        declare("rpc-notify"),
    ):
        assert refused(declared, "notify", act)
    assert refused(declared, "escalation", publish("intake.happened"))


def test_a_question_that_nobody_takes_is_forgotten(declared: Broker) -> None:
    with Connection(declared.uri()) as connection:
        channel: Any = connection.default_channel
        channel.confirm_select()

        def waiting() -> int:
            count: int = channel.queue_declare("rpc-dispatch-village", passive=True).message_count
            return count

        publish("dispatch-village.live_entries")(channel)
        eventually("it is forgotten", lambda: not waiting(), 3 * topology.ANSWER_SECONDS)


def test_nobody_but_who_asks_may_make_a_queue(broker: Broker) -> None:
    definitions = topology.broker_definitions(LEVELS, broker.passwords)
    configures = {row["user"]: row["configure"] for row in definitions["permissions"]}
    assert {name for name, words in configures.items() if words != "^$"} == {
        "escalation",
        "notify",
        *(f"dispatch-{level}" for level in LEVELS),
        topology.ADMINISTRATOR,
        topology.PROVISIONER,
    }
