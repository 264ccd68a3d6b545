"""Merging duplicates (并案) over HTTP: the custodian has both cases, and says which one is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from marshmallow import Schema, fields, validate

from services.bus import metrics, problems
from services.bus.access import Guard, forbidden
from services.bus.errors import Retry
from services.bus.fold import Decision, Document, Record, Work
from services.bus.openapi import Shown
from services.bus.problems import Problem
from services.bus.web import Call
from services.escalation import merging, model
from services.escalation.firing import Markers
from services.escalation.shell import CustodianShell
from services.escalation.switching import is_behind
from services.grid.atlas import Atlas
from services.grid.clock import Instant
from services.grid.events.parts import AddressSchema, TokenSchema, public_text
from services.grid.scope import RULE
from services.grid.tokens import Address

MERGERS = ("officer", "lead", "operator")
NOT_MERGED = {409: "One of them has ended (`case`, `held_by`), or they can't be compared."}
_TRIES = 10

Read = Callable[[Sequence[str]], Mapping[str, Document]]


class MergeBody(Schema):
    """Body of ``POST /v1/cases/{id}/merge`` (并案)."""

    example: ClassVar[dict[str, Any]] = {
        "with": "6f1d6f6e-52a5-5d0e-9f43-0d3c2f7f6a11",
        "reason": "同一盏路灯",
    }

    other = fields.String(
        required=True,
        data_key="with",
        validate=validate.Length(1, 200),
        metadata={"description": "the other case's id"},
    )
    reason = public_text(500, required=True, shortest=1)


class HeldCase(Shown):
    """A case, and who holds it (当前责任)."""

    case = fields.String()
    address = fields.Nested(AddressSchema)
    token = fields.Nested(TokenSchema)


class MergedShown(Shown):
    """The older case, which is kept, and the one that follows it, which is a case of its own."""

    kept = fields.Nested(HeldCase)
    follower = fields.Nested(HeldCase)


def merge(custodian: CustodianShell, markers: Markers, call: Call, case: str) -> dict[str, Any]:
    """Merges two cases: of one that the caller acts for, and another that they may read."""
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
        done: Document | None = custodian.act(work, call.trail)
        return done

    _must_read(call.guard, atlas, known[other])
    by = call.identity.subject
    pair = merged(read, act, (case, other), by=by, reason=reason, atlas=atlas, now=custodian.now)
    call.trail.about(case, other, *pair)
    custodian.ring()
    kept, follower = (_held(read([each])[each]) for each in pair)
    return {"kept": kept, "follower": follower}


def merged(
    read: Read,
    act: Callable[[Work], Document | None],
    cases: tuple[str, str],
    *,
    by: str,
    reason: str,
    atlas: Atlas,
    now: Instant,
) -> tuple[str, str]:
    """Merges two cases, or what they follow in the end; which is kept, and which follows it.

    :param act: runs a step on a custody document, and returns its answer.
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
            return model.follow(document, lead, by, reason, atlas=atlas, now=now)

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
        raise forbidden(call.identity, RULE, **({"held_by": held_by} if near else {}))


def _must_read(guard: Guard, atlas: Atlas, document: Document) -> None:
    address = Address.of(document["state"]["address"])
    guard.must_reach(atlas, *address.where(document["facts"]["division"]))


def _held(document: Document) -> dict[str, Any]:
    return {
        "case": document["case"],
        **{name: document["state"][name] for name in ("address", "token")},
    }
