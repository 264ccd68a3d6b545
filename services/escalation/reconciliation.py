"""What register, dockets and custody must agree about, and how what does not is mended. Pure.

:func:`compare` takes what the three say of some cases and returns findings; it is run twice,
and what a second look confirms is no event in flight. :func:`repair` makes a finding the work
of an ordinary step: guarded, idempotent, with its event. Merging is a maximum by token, so
that sending the latest whole state again is always safe.

- ``unarmed``: held, and no deadline is armed though one is to come. It is armed.
- ``custody_missing``, ``custody_behind``: register or docket knows more than the custodian.
  Their state is taken as if its event had come.
- ``register_behind``: the register has not heard of the case, or not of the latest.
  ``case.reconciled`` tells it.
- ``entry_missing``, ``entry_behind``, ``entry_ended``: held at a desk that has no entry for it,
  that lost what it did itself (it was restored), whose entry has ended. ``case.reconciled``. If
  that entry knows of a later hop, which nobody has any more, by one that is later still.
- ``entry_stale``: an entry is live and its custody has ended. ``case.released`` once more.
- ``follower_forgotten``: a case follows another (并案), and the custody of one of them knows it no
  more. It follows it anew, by a hop where it is.
- ``call_missing``: a unit is called, and its desk does not know it. ``case.called`` once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from services.bus.errors import Defer
from services.bus.fold import Decision, Document, Record, Work
from services.escalation import merging, model, whistle
from services.grid.atlas import Atlas, UnknownProfile
from services.grid.clock import Instant
from services.grid.events import Event
from services.grid.events.envelope import event_id
from services.grid.events.making import case_event
from services.grid.tokens import Address, Stage, Token

KINDS = (
    "unarmed",
    "custody_missing",
    "custody_behind",
    "register_behind",
    "entry_missing",
    "entry_behind",
    "entry_ended",
    "entry_stale",
    "follower_forgotten",
    "call_missing",
)
ABSORBED = ("custody_missing", "custody_behind")
"""Kinds in which somebody else knows better than the custodian."""
OWN = (*ABSORBED, "follower_forgotten")
"""Kinds that may be explained by what the custodian has not read in its own queue."""
RECONCILED = "case.reconciled"
_FORGOTTEN = (
    *("case.released", "case.called", "case.call_ended", "case.joined"),
    *("case.led", "case.lead_resolved"),
)

Told = Mapping[str, Any]
"""A case of the register or an entry of a docket, as their service told it."""


class Place(NamedTuple):
    """Which docket entry: each time that a case comes to a desk is one."""

    case: str
    round: int
    hop: int


@dataclass(frozen=True, slots=True)
class Page:
    """What the three say of some cases. A key that is absent was not asked for; None is not there.

    ``dockets`` and ``calls`` are by level; ``calls`` says of units that are called, by the id of
    the call, whether their desk knows. ``leads`` is the custody of those that some cases follow.
    """

    custody: Mapping[str, Record | None]
    register: Mapping[str, Told | None] = field(default_factory=dict)
    dockets: Mapping[str, Mapping[Place, Told | None]] = field(default_factory=dict)
    leads: Mapping[str, Record | None] = field(default_factory=dict)
    calls: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be; equal in two looks if nothing moved meanwhile.

    ``level`` and ``place`` are those of the docket entry that it is about, or (in a kind of
    ``ABSORBED``) that knows better; empty for the register. ``ours`` and ``theirs`` are the
    tokens of the custodian and of the other, None where there is none; ``over`` is who held the
    case later, as an entry that has ended knows it; ``call`` is the id of a unit's call.
    """

    kind: str
    case: str
    ours: Token | None = None
    theirs: Token | None = None
    level: str = ""
    place: Place | None = None
    address: Address | None = None
    over: Token | None = None
    call: str = ""


def compare(page: Page, atlas: Atlas, now: Instant, later: float) -> list[Finding]:
    """Everything in which the three disagree, or that isn't armed.

    What is explained by an event that a service has not published yet is left to its sweep.

    :param later: see :func:`services.escalation.model.unarmed`.
    """
    found: list[Finding | None] = []
    for case, record in page.custody.items():
        if record is None:
            continue
        if model.unarmed(record, atlas, now, later):
            found.append(Finding("unarmed", case, _token(record)))
        found.append(_follows(record, page.leads))
        found += _called(record, page.calls)
    for case, known in page.register.items():
        found.append(_in_register(case, page.custody.get(case), known))
    for level, entries in page.dockets.items():
        for place, entry in entries.items():
            record = page.custody.get(place.case)
            if record is None:
                found.append(_unheard(level, place, entry))
            else:
                found.append(_in_docket(level, place, entry, record))
    return [finding for finding in found if finding is not None]


