"""So much to one sink, so much in all; what goes wrong gives its place back."""

from __future__ import annotations

import threading

from services.notify.courier import AT_ONCE, PER_SINK, Courier

_LIMIT_SECONDS = 30.0


def test_a_sink_fills_its_own_places_and_no_others() -> None:
    over = threading.Event()

    def hold() -> None:
        over.wait(_LIMIT_SECONDS)

    courier = Courier(lambda: None)
    for _ in range(PER_SINK):
        courier.send("slow", hold)
    assert (courier.room("slow"), courier.room("fast")) == (0, PER_SINK)
    for number in range(AT_ONCE // PER_SINK - 1):
        for _ in range(PER_SINK):
            courier.send(f"other-{number}", hold)
    assert courier.room("fast") == 0
    over.set()
    courier.wait(_LIMIT_SECONDS)
    assert (courier.room("slow"), courier.room("fast")) == (PER_SINK, PER_SINK)


def test_a_job_that_fails_gives_its_place_back_and_is_told() -> None:
    ended = threading.Event()

    def fails() -> None:
        raise ValueError("a defect")

    courier = Courier(ended.set)
    courier.send("sink", fails)
    assert ended.wait(_LIMIT_SECONDS)
    courier.wait(_LIMIT_SECONDS)
    assert courier.room("sink") == PER_SINK
