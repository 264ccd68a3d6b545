"""The custodian as a fold: one custody document for each case.

It is ``{case, facts, state, seen, received_at, supervision, history, requests, answered,
late_custody, next_due, rank, shard}``:

- ``state`` is the greatest that any event carried: who holds the case, and its deadlines as
  whoever decided them said;
- ``seen`` lists every hop ever heard of, ``{round, hop, address, profile, emergency, token,
  ahead, released, deadlines, open}``: each that is not the current one gets its release;
  ``ahead`` is by how many seconds its clock started ahead of ours (a fast clock elsewhere),
  ``deadlines`` are all that the hop ever had, with the last act after which it still had them
  (``last_seq``), ``open`` the marks of those that its latest state still has, ``over`` of those
  that fired before a hop to the same holder;
  ``how`` is the event by which the custodian sent it there, ``sender`` the hop to which it can be
  returned, none if nobody sent it, ``granted`` the id of the request by which it left;
- ``received_at`` is when the custodian heard of, or decided, the present custody;
- ``supervision`` is ``{times, last, due, deadline, asked}`` once the last level's deadline passed,
  or it was supervised for another reason: then ``asked`` lists ``{by, reason, round, hop}`` of
  everybody who wanted it (``key`` instead of ``hop`` if it came with an Idempotency-Key), and it
  goes on whoever holds the case;
- ``history`` has what fired, ``{round, hop, address, mark, deadline, fired_at}``: the marks
  by which a deadline fires once; of repeated supervisions the last hundred;
- ``followers``, ``following`` and ``lead`` are explained in ``merging.py``;
- ``next_due`` is when to look at the case again, or none; ``rank`` in which order, 0 being the
  most urgent; ``shard`` says which replica does;
- ``calls`` and ``joined_told`` are of the units that were called to it, see ``whistle.py``.

:func:`merge` and :func:`decide` are for events, :func:`fire` for deadlines, :func:`explain`
for people. A new *form* of deadline goes into ``services/grid/deadlines.py``: here a deadline
is only ``{kind, due}``, and what follows when it passes is :meth:`_Decider.pass_deadline`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

from services.bus.errors import Defer, Refused
from services.bus.fold import Decision, Document, Record, Work
from services.escalation import catching_up, merging, whistle
from services.grid import clocks, deadlines, moving, whistles
from services.grid.atlas import Atlas, in_emergency
from services.grid.calendars import out_of_pause
from services.grid.clock import Instant, plus, seconds_between
from services.grid.events import Event
from services.grid.events.making import case_event
from services.grid.profile import Profile
from services.grid.profile_rules import DEFAULT_LADDER
from services.grid.tokens import Address, Stage, Token

_FIRED = (*deadlines.KINDS, "remind")
_MOVES = {
    "escalate": "case.escalated",
    "delegate": "case.delegated",
    "transfer": "case.transferred",
    "return": "case.returned",
}

_REMEMBERED = 100

_ENDED_BY_AN_ACT = ("acknowledge", deadlines.PROGRESS)
"""What is no longer supervised once the holder has done something."""

RANKS = 10
"""How many degrees of urgency the order of firing tells apart."""

SHARDS = 64
"""How many parts the cases are divided into, for replicas to share."""

SILENT_SECONDS = 3
"""Real seconds after which a replica that says nothing is taken for dead."""


def work(event: Event, atlas: Atlas, now: Instant) -> Work:
    """What an event does to the custody of its case.

    Its answer is by how many seconds the clock of a custody that is new here runs ahead.
    """
    if event.type in merging.SAID:
        return Work(merging.key(event), lambda record: _hear(record, event, atlas, now))

    def change(record: Record) -> Decision:
        before = len(record.document["seen"]) if record.document else 0
        document = merge(record.document, event, now)
        ahead = max(item["ahead"] for item in document["seen"])
        grown = len(document["seen"]) > before
        late = catching_up.overtaken(document, event)
        decision = decide(document, atlas, now, arrived=grown, late=late)
        return replace(decision, answer=ahead if grown else 0.0)

    return Work(key(event), change)


def due_work(case: str, atlas: Atlas, now: Instant, horizon: Instant) -> Work:
    """What the time does to the custody of a case."""
    return Work(case, lambda record: fire(record, atlas, now, horizon))


def later_work(case: str, at: Instant) -> Work:
    """Looks at a case again at another time: what is wrong with it must not stop the others."""
    return Work(case, lambda record: Decision({**(record.document or {}), "next_due": at}))


def shard(case: str) -> int:
    """To which of the ``SHARDS`` parts a case belongs."""
    return crc32(case.encode()) % SHARDS


def share(replica: str, living: Iterable[str]) -> tuple[int, ...]:
    """The shards of one replica, when these live; all of them if it is alone."""
    ordered = sorted({replica, *living})
    return tuple(range(ordered.index(replica), SHARDS, len(ordered)))


def key(event: Event) -> str:
    """The custody document that an event is about: the case's."""
    return event.subject


def merge(document: Document | None, event: Event, received: Instant) -> Document:
    """What the custodian knows after an event, in whatever order events come.

    :param received: the custodian's own time; the deadlines of a custody that starts ahead
        of it (a clock elsewhere runs fast) are taken back by as much.
    """
    document = document or _new(event, received)
    token = Token.of(event.data["state"]["token"])
    known = Token.of(document["state"]["token"])
    state = event.data["state"]
    facts = event.data["case"]
    document = {**document, "seen": _seen(document["seen"], token, state, received, facts)}
    if token > known:
        document |= {"state": state, "facts": facts}
        if _hop(token) != _hop(known):
            document |= {"received_at": received, "supervision": None}
    if event.type == "case.requested":
        document["requests"] = _asked(document, event)
    document["late_custody"] = _late_custody(document)
    return whistle.heard(document, event)


