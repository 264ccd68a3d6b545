"""What another system is sent: its subscription, what it has lost of it, and what it is sent again.

In a system's record ``reads`` are the types of events that it may read (``case.*`` is all of
them), ``subscription`` is None or ``{types, levels, divisions, since}`` as it was asked for, and
``lost`` is None or ``{count, since, until}`` of what its queue has dropped since it was replayed.

Which binding keys follow is worked out anew each time (:func:`bindings`), within what the system
may read now: so a right that is taken away takes its part of the subscription along.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, ClassVar

from marshmallow import Schema, fields, validate

from services.bus import problems
from services.bus.fold import Decision, Document
from services.bus.openapi import Shown
from services.grid.atlas import Atlas
from services.grid.clock import Instant
from services.grid.events import CATALOGUE
from services.grid.events.parts import CODE, WORD, InstantField

ALL = "case.*"
READABLE = (
    ALL,
    *sorted(
        kind.name
        for kind in CATALOGUE.values()
        if kind.name.startswith("case.") and "intake" in kind.consumers
    ),
)
"""What another system may be allowed to read: events of cases, as far as the timeline has them."""
MOST_KEYS = 500


class SubscriptionBody(Schema):
    """Body of ``PUT /v1/systems/{name}/subscription``; what is left out is all that it may read."""

    example: ClassVar[dict[str, Any]] = {
        "types": ["case.escalated", "case.resolved"],
        "levels": ["township"],
        "divisions": ["469002104"],
    }

    types = fields.List(
        fields.String(validate=validate.OneOf(READABLE)),
        load_default=list,
        validate=validate.Length(max=len(READABLE)),
    )
    levels = fields.List(
        fields.String(validate=WORD),
        load_default=list,
        validate=validate.Length(max=20),
        metadata={"description": "of the desk that an event is addressed to"},
    )
    divisions = fields.List(
        fields.String(validate=CODE),
        load_default=list,
        validate=validate.Length(max=100),
        metadata={"description": "events addressed to these, or below them"},
    )


class SubscriptionShown(Shown):
    """What a system asked for."""

    types = fields.List(fields.String())
    levels = fields.List(fields.String())
    divisions = fields.List(fields.String())
    since = InstantField()


class LostShown(Shown):
    """What a system's queue has dropped and it was not sent again: it had waited for too long."""

    count = fields.Integer(metadata={"description": "at least so many"})
    since = InstantField(metadata={"description": "replay from here"})
    until = InstantField(metadata={"description": "when that was seen last"})


def subscribed(document: Document, body: Mapping[str, Any], atlas: Atlas, now: Instant) -> Decision:
    """Says what a system is sent from now on, instead of what it was sent before.

    :raises Problem: a 422; that is more than it may read, or there is no such level or division.
    """
    wrong = {**_unread(document, body["types"]), **_outside(document, body["divisions"], atlas)}
    known = sorted({level for profile in atlas.profiles.values() for level in profile.levels})
    if others := [level for level in body["levels"] if level not in known]:
        wrong["levels"] = f"there is no level {', '.join(others)}: write one of {', '.join(known)}"
    before = document.get("subscription")
    asked = {name: sorted(set(body[name])) for name in ("types", "levels", "divisions")}
    since = before["since"] if before is not None else now
    made = {**document, "subscription": {**asked, "since": since}}
    if not wrong and len(bindings(made, atlas)) > MOST_KEYS:
        wrong["types"] = (
            f"with {len(asked['levels']) or 1} levels and {len(asked['divisions']) or 1} divisions "
            f"these are more than {MOST_KEYS} bindings: write {ALL}, or less of the others"
        )
    if wrong:
        raise problems.invalid(wrong)
    return Decision(made, answer=made)


def _unread(document: Document, types: Sequence[str]) -> dict[str, str]:
    reads = document.get("reads", [])
    if not reads:
        cure = "an operator allows it with huashi system add --reads"
        return {"types": f"{document['name']} may read no events: {cure}"}
    others = [] if ALL in reads else [kind for kind in types if kind not in reads]
    if not others:
        return {}
    return {"types": f"{document['name']} may read {', '.join(reads)}, and not {', '.join(others)}"}


def _outside(document: Document, divisions: Sequence[str], atlas: Atlas) -> dict[str, str]:
    roots, directory = document["divisions"], atlas.directory
    others = [
        code
        for code in divisions
        if directory.division(code) is None
        or (roots and not any(directory.within(code, root) for root in roots))
    ]
    if not others:
        return {}
    where = f"below {', '.join(roots)}" if roots else "in the directory"
    return {"divisions": f"{', '.join(others)} is not {where}: write what {document['name']} may"}


def unsubscribed(document: Document) -> Decision:
    """Ends a subscription."""
    made = {**document, "subscription": None, "lost": None}
    return Decision(made, answer=made)


def bindings(document: Document, atlas: Atlas) -> list[str]:
    """The binding keys of a system's subscription, within what it may read now.

    They are ``<type>.<level>.<path>.#``; the path is the directory's.
    """
    asked, reads = document.get("subscription"), document.get("reads", [])
    if asked is None:
        return []
    if not asked["types"] or ALL in asked["types"]:
        types = reads
    else:
        types = [kind for kind in asked["types"] if kind in reads or ALL in reads]
    if ALL in types:
        types = [ALL]
    paths = [f".{atlas.directory.path(code)}" for code in _places(document, atlas)]
    if not document["divisions"] and not asked["divisions"]:
        paths = [""]
    return sorted(
        f"{kind}.{level}{path}.#"
        for kind, level, path in product(types, asked["levels"] or ["*"], paths)
    )


def _places(document: Document, atlas: Atlas) -> list[str]:
    """The divisions that are both in what was asked for and in what may be read."""
    asked, roots, within = (
        document["subscription"]["divisions"],
        document["divisions"],
        atlas.directory.within,
    )
    if not asked or not roots:
        both = set(asked or roots)
    else:
        both = {one for one in asked if any(within(one, root) for root in roots)}
        both |= {root for root in roots if any(within(root, one) for one in asked)}
    known = [code for code in both if atlas.directory.division(code) is not None]
    # One below another would get it once all the same: the broker sends a queue one copy.
    return [code for code in known if not any(code != on and within(code, on) for on in known)]


def matcher(bound: Sequence[str]) -> re.Pattern[str]:
    """Which routing keys these binding keys get, as RabbitMQ reads them."""
    patterns = [
        "".join(
            {"*": r"[^.]+", ".": r"\.", ".#": r"(\..*)?"}.get(part, re.escape(part))
            for part in re.split(r"(\.#|[.*])", key)
        )
        for key in bound
    ]
    return re.compile("|".join(patterns) or r"(?!)")


def caught_up(document: Document, start: Instant, end: Instant) -> Document:
    """A system's record when it was sent all from ``start`` to ``end`` again."""
    lost = document.get("lost")
    whole = lost is not None and start <= lost["since"] and lost["until"] <= end
    return {**document, "lost": None} if whole else document


def losing(document: Document, since: Instant, now: Instant, count: int) -> Document:
    """A system's record when so many of its events were dropped, the first of ``since``."""
    before = document.get("lost") or {"count": 0, "since": since}
    lost = {
        "count": before["count"] + count,
        "since": min(before["since"], since),
        "until": now,
    }
    return {**document, "lost": lost}
