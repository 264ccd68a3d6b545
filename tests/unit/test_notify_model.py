"""Who is told, how often it is tried, and when it is given up."""

from __future__ import annotations

from services.bus.fold import Document, Record
from services.grid.clock import FrozenClock, plus, seconds_between
from services.grid.events import Event
from services.notify import model
from services.notify.channels import Sent
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
    sent = model.sent(document, {identity: Sent()}, now=NOW)
    assert [event.type for event in sent.events] == ["notification.delivered"]
    assert sent.answer == [("log", "delivered")]
    assert sent.document is not None
    assert sent.document["next_try"] is None
    assert model.sent(sent.document, {identity: Sent()}, now=NOW).events == []
    Event.read(sent.events[0].body())


def test_a_failure_is_tried_again_with_growing_pauses_and_then_given_up() -> None:
    document = announced("case.assigned")
    assert document is not None
    identity = document["deliveries"][0]["id"]
    pauses = []
    for attempt in range(model.ATTEMPTS):
        failed = Sent("the webhook answered 500")
        decision = model.sent(document, {identity: failed}, now=NOW)
        assert decision.document is not None
        document = decision.document
        if attempt < model.ATTEMPTS - 1:
            assert decision.events == []
            pauses.append(seconds_between(NOW, document["next_try"]))
    for number, pause in enumerate(pauses):
        nominal = min(5 * 2**number, model.LONGEST_BACK_OFF)
        assert 0.75 * nominal - 0.001 <= pause <= 1.25 * nominal
    assert 2.5 * 3600 < sum(pauses) < 3 * 3600
    (said,) = decision.events
    assert said.type == "notification.failed"
    assert said.data["reason"] == "the webhook answered 500"
    assert said.data["notification"]["attempts"] == model.ATTEMPTS
    assert document["next_try"] is None


def test_who_asks_for_patience_gets_it_and_who_wants_nothing_any_more_is_not_asked_again() -> None:
    document = announced("case.assigned")
    assert document is not None
    identity = document["deliveries"][0]["id"]
    busy = model.sent(document, {identity: Sent("429", wait=300)}, now=NOW, scale=2).document
    assert busy is not None
    assert busy["next_try"] == plus(NOW, 600)
    gone = model.sent(document, {identity: Sent("410", gone=True)}, now=NOW)
    assert [event.type for event in gone.events] == ["notification.failed"]


def test_what_has_no_room_is_given_back_untried() -> None:
    document = announced("case.assigned")
    assert document is not None
    identity = document["deliveries"][0]["id"]
    taken = model.claim(document, now=NOW, until=plus(NOW, 60)).document
    assert taken is not None
    back = model.put_off(taken, [identity], plus(NOW, 2)).document
    assert back is not None
    assert (back["next_try"], back["deliveries"][0]["attempts"]) == (plus(NOW, 2), 0)


def test_pauses_are_the_same_for_the_same_and_differ_for_others() -> None:
    assert model.back_off(3, "a") == model.back_off(3, "a")
    assert len({model.back_off(3, f"{number}") for number in range(50)}) > 40


def watched(version: int, *watchers: str) -> Event:
    event = EVENTS["case.reported"]
    data = {**event.data, "watchers": list(watchers), "version": version, "by": "operator"}
    return Event(**{**event.as_document(), "type": model.WATCHED, "data": data})


def test_the_greatest_version_says_who_watches_in_whatever_order_it_comes() -> None:
    first, second = watched(1, "officer:v-1"), watched(2)
    document = None
    for event in (second, first, second):
        document = model.watching(event).change(Record("case-1", 1, document)).document
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