def one_source(findings: Iterable[Finding]) -> list[Finding]:
    """The findings with one source at most for each case that others know better: the furthest."""
    kept: list[Finding] = []
    best: dict[str, Finding] = {}
    for finding in findings:
        if finding.kind not in ABSORBED:
            kept.append(finding)
            continue
        known = best.get(finding.case)
        if known is None or _least(finding.theirs) > _least(known.theirs):
            best[finding.case] = finding
    return [*best.values(), *kept]


def held_at(record: Record) -> tuple[str, Place] | None:
    """The desk and the entry that hold the case, if any does."""
    token = _token(record)
    if token is None or token.stage != Stage.HELD:
        return None
    level: str = _document(record)["state"]["address"]["level"]
    return level, Place(record.key, token.round, token.hop)


def lead_of(record: Record) -> str | None:
    """The case that this one follows, if it is held and follows one."""
    follows: str | None = _document(record)["facts"].get("follows")
    return follows if held_at(record) is not None else None


def called_at(record: Record) -> list[tuple[str, str]]:
    """The units that are called to a case: at the desk of which level, and the id of the call."""
    standing = whistle.standing(_document(record))
    return [(item["call"]["level"], name) for name, item in standing.items() if item["sent"]]


def repair(finding: Finding, atlas: Atlas, now: Instant, told: Event | None = None) -> Work:
    """The step that mends a finding; it answers whether it did anything.

    It does nothing if the case has moved on since it was found.

    :param told: in a kind of ``ABSORBED``, the state that somebody else knows, as an event.
    """

    def change(record: Record) -> Decision:
        if _token(record) != finding.ours:
            return Decision(None, answer=False)
        try:
            if finding.kind in ABSORBED:
                return _absorbed(finding, record, told, atlas, now)
            if finding.kind == "entry_stale":
                return _released(finding, record, atlas, now)
            if finding.kind == "follower_forgotten":
                return _follows_anew(finding, record, atlas, now)
            if finding.kind == "call_missing":
                return _called_again(finding, record, atlas, now)
            return _sent_again(finding, record, atlas, now)
        except UnknownProfile as error:
            raise Defer(str(error)) from error

    return Work(finding.case, change)


def as_event(case: str, facts: Mapping[str, Any], state: Mapping[str, Any], now: Instant) -> Event:
    """What somebody knows of a case, as if its event had come.

    :raises InvalidEvent: it is no state of a case.
    """
    data = {"case": dict(facts), "state": dict(state), "found": "custody_behind"}
    made = Event(id=case, type=RECONCILED, subject=case, time=now, source="huashi", data=data)
    return Event.read(made.body())


def _follows(record: Record, leads: Mapping[str, Record | None]) -> Finding | None:
    """A follower that its lead does not know, or that has not heard of what its lead has said."""
    lead = lead_of(record)
    known = leads.get(lead) if lead is not None else None
    # Of a lead that nobody knows any more nothing can be said.
    if known is None or record.unpublished or known.unpublished:
        return None
    if not merging.forgotten(_document(record), _document(known)):
        return None
    return Finding("follower_forgotten", record.key, _token(record))


def _called(record: Record, calls: Mapping[str, Mapping[str, bool]]) -> list[Finding]:
    """Units that are called, and whose desk was asked and does not know it."""
    return [
        Finding("call_missing", record.key, _token(record), None, level, call=name)
        for level, name in called_at(record)
        if not record.unpublished and not calls.get(level, {}).get(name, True)
    ]


def _in_register(case: str, record: Record | None, known: Told | None) -> Finding | None:
    theirs = None if known is None else Token.of(known["token"])
    if record is None:
        if known is None or theirs is None or known["unpublished"]:
            return None
        return Finding("custody_missing", case, None, theirs)
    ours = _token(record)
    if _in_flight(record, known) or ours is None or theirs == ours:
        return None
    kind = "register_behind" if theirs is None or theirs < ours else "custody_behind"
    return Finding(kind, case, ours, theirs)


def _unheard(level: str, place: Place, entry: Told | None) -> Finding | None:
    """Of a case that the custodian does not know."""
    if entry is None or entry["status"] != "live" or not entry["token"] or entry["unpublished"]:
        return None
    theirs = Token.of(entry["token"])
    return Finding("custody_missing", place.case, None, theirs, level, place)


def _in_docket(level: str, place: Place, entry: Told | None, record: Record) -> Finding | None:
    ours, theirs = _token(record), _token_of(entry)
    if ours is None or _in_flight(record, entry):
        return None
    address = Address.of(entry["address"]) if entry is not None and entry["address"] else None
    kind = None
    if theirs is not None and theirs > ours:
        kind = "custody_behind"
    elif held_at(record) == (level, place):
        kind = _of_holder(entry, ours, theirs)
    elif entry is not None and entry["status"] == "live":
        # What it did itself it has forgotten; any other hop of the case is over.
        own = (place.round, place.hop) == (ours.round, ours.hop) and ours.stage >= Stage.RESOLVED
        kind = "entry_behind" if own else "entry_stale"
    if kind is None:
        return None
    later = Token.of(entry["held"]) if entry is not None and entry.get("held") else None
    over = later if kind == "entry_ended" and later is not None and later > ours else None
    return Finding(kind, place.case, ours, theirs, level, place, address, over)


