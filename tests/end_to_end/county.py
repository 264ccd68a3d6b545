"""A county as its people use it: reports, desks and what they see, over HTTP."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from deploy.local.stack import Stack
from services.grid.clock import Instant, ScaledClock, moment, parse
from services.grid.scope import Scope
from tests.contract import documented

GRID = "46900210421403007"
LEVELS = ("household", "group", "village", "township")
QUICK = str(Path(__file__).parent / "quick")
_PATIENCE_SECONDS = 90.0

T = TypeVar("T")


def eventually(what: str, ask: Callable[[], T], seconds: float = _PATIENCE_SECONDS) -> T:
    """The first answer of ``ask`` that is true; fails with ``what`` if none is in time."""
    until = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < until, f"within {seconds} s: {what}"
        time.sleep(0.05)


class County:
    """A client of a running stack; it tries again while a service is away.

    Every answer must be as the service's OpenAPI document says.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.about: dict[str, Any] = json.loads(stack.description.read_text())
        self._tokens: dict[str, str] = {**self.about["tokens"]}
        clock = self.about["clock"]
        real, virtual = (moment(parse(clock[name])).timestamp() for name in ("real", "virtual"))
        self.clock = ScaledClock(clock["scale"], real, virtual)
        self._http = httpx.Client(timeout=30)

    def let(self, subject: str, role: str, *scope: str | None) -> str:
        """A token for ``subject``, under whose name :meth:`ask` uses it; returns the name."""
        self._tokens[subject] = self.stack.token(subject, role, Scope(*scope))
        return subject

    def ask(self, method: str, url: str, role: str = "operator", **more: Any) -> httpx.Response:
        """One request, sent again while nobody answers or the service says 503."""
        headers = {
            "Authorization": f"Bearer {self._tokens[role]}",
            **more.pop("headers", {}),
        }

        def answered() -> httpx.Response | None:
            try:
                answer = self._http.request(method, url, headers=headers, **more)
            except httpx.TransportError:
                return None
            documented.check(self._service(url), answer)
            return None if answer.status_code == 503 else answer

        return eventually(f"an answer to {method} {url}", answered)

    def _service(self, url: str) -> str:
        known = {self.about[name]: name for name in ("intake", "escalation", "notify")}
        return known.get("/".join(url.split("/")[:3]), "dispatch")

    def report(self, division: str | None = GRID, **more: Any) -> str:
        """Reports a case and returns its id."""
        body = {
            "division": division,
            "title": "文化广场路灯不亮",
            "category": "facility",
            "urgency": "ordinary",
            "source": "app",
            **more,
        }
        answer = self.ask(
            "POST",
            f"{self.about['intake']}/v1/cases",
            "reporter",
            json=body,
            headers={"Idempotency-Key": str(uuid.uuid4())},
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def case(self, case: str) -> dict[str, Any]:
        """What the register shows."""
        found: dict[str, Any] = self.ask("GET", f"{self.about['intake']}/v1/cases/{case}").json()
        return found

    def timeline(self, case: str, kind: str | None = None) -> list[dict[str, Any]]:
        """The events of a case, all or of one type."""
        url = f"{self.about['intake']}/v1/cases/{case}/timeline"
        events = self.ask("GET", url).json()["events"]
        return [event for event in events if kind in (None, event["type"])]

    def custody(self, case: str) -> dict[str, Any]:
        """What the custodian says; empty before it has heard of the case."""
        answer = self.ask("GET", f"{self.about['escalation']}/v1/cases/{case}/deadlines")
        found: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
        return found

    def entry(self, level: str, case: str) -> dict[str, Any] | None:
        """The docket entry of a case at a desk, as its list shows it: the latest."""
        url = f"{self.about['desks'][level]}/v1/desks/{level}/cases?limit=200"
        answer = self.ask("GET", url)
        assert answer.status_code == 200, f"{url}: {answer.text}"
        return next((entry for entry in answer.json()["cases"] if entry["id"] == case), None)

    def act(
        self,
        level: str,
        case: str,
        action: str,
        /,
        role: str = "officer",
        *,
        headers: dict[str, str] | None = None,
        **body: Any,
    ) -> httpx.Response:
        """An officer's action at a desk."""
        url = f"{self.about['desks'][level]}/v1/desks/{level}/cases/{case}/{action}"
        return self.ask("POST", url, role, json=body, headers=headers or {})

    def latest(self, level: str, case: str) -> httpx.Response:
        """The entry of the last time that a case came to a desk, with its ETag."""
        return self.ask("GET", f"{self.about['desks'][level]}/v1/desks/{level}/cases/{case}")

    def _glance(self, level: str, case: str) -> dict[str, Any] | None:
        """The same by itself: who waits for something asks often, and a list may be long."""
        answer = self.latest(level, case)
        assert answer.status_code in (200, 404), answer.text
        found: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
        return found

    def audit(self, service: str, **filters: Any) -> list[dict[str, Any]]:
        """What a service's audit trail has, the latest first; a desk is asked by its level."""
        base = self.about["desks"].get(service) or self.about[service]
        found = self.ask("GET", f"{base}/v1/audit", "auditor", params=filters).json()
        entries: list[dict[str, Any]] = found["entries"]
        return entries

    def arrived(self, level: str, case: str) -> dict[str, Any]:
        """The live docket entry, once the case has come to this desk and was assigned."""

        def live(entry: dict[str, Any] | None) -> dict[str, Any] | None:
            return entry if entry and entry["status"] == "live" and entry["assigned"] else None

        def listed() -> dict[str, Any] | None:
            return live(self._glance(level, case)) and live(self.entry(level, case))

        return eventually(f"{case} at the {level} desk", listed)

    def until(self, due: str) -> None:
        """Waits until the virtual clock is past ``due``."""
        eventually(f"the clock at {due}", lambda: self.clock.now() > Instant(due))

    def settled_everywhere(self, case: str) -> None:
        """Register and custodian agree, and each docket entry but the one that counts ended."""

        def agreed() -> bool:
            shown, held = self.case(case), self.custody(case)
            if not held or shown["token"] != held["custody"]["token"]:
                return False
            current = (shown["token"]["round"], shown["token"]["hop"])
            open_ = shown["token"]["stage"] == "held"

            def fits(entry: dict[str, Any] | None) -> bool:
                if entry is None:
                    return True
                is_current = (entry["round"], entry["hop"]) == current
                return bool((entry["status"] == "live") == (is_current and open_))

            levels = self.about["desks"]
            return all(
                fits(find(level, case)) for find in (self._glance, self.entry) for level in levels
            )

        eventually(f"agreement about {case}", agreed)

    def kill(self, program: str) -> None:
        """Kill -9; the supervisor starts it again."""
        os.kill(self.stack.pid(program), signal.SIGKILL)
