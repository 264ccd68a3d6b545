"""Feedback 回访, closing 销号, withdrawing 撤回: what the register decides, one rule at a time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.bus.errors import Refused
from services.bus.fold import Decision, Document, Record
from services.dispatch import model as dispatch
from services.escalation import model as escalation
from services.grid.atlas import Atlas
from services.grid.clock import FrozenClock, Instant, plus
from services.grid.events import Event
from services.grid.events.bindings import Incoming
from services.grid.profile import Profile, ProfileError, load_folder
from services.intake import closing, feedback, model
from services.intake.inbound import TYPES, Basis
from tests.simulator.county import GRID, LEVELS, SHORTER, atlas
from tests.simulator.world import World

ATLAS = atlas()
START = FrozenClock().now()
HOUR = 3600.0
DAY = 24 * HOUR
BAD = {"satisfied": False, "score": 2, "comment": "还是不亮"}
GOOD = {"satisfied": True, "score": None, "comment": ""}
QIONGHAI = Path(__file__).parents[2] / "profiles" / "qionghai"


def resolved(county: Atlas = ATLAS) -> World:
    """A case that its household resolved an hour after it was reported."""
    world = World(county)
    world.report("case-1")
    world.settle()
    world.clock.advance(HOUR)
    assert world.act("household", world.entries("household")[0], "resolve")
    world.settle()
    return world


def register(world: World) -> Document:
    return world.nodes["intake"].store.documents()["case-1"]


def custody(world: World) -> Document:
    return world.nodes["escalation"].store.documents()["case-1"]


def types(decision: Decision) -> list[str]:
    return [event.type for event in decision.events]


def given(
    document: Document, said: dict[str, Any], by: str = "lead-1", after: float = 0.0
) -> Decision:
    return feedback.give(document, said, by, atlas=ATLAS, now=plus(START, HOUR + after))


def test_a_resolved_case_waits_for_an_answer_as_long_as_the_profile_says() -> None:
    document = register(resolved())
    assert document["close_due"] == plus(START, HOUR + 3 * DAY)
    assert document["closing"]["counted"] == ["3d"]
    assert document["closing"]["rule"] == "profile.yaml feedback"


def test_the_time_counts_from_when_the_register_heard() -> None:
    world = World(ATLAS)
    world.report("case-1")
    world.settle()
    assert world.act("household", world.entries("household")[0], "resolve")
    world.clock.advance(10 * DAY)
    world.settle()
    assert register(world)["close_due"] == plus(START, 13 * DAY)


def test_without_the_part_nothing_is_asked_and_nothing_closes() -> None:
    rules = {name: value for name, value in ATLAS.current[0].rules.items() if name != "feedback"}
    profile = Profile.parse(rules)
    county = Atlas(ATLAS.directory, {profile.id: profile}, [profile.id])
    document = register(resolved(county))
    assert "close_due" not in document
    with pytest.raises(Refused, match="asks for no feedback: add a part feedback"):
        feedback.give(document, GOOD, "lead-1", atlas=county, now=START)


def test_nobody_answers_in_time() -> None:
    document = register(resolved())
    due = plus(START, HOUR + 3 * DAY)
    early = closing.fire(Record("case-1", 1, document), ATLAS, plus(due, -0.001))
    assert (early.events, early.document) == ((), document)
    decision = closing.fire(Record("case-1", 1, document), ATLAS, due)
    (event,) = decision.events
    assert event.data["closing"] == {"why": "unanswered", "due": due}
    assert event.data["state"]["token"]["stage"] == "closed"
    assert event.data["state"]["resolution"] == document["state"]["resolution"]
    assert Event.read(event.body()).data == event.data
    assert decision.document is not None
    assert decision.document["status"] == "closed"
    again = closing.fire(Record("case-1", 2, decision.document), ATLAS, plus(due, DAY))
    assert again.events == ()


def test_rules_that_can_not_be_read_yet_are_looked_for_later() -> None:
    document = register(resolved())
    nothing = Atlas(ATLAS.directory, {}, [])
    state = {**document["state"], "token": {**document["state"]["token"], "seq": 9}}
    later = closing.arranged({**document, "state": state}, nothing, START)
    assert (later.get("closing"), later["close_due"]) == (None, plus(START, 300))
    known = closing.fire(Record("case-1", 1, later), ATLAS, plus(START, 300))
    assert known.events == ()
    assert known.document is not None
    assert known.document["close_due"] == plus(START, 300 + 3 * DAY)


def test_who_is_satisfied_closes_the_case() -> None:
    document = register(resolved())
    decision = given(document, GOOD)
    assert types(decision) == ["case.feedback_given", "case.closed"]
    said = decision.events[0].data["feedback"]
    assert said == {"satisfied": True, "score": None, "by": "lead-1", "at": plus(START, HOUR)}
    assert decision.events[1].data["closing"] == {"why": "confirmed", "due": None}
    closed = decision.document
    assert closed is not None
    assert (closed["status"], "close_due" in closed) == ("closed", False)
    # The same is the same answer, another one is not.
    assert given(closed, GOOD, after=DAY).answer == closed
    with pytest.raises(Refused, match="other feedback was given already"):
        given(closed, BAD)


def test_who_is_not_satisfied_has_it_taken_up_again() -> None:
    decision = given(register(resolved()), BAD)
    assert types(decision) == ["case.feedback_given", "case.reopened"]
    again = decision.document
    assert again is not None
    assert again["state"]["token"] == {"round": 2, "stage": "held", "hop": 0, "seq": 0}
    reopening = decision.events[1].data["reopening"]
    assert reopening == {"by": "lead-1", "reason": feedback.NOT_SATISFIED, "why": "unsatisfied"}
    assert "close_due" not in again
    assert given(again, BAD, after=DAY).answer == again
    with pytest.raises(Refused, match="taken up again"):
        given(again, GOOD)


def test_the_reporter_s_own_words_are_on_no_event() -> None:
    decision = given(register(resolved()), {**BAD, "comment": "李四没来"})
    assert decision.document is not None
    assert decision.document["feedback"]["comment"] == "李四没来"
    assert all("李四" not in event.body().decode() for event in decision.events)


def test_who_resolved_it_does_not_confirm_it() -> None:
    with pytest.raises(Refused, match="another person must ask"):
        given(register(resolved()), GOOD, by="officer-household")


def test_there_is_nothing_to_say_before_it_is_resolved_or_once_it_is_over() -> None:
    world = World(ATLAS)
    world.report("case-1")
    with pytest.raises(Refused, match="not resolved yet"):
        given(register(world), GOOD)
    world.withdraw("case-1")
    with pytest.raises(Refused, match="withdrawn"):
        given(register(world), GOOD)
    world = resolved()
    world.clock.advance(3 * DAY)
    assert world.close() == 1
    with pytest.raises(Refused, match="nobody had answered in time: a lead or operator"):
        given(register(world), GOOD)


def test_the_same_words_of_an_earlier_round_are_not_taken_for_heard() -> None:
    world = resolved()
    assert world.feedback("case-1", satisfied=False)
    world.settle()
    said = {name: register(world)["feedback"][name] for name in BAD}
    # Sent again, for the answer was lost: it is by these words that the case is in this round.
    assert given(register(world), said).events == ()
    world.clock.advance(HOUR)
    assert world.act("household", world.entries("household")[-1], "resolve")
    world.settle()
    world.clock.advance(3 * DAY)
    assert world.close() == 1
    world.settle()
    with pytest.raises(Refused, match="nobody had answered in time: a lead or operator"):
        given(register(world), said)
    assert world.reopen("case-1")
    with pytest.raises(Refused, match="not resolved yet"):
        given(register(world), said)


def test_a_closed_case_is_reopened_and_a_withdrawn_one_is_not() -> None:
    world = resolved()
    world.clock.advance(3 * DAY)
    world.close()
    assert world.reopen("case-1")
    world.settle()
    assert register(world)["state"]["token"]["round"] == 2
    assert world.entries("household") == ["case-1:2.0"]
    assert world.withdraw("case-1")
    with pytest.raises(Refused, match="this one is withdrawn: report it again"):
        model.reopen(register(world), "op", "又坏了", atlas=ATLAS, now=START)


def test_a_withdrawn_case_is_over_everywhere() -> None:
    world = World(ATLAS)
    world.report("case-1")
    world.settle()
    assert world.act("household", world.entries("household")[0], "suspend")
    world.settle()
    assert world.withdraw("case-1")
    world.settle()
    document = register(world)
    assert (document["status"], document["state"]["deadlines"]) == ("withdrawn", [])
    assert "suspension" not in document["state"]
    assert custody(world)["state"] == document["state"]
    assert custody(world)["next_due"] is None
    assert {row["status"] for row in escalation.explain(custody(world))} <= {"void", "moved"}
    (entry,) = world.nodes["household"].store.documents().values()
    assert (entry["status"], entry["held"]["token"]["stage"]) == ("ended", "withdrawn")
    with pytest.raises(Refused, match="the case is withdrawn"):
        dispatch.acknowledge(entry, "h-1", "", atlas=ATLAS, now=START)
    # Once more is the same, and another is told.
    assert world.withdraw("case-1")
    with pytest.raises(Refused, match="withdrawn by portal already"):
        model.withdraw(document, "op", "重复", atlas=ATLAS, now=START)


def test_a_resolution_that_was_on_its_way_wins_over_a_withdrawal() -> None:
    world = World(ATLAS)
    world.report("case-1")
    world.settle()
    assert world.withdraw("case-1")
    assert world.act("household", world.entries("household")[0], "resolve")
    world.settle()
    document = register(world)
    assert (document["status"], document["withdrawal"]["round"]) == ("resolved", 1)
    assert document["close_due"] is not None
    # The withdrawal sent again is still what it was.
    same = model.withdraw(document, "portal", "自己解决了", atlas=ATLAS, now=START)
    assert (same.events, same.answer) == ((), document)
    with pytest.raises(Refused, match="withdrawn by portal already"):
        model.withdraw(document, "op", "重复", atlas=ATLAS, now=START)


def test_a_withdrawal_that_comes_once_more_takes_back_no_later_round() -> None:
    """As over AMQP, where what was not acknowledged comes again."""
    intake = SimpleNamespace(county=SimpleNamespace(atlas=lambda: ATLAS), now=START)
    basis = Basis(cast("Any", intake), {"name": "portal"}, {}, {"portal:r-1": "case-1"})
    kind, said = TYPES["huashi.case.withdraw.v1"], {"reference": "r-1", "reason": "自己修好了"}
    event = Incoming("e-1", "portal", kind.full_name, said)

    def sent(document: Document) -> Decision:
        work = kind.handle(basis, event, said).work
        assert work is not None
        return work.change(Record("case-1", 1, document))

    world = World(ATLAS)
    world.report("case-1")
    world.settle()
    first = sent(register(world))
    assert types(first) == ["case.withdrawn"]
    # A resolution was on its way, and the reporter is not satisfied.
    assert world.act("household", world.entries("household")[0], "resolve")
    world.settle()
    late = {name: register(world)[name] for name in ("state", "status")}
    again = model.reopen({**(first.document or {}), **late}, "op", "又坏了", atlas=ATLAS, now=START)
    document = again.document or {}
    token = document["state"]["token"]
    assert (token["round"], token["stage"]) == (2, "held")
    assert sent(document) == Decision(document, answer=document)


def test_a_resolved_case_is_not_withdrawn() -> None:
    with pytest.raises(Refused, match="and this one is resolved"):
        model.withdraw(register(resolved()), "op", "重复", atlas=ATLAS, now=START)


def test_a_closed_resolution_beats_one_that_comes_late_from_a_later_hop() -> None:
    """The household resolves it while it climbs; the group does too, and is heard of too late."""
    world = World(ATLAS)
    world.report("case-1")
    world.settle()
    world.clock.advance(3 * HOUR)
    world.second()
    world.read(world.nodes["group"], most=10)
    assert world.act("household", world.entries("household")[0], "resolve")
    world.read(world.nodes["intake"], most=10)
    assert world.feedback("case-1", satisfied=True)
    assert world.act("group", world.entries("group")[0], "resolve")
    world.settle()
    document = register(world)
    assert (document["status"], document["late_custody"]) == ("closed", True)
    assert custody(world)["state"] == document["state"]
    household = world.nodes["household"].store.documents()["case-1:1.0"]
    assert household["state"] == document["state"]
    ended = {
        level: [entry["ended"] for entry in world.nodes[level].store.documents().values()]
        for level in LEVELS[:2]
    }
    assert ended == {"household": ["resolved"], "group": ["resolution"]}


def test_a_closed_resolution_counts_though_the_custodian_had_preferred_another() -> None:
    """Its desk was told already that the other one counts; in whatever order it hears."""
    for closed_first in (False, True):
        world = World(ATLAS)
        world.report("case-1")
        world.settle()
        world.clock.advance(3 * HOUR)
        world.second()
        world.read(world.nodes["group"], most=10)
        assert world.act("household", world.entries("household")[0], "resolve")
        world.read(world.nodes["intake"], most=10)
        assert world.act("group", world.entries("group")[0], "resolve")
        while world.read(world.nodes["escalation"], most=10):
            pass
        assert world.feedback("case-1", satisfied=True)
        world.settle((lambda count: count - 1) if closed_first else (lambda _count: 0))
        (entry,) = world.nodes["household"].store.documents().values()
        assert (entry["ended"], entry["state"]) == ("resolved", register(world)["state"])
        (entry,) = world.nodes["group"].store.documents().values()
        assert entry["ended"] == "resolution"


def test_what_is_reopened_as_often_as_the_profile_says_is_supervised() -> None:
    county = atlas(reopening={**SHORTER, "supervise_after": 2})
    world = resolved(county)
    for _ in range(2):
        assert world.feedback("case-1", satisfied=False)
        world.settle()
        (entry,) = world.entries("household")
        told = [sent.event for sent in world.published if sent.event.type == "case.supervised"]
        assert world.act("household", entry, "resolve") or told
        world.settle()
    (event,) = told
    assert event.data["passed"]["kind"] == "reopened"
    assert event.data["supervisor"] == {"by": "profile.yaml reopening", "reason": "assumption"}
    assert event.data["tell"] == ["469002"]
    assert Event.read(event.body()).data == event.data
    assert register(world)["supervision"]["round"] == 3


def test_supervision_of_a_reopened_case_is_repeated_wherever_it_is() -> None:
    world = resolved(atlas(reopening={**SHORTER, "supervise_after": 1}))
    assert world.feedback("case-1", satisfied=False)
    world.settle()
    document = custody(world)
    assert document["supervision"]["times"] == 1
    armed = [row for row in escalation.explain(document) if row["kind"] == "supervise"]
    assert [row["status"] for row in armed] == ["armed"]
    reached = escalation.reaches(document, armed[0], world.atlas, world.clock.now())
    assert (reached["address"]["level"], reached["tell"]) == ("household", ["469002"])
    world.clock.advance(DAY)
    for _ in range(5):
        world.clock.advance(900)
        world.second()
        world.settle()
    document = custody(world)
    assert document["state"]["address"]["level"] != "household"
    assert document["supervision"]["times"] >= 2


def test_a_second_round_has_less_time() -> None:
    world = resolved(atlas(reopening=SHORTER))
    assert world.feedback("case-1", satisfied=False)
    world.settle()
    began = Instant(register(world)["state"]["clocks"]["level"]["started_at"])
    found = {item["kind"]: item for item in register(world)["state"]["deadlines"]}
    assert found["acknowledge"]["due"] == plus(began, HOUR)
    assert found["resolve"]["due"] == plus(began, 12 * HOUR)
    assert found["resolve"]["counted"] == [
        "1d",
        "50% of it, because the case was reopened: 12h",
    ]
    # The levels above have less, too.
    world.clock.advance(HOUR)
    world.second()
    state = custody(world)["state"]
    assert state["address"]["level"] == "group"
    dues = {item["kind"]: item["due"] for item in state["deadlines"]}
    assert dues["resolve"] == plus(began, 7 * HOUR)


def test_old_documents_of_the_register_are_read() -> None:
    document = register(resolved())
    for name in ("closing", "close_due"):
        del document[name]
    del document["report"]["by"]
    assert types(given(document, GOOD)) == ["case.feedback_given", "case.closed"]
    event = Event.read(resolved().published[-1].body)
    merged = model.work(event, ATLAS, START).change(Record("case-1", 1, document)).document
    assert merged is not None
    assert merged["close_due"] == plus(START, 3 * DAY)
    assert GRID in document["under"]


# -- what a profile may say of it ----------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "value", "field", "said"),
    [
        ("reopening", {"shorter": "0%"}, "shorter", "'0%': write a percentage from 1% to 99%"),
        ("reopening", {"shorter": "half"}, "shorter", "'half': write a percentage from 1% to 99%"),
        (
            "reopening",
            {"shorter": "50%", "clock": "goes_on"},
            "shorter",
            "a clock that goes on has the rest of its time only: add clock: starts_again",
        ),
        ("reopening", {"supervise_after": 0}, "supervise_after", "write a whole number from 1 to"),
        ("feedback", {"ask": "soon"}, "ask", "'soon' is not a deadline: write"),
        ("feedback", {"ask": "end_of_day"}, "ask", "'end_of_day': write a duration"),
        ("feedback", {"ask": "5 working days"}, "", "needs a calendar: add calendar:"),
        ("feedback", {"days": 7}, "days", "'days' is not known: write one of ask, source"),
        ("public", {"categories": []}, "categories", "write a list with at least one entry"),
        ("public", {"categories": ["money"]}, "categories", "'money' is not known: write one of"),
        ("public", {"days": 0}, "days", "write a whole number from 1 to 3660"),
        (
            "public",
            {"after": "reported"},
            "after",
            "'reported' is not known: did you mean resolved?",
        ),
    ],
)
def test_a_mistake_in_the_profile_is_named(
    part: str, value: dict[str, Any], field: str, said: str
) -> None:
    parts: dict[str, Any] = {
        "reopening": SHORTER,
        "feedback": {"ask": "7d", "source": "assumption"},
        "public": {"categories": ["facility"], "days": 90, "source": "assumption"},
    }
    assert Profile.parse({**ATLAS.current[0].rules, **parts})
    with pytest.raises(ProfileError) as raised:
        Profile.parse({**ATLAS.current[0].rules, **parts, part: {**parts[part], **value}})
    (problem,) = raised.value.problems
    assert problem.field == ".".join(filter(None, (part, field)))
    assert problem.text.startswith(said) or said in problem.text


def test_a_board_that_could_never_show_anything_is_a_mistake() -> None:
    rules = {name: value for name, value in ATLAS.current[0].rules.items() if name != "feedback"}
    public = {"categories": ["facility"], "days": 90, "source": "assumption"}
    with pytest.raises(ProfileError, match="without a part feedback no case is closed"):
        Profile.parse({**rules, "public": public})
    assert Profile.parse({**rules, "public": {**public, "after": "resolved"}})


def test_an_answer_may_be_waited_for_in_working_days() -> None:
    office = {"days": "Mon-Fri", "hours": ["08:30-12:00", "14:30-17:30"]}
    ask = {"ask": "5 working days", "calendar": "office", "source": "assumption"}
    document = register(resolved(atlas(calendars={"office": office}, feedback=ask)))
    # Monday, 5 January 2026, 09:00 in Shanghai.
    assert document["close_due"] == "2026-01-12T09:30:00.000Z"
    assert document["closing"]["calendar"] == "office"
    assert document["closing"]["counted"][:2] == ["5 working days", "2026-01-06"]


def test_qionghai_opens_only_what_is_nobody_s_private_matter() -> None:
    profile = load_folder(QIONGHAI).profile
    assert profile.board is not None
    private = {"dispute", "petition", "livelihood", "public_order", "emergency"}
    assert not private & set(profile.board.categories)
    assert profile.feedback is not None
    assert (profile.reopening.shorter, profile.reopening.supervise_after) == (50, 2)
