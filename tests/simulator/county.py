"""A small county for histories: two villages, four levels, two units, rotas, no names."""

from __future__ import annotations

from typing import Any

from services.grid.atlas import Atlas
from services.grid.directory import Directory, Division, Officer, Unit
from services.grid.duty import Duty
from services.grid.profile import Profile

GRID = "46900210421403007"
LEVELS = ("household", "group", "village", "township")
UNIT = "centre"
TEAM = "team"
PLACES: dict[str, tuple[str, str]] = {
    "household": (GRID, "46900210420501001"),
    "group": ("46900210421403", "46900210420501"),
    "village": ("469002104214", "469002104205"),
    "township": ("469002104", "469002104"),
}
"""Two places of each level; the township and the first village have a unit besides."""

RULES: dict[str, Any] = {
    "profile": "sample",
    "title": {"zh": "样例", "en": "Sample"},
    "region": "469002",
    "timezone": "Asia/Shanghai",
    "ladders": {"default": [{"level": level, "title": level} for level in LEVELS]},
    "categories": {
        "facility": {"zh": "设施", "en": "Facility"},
        "order": {"zh": "治安", "en": "Public order"},
    },
    "urgencies": {
        "ordinary": {"zh": "一般", "en": "Ordinary"},
        "urgent": {"zh": "紧急", "en": "Urgent"},
    },
    "sources": {"app": {"zh": "手机", "en": "App"}},
    "outcomes": {"settled": {"zh": "办结", "en": "Settled"}},
    "routing": [
        {"when": {"category": "order"}, "enter": {"level": "village", "unit": "治安联防队"}}
    ],
    "unstaffed": "deputy",
    "grace": "10m",
    "deadlines": [
        {
            "level": "household",
            "acknowledge": "2h",
            "resolve": "1d",
            "progress": "6h",
            "remind": ["50%"],
            "source": "assumption",
        },
        {
            "level": "group",
            "acknowledge": "2h",
            "resolve": "12h",
            "progress": "2h",
            "source": "assumption",
        },
        {
            "level": "village",
            "when": {"unit": "治安联防队"},
            "acknowledge": "1h",
            "resolve": "2d",
            "progress": "2h",
            "source": "assumption",
        },
        {"level": "village", "acknowledge": "4h", "resolve": "3d", "source": "assumption"},
        {
            "level": "township",
            "acknowledge": "4h",
            "resolve": "7d",
            "progress": "3h",
            "then": {"supervise": "1d", "tell": ["469002"]},
            "source": "assumption",
        },
    ],
    "suspensions": {
        "waiting": {
            "title": {"zh": "待补充", "en": "Waiting"},
            "stops": ["level", "case"],
            "longest": "2d",
            "times": 2,
            "source": "assumption",
        },
    },
    "extension": {"longest": "1d", "source": "assumption"},
    "reopening": {"enter": "resolver", "supervise_after": 1, "source": "assumption"},
    "feedback": {"ask": "3d", "source": "assumption"},
    "whistle": [
        {
            "when": {"unit": "治安联防队"},
            "check_in": "30m",
            "finish": "6h",
            "supervise": "any",
            "source": "assumption",
        },
        {"check_in": "1h", "finish": "end_of_day", "source": "assumption"},
    ],
    "emergency": {
        "title": {"zh": "战时机制", "en": "Emergency mode"},
        "source": "assumption",
        "routing": [{"when": {"urgency": "urgent"}, "enter": "village", "source": "assumption"}],
        "deadlines": [
            {"level": "household", "acknowledge": "1h", "resolve": "3h", "source": "assumption"},
            {"level": "village", "acknowledge": "1h", "resolve": "6h", "source": "assumption"},
        ],
        "command": {"household": "township"},
    },
    "templates": [
        {"on": "case.assigned", "tell": ["holder"], "by": ["log"], "text": "{title} {tracking}"},
        {"on": "case.closed", "tell": ["holder"], "by": ["log"], "text": "{title}"},
        {"on": "case.called", "tell": ["called"], "by": ["log"], "text": "{unit} {due}"},
        {
            "on": "case.unit_overdue",
            "tell": ["holder", "called", "called_above"],
            "by": ["log"],
            "text": "{unit}",
        },
        {"on": "case.supervised", "tell": ["told", "above"], "by": ["log"], "text": "{title}"},
    ],
}

