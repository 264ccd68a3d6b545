"""What a system may subscribe to, and which binding keys follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.bus.problems import Problem
from services.grid.atlas import Atlas
from services.grid.clock import FrozenClock, Instant
from services.grid.profile import load_folder
from services.intake.subscribing import (
    MOST_KEYS,
    READABLE,
    bindings,
    caught_up,
    losing,
    matcher,
    subscribed,
)

TOWN, VILLAGE, OTHER = "469002104", "469002104214", "469002104205"
NOW = FrozenClock().now()


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    loaded = load_folder(Path(__file__).parents[2] / "profiles" / "qionghai")
    directory = loaded.directory
    return Atlas(directory, {loaded.profile.id: loaded.profile}, [loaded.profile.id])


def system(reads: list[str], *divisions: str, **more: Any) -> dict[str, Any]:
    return {"name": "river", "reads": reads, "divisions": list(divisions), **more}


def ask(
    types: list[str] | None = None,
    levels: list[str] | None = None,
    divisions: list[str] | None = None,
) -> dict[str, Any]:
    return {"types": types or [], "levels": levels or [], "divisions": divisions or []}


def keys(atlas: Atlas, document: dict[str, Any], **asked: list[str]) -> list[str]:
    made = subscribed(document, ask(**asked), atlas, NOW).document
    assert made is not None
    return bindings(made, atlas)


def refused(atlas: Atlas, document: dict[str, Any], **asked: list[str]) -> dict[str, str]:
    with pytest.raises(Problem) as error:
        subscribed(document, ask(**asked), atlas, NOW)
    assert error.value.status == 422
    return {each["field"]: each["detail"] for each in error.value.facts["errors"]}


def test_what_is_left_out_is_all_that_it_may_read(atlas: Atlas) -> None:
    assert keys(atlas, system(["case.*"])) == ["case.*.*.#"]
    assert keys(atlas, system(["case.*"], TOWN)) == ["case.*.*.46.90.02.104.#"]
    assert keys(atlas, system(["case.closed", "case.escalated"], VILLAGE), levels=["village"]) == [
        "case.closed.village.46.90.02.104.214.#",
        "case.escalated.village.46.90.02.104.214.#",
    ]


def test_it_may_ask_for_less(atlas: Atlas) -> None:
    one = system(["case.*"], TOWN)
    assert keys(atlas, one, types=["case.escalated"], divisions=[VILLAGE]) == [
        "case.escalated.*.46.90.02.104.214.#"
    ]
    # A household grid that is implied by its code has a path as well.
    assert keys(atlas, one, types=["case.*"], divisions=[f"{VILLAGE}03007"]) == [
        "case.*.*.46.90.02.104.214.03.007.#"
    ]
    # What is below another is in it.
    assert keys(atlas, one, types=["case.*", "case.closed"], divisions=[VILLAGE, TOWN]) == [
        "case.*.*.46.90.02.104.#"
    ]


def test_it_may_not_ask_for_more(atlas: Atlas) -> None:
    one = system(["case.closed"], VILLAGE)
    assert "below 469002104214" in refused(atlas, one, divisions=[TOWN])["divisions"]
    assert OTHER in refused(atlas, one, divisions=[VILLAGE, OTHER])["divisions"]
    assert "case.escalated" in refused(atlas, one, types=["case.escalated"])["types"]
    assert "case.closed" in refused(atlas, one, types=["case.*"])["types"]
    assert "--reads" in refused(atlas, system([]))["types"]
    assert "township" in refused(atlas, one, levels=["provincial"])["levels"]
    assert "999999" in refused(atlas, system(["case.*"]), divisions=["999999"])["divisions"]
    many = [kind for kind in READABLE if kind != "case.*"]
    villages = [f"{VILLAGE}{group:02}" for group in range(1, 30)]
    assert (
        str(MOST_KEYS)
        in refused(atlas, system(["case.*"]), types=many, divisions=villages)["types"]
    )


def test_a_right_that_is_taken_away_takes_its_part_along(atlas: Atlas) -> None:
    made = subscribed(
        system(["case.*"], TOWN),
        ask(["case.closed", "case.escalated"], divisions=[TOWN]),
        atlas,
        NOW,
    ).document
    assert made is not None
    narrowed = {**made, "reads": ["case.closed"], "divisions": [VILLAGE]}
    assert bindings(narrowed, atlas) == ["case.closed.*.46.90.02.104.214.#"]
    assert bindings({**made, "divisions": ["469002105"]}, atlas) == []
    assert bindings({**made, "reads": []}, atlas) == []
    assert bindings({**made, "subscription": None}, atlas) == []
    # One of an earlier version has none of the fields.
    assert bindings({"name": "old", "divisions": []}, atlas) == []


def test_a_change_keeps_since_when_it_is_sent_something(atlas: Atlas) -> None:
    first = subscribed(system(["case.*"]), ask(), atlas, NOW).document
    assert first is not None
    later = Instant("2027-01-01T00:00:00.000Z")
    second = subscribed(first, ask(["case.closed"]), atlas, later).document
    assert second is not None
    assert second["subscription"]["since"] == NOW
    assert second["subscription"]["types"] == ["case.closed"]


@pytest.mark.parametrize(
    ("bound", "key", "fits"),
    [
        ("case.*.*.#", "case.closed.village.46.90", True),
        ("case.*.*.#", "case.closed.village", True),
        ("case.*.*.#", "case.closed", False),
        ("case.closed.*.46.90.#", "case.closed.village.46.90", True),
        ("case.closed.*.46.90.#", "case.closed.village.46.901", False),
        ("case.closed.*.46.90.#", "case.closed.village.46.90.02.104", True),
        ("case.closed.*.46.90.#", "case.closed.village.46", False),
        ("case.closed.*.46.90.#", "case.closed.village.46.91.90", False),
        ("case.*.township.46.#", "case.escalated.village.46", False),
        ("case.*.township.46.#", "notification.delivered.township.46", False),
    ],
)
def test_keys_are_read_as_the_broker_reads_them(bound: str, key: str, fits: bool) -> None:
    assert bool(matcher([bound]).fullmatch(key)) is fits
    assert bool(matcher(["case.reported.*.99.#", bound]).fullmatch(key)) is fits
    assert not matcher([]).fullmatch(key)


def test_losses_add_up_until_they_were_sent_again() -> None:
    times = [Instant(f"2026-03-02T0{hour}:00:00.000Z") for hour in range(6)]
    one = losing({"name": "river"}, times[2], times[3], 0)
    one = losing(one, times[2], times[3], 7)
    one = losing(one, times[1], times[4], 3)
    assert one["lost"] == {"count": 10, "since": times[1], "until": times[4]}
    assert caught_up(one, times[2], times[5])["lost"] == one["lost"]
    assert caught_up(one, times[0], times[3])["lost"] == one["lost"]
    assert caught_up(one, times[1], times[5])["lost"] is None
    assert caught_up({"name": "river"}, times[1], times[5]).get("lost") is None
