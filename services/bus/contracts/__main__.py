"""Writes the contracts, keeps those of a release, or compares with one; see the package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from services.bus import contracts
from services.bus.contracts import breaks


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 if something breaks a release, 2 if it is not used so."""
    parser = argparse.ArgumentParser(prog="python -m services.bus.contracts")
    parser.add_argument("folder", type=Path, nargs="?", help="where to write, docs/contracts")
    parser.add_argument("--release", metavar="VERSION", help="keep them as those of a release")
    parser.add_argument("--against", type=Path, metavar="RELEASED", help="compare with a release")
    given = parser.parse_args(arguments)
    if given.against is not None:
        return _told(given.against)
    if given.folder is None:
        parser.error("say where to write, such as docs/contracts")
    write(given.folder)
    if given.release is None:
        return 0
    if breaks.version(given.release) is None:
        parser.error(f"{given.release!r} is no version: write numbers, such as 0.2.0")
    return _release(given.folder / "released", given.release)


def write(folder: Path) -> None:
    """Writes all files into a folder, and takes away schemas of events that there are no more."""
    made = contracts.files()
    for name, text in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for path in (folder / "schemas").glob("*.json"):
        if f"schemas/{path.name}" not in made:
            path.unlink()


def _release(released: Path, version: str) -> int:
    """Keeps the schemas, with their examples, as they are now; a release never changes."""
    last = breaks.last(released)
    if last is not None and breaks.newer(last.name, version):
        sys.stderr.write(f"{last.name} is released: choose a version after it\n")
        return 2
    if last is not None and _told(last):
        return 1
    folder = released / version
    folder.mkdir(parents=True)
    for name, schema in contracts.schemas().items():
        (folder / f"{name}.json").write_text(contracts.text(schema), encoding="utf-8")
    return 0


def _told(released: Path) -> int:
    """Says what breaks a release: 1 if something does."""
    found = breaks.against(breaks.read(released), contracts.schemas())
    for each in found:
        sys.stderr.write(f"{each}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