SHORTER = {**RULES["reopening"], "clock": "starts_again", "shorter": "50%"}
"""A reopening with half of the time."""

STEPS: dict[str, Any] = {
    "ladders": {
        "default": [
            {"level": "household", "title": "户联系"},
            {"level": "group", "title": "组协调"},
            {"level": "village", "unit": "治安联防队", "title": "联防队到现场"},
            {"level": "township", "unit": "综治中心", "title": "综治中心化解"},
            {"level": "township", "title": "云化解"},
        ]
    },
    "procedures": [
        {
            "title": {"zh": "四议两公开", "en": "Procedure"},
            "level": level,
            "when": {"category": "facility"},
            "steps": [
                {"id": "proposed", "title": "提议"},
                {"id": "decided", "title": "决议"},
            ],
            "source": "assumption",
        }
        for level in ("village", "household")
    ],
    "authority": {"level": "township", "source": "assumption"},
}
"""Steps of a ladder that are units', one of which the second village lacks, and procedures."""

SWITCHED = ("469002104", "469002104214")
"""Where a history may switch to emergency mode: a township, and a village in it."""

DIVISIONS = (
    Division("469002", "琼海市", "county", None, "county"),
    Division("469002104", "博鳌镇", "township", "469002", "township"),
    Division("469002104214", "沙美村", "village", "469002104", "village"),
    Division("469002104205", "朝烈村", "village", "469002104", "village"),
)
UNITS = (
    Unit(UNIT, "综治中心", "township", "469002104"),
    Unit(TEAM, "治安联防队", "village", "469002104214"),
)
OFFICERS = (
    Officer("h-1", "户网格员", "household", GRID, None, "officer", on_duty=True),
    Officer("h-2", "户网格员夜班", "household", GRID, None, "officer", on_duty=True),
    Officer("g-1", "组网格长", "group", "46900210421403", None, "lead", on_duty=True),
    Officer("d-1", "联防队员一", "village", "469002104214", "team", "officer", on_duty=True),
    Officer("d-2", "联防队员二", "village", "469002104214", "team", "officer", on_duty=True),
    Officer("v-1", "村网格长", "village", "469002104214", None, "lead", on_duty=False),
    Officer("t-1", "镇指挥长", "township", "469002104", None, "lead", on_duty=True),
    Officer("v-2", "朝烈村网格员", "village", "469002104205", None, "officer", on_duty=True),
    Officer("u-1", "综治中心", "township", "469002104", UNIT, "officer", on_duty=True),
)


def _duty(officer: str, hours: str, **more: Any) -> Duty:
    """On duty at these hours each day."""
    days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    shift = {"days": days, "hours": hours, "first": None, "last": None, "weeks": None}
    leave = {**shift, "hours": "00:00-24:00", "first": "2026-01-06", "last": "2026-01-07"}
    return Duty(
        officer,
        "469002104214",
        "Asia/Shanghai",
        shifts=[shift],
        leaves=[{**leave, "deputy": more["deputy"]}] if more else [],
        stand_ins=[],
        deputy=None,
    )


DUTIES = (
    _duty("h-1", "06:00-18:00"),
    _duty("h-2", "18:00-06:00"),
    # At night the team has nobody: those of the desk stand in.
    _duty("d-1", "08:00-14:00"),
    _duty("d-2", "14:00-22:00", deputy="d-1"),
)


def atlas(**changes: Any) -> Atlas:
    """The county with its profile, ``changes`` made to the rules."""
    profile = Profile.parse({**RULES, **changes})
    directory = Directory(DIVISIONS, UNITS, OFFICERS, DUTIES)
    return Atlas(directory, {profile.id: profile}, [profile.id])


def with_successor(county: Atlas) -> Atlas:
    """The county when a new version of its profile has come: less time, and no group any more.

    A case that is reopened under it has half of that.
    """
    (profile,) = county.current
    ladder = [step for step in profile.rules["ladders"]["default"] if step["level"] != "group"]
    lines = [line for line in profile.rules["deadlines"] if line["level"] != "group"]
    sooner = [{**line, "acknowledge": "1h"} for line in lines]
    changes = {"ladders": {"default": ladder}, "deadlines": sooner, "reopening": SHORTER}
    new = Profile.parse({**profile.rules, **changes})
    return Atlas(county.directory, {profile.id: profile, new.id: new}, [profile.id])
