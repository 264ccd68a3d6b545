"""The OpenAPI 3.1 document of a service, made from its table of routes and their schemas.

Nothing is said twice: a path, its roles and statuses come from ``@route``, the summary from the
handler's docstring, fields from the marshmallow schemas, and what every route may answer (no
token, a wrong field, away) from here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple, Protocol

from apispec import APISpec
from marshmallow import Schema, fields

from services.bus import problems
from services.bus.access import Touches
from services.bus.dialect import FORM, FORMAT, Dialect
from services.bus.json_schema import Converter, Plugin, prose
from services.grid.events.parts import Kept

_VERSION = "1"
"""That of the paths, ``/v1``."""

_ABOUT = """\
One of Huashi's services: events and HTTP that coordinate a county's cases. JSON in and out, UTF-8.

Whatever goes wrong is a problem document (RFC 9457): `detail` says what and the cure, `errors`
lists each wrong field. A request whose head can't be read gets 400, 414, 431 or 501 before any
operation; a path that is not here 404, a method that a path does not know 405 with `Allow`.
Paths that end in `.{format}` are another API's, and say errors in its way."""

_PARAMETERS = {
    "name": ("The system's name.", "hotline"),
    "case": ("The case's id.", "0b9ab4f0-6f0e-5c41-9d5e-1f2a3b4c5d6e"),
    "code": ("The tracking code, as it was told or written down.", "7K3M9QXW2A"),
    "division": ("The division's code.", "469002104"),
    "identity": ("The id of what is asked for.", "6a1d2b9c-3e4f-5a6b-8c7d-9e0f1a2b3c4d"),
    "level": ("The desk's level.", "household"),
    FORMAT: ("In which format is answered.", "json"),
    "service_code": ("A service of the list: a category of the profile.", "facility"),
    "service_request_id": ("The request's id.", "0b9ab4f0-6f0e-5c41-9d5e-1f2a3b4c5d6e"),
    "token": ("The tracking code, as it was told or written down.", "7K3M9QXW2A"),
    "recipient": (
        "`officer:<id>`, `desk:<level>:<division>` or `division:<code>`.",
        "desk:village:469002104214",
    ),
}
"""What the variables of paths mean, each with an example."""

_VARIABLE = re.compile(r"<(\w+)>")

_PROBLEMS = {
    400: "The request can't be read: it is not JSON, broke off, or a header is malformed.",
    401: "There is no token, or it can't be believed.",
    403: "The caller may not do this: `rule` says why.",
    404: "It is not there.",
    408: "The body came too slowly.",
    412: "It has changed since; `now` is what it is.",
    413: "The body is too large.",
    415: "The body is not plain `application/json`.",
    422: "A field is wrong or unknown; `errors` names each.",
    500: "A defect of ours; `instance` finds it in the log.",
    503: "Something that the service needs is away; the same request may be sent again.",
}
"""What a route may answer without saying so itself."""

_PROBLEM_HEADERS = {
    401: ("WWW-Authenticate", "How to prove who calls (RFC 6750)."),
    503: ("Retry-After", "Seconds."),
}


class RouteLike(Protocol):
    """What is read of a route; see :class:`services.bus.web.Route`."""

    method: str
    path: str
    body: Schema | None
    query: Schema | None
    may: tuple[str, ...]
    touches: Touches | None
    answers: Schema
    status: int
    problems: Mapping[int, str]
    repeatable: bool
    tagged: bool
    waits: bool
    cache_seconds: int
    content: Mapping[str, Schema]
    by_key: bool
    dialect: Dialect | None
    knows: tuple[str, ...]


class Page(NamedTuple):
    """What every service answers besides its routes: ``GET path``, without a token."""

    path: str
    handler: Callable[[], Any]
    content_type: str
    away: bool = False
    """Whether it may answer 503."""


class Shown(Kept):
    """The base of answers: each field is there (null where there is nothing), but ``sometimes``.

    Answers are not dumped through it: it says what they look like, and the tests hold every
    real answer against it, in both directions.
    """

    sometimes: ClassVar[tuple[str, ...]] = ()

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """See marshmallow."""
        field_obj.required = field_name not in self.sometimes


class WrongFieldSchema(Shown):
    """One wrong field: its path, what is wrong and the cure."""

    field = fields.String()
    detail = fields.String()


class ProblemSchema(Shown):
    """A problem document (RFC 9457); some have further members, such as `held_by`."""

    sometimes = ("instance", "errors")

    type = fields.String(metadata={"example": "urn:huashi:problem:refused"})
    title = fields.String()
    status = fields.Integer()
    detail = fields.String(metadata={"description": "what is wrong here, and the cure"})
    instance = fields.String(metadata={"description": "what an operator finds in the log"})
    errors = fields.List(fields.Nested(WrongFieldSchema))


