"""HTTP for services: typed routes in, JSON out, and a problem document for whatever is wrong.

    class Service(Operations):
        name = "intake"

        @route("POST", "/v1/cases", body=ReportSchema(), may=("reporter", "operator"))
        def report(self, call: Call) -> Answer:
            ...
            return Answer({"id": case}, 201)

        @route("GET", "/v1/cases/<case>", may=("operator",))
        def show(self, call: Call, case: str) -> dict[str, Any]:
            ...

A handler gets what was checked already, and raises :class:`Problem`, ``problems.invalid``,
``Refused``, ``Retry`` or ``Reject`` for the rest. It runs in a worker of the service, the
operations (``/healthz``, ``/readyz``, ``/metrics``) do not: they answer when all are busy.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import eventlet
import prometheus_client
from eventlet import wsgi
from eventlet.event import Event
from marshmallow import Schema, ValidationError
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import DependencyProvider, Entrypoint
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from services.bus import auth, logs, metrics, problems
from services.bus.auth import ANONYMOUS, Identity
from services.bus.config import Config
from services.bus.errors import Retry
from services.bus.problems import Problem
from services.bus.web_server import BODY_LIMIT, CLOSE, SAFE_HEADERS, Listener
from services.grid import json
from services.grid.atlas import UnknownProfile
from services.grid.clock import monotonic

ANSWER_SECONDS = 20.0
BODY_SECONDS = 20.0
CHECK_SECONDS = 2.0
_WORKERS = 100
_NOTHING = Schema()

_IDEMPOTENCY_KEY = re.compile(r'"(?P<quoted>[!#-~]{1,200})"|(?P<bare>[!#-~]{1,200})')
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has passed every check of its route.

    ``body`` and ``query`` are what the route's schemas loaded, ``{}`` without a schema.
    ``identity`` is ``ANONYMOUS`` on a public route. ``idempotency_key`` and ``traceparent``
    are None if the caller sent none (or, for a trace, none that is valid).
    """

    body: dict[str, Any] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    identity: Identity = ANONYMOUS
    idempotency_key: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A handler's answer; a handler may also return just the body for a 200."""

    body: Mapping[str, Any]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


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
        body: Schema | None = None,
        query: Schema | None = None,
        may: Sequence[str] = (),
    ) -> None:
        # Else nameko logs each refused request as an error with a traceback.
        super().__init__(expected_exceptions=(Exception,))
        unknown = set(may) - set(auth.ROLES)
        if unknown:
            raise ValueError(f"{method} {path} names roles that don't exist: {unknown}")
        self.method = method
        self.path = path
        self.body = body
        self.query = query
        self.may = tuple(may)

    def rules(self) -> list[Rule]:
        """Its place in the URL map."""
        return [Rule(self.path, methods=[self.method], endpoint=self)]

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
        config = self.container.config
        call = Call(
            identity=_identity(request, self.may, config["CONFIG"].token_key, config["CLOCK"])
            if self.may
            else ANONYMOUS,
            query=_query(request, self.query),
            body=_body(request, self.body) if self.body is not None else {},
            idempotency_key=_idempotency_key(request),
            traceparent=_traceparent(request),
        )
        self.check_signature((call,), dict(parameters))
        done = Event()
        slow = problems.away("the answer takes too long")
        try:
            with eventlet.Timeout(ANSWER_SECONDS, slow):
                self.container.spawn_worker(
                    self, (call,), dict(parameters), handle_result=partial(_hand_over, done)
                )
                result = done.wait()
        except ContainerBeingKilled:
            raise problems.away("this service is stopping") from None
        answer = result if isinstance(result, Answer) else Answer(result)
        return _response(answer.body, answer.status, headers=answer.headers)


def route(
    method: str,
    path: str,
    *,
    body: Schema | None = None,
    query: Schema | None = None,
    may: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a method of a service answer ``method path``.

    :param path: a werkzeug rule; its variables become keyword arguments: ``/v1/cases/<case>``.
    :param body: loads the JSON object that is sent; an empty body counts as ``{}``.
    :param query: loads the query parameters; without it there must be none.
    :param may: the roles that may call it; without any it is public.
    """
    decorate: Callable[[Callable[..., Any]], Callable[..., Any]] = Route.decorator(
        method, path, body=body, query=query, may=may
    )
    return decorate


class _Operations(DependencyProvider):
    """Answers for the operator, in the connection's own thread."""

    server = Server()

    def setup(self) -> None:
        self.server.register_provider(self)

    def stop(self) -> None:
        self.server.unregister_provider(self)

    def rules(self) -> list[Rule]:
        pages = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics}
        return [Rule(path, methods=["GET"], endpoint=page) for path, page in pages.items()]

    def _healthz(self) -> Response:
        return _response({"status": "ok"})

    def _readyz(self) -> Response:
        checks = self.container.config["READINESS"].ask()
        away = [name for name, ready in checks.items() if not ready]
        if away:
            raise Problem(503, f"not ready: {', '.join(away)} is away", kind="away", checks=checks)
        return _response({"status": "ready", "checks": checks})

    def _metrics(self) -> Response:
        return Response(
            prometheus_client.generate_latest(),
            content_type=prometheus_client.CONTENT_TYPE_LATEST,
        )


