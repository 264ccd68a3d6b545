"""The audit trail: who did what, when, from where, and what it changed. Appended, never changed.

Each service keeps its own, because none reads another's collection; its database user may insert
and find there, and neither update nor remove. An entry is ``{_id, at, real_at, who, role, scope,
from, action, target, cases, changes, said, status, why, idempotency_key, traceparent}``:

- ``action`` is the route (``POST /v1/cases/<case>/reopen``), ``target`` its variables;
- ``changes`` are ``{case, before, after}``, each ``{token, address, status}`` or none, ``said``
  what else can be said of it in a few words: never a note, a name or a number;
- ``status`` is the answer's, ``why`` the rule or reason of a refusal, or of a failure after
  something was changed, or may have been.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, ClassVar, Protocol

from marshmallow import ValidationError, fields, validate
from pymongo.collection import Collection

from services.bus import logs, metrics
from services.bus.auth import Identity
from services.bus.config import Network
from services.bus.errors import Reject, Retry
from services.bus.fold import Document
from services.bus.openapi import Shown
from services.bus.paging import Cursor, PageQuery
from services.bus.store import database_errors, page_of
from services.grid.clock import Clock, instant, monotonic
from services.grid.events.parts import (
    AddressSchema,
    InstantField,
    TokenSchema,
    no_personal_number,
)

# Requests without a valid token that are kept a second: anybody can send any number.
_UNKNOWN_A_SECOND = 20
_TARGET_LENGTH = 120

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_log = logs.get(__name__)


@dataclass
class Trail:
    """What one request did, as its handler tells it."""

    cases: list[str] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)
    uncertain: bool = False
    """Whether it may have been done though nobody said so."""

    def about(self, *cases: str, **said: Any) -> None:
        """Which cases it was about, and words for what changed: no notes, names or numbers."""
        self.cases += [case for case in cases if case not in self.cases]
        self.said |= said

    def changed(self, before: Document | None, after: Document | None) -> None:
        """What a step made of a case's document."""
        document = after or before
        if document is None or "case" not in document:
            return
        self.about(document["case"])
        change = {"before": _brief(before), "after": _brief(after)}
        self.changes.append({"case": document["case"], **change})

    def told(self) -> dict[str, Any]:
        """What another service that did it tells; see :meth:`take`."""
        return {"cases": self.cases, "changes": self.changes, "said": self.said}

    def take(self, told: Mapping[str, Any]) -> None:
        """Takes in what another service did, as it tells."""
        self.about(*told["cases"], **told["said"])
        self.changes += told["changes"]


