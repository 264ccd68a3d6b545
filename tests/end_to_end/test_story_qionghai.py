"""琼海市“四级化事法” on real servers: 琐事不出户、小事不出组、大事不出村、难事不出镇."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deploy.local.stack import Stack
from services.grid.clock import Instant
from tests.end_to_end.county import GRID, County, eventually

PROFILES = Path(__file__).parents[2] / "profiles"
THREE = {
    "qionghai": (GRID, "household", "household_visit", "livelihood"),
    "jiangqian": ("63262320420301001", "household", "household_visit", "hardship"),
    "dachengqiao": ("43018211920903", "group", "grid", "relief"),
}
GROUP, VILLAGE, TOWNSHIP = "46900210421403", "469002104214", "469002104"
SIX = ("proposed", "discussed", "considered", "decided", "decision_announced", "result_announced")
CONTACT = "household-46900210421403007"  # 户网格员
GROUP_LEAD = "group-46900210421403"  # 党小组长
BRANCH = "village-469002104214"  # 村党支部
TEAM = "unit-469002104214-security-night"  # 治安联防队
TOWN = "township-469002104"  # 镇党委
PLATFORMS = ("enforcement", "market")  # 综合执法平台, 市场监管平台


@pytest.fixture(scope="module")
def qionghai(make_stack: Callable[..., Stack]) -> County:
    """It is Monday, nine in the morning; an hour is six seconds. All three counties are there."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    stack = make_stack(
        PROFILES=",".join(str(PROFILES / name) for name in THREE),
        TIME_SCALE="600",
        TIME_ANCHOR=f"{now}/2026-03-02T01:00:00Z",
    )
    county = County(stack)
    county.let(CONTACT, "officer", GRID, "household")
    county.let(GROUP_LEAD, "lead", GROUP, "group")
    county.let(BRANCH, "lead", VILLAGE, "village")
    county.let(TEAM, "officer", VILLAGE, "village", f"{VILLAGE}-security")
    county.let(TOWN, "lead", TOWNSHIP, "township")
    return county


