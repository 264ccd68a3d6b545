"""Duplicates (并案): the younger case follows the older one, which takes over what is more urgent.

A merge is two hops of the custodian, each a step of its own, so that nothing is lost between them:

- the younger case gets a hop with ``facts.follows``, and says so (``case.followed``). Which is the
  younger one never changes, so that whoever merges what with what, and however often, it is the
  same merge, and no circle of cases can come about;
- the older one hears of it. It takes the most urgent urgency and the earliest deadlines, by a hop
  if that changes anything, and tells its holder who follows it (``case.merged``).

What then becomes of the older one it tells each that follows it, once (``case.led``): it follows
another itself (*moved*: they follow that one), it was withdrawn (they are free again), or it was
resolved. Of that the follower's custody tells the desk that holds it (``case.lead_resolved``), and
each desk after it should that one be dead: for all else a follower is a case like any other, with
deadlines of its own. It makes no difference whether the older one ended before it heard.

A custody document has, once it was merged:

- ``followers``, by case ``{round, hop, urgency, left}``: since which hop of its own a case follows,
  how urgent it was then, and how it left: ``resolved``, ``moved``, ``withdrawn``, ``left``, or not
  yet;
- ``merged``, the version of who follows it;
- ``following``, ``{case, round, hop}``: which case it follows since which hop of its own, or none;
- ``lead``, ``{case, round, resolution, told}``: how the one that it follows was resolved, and in
  which hop its holder was told last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from services.bus.errors import Refused
from services.bus.fold import Document
from services.grid import clocks, deadlines
from services.grid.atlas import Atlas
from services.grid.clock import seconds_between
from services.grid.events import Event
from services.grid.profile import Profile
from services.grid.tokens import Stage, Token

if TYPE_CHECKING:
    from services.escalation.model import _Decider as Decider

FOLLOWED = "case.followed"
LED = "case.led"
SAID = (FOLLOWED, LED)
"""What the custody of one case says to that of another."""

MOST_FOLLOWERS = 200
"""How many cases may follow one: each change of its custody names them."""

LEFT = "left"
"""Why a case follows no other any more: it was reopened, or resolved before it heard."""

CUSTODIAN = "custodian"
"""By whom a case follows another without being asked for."""

_NAMED = (None, "resolved")
"""How a follower left that is named still: not yet, or in the same way."""


def key(event: Event) -> str:
    """For whose custody it is, what one case says to another."""
    if event.type == LED:
        return str(event.data["led"]["follower"])
    following = event.data["following"]
    if following["why"] == LEFT:
        return str(following["before"])
    return str(following["case"] or event.subject)


def pair(
    read: Callable[[Sequence[str]], Mapping[str, Document]], one: str, other: str, atlas: Atlas
) -> tuple[Document, Document] | None:
    """Which two cases are merged if these are, the older one first; none if they are already.

    That is what each of them follows in the end, or itself.

    :param read: the custody documents of these cases.
    :raises Refused: one has ended, they are under rules that can't be compared, or too many
        follow.
    """
    ends = [end(read, case) for case in (one, other)]
    if ends[0]["case"] == ends[1]["case"]:
        return None
    older, younger = sorted(ends, key=_age)
    held = {"case": older["case"], "held_by": older["state"]["address"]}
    names = {atlas.profile(end["facts"]["profile"]).name for end in ends}
    if len(names) > 1:
        said = f"they are under different profiles, {' and '.join(sorted(names))}"
        raise Refused(f"{said}: their urgencies and deadlines can't be compared", **held)
    # What follows the younger one follows the older one as well.
    there, more = len(_who_follows(older)), 1 + len(_live(younger))
    if there + more > MOST_FOLLOWERS:
        said = f"{there} cases follow {older['case']}, and {more} more would"
        raise Refused(f"{said}: {MOST_FOLLOWERS} are the most", **held)
    return older, younger


def end(read: Callable[[Sequence[str]], Mapping[str, Document]], case: str) -> Document:
    """The case that this one follows in the end, or itself.

    :raises Refused: it has ended.
    """
    document = read([case])[case]
    while True:
        must_be_open(document)
        # Each is older than the one that follows it: this comes to an end.
        lead = document["facts"].get("follows")
        known = read([lead]) if lead is not None else {}
        if lead not in known:
            return document
        document = known[lead]


def must_be_open(document: Document) -> None:
    """That a case may be merged.

    :raises Refused: it has ended; with the case, its stage and who held it.
    """
    stage, address = Token.of(document["state"]["token"]).stage, document["state"]["address"]
    if stage != Stage.HELD:
        said = f"case {document['case']} is {stage.word}: only cases that are open are merged"
        raise Refused(said, case=document["case"], stage=stage.word, held_by=address)


def _age(document: Document) -> tuple[str, str]:
    return document["facts"]["reported_at"], document["case"]


def follow(
    decider: Decider, lead: str | None, *, why: str, by: str, reason: str = "", **shown: Any
) -> None:
    """A hop to the same holder, from which on the case follows another, or none any more.

    :param shown: the ``attachments`` of whoever merges it, if there are any.
    """
    facts = decider.document["facts"]
    others = {name: value for name, value in facts.items() if name != "follows"}
    decider.document["facts"] = others if lead is None else {**others, "follows": lead}
    decider.stay("freed" if lead is None else "merged")
    token = decider.token
    since = {"round": token.round, "hop": token.hop}
    decider.document["following"] = None if lead is None else {"case": lead, **since}
    said = {"case": lead, "why": why, "before": facts.get("follows"), "by": by, "reason": reason}
    decider.emit(FOLLOWED, following={**said, **shown, "since": since})


def hear(decider: Decider, event: Event) -> None:
    """What another case says: that it follows this one, or what became of it."""
    (_heed if event.type == LED else _join)(decider, event)


def forgotten(follower: Document, lead: Document) -> bool:
    """Whether one of two has forgotten that the first follows the second: custody was restored.

    It follows if the lead knows it as a follower since the same hop, and neither waits for what the
    other has said already.
    """
    following, token = follower.get("following"), Token.of(follower["state"]["token"])
    if token.stage != Stage.HELD or follower["facts"].get("follows") != lead["case"]:
        return False
    said = lead.get("followers", {}).get(follower["case"])
    if following is None or said is None:
        return True
    names = ("round", "hop")
    if any(following[name] != said[name] for name in names):
        return True
    told = follower.get("lead") or {"case": None, "round": 0}
    heard = (told["case"], told["round"]) == (lead["case"], token.round)
    return said["left"] is not None and not (said["left"] == "resolved" and heard)


def settle(decider: Decider) -> None:
    """What the state of a case means for those that follow it, and for its own holder."""
    _take_over(decider, ())
    _leave(decider)
    _tell_followers(decider)
    _tell_holder(decider)


def told(document: Document) -> dict[str, Any]:
    """Who follows a case, as each change of its custody says it; nothing if nobody ever did."""
    version = document.get("merged", 0)
    if not version:
        return {}
    return {"merged": {"followers": _who_follows(document), "version": version}}


def _who_follows(document: Document) -> list[str]:
    """The cases that are named as followers of one."""
    followers: dict[str, dict[str, Any]] = document.get("followers", {})
    return sorted(case for case, item in followers.items() if item["left"] in _NAMED)


def _leave(decider: Decider) -> None:
    """A case that follows another no longer, by what others say of it: that one hears of it.

    It was reopened, or had been resolved before it heard that it follows.
    """
    following, follows = decider.document.get("following"), decider.document["facts"].get("follows")
    if following is None or following["case"] == follows:
        return
    decider.document["following"] = None
    since = {name: following[name] for name in ("round", "hop")}
    said = {"case": None, "why": LEFT, "before": following["case"], "since": since}
    decider.emit(FOLLOWED, following={**said, "by": CUSTODIAN, "reason": ""})


def _join(decider: Decider, event: Event) -> None:
    """Another case follows this one: once for each hop with which it began to; or no longer."""
    following, known = event.data["following"], decider.document.get("followers", {})
    if following["why"] == LEFT:
        _part(decider, event)
        return
    if following["case"] is None:
        return
    token, before = Token.of(event.data["state"]["token"]), known.get(event.subject)
    if before is not None and (token.round, token.hop) <= (before["round"], before["hop"]):
        return
    joined = {
        "round": token.round,
        "hop": token.hop,
        "urgency": event.data["case"]["urgency"],
        "left": None,
    }
    decider.document["followers"] = {**known, event.subject: joined}
    _take_over(decider, event.data["state"]["deadlines"], event.subject)
    forgot = (following["by"], following["why"]) == (CUSTODIAN, "merged")
    _say(
        decider, event.subject, anew=f":{event.subject}:{token.round}.{token.hop}" if forgot else ""
    )


def _part(decider: Decider, event: Event) -> None:
    """Another case follows this one no longer since a hop; which may be heard before that hop."""
    since, known = event.data["following"]["since"], decider.document.get("followers", {})
    before = known.get(event.subject)
    if before is not None and (since["round"], since["hop"]) < (before["round"], before["hop"]):
        return
    left = {**since, "urgency": event.data["case"]["urgency"], "left": LEFT}
    decider.document["followers"] = {**known, event.subject: left}
    if before is not None and before["left"] in _NAMED:
        _say(decider)


def _say(decider: Decider, *joined: str, anew: str = "") -> None:
    """Everybody hears who follows the case now, and which of them are new.

    :param anew: what tells it from what was said before and is forgotten, versions with it: then
        this one is beyond them, for no case is merged as often as seconds pass.
    """
    version = decider.document.get("merged", 0) + 1
    if anew:
        age = seconds_between(decider.document["facts"]["reported_at"], decider.now)
        version = max(version, int(age))
    decider.document["merged"] = version
    said = {"joined": list(joined), **told(decider.document)}
    decider.emit("case.merged", discriminator=f"{version}{anew}", **said)


def _take_over(decider: Decider, theirs: Sequence[Mapping[str, Any]], case: str = "") -> None:
    """The most urgent urgency, and of each kind of deadline that is open the earliest.

    A case that becomes more urgent is under other rules of its profile: these count from now, and
    what was to be done before is to be done before nevertheless.
    """
    facts, state, now = decider.document["facts"], decider.document["state"], decider.now
    if decider.token.stage != Stage.HELD or "follows" in facts:
        return
    live = _live(decider.document)
    if not live:
        return
    urgencies = [facts["urgency"], *(item["urgency"] for item in live.values())]
    urgency = most_urgent(decider.profile, urgencies)
    raised = urgency != facts["urgency"]
    due = {item["kind"]: item["due"] for item in decider.open_deadlines() if "of" not in item}
    sooner = [item for item in theirs if item["due"] < due.get(item["kind"], "")]
    left = deadlines.bequeathed(sooner, now, f"taken over from {case}")
    if raised:
        stood = clocks.pauses(state["clocks"]["level"])
        own = [item for item in decider.open_deadlines() if "of" not in item]
        left += deadlines.bequeathed(own, now, f"as before it was {urgency}", stood)
    if not raised and not left:
        return
    decider.document["facts"] = {**facts, "urgency": urgency}
    # What is left now is earlier than all that counted, or there is nothing else any more.
    kept = [] if raised else state.get("inherited", [])
    decider.stay("merged", again=raised, inherited=_one_of_each(left, kept))


def most_urgent(profile: Profile, urgencies: Sequence[str]) -> str:
    """The most urgent of these, as the profile lists them; the first, if it knows none."""
    order = [*profile.urgencies]
    known = [urgency for urgency in urgencies if urgency in order]
    return max(known, key=order.index, default=urgencies[0])


def _one_of_each(
    left: Sequence[dict[str, Any]], kept: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """One of each kind: the earliest that is left now, else what was kept."""
    found = {item["kind"]: item for item in kept}
    found |= {item["kind"]: item for item in sorted(left, key=lambda it: it["due"], reverse=True)}
    return list(found.values())


def _live(document: Document) -> dict[str, dict[str, Any]]:
    """Those that follow a case and have not left."""
    followers: dict[str, dict[str, Any]] = document.get("followers", {})
    return {case: item for case, item in followers.items() if item["left"] is None}


def _tell_followers(decider: Decider) -> None:
    """Each that follows a case hears once that it ended, or follows another."""
    live, token = _live(decider.document), decider.token
    lead = decider.document["facts"].get("follows")
    if token.stage >= Stage.RESOLVED:
        why, to = "resolved", None
    elif lead is not None:
        why, to = "moved", lead
    elif token.stage == Stage.WITHDRAWN:
        why, to = "withdrawn", None
    else:
        return
    if not live:
        return
    for case, item in live.items():
        since = {name: item[name] for name in ("round", "hop")}
        decider.emit(
            LED,
            discriminator=f"{case}:{item['round']}.{item['hop']}",
            led={"follower": case, "since": since, "why": why, "to": to},
        )
    left = {case: {**item, "left": why} for case, item in live.items()}
    decider.document["followers"] = {**decider.document["followers"], **left}
    if why != "resolved":
        _say(decider)


def _heed(decider: Decider, event: Event) -> None:
    """The one that it follows says what became of it; that it once followed is nothing to it."""
    led, following = event.data["led"], decider.document.get("following")
    token = decider.token
    since = {"case": event.subject, **{name: led["since"][name] for name in ("round", "hop")}}
    follows = decider.document["facts"].get("follows") == event.subject
    if token.stage != Stage.HELD or not follows or following != since:
        return
    if led["why"] == "resolved":
        known = decider.document.get("lead") or {"case": None, "round": 0}
        if (known["case"], known["round"]) != (event.subject, token.round):
            decider.document["lead"] = {
                "case": event.subject,
                "round": token.round,
                "resolution": event.data["state"]["resolution"],
                "told": None,
            }
        return
    follow(decider, led["to"], why=led["why"], by=CUSTODIAN)


def _tell_holder(decider: Decider) -> None:
    """Whoever holds a case whose lead was resolved hears it, each in turn."""
    lead, token = decider.document.get("lead"), decider.token
    if lead is None or token.stage != Stage.HELD or lead["round"] != token.round:
        return
    if lead["told"] == token.hop:
        return
    decider.document["lead"] = {**lead, "told": token.hop}
    decider.emit(
        "case.lead_resolved",
        token=Token(token.round, Stage.HELD, token.hop, 0),
        discriminator=lead["case"],
        lead={name: lead[name] for name in ("case", "resolution")},
    )