def document(
    name: str, routes: Iterable[tuple[RouteLike, Any]], pages: Iterable[Page]
) -> dict[str, Any]:
    """The OpenAPI document of a service.

    :param name: the service's.
    :param routes: each route with its handler.
    :param pages: what every service has besides.
    """
    plugin = Plugin()
    spec = APISpec(
        title=f"Huashi 化事: {name}",
        version=_VERSION,
        openapi_version="3.1.0",
        info={"description": _ABOUT},
        plugins=[plugin],
    )
    bearer = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    spec.components.security_scheme("bearer", bearer)
    for status, said in _PROBLEMS.items():
        spec.components.response(str(status), _problem(status, said))
    converter = plugin.converter
    assert isinstance(converter, Converter)  # noqa: S101 - init_spec made it
    paths: dict[str, dict[str, Any]] = {}
    for route, handler in routes:
        path = _VARIABLE.sub(r"{\1}", route.path)
        operation = {"tags": [name], **_operation(route, handler, converter)}
        paths.setdefault(path, {})[route.method.lower()] = operation
    for page in pages:
        paths[page.path] = {"get": _page(page)}
    for path, operations in paths.items():
        spec.path(path, operations=operations)
    made = spec.to_dict()
    return {"openapi": made.pop("openapi"), **made}


def _operation(route: RouteLike, handler: Any, converter: Converter) -> dict[str, Any]:
    summary, description = _said(handler)
    if route.touches is not None:
        rule = f"For {', '.join(route.may)}; it touches {route.touches.value}."
        rule += " The API key of a system will do." if route.by_key else ""
        description = f"{description}\n\n{rule}".strip()
    if route.knows:
        rule = f"Without a token; to {', '.join(route.knows)} it shows their own."
        description = f"{description}\n\n{rule}".strip()
    made: dict[str, Any] = {
        "operationId": handler.__name__,
        "summary": summary,
        "description": description or "Without a token.",
        "security": _security(route),
        "x-roles": list(route.may),
        "parameters": _parameters(route, converter),
    }
    if route.body is not None:
        content = {"schema": route.body, "example": _example(route.body)}
        # An empty body counts as {}.
        needed = any(field.required for field in route.body.fields.values())
        kind = "application/json" if route.dialect is None else FORM
        made["requestBody"] = {"required": needed, "content": {kind: content}}
    if route.content:
        made["requestBody"] = {
            "required": True,
            "content": {
                kind: {"schema": schema, "example": _example(schema)}
                for kind, schema in route.content.items()
            },
        }
    answer: dict[str, Any] = {
        "description": HTTPStatus(route.status).phrase,
        "content": _answered(route, route.answers),
    }
    if route.status == HTTPStatus.CREATED:
        answer["headers"] = {"Location": _header("Where it is from now on.")}
    if route.tagged:
        answer["headers"] = {"ETag": _header("Which version this is, for `If-Match`.")}
    made["responses"] = {str(route.status): answer, **_problems(route)}
    if route.waits:
        where = {"Location": _header("Where the answer is to be seen once it is there, if here.")}
        asked = {**answer, "description": "It is asked for, and not answered yet."}
        made["responses"]["202"] = {**asked, "headers": {**answer.get("headers", {}), **where}}
    if route.cache_seconds:
        tag = _header("The same answer has the same; sent as If-None-Match, it is not sent again.")
        answer["headers"] = {"ETag": tag, "Cache-Control": _header("For how long it may be kept.")}
        made["responses"]["304"] = {"description": "The caller has it (If-None-Match)."}
    return made


def _security(route: RouteLike) -> list[dict[str, list[str]]]:
    """A dialect's key may come in a field instead, which OpenAPI can't say of a form."""
    if route.dialect is None:
        return [{"bearer": []}] if route.may else []
    return [{"bearer": []}, {}] if route.may or route.knows else []


def _answered(route: RouteLike, schema: Schema) -> dict[str, Any]:
    """What a body looks like, by media type; that of XML follows from that of JSON."""
    if route.dialect is None:
        return {"application/json": {"schema": schema}}
    kinds = [kind.partition(";")[0] for kind in route.dialect.media_types.values()]
    return {kind: {"schema": schema} if kind == "application/json" else {} for kind in kinds}