class Keeper(Protocol):
    """Where entries are kept."""

    def append(self, entry: Mapping[str, Any]) -> None:
        """Keeps an entry for good.

        :raises Retry: it can't be kept now.
        """

    def page(
        self, filters: Mapping[str, Any], cursor: Cursor | None, limit: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """A page of entries, the latest first, and the cursor of the next page.

        ``filters``: any of who, case, from, to (not included).
        """


class AuditStore:
    """A service's audit trail in MongoDB; see :class:`Keeper`.

    Who administers the database makes its indexes (``topology.AUDIT_INDEXES``): with the right
    to make one, a service could let entries expire.
    """

    def __init__(self, collection: Collection[dict[str, Any]]) -> None:
        self._collection = collection

    def append(self, entry: Mapping[str, Any]) -> None:
        """See :class:`Keeper`."""
        with database_errors():
            self._collection.insert_one(dict(entry))

    def page(
        self, filters: Mapping[str, Any], cursor: Cursor | None, limit: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """See :class:`Keeper`."""
        where: dict[str, Any] = {}
        for name, member in (("who", "who"), ("case", "cases")):
            if filters.get(name) is not None:
                where[member] = filters[name]
        times = {
            operator: filters[name]
            for operator, name in (("$gte", "from"), ("$lt", "to"))
            if filters.get(name) is not None
        }
        if times:
            where["at"] = times
        return page_of(self._collection, where, "at", cursor, limit)


class AuditQuery(PageQuery):
    """Filters of ``GET /v1/audit``."""

    example: ClassVar[dict[str, Any]] = {
        "who": "officer-7",
        "case": "0b9ab4f0-6f0e-5c41-9d5e-1f2a3b4c5d6e",
        "from": "2026-03-01T00:00:00+08:00",
        "to": "2026-04-01T00:00:00+08:00",
        "limit": 20,
    }

    who = fields.String(validate=validate.Length(1, 120))
    case = fields.String(validate=validate.Length(1, 80))
    from_ = InstantField(data_key="from", attribute="from")
    to = InstantField()


class ScopeShown(Shown):
    """How far a token reached."""

    division = fields.String(allow_none=True)
    level = fields.String(allow_none=True)
    unit = fields.String(allow_none=True)


class Brief(Shown):
    """Where a case stood."""

    token = fields.Nested(TokenSchema)
    address = fields.Nested(AddressSchema)
    status = fields.String(allow_none=True)


class Change(Shown):
    """What a step made of a case."""

    case = fields.String()
    before = fields.Nested(Brief, allow_none=True)
    after = fields.Nested(Brief, allow_none=True)


class AuditEntry(Shown):
    """What was done or refused, by whom and from where."""

    id = fields.String()
    at = InstantField()
    real_at = InstantField()
    who = fields.String(allow_none=True)
    role = fields.String()
    scope = fields.Nested(ScopeShown)
    from_ = fields.String(data_key="from", metadata={"description": "the sender's address"})
    action = fields.String(metadata={"description": "the route"})
    target = fields.Dict(keys=fields.String(), values=fields.String())
    cases = fields.List(fields.String())
    changes = fields.List(fields.Nested(Change))
    said = fields.Dict(keys=fields.String())
    status = fields.Integer()
    why = fields.String(allow_none=True, metadata={"description": "the rule of a refusal"})
    idempotency_key = fields.String(allow_none=True)
    traceparent = fields.String(allow_none=True)


class AuditPage(Shown):
    """A page of the audit trail."""

    entries = fields.List(fields.Nested(AuditEntry))
    next = fields.String(allow_none=True)


@dataclass(frozen=True)
class Request:
    """What a request says of itself, whoever sent it."""

    method: str
    route: str
    target: Mapping[str, Any]
    address: str
    idempotency_key: str | None
    traceparent: str | None


class Auditor:
    """Writes the audit trail of one service process."""

    def __init__(self, keeper: Keeper, clock: Clock) -> None:
        self._keeper = keeper
        self._clock = clock
        self._second, self._unknown = 0, 0

    def done(self, request: Request, identity: Identity, trail: Trail, status: int) -> None:
        """Keeps what was done, before it is answered.

        :raises Retry: it can't be kept now; the caller sends the same again, and that is kept.
        """
        self._keeper.append(self._entry(request, identity, trail, status, None))
        metrics.AUDIT_ENTRIES.labels("written").inc()

    def refused(
        self, request: Request, identity: Identity, status: int, why: str, trail: Trail
    ) -> None:
        """Keeps what was refused; it stays refused when the database is away."""
        if status == HTTPStatus.UNAUTHORIZED and not self._room():
            metrics.AUDIT_ENTRIES.labels("omitted").inc()
            return
        entry = self._entry(request, identity, trail, status, why)
        try:
            self._keeper.append(entry)
        except (Retry, Reject) as error:
            metrics.AUDIT_ENTRIES.labels("lost").inc()
            # Without the address, which is a person's.
            lost = {name: value for name, value in entry.items() if name != "from"}
            _log.error("an audit entry could not be kept", why=str(error), entry=lost)
        else:
            metrics.AUDIT_ENTRIES.labels("written").inc()

    def page(
        self, filters: Mapping[str, Any], cursor: Cursor | None, limit: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """See :class:`Keeper`."""
        return self._keeper.page(filters, cursor, limit)

    def _entry(
        self, request: Request, identity: Identity, trail: Trail, status: int, why: str | None
    ) -> dict[str, Any]:
        target = {name: _reference(value) for name, value in request.target.items()}
        return {
            "_id": str(uuid.uuid4()),
            "at": self._clock.now(),
            "real_at": instant(datetime.fromtimestamp(self._clock.real(), UTC)),
            "who": identity.subject or None,
            "role": identity.role,
            "scope": identity.scope.as_dict(),
            "from": request.address,
            "action": f"{request.method} {request.route}",
            "target": target,
            "cases": trail.cases or [target["case"]] if "case" in target else trail.cases,
            "changes": trail.changes,
            "said": trail.said,
            "status": status,
            "why": why,
            "idempotency_key": request.idempotency_key,
            "traceparent": request.traceparent,
        }

    def _room(self) -> bool:
        second = int(monotonic())
        if second != self._second:
            self._second, self._unknown = second, 0
        self._unknown += 1
        return self._unknown <= _UNKNOWN_A_SECOND


def shown(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry as people see it."""
    return {"id": entry["_id"], **{name: entry[name] for name in entry if name != "_id"}}


def sender(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """From where a request came: the last address that no trusted proxy could have made up.

    :param peer: who is connected.
    :param forwarded: X-Forwarded-For, to which each proxy adds whom it heard it from.
    """
    hops = [hop.strip() for hop in forwarded.split(",")] if forwarded else []
    while hops and _among(peer, trusted):
        hop = hops.pop()
        try:
            peer = str(ip_address(hop))
        except ValueError:
            break
    return peer


def _among(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def _reference(value: Any) -> str:
    """What a caller wrote into a path, unless it is somebody's number."""
    text = str(value)
    if _UUID.fullmatch(text):
        return text
    try:
        no_personal_number(text)
    except ValidationError:
        return "(a number)"
    return text[:_TARGET_LENGTH]


def _brief(document: Document | None) -> dict[str, Any] | None:
    """Where a case stood, of a register, docket or custody document."""
    state = document and (document.get("state") or document.get("asked_in"))
    if document is None or state is None:
        return None
    return {
        "token": state["token"],
        "address": state["address"],
        "status": document.get("status"),
    }
