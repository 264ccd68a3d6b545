"""Which services the command talks to: the local stack's, or those that the environment names.

The local stack is the nearest ``.run/stack.json``, in RUN_DIR or in a folder above. Another is
named by HUASHI_INTAKE, HUASHI_DESKS (``household=URL,group=URL``), HUASHI_ESCALATION,
HUASHI_NOTIFY and HUASHI_TOKEN, and to add other systems HUASHI_BROKER and HUASHI_VHOST; its time
is the wall clock's unless TIME_SCALE and TIME_ANCHOR say else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.failures import Exit, Failure
from services.grid.clock import Instant, ScaledClock, moment

FILE = "stack.json"
_FOLDER = ".run"


@dataclass(frozen=True)
class Stack:
    """Where the services are, with which tokens, and what time it is there.

    ``broker`` is RabbitMQ's management API, with the user and password of the provisioner.

    ``tokens`` are by role; the role ``*`` serves for all that have none.
    """

    intake: str
    desks: Mapping[str, str]
    escalation: str | None
    notify: str | None
    tokens: Mapping[str, str] = field(repr=False)
    clock: ScaledClock
    source: str
    broker: str | None = field(default=None, repr=False)
    vhost: str = "/"

    def token(self, *roles: str) -> str | None:
        """The first token that there is of these roles."""
        found = (self.tokens.get(role) for role in (*roles, "*"))
        return next(filter(None, found), None)

    def services(self) -> dict[str, str]:
        """Every service by its instance name."""
        named = {
            "intake": self.intake,
            **{f"dispatch-{level}": url for level, url in self.desks.items()},
            "escalation": self.escalation,
            "notify": self.notify,
        }
        return {name: url for name, url in named.items() if url}


def find_stack(environment: Mapping[str, str], folder: Path) -> Stack:
    """The stack to talk to.

    :param folder: where to begin to look for ``.run/stack.json``, going up.
    :raises Failure: there is none, or what describes it can't be read.
    """
    if environment.get("HUASHI_INTAKE"):
        return _of_environment(environment)
    for path in _candidates(environment, folder):
        if path.is_file():
            return _of_file(path, environment)
    raise Failure(
        Exit.UNREACHABLE,
        "no stack is running here: start one with `make up`, or name another by HUASHI_INTAKE "
        "and HUASHI_TOKEN",
    )


def _candidates(environment: Mapping[str, str], folder: Path) -> list[Path]:
    if environment.get("RUN_DIR"):
        return [Path(environment["RUN_DIR"]) / FILE]
    return [place / _FOLDER / FILE for place in (folder, *folder.parents)]


def _of_file(path: Path, environment: Mapping[str, str]) -> Stack:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        clock = found["clock"]
        return Stack(
            intake=found["intake"],
            desks=found["desks"],
            escalation=found["escalation"],
            notify=found["notify"],
            tokens={**found["tokens"], **_key(environment)},
            clock=ScaledClock(float(clock["scale"]), _unix(clock["real"]), _unix(clock["virtual"])),
            source=str(path),
            broker=found.get("broker"),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(
            Exit.UNREACHABLE,
            f"{path} can't be read ({type(error).__name__}: {error}): "
            "run `make down` and `make up`",
        ) from error


def _unix(text: str) -> float:
    return moment(Instant(text)).timestamp()


def _of_environment(environment: Mapping[str, str]) -> Stack:
    desks = {}
    for part in filter(None, environment.get("HUASHI_DESKS", "").split(",")):
        level, equals, url = part.partition("=")
        if not equals:
            raise Failure(
                Exit.USAGE,
                f"HUASHI_DESKS has {part!r}: write household=http://...,group=http://...",
            )
        desks[level.strip()] = url.strip().rstrip("/")
    try:
        clock = ScaledClock.from_environment(environment)
    except ValueError as error:
        raise Failure(Exit.USAGE, str(error)) from error
    return Stack(
        intake=environment["HUASHI_INTAKE"].rstrip("/"),
        desks=desks,
        escalation=environment.get("HUASHI_ESCALATION", "").rstrip("/") or None,
        notify=environment.get("HUASHI_NOTIFY", "").rstrip("/") or None,
        tokens=_tokens(environment),
        clock=clock,
        source="the environment",
        broker=environment.get("HUASHI_BROKER", "").rstrip("/") or None,
        vhost=environment.get("HUASHI_VHOST") or "/",
    )


def _tokens(environment: Mapping[str, str]) -> dict[str, str]:
    token = environment.get("HUASHI_TOKEN")
    return {**({"*": token} if token else {}), **_key(environment)}


def _key(environment: Mapping[str, str]) -> dict[str, str]:
    """A system's API key, which is no operator's business to have in a file."""
    key = environment.get("HUASHI_API_KEY")
    return {"system": key} if key else {}
