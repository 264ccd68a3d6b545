"""A desk's docket as a fold: one entry for each time a case came to this desk.

An entry is ``{case, round, hop, facts, state, arrived, status, ended, held, refused, under}``, and
what its officers did adds ``request``, ``notes``, ``extension`` and ``done``:

- ``status`` is ``live`` until the desk resolves the case or the custodian releases it;
  ``ended`` then says why: ``resolved``, ``custody`` or ``resolution`` (another's counts);
- ``arrived`` is when its clock nominally started, none while only its release is known;
- ``held`` is who holds the case now, as the release told it;
- ``refused`` is the custodian's last refusal of what this desk asked;
- ``under`` are the codes of the division and all above it, for queries by subtree;
- ``request`` is the change of custody that this desk has asked for last, ``{id, action, to, reason,
  by, at, answer}``: ``answer`` none, ``granted``, or ``refused`` with ``why`` and ``held_by``;
- ``notes`` are the last of those that were written here (the timeline has all);
- ``attached`` are the attachments with which this desk resolved it;
- ``done`` is what was done here under an Idempotency-Key, ``{key: digest of the act}``;
- ``procedure`` is what must be done here before it is resolved (``{rule, title, source, steps}``),
  if the profile has one for such a case; which of its steps were done, the state says;
- ``passed`` are the kinds of deadlines that passed here, if any did (超时);
- ``progress`` is what the units that were called did so far, by the call's id, see
  :mod:`services.grid.whistles`; who they are stands in the state;
- ``merged`` is who follows the case, ``{followers, version}``, if any does (并案), ``lead``
  ``{case, resolution}`` how the one that it follows was resolved: then it is resolved as well;
- ``asks`` is what systems that are bound to a unit asked for, see ``asks.py``;
- ``extension`` is what more time this desk has asked for last, ``{id, by, reason, asked_by,
  asked_at, attachments, answer}``, if it has: ``answer`` none, ``granted`` or ``refused``,
  ``applied`` once the deadlines have it.

A release may overtake the arrival: then the entry is born ended.

What the step below asks this desk for is a document of its own, ``{case, facts, state: none,
asked_in, asked_of, extension, status, answer, under}``, with the key ``extension:<id>``; its
``status`` is ``asked``, ``granted`` or ``refused``, ``asked_in`` the asking desk's state,
``asked_of`` the address that is asked: this desk's, or a unit's. So is what units of this level
are called to, see ``calls.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.bus.errors import Refused, Reject
from services.bus.fold import Decision, Document, Work, failing
from services.dispatch import asks, calls
from services.grid import clocks, deadlines, moving, whistles
from services.grid.atlas import Atlas
from services.grid.clock import Instant, plus
from services.grid.events import Event
from services.grid.events.envelope import event_id
from services.grid.events.making import case_event
from services.grid.problems import not_among
from services.grid.profile import Profile
from services.grid.tokens import Address, Stage, Token

ARRIVALS = frozenset(
    {
        *("case.reported", "case.reopened", "case.escalated"),
        *("case.delegated", "case.transferred", "case.returned"),
    }
)
RECONCILED = "case.reconciled"
CLOSED = "case.closed"
PASSED = "case.deadline_passed"
JOINED = "case.joined"
MERGED = "case.merged"
LEAD_RESOLVED = "case.lead_resolved"
ASKED = "case.extension_requested"
ANSWERED = {"case.extension_granted": "granted", "case.extension_refused": "refused"}
NOTES = 50
"""How many notes an entry shows."""
REMEMBERED = 100
"""How many Idempotency-Keys an entry remembers."""

Attachments = Sequence[dict[str, Any]]


def work(event: Event, level: str, atlas: Atlas, now: Instant) -> Work:
    """What an event does to the docket of this level's desk."""
    sent_to = event.data["state"]["address"]["level"]
    sent = {*ARRIVALS, RECONCILED, CLOSED, JOINED, asks.ASKED}
    if event.type in sent and not calls.about(event) and sent_to != level:
        return failing(Reject("wrong_level", f"a case for {sent_to} came to the {level} desk"))
    wrong = None
    if event.type == ASKED:
        wrong = _not_asked_here(event, level, atlas)
    elif calls.about(event):
        wrong = calls.wrong_level(event, level)
    if wrong is not None:
        return failing(Reject("wrong_level", wrong))
    if calls.about(event):
        return Work(key(event), lambda record: calls.heard(record.document, event, atlas, now))
    return Work(key(event), lambda record: decide(merge(record.document, event), atlas, now))


def _not_asked_here(event: Event, level: str, atlas: Atlas) -> str | None:
    facts, holder = event.data["case"], Address.of(event.data["state"]["address"])
    above = _above(facts, holder, atlas)
    if above is not None and above.level == level:
        return None
    return f"the {level} desk was asked for more time, but is not above the {holder.level}"


def _above(facts: dict[str, Any], holder: Address, atlas: Atlas) -> Address | None:
    profile = atlas.rules_for(facts)
    return profile.next_address(facts["ladder"], holder, atlas.directory)


