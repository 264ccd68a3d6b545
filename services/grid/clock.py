"""The only place that reads the time.

Everything else is given ``now``. An instant is kept as text, UTC, always with
milliseconds and a ``Z`` (``2026-02-28T16:00:00.000Z``), so that it is the same in an
event, in a document and in an answer, and so that text order is time order.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NewType, Protocol

Instant = NewType("Instant", str)
"""RFC 3339, UTC, three decimals, ``Z``: sorts as text in the order of time."""

_RFC3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


def instant(moment: datetime) -> Instant:
    """The instant of an aware ``datetime``; microseconds are cut to milliseconds.

    :raises ValueError: for a naive ``datetime``, whose zone nobody knows.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return Instant(moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z")


def moment(value: Instant) -> datetime:
    """The aware UTC ``datetime`` of an instant."""
    return datetime.fromisoformat(value)


def parse(text: str) -> Instant:
    """Reads an RFC 3339 time from outside.

    :raises ValueError: with what is wrong and what to write instead.
    """
    cure = "write an RFC 3339 time with a zone, such as 2026-11-23T08:30:00+08:00"
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"not a time: {cure}")
    try:
        return instant(datetime.fromisoformat(text.upper().replace(" ", "T")))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{error}: {cure}") from error


def plus(value: Instant, seconds: float) -> Instant:
    """``value`` moved by ``seconds`` (negative: back). Elapsed time, not calendar time."""
    return instant(moment(value) + timedelta(seconds=seconds)) if seconds else value


def seconds_between(earlier: Instant, later: Instant) -> float:
    """Seconds from ``earlier`` to ``later``; negative if they are the other way round."""
    return (moment(later) - moment(earlier)).total_seconds()


class Clock(Protocol):
    """The seam through which every shell gets its time."""

    def now(self) -> Instant:
        """The virtual time: of events, deadlines and documents."""

    def real(self) -> float:
        """Unix seconds of the real world: for lateness, back-off and token expiry."""

    def real_seconds(self, virtual_seconds: float) -> float:
        """How long ``virtual_seconds`` take in the real world."""


@dataclass(frozen=True)
class ScaledClock:
    """Virtual time that runs ``scale`` times as fast from one shared anchor.

    A process that is restarted with the same anchor lives in the same time. With a scale
    of 1 and equal anchors it is the wall clock.
    """

    scale: float = 1.0
    anchor_real: float = 0.0
    anchor_virtual: float = 0.0

    def now(self) -> Instant:
        """The virtual time; see :class:`Clock`."""
        virtual = self.anchor_virtual + (time.time() - self.anchor_real) * self.scale
        return instant(datetime.fromtimestamp(virtual, UTC))

    def real(self) -> float:
        """Unix seconds; see :class:`Clock`."""
        return time.time()

    def real_seconds(self, virtual_seconds: float) -> float:
        """Real seconds for a stretch of virtual ones; see :class:`Clock`."""
        return virtual_seconds / self.scale

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ScaledClock:
        """The clock of ``TIME_SCALE`` and ``TIME_ANCHOR``.

        ``TIME_ANCHOR`` is ``REAL/VIRTUAL``, two RFC 3339 times: at ``REAL`` it was
        ``VIRTUAL``. Without it, virtual time starts at the Unix epoch's real time, which
        with a scale of 1 is the wall clock.

        :raises ValueError: naming the variable, what it holds and what is allowed.
        """
        text = environment.get("TIME_SCALE", "1")
        try:
            scale = float(text)
        except ValueError:
            scale = 0.0
        if not 0 < scale <= 1_000_000:
            raise ValueError(
                f"TIME_SCALE is {text!r}: write a number above 0 and at most 1000000, "
                "such as 600 for ten minutes a second"
            )
        anchor = environment.get("TIME_ANCHOR")
        if anchor is None:
            if scale != 1:
                raise ValueError(
                    "TIME_SCALE needs TIME_ANCHOR, so that all processes live in the same "
                    "time: write REAL/VIRTUAL, such as "
                    "2026-11-23T00:00:00Z/2026-11-23T00:00:00Z"
                )
            return cls()
        try:
            real, virtual = (moment(parse(part)).timestamp() for part in anchor.split("/"))
        except ValueError as error:
            raise ValueError(
                f"TIME_ANCHOR is {anchor!r}: write REAL/VIRTUAL, two RFC 3339 times ({error})"
            ) from error
        return cls(scale, real, virtual)


class FrozenClock:
    """A clock that moves only when it is told to: for tests and the simulator."""

    def __init__(self, start: Instant = Instant("2026-01-05T00:00:00.000Z")) -> None:
        self._now = start

    def now(self) -> Instant:
        """The time it was set to; see :class:`Clock`."""
        return self._now

    def real(self) -> float:
        """The same time as Unix seconds; see :class:`Clock`."""
        return moment(self._now).timestamp()

    def real_seconds(self, virtual_seconds: float) -> float:
        """The same: a frozen clock has one time; see :class:`Clock`."""
        return virtual_seconds

    def advance(self, seconds: float) -> Instant:
        """Moves on by ``seconds`` and says what time it is then."""
        self._now = plus(self._now, seconds)
        return self._now

    def set(self, value: Instant) -> None:
        """Jumps to ``value``, forward or back."""
        self._now = value


def monotonic() -> float:
    """Seconds that never go back: for timeouts and measurements within one process."""
    return time.monotonic()
