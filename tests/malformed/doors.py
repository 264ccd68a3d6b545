"""Sends malformed inputs through a door, good reports among them, and holds the answers to account.

Over HTTP no answer may be a 5xx, each good report of a batch is accepted, and each event of a batch
is answered. Over AMQP each message is answered, and each good report is accepted. What must hold of
the services themselves afterwards is in :class:`Services`.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable
from random import Random
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import amqp
import httpx

from services.bus.topology import INBOUND
from services.grid.clock import monotonic
from services.grid.events.bindings import BATCH, STRUCTURED
from tests.malformed.making import Input, element, encoded, malformed

Tell = Callable[[int], None]

_BATCH = 100
_WAITING = 1500
_PATIENCE_SECONDS = 300.0
_LARGEST_OF_A_BATCH = 8_000


class Unanswered(AssertionError):
    """An input was not answered as it must be."""


class Services:
    """What the processes say of themselves: they are the same ones, and nothing was parked."""

    def __init__(self, about: dict[str, Any]) -> None:
        self._about = about
        self._before = self._read()

    def _read(self) -> dict[str, list[str]]:
        found = {}
        for name in ("intake", "escalation", "notify"):
            answer = httpx.get(f"{self._about[name]}/metrics", timeout=60)
            wanted = ("process_start_time_seconds ", "huashi_events_rejected_total{")
            found[name] = [line for line in answer.text.splitlines() if line.startswith(wanted)]
        return found

    def must_be_well(self) -> None:
        """No process died, none is out of order, nothing was parked as a dead letter.

        :raises Unanswered: what is wrong.
        """
        after = self._read()
        if after != self._before:
            raise Unanswered(f"before: {self._before}, after: {after}")
        answer = httpx.get(f"{self._about['intake']}/readyz", timeout=60)
        if answer.status_code != 200:
            raise Unanswered(f"intake is not ready: {answer.text}")


def report(system: str, division: str) -> dict[str, Any]:
    """A good report."""
    identity = str(uuid.uuid4())
    return {
        "specversion": "1.0",
        "id": identity,
        "source": system,
        "type": "huashi.case.report.v1",
        "data": {
            "reference": identity,
            "division": division,
            "title": "文化广场路灯不亮",
            "category": "facility",
            "urgency": "ordinary",
            "source": "app",
        },
    }


class Pot:
    """Inputs that two doors share: a tenth is each one's own, of the rest each takes as it can."""

    def __init__(self, inputs: int) -> None:
        self._own = dict.fromkeys(("HTTP", "AMQP"), inputs // 10)
        self._rest = inputs - sum(self._own.values())
        self._lock = Lock()
        self.taken: Counter[str] = Counter()

    def take(self, door: str, most: int) -> int:
        """How many a door sends next; none if there are no more."""
        with self._lock:
            if taken := min(self._own[door], most):
                self._own[door] -= taken
            else:
                taken = min(self._rest, most)
                self._rest -= taken
            self.taken[door] += taken
            return taken

    def spill(self) -> None:
        """Nothing is left: of what is known to be wrong nobody waits for the rest."""
        with self._lock:
            self._own, self._rest = dict.fromkeys(self._own, 0), 0


class OverHttp:
    """A system that posts: batches with a good report in each, and single inputs of every kind."""

    def __init__(self, about: dict[str, Any], name: str, key: str, division: str) -> None:
        self._name, self._division = name, division
        self._http = httpx.Client(base_url=about["intake"], timeout=120)
        self._key = {"Authorization": f"Bearer {key}"}
        self.answers: Counter[str] = Counter()
        self.good = 0

    def send(self, pot: Pot, seed: int, tell: Tell) -> None:
        """Sends what the pot has.

        :raises Unanswered: one was not answered as it must be.
        """
        random = Random(seed)
        while count := pot.take("HTTP", _BATCH - 1):
            self._batch([element(random, self._name) for _ in range(count)], random)
            alone = pot.take("HTTP", 10)
            for _ in range(alone):
                self._single(malformed(random, self._name))
            tell(count + alone)

    def _batch(self, events: list[Any], random: Random) -> None:
        texts = [encoded(event) for event in events]
        small = [text for text in texts if len(text) <= _LARGEST_OF_A_BATCH]
        place = random.randrange(len(small) + 1)
        small.insert(place, encoded(report(self._name, self._division)))
        answer = self._post(b"[" + b",".join(small) + b"]", {"Content-Type": BATCH})
        if answer.status_code != 202:
            raise Unanswered(f"{answer.status_code} for {len(small)} events: {answer.text[:2000]}")
        said = answer.json()
        places = sorted(item["index"] for item in [*said["accepted"], *said["rejected"]])
        if places != list(range(len(small))):
            raise Unanswered(f"{answer.status_code} for {len(small)} events: {answer.text[:2000]}")
        if place not in [item["index"] for item in said["accepted"]]:
            raise Unanswered(f"a good report at {place} was refused: {answer.text[:2000]}")
        self.good += 1
        self.answers["accepted"] += len(said["accepted"])
        self.answers["rejected"] += len(said["rejected"])

    def _single(self, made: Input) -> None:
        said = {} if made.encoding is None else {"Content-Encoding": made.encoding}
        headers = {**made.headers, **said, "Content-Type": made.content_type}
        answer = self._post(made.body, headers)
        self.answers[str(answer.status_code)] += 1

    def _post(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        raw = [(name.encode("utf-8"), value.encode("utf-8")) for name, value in headers.items()]
        raw += [(name.encode(), value.encode()) for name, value in self._key.items()]
        answer = self._http.post("/v1/events", content=body, headers=raw)
        if answer.status_code >= 500 or answer.status_code in (401, 429):
            raise Unanswered(f"{answer.status_code} {answer.text[:500]} for {headers} {body!r}")
        return answer


class OverAmqp:
    """A system that publishes inputs of every kind, and a good report among each fifty."""

    def __init__(self, about: dict[str, Any], name: str, account: dict[str, str], to: str) -> None:
        self._name, self._division = name, to
        host = urlsplit(about["amqp"]).netloc.rpartition("@")[2]
        self._connection = amqp.Connection(
            host, userid=account["user"], password=account["password"]
        )
        self._connection.connect()
        self._channel = self._connection.channel()
        self._reader = self._connection.channel()
        self._reader.basic_consume(account["replies"], callback=self._answered, no_ack=True)
        self._waiting = 0
        self._wanted: set[str] = set()
        self.answers: Counter[str] = Counter()
        self.good = 0

    def send(self, pot: Pot, seed: int, tell: Tell) -> None:
        """Publishes what the pot has and waits for all answers.

        :raises Unanswered: one did not come, or a good report was refused.
        """
        random = Random(seed)
        while count := pot.take("AMQP", 50):
            event = report(self._name, self._division)
            self._wanted.add(event["id"])
            self._publish(Input(encoded(event), STRUCTURED, {}))
            for _ in range(count):
                self._publish(malformed(random, self._name))
            if self._waiting >= _WAITING:
                self._until(_WAITING // 2)
            tell(count)
        self._until(0)
        if self._wanted:
            raise Unanswered(f"good reports were not accepted: {sorted(self._wanted)[:10]}")

    def _publish(self, made: Input) -> None:
        message = amqp.Message(
            made.body,
            content_type=made.content_type,
            content_encoding=made.encoding,
            delivery_mode=2,
            application_headers=made.headers,
        )
        self._channel.basic_publish(message, INBOUND, f"{self._name}.case.report")
        self._waiting += 1

    def _until(self, waiting: int) -> None:
        last, quiet = self._waiting, monotonic()
        while self._waiting > waiting:
            try:
                self._connection.drain_events(timeout=1)
            except TimeoutError:
                if monotonic() - quiet > _PATIENCE_SECONDS:
                    raise Unanswered(f"{self._waiting} messages were not answered") from None
            if self._waiting != last:
                last, quiet = self._waiting, monotonic()

    def _answered(self, message: Any) -> None:
        word = message.delivery_info["routing_key"].rpartition(".")[2]
        if word not in ("accepted", "rejected"):
            return
        self._waiting -= 1
        self.answers[word] += 1
        identity = json.loads(message.body)["data"]["id"]
        if identity in self._wanted and word == "accepted":
            self._wanted.remove(identity)
            self.good += 1
