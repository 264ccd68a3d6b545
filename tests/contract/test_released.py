"""What was released still holds: its schemas are not narrowed, its examples are read and merged."""

from __future__ import annotations

import copy
import json
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from services.bus import contracts
from services.bus.contracts import __main__ as command
from services.bus.contracts import breaks
from services.dispatch import model as dispatch
from services.escalation import model as escalation
from services.grid import atlas
from services.grid.atlas import Atlas
from services.grid.clock import Instant
from services.grid.events import CATALOGUE, Event
from services.grid.events.bindings import STRUCTURED, Incoming, of_http
from services.grid.tokens import Token
from services.intake import model as intake
from services.intake.inbound import TYPES as SENT
from services.notify import model as notify
from tests.property.test_merging import world_after

RELEASED = Path(__file__).parents[2] / "docs" / "contracts" / "released"
LATER = Instant("2030-01-01T00:00:00.000Z")
ESCALATED = "huashi.case.escalated.v1"
Change = Callable[[dict[str, Any]], Any]


# -- schemas -------------------------------------------------------------------------------


def test_there_is_a_release() -> None:
    assert breaks.releases(RELEASED)


def test_nothing_breaks_the_last_release() -> None:
    last = breaks.last(RELEASED)
    assert last is not None
    assert [str(each) for each in breaks.against(breaks.read(last), contracts.schemas())] == []


@cache
def _schema() -> str:
    return json.dumps(contracts.schemas()[ESCALATED])


def changed(change: Change, schema: str | None = None) -> list[str]:
    """What is said of the schema of ``case.escalated`` with a change."""
    old, new = (json.loads(schema or _schema()) for _ in range(2))
    change(new)
    return [str(each) for each in breaks.against({ESCALATED: old}, {ESCALATED: new})]


def data(schema: dict[str, Any], part: str = "Escalated") -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][part]
    return found


