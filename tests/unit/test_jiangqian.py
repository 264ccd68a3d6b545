"""Jiangqian in its own words: a liaison reports, 7 days in the village, 170, then the county."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.grid.clock import Instant, parse
from services.grid.preview import Preview, Step, preview
from services.grid.profile import load_folder

JIANGQIAN = load_folder(Path(__file__).parents[2] / "profiles" / "jiangqian")
# 协隆村1社1号联户员.
HOUSEHOLD = "63262320420301001"


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
