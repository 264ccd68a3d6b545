"""HTTP for services: typed routes in, JSON out, and a problem document for whatever is wrong.

    class Service(Operations):
        name = "intake"

        @route("POST", "/v1/cases", body=ReportBody(), may=("reporter", "operator"),
               touches=Touches.ANYWHERE, answers=Opened(), status=201)
        def report(self, call: Call) -> dict[str, Any]:
            ...
            return {"id": case}

        @route("GET", "/v1/cases/<case>", may=("officer", "operator"), touches=Touches.CASES,
               answers=CaseShown())
        def show(self, call: Call, case: str) -> dict[str, Any]:
            call.guard.must_reach(atlas, address)
            ...

A handler gets what was checked already, and raises :class:`Problem`, ``problems.invalid``,
``Refused``, ``Retry`` or ``Reject`` for the rest. It runs in a worker of the service, the
operations (``/healthz``, ``/readyz``, ``/metrics``, ``/openapi.json``) do not: they answer when
all are busy.

What a route says of itself is also its documentation (:mod:`services.bus.openapi`).

Whatever changes something, or may have, and every refusal of it, is kept in the audit trail
before it is answered: :mod:`services.bus.audit`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import eventlet
import prometheus_client
from eventlet import wsgi
from eventlet.event import Event
from marshmallow import Schema, ValidationError
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import ENTRYPOINT_EXTENSIONS_ATTR, DependencyProvider, Entrypoint
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from services.bus import access, audit, auth, logs, metrics, openapi, problems
from services.bus.access import Guard, Touches
from services.bus.audit import Auditor, AuditPage, AuditQuery, Trail
from services.bus.auth import ANONYMOUS, Identity
from services.bus.config import Config
from services.bus.dialect import FORM, FORMAT, Dialect, key_of, loaded, pairs
from services.bus.errors import Retry
from services.bus.keys import PublishedKeys
from services.bus.openapi import Page
from services.bus.problems import Problem
from services.bus.web_server import BATCH_LIMIT, BODY_LIMIT, CLOSE, SAFE_HEADERS, Listener
from services.grid import json
from services.grid.atlas import UnknownProfile
from services.grid.clock import monotonic

ANSWER_SECONDS = 20.0
BODY_SECONDS = 20.0
CHECK_SECONDS = 2.0
_WORKERS = 100
_NOTHING = Schema()
_NO_PROBLEMS: Mapping[int, str] = MappingProxyType({})
_NO_CONTENT: Mapping[str, Schema] = MappingProxyType({})

_IDEMPOTENCY_KEY = re.compile(r'"(?P<quoted>[!#-~]{1,200})"|(?P<bare>[!#-~]{1,200})')
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has passed every check of its route.

    ``body`` and ``query`` are what the route's schemas loaded, ``{}`` without a schema.
    ``identity`` is ``ANONYMOUS`` on a public route. ``idempotency_key`` and ``traceparent``
    are None if the caller sent none (or, for a trace, none that is valid). ``if_match`` are the
    entity tags of which one must still be that of what is acted upon, None if any will do.
    ``guard`` says what the caller may reach, ``trail`` is told what was changed.
    """

    body: dict[str, Any] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    identity: Identity = ANONYMOUS
    idempotency_key: str | None = None
    traceparent: str | None = None
    if_match: frozenset[str] | None = None
    guard: Guard = field(default_factory=Guard)
    trail: Trail = field(default_factory=Trail)
    sent: Sent | None = None
    """What was sent, of a route that reads it itself (``content``)."""
    base: str = ""
    """The scheme and host under which the caller knows this service, of a route with a dialect."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A body as it came: its media type in lower case, and the request's header fields."""

    media_type: str
    fields: Sequence[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A handler's answer, for one with headers; without them it may return just the body.

    ``pending``: what was asked for is not answered yet (202; the route says that it ``waits``).
    """

    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    pending: bool = field(default=False, kw_only=True)


class Readiness:
    """What must be there before a service takes part; ``/readyz`` asks it.

    Shared in the container's config as ``READINESS``; extensions register in ``setup``.
    """

    def __init__(self) -> None:
        self._checks: dict[str, Callable[[], bool | None]] = {}
        self._running: dict[str, Event] = {}

    def register(self, name: str, check: Callable[[], bool | None]) -> None:
        """``check`` returns False or raises :class:`Retry` while ``name`` is away."""
        self._checks[name] = check

    def ask(self) -> dict[str, bool]:
        """Every check at once, each within two seconds; one that hangs is not asked twice."""
        for name in self._checks:
            if name not in self._running:
                self._running[name] = Event()
                eventlet.spawn_n(self._ask, name, self._running[name])
        asked = dict(self._running)
        with eventlet.Timeout(CHECK_SECONDS, False):
            for event in asked.values():
                event.wait()
        return {name: event.ready() and event.wait() for name, event in asked.items()}

    def _ask(self, name: str, event: Event) -> None:
        ready = False
        try:
            ready = self._checks[name]() is not False
        except Retry as error:
            _log.info("not ready", check=name, why=str(error))
        except Exception:  # noqa: BLE001 - a broken check is logged, and not ready
            _log.exception("a readiness check failed", check=name)
        finally:
            self._running.pop(name, None)
            event.send(ready)


class Server(Listener):
    """The listener of a service with its routes as the application."""

    def application(self) -> _Application:
        """See :class:`Listener`."""
        return _Application(self._providers, self.container.config)


class Route(Entrypoint):
    """The nameko entrypoint behind :func:`route`."""

    server = Server()

    def __init__(
        self,
        method: str,
        path: str,
        *,
        answers: Schema,
        status: int = 200,
        body: Schema | None = None,
        query: Schema | None = None,
        may: Sequence[str] = (),
        touches: Touches | None = None,
        audited: bool | None = None,
        problems: Mapping[int, str] = _NO_PROBLEMS,
        repeatable: bool = False,
        tagged: bool = False,
        waits: bool = False,
        cache_seconds: int = 0,
        content: Mapping[str, Schema] = _NO_CONTENT,
        by_key: bool = False,
        dialect: Dialect | None = None,
        knows: Sequence[str] = (),
    ) -> None:
        # Else nameko logs each refused request as an error with a traceback.
        super().__init__(expected_exceptions=(Exception,))
        unknown = {*may, *knows} - set(auth.ROLES)
        if unknown:
            raise ValueError(f"{method} {path} names roles that don't exist: {unknown}")
        if (touches is None) == bool(may):
            raise ValueError(
                f"{method} {path}: say who may call it and what it touches, or neither"
            )
        if method != "GET" and "auditor" in may:
            raise ValueError(f"{method} {path}: an auditor reads, and changes nothing")
        for schema in (body, query, *content.values()):
            if schema is not None and not isinstance(getattr(schema, "example", None), dict):
                kind = type(schema).__name__
                raise TypeError(f"{method} {path}: write example = {{...}}, sound data, in {kind}")
        self.method = method
        self.path = path
        self.answers = answers
        self.status = status
        self.body = body
        self.query = query
        self.may = tuple(may)
        self.touches = touches
        self.audited = method != "GET" if audited is None else audited
        self.problems = problems
        self.repeatable = repeatable
        self.tagged = tagged
        self.waits = waits
        self.cache_seconds = cache_seconds
        self.content = content
        self.by_key = by_key
        self.dialect = dialect
        self.knows = tuple(knows)

    def rules(self) -> list[Rule]:
        """Its place in the URL map."""
        path = self.path
        if self.dialect is not None:
            formats = ",".join(self.dialect.media_types)
            path = path.replace(f"<{FORMAT}>", f"<any({formats}):{FORMAT}>")
        return [Rule(path, methods=[self.method], endpoint=self)]

    def setup(self) -> None:
        """See nameko's ``Extension``."""
        self.server.register_provider(self)

    def stop(self) -> None:
        """No new connections; requests that arrived are still answered."""
        self.server.drain()
        self.server.unregister_provider(self)

    def answer(self, request: Request, parameters: Mapping[str, Any]) -> Response:
        """Checks the request, runs the handler in a worker and waits for it.

        :raises Problem: whatever is wrong with the request, or too slow a handler.
        """
        if self.server.draining:
            raise problems.away("this service is stopping")
        config, spoken = self.container.config, parameters.get(FORMAT, "")
        parameters = {name: value for name, value in parameters.items() if name != FORMAT}
        asked = _asked(self, request, parameters, config["CONFIG"])
        sent = _fields(request, form=self.body is not None) if self.dialect is not None else {}
        key = key_of(sent, self.dialect) if self.dialect is not None else None
        identity = self._admitted(request, asked, key)
        call = Call(
            identity=identity,
            query=self._query(request, sent),
            body=self._body(request, sent),
            idempotency_key=_idempotency_key(request),
            traceparent=asked.traceparent,
            if_match=_if_match(request),
            guard=Guard(identity),
            sent=_sent(request, self.content) if self.content else None,
            base=_base(request) if self.dialect is not None else "",
        )
        self.check_signature((call,), dict(parameters))
        done = Event()
        slow = problems.away("the answer takes too long")
        try:
            with eventlet.Timeout(ANSWER_SECONDS, slow):
                self.container.spawn_worker(
                    self,
                    (call,),
                    dict(parameters),
                    handle_result=partial(self._hand_over, done, asked, call),
                )
                result = done.wait()
        except ContainerBeingKilled:
            raise problems.away("this service is stopping") from None
        answer = result if isinstance(result, Answer) else Answer(result)
        if self.dialect is not None:
            return self._spoken(answer.body, self.status, spoken, answer.headers)
        response = _response(answer.body, self.status_of(answer), headers=answer.headers)
        if not self.cache_seconds:
            return response
        response.headers["Cache-Control"] = f"public, max-age={self.cache_seconds}"
        # Who has it already (If-None-Match) gets a 304 without the body.
        return response.make_conditional(request)

    def status_of(self, result: Any) -> int:
        """The status of what the handler returned."""
        return 202 if isinstance(result, Answer) and result.pending else self.status

    def problem(self, problem: Problem, parameters: Mapping[str, Any]) -> Response:
        """The answer that says what is wrong, in the route's dialect if it has one."""
        if self.dialect is None:
            return _problem(problem)
        body, status = self.dialect.errors(problem), self.dialect.status(problem.status.value)
        return self._spoken(body, status, parameters[FORMAT], problem.headers)

    def _spoken(self, body: Any, status: int, spoken: str, headers: Mapping[str, str]) -> Response:
        assert self.dialect is not None  # noqa: S101 - who asks has looked
        return Response(
            self.dialect.write(body, spoken),
            status=status,
            headers=headers,
            content_type=self.dialect.media_types[spoken],
        )

    def _query(self, request: Request, sent: dict[str, list[str]]) -> dict[str, Any]:
        if self.dialect is None:
            return _query(request, self.query)
        return {} if self.body is not None else loaded(sent, self.query or _NOTHING)

    def _body(self, request: Request, sent: dict[str, list[str]]) -> dict[str, Any]:
        if self.body is None:
            return {}
        return _body(request, self.body) if self.dialect is None else loaded(sent, self.body)

    def _admitted(self, request: Request, asked: audit.Request, key: str | None) -> Identity:
        """Who calls, if their token is believed, their role may, and it reaches the county.

        :param key: an API key that was sent in a field.
        :raises Problem: a 401, a 403, or a 503 if no token can be judged now.
        """
        config, identity, may = self.container.config, ANONYMOUS, self.may or self.knows
        if not may or (not self.may and key is None and "Authorization" not in request.headers):
            return ANONYMOUS
        try:
            keys = config.get("API_KEYS")
            if self.dialect is not None and key is None and "Authorization" not in request.headers:
                name = self.dialect.key
                raise Problem(401, f"{name} is missing: send it (huashi system add makes one)")
            identity = _identity(
                request, config["TOKENS"], config["CLOCK"], keys, by_key=self.by_key, key=key
            )
            if identity.role not in may:
                rule = f"this is for the role {' or '.join(may)}"
                raise access.forbidden(identity, rule, may=list(may))
            if self.touches is Touches.COUNTY:
                Guard(identity).must_be_of_the_county()
        except Problem as problem:
            if self.audited and problem.status in _REFUSALS:
                status = problem.status.value
                self._auditor().refused(asked, identity, status, problem.detail, Trail())
            raise
        return identity

    def _hand_over(
        self, done: Event, asked: audit.Request, call: Call, _context: Any, result: Any, failed: Any
    ) -> tuple[Any, Any]:
        """Gives the answer to who waits for it; before that it is kept in the audit trail.

        In the worker, for it may end when nobody waits for it any more.
        """
        error = failed[1] if failed else None
        if error is None and self.touches is Touches.CASES and not call.guard.asked:
            error = RuntimeError(f"{self.method} {self.path} did not ask how far the token reaches")
        if self.audited:
            try:
                self._keep(asked, call, result, error)
            except Exception as other:  # noqa: BLE001 - it is answered, not hidden
                error = other
        if error is None:
            done.send(result)
        else:
            done.send_exception(error)
        return result, failed

    def _keep(self, asked: audit.Request, call: Call, result: Any, error: Exception | None) -> None:
        if error is None:
            status = self.status_of(result)
            self._auditor().done(asked, call.identity, call.trail, status)
            return
        problem = problems.of_error(error)
        status = problem.status.value if problem else 500
        done = call.trail.uncertain or call.trail.changes
        if problem is None or status in _REFUSALS or done:
            why = problem.detail if problem else "it failed: see the log"
            self._auditor().refused(asked, call.identity, status, why, call.trail)

    def _auditor(self) -> Auditor:
        auditor: Auditor = self.container.config["AUDITOR"]
        return auditor


def route(
    method: str,
    path: str,
    *,
    answers: Schema,
    status: int = 200,
    body: Schema | None = None,
    query: Schema | None = None,
    may: Sequence[str] = (),
    touches: Touches | None = None,
    audited: bool | None = None,
    problems: Mapping[int, str] = _NO_PROBLEMS,
    repeatable: bool = False,
    tagged: bool = False,
    waits: bool = False,
    cache_seconds: int = 0,
    content: Mapping[str, Schema] = _NO_CONTENT,
    by_key: bool = False,
    dialect: Dialect | None = None,
    knows: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a method of a service answer ``method path``.

    The first line of the method's docstring becomes the summary.

    :param path: a werkzeug rule; its variables become keyword arguments: ``/v1/cases/<case>``.
    :param answers: what a good answer looks like (``openapi.Shown``), for the documents and tests.
    :param status: that of a good answer.
    :param body: loads the JSON object that is sent; an empty body counts as ``{}``. Its class
        has an ``example``.
    :param query: loads the query parameters; without it there must be none. The same.
    :param may: the roles that may call it; without any it is public.
    :param touches: how far the caller's token must reach; not for a public one.
    :param audited: whether it is kept in the audit trail; by default unless it only reads.
    :param problems: what it may answer besides what every route may: status and when.
    :param repeatable: whether its handler heeds ``Idempotency-Key``.
    :param tagged: whether good answers have an ``ETag``, and its handler heeds ``If-Match``.
    :param waits: whether it may answer that what is asked for is not answered yet: with a 202.
    :param cache_seconds: for so long anybody may keep the answer, which has an ``ETag``.
    :param content: instead of ``body``: the media types that the handler reads itself
        (``Call.sent``), each with the schema of what it looks like, which has an ``example``.
    :param by_key: whether the API key of a system will do in place of a token.
    :param dialect: the way of another API in which it asks and answers.
    :param knows: of a public route with a dialect, the roles to which it shows their own.
    """
    decorate: Callable[[Callable[..., Any]], Callable[..., Any]] = Route.decorator(
        method,
        path,
        answers=answers,
        status=status,
        body=body,
        query=query,
        may=may,
        touches=touches,
        audited=audited,
        problems=problems,
        repeatable=repeatable,
        tagged=tagged,
        waits=waits,
        cache_seconds=cache_seconds,
        content=content,
        by_key=by_key,
        dialect=dialect,
        knows=knows,
    )
    return decorate


def routes(service: type) -> list[tuple[Route, Callable[..., Any]]]:
    """The routes of a service class, each with its handler, in their order."""
    methods: dict[str, Any] = {}
    for kind in service.__mro__:
        methods |= {name: each for name, each in vars(kind).items() if name not in methods}
    return [
        (entrypoint, method)
        for method in methods.values()
        for entrypoint in getattr(method, ENTRYPOINT_EXTENSIONS_ATTR, ())
        if isinstance(entrypoint, Route)
    ]


def document(service: Any) -> dict[str, Any]:
    """The OpenAPI document of a service class."""
    return openapi.document(service.name, routes(service), _Operations().pages())


class _Operations(DependencyProvider):
    """Answers for the operator, in the connection's own thread."""

    server = Server()

    def setup(self) -> None:
        # Once: it does not change, and no request waits for it.
        self._document = json.dumps(document(self.container.service_cls))
        self.server.register_provider(self)

    def stop(self) -> None:
        self.server.unregister_provider(self)

    def pages(self) -> list[Page]:
        """What every service answers."""
        return [
            Page("/healthz", self._healthz, "application/json"),
            Page("/readyz", self._readyz, "application/json", away=True),
            Page("/metrics", self._metrics, "text/plain"),
            Page("/openapi.json", self._openapi, "application/json"),
        ]

    def rules(self) -> list[Rule]:
        return [Rule(page.path, methods=["GET"], endpoint=page.handler) for page in self.pages()]

    def _healthz(self) -> Response:
        """The process lives; not routed to from outside."""
        return _response({"status": "ok"})

    def _readyz(self) -> Response:
        """Whether all that it needs is there; not routed to from outside."""
        checks = self.container.config["READINESS"].ask()
        away = [name for name, ready in checks.items() if not ready]
        if away:
            raise Problem(503, f"not ready: {', '.join(away)} is away", kind="away", checks=checks)
        return _response({"status": "ready", "checks": checks})

    def _metrics(self) -> Response:
        """For Prometheus; not routed to from outside."""
        return Response(
            prometheus_client.generate_latest(),
            content_type=prometheus_client.CONTENT_TYPE_LATEST,
        )

    def _openapi(self) -> Response:
        """The service's description (OpenAPI 3.1)."""
        return Response(self._document, content_type="application/json")


class _Audited(DependencyProvider):
    """Gives the workers their service's auditor."""

    def get_dependency(self, worker_ctx: Any) -> Auditor:
        auditor: Auditor = self.container.config["AUDITOR"]
        return auditor


class Operations:
    """What every service answers: ``/healthz`` the process, ``/readyz`` what it needs.

    ``/metrics`` has the metrics for Prometheus, ``/openapi.json`` the service's description. None
    asks for a token: they say nothing of any case. The first three are not routed to from outside.
    ``/v1/audit`` is the service's trail.
    """

    operations = _Operations()
    auditor = _Audited()

    @route(
        "GET",
        "/v1/audit",
        query=AuditQuery(),
        may=("operator", "auditor"),
        touches=Touches.COUNTY,
        answers=AuditPage(),
    )
    def audit(self, call: Call) -> dict[str, Any]:
        """The audit trail, the latest first."""
        filters = dict(call.query)
        cursor, limit = filters.pop("cursor"), filters.pop("limit")
        entries, following = self.auditor.page(filters, cursor, limit)
        return {"entries": [audit.shown(entry) for entry in entries], "next": following}


class _Application:
    """The WSGI application: finds the route, and turns every exception into a problem."""

    def __init__(self, providers: Any, config: Mapping[str, Any]) -> None:
        self._config = config
        # No redirects: a path is right or it is not there.
        self._map = Map(strict_slashes=True, merge_slashes=False, redirect_defaults=False)
        for provider in providers:
            for rule in provider.rules():
                self._map.add(rule)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        started = monotonic()
        request = Request(environ)
        template, response = self._answer(request)
        for name, value in SAFE_HEADERS.items():
            response.headers.setdefault(name, value)
        seconds = monotonic() - started
        method = request.method if request.method in _METHODS else "other"
        metrics.HTTP_REQUESTS.labels(method, template, str(response.status_code)).inc()
        metrics.HTTP_SECONDS.labels(method, template).observe(seconds)
        _log.debug(
            "answered",
            method=method,
            route=template,
            status=response.status_code,
            seconds=round(seconds, 4),
        )
        return response(environ, start_response)

    def _answer(self, request: Request) -> tuple[str, Response]:
        template, say = "none", _problem
        try:
            adapter = self._map.bind("", path_info=request.path)
            if request.method == "OPTIONS" and adapter.allowed_methods():
                allowed = ", ".join(sorted({*adapter.allowed_methods(), "OPTIONS"}))
                return template, Response(status=204, headers={"Allow": allowed})
            rule, parameters = adapter.match(method=request.method, return_rule=True)
            template = rule.rule
            if isinstance(rule.endpoint, Route):
                template = rule.endpoint.path
                say = partial(rule.endpoint.problem, parameters=parameters)
                return template, rule.endpoint.answer(request, parameters)
            page: Callable[[], Response] = rule.endpoint
            return template, page()
        except HTTPException as error:
            return template, say(_of_werkzeug(error))
        except Exception as error:  # noqa: BLE001 - a surprise is logged, and answered with 500
            problem = problems.of_error(error)
            if problem is None:
                problem = surprise(template)
            elif isinstance(error, Retry | UnknownProfile):
                _log.warning("put off a request", route=template, why=str(error))
            return template, say(problem)


_REFUSALS = (401, 403)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def surprise(template: str) -> Problem:
    """A 500 that shows nothing of the inside; its ``instance`` finds the traceback in the log.

    To be called where the exception is handled.
    """
    instance = f"urn:uuid:{uuid.uuid4()}"
    _log.exception("a request failed", route=template, instance=instance)
    detail = "this should not have happened: tell the operator the instance"
    return Problem(500, detail, instance=instance)


def _of_werkzeug(error: HTTPException) -> Problem:
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted({*(error.valid_methods or ()), "OPTIONS"}))
        detail = f"this path answers to {allowed}"
        return Problem(405, detail, headers={"Allow": allowed})
    if error.code == 404:
        return Problem(404, "there is nothing at this path")
    return Problem(error.code or 500, "this is not a request that can be answered")


def _problem(problem: Problem) -> Response:
    return _response(
        problem.document(),
        problem.status.value,
        content_type=problems.CONTENT_TYPE,
        headers=problem.headers,
    )


def _response(
    body: Mapping[str, Any],
    status: int = 200,
    *,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    return Response(json.dumps(body), status=status, headers=headers, content_type=content_type)


def _asked(
    asked: Route, request: Request, parameters: Mapping[str, Any], config: Config
) -> audit.Request:
    forwarded = request.headers.get("X-Forwarded-For", "")
    key = _IDEMPOTENCY_KEY.fullmatch(request.headers.get("Idempotency-Key", "").strip())
    return audit.Request(
        method=asked.method,
        route=asked.path,
        target=parameters,
        address=audit.sender(request.remote_addr or "", forwarded, config.trusted_proxies),
        idempotency_key=key and (key["quoted"] or key["bare"]),
        traceparent=_traceparent(request),
    )


def _identity(
    request: Request,
    tokens: auth.Tokens,
    clock: Any,
    keys: auth.ApiKeys | None,
    *,
    by_key: bool,
    key: str | None = None,
) -> Identity:
    sent = request.headers.get("Authorization", "") if key is None else f"Bearer {key}"
    scheme, _, token = sent.partition(" ")
    if not scheme:
        challenge = 'Bearer realm="huashi"'
        detail = "send a token: Authorization: Bearer <token>"
        raise Problem(401, detail, headers={"WWW-Authenticate": challenge})
    try:
        if scheme.lower() != "bearer":
            raise auth.InvalidToken("only bearer tokens are understood: Authorization: Bearer ...")
        token = token.strip()
        if key is None and not token.startswith(auth.API_KEY):
            return tokens.verify(token, clock.real())
        if keys is None or not by_key:
            raise auth.InvalidToken(
                "an API key opens intake's /v1/events and shows the system's own cases: "
                "here a token is needed"
            )
        return keys.identity(token)
    except auth.InvalidToken as error:
        challenge = 'Bearer realm="huashi", error="invalid_token"'
        raise Problem(401, str(error), headers={"WWW-Authenticate": challenge}) from error
    except Retry as error:
        raise problems.away(str(error)) from error


def _query(request: Request, schema: Schema | None) -> dict[str, Any]:
    sent = request.args
    repeated = {
        name: "sent more than once: send it once" for name in sent if len(sent.getlist(name)) > 1
    }
    if repeated:
        raise problems.invalid(repeated)
    return _loaded(sent.to_dict(), schema or _NOTHING)


def _fields(request: Request, *, form: bool) -> dict[str, list[str]]:
    """What was sent in the query and, if there is one, in a form; of a field the form's counts."""
    found = pairs(request.query_string)
    if form:
        if request.mimetype != FORM:
            raise Problem(
                415,
                f"the body is {request.mimetype or 'of no type'}: send {FORM}",
                headers={"Accept-Post": FORM},
            )
        _in_utf8(request)
        _not_compressed(request)
        found |= pairs(_read(request, BODY_LIMIT))
    return found


def _base(request: Request) -> str:
    """The scheme and host that the caller used; a proxy says how it was asked."""
    if not request.host:
        raise Problem(400, "Host is malformed: write a name, or a name:port")
    scheme = request.headers.get("X-Forwarded-Proto", request.scheme)
    return f"{scheme if scheme in ('http', 'https') else request.scheme}://{request.host}"


def _sent(request: Request, content: Mapping[str, Schema]) -> Sent:
    """A body that its handler reads."""
    media_type = request.mimetype
    if media_type not in content:
        raise Problem(
            415,
            f"the body is {media_type or 'of no type'}: send {', '.join(content)}",
            headers={"Accept-Post": ", ".join(content)},
        )
    _in_utf8(request)
    _not_compressed(request)
    return Sent(media_type, list(request.headers.items()), _read(request, BATCH_LIMIT))


def _in_utf8(request: Request) -> None:
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise Problem(415, f"the body is in {charset!r}: send UTF-8")


def _not_compressed(request: Request) -> None:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(415, "the body is compressed: send it as it is")


def _body(request: Request, schema: Schema) -> dict[str, Any]:
    raw = _read(request, BODY_LIMIT)
    if not raw:
        return _loaded({}, schema)
    if not request.is_json:
        raise Problem(
            415,
            f"the body is {request.mimetype or 'of no type'}: send application/json",
            headers={"Accept-Post": "application/json"},
        )
    _not_compressed(request)
    try:
        value = json.loads(raw)
    except json.InvalidJson as error:
        raise Problem(400, f"the body can't be read: {error}", kind="not_json") from error
    if not isinstance(value, dict):
        raise problems.invalid({"body": "not a JSON object: send one, {...}"})
    return _loaded(value, schema)


def _read(request: Request, limit: int) -> bytes:
    """The body up to its limit, within a limit of time."""
    if (request.content_length or 0) > limit:
        raise _too_large(request, limit)
    slow = Problem(408, "the body came too slowly: send it again")
    try:
        with eventlet.Timeout(BODY_SECONDS, slow):
            raw: bytes = request.environ["wsgi.input"].read(limit + 1)
    except (wsgi.ChunkReadError, OSError) as error:
        request.environ[CLOSE]()
        raise Problem(400, "the body broke off: send all of it") from error
    except Problem:
        request.environ[CLOSE]()
        raise
    if len(raw) > limit:
        raise _too_large(request, limit)
    if len(raw) < (request.content_length or 0):
        raise Problem(400, "the body is shorter than Content-Length: send all of it")
    return raw


def _too_large(request: Request, limit: int) -> Problem:
    request.environ[CLOSE]()
    return Problem(413, f"the body is limited to {limit} bytes: send less, or a link")


def _loaded(value: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = schema.load(value)
    except ValidationError as error:
        raise problems.of_validation(error, schema) from error
    return loaded


def _idempotency_key(request: Request) -> str | None:
    """Its text, with or without the quotes of a structured field."""
    text = request.headers.get("Idempotency-Key")
    if text is None:
        return None
    match = _IDEMPOTENCY_KEY.fullmatch(text.strip())
    if match is None:
        detail = "Idempotency-Key must be 1 to 200 visible ASCII characters, such as a UUID"
        raise Problem(400, detail, kind="idempotency_key")
    return match["quoted"] or match["bare"]


def _traceparent(request: Request) -> str | None:
    """A W3C trace context; an invalid one is ignored, as the recommendation says."""
    text = request.headers.get("traceparent", "")
    return text if _TRACEPARENT.fullmatch(text) else None


def _if_match(request: Request) -> frozenset[str] | None:
    """The strong tags, with their quotes: a weak one never matches."""
    sent = request.if_match
    if "If-Match" not in request.headers or sent.star_tag:
        return None
    return frozenset(f'"{tag}"' for tag in sent.as_set())


def nameko_config(config: Config) -> dict[str, Any]:
    """The configuration that nameko hands to every extension.

    ``AUDITOR`` is what a service's shell adds.
    """
    readiness, keys = Readiness(), None
    if config.jwks_url:
        keys = PublishedKeys(config.jwks_url)
        readiness.register("identity provider", keys.ready)
    return {
        "AMQP_URI": config.amqp_uri,
        "WEB_SERVER_ADDRESS": f"{config.http_host}:{config.http_port}",
        "BATCH_SIZE": config.batch_size,
        "BATCH_LINGER": config.batch_linger,
        "SERVICE": config.service,
        "LEVEL": config.level,
        "INSTANCE": config.instance,
        "CONFIG": config,
        "CLOCK": config.clock,
        "READINESS": readiness,
        "TOKENS": auth.Tokens(config.token_key, keys, config.token_issuer, config.token_audience),
        "BEHIND": [],
        "max_workers": _WORKERS,
    }
