"""Entity tags (RFC 9110): which version of something a caller has seen, and acts upon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

from services.bus.errors import Refused
from services.bus.fold import Decision
from services.bus.problems import Problem
from services.bus.web import Answer, Call
from services.grid import json


def etag(body: Mapping[str, Any]) -> str:
    """The strong tag of an answer: the same body, the same tag."""
    return f'"{blake2b(json.dumps(body), digest_size=12).hexdigest()}"'


def tagged(body: Mapping[str, Any]) -> Answer:
    """An answer with its tag."""
    return Answer(body, headers={"ETag": etag(body)})


def must_match(call: Call, body: Mapping[str, Any]) -> None:
    """Lets a caller act only on the version that its ``If-Match`` names, if it sent one.

    :raises Problem: a 412 with what it is ``now``, and the tag of that.
    """
    tag = etag(body)
    if call.if_match is None or tag in call.if_match:
        return
    detail = "it has changed since you saw it: look at what it is now, and send its ETag"
    raise Problem(412, detail, kind="changed", headers={"ETag": tag}, now=dict(body))


def on_what_was_seen(
    call: Call, seen: Callable[[], Mapping[str, Any]], decide: Callable[[], Decision]
) -> Decision:
    """A decision, if it is made on what ``If-Match`` says; the same once more, on anything.

    :param seen: what is shown now of that on which it is made.
    :raises Problem: a 412 with what it is now.
    :raises Refused: it is not possible in what the caller has seen either.
    """
    try:
        decision = decide()
    except Refused:
        must_match(call, seen())
        raise
    if decision.events:
        must_match(call, seen())
    return decision
