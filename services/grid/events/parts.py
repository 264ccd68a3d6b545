"""The pieces that event data is made of: fields and schemas that families share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from marshmallow import INCLUDE, Schema, ValidationError, fields, validate

from services.grid import deadlines
from services.grid.clock import Instant, parse
from services.grid.tokens import STAGES

# A mobile number with or without the country's, a landline with its area code, or an 18-digit
# resident identity number (GB 11643), standing by itself.
_PERSONAL_NUMBER = re.compile(
    r"(?<!\d)(?:(?:(?:\+|00)?86)?1[3-9]\d{9}|0\d{2,3}[2-9]\d{6,7}"
    r"|[1-9]\d{5}(?:18|19|20)\d{9}[\dXx])(?!\d)",
    re.ASCII,
)
# Also dashes of other lengths, and what nobody sees (a space of no width).
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\s.·()\-‐-―\u200b-\u200d\ufeff]{1,3}(?=\d)", re.ASCII)
# A point is more often of a coordinate or a date than between two parts among others.
_BETWEEN_PARTS = re.compile(r"(?<=\d)[\s\-‐-―\u200b-\u200d\ufeff]{1,3}(?=\d)", re.ASCII)
_DIGIT = re.compile(r"\d", re.ASCII)
_RUN = re.compile(r"\d+(?: \d+)+[Xx]?", re.ASCII)
_SHORTEST_PART, _LONGEST_NUMBER = 3, 18
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
WORD = validate.Regexp(
    r"^[a-z][a-z0-9_]{0,39}\Z", error="Write a lower-case word: a letter, then letters, digits, _."
)
CODE = validate.Regexp(
    r"^[0-9]{6,32}\Z", error="Write a division code: 6 digits of the county, or more below it."
)

CASE = validate.Regexp(
    r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", error="Write a case's id, as a report got it."
)


class Kept(Schema):
    """A schema that keeps the fields it does not know: a newer publisher may send more."""

    class Meta:
        unknown = INCLUDE


class InstantField(fields.Field[Instant]):
    """An RFC 3339 time, kept as an instant (UTC, milliseconds)."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> Instant:
        if not isinstance(value, str):
            raise ValidationError("Write the time as text, such as 2026-11-23T08:30:00+08:00.")
        try:
            return parse(value)
        except ValueError as error:
            raise ValidationError(f"{error}.") from error


class Flag(fields.Boolean):
    """True or false, and nothing that may be taken for one: 0, "no" or "off" are refused."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class Number(fields.Float):
    """A JSON number, and no text that looks like one."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> float:
        if isinstance(value, str):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


def readable(text: str) -> None:
    """Refuses text of nothing but spaces and marks that nobody sees (Unicode's Z and C).

    That a text is empty its length says.
    """
    if text and not any(unicodedata.category(sign)[0] not in "ZC" for sign in text):
        raise ValidationError("Write something that can be read.")


def plain(text: str) -> None:
    """Refuses control characters: they would act on the terminal of whoever reads them."""
    if _CONTROL.search(text):
        raise ValidationError("Leave out control characters and line breaks.")


def plain_lines(text: str) -> None:
    """As :func:`plain`, for text of several lines."""
    if _CONTROL_BUT_LINES.search(text):
        raise ValidationError("Leave out control characters.")


def has_personal_number(text: str) -> bool:
    """Whether a text holds a phone or identity number (GB 11643), however it is spaced.

    It may stand among other numbers: after a date, or two phones side by side.
    """
    # Full-width digits and hyphens become the plain ones.
    plain = unicodedata.normalize("NFKC", text)
    if _DIGIT.search(plain) is None:
        return False
    if _PERSONAL_NUMBER.search(plain) is not None:
        return True
    joined = _BETWEEN_DIGITS.sub("", plain)
    if joined == plain:
        return False
    if _PERSONAL_NUMBER.search(joined) is not None:
        return True
    return any(map(_PERSONAL_NUMBER.fullmatch, _in_parts(plain)))


def _in_parts(text: str) -> Iterator[str]:
    """What neighbouring numbers make together: 302 138 0013 8000 has 13800138000.

    Parts of one or two digits are more often of a date or a time.
    """
    parts = _BETWEEN_PARTS.sub(" ", text)
    for run in _RUN.findall(parts):
        numbers = run.split(" ")
        for first, start in enumerate(numbers):
            if len(start) < _SHORTEST_PART:
                continue
            made = start
            for number in numbers[first + 1 :]:
                made += number
                if len(number) < _SHORTEST_PART or len(made) > _LONGEST_NUMBER:
                    break
                yield made


def no_personal_number(text: str) -> None:
    """Refuses text that goes over the bus and holds a phone or identity number."""
    if has_personal_number(text):
        raise ValidationError(
            "This text is shown to others: leave out phone and identity numbers "
            "(a reporter's belong into reporter)."
        )


OF_THE_DOOR = (readable, no_personal_number)
"""Checks of what people and systems send, which no reader of an event makes again."""


