"""Bulk import: reports as NDJSON, sent as events in batches, with a result for each line.

An event's id is the digest of its line, so that a file can be imported again after whatever went
wrong: what is there already is accepted as what it was.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from rich.console import Console
from rich.progress import Progress

from cli.client import Client
from cli.failures import Exit, Failure
from services.grid import json as strict_json
from services.grid.events.bindings import LARGEST, MOST

Json = dict[str, Any]

_TYPE = "huashi.case.report.v1"
# Below the limit of a request, with room for the envelopes.
_BYTES = 900_000
_ROOM = 1024


def run(
    client: Client, path: Path, system: str, results: Path | None, *, quiet: bool
) -> dict[str, int]:
    """Imports a file; ``results`` gets a line for each line: accepted with the case, or why not.

    :returns: how many lines there were, and what became of them.
    :raises Failure: it can't be read or sent; what was sent stands in ``results``.
    """
    counts: Counter[str] = Counter(lines=0, accepted=0, rejected=0)
    with ExitStack() as stack:
        source = _opened(path, stack)
        size = path.stat().st_size if str(path) != "-" else None
        out: TextIO | None = None
        if results is not None:
            if results.exists() and path.exists() and results.samefile(path):
                raise Failure(Exit.USAGE, f"{results} is what is imported: write another file")
            try:
                out = stack.enter_context(results.open("w", encoding="utf-8"))
            except OSError as error:
                raise Failure(Exit.USAGE, f"{results} can't be written: {error}") from error
        progress = stack.enter_context(Progress(console=Console(stderr=True), disable=quiet))
        task = progress.add_task(path.name, total=size)
        for batch in _batches(source, system):
            for line in _sent(client, batch):
                counts["lines"] += 1
                counts["accepted" if "case" in line else "rejected"] += 1
                if out is not None:
                    out.write(json.dumps(line, ensure_ascii=False) + "\n")
            if out is not None:
                out.flush()
            progress.advance(task, sum(each["size"] for each in batch))
    return dict(counts)


def _opened(path: Path, stack: ExitStack) -> BinaryIO:
    if str(path) == "-":
        return sys.stdin.buffer
    try:
        return stack.enter_context(path.open("rb"))
    except OSError as error:
        raise Failure(Exit.USAGE, f"{path} can't be read: {error}") from error


def _batches(source: BinaryIO, system: str) -> Iterator[list[Json]]:
    """Lines, ``{line, size, event}`` or ``{line, size, errors}``, as many as one request takes."""
    batch: list[Json] = []
    held = 0
    for number, raw in enumerate(source, 1):
        if not raw.strip():
            continue
        if batch and (len(batch) == MOST or held + len(raw) + _ROOM > _BYTES):
            yield batch
            batch, held = [], 0
        batch.append({"line": number, "size": len(raw), **_read(raw, system)})
        held += len(raw) + _ROOM
    if batch:
        yield batch


def _read(raw: bytes, system: str) -> Json:
    if len(raw) > LARGEST:
        why = f"{len(raw)} bytes: an event has at most {LARGEST}"
        return {"errors": [{"field": "line", "detail": why}]}
    try:
        data = strict_json.loads(raw)
    except strict_json.InvalidJson as error:
        return {"errors": [{"field": "line", "detail": f"{error}: write a report, {{...}}"}]}
    event = {
        "specversion": "1.0",
        "id": hashlib.sha256(raw.strip()).hexdigest(),
        "source": f"{system}/import",
        "type": _TYPE,
        "data": data,
    }
    return {"event": event}


def _sent(client: Client, batch: list[Json]) -> Iterator[Json]:
    """What became of each line of a batch, in their order."""
    good = [line for line in batch if "event" in line]
    found: dict[int, Json] = {}
    if good:
        answer = _taken(client, [line["event"] for line in good])
        for each in answer["accepted"]:
            kept = {name: each[name] for name in ("case", "tracking", "reference")}
            found[good[each["index"]]["line"]] = kept
        for each in answer["rejected"]:
            found[good[each["index"]]["line"]] = {"why": each["why"], "errors": each["errors"]}
    for line in batch:
        number = line["line"]
        told = found.get(number) or {"why": "invalid", "errors": line.get("errors", [])}
        yield {"line": number, **told}


def _taken(client: Client, events: list[Json]) -> Json:
    """The answer to a batch; one that comes too fast waits as long as it is told to."""
    while True:
        answer = client.events(events)
        if isinstance(answer, float):
            time.sleep(answer)
        else:
            return answer
