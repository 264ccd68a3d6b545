"""What waits for a subscriber: order, redelivery, patience, and when an event is given up."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.bus.fold import Document, Record
from services.notify import outbox
from services.notify.channels import Sent
from services.notify.model import ATTEMPTS
from services.notify.outbox import KNOWN, Told

BROKEN = Sent("the webhook answered 500")
DOWN = Sent("the webhook can't be reached: ConnectError", down=True, blame=False)


def entry(number: int, since: float = 0.0) -> outbox.Entry:
    at = f"2026-01-05T00:00:{number:02}.000Z"
    return {"id": f"e{number}", "time": at, "since": since, "body": f"{{{number}}}"}


def put(line: Document | None, *numbers: int, replay: int = 0, now: float = 0.0) -> Document:
    entries = [entry(number, now) for number in numbers]
    work = outbox.put("s", "case-1", entries, replay, now)
    record = Record(work.key, 0 if line is None else 1, line)
    return work.change(record).document or line or {}


def told(line: Document, *arrived: str, failed: str | None = None, why: Sent | None = None,
         now: float = 0.0, well_since: float = 0.0) -> Any:  # fmt: skip
    return outbox.told(line, Told(arrived, failed, why, well_since), now=now)


def ids(line: Document) -> list[str]:
    return [item["id"] for item in line["waiting"]]


def test_what_waits_is_in_the_order_of_its_time_and_there_once() -> None:
    line = put(put(None, 2, 3), 1, 3)
    assert ids(line) == ["e1", "e2", "e3"]
    assert (line["subscription"], line["case"], line["next_try"]) == ("s", "case-1", 0.0)


def test_what_was_sent_is_known_when_it_comes_again() -> None:
    line = told(put(None, 1, 2), "e1").document
    assert ids(line) == ["e2"]
    assert ids(put(line, 1, 2)) == ["e2"]
    # A replay forgets it; what comes meanwhile from a process that has not heard does not.
    line = put(line, 1, replay=1)
    assert ids(line) == ["e1", "e2"]
    line = told(line, "e1").document
    assert ids(put(line, 1, replay=0)) == ["e2"]


def test_so_much_is_remembered() -> None:
    line: Document = put(None, 0)
    for number in range(KNOWN + 10):
        line = told(put(line, number), f"e{number}").document
    assert len(line["done"]) == KNOWN


def test_one_process_has_it_in_hand_until_its_time_is_over() -> None:
    line = put(None, *range(10))
    first = outbox.claim(line, now=1.0, until=61.0)
    assert [item["id"] for item in first.answer] == [f"e{number}" for number in range(5)]
    assert first.document is not None
    assert outbox.claim(first.document, now=60.0, until=120.0).answer == []
    again = outbox.claim(first.document, now=61.0, until=121.0)
    assert again.answer == first.answer


def test_what_fails_is_tried_again_before_what_comes_after_it() -> None:
    line = told(put(None, 1, 2), failed="e1", why=BROKEN, now=100.0).document
    assert ids(line) == ["e1", "e2"]
    assert 100 + 3.75 <= line["next_try"] <= 100 + 6.25
    assert (line["tries"], line["failing"]) == (1, 100.0)
    line = put(line, 3, now=101.0)
    assert line["next_try"] > 103
    line = told(line, "e1", now=110.0).document
    assert (line["tries"], line["failing"], line["next_try"]) == (0, None, 110.0)
    patient = told(line, failed="e2", why=Sent("429", wait=300, blame=False), now=0.0).document
    assert patient["next_try"] == 300


def test_a_sink_that_is_down_is_no_fault_of_an_event() -> None:
    line = told(put(None, 1), failed="e1", why=DOWN, now=10.0).document
    assert (line["tries"], line["failing"], line["next_try"]) == (0, None, 11.0)


def test_an_event_is_given_up_only_if_the_sink_takes_others() -> None:
    line = put(None, 1, 2)
    for number in range(ATTEMPTS + 5):
        decision = told(line, failed="e1", why=BROKEN, now=100.0 + number, well_since=50.0)
        line = decision.document
        assert decision.answer is None
    decision = told(line, failed="e1", why=BROKEN, now=900.0, well_since=500.0)
    assert decision.answer == "e1"
    assert ids(decision.document) == ["e2"]
    assert (decision.document["tries"], decision.document["next_try"]) == (0, 900.0)
    assert ids(put(decision.document, 1)) == ["e2"]


def test_what_somebody_else_sent_meanwhile_changes_nothing() -> None:
    line = told(put(None, 1, 2), "e1", "e2").document
    assert (ids(line), line["next_try"], line["since"]) == ([], None, None)
    assert told(line, "e1", failed="e2", why=BROKEN).document in (None, line)


def test_what_is_written_down_twice_takes_nothing_out_of_anothers_hand() -> None:
    line = told(put(None, 1, 2), "e1", now=1.0).document
    claimed = outbox.claim(line, now=2.0, until=62.0).document
    assert claimed is not None
    # The database went away after the first time, so that it is told once more.
    again = told(claimed, "e1", now=3.0).document or claimed
    assert outbox.claim(again, now=4.0, until=64.0).answer == []


@given(st.lists(st.one_of(
    st.tuples(st.just("put"), st.integers(0, 20)),
    st.tuples(st.just("send"), st.integers(0, 5)),
    st.tuples(st.just("fail"), st.integers(0, 5)),
    st.tuples(st.just("lost"), st.integers(0, 5)),
), max_size=60))  # fmt: skip
def test_nothing_is_lost_or_overtaken_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """Of what waits the earliest goes first, and all that was put in comes out at last."""
    line: Document = put(None)
    if not line:
        line = put(None, 0)
    got: list[str] = []
    came = {"e0"}
    now = 0.0

    def turn(count: int, *, fails: bool, lost: bool = False) -> None:
        nonlocal line
        claimed = outbox.claim(line, now=now, until=now + 60)
        line = claimed.document or line
        heads = [item["id"] for item in claimed.answer]
        arrived = heads[:count]
        assert heads == sorted(ids(line), key=lambda name: int(name[1:]))[: len(heads)]
        got.extend(arrived)
        if lost:
            # It arrived, and the process died before it said so.
            return
        failed = heads[count] if fails and count < len(heads) else None
        why = BROKEN if failed else None
        line = told(line, *arrived, failed=failed, why=why, now=now).document or line

    for what, number in steps:
        now += 700.0
        if what == "put":
            line = put(line, number, now=now)
            came.add(f"e{number}")
        else:
            turn(number, fails=what == "fail", lost=what == "lost")
    while ids(line):
        now += 700.0
        turn(5, fails=False)
    assert set(got) == came
    assert line["next_try"] is None
