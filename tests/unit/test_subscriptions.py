"""Which events a subscription is for, how its sink is treated, and how it reads the timeline."""

from __future__ import annotations

from typing import Any

import pytest

from services.bus.errors import Refused
from services.bus.fold import Document
from services.bus.problems import Problem
from services.grid.clock import FrozenClock, Instant, plus
from services.grid.events import Event
from services.notify import subscriptions
from services.notify.channels import Sent
from services.notify.subscriptions import AHEAD, OVERLAP_SECONDS, Told
from tests.unit.test_notify_model import ATLAS, EVENTS

NOW = FrozenClock().now()
PAUSE = 3600.0
DOWN = Sent("the webhook did not answer", down=True)
BROKEN = Sent("the webhook answered 500")


def made(**more: Any) -> Document:
    body = {"types": [], "level": None, "division": None, "sink": "https://x/", "rate": None}
    found = subscriptions.made(
        "s", "operator", {**body, **more}, sealed="sealed", rate=None, now=NOW, real=0.0
    )
    return {**found, "made": plus(NOW, -30 * 86400)}


def told(document: Document, delivered: int = 0, *failed: Sent, real: float = 100.0,
         began: float = 100.0) -> Any:  # fmt: skip
    what = Told(delivered, failed, began)
    return subscriptions.told(document, what, now=NOW, real=real, pause_after=PAUSE)


def replayed(document: Document, since: Instant = NOW, real: float = 0.0) -> Document:
    found = subscriptions.replayed(document, since, now=NOW, real=real).document
    assert found is not None
    return found


def wants(event: Event, **body: Any) -> bool:
    return subscriptions.wants(made(**body), event, ATLAS)


def test_types_level_and_division_must_all_fit() -> None:
    event = EVENTS["case.escalated"]
    held, happened = event.data["state"]["address"], event.data["case"]["division"]
    assert wants(event)
    assert wants(event, types=["case.escalated", "case.closed"])
    assert not wants(event, types=["case.closed"])
    assert wants(event, level=held["level"])
    assert not wants(event, level="household" if held["level"] != "household" else "village")
    for division, good in ((held["division"], True), (happened, True), ("469002", True),
                           ("46900210420503", False)):  # fmt: skip
        assert wants(event, division=division) is good, division
    assert wants(event, level=held["level"], division=happened, types=["case.escalated"])


def test_what_desks_and_custodian_say_to_each_other_is_not_subscribed_to() -> None:
    assert "case.escalated" in subscriptions.TYPES
    assert not {"case.requested", "case.released", "case.reconciled"} & set(subscriptions.TYPES)
    released = EVENTS["case.released"]
    assert not wants(released)


def test_a_sink_that_is_down_is_left_alone_for_a_growing_while() -> None:
    document = told(made(), 0, DOWN, DOWN, DOWN).document
    assert document["trouble"] == {"since": 100.0, "count": 1, "reason": DOWN.reason, "last": 100.0}
    assert 103 < document["quiet_until"] < 107
    # What had begun before belongs to the same trouble.
    same = told(document, 0, DOWN, real=101.0, began=99.0).document
    assert same["trouble"]["count"] == 1
    later = told(document, 0, DOWN, real=110.0, began=107.0).document
    assert later["trouble"]["count"] == 2
    assert 117 < later["quiet_until"] < 123
    well = told(later, 1, real=130.0).document
    assert (well["trouble"], well["delivered_at"]) == (None, 130.0)
    # One event that it does not take is that event's matter.
    one = told(made(), 0, BROKEN).document
    assert (one["quiet_until"], one["trouble"]["reason"]) == (0.0, BROKEN.reason)
    assert told(one, 3, BROKEN, real=120.0).document["trouble"] is None


def test_who_asks_for_patience_gets_it_whatever_else_arrived() -> None:
    document = told(made(), 2, Sent("429", wait=900, down=True, blame=False)).document
    assert document["quiet_until"] == 1000.0


