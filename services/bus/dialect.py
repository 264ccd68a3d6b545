"""Another API's way to ask and to answer, on routes of ours: forms, media types, errors.

A route with a :class:`Dialect` has a path that ends in ``.<format>``. Its fields come from the
query and, of a POST, from a form besides; a field that is sent empty counts as not sent. Whatever
goes wrong, also before its handler, is said in the dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from marshmallow import Schema, ValidationError, fields

from services.bus import problems
from services.bus.problems import Problem

FORM = "application/x-www-form-urlencoded"
FORMAT = "format"
"""The variable of a path that says in which format is answered."""

Sent = dict[str, list[str]]
"""What was sent under each name, in its order."""

_MOST_FIELDS = 200


@dataclass(frozen=True)
class Dialect:
    """How such an API asks and answers.

    ``media_types`` of each format; ``write`` makes the bytes of a body; ``status`` maps a status
    of ours, and ``errors`` makes the body of a problem, which looks like ``problem``. ``key`` is
    the field in which a system may send its API key.
    """

    name: str
    key: str
    media_types: Mapping[str, str]
    write: Callable[[Any, str], bytes]
    status: Callable[[int], int]
    errors: Callable[[Problem], Any]
    problem: Schema


class Commas(fields.String):
    """A list in one text, ``a,b``, or sent several times; at most ``most``."""

    def __init__(self, *, most: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._most = most

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        found = list(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))
        if not 0 < len(found) <= self._most:
            raise ValidationError(f"Write 1 to {self._most}, with commas between them.")
        return found


def pairs(raw: bytes) -> Sent:
    """The fields of a query or a form.

    :raises Problem: a 400; they can't be read.
    """
    try:
        found = parse_qsl(
            raw.decode(),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except UnicodeDecodeError as error:
        raise Problem(400, "the fields are not UTF-8: percent-encode them as UTF-8") from error
    except ValueError as error:
        said = f"there are too many fields: send at most {_MOST_FIELDS}"
        raise Problem(400, said) from error
    sent: Sent = {}
    for name, value in found:
        if value:
            sent.setdefault(name.removesuffix("[]"), []).append(value)
    return sent


def loaded(sent: Sent, schema: Schema) -> dict[str, Any]:
    """What a schema makes of the fields.

    :raises Problem: a 422 that names each wrong one.
    """
    known = {field.data_key or name: field for name, field in schema.fields.items()}
    told: dict[str, Any] = {}
    repeated: dict[str, str] = {}
    for name, values in sent.items():
        match known.get(name):
            case Commas():
                told[name] = ",".join(values)
            case fields.List():
                told[name] = values
            case _ if len(values) > 1:
                repeated[name] = "sent more than once: send it once"
            case _:
                told[name] = values[0]
    if repeated:
        raise problems.invalid(repeated)
    try:
        found: dict[str, Any] = schema.load(told)
    except ValidationError as error:
        raise problems.of_validation(error, schema) from error
    return found


def key_of(sent: Sent, dialect: Dialect) -> str | None:
    """The key that was sent, which is taken out: nobody else has to know it."""
    values: Sequence[str] = sent.pop(dialect.key, ())
    return values[-1] if values else None