def _hear(record: Record, event: Event, atlas: Atlas, now: Instant) -> Decision:
    """What one case says to another that it was merged with."""
    if record.document is None:
        raise Defer(f"the custodian has not heard of case {record.key}")
    decider = _Decider(record.document, atlas, now)
    merging.hear(decider, event)
    return decider.decision()


def follow(
    document: Document,
    lead: str,
    by: str,
    reason: str,
    attachments: Sequence[dict[str, Any]] = (),
    *,
    atlas: Atlas,
    now: Instant,
) -> Decision:
    """Lets a case follow an older one (并案); see :mod:`services.escalation.merging`.

    :raises Refused: the case has ended.
    """
    merging.must_be_open(document)
    decider = _Decider(document, atlas, now)
    said = {"by": by, "reason": reason, **_attached(attachments)}
    merging.follow(decider, lead, why="merged", **said)
    return replace(decider.decision(), answer=decider.document)


def decide(
    document: Document,
    atlas: Atlas,
    now: Instant,
    *,
    arrived: bool = False,
    late: dict[str, Any] | None = None,
) -> Decision:
    """Answers requests, releases every docket entry that is not the current one, re-arms.

    :param arrived: custody is new here: who sent it may not have heard of an emergency yet.
    :param late: the state of an act of the holder that a hop overtook, see ``catching_up.py``.
    """
    decider = _Decider(document, atlas, now)
    if late is not None:
        decider.catch_up(late)
    decider.answer_requests()
    if arrived and _held(decider.document):
        decider.switch()
        decider.supervise_reopened()
    return decider.decision()


def fire(record: Record, atlas: Atlas, now: Instant, horizon: Instant) -> Decision:
    """Acts on the deadlines of one case that were due by ``horizon``.

    Nothing fires while an event that says who holds the case is unpublished, nor before
    its confirm time plus the least of ``grace`` and the level's own time: after an outage
    of ours a level still gets its chance. The next level's time starts when this one's
    nominally ended, not when we got round to it.

    :param horizon: up to where the custodian has read its own queue: what was answered
        before it counts.
    :returns: with what fired now, as in ``history``, as the answer.
    """
    document = record.document
    if document is None or not _held(document) or record.custody_unpublished:
        return Decision(document)
    document = {**document, "history": _remembered(document["history"])}
    before = len(document["history"])
    decider = _Decider(document, atlas, now)
    floor = decider.floor(record.confirmed)
    if now < floor:
        return Decision({**document, "next_due": floor})
    due = [item for item in _pending(document) if item["due"] <= horizon]
    decider.remind(due)
    decider.miss([item for item in due if item["kind"] in whistles.KINDS])
    for item in due:
        if item["kind"] in deadlines.KINDS:
            decider.pass_deadline(item)
            break
        if item["kind"] == "supervise":
            decider.supervise(item)
            break
    decision = decider.decision()
    return replace(decision, answer=decider.document["history"][before:])


def unarmed(record: Record, atlas: Atlas, now: Instant, later: float) -> bool:
    """Whether a held case has a deadline to come and none is armed, or far too late.

    :param later: by how many seconds at most the firing of a case is put off.
    """
    document = record.document
    pending = _pending(document) if document is not None and _held(document) else []
    if document is None or not pending:
        return False
    armed = document.get("next_due")
    if armed is None:
        return True
    if not atlas.knows(document["facts"]) or armed <= plus(max(pending[0]["due"], now), later):
        return False
    return bool(armed > _Decider(document, atlas, now).floor(record.confirmed))


def explain(document: Document) -> list[dict[str, Any]]:
    """Each deadline that the case ever had, by due time, with its rule and what became of it.

    ``status`` is ``armed``, ``fired`` (with ``fired_at``), ``met`` (what it waited for was
    done), ``moved`` (a suspension, a resumption or an extension gave it another time) or ``void``
    (the case had moved on or ended before).
    """
    fired = {(item["round"], item["hop"], item["mark"]): item for item in document["history"]}
    current = _hop(Token.of(document["state"]["token"]))
    rows = []
    for item in document["seen"]:
        hop = item["round"], item["hop"]
        latest: dict[Any, int] = {}
        for deadline in item["deadlines"]:
            latest[_what(deadline)] = max(
                latest.get(_what(deadline), 0), deadline.get("last_seq", 0)
            )
        for known in item["deadlines"]:
            deadline = {name: known[name] for name in known if name != "last_seq"}
            mark = deadlines.mark(deadline)
            if mark in item.get("over", ()):
                # It fired in a hop before.
                continue
            row = {"round": item["round"], "hop": item["hop"], **item["address"], **deadline}
            row["profile"] = item.get("profile", document["facts"]["profile"])
            row["emergency"] = item.get("emergency")
            past = fired.pop((*hop, mark), None)
            if past is not None:
                row |= {"status": "fired", "fired_at": past["fired_at"]}
            elif mark not in item["open"]:
                moved = known.get("last_seq", 0) < latest[_what(known)]
                withdrawn = Token.of(item["token"]).stage == Stage.WITHDRAWN
                row["status"] = "moved" if moved else "void" if withdrawn else "met"
            else:
                row["status"] = "armed" if hop == current and _held(document) else "void"
            rows.append(row)
    for item in fired.values():
        place = {"round": item["round"], "hop": item["hop"], **item["address"]}
        rows.append(place | item["deadline"] | {"status": "fired", "fired_at": item["fired_at"]})
    rows += whistle.explained(document)
    for repeat in _repeat(document):
        place = {"round": current[0], "hop": current[1], **document["state"]["address"]}
        rows.append(place | repeat | {"status": "armed"})
    return sorted(rows, key=lambda row: (row["due"], row["kind"]))