def test_how_it_does_is_not_written_for_each_delivery() -> None:
    document = told(made(), 1).document
    assert told(document, 1, real=105.0).document == document
    assert told(document, 1, real=111.0).document["delivered_at"] == 111.0


def test_410_ends_it_for_good() -> None:
    decision = told(made(), 0, Sent("the webhook answered 410", gone=True))
    assert (decision.answer, decision.document["status"]) == ("ended", "ended")
    assert told(decision.document, 1).document is None
    for again in (
        lambda: subscriptions.resumed(decision.document, None, 0.0),
        lambda: replayed(decision.document),
    ):
        with pytest.raises(Refused, match="it is ended"):
            again()


def test_one_that_takes_nothing_for_so_long_is_paused_and_resumed_from_there() -> None:
    document = told(made(), 0, DOWN).document
    early = told(document, 0, DOWN, real=100.0 + PAUSE - 1, began=3000.0)
    assert early.answer is None
    decision = told(document, 0, BROKEN, real=100.0 + PAUSE, began=3000.0)
    paused = decision.document
    assert (decision.answer, paused["status"], paused["why"]) == ("paused", "paused", BROKEN.reason)
    assert paused["replay"]["at"] == plus(NOW, -600)
    with pytest.raises(Refused, match="resume it first"):
        replayed(paused)
    resumed = subscriptions.resumed(paused, 60, 9000.0).document
    assert resumed is not None
    assert (resumed["status"], resumed["trouble"], resumed["quiet_until"]) == ("replaying", None, 0)
    # What was sent already is not sent again: it is no replay.
    assert (resumed["replays"], resumed["rate"]) == (0, 60)
    with pytest.raises(Refused, match="it is replaying, and not paused"):
        subscriptions.resumed(resumed, None, 9000.0)


def test_what_came_before_it_was_made_is_not_for_it() -> None:
    young = {**made(), "made": plus(NOW, -5)}
    document = told(young, 0, DOWN).document
    paused = told(document, 0, DOWN, real=100.0 + PAUSE, began=3000.0).document
    assert paused["replay"]["at"] == plus(NOW, -5)


def test_a_pause_in_the_middle_of_a_replay_keeps_its_place() -> None:
    since = plus(NOW, -86400)
    document = replayed(made(), since)
    failing = told(document, 0, DOWN).document
    paused = told(failing, 0, DOWN, real=100.0 + PAUSE, began=3000.0).document
    resumed = subscriptions.resumed(paused, 60, 9000.0).document
    assert resumed is not None
    assert (resumed["replay"]["at"], resumed["replays"]) == (since, 1)


def read(document: Document, at: Instant, key: str, real: float, *, end: bool) -> Document:
    decision = subscriptions.read_on(document, real=real, until=real + 60)
    assert decision.document is not None
    done = subscriptions.has_read(
        decision.document, decision.answer, (at, key), end=end, real=real, scale=1.0
    )
    assert done.document is not None
    return done.document


def test_the_timeline_is_read_to_its_end_and_a_little_of_it_once_more() -> None:
    since = plus(NOW, -3600)
    document = replayed(made(), since)
    document = read(document, plus(NOW, -1800), "e1", 10.0, end=False)
    assert (document["status"], document["replay"]["key"]) == ("replaying", "e1")
    document = read(document, NOW, "e2", 20.0, end=True)
    assert (document["status"], document["replay"]["at"]) == ("joining", plus(NOW, -60))
    # Not before all processes have heard that they gather what is new.
    early = subscriptions.read_on(document, real=20.0 + OVERLAP_SECONDS - 1, until=99.0)
    assert early.answer is None
    document = read(document, NOW, "e2", 20.0 + OVERLAP_SECONDS, end=False)
    assert document["status"] == "joining"
    document = read(document, NOW, "e3", 60.0, end=True)
    assert (document["status"], document["replay"]) == ("active", None)


