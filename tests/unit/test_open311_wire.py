"""How Open311 looks: the same body in JSON and XML, and errors as a list."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from services.bus.dialect import pairs
from services.bus.problems import Problem, away, invalid
from services.grid import json
from services.intake.open311.wire import OPEN311, write

BODY = {
    "service_requests": [
        {
            "service_request_id": "1",
            "metadata": True,
            "lat": 19.5,
            "zipcode": None,
            "notes": "<&>\x0b\ud800",
        },
        {"service_request_id": "2", "values": [{"key": "a"}, {"key": "b"}]},
    ]
}


def test_json_is_the_content_and_xml_its_elements() -> None:
    plain = {"services": [{"service_code": "甲", "metadata": False}]}
    assert json.loads(write(plain, "json")) == plain["services"]
    root = ElementTree.fromstring(write(BODY, "xml"))
    first, second = root
    assert [each.tag for each in root] == ["request", "request"]
    assert first.findtext("metadata") == "true"
    assert first.findtext("lat") == "19.5"
    assert first.findtext("zipcode") == ""
    # What XML has no way to write is replaced, so that the rest can be read.
    assert first.findtext("notes") == "<&>\ufffd\ufffd"
    assert [each.text for each in second.iter("key")] == ["a", "b"]
    assert write({"service_requests": []}, "xml").endswith(b"<service_requests/>")
    assert write({"service_requests": []}, "json") == b"[]"


@pytest.mark.parametrize(
    ("problem", "status", "codes"),
    [
        (Problem(401, "no key"), 403, [403]),
        (Problem(403, "not yours"), 403, [403]),
        (Problem(404, "not there"), 404, [404]),
        (Problem(409, "not now"), 400, [409]),
        (Problem(413, "too large"), 400, [413]),
        (invalid({"lat": "wrong", "long": "wrong"}), 400, [422, 422]),
        (Problem(429, "too fast"), 429, [429]),
        (away(), 503, [503]),
        (Problem(500, "a defect"), 500, [500]),
    ],
)
def test_each_problem_is_an_error_of_the_specification(
    problem: Problem, status: int, codes: list[int]
) -> None:
    assert OPEN311.status(problem.status.value) == status
    assert [each["code"] for each in OPEN311.errors(problem)["errors"]] == codes


def test_fields_are_read_as_utf_8_and_what_is_empty_was_not_sent() -> None:
    assert pairs("a=%E7%94%B2&b=&a[]=乙&c=+".encode()) == {"a": ["甲", "乙"], "c": [" "]}
    for raw in (b"a=%ff", b"\xff=1", b"&".join([b"a=1"] * 500)):
        with pytest.raises(Problem) as error:
            pairs(raw)
        assert error.value.status == 400
