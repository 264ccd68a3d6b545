"""Intake as a nameko service: the table of what it listens to and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from services.bus import desk_acts, relay
from services.bus.access import Touches
from services.bus.alarm import alarm, every
from services.bus.consumer import Batch, events
from services.bus.inbound import Parcel, inbound
from services.bus.rpc import serve
from services.bus.shell import attach
from services.bus.web import Answer, Call, Operations, route
from services.grid.clock import Instant
from services.intake import (
    api,
    board,
    directory_api,
    door,
    reconciliation,
    related,
    replay,
    resending,
    subscribing,
)
from services.intake import systems as registry
from services.intake.open311.routes import Open311


class Service(Operations, Open311):
    """Reports come in here; it keeps the register (台账), the timeline and the directory."""

    name = "intake"
    shell = attach(door.DoorShell)

    @events("events")
    def on_events(self, batch: Batch) -> None:
        """Everything that happens to cases and notifications."""
        self.shell.absorb(batch)

    @events("directory")
    def on_wanted(self, batch: Batch) -> None:
        """A service that came late asks for the directory."""
        self.shell.republish(batch)

    @inbound
    def on_inbound(self, parcels: Sequence[Parcel]) -> None:
        """What other systems send over AMQP."""
        self.shell.door.receive(parcels)

    @every(1)
    def sweep(self) -> None:
        """Publishes what a crash left."""
        self.shell.sweep()

    @every(5)
    def count_losses(self) -> None:
        """Counts the events that waited too long for a system that subscribed to them."""
        resending.count_losses(self.shell)

    @alarm
    def close_unanswered(self) -> float:
        """销号: closes resolved cases whose reporter has not answered in time."""
        return self.shell.close_unanswered()

    @serve
    def open_cases(self, after: str, limit: int) -> list[dict[str, Any]]:
        """For the reconciler: what the register has open."""
        return reconciliation.open_cases(self.shell.store, after, limit)

    @serve
    def cases_of(self, cases: list[str], whole: bool) -> list[dict[str, Any]]:
        """For the reconciler: these cases."""
        return reconciliation.cases_of(self.shell.store, cases, whole=whole)

    @serve
    def happened(self, at: str, key: str, types: list[str], limit: int) -> dict[str, Any]:
        """For notify: what subscribers are to get again."""
        return replay.happened(self.shell.timeline, Instant(at), key, types, limit)

    @serve
    def watch(self, asked: dict[str, Any], desk: str) -> dict[str, Any]:
        """Has somebody told of what happens to a case (关注), as asked at a desk."""
        return relay.answer(
            desk_acts.WATCH, asked, desk, partial(api.watch, self.shell, away=False)
        )

    @serve
    def unwatch(self, asked: dict[str, Any], desk: str) -> dict[str, Any]:
        """Has somebody told of it no longer (取消关注), as asked at a desk."""
        return relay.answer(
            desk_acts.UNWATCH, asked, desk, partial(api.watch, self.shell, away=True)
        )

    @serve
    def link(self, asked: dict[str, Any], desk: str) -> dict[str, Any]:
        """Links two cases that have to do with each other (关联), as asked at a desk."""
        return relay.answer(desk_acts.LINK, asked, desk, partial(related.link, self.shell, on=True))

    @serve
    def unlink(self, asked: dict[str, Any], desk: str) -> dict[str, Any]:
        """Two cases have nothing to do with each other after all, as said at a desk."""
        return relay.answer(
            desk_acts.UNLINK, asked, desk, partial(related.link, self.shell, on=False)
        )

    @route(
        "POST",
        "/v1/cases",
        body=api.ReportBody(),
        may=api.REPORTERS,
        touches=Touches.ANYWHERE,
        answers=api.Opened(),
        status=201,
        problems={409: "Another report was sent under the same Idempotency-Key."},
        repeatable=True,
    )
    def report(self, call: Call) -> Answer:
        """A report."""
        return api.report(self.shell, call)

    @route(
        "GET",
        "/v1/cases",
        query=api.CasesQuery(),
        may=api.SEEING,
        touches=Touches.CASES,
        answers=api.CasesPage(),
        by_key=True,
    )
    def cases(self, call: Call) -> dict[str, Any]:
        """A list of cases, the latest first."""
        return api.cases(self.shell, call)

    @route(
        "GET",
        "/v1/cases/<case>",
        may=api.SEEING,
        touches=Touches.CASES,
        answers=api.CaseShown(),
        tagged=True,
        by_key=True,
    )
    def show(self, call: Call, case: str) -> Answer:
        """A case, with who holds it, its clocks and deadlines."""
        return api.show(self.shell, call, case)

    @route(
        "POST",
        "/v1/cases/<case>/reopen",
        body=api.ReopenBody(),
        may=api.REOPENERS,
        touches=Touches.CASES,
        answers=api.CaseShown(),
        problems={409: "The case is not resolved."},
        tagged=True,
    )
    def reopen(self, call: Call, case: str) -> Answer:
        """Takes a resolved case up again (重新办理)."""
        return api.reopen(self.shell, call, case)

    @route(
        "POST",
        "/v1/cases/<case>/feedback",
        body=api.FeedbackBody(),
        may=api.ANSWERERS,
        touches=Touches.CASES,
        answers=api.CaseShown(),
        problems=api.NO_FEEDBACK,
        tagged=True,
    )
    def feedback(self, call: Call, case: str) -> Answer:
        """Takes what the reporter says of how a case was resolved (回访).

        Satisfied, the case is closed (销号); not satisfied, it is taken up again.
        """
        return api.feedback(self.shell, call, case)

    @route(
        "POST",
        "/v1/cases/<case>/withdraw",
        body=api.WithdrawBody(),
        may=api.ANSWERERS,
        touches=Touches.CASES,
        answers=api.CaseShown(),
        problems={409: "The case is resolved, or was withdrawn otherwise."},
        tagged=True,
    )
    def withdraw(self, call: Call, case: str) -> Answer:
        """Takes a report back (撤回)."""
        return api.withdraw(self.shell, call, case)

    @route(
        "POST",
        "/v1/events",
        content=door.CONTENT,
        may=("system",),
        touches=Touches.ANYWHERE,
        answers=door.TakenShown(),
        status=202,
        problems={
            409: "It is not possible now, or another event was sent under its source and id.",
            429: "The system sends faster than it may; `Retry-After` says when to come again.",
        },
        by_key=True,
    )
    def take_events(self, call: Call) -> Answer:
        """Takes events of another system, as CloudEvents: structured, binary, or a batch."""
        return door.post(self.shell.door, self.shell.systems.all(), call)

    @route(
        "GET",
        "/v1/rejected",
        query=door.RejectedQuery(),
        may=("operator", "auditor"),
        touches=Touches.COUNTY,
        answers=door.RejectedPage(),
    )
    def rejected(self, call: Call) -> dict[str, Any]:
        """What other systems sent in vain, the latest first."""
        return door.rejected(self.shell, call)

    @route(
        "GET",
        "/v1/systems",
        may=("operator", "auditor"),
        touches=Touches.COUNTY,
        answers=registry.SystemsShown(),
    )
    def systems(self, call: Call) -> dict[str, Any]:
        """The other systems that may come in, and what each may."""
        return self.shell.registrar.list(self.shell.county.atlas())

    @route(
        "PUT",
        "/v1/systems/<name>",
        body=registry.SystemBody(),
        may=("operator",),
        touches=Touches.COUNTY,
        answers=registry.SystemWithKey(),
    )
    def add_system(self, call: Call, name: str) -> Answer:
        """Adds a system with its first API key, or says anew what it may.

        The key is in no other answer.
        """
        return self.shell.registrar.put(call, name, self.shell.county.atlas(), self.shell.now)

    @route(
        "POST",
        "/v1/systems/<name>/rotate",
        body=registry.RotateBody(),
        may=("operator",),
        touches=Touches.COUNTY,
        answers=registry.SystemWithKey(),
    )
    def rotate_key(self, call: Call, name: str) -> Answer:
        """Makes a new API key for a system; the one before stays valid until the next rotation."""
        return self.shell.registrar.rotate(call, name, self.shell.county.atlas(), self.shell.now)

    @route(
        "DELETE",
        "/v1/systems/<name>",
        may=("operator",),
        touches=Touches.COUNTY,
        answers=registry.SystemShown(),
    )
    def remove_system(self, call: Call, name: str) -> dict[str, Any]:
        """Takes a system away: its keys end, its cases stay."""
        return self.shell.registrar.remove(call, name, self.shell.county.atlas())

    @route(
        "PUT",
        "/v1/systems/<name>/subscription",
        body=subscribing.SubscriptionBody(),
        may=("operator",),
        touches=Touches.COUNTY,
        answers=registry.SystemShown(),
    )
    def subscribe(self, call: Call, name: str) -> dict[str, Any]:
        """Says which events a system is sent over AMQP, within what it may read."""
        shell = self.shell
        return shell.registrar.subscribe(call, name, shell.county.atlas(), shell.now)

    @route(
        "DELETE",
        "/v1/systems/<name>/subscription",
        may=("operator",),
        touches=Touches.COUNTY,
        answers=registry.SystemShown(),
    )
    def unsubscribe(self, call: Call, name: str) -> dict[str, Any]:
        """Ends what a system is sent over AMQP."""
        return self.shell.registrar.unsubscribe(call, name, self.shell.county.atlas())

    @route(
        "POST",
        "/v1/systems/<name>/replay",
        body=resending.ReplayBody(),
        may=("operator",),
        touches=Touches.COUNTY,
        answers=resending.ReplayedShown(),
        problems=resending.TOO_FULL,
    )
    def replay(self, call: Call, name: str) -> dict[str, Any]:
        """Puts events of the timeline into a system's queue once more, a page at a time."""
        return resending.replay(self.shell, call, name)

    @route(
        "GET",
        "/v1/emergencies",
        may=api.READERS,
        touches=Touches.ANYWHERE,
        answers=api.Emergencies(),
    )
    def emergencies(self, call: Call) -> dict[str, Any]:
        """Where emergency mode (战时机制) is on, or was."""
        return api.emergencies(self.shell, call)

    @route(
        "POST",
        "/v1/emergencies/<division>/begin",
        body=api.SwitchBody(),
        may=api.SWITCHERS,
        touches=Touches.CASES,
        answers=api.EmergencyShown(),
        problems=api.NO_EMERGENCY,
    )
    def begin_emergency(self, call: Call, division: str) -> Answer:
        """Switches a division with all below it to emergency mode (启动战时机制)."""
        return api.switch(self.shell, call, division, on=True)

    @route(
        "POST",
        "/v1/emergencies/<division>/end",
        body=api.SwitchBody(),
        may=api.SWITCHERS,
        touches=Touches.CASES,
        answers=api.EmergencyShown(),
        problems=api.NO_EMERGENCY,
    )
    def end_emergency(self, call: Call, division: str) -> Answer:
        """Switches a division back (结束战时机制)."""
        return api.switch(self.shell, call, division, on=False)

    @route(
        "GET",
        "/v1/directory",
        query=directory_api.DirectoryQuery(),
        may=directory_api.SEEING,
        touches=Touches.CASES,
        answers=directory_api.EntriesPage(),
    )
    def directory(self, call: Call) -> dict[str, Any]:
        """Divisions, units, officers or their duty, as the directory has them now."""
        return directory_api.entries(self.shell, call)

    @route(
        "POST",
        "/v1/directory",
        body=directory_api.DirectoryBody(),
        may=directory_api.EDITORS,
        touches=Touches.CASES,
        answers=directory_api.DirectoryChanged(),
    )
    def change_directory(self, call: Call) -> dict[str, Any]:
        """Makes units, officers and their duty (值班) what an operator says, at once."""
        return directory_api.change(self.shell, call)

    @route(
        "GET",
        "/v1/cases/<case>/duplicates",
        query=related.DuplicatesQuery(),
        may=api.READERS,
        touches=Touches.CASES,
        answers=related.DuplicatesShown(),
    )
    def duplicates(self, call: Call, case: str) -> dict[str, Any]:
        """What may be the same matter (疑似重复), with a score and why."""
        return related.alike(self.shell, call, case)

    @route(
        "GET",
        "/v1/cases/<case>/timeline",
        query=api.TimelineQuery(),
        may=api.READERS,
        touches=Touches.CASES,
        answers=api.TimelinePage(),
    )
    def timeline(self, call: Call, case: str) -> dict[str, Any]:
        """What happened to a case."""
        return api.timeline(self.shell, call, case)

    @route(
        "GET",
        "/v1/cases/<case>/reporter",
        may=api.CONTACTERS,
        touches=Touches.CASES,
        audited=True,
        answers=api.ReporterShown(),
    )
    def reporter(self, call: Call, case: str) -> Answer:
        """Who reported a case."""
        return api.reporter(self.shell, call, case)

    @route(
        "DELETE",
        "/v1/cases/<case>/reporter",
        may=api.FORGETTERS,
        touches=Touches.CASES,
        answers=api.ReporterShown(),
    )
    def forget(self, call: Call, case: str) -> Answer:
        """Forgets a reporter: nobody can read any more what they ever told of themselves."""
        return api.forget(self.shell, call, case)

    @route(
        "GET",
        "/v1/keys",
        answers=api.KeysShown(),
    )
    def keys(self, call: Call) -> dict[str, Any]:
        """The public key to which other systems seal who reports."""
        return self.shell.unsealer.public()

    @route(
        "GET",
        "/v1/tracking/<code>",
        answers=api.TrackingShown(),
    )
    def tracking(self, call: Call, code: str) -> dict[str, Any]:
        """How far a case is, for whoever knows its code."""
        return api.tracking(self.shell, call, code)

    @route(
        "POST",
        "/v1/tracking/<code>/feedback",
        body=api.FeedbackBody(),
        answers=api.TrackingShown(),
        problems=api.NO_FEEDBACK,
    )
    def feedback_by_code(self, call: Call, code: str) -> dict[str, Any]:
        """Takes feedback (回访) from whoever knows the tracking code."""
        return api.feedback_by_code(self.shell, call, code)

    @route(
        "GET",
        "/v1/public/cases",
        query=board.BoardQuery(),
        answers=board.BoardPage(),
        problems={404: "The division's profile opens no notice board."},
        tagged=True,
        cache_seconds=board.CACHE_SECONDS,
    )
    def board(self, call: Call) -> Answer:
        """The village's notice board (公示): what was reported and how it ended."""
        return board.board(self.shell, call)