def done(county: County, level: str, case: str, action: str, who: str, **body: Any) -> Any:
    answer = county.act(level, case, action, who, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def at_the_village(county: County, **more: Any) -> str:
    case = county.report(VILLAGE, source="hotline", **more)
    county.arrived("village", case)
    return case


def due(entry: dict[str, Any], kind: str = "resolve") -> Instant:
    return Instant(next(item["due"] for item in entry["deadlines"] if item["kind"] == kind))


def test_trivial_matters_do_not_leave_the_household_and_small_ones_not_the_group(
    qionghai: County,
) -> None:
    """琐事困难我来办; 使矛盾不积聚、不过夜."""
    trivial = qionghai.report(category="consultation", source="household_visit")
    small = qionghai.report(category="dispute", source="household_visit", title="宅基地滴水纠纷")
    qionghai.arrived("household", trivial)
    done(qionghai, "household", trivial, "resolve", CONTACT, outcome="explained")
    qionghai.arrived("household", small)
    done(qionghai, "household", small, "escalate", CONTACT, reason="依靠自身力量无法解决")
    entry = qionghai.arrived("group", small)
    # 小事不过夜: to the end of that Monday.
    assert due(entry) == "2026-03-02T16:00:00.000Z"
    done(qionghai, "group", small, "resolve", GROUP_LEAD, outcome="mediated", note="面对面协调")
    for case, level in ((trivial, "household"), (small, "group")):
        qionghai.settled_everywhere(case)
        assert qionghai.case(case)["address"]["level"] == level


def test_a_matter_of_the_village_is_one_matter_one_meeting_one_decision(qionghai: County) -> None:
    """对于本村一般事项，由村党支部按照“一事一议一决”办法处理."""
    case = at_the_village(qionghai, title="自来水时断时续", category="facility")
    refused = qionghai.act("village", case, "resolve", BRANCH, outcome="settled")
    assert refused.status_code == 409, refused.text
    assert refused.json()["missing"] == [{"id": "decided", "title": "一事一议一决"}]
    noted = done(
        qionghai, "village", case, "note", BRANCH, note="换水泵，十五户均摊", step="decided"
    )
    assert noted["procedure"]["steps"][0]["done"]["by"] == BRANCH
    done(qionghai, "village", case, "resolve", BRANCH, outcome="settled")
    qionghai.settled_everywhere(case)


def test_what_is_professional_and_urgent_is_the_teams_at_the_village(qionghai: County) -> None:
    """按问题类型和紧急程度流转督办; 由村治安联防队、民生保障队、志愿服务队到现场协调处理."""
    case = qionghai.report(title="夜间多辆电动车被盗", category="public_order", urgency="urgent")
    qionghai.arrived("household", case)
    done(qionghai, "household", case, "escalate", CONTACT, reason="需要联防队")
    qionghai.arrived("group", case)
    done(qionghai, "group", case, "escalate", GROUP_LEAD, reason="需要联防队")
    entry = qionghai.arrived("village", case)
    assert entry["address"]["unit"] == f"{VILLAGE}-security"
    assert entry["procedure"] is None
    tracking = f"{qionghai.about['intake']}/v1/tracking/{entry['tracking']}"

    def shown() -> bool:
        return bool(qionghai.ask("GET", tracking).json()["level_title"] == "治安联防队到现场")

    eventually("whoever knows the code sees the team", shown)
    done(qionghai, "village", case, "acknowledge", TEAM)
    done(qionghai, "village", case, "resolve", TEAM, outcome="settled", note="已追回")
    qionghai.settled_everywhere(case)


def test_a_major_matter_takes_four_deliberations_and_two_announcements(qionghai: County) -> None:
    """对于村级重大事项，按“四议两公开”议事决策程序处理."""
    case = qionghai.report(GRID, title="清退鱼虾塘复植红树林", category="village_affairs")
    entry = qionghai.arrived("village", case)
    assert [step["id"] for step in entry["procedure"]["steps"]] == list(SIX)
    assert entry["procedure"]["title"]["zh"] == "四议两公开"
    early = qionghai.act("village", case, "note", BRANCH, note="村民代表会议", step="decided")
    assert early.status_code == 409, early.text
    assert "村党支部提议、村“两委”商议、党员大会审议 comes first" in early.json()["detail"]
    wrong = qionghai.act("village", case, "note", BRANCH, note="表决", step="voted")
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "step")
    for number, step in enumerate(SIX):
        refused = qionghai.act("village", case, "resolve", BRANCH, outcome="settled")
        assert refused.status_code == 409, refused.text
        assert [item["id"] for item in refused.json()["missing"]] == list(SIX[number:])
        done(qionghai, "village", case, "note", BRANCH, note="见会议记录", step=step)
    # Nobody gives the authority to settle what is major.
    refused = qionghai.act(
        "village",
        case,
        "delegate",
        BRANCH,
        reason="组里办",
        to={"division": GROUP},
        authorise=True,
    )
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "authorise")
    done(qionghai, "village", case, "resolve", BRANCH, outcome="settled")
    qionghai.settled_everywhere(case)
    assert [item["step"] for item in qionghai.case(case)["steps"]] == list(SIX)
    noted = [event["data"]["note"]["step"] for event in qionghai.timeline(case, "case.noted")]
    assert noted == list(SIX)


def test_the_township_authorises_the_village_to_settle_it(qionghai: County) -> None:
    """对日常一般性事件，第一时间启动联动程序协调处置，也可授权到任一级解决."""
    case = at_the_village(qionghai, title="垃圾池满溢", category="environment")
    done(qionghai, "village", case, "escalate", BRANCH, reason="第一时间上报镇党委")
    qionghai.arrived("township", case)
    told = done(
        qionghai,
        *("township", case, "delegate", TOWN),
        **{"reason": "授权到村解决", "to": {"division": VILLAGE}, "authorise": True},
    )
    assert told["request"]["authorise"] is True
    entry = eventually(
        "the village has it again",
        lambda: found if (found := qionghai.arrived("village", case))["hop"] == 2 else None,
    )
    given = entry["authority"]
    assert (given["level"], given["division"], given["by"]) == ("township", TOWNSHIP, TOWN)
    assert given["source"].endswith("也可授权到任一级解决")
    assert entry["procedure"] is None
    done(qionghai, "village", case, "resolve", BRANCH, outcome="settled")
    qionghai.settled_everywhere(case)
    assert qionghai.case(case)["authority"] == given


