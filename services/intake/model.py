"""The register as a fold: one record for each case.

It is ``{case, facts, state, report, request, under, reached, late_custody, supervision,
status}``:

- ``facts`` and ``state`` as events carry them, ``state`` the greatest that any carried;
- ``report`` is what only the register keeps: description, location, attachments, ``media`` (URLs
  of an Open311 client), how the place was found, the reference to the reporter, and ``by``,
  whose token reported it;
- ``request`` is ``{digest}`` of the report as it was sent, so that the same
  ``Idempotency-Key`` gives the same answer and another report under it is refused;
- ``under`` are the codes of the case's division, of the one where it is now, and of all above
  them, for queries by subtree;
- ``reached`` is the furthest ``[round, hop]`` heard of, ``holder`` who had it there: a case that
  another resolved, from an earlier hop, is marked ``late_custody``;
- ``supervision`` is ``{round, times, last}`` once a case was supervised;
- ``progress`` is what units that were called to the case did, by the call's id, see
  :mod:`services.grid.whistles`;
- ``watchers`` is ``{to, version}``: who wants to be told of what happens to the case;
- ``reopening`` is ``{by, reason, round}`` once it was reopened, ``withdrawal``
  ``{by, reason, at, round}`` once it was withdrawn;
- ``merged`` is who follows the case (并案), ``{followers, version}``; ``links`` is explained in
  ``linking.py``;
- ``inbound`` is ``<system>:<reference>`` of a case that another system reported, ``updates``
  what such a system added later, ``withdrawn_by`` the events with which it took the report back;
- ``asks`` and ``units`` are explained in ``acting.py``;
- ``closing``, ``close_due`` and ``closed`` are explained in ``closing.py``, ``feedback`` in
  ``feedback.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from stdnum import luhn

from services.bus.errors import Refused
from services.bus.fold import Decision, Document, Record, Work
from services.grid import clocks, deadlines, whistles
from services.grid.atlas import Atlas, in_emergency
from services.grid.clock import Instant
from services.grid.directory import Directory, Division
from services.grid.events import Event
from services.grid.events.making import case_event
from services.grid.profile import Profile
from services.grid.tokens import Address, Stage, Token
from services.intake import acting, closing, linking

# Crockford's alphabet: no I, L, O or U, which are read as other characters.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_READ_AS = str.maketrans({"I": "1", "L": "1", "O": "0", "-": None, " ": None})
_CODE_LENGTH = 9
MOST_WATCHERS = 100
_RECONCILED = "case.reconciled"
_PROGRESS = ("case.checked_in", "case.finished", "case.unit_overdue", _RECONCILED)


def tracking_code(case: str, attempt: int = 0) -> str:
    """A code to read out on the phone: nine characters and a Luhn mod 32 check character.

    :param attempt: another code for the same case, should this one be taken.
    """
    number = int.from_bytes(hashlib.sha256(f"{case}|{attempt}".encode()).digest())
    characters = ""
    for _ in range(_CODE_LENGTH):
        number, index = divmod(number, len(ALPHABET))
        characters += ALPHABET[index]
    return characters + luhn.calc_check_digit(characters, ALPHABET)


def read_tracking_code(text: str) -> str:
    """The code that a person wrote, with confusable letters, hyphens and case mended.

    :raises ValueError: its length or its check character is wrong.
    """
    code = text.upper().translate(_READ_AS)
    if len(code) != _CODE_LENGTH + 1:
        raise ValueError(f"a tracking code has {_CODE_LENGTH + 1} letters and digits")
    if not luhn.is_valid(code, ALPHABET):
        raise ValueError("a letter or digit of this tracking code is wrong: compare it again")
    return code


def open_case(
    document: Document | None,
    case: str,
    report: Mapping[str, Any],
    place: Division,
    *,
    certain: bool,
    profile: Profile,
    atlas: Atlas,
    now: Instant,
    attempt: int = 0,
) -> Decision:
    """Opens the first round of a case; the same report again gives the first answer.

    :param report: the validated report without its reporter, with ``digest`` and ``reporter``
        (a reference or none) in its place.
    :param place: the lowest division that is certain.
    :raises Refused: another report was sent under the same ``Idempotency-Key``.
    """
    if document is not None:
        return Decision(document, answer=same_report(document, report["digest"]))
    emergency = atlas.emergency_at(profile, place.code)
    if emergency is not None:
        profile = profile.in_emergency or profile
    entry = profile.enter(report, place.code, atlas.directory)
    facts = {
        "tracking": tracking_code(case, attempt),
        "title": report["title"],
        "category": report["category"],
        "urgency": report["urgency"],
        "source": report["source"],
        "division": place.code,
        "triage": entry.triage or not certain,
        "profile": profile.id,
        "ladder": entry.ladder,
        "also_tell": list(entry.also_tell),
        "reported_at": now,
    }
    if report.get("respond_by") is not None:
        facts["respond_by"] = report["respond_by"]
    facts = in_emergency(facts, emergency)
    state = {
        "token": Token(1, Stage.HELD, 0, 0).as_dict(),
        "address": entry.address.as_dict(),
        "assigned": None,
        "acknowledged": None,
        "clocks": clocks.starting(now),
        "deadlines": deadlines.for_level(
            profile, facts, entry.address, deadlines.Start(now, now), atlas.holidays
        ),
        "resolution": None,
    }
    kept = ("description", "occurred_at", "location", "attachments", "external", "address")
    document = {
        "case": case,
        "facts": facts,
        "tracking": facts["tracking"],
        "state": state,
        "report": {
            **{name: report.get(name) for name in kept},
            **({"media": report["media"]} if report.get("media") else {}),
            "reporter": report["reporter"],
            "by": report.get("by"),
            "routed_by": entry.rule,
        },
        "request": {"digest": report["digest"]},
        **({"inbound": report["inbound"]} if "inbound" in report else {}),
        "under": [above.code for above in atlas.directory.ancestors(place.code)],
        "late_custody": False,
        "reached": [1, 0],
        "holder": entry.address.as_dict(),
        "supervision": None,
        "status": "reported",
        **({"units": [entry.address.unit]} if entry.address.unit else {}),
    }
    event = case_event(
        "case.reported",
        service="intake",
        case=case,
        facts=facts,
        state=state,
        now=now,
        directory=atlas.directory,
    )
    return Decision(document, [event], document)


def reopen(
    document: Document,
    by: str,
    reason: str,
    attachments: Sequence[dict[str, Any]] = (),
    *,
    atlas: Atlas,
    now: Instant,
    why: str = "asked",
) -> Decision:
    """Takes a resolved case up again (重新办理), in a new round; the same again changes nothing.

    Where the profile says, with the time already spent: the case's own clock goes on from where
    it stood at the resolution, and so does the level's where the case stays, unless the profile
    lets it start again. A closed case is taken up again in the same way.

    :param why: ``asked`` by a person, or ``unsatisfied`` by feedback.
    :raises Refused: the case is not resolved.
    """
    state, facts = document["state"], document["facts"]
    token = Token.of(state["token"])
    if token.stage in (Stage.HELD, Stage.WITHDRAWN):
        if document.get("reopening") == {"by": by, "reason": reason, "round": token.round}:
            return Decision(document, answer=document)
        stage = token.stage.word
        said = f"only a resolved case is reopened, and this one is {stage}"
        if token.stage == Stage.WITHDRAWN:
            said += ": report it again"
        raise Refused(said, stage=stage)
    before, facts = facts, in_emergency(facts, atlas.emergency_of(facts))
    # Whoever reported it is not satisfied for themselves: it follows no other any more (并案).
    facts.pop("follows", None)
    profile = atlas.rules_for(facts)
    ladder, address = _reopened_at(profile, facts, Address.of(state["address"]), atlas)
    if facts.get("emergency") != before.get("emergency"):
        # As a case in flight, which follows a switch, would be.
        rises = "emergency" in facts
        ladder, address = profile.kept(facts, address, atlas.directory, rises=rises)
    facts = {**facts, "ladder": ladder}
    token = Token(token.round + 1, Stage.HELD, 0, 0)
    resolution = state["resolution"]
    # Another's clock may run ahead of ours.
    ended = min(resolution["at"], now)
    stood = clocks.paused(state["clocks"], clocks.CLOCKS, ended, now, clocks.ENDED)
    # Who resolved it has accepted it.
    accepted = state["acknowledged"] or {"by": resolution["by"], "at": resolution["at"]}
    if address.as_dict() != state["address"] or not profile.reopening.goes_on:
        stood, accepted = {**stood, "level": {"started_at": now}}, None
    state = {
        "token": token.as_dict(),
        "address": address.as_dict(),
        "assigned": None,
        "acknowledged": accepted,
        "clocks": stood,
        "deadlines": [],
        "resolution": None,
    }
    if "steps" in document["state"]:
        # What the villagers decided stays decided.
        state["steps"] = document["state"]["steps"]
    found = deadlines.of_state(profile, facts, state, atlas.holidays)
    # Of the round before nobody is reminded any more.
    state["deadlines"] = [item for item in found if item["kind"] != "remind" or item["due"] > now]
    document = {
        **document,
        "facts": facts,
        "state": state,
        "reopening": {"by": by, "reason": reason, "round": token.round},
        "late_custody": False,
        "reached": [token.round, 0],
        "holder": state["address"],
        "status": status(state),
    }
    document = closing.arranged(document, atlas, now)
    attached = {"attachments": list(attachments)} if attachments else {}
    event = case_event(
        "case.reopened",
        service="intake",
        case=document["case"],
        facts=facts,
        state=state,
        now=now,
        directory=atlas.directory,
        reopening={"by": by, "reason": reason, "why": why, **attached},
    )
    return Decision(document, [event], document)


def withdraw(document: Document, by: str, reason: str, *, atlas: Atlas, now: Instant) -> Decision:
    """Takes a report back (撤回) while nobody has resolved it; the same again changes nothing.

    A resolution that was on its way wins, as the later stage: then the case shows both.

    :raises Refused: it is resolved, or was withdrawn by another or for another reason.
    """
    state = document["state"]
    token = Token.of(state["token"])
    known = document.get("withdrawal")
    if known is not None and known["round"] == token.round:
        if (known["by"], known["reason"]) == (by, reason):
            return Decision(document, answer=document)
        raise Refused(f"the case was withdrawn by {known['by']} already", withdrawal=known)
    if token.stage != Stage.HELD:
        stage = token.stage.word
        said = f"only a case that nobody has resolved is withdrawn, and this one is {stage}"
        raise Refused(said, stage=stage)
    state = {
        **state,
        "token": token._replace(stage=Stage.WITHDRAWN).as_dict(),
        "clocks": clocks.running(state["clocks"], now),
        "deadlines": [],
    }
    state.pop("suspension", None)
    document = {
        **document,
        "state": state,
        "withdrawal": {"by": by, "reason": reason, "at": now, "round": token.round},
        "status": status(state),
    }
    event = case_event(
        "case.withdrawn",
        service="intake",
        case=document["case"],
        facts=document["facts"],
        state=state,
        now=now,
        directory=atlas.directory,
        withdrawal={"by": by, "reason": reason},
    )
    return Decision(document, [event], document)


def watch(
    document: Document,
    by: str,
    added: Sequence[str],
    removed: Sequence[str] = (),
    *,
    atlas: Atlas,
    now: Instant,
    said: Mapping[str, Any] = linking.NOTHING_SAID,
) -> Decision:
    """Who wants to be told of what happens to a case; the register alone writes it.

    The event carries all of them with a version, of which the greatest counts.

    :param added: references, ``officer:<id>`` or ``desk:<level>:<division>``.
    :param said: a ``note`` and ``attachments``, as far as there are any: kept in the event.
    :raises Refused: there are as many as a case may have.
    """
    known = document.get("watchers") or {"to": [], "version": 0}
    to = sorted({*known["to"], *added} - {*removed})
    if to == known["to"]:
        return Decision(document, answer=document)
    if len(to) > MOST_WATCHERS:
        full = f"{MOST_WATCHERS} watch this case already: one of them must leave first"
        raise Refused(full, held_by=document["state"]["address"])
    version = known["version"] + 1
    document = {**document, "watchers": {"to": to, "version": version}}
    event = case_event(
        "case.watched",
        service="intake",
        case=document["case"],
        facts=document["facts"],
        state=document["state"],
        now=now,
        directory=atlas.directory,
        discriminator=str(version),
        watchers=to,
        version=version,
        by=by,
        **said,
    )
    return Decision(document, [event], document)


def _reopened_at(
    profile: Profile, facts: Mapping[str, Any], resolver: Address, atlas: Atlas
) -> tuple[str, Address]:
    """The ladder and the address."""
    enter, ladder, directory = profile.reopening.enter, facts["ladder"], atlas.directory
    if ladder not in profile.ladders:
        # One of an emergency that is over.
        ladder = profile.enter(facts, facts["division"], directory).ladder
    if enter == "first":
        entry = profile.enter(facts, facts["division"], directory)
        return entry.ladder, entry.address
    found: Address | None = resolver
    if enter == "above":
        found = profile.next_address(ladder, resolver, directory)
    elif enter != "resolver":
        # A ladder without this level, as emergencies may have, begins at its lowest.
        level = enter if enter in profile.steps(ladder) else None
        found = profile.at_level(ladder, level, facts["division"], directory)
    return ladder, found or resolver


def same_report(document: Document, digest: str) -> Document:
    """The record that a report opened, when it is sent again.

    :raises Refused: it is another report under the same ``Idempotency-Key``.
    """
    if document["request"] != {"digest": digest}:
        raise Refused(
            "this Idempotency-Key was used for another report: use a new key for a new report"
        )
    return document


def work(event: Event, atlas: Atlas, now: Instant) -> Work:
    """What an event does to the register."""
    if event.type == linking.LINKED:
        return linking.work(event, atlas, now)

    def change(record: Record) -> Decision:
        document = _placed(merge(record.document, event), atlas.directory)
        return Decision(closing.arranged(document, atlas, now))

    return Work(key(event), change)


def _placed(document: Document, directory: Directory) -> Document:
    """Found below where it happened and below where it is: a transfer may take it elsewhere."""
    places = document["facts"]["division"], document["state"]["address"]["division"]
    under = list(
        dict.fromkeys(above.code for place in places for above in directory.ancestors(place))
    )
    return {**document, "under": under} if under else document


def key(event: Event) -> str:
    """The register's record that an event is about: the case's."""
    return event.subject


def merge(document: Document | None, event: Event) -> Document:
    """What the register shows after an event, in whatever order events come."""
    facts, state = event.data["case"], event.data["state"]
    document = {**(document or _unknown(event))}
    token = Token.of(state["token"])
    if [token.round, token.hop] >= document["reached"]:
        document |= {"reached": [token.round, token.hop], "holder": state["address"]}
    if token > Token.of(document["state"]["token"]):
        document |= {"facts": facts, "state": state}
    if event.type == "case.supervised":
        document["supervision"] = _supervised(document["supervision"], event)
    if event.type in _PROGRESS:
        said = event.data.get("progress", [])
        if event.type != _RECONCILED:
            said = [{"call": event.data["call"]["id"], **said}]
        if said:
            document["progress"] = whistles.heard(document.get("progress", {}), said)
    if event.type == "case.merged":
        known = document.get("merged") or {"version": 0}
        document["merged"] = max(known, event.data["merged"], key=lambda item: item["version"])
    document = acting.merge(document, event)
    current = Token.of(document["state"]["token"])
    # A merge, a migration or an emergency may be a hop to the same holder.
    stayed = document.get("holder") == document["state"]["address"]
    moved_on = document["reached"] > [current.round, current.hop] and not stayed
    document["late_custody"] = current.stage >= Stage.RESOLVED and moved_on
    document["status"] = status(document["state"])
    return document


def status(state: Mapping[str, Any]) -> str:
    """What a person calls it: ``reported``, ``acknowledged``, or the stage that ended it."""
    stage: str = state["token"]["stage"]
    if stage != Stage.HELD.word:
        return stage
    return "acknowledged" if state["acknowledged"] else "reported"


def _supervised(known: dict[str, Any] | None, event: Event) -> dict[str, Any]:
    told = {
        "round": event.data["state"]["token"]["round"],
        "times": event.data["times"],
        "last": event.data["passed"]["fired_at"],
    }
    if known is None:
        return told
    return max(known, told, key=lambda item: (item["round"], item["last"], item["times"]))


def _unknown(event: Event) -> Document:
    """A record for a case that this register never opened (it was restored without it)."""
    return {
        "case": event.subject,
        "facts": event.data["case"],
        "tracking": event.data["case"]["tracking"],
        "state": {**event.data["state"], "token": Token(0, Stage.HELD, 0, 0).as_dict()},
        "report": None,
        "request": None,
        "under": [],
        "late_custody": False,
        "reached": [0, 0],
        "supervision": None,
        "status": "reported",
    }
