"""A county's HR system keeps people, units and duty up to date, over both doors."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kombu.connection import Connection

from services.grid.events.bindings import BATCH
from tests.end_to_end.county import County, eventually
from tests.end_to_end.test_front_door import System, errors
from tests.end_to_end.test_front_door_amqp import Publisher, of
from tests.integration.test_systems import told

TOWN, VILLAGE = "469002104", "469002104205"
MAY = "directory.division,directory.unit,directory.officer,directory.duty"


@pytest.fixture(scope="module")
def doors(county: County) -> Iterator[tuple[Publisher, System]]:
    found = told(county, "add", "hr", "--may", MAY, "--division", TOWN)
    account, host = found["amqp"], county.about["amqp"].rpartition("@")[2]
    with Connection(f"amqp://{account['user']}:{account['password']}@{host}") as connection:
        connection.default_channel.confirm_select()
        yield Publisher("hr", connection.default_channel), System(county, "hr", found["key"])


def officer(identity: str, **more: Any) -> dict[str, Any]:
    here = {"level": "village", "division": VILLAGE, "role": "officer"}
    return {"id": identity, "name": "符网格员", **here, **more}


def entries(county: County, kind: str) -> dict[str, dict[str, Any]]:
    url = f"{county.about['intake']}/v1/directory"
    found = county.ask("GET", url, params={"kind": kind, "division": VILLAGE, "limit": 200}).json()
    return {each["id"]: each for each in found["entries"]}


def new(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def test_a_unit_its_officer_and_their_duty_come_in_one_batch(
    county: County, doors: tuple[Publisher, System]
) -> None:
    _, system = doors
    unit, person = new("unit"), new("person")
    batch = [
        system.event(
            "directory.unit",
            unit={"id": unit, "name": unit, "level": "village", "division": VILLAGE},
        ),
        system.event("directory.officer", officer=officer(person, unit=unit)),
        system.event(
            "directory.duty", duty={"officer": person, "shifts": [{"hours": "08:00-18:00"}]}
        ),
    ]
    answer = system.post(batch, BATCH)
    assert answer.json()["rejected"] == [], answer.text
    changed = [each["entries"] for each in answer.json()["accepted"]]
    assert changed == [
        [{"id": f"unit:{unit}", "change": "new"}],
        [{"id": f"officer:{person}", "change": "new"}],
        [{"id": f"duty:{person}", "change": "new"}],
    ]
    assert entries(county, "officer")[f"officer:{person}"]["origin"] == "system.hr"
    # Each service hears of it.
    url = f"{county.about['desks']['village']}/v1/desks/village/duty?division={VILLAGE}"

    eventually("the desk knows the unit", lambda: unit in county.ask("GET", url).text)
    kept = errors(system.post(system.event("directory.unit", retire=unit)), 422)
    assert person in kept["data.retire"]
    for kind, name in (("duty", person), ("officer", person), ("unit", unit)):
        system.accepted(system.event(f"directory.{kind}", retire=name))
    assert f"officer:{person}" not in entries(county, "officer")


def test_an_event_that_comes_once_more_takes_nothing_back(
    county: County, doors: tuple[Publisher, System]
) -> None:
    publisher, system = doors
    person = new("person")
    first = publisher.event("directory.officer", officer=officer(person, name="甲"))
    second = publisher.event("directory.officer", officer=officer(person, name="乙"))
    for event, change in ((first, "new"), (second, "changed"), (first, "unchanged")):
        publisher.send(event, kind="directory.officer")
        found = publisher.answer("accepted", of(event))["data"]
        assert found["entries"] == [{"id": f"officer:{person}", "change": change}]
    # Over the other door it is the same event.
    assert system.accepted(first)["entries"][0]["change"] == "unchanged"
    assert entries(county, "officer")[f"officer:{person}"]["entry"]["name"] == "乙"
    gone = system.event("directory.officer", retire=person)
    assert system.accepted(gone)["entries"][0]["change"] == "retired"
    for event in (gone, second, first):
        assert system.accepted(event)["entries"][0]["change"] == "unchanged"
    assert f"officer:{person}" not in entries(county, "officer")


def test_a_division_is_new_and_called_otherwise_but_never_moves(
    county: County, doors: tuple[Publisher, System]
) -> None:
    _, system = doors
    place = {"code": f"{VILLAGE}77", "name": "七十七组", "level": "group", "parent": VILLAGE}
    assert system.accepted(system.event("directory.division", division=place))
    system.accepted(system.event("directory.division", division={**place, "name": "东组"}))
    shown = entries(county, "division")[f"division:{VILLAGE}77"]["entry"]
    assert (shown["name"], shown["kind"]) == ("东组", "group")
    moved = {**place, "parent": "469002104214"}
    wrong = errors(system.post(system.event("directory.division", division=moved)), 422)
    assert list(wrong) == ["data.division.parent"]
    wrong = errors(
        system.post(system.event("directory.division", division={**place, "level": "shire"})), 422
    )
    assert list(wrong) == ["data.division.parent"]
    # Nor does one that is there by its code alone: a neighbour's group can't be taken away.
    taken = {**place, "code": "46900210421466"}
    wrong = errors(system.post(system.event("directory.division", division=taken)), 422)
    assert "469002104214" in wrong["data.division.parent"]
    fresh = {**place, "code": f"{VILLAGE}78", "level": "shire"}
    wrong = errors(system.post(system.event("directory.division", division=fresh)), 422)
    assert "group" in wrong["data.division.level"]
    case = county.report(f"{VILLAGE}77")
    assert county.arrived("group", case)["address"]["division"] == f"{VILLAGE}77"


def test_what_is_outside_of_it_or_wrong_is_refused(doors: tuple[Publisher, System]) -> None:
    publisher, system = doors
    away = officer(new("person"), division="469002", level="county")
    answer = system.post(system.event("directory.officer", officer=away))
    assert "outside" in errors(answer, 409)["event"]
    wrong = publisher.event("directory.officer", officer=officer(new("person"), unit="nothing"))
    publisher.send(wrong, kind="directory.officer")
    refused = publisher.answer("rejected", of(wrong))["data"]
    assert [each["field"] for each in refused["errors"]] == ["data.officer.unit"]
    both = publisher.event("directory.officer", officer=officer("x"), retire="x")
    publisher.send(both, kind="directory.officer")
    assert publisher.answer("rejected", of(both))["data"]["why"] == "invalid"
    phone = publisher.event("directory.officer", officer=officer("x", name="13987654321"))
    publisher.send(phone, kind="directory.officer")
    refused = publisher.answer("rejected", of(phone))["data"]
    assert [each["field"] for each in refused["errors"]] == ["data.officer.name"]
    report = publisher.event("case.report")
    publisher.send(report)
    assert publisher.answer("rejected", of(report))["data"]["why"] == "refused"
    gone = system.post(system.event("directory.officer", retire="nobody"))
    assert list(errors(gone, 422)) == ["data.retire"]


def test_an_operator_adds_a_division_in_the_same_way(county: County) -> None:
    url = f"{county.about['intake']}/v1/directory"
    place = {"code": f"{VILLAGE}79", "name": "北组", "level": "group", "parent": VILLAGE}
    answer = county.ask("POST", url, json={"divisions": [place]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["entries"] == [{"id": f"division:{VILLAGE}79", "change": "new"}]
    answer = county.ask("POST", url, json={"divisions": [{**place, "parent": TOWN}]})
    assert list(errors(answer, 422)) == ["divisions.0.parent"]


def test_a_change_of_the_directory_takes_as_much_of_the_rate_as_ten_reports(county: County) -> None:
    key = told(county, "add", "slow_hr", "--may", MAY, "--division", TOWN, "--rate", "1")["key"]
    system = System(county, "slow_hr", key)
    # A hundred may come at once.
    batch = [system.event("directory.officer", retire=f"nobody-{each}") for each in range(20)]
    assert system.post(batch, BATCH).status_code == 202
    answer = system.post(batch[0])
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 50
