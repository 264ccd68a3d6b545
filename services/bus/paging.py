"""Pages of a list: a cursor says after which record the next page begins.

It holds a place in the order, not a page number, so that what is added or removed meanwhile
neither repeats nor skips a record.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from marshmallow import Schema, ValidationError, fields, validate

from services.grid import json

_MOST = 200


class Cursor(NamedTuple):
    """After which record to go on: its value in the order, and its key."""

    value: str
    key: str

    def text(self) -> str:
        """As it is handed out; it means nothing to anybody else."""
        return base64.urlsafe_b64encode(json.dumps(list(self))).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Cursor:
        """The cursor of :meth:`text`.

        :raises ValueError: it is none.
        """
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            value, key = json.loads(raw)
        except (ValueError, TypeError) as error:
            raise ValueError("not a cursor") from error
        if not (isinstance(value, str) and isinstance(key, str)):
            raise ValueError("not a cursor")
        return cls(value, key)


class CursorField(fields.Field[Cursor]):
    """The ``next`` of an earlier answer."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> Cursor:
        try:
            return Cursor.read(value)
        except ValueError as error:
            raise ValidationError(
                f"{error}: use next of an earlier answer as it is, or leave it out"
            ) from error


class PageQuery(Schema):
    """What every list takes: ``limit`` and ``cursor``."""

    example: ClassVar[dict[str, Any]] = {"limit": 20}

    cursor = CursorField(
        load_default=None, metadata={"description": "`next` of the page before, as it is"}
    )
    limit = fields.Integer(load_default=50, validate=validate.Range(1, _MOST))