def _of_holder(entry: Told | None, ours: Token, theirs: Token | None) -> str | None:
    """What is wrong with the entry that should hold the case, if anything is."""
    if entry is None:
        return "entry_missing"
    if entry["status"] != "live":
        return "entry_ended"
    if theirs is None:
        return "entry_missing"
    return "entry_behind" if theirs < ours else None


def _absorbed(
    finding: Finding, record: Record, told: Event | None, atlas: Atlas, now: Instant
) -> Decision:
    known = None if told is None else Token.of(told.data["state"]["token"])
    if told is None or known is None or known <= _least(finding.ours):
        return Decision(None, answer=False)
    # Whoever knows better may not have heard of an emergency yet.
    decision = model.decide(model.merge(record.document, told, now), atlas, now, arrived=True)
    document = decision.document or {}
    said = _reconciled(finding, document, atlas, now)
    return replace(decision, events=[*map(_anew, decision.events), said], answer=True)


def _anew(event: Event) -> Event:
    """What may have been sent before, which the custodian has forgotten: that something is over.

    Or that a unit is called. The same id must not come with another time.
    """
    if event.type not in _FORGOTTEN:
        return event
    return replace(event, id=event_id(event.subject, event.id, event.type, event.time))


def _sent_again(finding: Finding, record: Record, atlas: Atlas, now: Instant) -> Decision:
    """The whole state once more; a deadline that was not armed is."""
    document = _document(record)
    decision = Decision(document)
    if finding.over is not None:
        decision = model.beyond(document, finding.over, atlas, now)
        decision = replace(decision, events=list(map(_anew, decision.events)))
    elif finding.kind == "unarmed":
        decision = model.decide(document, atlas, now)
        if decision.document == document:
            return Decision(None, answer=False)
    said = _reconciled(finding, decision.document or document, atlas, now)
    return replace(decision, events=[*decision.events, said], answer=True)


def _follows_anew(finding: Finding, record: Record, atlas: Atlas, now: Instant) -> Decision:
    """A hop with which it follows the same case, which hears of it and says what became of it."""
    document, lead = _document(record), lead_of(record)
    if lead is None:
        return Decision(None, answer=False)
    decision = model.follow(document, lead, merging.CUSTODIAN, "", atlas=atlas, now=now)
    said = _reconciled(finding, decision.document or document, atlas, now)
    return replace(decision, events=[*map(_anew, decision.events), said], answer=True)


def _called_again(finding: Finding, record: Record, atlas: Atlas, now: Instant) -> Decision:
    document = _document(record)
    decision = model.called_again(document, finding.call, now, atlas)
    if not decision.answer:
        return Decision(None, answer=False)
    said = _reconciled(finding, document, atlas, now)
    return replace(decision, events=[*decision.events, said])


def _reconciled(finding: Finding, document: Document, atlas: Atlas, now: Instant) -> Event:
    # Each time is an event of its own: the same id must not come with another time.
    discriminator = f"{finding.kind}:{finding.level}:{finding.call}:{now}"
    progress = whistle.progress_of(document)
    said = {"found": finding.kind, **({"progress": progress} if progress else {})}
    return _said(RECONCILED, document, atlas, now, discriminator, **said)


def _released(finding: Finding, record: Record, atlas: Atlas, now: Instant) -> Decision:
    document = _document(record)
    place = finding.place or Place(finding.case, 0, 0)
    beaten = Token(place.round, Stage.HELD, place.hop, 0)
    # While only an answer is known of an entry, so is no more than its level.
    address = finding.address or Address(finding.level, document["facts"]["division"])
    said = _said(
        "case.released",
        document,
        atlas,
        now,
        f"{finding.level}:custody:{now}",
        token=beaten,
        addressed=Address(finding.level, address.division, address.unit),
        released={"token": beaten.as_dict(), "address": address.as_dict(), "why": "custody"},
    )
    return Decision(document, [said], answer=True)


def _said(
    kind: str,
    document: Document,
    atlas: Atlas,
    now: Instant,
    discriminator: str,
    **specific: Any,
) -> Event:
    return case_event(
        kind,
        service="escalation",
        case=document["case"],
        facts=document["facts"],
        state=document["state"],
        now=now,
        directory=atlas.directory,
        discriminator=discriminator,
        **specific,
    )


def _in_flight(record: Record, other: Told | None) -> bool:
    return bool(record.unpublished) or (other is not None and bool(other["unpublished"]))


def _document(record: Record) -> Document:
    return record.document or {}


def _token(record: Record) -> Token | None:
    return None if record.document is None else Token.of(record.document["state"]["token"])


def _token_of(entry: Told | None) -> Token | None:
    return Token.of(entry["token"]) if entry is not None and entry["token"] else None


def _least(token: Token | None) -> Token:
    return token or Token(0, Stage.HELD, 0, -1)
