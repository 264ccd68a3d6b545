"""Merging duplicates (并案) over HTTP: the custodian has both cases, and says which one is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Semaphore
from typing import Any

from services.bus import metrics, problems
from services.bus.access import Guard
from services.bus.errors import Refused, Retry
from services.bus.fold import Decision, Document, Record, Work
from services.bus.problems import Problem
from services.bus.rpc import Caller, NoAnswer
from services.bus.versions import etag, must_match
from services.bus.web import Answer, Call
from services.escalation import merging, model
from services.escalation.api import shown
from services.escalation.firing import Markers
from services.escalation.shell import CustodianShell
from services.escalation.switching import is_behind
from services.grid.atlas import Atlas
from services.grid.clock import Instant, monotonic
from services.grid.tokens import Address

HEARD_SECONDS = 5.0
"""Real seconds for which it is waited that the younger one's desk has heard, before a 202."""
_MOST_WAITING = 8
"""How many merges wait so at once: fewer than are taken in hand, so that others are not held up."""
_TRIES = 10
_room = Semaphore(_MOST_WAITING)

Read = Callable[[Sequence[str]], Mapping[str, Document]]


def merge(
    custodian: CustodianShell, markers: Markers, rpc: Caller, call: Call, case: str
) -> Answer:
    """Merges two cases: of one that the caller acts for, and another that they may read.

    It is answered when the desk that holds the younger one has heard that it follows: until then
    that desk may resolve it, and then it follows nobody.
    """
    other, reason, atlas = call.body["other"], call.body["reason"], custodian.county.atlas()
    if other == case:
        raise problems.invalid({"with": "is the case itself: name another"})
    known = _documents(custodian, [case, other])
    if case not in known:
        raise Problem(404, f"the custodian has not heard of case {case}")
    _must_hold(call, atlas, known[case])
    if other not in known:
        said = f"the custodian has not heard of case {other}: write another case's id"
        raise problems.invalid({"with": said})
    if is_behind(custodian, markers):
        raise Retry("the custodian is behind with its queue")

    def read(cases: Sequence[str]) -> Mapping[str, Document]:
        found = _documents(custodian, cases)
        for item in found.values():
            _must_read(call.guard, atlas, item)
        return found

    def act(work: Work) -> Document | None:
        def change(record: Record) -> Decision:
            decision = work.change(record)
            if decision.events:
                named = record.document if record.key == case else read([case])[case]
                must_match(call, shown(custodian, named or {}))
            return decision

        done: Document | None = custodian.act(Work(work.key, change), call.trail)
        return done

    _must_read(call.guard, atlas, known[other])
    by, attached = call.identity.subject, call.body["attachments"]
    try:
        pair = merged(
            read,
            act,
            (case, other),
            by=by,
            reason=reason,
            attached=attached,
            atlas=atlas,
            now=custodian.now,
        )
    except Refused:
        must_match(call, shown(custodian, known[case]))
        raise
    call.trail.about(case, other, *pair)
    custodian.ring()
    heard = _heard(custodian, rpc, pair[1])
    # Who might read them is told who holds them now, wherever they are by now.
    found = _documents(custodian, [case, *pair])
    kept, follower = (_held(found[each]) for each in pair)
    body = {"kept": kept, "follower": follower, "heard": heard}
    headers = {"ETag": etag(shown(custodian, found[case]))}
    return Answer(body, headers=headers, pending=not heard)


def _heard(custodian: CustodianShell, rpc: Caller, case: str) -> bool:
    """Waits some seconds for the desk of a follower to have heard that it is one.

    While as many wait as may, nobody is asked.

    :returns: whether it has; if not, it may resolve the case still, which then follows nobody.
    :raises Refused: it resolved it before, or nobody is followed any more.
    """
    if not _room.acquire(blocking=False):
        return False
    try:
        return _waited(custodian, rpc, case)
    finally:
        _room.release()


