"""宁乡市大成桥镇“1＋1” on real servers: 网格管理员在1天内上报问题信息，社团在1天内解决到位."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deploy.local.stack import Stack
from services.grid.clock import Instant, parse, plus
from tests.end_to_end.county import County, eventually

DACHENGQIAO = str(Path(__file__).parents[2] / "profiles" / "dachengqiao")
# 大成桥村3组.
GRID, TOWN = "43018211920903", "430182119"
PEACE, CUSTOMS = f"{TOWN}-peace", f"{TOWN}-customs"
DAY = 86400
MANAGER = "group-43018211920903"  # 网格管理员
PEACE_MEMBER = "unit-430182119-peace-member"  # 惠成平安服务中心
PEACE_LEAD = "unit-430182119-peace"  # 平安服务中心理事长
CUSTOMS_MEMBER = "unit-430182119-customs-member"  # 文明劝导服务中心
TOWN_LEAD = "township-430182119"  # 镇党委政府


@pytest.fixture(scope="module")
def dachengqiao(make_stack: Callable[..., Stack]) -> County:
    """It is Monday morning; a day is twelve seconds."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    stack = make_stack(
        PROFILES=DACHENGQIAO, TIME_SCALE="7200", TIME_ANCHOR=f"{now}/2026-03-02T01:00:00Z"
    )
    county = County(stack)
    county.let(MANAGER, "officer", GRID, "group")
    county.let(PEACE_MEMBER, "officer", TOWN, "township", PEACE)
    county.let(PEACE_LEAD, "lead", TOWN, "township", PEACE)
    county.let(CUSTOMS_MEMBER, "officer", TOWN, "township", CUSTOMS)
    county.let(TOWN_LEAD, "lead", TOWN, "township")
    return county


def reported(county: County, **more: Any) -> str:
    said = {"category": "dispute", "urgency": "ordinary", "source": "grid", **more}
    return county.report(GRID, **said)


def done(county: County, level: str, case: str, action: str, who: str, **body: Any) -> Any:
    county.arrived(level, case)
    answer = county.act(level, case, action, who, **body)
    assert answer.status_code in (200, 202), answer.text
    return answer.json()


def due(entry: dict[str, Any], kind: str = "resolve") -> Instant:
    return Instant(next(item["due"] for item in entry["deadlines"] if item["kind"] == kind))


def title(county: County, case: str) -> str:
    code = county.case(case)["tracking"]
    found = county.ask("GET", f"{county.about['intake']}/v1/tracking/{code}").json()
    return str(found["level_title"])


def test_one_day_to_report_and_one_day_to_settle(dachengqiao: County) -> None:
    """一员采集、联动处置, “小事不出村、大事不出镇、矛盾不上交”."""
    case = reported(dachengqiao, title="邻里为麻将馆争吵")
    collected = dachengqiao.arrived("group", case)
    assert due(collected, "report") == plus(Instant(collected["arrived_at"]), DAY)
    done(dachengqiao, "group", case, "escalate", MANAGER, reason="触发社团服务")
    entry = dachengqiao.arrived("township", case)
    assert entry["address"] == {"level": "township", "division": TOWN, "unit": PEACE}
    assert due(entry) == plus(Instant(entry["arrived_at"]), DAY)
    assert title(dachengqiao, case) == "惠成平安服务中心"
    # Another association has nothing to do with it.
    refused = dachengqiao.act("township", case, "acknowledge", CUSTOMS_MEMBER)
    assert refused.status_code == 403, refused.text
    done(dachengqiao, "township", case, "resolve", PEACE_MEMBER, outcome="mediated")
    dachengqiao.settled_everywhere(case)
    url = f"{dachengqiao.about['desks']['township']}/v1/desks/township/rates"
    rates = dachengqiao.ask("GET", url, PEACE_MEMBER).json()
    assert (rates["unit"], rates["counts"]["on_time"]) == (PEACE, rates["counts"]["completed"])
    # 引路、反馈、评价: the grid manager asks who reported it.
    feedback = f"{dachengqiao.about['intake']}/v1/cases/{case}/feedback"
    told = eventually("the question", lambda: dachengqiao.case(case)["status"] == "resolved")
    assert told
    answer = dachengqiao.ask("POST", feedback, json={"satisfied": True, "score": 5})
    assert (answer.status_code, answer.json()["status"]) == (200, "closed")


