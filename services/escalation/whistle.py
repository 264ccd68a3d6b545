"""Units that are called to a case (吹哨报到), as the custodian sees it: it tells them, and waits.

The custody document has ``calls``, by the call's id: ``{call, fires, sent, ended, checked_in,
finished, missed}``. Every call is remembered that any state had:

- ``call`` as the state had it, ``fires`` when each of its deadlines is looked at, once the unit was
  told (``sent``): when it is due, but never before the unit had a chance to hear of it;
- ``checked_in``, ``finished`` and ``missed`` are the unit's progress;
- ``ended`` is why the unit was told that it may leave: ``released`` by the holder, or ``ended``
  with the case. A call of a desk that had lost the case before is in no state that counts: nobody
  is told of it.

``joined_told`` is what the holder was told of their progress last, ``{round, hop, number,
progress}``: whoever holds the case next is told anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.bus.fold import Document
from services.grid import whistles
from services.grid.clock import Instant, plus, seconds_between
from services.grid.events import Event
from services.grid.tokens import Stage, Token

PROGRESS = ("case.checked_in", "case.finished")
UNANSWERED = "unanswered"
"""Of what kind a supervision is that is due to units which stay away."""

Emit = Callable[..., None]


def heard(document: Document, event: Event) -> Document:
    """The custody with what an event says of units that are called; in whatever order they come."""
    joined = event.data["state"].get("joined", ())
    if not joined and event.type not in PROGRESS:
        return document
    known: dict[str, Any] = document.get("calls", {})
    calls = {**known}
    for call in joined:
        if call["id"] not in calls:
            own = {"call": {**call, "released": None}, "fires": {}, "sent": False, "ended": None}
            calls[call["id"]] = {**own, **whistles.NOTHING}
    if event.type in PROGRESS:
        said = event.data["call"]["id"]
        if said in calls:
            calls[said] = {**calls[said], **whistles.merged(calls[said], event.data["progress"])}
    return document if calls == known else {**document, "calls": calls}


def standing(document: Document) -> dict[str, Any]:
    """The calls of units that may not leave yet, with what they did, by id."""
    if document["state"]["token"]["stage"] != Stage.HELD.word:
        return {}
    calls = document.get("calls", {})
    there = [item["id"] for item in whistles.standing(document["state"])]
    return {name: calls[name] for name in there if name in calls}


def pending(document: Document) -> list[dict[str, Any]]:
    """The deadlines that are waited for, ``{kind, due, call}``; ``due`` is when to look at them."""
    return [
        {"kind": kind, "due": known["fires"][kind], "call": name}
        for name, known in standing(document).items()
        for kind in known["fires"]
        if kind not in known["missed"] and not whistles.met(kind, known)
    ]


def told(document: Document, grace: float, now: Instant, emit: Emit) -> Document:
    """Calls units that were not told yet, ends calls that stand no longer, tells the holder."""
    calls = dict[str, Any](document.get("calls", {}))
    if not calls:
        return document
    for name, known in calls.items():
        call = known["call"]
        unit, (why, release) = whistles.address(call), _ended(name, document)
        if why is None and not known["sent"]:
            emit("case.called", discriminator=name, addressed=unit, call=call)
            calls[name] = {**known, "sent": True, "fires": _fires(call, grace, now)}
        # Who was never called need not be told that it is over.
        elif why is not None and known["sent"] and known["ended"] not in (why, "released"):
            said = {"call": call, "why": why, "released": release}
            emit("case.call_ended", discriminator=f"{name}:{why}", addressed=unit, **said)
            calls[name] = {**known, "ended": why}
    return _holder_told({**document, "calls": calls}, emit)


def _ended(name: str, document: Document) -> tuple[str | None, dict[str, Any] | None]:
    """Why a call stands no longer, and how the unit was released if it was."""
    here = next((item for item in document["state"].get("joined", ()) if item["id"] == name), None)
    if here is not None and here["released"] is not None:
        return "released", here["released"]
    stands = here is not None and document["state"]["token"]["stage"] == Stage.HELD.word
    return (None if stands else "ended"), None


def _fires(call: dict[str, Any], grace: float, now: Instant) -> dict[str, Instant]:
    """When its deadlines are looked at, on the custodian's own clock."""
    ahead = max(0.0, seconds_between(now, call["at"]))
    fires = {}
    for kind in whistles.KINDS:
        due = call[kind]["due"]
        chance = min(grace, max(0.0, seconds_between(call["at"], due)))
        fires[kind] = max(plus(due, -ahead), plus(now, chance))
    return fires