def test_while_much_waits_no_more_is_read_but_the_end_is_come_to() -> None:
    document = replayed(made(), plus(NOW, -3600))
    full = {"until": 99.0, "waiting": AHEAD}
    assert subscriptions.read_on(document, real=10.0, **full).answer is None
    joining = read(document, NOW, "e1", 20.0, end=True)
    assert joining["status"] == "joining"
    # Nothing is sent meanwhile, so that no less will wait however long one looks.
    real = 20.0 + OVERLAP_SECONDS
    assert subscriptions.read_on(joining, real=real, **full).answer is not None


def test_it_is_not_read_from_before_where_it_began() -> None:
    since = plus(NOW, -45)
    document = replayed(made(), since)
    assert read(document, NOW, "e1", 10.0, end=True)["replay"]["at"] == since


@pytest.mark.parametrize("since", [NOW, plus(NOW, -5), plus(NOW, 366 * 86400)])
def test_a_replay_from_now_or_later_misses_nothing_that_is_on_its_way(since: Instant) -> None:
    # Intake may know an event already that notify hears of only when it gathers no more.
    assert replayed(made(), since)["replay"]["at"] == plus(NOW, -OVERLAP_SECONDS)
    young = {**made(), "made": plus(NOW, -7)}
    assert replayed(young, since)["replay"]["at"] == min(since, plus(NOW, -7))


def test_a_replay_in_the_middle_of_another_reading_skips_nothing_of_that() -> None:
    paused = told(told(made(), 0, DOWN).document, 0, DOWN, real=100.0 + PAUSE, began=3000.0)
    resumed = subscriptions.resumed(paused.document, None, 9000.0).document
    assert resumed is not None
    left = read(resumed, plus(NOW, -500), "e1", 9001.0, end=False)
    again = replayed(left, plus(NOW, -100))
    assert (again["replay"]["at"], again["replays"]) == (plus(NOW, -500), 1)
    assert replayed(left, plus(NOW, -9000))["replay"]["at"] == plus(NOW, -9000)


def test_one_process_reads_and_another_takes_it_up_when_that_died() -> None:
    document = replayed(made())
    first = subscriptions.read_on(document, real=0.0, until=60.0)
    assert first.document is not None
    assert subscriptions.read_on(first.document, real=59.0, until=119.0).answer is None
    second = subscriptions.read_on(first.document, real=60.0, until=120.0)
    assert second.document is not None
    # The first was only slow: what it says now is no longer asked for.
    late = subscriptions.has_read(
        second.document, first.answer, (NOW, "e9"), end=True, real=61.0, scale=1.0
    )
    assert late.document is None
    # And when it is replayed from another time, what was read before says nothing of that.
    anew = replayed(second.document, plus(NOW, -99), 70.0)
    assert subscriptions.has_read(
        anew, second.answer, (NOW, "e9"), end=True, real=71.0, scale=1.0
    ).document is None  # fmt: skip


def test_a_rate_is_kept_by_all_processes_together() -> None:
    document = {**made(), "rate": 120}
    sent, now = [], 1000.0
    while now < 1060.0:
        decision = subscriptions.reserve(document, 5, real=now)
        granted, following = decision.answer
        document = decision.document or document
        sent += [now] * granted
        now = max(following, now + 0.01)
    assert 118 <= len(sent) <= 123
    # A second's worth at once, after a rest.
    assert subscriptions.reserve(document, 5, real=2000.0).answer[0] == 2
    slow = {**made(), "rate": 1}
    decision = subscriptions.reserve(slow, 5, real=1000.0)
    assert decision.answer == (1, 1060.0)
    assert subscriptions.reserve(decision.document or {}, 5, real=1059.0).answer == (0, 1060.0)
    assert subscriptions.reserve(made(), 5, real=0.0).answer == (5, 0.0)


def test_what_was_removed_is_not_there() -> None:
    document = subscriptions.removed(made(), 1.0).document
    assert document is not None
    assert (document["status"], document["secret"]) == ("removed", None)
    for act in (
        lambda: subscriptions.removed(document, 1.0),
        lambda: subscriptions.resumed(None, None, 1.0),
        lambda: replayed(document),
    ):
        with pytest.raises(Problem) as raised:
            act()
        assert raised.value.status == 404
