"""What officers do at their desk and another service decides: what they send, and what they get.

The custodian has a case supervised (督办) and merges two (并案), intake keeps who watches one
(关注) and what it is linked with (关联). Desk and service both read this table;
:mod:`services.bus.relay` carries the acts from one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from services.bus.openapi import Shown
from services.bus.topology import ANSWER_SECONDS
from services.grid.events.parts import (
    CASE,
    CODE,
    WORD,
    AddressSchema,
    InstantField,
    TokenSchema,
    attachments,
    no_personal_number,
    public_text,
)

OFFICERS = ("officer", "lead", "operator")
MERGE_SECONDS = 15.0
"""Real seconds for which a desk waits for a merge, which waits for another desk in turn."""

_OTHER_CASE = {"description": "the other case's id"}


class SuperviseBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/supervise`` (督办)."""

    example: ClassVar[dict[str, Any]] = {"reason": "群众多次反映"}

    reason = public_text(500, required=True, shortest=1)
    attachments = attachments("raise", load_default=list)


class CustodyShown(Shown):
    """Who holds the case (当前责任)."""

    address = fields.Nested(AddressSchema)
    token = fields.Nested(TokenSchema)


class SupervisionWanted(Shown):
    """Who wanted a case to be supervised, and why."""

    by = fields.String()
    reason = fields.String()
    round = fields.Integer()


class SupervisionShown(Shown):
    """How often it was supervised (督办), when last, and when next."""

    times = fields.Integer()
    last = InstantField()
    due = InstantField(allow_none=True)
    asked = fields.List(
        fields.Nested(SupervisionWanted),
        metadata={"description": "who wanted it, where not only a deadline passed"},
    )


class SupervisedShown(Shown):
    """Who holds a case, and how often it was supervised."""

    case = fields.String()
    custody = fields.Nested(CustodyShown)
    supervised = fields.Nested(SupervisionShown)


class MergeBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/merge`` (并案)."""

    example: ClassVar[dict[str, Any]] = {
        "with": "6f1d6f6e-52a5-5d0e-9f43-0d3c2f7f6a11",
        "reason": "同一盏路灯",
    }

    other = fields.String(required=True, data_key="with", validate=CASE, metadata=_OTHER_CASE)
    reason = public_text(500, required=True, shortest=1)
    attachments = attachments("raise", load_default=list)


class HeldCase(Shown):
    """A case, and who holds it (当前责任)."""

    case = fields.String()
    address = fields.Nested(AddressSchema)
    token = fields.Nested(TokenSchema)


class MergedShown(Shown):
    """The older case, which is kept, and the one that follows it, which is a case of its own."""

    kept = fields.Nested(HeldCase)
    follower = fields.Nested(HeldCase)
    heard = fields.Boolean(
        metadata={"description": "whether the desk that holds the follower knows that it follows"}
    )


class WatchBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/watch``, ``…/unwatch``: an officer, or a desk."""

    example: ClassVar[dict[str, Any]] = {"officer": "v-214"}

    officer = fields.String(validate=[validate.Length(1, 80), no_personal_number])
    level = fields.String(validate=WORD)
    division = fields.String(validate=CODE)
    note = public_text(500, load_default="")
    attachments = attachments("raise", load_default=list)

    @validates_schema
    def _says_who(self, data: dict[str, Any], **_kwargs: Any) -> None:
        desk = {"level", "division"} & data.keys()
        if ("officer" in data) == bool(desk) or len(desk) == 1:
            raise ValidationError(
                "Say who: an officer's id, or the level and division of a desk.", "officer"
            )


class WatchersShown(Shown):
    """Who is told of what happens to a case, as references."""

    id = fields.String()
    watchers = fields.List(fields.String(), metadata={"example": ["officer:v-214"]})


class LinkBody(Schema):
    """Body of ``POST /v1/desks/{level}/cases/{id}/link`` (关联) and ``…/unlink``."""

    example: ClassVar[dict[str, Any]] = {"case": "6f1d6f6e-52a5-5d0e-9f43-0d3c2f7f6a11"}

    case = fields.String(required=True, validate=CASE, metadata=_OTHER_CASE)
    note = public_text(500, load_default="")
    attachments = attachments("raise", load_default=list)


class LinksShown(Shown):
    """The cases that a case is linked with."""

    id = fields.String()
    linked = fields.List(fields.String())


@dataclass(frozen=True)
class DeskAct:
    """One act: its name, which is also the method's, and the service that decides it.

    The others are as of :func:`services.bus.web.route`; ``seconds`` is how long the desk waits.
    """

    name: str
    service: str
    body: Schema
    answers: Schema
    problems: Mapping[int, str] = field(default_factory=dict)
    repeatable: bool = False
    waits: bool = False
    seconds: float = ANSWER_SECONDS


SUPERVISE = DeskAct(
    "supervise",
    "escalation",
    SuperviseBody(),
    SupervisedShown(),
    {409: "The case has ended, or the Idempotency-Key was used for another reason."},
    repeatable=True,
)
MERGE = DeskAct(
    "merge",
    "escalation",
    MergeBody(),
    MergedShown(),
    {409: "One of them has ended (`case`, `held_by`), or they can't be compared."},
    waits=True,
    seconds=MERGE_SECONDS,
)
WATCH = DeskAct(
    "watch",
    "intake",
    WatchBody(),
    WatchersShown(),
    {409: "As many as may be watch the case already."},
)
UNWATCH = DeskAct("unwatch", "intake", WatchBody(), WatchersShown())
LINK = DeskAct(
    "link",
    "intake",
    LinkBody(),
    LinksShown(),
    {409: "As many cases as may be are linked with it already."},
)
UNLINK = DeskAct("unlink", "intake", LinkBody(), LinksShown())
