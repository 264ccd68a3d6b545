"""The register's rules: tracking codes, sending again, and what merging keeps."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.bus.errors import Refused
from services.bus.fold import Decision, Document, Record
from services.grid.atlas import Atlas
from services.grid.clock import FrozenClock, plus
from services.grid.directory import Directory, Division
from services.grid.events import Event
from services.grid.profile import load_folder
from services.intake import model
from services.intake.directory import works
from tests.simulator.county import DIVISIONS, GRID, atlas

ATLAS = atlas()
NOW = FrozenClock().now()
REPORT = {
    "title": "路灯不亮",
    "category": "facility",
    "urgency": "ordinary",
    "source": "app",
    "digest": "d1",
    "reporter": None,
}


def opened(document: Document | None = None, division: str = GRID, **more: Any) -> Decision:
    place = ATLAS.directory.division(division)
    assert place is not None
    return model.open_case(
        document,
        "case-1",
        {**REPORT, **more},
        place,
        certain=more.get("certain", True),
        profile=ATLAS.current[0],
        atlas=ATLAS,
        now=NOW,
    )


@given(st.uuids())
def test_a_code_is_read_back_however_it_is_written(case: object) -> None:
    code = model.tracking_code(str(case))
    assert len(code) == 10
    assert not set(code) & set("ILOU")
    written = code.replace("0", "o").replace("1", random.choice("lI1"))
    assert model.read_tracking_code(f" {written[:4]}-{written[4:]} ".lower()) == code


@given(st.uuids(), st.integers(0, 9), st.sampled_from(model.ALPHABET))
def test_one_wrong_character_is_noticed(case: object, place: int, other: str) -> None:
    code = model.tracking_code(str(case))
    wrong = code[:place] + other + code[place + 1 :]
    if wrong != code:
        with pytest.raises(ValueError, match="is wrong"):
            model.read_tracking_code(wrong)


def test_a_code_that_is_taken_has_another() -> None:
    codes = {model.tracking_code("case-1", attempt) for attempt in range(10)}
    assert len(codes) == 10


def test_a_report_opens_the_first_round_where_the_profile_says() -> None:
    decision = opened()
    (event,) = decision.events
    assert event.key == "case.reported.household.46.90.02.104.214.03.007"
    assert event.data["state"]["token"] == {"round": 1, "stage": "held", "hop": 0, "seq": 0}
    document = decision.document
    assert document is not None
    assert document["status"] == "reported"
    assert document["under"] == [GRID, GRID[:14], GRID[:12], GRID[:9], GRID[:6]]
    assert Event.read(event.body()).data == event.data


def test_a_report_above_the_ladder_waits_for_triage_at_the_last_level() -> None:
    (event,) = opened(division="469002").events
    assert event.data["state"]["address"] == {
        "level": "township",
        "division": "469002",
        "unit": None,
    }
    assert event.data["case"]["triage"] is True


def test_the_same_report_again_gives_the_same_and_another_is_refused() -> None:
    first = opened()
    again = opened(first.document)
    assert again.events == ()
    assert again.answer == first.answer
    with pytest.raises(Refused, match="use a new key"):
        opened(first.document, digest="d2")


def test_the_register_keeps_what_only_it_knows() -> None:
    document = opened(description="三晚不亮").document
    assert document is not None
    moved = Event.read(opened().events[0].body())
    moved.data["state"]["token"] = {"round": 1, "stage": "resolved", "hop": 2, "seq": 1}
    moved.data["state"]["resolution"] = {
        "outcome": "settled", "note": "", "by": "x", "at": NOW,
    }  # fmt: skip
    merged = model.merge(document, moved)
    assert merged["report"] == document["report"]
    assert merged["status"] == "resolved"
    assert not merged["late_custody"]


def test_a_case_is_found_where_it_happened_and_where_it_is() -> None:
    document = opened().document
    assert document is not None
    neighbour = Division("469002104205", "朝烈村", "village", "469002104", "village")
    (profile,) = ATLAS.current
    county = Atlas(Directory([*DIVISIONS, neighbour]), {profile.id: profile}, [profile.id])

    def after(hop: int, division: str) -> list[str]:
        moved = Event.read(opened().events[0].body())
        moved.data["state"]["token"] = {"round": 1, "stage": "held", "hop": hop, "seq": 0}
        moved.data["state"]["address"] |= {"level": "village", "division": division}
        decision = model.work(moved, county, NOW).change(Record("x", 1, document))
        assert decision.document is not None
        under: list[str] = decision.document["under"]
        return under

    happened = document["under"]
    assert after(1, GRID[:12]) == happened
    assert after(2, "469002104205") == [*happened, "469002104205"]
    # What the directory does not know is not forgotten.
    assert set(after(3, "999999")) >= set(happened)


def test_the_directory_says_what_the_folder_says_and_retires_the_rest() -> None:
    folder = Path(__file__).parents[1] / "end_to_end" / "quick"
    loaded = load_folder(folder)
    documents: dict[str, Document] = {}
    first = works(loaded, [], NOW, 1.0)
    for work in first:
        decision = work.change(Record(work.key))
        assert len(decision.events) == 1
        assert decision.document is not None
        documents[work.key] = decision.document
    # Nothing new: no event.
    for work in works(loaded, documents.values(), NOW, 2.0):
        assert work.change(Record(work.key, 1, documents[work.key])).events == ()
    fewer = replace(loaded, officers=loaded.officers[1:])
    changed = [
        (work.key, decision)
        for work in works(fewer, documents.values(), NOW, 3.0)
        if (decision := work.change(Record(work.key, 1, documents[work.key]))).events
    ]
    ((key, decision),) = changed
    assert key == "officer:h-007"
    assert decision.events[0].data["retired"] is True
    assert decision.events[0].data["version"] == 2


def resolved(atlas_: Any = ATLAS, at: str = NOW) -> Document:
    """A case that its household has settled."""
    document = opened().document
    assert document is not None
    state = document["state"]
    token = {**state["token"], "stage": "resolved", "seq": 2}
    said = {"outcome": "settled", "note": "", "by": "h-1", "at": at}
    return {
        **document,
        "facts": {**document["facts"], "profile": atlas_.current[0].id},
        "state": {**state, "token": token, "deadlines": [], "resolution": said},
        "status": "resolved",
    }


def reopened(atlas_: Any = ATLAS, after: float = 86400.0) -> Document:
    document = resolved(atlas_, plus(NOW, 1800))
    decision = model.reopen(document, "op", "又坏了", atlas=atlas_, now=plus(NOW, after))
    assert decision.document is not None
    return decision.document


@pytest.mark.parametrize(
    ("enter", "level"),
    [
        ("resolver", "household"),
        ("above", "group"),
        ("first", "household"),
        ("village", "village"),
        ("township", "township"),
    ],
)
def test_a_case_is_reopened_where_the_profile_says(enter: str, level: str) -> None:
    rules = {"reopening": {"enter": enter, "source": "assumption"}}
    document = reopened(atlas(**rules))
    state = document["state"]
    assert state["address"]["level"] == level
    assert state["token"] == {"round": 2, "stage": "held", "hop": 0, "seq": 0}
    assert state["acknowledged"] == (
        {"by": "h-1", "at": plus(NOW, 1800)} if level == "household" else None
    )


def test_the_time_already_spent_counts() -> None:
    """Half an hour of the household's day had gone when it was resolved."""
    state = reopened()["state"]
    dues = {item["kind"]: item["due"] for item in state["deadlines"]}
    assert "acknowledge" not in dues
    assert dues["resolve"] == plus(NOW, 86400 + 23.5 * 3600)


