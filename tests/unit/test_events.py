"""The envelope: what is sent is read back, what is unknown is kept, what is wrong is named."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.grid.clock import Instant
from services.grid.directory import Directory
from services.grid.events import CATALOGUE, Event, InvalidEvent, of_consumer, of_producer
from services.grid.events.envelope import event_id, flatten, traceparent_of
from services.grid.events.making import case_event
from services.grid.tokens import Address, Stage, Token
from services.intake.api import ReportBody

NOW = Instant("2026-02-28T16:00:00.000Z")
HOUSEHOLD = Address("household", "46900210421403007")
VILLAGE = Address("village", "469002104214")

FACTS: dict[str, Any] = {
    "tracking": "0123456789",
    "title": "路灯不亮",
    "category": "facility",
    "urgency": "ordinary",
    "source": "app",
    "division": "46900210421403007",
    "triage": False,
    "profile": "qionghai@0123456789ab",
    "ladder": "default",
    "also_tell": [],
    "reported_at": NOW,
}
STATE: dict[str, Any] = {
    "token": Token(1, Stage.HELD, 0, 0).as_dict(),
    "address": HOUSEHOLD.as_dict(),
    "assigned": None,
    "acknowledged": None,
    "clocks": {"level": {"started_at": NOW}, "case": {"started_at": NOW}},
    "deadlines": [
        {
            "kind": "resolve",
            "due": NOW,
            "rule": "profile.yaml deadlines[0]",
            "source": "assumption",
            "calendar": None,
            "counted": ["1d"],
        }
    ],
    "resolution": None,
}
ESCALATED = case_event(
    "case.escalated",
    service="escalation",
    case="c-1",
    facts=FACTS,
    state=STATE,
    now=NOW,
    directory=Directory(),
    reason="deadline_missed",
    previous=VILLAGE.as_dict(),
)
SUBJECTS = st.text(min_size=1, max_size=40).filter(lambda text: "\x00" not in text)


def raw(event: Event = ESCALATED) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(event.body())
    return body


def read(body: Any) -> Event:
    return Event.read(json.dumps(body).encode())


def errors(body: Any) -> dict[str, str]:
    with pytest.raises(InvalidEvent) as raised:
        Event.read(body) if isinstance(body, bytes) else read(body)
    return flatten(raised.value.errors)


# -- round trips ---------------------------------------------------------------------------


def test_an_event_is_structured_cloudevents_json() -> None:
    assert raw() == {
        "specversion": "1.0",
        "id": ESCALATED.id,
        "source": "huashi/escalation",
        "type": "huashi.case.escalated.v1",
        "subject": "c-1",
        "time": NOW,
        "datacontenttype": "application/json",
        "traceparent": ESCALATED.traceparent,
        "data": {
            "case": FACTS,
            "state": STATE,
            "reason": "deadline_missed",
            "previous": VILLAGE.as_dict(),
        },
    }
    assert "路灯不亮".encode() in ESCALATED.body()


def test_an_event_reads_back_without_its_key() -> None:
    assert ESCALATED.key == "case.escalated.household.46.90.02.104.214.03.007"
    assert Event.read(ESCALATED.body()) == replace(ESCALATED, key="")


def test_an_event_waits_in_a_document_as_it_is() -> None:
    kept = json.loads(json.dumps(ESCALATED.as_document()))
    assert Event.of_document(kept) == ESCALATED


@given(
    subject=SUBJECTS,
    title=st.text(alphabet='路灯不亮 a"\\/é😀', min_size=1, max_size=200).filter(str.strip),
    token=st.builds(
        Token,
        st.integers(1, 10_000),
        st.sampled_from(Stage),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
    ),
)
def test_any_event_reads_back(subject: str, title: str, token: Token) -> None:
    event = replace(
        ESCALATED,
        subject=subject,
        data={
            **ESCALATED.data,
            "case": {**FACTS, "title": title},
            "state": {**STATE, "token": token.as_dict()},
        },
    )
    assert Event.read(event.body()) == replace(event, key="")
    assert Event.read(event.body()).body() == event.body()


def test_what_is_unknown_is_kept_everywhere() -> None:
    body = raw()
    body["partition"] = "b"
    body["data"]["reviewed"] = True
    body["data"]["case"]["weather"] = {"wind": 12}
    body["data"]["state"]["address"]["floor"] = 3
    body["data"]["state"]["deadlines"][0]["paused"] = ["2026-03-01"]
    event = read(body)
    assert event.extensions == {"partition": "b"}
    assert event.data == body["data"]
    assert json.loads(event.body()) == body


def test_times_are_made_the_same() -> None:
    body = raw()
    body["time"] = "2026-03-01T00:00:00+08:00"
    body["data"]["case"]["reported_at"] = "2026-02-28t16:00:00.000999z"
    event = read(body)
    assert (event.time, event.data["case"]["reported_at"]) == (NOW, NOW)


def test_what_may_be_left_out_gets_its_default() -> None:
    body = raw()
    for path in (["traceparent"], ["datacontenttype"]):
        del body[path[0]]
    del body["data"]["state"]["assigned"]
    del body["data"]["case"]["also_tell"]
    event = read(body)
    assert event.traceparent is None
    assert event.data["state"]["assigned"] is None
    assert event.data["case"]["also_tell"] == []


# -- what is wrong is named ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON: "),
        (b"{", "not JSON: "),
        (b"[]", "not a JSON object: send one CloudEvents envelope"),
        (b"null", "not a JSON object"),
        ('{"id": "琼"}'.encode("gb18030"), "not UTF-8 at byte 8"),
        (b'{"id": NaN}', "NaN is not JSON: write null or a number"),
        (b'{"id": 1e999}', "a number is too large for a double: write it as text"),
        (b'{"id": 99999999999999999999}', "an integer needs more than 64 bits: write it as text"),
        (b'{"id": 9223372036854775808}', "an integer needs more than 64 bits: write it as text"),
        (b'{"id": "\\ud800"}', "text with half of a surrogate pair"),
        (b'{"\\u0000": 1}', "a field name with a NUL character"),
        (b"[" * 40 + b"]" * 40, "nested deeper than 32 levels"),
        (b"[" * 100_000, "nested deeper than 32 levels"),
    ],
)
def test_a_body_that_is_no_json_object(body: bytes, said: str) -> None:
    assert list(errors(body)) == ["body"]
    assert errors(body)["body"].startswith(said)


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type", "subject", "time", "data"])
def test_every_attribute_is_needed(name: str) -> None:
    body = raw()
    del body[name]
    assert errors(body) == {name: "Missing data for required field."}
    body[name] = None
    assert list(errors(body)) == [name]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("specversion", "0.3", "Must be equal to 1.0."),
        ("id", "", "Length must be between 1 and 200."),
        ("id", 7, "Not a valid string."),
        ("source", "x" * 201, "Length must be between 1 and 200."),
        ("subject", "", "Length must be between 1 and 200."),
        ("type", "huashi.case.forgotten.v1", "'huashi.case.forgotten.v1' is not in the catalogue"),
        ("type", "case.escalated", "'case.escalated' is not in the catalogue"),
        ("type", "huashi.case.escalated.v9", "'huashi.case.escalated.v9' is not in the catalogue"),
        (
            "time",
            "yesterday",
            "not a time: write an RFC 3339 time with a zone, such as 2026-11-23T08:30:00+08:00",
        ),
        ("datacontenttype", "text/xml", "Must be equal to application/json."),
        ("traceparent", "none", "String does not match expected pattern."),
        ("data", [], "Not a valid mapping type."),
    ],
)
def test_a_wrong_attribute_is_named(name: str, value: Any, said: str) -> None:
    assert errors({**raw(), name: value}) == {name: said}


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the data: ``value`` at ``path``."""

    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = value

    return change


