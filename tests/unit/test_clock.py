"""The clock: instants are text that sorts as time, and virtual time comes from one anchor."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.grid import clock
from services.grid.clock import FrozenClock, Instant, ScaledClock

MOMENTS = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.builds(
        lambda minutes: timezone(timedelta(minutes=minutes)), st.integers(-720, 840)
    ),
)


@given(MOMENTS, MOMENTS)
def test_text_order_is_time_order(first: datetime, second: datetime) -> None:
    earlier, later = clock.instant(first), clock.instant(second)
    cut = [
        moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)
        for moment in (first, second)
    ]
    assert (earlier < later) == (cut[0] < cut[1])
    assert clock.moment(earlier) == cut[0]
    assert clock.seconds_between(earlier, later) == (cut[1] - cut[0]).total_seconds()


@given(MOMENTS)
def test_an_instant_reads_back(moment: datetime) -> None:
    value = clock.instant(moment)
    assert clock.parse(value) == value
    assert clock.instant(clock.moment(value)) == value
    assert clock.parse(moment.isoformat()) == value


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        clock.instant(datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-03-01T00:00:00+08:00", "2026-02-28T16:00:00.000Z"),
        ("2026-02-28t16:00:00.1239z", "2026-02-28T16:00:00.123Z"),
        ("2026-02-28 16:00:00Z", "2026-02-28T16:00:00.000Z"),
    ],
)
def test_times_from_outside(text: str, value: str) -> None:
    assert clock.parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-03-01",
        "2026-03-01T00:00:00",
        "2026-02-30T00:00:00Z",
        "2026-03-01T24:30:00Z",
        "2026-03-01T00:00:00+99:00",
        "٢٠٢٦-03-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "2026-03-01T00:00:00Z\n",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="write an RFC 3339 time with a zone, such as"):
        clock.parse(text)


@given(MOMENTS, st.integers(-(10**9), 10**9))
def test_plus(moment: datetime, milliseconds: int) -> None:
    value = clock.instant(moment)
    moved = clock.plus(value, milliseconds / 1000)
    assert round(clock.seconds_between(value, moved) * 1000) == milliseconds


def test_without_a_scale_it_is_the_wall_clock() -> None:
    wall = ScaledClock.from_environment({})
    before = time.time()
    virtual = clock.moment(wall.now()).timestamp()
    assert before - 0.002 <= virtual <= time.time()
    assert before <= wall.real() <= time.time()
    assert wall.real_seconds(60) == 60


def test_processes_with_the_same_anchor_live_in_the_same_time() -> None:
    environment = {
        "TIME_SCALE": "600",
        "TIME_ANCHOR": "2026-11-23T00:00:00Z/2026-01-05T08:00:00+08:00",
    }
    first, second = (ScaledClock.from_environment(environment) for _ in range(2))
    assert first == second
    real = first.real()
    elapsed = clock.moment(first.now()).timestamp() - first.anchor_virtual
    assert elapsed / 600 == pytest.approx(real - first.anchor_real, abs=1)
    assert first.real_seconds(600) == 1


@pytest.mark.parametrize("scale", ["0", "-1", "fast", "nan", "inf", "1000001", ""])
def test_a_wrong_scale_is_named(scale: str) -> None:
    with pytest.raises(ValueError, match=r"^TIME_SCALE is .*: write a number above 0"):
        ScaledClock.from_environment({"TIME_SCALE": scale})


def test_a_scale_needs_an_anchor() -> None:
    with pytest.raises(ValueError, match=r"^TIME_SCALE needs TIME_ANCHOR"):
        ScaledClock.from_environment({"TIME_SCALE": "600"})


@pytest.mark.parametrize("anchor", ["", "now", "2026-11-23T00:00:00Z", "a/b", "2026-11-23/now/x"])
def test_a_wrong_anchor_is_named(anchor: str) -> None:
    with pytest.raises(ValueError, match=r"^TIME_ANCHOR is .*: write REAL/VIRTUAL"):
        ScaledClock.from_environment({"TIME_SCALE": "2", "TIME_ANCHOR": anchor})


def test_a_frozen_clock_moves_when_it_is_told_to() -> None:
    frozen = FrozenClock(Instant("2026-01-05T00:00:00.000Z"))
    assert frozen.now() == frozen.now()
    assert frozen.advance(7200) == "2026-01-05T02:00:00.000Z"
    assert frozen.real() == clock.moment(frozen.now()).timestamp()
    frozen.set(Instant("2026-01-01T00:00:00.000Z"))
    assert frozen.now() == "2026-01-01T00:00:00.000Z"
    assert frozen.real_seconds(5) == 5


def test_monotonic_never_goes_back() -> None:
    values = [clock.monotonic() for _ in range(100)]
    assert values == sorted(values)
