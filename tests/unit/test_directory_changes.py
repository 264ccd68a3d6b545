"""Of a folder and an operator, who both say what the directory is, the last word counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli import directory as cli_directory
from services.bus.errors import Refused
from services.bus.fold import Document, Record
from services.grid.clock import Instant
from services.grid.directory import Officer
from services.grid.profile import Loaded, load_folder
from services.intake import directory, directory_api
from services.intake.directory import Wanted

QUICK = Path(__file__).parents[1] / "end_to_end" / "quick"
NOW = Instant("2026-11-26T01:00:00.000Z")
KEY = "officer:v-214"


class Entries:
    """The directory's collection in memory."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}
        self.published: list[str] = []

    def start(self, loaded: Loaded) -> list[str]:
        """Intake starts with a folder; returns what it publishes."""
        known = list(self.documents.values())
        return self._run(directory.works(loaded, known, NOW, 1.0))[1]

    def say(self, entry: dict[str, Any], *, retired: bool = False) -> str:
        """An operator says what an officer is to be."""
        wanted = Wanted("officer", entry, retired)
        works = [directory.wanted_work(wanted, load_folder(QUICK).directory, NOW, 1.0)]
        return str(self._run(works)[0][0])

    def _run(self, works: list[Any]) -> tuple[list[Any], list[str]]:
        answers, published = [], []
        for work in works:
            decision = work.change(Record(work.key, 1, self.documents.get(work.key)))
            self.documents[work.key] = decision.document
            answers.append(decision.answer)
            published += [event.subject for event in decision.events]
        return answers, published

    @property
    def officer(self) -> Document:
        return self.documents[KEY]


@pytest.fixture
def entries() -> Entries:
    found = Entries()
    assert KEY in found.start(load_folder(QUICK))
    return found


def changed(**to: Any) -> Loaded:
    """The folder with another line for the officer."""
    loaded = load_folder(QUICK)
    officers = [replace(item, **to) if item.id == "v-214" else item for item in loaded.officers]
    return replace(loaded, officers=tuple(officers))


def without() -> Loaded:
    """The folder without the officer."""
    loaded = load_folder(QUICK)
    officers: list[Officer] = [item for item in loaded.officers if item.id != "v-214"]
    return replace(loaded, officers=tuple(officers))


def test_a_start_with_the_same_folder_takes_nothing_back(entries: Entries) -> None:
    said = {**entries.officer["entry"], "on_duty": True}
    assert entries.say(said) == "changed"
    assert entries.say(said) == "unchanged"
    assert entries.start(load_folder(QUICK)) == []
    assert (entries.officer["entry"], entries.officer["version"]) == (said, 2)


def test_a_folder_that_was_changed_since_is_heard_once(entries: Entries) -> None:
    entries.say({**entries.officer["entry"], "on_duty": True})
    assert entries.start(changed(name="符网格长")) == [KEY]
    assert (entries.officer["entry"]["name"], entries.officer["entry"]["on_duty"]) == (
        "符网格长",
        False,
    )
    assert entries.start(changed(name="符网格长")) == []


def test_what_an_operator_retired_stays_away_until_the_folder_says_it_anew(
    entries: Entries,
) -> None:
    entry = entries.officer["entry"]
    assert entries.say(entry, retired=True) == "retired"
    assert entries.start(load_folder(QUICK)) == []
    assert entries.officer["retired"]
    assert entries.start(changed(name="符网格长")) == [KEY]
    assert not entries.officer["retired"]


def test_a_folder_that_leaves_out_what_an_operator_changed_retires_it(entries: Entries) -> None:
    entries.say({**entries.officer["entry"], "on_duty": True})
    assert entries.start(without()) == [KEY]
    assert entries.officer["retired"]
    # And an operator may take it in again, whatever the folder does not say.
    assert entries.say({**entries.officer["entry"]}) == "new"
    assert entries.start(without()) == []
    assert not entries.officer["retired"]


def test_what_only_an_operator_said_no_folder_retires(entries: Entries) -> None:
    entry = {**entries.officer["entry"], "id": "v-300"}
    assert entries.say(entry) == "new"
    assert entries.start(load_folder(QUICK)) == []
    assert entries.documents["officer:v-300"]["origin"] == "operator"
    with pytest.raises(Refused, match="not in the directory"):
        entries.say({**entry, "id": "v-301"}, retired=True)


def test_entries_of_before_this_was_kept_are_taken_for_the_folders_word(entries: Entries) -> None:
    for document in entries.documents.values():
        del document["folder"]
    assert entries.start(load_folder(QUICK)) == []
    assert entries.start(changed(name="符网格长")) == [KEY]


def test_the_roster_that_the_documents_show_can_be_applied(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operating" / "directory.md").read_text("utf-8")
    _before, _, rest = page.partition("    # roster.yaml")
    shown, _, _after = rest.partition("\n\n")
    path = tmp_path / "roster.yaml"
    path.write_text(f"#{shown}".replace("\n    ", "\n"), encoding="utf-8")
    body = directory_api.DirectoryBody().load(cli_directory.read(path))
    (duty,) = body["duties"]
    assert duty["shifts"][0]["days"] == ["Mon", "Tue", "Wed", "Thu", "Fri"]
    assert body["officers"][0]["name"] == "符网格员"