def migrate(record: Record, version: str, atlas: Atlas, now: Instant) -> Decision:
    """Brings a case in flight under another version of its profile, by a hop.

    Where its level is still on the ladder the case stays with who holds it, and both clocks go
    on: only the deadlines change. Else it enters the new ladder as if it were reported there.

    :raises Refused: the case has ended, or others do not know yet who holds it.
    :raises UnknownProfile: the version has not arrived yet.
    :returns: with ``{case, from, to, before, after}`` as the answer, the last two each
        ``{address, deadlines}``; none if it is under that version already.
    """
    document = record.document
    if document is None or not _held(document):
        raise Refused("the case has ended")
    if record.custody_unpublished:
        raise Refused("the case has just moved: try again in some seconds")
    if document["facts"]["profile"] == version:
        return Decision(document)
    # What the case is under now need not be known any more: it may be what it is saved from.
    facts = {**document["facts"], "profile": version}
    present = facts.get("emergency")
    facts = in_emergency(facts, None if present is None else atlas.emergency_of(facts))
    decider = _Decider({**document, "facts": facts}, atlas, now)
    decider.migrate()
    # A version that knows an emergency mode, where the one before did not.
    decider.switch()
    told = {"case": document["case"], "from": document["facts"]["profile"], "to": version}
    return replace(decider.decision(), answer={**told, **_changes(document, decider.document)})


def beyond(document: Document, known: Token, atlas: Atlas, now: Instant) -> Decision:
    """A hop to the same holder that is later than one of which others know.

    :param known: that one, which nobody has any more: it was lost, here and where it was.
    """
    own = Token.of(document["state"]["token"])
    # A resolution of an earlier hop is later too.
    round_, hop = max((own.round, own.hop), (known.round, known.hop))
    token = own._replace(round=round_, hop=hop)
    state = {**document["state"], "token": token.as_dict()}
    decider = _Decider({**document, "state": state}, atlas, now)
    decider.stay("reconciled")
    return decider.decision()


def called_again(document: Document, call: str, now: Instant, atlas: Atlas) -> Decision:
    """Calls a unit once more whose desk has forgotten that it was called.

    :returns: with whether it is called still as the answer.
    """
    decider = _Decider(document, atlas, now)
    stands = whistle.called_again(document, call, f"{call}:{now}", decider.emit)
    return Decision(document, decider.events, stands)


def switches(facts: dict[str, Any], atlas: Atlas) -> bool:
    """Whether a case in flight is under the rules of another mode than its place is in.

    A case whose profile has not arrived yet is left as it is.
    """
    known = facts["profile"] in atlas.profiles
    return known and atlas.emergency_of(facts) != facts.get("emergency")


def switch(record: Record, atlas: Atlas, now: Instant) -> Decision:
    """Brings a case in flight under the rules of the mode that its place is in, by a hop.

    It never goes down: in an emergency it goes up to where a new report would enter, else it
    stays, and at the end it stays where its level is on the ladder again.

    :raises Refused: others do not know yet who holds the case.
    :raises UnknownProfile: what it is under now has not arrived yet.
    :returns: with ``{case, from, to, before, after}`` as the answer, the first two emergencies or
        none, the last two each ``{address, deadlines}``; none if nothing changes.
    """
    document = record.document
    if document is None or not _held(document) or not switches(document["facts"], atlas):
        return Decision(document)
    if record.custody_unpublished:
        raise Refused("the case has just moved: try again in some seconds")
    decider = _Decider(document, atlas, now)
    decider.switch()
    named = [item["facts"].get("emergency") for item in (document, decider.document)]
    told = {"case": document["case"], "from": named[0], "to": named[1]}
    return replace(decider.decision(), answer={**told, **_changes(document, decider.document)})


def _changes(before: Document, after: Document) -> dict[str, Any]:
    states = {"before": before["state"], "after": after["state"]}
    return {
        name: {part: state[part] for part in ("address", "deadlines")}
        for name, state in states.items()
    }


def supervise(
    document: Document | None,
    by: str,
    reason: str,
    attachments: Sequence[dict[str, Any]] = (),
    *,
    atlas: Atlas,
    now: Instant,
    key: str | None = None,
) -> Decision:
    """Somebody above the holder wants a case to be supervised (督办); once more changes nothing.

    It is told upwards at once, and again as its profile says of the last level, whoever holds
    it then, until it has ended.

    :param key: the Idempotency-Key; without it, the same reason is once more in the same hop.
    :raises Refused: the case has ended, or the key was used for another reason.
    """
    if document is None:
        raise Refused("there is no such case")
    if not _held(document):
        state = document["state"]
        ended = {"stage": state["token"]["stage"], "held_by": state["address"]}
        raise Refused("the case has ended: there is nothing to supervise", **ended)
    decider = _Decider(document, atlas, now)
    asked = (document["supervision"] or {}).get("asked", ())
    if _wanted(decider.token, by, reason, key) in asked:
        return Decision(document, answer=document)
    if key is not None and any((item["by"], item.get("key")) == (by, key) for item in asked):
        used = "this Idempotency-Key was used for another reason: use a new key"
        raise Refused(used, held_by=document["state"]["address"])
    decider.supervise_now("asked", by, reason, key, attachments)
    decision = decider.decision()
    return replace(decision, answer=decision.document)


