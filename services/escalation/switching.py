"""Cases in flight follow the switches of emergency mode (战时机制): the custodian's hops.

New custody is brought over as it arrives (:func:`services.escalation.model.decide`); what is in
flight already, by a pass over all held cases, whenever a switch is heard of and at each start.
Each replica looks at its own share, and two that do the same case at once do it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from nameko.extensions import DependencyProvider

from services.bus import logs, metrics
from services.bus.errors import Refused, Retry
from services.bus.fold import Decision, Outcome, Record, Work
from services.escalation import model
from services.escalation.firing import Markers
from services.escalation.shell import CustodianShell
from services.grid.atlas import Atlas
from services.grid.clock import Instant, monotonic, seconds_between

log = logs.get(__name__)

PAGE = 1000
BEHIND_SECONDS = 5.0
"""Real seconds by which a custodian may be behind with its queue: what holders did meanwhile is
lost with the hop."""
LATE_SECONDS = 10.0
"""Real seconds after which every process has heard of a switch: each asks every five."""
AGAIN_SECONDS = 5.0
"""Real seconds until those cases are looked at again that could not be brought over."""


class Switching:
    """The passes of this process: one when it hears of a switch, and one after some seconds.

    The second is for what a process, which had not heard of it yet, let in behind the first.
    """

    def __init__(self) -> None:
        self._wanted: Any = None
        self._left: list[float] = []
        self._after = ""
        self._moved = self._put_off = 0

    def work(self, custodian: CustodianShell, markers: Markers) -> None:
        """Brings over what is not under the rules of its place's mode, if that may be anything."""
        try:
            self._work(custodian, markers)
        except Retry as error:
            log.warning("cases follow a switch of emergency mode later", why=str(error))

    def _work(self, custodian: CustodianShell, markers: Markers) -> None:
        while self._is_due(custodian) and not is_behind(custodian, markers):
            # What is switched back meanwhile takes no more cases along.
            atlas = custodian.county.atlas()
            page = custodian.store.modes(self._after, PAGE, custodian.shards)
            cases = [case for case, facts in page if model.switches(facts, atlas)]
            self._bring(custodian, cases, atlas)
            self._after = page[-1][0] if len(page) == PAGE else ""
            if not self._after:
                self._end()

    def _is_due(self, custodian: CustodianShell) -> bool:
        """Whether a pass is to begin or to go on; what is new to it begins two."""
        atlas, now = custodian.county.atlas(), monotonic()
        switches = sorted(atlas.emergencies.values(), key=lambda item: item.division)
        metrics.EMERGENCIES.set(sum(item.on for item in switches))
        profiles, divisions = sorted(atlas.profiles), atlas.directory.divisions
        wanted = switches, custodian.shards, profiles, divisions
        if wanted != self._wanted:
            self._wanted, self._after = wanted, ""
            self._left = [now, now + LATE_SECONDS] if switches and custodian.shards else []
        return bool(self._left) and now >= self._left[0]

    def _bring(self, custodian: CustodianShell, cases: Sequence[str], atlas: Atlas) -> None:
        outcomes = custodian.fold.run(works(cases, atlas, custodian.now))
        self._put_off += sum(outcome.error is not None for outcome in outcomes)
        moved = [outcome.answer["to"] for outcome in outcomes if outcome.answer]
        self._moved += len(moved)
        for to in moved:
            metrics.EMERGENCY_HOPS.labels("on" if to else "off").inc()
        if moved:
            custodian.ring()

    def _end(self) -> None:
        moved, put_off, self._moved, self._put_off = self._moved, self._put_off, 0, 0
        if moved or put_off:
            log.info("cases follow a switch of emergency mode", moved=moved, put_off=put_off)
        self._left = self._left[1:]
        if put_off:
            self._left = [monotonic() + AGAIN_SECONDS, *self._left]


class _Attachment(DependencyProvider):
    """Makes the pass of a process, and injects it."""

    def setup(self) -> None:
        self._switching = Switching()

    def get_dependency(self, worker_ctx: object) -> Switching:
        return self._switching


def attach() -> Switching:
    """The pass as an attribute of a nameko service class."""
    return cast(Switching, _Attachment())


def works(cases: Iterable[str], atlas: Atlas, now: Instant) -> list[Work]:
    """The work that brings these cases over; one that can't be is refused, and no other with it."""

    def change(record: Record) -> Decision:
        try:
            return model.switch(record, atlas, now)
        except (LookupError, ValueError) as error:
            # One case that can't be brought over must not hold up the others.
            raise Refused(f"it can't be brought over: {error}") from error

    return [Work(case, change) for case in cases]


def is_behind(custodian: CustodianShell, markers: Markers) -> bool:
    """Whether the custodian has not read its queue up to some seconds ago."""
    read = markers.read(custodian.custodians.reached(markers.by))
    if read is None:
        return True
    return custodian.clock.real_seconds(seconds_between(read, custodian.now)) > BEHIND_SECONDS


def tried(custodian: CustodianShell, works: Sequence[Work]) -> list[Outcome]:
    """What would become of these, with nothing written."""
    records = custodian.store.read([work.key for work in works])
    found = []
    for work in works:
        try:
            decision = work.change(records.get(work.key) or Record(work.key))
            found.append(Outcome(decision.answer))
        except Refused as error:
            found.append(Outcome(error=error))
    return found
