"""A tiny service for the tests of the web side, run as a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

# First: it patches the standard library.
from services.bus import run

# isort: split
import eventlet
from marshmallow import Schema, fields, validate
from nameko.extensions import DependencyProvider

from services.bus import keys, logs, web, web_server
from services.bus.access import Touches
from services.bus.audit import Auditor
from services.bus.auth import Identity
from services.bus.config import Config
from services.bus.errors import DatabaseAway, Refused, Reject
from services.bus.openapi import Shown
from services.bus.problems import Problem
from services.bus.web import Answer, Call, Operations, route
from services.grid.atlas import Atlas
from services.grid.directory import Directory, Division
from services.grid.tokens import Address

ATLAS = Atlas(
    Directory(
        [
            Division("469002104214", "沙美村委会", "village", None, "village"),
            Division("469002104205", "朝烈村委会", "village", None, "village"),
        ]
    ),
    {},
    [],
)


class Kept:
    """An audit trail in memory; while the file named by AWAY_FILE is there, it is away."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def append(self, entry: Any) -> None:
        """See :class:`services.bus.audit.Keeper`."""
        if Path(os.environ.get("AWAY_FILE", "/nowhere")).exists():
            raise DatabaseAway("MongoDB: secret-host:27017")
        self.entries.append(dict(entry))

    def page(self, filters: Any, cursor: Any, limit: int) -> tuple[list[dict[str, Any]], None]:
        """See :class:`services.bus.audit.Keeper`."""
        return list(reversed(self.entries))[:limit], None


class ReporterSchema(Schema):
    """Part of a body, to see how nested fields are named."""

    name = fields.String(validate=validate.Length(1, 40))
    phone = fields.String(validate=validate.Length(1, 20))


class ReportSchema(Schema):
    """A body."""

    example: ClassVar[dict[str, Any]] = {"title": "路灯不亮"}

    title = fields.String(required=True, validate=validate.Length(1, 200))
    reporter = fields.Nested(ReporterSchema)
    tags = fields.List(fields.String(validate=validate.Length(1, 5)))


class PageSchema(Schema):
    """Query parameters."""

    example: ClassVar[dict[str, Any]] = {"limit": 10}

    limit = fields.Integer(load_default=50, validate=validate.Range(1, 100))


class Echo(Shown):
    """Whatever it is."""


class Waits(DependencyProvider):  # type: ignore[misc]
    """Something that a service waits for; the file named by READY_FILE says what it says."""

    def setup(self) -> None:
        """See nameko's ``Extension``."""
        path = Path(os.environ.get("READY_FILE", os.devnull))

        def check() -> bool | None:
            said = path.read_text()
            if said == "hangs":
                eventlet.sleep(3600)
            if said == "raises":
                raise DatabaseAway("secret-host")
            return said != "no"

        self.container.config["AUDITOR"] = Auditor(Kept(), self.container.config["CLOCK"])
        readiness = self.container.config["READINESS"]
        readiness.register("thing", check)
        readiness.register("another", lambda: True)


class Service(Operations):
    """Answers what it was asked, or fails in a chosen way."""

    name = "tiny"
    waits = Waits()

    @route(
        "POST",
        "/v1/things",
        body=ReportSchema(),
        may=("reporter", "operator"),
        touches=Touches.ANYWHERE,
        answers=Echo(),
        status=201,
    )
    def make(self, call: Call) -> Answer:
        """Echoes what passed the checks."""
        call.trail.about("case-1", thing="made")
        echo = {"body": call.body, "key": call.idempotency_key, "trace": call.traceparent}
        said = {**echo, "by": call.identity.subject}
        return Answer(said, headers={"Location": "/v1/things/1"})

    @route(
        "GET",
        "/v1/things",
        query=PageSchema(),
        may=("operator",),
        touches=Touches.COUNTY,
        answers=Echo(),
    )
    def page(self, call: Call) -> dict[str, Any]:
        """Echoes the query."""
        return dict(call.query)

    @route(
        "POST", "/v1/places/<code>", may=("officer", "lead"), touches=Touches.CASES, answers=Echo()
    )
    def place(self, call: Call, code: str) -> dict[str, Any]:
        """Asks the guard."""
        call.guard.must_reach(ATLAS, Address("group", code))
        return {"code": code}

    @route("GET", "/v1/forgetful", may=("operator",), touches=Touches.CASES, answers=Echo())
    def forgetful(self, call: Call) -> dict[str, Any]:
        """Forgets to ask the guard."""
        return {"secret": "of another village"}

    @route("GET", "/v1/tracking/<code>", answers=Echo())
    def tracking(self, call: Call, code: str) -> dict[str, Any]:
        """Public."""
        return {"code": code, "anonymous": call.identity == Identity("", "anonymous")}

    @route("POST", "/v1/fail/<code>", answers=Echo())
    def fail(self, call: Call, code: str) -> dict[str, Any]:
        """Raises what ``code`` names."""
        if code == "never":
            eventlet.sleep(3600)
        if code == "late":
            logs.get("tiny").info("a late answer begins")
            eventlet.sleep(0.5)
            return {"late": True}
        if code == "half":
            state = {"token": {"round": 1}, "address": {"level": "village"}}
            call.trail.changed(None, {"case": "case-1", "state": state})
            raise Refused("nobody is followed any more")
        raise {
            "refused": Refused("another desk holds it", held_by={"level": "village"}, status=1),
            "away": DatabaseAway("MongoDB: secret-host:27017"),
            "reject": Reject("unstorable", "this can't be kept"),
            "missing": Problem(404, "no such case"),
        }.get(code, RuntimeError("inside: secret"))


if __name__ == "__main__":
    config = Config.from_environment("escalation", os.environ)
    logs.configure(config.log_level, service="tiny")
    if "SHORT_LIMITS" in os.environ:
        web_server.IDLE_SECONDS = web_server.HEAD_SECONDS = 1.0
        web.BODY_SECONDS = web.ANSWER_SECONDS = web.CHECK_SECONDS = 1.0
    if "QUICK_KEYS" in os.environ:
        keys.COOLDOWN_SECONDS = 2.0
        keys.WAIT_SECONDS = 1.0
    sys.exit(run.serve(Service, config))