def called_again(document: Document, name: str, discriminator: str, emit: Emit) -> bool:
    """Calls a unit once more, with what it did: its desk has forgotten. Whether it still stands."""
    known = standing(document).get(name)
    if known is None or not known["sent"]:
        return False
    progress = {part: known[part] for part in whistles.NOTHING}
    said = {"call": known["call"], "progress": progress}
    emit(
        "case.called",
        discriminator=discriminator,
        addressed=whistles.address(known["call"]),
        **said,
    )
    return True


def progress_of(document: Document) -> list[dict[str, Any]]:
    """What the units that are called to a case did so far, as events carry it."""
    calls, joined = document.get("calls", {}), document["state"].get("joined", ())
    known = {item["id"]: calls[item["id"]] for item in joined if item["id"] in calls}
    told = {name: {part: call[part] for part in whistles.NOTHING} for name, call in known.items()}
    return [{"call": name, **item} for name, item in told.items() if item != whistles.NOTHING]


def _holder_told(document: Document, emit: Emit) -> Document:
    """Whoever holds the case now knows what the units did so far."""
    token, progress = Token.of(document["state"]["token"]), progress_of(document)
    last = document.get("joined_told", {"number": 0})
    told = {"round": token.round, "hop": token.hop, "progress": progress}
    same = all(last.get(name) == told[name] for name in told)
    if not progress or token.stage != Stage.HELD or same:
        return document
    number = last["number"] + 1
    emit("case.joined", discriminator=str(number), progress=progress)
    return {**document, "joined_told": {**told, "number": number}}


def missed(
    document: Document, due: list[dict[str, Any]], now: Instant, emit: Emit
) -> tuple[Document, dict[str, Any] | None]:
    """Units that have not come, or are not done, in time: everybody concerned is told.

    :param due: of :func:`pending`.
    :returns: and the deadline for which the case is supervised, if it is.
    """
    token, supervised = document["state"]["token"], None
    for item in due:
        name, kind = item["call"], item["kind"]
        known = document["calls"][name]
        call, deadline = known["call"], known["call"][kind]
        known = {**known, "missed": sorted({*known["missed"], kind})}
        address = whistles.address(call)
        # As other deadlines are, so that it is explained and counted like them.
        fired = {
            "round": token["round"],
            "hop": token["hop"],
            "address": address.as_dict(),
            "mark": f"{kind}:{name}@{deadline['due']}",
            "deadline": deadline,
            "fired_at": now,
        }
        document = {
            **document,
            "calls": {**document["calls"], name: known},
            "history": [*document["history"], fired],
        }
        progress = {part: known[part] for part in whistles.NOTHING}
        passed = {"kind": kind, "due": deadline["due"], "fired_at": now, "count": 1}
        emit(
            "case.unit_overdue",
            discriminator=f"{kind}:{name}",
            addressed=address,
            call=call,
            progress=progress,
            passed=passed,
        )
        if kind == "check_in" and _nobody_came(document, call):
            supervised = deadline
    return document, supervised


def _nobody_came(document: Document, call: dict[str, Any]) -> bool:
    """Whether a unit that stays away is reason enough to supervise the case."""
    if call["supervise"] == "all":
        return all(
            "check_in" in known["missed"] and not whistles.met("check_in", known)
            for known in standing(document).values()
        )
    return bool(call["supervise"] == "any")


def explained(document: Document) -> list[dict[str, Any]]:
    """Each deadline of a unit that was called and that has not passed, as ``explain`` tells it."""
    there = standing(document)
    rows = []
    for name, known in document.get("calls", {}).items():
        call = known["call"]
        place = {"round": call["round"], "hop": call["hop"], **whistles.address(call).as_dict()}
        for kind in whistles.KINDS:
            if kind in known["missed"]:
                continue
            status = "armed" if name in there and known["sent"] else "void"
            if whistles.met(kind, known):
                status = "met"
            rows.append(place | call[kind] | {"status": status})
    return rows
