"""The reconciler: compares every open case at register, dockets and custody, and mends.

One replica at a time makes a pass, page by page, in the order of keys and without a window:
all that the custodian holds, all that the register has open, all that is live at each desk.
What a first look finds may be an event in flight; a second look after a pause must find the
same, with nothing moved. Who does not answer is left out, and said to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar, cast

from nameko.extensions import DependencyProvider

from services.bus import logs, metrics
from services.bus.errors import Retry
from services.bus.fold import Record, Work
from services.bus.rpc import Caller, NoAnswer
from services.escalation import firing, reconciliation
from services.escalation.firing import Markers
from services.escalation.reconciliation import ABSORBED, OWN, Finding, Page, Place, Told
from services.escalation.shell import CustodianShell
from services.grid.clock import Instant, monotonic
from services.grid.events import Event, InvalidEvent
from services.grid.tokens import Token

log = logs.get(__name__)

PAGE = 500
"""Cases or entries of one question."""
PAUSE_SECONDS = 3.0
"""Real seconds before the second look: longer than an event is under way when all is well."""
MOST_SUSPECTS = 2_000
"""So many of a first look are kept before the second is taken."""
MOST_REPAIRS = 2_000
"""So many repairs a pass: what is wrong with more cases than that, people should look at."""
_TRIES = 2
_SHOWN = 100
_CATCH_UP_TRIES = 5
_SLICE_SECONDS = 5.0
_REGISTER = "register"

T = TypeVar("T")


class Reconciler:
    """What a process knows of the pass that it is making, if it is its turn."""

    def __init__(self) -> None:
        self._pass: Pass | None = None
        self._steps: Iterator[float] = iter(())
        self._not_before = 0.0

    def work(self, custodian: CustodianShell, markers: Markers, rpc: Caller) -> None:
        """Makes some seconds' worth of a pass, or finds that none is due."""
        if not custodian.is_ready:
            return
        try:
            if self._pass is None:
                self._begin(custodian, markers)
            if self._pass is not None:
                self._go_on(custodian, self._pass, rpc)
        except Retry as error:
            # It is begun anew: what was mended stays so.
            self._pass = None
            log.warning("reconciliation is put off", why=str(error))
        except Exception:
            metrics.RECONCILIATION_PASSES.labels("failed").inc()
            failed, self._pass = self._pass, None
            log.exception("a pass of the reconciliation failed")
            if failed is not None:
                custodian.passes.finish(custodian.replica, failed.result("failed"))

    def _begin(self, custodian: CustodianShell, markers: Markers) -> None:
        known = custodian.passes.look()
        _measure(known)
        if known.get("lost"):
            custodian.passes.prepare()
        if not known["due"]:
            return
        made = Pass(custodian, markers)
        if custodian.passes.take(custodian.replica):
            self._pass, self._steps, self._not_before = made, made.steps(), 0.0
            log.info("reconciliation begins")

    def _go_on(self, custodian: CustodianShell, made: Pass, rpc: Caller) -> None:
        made.rpc = rpc
        until = monotonic() + _SLICE_SECONDS
        while self._not_before <= monotonic() < until:
            wait = next(self._steps, None)
            if wait is None:
                self._pass = None
                self._end(custodian, made)
                return
            self._not_before = monotonic() + wait
            if not custodian.passes.renew(custodian.replica, made.progress()):
                self._pass = None
                log.warning("another custodian has taken over the reconciliation")
                return

    @staticmethod
    def _end(custodian: CustodianShell, made: Pass) -> None:
        outcome = "partial" if made.not_asked else "complete"
        metrics.RECONCILIATION_PASSES.labels(outcome).inc()
        custodian.passes.finish(custodian.replica, made.result(outcome))
        log.info(
            "reconciliation ends",
            outcome=outcome,
            compared=dict(made.compared),
            found=dict(made.found),
            repaired=dict(made.repaired),
            not_asked=made.not_asked,
        )