def key(event: Event) -> str:
    """Which docket entry an event is about: the case, the round and the hop."""
    token = _token(event)
    if calls.about(event):
        return calls.key(event.data["call"]["id"])
    if event.type == ASKED:
        return extension_key(event.data["extension"]["id"])
    if event.type == "case.released":
        token = event.data["released"]["token"]
    elif event.type == "case.refused":
        token = event.data["asked"]
    return entry_key(event.subject, token["round"], token["hop"])


def entry_key(case: str, round_: int, hop: int) -> str:
    """The key of the entry that ``case`` has for this hop of this round."""
    return f"{case}:{round_}.{hop}"


def extension_key(identity: str) -> str:
    """The key of what the level below asks this desk for."""
    return f"extension:{identity}"


def merge(document: Document | None, event: Event) -> Document:
    """What the docket knows after an event, in whatever order events come."""
    if event.type in ARRIVALS:
        return _arrived(document, event)
    if event.type == ASKED:
        return document or _asked(event)
    if event.type in ANSWERED:
        return _answered(document, event)
    if event.type == "case.released":
        return _released(document, event)
    if calls.about(event):
        return calls.merge(document, event)
    others = {
        RECONCILED: _reconciled,
        CLOSED: _reconciled,
        PASSED: _passed,
        MERGED: _merged,
        LEAD_RESOLVED: _led,
        JOINED: _joined,
        asks.ASKED: _act_asked,
    }
    return others.get(event.type, _refused)(document, event)


def decide(document: Document, atlas: Atlas, now: Instant) -> Decision:
    """Assigns a newly arrived case once, the choice kept with its reason; applies an extension.

    A case that follows another, which was resolved, is resolved as that was.
    With ``unstaffed: skip`` and nobody on duty it also asks the custodian to move it up.
    What systems asked for is done then, each once.
    """
    decision, level = _decided(document, atlas, now), _level(document)
    if level is None:
        return decision
    return asks.answered(decision, _ACTS, level, atlas, now)


def _level(document: Document) -> str | None:
    """Whose entry it is; none while it has not arrived, and did not end before."""
    if document["state"] is not None:
        return str(document["state"]["address"]["level"])
    if document["status"] != "ended":
        return None
    return next((str(ask["level"]) for ask in document.get("asks", {}).values()), None)


def _decided(document: Document, atlas: Atlas, now: Instant) -> Decision:
    state = document["state"] or document.get("asked_in")
    if state is None:
        return Decision(document)
    address = Address.of(state["address"])
    if not document["under"]:
        under = [place.code for place in atlas.directory.ancestors(address.division)]
        document = {**document, "under": under}
    if document["status"] == "asked" and "asked_of" not in document:
        asked_of = _above(document["facts"], address, atlas)
        document = {**document, "asked_of": (asked_of or address).as_dict()}
    if document["status"] != "live":
        return Decision(document)
    if document.get("lead") is not None:
        return _follow(document, atlas, now)
    profile = atlas.rules_for(document["facts"])
    document = {**document, **_bound(profile, document["facts"], state)}
    if state["assigned"] is not None:
        return _extended(document, atlas, now)
    officer, why = _on_duty(document["case"], address, profile, atlas, now)
    state = {
        **document["state"],
        "token": Token.of(document["state"]["token"]).act().as_dict(),
        "assigned": {"officer": officer, "why": why, "at": now},
    }
    document = {**document, "state": state}
    unstaffed = profile.unstaffed if officer is None else None
    events = [
        _event("case.assigned", document, atlas, now, deputy=why == "deputy", unstaffed=unstaffed)
    ]
    if unstaffed == "skip":
        said = {"action": "escalate", "to": None, "reason": "unstaffed"}
        asked = _asking(document, f"desk:{address.level}", said, now)
        document = {**document, "request": asked}
        events.append(_request(document, atlas, now, "escalate"))
    return Decision(document, events)


def acknowledge(
    document: Document,
    by: str,
    note: str,
    attachments: Attachments = (),
    *,
    atlas: Atlas,
    now: Instant,
) -> Decision:
    """An officer accepts the case (接单); to do it again changes nothing.

    :raises Refused: the desk no longer holds the case, or another officer accepted it.
    """
    _must_be_live(document)
    accepted = document["state"]["acknowledged"]
    if accepted is not None:
        if accepted["by"] != by:
            raise Refused(
                f"{accepted['by']} has acknowledged this case already", acknowledged=accepted
            )
        return Decision(document, answer=document)
    state = {**document["state"], "acknowledged": {"by": by, "at": now}}
    profile = atlas.rules_for(document["facts"])
    state["deadlines"] = deadlines.open_of(state["deadlines"], state)
    kept = deadlines.with_progress(profile, document["facts"], state, atlas.holidays)
    document = _acted(document, acknowledged=state["acknowledged"], deadlines=kept)
    event = _event("case.acknowledged", document, atlas, now, note=note, **_attached(attachments))
    return Decision(document, [event], document)


