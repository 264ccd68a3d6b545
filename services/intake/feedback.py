"""What who reported a case thinks of how it was resolved (回访), and what follows from it.

A register document has ``feedback``, ``{satisfied, score, comment, by, at, round}``, the last that
was given. Satisfied, the case is closed; else it is taken up again.
"""

from __future__ import annotations

from typing import Any

from services.bus.errors import Refused
from services.bus.fold import Decision, Document
from services.grid.atlas import Atlas
from services.grid.clock import Instant
from services.grid.events.making import case_event
from services.grid.tokens import Stage, Token
from services.intake import closing, model

BY_CODE = "tracking_code"
"""Who gives feedback by the tracking code: whoever knows it."""
NOT_SATISFIED = "not satisfied (回访不满意)"


def give(
    document: Document,
    said: dict[str, Any],
    by: str,
    *,
    atlas: Atlas,
    now: Instant,
) -> Decision:
    """Takes what the reporter says, and closes the case or opens a new round; all in one write.

    The same again changes nothing.

    :param said: ``{satisfied, score, comment}``; score 1 to 5 or none, 5 being the best.
    :param by: who asked the reporter, or ``BY_CODE``.
    :raises Refused: the case is not resolved, another answer was given, its profile asks for
        none, or who resolved it gives it.
    :raises UnknownProfile: its profile can't be read yet.
    """
    state, known = document["state"], document.get("feedback")
    token = Token.of(state["token"])
    if token.stage != Stage.RESOLVED:
        if known is not None and _led_here(known, token) and _same(known, said):
            return Decision(document, answer=document)
        raise Refused(_why_not(document, token), stage=token.stage.word)
    profile = atlas.rules_for(document["facts"])
    if profile.feedback is None:
        raise Refused(f"profile {profile.name} asks for no feedback: add a part feedback to it")
    if by == state["resolution"]["by"]:
        raise Refused("who resolved the case can't say whether it helped: another person must ask")
    document = {**document, "feedback": {**said, "by": by, "at": now, "round": token.round}}
    event = case_event(
        "case.feedback_given",
        service="intake",
        case=document["case"],
        facts=document["facts"],
        state=state,
        now=now,
        directory=atlas.directory,
        feedback={"satisfied": said["satisfied"], "score": said["score"], "by": by, "at": now},
    )
    if said["satisfied"]:
        follows = closing.close(document, "confirmed", atlas=atlas, now=now)
    else:
        follows = model.reopen(document, by, NOT_SATISFIED, why="unsatisfied", atlas=atlas, now=now)
    return Decision(follows.document, [event, *follows.events], follows.answer)


def _led_here(known: dict[str, Any], token: Token) -> bool:
    """Whether it is by this answer that the case is where it is: closed, or in another round.

    The same words of an earlier round were about another resolution: nobody has heard these.
    """
    return bool(known["round"] == token.round - (token.stage != Stage.CLOSED))


def _same(known: dict[str, Any], said: dict[str, Any]) -> bool:
    return all(known[name] == said[name] for name in said)


def _why_not(document: Document, token: Token) -> str:
    given = document.get("feedback")
    if token.stage == Stage.HELD:
        if given is not None and given["round"] == token.round - 1 and not given["satisfied"]:
            return "feedback was given already, and the case was taken up again"
        return "the case is not resolved yet: feedback says whether the resolution helped"
    if token.stage == Stage.WITHDRAWN:
        return "the case was withdrawn: nothing was resolved that could have helped"
    if given is not None and given["round"] == token.round:
        return "other feedback was given already, and the case is closed"
    return "the case is closed, nobody had answered in time: a lead or operator can reopen it"
