"""What a caller over HTTP is told when something goes wrong: RFC 9457 problem details."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from marshmallow import Schema, ValidationError, fields

from services.bus.errors import Collision, Refused, Reject, Retry
from services.grid.atlas import UnknownProfile
from services.grid.events.envelope import flatten

CONTENT_TYPE = "application/problem+json"

_RETRY_SECONDS = 2
_PREFIX = "urn:huashi:problem:"


class Problem(Exception):
    """An answer that says what is wrong, for people and for programs.

    :param status: the HTTP status; its phrase is the title.
    :param detail: what is wrong here, and the cure. It is shown to the caller.
    :param kind: a short word that names the sort of problem, if the status is not enough.
    :param headers: headers that belong to it, such as ``Retry-After``.
    :param facts: further members of the document.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(detail)
        self.status = HTTPStatus(status)
        self.detail = detail
        self.kind = kind
        self.headers = dict(headers or {})
        self.facts = facts

    def document(self) -> dict[str, Any]:
        """The members of the problem document; ``facts`` never replace the standard ones."""
        return {
            **self.facts,
            "type": _PREFIX + self.kind if self.kind else "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
        }


def invalid(errors: Mapping[str, str]) -> Problem:
    """A 422 that names each wrong field: ``{"reporter.phone": "what is wrong, the cure"}``."""
    listed = [{"field": name, "detail": why} for name, why in errors.items()]
    detail = "; ".join(f"{name}: {why}" for name, why in errors.items())
    return Problem(422, detail, kind="invalid", errors=listed)


def of_validation(error: ValidationError, schema: Schema) -> Problem:
    """The 422 of what a marshmallow schema found; unknown fields get the ones that exist."""
    messages = error.messages if isinstance(error.messages, dict) else {"body": error.messages}
    flat = {
        "body" if name == "_schema" else name.removesuffix("._schema"): why
        for name, why in flatten(messages).items()
    }
    unknown = str(schema.error_messages["unknown"])
    return invalid(
        {name: _known(name, schema) if why == unknown else why for name, why in flat.items()}
    )


def of_error(error: Exception) -> Problem | None:
    """The problem of an exception that says what becomes of the input; None for a surprise."""
    match error:
        case Problem():
            return error
        case Refused():
            problem = Problem(409, error.detail, kind="refused")
            problem.facts = dict(error.facts)
            return problem
        case Retry() | UnknownProfile():
            return away()
        case Reject():
            return Problem(422, str(error), kind=error.reason)
        case Collision():
            return Problem(409, f"{error.field} is taken: choose another", kind="refused")
        case _:
            return None


def away(why: str = "something that this service needs is away") -> Problem:
    """A 503: the same request may be sent again soon. Which part is away is for the log."""
    return Problem(
        503,
        f"{why}: send the same request again in a moment",
        kind="away",
        headers={"Retry-After": str(_RETRY_SECONDS)},
    )


def _known(path: str, schema: Schema) -> str:
    """What to write instead of an unknown field."""
    *parents, name = path.split(".")
    inner: Any = schema
    for parent in parents:
        field = _fields(inner).get(parent) if isinstance(inner, Schema) else inner
        inner = field.inner if isinstance(field, fields.List) else field
        inner = inner.schema if isinstance(inner, fields.Nested) else inner
    if not isinstance(inner, Schema):
        return "there is no such field: leave it out"
    known = _fields(inner)
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"there is no such field: {hint}the fields are {', '.join(sorted(known))}"


def _fields(schema: Schema) -> dict[str, fields.Field[Any]]:
    """The fields of a schema, by the names under which people write them."""
    return {field.data_key or name: field for name, field in schema.fields.items()}
