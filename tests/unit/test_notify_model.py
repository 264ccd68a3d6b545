"""Who is told, how often it is tried, and when it is given up."""

from __future__ import annotations

from services.bus.fold import Document, Record
from services.grid.clock import FrozenClock, plus
from services.grid.events import Event
from services.notify import model
from tests.simulator.county import atlas
from tests.simulator.world import World

NOW = FrozenClock().now()
ATLAS = atlas()


def events() -> dict[str, Event]:
    """One event of each type of a case that nobody answered."""
    world = World(ATLAS)
    world.report("case-1")
    world.settle()
    for _ in range(6):
        world.clock.advance(4 * 3600)
        world.second()
        world.settle()
    return {sent.event.type: sent.event for sent in reversed(world.published)}


EVENTS = events()


def announced(kind: str) -> Document | None:
    return model.announce(None, EVENTS[kind], (), ATLAS, NOW).document


def test_who_is_told_follows_the_template() -> None:
    assigned = announced("case.assigned")
    assert assigned is not None
    (delivery,) = assigned["deliveries"]
    assert delivery["recipient"] == "officer:h-1"
    assert delivery["text"] == f"路灯不亮 {EVENTS['case.assigned'].data['case']['tracking']}"
    supervised = announced("case.supervised")
    assert supervised is not None
    # Nobody is above the last level, so only the county is told.
    assert [item["recipient"] for item in supervised["deliveries"]] == ["division:469002"]
    assert announced("case.reported") is None


def test_it_is_decided_once() -> None:
    document = announced("case.assigned")
    again = model.announce(document, EVENTS["case.assigned"], (), ATLAS, plus(NOW, 60))
    assert again.document == document


def test_what_is_in_hand_is_nobody_elses() -> None:
    document = announced("case.assigned")
    assert document is not None
    until = plus(NOW, 60)
    first = model.claim(document, now=NOW, until=until)
    told, deliveries = first.answer
    assert told == {"case": "case-1", "type": "case.assigned"}
    assert len(deliveries) == 1
    assert first.document is not None
    assert model.claim(first.document, now=plus(NOW, 1), until=until).answer[1] == []
    # A process that died with it: another takes it up with the same id.
    later = model.claim(first.document, now=until, until=plus(until, 60))
    assert [item["id"] for item in later.answer[1]] == [deliveries[0]["id"]]


def test_a_delivery_is_said_once() -> None:
    document = announced("case.assigned")
    assert document is not None
    identity = document["deliveries"][0]["id"]
    sent = model.sent(document, {identity: None}, now=NOW)
    assert [event.type for event in sent.events] == ["notification.delivered"]
    assert sent.answer == [("log", "delivered")]
    assert sent.document is not None
    assert sent.document["next_try"] is None
    assert model.sent(sent.document, {identity: None}, now=NOW).events == []
    Event.read(sent.events[0].body())


def test_a_failure_is_tried_again_with_growing_pauses_and_then_given_up() -> None:
    document = announced("case.assigned")
    assert document is not None
    identity = document["deliveries"][0]["id"]
    pauses = []
    for attempt in range(model.ATTEMPTS):
        decision = model.sent(document, {identity: "the webhook answered 500"}, now=NOW)
        assert decision.document is not None
        document = decision.document
        if attempt < model.ATTEMPTS - 1:
            assert decision.events == []
            pauses.append(document["next_try"])
    assert pauses == [plus(NOW, 5 * 2**number) for number in range(model.ATTEMPTS - 1)]
    (failed,) = decision.events
    assert failed.type == "notification.failed"
    assert failed.data["reason"] == "the webhook answered 500"
    assert failed.data["notification"]["attempts"] == model.ATTEMPTS
    assert document["next_try"] is None


def watched(version: int, *watchers: str) -> Event:
    event = EVENTS["case.reported"]
    data = {**event.data, "watchers": list(watchers), "version": version, "by": "operator"}
    return Event(**{**event.as_document(), "type": model.WATCHED, "data": data})


def test_the_greatest_version_says_who_watches_in_whatever_order_it_comes() -> None:
    first, second = watched(1, "officer:v-1"), watched(2)
    document = None
    for event in (second, first, second):
        document = model.subscription(event).change(Record("case-1", 1, document)).document
    assert document == {"case": "case-1", "watchers": [], "version": 2}


def test_watchers_are_told_by_a_template_and_so_is_whom_a_route_also_tells() -> None:
    line = {"on": "case.reported", "tell": ["watchers"], "by": ["log"], "text": "{title}"}
    county = atlas(templates=[line])
    event = EVENTS["case.reported"]
    facts = {**event.data["case"], "also_tell": ["village"], "profile": county.current[0].id}
    told = Event(**{**event.as_document(), "data": {**event.data, "case": facts}})
    document = model.announce(None, told, ["officer:v-1"], county, NOW).document
    assert document is not None
    recipients = [item["recipient"] for item in document["deliveries"]]
    assert recipients == ["officer:v-1", "desk:village:469002104214"]
