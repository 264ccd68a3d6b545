"""Which services a county offers through Open311: the categories of its profile.

A jurisdiction is the region of a profile that new cases may get; its id is the division code.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Any

from services.bus.errors import Retry
from services.bus.problems import Problem
from services.bus.web import Call
from services.grid.atlas import Atlas
from services.grid.clock import Instant, moment
from services.grid.profile import Profile
from services.intake.open311.wire import OPEN311
from services.intake.shell import IntakeShell

SPECIFICATION = "http://wiki.open311.org/GeoReport_v2"
PATH = "/open311/v2"
_APP = "app"


def jurisdiction(atlas: Atlas, sent: str | None) -> Profile:
    """The profile of a jurisdiction; of the only one, if none was named.

    :raises Problem: a 404 if there is none of this id, a 400 if it has to be named.
    :raises Retry: no profile has arrived yet.
    """
    known = jurisdictions(atlas)
    if not known:
        raise Retry("no profile has arrived yet")
    if sent is None and len(known) > 1:
        raise Problem(400, f"jurisdiction_id is missing: write one of {', '.join(known)}")
    found = known.get(sent) if sent is not None else next(iter(known.values()))
    if found is None:
        raise Problem(404, f"there is no jurisdiction_id {sent!r}: write one of {', '.join(known)}")
    return found


def jurisdictions(atlas: Atlas) -> dict[str, Profile]:
    """All that there are, by id."""
    return {profile.region: profile for profile in sorted(atlas.current, key=lambda p: p.region)}


def category(profile: Profile, code: str) -> str:
    """The category that a service code means: its own name.

    :raises Problem: a 404; the profile has none.
    """
    if code not in profile.categories:
        known = ", ".join(profile.categories)
        raise Problem(404, f"there is no service_code {code!r}: write one of {known}")
    return code


def w3(at: Instant, zone: tzinfo) -> str:
    """A time with its zone and without fractions, as all clients read it."""
    return moment(at).astimezone(zone).replace(microsecond=0).isoformat()


def titled(titles: Mapping[str, Mapping[str, str]], word: str) -> str:
    """What the county calls a word of its profile, or the word itself."""
    return titles[word]["zh"] if word in titles else word


def default_urgency(profile: Profile) -> str:
    """The least urgent."""
    return next(iter(profile.urgencies))


def default_source(profile: Profile) -> str:
    """Reports through Open311 come from apps, where the county has a word for them."""
    return _APP if _APP in profile.sources else next(iter(profile.sources))


def discovery(intake: IntakeShell, call: Call) -> dict[str, Any]:
    """Where what is spoken: one endpoint, this one."""
    atlas = intake.county.atlas()
    changed = _changed(intake)
    known = jurisdictions(atlas).items()
    names = ", ".join(f"{atlas.directory.name(code)} ({code})" for code, _ in known)
    endpoint = {
        "specification": SPECIFICATION,
        "url": f"{call.base}{PATH}",
        "changeset": changed,
        "type": "production",
        "formats": [kind.partition(";")[0] for kind in OPEN311.media_types.values()],
    }
    return {
        "discovery": {
            "changeset": changed,
            "contact": f"Huashi 化事: {names}",
            "key_service": "An operator of the county makes keys: huashi system add NAME "
            "--may case.report,case.update",
            "endpoints": [endpoint],
        }
    }


def _changed(intake: IntakeShell) -> str:
    """When the profiles changed last: only they change what is offered."""
    times = [item["time"] for item in intake.county.entries() if item["kind"] == "profile"]
    if not times:
        raise Retry("no profile has arrived yet")
    return w3(Instant(max(times)), UTC)


def services(intake: IntakeShell, call: Call) -> dict[str, Any]:
    """The services of a jurisdiction."""
    profile = jurisdiction(intake.county.atlas(), call.query["jurisdiction_id"])
    return {"services": [_service(profile, code) for code in profile.categories]}


def _service(profile: Profile, code: str) -> dict[str, Any]:
    title = profile.categories[code]
    return {
        "service_code": code,
        "service_name": titled(profile.categories, code),
        "description": f"{title['zh']} · {title['en']}",
        "metadata": True,
        "type": "realtime",
        "keywords": ", ".join(dict.fromkeys([title["zh"], title["en"], code])),
        "group": profile.title["zh"],
    }


def definition(intake: IntakeShell, call: Call, service_code: str) -> dict[str, Any]:
    """What a service can be told besides, which is the same for all."""
    profile = jurisdiction(intake.county.atlas(), call.query["jurisdiction_id"])
    code = category(profile, service_code)
    urgency, source = default_urgency(profile), default_source(profile)
    attributes = [
        _attribute(
            "title",
            "string",
            "标题 · A short title, without names or phone numbers: all desks see it",
            f"1 to 200 characters; without it {titled(profile.categories, code)}",
        ),
        _attribute(
            "urgency",
            "singlevaluelist",
            "紧急程度 · How urgent it is",
            f"without it {urgency}",
            profile.urgencies,
        ),
        _attribute(
            "source",
            "singlevaluelist",
            "来源 · Where the report comes from",
            f"without it {source}",
            profile.sources,
        ),
        _attribute(
            "occurred_at",
            "datetime",
            "发生时间 · When it was seen",
            "with a zone, such as 2026-03-02T19:40:00+08:00",
        ),
    ]
    for order, attribute in enumerate(attributes, 1):
        attribute["order"] = order
    return {"service_definition": {"service_code": code, "attributes": attributes}}


def _attribute(
    code: str,
    datatype: str,
    description: str,
    hint: str,
    titles: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    values = [{"key": key, "name": titled(titles, key)} for key in titles] if titles else []
    return {
        "variable": True,
        "code": code,
        "datatype": datatype,
        "required": False,
        "datatype_description": hint,
        "order": 0,
        "description": description,
        "values": values,
    }
