"""Open311 GeoReport v2 at ``/open311/v2``: the table of what it answers."""

from __future__ import annotations

from typing import Any

from services.bus.access import Touches
from services.bus.web import Answer, Call, route
from services.intake.door import DoorShell
from services.intake.open311 import catalogue, requests, updates
from services.intake.open311 import schemas as of
from services.intake.open311.wire import OPEN311

SYSTEM = ("system",)
_LIMITS = {
    409: "It is not possible now, or another was sent under the same id.",
    429: "The system sends faster than it may; `Retry-After` says when to come again.",
}
_NOWHERE = {404: "There is no such jurisdiction, service or request."}


class Open311:
    """The part of intake that speaks Open311."""

    shell: DoorShell

    @route(
        "GET",
        "/open311/v2/discovery.<format>",
        query=of.JurisdictionQuery(),
        answers=of.DiscoveryShown(),
        dialect=OPEN311,
    )
    def open311_discovery(self, call: Call) -> dict[str, Any]:
        """Where what is spoken."""
        return catalogue.discovery(self.shell, call)

    @route(
        "GET",
        "/open311/v2/services.<format>",
        query=of.JurisdictionQuery(),
        answers=of.ServiceShown(many=True),
        problems=_NOWHERE,
        dialect=OPEN311,
    )
    def open311_services(self, call: Call) -> dict[str, Any]:
        """The services: the categories of the profile."""
        return catalogue.services(self.shell, call)

    @route(
        "GET",
        "/open311/v2/services/<service_code>.<format>",
        query=of.JurisdictionQuery(),
        answers=of.DefinitionShown(),
        problems=_NOWHERE,
        dialect=OPEN311,
    )
    def open311_definition(self, call: Call, service_code: str) -> dict[str, Any]:
        """What a service can be told besides."""
        return catalogue.definition(self.shell, call, service_code)

    @route(
        "POST",
        "/open311/v2/requests.<format>",
        body=of.RequestBody(),
        may=SYSTEM,
        touches=Touches.ANYWHERE,
        answers=of.CreatedShown(many=True),
        problems=_NOWHERE | _LIMITS,
        repeatable=True,
        by_key=True,
        dialect=OPEN311,
    )
    def open311_report(self, call: Call) -> Answer:
        """A report."""
        return requests.report(self.shell, call)

    @route(
        "GET",
        "/open311/v2/requests.<format>",
        query=of.RequestsQuery(),
        answers=of.RequestShown(many=True),
        problems=_NOWHERE,
        by_key=True,
        dialect=OPEN311,
        knows=SYSTEM,
    )
    def open311_requests(self, call: Call) -> dict[str, Any]:
        """Requests, the latest first: what the county opens, or with a key one's own."""
        return requests.listed(self.shell, call)

    @route(
        "GET",
        "/open311/v2/requests/<service_request_id>.<format>",
        query=of.KeyedQuery(),
        answers=of.RequestShown(many=True),
        by_key=True,
        dialect=OPEN311,
        knows=SYSTEM,
    )
    def open311_request(self, call: Call, service_request_id: str) -> dict[str, Any]:
        """A request, if the county opens it or with a key if it is one's own."""
        return requests.one(self.shell, call, service_request_id)

    @route(
        "GET",
        "/open311/v2/tokens/<token>.<format>",
        query=of.JurisdictionQuery(),
        answers=of.TokenShown(many=True),
        dialect=OPEN311,
    )
    def open311_token(self, call: Call, token: str) -> dict[str, Any]:
        """The request of a tracking code, for whoever knows the code."""
        return requests.token(self.shell, call, token)

    @route(
        "POST",
        "/open311/v2/servicerequestupdates.<format>",
        body=of.UpdateBody(),
        may=SYSTEM,
        touches=Touches.CASES,
        answers=of.UpdateCreated(many=True),
        problems=_NOWHERE | _LIMITS,
        by_key=True,
        dialect=OPEN311,
    )
    def open311_update(self, call: Call) -> Answer:
        """Takes what is known of a request since."""
        return updates.post(self.shell, call)

    @route(
        "GET",
        "/open311/v2/servicerequestupdates.<format>",
        query=of.UpdatesQuery(),
        answers=of.UpdateShown(many=True),
        problems=_NOWHERE,
        by_key=True,
        dialect=OPEN311,
        knows=SYSTEM,
    )
    def open311_updates(self, call: Call) -> dict[str, Any]:
        """What happened to requests, the first first."""
        return updates.listed(self.shell, call)
