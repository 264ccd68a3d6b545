"""Scopes: an officer's part of the county, by division, level and unit."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.bus.access import Guard
from services.bus.auth import Identity
from services.bus.errors import Retry
from services.bus.problems import Problem
from services.grid.atlas import Atlas
from services.grid.directory import Directory, Division
from services.grid.profile import load_folder
from services.grid.scope import WHOLE, Scope
from services.grid.tokens import Address

QIONGHAI = load_folder(Path(__file__).parents[2] / "profiles" / "qionghai")
ATLAS = Atlas(QIONGHAI.directory, {QIONGHAI.profile.id: QIONGHAI.profile}, [QIONGHAI.profile.id])
SHAMEI = "469002104214"
GROUP, GRID = f"{SHAMEI}03", f"{SHAMEI}03007"
TEAM = f"{SHAMEI}-security"
OFFICER = Scope(SHAMEI, "village")


@pytest.mark.parametrize(
    ("scope", "address", "covered"),
    [
        (OFFICER, Address("village", SHAMEI), True),
        (OFFICER, Address("group", GROUP), True),
        (OFFICER, Address("household", GRID), True),
        # A lead stands in for the teams of the village.
        (OFFICER, Address("village", SHAMEI, TEAM), True),
        # Another village, the level above, a group's case that came to the township.
        (OFFICER, Address("village", "469002104205"), False),
        (OFFICER, Address("household", "46900210420501001"), False),
        (OFFICER, Address("township", "469002104"), False),
        (OFFICER, Address("township", SHAMEI), False),
        # The same village's group desk is not for an officer of a household grid.
        (Scope(GRID, "household"), Address("group", GROUP), False),
        (Scope(GRID, "household"), Address("household", GRID), True),
        (Scope(GRID, "household"), Address("household", f"{GROUP}008"), False),
        (Scope("469002104", "township"), Address("household", GRID), True),
        (Scope("469002", "county"), Address("township", "469002104"), True),
        (Scope("469002", "household"), Address("household", GRID), True),
        (Scope("469002", "household"), Address("village", SHAMEI), False),
        # A unit's officer: what is addressed to the unit, and nothing beside it.
        (Scope(SHAMEI, "village", TEAM), Address("village", SHAMEI, TEAM), True),
        (Scope(SHAMEI, "village", TEAM), Address("village", SHAMEI), False),
        (Scope(SHAMEI, "village", TEAM), Address("village", SHAMEI, f"{TEAM}2"), False),
        (Scope(SHAMEI, "village", TEAM), Address("household", GRID), False),
        # A prefix is not a parent, and what nobody knows is nowhere.
        (Scope("46900210421", "village"), Address("village", SHAMEI), False),
        (Scope("999999", "village"), Address("village", SHAMEI), False),
        (OFFICER, Address("village", "999999999999"), False),
        (Scope(SHAMEI, "emperor"), Address("village", SHAMEI), False),
        (Scope("469002"), Address("township", "469002104"), True),
        (Scope("469002"), Address("township", "110101001"), False),
        (WHOLE, Address("township", "110101001"), True),
    ],
)
def test_what_a_scope_covers(scope: Scope, address: Address, covered: bool) -> None:
    assert scope.covers(address, ATLAS) is covered


def test_levels_go_by_the_ladders_and_the_directory() -> None:
    assert ATLAS.levels_up_to("village") == {"village", "group", "household"}
    assert ATLAS.levels_up_to("county") == {"county", "township", "village", "group", "household"}
    assert ATLAS.levels_up_to("household") == {"household"}
    assert ATLAS.levels_up_to("emperor") == {"emperor"}
    # No ladder has the district; the directory says what is below it.
    estates = [
        Division("430182", "宁乡市", "county", None, "county"),
        Division("430182900", "片区", "district", "430182", "area"),
        Division("430182900001", "小区", "estate", "430182900", "estate"),
    ]
    atlas = Atlas(Directory(estates), {}, [])
    assert atlas.levels_up_to("district") == {"district", "estate"}
    # Whom two entries contradict about, neither is above for ever.
    circle = [
        Division("430182", "甲", "one", "430183", "county"),
        Division("430183", "乙", "two", "430182", "county"),
    ]
    assert Atlas(Directory(circle), {}, []).levels_up_to("one") == {"one", "two"}


@given(
    st.sampled_from(["household", "group", "village", "township"]),
    st.sampled_from([GRID, GROUP, SHAMEI, "469002104", "469002104205", "469002"]),
    st.sampled_from(["household", "group", "village", "township", "county"]),
    st.sampled_from([GRID, GROUP, SHAMEI, "469002104", "469002104205", "469002"]),
)
def test_who_is_above_covers_what_is_covered_below(
    level: str, division: str, higher: str, above: str
) -> None:
    below, wide = Scope(division, level), Scope(above, higher)
    address = Address(level, division)
    assert below.covers(address, ATLAS)
    contained = wide.covers_level(level, ATLAS) and wide.covers_division(division, ATLAS)
    assert wide.covers(address, ATLAS) is contained


# -- the guard -----------------------------------------------------------------------------


def guard(role: str = "officer", scope: Scope = OFFICER) -> Guard:
    return Guard(Identity("o-1", role, scope))


def test_a_list_is_narrowed_and_what_is_named_must_be_inside() -> None:
    assert guard().narrowed(ATLAS, None) == OFFICER
    assert guard().narrowed(ATLAS, GROUP) == Scope(GROUP, "village")
    assert guard().narrowed(ATLAS, None, "group") == OFFICER
    assert guard("operator", WHOLE).narrowed(ATLAS, GROUP) == Scope(GROUP)
    team = guard(scope=Scope(SHAMEI, "village", TEAM))
    assert team.narrowed(ATLAS, GROUP).unit == TEAM
    assert guard().narrowed(ATLAS, GROUP, "village", TEAM).unit == TEAM
    with pytest.raises(Problem):
        team.narrowed(ATLAS, GROUP, "village", "another")
    for division, level in (
        ("469002104", None),
        ("469002104205", None),
        ("999999", None),
        (None, "township"),
        (GROUP, "township"),
    ):
        with pytest.raises(Problem) as raised:
            guard().narrowed(ATLAS, division, level)
        assert raised.value.status == 403
        assert raised.value.facts["rule"] in raised.value.detail
        assert "division 469002104214, level village" in raised.value.detail


def test_a_desk_that_asks_reaches_no_further_than_its_level() -> None:
    county = Guard(Identity("o-1", "operator", WHOLE), desk="group")
    county.must_reach(ATLAS, Address("group", GROUP))
    for asking, address in (
        (county, Address("village", SHAMEI)),
        (county, Address("village", SHAMEI, TEAM)),
        (Guard(Identity("o-1", "officer", OFFICER), desk="group"), Address("village", SHAMEI)),
        (Guard(Identity("o-1", "officer", OFFICER), desk="township"), Address("township", SHAMEI)),
    ):
        with pytest.raises(Problem) as raised:
            asking.must_reach(ATLAS, address)
        assert f"at the {asking.desk} desk what is addressed to its" in raised.value.facts["rule"]


def test_one_of_several_addresses_is_enough() -> None:
    guard().must_reach(ATLAS, Address("village", "469002104205"), Address("village", SHAMEI))
    with pytest.raises(Problem):
        guard().must_reach(ATLAS, Address("township", SHAMEI))
    with pytest.raises(Problem):
        guard().must_reach(ATLAS)


def test_who_reports_sees_their_own() -> None:
    reporter = guard("reporter", WHOLE)
    assert reporter.reports
    reporter.must_have_reported("o-1")
    for other in ("o-2", None):
        with pytest.raises(Problem, match="what they reported themselves"):
            reporter.must_have_reported(other)
    assert reporter.asked
    assert not guard().reports


def test_nobody_is_refused_because_the_directory_is_late() -> None:
    empty = Atlas(Directory(), {}, [])
    with pytest.raises(Retry):
        guard().must_reach(empty, Address("village", SHAMEI))
    with pytest.raises(Retry):
        guard().narrowed(empty, None)
    guard("operator", WHOLE).must_reach(empty, Address("village", SHAMEI))