def _waited(custodian: CustodianShell, rpc: Caller, case: str) -> bool:
    until, pause = monotonic() + HEARD_SECONDS, 0.05
    while True:
        document = _documents(custodian, [case])[case]
        if "follows" not in document["facts"]:
            raise _follows_nobody(case, document["state"]["token"]["stage"], document["state"])
        entry = _entry_before(rpc, document)
        if entry is not None and entry["ended"] == "resolved":
            raise _follows_nobody(case, "resolved", entry)
        if entry is not None and entry["status"] == "ended":
            return True
        if monotonic() > until:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def _follows_nobody(case: str, stage: str, held: Mapping[str, Any]) -> Refused:
    first = "before its desk heard of the merge" if stage == "resolved" else "now"
    said = f"case {case} is {stage} {first}: it follows nobody"
    return Refused(said, case=case, stage=stage, held_by=held["address"])


def _entry_before(rpc: Caller, document: Document) -> Mapping[str, Any] | None:
    """The docket entry of the hop before a case began to follow, as its desk tells it."""
    following = document.get("following") or {"round": 0, "hop": 0}
    round_, hop = following["round"], following["hop"] - 1
    for item in document["seen"]:
        if (item["round"], item["hop"]) == (round_, hop):
            place = (document["case"], round_, hop)
            try:
                desk = f"dispatch-{item['address']['level']}"
                entries, _behind = rpc.call(desk, "entries_of", [place], False)
            except NoAnswer:
                return None
            return entries[0] if entries else None
    # A hop that nobody knows any more: nothing can come of it.
    return {"status": "ended", "ended": "custody", "address": document["state"]["address"]}


def merged(
    read: Read,
    act: Callable[[Work], Document | None],
    cases: tuple[str, str],
    *,
    by: str,
    reason: str,
    atlas: Atlas,
    now: Instant,
    attached: Sequence[dict[str, Any]] = (),
) -> tuple[str, str]:
    """Merges two cases, or what they follow in the end; which is kept, and which follows it.

    :param act: runs a step on a custody document, and returns its answer.
    :param attached: attachments that show why.
    :raises Refused: it is not possible; see :func:`services.escalation.merging.pair`.
    :raises Retry: they are merged with others all the time.
    """
    for _ in range(_TRIES):
        pair = merging.pair(read, *cases, atlas)
        if pair is None:
            # They are merged already: the one that is not kept follows.
            kept = merging.end(read, cases[0])["case"]
            return kept, next(case for case in cases if case != kept)
        older, younger = pair

        def change(record: Record, lead: str = older["case"]) -> Decision:
            document = record.document
            if document is None or "follows" in document["facts"]:
                # Somebody else's merge came first: look again.
                return Decision(document)
            return model.follow(document, lead, by, reason, attached, atlas=atlas, now=now)

        if act(Work(younger["case"], change)) is not None:
            metrics.MERGED.inc()
            return older["case"], younger["case"]
    raise Retry("these cases are just being merged with others")


def _documents(custodian: CustodianShell, cases: Sequence[str]) -> dict[str, Document]:
    records = custodian.store.read(cases)
    return {case: item.document for case, item in records.items() if item.document is not None}


def _must_hold(call: Call, atlas: Atlas, document: Document) -> None:
    """That the caller acts where the case is; whom it has left is told who holds it now."""
    held_by = document["state"]["address"]
    if not call.guard.reaches(atlas, Address.of(held_by)):
        near = call.identity.scope.covers_division(document["facts"]["division"], atlas)
        raise call.guard.refusal(**({"held_by": held_by} if near else {}))


def _must_read(guard: Guard, atlas: Atlas, document: Document) -> None:
    address = Address.of(document["state"]["address"])
    guard.must_reach(atlas, *address.where(document["facts"]["division"]))


def _held(document: Document) -> dict[str, Any]:
    return {
        "case": document["case"],
        **{name: document["state"][name] for name in ("address", "token")},
    }
