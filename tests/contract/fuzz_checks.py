"""A check of ours for schemathesis, loaded by its command (``SCHEMATHESIS_HOOKS``)."""

from __future__ import annotations

import time
from typing import Any

import requests
import schemathesis

_ATTEMPTS = 15


@schemathesis.check
def answers_in_the_end(_context: Any, response: Any, _case: Any) -> None:
    """No 5xx. A 503 that says so may be asked again, and then there must be an answer."""
    with requests.Session() as session:
        for _ in range(_ATTEMPTS):
            if response.status_code != 503:
                break
            time.sleep(1)
            response = session.send(response.request, timeout=30)
    assert response.status_code < 500, f"{response.status_code}: {response.text}"
