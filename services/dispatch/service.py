"""A desk as a nameko service: the table of what it listens to and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from services.bus.access import Touches
from services.bus.alarm import every
from services.bus.consumer import Batch, events
from services.bus.desk_acts import LINK, MERGE, OFFICERS, SUPERVISE, UNLINK, UNWATCH, WATCH, DeskAct
from services.bus.rpc import caller, serve
from services.bus.shell import Shell, attach
from services.bus.web import Answer, Call, Operations, route
from services.dispatch import api, calls, model, reconciliation
from services.dispatch.store import Docket

# What an officer does to a case; what they ask the custodian for; the answers to the level below.
_act = partial(
    route,
    "POST",
    may=OFFICERS,
    touches=Touches.CASES,
    answers=api.EntryShown(),
    problems=api.MOVED_ON,
    repeatable=True,
    tagged=True,
)
_ask = partial(_act, problems=api.ASKED, waits=True)
_answer = partial(
    route,
    "POST",
    body=api.AnswerBody(),
    may=api.GRANTERS,
    touches=Touches.CASES,
    answers=api.ExtensionShown(),
    problems=api.ANSWERED,
    tagged=True,
)
_answer_call = partial(
    route,
    "POST",
    body=api.CallBody(),
    may=OFFICERS,
    touches=Touches.CASES,
    answers=api.CallShown(),
    problems=api.CALL_ANSWERED,
    tagged=True,
)


def _relayed(act: DeskAct) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What another service decides, and is done at a desk like everything else."""
    return route(
        "POST",
        f"/v1/desks/<level>/cases/<case>/{act.name}",
        body=act.body,
        may=OFFICERS,
        touches=Touches.CASES,
        answers=act.answers,
        problems=act.problems,
        repeatable=act.repeatable,
        tagged=True,
        waits=act.waits,
    )