def reaches(document: Document, row: dict[str, Any], atlas: Atlas, now: Instant) -> dict[str, Any]:
    """Whom an armed deadline reaches if it passes: ``{address, officers, tell}``.

    That is who is on duty when it is due, or now if it should have passed already.

    A reminder reaches who holds the case, a supervision also who is told, the others who gets
    it next.
    """
    state, facts = document["state"], document["facts"]
    profile = atlas.rules_for(facts)
    here = Address.of(state["address"])
    above = profile.next_address(facts["ladder"], here, atlas.directory)
    stays = ("remind", "supervise", *whistles.KINDS)
    if row["kind"] in stays or above is None:
        told_of = ("remind", *whistles.KINDS)
        then = _then(profile, facts, here) if row["kind"] not in told_of else None
        told = list(then.tell) if then is not None else []
        assigned = state["assigned"] and state["assigned"]["officer"]
        return {"address": here.as_dict(), "officers": [assigned] if assigned else [], "tell": told}
    at = max(row["due"], now)
    officers, _why = profile.on_duty(above, atlas.directory, at)
    while profile.unstaffed == "skip" and not officers:
        # Where nobody is on duty it goes on at once.
        further = profile.next_address(facts["ladder"], above, atlas.directory)
        if further is None:
            break
        above = further
        officers, _why = profile.on_duty(above, atlas.directory, at)
    named = [officer.id for officer in officers]
    return {"address": above.as_dict(), "officers": named, "tell": []}