def test_a_clock_may_start_again() -> None:
    county = atlas(reopening={"enter": "resolver", "clock": "starts_again", "source": "assumption"})
    state = reopened(county)["state"]
    assert state["clocks"]["level"] == {"started_at": plus(NOW, 86400)}
    assert state["clocks"]["case"]["started_at"] == NOW


def test_only_a_resolved_case_is_reopened_and_once() -> None:
    document = opened().document
    assert document is not None
    with pytest.raises(Refused, match="this one is held"):
        model.reopen(document, "op", "又坏了", atlas=ATLAS, now=NOW)
    again = reopened()
    same = model.reopen(again, "op", "又坏了", atlas=ATLAS, now=plus(NOW, 90000))
    assert (same.events, same.document) == ((), again)
    with pytest.raises(Refused, match="this one is held"):
        model.reopen(again, "op", "还是坏的", atlas=ATLAS, now=plus(NOW, 90000))


def test_who_watches_a_case_is_told_with_a_version() -> None:
    at = {"atlas": ATLAS, "now": NOW}
    document = opened().document
    first = model.watch(document, "operator", ["officer:v-1"], **at)
    assert first.events[0].data["watchers"] == ["officer:v-1"]
    assert model.watch(first.document, "operator", ["officer:v-1"], **at).events == ()
    second = model.watch(first.document, "operator", ["desk:village:469002104214"], **at)
    said = {"note": "不再需要"}
    gone = model.watch(second.document, "operator", [], ["officer:v-1"], said=said, **at)
    assert gone.events[0].data["note"] == "不再需要"
    assert gone.events[0].data["watchers"] == ["desk:village:469002104214"]
    assert [decision.events[0].data["version"] for decision in (first, second, gone)] == [1, 2, 3]
    many = [f"officer:{number}" for number in range(model.MOST_WATCHERS + 1)]
    with pytest.raises(Refused, match="watch this case already") as raised:
        model.watch(document, "operator", many, **at)
    assert raised.value.facts == {"held_by": document["state"]["address"]}