class Pass:
    """One pass over everything; ``rpc`` must be set before each step.

    :raises Retry: the custodian knows nothing of the county yet, or the database is away.
    """

    def __init__(self, custodian: CustodianShell, markers: Markers) -> None:
        self.rpc: Caller
        self._custodian = custodian
        self._markers = markers
        self._levels = _levels(custodian)
        self._suspects: dict[Finding, None] = {}
        self._looked_at: Instant = custodian.now
        self._shown: list[dict[str, Any]] = []
        self._stage = "custody"
        self._explained = 0
        self._behind: set[str] = set()
        self._left = MOST_REPAIRS
        self.compared: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.repaired: Counter[str] = Counter()
        self.not_asked: dict[str, str] = {}

    def steps(self) -> Iterator[float]:
        """Makes the pass; yields, between its steps, how many real seconds to wait."""
        for pages in (self._custody, self._register, *map(self._docket, self._levels)):
            for page in pages():
                self._suspect(page)
                yield 0.0
                if len(self._suspects) > MOST_SUSPECTS:
                    yield from self._second_look()
        yield from self._second_look()

    def progress(self) -> dict[str, Any]:
        """How far it is."""
        return {"stage": self._stage, "compared": dict(self.compared)}

    def result(self, outcome: str) -> dict[str, Any]:
        """What it came to."""
        return {
            "outcome": outcome,
            "compared": dict(self.compared),
            "found": dict(self.found),
            "repaired": dict(self.repaired),
            "explained": self._explained,
            "not_asked": self.not_asked,
            "findings": self._shown,
        }

    def _custody(self) -> Iterator[Page]:
        """All that the custodian holds, with what register and holder say of it."""
        store = self._custodian.store
        for records in _pages(store.open_cases, lambda record: record.key):
            self.compared["custody"] += len(records)
            custody = {record.key: record for record in records}
            held = [at for record in records if (at := reconciliation.held_at(record))]
            register, dockets = self._cases(custody), self._entries(held)
            yield Page(custody, register, dockets, *self._besides(records))

    def _register(self) -> Iterator[Page]:
        """All that the register has open."""
        self._stage = _REGISTER
        for cases in self._told(_REGISTER, "intake", "open_cases", "case"):
            known = {item["case"]: item for item in cases}
            yield Page(self._custody_of(known), known)

    def _docket(self, level: str) -> Callable[[], Iterator[Page]]:
        """All that is live at a desk."""

        def pages() -> Iterator[Page]:
            self._stage = level
            for entries in self._told(level, _desk(level), "live_entries", "key"):
                known = {_place(entry): entry for entry in entries}
                cases = dict.fromkeys(place.case for place in known)
                yield Page(self._custody_of(cases), dockets={level: known})

        return pages

    def _told(self, of: str, instance: str, method: str, key: str) -> Iterator[list[Any]]:
        """Pages of an answer, until it is at its end or nobody answers any more."""
        after = ""
        while (items := self._ask(of, instance, method, after, PAGE)) is not None:
            self.compared[of] += len(items)
            if items:
                yield items
                after = items[-1][key]
            if len(items) < PAGE:
                return

    def _suspect(self, page: Page) -> None:
        found = self._compare(page)
        self._suspects.update(dict.fromkeys(found))
        self._looked_at = self._custodian.now

    def _compare(self, page: Page) -> list[Finding]:
        custodian = self._custodian
        later = firing.LATER_SECONDS / custodian.clock.real_seconds(1)
        return reconciliation.compare(page, custodian.county.atlas(), custodian.now, later)

    def _second_look(self) -> Iterator[float]:
        """Looks at the suspects again, and mends what is still so with nothing moved."""
        if not self._suspects:
            return
        yield PAUSE_SECONDS
        for _ in range(_CATCH_UP_TRIES):
            if self._caught_up():
                break
            yield 1.0
        suspects, self._suspects = self._suspects, {}
        for some in _chunks(suspects, PAGE):
            again = set(self._compare(self._again(some)))
            confirmed = [item for item in some if item in again and not self._may_change(item)]
            self._explained += len(some) - len(confirmed)
            self._mend(reconciliation.one_source(confirmed))
            yield 0.0

    def _may_change(self, finding: Finding) -> bool:
        """Whether who is behind may just not have read yet what it lacks."""
        if finding.kind == "unarmed":
            return False
        if finding.kind in OWN:
            return not self._caught_up()
        return (finding.level or _REGISTER) in self._behind

    def _caught_up(self) -> bool:
        read = self._markers.read(self._custodian.custodians.reached(self._markers.by))
        return read is not None and read >= self._looked_at

    def _again(self, findings: Sequence[Finding]) -> Page:
        custody = self._custody_of(dict.fromkeys(finding.case for finding in findings))
        places = [(item.level, item.place) for item in findings if item.place is not None]
        held = [
            at
            for record in custody.values()
            if record is not None and (at := reconciliation.held_at(record))
        ]
        register, dockets = self._cases(custody), self._entries([*places, *held])
        known = [record for record in custody.values() if record is not None]
        return Page(custody, register, dockets, *self._besides(known))

    def _besides(
        self, records: Sequence[Record]
    ) -> tuple[dict[str, Record | None], dict[str, dict[str, bool]]]:
        """The leads of these cases, and whether desks know which of their units are called."""
        leads = dict.fromkeys(filter(None, map(reconciliation.lead_of, records)))
        by_level: dict[str, dict[str, None]] = {}
        for level, call in (
            item for record in records for item in reconciliation.called_at(record)
        ):
            by_level.setdefault(level, {})[call] = None
        calls: dict[str, dict[str, bool]] = {}
        for level, wanted in by_level.items():
            known: set[str] = set()
            for some in _chunks(wanted, PAGE):
                items = self._ask(level, _desk(level), "calls_of", some)
                if items is None:
                    break
                known.update(items)
            else:
                calls[level] = {call: call in known for call in wanted}
        return self._custody_of(leads), calls

    def _mend(self, findings: Sequence[Finding]) -> None:
        told = self._states([finding for finding in findings if finding.kind in ABSORBED])
        custodian = self._custodian
        atlas, now = custodian.county.atlas(), custodian.now
        works: list[Work] = []
        for finding in findings:
            self.found[finding.kind] += 1
            metrics.RECONCILIATION_FINDINGS.labels(finding.kind).inc()
            works.append(reconciliation.repair(finding, atlas, now, told.get(finding)))
        some = works[: self._left]
        self._left -= len(some)
        outcomes = custodian.fold.run(some)
        custodian.ring()
        for finding, outcome in zip(findings, [*outcomes, *[None] * len(works)], strict=False):
            repaired = outcome is not None and bool(outcome.answer)
            why = str(outcome.error) if outcome is not None and outcome.error else None
            self._say(finding, repaired=repaired, why=why)

    def _say(self, finding: Finding, *, repaired: bool, why: str | None) -> None:
        if repaired:
            self.repaired[finding.kind] += 1
            metrics.RECONCILIATION_REPAIRS.labels(finding.kind).inc()
        said = {
            "case": finding.case,
            "kind": finding.kind,
            "level": finding.level or None,
            "custodian": _text(finding.ours),
            "other": _text(finding.theirs),
            "repaired": repaired,
        }
        if len(self._shown) < _SHOWN:
            self._shown.append(said)
        log.warning("found by reconciliation", **said, **({"why": why} if why else {}))

    def _states(self, findings: Sequence[Finding]) -> dict[Finding, Event]:
        """The states that others know better, as events."""
        states: dict[Finding, Event] = {}
        for some in _chunks(findings, PAGE // 5):
            whole: dict[tuple[str, str], Told] = {}
            cases = [finding.case for finding in some if finding.place is None]
            for case, told in self._cases(cases, whole=True).items():
                if told is not None:
                    whole["", case] = told
            places = [(item.level, item.place) for item in some if item.place is not None]
            for level, entries in self._entries(places, whole=True).items():
                for place, entry in entries.items():
                    # A desk speaks for its own level only.
                    if entry is not None and entry["address"]["level"] == level:
                        whole[level, place.case] = entry
            for finding in some:
                known = whole.get((finding.level, finding.case))
                event = None if known is None else self._event(finding.case, known)
                if event is not None:
                    states[finding] = event
        return states

    def _event(self, case: str, told: Told) -> Event | None:
        try:
            event = reconciliation.as_event(case, told["facts"], told["state"], self._custodian.now)
        except InvalidEvent as error:
            log.error(
                "what another service knows of a case can't be read", case=case, why=str(error)
            )
            return None
        atlas = self._custodian.county.atlas()
        known = atlas.knows(event.data["case"])
        wrong = atlas.contradiction(event.data) if known else None
        if wrong is not None:
            log.error("another service's case contradicts its profile", case=case, why=wrong)
            return None
        return event

    def _custody_of(self, cases: Iterable[str]) -> dict[str, Record | None]:
        wanted = list(cases)
        found = self._custodian.store.read(wanted)
        return {case: found.get(case) for case in wanted}

    def _cases(self, cases: Iterable[str], *, whole: bool = False) -> dict[str, Told | None]:
        wanted = list(cases)
        items = self._ask(_REGISTER, "intake", "cases_of", wanted, whole) if wanted else None
        if items is None:
            return {}
        known = {item["case"]: item for item in items}
        return {case: known.get(case) for case in wanted}

    def _entries(
        self, places: Iterable[tuple[str, Place]], *, whole: bool = False
    ) -> dict[str, dict[Place, Told | None]]:
        by_level: dict[str, dict[Place, None]] = {}
        for level, place in places:
            by_level.setdefault(level, {})[place] = None
        dockets: dict[str, dict[Place, Told | None]] = {}
        for level, wanted in by_level.items():
            known: dict[Place, Told] = {}
            for some in _chunks(wanted, PAGE):
                items = self._ask(level, _desk(level), "entries_of", some, whole)
                if items is None:
                    break
                known.update((_place(item), item) for item in items)
            else:
                dockets[level] = {place: known.get(place) for place in wanted}
        return dockets

    def _ask(self, of: str, instance: str, method: str, *arguments: Any) -> list[Any] | None:
        """The answer, or none from who did not answer once: the pass goes on without it."""
        for _ in range(_TRIES):
            if of in self.not_asked:
                return None
            try:
                answer, behind = self.rpc.call(instance, method, *arguments)
                (self._behind.add if behind else self._behind.discard)(of)
                return list(answer)
            except NoAnswer as error:
                why = str(error)
        self.not_asked[of] = why
        log.warning("reconciliation goes on without one", of=of, why=why)
        return None


class _Attachment(DependencyProvider):
    """Makes the reconciler of a process, and injects it."""

    def setup(self) -> None:
        self._reconciler = Reconciler()

    def get_dependency(self, worker_ctx: object) -> Reconciler:
        return self._reconciler


def attach() -> Reconciler:
    """The reconciler as an attribute of a nameko service class."""
    return cast(Reconciler, _Attachment())


def _measure(known: Mapping[str, Any]) -> None:
    """What every replica says of the last pass, whoever made it."""
    last = known.get("last")
    if last is None:
        return
    metrics.RECONCILIATION_FINISHED.set(last["finished"].timestamp())
    metrics.RECONCILIATION_DURATION.set((last["finished"] - last["started"]).total_seconds())
    for of, count in last["compared"].items():
        metrics.RECONCILIATION_COMPARED.labels(of).set(count)
        metrics.RECONCILIATION_NOT_ASKED.labels(of).set(0)
    for of in last["not_asked"]:
        metrics.RECONCILIATION_NOT_ASKED.labels(of).set(1)


def _levels(custodian: CustodianShell) -> list[str]:
    """Every level that a profile knows, also one that no new case gets any more.

    :raises Retry: none is known yet.
    """
    # Another replica may have taken the directory in just now.
    custodian.county.entries()
    profiles = custodian.county.atlas().profiles.values()
    if not profiles:
        raise Retry("no profile has arrived yet")
    return list(dict.fromkeys(level for profile in profiles for level in profile.levels))


def _desk(level: str) -> str:
    return f"dispatch-{level}"


def _place(entry: Told) -> Place:
    return Place(entry["case"], entry["round"], entry["hop"])


def _pages(ask: Callable[[str, int], list[T]], key: Callable[[T], str]) -> Iterator[list[T]]:
    after = ""
    while items := ask(after, PAGE):
        yield items
        after = key(items[-1])


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def _text(token: Token | None) -> str | None:
    return None if token is None else str(token)