def note(
    document: Document,
    by: str,
    text: str,
    attachments: Attachments = (),
    *,
    atlas: Atlas,
    now: Instant,
    another: bool = False,
    step: str | None = None,
) -> Decision:
    """The holder says how far it is (进展); the last note again changes nothing.

    :param another: it is known not to be the last one again, though it may say the same.
    :param step: a step of the procedure that was done with it; once it was, more may be said of it.
    :raises Refused: the desk no longer holds the case, or other steps come first.
    """
    _must_be_live(document)
    notes, said = document.get("notes", []), {"by": by, "text": text, **_attached(attachments)}
    if step is not None:
        said["step"] = step
    if not another and notes and _same(notes[-1], said):
        return Decision(document, answer=document)
    taken: dict[str, Any] = {} if step is None else {"steps": _taken(document, step, by, now)}
    document = _progressed(document, atlas, now, **taken)
    token = Token.of(document["state"]["token"])
    made = {"id": event_id(document["case"], token, "note"), "at": now, **said}
    document = {**document, "notes": [*notes, made][-NOTES:]}
    return Decision(document, [_event("case.noted", document, atlas, now, note=made)], document)


def resolve(
    document: Document,
    by: str,
    outcome: str,
    note: str,
    attachments: Attachments = (),
    *,
    atlas: Atlas,
    now: Instant,
    scores: Mapping[str, int] | None = None,
) -> Decision:
    """An officer settles the case (办结); the same again changes nothing.

    Units that are still there may leave then.

    :param outcome: one of the profile's.
    :param scores: how these units did, by their id; one that is not in it is not scored.
    :raises WrongCall: a unit that is scored is not there, or is who holds the case.
    :raises Refused: the desk no longer holds the case, it was resolved otherwise, or steps of its
        procedure are missing.
    """
    settled = (document["state"] or {}).get("resolution")
    if settled is not None and document["ended"] == "resolved":
        same = (settled["by"], settled["outcome"], settled["note"]) == (by, outcome, note)
        if same and document.get("attached", []) == list(attachments):
            return Decision(document, answer=document)
        raise Refused("this desk has resolved the case already", resolution=settled)
    _must_be_live(document)
    missing = missing_steps(document)
    if missing:
        names = "、".join(item["title"] for item in missing)
        title = document["procedure"]["title"]["zh"]
        wrong = f"{title}: not done yet: {names}; note each with its step"
        raise Refused(wrong, missing=missing)
    own = document["state"]["address"].get("unit")
    there = sorted({item["unit"] for item in whistles.standing(document["state"])} - {own})
    absent = {
        f"scores.{unit}": not_among(unit, there) for unit in scores or () if unit not in there
    }
    if absent:
        raise whistles.WrongCall(absent)
    said = {"outcome": outcome, "note": note, "by": by, "at": now}
    document = {**_settled(document, said, now, scores), "attached": list(attachments)}
    event = _event("case.resolved", document, atlas, now, **_attached(attachments))
    return Decision(document, [event], document)


def _settled(
    document: Document,
    resolution: dict[str, Any],
    now: Instant,
    scores: Mapping[str, int] | None = None,
) -> Document:
    """The entry once the case is resolved; units that are still there may leave."""
    state = document["state"]
    acted = _acted(
        document,
        stage=Stage.RESOLVED,
        deadlines=[],
        clocks=clocks.running(state["clocks"], now),
        suspension=None,
        resolution=resolution,
        **whistles.released(state, resolution["by"], now, scores or {}),
    )
    return {**acted, "status": "ended", "ended": "resolved"}


def _follow(document: Document, atlas: Atlas, now: Instant) -> Decision:
    """The case that this one follows was resolved (并案): so is this, by who resolved that."""
    lead = document["lead"]
    resolution = {**lead["resolution"], "at": now, "followed": lead["case"]}
    document = _settled(document, resolution, now)
    return Decision(document, [_event("case.resolved", document, atlas, now)])


def whistle(
    document: Document,
    by: str,
    units: Sequence[str],
    reason: str,
    attachments: Attachments = (),
    *,
    atlas: Atlas,
    now: Instant,
    lead: str | None = None,
    asked: Mapping[str, str] | None = None,
) -> Decision:
    """The holder calls units to join the case (吹哨); the same again changes nothing.

    :param units: their ids, known and different, see :func:`services.grid.whistles.named`.
    :param lead: the id of the one that leads all who are called; by default the first ever called.
    :param asked: in which time they must check in or finish, by kind, where that is sooner than
        the profile says.
    :raises WrongCall: they can't be called like this.
    :raises Refused: the desk no longer holds the case, a unit was called already, or the profile
        lets nobody be called.
    """
    _must_be_live(document)
    facts, state = document["facts"], document["state"]
    profile, there = atlas.rules_for(facts), whistles.standing(state)
    already = {item["unit"]: item for item in there if item["unit"] in units}
    again = (by, reason, lead, asked or {})
    if len(already) == len(units) and all(_blown_so(item, *again) for item in already.values()):
        return Decision(document, answer=document)
    if already:
        called = " and ".join(sorted(already))
        raise Refused(f"{called} was called already: release it first, or leave it out")
    if len(state.get("joined", ())) + len(units) > whistles.MOST:
        raise Refused(f"{whistles.MOST} units at most may be called in a round")
    leads = whistles.leading(state)
    if lead is not None and leads is not None:
        raise Refused(f"{leads} leads them: release it first, or leave out lead")
    if not profile.whistle:
        raise Refused(f"profile {profile.name} lets no unit be called: add a part whistle to it")
    known = atlas.directory.units
    gone = [unit for unit in units if unit not in known]
    if gone:
        raise whistles.WrongCall(
            {"units": f"{gone[0]} is in the directory no longer: leave it out"}
        )
    found = [known[unit] for unit in units]
    new = whistles.called(
        document["case"],
        state,
        found,
        profile=profile,
        facts=facts,
        holidays=atlas.holidays,
        by=by,
        reason=reason,
        now=now,
        lead=lead,
        asked=asked or {},
    )
    document = _progressed(document, atlas, now, joined=[*state.get("joined", ()), *new])
    told = {"by": by, "units": list(units), **_attached(attachments)}
    return Decision(document, [_event("case.whistled", document, atlas, now, **told)], document)


