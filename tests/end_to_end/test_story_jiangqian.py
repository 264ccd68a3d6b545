"""甘德县江千乡“四级联户制” on real servers: 事事有回应、件件有落实."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deploy.local.stack import Stack
from services.grid.clock import Instant, parse, plus
from tests.end_to_end.county import County, eventually

JIANGQIAN = str(Path(__file__).parents[2] / "profiles" / "jiangqian")
# 协隆村1社1号联户员.
HOUSEHOLD, VILLAGE, TOWNSHIP, GADE = "63262320420301001", "632623204203", "632623204", "632623"
CLEARED = parse("2026-11-08T00:00:00+08:00")
"""The end of the 7th."""
LIAISON = "household-63262320420301001"  # 联户员
GRID_LEAD = "village-632623204203"  # 网格长
SECRETARY = "township-632623204-commander"  # 乡级指挥长
COMMANDER = "county-632623-commander"  # 总指挥长


@pytest.fixture(scope="module")
def jiangqian(make_stack: Callable[..., Stack]) -> County:
    """It is half past midnight on the 7th of November: it ends in 94 seconds, an hour is four."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    stack = make_stack(
        PROFILES=JIANGQIAN, TIME_SCALE="900", TIME_ANCHOR=f"{now}/2026-11-06T16:30:00Z"
    )
    county = County(stack)
    county.let(LIAISON, "officer", HOUSEHOLD, "household")
    county.let(GRID_LEAD, "lead", VILLAGE, "village")
    county.let(SECRETARY, "lead", TOWNSHIP, "township")
    county.let(COMMANDER, "lead", GADE, "county")
    return county


def reported(county: County, **more: Any) -> str:
    said = {"category": "hardship", "urgency": "ordinary", "source": "household_visit", **more}
    return county.report(HOUSEHOLD, **said)


def done(county: County, level: str, case: str, action: str, who: str, **body: Any) -> Any:
    county.arrived(level, case)
    answer = county.act(level, case, action, who, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def up(county: County, case: str) -> dict[str, Any]:
    """The liaison and the village pass it on; the township's entry."""
    done(county, "household", case, "escalate", LIAISON, reason="联户员解决不了")
    done(county, "village", case, "escalate", GRID_LEAD, reason="村里解决不了")
    return county.arrived("township", case)


def due(entry: dict[str, Any], kind: str = "resolve") -> Instant:
    return Instant(next(item["due"] for item in entry["deadlines"] if item["kind"] == kind))


@pytest.fixture(scope="module", autouse=True)
def before_the_seventh_ends(jiangqian: County) -> tuple[str, str]:
    """Two cases at the township, whose month ends with the 7th.

    Until then there is time for the stories to which the day does not matter.
    """
    assert jiangqian.clock.now() < CLEARED, "the stack took too long to start"
    settled = reported(jiangqian, title="一户无草山、无经济收入")
    left = reported(jiangqian, title="草山围栏损坏")
    assert {due(up(jiangqian, case)) for case in (settled, left)} == {CLEARED}
    return settled, left


def test_the_village_settles_it_within_seven_days(jiangqian: County) -> None:
    """在7天内解决做到“事事有回应、件件有落实”."""
    case = reported(jiangqian, category="sanitation", title="垃圾点无人清理")
    done(jiangqian, "household", case, "escalate", LIAISON, reason="要全村一起打扫")
    entry = jiangqian.arrived("village", case)
    assert due(entry) == plus(Instant(entry["arrived_at"]), 7 * 86400)
    done(jiangqian, "village", case, "resolve", GRID_LEAD, outcome="settled")
    jiangqian.settled_everywhere(case)


def test_what_is_urgent_goes_another_way_and_may_be_settled_in_the_village(
    jiangqian: County,
) -> None:
    """可以单独上报; 面对面疏导调节，将矛盾解决在了村级层面."""
    case = reported(jiangqian, title="草山围栏纠纷", category="dispute", urgency="urgent")
    entry = jiangqian.arrived("township", case)
    assert (entry["hop"], entry["address"]["division"]) == (0, TOWNSHIP)
    # Neither the liaison's days nor the monthly window.
    assert due(entry) == plus(Instant(entry["arrived_at"]), 2 * 86400)
    done(
        jiangqian,
        *("township", case, "delegate", SECRETARY),
        **{"reason": "面对面疏导调节", "to": {"division": VILLAGE}},
    )
    done(jiangqian, "village", case, "resolve", GRID_LEAD, outcome="mediated")
    jiangqian.settled_everywhere(case)
    assert jiangqian.case(case)["address"]["level"] == "village"


def test_what_is_urgent_and_not_answered_goes_to_the_county_within_the_hour(
    jiangqian: County,
) -> None:
    """紧急事情有提醒功能."""
    case = reported(jiangqian, title="大雪压垮牛棚", category="weather", urgency="urgent")
    entry = jiangqian.arrived("county", case)
    began = Instant(jiangqian.case(case)["reported_at"])
    assert entry["arrived_at"] == plus(began, 3600)
    done(jiangqian, "county", case, "resolve", COMMANDER, outcome="relief")
    told = eventually("its timeline", lambda: jiangqian.timeline(case, "case.escalated"))
    assert told[0]["data"]["reason"] == "deadline_missed"


def test_from_the_first_in_seven_days_everything_is_cleared(
    jiangqian: County, before_the_seventh_ends: tuple[str, str]
) -> None:
    """每个月1号开始，利用7天时间，将所有排查出来的问题清零; 乡级解决不了的问题，上报县级."""
    settled, left = before_the_seventh_ends
    # 乡党委利用“170”工作处理机制，给予了……临时救助.
    done(jiangqian, "township", settled, "resolve", SECRETARY, outcome="relief")
    done(jiangqian, "township", left, "acknowledge", SECRETARY)
    # What is not cleared goes to the county when the 7th has ended.
    eventually("the end of the 7th", lambda: jiangqian.clock.now() > CLEARED, seconds=150)
    entry = jiangqian.arrived("county", left)
    assert (entry["address"]["division"], entry["arrived_at"]) == (GADE, CLEARED)
    assert entry["assigned"]["officer"] == "county-632623-summary"
    (passed,) = eventually("its timeline", lambda: jiangqian.timeline(left, "case.deadline_passed"))
    assert passed["data"]["passed"]["kind"] == "resolve"
    done(jiangqian, "county", left, "resolve", COMMANDER, outcome="settled")
    for case in (settled, left):
        jiangqian.settled_everywhere(case)
    assert jiangqian.case(settled)["address"]["level"] == "township"


def test_what_is_found_after_the_seventh_has_the_next_month(jiangqian: County) -> None:
    jiangqian.until(CLEARED)
    case = reported(jiangqian, title="饮水点冻住")
    assert due(up(jiangqian, case)) == parse("2026-12-08T00:00:00+08:00")