class Service(Operations):
    """The desk (受理台) of one level."""

    name = "dispatch"
    shell = attach(lambda config: Shell(config, Docket, "directory_{level}"))
    rpc = caller()

    @events("events")
    def on_events(self, batch: Batch) -> None:
        """Arrivals, releases and refusals for this level."""
        level, now = self.shell.config.level, self.shell.now
        works = self.shell.works(
            batch.events, lambda event, atlas: model.work(event, level, atlas, now)
        )
        self.shell.fold.run(works, batch.acknowledge)

    @events("directory")
    def on_directory(self, batch: Batch) -> None:
        """The directory as intake publishes it."""
        self.shell.absorb_directory(batch)

    @every(1)
    def sweep(self) -> None:
        """Publishes what a crash left."""
        self.shell.sweep()

    @serve
    def live_entries(self, after: str, limit: int) -> list[dict[str, Any]]:
        """For the reconciler: what is live here."""
        return reconciliation.live_entries(self.shell.store, after, limit)

    @serve
    def entries_of(self, places: list[tuple[str, int, int]], whole: bool) -> list[dict[str, Any]]:
        """For the reconciler: these entries."""
        return reconciliation.entries_of(self.shell.store, places, whole=whole)

    @serve
    def calls_of(self, calls: list[str]) -> list[str]:
        """For the reconciler: of which of these calls this desk knows."""
        return reconciliation.calls_of(self.shell.store, calls)

    @route(
        "GET",
        "/v1/desks/<level>/cases",
        query=api.DocketQuery(),
        may=api.READERS,
        touches=Touches.CASES,
        answers=api.EntriesPage(),
    )
    def cases(self, call: Call, level: str) -> dict[str, Any]:
        """The docket (案卷), the latest arrival first."""
        return api.entries(self.shell, call, level)

    @route(
        "GET",
        "/v1/desks/<level>/cases/<case>",
        may=api.READERS,
        touches=Touches.CASES,
        answers=api.EntryShown(),
        tagged=True,
    )
    def entry(self, call: Call, level: str, case: str) -> Answer:
        """The entry of the last time that a case came to this desk."""
        return api.entry(self.shell, call, level, case)

    @route(
        "GET",
        "/v1/desks/<level>/duty",
        query=api.DutyQuery(),
        may=api.READERS,
        touches=Touches.ANYWHERE,
        answers=api.DutyPage(),
    )
    def duty(self, call: Call, level: str) -> dict[str, Any]:
        """Who is on duty (值班), until when, and who is next."""
        return api.duty(self.shell, call, level)

    @route(
        "GET",
        "/v1/desks/<level>/rates",
        query=api.RatesQuery(),
        may=api.READERS,
        touches=Touches.CASES,
        answers=api.RatesShown(),
    )
    def rates(self, call: Call, level: str) -> dict[str, Any]:
        """What became of what arrived (响应率, 办结率, 按期办结率, 超时率)."""
        return api.rates(self.shell, call, level)

    @_act("/v1/desks/<level>/cases/<case>/acknowledge", body=api.ActBody())
    def acknowledge(self, call: Call, level: str, case: str) -> Answer:
        """Accepts a case (接单)."""
        return api.acknowledge(self.shell, call, level, case)

    @_act("/v1/desks/<level>/cases/<case>/note", body=api.NoteBody())
    def note(self, call: Call, level: str, case: str) -> Answer:
        """Says how far a case is (进展)."""
        return api.note(self.shell, call, level, case)

    @_ask("/v1/desks/<level>/cases/<case>/escalate", body=api.RequestBody())
    def escalate(self, call: Call, level: str, case: str) -> Answer:
        """Asks for a case to go one level up (提级)."""
        return api.request(self.shell, call, level, case, "escalate")

    @_ask("/v1/desks/<level>/cases/<case>/delegate", body=api.DelegateBody())
    def delegate(self, call: Call, level: str, case: str) -> Answer:
        """Asks for a case to go down (下派)."""
        return api.request(self.shell, call, level, case, "delegate")

    @_ask("/v1/desks/<level>/cases/<case>/transfer", body=api.MoveBody())
    def transfer(self, call: Call, level: str, case: str) -> Answer:
        """Asks for a case to go sideways (转办)."""
        return api.request(self.shell, call, level, case, "transfer")

    @_ask("/v1/desks/<level>/cases/<case>/return", body=api.RequestBody())
    def send_back(self, call: Call, level: str, case: str) -> Answer:
        """Asks for a case to go back to who sent it (退回)."""
        return api.request(self.shell, call, level, case, "return")

    @_act("/v1/desks/<level>/cases/<case>/resolve", body=api.ResolveBody())
    def resolve(self, call: Call, level: str, case: str) -> Answer:
        """Settles a case (办结)."""
        return api.resolve(self.shell, call, level, case)

    @_act("/v1/desks/<level>/cases/<case>/suspend", body=api.SuspendBody())
    def suspend(self, call: Call, level: str, case: str) -> Answer:
        """Lets a case wait (挂起)."""
        return api.suspend(self.shell, call, level, case)

    @_act("/v1/desks/<level>/cases/<case>/resume", body=api.ActBody())
    def resume(self, call: Call, level: str, case: str) -> Answer:
        """Lets a case wait no longer (恢复)."""
        return api.resume(self.shell, call, level, case)

    @_act("/v1/desks/<level>/cases/<case>/whistle", body=api.WhistleBody())
    def whistle(self, call: Call, level: str, case: str) -> Answer:
        """Calls units to join a case (吹哨)."""
        return api.whistle(self.shell, call, level, case)

    @_act("/v1/desks/<level>/cases/<case>/release", body=api.ReleaseBody())
    def release(self, call: Call, level: str, case: str) -> Answer:
        """Lets a unit leave that was called, and scores it (评价)."""
        return api.release(self.shell, call, level, case)

    @_relayed(SUPERVISE)
    def supervise(self, call: Call, level: str, case: str) -> Answer:
        """Has a case supervised (督办), by somebody above its holder."""
        return api.elsewhere(self.shell, call, level, case, act=SUPERVISE, rpc=self.rpc)

    @_relayed(MERGE)
    def merge(self, call: Call, level: str, case: str) -> Answer:
        """Merges a case with another that is the same matter (并案): the older one is kept."""
        return api.elsewhere(self.shell, call, level, case, act=MERGE, rpc=self.rpc)

    @_relayed(WATCH)
    def watch(self, call: Call, level: str, case: str) -> Answer:
        """Has somebody told of what happens to a case (关注)."""
        return api.elsewhere(self.shell, call, level, case, act=WATCH, rpc=self.rpc)

    @_relayed(UNWATCH)
    def unwatch(self, call: Call, level: str, case: str) -> Answer:
        """Has somebody told of it no longer (取消关注)."""
        return api.elsewhere(self.shell, call, level, case, act=UNWATCH, rpc=self.rpc)

    @_relayed(LINK)
    def link(self, call: Call, level: str, case: str) -> Answer:
        """Links two cases that have to do with each other (关联)."""
        return api.elsewhere(self.shell, call, level, case, act=LINK, rpc=self.rpc)

    @_relayed(UNLINK)
    def unlink(self, call: Call, level: str, case: str) -> Answer:
        """Two cases have nothing to do with each other after all."""
        return api.elsewhere(self.shell, call, level, case, act=UNLINK, rpc=self.rpc)

    @route(
        "GET",
        "/v1/desks/<level>/calls",
        query=api.CallsQuery(),
        may=api.READERS,
        touches=Touches.CASES,
        answers=api.CallsPage(),
    )
    def calls(self, call: Call, level: str) -> dict[str, Any]:
        """What the units of this level are called to."""
        return api.called(self.shell, call, level)

    @route(
        "GET",
        "/v1/desks/<level>/calls/<identity>",
        may=api.READERS,
        touches=Touches.CASES,
        answers=api.CallShown(),
        tagged=True,
    )
    def one_call(self, call: Call, level: str, identity: str) -> Answer:
        """What a unit is called to."""
        return api.one_call(self.shell, call, level, identity)

    @_answer_call("/v1/desks/<level>/calls/<identity>/check-in")
    def check_in(self, call: Call, level: str, identity: str) -> Answer:
        """Says that a unit has come (报到)."""
        return api.answer_call(self.shell, call, level, identity, calls.check_in)

    @_answer_call("/v1/desks/<level>/calls/<identity>/finish")
    def finish(self, call: Call, level: str, identity: str) -> Answer:
        """Says that a unit is done; it stays until it is released."""
        return api.answer_call(self.shell, call, level, identity, calls.finish)

    @_act(
        "/v1/desks/<level>/cases/<case>/extend",
        body=api.ExtendBody(),
        status=202,
    )
    def extend(self, call: Call, level: str, case: str) -> Answer:
        """Asks the level above for more time (延期)."""
        return api.extend(self.shell, call, level, case)

    @route(
        "GET",
        "/v1/desks/<level>/extensions",
        query=api.ExtensionsQuery(),
        may=api.READERS,
        touches=Touches.CASES,
        answers=api.ExtensionsPage(),
    )
    def extensions(self, call: Call, level: str) -> dict[str, Any]:
        """What the level below asks for."""
        return api.extensions(self.shell, call, level)

    @route(
        "GET",
        "/v1/desks/<level>/extensions/<identity>",
        may=api.READERS,
        touches=Touches.CASES,
        answers=api.ExtensionShown(),
        tagged=True,
    )
    def one_extension(self, call: Call, level: str, identity: str) -> Answer:
        """What the level below asks for, and what it was answered."""
        return api.one_extension(self.shell, call, level, identity)

    @_answer("/v1/desks/<level>/extensions/<identity>/grant")
    def grant(self, call: Call, level: str, identity: str) -> Answer:
        """Grants more time (同意延期)."""
        return api.answer_extension(self.shell, call, level, identity, granted=True)

    @_answer("/v1/desks/<level>/extensions/<identity>/refuse")
    def refuse(self, call: Call, level: str, identity: str) -> Answer:
        """Refuses more time (不同意延期)."""
        return api.answer_extension(self.shell, call, level, identity, granted=False)
