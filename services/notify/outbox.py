"""What waits for a subscriber, as a fold: one document for each subscription and case. Pure.

It is a *line*, ``{subscription, case, replay, waiting, done, tries, failing, next_try, since}``:

- ``waiting`` is ``[{id, time, since, body}]`` in the order of ``time``; only its head is sent, so
  that no later event of a case overtakes one that is tried again. ``body`` is the CloudEvents JSON
  as it is sent, ``since`` when it began to wait;
- ``done`` are the ids that were sent last, by which a redelivery is known; a replay (``replay``
  counts them) forgets them;
- ``tries`` of the head, ``failing`` since when; ``next_try`` is when its turn is, or until when
  another process has it in hand. These are real Unix seconds, as ``since`` is, that of the
  longest waiting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.bus.fold import Decision, Document, Record, Work
from services.grid.events import Event
from services.notify.channels import Sent
from services.notify.model import ATTEMPTS, back_off

KNOWN = 64
"""So many ids that were sent a line remembers."""
AT_ONCE = 5
"""So many events of a case are sent one after the other before it is written down.

Each takes ten seconds at most, and another process takes up what was in hand for a minute.
"""
_PAUSE_SECONDS = 1.0

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a line's head: the ids that arrived, then perhaps one that did not.

    ``well_since`` is when the subscription last took anything.
    """

    arrived: Sequence[str]
    failed: str | None = None
    why: Sent | None = None
    well_since: float = 0.0


def key_of(subscription: str, case: str) -> str:
    """The key of a line."""
    return f"{subscription}:{case}"


def entry(event: Event, now: float) -> Entry:
    """An event as a line has it."""
    body = event.body().decode()
    return {"id": event.id, "time": event.time, "since": now, "body": body}


def put(subscription: str, case: str, entries: Sequence[Entry], replay: int, now: float) -> Work:
    """Lets events of a case wait for a subscriber; what is known already does not again."""
    nothing = {
        "subscription": subscription,
        "case": case,
        "replay": replay,
        "waiting": [],
        "done": [],
        "tries": 0,
        "failing": None,
        "next_try": None,
        "since": None,
    }

    def change(record: Record) -> Decision:
        return added(record.document or nothing, entries, replay, now)

    return Work(key_of(subscription, case), change)


def added(document: Document, entries: Sequence[Entry], replay: int, now: float) -> Decision:
    """See :func:`put`."""
    line = document
    if replay > line["replay"]:
        line = {**line, "replay": replay, "done": []}
    known = {*line["done"], *(item["id"] for item in line["waiting"])}
    new = list({item["id"]: item for item in entries if item["id"] not in known}.values())
    if not new:
        return Decision(None)
    next_try = now if line["next_try"] is None else line["next_try"]
    return Decision(_with(line, [*line["waiting"], *new], next_try))


def claim(document: Document, *, now: float, until: float, most: int = AT_ONCE) -> Decision:
    """Takes a line's head in hand until ``until``; nobody else sends it meanwhile.

    :returns: with the entries to be sent, in their order, as the answer.
    """
    if document["next_try"] is None or document["next_try"] > now:
        return Decision(None, answer=[])
    return Decision({**document, "next_try": until}, answer=document["waiting"][:most])


def told(document: Document, what: Told, *, now: float) -> Decision:
    """Writes down what became of a line's head.

    What fails is tried again after a growing pause. It is given up when it was tried
    ``ATTEMPTS`` times while the sink took others.

    :returns: with the id of what was given up, or none, as the answer.
    """
    arrived = set(what.arrived)
    left = [item for item in document["waiting"] if item["id"] not in arrived]
    known = [item["id"] for item in document["waiting"] if item["id"] in arrived]
    if not known and what.failed not in {item["id"] for item in left}:
        # It is written down already, and somebody else may have what is left in hand.
        return Decision(None)
    line = {**document, "done": [*document["done"], *known][-KNOWN:]}
    if known:
        line = {**line, "tries": 0, "failing": None}
    if what.failed not in {item["id"] for item in left}:
        return Decision(_with(line, left, now))
    assert what.why is not None  # noqa: S101 - it comes with the id
    if not what.why.blame:
        # The subscription as a whole waits; this is for who has not heard of it yet.
        return Decision(_with(line, left, now + max(_PAUSE_SECONDS, what.why.wait)))
    tries, failing = line["tries"] + 1, line["failing"] or now
    if tries >= ATTEMPTS and what.well_since > failing:
        rest = [item for item in left if item["id"] != what.failed]
        line = {**line, "done": [*line["done"], what.failed][-KNOWN:]}
        line = {**line, "tries": 0, "failing": None}
        return Decision(_with(line, rest, now), answer=what.failed)
    pause = max(back_off(tries, str(what.failed)), what.why.wait)
    line = {**line, "tries": tries, "failing": failing}
    return Decision(_with(line, left, now + pause))


def _with(line: Mapping[str, Any], waiting: Sequence[Entry], next_try: float) -> Document:
    ordered = sorted(waiting, key=lambda item: (item["time"], item["id"]))
    return {
        **line,
        "waiting": ordered,
        "next_try": next_try if ordered else None,
        "since": min((item["since"] for item in ordered), default=None),
    }
