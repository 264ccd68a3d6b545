"""Whatever an Open311 client sends becomes a report that may be made, or an error that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.bus.dialect import loaded, pairs
from services.bus.problems import Problem
from services.grid.atlas import Atlas
from services.grid.events.case import UpdateSchema
from services.grid.profile import load_folder
from services.intake.api import ReportBody
from services.intake.open311.requests import _as_sent, _body, period
from services.intake.open311.schemas import RequestBody, RequestsQuery, UpdateBody
from services.intake.open311.updates import _text
from services.intake.open311.wire import OPEN311, write
from tests.end_to_end.county import GRID, QUICK

LOADED = load_folder(Path(QUICK))
ATLAS = Atlas(LOADED.directory, {LOADED.profile.id: LOADED.profile}, [LOADED.profile.id])
NOW = "2026-03-02T08:00:00.000Z"

NUMBERS = st.one_of(
    st.floats().map(str),
    st.sampled_from(["19.15", "110.58", "1e999", "-0", "nan", "٣", "0x1", "1_0"]),
)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [GRID, "facility", "沙美村3组", "林某", "13800138000", "\r\n", "urgent", "app", "a@b.cn",
         "https://files.example.cn/灯.jpg", "http://[", "2026-03-02T08:00:00 08:00", "OPEN,closed"]
    ),
)  # fmt: skip
NAMES = st.sampled_from(
    [*(field.data_key or name for schema in (RequestBody(), UpdateBody(), RequestsQuery())
       for name, field in schema.fields.items()), "attribute[x][]", "media_url[]", ""]
)  # fmt: skip


def sent(fields: list[tuple[str, str]]) -> bytes:
    return urlencode(fields, errors="surrogatepass").encode()


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(NAMES, TEXTS), max_size=8),
    st.lists(st.tuples(st.sampled_from(["lat", "long"]), NUMBERS), max_size=2),
)
@example([("service_code", "facility"), ("address_id", GRID), ("phone", "0898 6282 1234")], [])
def test_a_form_is_a_report_or_an_error_with_its_fields(
    fields: list[tuple[str, str]], where: list[tuple[str, str]]
) -> None:
    raw = sent([("service_code", "facility"), *where, *fields])
    try:
        form = loaded(pairs(raw), RequestBody())
        with _as_sent():
            report = _body(form, LOADED.profile, ATLAS)
    except Problem as problem:
        assert problem.status in (400, 404, 422)
        assert OPEN311.errors(problem)["errors"]
        return
    report.pop("media")
    # What a report of ours is: nothing more gets in this way.
    assert ReportBody().validate({k: v for k, v in report.items() if v not in (None, [], "")}) == {}


LINK = "https://files.example.cn/"


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(NAMES, TEXTS), max_size=6))
@example([("description", "好"), ("media_url", LINK + "灯" * 1900), ("media_url", LINK + "2")])
@example([("description", "好"), ("media_url", f"{LINK}13800138000.jpg")])
@example([("description", "\u200b")])
def test_a_form_is_an_update_that_all_may_be_told_or_an_error(
    fields: list[tuple[str, str]],
) -> None:
    raw = sent([("service_request_id", "c-1"), ("update_id", "1"), *fields])
    try:
        text = _text(loaded(pairs(raw), UpdateBody()))
    except Problem as problem:
        assert problem.status in (400, 422)
        assert OPEN311.errors(problem)["errors"]
        return
    assert UpdateSchema(only=("text",)).validate({"text": text}) == {}


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(NAMES, TEXTS), max_size=6))
@example([("start_date", "1970-01-01T00:00:00Z")])
@example([("end_date", "2999-12-31T23:59:59Z")])
def test_a_query_is_a_period_or_an_error(fields: list[tuple[str, str]]) -> None:
    try:
        query: dict[str, Any] = loaded(pairs(sent(fields)), RequestsQuery())
        since, until = period(query, NOW)  # type: ignore[arg-type]
    except Problem as problem:
        assert problem.status in (400, 422)
        return
    assert since <= until


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_an_error(raw: bytes) -> None:
    try:
        assert all(values for values in pairs(raw).values())
    except Problem as problem:
        assert problem.status == 400


@settings(max_examples=500)
@given(st.text(st.characters(), max_size=40))
def test_any_text_is_xml_that_can_be_read(text: str) -> None:
    root = ElementTree.fromstring(write({"services": [{"description": text}]}, "xml"))
    found = root.findtext("service/description") or ""
    assert len(found) == len(text)
    assert all(got in (char, "\ufffd") for got, char in zip(found, text, strict=True))