class _Decider:
    """One decision in the making: the document as it becomes, and the events so far.

    It replaces members of its own shallow copy of the document and never changes one, so
    that the document it was given stays as it was.
    """

    def __init__(self, document: Document, atlas: Atlas, now: Instant) -> None:
        self.document = dict(document)
        self.atlas = atlas
        self.now = now
        self.events: list[Event] = []
        self.profile = atlas.rules_for(document["facts"])

    @property
    def address(self) -> Address:
        """Who holds the case."""
        return Address.of(self.document["state"]["address"])

    @property
    def token(self) -> Token:
        """The current token."""
        return Token.of(self.document["state"]["token"])

    def decision(self) -> Decision:
        """Releases what is no longer current, arms what is, and closes the decision."""
        merging.settle(self)
        self.release()
        self.document = whistle.told(self.document, self.profile.grace, self.now, self.emit)
        self.document["next_due"] = self._next_due()
        self.document["rank"] = self._rank()
        self.document["shard"] = shard(self.document["case"])
        return Decision(self.document, self.events)

    def floor(self, confirmed: Instant | None) -> Instant:
        """Before this nothing fires: the holder must have had a chance to hear of it."""
        received = self.document["received_at"]
        facts, round_ = self.document["facts"], self.token.round
        own = deadlines.own_time(self.profile, facts, self.address, round_)
        return plus(max(received, confirmed or received), min(self.profile.grace, own))

    def answer_requests(self) -> None:
        """Grants what the holder asks, refuses what came too late, keeps what came early."""
        kept = []
        for item in self.document["requests"]:
            current, asked = self.token, Token.of(item["token"])
            ahead = _held(self.document) and asked.hop > current.hop
            if asked.round > current.round or (asked.round == current.round and ahead):
                kept.append(item)
                continue
            self.document["answered"] = [*self.document["answered"], item["request"]["id"]]
            why = self._grant(item["request"]) if self._holds(asked) else "too_late"
            if why is not None:
                self._refuse(item, why)
        self.document["requests"] = kept

    def _holds(self, asked: Token) -> bool:
        """Whether who asked under this token is who holds the case."""
        return _hop(asked) == _hop(self.token) and _held(self.document)

    def _grant(self, request: dict[str, Any]) -> str | None:
        """Moves the case as its holder asks; or says why it can't be."""
        action, sent_back = request["action"], self._returns()
        if action == "return" and sent_back >= self.profile.returns.most:
            return "returned_too_often"
        try:
            to = self._asked_for(request)
        except moving.WrongPlace:
            return "no_such_place"
        if to is None:
            return "last_level" if action == "escalate" else "nobody_sent_it"
        authority = self._authority(request) if request.get("authorise") else {}
        if authority is None:
            return "no_authority"
        hop = _hop(self.token)
        self.document["seen"] = [
            {**item, "granted": request["id"]} if (item["round"], item["hop"]) == hop else item
            for item in self.document["seen"]
        ]
        self._move(to, self.now, "requested", authority, kind=_MOVES[action], request=request)
        if action == "return" and sent_back + 1 == self.profile.returns.most:
            source = self.profile.returns.source
            self.supervise_now("returned", f"profile.yaml returns, {sent_back + 1} times", source)
        return None

    def _authority(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """With whose authority a case is delegated (授权); none: its holder may not give it."""
        rule, here = self.profile.authority, self.address
        refused = moving.no_authority(here, self.document["facts"], self.profile)
        if rule is None or refused is not None or request["action"] != "delegate":
            return None
        given = {"by": request["by"], "at": self.now, "source": rule.source}
        return {"authority": {**here.as_dict(), **given}}

    def _asked_for(self, request: dict[str, Any]) -> Address | None:
        """Where a request would have the case go; none if nobody is there."""
        if request["action"] == "escalate":
            return self._above()
        if request["action"] == "return":
            sender = self._sender()
            return sender if sender is not None and sender != self.address else None
        return moving.target(
            request["action"],
            request["to"] or {},
            self.address,
            profile=self.profile,
            ladder=self.document["facts"]["ladder"],
            directory=self.atlas.directory,
        )

    def _returns(self) -> int:
        """How often the case was sent back in this round."""
        return [item.get("how") for item in self._hops().values()].count("case.returned")

    def _sender(self) -> Address | None:
        """Who sent the case to who holds it, if they are still on its ladder."""
        sent_by = self._sent_by(self.token.hop)
        if sent_by is None:
            return None
        address = Address.of(self._hops()[sent_by]["address"])
        ladder = self.profile.steps(self.document["facts"]["ladder"])
        return address if address.level in ladder else None

    def _sent_by(self, hop: int) -> int | None:
        """From which hop of this round another was sent; what was before, it is returned to."""
        hops = self._hops()
        # What was moved before this was kept came from the hop before.
        sender: int | None = hops.get(hop, {}).get("sender", hop - 1)
        return sender if sender in hops else None

    def _next_sender(self, reason: str, kind: str, to: Address) -> int | None:
        """Who has sent the next hop."""
        hop = self.token.hop
        if kind == "case.returned":
            # As it was for them when they had it.
            sent_by = self._sent_by(hop)
            return self._sent_by(sent_by) if sent_by is not None else None
        if reason in ("requested", "deadline_missed"):
            return hop
        return self._sent_by(hop) if to == self.address else None

    def _hops(self) -> dict[int, dict[str, Any]]:
        """What was seen of each hop of this round."""
        round_ = self.token.round
        return {item["hop"]: item for item in self.document["seen"] if item["round"] == round_}

    def release(self) -> None:
        """A release for each hop seen that neither holds the case nor resolved it."""
        seen = []
        for item in self.document["seen"]:
            why = _why_released(item, self.token, self.document["seen"])
            if why is not None and item["released"] not in (why, "resolution"):
                beaten = Token(item["round"], Stage.HELD, item["hop"], 0)
                self.emit(
                    "case.released",
                    token=beaten,
                    discriminator=f"{item['address']['level']}:{why}",
                    addressed=Address.of(item["address"]),
                    released={
                        "token": beaten.as_dict(),
                        "address": item["address"],
                        "why": why,
                        **({"granted": item["granted"]} if item.get("granted") else {}),
                    },
                )
                item = {**item, "released": why}  # noqa: PLW2901
            seen.append(item)
        self.document["seen"] = seen

    def remind(self, due: list[dict[str, Any]]) -> None:
        """One reminder for all that were missed; none of a deadline that passes as well."""
        passing = {item["kind"] for item in due}
        reminders = [item for item in due if item["kind"] == "remind"]
        for item in reminders:
            self._mark(item)
        live = [item for item in reminders if item.get("of") not in passing]
        if live:
            self._tell("case.reminded", live[-1], count=len(live))

    def pass_deadline(self, deadline: dict[str, Any]) -> None:
        """A deadline passed: up one level, or supervision where there is none above."""
        self._mark(deadline)
        self._tell("case.deadline_passed", deadline)
        above = self._above()
        if above is None:
            self.supervise(deadline)
        else:
            # No level's time begins before the round does.
            began = clocks.round_began(self.document["state"]["clocks"])
            self._move(above, max(deadline["due"], began), "deadline_missed")

    def miss(self, due: list[dict[str, Any]]) -> None:
        """Units that were called stay away, or are not done: told, and supervised if need be."""
        self.document, deadline = whistle.missed(self.document, due, self.now, self.emit)
        if deadline is not None and not self._wanted_by(deadline["rule"]):
            self.supervise_now(whistle.UNANSWERED, deadline["rule"], deadline["source"])

    def migrate(self) -> None:
        """From now on the rules hold that its facts name."""
        facts, here, profile = self.document["facts"], self.address, self.profile
        ladder = facts["ladder"] if facts["ladder"] in profile.ladders else DEFAULT_LADDER
        to = here
        if here.level not in profile.steps(ladder):
            entry = profile.enter(facts, here.division, self.atlas.directory)
            ladder, to = entry.ladder, entry.address
        self.document["facts"] = {**facts, "ladder": ladder}
        if to != here:
            self._move(to, self.now, "profile_migrated", kind="case.transferred")
        else:
            self.stay("profile_migrated")

    def switch(self) -> None:
        """From now on the rules hold of the mode that the case's place is in."""
        facts, here = self.document["facts"], self.address
        wanted, present = self.atlas.emergency_of(facts), facts.get("emergency")
        if wanted == present:
            return
        before, part = self.profile, self.atlas.profile(facts["profile"]).emergency
        facts = in_emergency(facts, wanted)
        self.profile = self.atlas.rules_for(facts)
        ladder, to = self.profile.kept(facts, here, self.atlas.directory, rises=wanted is not None)
        self.document["facts"] = {**facts, "ladder": ladder}
        reason = "emergency_ended" if wanted is None else "emergency"
        if to != here:
            self._move(to, self.now, reason, kind="case.transferred")
            return
        if self.profile.command.get(here.level) != before.command.get(here.level):
            # Another person commands: the desk says who.
            self.document["state"] = {**self.document["state"], "assigned": None}
        # From one emergency into another the rules are the same: that gives nobody more time.
        changed = (wanted is None) != (present is None)
        self.stay(reason, again=changed and part is not None and part.starts_again)

    def catch_up(self, late: dict[str, Any]) -> None:
        """Takes over what the holder did before a hop that left the case with them."""
        taken = catching_up.taken_over(self.document["state"], late)
        if taken != self.document["state"]:
            self.document["state"] = taken
            self.stay("caught_up")

    def open_deadlines(self) -> list[dict[str, Any]]:
        """The deadlines of the present hop that have not fired, on the custodian's own clock."""
        return _pending(self.document)

    def stay(
        self, reason: str, *, again: bool = False, inherited: Sequence[dict[str, Any]] | None = None
    ) -> None:
        """A hop to the same holder, with what its rules say now; ``again``: from now on.

        :param inherited: what a merge brought, in place of what there was.
        """
        on = self.document["state"]["clocks"]
        if again:
            on = clocks.restarted(on, self.now)
        else:
            # One that began ahead of ours (a fast clock elsewhere) is taken back.
            started = plus(on["level"]["started_at"], -_ahead(self.document))
            on = {**on, "level": {**on["level"], "started_at": started}}
        state = {**self.document["state"], "token": self.token.moved().as_dict(), "clocks": on}
        if state["assigned"] is not None and state["assigned"]["officer"] is None:
            # The desk looks once more who is on duty, and asks for the next level once more.
            state["assigned"] = None
        if again:
            # What was granted counted from a time that counts no longer.
            for name in ("extensions", "inherited"):
                state.pop(name, None)
        if inherited:
            state["inherited"] = list(inherited)
        found = deadlines.of_state(self.profile, self.document["facts"], state, self.atlas.holidays)
        over = [item for item in found if self._is_over(item, on["level"]["started_at"])]
        kept = [item for item in found if item not in over]
        supervision = self.document["supervision"]
        self._hop({**state, "deadlines": kept}, reason, kind="case.transferred")
        self.document["seen"] = _with_over(self.document, [*map(deadlines.mark, over)])
        # What passed on the case's own clock does not begin anew: nor does its supervision end.
        if not again or inherited is not None or len(kept) < len(found):
            self.document["supervision"] = supervision

    def _is_over(self, deadline: Mapping[str, Any], began: Instant) -> bool:
        """Whether one of its kind has fired since the level's clock ``began``, or since its time.

        It may be many hops ago: those of a merge, a migration or an emergency are all one stay.
        What is over can be no reason to stay where the ladder goes on now.
        """
        if deadline["kind"] != "remind" and self._above() is not None:
            return False
        kind, due = deadline["kind"], deadline["due"]
        fired = [item["fired_at"] for item in self._history() if item["deadline"]["kind"] == kind]
        # A custodian whose clock runs ahead may have fired what lies ahead of ours. Of what counts
        # from the last act, one that fired says nothing of the next.
        once = kind != deadlines.PROGRESS and due <= self.now
        return any(at >= due or (once and at >= began) for at in fired)

    def _history(self) -> list[dict[str, Any]]:
        """What has fired since the case came to who holds it."""
        hops, (round_, first) = self._hops(), _hop(self.token)
        here = self.document["state"]["address"]
        while first - 1 in hops and hops[first - 1]["address"] == here:
            first -= 1
        history = self.document["history"]
        return [item for item in history if item["round"] == round_ and item["hop"] >= first]

    def supervise(self, deadline: dict[str, Any]) -> None:
        """The last level is told upwards (督办); repeats that were missed count as one."""
        then = self._then()
        repeated = deadline["kind"] == "supervise"
        if repeated:
            self._mark(deadline)
        count, due = 1, None
        if then is not None:
            late = max(0.0, seconds_between(deadline["due"], self.now))
            count += math.floor(late / then.supervise_every)
            due = plus(deadline["due"], count * then.supervise_every)
        known: dict[str, Any] = self.document["supervision"] or {"times": 0}
        times, of = count + known["times"], deadline.get("of") or deadline["kind"]
        if known["times"] and known["deadline"]["of"] not in _ENDED_BY_AN_ACT:
            # What only the end of the case ends goes on.
            of = known["deadline"]["of"]
        repeat = {
            **deadline,
            "kind": "supervise",
            "of": of,
            "source": then.source if then is not None else deadline["source"],
        }
        self.document["supervision"] = {
            "times": times,
            "last": self.now,
            "due": due,
            "deadline": repeat,
            **({"asked": known["asked"]} if "asked" in known else {}),
        }
        tell = list(then.tell) if then is not None else []
        self._tell("case.supervised", deadline, count=count, times=times, tell=tell)

    def supervise_reopened(self) -> None:
        """A case that was reopened as often as its profile says is supervised in each round."""
        rule, round_ = self.profile.reopening, self.token.round
        known = self._wanted_by(rule.name)
        if rule.supervise_after is None or round_ <= rule.supervise_after or known:
            return
        self.supervise_now("reopened", rule.name, rule.source)

    def _wanted_by(self, rule: str) -> bool:
        """Whether a rule has the case supervised in this round."""
        asked = (self.document["supervision"] or {}).get("asked", ())
        return any((item["by"], item["round"]) == (rule, self.token.round) for item in asked)

    def supervise_now(
        self,
        kind: str,
        by: str,
        reason: str,
        key: str | None = None,
        attachments: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Told upwards though no deadline passed, and repeated until the case has ended.

        :param kind: ``asked`` by a person, ``returned`` or ``reopened`` too often, or
            ``unanswered``: units that were called stay away.
        """
        then = self._then()
        known: dict[str, Any] = self.document["supervision"] or {"times": 0, "due": None}
        source = then.source if then is not None else reason
        deadline = {"kind": kind, "due": self.now, "rule": by, "source": source}
        due = known["due"]
        repeat: dict[str, Any] = {
            **deadline,
            "kind": "supervise",
            "of": kind,
            "calendar": None,
            "counted": [],
        }
        if due is not None:
            repeat = known["deadline"]
        elif then is not None:
            due = plus(self.now, then.supervise_every)
        asked = _wanted(self.token, by, reason, key)
        self.document["supervision"] = {
            "times": known["times"] + 1,
            "last": self.now,
            "due": due,
            "deadline": repeat,
            "asked": [*known.get("asked", ()), asked][-_REMEMBERED:],
        }
        self._tell(
            "case.supervised",
            deadline,
            discriminator=f"{deadlines.mark(deadline)}:{by}:{reason}",
            times=known["times"] + 1,
            tell=list(then.tell) if then is not None else [],
            supervisor={"by": by, "reason": reason, **_attached(attachments)},
        )

    def _then(self) -> deadlines.Then | None:
        return _then(self.profile, self.document["facts"], self.address)

    def _above(self) -> Address | None:
        ladder = self.document["facts"]["ladder"]
        return self.profile.next_address(ladder, self.address, self.atlas.directory)

    def _move(
        self,
        to: Address,
        started: Instant,
        reason: str,
        agreed: Mapping[str, Any] | None = None,
        *,
        kind: str = "case.escalated",
        **specific: Any,
    ) -> None:
        """Custody goes to ``to``; its clock starts at ``started``, which may lie back.

        :param agreed: what its state has besides.
        """
        state = self.document["state"]
        token = self.token.moved()
        on = clocks.of_next_hop(state["clocks"], started)
        moved = {
            **state,
            "token": token.as_dict(),
            "address": to.as_dict(),
            "assigned": None,
            "acknowledged": None,
            "clocks": on,
            "deadlines": deadlines.for_level(
                self.profile,
                self.document["facts"],
                to,
                deadlines.Start.of(on),
                self.atlas.holidays,
                round_=token.round,
            ),
        }
        # What was agreed with the holder before is not agreed with the next.
        for name in ("suspension", "extensions", "inherited", "progressed_at", "authority"):
            moved.pop(name, None)
        self._hop({**moved, **(agreed or {})}, reason, kind=kind, **specific)

    def _hop(self, state: dict[str, Any], reason: str, *, kind: str, **specific: Any) -> None:
        """The case is in this state from now on, in a hop of its own."""
        previous, facts = self.document["state"]["address"], self.document["facts"]
        token, supervision = Token.of(state["token"]), self.document["supervision"] or {}
        to = Address.of(state["address"])
        came = {"how": kind, "sender": self._next_sender(reason, kind, to)}
        self.document |= {
            "state": state,
            "seen": [
                {**item, **came} if (item["round"], item["hop"]) == _hop(token) else item
                for item in _seen(self.document["seen"], token, state, self.now, facts)
            ],
            "received_at": self.now,
            "supervision": supervision if "asked" in supervision else None,
        }
        told = merging.told(self.document)
        self.emit(kind, reason=reason, previous=previous, **told, **specific)

    def _refuse(self, item: dict[str, Any], why: str) -> None:
        asked = Token.of(item["token"])
        hop = next(
            seen for seen in self.document["seen"] if (seen["round"], seen["hop"]) == _hop(asked)
        )
        self.emit(
            "case.refused",
            token=asked,
            discriminator=item["request"]["id"],
            addressed=Address.of(hop["address"]),
            request=item["request"],
            asked=item["token"],
            why=why,
        )

    def _mark(self, deadline: dict[str, Any]) -> None:
        item = {
            "round": self.token.round,
            "hop": self.token.hop,
            "address": self.document["state"]["address"],
            "mark": deadlines.mark(deadline),
            "deadline": deadline,
            "fired_at": self.now,
        }
        self.document["history"] = [*self.document["history"], item]

    def _next_due(self) -> Instant | None:
        pending = _pending(self.document) if _held(self.document) else []
        return max(pending[0]["due"], self.floor(None)) if pending else None

    def _rank(self) -> int:
        """0 for the most urgent: a profile lists its urgencies from the least to the most."""
        known = [*self.profile.urgencies]
        urgency = self.document["facts"]["urgency"]
        above = len(known) - 1 - known.index(urgency) if urgency in known else RANKS
        return min(above, RANKS - 1)

    def _tell(
        self,
        kind: str,
        deadline: dict[str, Any],
        count: int = 1,
        discriminator: str | None = None,
        **specific: Any,
    ) -> None:
        names = ("kind", "of", "at", "due")
        passed = {name: deadline[name] for name in names if name in deadline}
        self.emit(
            kind,
            discriminator=discriminator or deadlines.mark(deadline),
            passed={**passed, "fired_at": self.now, "count": count},
            **specific,
        )

    def emit(self, kind: str, **specific: Any) -> None:
        self.events.append(
            case_event(
                kind,
                service="escalation",
                case=self.document["case"],
                facts=self.document["facts"],
                state=self.document["state"],
                now=self.now,
                directory=self.atlas.directory,
                **specific,
            )
        )


def _then(profile: Profile, facts: dict[str, Any], address: Address) -> deadlines.Then | None:
    """What the profile says of supervision there, or else at the end of the ladder."""
    end = profile.ladders[facts["ladder"]][-1]
    last = address._replace(level=end.level, unit=end.unit)
    here = deadlines.then(profile, facts, address)
    return here or deadlines.then(profile, facts, last)


def _wanted(token: Token, by: str, reason: str, key: str | None) -> dict[str, Any]:
    """Who wants a case to be supervised: by their Idempotency-Key, or in which hop."""
    said = {"by": by, "reason": reason, "round": token.round}
    return {**said, "hop": token.hop} if key is None else {**said, "key": key}


def _attached(attachments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What an act shows, only where it shows anything."""
    return {"attachments": list(attachments)} if attachments else {}


def _what(deadline: dict[str, Any]) -> tuple[Any, ...]:
    """What a deadline is, whatever its time."""
    return deadline["kind"], deadline.get("of"), deadline.get("at")


def _new(event: Event, received: Instant) -> Document:
    return {
        "case": event.subject,
        "facts": event.data["case"],
        "state": {**event.data["state"], "token": Token(0, Stage.HELD, 0, 0).as_dict()},
        "seen": [],
        "received_at": received,
        "supervision": None,
        "history": [],
        "requests": [],
        "answered": [],
        "late_custody": False,
        "next_due": None,
        "rank": RANKS - 1,
        "shard": shard(event.subject),
    }


def _hop(token: Token) -> tuple[int, int]:
    return token.round, token.hop


def _held(document: Document) -> bool:
    return bool(document["state"]["token"]["stage"] == Stage.HELD.word)


def _seen(
    seen: list[dict[str, Any]],
    token: Token,
    state: dict[str, Any],
    received: Instant,
    facts: dict[str, Any],
) -> list[dict[str, Any]]:
    """``seen`` with this state of a hop, its deadlines on the custodian's own clock.

    It stays ordered, so that the order of arrival leaves no trace.
    """
    known = next((item for item in seen if (item["round"], item["hop"]) == _hop(token)), None)
    item = known or {
        "round": token.round,
        "hop": token.hop,
        "address": state["address"],
        "profile": facts["profile"],
        "emergency": facts.get("emergency"),
        "token": Token(token.round, Stage.HELD, token.hop, -1).as_dict(),
        "ahead": max(0.0, seconds_between(received, state["clocks"]["level"]["started_at"])),
        "released": None,
        "deadlines": [],
        "open": [],
    }
    own = _taken_back(state, item["ahead"])
    marks = {deadlines.mark(deadline): deadline for deadline in item["deadlines"]}
    for deadline in own:
        mark = deadlines.mark(deadline)
        if mark not in marks or token.seq >= marks[mark].get("last_seq", 0):
            marks[mark] = {**deadline, "last_seq": token.seq}
    item = {**item, "deadlines": [marks[mark] for mark in sorted(marks)]}
    if token > Token.of(item["token"]):
        opened = sorted(deadlines.mark(deadline) for deadline in own)
        item |= {"token": token.as_dict(), "open": opened}
    others = [other for other in seen if other is not known]
    return sorted([*others, item], key=lambda other: (other["round"], other["hop"]))


def _with_over(document: Document, over: list[str]) -> list[dict[str, Any]]:
    """What was seen, with the marks of what had fired before the present hop began."""
    hop = _hop(Token.of(document["state"]["token"]))
    return [
        {**item, "over": over} if over and (item["round"], item["hop"]) == hop else item
        for item in document["seen"]
    ]


def _ahead(document: Document) -> float:
    """By how many seconds the clock of the present hop started ahead of the custodian's."""
    hop = _hop(Token.of(document["state"]["token"]))
    known = (item["ahead"] for item in document["seen"] if (item["round"], item["hop"]) == hop)
    return float(next(known, 0.0))


def _remembered(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What fired, of repeated supervisions the last ones: they come as long as a case is open."""
    repeats = [item for item in history if item["deadline"]["kind"] == "supervise"]
    forgotten = repeats[:-_REMEMBERED]
    return [item for item in history if item not in forgotten] if forgotten else history


def _taken_back(state: dict[str, Any], ahead: float) -> list[dict[str, Any]]:
    """The deadlines of a state whose clock started ahead of the custodian's, on that one."""
    said: list[dict[str, Any]] = state["deadlines"]
    if not ahead:
        return said
    return [{**deadline, "due": plus(deadline["due"], -ahead)} for deadline in said]


def _resolved(item: dict[str, Any]) -> bool:
    return Token.of(item["token"]).stage >= Stage.RESOLVED


def _late_custody(document: Document) -> bool:
    """Whether the round was resolved by a desk from which the case had moved on, to another."""
    state = document["state"]
    token, last = Token.of(state["token"]), document["seen"][-1]
    moved_on = (last["round"], last["hop"]) > _hop(token) and last["address"] != state["address"]
    return token.stage >= Stage.RESOLVED and moved_on


def _asked(document: Document, event: Event) -> list[dict[str, Any]]:
    request = {"request": event.data["request"], "token": event.data["state"]["token"]}
    requests: list[dict[str, Any]] = document["requests"]
    known = [item["request"]["id"] for item in requests] + document["answered"]
    if request["request"]["id"] in known:
        return requests
    return sorted([*requests, request], key=lambda item: str(item["request"]["id"]))


def _why_released(item: dict[str, Any], current: Token, seen: list[dict[str, Any]]) -> str | None:
    """Why the docket entry of ``item`` ends; none if it is the one that counts."""
    if (item["round"], item["hop"]) == _hop(current) and current.stage != Stage.WITHDRAWN:
        return None
    if not _resolved(item):
        return "custody"
    # Of two resolutions in a round the greater token wins: one that was closed is the last word.
    token = Token.of(item["token"])
    beaten = any(
        other["round"] == item["round"] and _resolved(other) and Token.of(other["token"]) > token
        for other in seen
    )
    return "resolution" if beaten else None


def _pending(document: Document) -> list[dict[str, Any]]:
    """The deadlines of the present hop that have not fired, earliest first."""
    hop = _hop(Token.of(document["state"]["token"]))
    marks = {item["mark"] for item in document["history"] if (item["round"], item["hop"]) == hop}
    for item in document["seen"]:
        if (item["round"], item["hop"]) == hop:
            marks.update(item.get("over", ()))
    # A newer publisher may know kinds that nothing here acts upon.
    pending = [
        item
        for item in _taken_back(document["state"], _ahead(document))
        if item["kind"] in _FIRED and deadlines.mark(item) not in marks
    ]
    pending += [*_repeat(document), *whistle.pending(document)]
    return sorted(pending, key=lambda item: (item["due"], item["kind"]))


def _done_since(document: Document, deadline: dict[str, Any]) -> bool:
    """Whether the holder has done what a supervised deadline waited for."""
    if deadline["of"] == "acknowledge":
        return document["state"]["acknowledged"] is not None
    own = _taken_back(document["state"], _ahead(document))
    later = (item["kind"] == deadlines.PROGRESS and item["due"] > deadline["due"] for item in own)
    return deadline["of"] == deadlines.PROGRESS and any(later)


def _repeat(document: Document) -> list[dict[str, Any]]:
    """The next supervision, unless what it waits for was done meanwhile."""
    supervision = document["supervision"]
    if not _held(document) or supervision is None or supervision["due"] is None:
        return []
    deadline = supervision["deadline"]
    # What a person asked for goes on until the case has ended.
    if "asked" not in supervision and _done_since(document, deadline):
        return []
    # While the level's clock stands, nobody is told either.
    due = out_of_pause(supervision["due"], clocks.pauses(document["state"]["clocks"]["level"]))
    return [{**deadline, "due": due}]