WRONG_DATA = [
    ("data.reason", put("reason", value="bored")),
    ("data.previous.level", put("previous", "level", value="Village")),
    ("data.previous.division", put("previous", "division", value="4690")),
    ("data.case.title", put("case", "title", value="")),
    ("data.case.title", put("case", "title", value="路" * 201)),
    ("data.case.urgency", put("case", "urgency", value="very urgent")),
    ("data.case.also_tell.0", put("case", "also_tell", value=["a b"])),
    ("data.case.triage", put("case", "triage", value="perhaps")),
    ("data.case.reported_at", put("case", "reported_at", value="2026-03-01T00:00:00")),
    ("data.case.reported_at", put("case", "reported_at", value=1772323200)),
    ("data.state.token", put("state", "token", value=None)),
    ("data.state.token.round", put("state", "token", "round", value=0)),
    ("data.state.token.stage", put("state", "token", "stage", value="lost")),
    ("data.state.token.hop", put("state", "token", "hop", value="1")),
    ("data.state.token.hop", put("state", "token", "hop", value=-1)),
    ("data.state.token.seq", put("state", "token", "seq", value=1.5)),
    ("data.state.token.seq", put("state", "token", "seq", value=10**6 + 1)),
    ("data.state.address.division", put("state", "address", "division", value="46900210421\n")),
    ("data.state.address.unit", put("state", "address", "unit", value="")),
    ("data.state.clocks.case", put("state", "clocks", value={"level": {"started_at": NOW}})),
    ("data.state.deadlines", put("state", "deadlines", value={})),
    ("data.state.deadlines.0.due", put("state", "deadlines", 0, "due", value="soon")),
    ("data.state.deadlines.0.kind", put("state", "deadlines", 0, "kind", value=None)),
    (
        "data.state.resolution.note",
        put(
            "state",
            "resolution",
            value={"outcome": "settled", "by": "o-1", "at": NOW, "note": "x" * 2001},
        ),
    ),
]


