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
from services.bus.errors import Refused
from services.bus.fold import Decision, Outcome, Record, Work
from services.escalation import model
from services.escalation.firing import Markers
from services.escalation.shell import CustodianShell
from services.grid.atlas import Atlas, UnknownProfile
from services.grid.clock import Instant, seconds_between

log = logs.get(__name__)

PAGE = 1000
BEHIND_SECONDS = 5.0
"""Real seconds by which a custodian may be behind with its queue: what holders did meanwhile is
lost with the hop."""


class Switching:
    """The pass, and for which switches this process has done it."""

    def __init__(self) -> None:
        self._done: Any = None

    def work(self, custodian: CustodianShell, markers: Markers) -> None:
        """Brings over what is not under the rules of its place's mode, if a switch is new here."""
        atlas = custodian.county.atlas()
        switches = tuple(sorted(atlas.emergencies.values(), key=lambda item: item.division))
        metrics.EMERGENCIES.set(sum(item.on for item in switches))
        wanted = switches, custodian.shards, tuple(sorted(atlas.profiles))
        if wanted == self._done or not custodian.shards:
            return
        if not switches:
            self._done = wanted
            return
        if is_behind(custodian, markers):
            return
        moved, put_off = self._pass(custodian, atlas)
        if moved or put_off:
            log.info("cases follow a switch of emergency mode", moved=moved, put_off=put_off)
        if not put_off:
            self._done = wanted

    @staticmethod
    def _pass(custodian: CustodianShell, atlas: Atlas) -> tuple[int, int]:
        moved, put_off, after = 0, 0, ""
        while True:
            page = custodian.store.modes(after, PAGE, custodian.shards)
            cases = [case for case, facts in page if model.switches(facts, atlas)]
            outcomes = custodian.fold.run(works(cases, atlas, custodian.now))
            put_off += sum(outcome.error is not None for outcome in outcomes)
            for outcome in outcomes:
                if outcome.answer:
                    moved += 1
                    metrics.EMERGENCY_HOPS.labels("on" if outcome.answer["to"] else "off").inc()
            if len(page) < PAGE:
                break
            after = page[-1][0]
        if moved:
            custodian.ring()
        return moved, put_off


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
        except UnknownProfile as error:
            raise Refused(str(error)) from error

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