def _parameters(route: RouteLike, converter: Converter) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in _VARIABLE.findall(route.path):
        if name not in _PARAMETERS:
            raise ValueError(
                f"{route.method} {route.path}: say in _PARAMETERS of {__name__} what {name} means"
            )
        meaning, example = _PARAMETERS[name]
        schema: dict[str, Any] = {"type": "string", "minLength": 1}
        if name == FORMAT and route.dialect is not None:
            schema = {"type": "string", "enum": list(route.dialect.media_types)}
        found.append(
            {
                "in": "path",
                "name": name,
                "required": True,
                "description": meaning,
                "schema": schema,
                "example": example,
            }
        )
    if route.query is not None:
        examples = _example(route.query)
        for parameter in converter.schema2parameters(route.query, location="query"):
            schema = parameter["schema"]
            if isinstance(schema.get("type"), list):
                # A query has no null: what is none is left out.
                schema["type"] = next(kind for kind in schema["type"] if kind != "null")
            if "enum" in schema:
                schema["enum"] = [value for value in schema["enum"] if value is not None]
            if schema.get("default", ...) is None:
                del schema["default"]
            if route.dialect is not None:
                # It counts as not sent.
                parameter["allowEmptyValue"] = True
            if parameter["name"] in examples:
                parameter["example"] = examples[parameter["name"]]
            found.append(parameter)
    if route.repeatable:
        found.append(
            {
                "in": "header",
                "name": "Idempotency-Key",
                "required": False,
                "description": "The same key with the same body gives the first answer again.",
                "schema": {"type": "string", "pattern": "^[!#-~]{1,200}$"},
                "example": "4f1c9a52-2a4e-4b8e-9d0a-0f5f8d1c7b11",
            }
        )
    if route.tagged and route.method != "GET":
        found.append(
            {
                "in": "header",
                "name": "If-Match",
                "required": False,
                "description": "The `ETag` of what was seen: it is done only if that still holds. "
                "`*` is any.",
                "schema": {"type": "string"},
                "example": "*",
            }
        )
    return found


def _problems(route: RouteLike) -> dict[str, Any]:
    """What else it may answer."""
    # Each refuses unknown query parameters (422) and a broken head (400).
    common = {400, 422, 500, 503}
    if route.may or route.knows:
        common |= {401, 403}
    if _VARIABLE.search(route.path):
        common.add(404)
    if route.body is not None or route.content:
        common |= {408, 413, 415}
    if route.tagged and route.method != "GET":
        common.add(412)
    # A name stands for a component.
    answers: dict[int, Any] = {status: str(status) for status in common}
    answers |= {status: _problem(status, said) for status, said in route.problems.items()}
    if route.dialect is not None:
        return _in_dialect(route, route.dialect, answers)
    return {str(status): answers[status] for status in sorted(answers)}


def _in_dialect(route: RouteLike, dialect: Dialect, answers: Mapping[int, Any]) -> dict[str, Any]:
    """The same as a dialect says it; what can't be read at all gets a problem document."""
    said: dict[int, list[str]] = {}
    for status in sorted(answers):
        told = route.problems.get(status) or _PROBLEMS[status]
        said.setdefault(dialect.status(status), []).append(told)
    content = {
        **_answered(route, dialect.problem),
        problems.CONTENT_TYPE: {"schema": ProblemSchema},
    }
    return {
        str(status): {"description": " ".join(told), "content": content}
        for status, told in sorted(said.items())
    }


def _problem(status: int, said: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "description": said,
        "content": {problems.CONTENT_TYPE: {"schema": ProblemSchema}},
    }
    if status in _PROBLEM_HEADERS:
        name, meaning = _PROBLEM_HEADERS[status]
        made["headers"] = {name: _header(meaning)}
    return made


def _page(page: Page) -> dict[str, Any]:
    summary, description = _said(page.handler)
    responses: dict[str, Any] = {"200": {"description": "OK", "content": {page.content_type: {}}}}
    if page.away:
        responses["503"] = "503"
    return {
        "operationId": page.handler.__name__.strip("_"),
        "tags": ["operations"],
        "summary": summary,
        "description": description or "Without a token.",
        "security": [],
        "responses": responses,
    }


def _header(meaning: str) -> dict[str, Any]:
    return {"description": meaning, "schema": {"type": "string"}}


def _said(handler: Any) -> tuple[str, str]:
    """The first line of a docstring without its full stop, and the rest."""
    summary, _, rest = prose(handler).partition("\n")
    return summary.removesuffix("."), rest.strip()


def _example(schema: Schema) -> Any:
    example = schema.example  # type: ignore[attr-defined]
    return [example] if schema.many else example
