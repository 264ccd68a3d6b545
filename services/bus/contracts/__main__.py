"""Writes the contracts that are kept as files: ``python -m services.bus.contracts docs/contracts``.

A contract test makes them again and compares, so that none changes unseen.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from services.bus import web
from services.bus.config import SERVICES


def files() -> dict[str, str]:
    """Name and text of each file: the OpenAPI document of each service."""
    return {
        f"openapi-{service}.json": _text(web.document(_service(service))) for service in SERVICES
    }


def main(folder: Path) -> None:
    """Writes them into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")


def _service(name: str) -> type:
    service: type = importlib.import_module(f"services.{name}.service").Service
    return service


def _text(document: object) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
