"""The two clocks of a case: the level's, which starts again with each hop, and its own.

As events carry them, ``{"level": {"started_at", "pauses"}, "case": {...}}``; a pause is
``{"starts", "ends", "reason"}``, and ``pauses`` is absent where there is none. A suspension (挂起)
is a pause that ends in advance at its longest time, so that a desk that dies suspended holds
nothing up; to resume is to end it sooner.
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
        {**item, "starts": max(item["starts"], at)}
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
    found = {(item["starts"], item["reason"]): item for item in _pauses(clock)}
    for item in _pauses(other):
        # What was over before the clock began again is nothing to it.
        if item["ends"] <= clock["started_at"]:
            continue
        started = max(item["starts"], clock["started_at"])
        known = found.get((started, item["reason"]), item)
        ends = min(known["ends"], item["ends"])
        found[started, item["reason"]] = {**item, "starts": started, "ends": ends}
    if not found:
        return dict(clock)
    return {**clock, "pauses": sorted(found.values(), key=lambda item: str(item["starts"]))}
