"""Talking to the services: JSON in, JSON out, and a :class:`Failure` for whatever goes wrong."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import httpx

from cli.failures import Exit, Failure
from cli.stack import Stack
from services.grid.clock import monotonic
from services.grid.events.bindings import BATCH

Json = dict[str, Any]

# A service gives its answer, or a 503, within 20 seconds.
_SECONDS = 30.0
_PAUSE = 0.3
_PAGE = 200
_READERS = ("operator", "officer")
_AUDITORS = ("auditor", "operator")
TOO_FAST = 429
_TRYING_HELPS = frozenset({502, 503, 504})


class Waiting(NamedTuple):
    """After how many seconds to ask again, and why."""

    seconds: float
    why: str


class Client:
    """The services of one stack.

    What is away is tried again for ``patience`` seconds: every request here may be repeated
    (a report carries an Idempotency-Key, a desk's action done twice counts once).
    """

    def __init__(self, stack: Stack, patience: float = 5.0, seconds: float = _SECONDS) -> None:
        self.stack = stack
        self._patience = patience
        hosts = {_host(name, url) for name, url in stack.services().items()}
        # A proxy of the environment is for servers elsewhere.
        local = hosts <= {"127.0.0.1", "localhost", "::1"}
        self._http = httpx.Client(timeout=seconds, trust_env=not local)

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def report(self, body: Json, key: str) -> Json:
        """Sends a report; the same ``key`` again gets the first answer."""
        headers = {"Idempotency-Key": key}
        roles = ("operator", "reporter")
        return self._ask("POST", f"{self.stack.intake}/v1/cases", roles, body=body, headers=headers)

    def case(self, case: str) -> Json:
        """The register's record of a case."""
        return self._ask("GET", f"{self.stack.intake}/v1/cases/{quote(case, safe='')}", _READERS)

    def timeline(self, case: str) -> list[Json]:
        """Every event of a case, in the order in which intake heard of them."""
        path = f"/v1/cases/{quote(case, safe='')}/timeline"
        return list(self._pages(self.stack.intake + path, {}, "events"))

    def tracking(self, code: str) -> Json:
        """What the public may see of a case."""
        return self._ask("GET", f"{self.stack.intake}/v1/tracking/{quote(code, safe='')}", ())

    def cases(self, **filters: str) -> Iterator[Json]:
        """Cases of the register, page after page."""
        return self._pages(f"{self.stack.intake}/v1/cases", filters)

    def docket(self, level: str, **filters: str) -> Iterator[Json]:
        """Entries of a desk's docket, page after page."""
        return self._pages(f"{self._desk(level)}/cases", filters)

    def duty(self, level: str, **filters: str) -> Iterator[Json]:
        """Who is on duty at each place of a desk, page after page."""
        return self._pages(f"{self._desk(level)}/duty", filters, "places")

    def rates(self, level: str, **filters: str) -> Json:
        """What became of what arrived at a desk: ``{counts, rates, ...}``."""
        return self._ask("GET", f"{self._desk(level)}/rates", _READERS, query=filters)

    def act(self, level: str, case: str, action: str, body: Json, key: str | None = None) -> Json:
        """What an officer does at a desk to a case, such as ``acknowledge``.

        :param key: tells two acts apart that say the same; without it they are one.
        """
        url = f"{self._desk(level)}/cases/{quote(case, safe='')}/{action}"
        headers = {"Idempotency-Key": key} if key else None
        roles = (f"officer:{level}", "officer", "operator")
        return self._ask("POST", url, roles, body=body, headers=headers)

    def calls(self, level: str, **filters: str) -> Iterator[Json]:
        """What the units of a desk are called to, page after page."""
        return self._pages(f"{self._desk(level)}/calls", filters, "calls")

    def answer_call(self, level: str, call: str, action: str, body: Json) -> Json:
        """A unit that was called checks in (``check-in``), or is done (``finish``)."""
        url = f"{self._desk(level)}/calls/{quote(call, safe='')}/{action}"
        return self._ask("POST", url, (f"officer:{level}", "officer", "operator"), body=body)

    def extensions(self, level: str, **filters: str) -> Iterator[Json]:
        """What more time the step below asks a desk for, page after page."""
        return self._pages(f"{self._desk(level)}/extensions", filters, "extensions")

    def answer_extension(self, level: str, extension: str, action: str, body: Json) -> Json:
        """Grants more time (``grant``), or refuses it (``refuse``)."""
        url = f"{self._desk(level)}/extensions/{quote(extension, safe='')}/{action}"
        return self._ask("POST", url, (f"lead:{level}", "lead", "operator"), body=body)

    def duplicates(self, case: str) -> Json:
        """What may be the same matter, the most alike first."""
        url = f"{self.stack.intake}/v1/cases/{quote(case, safe='')}/duplicates"
        return self._ask("GET", url, _READERS)

    def deadlines(self, case: str) -> Json:
        """Every deadline of a case with its rule and what became of it."""
        url = f"{self._custodian()}/v1/cases/{quote(case, safe='')}/deadlines"
        return self._ask("GET", url, _READERS)

    def feedback(self, case: str, body: Json) -> Json:
        """Says what the reporter thinks of how a case was resolved; by its id or tracking code."""
        if _is_id(case):
            url = f"{self.stack.intake}/v1/cases/{case}/feedback"
            return self._ask("POST", url, ("operator",), body=body)
        url = f"{self.stack.intake}/v1/tracking/{quote(case, safe='')}/feedback"
        return self._ask("POST", url, (), body=body)

    def withdraw(self, case: str, reason: str) -> Json:
        """Takes a report back."""
        url = f"{self.stack.intake}/v1/cases/{quote(case, safe='')}/withdraw"
        return self._ask("POST", url, ("operator", "reporter"), body={"reason": reason})

    def reopen(self, case: str, body: Json) -> Json:
        """Takes a resolved case up again."""
        url = f"{self.stack.intake}/v1/cases/{quote(case, safe='')}/reopen"
        return self._ask("POST", url, ("operator", "lead"), body=body)

    def emergencies(self) -> list[Json]:
        """Every division that was ever switched to emergency mode."""
        found = self._ask("GET", f"{self.stack.intake}/v1/emergencies", _READERS)["emergencies"]
        return list(found)

    def emergency_changes(self, division: str, *, on: bool) -> Iterator[Json]:
        """What a switch would change, page after page: ``{cases, refused}``."""
        url = f"{self._custodian()}/v1/emergencies/{quote(division, safe='')}"
        query = {"on": str(on).lower(), "after": ""}
        while True:
            page = self._ask("GET", url, ("operator",), query=query)
            yield page
            if not page["next"]:
                return
            query["after"] = page["next"]

    def switch_emergency(self, division: str, reason: str, *, on: bool) -> Json:
        """Switches a division to emergency mode, or back."""
        action = "begin" if on else "end"
        url = f"{self.stack.intake}/v1/emergencies/{quote(division, safe='')}/{action}"
        return self._ask("POST", url, ("operator",), body={"reason": reason})

    def directory(self, kind: str, **filters: str) -> Iterator[Json]:
        """Entries of the directory, page after page."""
        url = f"{self.stack.intake}/v1/directory"
        return self._pages(url, {"kind": kind, **filters}, "entries", ("operator",))

    def change_directory(self, body: Mapping[str, Any], *, dry_run: bool) -> list[Json]:
        """Makes entries what ``body`` says, or says what would become of them."""
        url = f"{self.stack.intake}/v1/directory"
        answer = self._ask("POST", url, ("operator",), body={**body, "dry_run": dry_run})
        return list(answer["entries"])

    def systems(self) -> list[Json]:
        """The other systems that may come in."""
        found = self._ask("GET", f"{self.stack.intake}/v1/systems", _AUDITORS)["systems"]
        return list(found)

    def add_system(self, name: str, body: Json) -> Json:
        """Adds a system, or says anew what it may; ``key`` is shown just now, if it is new."""
        return self._ask("PUT", self._system(name), ("operator",), body=body)

    def rotate_key(self, name: str, *, sole: bool) -> Json:
        """Makes a new key for a system."""
        url = f"{self._system(name)}/rotate"
        return self._ask("POST", url, ("operator",), body={"sole": sole})

    def remove_system(self, name: str) -> Json:
        """Takes a system away."""
        return self._ask("DELETE", self._system(name), ("operator",))

    def subscribe(self, name: str, body: Json) -> Json:
        """Says which events a system is sent."""
        return self._ask("PUT", f"{self._system(name)}/subscription", ("operator",), body=body)

    def unsubscribe(self, name: str) -> Json:
        """Ends what a system is sent."""
        return self._ask("DELETE", f"{self._system(name)}/subscription", ("operator",))

    def replay(self, name: str, body: Json) -> Json | Waiting:
        """A page of a replay; or, while its queue is too full, when to ask again."""
        try:
            return self._ask("POST", f"{self._system(name)}/replay", ("operator",), body=body)
        except Failure as failure:
            wait = failure.headers.get("retry-after", "")
            if failure.status == TOO_FAST and wait.isdigit():
                return Waiting(float(wait), str(failure))
            raise

    def subscriptions(self) -> list[Json]:
        """What is sent to other systems over HTTP."""
        found = self._ask("GET", self._subscriptions(), _AUDITORS)["subscriptions"]
        return list(found)

    def add_subscription(self, body: Json) -> Json:
        """Has events sent to a sink; ``secret`` is shown just now."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        url = self._subscriptions()
        return self._ask("POST", url, ("operator",), body=body, headers=headers)

    def subscription(self, identity: str, action: str, body: Json) -> Json:
        """Does something with a subscription: ``remove``, ``resume`` or ``replay``."""
        url = f"{self._subscriptions()}/{quote(identity, safe='')}"
        if action == "remove":
            return self._ask("DELETE", url, ("operator",))
        return self._ask("POST", f"{url}/{action}", ("operator",), body=body)

    def _subscriptions(self) -> str:
        if self.stack.notify is None:
            raise Failure(Exit.USAGE, "HUASHI_NOTIFY is not set: write notify's URL")
        return f"{self.stack.notify}/v1/subscriptions"

    def rejected(self, limit: int, **filters: str) -> list[Json]:
        """What other systems sent in vain, the latest first."""
        url = f"{self.stack.intake}/v1/rejected"
        return list(islice(self._pages(url, filters, "rejected", _AUDITORS), limit))

    def events(self, events: list[Json]) -> Json | float:
        """Sends a batch of a system's events; if it is too fast, after how many seconds again."""
        url = f"{self.stack.intake}/v1/events"
        body = json.dumps(events, ensure_ascii=False).encode()
        headers = {"Content-Type": BATCH}
        try:
            return self._ask("POST", url, ("system",), content=body, headers=headers)
        except Failure as failure:
            wait = failure.headers.get("retry-after", "")
            if failure.status == TOO_FAST and wait.isdigit():
                return float(wait)
            raise

    def _system(self, name: str) -> str:
        return f"{self.stack.intake}/v1/systems/{quote(name, safe='')}"

    def audit(self, limit: int, **filters: str) -> list[Json]:
        """The latest entries of all services' audit trails, each with its ``service``."""
        found: list[Json] = []
        for name, url in self.stack.services().items():
            entries = self._pages(f"{url}/v1/audit", filters, "entries", _AUDITORS)
            found += [{"service": name, **entry} for entry in islice(entries, limit)]
        found.sort(key=lambda entry: (entry["real_at"], entry["id"]), reverse=True)
        return found[:limit]

    def ready(self, url: str) -> Json:
        """What a service says of itself: ``{ready, checks}``; asked once, briefly."""
        try:
            answer = self._http.get(f"{url}/readyz", timeout=5)
            return {"ready": answer.status_code == 200, "checks": answer.json().get("checks", {})}
        except (httpx.TransportError, ValueError) as error:
            return {"ready": False, "checks": {}, "error": type(error).__name__}

    def _custodian(self) -> str:
        if self.stack.escalation is None:
            raise Failure(Exit.USAGE, "HUASHI_ESCALATION is not set: write the custodian's URL")
        return self.stack.escalation

    def _desk(self, level: str) -> str:
        try:
            return f"{self.stack.desks[level]}/v1/desks/{level}"
        except KeyError:
            known = ", ".join(self.stack.desks) or "none: set HUASHI_DESKS"
            raise Failure(
                Exit.USAGE, f"there is no desk {level!r}: the desks are {known}"
            ) from None

    def _pages(
        self,
        url: str,
        filters: Mapping[str, str],
        what: str = "cases",
        roles: tuple[str, ...] = _READERS,
    ) -> Iterator[Json]:
        query = {**filters, "limit": str(_PAGE)}
        while True:
            page = self._ask("GET", url, roles, query=query)
            yield from page[what]
            if not page["next"]:
                return
            query["cursor"] = page["next"]

    def _ask(
        self,
        method: str,
        url: str,
        roles: tuple[str, ...],
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        token = self.stack.token(*roles) if roles else None
        sent = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        until = monotonic() + self._patience
        while True:
            away: Failure
            try:
                answer = self._http.request(
                    method, url, params=query, json=body, content=content, headers=sent
                )
            except UnicodeEncodeError as error:
                said = "a token and a --key have plain letters, digits and signs only"
                raise Failure(Exit.USAGE, said) from error
            except httpx.TransportError as error:
                host = urlsplit(url).netloc
                said = f"{host} does not answer ({type(error).__name__}): is the stack running?"
                away = Failure(Exit.UNREACHABLE, said)
            else:
                if answer.status_code not in _TRYING_HELPS:
                    return _read(answer)
                away = _failure(answer)
            if monotonic() > until:
                raise away
            time.sleep(_PAUSE)


def _is_id(case: str) -> bool:
    try:
        return str(uuid.UUID(case)) == case.lower()
    except ValueError:
        return False


def _host(name: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            httpx.URL(url)
            return parts.hostname
    except (ValueError, httpx.InvalidURL):
        pass
    raise Failure(Exit.USAGE, f"{name} is at {url!r}: write a URL such as http://127.0.0.1:8001")


def _read(answer: httpx.Response) -> Json:
    if not answer.is_success:
        raise _failure(answer)
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Failure(
            Exit.UNREACHABLE, f"{answer.request.url.host} does not answer as Huashi does: check it"
        )
    return found


def _failure(answer: httpx.Response) -> Failure:
    try:
        problem = answer.json()
        said = str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        problem, said = None, f"{answer.request.url.host} answered {answer.status_code}"
    codes = {
        404: Exit.NOT_FOUND,
        502: Exit.UNREACHABLE,
        503: Exit.UNREACHABLE,
        504: Exit.UNREACHABLE,
    }
    failure = Failure(codes.get(answer.status_code, Exit.REFUSED), said, problem)
    failure.status, failure.headers = answer.status_code, dict(answer.headers)
    return failure
