"""A level's turn with a case: its deadlines, who is there, and which deadline passes first.

What a preview and a replay have in common; the only place of either that knows from which
instants deadlines count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from services.grid import deadlines
from services.grid.clock import Instant
from services.grid.directory import OnDuty
from services.grid.profile import Loaded
from services.grid.tokens import Address


class Turn(NamedTuple):
    """A level's turn, from when its clock starts.

    ``deadlines`` are as events carry them, in the order in which they pass; ``officers`` who
    answers then, and ``why``; ``skipped`` that nobody does, where the profile then moves a case
    up at once.
    """

    address: Address
    arrives: Instant
    deadlines: list[dict[str, Any]]
    officers: tuple[OnDuty, ...]
    why: str
    skipped: bool

    def passing(self, met: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any] | None:
        """The first deadline to move the case on, of those that were not ``met``; or None."""
        moving = (item for item in self.deadlines if item["kind"] in deadlines.KINDS)
        return next((item for item in moving if not met(item)), None)

    def passes_at(self, deadline: Mapping[str, Any]) -> Instant:
        """When a deadline passes here: one on the case's own clock may be due on arrival."""
        return max(self.arrives, Instant(deadline["due"]))


def turn(
    loaded: Loaded,
    facts: Mapping[str, Any],
    address: Address,
    arrives: Instant,
    reported: Instant,
    *,
    round_: int = 1,
) -> Turn:
    """The turn of the level at ``address``.

    :param facts: category, urgency and source.
    :param arrives: when the level's clock starts; ``reported``: when the case's own did.
    :param round_: a reopened case may have less time.
    """
    officers, why = loaded.profile.on_duty(address, loaded.directory, arrives)
    start = deadlines.Start(arrives, reported)
    return Turn(
        address=address,
        arrives=arrives,
        deadlines=deadlines.for_level(
            loaded.profile, facts, address, start, loaded.holidays, round_=round_
        ),
        officers=officers,
        why=why,
        skipped=not officers and loaded.profile.unstaffed == "skip",
    )
