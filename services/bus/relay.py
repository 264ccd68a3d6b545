"""Carries an act from the desk where it is done to the service that decides it, and back.

    # at the desk
    return relay.ask(rpc, desk_acts.SUPERVISE, call, case)

    # in the service
    @serve
    def supervise(self, asked: dict[str, Any], desk: str) -> dict[str, Any]:
        return relay.answer(desk_acts.SUPERVISE, asked, desk, partial(api.supervise, self.shell))

The desk has checked the token; who calls is all that it is believed, and only of cases at its level
or below it, which the broker vouches for. The service checks the rest once more, holds the
caller's scope against the case and decides, as for a request of its own.
What it answers, or what is wrong, the desk says to the caller word for word; it keeps the audit
trail, for it knows from where the request came, which is no matter of the bus.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from services.bus import logs, problems
from services.bus.access import Guard
from services.bus.audit import Trail
from services.bus.auth import identity_of
from services.bus.desk_acts import OFFICERS, DeskAct
from services.bus.errors import Retry
from services.bus.problems import Problem
from services.bus.rpc import Caller, NoAnswer
from services.bus.web import Answer, Call, surprise
from services.grid.atlas import UnknownProfile
from services.grid.events.parts import CASE

_log = logs.get(__name__)


class _Question(Schema):
    """What a desk asks; ``identity`` is what a token would claim."""

    case = fields.String(required=True, validate=CASE)
    body = fields.Dict(required=True)
    identity = fields.Dict(required=True)
    if_match = fields.List(fields.String(), required=True, allow_none=True)
    idempotency_key = fields.String(
        required=True, allow_none=True, validate=validate.Length(1, 200)
    )


def ask(rpc: Caller, act: DeskAct, call: Call, case: str) -> Answer:
    """Has an act decided that somebody does at this desk to a case.

    :raises Problem: the service says what is wrong with it, or does not answer; then it may have
        been done: all acts can be sent again safely.
    """
    try:
        CASE(case)
    except ValidationError:
        # Whatever else was written there, a phone number for one, is no matter of the bus.
        raise Problem(404, f"there is no case {case}") from None
    question = {
        "case": case,
        "body": act.body.dump(call.body),
        "identity": call.identity.claims(),
        "if_match": None if call.if_match is None else sorted(call.if_match),
        "idempotency_key": call.idempotency_key,
    }
    try:
        said, _behind = rpc.call(act.service, act.name, question, seconds=act.seconds)
    except NoAnswer as error:
        _log.warning("an act was not answered", act=act.name, why=str(error))
        call.trail.uncertain = True
        raise problems.away(f"{act.service} does not answer") from error
    # The service has asked its own, or the answer would be a problem.
    call.guard.asked = True
    call.trail.take(said["trail"])
    if "problem" in said:
        problem = _as_raised(said["problem"])
        call.trail.uncertain = problem.status == HTTPStatus.INTERNAL_SERVER_ERROR
        raise problem
    return Answer(said["body"], headers=said["headers"], pending=said["pending"])


def answer(
    act: DeskAct, asked: dict[str, Any], desk: str, decide: Callable[[Call, str], Answer]
) -> dict[str, Any]:
    """What the service says to an act: its answer or the problem, and what it did.

    :param desk: the level of the desk that asks, as the broker vouches for.
    :param decide: a handler, which gets the call and the case.
    """
    trail = Trail()
    try:
        call, case = _read(act, asked, desk, trail)
        done = decide(call, case)
        if not call.guard.asked:
            raise RuntimeError(f"{decide} did not ask how far the token reaches")
    except Exception as error:  # noqa: BLE001 - a surprise is logged, and answered with 500
        problem = problems.of_error(error)
        if problem is None:
            problem = surprise("an act of a desk")
        elif isinstance(error, Retry | UnknownProfile):
            _log.warning("put off an act of a desk", why=str(error))
        return {"problem": _as_sent(problem), "trail": trail.told()}
    said = {"body": done.body, "headers": dict(done.headers), "pending": done.pending}
    return {**said, "trail": trail.told()}


def _read(act: DeskAct, asked: dict[str, Any], desk: str, trail: Trail) -> tuple[Call, str]:
    question = _Question().load(asked)
    try:
        body = act.body.load(question["body"])
    except ValidationError as error:
        # The desk is of another version, or somebody else's by now.
        raise problems.of_validation(error, act.body) from error
    identity, tags = identity_of(question["identity"]), question["if_match"]
    if identity.role not in OFFICERS:
        raise ValueError(f"{act.name} was asked for the role {identity.role}")
    call = Call(
        body=body,
        identity=identity,
        if_match=None if tags is None else frozenset(tags),
        idempotency_key=question["idempotency_key"],
        guard=Guard(identity, desk=desk),
        trail=trail,
    )
    return call, question["case"]


def _as_sent(problem: Problem) -> dict[str, Any]:
    return {
        "status": problem.status.value,
        "detail": problem.detail,
        "kind": problem.kind,
        "headers": problem.headers,
        "facts": problem.facts,
    }


def _as_raised(said: dict[str, Any]) -> Problem:
    problem = Problem(said["status"], said["detail"], kind=said["kind"], headers=said["headers"])
    problem.facts = said["facts"]
    return problem
