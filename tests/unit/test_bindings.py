"""CloudEvents from outside, as the HTTP and AMQP bindings and the JSON format say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.grid.events.bindings import (
    BATCH,
    LARGEST,
    MOST,
    PLAIN,
    STRUCTURED,
    Incoming,
    Unread,
    of_amqp,
    of_http,
)

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "a-1",
    "source": "hotline",
    "type": "huashi.case.report.v1",
    "data": {"title": "路灯不亮"},
}
HEADERS = [
    ("Ce-Specversion", "1.0"),
    ("CE-Id", "a-1"),
    ("ce-source", "hotline"),
    ("ce-type", "huashi.case.report.v1"),
    ("Content-Type", "application/json"),
]
BODY = json.dumps(EVENT["data"]).encode()
READ = Incoming("a-1", "hotline", "huashi.case.report.v1", EVENT["data"])


def one(media_type: str, fields: list[tuple[str, str]], body: bytes) -> Incoming | Unread:
    (found,) = of_http(media_type, fields, body)
    return found


def wrong(**more: Any) -> dict[str, str]:
    found = one(STRUCTURED, [], json.dumps({**EVENT, **more}).encode())
    assert isinstance(found, Unread)
    return found.errors


def test_the_three_modes_of_http_and_both_of_amqp_say_the_same() -> None:
    structured = json.dumps(EVENT).encode()
    assert one(STRUCTURED, [], structured) == READ
    assert one(PLAIN, HEADERS, BODY) == READ
    assert of_http(BATCH, [], b"[" + structured + b"," + structured + b"]") == [READ, READ]
    assert of_http(BATCH, [], b"[]") == []
    assert of_amqp(f"{STRUCTURED}; charset=utf-8", {}, structured) == READ
    for prefix in ("cloudEvents:", "cloudEvents_", "ce-"):
        headers = {f"{prefix}{name}": EVENT[name] for name in EVENT if name != "data"}
        assert of_amqp(PLAIN, {**headers, "x-other": [1]}, BODY) == READ


@pytest.mark.parametrize(
    ("content_type", "headers"),
    [
        ("a\ud800", {}),
        ("路", {}),
        (PLAIN, {"ce-id": "\ud800"}),
        (PLAIN, {"ce-x": "\udfff"}),
        (PLAIN, {b"\xff": "x", "ce-id": b"\xff"}),
    ],
)
def test_what_amqp_can_say_and_utf_8_can_not_is_refused_in_words(
    content_type: str, headers: dict[Any, Any]
) -> None:
    read = of_amqp(
        content_type,
        {**{f"ce-{name}": EVENT[name] for name in EVENT if name != "data"}, **headers},
        BODY,
    )
    assert isinstance(read, Unread)
    json.dumps([read.errors, read.id, read.source, read.type], ensure_ascii=False).encode()


def test_the_media_type_says_the_mode_and_not_the_header_fields() -> None:
    other = [("ce-id", "b-2"), ("ce-specversion", "0.3")]
    assert one(STRUCTURED, other, json.dumps(EVENT).encode()) == READ


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("%E8%B7%AF%e7%81%af", "路灯"),
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ('"a \\"b\\" %25"', 'a "b" %'),
        ("a+b", "a+b"),
    ],
)
def test_header_values_are_decoded_as_the_binding_says(written: str, meant: str) -> None:
    found = one(PLAIN, [*HEADERS, ("ce-subject", written)], BODY)
    assert isinstance(found, Incoming)
    assert found.subject == meant


@pytest.mark.parametrize("written", ["%E8%B7", "100%", "%zz", "%ff", "è·¯", "%0A"])
def test_a_header_value_that_is_encoded_wrongly_is_named(written: str) -> None:
    found = one(PLAIN, [*HEADERS, ("ce-subject", written)], BODY)
    assert isinstance(found, Unread)
    assert list(found.errors) == ["subject"]
    assert found.id == "a-1"


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=60))
def test_what_is_percent_encoded_as_the_spec_says_comes_back(text: str) -> None:
    plain = {chr(code) for code in range(0x21, 0x7F)} - {'"', "%"}
    encoded = "".join(
        char if char in plain else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in text
    )
    found = one(PLAIN, [*HEADERS, ("ce-subject", encoded)], BODY)
    assert isinstance(found, Incoming)
    assert found.subject == text


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"source": None}, "source"),
        ({"type": "x" * 201}, "type"),
        ({"time": "yesterday"}, "time"),
        ({"datacontenttype": "text/xml"}, "datacontenttype"),
        ({"data_base64": "AAAA"}, "data_base64"),
        ({"Upper": "x"}, "attributes"),
        ({"extension": {"a": 1}}, "extension"),
        ({"subject": "a\nb"}, "subject"),
    ],
)
def test_each_wrong_attribute_is_named(more: dict[str, Any], field: str) -> None:
    assert list(wrong(**more)) == [field]


def test_all_that_is_missing_is_named_at_once() -> None:
    found = one(STRUCTURED, [], b"{}")
    assert isinstance(found, Unread)
    assert set(found.errors) == {"specversion", "id", "source", "type"}


def test_extensions_and_nulls_are_no_mistake() -> None:
    more = {"priority": 3, "urgent": True, "subject": None, "datacontenttype": "application/json"}
    assert one(STRUCTURED, [], json.dumps({**EVENT, **more}).encode()) == READ


def test_what_is_too_large_is_told_so_and_takes_no_other_along() -> None:
    large = {**EVENT, "data": {"title": "x" * LARGEST}}
    bodies = (json.dumps([EVENT, large]).encode(), json.dumps(large).encode())
    good, refused = of_http(BATCH, [], bodies[0])
    assert good == READ
    assert isinstance(refused, Unread)
    assert refused.large
    single = one(STRUCTURED, [], bodies[1])
    assert isinstance(single, Unread)
    assert single.large
    binary = one(PLAIN, HEADERS, bodies[1])
    assert isinstance(binary, Unread)
    assert binary.large


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"\xff", b"[" + b"1," * MOST + b"1]"])
def test_a_batch_that_is_none_is_refused_whole(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"batch|array"):
        of_http(BATCH, [], body)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.binary() | _JSON.map(lambda value: json.dumps(value).encode()), st.data())
def test_whatever_comes_is_read_or_refused(body: bytes, data: st.DataObject) -> None:
    media_type = data.draw(st.sampled_from([STRUCTURED, PLAIN]))
    names = st.sampled_from(["ce-id", "ce-source", "ce-type", "ce-specversion", "ce-x", "ce-ü"])
    fields = data.draw(st.lists(st.tuples(names, st.text())))
    for found in of_http(media_type, fields, body):
        assert isinstance(found, Incoming | Unread)
        assert isinstance(found, Incoming) or found.errors
    headers = data.draw(st.dictionaries(names, _JSON))
    kind = data.draw(st.sampled_from([STRUCTURED, PLAIN, BATCH, None, "x/y"]))
    assert isinstance(of_amqp(kind, headers, body), Incoming | Unread)


@pytest.mark.parametrize(
    "bad", [b'{"id": 1' + b"0" * 5000 + b"}", b'{"a": NaN}', b'"\\ud800"', b"[" * 40 + b"]" * 40]
)
def test_an_event_with_what_cannot_be_kept_takes_no_other_of_its_batch_along(bad: bytes) -> None:
    good = b'{"specversion":"1.0","id":"1","source":"a","type":"t","data":{}}'
    found = of_http(BATCH, [], b" [" + good + b" ,\n" + bad + b"," + good + b"] ")
    assert [type(each) for each in found] == [Incoming, Unread, Incoming]
    for torn in (b"[" + good + b"," + bad, b"[" + bad + b" 1]", b"[" + bad + b"] 1"):
        with pytest.raises(ValueError, match="the batch can't be read"):
            of_http(BATCH, [], torn)