def test_a_hotspot_is_settled_by_joint_action_which_the_township_leads(qionghai: County) -> None:
    """对于热点难点问题，由“云管家”牵头，适时组织相关单位开展专项联动."""
    case = at_the_village(qionghai, title="夜市占道扰民", category="environment")
    done(qionghai, "village", case, "escalate", BRANCH, reason="热点难点，需联合处置")
    qionghai.arrived("township", case)
    platforms = {f"{TOWNSHIP}-{name}": f"unit-{TOWNSHIP}-{name}" for name in PLATFORMS}
    blown = done(
        qionghai,
        "township",
        case,
        "whistle",
        TOWN,
        units=[{"unit": "综合执法平台"}, {"unit": "市场监管平台"}],
        lead="综合执法平台",
        reason="开展专项联动",
    )
    assert {item["unit"]: item["lead"] for item in blown["joined"]} == {
        f"{TOWNSHIP}-enforcement": True,
        f"{TOWNSHIP}-market": False,
    }
    desk = f"{qionghai.about['desks']['township']}/v1/desks/township/calls"
    for unit, lead in platforms.items():
        qionghai.let(lead, "lead", TOWNSHIP, "township", unit)

        def called(lead: str = lead) -> list[dict[str, Any]]:
            found = qionghai.ask("GET", desk, lead, params={"status": "called"}).json()["calls"]
            return [item for item in found if item["case"] == case]

        (call,) = eventually(f"{unit} is called", called)
        for what in ("check-in", "finish"):
            said = qionghai.ask("POST", f"{desk}/{call['id']}/{what}", lead, json={"note": "到场"})
            assert said.status_code == 200, said.text
    # 事不绝、人不撤: who is done stays until the township lets them go.
    eventually(
        "the township knows",
        lambda: all(
            item["finished"] and item["released"] is None
            for item in qionghai.latest("township", case).json()["joined"]
        ),
    )
    scores = dict.fromkeys(platforms, 5)
    done(qionghai, "township", case, "resolve", TOWN, outcome="settled", scores=scores)
    qionghai.settled_everywhere(case)
    released = {item["unit"]: item["released"] for item in qionghai.case(case)["joined"]}
    assert {unit: item["score"] for unit, item in released.items()} == scores


def test_a_grave_incident_goes_to_the_township_at_once_and_the_village_is_told(
    qionghai: County,
) -> None:
    """对重大事故或社会性群体事件，第一时间启动应急响应机制，联合市镇职能部门力量处置."""
    case = qionghai.report(title="台风后道路塌方", category="emergency", urgency="emergency")
    entry = qionghai.arrived("township", case)
    assert entry["hop"] == 0
    done(qionghai, "township", case, "acknowledge", TOWN)
    told = eventually(
        "the village is told",
        lambda: [
            event
            for event in qionghai.timeline(case, "notification.delivered")
            if event["data"]["notification"]["recipient"] == f"desk:village:{VILLAGE}"
        ],
    )
    assert told[0]["data"]["notification"]["about"] == "case.reported"
    url = f"{qionghai.about['intake']}/v1/emergencies/{VILLAGE}"
    begun = qionghai.ask("POST", f"{url}/begin", json={"reason": "台风登陆"})
    assert begun.status_code == 200, begun.text
    moved = qionghai.report(title="房屋进水", category="safety", urgency="urgent")
    assert qionghai.arrived("township", moved)["emergency"] == f"{VILLAGE}.1"
    for each in (case, moved):
        done(qionghai, "township", each, "resolve", TOWN, outcome="settled")
    assert qionghai.ask("POST", f"{url}/end", json={"reason": "台风过境"}).status_code == 200


def test_each_county_has_its_own_rules_in_one_stack(qionghai: County) -> None:
    assert set(qionghai.about["desks"]) == {"household", "group", "village", "township", "county"}
    for name, (division, level, source, category) in THREE.items():
        case = qionghai.report(division, source=source, category=category)
        assert qionghai.arrived(level, case)["assigned"]["why"] == "on duty"
        assert qionghai.case(case)["profile"].startswith(f"{name}@")
