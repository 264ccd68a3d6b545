"""The OpenAPI documents: kept as files, whole, with examples that their own schemas accept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from marshmallow import Schema, fields

from services.bus.auth import ROLES
from services.bus.config import SERVICES
from services.bus.openapi import Shown
from services.bus.web import Call, Operations, document, route, routes
from tests.contract import documented
from tests.end_to_end.county import County


def operations(service: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation that a caller may use."""
    for path, methods in documented.document(service)["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


@pytest.mark.parametrize("service", SERVICES)
def test_each_document_is_sound(service: str) -> None:
    schemathesis.openapi.from_dict(documented.document(service)).validate()


@pytest.mark.parametrize("service", SERVICES)
def test_each_operation_says_what_it_is_and_who_may(service: str) -> None:
    names = [operation["operationId"] for _, operation in operations(service)]
    assert len(names) == len(set(names))
    for name, operation in operations(service):
        assert operation["tags"] in ([service], ["operations"]), name
        assert operation["summary"], name
        assert not operation["summary"].endswith("."), name
        bearer = [{"bearer": []}] if operation.get("x-roles") else []
        if "/open311/" in name and operation["security"]:
            # The key may be a field of the form or query instead.
            bearer = [{"bearer": []}, {}]
        assert operation["security"] == bearer, name
        assert set(operation.get("x-roles", ())) <= set(ROLES), name


@pytest.mark.parametrize("service", SERVICES)
def test_each_request_has_an_example_that_its_schema_accepts(service: str) -> None:
    for name, operation in operations(service):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            validator = documented.validator(service, content["schema"])
            assert [error.message for error in validator.iter_errors(content["example"])] == [], (
                name
            )
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                assert parameter["example"], name
            if "example" in parameter:
                validator = documented.validator(service, parameter["schema"])
                assert validator.is_valid(parameter["example"]), (name, parameter["name"])


@pytest.mark.parametrize("service", SERVICES)
def test_each_example_is_accepted_by_the_service(service: str) -> None:
    for found, _ in routes(documented.service_class(service)):
        for schema in (found.body, found.query):
            if schema is not None:
                example = schema.example  # type: ignore[attr-defined]
                assert schema.validate(example) == {}, f"{found.method} {found.path}"


def test_each_service_serves_its_document_to_anybody(county: County) -> None:
    about = county.about
    for service in SERVICES:
        url = about["desks"]["village"] if service == "dispatch" else about[service]
        answer = httpx.get(f"{url}/openapi.json")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == documented.document(service)


class Body(Schema):
    """A body without an example."""

    note = fields.String()


class Answered(Shown):
    """An answer."""

    note = fields.String()


def handle() -> None:
    """A handler."""


def test_a_route_without_an_example_is_refused_with_the_cure() -> None:
    with pytest.raises(TypeError, match=r"POST /v1/a: write example = .* in Body"):
        route("POST", "/v1/a", body=Body(), answers=Answered())(handle)
    with pytest.raises(TypeError, match=r"GET /v1/a: write example = .* in Body"):
        route("GET", "/v1/a", query=Body(), answers=Answered())(handle)


def test_a_route_without_an_answer_is_refused() -> None:
    with pytest.raises(TypeError, match="answers"):
        route("GET", "/v1/a")  # type: ignore[call-arg]


def test_a_variable_that_nobody_explained_is_refused_with_the_cure() -> None:
    class Service(Operations):
        """A service."""

        name = "tiny"

        @route("GET", "/v1/a/<unheard_of>", answers=Answered())
        def show(self, call: Call, unheard_of: str) -> dict[str, Any]:
            """Shows it."""
            return {}

    with pytest.raises(ValueError, match=r"_PARAMETERS of services\.bus\.openapi"):
        document(Service)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"recipient": "x", "signed": False}, "webhook"),
        ({"recipient": "x", "webhook": None, "signed": False, "more": 1}, "more"),
        ({"recipient": 7, "webhook": None, "signed": False}, "recipient"),
    ],
)
def test_an_answer_that_is_not_as_documented_is_seen(said: dict[str, Any], why: str) -> None:
    request = httpx.Request("PUT", "http://x/v1/contacts/x")
    good = {"recipient": "x", "webhook": None, "signed": False}
    documented.check("notify", httpx.Response(200, json=good, request=request))
    with pytest.raises(AssertionError, match=why):
        documented.check("notify", httpx.Response(200, json=said, request=request))


def test_a_status_that_is_not_documented_is_seen() -> None:
    request = httpx.Request("PUT", "http://x/v1/contacts/x")
    with pytest.raises(AssertionError, match="answered 409"):
        documented.check("notify", httpx.Response(409, json={}, request=request))