def test_what_is_not_reported_in_a_day_goes_to_the_association_and_from_there_to_the_town(
    dachengqiao: County,
) -> None:
    """Nobody answers: a day, and another, and the town has it."""
    case = reported(dachengqiao, title="酒席大操大办", category="customs")
    first = dachengqiao.arrived("group", case)
    entry = dachengqiao.arrived("township", case)
    assert entry["address"]["unit"] == CUSTOMS
    assert entry["arrived_at"] == due(first, "report")
    (passed,) = eventually(
        "its timeline", lambda: dachengqiao.timeline(case, "case.deadline_passed")
    )
    assert passed["data"]["passed"]["kind"] == "report"
    last = eventually(
        "the town has it",
        lambda: found if (found := dachengqiao.case(case))["token"]["hop"] == 2 else None,
    )
    assert (last["address"]["unit"], last["address"]["level"]) == (None, "township")
    assert title(dachengqiao, case) == "镇党委政府"
    # The town answers for it within a day, or is supervised.
    dachengqiao.arrived("township", case)
    done(dachengqiao, "township", case, "resolve", TOWN_LEAD, outcome="persuaded")
    dachengqiao.settled_everywhere(case)


def answered(county: County, who: str, case: str, how: str) -> None:
    """``who`` finds what is asked for in their list, and answers it."""
    url = f"{county.about['desks']['township']}/v1/desks/township/extensions"

    def asked() -> list[dict[str, Any]]:
        listed = county.ask("GET", url, who, params={"status": "asked"}).json()["extensions"]
        return [item for item in listed if item["case"] == case]

    (found,) = eventually(f"what {who} is asked for", asked)
    answer = county.ask("POST", f"{url}/{found['id']}/{how}", who, json={"note": "同意"})
    assert answer.status_code == 200, answer.text


def test_more_time_is_asked_of_the_next_step_an_association_or_the_town(
    dachengqiao: County,
) -> None:
    case = reported(dachengqiao, title="土地界线不清")
    before = due(dachengqiao.arrived("group", case))
    done(dachengqiao, "group", case, "extend", MANAGER, by="1d", reason="等测量")
    answered(dachengqiao, PEACE_LEAD, case, "grant")
    eventually(
        "more time for the grid manager",
        lambda: due(dachengqiao.arrived("group", case)) == plus(before, DAY),
    )
    done(dachengqiao, "group", case, "escalate", MANAGER, reason="触发社团服务")
    before = due(dachengqiao.arrived("township", case))
    done(dachengqiao, "township", case, "extend", PEACE_MEMBER, by="1d", reason="双方在外")
    # The unit's own lead is not who is asked.
    url = f"{dachengqiao.about['desks']['township']}/v1/desks/township/extensions"
    listed = dachengqiao.ask("GET", url, PEACE_LEAD, params={"status": "asked"}).json()
    assert listed["extensions"] == []
    answered(dachengqiao, TOWN_LEAD, case, "grant")
    eventually(
        "more time for the association",
        lambda: due(dachengqiao.arrived("township", case)) == plus(before, DAY),
    )
    done(dachengqiao, "township", case, "return", PEACE_MEMBER, reason="请网格管理员引路")
    entry = eventually(
        "it is back in the grid",
        lambda: found if (found := dachengqiao.arrived("group", case))["hop"] == 2 else None,
    )
    assert entry["address"]["division"] == GRID
    done(dachengqiao, "group", case, "resolve", MANAGER, outcome="mediated")
    dachengqiao.settled_everywhere(case)


def test_an_order_and_a_service_on_the_list_are_the_associations_at_once(
    dachengqiao: County,
) -> None:
    """“清单化”日常服务: 月度节点; “订单化”专项服务: 群众吹哨、任务指派、自愿领办."""
    listed = reported(dachengqiao, title="月度劝导计划", category="customs", source="list")
    ordered = reported(dachengqiao, title="请来村里巡逻", category="safety", source="whistle")
    entry = dachengqiao.arrived("township", listed)
    assert (entry["hop"], entry["address"]["unit"]) == (0, CUSTOMS)
    assert due(entry) == parse("2026-03-29T00:00:00+08:00")
    entry = dachengqiao.arrived("township", ordered)
    assert (entry["hop"], entry["address"]["unit"]) == (0, PEACE)
    assert due(entry) == plus(Instant(entry["arrived_at"]), 7 * DAY)
    done(dachengqiao, "township", ordered, "resolve", PEACE_MEMBER, outcome="served")
    done(dachengqiao, "township", listed, "resolve", CUSTOMS_MEMBER, outcome="served")
    for case in (listed, ordered):
        dachengqiao.settled_everywhere(case)
