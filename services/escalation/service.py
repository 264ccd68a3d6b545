"""The custodian as a nameko service: the table of what it listens to and what it answers."""

from __future__ import annotations

from functools import partial
from typing import Any

from services.bus import desk_acts, relay
from services.bus.access import Touches
from services.bus.alarm import every, lanes
from services.bus.consumer import Batch, events
from services.bus.rpc import caller, serve
from services.bus.shell import attach
from services.bus.web import Answer, Call, Operations, route
from services.escalation import api, duplicates, firing, reconciler, switching
from services.escalation.shell import CustodianShell


class Service(Operations):
    """Who holds each case (当前责任), and until when."""

    name = "escalation"
    shell = attach(CustodianShell)
    markers = firing.attach_markers()
    reconciler = reconciler.attach()
    switching = switching.attach()
    rpc = caller()

    @events("events")
    def on_events(self, batch: Batch) -> None:
        """Everything that intake and the desks say about cases, and its own markers."""
        firing.absorb(self.shell, self.markers, batch)

    @events("directory")
    def on_directory(self, batch: Batch) -> None:
        """The directory as intake publishes it."""
        self.shell.absorb_directory(batch)

    @lanes(firing.LANES)
    def fire(self, lane: int) -> float:
        """Acts on deadlines as soon as they are due."""
        return firing.fire(self.shell, self.markers, lane)

    @every(1)
    def beat(self) -> None:
        """So that all replicas know who lives, and how far they have read."""
        firing.beat(self.shell, self.markers)

    @every(1)
    def sweep(self) -> None:
        """Publishes what a crash left."""
        self.shell.sweep()

    @every(1)
    def reconcile(self) -> None:
        """Compares everything with everything, when it is time and this replica's turn."""
        self.reconciler.work(self.shell, self.markers, self.rpc)

    @every(1)
    def follow_switches(self) -> None:
        """Cases in flight go into emergency mode, and back."""
        self.switching.work(self.shell, self.markers)

    @serve
    def supervise(self, asked: dict[str, Any], desk: str) -> dict[str, Any]:
        """Has a case supervised (督办), as somebody asks at their desk."""
        return relay.answer(desk_acts.SUPERVISE, asked, desk, partial(api.supervise, self.shell))

    @serve
    def merge(self, asked: dict[str, Any], desk: str) -> dict[str, Any]:
        """Merges two cases (并案), as somebody asks at their desk."""
        decide = partial(duplicates.merge, self.shell, self.markers, self.rpc)
        return relay.answer(desk_acts.MERGE, asked, desk, decide)

    @route(
        "POST",
        "/v1/reconciliation",
        may=api.OPERATORS,
        touches=Touches.COUNTY,
        answers=api.Asked(),
        status=202,
    )
    def ask_to_reconcile(self, call: Call) -> dict[str, Any]:
        """Asks for a reconciliation that begins after now."""
        return api.reconcile(self.shell, call)

    @route(
        "GET",
        "/v1/reconciliation",
        may=api.INSPECTORS,
        touches=Touches.COUNTY,
        answers=api.ReconciliationShown(),
    )
    def reconciliation(self, call: Call) -> dict[str, Any]:
        """What the last reconciliation found, and how far the present one is."""
        return api.reconciliation(self.shell, call)

    @route(
        "GET",
        "/v1/cases/<case>/deadlines",
        may=api.READERS,
        touches=Touches.CASES,
        answers=api.DeadlinesShown(),
        tagged=True,
    )
    def deadlines(self, call: Call, case: str) -> Answer:
        """Each past and coming deadline of a case."""
        return api.deadlines(self.shell, call, case)

    @route(
        "POST",
        "/v1/migrations",
        body=api.MigrationBody(),
        may=api.OPERATORS,
        touches=Touches.CASES,
        answers=api.MigrationShown(),
    )
    def migrate(self, call: Call) -> dict[str, Any]:
        """Brings cases in flight under another version of their profile; a dry run by default."""
        return api.migrate(self.shell, self.markers, call)

    @route(
        "GET",
        "/v1/emergencies/<division>",
        query=api.EmergencyQuery(),
        may=api.INSPECTORS,
        touches=Touches.CASES,
        answers=api.SwitchShown(),
    )
    def emergency(self, call: Call, division: str) -> dict[str, Any]:
        """What a switch of emergency mode would change."""
        return api.emergency(self.shell, call, division)