def public_text(
    longest: int, *, shortest: int = 0, lines: bool = False, **kwargs: Any
) -> fields.String:
    """Free text that events carry: bounded, and without numbers that point to a person.

    :param lines: whether it may have line breaks.
    """
    return fields.String(
        validate=[
            validate.Length(shortest, longest),
            plain_lines if lines else plain,
            no_personal_number,
            *([readable] if shortest else []),
        ],
        **kwargs,
    )


class AttachmentSchema(Kept):
    """A picture or document that lies elsewhere, and the digest by which it is known."""

    url = fields.Url(
        required=True,
        schemes={"http", "https"},
        require_tld=False,
        validate=validate.Length(max=2000),
    )
    sha256 = fields.String(
        required=True,
        validate=validate.Regexp(
            r"^[0-9a-f]{64}\Z", error="Write the SHA-256 digest: 64 lower-case hex digits."
        ),
    )
    name = public_text(200, shortest=1)


def attachments(unknown: Literal["raise"] | None = None, **kwargs: Any) -> fields.List[Any]:
    """Up to twenty attachments, as reports and acts have them.

    :param unknown: ``"raise"`` for what people send: then there are no other fields.
    """
    one = fields.Nested(AttachmentSchema, unknown=unknown)
    return fields.List(one, validate=validate.Length(max=20), **kwargs)


class TokenSchema(Kept):
    """``{round, stage, hop, seq}``; see :class:`services.grid.tokens.Token`."""

    round = fields.Integer(required=True, strict=True, validate=validate.Range(1, 1_000_000))
    stage = fields.String(required=True, validate=validate.OneOf(STAGES))
    hop = fields.Integer(required=True, strict=True, validate=validate.Range(0, 1_000_000))
    seq = fields.Integer(required=True, strict=True, validate=validate.Range(0, 1_000_000))


class AddressSchema(Kept):
    """``{level, division, unit}``: where a case is (责任主体)."""

    level = fields.String(required=True, validate=WORD)
    division = fields.String(required=True, validate=CODE)
    unit = fields.String(load_default=None, allow_none=True, validate=validate.Length(1, 80))


class DeadlineSchema(Kept):
    """One deadline with what explains it (时限)."""

    kind = fields.String(required=True, validate=WORD)
    of = fields.String(validate=WORD, metadata={"description": "what a reminder reminds of"})
    at = fields.String(metadata={"description": "a reminder's place, such as 50%"})
    due = InstantField(required=True)
    rule = fields.String(required=True, metadata={"description": "where the profile says so"})
    source = fields.String(required=True, metadata={"description": "what the rule quotes"})
    calendar = fields.String(allow_none=True, load_default=None)
    counted = fields.List(fields.String(), load_default=list)


class PauseSchema(Kept):
    """When a clock stood, and why."""

    starts = InstantField(required=True)
    ends = InstantField(required=True)
    began = InstantField()
    reason = fields.String(required=True, validate=WORD)


class ClockSchema(Kept):
    """A clock: when it nominally started, and when it stood."""

    started_at = InstantField(required=True)
    pauses = fields.List(fields.Nested(PauseSchema))


class ClocksSchema(Kept):
    """The level's clock, new with each hop, and the case's own, which never restarts."""

    level = fields.Nested(ClockSchema, required=True)
    case = fields.Nested(ClockSchema, required=True)


class SuspensionSchema(Kept):
    """Why a case waits (挂起), and until when at the longest."""

    reason = fields.String(required=True, validate=WORD)
    by = fields.String(required=True)
    at = InstantField(required=True)
    until = InstantField(required=True)


def extension_text(text: str) -> None:
    """Refuses what is no time by which a deadline can be extended."""
    try:
        deadlines.extension(text)
    except ValueError as error:
        raise ValidationError(f"{error}.") from error


class GrantedSchema(Kept):
    """An extension (延期) that the level above granted: ``by`` how much, from the old due time."""

    id = fields.String(required=True)
    by = fields.String(required=True, validate=[validate.Length(1, 40), extension_text])
    granted_by = fields.String(required=True)
    at = InstantField(required=True)


class AssignedSchema(Kept):
    """Which officer is on duty for the case; ``officer`` is null where nobody is."""

    officer = fields.String(required=True, allow_none=True)
    why = fields.String(required=True)
    at = InstantField(required=True)


class AcknowledgedSchema(Kept):
    """Who accepted the case (接单), and when."""

    by = fields.String(required=True)
    at = InstantField(required=True)


class ResolutionSchema(Kept):
    """How the round ended (办结)."""

    outcome = fields.String(required=True, validate=WORD)
    note = public_text(2000, lines=True, load_default="")
    by = fields.String(required=True)
    at = InstantField(required=True)
    followed = fields.String(
        metadata={"description": "the case whose resolution this one follows (并案)"}
    )