def _blown_so(
    call: whistles.Call, by: str, reason: str, lead: str | None, asked: Mapping[str, str]
) -> bool:
    """Whether a unit was called in just this way; who asks for no time leaves it as it is."""
    leads = lead is None or call["lead"] == (call["unit"] == lead)
    in_time = all(call[kind]["counted"][0] == text for kind, text in asked.items())
    return (call["by"], call["reason"]) == (by, reason) and leads and in_time


def release(
    document: Document,
    by: str,
    unit: str,
    score: int | None,
    note: str,
    *,
    atlas: Atlas,
    now: Instant,
    attachments: Attachments = (),
) -> Decision:
    """The holder lets a unit leave, and scores it (评价); the same again changes nothing.

    :param score: 1 to 5, 5 being the best; only a unit that never came may go without, and one
        that was given the case does, for none scores itself.
    :raises WrongCall: it came, and has no score; or it has one and is who holds the case.
    :raises Refused: the desk no longer holds the case, the unit was never called, or it was
        released otherwise.
    """
    _must_be_live(document)
    state = document["state"]
    calls_of = [item for item in state.get("joined", ()) if item["unit"] == unit]
    if not calls_of:
        raise Refused(f"{unit} was not called to this case")
    call = calls_of[-1]
    known = call["released"]
    if known is not None:
        if (known["by"], known["score"], known["note"]) == (by, score, note):
            return Decision(document, answer=document)
        raise Refused(f"{known['by']} has released {unit} already", released=known)
    progress = document.get("progress", {}).get(call["id"], whistles.NOTHING)
    own = unit == state["address"].get("unit")
    if own and score is not None:
        wrong = f"{unit} holds the case now, and no unit scores itself: leave it out"
        raise whistles.WrongCall({"score": wrong})
    if score is None and whistles.met("check_in", progress) and not own:
        raise whistles.WrongCall({"score": f"{unit} came: write how it did, 1 to 5 (5 is best)"})
    told = {"by": by, "at": now, "score": score, "note": note}
    joined = [
        {**item, "released": told} if item["id"] == call["id"] else item for item in state["joined"]
    ]
    document = _progressed(document, atlas, now, joined=joined)
    said = {"by": by, "units": [unit], **_attached(attachments)}
    event = _event("case.unit_released", document, atlas, now, **said)
    return Decision(document, [event], document)


def wrong_step(document: Document, step: str) -> str | None:
    """Why this is no step of the procedure that binds here, with the cure; None: it is one."""
    procedure = document.get("procedure")
    steps = [item["id"] for item in procedure["steps"]] if procedure is not None else []
    if step in steps:
        return None
    return not_among(step, steps) if steps else "no procedure binds here: leave it out"


def missing_steps(document: Document) -> list[dict[str, Any]]:
    """The steps of the procedure that binds here that were not done, in order."""
    procedure = document.get("procedure")
    if procedure is None:
        return []
    done = {item["step"] for item in document["state"].get("steps", ())}
    return [item for item in procedure["steps"] if item["id"] not in done]


def _taken(document: Document, step: str, by: str, now: Instant) -> list[dict[str, Any]]:
    """The steps that were done, with one more; they are done in their order."""
    known, missing = document["state"].get("steps", []), missing_steps(document)
    if step not in [item["id"] for item in missing]:
        return list(known)
    before = [item["title"] for item in missing][: [item["id"] for item in missing].index(step)]
    if before:
        raise Refused(f"{'、'.join(before)} comes first: note that", missing=missing)
    return [*known, {"step": step, "title": missing[0]["title"], "by": by, "at": now}]