def field(schema: dict[str, Any], part: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = data(schema, part)["properties"][name]
    return found


BREAKS: dict[str, tuple[Change, str]] = {
    "a field is removed": (
        lambda new: data(new)["properties"].pop("previous"),
        "data.previous: the field was removed",
    ),
    "a field of a part is removed": (
        lambda new: data(new, "Token")["properties"].pop("seq"),
        "data.state.token.seq: the field was removed",
    ),
    "a field of the envelope is removed": (
        lambda new: new["properties"].pop("traceparent"),
        "traceparent: the field was removed",
    ),
    "a field becomes required": (
        lambda new: data(new)["required"].append("request"),
        "data.request: it is required now",
    ),
    "a new field is required": (
        lambda new: (
            data(new)["properties"].update(weather={"type": "string"}),
            data(new)["required"].append("weather"),
        ),
        "data.weather: it is required now",
    ),
    "a field may be left out": (
        lambda new: data(new)["required"].remove("reason"),
        "data.reason: it may be left out now",
    ),
    "a word is lost": (
        lambda new: field(new, "Escalated", "reason")["enum"].remove("requested"),
        'data.reason: "requested" is no longer taken',
    ),
    "only some words are taken": (
        lambda new: field(new, "Facts", "ladder").update(enum=["default"]),
        'data.case.ladder: only ["default"] is taken now',
    ),
    "the type is another": (
        lambda new: field(new, "Facts", "triage").update(type="string"),
        "data.case.triage: it was boolean and is string",
    ),
    "the type of a list's items is another": (
        lambda new: field(new, "Deadline", "counted").update(items={"type": "integer"}),
        "data.state.deadlines[].counted[]: it was string and is integer",
    ),
    "null is no longer taken": (
        lambda new: field(new, "Address", "unit").update(type="string"),
        "data.state.address.unit: null is no longer taken",
    ),
    "a part may no longer be null": (
        lambda new: field(new, "State", "resolution").update(
            anyOf=[{"$ref": "#/$defs/Resolution"}]
        ),
        "data.state.resolution: null is no longer taken",
    ),
    "it may be null": (
        lambda new: field(new, "Facts", "profile").update(type=["string", "null"]),
        "data.case.profile: it may be null now",
    ),
    "it is shorter": (
        lambda new: field(new, "Facts", "title").update(maxLength=100),
        "data.case.title: maxLength was 200 and is 100",
    ),
    "it has a limit": (
        lambda new: field(new, "Facts", "tracking").update(maxLength=10),
        "data.case.tracking: maxLength was open and is 10",
    ),
    "it is at least longer": (
        lambda new: field(new, "Facts", "title").update(minLength=5),
        "data.case.title: minLength was 1 and is 5",
    ),
    "it is more": (
        lambda new: field(new, "Token", "hop").update(minimum=1),
        "data.state.token.hop: minimum was 0 and is 1",
    ),
    "the pattern is another": (
        lambda new: field(new, "Facts", "category").update(pattern="^[a-z]+$"),
        "data.case.category: pattern was",
    ),
    "it has a format": (
        lambda new: field(new, "Facts", "profile").update(format="uuid"),
        "data.case.profile: format was open and is uuid",
    ),
    "the default is another": (
        lambda new: field(new, "Facts", "triage").update(default=True),
        "data.case.triage: what is meant where it is left out was changed",
    ),
    "unknown fields are refused": (
        lambda new: data(new, "Facts").update(additionalProperties=False),
        "data.case: unknown fields are no longer taken",
    ),
    "something that can't be compared": (
        lambda new: data(new, "Facts").update(minProperties=3, dependentRequired={"a": ["b"]}),
        "data.case: dependentRequired changed",
    ),
    "the type of the event is another": (
        lambda new: new["properties"]["type"].update(const="huashi.case.climbed.v1"),
        'type: "huashi.case.escalated.v1" is no longer taken',
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_kind_of_break_is_found(name: str) -> None:
    change, said = BREAKS[name]
    found = changed(change)
    assert any(each.startswith(f"{ESCALATED}: {said}") for each in found), found
    assert all(each.endswith("or add huashi.case.escalated.v2 beside it.") for each in found)


KEPT: dict[str, Change] = {
    "nothing": lambda new: dict(new),
    "a field that may be left out": lambda new: data(new)["properties"].update(
        weather={"type": "string"}
    ),
    "a word more": lambda new: field(new, "Escalated", "reason")["enum"].append("asked_again"),
    "longer": lambda new: field(new, "Facts", "title").update(maxLength=300),
    "other words about it": lambda new: field(new, "Facts", "profile").update(description="x"),
    "a part of another name": lambda new: (
        new["$defs"].update(Place=new["$defs"].pop("Address")),
        field(new, "State", "address").update({"$ref": "#/$defs/Place"}),
        field(new, "Escalated", "previous").update({"$ref": "#/$defs/Place"}),
        field(new, "Request", "to").update(anyOf=[{"$ref": "#/$defs/Place"}, {"type": "null"}]),
    ),
    "another example": lambda new: new.update(examples=[]),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_breaks_nobody_is_allowed(name: str) -> None:
    assert changed(KEPT[name]) == []


def test_an_event_that_is_gone_is_found() -> None:
    schemas = contracts.schemas()
    left = {name: schema for name, schema in schemas.items() if name != ESCALATED}
    assert [str(each) for each in breaks.against(schemas, left)] == [
        "huashi.case.escalated.v1: it is released, and no longer in the catalogue. "
        "Leave it as it was released, or add huashi.case.escalated.v2 beside it."
    ]
    assert breaks.against(left, schemas) == []


# -- the command ---------------------------------------------------------------------------


def test_a_release_is_kept_once_and_compared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "contracts"
    released = folder / "released"
    assert command.main([str(folder), "--release", "0.9.0"]) == 0
    assert breaks.read(released / "0.9.0") == contracts.schemas()
    assert command.main([str(folder), "--release", "0.9.0"]) == 2
    assert "0.9.0 is released: choose a version after it" in capsys.readouterr().err
    assert command.main([str(folder), "--release", "0.10.0"]) == 0
    last = breaks.last(released)
    assert last is not None
    assert last.name == "0.10.0"
    assert command.main(["--against", str(last)]) == 0

    narrowed = copy.deepcopy(contracts.schemas())
    del narrowed[ESCALATED]["properties"]["traceparent"]
    monkeypatch.setattr(contracts, "schemas", lambda: narrowed)
    assert command.main(["--against", str(last)]) == 1
    assert "huashi.case.escalated.v1: traceparent: the field was removed" in capsys.readouterr().err
    assert command.main([str(folder), "--release", "0.11.0"]) == 1
    assert not (released / "0.11.0").exists()


def test_a_version_and_a_folder_that_are_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        command.main([str(tmp_path), "--release", "next"])
    with pytest.raises(SystemExit):
        command.main([])
    with pytest.raises(FileNotFoundError, match="name the folder of a release"):
        command.main(["--against", str(tmp_path)])


# -- examples ------------------------------------------------------------------------------


def examples(prefix: str = "") -> list[Any]:
    """Those of our own events, or of what other systems send or are told."""
    others = ("huashi.inbound.", "huashi.reply.")
    return [
        pytest.param(example, id=f"{release.name}-{name}-{number}")
        for release in breaks.releases(RELEASED)
        for name, schema in sorted(breaks.read(release).items())
        if (name.startswith(prefix) if prefix else not name.startswith(others))
        for number, example in enumerate(schema["examples"])
    ]


@cache
def known() -> Atlas:
    return world_after(0).atlas


def read(example: dict[str, Any]) -> Event:
    """An example, its case under rules that are known."""
    body = copy.deepcopy(example)
    if "case" in body["data"]:
        body["data"]["case"]["profile"] = next(iter(known().profiles))
        body["data"]["case"].pop("emergency", None)
    return Event.read(json.dumps(body).encode())


@pytest.mark.parametrize("example", examples())
def test_a_released_example_is_read_and_merged_by_each_consumer(example: dict[str, Any]) -> None:
    event = read(example)
    kind = CATALOGUE[event.full_type]
    assert Event.read(json.dumps(example).encode()).full_type == example["type"]
    for service in kind.consumers:
        merge_in(service, event)


@pytest.mark.parametrize("example", examples("huashi.inbound."))
def test_a_released_example_of_what_systems_send_is_still_taken(example: dict[str, Any]) -> None:
    (event,) = of_http(STRUCTURED, [], json.dumps(example).encode())
    assert isinstance(event, Incoming), event
    SENT[event.type].loader.load(event.data)


def merge_in(service: str, event: Event) -> None:
    """Merges and decides, twice: a redelivery changes nothing more."""
    if event.type.startswith("directory.") and event.type != "directory.wanted":
        _, entry = atlas.entry_of(event)
        document = atlas.merge(None, entry)
        assert atlas.merge(document, entry) == document
        assert Atlas.of([document]).unreadable == {}
    elif not event.type.startswith("case."):
        # A marker, a wish for the directory and what became of a letter are read and no more.
        return
    elif service == "intake":
        once = intake.merge(None, event)
        assert intake.merge(once, event) == once
    elif service == "escalation":
        once = escalation.merge(None, event, LATER)
        assert escalation.merge(once, event, LATER) == once
        assert escalation.decide(once, known(), LATER).document
    elif service == "dispatch":
        once = dispatch.merge(None, event)
        assert dispatch.merge(once, event) == once
        assert dispatch.decide(once, known(), LATER).document
    else:
        told = notify.announce(None, event, ["officer:x"], known(), LATER)
        assert told.document is None or told.document["deliveries"]


def test_what_the_example_keeps_of_a_case_is_what_our_services_keep(tmp_path: Path) -> None:
    examples = Path(__file__).parents[2] / "docs" / "integrating" / "examples"
    theirs = runpy.run_path(str(examples / "subscriber.py"))
    sent = [json.loads(each.body) for each in world_after(3).published]
    events = [each for each in sent if each["type"].startswith("huashi.case.")]
    assert len(events) > 5
    for number, one in enumerate(events):
        for other in events:
            cases = theirs["Cases"](str(tmp_path / f"{number}-{other['id']}.db"))
            assert cases.take(one)
            tokens = [Token.of(each["data"]["state"]["token"]) for each in (one, other)]
            same = one["subject"] == other["subject"]
            assert cases.take(other) is (tokens[1] > tokens[0] or not same)
