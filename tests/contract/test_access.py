"""Who may what: every route says it, and the table in docs/http.md says the same."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from marshmallow import Schema

from services.bus import auth
from services.bus.access import Touches
from services.bus.config import SERVICES
from services.bus.web import Operations, Route, route

DOCS = Path(__file__).parents[2] / "docs" / "http.md"
PUBLIC = {
    "GET /v1/keys",
    "GET /v1/tracking/<code>",
    "POST /v1/tracking/<code>/feedback",
    "GET /v1/public/cases",
    "GET /open311/v2/discovery.<format>",
    "GET /open311/v2/services.<format>",
    "GET /open311/v2/services/<service_code>.<format>",
    "GET /open311/v2/requests.<format>",
    "GET /open311/v2/requests/<service_request_id>.<format>",
    "GET /open311/v2/tokens/<token>.<format>",
    "GET /open311/v2/servicerequestupdates.<format>",
}
# What who reports may do to their own cases.
OWN = {
    "GET /v1/cases",
    "GET /v1/cases/<case>",
    "POST /v1/cases/<case>/feedback",
    "POST /v1/cases/<case>/withdraw",
    "POST /open311/v2/servicerequestupdates.<format>",
}
# What only reads and is kept in the audit trail nevertheless: who reported a case.
READ_AND_AUDITED = {"GET /v1/cases/<case>/reporter"}
REACHES = {
    Touches.CASES: "the scope",
    Touches.COUNTY: "the whole county",
    Touches.ANYWHERE: "anywhere",
    None: "public",
}


def routes_of(kind: type) -> list[Route]:
    """The routes of a class, in their order, but those that every service has."""
    kinds = [each for each in kind.__mro__ if each is kind or each is not Operations]
    return [
        entrypoint
        for each in kinds
        for member in vars(each).values()
        for entrypoint in getattr(member, "nameko_entrypoints", ())
        if isinstance(entrypoint, Route)
    ]


def services() -> dict[str, list[Route]]:
    """The routes of each service, and what all of them answer."""
    classes = {name: importlib.import_module(f"services.{name}.service") for name in SERVICES}
    found = {name: routes_of(module.Service) for name, module in classes.items()}
    return {**found, "each service": routes_of(Operations)}


def named(declared: Route) -> str:
    return f"{declared.method} {declared.path}"


ALL = [declared for listed in services().values() for declared in listed]


def test_the_routes_are_found() -> None:
    assert {name: bool(listed) for name, listed in services().items()} == dict.fromkeys(
        [*SERVICES, "each service"], True
    )


@pytest.mark.parametrize("declared", ALL, ids=named)
def test_every_route_says_who_may_and_how_far_a_token_must_reach(declared: Route) -> None:
    if named(declared) in PUBLIC:
        assert (declared.may, declared.touches) == ((), None)
        return
    assert declared.may, "a public route is named in PUBLIC, on purpose"
    assert declared.touches in Touches
    reads = declared.method == "GET"
    assert declared.audited == (not reads or named(declared) in READ_AND_AUDITED)
    assert reads or "auditor" not in declared.may
    # Who reports has to do with their own cases, and with nothing of a desk or of the custodian.
    if set(auth.REPORTERS) & set(declared.may) and declared.touches is Touches.CASES:
        assert named(declared) in OWN


def test_the_auditor_reads_all() -> None:
    # All but who reported a case, which is for those who call back.
    unread = {
        named(declared)
        for declared in ALL
        if declared.method == "GET" and declared.may and "auditor" not in declared.may
    }
    assert unread == READ_AND_AUDITED


def test_a_route_that_says_too_little_is_no_route() -> None:
    for wrong in (
        {"may": ("officer",)},
        {"touches": Touches.CASES},
        {"may": ("emperor",), "touches": Touches.CASES},
        {"may": ("auditor",), "touches": Touches.CASES},
    ):
        with pytest.raises(ValueError, match="POST /v1/x"):
            route("POST", "/v1/x", answers=Schema(), **wrong)(lambda: None)  # type: ignore[arg-type]


def table() -> str:
    """Who may what, as docs/http.md has it."""
    short = {"reporter": "rep.", "operator": "oper.", "auditor": "aud.", "system": "sys."}
    head = " | ".join(short.get(role, role) for role in auth.ROLES)
    lines = [f"| | {head} | reaches |", f"| --- |{' :-: |' * len(auth.ROLES)} --- |"]
    for name, listed in services().items():
        lines.append(f"| **{name}** |{' |' * (len(auth.ROLES) + 1)}")
        for declared in listed:
            marks = " | ".join("✓" if role in declared.may else "" for role in auth.ROLES)
            path = declared.path.replace("<", "{").replace(">", "}")
            row = f"| `{declared.method} {path}` | {marks} | {REACHES[declared.touches]} |"
            lines.append(row.replace("|  |", "| |").replace("|  |", "| |"))
    return "\n".join(lines)


def test_the_table_in_the_docs_is_what_the_routes_say() -> None:
    assert table() in DOCS.read_text(), f"put this table into {DOCS.name}:\n\n{table()}\n"