def _bound(profile: Profile, facts: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The procedure that binds who holds a case, unless a level above gave its authority."""
    found = profile.procedure(facts, state["address"]["level"])
    if found is None or state.get("authority") is not None:
        return {}
    steps = [{"id": name, "title": title} for name, title in found.steps.items()]
    shown = {"rule": found.name, "title": dict(found.title), "source": found.source}
    return {"procedure": {**shown, "steps": steps}}


def suspend(
    document: Document,
    by: str,
    reason: str,
    note: str,
    attachments: Attachments = (),
    *,
    atlas: Atlas,
    now: Instant,
    longest: float | None = None,
) -> Decision:
    """The case waits for something (挂起): its deadlines move by the longest time at once.

    :param reason: one of the profile's ``suspensions``.
    :param longest: seconds after which it is resumed by itself; by default, and at the most,
        what the profile gives this reason.
    :raises Refused: the desk no longer holds the case, it waits already, or it has waited as
        often as it may.
    """
    _must_be_live(document)
    state, profile = document["state"], atlas.rules_for(document["facts"])
    rule = profile.suspensions[reason]
    waiting = waits(state, now)
    if waiting is not None:
        same = longest is None or waiting["until"] == plus(waiting["at"], longest)
        if (waiting["by"], waiting["reason"]) == (by, reason) and same:
            return Decision(document, answer=document)
        raise Refused(f"the case waits already, until {waiting['until']}", suspension=waiting)
    if clocks.suspensions(state["clocks"]) >= rule.times:
        raise Refused(f"the case was suspended {rule.times} times here already: that is the most")
    until = plus(now, min(longest or rule.longest, rule.longest))
    stopped = clocks.paused(state["clocks"], rule.stops, now, until, reason)
    suspension = {"reason": reason, "by": by, "at": now, "until": until}
    document = _retimed(document, atlas, clocks=stopped, suspension=suspension, progressed_at=now)
    said = {"by": by, "note": note, **_attached(attachments)}
    return Decision(document, [_event("case.suspended", document, atlas, now, **said)], document)


def resume(
    document: Document,
    by: str,
    note: str,
    attachments: Attachments = (),
    *,
    atlas: Atlas,
    now: Instant,
) -> Decision:
    """The case waits no longer: its deadlines are brought back. Again, it changes nothing.

    :raises Refused: the desk no longer holds the case, or it was never suspended here.
    """
    _must_be_live(document)
    state = document["state"]
    if waits(state, now) is None:
        if clocks.suspensions(state["clocks"]):
            return Decision(document, answer=document)
        raise Refused("the case is not suspended")
    on = clocks.running(state["clocks"], now)
    document = _retimed(document, atlas, clocks=on, suspension=None, progressed_at=now)
    said = {"by": by, "note": note, **_attached(attachments)}
    return Decision(document, [_event("case.resumed", document, atlas, now, **said)], document)


def waits(state: dict[str, Any], now: Instant) -> dict[str, Any] | None:
    """The suspension of a case, if it waits now: after its longest time it goes on by itself."""
    suspension: dict[str, Any] | None = state.get("suspension")
    return suspension if suspension is not None and now < suspension["until"] else None


def request(
    document: Document,
    by: str,
    action: str,
    reason: str,
    attachments: Attachments = (),
    *,
    atlas: Atlas,
    now: Instant,
    to: dict[str, Any] | None = None,
    authorise: bool = False,
) -> Decision:
    """Asks the custodian to change who holds the case; the clock runs until it answers.

    The same again changes nothing, even once it was granted.

    :param action: one of :data:`services.grid.events.case.REQUESTS`.
    :param to: whom to delegate or transfer it to, ``{level, division, unit}``.
    :param authorise: it is delegated with the holder's authority to settle it (授权).
    :raises WrongPlace: it can't go there, or not with this level's authority.
    :raises Refused: the desk no longer holds the case, it has asked already, or there is nobody
        above, or nobody who sent it.
    """
    facts, here = document["facts"], Address.of(document["state"]["address"])
    profile = atlas.rules_for(facts)
    if to is not None:
        to = moving.target(
            action,
            to,
            here,
            profile=profile,
            ladder=facts["ladder"],
            directory=atlas.directory,
        ).as_dict()
    said = {"action": action, "to": to, "reason": reason, **_attached(attachments)}
    if authorise:
        wrong = moving.no_authority(here, facts, profile)
        if wrong is not None:
            raise moving.WrongPlace({"authorise": wrong})
        said["authorise"] = True
    asked = _asking(document, by, said, now)
    last = document.get("request")
    if last is not None and last["answer"] != "refused" and _same(last, asked):
        return Decision(document, answer=document)
    _must_be_live(document)
    if last is not None and last["answer"] is None:
        why = f"{last['by']} has asked to {last['action']} it, and was not answered yet"
        raise Refused(why, request=last, held_by=document["state"]["address"])
    if action == "escalate" and not profile.next_address(facts["ladder"], here, atlas.directory):
        raise Refused("there is no level above", held_by=document["state"]["address"])
    if action == "return" and document["hop"] == 0:
        why = "nobody sent it here, it was reported here: transfer it, or escalate it"
        raise Refused(why, held_by=document["state"]["address"])
    document = {**document, "request": asked}
    return Decision(document, [_request(document, atlas, now, asked["id"])], document)


def asked_before(
    document: Document,
    by: str,
    action: str,
    to: dict[str, Any] | None,
    reason: str,
    *,
    atlas: Atlas,
) -> bool:
    """Whether just this was asked for here, and granted.

    :param to: as it was sent, with any part left out, and a unit by its name or id.
    """
    last = document.get("request")
    if last is None or last["answer"] != "granted":
        return False
    meant = {name: value for name, value in (to or {}).items() if value is not None}
    unit = moving.unit_of(meant, Address.of(document["state"]["address"]), atlas.directory)
    if unit is not None:
        meant["unit"] = unit.id
    return (last["by"], last["action"], last["reason"]) == (by, action, reason) and (
        {**(last["to"] or {}), **meant} == (last["to"] or {})
    )


def done(document: Document, key: str) -> str | None:
    """The digest of what was done here under an Idempotency-Key, or none."""
    found: str | None = document.get("done", {}).get(key)
    return found


def remembered(document: Document, key: str, digest: str) -> Document:
    """The entry, that remembers what was done under an Idempotency-Key."""
    kept = [*document.get("done", {}).items(), (key, digest)][-REMEMBERED:]
    return {**document, "done": dict(kept)}


def ask_extension(
    document: Document,
    by: str,
    more: str,
    reason: str,
    attachments: Attachments = (),
    *,
    atlas: Atlas,
    now: Instant,
    another: bool = False,
) -> Decision:
    """Asks the level above for more time to resolve the case (延期); the clock runs meanwhile.

    The same again changes nothing, even once it was granted; what was refused is asked anew.

    :param more: how much, such as ``2d`` or ``3 working days``, checked already.
    :param another: it is known not to be what was granted, though it may say the same.
    :raises Refused: the desk no longer holds the case, it has asked or was granted as often as
        it may, or there is no level above.
    """
    _must_be_live(document)
    state, facts = document["state"], document["facts"]
    profile, last = atlas.rules_for(facts), document.get("extension")
    if last is not None and last["answer"] != "refused":
        waits = last["answer"] is None
        known = last["asked_by"], last["by"], last["reason"], last.get("attachments", [])
        if known == (by, more, reason, list(attachments)) and (waits or not another):
            return Decision(document, answer=document)
        if waits:
            raise Refused("more time was asked for already, and not answered yet", extension=last)
    granted = state.get("extensions", [])
    most = profile.extension.times if profile.extension is not None else 0
    if len(granted) >= most:
        raise Refused(f"the case was extended {len(granted)} times here: the profile allows {most}")
    address = Address.of(state["address"])
    above = profile.next_address(facts["ladder"], address, atlas.directory)
    if above is None:
        raise Refused("there is no level above that could grant more time")
    token = Token.of(state["token"])
    asked = {
        "id": event_id(document["case"], token, "extension", f"{now}:{more}:{reason}"),
        "by": more,
        "reason": reason,
        "asked_by": by,
        "asked_at": now,
        **_attached(attachments),
    }
    document = {**document, "extension": {**asked, "answer": None}}
    event = _event(
        ASKED, document, atlas, now, addressed=above, discriminator=asked["id"], extension=asked
    )
    return Decision(document, [event], document)


def answer_extension(
    document: Document,
    by: str,
    note: str,
    attachments: Attachments = (),
    *,
    granted: bool,
    atlas: Atlas,
    now: Instant,
) -> Decision:
    """The level above grants more time, or refuses it; the same again changes nothing.

    :raises Refused: it was answered otherwise.
    """
    status = "granted" if granted else "refused"
    if document["status"] != "asked":
        if document["status"] == status:
            return Decision(document, answer=document)
        raise Refused(f"it was {document['status']} already", answer=document["answer"])
    if document["extension"]["asked_by"] == by:
        raise Refused("who asks for more time can't answer it: another person must")
    answer = {"by": by, "note": note, "at": now, **_attached(attachments)}
    document = {**document, "status": status, "answer": answer}
    event = case_event(
        f"case.extension_{status}",
        service="dispatch",
        case=document["case"],
        facts=document["facts"],
        state=document["asked_in"],
        now=now,
        directory=atlas.directory,
        discriminator=document["extension"]["id"],
        extension=document["extension"],
        answer=answer,
    )
    return Decision(document, [event], document)


def _must_hold(document: Document, ask: asks.Ask) -> None:
    """That the unit for which a system asks has the case here."""
    _must_be_live(document)
    here = document["state"]["address"]
    if here["unit"] != ask["unit"]:
        raise Refused(f"the case is not with {ask['unit']}", held_by=here)


def _acknowledge(document: Document, ask: asks.Ask, *, atlas: Atlas, now: Instant) -> Decision:
    _must_hold(document, ask)
    attached = ask.get("attachments", ())
    return acknowledge(document, ask["by"], ask["note"], attached, atlas=atlas, now=now)


def _progress(document: Document, ask: asks.Ask, *, atlas: Atlas, now: Instant) -> Decision:
    _must_hold(document, ask)
    said = ask["by"], ask["note"], ask.get("attachments", ())
    step = ask.get("step")
    wrong = None if step is None else wrong_step(document, step)
    if wrong is not None:
        raise whistles.WrongCall({"step": wrong})
    return note(document, *said, atlas=atlas, now=now, another=True, step=step)


def _resolve(document: Document, ask: asks.Ask, *, atlas: Atlas, now: Instant) -> Decision:
    _must_hold(document, ask)
    outcome, allowed = ask["outcome"], atlas.rules_for(document["facts"]).outcomes
    if outcome not in allowed:
        raise whistles.WrongCall({"outcome": not_among(outcome, list(allowed))})
    said = ask["by"], outcome, ask["note"], ask.get("attachments", ())
    return resolve(document, *said, atlas=atlas, now=now, scores=ask.get("scores"))


_ACTS = {"acknowledge": _acknowledge, "progress": _progress, "resolve": _resolve}


def _blank(event: Event, token: dict[str, Any]) -> Document:
    """An entry of which only an answer or a release is known so far."""
    return {
        "case": event.subject,
        "round": token["round"],
        "hop": token["hop"],
        "facts": event.data["case"],
        "state": None,
        "arrived": None,
        "under": [],
        "status": "live",
        "ended": None,
        "held": None,
        "refused": None,
    }


def _arrived(document: Document | None, event: Event) -> Document:
    document = document or _blank(event, _token(event))
    if document["state"] is not None:
        return document
    facts, state = event.data["case"], event.data["state"]
    arrived = state["clocks"]["level"]["started_at"]
    if "merged" in event.data:
        document = _followed_by(document, event.data["merged"])
    # A release that came first may have the facts of a newer profile.
    return {**document, "facts": facts, "state": state, "arrived": arrived}


def _released(document: Document | None, event: Event) -> Document:
    released = event.data["released"]
    document = document or _blank(event, released["token"])
    # A closed one was the last word, whatever the custodian thought before it knew.
    if not _is_closed(document):
        held, ended = document["held"], document["ended"]
        if held is None or Token.of(_token(event)) > Token.of(held["token"]):
            held = {name: event.data["state"][name] for name in ("token", "address")}
        if ended is None or released["why"] == "resolution":
            ended = released["why"]
        document = {**document, "status": "ended", "ended": ended, "held": held}
    return _told(document, released.get("granted"), {"answer": "granted"})


def _closed(document: Document | None, event: Event) -> Document:
    """What this desk resolved is closed (销号): it counts, also if another's seemed to."""
    document = document or _blank(event, _token(event))
    started = event.data["state"]["clocks"]["level"]["started_at"]
    told = {"facts": event.data["case"], "state": event.data["state"], "held": None}
    arrived = document["arrived"] or started
    return {**document, **told, "arrived": arrived, "status": "ended", "ended": "resolved"}


def _is_closed(document: Document) -> bool:
    state = document["state"]
    return state is not None and Token.of(state["token"]).stage == Stage.CLOSED


def _reconciled(document: Document | None, event: Event) -> Document:
    """The entry as the custodian knows it; what the desk did since, or a later release, counts."""
    document = document or _blank(event, _token(event))
    token, known = Token.of(_token(event)), document["state"]
    if token.stage == Stage.CLOSED:
        return _closed(document, event)
    if document["held"] is not None and Token.of(document["held"]["token"]) > token:
        return document
    if known is None or token > Token.of(known["token"]):
        started = event.data["state"]["clocks"]["level"]["started_at"]
        told = {"facts": event.data["case"], "state": event.data["state"], "arrived": started}
        document = {**document, **told}
    if "progress" in event.data:
        document = _joined(document, event)
    stage = Token.of(document["state"]["token"]).stage
    if stage == Stage.HELD:
        return {**document, "status": "live", "ended": None, "held": None}
    ended = document["ended"] or ("custody" if stage == Stage.WITHDRAWN else "resolved")
    return {**document, "status": "ended", "ended": ended}


def _refused(document: Document | None, event: Event) -> Document:
    document = document or _blank(event, event.data["asked"])
    request, why, asked = (event.data[name] for name in ("request", "why", "asked"))
    last = {"request": request, "why": why, "asked": asked}
    # In whatever order they come, the last is that of the latest act.
    document = {**document, "refused": max(document["refused"] or last, last, key=_asked_when)}
    held_by = event.data["state"]["address"]
    return _told(document, request["id"], {"answer": "refused", "why": why, "held_by": held_by})


def _asked_when(refused: dict[str, Any]) -> tuple[Any, ...]:
    token = refused.get("asked")
    return Token.of(token) if token else (), refused["request"]["id"]


def _told(document: Document, identity: str | None, answer: dict[str, Any]) -> Document:
    """The custodian's answer to a request, if it is this entry's and not answered yet."""
    asked = document.get("request")
    if asked is None or asked["id"] != identity or asked["answer"] is not None:
        return document
    return {**document, "request": {**asked, **answer}}


def _passed(document: Document | None, event: Event) -> Document:
    document = document or _blank(event, _token(event))
    kinds = {*document.get("passed", ()), event.data["passed"]["kind"]}
    return {**document, "passed": sorted(kinds)}


def _joined(document: Document | None, event: Event) -> Document:
    """What the units that were called did, as the custodian has heard."""
    document = document or _blank(event, _token(event))
    known = whistles.heard(document.get("progress", {}), event.data["progress"])
    return {**document, "progress": known}


def _act_asked(document: Document | None, event: Event) -> Document:
    return asks.merge(document or _blank(event, _token(event)), event)


def _led(document: Document | None, event: Event) -> Document:
    return {**(document or _blank(event, _token(event))), "lead": event.data["lead"]}


def _merged(document: Document | None, event: Event) -> Document:
    return _followed_by(document or _blank(event, _token(event)), event.data["merged"])


def _followed_by(document: Document, merged: dict[str, Any]) -> Document:
    """The greatest version counts."""
    known = document.get("merged") or {"version": 0}
    return document if known["version"] >= merged["version"] else {**document, "merged": merged}


def _asked(event: Event) -> Document:
    return {
        **_blank(event, _token(event)),
        "asked_in": event.data["state"],
        "extension": event.data["extension"],
        "status": "asked",
        "answer": None,
    }


def _answered(document: Document | None, event: Event) -> Document:
    document = document or _blank(event, _token(event))
    asked = document.get("extension")
    # What this desk has not asked for, or lost, is nothing to it.
    if asked is None or asked["id"] != event.data["extension"]["id"] or asked["answer"] is not None:
        return document
    said = {"answer": ANSWERED[event.type], "granted_by": event.data["answer"]["by"]}
    return {**document, "extension": {**asked, **said}}


def _extended(document: Document, atlas: Atlas, now: Instant) -> Decision:
    """Applies what was granted, once."""
    asked = document.get("extension")
    if asked is None or asked["answer"] != "granted":
        return Decision(document)
    more = {"id": asked["id"], "by": asked["by"], "granted_by": asked["granted_by"], "at": now}
    extensions = [*document["state"].get("extensions", []), more]
    document = _retimed(document, atlas, extensions=extensions)
    document["extension"] = {**asked, "answer": "applied"}
    names = ("id", "by", "reason", "asked_by", "asked_at", "attachments")
    shown = {name: asked[name] for name in names if name in asked}
    return Decision(document, [_event("case.extended", document, atlas, now, extension=shown)])


def _on_duty(
    case: str, address: Address, profile: Profile, atlas: Atlas, now: Instant
) -> tuple[str | None, str]:
    """The officer for a case, and why it is this one."""
    officers, why = profile.on_duty(address, atlas.directory, now)
    if not officers:
        return None, why
    # Several share the work evenly, and a replay finds the same one.
    found = officers[sum(case.encode()) % len(officers)]
    if why == "on duty" and found.instead_of is not None:
        why = f"for {found.instead_of}, on leave"
    return found.id, why


def _must_be_live(document: Document) -> None:
    if document["status"] == "live":
        return
    held = document["held"]
    where = held["address"] if held else document["state"]["address"]
    stage = (held or document["state"])["token"]["stage"]
    said = (
        f"the case is {stage}"
        if stage != Stage.HELD.word
        else f"the case has moved on: {where['level']} {where['division']} holds it now"
    )
    raise Refused(said, held_by=where, stage=stage)


def _acted(document: Document, stage: Stage | None = None, **changes: Any) -> Document:
    token = Token.of(document["state"]["token"]).act(stage)
    state = {**document["state"], **changes, "token": token.as_dict()}
    if state.get("suspension") is None:
        state.pop("suspension", None)
    return {**document, "state": state}


def _progressed(document: Document, atlas: Atlas, now: Instant, **changes: Any) -> Document:
    """An act by which the holder gets on with the case."""
    facts, state = document["facts"], {**document["state"], "progressed_at": now}
    profile = atlas.rules_for(facts)
    kept = deadlines.with_progress(profile, facts, state, atlas.holidays)
    return _acted(document, progressed_at=now, deadlines=kept, **changes)


def _retimed(document: Document, atlas: Atlas, **changes: Any) -> Document:
    """An act that changes when deadlines are due."""
    document = _acted(document, **changes)
    facts, state = document["facts"], document["state"]
    profile = atlas.rules_for(facts)
    found = deadlines.of_state(profile, facts, state, atlas.holidays)
    return {**document, "state": {**state, "deadlines": found}}


def _token(event: Event) -> dict[str, Any]:
    token: dict[str, Any] = event.data["state"]["token"]
    return token


def _event(kind: str, document: Document, atlas: Atlas, now: Instant, **specific: Any) -> Event:
    return case_event(
        kind,
        service=f"dispatch/{document['state']['address']['level']}",
        case=document["case"],
        facts=document["facts"],
        state=document["state"],
        now=now,
        directory=atlas.directory,
        **specific,
    )


def _asking(document: Document, by: str, said: dict[str, Any], now: Instant) -> dict[str, Any]:
    """A request that is not answered yet."""
    token = Token.of(document["state"]["token"])
    # What was refused is asked for anew, be it in the same instant.
    before = (document.get("request") or {"id": ""})["id"]
    what = f"{before}:{by}:{now}:{sorted(said.items())}"
    identity = event_id(document["case"], token, "request", what)
    return {"id": identity, **said, "by": by, "at": now, "answer": None}


def _request(document: Document, atlas: Atlas, now: Instant, discriminator: str) -> Event:
    asked = document["request"]
    sent = {name: asked[name] for name in asked if name not in ("at", "answer")}
    return _event("case.requested", document, atlas, now, discriminator=discriminator, request=sent)


def _same(known: dict[str, Any], said: dict[str, Any]) -> bool:
    """Whether two acts say the same, whenever they were done."""
    names = ("action", "to", "reason", "by", "text", "attachments", "step", "authorise")
    return all(known.get(name) == said.get(name) for name in names)


def _attached(attachments: Attachments) -> dict[str, Any]:
    """Only where there are any: most acts have none."""
    return {"attachments": list(attachments)} if attachments else {}