@pytest.mark.parametrize(("field", "change"), WRONG_DATA)
def test_wrong_data_is_named(field: str, change: Callable[[dict[str, Any]], None]) -> None:
    body = raw()
    change(body["data"])
    found = errors(body)
    assert list(found) == [field]
    assert found[field]


def test_everything_wrong_is_named_at_once() -> None:
    body = raw()
    body["data"]["case"]["title"] = ""
    del body["data"]["state"]["token"]["hop"]
    with pytest.raises(InvalidEvent) as raised:
        read(body)
    assert str(raised.value) == (
        "data.case.title: Length must be between 1 and 200.; "
        "data.state.token.hop: Missing data for required field."
    )


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_body_at_all_breaks_the_reader(body: bytes) -> None:
    with pytest.raises(InvalidEvent):
        Event.read(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in inside:
        found.append((*path, key))
        if isinstance(inner, dict | list):
            found += places(inner, (*path, key))
    return found


@given(st.sampled_from(places(raw())), JSON)
def test_any_damage_is_either_read_or_named(path: tuple[Any, ...], value: Any) -> None:
    body = copy.deepcopy(raw())
    put(*path, value=value)(body)
    try:
        event = read(body)
    except InvalidEvent as error:
        assert flatten(error.errors)
    else:
        assert Event.read(event.body()) == event


# -- identities and the catalogue ----------------------------------------------------------


IDENTITIES = st.tuples(
    st.sampled_from(["c-1", "c-2"]),
    st.builds(
        Token, st.integers(1, 2), st.sampled_from(Stage), st.integers(0, 2), st.integers(0, 2)
    ),
    st.sampled_from(["case.reported", "case.released"]),
    st.sampled_from(["", "village:custody", "resolve@2026-02-28T16:00:00.000Z"]),
)


@given(IDENTITIES, IDENTITIES)
def test_ids_are_stable_and_never_shared(first: Any, second: Any) -> None:
    assert (event_id(*first) == event_id(*second)) == (first == second)


def test_a_trace_belongs_to_its_case() -> None:
    assert traceparent_of("c-1") == traceparent_of("c-1") != traceparent_of("c-2")
    assert read({**raw(), "traceparent": traceparent_of("c-1")}).traceparent


def test_an_event_goes_to_whom_it_is_addressed() -> None:
    event = case_event(
        "case.released",
        service="escalation",
        case="c-1",
        facts=FACTS,
        state=STATE,
        now=NOW,
        directory=Directory(),
        addressed=VILLAGE,
        discriminator="village:custody",
    )
    assert event.key == "case.released.village.46.90.02.104.214"
    assert not event.custody
    assert ESCALATED.custody


@pytest.mark.parametrize("kind", CATALOGUE.values(), ids=lambda kind: kind.full_name)
def test_every_type_has_a_meaning_a_producer_and_a_consumer(kind: Any) -> None:
    assert kind.meaning.endswith(".")
    assert kind.producers
    assert kind.consumers
    assert all(kind in of_producer(service) for service in kind.producers)
    assert all(kind in of_consumer(service) for service in kind.consumers)
    assert kind.loader is kind.loader


@pytest.mark.parametrize(
    "text",
    [
        "电话+8613800138000",
        "电话008613800138000",
        "电话0086 138 0013 8000",
        "13800138000 13900139000",
        "3-13800138000",
        "62821234 13800138000",
        "电话 138 0013 8000",
        "138-0013-8000",
        "电话１３８００１３８０００",
        "座机0898-62812345",
        "身份证46000219900101123Ｘ",
        "0898-62812345 13800138000",
        "302房 8-2 13800138000",
        "2026-03-02 13800138000",
        "13800138000-8001",
        "302 138 0013 8000 2026",
        "0898 6281 2345 138 0013 8000",
        "302 460002 19900101 123X",
        "138–0013–8000",
        "138\u200b0013\u200b8000",
        "路灯\x00不亮",
        "路灯\x1b[2J",
        "路灯\n不亮",
    ],
)
def test_a_title_that_points_to_a_person_or_acts_on_a_terminal_is_refused(text: str) -> None:
    assert set(ReportBody().validate({**ReportBody.example, "title": text})) == {"title"}


@pytest.mark.parametrize(
    "text",
    [
        "46900210421403007 路灯",
        "20261125 停水",
        "12345678 热线",
        "2026-11-25 08:30 至 12:00",
        "09.00-18.00 2026.03.02",
        "坐标 19.1502 110.5823",
        "2026-03-02 2026-03-05 1500-2000 元",
        "3-5 12 15 18 20 21 22 号楼",
        "G98",
    ],
)
def test_a_title_with_other_numbers_is_fine(text: str) -> None:
    assert ReportBody().validate({**ReportBody.example, "title": text}) == {}


@pytest.mark.parametrize("text", ["电话 138 0013 8000", "\u3000"])
def test_what_a_laxer_version_let_in_is_read(text: str) -> None:
    body = raw()
    body["data"]["case"]["title"] = text
    assert read(body).data["case"]["title"] == text