class InheritedSchema(DeadlineSchema):
    """A deadline that a hop owes to a merge (并案): it counts if it is earlier than the rule's.

    ``due`` if the level's clock does not stand after ``since``, when it was taken over.
    """

    since = InstantField(required=True)


class CallReleaseSchema(Kept):
    """That a unit may leave (事不绝、人不撤): who said so, and how it did, 5 being the best."""

    by = fields.String(required=True)
    at = InstantField(required=True)
    score = fields.Integer(
        required=True, allow_none=True, strict=True, validate=validate.Range(1, 5)
    )
    note = public_text(500, load_default="")


class CallSchema(Kept):
    """A unit that was called to a case (吹哨), and by when it must come and be done."""

    id = fields.String(required=True)
    round = fields.Integer(required=True, strict=True)
    hop = fields.Integer(required=True, strict=True)
    level = fields.String(required=True, validate=WORD)
    division = fields.String(required=True, validate=CODE)
    unit = fields.String(required=True, validate=validate.Length(1, 80))
    lead = fields.Boolean(required=True, metadata={"description": "whether it leads the others"})
    by = fields.String(required=True)
    at = InstantField(required=True)
    reason = public_text(500, required=True, shortest=1)
    check_in = fields.Nested(DeadlineSchema, required=True)
    finish = fields.Nested(DeadlineSchema, required=True)
    supervise = fields.String(required=True, validate=validate.OneOf(["all", "any", "never"]))
    released = fields.Nested(CallReleaseSchema, required=True, allow_none=True)


class DoneSchema(Kept):
    """Who of a unit did something, when, and what they said."""

    by = fields.String(required=True)
    at = InstantField(required=True)
    note = public_text(2000, lines=True, load_default="")


class ProgressSchema(Kept):
    """What a unit that was called did (报到), and which of its deadlines passed."""

    checked_in = fields.Nested(DoneSchema, required=True, allow_none=True)
    finished = fields.Nested(DoneSchema, required=True, allow_none=True)
    missed = fields.List(fields.String(validate=WORD), required=True)


class CallProgressSchema(ProgressSchema):
    """The progress of a call, by its id."""

    call = fields.String(required=True)


class TakenSchema(Kept):
    """A step of a procedure (四议两公开) that was done, and when the holder said so."""

    step = fields.String(required=True, validate=WORD)
    title = fields.String(required=True)
    by = fields.String(required=True)
    at = InstantField(required=True)


class AuthoritySchema(AddressSchema):
    """Whose authority to settle the case its holder has (授权), and who gave it."""

    by = fields.String(required=True)
    at = InstantField(required=True)
    source = fields.String(required=True, metadata={"description": "what the rule quotes"})


class StateSchema(Kept):
    """The whole state that an event about a case results in."""

    token = fields.Nested(TokenSchema, required=True)
    address = fields.Nested(AddressSchema, required=True)
    assigned = fields.Nested(AssignedSchema, load_default=None, allow_none=True)
    acknowledged = fields.Nested(AcknowledgedSchema, load_default=None, allow_none=True)
    progressed_at = InstantField(metadata={"description": "the holder's last act (进展)"})
    clocks = fields.Nested(ClocksSchema, required=True)
    deadlines = fields.List(fields.Nested(DeadlineSchema), required=True)
    resolution = fields.Nested(ResolutionSchema, load_default=None, allow_none=True)
    suspension = fields.Nested(SuspensionSchema)
    extensions = fields.List(fields.Nested(GrantedSchema))
    joined = fields.List(
        fields.Nested(CallSchema), metadata={"description": "the units called in this round"}
    )
    inherited = fields.List(fields.Nested(InheritedSchema))
    steps = fields.List(fields.Nested(TakenSchema))
    authority = fields.Nested(AuthoritySchema)


class FactsSchema(Kept):
    """What others need to know of a case; never who reported it."""

    tracking = fields.String(required=True)
    title = public_text(200, required=True, shortest=1)
    category = fields.String(required=True, validate=WORD)
    urgency = fields.String(required=True, validate=WORD)
    source = fields.String(required=True, validate=WORD)
    division = fields.String(required=True, validate=CODE)
    triage = fields.Boolean(load_default=False)
    profile = fields.String(required=True, metadata={"description": "the profile's version"})
    emergency = fields.String(
        validate=validate.Regexp(r"^[0-9]{6,32}\.[0-9]{1,7}\Z", error="Write <division>.<number>."),
        metadata={"description": "the emergency (战时机制) whose rules hold for it"},
    )
    ladder = fields.String(required=True)
    also_tell = fields.List(fields.String(validate=WORD), load_default=list)
    reported_at = InstantField(required=True)
    follows = fields.String(
        validate=validate.Length(1, 200),
        metadata={"description": "the older case that it was merged into (并案)"},
    )
    respond_by = InstantField(
        metadata={"description": "by when the system that reported it has promised an answer"}
    )


class CaseSchema(Kept):
    """The data of every event about a case."""

    case = fields.Nested(FactsSchema, required=True)
    state = fields.Nested(StateSchema, required=True)
