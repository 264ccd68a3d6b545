"""Other county systems at the front door: what each may send, from where, how much, with which key.

A record is ``{name, may, reads, divisions, unit, rate, open_cases, keys, subscription, lost,
removed, added}``:

- ``may`` are types of :data:`services.intake.inbound.TYPES`, ``divisions`` the codes below which
  it may report and read, none for the whole county;
- ``reads``, ``subscription`` and ``lost`` are what it is sent: :mod:`services.intake.subscribing`;
- ``unit`` is the id of the unit that it acts for, or none;
- ``rate`` is how many events a second each process of intake takes from it, ``open_cases`` how
  many cases of its own may be open at once;
- ``keys`` are ``{id, hash, since}`` of its API keys, two at the most: a key is shown once, when it
  is made, and only its hash is kept. It is 256 random bits, so that no slow hash is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from services.bus import problems
from services.bus.auth import API_KEY, Identity, InvalidToken
from services.bus.errors import Refused
from services.bus.fold import Decision, Document, Fold, Record, Work
from services.bus.openapi import Shown
from services.bus.problems import Problem
from services.bus.store import MongoStore, database_errors, record_of
from services.bus.systems import NAME, user_of
from services.bus.web import Answer, Call
from services.grid.atlas import Atlas
from services.grid.clock import Instant, monotonic
from services.grid.directory import DivisionError, Unit
from services.grid.events.parts import CODE, Flag, InstantField
from services.grid.problems import not_among
from services.intake.subscribing import (
    READABLE,
    LostShown,
    SubscriptionShown,
    bindings,
    subscribed,
    unsubscribed,
)

ACTING = ("case.acknowledge", "case.progress", "case.check_in", "case.resolve")
"""What a system that is bound to a unit may be allowed to do for it."""
TYPES = (
    *("case.report", "case.update", "case.withdraw", *ACTING),
    *("directory.division", "directory.unit", "directory.officer", "directory.duty"),
    "sensor.reading",
)
"""What another system may be allowed to send."""

VALID_KEYS = 2
RATE, OPEN_CASES = 100, 10_000
_KEY = re.compile(API_KEY + r"([a-z][a-z0-9_]{0,39})_([0-9a-f]{64})")
_KNOWN_SECONDS = 1.0
# What programs write for nothing, by mistake.
_NO_NAMES = ("null", "none", "true", "false", "undefined")


class SystemBody(Schema):
    """Body of ``PUT /v1/systems/{name}``."""

    example: ClassVar[dict[str, Any]] = {
        "may": ["case.report", "case.withdraw"],
        "reads": ["case.escalated", "case.resolved"],
        "divisions": ["469002104"],
        "rate": 100,
        "open_cases": 10000,
    }

    may = fields.List(
        fields.String(validate=validate.OneOf(TYPES)),
        required=True,
        validate=validate.Length(max=len(TYPES)),
    )
    reads = fields.List(
        fields.String(validate=validate.OneOf(READABLE)),
        load_default=list,
        validate=validate.Length(max=len(READABLE)),
        metadata={"description": "the events that it may subscribe to"},
    )
    divisions = fields.List(
        fields.String(validate=CODE),
        load_default=list,
        validate=validate.Length(max=100),
        metadata={"description": "it may report and read below these; none is the whole county"},
    )
    unit = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, 80),
        metadata={"description": "the unit that it acts for: its id, or a name that is one's only"},
    )
    rate = fields.Integer(
        strict=True,
        load_default=RATE,
        validate=validate.Range(1, 100_000),
        metadata={"description": "events a second that each process of intake takes"},
    )
    open_cases = fields.Integer(
        strict=True, load_default=OPEN_CASES, validate=validate.Range(1, 1_000_000)
    )

    @validates_schema
    def _acts_for_a_unit(self, data: dict[str, Any], **_kwargs: Any) -> None:
        acting = [kind for kind in data["may"] if kind in ACTING]
        if acting and data["unit"] is None:
            raise ValidationError(f"{acting[0]} is done for a unit: write which.", "unit")


class RotateBody(Schema):
    """Body of ``POST /v1/systems/{name}/rotate``."""

    example: ClassVar[dict[str, Any]] = {"sole": False}

    sole = Flag(
        load_default=False,
        metadata={"description": "true: the keys before it end at once, as when one was seen"},
    )


class KeyOf(Shown):
    """An API key, as far as it is kept."""

    id = fields.String()
    since = InstantField()


class SystemShown(Shown):
    """Another county system, and what it may."""

    name = fields.String()
    may = fields.List(fields.String())
    reads = fields.List(fields.String())
    divisions = fields.List(fields.String())
    subscription = fields.Nested(SubscriptionShown, allow_none=True)
    bindings = fields.List(
        fields.String(), metadata={"description": "the binding keys that follow from it now"}
    )
    lost = fields.Nested(LostShown, allow_none=True)
    unit = fields.String(allow_none=True)
    rate = fields.Integer()
    open_cases = fields.Integer()
    keys = fields.List(fields.Nested(KeyOf))
    removed = fields.Boolean()
    added = InstantField()


class SystemWithKey(SystemShown):
    """The same with its new key, which is shown just now and never again."""

    key = fields.String(allow_none=True, metadata={"description": "null if it had one already"})


class SystemsShown(Shown):
    """All systems, by name."""

    systems = fields.List(fields.Nested(SystemShown))


class Systems(MongoStore):
    """The collection of other systems, and who an API key belongs to.

    What was read is believed for a second: a key that was taken away is refused after that.
    """

    name = "systems"

    def __init__(self, collection: Any, now: Callable[[], float] = monotonic) -> None:
        super().__init__(collection)
        self._now = now
        self._read_at = float("-inf")
        self._known: dict[str, Document] = {}

    def all(self) -> dict[str, Document]:
        """All that there are, by name."""
        if self._now() - self._read_at >= _KNOWN_SECONDS:
            with database_errors():
                found = [record_of(raw).document for raw in self.collection.find().sort("_id")]
            self._known = {document["name"]: document for document in found if document}
            self._read_at = self._now()
        return {name: each for name, each in self._known.items() if not each["removed"]}

    def identity(self, key: str) -> Identity:
        """See :class:`services.bus.auth.ApiKeys`."""
        match = _KEY.fullmatch(key)
        system = self.all().get(match[1]) if match else None
        hashed = hashed_key(key)
        if system is None or not any(
            hmac.compare_digest(hashed, known["hash"]) for known in system["keys"]
        ):
            raise InvalidToken(
                "this API key is not known, or no longer: huashi system rotate makes a new one"
            )
        return Identity(user_of(system["name"]), "system")

    def forget(self) -> None:
        """Reads them anew when they are asked for next."""
        self._read_at = float("-inf")


def of_subject(systems: Mapping[str, Document], subject: str) -> Document:
    """The system that a token or key speaks for.

    :raises Problem: a 403; there is none.
    """
    system = next((each for each in systems.values() if user_of(each["name"]) == subject), None)
    if system is None:
        raise Problem(
            403,
            f"{subject} is no registered system: an operator adds it with huashi system add",
            kind="forbidden",
            rule="events are taken from registered systems",
        )
    return system


def hashed_key(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key(name: str, now: Instant) -> tuple[str, dict[str, str]]:
    """A new key, and what is kept of it."""
    key = f"{API_KEY}{name}_{secrets.token_hex(32)}"
    hashed = hashed_key(key)
    return key, {"id": hashed[:8], "hash": hashed, "since": now}


def put(
    document: Document | None,
    name: str,
    body: Mapping[str, Any],
    key: Mapping[str, str],
    now: Instant,
) -> Decision:
    """Adds a system, or says anew what it may; one that has keys keeps them."""
    before = {} if document is None or document["removed"] else document
    made = {
        "name": name,
        **{field: body[field] for field in ("may", "reads", "divisions", "unit")},
        **{field: body[field] for field in ("rate", "open_cases")},
        "keys": before.get("keys") or [dict(key)],
        "subscription": before.get("subscription"),
        "lost": before.get("lost"),
        "removed": False,
        "added": before.get("added", now),
    }
    return Decision(made, answer=made)


def rotated(
    document: Document | None, name: str, key: Mapping[str, str], *, sole: bool
) -> Decision:
    """Adds a key; of those before it the newest stays valid, unless the new one is to be ``sole``.

    :raises Problem: there is no such system.
    """
    system = _there(document, name)
    known = [] if sole else system["keys"]
    made = {**system, "keys": [*known, dict(key)][-VALID_KEYS:]}
    return Decision(made, answer=made)


def removed(document: Document | None, name: str) -> Decision:
    """Takes it away: its keys end; its cases stay.

    :raises Problem: there is no such system.
    """
    made = {**_there(document, name), "keys": [], "subscription": None, "lost": None}
    made["removed"] = True
    return Decision(made, answer=made)


def _there(document: Document | None, name: str) -> Document:
    if document is None or document["removed"]:
        raise Problem(404, f"there is no system {name}: huashi system list shows which there are")
    return document


class Registrar:
    """The operator's side: adds systems, changes and removes them, and makes their keys."""

    def __init__(self, store: Systems, fold: Fold) -> None:
        self._store = store
        self._fold = fold

    def put(self, call: Call, name: str, atlas: Atlas, now: Instant) -> Answer:
        """Adds a system with a key, or says anew what it may."""
        call.guard.must_be_of_the_county()
        if not NAME.fullmatch(name) or name in _NO_NAMES:
            raise problems.invalid(
                {"name": "write a lower-case name: a letter, then letters, digits, _ (40 at most)"}
            )
        try:
            for code in call.body["divisions"]:
                atlas.directory.known(code)
        except DivisionError as error:
            raise problems.invalid({"divisions": str(error)}) from error
        body = {**call.body, "unit": _unit(call.body, atlas)}
        key, kept = new_key(name, now)
        made = self._run(call, name, lambda record: put(record.document, name, body, kept, now))
        return _with_key(made, atlas, key if made["keys"] == [kept] else None)

    def rotate(self, call: Call, name: str, atlas: Atlas, now: Instant) -> Answer:
        """Makes a new key."""
        key, kept = new_key(name, now)
        sole = call.body["sole"]
        made = self._run(call, name, lambda record: rotated(record.document, name, kept, sole=sole))
        return _with_key(made, atlas, key)

    def remove(self, call: Call, name: str, atlas: Atlas) -> dict[str, Any]:
        """Takes a system away."""
        return shown(self._run(call, name, lambda record: removed(record.document, name)), atlas)

    def subscribe(self, call: Call, name: str, atlas: Atlas, now: Instant) -> dict[str, Any]:
        """Says what a system is sent."""
        made = self._run(
            call,
            name,
            lambda record: subscribed(_there(record.document, name), call.body, atlas, now),
        )
        return shown(made, atlas)

    def unsubscribe(self, call: Call, name: str, atlas: Atlas) -> dict[str, Any]:
        """Ends what a system is sent."""
        made = self._run(call, name, lambda record: unsubscribed(_there(record.document, name)))
        return shown(made, atlas)

    def note(self, name: str, change: Callable[[Document], Document]) -> Document | None:
        """Keeps something in a system's record, if it has a subscription still."""

        def noted(record: Record) -> Decision:
            document = record.document
            if document is None or document.get("subscription") is None:
                return Decision(None)
            made = change(document)
            return Decision(made, answer=made)

        made: Document | None = self._fold.run([Work(name, noted)])[0].result()
        self._store.forget()
        return made

    def one(self, name: str) -> Document:
        """The record of a system, as it is now.

        :raises Problem: there is no such system.
        """
        self._store.forget()
        return _there(self._store.all().get(name), name)

    def list(self, atlas: Atlas) -> dict[str, Any]:
        """All of them."""
        self._store.forget()
        return {"systems": [shown(each, atlas) for each in self._store.all().values()]}

    def _run(self, call: Call, name: str, change: Callable[[Record], Decision]) -> Document:
        made: Document = self._fold.run([Work(name, change)])[0].result()
        self._store.forget()
        call.trail.about(system=name)
        return made


