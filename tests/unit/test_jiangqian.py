"""Jiangqian in its own words: a liaison reports, 7 days in the village, 170, then the county."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.bus.problems import Problem
from services.bus.web import Call
from services.dispatch import api
from services.grid import moving, whistles
from services.grid.atlas import Atlas
from services.grid.clock import Instant, parse
from services.grid.directory import Directory, Division, Unit
from services.grid.preview import Preview, Step, preview
from services.grid.profile import load_folder, profile_at
from services.grid.tokens import Address
from services.intake import directory_api

JIANGQIAN = load_folder(Path(__file__).parents[2] / "profiles" / "jiangqian")
# 协隆村1社1号联户员.
HOUSEHOLD = "63262320420301001"
GADE, COMMANDER = "632623", "county-632623-commander"
VERSION = JIANGQIAN.profile.id
ATLAS = Atlas(JIANGQIAN.directory, {VERSION: JIANGQIAN.profile}, [VERSION])


def climbing(at: str, **facts: Any) -> Preview:
    told = {"category": "hardship", "urgency": "ordinary", "source": "household_visit", **facts}
    return preview(JIANGQIAN, told, HOUSEHOLD, parse(at))


def step(found: Preview, level: str) -> Step:
    return next(item for item in found.steps if item.address.level == level)


def due(found: Preview, level: str, kind: str = "resolve") -> Instant:
    deadlines = step(found, level).deadlines
    return Instant(next(item["due"] for item in deadlines if item["kind"] == kind))


def test_what_the_township_can_not_solve_goes_to_the_county_above_the_region() -> None:
    found = climbing("2026-11-03T08:00:00+08:00")
    assert [item.address.level for item in found.steps] == [
        *("household", "village", "township", "county")
    ]
    assert JIANGQIAN.profile.region == "632623204"
    assert step(found, "county").address.division == "632623"
    assert found.tell == ("632623",)
    assert found.warnings == ()


def test_everything_is_cleared_from_the_first_in_seven_days() -> None:
    # It comes to the township on the 5th: that month's 7th, to its end.
    assert due(climbing("2026-11-03T08:00:00+08:00"), "township") == "2026-11-07T16:00:00.000Z"
    # On the 8th: the next month's.
    assert due(climbing("2026-11-06T08:00:00+08:00"), "township") == "2026-12-07T16:00:00.000Z"
    # Over the end of the year.
    assert due(climbing("2026-12-20T08:00:00+08:00"), "township") == "2027-01-07T16:00:00.000Z"


def test_the_village_has_seven_days() -> None:
    found = climbing("2026-11-03T08:00:00+08:00")
    assert due(found, "village") == parse("2026-11-11T08:00:00+08:00")


def test_what_is_urgent_is_reported_on_its_own_and_the_village_is_told() -> None:
    # 曲江和昂文因为草山围栏产生纠纷, 联户员发现情况后第一时间上报.
    found = climbing("2026-11-20T01:00:00+08:00", category="dispute", urgency="urgent")
    assert found.steps[0].address.level == "township"
    assert found.also_tell == ("village",)
    # The monthly window passes it by.
    assert due(found, "township") == parse("2026-11-22T01:00:00+08:00")
    # 凌晨1点多给乡党委书记报告, 他所在的网格区有从西藏返回人员进入.
    epidemic = climbing("2026-02-20T01:00:00+08:00", category="epidemic")
    assert due(epidemic, "township", "acknowledge") == parse("2026-02-20T02:00:00+08:00")


def duty(level: str, division: str, atlas: Atlas = ATLAS) -> dict[str, Any]:
    desk: Any = SimpleNamespace(
        config=SimpleNamespace(level=level),
        county=SimpleNamespace(atlas=lambda: atlas),
        now=parse("2026-11-03T08:00:00+08:00"),
    )
    query = {"division": division, "at": None, "cursor": None, "limit": 20}
    return api.duty(desk, Call(query=query), level)


def test_who_is_on_duty_in_the_county_above_the_region_is_known() -> None:
    (place,) = duty("county", GADE)["places"]
    assert [item["id"] for item in place["officers"]] == ["county-632623-summary"]
    assert duty("county", HOUSEHOLD)["places"] == [place]


def test_a_place_to_which_no_ladder_leads_is_named_and_not_waited_for() -> None:
    other = Division("430182", "宁乡市", "county", None, "county")
    known = [*JIANGQIAN.directory.divisions.values(), other]
    atlas = Atlas(Directory(known), ATLAS.profiles, [VERSION])
    with pytest.raises(Problem, match="no profile's ladder leads to the county of 430182"):
        duty("county", "430182", atlas)
    assert profile_at(atlas.current, "county", GADE, atlas.directory) == JIANGQIAN.profile
    assert profile_at(atlas.current, "region", GADE, atlas.directory) is None


def test_an_operator_says_who_is_away_in_the_county_above_the_region() -> None:
    leave = {"first": "2026-12-01", "last": "2026-12-03"}
    body = directory_api.DirectoryBody().load(
        {"duties": [{"officer": COMMANDER, "leaves": [leave]}]}
    )
    (wanted,), errors = directory_api._read(body, ATLAS, {})
    assert errors == {}
    assert (wanted.entry["division"], wanted.entry["timezone"]) == (GADE, "Asia/Shanghai")


def test_the_county_above_the_region_has_units_of_its_own() -> None:
    unit = Unit("632623-relief", "民政局", "county", GADE)
    directory = Directory(JIANGQIAN.directory.divisions.values(), [unit])
    here, profile = Address("county", GADE), JIANGQIAN.profile
    to = moving.target(
        *("delegate", {"unit": "民政局"}, here),
        profile=profile,
        ladder="default",
        directory=directory,
    )
    assert to == Address("county", GADE, unit.id)
    said = [{"unit": "民政局"}]
    township = Address("township", profile.region)
    assert whistles.named(said, township, profile, directory) == [unit]
