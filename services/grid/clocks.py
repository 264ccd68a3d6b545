"""The two clocks of a case: the level's, which starts again with each hop, and its own.

As events carry them, ``{"level": {"started_at", "pauses"}, "case": {...}}``; a pause is
``{"starts", "ends", "reason"}``, with ``began`` if it began before the clock was started anew;
``pauses`` is absent where there is none. A suspension (挂起) is a pause that ends in advance at its
longest time, so that a desk that dies suspended holds nothing up; to resume is to end it sooner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from services.grid.calendars import Pause
from services.grid.clock import Instant

CLOCKS = ("level", "case")
"""The clocks that a reason of suspension may stop."""

ENDED = "ended"
"""Why a clock stood between the end of a round and its reopening."""

Clock = dict[str, Any]


def starting(at: Instant) -> dict[str, Clock]:
    """The clocks of a case that is reported now."""
    return {name: {"started_at": at} for name in CLOCKS}


def of_next_hop(clocks: Mapping[str, Clock], started: Instant) -> dict[str, Clock]:
    """The level's clock starts anew; what stopped the case's own ends with the hop."""
    return {"level": {"started_at": started}, "case": _until(clocks["case"], started)}


def restarted(clocks: Mapping[str, Clock], at: Instant) -> dict[str, Clock]:
    """The level's clock starts again where it is; a pause that is not over goes on."""
    level: Clock = {"started_at": at}
    lasting = [
        _clipped(item, max(item["starts"], at))
        for item in _pauses(clocks["level"])
        if item["ends"] > at
    ]
    return {**clocks, "level": {**level, "pauses": lasting} if lasting else level}


def paused(
    clocks: Mapping[str, Clock], stops: Iterable[str], start: Instant, end: Instant, reason: str
) -> dict[str, Clock]:
    """The clocks with one more pause of those that ``stops`` names."""
    pause = {"starts": start, "ends": end, "reason": reason}
    stopped = {name: {**clocks[name], "pauses": [*_pauses(clocks[name]), pause]} for name in stops}
    return {**clocks, **stopped}


def running(clocks: Mapping[str, Clock], at: Instant) -> dict[str, Clock]:
    """The clocks with every pause ended by ``at``: nothing stops them from then on."""
    return {name: _until(clock, at) for name, clock in clocks.items()}


def pauses(clock: Mapping[str, Any]) -> tuple[Pause, ...]:
    """The pauses of a clock, in their order."""
    return tuple(Pause(item["starts"], item["ends"], item["reason"]) for item in _pauses(clock))


def round_began(clocks: Mapping[str, Clock]) -> Instant:
    """When the case was reported, or last reopened."""
    own = clocks["case"]
    began: Instant = own["started_at"]
    ended = [pause.ends for pause in pauses(own) if pause.reason == ENDED]
    return max([began, *ended])


def with_pauses_of(clocks: Mapping[str, Clock], other: Mapping[str, Clock]) -> dict[str, Clock]:
    """The clocks with the pauses that ``other`` has of the same clocks; what ends sooner counts."""
    return {name: _with_pauses_of(clock, other[name]) for name, clock in clocks.items()}


def stands_until(clocks: Mapping[str, Clock], at: Instant) -> bool:
    """Whether a pause of any of the clocks ends just then."""
    return any(pause.ends == at for clock in clocks.values() for pause in pauses(clock))


def suspensions(clocks: Mapping[str, Clock]) -> int:
    """How often the case was suspended since the level's clock started."""
    since = clocks["level"]["started_at"]
    found = {pause for clock in clocks.values() for pause in pauses(clock)}
    return len({pause.starts for pause in found if pause.starts >= since and pause.reason != ENDED})


def _pauses(clock: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(clock.get("pauses", ()))


def _until(clock: Mapping[str, Any], at: Instant) -> Clock:
    if "pauses" not in clock:
        return dict(clock)
    kept = []
    for item in clock["pauses"]:
        if item["reason"] == ENDED:
            # Between two rounds the clock stood, whenever the next level's begins.
            kept.append(item)
        elif item["starts"] <= at:
            kept.append({**item, "ends": min(item["ends"], at)})
    return {**clock, "pauses": kept}


def _with_pauses_of(clock: Clock, other: Clock) -> Clock:
    found = {_which(item): item for item in _pauses(clock)}
    for item in _pauses(other):
        known = found.get(_which(item), item)
        sooner = {**known, "ends": min(known["ends"], item["ends"])}
        # Of one that was over before the clock began anew a trace is kept, for what is heard later.
        found[_which(item)] = _clipped(sooner, max(known["starts"], clock["started_at"]))
    if not found:
        return dict(clock)
    return {**clock, "pauses": sorted(found.values(), key=lambda item: str(item["starts"]))}


def _which(pause: Mapping[str, Any]) -> tuple[Instant, str]:
    """What tells a pause from others of its clock, also once a restart has cut it."""
    return pause.get("began", pause["starts"]), pause["reason"]


def _clipped(pause: Mapping[str, Any], at: Instant) -> dict[str, Any]:
    """What is left of a pause for a clock that starts at ``at``; nothing if it was over then."""
    left = {**pause, "starts": at, "ends": max(at, pause["ends"])}
    began, _reason = _which(pause)
    return {**left, "began": began} if began < at else left
