"""The contracts that are kept as files in ``docs/contracts``; a test makes them again and compares.

``python -m services.bus.contracts docs/contracts`` writes them, with ``--release 0.2.0`` also what
is kept of a release (``released/0.2.0/``); with ``--against docs/contracts/released/0.1.0`` it only
says what would break who relies on that release.
"""

from __future__ import annotations

import importlib
import json

from services.bus import web
from services.bus.config import SERVICES
from services.bus.contracts import asyncapi, page
from services.bus.contracts.schemas import ContractError, Contracts
from services.grid.events import CATALOGUE

__all__ = ["ContractError", "Contracts", "files", "schemas"]


def files() -> dict[str, str]:
    """Path and text of each file.

    They are the OpenAPI document of each service; of the events the AsyncAPI document, a page to
    read, and a JSON Schema each.

    :raises ContractError: an event has no example.
    """
    contracts = _all()
    openapi = {f"openapi-{name}.json": text(web.document(_service(name))) for name in SERVICES}
    return {
        **openapi,
        "asyncapi.json": text(asyncapi.document(contracts)),
        "events.md": page.text(contracts),
        **{f"schemas/{name}.json": text(schema) for name, schema in contracts.schemas().items()},
    }


def schemas() -> dict[str, dict[str, object]]:
    """The JSON Schema of each event, by its full name, with its examples."""
    return _all().schemas()


def _all() -> Contracts:
    """Our events, and what other systems send and are told."""
    of_systems = importlib.import_module("services.intake.catalogue").TYPES
    return Contracts.of([*CATALOGUE.values(), *of_systems])


def text(document: object) -> str:
    """A document as its file has it."""
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _service(name: str) -> type:
    service: type = importlib.import_module(f"services.{name}.service").Service
    return service