class Operations:
    """What every service answers: ``/healthz`` the process, ``/readyz`` what it needs.

    ``/metrics`` has the metrics for Prometheus. None of the three asks for a token: they say
    nothing of any case, and are not routed to from outside.
    """

    operations = _Operations()


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
        template = "none"
        try:
            adapter = self._map.bind("", path_info=request.path)
            if request.method == "OPTIONS" and adapter.allowed_methods():
                allowed = ", ".join(sorted({*adapter.allowed_methods(), "OPTIONS"}))
                return template, Response(status=204, headers={"Allow": allowed})
            rule, parameters = adapter.match(method=request.method, return_rule=True)
            template = rule.rule
            if isinstance(rule.endpoint, Route):
                return template, rule.endpoint.answer(request, parameters)
            page: Callable[[], Response] = rule.endpoint
            return template, page()
        except HTTPException as error:
            return template, _problem(_of_werkzeug(error))
        except Exception as error:  # noqa: BLE001 - a surprise is logged, and answered with 500
            problem = problems.of_error(error)
            if problem is None:
                problem = _surprise(template)
            elif isinstance(error, Retry | UnknownProfile):
                _log.warning("put off a request", route=template, why=str(error))
            return template, _problem(problem)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _surprise(template: str) -> Problem:
    """A 500 that shows nothing of the inside; its ``instance`` finds the traceback in the log."""
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


def _hand_over(done: Event, _context: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
    if exc_info is None:
        done.send(result)
    else:
        done.send_exception(*exc_info)
    return result, exc_info


def _identity(request: Request, may: tuple[str, ...], key: str, clock: Any) -> Identity:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if not scheme:
        challenge = 'Bearer realm="huashi"'
        detail = "send a token: Authorization: Bearer <token>"
        raise Problem(401, detail, headers={"WWW-Authenticate": challenge})
    try:
        if scheme.lower() != "bearer":
            raise auth.InvalidToken("only bearer tokens are understood: Authorization: Bearer ...")
        identity = auth.verify(token.strip(), key, clock.real())
    except auth.InvalidToken as error:
        challenge = 'Bearer realm="huashi", error="invalid_token"'
        raise Problem(401, str(error), headers={"WWW-Authenticate": challenge}) from error
    if identity.role not in may:
        raise Problem(
            403,
            f"the role {identity.role} may not do this: it is for {', '.join(may)}",
            headers={"WWW-Authenticate": 'Bearer realm="huashi", error="insufficient_scope"'},
            role=identity.role,
            may=list(may),
        )
    return identity


def _query(request: Request, schema: Schema | None) -> dict[str, Any]:
    sent = request.args
    repeated = {
        name: "sent more than once: send it once" for name in sent if len(sent.getlist(name)) > 1
    }
    if repeated:
        raise problems.invalid(repeated)
    return _loaded(sent.to_dict(), schema or _NOTHING)


def _body(request: Request, schema: Schema) -> dict[str, Any]:
    if (request.content_length or 0) > BODY_LIMIT:
        raise _too_large(request)
    raw = _read(request)
    if not raw:
        return _loaded({}, schema)
    if not request.is_json:
        raise Problem(
            415,
            f"the body is {request.mimetype or 'of no type'}: send application/json",
            headers={"Accept-Post": "application/json"},
        )
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(415, "the body is compressed: send it as it is")
    try:
        value = json.loads(raw)
    except json.InvalidJson as error:
        raise Problem(400, f"the body can't be read: {error}", kind="not_json") from error
    if not isinstance(value, dict):
        raise problems.invalid({"body": "not a JSON object: send one, {...}"})
    return _loaded(value, schema)


def _read(request: Request) -> bytes:
    """The body up to its limit, within a limit of time."""
    slow = Problem(408, "the body came too slowly: send it again")
    try:
        with eventlet.Timeout(BODY_SECONDS, slow):
            raw: bytes = request.environ["wsgi.input"].read(BODY_LIMIT + 1)
    except (wsgi.ChunkReadError, OSError) as error:
        request.environ[CLOSE]()
        raise Problem(400, "the body broke off: send all of it") from error
    except Problem:
        request.environ[CLOSE]()
        raise
    if len(raw) > BODY_LIMIT:
        raise _too_large(request)
    if len(raw) < (request.content_length or 0):
        raise Problem(400, "the body is shorter than Content-Length: send all of it")
    return raw


def _too_large(request: Request) -> Problem:
    request.environ[CLOSE]()
    return Problem(413, f"the body is limited to {BODY_LIMIT} bytes: send less, or a link")


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


def nameko_config(config: Config) -> dict[str, Any]:
    """The configuration that nameko hands to every extension."""
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
        "READINESS": Readiness(),
        "BEHIND": [],
        "max_workers": _WORKERS,
    }