def shown(system: Document, atlas: Atlas) -> dict[str, Any]:
    """A system as operators see it: no hashes, and the bindings that it should have."""
    return {
        # One that was added by an earlier version has none of these.
        **dict.fromkeys(("unit", "subscription", "lost")),
        "reads": [],
        **system,
        "keys": [{"id": key["id"], "since": key["since"]} for key in system["keys"]],
        "bindings": bindings(system, atlas),
    }


def _with_key(system: Document, atlas: Atlas, key: str | None) -> Answer:
    return Answer({**shown(system, atlas), "key": key})


def _unit(body: Mapping[str, Any], atlas: Atlas) -> str | None:
    """The id of the unit that is meant: a name is enough if just one of its divisions has it.

    :raises Problem: a 422; there is none, or more than one.
    """
    word, units, below = body["unit"], atlas.directory.units, body["divisions"]
    if word is None or word in units:
        return None if word is None else str(word)
    within = atlas.directory.within
    near = [
        unit
        for unit in units.values()
        if not below or any(within(unit.division, code) for code in below)
    ]
    found = sorted(unit.id for unit in near if unit.name == word)
    if len(found) == 1:
        return found[0]
    if found:
        said = f"{len(found)} units are called {word}: write the id of one ({', '.join(found[:5])})"
    else:
        said = not_among(word, sorted({unit.name for unit in near}))
    raise problems.invalid({"unit": said})


def unit_of(system: Document, atlas: Atlas) -> Unit:
    """The unit that a system acts for.

    :raises Refused: there is none, or no longer.
    """
    named = system.get("unit")
    unit = atlas.directory.units.get(named) if named is not None else None
    if unit is None:
        why = f"{named} is in the directory no longer" if named else "it is bound to no unit"
        said = f"{system['name']} acts for nobody: {why}; an operator mends it (huashi system add)"
        raise Refused(said)
    return unit


def must_be_allowed(system: Document, kind: str) -> None:
    """That a system may send this type.

    :raises Refused: it may not.
    """
    if kind not in system["may"]:
        raise Refused(
            f"{system['name']} may send {', '.join(system['may']) or 'nothing'}, and not {kind}: "
            "an operator allows it with huashi system add"
        )


def must_be_inside(system: Document, division: str, atlas: Atlas) -> None:
    """That a place is where the system may report.

    :raises Refused: it is not.
    """
    divisions = system["divisions"]
    if divisions and not any(atlas.directory.within(division, code) for code in divisions):
        raise Refused(
            f"{division} is outside of what {system['name']} reports for: "
            f"report below {', '.join(divisions)}"
        )
